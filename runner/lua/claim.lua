-- Let one worker begin an attempt. KEYS: job, lease.
-- ARGV: attempt, instance, lease seconds, most starts, fingerprint of the worker's seal.
local attempt = redis.call('HGET', KEYS[1], 'attempt')
if attempt ~= ARGV[1] then return {'drop'} end
-- Before the lease: whoever has another seal must not keep the job from those who have the right one.
if (redis.call('HGET', KEYS[1], 'sealer') or '') ~= ARGV[5] then return {'forged'} end
if redis.call('HEXISTS', KEYS[1], 'done') == 1 then return {'drop'} end
local actor = redis.call('HGET', KEYS[1], 'cancel')
if actor then return {'canceled', actor} end
local holder = redis.call('GET', KEYS[2])
if holder and string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then return {'drop'} end
local starts = redis.call('HINCRBY', KEYS[1], 'starts:' .. ARGV[1], 1)
if starts > tonumber(ARGV[4]) then return {'poisoned'} end
redis.call('SET', KEYS[2], ARGV[1] .. ':' .. ARGV[2], 'EX', ARGV[3])
return {'go', redis.call('HGET', KEYS[1], 'input'), redis.call('HGET', KEYS[1], 'seal') or '',
  redis.call('HGET', KEYS[1], 'traceparent') or ''}
