-- mkdir() of a directory that exists told EEXIST, which it never means, when looking at it failed.

local process = require "support_process"
local support = require "support"

describe("mkdir", function()
  process.setup()

  it("tells why an existing name could not be looked at", function()
    local path = support.path("there")
    assert(support.jdbfs.mkdir(path))
    local prefix, why = process.strace("stat,newfstatat:error=EIO:when=1", path)
    if not prefix then return pending(why) end
    local out = process.script([[
      local made, message, err = jdbfs.mkdir(arg[3])
      check("no success", made == nil, message)
      print(err.kind, err.name, err.op)
    ]], { args = { path }, prefix = prefix, env = { JDBFS_BACKEND = "threads" } })
    assert.are.equal("Io\tEIO\tmkdir\n", out)
  end)

  it("says EEXIST where a link to nowhere has the name", function()
    if support.on_wine then return pending("wine makes no links to nowhere") end
    local path = support.path("dangling")
    assert(require("lfs").link("nowhere", path, true))
    local made, _, err = support.jdbfs.mkdir(path)
    assert.is_nil(made)
    assert.are.equal("EEXIST", err.name)
  end)
end)
