-- Functions on names: exists, mkdir, ls, size, stat, rename, remove, sync_dir, space.

local support = require("support")
local lfs = support.lfs
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function made(data, name)
  local path = support.path(name)
  support.put(path, data or "")
  return path
end

local function link(target, name)
  local path = support.path(name)
  support.link(target, path)
  return path
end

local function here()
  return support.path("."):sub(1, -3)
end

describe("exists", function()
  support.setup()

  both("is true for files and directories, false for nothing", function()
    assert.is_true(jdbfs.exists(made("x")))
    assert.is_true(jdbfs.exists(here()))
    assert.is_true(jdbfs.exists("/"))
    assert.is_false(jdbfs.exists(support.path()))
    assert.is_false(jdbfs.exists(support.path() .. "/deeper"))
  end)

  both("follows links: a dangling one leads to nothing", function()
    made("x", "file")
    assert.is_true(jdbfs.exists(link("file", "good")))
    assert.is_false(jdbfs.exists(link("nowhere", "bad")))
  end)
end)

describe("mkdir", function()
  support.setup()

  both("makes a directory with its parents", function()
    local path = support.path("a") .. "/b/c/d"
    assert.is_true(jdbfs.mkdir(path))
    assert.equal("directory", lfs.attributes(path, "mode"))
  end)

  both("is fine with a directory that exists", function()
    local path = support.path("a")
    assert.is_true(jdbfs.mkdir(path))
    assert.is_true(jdbfs.mkdir(path))
    assert.is_true(jdbfs.mkdir(path .. "/b"))
    assert.is_true(jdbfs.mkdir(path .. "/b"))
    assert.is_true(jdbfs.mkdir("/"))
    assert.is_true(jdbfs.mkdir("."))
  end)

  both("is fine with a directory behind a link", function()
    local path = support.path("a")
    assert.is_true(jdbfs.mkdir(path))
    assert.is_true(jdbfs.mkdir(link("a", "l")))
    assert.is_true(jdbfs.mkdir(support.path("l") .. "/c/d"))
    assert.equal("directory", lfs.attributes(path .. "/c/d", "mode"))
  end)

  both("takes slashes as they come", function()
    assert.is_true(jdbfs.mkdir(support.path("a") .. "//b///c/"))
    assert.equal("directory", lfs.attributes(support.path("a") .. "/b/c", "mode"))
    assert.is_true(jdbfs.mkdir(support.path("a") .. "/./x/../y"))
    assert.equal("directory", lfs.attributes(support.path("a") .. "/y", "mode"))
  end)

  both("fails when a file is in the way, and leaves it alone", function()
    local path = made("content")
    local err = fails({ kind = "Io", op = "mkdir", path = path }, jdbfs.mkdir(path))
    assert.truthy(err.name == "ENOTDIR" or err.name == "EEXIST", err.name)
    fails({ kind = "Io", op = "mkdir", path = path .. "/a", name = "ENOTDIR" },
      jdbfs.mkdir(path .. "/a"))
    fails({ kind = "Io", op = "mkdir", path = path .. "/a/b", name = "ENOTDIR" },
      jdbfs.mkdir(path .. "/a/b"))
    support.holds(path, "content")
  end)

  both("fails when a dangling link is in the way", function()
    local dangling = link("nowhere", "l")
    fails({ kind = "Io", op = "mkdir", path = dangling }, jdbfs.mkdir(dangling))
  end)

  support.task("of one path by many tasks succeeds for all", function()
    local path = support.path("a") .. "/b/c/d/e/f"
    local tasks = {}
    for i = 1, 20 do
      tasks[i] = jdbfs.spawn(function() return jdbfs.mkdir(path .. "/" .. i % 3) end)
    end
    for i = 1, 20 do assert.is_true(tasks[i]:join()) end
    assert.equal("directory", lfs.attributes(path .. "/2", "mode"))
  end)
end)

