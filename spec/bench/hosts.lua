-- What an operation costs in a host: hosts.lua HOST DIRECTORY [idle]; in nginx the same arguments
-- to the loaded chunk. Prints one line for each way to read and number of light threads: wall and
-- CPU time and wakes per 4 KiB read. With "idle" it reads a little, says so, and waits.

local host, dir, idle, print = ...
print = print or _G.print -- luacheck: ignore 113
local jdbfs = require "jdbfs"
local PAGE, PAGES, READS = 4096, 4096, tonumber(os.getenv("READS") or "") or 20000

local adapter = assert(require("jdbfs.host." .. host)())
local wakes = 0
local watch = adapter.watch
adapter.watch = function(fd, on_ready, needed)
  return watch(fd, function()
    wakes = wakes + 1
    on_ready()
  end, needed)
end
assert(jdbfs.host(adapter))

-- ---- hosts --------------------------------------------------------------------------------------

-- go(f): a light thread; loop(): runs them until finish(); sleep(s): the host's own; rivals: how
-- the host reads by its own means, from the page cache: a list of {name, open(path)}; open gives
-- read(page).
local hosts = {}

function hosts.luv()
  local uv = require "luv"
  local function sleep(s)
    local co, timer = coroutine.running(), uv.new_timer()
    timer:start(s * 1000, 0, function() coroutine.resume(co) end)
    coroutine.yield()
  end
  local function open(path)
    local fd = assert(uv.fs_open(path, "r", 384))
    return function(page)
      local co = coroutine.running()
      uv.fs_read(fd, PAGE, page * PAGE, function() assert(coroutine.resume(co)) end)
      coroutine.yield()
    end
  end
  return {
    go = function(f) coroutine.wrap(f)() end, loop = uv.run, finish = uv.stop, sleep = sleep,
    rivals = { { "uv.fs_read", open } },
  }
end

function hosts.cqueues()
  local cqueues = require "cqueues"
  local cq = cqueues.new()
  return {
    go = function(f) cq:wrap(f) end, loop = function() assert(cq:loop()) end,
    finish = function() end, sleep = cqueues.sleep, rivals = {},
  }
end

function hosts.copas()
  local copas = require "copas"
  local over = false
  -- Copas 1.x has no timers: idle is one long step.
  return {
    go = function(f) copas.addthread(function() f() end) end,
    loop = function() while not over do copas.step(60) end end,
    finish = function() over = true end,
    sleep = function() coroutine.yield({}, { insert = function() end, push = function() end }) end,
    rivals = {},
  }
end

function hosts.tarantool()
  local fiber = require "fiber"
  local over = fiber.channel(1)
  local function open(path)
    local f = assert(require("fio").open(path, { "O_RDONLY" }))
    return function(page) assert(#f:pread(PAGE, page * PAGE) == PAGE) end
  end
  return {
    go = fiber.create, loop = function() over:get() os.exit(0) end,
    finish = function() over:put(true) end, sleep = fiber.sleep,
    rivals = { { "fio.pread", open } },
  }
end

-- In a content handler.
function hosts.ngx()
  local ngx = rawget(_G, "ngx")
  local over = require("ngx.semaphore").new(0)
  local function open_blocking(path)
    local f = assert(io.open(path, "rb"))
    f:setvbuf("no")
    return function(page)
      f:seek("set", page * PAGE)
      assert(#f:read(PAGE) == PAGE)
    end
  end
  local function open_thread(path)
    return function(page)
      assert(select(2, ngx.run_worker_thread("bench", "thread_read", "read", path, page * PAGE,
        PAGE)) == PAGE)
    end
  end
  return {
    go = ngx.thread.spawn, loop = function() assert(over:wait(600)) end,
    finish = function() over:post(1) end, sleep = ngx.sleep,
    rivals = {
      { "io.open, blocks", open_blocking },
      { "run_worker_thread", open_thread, READS / 20 },
    },
  }
end

-- ---- measuring ----------------------------------------------------------------------------------

local h = hosts[host]()

local function measure(name, threads, make_read, most, done)
  local left, reads = threads, 0
  local wall, cpu, woken = jdbfs.now(), os.clock(), wakes
  local function over()
    wall, cpu, woken = jdbfs.now() - wall, os.clock() - cpu, wakes - woken
    print(("%-10s %-24s %3d %9.1f %9.1f %7.2f"):format(host, name, threads, wall / reads * 1e6,
      cpu / reads * 1e6, woken / reads))
    done()
  end
  for i = 1, threads do
    h.go(function()
      local read, page = make_read(), i * 997
      while reads < most do
        reads = reads + 1
        page = (page * 1103 + 12345) % PAGES
        read(page)
      end
      left = left - 1
      if left == 0 then over() end
    end)
  end
end

local function reader(path, direct)
  local f = assert(jdbfs.open(path, { direct = direct }))
  return function()
    local own = jdbfs.buffer(PAGE)
    return function(page) assert(f:read_at(own, page * PAGE) == PAGE) end
  end
end

local function all(path)
  local list = {
    { "jdbfs, direct", reader(path, "prefer") }, { "jdbfs, cached", reader(path, "off") },
  }
  for _, rival in ipairs(h.rivals) do
    local read = rival[2](path)
    list[#list + 1] = { rival[1] .. ", cached", function() return read end, rival[3] }
  end
  local function go_on(i)
    local entry = list[math.floor((i + 1) / 2)]
    if not entry then return h.finish() end
    measure(entry[1], i % 2 == 1 and 1 or 32, entry[2], entry[3] or READS, function()
      return go_on(i + 1)
    end)
  end
  go_on(1)
end

h.go(function()
  local path = dir .. "/" .. host
  local f = assert(jdbfs.create(path, { direct = "prefer" }))
  local b = jdbfs.buffer(256 * PAGE)
  for i = 0, PAGES / 256 - 1 do assert(f:write_at(b, i * 256 * PAGE)) end
  assert(f:sync_all())
  assert(f:close())
  if not idle then return all(path) end

  local read = reader(path, "prefer")()
  for page = 1, 100 do read(page) end
  print("idle")
  io.stdout:flush()
  h.sleep(60)
  h.finish()
end)
h.loop()
