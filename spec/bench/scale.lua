-- scale.lua FILE ROUNDS SECONDS STATES INTERPRETER MODULES: how random reads scale: by one and by
-- two processes, each with a queue of its own, and by two Lua states in threads of one process.
--
-- Next to each stand as many C loops in processes. A ratio is that of all their reads together; one
-- to two is what the device and the machine give, the C loops tell how much that is. STATES: the
-- module spec/c/helper/states.c for that Lua, or "-".

package.path = "spec/bench/?.lua;lua/?.lua;" .. package.path
local shell = require("shell")
local spread = require("spread")
local quote = shell.quote

local file, rounds, seconds, states, interpreter, modules = arg[1], tonumber(arg[2]),
  tonumber(arg[3]), arg[4], arg[5], arg[6]
local DEPTH = 32

-- All lines "operations seconds ..." together, as reads per second.
local function rate(command)
  local output, sum = shell.capture(command), 0
  for operations, took in output:gmatch("(%d+) ([%d.]+) [^\n]+") do
    sum = sum + tonumber(operations) / tonumber(took)
  end
  if sum == 0 then error("bench: no figures from: " .. command .. "\n" .. output, 0) end
  return sum
end

local function processes(count, command) return (command .. " & "):rep(count) .. "wait" end

local function c_loops(count, operations)
  return rate(processes(count, ("build/bench/loop read %s %d %d"):format(quote(file), DEPTH,
    operations)))
end

local in_tree = ("LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH=%s %s "):format(
  quote(modules .. "/?.so"), quote(interpreter))

local function in_processes(count)
  return function(operations)
    return rate(processes(count, ("%s spec/bench/reads.lua %s %d %d"):format(in_tree, quote(file),
      DEPTH, operations)))
  end
end

local function in_threads(count)
  local source = ([[local source = ("arg = { %%q, %d, OPERATIONS } dofile 'spec/bench/reads.lua'")
    assert(package.loadlib(%q, "luaopen_states"))().each(%d, source:format(%q))]]):format(DEPTH,
    states, count, file)
  return function(operations)
    return rate(in_tree .. "-e " .. quote((source:gsub("OPERATIONS", ("%d"):format(operations)))))
  end
end

local rows = {
  { name = "1 process", count = 1, run = in_processes(1) },
  { name = "2 processes", count = 2, run = in_processes(2) },
}
if states ~= "-" then
  rows[#rows + 1] = { name = "2 threads with a Lua state each", count = 2, run = in_threads(2) }
end

local operations = math.max(1000, math.floor(c_loops(1, 20000) * seconds))
local series, scaling, again = {}, { loop = {} }, { {}, {} }
for i = 1, rounds do
  io.stderr:write(("scale, round %d of %d\n"):format(i, rounds))
  local loops, rates = {}, {}
  for count = 1, 2 do loops[count] = c_loops(count, operations) end
  for k, who in ipairs(rows) do rates[k] = who.run(operations) end
  for count = 1, 2 do
    local after = c_loops(count, operations)
    again[count][i] = after / loops[count]
    loops[count] = (loops[count] + after) / 2
  end
  scaling.loop[i] = loops[2] / loops[1]
  for k, who in ipairs(rows) do
    series[k], scaling[k] = series[k] or {}, scaling[k] or {}
    series[k][i] = rates[k] / loops[who.count]
    scaling[k][i] = rates[k] / rates[1]
  end
end

print(("How 4 KiB reads at depth %d each scale, %d rounds of %g s; IOPS of all together:\n"):format(
  DEPTH, rounds, seconds))
print("|  | of as many C loops | of one of its kind |")
print("| --- | --- | --- |")
print(("| 1 C loop, again | %s | |"):format(spread.text(again[1])))
print(("| 2 C loops, again | %s | %s |"):format(spread.text(again[2]), spread.text(scaling.loop)))
for k, who in ipairs(rows) do
  print(("| %s | %s | %s |"):format(who.name, spread.text(series[k]),
    k > 1 and spread.text(scaling[k]) or ""))
end
