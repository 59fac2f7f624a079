-- Space: holes, reserved space, full disks and file size limits.
--
-- File systems of a few MiB are mounted by another process, in a mount namespace of its own:
-- nothing stays mounted, whatever happens to the test.

local support = require("support")
local lfs = support.lfs
local process = require("support_process")
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function filled(n, o)
  local path = support.path()
  local f = assert(jdbfs.create(path, o))
  local b = jdbfs.buffer(n * PAGE)
  b:fill(0x61)
  assert(f:write_at(b, 0))
  return f, path
end

-- btrfs accounts late; a sync settles it.
local function allocated(f)
  assert(f:sync_all())
  return f:stat().allocated
end

describe("punch", function()
  support.setup()

  both("makes a range read zeros and gives its space back", function()
    if support.on_wine then return pending("wine makes no holes") end
    local f, path = filled(64)
    local before = allocated(f)
    assert.is_true(f:punch(16 * PAGE, 32 * PAGE))
    assert.equal(64 * PAGE, f:size())
    -- tmpfs may keep huge pages, btrfs extents that are still partly in use.
    if support.fs() == "ext4" or support.fs() == "xfs" then
      assert.equal(before - 32 * PAGE, allocated(f))
    else
      assert(allocated(f) <= before)
    end
    assert.equal(PAGE, f:write_at(support.page(0x62), 20 * PAGE))
    f:close()
    support.holds(path, ("a"):rep(16 * PAGE) .. ("\0"):rep(4 * PAGE) .. ("b"):rep(PAGE) ..
      ("\0"):rep(27 * PAGE) .. ("a"):rep(16 * PAGE))
  end)

  both("takes any range, to the byte", function()
    if support.on_wine then return pending("wine makes no holes") end
    local f, path = filled(4)
    assert.is_true(f:punch(100, 1))
    assert.is_true(f:punch(PAGE - 1, PAGE + 2))
    f:close()
    local data = support.get(path)
    support.same(("a"):rep(100) .. "\0" .. ("a"):rep(PAGE - 102) .. ("\0"):rep(PAGE + 2) ..
      ("a"):rep(2 * PAGE - 1), data)
  end)

  both("never changes the size", function()
    if support.on_wine then return pending("wine makes no holes") end
    local f = filled(2)
    for _, range in ipairs({
      { 0, 0 }, { PAGE, 0 }, { 5 * PAGE, PAGE }, { PAGE, 2 ^ 40 }, { 2 ^ 40, 1 }, { 2 ^ 60, 0 },
    }) do
      assert.is_true(f:punch(range[1], range[2]))
      assert.equal(2 * PAGE, f:size())
    end
    assert.equal(("a"):rep(PAGE) .. ("\0"):rep(PAGE), f:read(0, 3 * PAGE))
    f:close()
  end)

  both("refuses numbers that are none", function()
    local f, path = filled(1)
    for _, n in ipairs(support.numbers()) do
      fails({ kind = "Overflow", op = "punch", path = path, says = { "offset", n[3] } },
        f:punch(n[2], 1))
      fails({ kind = "Overflow", op = "punch", path = path, says = { "length", n[3] } },
        f:punch(0, n[2]))
    end
    fails({ kind = "Overflow", op = "punch", path = path, offset = 2 ^ 62, length = 2 ^ 62 },
      f:punch(2 ^ 62, 2 ^ 62))
    raises("number expected", f.punch, f)
    raises("number expected", f.punch, f, 0)
    raises("number expected", f.punch, f, "0", 1)
    raises("file expected", f.punch)
    f:close()
    fails({ kind = "Closed", op = "punch", path = path }, f:punch(0, 1))
    support.holds(path, ("a"):rep(PAGE))
  end)

  both("needs a file that was opened for writing", function()
    local f, path = filled(1)
    f:close()
    f = assert(jdbfs.open(path))
    fails({ kind = "Io", op = "punch", path = path, name = "EBADF", says = "read only" },
      f:punch(0, PAGE))
    f:close()
    support.holds(path, ("a"):rep(PAGE))
  end)
end)

