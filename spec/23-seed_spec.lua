-- The own tests of the library whose interface jdbfs continues (jdb_fs 0.1 and its allocator), as
-- cases for jdbfs. The numbers in the names are theirs.

local support = require("support")
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function padded(text)
  local b = support.page()
  b:set(0, text)
  return b
end

local function written(path, text)
  local f = assert(jdbfs.create(path))
  assert.equal(PAGE, f:write_at(padded(text), 0))
  assert.is_true(f:sync_all())
  assert.is_true(f:close())
end

describe("the seed's file tests", function()
  support.setup()

  both("1: a created file has size 0", function()
    local f = assert(jdbfs.create(support.path()))
    assert.equal(0, f:size())
    f:close()
  end)

  both("2: a padded page is written, synced and read back", function()
    local f = assert(jdbfs.create(support.path()))
    assert.equal(PAGE, f:write_at(padded("hello"), 0))
    assert.is_true(f:sync_data())
    local b = support.page(0xff)
    assert.equal(PAGE, f:read_at(b, 0))
    support.same("hello" .. ("\0"):rep(PAGE - 5), b:string())
    f:close()
  end)

  both("3: two pages keep their first and last bytes; the size is two pages", function()
    local f = assert(jdbfs.create(support.path()))
    assert.equal(PAGE, f:write_at(support.page(0x11), 0))
    assert.equal(PAGE, f:write_at(support.page(0x22), PAGE))
    local b = support.page()
    for i, byte in ipairs({ 0x11, 0x22 }) do
      assert.equal(PAGE, f:read_at(b, (i - 1) * PAGE))
      assert.equal(byte, b:u8(0))
      assert.equal(byte, b:u8(PAGE - 1))
    end
    assert.equal(2 * PAGE, f:size())
    f:close()
  end)

  both("4: four pages written one by one are read by one call", function()
    local f = assert(jdbfs.create(support.path()))
    for i = 0, 3 do assert.equal(PAGE, f:write_at(support.page(i + 1), i * PAGE)) end
    local b = jdbfs.buffer(4 * PAGE)
    assert.equal(4 * PAGE, f:read_at(b, 0))
    for i = 0, 3 do
      assert.equal(i + 1, b:u8(i * PAGE))
      assert.equal(i + 1, b:u8((i + 1) * PAGE - 1))
    end
    f:close()
  end)

  both("5: what was written is read after open_rw", function()
    local path = support.path()
    written(path, "persist")
    local f = assert(jdbfs.open_rw(path))
    local b = support.page()
    assert.equal(PAGE, f:read_at(b, 0))
    assert.equal("persist\0", b:string(0, 8))
    f:close()
  end)

  both("6: what was written is read after open", function()
    local path = support.path()
    written(path, "read only")
    local f = assert(jdbfs.open(path))
    local b = support.page()
    assert.equal(PAGE, f:read_at(b, 0))
    assert.equal("read only\0", b:string(0, 10))
    f:close()
  end)

  both("7: directories, listing, size, rename and remove", function()
    local dir = support.path("a") .. "/b/c"
    assert.is_false(jdbfs.exists(dir))
    assert.is_true(jdbfs.mkdir(dir))
    assert.is_true(jdbfs.exists(dir))
    assert.is_true(jdbfs.sync_dir(dir))
    local file, moved = dir .. "/file", dir .. "/moved"
    support.put(file, "12345")
    assert.same({ "file" }, jdbfs.ls(dir))
    assert.equal(5, jdbfs.size(file))
    assert.is_true(jdbfs.rename(file, moved))
    assert.is_false(jdbfs.exists(file))
    assert.is_true(jdbfs.exists(moved))
    assert.is_true(jdbfs.remove(moved))
    assert.is_false(jdbfs.exists(moved))
  end)

  both("8: the whole life of a file", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.equal(0, f:size())
    local page = support.page(0xaa)
    assert.equal(PAGE, f:write_at(page, 0))
    assert.equal(PAGE, f:size())
    assert.is_true(f:sync_data())
    assert.is_true(f:sync_all())
    local b = support.page()
    assert.equal(PAGE, f:read_at(b, 0))
    support.same(page:string(), b:string())
    assert.is_true(f:close())
    f = assert(jdbfs.open_rw(path))
    assert.equal(PAGE, f:size())
    local g = assert(jdbfs.open(path))
    b:fill(0)
    assert.equal(PAGE, g:read_at(b, 0))
    support.same(page:string(), b:string())
    assert.is_true(g:close())
    assert.is_true(f:close())
    assert.is_true(jdbfs.remove(path))
    assert.is_false(jdbfs.exists(path))
  end)

  both("9: preallocate, truncate, and open_wal on what is there", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert.is_true(f:preallocate(2 * PAGE))
    assert.is_true(f:truncate(PAGE))
    assert.equal(PAGE, f:size())
    assert.is_true(f:close())
    f = assert(jdbfs.open_wal(path))
    assert.equal(PAGE, f:size())
    assert.equal(PAGE, f:write_at(padded("wal"), 0))
    assert.is_true(f:close())
    support.holds(path, "wal" .. ("\0"):rep(PAGE - 3))
  end)

  both("10: a misaligned offset and a misaligned length are Alignment", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    fails({ kind = "Alignment", op = "write_at", path = path, offset = 100, says = "offset" },
      f:write_at(support.page(), 100))
    fails({ kind = "Alignment", op = "read_at", path = path, length = PAGE + 100,
      says = "length" }, f:read_at(jdbfs.buffer(PAGE + 100), 0))
    f:close()
  end)
end)

