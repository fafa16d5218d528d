-- What has become due: departures whose grace is over, numbers that were not told yet.
-- KEYS: nodes. ARGV: owner, how many at most. Returns how many there were, and how many events for webhooks
-- found no room in the stream since the last time.
local owner, most = ARGV[1], tonumber(ARGV[2])
must_own(owner)
local entries = redis.call('ZRANGEBYSCORE', key('due'), '-inf', integer(now_us()), 'LIMIT', 0, most)
for _, entry in ipairs(entries) do
    redis.call('ZREM', key('due'), entry)
    local parts = {}
    for part in string.gmatch(entry .. NUL, '([^%z]*)%z') do
        table.insert(parts, part)
    end
    local kind, app, name, more = parts[1], parts[2], parts[3], parts[4]
    if kind == 'v' and redis.call('EXISTS', key('ch', app, name, 'nodes')) == 0 then
        report(app, 'channel_vacated', name)
    elseif kind == 'm' and redis.call('HEXISTS', key('ch', app, name, 'members'), more) == 0 then
        report(app, 'member_removed', name, more)
    elseif kind == 'o' and redis.call('EXISTS', key('u', app, name)) == 0 then
        redis.call(PUBLISH, key('u', app, name), '1F')
    elseif kind == 'n' then
        tell_count(app, name, more == 'h')
    end
end
return { #entries, tonumber(redis.call('GETDEL', key('webhooks', 'dropped')) or '0') }
