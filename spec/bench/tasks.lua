-- tasks.lua WHAT [N]: what a task costs, in counts that do not depend on the machine's mood.
--
--   heap   Lua bytes of a task that waits, of a bare coroutine that waits, and their ratio
--   event  the same of a task that waits for an event
--   spawn, create, wait, yield   N times one of these and nothing else, to be counted from outside
--          (callgrind, with N and 2 N: the difference over N is the cost of one):
--          spawn: jdbfs.spawn and join, in batches of 32; create: coroutine.create and resume, in
--          batches of 32; wait: a turn of the loop; yield: a turn by coroutine.yield and resume
local jdbfs = require "jdbfs"

local what, n = arg[1] or "heap", tonumber(arg[2] or 20000)
local BATCH = 32
local create, resume, yield = coroutine.create, coroutine.resume, coroutine.yield

local function heap()
  collectgarbage()
  collectgarbage()
  return collectgarbage("count") * 1024
end

local function nothing() end

local measures = {}

local function heap_of(wait)
  local function pause() yield() end
  local kept = {}
  for i = 1, n do kept[i] = false end
  local before = heap()
  for i = 1, n do
    kept[i] = create(pause)
    resume(kept[i])
  end
  local bare = (heap() - before) / n
  for i = 1, n do kept[i] = false end
  local task
  local stop = {}
  local ok, message = pcall(jdbfs.run, function()
    local empty = heap()
    for _ = 1, n do jdbfs.spawn(wait) end
    jdbfs.yield()
    jdbfs.yield()
    task = (heap() - empty) / n
    error(stop)
  end)
  if ok or message ~= stop then error(message, 0) end
  print(("%.0f %.0f %.3f"):format(task, bare, task / bare))
end

function measures.heap()
  heap_of(function() jdbfs.sleep(1e6) end)
end

function measures.event()
  local event = jdbfs.event()
  heap_of(function() event:wait() end)
end

function measures.spawn()
  local spawn = jdbfs.spawn
  jdbfs.run(function()
    local tasks = {}
    for _ = 1, n / BATCH do
      for i = 1, BATCH do tasks[i] = spawn(nothing) end
      for i = 1, BATCH do tasks[i]:join() end
    end
  end)
end

function measures.create()
  local coroutines = {}
  for _ = 1, n / BATCH do
    for i = 1, BATCH do coroutines[i] = create(nothing) end
    for i = 1, BATCH do resume(coroutines[i]) end
  end
end

function measures.wait()
  local give_way = jdbfs.yield
  jdbfs.run(function()
    for _ = 1, BATCH do
      jdbfs.spawn(function()
        for _ = 1, n / BATCH do give_way() end
      end)
    end
  end)
end

function measures.yield()
  local coroutines = {}
  for i = 1, BATCH do
    coroutines[i] = create(function()
      for _ = 1, n / BATCH do yield() end
    end)
  end
  for _ = 1, n / BATCH do
    for i = 1, BATCH do resume(coroutines[i]) end
  end
end

measures[what]()
