-- A worker of a job queue, in cqueues' event loop: takes jobs from a socket, logs them, works on
-- them one after the other, and goes on where it was after a crash.
--
--   local worker = require "jdbfs.example.cqueues_worker"
--   worker.main("jobs", "/run/jobs.sock", function(job) print("working on " .. job) end)
--
-- A client writes a line per job and gets its number as a line, once the job is durable. Clients
-- that write at the same time share a flush of the log.
--
-- Promise: a job whose number was told is worked on, at least once, whatever crashes in between; in
-- the order of the numbers. What is done is noted after every job that waits, by atomic_write.

local cqueues = require "cqueues"
local condition = require "cqueues.condition"
local jdbfs = require "jdbfs"
local socket = require "cqueues.socket"

local Worker = {}
Worker.__index = Worker

local function read_done(path)
  if not assert(jdbfs.exists(path) ~= nil) or not jdbfs.exists(path) then return 0 end
  local file = assert(jdbfs.open(path, { direct = "off" }))
  local number = tonumber((assert(file:read(0, 20))))
  file:close()
  return assert(number, path .. " holds no number")
end

-- Works on what is logged and not done, until the worker is stopped.
local function work(self)
  local path = self.directory .. "/done"
  local done = read_done(path)
  local cursor = self.log:records(math.max(done + 1, self.log:recovery().first))
  while not self.stopped do
    local number, job, err = cursor:next()
    if number then
      self.handle(job, number)
      done = number
    elseif err then
      error(job, 0)
    else -- nothing waits: a good time to note it, and to let go of old segments
      if done > 0 then assert(jdbfs.atomic_write(path, tostring(done))) end
      assert(self.log:truncate_before(done + 1))
      if self.log:stats().last == done and not self.stopped then self.more:wait() end
    end
  end
  cursor:close()
end

local function serve(self, client)
  while true do -- plain Lua 5.1 cannot suspend inside of a for loop's iterator
    local job = client:read("*l")
    if not job then break end
    local number, message = self.log:append(job)
    client:write(number and ("%d\n"):format(number) or ("ERR %s\n"):format(message))
    client:flush()
    self.more:signal()
  end
  client:close()
end

local M = {}

--- Starts the worker in this controller; handle(job, number) is called for each job.
function M.start(controller, directory, path, handle)
  local self = setmetatable({ directory = directory, handle = handle, more = condition.new(),
    stopping = condition.new() }, Worker)
  controller:wrap(function()
    self.log = assert(jdbfs.log(directory .. "/log"))
    local server = assert(socket.listen { path = path, unlink = true })
    assert(server:listen())
    self.server = server
    controller:wrap(work, self)
    while not self.stopped do
      local client = server:accept(0)
      if client then controller:wrap(serve, self, client)
      else cqueues.poll(server, self.stopping) end
    end
    server:close()
  end)
  return self
end

--- No more jobs are taken or worked on; what was logged stays for the next start.
function Worker:stop()
  self.stopped = true
  self.stopping:signal()
  self.more:signal()
end

function M.main(directory, path, handle)
  assert(jdbfs.host("cqueues"))
  local controller = cqueues.new()
  M.start(controller, directory, path, handle)
  assert(controller:loop())
end

return M
