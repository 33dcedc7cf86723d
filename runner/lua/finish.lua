-- Hand over how an attempt ended, once. KEYS: job, lease, results. ARGV: attempt, event, output, seconds to keep, seal.
local attempt = redis.call('HGET', KEYS[1], 'attempt')
if attempt and attempt ~= ARGV[1] then return 0 end
if redis.call('HEXISTS', KEYS[1], 'done') == 1 then return 0 end
redis.call('HSET', KEYS[1], 'done', 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('HDEL', KEYS[1], 'input')
redis.call('DEL', KEYS[2])
redis.call('XADD', KEYS[3], '*', 'event', ARGV[2], 'output', ARGV[3], 'seal', ARGV[5])
return 1
