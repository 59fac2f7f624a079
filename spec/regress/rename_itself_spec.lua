-- rename with noreplace told success for a file that was to get the name it has: Windows calls that
-- done. The model found it.

local support = require "support"
local jdbfs = support.jdbfs

describe("rename with noreplace", function()
  support.setup()

  support.both("to the name that a file has is refused, and changes nothing", function()
    local path = support.path("x")
    support.put(path, "content")
    for _, durable in ipairs({ true, false }) do
      support.fails({ kind = "Io", op = "rename", path = path, name = "EEXIST" },
        jdbfs.rename(path, path, { noreplace = true, durable = durable }))
    end
    assert.is_true(jdbfs.rename(path, path))
    support.holds(path, "content")
  end)
end)
