-- Names that are durable on return, rename without replacing, and atomic_write.
--
-- Which directories are synced is read from a trace of the system calls, in another process on
-- the thread pool. JDBFS_KILLS is the number of rounds of the kill test, default 50.
--
-- atomic_write writes a new file beside the old one and renames it. Its temporary name cannot be
-- known before, and is opened with O_EXCL and O_NOFOLLOW: a link that somebody put there is never
-- followed. A killed process may leave that file behind (".NAME.PID-..."); nothing else does.

local support = require("support")
local lfs = support.lfs
local process = require("support_process")
local jdbfs = support.jdbfs
local both, task, fails, raises = support.both, support.task, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

-- The names in this test's directory, hidden ones too.
local function names(dir)
  local list = {}
  for name in lfs.dir(dir or support.path(".")) do
    if name ~= "." and name ~= ".." then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

-- The calls that a source makes, as {name =, text =}; nil, why. In the source `dir` is a directory.
local function traced(source)
  local works, why = process.strace("getppid:retval=7")
  if not works then return nil, why end
  local log = support.path("trace")
  process.script(source, {
    env = { JDBFS_BACKEND = "threads" },
    prefix = "timeout -k 1 30 strace -f -y -qq -s 4000 -e trace='/^(f(data)?sync|mkdir(at)?|" ..
      "rename(at|at2)?|unlink(at)?|open(at)?|write|fchmod|close)$' -o " .. support.quote(log),
  })
  local calls, on = {}, false
  for line in support.get(log):gmatch("[^\n]+") do
    local name, text = line:match("^%d+%s+(%l+%d?)(%(.*)")
    if line:find("BEGIN", 1, true) then on = true
    elseif line:find("END", 1, true) then on = false
    elseif name and on then calls[#calls + 1] = { name = name, text = text } end
  end
  os.remove(log)
  return calls
end

-- Marks in the trace: a write to nowhere.
local MARKS = [[
  local null = assert(io.open("/dev/null", "w"))
  null:setvbuf("no")
  local function mark(text) null:write(text) end
]]

-- The paths whose directories or files are synced after call number `i`.
local function synced_after(calls, i)
  local found = {}
  for k = i + 1, #calls do
    if calls[k].name:find("sync") then
      found[calls[k].text:match("<(.-)>") or "?"] = true
    end
  end
  return found
end

local function find(calls, name, pattern)
  for i, call in ipairs(calls) do
    if call.name:find(name) and call.text:find(pattern) then return i end
  end
end

local function syncs(calls)
  local n = 0
  for _, call in ipairs(calls) do if call.name:find("sync") then n = n + 1 end end
  return n
end

local function real(path)
  if support.on_windows then return path end -- nothing will be traced
  local _, out = support.sh("realpath " .. support.quote(path))
  return (out:gsub("\n$", ""))
end

describe("durable names", function()
  support.setup()

  it("of mkdir: each new level is synced into its parent", function()
    local dir = real(support.path("."))
    local calls, why = traced(MARKS .. [[
      mark("BEGIN") check("mkdir", jdbfs.mkdir(dir .. "/a/b/c", {durable = true})) mark("END")
    ]])
    if not calls then return pending(why) end
    for _, level in ipairs({ "/a", "/a/b", "/a/b/c" }) do
      -- The last attempt is the one that made it.
      local made
      for i, call in ipairs(calls) do
        if call.name:find("mkdir") and call.text:find(level .. '"', 1, true)
          and call.text:find("= 0", 1, true) then made = i end
      end
      assert(made, "no mkdir of " .. level)
      local parent = (dir .. level):match("^(.*)/[^/]+$")
      assert(synced_after(calls, made)[parent], parent .. " is not synced after mkdir of " .. level)
    end
    assert.equal("directory", lfs.attributes(dir .. "/a/b/c", "mode"))
  end)

  it("of mkdir: one that is there is synced, too", function()
    local dir = real(support.path("."))
    lfs.mkdir(dir .. "/there")
    local calls, why = traced(MARKS .. [[
      mark("BEGIN") check("mkdir", jdbfs.mkdir(dir .. "/there", {durable = true})) mark("END")
    ]])
    if not calls then return pending(why) end
    assert(synced_after(calls, 0)[dir])
  end)

  it("of mkdir: each level is synced, as another may have made it just now", function()
    local dir = real(support.path("."))
    assert(jdbfs.mkdir(dir .. "/a/b"))
    for _, path in ipairs({ "/a/b", "/a/b/c", "/a/b/c/d/" }) do
      local calls, why = traced(MARKS .. ([[
        mark("BEGIN") check("mkdir", jdbfs.mkdir(dir .. %q, {durable = true})) mark("END")
      ]]):format(path))
      if not calls then return pending(why) end
      local synced = synced_after(calls, 0)
      for _, level in ipairs({ "", "/a", "/a/b" }) do
        assert(synced[dir .. level], dir .. level .. " is not synced by mkdir of " .. path)
      end
    end
  end)

  it("of rename: both directories, after it", function()
    local dir = real(support.path("."))
    lfs.mkdir(dir .. "/from")
    lfs.mkdir(dir .. "/to")
    support.put(dir .. "/from/x", "x")
    local calls, why = traced(MARKS .. [[
      mark("BEGIN")
      check("rename", jdbfs.rename(dir .. "/from/x", dir .. "/to/y", {durable = true}))
      mark("END")
    ]])
    if not calls then return pending(why) end
    local at = assert(find(calls, "rename", "/to/y"))
    local synced = synced_after(calls, at)
    assert(synced[dir .. "/from"] and synced[dir .. "/to"])
    support.holds(dir .. "/to/y", "x")
  end)

  it("of remove: its directory, after it", function()
    local dir = real(support.path("."))
    support.put(dir .. "/x", "x")
    local calls, why = traced(MARKS .. [[
      mark("BEGIN") check("remove", jdbfs.remove(dir .. "/x", {durable = true})) mark("END")
    ]])
    if not calls then return pending(why) end
    assert(synced_after(calls, assert(find(calls, "unlink", "/x")))[dir])
  end)

  it("of durable_create: the file and its directory", function()
    local dir = real(support.path("."))
    for _, how in ipairs({ "create", "open_rw", "open_wal" }) do
      local calls, why = traced(MARKS .. ([[
        mark("BEGIN")
        local f = check("open", jdbfs.%s(dir .. "/%s", {durable_create = true}))
        mark("END")
        f:close()
      ]]):format(how, how))
      if not calls then return pending(why) end
      local synced = synced_after(calls, assert(find(calls, "open", "/" .. how)))
      assert(synced[dir], how .. " does not sync the directory")
      assert(synced[dir .. "/" .. how], how .. " does not sync the file")
    end
  end)

  it("of durable_create through a link to nothing: the directory where the file is made", function()
    local dir = real(support.path("."))
    lfs.mkdir(dir .. "/links")
    lfs.mkdir(dir .. "/files")
    if not lfs.link("../files/far", dir .. "/links/near", true) then
      return pending("no symbolic links here")
    end
    lfs.link(dir .. "/links/near", dir .. "/links/first", true)
    local calls, why = traced(MARKS .. [[
      mark("BEGIN")
      local f = check("open", jdbfs.create(dir .. "/links/first", {durable_create = true}))
      mark("END")
      f:close()
    ]])
    if not calls then return pending(why) end
    local synced = synced_after(calls, assert(find(calls, "open", "/first")))
    assert(synced[dir .. "/files"] and synced[dir .. "/files/far"])
    assert.equal("file", lfs.attributes(dir .. "/files/far", "mode"))
  end)

  it("of atomic_write: the file before the rename, its directory after it", function()
    local dir = real(support.path("."))
    support.put(dir .. "/x", "old")
    local calls, why = traced(MARKS .. [[
      mark("BEGIN") check("atomic_write", jdbfs.atomic_write(dir .. "/x", "new")) mark("END")
    ]])
    if not calls then return pending(why) end
    local made = assert(find(calls, "open", "O_EXCL"))
    assert(calls[made].text:find("O_CREAT", 1, true))
    assert(calls[made].text:find("O_NOFOLLOW", 1, true))
    local written = assert(find(calls, "^write$", '"new"'))
    local renamed = assert(find(calls, "rename", '"x"'))
    local temporary = calls[written].text:match("<(.-)>")
    local before = {}
    for i = written + 1, renamed - 1 do
      if calls[i].name == "fsync" or calls[i].name == "fdatasync" then
        before[calls[i].text:match("<(.-)>")] = true
      end
    end
    assert(made < written and before[temporary], "the new file is not synced before it is renamed")
    assert(synced_after(calls, renamed)[dir], "the directory is not synced")
  end)

  it("cost nothing when they are not asked for", function()
    local calls, why = traced(MARKS .. [[
      mark("BEGIN")
      check("mkdir", jdbfs.mkdir(dir .. "/a/b"))
      check("create", jdbfs.create(dir .. "/a/f")):close()
      check("rename", jdbfs.rename(dir .. "/a/f", dir .. "/g", {noreplace = true}))
      check("remove", jdbfs.remove(dir .. "/g", {durable = false}))
      mark("END")
    ]])
    if not calls then return pending(why) end
    assert.equal(0, syncs(calls))
  end)

  both("are there", function()
    local dir, o = support.path("d"), { durable = true }
    assert.is_true(jdbfs.mkdir(dir .. "/a//b/./c/", o))
    assert.is_true(jdbfs.mkdir(dir .. "/a/b/c", o))
    assert.equal("directory", lfs.attributes(dir .. "/a/b/c", "mode"))
    local f = assert(jdbfs.create(dir .. "/a/f", { durable_create = true }))
    f:close()
    assert.is_true(jdbfs.rename(dir .. "/a/f", dir .. "/a/b/c/g", o))
    assert.is_true(jdbfs.rename(dir .. "/a/b/c/g", dir .. "/a/b/c/h", o))
    assert.same({ "h" }, names(dir .. "/a/b/c"))
    assert.is_true(jdbfs.remove(dir .. "/a/b/c/h", o))
    assert.same({}, names(dir .. "/a/b/c"))
  end)

  both("of names without a directory are in the current one", function()
    local name = "jdbfs-durable-" .. support.path():gsub("%W", "")
    assert.is_true(jdbfs.mkdir(name, { durable = true }))
    assert.equal("directory", lfs.attributes(name, "mode"))
    assert(lfs.rmdir(name))
    assert.is_true(jdbfs.atomic_write(name, "x"))
    assert.is_true(jdbfs.rename(name, name .. "2", { durable = true }))
    support.holds(name .. "2", "x")
    assert.is_true(jdbfs.remove(name .. "2", { durable = true }))
    assert.is_nil(lfs.attributes(name .. "2"))
  end)

  both("fail as others do, and change nothing", function()
    local path, o = support.path(), { durable = true }
    fails({ kind = "Io", op = "remove", path = path, name = "ENOENT" }, jdbfs.remove(path, o))
    fails({ kind = "Io", op = "rename", path = path, name = "ENOENT" },
      jdbfs.rename(path, path .. "2", o))
    fails({ kind = "Io", op = "create", name = "ENOENT" },
      jdbfs.create(path .. "/x", { durable_create = true }))
    support.put(path, "x")
    fails({ kind = "Io", op = "mkdir", name = "ENOTDIR" }, jdbfs.mkdir(path .. "/x", o))
    fails({ kind = "Io", op = "mkdir" }, jdbfs.mkdir(path, o))
    fails({ kind = "Io", op = "remove", name = "EISDIR" }, jdbfs.remove(support.path("."), o))
    fails({ kind = "Io", op = "rename", name = "ENOENT" }, jdbfs.rename(path, path .. "d/x", o))
    support.holds(path, "x")
    for _, call in ipairs({ jdbfs.mkdir, jdbfs.remove }) do
      raises("durable", call, path, { durable = 1 })
      raises("unknown option", call, path, { noreplace = true })
    end
    raises("durable", jdbfs.rename, path, path, { durable = "yes" })
    raises("durable_create", jdbfs.create, path, { durable_create = 1 })
    support.holds(path, "x")
  end)
end)

describe("rename with noreplace", function()
  support.setup()

  both("moves to a name that is free, and leaves one that is not", function()
    local a, b, c = support.path("a"), support.path("b"), support.path("c")
    support.put(a, "a")
    support.put(b, "b")
    for _, durable in ipairs({ true, false }) do
      local o = { noreplace = true, durable = durable }
      fails({ kind = "Io", op = "rename", path = a, name = "EEXIST", says = b },
        jdbfs.rename(a, b, o))
      support.holds(a, "a")
      support.holds(b, "b")
      assert.is_true(jdbfs.rename(a, c, o))
      support.holds(c, "a")
      assert.is_nil(lfs.attributes(a))
      assert.is_true(jdbfs.rename(c, a, o))
    end
    assert.is_true(jdbfs.rename(a, b))
    support.holds(b, "a")
  end)

  both("leaves a dangling link alone", function()
    local a, c = support.path("a"), support.path("c")
    support.put(a, "a")
    support.link("nowhere", c)
    fails({ kind = "Io", name = "EEXIST" }, jdbfs.rename(a, c, { noreplace = true }))
    support.holds(a, "a")
  end)
end)

describe("atomic_write", function()
  support.setup()

  local function only(...)
    assert.same({ ... }, names())
  end

  both("makes a file and replaces its content", function()
    local path = support.path("x")
    assert.is_true(jdbfs.atomic_write(path, "first"))
    support.holds(path, "first")
    assert.is_true(jdbfs.atomic_write(path, ""))
    support.holds(path, "")
    local data = ("\0\1\255\n"):rep(1250001)
    assert.is_true(jdbfs.atomic_write(path, data))
    support.holds(path, data)
    assert.is_true(jdbfs.atomic_write(path, "a\0b"))
    support.holds(path, "a\0b")
    only("x")
  end)

  both("takes a buffer, or a part of one", function()
    local path = support.path("x")
    local b = support.page(0x61)
    b:set(10, "hello")
    assert.is_true(jdbfs.atomic_write(path, b))
    assert.equal(PAGE, jdbfs.size(path))
    assert.is_true(jdbfs.atomic_write(path, b:slice(9, 7)))
    support.holds(path, "ahelloa")
    b:free()
    fails({ kind = "Closed", op = "atomic_write", path = path, says = "freed" },
      jdbfs.atomic_write(path, b))
    support.holds(path, "ahelloa")
  end)

  task("copies what it writes", function()
    local path = support.path("x")
    local b = support.page(0x61)
    local writer = jdbfs.spawn(function() return jdbfs.atomic_write(path, b) end)
    jdbfs.yield()
    b:fill(0x62)
    b:free()
    assert.is_true((writer:join()))
    support.holds(path, ("a"):rep(PAGE))
  end)

  task("does not read a buffer that is being read into", function()
    local path, from = support.path("x"), support.path("y")
    support.put(from, ("y"):rep(PAGE))
    local f, b = assert(jdbfs.open(from)), support.page()
    local reader = jdbfs.spawn(function() return f:read_at(b, 0) end)
    jdbfs.yield()
    if reader:status() == "waiting" then
      fails({ kind = "Busy", op = "atomic_write", path = path }, jdbfs.atomic_write(path, b))
    end
    reader:join()
    f:close()
    only("y")
  end)

  both("keeps the mode of what it replaces; a new file gets 0666 less the umask", function()
    local path, new = support.path("x"), support.path("y")
    support.put(path, "old")
    for _, mode in ipairs({ "640", "600", "755", "444", "4711" }) do
      support.chmod(mode, path)
      assert.is_true(jdbfs.atomic_write(path, mode))
      assert.equal(tonumber(mode, 8), jdbfs.stat(path).mode)
      support.holds(path, mode)
    end
    assert.is_true(jdbfs.atomic_write(new, "new"))
    support.put(new .. "2", "")
    assert.equal(jdbfs.stat(new .. "2").mode, jdbfs.stat(new).mode)
  end)

  it("keeps the owner where that is allowed", function()
    if support.lacks("root") then return pending("needs root") end
    local path = support.path("x")
    support.put(path, "old")
    support.sh("chown 1234:4321 " .. support.quote(path))
    assert.is_true(jdbfs.atomic_write(path, "new"))
    local _, out = support.sh("stat -c %u:%g " .. support.quote(path))
    assert.equal("1234:4321\n", out)
  end)

  both("gives the name a new file: who has the old one open keeps it", function()
    if support.on_wine then return pending("wine replaces no file that is open") end
    local path, other = support.path("x"), support.path("y")
    support.put(path, "old")
    lfs.link(path, other)
    local f = assert(jdbfs.open(path))
    assert.is_true(jdbfs.atomic_write(path, "new"))
    assert.equal("old", f:read(0, 10))
    f:close()
    support.holds(path, "new")
    support.holds(other, "old")
    only("x", "y")
  end)

  -- What a link points to is never written through, and its own mode is nobody's.
  both("replaces a link, not what it points to", function()
    local path, target = support.path("x"), support.path("target")
    support.put(target, "secret")
    for _, to in ipairs({ "target", "nowhere", "x", "." }) do
      support.remove(path)
      support.link(to, path)
      assert.is_true(jdbfs.atomic_write(path, "new"))
      assert.equal("file", lfs.symlinkattributes(path, "mode"))
      support.holds(path, "new")
      support.holds(target, "secret")
    end
    only("target", "x")
    -- Directories on the way are followed.
    lfs.mkdir(support.path("d"))
    support.link("d", support.path("l"))
    assert.is_true(jdbfs.atomic_write(support.path("l/y"), "through"))
    support.holds(support.path("d/y"), "through")
  end)

  both("takes long names", function()
    local longest = support.path(("n"):rep(255))
    assert.is_true(jdbfs.atomic_write(longest, "x"))
    assert.is_true(jdbfs.atomic_write(longest, "y"))
    support.holds(longest, "y")
    fails({ kind = "Io", op = "atomic_write", name = "ENAMETOOLONG" },
      jdbfs.atomic_write(support.path(("m"):rep(256)), "x"))
    only(("n"):rep(255))
  end)

  both("that fails leaves the old content and no temporary file", function()
    if support.on_sim then return pending(support.on_sim) end -- it cannot list directories
    local path = support.path("x")
    support.put(path, "old")
    lfs.mkdir(support.path("d"))
    support.put(support.path("d/inside"), "")
    local want = { kind = "Io", op = "atomic_write" }
    for name, cases in pairs({
      ENOENT = { support.path("missing/x"), "" },
      EISDIR = { support.path("d"), support.path("d/"), support.path("."), support.path("..") },
      ENOTDIR = { path .. "/x" },
    }) do
      want.name = name
      for _, wrong in ipairs(cases) do
        want.path = wrong
        fails(want, jdbfs.atomic_write(wrong, "new"))
      end
    end
    fails({ kind = "Io", op = "atomic_write", says = "NUL" }, jdbfs.atomic_write("a\0b", "new"))
    raises("string expected", jdbfs.atomic_write)
    raises("buffer expected", jdbfs.atomic_write, path)
    raises("string or jdbfs buffer expected", jdbfs.atomic_write, path, 5)
    raises("buffer expected", jdbfs.atomic_write, path, {})
    support.holds(path, "old")
    only("d", "x")
    assert.same({ "inside" }, names(support.path("d")))
  end)

  it("in a directory that cannot be written changes nothing", function()
    if support.on_windows then return pending("permissions are the directory's on Windows") end
    local dir = support.path("d")
    lfs.mkdir(dir)
    support.put(dir .. "/x", "old")
    local quoted = support.quote(dir)
    local is_root = not support.lacks("root")
    local stop, undo = "chmod 555 ", "chmod 755 "
    if is_root then stop, undo = "chattr +i ", "chattr -i " end
    if support.sh(stop .. quoted) ~= 0 then
      return pending("root writes everywhere, and chattr +i does not work here")
    end
    local ok, message, err = jdbfs.atomic_write(dir .. "/x", "new")
    local ok2, message2, err2 = jdbfs.atomic_write(dir .. "/y", "new")
    support.sh(undo .. quoted)
    assert(err and (err.name == "EACCES" or err.name == "EPERM"), message)
    fails({ kind = "Io", op = "atomic_write", path = dir .. "/x" }, ok, message, err)
    fails({ kind = "Io", op = "atomic_write", path = dir .. "/y" }, ok2, message2, err2)
    support.holds(dir .. "/x", "old")
    assert.same({ "x" }, names(dir))
  end)

  -- Of each thread the first call fails: the one worker's is the temporary file's.
  it("whose write, sync or rename fails leaves the old content", function()
    for _, call in ipairs({
      "write:error=EIO", "write:error=ENOSPC", "fsync:error=EIO", "fchmod:error=EPERM",
      "rename,renameat,renameat2:error=EACCES",
    }) do
      local prefix, why = process.strace(call .. ":when=1")
      if not prefix then return pending(why) end
      local dir = support.path("d")
      lfs.mkdir(dir)
      support.put(dir .. "/x", "old")
      process.script([[
        check("setup", jdbfs.setup{workers = 1})
        local path, name = arg[3] .. "/x", arg[4]
        local ok, message, err = jdbfs.atomic_write(path, ("new"):rep(100000))
        check("fails", ok == nil and err.kind == "Io" and err.name == name, message)
        check("fields", err.op == "atomic_write" and err.path == path, message)
        check("old", jdbfs.size(path) == 3)
        check("again", jdbfs.atomic_write(path, "again"))
      ]], {
        args = { dir, call:match("error=(%u+)") }, env = { JDBFS_BACKEND = "threads" },
        prefix = prefix,
      })
      support.holds(dir .. "/x", "again")
      assert.same({ "x" }, names(dir))
    end
  end)

  task("of many tasks at once leaves one whole content", function()
    local path, tasks = support.path("x"), {}
    for i = 1, 24 do
      tasks[i] = jdbfs.spawn(function()
        for _ = 1, 3 do assert(jdbfs.atomic_write(path, string.char(96 + i):rep(20000))) end
        return true
      end)
    end
    for i = 1, 24 do assert.is_true((tasks[i]:join())) end
    local data = support.get(path)
    assert.equal(20000, #data)
    assert.equal(data:sub(1, 1):rep(20000), data)
    only("x")
  end)

  task("that is cancelled is done, or not", function()
    local path = support.path("x")
    support.put(path, "old")
    for i = 1, 20 do
      local writer = jdbfs.spawn(function() return jdbfs.atomic_write(path, "new") end)
      for _ = 1, i % 4 do jdbfs.yield() end
      writer:cancel()
      while jdbfs.stats().abandoned > 0 do jdbfs.sleep(0.001) end
      local data = support.get(path)
      assert(data == "old" or data == "new")
    end
    only("x")
  end)

  it("of two processes is never seen mixed", function()
    if support.on_wine then return pending("wine replaces no file that is open") end
    local path, size, file = support.path("x"), 30000, support.path("script.lua")
    assert(jdbfs.atomic_write(path, ("a"):rep(size)))
    local n = (os.getenv("JDBFS_TEST_SAN") or "") == "" and 500 or 50
    support.put(file, [==[
      local jdbfs = require("jdbfs")
      local path, size, n, role = arg[1], tonumber(arg[2]), tonumber(arg[3]), arg[4]
      if role ~= "reader" then
        local data = role:rep(size)
        repeat assert(jdbfs.atomic_write(path, data)) until jdbfs.exists(path .. ".over")
        return io.write("done")
      end
      local seen, reads = {}, 0
      repeat
        local f = assert(jdbfs.open(path, { direct = "off" }))
        local data = f:read(0, size + 1)
        f:close()
        assert(data == data:sub(1, 1):rep(size), "a mixture of " .. #data .. " bytes")
        seen[data:sub(1, 1)] = true
        reads = reads + 1
      until seen.a and seen.b and reads >= n
      io.write("done")
    ]==])
    local a = support.start({ file, path, size, n, "a" })
    local b = support.start({ file, path, size, n, "b" })
    local reader = support.start({ file, path, size, n, "reader" })
    local read = reader.wait() -- the others write until it has seen both
    support.put(path .. ".over", "")
    assert.equal("done", read)
    assert.equal("done", a.wait())
    assert.equal("done", b.wait())
    only("script.lua", "x", "x.over")
  end)

  it("of a killed process leaves one whole version, none older than acknowledged", function()
    local rounds = tonumber(os.getenv("JDBFS_KILLS") or "") or 50
    local path, acks = support.path("x"), support.path("acks")
    support.put(path, ("%08d"):format(0):rep(8192))
    support.put(acks, "0\n")
    local killed, last = 0, 0
    local start = (os.getenv("JDBFS_TEST_SAN") or "") == "" and 0.015 or 0.5 -- seconds
    if support.on_wine then start = 1 end
    for round = 1, rounds do
      local r = support.script([==[
        local jdbfs = require("jdbfs")
        local path, i = arg[1], tonumber(arg[3])
        local acks = assert(io.open(arg[2], "a"))
        acks:setvbuf("no")
        local function go()
          while true do
            i = i + 1
            assert(jdbfs.atomic_write(path, ("%08d"):format(i):rep(8192)))
            acks:write(i .. "\n")
          end
        end
        if i % 2 == 0 then jdbfs.run(go) else go() end
      ]==], {
        args = { path, acks, last },
        stop = { "KILL", start + (round * 7919 % 50) / 1000 },
      })
      assert(r.err == "" or r.err == "Killed\n", r.err)
      if r.status == 137 then killed = killed + 1 end
      local data = support.get(path)
      assert.equal(65536, #data)
      local version = tonumber(data:sub(1, 8))
      assert(data == data:sub(1, 8):rep(8192), "a mixture after " .. round .. " rounds")
      local acknowledged
      for line in support.get(acks):gmatch("[^\n]+\n") do acknowledged = tonumber(line) end
      assert(version == acknowledged or version == acknowledged + 1,
        ("version %d, acknowledged %d"):format(version, acknowledged))
      if version == last then start = start * 1.5 end -- it was killed before it wrote anything
      last = version
      -- The next round goes on from what is there.
      support.put(acks, version .. "\n")
    end
    assert.equal(rounds, killed)
    assert(last >= rounds / 5, "only " .. last .. " versions were written")
    support.figures(("atomic_write: %d writers killed, %d versions, each compared"):format(
      rounds, last))
  end)
end)
