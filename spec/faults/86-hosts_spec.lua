-- What a host waits for, and the modes of the ring, when the system refuses what they need: told,
-- or done without; nothing leaks, and the next call works.

local process = require "support_process"
local support = require "support"
local support_faults = require "support_faults"

local jdbfs, under = support.jdbfs, support_faults.under
local backend = os.getenv("JDBFS_BACKEND")
local uring = jdbfs.info().backend == "io_uring"

-- A host's loop: `poll(seconds)`, and `drive()` until nothing is pending.
local HOST = [[
  local fd = assert(jdbfs.pollfd())
  local function poll(seconds) return forker.poll(fd, seconds) end
  local function drive()
    local turns = 0
    jdbfs.step()
    while jdbfs.pending() > 0 do
      check("the descriptor stays silent", poll(5))
      jdbfs.step()
      turns = turns + 1
    end
    return turns
  end
]]

-- Several tasks that write and read; ends by telling that all of it was right.
local WORK = [[
  local PAGE, sum = jdbfs.PAGE_SIZE, 0
  local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
  for round = 1, 3 do
    jdbfs.run(function()
      for i = 0, 15 do
        jdbfs.spawn(function()
          local b = jdbfs.buffer(PAGE)
          b:fill(i + round)
          check("write", f:write_at(b, i * PAGE))
          check("sync", i > 0 or f:sync_data())
          check("read", f:read(i * PAGE, PAGE) == b:string())
          check("stat", f:stat().size > 0)
          sum = sum + 1
        end)
      end
    end)
  end
  check("close", f:close())
  local s = jdbfs.stats()
  check("left", s.in_flight + s.waiting + s.abandoned + s.tasks == 0)
  print(sum, jdbfs.info().reason)
]]

local function script(plan, source, o)
  o = o or {}
  o.env = { JDBFS_FAULTS = plan, JDBFS_BACKEND = backend }
  return process.script(source, o)
end

describe("a descriptor for the host", function()
  process.setup()

  it("that cannot be made is told, and can be made later", function()
    local plans = { EMFILE = "sys.eventfd:errno=EMFILE", ENOMEM = "ring.eventfd:errno=ENOMEM" }
    if not uring then plans.ENOMEM = nil end
    for name, plan in pairs(plans) do
      local out = process.script([[
        local faults = assert(package.loadlib(arg[4], "luaopen_jdbfs_faults"))()
        jdbfs.exists(dir)
        local before = count("/proc/self/fd")
        faults.plan(arg[3])
        for _ = 1, 2 do
          local fd, message, err = jdbfs.pollfd()
          if fd then break end
          check("kind", err.op == "pollfd" and err.name, message)
          print(err.name)
        end
        faults.plan()
        check("nothing is left", count("/proc/self/fd") <= before + 1)
        check("later", jdbfs.pollfd() == jdbfs.pollfd())
        check("usable", jdbfs.exists(dir))
      ]], { args = { plan, support_faults.module } })
      assert.are.equal(name .. "\n", out)
    end
  end)

  -- The first look at the clock made it readable, once and too early, and nothing did later.
  it("is readable in time, though no thread could be started to watch the clock", function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    assert.are.equal("done\n", script("thread:errno=EAGAIN:ever", HOST .. [[
      local start, ended = jdbfs.now(), nil
      jdbfs.spawn(function()
        jdbfs.sleep(0.05)
        check("exists", jdbfs.exists(dir))
        jdbfs.sleep(0.05)
        ended = jdbfs.now()
      end)
      drive()
      check("in time", ended - start >= 0.1)
      print("done")
    ]], { forker = forker }))
  end)
end)

describe("a timer", function()
  support.setup()

  it("that has no memory is told by the wait; the others are kept", function()
    local told, slept = 0, 0
    under("alloc:errno=ENOMEM:count=3", jdbfs.run, function()
      for _ = 1, 400 do
        jdbfs.spawn(function()
          local ok, message = jdbfs.pcall(jdbfs.sleep, 0.01)
          assert(ok or tostring(message):find("out of memory for a timer", 1, true), message)
          if ok then slept = slept + 1 else told = told + 1 end
        end)
      end
    end)
    assert.are.same({ 3, 397 }, { told, slept })
  end)
end)

describe("a meter", function()
  support.setup()

  it("that has no memory for a name says so, and has it later", function()
    local m = require("jdbfs.core").meter()
    for nth = 1, 2 do
      under(("alloc:nth=%d:errno=ENOMEM"):format(nth), support.raises, "out of memory for \"name\"",
        m.track, m, "name")
      assert.are.equal(1, support_faults.injected)
    end
    assert.are.equal(m:track("name"), m:track("name"))
  end)
end)

