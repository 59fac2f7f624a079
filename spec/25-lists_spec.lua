-- read_many and write_many: one call and one yield for a list of transfers.

local support = require("support")
local process = require("support_process")
local jdbfs = support.jdbfs
local both, task, fails, raises = support.both, support.task, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function new(o)
  local path = support.path()
  return assert(jdbfs.create(path, o)), path
end

-- A file of n pages; page i (from 0) is filled with byte i % 251.
local function numbered(n)
  local f, path = new()
  local b = jdbfs.buffer(n * PAGE)
  for i = 0, n - 1 do b:fill(i % 251, i * PAGE, PAGE) end
  assert(f:write_at(b, 0))
  return f, path
end

local function byte_at(b, page)
  return b:u8(page * PAGE), b:u8(page * PAGE + PAGE - 1)
end

describe("a list of transfers", function()
  support.setup()

  both("moves all of its entries and gives their count", function()
    local f, path = new()
    local list, back = {}, {}
    for i = 1, 40 do
      list[i] = { support.page(i), (40 - i) * PAGE }
      back[i] = { jdbfs.buffer(PAGE), (40 - i) * PAGE }
    end
    assert.equal(40, f:write_many(list))
    assert.equal(40 * PAGE, f:size())
    assert.equal(40, f:read_many(back))
    for i = 1, 40 do assert.equal(string.char(i):rep(PAGE), back[i][1]:string()) end
    f:close()
    assert.equal(string.char(40):rep(3), support.get(path):sub(1, 3))
  end)

  both("takes parts of buffers, and disjoint parts of one buffer", function()
    local f = numbered(8)
    local b = jdbfs.buffer(8 * PAGE)
    assert.equal(4, f:read_many({
      { b, 5 * PAGE, 0, PAGE }, { b, 6 * PAGE, 3 * PAGE, 2 * PAGE }, { b:slice(PAGE, PAGE), 0 },
      { b, 2 * PAGE, 7 * PAGE },
    }))
    local expected = { [0] = 5, 0, 0, 6, 7, 0, 0, 2 }
    for page = 0, 7 do
      local first, last = byte_at(b, page)
      assert.equal(expected[page], first)
      assert.equal(expected[page], last)
    end
    -- Out of the same memory as often as one likes.
    b:fill(0x7a)
    assert.equal(3, f:write_many({
      { b, 0, 0, PAGE }, { b, PAGE, 0, PAGE }, { b, 2 * PAGE, 0, 2 * PAGE },
    }))
    assert.equal(("z"):rep(4 * PAGE), f:read(0, 4 * PAGE))
    f:close()
  end)

  both("may be empty", function()
    local f = new()
    local before = jdbfs.stats().flushes
    assert.equal(0, f:read_many({}))
    assert.equal(0, f:write_many({}))
    assert.equal(0, f:write_many({}, "dsync"))
    assert.equal(before, jdbfs.stats().flushes)
    assert.equal(0, f:size())
    f:close()
  end)

  it("has at most a million entries", function()
    local f, list = assert(jdbfs.create(support.path(), { direct = "prefer" })), {}
    for i = 1, 1000001 do list[i] = false end
    support.raises("more than 1000000 entries", f.read_many, f, list)
    f:close()
  end)

  both("may hold empty entries", function()
    local f = numbered(2)
    local b = jdbfs.buffer(PAGE)
    assert.equal(2, f:read_many({ { b, 0, 0, 0 }, { b, PAGE, PAGE, 0 } }))
    assert.equal(3, f:read_many({ { b, 0, 0, 0 }, { b, PAGE }, { b, 64 * PAGE, 0, 0 } }))
    assert.equal(1, b:u8(0))
    assert.equal(2, f:write_many({ { b, 0, 0, 0 }, { b, 64 * PAGE, 0, 0 } }, "dsync"))
    assert.equal(2 * PAGE, f:size())
    f:close()
  end)

  both("takes any offset and length without direct I/O", function()
    local f, path = new({ direct = "off" })
    local b = jdbfs.buffer(10, 1)
    b:set(0, "0123456789")
    assert.equal(3, f:write_many({ { b, 0, 5, 3 }, { b, 3, 1, 1 }, { b, 4, 9, 1 } }))
    f:close()
    support.holds(path, "56719")
  end)

  it("is one operation of its own that thousands of entries do not block", function()
    local out = process.script([[
      check("setup", jdbfs.setup{depth = 8, workers = 4})
      local PAGE, N = jdbfs.PAGE_SIZE, 1000
      local b, back = jdbfs.buffer(N * PAGE), jdbfs.buffer(N * PAGE)
      local function list(from)
        local l = {}
        for i = 1, N do l[i] = {from, (i - 1) * PAGE, (i - 1) * PAGE, PAGE} end
        return l
      end
      for i = 0, N - 1 do b:fill(i % 251, i * PAGE, PAGE) end
      local f = assert(jdbfs.create(dir .. "/f"))
      local function both_ways()
        check("write", f:write_many(list(b), "dsync") == N)
        check("read", f:read_many(list(back)) == N)
        check("equal", b:crc32c() == back:crc32c())
        back:fill(0)
      end
      both_ways()
      jdbfs.run(function()
        both_ways()
        -- Others go on meanwhile.
        local ticks, stop = 0, false
        local other = jdbfs.spawn(function()
          local page = jdbfs.buffer(PAGE)
          while not stop do check("beside", f:read_at(page, 0)) ticks = ticks + 1 end
        end)
        both_ways()
        stop = true
        other:join()
        check("starved", ticks > 0)
      end)
      local s = jdbfs.stats()
      check("idle", s.in_flight + s.waiting + s.abandoned == 0)
      check("files", f:close())
      print(jdbfs.info().depth)
    ]])
    assert.equal("8\n", out)
  end)

  task("is one yield", function()
    local f = numbered(16)
    local b = jdbfs.buffer(16 * PAGE)
    local list = {}
    for i = 0, 15 do list[i + 1] = { b, i * PAGE, i * PAGE, PAGE } end
    local turns = 0
    local reader = jdbfs.spawn(function() return f:read_many(list) end)
    while reader:status() ~= "done" do
      assert(reader:status() == "ready" or reader:status() == "waiting")
      turns = turns + 1
      jdbfs.sleep(0.001)
    end
    assert.equal(16, (reader:join()))
    assert(turns > 0)
    f:close()
  end)
end)

