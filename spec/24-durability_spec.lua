-- Durability: shared flushes, durable writes, poisoned files, and what info() and probe() tell.
--
-- What is counted from outside (which system calls, in which order) and what fails on purpose runs
-- in another process under strace, on the thread pool: io_uring's calls are not visible there.
-- strace counts `when` in each thread, so one worker makes the count exact.

local support = require("support")
local lfs = support.lfs
local process = require("support_process")
local jdbfs = support.jdbfs
local both, task, fails, raises = support.both, support.task, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function new(o)
  local path = support.path()
  return assert(jdbfs.create(path, o)), path
end

local function flushes()
  return jdbfs.stats().flushes
end

-- Results of f(1) .. f(n), each in a task of its own, started in one turn.
local function at_once(n, f)
  local tasks, results = {}, {}
  for i = 1, n do tasks[i] = assert(jdbfs.spawn(f, i)) end
  for i = 1, n do results[i] = { tasks[i]:join() } end
  return results
end

-- Runs the source on the thread pool under strace. Gives the calls in the order in which they
-- began, as strace shows them, and what the script wrote; nil, why.
local PRELUDE = [==[
local PAGE = jdbfs.PAGE_SIZE
local page = jdbfs.buffer(PAGE)
local function spawn(f) return assert(jdbfs.spawn(f)) end
local function kind(value, _, err)
  if value then return "ok" end
  return err.kind == "Poisoned" and err.kind or err.kind .. (err.name or "")
end
local _ = { spawn, kind, page }
]==]