describe("preallocate", function()
  support.setup()

  both("of nothing changes nothing, in each meaning", function()
    for _, size in ipairs({ 0, 1 }) do
      local f, path
      if size == 0 then f = assert(jdbfs.create(support.path())) else f, path = filled(size) end
      for _, how in ipairs({ "size", "keep_size", "zero" }) do
        assert.is_true(f:preallocate(0, how))
        assert.equal(size * PAGE, f:size())
      end
      f:close()
      if path then support.holds(path, ("a"):rep(PAGE)) end
    end
  end)

  local function extents(path)
    local _, out = support.sh("PATH=$PATH:/usr/sbin:/sbin filefrag -v " .. support.quote(path))
    return out
  end

  both("means what it says: size, space, extents", function()
    if support.on_wine then return pending("wine reserves no space") end
    local LEN = 64 * PAGE
    for _, c in ipairs({
      { how = "size", size = LEN, unwritten = true }, { how = "zero", size = LEN },
      { how = "keep_size", size = PAGE, unwritten = true },
    }) do
      local f, path = filled(1)
      assert.is_true(f:preallocate(LEN, c.how))
      assert.equal(c.size, f:size())
      assert(allocated(f) >= LEN, c.how)
      if not support.lacks("filefrag") and (support.fs() == "ext4" or support.fs() == "xfs") then
        local out = extents(path)
        assert.equal(c.unwritten or false, out:find("unwritten") ~= nil, c.how .. "\n" .. out)
      end
      -- Written over, the space is as it was.
      local before = f:stat().allocated
      local b = jdbfs.buffer(63 * PAGE)
      b:fill(0x62)
      assert(f:write_at(b, PAGE))
      assert(f:sync_data())
      if support.fs() ~= "btrfs" then assert.equal(before, f:stat().allocated) end
      f:close()
      support.holds(path, ("a"):rep(PAGE) .. ("b"):rep(63 * PAGE))
    end
  end)

  both("in zeros of any length keeps what was reserved behind it", function()
    if support.on_wine then return pending("wine reserves no space") end
    if support.on_macos then return pending("a file that is cut to its length keeps none") end
    for _, size in ipairs({ 0, 100, PAGE }) do
      local f, path = filled(1)
      assert.is_true(f:truncate(size))
      assert.is_true(f:preallocate(64 * PAGE, "keep_size"))
      assert.is_true(f:preallocate(8 * PAGE + 1, "zero"))
      assert.equal(8 * PAGE + 1, f:size())
      assert(allocated(f) >= 64 * PAGE, size)
      f:close()
      support.holds(path, ("a"):rep(size) .. ("\0"):rep(8 * PAGE + 1 - size))
    end
  end)

  -- Zeros are written behind the end as it was: a write that came there first would be lost.
  it("in zeros takes nothing from writes of the same handle, before it and behind it", function()
    for _, first in ipairs({ "write", "preallocate" }) do
      local LEN = 4096 * PAGE
      local f = filled(1)
      local b = jdbfs.buffer(PAGE)
      b:fill(0x62)
      jdbfs.run(function()
        local calls = {
          preallocate = function() assert(f:preallocate(LEN, "zero")) end,
          write = function() assert(f:write_at(b, LEN - 2 * PAGE)) end,
        }
        jdbfs.spawn(calls[first])
        jdbfs.spawn(calls[first == "write" and "preallocate" or "write"])
      end)
      assert.equal(LEN, f:size())
      assert.equal(("b"):rep(PAGE), f:read(LEN - 2 * PAGE, PAGE), first .. " first")
      f:close()
    end
  end)

  it("that fails cuts off nothing that was written meanwhile", function()
    local prefix, why = process.strace("fallocate:error=ENOSPC:delay_enter=200000")
    if not prefix then return pending(why) end
    for _, how in ipairs({ "size", "keep_size", "zero" }) do
      local out = process.script([[
        local PAGE, how = jdbfs.PAGE_SIZE, arg[3]
        local f = assert(jdbfs.create(dir .. "/f"))
        local b = jdbfs.buffer(PAGE)
        b:fill(0x61)
        check("write", f:write_at(b, 0))
        jdbfs.run(function()
          local reserve = jdbfs.spawn(function() return f:preallocate(64 * PAGE, how) end)
          jdbfs.sleep(0.05)
          check("write", f:write_at(b, PAGE, 0, PAGE, "dsync"))
          local ok, message, err = reserve:join()
          check("fails", ok == nil and err.name == "ENOSPC", message)
        end)
        print(f:size() / PAGE, f:read(PAGE, PAGE) == ("a"):rep(PAGE))
      ]], { args = { how }, prefix = prefix })
      assert(out:find("^2%.?0?\ttrue"), how .. ": " .. out)
    end
  end)
end)