describe("a durable list", function()
  support.setup()

  both("pays one flush, or none where each write is durable", function()
    local expected = { auto = 1, flush = 1, write = support.durable_writes and 0 or 1 }
    for method, n in pairs(expected) do
      local f, path = new({ durable_method = method })
      local list = {}
      for i = 1, 32 do list[i] = { support.page(i), (i - 1) * PAGE } end
      local before = jdbfs.stats().flushes
      assert.equal(32, f:write_many(list, "dsync"))
      assert.equal(before + n, jdbfs.stats().flushes)
      f:close()
      for i = 1, 32 do assert.equal(i, support.get(path):byte(i * PAGE)) end
    end
  end)

  both("on a durable handle needs no flush, or one where no write is durable", function()
    for _, o in ipairs({ { dsync = true }, { dsync = true, durable_method = "flush" } }) do
      local f = new(o)
      local before = jdbfs.stats().flushes
      assert.equal(2, f:write_many({ { support.page(), 0 }, { support.page(), PAGE } }, "dsync"))
      assert.equal(2, f:write_many({ { support.page(), 0 }, { support.page(), PAGE } }))
      assert.equal(before + (support.on_macos and 2 or 0), jdbfs.stats().flushes)
      f:close()
    end
  end)

  task("shares its flush with other lists", function()
    local f = new()
    local before = jdbfs.stats().flushes
    local tasks = {}
    for i = 1, 16 do
      tasks[i] = jdbfs.spawn(function()
        local b = support.page(i)
        return f:write_many({ { b, 2 * i * PAGE }, { b, (2 * i + 1) * PAGE } }, "dsync")
      end)
    end
    for i = 1, 16 do assert.equal(2, (assert(tasks[i]:join()))) end
    local n = jdbfs.stats().flushes - before
    assert(n >= 1 and n < 16, n .. " flushes for 16 lists")
    f:close()
  end)
end)

