-- Plots for a terminal: a curve on a canvas of braille dots (or of : ' and . in ASCII) with its
-- axes, and sparklines.

local format = require("jdbfs.command.format")

local char = string.char
local floor, log, max, min = math.floor, math.log, math.max, math.min
local concat = table.concat
local ipairs = ipairs

-- What each of a cell's dots adds to U+2800, by row and column; dots are 2 wide and 4 high.
local BRAILLE = { { 1, 8 }, { 2, 16 }, { 4, 32 }, { 64, 128 } }
local ASCII_DOTS = { [0] = " ", "'", ".", ":" }
local BARS = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" }
local ASCII_BARS = { "_", ".", "-", "=", "+", "*", "%", "#" }

local function braille(value)
  return char(226, 160 + floor(value / 64), 128 + value % 64)
end

-- A canvas of so many cells. Dots are addressed from the lower left, from 0.
local function new_canvas(width, height, ascii)
  local cells = {}
  local across, down = ascii and 1 or 2, ascii and 2 or 4
  local canvas = { across = width * across, down = height * down }

  function canvas.set(x, y)
    local row = canvas.down - 1 - y
    if x < 0 or x >= canvas.across or row < 0 or row >= canvas.down then return end
    local cell = floor(row / down) * width + floor(x / across)
    local bit = ascii and row % 2 + 1 or BRAILLE[row % 4 + 1][x % 2 + 1]
    cells[cell] = cells[cell] or {}
    cells[cell][bit] = true
  end

  function canvas.rows()
    local rows = {}
    for row = 0, height - 1 do
      local glyphs = {}
      for column = 0, width - 1 do
        local value = 0
        for bit in pairs(cells[row * width + column] or {}) do
          value = value + bit
        end
        glyphs[column + 1] = ascii and ASCII_DOTS[value] or value == 0 and " " or braille(value)
      end
      rows[row + 1] = concat(glyphs)
    end
    return rows
  end

  return canvas
end

local function draw_line(canvas, x1, y1, x2, y2)
  local steps = max(math.abs(x2 - x1), math.abs(y2 - y1), 1)
  for i = 0, steps do
    canvas.set(floor(x1 + (x2 - x1) * i / steps + 0.5), floor(y1 + (y2 - y1) * i / steps + 0.5))
  end
end

local function scale_of(low, high, logarithmic, dots)
  if logarithmic then low, high = log(max(low, 1)), log(max(high, 1)) end
  local span = high > low and high - low or 1
  return function(value)
    if logarithmic then value = log(max(value, 1)) end
    return floor((value - low) / span * (dots - 1) + 0.5)
  end
end

local function bounds(points)
  local low, high = points[1][2], points[1][2]
  for _, point in ipairs(points) do
    low, high = min(low, point[2]), max(high, point[2])
  end
  return low, high
end

-- The labels below the x axis, each as near to its place as the others leave room.
local function tick_line(ticks, width, place)
  local line = ""
  for _, tick in ipairs(ticks) do
    local at = min(place(tick[1]), width - format.columns(tick[2]))
    local gap = at - format.columns(line)
    if gap >= (line == "" and 0 or 1) then line = line .. (" "):rep(gap) .. tick[2] end
  end
  return line
end

-- The lines of a chart o.width columns wide with o.height rows of plot, a title and an axis.
--   o.title; o.points: list of { x, y } by rising x; o.x_low, o.x_high: ends of the x axis
--   o.ticks: list of { x, label }; o.label(y): text of a y value; o.log: y is logarithmic
--   o.breaks: set of the indices of points that no line leads to
local function chart(o)
  local low, high = bounds(o.points)
  if not o.log then low = 0 end
  local margin = 9
  local width = o.width - margin - 2
  local canvas = new_canvas(width, o.height, o.ascii)
  local y = scale_of(low, high, o.log, canvas.down)
  local x = scale_of(o.x_low, o.x_high, false, canvas.across)
  local before
  for i, point in ipairs(o.points) do
    local at = { x(point[1]), y(point[2]) }
    if not before or (o.breaks and o.breaks[i]) then before = at end
    draw_line(canvas, before[1], before[2], at[1], at[2])
    before = at
  end
  local lines = { format.cut(o.title, o.width, o.ascii and "~") }
  for i, row in ipairs(canvas.rows()) do
    local label = i == 1 and o.label(high) or i == o.height and o.label(low) or ""
    lines[#lines + 1] = format.pad_left(label, margin) .. " |" .. row
  end
  local place = scale_of(o.x_low, o.x_high, false, width)
  lines[#lines + 1] = (" "):rep(margin) .. " +" .. ("-"):rep(width)
  lines[#lines + 1] = (" "):rep(margin + 2) .. tick_line(o.ticks, width, place)
  return lines
end

-- The last values as bars of eight heights above zero.
local function sparkline(values, width, ascii)
  local bars, highest, glyphs = ascii and ASCII_BARS or BARS, 0, {}
  local first = max(1, #values - width + 1)
  for i = first, #values do
    highest = max(highest, values[i])
  end
  for i = first, #values do
    local height = highest > 0 and floor(values[i] / highest * 7 + 0.5) or 0
    glyphs[#glyphs + 1] = bars[height + 1]
  end
  return concat(glyphs)
end

return {
  chart = chart,
  sparkline = sparkline,
}
