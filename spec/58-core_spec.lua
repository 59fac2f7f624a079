-- What jdbfs.core itself refuses. Our Lua modules never ask for it, a program may: an error, no
-- crash, and everything works afterwards.

local core = require "jdbfs.core"
local process = require "support_process"
local support = require "support"

local jdbfs, raises = support.jdbfs, support.raises
local PAGE = jdbfs.PAGE_SIZE

describe("a random stream", function()
  support.setup()

  it("refuses numbers that it cannot draw from", function()
    local r = core.random(1, 2, 3)
    raises("negative", core.random, -1, 0, 0)
    raises("out of range", core.random, 2 ^ 54, 0, 0)
    raises("random stream expected", r.int, {}, 1, 2)
    raises("more than 0", r.pareto, r, 0)
    raises("more than 0", r.zipf, r, 5, 0)
    raises("more than 0", r.zipf, r, 5, 100)
    raises("something in it", r.pick, r, {})
    raises("out of range", r.bytes, r, 2 ^ 31)
    local drawn = r:int(-1, 1)
    assert.is_true(drawn >= -1 and drawn <= 1 and drawn % 1 == 0)
  end)

  it("draws no page before it knows the file, nor of a file that makes no sense", function()
    local r = core.random(1, 2, 3)
    local bad = {
      { "hotspot", 10, PAGE, 1, 1, 0, false, 0 }, { "hotspot", 10, PAGE, 1, 1, 0, false, 1 },
      { "hotspot", 10, PAGE, 1, 1, 0, false, 0.5, -1 }, { "zipf", 10, PAGE, 1, 1, 0, false, 0 },
      { "hotspot", 10, PAGE, 1, 1, 0, false, 0.5, 2 }, { "pareto", 10, PAGE, 1, 1, 0, false, 2 },
      { "uniform", 0, PAGE, 1, 1, 0 }, { "none", 10, PAGE, 1, 1, 0 },
    }
    local function refused(arguments)
      assert.is_false((pcall(r.pages, r, (table.unpack or unpack)(arguments))))
    end
    for _, arguments in ipairs(bad) do
      refused(arguments)
      raises("no target file", r.page, r)
    end
    r:pages("uniform", 10, PAGE, 1, 1, 0)
    for _, arguments in ipairs(bad) do
      refused(arguments)
      for _ = 1, 5 do assert.is_true(r:page() < 10 * PAGE) end
    end
  end)

  it("fills no buffer that is freed or in flight", function()
    local r, b = core.random(1, 2, 3), jdbfs.buffer(PAGE)
    jdbfs.run(function()
      local f = assert(jdbfs.create(support.path("f"), { direct = "prefer" }))
      local writer = jdbfs.spawn(function() return f:write_at(b, 0) end)
      jdbfs.yield()
      raises("in flight", r.fill, r, b)
      assert.are.equal(PAGE, writer:join())
      r:fill(b)
      assert(f:close())
    end)
    raises("too small", core.number, b:slice(0, 15), 1, 2)
    b:free()
    raises("was freed", r.fill, r, b)
  end)

  it("and arrivals need a rate and a stream", function()
    local r = core.random(1, 2, 3)
    for _, rate in ipairs { 0, -1, 2e9, 0 / 0 } do
      raises("a rate expected", core.arrivals, rate, "const", r)
    end
    raises("random stream expected", core.arrivals, 1, "const", {})
    local arrivals = core.arrivals(1, "const", r)
    raises("arrivals expected", arrivals.mark, r)
    raises("not in a task", core.due)
    jdbfs.run(function() assert.is_nil(core.due()) end)
  end)
end)

