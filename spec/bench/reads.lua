-- Random 4 KiB reads by DEPTH coroutines, as a program would write them: reads.lua FILE DEPTH
-- OPERATIONS. Prints: operations seconds cpu-seconds kernel-entries lua-bytes, the last one being
-- what the Lua heap grew by, with the collector stopped. reads.lua FILE 1 OPERATIONS latency:
-- operations seconds, and the median of the times from one completion to the next, in us.
-- reads.lua FILE DEPTH OPERATIONS cached: through the page cache; lists: the same by one task that
-- reads lists of DEPTH.
local jdbfs = require("jdbfs")

local path, depth, operations = arg[1], tonumber(arg[2]), tonumber(arg[3])
local PAGE = 4096
local each = math.floor(operations / depth)

local function timed_reader(file, buffer, random, pages)
  local laps, now = {}, jdbfs.now
  for i = 1, each do laps[i] = 0 end
  local before = now()
  local start = before
  for i = 1, each do
    random = random * 16807 % 2147483647
    assert(file:read_at(buffer, random % pages * PAGE))
    local time = now()
    laps[i] = time - before
    before = time
  end
  table.sort(laps)
  print(string.format("%d %.6f %.3f", each, before - start, laps[math.floor(each / 2) + 1] * 1e6))
end

local function reader(file, buffer, seed, pages)
  local random = seed
  for _ = 1, each do
    random = random * 16807 % 2147483647 -- below 2^46: exact in a double
    assert(file:read_at(buffer, random % pages * PAGE))
  end
end

local function list_reader(file, buffers, pages)
  local random, list = 1, {}
  for i = 1, depth do list[i] = { buffers[i], 0 } end
  for _ = 1, each do
    for i = 1, depth do
      random = random * 16807 % 2147483647
      list[i][2] = random % pages * PAGE
    end
    assert(file:read_many(list))
  end
end

local cached = arg[4] == "cached" or arg[4] == "lists"

jdbfs.run(function()
  local file = assert(jdbfs.open(path, cached and { direct = "off" } or nil))
  local pages = math.floor(file:size() / PAGE)
  local buffers, tasks = {}, {}
  for i = 1, depth do buffers[i] = assert(jdbfs.buffer(PAGE)) end
  if arg[4] == "latency" then return timed_reader(file, buffers[1], 1, pages) end
  collectgarbage()
  collectgarbage("stop")
  local entries, bytes = jdbfs.stats().entries, collectgarbage("count")
  local start, cpu = jdbfs.now(), os.clock()
  if arg[4] == "lists" then
    list_reader(file, buffers, pages)
  else
    for i = 1, depth do
      tasks[i] = jdbfs.spawn(reader, file, buffers[i], (i - 1) * 7919 + 1, pages)
    end
  end
  for i = 1, #tasks do tasks[i]:join() end
  cpu, start = os.clock() - cpu, jdbfs.now() - start
  bytes = collectgarbage("count") - bytes
  entries = jdbfs.stats().entries - entries
  print(string.format("%d %.6f %.6f %d %.0f", each * depth, start, cpu, entries, bytes * 1024))
end)
