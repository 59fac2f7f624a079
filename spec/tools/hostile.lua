-- Calls every public function and method with values that no sane program passes, in and out of
-- tasks, while buffers are freed, files closed and the collector runs. Every call must give a
-- result, the contract's nil, message, err, or raise a string; nothing may crash, hang or leak.
--
--   hostile.lua DIRECTORY     works in there, with relative paths only
--
-- HOSTILE_SEED, HOSTILE_STEPS from the environment. What is public is read from meta.lua and the
-- objects themselves, so that a new function takes part at once. Prints what it did; on a
-- violation the call and the seed. DIRECTORY/last names the call that runs.

local jdbfs = require "jdbfs"
local lfs = require "lfs"

local unpack = table.unpack or unpack
local is_jit = type(rawget(_G, "jit")) == "table"
local is_51 = _VERSION == "Lua 5.1" and not is_jit
local ffi = is_jit and require("ffi") or nil

local seed = tonumber(os.getenv("HOSTILE_SEED")) or os.time() % 1000000 + 1
local steps = tonumber(os.getenv("HOSTILE_STEPS")) or 20000
local ROUND = 250 -- calls with the same objects
-- More than a path may have. Windows would make 3000, and wine takes minutes over them.
local LEVELS = package.config:sub(1, 1) == "\\" and 20000 or 3000

-- ---- chance -------------------------------------------------------------------------------------

local state = seed % 2147483646 + 1

local function below(n) -- 0 .. n-1, the same on every Lua
  state = state * 16807 % 2147483647
  return state % n
end

local function one_of(list)
  if #list > 0 then return list[below(#list) + 1] end
end

-- ---- what is public -----------------------------------------------------------------------------

-- Classes and functions as meta.lua has them: {jdbfs = {open = true, ...}, File = {...}, ...}.
local function documented()
  local f
  for template in package.path:gmatch("[^;]+") do -- 5.1 has no package.searchpath
    f = f or io.open((template:gsub("%?", "jdbfs/meta")))
  end
  assert(f, "jdbfs/meta.lua is not on package.path")
  local names = {}
  for object, name in f:read("*a"):gmatch("\nfunction (%w+)[.:]([%w_]+)%(") do
    names[object] = names[object] or {}
    names[object][name] = true
  end
  f:close()
  return names
end

-- ---- objects ------------------------------------------------------------------------------------

local objects, rounds = {}, 0

local function pick(class)
  return one_of(objects[class])
end

local function plain() return 1, "two", nil end
local function raises() error("hostile") end
local RAISED = {} -- whoever drives the loop may meet it: a task's error ends the call that waits
local function raises_table() error(RAISED) end
local function yields() coroutine.yield() coroutine.yield("x") return 7 end
local function does_io() return pick("File"):size() end

local function put(path, data)
  local f = io.open(path, "wb")
  if f then
    f:write(data)
    f:close()
  end
end

local function new_log()
  return jdbfs.log("log" .. below(2), { segment_size = 16384, batch_size = 8192 })
end

