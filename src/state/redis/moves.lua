-- KEYS: moves (stream); ARGV: position, most entries, life in ms, then the moves to add
-- returns {position, age in ms, move, ...} of the moves after the position
for at = 4, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'm', ARGV[at])
end
if #ARGV > 3 then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local after = ARGV[1]
if after == '' then
  after = string.format('%.0f', math.max(0, now - ARGV[3])) .. '-0'
end
local read = redis.call('XREAD', 'COUNT', 1000, 'STREAMS', KEYS[1], after)
local found = { after }
if read and read[1] then
  for _, entry in ipairs(read[1][2]) do
    found[1] = entry[1]
    local at = tonumber(string.match(entry[1], '^%d+'))
    found[#found + 1] = string.format('%.0f', math.max(0, now - at))
    found[#found + 1] = entry[2][2]
  end
end
return found
