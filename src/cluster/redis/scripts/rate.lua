-- The generic cell rate algorithm over the cluster.
-- KEYS: nodes. ARGV: name of the limit, µs between two, µs of the window, cost in µs. Returns µs to wait; 0: it may happen.
local due_key, window, cost = key('rate', ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local now = now_us()
local next_due = math.max(now, tonumber(redis.call('GET', due_key) or '0')) + cost
local wait = next_due - (now + window)
if wait > 0 then
    return integer(wait)
end
if cost > 0 then
    redis.call('SET', due_key, integer(next_due), 'PX', integer(math.ceil((next_due - now) / 1000) + 1))
end
return '0'
