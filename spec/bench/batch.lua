-- batch.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: the batching that we choose, to each
-- fixed one of the C loop: what it waits for, and how many reads at most it hands over at once.
--
-- The best is the one with the highest median of all rounds, which favours the C loop a little.

package.path = "spec/bench/?.lua;" .. package.path
local contestants = require("contestants")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local ours = contestants.ours(arg, 4)
local row = contestants.row

local SETTINGS = {
  [32] = { "wait=1", "wait=4", "wait=8", "wait=16", "wait=8 stage=8" },
  [128] = { "wait=1", "wait=8", "wait=16", "wait=32", "wait=64" },
}

local function compare(depth)
  local function loop(how, operations)
    return contestants.printed(contestants.loop(file, depth, operations, how)).rate
  end
  local operations = math.floor(loop("", 2000 * depth) * seconds)
  local list, rates, again = {}, {}, {}
  local names = { "a quarter of those in flight" } -- which is what we do, too
  for _, how in ipairs(SETTINGS[depth]) do
    names[#names + 1] = how
    list[#list + 1] = function() return loop(how, operations) end
  end
  for _, who in ipairs(ours) do
    list[#list + 1] = function()
      return contestants.printed(who.reads(file, depth, operations)).rate
    end
  end
  for k = 1, #list + 1 do rates[k] = {} end
  contestants.alternate(("batches, depth %d"):format(depth), rounds,
    function() return loop("", operations) end, list, function(before, results, after)
      table.insert(again, after / before)
      table.insert(rates[1], (before + after) / 2)
      for k, rate in ipairs(results) do table.insert(rates[k + 1], rate) end
    end)
  local best = 1
  for k = 2, #names do
    if spread.median(rates[k]) > spread.median(rates[best]) then best = k end
  end
  local function of(k, rival)
    local ratios = {}
    for i, rate in ipairs(rates[k]) do ratios[i] = rate / rates[rival][i] end
    return spread.text(ratios)
  end
  row(depth, "C loop, a quarter of those in flight, again", spread.text(again))
  for k = 2, #names do row(depth, ("C loop, %s"):format(names[k]), of(k, 1)) end
  for k, who in ipairs(ours) do
    row(depth, ("%s, of the best of these: %s"):format(who.name, names[best]),
      of(#names + k, best))
  end
end

print(("The batching that we choose, to what a C loop can choose: to wait for so many\n"
  .. "completions, to hand over so many reads at most at once (else 32). IOPS, of the C loop that\n"
  .. "waits for a quarter of what is in flight, %d rounds of %g s:\n"):format(rounds, seconds))
row("depth", "", "IOPS")
row("--:", "---", "---")
for _, depth in ipairs({ 32, 128 }) do compare(depth) end
