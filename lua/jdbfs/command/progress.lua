-- What a run shows while it goes on: one rewritten line on a terminal, plain lines in a pipe.
-- Always on stderr, never with --quiet.

local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")
local screen = require("jdbfs.command.screen")

local ipairs, setmetatable = ipairs, setmetatable
local getenv, stderr, stdout = os.getenv, io.stderr, io.stdout

local HISTORY = 40 -- rates kept for the sparkline

local Progress = {}
Progress.__index = Progress

local function utf8_wanted(options)
  if options.ascii then return false end
  local locale = getenv("LC_ALL") or getenv("LC_CTYPE") or getenv("LANG") or ""
  return locale:lower():find("utf%-?8") ~= nil
end

-- Shows one line: text of a terminal's width, or a line of its own.
function Progress:write(o)
  if self.quiet then return end
  if self.columns then
    o.width, o.ascii = self.columns - 1, self.ascii
    self.err:write("\r\27[K", screen.live(o))
    if self.err.flush then self.err:flush() end
    self.shown = true
  else
    self.err:write(screen.plain(o), "\n")
  end
end

-- A phase without figures: the files are filled.
function Progress:phase(name, phase)
  if self.columns then self:write({ workload = name, phase = phase }) end
end

-- The rows of an interval of that many seconds.
function Progress:interval(engine, rows, seconds, timing)
  if self.quiet then return end
  local named, all, n, bytes = {}, {}, 0, 0
  for _, row in ipairs(rows) do
    if engine.timed[row.op] then
      named[#named + 1] = row.response
    else
      all[#all + 1] = row.response
      n, bytes = n + row.n, bytes + row.bytes
    end
  end
  local history = self.history
  history[#history + 1] = n / seconds
  if #history > HISTORY then table.remove(history, 1) end
  local merged = distribution.merge(#named > 0 and named or all)
  self:write({ workload = engine.name, phase = engine.phase, done = timing.done,
    total = timing.total, iops = n / seconds, bytes_s = bytes / seconds,
    p99_ns = merged and distribution.percentile(merged, 99), history = history,
    left_s = timing.left })
end

-- Takes the line away.
function Progress:clear()
  if self.shown then self.err:write("\r\27[K") end
  self.shown, self.history = false, {}
end

local M = {}

-- How the summary is to look on `out`: width, height, ascii, color.
function M.look(options, out)
  local columns, lines
  if (out.inner or out) == stdout then columns, lines = core.terminal(1) end
  return { width = columns or 100, height = lines, ascii = not utf8_wanted(options),
    color = columns ~= nil and not options["no-color"] and (getenv("NO_COLOR") or "") == "" }
end

function M.new(options, err)
  local columns
  if err == stderr then columns = core.terminal(2) end
  return setmetatable({ err = err, quiet = options.quiet, columns = columns,
    ascii = not utf8_wanted(options), history = {} }, Progress)
end

return M