describe("a list with an entry that is refused", function()
  support.setup()

  -- Nothing is submitted, nothing stays in flight, and the entry is named.
  local function refuses(f, method, good, bad, want)
    local before = jdbfs.stats().submitted
    for _, at in ipairs({ 1, 3 }) do
      local list = at == 1 and { bad, good } or { good, { support.page(), 8 * PAGE }, bad, good }
      local err = fails(want, f[method](f, list))
      assert.equal(at, err.index)
      assert(err.message:find("entry " .. at, 1, true), err.message)
    end
    local s = jdbfs.stats()
    assert.equal(before, s.submitted)
    assert.equal(0, s.in_flight + s.waiting)
    good[1]:fill(1) -- raises when it is in flight
  end

  both("submits nothing: alignment, ranges, numbers", function()
    local f, path = numbered(4)
    local align = f:info().write_alignment
    local b = jdbfs.buffer(4 * PAGE)
    for _, method in ipairs({ "read_many", "write_many" }) do
      local good = { support.page(), 0 }
      local want = { op = method, path = path, errno = "none" }
      want.kind = "Alignment"
      if align > 1 then
        for _, bad in ipairs({ { b, 1, 0, PAGE }, { b, 0, 0, align - 1 }, { b, 0, 1, PAGE } }) do
          refuses(f, method, good, bad, want)
        end
      end
      want.kind = "Overflow"
      for _, bad in ipairs({
        { b, 0, 0, 5 * PAGE }, { b, 0, 4 * PAGE, PAGE }, { b, 0, 5 * PAGE }, { b, -PAGE },
        { b, 0, -PAGE }, { b, 0, 0, -1 }, { b, 0.5 }, { b, 2 ^ 63 }, { b, 2 ^ 63 - 4096 },
        { b, 0 / 0 },
      }) do
        refuses(f, method, good, bad, want)
      end
      for _, number in ipairs(support.numbers()) do
        want.says = number[3]
        refuses(f, method, good, { b, number[2] }, want)
      end
      want.says = nil
    end
    assert.equal(4 * PAGE, f:size())
    f:close()
  end)

  both("submits nothing: freed buffers", function()
    local f, path = numbered(4)
    local freed = support.page()
    freed:free()
    for _, method in ipairs({ "read_many", "write_many" }) do
      refuses(f, method, { support.page(), 0 }, { freed, 0 },
        { kind = "Closed", op = method, path = path, says = "freed" })
    end
    f:close()
  end)

  both("submits nothing: two entries read into the same memory", function()
    local f, path = numbered(4)
    local b = jdbfs.buffer(2 * PAGE)
    local want = { kind = "Busy", op = "read_many", path = path }
    for _, list in ipairs({
      { { b, 0 }, { b, 2 * PAGE } },
      { { b, 0, 0, PAGE }, { b, 0, PAGE, PAGE }, { b, PAGE, 0, PAGE } },
      { { b, 0, PAGE, PAGE }, { b:slice(0, PAGE), 0 }, { b, 0 } },
    }) do
      local before = jdbfs.stats().submitted
      local err = fails(want, f:read_many(list))
      assert.equal(#list, err.index)
      assert.equal(before, jdbfs.stats().submitted)
      b:fill(0)
    end
    f:close()
  end)

  task("submits nothing: memory that another operation has", function()
    local f, path = numbered(4)
    local b = jdbfs.buffer(4 * PAGE)
    local reader = jdbfs.spawn(function() return f:read_at(b, 0, PAGE, PAGE) end)
    jdbfs.yield()
    if reader:status() == "waiting" then
      for _, method in ipairs({ "read_many", "write_many" }) do
        local err = fails({ kind = "Busy", op = method, path = path },
          f[method](f, { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } }))
        assert.equal(2, err.index)
        b:fill(0, 0, PAGE)
      end
    end
    assert.equal(PAGE, (reader:join()))
    f:close()
  end)

  both("submits nothing: atomic writes where there are none", function()
    local f, path = new()
    if f:info().atomic.max == 0 then
      local before = jdbfs.stats().submitted
      local err = fails({ kind = "Unsupported", op = "write_many", path = path },
        f:write_many({ { support.page(), 0 } }, "atomic"))
      assert.equal(1, err.index)
      assert.equal(before, jdbfs.stats().submitted)
    end
    f:close()
  end)

  both("is not looked at when the file refuses", function()
    local f, path = numbered(1)
    f:close()
    for _, method in ipairs({ "read_many", "write_many" }) do
      local err = fails({ kind = "Closed", op = method, path = path },
        f[method](f, { { support.page(), 0 } }))
      assert.is_nil(err.index)
    end
    f = assert(jdbfs.open(path))
    local err = fails({ kind = "Io", op = "write_many", path = path, name = "EBADF" },
      f:write_many({ { support.page(), 0 } }))
    assert.is_nil(err.index)
    f:close()
  end)
end)

