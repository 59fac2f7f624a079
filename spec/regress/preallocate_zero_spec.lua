-- preallocate(len, "zero") left the size as it was when len was the end of the block in which the
-- file ended.

local support = require("support")
local jdbfs = support.jdbfs
local PAGE = jdbfs.PAGE_SIZE

describe("preallocate with zeros", function()
  support.setup()

  support.both("grows a file to the end of its last block", function()
    for _, size in ipairs({ 1, 100, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE - 1 }) do
      local path = support.path()
      support.put(path, ("x"):rep(size))
      local f = assert(jdbfs.open_rw(path))
      assert.is_true(f:preallocate(2 * PAGE, "zero"))
      assert.equal(2 * PAGE, f:size())
      f:close()
      support.holds(path, ("x"):rep(size) .. ("\0"):rep(2 * PAGE - size))
    end
  end)
end)
