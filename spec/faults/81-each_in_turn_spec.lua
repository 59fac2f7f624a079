-- Every operation, every system call, every allocation, mapping and thread of every scenario fails
-- in turn, until a run of it meets no fault. After each: the right error, nothing leaked, all
-- counters back, and the scenario works again.

local support = require "support"
local support_faults = require "support_faults"

local jdbfs, each_in_turn = support.jdbfs, support_faults.each_in_turn
local PAGE = jdbfs.PAGE_SIZE
local PREFER = { direct = "prefer" }

local function filled(byte, pages)
  local b = assert(jdbfs.buffer((pages or 1) * PAGE))
  b:fill(byte)
  return b
end

local function buffer(t, pages)
  local b, message, err = jdbfs.buffer((pages or 1) * PAGE)
  return t:ok("buffer", nil, b, message, err)
end

local function made(t, name, open, o)
  local path = t:path(name)
  local f = t:keep(t:ok(open or "create", path, jdbfs[open or "create"](path, o or PREFER)))
  return f, path
end

-- ---- the scenarios ------------------------------------------------------------------------------

local scenarios = {}

function scenarios.opening(t)
  local f, path = made(t, "a", "create")
  t:ok("close", path, f:close())
  for _, how in ipairs { "open", "open_rw", "open_wal", "create" } do
    f = made(t, "a", how, { direct = "prefer", lock = "exclusive" })
    t:ok("close", path, f:close())
  end
  f, path = made(t, "b", "open_wal", { direct = "prefer", durable_create = true, exclusive = true })
  t:ok("close", path, f:close())
end

function scenarios.transfers(t)
  local f, path = made(t, "a")
  local b = buffer(t, 4)
  t:ok("write_at", path, f:write_at(b, 0))
  t:ok("write_at", path, f:write_at(b, 4 * PAGE, 0, PAGE, "dsync"))
  t:ok("read_at", path, f:read_at(b, 0, PAGE, PAGE))
  t:ok("read_upto", path, f:read_upto(b, 4 * PAGE))
  t:ok("read", path, f:read(17, 99))
  t:ok("write_many", path, f:write_many { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } })
  t:ok("write_many", path, f:write_many({ { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } }, "dsync"))
  t:ok("read_many", path, f:read_many { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } })
  t:ok("close", path, f:close())
end

function scenarios.flushing(t)
  local f, path = made(t, "a")
  local b = buffer(t)
  t:ok("write_at", path, f:write_at(b, 0))
  t:ok("sync_data", path, f:sync_data())
  t:ok("write_at", path, f:write_at(b, PAGE))
  t:ok("sync_all", path, f:sync_all())
  t:ok("close", path, f:close())
  f = made(t, "b", "create", { direct = "prefer", durable_method = "flush" })
  t:ok("write_at", t:path "b", f:write_at(b, 0, 0, PAGE, "dsync"))
  t:ok("close", t:path "b", f:close())
  f = made(t, "c", "open_wal")
  t:ok("write_at", t:path "c", f:write_at(b, 0))
  t:ok("close", t:path "c", f:close())
end

function scenarios.space(t)
  local f, path = made(t, "a")
  t:ok("preallocate", path, f:preallocate(4 * PAGE))
  t:ok("preallocate", path, f:preallocate(8 * PAGE, "keep_size"))
  t:ok("preallocate", path, f:preallocate(6 * PAGE + 5, "zero"))
  t:ok("truncate", path, f:truncate(PAGE))
  t:ok("size", path, f:size())
  t:ok("stat", path, f:stat())
  t:ok("punch", path, f:punch(0, PAGE))
  t:ok("lock", path, f:lock("shared"))
  t:ok("lock", path, f:lock("exclusive"))
  t:ok("unlock", path, f:unlock())
  t:ok("close", path, f:close())
end

function scenarios.telling(t)
  local f, path = made(t, "a", "open_rw")
  t:ok("info", path, f:info())
  t:ok("probe", t.dir, jdbfs.probe(t.dir))
  t:ok("probe", path, jdbfs.probe(path))
  t:ok("close", path, f:close())
end

