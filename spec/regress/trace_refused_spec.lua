-- A trace that cannot be read came as a traceback of a table when --size was given; without, who
-- asks for the size told it in one sentence. No trace at all was a failure (1) with --size, and
-- wrong usage (2) without.

local command = require("support_command")
local support = require("support")

describe("a trace that cannot be read", function()
  support.setup()

  it("is told in one sentence, with --size and without", function()
    if support.on_sim then return pending(support.on_sim) end
    local bad = support.path("bad.csv")
    support.put(bad, "0,jump,0,4096\n")
    for _, size in ipairs({ "--quiet", "--size=64k" }) do
      for path, said in pairs({ [support.path("none")] = "No such file",
        [bad] = 'bad.csv:1: "jump" is no operation' }) do
        local status, _, err = command("run", "replay", "--trace", path, "--quiet", size, "--dir",
          support.path("."))
        assert.are.equal(1, status, size)
        assert.is_truthy(err:find(said, 1, true), err)
        assert.matches("^jdbfs: [^\n]+\n$", err)
      end
      local status, _, err = command("run", "replay", "--quiet", size, "--dir", support.path("."))
      assert.are.equal(2, status, size)
      assert.are.equal("jdbfs: replay: --trace FILE is missing\n", err)
    end
  end)
end)
