-- Locks between processes, and between handles of one.

local support = require("support")
local lfs = support.lfs
local process = require("support_process")
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function made(data)
  local path = support.path()
  support.put(path, data or "content")
  return path
end

local function own_pid()
  local stat = support.proc and support.get("/proc/self/stat")
  return stat and stat:match("^%d+")
end

describe("a lock", function()
  support.setup()

  both("is refused at once while another handle has it", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path, { lock = "exclusive" }))
    local want = { kind = "Busy", op = "open_rw", path = path, errno = "none", says = "lock" }
    for _, how in ipairs({ "exclusive", "shared" }) do
      fails(want, jdbfs.open_rw(path, { lock = how }))
    end
    local g = assert(jdbfs.open(path)) -- without asking for a lock
    want.op = "lock"
    for _, how in ipairs({ "exclusive", "shared" }) do fails(want, g:lock(how)) end
    assert.is_true(f:close())
    assert.is_true(g:lock("exclusive"))
    g:close()
  end)

  both("that is shared excludes only an exclusive one", function()
    local path = made()
    local f = assert(jdbfs.open(path, { lock = "shared" }))
    local g = assert(jdbfs.open(path, { lock = "shared" }))
    local h = assert(jdbfs.open_rw(path))
    assert.is_true(h:lock("shared"))
    h:unlock()
    fails({ kind = "Busy", op = "lock", path = path, says = "shared" }, h:lock("exclusive"))
    f:close()
    fails({ kind = "Busy", op = "lock", path = path }, h:lock("exclusive"))
    g:unlock()
    assert.is_true(h:lock("exclusive"))
    g:close()
    h:close()
  end)

  both("can be taken and given back by the same handle, as often as it likes", function()
    local path = made()
    local f, g = assert(jdbfs.open_rw(path)), assert(jdbfs.open_rw(path))
    for _ = 1, 3 do
      assert.is_true(f:lock("exclusive"))
      assert.is_true(f:lock("exclusive"))
      fails({ kind = "Busy" }, g:lock("shared"))
      assert.is_true(f:lock("shared"))
      assert.is_true(g:lock("shared"))
      assert.is_true(g:unlock())
      assert.is_true(f:unlock())
      assert.is_true(f:unlock())
      assert.is_true(g:lock("exclusive"))
      assert.is_true(g:unlock())
    end
    f:close()
    g:close()
  end)

  both("is kept when a stronger one is refused", function()
    local path = made()
    local f, g, h = assert(jdbfs.open(path)), assert(jdbfs.open(path)), assert(jdbfs.open(path))
    f:lock("shared")
    g:lock("shared")
    fails({ kind = "Busy", op = "lock" }, f:lock("exclusive"))
    g:close()
    fails({ kind = "Busy", op = "lock" }, h:lock("exclusive"))
    f:unlock()
    assert.is_true(h:lock("exclusive"))
    f:close()
    h:close()
  end)

  both("does not hinder reading and writing", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path, { lock = "exclusive" }))
    local g = assert(jdbfs.open_rw(path))
    assert.equal("content", g:read(0, 100))
    assert.equal(PAGE, g:write_at(support.page(0x61), 0))
    assert.equal("aaa", f:read(0, 3))
    if not support.on_wine then assert.is_true(jdbfs.atomic_write(path, "new")) end
    f:close()
    g:close()
  end)

  both("needs an open file and a known kind", function()
    local path = made()
    local f = assert(jdbfs.open(path))
    raises("invalid option", f.lock, f, "both")
    raises("string expected", f.lock, f)
    raises("string expected", f.lock, f, true)
    raises("file expected", f.lock)
    raises("file expected", f.unlock)
    for _, wrong in ipairs({ "both", true, 1, {} }) do
      raises("lock", jdbfs.open, path, { lock = wrong })
      raises("lock", jdbfs.create, path, { lock = wrong })
    end
    f:close()
    fails({ kind = "Closed", op = "lock", path = path }, f:lock("shared"))
    fails({ kind = "Closed", op = "unlock", path = path }, f:unlock())
    support.holds(path, "content")
  end)

  both("that is refused changes nothing: create truncates no file, and makes none", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path, { lock = "shared" }))
    fails({ kind = "Busy", op = "create", path = path }, jdbfs.create(path, { lock = "exclusive" }))
    support.holds(path, "content")
    local g = assert(jdbfs.create(path, { lock = "shared" }))
    support.holds(path, "")
    f:close()
    g:close()
    assert(jdbfs.remove(path))
    g = assert(jdbfs.create(path, { lock = "exclusive", exclusive = true }))
    fails({ kind = "Io", name = "EEXIST", op = "create" },
      jdbfs.create(path, { lock = "exclusive", exclusive = true }))
    assert.truthy(lfs.attributes(path))
    g:close()
  end)

  it("ends with the collection of its file", function()
    local path = made()
    local f = assert(jdbfs.open(path, { lock = "exclusive" }))
    assert.truthy(f:path())
    f = nil
    if process.is_jit then require("jit").flush() end
    collectgarbage()
    collectgarbage()
    assert.is_nil(f)
    local g = assert(jdbfs.open(path, { lock = "exclusive" }))
    g:close()
  end)
