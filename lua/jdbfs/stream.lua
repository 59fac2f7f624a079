-- jdbfs.stream: a file as a sequence of bytes of any sizes. The reader reads ahead, the writer
-- writes behind, in aligned blocks, each in a short-lived task; outside tasks a block at a time.

local core = require "jdbfs.core"

local current, spawn, failure, wait = core.current, core.spawn, core.failure, core.wait
local give_way, alive = core.yield, core.alive
local is_buffer, new_buffer = core.is_buffer, core.buffer
local error, floor, getmetatable = error, math.floor, getmetatable
local ipairs, pairs, pcall, select = ipairs, pairs, pcall, select
local setmetatable, tostring, type = setmetatable, tostring, type
local concat, remove = table.concat, table.remove

local SIZE_MAX = 1073741824
local OFFSET_MAX = 9007199254740992 -- 2^53: every Lua counts so far

local function align_up(n, alignment)
  return n + -n % alignment
end

-- Whether background tasks are possible and useful here.
local function in_task()
  local ok, task = pcall(current)
  return ok and task ~= nil
end

-- A buffer that a detached operation still has goes when that has ended.
local function release(buffer)
  pcall(buffer.free, buffer)
end

-- ---- what both have -----------------------------------------------------------------------------

-- A method of a buffer that is the caller's. That it was freed or is in flight is returned, where
-- the method raises it; called by pcall itself, its text names no line of this file.
local function touch(self, name, ...)
  local ok, result = pcall(...)
  if ok then return result end
  return failure(result:match("%((%u%l+)%)"), name, self.path, result)
end

-- Its length, unless it was freed.
local function size_of(self, name, buffer)
  local ok, message, err = touch(self, name, buffer.string, buffer, 0, 0)
  if not ok then return nil, message, err end
  return #buffer
end

local OPTIONS = {
  block = { 1, SIZE_MAX, 1048576 },
  depth = { 1, 1024, 4 },
  offset = { 0, OFFSET_MAX, 0 },
}

local function read_options(o, name)
  local options = {}
  for option, limits in pairs(OPTIONS) do options[option] = limits[3] end
  if o == nil then return options end
  if type(o) ~= "table" then
    error(("bad argument #2 to '%s' (table expected)"):format(name), 4)
  end
  for option, value in pairs(o) do
    local limits = OPTIONS[option]
    if not limits then error("unknown option " .. tostring(option), 4) end
    local least, most = limits[1], limits[2]
    if type(value) ~= "number" or value ~= floor(value) or value < least or value > most then
      error(("option %s: an integer from %.0f to %.0f expected"):format(option, least, most), 4)
    end
    options[option] = floor(value)
  end
  return options
end

-- An error of the file as it is; that the file is closed is told of the call that needed it.
local function told(self, name, message, err)
  if err.kind == "Closed" and err.path then
    return failure("Closed", name, self.path, "the file is closed")
  end
  return nil, message, err
end

-- Alignment and block size of a stream on this file.
local function open_stream(class, name, file, o)
  local ok, info = pcall(function() return file.info end)
  if not ok or not info then
    error(("bad argument #1 to '%s' (jdbfs file expected)"):format(name), 3)
  end
  local options = read_options(o, name)
  local message, err
  info, message, err = file:info()
  if not info then return told({ path = file:path() }, name, message, err) end
  local align = info.read_alignment
  if info.write_alignment > align then align = info.write_alignment end
  local page = core.PAGE_SIZE
  return setmetatable({
    name = name, file = file, path = file:path(), align = align, depth = options.depth,
    block = align_up(options.block, align), start = options.offset,
    memory = info.memory_alignment > page and info.memory_alignment or page,
    free = {},
  }, class)
end

local function check_self(self, class, method)
  if type(self) ~= "table" or getmetatable(self) ~= class then
    error(("bad self for '%s' (call with a colon)"):format(method), 3)
  end
end

local function take_buffer(self)
  local b = remove(self.free)
  if b then return b end
  return new_buffer(self.block, self.memory)
end

local function release_all(self)
  for _, b in ipairs(self.free) do release(b) end
  self.free = {}
end

-- ---- writer -------------------------------------------------------------------------------------

local Writer = {}
Writer.__index = Writer

local function fail(self, message, err)
  if self.err then return end
  local _
  _, self.message, self.err = told(self, "write", message, err)
end

-- A run that ends in an error ends the tasks that write.
local function fail_ended(self)
  local _, message, err = failure("Cancelled", "write", self.path, "the task that wrote was ended")
  fail(self, message, err)
end

-- What every call begins with: a sync or close whose caller was cancelled goes on in its own task.
local function refuse(self, method)
  while alive(self.worker) do wait(self.worker) end
  if self.closed then return failure("Closed", method, self.path, "the writer is closed") end
  if self.err then return nil, self.message, self.err end
