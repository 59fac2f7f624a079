-- A key-value store on a write-ahead log: the values in memory, every change in the log first.
--
--   local store = assert(require("jdbfs.example.kv").open("settings"))
--   assert(store:put("color", "blue"))                  -- durable when it returns
--   assert(store:write { size = "17", color = false })  -- together or not at all; false deletes
--   print(store:get("color"), store:get("size"))
--   assert(store:compact())                             -- the log is short again
--   store:close()
--
-- Promise: a change that returned is there after any crash; changes of one write are there together
-- or not at all. A damaged log is an error of open, never a wrong value.
--
-- How: a record of the log is a list of changes; opening applies all records in their order.
-- compact writes the values that there are as records of their own and then lets go of the log
-- before them: whatever a crash leaves, applying it from the oldest on gives the same values. Tasks
-- that write at the same time share one write and one flush of the log.

local jdbfs = require "jdbfs"

local WRITERS = 64 -- at once; who takes all these permits is alone
local RECORD = 65536 -- bytes of a record of compact, about

local Store = {}
Store.__index = Store

local M = {}

--- A change as bytes: "+3:5:keyvalue", or "-3:0:key". Lua 5.1 has no string.pack.
function M.encode(key, value)
  local text = value or ""
  return (value and "+" or "-") .. #key .. ":" .. #text .. ":" .. key .. text
end

--- Calls f(key, value, next offset) for each change; value false: deleted.
function M.decode(data, f)
  local at = 1
  while at <= #data do
    local sign, key_length, value_length, from = data:match("^([+-])(%d+):(%d+):()", at)
    if not sign then return nil, "no change at byte " .. at - 1 end
    local behind = from + key_length
    at = behind + value_length
    f(data:sub(from, behind - 1), sign == "+" and data:sub(behind, at - 1), at)
  end
  return true
end

--- Tasks may come back from the log in another order than their records have there.
function M.apply(entries, number, key, value)
  local entry = entries[key]
  if not entry then
    entries[key] = { number = number, value = value }
  elseif entry.number <= number then
    entry.number, entry.value = number, value
  end
end

function Store:get(key)
  local entry = self.entries[key]
  return entry and entry.value or nil
end

--- A table of changes, key = value or false.
function Store:write(changes)
  local parts = {}
  for key, value in pairs(changes) do parts[#parts + 1] = M.encode(key, value) end
  self.gate:acquire()
  local number, message, err = self.log:append(table.concat(parts))
  if number then
    for key, value in pairs(changes) do M.apply(self.entries, number, key, value) end
  end
  self.gate:release()
  return number and true, message, err
end

function Store:put(key, value) return self:write({ [key] = value }) end

function Store:delete(key) return self:write({ [key] = false }) end

--- An iterator of keys and values, in no order.
function Store:pairs()
  local key, entry
  return function()
    repeat key, entry = next(self.entries, key) until not key or entry.value
    return key, entry and entry.value
  end
end

local function write_all(self)
  local first, parts, bytes = nil, {}, 0
  local function append()
    local number, message, err = self.log:append(table.concat(parts))
    first, parts, bytes = first or number, {}, 0
    return number, message, err
  end
  for key, value in self:pairs() do
    parts[#parts + 1] = M.encode(key, value)
    bytes = bytes + #parts[#parts]
    if bytes >= RECORD then
      local ok, message, err = append()
      if not ok then return nil, message, err end
    end
  end
  local ok, message, err = append()
  if not ok then return nil, message, err end
  return self.log:truncate_before(first)
end

--- Nobody writes meanwhile.
function Store:compact()
  for _ = 1, WRITERS do self.gate:acquire() end
  local ok, message, err = write_all(self)
  if ok then
    for key, entry in pairs(self.entries) do
      if not entry.value then self.entries[key] = nil end
    end
  end
  for _ = 1, WRITERS do self.gate:release() end
  return ok, message, err
end

function Store:close() return self.log:close() end

local function load(self, path)
  local cursor = self.log:records()
  while true do
    local number, data, err = cursor:next()
    if not number then return not err, data, err end
    local ok, why = M.decode(data, function(key, value)
      M.apply(self.entries, number, key, value)
    end)
    if not ok then return nil, ("%s, record %d: %s"):format(path, number, why) end
  end
end

--- o: as for jdbfs.log.
function M.open(path, o)
  local log, message, err = jdbfs.log(path, o)
  if not log then return nil, message, err end
  local self = setmetatable({ log = log, entries = {}, gate = jdbfs.semaphore(WRITERS) }, Store)
  local ok
  ok, message, err = load(self, path)
  if ok then return self end
  log:close()
  return nil, message, err
end

return M
