-- busted output handler for spec/tools/test.sh: one line per event into the file named by
-- JDBFS_TEST_REPORT, flushed at once, so that a crash or a hang still tells how far it came.
--
--   start NAME | pass NAME | skip NAME REASON | fail NAME TEXT | error NAME TEXT | end
--   seconds file|test NAME SECONDS
--
-- Fields are separated by tabs; newlines in TEXT are written as \n.

local base = require("busted.outputHandlers.base")

local function clean(value)
  return (tostring(value):gsub("\\", "\\\\"):gsub("\t", " "):gsub("\r", ""):gsub("\n", "\\n"))
end

-- busted keeps every test to its end, and with it what the test's functions hold: megabytes, which
-- each full collection of all later specs would walk through.
local HOOKS = { "before_each", "after_each", "lazy_setup", "lazy_teardown", "strict_setup",
  "strict_teardown" }
local function forget(element)
  element.run, element.env = nil, nil
  for _, name in ipairs(HOOKS) do element[name] = nil end
end

return function(options)
  local busted = require("busted")
  local handler = base()
  local out = assert(io.open(assert(os.getenv("JDBFS_TEST_REPORT"), "JDBFS_TEST_REPORT"), "w"))
  local reasons = {}

  local function line(...)
    local fields = { ... }
    for i = 1, #fields do fields[i] = clean(fields[i]) end
    out:write(table.concat(fields, "\t"), "\n")
    out:flush()
  end

  local function text_of(message, trace)
    local text = message
    if type(text) ~= "string" then
      local mt = debug.getmetatable(text)
      text = mt and mt.__tostring and tostring(text) or require("pl.pretty").write(text)
    end
    local where = trace and trace.short_src and trace.currentline
      and trace.short_src .. ":" .. trace.currentline .. ": " or ""
    if where ~= "" and text:find(where, 1, true) then where = "" end
    local stack = trace and type(trace.traceback) == "string" and "\n" .. trace.traceback or ""
    return where .. text .. (stack:gsub("^\n\n*", "\n"))
  end

  local function record(kind)
    return function(element, _, message, trace)
      line(kind, handler.getFullName(element), text_of(message, trace))
      return nil, true
    end
  end

  local function took(kind, element)
    if element.duration then
      local name = kind == "file" and element.name or handler.getFullName(element)
      line("seconds", kind, name, ("%.2f"):format(element.duration))
    end
  end

  local function test_start(element)
    reasons[element] = nil
    line("start", handler.getFullName(element))
    return nil, true
  end

  local function test_end(element, _, status)
    local name = handler.getFullName(element)
    if status == "success" then
      line("pass", name)
    elseif status == "pending" then
      line("skip", name, reasons[element] or name)
    end
    took("test", element)
    forget(element)
    return nil, true
  end

  local function pending(element, _, message)
    if type(message) == "string" then
      reasons[element] = message:gsub("^%S+:%d+: ", ""):gsub("^%(tail call%):%-1: ", "")
    end
    return nil, true
  end

  function handler.subscribe(_, handler_options)
    handler.options = handler_options
    require("busted.languages.en")
    busted.subscribe({ "test", "start" }, test_start)
    busted.subscribe({ "test", "end" }, test_end)
    busted.subscribe({ "file", "end" }, function(element)
      took("file", element)
      return nil, true
    end)
    busted.subscribe({ "describe", "end" }, function(element)
      forget(element)
      return nil, true
    end)
    busted.subscribe({ "pending" }, pending)
    busted.subscribe({ "failure" }, record("fail"))
    busted.subscribe({ "error" }, record("error"))
    busted.subscribe({ "suite", "end" }, function()
      line("end")
      return nil, true
    end)
  end

  handler.options = options
  return handler
end
