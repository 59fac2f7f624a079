-- Alignment of direct I/O: jdbfs's own verdict, before any submission, the same everywhere.
-- btrfs and tmpfs would take misaligned transfers and buffer them silently; ext4 and xfs would
-- answer with a bare EINVAL.

local support = require("support")
local jdbfs = support.jdbfs
local both, fails = support.both, support.fails
local PAGE = jdbfs.PAGE_SIZE

local METHODS = { "read_at", "read_upto", "write_at" }

local function opened(o)
  local f = assert(jdbfs.create(support.path(), o))
  local b = jdbfs.buffer(4 * PAGE)
  b:fill(0x61)
  assert.equal(4 * PAGE, f:write_at(b, 0))
  return f, b
end

-- What this method needs: offset and length, memory.
local function needs(f, method)
  local i = f:info()
  return method == "write_at" and i.write_alignment or i.read_alignment, i.memory_alignment
end

-- Asserts a refusal that names the field, and that nothing was submitted or changed.
local function refused(f, method, field, need, ...)
  local before = jdbfs.stats()
  local b, off, b_off, len = ...
  local whole = b:string()
  b_off = b_off or 0
  local err = fails({
    kind = "Alignment", op = method, path = f:path(), offset = off, length = len or #b - b_off,
    actual = 0, errno = "none", says = { field, ("%d"):format(need) },
  }, f[method](f, ...))
  for _, other in ipairs({ "offset", "length", "memory address" }) do
    local named = err.message:find(other .. " is not a multiple", 1, true) ~= nil
    assert.equal(other == field, named, err.message)
  end
  local after = jdbfs.stats()
  assert.equal(before.submitted, after.submitted)
  assert.equal(before.entries, after.entries)
  assert.equal(before.pool_operations, after.pool_operations)
  assert.equal(whole, b:string())
  return err
end

