-- Reading what is typed: each parser gives the value, or nil and why not, to be put behind the
-- text in a sentence.

local ipairs, tonumber = ipairs, tonumber
local concat = table.concat

local SIZES = { [""] = 1, k = 1024, m = 1048576, g = 1073741824, t = 1099511627776 }
local TIMES = { us = 1e-6, ms = 1e-3, s = 1, m = 60, h = 3600 }
local COUNTS = { [""] = 1, k = 1e3, m = 1e6, g = 1e9 }

local M = {}

function M.whole(text)
  if not text:match("^%d+$") or #text > 15 then return nil, "is not a whole number" end
  return tonumber(text)
end

function M.number(text)
  if not text:match("^%-?%d*%.?%d+$") then return nil, "is not a number" end
  return tonumber(text)
end

-- Bytes.
function M.size(text)
  local digits, unit = text:lower():match("^(%d+)([kmgt]?)$")
  if not digits or #digits > 15 then
    return nil, "is not a size (a whole number, with k, m, g or t for powers of 1024: 256m)"
  end
  local count = tonumber(digits)
  if count > 2 ^ 52 / SIZES[unit] then return nil, "is larger than any file" end
  return count * SIZES[unit]
end

-- Seconds.
function M.time(text)
  local digits, unit = text:lower():match("^(%d*%.?%d+)([umsh]+)$")
  local seconds = digits and TIMES[unit] and tonumber(digits)
  if not seconds then return nil, "is not a time (a number with us, ms, s, m or h: 500ms, 5s)" end
  return seconds * TIMES[unit]
end

-- Operations per second.
function M.rate(text)
  local digits, unit = text:lower():match("^(%d*%.?%d+)([kmg]?)$")
  if not digits then return nil, "is not a rate (operations per second, with k or m: 500, 8k)" end
  return tonumber(digits) * COUNTS[unit]
end

function M.text(text)
  if text == "" then return nil, "is empty" end
  if text:find("\0", 1, true) then return nil, "contains a NUL byte" end
  return text
end

-- "2x"
function M.factor(text)
  local value = tonumber(text:match("^(%d*%.?%d+)x?$"))
  if not value or value <= 0 then return nil, "is no factor (2x, 0.5x)" end
  return value
end

-- "70:30": two whole numbers whose sum is not 0.
function M.mix(text)
  local a, b = text:match("^(%d+):(%d+)$")
  a, b = tonumber(a), tonumber(b)
  if not b or a + b == 0 then return nil, "is not a mix of reads to writes (70:30)" end
  return { text = text, reads = a / (a + b) }
end

--- "16:8", "16": how many operations go to the kernel at once, how many completions are awaited.
function M.batch(text)
  local submit, wait = text:match("^(%d+):(%d+)$")
  submit = tonumber(submit or text:match("^%d+$"))
  wait = tonumber(wait)
  if not submit or submit < 1 or submit > 4096 or wait and (wait < 1 or wait > 4096) then
    return nil, "is not S or S:W, numbers from 1 to 4096"
  end
  return { text = text, submit = submit, wait = wait or 0 } -- 0: from the depth
end

function M.choice(words)
  return function(text)
    for _, word in ipairs(words) do
      if word == text then return text end
    end
    return nil, "is none of " .. concat(words, ", ")
  end
end

-- uniform | seq | zipf:THETA | pareto[:H] | hotspot:DRAWS/PAGES
function M.distribution(text)
  if text == "uniform" or text == "seq" then return { text = text, kind = text } end
  local theta = tonumber(text:match("^zipf:(%d*%.?%d+)$") or text == "zipf" and "0.99")
  if theta and theta > 0 and theta < 100 then return { text = text, kind = "zipf", a = theta } end
  local h = tonumber(text:match("^pareto:(%d*%.?%d+)$") or text == "pareto" and "0.2")
  if h and h > 0 and h < 1 then return { text = text, kind = "pareto", a = h } end
  local draws, pages = text:match("^hotspot:(%d*%.?%d+)/(%d*%.?%d+)$")
  draws, pages = tonumber(draws), tonumber(pages)
  if pages and draws > 0 and draws < 100 and pages > 0 and pages < 100 then
    return { text = text, kind = "hotspot", a = draws / 100, b = pages / 100 }
  end
  return nil, "is no distribution (uniform, seq, zipf:0.99, pareto:0.2, hotspot:90/10)"
end

-- "3%/5s": how far rates may lie from their mean, for how long.
function M.steady(text)
  local share, seconds = text:match("^(%d*%.?%d+)%%/(%d+)s$")
  share, seconds = tonumber(share), tonumber(seconds)
  if not share or share <= 0 or seconds < 3 or seconds > 60 then
    return nil, "is not a share and 3 to 60 seconds (3%/5s)"
  end
  return { text = text, share = share / 100, seconds = seconds }
end

-- A parser that also keeps the value within bounds; told is how the bounds read in a message.
function M.within(parse, low, high, told)
  return function(text)
    local value, reason = parse(text)
    if not value then return nil, reason end
    if value < low or value > high then return nil, "is not between " .. told end
    return value
  end
end

return M
