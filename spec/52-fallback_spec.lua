-- Which backend serves: named, forced, or the first that works; what is said about it; and that
-- refused or interrupted system calls lose nothing.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

-- Some I/O of every kind, checked; ends by printing which backend ran.
local WORK = [[
  local page = jdbfs.PAGE_SIZE
  local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
  jdbfs.run(function()
    for i = 0, 31 do
      jdbfs.spawn(function()
        local b = jdbfs.buffer(page)
        b:fill(i)
        check("write", f:write_at(b, i * page))
        if i % 8 == 0 then check("sync", f:sync_data()) end
        b:fill(0)
        check("read", f:read_at(b, i * page))
        check("data", b:u8(0) == i and b:u8(page - 1) == i)
        check("stat", f:stat().size > 0)
      end)
    end
  end)
  check("size", f:size() == 32 * page)
  check("truncate", f:truncate(page) and f:size() == page)
  check("close", f:close())
  check("remove", jdbfs.remove(dir .. "/file"))
  local s = jdbfs.stats()
  check("nothing left", s.in_flight + s.waiting + s.abandoned + s.tasks == 0)
  check("all done", s.submitted == s.completed)
  local info = jdbfs.info()
  print(info.backend)
  print(info.reason)
  print(info.features)
]]

local function work(o)
  local out = process.script(WORK, o)
  return out:match("^(.-)\n(.-)\n(.-)\n$")
end

-- Whether this machine has io_uring at all: then auto takes it.
local function has_uring()
  return process.script("local i = jdbfs.info() print(i and i.backend)",
    { env = { JDBFS_BACKEND = "auto" } }) == "io_uring\n"
end

local NO_URING = "io_uring does not work on this machine"

describe("JDBFS_BACKEND", function()
  process.setup()

  it("forces a backend, whatever setup names", function()
    local backend, reason = work({ env = { JDBFS_BACKEND = "threads" } })
    assert.are.equal("threads", backend)
    assert.matches("JDBFS_BACKEND", reason, 1, true)
    local out = process.script([[
      assert(jdbfs.setup { backend = "io_uring" })
      print(jdbfs.info().backend)
    ]], { env = { JDBFS_BACKEND = "threads" } })
    assert.are.equal("threads\n", out)
  end)

  it("of io_uring gives io_uring, and auto prefers it", function()
    if not has_uring() then return pending(NO_URING) end
    local backend, reason = work({ env = { JDBFS_BACKEND = "io_uring" } })
    assert.are.equal("io_uring", backend)
    assert.matches("JDBFS_BACKEND", reason, 1, true)
    assert.are.equal("io_uring", (work({ env = { JDBFS_BACKEND = "auto" } })))
  end)

  it("that is set by the tests is the one that runs", function()
    local forced = os.getenv("JDBFS_BACKEND")
    if not forced or forced == "auto" then return pending("JDBFS_BACKEND is not set") end
    assert.are.equal(forced, jdbfs.info().backend)
  end)

  for _, name in ipairs({ "nonsense", "IO_URING", "iocp", "thread", ("x"):rep(5000), "%s%n" }) do
    it(("of an unknown name fails: %q"):format(name:sub(1, 20):gsub("%c", " ")), function()
      local out = process.script([[
        for _, call in ipairs {
          function() return jdbfs.open(dir .. "/x") end,
          function() return jdbfs.run(function() end) end,
          function() return jdbfs.info() end,
          function() return jdbfs.spawn(function() end) end,
          function() return jdbfs.pollfd() end,
          function() return jdbfs.step() end,
          function() return jdbfs.exists(dir) end,
        } do
          local value, message, err = call()
          check("refused", value == nil and err.kind == "Unsupported", value, message)
          check("named", message:find("JDBFS_BACKEND", 1, true), message)
          check("named", message:find(arg[3]:sub(1, 30), 1, true), message)
        end
        print(jdbfs.buffer(10))
      ]], { env = { JDBFS_BACKEND = name }, args = { name } })
      assert.matches("jdbfs.buffer", out, 1, true)
    end)
  end
end)

