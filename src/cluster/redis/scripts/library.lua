-- What the scripts share; it stands before each of them. One bucket is one slot: KEYS[1] is its `:nodes`, every other key of the
-- bucket is named from the tag before that. Time is the server's own, never a node's.
local TAG = string.sub(KEYS[1], 1, -7)
local NUL = '\0'
-- On a Redis Cluster there is a second key, one that never exists: while the slot moves to another server, Redis refuses a call with it
-- before it began. There, what is published goes to those who have subscribed on the server that holds the slot.
local PUBLISH = KEYS[2] and 'SPUBLISH' or 'PUBLISH'
local KEPT_WEBHOOKS = 100000

local function now_us()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local function integer(number)
    return string.format('%.0f', number)
end

local function key(...)
    return TAG .. ':' .. table.concat({ ... }, ':')
end

local function joined(...)
    return table.concat({ ... }, NUL)
end

-- Nobody may write under the id of a node that was taken out: it would come back as a ghost.
local function must_be_alive(node)
    if not redis.call('ZSCORE', KEYS[1], node) then
        error({ err = 'FENCED this node was taken out of the cluster' })
    end
end

local function must_own(node)
    if redis.call('GET', key('owner')) ~= node then
        error({ err = 'NOTOWNER another node looks after this bucket' })
    end
end

-- What does not fit into the stream is counted; whoever owns the bucket tells.
local function append(...)
    if redis.call('XLEN', key('webhooks')) >= KEPT_WEBHOOKS then
        redis.call('INCR', key('webhooks', 'dropped'))
    else
        redis.call('XADD', key('webhooks'), '*', ...)
    end
end

-- Fields: app, kind, channel, user, count, time in ms.
local function report(app, kind, channel, user, count)
    append('app', app, 'kind', kind, 'channel', channel, 'user', user or '', 'count', count or 0, 'time',
        integer(math.floor(now_us() / 1000)))
end

local function due_in(grace_ms, ...)
    redis.call('ZADD', key('due'), integer(now_us() + grace_ms * 1000), joined(...))
end

-- True if it was due and is not any more.
local function no_longer_due(...)
    return redis.call('ZREM', key('due'), joined(...)) == 1
end

local function occupancy(app, channel)
    local total = 0
    for _, count in ipairs(redis.call('HVALS', key('ch', app, channel, 'nodes'))) do
        total = total + count
    end
    return total
end

-- One more change of a channel's members: subscribers of the bucket's channel learn it with its number.
local function announce_member(app, channel, sign, user, info)
    local version = key('ch', app, channel, 'version')
    redis.call('HSETNX', version, 'epoch', integer(now_us()))
    local seq = redis.call('HINCRBY', version, 'seq', 1)
    local epoch = redis.call('HGET', version, 'epoch')
    redis.call(PUBLISH, key('ch', app, channel), '1M' .. joined(epoch, integer(seq), sign, user, info))
end

local function is_connected(app, channel, user)
    for _, node in ipairs(redis.call('HKEYS', key('ch', app, channel, 'nodes'))) do
        if redis.call('HEXISTS', key('ch', app, channel, 'conns'), joined(user, node)) == 1 then
            return true
        end
    end
    return false
end

-- `options`: h webhooks are wanted, q nothing is reported. The user has `count` connections on `node` now; false if there is no room.
local function set_member(app, channel, node, user, count, info, options, limit, grace_ms)
    local members, conns = key('ch', app, channel, 'members'), key('ch', app, channel, 'conns')
    local is_member = redis.call('HEXISTS', members, user) == 1
    if count > 0 then
        if not is_member then
            if redis.call('HLEN', members) >= limit then
                return false
            end
            redis.call('HSET', members, user, info)
            announce_member(app, channel, '+', user, info)
            local returned = no_longer_due('m', app, channel, user)
            if options.hooks and not options.quiet and not returned then
                report(app, 'member_added', channel, user)
            end
        end
        redis.call('HSET', conns, joined(user, node), count)
    else
        redis.call('HDEL', conns, joined(user, node))
        if is_member and not is_connected(app, channel, user) then
            redis.call('HDEL', members, user)
            announce_member(app, channel, '-', user, '')
            if options.hooks then
                due_in(grace_ms, 'm', app, channel, user)
            end
        end
    end
    return true
end

-- The node has `count` subscriptions of the channel now.
local function set_count(app, channel, node, count, options, grace_ms)
    local nodes = key('ch', app, channel, 'nodes')
    local before = redis.call('EXISTS', nodes) == 1
    if count > 0 then
        redis.call('HSET', nodes, node, count)
        redis.call('SADD', key('node', node), joined('c', app, channel))
    else
        redis.call('HDEL', nodes, node)
        redis.call('SREM', key('node', node), joined('c', app, channel))
    end
    local after = redis.call('EXISTS', nodes) == 1
    if after then
        redis.call('ZADD', key('channels', app), 0, channel)
    end
    if after and not before then
        local returned = no_longer_due('v', app, channel)
        if options.hooks and not options.quiet and not returned then
            report(app, 'channel_occupied', channel)
        end
    elseif before and not after then
        redis.call('ZREM', key('channels', app), channel)
        redis.call('DEL', key('ch', app, channel, 'version'))
        if options.hooks then
            due_in(grace_ms, 'v', app, channel)
        end
    end
end

-- Up to 100 subscribers each change of their number is told, above at most every 5 s; the last number always is.
local FEW_SUBSCRIBERS, PAUSE_MS = 100, 5000

local function tell_count(app, channel, hooks)
    local total = occupancy(app, channel)
    redis.call(PUBLISH, key('ch', app, channel), '1C' .. integer(total))
    redis.call('SET', key('ch', app, channel, 'told'), '1', 'PX', PAUSE_MS)
    if hooks then
        report(app, 'subscription_count', channel, '', total)
    end
end

local function count_changed(app, channel, hooks)
    if occupancy(app, channel) <= FEW_SUBSCRIBERS then
        no_longer_due('n', app, channel, hooks and 'h' or '')
        tell_count(app, channel, hooks)
    else
        local wait = math.max(redis.call('PTTL', key('ch', app, channel, 'told')), 0)
        redis.call('ZADD', key('due'), 'NX', integer(now_us() + wait * 1000), joined('n', app, channel, hooks and 'h' or ''))
    end
end

-- The node has `count` connections of the signed-in user now; true if the user is online.
local function set_user(app, user, node, count, grace_ms)
    local conns = key('u', app, user)
    local before = redis.call('EXISTS', conns) == 1
    if count > 0 then
        redis.call('HSET', conns, node, count)
        redis.call('SADD', key('node', node), joined('u', app, user))
    else
        redis.call('HDEL', conns, node)
        redis.call('SREM', key('node', node), joined('u', app, user))
    end
    local after = redis.call('EXISTS', conns) == 1
    if after and not before then
        if not no_longer_due('o', app, user) then
            redis.call(PUBLISH, conns, '1O')
        end
    elseif before and not after then
        due_in(grace_ms, 'o', app, user)
    end
end

local function options_of(text)
    local has = function(letter) return string.find(text, letter, 1, true) ~= nil end
    return { hooks = has('h'), newcomers = has('n'), quiet = has('q'), list = has('l'), presence = has('p'), counts = has('c'), kept = has('k') }
end
