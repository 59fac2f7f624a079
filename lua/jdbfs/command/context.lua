-- What a workload's functions get as ctx: files, pages, timing, coordination, random numbers.
-- One per coroutine; setup and teardown have one of their own. Methods that wait must be called in
-- a task; nothing here uses pcall, which plain Lua 5.1 cannot yield across.

local core = require("jdbfs.core")
local jdbfs = require("jdbfs")
local status = require("jdbfs.command.status")

local ceil, max, min = math.ceil, math.max, math.min
local error, ipairs, pairs, select, setmetatable = error, ipairs, pairs, select, setmetatable
local tonumber, tostring, type = tonumber, tostring, type
local current, park, wake = core.current, core.park, core.wake
local put_numbers = core.number

local RECORD_HEADER = 16 -- u32 length, u32 CRC-32C, u64 sequence number
local BLOCK = 4096

-- What every Lua would only trip over later, or never.
local function expect(method, what, given)
  if not given then error(("%s: %s expected"):format(method, what), 3) end
end

-- One buffer of each size for a context; it lives as long.
local function buffer_of(self, size)
  local buffer = self.buffers[size]
  if not buffer then
    local message
    buffer, message = jdbfs.buffer(size)
    if not buffer then error(message, 2) end
    self.buffers[size] = buffer
  end
  return buffer
end

-- Pages ------------------------------------------------------------------------------------------

-- An aligned buffer of the coroutine, valid until it asks for the next one of that size.
local Page = {}
Page.__index = Page