-- What a full file system does to each call. `mount` makes a small one at `point`, whose image
-- and mount point exist; what the script prints is the report.
local FULL = [==[
local point, mount, fs = arg[3], arg[4], arg[5]
check("mount", os.execute(mount))
local PAGE = jdbfs.PAGE_SIZE
local function buffer(n, byte)
  local b = jdbfs.buffer(n)
  b:fill(byte)
  return b
end
local page, large = buffer(PAGE, 0x62), buffer(1024 * 1024, 0x62)
local function sh(command) return os.execute("{ " .. command .. "; } >/dev/null 2>&1") end

-- All that is free goes to the file `full`; `left` KiB are given back.
local function fill(left)
  sh(("cd '%s' && rm -f full && off=0 && for s in 67108864 8388608 1048576 65536 4096; do " ..
    "while fallocate -o $off -l $s full; do off=$((off + s)); done; done; sync; " ..
    "while fallocate -o $off -l 4096 full; do off=$((off + 4096)); done; " ..
    "fallocate -p -o 0 -l $((%d * 1024)) full; sync"):format(point, left))
end

local reported, refused = {}, 0
-- The error says what happened; the file is not poisoned by it.
local function full(label, f, op, ok, message, err)
  check(label .. " did not fail", ok == nil, ok)
  check(label, err.kind == "Io" and err.name == "ENOSPC" and err.op == op, message)
  check(label .. " names no path", message:find(point, 1, true), message)
  if f then check(label .. " poisons", f:info().poisoned == false) end
  refused = refused + 1
  reported[#reported + 1] = label
  return err
end

-- On a full disk these may have room: then they have done it, else nothing.
local function either(label, op, done, ok, message, err)
  if ok then
    check(label .. " says that it is there", done())
  else
    full(label, nil, op, ok, message, err)
    check(label .. " left something", not done())
  end
end

local function names()
  local list = {}
  for name in require("lfs").dir(point) do
    if name ~= "." and name ~= ".." and name ~= "lost+found" then list[#list + 1] = name end
  end
  table.sort(list)
  return table.concat(list, " ")
end

local function whole()
  check("mkdir", jdbfs.mkdir(point .. "/d"))
  check("old", jdbfs.atomic_write(point .. "/old", ("o"):rep(10000)))
  -- What is acknowledged: 16 pages, durable.
  local f = assert(jdbfs.create(point .. "/f", {durable_create = true}))
  local wal = assert(jdbfs.open_wal(point .. "/wal"))
  local acknowledged = buffer(16 * PAGE, 0x61)
  check("write", f:write_at(acknowledged, 0, 0, 16 * PAGE, "dsync"))
  check("wal", wal:write_at(acknowledged, 0))
  local before = names()
  fill(0)

  local far = 64 * PAGE
  local err = full("plain write", f, "write_at", f:write_at(large, far))
  check("actual", err.actual and err.actual < #large and err.length == #large, err.message)
  for _, method in ipairs{"auto", "write", "flush"} do
    local g = assert(jdbfs.open_rw(point .. "/f", {durable_method = method}))
    full("dsync write, " .. method, g, "write_at", g:write_at(large, far, 0, #large, "dsync"))
    check("sync", g:sync_data())
    check("overwrite", g:write_at(page, 0, 0, PAGE, "dsync"))
    check("back", g:write_at(acknowledged, 0, 0, PAGE, "dsync"))
    g:close()
  end
  full("write of a durable handle", wal, "write_at", wal:write_at(large, far))
  check("it writes on", wal:write_at(acknowledged, 0))
  for _, flags in ipairs{"", "dsync"} do
    err = full("list " .. flags, f, "write_many",
      f:write_many({{acknowledged, 0}, {large, far}, {acknowledged, 0}}, flags))
    check("index", err.index == 2, err.message)
  end
  for _, how in ipairs{"size", "keep_size", "zero"} do
    local size = f:size()
    full("preallocate " .. how, f, "preallocate", f:preallocate(400 * 1024 * 1024, how))
    check("size after " .. how, f:size() == size, f:size())
  end
  -- A larger size needs no space.
  local size = f:size()
  check("truncate up", f:truncate(size + 1024 * 1024))
  check("truncate back", f:truncate(16 * PAGE))
  either("create", "create", function() return jdbfs.exists(point .. "/new") end,
    jdbfs.create(point .. "/new"))
  os.remove(point .. "/new")
  either("mkdir", "mkdir", function() return jdbfs.exists(point .. "/d/a") end,
    jdbfs.mkdir(point .. "/d/a", {durable = true}))
  full("atomic_write", nil, "atomic_write", jdbfs.atomic_write(point .. "/old", large))
  full("atomic_write of a new name", nil, "atomic_write",
    jdbfs.atomic_write(point .. "/fresh", large))
  check("a name is left", (names():gsub("full ", "")) == before, names())

  -- The file is usable: what was acknowledged is there, and with room everything works again.
  check("sync", f:sync_all())
  check("data", f:read(0, 16 * PAGE) == ("a"):rep(16 * PAGE))
  check("old content", io.open(point .. "/old", "rb"):read("*a") == ("o"):rep(10000))
  os.remove(point .. "/full")
  check("write", f:write_at(large, far, 0, #large, "dsync"))
  check("list", f:write_many({{large, far}}, "dsync"))
  check("preallocate", f:preallocate(2 * 1024 * 1024, "zero"))
  check("atomic_write", jdbfs.atomic_write(point .. "/old", large))
  check("close", f:close())
  check("close", wal:close())
end

-- With a little room a write gets as far as it can and tells how far: that much is there.
local function partly()
  local f = assert(jdbfs.create(point .. "/g"))
  fill(96)
  local ok, message, err = f:write_at(large, 0, 0, #large, arg[6] ~= "" and arg[6] or nil)
  check("full", ok == nil and err.name == "ENOSPC", message)
  check("actual", err.actual >= 0 and err.actual < #large, message)
  check("size", f:size() >= err.actual, f:size())
  check("there", f:read(0, err.actual) == ("b"):rep(err.actual))
  check("sync", f:sync_data())
  os.remove(point .. "/full")
  check("write", f:write_at(large, 0, 0, #large, "dsync"))
  check("close", f:close())
end

jdbfs.run(whole)
whole()
partly()
print(refused)
]==]

describe("a full disk", function()
  support.setup()

  -- A command that mounts a small file system at `point`; nil, why.
  local function small(fs, point, options)
    local why = support.lacks("root", "unshare", "fallocate")
    if not why and fs ~= "tmpfs" then why = support.lacks("mkfs." .. fs, "truncate") end
    if why then return nil, why end
    lfs.mkdir(point)
    local at, image = support.quote(point), support.quote(point .. ".img")
    local mount = "mount -o loop " .. image .. " " .. at
    local make = "true"
    if fs == "tmpfs" then
      mount = "mount -t tmpfs -o " .. (options or "size=8m") .. " none " .. at
    elseif fs == "ext4" then
      make = "truncate -s 16M " .. image .. " && mkfs.ext4 -q -F -m 0 " .. (options or "") .. image
    else -- xfs makes none that is smaller
      make = "truncate -s 300M " .. image .. " && mkfs.xfs -q -f " .. (options or "") .. image
    end
    if support.sh("PATH=$PATH:/usr/sbin:/sbin; " .. make) ~= 0 or
      support.sh("unshare -m " .. mount) ~= 0 then
      return nil, fs .. " cannot be mounted here"
    end
    return mount
  end

  for _, fs in ipairs({ "ext4", "xfs", "tmpfs" }) do
    it("is told by every call, and leaves files usable: " .. fs, function()
      local point = support.path("point")
      local mount, why = small(fs, point)
      if not mount then return pending(why) end
      local out = process.script(FULL, { args = { point, mount, fs, "" }, prefix = "unshare -m" })
      -- Twelve that cannot have room, in a task and outside of one.
      assert(tonumber(out) >= 24, "only " .. out .. " calls failed")
    end)
  end

  -- Free space in single blocks: the list of them needs blocks as well, so what seems to fit fails
  -- half-way.
  it("gets back what a failed preallocation took, and only that", function()
    local point = support.path("point")
    local mount, why = small("ext4", point)
    if not mount then return pending(why) end
    local out = process.script([==[
      local point, mount = arg[3], arg[4]
      check("mount", os.execute(mount))
      local PAGE, page = jdbfs.PAGE_SIZE, jdbfs.buffer(jdbfs.PAGE_SIZE)
      local f = check("create", jdbfs.create(point .. "/f"))
      local reserved = check("create", jdbfs.create(point .. "/reserved"))
      check("write", f:write_at(page, 0) and reserved:write_at(page, 0))
      check("reserve", reserved:preallocate(64 * PAGE, "keep_size"))
      local full, size = assert(jdbfs.open_rw(point .. "/full")), 0
      for step = 10, 0, -1 do
        while full:preallocate(size + 2 ^ step * PAGE) do size = size + 2 ^ step * PAGE end
      end
      for i = 0, 1199 do check("punch", full:punch(2 * i * PAGE, PAGE)) end
      os.execute("sync")
      local before, free = f:stat().allocated, jdbfs.space(point)
      check("room", free >= 1000 * PAGE, free)
      for _, how in ipairs({ "size", "keep_size", "zero" }) do
        local ok, message, err = f:preallocate(free, how)
        check(how, ok == nil and err.name == "ENOSPC", message)
        check("size after " .. how, f:size() == PAGE, f:size())
        -- The first block of the list stays.
        check("space after " .. how, f:stat().allocated <= before + PAGE, f:stat().allocated)
      end
      check("too much", not reserved:preallocate(free + 64 * PAGE, "keep_size"))
      check("reserved before", reserved:stat().allocated >= 64 * PAGE)
      print("done")
    ]==], { args = { point, mount }, prefix = "unshare -m" })
    assert.equal("done\n", out)
  end)

  -- Without inodes nothing can be made.
  for fs, options in pairs({ ext4 = "-N 16 ", tmpfs = "size=8m,nr_inodes=8" }) do
    it("without inodes makes no name and no half of one: " .. fs, function()
      local point = support.path("point")
      local mount, why = small(fs, point, options)
      if not mount then return pending(why) end
      local out = process.script([==[
        local point, mount = arg[3], arg[4]
        check("mount", os.execute(mount))
        check("old", jdbfs.atomic_write(point .. "/old", "old"))
        local n = 0
        while true do
          local f, message, err = jdbfs.create(point .. "/" .. n, {durable_create = true})
          if not f then
            check("create", err.name == "ENOSPC" and err.op == "create", message)
            break
          end
          n = n + 1
          f:close()
        end
        local before = count(point)
        local function full(op, ok, message, err)
          check(op, ok == nil and err.kind == "Io" and err.name == "ENOSPC", message)
          check(op, err.op == op, err.op)
          check("left", count(point) == before)
        end
        full("open_rw", jdbfs.open_rw(point .. "/x"))
        full("open_wal", jdbfs.open_wal(point .. "/x"))
        full("mkdir", jdbfs.mkdir(point .. "/x"))
        full("mkdir", jdbfs.mkdir(point .. "/x/y/z", {durable = true}))
        full("atomic_write", jdbfs.atomic_write(point .. "/x", "new"))
        full("atomic_write", jdbfs.atomic_write(point .. "/old", "new"))
        check("old", io.open(point .. "/old"):read("*a") == "old")
        local probe = check("probe", jdbfs.probe(point))
        check("class", probe.durability.class)
        check("remove", jdbfs.remove(point .. "/0", {durable = true}))
        check("again", jdbfs.atomic_write(point .. "/old", "new"))
        check("new", io.open(point .. "/old"):read("*a") == "new")
        print("done")
      ]==], { args = { point, mount }, prefix = "unshare -m" })
      assert.equal("done\n", out)
    end)
  end
end)

describe("a limit on file sizes", function()
  support.setup()

  it("is EFBIG, with what was written before it", function()
    local why = support.lacks("prlimit")
    if why then return pending(why) end
    local limit = 3 * PAGE
    local out = process.script([==[
      local PAGE = jdbfs.PAGE_SIZE
      local four = jdbfs.buffer(4 * PAGE)
      four:fill(0x61)
      local function big(label, op, actual, f, ok, message, err)
        check(label .. " did not fail", ok == nil, ok)
        check(label, err.kind == "Io" and err.name == "EFBIG" and err.op == op, message)
        check(label .. ": " .. tostring(err.actual) .. " written", err.actual == actual, message)
        check(label .. " poisons", not f or f:info().poisoned == false)
        return err
      end
      local function all()
        for _, o in ipairs{ {}, {dsync = true}, {durable_method = "write"},
                            {durable_method = "flush"}, {direct = "off"} } do
          local f = assert(jdbfs.create(dir .. "/f", o))
          for _, flags in ipairs{"", "dsync"} do
            check("empty", f:truncate(0))
            local err = big("write", "write_at", 3 * PAGE, f,
              f:write_at(four, 0, 0, 4 * PAGE, flags))
            check("length", err.length == 4 * PAGE and err.offset == 0, err.message)
            check("size", f:size() == 3 * PAGE)
            check("data", f:read(0, 4 * PAGE) == ("a"):rep(3 * PAGE))
            big("at the limit", "write_at", 0, f, f:write_at(four, 3 * PAGE, 0, PAGE, flags))
            err = big("list", "write_many", PAGE, f,
              f:write_many({{four, 0, 0, PAGE}, {four, 2 * PAGE, 0, 2 * PAGE}}, flags))
            check("index", err.index == 2, err.message)
          end
          for _, how in ipairs{"size", "zero"} do
            big(how, "preallocate", nil, f, f:preallocate(8 * PAGE, how))
            check("size", f:size() == 3 * PAGE)
          end
          big("truncate", "truncate", nil, f, f:truncate(3 * PAGE + 1))
          check("size", f:size() == 3 * PAGE)
          check("sync", f:sync_all())
          check("overwrite", f:write_at(four, 0, 0, 3 * PAGE, "dsync"))
          check("close", f:close())
        end
        check("old", jdbfs.atomic_write(dir .. "/old", "old"))
        local before = count(dir)
        big("atomic_write", "atomic_write", nil, nil, jdbfs.atomic_write(dir .. "/old", four))
        big("atomic_write", "atomic_write", nil, nil, jdbfs.atomic_write(dir .. "/new", four))
        check("left", count(dir) == before)
        check("old", io.open(dir .. "/old"):read("*a") == "old")
      end
      jdbfs.run(all)
      all()
      print("done")
    ]==], { prefix = ([[sh -c "trap '' XFSZ; exec prlimit --fsize=%d \"\$@\"" sh]]):format(limit) })
    assert.equal("done\n", out)
  end)
end)
