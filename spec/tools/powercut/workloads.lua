-- What is done while the power may be cut, and what must be there afterwards.
--
--   lua workloads.lua prepare NAME DIR            is durable before the first cut
--   lua workloads.lua work NAME DIR MARKS COUNT   acknowledges COUNT times, in lines of MARKS
--   lua workloads.lua check NAME DIR MARKS        exit status 1, and why, when a promise is broken
--   lua workloads.lua list
--
-- Each workload is a table of prepare (optional), work and check. `check` gets the lines that were
-- acknowledged, as lists of words, and reads without jdbfs wherever that says anything.

local jdbfs -- only for what needs it

local SECTOR, PAGE = 512, 4096
local W = {}

-- ---- shared ------------------------------------------------------------------------------------

local function broken(...)
  print(string.format(...))
  os.exit(1)
end

-- Deterministic, so that a check knows what was written.
local function text(key, length)
  key = key .. ";"
  return key:rep(math.floor(length / #key) + 1):sub(1, length)
end

local function slurp(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local data = f:read("*a")
  f:close()
  return data
end

local function is_there(path)
  return os.rename(path, path) == true
end

-- `tasks` coroutines share `count` jobs: body(job, task).
local function share(tasks, count, body)
  jdbfs.run(function()
    local job = 0
    for task = 1, tasks do
      jdbfs.spawn(function()
        while job < count do
          job = job + 1
          body(job, task)
        end
      end)
    end
  end)
end

local function make_file(path, data)
  local f = assert(jdbfs.create(path, { direct = "off", durable_create = true }))
  local b = assert(jdbfs.buffer(#data))
  b:set(0, data)
  assert(f:write_at(b, 0))
  assert(f:sync_all())
  assert(f:close())
end

-- ---- slots: pages of a file, each written again and again by one task --------------------------

local function sector_text(slot, version, sector)
  return text(("slot %d version %d sector %d"):format(slot, version, sector), SECTOR)
end

local function slot_text(slot, version, length)
  local parts = {}
  for i = 0, length / SECTOR - 1 do parts[#parts + 1] = sector_text(slot, version, i) end
  return table.concat(parts)
end

-- Nothing above one sector is promised to be whole: each has the acknowledged version, or the one
-- that was under way.
local function check_slots(path, marks, length)
  local versions = {}
  for _, mark in ipairs(marks) do versions[tonumber(mark[1])] = tonumber(mark[2]) end
  local data = slurp(path)
  if not data then
    if #marks > 0 then broken("%s is missing", path) end
    return
  end
  for slot, version in pairs(versions) do
    for sector = 0, length / SECTOR - 1 do
      local from = slot * length + sector * SECTOR
      local found = data:sub(from + 1, from + SECTOR)
      if found ~= sector_text(slot, version, sector)
        and found ~= sector_text(slot, version + 1, sector) then
        broken("slot %d sector %d: version %d was acknowledged, there is %q of %d bytes in all",
          slot, sector, version, found:sub(1, 30), #data)
      end
    end
  end
end

-- o.open(dir): the file. o.write(f, buffer, offset). o.fresh: each slot is written once.
local function slots(o)
  local length = o.length or PAGE
  local workload = {}
  function workload.work(dir, ack, count)
    local tasks = o.tasks or 4
    local f = o.open(dir .. "/slots", 4 * tasks * length)
    local buffers, versions = {}, {}
    for task = 1, tasks do buffers[task] = assert(jdbfs.buffer(length)) end
    share(tasks, count, function(job, task)
      local slot = o.fresh and job - 1 or (task - 1) * 4 + job % 4
      versions[slot] = (versions[slot] or 0) + 1
      buffers[task]:set(0, slot_text(slot, versions[slot], length))
      o.write(f, buffers[task], slot * length)
      ack(slot, versions[slot])
    end)
    assert(f:close())
  end
  function workload.check(dir, marks)
    check_slots(dir .. "/slots", marks, length)
  end
  return workload
end

local function preallocated(path, size, o)
  local f = assert(jdbfs.open_rw(path, o))
  assert(f:preallocate(size, "zero"))
  assert(f:sync_all())
  assert(jdbfs.sync_dir(path:match("^(.*)/")))
  return f
end

W.wal_append = slots({
  fresh = true,
  open = function(path) return assert(jdbfs.open_wal(path, { durable_create = true })) end,
  write = function(f, b, offset) assert(f:write_at(b, offset)) end,
})

W.wal_overwrite = slots({
  length = 4 * PAGE,
  open = function(path, size)
    assert(preallocated(path, size):close())
    return assert(jdbfs.open_wal(path, { must_exist = true }))
  end,
  write = function(f, b, offset) assert(f:write_at(b, offset)) end,
})

W.dsync_write = slots({
  open = function(path, size) return preallocated(path, size, { durable_method = "write" }) end,
  write = function(f, b, offset) assert(f:write_at(b, offset, 0, PAGE, "dsync")) end,
})

W.dsync_flush = slots({
  tasks = 8,
  length = 2 * PAGE,
  open = function(path, size) return preallocated(path, size, { durable_method = "flush" }) end,
  write = function(f, b, offset)
    assert(f:write_many({ { b, offset, 0, PAGE }, { b, offset + PAGE, PAGE, PAGE } }, "dsync"))
  end,
})
W.sync_data = slots({
  fresh = true,
  open = function(path) return assert(jdbfs.create(path, { durable_create = true })) end,
  write = function(f, b, offset)
    assert(f:write_at(b, offset))
    assert(f:sync_data())
  end,
})

W.sync_all = slots({
  length = 3 * SECTOR,
  open = function(path)
    return assert(jdbfs.create(path, { durable_create = true, direct = "off" }))
  end,
  write = function(f, b, offset)
    assert(f:write_at(b, offset))
    assert(f:sync_all())
  end,
})

-- ---- sizes -------------------------------------------------------------------------------------

local SIZE = 64 * PAGE

W.size = {
  prepare = function(dir) make_file(dir .. "/f", slot_text(0, 1, SIZE)) end,

  -- "to": what is tried next. "is": the size is durable now.
  work = function(dir, ack, count)
    local f = assert(jdbfs.open_rw(dir .. "/f", { direct = "prefer" }))
    for i = 1, count do
      local down = SIZE - math.floor(i / 2) * 700 % SIZE
      local to = i % 2 == 1 and down or down + 5 * PAGE + i
      ack("to", to)
      if i % 2 == 1 then assert(f:truncate(to))
      else assert(f:preallocate(to, i % 4 == 0 and "size" or "zero")) end
      if i % 6 < 3 then assert(f:sync_all()) else assert(f:sync_data()) end
      ack("is", to)
    end
    assert(f:close())
  end,

  check = function(dir, marks)
    local size, next_size, low = SIZE, nil, SIZE
    for _, mark in ipairs(marks) do
      if mark[1] == "is" then size, next_size = tonumber(mark[2]), nil
      else next_size = tonumber(mark[2]) end
      low = math.min(low, size)
    end
    local data = slurp(dir .. "/f") or broken("the file is missing")
    local least, most = math.min(size, next_size or size), math.max(size, next_size or size)
    -- Zeros are written in whole pages; what is too much is cut off at the end of the call.
    if next_size then most = math.ceil(most / PAGE) * PAGE end
    if #data < least or #data > most then
      broken("%d bytes, acknowledged %d, next %s", #data, size, tostring(next_size))
    end
    local kept = math.min(low, least)
    if data:sub(1, kept) ~= slot_text(0, 1, SIZE):sub(1, kept) then
      broken("the content changed")
    end
    if data:sub(low + 1):find("[^%z]") then broken("what was cut off is there again") end
  end,
}

-- ---- names -------------------------------------------------------------------------------------

W.create = {
  -- "name": it is durable. "data": its content, too.
  work = function(dir, ack, count)
    share(3, count, function(job)
      local path = ("%s/f%d"):format(dir, job)
      local f = assert(jdbfs.create(path, { exclusive = true, durable_create = true }))
      ack("name", job)
      if job % 3 == 0 then
        local b = assert(jdbfs.buffer(PAGE))
        b:set(0, text(path:match("[^/]+$"), PAGE))
        assert(f:write_at(b, 0, 0, PAGE, "dsync"))
        ack("data", job)
      end
      assert(f:close())
    end)
  end,

  check = function(dir, marks)
    for _, mark in ipairs(marks) do
      local name = "f" .. mark[2]
      local data = slurp(dir .. "/" .. name) or broken("%s is missing", name)
      if mark[1] == "data" and data ~= text(name, PAGE) then broken("%s lost its content", name) end
    end
  end,
}

local FILES = 400

W.rename = {
  prepare = function(dir)
    assert(jdbfs.mkdir(dir .. "/from", { durable = true }))
    assert(jdbfs.mkdir(dir .. "/to", { durable = true }))
    share(8, FILES, function(i) make_file(("%s/from/f%d"):format(dir, i), "file " .. i) end)
  end,

  work = function(dir, ack, count)
    share(3, math.min(count, FILES), function(job)
      local to = job % 2 == 0 and "to" or "from"
      assert(jdbfs.rename(("%s/from/f%d"):format(dir, job), ("%s/%s/g%d"):format(dir, to, job),
        { durable = true, noreplace = job % 3 == 0 }))
      ack(to, job)
    end)
  end,

  check = function(dir, marks)
    for _, mark in ipairs(marks) do
      local to, job = mark[1], mark[2]
      if slurp(("%s/%s/g%s"):format(dir, to, job)) ~= "file " .. job then
        broken("%s/g%s is not there", to, job)
      end
      if is_there(("%s/from/f%s"):format(dir, job)) then broken("from/f%s is back", job) end
    end
  end,
}

W.remove = {
  prepare = function(dir)
    share(8, FILES, function(i) make_file(("%s/f%d"):format(dir, i), "file " .. i) end)
  end,

  work = function(dir, ack, count)
    share(3, math.min(count, FILES), function(job)
      assert(jdbfs.remove(("%s/f%d"):format(dir, job), { durable = true }))
      ack(job)
    end)
  end,

  check = function(dir, marks)
    for _, mark in ipairs(marks) do
      if is_there(dir .. "/f" .. mark[1]) then broken("f%s is back", mark[1]) end
    end
  end,
}

W.mkdir = {
  work = function(dir, ack, count)
    share(3, count, function(job)
      -- Several below one that is new, and one that another task makes at the same time.
      assert(jdbfs.mkdir(("%s/d%d/x/y%d"):format(dir, math.floor(job / 3), job),
        { durable = true }))
      ack(math.floor(job / 3), job)
    end)
  end,

  check = function(dir, marks)
    for _, mark in ipairs(marks) do
      local path = ("%s/d%s/x/y%s"):format(dir, mark[1], mark[2])
      if not is_there(path) then broken("%s is missing", path) end
    end
  end,
}

-- ---- atomic_write ------------------------------------------------------------------------------

local function version_text(name, version)
  return ("%s %d\n"):format(name, version) .. text(name .. version, version * 7919 % 40000)
end

W.atomic_write = {
  work = function(dir, ack, count)
    local versions = { 0, 0, 0 }
    share(3, count, function(_, task)
      versions[task] = versions[task] + 1
      local name = "name" .. task
      assert(jdbfs.atomic_write(dir .. "/" .. name, version_text(name, versions[task])))
      ack(name, versions[task])
    end)
  end,

  check = function(dir, marks)
    local versions = { name1 = 0, name2 = 0, name3 = 0 }
    for _, mark in ipairs(marks) do versions[mark[1]] = tonumber(mark[2]) end
    for name, version in pairs(versions) do
      local data = slurp(dir .. "/" .. name)
      if not (data == nil and version == 0) and data ~= version_text(name, version)
        and data ~= version_text(name, version + 1) then
        broken("%s: version %d was acknowledged, there is %q, %d bytes", name, version,
          tostring(data):sub(1, 30), #(data or ""))
      end
    end
  end,
}

-- ---- the log -----------------------------------------------------------------------------------

local LOG = { segment_size = 131072, batch_size = 16384, direct = "prefer" }

local function record_text(key, size)
  return text("record " .. key, size)
end

-- "record": number, key, size. "truncate": may be gone before that number; "truncated": is gone.
local function check_log(dir, marks)
  local acknowledged, highest, first, least = {}, 0, 1, 1
  for _, mark in ipairs(marks) do
    local number = tonumber(mark[2])
    if mark[1] == "record" then
      if acknowledged[number] then broken("number %d came twice", number) end
      acknowledged[number] = record_text(mark[3], tonumber(mark[4]))
      highest = math.max(highest, number)
    elseif mark[1] == "truncate" then
      first = math.max(first, number)
    elseif mark[1] == "truncated" then
      least = number
    end
  end
  local log, message = jdbfs.log(dir .. "/log", LOG)
  if not log then broken("the log does not open: %s", message) end
  if log:recovery().first < least then
    broken("record %d is there, %d was acknowledged to be the first", log:recovery().first, least)
  end
  local found, last = {}, 0
  local cursor = log:records()
  while true do
    local number, data = cursor:next()
    if number == nil and data then broken("the records end with: %s", data) end
    if number == nil then break end
    if number <= last then broken("record %d after %d", number, last) end
    found[number], last = data, number
  end
  for number, data in pairs(acknowledged) do
    if number >= first and found[number] ~= data then
      broken("record %d of 1 to %d was acknowledged, there is %q", number, highest,
        tostring(found[number]):sub(1, 30))
    end
  end
  local after = assert(log:append("after the cut"))
  if after <= highest or after <= last then broken("number %d came twice", after) end
  assert(log:close())
end

local function append_all(log, ack, tasks, count, round)
  share(tasks, count, function(job)
    local key = ("%s-%d"):format(round, job)
    local size = job % 17 == 0 and 9000 or job * 131 % 1500
    local number = assert(log:append(record_text(key, size)))
    ack("record", number, key, size)
  end)
end

W.log_append = {
  work = function(dir, ack, count)
    local log = assert(jdbfs.log(dir .. "/log", LOG))
    append_all(log, ack, 4, count, "r")
    assert(log:close())
  end,
  check = check_log,
}

-- Segments of a few records, so that they are used again.
local LOG_SMALL = {
  segment_size = 32768, batch_size = 16384, direct = "prefer", spare_segments = 1,
}

W.log_truncate = {
  work = function(dir, ack, count)
    local reused = 0
    for round = 1, 4 do
      local log = assert(jdbfs.log(dir .. "/log", LOG_SMALL))
      share(3, math.floor(count / 4), function(job)
        local key = ("%d-%d"):format(round, job)
        local number = assert(log:append(record_text(key, 3000)))
        ack("record", number, key, 3000)
        if number % 10 == 0 then
          ack("truncate", number - 5)
          assert(log:truncate_before(number - 5))
          ack("truncated", log:stats().first)
        end
      end)
      reused = reused + log:stats().reused
      assert(log:close())
    end
    assert(reused > 0, "no segment was used again")
  end,
  check = check_log,
}

-- The last batch, which nobody acknowledged, is torn; then the log is opened again.
local function tear(dir)
  local names = assert(jdbfs.ls(dir .. "/log"))
  local last
  for _, name in ipairs(names) do
    if name:match("%.log$") then last = dir .. "/log/" .. name end
  end
  local data = slurp(last)
  local at = assert(data:find("unacknowledged", 1, true)) - 1
  while true do
    local later = data:find("unacknowledged", at + 2, true)
    if not later then break end
    at = later - 1
  end
  local f = assert(jdbfs.open_rw(last, { direct = "prefer" }))
  local b = assert(jdbfs.buffer(PAGE))
  local page = math.floor(at / PAGE) * PAGE
  assert(f:read_at(b, page))
  b:u8(at - page, b:u8(at - page) == 1 and 2 or 1)
  assert(f:write_at(b, page))
  assert(f:sync_data())
  assert(f:close())
end

W.log_recovery = {
  work = function(dir, ack, count)
    for round = 1, math.max(1, math.floor(count / 8)) do
      local log = assert(jdbfs.log(dir .. "/log", LOG))
      assert(log:recovery().clean == (round == 1), "nothing was cut")
      append_all(log, ack, 2, 8, "r" .. round)
      assert(log:append("unacknowledged " .. round))
      assert(log:close())
      tear(dir)
    end
  end,
  check = check_log,
}

-- ---- main --------------------------------------------------------------------------------------

local function marks_of(path)
  local marks = {}
  for line in io.lines(path) do
    local mark = {}
    for word in line:gmatch("%S+") do mark[#mark + 1] = word end
    marks[#marks + 1] = mark
  end
  return marks
end

local function acknowledger(path)
  local f = assert(io.open(path, "w"))
  f:setvbuf("no")
  return function(...) assert(f:write(table.concat({ ... }, " ") .. "\n")) end
end

local what, name, dir = arg[1], arg[2], arg[3]
if what == "list" then
  local names = {}
  for each in pairs(W) do names[#names + 1] = each end
  table.sort(names)
  print(table.concat(names, " "))
  return
end

local workload = assert(W[name], "no such workload")
if what == "prepare" then
  jdbfs = require("jdbfs")
  if workload.prepare then workload.prepare(dir) end
elseif what == "work" then
  jdbfs = require("jdbfs")
  workload.work(dir, acknowledger(arg[4]), tonumber(arg[5]))
else
  if name:match("^log_") then jdbfs = require("jdbfs") end
  local ok, message = xpcall(workload.check, debug.traceback, dir, marks_of(arg[4]))
  if not ok then
    print(message)
    os.exit(3)
  end
end
