-- What a process of --procs met before its run began came as a traceback on standard error, and as
-- "process 1 ended with status 1" in the result.

local support = require("support")

describe("a process of --procs that refuses its words", function()
  support.setup()

  it("is quoted by its parent", function()
    if support.on_sim then return pending(support.on_sim) end
    local sanitizer = os.getenv("JDBFS_TEST_SAN")
    if sanitizer == "address" or sanitizer == "thread" then
      return pending("processes that are started do not have the sanitizer")
    end
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    if not interpreter then return pending("no JDBFS_TEST_LUA") end
    local path, dir = support.path("w.lua"), support.path("run")
    assert(support.jdbfs.mkdir(dir))
    support.put(path, [[
      if package.loaded["jdbfs.command.worker"] then error("only there", 0) end
      return function(ctx) ctx.file:read() end]])
    local status, out = support.sh(("%s lua/bin/jdbfs run %s --procs 2 --time 300ms --size 1m"
      .. " --warmup 0s --quiet --dir %s 2>&1"):format(interpreter, support.quote(path),
      support.quote(dir)))
    assert.are.equal(1, status)
    assert.matches("jdbfs: process 1: [^\n]*only there\n", out)
    assert.is_nil(out:find("traceback", 1, true))
  end)
end)
