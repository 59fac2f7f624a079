-- What the tests reached: coverage.lua DIRECTORY LEAST, called by coverage.sh. Reads gcov's text
-- (gcov/*.txt), which lines of Lua ran (ran, see cover.c), and what those lines are.
--
-- A C line counts as run when it ran in one of the builds. An error branch is a way out of an `if`
-- that never was taken, on a line that refuses something. Both, and Lua lines that never ran, may
-- be listed in coverage-unhit.txt, which tells its form. An entry whose line is gone is a failure;
-- one whose line ran after all is told: what is a matter of luck stays listed.

local dir, least = arg[1], tonumber(arg[2])
local BRANCHES_LEAST = 90
package.path = "spec/tools/?.lua"
local split = require "coverage-split"

local function read(path)
  local f = io.open(path)
  if not f then return nil end
  local text = f:read("*a")
  f:close()
  return text
end

local function lines_of(text)
  return text:gmatch("([^\n]*)\n?")
end

local function trim(text)
  return (text:gsub("^%s+", ""):gsub("%s+$", ""))
end

local function files_in(pattern)
  local found = {}
  local p = io.popen("ls " .. dir .. "/gcov/" .. pattern .. " 2>/dev/null")
  for path in p:lines() do found[#found + 1] = path end
  p:close()
  return found
end

-- files[name][line] = {text =, count =, branches = {taken...}, within =}: within is the name of the
-- function, in C. calls["FILE:FUNCTION"]: how often.
local files, calls = {}, {}

-- ---- C ------------------------------------------------------------------------------------------

local function note_branch(line, index, taken)
  line.branches[index] = (line.branches[index] or 0) + taken
end

local function read_gcov(path)
  local name, line, within
  for text in lines_of(read(path)) do
    local source = text:match("^%s*%-:%s*0:Source:(.*)")
    if source then name, within = source:match("^csrc/[%w_]+%.c$"), nil end
    local called, times = text:match("^function ([%w_]+) called (%d+)")
    if name and called then
      within = name .. ":" .. called
      calls[within] = (calls[within] or 0) + tonumber(times)
    end
    local count, number, code = text:match("^%s*([%d#=%-]+)%*?:%s*(%d+):(.*)")
    if name and number and tonumber(number) > 0 then
      line = nil
      if count ~= "-" then
        files[name] = files[name] or {}
        line = files[name][tonumber(number)] or { text = trim(code), count = 0, branches = {},
          within = within }
        files[name][tonumber(number)] = line
        line.count = line.count + (tonumber(count) or 0)
      end
    elseif line then
      local index, taken = text:match("^branch%s+(%d+) taken (%d+)")
      index = index or text:match("^branch%s+(%d+) never executed")
      if index then note_branch(line, tonumber(index), tonumber(taken or 0)) end
    end
  end
end

-- ---- Lua ----------------------------------------------------------------------------------------

local function read_lua(name, ran, start)
  files[name] = {}
  local source = files[name]
  local copy = split.copy(name)
  split.instructions(dir .. "/" .. name, function(at, opcode)
    local line = copy[at]
    local text = trim(line.text)
    -- What only ends a block has an instruction that nothing reaches; entering a function with
    -- variable arguments is no line.
    if opcode == "VARARGPREP" or not text:gsub("end", ""):find("[^%s,;%)}]") then return end
    local known = source[line.line] or { text = trim(line.whole), count = 0, branches = {} }
    source[line.line] = known
    local count = ran:byte(start + 64 + at)
    known[line.refusal and "refused" or "count"] = count
  end)
end

local function read_ran()
  local ran = read(dir .. "/ran") or ""
  for start = 1, #ran, 8192 do read_lua(ran:match("^[^%z]+", start), ran, start) end
end

-- ---- what is listed -----------------------------------------------------------------------------

-- listed["FILE:FUNCTION<TAB>text"], in order of their lines, too.
local function read_listed()
  local listed, reason = {}, nil
  for text in lines_of(read("spec/tools/coverage-unhit.txt") or "") do
    local place, code, own = text:match("^([^#=\t][^\t]*)\t([^\t]+)\t*(.*)$")
    reason = text:match("^= (.+)$") or reason
    if place then
      assert(own ~= "" or reason, "no reason: " .. text)
      listed[#listed + 1] = { place = place, code = code }
      listed[place .. "\t" .. code] = listed[#listed]
    end
  end
  return listed
end

-- Refusals: what stands behind an `if` and leads out.
local function is_error_branch(line)
  return line.text:match("^[}%s]*i?f?%s*.*if %(") and
    (line.text:match("return%s+%-") or line.text:match("return%s+[%w_]*fail") or
      line.text:match("return NULL") or line.text:match("luaL_%w*error") or
      line.text:match("return refuse") or line.text:match("goto"))
end

local function branch_missed(line)
  if line.count == 0 then return false end
  if line.refused then return line.refused == 0 end
  if not is_error_branch(line) then return false end
  for _, taken in pairs(line.branches) do
    if taken == 0 then return true end
  end
  return false
end

-- ---- report -------------------------------------------------------------------------------------

for _, path in ipairs(files_in("*.txt")) do read_gcov(path) end
read_ran()

local listed = read_listed()
local passed, failed = 0, 0
local unlisted, reasons = {}, 0

local function entry_of(place, line)
  local whole = listed[place .. "\t*"]
  return listed[place .. "\t" .. line.text] or (whole and calls[place] == 0 and whole)
end

local function judge(name, number, line, what)
  local place = line.within or name
  local entry = entry_of(place, line)
  if entry then
    entry.used = true
    reasons = reasons + 1
  else
    unlisted[#unlisted + 1] = ("%d: %s: %s\t%s"):format(number, what, place, line.text)
  end
end

-- Ways out of a line: of every condition both. What an assert would do is left out.
local function branches_of(line)
  local total, hit = 0, 0
  if line.text:find("assert%(") then return 0, 0 end
  for _, taken in pairs(line.branches) do
    total = total + 1
    if taken > 0 then hit = hit + 1 end
  end
  return total, hit
end

local function no_counts() return { C = 0, Lua = 0, branches = 0 } end
local names, all, hit_all = {}, no_counts(), no_counts()
for name in pairs(files) do names[#names + 1] = name end
table.sort(names)
for _, name in ipairs(names) do
  local total, hit, ways, taken, numbers = 0, 0, 0, 0, {}
  for number in pairs(files[name]) do numbers[#numbers + 1] = number end
  table.sort(numbers)
  for _, number in ipairs(numbers) do
    local line = files[name][number]
    total = total + 1
    if line.count > 0 then hit = hit + 1 else judge(name, number, line, "never ran") end
    if branch_missed(line) then judge(name, number, line, "never refused") end
    local more, more_taken = branches_of(line)
    ways, taken = ways + more, taken + more_taken
  end
  local language = name:match("%.c$") and "C" or "Lua"
  all[language], hit_all[language] = all[language] + total, hit_all[language] + hit
  all.branches, hit_all.branches = all.branches + ways, hit_all.branches + taken
  local branches = ""
  if ways > 0 then branches = (", %5.1f %% of %d branches"):format(100 * taken / ways, ways) end
  print(("%6.2f %%  %5d of %5d lines%s  %s"):format(100 * hit / total, hit, total, branches, name))
end

local function judge_share(what, kind, unit, wanted)
  local share = 100 * hit_all[kind] / math.max(all[kind], 1)
  local good = share >= wanted
  if good then passed = passed + 1 else failed = failed + 1 end
  print(("%s coverage of %s: %.2f %% of %d %s (at least %d %%)"):format(
    good and "ok  " or "FAIL", what, share, all[kind], unit, wanted))
end

judge_share("C", "C", "lines", least)
judge_share("C", "branches", "branches", BRANCHES_LEAST)
judge_share("Lua", "Lua", "lines", least)

-- Entries that stand for nothing: their line is gone, or it is reached.
local function is_there(entry)
  if calls[entry.place] and entry.code == "*" then return true end
  local lines = files[entry.place:match("^[^:]*")]
  if not lines then return true end -- of no use in this run
  for _, line in pairs(lines) do
    if (line.within or entry.place) == entry.place and line.text == entry.code then return true end
  end
  return false
end

local gone, reached = {}, {}
for _, entry in ipairs(listed) do
  if not is_there(entry) then gone[#gone + 1] = entry
  elseif not entry.used then reached[#reached + 1] = entry end
end
for _, text in ipairs(unlisted) do print("unlisted " .. text) end
for _, entry in ipairs(gone) do print(("gone     %s\t%s"):format(entry.place, entry.code)) end
for _, entry in ipairs(reached) do print(("reached  %s\t%s"):format(entry.place, entry.code)) end
local good = #unlisted == 0 and #gone == 0
if good then passed = passed + 1 else failed = failed + 1 end
print(("%s unreached: %d listed with a reason, %d not; entries of lines gone: %d, reached: %d")
  :format(good and "ok  " or "FAIL", reasons, #unlisted, #gone, #reached))
print(("\n%d passed, %d failed, 0 skipped"):format(passed, failed))
os.exit(failed == 0 and 0 or 1)
