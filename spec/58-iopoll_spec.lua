-- Option iopoll: transfers that a second ring polls for; refused, with the reason, where that
-- cannot be. What needs a device with poll queues runs where JDBFS_TEST_POLLED names a directory on
-- one, as in the machine that spec/tools/guest.sh emulates.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local RING = { JDBFS_BACKEND = "io_uring" }
local POLLED = os.getenv("JDBFS_TEST_POLLED")

-- Reads, writes, flushes and timers at once, checked.
local WORK = [[
  local page = jdbfs.PAGE_SIZE
  local function work(f)
    jdbfs.run(function()
      for i = 0, 63 do
        jdbfs.spawn(function()
          local b = jdbfs.buffer(page)
          b:fill(i)
          check("write", f:write_at(b, i * page) == page)
          if i % 16 == 0 then check("sync", f:sync_data()) end
          if i % 8 == 0 then check("durable", f:write_at(b, i * page, 0, page, "dsync") == page) end
          if i % 4 == 0 then check("sleep", jdbfs.sleep(0.001)) end
          for _ = 1, 5 do
            b:fill(255)
            check("read", f:read_at(b, i * page) == page)
            check("data", b:u8(0) == i and b:u8(page - 1) == i, i, b:u8(0))
          end
        end)
      end
    end)
    local big = jdbfs.buffer(4 * 1024 * 1024 + page)
    big:fill(7)
    check("a large write", f:write_at(big, 0) == #big)
    big:fill(0)
    check("a large read", f:read_at(big, 0) == #big)
    check("its data", big:u8(0) == 7 and big:u8(#big - 1) == 7)
    local list = {}
    for i = 1, 40 do list[i] = { big, i * page, i * page, page } end
    check("a list", f:read_many(list) == 40)
    local _, _, err = f:read_at(big, f:size())
    check("end of file", err.kind == "ShortRead")
    check("truncate", f:truncate(page) and f:size() == page)
  end
]]

describe("option iopoll", function()
  process.setup()

  local function needs()
    local forced = os.getenv("JDBFS_BACKEND")
    if forced and forced ~= "auto" and forced ~= "io_uring" then return "it is io_uring's" end
    if jdbfs.info().backend ~= "io_uring" then return "io_uring does not work on this machine" end
  end

  local function test(name, source, o)
    it(name, function()
      local why = needs()
      if why then return pending(why) end
      o = o or {}
      o.env = o.env or RING
      assert.are.equal("ok\n", process.script(WORK .. source .. "\nprint 'ok'", o))
    end)
  end

  test("is refused by other backends", [[
    assert(jdbfs.setup { iopoll = true })
    local value, message, err = jdbfs.exists(dir)
    check("refused", value == nil and err.kind == "Unsupported", value, message)
    check("says so", message:find("iopoll is io_uring's; the backend is threads", 1, true), message)
  ]], { env = { JDBFS_BACKEND = "threads" } })

  test("takes true, false and \"hybrid\"", [[
    for _, wrong in ipairs { "true", 1, {} } do
      local ok, message = pcall(jdbfs.setup, { iopoll = wrong })
      check("refused", not ok and message:find("option iopoll: true, false or \"hybrid\" expected",
        1, true), message)
    end
    assert(jdbfs.setup { iopoll = "hybrid" })
    assert(jdbfs.setup { iopoll = false })
    check("off", not jdbfs.info().features:find("iopoll"))
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    check("its files, too", f:info().polled == false and f:info().polled_reason == nil)
  ]])

  test("is shown, and has no descriptor for a host", [[
    assert(jdbfs.setup { iopoll = true })
    check("shown", jdbfs.info().features:find(",iopoll", 1, true), jdbfs.info().features)
    local fd, message, err = jdbfs.pollfd()
    check("refused", fd == nil and err.kind == "Unsupported", fd, message)
    check("says so", message:find("no descriptor announces", 1, true), message)
  ]])

  local HOST = [[
    local host = { name = "mine", current = function() end, suspend = function() end,
      wake = function() end, watch = function() end }
    local function refused(ok, message, err)
      check("refused", ok == nil and err.kind == "Unsupported", ok, message)
      check("says so", message:find("option iopoll", 1, true), message)
      check("and goes on without", jdbfs.exists(dir))
    end
  ]]

  test("is refused when a host was chosen", HOST .. [[
    assert(jdbfs.host(host))
    refused(jdbfs.setup { iopoll = true })
  ]])

  test("refuses a host", HOST .. [[
    assert(jdbfs.setup { iopoll = true })
    refused(jdbfs.host(host))
  ]])

  test("refuses direct files whose device cannot be polled, and does others by the first ring", [[
    assert(jdbfs.setup { iopoll = true })
    local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
    local info = f:info()
    if not info.polled then
      check("says why", info.polled_reason, info.polled_reason)
      local value, message, err = jdbfs.open(dir .. "/file")
      check("refused", value == nil and err.kind == "Unsupported", value, message)
      check("nothing was made", jdbfs.create(dir .. "/new") == nil
        and jdbfs.exists(dir .. "/new") == false)
      if info.direct then
        check("names the option", message:find("option iopoll refused", 1, true), message)
        check("and what is missing", message:find("no poll queues", 1, true), message)
      end
    end
    work(f)
    local cached = assert(jdbfs.open(dir .. "/file", { direct = "off" }))
    check("not direct", cached:info().polled == false)
    check("why", cached:info().polled_reason == "only direct files are polled for")
    check("read", #cached:read(0, 10) == 10)
    check("close", f:close() and cached:close())
  ]])

  -- A kernel that finds the device unable refuses the transfer: the same happens on a file system
  -- that cannot. Here it is made to look able.
  it("does by the first ring what the kernel refuses to poll for", function()
    local why = needs() or support.lacks("root", "unshare")
    if why then return pending(why) end
    local device = (jdbfs.probe(support.path(".")).durability or {}).device or "none"
    local status, queue = support.sh(("cd -P /sys/class/block/%s && ls $PWD/queue/io_poll || "
      .. "ls ${PWD%%/*}/queue/io_poll"):format(support.quote(device)))
    if status ~= 0 then return pending("no device below the specs' directory") end
    local able = support.path("able")
    support.put(able, "1\n")
    local mount = ("mount --bind %s %s"):format(support.quote(able), queue:match("%S+"))
    if support.sh("unshare -m " .. mount) ~= 0 then return pending("no file can be mounted on") end
    process.script(WORK .. [[
      assert(os.execute(arg[3]))
      assert(jdbfs.setup { iopoll = true })
      local f = assert(jdbfs.create(dir .. "/file"))
      check("looks able", f:info().polled == true)
      work(f)
      if f:info().polled == false then
        check("says why", f:info().polled_reason:find("EOPNOTSUPP", 1, true))
      end
      local workers = jdbfs.stats().pool_operations
      check("few by threads", workers < 64, workers)
      check("close", f:close())
    ]], { args = { mount }, prefix = "unshare -m", env = RING })
  end)

  -- ---- where a device can be polled ------------------------------------------------------------

  for _, mode in ipairs({ "true", "'hybrid'" }) do
    local function polled(name, source)
      it(("of %s %s"):format(mode, name), function()
        local why = needs() or not POLLED and "JDBFS_TEST_POLLED names no directory"
        if why then return pending(why) end
        local setup = ("assert(jdbfs.setup { iopoll = %s }) dir = arg[3]\n"):format(mode)
        local out = process.script(setup .. [[
          local info, message = jdbfs.info()
          if not info then print(message) os.exit(0) end
        ]], { args = { POLLED }, env = RING })
        if out:find("refused") then return pending(out) end
        process.script(setup .. WORK .. [[
          local path = os.tmpname():match("[^/]+$")
          local f = assert(jdbfs.create(dir .. "/" .. path))
          check("polled", f:info().polled == true and f:info().polled_reason == nil)
        ]] .. source .. [[
          check("still polled", f:info().polled == true)
          check("close", f:close())
          check("remove", jdbfs.remove(dir .. "/" .. path))
          check("nothing left", jdbfs.stats().in_flight == 0 and jdbfs.stats().waiting == 0)
        ]], { args = { POLLED }, env = RING })
      end)
    end

    polled("does all work", "work(f)")

    polled("registers memory and files with its ring", [[
      local b = jdbfs.buffer(page)
      for _ = 1, 40 do check("write", f:write_at(b, 0)) end
      local info = jdbfs.info()
      check("memory", info.registered_memory > 0)
      check("the file", info.registered_files == 1)
      local other = assert(jdbfs.open(dir .. "/" .. path))
      for _ = 1, 40 do check("read", other:read_at(b, 0)) end
      check("both", jdbfs.info().registered_files == 2)
      check("close", other:close())
      check("one again", jdbfs.info().registered_files == 1)
    ]])

    polled("ends a wait in time, and cancelled tasks", [[
      local b = jdbfs.buffer(page)
      check("write", f:write_at(b, 0))
      jdbfs.run(function()
        local ended = false
        local busy = jdbfs.spawn(function()
          while true do
            if not f:read_at(b, 0) then return end
          end
        end)
        jdbfs.spawn(function()
          jdbfs.sleep(0.01)
          ended = busy:cancel()
        end):join()
        check("cancelled", ended)
      end)
    ]])

    polled("is left with operations in flight", [[
      local list = {}
      for i = 1, 32 do list[i] = jdbfs.spawn(f.write_at, f, jdbfs.buffer(page), i * page) end
      jdbfs.step(0)
      jdbfs.run(function() jdbfs.yield() end)
      for i = 1, 32 do list[i]:cancel() end
      jdbfs.step(0)
      list = nil
      collect()
    ]])
  end
end)
