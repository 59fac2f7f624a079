-- The tools that find mistakes find them: each is planted once and must be seen. And a plan does
-- what it says, no more.

local process = require "support_process"
local support = require "support"
local support_faults = require "support_faults"

local jdbfs, faults = support.jdbfs, support_faults.faults
local under = support_faults.under
local PAGE = jdbfs.PAGE_SIZE

local function some_file(o)
  return assert(jdbfs.create(support.path("f"), o or { direct = "prefer" }))
end

describe("a plan", function()
  support.setup()

  it("counts what matched and what fired", function()
    local f = some_file()
    faults.plan("read_at:nth=2:count=2:errno=EIO;nothing_of_that_name:errno=EIO")
    local b = support.page(1)
    assert(f:write_at(b, 0))
    local failed = 0
    for _ = 1, 5 do if not f:read_at(b, 0) then failed = failed + 1 end end
    local seen, fired = faults.rule(1)
    local other_seen, other_fired = faults.rule(2)
    assert.are.same({ 2, 5, 2, 0, 0, 2 },
      { failed, seen, fired, other_seen, other_fired, faults.injected() })
    faults.plan()
    f:close()
  end)

  it("that makes no sense is refused", function()
    for _, text in ipairs { "read_at:nth=1", "read_at:colour=red:errno=EIO", "plant=tree",
      "read_at:errno=EFLY", ("read_at:errno=EIO;"):rep(33) } do
      support.raises("no plan", faults.plan, text)
    end
    faults.plan()
  end)

  it("fails before: nothing was done; after: all was done", function()
    local f = some_file()
    assert(f:write_at(support.page(1), 0))
    local path = f:path()
    local value, message, err = under("write_at:errno=EIO", f.write_at, f, support.page(2), 0)
    support.fails({ kind = "Io", name = "EIO", op = "write_at", path = path }, value, message, err)
    assert.are.equal(1, f:read(0, 1):byte())
    value, message, err = under("write_at:errno=EIO:when=after", f.write_at, f, support.page(2), 0)
    support.fails({ kind = "Io", name = "EIO", op = "write_at", path = path }, value, message, err)
    assert.are.equal(2, f:read(0, 1):byte())
    f:close()
  end)

  it("shortens before it submits: the rest is really not there", function()
    local f = some_file()
    assert(f:truncate(2 * PAGE))
    local b = assert(jdbfs.buffer(2 * PAGE))
    b:fill(7)
    local plan = ("write_at:short=%d;write_at:nth=2:errno=ENOSPC"):format(PAGE)
    local value, message, err = under(plan, f.write_at, f, b, 0)
    support.fails({ kind = "Io", name = "ENOSPC", actual = PAGE, length = 2 * PAGE },
      value, message, err)
    support.holds(f:path(), ("\7"):rep(PAGE) .. ("\0"):rep(PAGE))
    f:close()
  end)

  it("keeps completions back and shuffles them: each task still gets its own", function()
    local f = some_file()
    local b = assert(jdbfs.buffer(64 * PAGE))
    for i = 0, 63 do b:fill(i, i * PAGE, PAGE) end
    assert(f:write_at(b, 0))
    local order = {}
    under("seed=3;shuffle;read_at:p=0.3:late=3", jdbfs.run, function()
      for i = 0, 63 do
        jdbfs.spawn(function()
          local own = assert(jdbfs.buffer(PAGE))
          assert(f:read_at(own, i * PAGE))
          assert.are.equal(i, own:u8(0))
          order[#order + 1] = i
        end)
      end
    end)
    assert.are.equal(64, #order)
    local moved = 0
    for i = 1, 64 do if order[i] ~= i - 1 then moved = moved + 1 end end
    assert.is_true(moved > 10, "the plan shuffled nothing")
    assert.is_true(support_faults.injected > 5)
    f:close()
  end)
end)

-- ---- planted mistakes ---------------------------------------------------------------------------

local function planted(plan, source, o)
  o = o or {}
  o.loose = true
  o.env = { JDBFS_FAULTS = plan, JDBFS_BACKEND = o.backend or os.getenv("JDBFS_BACKEND") }
  local out, r = process.script(source, o)
  return r.status, r.err, out
end

local READ_AND_CANCEL = [[
  local f = assert(jdbfs.open_rw(dir .. "/x", { direct = "prefer" }))
  assert(f:truncate(65536))
  jdbfs.run(function()
    local reader = jdbfs.spawn(function() f:read_at(jdbfs.buffer(65536), 0) end)
    jdbfs.sleep(0.05)
    reader:cancel()
  end)
  print("ended")
]]

describe("a plan in the environment", function()
  process.setup()

  it("that makes no sense ends the process", function()
    local status, err = planted("read_at:errno=EFLY", "print 'not reached'")
    assert.are.equal(134, status)
    assert.matches("JDBFS_FAULTS is no plan: read_at:errno=EFLY", err, 1, true)
  end)
end)

describe("the quarantine", function()
  process.setup()

  it("sees a buffer freed at the cancel, before the completion", function()
    local status, err = planted("plant=free_at_cancel;read_at:delay=200", READ_AND_CANCEL,
      { backend = "threads" })
    assert.are.equal(134, status)
    assert.matches("a freed buffer of 65536 bytes was written to, first at byte 0", err, 1, true)
    assert.matches("handed over read_at, file offset 0, 65536 bytes at 0", err, 1, true)
  end)

  it("finds nothing where the same read is cancelled rightly", function()
    local status, err, out = planted("read_at:delay=200", READ_AND_CANCEL, { backend = "threads" })
    assert.are.same({ 0, "", "ended\n" }, { status, err, out })
  end)

  it("sees the kernel write into freed memory on a slow disk", function()
    if os.getenv("JDBFS_BACKEND") ~= "io_uring" then return end -- workers: see above
    local slow, why = process.slow()
    if not slow then return pending(why) end
    local source = [[
      local f = assert(jdbfs.open(arg[3], { device = true }))
      jdbfs.run(function()
        local reader = jdbfs.spawn(function() f:read_at(jdbfs.buffer(262144), 1048576) end)
        jdbfs.sleep(0.05)
        reader:cancel()
      end)
      print("ended")
    ]]
    local o = { args = { slow.device }, prefix = slow.prefix }
    local ok, problem = pcall(function()
      local status, err = planted("plant=free_at_cancel", source, o)
      assert.are.equal(134, status)
      assert.matches("a freed buffer of 262144 bytes was written to", err, 1, true)
      local out
      status, err, out = planted("", source, { args = { slow.device }, prefix = slow.prefix })
      assert.are.same({ 0, "", "ended\n" }, { status, err, out })
    end)
    slow.stop()
    assert(ok, problem)
  end)

  it("gives way to guard pages: a buffer's neighbours cannot be hit", function()
    if not rawget(_G, "jit") then return pending("needs the FFI") end
    local status = planted("", [[
      local ffi = require "ffi"
      local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
      ffi.cast("char *", b:pointer())[jdbfs.PAGE_SIZE] = 1
    ]])
    assert.are.equal(139, status)
  end)
end)

describe("the core", function()
  process.setup()

  it("notices a completion delivered twice", function()
    local status, err = planted("plant=twice", [[ jdbfs.stat(dir) ]])
    assert.are.equal(134, status)
    assert.matches("JDB_INFLIGHT", err, 1, true)
  end)

  it("notices a late result in an operation that is nobody's", function()
    local status, err = planted("plant=late_result", [[
      for _ = 1, 3 do
        jdbfs.run(function()
          for _ = 1, 2 do jdbfs.spawn(jdbfs.stat, dir) end
        end)
        jdbfs.stat(dir)
      end
    ]])
    assert.are.equal(134, status)
    assert.matches("jdb_op_untouched", err, 1, true)
  end)
end)

-- ---- acknowledged means done --------------------------------------------------------------------

-- What was really done for one acknowledged durable call; nil, or what is wrong.
local function dishonest(trace, durable_write)
  local written, flushed
  for line in trace:gmatch("[^\n]+") do
    local event, op, _, _, result, how = line:match("^(%S+) (%S+) (%d+) (%d+) (%S+) (%S+)")
    if event == "refuse" or event == "lie" then return "told as done: " .. line end
    if event == "end" and op == "write_at" then
      written, flushed = true, how == "d"
    elseif event == "end" and op:match("^sync_") and result == "0" then
      flushed = true
    end
  end
  if durable_write and not written then return "not written" end
  if not flushed then return "not flushed" end
end

local function durable_calls(o, look)
  local f = some_file(o)
  local b = support.page(3)
  faults.trace()
  for _, call in ipairs {
    { "write_at", b, 0, 0, PAGE, "dsync" }, { "write_at", b, PAGE }, { "sync_data" },
    { "write_at", b, 0 }, { "sync_all" }, { "write_many", { { b, 0 } }, "dsync" },
  } do
    local durable = call[1] ~= "write_at" or call[6]
    local unpack = unpack or table.unpack
    local ok = f[call[1]](f, unpack(call, 2, 6))
    local trace = faults.trace()
    if durable then look(ok, dishonest(trace, call[1] ~= "sync_data" and call[1] ~= "sync_all")) end
  end
  f:close()
end

describe("an acknowledged", function()
  support.setup()

  local ways = {
    { direct = "prefer", durable_method = "write" },
    { direct = "prefer", durable_method = "flush" },
    { direct = "off" }, { direct = "prefer", dsync = true },
  }

  it("durable write or sync was really done", function()
    for _, o in ipairs(ways) do
      under("trace", durable_calls, o, function(ok, wrong) assert(ok and not wrong, wrong) end)
    end
  end)

  it("sync that never happened is seen", function()
    local caught = 0
    under("trace;sync_data:lie:ever;sync_all:lie:ever", durable_calls, ways[2],
      function(ok, wrong) if ok and wrong then caught = caught + 1 end end)
    assert.are.equal(4, caught)
  end)

  it("sync that failed and was tried again is seen", function()
    local caught = 0
    under("trace;plant=retry_sync;sync_data:errno=EIO:ever;sync_all:errno=EIO:ever", durable_calls,
      ways[2], function(ok, wrong) if ok and wrong then caught = caught + 1 end end)
    assert.are.equal(4, caught)
  end)

  it("sync that failed is never tried again", function()
    local f = some_file()
    assert(f:write_at(support.page(1), 0))
    under("trace;sync_data:errno=EIO", function()
      local value, message, err = f:sync_data()
      support.fails({ kind = "Io", name = "EIO", op = "sync_data" }, value, message, err)
      faults.trace()
      for _ = 1, 3 do
        support.fails({ kind = "Poisoned", op = "sync_data" }, f:sync_data())
        support.fails({ kind = "Poisoned", op = "sync_all" }, f:sync_all())
        support.fails({ kind = "Poisoned", op = "write_at" },
          f:write_at(support.page(1), 0, 0, PAGE, "dsync"))
      end
      assert.are.equal("", faults.trace())
    end)
    f:close()
  end)

  -- One flush may stand for many writes, if it began after the last of them had ended.
  it("write of many was flushed after it had been written", function()
    local f = some_file { direct = "prefer", durable_method = "flush" }
    under("seed=9;shuffle;trace;write_at:p=0.3:late=2", jdbfs.run, function()
      for i = 0, 63 do
        jdbfs.spawn(function()
          assert(f:write_at(support.page(i), i * PAGE, 0, PAGE, "dsync"))
        end)
      end
    end)
    local ended, covered, flushing = {}, {}, nil
    for line in faults.trace():gmatch("[^\n]+") do
      local event, op, off = line:match("^(%S+) (%S+) (%d+)")
      if event == "end" and op == "write_at" then ended[off] = true end
      if event == "start" and op == "sync_data" then flushing, ended = ended, {} end
      if event == "end" and op == "sync_data" then
        for offset in pairs(flushing) do covered[offset] = true end
      end
    end
    local n = 0
    for _ in pairs(covered) do n = n + 1 end
    assert.are.equal(64, n)
    f:close()
  end)
end)

-- ---- threads ------------------------------------------------------------------------------------

describe("threads that cannot be started", function()
  process.setup()

  it("cost nothing but speed: the nth, and all from the nth on", function()
    local most = support_faults.long and 17 or 4
    for n = 1, most do
      for _, ever in ipairs { "", ":ever" } do
        local status, err, out = planted(("thread:nth=%d:errno=EAGAIN%s"):format(n, ever), [[
          local f = assert(jdbfs.create(dir .. "/x", { direct = "prefer" }))
          local sum = 0
          jdbfs.run(function()
            for i = 0, 39 do
              jdbfs.spawn(function()
                local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
                b:fill(i)
                assert(f:write_at(b, i * jdbfs.PAGE_SIZE))
                assert(jdbfs.stat(dir .. "/x"))
                assert(f:read_at(b, i * jdbfs.PAGE_SIZE))
                sum = sum + b:u8(0)
              end)
            end
          end)
          assert(f:sync_all() and f:close())
          local s = jdbfs.stats()
          print(sum, s.in_flight + s.waiting + s.abandoned + s.tasks)
        ]])
        assert.are.same({ 0, "", "780\t0\n" }, { status, err, out })
      end
    end
  end)
end)

-- ---- ends ---------------------------------------------------------------------------------------

describe("the end of the state", function()
  process.setup()

  local ENDS = {
    ["lua_close"] = "",
    ["os.exit, closing"] = "os.exit(0, true)",
    ["os.exit"] = "os.exit(0)",
    ["an error"] = "error('the end', 0)",
  }

  for name, code in pairs(ENDS) do
    it("waits for what a worker still does: " .. name, function()
      local status, err = planted("read_at:delay=150:ever", [[
        local f = assert(jdbfs.open_rw(dir .. "/x", { direct = "prefer" }))
        assert(f:truncate(65536))
        local b = jdbfs.buffer(65536)
        jdbfs.spawn(function() f:read_at(b, 0) end)
        jdbfs.spawn(function() f:read_at(jdbfs.buffer(65536), 0) end)
        jdbfs.step()
        b, f = nil, nil
        collectgarbage()
      ]] .. code, { backend = "threads" })
      assert.are.equal(name == "an error" and 1 or 0, status)
      assert.is_nil(err:find("quarantine", 1, true), err)
    end)
  end
end)
