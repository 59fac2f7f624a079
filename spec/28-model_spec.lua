-- Random programs of file, name, buffer, log, stream and task operations, run on jdbfs and on a
-- plain model in memory: every result, every byte and every name must agree. What fails is made
-- short and printed as a script.
--
-- JDBFS_MODEL_PROGRAMS  how many programs; when it is not set, no more than a few seconds allow
-- JDBFS_MODEL_SEED      seed of the first; the next ones follow
-- JDBFS_MODEL_STEPS     steps of a program, about
-- JDBFS_MODEL_DEPTH     operations that the queue holds at once; only when this spec runs alone

local support = require("support")
local program = require("model.program")
local new_random = require("model.random")
local script = require("model.script")
local session = require("model.session")
local shrink = require("model.shrink")
local jdbfs = support.jdbfs

local function setting(name, default)
  return tonumber(os.getenv("JDBFS_MODEL_" .. name) or "") or default
end

local san = os.getenv("JDBFS_TEST_SAN") or ""
local PROGRAMS = setting("PROGRAMS", san == "" and 100 or 20)
local SECONDS = os.getenv("JDBFS_MODEL_PROGRAMS") and math.huge or 5 -- a slow disk does fewer
local STEPS = setting("STEPS", 60)
local SHRINK_TRIES = 600
if setting("DEPTH") then
  assert(jdbfs.setup({ depth = setting("DEPTH"), workers = setting("DEPTH") }))
end

-- Every Lua, backend and file system has seeds of its own, the same ones each time.
local function first_seed()
  local seed, here = 0, jdbfs.info().lua .. jdbfs.info().backend .. support.fs()
  for i = 1, #here do seed = (seed * 31 + here:byte(i)) % 100000 end
  return setting("SEED", seed * 10000 + 1)
end

-- A runner of programs, each in a directory of its own. `o` replaces parts of what is tested.
local function runner(o)
  local count, base = 0, support.path()
  assert(jdbfs.mkdir(base))
  local facts = session.facts(jdbfs, base)
  return function(p, counters)
    count = count + 1
    return session.run(p, {
      jdbfs = o.jdbfs or jdbfs, ops = o.ops or program.ops, dir = base .. "/" .. count,
      plain = jdbfs.info().backend ~= "sim", facts = facts, counters = counters,
    })
  end
end

-- Runs that many programs. How many operations were compared, how many programs there was time
-- for, and the first failure, made short.
local function search(run, seed, programs, steps, seconds, tasks)
  local compared, stop = 0, jdbfs.now() + seconds
  for i = 0, programs - 1 do
    if jdbfs.now() > stop then return compared, i end
    local p = program.make(seed + i, steps, tasks)
    local failure, n = run(p, i % 10 == 9)
    compared = compared + n
    if failure then
      local function again(q) return run(q, failure.op == "counters") end
      local small, found, tried = shrink.shrink(p, failure, again, SHRINK_TRIES)
      return compared, i, {
        seed = seed + i, before = program.count(p.steps), after = program.count(small.steps),
        tried = tried, failure = found, program = small,
      }
    end
  end
  return compared, programs
end

local function describe_failure(found)
  return ("%s\n%d steps, shrunk to %d in %d tries. To repeat: JDBFS_MODEL_SEED=%d "
    .. "JDBFS_MODEL_PROGRAMS=1 JDBFS_MODEL_STEPS=%d\n%s"):format(found.failure.why, found.before,
    found.after, found.tried, found.seed, STEPS,
    script(found.program, program.ops, found.failure))
end

describe("a random program", function()
  support.setup()

  it("does what the model says", function()
    local seed, start = first_seed(), jdbfs.now()
    local compared, programs, found = search(runner({}), seed, PROGRAMS, STEPS, SECONDS)
    if found then error(describe_failure(found), 0) end
    assert.is_true(compared > programs * 5)
    local figures = "model: %d programs from seed %.0f on, %d operations compared, %.1f s"
    support.figures(figures:format(programs, seed, compared, jdbfs.now() - start))
  end)

  it("is the same on every Lua", function()
    local r, list = new_random(7), {}
    for i = 1, 8 do list[i] = r:below(1000) end
    assert.equal("234 413 968 68 388 310 716 124", table.concat(list, " "))
  end)
end)