describe("setup", function()
  process.setup()

  local function setup(source, env)
    return process.script(source, { env = env, prefix = not env and "env -u JDBFS_BACKEND" or nil })
  end

  it("names the backend, its depth and its workers", function()
    assert.are.equal("threads 17 true\n", setup([[
      check("setup", jdbfs.setup { backend = "threads", depth = 17, workers = 3 } == true)
      jdbfs.run(function()
        for i = 1, 50 do jdbfs.spawn(function() jdbfs.exists(dir) end) end
      end)
      local info = jdbfs.info()
      print(info.backend, info.depth, jdbfs.stats().workers <= 3)
    ]]):gsub("\t", " "), nil)
  end)

  it("may be called several times before the first use, and without options", function()
    assert.are.equal("9\n", setup([[
      assert(jdbfs.setup {})
      assert(jdbfs.setup { depth = 5, backend = "threads" })
      assert(jdbfs.setup { depth = 9, backend = "auto" })
      print(jdbfs.info().depth)
    ]]))
  end)

  it("after the first use gives kind Busy and changes nothing", function()
    assert.are.equal("Busy setup 256\n", setup([[
      jdbfs.exists(dir)
      local ok, _, err = jdbfs.setup { depth = 5 }
      check("refused", ok == nil)
      print(err.kind .. " " .. err.op .. " " .. jdbfs.info().depth)
    ]]))
  end)

  it("raises for options that cannot be right", function()
    setup([[
      for label, options in pairs {
        ["unknown"] = { dept = 5 },
        ["list"] = { 5 },
        ["depth 0"] = { depth = 0 },
        ["depth -1"] = { depth = -1 },
        ["depth 1.5"] = { depth = 1.5 },
        ["depth NaN"] = { depth = 0 / 0 },
        ["depth huge"] = { depth = math.huge },
        ["depth 4097"] = { depth = 4097 },
        ["depth text"] = { depth = "5" },
        ["workers 0"] = { workers = 0 },
        ["workers 257"] = { workers = 257 },
        ["registered number"] = { registered = 1 },
        ["sqpoll 0"] = { sqpoll = 0 },
        ["sqpoll -1"] = { sqpoll = -1 },
        ["sqpoll NaN"] = { sqpoll = 0 / 0 },
        ["sqpoll true"] = { sqpoll = true },
        ["min_wait 11"] = { min_wait = 11 },
        ["min_wait text"] = { min_wait = "1" },
        ["close_limit 0"] = { close_limit = 0 },
        ["close_limit 86401"] = { close_limit = 86401 },
        ["backend number"] = { backend = 1 },
        ["backend name"] = { backend = "nonsense" },
      } do
        local ok, message = pcall(jdbfs.setup, options)
        check(label, not ok and message:find("option", 1, true), message)
      end
      for _, bad in ipairs { 1, "x", true } do check("type", not pcall(jdbfs.setup, bad)) end
      check("nothing", not pcall(jdbfs.setup))
      for size = 1, 20 do -- whichever comes first in the table
        local options = { depth = 7 }
        for i = 1, size do options["unknown" .. i] = true end
        for i = 2, size do options["unknown" .. i] = nil end
        check("unknown", not pcall(jdbfs.setup, options))
      end
      check("still usable", jdbfs.exists(dir))
      check("nothing of a refused one is kept", jdbfs.info().depth ~= 7)
    ]])
  end)

  it("with a backend of another platform gives kind Unsupported at the first use", function()
    assert.are.equal("Unsupported Unsupported\n", setup([[
      assert(jdbfs.setup { backend = "iocp" })
      local _, _, first = jdbfs.exists(dir)
      local _, _, second = jdbfs.run(function() end)
      print(first.kind .. " " .. second.kind)
    ]]))
  end)

  it("takes the extremes of depth", function()
    for _, depth in ipairs({ 1, 4096 }) do
      local out = process.script(("assert(jdbfs.setup { depth = %d })"):format(depth) .. WORK)
      assert.matches("^" .. jdbfs.info().backend .. "\n", out)
    end
  end)
end)