describe("a meter", function()
  support.setup()

  it("has at most 64 names, of at most 47 bytes", function()
    local m = core.meter()
    raises("meter expected", m.track, core.random(1, 1, 1), "x")
    raises("1 to 47 bytes", m.track, m, "")
    raises("1 to 47 bytes", m.track, m, ("x"):rep(48))
    local names = 0
    while pcall(m.track, m, "name" .. names) do names = names + 1 end
    assert.is_true(names > 40 and names < 64)
    raises("more than 64 names", m.track, m, "one more")
    assert.are.equal(m:track("name0"), m:track("name0"))
  end)

  it("knows its tracks, and counts what failed", function()
    local m = core.meter()
    local track = m:track("mine")
    for _, wrong in ipairs { -1, track + 1, 1000 } do
      raises("track expected", m.stop, m, wrong, 0, 0)
      raises("track expected", m.add, m, wrong, 0)
    end
    raises("not in a task", m.start, m)
    jdbfs.run(function()
      local f = assert(jdbfs.create(support.path("f"), { direct = "prefer" }))
      assert(f:write_at(jdbfs.buffer(PAGE), 0) and f:close())
      local due, start = m:start()
      m:stop(track, due, start, "it failed")
      m:add(track, -5)
    end)
    m:take(true)
    for _, totals in ipairs(m:totals()) do
      if totals.name == "mine" then
        assert.are.same({ 1, { failed = 1 } }, { totals.n, totals.errors })
        return
      end
    end
    error("the track has no totals")
  end)

  it("leaves batches as they are when the numbers are none", function()
    for _, wrong in ipairs { -1, 4097 } do
      raises("0 to 4096", core.batching, wrong, 0)
      raises("0 to 4096", core.batching, 0, wrong)
    end
  end)
end)

describe("batching", function()
  support.setup()

  after_each(function() core.batching(0, 0) end)

  it("waits for as many as it was told, and hands over what is ready with the same call", function()
    if jdbfs.info().backend ~= "io_uring" then return pending("only a ring counts its calls") end
    local TASKS, READS = 32, 100
    local file = assert(jdbfs.create(support.path("a")))
    assert(file:write_at(jdbfs.buffer(TASKS * PAGE), 0)) -- no holes, which are read at once
    assert(file:sync_all())
    core.batching(16, 16)
    local before = jdbfs.stats()
    support.run(function()
      for i = 0, TASKS - 1 do
        local page = jdbfs.buffer(PAGE)
        jdbfs.spawn(function()
          for _ = 1, READS do assert(file:read_at(page, i * PAGE)) end
        end)
      end
    end)
    local after = jdbfs.stats()
    assert.are.equal(TASKS * READS, after.completed - before.completed)
    local calls = after.entries - before.entries
    assert.is_true(calls <= TASKS * READS / 16 * 1.1 + 16, calls)
    assert(file:close())
  end)

  it("does not give up waiting for them where the device is slow", function()
    local reaps = tonumber((process.script([[
      local core = require "jdbfs.core"
      assert(require("jdbfs.sim").reset { latency = { 0.005, 0.05 } })
      local meter = core.meter() -- reaps are counted where something is measured
      local file = assert(jdbfs.create("a"))
      assert(file:truncate(32 * 4096))
      core.batching(32, 16)
      local before = jdbfs.stats().reaps
      jdbfs.run(function()
        for i = 0, 31 do
          local page = jdbfs.buffer(4096)
          jdbfs.spawn(function()
            for _ = 1, 100 do assert(file:read_at(page, i * 4096)) end
          end)
        end
      end)
      print(jdbfs.stats().reaps - before)
      meter:close()
    ]], { env = { JDBFS_BACKEND = "sim" }, own_disk = true })))
    assert.is_true(reaps >= 200 and reaps < 250, reaps)
  end)
end)