local function traced(options, source, setup)
  local works, why = process.strace("getppid:retval=7")
  if not works then return nil, why end
  -- macOS has only one of the two.
  if support.on_macos then options = options:gsub("inject=fdatasync", "inject=fsync") end
  local log = support.path("trace")
  local out = process.script((setup or "") .. PRELUDE:gsub("\n", " ") .. source, {
    env = { JDBFS_BACKEND = "threads" },
    prefix = ("timeout -k 1 15 strace -f -y -qq -s 8 -o %s %s"):format(support.quote(log), options),
  })
  local calls = {}
  for line in support.get(log):gmatch("[^\n]+") do
    local call = line:match("^%d+%s+(%l.*)")
    if call then calls[#calls + 1] = call end
  end
  return calls, out
end

local function count(calls, pattern)
  local n = 0
  for _, call in ipairs(calls) do if call:find(pattern) then n = n + 1 end end
  return n
end

local SYNCS = "-e trace=fsync,fdatasync"
local ONE_WORKER = "jdbfs.setup{workers = 1} "

describe("flushes", function()
  support.setup()

  both("cost a lone caller exactly one per call", function()
    local f = new()
    local before = flushes()
    for i = 1, 5 do
      f:write_at(support.page(i), 0)
      assert.is_true(f:sync_data())
      assert.equal(before + 2 * i - 1, flushes())
      assert.is_true(f:sync_all())
      assert.equal(before + 2 * i, flushes())
    end
    f:close()
  end)

  both("work on a file that was opened for reading", function()
    local path = support.path()
    support.put(path, "x")
    local f = assert(jdbfs.open(path))
    assert.is_true(f:sync_data())
    assert.is_true(f:sync_all())
    f:close()
  end)

  task("are shared by callers of one turn", function()
    local f = new()
    local before = flushes()
    for _, r in ipairs(at_once(16, function() return f:sync_data() end)) do assert.is_true(r[1]) end
    assert.equal(before + 1, flushes())
    for _, r in ipairs(at_once(16, function(i)
      return i % 4 == 0 and f:sync_all() or f:sync_data()
    end)) do assert.is_true(r[1]) end
    assert.equal(before + 2, flushes())
    f:close()
  end)

  -- The flush for the first whose write has ended waits for those of the others.
  local function one_a_round(drive)
    for _, dsync in ipairs({ false, true }) do
      local f = new({ durable_method = "flush" })
      local before, tasks = flushes(), {}
      for i = 1, 16 do
        tasks[i] = jdbfs.spawn(function()
          local b = support.page(i)
          for k = 0, 19 do
            assert(f:write_at(b, (i * 20 + k) * PAGE, 0, PAGE, dsync and "dsync" or ""))
            if not dsync then assert(f:sync_data()) end
          end
          return 20
        end)
      end
      drive(tasks)
      for i = 1, 16 do assert.equal(20, tasks[i]:join()) end
      local n = flushes() - before
      assert(n >= 20 and n <= 25, n .. " flushes for 320 calls")
      f:close()
    end
  end

  both("are one a round of 16 tasks that write and sync", function()
    one_a_round(function() end)
  end)

  it("are one a round when a host steps", function()
    one_a_round(function(tasks)
      for _, one in ipairs(tasks) do
        while one:status() ~= "done" and one:status() ~= "failed" do jdbfs.step(0) end
      end
    end)
  end)

  task("of two files are their own", function()
    local f, g = new(), new()
    local before = flushes()
    at_once(8, function(i) return assert((i % 2 == 0 and f or g):sync_data()) end)
    assert.equal(before + 2, flushes())
    f:close()
    g:close()
  end)

  it("are the system's: one fdatasync for callers of one turn", function()
    if support.not_linux then return pending(support.not_linux) end
    local calls, out = traced(SYNCS, [[
      local f = assert(jdbfs.create(dir .. "/f"))
      jdbfs.run(function()
        for _ = 1, 3 do
          local tasks = {}
          for i = 1, 16 do tasks[i] = spawn(function() return f:sync_data() end) end
          for i = 1, 16 do check("sync", tasks[i]:join()) end
        end
      end)
      check("lone", f:sync_data())
      check("all", f:sync_all())
      print(jdbfs.stats().flushes)
    ]])
    if not calls then return pending(out) end
    assert.equal("5\n", out)
    assert.equal(4, count(calls, "^fdatasync"))
    assert.equal(1, count(calls, "^fsync"))
  end)

  it("of data only never cover a caller of sync_all", function()
    local calls, out = traced(SYNCS, [[
      local f = assert(jdbfs.create(dir .. "/f"))
      jdbfs.run(function()
        local tasks = {}
        for i = 1, 8 do
          tasks[i] = spawn(function() return i == 5 and f:sync_all() or f:sync_data() end)
        end
        for i = 1, 8 do check("sync", tasks[i]:join()) end
      end)
    ]])
    if not calls then return pending(out) end
    assert.equal(0, count(calls, "^fdatasync"))
    assert.equal(1, count(calls, "^fsync"))
  end)

  it("that run already do not cover who comes later, whatever is asked for", function()
    if support.not_linux then return pending(support.not_linux) end
    for _, how in ipairs({ "sync_data", "sync_all" }) do
      local calls, out = traced(SYNCS .. " -e inject=fdatasync:delay_enter=150000:when=1", ([[
        local f = assert(jdbfs.create(dir .. "/f"))
        jdbfs.run(function()
          local ended = {}
          local first = spawn(function() check("1", f:sync_data()) ended[1] = jdbfs.now() end)
          jdbfs.sleep(0.05)
          -- Written while the first flush runs.
          check("write", f:write_at(page, 0))
          local later = {}
          for i = 1, 8 do
            later[i] = spawn(function() check("2", f:%s()) ended[2] = jdbfs.now() end)
          end
          check("first", first:join() == nil)
          for i = 1, 8 do later[i]:join() end
          check("order", ended[2] > ended[1])
        end)
        print(jdbfs.stats().flushes)
      ]]):format(how))
      if not calls then return pending(out) end
      assert.equal("2\n", out)
      assert.equal(how == "sync_data" and 2 or 1, count(calls, "^fdatasync"))
      assert.equal(how == "sync_data" and 0 or 1, count(calls, "^fsync"))
    end
  end)

  it("begin after the writes that they cover have ended", function()
    if support.not_linux then return pending(support.not_linux) end
    local calls, out = traced("-e trace=pwrite64,pwritev2,fdatasync", [[
      local f = assert(jdbfs.create(dir .. "/f", {durable_method = "flush"}))
      jdbfs.run(function()
        local tasks = {}
        for i = 1, 8 do
          tasks[i] = spawn(function() return f:write_at(page, i * PAGE, 0, PAGE, "dsync") end)
        end
        for i = 1, 8 do check("write", tasks[i]:join()) end
      end)
    ]])
    if not calls then return pending(out) end
    assert.equal(8, count(calls, "^pwrite"))
    assert(count(calls, "^fdatasync") >= 1)
    assert(calls[#calls]:find("^fdatasync"), "the last call is " .. calls[#calls])
  end)
end)

describe("durable writes", function()
  support.setup()

  both("store what they are given", function()
    for _, method in ipairs({ "auto", "write", "flush" }) do
      local f, path = new({ durable_method = method })
      assert.equal(support.durable_writes and method or "flush", f:info().durable_method)
      assert(#f:info().durable_reason > 0)
      assert.equal(PAGE, f:write_at(support.page(0x61), 0, 0, PAGE, "dsync"))
      f:close()
      support.holds(path, ("a"):rep(PAGE))
    end
  end)

  both("of a lone caller cost one flush at most", function()
    local most = { auto = 1, write = support.durable_writes and 0 or 1, flush = 1 }
    for method, n in pairs(most) do
      local f = new({ durable_method = method })
      local before = flushes()
      f:write_at(support.page(), 0, 0, PAGE, "dsync")
      assert(flushes() - before <= n)
      if method == "flush" then assert.equal(before + 1, flushes()) end
      f:close()
    end
  end)

  task("share flushes", function()
    for _, method in ipairs({ "auto", "flush" }) do
      local f, path = new({ durable_method = method })
      local before = flushes()
      local results = at_once(16, function(i)
        local b, sum = support.page(i), 0
        for k = -10, -1 do
          sum = sum + assert(f:write_at(b, (i * 10 + k) * PAGE, 0, PAGE, "dsync"))
        end
        return sum
      end)
      for _, r in ipairs(results) do assert.equal(10 * PAGE, r[1]) end
      assert(flushes() - before <= 15, flushes() - before .. " flushes for 160 durable writes")
      f:close()
      for i = 1, 16 do
        local g = assert(jdbfs.open(path))
        assert.equal(string.char(i), g:read(i * 10 * PAGE - 1, 1))
        g:close()
      end
    end
  end)

  task("share flushes with callers of sync", function()
    local f = new({ durable_method = "flush" })
    local before = flushes()
    local results = at_once(16, function(i)
      if i % 2 == 0 then return f:sync_data() end
      return f:write_at(support.page(i), i * PAGE, 0, PAGE, "dsync")
    end)
    for i, r in ipairs(results) do assert.equal(i % 2 == 0 or PAGE, r[1]) end
    assert(flushes() - before < 16, flushes() - before .. " flushes")
    f:close()
  end)

  it("are done as asked: by the write itself, or by a flush", function()
    if support.not_linux then return pending(support.not_linux) end
    local calls, out = traced("-e trace=pwrite64,pwritev2,fdatasync,fsync", [[
      for _, method in ipairs{"write", "flush", "auto"} do
        local f = assert(jdbfs.create(dir .. "/" .. method, {durable_method = method}))
        for i = 1, 3 do check(method, f:write_at(page, i * PAGE, 0, PAGE, "dsync")) end
        f:close()
      end
    ]])
    if not calls then return pending(out) end
    assert.equal(3, count(calls, "^pwritev2.*/write>.*RWF_DSYNC"))
    assert.equal(0, count(calls, "^f.*sync.*/write>"))
    assert.equal(3, count(calls, "^pwrite64.*/flush>"))
    assert.equal(3, count(calls, "^fdatasync.*/flush>"))
    -- Alone, a durable write is one call.
    assert.equal(3, count(calls, "^pwritev2.*/auto>.*RWF_DSYNC"))
    assert.equal(0, count(calls, "^f.*sync.*/auto>"))
  end)

  it("of a durable handle are the handle's doing", function()
    if support.not_linux then return pending(support.not_linux) end
    local calls, out = traced("-e trace=open,openat,fcntl,pwrite64,pwritev2,fdatasync,fsync", [[
      for name, f in pairs{wal = assert(jdbfs.open_wal(dir .. "/wal")),
                           dsync = assert(jdbfs.create(dir .. "/dsync", {dsync = true})),
                           all = assert(jdbfs.create(dir .. "/all", {dsync = "all"}))} do
        check("info", f:info().dsync == true, name)
        check("plain", f:write_at(page, 0))
        check("flag", f:write_at(page, PAGE, 0, PAGE, "dsync"))
        check("list", f:write_many({{page, 0}, {page, PAGE}}, "dsync"))
        f:close()
      end
      print(jdbfs.stats().flushes)
    ]])
    if not calls then return pending(out) end
    assert.equal("0\n", out)
    for name, flag in pairs({ wal = "O_DSYNC", dsync = "O_DSYNC", all = "O_SYNC" }) do
      assert(count(calls, "^open.*/" .. name .. '".*' .. flag) >= 1
        or count(calls, "^fcntl.*/" .. name .. ">.*" .. flag) >= 1, flag .. " missing: " .. name)
      assert.equal(4, count(calls, "^pwrite.*/" .. name .. ">"))
      assert.equal(0, count(calls, "^f%l*sync%(.*/" .. name .. ">"))
    end
  end)

  both("need a known flag and method", function()
    local f = new()
    local path = support.path()
    raises("dsync", f.write_at, f, support.page(), 0, 0, PAGE, "durable")
    raises("durable_method", jdbfs.create, path, { durable_method = "fast" })
    raises("durable_method", jdbfs.create, path, { durable_method = true })
    raises('dsync: true, false or "all"', jdbfs.create, path, { dsync = 1 })
    raises('dsync: true, false or "all"', jdbfs.create, path, { dsync = "some" })
    assert.is_nil(lfs.attributes(path))
    assert.equal(PAGE, f:write_at(support.page(), 0, 0, PAGE, ""))
    f:close()
  end)

  both("take flags with any commas and blanks between", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    for _, flags in ipairs({ "", ", ", "dsync,", " , dsync", "dsync dsync" }) do
      assert.equal(PAGE, f:write_at(support.page(1), 0, 0, PAGE, flags))
    end
    f:close()
  end)

  both("that are atomic need a file that has such writes", function()
    local f, path = new()
    local atomic = f:info().atomic
    if atomic.max == 0 then
      for _, flags in ipairs({ "atomic", "dsync,atomic", "atomic dsync" }) do
        fails({ kind = "Unsupported", op = "write_at", path = path, errno = "none" },
          f:write_at(support.page(), 0, 0, PAGE, flags))
      end
      assert.equal(0, f:size())
    else
      local b = jdbfs.buffer(2 * atomic.max, atomic.max)
      assert.equal(atomic.max, f:write_at(b, 0, 0, atomic.max, "dsync,atomic"))
      fails({ kind = "Alignment", path = path }, f:write_at(b, 0, 0, 2 * atomic.max, "atomic"))
      if atomic.max > atomic.min then
        fails({ kind = "Alignment", path = path },
          f:write_at(b, atomic.min, 0, atomic.max, "atomic"))
      end
      -- A ring registers memory that is used again and again: the kernel takes none of it here.
      local small = jdbfs.buffer(atomic.min, atomic.min)
      for _ = 1, 40 do assert(f:write_at(small, 0)) end
      assert.equal(atomic.min, f:write_at(small, 0, 0, atomic.min, "atomic"))
    end
    f:close()
  end)
end)

-- On the thread pool, where the counts tell who did the work.
describe("a durable write or flush that is all there is to wait for", function()
  process.setup()

  local SCRIPT = [==[
    local PAGE, page = jdbfs.PAGE_SIZE, jdbfs.buffer(jdbfs.PAGE_SIZE)
    local f = assert(jdbfs.create(dir .. "/f"))
    local wal = assert(jdbfs.open_wal(dir .. "/wal"))
    local function handed_over(label, want, body, ...)
      local before, results = jdbfs.stats().pool_operations, nil
      results = { body(...) }
      check(label .. ": " .. tostring(results[2]), results[1])
      local n = jdbfs.stats().pool_operations - before
      check(label, n == want, n)
    end
    local function each(where, n, call)
      call = call or function(body, ...) return body(...) end
      handed_over(where .. "dsync", n, call, f.write_at, f, page, 0, 0, PAGE, "dsync")
      handed_over(where .. "durable handle", n, call, wal.write_at, wal, page, 0)
      handed_over(where .. "sync_data", n, call, f.sync_data, f)
      handed_over(where .. "sync_all", n, call, f.sync_all, f)
    end
  ]==]

  local function script(source)
    local out = process.script(SCRIPT:gsub("\n", " ") .. source, {
      env = { JDBFS_BACKEND = "threads" },
    })
    assert.equal("done\n", out)
  end

  it("is done by the thread that waits", function()
    if not support.durable_writes then return pending("the system has no durable write") end
    script([==[
      each("outside: ", 0)
      jdbfs.run(each, "in a task: ", 0)
      print("done")
    ]==])
  end)

  it("but not while a timer, another operation or a host may want this thread", function()
    if not support.durable_writes then return pending("the system has no durable write") end
    script([==[
      local function timed(body, ...) return jdbfs.timeout(60, body, ...) end
      jdbfs.run(each, "with a timer: ", 1, timed)
      local function company(body, ...)
        local task = jdbfs.spawn(function() return f:size() end)
        local ok = body(...)
        return ok and task:join()
      end
      jdbfs.run(each, "with another: ", 2, company)
      local function stepped(body, ...)
        local task = jdbfs.spawn(body, ...)
        while task:status() ~= "done" do jdbfs.step(0) end
        return task:join()
      end
      each("with a host: ", 1, stepped)
      print("done")
    ]==])
  end)
end)

describe("callers that go away", function()
  support.setup()

  task("leave a flush that has not begun to the others", function()
    local f = new()
    local before = flushes()
    local tasks = {}
    for i = 1, 8 do tasks[i] = jdbfs.spawn(function() return f:sync_data() end) end
    jdbfs.yield()
    for _, i in ipairs({ 1, 2, 5 }) do tasks[i]:cancel() end
    for i = 1, 8 do
      if i == 1 or i == 2 or i == 5 then fails({ kind = "Cancelled" }, tasks[i]:join())
      else assert.is_true((tasks[i]:join())) end
    end
    assert.equal(before + 1, flushes())
    f:close()
  end)

  task("all of them, leave nothing behind", function()
    local f = new({ durable_method = "flush" })
    for round = 1, 20 do
      local tasks = {}
      for i = 1, 6 do
        tasks[i] = jdbfs.spawn(function()
          if i % 2 == 0 then return f:sync_all() end
          return f:write_at(support.page(round), i * PAGE, 0, PAGE, "dsync")
        end)
      end
      for _ = 1, round % 3 do jdbfs.yield() end
      for i = 1, 6 do tasks[i]:cancel() end
    end
    assert.is_true(f:close())
  end)

  -- What hangs here is stopped by traced's own time limit.
  it("do not keep those who wait for the next flush", function()
    if support.not_linux then return pending(support.not_linux) end
    for _, fault in ipairs({ "", ":error=EIO" }) do
      local calls, out = traced(SYNCS .. " -e inject=fdatasync" .. fault ..
        ":delay_enter=150000:when=1", [[
        local f = assert(jdbfs.create(dir .. "/f"))
        jdbfs.run(function()
          local first = spawn(function() return f:sync_data() end)
          jdbfs.sleep(0.05)
          local second = spawn(function() return f:sync_data() end)
          jdbfs.yield()
          first:cancel()
          print(kind(second:join()))
          print(kind(f:close()))
        end)
      ]], ONE_WORKER)
      if not calls then return pending(out) end
      assert.equal(fault == "" and "ok\nok\n" or "Poisoned\nIoEIO\n", out)
      assert.equal(fault == "" and 2 or 1, count(calls, "^fdatasync"))
    end
  end)

  it("do not keep the run from ending, nor the state from closing", function()
    local calls, out = traced(SYNCS .. " -e inject=fdatasync:delay_enter=150000:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f", {durable_method = "flush"}))
      jdbfs.run(function()
        local first = spawn(function() return f:sync_data() end)
        jdbfs.sleep(0.05)
        local second = spawn(function() return f:sync_data() end)
        local third = spawn(function() return f:write_many({{page, 0}}, "dsync") end)
        jdbfs.yield()
        first:cancel() second:cancel() third:cancel()
      end)
      print("ended")
    ]], ONE_WORKER)
    if not calls then return pending(out) end
    assert.equal("ended\n", out)
  end)
end)

