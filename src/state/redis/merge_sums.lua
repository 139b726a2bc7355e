-- KEYS: a span (hash of "boot\nname" -> numbers); ARGV: fields that are added up under "\nname"
for _, field in ipairs(ARGV) do
  local numbers = redis.call('HGET', KEYS[1], field)
  if numbers then
    local name = string.sub(field, string.find(field, '\n', 1, true), -1)
    local sums = {}
    for number in string.gmatch(redis.call('HGET', KEYS[1], name) or '', '%d+') do
      sums[#sums + 1] = tonumber(number)
    end
    local at = 0
    for number in string.gmatch(numbers, '%d+') do
      at = at + 1
      sums[at] = string.format('%.0f', (sums[at] or 0) + tonumber(number))
    end
    redis.call('HDEL', KEYS[1], field)
    redis.call('HSET', KEYS[1], name, table.concat(sums, ' '))
  end
end
return 1