end)

describe("a lock between processes", function()
  support.setup()

  -- Processes run the same source with another word: one that holds (and says so by making the
  -- file "ready"), one that tries while the other holds, and one after it has gone. What they say,
  -- and the holder's number where the system tells it.
  local function roles(finish, source, path)
    local ready = support.path("ready")
    local file = process.program([==[
      local path, ready, role = arg[3], arg[4], arg[5]
      local function wait(name)
        local start = jdbfs.now()
        while not jdbfs.exists(name) do
          jdbfs.sleep(0.005)
          check("waits for " .. name, jdbfs.now() - start < 20)
        end
      end
      local function put(name) assert(io.open(name, "w")):close() end
    ]==] .. source)
    local function words(role) return { file, support.path("."), "", path, ready, role } end
    local function say(role)
      local r = support.process(words(role))
      assert.equal("", r.err)
      return r.out
    end
    local holder = support.start(words("hold"))
    for _ = 1, 2000 do
      if support.get(ready) then break end
      jdbfs.sleep(0.01)
    end
    local tried = say("try")
    finish(holder)
    assert.equal("", holder.wait())
    return tried .. say("again"), not support.on_macos and holder.pid or nil
  end

  local function kill(holder) holder.kill() end

  it("is refused with the holder's number, and free after the holder was killed", function()
    local path = made()
    local out, pid = roles(kill, [==[
      if role == "hold" then
        local f = assert(jdbfs.open_rw(path, {lock = "exclusive"}))
        put(ready)
        while true do jdbfs.sleep(1) end
      end
      local before = jdbfs.now()
      for _, how in ipairs{"open", "open_rw", "create", "open_wal"} do
        local f, message, err = jdbfs[how](path, {lock = "exclusive"})
        if not f then check("kind", err.kind == "Busy" and err.op == how, message) end
        print(role, how, f and "ok" or message)
        if how == "create" and not f then check("cut", jdbfs.size(path) == 7) end
        if f then f:close() end
      end
      check("at once", jdbfs.now() - before < 2)
    ]==], path)
    local tries, after = 0, 0
    for line in out:gmatch("try[^\n]*") do
      tries = tries + 1
      assert(not pid or line:find("process " .. pid .. " ", 1, true), line)
      assert(line:find("exclusive", 1, true), line)
    end
    for line in out:gmatch("again[^\n]*") do
      after = after + 1
      assert(line:find("\tok$"), line)
    end
    assert.equal(4, tries)
    assert.equal(4, after)
  end)

  it("is free after unlock, after close, and after the process has ended", function()
    for _, how in ipairs({ "f:unlock()", "f:close()", "os.exit(0)", "f = nil" }) do
      local path = made()
      local function go() support.put(path .. ".go", "") end
      local out = roles(go, ([==[
        local f = assert(jdbfs.open(path))
        if role == "hold" then
          check("lock", f:lock("exclusive"))
          put(ready)
          wait(path .. ".go")
          %s
          collect()
          return
        end
        local ok, _, err = f:lock("shared")
        for _ = 1, 50 do -- a process may take a while to end
          if ok or role ~= "again" then break end
          jdbfs.sleep(0.1)
          ok, _, err = f:lock("shared")
        end
        print(role, ok and "ok" or err.kind)
      ]==]):format(how), path)
      assert.equal("try\tBusy\nagain\tok\n", out, how)
      os.remove(support.path("ready"))
    end
  end)

  it("that is shared is shared", function()
    local path = made()
    local out, pid = roles(kill, [==[
      if role == "hold" then
        local f = assert(jdbfs.open(path, {lock = "shared"}))
        put(ready)
        while true do jdbfs.sleep(1) end
      end
      local f = assert(jdbfs.open(path, {lock = "shared"}))
      f:close()
      local g, message, err = jdbfs.open_rw(path, {lock = "exclusive"})
      print(role, g and "ok" or err.kind, message)
    ]==], path)
    assert(out:find("try\tBusy\t[^\n]*" .. (pid and "process " .. pid .. " holds a shared lock"
      or "holds a lock")), out)
    assert(out:find("again\tok", 1, true), out)
  end)

  it("lets one in at a time", function()
    local path = made("0")
    local file = process.program([==[
      local path = arg[3]
      for _ = 1, 60 do
        local f, message, err
        repeat
          f, message, err = jdbfs.open_rw(path, {direct = "off", lock = "exclusive"})
          assert(f or err.kind == "Busy", message)
          if not f then jdbfs.sleep(0.0005) end
        until f
        local text = tostring(tonumber(f:read(0, 100)) + 1)
        local b = jdbfs.buffer(#text, 1)
        b:set(0, text)
        assert(f:write_at(b, 0))
        assert(f:close())
      end
      io.write("done")
    ]==])
    local a = support.start({ file, support.path("."), "", path })
    local b = support.start({ file, support.path("."), "", path })
    assert.equal("done", a.wait())
    assert.equal("done", b.wait())
    support.holds(path, "120")
  end)

  -- The process that made the file is slow to lock it; another one is faster, and has it.
  it("that is refused takes no file away that another process has", function()
    local prefix, why = process.strace("flock:delay_enter=400000:when=1")
    if not prefix then return pending(why) end
    local path, go = support.path("new"), support.path("go")
    local out = process.script([==[
      local path, go, role = arg[3], arg[4], arg[5]
      local function wait(name)
        while not jdbfs.exists(name) do jdbfs.sleep(0.001) end
      end
      if role == "fast" then
        wait(path)
        local f = assert(jdbfs.open_rw(path, {lock = "exclusive"}))
        local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
        b:fill(0x61)
        check("write", f:write_at(b, 0, 0, #b, "dsync"))
        wait(go)
        print(jdbfs.size(path))
        check("close", f:close())
      else
        local f, message, err = jdbfs.create(path, {lock = "exclusive"})
        check("busy", f == nil and err.kind == "Busy", message)
        assert(io.open(go, "w")):close()
      end
    ]==], {
      args = { path, go }, env = { JDBFS_BACKEND = "threads" },
      prefix = [[sh -c '"$@" fast & ]] .. prefix:gsub("'", '"') .. [[ "$@" slow; wait $!' sh]],
    })
    assert.equal(PAGE .. "\n", out)
  end)

  it("of this process is told to others by its number", function()
    local pid = own_pid()
    if not pid then return pending("no /proc") end
    if support.not_linux then return pending(support.not_linux) end
    local path = made()
    local f = assert(jdbfs.open_rw(path, { lock = "shared" }))
    local out = process.script([==[
      print(select(2, jdbfs.create(arg[3], {lock = "exclusive"})))
      assert(jdbfs.open(arg[3], {lock = "shared"})):close()
    ]==], { args = { path } })
    assert(out:find("process " .. pid .. " holds a shared lock", 1, true), out)
    f:close()
    support.holds(path, "content")
  end)
end)
