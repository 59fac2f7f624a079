-- jdbfs.sync: semaphore, event, queue and buffer pool for tasks. Waiters are served in order of
-- arrival. Outside a task a wait drives the loop until it is over.

local core = require "jdbfs.core"

local current, park, wake, drive = core.current, core.park, core.wake, core.drive
local error, floor, huge, setmetatable, type = error, math.floor, math.huge, setmetatable, type

-- A first-in first-out list that never shifts its entries.
local function new_list()
  return { first = 1, last = 0 }
end

local function push(list, value)
  list.last = list.last + 1
  list[list.last] = value
end

local function pop(list)
  local i = list.first
  if i > list.last then return nil end
  local value = list[i]
  list[i] = nil
  list.first = i + 1
  return value
end

local function wait(list)
  local task = current()
  if task then
    push(list, task)
    park()
  else
    local token = { woken = false }
    push(list, token)
    drive(token)
  end
end

-- Wakes the first that still waits: a cancelled task does not. Says whether there was one.
local function wake_one(list)
  local waiter = pop(list)
  while waiter do
    if type(waiter) == "table" then
      waiter.woken = true
      return true
    end
    if wake(waiter) then return true end
    waiter = pop(list)
  end
  return false
end

local function check_count(n, what, least)
  if type(n) ~= "number" or n < least or floor(n) ~= n or n == huge then
    error(("bad argument #1 to '%s' (an integer from %d expected)"):format(what, least), 3)
  end
end

local Semaphore = {}
Semaphore.__index = Semaphore

--- Waits for one of the n permits.
function Semaphore:acquire()
  if self.free > 0 then
    self.free = self.free - 1
  else
    wait(self.waiters) -- the permit is handed over, `free` stays 0
  end
  return true
end

--- Takes a permit when one is free now.
function Semaphore:try_acquire()
  if self.free == 0 then return false end
  self.free = self.free - 1
  return true
end

function Semaphore:release()
  if not wake_one(self.waiters) then self.free = self.free + 1 end
  return true
end

local Event = {}
Event.__index = Event

--- Waits until the event is set; at once when it is.
function Event:wait()
  while not self.ready do wait(self.waiters) end
  return true
end

function Event:set()
  self.ready = true
  while wake_one(self.waiters) do end
  return true
end

function Event:clear()
  self.ready = false
  return true
end

function Event:is_set()
  return self.ready
end

local Queue = {}
Queue.__index = Queue

--- Appends a value; waits while the queue is full.
function Queue:put(value)
  while self.count >= self.max do wait(self.putters) end
  self.count = self.count + 1
  push(self.values, value == nil and self or value) -- a hole would end the list early
  wake_one(self.takers)
  return true
end

--- Takes the oldest value; waits while there is none.
function Queue:take()
  while self.count == 0 do wait(self.takers) end
  self.count = self.count - 1
  local value = pop(self.values)
  wake_one(self.putters)
  if value == self then return nil end
  return value
end

function Queue:size()
  return self.count
end

local Pool = {}
Pool.__index = Pool

--- Waits for a free buffer.
function Pool:get()
  self.permits:acquire()
  local b = self.free[#self.free]
  self.free[#self.free] = nil
  self.out[b] = true
  return b
end

--- Gives a buffer back; one that is not out raises.
function Pool:put(b)
  if not self.out[b] then error("bad argument #1 to 'put' (not a buffer taken from this pool)", 2) end
  self.out[b] = nil
  self.free[#self.free + 1] = b
  return self.permits:release()
end

local M = {}

function M.semaphore(n)
  check_count(n, "semaphore", 0)
  return setmetatable({ free = n, waiters = new_list() }, Semaphore)
end

function M.event()
  return setmetatable({ ready = false, waiters = new_list() }, Event)
end

function M.queue(max)
  if max == nil then max = huge else check_count(max, "queue", 1) end
  return setmetatable({
    max = max, count = 0, values = new_list(), putters = new_list(), takers = new_list(),
  }, Queue)
end

function M.pool(count, size)
  check_count(count, "pool", 1)
  local free = {}
  for i = 1, count do
    local b, message, err = core.buffer(size)
    if not b then return nil, message, err end
    free[i] = b
  end
  return setmetatable({ free = free, out = {}, permits = M.semaphore(count) }, Pool)
end

return M
