-- Exit statuses of the command, and how a run ends with one: fail(status, message) raises, main
-- turns it into one sentence on stderr.

local error, tostring, type = error, tostring, type
local traceback = debug.traceback

local M = { OK = 0, FAILED = 1, USAGE = 2, THRESHOLD = 3, VERIFY = 4, INTERRUPTED = 130 }

-- Not for use inside tasks.
function M.fail(status, message)
  error({ status = status, message = message }, 0)
end

function M.usage(format, ...)
  M.fail(M.USAGE, format:format(...))
end

-- A message handler: errors raised on purpose pass, others get the place where they happened.
function M.explain(failure)
  if type(failure) == "table" and failure.status then return failure end
  local text = tostring(failure)
  if text:find("interrupted!", 1, true) then
    return { status = M.INTERRUPTED, message = "interrupted" }
  end
  return { status = M.FAILED, message = traceback(text, 2) }
end

return M
