-- contestants.lua: who the benches of reads run, what a run prints, and in which order they run.

local shell = require("shell")

local M = {}
local quote, capture = shell.quote, shell.capture

-- What was measured, as rate and CPU time of the process per operation, in us.
function M.figures(operations, took, cpu)
  return { rate = operations / took, cost = cpu / operations * 1e6 }
end

function M.printed(command)
  local output = capture(command)
  local operations, took, cpu = output:match("(%d+) ([%d.]+) ([%d.]+)")
  if not operations then error("bench: no figures from: " .. command .. "\n" .. output, 0) end
  return M.figures(tonumber(operations), tonumber(took), tonumber(cpu))
end

-- The median time of one read that is alone, in us.
function M.printed_time(command)
  local output = capture(command)
  local time = output:match("^%d+ [%d.]+ ([%d.]+)%s*$")
  return tonumber(time) or error("bench: no time from: " .. command .. "\n" .. output, 0)
end

-- The C loop; how: words of loop.c. `what` is "read" or, of one at a time, "latency".
function M.loop(file, depth, operations, how)
  return ("build/bench/loop read %s %d %d %s"):format(quote(file), depth, operations, how or "")
end

-- Ours, of words NAME=INTERPRETER=MODULES: their names, and the command for reads.lua.
function M.ours(words, first)
  local list = {}
  for i = first, #words do
    local name, interpreter, modules = words[i]:match("^(.-)=(.-)=(.*)$")
    local function command(script, args)
      return ("env LUA_PATH='lua/?.lua;lua/?/init.lua' LUA_CPATH=%s %s spec/bench/%s %s"):format(
        quote(modules .. "/?.so;build/bench/" .. name .. "/?.so"), quote(interpreter), script, args)
    end
    list[#list + 1] = {
      name = name,
      interpreter = interpreter,
      command = command,
      reads = function(file, depth, operations, how)
        return command("reads.lua", ("%s %d %d %s"):format(quote(file), depth, operations,
          how or ""))
      end,
      -- The C loop with a bare coroutine for each read, or record: what bare.lua takes.
      bare = function(how, path, count, limit, word)
        return command("bare.lua", ("%s %s %d %s %s"):format(how, quote(path), count, limit,
          word or ""))
      end,
    }
  end
  return list
end

-- A round runs the rival, everybody of the list, and the rival again; every other round backwards.
-- each(before, results, after): what they gave, in the order of a round forwards.
function M.alternate(title, rounds, rival, list, each)
  for i = 1, rounds do
    io.stderr:write(("%s, round %d of %d\n"):format(title, i, rounds))
    local backwards, results = i % 2 == 0, {}
    local before = rival()
    for k = 1, #list do
      local place = backwards and #list + 1 - k or k
      results[place] = list[place]()
    end
    local after = rival()
    if backwards then before, after = after, before end
    each(before, results, after)
  end
end

-- A line of a table of the README.
function M.row(...) print("| " .. table.concat({ ... }, " | ") .. " |") end

return M
