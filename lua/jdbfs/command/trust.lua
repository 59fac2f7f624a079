-- What a result says about the harness itself: CPU, kernel entries, batches, lag, garbage
-- collection, and what the device saw of what was asked.

local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")

local collectgarbage, ipairs, rawget, setmetatable = collectgarbage, ipairs, rawget, setmetatable
local tonumber = tonumber
local open_stream, max = io.open, math.max

local SECTOR = 512 -- the unit of /proc/diskstats, whatever the device's is
local BUSY = 0.9 -- of a core: the generator may have been the limit

local COUNTERS = { "submitted", "completed", "entries", "handovers", "pool_operations", "reaps" }

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

-- What the device does is counted from here, or till here.
function Trust:watch_device(on)
  local now = device_bytes(self.device)
  if not on and now and self.device_from then
    self.device_bytes = self.device_bytes + now - self.device_from
  end
  if on then self.device_from = now end
end

function Trust:begin()
  self:watch_device(true)
end

-- Adds what one workload used.
function Trust:finish(engine)
  local from, till = engine.from, engine.till
  self.elapsed = self.elapsed + till.now - from.now
  self.cpu = self.cpu + till.cpu - from.cpu
  self.thread = self.thread + till.thread - from.thread
  for _, name in ipairs(COUNTERS) do
    self[name] = self[name] + till.stats[name] - from.stats[name]
  end
  self:watch_device(false)
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

-- An estimate of the share of the time that the collector took, as Lua does not tell: its cycles,
-- each as long as a full one takes now.
local function gc_share(self)
  self.counting = false
  if self.gc_seconds then return ratio(self.gc_seconds, self.elapsed) end
  local cycles = self.cycles
  local before = core.cpu()
  collectgarbage()
  return ratio(cycles * (core.cpu() - before), self.elapsed)
end

-- What one of several processes adds to the whole.
function Trust:part()
  local part = { elapsed = self.elapsed, cpu = self.cpu, thread = self.thread, asked = self.asked,
    lag = distribution.merge(self.lags), gc_seconds = (gc_share(self) or 0) * self.elapsed }
  for _, name in ipairs(COUNTERS) do part[name] = self[name] end
  return part
end

-- Adds the parts of processes that worked at the same time.
function Trust:add(parts)
  local elapsed, thread, gc_seconds = 0, 0, 0
  for _, part in ipairs(parts) do
    elapsed, thread = max(elapsed, part.elapsed), max(thread, part.thread)
    gc_seconds = max(gc_seconds, part.gc_seconds)
    self.cpu, self.asked = self.cpu + part.cpu, self.asked + part.asked
    self.lags[#self.lags + 1] = part.lag
    for _, name in ipairs(COUNTERS) do self[name] = self[name] + part[name] end
  end
  self.elapsed, self.thread = self.elapsed + elapsed, self.thread + thread
  self.gc_seconds = (self.gc_seconds or 0) + gc_seconds
end

-- The trust part of the result document.
function Trust:document()
  local ops = self.completed
  local lag = distribution.merge(self.lags)
  local limited = ops > 0 and self.elapsed > 0 and self.thread / self.elapsed >= BUSY
  return {
    cpu_s_per_mop = ratio(self.cpu * 1e6, ops), cores = ratio(self.cpu, self.elapsed),
    enters_per_op = ratio(self.entries + self.pool_operations, ops),
    submit_batch = ratio(self.submitted, self.handovers + self.pool_operations),
    reap_batch = ratio(self.completed, max(self.reaps, 1)),
    lag_p99_ns = lag and distribution.percentile(lag, 99) or nil,
    gc_share = gc_share(self), estimated = { "gc_share" }, -- all else is measured
    device_over_asked = self.device_from and ratio(self.device_bytes, self.asked) or nil,
    generator_limited = limited,
  }
end

local M = { COUNTERS = COUNTERS }

-- device: its name in /proc/diskstats, or nil.
function M.new(device)
  local self = setmetatable({ device = device, elapsed = 0, cpu = 0, thread = 0, submitted = 0,
    completed = 0, entries = 0, handovers = 0, pool_operations = 0, reaps = 0, device_bytes = 0,
    asked = 0, lags = {}, cycles = 0, counting = true }, Trust)
  count_cycles(self)
  self.new = M.new
  return self
end

return M
