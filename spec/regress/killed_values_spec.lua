-- A task that was ended with values on its coroutine that it had not got yet, its arguments or what
-- a join had answered, was said to have them as results: they were read below the stack.
-- In a process of its own, as that crashed on some Luas.
local process = require("support_process")

describe("a task that is cancelled", function()
  process.setup()

  local function ends(name, source)
    it(name, function()
      local out = process.script([[
        local function cancelled(task)
          local function look(...)
            local ok, _, err = ...
            check("join", select("#", ...) == 3 and ok == nil and err.kind == "Cancelled", ...)
          end
          look(task:join())
        end
      ]] .. source .. "\nprint('ok')")
      assert.equal("ok\n", out)
    end)
  end

  ends("before it starts has no results", [[
    jdbfs.run(function()
      local task = jdbfs.spawn(function() error("started") end, "argument", "another")
      task:cancel()
      cancelled(task)
    end)
  ]])

  ends("by the end of a run when its join was answered has no results", [[
    local task
    local ok, message = pcall(jdbfs.run, function()
      local joined = jdbfs.spawn(function() jdbfs.yield() return "a", "b", "c" end)
      jdbfs.spawn(function() joined:join() error("boom") end)
      task = jdbfs.spawn(function() joined:join() error("resumed") end)
      joined:join()
    end)
    check("raised", not ok and message:find("boom"), message)
    cancelled(task)
  ]])
end)
