-- Ends a run: remembers its answer for ten minutes, or without one gives the key free.
-- KEYS: nodes. ARGV: app, key, token, 1 or 0, the answer.
local mark = key('idem', ARGV[1], ARGV[2])
if redis.call('HGET', mark, 'token') ~= ARGV[3] then
    return 0
end
if ARGV[4] == '0' then
    return redis.call('DEL', mark)
end
redis.call('HSET', mark, 'answer', ARGV[5])
return redis.call('PEXPIRE', mark, 600000)
