-- jdbfs.sync: semaphore, event, queue and buffer pool for tasks. Waiters are served in order of
-- arrival. Outside a task a wait drives the loop until it is over.

local core = require "jdbfs.core"

local drive = core.drive -- the others are replaced when a host is chosen
local error, getmetatable, pcall = error, getmetatable, pcall
local rawequal, setmetatable, type = rawequal, setmetatable, type
local floor, huge = math.floor, math.huge

-- A first-in first-out list that never shifts its entries. Those of cancelled tasks, and of light
-- threads that were killed, stay behind; when they may be half of the list it is packed.
local function new_list()
  return { first = 1, last = 0, pack_at = 32 }
end

local function pop(list)
  local i = list.first
  if i > list.last then return nil end
  local value = list[i]
  list[i] = nil
  list.first = i + 1
  return value
end

local function push(list, value)
  list.last = list.last + 1
  list[list.last] = value
end

-- In core, as it is replaced when a host is chosen.
function core.still_waits(task)
  return task:status() ~= "cancelled"
end

-- Somebody who waits: a task itself (see wait_turn), or a table with `task` and, as [1], where it
-- takes least memory, the turn of that wait; outside tasks without, and `woken` ends the wait.
local function alive(entry)
  local task = entry
  if type(entry) == "table" then
    if entry.gone then return false end
    task = entry.task
  end
  return not task or core.still_waits(task)
end

local function pack(list)
  local kept = list.first - 1
  for i = list.first, list.last do
    local entry = list[i]
    list[i] = nil
    if alive(entry) then
      kept = kept + 1
      list[kept] = entry
    end
  end
  list.last = kept
  list.pack_at = 2 * (kept - list.first + 1) + 32
end

-- Of calls inside each other the coroutine keeps the memory: a wait has as few as can be.
local function enter(list, entry)
  if list.last - list.first + 1 >= list.pack_at then pack(list) end
  list.last = list.last + 1
  list[list.last] = entry
end

-- Waits in the list until somebody wakes the entry. `lost(entry)` undoes a wake that came while
-- another task's error ended the wait.
local function wait(list, entry, lost)
  entry.task, entry[1] = core.current()
  enter(list, entry)
  if entry.task then
    repeat core.park(entry.task, entry[1]) until entry.woken -- 5.1 lets others resume it by hand
    return
  end
  local ok, err = pcall(drive, entry)
  if ok then return end
  entry.gone = true
  if entry.woken and lost then lost(entry) end
  error(err, 0)
end

-- Waits in the list until it is woken, where a wake is all that is to be handed over. Nothing is
-- made for that in a task that cannot leave the wait but by a wake, or by its end.
local function wait_turn(list, lost)
  local task = core.own_task()
  if not task then
    wait(list, {}, lost)
    return true
  end
  enter(list, task)
  repeat core.park(task) until task:status() ~= "waiting" -- LuaJIT lets others resume it by hand
  return true
end

-- Whether it still waited, and now has the value.
local function give(entry, value)
  if type(entry) ~= "table" then return core.wake(entry) end
  entry.value = value
  if entry.gone or (entry.task and not core.wake(entry.task, entry[1])) then return false end
  entry.woken = true
  return true
end

-- Wakes the first that still waits and gives it the value; says whether there was one.
local function wake_one(list, value)
  local entry = pop(list)
  while entry do
    if give(entry, value) then return true end
    entry = pop(list)
  end
  return false
end

local function check_count(n, what, least)
  if type(n) ~= "number" or n < least or floor(n) ~= n or n == huge then
    error(("bad argument #1 to '%s' (an integer from %d expected)"):format(what, least), 3)
  end
end

local function check_self(self, class, method)
  if getmetatable(self) ~= class then
    error(("bad self for '%s' (call with a colon)"):format(method), 3)
  end
end

local Semaphore = {}
Semaphore.__index = Semaphore

--- Waits for one of the n permits.
function Semaphore:acquire()
  if getmetatable(self) ~= Semaphore then check_self(self, Semaphore, "acquire") end
  if self.free == 0 then
    return wait_turn(self.waiters, self.lost) -- the permit is handed over, `free` stays 0
  end
  self.free = self.free - 1
  return true
