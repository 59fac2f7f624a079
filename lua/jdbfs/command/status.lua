-- Exit statuses of the command, and how a run ends with one: fail(status, message) raises, main
-- turns it into one sentence on stderr.

local error, getmetatable, pcall, rawequal, rawget = error, getmetatable, pcall, rawequal, rawget
local setmetatable, tostring, type, xpcall = setmetatable, tostring, type, xpcall
local os, traceback = os, debug.traceback

local M = { OK = 0, FAILED = 1, USAGE = 2, THRESHOLD = 3, VERIFY = 4, INTERRUPTED = 130 }

-- What fail raises is told from a script's error by this, as that may have any fields.
local Failure = { __tostring = function(failure) return tostring(failure.message) end }

-- In tasks, too.
function M.fail(status, message)
  error(setmetatable({ status = status, message = message }, Failure), 0)
end

function M.usage(format, ...)
  M.fail(M.USAGE, format:format(...))
end

function M.is_failure(value)
  return rawequal(getmetatable(value), Failure)
end

-- What a value says that was raised, which need not be a text.
function M.text(value)
  if type(value) == "string" or type(value) == "number" then return tostring(value) end
  local metatable = getmetatable(value)
  if type(metatable) == "table" and rawget(metatable, "__tostring") then
    local called, text = pcall(tostring, value)
    if called and type(text) == "string" then return text end
  end
  local message = type(value) == "table" and rawget(value, "message")
  if type(message) == "string" then return message end
  return ("(error object is a %s value)"):format(type(value))
end

-- A message handler: errors raised on purpose pass, others get the place where they happened.
function M.explain(failure)
  if M.is_failure(failure) then return failure end
  local text = M.text(failure)
  if text:find("interrupted!", 1, true) then
    return { status = M.INTERRUPTED, message = "interrupted" }
  end
  return { status = M.FAILED, message = traceback(text, 2) }
end

local function refuse_exit()
  error("os.exit: a workload ends by ctx:stop(), or with an error by ctx:abort(message)", 2)
end

-- Calls f as xpcall does. A script that could end the process would leave the files of the run.
function M.attempt(f)
  local exit = os.exit
  os.exit = refuse_exit -- luacheck: ignore 122
  local called, result = xpcall(f, M.explain)
  os.exit = exit -- luacheck: ignore 122
  return called, result
end

return M
