-- Random operations with random faults against a model of the contract: what must come back, what
-- the file must hold, whether it is poisoned. Each run prints its seeds; JDBFS_TEST_SEED repeats
-- one.

local support = require "support"
local support_faults = require "support_faults"

local jdbfs, faults = support.jdbfs, support_faults.faults
local BLOCK, BLOCKS = jdbfs.PAGE_SIZE, 24

-- ---- a generator that is the same on every Lua --------------------------------------------------

local state

local function random(n) -- 0 .. n - 1
  state = (state * 16807) % 2147483647
  return state % n
end

local function one_of(list)
  return list[random(#list) + 1]
end

-- ---- the model ----------------------------------------------------------------------------------

local KINDS = { ENOMEM = "Alloc", EOVERFLOW = "Overflow" }
local ERRNOS = { "EIO", "ENOSPC", "EROFS", "ENOMEM", "ETIMEDOUT", "EFBIG", "ENXIO", "EOVERFLOW" }
local HARMLESS = { ENOSPC = true, EFBIG = true, ENOMEM = true }

local Model = {}
Model.__index = Model

local function new_model(method)
  local path = support.path("file-" .. random(1000000))
  local m = setmetatable({ path = path, blocks = {}, size = 0, method = method }, Model)
  m.b = assert(jdbfs.buffer(BLOCKS * BLOCK))
  m.open = { direct = "prefer", durable_method = method }
  m.f = assert(jdbfs.create(path, m.open))
  return m
end

function Model:reopen()
  assert(self.f:close())
  self.f = assert(jdbfs.open_rw(self.path, self.open))
  self.poisoned = nil
end

function Model:write(at, n, value)
  for i = at, at + n - 1 do self.blocks[i] = value end
  if n > 0 and at + n > self.size then
    for i = self.size, at - 1 do self.blocks[i] = self.blocks[i] or 0 end
    self.size = at + n
  end
end

function Model:shrink(n)
  for i = n, BLOCKS do self.blocks[i] = nil end
  self.size = n
end

function Model:check_content()
  local b = assert(jdbfs.buffer(BLOCKS * BLOCK))
  local got = assert(self.f:read_upto(b, 0))
  assert(got == self.size * BLOCK, ("%d bytes, %d expected"):format(got, self.size * BLOCK))
  for i = 0, self.size - 1 do
    local want = self.blocks[i] or 0
    local first, last = b:u8(i * BLOCK), b:u8(i * BLOCK + BLOCK - 1)
    assert(first == want and last == want,
      ("block %d holds %d and %d, not %d"):format(i, first, last, want))
  end
  b:free()
end

-- ---- faults -------------------------------------------------------------------------------------

local injected = 0

local function plan_for(point, fault)
  if not fault then return end
  if fault.cut and fault.errno then
    faults.plan(("%s:short=%d;%s:nth=2:errno=%s"):format(point, fault.cut, point, fault.errno))
  elseif fault.cut then
    faults.plan(("%s:short=%d"):format(point, fault.cut))
  else
    faults.plan(("%s:errno=%s%s"):format(point, fault.errno, fault.after and ":when=after" or ""))
  end
end

local function fault_for(n)
  local what = random(6)
  if what == 0 then return nil end
  if what == 1 and n and n > 1 then return { cut = (1 + random(n - 1)) * BLOCK } end
  if what == 2 and n and n > 1 then
    return { cut = (1 + random(n - 1)) * BLOCK, errno = one_of(ERRNOS) }
  end
  return { errno = one_of(ERRNOS), after = random(2) == 0 }
end

-- The results of a call agree with what was planned. Gives how many bytes were moved.
local function agree(m, op, fault, want, value, message, err)
  local fired = faults.injected()
  local expected = fault and (fault.cut and fault.errno and 2 or 1) or 0
  faults.plan()
  assert(fired == expected, ("%s: %d faults planned, %d met"):format(op, expected, fired))
  injected = injected + fired
  if not (fault and fault.errno) then
    assert(value == want, ("%s: %s, not %s"):format(op, tostring(message or value), tostring(want)))
    return
  end
  support.fails({ kind = KINDS[fault.errno] or "Io", name = fault.errno, op = op, path = m.path },
    value, message, err)
end

local function refused(m, op, ...)
  support.fails({ kind = "Poisoned", op = op, path = m.path }, ...)
end

local steps = {}

function steps.write(m, durable)
  local at = random(BLOCKS - 1)
  local n = 1 + random(BLOCKS - at)
  local value = 1 + random(255)
  m.b:fill(value, 0, n * BLOCK)
  local flags = durable and "dsync" or nil
  if durable and m.poisoned then
    refused(m, "write_at", m.f:write_at(m.b, at * BLOCK, 0, n * BLOCK, flags))
    return
  end
  local fault = fault_for(n)
  plan_for("write_at", fault)
  local got, message, err = m.f:write_at(m.b, at * BLOCK, 0, n * BLOCK, flags)
  agree(m, "write_at", fault, n * BLOCK, got, message, err)
  if not fault or (fault.cut and not fault.errno) or fault.after then
    m:write(at, n, value)
  elseif fault.cut then
    m:write(at, fault.cut / BLOCK, value)
  end
  if err then
    local moved = fault.cut and fault.errno and fault.cut or 0
    assert(err.offset == at * BLOCK and err.length == n * BLOCK and err.actual == moved)
    -- In the page cache (tmpfs before Linux 6.6) no room may be about older writes.
    local of_older = m.method == "write" and fault.errno ~= "EFBIG" and not m.f:info().direct
    if durable and (of_older or not HARMLESS[fault.errno]) then m.poisoned = true end
  end
end

function steps.durable_write(m)
  steps.write(m, true)
end

-- The flush of a durable write fails: the write is there, and nobody knows for how long.
function steps.flushed_write(m)
  if m.method ~= "flush" or m.poisoned then return end
  local at, value = random(BLOCKS), 1 + random(255)
  m.b:fill(value, 0, BLOCK)
  local fault = { errno = one_of(ERRNOS), after = random(2) == 0 }
  plan_for("sync_data", fault)
  agree(m, "write_at", fault, nil, m.f:write_at(m.b, at * BLOCK, 0, BLOCK, "dsync"))
  m:write(at, 1, value)
  m.poisoned = true
end

function steps.read(m)
  local at = random(BLOCKS - 1)
  local n = 1 + random(BLOCKS - at)
  local there = m.size - at
  if there < 0 then there = 0 end
  if there > n then there = n end
  local fault = fault_for(there)
  if fault and fault.cut and there < 2 then fault = nil end
  plan_for("read_at", fault)
  local got, message, err = m.f:read_upto(m.b, at * BLOCK, 0, n * BLOCK)
  agree(m, "read_upto", fault, there * BLOCK, got, message, err)
  local valid = got and there or fault.cut and fault.cut / BLOCK or 0
  for i = 0, valid - 1 do assert(m.b:u8(i * BLOCK + 7) == (m.blocks[at + i] or 0)) end
end

function steps.sync(m)
  local op = one_of { "sync_data", "sync_all" }
  if m.poisoned then
    refused(m, op, m.f[op](m.f))
    return
  end
  local fault = fault_for()
  plan_for(op, fault)
  local ok, message, err = m.f[op](m.f)
  agree(m, op, fault, true, ok, message, err)
  if fault then m.poisoned = true end
end

function steps.truncate(m)
  local n = random(BLOCKS + 1)
  local fault = fault_for()
  plan_for("truncate", fault)
  agree(m, "truncate", fault, true, m.f:truncate(n * BLOCK))
  if fault and not fault.after then return end
  if n < m.size then m:shrink(n) end
  for i = m.size, n - 1 do m.blocks[i] = 0 end
  m.size = n
end

function steps.size(m)
  local fault = fault_for()
  plan_for("size", fault)
  agree(m, "size", fault, m.size * BLOCK, m.f:size())
end

function steps.atomic(m)
  local path = m.path .. "-a"
  local data = ("%d "):format(random(1000)):rep(50)
  local fault = fault_for()
  plan_for("atomic_write", fault)
  local ok, message, err = jdbfs.atomic_write(path, data)
  agree({ path = path }, "atomic_write", fault, true, ok, message, err)
  if not fault or fault.after then m.atomic = data end
  local there = support.get(path)
  assert(there == m.atomic, "neither the old nor the new content")
end

local NAMES = { "write", "write", "durable_write", "read", "read", "sync", "truncate", "size",
  "flushed_write", "atomic" }

local function one_run(seed, length)
  state = seed % 2147483646 + 1
  for _ = 1, 5 do random(2) end
  local m = new_model(one_of { "write", "flush" })
  local step, name = 0, ""
  local ok, wrong = jdbfs.pcall(function()
    for i = 1, length do
      step, name = i, one_of(NAMES)
      steps[name](m)
      assert(m.f:info().poisoned == (m.poisoned or false), "poisoned?")
      if i % 16 == 0 then m:check_content() end
      if m.poisoned and random(4) == 0 then m:reopen() end
    end
    m:check_content()
  end)
  faults.plan()
  m.f:close()
  m.b:free()
  os.remove(m.path)
  os.remove(m.path .. "-a")
  if not ok then
    error(("seed %d, step %d (%s): %s"):format(seed, step, name, tostring(wrong)), 0)
  end
end

local SEEDS = { support_faults.long and 1200 or 20, 150 }
local given = tonumber(os.getenv("JDBFS_TEST_SEED") or "")

for _, way in ipairs { "in a task", "outside tasks" } do
  describe("random operations and faults, " .. way .. ",", function()
    support.setup()

    it("agree with the model", function()
      local before = injected
      local first = given or 1000 + (way == "in a task" and 0 or 500000)
      for seed = first, first + (given and 0 or SEEDS[1] - 1) do
        if way == "in a task" then jdbfs.run(one_run, seed, SEEDS[2])
        else one_run(seed, SEEDS[2]) end
      end
      local last = first + (given and 0 or SEEDS[1] - 1)
      support_faults.figures(("model, %s: seeds %d to %d, %d operations each, %d faults agreed")
        :format(way, first, last, SEEDS[2], injected - before))
      assert.is_true(injected > before)
    end)
  end)
end

-- ---- many at once -------------------------------------------------------------------------------

-- Each fault is told once, to the task whose operation it hit; every other task gets its own data.
describe("random faults among many tasks", function()
  support.setup()

  local TASKS = 48

  local function storm(seed, counts)
    local f = assert(jdbfs.create(support.path("storm-" .. seed), { direct = "prefer" }))
    faults.plan(("seed=%d;shuffle;"
      .. "write_at:p=0.04:errno=EIO;write_at:p=0.04:errno=ENOSPC:when=after;"
      .. "read_at:p=0.04:errno=EIO;*:p=0.1:late=2;submit:p=0.05;ring.enter:p=0.05:errno=EAGAIN;"
      .. "ring.enter:p=0.05:errno=EINTR;ring.enter:p=0.03:errno=EBUSY;"
      .. "write_at:p=0.1:short;read_at:p=0.1:short"):format(seed))
    jdbfs.run(function()
      for i = 1, TASKS do
        jdbfs.spawn(function()
          local b = assert(jdbfs.buffer(2 * BLOCK))
          for turn = 1, 4 do
            local value = (i * 5 + turn) % 256
            b:fill(value)
            local n, _, err = f:write_at(b, 2 * i * BLOCK)
            if n then
              assert(n == 2 * BLOCK)
              b:fill(0)
              n, _, err = f:read_at(b, 2 * i * BLOCK)
              if n then assert(b:u8(0) == value and b:u8(2 * BLOCK - 1) == value) end
            end
            if err then
              assert(err.name == "EIO" or err.name == "ENOSPC")
              assert(err.offset == 2 * i * BLOCK)
              counts.failed = counts.failed + 1
            end
            counts.calls = counts.calls + 1
          end
        end)
      end
    end)
    for rule = 1, 3 do
      local _, fired = faults.rule(rule)
      counts.planned = counts.planned + fired
    end
    faults.plan()
    assert(f:close())
  end

  it("reach those they hit, and nobody else", function()
    local counts = { calls = 0, failed = 0, planned = 0 }
    local seeds = support_faults.long and 400 or 20
    for seed = 1, seeds do storm(seed, counts) end
    assert.are.equal(counts.planned, counts.failed)
    assert.is_true(counts.failed > seeds)
    support_faults.figures(("storm: seeds 1 to %d, %d calls, %d faults, each told once"):format(
      seeds, counts.calls, counts.failed))
  end)
end)
