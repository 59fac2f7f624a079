-- luv.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: luv's fs_read with each number of
-- threads, next to ours, both at depth 128. It reads through the page cache, which is emptied
-- before.

package.path = "spec/bench/?.lua;" .. package.path
local contestants = require("contestants")
local shell = require("shell")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local row, quote = contestants.row, shell.quote
local DEPTH, THREADS = 128, { 2, 4, 8, 16, 32, 64, 128 }

local who -- the first of ours that has luv
for _, one in ipairs(contestants.ours(arg, 4)) do
  local test = quote(one.interpreter) .. " -e 'require([[luv]]) print(1)' 2>/dev/null"
  if not who and shell.capture(test) ~= "" then who = one end
end
if not who then
  print("luv is not installed.")
  os.exit(0)
end

local function luv(threads, operations)
  shell.capture(("dd if=%s iflag=nocache count=0 2>/dev/null"):format(quote(file)))
  local command = "env UV_THREADPOOL_SIZE=%d %s spec/bench/luv_reads.lua %s %d %d"
  return contestants.printed(command:format(threads, quote(who.interpreter), quote(file), DEPTH,
    operations))
end

local operations = math.floor(luv(16, 20000).rate * seconds)
local function ours() return contestants.printed(who.reads(file, DEPTH, operations)) end
local list, rate, cost, again = {}, {}, {}, { rate = {}, cost = {} }
for k, threads in ipairs(THREADS) do
  rate[k], cost[k] = {}, {}
  list[k] = function() return luv(threads, operations) end
end
contestants.alternate("luv", rounds, ours, list, function(before, results, after)
  table.insert(again.rate, after.rate / before.rate)
  table.insert(again.cost, after.cost / before.cost)
  for k, result in ipairs(results) do
    table.insert(rate[k], (before.rate + after.rate) / 2 / result.rate)
    table.insert(cost[k], 2 * result.cost / (before.cost + after.cost))
  end
end)

print(("Reads at depth %d, to those of luv's fs_read with so many threads, %d rounds of %g s:\n")
  :format(DEPTH, rounds, seconds))
row("", "IOPS", "operations per CPU second")
row("---", "---", "---")
row(who.name .. " again", spread.text(again.rate), spread.text(again.cost))
for k, threads in ipairs(THREADS) do
  row(("%s of luv with %d threads"):format(who.name, threads), spread.text(rate[k]),
    spread.text(cost[k]))
end
