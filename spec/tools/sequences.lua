-- Many short random lives of files, buffers and tasks: sequences.lua DIRECTORY SEQUENCES, called by
-- sequences.sh. Whatever a sequence does, collects, abandons, cancels, closes, frees or raises
-- while operations are in flight, memory stays whole: every page of a file and of a buffer holds
-- one byte value by its place, or zeros, so that memory used too early or too late shows; every
-- call gives a result or the contract's failure; and now and then nothing may be left behind.
--
-- SEQUENCES_SEED from the environment. Prints one line of figures; exit status 1 and a reason
-- otherwise. ENDING: how the process ends, with things in flight: "falls" off its end (lua_close),
-- "exits", "exits closing", "raises" (exit status 1, and "raised on purpose" on stderr).

local jdbfs = require "jdbfs"

local unpack = table.unpack or unpack
local dir, sequences = assert(arg[1]), assert(tonumber(arg[2]))
local seed = tonumber(os.getenv("SEQUENCES_SEED")) or os.time() % 1000000 + 1
local ending = os.getenv("ENDING") or "falls"
local PAGE, CLASSES, PAGES, FILES, ROUND = jdbfs.PAGE_SIZE, 8, 16, 3, 200

local state = seed % 2147483646 + 1
local function below(n) -- 0 .. n-1, the same on every Lua
  state = state * 16807 % 2147483647
  return state % n
end

local counts = { calls = 0, failures = 0, busy = 0, cancelled = 0, abandoned = 0, pages = 0 }
local number = 0

local function stop(why)
  io.stderr:write(("sequences, seed %d, number %d: %s\n"):format(seed, number, why))
  os.exit(1)
end

-- ---- what a page holds --------------------------------------------------------------------------

local ZERO, FULL, STRAY = ("\0"):rep(PAGE), {}, {}
for c = 0, CLASSES - 1 do
  FULL[c] = string.char(65 + c):rep(PAGE)
  STRAY[c] = _VERSION == "Lua 5.1" and "[^%z" .. string.char(65 + c) .. "]"
    or "[^\0" .. string.char(65 + c) .. "]"
end

local function check_page(data, class, what)
  counts.pages = counts.pages + 1
  if data == FULL[class] or data == ZERO then return end
  local at = data:find(STRAY[class])
  if at then stop(("%s: byte %d is %d"):format(what, at - 1, data:byte(at))) end
end