-- A copy of the module, or of the model's steps, with something in its place.
local function with(original, changes)
  return setmetatable(changes, { __index = original })
end

-- Found, and short when it is shown.
local function finds(o, most, tasks)
  if support.on_wine then return pending("takes long in wine, and is about the model itself") end
  local _, _, found = search(runner(o), 1, 400, 15, math.huge, tasks)
  assert(found, "400 programs did not meet the mistake")
  assert(found.after <= most, describe_failure(found))
  assert.is_true(found.after < found.before)
  local text = script(found.program, program.ops, found.failure)
  assert((loadstring or load)(text))
  assert(text:find("seed " .. found.seed, 1, true))
  return found, text
end

describe("a mistake", function()
  support.setup()

  -- jdbfs with files that do one method wrong.
  local function with_method(method, wrong)
    local function open_rw(...)
      local f, message, err = jdbfs.open_rw(...)
      if not f then return nil, message, err end
      return setmetatable({ file = f }, { __index = function(_, name)
        return function(_, ...)
          if name == method then return wrong(f, ...) end
          return f[name](f, ...)
        end
      end })
    end
    local function file_of(f) return type(f) == "table" and f.file or f end
    return with(jdbfs, {
      open_rw = open_rw,
      reader = function(f, o) return jdbfs.reader(file_of(f), o) end,
      writer = function(f, o) return jdbfs.writer(file_of(f), o) end,
    })
  end

  it("in a result is found: a read one byte short", function()
    local found = finds({ jdbfs = with_method("read", function(f, off, len)
      local data, message, err = f:read(off, len)
      if data and #data > 4096 then data = data:sub(1, -2) end
      return data, message, err
    end) }, 5)
    assert.truthy(found.failure.why:find("bytes, "))
  end)

  it("that shows only at the end is found: atomic_write that loses a byte", function()
    local found = finds({ jdbfs = with(jdbfs, {
      atomic_write = function(path, data)
        if type(data) == "string" and #data > 4096 then data = data:sub(1, -2) .. "!" end
        return jdbfs.atomic_write(path, data)
      end,
    }) }, 3)
    assert.truthy(found.failure.why:find("byte"))
  end)

  it("in the model is found: a write that spares the last byte", function()
    local write_at = program.ops.write_at
    local function expect(model, s)
      local list = write_at.expect(model, s)
      local apply, node = list[1].apply, model.f[s.f].node
      if not apply then return list end
      list[1].apply = function(got)
        local last = node.bytes:read(s.off + got[1] - 1, 1)
        apply(got)
        if got[1] > 0 and last ~= "" then node.bytes:write(s.off + got[1] - 1, last) end
      end
      return list
    end
    finds({ ops = with(program.ops, { write_at = with(write_at, { expect = expect }) }) }, 8)
  end)

  it("in what is left behind is found: a log that does not close", function()
    local found = finds({ jdbfs = with(jdbfs, {
      log = function(...)
        local l, message, err = jdbfs.log(...)
        if not l then return nil, message, err end
        return setmetatable({}, { __index = function(_, name)
          if name == "close" then return function() return true end end
          return function(_, ...) return l[name](l, ...) end
        end })
      end,
    }) }, 4)
    assert.truthy(found.failure.why)
  end)

  it("of two tasks at once is found: writes that go to another's range", function()
    finds({ jdbfs = with_method("write_at", function(f, b, off, ...)
      if f:path():find("shared$") and off >= 32768 and off < 2 ^ 20 then off = off - 32768 end
      return f:write_at(b, off, ...)
    end) }, 10, true)
  end)
end)