local function kept(list, value) -- a constructor may fail: a hostile call moved its file away
  if value then list[#list + 1] = value end
  return value
end

local function make_files()
  local files = {}
  put("plain", ("p"):rep(9000))
  kept(files, jdbfs.open_rw("a", { direct = "prefer" }))
  kept(files, jdbfs.open_rw("a", { direct = "off" }))
  kept(files, jdbfs.open("plain", { direct = "off" }))
  kept(files, jdbfs.open_wal("wal", { direct = "prefer", lock = "shared" }))
  local closed = kept(files, jdbfs.open_rw("closed", { direct = "off" }))
  if closed then closed:close() end
  if not files[1] then kept(files, jdbfs.open_rw("fresh" .. rounds, { direct = "off" })) end
  return files
end

local function make_buffers()
  local big = assert(jdbfs.buffer(32768))
  local freed = assert(jdbfs.buffer(4096))
  freed:free()
  return { big, big:slice(4096, 8192), big:slice(1, 511), freed, assert(jdbfs.buffer(4096)),
    assert(jdbfs.buffer(3)), assert(jdbfs.buffer(65536, 65536)) }
end

local function make_tasks()
  local tasks = {}
  for _, f in ipairs({ plain, raises, yields, does_io }) do
    tasks[#tasks + 1] = jdbfs.spawn(f)
    if f == raises then pcall(jdbfs.step) end
  end
  tasks[#tasks + 1] = jdbfs.spawn(jdbfs.sleep, 0.01)
  tasks[1]:cancel()
  return tasks
end

local function make_objects()
  rounds = rounds + 1
  lfs.mkdir("dir")
  objects.File = make_files()
  objects.Buffer = make_buffers()
  objects.Semaphore = { jdbfs.semaphore(0), jdbfs.semaphore(2) }
  objects.Event = { jdbfs.event() }
  objects.Queue = { jdbfs.queue(1), jdbfs.queue() }
  objects.Pool = { assert(jdbfs.pool(2, 4096)) }
  objects.Task = make_tasks()
  objects.Log, objects.Cursor, objects.Reader, objects.Writer = {}, {}, {}, {}
  if rounds % 2 == 0 then
    local log = kept(objects.Log, new_log())
    if log then
      log:append("one")
      kept(objects.Cursor, log:records())
    end
  end
  local file = objects.File[1]
  kept(objects.Reader, jdbfs.reader(file, { block = 4096, depth = 2 }))
  kept(objects.Writer, jdbfs.writer(file, { block = 4096, depth = 2 }))
end

-- Once in a while of every class one, so that the methods are known.
local function class_methods()
  local methods = {}
  for class, list in pairs(objects) do
    local object = list[1]
    if type(object) ~= "nil" then
      local mt = debug.getmetatable(object)
      methods[class] = {}
      for name, f in pairs(mt.__index) do
        if type(f) == "function" then methods[class][name] = f end
      end
      for name, f in pairs(mt) do
        if type(f) == "function" and name ~= "__gc" then methods[class][name] = f end
      end
      -- Finalizers by hand, twice, only where the collector's own call comes third.
      if type(object) == "userdata" and type(mt.__gc) == "function" then
        methods[class].__gc = mt.__gc
      end
    end
  end
  return methods
end

-- ---- values -------------------------------------------------------------------------------------

local NUMBERS = { 0, 1, -1, 2, 3, 8, 255, 256, 511, 512, 0.5, -0.5, 4095, 4096, 4097, 8192, 32768,
  65536, 2 ^ 31, 2 ^ 32, 2 ^ 53, 2 ^ 53 + 2, -2 ^ 53, 2 ^ 63, -2 ^ 63, 2 ^ 64, 1e300, 0 / 0, 1 / 0,
  -1 / 0 }
if math.maxinteger then
  NUMBERS[#NUMBERS + 1] = math.maxinteger
  NUMBERS[#NUMBERS + 1] = math.mininteger
  NUMBERS[#NUMBERS + 1] = math.maxinteger - 4095
end

-- Strings may become paths: relative, without "..", so nothing leaves the directory.
local STRINGS = { "", "a", "plain", "wal", "dir", "dir/x", "missing/x", "log0", "log1", ".", "lock",
  "\0", "a\0b", ("n"):rep(300), ("d/"):rep(LEVELS), ("x"):rep(70000), "4096", "0x10", "1e3", "nan",
  "size", "zero", "keep_size", "exclusive", "shared", "dsync", "atomic", "dsync,atomic", "dsync ,",
  "off", "\255\254", "%s%n%s", "ngx" }

local function boom() error("hostile") end

local RAISING = {}
for _, name in ipairs({ "__index", "__newindex", "__call", "__tostring", "__len", "__eq", "__lt",
  "__le", "__add", "__sub", "__mul", "__mod", "__div", "__unm", "__concat", "__pairs", "__ipairs",
  "__gc", "__close", "__name" }) do
  RAISING[name] = boom
end
RAISING.__gc = nil -- would raise in whoever collects

local function raising() return setmetatable({}, RAISING) end

local function cycle()
  local t = {}
  t[1], t.direct, t.self = t, t, t
  return t
end

local value

local function list_of_transfers()
  local list = {}
  for i = 1, below(4) do
    list[i] = { pick("Buffer"), one_of(NUMBERS), below(2) == 0 and one_of(NUMBERS) or nil,
      below(2) == 0 and one_of(NUMBERS) or nil }
  end
  if below(6) == 0 then list[#list + 1] = value() end
  return list
end

local OPTIONS = { "direct", "mode", "exclusive", "must_exist", "atime", "durable_create", "lock",
  "dsync", "nofollow", "durable_method", "durable", "noreplace", "depth", "block", "offset",
  "segment_size", "spare_segments",
  "batch_size", "backend", "workers", "device", "nothing", 1 }
local CHOICES = { "require", "prefer", "off", "auto", "flush", "write", "shared", "exclusive", true,
  true, false, 0, 4096, 65536 }

local function options()
  local o = {}
  for _ = 1, below(4) do
    local name = one_of(OPTIONS)
    if below(8) == 0 then o[name] = value() else o[name] = one_of(CHOICES) end
  end
  return o
end

local function object()
  local classes = {}
  for class in pairs(objects) do classes[#classes + 1] = class end
  table.sort(classes)
  return pick(one_of(classes))
end

local dead = coroutine.create(function() end)
coroutine.resume(dead)
local closed_handle = io.tmpfile()
closed_handle:close()
local C_FUNCTIONS = { tostring, type, select, math.floor, coroutine.yield, coroutine.running, pcall,
  error, rawget, next, setmetatable, jdbfs.yield, jdbfs.now, jdbfs.stats, jdbfs.exists }

local CDATA = {}
if ffi then
  local evil = ffi.metatype("struct { int x; }", {
    __tostring = boom, __index = boom, __call = boom, __len = boom, __eq = boom, __add = boom })
  CDATA = { ffi.new("int64_t", -1), ffi.new("int64_t", 4096), ffi.cast("uint64_t", -1),
    ffi.cast("uint64_t", 2 ^ 53), ffi.cast("int64_t", 2 ^ 62) * 2, evil(), ffi.new("char[16]"),
    ffi.cast("void *", 0), ffi.typeof("int"), ffi.new("double", 4096) }
end

-- What is collected sooner or later frees a buffer or does I/O, in the middle of anything.
local function finalizer()
  local b, f = pick("Buffer"), pick("File")
  local function act()
    pcall(b.free, b)
    if not is_51 and f then pcall(f.size, f) end
  end
  if newproxy then
    getmetatable(newproxy(true)).__gc = act
  else
    setmetatable({}, { __gc = act })
  end
  return nil
end

local KINDS = {
  function() return nil end,
  function() return below(2) == 0 end,
  function() return one_of(NUMBERS) end, function() return one_of(NUMBERS) end,
  function() return below(10) * 4096 end, function() return below(8192) end,
  function() return one_of(STRINGS) end, function() return one_of(STRINGS) end,
  function() return pick("Buffer") end, function() return pick("Buffer") end,
  function() return pick("File") end,
  object, object,
  options, options,
  list_of_transfers,
  raising, cycle,
  function() return one_of({ plain, raises, raises_table, yields, does_io }) end,
  function() return one_of(C_FUNCTIONS) end,
  function() return one_of({ dead, coroutine.create(yields), (coroutine.running()) }) end,
  function() return one_of({ io.stderr, closed_handle, newproxy and newproxy() or io.stdout }) end,
  function() return one_of(CDATA) end,
  finalizer,
}

value = function() return (one_of(KINDS)()) end

-- Arguments that fit better than chance, so that calls get beyond their first check.
local LIKELY = {
  File = { "Buffer", "number", "number", "number", "string" },
  Buffer = { "number", "number", "number", "number" },
}
local LIKELY_FUNCTION = {
  run = { "function" }, spawn = { "function" }, wrap = { "function" }, pcall = { "function" },
  timeout = { "number", "function" }, sleep = { "number" }, buffer = { "number", "number" },
  reader = { "File", "options" }, writer = { "File", "options" }, log = { "string", "options" },
  pool = { "number", "number" }, open = { "string", "options" }, create = { "string", "options" },
  open_rw = { "string", "options" }, open_wal = { "string", "options" },
  rename = { "string", "string", "options" }, atomic_write = { "string", "string" },
  read = { "number", "number" }, read_many = { "list" }, write_many = { "list", "string" },
  lock = { "string" }, preallocate = { "number", "string" }, truncate = { "number" },
  punch = { "number", "number" }, append = { "string" }, write = { "string", "Buffer" },
  read_into = { "Buffer", "number", "number" }, set = { "number", "string" },
  copy = { "number", "Buffer", "number", "number" }, records = { "number" },
  truncate_before = { "number" }, advance = { "number" }, put = { "Buffer" }, setup = { "options" },
}

local function likely(what)
  if what == "number" then return below(3) == 0 and one_of(NUMBERS) or below(12) * 512 end
  if what == "string" then return one_of(STRINGS) end
  if what == "options" then return options() end
  if what == "list" then return list_of_transfers() end
  if what == "function" then return one_of({ plain, raises, yields, does_io }) end
  return pick(what)
end

-- ---- what would only be slow --------------------------------------------------------------------

local function tame_number(args, i, least, most, to)
  local n = args[i]
  if type(n) == "cdata" then
    local ok, number = pcall(tonumber, n)
    n = ok and number or nil
  end
  if type(n) == "number" and n > least and n < most then args[i] = to end
end

local function tame_options(args, i, limits)
  local o = args[i]
  if type(o) == "table" and getmetatable(o) == nil then
    for name, limit in pairs(limits) do
      if type(o[name]) == "number" and o[name] > limit then o[name] = limit end
    end
  end
end

local HUGE = 1 / 0
local function short_time(args)
  tame_number(args, 1, 0.001, HUGE, 0.001)
  if type(args[1]) == "number" and args[1] == HUGE then args[1] = 0.001 end
end

local TAME = {
  ["jdbfs.sleep"] = short_time, ["jdbfs.timeout"] = short_time, ["jdbfs.step"] = short_time,
  ["jdbfs.buffer"] = function(args)
    tame_number(args, 1, 1048576, 2 ^ 46, 65536)
    tame_number(args, 2, 1048576, 2 ^ 46, 65536)
  end,
  ["jdbfs.pool"] = function(args)
    tame_number(args, 1, 16, 1e301, 16)
    tame_number(args, 2, 1048576, 2 ^ 46, 65536)
  end,
  ["jdbfs.log"] = function(args)
    local o = args[2]
    if type(o) ~= "table" or getmetatable(o) or o.self then
      if type(o) == "nil" then args[2] = { segment_size = 16384, batch_size = 8192 } end
      return
    end
    if o.segment_size == nil then o.segment_size = 16384 end
    tame_options(args, 2, { segment_size = 262144, batch_size = 65536 })
  end,
  ["jdbfs.reader"] = function(args) tame_options(args, 2, { block = 65536, depth = 8 }) end,
  ["jdbfs.writer"] = function(args) tame_options(args, 2, { block = 65536, depth = 8 }) end,
  ["File.read"] = function(args) tame_number(args, 3, 1048576, 2 ^ 53 + 1, 1048576) end,
  ["Reader.read"] = function(args) tame_number(args, 2, 1048576, 2 ^ 53 + 1, 65536) end,
  ["File.truncate"] = function(args) tame_number(args, 2, 1048576, 2 ^ 46, 65536) end,
  ["File.preallocate"] = function(args) tame_number(args, 2, 1048576, 2 ^ 46, 65536) end,
}

-- ---- judging ------------------------------------------------------------------------------------

local KIND_NAMES = {}
for name in ("Io Alloc Alignment ShortRead ShortWrite Join Overflow Busy Closed Cancelled " ..
  "Timeout Poisoned Unsupported Forked"):gmatch("%S+") do
  KIND_NAMES[name] = true
end

-- Whose results, or errors, are those of a function that was handed in.
local HANDS_ON = {
  ["jdbfs.run"] = true, ["jdbfs.pcall"] = true, ["jdbfs.timeout"] = true, ["jdbfs.step"] = true,
  ["Task.join"] = true, ["Queue.take"] = true,
}
-- nil alone is an answer: the end of what there was to read, or a metamethod without a result.
local NIL_ENDS = {
  ["Cursor.next"] = 1, ["Cursor.__call"] = 2, ["Reader.read"] = 1, ["Reader.next_block"] = 1,
}

local function failure_fault(n, message, err)
  if n ~= 3 then return "nil with " .. n .. " values" end
  if type(message) ~= "string" then return "a message of type " .. type(message) end
  if type(err) ~= "table" then return "an error of type " .. type(err) end
  if not KIND_NAMES[err.kind] then return "kind " .. tostring(err.kind) end
  if err.message ~= message or tostring(err) ~= message then return "two messages" end
  for _, name in ipairs({ "offset", "length", "actual", "index", "errno" }) do
    local number = err[name]
    if number ~= nil and not (type(number) == "number" and number >= 0) then
      return "err." .. name .. " is " .. tostring(number)
    end
  end
  for _, name in ipairs({ "op", "path", "name" }) do
    if err[name] ~= nil and type(err[name]) ~= "string" then
      return "err." .. name .. " is " .. tostring(err[name])
    end
  end
end

local counts = { results = 0, failures = 0, raised = 0 }

local function raised_fault(name, message)
  if HANDS_ON[name] or message == RAISED then return nil end
  -- Of our values, by a task whose function was `error`: the library makes none to raise.
  if type(message) == "userdata" then return nil end
  if type(message) ~= "string" then return "it raised a " .. type(message) end
  -- What Lua says of our own mistakes; 5.1 says some of it of the caller's.
  if message:find("jdbfs/%w+%.lua:%d+: attempt to") and not message:find("attempt to yield") then
    return "it raised " .. message
  end
end

-- The first fault of one call's outcome, or nil.
local function fault_of(name, ok, n, ...)
  if not ok then
    counts.raised = counts.raised + 1
    return raised_fault(name, (...))
  end
  local first, message, err = ...
  if type(first) ~= "nil" then
    counts.results = counts.results + 1
    return nil
  end
  if HANDS_ON[name] then return nil end
  if message == nil and n <= (NIL_ENDS[name] or 0) then return nil end
  if n <= 1 and (name:find("%.__gc$") or name:find("%.__close$")) then return nil end
  counts.failures = counts.failures + 1
  return failure_fault(n, message, err)
end

-- ---- one call -----------------------------------------------------------------------------------

local last = assert(io.open(assert(arg[1]) .. "/last", "wb"))
last:setvbuf("full", 4096)

local function text_of(v)
  local ok, text = pcall(tostring, v)
  return ok and text or "<" .. type(v) .. ">"
end

local function show(v)
  if type(v) == "string" then return #v > 40 and ("<%d bytes>"):format(#v) or ("%q"):format(v) end
  if type(v) == "table" and getmetatable(v) == nil then
    local words = {}
    for k, item in pairs(v) do
      words[#words + 1] = tostring(k) .. "=" .. (type(item) == "table" and "{..}" or text_of(item))
    end
    return "{" .. table.concat(words, ", ") .. "}"
  end
  return text_of(v)
end

local current, done = "", 0

local function describe_call(name, args, count, where)
  local words = {}
  for i = 1, count do words[i] = show(args[i]) end
  return ("%s(%s) %s"):format(name, table.concat(words, ", "), where)
end

local function announce(text)
  current = text
  last:seek("set", 0)
  last:write(("seed %d, step %d: %s\n\n"):format(seed, done, text))
  last:flush()
end

local function stop(why)
  io.stderr:write(("VIOLATION at seed %d, step %d: %s\n  %s\n"):format(seed, done, why, current))
  os.exit(1)
end

local function outcome(name, ok, ...)
  local why = fault_of(name, ok, select("#", ...), ...)
  if why then stop(why) end
  local made = (...)
  -- A generator is there to be called.
  if ok and name == "jdbfs.wrap" and type(made) == "function" then pcall(made, value()) end
end

-- A call in a task may wait for ever: it is cancelled, in flight or not, when its time is over.
local function call_in_task(name, f, args, count)
  local function body() outcome(name, jdbfs.pcall(f, unpack(args, 1, count))) end
  jdbfs.run(function()
    local tasks = {}
    tasks[1] = jdbfs.spawn(jdbfs.timeout, 0.003, body)
    if below(4) == 0 then collectgarbage("step", below(400)) end
    if below(8) == 0 then tasks[1]:cancel() end
  end)
end

local function no_run_inside(name) return name == "jdbfs.run" or name == "jdbfs.step" end

-- Tasks of hostile functions raise in whoever drives them.
local function call(name, f, args, count)
  local in_task = below(3) == 0
  announce(describe_call(name, args, count, in_task and "in a task" or "outside tasks"))
  if in_task and not no_run_inside(name) then
    local ok, message = pcall(call_in_task, name, f, args, count)
    if not ok and type(message) == "string" and message:find("VIOLATION") then stop(message) end
  else
    outcome(name, pcall(f, unpack(args, 1, count)))
  end
  done = done + 1
end

local function make_args(class, name, method)
  local args, count = {}, below(6)
  local hints = LIKELY_FUNCTION[name] or LIKELY[class] or {}
  local sane = below(3) > 0
  for i = 1, count do
    if sane and hints[i] and below(5) > 0 then args[i] = likely(hints[i]) else args[i] = value() end
  end
  if method then
    for i = count, 1, -1 do args[i + 1] = args[i] end
    count = count + 1
    args[1] = pick(class)
    -- Metamethods of tables are reached through an object only.
    local reachable = type(args[1]) == "userdata" or not name:match("^__")
    if reachable and below(12) == 0 then args[1] = value() end
  end
  return args, count
end

local names = documented()
local targets = {}

local function add_targets(methods)
  for name, f in pairs(jdbfs) do
    if type(f) == "function" then
      targets["jdbfs." .. name] = { f = f, class = "jdbfs", name = name }
    end
  end
  for class, list in pairs(methods) do
    for name, f in pairs(list) do
      targets[class .. "." .. name] = { f = f, class = class, name = name, method = true }
    end
  end
end

local function step_once(order)
  local full = one_of(order)
  local target = targets[full]
  if target.method and #objects[target.class] == 0 then return end
  local args, count = make_args(target.class, target.name, target.method)
  local tame = TAME[full]
  if tame then tame(args) end
  target.calls = (target.calls or 0) + 1
  call(full, target.f, args, count)
  if below(50) == 0 then collectgarbage("step", below(200)) end
end

-- ---- rounds -------------------------------------------------------------------------------------

local function settle()
  for class in pairs(objects) do objects[class] = {} end
  if is_jit then require("jit").flush() end
  for _ = 1, 400 do
    collectgarbage()
    pcall(jdbfs.step, 0.005)
    local s = jdbfs.stats()
    if s.tasks + s.in_flight + s.waiting + s.abandoned + s.files + s.buffers == 0 then return end
  end
  local s = jdbfs.stats()
  current = "after a round"
  local what = "left behind: %d tasks, %d in flight, %d waiting, %d abandoned, %d files, %d buffers"
  stop(what:format(
    s.tasks, s.in_flight, s.waiting, s.abandoned, s.files, s.buffers))
end

-- A hostile task that is still alive raises in whoever drives it: then once more.
local function close_logs()
  for _, log in ipairs(objects.Log or {}) do
    for _ = 1, 100 do
      if pcall(jdbfs.run, function() jdbfs.timeout(1, log.close, log) end) then break end
    end
  end
end

local function main()
  assert(lfs.chdir(arg[1]))
  make_objects() -- an odd round and an even one: every class is there once
  local methods = class_methods()
  close_logs()
  settle()
  make_objects()
  for class, list in pairs(class_methods()) do methods[class] = list end
  for class in pairs(names) do
    if class ~= "jdbfs" and class ~= "Sim" and not methods[class] then
      stop("no objects of class " .. class)
    end
  end
  add_targets(methods)
  -- Of real disks: on a simulated one its calls would take the files away.
  for name, f in pairs(require("jdbfs.sim")) do
    targets["Sim." .. name] = { f = f, class = "Sim", name = name }
  end
  local order = {}
  for full in pairs(targets) do order[#order + 1] = full end
  table.sort(order)
  while done < steps do
    for _ = 1, ROUND do step_once(order) end
    close_logs()
    settle()
    for path in lfs.dir(".") do
      if path ~= "last" and lfs.symlinkattributes(path, "mode") == "file" then os.remove(path) end
    end
    make_objects()
  end
  close_logs()
  settle()
  for class, list in pairs(names) do
    for name in pairs(list) do
      local target = targets[class .. "." .. name]
      if not target then stop("never seen: " .. class .. "." .. name) end
      if steps >= 20000 and not target.calls then stop("never called: " .. class .. "." .. name) end
    end
  end
  print(("%d calls of %d functions, seed %d: %d results, %d failures, %d raised"):format(
    done, #order, seed, counts.results, counts.failures, counts.raised))
end

main()
