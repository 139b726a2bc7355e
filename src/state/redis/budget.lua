-- A budget in one period. Each boot has a register of what it has spent, holds money for what runs, and keeps a part
-- that the store gave it: what all have spent, hold and keep never exceeds the limit by the store's doing. What a boot
-- that lapsed held counts as spent, what it kept is free. state/shared/memory.rs does the same, step by step.
-- KEYS[1]  at (ms), ran (ms for which the store was seen to run: leases lapse on it), dead (of boots that ended), gap
--          (what was spent by boots that the store has forgotten: one that is back takes its part out), born (ms), learns,
--          b:<boot> = sequence:spent:held:kept:lapses:asked:lacks (asked -1: never); counted among dead:
--          l:<boot> = counted:since (it lapsed: one that rested comes back), e:<boot> = counted:until (its last report)
-- ARGV     boot, sequence, last, spent, held, kept, asks, limit, known, ended as it saw it, spent as it saw it, keep (s)
-- Answer   spent, held by others, given, rest (1 or 0), fair, wanted, ended, replicas, new; nothing for a late report
--          ended: the sum of those that do not come back, and each of the others: 70 boot-a:20 boot-b:5; empty for none
local k, boot, sequence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local spent, held, kept, asks = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local limit = tonumber(ARGV[8])
local function text(n) return string.format('%.0f', n) end
local function counted(value) return tonumber(string.match(value, '^(%d+):')) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, f = redis.call('HGETALL', k), {}
for i = 1, #all, 2 do f[all[i]] = all[i + 1] end
local function of(value)
  local s, p, h, r, x, a, l = string.match(value, '^(%d+):(%d+):(%d+):(%d+):(%d+):(-?%d+):(%d+)$')
  return tonumber(s), tonumber(p), tonumber(h), tonumber(r), tonumber(x), tonumber(a), tonumber(l)
end
local name = 'b:' .. boot
local is_new, before, asked = f.at == nil, f[name], -1
if before then
  local s, _, _, _, _, a = of(before)
  if s > sequence then return false end
  asked = a
end
local time = (tonumber(f.ran) or 0) + math.max(0, math.min(now - (tonumber(f.at) or now), 2000))
local dead, gap, learns = tonumber(f.dead) or 0, tonumber(f.gap) or 0, tonumber(f.learns) or 0
local tomb = f['l:' .. boot] or f['e:' .. boot]
if tomb then
  dead = math.max(0, dead - counted(tomb))
  redis.call('HDEL', k, 'l:' .. boot, 'e:' .. boot)
  f['l:' .. boot], f['e:' .. boot] = nil, nil
elseif not before and ARGV[9] == '1' then -- the store lost it: a boot that is back is counted by itself
  local running = 0
  for field, value in pairs(f) do
    if string.sub(field, 1, 2) == 'b:' then
      local _, p = of(value)
      running = running + p
    end
  end
  local whole = math.max(dead + running + gap, tonumber(ARGV[11]))
  local sum = tonumber(string.match(ARGV[10], '^%d+')) or 0
  for field, value in pairs(f) do
    if string.sub(field, 1, 2) == 'l:' then sum = sum + counted(value) end
  end
  dead = math.max(dead, sum)
  for it, its in string.gmatch(ARGV[10], ' ([^ :]+):(%d+)') do
    local known = f['l:' .. it]
    local more = tonumber(its) - (known and counted(known) or 0)
    if it ~= boot and not f['b:' .. it] and not f['e:' .. it] and (not known or more > 0) then
      dead = dead + more
      f['l:' .. it] = its .. ':' .. text(time)
      redis.call('HSET', k, 'l:' .. it, f['l:' .. it])
    end
  end
  gap = math.max(0, whole - dead - running - spent)
  if is_new then learns = time + 2000 end
end
local others, others_kept, live, lacking, replicas, lapsed = 0, 0, spent, 0, 0, {}
for field, value in pairs(f) do
  local kind, it = string.sub(field, 1, 2), string.sub(field, 3)
  if kind == 'b:' and field ~= name then
    local _, p, h, r, x, a, l = of(value)
    if x <= time then
      dead = dead + p + h
      redis.call('HDEL', k, field)
      redis.call('HSET', k, 'l:' .. it, text(p + h) .. ':' .. text(time))
      lapsed[#lapsed + 1] = { it, p + h, time }
    else
      others, others_kept, live = others + h, others_kept + r, live + p
      if a >= 0 and time - a <= 10000 then replicas = replicas + 1 end
      if a >= 0 and l > 0 and time - a <= 1500 then lacking = 1 end
    end
  elseif kind == 'l:' then
    lapsed[#lapsed + 1] = { it, counted(value), tonumber(string.match(value, ':(%d+)$')) }
  elseif kind == 'e:' and tonumber(string.match(value, ':(%d+)$')) <= time then
    redis.call('HDEL', k, field)
  end
end
if #lapsed > 128 then -- the oldest are known by their sum alone
  table.sort(lapsed, function(a, b) return a[3] > b[3] or (a[3] == b[3] and a[1] > b[1]) end)
  while #lapsed > 128 do redis.call('HDEL', k, 'l:' .. table.remove(lapsed)[1]) end
end
if asks > 0 then asked = time end
if asked >= 0 and time - asked <= 10000 then replicas = replicas + 1 end
local sum = dead + live + gap
local free = math.max(0, limit - sum - others - others_kept - held - kept)
local fair = math.max(asks, math.floor((free + kept) / (replicas + 1)))
local given = kept
if asks > 0 and time >= learns and (kept + free >= asks or others + others_kept == 0) then
  given = kept + math.min(free, math.max(0, fair - kept))
end
local is_rest = others + others_kept == 0 and given >= free + kept and time >= learns
if ARGV[3] == '1' then
  dead = dead + spent + held
  redis.call('HDEL', k, name)
  redis.call('HSET', k, 'e:' .. boot, text(spent + held) .. ':' .. text(time + 3600000))
else
  local lacks = math.max(0, asks - given)
  redis.call('HSET', k, name, text(sequence) .. ':' .. text(spent) .. ':' .. text(held) .. ':' .. text(given) .. ':' ..
    text(time + 10000) .. ':' .. text(asked) .. ':' .. text(lacks))
end
local ended = { '' }
if dead > 0 or #lapsed > 0 then
  local gone = dead
  for i, it in ipairs(lapsed) do
    gone = gone - it[2]
    ended[i + 1] = it[1] .. ':' .. text(it[2])
  end
  ended[1] = text(gone)
end
if is_new then redis.call('HSET', k, 'born', text(now)) end
redis.call('HSET', k, 'at', text(now), 'ran', text(time), 'dead', text(dead), 'gap', text(gap), 'learns', text(learns))
if ARGV[12] ~= '0' then redis.call('EXPIRE', k, ARGV[12]) end
return { text(sum), text(others), text(given), is_rest and 1 or 0, text(fair), lacking, table.concat(ended, ' '), replicas, is_new and 1 or 0 }
