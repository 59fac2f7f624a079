-- What the fault specs share. They run with the build that fails on purpose (make FAULTS=1, see
-- csrc/be_faults.c); spec/support.lua's setup goes before.
--
--   faults           plan(text), injected(), last(), rule(i), trace(), pieces()
--   under(plan, f, ...)  f's results while the plan is in force; `faults.injected()` stays readable
--   each_in_turn(scenario, o)  fails the nth event of o.point for n = 1, 2, ... until a run of the
--                    scenario meets no fault. After each: the failure is the one that was planned
--                    and names its call, nothing has leaked, and the scenario works again.
--                    o.keys: what happens ("errno=EIO"); o.errno, o.kind: what must be told;
--                    o.task: inside jdbfs.run; o.tolerant: a fault need not show. Gives how many
--                    faults there were
--   census()         what must be the same before and after; changed(before) says what is not
--   errno(name)      its number here
--   module           the file that `faults` comes from, for scripts: package.loadlib
--   figures(text)    prints figures for the reader of a test run
--   long             whether the long versions are asked for (JDBFS_TEST_LONG=1)
--
-- A scenario is a function(t). t:path(name) is a path of its own; t:ok(op, path, ...) takes the
-- results of a call: they are returned, or the scenario ends there and the failure is looked at.
-- t:keep(file) closes a file at the end of a scenario that failed.

local lfs = require("lfs")
local support = require("support")

local jdbfs = support.jdbfs

local M = { long = os.getenv("JDBFS_TEST_LONG") == "1" }

local function load_faults()
  for pattern in package.cpath:gmatch("[^;]+") do
    local file = pattern:gsub("%?", "jdbfs/core")
    if lfs.attributes(file) then
      M.module = file
      return assert(package.loadlib(file, "luaopen_jdbfs_faults"),
        "not a build with faults (make FAULTS=1): " .. file)()
    end
  end
end

local faults = assert(load_faults(), "jdbfs.core is not found")
M.faults = faults

M.figures = support.figures

-- ---- numbers of errors --------------------------------------------------------------------------

local errnos = {}

function M.errno(name)
  if not errnos[name] then
    faults.plan("exists:errno=" .. name)
    local _, message, err = jdbfs.exists("/")
    faults.plan()
    errnos[name] = err and err.errno or error("errno " .. name .. " is not told: " ..
      tostring(message))
  end
  return errnos[name]
end

-- ---- leaks --------------------------------------------------------------------------------------

local function collect()
  if rawget(_G, "jit") then require("jit").flush() end
  collectgarbage()
  collectgarbage()
end

local function descriptors()
  local n = 0
  for _ in lfs.dir("/proc/self/fd") do n = n + 1 end
  return n
end

local COUNTED = { "in_flight", "waiting", "abandoned", "tasks", "files", "buffers" }

function M.census()
  collect()
  support.wait_idle()
  collect()
  local s = jdbfs.stats()
  local found = { descriptors = descriptors(), pieces = faults.pieces() - s.slots / 256 }
  for _, name in ipairs(COUNTED) do found[name] = s[name] end
  return found
end

function M.changed(before)
  local after = M.census()
  for name, value in pairs(before) do
    if after[name] ~= value then
      return ("%s: %d before, %d after"):format(name, value, after[name])
    end
  end
end

-- ---- plans --------------------------------------------------------------------------------------

local function finish(ok, ...)
  local injected = faults.injected()
  faults.plan()
  M.injected = injected
  if not ok then error((...), 0) end
  return ...
end

function M.under(plan, f, ...)
  faults.plan(plan)
  return finish(pcall(f, ...))
end

-- ---- the loop -----------------------------------------------------------------------------------

local Trial = {}
Trial.__index = Trial
local round = 0

local function new_trial()
  round = round + 1
  local dir = support.path("round-" .. round)
  assert(lfs.mkdir(dir))
  return setmetatable({ dir = dir, files = {} }, Trial)
end

function Trial:path(name)
  return self.dir .. "/" .. name
end

function Trial:keep(file)
  self.files[#self.files + 1] = file
  return file
end

function Trial:ok(op, path, value, ...)
  if value ~= nil then return value, ... end
  local message, err = ...
  self.failure = { op = op, path = path, message = message, err = err, count = select("#", ...) }
  error(self, 0)
end

local function remove_all(path)
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then
      local entry = path .. "/" .. name
      if lfs.symlinkattributes(entry, "mode") == "directory" then
        remove_all(entry)
      else
        assert(os.remove(entry))
      end
    end
  end
  assert(lfs.rmdir(path))
end

local function run(scenario, task)
  local t = new_trial()
  local ok, raised
  if task then ok, raised = pcall(jdbfs.run, scenario, t) else ok, raised = pcall(scenario, t) end
  local injected = faults.injected()
  local last = faults.last()
  faults.plan()
  for _, file in ipairs(t.files) do file:close() end
  if not ok and not t.failure then error(raised, 0) end
  t.files = nil
  for name in lfs.dir(t.dir) do
    assert(not name:match("^%.[^.]"), "a temporary file was left behind: " .. name)
  end
  remove_all(t.dir)
  return t.failure, injected, last
end

local function look_at(failure, o, where)
  local err = failure.err
  local text = where .. ": " .. tostring(failure.message)
  assert(type(failure.message) == "string" and type(err) == "table" and failure.count == 2, text)
  assert(err.message == failure.message and tostring(err) == err.message, text)
  if o.errno then
    assert(err.errno == M.errno(o.errno), ("%s: errno is %s"):format(text, tostring(err.errno)))
    assert(err.name == o.errno, text)
  end
  if o.kind then assert(err.kind == o.kind, text .. ": kind is " .. tostring(err.kind)) end
  if failure.op then assert(err.op == failure.op, text .. ": op is " .. tostring(err.op)) end
  if failure.path then
    assert(err.path == failure.path, text .. ": path is " .. tostring(err.path))
  end
  assert(err.op and failure.message:find(err.op, 1, true), text)
end

function M.each_in_turn(scenario, o)
  for _ = 1, 2 do assert(not run(scenario, o.task), "the scenario fails by itself") end
  local before = M.census()
  for n = 1, 10000 do
    faults.plan(("%s:nth=%d:%s"):format(o.point, n, o.keys))
    local failure, injected, last = run(scenario, o.task)
    local where = ("%s %d (%s)"):format(o.point, n, tostring(last))
    if injected == 0 then
      assert(not failure, where)
      assert(n > 1, "nothing to fail: " .. o.point)
      return n - 1
    end
    local tolerated = o.tolerant == true or (o.tolerant and o.tolerant[last])
    assert(failure or tolerated, where .. ": the fault was told to nobody")
    if failure then look_at(failure, o, where) end
    local change = M.changed(before)
    assert(not change, where .. ": " .. tostring(change))
    if n % 8 == 1 then
      local again = run(scenario, o.task)
      assert(not again, where .. ": no longer usable: " .. tostring(again and again.message))
    end
  end
  error("no end of " .. o.point)
end

return M
