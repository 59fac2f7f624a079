-- jdbfs.host: operations in the light threads of a host that owns the event loop.
--
-- In a light thread an operation is submitted, then the adapter suspends the thread; when the
-- queue's descriptor is readable the dispatcher below reaps and has the adapter wake whoever
-- waited. What a thread waits for is a guest (see csrc/lua_jdb.h): it outlives a killed thread,
-- so that the kernel never writes into freed memory and nobody gets a foreign result.
--
-- Nothing here runs until a host is chosen: then the functions that wait are replaced.

local core = require "jdbfs.core"

local PENDING = core.PENDING
local error, pcall, require, select, setmetatable = error, pcall, require, select, setmetatable
local tostring, type = tostring, type
local running = coroutine.running
local taken, result, enter, new_guest = core.taken, core.result, core.enter, core.guest
local inside, next_woken, hold, host_step = core.inside, core.next_woken, core.hold, core.host_step

local KNOWN = { "ngx", "luv", "cqueues", "copas", "tarantool" }
local MODULE_FUNCTIONS = {
  "open", "create", "open_rw", "open_wal", "exists", "mkdir", "ls", "size", "stat", "rename",
  "remove", "sync_dir", "space", "atomic_write", "probe", "sleep", "yield",
}
local FILE_METHODS = {
  "read_at", "read_upto", "read", "write_at", "read_many", "write_many", "punch", "lock", "unlock",
  "size", "stat", "info", "sync_all", "sync_data", "truncate", "preallocate", "close",
}

local adapter -- the chosen one
local active, watching = false, false -- the host watches; it stays alive for our sake
local blocking = false -- what is called now must not yield
local pool = {} -- guests for reuse
local guests, tokens = {}, {} -- by number, while they wait
local threads = {} -- and their coroutines, where a yield may have failed without a trace

-- ---- waking ------------------------------------------------------------------------------------

local function report(message)
  if adapter.report then return adapter.report(message) end
  io.stderr:write("jdbfs: ", tostring(message), "\n")
end

-- Whether this function is being called in the suspended coroutine. Lua 5.1 and 5.2 cannot tell
-- beforehand that a yield will raise (5.1: across pcall); the coroutine is elsewhere then.
local function calls(co, f)
  for level = 0, 30 do
    local info = debug.getinfo(co, level, "f")
    if not info then return false end
    if info.func == f then return true end
  end
  return false
end

local wait

-- Takes a guest off the lists; its token when the light thread is to be woken.
local function detach(id)
  local token, co = tokens[id], threads[id]
  if not guests[id] then return nil end
  guests[id], tokens[id], threads[id] = nil, nil, nil
  if co and not calls(co, wait) then return nil end
  return token
end

local function idle()
  return core.pending() == 0
end

-- Whether an operation is in flight, or a light thread that lives waits for anything else.
local function needed()
  local s = core.stats()
  if s.in_flight + s.waiting > 0 then return true end
  for _, token in pairs(tokens) do
    if not adapter.alive or adapter.alive(token) then return true end
  end
  return false
end

-- What the host calls when the descriptor is readable; harmless at any time. Every light thread
-- whose wait is over is woken; what they submit while this runs goes to the kernel at its end.
local function dispatch()
  local ok, message = pcall(host_step)
  if not ok then report(message) end
  hold(true)
  local id = next_woken()
  while id do
    local token = detach(id)
    if token ~= nil then
      ok, message = pcall(adapter.wake, token)
      if not ok then report(message) end
    end
    id = next_woken()
  end
  hold(false)
  core.flush()
  if active and idle() then
    active = false
    if adapter.unref then adapter.unref() end
  end
end

-- From now on the host calls dispatch. False when it cannot do that here and now.
local function activate()
  if not watching then
    local fd = core.pollfd()
    if not fd or adapter.watch(fd, dispatch, needed) == false then return false end
    watching = true
  end
  active = not adapter.ref or adapter.ref() ~= false
  return active
