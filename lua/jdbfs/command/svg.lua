-- Charts as inline SVG: lines over an axis, and a heat map. Colours are left to the style sheet of
-- the page, by class, so that one chart suits light and dark backgrounds; a <title> inside a shape
-- is what the browser shows when the pointer rests on it.

local format = require("jdbfs.command.format")

local ceil, floor, log, max, min = math.ceil, math.floor, math.log, math.max, math.min
local concat = table.concat
local ipairs, tostring = ipairs, tostring

local WIDTH, HEIGHT = 560, 250
local LEFT, RIGHT, TOP, BOTTOM = 62, 62, 14, 34 -- margins of the plot; labels of lines stand right

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

-- Text for HTML. What is no UTF-8 or no character of HTML becomes a question mark.
local function escape(text)
  text = tostring(text):gsub("[%z\1-\8\11\12\14-\31\127]", "?")
  local left = text:gsub("[\194-\223][\128-\191]", ""):gsub("[\224-\239][\128-\191][\128-\191]", "")
  left = left:gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  if left:find("[\128-\255]") then text = text:gsub("[\128-\255]", "?") end
  return (text:gsub('[&<>"]', ENTITIES))
end

-- Scales and ticks -------------------------------------------------------------------------------

-- Steps of 1, 2 or 5 times a power of ten, about so many between 0 and high.
local function linear_ticks(low, high, about)
  local raw = max((high - low) / about, 1e-12)
  local power = 10 ^ floor(log(raw) / log(10) + 1e-9)
  local step = power
  for _, factor in ipairs({ 1, 2, 5, 10 }) do
    step = factor * power
    if step >= raw * 0.999 then break end
  end
  local ticks = {}
  for i = ceil(low / step - 1e-9), floor(high / step + 1e-9) do
    ticks[#ticks + 1] = i * step
  end
  return ticks
end

-- Powers of ten; between less than two of them also their double and their half.
local function log_ticks(low, high)
  local ticks, decades = {}, log(high / low) / log(10)
  local factors = decades < 2.5 and { 1, 2, 5 } or { 1 }
  for power = floor(log(low) / log(10) + 1e-9), ceil(log(high) / log(10)) do
    for _, factor in ipairs(factors) do
      local value = factor * 10 ^ power
      if value >= low * 0.999 and value <= high * 1.001 then ticks[#ticks + 1] = value end
    end
  end
  return ticks
end

-- A function from a value to a coordinate between two ends.
local function scale(low, high, from, to, logarithmic)
  if logarithmic then low, high = log(low), log(high) end
  local span = high > low and high - low or 1
  return function(value)
    if logarithmic then value = log(max(value, 1e-9)) end
    return from + (value - low) / span * (to - from)
  end
end

local function number(value)
  return (("%.1f"):format(value):gsub("%.0$", ""))
end

-- Frames -----------------------------------------------------------------------------------------

local function open_svg(parts, label)
  parts[#parts + 1] = ('<svg viewBox="0 0 %d %d" role="img" aria-label="%s">'):format(WIDTH, HEIGHT,
    escape(label))
end

local function add_axes(parts, o, x, y)
  for _, tick in ipairs(o.y_ticks) do
    local at = number(y(tick))
    parts[#parts + 1] = ('<line class="grid" x1="%d" x2="%d" y1="%s" y2="%s"/>'):format(LEFT,
      WIDTH - RIGHT, at, at)
    parts[#parts + 1] = ('<text class="tick" x="%d" y="%s" dy=".32em" text-anchor="end">%s</text>')
      :format(LEFT - 8, at, escape((o.y_label(tick):gsub("%.0+(%D)", "%1"))))
  end
  for _, tick in ipairs(o.x_ticks) do
    parts[#parts + 1] = ('<text class="tick" x="%s" y="%d" text-anchor="middle">%s</text>'):format(
      number(x(tick[1])), HEIGHT - BOTTOM + 18, escape(tick[2]))
  end
  parts[#parts + 1] = ('<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>'):format(LEFT,
    WIDTH - RIGHT, HEIGHT - BOTTOM, HEIGHT - BOTTOM)
end

-- The part of the time that is in no figure.
local function add_warmup(parts, o, x)
  if not o.warmup_end or o.warmup_end <= o.x_low then return end
  local width = x(min(o.warmup_end, o.x_high)) - LEFT
  parts[#parts + 1] = ('<rect class="warm" x="%d" y="%d" width="%s" height="%d"><title>warm-up, in'
    .. ' no figure</title></rect>'):format(LEFT, TOP, number(width), HEIGHT - BOTTOM - TOP)
end

-- Seconds as the ticks of a time axis.
local function time_ticks(low, high)
  local ticks = {}
  for i, value in ipairs(linear_ticks(low, high, 6)) do
    ticks[i] = { value, format.seconds(value) }
  end
  return ticks
end

-- Line charts ------------------------------------------------------------------------------------

local function bounds_of(lines)
  local low, high
  for _, line in ipairs(lines) do
    for _, point in ipairs(line.points) do
      local value = point[2]
      if value then low, high = min(low or value, value), max(high or value, value) end
    end
  end
  return low, high
end

-- A path through the points; one without a value leaves a gap.
local function add_path(parts, line, x, y)
  local steps, pen = {}, "M"
  for _, point in ipairs(line.points) do
    if point[2] then
      steps[#steps + 1] = pen .. number(x(point[1])) .. " " .. number(y(point[2]))
      pen = "L"
    else
      pen = "M"
    end
  end
  parts[#parts + 1] = ('<path class="line s%d" d="%s"/>'):format(line.class, concat(steps))
end

-- Spots that tell their value under the pointer; single ones are also all that shows of a gap's
-- neighbours.
local function add_spots(parts, line, o, x, y)
  if #line.points > 400 or line.bare then return end
  for _, point in ipairs(line.points) do
    if point[2] then
      parts[#parts + 1] = ('<circle class="spot s%d" cx="%s" cy="%s" r="4"><title>%s</title>'
        .. '</circle>'):format(line.class, number(x(point[1])), number(y(point[2])),
        escape(("%s %s at %s"):format(line.name, o.y_label(point[2]), o.x_text(point[1]))))
    end
  end
end

-- The names of the lines at their right ends, pushed apart where they would overlap.
local function add_names(parts, lines, y)
  local ends = {}
  for _, line in ipairs(lines) do
    for i = #line.points, 1, -1 do
      if line.points[i][2] then
        ends[#ends + 1] = { at = y(line.points[i][2]), line = line }
        break
      end
    end
  end
  table.sort(ends, function(a, b) return a.at < b.at end)
  local before = -100
  for _, each in ipairs(ends) do
    local at = max(each.at, before + 13)
    before = at
    parts[#parts + 1] = ('<text class="name t%d" x="%d" y="%s" dy=".32em">%s</text>'):format(
      each.line.class, WIDTH - RIGHT + 5, number(min(at, HEIGHT - BOTTOM)),
      escape(format.cut(each.line.name, 9)))
  end
end

-- o.lines: list of { name, class, points = { { x, y or false }, ... }, bare }; o.x_low, o.x_high;
-- o.x_ticks: list of { x, label }, otherwise seconds; o.x_text(x), o.y_label(y): texts of values;
-- o.log: the y axis is logarithmic; o.warmup_end; o.label: the chart in words. nil without points.
local function lines(o)
  local low, high = bounds_of(o.lines)
  if not low then return nil end
  if o.log then
    low, high = max(low * 0.8, 1), max(high * 1.2, 2)
  else
    low, high = 0, high > 0 and high * 1.08 or 1
  end
  local x = scale(o.x_low, o.x_high, LEFT, WIDTH - RIGHT)
  local y = scale(low, high, HEIGHT - BOTTOM, TOP, o.log)
  local parts = {}
  open_svg(parts, o.label)
  add_warmup(parts, o, x)
  add_axes(parts, { y_ticks = o.log and log_ticks(low, high) or linear_ticks(low, high, 5),
    y_label = o.y_label, x_ticks = o.x_ticks or time_ticks(o.x_low, o.x_high) }, x, y)
  o.x_text = o.x_text or format.seconds
  for _, line in ipairs(o.lines) do
    add_path(parts, line, x, y)
  end
  for _, line in ipairs(o.lines) do
    add_spots(parts, line, o, x, y)
  end
  add_names(parts, o.lines, y)
  parts[#parts + 1] = "</svg>"
  return concat(parts)
end

-- Heat maps --------------------------------------------------------------------------------------

local HEAT_ROWS = 26

-- Counts per row of the map for one column: { row = count }, and the highest count.
local function rows_of(column, y_row)
  local counts, highest = {}, 0
  for _, cell in ipairs(column.cells) do
    local row = y_row(cell[1])
    counts[row] = (counts[row] or 0) + cell[2]
    highest = max(highest, counts[row])
  end
  return counts, highest
end

-- o.columns: list of { from, to, cells = { { y, count }, ... } }, y in ns on a logarithmic axis;
-- o.x_low, o.x_high, o.warmup_end, o.label. nil without cells.
local function heat_map(o)
  local low, high
  for _, column in ipairs(o.columns) do
    for _, cell in ipairs(column.cells) do
      low, high = min(low or cell[1], cell[1]), max(high or cell[1], cell[1])
    end
  end
  if not low then return nil end
  low, high = max(low * 0.9, 1), max(high * 1.1, 2)
  local x = scale(o.x_low, o.x_high, LEFT, WIDTH - RIGHT)
  local y = scale(low, high, HEIGHT - BOTTOM, TOP, true)
  local to_row = scale(low, high, 0, HEAT_ROWS, true)
  local function y_row(value) return min(HEAT_ROWS - 1, max(0, floor(to_row(value)))) end
  local tall = (HEIGHT - BOTTOM - TOP) / HEAT_ROWS
  local parts = {}
  open_svg(parts, o.label)
  add_axes(parts, { y_ticks = log_ticks(low, high), y_label = format.duration,
    x_ticks = time_ticks(o.x_low, o.x_high) }, x, y)
  for _, column in ipairs(o.columns) do
    local counts, highest = rows_of(column, y_row)
    local left = x(column.from)
    local wide = max(1, x(column.to) - left - 0.5)
    for row = 0, HEAT_ROWS - 1 do
      if counts[row] then
        parts[#parts + 1] = ('<rect class="heat" x="%s" y="%s" width="%s" height="%s" '
          .. 'fill-opacity="%.2f"><title>%s at %s: %s</title></rect>'):format(number(left),
          number(HEIGHT - BOTTOM - (row + 1) * tall), number(wide), number(tall - 0.5),
          0.12 + 0.88 * (counts[row] / highest) ^ 0.5,
          format.duration(low * (high / low) ^ ((row + 0.5) / HEAT_ROWS)),
          format.seconds(column.to), format.plural(counts[row], "operation"))
      end
    end
  end
  add_warmup(parts, o, x)
  parts[#parts + 1] = "</svg>"
  return concat(parts)
end

local STYLE = [[
<style>svg{--soft:#55555c;--rule:#e4e4e0;--faint:#8a8a92;--s1:#2a6fdb;--s2:#d9591c}
@media(prefers-color-scheme:dark){svg{--soft:#b4b4bd;--rule:#303036;--faint:#85858f;--s1:#6aa5ff;
--s2:#ff9257}}text{font:12px sans-serif;fill:var(--soft)}.grid{stroke:var(--rule)}
.axis{stroke:var(--faint)}.line{fill:none;stroke-width:1.8}.spot{fill-opacity:0}
.s1{stroke:var(--s1)}.s2{stroke:var(--s2)}.t1{fill:var(--s1)}.t2{fill:var(--s2)}</style>]]

-- A chart as a file of its own, with its style.
local function alone(chart)
  return (chart:gsub("^<svg ([^>]*)>", function(attributes)
    return '<svg xmlns="http://www.w3.org/2000/svg" ' .. attributes .. ">\n" .. STYLE
  end)) .. "\n"
end

return {
  alone = alone,
  escape = escape,
  lines = lines,
  heat_map = heat_map,
}