describe("close", function()
  support.setup()

  task("waits for flushes", function()
    local f = new({ durable_method = "flush" })
    local tasks, ended = {}, 0
    for i = 1, 6 do
      tasks[i] = jdbfs.spawn(function()
        local ok, message
        if i % 2 == 0 then ok, message = f:sync_all()
        else ok, message = f:write_at(support.page(), i * PAGE, 0, PAGE, "dsync") end
        ended = ended + 1
        return ok, message
      end)
    end
    jdbfs.yield()
    assert.is_true(f:close())
    assert.equal(6, ended)
    for i = 1, 6 do assert.equal(i % 2 == 0 or PAGE, (assert(tasks[i]:join()))) end
    fails({ kind = "Closed", op = "sync_data" }, f:sync_data())
    fails({ kind = "Closed", op = "write_at" }, f:write_at(support.page(), 0, 0, PAGE, "dsync"))
  end)

  it("ends the handle after the flush", function()
    if support.not_linux then return pending(support.not_linux) end
    local calls, out = traced("-e trace=fdatasync,close -e inject=fdatasync:delay_enter=100000", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      jdbfs.run(function()
        local sync = spawn(function() return f:sync_data() end)
        jdbfs.sleep(0.03)
        check("close", f:close())
        check("sync", sync:status() == "done", sync:status())
      end)
    ]])
    if not calls then return pending(out) end
    local order = {}
    for _, call in ipairs(calls) do
      if call:find("/f>") then order[#order + 1] = call:match("^%l+") end
    end
    assert.same({ "fdatasync", "close" }, order)
  end)