describe("batches of a log", function()
  support.setup()

  local HALF = ("h"):rep(8)

  it("need two buffers, half an identity and a number", function()
    local b, other = jdbfs.buffer(PAGE), jdbfs.buffer(PAGE)
    local batches = core.batches(b, other, HALF, 1)
    raises("batches expected", batches.put, {}, "x")
    raises("8 bytes", core.batches, b, other, "h", 1)
    raises("negative", core.batches, b, other, HALF, -1)
    raises("string or jdbfs buffer", batches.put, batches, {})
    other:free()
    raises("was freed", core.batches, b, other, HALF, 1)
    raises("was freed", core.batches, other, b, HALF, 1)
    raises("cannot use", batches.use, batches, other)
    assert.are.equal(1, batches:put("they hold their memory themselves"))
    raises("cannot use", batches.use, batches, b)
    debug.getmetatable(batches).__gc(batches)
    raises("batches expected", batches.put, batches, "x")
  end)

  it("take what fits, of a buffer that can be read, one after the other", function()
    local memory, data = jdbfs.buffer(PAGE), jdbfs.buffer(PAGE)
    local batches = core.batches(memory, jdbfs.buffer(PAGE), HALF, 7)
    assert.is_false(batches:put(("x"):rep(PAGE)))
    raises("not empty", batches.segment, batches, 0, 0, 0)
    batches:segment(512, 8192, 512)
    assert.are.equal(0, batches:take())
    assert.are.equal(7, batches:put("x"))
    jdbfs.run(function()
      local f = assert(jdbfs.create(support.path("f"), { direct = "prefer" }))
      assert(f:write_at(memory, 0))
      local writer = jdbfs.spawn(function() return f:write_at(memory, 0) end)
      local reader = jdbfs.spawn(function() return f:read_at(data, 0) end)
      jdbfs.yield()
      raises("not ours", batches.put, batches, "x")
      assert.are.same({ nil, "Busy", "the buffer is in flight" }, { batches:put(data) })
      assert.are.same({ PAGE, PAGE }, { writer:join(), reader:join() })
      assert(f:close())
    end)
    data:free()
    assert.are.same({ nil, "Closed", "the buffer was freed" }, { batches:put(data) })
    batches:segment(512, 8192, 2 * PAGE)
    raises("cannot be taken", batches.take, batches)
    batches:segment(512, 8192, 512)
    assert.are.same({ 1, 512, 1 }, { batches:take() })
    assert.are.equal(8, batches:put("y"))
    raises("cannot be taken", batches.take, batches)
    assert.are.same({ 6, 512, 0, 0, 7 }, { batches:position() })
    batches:open()
    assert.are.same({ 1, 512, 2 }, { batches:take() })
    assert.are.same({ 7, 1024, 1, 512, 8 }, { batches:position() })
  end)
end)

describe("functions of jdbfs.core", function()
  process.setup()

  it("that wait refuse where nobody could", function()
    raises("park outside", core.park)
    raises("await outside", core.await)
    raises("guest expected", core.enter, jdbfs.spawn(function() end))
    raises("function of this module", core.hosted, 1)
    jdbfs.run(function()
      raises("has not ended", core.results, jdbfs.spawn(function() end))
      raises("cannot wait inside a task", core.drive, {})
      local other = jdbfs.spawn(jdbfs.sleep, 0.001)
      coroutine.wrap(function() raises("not made by jdbfs.wrap", core.wait, other) end)()
      raises("inside a task", jdbfs.step)
    end)
  end)

  it("that need a queue tell why there is none", function()
    local out = process.script([[
      local core = require "jdbfs.core"
      for _, call in ipairs { "meter", "batching", "relay", "flush", "pollfd" } do
        local value, message, err = core[call](0, 0)
        check(call, value == nil and err.kind == "Unsupported" and err.op == call, message)
      end
      local ok, message = pcall(core.drive, {})
      check("drive", not ok and message:find("JDBFS_BACKEND", 1, true), message)
      check("accept", core.relay_accept() == nil)
      core.relay_arm()
      core.relay_close()
      core.signal()
      print("ok")
    ]], { env = { JDBFS_BACKEND = "nonsense" } })
    assert.are.equal("ok\n", out)
  end)

  it("tell the size of a terminal, and why a directory stays", function()
    local message = select(2, core.remove_directory(support.path("none")))
    assert.matches("remove_directory", message, 1, true)
    assert.matches("ENOENT", message, 1, true)
    assert.is_nil(core.terminal(999))
    local why = support.lacks("script")
    if why then return pending(why) end
    local command = support.quote(os.getenv("JDBFS_TEST_LUA") or "lua") ..
      " -e 'print((require \"jdbfs.core\").terminal(0))'"
    local _, out = support.sh("script -qec " ..
      support.quote("stty cols 70 rows 9; " .. command) .. " /dev/null </dev/null")
    assert.matches("^70%s+9%s", out)
  end)
end)

