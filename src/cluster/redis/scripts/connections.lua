-- How many connections of an app a node has.
-- KEYS: nodes. ARGV: node, app, connections, limit (-1: none). Returns 1, or 0 if the cluster would have more than the limit: then
-- nothing is changed.
local node, app, count, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
must_be_alive(node)
local conns = key('app', app, 'conns')
if limit >= 0 then
    local total = count
    for position, value in ipairs(redis.call('HGETALL', conns)) do
        if position % 2 == 1 then
            total = total + (value == node and 0 or tonumber(redis.call('HGET', conns, value)))
        end
    end
    if total > limit then
        return 0
    end
end
if count > 0 then
    redis.call('HSET', conns, node, count)
    redis.call('SADD', key('node', node), joined('a', app))
else
    redis.call('HDEL', conns, node)
    redis.call('SREM', key('node', node), joined('a', app))
end
return 1