end)

describe("a file whose flush or durable write failed", function()
  support.setup()

  -- Every script prints the kinds of what it does, so that the order can be read.
  local function poisoned(inject, source, expected, syncs)
    local calls, out = traced("-e trace=fsync,fdatasync,pwrite64,pwritev2 -e inject=" .. inject,
      source, ONE_WORKER)
    if not calls then return pending(out) end
    assert.equal(expected, (out:gsub("\n", " ")))
    -- Without durable writes each of them is one more.
    if syncs and support.durable_writes then assert.equal(syncs, count(calls, "^f.*sync")) end
  end

  it("promises no durability any more; reads and plain writes go on; reopening clears", function()
    poisoned("fdatasync:error=EIO:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      check("write", f:write_at(page, 3 * PAGE))
      check("not yet", f:info().poisoned == false)
      local _, message, err = f:sync_data()
      check("offset", err.offset == 3 * PAGE and err.length == PAGE, message)
      check("words", message:find("durability unknown") and message:find("EIO", 1, true), message)
      check("fields", err.op == "sync_data" and err.path == dir .. "/f" and err.errno == 5)
      print(kind(nil, message, err))
      check("info", f:info().poisoned == true)
      print(kind(f:sync_data()))
      print(kind(f:sync_all()))
      print(kind(f:write_at(page, 0, 0, PAGE, "dsync")))
      print(kind(f:write_many({{page, 0}}, "dsync")))
      _, message, err = f:sync_all()
      check("doubt", err.offset == 3 * PAGE and err.length == PAGE, message)
      check("says", message:find("reopen"), message)
      print(kind(f:write_at(page, 0)))
      print(kind(f:write_many{{page, PAGE}}))
      print(kind(f:read_at(page, 0)))
      print(kind(f:read(0, 10)))
      print(kind(f:read_many{{page, PAGE}}))
      print(kind(f:truncate(8 * PAGE)))
      print(kind(f:size()))
      print(kind(f:close()))
      f = assert(jdbfs.open_rw(dir .. "/f"))
      check("cleared", f:info().poisoned == false)
      print(kind(f:sync_data()))
      print(kind(f:write_at(page, 0, 0, PAGE, "dsync")))
      f:close()
    ]], "IoEIO Poisoned Poisoned Poisoned Poisoned ok ok ok ok ok ok ok ok ok ok ", 2)
  end)

  it("fails all who waited for that flush, and those who wait for the next", function()
    poisoned("fdatasync:error=EIO:delay_enter=150000:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      jdbfs.run(function()
        local tasks = {}
        for i = 1, 4 do tasks[i] = spawn(function() return f:sync_data() end) end
        jdbfs.sleep(0.05)
        tasks[5] = spawn(function() return f:sync_data() end)
        tasks[6] = spawn(function() return f:sync_all() end)
        for i = 1, 6 do print(kind(tasks[i]:join())) end
      end)
    ]], "IoEIO IoEIO IoEIO IoEIO Poisoned Poisoned ", 1)
  end)

  it("tells which bytes are in doubt, also those written since", function()
    poisoned("fdatasync:error=EIO:when=2", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      f:write_at(page, 9 * PAGE)
      print(kind(f:sync_data()))
      f:write_at(page, 2 * PAGE)
      f:write_at(page, 4 * PAGE)
      local _, message, err = f:sync_data()
      check("range", err.offset == 2 * PAGE and err.length == 3 * PAGE, message)
      print(kind(nil, message, err))
      f:write_at(page, 0)
      f:write_many{{page, 7 * PAGE}}
      _, message, err = f:sync_data()
      check("after it", err.offset == 0 and err.length == 8 * PAGE, message)
      print(kind(nil, message, err))
    ]], "ok IoEIO Poisoned ", 2)
  end)

  it("when the durable write itself failed", function()
    if not support.durable_writes then return pending("the system has no durable write") end
    poisoned("pwritev2:error=EIO:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f", {durable_method = "write"}))
      f:write_at(page, 0)
      local _, message, err = f:write_at(page, 7 * PAGE, 0, PAGE, "dsync")
      check("range", err.offset == 7 * PAGE and err.length == PAGE and err.actual == 0, message)
      print(kind(nil, message, err))
      _, message, err = f:sync_data()
      check("doubt", err.offset == 7 * PAGE and err.length == PAGE, message)
      print(kind(nil, message, err))
      print(kind(f:write_at(page, 0)))
    ]], "IoEIO Poisoned ok ", 0)
  end)

  it("when the flush after the write failed", function()
    poisoned("fdatasync:error=EIO:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f", {durable_method = "flush"}))
      local _, message, err = f:write_at(page, 7 * PAGE, 0, PAGE, "dsync")
      check("range", err.offset == 7 * PAGE and err.length == PAGE, message)
      print(kind(nil, message, err))
      print(kind(f:write_at(page, 7 * PAGE, 0, PAGE, "dsync")))
      print(kind(f:sync_data()))
    ]], "IoEIO Poisoned Poisoned ", 1)
  end)

  it("when the write before the flush failed", function()
    poisoned("pwrite64:error=EIO:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f", {durable_method = "flush"}))
      print(kind(f:write_at(page, 7 * PAGE, 0, PAGE, "dsync")))
      check("poisoned", f:info().poisoned)
      print(kind(f:sync_data()))
    ]], "IoEIO Poisoned ", 0)
  end)

  it("when a write of a durable handle failed", function()
    poisoned("pwrite64:error=EIO:when=2", [[
      local f = assert(jdbfs.open_wal(dir .. "/f"))
      print(kind(f:write_at(page, 0)))
      local _, message, err = f:write_at(page, PAGE)
      check("range", err.offset == PAGE and err.length == PAGE, message)
      print(kind(nil, message, err))
      print(kind(f:write_at(page, 0)))
      print(kind(f:write_many{{page, 0}}))
      print(kind(f:sync_data()))
      print(kind(f:read_at(page, 0)))
    ]], "ok IoEIO Poisoned Poisoned Poisoned ok ", 0)
  end)

  it("but not by a lack of room", function()
    if not support.durable_writes then return pending("the system has no durable write") end
    for _, name in ipairs({ "ENOSPC", "EFBIG", "EDQUOT" }) do
      poisoned("pwritev2,pwrite64:error=" .. name .. ":when=1", [[
        local path = dir .. "/f"
        local write, flush = {durable_method = "write"}, {durable_method = "flush"}
        for _, o in ipairs{write, {dsync = true}, flush} do
          local f = assert(jdbfs.create(path, o))
          local ok, message, err = f:write_at(page, 0, 0, PAGE, "dsync")
          if not ok then print(kind(ok, message, err)) end
          check("clean", f:info().poisoned == false)
          check("sync", f:sync_data())
          check("again", f:write_at(page, 0, 0, PAGE, "dsync"))
          f:close()
        end
      ]], "Io" .. name .. " Io" .. name .. " ")
    end
  end)

  it("but not by a plain write, which promises nothing", function()
    poisoned("pwrite64:error=EIO:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      print(kind(f:write_at(page, 0)))
      check("clean", f:info().poisoned == false)
      print(kind(f:sync_data()))
      print(kind(f:close()))
    ]], "IoEIO ok ok ", 1)
  end)

  it("is told by close when the caller had gone", function()
    -- A worker has to be in the call by then, on a busy machine, too.
    poisoned("fdatasync:error=EIO:delay_enter=600000:when=1", [[
      local f = assert(jdbfs.create(dir .. "/f"))
      jdbfs.run(function()
        local sync = spawn(function() return f:sync_data() end)
        jdbfs.sleep(0.3)
        sync:cancel()
        print(kind(f:close()))
        print(kind(f:close()))
      end)
    ]], "IoEIO ok ", 1)
  end)

  it("does not poison another file", function()
    poisoned("fdatasync:error=EIO:when=1", [[
      local f, g = assert(jdbfs.create(dir .. "/f")), assert(jdbfs.create(dir .. "/g"))
      print(kind(f:sync_data()))
      print(kind(g:sync_data()))
      print(kind(f:sync_data()))
      print(kind(g:sync_all()))
    ]], "IoEIO ok Poisoned ok ", 3)
  end)
