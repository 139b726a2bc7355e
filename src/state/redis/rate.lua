-- A rate: the generic cell rate algorithm, with debt. Each boot has a register of what it has charged, so that a
-- report that is sent twice changes nothing. state/shared/memory.rs does the same, step by step.
-- KEYS[1]  at, full (microseconds), b:<boot> = sequence:charged:asked:seen
-- ARGV     boot, sequence, last (1: of its boot), charged (microseconds), confirmed, full as it saw it, asks (1 or 0)
-- Answer   full, now, replicas that asked of late, place of the boot among them (-1: none); nothing for a late report
local k, boot, sequence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local function text(n) return string.format('%.0f', n) end
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local all, f = redis.call('HGETALL', k), {}
for i = 1, #all, 2 do f[all[i]] = all[i + 1] end
local function of(value)
  local s, c, a, n = string.match(value, '^(%d+):(-?%d+):(%d+):(%d+)$')
  return tonumber(s), tonumber(c), tonumber(a), tonumber(n)
end
-- a clock that is set back takes the bucket with it
local full = math.max(0, (tonumber(f.full) or 0) - math.max(0, (tonumber(f.at) or 0) - now))
local last, asked = tonumber(ARGV[5]), 0
local before = f['b:' .. boot]
if before then
  local s, c, a = of(before)
  if s > sequence then return false end
  last, asked = c, a
else
  full = math.max(full, tonumber(ARGV[6]))
end
if ARGV[7] == '1' then asked = now end
full = math.max(full, now) + (tonumber(ARGV[4]) - last)
full = math.max(now, math.min(full, now + 6000000000))
if ARGV[3] == '1' then
  redis.call('HDEL', k, 'b:' .. boot)
  f['b:' .. boot] = nil
  redis.call('HSET', k, 'at', text(now), 'full', text(full))
else
  local mine = text(sequence) .. ':' .. ARGV[4] .. ':' .. text(asked) .. ':' .. text(now)
  f['b:' .. boot] = mine
  redis.call('HSET', k, 'at', text(now), 'full', text(full), 'b:' .. boot, mine)
end
local replicas, rank, is_among = 0, 0, false
for name, value in pairs(f) do
  if string.sub(name, 1, 2) == 'b:' then
    local _, _, a, seen = of(value)
    if now - seen > 60000000 then
      redis.call('HDEL', k, name)
    elseif a > 0 and now - a <= 10000000 then
      replicas = replicas + 1
      local other = string.sub(name, 3)
      if other == boot then is_among = true elseif other < boot then rank = rank + 1 end
    end
  end
end
redis.call('PEXPIRE', k, text(math.ceil((full - now) / 1000) + 120000))
return { text(full), text(now), replicas, is_among and rank or -1 }
