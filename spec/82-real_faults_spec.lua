-- Faults that are real: a disk that fails below the file system, file systems that can only be
-- read, no descriptor left, stopped processes, clocks that jump. (Slow disks: 82-shutdown; full
-- disks and RLIMIT_FSIZE: 26; refused io_uring, locked memory: 52; throttled reads: 50; injected
-- errors: 24.)

local jdbfs = require("jdbfs")
local lfs = require("lfs")
local process = require("support_process")
local support = require("support")
local with_disk = require("support_disk").with_disk
local PREPARED = require("support_disk").PREPARED

describe("a disk whose reads fail", function()
  process.setup()

  for _, fs in ipairs({ "ext4", "xfs" }) do
    it("gives EIO for those bytes, and nothing else suffers: " .. fs, function()
      return with_disk(fs, function(disk)
        disk.script(PREPARED .. "make():close()")
        local _, from, to = disk.range(disk.point .. "/f")
        local middle = math.floor((from + to) / 2 / 4096) * 4096
        local out = disk.script(PREPARED .. [[
          local fault = "fail read EIO " .. arg[6]
          local EIO = { kind = "Io", name = "EIO", path = path }
          for _, o in ipairs({ {}, { direct = "off" } }) do
            local f = assert(jdbfs.open(path, o))
            local function all()
              control(fault)
              EIO.op = "read_at"
              local err = failed("read_at", EIO, f:read_at(big, 0))
              check("actual", err.offset == 0 and err.length == size, err.message)
              check("actual", (err.actual or 0) <= 32 * PAGE, err.message)
              EIO.op = "read"
              failed("read", EIO, f:read(32 * PAGE, 10))
              EIO.op = "read_many"
              local a, b = big:slice(0, PAGE), big:slice(PAGE, PAGE)
              err = failed("read_many", EIO, f:read_many({ { a, 31 * PAGE }, { b, 32 * PAGE } }))
              check("index", err.index == 2, err.message)
              -- The page cache reads in folios: those beside the fault may suffer with it.
              check("others", f:read_at(page, o.direct == "off" and PAGE or 33 * PAGE))
              control("clear")
              check("clear", f:read_at(big, 0) == size)
              check("data", big:string() == ("a"):rep(size))
              check("not poisoned", f:info().poisoned == false)
            end
            -- The page cache is filled by the first round that works.
            jdbfs.run(all)
            if o.direct ~= "off" then all() end
            check("close", f:close())
          end
          print("done")
        ]], { args = { ("from=%d to=%d"):format(middle, middle + 4096) } })
        assert.equal("done\n", out)
        assert(disk.check())
      end)
    end)
  end
end)

