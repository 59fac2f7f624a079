-- The figures of a comparison: base and new value, their ratio, its interval, a verdict.

local bootstrap = require("jdbfs.command.bootstrap")
local distribution = require("jdbfs.command.distribution")
local result = require("jdbfs.command.result")

local abs, ceil, floor, max = math.abs, math.ceil, math.floor, math.max
local ipairs = ipairs

local BLOCK_S = 3
local UNITS_MAX = 600 -- seconds of a longer run are taken together

-- Samples ----------------------------------------------------------------------------------------

-- The measured seconds of an operation as units; neighbours are merged when there are too many.
local function seconds_of(document, job, op, latency)
  local series = {}
  for _, each in ipairs(result.series(document, job, op)) do
    if not each.interval.warmup and not each.short then series[#series + 1] = each end
  end
  local group, units, total = max(1, ceil(#series / UNITS_MAX)), {}, 0
  for first = 1, #series - group + 1, group do
    local n, seconds, dists = 0, 0, {}
    for i = first, first + group - 1 do
      n, seconds = n + series[i].interval.n, seconds + series[i].seconds
      dists[#dists + 1] = series[i].interval[latency]
    end
    units[#units + 1] = { rate = n / seconds, dist = distribution.merge(dists) }
    total = total + seconds
  end
  local block = #units > 0 and max(1, floor(BLOCK_S / (total / #units) + 0.5)) or 1
  return units, block
end

local function find(document, job, op)
  for _, entry in ipairs(result.operations(document)) do
    if entry.job.name == job and entry.op.name == op then return entry end
  end
end

-- An operation's units on one side, and how many make a block.
local function units_of(documents, job, op, latency)
  if #documents == 1 then return seconds_of(documents[1], job, op, latency) end
  local units = {}
  for i, document in ipairs(documents) do
    local entry = find(document, job, op)
    if not entry then return {}, 1 end
    units[i] = { rate = entry.rate, dist = entry.op[latency] }
  end
  return units, 1
end

local function whole_dist(documents, job, op, latency)
  local dists = {}
  for _, document in ipairs(documents) do
    local entry = find(document, job, op)
    dists[#dists + 1] = entry and entry.op[latency]
  end
  return distribution.merge(dists)
end

local function median(values)
  local weights = {}
  for i in ipairs(values) do
    weights[i] = 1
  end
  return #values > 0 and bootstrap.median_of(values)(weights) or nil
end

-- Figures ----------------------------------------------------------------------------------------

local function has_dists(units)
  for _, unit in ipairs(units) do
    if not unit.dist then return false end
  end
  return #units > 0
end

local function rates_of(units)
  local rates = {}
  for i, unit in ipairs(units) do
    rates[i] = unit.rate
  end
  return rates
end

-- The percentile of each run; the ratio of runs is that of the medians of these.
local function run_percentiles(units, percent)
  local values = {}
  for i, unit in ipairs(units) do
    values[i] = distribution.percentile(unit.dist, percent)
    if not values[i] then return nil end
  end
  return values
end

-- Adds ratio and interval to a figure from the statistics of both sides.
local function resample(figure, base, new, o)
  if base.f and new.f then
    local first, second, low, high = bootstrap.ratio(base, new, o)
    figure.base, figure.new = first or figure.base, second or figure.new
    figure.low, figure.high = low, high
  end
  if figure.base and figure.new and figure.base > 0 then
    figure.ratio = figure.new / figure.base
  end
end

local function side(units, block, f)
  return { f = f, n = #units, block = block }
end

local function rate_figure(a, b, name, o)
  local figure = { name = name .. ".rate", title = name .. " ops/s", unit = "ops/s", more = true,
    base = a.rate, new = b.rate }
  if #a.units > 0 and #b.units > 0 then
    resample(figure, side(a.units, a.block, bootstrap.median_rate(a.units)),
      side(b.units, b.block, bootstrap.median_rate(b.units)), o)
    figure.p = bootstrap.mann_whitney(rates_of(a.units), rates_of(b.units))
  else
    resample(figure, {}, {}, o)
  end
  return figure
end

local function statistic(x, percent, runs)
  if not has_dists(x.units) then return nil end
  if not runs then return bootstrap.percentile(x.units, percent) end
  local values = run_percentiles(x.units, percent)
  return values and bootstrap.median_of(values)
end

local function percentile_figure(a, b, name, latency, percent, o)
  local stat = ("p%g"):format(percent)
  local figure = { name = ("%s.%s%s"):format(name, stat, latency == "service" and ".service" or ""),
    title = ("%s %s %s"):format(name, stat, latency), unit = "ns",
    base = distribution.percentile(a.dist, percent),
    new = distribution.percentile(b.dist, percent) }
  if not figure.base or not figure.new then return nil end
  resample(figure, side(a.units, a.block, statistic(a, percent, o.runs)),
    side(b.units, b.block, statistic(b, percent, o.runs)), o)
  return figure
end

-- CPU time of the process: one number per run.
local function cpu_figure(base, new, o)
  local function values_of(documents)
    local values = {}
    for i, document in ipairs(documents) do
      values[i] = (document.trust or {}).cpu_s_per_mop
      if not values[i] then return {} end
    end
    return values
  end
  local a, b = values_of(base), values_of(new)
  if #a == 0 or #b == 0 then return nil end
  local figure = { name = "cpu", title = "cpu per M ops", unit = "s", base = median(a),
    new = median(b) }
  resample(figure, { f = o.runs and bootstrap.median_of(a), n = #a, block = 1 },
    { f = o.runs and bootstrap.median_of(b), n = #b, block = 1 }, o)
  return figure
end

local function judge(figure, noise)
  if not figure.ratio then
    figure.verdict = "not comparable"
  elseif not figure.low then
    figure.verdict = "too short to tell"
  elseif (figure.low > 1 or figure.high < 1) and abs(figure.ratio - 1) > noise then
    figure.differs = true
    local up = figure.ratio > 1
    if figure.unit == "s" then
      figure.verdict = up and "more" or "less"
    else
      figure.verdict = (up == (figure.more or false)) and "faster" or "slower"
    end
  else
    figure.verdict = "~ no difference shown"
  end
end

-- What one side has of an operation, as the figures need it.
local function gather(documents, entry, latency)
  local units, block = units_of(documents, entry.job.name, entry.op.name, latency)
  local rates = {}
  for i, document in ipairs(documents) do
    rates[i] = (find(document, entry.job.name, entry.op.name) or { rate = 0 }).rate
  end
  return { units = units, block = block, rate = median(rates),
    dist = whole_dist(documents, entry.job.name, entry.op.name, latency) }
end

-- All figures that both lists of documents have. o: noise, seed, resamples, paired; runs when the
-- unit is the run.
local function of(base, new, o)
  local figures = {}
  local function add(figure)
    figures[#figures + 1] = figure
  end
  for _, entry in ipairs(result.operations(base[1])) do
    if entry.op.n > 0 and find(new[1], entry.job.name, entry.op.name) then
      local a, b = gather(base, entry, "response"), gather(new, entry, "response")
      add(rate_figure(a, b, entry.label, o))
      for _, percent in ipairs({ 50, 90, 99, 99.9 }) do
        add(percentile_figure(a, b, entry.label, "response", percent, o))
      end
      a, b = gather(base, entry, "service"), gather(new, entry, "service")
      for _, percent in ipairs({ 50, 99 }) do
        add(percentile_figure(a, b, entry.label, "service", percent, o))
      end
    end
  end
  add(cpu_figure(base, new, o))
  for _, figure in ipairs(figures) do
    judge(figure, o.noise)
  end
  return figures
end

return {
  BLOCK_S = BLOCK_S,
  of = of,
}
