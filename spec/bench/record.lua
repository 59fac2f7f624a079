-- The record of counts.txt: what counts.lua compares with. One count a line:
--
--   lua5.4 read_1 instructions 3731 gcc-12.2.0/glibc-2.36/x86_64/Lua-5.4.4
--
-- The last word says where the count holds: everywhere ("any"), or only with this machine and Lua,
-- or with this compiler and libc. A count that is more than 3 % above its record has grown.

local GROWTH, SLACK = 1.03, 0.005 -- the slack is for what is recorded as 0

local M = {}

local function id(entry) return table.concat({ entry.lua, entry.scenario, entry.count }, " ") end

-- Entries { lua, scenario, count, value, where } of a text; raises with the line that is wrong.
function M.parse(text)
  local list, number = {}, 0
  for line in text:gmatch("([^\n]*)\n?") do
    number = number + 1
    if line:find("%S") and not line:find("^%s*#") then
      local lua, scenario, count, value, where = line:match(
        "^%s*(%S+)%s+(%S+)%s+(%S+)%s+([%d.]+)%s+(%S+)%s*$")
      if not lua then error(("line %d is no count: %s"):format(number, line), 0) end
      list[#list + 1] = { lua = lua, scenario = scenario, count = count, value = tonumber(value),
        where = where }
    end
  end
  return list
end

-- The recorded value of a count as it was measured, or nil.
function M.find(list, entry)
  for _, known in ipairs(list) do
    if id(known) == id(entry) and known.where == entry.where then return known.value end
  end
end

function M.has_grown(value, recorded) return value > recorded * GROWTH + SLACK end

-- "ok", "FAIL" or "skip", and what is to be said.
function M.judge(list, entry)
  local recorded = M.find(list, entry)
  local what = ("%s: %.6g"):format(id(entry), entry.value)
  if not recorded then
    return "skip", ("%s; nothing is recorded for %s"):format(what, entry.where)
  end
  local change = recorded > 0 and (" (%+.1f %%)"):format((entry.value / recorded - 1) * 100) or ""
  what = ("%s, recorded %.6g%s"):format(what, recorded, change)
  if M.has_grown(entry.value, recorded) then return "FAIL", what .. ": it has grown" end
  return "ok", what
end

-- The list with the entry in the place of the one that it renews.
function M.renew(list, entry)
  for i, known in ipairs(list) do
    if id(known) == id(entry) and known.where == entry.where then
      list[i] = entry
      return
    end
  end
  list[#list + 1] = entry
end

function M.format(list)
  local lines = {}
  for i, entry in ipairs(list) do
    lines[i] = ("%-8s %-12s %-12s %9.6g %s"):format(entry.lua, entry.scenario, entry.count,
      entry.value, entry.where)
  end
  table.sort(lines)
  return "# What one operation costs; spec/bench/counts.sh --record renews this.\n"
    .. table.concat(lines, "\n") .. "\n"
end

return M
