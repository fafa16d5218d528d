-- A node's sign of life. Whoever finds the bucket without an owner becomes it; the owner marks silent nodes for the reaper.
-- KEYS: nodes. ARGV: node, 1 to be let in or 0, node time-out in ms, lease in ms.
-- Returns: epoch of this Redis's data, 1 if the node is in the cluster, 1 if it owns the bucket, nodes that have to be reaped, the node that
-- should own the bucket (of those that are alive the one with the lowest id), the time, how many nodes there are.
local node, joining, timeout_ms, lease_ms = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_us()
redis.call('SET', key('epoch'), integer(now), 'NX')
local epoch = redis.call('GET', key('epoch'))
local owner, last = redis.call('GET', key('owner')), redis.call('ZSCORE', KEYS[1], node)
if not last and not joining then
    return { epoch, 0, 0, {}, '', integer(now), 0 }
end
redis.call('ZADD', KEYS[1], integer(now), node)
-- Whoever could not be heard for so long himself, or finds nobody in charge at all, knows nothing of the others: it may have been Redis
-- that was away, and then they are about to come back.
local was_silent
if last then
    was_silent = now - last > timeout_ms * 1000
else
    was_silent = not owner
end
if was_silent and redis.call('ZCARD', KEYS[1]) > 1 then
    redis.call('SET', key('patience'), '1', 'PX', timeout_ms)
end
if not owner then
    redis.call('SET', key('owner'), node, 'PX', lease_ms)
elseif owner == node then
    redis.call('PEXPIRE', key('owner'), lease_ms)
else
    return { epoch, 1, 0, {}, '', integer(now), redis.call('ZCARD', KEYS[1]) }
end
local heir = node
for _, alive in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], integer(now - timeout_ms * 500), '+inf')) do
    heir = alive < heir and alive or heir
end
if redis.call('EXISTS', key('patience')) == 1 then
    return { epoch, 1, 1, redis.call('SMEMBERS', key('reaping')), heir, integer(now), redis.call('ZCARD', KEYS[1]) }
end
for _, silent in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', integer(now - timeout_ms * 1000))) do
    redis.call('ZREM', KEYS[1], silent)
    redis.call('SADD', key('reaping'), silent)
end
return { epoch, 1, 1, redis.call('SMEMBERS', key('reaping')), heir, integer(now), redis.call('ZCARD', KEYS[1]) }
