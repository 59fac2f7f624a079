-- Memory, files and the ring itself registered with the kernel: it happens by itself, info() tells,
-- nothing is kept longer than it is used, and where it is refused all works without.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

-- Files of one page each with their number in it; `use` makes enough transfers to be worth it.
local PRELUDE = [[
  local page, CHUNK = jdbfs.PAGE_SIZE, 2 * 1024 * 1024
  local function make(i)
    local f = assert(jdbfs.create(dir .. "/file" .. i, { direct = "prefer" }))
    local b = jdbfs.buffer(page)
    b:u32(0, i)
    assert(f:write_at(b, 0))
    return f
  end
  local function use(f, i, b, times)
    b = b or jdbfs.buffer(page)
    for _ = 1, times or 20 do
      b:fill(0xff)
      check("read", f:read_at(b, 0) == page)
      check("data", b:u32(0) == i, i, b:u32(0))
    end
  end
  local function registered()
    local info = jdbfs.info()
    return info.registered_memory, info.registered_files, info.registered_ring
  end
]]

local function uses_ring()
  local forced = os.getenv("JDBFS_BACKEND")
  return (forced == nil or forced == "auto" or forced == "io_uring")
    and jdbfs.info().backend == "io_uring"
end

local function script(source, o)
  o = o or {}
  o.env = o.env or { JDBFS_BACKEND = "io_uring" }
  return process.script(PRELUDE .. source, o)
end

local function test(name, source)
  it(name, function()
    if not uses_ring() then return pending("only a ring registers anything") end
    assert.are.equal("ok\n", script(source .. "\nprint 'ok'"))
  end)
end

