-- What a result says about the harness itself: CPU, kernel entries, batches, lag, garbage
-- collection, and what the device saw of what was asked.

local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")

local collectgarbage, ipairs, rawget, setmetatable = collectgarbage, ipairs, rawget, setmetatable
local tonumber = tonumber
local open_stream, max = io.open, math.max

local SECTOR = 512 -- the unit of /proc/diskstats, whatever the device's is
local BUSY = 0.9 -- of a core: the generator may have been the limit

local Trust = {}
Trust.__index = Trust

-- Bytes the device has read and written so far, or nil.
local function device_bytes(name)
  local file = name and open_stream("/proc/diskstats", "r")
  if not file then return nil end
  local found
  for line in file:lines() do
    local device, read, written = line:match("^%s*%d+%s+%d+%s+(%S+)%s+%d+%s+%d+%s+(%d+)%s+%d+"
      .. "%s+%d+%s+%d+%s+(%d+)")
    if device == name then found = (tonumber(read) + tonumber(written)) * SECTOR end
  end
  file:close()
  return found
end

-- Counts the cycles of the garbage collector by an object that dies in each of them.
local function count_cycles(trust)
  local function plant()
    local object
    local function finalize()
      trust.cycles = trust.cycles + 1
      if trust.counting then plant() end
    end
    if rawget(_G, "newproxy") then
      object = newproxy(true) -- luacheck: ignore 113
      getmetatable(object).__gc = finalize
    else
      object = setmetatable({}, { __gc = finalize })
    end
    return object
  end
  plant()
end

function Trust:begin(engine)
  self.device_from = device_bytes(self.device)
  self.engine = engine
end

-- Adds what one workload used.
function Trust:finish(engine)
  local from, till = engine.from, engine.till
  self.elapsed = self.elapsed + till.now - from.now
  self.cpu = self.cpu + till.cpu - from.cpu
  self.thread = self.thread + till.thread - from.thread
  for _, name in ipairs({ "submitted", "completed", "entries", "pool_operations", "reaps" }) do
    self[name] = self[name] + till.stats[name] - from.stats[name]
  end
  local now = device_bytes(self.device)
  if now and self.device_from then
    self.device_bytes = self.device_bytes + now - self.device_from
  end
  for _, job in ipairs(engine.jobs) do
    for _, track in ipairs(job.meter:totals()) do
      if not job.timed[track.name] then
        self.asked = self.asked + track.bytes
        self.lags[#self.lags + 1] = track.lag
      end
    end
  end
end

local function ratio(part, whole)
  if whole > 0 then return part / whole end
end

-- The share of the time that the collector took: its cycles, each as long as a full one takes now.
local function gc_share(self)
  self.counting = false
  local cycles = self.cycles
  local before = core.cpu()
  collectgarbage()
  return ratio(cycles * (core.cpu() - before), self.elapsed)
end

-- The trust part of the result document.
function Trust:document()
  local ops = self.completed
  local lag = distribution.merge(self.lags)
  local limited = self.elapsed > 0 and self.thread / self.elapsed >= BUSY
  return {
    cpu_s_per_mop = ratio(self.cpu * 1e6, ops), cores = ratio(self.cpu, self.elapsed),
    enters_per_op = ratio(self.entries + self.pool_operations, ops),
    submit_batch = ratio(self.submitted, max(self.entries, 1)),
    reap_batch = ratio(self.completed, max(self.reaps, 1)),
    lag_p99_ns = lag and distribution.percentile(lag, 99) or nil,
    gc_share = gc_share(self),
    device_over_asked = self.device_from and ratio(self.device_bytes, self.asked) or nil,
    generator_limited = limited,
  }
end

local M = {}

-- device: its name in /proc/diskstats, or nil.
function M.new(device)
  local self = setmetatable({ device = device, elapsed = 0, cpu = 0, thread = 0, submitted = 0,
    completed = 0, entries = 0, pool_operations = 0, reaps = 0, device_bytes = 0, asked = 0,
    lags = {}, cycles = 0, counting = true }, Trust)
  count_cycles(self)
  return self
end

return M
