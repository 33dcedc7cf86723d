-- Keep the lease of an attempt. KEYS: job, lease. ARGV: attempt, instance, lease seconds.
-- A Redis that lost its memory knows no attempt: the worker goes on, and the database decides.
local attempt = redis.call('HGET', KEYS[1], 'attempt')
if attempt and attempt ~= ARGV[1] then return {0} end
if redis.call('HEXISTS', KEYS[1], 'done') == 1 then return {0} end
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. ARGV[2], 'EX', ARGV[3])
return {1, redis.call('HGET', KEYS[1], 'cancel')}
