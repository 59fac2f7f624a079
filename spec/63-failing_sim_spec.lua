-- The command on a disk that fails: the operations of a run fail in turn, on the simulated disk.

local command = require "support_command"
local jdbfs = require "jdbfs"
local sim = require "jdbfs.sim"
local stamp = require "jdbfs.command.stamp"
local support = require "support"

local MOST = 60 -- the first operations of a run, each of which fails in a run of its own

local function run(words)
  local all = { "run", "--dir", ".", "--quiet", "--json", "-", "--warmup", "0s", "--seed", "1" }
  for _, word in ipairs(words) do all[#all + 1] = word end
  return command((table.unpack or unpack)(all)) -- luacheck: ignore 113
end

describe("the command on a disk that fails", function()
  -- The bytes of stamped pages are made once.
  setup(function()
    stamp.write(jdbfs.buffer(4096), 0, 4096, { file = 1, page = 0, generation = 1, seed = 1 })
  end)

  support.setup()

  for _, words in ipairs {
    { "randwrite", "--size", "64k", "--ops", "4", "--qd", "2", "--sync", "fdatasync" },
    { "randwrite", "--size", "64k", "--ops", "4", "--qd", "2", "--sync", "fdatasync", "--verify",
      "--state", "state" },
    { "randread", "--file", "mine", "--size", "64k", "--ops", "4" },
    { "wal", "--ops", "4" },
    { "syncs", "--size", "64k" },
    { "pages", "--ops", "4", "--size", "64k" },
    { "lsm", "--ops", "4", "--data", "4m", "--memtable", "64k" },
  } do
    it("says what " .. table.concat(words, " ") .. " met", function()
      if not support.on_sim then return pending("needs JDBFS_BACKEND=sim") end
      for n = 1, MOST do
        assert(sim.reset { seed = n })
        assert(sim.fault { nth = n, errno = "EIO" })
        local status, out, err = run(words)
        local met = sim.state().faults > 0
        local said = ("operation %d: status %d, %s"):format(n, status, err)
        assert(status == 0 or met and status <= 2 and (out .. err):find("EIO", 1, true), said)
        assert(not err:find("traceback", 1, true), said)
        assert(met or n > 10, "nothing failed")
        if not met then break end
      end
    end)
  end

  it("names the pages that verify cannot read", function()
    if not support.on_sim then return pending("needs JDBFS_BACKEND=sim") end
    local unreadable = 0
    for n = 1, MOST do
      assert(sim.reset { seed = n })
      assert(jdbfs.mkdir("simulated")) -- where the real files of the command cannot be
      assert.are.equal(0, (run { "randwrite", "--file", "simulated/file", "--keep", "--verify",
        "--size", "64k", "--ops", "4" }))
      assert(sim.fault { nth = n, count = 2, errno = "EIO" })
      local status, out, err = command("verify", "simulated/file")
      if sim.state().faults == 0 then break end
      assert(status == 0 or err:find("EIO", 1, true) and not err:find("traceback", 1, true), err)
      if out:find("unreadable", 1, true) then unreadable = unreadable + 1 end
    end
    assert.is_true(unreadable > 0)
  end)
end)