describe("a list with an entry that fails", function()
  support.setup()

  both("tells the first one of the list, and how far it came", function()
    local f, path = numbered(4)
    assert(f:truncate(3 * PAGE + 512))
    local b = jdbfs.buffer(8 * PAGE)
    local err = fails({
      kind = "ShortRead", op = "read_many", path = path, offset = 3 * PAGE, length = 2 * PAGE,
      actual = 512, errno = "none", says = "entry 3",
    }, f:read_many({
      { b, 0, 0, PAGE }, { b, 2 * PAGE, PAGE, PAGE }, { b, 3 * PAGE, 2 * PAGE, 2 * PAGE },
      { b, 64 * PAGE, 4 * PAGE, PAGE }, { b, PAGE, 5 * PAGE, PAGE },
    }))
    assert.equal(3, err.index)
    -- The others were read, and what was read of this one is in place.
    for page, byte in pairs({ [0] = 0, [1] = 2, [5] = 1 }) do
      assert.equal(byte, (byte_at(b, page)))
    end
    -- Behind it btrfs leaves what was cut off, from its block on the disk.
    assert.equal(string.char(3):rep(512), b:string(2 * PAGE, 512))
    b:fill(9)
    f:close()
  end)

  it("by the system, leaves the other entries written", function()
    local prefix, why = process.strace("pwrite64:error=EIO:when=3")
    if not prefix then return pending(why) end
    local out = process.script([[
      check("setup", jdbfs.setup{workers = 1})
      local PAGE = jdbfs.PAGE_SIZE
      local f = assert(jdbfs.create(dir .. "/f"))
      local list = {}
      for i = 1, 5 do
        list[i] = {jdbfs.buffer(PAGE), (i - 1) * PAGE}
        list[i][1]:fill(i)
      end
      local ok, message, err = f:write_many(list)
      check("fails", ok == nil and err.kind == "Io" and err.name == "EIO", message)
      check("fields", err.index == 3 and err.offset == 2 * PAGE and err.length == PAGE, message)
      check("actual", err.actual == 0 and err.op == "write_many", message)
      for i = 1, 5 do io.write(f:read((i - 1) * PAGE, 1):byte(), " ") end
      check("again", f:write_many(list) == 5)
    ]], { env = { JDBFS_BACKEND = "threads" }, prefix = prefix })
    assert.equal("1 2 0 4 5 ", out)
  end)
end)

describe("a task that waits for a list", function()
  support.setup()

  task("can be cancelled; the list goes on unseen", function()
    local f = new()
    local b = jdbfs.buffer(64 * PAGE)
    b:fill(0x61)
    local list = {}
    for i = 0, 63 do list[i + 1] = { b, i * PAGE, i * PAGE, PAGE } end
    local writer = jdbfs.spawn(function() return f:write_many(list, "dsync") end)
    jdbfs.yield()
    writer:cancel()
    fails({ kind = "Cancelled" }, writer:join())
    list = nil
    collectgarbage()
    assert(list == nil)
    -- close waits for what the kernel has.
    assert.is_true(f:close())
    b:fill(0)
    support.wait_idle()
  end)

  task("loses nothing by a collection", function()
    local f = numbered(64)
    local tasks = {}
    for k = 1, 8 do
      tasks[k] = jdbfs.spawn(function()
        local b = jdbfs.buffer(64 * PAGE)
        local list = {}
        for i = 0, 63 do list[i + 1] = { b:slice(i * PAGE, PAGE), i * PAGE } end
        assert.equal(64, f:read_many(list))
        for i = 0, 63 do assert.equal(i, (byte_at(b, i))) end
        return true
      end)
      jdbfs.yield()
      collectgarbage()
    end
    for k = 1, 8 do assert.is_true((tasks[k]:join())) end
    f:close()
  end)

  task("is waited for by close", function()
    local f = new()
    local b = support.page(7)
    local list = {}
    for i = 0, 31 do list[i + 1] = { b, i * PAGE } end
    local writer = jdbfs.spawn(function() return f:write_many(list, "dsync") end)
    jdbfs.yield()
    assert.is_true(f:close())
    assert.equal(32, (assert(writer:join())))
  end)
end)

describe("a list of wrong things", function()
  support.setup()

  it("raises, and leaves nothing behind", function()
    local f = numbered(2)
    local good = { support.page(), 0 }
    local slots = jdbfs.stats().slots
    for _ = 1, 300 do
      for _, method in ipairs({ "read_many", "write_many" }) do
        local call = f[method]
        raises("table expected", call, f)
        raises("table expected", call, f, "x")
        raises("table expected", call, f, good[1])
        raises("file expected", call)
        raises("entry 2", call, f, { good, 5 })
        raises("entry 1", call, f, { "x" })
        local second = "entry 2 of the list: "
        raises(second .. "buffer: jdbfs buffer expected", call, f, { good, { "x", 0 } })
        raises(second .. "buffer: jdbfs buffer expected", call, f, { good, {} })
        raises(second .. "offset: number expected", call, f, { good, { good[1] } })
        raises(second .. "offset: number expected", call, f, { good, { good[1], "0" } })
        raises(second .. "buffer offset: number expected", call, f, { good, { good[1], 0, {} } })
        raises(second .. "length: number expected", call, f, { good, { good[1], 0, 0, true } })
      end
      raises("dsync", f.write_many, f, { good }, "fast")
      raises("string expected", f.write_many, f, { good }, true)
    end
    local s = jdbfs.stats()
    assert.equal(0, s.in_flight + s.waiting)
    assert.equal(slots, s.slots)
    good[1]:fill(1)
    f:close()
  end)
end)
