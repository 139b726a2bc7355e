-- Notes that cells were charged: an index of all of them, by the time of the last note.
-- KEYS ap:{state}:cells   ARGV subject and cell, with a line break between them, …
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for _, cell in ipairs(ARGV) do redis.call('ZADD', KEYS[1], now, cell) end
return now
