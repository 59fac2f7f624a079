-- The simulated disk itself: what it does on its own and on order, and that operations on it end
-- exactly once, each with its own result, in any order of completion.
--
-- JDBFS_SIM_SEEDS, JDBFS_SIM_OPERATIONS: of the last test, 20 seeds of 1000 operations unless told.

local jdbfs = require "jdbfs"
local sim = require "jdbfs.sim"
local support = require "support"

local PAGE = 4096

-- A test that needs the simulated disk: the body in a task, on an empty disk.
local function it_simulates(name, body)
  it(name, function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    assert(sim.reset { seed = 1 })
    jdbfs.run(body)
  end)
end

local function page(text)
  local b = jdbfs.buffer(PAGE)
  if text then b:set(0, text:rep(PAGE / #text)) end
  return b
end

local function read_all(path)
  local file = assert(jdbfs.open(path, { direct = "off" }))
  local data = assert(file:read(0, assert(file:size())))
  assert(file:close())
  return data
end

describe("the simulated disk", function()
  it_simulates("says what it is", function()
    local file = assert(jdbfs.create("f"))
    local info = assert(file:info())
    assert.are.equal("sim", info.backend)
    assert.are.equal("sim", info.file_system)
    assert.are.equal("simulated", info.durability.class)
    assert.is_true(info.direct)
    assert.are.equal(512, info.write_alignment)
    assert(file:close())
  end)

  it_simulates("refuses what is not aligned to its sectors", function()
    assert(sim.state())
    local file = assert(jdbfs.create("f"))
    support.fails({ kind = "Alignment" }, file:write_at(page("x"), 256))
    assert(file:write_at(page("x"), 512))
    assert(file:close())
  end)

  it_simulates("has a time of its own: sleeping takes none", function()
    local clock, before = os.clock(), jdbfs.now()
    jdbfs.sleep(100000)
    assert.is_true(jdbfs.now() - before >= 100000)
    assert.is_true(os.clock() - clock < 5)
    support.fails({ kind = "Timeout" }, jdbfs.timeout(3600, jdbfs.sleep, 7200))
  end)

  it_simulates("gets on for a task that only looks", function()
    local file, ended = assert(jdbfs.create("f")), false
    jdbfs.spawn(function()
      assert(file:write_at(page("x"), 0))
      ended = true
    end)
    while not ended do jdbfs.yield() end
    local start = jdbfs.now()
    while jdbfs.now() < start + 0.0001 do start = start + 0 end
    assert(file:close())
  end)

  it_simulates("has as much space as it was given", function()
    assert(sim.state())
    local file = assert(jdbfs.create("f"))
    local free, total = jdbfs.space("/")
    assert.is_true(free <= total and total == 2 ^ 32)
    support.fails({ kind = "Io", name = "ENOSPC" }, file:preallocate(total + PAGE))
    assert(file:close())
  end)

  it("is full at its capacity, and has room again after a remove", function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    assert(sim.reset { seed = 1, capacity = 8 * PAGE })
    jdbfs.run(function()
      local file = assert(jdbfs.create("f"))
      local b = jdbfs.buffer(16 * PAGE)
      local err = support.fails({ name = "ENOSPC" }, file:write_at(b, 0))
      assert.are.equal(8 * PAGE, err.actual)
      assert(file:close())
      assert(jdbfs.remove("f"))
      file = assert(jdbfs.create("g"))
      assert(file:write_at(b, 0, 0, 8 * PAGE))
      assert(file:close())
    end)
  end)

  it_simulates("keeps after a crash what was flushed", function()
    local file = assert(jdbfs.create("f", { durable_create = true }))
    assert(file:write_at(page("durable;"), 0))
    assert(file:sync_all())
    for seed = 1, 50 do
      assert(file:write_at(page("not yet;"), PAGE))
      assert(sim.crash { seed = seed })
      support.fails({ kind = "Io" }, file:read_at(page(), 0))
      assert(file:close())
      assert.are.equal(("durable;"):rep(512), read_all("f"):sub(1, PAGE))
      file = assert(jdbfs.open_rw("f"))
      assert(file:truncate(PAGE))
      assert(file:sync_all())
    end
    assert(file:close())
  end)

  it_simulates("keeps any part of the rest: all, nothing, single sectors, a size alone", function()
    local seen = {}
    for seed = 1, 200 do
      assert(sim.crash { seed = seed })
      local file = assert(jdbfs.create("f", { durable_create = true }))
      assert(file:sync_all())
      assert(file:write_at(page("12345678"), 0))
      assert(sim.crash { seed = seed })
      assert(file:close())
      local data, sectors = read_all("f"), 0
      for at = 1, #data, 512 do
        local sector = data:sub(at, at + 511)
        assert(sector == ("12345678"):rep(64) or sector == ("\0"):rep(#sector))
        if sector:sub(1, 1) ~= "\0" then sectors = sectors + 1 end
      end
      seen[#data == 0 and "nothing" or sectors == 8 and "all" or sectors == 0 and "size" or "part"]
        = true
    end
    assert.are.same({ nothing = true, all = true, size = true, part = true }, seen)
  end)

  it_simulates("loses names that were not synced, in any combination", function()
    local seen, kinds = {}, 0
    for seed = 1, 200 do
      for _, name in ipairs { "a", "b" } do
        if jdbfs.exists(name) then assert(jdbfs.remove(name, { durable = true })) end
      end
      for _, name in ipairs { "a", "b" } do assert(assert(jdbfs.create(name)):close()) end
      assert(sim.crash { seed = seed })
      local found = table.concat(assert(jdbfs.ls("/")), " ")
      if not seen[found] then kinds = kinds + 1 end
      seen[found] = true
    end
    assert.are.equal(4, kinds)
  end)

  it_simulates("keeps a renamed file under one name at least", function()
    assert(jdbfs.mkdir("d", { durable = true }))
    assert(jdbfs.mkdir("e", { durable = true }))
    local old, new = 0, 0
    for seed = 1, 100 do
      assert(jdbfs.atomic_write("d/f", "x"))
      if jdbfs.exists("e/f") then assert(jdbfs.remove("e/f", { durable = true })) end
      assert(jdbfs.rename("d/f", "e/f"))
      assert(sim.crash { seed = seed })
      local is_old, is_new = jdbfs.exists("d/f"), jdbfs.exists("e/f")
      assert(is_old or is_new, "the file is gone")
      old, new = old + (is_old and 1 or 0), new + (is_new and 1 or 0)
    end
    assert(old > 10 and new > 10 and old + new > 100)
  end)

  it_simulates("forgets nothing when a process is killed, and makes nothing durable", function()
    local lost = 0
    for seed = 1, 20 do
      local file = assert(jdbfs.create("f" .. seed))
      assert(file:write_at(page("x"), 0))
      assert(sim.kill())
      support.fails({ kind = "Io" }, file:size())
      assert.are.equal(PAGE, jdbfs.size("f" .. seed))
      assert(sim.crash { seed = seed })
      if not jdbfs.exists("f" .. seed) then lost = lost + 1 end
    end
    assert(lost > 0)
  end)
end)

describe("a host", function()
  support.setup()

  it("is told of timers at once: nothing but its steps makes virtual time go on", function()
    if not support.on_sim then return pending("needs JDBFS_BACKEND=sim") end
    if support.on_windows then return pending("no host can poll a port") end
    local r = support.script([[
      local jdbfs = require "jdbfs"
      assert(jdbfs.pollfd())
      local ended
      jdbfs.spawn(function() jdbfs.sleep(1000) ended = jdbfs.now() end)
      local start, steps = jdbfs.now(), 0
      while not ended and steps < 20 do jdbfs.step() steps = steps + 1 end
      io.write(ended and ended - start >= 1000 and "in time" or "not")
    ]], { own_disk = true })
    assert.are.equal("in time", r.out .. r.err)
  end)
end)

describe("the simulated disk's options", function()
  it("are checked", function()
    support.raises("a table of options expected", sim.reset, 1)
    support.raises("unknown option speed", sim.reset, { speed = 1 })
    support.raises("option latency", sim.reset, { latency = 1 })
    support.raises("only of op", sim.fault, { omit = true, op = "write_at" })
    support.raises("errno, transfer or omit expected", sim.fault, { op = "write_at" })
    support.raises("option when", sim.fault, { errno = "EIO", when = "later" })
  end)
end)

describe("a fault", function()
  it_simulates("strikes the n-th operation, before anything was done", function()
    local file = assert(jdbfs.create("f"))
    assert(sim.fault { op = "write_at", nth = 2, errno = "EIO" })
    assert(file:write_at(page("a"), 0))
    support.fails({ kind = "Io", name = "EIO", op = "write_at" }, file:write_at(page("b"), 0))
    assert.are.equal("a", read_all("f"):sub(1, 1))
    assert(file:write_at(page("c"), 0))
    assert.are.equal(1, sim.state().faults)
    assert(file:close())
  end)

  it_simulates("strikes afterwards: it is done, and told as failed", function()
    local file = assert(jdbfs.create("f"))
    assert(sim.fault { op = "write_at", errno = "EIO", when = "after" })
    support.fails({ name = "EIO" }, file:write_at(page("b"), 0))
    assert.are.equal(("b"):rep(PAGE), read_all("f"))
    assert(file:close())
  end)

  it_simulates("tears a write", function()
    local file = assert(jdbfs.create("f"))
    assert(file:write_at(page("a"), 0))
    assert(sim.fault { op = "write_at", errno = "EIO", when = "torn" })
    support.fails({ name = "EIO" }, file:write_at(page("b"), 0))
    local _, torn = read_all("f"):gsub("b", "")
    assert(torn > 0 and torn < PAGE and torn % 512 == 0)
    assert(file:close())
  end)

  it_simulates("makes transfers short, and they are resumed", function()
    local file, b = assert(jdbfs.create("f")), jdbfs.buffer(PAGE)
    for bytes = 512, PAGE, 512 do
      assert(sim.fault { op = "write_at", transfer = bytes })
      assert(sim.fault { op = "read_at", transfer = bytes })
      assert.are.equal(PAGE, file:write_at(page("w"), 0))
      assert.are.equal(PAGE, file:read_at(b, 0))
      assert.are.equal(("w"):rep(PAGE), b:string())
    end
    assert.are.equal(16, sim.state().faults)
    assert(file:close())
  end)

  it_simulates("makes a transfer of nothing, which is told", function()
    local file = assert(jdbfs.create("f"))
    assert(file:write_at(page("w"), 0))
    assert(sim.fault { op = "write_at", transfer = 0 })
    support.fails({ kind = "ShortWrite", actual = 0 }, file:write_at(page("w"), 0))
    assert(sim.fault { op = "read_at", transfer = 0 })
    support.fails({ kind = "ShortRead", actual = 0 }, file:read_at(page(), 0))
    assert(file:close())
  end)

  it_simulates("of a flush poisons, and what it covered is never durable", function()
    local lost = 0
    for seed = 1, 40 do
      local file = assert(jdbfs.create("f", { durable_create = true }))
      assert(sim.fault { op = "sync_data", errno = "EIO" })
      assert(file:write_at(page("w"), 0))
      support.fails({ kind = "Io", name = "EIO" }, file:sync_data())
      support.fails({ kind = "Poisoned" }, file:sync_data())
      assert(file:close())
      file = assert(jdbfs.open_rw("f"))
      assert(file:sync_all())
      assert(sim.crash { seed = seed })
      assert(file:close())
      if read_all("f") ~= ("w"):rep(PAGE) then lost = lost + 1 end
    end
    assert(lost > 10)
  end)

  it_simulates("of a durable write without support is worked around by a flush", function()
    local file = assert(jdbfs.create("f"))
    assert(sim.fault { op = "write_at", errno = "EOPNOTSUPP" })
    local flushes = jdbfs.stats().flushes
    assert(file:write_at(page("w"), 0, 0, PAGE, "dsync"))
    assert.are.equal(flushes + 1, jdbfs.stats().flushes)
    assert(file:close())
  end)

  it_simulates("EINTR is no failure", function()
    local file = assert(jdbfs.create("f"))
    for _, op in ipairs { "write_at", "sync_all", "truncate", "close" } do
      assert(sim.fault { op = op, errno = "EINTR" })
    end
    assert(file:write_at(page("w"), 0))
    assert(file:sync_all())
    assert(file:truncate(100))
    assert(file:close())
    assert.are.equal(4, sim.state().faults)
  end)

  it_simulates("with an unknown name or option is a mistake", function()
    support.raises("no operation", sim.fault, { op = "fly", errno = "EIO" })
    support.raises("no error", sim.fault, { op = "open", errno = "EFLY" })
    support.raises("unknown option", sim.fault, { operation = "open" })
    support.raises("errno, transfer or omit", sim.fault, { op = "open" })
    support.raises("unknown option", sim.reset, { speed = 1 })
    support.raises("option nth is negative", sim.fault, { op = "open", errno = "EIO", nth = -1 })
    support.raises("option per_million is too large", sim.fault,
      { op = "open", errno = "EIO", rate = 2^40 })
  end)

  it_simulates("is one of 32 at most", function()
    for _ = 1, 32 do assert(sim.fault { op = "punch", errno = "EIO" }) end
    support.fails({ kind = "Io", name = "ENOSPC", op = "sim.fault" },
      sim.fault { op = "punch", errno = "EIO" })
  end)
end)

describe("reset", function()
  it_simulates("refuses a disk that cannot be", function()
    for _, o in ipairs {
      { sector = 0 }, { sector = 513 }, { sector = 8192 }, { atomic = 256 }, { atomic = 4097 },
      { latency = { 2, 1 } }, { latency = { 0, 1e9 } },
    } do
      support.fails({ kind = "Io", name = "EINVAL", op = "sim.reset" }, sim.reset(o))
    end
    support.raises("option capacity is negative", sim.reset, { capacity = -1 })
    support.raises("option sector is too large", sim.reset, { sector = 2^32 })
    support.raises("negative", sim.cut, -1)
    support.raises("negative", sim.crash, { seed = -1 })
  end)

  it_simulates("waits for nobody: with an operation in flight it is refused", function()
    local file = assert(jdbfs.create("f"))
    local writer = jdbfs.spawn(function() return file:write_at(page("x"), 0) end)
    jdbfs.yield()
    support.fails({ kind = "Busy", op = "sim.reset" }, sim.reset())
    assert.are.equal(PAGE, writer:join())
    assert(file:close())
    assert(sim.reset())
  end)

  it_simulates("gives a disk with atomic writes, whose limits are kept", function()
    assert(sim.reset { atomic = 2048 })
    local file, b = assert(jdbfs.create("f")), page("x")
    assert.are.same({ min = 512, max = 2048 }, assert(file:info()).atomic)
    for _, len in ipairs { 512, 1024, 2048 } do
      assert.are.equal(len, file:write_at(b, 2 * len, 0, len, "atomic"))
    end
    for _, len in ipairs { 0, 1536, 4096 } do
      support.fails({ kind = "Alignment" }, file:write_at(b, 0, 0, len, "atomic"))
    end
    support.fails({ kind = "Alignment" }, file:write_at(b, 512, 0, 1024, "atomic"))
    assert(file:close())
  end)
end)

describe("a power cut", function()
  it_simulates("fails everything until the crash", function()
    local file = assert(jdbfs.create("f", { durable_create = true }))
    assert(sim.cut(2))
    assert(file:write_at(page("a"), 0))
    support.fails({ name = "EIO" }, file:write_at(page("b"), 0))
    support.fails({ name = "EIO" }, file:read_at(page(), 0))
    support.fails({ name = "EIO" }, jdbfs.exists("f"))
    assert.is_false(sim.state().power)
    assert(sim.crash())
    assert.is_true(sim.state().power and jdbfs.exists("f"))
    assert(file:close())
  end)

  it_simulates("ends what is in flight with an error, once", function()
    local file, ends = assert(jdbfs.create("f", { durable_create = true })), 0
    for i = 1, 20 do
      jdbfs.spawn(function()
        support.fails({ name = "EIO" }, file:write_at(page("x"), i * PAGE))
        ends = ends + 1
      end)
    end
    jdbfs.yield()
    jdbfs.yield()
    assert.is_true(jdbfs.stats().in_flight > 0)
    assert(sim.crash { seed = 3 })
    while ends < 20 do jdbfs.yield() end
    assert(file:close())
  end)
end)

describe("the backend sim", function()
  support.setup()

  it("is never chosen unless it is named", function()
    local r = support.script([[
      local jdbfs = require "jdbfs"
      io.write(jdbfs.info().backend)
    ]], { own_disk = true, env = { JDBFS_BACKEND = "" } })
    assert(r.status == 0 and r.out ~= "sim" and r.out ~= "", r.out .. r.err)
  end)

  it("is chosen by setup, and controls refuse other backends", function()
    local r = support.script([[
      local jdbfs, sim = require "jdbfs", require "jdbfs.sim"
      assert(jdbfs.setup { backend = arg[1] })
      local ok, message, err = sim.reset()
      io.write(tostring(ok), " ", err and err.kind or "none", " ", jdbfs.now() < 1 and "0" or "1")
    ]], { own_disk = true, env = { JDBFS_BACKEND = "" }, args = { "sim" } })
    assert.are.equal("true none 0", r.out .. r.err)
    r = support.script([[
      local jdbfs, sim = require "jdbfs", require "jdbfs.sim"
      assert(jdbfs.setup { backend = "threads" })
      for _, control in ipairs { "reset", "fault", "cut", "crash", "kill", "state" } do
        local o = control == "cut" and 1 or control == "fault" and { errno = "EIO" } or nil
        local ok, message, err = sim[control](o)
        assert(ok == nil and err.kind == "Unsupported" and err.op == "sim." .. control, message)
        assert(message:find("the backend is not \"sim\"", 1, true), message)
      end
      io.write("refused")
    ]], { own_disk = true, env = { JDBFS_BACKEND = "" } })
    assert.are.equal("refused", r.out .. r.err)
  end)

  it("cannot be controlled where no queue can be made", function()
    local r = support.script([[
      local sim = require "jdbfs.sim"
      for _, control in ipairs { "reset", "fault", "cut", "crash", "kill", "state" } do
        local o = control == "cut" and 1 or control == "fault" and { errno = "EIO" } or nil
        local ok, message, err = sim[control](o)
        assert(ok == nil and err.kind == "Unsupported" and err.op == "sim." .. control, message)
      end
      io.write("refused")
    ]], { own_disk = true, env = { JDBFS_BACKEND = "nonsense" } })
    assert.are.equal("refused", r.out .. r.err)
  end)
end)

-- ---- any order of completion --------------------------------------------------------------------

local TASKS, SLOTS = 16, 8

-- Park and Miller's, so that every Lua does the same.
local function generator(seed)
  local state = seed * 48271 % 2147483647
  return function(n)
    state = state * 48271 % 2147483647
    return state % n + 1
  end
end

-- What sector i of a task's slot says.
local function tag(task, slot, version, i)
  return ((task * 100 + slot) * 100 + i) * 100000 + version
end

local function fill(b, task, slot, version, sectors)
  for i = 0, sectors - 1 do b:u64(i * 512, tag(task, slot, version, i)) end
end

local function check_slot(b, task, slot, versions, sectors)
  for i = 0, sectors - 1 do
    local expected = versions[i] and tag(task, slot, versions[i], i) or 0
    if b:u64(i * 512) ~= expected then
      error(("task %d, slot %d, sector %d: %s, not %s"):format(task, slot, i,
        tostring(b:u64(i * 512)), tostring(expected)))
    end
  end
end

-- One task: operations on its own slots of the shared file, each result checked against what only
-- this operation can give. Lengths differ from task to task.
local function actor(world, task)
  local random, file = generator(world.seed * 1000 + task), world.file
  local sectors = task % 8 + 1
  local length, base = sectors * 512, (task - 1) * SLOTS * PAGE
  local out, back, lost = jdbfs.buffer(PAGE), jdbfs.buffer(PAGE), jdbfs.buffer(PAGE)
  local parts, all = {}, jdbfs.buffer(SLOTS * PAGE)
  for slot = 1, SLOTS do parts[slot] = all:slice((slot - 1) * PAGE, length) end
  local versions, last = {}, 0 -- of each sector of each slot
  for slot = 1, SLOTS do versions[slot] = {} end
  local function ended(expected, offset, value, message, err)
    world.ended = world.ended + 1
    if value == expected then return value end
    assert(err and err.name == "EIO" and err.offset == offset and err.path == "data", message)
    world.failed = world.failed + 1
    return err.actual
  end
  local function write(slot)
    local offset = base + (slot - 1) * PAGE
    last = last + 1
    fill(out, task, slot, last, sectors)
    local written = ended(length, offset, file:write_at(out, offset, 0, length))
    for i = 0, written / 512 - 1 do versions[slot][i] = last end
  end
  local function read(slot)
    local offset = base + (slot - 1) * PAGE
    local got = ended(length, offset, file:read_at(back, offset, 0, length))
    check_slot(back, task, slot, versions[slot], got / 512)
  end
  local doings = {
    write, write, read, read, read,
    function(slot) -- a read that nobody waits for in the end
      local child = jdbfs.spawn(function()
        file:read_at(lost, base + (slot - 1) * PAGE, 0, length)
      end)
      jdbfs.yield()
      child:cancel()
      world.ended = world.ended + 1
    end,
    function() -- in time or not, but never another's result
      local size, message, err = jdbfs.timeout(random(300) * 1e-6, file.size, file)
      assert(size == world.size or err and err.kind == "Timeout", message)
      world.ended = world.ended + 1
    end,
    function() jdbfs.sleep(random(100) * 1e-6) end,
    function(slot) -- a list, slot by slot
      local list = {}
      for i = 1, slot do list[i] = { parts[i], base + (i - 1) * PAGE } end
      local n, message, err = file:read_many(list)
      world.ended = world.ended + 1
      assert(n == slot or err and err.name == "EIO" and err.index <= slot, message)
      for i = 1, n or 0 do check_slot(list[i][1], task, i, versions[i], sectors) end
    end,
  }
  while world.ended < world.operations do doings[random(#doings)](random(SLOTS)) end
end

local function play(seed, operations)
  local world = { seed = seed, operations = operations, ended = 0, failed = 0 }
  assert(sim.reset { seed = seed })
  local before = jdbfs.stats()
  jdbfs.run(function()
    world.size = TASKS * SLOTS * PAGE
    world.file = assert(jdbfs.create("data"))
    assert(world.file:truncate(world.size))
    for _, op in ipairs { "read_at", "write_at" } do
      assert(sim.fault { op = op, errno = "EIO", rate = 0.01 })
      assert(sim.fault { op = op, transfer = 512 * (seed % 7 + 1), rate = 0.05 })
    end
    local tasks = {}
    for task = 1, TASKS do tasks[task] = jdbfs.spawn(actor, world, task) end
    for task = 1, TASKS do tasks[task]:join() end
    assert(world.file:close())
  end)
  local after = jdbfs.stats()
  assert(after.submitted - before.submitted == after.completed - before.completed)
  assert(after.in_flight + after.waiting + after.abandoned + after.tasks == 0)
  local state = sim.state()
  assert(state.open_files == 0)
  return state.trace, state.operations
end

describe("operations in any order of completion", function()
  it("end exactly once, each with its own result, alike on every repetition", function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    local seeds = tonumber(os.getenv("JDBFS_SIM_SEEDS") or "") or 20
    local operations = tonumber(os.getenv("JDBFS_SIM_OPERATIONS") or "") or 1000
    local total, traces, kinds = 0, {}, 0
    for seed = 1, seeds do
      local ok, trace, n = pcall(play, seed, operations)
      assert(ok, ("seed %d: %s"):format(seed, tostring(trace)))
      assert(trace == play(seed, operations), "seed " .. seed .. " does not repeat")
      if not traces[trace] then kinds = kinds + 1 end
      traces[trace] = true
      total = total + n
    end
    assert(total >= seeds * operations)
    assert.are.equal(seeds, kinds)
    support.figures(("operations: %d over seeds 1 to %d, equal traces when repeated"):format(total,
      seeds))
  end)
end)

describe("a flush that fails", function()
  it("leaves in doubt what was written while it ran, too", function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    for seed = 1, 40 do
      assert(sim.reset { seed = seed })
      jdbfs.run(function()
        local f = assert(jdbfs.create("f"))
        assert(f:write_at(page("a"), 4 * PAGE))
        assert(sim.fault { op = "flush", errno = "EIO" })
        local flush = jdbfs.spawn(function() return f:sync_data() end)
        local write = jdbfs.spawn(function() return f:write_at(page("b"), 2 * PAGE) end)
        support.fails({ kind = "Io", name = "EIO" }, flush:join())
        assert(write:join())
        support.fails({ kind = "Poisoned", offset = 2 * PAGE, length = 3 * PAGE }, f:sync_data())
        f:close()
      end)
    end
  end)
end)

describe("a log in directories that were made with it", function()
  it("is there after a crash", function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    for seed = 1, 30 do
      assert(sim.reset { seed = seed })
      local o = { segment_size = 16384 }
      local log = assert(jdbfs.log("a/b/c/log", o))
      assert(log:append("x"))
      assert(sim.crash { seed = seed })
      log:close()
      log = assert(jdbfs.log("a/b/c/log", o))
      assert.are.equal(1, log:recovery().records)
      assert(log:close())
    end
  end)
end)

-- On a real disk one cannot choose what is finished, and told to nobody yet, when its caller goes.
describe("a write that failed", function()
  it("is told by close, at whatever moment its caller was cancelled", function()
    if jdbfs.info().backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    local cancelled = 0
    for seed = 1, 40 do
      assert(sim.reset { seed = seed, latency = { 0.001, 0.001 } })
      jdbfs.run(function()
        local f, other = assert(jdbfs.create("f")), assert(jdbfs.create("g"))
        local writer
        jdbfs.spawn(function()
          other:size()
          if writer:cancel() then cancelled = cancelled + 1 end
        end)
        assert(sim.fault { op = "write_at", errno = "EIO" })
        writer = jdbfs.spawn(function() return f:write_at(page("x"), 0) end)
        local ok, _, err = writer:join()
        assert(ok == nil, ok)
        local was = err.kind == "Cancelled"
        if was then support.fails({ kind = "Io", name = "EIO", op = "close" }, f:close()) end
        assert.is_true(f:close())
        assert(other:close())
      end)
    end
    assert.is_true(cancelled > 0)
  end)
end)

describe("a transfer that was short", function()
  it_simulates("goes on before those that came later", function()
    assert(sim.reset { seed = 1, latency = { 0.001, 0.001 } })
    local f, b = assert(jdbfs.create("f")), page("x")
    local depth, ended, place = jdbfs.info().depth, 0, nil
    local resubmitted = jdbfs.stats().resubmitted
    assert(sim.fault { op = "write_at", transfer = 512 })
    local tasks = {}
    for i = 1, 3 * depth do
      tasks[i] = jdbfs.spawn(function()
        assert(f:write_at(b, i * PAGE))
        ended = ended + 1
        if i == 1 then place = ended end
      end)
    end
    for _, task in ipairs(tasks) do task:join() end
    assert.are.equal(resubmitted + 1, jdbfs.stats().resubmitted)
    assert.is_true(place <= 2 * depth, place)
    assert(f:close())
  end)
end)
