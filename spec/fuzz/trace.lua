-- A trace is refused with one sentence that names file and line, or it is a list of operations
-- that can be replayed: at times that come, in whole blocks, inside the size.

local replay = require("jdbfs.workload.replay")
local status = require("jdbfs.command.status")

local function check_operation(e, size)
  assert(e.at >= 0 and e.at < math.huge, "a time that never comes")
  assert(e.off >= 0 and e.off % 1 == 0 and e.length >= 0 and e.length % 1 == 0, "no whole number")
  assert(e.off + e.length <= size, "beyond the size")
  if e.kind == "fsync" or e.kind == "fdatasync" then return end
  assert(e.length > 0 and e.off % 512 == 0 and e.length % 512 == 0, "no whole blocks")
  local known = e.kind:match("^write") or e.kind == "read" or e.kind == "trim"
  assert(known, e.kind)
end

local function check_trace(trace, size)
  local count = 0
  assert(#trace.streams > 0, "no stream")
  for i = 1, #trace.streams do
    for _, e in ipairs(trace.streams[i]) do
      count = count + 1
      check_operation(e, size)
    end
  end
  assert(count == trace.count and count > 0, "operations are lost")
end

return function(text)
  local file = assert(io.open("trace", "wb"))
  assert(file:write(text))
  file:close()
  local opt = { trace = "trace" }
  local ok, size = pcall(replay.size, opt, 4096)
  if not ok then
    local message = status.is_failure(size) and size.message
    assert(type(message) == "string" and message:find("^trace:"), tostring(message or size))
    assert(not message:find("[\r\n]"), "more than a line")
    return
  end
  assert(size >= 4096 and size < math.huge and size % 4096 == 0, "no size")
  local state = replay.setup({ opt = opt })
  check_trace(state.trace, size)
  replay.teardown({ opt = opt, note = function() end }, state)
end
