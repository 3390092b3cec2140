-- Takes up to ARGV[4] requests out of the token bucket KEYS[1] and returns how
-- many were taken, how many are left, in how many microseconds there is another
-- one (0: now), and in how many the bucket is full.
--
-- ARGV[1] requests come back in ARGV[2] microseconds; the bucket holds ARGV[3].
-- What is missing is counted in units of which a request takes ARGV[2] and a
-- microsecond gives back ARGV[1]: whole numbers below 2^53, which are exact.
local requests, per, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]) * tonumber(ARGV[2])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local debt, at = 0, now
local kept = redis.call('GET', KEYS[1])
if kept then
  local d, a = string.match(kept, '^(%d+) (%d+)$')
  if not d then
    return redis.error_reply('OUTRIGGER the key holds something else')
  end
  debt, at = tonumber(d), tonumber(a)
end
if now > at then
  debt = math.max(0, debt - (now - at) * requests)
end
debt = math.min(debt, most)
local taken = math.min(tonumber(ARGV[4]), math.floor((most - debt) / per))
debt = debt + taken * per
local full = math.ceil(debt / requests)
if taken > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', debt, now), 'PX', string.format('%.0f', math.ceil(full / 1000) + 1))
end
local wait = 0
if debt > most - per then
  wait = math.ceil((debt - (most - per)) / requests)
end
return {taken, math.floor((most - debt) / per), wait, full}
