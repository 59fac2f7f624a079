-- counted.lua SCENARIO DIRECTORY OPERATIONS: does that many operations of one kind and prints
-- operations, kernel entries, and the bytes that the Lua heap grew by, the collector being stopped.
-- counts.lua runs each at two lengths; what start and end cost falls out.
--
-- Only reads and durable writes of the ring are waited for inside the kernel. All else is polled:
-- valgrind runs one thread at a time and does not know that io_uring_enter waits for another.

local core = require("jdbfs.core")
local jdbfs = require("jdbfs")

local scenario, dir, operations = arg[1], arg[2], tonumber(arg[3])
local PAGE, PAGES = 4096, 256

local function polled(f, ...)
  local task = jdbfs.spawn(f, ...)
  repeat jdbfs.step(0) until task:status() == "done" or task:status() == "failed"
  return assert(task:join())
end

polled(jdbfs.mkdir, dir) -- where the disk is a simulated one

local function open_pages()
  return polled(function()
    local file = assert(jdbfs.create(dir .. "/pages"))
    local page = jdbfs.buffer(PAGES * PAGE)
    assert(file:write_at(page, 0))
    assert(file:sync_data())
    return file
  end)
end

local function reader(file, times, random)
  local buffer = jdbfs.buffer(PAGE)
  return function()
    for _ = 1, times do
      random = random * 16807 % 2147483647 -- below 2^46: exact in a double
      assert(file:read_at(buffer, random % PAGES * PAGE))
    end
  end
end

local function writer(file, times, page)
  local buffer = jdbfs.buffer(PAGE)
  return function()
    for _ = 1, times do assert(file:write_at(buffer, page * PAGE)) end
  end
end

local function list_reader(file, times, length, random)
  local buffer, list = jdbfs.buffer(length * PAGE), {}
  for i = 1, length do list[i] = { buffer, 0, (i - 1) * PAGE, PAGE } end
  return function()
    for _ = 1, times do
      for i = 1, length do
        random = random * 16807 % 2147483647
        list[i][2] = random % PAGES * PAGE
      end
      assert(file:read_many(list))
    end
  end
end

local function readers(depth)
  local file, list = open_pages(), {}
  for i = 1, depth do list[i] = reader(file, operations / depth, i * 7919) end
  return list
end

local function nothing() end

local function spawn_join()
  return { function()
    for _ = 1, operations do jdbfs.spawn(nothing):join() end
  end }
end

-- The collector runs in these: what is made has to be collected, too.
local COLLECTS = { parked = true, spawned = true, created = true }

-- Each gives a list of functions, one for each task; bytes(): the heap is looked at inside.
local SCENARIOS = {
  read_1 = function() return readers(1) end,
  read_64 = function() return readers(64) end,
  write_64 = function()
    local file, list = open_pages(), {}
    for i = 1, 64 do list[i] = writer(file, operations / 64, i) end
    return list
  end,
  -- As `jdbfs run` measures them: the difference to read_64 is what that costs.
  recorded_64 = function()
    local meter, list = core.meter(), readers(64)
    for i, read in ipairs(list) do
      list[i] = function()
        core.measure(meter)
        return read()
      end
    end
    return list
  end,
  read_many_8 = function()
    return { list_reader(open_pages(), operations / 8, 8, 7919) }
  end,
  append_8 = function()
    local log = polled(function() return assert(jdbfs.log(dir .. "/log")) end)
    local record, list = ("r"):rep(512), {}
    for i = 1, 8 do
      list[i] = function()
        for _ = 1, operations / 8 do assert(log:append(record)) end
      end
    end
    return list
  end,
  spawn_join = spawn_join,
  spawned = spawn_join,
  created = function()
    local create, resume = coroutine.create, coroutine.resume
    return { function()
      for _ = 1, operations do resume(create(nothing)) end
    end }
  end,
  -- Tasks that wait for an event; the heap is looked at while they do.
  parked = function()
    local event = jdbfs.event()
    local list = {}
    local function wait() event:wait() end
    for i = 1, operations do list[i] = wait end
    list[operations + 1] = function()
      jdbfs.yield()
      collectgarbage()
      list.bytes = collectgarbage("count")
      event:set()
    end
    return list
  end,
}

local list = SCENARIOS[scenario]()
collectgarbage()
collectgarbage(COLLECTS[scenario] and "restart" or "stop")
local entries, bytes, tasks = jdbfs.stats().entries, collectgarbage("count"), {}
jdbfs.run(function()
  if scenario ~= "parked" then
    for i = 1, #list do tasks[i] = list[i] end -- room for as many
  end
  for i = 1, #list do tasks[i] = jdbfs.spawn(list[i]) end
  for i = 1, #list do tasks[i]:join() end
end)
bytes = (list.bytes or collectgarbage("count")) - bytes
entries = jdbfs.stats().entries - entries
print(string.format("%d %d %.0f", operations, entries, bytes * 1024))
os.exit(0, false) -- nothing is closed: the last entries of a ring are not what is counted
