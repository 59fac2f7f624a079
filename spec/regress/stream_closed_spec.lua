-- A stream of a closed file said "info: the file is closed" or "size: ...", calls that nobody had
-- made, instead of what was called.

local support = require "support"
local jdbfs, fails = support.jdbfs, support.fails

describe("a stream of a file that is closed", function()
  support.setup()

  local function closed(says)
    return { kind = "Closed", op = says, path = support.path("f"),
      says = says .. " " .. support.path("f") .. ": the file is closed" }
  end

  support.both("names the operation of the stream", function()
    local f = assert(jdbfs.create(support.path("f"), { direct = "prefer" }))
    local r, w = assert(jdbfs.reader(f)), assert(jdbfs.writer(f))
    assert.is_true(w:write("kept nowhere"))
    assert(f:close())
    fails(closed("reader"), jdbfs.reader(f))
    fails(closed("writer"), jdbfs.writer(f))
    fails(closed("read"), r:read(1))
    fails(closed("write"), w:sync())
    fails(closed("write"), w:close())
    r:close()
  end)
end)
