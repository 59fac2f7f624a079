-- Everything at once, for a long time: soak.lua DIRECTORY SECONDS. Tasks write and read back blocks
-- that tell where they belong, are cancelled, time out; files are opened and closed, logs appended
-- and reopened, buffers dropped, the collector runs, processes are forked. After a warm-up memory,
-- descriptors and mappings may not grow, no operation may be stuck, no byte may be wrong.
--
-- SOAK_SEED from the environment; SOAK_GROWTH=off: memory may grow; SOAK_HEAP: spec/tools/heap.c,
-- which is preloaded and counts what is allocated. Prints how memory goes every five minutes, and
-- one line of figures at the end; exit status 1 and a reason otherwise.

local jdbfs = require "jdbfs"

local dir, seconds = arg[1], tonumber(arg[2]) or 25
local seed = tonumber(os.getenv("SOAK_SEED")) or os.time() % 100000
math.randomseed(seed)
local random = math.random

local BLOCK, BLOCKS, FILES, TASKS = 4096, 64, 6, 24
local JUDGED = os.getenv("SOAK_GROWTH") ~= "off"
-- What is resident has the allocator's free memory in it, what is held has not.
local GROWTH = { resident = 1024 * 1024, held = 128 * 1024 }
local LIBRARY = os.getenv("SOAK_HEAP")
local heap = LIBRARY and assert(package.loadlib(LIBRARY, "heap_counts"))
local counts = { operations = 0, verified = 0, cancelled = 0, timeouts = 0, opened = 0, records = 0,
  forks = 0, rounds = 0 }

local function stop(why)
  io.stderr:write(("soak, seed %d, round %d: %s\n"):format(seed, counts.rounds, why))
  os.exit(1)
end

local function must(value, message, ...)
  if not value then stop(message) end
  return value, message, ...
end

-- ---- what a block says --------------------------------------------------------------------------

-- The file, the place and the version, all over the block: any mixture shows.
local function stamp(b, file, block, version)
  local word = ("%02d %04d %07d "):format(file, block, version)
  b:set(0, word:rep(256))
end

