-- jdbfs.host.copas: copas 1.x (Debian's) and those that can put a thread to sleep until it is woken
-- (2 and later). A thread of ours receives on an object that looks like a socket to select(); it
-- ends when nothing is in flight, so that copas.loop() ends where it can. A generator that does
-- I/O must be made by jdbfs.wrap.

local running, yield, status = coroutine.running, coroutine.yield, coroutine.status

-- What copas and select() ask of a socket. Every second receive ends the wait for the descriptor.
local function pseudo_socket(fd)
  local waited = true
  return {
    getfd = function() return fd end,
    dirty = function() return false end,
    settimeout = function() return 1 end,
    close = function() return true end,
    receive = function()
      waited = not waited
      if waited then return "", nil, "" end
      return nil, "timeout", ""
    end,
  }
end

-- Copas 1.x puts a coroutine into the queue that it yields, and resumes one that is added again.
local parking = { insert = function() end, push = function() end }

return function()
  local copas = require "copas"
  local socket, dispatch
  local wanted, works = false, false
  local adapter = { name = "copas" }
  local can_sleep = copas.wakeup ~= nil
  local pause = copas.pauseforever or function() copas.sleep(-1) end

  local function work()
    while wanted do
      copas.receive(socket, 1)
      dispatch()
    end
    works = false
  end

  function adapter.current()
    local co, main = running()
    if not co or main then return nil end
    return can_sleep and co or {}
  end

  function adapter.suspend(token)
    if can_sleep then return pause() end
    token.parked = running()
    yield(token, parking)
  end

  function adapter.wake(token)
    if can_sleep then return copas.wakeup(token) end
    local co = token.parked
    token.parked = nil
    if co and status(co) == "suspended" then copas.addthread(co) end
  end

  function adapter.alive(token)
    return not can_sleep or status(token) ~= "dead"
  end

  function adapter.watch(fd, on_ready)
    socket, dispatch = pseudo_socket(fd), on_ready
  end

  function adapter.ref()
    wanted = true
    if works then return end
    works = true
    copas.addthread(work)
  end

  function adapter.unref()
    wanted = false
  end

  return adapter
end
