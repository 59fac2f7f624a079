-- What is asked or done in a second way when the system refuses the first.

local process = require "support_process"
local support = require "support"
local support_faults = require "support_faults"

local jdbfs, fails, under = support.jdbfs, support.fails, support_faults.under

local function q(text) return support.quote(text) end

-- A file system of its own that a script mounts, in a mount namespace; nil, why.
local function mount(fs, size)
  local why = support.lacks("root", "unshare", "truncate", "mkfs." .. fs)
  if why then return nil, why end
  local image, point = support.path("image"), support.path("point")
  local made = ("mkdir %s && truncate -s %s %s && PATH=$PATH:/usr/sbin:/sbin mkfs.%s -q %s"):format(
    q(point), size, q(image), fs, q(image))
  local command = ("mount -o loop %s %s"):format(q(image), q(point))
  if support.sh(made) ~= 0 or support.sh("unshare -m " .. command) ~= 0 then
    return nil, fs .. " cannot be mounted here"
  end
  return command, point
end

describe("the alignment of a file", function()
  process.setup()

  for fs, o in pairs {
    xfs = { size = "300M", source = "XFS_IOC_DIOINFO" },
    ext4 = { size = "16M", source = "logical block size of the disk" },
  } do
    it("is asked in other ways where statx does not tell: " .. fs, function()
      local command, point = mount(fs, o.size)
      if not command then return pending(point) end
      local out = process.script([[
        check("mount", os.execute(arg[3]))
        local point, device = arg[4], nil
        for line in io.lines("/proc/self/mounts") do
          local from, at = line:match("^(%S+) (%S+)")
          if at == point then device = from end
        end
        local f = assert(jdbfs.create(point .. "/f"))
        local info = f:info()
        check("a power of two", 4096 % info.write_alignment == 0, info.write_alignment)
        local b = jdbfs.buffer(4096, 4096)
        check("write", f:write_at(b, 0, 0, info.write_alignment) == info.write_alignment)
        check("close", f:close())
        local d = assert(jdbfs.open(device, { device = true }))
        check("read", d:read_at(b, 0, 0, d:info().read_alignment) == d:info().read_alignment)
        check("probe", jdbfs.probe(device).alignment_source == "BLKSSZGET")
        print(info.alignment_source)
        print(d:info().alignment_source)
        check("close", d:close())
      ]], { args = { command, point }, prefix = "unshare -m",
            env = { JDBFS_FAULTS = "sys.syscall:errno=ENOSYS:ever",
                    JDBFS_BACKEND = os.getenv("JDBFS_BACKEND") } })
      assert.are.equal(o.source .. "\nBLKSSZGET\n", out)
    end)
  end

  it("of a device whose size cannot be asked does not matter: size and stat tell", function()
    local command, point = mount("ext4", "16M")
    if not command then return pending(point) end
    local out = process.script([[
      check("mount", os.execute(arg[3]))
      local device
      for line in io.lines("/proc/self/mounts") do
        local from, at = line:match("^(%S+) (%S+)")
        if at == arg[4] then device = from end
      end
      local faults = assert(package.loadlib(arg[5], "luaopen_jdbfs_faults"))()
      local d = assert(jdbfs.open(device, { device = true }))
      check("size", d:size() == 16 * 1024 * 1024 and d:stat().size == d:size())
      for _, call in ipairs { "size", "stat" } do
        faults.plan("sys.ioctl:errno=EIO")
        local value, message, err = d[call](d)
        check(call, value == nil and err.name == "EIO" and err.op == call, message)
      end
      faults.plan()
      check("close", d:close())
      print("ok")
    ]], { args = { command, point, support_faults.module }, prefix = "unshare -m" })
    assert.are.equal("ok\n", out)
  end)
end)

