-- All of a transfer, or an error that says how far it came: a request of 64 KiB is cut everywhere.

local support = require "support"
local support_faults = require "support_faults"

local jdbfs, faults = support.jdbfs, support_faults.faults
local SIZE = 65536
local PATTERN = {}
for i = 1, SIZE / 4 do PATTERN[i] = ("%04x"):format(i) end
PATTERN = table.concat(PATTERN)

local compared = 0

-- Cut at `cut`, then the rest: nothing, an error, or (of a read) the end of the file.
local function planned(point, cut, rest)
  if rest == "error" then return ("%s:short=%d;%s:nth=2:errno=EIO"):format(point, cut, point) end
  return ("%s:short=%d"):format(point, cut)
end

local function whole(f, method, b, cut, way)
  local before = jdbfs.stats().resubmitted
  faults.plan(planned(method, cut))
  local n, message
  if way == "list" then
    n, message = f[method == "read_at" and "read_many" or "write_many"](f, { { b, 0 } })
    n = n == 1 and SIZE
  else
    n, message = f[method](f, b, 0)
  end
  local injected = faults.injected()
  faults.plan()
  assert(n == SIZE, ("cut at %d: %s"):format(cut, tostring(message or n)))
  assert.are.equal(1, injected)
  assert.are.equal(before + 1, jdbfs.stats().resubmitted)
  compared = compared + 1
end

local function part(f, method, b, cut, align)
  faults.plan(planned(method, cut, "error"))
  local value, message, err = f[method](f, b, 0)
  local injected = faults.injected()
  faults.plan()
  assert.are.equal(2, injected)
  support.fails({ kind = "Io", name = "EIO", op = method, offset = 0, length = SIZE,
    actual = cut - cut % align }, value, message, err)
  compared = compared + 1
end

for _, direct in ipairs { "off", "prefer" } do
  describe("64 KiB, direct = " .. direct .. ",", function()
    support.setup()

    local function each_cut(body)
      local f = assert(jdbfs.create(support.path(), { direct = direct }))
      local b = assert(jdbfs.buffer(SIZE))
      local info = f:info()
      for cut = 512, SIZE - 512, 512 do body(f, b, cut, info) end
      f:close()
    end

    for _, way in ipairs { "alone", "list" } do
      it("written in two parts is whole (" .. way .. ")", function()
        each_cut(function(f, b, cut, info)
          -- What a device cannot cut is never cut by one: below a block nothing came through.
          if cut < info.write_alignment then return end
          b:set(0, PATTERN)
          assert(f:truncate(0))
          whole(f, "write_at", b, cut, way)
          support.same(PATTERN, f:read(0, SIZE))
        end)
      end)

      it("read in two parts is whole (" .. way .. ")", function()
        local cuts = 0
        each_cut(function(f, b, cut, info)
          if cut % info.read_alignment ~= 0 then return end -- the end of the file: see below
          b:set(0, PATTERN)
          assert(f:write_at(b, 0))
          b:fill(0)
          whole(f, "read_at", b, cut, way)
          support.same(PATTERN, b:string())
          cuts = cuts + 1
        end)
        assert.is_true(cuts > 0)
      end)
    end

    it("that fails in its second part says how much was written", function()
      each_cut(function(f, b, cut, info)
        if cut < info.write_alignment then return end
        b:fill(1)
        assert(f:write_at(b, 0))
        b:set(0, PATTERN)
        part(f, "write_at", b, cut, info.write_alignment)
        if cut % info.write_alignment == 0 then
          support.same(PATTERN:sub(1, cut) .. ("\1"):rep(SIZE - cut), f:read(0, SIZE))
        end
      end)
    end)

    it("that fails in its second part says how much was read", function()
      each_cut(function(f, b, cut, info)
        if cut % info.read_alignment ~= 0 then return end
        b:set(0, PATTERN)
        assert(f:write_at(b, 0))
        b:fill(1)
        part(f, "read_at", b, cut, info.read_alignment)
        support.same(PATTERN:sub(1, cut), b:string(0, cut))
      end)
    end)

    it("of which the file has less is a short read, at every length", function()
      each_cut(function(f, b, cut)
        b:set(0, PATTERN)
        assert(f:write_at(b, 0))
        assert(f:truncate(cut))
        b:fill(1)
        support.fails({ kind = "ShortRead", op = "read_at", actual = cut, offset = 0,
          length = SIZE }, f:read_at(b, 0))
        support.same(PATTERN:sub(1, cut), b:string(0, cut))
        assert.are.equal(cut, f:read_upto(b, 0))
        support.same(PATTERN:sub(1, cut), f:read(0, SIZE))
        compared = compared + 3
      end)
    end)

    it("is never written less than a block at a time for ever", function()
      local f = assert(jdbfs.create(support.path(), { direct = direct }))
      local b = assert(jdbfs.buffer(SIZE))
      local align = f:info().write_alignment
      if align > 1 then
        faults.plan(("write_at:short=%d:ever"):format(align / 2))
        local value, message, err = f:write_at(b, 0)
        faults.plan()
        support.fails({ kind = "ShortWrite", op = "write_at", length = SIZE }, value, message, err)
      end
      f:close()
    end)

    it("comes in as many parts as the system likes", function()
      local f = assert(jdbfs.create(support.path(), { direct = direct }))
      local b = assert(jdbfs.buffer(SIZE))
      for seed = 1, 40 do
        b:set(0, PATTERN)
        assert(f:truncate(0))
        faults.plan(("seed=%d;write_at:p=0.7:short;read_at:p=0.7:short"):format(seed))
        assert.are.equal(SIZE, f:write_at(b, 0))
        b:fill(0)
        assert.are.equal(SIZE, f:read_at(b, 0))
        faults.plan()
        support.same(PATTERN, b:string())
      end
      f:close()
    end)
  end)
end

describe("the splits", function()
  it("were all compared", function()
    support_faults.figures(("splits: %d transfers compared, 127 cuts of 64 KiB"):format(compared))
    assert.is_true(compared >= 127 * 2 * 3)
  end)
end)