describe("registered memory and files", function()
  process.setup()

  test("are what is used, and only once it is used", [[
    local f = make(1)
    use(f, 1, nil, 1)
    local memory, files, ring = registered()
    check("nothing yet", memory == 0 and files == 0, memory, files)
    check("the ring", ring == true)
    use(f, 1)
    memory, files = registered()
    check("one chunk, one file", memory == CHUNK and files == 1, memory, files)
    check("nothing was refused", jdbfs.info().registered_refused == nil)
    use(f, 1, jdbfs.buffer(CHUNK + page):slice(page, page), 40)
    check("not what lies in a mapping of its own", (registered()) == CHUNK)
    check("sync", f:sync_data() and f:sync_all())
    check("truncate", f:truncate(2 * page) and f:size() == 2 * page)
    check("dsync", f:write_at(jdbfs.buffer(page), page, 0, page, "dsync") == page)
    check("list", f:read_many({ { jdbfs.buffer(page), 0 }, { jdbfs.buffer(page), page } }) == 2)
    check("string", #f:read(0, 100) == 100)
  ]])

  test("lie in huge pages where the system has them", [[
    local huge = io.open("/sys/kernel/mm/transparent_hugepage/enabled")
    if not huge then print("ok") os.exit(0) end
    huge:close()
    local address = tonumber(tostring(jdbfs.buffer(page):pointer()):match("(%x+)$"), 16)
    local inside, flags
    for line in io.lines("/proc/self/smaps") do
      local from, to = line:match("^(%x+)%-(%x+) ")
      if from then inside = tonumber(from, 16) <= address and address < tonumber(to, 16) end
      if inside and line:find("^VmFlags:") then flags = line end
    end
    check("asked for", flags and flags:find(" hg"), flags)
  ]])

  test("are none with registered = false", [[
    assert(jdbfs.setup { registered = false })
    use(make(1), 1)
    local memory, files, ring = registered()
    check("none", memory == 0 and files == 0 and ring == false)
    check("not refused", jdbfs.info().registered_refused == nil)
  ]])

  test("are given back by close and by collection", [[
    for i = 1, 300 do -- more than the kernel has numbers
      local f = make(i)
      use(f, i)
      local _, files = registered()
      check("its number", files == 1, i, files)
      if i % 3 > 0 then check("close", f:close()) end
      f = nil
      if i % 3 == 0 then collect() end
      _, files = registered()
      check("no number", files == 0, i, files)
    end
  ]])

  test("run out without harm: the other files go without", [[
    local open = {}
    for i = 1, 270 do open[i] = make(i) end
    for round = 1, 2 do
      for i = 1, 270 do use(open[i], i) end
      local _, files = registered()
      check("all numbers", files == 256, files)
    end
    for i = 1, 20 do check("close", open[i]:close()) end
    for i = 251, 270 do use(open[i], i) end
    check("taken over", select(2, registered()) > 236, select(2, registered()))
  ]])

  test("do not keep a lock after close", [[
    for _ = 1, 20 do
      local f = assert(jdbfs.open_rw(dir .. "/locked", { direct = "prefer", lock = "exclusive" }))
      local b = jdbfs.buffer(page)
      for _ = 1, 20 do check("write", f:write_at(b, 0) == page) end
      check("registered", select(2, registered()) == 1)
      check("close", f:close())
    end
  ]])

  test("are let go of when the buffers are gone", [[
    local f, many = make(1), {}
    for i = 1, 2000 do
      many[i] = jdbfs.buffer(page)
      use(f, 1, many[i], 1)
    end
    local memory = registered()
    check("four chunks", memory >= 2000 * page - CHUNK, memory)
    many = nil
    collect()
    use(f, 1)
    memory = registered()
    check("what is kept for the next", memory <= 2 * CHUNK, memory)
  ]])

  test("are let go of a few at a time, so that nobody waits for many", [[
    local f, many, n = make(1), {}, 40
    for i = 1, n do
      many[i] = jdbfs.buffer(CHUNK)
      for _ = 1, 20 do check("read", f:read_at(many[i], 0, 0, page) == page) end
    end
    local all = registered()
    if all < n * CHUNK then print("ok") os.exit(0) end -- a limit on locked memory
    many = nil
    collect()
    local before, most, turns = all, 0, 0
    while before > 2 * CHUNK and turns < 100 do
      jdbfs.step(0)
      most, before, turns = math.max(most, before - registered()), registered(), turns + 1
    end
    check("in more than one turn", turns > 1 and most < 0.9 * all, turns, most / CHUNK)
    check("all of it", before <= 2 * CHUNK, before / CHUNK)
  ]])

  test("of chunks that come and go never mix up their data", [[
    local f, n = make(7), CHUNK / page
    for round = 1, 8 do
      local all = {}
      for i = 1, 3 * n do all[i] = jdbfs.buffer(page) end
      -- The newest chunk first: it may have the number of one that is gone.
      for i = 3 * n - 1, 1, -16 do
        check("zero", all[i]:string() == ("\0"):rep(page))
        use(f, 7, all[i], 1)
        check("its neighbour stays", all[i + 1]:string() == ("\0"):rep(page))
      end
      all = nil
      collect()
    end
    check("something was", (registered()) > 0)
  ]])
end)

describe("what the kernel refuses to register", function()
  process.setup()

  -- A user whose limit on locked memory counts: one of its own, since what all processes of a user
  -- have locked is added up, and other runs of this go on at the same time.
  local function as_nobody(bytes)
    local lacking = support.lacks("root", "prlimit", "setpriv")
    if lacking then return nil, lacking end
    if os.getenv("JDBFS_TEST_SAN") == "thread" then return nil, "needs an ordinary process" end
    support.sh("chmod -R a+rwX " .. support.quote(support.path(".")))
    local user = 0
    for byte in support.path("."):gmatch(".") do user = (user * 31 + byte:byte()) % 900000000 end
    local prefix = ("prlimit --memlock=%d setpriv --reuid %d --clear-groups"):format(bytes,
      100000 + user)
    if support.script("print(require('jdbfs')._VERSION)", { prefix = prefix }).status == 0 then
      return prefix
    end
    return nil, "another user cannot read this tree"
  end

  local function check_without(out, what)
    local memory, refused = out:match("^(%d+)\n(.-)\n$")
    assert.are.equal("0", memory)
    assert.matches(what, refused, 1, true)
  end

  local WORK = [[
    local f = make(3)
    for i = 1, 50 do use(f, 3, nil, 1) end
    check("close", f:close())
    print((registered()))
    print(jdbfs.info().registered_refused)
  ]]

  it("for lack of locked memory is done without, and said", function()
    if not uses_ring() then return pending("only a ring registers anything") end
    local prefix, why = as_nobody(1024 * 1024)
    if not prefix then return pending(why) end
    local out = script(WORK, { prefix = prefix })
    check_without(out, "memory: ENOMEM (limit on locked memory")
  end)

  it("for lack of more of it stays as it is, until some is given back", function()
    if not uses_ring() then return pending("only a ring registers anything") end
    local prefix, why = as_nobody(5 * 1024 * 1024)
    if not prefix then return pending(why) end
    assert.are.equal("ok\n", script([[
      local f, many = make(1), {}
      local release = io.open("/proc/sys/kernel/osrelease"):read("*l")
      for round = 1, 3 do
        many = {}
        collect()
        if release:match("^[1-5]%.") or release:match("^6%.[0-3]%.") then
          jdbfs.stat(dir) -- a turn, in which the ring hears of it
          jdbfs.sleep(1.5) -- Linux 6.1 gives back up to a second later
        end
        for i = 1, 2000 do
          many[i] = jdbfs.buffer(page)
          use(f, 1, many[i], 1)
        end
        local memory = registered()
        check("what fits", memory >= CHUNK and memory <= 2 * CHUNK, round, memory)
        local refused = jdbfs.info().registered_refused
        check("said once", refused == "memory: ENOMEM (limit on locked memory, ulimit -l)", refused)
      end
      print("ok")
    ]], { prefix = prefix }))
  end)

  it("from some call on is never taken for what it is not", function()
    if not uses_ring() then return pending("only a ring registers anything") end
    local source = [[
      local f, n = make(7), CHUNK / page
      for round = 1, 2 do
        local all = {}
        for i = 1, 3 * n do all[i] = jdbfs.buffer(page) end
        for i = 3 * n - 1, 1, -16 do
          use(f, 7, all[i], 1)
          check("its neighbour stays", all[i + 1]:string() == ("\0"):rep(page))
        end
        all = nil
        collect()
        jdbfs.stat(dir) -- a turn, in which the ring hears of it
      end
      for i = 1, 20 do make(i):close() end
      print((registered()))
    ]]
    -- The first two calls are the probe of operations and the ring's own number.
    local most = 0
    for call = 3, 10 do
      local prefix, why = process.strace(("io_uring_register:error=EINVAL:when=%d+"):format(call))
      if not prefix then return pending(why) end
      most = math.max(most, tonumber((script(source, { prefix = prefix }))))
    end
    assert.is_true(most > 0, "every chunk was given back, or none was registered")
  end)

  it("by its calls is done without, and said", function()
    if not uses_ring() then return pending("only a ring registers anything") end
    -- The first call is the probe of operations.
    local prefix, why = process.strace("io_uring_register:error=EINVAL:when=2+")
    if not prefix then return pending(why) end
    local out = script(WORK, { prefix = prefix })
    check_without(out, "memory: EINVAL")
    assert.matches("files: EINVAL", out, 1, true)
  end)
end)
