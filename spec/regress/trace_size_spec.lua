-- The size of the file that a trace needs counted the offsets of its flushes, too, which have none:
-- one absurd number behind "fsync" asked for a file that nothing can hold.

local support = require "support"
local replay = require "jdbfs.workload.replay"

describe("the size that a trace needs", function()
  support.setup()

  it("does not count what stands behind a flush", function()
    if support.on_sim then return pending(support.on_sim) end
    local path = support.path("trace")
    support.put(path, "0,r,4096,4096\n1,fsync,660000000000008146402,1\n2,d,,512\n")
    assert.equal(8192, replay.size({ trace = path }, 4096))
  end)
end)
