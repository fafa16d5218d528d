-- The generic cell rate algorithm over the cluster. The key goes when there is nothing left to remember, written with its end in one command.
-- KEYS: nodes. ARGV: name of the limit, µs of the window, cost in µs. Returns µs to wait (0: it may happen), µs until as much may happen as
-- ever.
local due_key, window, cost = key('rate', ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_us()
local due = math.max(now, tonumber(redis.call('GET', due_key) or '0'))
local wait = due + cost - (now + window)
if wait > 0 then
    return { integer(wait), integer(due - now) }
end
if cost > 0 then
    due = due + cost
    redis.call('SET', due_key, integer(due), 'PX', integer(math.ceil((due - now) / 1000) + 1))
end
return { '0', integer(due - now) }