describe("a mode of io_uring", function()
  process.setup()

  local RING = { JDBFS_BACKEND = "io_uring" }
  local MODES = { sqpoll = 0.05, min_wait = 0.0002 }
  local left_out = os.getenv("JDBFS_BACKEND") == "threads"

  local function with(mode, o)
    return process.script(("assert(jdbfs.setup { %s = %g })"):format(mode, MODES[mode]) .. WORK, o)
  end

  local function refusal(mode, o)
    return process.script(([[
      assert(jdbfs.setup { %s = %g })
      for _ = 1, 2 do
        local value, message, err = jdbfs.exists(dir)
        check("refused", value == nil and err.kind == "Unsupported", value, message)
        print(message)
      end
    ]]):format(mode, MODES[mode]), o)
  end

  local function needs()
    if left_out then return "it is not the threads'" end
    if not has_uring() then return NO_URING end
    if tonumber((select(2, support.sh("nproc")))) < 2 then return "needs two processors" end
  end

  for mode in pairs(MODES) do
    it(mode .. " does the same work, and is shown", function()
      local why = needs()
      if why then return pending(why) end
      local out = with(mode, { env = RING })
      assert.matches("io_uring\n", out)
      assert.matches(mode, out:match("\n([^\n]*)\n$"), 1, true)
    end)

    it(mode .. " does the same work when the host polls", function()
      local why = needs()
      if why then return pending(why) end
      assert.matches("io_uring\n", process.script((
        "assert(jdbfs.setup { %s = %g }) assert(jdbfs.pollfd())"):format(mode, MODES[mode]) .. WORK,
        { env = RING }))
    end)

    it(mode .. " is refused by other backends, and auto does not leave it out", function()
      local why = needs()
      if why then return pending(why) end
      for _, backend in ipairs({ "threads", "sim" }) do
        assert.matches(mode .. " is io_uring's; the backend is " .. backend,
          refusal(mode, { env = { JDBFS_BACKEND = backend } }), 1, true)
      end
      local nouring = process.nouring()
      local prefix = nouring and support.quote(nouring) .. " 1"
      if not prefix or support.sh(prefix .. " true") == 77 then
        return pending("no seccomp filter can be set here")
      end
      assert.matches("EPERM", refusal(mode, { prefix = prefix, env = { JDBFS_BACKEND = "auto" } }),
        1, true)
    end)
  end

  it("is off unless it is asked for", function()
    local why = needs()
    if why then return pending(why) end
    local features = process.script("print(jdbfs.info().features)", { env = RING })
    for _, mode in ipairs({ "sqpoll", "min_wait", "iopoll" }) do
      assert.is_nil(features:find(mode, 1, true), features)
    end
  end)

  it("sqpoll is refused where there is no second processor", function()
    local why = needs() or support.lacks("taskset")
    if why then return pending(why) end
    assert.matches("sqpoll refused: its thread needs a second processor",
      refusal("sqpoll", { env = RING, prefix = "taskset -c 0" }), 1, true)
  end)

  it("min_wait brings more completions a call", function()
    local why = needs()
    if why then return pending(why) end
    local source = [[
      local page = jdbfs.PAGE_SIZE
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      assert(f:write_at(jdbfs.buffer(page), 0))
      local before = jdbfs.stats().entries
      jdbfs.run(function()
        for _ = 1, 32 do
          jdbfs.spawn(function()
            local b = jdbfs.buffer(page)
            for _ = 1, 100 do check("read", f:read_at(b, 0) == page) end
          end)
        end
      end)
      print((jdbfs.stats().entries - before) / 3200)
    ]]
    local waiting = tonumber((process.script("assert(jdbfs.setup { min_wait = 0.1 })" .. source,
      { env = RING })))
    -- A quarter of what is in flight is waited for, whatever the device does meanwhile.
    assert.is_true(waiting <= 1 / 7, tostring(waiting))
  end)
end)