describe("a signal to end", function()
  process.setup()

  it("is noted once; the second one is in earnest", function()
    if support.on_windows then return pending("Windows has no such signals") end
    local r = support.script([[
      local core = require "jdbfs.core"
      io.stdout:setvbuf("no")
      core.catch_signals(true)
      os.execute("kill -TERM $PPID")
      print(core.signalled())
      os.execute("kill -TERM $PPID")
      print("not reached")
    ]])
    assert.are.same({ "15\n", 143 }, { r.out, r.status })
  end)
end)

describe("a relay", function()
  process.setup()

  it("sends a byte when the host is to look, and none before it was armed again", function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    if jdbfs.info().backend == "sim" then return pending("the simulated disk's time is its own") end
    local out = process.script([[
      local core = require "jdbfs.core"
      local path = assert(core.relay())
      local value, _, err = core.relay_accept()
      check("nobody has connected", value == nil and err.op == "relay" and err.name == "EAGAIN")
      path = assert(core.relay())
      local fd = forker.connect(path)
      check("accepted", core.relay_accept() == true)
      check("its name is gone", not require("lfs").attributes(path))
      core.relay_arm()
      core.signal()
      check("a byte", forker.poll(fd, 5))
      local task = jdbfs.spawn(function() return jdbfs.exists(dir) end)
      core.relay_arm()
      while jdbfs.pending() > 0 do jdbfs.step(0.01) end
      check("the task", task:join() == true)
      core.relay_close()
      core.relay_close()
      print("ok")
    ]], { forker = forker })
    assert.are.equal("ok\n", out)
  end)
end)

-- The library belongs to who comes after a fork: a server's workers, whose master left a queue.
describe("a process that renews", function()
  process.setup()

  it("makes a queue of its own after a fork, unless tasks are left", function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    if os.getenv("JDBFS_TEST_SAN") == "thread" then
      return pending("the thread sanitizer cannot follow new threads in a forked child")
    end
    local out = process.script([[
      io.stdout:setvbuf("no")
      local core = require "jdbfs.core"
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      core.renews()
      local function in_child(body)
        local pid = forker.fork()
        if pid == 0 then
          local ok, problem = pcall(body)
          if not ok then io.stderr:write(tostring(problem), "\n") end
          forker._exit(ok and 0 or 9)
        end
        local status, signal = forker.waitpid(pid)
        check("the child", status == 0, status, signal)
      end
      in_child(function()
        check("a queue of its own", jdbfs.exists(dir .. "/f"))
        local value, message, err = f:size()
        check("the parent's file", value == nil and err.kind == "Forked" and err.path == f:path(),
          message)
        local own = assert(jdbfs.open(dir .. "/f", { direct = "prefer" }))
        check("its own file", own:size() == 0 and own:close())
      end)
      local waiting = jdbfs.spawn(jdbfs.sleep, 0.01)
      in_child(function()
        local value, _, err = jdbfs.exists(dir)
        check("tasks are left", value == nil and err.kind == "Forked")
        local ok, message = pcall(core.wait, waiting)
        check("nor waited for", not ok and message:find("parent process", 1, true), message)
      end)
      check("the parent", waiting:join() and f:size() == 0 and f:close())
      print("ok")
    ]], { forker = forker })
    assert.are.equal("ok\n", out)
  end)
end)

describe("a Lua without its debug library", function()
  process.setup()

  it("runs tasks, whose errors have no traceback", function()
    local r = support.script([[
      debug, package.loaded.debug = nil, nil
      local jdbfs = require "jdbfs"
      local ok, message = pcall(jdbfs.run, function()
        assert(jdbfs.exists("/") == true)
        error("the end", 0)
      end)
      io.write(tostring(ok), " ", tostring(message))
    ]])
    assert.are.equal("false the end", r.out .. r.err)
  end)
end)