end

--- Takes a permit when one is free now.
function Semaphore:try_acquire()
  check_self(self, Semaphore, "try_acquire")
  if self.free == 0 then return false end
  self.free = self.free - 1
  return true
end

function Semaphore:release()
  check_self(self, Semaphore, "release")
  if not wake_one(self.waiters) then self.free = self.free + 1 end
  return true
end

local Event = {}
Event.__index = Event

--- Waits until the event is set; at once when it is.
function Event:wait()
  if getmetatable(self) ~= Event then check_self(self, Event, "wait") end
  if self.ready then return true end
  return wait_turn(self.waiters)
end

function Event:set()
  check_self(self, Event, "set")
  self.ready = true
  while wake_one(self.waiters) do end
  return true
end

function Event:clear()
  check_self(self, Event, "clear")
  self.ready = false
  return true
end

function Event:is_set()
  check_self(self, Event, "is_set")
  return self.ready
end

local Queue = {}
Queue.__index = Queue

local NIL = {} -- stands for nil among the values, which may have an __eq

--- Appends a value; waits while the queue is full.
function Queue:put(value)
  check_self(self, Queue, "put")
  if rawequal(value, nil) then value = NIL end
  if self.count == 0 and wake_one(self.takers, value) then return true end
  if self.count < self.max then
    self.count = self.count + 1
    push(self.values, value)
  else
    wait(self.putters, { offer = value }) -- whoever takes moves the value in
  end
  return true
end

-- Room for one more: the first putter that still waits gets it.
local function admit(self)
  local entry = pop(self.putters)
  while entry do
    if give(entry) then
      self.count = self.count + 1
      push(self.values, entry.offer)
      return
    end
    entry = pop(self.putters)
  end
end

--- Takes the oldest value; waits while there is none.
function Queue:take()
  check_self(self, Queue, "take")
  local value
  if self.count > 0 then
    self.count = self.count - 1
    value = pop(self.values)
    admit(self)
  else
    local entry = {}
    wait(self.takers, entry, self.lost)
    value = entry.value
  end
  if rawequal(value, NIL) then return nil end
  return value
end

function Queue:size()
  check_self(self, Queue, "size")
  return self.count
end

local Pool = {}
Pool.__index = Pool

--- Waits for a free buffer.
function Pool:get()
  check_self(self, Pool, "get")
  self.permits:acquire()
  local b = self.free[#self.free]
  self.free[#self.free] = nil
  self.out[b] = true
  return b
end

--- Gives a buffer back; one that is not out raises.
function Pool:put(b)
  check_self(self, Pool, "put")
  if not self.out[b] then
    error("bad argument #1 to 'put' (not a buffer taken from this pool)", 2)
  end
  self.out[b] = nil
  self.free[#self.free + 1] = b
  return self.permits:release()
end

local M = {}

function M.semaphore(n)
  check_count(n, "semaphore", 0)
  local self = setmetatable({ free = n, waiters = new_list() }, Semaphore)
  self.lost = function() self:release() end
  return self
end

function M.event()
  return setmetatable({ ready = false, waiters = new_list() }, Event)
end

function M.queue(max)
  if max == nil then max = huge else check_count(max, "queue", 1) end
  local self = setmetatable({
    max = max, count = 0, values = new_list(), putters = new_list(), takers = new_list(),
  }, Queue)
  self.lost = function(entry) -- back to the front: it was the oldest
    self.values.first = self.values.first - 1
    self.values[self.values.first] = entry.value
    self.count = self.count + 1
  end
  return self
end

function M.pool(count, size)
  check_count(count, "pool", 1)
  if type(size) ~= "number" and type(size) ~= "cdata" then
    error("bad argument #2 to 'pool' (number expected, got " .. type(size) .. ")", 2)
  end
  local free = {}
  for i = 1, count do
    local b, message, err = core.buffer(size)
    if not b then -- memory is short: not when they are collected
      for made = 1, i - 1 do free[made]:free() end
      return nil, message, err
    end
    free[i] = b
  end
  return setmetatable({ free = free, out = {}, permits = M.semaphore(count) }, Pool)
end

return M
