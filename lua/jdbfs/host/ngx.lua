-- jdbfs.host.ngx: OpenResty, and nginx with the Lua module. A light thread waits on a semaphore.
-- The Lua API of nginx cannot wait for a descriptor, so a thread of jdbfs sends one byte to a
-- socket for each batch of completions; the dispatcher, a light thread in a timer, receives it.
-- Nothing runs while nothing is in flight. Only documented API is used.
--
-- Where nginx has loaded the module that `make nginx-module` builds for one build of nginx
-- (load_module, and lua_package_cpath for the same file), nginx waits for the descriptor itself:
-- no thread, no socket, no light thread.
--
-- Operations overlap in the phases listed below and complete in place in all others. Each worker
-- makes its queue with its first operation. With `lua_code_cache off` every request has a Lua state
-- of its own, and so a queue and threads of its own: do not use that.

local SLEEPS = {
  rewrite = true, server_rewrite = true, access = true, content = true, timer = true,
  preread = true, ssl_cert = true, ssl_session_fetch = true, ssl_client_hello = true,
}
local LONG = 86400 * 20 -- seconds; longer ones overflow in places

return function()
  local ngx = rawget(_G, "ngx")
  if type(ngx) ~= "table" or not ngx.config or not ngx.get_phase then
    return nil, "this is not nginx with the Lua module"
  end
  if (ngx.config.ngx_lua_version or 0) < 10014 then
    return nil, "the Lua module of this nginx is older than 0.10.14 (no receiveany)"
  end
  local has_exdata, exdata = pcall(require, "thread.exdata")
  if not has_exdata then return nil, "this nginx has not the LuaJIT of OpenResty" end
  local no_request = require("ffi").cast("void *", 0)
  local semaphore = require "ngx.semaphore"
  local core = require "jdbfs.core"
  local has_event, event = pcall(require, "jdbfs.nginx_event")
  local dispatch, needed
  local serving, polling = has_event, false -- the dispatcher does; it failed, and tries again soon
  local free = {}
  local adapter = { name = has_event and "ngx, native event" or "ngx", forks = true }

  function adapter.current()
    local phase = ngx.get_phase()
    if not SLEEPS[phase] then return nil, phase .. " may not wait" end
    local n = #free
    local token = free[n]
    free[n] = nil
    return token or semaphore.new(0)
  end

  function adapter.suspend(token)
    -- Without a dispatcher, as nginx has no timer for it: the worker shuts down, or too many run.
    local ok, why = token:wait(serving and LONG or 0.001)
    if not ok and why ~= "timeout" then error(why, 0) end
    if not ok and not serving then dispatch() end
  end

  function adapter.wake(token)
    token:post(1)
  end

  function adapter.alive(token)
    return token:count() < 0
  end

  function adapter.release(token)
    free[#free + 1] = token
  end

  local function report(message)
    ngx.log(ngx.ERR, "jdbfs: ", tostring(message))
  end
  adapter.report = report

  -- A new coroutine inherits the request of its maker, which may be gone when it runs. Without one
  -- ngx.* raises in tasks instead, and coroutine.* is Lua's own.
  function adapter.shield()
    exdata(no_request)
  end

  local function connect()
    local socket, why = ngx.socket.tcp()
    if not socket then return nil, why end
    socket:settimeouts(10000, 10000, LONG * 1000)
    local path, ok
    path, why = core.relay()
    if not path then return nil, why end
    ok, why = socket:connect("unix:" .. path)
    if not ok then return nil, why end
    ok, why = core.relay_accept()
    if not ok then return nil, why end
    return socket
  end

  local function serve()
    local socket, why = connect()
    if not socket then return nil, why end
    repeat
      local _
      _, why = socket:receiveany(64)
      core.relay_arm()
      dispatch()
      if why and why ~= "timeout" then return nil, why end
    until ngx.worker.exiting() and not needed()
    return true
  end

  -- Raises when nginx has no connection left.
  local function timer(delay, f)
    local ok, made = pcall(ngx.timer.at, delay, f)
    return ok and made ~= nil
  end

  local function wanted()
    return needed() or not ngx.worker.exiting() and core.pending() > 0
  end

  local function poll(times)
    while times > 0 and wanted() do
      ngx.sleep(0.001)
      dispatch()
      times = times - 1
    end
  end

  local run

  -- A timer may be dropped when it is due, see lua_max_running_timers: it serves who runs in it.
  local function start()
    return serving or polling or timer(0, run)
  end

  -- Light threads that wait were promised a wake: after an error they are served by polling, until
  -- the dispatcher can be started again.
  run = function()
    if serving or polling then return end
    serving = true
    local ok, done, why = pcall(serve)
    core.relay_close()
    serving = false
    if ok and done then return end
    report("the dispatcher stopped: " .. tostring(ok and why or done))
    polling = true
    poll(100)
    polling = false
    if wanted() and not start() then poll(math.huge) end
  end

  -- A worker that is told to quit runs its pending timers at once, and ends when none is left.
  local function at_exit(f)
    return timer(86400 * 365, f)
  end

  -- The master has no timers, and its workers queues of their own, unless a task was left over.
  local function is_master()
    if ngx.get_phase() ~= "init" then return false end
    if core.inside(true) then return true end
    error("in init nobody runs a task but jdbfs.run", 0)
  end

  function adapter.watch(_, on_ready, is_needed)
    if is_master() then return false end
    dispatch, needed = on_ready, is_needed
    -- Lets the dispatcher, which keeps the worker waiting, find out.
    return at_exit(function() core.signal() end) or ngx.worker.exiting()
  end

  function adapter.ref()
    start()
  end

  if not has_event then return adapter end

  local function stay_while_needed()
    while needed() do ngx.sleep(0.01) end
  end

  function adapter.watch(fd, on_ready, is_needed)
    if is_master() then return false end
    needed = is_needed
    local ok, watcher = pcall(event.watch, fd, function()
      exdata(no_request)
      on_ready()
    end)
    if not ok then return false end -- nginx has no connection left
    adapter.watcher = watcher
    at_exit(stay_while_needed)
  end

  adapter.ref = nil
  return adapter
end
