-- A host that owns the loop: pollfd, step, pending, flush, stats, driven by bare poll(2).

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local PAGE = jdbfs.PAGE_SIZE

local function new_file(pages)
  local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
  local b = jdbfs.buffer(PAGE)
  for i = 0, pages - 1 do
    b:fill(i % 251)
    assert(f:write_at(b, i * PAGE))
  end
  return f
end

describe("a host's loop", function()
  process.setup()

  local forker, why, fd
  before_each(function()
    local path
    path, why = process.forker()
    forker = path and assert(package.loadlib(path, "luaopen_forker"))()
    fd = assert(jdbfs.pollfd())
    jdbfs.step()
  end)

  local function hosted(name, body)
    it(name, function()
      if not forker then return pending(why) end
      body()
    end)
  end

  local function poll(seconds) return forker.poll(fd, seconds) end

  -- A wake may be spare now and then, but not for ever.
  local function falls_silent()
    for _ = 1, 20 do
      if not poll(0.05) then return true end
      jdbfs.step()
    end
    return false
  end

  -- What a host does: poll, step, until nothing is pending. Gives the number of turns.
  local function drive()
    local turns = 0
    jdbfs.step()
    while jdbfs.pending() > 0 do
      assert(poll(5), "work is pending and the descriptor stays silent")
      jdbfs.step()
      turns = turns + 1
      assert(turns < 100000)
    end
    return turns
  end

  hosted("is given the same descriptor each time", function()
    assert.is_true(fd >= 0)
    assert.are.equal(fd, jdbfs.pollfd())
  end)

  hosted("finds the descriptor readable when a completion waits, and silent when idle", function()
    local f = new_file(4)
    assert.is_true(falls_silent(), "readable when idle")
    local got
    local task = jdbfs.spawn(function() got = f:read_at(jdbfs.buffer(PAGE), PAGE) end)
    assert.is_true(poll(1), "a task is ready to start")
    jdbfs.step()
    assert.are.equal("waiting", task:status())
    assert.is_true(poll(5), "the read is done")
    for _ = 1, 100 do
      if got then break end
      jdbfs.step()
    end
    assert.are.equal(PAGE, got)
    assert.are.equal("done", task:status())
    assert.is_true(falls_silent(), "readable after all was delivered")
    assert(f:close())
  end)

  hosted("drives many tasks to their end, without turning idly", function()
    local f = new_file(64)
    local done = 0
    for i = 1, 200 do
      jdbfs.spawn(function()
        local b = jdbfs.buffer(PAGE)
        for k = 1, 5 do
          local at = (i * k) % 64
          assert(f:read_at(b, at * PAGE))
          assert(b:u8(3) == at)
          if k == 3 then assert(f:stat()) end
        end
        done = done + 1
      end)
    end
    local turns = drive()
    assert.are.equal(200, done)
    -- 1200 operations; a wake may be spare now and then.
    assert.is_true(turns < 5000, "turned " .. turns .. " times")
    assert(f:close())
  end)

  hosted("is woken for operations of the worker threads as well", function()
    local path = support.path()
    local stages = 0
    jdbfs.spawn(function()
      local f = assert(jdbfs.create(path, { direct = "prefer" }))
      stages = stages + 1
      assert(f:write_at(support.page(1), 0))
      stages = stages + 1
      assert(f:sync_all())
      assert(f:stat())
      stages = stages + 1
      assert(f:close())
      assert(jdbfs.rename(path, path .. "x"))
      assert(jdbfs.exists(path .. "x"))
      assert(jdbfs.remove(path .. "x"))
      stages = stages + 1
    end)
    drive()
    assert.are.equal(4, stages)
  end)

  hosted("is woken for work that other calls leave: spawn, cancel, wake, calls in place", function()
    local f = new_file(2)
    local event, got = jdbfs.event(), {}
    local waiter = jdbfs.spawn(function()
      event:wait()
      got[#got + 1] = "event"
    end)
    local sleeper = jdbfs.spawn(function() jdbfs.sleep(100) end)
    jdbfs.step()
    while poll(0) do jdbfs.step() end
    event:set()
    assert.is_true(poll(1), "woken by an event")
    jdbfs.step()
    assert.are.equal("done", waiter:status())
    while poll(0) do jdbfs.step() end
    sleeper:cancel()
    assert.is_true(poll(1), "woken by a cancellation")
    jdbfs.step()
    assert.are.equal("cancelled", sleeper:status())
    -- A call in place may find completions of tasks: the host hears of them.
    local task = jdbfs.spawn(function() return f:read_at(jdbfs.buffer(PAGE), 0) end)
    jdbfs.step()
    for _ = 1, 20 do assert(f:size()) end
    for _ = 1, 100 do
      if task:status() == "done" then break end
      assert(poll(5), "the completion was swallowed")
      jdbfs.step()
    end
    assert.are.equal(PAGE, task:join())
    assert(f:close())
  end)

  hosted("counts what is pending, sleepers among it", function()
    local f = new_file(1)
    assert.are.equal(0, jdbfs.pending())
    jdbfs.spawn(function() jdbfs.sleep(0.01) end)
    assert.is_true(jdbfs.pending() > 0)
    jdbfs.step()
    assert.is_true(jdbfs.pending() > 0)
    jdbfs.spawn(function() f:read_at(jdbfs.buffer(PAGE), 0) end)
    jdbfs.step()
    while jdbfs.pending() > 0 do jdbfs.step(1) end
    assert.are.equal(0, jdbfs.stats().tasks)
    assert(f:close())
  end)

  hosted("hears of timers: the descriptor is silent until one is due", function()
    jdbfs.step()
    assert.is_true(falls_silent())
    local later = jdbfs.spawn(function() jdbfs.sleep(30) end)
    local task = jdbfs.spawn(function() jdbfs.sleep(0.3) end)
    jdbfs.step()
    assert.is_true(falls_silent()) -- on a busy machine the timer may be due meanwhile
    for _ = 1, 50 do
      if task:status() == "done" then break end
      assert.is_true(poll(5), "the timer was not announced")
      jdbfs.step()
    end
    assert.are.equal("done", task:status())
    later:cancel()
    jdbfs.step()
  end)

  hosted("may step with a time: it returns early when something comes", function()
    local f = new_file(1)
    local task = jdbfs.spawn(function() return f:read_at(jdbfs.buffer(PAGE), 0) end)
    local before = jdbfs.now()
    local resumed = 0
    while task:status() ~= "done" do resumed = resumed + jdbfs.step(10) end
    assert.are.equal(2, resumed)
    assert.is_true(jdbfs.now() - before < 5)
    assert(f:close())
  end)

  hosted("does no work while operations are in flight and the descriptor is silent", function()
    local f = new_file(1)
    local before = os.clock()
    jdbfs.spawn(function() jdbfs.sleep(0.2) end)
    jdbfs.step(0.3)
    assert.is_true(os.clock() - before < 0.15, "busy for " .. os.clock() - before)
    before = os.clock()
    jdbfs.run(function() jdbfs.sleep(0.2) end)
    assert.is_true(os.clock() - before < 0.15, "busy for " .. os.clock() - before)
    assert(f:close())
  end)

  hosted("flush hands over what is staged, and is harmless when there is nothing", function()
    local f = new_file(1)
    assert.is_true(jdbfs.flush())
    jdbfs.spawn(function() f:read_at(jdbfs.buffer(PAGE), 0) end)
    assert.is_true(jdbfs.flush())
    jdbfs.step()
    assert.is_true(jdbfs.flush())
    drive()
    assert(f:close())
  end)

  hosted("hears of completions that a step before an error left behind", function()
    local f = new_file(8)
    local done = 0
    for i = 1, 8 do
      jdbfs.spawn(function()
        f:read_at(jdbfs.buffer(PAGE), (i - 1) * PAGE)
        if i % 4 == 1 then error("boom", 0) end
        done = done + 1
      end)
    end
    local raised, turns = 0, 0
    if not pcall(jdbfs.step) then raised = raised + 1 end
    while jdbfs.pending() > 0 or jdbfs.stats().tasks > 0 do
      assert(poll(5), ("silent with %d pending, %d tasks, after %d errors"):format(
        jdbfs.pending(), jdbfs.stats().tasks, raised))
      if not pcall(jdbfs.step) then raised = raised + 1 end
      turns = turns + 1
      assert(turns < 1000)
    end
    assert.are.equal(2, raised)
    assert.are.equal(6, done)
    assert(f:close())
  end)

  hosted("hears of tasks that were ready behind one that raised", function()
    local order = {}
    for i = 1, 4 do
      jdbfs.spawn(function()
        if i == 2 then error("boom", 0) end
        order[#order + 1] = i
      end)
    end
    local raised = 0
    for _ = 1, 10 do
      if jdbfs.stats().tasks == 0 then break end
      assert(poll(2), "silent with tasks ready")
      if not pcall(jdbfs.step) then raised = raised + 1 end
    end
    assert.are.equal(1, raised)
    assert.are.same({ 1, 3, 4 }, order)
  end)

  it("tells of its work in stats", function()
    local f = new_file(2)
    local before = jdbfs.stats()
    for i = 0, 1 do assert(f:read_at(jdbfs.buffer(PAGE), i * PAGE)) end
    local after = jdbfs.stats()
    assert.are.equal(before.submitted + 2, after.submitted)
    assert.are.equal(before.completed + 2, after.completed)
    for _, name in ipairs({ "submitted", "completed", "entries", "pool_operations", "resubmitted",
      "in_flight", "waiting", "abandoned", "slots", "workers", "tasks", "buffers", "files" }) do
      assert.is_true(after[name] >= 0, name)
    end
    assert(f:close())
  end)

  it("loses nothing when io_uring_enter is refused while the host waits", function()
    local helper, no_helper = process.forker()
    if not helper then return pending(no_helper) end
    for _, fault in ipairs({ "EINTR:when=2", "EAGAIN:when=1", "EAGAIN:when=2", "EAGAIN:when=3",
      "EAGAIN:when=4", "EBUSY:when=2", "EBUSY:when=3", "EAGAIN:when=2+3" }) do
      local prefix, no_strace = process.strace("io_uring_enter:error=" .. fault)
      if not prefix then return pending(no_strace) end
      local out = process.script([[
        local page = jdbfs.PAGE_SIZE
        local fd = jdbfs.pollfd()
        if not fd then print("ok") return end
        local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
        assert(f:write_at(jdbfs.buffer(page), 0))
        local done = 0
        for i = 1, 8 do
          jdbfs.spawn(function()
            for _ = 1, 3 do check("read", f:read_at(jdbfs.buffer(page), 0) == page) end
            done = done + 1
          end)
        end
        jdbfs.step()
        local turns = 0
        while done < 8 do
          check("the descriptor", forker.poll(fd, 5), "silent", done, jdbfs.pending())
          jdbfs.step()
          turns = turns + 1
          check("turns", turns < 10000)
        end
        print("ok")
      ]], { prefix = prefix, forker = helper })
      assert.are.equal("ok\n", out, fault)
    end
  end)
end)