end)

describe("the durability class", function()
  support.setup()

  local CLASSES = {
    ["power-safe"] = true, ["flush-required"] = true, unverified = true, unsafe = true,
    unknown = true, simulated = support.on_sim and true,
  }

  local function check_evidence(d)
    assert(CLASSES[d.class], "class " .. tostring(d.class))
    assert(#d.reasons >= 1)
    for _, reason in ipairs(d.reasons) do assert(#reason > 0 and not reason:find("\n")) end
    for _, name in ipairs({ "volatile_cache", "fua" }) do
      assert(d[name] == nil or type(d[name]) == "boolean")
    end
  end

  both("of a file comes with its reasons", function()
    local f = new({ direct = "prefer" })
    local info = f:info()
    local d = info.durability
    check_evidence(d)
    local fs = info.file_system
    assert.equal(support.fs(), fs)
    if fs == "tmpfs" then
      assert.equal("unsafe", d.class)
      assert.is_nil(d.device)
    elseif fs == "btrfs" then
      assert(d.class == "unverified" or d.class == "unknown")
    elseif d.device and d.device:find("^loop") then
      assert.equal("unverified", d.class)
      assert(table.concat(d.reasons, "\n"):find("loop device", 1, true))
    end
    f:close()
  end)

  both("rests on what the kernel shows of the device", function()
    if support.not_linux then return pending(support.not_linux) end
    local f, path = new({ direct = "prefer" })
    local d, info = f:info().durability, f:info()
    f:close()
    if not d.device then return end
    local _, source = support.sh("findmnt -no SOURCE -T " .. support.quote(path))
    if source:find("^/dev/[%w]+\n$") and support.fs() ~= "btrfs" and
      lfs.attributes("/sys/class/block/" .. source:match("(%w+)\n")) then
      assert.equal(source:match("(%w+)\n"), d.device)
    end
    local queue = "/sys/class/block/" .. d.device .. "/queue/"
    local cache = support.get(queue .. "write_cache")
    if not cache then return end -- a partition or a stack
    assert.equal(cache == "write back\n", d.volatile_cache)
    assert.equal(support.get(queue .. "fua") == "1\n", d.fua)
    assert.equal(tonumber(support.get(queue .. "logical_block_size")), info.logical_block)
    assert.equal(tonumber(support.get(queue .. "physical_block_size")), info.physical_block)
  end)

  -- A file system of its own, in a mount namespace of its own: what a process sees there of a
  -- directory and of a file in it. Nothing stays mounted, whatever happens.
  local function mounted(options)
    local why = support.not_linux or support.lacks("root", "unshare", "mkfs.ext4", "truncate")
    if why then return nil, why end
    local image, point = support.path("image"), support.path("point")
    lfs.mkdir(point)
    local mount = ("mount -o loop,%s %s %s"):format(options, support.quote(image),
      support.quote(point))
    if support.sh(("PATH=$PATH:/usr/sbin:/sbin; rm -f %s; truncate -s 8M %s && mkfs.ext4 -q -F %s")
        :format(support.quote(image), support.quote(image), support.quote(image))) ~= 0
      or support.sh("unshare -m " .. mount) ~= 0 then
      return nil, "a loop device cannot be mounted here with " .. options
    end
    return process.script([[
      os.execute(arg[4])
      local f = assert(jdbfs.create(arg[3] .. "/f", {direct = "prefer"}))
      local d = f:info().durability
      check("probe", assert(jdbfs.probe(arg[3])).durability.class == d.class)
      check("options", d.mount_options:find("noatime", 1, true), d.mount_options)
      check("device", d.device:find("^loop"), d.device)
      print(d.class .. ": " .. table.concat(d.reasons, "; "))
    ]], { args = { point, mount }, prefix = "unshare -m" })
  end

  it("is unsafe without write barriers, however many options there are", function()
    for _, options in ipairs({
      "noatime,nobarrier",
      "noatime,lazytime,grpid,minixdf,dioread_lock,nodelalloc,data=writeback," ..
        "journal_async_commit,nobarrier",
    }) do
      local out, why = mounted(options)
      if not out then return pending(why) end
      assert(out:find("^unsafe: .*barrier"), out)
    end
  end)

  it("of a loop device is no better than unverified", function()
    local out, why = mounted("noatime")
    if not out then return pending(why) end
    assert(out:find("^unverified: .*loop device"), out)
  end)

  both("is what probe tells of a file and of a directory", function()
    local f, path = new({ direct = "prefer" })
    local info = f:info()
    f:close()
    for _, where in ipairs({ path, support.path(".") }) do
      local probe = assert(jdbfs.probe(where))
      check_evidence(probe.durability)
      assert.equal(info.durability.class, probe.durability.class)
      assert.equal(info.durability.device, probe.durability.device)
      for _, name in ipairs({
        "file_system", "direct", "memory_alignment", "read_alignment", "write_alignment",
        "logical_block", "physical_block", "backend",
      }) do
        assert.equal(info[name], probe[name], name)
      end
      assert.same(info.atomic, probe.atomic)
      assert.equal("string", type(probe.backend_reason))
    end
    support.holds(path, "")
    -- Nothing stays behind in the directory.
    assert.same({ path:match("[^/]+$") }, jdbfs.ls(support.path(".")))
  end)

  both("of a path that is not there is an error", function()
    local path = support.path()
    fails({ kind = "Io", op = "probe", path = path, name = "ENOENT" }, jdbfs.probe(path))
    fails({ kind = "Io", op = "probe", path = path .. "/x", name = "ENOENT" },
      jdbfs.probe(path .. "/x"))
    assert.is_nil(lfs.attributes(path))
    support.put(path, "")
    fails({ kind = "Io", op = "probe", name = "ENOTDIR" }, jdbfs.probe(path .. "/x"))
    raises("string expected", jdbfs.probe)
    fails({ kind = "Io", op = "probe", says = "NUL" }, jdbfs.probe("a\0b"))
  end)

  both("of what holds no data is not told", function()
    local path = support.path()
    local why = support.lacks("mkfifo")
    if why then return pending(why) end
    support.sh("mkfifo " .. support.quote(path))
    fails({ kind = "Io", op = "probe", path = path, name = "EINVAL" }, jdbfs.probe(path))
  end)
end)
