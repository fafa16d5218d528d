-- What Redis holds under a node's id, some of it at a time.
-- KEYS: nodes. ARGV: node, cursor, about how many. Returns the next cursor, and for each entry of the node: the entry, its number,
-- epoch and seq of the channel's members, [user, connections …].
local node, cursor, most = ARGV[1], ARGV[2], ARGV[3]
must_be_alive(node)
local page = redis.call('SSCAN', key('node', node), cursor, 'COUNT', most)
local found = {}
for _, entry in ipairs(page[2]) do
    local kind, app, name = string.match(entry, '^(%a)%z([^%z]*)%z?(.*)$')
    local count, version, users = false, {}, {}
    if kind == 'c' then
        -- What is missing from the lists that are read is not there.
        count = redis.call('ZSCORE', key('channels', app), name) and redis.call('HGET', key('ch', app, name, 'nodes'), node)
        version = redis.call('HMGET', key('ch', app, name, 'version'), 'epoch', 'seq')
        local members, conns, ending = key('ch', app, name, 'members'), key('ch', app, name, 'conns'), NUL .. node
        for _, field in ipairs(redis.call('HKEYS', conns)) do
            local user = string.sub(field, 1, -#ending - 1)
            if string.sub(field, -#ending) == ending then
                table.insert(users, user)
                table.insert(users, redis.call('HEXISTS', members, user) == 1 and redis.call('HGET', conns, field) or '0')
            end
        end
    elseif kind == 'u' then
        count = redis.call('HGET', key('u', app, name), node)
    end
    table.insert(found, { entry, count or '0', version[1] or '0', version[2] or '0', users })
end
return { page[1], found }
