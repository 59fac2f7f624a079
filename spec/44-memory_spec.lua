-- Lua out of memory, at every allocation: an error, never a crash or a leak, and everything works
-- afterwards. (Memory of our own that cannot be had: spec/c/fail_test.c, spec/faults.)

local process = require "support_process"
local support = require "support"

-- Interpreted: LuaJIT 2.1.0-beta3 crashes by itself when memory ends in code that it compiled and
-- that runs in a coroutine.
local SCRIPT = [==[
  if jit then jit.off() end
  local jdbfs = require "jdbfs"
  local dir, in_task = arg[1], arg[2] == "task"
  local PAGE = jdbfs.PAGE_SIZE
  local count = 0

  local function calls()
    local path = dir .. "/f"
    assert(jdbfs.mkdir(dir .. "/d/e"))
    local f = assert(jdbfs.create(path, { direct = "prefer", lock = "exclusive" }))
    local b = assert(jdbfs.buffer(2 * PAGE))
    b:fill(5)
    b:set(0, "some")
    b:copy(PAGE, b, 0, 4)
    local half = b:slice(0, PAGE)
    assert(half:string(0, 4) == "some" and half:crc32c() and b:u32(0, 7) ~= nil)
    assert(f:write_at(b, 0))
    assert(f:write_at(half, 2 * PAGE, 0, PAGE, "dsync"))
    assert(f:read_at(b, 0))
    assert(#f:read(3, 99) == 99)
    assert(f:read_upto(b, 2 * PAGE) == PAGE)
    assert(f:write_many { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } } == 2)
    assert(f:read_many { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } } == 2)
    assert(f:sync_data() and f:sync_all())
    assert(f:truncate(PAGE) and f:preallocate(2 * PAGE))
    assert(f:size() == 2 * PAGE and f:stat().size == 2 * PAGE)
    assert(f:info().path == path and tostring(f) and f:path())
    assert(f:lock("shared") and f:unlock())
    assert(f:close())
    assert(jdbfs.exists(path))
    assert(#jdbfs.ls(dir) > 0)
    assert(jdbfs.stat(path) and jdbfs.size(path))
    assert(jdbfs.rename(path, dir .. "/g") and jdbfs.rename(dir .. "/g", path))
    assert(jdbfs.atomic_write(dir .. "/h", "whole"))
    assert(jdbfs.space(dir) and jdbfs.probe(dir))
    local missing, message, err = jdbfs.open(dir .. "/none")
    assert(missing == nil and message and err.name == "ENOENT")
    assert(jdbfs.stats() and jdbfs.info() and jdbfs.pollfd() and jdbfs.pending())
  end

  local function tasks()
    local f = assert(jdbfs.open_rw(dir .. "/t", { direct = "prefer" }))
    local done, gate, line = 0, jdbfs.semaphore(2), jdbfs.queue(2)
    local list = {}
    for i = 0, 3 do
      list[i] = assert(jdbfs.spawn(function()
        assert(gate:acquire())
        local b = assert(jdbfs.buffer(PAGE))
        assert(f:write_at(b:fill(i) and b, i * PAGE))
        assert(f:read_at(b, i * PAGE))
        gate:release()
        assert(line:put(i))
        done = done + 1
        return i, "result"
      end))
    end
    for _ = 0, 3 do assert(line:take()) end
    for i = 0, 3 do assert(list[i]:join() == i) end
    assert(jdbfs.timeout(5, function() return f:size() end) == 4 * PAGE)
    local slow, _, err = jdbfs.timeout(0.001, jdbfs.sleep, 5)
    assert(slow == nil and err.kind == "Timeout")
    local lines = jdbfs.wrap(function() for i = 1, 2 do f:size() coroutine.yield(i) end end)
    assert(lines() == 1 and lines() == 2)
    local gone = assert(jdbfs.spawn(function() f:read(0, PAGE) jdbfs.sleep(5) end))
    jdbfs.yield()
    gone:cancel()
    assert(gone:join() == nil and done == 4)
    assert(f:close())
  end

  local work = in_task and function() jdbfs.run(tasks) end or calls

  -- What must be the same afterwards.
  local function settle()
    if jit then jit.flush() end
    collectgarbage()
    collectgarbage()
    jdbfs.run(function() end)
    local s
    for _ = 1, 500 do
      s = jdbfs.stats()
      if s.in_flight + s.waiting + s.abandoned == 0 then break end
      jdbfs.step(0.01)
    end
    collectgarbage()
    collectgarbage()
    return jdbfs.stats()
  end

  local function descriptors()
    local n = 0
    for _ in require("lfs").dir("/proc/self/fd") do n = n + 1 end
    return n
  end

  for _ = 1, 3 do work() end
  local fds
  for _, for_ever in ipairs { false, true } do
    local n = 1
    settle()
    fds = descriptors()
    while true do
      local failed, ok, message = oom(n, for_ever, work)
      if failed == 0 then
        assert(ok, message)
        break
      end
      -- What nobody needed may fail unseen: a finalizer, a cache.
      message = tostring(message)
      -- "stack overflow (...)" is what Lua's own check says when a stack cannot grow.
      assert(ok or message:find("memory", 1, true) or message:find("stack overflow (", 1, true),
        ("allocation %d: %s"):format(n, message))
      local s = settle()
      for _, name in ipairs { "in_flight", "waiting", "abandoned", "tasks", "files", "buffers" } do
        assert(s[name] == 0, ("allocation %d (%s): %d %s left"):format(
          n, message, s[name], name))
      end
      assert(descriptors() == fds, ("allocation %d: descriptors leak"):format(n))
      if n % 16 == 1 then work() end
      count = count + 1
      n = n + 1
    end
    work()
  end
  print(count)
]==]

