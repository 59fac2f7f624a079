-- A process may forbid io_uring to itself when its queue is open: a seccomp filter that is loaded
-- later. The queue then entered the ring for ever, at full load, and the operations of the pool,
-- which the ring announces, never ended. (What the kernel has at that moment cannot be fetched any
-- more; here it has nothing.)
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
      if os.getenv("JDBFS_BACKEND") == "threads" then return pending("about io_uring alone") end
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
end)
