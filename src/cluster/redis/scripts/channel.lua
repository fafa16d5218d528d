-- What a node has of a channel, in absolute numbers, so it may be sent again after an unknown outcome.
-- KEYS: nodes. ARGV: node, app, channel, subscriptions, options, member limit, grace in ms, then for each user whose connections here
-- have changed: user, connections, info. Options: h webhooks are wanted, q registration after a loss (nothing is reported), p presence,
-- l give the whole list, c subscribers are told their number, n even if it is the same, since some are new, k give the kept event.
-- Returns: epoch, seq, users that found no room, [user, info …] or nil, [number, frame, ms left] or nil.
local node, app, channel = ARGV[1], ARGV[2], ARGV[3]
local count, options, limit, grace_ms = tonumber(ARGV[4]), options_of(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
must_be_alive(node)

local before = occupancy(app, channel)
local refused = {}
-- Whoever comes stands in a channel that is occupied; whoever leaves last leaves one that still is.
if count > 0 then
    set_count(app, channel, node, count, options, grace_ms)
end
for position = 8, #ARGV, 3 do
    local user, connections = ARGV[position], tonumber(ARGV[position + 1])
    if not set_member(app, channel, node, user, connections, ARGV[position + 2], options, limit, grace_ms) then
        table.insert(refused, user)
        count = count - connections
    end
end
if count <= 0 or #refused > 0 then
    set_count(app, channel, node, count, options, grace_ms)
end
if options.counts and (options.newcomers or occupancy(app, channel) ~= before) then
    count_changed(app, channel, options.hooks)
end

local version = redis.call('HMGET', key('ch', app, channel, 'version'), 'epoch', 'seq')
local list, kept = false, false
if options.list and options.presence then
    list = redis.call('HGETALL', key('ch', app, channel, 'members'))
end
if options.kept then
    local cache = key('ch', app, channel, 'cache')
    local event = redis.call('HMGET', cache, 'number', 'frame')
    if event[1] then
        kept = { event[1], event[2], redis.call('PTTL', cache) }
    end
end
return { version[1] or '0', version[2] or '0', refused, list, kept }
