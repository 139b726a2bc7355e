-- Raises what was spent in a cell to what is known of it from elsewhere, if the cell is not there or was made just now:
-- in an older one, all that was spent is counted.
-- KEYS ap:{subject}:b:<cell>   ARGV spend in nano-USD, age (ms) of a cell that is new
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all, sum, gap, born = redis.call('HGETALL', KEYS[1]), 0, 0, nil
for i = 1, #all, 2 do
  local field, value = all[i], all[i + 1]
  if field == 'born' then born = tonumber(value) end
  if field == 'gap' then gap = tonumber(value) end
  if field == 'dead' or field == 'gap' then sum = sum + tonumber(value) end
  if string.sub(field, 1, 2) == 'b:' then sum = sum + tonumber(string.match(value, '^%d+:(%d+)')) end
end
local is_new = #all == 0 or (born and now - born <= tonumber(ARGV[2]))
local lacks = tonumber(ARGV[1]) - sum
if not is_new or lacks <= 0 then return 0 end
redis.call('HSET', KEYS[1], 'gap', string.format('%.0f', gap + lacks))
if #all == 0 then redis.call('HSET', KEYS[1], 'born', string.format('%.0f', now)) end
return 1
