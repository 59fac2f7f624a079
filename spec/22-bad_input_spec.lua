-- What bad input gets: the contract's error with operation, path and cause; the same verdict
-- inside and outside tasks, on every file system. Nothing is submitted for it, nothing changes.

local support = require("support")
local lfs = support.lfs
local jdbfs = support.jdbfs
local both, fails = support.both, support.fails
local PAGE = jdbfs.PAGE_SIZE

local OPENS = { "open", "create", "open_rw", "open_wal" }
local NAMES = { "exists", "mkdir", "ls", "size", "stat", "remove", "sync_dir", "space" }

local function made(data)
  local path = support.path()
  support.put(path, data or ("a"):rep(2 * PAGE))
  return path
end

-- The call on numbers that are no offset and no length; `name` is what the message calls them.
local function refuses_numbers(f, op, name, call)
  local before = jdbfs.stats().submitted
  for _, case in ipairs(support.numbers()) do
    fails({ kind = "Overflow", op = op, path = f:path(), errno = "none",
      says = { name .. " is", case[3] } }, call(case[2]))
  end
  assert.equal(before, jdbfs.stats().submitted)
end

-- Runs a script as a user who is not root; nil and why when that cannot be had.
local function as_nobody(source, ...)
  local why = support.lacks("root", "setpriv")
  if why then return nil, why end
  local prefix = "setpriv --reuid=65534 --regid=65534 --clear-groups"
  support.sh("chmod 755 " .. support.quote(support.path(".")))
  local probe = support.script("require('jdbfs') io.write('fine')", { prefix = prefix })
  if probe.out ~= "fine" then return nil, "another user cannot reach this directory" end
  return support.script(source, { prefix = prefix, args = { ... } })
end

describe("an offset that is none", function()
  support.setup()

  for _, method in ipairs({ "read_at", "read_upto", "write_at" }) do
    both("is refused by " .. method, function()
      local path = made()
      local f = assert(jdbfs.open_rw(path))
      local b = support.page(0x62)
      refuses_numbers(f, method, "offset", function(n) return f[method](f, b, n) end)
      refuses_numbers(f, method, "offset", function(n) return f[method](f, b, n, 0, 0) end)
      support.same(("b"):rep(PAGE), b:string())
      f:close()
      support.holds(path, ("a"):rep(2 * PAGE))
    end)

    both("is refused by " .. method .. " as a buffer offset and as a length", function()
      local path = made()
      local f = assert(jdbfs.open_rw(path))
      local b = support.page(0x62)
      refuses_numbers(f, method, "buffer offset", function(n) return f[method](f, b, 0, n) end)
      refuses_numbers(f, method, "length", function(n) return f[method](f, b, 0, 0, n) end)
      support.same(("b"):rep(PAGE), b:string())
      f:close()
      support.holds(path, ("a"):rep(2 * PAGE))
    end)

    both("is refused by " .. method .. " when the end would lie beyond 2^63-1", function()
      local path = made()
      local f = assert(jdbfs.open_rw(path))
      local b = jdbfs.buffer(2 * PAGE)
      fails({ kind = "Overflow", op = method, path = path, says = "beyond 2^63-1" },
        f[method](f, b, 2 ^ 63 - PAGE))
      fails({ kind = "Overflow", op = method, path = path }, f[method](f, b, 2 ^ 63 - 2 * PAGE))
      if math.maxinteger then
        fails({ kind = "Overflow", op = method, path = path }, f[method](f, b, math.maxinteger))
        fails({ kind = "Overflow", op = method, path = path },
          f[method](f, b, math.maxinteger - PAGE + 1))
      end
      f:close()
      support.holds(path, ("a"):rep(2 * PAGE))
    end)

    both("is not what " .. method .. " takes 2^53 for", function()
      if support.on_wine and method == "write_at" then
        return pending("wine has no error of its own for a file too large")
      end
      local f = assert(jdbfs.open_rw(made()))
      local n, message, err = f[method](f, support.page(), 2 ^ 53)
      if method == "read_at" then
        fails({ kind = "ShortRead", actual = 0, offset = 2 ^ 53 }, n, message, err)
      elseif method == "read_upto" then
        assert.equal(0, n)
      else
        assert.is_true(n == PAGE or err.name == "EFBIG", message)
      end
      f:close()
    end)
  end

  both("is refused by read, truncate and preallocate", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path))
    refuses_numbers(f, "read", "offset", function(n) return f:read(n, 1) end)
    refuses_numbers(f, "read", "length", function(n) return f:read(0, n) end)
    refuses_numbers(f, "truncate", "length", function(n) return f:truncate(n) end)
    refuses_numbers(f, "preallocate", "length", function(n) return f:preallocate(n) end)
    for _, how in ipairs({ "size", "keep_size", "zero" }) do
      refuses_numbers(f, "preallocate", "length", function(n) return f:preallocate(n, how) end)
    end
    fails({ kind = "Overflow", op = "read", path = path, says = "beyond 2^63-1" },
      f:read(2 ^ 62, 2 ^ 62))
    f:close()
    support.holds(path, ("a"):rep(2 * PAGE))
  end)
