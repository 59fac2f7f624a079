-- A forked child of a process that had its queue open: Forked, not corruption; the parent goes on
-- undisturbed; a fresh Lua state of the child works.

local process = require "support_process"

-- The address sanitizer's allocator is not held over a fork. A thread that is being started may be
-- inside, and the child's search for leaks at its end waits for that for ever: there is one worker
-- under it, which is past its start and allocates nothing.
local STARTED = os.getenv("JDBFS_TEST_SAN") ~= "address" and ""
  or "jdbfs.setup { workers = 1 } jdbfs.exists(dir)\n"

local function forked(name, source)
  it(name, function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    if name:find("fresh Lua state", 1, true) and os.getenv("JDBFS_TEST_SAN") == "thread" then
      return pending("the thread sanitizer cannot follow new threads in a forked child")
    end
    local out = process.script([[
      io.stdout:setvbuf("no")
      local page = jdbfs.PAGE_SIZE
      -- Runs f in a child; the parent asserts that it ended well.
      local function in_child(f, meanwhile)
        local pid = forker.fork()
        if pid == 0 then
          local ok, message = pcall(f)
          if not ok then io.stderr:write("child: ", tostring(message), "\n") end
          forker._exit(ok and 0 or 9)
        end
        if meanwhile then meanwhile() end
        local status, signal = forker.waitpid(pid)
        check("the child", status == 0, status, signal)
      end
      local function is_forked(label, ok, value, message, err)
        check(label, ok and value == nil and type(err) == "table" and err.kind == "Forked",
          ok, value, message)
        check(label, tostring(message):find("parent process", 1, true), message)
      end
    ]] .. (name:find("not used it", 1, true) and "" or STARTED) .. source .. "\nprint 'ok'",
      { forker = forker })
    assert.are.equal("ok\n", out)
  end)
end

