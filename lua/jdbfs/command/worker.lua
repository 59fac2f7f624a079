-- One of the processes of --procs: see processes.lua. It runs the same words as the parent, on the
-- parent's target, and tells what it measured in a file instead of showing it.

local core = require("jdbfs.core")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local status = require("jdbfs.command.status")

local ipairs, pairs, setmetatable, tonumber, tostring = ipairs, pairs, setmetatable, tonumber,
  tostring
local concat, floor, max = table.concat, math.floor, math.max
local open_stream, stdout = io.open, io.stdout

local POLL = 0.005
local BEATS_MAX = 60000 -- bytes that fit into the pipe, which the parent never reads

local Part = {}
Part.__index = Part

function Part:say(word, body)
  self.messages:write(word, body and " " .. json.encode(body) or "", "\n")
  self.messages:flush()
end

-- In a task, set up and ready: waits for the others. False when the run is to end.
function Part:line_up()
  self.turn = self.turn + 1
  self:say("ready")
  local path = ("%s/go %d"):format(self.dir, self.turn)
  while not self:is_stopped() do
    local file = open_stream(path, "rb")
    if file then
      local at = tonumber(file:read("*a"))
      file:close()
      self.begins_ns = at
      jdbfs.sleep(max(0, (at - core.now_ns()) / 1e9))
      return true
    end
    jdbfs.sleep(POLL)
  end
  return false
end

function Part:is_stopped()
  local file = open_stream(self.dir .. "/stop", "rb")
  if file then file:close() end
  return file ~= nil or self.orphan
end

-- The rows of an interval. A byte into the pipe shows whether the parent is alive.
function Part:rows(engine, rows, seconds)
  local timed = { any = true }
  for _, job in ipairs(engine.jobs) do
    for name in pairs(job.timed) do timed[name] = true end
  end
  if self.beats < BEATS_MAX then
    self.beats = self.beats + 1
    self.orphan = not (stdout:write(".") and stdout:flush())
  end
  self:say("rows", { rows = rows, seconds = seconds, phase = engine.phase, timed = timed,
    at = engine.interval_at, from = engine.from and engine.from.now })
end

-- A workload is over; what stopped it is `failure`, { status, message } or nil.
function Part:over(run, jobs, failure)
  for _, job in ipairs(jobs) do
    if run.interrupted then job.sustained = nil end
  end
  self:say("over", { jobs = jobs, notes = run.notes, warnings = run.warnings,
    trust = run.trust:part(), failed = run.failed, unsteady = run.unsteady,
    interrupted = run.interrupted and not self:is_stopped(),
    error = failure and tostring(failure.message), status = failure and failure.status })
  run.notes, run.warnings, run.trust = {}, {}, run.trust.new()
end

-- This process's share of a number of things.
function Part:share(count)
  if not count then return nil end
  return floor(count / self.count) + (self.index <= count % self.count and 1 or 0)
end

local M = {}

-- o: index, count, dir (where the messages are), target ("" or a path), size, seed, backend.
function M.main(words, o)
  local messages = open_stream(("%s/messages %d"):format(o.dir, o.index), "ab")
  local part = setmetatable({ messages = messages, turn = 0, beats = 0 }, Part)
  for key, value in pairs(o) do part[key] = value end
  local told = ""
  local silent, err = { write = function() end }, { write = function(_, ...)
    told = told .. concat({ ... })
  end }
  local ran, exit = status.attempt(function()
    return require("jdbfs.command.run").run(words, silent, err, part).exit
  end)
  if not ran then told, exit = exit.message, exit.status end
  if told ~= "" then
    part:say("failed", { error = (told:match("^[^\n]*"):gsub("^jdbfs: ", "")),
      status = exit })
  end
  return exit
end

return M
