-- Take consumers that hold nothing off the group. KEYS: results. ARGV: group, least milliseconds of silence, a name or ''.
-- In one piece: who is given an entry before stays, and who reads afterwards is made anew by Redis.
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then  -- a Redis that lost its memory has no group yet
  local missing = string.find(consumers.err, 'NOGROUP') or string.find(consumers.err, 'no such key')
  return missing and 0 or consumers
end
for _, told in ipairs(consumers) do
  local one = {}
  for at = 1, #told, 2 do one[told[at]] = told[at + 1] end
  local meant = ARGV[3] == '' or ARGV[3] == one.name
  if meant and one.pending == 0 and one.idle >= tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
  end
end
return 0
