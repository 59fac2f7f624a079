-- The charts of a result document for its HTML page.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local result = require("jdbfs.command.result")
local svg = require("jdbfs.command.svg")

local escape = svg.escape
local ceil, log, max, min = math.ceil, math.log, math.max, math.min
local concat = table.concat
local ipairs = ipairs

local HEAT_COLUMNS_MAX = 120

local function key(names)
  local parts = {}
  for i, name in ipairs(names) do
    parts[i] = ('<span class="key"><i class="k%d"></i>%s</span>'):format(i, escape(name))
  end
  return concat(parts)
end

local function chart(title, names, picture)
  if not picture then return "" end
  return ('<div class="chart"><h3>%s</h3>%s%s</div>'):format(escape(title),
    #names > 1 and key(names) or "", picture)
end

local function warmup_end(series)
  local finish
  for _, each in ipairs(series) do
    if each.interval.warmup then finish = each.interval.t_s end
  end
  return finish
end

local function rate_chart(series, frame)
  local points = {}
  for i, each in ipairs(series) do
    points[i] = { each.interval.t_s, not each.short and each.interval.n / each.seconds }
  end
  return chart("Operations per second", { "ops/s" }, svg.lines({ x_low = frame.low,
    x_high = frame.high, warmup_end = frame.warmup_end, y_label = format.count,
    label = "operations per second over time",
    lines = { { name = "ops/s", class = 1, points = points } } }))
end

local TIMES = { { "p50", 50 }, { "p99", 99 }, { "p99.9", 99.9 } }

-- A line for every percentile that the intervals have samples for, or for the maximum.
local function latency_chart(series, frame, latency)
  local lines, names = {}, {}
  local function add(name, figure)
    local points, some = {}, false
    for i, each in ipairs(series) do
      local value = not each.short and each.interval[latency] and figure(each.interval[latency])
      points[i], some = { each.interval.t_s, value or false }, some or value
    end
    if not some then return end
    names[#names + 1] = name
    lines[#lines + 1] = { name = name, class = #names, points = points }
  end
  for _, each in ipairs(TIMES) do
    add(each[1], function(dist) return distribution.percentile(dist, each[2]) end)
  end
  if #lines < 2 then add("max", distribution.largest) end
  return chart(("%s time, per interval"):format(latency == "response" and "Response" or "Service"),
    names, svg.lines({ x_low = frame.low, x_high = frame.high, warmup_end = frame.warmup_end,
      y_label = format.duration, log = true, label = latency .. " time over time",
      lines = lines }))
end

local NINES = { 0, 50, 90, 99, 99.9, 99.99, 99.999 }

local function nines(share)
  return -log(1 - share) / log(10)
end

-- Percentile curves of a list of { name, dist }; each further nine has the same room. The picture,
-- and the names of its lines.
local function percentiles(title, named)
  local lines, names, high = {}, {}, 0
  for i, each in ipairs(named) do
    local points, curve = {}, distribution.curve(each[2])
    for place, point in ipairs(curve) do
      local at, last = nines(point[1]), points[#points]
      if not last or at - last[1] >= 0.01 or place == #curve then -- about a pixel
        points[#points + 1] = { at, point[2] }
      end
      high = max(high, at)
    end
    names[i] = each[1]
    lines[i] = { name = each[1], class = i, points = points, bare = true }
  end
  local ticks = {}
  for _, percent in ipairs(NINES) do
    if nines(percent / 100) <= high + 1e-9 then
      ticks[#ticks + 1] = { nines(percent / 100), ("p%g"):format(percent) }
    end
  end
  return svg.lines({ x_low = 0, x_high = max(high, 0.1), x_ticks = ticks,
    y_label = format.duration, log = true, lines = lines, label = title }), names
end

local function curves(title, named)
  local picture, names = percentiles(title, named)
  return chart(title, names, picture)
end

local function heat_chart(series, frame, latency)
  local columns, group = {}, ceil(#series / HEAT_COLUMNS_MAX)
  for first = 1, #series, group do
    local last = min(first + group - 1, #series)
    local column = { from = series[first].interval.t_s - series[first].seconds,
      to = series[last].interval.t_s, cells = {} }
    for i = first, last do
      local dist = series[i].interval[latency]
      for _, bucket in ipairs(dist and dist.hist or {}) do
        column.cells[#column.cells + 1] = { distribution.bucket_middle(bucket[1], dist),
          bucket[2] }
      end
    end
    columns[#columns + 1] = column
  end
  return chart(("%s times, how often"):format(latency == "response" and "Response" or "Service"),
    {}, svg.heat_map({ columns = columns, x_low = frame.low, x_high = frame.high,
      warmup_end = frame.warmup_end, label = "heat map of the " .. latency .. " time" }))
end

-- Response and service time of an operation, as far as there are samples.
local function times_of(entry)
  local named = {}
  for _, each in ipairs({ "response", "service" }) do
    local dist = entry.op[each]
    if dist and dist.n >= distribution.samples_needed(50) then
      named[#named + 1] = { each, dist }
    end
  end
  return named
end

-- A file of its own; the title says which operation.
local function picture(entry)
  local title = ("%s.%s: percentiles of the whole run"):format(entry.job.name, entry.op.name)
  return svg.alone((percentiles(title, times_of(entry))))
end

local function of_operation(document, entry)
  local parts = {}
  local series = result.series(document, entry.job.name, entry.op.name)
  local latency = entry.op.response and "response" or "service"
  if #series >= 2 then
    local frame = { low = series[1].interval.t_s - series[1].seconds,
      high = series[#series].interval.t_s, warmup_end = warmup_end(series) }
    parts[1] = latency_chart(series, frame, latency)
    parts[2] = rate_chart(series, frame)
    parts[3] = heat_chart(series, frame, latency)
  end
  local named = times_of(entry)
  if #named > 0 then parts[#parts + 1] = curves("Percentiles of the whole run", named) end
  return #parts > 0 and '<div class="charts">' .. concat(parts) .. "</div>" or ""
end

return {
  of_operation = of_operation,
  curves = curves,
  picture = picture,
}
