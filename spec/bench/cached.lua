-- cached.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: what we add to a read that no device
-- has a part in: FILE is in the page cache, all read it from there. CPU time of the whole process,
-- to that of the C loop, and the difference.

package.path = "spec/bench/?.lua;" .. package.path
local contestants = require("contestants")
local shell = require("shell")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local ours = contestants.ours(arg, 4)
local row = contestants.row
local DEPTH = 32

local function loop(operations)
  return contestants.printed(contestants.loop(file, DEPTH, operations, "cached")).cost
end

shell.capture("cat " .. shell.quote(file) .. " >/dev/null")
local operations = math.floor(seconds / loop(100000) * 1e6)
local function series() return { ratio = {}, added = {} } end
local function add(to, a, b)
  table.insert(to.ratio, a / b)
  table.insert(to.added, a - b)
end
local list, costs, again, all = {}, {}, series(), {}
local names = {}
local function compete(name, command)
  names[#names + 1] = name
  all[#names] = series()
  list[#names] = function() return contestants.printed(command).cost end
end
for _, who in ipairs(ours) do compete(who.name, who.reads(file, DEPTH, operations, "cached")) end
for _, who in ipairs(ours) do
  compete("C loop with a bare coroutine a read, " .. who.name,
    who.bare("read", file, DEPTH, operations, "cached"))
end
for _, who in ipairs(ours) do
  compete(who.name .. ", lists of as many", who.reads(file, DEPTH, operations, "lists"))
end
contestants.alternate("cached reads", rounds, function() return loop(operations) end, list,
  function(before, results, after)
    costs[#costs + 1] = (before + after) / 2
    add(again, after, before)
    for k, result in ipairs(results) do add(all[k], result, costs[#costs]) end
  end)

print(("Reads of 4 KiB out of the page cache at depth %d, which no device has a part in; CPU of\n"
  .. "the whole process, %d rounds of %g s:\n"):format(DEPTH, rounds, seconds))
row("", "CPU per read", "us added")
row("---", "---", "---")
local function line(name, one) row(name, spread.text(one.ratio), spread.text(one.added)) end
line(("C loop again: %.2f us"):format(spread.median(costs)), again)
for k, name in ipairs(names) do line(name, all[k]) end