-- Records of a group, each with length, checksum and number, then zeros up to a whole block: the
-- filled part of the buffer. The list holds strings, or what queue:take gave.
function Page:pack(list)
  local length = 0
  for i = 1, #list do
    local record = list[i].value or list[i]
    length = length + RECORD_HEADER + #record
  end
  local padded = max(ceil(length / BLOCK), 1) * BLOCK
  local buffer = self.buffer
  if #buffer < padded then
    buffer = buffer_of(self.context, max(padded, 2 * #buffer))
    self.buffer = buffer
  end
  local at = 0
  for i = 1, #list do
    local record = list[i].value or list[i]
    self.sequence = (self.sequence or 0) + 1
    buffer:u32(at, #record)
    buffer:u64(at + 8, self.sequence)
    buffer:set(at + RECORD_HEADER, record)
    buffer:u32(at + 4, buffer:crc32c(at + 8, 8 + #record))
    at = at + RECORD_HEADER + #record
  end
  if padded > at then buffer:fill(0, at, padded - at) end
  return padded == #buffer and buffer or buffer:slice(0, padded)
end

-- Random bytes all over; of these a share in percent may be zeros.
function Page:random(zeros)
  self.context.rng:fill(self.buffer, zeros)
  return self
end

-- Files ------------------------------------------------------------------------------------------

-- A file of the module with the calls that workloads use; each is timed in C by its kind. What each
-- iteration calls lies in the object itself, where it is found at once.
local File = {}
File.__index = File

function File:read(off, page)
  local buffer = page and (page.buffer or page) or self.buffer
  if not buffer then error("read: this file needs a page to be read into: ctx:page()", 2) end
  return self.read_at(self.raw, buffer, off)
end

-- Written, and durable as the option --sync of the file says.
function File:write(page, off)
  if self.plain then return self.write_at(self.raw, page.buffer or page, off) end
  local written, message, err = self.raw:write_at(page.buffer or page, off, nil, nil, self.flags)
  if not written or not self.after then return written, message, err end
  local synced, why, reason = self.raw[self.after](self.raw)
  if not synced then return nil, why, reason end
  return written
end

-- From its first use on both are one call in C, unless something stands in front of the file.
local function draw(self, name)
  self.read_page, self.write_page = core.drawn(self.raw, self.buffer, self.rng)
  return self[name](self)
end

-- A page that is drawn from --dist.
function File:read_page()
  if self.drawable then return draw(self, "read_page") end
  return self:read(self.rng:page())
end

-- The coroutine's page of random bytes, with its offset and number at its front.
function File:write_page()
  local page = self.context:filled()
  if self.drawable then return draw(self, "write_page") end
  return self:write(page, self.rng:page(page.buffer))
end

-- Durable when it returns, by one call.
function File:write_sync(page, off)
  return self.raw:write_at(page.buffer or page, off, nil, nil, "dsync")
end

function File:fdatasync() return self.raw:sync_data() end
function File:sync() return self.raw:sync_all() end
function File:trim(off, length) return self.raw:punch(off, length) end
function File:size() return self.raw:size() end
function File:info() return self.raw:info() end
function File:path() return self.raw:path() end

-- sync: none, dsync and osync (the file is opened so), linked (write and flush as one), fdatasync,
-- fsync.
local SYNCS = { none = true, dsync = true, osync = true, linked = true, fdatasync = true,
  fsync = true }

local CREATE = { size = true, sync = true }

local function wrap_file(raw, sync, buffer)
  local after = sync == "fdatasync" and "sync_data" or sync == "fsync" and "sync_all" or nil
  local flags = sync == "linked" and "dsync" or nil
  return setmetatable({ raw = raw, buffer = buffer, after = after, flags = flags,
    plain = not after and not flags, read = File.read, write = File.write,
    read_at = raw.read_at, write_at = raw.write_at }, File)
end

-- Tasks that nothing but another task wakes.
local parked = setmetatable({}, { __mode = "k" })

local function wait_for_task()
  parked[current()] = true
  park()
end

local function wake_parked(task)
  parked[task] = nil
  wake(task)
end

-- Coordination -----------------------------------------------------------------------------------

local Entry = {}
Entry.__index = Entry

-- Until set; gives what set was given.
function Entry:wait()
  while not self.done do
    self.tasks = self.tasks or {}
    self.tasks[#self.tasks + 1] = current()
    wait_for_task()
  end
  return self.result
end

function Entry:set(result)
  if result == nil then result = true end
  self.done, self.result = true, result
  for _, task in ipairs(self.tasks or {}) do
    wake_parked(task)
  end
  return self
end

local Queue = {}
Queue.__index = Queue

-- Appends a value; gives an entry, whose wait ends when the taker says set.
function Queue:put(value)
  local entry = setmetatable({ value = value }, Entry)
  self.last = self.last + 1
  self[self.last] = entry
  if self.taker and self.last - self.first + 1 >= self.least then
    local taker = self.taker
    self.taker = nil
    wake_parked(taker)
  end
  return entry
end

-- Waits for at least `least` entries (1), takes at most `most` (all).
function Queue:take(least, most)
  least = least or 1
  while self.last - self.first + 1 < least do
    local task = current()
    self.taker, self.least = task, least
    self.engine.idle[task] = true
    wait_for_task()
    self.engine.idle[task] = nil
  end
  local list, count = {}, min(most or self.last, self.last - self.first + 1)
  for i = 1, count do
    list[i] = self[self.first]
    self[self.first] = nil
    self.first = self.first + 1
  end
  return list
end

function Queue:size() return self.last - self.first + 1 end

local Barrier = {}
Barrier.__index = Barrier

-- Waits until so many coroutines have come, then lets them all go on and starts again.
function Barrier:wait()
  local gate = self.gate
  self.count = self.count + 1
  if self.count == self.parties then
    self.count, self.gate = 0, setmetatable({}, Entry)
    gate:set()
    return true
  end
  return gate:wait()
end

local Mutex = {}
Mutex.__index = Mutex

function Mutex:lock() return self.permit:acquire() end
function Mutex:unlock() return self.permit:release() end

-- The context ------------------------------------------------------------------------------------

-- ctx.due, in ns: when this iteration was planned (open loop), else nil. It is asked for last:
-- methods are found without a call.
local Context = setmetatable({}, { __index = function(_, key)
  if key == "due" then return core.due() end
end })
Context.__index = Context

function Context:page(size)
  size = size or self.bs
  local page = self.pages[size]
  if not page then
    page = setmetatable({ buffer = buffer_of(self, size), context = self }, Page)
    self.pages[size] = page
  end
  return page
end

-- The coroutine's page of random bytes.
function Context:filled()
  local page = self.own_page
  if not page then
    page = self:page():random()
    self.own_page = page
  end
  return page
end

-- The same with this offset and the iteration's number at its front.
function Context:numbered(off)
  local page = self.own_page or self:filled()
  put_numbers(page.buffer, off, self.iter)
  return page
end

-- A new file in the scratch directory; size: written with zeros first. Gives the file; ends the
-- run when it cannot be made.
function Context:create(name, o)
  expect("create", "a file name", type(name) == "string")
  for key in pairs(o or {}) do
    if not CREATE[key] then error(("create: there is no option %s"):format(tostring(key)), 2) end
  end
  if o and o.sync and not SYNCS[o.sync] then
    error(("create: there is no sync %q"):format(tostring(o.sync)), 2)
  end
  return wrap_file(self.engine.run.scratch:create(name, o or {}), o and o.sync)
end

-- Any file, to be read; or one that create made, by its name.
function Context:open(name)
  return wrap_file(self.engine.run.scratch:open(name), nil, buffer_of(self, self.bs))
end

-- Of files that create made. True, or nil, message, err.
function Context:rename(from, to) return self.engine.run.scratch:rename(from, to) end
function Context:remove(name) return self.engine.run.scratch:remove(name) end
function Context:sync_dir() return jdbfs.sync_dir(self.engine.run.scratch:dir()) end

-- The directory where create makes files.
function Context:dir() return self.engine.run.scratch:dir() end

local function record(meter, track, due, start, ...)
  local failed = select("#", ...) > 1 and (...) == nil
  meter:stop(track, due, start, failed or nil)
  return ...
end

-- Of a job, as everything that is measured.
local function job_of(self, name)
  return self.job or error(name .. ": setup and teardown are measured by no job", 3)
end

-- Calls fn and records how long it took under the name; nil, message counts as an error.
function Context:timed(name, fn, ...)
  local job = self.job or job_of(self, "timed")
  local meter, track = job.meter, job.tracks[name]
  if not track then
    track = meter:track(name)
    job.tracks[name], job.timed[name] = track, true
  end
  local due, start = meter:start()
  return record(meter, track, due, start, fn(...))
end

function Context:count(name, value)
  value = value or 1
  local counters = job_of(self, "count").counters
  local c = counters[name]
  if not c then
    expect("count", "a name", type(name) == "string")
    expect("count", "a number", type(value) == "number")
    c = { name = name, n = 0, sum = 0, min = value, max = value }
    counters[name] = c
    counters[#counters + 1] = c
  end
  c.n, c.sum = c.n + 1, c.sum + value
  if value < c.min then c.min = value end
  if value > c.max then c.max = value end
end

function Context:note(name, value)
  local notes = self.engine.run.notes
  notes[#notes + 1] = { tostring(name), tonumber(value) or tostring(value) }
end

function Context:warn(message)
  self.engine.run:warn(tostring(message))
end

-- Seconds.
function Context:sleep(seconds)
  local task, idle = current(), self.engine.idle
  if task then idle[task] = true end
  jdbfs.sleep(seconds)
  if task then idle[task] = nil end
end

function Context:yield() return jdbfs.yield() end
function Context:now() return jdbfs.now() end

-- Seconds that are measured.
function Context:duration() return self.engine.run.options.time end

-- Waits until the warm-up is over.
function Context:warm()
  while self.engine.live and self.engine.phase ~= "run" do
    self:sleep(0.005)
  end
end

-- A page of an aligned buffer that is the caller's own.
function Context:new_buffer(size)
  local buffer, message = jdbfs.buffer(size)
  if not buffer then error(message, 2) end
  return buffer
end

-- A rank spread over 0 to n - 1: hot ones are not neighbours. The same for all coroutines.
function Context:scattered(rank, n)
  return core.scatter(rank, n, self.engine.run.options.seed)
end

-- A function that records a duration in seconds under the name.
function Context:track(name)
  local job = job_of(self, "track")
  local meter, track = job.meter, job.meter:track(name)
  job.timed[name] = true
  return function(seconds) meter:add(track, seconds * 1e9) end
end

-- Waits until that moment (as ctx:now tells it), which is then the due time of the next operation.
function Context:until_due(seconds) -- luacheck: ignore 212
  return core.until_due(seconds * 1e9)
end

-- Planned arrivals: next() waits for the next one.
function Context:arrivals(rate)
  local engine = self.engine
  engine.streams = (engine.streams or 0) + 1
  return engine:arrivals(rate, self.job and self.job.number or 0, 2 ^ 41 + 64 * engine.streams,
    core.now_ns())
end

-- Another random stream; the same number, job and seed draw the same.
function Context:random(number)
  return core.random(self.engine.run.options.seed, self.job and self.job.number or 0, number)
end

-- Whether the run goes on: for jobs that own their loop. They end after the clients, who may wait
-- for them.
function Context:running()
  if self.job and self.job.loop then return self.engine.serving end
  return self.engine.live
end

-- Ends the run as if its time were over.
function Context:stop() self.engine.live = false end

-- Ends the run with an error.
function Context:abort(message)
  status.fail(status.FAILED, message == nil and "the workload aborted" or status.text(message))
end

-- Another task of the same job; wait for it with :join().
function Context:spawn(fn, ...)
  expect("spawn", "a function", type(fn) == "function")
  local meter = self.job and self.job.meter
  local task = jdbfs.spawn(function(...)
    if meter then core.measure(meter) end
    return fn(...)
  end, ...)
  local children = self.engine.children
  children[#children + 1] = task
  return task
end

function Context:queue()
  return setmetatable({ engine = self.engine, first = 1, last = 0 }, Queue)
end

function Context:event() return setmetatable({}, Entry) end

function Context:semaphore(n) -- luacheck: ignore 212
  expect("semaphore", "a whole number from 0", type(n) == "number" and n >= 0 and n % 1 == 0)
  return jdbfs.semaphore(n)
end

function Context:mutex() return setmetatable({ permit = jdbfs.semaphore(1) }, Mutex) end

function Context:barrier(n)
  expect("barrier", "a whole number of coroutines", type(n) == "number" and n >= 1 and n % 1 == 0)
  return setmetatable({ parties = n, count = 0, gate = setmetatable({}, Entry) }, Barrier)
end

-- The classes are for the specs.
local M = { wrap_file = wrap_file, parked = parked,
  classes = { Context = Context, WorkloadFile = File, WorkloadPage = Page, WorkloadQueue = Queue,
    WorkloadEvent = Entry, WorkloadMutex = Mutex, WorkloadBarrier = Barrier } }

-- The context of coroutine `id` of `n` of a job (number and meter), or of setup: no job.
function M.new(engine, job, id, n)
  local options = engine.run.options
  local self = setmetatable({ engine = engine, job = job, id = id, n = n, iter = 0,
    opt = engine.opt, size = engine.size, bs = engine.bs, pages = {}, buffers = {} }, Context)
  self.rng = core.random(options.seed, job and job.number or 0, id)
  local target = engine.target
  if target then
    local file = wrap_file(target.raw, engine.sync, buffer_of(self, engine.bs))
    local verifier = engine.run.scratch.verifier
    file.context, file.rng, file.drawable = self, self.rng, file.plain and not verifier
    self.file = verifier and verifier:wrap(file) or file
    local dist = engine.dist
    self.rng:pages(dist.kind, target.size / engine.bs, engine.bs, max(id, 1), n, options.seed,
      options["zipf-scatter"] == "on", dist.a, dist.b)
  end
  return self
end

return M
