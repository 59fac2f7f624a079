-- run.lua FILE ROUNDS SECONDS NAME=INTERPRETER=MODULE_DIRECTORY...: the measurements of run.sh.
--
-- A round runs the C loop, every Lua, and the C loop again; every other round backwards. A ratio
-- is that of a Lua to the mean of the two C runs around it; the control is the one C run to the
-- other. Nothing of start-up is inside the measured time.
local file, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local DEPTHS = { 1, 32, 128 }
local COUNT_DEPTH, COUNT_OPERATIONS = 64, 64 * 600

local contestants = {}
for i = 4, #arg do
  local name, interpreter, modules = arg[i]:match("^(.-)=(.-)=(.*)$")
  contestants[#contestants + 1] = { name = name, interpreter = interpreter, modules = modules }
end

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

local function capture(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

local function numbers(output, command)
  local list = {}
  for number in output:gmatch("%S+") do list[#list + 1] = tonumber(number) end
  if #list < 4 then error("bench: no figures from: " .. command .. "\n" .. output) end
  return { operations = list[1], seconds = list[2], cpu = list[3], entries = list[4],
    bytes = list[5], rate = list[1] / list[2], cost = list[3] / list[1] * 1e6 }
end

local function run_c(depth, operations)
  local command = string.format("build/bench/loop read %s %d %d", quote(file), depth, operations)
  return numbers(capture(command), command)
end

local function lua_command(who, depth, operations, preload)
  return string.format("env LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH=%s %s %s " ..
    "spec/bench/reads.lua %s %d %d", quote(who.modules .. "/?.so"), preload or "",
    quote(who.interpreter), quote(file), depth, operations)
end

local function run_lua(who, depth, operations)
  local command = lua_command(who, depth, operations)
  return numbers(capture(command), command)
end

-- Median and quartiles, by linear interpolation.
local function quantile(list, q)
  local sorted = {}
  for i, value in ipairs(list) do sorted[i] = value end
  table.sort(sorted)
  local at = 1 + q * (#sorted - 1)
  local low = math.floor(at)
  local high = math.min(low + 1, #sorted)
  return sorted[low] + (sorted[high] - sorted[low]) * (at - low)
end

local function spread(list)
  return string.format("%.3f [%.3f, %.3f]", quantile(list, 0.5), quantile(list, 0.25),
    quantile(list, 0.75))
end

local function row(...) print("| " .. table.concat({ ... }, " | ") .. " |") end

local function note(text)
  io.stderr:write(text, "\n")
end

local function round(depth, operations, backwards, series)
  local before = run_c(depth, operations)
  local results = {}
  local from, to, step = 1, #contestants, 1
  if backwards then from, to, step = to, from, -1 end
  for i = from, to, step do results[i] = run_lua(contestants[i], depth, operations) end
  local after = run_c(depth, operations)
  local a, b = before, after
  if backwards then a, b = b, a end
  local rate, cost = (a.rate + b.rate) / 2, (a.cost + b.cost) / 2
  table.insert(series.rate, rate)
  table.insert(series.cost, cost)
  table.insert(series.control_rate, b.rate / a.rate)
  table.insert(series.control_cost, b.cost / a.cost)
  for i, result in ipairs(results) do
    table.insert(series[i].rate, result.rate / rate)
    table.insert(series[i].cost, result.cost / cost)
    table.insert(series[i].added, (result.cost - cost) * 1000)
  end
end

local function compare(depth)
  local series = { rate = {}, cost = {}, control_rate = {}, control_cost = {} }
  for i = 1, #contestants do series[i] = { rate = {}, cost = {}, added = {} } end
  local guess = run_c(depth, 2000 * depth) -- the discarded runs
  local operations = math.max(depth * 10, math.floor(guess.rate * seconds))
  for _, who in ipairs(contestants) do run_lua(who, depth, operations) end
  for i = 1, rounds do
    note(string.format("depth %d, round %d of %d", depth, i, rounds))
    round(depth, operations, i % 2 == 0, series)
  end
  row(depth, "C loop again", spread(series.control_rate), spread(series.control_cost),
    string.format("%.0f IOPS, %.2f us CPU", quantile(series.rate, 0.5),
      quantile(series.cost, 0.5)))
  for i, who in ipairs(contestants) do
    row(depth, who.name, spread(series[i].rate), spread(series[i].cost),
      string.format("%+.0f ns CPU", quantile(series[i].added, 0.5)))
  end
end

-- Two lengths; what start and end need is in both and falls out.
local function per_operation(who)
  local function measure(operations)
    local result = run_lua(who, COUNT_DEPTH, operations)
    local preload = "LD_PRELOAD=" .. quote("build/bench/count_alloc.so")
    local output = capture(lua_command(who, COUNT_DEPTH, operations, preload) .. " 2>&1")
    result.allocations = tonumber(output:match("ALLOCATIONS (%d+)"))
    return result
  end
  local short, long = measure(COUNT_OPERATIONS), measure(2 * COUNT_OPERATIONS)
  local n = long.operations - short.operations
  local entries = (long.entries - short.entries) / n
  row(who.name, string.format("%.4f (1/%.1f)", entries, 1 / entries),
    string.format("%.4f", (long.allocations - short.allocations) / n),
    string.format("%.4f", (long.bytes - short.bytes) / n))
end

print(string.format([[
Random 4 KiB direct reads, %d rounds of %g s for each line and depth: ratio to a bare liburing loop
in C with the same flags and batches, median [quartiles]. CPU is that of the whole process. The line
"C loop again" compares the loop with itself: what it is away from 1 is noise.
]], rounds, seconds))
row("depth", "", "IOPS", "CPU per read", "")
row("--:", "---", "---", "---", "---")
for _, depth in ipairs(DEPTHS) do compare(depth) end

print(string.format("\nPer read at depth %d:\n", COUNT_DEPTH))
row("", "io_uring_enter calls", "C allocations", "Lua bytes")
row("---", "---", "---", "---")
for _, who in ipairs(contestants) do per_operation(who) end
local c = run_c(COUNT_DEPTH, COUNT_OPERATIONS)
row("C loop", string.format("%.4f (1/%.1f)", c.entries / c.operations, c.operations / c.entries),
  "0", "-")