end

local function write_block(self, flight)
  local ok, message, err = self.file:write_at(flight.buffer, flight.offset, 0, flight.length)
  flight.ended = true
  if not ok then fail(self, message, err) end
end

-- Drops the oldest block in flight, which has ended.
local function retire(self)
  local flight = remove(self.flights, 1)
  if not flight.ended then
    fail_ended(self)
  end
  self.free[#self.free + 1] = flight.buffer
  if not self.err then self.written_to = flight.offset + flight.length end
end

local function retire_ended(self)
  while self.flights[1] and not alive(self.flights[1].task) do retire(self) end
end

local function wait_flights(self, most)
  while #self.flights > most do
    wait(self.flights[1].task)
    retire_ended(self)
  end
end

-- Sends the block off that is full. Its place is taken by a free buffer.
local function send(self, task)
  if task then wait_flights(self, self.depth - 1) end
  if not self.buffer or self.fill < self.block then return true end -- another task was here
  local flight = { buffer = self.buffer, offset = self.base, length = self.block }
  if task then
    local message, err
    flight.task, message, err = spawn(write_block, self, flight)
    if not flight.task then return nil, message, err end
    self.flights[#self.flights + 1] = flight
  else
    write_block(self, flight)
    self.free[#self.free + 1] = flight.buffer
    if not self.err and not self.flights[1] then self.written_to = flight.offset + flight.length end
  end
  self.base, self.fill, self.buffer = self.base + self.block, 0, nil
  if task then give_way() end -- to the device before the next block is filled
  if self.err then return nil, self.message, self.err end
  return true
end

-- A full block goes at once where that needs no wait, else with the next byte.
local function send_early(self)
  if self.fill < self.block or #self.flights >= self.depth or not in_task() then return true end
  return send(self, true)
end

-- Space in the current block: the bytes left.
local function room(self)
  local message, err
  while self.buffer and self.fill == self.block do
    local ok
    ok, message, err = send(self, in_task())
    if not ok then return nil, message, err end
  end
  if not self.buffer then
    self.buffer, message, err = take_buffer(self)
    if not self.buffer then return nil, message, err end
  end
  return self.block - self.fill
end

local function length_of(self, data, i)
  if type(data) == "string" then return #data end
  if not is_buffer(data) then
    error(("bad argument #%d to 'write' (string or jdbfs buffer expected)"):format(i), 3)
  end
  return size_of(self, "write", data)
end

local function put(self, data, length)
  local from = 0
  while from < length do
    local space, message, err = room(self)
    if not space then return nil, message, err end
    if space > length - from then space = length - from end
    if type(data) ~= "string" then
      local ok
      ok, message, err = touch(self, "write", self.buffer.copy, self.buffer, self.fill, data, from,
        space)
      if not ok then return nil, message, err end
    elseif space == length then
      self.buffer:set(self.fill, data)
    else
      self.buffer:set(self.fill, data:sub(from + 1, from + space))
    end
    self.fill = self.fill + space
    from = from + space
  end
  return send_early(self)
end

function Writer:write(...)
  check_self(self, Writer, "write")
  local _, message, err = refuse(self, "write")
  if message then return nil, message, err end
  for i = 1, select("#", ...) do
    local data = (select(i, ...))
    local length, ok
    length, message, err = length_of(self, data, i)
    if not length then return nil, message, err end
    ok, message, err = put(self, data, length)
    if not ok then return nil, message, err end
  end
  retire_ended(self)
  if self.err then return nil, self.message, self.err end
  return true
end

function Writer:space()
  check_self(self, Writer, "space")
  local _, message, err = refuse(self, "space")
  if message then return nil, message, err end
  local space
  space, message, err = room(self)
  if not space then return nil, message, err end
  return self.buffer:slice(self.fill, space)
end

function Writer:advance(n)
  check_self(self, Writer, "advance")
  local _, message, err = refuse(self, "advance")
  if message then return nil, message, err end
  local most = self.buffer and self.block - self.fill or 0
  if type(n) ~= "number" or n < 0 or n > most or n ~= floor(n) then
    error(("bad argument #1 to 'advance' (0 to %d expected)"):format(most), 2)
  end
  self.fill = self.fill + floor(n)
  return true
end

-- What follows the last byte in its aligned block: what the file has there, or zeros.
local function pad(self, size)
  local stop = align_up(self.fill, self.align)
  self.buffer:fill(0, self.fill, stop - self.fill)
  if stop == self.fill or size <= self.base + self.fill then return stop end
  local piece, message, err = new_buffer(self.align, self.memory)
  if not piece then return nil, message, err end
  local got
  got, message, err = self.file:read_upto(piece, self.base + stop - self.align)
  if not got then return nil, message, err end
  local from = self.fill - (stop - self.align)
  if got > from then self.buffer:copy(self.fill, piece, from, got - from) end
  piece:free()
  return stop
end

-- Writes the last, partial block, and cuts off what padded it. Whether the length was cut.
local function write_tail(self)
  if self.base + self.fill == self.written_to then return false end
  local size, message, err = self.file:size()
  if not size then return nil, message, err end
  local length, ok
  length, message, err = pad(self, size)
  if not length then return nil, message, err end
  ok, message, err = self.file:write_at(self.buffer, self.base, 0, length)
  if not ok then return nil, message, err end
  local position = self.base + self.fill
  local right = size > position and size or position
  if right >= self.base + length then return false end
  ok, message, err = self.file:truncate(right)
  if not ok then return nil, message, err end
  return true
end

-- Everything to the file; and to stable storage.
local function settle(self, durable)
  wait_flights(self, 0)
  if self.err then return end
  local position = self.base + self.fill
  local cut, message, err = write_tail(self)
  if cut == nil then return fail(self, message, err) end
  self.written_to = position
  if not durable then return end
  local ok
  if cut then
    ok, message, err = self.file:sync_all() -- the length is metadata
  else
    ok, message, err = self.file:sync_data()
  end
  if not ok then return fail(self, message, err) end
  self.durable_to = position
end

-- In a task of its own: the caller may be cancelled, the buffer stays with the operation.
local function settle_shielded(self, durable)
  if not in_task() then return settle(self, durable) end
  local task, message, err = spawn(settle, self, durable)
  if not task then return fail(self, message, err) end
  self.worker = task
  wait(task)
  if not self.err and task:status() ~= "done" then
    fail_ended(self)
  end
end

function Writer:sync()
  check_self(self, Writer, "sync")
  local _, message, err = refuse(self, "sync")
  if message then return nil, message, err end
  settle_shielded(self, true)
  if self.err then return nil, self.message, self.err end
  return true
end

function Writer:close()
  check_self(self, Writer, "close")
  while alive(self.worker) do wait(self.worker) end
  if self.closed then return true end
  settle_shielded(self, false)
  self.closed = true
  if self.buffer then release(self.buffer) end
  self.buffer = nil
  release_all(self)
  if self.err then return nil, self.message, self.err end
  return true
end

function Writer:position()
  check_self(self, Writer, "position")
  return self.base + self.fill
end

function Writer:written()
  check_self(self, Writer, "written")
  retire_ended(self)
  return self.written_to
end

function Writer:durable()
  check_self(self, Writer, "durable")
  return self.durable_to
end

-- A start inside an aligned block keeps what is before it.
local function load_head(self)
  local head = self.start % self.align
  self.base, self.fill = self.start - head, head
  if head == 0 then return true end
  local b, message, err = take_buffer(self)
  if not b then return nil, message, err end
  self.buffer = b
  local got
  got, message, err = self.file:read_upto(b, self.base, 0, self.align)
  if not got then return nil, message, err end
  if got < head then b:fill(0, got, head - got) end
  return true
end

local function writer(file, o)
  local self, message, err = open_stream(Writer, "writer", file, o)
  if not self then return nil, message, err end
  self.flights = {}
  self.written_to, self.durable_to = self.start, self.start
  local ok
  ok, message, err = load_head(self)
  if not ok then return nil, message, err end
  return self
end

-- ---- reader -------------------------------------------------------------------------------------

local Reader = {}
Reader.__index = Reader

local function read_block(self, entry)
  local got, message, err = self.file:read_upto(entry.buffer, entry.offset)
  entry.got, entry.message, entry.err = got, message, err
end

local function drop_first(self)
  local entry = remove(self.entries, 1)
  if entry.got or entry.err then
    self.free[#self.free + 1] = entry.buffer
  else
    release(entry.buffer)
  end
end

local function drop_entries(self)
  while self.entries[1] do drop_first(self) end
end

local function add_entry(self, offset)
  local b, message, err = take_buffer(self)
  if not b then return nil, message, err end
  local entry = { buffer = b, offset = offset }
  if in_task() then
    entry.task, message, err = spawn(read_block, self, entry)
    if not entry.task then return nil, message, err end
  else
    read_block(self, entry)
  end
  self.entries[#self.entries + 1] = entry
  return entry
end

-- The blocks behind the first, as far as the file went when reading began.
local function read_ahead(self)
  local entries = self.entries
  while #entries <= self.depth and in_task() do
    local offset = entries[#entries].offset + self.block
    if offset >= self.size then return end
    if not add_entry(self, offset) then return end -- its turn will come, and its error
  end
end

-- The block that holds this position, with its bytes there.
local function block_at(self, pos)
  local entries = self.entries
  local first = entries[1]
  local lost = first and not (first.got or first.err) and not (in_task() and alive(first.task))
  if first and (lost or pos < first.offset or pos > first.offset + self.block) then
    drop_entries(self)
  end
  if entries[1] and pos == entries[1].offset + self.block then drop_first(self) end
  if not entries[1] then
    local message, err
    self.size, message, err = self.file:size()
    if not self.size then return told(self, "read", message, err) end
    first, message, err = add_entry(self, pos - pos % self.align)
    if not first then return nil, message, err end
  end
  first = entries[1]
  read_ahead(self)
  if not first.got and not first.err then wait(first.task) end
  if first.got then return first end
  drop_entries(self)
  if first.err then return told(self, "read", first.message, first.err) end
  return failure("Cancelled", "read", self.path, "the task that read was ended")
end

-- Hands up to n bytes to take(buffer, offset, length), which may refuse. How many there were; the
-- position moves only when all went well.
local function consume(self, n, take)
  local pos, rest = self.pos, n
  while rest > 0 do
    local entry, message, err = block_at(self, pos)
    if not entry then return nil, message, err end
    local at = pos - entry.offset
    local length = entry.got - at
    if length > rest then length = rest end
    if length > 0 then
      local ok
      ok, message, err = take(entry.buffer, at, length)
      if not ok then return nil, message, err end
      pos, rest = pos + length, rest - length
    end
    -- The end of the file may move: what is read next is read anew.
    if entry.got < self.block and rest > 0 then
      drop_entries(self)
      break
    end
  end
  self.pos = pos
  return n - rest
end

local function closed(self, method)
  return failure("Closed", method, self.path, "the reader is closed")
end

local function is_count(n)
  return type(n) == "number" and n >= 0 and n <= OFFSET_MAX and n == floor(n)
end

local function bad_count(self, method, n)
  return failure("Overflow", method, self.path, tostring(n) .. " is not an integer from 0 to 2^53")
end

function Reader:read(n)
  check_self(self, Reader, "read")
  if type(n) ~= "number" then error("bad argument #1 to 'read' (number expected)", 2) end
  if self.closed then return closed(self, "read") end
  if not is_count(n) then return bad_count(self, "read", n) end
  if n == 0 then return "" end
  local parts = {}
  local got, message, err = consume(self, n, function(b, at, length)
    parts[#parts + 1] = b:string(at, length)
    return true
  end)
  if not got then return nil, message, err end
  if got == 0 then return nil end
  return parts[2] and concat(parts) or parts[1]
end

function Reader:read_into(buffer, offset, length)
  check_self(self, Reader, "read_into")
  if not is_buffer(buffer) then
    error("bad argument #1 to 'read_into' (jdbfs buffer expected)", 2)
  end
  if self.closed then return closed(self, "read_into") end
  offset = offset or 0
  if not is_count(offset) then return bad_count(self, "read_into", offset) end
  local size, message, err = size_of(self, "read_into", buffer)
  if not size then return nil, message, err end
  length = length or size - offset
  if not is_count(length) or offset + length > size then
    return failure("Overflow", "read_into", self.path, "range does not lie in the buffer")
  end
  return consume(self, length, function(b, at, count)
    local ok
    ok, message, err = touch(self, "read_into", buffer.copy, buffer, offset, b, at, count)
    offset = offset + count
    return ok, message, err
  end)
end

-- Nothing is copied: the block goes back to be read into with the next call.
function Reader:next_block()
  check_self(self, Reader, "next_block")
  if self.closed then return closed(self, "next_block") end
  local entry, message, err = block_at(self, self.pos)
  if not entry then return nil, message, err end
  local at = self.pos - entry.offset
  if at >= entry.got then
    drop_entries(self) -- the end of the file may move
    return nil
  end
  self.pos = entry.offset + entry.got
  return entry.buffer:slice(at, entry.got - at)
end

function Reader:position()
  check_self(self, Reader, "position")
  return self.pos
end

function Reader:close()
  check_self(self, Reader, "close")
  if self.closed then return true end
  self.closed = true
  for _, entry in ipairs(self.entries) do
    if alive(entry.task) and in_task() then wait(entry.task) end
  end
  drop_entries(self)
  release_all(self)
  return true
end

local function reader(file, o)
  local self, message, err = open_stream(Reader, "reader", file, o)
  if not self then return nil, message, err end
  self.pos, self.entries = self.start, {}
  return self
end

core.waiting_classes[Writer] = { "write", "space", "sync", "close" }
core.waiting_classes[Reader] = { "read", "read_into", "next_block", "close" }

return { reader = reader, writer = writer }
