-- run.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: random reads against rivals.
--
-- A round runs the C loop, everybody else, and the C loop again; every other round backwards. A
-- ratio is that to the mean of the two C runs around; the control is the one C run to the other.
-- Nothing of start-up is inside the measured time. The C loop with a bare coroutine a read is what
-- any program in coroutines pays. Rivals that others are compared with run twice.

package.path = "spec/bench/?.lua;lua/?.lua;" .. package.path
local contestants = require("contestants")
local json = require("jdbfs.command.json")
local shell = require("shell")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local DEPTHS = { 1, 32, 128 }

local quote, capture, printed = shell.quote, shell.capture, contestants.printed

local function here(command) return capture(command .. " 2>/dev/null") ~= "" end

-- Rivals: run(depth, operations) -----------------------------------------------------------------

local function c_loop(depth, operations)
  return printed(contestants.loop(file, depth, operations))
end

local function pread(depth, operations)
  return printed(("build/bench/pread %s %d %d"):format(quote(file), depth, operations))
end

local function fio(options)
  return function(depth)
    local batch = math.max(1, math.floor(depth / 4))
    local output = capture(("fio --name=b --filename=%s --rw=randread --bs=4k --direct=1 "
      .. "--ioengine=io_uring --iodepth=%d --norandommap --runtime=%dms --time_based "
      .. "--output-format=json %s 2>/dev/null"):format(quote(file), depth, seconds * 1000,
      options:gsub("BATCH", batch)))
    local job = assert(json.decode((output:match("{.*")))).jobs[1]
    local took = job.job_runtime / 1000
    return contestants.figures(job.read.total_ios, took, (job.usr_cpu + job.sys_cpu) / 100 * took)
  end
end

local function luv(interpreter)
  return function(depth, operations)
    capture(("dd if=%s iflag=nocache count=0 2>/dev/null"):format(quote(file)))
    return printed(("env UV_THREADPOOL_SIZE=%d %s spec/bench/luv_reads.lua %s %d %d"):format(depth,
      quote(interpreter), quote(file), depth, operations))
  end
end

-- Ours first; then whoever is here.
local ours, rivals = contestants.ours(arg, 4), {}
for _, who in ipairs(ours) do
  who.run = function(depth, operations) return printed(who.reads(file, depth, operations)) end
end
if here("command -v fio") then
  rivals[#rivals + 1] = { name = "fio", run = fio(""), twice = true }
  rivals[#rivals + 1] = { name = "fio, equal batch", run = fio(
    "--iodepth_batch_submit=BATCH --iodepth_batch_complete_min=BATCH") }
end
rivals[#rivals + 1] = { name = "threads in pread", run = pread }
for _, who in ipairs(ours) do
  if here(quote(who.interpreter) .. " -e 'require([[luv]]) print(1)'") then
    rivals[#rivals + 1] = { name = "luv fs_read, as many threads", run = luv(who.interpreter),
      twice = true }
    break
  end
end

local bare = {}
for i, who in ipairs(ours) do
  bare[i] = { name = "C loop with a bare coroutine a read, " .. who.name,
    run = function(depth, operations)
      return printed(who.bare("read", file, depth, operations))
    end }
end
local again = {}
for i, who in ipairs(rivals) do
  if who.twice then
    again[#again + 1] = { name = who.name .. " again", run = who.run, of = #ours + i }
  end
end
local all = {}
for _, list in ipairs({ ours, rivals, bare, again }) do
  for _, who in ipairs(list) do all[#all + 1] = who end
end

-- Rounds -----------------------------------------------------------------------------------------

local row = contestants.row

local function note(series, before, results, after)
  local c = { rate = (before.rate + after.rate) / 2, cost = (before.cost + after.cost) / 2 }
  local function add(name, a, b)
    local one = series[name] or { rate = {}, cost = {} }
    series[name] = one
    table.insert(one.rate, a.rate / b.rate)
    table.insert(one.cost, a.cost / b.cost)
  end
  table.insert(series.rates, c.rate)
  table.insert(series.costs, c.cost)
  add("C loop again", after, before)
  for i, result in ipairs(results) do
    add(all[i].name, result, all[i].of and results[all[i].of] or c)
    for k = #ours + 1, #ours + #rivals do
      if i <= #ours then add(all[i].name .. " of " .. all[k].name, result, results[k]) end
    end
  end
end

-- The rows of a depth, and those of ours against each rival, which come in a table of their own.
local function compare(depth, against)
  local series, list = { rates = {}, costs = {} }, {}
  local guess = c_loop(depth, 2000 * depth) -- the discarded runs
  local operations = math.max(depth * 10, math.floor(guess.rate * seconds))
  for k, who in ipairs(all) do
    if depth == 1 and who.of then break end -- nobody is compared with it there
    list[k] = function() return who.run(depth, operations) end
    if not who.of then list[k]() end
  end
  contestants.alternate(("reads, depth %d"):format(depth), rounds,
    function() return c_loop(depth, operations) end, list,
    function(...) note(series, ...) end)
  local function line(name)
    return name, spread.text(series[name].rate), spread.text(series[name].cost)
  end
  row(depth, ("C loop again: %.0f IOPS, %.2f us CPU"):format(spread.median(series.rates),
    spread.median(series.costs)), select(2, line("C loop again")))
  for _, who in ipairs(all) do
    if not who.of then row(depth, line(who.name)) end
  end
  if depth == 1 then return end
  for _, who in ipairs(again) do against[#against + 1] = { depth, line(who.name) } end
  for _, who in ipairs(ours) do
    for _, rival in ipairs(rivals) do
      against[#against + 1] = { depth, line(who.name .. " of " .. rival.name) }
    end
  end
end

print(("Random 4 KiB direct reads, %d rounds of %g s, to a bare liburing loop in C with the same"
  .. " ring flags\nand batches; CPU is that of the whole process:\n"):format(rounds, seconds))
row("depth", "", "IOPS", "CPU per read")
row("--:", "---", "---", "---")
local against = {}
for _, depth in ipairs(DEPTHS) do compare(depth, against) end
print("\nThe same rounds, of each rival. luv reads through the page cache, emptied before, as its\n"
  .. "memory is not aligned:\n")
row("depth", "", "IOPS", "CPU per read")
row("--:", "---", "---", "---")
for _, line in ipairs(against) do row((table.unpack or unpack)(line)) end
