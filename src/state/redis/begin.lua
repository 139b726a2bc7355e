-- Marks the keys as ours, with the version of their layout and the pepper that all replicas have.
-- KEYS ap:{state}:meta, …:keys, …:keys:v, …:subjects, …:subjects:v, …:checkpoints, …:cells
-- ARGV schema, fingerprint of the pepper
local types = { 'hash', 'hash', 'zset', 'hash', 'zset', 'zset', 'zset' }
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key)['ok']
  if found ~= 'none' and found ~= types[i] then return { 'foreign', key } end
end
local schema = redis.call('HGET', KEYS[1], 'schema')
if not schema then
  if redis.call('EXISTS', KEYS[1]) == 1 then return { 'foreign', KEYS[1] } end
  redis.call('HSET', KEYS[1], 'schema', ARGV[1])
elseif (tonumber(schema) or math.huge) > tonumber(ARGV[1]) then
  return { 'newer', schema }
end
local pepper = redis.call('HGET', KEYS[1], 'pepper')
if pepper ~= ARGV[2] then
  -- without keys no digest depends on it
  if pepper and redis.call('EXISTS', KEYS[2]) == 1 then return { 'pepper', '' } end
  redis.call('HSET', KEYS[1], 'pepper', ARGV[2])
end
return { 'ours', schema or '' }
