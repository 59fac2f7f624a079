-- create() left the space that had been reserved behind the end of an empty file: "made or
-- truncated" was not so for it.

local support = require("support")
local jdbfs = support.jdbfs

describe("create", function()
  support.setup()

  support.both("gives back what was reserved for an empty file", function()
    if support.on_wine then return pending("wine reserves no space") end
    if support.fs() == "tmpfs" then return pending("tmpfs keeps no reservation without a size") end
    local path = support.path()
    local f = assert(jdbfs.create(path))
    assert(f:preallocate(64 * jdbfs.PAGE_SIZE, "keep_size"))
    assert(f:sync_all())
    assert(f:stat().allocated >= 64 * jdbfs.PAGE_SIZE)
    f:close()
    f = assert(jdbfs.create(path))
    assert(f:sync_all())
    assert.equal(0, f:stat().allocated)
    f:close()
  end)
end)
