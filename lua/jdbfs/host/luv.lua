-- jdbfs.host.luv: luv, luvit and Neovim. A light thread is any coroutine: it is suspended by a
-- plain yield and resumed from the loop, as is usual with luv. A generator that does I/O must
-- therefore be made by jdbfs.wrap.
--
-- The handle keeps uv.run() alive only while something is in flight, and is never closed: some
-- versions of luv crash at exit when a handle was closed and the loop not run afterwards.

local running, yield, resume, status =
  coroutine.running, coroutine.yield, coroutine.resume, coroutine.status

-- o.uv: the module, when it is not `luv`. o.schedule: a function that runs another one later,
-- where the host's API may be used; in Neovim the default is vim.schedule.
return function(o)
  local vim = rawget(_G, "vim")
  local uv = o and o.uv or vim and (vim.uv or vim.loop) or require "luv"
  local schedule = o and o.schedule or vim and vim.schedule
  if not uv.new_poll then return nil, "this luv lacks new_poll" end
  local poll
  local adapter = { name = "luv" }

  function adapter.current()
    local co, main = running()
    if not main then return co end
  end

  function adapter.suspend()
    yield()
  end

  function adapter.wake(co)
    if status(co) ~= "suspended" then return end
    local ok, message = resume(co)
    if not ok then error(debug.traceback(co, tostring(message)), 0) end
  end

  function adapter.alive(co)
    return status(co) ~= "dead"
  end

  function adapter.watch(fd, on_ready)
    poll = assert(uv.new_poll(fd))
    if not schedule then
      assert(poll:start("r", on_ready))
      return
    end
    local function start() end
    local function run()
      start()
      on_ready()
    end
    local function ready()
      poll:stop() -- or it would be called again and again until the other function runs
      schedule(run)
    end
    start = function() assert(poll:start("r", ready)) end
    start()
  end

  function adapter.ref() poll:ref() end
  function adapter.unref() poll:unref() end

  return adapter
end
