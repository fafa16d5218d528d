-- A webhook event that no change of occupancy brings: a client's event, or a subscriber who met an empty cache (once in 10 s).
-- KEYS: nodes. ARGV: app, kind, channel, the event as JSON.
local app, kind, channel = ARGV[1], ARGV[2], ARGV[3]
if kind == 'cache_miss' and not redis.call('SET', key('ch', app, channel, 'missed'), '1', 'NX', 'PX', 10000) then
    return 0
end
append('app', app, 'kind', kind, 'channel', channel, 'json', ARGV[4], 'time', integer(math.floor(now_us() / 1000)))
return 1
