-- Percentiles of a DIST, the plain table that a result document holds for every latency:
--
--   { n, sum_ns, min_ns, max_ns, hist = { { lower_ns, count }, ... } }
--
-- The histogram is log-linear: 128 buckets for every doubling, 1 ns wide below 256 ns, so the
-- middle of a bucket is off by at most 0.39 %; smallest, largest and sum are exact. A percentile
-- that too few samples support is nil, never a guess. Percent is a number such as 99.9, exact to a
-- thousandth.

local ceil, floor, max, min, sqrt = math.ceil, math.floor, math.max, math.min, math.sqrt
local sort = table.sort
local ipairs, pairs = ipairs, pairs

local SAMPLES_ABOVE = 10 -- so many samples must lie above a percentile
local Z95 = 1.959964 -- 95 % of a normal distribution lie this many deviations around its mean

-- In thousandths of a percent all the arithmetic is whole: 1000 * 99.9 / 100 is not.
local function millipercent(percent)
  return floor(percent * 1000 + 0.5)
end

local function samples_needed(percent)
  return ceil(SAMPLES_ABOVE * 100000 / (100000 - millipercent(percent)))
end

-- The highest share of the samples that they still support, from 0 to 1.
local function supported(dist)
  if dist.n <= SAMPLES_ABOVE then return 0 end
  return 1 - SAMPLES_ABOVE / dist.n
end

local function bucket_width(lower)
  local width = 1
  while lower >= 256 * width do
    width = width * 2
  end
  return width
end

-- What a sample in the bucket is reported as.
local function bucket_middle(lower, dist)
  return max(min(lower + floor(bucket_width(lower) / 2), dist.max_ns), dist.min_ns)
end

-- The value of the sample of this rank, from 1 for the smallest.
local function at_rank(dist, rank)
  local seen = 0
  for _, bucket in ipairs(dist.hist) do
    seen = seen + bucket[2]
    if seen >= rank then return bucket_middle(bucket[1], dist) end
  end
  return dist.max_ns
end

-- The percentile in ns, or nil when there are too few samples for it to mean anything.
local function percentile(dist, percent)
  if not dist or dist.n < samples_needed(percent) then return nil end
  return at_rank(dist, max(1, ceil(dist.n * millipercent(percent) / 100000)))
end

-- The bounds in ns between which the percentile of the source lies with 95 % confidence: the
-- samples whose ranks enclose it, the count below it being binomial. It takes the samples for
-- independent, which those of a stall are not.
local function interval(dist, percent)
  if not dist or dist.n < samples_needed(percent) then return nil end
  local share = millipercent(percent) / 100000
  local rank, spread = dist.n * share, Z95 * sqrt(dist.n * share * (1 - share))
  local low, high = max(1, floor(rank - spread)), min(dist.n, ceil(rank + spread) + 1)
  return at_rank(dist, low), at_rank(dist, high)
end

local function mean(dist)
  if dist and dist.n > 0 then return dist.sum_ns / dist.n end
end

local function largest(dist)
  if dist and dist.n > 0 then return dist.max_ns end
end

-- All samples of a list of DISTs as one DIST; nil when the list is empty.
local function merge(list)
  local merged, counts
  for _, dist in ipairs(list) do
    if not merged then
      merged, counts = { n = 0, sum_ns = 0, min_ns = 0, max_ns = 0, hist = {} }, {}
    end
    if dist.n > 0 then
      merged.min_ns = merged.n == 0 and dist.min_ns or min(merged.min_ns, dist.min_ns)
      merged.max_ns = max(merged.max_ns, dist.max_ns)
      merged.n, merged.sum_ns = merged.n + dist.n, merged.sum_ns + dist.sum_ns
      for _, bucket in ipairs(dist.hist) do
        counts[bucket[1]] = (counts[bucket[1]] or 0) + bucket[2]
      end
    end
  end
  if not merged then return nil end
  for lower, count in pairs(counts) do
    merged.hist[#merged.hist + 1] = { lower, count }
  end
  sort(merged.hist, function(a, b) return a[1] < b[1] end)
  return merged
end

-- Whether two DISTs hold the same: names that a script timed have one time only.
local function are_equal(a, b)
  return a and b and a.n == b.n and a.sum_ns == b.sum_ns and a.min_ns == b.min_ns
    and a.max_ns == b.max_ns
end

-- The curve of the distribution as a list of { share of the samples at or below, ns }, as far up as
-- the samples support it.
local function curve(dist)
  local points, seen, limit = {}, 0, supported(dist)
  for _, bucket in ipairs(dist.hist) do
    local value = bucket_middle(bucket[1], dist)
    if seen / dist.n > limit and #points > 0 then break end
    points[#points + 1] = { min(seen / dist.n, limit), value }
    seen = seen + bucket[2]
    points[#points + 1] = { min(seen / dist.n, limit), value }
  end
  return points
end

return {
  are_equal = are_equal,
  samples_needed = samples_needed,
  percentile = percentile,
  interval = interval,
  mean = mean,
  largest = largest,
  merge = merge,
  curve = curve,
  bucket_width = bucket_width,
  bucket_middle = bucket_middle,
}
