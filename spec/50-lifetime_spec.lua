-- Who owns memory, handles and coroutines while operations are in flight, under every ending:
-- close, collection, cancellation, errors, os.exit, lua_close. What happens at a process's end or
-- on a slow device is tried in a subprocess.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local PAGE = jdbfs.PAGE_SIZE
local BIG = 1024 * 1024

local function collect()
  for _ = 1, 3 do collectgarbage() end
end

local function new_file(pages)
  local path = support.path()
  local f = assert(jdbfs.create(path, { direct = "prefer" }))
  local b = jdbfs.buffer(PAGE)
  for i = 0, (pages or 1) - 1 do
    b:fill(i % 251)
    assert(f:write_at(b, i * PAGE))
  end
  return f, path
end

local function big(byte)
  local b = jdbfs.buffer(BIG)
  b:fill(byte)
  return b
end

describe("closing a file", function()
  process.setup()

  it("with operations in flight waits for them; new ones get Closed", function()
    local f, path = new_file()
    jdbfs.run(function()
      local results, closed = {}, false
      for i = 1, 8 do
        jdbfs.spawn(function()
          results[i] = f:write_at(big(i), (i - 1) * BIG)
          assert.is_false(closed, "close returned before operation " .. i)
        end)
      end
      jdbfs.yield()
      local closer = jdbfs.spawn(function()
        local ok = f:close()
        closed = true
        return ok
      end)
      jdbfs.yield()
      support.fails({ kind = "Closed", op = "write_at", path = path }, f:write_at(big(9), 0))
      support.fails({ kind = "Closed", op = "size", path = path }, f:size())
      support.fails({ kind = "Closed", op = "sync_all" }, f:sync_all())
      assert.is_true(closer:join())
      for i = 1, 8 do assert.are.equal(BIG, results[i]) end
      assert.is_true(f:close())
    end)
    local data = support.get(path)
    assert.are.equal(8 * BIG, #data)
    for i = 1, 8 do assert.are.equal(i, data:byte(i * BIG)) end
  end)

  support.both("twice is true, and every later call gives Closed", function()
    local f, path = new_file()
    local b = support.page()
    assert.is_true(f:close())
    assert.is_true(f:close())
    local closed = { kind = "Closed", path = path }
    support.fails(closed, f:read_at(b, 0))
    support.fails(closed, f:read_upto(b, 0))
    support.fails(closed, f:read(0, 10))
    support.fails(closed, f:write_at(b, 0))
    support.fails(closed, f:size())
    support.fails(closed, f:stat())
    support.fails(closed, f:info())
    support.fails(closed, f:sync_all())
    support.fails(closed, f:sync_data())
    support.fails(closed, f:truncate(0))
    support.fails(closed, f:preallocate(PAGE))
    assert.are.equal(path, f:path())
    assert.matches("closed", tostring(f), 1, true)
  end)

  it("by two tasks at once is true for both", function()
    local f = new_file()
    jdbfs.run(function()
      jdbfs.spawn(function() f:write_at(big(1), 0) end)
      jdbfs.yield()
      local first = jdbfs.spawn(function() return f:close() end)
      local second = jdbfs.spawn(function() return f:close() end)
      assert.is_true(first:join())
      assert.is_true(second:join())
    end)
  end)

  it("by a task that is cancelled meanwhile still closes it", function()
    local f, path = new_file()
    jdbfs.run(function()
      jdbfs.spawn(function() f:write_at(big(1), 0) end)
      jdbfs.yield()
      local closer = jdbfs.spawn(function() f:close() end)
      jdbfs.yield()
      closer:cancel()
      support.fails({ kind = "Closed" }, f:size())
    end)
    support.wait_idle()
    assert.are.same({}, support.open_files(path:match("^(.*)/")))
  end)

  it("reports the error of a write that nobody waited for", function()
    if not support.lacks("root") and support.fs() ~= "tmpfs" and #support.path() > 0 then
      -- A write that fails for sure: past the limit on file sizes, in a subprocess.
      local out = process.script([[
        local f = assert(jdbfs.create(dir .. "/limited", { direct = "prefer" }))
        local b, page = jdbfs.buffer(jdbfs.PAGE_SIZE), jdbfs.PAGE_SIZE
        local n, _, direct_error = f:write_at(b, 16 * page)
        if n then print("no limit") return end
        check("EFBIG", direct_error.name == "EFBIG", direct_error)
        jdbfs.run(function()
          local task = jdbfs.spawn(function() f:write_at(b, 16 * page) end)
          jdbfs.yield()
          task:cancel()
        end)
        local ok, _, err = f:close()
        check("close", ok == nil and err.kind == "Io" and err.name == "EFBIG", ok, err)
        check("again", f:close() == true)
        print("ok")
      ]], { prefix = "sh -c 'trap \"\" XFSZ; exec prlimit --fsize=16384 \"$@\"' sh" })
      if out == "no limit\n" then return pending("RLIMIT_FSIZE has no effect here") end
      assert.are.equal("ok\n", out)
    else
      return pending("needs root and a disk file system")
    end
  end)
end)

describe("collection", function()
  process.setup()

  it("of a file in flight closes it after its last operation", function()
    local path = support.path()
    local dir = path:match("^(.*)/")
    jdbfs.run(function()
      local task = jdbfs.spawn(function()
        local f = assert(jdbfs.create(path, { direct = "prefer" }))
        return f:write_at(big(0x61), 0)
      end)
      while #support.open_files(dir) == 0 do jdbfs.yield() end
      jdbfs.yield()
      collect()
      assert.are.equal(BIG, task:join())
      collect()
      assert.are.same({}, support.open_files(dir))
    end)
    assert.are.equal(("a"):rep(BIG), support.get(path))
  end)

  it("of a buffer being written keeps its memory: the data is on disk", function()
    local f, path = new_file()
    jdbfs.run(function()
      for i = 1, 8 do jdbfs.spawn(function() return f:write_at(big(i), (i - 1) * BIG) end) end
      jdbfs.yield()
      collect()
      -- Takes the addresses that a buffer freed too early would have given back.
      local others = {}
      for i = 1, 8 do others[i] = big(0xff) end
      assert.are.equal(255, others[8]:u8(0))
    end)
    assert(f:close())
    local data = support.get(path)
    for i = 1, 8 do
      assert.are.equal(string.char(i):rep(BIG), data:sub((i - 1) * BIG + 1, i * BIG))
    end
  end)

  it("of a buffer being read into loses nothing: a slice sees it, others stay zero", function()
    local f = new_file(256)
    jdbfs.run(function()
      local slices, tasks = {}, {}
      for i = 1, 8 do
        tasks[i] = jdbfs.spawn(function()
          local b = jdbfs.buffer(256 * PAGE)
          slices[i] = b:slice((i - 1) * PAGE, PAGE)
          return f:read_at(b, 0)
        end)
      end
      jdbfs.yield()
      collect()
      local others = {}
      for i = 1, 8 do others[i] = jdbfs.buffer(256 * PAGE) end
      for i = 1, 8 do
        assert.are.equal(256 * PAGE, tasks[i]:join())
        assert.are.equal(string.char(i - 1):rep(PAGE), slices[i]:string())
        assert.are.equal(("\0"):rep(256 * PAGE), others[i]:string())
      end
    end)
    assert(f:close())
  end)

  it("at every step of many operations changes nothing", function()
    local f = new_file(16)
    jdbfs.run(function()
      for t = 1, 8 do
        jdbfs.spawn(function()
          for round = 1, 10 do
            local at = (t + round) % 16
            local b = jdbfs.buffer(PAGE)
            assert.are.equal(PAGE, f:read_at(b, at * PAGE))
            collectgarbage()
            assert.are.equal(at, b:u8(PAGE - 1))
          end
        end)
      end
    end)
    assert(f:close())
  end)

  it("of a cancelled task's coroutine, file and buffer waits for the operation", function()
    local path = support.path()
    local dir = path:match("^(.*)/")
    jdbfs.run(function()
      local task = jdbfs.spawn(function()
        local f = assert(jdbfs.create(path, { direct = "prefer" }))
        f:write_at(big(0x62), 0)
      end)
      while #support.open_files(dir) == 0 do jdbfs.yield() end
      jdbfs.yield()
      task:cancel()
      task:join()
      task = nil -- luacheck: ignore 311
      collect()
    end)
    support.wait_idle()
    collect()
    assert.are.same({}, support.open_files(dir))
    local data = support.get(path)
    -- Dropped before the kernel had it, or written whole: nothing in between.
    assert.is_true(data == "" or data == ("b"):rep(BIG))
  end)
end)

describe("a reused descriptor", function()
  process.setup()

  it("is never written by an operation of the file that had it before", function()
    local out = process.script([[
      assert(jdbfs.setup { depth = 1 })
      local big = 256 * 1024
      local function fill(byte)
        local b = jdbfs.buffer(big)
        b:fill(byte)
        return b
      end
      for round = 1, 20 do
        local name = dir .. "/old" .. round
        jdbfs.run(function()
          local tasks = {}
          do
            local old = check("create", jdbfs.create(name, { direct = "prefer" }))
            for i = 1, 6 do
              tasks[i] = jdbfs.spawn(function() return old:write_at(fill(0x6f), (i - 1) * big) end)
            end
            jdbfs.yield()
            for i = 1, 6 do tasks[i]:cancel() end
            if round % 2 == 0 then check("close", old:close()) end
          end
          tasks = nil
          jdbfs.yield()
          collect()
          local new = check("create", jdbfs.create(dir .. "/new" .. round, { direct = "prefer" }))
          check("write", new:write_at(fill(0x6e), 0) == big)
          for _ = 1, 200 do
            local s = jdbfs.stats()
            if s.abandoned == 0 then break end
            jdbfs.sleep(0.005)
          end
          check("size", new:size() == big, round, new:size())
          check("content", new:read(0, big) == ("n"):rep(big), round)
          check("close", new:close())
        end)
      end
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)
end)

describe("errors", function()
  process.setup()

  it("in a task that was just resumed lose no completion of the others", function()
    local f = new_file(64)
    local finished = 0
    for _ = 1, 20 do
      assert.is_false((pcall(jdbfs.run, function()
        for i = 1, 32 do
          jdbfs.spawn(function()
            f:read_at(jdbfs.buffer(PAGE), i * PAGE)
            if i == 16 then error("stop") end
            finished = finished + 1
          end)
        end
      end)))
      local s = jdbfs.stats()
      assert.are.same({ 0, 0, 0, 0 }, { s.in_flight, s.waiting, s.abandoned, s.tasks })
    end
    assert.is_true(finished <= 20 * 31)
    assert(f:close())
  end)

  it("of tasks outside a run leave the other tasks alone", function()
    local f = new_file(4)
    local sizes = 0
    for i = 1, 4 do
      jdbfs.spawn(function()
        f:size()
        if i == 2 then error("boom") end
        f:size()
        sizes = sizes + 1
      end)
    end
    local raised = 0
    for _ = 1, 1000 do
      if jdbfs.stats().tasks == 0 then break end
      if not pcall(jdbfs.step, 0.1) then raised = raised + 1 end
    end
    assert.are.equal(1, raised)
    assert.are.equal(3, sizes)
    assert(f:close())
  end)
end)

describe("to-be-closed variables", function()
  process.setup()

  local function with_code(name, body, test)
    it(name, function()
      local code = process.close_code(body)
      if not code then return pending("to-be-closed variables came with Lua 5.4") end
      test(code)
    end)
  end

  with_code("close a file at the end of a block, in a task and outside", [[
    local jdbfs, path = ...
    local kept
    do
      local f <close> = assert(jdbfs.create(path, { direct = "prefer" }))
      assert(f:write_at(jdbfs.buffer(jdbfs.PAGE_SIZE), 0))
      kept = f
    end
    return kept
  ]], function(code)
    local dir = support.path("."):match("^(.*)/")
    local outside = code(jdbfs, support.path())
    local inside = jdbfs.run(function() return code(jdbfs, support.path()) end)
    assert.are.same({}, support.open_files(dir))
    for _, f in ipairs({ outside, inside }) do
      support.fails({ kind = "Closed" }, f:size())
      support.fails({ kind = "Closed" }, f:read_at(support.page(), 0))
      assert.is_true(f:close())
      assert.matches("closed", tostring(f), 1, true)
    end
  end)

  with_code("close a file when the coroutine is closed in flight", [[
    local jdbfs, path = ...
    local co
    jdbfs.run(function()
      jdbfs.spawn(function()
        co = coroutine.running()
        local f <close> = assert(jdbfs.create(path, { direct = "prefer" }))
        local b = jdbfs.buffer(1048576)
        for _ = 1, 1000 do f:write_at(b, 0) end
      end)
      for _ = 1, 5 do jdbfs.sleep(0.001) end
      local ok, message = coroutine.close(co)
      assert(ok, message)
      jdbfs.sleep(0.001)
    end)
  ]], function(code)
    code(jdbfs, support.path())
    support.wait_idle()
    assert.are.same({}, support.open_files(support.path("."):match("^(.*)/")))
  end)

  with_code("of a task cancelled in flight close the file after the operation", [[
    local jdbfs, path = ...
    jdbfs.run(function()
      local task = jdbfs.spawn(function()
        local f <close> = assert(jdbfs.create(path, { direct = "prefer" }))
        for _ = 1, 1000 do f:write_at(jdbfs.buffer(1048576), 0) end
      end)
      for _ = 1, 5 do jdbfs.sleep(0.001) end
      task:cancel()
      task:join()
    end)
  ]], function(code)
    code(jdbfs, support.path())
    support.wait_idle()
    assert.are.same({}, support.open_files(support.path("."):match("^(.*)/")))
  end)
end)

describe("misuse", function()
  process.setup()

  it("a method on the wrong object raises", function()
    local f = new_file()
    local b = jdbfs.buffer(PAGE)
    local task = jdbfs.spawn(function() end)
    jdbfs.step()
    local coroutine_of_ours = coroutine.create(function() end)
    local foreign = { b, task, io.stdout, {}, 1, "x", true, print, coroutine_of_ours }
    if rawget(_G, "newproxy") then foreign[#foreign + 1] = rawget(_G, "newproxy")() end
    for _, name in ipairs({ "read_at", "read_upto", "read", "write_at", "size", "stat", "info",
      "sync_all", "sync_data", "truncate", "preallocate", "path", "close" }) do
      assert.has_error(function() f[name]() end)
      for _, object in ipairs(foreign) do
        assert.has_error(function() f[name](object, b, 0) end)
      end
    end
    foreign[1] = f
    for _, name in ipairs({ "string", "set", "fill", "copy", "slice", "u8", "u64", "f64", "crc32c",
      "pointer", "align", "free" }) do
      assert.has_error(function() b[name]() end)
      for _, object in ipairs(foreign) do
        assert.has_error(function() b[name](object, 0, "x") end)
      end
    end
    foreign[2] = b
    for _, name in ipairs({ "cancel", "status", "join" }) do
      assert.has_error(function() task[name]() end)
      for _, object in ipairs(foreign) do
        assert.has_error(function() task[name](object) end)
      end
    end
    assert.has_error(function() f:read_at(f, 0) end)
    assert.has_error(function() f:write_at("data", 0) end)
    assert(f:close())
  end)

  it("metatables cannot be reached or replaced", function()
    local f = new_file()
    local task = jdbfs.spawn(function() end)
    jdbfs.step()
    for name, object in pairs({
      ["jdbfs.file"] = f, ["jdbfs.buffer"] = jdbfs.buffer(1), ["jdbfs.task"] = task,
    }) do
      assert.are.equal(name, getmetatable(object))
      assert.is_true(tostring(object):find(name, 1, true) == 1)
    end
    local _, _, err = jdbfs.open(support.path("missing"))
    assert.are_not.equal("table", type(getmetatable(err)))
    assert.has_error(function() setmetatable(err, {}) end)
    assert(f:close())
  end)

  it("__gc and __close called by hand, twice and on anything, do no harm", function()
    local f = new_file()
    local b = jdbfs.buffer(PAGE)
    for _, object in ipairs({ f, b }) do
      local meta = debug.getmetatable(object)
      for _, name in ipairs({ "__gc", "__close" }) do
        local finalize = meta[name]
        if finalize then
          for _, other in ipairs({ io.stdout, {}, "x", 1 }) do pcall(finalize, other) end
          pcall(finalize)
          pcall(finalize, object)
          pcall(finalize, object)
        end
      end
    end
    -- Used afterwards they are closed, or a mistake; never a crash.
    pcall(f.size, f)
    pcall(f.read_at, f, b, 0)
    pcall(f.close, f)
    pcall(tostring, f)
    pcall(b.string, b)
    pcall(tostring, b)
    collect()
  end)

  it("__gc by hand in flight leaves the operation its file and buffer", function()
    local path = support.path()
    jdbfs.run(function()
      local f = assert(jdbfs.create(path, { direct = "prefer" }))
      local b = big(0x63)
      local task = jdbfs.spawn(function() return f:write_at(b, 0) end)
      jdbfs.yield()
      pcall(debug.getmetatable(b).__gc, b)
      pcall(debug.getmetatable(f).__gc, f)
      assert.are.equal(BIG, task:join())
    end)
    assert.are.equal(("c"):rep(BIG), support.get(path))
  end)
end)

describe("the end of the process", function()
  process.setup()

  -- Many large writes with one in flight at a time: most are still queued when it ends.
  local SLOW_WRITES = [[
    assert(jdbfs.setup { depth = 1, workers = 2 })
    local big = 1048576
    local f = assert(jdbfs.create(dir .. "/slow", { direct = "prefer" }))
    for i = 1, 12 do
      jdbfs.spawn(function()
        local b = jdbfs.buffer(big)
        b:fill(i)
        f:write_at(b, (i - 1) * big)
        jdbfs.sleep(100)
      end)
    end
    jdbfs.step()
    check("in flight", jdbfs.pending() > 0)
  ]]

  local function written()
    local f = assert(io.open(support.path("slow"), "rb"))
    local size = f:seek("end")
    for at = 0, size - 1, BIG do
      f:seek("set", at)
      local piece = f:read(BIG)
      -- Each write is there as a whole, or not at all.
      local byte = piece:sub(1, 1)
      assert.is_true(piece == byte:rep(#piece), "a mixed piece at " .. at)
    end
    f:close()
    return size
  end

  local endings = {
    ["the end of the script"] = "",
    ["os.exit()"] = "os.exit(0)",
    ["os.exit with closing"] = "os.exit(0, true)",
    ["os.exit in a task"] = "jdbfs.run(function() jdbfs.yield() os.exit(0) end)",
    ["os.exit with closing in a task"] =
      "jdbfs.run(function() jdbfs.yield() os.exit(0, true) end)",
    ["os.exit with closing in a coroutine in a task"] = "jdbfs.run(function() jdbfs.yield() " ..
      "coroutine.wrap(function() f:size() os.exit(0, true) end)() end)",
    ["os.exit with closing in a finalizer"] = [[
      local function exit() os.exit(0, true) end
      if newproxy then
        local p = newproxy(true)
        getmetatable(p).__gc = exit
      else
        setmetatable({}, { __gc = exit })
      end
      collectgarbage()
      collectgarbage()
    ]],
  }
  for name, ending in pairs(endings) do
    it("by " .. name .. " with I/O in flight is clean", function()
      process.script(SLOW_WRITES .. ending)
      local size = written()
      if name == "the end of the script" then
        -- Everything accepted is waited for.
        assert.are.equal(12 * BIG, size)
      end
    end)
  end

  it("by an error in the main chunk with I/O in flight is clean", function()
    local _, r = process.script(SLOW_WRITES .. "error('boom', 0)", { loose = true })
    assert.are.equal(1, r.status)
    assert.matches("boom", r.err, 1, true)
    written()
  end)

  it("inside run by an uncaught error waits and reports it", function()
    local _, r = process.script(SLOW_WRITES ..
      "jdbfs.run(function() jdbfs.spawn(function() f:size() error('boom') end) f:sync_all() end)",
      { loose = true })
    assert.are.equal(1, r.status)
    assert.matches("boom", r.err, 1, true)
    assert.matches("stack traceback", r.err, 1, true)
  end)

  it("finalizers that call jdbfs while the state closes get an answer, not a crash", function()
    if os.getenv("JDBFS_TEST_SAN") == "address" then
      return pending("Lua 5.4 runs no finalizer of what finalizers make at its end")
    end
    local out = process.script([[
      local created
      local function at_close(f)
        if newproxy then
          local p = newproxy(true)
          getmetatable(p).__gc = f
          return p
        end
        return setmetatable({}, { __gc = f })
      end
      local function use(label)
        return function()
          local f = created.f
          local calls = {
            function() return f:size() end,
            function() return f:read_at(created.b, 0) end,
            function() return f:write_at(jdbfs.buffer(4096), 0) end,
            function() return jdbfs.open(dir .. "/file") end,
            function() return jdbfs.exists(dir) end,
            function() return created.b:string(0, 1) end,
            function() return created.b:fill(0) end,
            function() return jdbfs.run(function() return f:size() end) end,
            function() return jdbfs.spawn(function() end) end,
            function() return jdbfs.step() end,
            function() return jdbfs.sleep(0) end,
            function() return jdbfs.stats() end,
            function() return jdbfs.info() end,
            function() return jdbfs.pending() end,
            function() return jdbfs.flush() end,
            function() return jdbfs.pollfd() end,
            function() return jdbfs.timeout(0.1, function() return f:size() end) end,
            function() return created.task:cancel() end,
            function() return created.task:join() end,
            function() return created.semaphore:acquire() end,
            function() return created.file_meta.__gc(f) end,
            function() return f:close() end,
            function() return tostring(f) .. tostring(created.b) .. tostring(created.task) end,
            function() return created.b:free() end,
          }
          for _, call in ipairs(calls) do
            local ok, a, b, c = pcall(call)
            local _ = { ok, a, b, c }
          end
          print(label)
        end
      end
      keep = { at_close(use("before")) }
      created = {
        f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" })),
        b = jdbfs.buffer(4096),
        semaphore = jdbfs.semaphore(0),
      }
      created.file_meta = debug.getmetatable(created.f)
      created.task = jdbfs.spawn(function()
        local b = jdbfs.buffer(1048576)
        created.f:write_at(b, 0)
      end)
      jdbfs.step()
      keep[2] = at_close(use("after"))
      keep[3] = created
    ]])
    assert.matches("after", out, 1, true)
    assert.matches("before", out, 1, true)
  end)

  it("an object made before the module is loaded outlives it, and calls it, safely", function()
    -- The state's finalizer runs before that of an object that is older.
    local result = support.script([[
      local used
      local function at_close(f)
        if newproxy then
          local p = newproxy(true)
          getmetatable(p).__gc = f
          return p
        end
        return setmetatable({}, { __gc = f })
      end
      old = at_close(function()
        for _, name in ipairs { "size", "close", "info", "path" } do
          local ok, value, _, err = pcall(used.f[name], used.f)
          print(name, ok, value == nil and err and err.kind or type(value))
        end
        local ok, value, _, err = pcall(used.jdbfs.open, used.path)
        print("open", ok, value == nil and err.kind)
        ok, value, _, err = pcall(used.jdbfs.run, function() end)
        print("run", ok, value == nil and err and err.kind)
        print("buffer", pcall(used.b.string, used.b, 0, 1))
        pcall(used.jdbfs.stats)
      end)
      local jdbfs = require "jdbfs"
      used = { jdbfs = jdbfs, path = arg[1] .. "/file", b = jdbfs.buffer(4096) }
      used.f = assert(jdbfs.create(used.path, { direct = "prefer" }))
      jdbfs.spawn(function() used.f:write_at(jdbfs.buffer(1048576), 0) end)
      jdbfs.step()
    ]], { args = { support.path(".") } })
    assert.are.equal("", result.err)
    assert.are.equal(0, result.status)
    assert.matches("run\t", result.out, 1, true)
    assert.matches("open\ttrue\tClosed", result.out, 1, true)
  end)

  it("of a state that is not the process's leaves no thread, descriptor or mapping", function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    local out = process.script([[
      local source = ([=[
        local jdbfs, dir = require "jdbfs", %q
        local f = assert(jdbfs.create(dir .. "/other", { direct = "prefer" }))
        for i = 1, 4 do
          jdbfs.spawn(function()
            local b = jdbfs.buffer(1048576)
            f:write_at(b, i * 1048576)
            jdbfs.sleep(100)
          end)
        end
        jdbfs.run(function()
          for i = 1, 8 do jdbfs.spawn(function() f:stat() end) end
        end)
        jdbfs.pollfd()
        MODE()
      ]=]):format(dir)
      local function maps()
        local n = 0
        for _ in io.lines("/proc/self/maps") do n = n + 1 end
        return n
      end
      local function one(mode)
        local ok, message = forker.state((source:gsub("MODE%(%)", mode)))
        check("state", ok or mode:find("error"), message)
      end
      jdbfs.info()
      for _ = 1, 5 do
        one("")
        one("error('x')")
      end
      local threads, files, mapped = count("/proc/self/task"), count("/proc/self/fd"), maps()
      for _ = 1, 20 do
        one("")
        one("error('x')")
      end
      -- Kernel workers leave when they had nothing to do for five seconds.
      for _ = 1, 300 do
        if count("/proc/self/task") <= threads then break end
        jdbfs.sleep(0.05)
      end
      check("threads", count("/proc/self/task") <= threads, threads, count("/proc/self/task"))
      check("descriptors", count("/proc/self/fd") <= files, files, count("/proc/self/fd"))
      -- The thread sanitizer maps shadows of its own for each address that is new.
      check("mappings", maps() <= mapped + 30 or os.getenv("JDBFS_TEST_SAN") == "thread",
        mapped, maps())
      -- And the first state still works.
      local f = check("create", jdbfs.create(dir .. "/own", { direct = "prefer" }))
      check("write", f:write_at(jdbfs.buffer(4096), 0) == 4096)
      print("ok")
    ]], { forker = forker })
    assert.are.equal("ok\n", out)
  end)
end)

describe("on a slow device", function()
  process.setup()

  local slow
  after_each(function()
    if slow then slow.stop() end
    slow = nil
  end)

  local function on_slow(name, source, check, lacks)
    it(name, function()
      if lacks then return pending(lacks) end
      local why
      slow, why = process.slow()
      if not slow then return pending(why) end
      local started = jdbfs.now()
      local out = process.script([[
        local size = 131072 -- half a second
        local f = assert(jdbfs.open_rw(arg[3], { device = true, must_exist = true }))
        local function reader(at, b)
          return jdbfs.spawn(function() return f:read_at(b or jdbfs.buffer(size), at * size) end)
        end
      ]] .. source, { args = { slow.device }, prefix = slow.prefix })
      check(out, jdbfs.now() - started)
    end)
  end

  on_slow("the end of the state waits for what the kernel has", [[
    reader(0)
    reader(1)
    jdbfs.step()
  ]], function(_, took) assert.is_true(took > 0.5, "took " .. took) end)

  on_slow("os.exit is clean", [[
    reader(0)
    reader(1)
    jdbfs.step()
    os.exit(0)
  ]], function(_, took) assert.is_true(took < 20) end)

  on_slow("a timeout detaches at once and the buffer stays busy until the data is there", [[
    jdbfs.run(function()
      f:read_at(jdbfs.buffer(size), 0)
      local b = jdbfs.buffer(size)
      local before = jdbfs.now()
      local n, _, err = jdbfs.timeout(0.05, f.read_at, f, b, 20 * size) -- nobody reads ahead so far
      check("timeout", n == nil and err.kind == "Timeout", n, err)
      check("at once", jdbfs.stats().abandoned == 1)
      check("busy", not pcall(b.string, b) and not pcall(b.free, b))
      n, _, err = f:read_at(b, 0)
      check("busy for others", n == nil and err.kind == "Busy", n, err)
      while jdbfs.stats().abandoned > 0 do jdbfs.sleep(0.01) end
      check("it did arrive", b:string() == ("\171"):rep(size))
      check("later", jdbfs.now() - before > 0.3)
    end)
    print("ok")
  ]], function(out) assert.are.equal("ok\n", out) end)

  on_slow("close waits", [[
    jdbfs.run(function()
      local a, b = reader(0), reader(1)
      jdbfs.yield()
      local before = jdbfs.now()
      check("close", f:close())
      check("waited", jdbfs.now() - before > 0.3, jdbfs.now() - before)
      check("results", a:join() == size and b:join() == size)
    end)
    print("ok")
  ]], function(out) assert.are.equal("ok\n", out) end)

  on_slow("memory given up by a cancelled task is not given to others while the kernel writes", [[
    jdbfs.run(function()
      f:read_at(jdbfs.buffer(size), 0)
      for i = 1, 3 do
        local task = reader(i)
        jdbfs.yield()
        task:cancel()
        task:join()
      end
      collect()
      local others = {}
      for i = 1, 32 do others[i] = jdbfs.buffer(size) end
      check("still in flight", jdbfs.stats().abandoned > 0)
      while jdbfs.stats().abandoned > 0 do jdbfs.sleep(0.01) end
      for i = 1, 32 do check("zero", others[i]:string() == ("\0"):rep(size), i) end
    end)
    collect()
    check("freed", jdbfs.stats().buffers <= 32, jdbfs.stats().buffers)
    print("ok")
  ]], function(out) assert.are.equal("ok\n", out) end)

  on_slow("an error waits for all that is in flight before run raises it", [[
    local before = jdbfs.now()
    local ok = pcall(jdbfs.run, function()
      reader(0)
      reader(1)
      jdbfs.yield()
      error("boom")
    end)
    check("raised", not ok)
    check("waited", jdbfs.now() - before > 0.3, jdbfs.now() - before)
    local s = jdbfs.stats()
    check("nothing left", s.in_flight + s.waiting + s.abandoned + s.tasks == 0)
    print("ok")
  ]], function(out) assert.are.equal("ok\n", out) end)

  on_slow("other tasks run, and other files are read, while it is awaited", [[
    local other = assert(jdbfs.create(dir .. "/fast", { direct = "prefer" }))
    assert(other:write_at(jdbfs.buffer(4096), 0))
    jdbfs.run(function()
      local slow_one = reader(0)
      reader(1)
      local reads = 0
      while slow_one:status() ~= "done" and reads < 100 do
        check("read", other:read_at(jdbfs.buffer(4096), 0) == 4096)
        reads = reads + 1
      end
      check("reads meanwhile", reads > 2, reads) -- a hundred, where the machine is not busy
    end)
    print("ok")
  ]], function(out) assert.are.equal("ok\n", out) end)

  -- A wait for a quarter of all would bring two reads of it for every two of the fast file.
  on_slow("reads of another file do not wait for many of it", [[
    local other = assert(jdbfs.create(dir .. "/fast", { direct = "prefer" }))
    assert(other:write_at(jdbfs.buffer(4096), 0))
    jdbfs.run(function()
      local slow_reads, ended = 0, false
      for i = 1, 14 do
        jdbfs.spawn(function()
          local b = jdbfs.buffer(4096)
          while not ended do
            check("slow read", f:read_at(b, i * 65536) == 4096)
            if not ended then slow_reads = slow_reads + 1 end
          end
        end)
      end
      jdbfs.yield() -- they are there first
      local function read_other()
        local b = jdbfs.buffer(4096)
        for _ = 1, 100 do check("read", other:read_at(b, 0) == 4096) end
      end
      local second = jdbfs.spawn(read_other)
      read_other()
      second:join()
      ended = true
      check("slow reads meanwhile", slow_reads < 100, slow_reads)
    end)
    print("ok")
  ]], function(out)
    assert.are.equal("ok\n", out)
  end, support.not_linux) -- elsewhere the page cache has them
end)

describe("nothing leaks", function()
  process.setup()

  it("over 20,000 failing and succeeding calls, in tasks and outside", function()
    if not support.proc then return pending("there is no /proc here") end
    local out = process.script([[
      local page = jdbfs.PAGE_SIZE
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      local b = jdbfs.buffer(page)
      assert(f:write_at(b, 0))
      local calls = {
        function() return f:read_at(b, 0) end,
        function() return f:read_at(b, page) end,
        function() return f:read_at(b, 1) end,
        function() return f:read_at(b, -1) end,
        function() return f:read_at(b, 0, 0, 2 * page) end,
        function() return f:read(3, 5) end,
        function() return f:size() end,
        function() return jdbfs.open(dir .. "/missing") end,
        function() return jdbfs.open(dir) end,
        function() return jdbfs.exists(dir .. "/missing") end,
        function() return jdbfs.buffer(-1) end,
        function() return pcall(f.read_at, f, nil, 0) end,
        function() return pcall(f.read_at, f, b, {}) end,
        function() return pcall(b.u8, b, page) end,
        function()
          local g = jdbfs.open_rw(dir .. "/second", { direct = "prefer" })
          g:write_at(b, 0)
          return g:close()
        end,
        function() return b:slice(0, 10):string() end,
        function() return jdbfs.timeout(1, f.size, f) end,
        function() return jdbfs.spawn(function() f:size() end):cancel() end,
        function() return jdbfs.wrap(function() f:size() coroutine.yield(1) end)() end,
      }
      local function round(n)
        for i = 1, n do calls[i % #calls + 1]() end
        jdbfs.run(function()
          for i = 1, n do calls[i % #calls + 1]() end
        end)
        jdbfs.run(function() jdbfs.yield() end)
        while jdbfs.stats().abandoned > 0 do jdbfs.step(0.1) end
        collect()
      end
      local function rss()
        local status = io.open("/proc/self/status")
        local kib = status:read("*a"):match("VmRSS:%s*(%d+)")
        status:close()
        return tonumber(kib)
      end
      round(2000)
      local kib, fds, resident = collectgarbage("count"), count("/proc/self/fd"), rss()
      local threads = count("/proc/self/task")
      round(10000)
      check("Lua memory", collectgarbage("count") - kib < 64, collectgarbage("count") - kib)
      -- A sanitizer keeps freed memory for a while.
      local most = (os.getenv("JDBFS_TEST_SAN") or "") == "" and 3000 or 100000
      check("resident memory", rss() - resident < most, rss() - resident)
      check("descriptors", count("/proc/self/fd") == fds)
      check("threads", count("/proc/self/task") <= math.max(threads, 17))
      local s = jdbfs.stats()
      check("objects", s.files == 1 and s.buffers == 1, s.files, s.buffers)
      check("slots", s.slots <= 256, s.slots)
      print("ok")
    ]], { env = { ASAN_OPTIONS = os.getenv("ASAN_OPTIONS") } })
    assert.are.equal("ok\n", out)
  end)

  it("when 2,000 files are opened and dropped without close", function()
    if not support.proc then return pending("there is no /proc here") end
    local out = process.script([[
      jdbfs.info()
      local before = count("/proc/self/fd")
      for i = 1, 2000 do
        assert(jdbfs.open_rw(dir .. "/file", { direct = "prefer" }))
        if i % 100 == 0 then collect() end
      end
      collect()
      check("descriptors", count("/proc/self/fd") == before, before, count("/proc/self/fd"))
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  it("out of descriptors: an error, and all is well afterwards", function()
    local out = process.script([[
      jdbfs.info()
      local files, _, err = {}, nil, nil
      jdbfs.exists(dir)
      for i = 1, 1000 do
        local f
        f, _, err = jdbfs.open_rw(dir .. "/file" .. i % 3, { direct = "prefer" })
        if not f then break end
        files[i] = f
      end
      check("EMFILE", err and err.name == "EMFILE", err)
      for _, f in ipairs(files) do check("close", f:close()) end
      check("open", jdbfs.open_rw(dir .. "/file", { direct = "prefer" })):close()
      print("ok")
    ]], { prefix = "prlimit --nofile=100" })
    assert.are.equal("ok\n", out)
  end)
end)
