-- A node that ends in order: what it still holds is left to the reaper, who need not wait for it.
-- KEYS: nodes. ARGV: node.
local node = ARGV[1]
if redis.call('ZREM', KEYS[1], node) == 1 and redis.call('EXISTS', key('node', node)) == 1 then
    redis.call('SADD', key('reaping'), node)
end
if redis.call('GET', key('owner')) == node then
    redis.call('DEL', key('owner'))
end
return 1
