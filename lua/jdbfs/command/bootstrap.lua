-- Intervals by resampling. Seconds of one run next to each other are alike, so whole blocks of them
-- are drawn (the moving-block bootstrap); runs are drawn one by one. From few blocks a percentile
-- interval is too narrow: it is widened around the estimate as Student's t is against the normal.
--
-- A sample is a list of units, each { rate =, dist = } (seconds of a run, or runs); a statistic is
-- made for a sample once and then asked for many drawings: f(weights) -> number or nil, where
-- weights[i] is how often unit i was drawn.

local distribution = require("jdbfs.command.distribution")

local abs, ceil, exp, floor = math.abs, math.ceil, math.exp, math.floor
local log, max, min, sqrt = math.log, math.max, math.min, math.sqrt
local sort = table.sort
local ipairs = ipairs

local RESAMPLES = 2000
local WIDENED_BELOW = 5 -- the median of so many single units has intervals wide enough (specs)
local Z95 = 1.959964

-- Park and Miller's generator: whole numbers from 1 to n, the same on every Lua.
local function generator(seed)
  local state = seed % 2147483646 + 1
  return function(n)
    state = state * 16807 % 2147483647
    return floor(state / 2147483647 * n) + 1
  end
end

-- Statistics -------------------------------------------------------------------------------------

-- The weighted median of a number per unit.
local function median_of(values)
  local order = {}
  for i in ipairs(values) do
    order[i] = i
  end
  sort(order, function(a, b) return values[a] < values[b] end)
  return function(weights)
    local total = 0
    for i = 1, #values do
      total = total + weights[i]
    end
    local seen, lower = 0, nil
    for _, i in ipairs(order) do
      if weights[i] > 0 then
        seen = seen + weights[i]
        if lower then return (lower + values[i]) / 2 end
        if seen > total / 2 then return values[i] end
        if seen == total / 2 then lower = values[i] end
      end
    end
  end
end

local function median_rate(units)
  local rates = {}
  for i, unit in ipairs(units) do
    rates[i] = unit.rate
  end
  return median_of(rates)
end

-- The counts of every unit, summed up along the buckets that any of them has.
local function cumulated(units)
  local places, lowers = {}, {}
  local merged = { n = 0 }
  local dists = {}
  for i, unit in ipairs(units) do
    dists[i] = unit.dist
  end
  merged = distribution.merge(dists) or merged
  for place, bucket in ipairs(merged.hist or {}) do
    places[bucket[1]], lowers[place] = place, bucket[1]
  end
  local sums = {}
  for i, dist in ipairs(dists) do
    local counts, sum = {}, 0
    for _, bucket in ipairs(dist.hist) do
      counts[places[bucket[1]]] = bucket[2]
    end
    for place = 1, #lowers do
      sum = sum + (counts[place] or 0)
      counts[place] = sum
    end
    sums[i] = counts
  end
  return sums, lowers, merged
end

