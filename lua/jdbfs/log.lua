-- jdbfs.log: an append-only log of checksummed records with group commit, in a directory of
-- direct-I/O segments "0000000001.log", "0000000002.log", ...
--
-- Segment: one block (4096 bytes, or the file's write alignment where that is larger) of header,
-- then batches, then written zeros to the end, or, with option spare_segments, what is left of an
-- older segment: one that truncate_before freed is used again as it is, which saves writing as many
-- zeros as there are records. All numbers are little-endian.
--
--   header  0 "jdbfslog"  8 u32 version  12 u32 block  16 identity of the log, 16 bytes
--           32 u64 number of the segment  40 u64 number of its first record  48 u32 CRC of 0..47
--
-- Records: see lua_log.c. A batch is what one write brought: it starts on a block boundary and
-- ends, padded with zeros, on another, so that a block that holds an acknowledged record is never
-- written again. A record's header has a CRC of its own: a length is believed before the data is
-- read, and looking for records behind a damaged one is linear whatever the bytes are.
--
-- One batch is with the device at a time. Hence the rule of recovery: whatever belongs to a batch
-- was written only after all batches before it were durable. If record s is not there, but a
-- record whose batch began after s is, then s was acknowledged and is damaged: an error. If none
-- is, s and what follows belong to the last batch, which was torn: they are cut. Damage in the very
-- last batch looks like a torn write, and is cut as one: nothing on disk tells that it had been
-- acknowledged, and to make something tell would cost each batch a second durable write.
--
-- While that is cut, the first whole block behind the last record holds the note of it (see
-- noted_end). A version that does not know notes takes it for a part of the torn batch.
--
-- In a segment that is used again (version 2) all of this holds, too: the numbers of the older
-- records there are all below its first. But what is neither zero nor a record to come tells
-- nothing, so a torn batch of which no header is left passes for one that was not written. Recovery
-- leaves zeros to the end of the segment, whatever it found: only older records and one torn batch
-- can be there, never two.

local core = require "jdbfs.core"
local sync = require "jdbfs.sync"

local spawn, failure, wait, give_way = core.spawn, core.failure, core.wait, core.yield
local alive = core.alive
local is_buffer, new_buffer = core.is_buffer, core.buffer
local batches_of, join_batch, record = core.batches, core.join_batch, core.record
local ceil, error, floor, getmetatable, huge = math.ceil, error, math.floor, getmetatable, math.huge
local ipairs, next, pairs, pcall = ipairs, next, pairs, pcall
local select, setmetatable = select, setmetatable
local tonumber, tostring, type = tonumber, tostring, type
local concat, remove = table.concat, table.remove

local MAGIC, VERSION, REUSED = "jdbfslog", 1, 2
local NOTE = "jdbfswip"
local BLOCK = 4096
local HEADER = 32
local RECORD_MAX = 1073741824
local NUMBER_HIGH = 2097152 -- numbers end at 2^53, which every Lua holds exactly
local WINDOW = 1048576 -- bytes read at once
local LOCK = "lock"

-- Plain 5.1 cannot yield out of the iterator of a for loop.
local FOR_CANNOT_YIELD = _VERSION == "Lua 5.1" and type(jit) ~= "table"

local Log = {}
Log.__index = Log

local Cursor = {}
Cursor.__index = Cursor

local function align_up(n, alignment)
  return n + -n % alignment
end

-- ---- what is made of the core's calls -----------------------------------------------------------

local function parent(path)
  local above = path:gsub("/+$", ""):match("^(.*)/[^/]*$")
  if above == "" then return "/" end
  return above or "."
end

-- The directory and those above it that may have been made with it. Before the first segment is
-- there: a log that has one went through this. A directory that may not be read was there before.
local function make_durable(path)
  repeat
    path = parent(path)
    local ok, message, err = core.sync_dir(path)
    if not ok and err.name ~= "EACCES" then return nil, message, err end
  until path == "/" or path == "."
  return true
end

-- A file that is gone already was removed by a call that failed to make that durable.
local function remove_durable(self, path)
  local ok, message, err = core.remove(path, { durable = true })
  if not ok and err.name == "ENOENT" then return core.sync_dir(self.path) end
  return ok, message, err
end

-- The lock is a file's of its own: segments come and go.
local function lock_directory(path)
  return core.open_rw(path .. "/" .. LOCK, { direct = "off", lock = "exclusive", nofollow = true })
end

-- A buffer that an operation of a cancelled task still has goes when that has ended.
local function release(buffer)
  pcall(buffer.free, buffer)
end

-- Whether a wait is possible here, the task it would suspend, and the turn of that wait: a plain
-- coroutine inside a task cannot wait for what another task does, its operations complete in place.
local function place_of_call()
  return pcall(core.current)
end

-- ---- segments -----------------------------------------------------------------------------------

local function segment_path(self, number)
  return ("%s/%010d.log"):format(self.path, number)
end

-- The cursors that read a segment. One that an error or a break left without a close goes when it
-- is collected.
local function new_readers()
  return setmetatable({}, { __mode = "k" })
end

-- What offsets and lengths must be multiples of. Memory: see self.memory.
local function alignment_of(self, file)
  local info, message, err = file:info()
  if not info then return nil, message, err end
  self.memory = info.memory_alignment > core.PAGE_SIZE and info.memory_alignment or core.PAGE_SIZE
  if info.read_alignment > info.write_alignment then return info.read_alignment end
  return info.write_alignment
end

local function discard(spare)
  spare.file:close()
  core.remove(spare.path)
end

-- What has the name already is nobody's: the log is locked. It may be a link into other people's
-- files, so it is removed, never followed.
local function create_spare(self, path)
  local o = { direct = self.direct, exclusive = true }
  local file, message, err = core.create(path, o)
  if file or err.name ~= "EEXIST" then return file, message, err end
  core.remove(path)
  return core.create(path, o)
end

-- One that recovery removes.
local function spare_path(self)
  self.spares = self.spares + 1
  return ("%s/next-%d.tmp"):format(self.path, self.spares)
end

local function whole_size(self, size)
  return align_up(size < 2 * self.block and 2 * self.block or size, self.block)
end

-- A segment to be: zeros, written and durable.
local function make_spare(self, size)
  local path = spare_path(self)
  local file, message, err = create_spare(self, path)
  if not file then return nil, message, err end
  local spare = { file = file, path = path }
  local ok
  ok, message, err = alignment_of(self, file)
  if ok then
    if not self.block then self.block = ok > BLOCK and ok or BLOCK end
    spare.size = whole_size(self, size)
    ok, message, err = file:preallocate(spare.size, "zero")
  end
  if ok then ok, message, err = file:sync_all() end
  if ok then return spare end
  discard(spare)
  return nil, message, err
end

local function write_header(self, spare, number, first)
  local b, message, err = new_buffer(self.block, self.memory)
  if not b then return nil, message, err end
  b:set(0, MAGIC)
  b:u32(8, spare.reused and REUSED or VERSION)
  b:u32(12, self.block)
  b:set(16, self.identity)
  b:u64(32, number)
  b:u64(40, first)
  b:u32(48, b:crc32c(0, 48))
  local ok
  ok, message, err = spare.file:write_at(b, 0)
  b:free()
  if not ok then return nil, message, err end
  return spare.file:sync_all()
end

-- Makes the spare a segment: it appears whole or not at all. A fourth result says that nobody knows
-- which of the two it is.
local function publish(self, spare, number, first)
  local ok, message, err = write_header(self, spare, number, first)
  if not ok then
    discard(spare)
    return nil, message, err
  end
  spare.file:close()
  local path = segment_path(self, number)
  ok, message, err = core.rename(spare.path, path, { durable = true })
  local file
  if ok then
    file, message, err =
      core.open_rw(path, { direct = self.direct, must_exist = true, nofollow = true })
  end
  if not file then
    local unknown = core.exists(path) ~= false
    if not unknown then core.remove(spare.path) end
    return nil, message, err, unknown
  end
  return {
    number = number, path = path, first = first, size = spare.size, tail = self.block, file = file,
    readers = new_readers(),
  }
end

-- The spare, or a new one when there is none or it is too small.
local function take_spare(self, need)
  if alive(self.preparer) and place_of_call() then wait(self.preparer) end
  local spare = self.ready[#self.ready]
  if spare and spare.size - self.block >= need then return remove(self.ready) end
  local size = self.block + need
  return make_spare(self, size > self.segment_size and size or self.segment_size)
end

-- The batches go into this segment from now on; where they stand is theirs to know.
local function use_segment(self, segment)
  self.current = segment
  self.batches:segment(segment.tail, segment.size, self.block)
end

local function tail_of(self, segment)
  return segment == self.current and select(2, self.batches:position()) or segment.tail
end

-- Goes on in a new segment with room for that many bytes.
local function next_segment(self, need, first)
  local spare, message, err = take_spare(self, need)
  if not spare then return nil, message, err end
  local segment, unknown
  segment, message, err, unknown = publish(self, spare, self.current.number + 1, first)
  if not segment then return nil, message, err, unknown end
  self.current.file:close()
  self.current.file = nil
  self.current.final, self.current.tail = first - 1, tail_of(self, self.current)
  use_segment(self, segment)
  self.segments[#self.segments + 1] = segment
  self.reused = self.reused + (spare.reused and 1 or 0)
  self.unprepared = false
  return true
end

-- Runs in a task of its own, so that the appends that fill this segment do not wait for the next.
local function prepare(self)
  local spare = make_spare(self, self.segment_size)
  -- A failure is met again, and told, by the append that needs the segment.
  if spare then self.ready[#self.ready + 1] = spare else self.unprepared = true end
end

local function is_preparing(self)
  return #self.ready > 0 or self.unprepared or alive(self.preparer)
end

local function prepare_soon(self)
  local segment = self.current
  if is_preparing(self) or tail_of(self, segment) * 2 < segment.size then return end
  if self.failed or self.closing then return end
  self.preparer = spawn(prepare, self)
end

-- ---- reading ------------------------------------------------------------------------------------

-- A window on a segment. `limit` is the end of what may be read: what lies behind it may be being
-- written.
local function new_scan(self, segment, file, limit)
  local window = align_up(segment.size, self.block)
  return {
    file = file, path = segment.path, block = self.block, memory = self.memory,
    window = window < WINDOW and window or WINDOW, half = self.identity:sub(1, 8),
    limit = limit, at = 0, got = 0, pos = self.block, reused = segment.reused,
  }
end

local function scan_buffer(scan, size)
  local b = scan.buffer
  if b and #b >= size and (#b <= scan.window or size > scan.window) then return b end
  if b then release(b) end
  local message, err
  scan.buffer = nil
  b, message, err = new_buffer(size > scan.window and size or scan.window, scan.memory)
  scan.buffer = b
  return b, message, err
end

local function fill_window(scan, pos, length)
  local block = scan.block
  local from = pos - pos % block
  local size = align_up(pos + length, block) - from
  local rest = align_up(scan.limit, block) - from
  if size < scan.window then size = rest < scan.window and rest or scan.window end
  scan.got = 0
  local b, message, err = scan_buffer(scan, size)
  if not b then return nil, message, err end
  local got
  got, message, err = scan.file:read_upto(b, from, 0, size)
  if not got then return nil, message, err end
  scan.at, scan.got = from, got
  return true
end

-- Where in the window these bytes are; false when the segment ends before they do.
local function load(scan, pos, length)
  if pos + length > scan.limit then return false end
  if pos < scan.at or pos + length > scan.at + scan.got then
    local ok, message, err = fill_window(scan, pos, length)
    if not ok then return nil, message, err end
    if pos + length > scan.at + scan.got then return false end
  end
  return pos - scan.at
end

-- The length of record `number` if it is here, as the first of a batch or one of this batch; else
-- false.
local function record_at(scan, pos, number, batch, without_data)
  local at, message, err = load(scan, pos, HEADER)
  if not at then return at, message, err end
  local found, index, length, crc = record(scan.buffer, at, scan.half)
  if found ~= number then return false end
  if index == 0 then
    if pos % scan.block ~= 0 then return false end
  elseif number - index ~= batch then
    return false
  end
  if without_data and pos + HEADER + length <= scan.limit then return length, number - index end
  at, message, err = load(scan, pos, HEADER + length)
  if not at then return at, message, err end
  if scan.buffer:crc32c(at + HEADER, length) ~= crc then return false end
  return length, number - index
end

-- Moves over record `number`: its place and length. False when it is not there: scan.pos stays
-- where it should be. A batch ends where its records do, the next one begins on a block boundary.
local function find_record(scan, number, without_data)
  local pos = scan.pos
  local length, batch, err = record_at(scan, pos, number, scan.batch, without_data)
  if length == false and pos % scan.block ~= 0 then
    pos = align_up(pos, scan.block)
    length, batch, err = record_at(scan, pos, number, nil, without_data)
  end
  if not length then return length, batch, err end
  if batch ~= scan.batch then scan.batch, scan.batch_at = batch, pos end
  scan.pos = pos + align_up(HEADER + length, 8)
  return pos, length
end

-- Where the record that is not there should be: behind the last one, or, when that ended its batch
-- and only padding follows, at the next block.
local function expected_at(scan)
  local pos = scan.pos
  if pos % scan.block == 0 then return pos end
  local at = load(scan, pos, 4)
  if at and scan.buffer:u32(at) == 0 then return align_up(pos, scan.block) end
  return pos
end

local function damaged(scan, op, number, why)
  local offset = expected_at(scan)
  local cause = ("record %d at offset %d is damaged: %s"):format(number, offset, why)
  local _, message, err = failure("Io", op, scan.path, cause)
  err.offset = offset
  return nil, message, err
end

-- ---- recovery -----------------------------------------------------------------------------------

local function bad_segment(path, why)
  return failure("Io", "log", path, why)
end

-- The header is durable before the segment has its name: one that is not right is damaged.
local function parse_header(self, b, got, segment)
  local path, version = segment.path, b:u32(8)
  if got < 52 or b:string(0, 8) ~= MAGIC or b:u32(48) ~= b:crc32c(0, 48) then
    return bad_segment(path, "the segment's header is damaged")
  end
  if version ~= VERSION and version ~= REUSED then
    return failure("Unsupported", "log", path, ("format version %d"):format(version))
  end
  local block, identity = b:u32(12), b:string(16, 16)
  local sound = b:u32(36) < NUMBER_HIGH and b:u32(44) < NUMBER_HIGH and b:u32(40) + b:u32(44) > 0
  if not sound or block < BLOCK or WINDOW % block ~= 0 then
    return bad_segment(path, "the segment's header makes no sense")
  end
  if self.identity and (identity ~= self.identity or block ~= self.block) then
    return bad_segment(path, "the segment belongs to another log")
  end
  local stored = b:u32(32) + b:u32(36) * 4294967296
  if stored ~= segment.number then
    return bad_segment(path, ("this is segment %d under another's name"):format(stored))
  end
  self.identity, self.block = identity, block
  segment.first, segment.reused = b:u32(40) + b:u32(44) * 4294967296, version == REUSED
  return true
end

local function read_header(self, segment)
  local b, message, err = new_buffer(65536, self.memory)
  if not b then return nil, message, err end
  local got
  got, message, err = segment.file:read_upto(b, 0)
  if not got then return nil, message, err end
  local ok
  ok, message, err = parse_header(self, b, got, segment)
  b:free()
  return ok, message, err
end

local function open_segment(self, number, last)
  local path = segment_path(self, number)
  local opener = last and core.open_rw or core.open
  local o = { direct = self.direct, must_exist = last or nil, nofollow = true }
  local file, message, err = opener(path, o)
  if not file then return nil, message, err end
  local segment = { number = number, path = path, file = file, readers = new_readers() }
  -- Nothing is decided on bytes that a power cut could still take back. What is before the last
  -- segment was durable when that was made.
  local ok = true
  if last then ok, message, err = file:sync_all() end
  if ok then
    segment.size, message, err = file:size()
    ok = segment.size
  end
  if ok then
    segment.need, message, err = alignment_of(self, file)
    ok = segment.need
  end
  if ok then
    ok, message, err = read_header(self, segment)
  end
  if ok and self.block % segment.need ~= 0 then
    local cause = "the log was made in blocks of %d bytes, this file needs %d"
    ok, message, err = failure("Unsupported", "log", path, cause:format(self.block, segment.need))
  end
  if ok then return segment end
  file:close()
  return nil, message, err
end

local function without_zeros(text)
  local length = #text
  while length > 0 and text:byte(length) == 0 do length = length - 1 end
  return length
end

-- Looks at one block of the window, behind the last good record: how much of it may be of a torn
-- batch, or the number of a record that proves that `number` was acknowledged.
local function look_at_block(scan, at, from, number)
  local b, length = scan.buffer, scan.got - at
  if length > scan.block then length = scan.block end
  if from == 0 and length >= HEADER then
    local found, index, size = record(b, at, scan.half)
    if found and found - index > number then return nil, found end
    if scan.reused then return found and found >= number and HEADER + size end
  end
  length = without_zeros(b:string(at + from, length - from))
  return length > 0 and from + length
end

-- Reads on to the end of the segment. The ends of what may be of a torn batch and of what is not
-- zero, or false and the number of a record that proves that `number` was acknowledged.
local function look_behind(scan, number)
  local block, zeros = scan.block, ("\0"):rep(scan.window)
  local from, torn, stale = scan.pos % scan.block, scan.pos, scan.pos
  local pos = scan.pos - from
  while pos < scan.limit do
    local ok, message, err = fill_window(scan, pos, block)
    if not ok then return nil, message, err end
    if scan.got == 0 then break end
    if scan.buffer:string(from, scan.got - from) ~= zeros:sub(1, scan.got - from) then
      stale = pos + scan.got
      for at = 0, scan.got - 1, block do
        local length, proof = look_at_block(scan, at, from, number)
        if proof then return false, proof end
        if length then torn = pos + at + length end
        from = 0
      end
    end
    from = 0
    pos = align_up(pos + scan.got, block)
  end
  return torn, stale
end

-- The note of a wipe that began: 0 "jdbfswip"  8 u64 where the torn batch ended, 0: there was none
-- 16 half the log's identity  24 u32 CRC of 0..23. It stands in the first whole block behind the
-- last record.
local function noted_end(scan)
  local at, message, err = load(scan, align_up(scan.pos, scan.block), 28)
  if not at then return at, message, err end
  local b = scan.buffer
  if b:string(at, 8) ~= NOTE or b:string(at + 16, 8) ~= scan.half then return false end
  if b:u32(at + 24) ~= b:crc32c(at, 24) then return false end
  return b:u32(at + 8) + b:u32(at + 12) * 4294967296
end

local function write_note(self, file, b, from, torn)
  b:set(0, NOTE)
  b:u32(8, torn % 4294967296)
  b:u32(12, floor(torn / 4294967296))
  b:set(16, self.identity:sub(1, 8))
  b:u32(24, b:crc32c(0, 24))
  local ok, message, err = file:write_at(b, from, 0, self.block, "dsync")
  b:fill(0, 0, self.block)
  return ok, message, err
end

local function write_zeros(file, b, from, stop)
  while from < stop do
    local length = stop - from < #b and stop - from or #b
    local ok, message, err = file:write_at(b, from, 0, length, "dsync")
    if not ok then return nil, message, err end
    from = from + length
  end
  return true
end

-- Durable zeros in whole blocks. When the flush of some fails they read zeros all the same, and
-- nobody could tell how far the rest went: so the first block says it, until all behind it is done.
local function wipe_blocks(self, file, b, from, stop, torn)
  local ok, message, err = true, nil, nil
  if from + self.block < stop then
    ok, message, err = write_note(self, file, b, from, torn)
    if ok then ok, message, err = write_zeros(file, b, from + self.block, stop) end
  end
  if not ok then return nil, message, err end
  return write_zeros(file, b, from, from + self.block < stop and from + self.block or stop)
end

-- Zeroes what a torn batch left, and older records, before anything is appended: no later recovery
-- can take it for new. The rest of the last good record's block goes with it, and is durable when
-- that is written again. Any part of this may be lost in a crash: it is done again.
local function wipe(self, segment, scan, stale, torn)
  local from, keep = scan.pos - scan.pos % self.block, scan.pos % self.block
  local stop = align_up(stale, self.block)
  if stop > segment.size then stop = segment.size end
  local ok, message, err = true, nil, nil
  if stale > segment.size then -- a file that ends inside a block
    local length = scan.pos > segment.size and scan.pos or segment.size
    ok, message, err = segment.file:truncate(length)
    if ok then ok, message, err = segment.file:sync_all() end
  end
  if ok then ok, message, err = fill_window(scan, from, 1) end
  if not ok then return nil, message, err end
  local b = scan.buffer
  scan.got = 0
  b:fill(0, keep)
  if keep > 0 and from < stop then
    ok, message, err = segment.file:write_at(b, from, 0, self.block)
    if not ok then return nil, message, err end
    b:fill(0, 0, keep)
    from = from + self.block
  end
  return wipe_blocks(self, segment.file, b, from, stop, torn)
end

-- The flush of the last batch may have failed, and then no other flush need make it durable. It is
-- written once more: the next batch is acknowledged on the promise that this one is there.
local function write_again(self, segment, scan)
  local from, stop = scan.batch_at, align_up(scan.pos, self.block)
  while from and from < stop do
    local ok, message, err = fill_window(scan, from, 1)
    if not ok then return nil, message, err end
    local got = scan.got < stop - from and scan.got or stop - from
    if got == 0 then
      return failure("ShortRead", "log", segment.path, "the segment became shorter")
    end
    local length = align_up(got, self.block) -- the file may end inside a block
    scan.buffer:fill(0, got, length - got)
    ok, message, err = segment.file:write_at(scan.buffer, from, 0, length, "dsync")
    if not ok then return nil, message, err end
    from = from + length
  end
  return true
end

-- Says what is cut.
local function report(self, segment, scan, torn)
  local offset = expected_at(scan)
  if offset >= torn then offset = scan.pos end
  self.found.clean = false
  self.found.cut_bytes = torn - offset
  self.found.cut_at = { segment = segment.path:match("[^/]*$"), offset = offset }
end

-- Something is left behind the last record: of a torn batch up to `torn`, or older records.
local function clear_tail(self, segment, scan, torn)
  local noted, message, err = noted_end(scan)
  if noted == nil then return nil, message, err end
  if noted and noted > torn then torn = noted end
  if torn > scan.limit then torn = scan.limit end
  if torn > scan.pos then report(self, segment, scan, torn) else torn = 0 end
  return wipe(self, segment, scan, scan.reused and scan.limit or torn, torn)
end

-- The last segment: what is not there was never acknowledged, unless something proves it was.
local function settle_tail(self, segment, scan, number)
  local torn, stale, err = look_behind(scan, number)
  if torn == nil then return nil, stale, err end
  if not torn then
    return damaged(scan, "log", number, ("record %d, written later, is there"):format(stale))
  end
  segment.size = scan.limit - scan.limit % self.block
  local ok, message = true, nil
  if stale > scan.pos then
    ok, message, err = clear_tail(self, segment, scan, torn)
  end
  if ok then ok, message, err = write_again(self, segment, scan) end
  if not ok then return nil, message, err end
  segment.tail = align_up(scan.pos, self.block)
  return true
end

-- Reads a segment's records from `number` on; the number behind the last. Those from `stop` on are
-- in the next segment: what is here of that number was cut once.
local function read_records(scan, number, stop)
  while number ~= stop do
    local pos, message, err = find_record(scan, number)
    if pos == nil then return nil, message, err end
    if not pos then return number end
    number = number + 1
  end
  return number
end

-- One segment in its turn. `after`: the one behind it, opened already.
local function recover_segment(self, segment, after)
  local scan = new_scan(self, segment, segment.file, segment.size)
  local number, message, err = read_records(scan, segment.first, after and after.first)
  local ok = number
  if ok and after then
    segment.tail, segment.final = align_up(scan.pos, self.block), number - 1
    if number ~= after.first then
      local why = ("the next segment begins with record %d"):format(after.first)
      ok, message, err = damaged(scan, "log", number, why)
    end
  elseif ok then
    ok, message, err = settle_tail(self, segment, scan, number)
  end
  if scan.buffer then release(scan.buffer) end
  if not ok then return nil, message, err end
  self.next = number
  return true
end

-- The numbers of the segments, ascending; left-over temporary files are removed.
local function list_segments(self)
  local names, message, err = core.ls(self.path)
  if not names then return nil, message, err end
  local numbers = {}
  for _, name in ipairs(names) do
    local digits = name:match("^(%d+)%.log$")
    local number = digits and #digits <= 15 and floor(tonumber(digits))
    if number and ("%010d.log"):format(number) == name then
      numbers[#numbers + 1] = number
    elseif name:match("^next%-%d+%.tmp$") then
      core.remove(self.path .. "/" .. name)
    end
  end
  table.sort(numbers)
  for i = 2, #numbers do
    if numbers[i] ~= numbers[i - 1] + 1 then
      return bad_segment(segment_path(self, numbers[i - 1] + 1), "the segment is missing")
    end
  end
  return numbers
end

local function recover(self, numbers)
  local segment, message, err = open_segment(self, numbers[1], #numbers == 1)
  if not segment then return nil, message, err end
  for i = 1, #numbers do
    local ok, after = true, nil
    if numbers[i + 1] then
      after, message, err = open_segment(self, numbers[i + 1], i + 1 == #numbers)
      ok = after
    end
    if ok then ok, message, err = recover_segment(self, segment, after) end
    self.segments[i] = segment
    if not ok or after then
      segment.file:close()
      segment.file = nil
    end
    if not ok then
      if after then after.file:close() end
      return nil, message, err
    end
    segment = after or segment
  end
  self.current = segment
  return true
end

-- Sixteen bytes that no other log has.
local function new_identity(path)
  local bytes = core.entropy(16)
  if bytes then return bytes end
  local text = concat({ path, os.time(), os.clock(), tostring({}), tostring(Log) }, " ")
  local b, identity = new_buffer(#text + 1), new_buffer(16)
  b:set(1, text)
  for i = 0, 3 do
    b:u8(0, i)
    identity:u32(4 * i, b:crc32c())
  end
  return identity:string()
end

local function create(self)
  self.identity = new_identity(self.path)
  local ok, message, err = make_durable(self.path)
  if not ok then return nil, message, err end
  local spare
  spare, message, err = make_spare(self, self.segment_size)
  if not spare then return nil, message, err end
  local segment
  segment, message, err = publish(self, spare, 1, 1)
  if not segment then return nil, message, err end
  self.segments[1], self.current = segment, segment
  self.next = 1
  return true
end

-- ---- batches ------------------------------------------------------------------------------------

-- self.batches are two: one gathers, the other is with the device (see lua_log.c). Nearly all
-- appenders wait there. Those that it cannot suspend, or that found no room, stand in self.line:
-- the records of those from `first` on are in a batch, those from `next` to `last` wait for room.
local function new_line()
  return { first = 1, next = 1, last = 0 }
end

-- Appenders may join while somebody commits and nobody waits for room. The committer has to come
-- back for the line, and in the middle of a segment for the next one.
local function let_join(self)
  local line = self.line
  local may = not self.failed and not self.closing and line.next > line.last
  local pause = is_preparing(self) and self.current.size or ceil(self.current.size / 2)
  self.batches:admit(may and self.committer or nil, line.first > line.last and pause or 0)
end

local function set_committer(self, task)
  self.committing, self.committer = task ~= nil, task
  let_join(self)
end

-- Outside a task the wait drives the loop until the entry is `woken`.
local function await(entry)
  local task = entry.task
  if entry.woken then return end
  if not task then return core.drive(entry) end
  repeat core.park(task, entry.turn) until entry.woken -- 5.1 lets others resume it by hand
end

local function answer(entry, ok, message, err)
  entry.ok, entry.message, entry.err, entry.woken = ok, message, err, true
  if entry.task then core.wake(entry.task, entry.turn) end
end

-- Those in the line whose records are in a batch, up to that number. One without a number has its
-- answer already, or its task was cancelled.
local function answer_line(self, last, ok, message, err)
  local line = self.line
  while line.first < line.next do
    local entry = line[line.first]
    if entry.number and entry.number > last then return end
    line[line.first] = nil
    line.first = line.first + 1
    if entry.number then answer(entry, ok, message, err) end
  end
end

-- Encodes the record into the batch that gathers; false when that has no room. A record that no
-- page holds makes a batch in memory of its own; one that cannot be encoded has its answer.
local function place(self, entry)
  local number, kind, cause = self.batches:put(entry.data)
  if number == false and self.batches:count() == 0 then
    local own, message, err = new_buffer(align_up(HEADER + entry.length, self.block), self.memory)
    if not own then
      answer(entry, nil, message, err)
      return true
    end
    self.own[self.batches:use(own)] = own
    number = self.batches:put(entry.data)
  end
  if number == false then return false end
  entry.number, entry.data = number, nil
  if not number then answer(entry, failure(kind, "append", self.path, cause)) end
  return true
end

-- Those that wait for room are placed in order by whoever gets there first.
local function refill(self)
  local line = self.line
  while line.next <= line.last do
    local entry = line[line.next]
    local gone = entry.task and not alive(entry.task)
    if not gone and not place(self, entry) then break end
    line.next = line.next + 1
  end
  let_join(self)
end

-- ---- commit -------------------------------------------------------------------------------------

local function poisoned(self, op)
  local cause = "reopen the log, an earlier write failed: " .. self.failed
  return failure("Poisoned", op, self.path, cause)
end

-- The batch that was written is over.
local function finish_batch(self, ok, message, err)
  local _, _, _, _, last = self.batches:position()
  if ok then self.batches:open() else self.batches:open(nil, message, err) end
  answer_line(self, last, ok, message, err)
end

-- What gathers fails; numbers go on behind what is durable.
local function give_up(self, message, err)
  self.batches:give_up(nil, message, err)
  for _, own in pairs(self.own) do release(own) end
  self.own = {}
end

-- Nothing of a batch was written: its numbers, and those of what gathered behind it, are given
-- back.
local function give_back(self, message, err)
  give_up(self, message, err)
  answer_line(self, huge, nil, message, err)
end

-- What is on disk is unknown from here on: nothing more is acknowledged until the log is reopened.
local function poison(self, message)
  local line = self.line
  self.failed = message
  give_up(self, select(2, poisoned(self, "append")))
  for i = line.first, line.last do
    if not line[i].woken then answer(line[i], poisoned(self, "append")) end
  end
  self.line = new_line()
  let_join(self)
end

-- A fourth result says that nothing was written.
local function write_batch(self, buffer, length)
  local last, tail = self.batches:position()
  if tail + length > self.current.size then
    local ok, message, err, unknown = next_segment(self, length, last + 1)
    if not ok then return nil, message, err, not unknown end
    tail = self.current.tail
  end
  return self.current.file:write_at(buffer, tail, 0, length, "dsync")
end

local function commit_batch(self, in_task, length, which)
  local own = self.own[which]
  if self.line.next <= self.line.last then
    -- In a task the line is encoded while the device works.
    if in_task then spawn(refill, self) else refill(self) end
  end
  local ok, message, err, unwritten = write_batch(self, own or self.pages[which], length)
  if own then
    self.own[which] = nil
    release(own)
  end
  if ok then return finish_batch(self, true) end
  finish_batch(self, nil, message, err)
  if unwritten then give_back(self, message, err) else poison(self, message) end
end

-- Nearly every batch is like the one before: these are written one after the other without coming
-- back here. Whether there was one.
local function commit_plain(self)
  local batches = self.batches
  let_join(self)
  if not batches:write(self.current.file) then return false end
  local _, message, err = batches:failure()
  if err then
    finish_batch(self, nil, message, err)
    poison(self, message)
  end
  prepare_soon(self)
  return true
end

-- Until nothing is left. Appenders that were just answered run before the next batch is taken, so
-- that all of them share it.
local function commit(self, in_task)
  local batches = self.batches
  while true do
    while in_task and commit_plain(self) do end
    if self.line.next <= self.line.last then refill(self) end
    local count, length, which = batches:take()
    if count == 0 then break end
    commit_batch(self, in_task, length, which)
    if in_task then
      prepare_soon(self)
      give_way()
    end
  end
  set_committer(self, nil)
  self.idle:set()
end

-- In a task of its own: an appender's may be cancelled in the middle of the write.
local function start_committer(self)
  local committer, message, err = spawn(commit, self, true)
  if not committer then return nil, message, err end
  self.idle:clear()
  set_committer(self, committer)
  return true
end

local function commit_here(self)
  self.committing = true
  self.idle:clear()
  local ok, text = pcall(commit, self, false)
  if ok then return end
  self.committing = false
  poison(self, tostring(text))
  self.idle:set()
  error(text, 0)
end

-- A run that ends in an error ends the committer too: what it was writing is unknown.
local function notice_end(self)
  if not self.committing or not self.committer or alive(self.committer) then return end
  set_committer(self, nil)
  poison(self, "the task that wrote a batch was ended")
  self.batches:open(poisoned(self, "append"))
  self.idle:set()
end

local function closed(self, op)
  return failure("Closed", op, self.path, "the log is closed")
end

-- ---- methods ------------------------------------------------------------------------------------

local function check_self(self, class, name, level)
  if type(self) ~= "table" or getmetatable(self) ~= class then
    error(("bad self for '%s' (call with a colon)"):format(name), level or 3)
  end
end

local function length_of(self, data)
  if type(data) == "string" then return #data end
  if not is_buffer(data) then
    error("bad argument #1 to 'append' (string or jdbfs buffer expected)", 4)
  end
  local ok, text = pcall(data.string, data, 0, 0)
  if ok then return #data end
  return failure(text:match("%((%u%l+)%)"), "append", self.path, text)
end

local function wait_in_line(self, data, length, task, turn)
  local line = self.line
  local entry = {
    data = data, length = length, task = task, turn = turn,
    number = false, ok = false, woken = false,
  }
  line.last = line.last + 1
  line[line.last] = entry
  if line.next == line.last then refill(self) else let_join(self) end
  if not self.committing and not entry.woken then commit_here(self) end
  await(entry)
  if entry.ok then return entry.number end
  return nil, entry.message, entry.err
end

local function append_slowly(self, data)
  check_self(self, Log, "append", 4)
  core.may_wait() -- before anything is written
  local can_wait, task, turn = place_of_call()
  local length, message, err = length_of(self, data)
  if not length then return nil, message, err end
  if length > RECORD_MAX then
    return failure("Overflow", "append", self.path, "a record is 1 GiB at most")
  end
  notice_end(self)
  if self.closing then return closed(self, "append") end
  if self.failed then return poisoned(self, "append") end
  if self.committing and not can_wait then error(task, 3) end
  if not can_wait then task = nil end
  local number
  if task and not self.committing then
    number, message, err = start_committer(self)
    if number then number, message, err = join_batch(self, data) end
    if number or err then return number, message, err end
  end
  number, message, err = wait_in_line(self, data, length, task, turn)
  return number, message, err
end

-- Nearly every record of a busy log joins the batch that gathers, in one call.
local function appender(join)
  return function(self, data)
    local number, message, err = join(self, data)
    if number then return number end
    if err then return nil, message, err end
    return append_slowly(self, data)
  end
end

local append = appender(join_batch)

Log.append = append

-- As a field it is found at once; where that can be, it is that call. A host has made it its own.
local function place_append(self)
  self.append = Log.append
  if Log.append ~= append then return end
  local join, whole = self.batches:appender(self, append_slowly)
  self.append = whole and join or appender(join)
end

function Log:recovery()
  check_self(self, Log, "recovery")
  local copy = {}
  for name, value in pairs(self.found) do copy[name] = value end
  return copy
end

-- The first record that there is. The oldest segment may be on its way out, and another follows it.
local function first_of(self)
  local segments = self.segments
  return (segments[1].leaving and segments[2] or segments[1]).first
end

function Log:stats()
  check_self(self, Log, "stats")
  local last, _, commits, bytes = self.batches:position()
  return {
    records = last - self.found.last, batches = commits, bytes = bytes,
    segments = #self.segments, reused = self.reused, first = first_of(self), last = last,
  }
end

-- Whether the segment may stay as a spare. One that a cursor reads must not change.
local function is_wanted(self, segment)
  local kept = 0
  for _, spare in ipairs(self.ready) do kept = kept + (spare.reused and 1 or 0) end
  return kept < self.spare_segments and not next(segment.readers)
    and segment.size == whole_size(self, self.segment_size)
end

-- Under its new name recovery removes it: it may change as soon as that name is durable.
local function keep_as_spare(self, segment)
  local path = spare_path(self)
  if not core.rename(segment.path, path) then return remove_durable(self, segment.path) end
  local ok, message, err = core.sync_dir(self.path)
  local file
  if ok and not next(segment.readers) then -- a cursor may have opened it meanwhile
    file = core.open_rw(path, { direct = self.direct, must_exist = true, nofollow = true })
  end
  if file then
    self.ready[#self.ready + 1] = { file = file, path = path, size = segment.size, reused = true }
  else
    core.remove(path)
  end
  return ok, message, err
end

local function free_segment(self, segment)
  if is_wanted(self, segment) then return keep_as_spare(self, segment) end
  return remove_durable(self, segment.path)
end

-- The oldest first, each durable before the next: segments are never missing in the middle. No
-- cursor is sent to a file that is being removed.
local function remove_segments(self, number, result)
  while #self.segments > 1 and self.segments[2].first <= number do
    local segment = self.segments[1]
    segment.leaving = true
    local ok, message, err = free_segment(self, segment)
    if not ok then
      segment.leaving = nil
      result.message, result.err = message, err
      return
    end
    remove(self.segments, 1)
    self.unprepared = false
    let_join(self)
  end
  result.ok = true
end

local function to_number(value, name)
  if type(value) == "cdata" then value = tonumber(value) end
  if type(value) ~= "number" then
    error(("bad argument #1 to '%s' (number expected)"):format(name), 3)
  end
  return value
end

function Log:truncate_before(number)
  check_self(self, Log, "truncate_before")
  number = to_number(number, "truncate_before")
  if self.closing then return closed(self, "truncate_before") end
  local result = {}
  while alive(self.remover) do wait(self.remover) end
  local can_wait, task = place_of_call()
  if can_wait and task then
    -- A task of its own: cancelling the caller must not leave it half done for the next.
    self.remover = spawn(remove_segments, self, number, result)
    wait(self.remover)
  else
    remove_segments(self, number, result)
  end
  if result.ok then return true end
  if result.err then return nil, result.message, result.err end
  return failure("Cancelled", "truncate_before", self.path, "the task that removed was ended")
end

local function close_files(self)
  while #self.ready > 0 do discard(remove(self.ready)) end
  local ok, message, err = true, nil, nil
  if self.current.file then ok, message, err = self.current.file:close() end
  self.lock:close()
  if ok then return true end
  return nil, message, err
end

function Log:close()
  check_self(self, Log, "close")
  if self.closed then return true end
  self.closing = true
  let_join(self)
  notice_end(self)
  self.idle:wait()
  while alive(self.preparer) do wait(self.preparer) end
  while alive(self.remover) do wait(self.remover) end
  local ok, message, err = close_files(self)
  self.closed = true
  return ok, message, err
end

Log.__tostring = function(self)
  return ("jdbfs.log (%s%s)"):format(self.path, self.closing and ", closed" or "")
end

-- ---- records ------------------------------------------------------------------------------------

function Log:records(from)
  check_self(self, Log, "records")
  local cursor = setmetatable({ log = self }, Cursor)
  if from == nil then from = first_of(self) else from = to_number(from, "records") end
  cursor.number = from == floor(from) and floor(from) or from
  return cursor, nil, nil, cursor
end

local function segment_of(log, number)
  local segments = log.segments
  for i = #segments, 1, -1 do
    if segments[i].first <= number then return not segments[i].leaving and segments[i] or nil end
  end
end

local function drop_scan(self)
  local scan = self.scan
  self.scan = nil
  if scan then scan.segment.readers[self] = nil end
  return scan
end

local function leave_segment(self)
  local scan = drop_scan(self)
  if not scan then return end
  if scan.buffer then release(scan.buffer) end
  scan.file:close()
end

local function enter_segment(self, segment)
  leave_segment(self)
  segment.readers[self] = true -- it may be freed while this waits
  local file, message, err = core.open(segment.path, { direct = self.log.direct, nofollow = true })
  if not file then
    segment.readers[self] = nil
    return nil, message, err
  end
  self.scan = new_scan(self.log, segment, file, tail_of(self.log, segment))
  self.scan.segment, self.scan.next = segment, segment.first
  return true
end

local function gone(log, number)
  local cause = ("record %d is gone: the first is %d"):format(number, first_of(log))
  return failure("Overflow", "records", log.path, cause)
end

-- The scan of the record's segment, at that record or before it. One that is open goes on when
-- truncate_before removes the file.
local function locate(self)
  local log, number, scan = self.log, self.number, self.scan
  if not scan or number > (scan.segment.final or number) then
    local segment = segment_of(log, number)
    if not segment then return gone(log, number) end
    local ok, message, err = enter_segment(self, segment)
    -- It may have been removed while this waited for the file.
    if not ok and segment_of(log, number) ~= segment then return gone(log, number) end
    if not ok then return nil, message, err end
    scan = self.scan
  end
  scan.limit = tail_of(log, scan.segment)
  return scan
end

function Cursor:next()
  check_self(self, Cursor, "next")
  local log, number = self.log, self.number
  if log.closing then return closed(log, "records") end
  if number ~= floor(number) or number < 1 then
    return failure("Overflow", "records", log.path, tostring(number) .. " is no record's number")
  end
  if self.done or number > log.batches:position() then return nil end
  local scan, message, err = locate(self)
  if not scan then return nil, message, err end
  while true do
    local wanted = scan.next == number
    local pos, length
    pos, length, err = find_record(scan, scan.next, not wanted)
    if pos == nil then return nil, length, err end
    if not pos then return damaged(scan, "records", scan.next, "it is not there") end
    scan.next = scan.next + 1
    if wanted then
      self.number = number + 1
      return number, scan.buffer:string(pos - scan.at + HEADER, length)
    end
  end
end

function Cursor:close()
  check_self(self, Cursor, "close")
  self.done = true
  leave_segment(self)
  return true
end

-- A step of a for loop: what next would return as a failure raises.
function Cursor:__call()
  local number, data, err
  if FOR_CANNOT_YIELD then
    -- In a coroutine of its own, which jdbfs did not make, the reads complete in place.
    number, data, err = coroutine.wrap(function() return self:next() end)()
  else
    number, data, err = self:next()
  end
  if err then error(data, 2) end
  return number, data
end

-- The end of a for loop on 5.4, also after a break. In a coroutine that ends with an error nothing
-- may wait: the file closes by itself.
Cursor.__close = function(self, raised)
  if raised == nil then return self:close() end
  self.done = true
  drop_scan(self)
end

-- ---- opening ------------------------------------------------------------------------------------

local DIRECT = { require = true, prefer = true, off = true }

local LIMITS = {
  segment_size = { 2 * BLOCK, 1099511627776 },
  batch_size = { BLOCK, RECORD_MAX },
  spare_segments = { 0, 1024 },
}

local function read_options(o)
  local options = {
    segment_size = 67108864, batch_size = 1048576, direct = "require", spare_segments = 0,
  }
  if o == nil then return options end
  if type(o) ~= "table" then error("bad argument #2 to 'log' (table expected)", 3) end
  for name, value in pairs(o) do
    local limits = LIMITS[name]
    if limits then
      local least, most = limits[1], limits[2]
      if type(value) ~= "number" or value ~= floor(value) or value < least or value > most then
        error(("option %s: an integer from %d to %d expected"):format(name, least, most), 3)
      end
      options[name] = floor(value)
    elseif name == "direct" then
      if not DIRECT[value] then
        error("option direct: \"require\", \"prefer\" or \"off\" expected", 3)
      end
      options.direct = value
    else
      error("unknown option " .. tostring(name), 3)
    end
  end
  return options
end

local function load_log(self)
  local numbers, message, err = list_segments(self)
  if not numbers then return nil, message, err end
  -- The names that this decides on are durable from here on.
  local ok
  ok, message, err = core.sync_dir(self.path)
  if not ok then return nil, message, err end
  local get = #numbers == 0 and create or recover
  ok, message, err = get(self, numbers)
  if not ok then return nil, message, err end
  local found = self.found
  found.first, found.last = self.segments[1].first, self.next - 1
  found.records, found.segments = found.last - found.first + 1, #self.segments
  self.half = self.identity:sub(1, 8)
  return true
end

-- The two batches. One fits in a segment of the usual size.
local function make_batches(self, size)
  local room = align_up(self.segment_size, self.block) - self.block
  if room < self.block then room = self.block end
  if size > room then size = room end
  size = align_up(size, self.block)
  local one, message, err = new_buffer(size, self.memory)
  if not one then return nil, message, err end
  local two
  two, message, err = new_buffer(size, self.memory)
  if not two then return nil, message, err end
  self.pages, self.batches = { one, two }, batches_of(one, two, self.half, self.next)
  if not self.batches then return failure("Alloc", "log", self.path, "out of memory") end
  self[1] = self.batches -- for join_batch
  use_segment(self, self.current)
  return true
end

local function open(path, o)
  if type(path) ~= "string" then error("bad argument #1 to 'log' (string expected)", 2) end
  local options = read_options(o)
  local self = setmetatable({
    path = path, direct = options.direct, segment_size = options.segment_size, spares = 0,
    spare_segments = options.spare_segments, ready = {}, reused = 0, segments = {},
    line = new_line(), own = {}, idle = sync.event(), committing = false,
    found = { clean = true, cut_bytes = 0 },
  }, Log)
  self.idle:set()
  local ok, message, err = core.mkdir(path)
  if not ok then return nil, message, err end
  self.lock, message, err = lock_directory(path)
  if not self.lock then return nil, message, err end
  ok, message, err = load_log(self)
  if ok then ok, message, err = make_batches(self, options.batch_size) end
  if ok then
    place_append(self)
    return self
  end
  if self.current and self.current.file then self.current.file:close() end
  self.lock:close()
  return nil, message, err
end

core.waiting_classes[Log] = { "append", "truncate_before", "close" }
core.waiting_classes[Cursor] = {
  "next", "close", in_for = "__call", for_cannot_yield = FOR_CANNOT_YIELD,
}

return open