describe("a disk whose writes fail", function()
  process.setup()

  for _, fs in ipairs({ "ext4", "xfs", "btrfs" }) do
    it("poisons by a durable write, and a retry is no success: " .. fs, function()
      return with_disk(fs, function(disk)
        disk.script(PREPARED .. "make():close()")
        local range = fs == "btrfs" and "" or disk.range(disk.point .. "/f")
        local out = disk.script(PREPARED .. [[
          local range = arg[6]
          for _, o in ipairs({ { dsync = true }, { durable_method = "write" },
                               { durable_method = "flush" } }) do
            local f = assert(jdbfs.open_rw(path, o))
            control("fail write EIO " .. range)
            local err = failed("durable", { kind = "Io", name = "EIO", op = "write_at", path = path,
              offset = 5 * PAGE, length = PAGE }, f:write_at(page, 5 * PAGE, 0, PAGE, "dsync"))
            check("poisoned", f:info().poisoned, err.message)
            control("clear")
            -- The disk works again, and still nobody may believe it.
            local writes, flushes = met("write"), met("flush")
            failed("sync_data", { kind = "Poisoned" }, f:sync_data())
            failed("sync_all", { kind = "Poisoned" }, f:sync_all())
            failed("again", { kind = "Poisoned" }, f:write_at(page, 5 * PAGE, 0, PAGE, "dsync"))
            check("retried", met("write") == writes and met("flush") == flushes)
            check("close", f:close())
            f = jdbfs.open_rw(path, o)
            -- A btrfs may have come to its end, as its own writes failed.
            if not f then print("over") os.exit(0) end
            local ok, message = f:write_at(page, 5 * PAGE, 0, PAGE, "dsync")
            if not ok and range == "" then print("over") os.exit(0) end
            check("reopened", ok, message)
            check("data", f:read(5 * PAGE, PAGE) == ("b"):rep(PAGE))
            check("close", f:close())
          end
          -- A plain write promises nothing; it is told, and that is all.
          local f = assert(jdbfs.open_rw(path))
          control("fail write EIO " .. range)
          failed("plain", { kind = "Io", name = "EIO", op = "write_at" }, f:write_at(page, 0))
          check("not poisoned", f:info().poisoned == false)
          control("clear")
          check("plain", f:write_at(page, 0))
          check("sync", f:sync_all())
          check("close", f:close())
          print("done")
        ]], { args = { range } })
        if fs == "btrfs" then assert(out == "done\n" or out == "over\n", out)
        else assert.equal("done\n", out) end
        disk.control("clear")
        assert(disk.check())
      end)
    end)
  end

  it("is told by the sync when the page cache wrote later, and the second sync says so too",
    function()
      return with_disk("ext4", function(disk)
        disk.script(PREPARED .. "make():close()")
        local out = disk.script(PREPARED .. [[
          for _, call in ipairs({ "sync_data", "sync_all" }) do
            local f = assert(jdbfs.open_rw(path, { direct = "off" }))
            check("cached", f:write_at(page, 7 * PAGE))
            control("fail write EIO " .. arg[6])
            failed(call, { kind = "Io", name = "EIO", op = call, path = path }, f[call](f))
            control("clear")
            failed("again", { kind = "Poisoned", op = call }, f[call](f))
            check("close", f:close())
          end
          print("done")
        ]], { args = { (disk.range(disk.point .. "/f")) } })
        assert.equal("done\n", out)
        assert(disk.check())
      end)
    end)

  it("leaves atomic_write with the old content, and no temporary file", function()
    return with_disk("ext4", function(disk)
      local out = disk.script([[
        local path = point .. "/x"
        check("old", jdbfs.atomic_write(path, ("old"):rep(5000)))
        local data = ("new"):rep(5000)
        local n = 0
        -- The first write of the call that is let through, the second, ...
        for skip = 0, 0 do
          control("fail write EIO count=1 skip=" .. skip)
          failed("write", { kind = "Io", name = "EIO", op = "atomic_write", path = path },
            jdbfs.atomic_write(path, data))
          control("clear")
          check("entries", count(point) == 2, count(point)) -- lost+found and the file
          check("old", io.open(path):read("*a") == ("old"):rep(5000))
          n = n + 1
        end
        check("again", jdbfs.atomic_write(path, data))
        check("new", io.open(path):read("*a") == data)
        print(n)
      ]])
      assert.equal("1\n", out)
      assert(disk.check())
    end)
  end)
end)

