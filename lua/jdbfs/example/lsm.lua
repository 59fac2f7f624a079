-- A small log-structured merge tree: a log, a table in memory, sorted runs on disk, compaction.
--
--   local tree = assert(require("jdbfs.example.lsm").open("tree", { memory = 4 * 1048576 }))
--   assert(tree:put("key", "value"))   -- durable when it returns
--   print(tree:get("key"))
--   assert(tree:delete("key"))
--   for key, value in tree:range("a", "b") do print(key, value) end  -- "a" <= key < "b"
--   tree:close()
--
-- Promise: a change that returned is there after any crash, be it in the log, in a run or between
-- the two. Every block that is read is checked against its checksum.
--
-- How: a change goes to the log and then to the table in memory. A full table becomes a run: a file
-- of blocks of sorted changes with an index at its end. The run is made durable, then the manifest
-- that names it, by atomic_write, and only then does the log let go of its records. Files that no
-- manifest names are removed at the next opening. Four runs are merged into one.

local jdbfs = require "jdbfs"
local kv = require "jdbfs.example.kv"

local BLOCK, RUNS, WRITERS, FOOTER = 4096, 4, 64, 48

local function checksum(data)
  local buffer = jdbfs.buffer(math.max(1, #data))
  buffer:set(0, data)
  return buffer:crc32c(0, #data)
end

-- ---- runs ---------------------------------------------------------------------------------------

local function read_checked(run, offset, length, crc)
  local data, message = run.file:read(offset, length)
  if not data then return nil, message end
  if #data == length and checksum(data) == crc then return data end
  return nil, ("%s is damaged at %d"):format(run.file:path(), offset)
end

-- next_change() gives key, value in order, nil at the end.
local function write_run(path, next_change)
  local file, message = jdbfs.create(path, { durable_create = true })
  if not file then return nil, message end
  local writer
  writer, message = jdbfs.writer(file, { block = 65536 })
  if not writer then return nil, message end
  local index, block, bytes, first = {}, {}, 0, nil
  local function end_block()
    local data = table.concat(block)
    index[#index + 1] = ("%d:%d:%d:%d:"):format(#first, writer:position(), #data,
      checksum(data)) .. first
    block, bytes, first = {}, 0, nil
    return writer:write(data)
  end
  local ok = true
  for key, value in next_change do
    first = first or key
    block[#block + 1] = kv.encode(key, value)
    bytes = bytes + #block[#block]
    if bytes >= BLOCK then ok, message = end_block() end
    if not ok then break end
  end
  if ok and first then ok, message = end_block() end
  local data, at = table.concat(index), writer:position()
  local footer = ("%d:%d:%d:"):format(at, #data, checksum(data))
  if ok then ok, message = writer:write(data, footer .. (" "):rep(FOOTER - #footer)) end
  if ok then ok, message = writer:sync() end
  writer:close()
  file:close()
  return ok, message
end

local function open_run(path)
  local file, message = jdbfs.open(path)
  if not file then return nil, message end
  local run = { file = file, blocks = {} }
  local size = file:size() or 0
  local footer = file:read(math.max(0, size - FOOTER), FOOTER) or ""
  local at, length, crc = footer:match("^(%d+):(%d+):(%d+):")
  if not at then return nil, path .. " has no footer" end
  local data
  data, message = read_checked(run, tonumber(at), tonumber(length), tonumber(crc))
  if not data then return nil, message end
  local from = 1
  while from <= #data do
    local key, offset, bytes, sum, behind = data:match("^(%d+):(%d+):(%d+):(%d+):()", from)
    from = behind + key
    run.blocks[#run.blocks + 1] = { key = data:sub(behind, from - 1), offset = tonumber(offset),
      length = tonumber(bytes), crc = tonumber(sum) }
  end
  return run
end

-- The last block whose first key is not behind `key`; 1 at least.
local function find_block(run, key)
  local low, high = 1, #run.blocks
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if run.blocks[middle].key <= key then low = middle else high = middle - 1 end
  end
  return low
end

local function each_change(run, number, f)
  local block = run.blocks[number]
  local data, message = read_checked(run, block.offset, block.length, block.crc)
  if not data then return nil, message end
  return kv.decode(data, f)
end

-- true and the value; false when it was deleted there, nil when the run does not know the key.
local function get_from(run, key)
  local found
  if #run.blocks == 0 then return true end
  local ok, message = each_change(run, find_block(run, key), function(k, value)
    if k == key then found = value end
  end)
  if not ok then return nil, message end
  return true, found
end

local function close_runs(runs)
  for _, run in ipairs(runs) do run.file:close() end
end

-- Whoever reads holds the runs: those that were merged meanwhile are closed by their last reader.
-- A file that is open keeps its room, and with some systems its name, after it was removed.
local function hold_runs(self)
  self.runs.readers = (self.runs.readers or 0) + 1
  return self.runs
end

local function release_runs(self, runs)
  runs.readers = runs.readers - 1
  if runs.readers == 0 and runs ~= self.runs then close_runs(runs) end
end

-- ---- the tree -----------------------------------------------------------------------------------

local Tree = {}
Tree.__index = Tree

local function sorted(entries, from, to)
  local keys, i = {}, 0
  for key in pairs(entries) do
    if (not from or key >= from) and (not to or key < to) then keys[#keys + 1] = key end
  end
  table.sort(keys)
  return function()
    i = i + 1
    if keys[i] then return keys[i], entries[keys[i]].value end
  end
end

-- All changes of some runs and tables, later ones over earlier ones, into one table.
local function merged(runs, tables, from, to)
  local entries, number = {}, 0
  local function add(key, value)
    if (not from or key >= from) and (not to or key < to) then
      entries[key] = { number = number, value = value }
    end
  end
  for _, run in ipairs(runs) do
    local last = to and find_block(run, to) or #run.blocks
    for block = from and find_block(run, from) or 1, math.min(last, #run.blocks) do
      local ok, message = each_change(run, block, add)
      if not ok then return nil, message end
    end
  end
  for _, entries_of in ipairs(tables) do
    for key, entry in pairs(entries_of) do add(key, entry.value) end
  end
  return entries
end

-- What the manifest says is what is there after a crash.
local function write_manifest(self, names, from)
  local ok, message, err = jdbfs.atomic_write(self.path .. "/MANIFEST",
    ("%d\n%s\n"):format(from, table.concat(names, "\n")))
  if ok then self.names, self.from = names, from end
  return ok, message, err
end

local function new_run(self, next_change)
  self.made = self.made + 1
  local name = ("run-%06d"):format(self.made)
  local run, message = write_run(self.path .. "/" .. name, next_change)
  if run then run, message = open_run(self.path .. "/" .. name) end
  return run, run and name or message
end

local function merge_into_one(self, old_runs)
  local entries, message = merged(old_runs, {})
  if not entries then return nil, message end
  for key, entry in pairs(entries) do
    if not entry.value then entries[key] = nil end -- no older run knows the key
  end
  local run, name = new_run(self, sorted(entries))
  if not run then return nil, name end
  local ok, why, err = write_manifest(self, { name }, self.from)
  if not ok then return nil, why, err end
  self.runs = { run }
  return true
end

local function merge_runs(self)
  local old_names, old_runs = self.names, hold_runs(self)
  local ok, message, err = merge_into_one(self, old_runs)
  release_runs(self, old_runs)
  if not ok then return nil, message, err end
  for _, old in ipairs(old_names) do jdbfs.remove(self.path .. "/" .. old) end
  return true
end

-- The table in memory becomes a run. Nobody writes while tables are changed, so every record of the
-- log up to `last` is in the full one.
local function flush(self)
  for _ = 1, WRITERS do self.gate:acquire() end
  local full, last = self.entries, self.log:stats().last
  self.full, self.entries, self.bytes = full, {}, 0
  for _ = 1, WRITERS do self.gate:release() end
  local run, name = new_run(self, sorted(full))
  if not run then return nil, name end
  local names = {}
  for i, old in ipairs(self.names) do names[i] = old end
  names[#names + 1] = name
  local ok, why, err = write_manifest(self, names, last + 1)
  if not ok then return nil, why, err end
  self.runs[#self.runs + 1] = run
  self.full = nil
  ok, why, err = self.log:truncate_before(last + 1)
  if ok and #self.runs >= RUNS then return merge_runs(self) end
  return ok, why, err
end

--- Writes what is in memory to a run now.
function Tree:flush()
  self.flushing:acquire()
  local ok, message, err = true, self.broken, nil
  if message then ok = nil
  elseif next(self.entries) then ok, message, err = flush(self) end
  if not ok then self.broken = message end -- what is in memory can no longer be let go of
  self.flushing:release()
  return ok, message, err
end

local function change(self, key, value)
  if self.broken then return nil, self.broken end
  if self.bytes >= self.memory then
    local ok, message, err = self:flush()
    if not ok then return nil, message, err end
  end
  self.gate:acquire()
  local number, message, err = self.log:append(kv.encode(key, value))
  if number then
    kv.apply(self.entries, number, key, value)
    self.bytes = self.bytes + #key + #(value or "") + 64
  end
  self.gate:release()
  return number and true, message, err
end

function Tree:put(key, value) return change(self, key, value) end

function Tree:delete(key) return change(self, key, false) end

--- The value; nil when there is none. Raises when a block is damaged.
function Tree:get(key)
  for _, entries in ipairs({ self.entries, self.full }) do
    if entries[key] then return entries[key].value or nil end
  end
  local runs, ok, value = hold_runs(self), true, nil
  for i = #runs, 1, -1 do
    ok, value = get_from(runs[i], key)
    if not ok or value ~= nil then break end
  end
  release_runs(self, runs)
  assert(ok, value)
  return value or nil
end

--- An iterator of keys and values in order, from <= key < to; nil: no limit. As things were when it
--- was made.
function Tree:range(from, to)
  local runs = hold_runs(self)
  local entries, message = merged(runs, { self.full or {}, self.entries }, from, to)
  release_runs(self, runs)
  assert(entries, message)
  for key, entry in pairs(entries) do
    if not entry.value then entries[key] = nil end
  end
  return sorted(entries)
end

function Tree:close()
  close_runs(self.runs)
  return self.log:close()
end

-- The text of the manifest; false when there is none yet.
local function read_manifest(path)
  local file, message, err = jdbfs.open(path, { direct = "off" })
  if not file then
    if err.name == "ENOENT" then return false end
    return nil, message, err
  end
  local size, text
  size, message, err = file:size()
  if size then text, message, err = file:read(0, size) end
  file:close()
  return text, message, err
end

local function load_manifest(self)
  local path = self.path .. "/MANIFEST"
  local text, message, err = read_manifest(path)
  if text == nil then return nil, message, err end
  if text then
    self.from = tonumber(text:match("^%d+"))
    if not self.from then return nil, path .. " is damaged" end
    for name in text:gmatch("run%-%d+") do self.names[#self.names + 1] = name end
  end
  local named = {}
  for i, name in ipairs(self.names) do
    named[name], self.made = true, math.max(self.made, tonumber(name:match("%d+")))
    self.runs[i], message, err = open_run(self.path .. "/" .. name)
    if not self.runs[i] then return nil, message, err end
  end
  local files
  files, message, err = jdbfs.ls(self.path)
  if not files then return nil, message, err end
  for _, name in ipairs(files) do
    if name:match("^run%-") and not named[name] then jdbfs.remove(self.path .. "/" .. name) end
  end
  return true
end

-- Records that a run has are applied again where a crash left them in the log: the same values.
local function load_log(self)
  local cursor = self.log:records()
  while true do
    local number, data, err = cursor:next()
    if not number then return not err, data, err end
    local ok, why = true, nil
    if number >= self.from then
      ok, why = kv.decode(data, function(key, value) kv.apply(self.entries, number, key, value) end)
    end
    if not ok then return nil, ("%s, record %d: %s"):format(self.path, number, why) end
  end
end

local M = {}

--- o.memory: bytes of the table in memory, about, before it becomes a run; default 4 MiB.
function M.open(path, o)
  local made, message, err = jdbfs.mkdir(path, { durable = true })
  if not made then return nil, message, err end
  local self = setmetatable({ path = path, memory = o and o.memory or 4194304, entries = {},
    names = {}, from = 1, runs = {}, made = 0, bytes = 0, gate = jdbfs.semaphore(WRITERS),
    flushing = jdbfs.semaphore(1) }, Tree)
  self.log, message, err = jdbfs.log(path .. "/wal", o and o.log)
  if not self.log then return nil, message, err end
  local ok
  ok, message, err = load_manifest(self)
  if ok then ok, message, err = load_log(self) end
  if ok then return self end
  self:close()
  return nil, message, err
end

return M