describe("ls", function()
  support.setup()

  both("gives the names of the regular files, sorted by their bytes", function()
    -- The C library of Windows takes no UTF-8, and "B" is "b" there.
    local far, near = support.on_windows and "~" or "\255", support.on_windows and "C" or "B"
    for _, name in ipairs({ "b", "a", near, "10", "9", ".hidden", far, "a b", "ab" }) do
      made("", name)
    end
    jdbfs.mkdir(support.path("directory"))
    assert.same({ ".hidden", "10", "9", near, "a", "a b", "ab", "b", far }, jdbfs.ls(here()))
  end)

  both("leaves out what is no regular file", function()
    made("", "a")
    jdbfs.mkdir(support.path("directory"))
    link("a", "link")
    support.sh("mkfifo " .. support.quote(support.path("fifo")))
    assert.same({ "a" }, jdbfs.ls(here()))
  end)

  it("knows files from directories where the file system does not tell", function()
    local why = support.on_sim or support.lacks("root", "unshare", "mkfs.ext4")
    if why then return pending(why) end
    local point, image = support.path("point"), support.quote(support.path("image"))
    local mount = ("mount -o loop %s %s"):format(image, support.quote(point))
    if not jdbfs.mkdir(point) or support.sh(("truncate -s 16M %s && PATH=$PATH:/usr/sbin:/sbin " ..
        "mkfs.ext4 -q -O ^filetype %s && unshare -m %s"):format(image, image, mount)) ~= 0 then
      return pending("a loop device cannot be mounted here")
    end
    local r = support.script([=[
      os.execute(arg[2])
      local jdbfs = require("jdbfs")
      assert(jdbfs.mkdir(arg[1] .. "/directory"))
      assert(jdbfs.atomic_write(arg[1] .. "/file", "x"))
      io.write(table.concat(jdbfs.ls(arg[1]), " "))
    ]=], { args = { point, mount }, prefix = "unshare -m" })
    assert.equal("file", r.out, r.err)
  end)

  both("of an empty directory is an empty list", function()
    assert.same({}, jdbfs.ls(here()))
  end)

  both("of thousands of files is complete and sorted", function()
    local many = support.on_wine and 500 or 3000
    for i = many, 1, -1 do made("", tostring(9999 + i)) end
    local names = jdbfs.ls(here())
    assert.equal(many, #names)
    for i, name in ipairs(names) do assert.equal(tostring(9999 + i), name) end
  end)

  both("follows a link to a directory", function()
    jdbfs.mkdir(support.path("d"))
    made("", "d/file")
    assert.same({ "file" }, jdbfs.ls(link("d", "l")))
  end)

  both("of what is no directory fails", function()
    local path = support.path()
    fails({ kind = "Io", op = "ls", path = path, name = "ENOENT" }, jdbfs.ls(path))
    path = made("x")
    fails({ kind = "Io", op = "ls", path = path, name = "ENOTDIR" }, jdbfs.ls(path))
  end)
end)

describe("size and stat", function()
  support.setup()

  both("tell about a file", function()
    local path = made(("x"):rep(12345))
    if support.on_sim or not support.on_windows then support.chmod("604", path) end
    assert.equal(12345, jdbfs.size(path))
    local st, attributes = jdbfs.stat(path), lfs.attributes(path)
    assert.equal(12345, st.size)
    assert.equal("file", st.type)
    if not support.on_windows then -- whose C library knows neither
      assert.equal(attributes.ino, st.inode)
      assert.equal(attributes.dev, st.device)
    end
    assert.equal(attributes.nlink, st.links)
    assert.equal(support.on_windows and 438 or 388, st.mode) -- 0666 or 0604
    assert.equal(attributes.modification, math.floor(st.mtime))
    assert.equal(attributes.access, math.floor(st.atime))
    if not support.on_windows then -- where it is the time of the making
      assert.equal(attributes.change, math.floor(st.ctime))
    end
    assert.equal(0, st.allocated % 512)
  end)

  both("follow links", function()
    made("hello", "file")
    local path = link("file", "l")
    assert.equal(5, jdbfs.size(path))
    assert.equal("file", jdbfs.stat(path).type)
    assert.equal(lfs.attributes(support.path("file"), "ino"), jdbfs.stat(path).inode)
  end)

  both("answer for directories", function()
    assert.equal("number", type(jdbfs.size(here())))
    assert.equal("directory", jdbfs.stat(here()).type)
  end)

  both("of a sparse file tell its size and what is allocated", function()
    local path = made("")
    local f = jdbfs.open_rw(path)
    f:truncate(2 ^ 40)
    f:close()
    assert.equal(2 ^ 40, jdbfs.size(path))
    assert.is_true(jdbfs.stat(path).allocated < 65536)
  end)

  both("of nothing fail", function()
    local path = support.path()
    fails({ kind = "Io", op = "size", path = path, name = "ENOENT" }, jdbfs.size(path))
    fails({ kind = "Io", op = "stat", path = path, name = "ENOENT" }, jdbfs.stat(path))
  end)
end)

describe("rename", function()
  support.setup()

  both("moves a file", function()
    local from, to = made("content"), support.path()
    assert.is_true(jdbfs.rename(from, to))
    assert.is_nil(lfs.attributes(from))
    support.holds(to, "content")
  end)

  both("replaces the target", function()
    local from, to = made("new"), made("old")
    assert.is_true(jdbfs.rename(from, to))
    assert.is_nil(lfs.attributes(from))
    support.holds(to, "new")
  end)

  both("with noreplace keeps a target that exists", function()
    local from, to = made("new"), made("old")
    fails({ kind = "Io", op = "rename", path = from, name = "EEXIST" },
      jdbfs.rename(from, to, { noreplace = true }))
    support.holds(from, "new")
    support.holds(to, "old")
    assert.is_true(jdbfs.remove(to))
    assert.is_true(jdbfs.rename(from, to, { noreplace = true }))
    support.holds(to, "new")
    assert.is_nil(lfs.attributes(from))
    assert.is_true(jdbfs.rename(to, made("older"), { noreplace = false }))
  end)

  both("moves between directories, and directories", function()
    local from = made("content")
    jdbfs.mkdir(support.path("a"))
    assert.is_true(jdbfs.rename(from, support.path("a/x")))
    assert.is_true(jdbfs.rename(support.path("a"), support.path("b")))
    support.holds(support.path("b/x"), "content")
  end)

  both("keeps an open file usable", function()
    local from, to = support.path(), support.path()
    local f = assert(jdbfs.create(from))
    assert.is_true(jdbfs.rename(from, to))
    assert.equal(PAGE, f:write_at(support.page(0x61), 0))
    f:close()
    support.holds(to, ("a"):rep(PAGE))
  end)

  both("of nothing, or onto something of another sort, fails", function()
    local missing, file, dir = support.path(), made("x"), support.path("dir")
    jdbfs.mkdir(dir)
    fails({ kind = "Io", op = "rename", path = missing, name = "ENOENT" },
      jdbfs.rename(missing, support.path()))
    fails({ kind = "Io", op = "rename", path = file, name = "EISDIR" }, jdbfs.rename(file, dir))
    fails({ kind = "Io", op = "rename", path = dir, name = "ENOTDIR" }, jdbfs.rename(dir, file))
    fails({ kind = "Io", op = "rename", path = dir, name = "EINVAL" },
      jdbfs.rename(dir, dir .. "/inside"))
    support.holds(file, "x")
  end)

  both("tells slashes and dots behind a name from the name", function()
    if support.on_windows then return pending("Windows has errors of its own for these") end
    local file, dir, inner = made("x"), support.path("dir"), support.path("dir/inner")
    local new = support.path()
    assert(jdbfs.mkdir(inner))
    for _, case in ipairs {
      { "ENOTDIR", file .. "/", new }, { "ENOTDIR", file, new .. "/" },
      { "ENOTDIR", dir, file }, { "EISDIR", file, dir },
      { "EBUSY", dir .. "/.", new }, { "EBUSY", dir, inner .. "/.." },
      { "EINVAL", dir, inner .. "/x" }, { "ENOTEMPTY", inner, dir },
    } do
      fails({ kind = "Io", op = "rename", path = case[2], name = case[1] },
        jdbfs.rename(case[2], case[3]))
    end
    fails({ name = "EISDIR", path = new .. "/" }, jdbfs.create(new .. "/"))
    fails({ name = "EISDIR", path = dir }, jdbfs.atomic_write(dir, "x"))
    assert.is_true(jdbfs.mkdir(new .. "/"))
    assert.is_true(jdbfs.rename(dir .. "/", new .. "/"))
    assert.is_true(jdbfs.rename(new, new))
    assert.is_true(jdbfs.exists(new .. "/inner") and not jdbfs.exists(dir))
  end)

  both("names both paths when it fails", function()
    local from, to = support.path("old name"), support.path("new name")
    local err = fails({ kind = "Io", op = "rename", path = from }, jdbfs.rename(from, to))
    assert.truthy(err.message:find(to, 1, true), err.message)
  end)

  both("across file systems fails and moves nothing", function()
    local from = made("x")
    local other
    for _, dir in ipairs({ "/dev/shm", "/run", "/tmp" }) do
      local dev = lfs.attributes(dir, "dev")
      if dev and dev ~= lfs.attributes(from, "dev") then other = dir end
    end
    if not other then return pending("there is no second file system to write to") end
    local to = other .. "/" .. here():gsub("%W", "-")
    fails({ kind = "Io", op = "rename", path = from, name = "EXDEV" }, jdbfs.rename(from, to))
    support.holds(from, "x")
    assert.is_nil(lfs.attributes(to))
  end)
end)

describe("remove", function()
  support.setup()

  both("removes a file, once", function()
    local path = made("x")
    assert.is_true(jdbfs.remove(path))
    assert.is_nil(lfs.attributes(path))
    fails({ kind = "Io", op = "remove", path = path, name = "ENOENT" }, jdbfs.remove(path))
  end)

  both("removes a link, not what it leads to", function()
    made("x", "file")
    assert.is_true(jdbfs.remove(link("file", "l")))
    support.holds(support.path("file"), "x")
    assert.is_nil(lfs.symlinkattributes(support.path("l")))
  end)

  both("leaves a directory alone, empty or not", function()
    local path = support.path("dir")
    jdbfs.mkdir(path)
    fails({ kind = "Io", op = "remove", path = path, name = "EISDIR" }, jdbfs.remove(path))
    assert.equal("directory", lfs.attributes(path, "mode"))
  end)

  both("of an open file leaves the handle usable", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.is_true(jdbfs.remove(path))
    assert.equal(PAGE, f:write_at(support.page(0x61), 0))
    assert.equal("aa", f:read(0, 2))
    if not support.on_wine then assert.equal(0, f:stat().links) end
    assert.is_true(f:close())
    assert.is_nil(lfs.attributes(path))
  end)
end)

describe("sync_dir", function()
  support.setup()

  both("syncs a directory", function()
    made("x")
    assert.is_true(jdbfs.sync_dir(here()))
  end)

  both("follows a link to a directory", function()
    assert.is_true(jdbfs.sync_dir(link(".", "l")))
  end)

  both("of what is no directory fails", function()
    local path = support.path()
    fails({ kind = "Io", op = "sync_dir", path = path, name = "ENOENT" }, jdbfs.sync_dir(path))
    path = made("x")
    fails({ kind = "Io", op = "sync_dir", path = path, name = "ENOTDIR" }, jdbfs.sync_dir(path))
  end)

  it("asks the kernel to sync exactly that directory", function()
    local why = support.lacks("strace")
    if why then return pending(why) end
    local trace = support.path("trace")
    if support.sh("strace -o " .. support.quote(trace) .. " true") ~= 0 then
      return pending("strace may not trace here")
    end
    local dir = support.path("synced")
    jdbfs.mkdir(dir)
    local r = support.script("assert(require('jdbfs').sync_dir((...)))", {
      args = { dir },
      prefix = "strace -f -y -e trace=fsync,fdatasync -o " .. support.quote(trace),
    })
    assert.equal(0, r.status, r.err)
    assert.truthy(support.get(trace):find("fsync%(%d+<[^>]*/synced>"), support.get(trace))
  end)
end)

describe("space", function()
  support.setup()

  both("gives free and total bytes of the file system", function()
    local free, total = jdbfs.space(here())
    assert.equal("number", type(free))
    assert.equal("number", type(total))
    assert.is_true(total > 0 and free >= 0 and free <= total)
    local _, of_file = jdbfs.space(made("x"))
    assert.equal(total, of_file)
  end)

  both("agrees with df", function()
    local _, out = support.sh("df -P -B1 " .. support.quote(here()) .. " | tail -n 1")
    assert.equal(tonumber(out:match("%S+%s+(%d+)")), (select(2, jdbfs.space(here()))))
  end)

  -- Others write meanwhile, so which of the two it is nearer to.
  it("is what this user may use, not what is kept for root", function()
    local status, out = support.sh("stat -f -c '%a %f %S' " .. support.quote(here()))
    local available, unused, block = out:match("^(%d+) (%d+) (%d+)")
    if status ~= 0 or not block then return pending("stat -f does not tell it here") end
    local free = assert(jdbfs.space(here()))
    assert.is_true(math.abs(free - available * block) <= math.abs(free - unused * block))
  end)

  both("of nothing fails", function()
    local path = support.path()
    fails({ kind = "Io", op = "space", path = path, name = "ENOENT" }, jdbfs.space(path))
  end)
end)

describe("functions on names", function()
  support.setup()

  it("need a path that is a string", function()
    for _, name in ipairs({ "exists", "mkdir", "ls", "size", "stat", "remove", "sync_dir", "space",
      "rename" }) do
      raises("string expected", jdbfs[name])
      raises("string expected", jdbfs[name], 1)
      raises("string expected", jdbfs[name], {})
    end
    raises("string expected", jdbfs.rename, "a")
    raises("string expected", jdbfs.rename, "a", 1)
  end)

  it("refuse unknown options, and options of a wrong type", function()
    local from, to = made("x"), support.path()
    raises("unknown option replace", jdbfs.rename, from, to, { replace = true })
    raises("option noreplace", jdbfs.rename, from, to, { noreplace = 1 })
    raises("unknown option", jdbfs.rename, from, to, { "noreplace" })
    raises("table expected", jdbfs.rename, from, to, "noreplace")
    raises("unknown option mode", jdbfs.mkdir, to, { mode = 493 })
    raises("unknown option noreplace", jdbfs.remove, from, { noreplace = true })
    raises("option durable", jdbfs.mkdir, to, { durable = 1 })
    raises("table expected", jdbfs.mkdir, to, 493)
    support.holds(from, "x")
    assert.is_nil(lfs.attributes(to))
  end)

  -- In another process: a mistake here is a crash on plain Lua 5.1, where no C function can be the
  -- body of a coroutine.
  it("can be tasks by themselves", function()
    local path = made("hello")
    local r = support.script([=[
      local jdbfs = require("jdbfs")
      local path = ...
      assert(jdbfs.run(jdbfs.size, path) == 5)
      assert(jdbfs.timeout(10, jdbfs.size, path) == 5)
      jdbfs.run(function()
        local f = assert(jdbfs.open(path))
        local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
        local tasks = {
          jdbfs.spawn(jdbfs.size, path), jdbfs.spawn(f.read_upto, f, b, 0),
          jdbfs.spawn(f.size, f), jdbfs.spawn(jdbfs.size, path),
        }
        for i = 1, 4 do assert(tasks[i]:join() == 5) end
        assert(jdbfs.timeout(10, jdbfs.size, path) == 5)
        assert(jdbfs.spawn(f.close, f):join() == true)
        assert(jdbfs.spawn(jdbfs.yield):join() == true)
        assert(jdbfs.spawn(jdbfs.sleep, 0):join() == true)
      end)
      io.write("done")
    ]=], { args = { path } })
    assert.equal("done", r.out, r.err)
    assert.equal(0, r.status)
  end)

  support.task("overlap with each other and with transfers", function()
    local tasks = {}
    for i = 1, 50 do
      tasks[i] = jdbfs.spawn(function()
        local path = support.path("file" .. i)
        local f = assert(jdbfs.create(path))
        assert(f:write_at(support.page(i), 0))
        assert(f:close())
        assert(jdbfs.rename(path, path .. "x"))
        assert(jdbfs.size(path .. "x") == PAGE)
        return jdbfs.exists(path)
      end)
    end
    for i = 1, 50 do assert.is_false(tasks[i]:join()) end
    assert.equal(50, #jdbfs.ls(here()))
  end)
end)