describe("Lua's memory", function()
  process.setup()

  -- LuaJIT's own coroutine is so small that a handle and its place in a table weigh more.
  it("of a task that waits is little more than a bare coroutine's", function()
    for _, what in ipairs({ "heap", "event" }) do
      local r = support.process({ "spec/bench/tasks.lua", what, "5000" }, { own_disk = true })
      local ratio = tonumber(r.out:match("(%S+)%s*$"))
      -- Before 5.4 the calls that the wait is inside of weigh more.
      local light = what == "heap" or _VERSION == "Lua 5.4"
      local most = process.is_jit and 1.45 or light and 1.25 or 1.65
      assert(ratio and ratio <= most, what .. ": " .. r.out .. r.err)
    end
  end)

  for _, way in ipairs { "outside", "task" } do
    it("may end at any allocation (" .. way .. ")", function()
      local san = os.getenv("JDBFS_TEST_SAN") or ""
      if san ~= "" and san ~= "coverage" then
        return pending("needs a Lua whose allocator is its own")
      end
      local exe, why = process.luaoom()
      if not exe then return pending(why) end
      assert(require("lfs").mkdir(support.path("oom")))
      local r = support.script(SCRIPT,
        { interpreter = exe, args = { support.path("oom"), way } })
      if r.status == 77 then return pending(r.err) end
      assert(r.status == 0, ("exit status %s\n%s%s"):format(tostring(r.status), r.out, r.err))
      assert.is_true(tonumber(r.out) > 50)
      support.figures(("memory: %d failures of Lua's allocations, %s"):format(tonumber(r.out), way))
    end)
  end

  -- A script whose process gets 1.4 GiB of addresses, and prints "ok".
  local function limited(script)
    local san = os.getenv("JDBFS_TEST_SAN") or ""
    if san == "address" or san == "thread" then return pending("it reserves all addresses") end
    if support.on_windows then return pending("Windows has no such limit") end
    local limit = "ulimit -v 1500000; exec \"$@\""
    local out = process.script(script, { prefix = "sh -c " .. support.quote(limit) .. " sh" })
    assert.equal("ok\n", out)
  end

  it("may be too short for a pool, which then keeps none of it", function()
    return limited([[
      local pool, _, err = jdbfs.pool(100, 2 ^ 28)
      check("pool", pool == nil and err.kind == "Alloc")
      check("left", jdbfs.stats().buffers == 0)
      check("room", jdbfs.buffer(2 ^ 28))
      print("ok")
    ]])
  end)

  -- The buffer that holds the record costs nothing: its pages were never touched.
  it("may be too short for a record of a log, which goes on", function()
    return limited([[
      local log = check("log", jdbfs.log(dir .. "/log", { segment_size = 65536,
        batch_size = 8192, direct = "prefer" }))
      local huge = check("buffer", jdbfs.buffer(900 * 2 ^ 20))
      local number, message, err = log:append(huge)
      check("append", number == nil and err.kind == "Alloc", message)
      check("goes on", log:append("small") == 1)
      check("close", log:close())
      print("ok")
    ]])
  end)
end)