-- A percentile of all that was drawn together.
local function percentile(units, percent)
  local sums, lowers, merged = cumulated(units)
  local share = floor(percent * 1000 + 0.5) / 100000
  if merged.n < distribution.samples_needed(percent) then return nil end
  return function(weights)
    local function below(place)
      local total = 0
      for i = 1, #sums do
        total = total + weights[i] * sums[i][place]
      end
      return total
    end
    local rank = ceil(below(#lowers) * share - 1e-6)
    if rank < 1 then return nil end
    local low, high = 1, #lowers
    while low < high do
      local middle = floor((low + high) / 2)
      if below(middle) >= rank then high = middle else low = middle + 1 end
    end
    return distribution.bucket_middle(lowers[low], merged)
  end
end

-- Drawing ----------------------------------------------------------------------------------------

-- Draws n units in blocks of so many neighbours into weights.
local function draw(random, n, block, weights)
  for i = 1, n do
    weights[i] = 0
  end
  local drawn = 0
  while drawn < n do
    local first = random(n - block + 1)
    for i = first, min(first + block, first + n - drawn) - 1 do
      weights[i] = weights[i] + 1
    end
    drawn = drawn + block
  end
end

-- Student's t for 97.5 % and so many degrees of freedom, to 1 %.
local T975 = { 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228 }

local function student(freedom)
  if T975[freedom] then return T975[freedom] end
  return Z95 + 2.4 / freedom + 3 / (freedom * freedom)
end

local function ones(n)
  local weights = {}
  for i = 1, n do
    weights[i] = 1
  end
  return weights
end

-- A statistic of two samples, and the interval that holds its ratio, new to base, with 95 %
-- confidence: first, second, low, high. Without an interval when there are not two blocks on each
-- side; nothing when a statistic cannot be had or is not above 0.
--   base, new: { f = statistic, n = units, block = units of a block }
--   o.paired: unit i of both belongs together and is drawn together; o.seed, o.resamples
local function ratio(base, new, o)
  local first, second = base.f(ones(base.n)), new.f(ones(new.n))
  if not first or not second or first <= 0 or second <= 0 then return nil end
  local blocks = floor(min(base.n / base.block, new.n / new.block))
  if blocks < 2 then return first, second end
  local random, ratios = generator(o.seed or 1), {}
  local base_weights, new_weights = {}, {}
  for _ = 1, o.resamples or RESAMPLES do
    draw(random, base.n, base.block, base_weights)
    if o.paired then new_weights = base_weights else draw(random, new.n, new.block, new_weights) end
    local a, b = base.f(base_weights), new.f(new_weights)
    if a and b and a > 0 and b > 0 then ratios[#ratios + 1] = log(b / a) end
  end
  if #ratios == 0 then return first, second end
  sort(ratios)
  local centre = log(second / first)
  local widened = 1
  if base.block > 1 or blocks < WIDENED_BELOW then
    widened = student(blocks - 1) / Z95 * sqrt(blocks / (blocks - 1))
  end
  local low = ratios[max(1, floor(#ratios * 0.025))]
  local high = ratios[min(#ratios, ceil(#ratios * 0.975))]
  return first, second, exp(min(centre, centre + (low - centre) * widened)),
    exp(max(centre, centre + (high - centre) * widened))
end

-- The two-sided p of Mann and Whitney's test with its normal approximation; it takes the numbers
-- for independent.
local function mann_whitney(a, b)
  if #a == 0 or #b == 0 then return nil end
  local all = {}
  for side, list in ipairs({ a, b }) do
    for _, value in ipairs(list) do
      all[#all + 1] = { value, side }
    end
  end
  sort(all, function(x, y) return x[1] < y[1] end)
  local ranks, ties, i = 0, 0, 1
  while i <= #all do
    local last = i
    while all[last + 1] and all[last + 1][1] == all[i][1] do
      last = last + 1
    end
    for k = i, last do
      if all[k][2] == 1 then ranks = ranks + (i + last) / 2 end
    end
    local tied = last - i + 1
    ties, i = ties + tied ^ 3 - tied, last + 1
  end
  local n, m = #a, #b
  local u = ranks - n * (n + 1) / 2
  local variance = n * m / 12 * (n + m + 1 - ties / ((n + m) * max(1, n + m - 1)))
  if variance <= 0 then return 1 end
  local z = max(0, abs(u - n * m / 2) - 0.5) / sqrt(variance)
  -- 2 (1 - Phi(z)), by Abramowitz and Stegun 7.1.26.
  local t = 1 / (1 + 0.3275911 * z / sqrt(2))
  return min(1, t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027
    + t * 1.061405429)))) * exp(-z * z / 2))
end

return {
  median_of = median_of,
  median_rate = median_rate,
  percentile = percentile,
  ratio = ratio,
  mann_whitney = mann_whitney,
}