describe("a disk whose flushes fail", function()
  process.setup()

  it("fails all who wait for that flush; none of them, and no later one, is told a success: ext4",
    function()
      return with_disk("ext4", function(disk)
        disk.script(PREPARED .. "make():close()")
        local out = disk.script(PREPARED .. [[
          local f = assert(jdbfs.open_rw(path, { durable_method = "flush" }))
          for i = 0, 7 do check("write", f:write_at(page, i * PAGE)) end
          control("delay flush 200000\nfail flush EIO count=1")
          local before = met("flush")
          jdbfs.run(function()
            local tasks = {}
            for i = 1, 8 do tasks[i] = jdbfs.spawn(function() return f:sync_data() end) end
            jdbfs.sleep(0.05)
            tasks[9] = jdbfs.spawn(function() return f:sync_all() end)
            tasks[10] = jdbfs.spawn(function() return f:write_at(page, 0, 0, PAGE, "dsync") end)
            for i = 1, 10 do
              local ok, message, err = tasks[i]:join()
              check("no success", ok == nil, i, ok)
              if i <= 8 then check("EIO", err.name == "EIO" and err.kind == "Io", message)
              else check("after", err.kind == "Poisoned" or err.name == "EIO", message) end
            end
          end)
          control("clear")
          failed("later", { kind = "Poisoned" }, f:sync_data())
          check("close", f:close())
          -- A new handle asks the disk anew. One flush for the eight, at most one for the write;
          -- on a slow machine the journal's timer (5 s) adds its own.
          f = assert(jdbfs.open_rw(path))
          check("flushes", met("flush") - before <= 4, met("flush") - before)
          check("reopened", f:write_at(page, 0, 0, PAGE, "dsync"))
          check("reopened", f:sync_all())
          check("close", f:close())
          print("done")
        ]])
        assert.equal("done\n", out)
        assert(disk.check())
      end)
    end)

  it("ends an XFS, and every call says so", function()
    return with_disk("xfs", function(disk)
      disk.script(PREPARED .. "make():close()")
      local out = disk.script(PREPARED .. [[
        local f = assert(jdbfs.open_rw(path))
        check("write", f:write_at(page, 0))
        control("fail flush EIO count=1")
        local ok, message, err = f:sync_all()
        check("sync_all", ok == nil and err.name == "EIO", message)
        control("clear")
        failed("again", { kind = "Poisoned" }, f:sync_all())
        check("close", f:close())
        local g
        g, message, err = jdbfs.open_rw(path)
        if g then
          ok, message, err = g:write_at(page, 0, 0, PAGE, "dsync")
          check("shut down, or well again", ok or err.name == "EIO", message)
          g:close()
        else
          check("EIO", err.name == "EIO" and err.op == "open_rw", message)
        end
        print("done")
      ]])
      assert.equal("done\n", out)
      assert(disk.remount())
      assert.equal(64 * jdbfs.PAGE_SIZE, #support.get(disk.point .. "/f"))
      assert(disk.check())
    end)
  end)

  it("fails durable names and atomic_write, and a restart finds old or new, whole", function()
    return with_disk("ext4", function(disk)
      disk.script([[
        check("old", jdbfs.atomic_write(point .. "/x", ("old"):rep(5000)))
        check("from", jdbfs.atomic_write(point .. "/from", "from"))
        check("dir", jdbfs.mkdir(point .. "/d", { durable = true }))
      ]])
      for _, case in ipairs({
        { "atomic_write", [[jdbfs.atomic_write(point .. "/x", ("new"):rep(5000))]] },
        { "mkdir", [[jdbfs.mkdir(point .. "/d/e", { durable = true })]] },
        { "rename", [[jdbfs.rename(point .. "/from", point .. "/d/to", { durable = true })]] },
        { "remove", [[jdbfs.remove(point .. "/from", { durable = true })]] },
        { "create", [[jdbfs.create(point .. "/new", { durable_create = true })]] },
      }) do
        local out = disk.script(([[
          control("fail flush EIO")
          local ok, message, err = %s
          check("no success", ok == nil, ok)
          check("told", err.op == "%s" and (err.name == "EIO" or err.name == "EROFS"), message)
          print("done")
        ]]):format(case[2], case[1]))
        assert.equal("done\n", out)
        disk.control("clear")
        assert(disk.check())
        assert(disk.remount())
        local x = support.get(disk.point .. "/x")
        assert(x == ("old"):rep(5000) or x == ("new"):rep(5000), "neither old nor new")
        local from, to = support.get(disk.point .. "/from"), support.get(disk.point .. "/d/to")
        if case[1] ~= "remove" then assert(from == "from" or to == "from") end
        support.sh("rm -f " .. support.quote(disk.point .. "/d/to") .. "; printf from >" ..
          support.quote(disk.point .. "/from"))
      end
    end)
  end)

  it("loses no acknowledged record of a log", function()
    return with_disk("ext4", function(disk)
      local out = disk.script([[
        local small = { segment_size = 1048576 }
        local log = assert(jdbfs.log(point .. "/log", small))
        local last = 0
        jdbfs.run(function()
          for task = 1, 4 do
            jdbfs.spawn(function()
              for i = 1, 50 do
                if task == 1 and i == 20 then control("fail flush EIO count=1") end
                local number, message, err = log:append("record " .. task .. " " .. i)
                if not number then
                  check("told", err.name == "EIO" or err.kind == "Poisoned", message)
                  return
                end
                last = math.max(last, number)
              end
            end)
          end
        end)
        local ok, message, err = log:append("later")
        check("poisoned", ok == nil and err.kind == "Poisoned", message)
        log:close()
        control("clear")
        log = assert(jdbfs.log(point .. "/log", small))
        check("all there", log:recovery().last >= last, log:recovery().last, last)
        check("goes on", log:append("more"))
        check("close", log:close())
        print(last)
      ]])
      assert(tonumber(out) >= 40 and tonumber(out) < 200, out)
    end)
  end)
end)

-- JDBFS_KERNEL_FAULTS: how many; JDBFS_TEST_SEED: the seed.
describe("a disk that fails now and then", function()
  process.setup()

  it("is told by each operation that it hit, by no other, and a model knows the data", function()
    return with_disk("ext4", function(disk)
      disk.script(PREPARED .. "make():close()")
      local range = disk.range(disk.point .. "/f")
      local faults = tonumber(os.getenv("JDBFS_KERNEL_FAULTS") or "") or 30
      local first = tonumber(os.getenv("JDBFS_TEST_SEED") or "") or os.time() % 100000
      local source = PREPARED .. [==[
        local range, wanted, seed = arg[6], tonumber(arg[7]), tonumber(arg[8])
        math.randomseed(seed)
        local random = math.random
        local f = assert(jdbfs.open_rw(path))
        local holds = {} -- by page: the bytes that it may be made of
        for i = 0, 63 do holds[i] = { [f:read(i * PAGE, 1):byte()] = true } end
        local counts = { write = 0, read = 0, operations = 0 }

        -- Whether the disk failed the call, which must then have said so, and only then.
        local function told(label, want, direction, call)
          local fault = random(2) == 1
          local _, before = met(direction)
          if fault then control(("fail %s EIO count=1 %s"):format(direction, range)) end
          local ok, message, err = call()
          control("clear")
          local _, after = met(direction)
          counts.operations = counts.operations + 1
          counts[direction] = counts[direction] + after - before
          if after == before then
            check(label .. ", seed " .. seed, ok, message)
            return false
          end
          want.name, want.kind, want.path = "EIO", "Io", path
          failed(label .. ", seed " .. seed, want, ok, message, err)
          return true
        end

        local function write(page, pages, flags)
          local value = random(255)
          local b = jdbfs.buffer(pages * PAGE)
          b:fill(value)
          local want = { op = "write_at", offset = page * PAGE, length = pages * PAGE }
          local lost = told("write_at", want, "write", function()
            return f:write_at(b, page * PAGE, 0, pages * PAGE, flags)
          end)
          for i = page, page + pages - 1 do
            if not lost then holds[i] = {} end
            holds[i][value] = true
          end
          check("poisoned", f:info().poisoned == (lost and flags == "dsync"))
          if lost and flags then
            failed("then", { kind = "Poisoned" }, f:sync_data())
            check("close", f:close())
            f = assert(jdbfs.open_rw(path))
          end
        end

        local function read(page, pages)
          local b = jdbfs.buffer(pages * PAGE)
          local want = { op = "read_at", offset = page * PAGE, length = pages * PAGE }
          if told("read_at", want, "read", function() return f:read_at(b, page * PAGE) end) then
            return
          end
          for i = 0, pages - 1 do
            local value = b:u8(i * PAGE)
            check("data, seed " .. seed, holds[page + i][value], page + i, value)
            check("whole", b:string(i * PAGE, PAGE) == string.char(value):rep(PAGE), page + i)
          end
        end

        local function one()
          local page, pages = random(0, 60), random(4)
          if random(2) == 1 then read(page, pages)
          else write(page, pages, random(2) == 1 and "dsync" or nil) end
        end

        jdbfs.run(function()
          while counts.write + counts.read < wanted do one() end
        end)
        while counts.write + counts.read < wanted + 5 do one() end
        check("close", f:close())
        print(counts.operations, counts.write, counts.read)
      ]==]
      local sum = { 0, 0, 0 }
      for seed = first, first + math.ceil(faults / 100) - 1 do
        local out = disk.script(source, { args = { range, math.min(faults, 100), seed } })
        local operations, writes, reads = out:match("^(%d+)\t(%d+)\t(%d+)\n$")
        for i, n in ipairs { operations, writes, reads } do sum[i] = sum[i] + tonumber(n) end
      end
      assert.is_true(sum[2] + sum[3] >= faults)
      local text = "faults of the kernel, seed %d: %d operations, %d writes and %d reads failed"
      support.figures(text:format(first, sum[1], sum[2], sum[3]))
      assert(disk.check())
    end)
  end)
end)

describe("a disk that runs out of room below the file system", function()
  process.setup()

  it("is told as ENOSPC, and what may be lost is in doubt", function()
    return with_disk("ext4", function(disk)
      disk.script(PREPARED .. "make():close()")
      local out = disk.script(PREPARED .. [[
        local f = assert(jdbfs.open_rw(path, { direct = "off" }))
        check("cached", f:write_at(page, 7 * PAGE))
        control("fail write ENOSPC " .. arg[6])
        failed("sync_all", { kind = "Io", name = "ENOSPC" }, f:sync_all())
        control("clear")
        failed("again", { kind = "Poisoned" }, f:sync_all())
        check("close", f:close())
        print("done")
      ]], { args = { (disk.range(disk.point .. "/f")) } })
      assert.equal("done\n", out)
    end)
  end)
end)

describe("a file system that can only be read", function()
  process.setup()

  local EXPECT = [==[
    local function refused(op, ok, message, err)
      check(op .. " was done", ok == nil, ok)
      check(op, err.kind == "Io" and err.name == "EROFS" and err.op == op, message)
    end
    local function all()
      local x, new = point .. "/x", point .. "/new"
      local durable = { durable = true }
      for _, open in ipairs({ "create", "open_rw", "open_wal" }) do
        refused(open, jdbfs[open](x))
        refused(open, jdbfs[open](new))
        refused(open, jdbfs[open](new, { durable_create = true }))
      end
      refused("mkdir", jdbfs.mkdir(new))
      refused("mkdir", jdbfs.mkdir(new .. "/a/b", durable))
      refused("rename", jdbfs.rename(x, new))
      refused("rename", jdbfs.rename(x, new, durable))
      refused("rename", jdbfs.rename(x, new, { noreplace = true }))
      refused("remove", jdbfs.remove(x))
      refused("remove", jdbfs.remove(x, durable))
      refused("atomic_write", jdbfs.atomic_write(x, "other"))
      refused("atomic_write", jdbfs.atomic_write(new, "other"))
      local log, message, err = jdbfs.log(point .. "/log")
      check("log", log == nil and err.name == "EROFS", message)
      -- What changes nothing is done.
      check("mkdir of what is there", jdbfs.mkdir(point .. "/d", durable))
      check("exists", jdbfs.exists(x) and not jdbfs.exists(new))
      check("size", jdbfs.size(x) == 5)
      check("ls", jdbfs.ls(point)[1] == "x")
      check("probe", jdbfs.probe(point))
      check("sync_dir", jdbfs.sync_dir(point))
      local f = check("open", jdbfs.open(x, { lock = "shared" }))
      check("read", f:read(0, 10) == "hello")
      check("info", f:info())
      check("close", f:close())
    end
    jdbfs.run(all)
    all()
    print("done")
  ]==]

  for _, fs in ipairs({ "ext4", "xfs", "btrfs" }) do
    it("is told by every call that would change it: " .. fs, function()
      return with_disk(fs, function(disk)
        support.put(disk.point .. "/x", "hello")
        lfs.mkdir(disk.point .. "/d")
        assert(disk.remount("ro"))
        assert.equal("done\n", disk.script(EXPECT))
        support.holds(disk.point .. "/x", "hello")
      end)
    end)
  end

  it("from one moment to the next fails open files, and none is told a success", function()
    return with_disk("ext4", function(disk)
      disk.script(PREPARED .. "make():close()")
      -- As specs beside this one may do: such a copy kept the file system, and with it the old
      -- options, under which an error is no end.
      support.sh("unshare -m --propagation private sleep 1 >/dev/null 2>&1 & sleep 0.3")
      assert(disk.remount("errors=remount-ro"))
      local trigger = "/sys/fs/ext4/" .. disk.device:match("[^/]+$") .. "/trigger_fs_error"
      if not lfs.attributes(trigger) then return pending("this ext4 cannot be told to fail") end
      local out = disk.script(PREPARED .. [[
        local plain, wal = assert(jdbfs.open_rw(path)), assert(jdbfs.open_wal(path))
        local flush = assert(jdbfs.open_rw(path, { durable_method = "flush" }))
        check("before", wal:write_at(page, 0))
        check("before", plain:write_at(page, PAGE))
        local c = assert(io.open(arg[6], "w"))
        c:setvbuf("no")
        assert(c:write("1"))
        assert(c:close())
        local function fails(label, ok, message, err)
          check(label .. " was done", ok == nil, ok)
          check(label, err.name == "EROFS" or err.name == "EIO" or err.kind == "Poisoned", message)
        end
        fails("wal", wal:write_at(page, 0))
        fails("again", wal:write_at(page, 0))
        fails("flush", flush:write_at(page, 0, 0, PAGE, "dsync"))
        fails("preallocate", plain:preallocate(2 * size))
        fails("truncate", plain:truncate(10))
        fails("atomic_write", jdbfs.atomic_write(point .. "/x", "new"))
        local text, message, err = plain:read(0, PAGE) -- Linux 6.12 fails reads as well
        check("read", text == ("b"):rep(PAGE) or not text and err.name == "EIO", message)
        check("size", plain:size() == size)
        for _, f in ipairs({ plain, wal, flush }) do f:close() end
        print("done")
      ]], { args = { trigger } })
      assert.equal("done\n", out)
    end)
  end)
end)

describe("out of descriptors", function()
  process.setup()

  local EXHAUST = [==[
    local hold = {}
    local function exhaust()
      while true do
        local f = io.open("/dev/null")
        if not f then break end
        hold[#hold + 1] = f
      end
    end
    local function give_back()
      while #hold > 0 do table.remove(hold):close() end
    end
    local function refused(op, ok, message, err)
      check(op .. " was done", ok == nil, ok)
      check(op, err.name == "EMFILE", message)
    end
    local _ = { exhaust, give_back, refused }
  ]==]

  local function limited(source)
    local why = support.lacks("prlimit")
    if why then return pending(why) end
    local out = process.script(EXHAUST .. source, { prefix = "prlimit --nofile=48" })
    assert.equal("done\n", out)
  end

  it("open files go on, calls that need one say so, and nothing is left behind", function()
    return limited([==[
      local PAGE = jdbfs.PAGE_SIZE
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      local b = jdbfs.buffer(PAGE)
      check("start", f:write_at(b, 0))
      check("mkdir", jdbfs.mkdir(dir .. "/d"))
      local entries = count(dir)
      local function all()
        for _, open in ipairs({ "open", "create", "open_rw", "open_wal" }) do
          refused(open, jdbfs[open](dir .. "/f"))
        end
        refused("create", jdbfs.create(dir .. "/new"))
        refused("ls", jdbfs.ls(dir))
        refused("sync_dir", jdbfs.sync_dir(dir))
        refused("mkdir", jdbfs.mkdir(dir .. "/d", { durable = true }))
        refused("atomic_write", jdbfs.atomic_write(dir .. "/f", "other"))
        refused("atomic_write", jdbfs.atomic_write(dir .. "/new", "other"))
        refused("log", jdbfs.log(dir .. "/d"))
        check("write", f:write_at(b, PAGE) and f:write_at(b, 0, 0, PAGE, "dsync"))
        check("read", f:read_at(b, 0) and f:read(1, 5))
        check("sync", f:sync_data() and f:sync_all())
        check("size", f:size() == 2 * PAGE and f:stat().size == 2 * PAGE)
        check("info", f:info().durability.class)
        check("lock", f:lock("exclusive") and f:unlock())
        check("exists", jdbfs.exists(dir .. "/f"))
        check("rename", jdbfs.rename(dir .. "/f", dir .. "/g") and
          jdbfs.rename(dir .. "/g", dir .. "/f"))
        check("mkdir", jdbfs.mkdir(dir .. "/d"))
      end
      exhaust()
      jdbfs.run(all)
      all()
      give_back()
      check("left", count(dir) == entries, count(dir))
      check("f", jdbfs.size(dir .. "/f") == 2 * PAGE)
      check("well", jdbfs.atomic_write(dir .. "/f", "other"))
      local log = check("well", jdbfs.log(dir .. "/log", { direct = "prefer" }))
      check("well", log:append("x") and log:close())
      print("done")
    ]==])
  end)

  it("before the first use, the queue is told to be missing, and made later", function()
    return limited([==[
      exhaust()
      for _ = 1, 3 do
        local ok, message, err = jdbfs.open(dir .. "/f")
        check("open", ok == nil and err.name == "EMFILE", message)
        ok, message, err = jdbfs.run(function() end)
        check("run", ok == nil and err.name == "EMFILE", message)
      end
      -- Enough for the queue's own, with what it falls back to, step by step.
      for _ = 1, 20 do
        if jdbfs.exists(dir) then break end
        table.remove(hold):close()
      end
      check("made", jdbfs.exists(dir))
      give_back()
      local f = check("well", jdbfs.create(dir .. "/f", { direct = "prefer" }))
      check("well", f:write_at(jdbfs.buffer(4096), 0) and f:sync_all() and f:close())
      print("done")
    ]==])
  end)
end)

describe("a process that is stopped and goes on", function()
  process.setup()

  it("loses nothing, and its sleeps and timeouts end", function()
    local marker = support.path("marker")
    -- Six times stopped; the script ends after the last.
    local prefix = ([[sh -c 'me=$$; (for i in 1 2 3 4 5 6; do sleep 0.15; kill -STOP $me; ]] ..
      [[sleep 0.1; kill -CONT $me; done; : >%s) >/dev/null 2>&1 & exec "$@"' sh]]):format(marker)
    local out = process.script([[
      local PAGE, marker = jdbfs.PAGE_SIZE, arg[3]
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      local rounds, over = 0, false
      jdbfs.run(function()
        for task = 0, 7 do
          jdbfs.spawn(function()
            local b, n = jdbfs.buffer(PAGE), 0
            while not over do
              n = n % 255 + 1
              b:fill(n)
              check("write", f:write_at(b, task * PAGE, 0, PAGE, n % 16 == 0 and "dsync" or ""))
              check("read", f:read_at(b, task * PAGE))
              check("own data", b:u8(0) == n and b:u8(PAGE - 1) == n)
              rounds = rounds + 1
            end
          end)
        end
        jdbfs.spawn(function()
          while not over do
            local ok, _, err = jdbfs.timeout(0.01, jdbfs.sleep, 10)
            check("timeout", ok == nil and err.kind == "Timeout", ok)
          end
        end)
        while not over do
          local before = jdbfs.now()
          jdbfs.sleep(0.02)
          check("slept", jdbfs.now() - before >= 0.02 and jdbfs.now() - before < 5)
          over = check("exists", jdbfs.exists(marker) ~= nil) and jdbfs.exists(marker)
        end
      end)
      check("worked", rounds > 50, rounds)
      check("close", f:close())
      print("done")
    ]], { args = { marker }, prefix = prefix })
    assert.equal("done\n", out)
  end)
end)

describe("a clock of the day that jumps", function()
  process.setup()

  it("changes no sleep, no timeout and no wait", function()
    local library, why = process.clock_jump()
    if not library then return pending(why) end
    if (os.getenv("JDBFS_TEST_SAN") or "") ~= "" then return pending("a library is preloaded") end
    local out = process.script([[
      local a, b = os.time(), os.time()
      check("it jumps", math.abs(a - b) > 1000000)
      local function took(least, most, f, ...)
        local before = jdbfs.now()
        f(...)
        local seconds = jdbfs.now() - before
        check("time", seconds >= least and seconds < most, seconds)
      end
      took(0.05, 2, jdbfs.sleep, 0.05)
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      jdbfs.run(function()
        took(0.05, 2, jdbfs.sleep, 0.05)
        took(0.05, 2, jdbfs.timeout, 0.05, jdbfs.sleep, 1000)
        took(0, 2, jdbfs.timeout, 1000, f.size, f)
        local event = jdbfs.event()
        jdbfs.spawn(function() jdbfs.sleep(0.05) event:set() end)
        took(0.05, 2, event.wait, event)
        for i = 0, 31 do
          jdbfs.spawn(function() check("write", f:write_at(jdbfs.buffer(4096), i * 4096)) end)
        end
      end)
      check("sync", f:sync_all() and f:close())
      check("atomic_write", jdbfs.atomic_write(dir .. "/x", "x"))
      print("done")
    ]], { prefix = "env LD_PRELOAD=" .. support.quote(library) })
    assert.equal("done\n", out)
  end)
end)

describe("io_uring that is forbidden while a queue is in use", function()
  process.setup()

  it("goes on in that queue; the next state takes threads", function()
    if os.getenv("JDBFS_TEST_SYSCTL") ~= "1" then
      return pending("changes a setting of the whole machine: set JDBFS_TEST_SYSCTL=1")
    end
    local forker, why = process.forker()
    why = why or support.lacks("root")
    if why then return pending(why) end
    local name = "/proc/sys/kernel/io_uring_disabled"
    local before = support.get(name)
    if not before then return pending("this kernel has no kernel.io_uring_disabled") end
    local ok, out = pcall(process.script, [[
      if jdbfs.info().backend ~= "io_uring" then print("done") os.exit(0) end
      local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
      local function work()
        for i = 0, 15 do
          jdbfs.spawn(function() check("write", f:write_at(jdbfs.buffer(4096), i * 4096)) end)
        end
      end
      jdbfs.run(work)
      local c = check("sysctl", io.open(arg[3], "w"))
      c:write("2")
      c:close()
      jdbfs.run(work)
      check("sync", f:sync_all())
      check("backend", jdbfs.info().backend == "io_uring")
      check("next", forker.state("assert(require('jdbfs').info().backend == 'threads')"))
      print("done")
    ]], { args = { name }, forker = forker, env = { JDBFS_BACKEND = "auto" } })
    support.sh("echo " .. before:match("%d+") .. " > " .. name)
    assert.is_true(ok, out)
    assert.equal("done\n", out)
  end)
end)
