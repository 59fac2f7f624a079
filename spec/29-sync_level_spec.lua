-- How far flushes go, and which writes bypass the cache: option sync_level and what info() tells.
-- Only macOS has a level below "full"; `make check-macos` runs this as macOS would.

local support = require("support")
local lfs = support.lfs
local jdbfs = support.jdbfs
local both, fails, raises = support.both, support.fails, support.raises
local PAGE = jdbfs.PAGE_SIZE

local function has_barrier()
  return jdbfs.info().backend == "kqueue"
end

describe("option sync_level", function()
  support.setup()

  both("is full by default: a flush goes through the device's cache", function()
    for _, o in ipairs({ {}, { sync_level = "full" }, { dsync = true, sync_level = "full" } }) do
      local f = assert(jdbfs.create(support.path(), o))
      assert.equal("full", f:info().sync_level)
      assert(f:write_at(support.page(120), 0))
      assert(f:sync_data())
      assert(f:sync_all())
      assert.equal("full", f:info().sync_level)
      f:close()
    end
  end)

  both("= barrier is an order where the system has it, and refused elsewhere", function()
    local path = support.path()
    if not has_barrier() then
      for _, name in ipairs({ "create", "open_rw", "open_wal" }) do
        fails({ kind = "Unsupported", op = name, path = path, errno = "none",
                says = { "sync_level", "barrier" } }, jdbfs[name](path, { sync_level = "barrier" }))
      end
      assert.is_nil(lfs.attributes(path))
      return
    end
    local f = assert(jdbfs.create(path, { sync_level = "barrier" }))
    assert.equal("barrier", f:info().sync_level)
    assert.equal(PAGE, f:write_at(support.page(120), 0))
    assert(f:sync_data())
    assert(f:sync_all())
    assert.equal("barrier", f:info().sync_level)
    f:close()
  end)

  both("= barrier makes no write durable", function()
    local path = support.path()
    for _, name in ipairs({ "create", "open_rw" }) do
      fails({ kind = "Unsupported", op = name, path = path, says = "sync_level" },
        jdbfs[name](path, { sync_level = "barrier", dsync = true }))
    end
    fails({ kind = "Unsupported", op = "open_wal", path = path, says = "sync_level" },
      jdbfs.open_wal(path, { sync_level = "barrier" }))
    assert.is_nil(lfs.attributes(path))
    if not has_barrier() then return end
    local f = assert(jdbfs.create(path, { sync_level = "barrier" }))
    local want = { kind = "Unsupported", op = "write_at", path = path, says = "sync_level" }
    fails(want, f:write_at(support.page(), 0, 0, PAGE, "dsync"))
    want.op = "write_many"
    fails(want, f:write_many({ { support.page(), 0 } }, "dsync"))
    assert.equal(0, f:size())
    f:close()
  end)

  both("is one of its names", function()
    local path = support.path()
    for _, wrong in ipairs({ "os", "fast", true, 1 }) do
      raises("sync_level", jdbfs.create, path, { sync_level = wrong })
    end
    assert.is_nil(lfs.attributes(path))
  end)
end)

describe("direct_write_unit", function()
  support.setup()

  both("tells which writes bypass the cache, in info and probe", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local i = f:info()
    if i.direct then
      assert.is_true(i.direct_write_unit >= i.write_alignment)
      assert.equal(0, i.direct_write_unit % i.write_alignment)
    else
      assert.is_nil(i.direct_write_unit)
    end
    f:close()
    f = assert(jdbfs.create(support.path(), { direct = "off" }))
    assert.is_nil(f:info().direct_write_unit)
    f:close()
    local p = assert(jdbfs.probe(support.path("")))
    assert.equal(p.direct and i.direct_write_unit or nil, p.direct_write_unit)
  end)
end)
