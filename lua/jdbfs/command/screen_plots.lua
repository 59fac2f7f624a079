-- The plots of a result document for a terminal: latency over time and the distribution.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local plot = require("jdbfs.command.plot")
local result = require("jdbfs.command.result")

local floor, log, max, min = math.floor, math.log, math.max, math.min
local ipairs = ipairs

local ROWS = 6
local WIDTH_MIN = 36 -- below it a plot says nothing

-- The figure of an interval that two of three have samples for: p99, p50, or else the maximum.
local function time_figure(series)
  for _, figure in ipairs({ { "p99", 99 }, { "p50", 50 } }) do
    local supported, all = 0, 0
    for _, each in ipairs(series) do
      local dist = each.interval.response or each.interval.service
      if dist and dist.n > 0 then
        all = all + 1
        if distribution.percentile(dist, figure[2]) then supported = supported + 1 end
      end
    end
    if supported * 3 >= all * 2 and supported > 0 then
      return figure[1], function(dist) return distribution.percentile(dist, figure[2]) end
    end
  end
  return "max", distribution.largest
end

local function time_tick(seconds)
  return { seconds, format.seconds(floor(seconds * 10 + 0.5) / 10) }
end

local function time_chart(document, entry, o)
  local series = result.series(document, entry.job.name, entry.op.name)
  if #series < 3 then return nil end
  local name, figure = time_figure(series)
  local points, breaks, gap = {}, {}, false
  for _, each in ipairs(series) do
    local dist = each.interval.response or each.interval.service
    local value = dist and not each.short and figure(dist)
    if value then
      points[#points + 1] = { each.interval.t_s, value }
      breaks[#points], gap = gap, false
    else
      gap = true
    end
  end
  if #points < 2 then return nil end
  local first, last = series[1].interval.t_s - series[1].seconds, series[#series].interval.t_s
  return plot.chart({ title = ("%s %s, %s over time"):format(entry.label,
    entry.op.response and "response" or "service", name), points = points, breaks = breaks,
    x_low = first, x_high = last, width = o.width, height = o.rows, ascii = o.ascii,
    label = format.duration, ticks = { time_tick(first),
      time_tick((first + last) / 2), time_tick(last) } })
end

local NINES = { { 0, "p0" }, { 90, "p90" }, { 99, "p99" }, { 99.9, "p99.9" }, { 99.99, "p99.99" },
  { 99.999, "p99.999" } }

local function nines(share)
  return -log(1 - share)
end

-- The percentiles of an operation, with a scale on which each further nine has the same room.
local function distribution_chart(entry, o)
  local dist = entry.op.response or entry.op.service
  if not dist or dist.n < distribution.samples_needed(90) then return nil end
  local points, ticks = {}, {}
  for i, point in ipairs(distribution.curve(dist)) do
    points[i] = { nines(point[1]), point[2] }
  end
  local last = points[#points][1]
  for _, tick in ipairs(NINES) do
    if nines(tick[1] / 100) <= last then ticks[#ticks + 1] = { nines(tick[1] / 100), tick[2] } end
  end
  return plot.chart({ title = ("%s %s, percentiles"):format(entry.label,
    entry.op.response and "response" or "service"), points = points, log = true, x_low = 0,
    x_high = last, width = o.width, height = o.rows, ascii = o.ascii, label = format.duration,
    ticks = ticks })
end

local function beside(left, right, width)
  local lines = {}
  for i = 1, max(#left, #right) do
    lines[i] = format.pad(left[i] or "", width) .. (right[i] or "")
  end
  return lines
end

-- Both plots of the headline operation, side by side where the width allows, or what fits.
local function of(document, o, room)
  local entry = result.headline(document)
  local rows = min(ROWS, room - 3) -- title, axis and ticks
  if not entry or rows < 3 then return {} end
  local half = floor((o.width - 2) / 2)
  local both = half >= WIDTH_MIN
  local each = { width = both and half or o.width, rows = rows, ascii = o.ascii }
  if each.width < WIDTH_MIN then return {} end
  local left, right = time_chart(document, entry, each), distribution_chart(entry, each)
  if left and right and both then return beside(left, right, half + 2) end
  local lines = left or right or {}
  if left and right and room >= 2 * (rows + 3) then
    for _, line in ipairs(right) do
      lines[#lines + 1] = line
    end
  end
  return lines
end

return {
  of = of,
}