-- Where the seed has capacity and length, jdbfs has one size, and slices.
describe("the seed's buffer tests", function()
  support.setup()

  it("small, large, and no capacity", function()
    assert.equal(100, #jdbfs.buffer(100))
    assert.equal(2 ^ 20, #jdbfs.buffer(2 ^ 20))
    fails({ kind = "Overflow", op = "buffer" }, jdbfs.buffer(0))
  end)

  it("zeroed: small, large, and one byte", function()
    for _, size in ipairs({ 100, 3 * PAGE, 1 }) do
      local b = jdbfs.buffer(size)
      assert.equal(size, #b)
      support.same(("\0"):rep(size), b:string())
    end
  end)

  it("a page is zeroed and aligned", function()
    local b = jdbfs.buffer(PAGE)
    assert.equal(PAGE, #b)
    support.same(("\0"):rep(PAGE), b:string())
    assert.equal(PAGE, b:align())
    assert.truthy(tostring(b:pointer()):find("000$"))
  end)

  it("bytes are put in: exactly full, one too many, none", function()
    local b = jdbfs.buffer(PAGE)
    assert.is_true(b:set(0, ("x"):rep(PAGE)))
    support.same(("x"):rep(PAGE), b:string())
    raises("out of", b.set, b, 0, ("y"):rep(PAGE + 1))
    raises("out of", b.set, b, PAGE, "y")
    assert.is_true(b:set(PAGE, ""))
    support.same(("x"):rep(PAGE), b:string())
  end)

  it("cut to the same, a larger, a smaller size, and to nothing", function()
    local b = jdbfs.buffer(100)
    b:set(0, "abc")
    assert.equal(100, #b:slice(0, 100))
    raises("out of", b.slice, b, 0, 101)
    assert.equal("abc", b:slice(0, 3):string())
    assert.equal(0, #b:slice(0, 0))
    assert.equal("", b:slice(0, 0):string())
  end)

  it("a copy has another address and equal content", function()
    local b = jdbfs.buffer(100)
    b:set(0, "abc")
    local c = jdbfs.buffer(#b)
    c:copy(0, b)
    assert.equal(b:string(), c:string())
    assert.is_true(b:pointer() ~= c:pointer())
    c:set(0, "x")
    assert.equal("abc", b:string(0, 3))
  end)

  it("the text of a buffer names its size", function()
    assert.truthy(tostring(jdbfs.buffer(4196)):find("4196", 1, true))
  end)

  it("ten buffers are all aligned", function()
    local all = {}
    for i = 1, 10 do
      all[i] = jdbfs.buffer(i * 1000)
      assert.truthy(tostring(all[i]:pointer()):find("000$"))
    end
  end)

  it("slices lie one behind the other, aligned", function()
    local b = jdbfs.buffer(4 * PAGE)
    local start = tonumber(tostring(b:pointer()):match("(%x+)$"), 16)
    for i = 0, 3 do
      local s = b:slice(i * PAGE, PAGE)
      assert.equal(start + i * PAGE, tonumber(tostring(s:pointer()):match("(%x+)$"), 16))
      assert.equal(PAGE, s:align())
      s:fill(i)
    end
    for i = 0, 3 do assert.equal(i, b:u8(i * PAGE)) end
  end)

  both("a slice goes to the file and back", function()
    local f = assert(jdbfs.create(support.path()))
    local b = jdbfs.buffer(4 * PAGE)
    b:fill(0x33, 2 * PAGE, PAGE)
    assert.equal(PAGE, f:write_at(b:slice(2 * PAGE, PAGE), 0))
    assert.equal(PAGE, f:read_at(b:slice(0, PAGE), 0))
    support.same(("\51"):rep(PAGE), b:string(0, PAGE))
    f:close()
  end)
end)
