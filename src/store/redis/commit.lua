-- One batch, as one: reads what it expects, then decides, then writes. See mod.rs for the layout.
-- KEYS: counter, index, expiries, scratch, then the entry of each expectation and of each operation, in order.
-- ARGV: length of the prefix of entries, number of expectations, number of operations, newest imported version;
--       for each expectation: what, version; for each operation: what, a, b, c.
-- Answers: {"done", version}, {"conflict", n, version or ""}, {"invalid", n, why}, {"corrupt", n}; n counts from 1.
local counter, index, expiries, scratch = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local skip, expectations, operations = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local NEVER, LAST_MS, MAX_PURGED = '-', 9007199254740991, 8
local first_key, next_arg = 4, 5

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

-- Versions go past the 53 bits that a number holds, so they are compared and counted as digits.
local function newer(a, b)
  return #a > #b or (#a == #b and a > b)
end

local function successor(n)
  local head, nines = string.match(n, '^(%d-)(9*)$')
  local zeros = string.rep('0', #nines)
  if head == '' then
    return '1' .. zeros
  end
  return string.sub(head, 1, -2) .. tostring(tonumber(string.sub(head, -1)) + 1) .. zeros
end

local function is_live(expires)
  return expires == NEVER or tonumber(expires) > now
end

local corrupt = {}

-- The live entry at a key: version, expires, value; or nothing.
local function live(key)
  local raw = redis.call('GET', key)
  if not raw then
    return nil
  end
  local version, expires, at = string.match(raw, '^1 (%d+) ([%d%-]+)\n()')
  if not version then
    return corrupt
  end
  if not is_live(expires) then
    return nil
  end
  return { version = version, expires = expires, value = string.sub(raw, at) }
end

for n = 1, expectations do
  local found = live(KEYS[first_key + n])
  local what, version = ARGV[next_arg], ARGV[next_arg + 1]
  next_arg = next_arg + 2
  if found == corrupt then
    return { 'corrupt', tostring(n) }
  end
  local holds
  if what == 'at' then
    holds = found and found.version == version
  elseif what == 'present' then
    holds = found
  else
    holds = not found
  end
  if not holds then
    return { 'conflict', tostring(n), found and found.version or '' }
  end
end
first_key = first_key + expectations

-- The time in microseconds is the least that a version may be: a server that forgot its counter repeats none.
local last = redis.call('GET', counter) or '0'
local version = string.format('%.0f', tonumber(time[1]) * 1000000 + tonumber(time[2]))
if not newer(version, last) then
  version = successor(last)
end
local newest = '0'

-- What the batch makes of each key: an entry, or false for none.
local made, order = {}, {}

local function make(key, entry)
  if made[key] == nil then
    order[#order + 1] = key
  end
  made[key] = entry
end

local function digits(text)
  local sign, number = string.match(text, '^([+-]?)0*(%d+)$')
  if not number then
    return nil
  end
  if sign == '+' or number == '0' then
    sign = ''
  end
  return sign .. number
end

-- Numbers here are exact to 53 bits only, so the server's own counters add.
local function sum(value, delta)
  local number = digits(value)
  if not number then
    return nil
  end
  redis.call('SET', scratch, number)
  local answer = redis.pcall('INCRBY', scratch, delta)
  local total = redis.call('GET', scratch)
  redis.call('DEL', scratch)
  if type(answer) == 'table' then
    return nil
  end
  return total
end

for n = 1, operations do
  local key = KEYS[first_key + n]
  local what, a, b, c = ARGV[next_arg], ARGV[next_arg + 1], ARGV[next_arg + 2], ARGV[next_arg + 3]
  next_arg = next_arg + 4
  if what == 'put' or what == 'cursor' then
    local expires = NEVER
    if b ~= '' then
      expires = string.format('%.0f', math.min(now + tonumber(b), LAST_MS))
    end
    make(key, { version = version, expires = expires, value = a, hidden = what == 'cursor' })
  elseif what == 'delete' then
    make(key, false)
  elseif what == 'import' then
    make(key, { version = b, expires = c, value = a })
  elseif what == 'add' then
    local current = made[key]
    if current == nil then
      current = live(key)
    end
    if current == corrupt then
      return { 'corrupt', tostring(expectations + n) }
    end
    if not current or not is_live(current.expires) then
      current = { value = '0', expires = NEVER }
    end
    local total = sum(current.value, a)
    if not total then
      return { 'invalid', tostring(n), 'no counter, or it would overflow' }
    end
    make(key, { version = version, expires = current.expires, value = total })
  end
  if what ~= 'import' then
    newest = version
  end
end
if newer(ARGV[4], newest) then
  newest = ARGV[4]
end

-- From here on everything is decided, and nothing can fail half-way.
local prefix = string.sub(KEYS[5] or '', 1, skip)
if order[1] then
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', expiries, '-inf', now, 'LIMIT', 0, MAX_PURGED)) do
    redis.call('DEL', prefix .. member)
    redis.call('ZREM', index, member)
    redis.call('ZREM', expiries, member)
  end
end
for _, key in ipairs(order) do
  local entry, member = made[key], string.sub(key, skip + 1)
  if entry and is_live(entry.expires) then
    local raw = '1 ' .. entry.version .. ' ' .. entry.expires .. '\n' .. entry.value
    if entry.expires == NEVER or tonumber(entry.expires) >= LAST_MS then
      redis.call('SET', key, raw)
      redis.call('ZREM', expiries, member)
    else
      redis.call('SET', key, raw, 'PXAT', entry.expires)
      redis.call('ZADD', expiries, entry.expires, member)
    end
    if not entry.hidden then
      redis.call('ZADD', index, 0, member)
    end
  else
    redis.call('DEL', key)
    redis.call('ZREM', index, member)
    redis.call('ZREM', expiries, member)
  end
end
if newer(newest, last) then
  redis.call('SET', counter, newest)
end
return { 'done', newest }
