-- KEYS: session (hash); ARGV: the merged record, then registers and the records that were merged
-- changes nothing if one of them was written meanwhile
for at = 2, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then
    return 0
  end
end
for at = 2, #ARGV, 2 do
  redis.call('HDEL', KEYS[1], ARGV[at])
end
redis.call('HSET', KEYS[1], '', ARGV[1])
return 1
