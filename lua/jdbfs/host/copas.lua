-- jdbfs.host.copas: copas 1.2, and 3 and later. A dispatcher thread receives on an object that
-- looks like a socket; it ends when nothing is in flight, so that copas.loop() ends as well.
--
-- Newer versions can put a thread to sleep until it is woken; in 1.2 each waiter receives on an
-- object of its own that becomes readable by being marked.

local running = coroutine.running

-- What select() and copas need of a socket.
local function pseudo_socket(fd)
  local object = { marked = false }
  function object.getfd() return fd end
  function object.dirty() return object.marked end
  function object.receive(_, pattern)
    if object.due then
      object.due = false
      return pattern and "" or ""
    end
    return nil, "timeout", ""
  end
  function object.settimeout() return 1 end
  function object.gettimeouts() return 0, 0 end
  return object
end

return function()
  local copas = require "copas"
  local sleeps = copas.pauseforever and copas.wakeup
  local adapter = { name = "copas" }
  local socket, dispatch
  local working, started = false, false

  local function wait_for(object)
    object.due = false
    copas.receive(object, 1)
  end
  local _ = wait_for

  local function work()
    while working do
      socket.due = false
      -- The first receive finds nothing and waits for select; the second ends it.
      local receive = socket.receive
      socket.receive = function(...)
        socket.due = true
        socket.receive = receive
        return nil, "timeout", "", ...
      end
      copas.receive(socket, 1)
      dispatch()
    end
    started = false
  end
  adapter.work = work
  adapter.sleeps = sleeps
  return adapter, running, dispatch, started
end