describe("a name", function()
  support.setup()

  it("that mkdir finds taken is looked at: only a directory will do", function()
    local dir, file = support.path("d"), support.path("f")
    assert(jdbfs.mkdir(dir))
    support.put(file, "x")
    for _, name in ipairs { "EEXIST", "EISDIR", "EROFS", "EACCES" } do
      assert.is_true(under("sys.mkdir:errno=" .. name, jdbfs.mkdir, dir))
      fails({ name = name == "EEXIST" and "ENOTDIR" or name, op = "mkdir", path = file },
        under("sys.mkdir:errno=" .. name, jdbfs.mkdir, file))
      fails({ name = name, op = "mkdir" },
        under("sys.mkdir:errno=" .. name, jdbfs.mkdir, support.path("none")))
    end
    fails({ name = "EIO", op = "mkdir" }, under("sys.mkdir:errno=EIO", jdbfs.mkdir, dir))
  end)

  it("that comes or goes while it is opened is opened or made all the same", function()
    local path = support.path("f")
    support.put(path, "x")
    local f = assert(under("sys.open:errno=ENOENT", jdbfs.open_rw, path, { direct = "off" }))
    assert.are.equal(1, f:size())
    assert(f:close())
    f = assert(under("sys.open:nth=2:errno=EEXIST", jdbfs.open_rw, support.path("g"),
      { direct = "off" }))
    assert.are.equal(0, f:size())
    assert(f:close())
  end)

  it("beside another is given up when there is always one already", function()
    local path = support.path("f")
    support.put(path, "old")
    fails({ name = "EEXIST", op = "atomic_write", path = path },
      under("sys.openat:errno=EEXIST:ever", jdbfs.atomic_write, path, "new"))
    assert.are.equal(100, support_faults.injected)
    support.holds(path, "old")
  end)

  it("that nothing can be opened at cannot be probed", function()
    fails({ name = "EMFILE", op = "probe" }, under("sys.open:errno=EMFILE:ever", jdbfs.probe,
      support.path(".")))
  end)
end)

describe("a file", function()
  support.setup()

  it("is written whole by atomic_write, however the writes are cut", function()
    local path, text = support.path("f"), ("0123456789"):rep(7)
    for bytes = 1, 9, 4 do
      assert(under(("sys.write:short=%d:count=5"):format(bytes), jdbfs.atomic_write, path, text))
      assert.are.equal(5, support_faults.injected)
      support.holds(path, text)
    end
    fails({ name = "EIO", op = "atomic_write" },
      under("sys.write:errno=EIO:when=after", jdbfs.atomic_write, path, "new"))
    support.holds(path, text)
  end)

  it("tells that the lock it had is lost, when another was refused and it cannot be had again",
    function()
      local f = assert(jdbfs.create(support.path("f"), { direct = "off", lock = "shared" }))
      local value, message, err = under("sys.flock:errno=EAGAIN:count=2", f.lock, f, "exclusive")
      fails({ kind = "Busy", op = "lock" }, value, message, err)
      assert.matches("the one held is lost", message, 1, true)
      assert.is_true(f:lock("shared"))
      assert(f:close())
    end)
end)

describe("a list longer than all slots", function()
  support.setup()

  it("is refused with the entry for which no memory can be had, and works when it can", function()
    local f = assert(jdbfs.create(support.path("f"), { direct = "off" }))
    assert(f:truncate(65536))
    for _, method in ipairs({ "write_many", "read_many" }) do
      for nth = 1, 2 do -- the table of slots, and the slots
        local slots = jdbfs.stats().slots
        local b, list = jdbfs.buffer(slots + 1), {}
        for i = 1, slots + 1 do list[i] = { b, i, i - 1, 1 } end
        local value, message, err = under(("alloc:nth=%d:errno=ENOMEM"):format(nth), f[method], f,
          list)
        assert.are.equal(1, support_faults.injected)
        fails({ kind = "Alloc", op = method, path = support.path("f") }, value, message, err)
        assert.are.equal(slots, err.index)
        b:fill(7) -- nothing is in flight
        assert.are.equal(slots, jdbfs.stats().slots)
        assert.are.equal(slots + 1, f[method](f, list))
      end
    end
    assert(f:close())
  end)
end)