describe("auto", function()
  process.setup()

  local ERRNO = { EPERM = 1, ENOMEM = 12, ENOSYS = 38 }
  for name, number in pairs(ERRNO) do
    it("falls back to threads when io_uring_setup is refused with " .. name, function()
      local nouring, why = process.nouring()
      if not nouring then return pending(why) end
      local prefix = support.quote(nouring) .. " " .. number
      if support.sh(prefix .. " true") == 77 then
        return pending("no seccomp filter can be set here")
      end
      local backend, reason, features = work({ prefix = prefix, env = { JDBFS_BACKEND = "auto" } })
      assert.are.equal("threads", backend)
      assert.matches("io_uring", reason, 1, true)
      assert.matches(name, reason, 1, true)
      assert.is_string(features)
    end)
  end

  it("but io_uring, when it is forced, fails with the reason", function()
    local nouring, why = process.nouring()
    if not nouring then return pending(why) end
    local prefix = support.quote(nouring) .. " 1"
    if support.sh(prefix .. " true") == 77 then
      return pending("no seccomp filter can be set here")
    end
    local out = process.script([[
      local before = count("/proc/self/fd")
      for _ = 1, 3 do
        local value, message, err = jdbfs.open(dir .. "/x")
        check("refused", value == nil and err.kind == "Unsupported", message)
        check("EPERM", err.name == "EPERM", message)
        check("reason", message:find("io_uring", 1, true) and message:find("seccomp", 1, true),
          message)
        local ok, _, run_err = jdbfs.run(function() end)
        check("run", ok == nil and run_err.kind == "Unsupported", ok)
      end
      check("descriptors", count("/proc/self/fd") == before)
      print("ok")
    ]], { prefix = prefix, env = { JDBFS_BACKEND = "io_uring" } })
    assert.are.equal("ok\n", out)
  end)

  it("lowers the depth or falls back when locked memory is short, and says so", function()
    local lacking = support.lacks("root", "prlimit", "setpriv")
    if lacking then return pending(lacking) end
    if not has_uring() then return pending(NO_URING) end
    if os.getenv("JDBFS_TEST_SAN") == "thread" then return pending("needs an ordinary process") end
    support.sh("chmod -R a+rwX " .. support.quote(support.path(".")))
    local prefix = "setpriv --reuid 65534 --clear-groups"
    local probe = support.script("print(require('jdbfs')._VERSION)", { prefix = prefix })
    if probe.status ~= 0 then return pending("another user cannot read this tree") end
    for _, limit in ipairs({ 0, 65536 }) do
      local backend, reason = work({
        prefix = ("prlimit --memlock=%d %s"):format(limit, prefix),
        env = { JDBFS_BACKEND = "auto" },
      })
      if backend == "threads" then
        assert.matches("ENOMEM", reason, 1, true)
      else
        -- Kernels that do not count rings give io_uring with nothing lowered.
        assert.are.equal("io_uring", backend)
        assert.is_true(reason:find("lowered", 1, true) ~= nil
          or reason:find("works", 1, true) ~= nil, reason)
      end
    end
  end)

  it("takes threads when the sysctl forbids io_uring", function()
    if os.getenv("JDBFS_TEST_SYSCTL") ~= "1" then
      return pending("changes a setting of the whole machine: set JDBFS_TEST_SYSCTL=1")
    end
    local lacking = support.lacks("root")
    if lacking then return pending(lacking) end
    local name = "/proc/sys/kernel/io_uring_disabled"
    local before = support.get(name)
    if not before then return pending("this kernel has no kernel.io_uring_disabled") end
    if support.sh("echo 2 > " .. name) ~= 0 then return pending(name .. " cannot be written") end
    local ok, backend, reason = pcall(work, { env = { JDBFS_BACKEND = "auto" } })
    support.sh("echo " .. before:match("%d+") .. " > " .. name)
    assert.is_true(ok, backend)
    assert.are.equal("threads", backend)
    assert.matches("EPERM", reason, 1, true)
    assert.matches("sysctl", reason, 1, true)
  end)
end)