end)

describe("a range outside the buffer", function()
  support.setup()

  both("is refused by every transfer", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path))
    local b = support.page(0x62)
    for _, method in ipairs({ "read_at", "read_upto", "write_at" }) do
      for _, range in ipairs({
        { 0, 2 * PAGE }, { PAGE, PAGE }, { PAGE + 1 }, { 2 * PAGE }, { 2 * PAGE, 0 }, { 512, PAGE },
        { 2 ^ 62, 0 }, { 0, 2 ^ 62 }, { 2 ^ 62, 2 ^ 62 }, { 2 ^ 53 },
      }) do
        fails({ kind = "Overflow", op = method, path = path, errno = "none", says = "buffer" },
          f[method](f, b, 0, range[1], range[2]))
      end
      -- A slice ends where it ends, though the memory goes on.
      fails({ kind = "Overflow", op = method, path = path },
        f[method](f, jdbfs.buffer(4 * PAGE):slice(0, PAGE), 0, 0, 2 * PAGE))
    end
    support.same(("b"):rep(PAGE), b:string())
    f:close()
    support.holds(path, ("a"):rep(2 * PAGE))
  end)
end)

describe("a NUL in a path", function()
  support.setup()

  both("is refused by every call that takes a path", function()
    local good = made()
    local bad = good .. "\0.txt"
    for _, name in ipairs(OPENS) do
      fails({ kind = "Io", op = name, says = "NUL" }, jdbfs[name](bad))
      fails({ kind = "Io", op = name, says = "NUL" }, jdbfs[name](good .. "\0"))
      fails({ kind = "Io", op = name, says = "NUL" }, jdbfs[name]("\0"))
    end
    for _, name in ipairs(NAMES) do
      fails({ kind = "Io", op = name, says = "NUL" }, jdbfs[name](bad))
    end
    fails({ kind = "Io", op = "rename", says = "NUL" }, jdbfs.rename(bad, good .. "2"))
    fails({ kind = "Io", op = "rename", says = "NUL" }, jdbfs.rename(good, good .. "2\0"))
    support.holds(good, ("a"):rep(2 * PAGE))
    assert.is_nil(lfs.attributes(good .. "2"))
  end)
end)

describe("an empty path", function()
  support.setup()

  both("names nothing", function()
    for _, name in ipairs(OPENS) do
      fails({ kind = "Io", op = name, path = "", name = "ENOENT" }, jdbfs[name](""))
    end
    for _, name in ipairs(NAMES) do
      if name ~= "exists" then
        fails({ kind = "Io", op = name, path = "", name = "ENOENT" }, jdbfs[name](""))
      end
    end
    local path = made()
    fails({ kind = "Io", op = "rename", path = "", name = "ENOENT" }, jdbfs.rename("", path))
    fails({ kind = "Io", op = "rename", path = path, name = "ENOENT" }, jdbfs.rename(path, ""))
    assert.is_false(jdbfs.exists(""))
  end)
end)

