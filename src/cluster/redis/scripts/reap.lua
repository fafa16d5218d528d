-- Takes out some of what a dead node has left, as ordinary leaves. Called again until nothing is left; another owner may go on.
-- KEYS: nodes. ARGV: owner, dead node, how many at most, grace in ms, then the apps with webhooks (h:APP) and with counts (c:APP).
-- Returns how many it took; with 0 the node is forgotten.
local owner, dead, most, grace_ms = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
must_own(owner)
if redis.call('SISMEMBER', key('reaping'), dead) == 0 then
    return 0
end
local wants = {}
for position = 5, #ARGV do
    wants[ARGV[position]] = true
end
local held = redis.call('SRANDMEMBER', key('node', dead), most)
for _, entry in ipairs(held) do
    local kind, app, name = string.match(entry, '^(%a)%z([^%z]*)%z?(.*)$')
    local options = { hooks = wants['h:' .. app] }
    if kind == 'c' then
        local conns, ending = key('ch', app, name, 'conns'), NUL .. dead
        for _, field in ipairs(redis.call('HKEYS', conns)) do
            if string.sub(field, -#ending) == ending then
                set_member(app, name, dead, string.sub(field, 1, -#ending - 1), 0, '', options, 0, grace_ms)
            end
        end
        set_count(app, name, dead, 0, options, grace_ms)
        if wants['c:' .. app] and string.sub(name, 1, 9) ~= 'presence-' then
            count_changed(app, name, options.hooks)
        end
    elseif kind == 'u' then
        set_user(app, name, dead, 0, grace_ms)
    else
        redis.call('HDEL', key('app', app, 'conns'), dead)
        redis.call('SREM', key('node', dead), entry)
    end
end
if #held == 0 then
    redis.call('SREM', key('reaping'), dead)
end
return #held