describe("injected faults", function()
  process.setup()

  local function traced(inject, o)
    local prefix, why = process.strace(inject)
    if not prefix then return nil, why end
    o = o or {}
    o.prefix = prefix
    o.env = o.env or { JDBFS_BACKEND = "io_uring" }
    return work(o)
  end

  it("EINVAL for the first set-up flags steps down to fewer", function()
    local _, why = process.strace("x:error=EIO")
    if why then return pending(why) end
    if not has_uring() then return pending(NO_URING) end
    local _, _, best = work({ env = { JDBFS_BACKEND = "io_uring" } })
    local seen = { [best] = true }
    for last = 1, 4 do
      local backend, _, features = traced("io_uring_setup:error=EINVAL:when=1.." .. last)
      assert.are.equal("io_uring", backend)
      assert.is_nil(seen[features], "the same flags again: " .. features)
      seen[features] = true
    end
  end)

  it("a refusal of every set-up falls back to threads", function()
    local _, why = process.strace("x:error=EIO")
    if why then return pending(why) end
    local auto = { JDBFS_BACKEND = "auto" }
    local backend, reason = traced("io_uring_setup:error=EINVAL", { env = auto })
    assert.are.equal("threads", backend)
    assert.matches("io_uring refused", reason, 1, true)
    for _, name in ipairs({ "EMFILE", "ENFILE", "EACCES" }) do
      assert.are.equal("threads", (traced("io_uring_setup:error=" .. name, { env = auto })))
    end
  end)

  it("a refused probe falls back to threads", function()
    local _, why = process.strace("x:error=EIO")
    if why then return pending(why) end
    if not has_uring() then return pending(NO_URING) end
    local backend = traced("io_uring_register:error=EINVAL:when=1",
      { env = { JDBFS_BACKEND = "auto" } })
    assert.are.equal("threads", backend)
  end)

  -- About io_uring alone, so once is enough: with the runs of the other backend it is left out.
  local names = os.getenv("JDBFS_BACKEND") ~= "threads" and { "EINTR", "EAGAIN", "EBUSY" } or {}
  for _, name in ipairs(names) do
    it(name .. " from io_uring_enter loses nothing and never hangs", function()
      local _, why = process.strace("x:error=EIO")
      if why then return pending(why) end
      if not has_uring() then return pending(NO_URING) end
      -- Each of the first calls once; some, and every second or so.
      local places = { "1..3", "3..6", "1+3", "2+3", "1+5" }
      for when = 1, os.getenv("JDBFS_TEST_LONG") == "1" and 50 or 20 do
        places[#places + 1] = tostring(when)
      end
      for _, when in ipairs(places) do
        local backend = traced(("io_uring_enter:error=%s:when=%s"):format(name, when))
        assert.are.equal("io_uring", backend)
      end
      support.figures(("entries of the kernel: faults %s at %d places, nothing lost"):format(name,
        #places))
    end)
  end

  it("signals in the middle of waits lose nothing", function()
    local _, why = process.strace("x:error=EIO")
    if why then return pending(why) end
    if not has_uring() then return pending(NO_URING) end
    for _, when in ipairs({ "1", "3", "2+2" }) do
      assert.are.equal("io_uring", (traced("io_uring_enter:signal=SIGURG:when=" .. when)))
    end
  end)

  it("EINTR in a worker's system calls is tried again", function()
    local _, why = process.strace("x:error=EIO")
    if why then return pending(why) end
    local threads = { JDBFS_BACKEND = "threads" }
    for _, inject in ipairs({ "pread64:error=EINTR:when=1+3", "pwrite64:error=EINTR:when=1+3",
      "fdatasync:error=EINTR:when=1" }) do
      local prefix = process.strace(inject, support.path("file"))
      assert.are.equal("threads", (work({ prefix = prefix, env = threads })))
    end
    assert.are.equal("threads", (traced("ppoll:error=EINTR:when=1+2", { env = threads })))
  end)

  it("short transfers of the pool are continued, not taken for success", function()
    local prefix, why = process.strace("pwrite64:retval=512:when=1")
    if not prefix then return pending(why) end
    local out = process.script([[
      local f = assert(jdbfs.create(dir .. "/short", { direct = "prefer" }))
      local b = jdbfs.buffer(4 * jdbfs.PAGE_SIZE)
      b:fill(5)
      local n, message = f:write_at(b, 0)
      check("whole", n == 4 * jdbfs.PAGE_SIZE, n, message)
      check("continued", jdbfs.stats().resubmitted > 0)
      check("the rest is there", f:read(jdbfs.PAGE_SIZE, 10) == ("\5"):rep(10))
      print("ok")
    ]], { prefix = prefix, env = { JDBFS_BACKEND = "threads" } })
    assert.are.equal("ok\n", out)
  end)

  it("errors of the system arrive with kind and name", function()
    local cases = {
      { "pread64:error=EIO", "read_at", "Io", "EIO" },
      { "pwrite64:error=ENOSPC", "write_at", "Io", "ENOSPC" },
      { "fdatasync:error=EIO", "sync_data", "Io", "EIO" },
      { "fsync:error=EIO", "sync_all", "Io", "EIO" },
      { "ftruncate:error=EROFS", "truncate", "Io", "EROFS" },
    }
    for _, case in ipairs(cases) do
      local prefix, why = process.strace(case[1], support.path("faulty"))
      if not prefix then return pending(why) end
      local out = process.script([[
        local f = assert(jdbfs.create(dir .. "/faulty", { direct = "prefer" }))
        local b, err = jdbfs.buffer(jdbfs.PAGE_SIZE), nil
        local name = arg[3]
        local _
        if name:match("_at$") then _, _, err = f[name](f, b, 0)
        else _, _, err = f[name](f, 0) end
        check("failed", err, name)
        print(err.op, err.kind, err.name)
      ]], { prefix = prefix, args = { case[2] }, env = { JDBFS_BACKEND = "threads" } })
      assert.are.equal(table.concat({ case[2], case[3], case[4] }, "\t") .. "\n", out)
    end
  end)

  it("without any thread the pool works in place", function()
    local prefix, why = process.strace("clone,clone3:error=EAGAIN")
    if not prefix then return pending(why) end
    for _, backend in ipairs({ "threads", "io_uring" }) do
      if backend == "threads" or has_uring() then
        assert.are.equal(backend, (traced("clone,clone3:error=EAGAIN",
          { env = { JDBFS_BACKEND = backend } })))
      end
    end
  end)
end)
