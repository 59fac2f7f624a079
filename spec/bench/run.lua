-- run.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULES...: random reads against rivals.
--
-- A round runs the C loop, everybody else, and the C loop again; every other round backwards. A
-- ratio is that to the mean of the two C runs around; the control is the one C run to the other.
-- Nothing of start-up is inside the measured time.

package.path = "spec/bench/?.lua;lua/?.lua;" .. package.path
local json = require("jdbfs.command.json")
local shell = require("shell")
local spread = require("spread")

local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local DEPTHS = { 1, 32, 128 }

local quote, capture = shell.quote, shell.capture

local function here(command) return capture(command .. " 2>/dev/null") ~= "" end

-- What was measured, as rate and CPU time of the process per operation, in us.
local function figures(operations, took, cpu)
  return { rate = operations / took, cost = cpu / operations * 1e6 }
end

local function printed(command)
  local output = capture(command)
  local operations, took, cpu = output:match("(%d+) ([%d.]+) ([%d.]+)")
  if not operations then error("bench: no figures from: " .. command .. "\n" .. output, 0) end
  return figures(tonumber(operations), tonumber(took), tonumber(cpu))
end

local function printed_time(command)
  local output = capture(command)
  local time = output:match("^%d+ [%d.]+ ([%d.]+)%s*$")
  return tonumber(time) or error("bench: no time from: " .. command .. "\n" .. output, 0)
end

-- Rivals: run(depth, operations) -----------------------------------------------------------------

local function c_loop(depth, operations)
  return printed(("build/bench/loop read %s %d %d"):format(quote(file), depth, operations))
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
    return figures(job.read.total_ios, took, (job.usr_cpu + job.sys_cpu) / 100 * took)
  end
end

local function luv(interpreter)
  return function(depth, operations)
    capture(("dd if=%s iflag=nocache count=0 2>/dev/null"):format(quote(file)))
    return printed(("env UV_THREADPOOL_SIZE=%d %s spec/bench/luv_reads.lua %s %d %d"):format(depth,
      quote(interpreter), quote(file), depth, operations))
  end
end

local function lua(interpreter, modules, depth, operations)
  return ("env LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH=%s %s spec/bench/reads.lua"
    .. " %s %d %d"):format(quote(modules .. "/?.so"), quote(interpreter), quote(file), depth,
    operations)
end

-- Ours first; then whoever is here.
local ours, rivals = {}, {}
for i = 4, #arg do
  local name, interpreter, modules = arg[i]:match("^(.-)=(.-)=(.*)$")
  ours[#ours + 1] = {
    name = name,
    interpreter = interpreter,
    run = function(depth, operations)
      return printed(lua(interpreter, modules, depth, operations))
    end,
    latency = function(operations)
      return printed_time(lua(interpreter, modules, 1, operations) .. " latency")
    end,
  }
end
if here("command -v fio") then
  rivals[#rivals + 1] = { name = "fio", run = fio("") }
  rivals[#rivals + 1] = { name = "fio, equal batch", run = fio(
    "--iodepth_batch_submit=BATCH --iodepth_batch_complete_min=BATCH") }
end
rivals[#rivals + 1] = { name = "threads in pread", run = pread }
for _, who in ipairs(ours) do
  if here(quote(who.interpreter) .. " -e 'require([[luv]]) print(1)'") then
    rivals[#rivals + 1] = { name = "luv fs_read, as many threads", run = luv(who.interpreter) }
    break
  end
end

local all = {}
for _, list in ipairs({ ours, rivals }) do
  for _, who in ipairs(list) do all[#all + 1] = who end
end

-- Rounds -----------------------------------------------------------------------------------------

-- The ratio's line, or a dash where nothing was measured.
local function row(...) print("| " .. table.concat({ ... }, " | ") .. " |") end

local function round(depth, operations, backwards, series)
  local before, results = c_loop(depth, operations), {}
  local from, to, step = 1, #all, 1
  if backwards then from, to, step = to, from, -1 end
  for i = from, to, step do results[i] = all[i].run(depth, operations) end
  local after = c_loop(depth, operations)
  if backwards then before, after = after, before end
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
    add(all[i].name, result, c)
    for k = #ours + 1, #all do
      if i <= #ours then add(all[i].name .. " of " .. all[k].name, result, results[k]) end
    end
  end
end

-- The rows of a depth, and those of ours against each rival, which come in a table of their own.
local function compare(depth, against)
  local series = { rates = {}, costs = {} }
  local guess = c_loop(depth, 2000 * depth) -- the discarded runs
  local operations = math.max(depth * 10, math.floor(guess.rate * seconds))
  for _, who in ipairs(all) do who.run(depth, operations) end
  for i = 1, rounds do
    io.stderr:write(("reads, depth %d, round %d of %d\n"):format(depth, i, rounds))
    round(depth, operations, i % 2 == 0, series)
  end
  local function line(name)
    return name, spread.text(series[name].rate), spread.text(series[name].cost)
  end
  row(depth, ("C loop again: %.0f IOPS, %.2f us CPU"):format(spread.median(series.rates),
    spread.median(series.costs)), select(2, line("C loop again")))
  for _, who in ipairs(all) do row(depth, line(who.name)) end
  if depth == 1 then return end
  for _, who in ipairs(ours) do
    for _, rival in ipairs(rivals) do
      against[#against + 1] = { depth, line(who.name .. " of " .. rival.name) }
    end
  end
end

-- Ours to the C loop, and the C loop to itself.
local function latency()
  local function c_time(operations)
    return printed_time(("build/bench/loop latency %s %d"):format(quote(file), operations))
  end
  local operations = math.max(100, math.floor(c_loop(1, 2000).rate * seconds))
  local series, times = { again = {} }, {}
  for i = 1, rounds do
    io.stderr:write(("latency, round %d of %d\n"):format(i, rounds))
    local before, results = c_time(operations), {}
    for k = 1, #ours do
      local place = i % 2 == 0 and #ours + 1 - k or k
      results[place] = ours[place].latency(operations)
    end
    local after = c_time(operations)
    if i % 2 == 0 then before, after = after, before end
    times[i] = (before + after) / 2
    series.again[i] = after / before
    for k, who in ipairs(ours) do
      series[who.name] = series[who.name] or {}
      series[who.name][i] = results[k] / times[i]
    end
  end
  row(1, ("C loop again: %.1f us"):format(spread.median(times)), spread.text(series.again))
  for _, who in ipairs(ours) do row(1, who.name, spread.text(series[who.name])) end
end

print(("Random 4 KiB direct reads, %d rounds of %g s, to a bare liburing loop in C with the same"
  .. " ring flags\nand batches; CPU is that of the whole process:\n"):format(rounds, seconds))
row("depth", "", "IOPS", "CPU per read")
row("--:", "---", "---", "---")
local against = {}
for _, depth in ipairs(DEPTHS) do compare(depth, against) end
print("\nHow long one read takes when it is alone: the median, from one completion to the next.\n")
row("depth", "", "median time")
row("--:", "---", "---")
latency()

print("\nThe same rounds, of each rival. luv reads through the page cache, emptied before, as its\n"
  .. "memory is not aligned:\n")
row("depth", "", "IOPS", "CPU per read")
row("--:", "---", "---", "---")
for _, line in ipairs(against) do row((table.unpack or unpack)(line)) end