describe("a direct transfer", function()
  support.setup()

  for _, method in ipairs(METHODS) do
    both(method .. " with a misaligned offset is refused, naming the offset", function()
      local f, b = opened()
      local need = needs(f, method)
      for _, off in ipairs({ 1, 4, 100, need - 1, need + 1, need / 2, PAGE + 1, 3 * need / 2 }) do
        refused(f, method, "offset", need, b, off, 0, PAGE)
      end
      refused(f, method, "offset", need, b, 2 ^ 53 - 1, 0, PAGE)
      f:close()
    end)

    both(method .. " with a misaligned length is refused, naming the length", function()
      local f, b = opened()
      local need = needs(f, method)
      for _, len in ipairs({ 1, 4, 100, need - 1, need + 1, need / 2, PAGE + 100 }) do
        refused(f, method, "length", need, b, 0, 0, len)
      end
      -- The whole of a buffer whose size is no multiple, and the rest behind a buffer offset.
      refused(f, method, "length", need, jdbfs.buffer(PAGE + 100), 0)
      refused(f, method, "length", need, b:slice(0, 100), 0)
      refused(f, method, "length", need, jdbfs.buffer(PAGE + 100), 0, PAGE)
      f:close()
    end)

    both(method .. " with misaligned memory is refused, naming the memory", function()
      local f, b = opened()
      local _, need = needs(f, method)
      if need == 1 then return pending("this file needs no memory alignment") end
      for _, at in ipairs({ 1, 4, 8, need - 1, need + 1, need / 2, PAGE + 1 }) do
        refused(f, method, "memory address", need, b, 0, at, PAGE)
        refused(f, method, "memory address", need, b:slice(at, PAGE), 0)
      end
      -- A slice and a buffer offset add up.
      refused(f, method, "memory address", need, b:slice(need, 2 * PAGE), 0, need / 2, PAGE)
      local half = need / 2
      assert.equal(PAGE, f[method](f, b:slice(half, 2 * PAGE), 0, half, PAGE))
      f:close()
    end)

    both(method .. " of no bytes is checked as well", function()
      local f, b = opened()
      local need, memory = needs(f, method)
      refused(f, method, "offset", need, b, 1, 0, 0)
      if memory > 1 then refused(f, method, "memory address", memory, b, 0, 1, 0) end
      f:close()
    end)

    both(method .. " at exactly the alignment that info names is done", function()
      local f, b = opened()
      local need, memory = needs(f, method)
      for i = 0, 3 do
        assert.equal(need, f[method](f, b, i * need, i * memory, need))
        assert.equal(need, f[method](f, b:slice(i * memory, need), i * need))
      end
      assert.equal(4 * PAGE, f:size())
      f:close()
    end)

    both(method .. " with option direct = off needs no alignment", function()
      local f, b = opened({ direct = "off" })
      assert.equal(5, f[method](f, b, 3, 1, 5))
      assert.equal(1, f[method](f, b:slice(7, 1), 4 * PAGE - 1))
      assert.equal(100, f[method](f, jdbfs.buffer(100), 1))
      f:close()
    end)
  end

  both("that was refused has left the file as it was", function()
    local f, b = opened()
    b:fill(0x62)
    for _, case in ipairs({ { 1, 0, PAGE }, { 0, 1, PAGE }, { 0, 0, 1 }, { PAGE, 0, PAGE + 1 } }) do
      fails({ kind = "Alignment" }, f:write_at(b, case[1], case[2], case[3]))
    end
    assert.equal(4 * PAGE, f:size())
    local path = f:path()
    f:close()
    support.holds(path, ("a"):rep(4 * PAGE))
  end)

  both("with option direct = prefer is checked alike where direct I/O is in force", function()
    local f, b = opened({ direct = "prefer" })
    assert.is_true(f:info().direct)
    for _, method in ipairs(METHODS) do
      local need = needs(f, method)
      refused(f, method, "offset", need, b, 1, 0, PAGE)
      refused(f, method, "length", need, b, 0, 0, 1)
    end
    f:close()
  end)

  both("of a wal file is checked alike", function()
    local f = assert(jdbfs.open_wal(support.path()))
    local need = needs(f, "write_at")
    refused(f, "write_at", "offset", need, support.page(), 100)
    refused(f, "write_at", "length", need, jdbfs.buffer(100), 0)
    assert.equal(0, f:size())
    f:close()
  end)

  both("is fine with PAGE_SIZE unless info says more", function()
    local f = opened()
    local i = f:info()
    for _, name in ipairs({ "memory_alignment", "read_alignment", "write_alignment" }) do
      local n = i[name]
      assert.is_true(n >= 1 and 2 ^ math.floor(math.log(n) / math.log(2) + 0.5) == n, name)
      local told = not i.alignment_source:find("one page", 1, true)
      if not told then assert.equal(PAGE, n, name) end
      assert.is_true(n <= PAGE, name)
    end
    f:close()
  end)

  both("needs what the file system says, not a constant", function()
    local expected = ({ ext4 = 512, xfs = 512, btrfs = PAGE, tmpfs = PAGE })[support.fs()]
    local f = opened()
    local i = f:info()
    if not expected or (expected == 512 and i.alignment_source ~= "statx") then
      f:close()
      return pending("the system gives no alignment for " .. support.fs())
    end
    -- A device with larger sectors would say so.
    assert.is_true(i.write_alignment >= 512 and i.write_alignment <= expected
      or i.alignment_source == "statx", i.alignment_source)
    if expected == PAGE then assert.equal(PAGE, i.write_alignment) end
    f:close()
  end)
end)

describe("what needs no alignment", function()
  support.setup()

  both("is read, truncate, preallocate and size", function()
    local f = opened()
    assert.equal("aaaaa", f:read(1, 5))
    assert.is_true(f:truncate(5))
    assert.equal(5, f:size())
    assert.equal("aaaaa", f:read(0, 5))
    assert.is_true(f:preallocate(1001))
    assert.equal(1001, f:size())
    f:close()
  end)
end)

describe("several faults at once", function()
  support.setup()

  both("are refused before a busy buffer or a read-only handle matter to the file", function()
    local path = support.path()
    support.put(path, ("a"):rep(PAGE))
    local f = assert(jdbfs.open(path))
    local err = select(3, f:write_at(support.page(), 1, 1, 1))
    assert.truthy(err.kind == "Io" or err.kind == "Alignment")
    f:close()
    err = select(3, f:read_at(support.page(), 1, 1, 1))
    assert.equal("Closed", err.kind)
    support.holds(path, ("a"):rep(PAGE))
  end)
end)
