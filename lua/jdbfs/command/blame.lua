-- Errors of a workload's functions as one sentence: what was raised, where, by which coroutine. A
-- method of ctx that was called wrongly fails in our files; it is told with the script's line.

local context = require("jdbfs.command.context")
local status = require("jdbfs.command.status")
local verified = require("jdbfs.command.verified")

local getinfo, traceback = debug.getinfo, debug.traceback
local ipairs, pairs, tonumber, type, xpcall = ipairs, pairs, tonumber, type, xpcall

local OURS = "jdbfs[/\\]command[/\\][%w_]+%.lua$"

local classes = { verified.File }
for _, class in pairs(context.classes) do classes[#classes + 1] = class end

-- The method of ctx, or of what it gives, that has this line; or nil.
local function method_at(source, line)
  for _, class in ipairs(classes) do
    for name, value in pairs(class) do
      local info = type(value) == "function" and getinfo(value, "S")
      if info and info.short_src == source and line >= info.linedefined
        and line <= info.lastlinedefined then
        return name
      end
    end
  end
end

local function of_method(method, message)
  if not method or message:sub(1, #method + 1) == method .. ":" then return message end
  return method .. ": " .. message
end

-- The first line of an error with its traceback. Where the script's own frame is gone, as in
-- "return ctx:page(size)", the method must do. in_job: a coroutine of a job raised it.
local function sentence(text, in_job)
  if text:find("^stack traceback:") then text = status.text(nil) end
  local first = text:match("^[^\n]*")
  local place, at, message = first:match("^(.-%.lua):(%d+): (.*)$")
  if not place or not place:find(OURS) then return first end
  local method = method_at(place, tonumber(at))
  for source, line in text:gmatch("\n\t([^\n]-):(%d+): in ") do
    if not source:find(OURS) then
      return ("%s:%s: %s"):format(source, line, of_method(method, message))
    end
    method = method_at(source, tonumber(line)) or method
  end
  return (method or in_job) and of_method(method, message) or first
end

local M = {}

-- Ends the run with what a function of a workload raised. engine: whose coroutines may have.
function M.fail(failure, engine)
  if status.is_failure(failure) then status.fail(failure.status, failure.message) end
  local job, id, iteration = nil, nil, nil
  if engine then job, id, iteration = engine:failed_coroutine() end
  local text, place = sentence(status.text(failure), job), ""
  if job then
    place = (" (job %s, coroutine %d, iteration %d, seed %.0f)"):format(job, id, iteration,
      engine.run.options.seed)
  elseif engine then
    place = (" (in %s)"):format(engine.phase == "over" and "teardown" or engine.phase)
  end
  status.fail(status.FAILED, text .. place)
end

local function with_traceback(failure)
  return type(failure) == "string" and traceback(failure, 2) or failure
end

-- Calls a function outside of tasks, where Ctrl-C may be an error; gives its first result.
function M.call(f)
  local called, result = xpcall(f, with_traceback)
  if called then return result end
  if status.text(result):find("^[^\n]*interrupted!\n") then
    status.fail(status.INTERRUPTED, "interrupted")
  end
  M.fail(result)
end

return M
