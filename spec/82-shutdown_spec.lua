-- A disk that is slow when a process ends, closes a file, gives up or is killed: what was handed
-- over is whole, and nobody gets the file while a write is on its way.

local jdbfs = require("jdbfs")
local process = require("support_process")
local support = require("support")
local with_disk = require("support_disk").with_disk
local PREPARED = require("support_disk").PREPARED

describe("a slow disk", function()
  process.setup()

  local SLOW = PREPARED .. [[
    local f = assert(jdbfs.open_rw(path))
    control("delay write 300000\ndelay flush 300000")
    local before = jdbfs.now()
    local function writes(how)
      local tasks = {}
      for i = 1, 4 do
        local b = jdbfs.buffer(PAGE)
        b:fill(0x61 + i)
        tasks[i] = jdbfs.spawn(function() return f:write_at(b, i * PAGE, 0, PAGE, how) end)
      end
      return tasks
    end
    local _ = { before, writes }
  ]]

  local closes = not process.is_51 and [[os.exit(0, true)]] or [[os.exit(0)]]

  -- Five ends of a process whose writes are on their way; JDBFS_SHUTDOWNS: how often each, on
  -- whatever Lua. Where the state is closed, they are waited for; else each may be done or not, but
  -- is done whole.
  for name, ending in pairs({
    ["the end of the script"] = { "", closed = true },
    ["an error"] = { [[error("boom")]], closed = true, status = 1 },
    ["os.exit that closes the state"] = { closes, closed = not process.is_51 },
    ["os.exit"] = { [[os.exit(0)]] },
    ["collection, then os.exit"] = { [[f = nil; collect(); collect(); os.exit(0)]] },
  }) do
    it("at " .. name .. " leaves what was handed over whole", function()
      return with_disk("ext4", function(disk)
        local page = jdbfs.PAGE_SIZE
        local times = tonumber(os.getenv("JDBFS_SHUTDOWNS") or 1)
        for _ = 1, times do
          disk.control("clear")
          disk.script(PREPARED .. "make():close()")
          local _, r = disk.script(SLOW .. [[
            writes()
            jdbfs.step()
            jdbfs.flush()
          ]] .. ending[1], { loose = true })
          assert.equal(ending.status or 0, r.status, r.err)
          if not ending.status then assert.equal("", r.err) end
          local f = assert(jdbfs.open(disk.point .. "/f"))
          -- What the kernel had goes on without the process, for as long as the disk is slow.
          if not ending.closed then support.sh("sleep 0.7") end
          for i = 0, 63 do
            local data = assert(f:read(i * page, page))
            local new = string.char(0x61 + i):rep(page)
            local is_new = i >= 1 and i <= 4 and data == new
            if not is_new then support.same(("a"):rep(page), data) end
            if ending.closed and i >= 1 and i <= 4 then assert(is_new, i .. " is old") end
          end
          assert(f:close())
        end
        support.figures(("shutdowns on a slow disk, 64 pages compared each: %d, at %s"):format(
          times, name))
      end)
    end)
  end

  it("holds the end of a state up to the limit that was set, and takes nobody's memory", function()
    local helper, why = process.states()
    if not helper then return pending(why) end
    return with_disk("ext4", function(disk)
      local out = disk.script(PREPARED .. [[
        make():close()
        local states = assert(package.loadlib(arg[6], "luaopen_states"))()
        control("delay read 4000000")
        local before = jdbfs.now()
        local in_flight = states.each(1, ([=[
          local jdbfs = require("jdbfs")
          assert(jdbfs.setup { close_limit = 0.3 })
          local f = assert(jdbfs.open(%q))
          for i = 1, 2 do
            jdbfs.spawn(function() f:read_at(jdbfs.buffer(8 * 4096), i * 8 * 4096) end)
          end
          jdbfs.step()
          jdbfs.flush()
          return jdbfs.stats().in_flight
        ]=]):format(path))[1]
        local took = jdbfs.now() - before
        check("in flight", tonumber(in_flight) == 2, in_flight)
        check("limit", took >= 0.3 and took < 3, took)
        -- The disk answers: into memory that nobody else has got.
        local buffers = {}
        for i = 1, 200 do
          buffers[i] = jdbfs.buffer(8 * 4096)
          buffers[i]:fill(0x7a)
        end
        control("clear")
        jdbfs.sleep(5)
        for i = 1, 200 do check("memory", buffers[i]:string() == ("z"):rep(8 * 4096), i) end
        check("goes on", states.each(1, ([=[
          local jdbfs = require("jdbfs")
          return assert(assert(jdbfs.open(%q)):read(0, 1))
        ]=]):format(path))[1] == "a")
        print("done")
      ]], { args = { helper } })
      assert.equal("done\n", out)
    end)
  end)

  it("makes close wait for writes and flushes, and a timeout let go of them", function()
    return with_disk("ext4", function(disk)
      local out = disk.script(PREPARED .. "make():close()" .. SLOW .. [[
        jdbfs.run(function()
          local ok, _, err = jdbfs.timeout(0.05, f.sync_data, f)
          check("timeout", ok == nil and err.kind == "Timeout", err)
          check("at once", jdbfs.stats().abandoned == 1)
          local tasks = writes("dsync")
          jdbfs.yield()
          check("close", f:close())
          for i = 1, 4 do check("written", tasks[i]:join() == PAGE) end
          check("waited", jdbfs.now() - before > 0.5, jdbfs.now() - before)
        end)
        f = assert(jdbfs.open(path))
        check("data", f:read(4 * PAGE, 1) == "e")
        print("done")
      ]])
      assert.equal("done\n", out)
    end)
  end)

  it("keeps the lock of a killed process until its writes are over, and no longer", function()
    return with_disk("ext4", function(disk)
      disk.script(PREPARED .. "make():close()")
      local path = disk.point .. "/f"
      support.put(support.path("victim.lua"), ([[
        local jdbfs = require("jdbfs")
        local f = assert(jdbfs.open_rw(%q, { lock = "exclusive" }))
        local c = assert(io.open(%q, "w"))
        c:write("delay write 700000")
        c:close()
        local b = jdbfs.buffer(4096)
        b:fill(0x7a)
        f:write_at(b, 0)
        require("os").execute("sleep 10")
      ]]):format(path, disk.fuse .. "/control"))
      -- Killed after half a second, in the background.
      support.sh(("(LUA_PATH=%s LUA_CPATH=%s timeout -s KILL 0.5 %s %s) >/dev/null 2>&1 &"):format(
        support.quote(package.path), support.quote(package.cpath),
        support.quote(support.interpreter()), support.quote(support.path("victim.lua"))))
      support.sh("sleep 0.4")
      local locked
      local before = jdbfs.now()
      while not locked and jdbfs.now() - before < 5 do
        local f, message, err = jdbfs.open_rw(path, { lock = "exclusive" })
        locked = f
        if not f then
          assert(err.kind == "Busy", message)
          support.sh("sleep 0.02")
        end
      end
      assert(locked, "the lock stayed")
      -- The write ended before the lock did: nobody writes now.
      local first = locked:read(0, 4096)
      assert(first == ("z"):rep(4096) or first == ("a"):rep(4096))
      support.sh("sleep 0.3")
      assert(locked:read(0, 4096) == first, "written after the lock was free")
      assert(locked:close())
    end)
  end)
end)
