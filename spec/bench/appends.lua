-- appends.lua HOW PATH TASKS SECONDS: durable work by that many tasks. Prints: operations seconds
-- cpu-seconds, and durable writes or flushes an operation. HOW:
--
--   log    records of 512 bytes are appended to a log that is made at PATH
--   again  the same; what was appended is given up as it goes, and its segments are used again
--   alone  pages of PATH are written, each write durable by itself
--   pages  pages of PATH are written, then sync_data
--
-- The first task looks at the clock, as the C loop does: once a commit.

local jdbfs = require("jdbfs")

local how, path, tasks, seconds = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local RECORD, PAGE, PAGES = ("r"):rep(512), 4096, 16384

local function measure(operation)
  local count, stopped = 0, false
  local cpu, started = os.clock(), jdbfs.now()
  jdbfs.run(function()
    for i = 1, tasks do
      jdbfs.spawn(function()
        local work = operation(i)
        while not stopped do
          assert(work())
          count = count + 1
          if i == 1 then stopped = jdbfs.now() - started >= seconds end
        end
      end)
    end
  end)
  return count, jdbfs.now() - started, os.clock() - cpu
end

local function show(count, took, cpu, flushes)
  print(("%d %.6f %.6f %.4f"):format(count, took, cpu, flushes / count))
end

-- As a database does whose checkpoint is at the end of the log.
local function give_up(log)
  local stats = log:stats()
  if stats.segments > 1 then assert(log:truncate_before(stats.last)) end
end

local function appender(log, gives_up)
  local since = 0
  return function()
    since = since + 1
    if gives_up and since % 64 == 0 then jdbfs.spawn(give_up, log) end
    return log:append(RECORD)
  end
end

-- Until no segment has to be made any more.
local function warm_up(log)
  local large = ("r"):rep(2 ^ 20)
  while log:stats().reused < 2 do
    assert(log:append(large))
    give_up(log)
  end
end

if how == "log" or how == "again" then
  local log = assert(jdbfs.log(path, { spare_segments = how == "again" and 1 or 0 }))
  if how == "again" then jdbfs.run(warm_up, log) end
  local batches = log:stats().batches
  local count, took, cpu = measure(function(i) return appender(log, how == "again" and i == 1) end)
  show(count, took, cpu, log:stats().batches - batches)
  assert(log:close())
else
  local o = how == "alone" and { durable_method = "write" } or nil
  local file = assert(jdbfs.open_rw(path, o))
  local flushes = jdbfs.stats().flushes
  local count, took, cpu = measure(function(i)
    local page, at = jdbfs.buffer(PAGE), i - 1
    return function()
      at = (at + tasks) % PAGES
      if how == "alone" then return file:write_at(page, at * PAGE, 0, PAGE, "dsync") end
      local written, message, err = file:write_at(page, at * PAGE)
      if not written then return nil, message, err end
      return file:sync_data()
    end
  end)
  show(count, took, cpu, how == "alone" and count or jdbfs.stats().flushes - flushes)
  assert(file:close())
end
