-- The crash rig: runs a workload on the simulated disk, cuts the power at a step, starts again with
-- what a crash leaves, and lets the workload check what it had been promised. `rig = require
-- "support_crash"`.
--
-- A workload is a table: setup(state), optional, is over before any power cut; body(state) does the
-- work and notes in `state` what was acknowledged, and what it had asked for; check(state) runs
-- after the crash and raises when a promise is broken. All three run in a task.
--
--   must(...)          in a body: the results of a call; ends the run when the power has gone
--   explore(w, o)      cuts the power at each step, again and again with other seeds, until
--                      o.points crashes were checked; o.omit: the n-th flush is told as done, but
--                      is not. Gives the number of crashes, and the first broken promise in words
--   flushes(w)         how many flushes the body makes
--   mark(version)      a page whose sectors all say this version
--   versions(data)     list of what the sectors of data say; 0: zeros
--   content(path)      the whole file

local jdbfs = require "jdbfs"
local sim = require "jdbfs.sim"

local M = {}

local SECTOR, PAGE = 512, 4096
local STOP = setmetatable({}, { __tostring = function() return "the power has gone" end })

function M.must(value, message, ...)
  if value ~= nil and value ~= false then return value, message, ... end
  if sim.state().power then error("with the power on: " .. tostring(message), 2) end
  error(STOP, 0)
end

-- ---- content ------------------------------------------------------------------------------------

local pages = {}

function M.mark(version)
  local text = pages[version]
  if not text then
    text = ("%08d"):format(version):rep(PAGE / 8)
    pages[version] = text
  end
  return text
end

local ZEROS = ("\0"):rep(SECTOR)

function M.versions(data)
  local list = {}
  for at = 1, #data, SECTOR do
    local sector = data:sub(at, at + SECTOR - 1)
    local version = 0
    if sector ~= ZEROS:sub(1, #sector) then
      version = tonumber(sector:sub(1, 8))
      local whole = version and ("%08d"):format(version):rep(SECTOR / 8):sub(1, #sector)
      if whole ~= sector then error("bytes that nobody wrote, from " .. at - 1, 2) end
    end
    list[#list + 1] = version
  end
  return list
end

function M.content(path)
  local file = assert(jdbfs.open(path, { direct = "off" }))
  local data = assert(file:read(0, assert(file:size())))
  assert(file:close())
  return data
end

-- ---- runs ---------------------------------------------------------------------------------------

local function quiet(f, state)
  local ok, message = pcall(jdbfs.run, f, state)
  if not ok and message ~= STOP then error(message, 0) end
end

-- Whether the body ran to its end, and what was broken.
local function crash_once(w, seed, step, omit)
  local state = {}
  assert(sim.reset { seed = seed, atomic = w.atomic })
  if w.setup then jdbfs.run(w.setup, state) end
  if omit then assert(sim.fault { omit = true, nth = omit }) end
  assert(sim.cut(step))
  quiet(w.body, state)
  local ended = sim.state().power
  assert(sim.crash { seed = seed * 7919 + step })
  local ok, message = pcall(jdbfs.run, w.check, state)
  if ok then return ended end
  return ended, ("%s, seed %d, power cut at step %d%s: %s"):format(w.name, seed, step,
    omit and (", flush " .. omit .. " left out") or "", tostring(message))
end

function M.explore(w, o)
  local points, seed = 0, o.seed or 0
  repeat
    seed = seed + 1
    local step, ended, broken = 0
    repeat
      step = step + 1
      ended, broken = crash_once(w, seed, step, o.omit)
      points = points + 1
      if broken then return points, broken end
    until ended
  until points >= o.points
  return points
end

function M.flushes(w)
  local state = {}
  assert(sim.reset { seed = 1, atomic = w.atomic })
  if w.setup then jdbfs.run(w.setup, state) end
  local before = sim.state().flushes
  jdbfs.run(w.body, state)
  return sim.state().flushes - before
end

return M
