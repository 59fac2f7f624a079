-- How numbers read: three significant digits with a unit. A missing number reads "–".

local floor = math.floor
local concat, gsub = table.concat, string.gsub
local ipairs, tostring = ipairs, tostring

local KIB, MIB, GIB = 1024, 1048576, 1073741824

-- Three significant digits, no zeros that say nothing behind whole numbers below 1000.
local function digits(value)
  if value < 9.995 then return ("%.2f"):format(value) end
  if value < 99.95 then return ("%.1f"):format(value) end
  return ("%.0f"):format(value)
end

local function duration(ns)
  if not ns then return "–" end
  if ns < 999.5 then return ("%.0fns"):format(ns) end
  if ns < 999.5e3 then return digits(ns / 1e3) .. "us" end
  if ns < 999.5e6 then return digits(ns / 1e6) .. "ms" end
  if ns < 100e9 then return digits(ns / 1e9) .. "s" end
  local whole = floor(ns / 1e9)
  return ("%.0fm%02.0fs"):format(floor(whole / 60), whole % 60)
end

-- A count in powers of 1000.
local function count(value)
  if not value then return "–" end
  if value < 999.5 then return value % 1 == 0 and ("%.0f"):format(value) or digits(value) end
  for _, unit in ipairs({ { 1e3, "k" }, { 1e6, "M" }, { 1e9, "G" } }) do
    if value < unit[1] * 999.5 then return digits(value / unit[1]) .. unit[2] end
  end
  return ("%.3g"):format(value)
end

local function rate(per_second)
  return count(per_second) .. (per_second and "/s" or "")
end

local function bytes(value)
  if not value then return "–" end
  for _, unit in ipairs({ { GIB, " GiB" }, { MIB, " MiB" }, { KIB, " KiB" } }) do
    if value >= unit[1] then
      local scaled = value / unit[1]
      return (scaled % 1 == 0 and ("%.0f"):format(scaled) or digits(scaled)) .. unit[2]
    end
  end
  return ("%.0f B"):format(value)
end

local function throughput(per_second)
  return bytes(per_second) .. (per_second and "/s" or "")
end

local function seconds(value)
  if not value then return "–" end
  return (("%.3f"):format(value):gsub("%.?0+$", "")) .. "s"
end

-- The columns a text takes on a terminal; all that we print are one column wide.
local function columns(text)
  local _, continued = gsub(text, "[\128-\191]", "")
  return #text - continued
end

-- The text cut to at most so many columns, with a mark where it was cut.
local function cut(text, width, mark)
  if columns(text) <= width then return text end
  mark = mark or "…"
  local kept, left = {}, width - columns(mark)
  for glyph in text:gmatch("[^\128-\191][\128-\191]*") do
    if left <= 0 then break end
    kept[#kept + 1], left = glyph, left - 1
  end
  return width > 0 and concat(kept) .. mark or ""
end

local function pad(text, width)
  return text .. (" "):rep(width - columns(text))
end

local function pad_left(text, width)
  return (" "):rep(width - columns(text)) .. text
end

local ASCII = {
  ["–"] = "-", ["…"] = "~", ["✓"] = "ok", ["✗"] = "FAILED", ["·"] = ";", ["µ"] = "u", ["±"] = "+-",
  ["×"] = "x", ["→"] = "->", ["≥"] = ">=", ["≤"] = "<=",
}

-- The text in ASCII: glyphs of ours are replaced by words, foreign ones by question marks.
local function ascii(text)
  return (gsub(text, "[\194-\244][\128-\191]+", function(glyph)
    return ASCII[glyph] or "?"
  end))
end

-- A text that names its own kind of thing for 1 and for many: plural(2, "error") is "2 errors".
local function plural(number, word)
  return ("%s %s"):format(count(number), number == 1 and word or word .. "s")
end

local function text(value)
  return value == nil and "–" or tostring(value)
end

return {
  duration = duration,
  count = count,
  rate = rate,
  bytes = bytes,
  throughput = throughput,
  seconds = seconds,
  columns = columns,
  cut = cut,
  pad = pad,
  pad_left = pad_left,
  ascii = ascii,
  plural = plural,
  text = text,
}