describe("a ring", function()
  process.setup()

  local function about(name, body)
    it(name, function()
      if not uring then return pending("about io_uring alone") end
      body()
    end)
  end

  about("whose own descriptor cannot be registered works without", function()
    assert.are.equal("48\tforced by JDBFS_BACKEND; io_uring works here\nfalse\n",
      script("sys.syscall:errno=EINVAL", WORK .. "print(jdbfs.info().registered_ring)"))
  end)

  about("that has no memory for its size becomes smaller, and says so", function()
    local out = script("ring.setup:errno=ENOMEM:count=2", WORK .. "print(jdbfs.info().depth)")
    assert.are.equal("48\tforced by JDBFS_BACKEND; depth lowered from 256: " ..
      "locked memory is short\n64\n", out)
  end)

  about("that is to poll is refused, with its second ring, where there is no memory or no mode",
    function()
      local _, release = support.sh("uname -r")
      local major, minor = release:match("(%d+)%.(%d+)")
      local has_mode = tonumber(major) * 100 + tonumber(minor) >= 613
      local source = ([[
        assert(jdbfs.setup { iopoll = "hybrid" })
        local there
        for _ = 1, 8 do
          local value, message, err = jdbfs.exists(dir)
          check("kind", value or err.kind == "Unsupported" or err.kind == "Alloc", message)
          if not value then print(message) end
          there = value
        end
        check("works in the end, where there is the mode", (there ~= nil) == %s, there)
      ]]):format(has_mode)
      local out = script("ring.setup:nth=2:count=3:errno=EINVAL", source)
      assert.matches('iopoll = "hybrid" refused: this kernel cannot', out, 1, true)
      local refused = 0
      for nth = 1, has_mode and 12 or 0 do
        if script(("alloc:nth=%d:errno=ENOMEM"):format(nth), source) ~= "" then
          refused = refused + 1
        end
      end
      assert.is_true(refused >= 3 or not has_mode, "no allocation of a queue's was refused")
    end)

  about("of an older kernel is refused for the modes that it does not have", function()
    local function refused(mode)
      return script("ring.features:errno=EINVAL", ([[
        assert(jdbfs.setup { %s = 0.01 })
        local value, message, err = jdbfs.exists(dir)
        check("refused", value == nil and err.kind == "Unsupported", value, message)
        print(message)
      ]]):format(mode))
    end
    assert.matches("option min_wait refused: this kernel cannot wait that way", refused("min_wait"),
      1, true)
    local _, processors = support.sh("nproc")
    if tonumber(processors) < 2 then return end
    assert.matches("option sqpoll refused: this kernel lets it work with registered files only",
      refused("sqpoll"), 1, true)
  end)

  about("of a kernel before Linux 5.11 waits no longer than it may, by operations of its own",
    function()
      assert.matches("^48\t.*\nfalse\n0\t0\n$", script("ring.features:errno=EINVAL", WORK .. [[
        print((jdbfs.info().features:find("ext_arg")) ~= nil)
        local f = assert(jdbfs.create(dir .. "/timed", { direct = "prefer" }))
        assert(f:write_at(jdbfs.buffer(jdbfs.PAGE_SIZE), 0))
        local woken = 0
        jdbfs.run(function()
          jdbfs.spawn(function()
            for _ = 1, 20 do jdbfs.sleep(0.001) woken = woken + 1 end
          end)
          for _ = 1, 16 do
            jdbfs.spawn(function()
              local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
              for _ = 1, 50 do check("read", f:read_at(b, 0) == jdbfs.PAGE_SIZE) end
            end)
          end
        end)
        check("timers", woken == 20, woken)
        print(jdbfs.stats().in_flight, jdbfs.stats().waiting)
      ]]))
    end)

  about("that is lost while its own thread submits hands the rest to the pool", function()
    local _, processors = support.sh("nproc")
    if tonumber(processors) < 2 then return pending("needs two processors") end
    for nth = 1, 6 do
      local out = script(("ring.enter:nth=%d:errno=EPERM:ever"):format(nth),
        "assert(jdbfs.setup { sqpoll = 0.001 * " .. nth .. " })" .. WORK)
      local sum, reason = out:match("^(%d+)\t([^\n]*)\n$")
      assert.are.equal("48", sum)
      local known = reason:find("works here", 1, true) or reason:find("later (EPERM)", 1, true)
      assert(known, out)
    end
  end)
end)
