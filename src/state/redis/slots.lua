-- Exchanges at once: what each boot may run, which lapses with it. The sum over all boots never exceeds the limit: what a
-- boot has counts until it says otherwise. state/shared/memory.rs does the same, step by step.
-- A server that took over may lack what the one before gave last: it gives nothing until all replicas have told it.
-- KEYS[1]  at (ms), ran (ms for which the store was seen to run: leases lapse on it), learns, young,
--          server (that took the last call), settles, b:<boot> = sequence:claim:lacks:seen, g:<boot> (gave all back while
--          young)
-- ARGV     boot, sequence, last, claim, needs, wishes, limit, known, replicas that the operator runs, server, ms for
--          which replicas may still come to it, moved (1: from another server)
-- Answer   claim, fair, others, wanted (1 or 0), replicas, new; nothing for a late report
local k, boot, sequence = KEYS[1], ARGV[1], tonumber(ARGV[2])
local claim, needs, wishes, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local function text(n) return string.format('%.0f', n) end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local all, f = redis.call('HGETALL', k), {}
for i = 1, #all, 2 do f[all[i]] = all[i + 1] end
local function of(value)
  local s, c, l, n = string.match(value, '^(%d+):(%d+):(%d+):(%d+)$')
  return tonumber(s), tonumber(c), tonumber(l), tonumber(n)
end
local name = 'b:' .. boot
local is_new, before = f.at == nil, f[name]
local had = 0
if before then
  local s, c = of(before)
  if s > sequence then return false end
  had = c
end
local time = (tonumber(f.ran) or 0) + math.max(0, math.min(now - (tonumber(f.at) or now), 2000))
local learns, young = tonumber(f.learns) or 0, tonumber(f.young) or 0
if is_new then young = time + 2000 end
if ARGV[8] == '1' and not before and not f['g:' .. boot] and time < young and learns == 0 then
  -- it is not new: the store lost it, and others may hold what it does not know of
  learns, young = time + 2000, time + 10000
end
local settles = tonumber(f.settles) or 0
if f.server ~= ARGV[10] then
  -- a connection that is old saw no server take over; the last call was one before it did
  if f.server or ARGV[12] == '1' then settles = math.max(settles, time + tonumber(ARGV[11])) end
  redis.call('HSET', k, 'server', ARGV[10], 'settles', text(settles))
end
local live, replicas = {}, 1
for field, value in pairs(f) do
  if string.sub(field, 1, 2) == 'g:' and time >= young then redis.call('HDEL', k, field) end
  if string.sub(field, 1, 2) == 'b:' and field ~= name then
    local _, c, l, seen = of(value)
    if time - seen >= 10000 then
      redis.call('HDEL', k, field)
    else
      replicas = replicas + 1
      live[replicas] = { c, time - seen <= 1500 and l or 0 }
    end
  end
end
local even = math.floor(limit / replicas)
local part = math.max(even, 1)
-- what others have, what they lack, and what of it is due to them
local others, lacking, due = 0, 0, 0
for i = 2, replicas do
  local c, l = live[i][1], live[i][2]
  others, lacking, due = others + c, lacking + l, due + math.min(l, math.max(0, part - c))
end
local free = math.max(0, limit - others - claim)
local room = free
if time < math.max(learns, settles) then
  room = 0
elseif time < young then
  local most = math.max(math.floor(limit / math.max(1, tonumber(ARGV[9]))), learns == 0 and 1 or 0)
  room = math.min(room, math.max(0, most - claim))
end
-- what was given back just now is for others first
local mine = math.min(free, math.max(0, part - claim))
if due > 0 and before and had > claim then mine = 0 end
local given = math.min(needs, room, math.max(mine, free - due))
local spare = math.max(0, math.min(math.max(0, wishes - needs), room - given, free - given - lacking, even - claim - given))
local fair = due > 0 and even or limit
local lacks = needs - given
claim = claim + given + spare
if ARGV[3] == '1' or claim + lacks == 0 then
  if before then redis.call('HDEL', k, name) end
  if time < young then redis.call('HSET', k, 'g:' .. boot, '1') end
else
  redis.call('HSET', k, name, text(sequence) .. ':' .. text(claim) .. ':' .. text(lacks) .. ':' .. text(time))
end
redis.call('HSET', k, 'at', text(now), 'ran', text(time), 'learns', text(learns), 'young', text(young))
redis.call('PEXPIRE', k, 604800000)
return { text(claim), text(fair), text(others), lacking > 0 and 1 or 0, replicas, is_new and 1 or 0 }