describe("a directory", function()
  support.setup()

  both("is not opened as a file, with or without direct I/O", function()
    local dir = support.path("dir")
    lfs.mkdir(dir)
    for _, name in ipairs(OPENS) do
      for _, direct in ipairs({ "require", "prefer", "off" }) do
        fails({ kind = "Io", op = name, path = dir, name = "EISDIR" },
          jdbfs[name](dir, { direct = direct }))
      end
    end
    fails({ kind = "Io", op = "open", name = "EISDIR" }, jdbfs.open(dir, { device = true }))
    assert.equal(0, #support.open_files(support.path("."):sub(1, -3)))
  end)
end)

describe("a missing parent", function()
  support.setup()

  both("fails every call but mkdir, and nothing is made", function()
    local dir = support.path("missing")
    local path = dir .. "/file"
    for _, name in ipairs(OPENS) do
      fails({ kind = "Io", op = name, path = path, name = "ENOENT", errno = 2 },
        jdbfs[name](path))
    end
    for _, name in ipairs({ "ls", "size", "stat", "remove", "sync_dir", "space" }) do
      fails({ kind = "Io", op = name, path = path, name = "ENOENT" }, jdbfs[name](path))
    end
    local there = made()
    fails({ kind = "Io", op = "rename", path = there, name = "ENOENT" },
      jdbfs.rename(there, path))
    assert.is_nil(lfs.attributes(dir))
    assert.is_false(jdbfs.exists(path))
  end)

  both("that is a file fails too", function()
    local file = made()
    local path = file .. "/inside"
    for _, name in ipairs(OPENS) do
      fails({ kind = "Io", op = name, path = path, name = "ENOTDIR" }, jdbfs[name](path))
    end
    for _, name in ipairs({ "mkdir", "ls", "size", "stat", "remove", "sync_dir" }) do
      fails({ kind = "Io", op = name, path = path, name = "ENOTDIR" }, jdbfs[name](path))
    end
    assert.is_false(jdbfs.exists(path))
    fails({ kind = "Io", name = "ENOTDIR" }, jdbfs.open(file .. "/"))
  end)
end)

describe("a read-only handle", function()
  support.setup()

  both("refuses to change the file", function()
    local path = made()
    local f = assert(jdbfs.open(path))
    local before = jdbfs.stats().submitted
    local want = { kind = "Io", path = path, name = "EBADF", says = "read only" }
    want.op = "write_at"
    fails(want, f:write_at(support.page(), 0))
    fails(want, f:write_at(support.page(), 0, 0, 0))
    want.op = "truncate"
    fails(want, f:truncate(0))
    want.op = "preallocate"
    fails(want, f:preallocate(10 * PAGE))
    fails(want, f:preallocate(10 * PAGE, "keep_size"))
    fails(want, f:preallocate(10 * PAGE, "zero"))
    assert.equal(before, jdbfs.stats().submitted)
    assert.equal("a", f:read(0, 1))
    f:close()
    support.holds(path, ("a"):rep(2 * PAGE))
  end)
end)

describe("a file of another owner", function()
  support.setup()

  it("that may be read is opened: O_NOATIME is given up", function()
    local path = made()
    support.chmod("644", path)
    local r, why = as_nobody([[
      local jdbfs = require("jdbfs")
      local path = ...
      local function try()
        local f = assert(jdbfs.open(path))
        assert(f:info().direct)
        assert(f:read_at(jdbfs.buffer(jdbfs.PAGE_SIZE), 0))
        assert(f:close())
      end

      try()
      jdbfs.run(try)
      io.write("done")
    ]], path)
    if not r then return pending(why) end
    assert.equal("done", r.out, r.err)
  end)

  it("that may be written is opened for writing as well", function()
    local path = made()
    support.chmod("666", path)
    local r, why = as_nobody([[
      local jdbfs = require("jdbfs")
      for _, how in ipairs({ "open_rw", "open_wal", "create" }) do
        local f = assert(jdbfs[how]((...)))
        assert(f:write_at(jdbfs.buffer(jdbfs.PAGE_SIZE), 0))
        assert(f:close())
      end
      io.write("done")
    ]], path)
    if not r then return pending(why) end
    assert.equal("done", r.out, r.err)
    support.holds(path, ("\0"):rep(PAGE))
  end)

  it("that may not be read gives EACCES, also from exists behind a closed directory", function()
    local path, dir = made(), support.path("closed")
    lfs.mkdir(dir)
    support.put(dir .. "/inside", "x")
    support.chmod("600", path)
    support.chmod("700", dir)
    local r, why = as_nobody([[
      local jdbfs = require("jdbfs")
      local path, dir = ...
      local function denied(op, where, value, message, err)
        assert(value == nil and err.kind == "Io" and err.name == "EACCES", message)
        assert(err.op == op and err.path == where, message)
      end
      for _, how in ipairs({ "open", "open_rw", "open_wal", "create" }) do
        denied(how, path, jdbfs[how](path))
      end
      local inside = dir .. "/inside"
      for _, name in ipairs({ "exists", "size", "stat", "remove" }) do
        denied(name, inside, jdbfs[name](inside))
      end
      denied("ls", dir, jdbfs.ls(dir))
      denied("sync_dir", dir, jdbfs.sync_dir(dir))
      denied("mkdir", dir .. "/new", jdbfs.mkdir(dir .. "/new"))
      assert(jdbfs.exists(path) == true)
      io.write("done")
    ]], path, dir)
    if not r then return pending(why) end
    assert.equal("done", r.out, r.err)
  end)
end)

describe("a name", function()
  support.setup()

  both("of 255 bytes is fine everywhere", function()
    local path, other = support.path(("n"):rep(255)), support.path(("m"):rep(255))
    for _, name in ipairs({ "create", "open_rw", "open_wal", "open" }) do
      local f = assert(jdbfs[name](path))
      assert.is_true(f:close())
    end
    assert.is_true(jdbfs.exists(path))
    assert.equal(0, jdbfs.size(path))
    assert.is_true(jdbfs.rename(path, other))
    assert.same({ ("m"):rep(255) }, jdbfs.ls(support.path(".")))
    assert.is_true(jdbfs.remove(other))
    assert.is_true(jdbfs.mkdir(path))
  end)

  both("of 256 bytes is too long", function()
    local path = support.path(("n"):rep(256))
    local want = { kind = "Io", path = path, name = "ENAMETOOLONG" }
    for _, name in ipairs(OPENS) do
      want.op = name
      fails(want, jdbfs[name](path))
    end
    for _, name in ipairs({ "exists", "mkdir", "ls", "size", "stat", "remove", "sync_dir" }) do
      want.op = name
      fails(want, jdbfs[name](path))
    end
    want.op = "rename"
    fails(want, jdbfs.rename(path, support.path()))
    want.path = made()
    fails(want, jdbfs.rename(want.path, path))
  end)

  both("may hold any other byte", function()
    if support.on_windows then return pending("Windows keeps some characters for itself") end
    for _, name in ipairs({ " ", "a b", "new\nline", "\255\254", "caf\195\169", "'\"$`\\", "-rf",
      "%s%n" }) do
      local path = support.path(name)
      local f = assert(jdbfs.create(path))
      assert.equal(path, f:path())
      assert.equal(PAGE, f:write_at(support.page(), 0))
      f:close()
      assert.equal(PAGE, jdbfs.size(path))
      assert.same({ name }, jdbfs.ls(support.path(".")))
      assert.is_true(jdbfs.remove(path))
    end
  end)

  both("that is far too long is an error with the whole path in it", function()
    local path = support.path(("d/"):rep(support.on_windows and 40000 or 4000))
    local err = fails({ kind = "Io", op = "open", path = path, name = "ENAMETOOLONG" },
      jdbfs.open(path))
    assert.is_true(#err.message < 2000)
    fails({ kind = "Io", op = "stat", path = path, name = "ENAMETOOLONG" }, jdbfs.stat(path))
  end)
end)

describe("what is neither file nor device", function()
  support.setup()

  -- In a script, so that a hang is a failure and not the end of the tests.
  it("is refused: a FIFO does not hold anybody", function()
    local why = support.lacks("mkfifo")
    if why then return pending(why) end
    local fifo = support.path("fifo")
    support.sh("mkfifo " .. support.quote(fifo))
    local r = support.script([[
      local jdbfs = require("jdbfs")
      local fifo = ...
      local function try()
        for _, how in ipairs({ "open", "open_rw", "create", "open_wal" }) do
          for _, direct in ipairs({ "require", "prefer", "off" }) do
            local f, message, err = jdbfs[how](fifo, { direct = direct })
            assert(f == nil and err.kind == "Io" and err.op == how and err.path == fifo, message)
            assert(message:find("neither a regular file nor a block device", 1, true), message)
          end
        end
        assert(jdbfs.exists(fifo) == true)
        assert(jdbfs.stat(fifo).type == "other")
        assert(#jdbfs.ls(fifo:match("(.*)/")) == 1) -- this script, not the FIFO
      end
      local start = jdbfs.now()
      jdbfs.run(try)
      try()
      assert(jdbfs.now() - start < 20)
      io.write("done")
    ]], { args = { fifo } })
    assert.equal("done", r.out, r.err)
  end)

  both("is refused: a character device", function()
    if not lfs.attributes("/dev/null") then return pending("there is no /dev/null") end
    for _, name in ipairs({ "open", "open_rw" }) do
      for _, direct in ipairs({ "require", "prefer", "off" }) do
        local err = select(3, jdbfs[name]("/dev/null", { direct = direct }))
        assert.equal("/dev/null", err.path)
        assert.equal(name, err.op)
        assert.equal("Io", err.kind)
        assert.truthy(err.message:find("neither a regular file nor a block device", 1, true))
      end
    end
    fails({ kind = "Io", op = "open", path = "/dev/null", says = "block device" },
      jdbfs.open("/dev/null", { direct = "off", device = true }))
  end)

  both("is refused: a link to itself", function()
    local link = support.path("loop")
    support.link("loop", link)
    for _, name in ipairs(OPENS) do
      fails({ kind = "Io", op = name, path = link, name = "ELOOP" }, jdbfs[name](link))
    end
    fails({ kind = "Io", op = "exists", path = link, name = "ELOOP" }, jdbfs.exists(link))
  end)
end)

describe("a block device", function()
  support.setup()

  -- A loop device over a file of this test; detached at the end of the test.
  local function loop_device(size)
    local why = support.lacks("root", "losetup")
    if why then return nil, why end
    local image = support.path("image")
    support.put(image, ("\0"):rep(size))
    local status, out = support.sh("PATH=$PATH:/usr/sbin:/sbin losetup --find --show "
      .. support.quote(image))
    if status ~= 0 then return nil, "a loop device cannot be set up here" end
    local device = out:match("%S+")
    finally(function()
      support.sh("PATH=$PATH:/usr/sbin:/sbin losetup -d " .. support.quote(device))
    end)
    return device
  end

  both("is refused without option device, which the message names", function()
    local device, why = loop_device(16 * PAGE)
    if not device then return pending(why) end
    for _, name in ipairs(OPENS) do
      for _, direct in ipairs({ "require", "prefer", "off" }) do
        fails({ kind = "Io", op = name, path = device, says = "device = true" },
          jdbfs[name](device, { direct = direct }))
      end
    end
  end)

  both("opens with option device: size and alignment are the device's", function()
    local device, why = loop_device(16 * PAGE)
    if not device then return pending(why) end
    local f = assert(jdbfs.open_rw(device, { device = true, must_exist = true }))
    -- Not the file system of its node, which is memory.
    for _, info in ipairs({ assert(f:info()), assert(jdbfs.probe(device)) }) do
      assert.equal("block device", info.file_system)
      assert.is_nil(info.direct_reason:find("memory", 1, true))
    end
    assert.equal(16 * PAGE, f:size())
    local st = f:stat()
    assert.equal(16 * PAGE, st.size)
    assert.equal("block device", st.type)
    local i = f:info()
    assert.is_true(i.direct)
    assert.is_true(i.write_alignment >= 512 and PAGE % i.write_alignment == 0)
    local b = support.page(0x61)
    assert.equal(PAGE, f:write_at(b, 15 * PAGE))
    assert.is_true(f:sync_data())
    b:fill(0)
    assert.equal(PAGE, f:read_at(b, 15 * PAGE))
    support.same(("a"):rep(PAGE), b:string())
    assert.equal("\0a", f:read(15 * PAGE - 1, 2))
    fails({ kind = "Alignment", op = "read_at", path = device }, f:read_at(b, 1))
    fails({ kind = "ShortRead", op = "read_at", path = device, actual = 0 },
      f:read_at(b, 16 * PAGE))
    fails({ op = "write_at", path = device, name = "ENOSPC", actual = 0 },
      f:write_at(b, 16 * PAGE))
    f:close()
  end)

  both("is what option device asks for: a regular file is refused", function()
    local path = made()
    fails({ kind = "Io", op = "open", path = path, says = "not a block device" },
      jdbfs.open(path, { device = true }))
    fails({ kind = "Io", op = "open_rw", path = path, says = "not a block device" },
      jdbfs.open_rw(path, { device = true }))
    support.holds(path, ("a"):rep(2 * PAGE))
  end)

  both("is what option device asks for: create empties no regular file, and makes none", function()
    local path, new = made(), support.path()
    fails({ kind = "Io", op = "create", path = path, says = "not a block device" },
      jdbfs.create(path, { device = true }))
    support.holds(path, ("a"):rep(2 * PAGE))
    local f, message = jdbfs.create(new, { device = true })
    assert.is_nil(f)
    assert.truthy(message:find(new, 1, true))
    assert.is_nil(lfs.attributes(new))
  end)
end)

describe("a closed file", function()
  support.setup()

  both("answers every call with Closed", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path))
    local b = support.page(0x62)
    assert.is_true(f:close())
    local before = jdbfs.stats().submitted
    for _, call in ipairs({
      { "read_at", b, 0 }, { "read_upto", b, 0 }, { "write_at", b, 0 }, { "read", 0, 10 },
      { "read", 0, 0 }, { "read_at", b, 0, 0, 0 }, { "size" }, { "stat" }, { "info" },
      { "sync_data" }, { "sync_all" }, { "truncate", 0 }, { "preallocate", 10 * PAGE },
    }) do
      fails({ kind = "Closed", op = call[1], path = path, errno = "none", says = "closed" },
        f[call[1]](f, call[2], call[3], call[4], call[5]))
    end
    assert.equal(before, jdbfs.stats().submitted)
    support.same(("b"):rep(PAGE), b:string())
    support.holds(path, ("a"):rep(2 * PAGE))
  end)
end)

describe("a freed buffer", function()
  support.setup()

  both("is refused by every transfer", function()
    local path = made()
    local f = assert(jdbfs.open_rw(path))
    local b = support.page()
    b:free()
    for _, method in ipairs({ "read_at", "read_upto", "write_at" }) do
      fails({ kind = "Closed", op = method, path = path, errno = "none", says = "freed" },
        f[method](f, b, 0))
      fails({ kind = "Closed", op = method, path = path }, f[method](f, b, 0, 0, PAGE))
      fails({ kind = "Closed", op = method, path = path }, f[method](f, b, PAGE, 0, 0))
    end
    f:close()
    support.holds(path, ("a"):rep(2 * PAGE))
  end)
end)
