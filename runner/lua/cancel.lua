-- Ask for a job to end. KEYS: job, lease. ARGV: who asks.
-- The mark is left even where there is no job yet: whoever lays it there later must find it.
redis.call('HSETNX', KEYS[1], 'cancel', ARGV[1])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
if redis.call('EXISTS', KEYS[2]) == 1 then return 'requested' end
if redis.call('HEXISTS', KEYS[1], 'done') == 1 then return 'requested' end
return 'revoked'
