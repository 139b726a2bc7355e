-- KEYS: heartbeats (hash), times (zset); ARGV: boot, text (empty: leave), life in ms
-- returns {boot, age in ms, text, ...} of the replicas that run
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local life = tonumber(ARGV[3])
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('ZADD', KEYS[2], now, ARGV[1])
end
for _, boot in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - life)) do
  redis.call('HDEL', KEYS[1], boot)
  redis.call('ZREM', KEYS[2], boot)
end
redis.call('PEXPIRE', KEYS[1], 6 * life)
redis.call('PEXPIRE', KEYS[2], 6 * life)
local found = {}
local seen = redis.call('ZRANGE', KEYS[2], 0, -1, 'WITHSCORES')
for at = 1, #seen, 2 do
  local text = redis.call('HGET', KEYS[1], seen[at])
  if text then
    found[#found + 1] = seen[at]
    found[#found + 1] = string.format('%.0f', math.max(0, now - seen[at + 1]))
    found[#found + 1] = text
  end
end
return found
