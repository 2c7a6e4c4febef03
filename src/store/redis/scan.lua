-- One page of a walk. KEYS: index. ARGV: prefix of entries, lower end, upper end, "down" or "up", most entries, most
-- bytes. Answers {"more" or "end", key, entry or nothing, key, entry or nothing, ...}: at least one entry if there is one.
local prefix, from, to, down = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == 'down'
local most, budget = tonumber(ARGV[5]), tonumber(ARGV[6])
local members
if down then
  members = redis.call('ZRANGE', KEYS[1], to, from, 'BYLEX', 'REV', 'LIMIT', 0, most)
else
  members = redis.call('ZRANGE', KEYS[1], from, to, 'BYLEX', 'LIMIT', 0, most)
end
local page = { #members == most and 'more' or 'end' }
for _, member in ipairs(members) do
  if budget <= 0 then
    page[1] = 'more'
    break
  end
  local raw = redis.call('GET', prefix .. member)
  page[#page + 1] = member
  page[#page + 1] = raw
  budget = budget - #member - (raw and #raw or 0)
end
return page