function scenarios.names(t)
  local a, b, deep = t:path "a", t:path "b", t:path "x/y/z"
  t:ok("mkdir", deep, jdbfs.mkdir(deep, { durable = true }))
  t:ok("mkdir", t:path "x", jdbfs.mkdir(t:path "x"))
  t:ok("atomic_write", a, jdbfs.atomic_write(a, "some bytes"))
  t:ok("atomic_write", a, jdbfs.atomic_write(a, "other bytes"))
  t:ok("exists", a, jdbfs.exists(a))
  t:ok("size", a, jdbfs.size(a))
  t:ok("stat", a, jdbfs.stat(a))
  t:ok("rename", a, jdbfs.rename(a, b, { durable = true }))
  t:ok("rename", b, jdbfs.rename(b, a, { noreplace = true }))
  t:ok("ls", t.dir, jdbfs.ls(t.dir))
  t:ok("space", t.dir, jdbfs.space(t.dir))
  t:ok("sync_dir", t.dir, jdbfs.sync_dir(t.dir))
  t:ok("remove", a, jdbfs.remove(a, { durable = true }))
end

-- Everything that was acknowledged is there when the log is opened again.
function scenarios.log(t)
  local path = t:path "log"
  local acknowledged = {}
  local log
  local o = { direct = "prefer", segment_size = 16384, batch_size = 8192, spare_segments = 1 }
  local function append(i)
    local data = ("record %d "):format(i):rep(200 * i)
    acknowledged[#acknowledged + 1] = { t:ok(nil, nil, log:append(data)), data }
  end
  local function work()
    log = t:ok(nil, nil, jdbfs.log(path, o))
    for i = 1, 5 do append(i) end
    t:ok(nil, nil, log:truncate_before(3))
    append(6) -- in a segment that is used again
    local cursor = log:records(4)
    t:ok(nil, nil, cursor:next())
    cursor:close()
    t:ok(nil, nil, log:close())
  end
  local ok, raised
  if t.in_task and _VERSION == "Lua 5.1" then
    ok, raised = jdbfs.pcall(work)
  else
    ok, raised = pcall(work)
  end
  support_faults.faults.suspend()
  if log then log:close() end
  log = assert(jdbfs.log(path, o))
  local there = {}
  for number, data in log:records() do there[number] = data end
  for _, record in ipairs(acknowledged) do
    if record[1] >= log:recovery().first then
      support.same(record[2], there[record[1]])
    end
  end
  assert(log:append("after the fault"))
  assert(log:close())
  if not ok then error(raised, 0) end
end

function scenarios.streams(t)
  local f, path = made(t, "a")
  local w = t:ok(nil, nil, jdbfs.writer(f, { block = PAGE, depth = 2 }))
  local function stop()
    t:ok(nil, nil, w:close())
  end
  for _ = 1, 3 do
    local ok, message, err = w:write(("x"):rep(3000))
    if not ok then w:close() end
    t:ok(nil, nil, ok, message, err)
  end
  local ok, message, err = w:sync()
  if not ok then w:close() end
  t:ok(nil, nil, ok, message, err)
  stop()
  local r = t:ok(nil, nil, jdbfs.reader(f, { block = PAGE, depth = 2 }))
  local all = {}
  repeat
    local data
    data, message, err = r:read(2000)
    if message then
      r:close()
      t:ok(nil, nil, nil, message, err)
    end
    all[#all + 1] = data
  until not data
  r:close()
  support.same(("x"):rep(9000), table.concat(all))
  t:ok("close", path, f:close())
end

-- In a task only: many at once, some cancelled, some timed out.
local function many(t)
  local f, path = made(t, "a")
  local tasks = {}
  local lost
  for i = 0, 7 do
    tasks[i] = assert(jdbfs.spawn(function()
      local b = filled(i)
      local n, message, err = f:write_at(b, i * PAGE)
      if not n then lost = { message, err } return end
      n, message, err = f:read_at(b, i * PAGE)
      if not n then lost = { message, err } return end
      assert(b:u8(0) == i)
    end))
  end
  local gone = jdbfs.spawn(function() f:read_at(filled(0), 0) end)
  jdbfs.yield()
  gone:cancel()
  for i = 0, 7 do tasks[i]:join() end
  gone:join()
  if lost then t:ok(nil, path, nil, lost[1], lost[2]) end
  t:ok("close", path, f:close())
end

-- ---- what fails ---------------------------------------------------------------------------------

-- Faults that cost knowledge or speed, never a result: a default is taken instead, or another way.
local EVERYWHERE = {
  ["sys.fcntl"] = true, -- "prefer": without O_DIRECT then
  ["sys.syscall"] = true, -- statx: the next source tells the alignment
  ["sys.fstatfs"] = true, -- the name of the file system
  ["sys.ioctl"] = true,
  ["sys.close"] = true, -- of a directory that was synced
}
-- What info and probe look at to tell about the device.
local EVIDENCE = {
  ["sys.fopen"] = true, ["sys.fstat"] = true, ["sys.stat"] = true, ["sys.opendir"] = true,
  ["sys.readdir"] = true,
}
-- Asked again in another way; a flag that cannot be tried is unknown.
local OF_PROBE = { ["sys.open"] = true, ["sys.pwritev2"] = true }

local function tolerated(name)
  if name == "log" or name == "streams" then return true end
  local all = {}
  local sets = { EVERYWHERE }
  if name == "telling" then sets = { EVERYWHERE, EVIDENCE, OF_PROBE } end
  for _, set in ipairs(sets) do
    for point in pairs(set) do all[point] = true end
  end
  return all
end

local ORDER = { "opening", "transfers", "flushing", "space", "telling", "names", "log", "streams" }

local uring = jdbfs.info().backend == "io_uring"
-- What goes to the ring; of space truncate alone (Linux 6.9).
local NATIVE = { transfers = true, flushing = true, log = true, streams = true,
  space = uring and jdbfs.info().features:find("ftruncate") ~= nil }

-- The short version goes one way on each backend.
local ways = { "in a task", "outside tasks" }
if not support_faults.long then ways = { uring and "in a task" or "outside tasks" } end

local sweeps, met = 0, 0

for _, way in ipairs(ways) do
  describe("each in turn, " .. way .. ",", function()
    support.setup()
    local task = way == "in a task"

    local function sweep(name, point, keys, o)
      local scenario = scenarios[name]
      o.point, o.keys, o.task = point, keys, task
      local n = each_in_turn(function(t)
        t.in_task = task
        scenario(t)
      end, o)
      sweeps, met = sweeps + 1, met + n
    end

    for _, name in ipairs(ORDER) do
      local open_ended = name == "log" or name == "streams"
      -- Each round of the log is long: the short version keeps to what finds most.
      local brief = name == "log" and not support_faults.long

      it("operations of " .. name .. " fail before they are done", function()
        sweep(name, "*", "errno=EIO",
          { errno = not open_ended and "EIO" or nil, kind = not open_ended and "Io" or nil,
            tolerant = open_ended })
      end)

      it("operations of " .. name .. " fail after they were done", function()
        if brief then return pending("in the long version") end
        sweep(name, "*", "errno=EIO:when=after",
          { errno = not open_ended and "EIO" or nil, kind = not open_ended and "Io" or nil,
            tolerant = open_ended })
      end)

      it("system calls of " .. name .. " fail", function()
        sweep(name, "sys.*", "errno=EIO",
          { errno = not open_ended and "EIO" or nil, tolerant = tolerated(name) })
      end)

      if support_faults.long then
        it("system calls of " .. name .. " fail, after they were done or for want of space",
          function()
            for _, keys in ipairs { "errno=EIO:when=after", "errno=ENOSPC" } do
              sweep(name, "sys.*", keys, { tolerant = tolerated(name) })
            end
          end)
      end

      it("allocations of " .. name .. " fail once", function()
        sweep(name, "alloc", "errno=ENOMEM",
          { tolerant = true, kind = not open_ended and "Alloc" or nil })
      end)

      it("allocations of " .. name .. " fail for ever", function()
        if brief then return pending("in the long version") end
        sweep(name, "alloc", "errno=ENOMEM:ever",
          { tolerant = true, kind = not open_ended and "Alloc" or nil })
      end)

      if uring and NATIVE[name] and not brief then
        it("the backend has no room during " .. name, function()
          sweep(name, "submit", "errno=EAGAIN", { tolerant = true })
        end)
      end

      if uring and not brief then
        it("the kernel refuses to be entered during " .. name, function()
          local errors = { "EINTR", "EAGAIN", "EBUSY" }
          for _, error in ipairs(errors) do
            sweep(name, "ring.enter", "errno=" .. error, { tolerant = true })
          end
        end)
      end
    end

    it("mappings fail once", function()
      sweep("transfers", "map", "errno=ENOMEM", { kind = "Alloc" })
    end)
  end)
end

describe("each in turn, many at once,", function()
  support.setup()

  for _, keys in ipairs { "errno=EIO", "errno=EIO:when=after" } do
    it("operations fail (" .. keys .. ")", function()
      each_in_turn(many, { point = "*", keys = keys, task = true, tolerant = true })
    end)
  end
end)

describe("all of that", function()
  it("met faults in every sweep", function()
    support_faults.figures(("each in turn: %d sweeps, %d faults"):format(sweeps, met))
    assert.is_true(sweeps >= 38 and met >= 2 * sweeps)
  end)
end)
