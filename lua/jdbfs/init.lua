-- jdbfs: async direct I/O for database storage. The public module; everything that touches the
-- system is in jdbfs.core, this file adds what reads better in Lua.

local found, core = pcall(require, "jdbfs.core")
if not found then error(require("jdbfs.missing")(core), 0) end
local sync = require "jdbfs.sync"
local stream = require "jdbfs.stream"

-- nginx replaces these by its own and keeps the plain ones under other names.
local create = rawget(coroutine, "_create") or coroutine.create
local resume = rawget(coroutine, "_resume") or coroutine.resume
local status = rawget(coroutine, "_status") or coroutine.status
local yield = rawget(coroutine, "_yield") or coroutine.yield
local error, pcall, rawequal, select, type = error, pcall, rawequal, select, type

local M = {
  _VERSION = core.VERSION,
  PAGE_SIZE = core.PAGE_SIZE,
  semaphore = sync.semaphore,
  event = sync.event,
  queue = sync.queue,
  pool = sync.pool,
  log = require "jdbfs.log",
  reader = stream.reader,
  writer = stream.writer,
}

for _, name in ipairs {
  "open", "create", "open_rw", "open_wal",
  "exists", "mkdir", "ls", "size", "stat", "rename", "remove", "sync_dir", "space",
  "atomic_write", "probe",
  "buffer", "run", "spawn", "sleep", "yield", "now",
  "setup", "stats", "pollfd", "step", "pending", "flush",
} do
  M[name] = core[name]
end

-- LuaJIT holds 64-bit values as cdata; plain 5.1 and 5.2 cannot.
local has_ffi, ffi = pcall(require, "ffi")
if has_ffi and type(ffi) == "table" and ffi.cast then
  local istype, tostring = ffi.istype, tostring
  local unsigned, signed = ffi.typeof("uint64_t"), ffi.typeof("int64_t")
  core.box_u64(function(high, low, is_signed)
    local value = unsigned(high) * 4294967296 + unsigned(low)
    return is_signed and ffi.cast(signed, value) or value
  end, function(value)
    if istype(unsigned, value) or istype(signed, value) then return tostring(value) end
  end)
  require("jdbfs.typed").install(ffi)
end

local function waits() yield() end

-- What a coroutine that waits takes of Lua's heap: the most of some that are made, since there may
-- be a collection meanwhile.
local coroutine_bytes
local function measure_coroutine()
  local most = 0
  for _ = 1, 8 do
    local before = collectgarbage("count")
    local co = create(waits)
    resume(co)
    most = math.max(most, (collectgarbage("count") - before) * 1024)
  end
  return most
end

function M.info()
  local info, message, err = core.info()
  if info then
    coroutine_bytes = coroutine_bytes or measure_coroutine()
    info.task_bytes = math.floor(coroutine_bytes + core.TASK_BYTES)
    info.lua = type(jit) == "table" and jit.version or _VERSION
    local hosts = package.loaded["jdbfs.host"]
    info.host = hosts and hosts.name()
  end
  return info, message, err
end

local function ended(what, state, ...)
  if state == "done" then return ... end
  if state == "cancelled" then
    return core.failure("Cancelled", what, nil, "the task was cancelled")
  end
  local cause = "the task raised: " .. tostring((...))
  return core.failure("Join", what, nil, cause)
end

--- What the task returned, once it has ended. A task that raised gives kind Join, a cancelled one
--- kind Cancelled.
local LOOK, join = core.LOOK, core.join

-- LOOK is a light userdata: no __eq is asked about it but that of a LuaJIT cdata.
local function joined(task, ...)
  if has_ffi and type((...)) ~= "userdata" or (...) ~= LOOK then return ... end
  core.wait(task)
  return ended("join", core.results(task))
end

function core.task_methods:join()
  return joined(self, join(self))
end

local function timed(state, ...)
  if state == "failed" then error((...), 0) end
  return ended("timeout", state, ...)
end

function M.timeout(seconds, f, ...)
  if type(seconds) ~= "number" or not (seconds >= 0) then
    error("bad argument #1 to 'timeout' (seconds, 0 or more, expected)", 2)
  end
  local task, message, err = core.spawn_caught(f, ...)
  if not task then return nil, message, err end
  if not core.wait(task, seconds, true) then
    task:cancel()
    core.wait(task) -- its to-be-closed variables have run when this returns
  end
  if task:status() ~= "cancelled" then return timed(core.results(task)) end
  return core.failure("Timeout", "timeout", nil, ("not ended after %g s"):format(seconds))
end

-- A generator that meets an operation yields PENDING to the loop below, which waits in its stead,
-- in a task or in a generator further out, and passes the results on. `gen.waits` stays set when
-- the task that waited was cancelled: nobody else may go on in there.
local PENDING = core.PENDING
local close = coroutine.close
local step

local function resumed(gen, ...)
  gen.waits = false
  return step(gen, ...)
end

local function pass(gen, ok, first, ...)
  if not ok then
    if close then close(gen.co) end -- its to-be-closed variables, as coroutine.wrap does
    error(first, 0)
  end
  if rawequal(first, PENDING) and select("#", ...) == 0 then
    gen.waits = true
    return resumed(gen, core.await())
  end
  return first, ...
end

step = function(gen, ...)
  return pass(gen, resume(gen.co, ...))
end

function M.wrap(f)
  if type(f) ~= "function" then
    error("bad argument #1 to 'wrap' (function expected)", 2)
  end
  -- Plain 5.1 cannot resume a coroutine whose first function is a C function.
  local gen = { co = create(function(...) return f(...) end), waits = false }
  core.generator(gen.co)
  return function(...)
    if gen.waits then error("this generator waits for an operation in another task", 2) end
    return step(gen, ...)
  end
end

core.YIELDS_ACROSS_PCALL = _VERSION ~= "Lua 5.1" or has_ffi

local function protected(co, ok, first, ...)
  if not ok then return false, first end
  if status(co) == "dead" then return true, first, ... end
  if rawequal(first, PENDING) then return protected(co, resume(co, core.await())) end
  return protected(co, resume(co, yield(first, ...)))
end

--- pcall around code that does I/O in a task. Plain Lua 5.1 cannot yield across its own pcall;
--- everywhere else this is pcall.
function M.pcall(f, ...)
  if core.YIELDS_ACROSS_PCALL then return pcall(f, ...) end
  local co = create(function(...) return f(...) end)
  core.generator(co)
  return protected(co, resume(co, ...))
end

function M.host(host)
  return require("jdbfs.host").choose(M, host)
end

return M
