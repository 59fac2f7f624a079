-- A buffer made before a fork, used by a child that makes its first queue itself: atomic_write read
-- the parent's memory, which the child does not have, and ended the process.

local process = require "support_process"

describe("a forked child that has a queue of its own", function()
  process.setup()

  it("is told that its parent's buffers are not its own", function()
    local forker, why = process.forker()
    if not forker then return pending(why) end
    if os.getenv("JDBFS_TEST_SAN") == "thread" then
      return pending("the thread sanitizer cannot follow new threads in a forked child")
    end
    local out = process.script([[
      io.stdout:setvbuf("no")
      local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
      local batches = require("jdbfs.core").batches(b, b, "identity", 1)
      batches:put("x")
      local pid = forker.fork()
      if pid == 0 then
        local ok, problem = pcall(function()
          local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
          local log = assert(jdbfs.log(dir .. "/log"))
          for label, call in pairs {
            write_at = function() return f:write_at(b, 0) end,
            read_at = function() return f:read_at(b, 0) end,
            write_many = function() return f:write_many({ { b, 0 } }) end,
            atomic_write = function() return jdbfs.atomic_write(dir .. "/g", b) end,
            append = function() return log:append(b) end,
          } do
            local value, message, err = call()
            check(label, value == nil and err.kind == "Forked", value, message)
          end
          for label, call in pairs {
            put = function() return batches:put("y") end,
            take = function() return batches:take(512) end,
            fill = function() require("jdbfs.core").random(1, 1, 1):fill(b) end,
          } do
            local raised, message = pcall(call)
            check(label, not raised and (message:find("the b", 1, true)), message)
          end
          check("nothing was made", not jdbfs.exists(dir .. "/g"))
          local own = jdbfs.buffer(jdbfs.PAGE_SIZE)
          own:fill(7)
          check("its own", jdbfs.atomic_write(dir .. "/g", own))
          check("closed", log:close() and f:close())
        end)
        if not ok then io.stderr:write(tostring(problem), "\n") end
        forker._exit(ok and 0 or 9)
      end
      local status, signal = forker.waitpid(pid)
      check("the child", status == 0, status, signal)
      print("ok")
    ]], { forker = forker })
    assert.are.equal("ok\n", out)
  end)
end)
