-- durable.lua DIRECTORY [ROUNDS [SECONDS]]: lists and streams, each against a rival in the same
-- run, rounds alternating; medians of ratios with their quartiles. The streams need fio.

local jdbfs = require "jdbfs"
local json = require "jdbfs.command.json"
local spread = require "spread"

local dir, rounds, seconds = arg[1], tonumber(arg[2] or 7), tonumber(arg[3] or 1)
local PAGE, PAGES = 4096, 16384

local function run(command)
  local pipe = assert(io.popen(command))
  local out = pipe:read("*a")
  pipe:close()
  return out
end

local function show(name, list, rest)
  print(("| %s | %s | %s |"):format(name, spread.text(list), rest))
end

local function read_list(file, state)
  local list = {}
  local page = jdbfs.buffer(64 * PAGE)
  return function()
    for i = 1, 64 do
      state.x = (state.x * 16807) % 2147483647
      list[i] = { page, state.x % PAGES * PAGE, (i - 1) * PAGE, PAGE }
    end
    assert(file:read_many(list))
    return 64
  end
end

local function read_tasks(file, state)
  local page = jdbfs.buffer(64 * PAGE)
  return function()
    local tasks = {}
    for i = 1, 64 do
      state.x = (state.x * 16807) % 2147483647
      local off = state.x % PAGES * PAGE
      tasks[i] = jdbfs.spawn(function() assert(file:read_at(page, off, (i - 1) * PAGE, PAGE)) end)
    end
    for i = 1, 64 do tasks[i]:join() end
    return 64
  end
end

local function rate_of(make, file)
  local count, cpu, started = 0, os.clock(), jdbfs.now()
  jdbfs.run(function()
    local turn = make(file, { x = 4711 })
    while jdbfs.now() - started < seconds do count = count + turn() end
  end)
  return count / (jdbfs.now() - started), (os.clock() - cpu) / count * 1e6
end

local function lists()
  local path = dir .. "/pages"
  local file = assert(jdbfs.create(path))
  assert(file:preallocate(PAGES * PAGE, "zero"))
  local speed, cpu, each, again, again_cpu = {}, {}, {}, {}, {}
  for i = 1, rounds do
    local before, before_cpu = rate_of(read_tasks, file)
    local a, a_cpu = rate_of(read_list, file)
    local after, after_cpu = rate_of(read_tasks, file)
    again[i], again_cpu[i] = after / before, after_cpu / before_cpu
    speed[i], cpu[i] = 2 * a / (before + after), 2 * a_cpu / (before_cpu + after_cpu)
    each[i] = a_cpu
  end
  show("64 tasks that read: reads/s, again", again, "")
  show("64 tasks that read: CPU a read, again", again_cpu, "")
  show("read_many of 64: reads/s, of 64 tasks", speed, "")
  show("read_many of 64: CPU a read, of 64 tasks", cpu, ("%.2f us"):format(spread.median(each)))
  file:close()
  jdbfs.remove(path)
end

local MIB, TOTAL = 1024 * 1024, 256

-- MiB a second, and us of CPU a MiB, of the whole process.
local function stream(path, how, work)
  local file = assert(jdbfs[how == "write" and "open_rw" or "open"](path))
  local cpu, started = os.clock(), jdbfs.now()
  jdbfs.run(work, file)
  assert(file:close())
  return { rate = TOTAL / (jdbfs.now() - started), cost = (os.clock() - cpu) / TOTAL * 1e6 }
end

-- Through Lua strings, and in place, which is what fio does.
local STREAMS = {
  { "writer from strings", "write", function(file)
    local w, block = assert(jdbfs.writer(file)), ("s"):rep(MIB)
    for _ = 1, TOTAL do assert(w:write(block)) end
    assert(w:close())
  end },
  { "writer in place", "write", function(file)
    local w = assert(jdbfs.writer(file))
    for _ = 1, TOTAL do assert(w:advance(#assert(w:space()))) end
    assert(w:close())
  end },
  { "reader into strings", "read", function(file)
    local r = assert(jdbfs.reader(file))
    while r:read(MIB) do end
    assert(r:close())
  end },
  { "reader in place", "read", function(file)
    local r = assert(jdbfs.reader(file))
    while r:next_block() do end
    assert(r:close())
  end },
}

local function fio(path, how)
  local out = run(("fio --name=s --filename=%s --rw=%s --bs=1m --size=%dm --direct=1 --iodepth=4 "
    .. "--ioengine=io_uring --output-format=json 2>/dev/null"):format(path, how, TOTAL))
  local job = assert(json.decode((out:match("{.*")))).jobs[1]
  local seconds_of_cpu = (job.usr_cpu + job.sys_cpu) / 100 * job.job_runtime / 1000
  return { rate = job[how].bw_bytes / MIB, cost = seconds_of_cpu / TOTAL * 1e6 }
end

local function streams()
  if run("command -v fio") == "" then return print("streams: fio is not here") end
  local path = dir .. "/stream"
  local file = assert(jdbfs.create(path))
  assert(file:preallocate(TOTAL * MIB, "zero"))
  file:close()
  for _, one in ipairs(STREAMS) do
    local name, how, work = one[1], one[2], one[3]
    local again, again_cpu, speed, cpu, rates, costs = {}, {}, {}, {}, {}, {}
    for i = 1, rounds do
      local before = fio(path, how)
      local ours = stream(path, how, work)
      local after = fio(path, how)
      again[i], again_cpu[i] = after.rate / before.rate, after.cost / before.cost
      speed[i] = 2 * ours.rate / (before.rate + after.rate)
      cpu[i] = 2 * ours.cost / (before.cost + after.cost)
      rates[i], costs[i] = ours.rate, ours.cost
    end
    show("fio, 1 MiB blocks at depth 4, again", again, "")
    show("fio, 1 MiB blocks at depth 4: CPU, again", again_cpu, "")
    show(name .. ", of fio", speed, ("%.0f MiB/s"):format(spread.median(rates)))
    show(name .. ": CPU, of fio", cpu, ("%.0f us a MiB"):format(spread.median(costs)))
  end
  jdbfs.remove(path)
end

print(("Lists and streams, %s, %d rounds of %g s.\n"):format(jdbfs.info().lua, rounds, seconds))
print("| | ratio | |\n|---|---|---|")
lists()
streams()
