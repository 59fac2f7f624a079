-- counts.lua FILE COMPILER MODULES NAME INTERPRETER [--record] [SCENARIO...]: counts what one
-- operation costs in one Lua, and compares with the record in FILE, or renews it. Prints a line for
-- each count, then "N passed, N failed, N skipped". Scenarios and what they do: counted.lua.
--
-- Each figure is that of a long run less that of a short one. Instructions are user instructions
-- inside jdbfs.run by callgrind. What seems to have grown is counted twice more, and the least
-- counts, as hash seeds, batches and what LuaJIT compiles vary.

package.path = "spec/bench/?.lua;" .. package.path
local record = require("record")
local shell = require("shell")

local file, compiler, modules, name, interpreter = arg[1], arg[2], arg[3], arg[4], arg[5]
local renewing, only = false, {}
for i = 6, #arg do
  if arg[i] == "--record" then renewing = true
  else only[#only + 1], only[arg[i]] = arg[i], true end
end

local ATTEMPTS = 3
local SHORT = { lua = 640, jit = 1920 } -- the compiler of LuaJIT needs some time
local ENTRIES_64 = 1 / 16 -- kernel entries at depth 64: how completions gather is a matter of time

-- What is counted, and a limit that stands for the record where time has a say.
local SCENARIOS = {
  { "read_1", entries = true, calls = true, allocations = true, lua_bytes = true,
    instructions = true },
  { "read_64", entries = ENTRIES_64, calls = ENTRIES_64, allocations = true, lua_bytes = true,
    instructions = true },
  { "write_64", allocations = true, lua_bytes = true, instructions = true },
  { "recorded_64", allocations = true, lua_bytes = true, instructions = true },
  { "read_many_8", entries = true, calls = true, allocations = true, lua_bytes = true,
    instructions = true },
  -- Few on a real disk, which flushes each group; instructions on the simulated one, where groups
  -- gather always alike.
  { "append_8", allocations = true, lua_bytes = true, instructions = true, short = 320,
    backend = "sim" },
  { "spawn_join", allocations = true, lua_bytes = true, instructions = true },
  { "parked", lua_bytes = true },
}
-- Instructions of one scenario, at most so many times those of another.
local RATIOS = { { "spawned", of = "created", at_most = 2, times = 20000 } }
local COUNTS = { "entries", "calls", "allocations", "lua_bytes", "instructions" }

local quote, capture = shell.quote, shell.capture

local dir = capture("mkdir -p build/bench && mktemp -d build/bench/counts-XXXXXX"):match("%S+")
local release = capture(quote(interpreter) .. " -v 2>&1"):match("^(%S+ [^%s,]+)"):gsub("%s", "-")
local WHERE = { lua_bytes = compiler:match("[^/]*$") .. "/" .. release,
  instructions = compiler .. "/" .. release }
local has_valgrind = capture("command -v valgrind") ~= ""
local has_strace = capture("strace -qq -o /dev/null true 2>&1 && echo yes") == "yes\n"

-- Runs a scenario with something before the interpreter; all that it printed.
local function run(before, scenario, operations)
  local output = capture(("rm -rf %s/*; env LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH=%s "
    .. "%s %s spec/bench/counted.lua %s %s %d 2>&1"):format(dir, quote(modules .. "/?.so"), before,
    quote(interpreter), scenario, dir, operations))
  return output
end

local function plain(scenario, operations)
  local output = run("LD_PRELOAD=build/bench/count_alloc.so", scenario, operations)
  local done, entries, bytes = output:match("(%d+) (%d+) (%-?%d+)\n")
  if not done then error("counts: no figures from " .. scenario .. "\n" .. output, 0) end
  return { entries = tonumber(entries), lua_bytes = tonumber(bytes),
    allocations = tonumber(output:match("ALLOCATIONS (%d+)")) }
end

-- System calls of the thread that runs Lua: one that enters the ring is one of them.
local function calls(scenario, operations)
  local list, n = dir .. ".calls", 0
  local output = run("strace -c -o " .. list, scenario, operations)
  for line in io.lines(list) do
    local count, call = line:match("^%s*[%d.]+%s+[%d.]+%s+%d+%s+(%d+)%s+%d*%s*([%w_]+)%s*$")
    if count and call ~= "total" then n = n + tonumber(count) end
  end
  os.remove(list)
  if n < 50 then error("counts: strace did not count " .. scenario .. "\n" .. output, 0) end
  return n
end

-- valgrind waits in the kernel where it cannot be asked to stop: it is killed when it takes long.
local function instructions(scenario, operations, backend)
  local output = run(("JDBFS_BACKEND=%s timeout -s KILL 100 valgrind --tool=callgrind"
    .. " --toggle-collect=task_run --callgrind-out-file=/dev/null"):format(backend or "io_uring"),
    scenario, operations)
  local count = tonumber(output:match("Collected : (%d+)"))
  if not count then error("counts: callgrind did not count " .. scenario .. "\n" .. output, 0) end
  return count
end

-- What one operation costs: { entries =, allocations =, ... }, as far as it is counted.
local function measure(scenario)
  local short = SHORT[name:find("jit") and "jit" or "lua"]
  local n, few = 2 * short, scenario.short or short
  local function plain_costs()
    local a, b = plain(scenario[1], few), plain(scenario[1], 3 * few)
    local of = {}
    for _, count in ipairs(COUNTS) do
      if a[count] and b[count] then of[count] = (b[count] - a[count]) / (2 * few) end
    end
    return of
  end
  local first, costs = plain_costs(), {}
  for _, count in ipairs(COUNTS) do
    if scenario[count] and first[count] then
      local known = first[count]
      costs[count] = function()
        local cost = known or plain_costs()[count]
        known = nil
        return cost
      end
    end
  end
  if scenario.calls and has_strace then
    costs.calls = function()
      return (calls(scenario[1], 3 * n) - calls(scenario[1], n)) / (2 * n)
    end
  end
  if scenario.instructions and has_valgrind then
    costs.instructions = function()
      return (instructions(scenario[1], short + n, scenario.backend)
        - instructions(scenario[1], short, scenario.backend)) / n
    end
  end
  return costs
end

local function read_record()
  local stream = io.open(file, "r")
  if not stream then return {} end
  local text = stream:read("*a")
  stream:close()
  return record.parse(text)
end

local list, tally = read_record(), { ok = 0, FAIL = 0, skip = 0 }

local function say(verdict, text)
  tally[verdict] = tally[verdict] + 1
  print(("%-4s %s"):format(verdict, text))
end

-- The least of some attempts: as long as it seems to have grown.
local function settle(entry, count)
  entry.value = count()
  for _ = 2, renewing and 1 or ATTEMPTS do
    local recorded = record.find(list, entry)
    if not recorded or not record.has_grown(entry.value, recorded) then return end
    entry.value = math.min(entry.value, count())
  end
end

local function compare(scenario, count, cost)
  local entry = { lua = name, scenario = scenario[1], count = count,
    where = WHERE[count] or "any" }
  local id = ("%s %s %s"):format(name, scenario[1], count)
  if scenario[count] and cost == nil then
    say("skip", id .. ": valgrind, strace or the counter of allocations is not there")
  elseif type(scenario[count]) == "number" then
    local value = cost()
    local fits = value <= scenario[count]
    say(fits and "ok" or "FAIL", ("%s: %.4f, at most %.4f"):format(id, value, scenario[count]))
  elseif scenario[count] then
    settle(entry, cost)
    if entry.value < 0 then entry.value = 0 end
    if renewing then record.renew(list, entry) end
    say(record.judge(list, entry))
  end
end

local function compare_with(ratio)
  local title = ("%s %s of %s"):format(name, ratio[1], ratio.of)
  if not has_valgrind then return say("skip", title .. ": valgrind is not there") end
  local function cost(scenario)
    return instructions(scenario, 2 * ratio.times) - instructions(scenario, ratio.times)
  end
  local least = math.huge
  for _ = 1, ATTEMPTS do
    if least > ratio.at_most then least = math.min(least, cost(ratio[1]) / cost(ratio.of)) end
  end
  say(least <= ratio.at_most and "ok" or "FAIL",
    ("%s: %.2f, at most %g"):format(title, least, ratio.at_most))
end

local done, failure = pcall(function()
  for _, scenario in ipairs(SCENARIOS) do
    if #only == 0 or only[scenario[1]] then
      local costs = measure(scenario)
      for _, count in ipairs(COUNTS) do compare(scenario, count, costs[count]) end
    end
  end
  for _, ratio in ipairs(RATIOS) do
    if #only == 0 or only[ratio[1]] then compare_with(ratio) end
  end
end)
capture("rm -rf " .. dir)
if not done then
  say("FAIL", tostring(failure))
elseif renewing then
  local stream = assert(io.open(file, "w"))
  stream:write(record.format(list))
  stream:close()
end
print(("%d passed, %d failed, %d skipped"):format(tally.ok, tally.FAIL, tally.skip))
os.exit(tally.FAIL == 0 and 0 or 1)
