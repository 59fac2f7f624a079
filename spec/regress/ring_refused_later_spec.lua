-- A process may forbid io_uring to itself when its queue is open: a seccomp filter that is loaded
-- later. The queue then entered the ring for ever, at full load, and the operations of the pool,
-- which the ring announces, never ended. What the kernel has at that moment cannot be fetched any
-- more, and whoever waited for it waited for ever: it fails now, and its memory stays in use.
local jdbfs = require("jdbfs")
local process = require("support_process")

describe("io_uring that is refused when the queue is in use", function()
  process.setup()

  local WORK = [[
    local PAGE = jdbfs.PAGE_SIZE
    local before = jdbfs.info().reason
    local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
    local function round(n)
      local tasks = {}
      for i = 1, n do
        tasks[i] = jdbfs.spawn(function()
          local b = jdbfs.buffer(PAGE)
          b:fill(i)
          check("write", f:write_at(b, (i - 1) * PAGE))
          check("durable", f:write_at(b, (i - 1) * PAGE, 0, PAGE, "dsync"))
          check("read", f:read((i - 1) * PAGE, PAGE) == string.char(i):rep(PAGE))
        end)
      end
      for i = 1, n do tasks[i]:join() end
    end
    for _ = 1, 3 do
      jdbfs.run(round, 1)
      round(1)
    end
    if jdbfs.info().reason ~= before then jdbfs.run(round, 20) end
    check("sync", f:sync_all())
    check("poisoned", not f:info().poisoned)
    check("close", f:close())
    local s = jdbfs.stats()
    check("left", s.in_flight + s.waiting + s.abandoned == 0)
    local clock = os.clock()
    jdbfs.run(jdbfs.sleep, 0.3)
    check("spins", os.clock() - clock < 0.2, os.clock() - clock)
    print(jdbfs.info().reason ~= before and jdbfs.info().reason or "")
  ]]

  for _, name in ipairs({ "EPERM", "ENOSYS", "EBADF" }) do
    it("loses no operation to " .. name .. ", and threads do the work", function()
      local _, why = process.strace("x:error=EIO")
      if why then return pending(why) end
      if jdbfs.info().backend ~= "io_uring" then return pending("about io_uring alone") end
      -- Refused once the first, the second, ... entry has been made, until none was refused.
      local refused = 0
      local long = os.getenv("JDBFS_TEST_LONG") == "1"
      local first, last = 0, name == "EPERM" and 200 or 3
      while first < last do
        first = first + (long and 1 or math.floor(first / 4) + 1)
        local prefix = process.strace(("io_uring_enter:error=%s:when=%d+"):format(name, first))
        local out = process.script(WORK, { prefix = prefix, env = { JDBFS_BACKEND = "io_uring" } })
        if out == "\n" then break end
        assert.matches("refused later (" .. name .. ")", out, 1, true)
        refused = refused + 1
      end
      assert.is_true(refused >= 3, "refused " .. refused .. " times")
    end)
  end

  -- Reads, writes and a flush are handed over, and then the filter comes. They end on the pool's
  -- side only where the kernel answers at once, as from the page cache.
  local IN_FLIGHT = [[
    local forbid = assert(package.loadlib(arg[3], "forbid_entering"))
    local PAGE = jdbfs.PAGE_SIZE
    local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
    for i = 0, 15 do
      local b = jdbfs.buffer(PAGE)
      b:fill(i)
      check("write", f:write_at(b, i * PAGE))
    end
    local buffers, results, tasks = {}, {}, {}
    local function go()
      for i = 1, 8 do
        buffers[i] = jdbfs.buffer(PAGE)
        buffers[i]:fill(100 + i)
        local method = i <= 4 and f.read_at or f.write_at
        tasks[i] = jdbfs.spawn(function() results[i] = { method(f, buffers[i], i * PAGE) } end)
      end
      tasks[9] = jdbfs.spawn(function() results[9] = { f:sync_data() } end)
      jdbfs.yield()
      jdbfs.flush()
      forbid()
    end
    local function judge()
      local lost = 0
      for i = 1, 9 do
        local ok, message, err = unpack(results[i])
        if not ok then
          lost = lost + 1
          check("kind", err.kind == "Io" and err.name == "EIO", err)
          check("message", message:find("refuses to tell how it ended", 1, true), message)
          if i <= 8 then
            local freed, why = pcall(buffers[i].free, buffers[i])
            check("busy", not freed and why:find("in flight", 1, true), why)
          end
        end
      end
      check("flush", results[9][1] or f:info().poisoned)
      local s = jdbfs.stats()
      check("left", s.in_flight + s.waiting + s.abandoned + s.tasks == 0)
      -- Everything goes on, in threads, and no new buffer lies where the kernel may write.
      check("read", f:read(0, PAGE) == ("\0"):rep(PAGE))
      check("close", f:close())
      local g = check("open", jdbfs.open_rw(dir .. "/f"))
      check("sync", g:sync_all())
      local kept = 0
      for i = 1, 8 do if not results[i][1] then kept = kept + 1 end end
      buffers, tasks, results = {}, {}, {}
      collect()
      check("kept", jdbfs.stats().buffers == kept, jdbfs.stats().buffers, kept)
      print(lost, jdbfs.info().reason)
    end
  ]]

  local function forbidden(ending)
    if jdbfs.info().backend ~= "io_uring" then return nil, "about io_uring alone" end
    local forbid, why = process.forbid()
    local helper = process.forker()
    if not forbid or not helper then return nil, why or "no forker" end
    return (process.script(IN_FLIGHT .. ending, { args = { forbid }, forker = helper,
      env = { JDBFS_BACKEND = "io_uring" }, prefix = "timeout -k 2 60" }))
  end

  local function tells(ending)
    local out, why = forbidden(ending)
    if not out then return pending(why) end
    local lost = tonumber(out:match("^%d+"))
    assert(lost and lost >= 1, out)
    assert.matches("refused later (EPERM)", out, 1, true)
    assert.matches(lost .. " operations ended in doubt", out, 1, true)
  end

  it("fails what the kernel has, whose memory nobody gets, and goes on in threads", function()
    tells("jdbfs.run(function() go() for i = 1, 9 do tasks[i]:join() end end) judge()")
  end)

  it("tells a host that polls", function()
    tells([[
      local fd = assert(jdbfs.pollfd())
      jdbfs.spawn(go)
      local turns = 0
      repeat
        jdbfs.step(0)
        turns = turns + 1
        check("turns", turns < 1000)
        check("the descriptor", jdbfs.pending() == 0 or forker.poll(fd, 5), "silent")
      until jdbfs.pending() == 0
      judge()
    ]])
  end)

  it("does not hold up a state that closes", function()
    local out, why = forbidden([[
      print(pcall(jdbfs.run, function() go() error("left", 0) end))
    ]])
    if not out then return pending(why) end
    assert.matches("^false\tleft", out)
  end)
end)