end

-- ---- waiting -----------------------------------------------------------------------------------

-- The token of the light thread that runs; nil where nothing can be suspended: in a task of ours,
-- in the main chunk, in a phase that may not wait.
local function here()
  if blocking or inside(adapter.stackful) then return nil end
  return (adapter.current())
end

local function let_go(token)
  if adapter.release then adapter.release(token) end
end

wait = function(guest, token, id)
  local suspend = adapter.suspend
  guests[id], tokens[id] = guest, token
  if not core.KNOWS_YIELDABLE and not adapter.stackful then threads[id] = running() end
  repeat suspend(token) until taken(guest)
  let_go(token)
end

local function finish(guest, token, id, first, ...)
  if first ~= PENDING then
    pool[#pool + 1] = guest
    let_go(token)
    return first, ...
  end
  wait(guest, token, id)
  pool[#pool + 1] = guest
  return result(guest)
end

-- The same function for light threads; everywhere else it is what it was.
local function hosted(f)
  local begin = core.hosted(f)
  return function(...)
    local token = here()
    if token == nil or not (active or activate()) then return f(...) end
    local n = #pool
    local guest = pool[n] or new_guest()
    pool[n] = nil
    return finish(guest, token, enter(guest), begin(...))
  end
end

local function outcome(state, ...)
  if state == "failed" then error((...), 0) end
  return ...
end

-- What consists of several waits runs as a task of ours, for which the light thread waits: when
-- the thread is killed the work is not left half done.
local function within(f)
  return function(...)
    local token = here()
    if token == nil then return f(...) end
    let_go(token)
    local task, message, err = core.spawn_caught(f, ...)
    if not task then return nil, message, err end
    core.wait(task)
    return outcome(core.results(task))
  end
end

local function attempted(state, ...)
  return state == "done", ...
end

-- Plain 5.1 cannot suspend across its own pcall, a task ends for itself.
local function hosted_pcall(protected)
  return function(f, ...)
    local token = here()
    if token == nil then return protected(f, ...) end
    let_go(token)
    local task, message = core.spawn_caught(f, ...)
    if not task then return false, message end
    core.wait(task)
    return attempted(core.results(task))
  end
end

local function in_place(f)
  local function done(ok, ...)
    blocking = false
    if not ok then error((...), 0) end
    return ...
  end
  return function(...)
    if blocking then return f(...) end
    blocking = true
    return done(pcall(f, ...))
  end
end

-- Our coroutines are not the host's: its API must not take them for the light thread that made
-- them.
local function shielded(f)
  local shield = adapter.shield
  if not shield or type(f) ~= "function" then return f end
  return function(...)
    shield()
    return f(...)
  end
end

local function shielding(f)
  return function(g, ...) return f(shielded(g), ...) end
end

-- Work that tasks got from outside must reach the dispatcher.
local function driving(f)
  local function done(...)
    if not active and core.pending() > 0 then activate() end
    return ...
  end
  return function(...) return done(f(...)) end
end

-- ---- waits for a wake --------------------------------------------------------------------------

local WEAK = { __mode = "k" }
local parked, numbers = setmetatable({}, WEAK), setmetatable({}, WEAK) -- guest -> token, number

local function hosted_current(current)
  return function()
    local task, turn = current()
    if task then return task, turn end
    local token = here()
    if token == nil or not (active or activate()) then return nil end
    local guest = new_guest()
    parked[guest] = token
    return guest
  end
end

local function hosted_park(park)
  local begin = core.hosted(park)
  return function(task, turn)
    local token = parked[task]
    if token == nil then return park(task, turn) end
    local id = enter(task)
    numbers[task] = id
    begin()
    wait(task, token, id)
    return result(task)
  end
end

-- A light thread that was killed while it waited gets nothing, and nothing is kept of it.
local function hosted_still_waits(still_waits)
  return function(task)
    local token = parked[task]
    if token == nil then return still_waits(task) end
    if not adapter.alive or adapter.alive(token) then return true end
    detach(numbers[task])
    return false
  end
end

local function hosted_wake(wake)
  return driving(function(task, turn)
    return (parked[task] == nil or core.still_waits(task)) and wake(task, turn)
  end)
end

-- ---- choosing ----------------------------------------------------------------------------------

local function replace(list, wrap, ...)
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    list[name] = wrap(list[name])
  end
end

local function install_classes()
  for class, methods in pairs(core.waiting_classes) do
    for _, name in ipairs(methods) do class[name] = within(class[name]) end
    if methods.in_for then
      local wrap = methods.for_cannot_yield and in_place or within
      class[methods.in_for] = wrap(class[methods.in_for])
    end
  end
end

local function install(M)
  for _, name in ipairs(MODULE_FUNCTIONS) do
    core[name] = hosted(core[name])
    M[name] = core[name]
  end
  for _, name in ipairs(FILE_METHODS) do
    core.file_methods[name] = hosted(core.file_methods[name])
  end
  core.file_meta.__close = hosted(core.file_meta.__close)
  core.wait = hosted(core.wait)
  core.current = hosted_current(core.current)
  core.park = hosted_park(core.park)
  core.still_waits = hosted_still_waits(core.still_waits)
  core.wake = hosted_wake(core.wake)
  replace(core, shielding, "spawn", "spawn_caught")
  replace(core, driving, "spawn", "spawn_caught")
  replace(core.task_methods, driving, "cancel")
  M.spawn = core.spawn
  install_classes()
  replace(M, within, "log", "reader", "writer", "timeout")
  local make = M.wrap
  M.wrap = function(f) return within(make(shielded(f))) end
  if not core.YIELDS_ACROSS_PCALL then M.pcall = hosted_pcall(M.pcall) end
end

local function by_name(name)
  for _, known in ipairs(KNOWN) do
    if name == known then
      local ok, make = pcall(require, "jdbfs.host." .. name)
      if not ok then return nil, tostring(make):match("[^\n]*") end
      local made, why
      ok, made, why = pcall(make)
      if not ok then return nil, tostring(made):match("[^\n]*") end
      return made, why
    end
  end
  return nil, ("unknown host %q: it is one of %s, or an adapter table"):format(
    name, table.concat(KNOWN, ", "))
end

local function check_adapter(a)
  for _, name in ipairs { "current", "suspend", "wake", "watch" } do
    if type(a[name]) ~= "function" then
      error(("bad argument #1 to 'host' (the adapter lacks the function %s)"):format(name), 3)
    end
  end
  for _, name in ipairs { "ref", "unref", "alive", "release", "report", "shield" } do
    if a[name] ~= nil and type(a[name]) ~= "function" then
      error(("bad argument #1 to 'host' (the adapter's %s is no function)"):format(name), 3)
    end
  end
end

local H = {}

function H.name()
  return adapter and adapter.name or nil
end

function H.choose(M, host)
  if type(host) ~= "string" and type(host) ~= "table" then
    error("bad argument #1 to 'host' (name or adapter table expected)", 3)
  end
  if type(host) == "table" then check_adapter(host) end
  if adapter then
    local cause = ("the host was chosen already: %s"):format(tostring(adapter.name or "a table"))
    return core.failure("Busy", "host", nil, cause)
  end
  local s = core.stats()
  if s.submitted > 0 or s.tasks > 0 then
    return core.failure("Busy", "host", nil, "operations were started already: choose it first")
  end
  local chosen, why = host, nil
  if type(host) == "string" then chosen, why = by_name(host) end
  if not chosen then return core.failure("Unsupported", "host", nil, why) end
  local admitted, message, err = core.admit_host()
  if not admitted then return nil, message, err end
  adapter = chosen
  if adapter.forks then core.renews() end
  install(M)
  return true
end

return H
