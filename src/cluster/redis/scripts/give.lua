-- An owner hands the bucket over to another node, which learns it with its next sign of life.
-- KEYS: nodes. ARGV: owner, heir, lease in ms. Returns 1, or 0 if the heir has gone meanwhile.
local owner, heir, lease_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
must_own(owner)
if not redis.call('ZSCORE', KEYS[1], heir) then
    return 0
end
redis.call('SET', key('owner'), heir, 'PX', lease_ms)
return 1
