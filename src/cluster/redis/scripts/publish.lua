-- Publishes an event that a cache channel keeps, or that must not be published twice.
-- KEYS: nodes. ARGV: app, channel, header (node NUL excluded socket), frame, ms to keep it (0: not), key of the request or '', field,
-- time after which nobody waits for it any more.
-- Returns the number of a kept event, or 0; -1 if it was published before.
local app, channel, header, frame, ttl_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
-- A server that stood still, and is no master any more but does not know yet, would tell all subscribers what was published anew meanwhile.
if now_us() > tonumber(ARGV[8]) then
    error({ err = 'LATE whoever published this has given up' })
end
local once = ARGV[6] ~= '' and key('once', app, ARGV[6])
if once and redis.call('HEXISTS', once, ARGV[7]) == 1 then
    return '-1'
end
local number = '0'
if ttl_ms > 0 then
    local cache = key('ch', app, channel, 'cache')
    local last = tonumber(redis.call('HGET', cache, 'number') or '0')
    number = integer(math.max(now_us(), last + 1))
    redis.call('HSET', cache, 'number', number, 'frame', frame)
    redis.call('PEXPIRE', cache, ttl_ms)
    redis.call(PUBLISH, key('ch', app, channel), '1K' .. number .. NUL .. header .. NUL .. frame)
else
    redis.call(PUBLISH, key('ch', app, channel), '1E' .. header .. NUL .. frame)
end
if once then
    redis.call('HSET', once, ARGV[7], number)
    redis.call('PEXPIRE', once, 600000)
end
return number
