-- Files: how they are opened, read, written, measured, sized, synced and closed.

local support = require("support")
local lfs = support.lfs
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

-- A file with this content, made without jdbfs.
local function made(data)
  local path = support.path()
  support.put(path, data or "")
  return path
end

-- n bytes that differ at every place where a mistake could show.
local function pattern(n, seed)
  local words, word = {}, seed or 1
  for i = 1, math.ceil(n / 8) do
    word = (word * 16807) % 2147483647
    words[i] = ("%08x"):format(word)
  end
  return table.concat(words):sub(1, n)
end

local function filled(data, size)
  local b = jdbfs.buffer(size or #data)
  b:set(0, data)
  return b
end

-- The flags of the descriptor behind a file, as open(2) took them; nil where /proc has none.
local function open_flags(path)
  for fd in lfs.dir("/proc/self/fd") do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target")
    if target and target:sub(-#path) == path then
      return tonumber(support.get("/proc/self/fdinfo/" .. fd):match("flags:%s*(%d+)"), 8)
    end
  end
end

local function has_flag(path, octal)
  local bit = tonumber(octal, 8)
  return math.floor(open_flags(path) / bit) % 2 == 1
end

local O_DSYNC, O_NOATIME, O_CLOEXEC = "10000", "1000000", "2000000"

local function permissions(path)
  return lfs.attributes(path, "permissions")
end

describe("open", function()
  support.setup()

  both("reads an existing file and changes nothing", function()
    local path = made("hello")
    local f = assert(jdbfs.open(path))
    assert.equal("hello", f:read(0, 100))
    assert.equal(path, f:path())
    assert.is_false(f:info().writable)
    assert.is_true(f:close())
    support.holds(path, "hello")
  end)

  both("fails when there is no file, and makes none", function()
    local path = support.path()
    fails({ kind = "Io", op = "open", path = path, name = "ENOENT", errno = 2 }, jdbfs.open(path))
    assert.is_nil(lfs.attributes(path))
  end)

  both("follows symbolic links", function()
    local path, link = made("hello"), support.path("link")
    support.link(path:match("[^/]+$"), link)
    local f = assert(jdbfs.open(link))
    assert.equal("hello", f:read(0, 5))
    f:close()
  end)
end)

describe("create", function()
  support.setup()

  both("makes a file that can be written and read", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.equal(0, f:size())
    assert.is_true(f:info().writable)
    assert.equal(PAGE, f:write_at(support.page(0x61), 0))
    assert.equal("aaa", f:read(0, 3))
    assert.is_true(f:close())
    support.holds(path, ("a"):rep(PAGE))
  end)

  both("empties an existing file", function()
    local path = made("old content")
    local f = assert(jdbfs.create(path))
    assert.equal(0, f:size())
    f:close()
    support.holds(path, "")
  end)

  both("gives the mode 0666 less the umask", function()
    if support.on_windows then return pending("permissions are the directory's on Windows") end
    local path = support.path()
    jdbfs.create(path):close()
    local _, umask = support.sh("umask")
    local expected = 438
    for i, bit in ipairs({ 2, 4, 16, 32, 128, 256 }) do
      local masked = math.floor(tonumber(umask, 8) / bit) % 2 == 1
      if i and masked then expected = expected - bit end
    end
    assert.equal(expected, jdbfs.stat(path).mode)
  end)

  both("gives the mode asked for, less the umask", function()
    if support.on_windows then return pending("permissions are the directory's on Windows") end
    local path = support.path()
    jdbfs.create(path, { mode = 384 }):close() -- 0600
    assert.equal("rw-------", permissions(path))
    path = support.path()
    jdbfs.create(path, { mode = 256 }):close() -- 0400: still writable through this handle
    assert.equal("r--------", permissions(path))
  end)

  both("leaves the mode of an existing file alone", function()
    local path = made("x")
    support.chmod("640", path)
    jdbfs.create(path, { mode = 384 }):close()
    assert.equal("rw-r-----", permissions(path))
  end)

  both("with must_exist makes no file", function()
    local path = support.path()
    fails({ kind = "Io", op = "create", path = path, name = "ENOENT" },
      jdbfs.create(path, { must_exist = true }))
    assert.is_nil(lfs.attributes(path))
    support.put(path, "old")
    local f = assert(jdbfs.create(path, { must_exist = true }))
    assert.equal(0, f:size())
    f:close()
  end)

  both("with exclusive fails on an existing file and leaves it alone", function()
    local path = made("old")
    fails({ kind = "Io", op = "create", path = path, name = "EEXIST" },
      jdbfs.create(path, { exclusive = true }))
    support.holds(path, "old")
    local other = support.path()
    jdbfs.create(other, { exclusive = true }):close()
    support.holds(other, "")
  end)

  both("with exclusive does not follow a dangling link", function()
    local link = support.path("link")
    support.link("nowhere", link)
    fails({ kind = "Io", name = "EEXIST", path = link }, jdbfs.create(link, { exclusive = true }))
    assert.is_nil(lfs.attributes(support.path("nowhere")))
  end)
end)

describe("open_rw", function()
  support.setup()

  both("makes a missing file", function()
    local path = support.path()
    local f = assert(jdbfs.open_rw(path))
    assert.equal(0, f:size())
    assert.equal(PAGE, f:write_at(support.page(0x61), 0))
    f:close()
    support.holds(path, ("a"):rep(PAGE))
  end)

  both("keeps what an existing file holds", function()
    local path = made("hello")
    local f = assert(jdbfs.open_rw(path))
    assert.equal(5, f:size())
    assert.equal("hello", f:read(0, 5))
    f:close()
    support.holds(path, "hello")
  end)

  both("with must_exist makes no file", function()
    local path = support.path()
    fails({ kind = "Io", op = "open_rw", path = path, name = "ENOENT" },
      jdbfs.open_rw(path, { must_exist = true }))
    assert.is_nil(lfs.attributes(path))
  end)

  both("with exclusive fails on an existing file", function()
    local path = made("old")
    fails({ kind = "Io", op = "open_rw", path = path, name = "EEXIST" },
      jdbfs.open_rw(path, { exclusive = true }))
    local f = assert(jdbfs.open_rw(support.path(), { exclusive = true }))
    assert.equal(0, f:size())
    f:close()
  end)
end)

describe("open_wal", function()
  support.setup()

  both("opens as open_rw does", function()
    local path = support.path()
    local f = assert(jdbfs.open_wal(path))
    assert.equal(0, f:size())
    assert.equal(PAGE, f:write_at(support.page(0x61), PAGE))
    assert.is_true(f:close())
    f = assert(jdbfs.open_wal(path))
    assert.equal(2 * PAGE, f:size())
    assert.equal("\0a", f:read(PAGE - 1, 2))
    f:close()
    fails({ kind = "Io", name = "ENOENT" }, jdbfs.open_wal(support.path(), { must_exist = true }))
    fails({ kind = "Io", name = "EEXIST" }, jdbfs.open_wal(path, { exclusive = true }))
  end)

  both("makes every write durable on return: the descriptor has O_DSYNC", function()
    if support.not_linux then return pending(support.not_linux) end
    if not support.proc then return pending("there is no /proc here") end
    local path = support.path("wal")
    local f = assert(jdbfs.open_wal(path))
    assert.is_true(has_flag(path, O_DSYNC))
    assert.is_true(f:info().dsync)
    f:close()
    for _, how in ipairs({ "open_rw", "create", "open" }) do
      f = assert(jdbfs[how](path))
      assert.is_false(has_flag(path, O_DSYNC))
      assert.is_false(f:info().dsync)
      f:close()
    end
  end)

  it("asks the kernel for O_DSYNC and O_DIRECT, as strace sees it", function()
    if support.not_linux then return pending(support.not_linux) end
    local why = support.lacks("strace")
    if why then return pending(why) end
    local probe = support.path("probe")
    if support.sh("strace -o " .. support.quote(probe) .. " true") ~= 0 then
      return pending("strace may not trace here")
    end
    local trace, wal = support.path("trace"), support.path("wal")
    local r = support.script([[
      local jdbfs = require("jdbfs")
      local f = assert(jdbfs.open_wal((...)))
      local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
      assert(f:write_at(b, 0))
      assert(f:close())
    ]], {
      args = { wal },
      prefix = "strace -f -e trace=openat,open,fcntl -o " .. support.quote(trace),
    })
    assert.equal(0, r.status, r.err)
    -- The first open finds nothing, the second makes it; O_DIRECT is set when the file is wanted.
    local text = support.get(trace)
    local name = wal:match("[^/]+/[^/]+$"):gsub("%p", "%%%0")
    local line = text:match("[^\n]*" .. name .. "[^\n]*O_EXCL[^\n]*")
    assert.truthy(line:find("O_DSYNC", 1, true) or line:find("O_SYNC", 1, true), line)
    assert.truthy(line:find("O_CLOEXEC", 1, true), line)
    assert.truthy(text:match("F_SETFL[^\n]*O_DIRECT"), text)
  end)
end)

describe("a file's descriptor", function()
  support.setup()

  both("does not pass to programs that are started", function()
    if not support.proc then return pending("there is no /proc here") end
    local path = support.path("f")
    local f = assert(jdbfs.create(path))
    assert.is_true(has_flag(path, O_CLOEXEC))
    f:close()
  end)

  both("leaves access times alone unless option atime is set", function()
    if support.not_linux then return pending(support.not_linux) end
    if not support.proc then return pending("there is no /proc here") end
    local path = support.path("f")
    local f = assert(jdbfs.create(path))
    assert.is_true(has_flag(path, O_NOATIME))
    f:close()
    f = assert(jdbfs.open(path, { atime = true }))
    assert.is_false(has_flag(path, O_NOATIME))
    f:close()
    f = assert(jdbfs.open(path, { atime = false }))
    assert.is_true(has_flag(path, O_NOATIME))
    f:close()
  end)
end)

describe("option direct", function()
  support.setup()

  -- Pages of the file that the page cache holds.
  local function cached(path)
    local _, out = support.sh("fincore -n -o PAGES " .. support.quote(path))
    return tonumber(out)
  end

  both("is in force by default, and info says so", function()
    local f = assert(jdbfs.create(support.path()))
    local i = f:info()
    assert.is_true(i.direct)
    assert.equal("require", i.direct_policy)
    assert.equal("string", type(i.direct_reason))
    f:close()
  end)

  both("= require keeps the file out of the page cache", function()
    local why = support.lacks("fincore")
    if why then return pending(why) end
    if support.fs() ~= "ext4" and support.fs() ~= "xfs" then
      return pending(support.fs() .. " may use the page cache for direct I/O")
    end
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local b = jdbfs.buffer(16 * PAGE)
    assert.equal(16 * PAGE, f:write_at(b, 0))
    assert.equal(16 * PAGE, f:read_at(b, 0))
    assert.equal(0, cached(path))
    f:close()
    f = assert(jdbfs.open(path, { direct = "off" }))
    assert.equal(16 * PAGE, f:read_at(b, 0))
    assert.is_true(cached(path) > 0)
    f:close()
  end)

  both("= off uses the page cache and needs no alignment", function()
    local path = support.path()
    local f = assert(jdbfs.create(path, { direct = "off" }))
    local i = f:info()
    assert.is_false(i.direct)
    assert.equal("off", i.direct_policy)
    assert.equal(1, i.memory_alignment)
    assert.equal(1, i.read_alignment)
    assert.equal(1, i.write_alignment)
    local b = filled("hello, world")
    assert.equal(5, f:write_at(b, 3, 7, 5))
    assert.equal(8, f:size())
    assert.equal("\0\0\0world", f:read(0, 100))
    assert.equal(3, f:read_at(b, 4, 1, 3))
    assert.equal("horlo, world", b:string())
    f:close()
  end)

  both("= prefer gives direct I/O where there is some", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    assert.equal("prefer", f:info().direct_policy)
    assert.is_true(f:info().direct)
    f:close()
  end)

  -- Files of /proc have no direct I/O.
  both("= require fails where there is none, naming the option", function()
    if support.not_linux then return pending(support.not_linux) end
    local path = "/proc/self/status"
    if not support.proc then return pending("there is no /proc here") end
    fails({ kind = "Unsupported", op = "open", path = path, says = { "direct", "prefer" } },
      jdbfs.open(path))
    fails({ kind = "Unsupported", op = "open", path = path },
      jdbfs.open(path, { direct = "require" }))
  end)

  both("= prefer falls back where there is none, and info says so", function()
    if support.not_linux then return pending(support.not_linux) end
    local path = "/proc/self/status"
    if not support.proc then return pending("there is no /proc here") end
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    local i = f:info()
    assert.is_false(i.direct)
    assert.equal("prefer", i.direct_policy)
    assert.truthy(i.direct_reason:find("refused O_DIRECT", 1, true))
    assert.equal(1, i.read_alignment)
    assert.equal("Name:", f:read(0, 5))
    f:close()
  end)

  -- ramfs has no direct I/O; mounted where nobody else sees it.
  local function on_ramfs(source)
    local why = support.not_linux or support.lacks("root", "unshare")
    if why then return nil, why end
    local where = support.path("ramfs")
    lfs.mkdir(where)
    if support.sh("unshare -m mount -t ramfs none " .. support.quote(where)) ~= 0 then
      return nil, "ramfs cannot be mounted here"
    end
    return support.script([[
      local dir = ...
      assert(os.execute("mount -t ramfs none '" .. dir .. "'"))
      local jdbfs, lfs = require("jdbfs"), require("lfs")
    ]] .. source .. "\nio.write('done')", { args = { where }, prefix = "unshare -m" })
  end

  it("= require leaves no new file behind where there is no direct I/O", function()
    local r, why = on_ramfs([[
      for _, how in ipairs({ "create", "open_rw", "open_wal" }) do
        local path = dir .. "/" .. how
        local f, message, err = jdbfs[how](path)
        assert(not f and err.kind == "Unsupported", message)
        assert(not lfs.attributes(path), how .. " left a file behind")
      end
    ]])
    if not r then return pending(why) end
    assert.equal("done", r.out, r.err)
  end)

  it("= prefer works together with exclusive where there is no direct I/O", function()
    local r, why = on_ramfs([[
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer", exclusive = true }))
      assert(not f:info().direct)
      assert(f:close())
      local again, message, err = jdbfs.create(dir .. "/f", { direct = "prefer", exclusive = true })
      assert(not again and err.name == "EEXIST", message)
    ]])
    if not r then return pending(why) end
    assert.equal("done", r.out, r.err)
  end)
end)

describe("open options", function()
  support.setup()

  both("that are unknown or of a wrong type raise, and nothing is made", function()
    local path = support.path()
    raises("unknown option directt", jdbfs.create, path, { directt = "off" })
    raises("option names are strings", jdbfs.create, path, { "off" })
    raises("option direct", jdbfs.create, path, { direct = "maybe" })
    raises("option direct", jdbfs.create, path, { direct = true })
    raises("option mode", jdbfs.create, path, { mode = "0666" })
    raises("option mode", jdbfs.create, path, { mode = -1 })
    raises("option mode", jdbfs.create, path, { mode = 4096 })
    raises("option mode", jdbfs.create, path, { mode = 0.5 })
    raises("option exclusive", jdbfs.create, path, { exclusive = 1 })
    raises("option must_exist", jdbfs.create, path, { must_exist = "yes" })
    raises("option atime", jdbfs.create, path, { atime = 0 })
    raises("option device", jdbfs.create, path, { device = "sda" })
    raises("table expected", jdbfs.create, path, "off")
    raises("exclusive", jdbfs.create, path, { exclusive = true, must_exist = true })
    raises("exclusive", jdbfs.open, path, { exclusive = true })
    assert.is_nil(lfs.attributes(path))
  end)

  both("may be an empty table, and false is as good as absent", function()
    local path = support.path()
    jdbfs.create(path, {}):close()
    jdbfs.create(path, { exclusive = false, must_exist = false, atime = false, device = false,
      durable_create = false, dsync = false }):close()
    support.holds(path, "")
  end)

  it("need a path that is a string", function()
    for _, how in ipairs({ "open", "create", "open_rw", "open_wal" }) do
      raises("string expected", jdbfs[how])
      raises("string expected", jdbfs[how], 1)
      raises("string expected", jdbfs[how], {})
    end
  end)
end)

describe("read_at", function()
  support.setup()

  both("fills the whole buffer by default", function()
    local data = pattern(4 * PAGE)
    local f = assert(jdbfs.open(made(data)))
    local b = jdbfs.buffer(2 * PAGE)
    assert.equal(2 * PAGE, f:read_at(b, PAGE))
    assert.equal(data:sub(PAGE + 1, 3 * PAGE), b:string())
    f:close()
  end)

  both("fills the part of the buffer that is named", function()
    local data = pattern(4 * PAGE)
    local f = assert(jdbfs.open(made(data)))
    local b = jdbfs.buffer(4 * PAGE)
    b:fill(0x2e)
    assert.equal(PAGE, f:read_at(b, 2 * PAGE, PAGE, PAGE))
    support.same(("."):rep(PAGE), b:string(0, PAGE))
    assert.equal(data:sub(2 * PAGE + 1, 3 * PAGE), b:string(PAGE, PAGE))
    support.same(("."):rep(2 * PAGE), b:string(2 * PAGE))
    -- Without a length: to the end of the buffer.
    assert.equal(2 * PAGE, f:read_at(b, 0, 2 * PAGE))
    assert.equal(data:sub(1, 2 * PAGE), b:string(2 * PAGE))
    assert.equal(PAGE, f:read_at(b, 3 * PAGE, nil, PAGE))
    assert.equal(data:sub(3 * PAGE + 1), b:string(0, PAGE))
    f:close()
  end)

  both("reads into a slice", function()
    local data = pattern(2 * PAGE)
    local f = assert(jdbfs.open(made(data)))
    local b = jdbfs.buffer(3 * PAGE)
    local s = b:slice(PAGE, PAGE)
    assert.equal(PAGE, f:read_at(s, PAGE))
    assert.equal(data:sub(PAGE + 1), s:string())
    support.same(("\0"):rep(PAGE) .. s:string() .. ("\0"):rep(PAGE), b:string())
    f:close()
  end)

  both("of no bytes reads nothing", function()
    local f = assert(jdbfs.open(made("hello")))
    local b = support.page()
    assert.equal(0, f:read_at(b, 0, 0, 0))
    assert.equal(0, f:read_at(b, 0, PAGE, 0))
    assert.equal(0, f:read_at(b, 0, PAGE))
    assert.equal(0, f:read_at(b, 100 * PAGE, 0, 0))
    support.same(("\0"):rep(PAGE), b:string())
    f:close()
  end)

  both("reads holes as zeros", function()
    local f = assert(jdbfs.create(support.path()))
    f:truncate(3 * PAGE)
    local b = support.page(0x61)
    assert.equal(PAGE, f:read_at(b, PAGE))
    support.same(("\0"):rep(PAGE), b:string())
    f:close()
  end)

  both("moves a megabyte in one call", function()
    local data = pattern(2 ^ 20)
    local f = assert(jdbfs.create(support.path()))
    assert.equal(2 ^ 20, f:write_at(filled(data), 0))
    local b = jdbfs.buffer(2 ^ 20)
    assert.equal(2 ^ 20, f:read_at(b, 0))
    assert.is_true(data == b:string())
    f:close()
  end)
end)

-- A file that ends inside a block, and inside a page.
describe("at an unaligned end of file", function()
  support.setup()

  for _, size in ipairs({ 1, 511, 513, PAGE - 1, PAGE + 1, 2 * PAGE + 1808, 4 * PAGE - 1 }) do
    both("of " .. size .. " bytes, reads give exact counts", function()
      local data = pattern(size)
      local path = made(data)
      local f = assert(jdbfs.open(path))
      local last = math.floor(size / PAGE) * PAGE
      local beyond = last + PAGE
      local b = jdbfs.buffer(8 * PAGE)
      local want = { kind = "ShortRead", op = "read_at", path = path, errno = "none" }

      -- Across the end, from the start of the file.
      b:fill(0x2e)
      want.offset, want.length, want.actual = 0, 8 * PAGE, size
      fails(want, f:read_at(b, 0))
      assert.is_true(b:string(0, size) == data)
      b:fill(0x2e)
      assert.equal(size, f:read_upto(b, 0))
      assert.is_true(b:string(0, size) == data)

      -- Across the end, from the last page.
      b:fill(0x2e)
      want.offset, want.length, want.actual = last, PAGE, size - last
      fails(want, f:read_at(b, last, PAGE, PAGE))
      assert.is_true(b:string(PAGE, size - last) == data:sub(last + 1))
      support.same(("."):rep(PAGE), b:string(0, PAGE))
      assert.equal(size - last, f:read_upto(b, last, PAGE, PAGE))

      -- Behind it, and far behind.
      for _, off in ipairs({ beyond, beyond + PAGE, 2 ^ 40, 2 ^ 53 }) do
        want.offset, want.length, want.actual = off, PAGE, 0
        fails(want, f:read_at(b, off, 0, PAGE))
        assert.equal(0, f:read_upto(b, off, 0, PAGE))
      end

      -- What lies before it is whole.
      if last > 0 then
        assert.equal(last, f:read_at(b, 0, 0, last))
        assert.is_true(b:string(0, last) == data:sub(1, last))
      end
      f:close()
    end)
  end

  both("short reads name the end of file", function()
    local f = assert(jdbfs.open(made("hello")))
    fails({ kind = "ShortRead", says = { "end of file", "5 of " .. PAGE } },
      f:read_at(support.page(), 0))
    f:close()
  end)
end)

describe("read_upto", function()
  support.setup()

  both("reads what there is: all, some, nothing", function()
    local data = pattern(3 * PAGE)
    local f = assert(jdbfs.open(made(data)))
    local b = jdbfs.buffer(2 * PAGE)
    assert.equal(2 * PAGE, f:read_upto(b, 0))
    assert.equal(PAGE, f:read_upto(b, 2 * PAGE))
    assert.equal(data:sub(2 * PAGE + 1), b:string(0, PAGE))
    assert.equal(0, f:read_upto(b, 3 * PAGE))
    assert.equal(0, f:read_upto(b, 4 * PAGE))
    f:close()
  end)

  both("gives 0 for an empty file", function()
    local f = assert(jdbfs.open(made("")))
    assert.equal(0, f:read_upto(support.page(), 0))
    assert.equal("", f:read(0, 100))
    fails({ kind = "ShortRead", actual = 0 }, f:read_at(support.page(), 0))
    f:close()
  end)
end)

describe("read", function()
  support.setup()

  both("gives any range as a string", function()
    local data = pattern(3 * PAGE + 100)
    local f = assert(jdbfs.open(made(data)))
    for _, off in ipairs({ 0, 1, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 99 }) do
      for _, len in ipairs({ 0, 1, 2, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE }) do
        local expected = data:sub(off + 1, off + len)
        local got = assert(f:read(off, len))
        assert.is_true(expected == got, ("read(%d, %d)"):format(off, len))
      end
    end
    f:close()
  end)

  both("is shorter only at the end of the file", function()
    local data = pattern(10000)
    local f = assert(jdbfs.open(made(data)))
    assert.equal(data:sub(9991), f:read(9990, 100))
    assert.equal(data, f:read(0, 2 ^ 20))
    assert.equal(data, f:read(0, 2 ^ 50))
    assert.equal(data:sub(2), f:read(1, 2 ^ 50))
    assert.equal("", f:read(10000, 1))
    assert.equal("", f:read(10000, 2 ^ 50))
    assert.equal("", f:read(2 ^ 53, 1))
    assert.equal("", f:read(2 ^ 53, 2 ^ 53))
    f:close()
  end)

  both("of nothing is an empty string", function()
    local f = assert(jdbfs.open(made("hello")))
    assert.equal("", f:read(0, 0))
    assert.equal("", f:read(3, 0))
    assert.equal("", f:read(2 ^ 53, 0))
    f:close()
  end)

  -- 2^63 - 1024 is a number on every Lua; the block that holds it would end at 2^63.
  both("reaches to the last possible byte", function()
    local f = assert(jdbfs.open(made("hello")))
    local off = 2 ^ 63 - 1024
    assert.equal("", f:read(off, 1))
    assert.equal("", f:read(off, 1000))
    assert.equal("", f:read(2 ^ 62, 2 ^ 62 - 1024))
    if math.maxinteger then
      assert.equal("", f:read(math.maxinteger, 0))
      assert.equal("", f:read(math.maxinteger - 1, 1))
      assert.equal("", f:read(0, math.maxinteger):sub(6))
    end
    f:close()
  end)

  it("needs an offset and a length", function()
    local f = assert(jdbfs.open(made("hello")))
    raises("number expected", f.read, f)
    raises("number expected", f.read, f, 0)
    raises("number expected", f.read, f, "0", 1)
    raises("number expected", f.read, f, 0, "1")
    f:close()
  end)
end)

describe("write_at", function()
  support.setup()

  both("writes the whole buffer by default", function()
    local path, data = support.path(), pattern(3 * PAGE)
    local f = assert(jdbfs.create(path))
    assert.equal(3 * PAGE, f:write_at(filled(data), 0))
    assert.equal(3 * PAGE, f:size())
    f:close()
    support.holds(path, data)
  end)

  both("writes the part of the buffer that is named", function()
    local path, data = support.path(), pattern(4 * PAGE)
    local f = assert(jdbfs.create(path))
    local b = filled(data)
    assert.equal(PAGE, f:write_at(b, 0, 2 * PAGE, PAGE))
    assert.equal(PAGE, f:write_at(b, PAGE, 3 * PAGE))
    assert.equal(PAGE, f:write_at(b, 2 * PAGE, nil, PAGE))
    assert.equal(PAGE, f:write_at(b:slice(PAGE, PAGE), 3 * PAGE))
    assert.is_true(data == b:string())
    f:close()
    support.holds(path, data:sub(2 * PAGE + 1) .. data:sub(1, 2 * PAGE))
  end)

  both("overwrites in place and leaves the rest", function()
    local path, data = support.path(), pattern(4 * PAGE)
    support.put(path, data)
    local f = assert(jdbfs.open_rw(path))
    assert.equal(PAGE, f:write_at(support.page(0x2e), PAGE))
    assert.equal(4 * PAGE, f:size())
    f:close()
    assert.is_true(data:sub(1, PAGE) .. ("."):rep(PAGE) .. data:sub(2 * PAGE + 1)
      == support.get(path))
  end)

  both("beyond the end leaves a hole of zeros", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.equal(PAGE, f:write_at(support.page(0x61), 4 * PAGE))
    assert.equal(5 * PAGE, f:size())
    f:close()
    support.holds(path, ("\0"):rep(4 * PAGE) .. ("a"):rep(PAGE))
  end)

  both("far beyond the end is done or refused, never wrapped around", function()
    if support.on_wine then return pending("wine has no error of its own for a file too large") end
    local path = support.path()
    local f = assert(jdbfs.create(path))
    for _, off in ipairs({ 2 ^ 32, 2 ^ 43 - PAGE, 2 ^ 53, 2 ^ 62 }) do
      local n, message, err = f:write_at(support.page(0x61), off)
      if n then
        assert.equal(PAGE, n)
        assert.equal(off + PAGE, f:size())
        assert.equal("a", f:read(off, 1))
      else
        fails({ kind = "Io", op = "write_at", path = path, offset = off, length = PAGE,
          actual = 0, name = "EFBIG" }, n, message, err)
      end
      f:truncate(0)
    end
    f:close()
  end)

  both("of no bytes writes nothing", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.equal(0, f:write_at(support.page(), 0, 0, 0))
    assert.equal(0, f:write_at(support.page(), 8 * PAGE, 0, 0))
    assert.equal(0, f:size())
    f:close()
  end)

  both("is seen by another handle", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local g = assert(jdbfs.open(path))
    assert.equal(PAGE, f:write_at(support.page(0x61), 0))
    assert.equal("aaa", g:read(10, 3))
    f:close()
    g:close()
  end)

  it("that meets a limit says how far it came, and keeps the buffer", function()
    -- File size limit: 3 pages. The kernel writes what fits, then refuses.
    local r = support.script([[
      local jdbfs = require("jdbfs")
      local PAGE = jdbfs.PAGE_SIZE
      local f = assert(jdbfs.create((...)))
      local b = jdbfs.buffer(8 * PAGE)
      b:fill(0x61)
      local function try()
        local n, message, err = f:write_at(b, 0)
        assert(n == nil and err.kind == "Io" and err.name == "EFBIG", message)
        assert(err.actual == 3 * PAGE and err.length == 8 * PAGE and err.offset == 0, message)
        assert(b:string(8 * PAGE - 1) == "a")
        assert(f:size() == 3 * PAGE)
      end
      jdbfs.run(try)
      try()
      io.write("done")
    ]], {
      args = { support.path() },
      prefix = "sh -c " .. support.quote(
        ("trap '' XFSZ; ulimit -f %d; exec \"$@\""):format(3 * PAGE / 512)) .. " sh",
    })
    assert.equal("done", r.out, r.err)
  end)

  it("on a full disk says how far it came", function()
    local why = support.lacks("root", "unshare")
    if why then return pending(why) end
    local where = support.path("small")
    lfs.mkdir(where)
    if support.sh("unshare -m mount -t tmpfs none " .. support.quote(where)) ~= 0 then
      return pending("tmpfs cannot be mounted here")
    end
    local r = support.script([[
      local dir = ...
      os.execute("mount -t tmpfs -o size=64k none '" .. dir .. "'")
      local jdbfs = require("jdbfs")
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      local b = jdbfs.buffer(128 * 1024)
      local n, message, err = f:write_at(b, 0)
      assert(n == nil and err.kind == "Io" and err.name == "ENOSPC", message)
      assert(err.actual == 64 * 1024 and err.length == 128 * 1024, message)
      io.write("done")
    ]], { args = { where }, prefix = "unshare -m" })
    assert.equal("done", r.out, r.err)
  end)
end)

describe("transfers", function()
  support.setup()

  it("raise when an argument is missing or of a wrong type", function()
    local f = assert(jdbfs.create(support.path()))
    local b = support.page()
    for _, name in ipairs({ "read_at", "read_upto", "write_at" }) do
      raises("buffer expected", f[name], f)
      raises("buffer expected", f[name], f, "text", 0)
      raises("buffer expected", f[name], f, f, 0)
      raises("number expected", f[name], f, b)
      raises("number expected", f[name], f, b, "0")
      raises("number expected", f[name], f, b, {})
      raises("number expected", f[name], f, b, 0, "0")
      raises("number expected", f[name], f, b, 0, 0, "4096")
      raises("file expected", f[name])
      raises("file expected", f[name], b, 0)
      raises("file expected", f[name], io.stdout, b, 0)
    end
    f:close()
  end)

  both("take offsets and lengths as whole floats, and as LuaJIT's 64-bit integers", function()
    local f = assert(jdbfs.create(support.path()))
    local b = jdbfs.buffer(2 * PAGE)
    b:fill(0x61)
    assert.equal(PAGE, f:write_at(b, PAGE + 0.0, PAGE * 1.0, PAGE / 1))
    assert.equal(2 * PAGE, f:size())
    if rawget(_G, "jit") then
      local ffi = require("ffi")
      for _, ctype in ipairs({ "int64_t", "uint64_t" }) do
        local page = ffi.cast(ctype, PAGE)
        assert.equal(PAGE, f:write_at(b, 2 * page, page, page))
        assert.equal(PAGE, f:read_at(b, 2 * page, page, page))
        assert.equal("aa", f:read(3 * page - 2, page))
        assert.is_true(f:truncate(2 * page))
        assert.equal(2 * PAGE, f:size())
      end
      raises("number expected", f.read_at, f, b, ffi.new("int32_t[1]"))
      raises("number expected", f.read_at, f, b, ffi.new("int64_t[1]"))
    end
    f:close()
  end)
end)

describe("size", function()
  support.setup()

  both("is the file's length now", function()
    local path = made(("x"):rep(1234))
    local f = assert(jdbfs.open_rw(path))
    assert.equal(1234, f:size())
    f:write_at(support.page(), PAGE)
    assert.equal(2 * PAGE, f:size())
    f:truncate(7)
    assert.equal(7, f:size())
    f:truncate(2 ^ 40)
    assert.equal(2 ^ 40, f:size())
    f:close()
  end)
end)

describe("stat", function()
  support.setup()

  both("tells size, space, times and identity", function()
    local path = made(("x"):rep(1234))
    if support.on_sim or not support.on_windows then support.chmod("640", path) end
    local f = assert(jdbfs.open_rw(path))
    local attributes = lfs.attributes(path)
    local st = f:stat()
    assert.equal(1234, st.size)
    assert.equal("file", st.type)
    if not support.on_windows then -- whose C library knows neither
      assert.equal(attributes.ino, st.inode)
      assert.equal(attributes.dev, st.device)
    end
    assert.equal(1, st.links)
    assert.equal(support.on_windows and 438 or 416, st.mode) -- 0666 or 0640
    assert.equal(attributes.modification, math.floor(st.mtime))
    assert.is_true(math.abs(st.ctime - os.time()) < 60)
    assert.equal("number", type(st.atime))
    f:close()
  end)

  both("tells what is allocated: nothing for a hole", function()
    local f = assert(jdbfs.create(support.path()))
    assert.equal(0, f:stat().allocated)
    f:truncate(2 ^ 20)
    assert.equal(2 ^ 20, f:stat().size)
    assert.is_true(f:stat().allocated < 65536)
    local b = jdbfs.buffer(2 ^ 18)
    b:fill(1)
    f:write_at(b, 0)
    f:sync_all()
    assert.is_true(f:stat().allocated >= 2 ^ 18)
    assert.is_true(f:stat().allocated < 2 ^ 20)
    f:close()
  end)
end)

describe("info", function()
  support.setup()

  both("tells path, backend, policy and alignments", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local i = f:info()
    assert.equal(path, i.path)
    assert.equal(jdbfs.info().backend, i.backend)
    local forced = os.getenv("JDBFS_BACKEND")
    if forced and forced ~= "" and forced ~= "auto" then assert.equal(forced, i.backend) end
    assert.equal("string", type(i.alignment_source))
    for _, name in ipairs({ "memory_alignment", "read_alignment", "write_alignment" }) do
      assert.equal(0, PAGE % i[name], name)
    end
    assert.equal("table", type(i.durability))
    assert.equal("string", type(i.durability.class))
    assert.equal("string", type(i.durability.reasons[1]))
    f:close()
  end)

  both("names the file system", function()
    local expected = os.getenv("JDBFS_TEST_FS")
    if not expected then return pending("JDBFS_TEST_FS is not set") end
    local f = assert(jdbfs.create(support.path()))
    assert.equal(expected, f:info().file_system)
    f:close()
  end)
end)

describe("truncate", function()
  support.setup()

  both("cuts to any length", function()
    local path, data = support.path(), pattern(3 * PAGE)
    support.put(path, data)
    local f = assert(jdbfs.open_rw(path))
    for _, len in ipairs({ 3 * PAGE, 2 * PAGE + 1, PAGE, 100, 1, 0 }) do
      assert.is_true(f:truncate(len))
      assert.equal(len, f:size())
      support.holds(path, data:sub(1, len))
    end
    f:close()
  end)

  both("grows with zeros, also where bytes had been", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    f:write_at(support.page(0x61), 0)
    f:truncate(100)
    assert.is_true(f:truncate(2 * PAGE + 10))
    assert.equal(2 * PAGE + 10, f:size())
    assert.equal(("a"):rep(100) .. ("\0"):rep(2 * PAGE - 90), f:read(0, 4 * PAGE))
    f:close()
  end)

  both("beyond what the file system can hold fails and changes nothing", function()
    if support.on_wine then return pending("wine has no error of its own for a file too large") end
    local path = made("hello")
    local f = assert(jdbfs.open_rw(path))
    local ok, message, err = f:truncate(2 ^ 63 - 1024)
    if not ok then
      fails({ kind = "Io", op = "truncate", path = path, name = "EFBIG" }, ok, message, err)
      assert.equal(5, f:size())
    else
      assert.equal(2 ^ 63 - 1024, f:size())
    end
    f:close()
  end)

  it("needs a length", function()
    local f = assert(jdbfs.create(support.path()))
    raises("number expected", f.truncate, f)
    raises("number expected", f.truncate, f, "0")
    raises("file expected", f.truncate)
    f:close()
  end)
end)

describe("preallocate", function()
  support.setup()

  -- btrfs accounts preallocated space late; a sync settles it.
  local function allocated(f)
    f:sync_all()
    return f:stat().allocated
  end

  for _, how in ipairs({ "default", "size", "zero" }) do
    local mode = how ~= "default" and how or nil

    both(how .. " grows the file to exactly the length, with space, reading zeros", function()
      for _, len in ipairs({ 16 * PAGE, 10000, 1 }) do
        local path = support.path()
        local f = assert(jdbfs.create(path))
        assert.is_true(f:preallocate(len, mode))
        assert.equal(len, f:size())
        assert.is_true(allocated(f) >= len)
        assert.is_true(("\0"):rep(len) == f:read(0, 2 * len + PAGE))
        f:close()
        support.holds(path, ("\0"):rep(len))
      end
    end)

    both(how .. " keeps what the file holds", function()
      local data = pattern(PAGE + 904)
      local path = made(data)
      local f = assert(jdbfs.open_rw(path))
      assert.is_true(f:preallocate(5 * PAGE + 3, mode))
      assert.equal(5 * PAGE + 3, f:size())
      f:close()
      support.holds(path, data .. ("\0"):rep(4 * PAGE + 3 - 904))
    end)

    both(how .. " never makes a file shorter", function()
      local data = pattern(10000)
      local path = made(data)
      local f = assert(jdbfs.open_rw(path))
      for _, len in ipairs({ 0, 1, PAGE, 9999, 10000 }) do
        assert.is_true(f:preallocate(len, mode))
        assert.equal(10000, f:size())
      end
      f:close()
      support.holds(path, data)
    end)
  end

  both("keep_size takes the space and leaves the size", function()
    if support.on_wine then return pending("wine reserves no space") end
    local data = pattern(10000)
    local path = made(data)
    local f = assert(jdbfs.open_rw(path))
    local ok, message, err = f:preallocate(64 * PAGE, "keep_size")
    assert.is_true(ok, message)
    assert.is_nil(err)
    assert.equal(10000, f:size())
    assert.is_true(allocated(f) >= 64 * PAGE)
    f:close()
    support.holds(path, data)
  end)

  both("zero has written the zeros: no hole and no unwritten extent", function()
    local why = support.lacks("filefrag")
    if why then return pending(why) end
    if support.fs() ~= "ext4" and support.fs() ~= "xfs" then
      return pending("filefrag tells unwritten extents of ext4 and xfs")
    end
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.is_true(f:preallocate(64 * PAGE, "zero"))
    f:sync_all()
    local _, out = support.sh("filefrag -v " .. support.quote(path))
    assert.is_nil(out:match("unwritten"), out)
    assert.is_true(f:truncate(0))
    assert.is_true(f:preallocate(64 * PAGE, "size"))
    f:sync_all()
    _, out = support.sh("filefrag -v " .. support.quote(path))
    assert.truthy(out:match("unwritten"), out)
    f:close()
  end)

  -- On a file system of its own: ext4 takes all there is before it says that it is not enough.
  it("of more than there is fails, leaves the size and gives the space back", function()
    if support.not_linux then return pending(support.not_linux) end
    local why = support.lacks("root", "unshare", "mkfs.ext4")
    if why then return pending(why) end
    local where, image = support.path("small"), support.path("image")
    lfs.mkdir(where)
    local mount = "mount -o loop " .. support.quote(image) .. " " .. support.quote(where)
    if support.sh(("truncate -s 16M %s && PATH=$PATH:/usr/sbin:/sbin mkfs.ext4 -q -F %s")
        :format(support.quote(image), support.quote(image))) ~= 0
      or support.sh("unshare -m " .. mount) ~= 0 then
      return pending("a loop device cannot be mounted here")
    end
    local r = support.script([=[
      local dir, mount = ...
      os.execute(mount)
      local jdbfs = require("jdbfs")
      for _, how in ipairs({ "size", "keep_size", "zero" }) do
        local f = assert(jdbfs.create(dir .. "/" .. how))
        assert(f:truncate(5))
        local ok, message, err = f:preallocate(2 ^ 26, how)
        assert(ok == nil and err.kind == "Io" and err.name == "ENOSPC", message)
        assert(err.op == "preallocate" and err.length == 2 ^ 26, message)
        assert(f:size() == 5, how .. " left a size of " .. f:size())
        -- What keep_size took is the kernel's to keep: an earlier reservation may lie there too.
        assert(how == "keep_size" or f:stat().allocated < 65536, how .. " kept the space")
        assert(jdbfs.remove(dir .. "/" .. how))
        assert(f:close())
      end
      io.write("done")
    ]=], { args = { where, mount }, prefix = "unshare -m" })
    assert.equal("done", r.out, r.err)
  end)

  it("needs a length and a known way", function()
    local f = assert(jdbfs.create(support.path()))
    raises("number expected", f.preallocate, f)
    raises("number expected", f.preallocate, f, "1")
    raises("invalid option", f.preallocate, f, 1, "zeros")
    raises("string expected", f.preallocate, f, 1, {})
    assert.equal(0, f:size())
    f:close()
  end)
end)

describe("sync_data and sync_all", function()
  support.setup()

  both("return true, also with nothing to do and on a read-only handle", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.is_true(f:sync_data())
    assert.is_true(f:sync_all())
    f:write_at(support.page(0x61), 0)
    assert.is_true(f:sync_data())
    assert.is_true(f:sync_all())
    f:close()
    f = assert(jdbfs.open(path))
    assert.is_true(f:sync_data())
    assert.is_true(f:sync_all())
    f:close()
  end)

  it("reach the kernel as fdatasync and fsync, each call once", function()
    local why = support.lacks("strace")
    if why then return pending(why) end
    if jdbfs.info().backend ~= "threads" then
      return pending("strace sees system calls, not what io_uring does")
    end
    local trace = support.path("trace")
    if support.sh("strace -o " .. support.quote(trace) .. " true") ~= 0 then
      return pending("strace may not trace here")
    end
    local r = support.script([[
      local jdbfs = require("jdbfs")
      local f = assert(jdbfs.create((...)))
      assert(f:sync_data() and f:sync_all() and f:sync_data())
      f:close()
    ]], {
      args = { support.path() },
      prefix = "strace -f -e trace=fsync,fdatasync -o " .. support.quote(trace),
    })
    assert.equal(0, r.status, r.err)
    local calls = {}
    for name in support.get(trace):gmatch("(f%a*sync)%(") do calls[#calls + 1] = name end
    assert.equal("fdatasync fsync fdatasync", table.concat(calls, " "))
  end)
end)

describe("a file as text", function()
  support.setup()

  both("is its path", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.equal(path, f:path())
    assert.equal("jdbfs.file (" .. path .. ")", tostring(f))
    f:close()
    assert.equal(path, f:path())
    assert.equal("jdbfs.file (" .. path .. ", closed)", tostring(f))
  end)
end)

describe("close", function()
  support.setup()

  both("returns true, also the second time", function()
    local f = assert(jdbfs.create(support.path()))
    assert.is_true(f:close())
    assert.is_true(f:close())
    assert.equal(0, #support.open_files(support.path("."):sub(1, -3)))
  end)

  support.task("lets the operations that run end first", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local data = pattern(64 * PAGE)
    local b = filled(data)
    local tasks = {}
    for i = 0, 63 do
      tasks[i] = jdbfs.spawn(function() return f:write_at(b, i * PAGE, i * PAGE, PAGE) end)
    end
    jdbfs.yield()
    assert.is_true(f:close())
    support.holds(path, data)
    for i = 0, 63 do assert.equal(PAGE, tasks[i]:join()) end
  end)

  support.task("called by many at once is true for all", function()
    local f = assert(jdbfs.create(support.path()))
    local tasks = {}
    for i = 1, 10 do tasks[i] = jdbfs.spawn(function() return f:close() end) end
    for i = 1, 10 do assert.is_true(tasks[i]:join()) end
  end)

  support.task("refuses what comes after it, even while it waits", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local b = support.page()
    local writer = jdbfs.spawn(function() return f:write_at(b, 0) end)
    local closer = jdbfs.spawn(function() return f:close() end)
    jdbfs.yield()
    fails({ kind = "Closed", op = "size", path = path }, f:size())
    assert.equal(PAGE, writer:join())
    assert.is_true(closer:join())
  end)

  it("is not needed: a collected file is closed", function()
    local where = support.path("."):sub(1, -3)
    assert(jdbfs.create(support.path()))
    assert.equal(1, #support.open_files(where))
    collectgarbage()
    collectgarbage()
    assert.equal(0, #support.open_files(where))
  end)

  both("happens at the end of a to-be-closed variable's scope", function()
    if _VERSION < "Lua 5.4" then return pending(_VERSION .. " has no to-be-closed variables") end
    local path = support.path()
    local f = assert(load([=[
      local jdbfs, path = ...
      local keep
      do
        local f <close> = assert(jdbfs.create(path))
        keep = f
      end
      return keep
    ]=]))(jdbfs, path)
    assert.equal(0, #support.open_files(support.path("."):sub(1, -3)))
    assert.equal("jdbfs.file (" .. path .. ", closed)", tostring(f))
    fails({ kind = "Closed", op = "size", path = path }, f:size())
    assert.is_true(f:close())
  end)
end)
