-- The examples that the rock ships do what their comments say. What they promise of a crash is
-- tried in 91-examples_sim_spec.lua.

local jdbfs = require "jdbfs"
local support = require "support"

local copy = require "jdbfs.example.copy"
local kv = require "jdbfs.example.kv"
local lsm = require "jdbfs.example.lsm"
local pages = require "jdbfs.example.pages"

local both, task = support.both, support.task

-- Changes one byte of a file, behind the back of whoever has it open.
local function damage(path, offset)
  local f = assert(io.open(path, "r+b"))
  f:seek("set", offset)
  local byte = f:read(1):byte()
  f:seek("set", offset)
  f:write(string.char((byte + 1) % 256))
  f:close()
end

describe("the page store", function()
  support.setup()

  both("gives back what was committed", function()
    local path = support.path()
    local store = assert(pages.open(path))
    local numbers = {}
    for i = 1, 10 do
      numbers[i] = store:allocate()
      assert(store:write(numbers[i], ("page "):rep(i)))
    end
    assert(store:commit())
    assert(store:write(numbers[1], "never committed"))
    store:close()
    store = assert(pages.open(path))
    for i = 1, 10 do assert.are.equal(("page "):rep(i), store:read(numbers[i])) end
    store:close()
  end)

  task("uses free pages again, and does not grow", function()
    local path = support.path()
    local store = assert(pages.open(path))
    local first, second = store:allocate(), store:allocate()
    store:write(first, "a")
    store:write(second, "b")
    store:free(first)
    assert.are.equal(first, store:allocate())
    for i = 1, 100 do
      assert(store:write(second, "version " .. i))
      assert(store:commit())
    end
    assert.are.equal("version 100", store:read(second))
    assert.is_true(assert(jdbfs.size(path)) <= 10 * 4096)
    store:close()
  end)

  task("is used by many tasks at once", function()
    local store = assert(pages.open(support.path()))
    local tasks = {}
    for i = 1, 50 do
      local number = store:allocate()
      tasks[i] = jdbfs.spawn(function()
        for round = 1, 5 do
          assert(store:write(number, ("%d %d"):format(i, round)))
          assert.are.equal(("%d %d"):format(i, round), store:read(number))
          if i % 10 == 0 then assert(store:commit()) end
        end
      end)
    end
    for i = 1, 50 do tasks[i]:join() end
    assert(store:commit())
    for number = 1, 50 do assert.are.equal(number .. " 5", store:read(number)) end
    store:close()
  end)

  both("refuses what it cannot hold, and names a damaged page", function()
    local path = support.path()
    local store = assert(pages.open(path))
    local number = store:allocate()
    assert.matches("holds nothing", (select(2, store:read(number))))
    assert.matches("4072", (select(2, store:write(number, ("x"):rep(4073)))))
    assert.matches("allocated", (select(2, store:write(7, "x"))))
    assert(store:write(number, ("x"):rep(4072)))
    assert(store:commit())
    store:close()
    damage(path, 2 * 4096 + 100)
    store = assert(pages.open(path))
    assert.matches("page 1 is damaged", (select(2, store:read(number))))
    store:close()
    damage(path, 0)
    damage(path, 4096)
    assert.matches("header", (select(2, pages.open(path))))
  end)
end)

