-- An open that was refused before it reached the system was told with a path in freed memory.

local jdbfs = require "jdbfs"
local support = require "support"

describe("an open that is refused without asking the system", function()
  support.setup()

  support.both("names its path", function()
    local path = support.path()
    for _ = 1, 20 do
      support.fails({ kind = "Unsupported", op = "open_wal", path = path, says = "barrier" },
        jdbfs.open_wal(path, { sync_level = "barrier" }))
    end
  end)
end)
