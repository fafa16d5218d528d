-- How many connections of a signed-in user a node has; -1 only asks.
-- KEYS: nodes. ARGV: node, app, user, connections, grace in ms. Returns 1 if the user is online, be it by grace.
local node, app, user, count = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
must_be_alive(node)
if count >= 0 then
    set_user(app, user, node, count, tonumber(ARGV[5]))
end
if redis.call('EXISTS', key('u', app, user)) == 1 then
    return 1
end
return redis.call('ZSCORE', key('due'), joined('o', app, user)) and 1 or 0