describe("the key-value store", function()
  support.setup()

  both("gives back what was put, also after opening again", function()
    local path = support.path()
    local store = assert(kv.open(path))
    assert(store:put("a", "1"))
    assert(store:put("b\0\n", "2\0\n"))
    assert(store:write { c = "3", a = false })
    assert.is_nil(store:get("a"))
    store:close()
    store = assert(kv.open(path))
    assert.is_nil(store:get("a"))
    assert.are.equal("2\0\n", store:get("b\0\n"))
    assert.are.equal("3", store:get("c"))
    store:close()
  end)

  task("has the last of many writers' values, and shares flushes", function()
    local path = support.path()
    local store = assert(kv.open(path))
    local tasks = {}
    for i = 1, 100 do tasks[i] = jdbfs.spawn(store.put, store, "key " .. i % 7, tostring(i)) end
    for _, one in ipairs(tasks) do assert(one:join()) end
    assert.is_true(store.log:stats().batches < 50)
    local values = {}
    for key, value in store:pairs() do values[key] = value end
    store:close()
    store = assert(kv.open(path))
    local count = 0
    for key, value in store:pairs() do
      count = count + 1
      assert.are.equal(values[key], value)
    end
    assert.are.equal(7, count)
    store:close()
  end)

  task("is short after compact, with the same values, while others write", function()
    local path = support.path()
    local store = assert(kv.open(path, { segment_size = 65536 }))
    for round = 1, 40 do
      for key = 1, 5 do
        jdbfs.spawn(store.put, store, "key " .. key, ("%d "):format(round):rep(500))
      end
      assert(store:put("last", tostring(round)))
    end
    local compacting = jdbfs.spawn(store.compact, store)
    assert(store:put("last", "41"))
    assert(compacting:join())
    assert.is_true(#jdbfs.ls(path) <= 3)
    store:close()
    store = assert(kv.open(path))
    assert.are.equal("41", store:get("last"))
    assert.are.equal(("40 "):rep(500), store:get("key 3"))
    store:close()
  end)
end)

describe("the LSM tree", function()
  support.setup()

  both("gives back what was put, from memory, log and runs", function()
    local path = support.path()
    local tree = assert(lsm.open(path, { memory = 8192 }))
    local expected = {}
    for i = 1, 300 do
      local key, value = ("%03d"):format(i * 7 % 100), ("value %d "):format(i):rep(10)
      assert(tree:put(key, value))
      expected[key] = value
      if i % 13 == 0 then
        assert(tree:delete(key))
        expected[key] = nil
      end
    end
    local function check()
      for i = 0, 99 do
        local key = ("%03d"):format(i)
        assert.are.equal(expected[key], tree:get(key))
      end
      local last, count = "", 0
      for key, value in tree:range("010", "090") do
        assert.is_true(key > last and key >= "010" and key < "090")
        assert.are.equal(expected[key], value)
        last, count = key, count + 1
      end
      for key in pairs(expected) do if key >= "010" and key < "090" then count = count - 1 end end
      assert.are.equal(0, count)
    end
    check()
    tree:close()
    tree = assert(lsm.open(path, { memory = 8192 }))
    check()
    assert(tree:flush())
    check()
    tree:close()
    assert.is_true(#jdbfs.ls(path) <= 5) -- merged, and what was merged is gone
  end)

  task("is used by many tasks at once", function()
    local tree = assert(lsm.open(support.path(), { memory = 4096 }))
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = jdbfs.spawn(function()
        for round = 1, 20 do
          assert(tree:put("key " .. i, ("%d "):format(round):rep(20)))
          assert.are.equal(("%d "):format(round):rep(20), tree:get("key " .. i))
        end
      end)
    end
    for i = 1, 20 do tasks[i]:join() end
    for i = 1, 20 do assert.are.equal(("20 "):rep(20), tree:get("key " .. i)) end
    tree:close()
  end)

  task("closes the runs that were merged, when their readers are done", function()
    local path = support.path()
    local tree = assert(lsm.open(path))
    collectgarbage("stop") -- it would close them, some time
    finally(function() collectgarbage("restart") end)
    assert(tree:put("key", "value"))
    local readers, done = {}, false
    for i = 1, 8 do
      readers[i] = jdbfs.spawn(function()
        while not done do
          assert.are.equal("value", tree:get("key"))
          assert.are.equal("value", select(2, tree:range("key")()))
          jdbfs.yield()
        end
      end)
    end
    for i = 1, 12 do
      assert(tree:put("other", ("%d"):format(i)))
      assert(tree:flush())
    end
    done = true
    for i = 1, 8 do readers[i]:join() end
    local open = 0
    for _, target in ipairs(support.open_files(path)) do
      if target:find("/run-", 1, true) then open = open + 1 end
    end
    assert.are.equal(#tree.runs, open)
    tree:close()
  end)

  both("names a damaged run", function()
    local path = support.path()
    local tree = assert(lsm.open(path))
    assert(tree:put("key", "value"))
    assert(tree:flush())
    tree:close()
    damage(path .. "/run-000001", 2)
    tree = assert(lsm.open(path))
    local ok, message = jdbfs.pcall(tree.get, tree, "key")
    assert.is_false(ok)
    assert.matches("run-000001 is damaged at 0", message, 1, true)
    tree:close()
  end)
end)

describe("the copy", function()
  support.setup()

  both("is the same, whatever the size", function()
    for _, size in ipairs({ 0, 1, 511, 4096, 65536, 65537, 1048576 + 4095 }) do
      local from, to = support.path(), support.path()
      local text = ("%08d"):format(size):rep(math.ceil(size / 8)):sub(1, size)
      support.put(from, text)
      assert.are.equal(size, (assert(copy(from, to, { block = 65536, depth = 4 }))))
      support.holds(to, text)
    end
  end)

  both("leaves what exists alone, and nothing behind when it fails", function()
    local from, to = support.path(), support.path()
    support.put(to, "old")
    local _, _, err = copy(from, to)
    assert.are.equal("ENOENT", err.name)
    support.put(from, "new")
    _, _, err = copy(from, to)
    assert.are.equal("EEXIST", err.name)
    support.holds(to, "old")
    _, _, err = copy(from, support.path("missing/x"))
    assert.are.equal("ENOENT", err.name)
  end)
end)

-- ---- in hosts -----------------------------------------------------------------------------------

-- A host's module belongs to one Lua; without it there is nothing to try.
local function lacks_module(name)
  if not support.has_module(name) then return name .. " is not installed for this Lua" end
end

local function run_in_directory(source)
  local here = assert(support.path():match("^(.*)/"))
  local result = support.script("require('lfs').chdir(arg[1])\n" .. source, { args = { here } })
  assert.are.equal("", result.err)
  assert.are.equal(0, result.status)
  return result.out, here
end

describe("the luv server", function()
  support.setup()

  it("stores and serves objects, for many clients at once, and refuses other names", function()
    local why = lacks_module("luv")
    if why then return pending(why) end
    local out, here = run_in_directory([==[
      local uv = require "luv"
      local server, port = require("jdbfs.example.luv_server").start("objects", 0)
      local open, answers = 0, {}
      local function client(text, done)
        open = open + 1
        local socket, got = uv.new_tcp(), {}
        socket:connect("127.0.0.1", port, function(err)
          assert(not err, err)
          socket:write(text, function() socket:shutdown() end)
          socket:read_start(function(_, data)
            if data then got[#got + 1] = data return end
            socket:close()
            open = open - 1
            done(table.concat(got))
          end)
        end)
      end
      for i = 1, 20 do
        local body = ("body %d\n"):format(i):rep(i * 100)
        client(("PUT o%d %d\n%sGET o%d\n"):format(i, #body, body, i), function(answer)
          assert(answer == ("OK\nOK %d\n"):format(#body) .. body, answer)
          answers[#answers + 1] = i
          if #answers < 20 then return end
          client("DEL o20\nGET o20\nGET ../secret\nPUT x\nNONSENSE\n", function(last)
            print((last:gsub("objects/", "")))
            client("PUT y 10\nabc", function(early)
              print(early)
              server:close()
            end)
          end)
        end)
      end
      uv.run()
      print(#answers, open)
    ]==])
    assert.matches("^OK\nERR open o20: No such file or directory %(ENOENT%)\nERR what%?\n" ..
      "ERR no length, or too long\nERR what%?\n\nERR the bytes ended early\n\n20\t0\n$", out)
    assert.are.equal(("body 7\n"):rep(700), support.get(here .. "/objects/o7"))
    assert.is_nil(support.get(here .. "/objects/o20"))
  end)

  it("is a program of its own, too", function()
    local why = lacks_module("luv")
    if why then return pending(why) end
    local out = run_in_directory([==[
      local uv = require "luv"
      uv.new_timer():start(20, 0, function() uv.walk(function(h) if not h:is_closing() then
        h:close() end end) end)
      require("jdbfs.example.luv_server").main("objects", 0)
    ]==])
    assert.matches("^serving objects on port %d+\n$", out)
  end)
end)

describe("the cqueues worker", function()
  support.setup()

  local PROGRAM = [==[
    local cqueues = require "cqueues"
    local socket = require "cqueues.socket"
    local jdbfs = require "jdbfs"
    assert(jdbfs.host("cqueues"))
    local controller = cqueues.new()
    local worker, seen, told
    local function done()
      local file = io.open("jobs/done")
      local text = file and file:read("*a")
      if file then file:close() end
      return tonumber(text or 0) or 0
    end
    worker = require("jdbfs.example.cqueues_worker").start(controller, "jobs", "jobs.sock",
      function(job, number)
        seen = number
        print(number, job)
        if number ~= CRASH then return end
        while not told do cqueues.sleep(0.005) end
        os.exit(0)
      end)
    controller:wrap(function()
      while not worker.server do cqueues.sleep(0.005) end
      local client = socket.connect { path = "jobs.sock" }
      for i = 1, JOBS do client:write("job " .. i .. "\n") end
      client:flush()
      for _ = 1, JOBS do assert(tonumber(client:read("*l"))) end
      client:close()
      told = true
      while (seen or 0) < LAST or done() < LAST do cqueues.sleep(0.01) end
      os.exit(0)
    end)
    assert(controller:loop())
  ]==]

  it("works on every job in order, and goes on behind a crash", function()
    local why = lacks_module("cqueues")
    if why then return pending(why) end
    local out, here = run_in_directory("CRASH, JOBS, LAST = 3, 5, 5\n" .. PROGRAM)
    assert.are.equal("1\tjob 1\n2\tjob 2\n3\tjob 3\n", out)
    out = run_in_directory("CRASH, JOBS, LAST = nil, 2, 7\n" .. PROGRAM)
    local numbers = {}
    for number in out:gmatch("(%d+)\t") do numbers[#numbers + 1] = tonumber(number) end
    assert.is_true(numbers[1] <= 4) -- at least once: 1 to 3 may come again, 4 must come
    for i = 2, #numbers do assert.are.equal(numbers[i - 1] + 1, numbers[i]) end
    assert.are.equal(7, numbers[#numbers])
    assert.are.equal("7", support.get(here .. "/jobs/done"))
    assert.are.equal("", (run_in_directory("CRASH, JOBS, LAST = nil, 0, 0\n" .. PROGRAM)))
  end)

  it("stops when it is told to, and keeps what it did not come to", function()
    local why = lacks_module("cqueues")
    if why then return pending(why) end
    local STOPPED = [==[
      local cqueues = require "cqueues"
      local socket = require "cqueues.socket"
      assert(require("jdbfs").host("cqueues"))
      local controller, worker = cqueues.new(), nil
      worker = require("jdbfs.example.cqueues_worker").start(controller, "jobs", "jobs.sock",
        function(job)
          print(job)
          worker:stop()
        end)
      controller:wrap(function()
        while not worker.server do cqueues.sleep(0.005) end
        local client = socket.connect { path = "jobs.sock" }
        for i = 1, JOBS do client:write("job " .. i .. "\n") end
        client:flush()
        for _ = 1, JOBS do assert(tonumber(client:read("*l"))) end
        client:close()
        repeat
          cqueues.sleep(0.01)
        until not pcall(function() assert(socket.connect({ path = "jobs.sock" }):connect(1)) end)
        print("over")
        os.exit(0)
      end)
      assert(controller:loop())
    ]==]
    assert.are.equal("job 1\nover\n", (run_in_directory("JOBS = 1\n" .. STOPPED)))
  end)

  it("is a program of its own, too", function()
    local why = lacks_module("cqueues")
    if why then return pending(why) end
    local out = run_in_directory([==[
      local cqueues = require "cqueues"
      local socket = require "cqueues.socket"
      local jdbfs = require "jdbfs"
      local new = cqueues.new
      cqueues.new = function()
        local controller = new()
        controller:wrap(function()
          repeat cqueues.sleep(0.01) until jdbfs.exists("jobs.sock")
          local client = socket.connect { path = "jobs.sock" }
          client:write("a job\n")
          client:flush()
          client:read("*l")
        end)
        return controller
      end
      require("jdbfs.example.cqueues_worker").main("jobs", "jobs.sock", function(job, number)
        print(number, job)
        os.exit(0)
      end)
    ]==])
    assert.are.equal("1\ta job\n", out)
  end)
end)
