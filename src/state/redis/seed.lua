-- Adds spend of earlier times to a cell that has none.
-- KEYS ap:{subject}:b:<cell>   ARGV spend in nano-USD
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'dead', ARGV[1])
return 1