describe("in a forked child", function()
  process.setup()

  forked("nothing keeps a lock that the parent's close gave back", [[
    local path = dir .. "/locked"
    local f = assert(jdbfs.create(path, { direct = "prefer", lock = "exclusive" }))
    in_child(function() os.execute("sleep 0.5") end, function()
      assert(f:close())
      local again = check("lock", jdbfs.open_rw(path, { direct = "prefer", lock = "exclusive" }))
      assert(again:close())
    end)
  ]])

  forked("nothing keeps the lock of a file that the parent has dropped, nor gives it back", [[
    local path = dir .. "/locked"
    local o = { direct = "prefer", lock = "exclusive" }
    local f = assert(jdbfs.create(path, o))
    in_child(function()
      f = nil
      collect()
    end)
    local refused, _, err = jdbfs.open_rw(path, o)
    check("still locked", not refused and err.kind == "Busy", err)
    in_child(function() os.execute("sleep 0.5") end, function()
      f = nil
      collect()
      local again = check("lock", jdbfs.open_rw(path, o))
      assert(again:close())
    end)
  ]])

  forked("every call gives kind Forked", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    local b = jdbfs.buffer(page)
    assert(f:write_at(b, 0))
    in_child(function()
      for label, call in pairs {
        read_at = function() return f:read_at(b, 0) end,
        read_upto = function() return f:read_upto(b, 0) end,
        read = function() return f:read(0, 10) end,
        write_at = function() return f:write_at(b, 0) end,
        size = function() return f:size() end,
        stat = function() return f:stat() end,
        sync_all = function() return f:sync_all() end,
        sync_data = function() return f:sync_data() end,
        truncate = function() return f:truncate(0) end,
        preallocate = function() return f:preallocate(page) end,
        close = function() return f:close() end,
        open = function() return jdbfs.open(dir .. "/file") end,
        create = function() return jdbfs.create(dir .. "/other") end,
        open_rw = function() return jdbfs.open_rw(dir .. "/other") end,
        open_wal = function() return jdbfs.open_wal(dir .. "/other") end,
        exists = function() return jdbfs.exists(dir) end,
        mkdir = function() return jdbfs.mkdir(dir .. "/d") end,
        ls = function() return jdbfs.ls(dir) end,
        path_size = function() return jdbfs.size(dir .. "/file") end,
        path_stat = function() return jdbfs.stat(dir .. "/file") end,
        rename = function() return jdbfs.rename(dir .. "/file", dir .. "/g") end,
        remove = function() return jdbfs.remove(dir .. "/file") end,
        sync_dir = function() return jdbfs.sync_dir(dir) end,
        space = function() return jdbfs.space(dir) end,
        run = function() return jdbfs.run(function() end) end,
        spawn = function() return jdbfs.spawn(function() end) end,
        timeout = function() return jdbfs.timeout(1, function() end) end,
        step = function() return jdbfs.step() end,
        info = function() return jdbfs.info() end,
        pollfd = function() return jdbfs.pollfd() end,
      } do
        is_forked(label, pcall(call))
      end
    end)
    check("size", f:size() == page)
    check("close", f:close())
    check("unharmed", jdbfs.exists(dir .. "/file") and not jdbfs.exists(dir .. "/other"))
  ]])

  forked("an append to the parent's log raises, also in the middle of a commit", [[
    local log = assert(jdbfs.log(dir .. "/log", { direct = "prefer" }))
    local first, second
    jdbfs.run(function()
      local other = jdbfs.spawn(function() first = assert(log:append("first")) end)
      jdbfs.yield() -- the record is in a batch, and more may join
      in_child(function()
        local ok, message = pcall(log.append, log, "the child's")
        check("append", not ok, message)
      end)
      second = assert(log:append("second"))
      other:join()
    end)
    check("numbers", first == 1 and second == 2, first, second)
  ]])

  forked("buffers raise with Forked, and what tells nothing about the parent still works", [[
    local b = jdbfs.buffer(page)
    b:fill(7)
    local slice = b:slice(0, 10)
    jdbfs.info()
    in_child(function()
      for label, call in pairs {
        string = function() return b:string() end,
        set = function() return b:set(0, "x") end,
        fill = function() return b:fill(0) end,
        copy = function() return b:copy(0, b, 1, 1) end,
        slice = function() return b:slice(0, 1) end,
        u8 = function() return b:u8(0) end,
        u64 = function() return b:u64(0, 1) end,
        crc32c = function() return b:crc32c() end,
        pointer = function() return b:pointer() end,
        of_a_slice = function() return slice:string() end,
      } do
        local ok, message = pcall(call)
        check(label, not ok and tostring(message):find("Forked", 1, true), message)
      end
      check("tostring", tostring(b):find("jdbfs.buffer", 1, true))
      check("now", jdbfs.now() > 0)
      check("stats", type(jdbfs.stats()) == "table")
      b:free()
      slice:free()
    end)
    check("unharmed", b:string() == ("\7"):rep(page) and slice:string() == ("\7"):rep(10))
  ]])

  forked("everything may be collected and freed; the parent keeps its own", [[
    local files, buffers = {}, {}
    for i = 1, 10 do
      files[i] = assert(jdbfs.create(dir .. "/file" .. i, { direct = "prefer" }))
      buffers[i] = jdbfs.buffer(page)
      buffers[i]:fill(i)
    end
    in_child(function()
      files, buffers = nil, nil
      collect()
    end)
    for i = 1, 10 do
      check("write", files[i]:write_at(buffers[i], 0) == page)
      check("data", buffers[i]:u8(page - 1) == i)
      check("close", files[i]:close())
    end
  ]])

  -- The child ends as most programs do: by os.exit, with or without closing the state.
  for _, ending in ipairs({ "os.exit(0)", "os.exit(0, true)" }) do
    forked("closing the state by " .. ending .. " with the parent's I/O in flight is clean", [[
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      local big, done = 1048576, 0
      for i = 1, 8 do
        jdbfs.spawn(function()
          local b = jdbfs.buffer(big)
          b:fill(i)
          check("write", f:write_at(b, (i - 1) * big) == big)
          done = done + 1
        end)
      end
      jdbfs.flush()
      jdbfs.spawn(function()
        local pid = forker.fork()
        if pid == 0 then ]] .. ending .. [[ end
        local status, signal = forker.waitpid(pid)
        check("the child", status == 0, status, signal)
        done = done + 1
      end)
      while done < 9 do jdbfs.step(1) end
      for i = 1, 8 do check("data", f:read(i * big - 1, 1) == string.char(i), i) end
      check("close", f:close())
    ]])
  end

  forked("forked inside a task, the task goes on in both; in the child run raises", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    local b = jdbfs.buffer(page)
    b:fill(3)
    assert(f:write_at(b, 0))
    local pid
    local ok, message = pcall(jdbfs.run, function()
      for _ = 1, 4 do
        jdbfs.spawn(function()
          local own = jdbfs.buffer(page)
          for _ = 1, 20 do
            local n, _, err = f:read_at(own, 0)
            if pid == 0 then forker._exit(8) end
            check("read", n == page and own:u8(1) == 3, n, err)
          end
        end)
      end
      jdbfs.yield()
      pid = forker.fork()
      if pid == 0 then
        local value, _, err = f:read_at(b, 0)
        check("Forked", value == nil and err.kind == "Forked")
        value, _, err = f:close()
        check("Forked", value == nil and err.kind == "Forked")
      end
      jdbfs.sleep(0.001)
      if pid == 0 then return "child" end
      local status, signal = forker.waitpid(pid)
      check("the child", status == 0, status, signal)
      return "parent"
    end)
    if pid == 0 then
      -- Nothing of the parent's can be driven here.
      forker._exit(not ok and tostring(message):find("Forked", 1, true) and 0 or 7)
    end
    check("parent", ok and message == "parent", message)
    check("close", f:close())
  ]])

  forked("the parent's reads in flight get their data, not stale pages, and none twice", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    do
      local b = jdbfs.buffer(64 * page)
      for i = 0, 63 do b:fill(i, i * page, page) end
      assert(f:write_at(b, 0))
    end
    for round = 1, 10 do
      jdbfs.run(function()
        local tasks, buffers = {}, {}
        for i = 0, 63 do
          buffers[i] = jdbfs.buffer(page)
          tasks[i] = jdbfs.spawn(function() return f:read_at(buffers[i], i * page) end)
        end
        jdbfs.yield()
        in_child(function()
          collect()
          is_forked("size", pcall(f.size, f))
        end)
        for i = 0, 63 do
          check("read", tasks[i]:join() == page)
          check("data", buffers[i]:string() == string.char(i):rep(page), i)
        end
      end)
    end
    check("close", f:close())
  ]])

  forked("a fresh Lua state works while the parent does I/O", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    local source = ([=[
      local jdbfs = require "jdbfs"
      local f = assert(jdbfs.create(%q, { direct = "prefer" }))
      local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
      b:fill(9)
      jdbfs.run(function()
        for i = 0, 15 do
          jdbfs.spawn(function() assert(f:write_at(b, i * jdbfs.PAGE_SIZE)) end)
        end
      end)
      assert(f:sync_all() and f:size() == 16 * jdbfs.PAGE_SIZE)
      assert(jdbfs.stats().in_flight == 0)
      assert(f:close())
    ]=]):format(dir .. "/child")
    local b = jdbfs.buffer(page)
    in_child(function()
      local ok, message = forker.state(source)
      check("state", ok, message)
      is_forked("the old state", pcall(f.size, f))
    end, function()
      jdbfs.run(function()
        for i = 0, 15 do jdbfs.spawn(function() assert(f:write_at(b, i * page)) end) end
      end)
    end)
    check("written", jdbfs.size(dir .. "/child") == 16 * page)
    check("close", f:close())
  ]])

  forked("of a process that had loaded the module but not used it, everything works", [[
    in_child(function()
      local f = assert(jdbfs.create(dir .. "/child", { direct = "prefer" }))
      check("write", f:write_at(jdbfs.buffer(page), 0) == page)
      check("close", f:close())
    end)
    check("size", jdbfs.size(dir .. "/child") == page)
  ]])

  forked("a child of a child is refused as well, and children may come one after another", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    for _ = 1, 5 do
      in_child(function()
        in_child(function() is_forked("grandchild", pcall(f.size, f)) end)
        is_forked("child", pcall(f.size, f))
      end)
      check("parent", f:size() == 0)
    end
    check("close", f:close())
  ]])

  forked("os.execute and io.popen in flight are harmless", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    jdbfs.run(function()
      for i = 0, 15 do
        jdbfs.spawn(function()
          local b = jdbfs.buffer(16 * page)
          b:fill(i)
          check("write", f:write_at(b, i * 16 * page) == 16 * page)
        end)
      end
      jdbfs.yield()
      for _ = 1, 3 do
        local p = io.popen("echo hello")
        check("popen", p:read("*l") == "hello")
        p:close()
        os.execute("true")
        jdbfs.yield()
      end
    end)
    for i = 0, 15 do check("data", f:read(i * 16 * page + 1, 1) == string.char(i)) end
    check("close", f:close())
  ]])

  local function where_told(name, source)
    local smaps = io.open("/proc/self/smaps")
    if not smaps then return it(name, function() pending("no /proc/self/smaps here") end) end
    smaps:close()
    forked(name, source)
  end

  -- A read in flight at a fork left the parent with old data where the child got the page, too.
  where_told("no memory of a buffer is shared with it", [[
    local function flags_at(address)
      local inside
      for line in io.lines("/proc/self/smaps") do
        local from, to = line:match("^(%x+)%-(%x+) ")
        if from then inside = tonumber(from, 16) <= address and address < tonumber(to, 16) end
        if inside and line:find("^VmFlags:") then return line end
      end
    end
    for _, size in ipairs { 1, page, 100 * page } do
      local b = jdbfs.buffer(size)
      local address = tonumber(tostring(b:pointer()):match("(%x+)$"), 16)
      local flags = flags_at(address)
      check("do not copy on fork", flags and flags:find(" dc"), flags)
      b:free()
    end
  ]])

  forked("a program that is started inherits no descriptor of ours", [[
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    jdbfs.pollfd()
    f:stat()
    local p = io.popen("ls -l /proc/self/fd")
    local list = p:read("*a")
    p:close()
    check("descriptors", not list:find("io_uring") and not list:find("eventfd")
      and not list:find("/file"), list)
    check("close", f:close())
  ]])
end)
