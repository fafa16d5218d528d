-- Says which database a node has, unless a live one has another.
-- KEYS: nodes. ARGV: who, the store's id, ms for which that holds; 0: it has ended. Returns the other's id, or nothing.
local stores, who, store, ttl = key('stores'), ARGV[1], ARGV[2], tonumber(ARGV[3])
if ttl == 0 then
    redis.call('HDEL', stores, who)
    return ''
end
local now = math.floor(now_us() / 1000)
local known = redis.call('HGETALL', stores)
for position = 1, #known, 2 do
    local its, till = string.match(known[position + 1], '^(%S+) (%d+)$')
    if not its or tonumber(till) < now then
        redis.call('HDEL', stores, known[position])
    elseif its ~= store and known[position] ~= who then
        return its
    end
end
redis.call('HSET', stores, who, store .. ' ' .. integer(now + ttl))
redis.call('PEXPIRE', stores, integer(ttl))
return ''
