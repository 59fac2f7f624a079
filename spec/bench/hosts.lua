-- What an operation costs in a host: hosts.lua HOST DIRECTORY [RIVAL]. Prints one line for each
-- number of light threads: wall and CPU time and wakes per 4 KiB read. See hosts.sh.

local host, dir, rival = arg[1], arg[2], arg[3]
local jdbfs = require "jdbfs"
local PAGE, PAGES, READS = 4096, 4096, tonumber(os.getenv("READS")) or 20000

local adapter = assert(require("jdbfs.host." .. host)())
local wakes, go, loop, finish = 0, nil, nil, nil
local watch = adapter.watch
adapter.watch = function(fd, on_ready, needed)
  return watch(fd, function() wakes = wakes + 1 on_ready() end, needed)
end
assert(jdbfs.host(adapter))

if host == "luv" then
  local uv = require "luv"
  go = function(f) coroutine.wrap(f)() end
  loop, finish = uv.run, uv.stop
elseif host == "cqueues" then
  local cq = require("cqueues").new()
  go = function(f) cq:wrap(f) end
  loop, finish = function() assert(cq:loop()) end, function() end
elseif host == "copas" then
  local copas, over = require "copas", false
  go = function(f) copas.addthread(function() f() end) end
  loop, finish = function() while not over do copas.step(1) end end, function() over = true end
elseif host == "tarantool" then
  local fiber = require "fiber"
  local over = fiber.channel(1)
  go = function(f) fiber.create(f) end
  loop, finish = function() over:get() os.exit(0) end, function() over:put(true) end
end

-- A read of one page by the host's own means, through the page cache: it has no other.
local function rival_read(path)
  if host == "luv" then
    local uv = require "luv"
    local fd = assert(uv.fs_open(path, "r", 384))
    return function(page)
      local co = coroutine.running()
      uv.fs_read(fd, PAGE, page * PAGE, function() assert(coroutine.resume(co)) end)
      coroutine.yield()
    end
  end
  local f = assert(require("fio").open(path, { "O_RDONLY" }))
  return function(page) assert(#f:pread(PAGE, page * PAGE) == PAGE) end
end

local function measure(name, threads, make_read, done)
  local left, reads = threads, 0
  local wall, cpu, woken = jdbfs.now(), os.clock(), wakes
  for i = 1, threads do
    go(function()
      local read, page = make_read(), i * 997
      while reads < READS do
        reads = reads + 1
        page = (page * 1103 + 12345) % PAGES
        read(page)
      end
      left = left - 1
      if left > 0 then return end
      print(("%-28s %3d at once  %6.1f us  %6.1f us CPU  %.2f wakes"):format(name, threads,
        (jdbfs.now() - wall) / reads * 1e6, (os.clock() - cpu) / reads * 1e6,
        (wakes - woken) / reads))
      done()
    end)
  end
end

local path = dir .. "/bench"

go(function()
  local f = assert(jdbfs.create(path, { direct = "prefer" }))
  local b = jdbfs.buffer(256 * PAGE)
  for i = 0, PAGES / 256 - 1 do assert(f:write_at(b, i * 256 * PAGE)) end
  assert(f:sync_all())
  local function direct()
    local own = jdbfs.buffer(PAGE)
    return function(page) assert(f:read_at(own, page * PAGE) == PAGE) end
  end
  measure("jdbfs in " .. host, 1, direct, function()
    measure("jdbfs in " .. host, 32, direct, function()
      if not rival then return finish() end
      local read = rival_read(path)
      local function cached() return read end
      measure(rival .. " (cached)", 1, cached, function()
        measure(rival .. " (cached)", 32, cached, finish)
      end)
    end)
  end)
end)
loop()
