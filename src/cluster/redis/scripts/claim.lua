-- Asks to run a request under an idempotency key.
-- KEYS: nodes. ARGV: app, key, digest of the request, token of the asker, ms that a run may take.
-- Returns 'first', 'running', 'other', or the answer behind '='.
local mark = key('idem', ARGV[1], ARGV[2])
local known = redis.call('HMGET', mark, 'request', 'answer')
if not known[1] then
    redis.call('HSET', mark, 'request', ARGV[3], 'token', ARGV[4])
    redis.call('PEXPIRE', mark, ARGV[5])
    return 'first'
elseif known[1] ~= ARGV[3] then
    return 'other'
elseif known[2] then
    return '=' .. known[2]
end
return 'running'
