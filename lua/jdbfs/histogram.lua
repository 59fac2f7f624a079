-- A log-linear histogram of durations: 128 buckets for every doubling, from 1 ns to 18 minutes.
--
-- A bucket is at most 1/128 as wide as its lower bound and is reported by its middle, so a value is
-- off by at most 0.39 %; smallest, largest and mean are exact. Only numbers below 2^53 and exact
-- divisions by powers of two occur, so every Lua gives the same buckets. Recording allocates
-- nothing: the buckets are all there from the start.

local floor, ceil = math.floor, math.ceil
local setmetatable = setmetatable

local BUCKETS_PER_OCTAVE = 128
local LIMIT_NS = 2 ^ 40 -- what lasts longer is counted in the last bucket; max stays exact
local BUCKETS = 34 * BUCKETS_PER_OCTAVE -- 2^40 - 1 is shifted 32 times: 32 * 128 + 255
local SAMPLES_ABOVE = 10 -- a percentile is told only when this many samples lie above it

local Histogram = {}
Histogram.__index = Histogram

local function new()
  local counts = {}
  for i = 1, BUCKETS do
    counts[i] = 0
  end
  return setmetatable({ counts = counts, count = 0, sum = 0, max = 0, min = nil }, Histogram)
end

-- The bucket of a whole number of nanoseconds, from 0. Below 256 ns each has its own; above, the
-- number is divided into [128, 256), in at most six steps instead of one per octave.
local function bucket_of(ns)
  if ns < 256 then return ns end
  local shift = 0
  if ns >= 16777216 then ns, shift = ns / 65536, 16 end
  if ns >= 65536 then ns, shift = ns / 256, shift + 8 end
  if ns >= 4096 then ns, shift = ns / 16, shift + 4 end
  if ns >= 1024 then ns, shift = ns / 4, shift + 2 end
  if ns >= 512 then ns, shift = ns / 2, shift + 1 end
  if ns >= 256 then ns, shift = ns / 2, shift + 1 end
  return shift * BUCKETS_PER_OCTAVE + floor(ns)
end

-- The lower bound and the width of a bucket, in ns.
local function bucket_range(index)
  if index < 2 * BUCKETS_PER_OCTAVE then return index, 1 end
  local shift = floor(index / BUCKETS_PER_OCTAVE) - 1
  local width = 2 ^ shift
  return (index - shift * BUCKETS_PER_OCTAVE) * width, width
end

function Histogram:record(seconds)
  local ns = floor(seconds * 1e9 + 0.5)
  if ns < 0 then ns = 0 end
  if ns > self.max then self.max = ns end
  if not self.min or ns < self.min then self.min = ns end
  self.count = self.count + 1
  self.sum = self.sum + ns
  if ns >= LIMIT_NS then ns = LIMIT_NS - 1 end
  local index = bucket_of(ns) + 1
  self.counts[index] = self.counts[index] + 1
end

-- How many samples a percentile needs; it is given in thousandths of a percent (p99.9 is 99900), so
-- that the arithmetic stays whole.
local function samples_needed(millipercent)
  return ceil(SAMPLES_ABOVE * 100000 / (100000 - millipercent))
end

-- The percentile in seconds, or nil when there are too few samples for it to mean anything.
function Histogram:percentile(millipercent)
  if self.count < samples_needed(millipercent) then return nil end
  local rank, seen = ceil(self.count * millipercent / 100000), 0
  for i = 1, BUCKETS do
    seen = seen + self.counts[i]
    if seen >= rank then
      local lower, width = bucket_range(i - 1)
      local middle = lower + floor(width / 2)
      return (middle < self.max and middle or self.max) / 1e9
    end
  end
end

function Histogram:mean()
  if self.count > 0 then return self.sum / self.count / 1e9 end
end

function Histogram:largest()
  if self.count > 0 then return self.max / 1e9 end
end

-- The buckets that hold something, as a list of { lower bound in ns, count }.
function Histogram:buckets()
  local list = {}
  for i = 1, BUCKETS do
    if self.counts[i] > 0 then list[#list + 1] = { (bucket_range(i - 1)), self.counts[i] } end
  end
  return list
end

return {
  new = new,
  samples_needed = samples_needed,
}
