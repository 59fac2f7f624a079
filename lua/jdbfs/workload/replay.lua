-- Replays a trace at its times: CSV "t_us,op,offset,length[,stream]", an iolog of fio (version 2
-- or 3), or what blkparse prints or writes with -d. Streams become coroutines: each serves its own
-- operations in order; what comes late is late in the response time, as it would have been for
-- whoever asked.

local W = require("jdbfs.workload")
local status = require("jdbfs.command.status")

local OPS = { r = "read", read = "read", w = "write", write = "write", f = "fsync", s = "fsync",
  fsync = "fsync", sync = "fsync", d = "fdatasync", fdatasync = "fdatasync",
  datasync = "fdatasync", t = "trim", trim = "trim", write_sync = "write_sync" }

local function wrong(path, number, message)
  status.fail(status.FAILED, ("%s:%d: %s"):format(path, number, message))
end

local SIZE_MAX = 2 ^ 53 -- bytes: what every Lua tells apart from one more

local function add(trace, number, at, op, off, length, stream)
  local kind = OPS[op]
  if not kind then wrong(trace.path, number, ("%q is no operation"):format(op)) end
  at, off, length = tonumber(at), tonumber(off or 0), tonumber(length or 0)
  local whole = at and off and length and at >= 0 and at < math.huge and off % 1 == 0
    and length % 1 == 0
  if not whole then wrong(trace.path, number, "time, offset or length is no number") end
  if kind == "fsync" or kind == "fdatasync" then
    off, length = 0, 0
  elseif length == 0 or off % 512 ~= 0 or length % 512 ~= 0 then
    wrong(trace.path, number, "offset and length are not whole blocks of 512 bytes")
  elseif off + length > SIZE_MAX then
    wrong(trace.path, number, "offset and length are beyond 8 PiB")
  end
  local list = trace.streams[stream]
  if not list then
    list = {}
    trace.streams[stream] = list
    trace.streams[#trace.streams + 1] = list
  end
  list[#list + 1] = { at = at / 1e6, kind = kind, off = off, length = length }
  trace.extent = math.max(trace.extent, off + length)
  trace.largest = math.max(trace.largest, length)
  trace.count = trace.count + 1
end

-- "t_us,op,offset,length[,stream]"; a first line of names is allowed.
local function read_csv(trace, number, line)
  if number == 1 and line:match("^t_us,") then return end
  local at, op, off, length, stream = line:match(
    "^%s*([%d.]+)%s*,%s*(%a+)%s*,%s*(%d*)%s*,%s*(%d*)%s*,?%s*(.-)%s*$")
  if not at then wrong(trace.path, number, "is not t_us,op,offset,length[,stream]") end
  add(trace, number, at, op:lower(), off ~= "" and off or 0, length ~= "" and length or 0, stream)
end

local FILE_ACTIONS = { add = true, open = true, close = true }

-- Version 2 has no times but those of "wait"; version 3 begins each line with microseconds.
local function read_iolog(trace, number, line, version)
  local at, rest = trace.clock, line
  if version == 3 then
    at, rest = line:match("^(%d+)%s+(.+)$")
    if not at then wrong(trace.path, number, "does not begin with a time") end
  end
  local name, action, off, length = rest:match("^(%S+)%s+(%a+)%s*(%d*)%s*(%d*)%s*$")
  if not name then wrong(trace.path, number, "is not: file action [offset length]") end
  if FILE_ACTIONS[action] then return end
  if action == "wait" then
    trace.clock = trace.clock + (tonumber(off) or 0)
    return
  end
  add(trace, number, at, action, off ~= "" and off or 0, length ~= "" and length or 0, name)
end

-- blkparse: "8,0 3 1 0.000000000 697 Q WFS 223490 + 8 [name]". Only lines Q (queued by a process)
-- count: the others, and the summary below, tell what the block layer did with them. A stream is a
-- process; the first operation is due at once. F before the letter is a flush before it, behind it
-- FUA: a durable write.
local LETTERS = { R = "read", W = "write", D = "trim" }

-- What a process queued. seconds: of the trace's clock; letter: of LETTERS, or none.
local function add_queued(trace, number, seconds, process, flush, letter, fua, off, length)
  local at = seconds * 1e6
  trace.zero = trace.zero or at
  at = math.max(at - trace.zero, 0)
  if flush then add(trace, number, at, "fdatasync", 0, 0, process) end
  local op = LETTERS[letter]
  if op == "write" and fua then op = "write_sync" end
  if op and length > 0 then add(trace, number, at, op, off, length, process) end
end

local function read_blkparse(trace, number, line)
  local seconds, process, action, rest = line:match(
    "^%s*%d+,%d+%s+%d+%s+%d+%s+(%d+%.?%d*)%s+(%d+)%s+(%a+)%s+(.*)$")
  if not seconds then
    trace.ended = trace.ended or line:match("^CPU%d* %(") or line:match("^Total %(")
    if not trace.ended then wrong(trace.path, number, "is no line of blkparse") end
  end
  if action ~= "Q" then return end
  local flush, letter, fua, sector, count = rest:match(
    "^(F?)([RWDN])(F?)%a*%s+(%d+)%s*%+%s*(%d+)")
  if not sector then
    flush = rest:match("^F[RWN]?%a*%s*%[") or rest:match("^F[RWN]?%a*%s*$")
    if not flush then wrong(trace.path, number, "has no sector and length") end
  end
  add_queued(trace, number, tonumber(seconds), process, flush ~= "", letter or "N", fua ~= "",
    (sector or 0) * 512, (count or 0) * 512)
end

-- The records of blktrace, as `blkparse -d` sorts them: struct blk_io_trace of the kernel, 48 bytes
-- in the byte order of the machine, and what else the record says it has.
local RECORD = 48
local LITTLE, BIG = "\7tae", "eat\7" -- magic and version
local QUEUE, READ, WRITE, FLUSH, NOTIFY, DISCARD, FUA = 1, 16, 17, 18, 26, 29, 31 -- of the action

local function unsigned(record, at, bytes)
  local value, big = 0.0, record:sub(1, 4) == BIG -- whole numbers of Lua would wrap
  for i = 1, bytes do
    value = value * 256 + record:byte(big and at + i or at + bytes + 1 - i)
  end
  return value
end

local function read_blktrace(trace, file)
  local number = 0
  while true do
    local record = file:read(RECORD)
    if not record then return end
    number = number + 1
    local magic = record:sub(1, 4)
    if #record < RECORD or (magic ~= LITTLE and magic ~= BIG) then
      wrong(trace.path, number, "is no whole record of blktrace")
    end
    local more = unsigned(record, 46, 2)
    if more > 0 and #(file:read(more) or "") < more then
      wrong(trace.path, number, "is no whole record of blktrace")
    end
    local action = unsigned(record, 28, 4)
    local function has(bit) return math.floor(action / 2 ^ bit) % 2 == 1 end
    if action % 65536 == QUEUE and not has(NOTIFY) then
      local letter = has(DISCARD) and "D" or has(WRITE) and "W" or has(READ) and "R" or "N"
      add_queued(trace, number, unsigned(record, 8, 8) / 1e9, ("%d"):format(
        unsigned(record, 32, 4)), has(FLUSH), letter, has(FUA), unsigned(record, 16, 8) * 512,
        unsigned(record, 24, 4))
    end
  end
end

local function read_text(trace, file)
  local path, number, version = trace.path, 0, nil
  for line in file:lines() do
    number = number + 1
    line = line:gsub("\r$", "")
    if number == 1 then version = tonumber(line:match("^fio version (%d) iolog$")) end
    local head = version ~= nil
    if not version and line:match("^%s*%d+,%d+%s+%d+%s+%d+%s") then version = "blkparse" end
    if line:match("^%s*$") or line:match("^%s*#") or (number == 1 and head) then
      version = version or nil
    elseif version == "blkparse" then
      read_blkparse(trace, number, line)
    elseif version and version ~= 2 and version ~= 3 then
      wrong(path, 1, ("iolog version %d is not known"):format(version))
    elseif version then
      read_iolog(trace, number, line, version)
    else
      read_csv(trace, number, line)
    end
  end
end

local function read_trace(path)
  local file, message = io.open(path, "rb")
  if not file then status.fail(status.FAILED, message) end
  local trace = { path = path, streams = {}, extent = 0, largest = 0, count = 0, clock = 0 }
  local magic = file:read(4)
  file:seek("set")
  if magic == LITTLE or magic == BIG then read_blktrace(trace, file)
  else read_text(trace, file) end
  file:close()
  if trace.count == 0 then status.fail(status.FAILED, path .. ": no operation in it") end
  return trace
end

local CALLS = {
  read = function(file, _, off, buffer) return file:read(off, buffer) end,
  write = function(file, _, off, buffer) return file:write(buffer, off) end,
  write_sync = function(file, _, off, buffer) return file:write_sync(buffer, off) end,
  fsync = function(file) return file:sync() end,
  fdatasync = function(file) return file:fdatasync() end,
  trim = function(file, e, off) return file:trim(off, e.length) end,
}

local loaded = {} -- one trace is read once: for its size, then for the run

local function load_trace(opt)
  if not opt.trace then status.usage("replay: --trace FILE is missing") end
  loaded[opt] = loaded[opt] or read_trace(opt.trace)
  return loaded[opt]
end

return W.define({
  about = "a trace at its times: CSV t_us,op,offset,length[,stream], iolog of fio, blkparse",
  arrivals = false,
  procs = false,
  file = true,
  ends = true,
  warmup = 0,
  options = {
    trace = W.text(nil, "the file to replay"),
    speed = W.factor("1x", "2x replays twice as fast"),
    asap = W.flag("do not wait: each stream as fast as it can"),
  },
  size = function(opt, bs)
    local extent = load_trace(opt).extent
    return math.max(math.ceil(extent / bs), 1) * bs
  end,
  setup = function(ctx)
    local trace = load_trace(ctx.opt)
    return { trace = trace, start = nil }
  end,
  jobs = { { name = "replay", loop = true,
    n = function(engine) return #load_trace(engine.opt).streams end,
    main = function(ctx, s)
      ctx:warm()
      s.start = s.start or ctx:now() + 0.01
      local list, speed, late = s.trace.streams[ctx.id], ctx.opt.speed, ctx:track("schedule_error")
      local whole = ctx:new_buffer(math.max(s.trace.largest, 512))
      ctx.rng:fill(whole)
      local buffers = {}
      for _, e in ipairs(list) do
        if not ctx:running() then return end
        if not ctx.opt.asap then
          local due = s.start + e.at / speed
          ctx:until_due(due)
          late(math.max(0, ctx:now() - due))
        end
        local buffer = buffers[e.length]
        if not buffer then
          buffer = e.length > 0 and whole:slice(0, e.length) or whole
          buffers[e.length] = buffer
        end
        CALLS[e.kind](ctx.file, e, e.off, buffer)
      end
    end } },
  teardown = function(ctx, s)
    ctx:note("trace", ("%d operations, %d streams"):format(s.trace.count, #s.trace.streams))
    loaded[ctx.opt] = nil
  end,
})
