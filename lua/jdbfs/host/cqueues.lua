-- jdbfs.host.cqueues. A coroutine of a controller waits on a condition. While work is in flight
-- each controller with such a coroutine has a dispatcher of its own, which polls the queue's
-- descriptor and ends when there is nothing left, so that cq:loop() ends as well. The first
-- operation, or jdbfs.spawn, must come from inside a controller.

return function()
  local cqueues = require "cqueues"
  local condition = require "cqueues.condition"
  if not cqueues.running or not cqueues.poll then
    return nil, "this cqueues lacks running or poll"
  end
  local pollable, dispatch
  local working = false
  local idle = condition.new() -- ends the wait of dispatchers whose work another one did
  local dispatchers = setmetatable({}, { __mode = "k" }) -- by controller
  local free = {}
  local adapter = { name = "cqueues" }

  local function work(controller)
    while working do
      cqueues.poll(pollable, idle)
      dispatch()
    end
    dispatchers[controller] = nil
  end

  local function start()
    local controller = cqueues.running()
    if not controller then return false end
    if not dispatchers[controller] then
      dispatchers[controller] = true
      controller:wrap(work, controller)
    end
    return true
  end

  function adapter.current()
    local controller, can_yield = cqueues.running()
    if not controller or can_yield == false then return nil end
    if not dispatchers[controller] and working then start() end
    local n = #free
    local token = free[n]
    free[n] = nil
    return token or condition.new()
  end

  function adapter.suspend(token)
    token:wait()
  end

  function adapter.wake(token)
    token:signal()
  end

  function adapter.release(token)
    free[#free + 1] = token
  end

  function adapter.watch(fd, on_ready)
    pollable, dispatch = { pollfd = fd, events = "r" }, on_ready
    return cqueues.running() ~= nil
  end

  function adapter.ref()
    working = start()
    return working
  end

  function adapter.unref()
    working = false
    idle:signal()
  end

  return adapter
end
