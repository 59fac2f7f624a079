-- jdbfs.host.tarantool. A fiber waits on a condition variable; one fiber of ours waits for the
-- queue's descriptor. Fibers have stacks of their own: operations overlap inside any coroutine,
-- callback or iterator that runs in a fiber.

-- A second for a wait would be polling; this is the longest that the API takes safely.
local LONG = 100 * 365 * 86400

return function()
  local fiber = require "fiber"
  local socket = require "socket"
  if not fiber.cond or not socket.iowait then
    return nil, "this Tarantool lacks fiber.cond or socket.iowait"
  end
  local free = {}
  local adapter = { name = "tarantool", stackful = true }

  function adapter.current()
    local n = #free
    local token = free[n]
    free[n] = nil
    return token or { cond = fiber.cond() }
  end

  -- Raises when the fiber was cancelled.
  function adapter.suspend(token)
    token.fiber = fiber.self()
    fiber.testcancel()
    token.cond:wait()
    fiber.testcancel()
  end

  function adapter.wake(token)
    token.cond:signal()
  end

  function adapter.alive(token)
    return token.fiber == nil or token.fiber:status() ~= "dead"
  end

  function adapter.release(token)
    token.fiber = nil
    free[#free + 1] = token
  end

  function adapter.watch(fd, on_ready)
    local watcher = fiber.new(function()
      while true do
        socket.iowait(fd, "R", LONG)
        on_ready()
      end
    end)
    watcher:name("jdbfs")
  end

  function adapter.report(message)
    require("log").error("jdbfs: %s", tostring(message))
  end

  return adapter
end
