-- Faults that are real: a disk that fails below the file system, file systems that can only be
-- read, no descriptor left, slow disks, stopped processes, clocks that jump. (Full disks and
-- RLIMIT_FSIZE: 26; refused io_uring, locked memory: 52; throttled reads: 50; injected errors: 24.)

local jdbfs = require("jdbfs")
local process = require("support_process")
local support = require("support")
local with_disk = require("support_disk").with_disk

-- A file of 64 pages, all written and durable, on a disk that works.
local PREPARED = [[
  local path = point .. "/f"
  local size = 64 * PAGE
  local big = jdbfs.buffer(size)
  local function make(o)
    local f = assert(jdbfs.create(path, o))
    big:fill(0x61)
    check("prepare", f:write_at(big, 0))
    check("prepare", f:sync_all())
    check("prepare", jdbfs.sync_dir(point))
    return f
  end
  local page = jdbfs.buffer(PAGE)
  page:fill(0x62)
  local _ = { make, page, size, path }
]]

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
              check("others", f:read_at(page, 33 * PAGE) == PAGE)
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
          -- A new handle asks the disk anew. One flush for the eight, at most one for the write.
          f = assert(jdbfs.open_rw(path))
          check("flushes", met("flush") - before <= 2, met("flush") - before)
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
