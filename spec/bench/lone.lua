-- lone.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: how long one read takes that is alone,
-- to the C loop; the C loop to itself. Many short rounds: a device has its good and bad seconds.

package.path = "spec/bench/?.lua;" .. package.path
local contestants = require("contestants")
local shell = require("shell")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local ours = contestants.ours(arg, 4)
local row = contestants.row

local guess = contestants.printed(contestants.loop(file, 1, 2000)).rate
local operations = math.max(100, math.floor(guess * seconds))
local list, times, again, series = {}, {}, {}, {}
for k, who in ipairs(ours) do
  series[k] = {}
  list[k] = function()
    return contestants.printed_time(who.reads(file, 1, operations, "latency"))
  end
end
local function loop()
  return contestants.printed_time(("build/bench/loop latency %s %d"):format(shell.quote(file),
    operations))
end
contestants.alternate("a lone read", rounds, loop, list, function(before, results, after)
  local time = (before + after) / 2
  times[#times + 1], again[#again + 1] = time, after / before
  for k, result in ipairs(results) do table.insert(series[k], result / time) end
end)

print(("How long one read takes when it is alone: the median, from one completion to the next;\n"
  .. "%d rounds of %g s:\n"):format(rounds, seconds))
row("", "median time")
row("---", "---")
row(("C loop again: %.1f us"):format(spread.median(times)), spread.text(again))
for k, who in ipairs(ours) do row(who.name, spread.text(series[k])) end
