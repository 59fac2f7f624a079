-- create() told success when the size of the file could not be asked: the old content stayed.

local process = require "support_process"
local support = require "support"

describe("create", function()
  process.setup()

  it("fails when it cannot learn whether there is something to cut off", function()
    local path = support.path("old")
    support.put(path, "old content")
    local prefix, why = process.strace("fstat,newfstatat:error=EIO:when=2", path)
    if not prefix then return pending(why) end
    local out = process.script([[
      local f, message, err = jdbfs.create(dir .. "/old", { direct = "prefer" })
      check("no success", f == nil, tostring(f))
      print(err.kind, err.name, err.op)
    ]], { prefix = prefix, env = { JDBFS_BACKEND = "threads" } })
    assert.are.equal("Io\tEIO\tcreate\n", out)
  end)
end)
