-- Tasks: run, spawn, join, cancel, sleep, yield, timeout; what they give back, how they end, and
-- that nobody but jdbfs can resume one that waits.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local unpack = table.unpack or unpack
local tpcall = jdbfs.pcall -- pcall, except on plain 5.1
local PAGE = jdbfs.PAGE_SIZE

local function pack(...)
  return { n = select("#", ...), ... }
end

local function new_file(pages)
  local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
  local b = jdbfs.buffer(PAGE)
  for i = 0, (pages or 1) - 1 do
    b:fill(i % 251)
    assert(f:write_at(b, i * PAGE))
  end
  b:free()
  return f
end

-- Lua before 5.4 has no to-be-closed variables.
local function with_close(name, body, test)
  it(name, function()
    local code = process.close_code(body)
    if not code then return pending("to-be-closed variables came with Lua 5.4") end
    test(code)
  end)
end

describe("jdbfs.run", function()
  process.setup()

  it("gives back what the function returns", function()
    assert.are.same(pack(), pack(jdbfs.run(function() end)))
    assert.are.same(pack(nil), pack(jdbfs.run(function() return nil end)))
    assert.are.same(pack(1, nil, "x", nil), pack(jdbfs.run(function() return 1, nil, "x", nil end)))
  end)

  it("gives back many results, also after a wait", function()
    local many = {}
    for i = 1, 1000 do many[i] = i end
    local got = pack(jdbfs.run(function()
      jdbfs.yield()
      return unpack(many)
    end))
    assert.are.equal(1000, got.n)
    assert.are.equal(1000, got[1000])
  end)

  it("passes its arguments on", function()
    local args = {}
    for i = 1, 200 do args[i] = i end
    local got = jdbfs.run(pack, unpack(args))
    assert.are.equal(200, got.n)
    assert.are.equal(200, got[200])
    assert.are.same(pack(1, nil, 3, nil), jdbfs.run(pack, 1, nil, 3, nil))
  end)

  it("ends when every task spawned under it has ended", function()
    local ended = {}
    local result = jdbfs.run(function()
      jdbfs.spawn(function()
        jdbfs.spawn(function()
          jdbfs.sleep(0.02)
          ended[#ended + 1] = "grandchild"
        end)
        jdbfs.sleep(0.01)
        ended[#ended + 1] = "child"
      end)
      ended[#ended + 1] = "main"
      return "result"
    end)
    assert.are.equal("result", result)
    assert.are.same({ "main", "child", "grandchild" }, ended)
  end)

  it("raises what a task raises, with the traceback of that task", function()
    local function where_it_happens() error("boom") end
    local ok, message = pcall(jdbfs.run, function()
      jdbfs.yield()
      where_it_happens()
    end)
    assert.is_false(ok)
    assert.matches("40%-task_spec.lua:%d+: boom", message)
    assert.matches("stack traceback:", message, 1, true)
    assert.matches("where_it_happens", message, 1, true)
  end)

  it("raises the error of a spawned task, too", function()
    local ok, message = pcall(jdbfs.run, function()
      jdbfs.spawn(function()
        jdbfs.sleep(0.001)
        error("in the child")
      end)
      jdbfs.sleep(10)
    end)
    assert.is_false(ok)
    assert.matches("in the child", message, 1, true)
    assert.matches("stack traceback:", message, 1, true)
  end)

  it("raises an error that is no string unchanged", function()
    local value = setmetatable({}, { __tostring = function() return "odd" end })
    local ok, got = pcall(jdbfs.run, function() error(value) end)
    assert.is_false(ok)
    assert.are.equal(value, got)
  end)

  it("cancels the others when one raises, and waits for their operations", function()
    local f = new_file(64)
    local buffers, went_on = {}, 0
    local ok = pcall(jdbfs.run, function()
      for i = 1, 64 do
        buffers[i] = jdbfs.buffer(PAGE)
        jdbfs.spawn(function()
          f:read_at(buffers[i], (i - 1) * PAGE)
          jdbfs.sleep(1)
          went_on = went_on + 1
        end)
      end
      jdbfs.spawn(function() jdbfs.sleep(100) end)
      jdbfs.spawn(function() jdbfs.event():wait() end)
      jdbfs.yield()
      error("stop")
    end)
    assert.is_false(ok)
    local s = jdbfs.stats()
    assert.are.same({ 0, 0, 0, 0 }, { s.in_flight, s.waiting, s.abandoned, s.tasks })
    for i = 1, 64 do assert.has_no.errors(function() buffers[i]:fill(0) end) end
    assert.are.equal(0, went_on)
    assert(f:close())
  end)

  it("works again after an error", function()
    local f = new_file()
    pcall(jdbfs.run, function()
      jdbfs.spawn(function() f:sync_all() end)
      jdbfs.yield()
      error("x")
    end)
    assert.are.equal(PAGE, jdbfs.run(function() return f:size() end))
    assert(f:close())
  end)

  with_close("runs the to-be-closed variables of the task that raises and of the others", [[
    local jdbfs, closed, f = ...
    local function closer(name)
      return setmetatable({}, { __close = function() closed[name] = f:size() or "failed" end })
    end
    local ok, message = pcall(jdbfs.run, function()
      jdbfs.spawn(function()
        local v <close> = closer("sleeper")
        jdbfs.sleep(100)
      end)
      jdbfs.spawn(function()
        local v <close> = closer("waiter")
        jdbfs.event():wait()
      end)
      local v <close> = closer("raiser")
      jdbfs.yield()
      error("boom")
    end)
    return ok, message
  ]], function(code)
    local f, closed = new_file(), {}
    local ok, message = code(jdbfs, closed, f)
    assert(f:close())
    assert.is_false(ok)
    assert.matches("boom", message, 1, true)
    assert.are.same({ sleeper = PAGE, waiter = PAGE, raiser = PAGE }, closed)
  end)

  with_close("closes a file that a raising task holds in a to-be-closed variable", [[
    local jdbfs, path = ...
    local kept
    local ok = pcall(jdbfs.run, function()
      local f <close> = assert(jdbfs.create(path, { direct = "prefer" }))
      kept = f
      error("boom")
    end)
    return ok, kept
  ]], function(code)
    local path = support.path()
    local ok, kept = code(jdbfs, path)
    assert.is_false(ok)
    assert.are.same({}, support.open_files(path:match("^(.*)/")))
    support.fails({ kind = "Closed" }, kept:size())
  end)

  it("raises inside a task, however deep", function()
    jdbfs.run(function()
      local ok, message = pcall(jdbfs.run, function() end)
      assert.is_false(ok)
      assert.matches("inside a task", message, 1, true)
      local inner = coroutine.wrap(function() return pcall(jdbfs.run, function() end) end)
      assert.is_false((inner()))
      ok, message = pcall(jdbfs.step)
      assert.is_false(ok)
      assert.matches("inside a task", message, 1, true)
    end)
  end)

  it("runs inside a coroutine that is no task", function()
    local f = new_file()
    local co = coroutine.wrap(function()
      coroutine.yield("before")
      return jdbfs.run(function() return f:size() end)
    end)
    assert.are.equal("before", co())
    assert.are.equal(PAGE, co())
    assert(f:close())
  end)

  it("raises instead of waiting for ever when no task can be woken", function()
    local ok, message = pcall(jdbfs.run, function() jdbfs.event():wait() end)
    assert.is_false(ok)
    assert.matches("deadlock", message, 1, true)
    assert.are.equal(0, jdbfs.stats().tasks)
  end)

  it("takes a function of C as well as one of Lua", function()
    -- A subprocess: on plain 5.1 a coroutine cannot begin in C.
    local out = process.script([[
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      assert(f:write_at(jdbfs.buffer(4096), 0))
      check("run", jdbfs.run(f.size, f) == 4096)
      check("timeout", jdbfs.timeout(1, f.size, f) == 4096)
      check("spawn", jdbfs.spawn(f.size, f):join() == 4096)
      check("sleep", jdbfs.run(jdbfs.sleep, 0.001))
      check("select", jdbfs.run(select, 2, "a", "b") == "b")
      check("pcall", select(2, tpcall(f.size, f)) == 4096)
      jdbfs.run(function()
        check("timeout", jdbfs.timeout(1, f.size, f) == 4096)
        check("spawn", jdbfs.spawn(f.size, f):join() == 4096)
        check("pcall", select(2, tpcall(f.size, f)) == 4096)
        check("wrap", jdbfs.wrap(f.size)(f) == 4096)
      end)
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  it("refuses what is no function", function()
    for _, run in ipairs({ jdbfs.run, jdbfs.spawn }) do
      assert.has_error(function() run() end)
      assert.has_error(function() run("x") end)
      assert.has_error(function() run({}) end)
    end
  end)
end)

describe("a task", function()
  process.setup()

  it("can be joined for its results, again and again, by many", function()
    jdbfs.run(function()
      local task = jdbfs.spawn(function()
        jdbfs.sleep(0.002)
        return 1, nil, 3, nil
      end)
      local seen = 0
      for _ = 1, 10 do
        jdbfs.spawn(function()
          assert.are.same(pack(1, nil, 3, nil), pack(task:join()))
          seen = seen + 1
        end)
      end
      assert.are.same(pack(1, nil, 3, nil), pack(task:join()))
      assert.are.same(pack(1, nil, 3, nil), pack(task:join()))
      jdbfs.sleep(0.001)
      assert.are.equal(10, seen)
    end)
  end)

  it("cannot join itself", function()
    jdbfs.run(function()
      local task
      task = jdbfs.spawn(function()
        local ok, message = tpcall(task.join, task)
        assert.is_false(ok)
        assert.matches("itself", message, 1, true)
      end)
      task:join()
    end)
  end)

  it("tells its status", function()
    local seen = {}
    jdbfs.run(function()
      local task
      task = jdbfs.spawn(function()
        seen[#seen + 1] = task:status()
        jdbfs.sleep(0.001)
      end)
      seen[#seen + 1] = task:status()
      jdbfs.yield()
      seen[#seen + 1] = task:status()
      task:join()
      seen[#seen + 1] = task:status()
      assert.matches("done", tostring(task), 1, true)
    end)
    assert.are.same({ "ready", "running", "waiting", "done" }, seen)
  end)

  it("starts in the order of spawn and runs interleaved", function()
    local order = {}
    jdbfs.run(function()
      for i = 1, 3 do
        jdbfs.spawn(function()
          for round = 1, 2 do
            order[#order + 1] = i * 10 + round
            jdbfs.yield()
          end
        end)
      end
    end)
    assert.are.same({ 11, 21, 31, 12, 22, 32 }, order)
  end)

  it("gives way with a bare coroutine.yield, too", function()
    local order = {}
    jdbfs.run(function()
      jdbfs.spawn(function() order[#order + 1] = "other" end)
      coroutine.yield("ignored")
      order[#order + 1] = "main"
    end)
    assert.are.same({ "other", "main" }, order)
  end)

  it("may use coroutines of its own, with operations inside", function()
    local f = new_file(4)
    jdbfs.run(function()
      local b = jdbfs.buffer(PAGE)
      local pages = coroutine.wrap(function()
        for i = 0, 3 do
          assert(f:read_at(b, i * PAGE))
          coroutine.yield(b:u8(0))
        end
      end)
      for i = 0, 3 do
        assert.are.equal(i, pages())
        jdbfs.yield()
      end
    end)
    assert(f:close())
  end)

  it("outlives its handle", function()
    local done = 0
    jdbfs.run(function()
      for _ = 1, 100 do
        jdbfs.spawn(function()
          jdbfs.sleep(0.001)
          done = done + 1
        end)
      end
      for _ = 1, 5 do
        collectgarbage()
        jdbfs.yield()
      end
    end)
    assert.are.equal(100, done)
  end)

  it("waits for thousands of joiners in reasonable time", function()
    local started = jdbfs.now()
    local woken = 0
    jdbfs.run(function()
      local gate = jdbfs.spawn(function() jdbfs.sleep(0.05) end)
      for _ = 1, 20000 do
        jdbfs.spawn(function()
          gate:join()
          woken = woken + 1
        end)
      end
    end)
    assert.are.equal(20000, woken)
    assert.is_true(jdbfs.now() - started < 10)
  end)
end)

describe("join", function()
  process.setup()

  it("gives everybody who waits all results, however many", function()
    for _, n in ipairs({ 0, 1, 2, 9, 10, 11, 100 }) do
      jdbfs.run(function()
        local values = { n = n }
        for i = 1, n do values[i] = i % 3 > 0 and i or nil end
        local worker = jdbfs.spawn(function()
          jdbfs.yield()
          jdbfs.yield()
          return unpack(values, 1, n)
        end)
        local waiters = {}
        for i = 1, 3 do
          waiters[i] = jdbfs.spawn(function() return worker:join() end)
        end
        local generator = jdbfs.wrap(function() coroutine.yield(pack(worker:join())) end)
        assert.are.same(values, generator())
        for i = 1, 3 do assert.are.same(values, pack(waiters[i]:join())) end
        assert.are.same(values, pack(worker:join()))
      end)
    end
  end)

  it("wakes those who wait in the order in which they came", function()
    jdbfs.run(function()
      local worker, order = jdbfs.spawn(function() jdbfs.sleep(0.001) end), {}
      local waiters = {}
      for i = 1, 5 do
        waiters[i] = jdbfs.spawn(function()
          worker:join()
          order[#order + 1] = i
        end)
      end
      for i = 1, 5 do waiters[i]:join() end
      assert.are.same({ 1, 2, 3, 4, 5 }, order)
    end)
  end)

  it("is left by a task that is cancelled while it waits, or is told already", function()
    local seen = {}
    jdbfs.run(function()
      local worker = jdbfs.spawn(function()
        jdbfs.yield()
        return "result"
      end)
      local early = jdbfs.spawn(function() seen[1] = worker:join() end)
      local late = jdbfs.spawn(function()
        seen[2] = worker:join()
        jdbfs.sleep(10)
        seen[3] = "went on"
      end)
      jdbfs.yield()
      early:cancel()
      worker:join()
      late:cancel()
      late:join()
    end)
    assert.are.same({ [2] = "result" }, seen)
  end)
end)

describe("the coroutine of a task that has returned", function()
  process.setup()

  local function ended_in(f)
    local co
    jdbfs.run(function() jdbfs.spawn(function() co = coroutine.running() f() end):join() end)
    return co
  end

  it("serves later tasks, and begins each as a new one", function()
    local seen, again = {}, 0
    jdbfs.run(function()
      for i = 1, 20 do
        jdbfs.spawn(function(...)
          local co = coroutine.running()
          if seen[co] then again = again + 1 end
          seen[co] = true
          assert.are.equal(2, select("#", ...))
          assert.are.equal(i, (...))
          jdbfs.yield()
        end, i, nil):join()
      end
    end)
    assert.are.equal(19, again)
  end)

  it("is not used again after an error, or with what the program left in it", function()
    local used = {}
    local function hook() debug.sethook(coroutine.running(), function() end, "", 1e6) end
    used[ended_in(hook)] = "hook"
    if setfenv and not process.is_jit then
      used[ended_in(function() setfenv(0, setmetatable({}, { __index = _G })) end)] = "globals"
    end
    jdbfs.run(function()
      local co
      local task = jdbfs.spawn(function()
        jdbfs.timeout(60, function()
          co = coroutine.running()
          error("wrong")
        end)
      end)
      pcall(task.cancel, task)
      if co then used[co] = "error" end
      for _ = 1, 300 do
        jdbfs.spawn(function() assert.is_nil(used[coroutine.running()]) jdbfs.sleep(0.001) end)
      end
    end)
    debug.sethook()
  end)

  it("cannot be started by who still has it, once it is another task's", function()
    local old = ended_in(function() end)
    local ran = {}
    local ok, message = pcall(jdbfs.run, function()
      local others = {}
      local function body(...) ran[#ran + 1] = select("#", ...) end
      for i = 1, 3 do others[i] = jdbfs.spawn(body) end
      coroutine.resume(old, 1, 2, 3)
      for i = 1, 3 do others[i]:join() end
    end)
    assert(#ran >= 2 and #ran <= 3, #ran)
    if not ok then assert.matches("resumed by hand", message, 1, true) end
  end)
end)

describe("outside a run", function()
  process.setup()

  it("spawn starts a task that step drives", function()
    local f, size = new_file(), nil
    local task = jdbfs.spawn(function()
      size = f:size()
      return "result"
    end)
    assert.is_nil(size)
    for _ = 1, 1000 do
      if task:status() == "done" then break end
      jdbfs.step(0.1)
    end
    assert.are.equal(PAGE, size)
    assert.are.equal("result", task:join())
    assert(f:close())
  end)

  it("join drives until the task has ended", function()
    local task = jdbfs.spawn(function()
      jdbfs.sleep(0.005)
      return 7, nil
    end)
    assert.are.same(pack(7, nil), pack(task:join()))
  end)

  it("a later run drives the task as well", function()
    local steps = 0
    local task = jdbfs.spawn(function()
      for _ = 1, 3 do
        jdbfs.sleep(0.001)
        steps = steps + 1
      end
    end)
    local before = jdbfs.now()
    jdbfs.run(function()
      while steps < 3 and jdbfs.now() - before < 30 do jdbfs.sleep(0.001) end
    end)
    assert.are.equal(3, steps)
    assert.are.equal("done", task:status())
  end)

  it("step tells how many tasks it resumed, and returns when nothing is left", function()
    assert.are.equal(0, jdbfs.step())
    assert.are.equal(0, jdbfs.step(5))
    jdbfs.spawn(function() end)
    jdbfs.spawn(function() end)
    assert.are.equal(2, jdbfs.step())
    assert.are.equal(0, jdbfs.step())
  end)

  it("step does not wait longer than asked", function()
    local task = jdbfs.spawn(function() jdbfs.sleep(60) end)
    jdbfs.step()
    local before = jdbfs.now()
    jdbfs.step(0.02)
    local took = jdbfs.now() - before
    assert.is_true(took >= 0.015 and took < 30, "took " .. took)
    task:cancel()
    jdbfs.step()
    assert.are.equal("cancelled", task:status())
  end)

  it("step raises what a task raises; join on it then gives kind Join", function()
    local task = jdbfs.spawn(function() error("boom") end)
    local ok, message = pcall(jdbfs.step)
    assert.is_false(ok)
    assert.matches("boom", message, 1, true)
    assert.are.equal("failed", task:status())
    support.fails({ kind = "Join", op = "join", says = "boom" }, task:join())
  end)

  it("sleep and yield work, without a task", function()
    local before = jdbfs.now()
    jdbfs.sleep(0.02)
    assert.is_true(jdbfs.now() - before >= 0.02)
    jdbfs.yield()
  end)

  it("an operation completes before it returns, also while tasks wait", function()
    local f = new_file(2)
    local b = jdbfs.buffer(PAGE)
    local task = jdbfs.spawn(function()
      local own = jdbfs.buffer(PAGE)
      assert(f:read_at(own, PAGE))
      return own:u8(0)
    end)
    jdbfs.step()
    assert.are.equal(PAGE, f:read_at(b, 0))
    assert.are.equal(0, b:u8(0))
    assert.are.equal(1, task:join())
    assert(f:close())
  end)
end)

describe("a cancelled task", function()
  process.setup()

  it("ends at its next wait; join gives nil, message, err of kind Cancelled", function()
    local reached = {}
    jdbfs.run(function()
      local task
      task = jdbfs.spawn(function()
        reached[1] = true
        assert.is_true(task:cancel())
        reached[2] = true -- it runs on to the next wait
        jdbfs.sleep(0)
        reached[3] = true
      end)
      support.fails({ kind = "Cancelled", op = "join" }, task:join())
      assert.are.equal("cancelled", task:status())
      assert.is_false(task:cancel())
    end)
    assert.are.same({ true, true }, reached)
  end)

  it("never starts when it was cancelled before", function()
    local started = false
    jdbfs.run(function()
      local task = jdbfs.spawn(function() started = true end)
      assert.is_true(task:cancel())
      support.fails({ kind = "Cancelled" }, task:join())
    end)
    assert.is_false(started)
  end)

  local f, event
  local waits = {
    ["a sleep"] = function() jdbfs.sleep(50) end,
    ["a yield loop"] = function() while true do jdbfs.yield() end end,
    ["a bare yield loop"] = function() while true do coroutine.yield() end end,
    ["an event"] = function() event:wait() end,
    ["a join"] = function() jdbfs.spawn(function() event:wait() end):join() end,
    ["a timeout"] = function() jdbfs.timeout(50, function() event:wait() end) end,
    ["a read"] = function() while true do f:size() end end,
    ["a semaphore"] = function() jdbfs.semaphore(0):acquire() end,
    ["a queue"] = function() jdbfs.queue(1):take() end,
    ["a full queue"] = function()
      local queue = jdbfs.queue(1)
      queue:put(1)
      queue:put(2)
    end,
    ["pcall"] = function() while true do tpcall(jdbfs.sleep, 0.001) end end,
  }
  for name, wait in pairs(waits) do
    it("ends in " .. name, function()
      f, event = new_file(), jdbfs.event()
      local after = false
      jdbfs.run(function()
        local task = jdbfs.spawn(function()
          wait()
          after = true
        end)
        jdbfs.sleep(0.002)
        assert.is_true(task:cancel())
        support.fails({ kind = "Cancelled" }, task:join())
        event:set()
      end)
      assert.is_false(after)
      assert(f:close())
      f, event = nil, nil
    end)
  end

  it("leaves its operation to end by itself: the buffer is busy until then", function()
    local file = new_file(1)
    jdbfs.run(function()
      local b = jdbfs.buffer(64 * PAGE)
      b:fill(0x5a)
      local task = jdbfs.spawn(function() file:write_at(b, 0) end)
      jdbfs.yield()
      assert.has_error(function() b:fill(1) end)
      task:cancel()
      assert.has_error(function() b:fill(1) end)
      task:join()
      local tries = 0
      while not pcall(b.fill, b, 1) do
        tries = tries + 1
        assert(tries < 10000)
        jdbfs.sleep(0.001)
      end
      -- What was with the kernel was not stopped.
      assert.are.equal(("\90"):rep(64 * PAGE), file:read(0, 64 * PAGE))
    end)
    assert(file:close())
  end)

  it("gives what a finished task returned when the cancel came too late", function()
    jdbfs.run(function()
      local task = jdbfs.spawn(function() return "done" end)
      task:join()
      assert.is_false(task:cancel())
      assert.are.equal("done", task:join())
    end)
  end)

  with_close("runs its to-be-closed variables, which may do I/O", [[
    local jdbfs, f, closed = ...
    jdbfs.run(function()
      local task = jdbfs.spawn(function()
        local v <close> = setmetatable({}, {
          __close = function()
            closed[1] = f:size()
            jdbfs.sleep(0.001)
            jdbfs.yield()
            closed[2] = f:size()
          end,
        })
        jdbfs.sleep(100)
      end)
      jdbfs.yield()
      task:cancel()
      closed[3] = select("#", task:join())
    end)
  ]], function(code)
    local file, closed = new_file(), {}
    code(jdbfs, file, closed)
    assert.are.same({ PAGE, PAGE, 3 }, closed)
    assert(file:close())
  end)

  with_close("whose closing variable raises stops the run with that error", [[
    local jdbfs = ...
    return pcall(jdbfs.run, function()
      local task = jdbfs.spawn(function()
        local v <close> = setmetatable({}, { __close = function() error("in close") end })
        jdbfs.sleep(100)
      end)
      jdbfs.yield()
      task:cancel()
      jdbfs.sleep(1)
    end)
  ]], function(code)
    local ok, message = code(jdbfs)
    assert.is_false(ok)
    assert.matches("in close", message, 1, true)
  end)
end)

describe("pcall in a task", function()
  process.setup()

  it("may wait inside, and gives results and errors", function()
    local f = new_file()
    jdbfs.run(function()
      assert.are.same(pack(true, PAGE, nil), pack(tpcall(function() return f:size(), nil end)))
      local ok, message = tpcall(function()
        f:size()
        error("boom", 0)
      end)
      assert.is_false(ok)
      assert.are.equal("boom", message)
      assert.are.equal(4, select("#", tpcall(f.read_at, f, jdbfs.buffer(PAGE), 2 * PAGE)))
    end)
    assert(f:close())
  end)

  it("nests, and a failure inside does not end the run", function()
    local f = new_file()
    local size = jdbfs.run(function()
      local ok, inner_ok, inner = tpcall(function()
        local inner_ok, inner = tpcall(function()
          jdbfs.sleep(0.001)
          error({ "value" })
        end)
        jdbfs.yield()
        return inner_ok, inner[1]
      end)
      assert.is_true(ok)
      assert.is_false(inner_ok)
      assert.are.equal("value", inner)
      return f:size()
    end)
    assert.are.equal(PAGE, size)
    assert(f:close())
  end)

  it("lets a bare coroutine.yield through", function()
    local order = {}
    jdbfs.run(function()
      jdbfs.spawn(function() order[#order + 1] = "other" end)
      tpcall(function()
        coroutine.yield()
        order[#order + 1] = "main"
      end)
    end)
    assert.are.same({ "other", "main" }, order)
  end)

  it("of plain 5.1 cannot be waited across: a clear error, and the task goes on", function()
    if not process.is_51 then return pending("only plain Lua 5.1 cannot yield across pcall") end
    local f = new_file(3)
    jdbfs.run(function()
      local b = jdbfs.buffer(PAGE)
      local ok, message = pcall(f.read_at, f, b, 0)
      assert.is_false(ok)
      assert.matches("yield", message, 1, true)
      assert.is_true(coroutine.yield() ~= PAGE)
      assert.are.equal(PAGE, f:read_at(b, 2 * PAGE))
      assert.are.equal(2, b:u8(0))
    end)
    assert(f:close())
  end)
end)

-- A comparison of table.sort is called from C: no Lua can yield across that.
describe("a wait where no yield is possible", function()
  process.setup()

  local function in_sort(f, ...)
    local args, result = pack(...), nil
    local ok, message = pcall(table.sort, { 2, 1 }, function(a, b)
      result = pack(f(unpack(args, 1, args.n)))
      return a < b
    end)
    return ok, message, result
  end

  it("completes an operation in place, or raises before it was submitted", function()
    local f = new_file(3)
    jdbfs.run(function()
      local b = jdbfs.buffer(PAGE)
      local before = jdbfs.stats()
      local ok, message, result = in_sort(f.read_at, f, b, PAGE)
      if process.knows_yieldable then
        assert.is_true(ok, message)
        assert.are.equal(PAGE, result[1])
      else
        assert.is_false(ok)
        assert.matches("yield", message, 1, true)
        assert.are.equal(before.submitted, jdbfs.stats().submitted)
      end
      assert.has_no.errors(function() b:fill(0) end)
      -- Nothing of it comes back later.
      assert.is_true(coroutine.yield() ~= PAGE)
      assert.are.equal(2 * PAGE, f:read_upto(jdbfs.buffer(2 * PAGE), PAGE))
    end)
    assert(f:close())
  end)

  it("a raising wait leaves no trace in a semaphore", function()
    local f = new_file(3)
    jdbfs.run(function()
      local semaphore, b = jdbfs.semaphore(0), jdbfs.buffer(PAGE)
      local ok = in_sort(semaphore.acquire, semaphore)
      assert.is_false(ok)
      semaphore:release()
      assert.are.equal(PAGE, f:read_at(b, 2 * PAGE))
      assert.are.equal(2, b:u8(0))
      assert.is_true(semaphore:try_acquire())
    end)
    assert(f:close())
  end)

  it("a task that cancels itself after such an error ends once", function()
    -- A subprocess: what goes wrong here used to crash.
    process.script([[
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      local b = jdbfs.buffer(4096)
      jdbfs.run(function()
        local task
        task = jdbfs.spawn(function()
          pcall(table.sort, { 2, 1 }, function(x, y) f:read_upto(b, 0) return x < y end)
          pcall(table.sort, { 2, 1 }, function(x, y) jdbfs.sleep(0.001) return x < y end)
          task:cancel()
          f:size()
          error("not reached")
        end)
        local _, _, err = task:join()
        check("cancelled", err and err.kind == "Cancelled")
        jdbfs.sleep(0.01)
      end)
      check("tasks", jdbfs.stats().tasks == 0, jdbfs.stats().tasks)
    ]])
  end)
end)

describe("a task resumed by hand", function()
  process.setup()

  -- Resumes the waiting task from another one, and lets both go on.
  local function steal(wait, after)
    local f = new_file(8)
    local outcome = { f = f }
    local ok, message = pcall(jdbfs.run, function()
      local victim_co
      local victim = jdbfs.spawn(function()
        victim_co = coroutine.running()
        outcome.first = pack(wait(f))
        outcome.second = pack(after(f))
      end)
      jdbfs.yield()
      outcome.resumed = pack(coroutine.resume(victim_co, "by hand"))
      local before = jdbfs.now()
      repeat
        for _ = 1, 20 do jdbfs.sleep(0.001) end
        outcome.status = victim:status()
      until outcome.status ~= "waiting" or jdbfs.now() - before > 10
    end)
    outcome.ok, outcome.message = ok, message
    support.wait_idle()
    assert(f:close())
    return outcome
  end

  local function check_harmless(outcome, wanted_second)
    -- Either the resume raised, or its value came through; never the result of another operation.
    if outcome.first then assert.is_true(outcome.first[1] == "by hand") end
    if outcome.second and outcome.second[1] ~= nil then
      assert.are.equal(wanted_second, outcome.second[1])
    end
    assert.is_true(outcome.status == "failed" or outcome.status == "done"
      or outcome.status == "cancelled" or not outcome.ok, outcome.status)
    local raised = not outcome.ok or not outcome.resumed[1]
    assert.is_true(raised or outcome.status ~= "waiting")
    assert.are.equal(0, jdbfs.stats().tasks)
  end

  it("raises or is harmless in a read, and the next read is not given its result", function()
    local small, large = jdbfs.buffer(PAGE), jdbfs.buffer(4 * PAGE)
    local outcome = steal(
      function(f) return f:read_at(small, 0) end,
      function(f) return f:read_at(large, 0) end)
    check_harmless(outcome, 4 * PAGE)
    if _VERSION == "Lua 5.1" then return end -- there the wait goes on with the resumer's values
    assert.is_nil(outcome.first)
    local said = outcome.ok and outcome.resumed[2] or outcome.message
    assert.matches("only jdbfs may resume it", tostring(said), 1, true)
  end)

  it("raises or is harmless when it then yields bare and goes on", function()
    local small, large = jdbfs.buffer(PAGE), jdbfs.buffer(4 * PAGE)
    local outcome = steal(
      function(f) return tpcall(f.read_at, f, small, 0) end,
      function(f)
        coroutine.yield()
        return f:read_at(large, 0)
      end)
    local second = outcome.second and outcome.second[1]
    assert.is_true(second == nil or second == 4 * PAGE, tostring(second))
  end)

  it("raises or is harmless in a sleep", function()
    check_harmless(steal(
      function() return jdbfs.sleep(0.005) end,
      function(f) return f:size() end), 8 * PAGE)
  end)

  it("raises or is harmless in a join", function()
    check_harmless(steal(
      function() return jdbfs.spawn(function() jdbfs.sleep(0.005) end):join() end,
      function(f) return f:size() end), 8 * PAGE)
  end)

  it("raises or is harmless in an event", function()
    local event = jdbfs.event()
    jdbfs.spawn(function()
      jdbfs.sleep(0.01)
      event:set()
    end)
    check_harmless(steal(
      function() return event:wait() or "by hand" end,
      function(f) return f:size() end), 8 * PAGE)
  end)

  it("over and over, by outsiders and by other tasks, never mixes results up", function()
    local f = new_file(16)
    local wrong = 0
    for round = 1, 50 do
      pcall(jdbfs.run, function()
        local victims = {}
        for i = 1, 8 do
          jdbfs.spawn(function()
            victims[i] = coroutine.running()
            local b = jdbfs.buffer(i * PAGE)
            for k = 0, 3 do
              local n, _, err = f:read_at(b, k * PAGE)
              if type(n) == "number" and n ~= i * PAGE then wrong = wrong + 1 end
              if n == nil and err == nil then wrong = wrong + 1 end
            end
          end)
        end
        jdbfs.yield()
        for i = 1, 8 do
          if (i + round) % 3 == 0 then coroutine.resume(victims[i], "by hand") end
        end
        jdbfs.sleep(0.002)
        for i = 1, 8, 2 do coroutine.resume(victims[i], "by hand") end
      end)
    end
    support.wait_idle()
    assert(f:close())
    assert.are.equal(0, wrong)
  end)

  it("makes run raise when it was the run's own function", function()
    local co
    local ok, message = pcall(jdbfs.run, function()
      co = coroutine.running()
      jdbfs.spawn(function() coroutine.resume(co, "by hand") end)
      jdbfs.sleep(0.005)
      jdbfs.sleep(0.005)
      return "fine"
    end)
    assert.is_false(ok, "run returned: " .. tostring(message))
  end)

  with_close("or closed by hand gives join kind Join, and its operation ends unseen", [[
    local jdbfs, f = ...
    local b, err = jdbfs.buffer(jdbfs.PAGE_SIZE)
    jdbfs.run(function()
      local co
      local victim = jdbfs.spawn(function()
        co = coroutine.running()
        f:read_at(b, 0)
        error("not reached")
      end)
      jdbfs.yield()
      assert(coroutine.close(co))
      local _
      _, _, err = victim:join()
    end)
    return err
  ]], function(code)
    local f = new_file()
    local err = code(jdbfs, f)
    assert.are.equal("Join", err.kind)
    support.wait_idle()
    assert(f:close())
  end)
end)

describe("sleep", function()
  process.setup()

  it("takes at least the time asked, and other tasks run meanwhile", function()
    local ran = 0
    jdbfs.run(function()
      jdbfs.spawn(function()
        for _ = 1, 10 do
          jdbfs.yield()
          ran = ran + 1
        end
      end)
      local before = jdbfs.now()
      jdbfs.sleep(0.02)
      local took = jdbfs.now() - before
      assert.is_true(took >= 0.02 and took < 30, "took " .. took)
      assert.are.equal(10, ran)
    end)
  end)

  it("of 0 seconds gives way", function()
    local order = {}
    jdbfs.run(function()
      jdbfs.spawn(function() order[#order + 1] = "other" end)
      jdbfs.sleep(0)
      order[#order + 1] = "main"
    end)
    assert.are.same({ "other", "main" }, order)
  end)

  it("refuses what is no time", function()
    for _, bad in ipairs({ -1, 0 / 0, -math.huge }) do
      assert.has_error(function() jdbfs.sleep(bad) end)
      assert.has_error(function() jdbfs.step(bad) end)
      assert.has_error(function() jdbfs.timeout(bad, function() end) end)
    end
    assert.has_error(function() jdbfs.sleep() end)
    assert.has_error(function() jdbfs.sleep("soon") end)
  end)

  it("wakes 10,000 tasks in the order of their deadlines", function()
    -- A deadline lies between these: the next task begins when it has been counted.
    local least, most, woken = {}, {}, {}
    local function seconds(i) return (i * 7919 % 10000) * 2e-5 end
    jdbfs.run(function()
      for i = 1, 10000 do
        jdbfs.spawn(function()
          local now = jdbfs.now()
          least[i] = now + seconds(i)
          most[i - 1] = now + seconds(i - 1)
          jdbfs.sleep(seconds(i))
          woken[#woken + 1] = i
          assert(jdbfs.now() >= least[i])
        end)
      end
    end)
    assert.are.equal(10000, #woken)
    local latest = 0
    for _, i in ipairs(woken) do
      assert.is_true((most[i] or math.huge) >= latest, i)
      latest = math.max(latest, least[i])
    end
  end)

  it("of a day can be cancelled at once", function()
    jdbfs.run(function()
      local task = jdbfs.spawn(function() jdbfs.sleep(86400) end)
      local forever = jdbfs.spawn(function() jdbfs.sleep(math.huge) end)
      jdbfs.yield()
      task:cancel()
      forever:cancel()
      support.fails({ kind = "Cancelled" }, task:join())
      support.fails({ kind = "Cancelled" }, forever:join())
    end)
  end)
end)

describe("now", function()
  it("is monotonic seconds", function()
    local last = jdbfs.now()
    for _ = 1, 1000 do
      local now = jdbfs.now()
      assert.is_true(now >= last)
      last = now
    end
  end)
end)

describe("fairness", function()
  process.setup()

  it("a yielding loop does not starve I/O", function()
    local f = new_file(8)
    local yields, done = 0, false
    jdbfs.run(function()
      jdbfs.spawn(function()
        local b = jdbfs.buffer(PAGE)
        for i = 1, 200 do assert(f:read_at(b, i % 8 * PAGE)) end
        done = true
      end)
      while not done do
        yields = yields + 1
        assert(yields < 5e6, "starved")
        jdbfs.yield()
      end
    end)
    assert(f:close())
  end)

  it("an I/O loop does not starve sleepers and yielders", function()
    local f = new_file(8)
    local slept, yielded, reads = false, false, 0
    jdbfs.run(function()
      jdbfs.spawn(function()
        jdbfs.sleep(0.005)
        slept = true
      end)
      jdbfs.spawn(function()
        for _ = 1, 100 do jdbfs.yield() end
        yielded = true
      end)
      local b = jdbfs.buffer(PAGE)
      while not (slept and yielded) do
        reads = reads + 1
        assert(reads < 1e6, "starved")
        assert(f:read_at(b, 0))
      end
    end)
    assert(f:close())
  end)

  it("a loop of empty transfers does not starve the others", function()
    local f = new_file(1)
    local slept, reads, started = false, 0, jdbfs.now()
    jdbfs.run(function()
      jdbfs.spawn(function()
        jdbfs.sleep(0.005)
        slept = true
      end)
      local b = jdbfs.buffer(PAGE)
      while not slept do
        reads = reads + 1
        assert(jdbfs.now() - started < 30, "starved")
        assert.are.equal(0, (f:read_at(b, 0, 0, 0)))
      end
    end)
    assert(f:close())
  end)
end)

describe("timeout", function()
  process.setup()

  support.both("gives the function's results when it ends in time", function()
    assert.are.same(pack(1, nil, 3, nil), pack(jdbfs.timeout(5, function(...)
      jdbfs.sleep(0.001)
      return ...
    end, 1, nil, 3, nil)))
    assert.are.same(pack(), pack(jdbfs.timeout(5, function() end)))
  end)

  support.both("gives kind Timeout when it does not, and cancels it", function()
    local after = false
    local before = jdbfs.now()
    local err = support.fails({ kind = "Timeout", op = "timeout" }, jdbfs.timeout(0.02, function()
      jdbfs.sleep(60)
      after = true
    end))
    local took = jdbfs.now() - before
    assert.matches("0.02", err.message, 1, true)
    assert.is_true(took >= 0.02 and took < 30, "took " .. took)
    if process.running() then jdbfs.sleep(0.001) else jdbfs.step() end
    assert.is_false(after)
  end)

  support.both("does not come before its time, even when nothing can end the wait", function()
    local before = jdbfs.now()
    local event = jdbfs.event()
    support.fails({ kind = "Timeout" }, jdbfs.timeout(0.03, event.wait, event))
    assert.is_true(jdbfs.now() - before >= 0.029)
    if process.running() then jdbfs.yield() else jdbfs.step() end
  end)

  support.both("hands on what the function raises, without stopping the run", function()
    local value = {}
    local ok, got = tpcall(jdbfs.timeout, 5, function()
      jdbfs.sleep(0.001)
      error(value)
    end)
    assert.is_false(ok)
    assert.are.equal(value, got)
  end)

  it("of 0 seconds does not start what would not end", function()
    jdbfs.run(function()
      support.fails({ kind = "Timeout" }, jdbfs.timeout(0, function() jdbfs.sleep(1) end))
    end)
  end)

  it("nests: the shorter one wins", function()
    jdbfs.run(function()
      local inner
      local before = jdbfs.now()
      support.fails({ kind = "Timeout" }, jdbfs.timeout(0.02, function()
        inner = pack(jdbfs.timeout(60, function() jdbfs.sleep(60) end))
      end))
      assert.is_nil(inner)
      local outer = jdbfs.timeout(60, function()
        return select(3, jdbfs.timeout(0.01, function() jdbfs.sleep(60) end)).kind
      end)
      assert.are.equal("Timeout", outer)
      assert.is_true(jdbfs.now() - before < 30)
    end)
  end)

  it("ends its function when the task that waits is cancelled", function()
    local waits, went_on = false, false
    jdbfs.run(function()
      local gate = jdbfs.event()
      local task = jdbfs.spawn(function()
        jdbfs.timeout(60, function()
          jdbfs.timeout(60, function()
            waits = true
            gate:wait()
            went_on = true
          end)
        end)
      end)
      while not waits do jdbfs.yield() end
      task:cancel()
      task:join()
      gate:set()
      for _ = 1, 5 do jdbfs.yield() end
    end)
    assert.is_false(went_on)
  end)

  it("ends its function with a task that cancelled itself before", function()
    jdbfs.run(function()
      local started, went_on, waiter = false, false, nil
      waiter = jdbfs.spawn(function()
        waiter:cancel()
        jdbfs.timeout(1000, function()
          started = true
          jdbfs.sleep(1000)
        end)
        went_on = true
      end)
      support.fails({ kind = "Cancelled" }, waiter:join())
      jdbfs.yield()
      assert.are.same({ false, false, 1 }, { started, went_on, jdbfs.stats().tasks })
    end)
  end)

  it("forgets a function that has ended, when the waiter is cancelled later", function()
    jdbfs.run(function()
      for _ = 1, 50 do
        local task = jdbfs.spawn(function()
          jdbfs.timeout(1, function() return 1 end)
          jdbfs.sleep(5)
        end)
        for _ = 1, 3 do jdbfs.sleep(0) end
        collectgarbage()
        collectgarbage()
        task:cancel()
        support.fails({ kind = "Cancelled" }, task:join())
      end
    end)
  end)

  it("detaches from an operation in flight: nothing is lost, nothing comes later", function()
    local f = new_file(1)
    jdbfs.run(function()
      local b = jdbfs.buffer(256 * PAGE)
      b:fill(7)
      for _ = 1, 20 do
        local n, _, err = jdbfs.timeout(0.0002, f.write_at, f, b, 0)
        assert.is_true(n == 256 * PAGE or err.kind == "Timeout" or err.kind == "Busy",
          err and err.message)
        local mine = jdbfs.buffer(PAGE)
        assert.are.equal(PAGE, f:read_upto(mine, 0))
      end
    end)
    support.wait_idle()
    assert(f:close())
  end)
end)

describe("the memory of tasks that wait", function()
  process.setup()

  -- In a process of its own, whose heap nobody else changes.
  it("is what info and stats tell, for thousands", function()
    local out = process.script([[
      local N = 4000
      local function heap()
        collect()
        return collectgarbage("count") * 1024
      end
      local told = jdbfs.info().task_bytes
      check("an integer", told % 1 == 0 and told == jdbfs.info().task_bytes, told)
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      local page = jdbfs.buffer(jdbfs.PAGE_SIZE)
      check("write", f:write_at(page, 0))
      local before, slots, measured = jdbfs.stats().slot_bytes, jdbfs.stats().slots
      local each = before / slots
      check("each slot", each % 8 == 0 and each >= 128 and each <= 512, each)
      jdbfs.run(function()
        local function sleep() jdbfs.sleep(1) end
        local empty = heap()
        local tasks = {}
        for i = 1, N do tasks[i] = false end
        empty = heap()
        for i = 1, N do tasks[i] = jdbfs.spawn(sleep) end
        jdbfs.yield()
        jdbfs.yield()
        measured = (heap() - empty) / N
        for i = 1, N do tasks[i]:cancel() end
      end)
      check("as told", told / measured > 0.85 and told / measured < 1.15, told, measured)
      check("no operation", jdbfs.stats().slot_bytes == before)
      jdbfs.run(function()
        local function read() f:read_at(page:slice(0, 0), 0) f:read(0, 1) end
        for _ = 1, N do jdbfs.spawn(read) end
      end)
      local s = jdbfs.stats()
      check("as many as waited at once", s.slots > slots and s.slot_bytes == s.slots * each,
        s.slots, s.slot_bytes)
      print(("%d bytes told, %.0f measured"):format(told, measured))
    ]])
    support.figures("a task that waits: " .. out:gsub("%s+$", ""))
  end)
end)
