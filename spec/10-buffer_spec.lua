-- Buffers: memory that is zeroed, aligned, bounds-checked, and shared by its slices.

local support = require("support")
local jdbfs = support.jdbfs
local raises, fails = support.raises, support.fails
local PAGE = jdbfs.PAGE_SIZE

local has_ffi = rawget(_G, "jit") ~= nil
local integers = math.type ~= nil

-- The address as a number: exact below 2^53.
local function address(b)
  return tonumber(tostring(b:pointer()):match("(%x+)$"), 16)
end

describe("a buffer", function()
  support.setup()

  it("is zero-filled memory of the size asked for", function()
    for _, size in ipairs({ 1, 2, 511, 512, 513, PAGE - 1, PAGE, PAGE + 1, 3 * PAGE + 5 }) do
      local b = assert(jdbfs.buffer(size))
      assert.equal(size, #b)
      assert.equal(("\0"):rep(size), b:string())
    end
  end)

  it("is aligned to a page by default", function()
    for size = 1, 3 * PAGE, 1000 do
      local b = jdbfs.buffer(size)
      assert.equal(PAGE, b:align())
      assert.equal(0, address(b) % PAGE)
    end
  end)

  it("is aligned as asked, also beyond a page", function()
    for _, align in ipairs({ 1, 2, 512, PAGE, 2 * PAGE, 65536, 2 ^ 21 }) do
      local b = assert(jdbfs.buffer(10, align))
      assert.equal(align, b:align())
      assert.equal(0, address(b) % align)
      b:fill(255)
      assert.equal(("\255"):rep(10), b:string())
    end
  end)

  it("is not made with a size that is no size", function()
    fails({ kind = "Overflow", op = "buffer", path = "none" }, jdbfs.buffer(0))
    for _, case in ipairs(support.numbers()) do
      fails({ kind = "Overflow", op = "buffer", says = case[3] }, jdbfs.buffer(case[2]))
    end
  end)

  it("is not made when the memory cannot be had", function()
    fails({ kind = "Alloc", op = "buffer", path = "none" }, jdbfs.buffer(2 ^ 62))
    fails({ kind = "Alloc", op = "buffer" }, jdbfs.buffer(2 ^ 47))
    fails({ kind = "Alloc", op = "buffer" }, jdbfs.buffer(1, 2 ^ 62))
  end)

  it("is not made with an alignment that is none", function()
    for _, align in ipairs({ 0, 3, 511, PAGE + 1 }) do
      fails({ kind = "Alignment", op = "buffer" }, jdbfs.buffer(1, align))
    end
    fails({ op = "buffer", says = "negative" }, jdbfs.buffer(1, -512))
    fails({ op = "buffer", says = "not an integer" }, jdbfs.buffer(1, 0.5))
  end)

  it("raises when its size or alignment is no number", function()
    raises("expected", jdbfs.buffer)
    raises("number expected", jdbfs.buffer, nil)
    raises("number expected", jdbfs.buffer, "4096")
    raises("number expected", jdbfs.buffer, {})
    raises("number expected", jdbfs.buffer, 1, "512")
  end)

  it("names its kind and size as text", function()
    local b = jdbfs.buffer(100)
    assert.equal("jdbfs.buffer (100 bytes)", tostring(b))
    b:free()
    assert.equal("jdbfs.buffer (freed)", tostring(b))
  end)
end)

describe("a buffer's bytes", function()
  support.setup()

  it("are set and read as strings, from offset 0", function()
    local b = jdbfs.buffer(10)
    assert.is_true(b:set(0, "abc"))
    assert.is_true(b:set(7, "x\0z"))
    assert.equal("abc\0\0\0\0x\0z", b:string())
    assert.equal("c\0\0\0\0x\0z", b:string(2))
    assert.equal("bc", b:string(1, 2))
    assert.equal("z", b:string(9, 1))
    assert.equal("", b:string(4, 0))
    assert.equal("", b:string(10))
    assert.equal("", b:string(10, 0))
    assert.is_true(b:set(10, ""))
  end)

  it("are filled as a whole or in part", function()
    local b = jdbfs.buffer(6)
    assert.is_true(b:fill(0x61))
    assert.equal("aaaaaa", b:string())
    b:fill(0x62, 4)
    assert.equal("aaaabb", b:string())
    b:fill(0x63, 1, 2)
    assert.equal("accabb", b:string())
    b:fill(0x64, 2, 0)
    b:fill(0x64, 6)
    assert.equal("accabb", b:string())
    b:fill(255)
    b:fill(0, 5, 1)
    raises("a byte is 0 to 255", b.fill, b, 256)
    assert.equal("\255\255\255\255\255\0", b:string())
  end)

  it("are copied from another buffer", function()
    local a, b = jdbfs.buffer(4), jdbfs.buffer(8)
    a:set(0, "abcd")
    assert.is_true(b:copy(0, a))
    assert.is_true(b:copy(4, a, 2))
    assert.is_true(b:copy(7, a, 1, 1))
    assert.equal("abcdcd\0b", b:string())
    b:copy(8, a, 4)
    b:copy(8, a, 0, 0)
    assert.equal("abcdcd\0b", b:string())
  end)

  it("are copied rightly where source and target overlap", function()
    local b = jdbfs.buffer(8)
    b:set(0, "abcdefgh")
    b:copy(2, b, 0, 6)
    assert.equal("ababcdef", b:string())
    b:copy(0, b, 2, 6)
    assert.equal("abcdefef", b:string())
  end)

  it("are out of reach one byte beyond the end", function()
    local b, small = jdbfs.buffer(10), jdbfs.buffer(3)
    for _, call in ipairs({
      { b.string, b, 11 }, { b.string, b, 0, 11 }, { b.string, b, 10, 1 }, { b.string, b, 5, 6 },
      { b.set, b, 10, "x" }, { b.set, b, 11, "" }, { b.set, b, 0, ("x"):rep(11) },
      { b.fill, b, 0, 11 }, { b.fill, b, 0, 10, 1 }, { b.fill, b, 0, 0, 11 },
      { b.copy, b, 8, small }, { b.copy, b, 11, small, 3 }, { b.copy, b, 0, small, 4 },
      { b.copy, b, 0, small, 0, 4 }, { small.copy, small, 0, b },
      { b.slice, b, 0, 11 }, { b.slice, b, 11, 0 }, { b.slice, b, 10, 1 },
      { b.crc32c, b, 11 }, { b.crc32c, b, 10, 1 },
      { b.u8, b, 10 }, { b.u16, b, 9 }, { b.u32, b, 7 }, { b.u64, b, 3 }, { b.i32, b, 7 },
      { b.i64, b, 3 }, { b.f64, b, 3 }, { b.u8, b, 10, 1 }, { b.u64, b, 3, 1 },
      { b.string, b, 2 ^ 62 }, { b.string, b, 1, 2 ^ 62 }, { b.slice, b, 2 ^ 62, 2 ^ 62 },
    }) do
      raises("out of", call[1], call[2], call[3], call[4], call[5], call[6])
    end
    assert.equal(("\0"):rep(10), b:string())
  end)

  it("are not reached by a number that is no offset", function()
    local b = jdbfs.buffer(10)
    for _, case in ipairs(support.numbers()) do
      raises(case[3], b.string, b, case[2])
      raises(case[3], b.string, b, 0, case[2])
      raises(case[3], b.set, b, case[2], "x")
      raises(case[3], b.fill, b, 0, case[2])
      raises(case[3], b.slice, b, case[2], 1)
      raises(case[3], b.u8, b, case[2])
    end
    raises("number expected", b.string, b, "0")
    raises("number expected", b.slice, b, 0)
    raises("number expected", b.set, b)
    raises("string expected", b.set, b, 0, 65)
    raises("buffer expected", b.copy, b, 0, "abc")
    raises("buffer expected", b.string, io.stdout)
    raises("buffer expected", b.string)
  end)
end)

describe("typed access", function()
  support.setup()

  it("is little-endian", function()
    local b = jdbfs.buffer(16)
    b:u8(0, 0xab)
    assert.equal("\171", b:string(0, 1))
    b:u16(1, 0x1234)
    assert.equal("\052\018", b:string(1, 2))
    b:u32(3, 0x12345678)
    assert.equal("\120\086\052\018", b:string(3, 4))
    b:u64(7, 0x123456789a)
    assert.equal("\154\120\086\052\018\0\0\0", b:string(7, 8))
    b:i32(0, -2)
    assert.equal("\254\255\255\255", b:string(0, 4))
    b:i64(0, -3)
    assert.equal("\253\255\255\255\255\255\255\255", b:string(0, 8))
    b:f64(0, 1.5)
    assert.equal("\0\0\0\0\0\0\248\063", b:string(0, 8))
  end)

  it("returns true when it stores, the value when it loads", function()
    local b = jdbfs.buffer(8)
    for _, case in ipairs({
      { "u8", 0 }, { "u8", 255 }, { "u16", 65535 }, { "u32", 2 ^ 32 - 1 }, { "u64", 2 ^ 53 },
      { "i32", -2 ^ 31 }, { "i32", 2 ^ 31 - 1 }, { "i64", -2 ^ 53 }, { "i64", 2 ^ 53 },
      { "f64", 0.1 }, { "f64", -math.huge }, { "f64", 5e-324 },
    }) do
      assert.is_true(b[case[1]](b, 0, case[2]))
      assert.equal(case[2], b[case[1]](b, 0))
    end
    b:f64(0, 0 / 0)
    local nan = b:f64(0)
    assert.is_true(nan ~= nan)
  end)

  it("reads at any offset, aligned or not", function()
    local b = jdbfs.buffer(32)
    for off = 0, 24 do
      b:fill(0)
      b:u64(off, 0x0102030405)
      assert.equal(0x0102030405, b:u64(off))
      assert.equal(0x02030405, b:u32(off))
      assert.equal(5, b:u8(off))
    end
  end)

  it("refuses what does not fit", function()
    local b = jdbfs.buffer(8)
    for _, case in ipairs({
      { "u8", 256 }, { "u8", -1 }, { "u16", 65536 }, { "u32", 2 ^ 32 }, { "u32", -1 },
      { "i32", 2 ^ 31 }, { "i32", -2 ^ 31 - 1 }, { "u64", 2 ^ 64 }, { "i64", 2 ^ 63 },
      { "i64", -2 ^ 64 }, { "u8", 1.5 }, { "u64", 0.5 }, { "i64", 0 / 0 }, { "u64", math.huge },
    }) do
      raises("fit", b[case[1]], b, 0, case[2])
    end
    raises("number expected", b.u8, b, 0, "1")
    raises("number expected", b.f64, b, 0, {})
    assert.equal(("\0"):rep(8), b:string())
  end)

  it("holds all 64 bits exactly, or says that this Lua cannot", function()
    local b = jdbfs.buffer(8)
    b:set(0, "\1\0\0\0\0\0\0\128") -- 2^63 + 1
    if integers then
      assert.equal(math.mininteger + 1, b:u64(0))
      assert.equal(math.mininteger + 1, b:i64(0))
      b:u64(0, -1)
      assert.equal(("\255"):rep(8), b:string())
    elseif has_ffi then
      assert.equal("9223372036854775809ULL", tostring(b:u64(0)))
      assert.equal("-9223372036854775807LL", tostring(b:i64(0)))
      local value = b:u64(0)
      b:fill(0)
      b:u64(0, value)
      assert.equal("\1\0\0\0\0\0\0\128", b:string())
      b:i64(0, b:i64(0))
      assert.equal("\1\0\0\0\0\0\0\128", b:string())
    else
      raises("9223372036854775809", b.u64, b, 0)
      raises("-9223372036854775807", b.i64, b, 0)
    end
    assert.equal(2 ^ 31, b:u32(4) - (integers and 2 ^ 31 - 1 or 0))
  end)
end)

describe("CRC-32C", function()
  support.setup()

  it("gives the values of RFC 3720 and of the classic check", function()
    local b = jdbfs.buffer(32)
    assert.equal(0x8a9136aa, b:crc32c())
    b:fill(255)
    assert.equal(0x62a8ab43, b:crc32c())
    for i = 0, 31 do b:u8(i, i) end
    assert.equal(0x46dd794e, b:crc32c())
    for i = 0, 31 do b:u8(i, 31 - i) end
    assert.equal(0x113fdb5c, b:crc32c())
    b:set(0, "123456789")
    assert.equal(0xe3069283, b:crc32c(0, 9))
    assert.equal(0, b:crc32c(0, 0))
  end)

  it("depends on the bytes alone, not on where they lie", function()
    local b = jdbfs.buffer(2 * PAGE)
    for off = 0, 17 do
      b:fill(0x5a)
      b:set(off, "123456789")
      assert.equal(0xe3069283, b:crc32c(off, 9))
    end
    b:fill(0x5a)
    local whole = b:crc32c(100)
    assert.equal(whole, b:slice(100, 2 * PAGE - 100):crc32c())
    b:u8(2 * PAGE - 1, 0)
    assert.not_equal(whole, b:crc32c(100))
  end)

  it("is the same of many bytes at once as of few at a time", function()
    local b = jdbfs.buffer(2 * PAGE)
    for i = 0, #b - 1 do b:u8(i, i * 7919 % 251) end
    for _, len in ipairs { 503, 504, 505, 511, 512, 1007, 1008, 1009, 4096, 8000 } do
      for off = 0, 9 do
        local sum = 0
        for at = 0, len - 1, 100 do
          sum = b:crc32c(off + at, math.min(100, len - at), sum)
        end
        assert.equal(sum, b:crc32c(off, len))
      end
    end
  end)

  it("goes on from the checksum of the bytes before", function()
    local b = jdbfs.buffer(100)
    b:set(0, "123456789")
    for len = 0, 9 do assert.equal(0xe3069283, b:crc32c(len, 9 - len, b:crc32c(0, len))) end
    assert.equal(b:crc32c(), b:crc32c(50, 50, b:crc32c(0, 50)))
    for _, wrong in ipairs { -1, 0.5, 2 ^ 32 } do
      support.raises("bad argument", b.crc32c, b, 0, 1, wrong)
    end
  end)
end)

describe("a slice", function()
  support.setup()

  it("shares the memory", function()
    local b = jdbfs.buffer(100)
    local s = b:slice(10, 20)
    assert.equal(20, #s)
    s:set(0, "hello")
    assert.equal("hello", b:string(10, 5))
    b:set(29, "!")
    assert.equal("!", s:string(19))
    assert.equal(address(b) + 10, address(s))
    local t = s:slice(5, 15)
    t:set(0, "x")
    assert.equal("hellox", b:string(10, 6))
    assert.equal(0, #b:slice(100, 0))
  end)

  it("does not reach beyond its own range", function()
    local s = jdbfs.buffer(100):slice(10, 20)
    raises("out of", s.string, s, 0, 21)
    raises("out of", s.set, s, 20, "x")
    raises("out of", s.slice, s, 10, 11)
    raises("out of", s.u8, s, 20)
  end)

  it("tells the alignment it really has", function()
    local b = jdbfs.buffer(4 * PAGE)
    assert.equal(PAGE, b:slice(0, 10):align())
    assert.equal(PAGE, b:slice(PAGE, 10):align())
    assert.equal(512, b:slice(512, 10):align())
    assert.equal(512, b:slice(512 * 3, 10):align())
    assert.equal(4, b:slice(100, 10):align())
    assert.equal(1, b:slice(1, 10):align())
    assert.equal(1, b:slice(PAGE, 10):slice(1, 1):align())
  end)

  it("keeps the memory when the buffer is collected", function()
    local s
    do
      local b = jdbfs.buffer(100)
      b:set(0, "still here")
      s = b:slice(0, 10)
    end
    collectgarbage()
    collectgarbage()
    jdbfs.buffer(100):fill(255)
    assert.equal("still here", s:string())
  end)

  it("keeps the memory when the buffer is freed", function()
    local b = jdbfs.buffer(100)
    local s = b:slice(0, 10)
    b:set(0, "still here")
    b:free()
    assert.equal("still here", s:string())
    raises("freed", b.string, b)
  end)
end)

describe("a freed buffer", function()
  support.setup()

  it("gives its memory back at once", function()
    local before = jdbfs.stats().buffers
    local b = jdbfs.buffer(100)
    assert.equal(before + 1, jdbfs.stats().buffers)
    assert.is_true(b:free())
    assert.equal(before, jdbfs.stats().buffers)
  end)

  it("refuses every use", function()
    local b = jdbfs.buffer(100)
    local other = jdbfs.buffer(100)
    b:free()
    for _, call in ipairs({
      { b.string, b }, { b.set, b, 0, "x" }, { b.fill, b, 0 }, { b.copy, b, 0, other },
      { other.copy, other, 0, b }, { b.slice, b, 0, 1 }, { b.crc32c, b }, { b.pointer, b },
      { b.align, b }, { b.u8, b, 0 }, { b.u16, b, 0 }, { b.u32, b, 0 }, { b.u64, b, 0 },
      { b.i32, b, 0 }, { b.i64, b, 0 }, { b.f64, b, 0 },
      { function() return #b end },
    }) do
      raises("Closed", call[1], call[2], call[3], call[4])
    end
  end)

  it("may be freed again", function()
    local b = jdbfs.buffer(100)
    assert.is_true(b:free())
    assert.is_true(b:free())
  end)
end)

describe("a buffer in flight", function()
  support.setup()

  -- A task that has submitted `call` and waits. Nothing is reaped before the caller waits again.
  local function started(call)
    local task = jdbfs.spawn(call)
    jdbfs.yield()
    assert.equal("waiting", task:status())
    return task
  end

  local function file()
    local f = assert(jdbfs.create(support.path()))
    local b = jdbfs.buffer(8 * PAGE)
    b:fill(0x61)
    assert.equal(8 * PAGE, f:write_at(b, 0))
    return f, b
  end

  support.task("that is being read into is not the program's", function()
    local f, b = file()
    local task = started(function() return f:read_at(b, 0) end)
    raises("Busy", b.string, b)
    raises("Busy", b.string, b, 100, 1)
    raises("Busy", b.set, b, 0, "x")
    raises("Busy", b.fill, b, 0)
    raises("Busy", b.u8, b, 0)
    raises("Busy", b.u8, b, 0, 1)
    raises("Busy", b.crc32c, b)
    raises("Busy", b.free, b)
    raises("Busy", b.copy, b, 0, b:slice(0, 1))
    assert.equal("a", b:slice(0, 0):string() .. "a")
    assert.equal(8 * PAGE, task:join())
    assert.equal("a", b:string(0, 1))
    f:close()
  end)

  support.task("that is being written may be read, not changed", function()
    local f, b = file()
    local task = started(function() return f:write_at(b, 0) end)
    assert.equal("aa", b:string(0, 2))
    assert.equal(0x61, b:u8(7 * PAGE))
    assert.equal("number", type(b:crc32c()))
    raises("Busy", b.set, b, 0, "x")
    raises("Busy", b.u8, b, 0, 1)
    raises("Busy", b.fill, b, 0)
    raises("Busy", b.free, b)
    assert.equal(8 * PAGE, task:join())
    assert.is_true(b:set(0, "x"))
    f:close()
  end)

  support.task("is Busy for another operation", function()
    local f, b = file()
    local path = f:path()
    local want = { kind = "Busy", path = path, op = "read_at", errno = "none" }
    local task = started(function() return f:read_at(b, 0) end)
    want.offset, want.length, want.actual = PAGE, 8 * PAGE, 0
    fails(want, f:read_at(b, PAGE))
    want.op, want.offset, want.length = "read_upto", 0, PAGE
    fails(want, f:read_upto(b, 0, 7 * PAGE, PAGE))
    want.op = "write_at"
    fails(want, f:write_at(b, 0, 0, PAGE))
    fails(want, f:write_at(b:slice(PAGE, PAGE), 0))
    assert.equal(8 * PAGE, task:join())

    task = started(function() return f:write_at(b, 0) end)
    want.op = "read_at"
    fails(want, f:read_at(b, 0, PAGE, PAGE))
    assert.equal(8 * PAGE, f:write_at(b, 8 * PAGE))
    assert.equal(8 * PAGE, task:join())
    assert.equal(16 * PAGE, f:size())
    f:close()
  end)

  support.task("is in flight only where the operation works", function()
    local f, b = file()
    local task = started(function() return f:read_at(b, 0, 2 * PAGE, PAGE) end)
    assert.is_true(b:set(2 * PAGE - 1, "x"))
    assert.is_true(b:set(3 * PAGE, "x"))
    raises("Busy", b.set, b, 2 * PAGE - 1, "xx")
    raises("Busy", b.set, b, 3 * PAGE - 1, "x")
    assert.equal("x", b:string(3 * PAGE, 1))
    task:join()
    f:close()
  end)

  support.task("may have many disjoint slices in flight at once", function()
    local f, b = file()
    for i = 0, 7 do b:fill(0x41 + i, i * PAGE, PAGE) end
    assert.equal(8 * PAGE, f:write_at(b, 0))
    b:fill(0)
    local tasks = {}
    for i = 0, 7 do
      local s = b:slice((7 - i) * PAGE, PAGE)
      tasks[i] = jdbfs.spawn(function() return f:read_at(s, i * PAGE) end)
    end
    for i = 0, 7 do assert.equal(PAGE, tasks[i]:join()) end
    for i = 0, 7 do
      assert.equal(string.char(0x41 + i):rep(PAGE), b:string((7 - i) * PAGE, PAGE))
    end
    f:close()
  end)
end)

describe("a pool of buffers", function()
  support.setup()

  it("hands out what was put back", function()
    local pool = assert(jdbfs.pool(2, PAGE))
    local a, b = pool:get(), pool:get()
    assert.is_true(a ~= b)
    assert.equal(PAGE, #a)
    assert.equal(PAGE, b:align())
    assert.is_true(pool:put(a))
    assert.equal(a, pool:get())
  end)

  support.task("makes a task wait until there is one", function()
    local pool = jdbfs.pool(1, PAGE)
    local order = {}
    local function use(name)
      local b = pool:get()
      order[#order + 1] = name .. " has it"
      jdbfs.yield()
      order[#order + 1] = name .. " is done"
      pool:put(b)
    end
    local tasks = {}
    for i = 1, 3 do tasks[i] = jdbfs.spawn(use, "task " .. i) end
    for i = 1, 3 do tasks[i]:join() end
    assert.same({
      "task 1 has it", "task 1 is done", "task 2 has it", "task 2 is done", "task 3 has it",
      "task 3 is done",
    }, order)
  end)

  it("refuses what is not its own", function()
    local pool = jdbfs.pool(1, PAGE)
    local b = pool:get()
    raises("not a buffer taken from this pool", pool.put, pool, jdbfs.buffer(PAGE))
    pool:put(b)
    raises("not a buffer taken from this pool", pool.put, pool, b)
    raises("not a buffer taken from this pool", pool.put, pool, nil)
  end)

  it("needs a count and a size that can be", function()
    raises("integer from 1", jdbfs.pool, 0, PAGE)
    raises("integer from 1", jdbfs.pool, 1.5, PAGE)
    raises("integer from 1", jdbfs.pool, nil, PAGE)
    fails({ kind = "Overflow", op = "buffer" }, jdbfs.pool(1, 0))
    fails({ kind = "Alloc", op = "buffer" }, jdbfs.pool(1, 2 ^ 62))
  end)
end)