local function check_block(data, file, block)
  if data == ("\0"):rep(#data) then return end -- never written
  local word = data:sub(1, 16)
  local f, n = word:match("^(%d%d) (%d%d%d%d) %d+ $")
  if tonumber(f) ~= file or tonumber(n) ~= block or data ~= word:rep(256) then
    stop(("file %d, block %d has %q"):format(file, block, data:sub(1, 40)))
  end
  counts.verified = counts.verified + 1
end

-- ---- tasks --------------------------------------------------------------------------------------

local files, owner = {}, {}
local version = 0

local function path_of(i) return ("%s/f%d"):format(dir, i) end

local function open_file(i)
  local open = random(2) == 1 and jdbfs.open_rw or jdbfs.open_wal
  files[i] = must(open(path_of(i), { direct = "prefer" }))
  counts.opened = counts.opened + 1
end

-- Blocks are written by one task at a time, as a database would have it: `owner` is the lock. A
-- cancelled owner's write may still be on its way, so its block is left alone for this round.
local function write_block(i, n)
  local key = i * 10000 + n
  if owner[key] then return end
  owner[key] = true
  local b = must(jdbfs.buffer(BLOCK))
  version = version % 9999999 + 1 -- of seven digits, also after hours
  stamp(b, i, n, version)
  local flags = random(8) == 1 and "dsync" or nil
  local ok, message, err = files[i]:write_at(b, n * BLOCK, 0, BLOCK, flags)
  if ok or err.kind == "Closed" then
    owner[key] = nil
  else
    stop(message)
  end
  if random(3) == 1 then b:free() end -- otherwise the collector does
end

local function read_block(i, n)
  local data, message, err = files[i]:read(n * BLOCK, BLOCK)
  if data and #data == BLOCK and not owner[i * 10000 + n] then
    check_block(data, i, n)
  elseif not data and err.kind ~= "Closed" then
    stop(message)
  end
end

local function read_many(i)
  local list, blocks = {}, {}
  for k = 1, 8 do
    blocks[k] = random(BLOCKS) - 1
    list[k] = { must(jdbfs.buffer(BLOCK)), blocks[k] * BLOCK }
  end
  if not files[i]:read_many(list) then return end -- behind the end, or closed
  for k = 1, 8 do
    if not owner[i * 10000 + blocks[k]] then check_block(list[k][1]:string(), i, blocks[k]) end
  end
end

local function one_of_all()
  local i, n, what = random(FILES), random(BLOCKS) - 1, random(100)
  counts.operations = counts.operations + 1
  if what <= 40 then write_block(i, n)
  elseif what <= 75 then read_block(i, n)
  elseif what <= 85 then read_many(i)
  elseif what <= 88 then files[i]:sync_data()
  elseif what <= 92 then must(jdbfs.stat(path_of(i)))
  elseif what <= 94 then must(jdbfs.atomic_write(dir .. "/small", ("s"):rep(random(9000))))
  elseif what <= 96 then jdbfs.sleep(random() / 1000)
  else jdbfs.yield() end
end

local function worker()
  for _ = 1, 40 do one_of_all() end
end

local function append_some()
  local log = must(jdbfs.log(dir .. "/log",
    { segment_size = 262144, batch_size = 16384, direct = "prefer", spare_segments = 1 }))
  local first = log:stats().last
  for _ = 1, 10 do
    local data = ("%d "):format(log:stats().last + 1) .. ("r"):rep(random(2000))
    local number = must(log:append(data))
    if number <= first then stop("record " .. number .. " twice") end
    counts.records = counts.records + 1
  end
  local cursor = log:records(first + 1)
  local number, data = cursor:next()
  if number ~= first + 1 or not data:find("^%d+ r") then
    stop("record " .. first + 1 .. " is wrong")
  end
  cursor:close()
  must(log:truncate_before(log:stats().last - 20))
  must(log:close())
end

local function round()
  local tasks = {}
  for k = 1, TASKS do tasks[k] = jdbfs.spawn(worker) end
  local logger = jdbfs.spawn(append_some)
  for _ = 1, 4 do
    local _, _, err = jdbfs.timeout(random() / 500, worker)
    if err and err.kind == "Timeout" then counts.timeouts = counts.timeouts + 1 end
  end
  for k = 1, 5 do
    if tasks[k]:cancel() then counts.cancelled = counts.cancelled + 1 end
  end
  -- A file is closed under its users, and opened again.
  local i = random(FILES)
  must(files[i]:close())
  open_file(i)
  for k = 1, TASKS do tasks[k]:join() end
  logger:join()
  must(logger:status() == "done", "the task of the log: " .. logger:status())
end

-- ---- figures ------------------------------------------------------------------------------------

local function read_all(path)
  local f = io.open(path)
  local text = f and f:read("*a") or ""
  if f then f:close() end
  return text
end

-- A chunk of buffers counts in full: whether the system has a large page for it, which makes 2 MiB
-- of the part that was touched, is the system's business and changes from hour to hour.
local CHUNK = 2097152

local function resident()
  local bytes, whole = 0, false
  for line in read_all("/proc/self/smaps"):gmatch("[^\n]+") do
    local from, to, access, name = line:match("^(%x+)%-(%x+) (%S+) %S+ %S+ %d+%s*(.*)$")
    if from then
      from, to = tonumber(from, 16), tonumber(to, 16)
      whole = name == "" and access == "rw-p" and from % CHUNK == 0 and to % CHUNK == 0
      if whole then bytes = bytes + to - from end
    elseif not whole then
      bytes = bytes + (tonumber(line:match("^Rss:%s+(%d+)")) or 0) * 1024
    end
  end
  return bytes
end

local function mappings()
  local _, n = read_all("/proc/self/maps"):gsub("\n", "")
  return n
end

-- popen, not a directory module: what it opens itself is the same each time.
local function descriptors()
  local n = 0
  local list = io.popen("ls /proc/" .. read_all("/proc/self/stat"):match("^%d+") .. "/fd")
  for _ in list:lines() do n = n + 1 end
  list:close()
  return n
end

local function settle()
  if rawget(_G, "jit") then require("jit").flush() end
  for _ = 1, 3 do collectgarbage() end
  for _ = 1, 500 do
    local s = jdbfs.stats()
    if s.in_flight + s.waiting + s.abandoned == 0 then break end
    jdbfs.step(0.02)
  end
  for _ = 1, 2 do collectgarbage() end
  local s = jdbfs.stats()
  if s.in_flight + s.waiting + s.abandoned + s.tasks > 0 then
    stop(("stuck: %d in flight, %d waiting, %d abandoned, %d tasks"):format(
      s.in_flight, s.waiting, s.abandoned, s.tasks))
  end
  if s.files > FILES or s.buffers > 0 then
    stop(("leaked: %d files, %d buffers"):format(s.files - FILES, s.buffers))
  end
  owner = {} -- everything has arrived
end

local function measure()
  settle()
  local m = { descriptors = descriptors(), mappings = mappings() }
  for _ = 1, 2 do collectgarbage() end
  if heap then m.held, m.pieces, m.allocator = heap() end
  m.lua = collectgarbage("count") * 1024
  m.resident = resident()
  return m
end

local function fork()
  must(os.execute("true"))
  io.popen("true"):close()
  counts.forks = counts.forks + 2
end

local function verify()
  for i = 1, FILES do
    for n = 0, BLOCKS - 1 do
      local data = must(files[i]:read(n * BLOCK, BLOCK))
      if #data == BLOCK then check_block(data, i, n) end
    end
  end
end

-- ---- main ---------------------------------------------------------------------------------------

for i = 1, FILES do open_file(i) end
local start = jdbfs.now()
local warm = math.max(0.3 * math.min(seconds, 600), 3)
local base, peak
local recent = {} -- the last measures

-- Where the allocator holds on to what is free, and for how long, is chance: what counts is the
-- least of many measures. A leak raises that, too.
local function least_of_recent(what)
  local least = math.huge
  for _, m in ipairs(recent) do least = math.min(least, m[what]) end
  return least
end

local function compare(m, enough)
  recent[#recent + 1] = m
  if #recent > 20 then table.remove(recent, 1) end
  for what, most in pairs(JUDGED and #recent >= enough and GROWTH or {}) do
    if m[what] and least_of_recent(what) > base[what] + most then
      stop(("memory %s grew from %.0f to %.0f KiB"):format(what, base[what] / 1024,
        least_of_recent(what) / 1024))
    end
  end
  -- Files are counted exactly in settle; here only growth counts.
  if m.descriptors > base.descriptors + 2 then
    stop(("descriptors grew from %d to %d"):format(base.descriptors, m.descriptors))
  end
  if m.mappings > base.mappings + 64 then
    stop(("mappings grew from %d to %d"):format(base.mappings, m.mappings))
  end
end

local function tell(m)
  local line = ("%.0f s: %.0f KiB resident, %.0f of Lua"):format(jdbfs.now() - start,
    m.resident / 1024, m.lua / 1024)
  if heap then
    line = line .. (", %.0f held in %d pieces, %.0f in the allocator"):format(m.held / 1024,
      m.pieces, m.allocator / 1024)
  end
  print(line)
  io.stdout:flush()
end

local told = start
while jdbfs.now() - start < seconds or not base do
  counts.rounds = counts.rounds + 1
  jdbfs.run(round)
  if counts.rounds % 10 == 0 then fork() end
  if counts.rounds % 10 == 0 or not peak then
    local m = measure()
    verify()
    peak = peak or {}
    for what in pairs(GROWTH) do peak[what] = math.max(peak[what] or 0, m[what] or 0) end
    if not base and jdbfs.now() - start >= warm and counts.rounds >= 20 then
      base = m
      for what in pairs(GROWTH) do base[what] = peak[what] end
      tell(m)
    elseif base then
      compare(m, 20)
      if jdbfs.now() - told >= 300 then
        told = jdbfs.now()
        tell(m)
      end
    end
  end
end
local last = measure()
compare(last, 1)
local function growth(what)
  return ("%+.0f KiB %s"):format((least_of_recent(what) - base[what]) / 1024, what)
end
local grown = growth("resident") .. (heap and ", " .. growth("held") or "")
print(("%.0f s, %d rounds, seed %d: %d operations, %d blocks verified, %d cancelled, " ..
  "%d timed out, " ..
  "%d opened, %d records, %d forks; memory %s, descriptors %+d, mappings %+d"):format(
  jdbfs.now() - start, counts.rounds, seed, counts.operations, counts.verified, counts.cancelled,
  counts.timeouts, counts.opened, counts.records, counts.forks,
  JUDGED and grown or "not judged", last.descriptors - base.descriptors,
  last.mappings - base.mappings))
for i = 1, FILES do must(files[i]:close()) end
