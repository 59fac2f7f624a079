-- jdbfs.sim: the simulated disk, for tests of what is built on jdbfs. With `jdbfs.setup{ backend =
-- "sim" }` or JDBFS_BACKEND=sim all files live in memory, time is virtual, and one seed decides
-- what happens when. What is here makes operations fail, cuts the power, and starts again with
-- what a crash leaves.

local core = require "jdbfs.core"

local error, pairs, tostring, type = error, pairs, tostring, type
local floor = math.floor

local M = {}

local function check_options(o, known)
  if o == nil then return {} end
  if type(o) ~= "table" then error("a table of options expected", 3) end
  for name in pairs(o) do
    if not known[name] then error("unknown option " .. tostring(name), 3) end
  end
  return o
end

local RESET = { seed = true, capacity = true, sector = true, atomic = true, latency = true }

function M.reset(o)
  o = check_options(o, RESET)
  local latency = o.latency
  if latency ~= nil and type(latency) ~= "table" then
    error("option latency: {least, most} in seconds expected", 2)
  end
  return core.sim_reset {
    seed = o.seed, capacity = o.capacity, sector = o.sector, atomic = o.atomic,
    latency_min = latency and floor(latency[1] * 1e9 + 0.5),
    latency_max = latency and floor(latency[2] * 1e9 + 0.5),
  }
end

local FAULT = {
  op = true, errno = true, when = true, transfer = true, omit = true, nth = true, count = true,
  rate = true,
}

local function how(o)
  if o.omit then
    if o.op ~= nil and o.op ~= "flush" then error("option omit: only of op = \"flush\"", 3) end
    return "omit"
  end
  if o.transfer then return "short" end
  if o.errno == nil then error("option errno, transfer or omit expected", 3) end
  local when = o.when or "before"
  if when ~= "before" and when ~= "after" and when ~= "torn" then
    error("option when: \"before\", \"after\" or \"torn\" expected", 3)
  end
  return when
end

function M.fault(o)
  o = check_options(o, FAULT)
  local kind = how(o)
  local omit, short = kind == "omit", kind == "short"
  return core.sim_fault {
    op = o.op or (omit and "flush" or "any"), how = kind, bytes = o.transfer,
    errno = not omit and not short and o.errno or nil,
    nth = o.nth or 1, count = o.count or 1,
    per_million = o.rate and floor(o.rate * 1e6 + 0.5),
  }
end

function M.cut(steps)
  return core.sim_cut(steps)
end

function M.crash(o)
  o = check_options(o, { seed = true })
  return core.sim_crash(o.seed or 0)
end

function M.kill()
  return core.sim_kill()
end

function M.state()
  return core.sim_state()
end

return M