local function check_pages(data, page, what)
  for i = 0, math.floor(#data / PAGE) - 1 do
    check_page(data:sub(i * PAGE + 1, (i + 1) * PAGE), (page + i) % CLASSES, what)
  end
end

-- ---- one call -----------------------------------------------------------------------------------

local function judge(what, first, message, err, ...)
  counts.calls = counts.calls + 1
  if first == nil then
    counts.failures = counts.failures + 1
    if type(message) ~= "string" or type(err) ~= "table" or type(err.kind) ~= "string" then
      stop(what .. " gave nil, " .. tostring(message) .. ", " .. tostring(err))
    end
  end
  return first, message, err, ...
end

-- What may refuse by an error: memory in flight, freed, or closed.
local function try(f, ...)
  counts.calls = counts.calls + 1
  local ok, message = pcall(f, ...)
  if ok then return message end
  counts.busy = counts.busy + 1
  if type(message) ~= "string" or message:find("attempt to", 1, true) then
    stop("raised " .. tostring(message))
  end
end

-- ---- what a sequence has ------------------------------------------------------------------------

-- W: {files = {...}, buffers = {{b =, page =, pages =}...}, tasks = {...}}. Page i of a buffer has
-- the class (page + i) % CLASSES, a slice of it the classes of its pages.
local files, W = {}, nil

local function open_file(i)
  local open = below(3) == 0 and jdbfs.open_wal or jdbfs.open_rw
  local f
  repeat -- an injected fault
    f = judge("open", open(("%s/f%d"):format(dir, i), {
      direct = below(4) == 0 and "off" or "prefer" }))
  until f
  files[i] = f
end

local function pick(list)
  return list[below(#list) + 1]
end

local function new_buffer()
  local pages, page = below(4) + 1, below(CLASSES)
  local b = judge("buffer", jdbfs.buffer(pages * PAGE))
  if not b then return end
  for i = 0, pages - 1 do b:set(i * PAGE, FULL[(page + i) % CLASSES]) end
  W.buffers[#W.buffers + 1] = { b = b, page = page, pages = pages }
end

local function slice()
  local from = pick(W.buffers)
  local at = below(from.pages)
  local pages = below(from.pages - at) + 1
  local b = try(from.b.slice, from.b, at * PAGE, pages * PAGE)
  if b then W.buffers[#W.buffers + 1] = { b = b, page = from.page + at, pages = pages } end
end

-- A range of a buffer and a place in a file that its pages may have.
local function range()
  local of = pick(W.buffers)
  local at = below(of.pages)
  local pages = below(of.pages - at) + 1
  local page = (of.page + at) % CLASSES + CLASSES * below(PAGES / CLASSES)
  return of.b, page * PAGE, at * PAGE, pages * PAGE
end

local function list()
  local all = {}
  for i = 1, below(3) + 1 do all[i] = { range() } end
  return all
end

-- ---- actions of tasks ---------------------------------------------------------------------------

local FLAGS = { nil, nil, nil, "dsync" }
local function write() local b, off, at, len = range()
  judge("write_at", pick(files):write_at(b, off, at, len, FLAGS[below(4) + 1])) end
local function read_at() judge("read_at", pick(files):read_at(range())) end
local function read()
  local page, pages = below(PAGES), below(3) + 1
  local data = judge("read", pick(files):read(page * PAGE, pages * PAGE))
  if data then check_pages(data, page, "a read") end
end
local function read_upto() judge("read_upto", pick(files):read_upto(range())) end
local function write_many() judge("write_many", pick(files):write_many(list())) end
local function read_many() judge("read_many", pick(files):read_many(list())) end
local function sync() judge("sync_data", pick(files):sync_data()) end
local function size() judge("size", pick(files):size()) end
local function pause() if below(2) == 0 then jdbfs.yield() else jdbfs.sleep(0) end end
local function raise() error("raised in a task", 0) end
local function limited() jdbfs.timeout(below(3) / 10000, below(2) == 0 and write or read_at) end
-- A generator that nobody asks to the end.
local function abandon()
  counts.abandoned = counts.abandoned + 1
  local next_one = jdbfs.wrap(function()
    read_at()
    coroutine.yield(1)
    write()
  end)
  next_one()
end

local IN_TASK = { write, write, write, read_at, read_at, read, read, read_upto, write_many,
  read_many, sync, size, pause, pause, limited, abandon }

local function task_of(n)
  local actions = {}
  for i = 1, n do actions[i] = pick(IN_TASK) end
  if below(12) == 0 then actions[n] = raise end
  return jdbfs.spawn(function()
    for i = 1, n do actions[i]() end
    return n
  end)
end

-- ---- actions beside them ------------------------------------------------------------------------

local function spawn() W.tasks[#W.tasks + 1] = task_of(below(4) + 1) end
local function drive() pcall(jdbfs.step, 0) end
local function collect()
  if below(8) == 0 then collectgarbage() else collectgarbage("step", below(60)) end
end
local function cancel()
  if #W.tasks > 0 and pick(W.tasks):cancel() then counts.cancelled = counts.cancelled + 1 end
end
local function free() local of = pick(W.buffers) try(of.b.free, of.b) end
local function drop() table.remove(W.buffers, below(#W.buffers) + 1) new_buffer() end
local function look()
  local of = pick(W.buffers)
  local data = try(of.b.string, of.b)
  if data then check_pages(data, of.page, "a buffer") end
end
local function close()
  if below(4) > 0 then return end
  local i = below(FILES) + 1
  local f = files[i]
  if below(2) == 0 then W.tasks[#W.tasks + 1] = jdbfs.spawn(f.close, f)
  else judge("close", f:close()) end
  open_file(i)
end
local function forget_file() if below(4) == 0 then open_file(below(FILES) + 1) end end
local function in_place() pcall(pick(IN_TASK)) end

local BESIDE = { spawn, spawn, spawn, drive, drive, drive, collect, cancel, free, drop, look, slice,
  close, forget_file, in_place, new_buffer }

local function join_all()
  for _, task in ipairs(W.tasks) do task:join() end
end

local function sequence()
  W = { buffers = {}, tasks = {} }
  for _ = 1, 2 do new_buffer() end
  spawn()
  for _ = 1, below(8) + 2 do
    pick(BESIDE)()
    if #W.buffers == 0 then new_buffer() end
  end
  -- Otherwise it is left as it is, in flight.
  if below(3) == 0 then pcall(jdbfs.run, join_all) end
end

-- ---- rounds -------------------------------------------------------------------------------------

local function settle()
  W = nil
  for i = 1, FILES do files[i] = nil end
  if rawget(_G, "jit") then require("jit").flush() end
  local s
  for _ = 1, 2000 do
    collectgarbage()
    pcall(jdbfs.step, 0.01)
    s = jdbfs.stats()
    if s.tasks + s.in_flight + s.waiting + s.abandoned + s.files + s.buffers == 0 then return end
  end
  stop(("left behind: %d tasks, %d in flight, %d waiting, %d abandoned, %d files, %d buffers")
    :format(s.tasks, s.in_flight, s.waiting, s.abandoned, s.files, s.buffers))
end

local function begin()
  for i = 1, FILES do open_file(i) end
end

local function verify()
  for i = 1, FILES do
    local f = assert(io.open(("%s/f%d"):format(dir, i), "rb"))
    check_pages(f:read("*a"), 0, "file " .. i)
    f:close()
  end
end

-- In a function of its own, so that nothing of it is held from here.
local function main()
  begin()
  for n = 1, sequences do
    number = n
    sequence()
    if n % ROUND == 0 and n < sequences then
      settle()
      verify()
      begin()
    end
  end
  print(("%d sequences, seed %d: %d calls, %d failures, %d refused, %d cancelled, %d abandoned, " ..
    "%d pages compared"):format(sequences, seed, counts.calls, counts.failures, counts.busy,
    counts.cancelled, counts.abandoned, counts.pages))
end

main()
io.stdout:flush()
for _ = 1, 4 do jdbfs.spawn(unpack({ write, read_at }, below(2) + 1)) end
pcall(jdbfs.step, 0)
if ending == "raises" then error("raised on purpose", 0) end
if ending == "exits" then os.exit(0) end
if ending == "exits closing" then os.exit(0, true) end
