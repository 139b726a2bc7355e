-- Changes keys and subjects, all or none, if the version is still the one that the change was made for.
-- KEYS ap:{state}:meta, …:keys, …:keys:v, …:subjects, …:subjects:v
-- ARGV version, name of this change, channel, then for each record: k or s, id, record
local version = tonumber(redis.call('HGET', KEYS[1], 'version')) or 0
if version ~= tonumber(ARGV[1]) then
  -- sent twice: the first one did it
  local is_done = redis.call('HGET', KEYS[1], 'change') == ARGV[2]
  return { is_done and 1 or 0, version }
end
version = version + 1
local text = string.format('%.0f', version)
for i = 4, #ARGV, 3 do
  local at = ARGV[i] == 'k' and 2 or 4
  redis.call('HSET', KEYS[at], ARGV[i + 1], ARGV[i + 2])
  redis.call('ZADD', KEYS[at + 1], text, ARGV[i + 1])
end
redis.call('HSET', KEYS[1], 'version', text, 'change', ARGV[2])
-- those who may not publish are found by the poll
redis.pcall('PUBLISH', ARGV[3], text)
return { 1, version }
