-- Workloads by name: the built-in ones, and files.

local options = require("jdbfs.command.options")
local status = require("jdbfs.command.status")
local workload = require("jdbfs.workload")

local concat = table.concat
local ipairs, loadfile, pcall, require = ipairs, loadfile, pcall, require
local open_stream = io.open

local M = {
  -- In the order of `jdbfs list`; what `jdbfs run` runs without a name comes first.
  NAMES = { "randread", "randwrite", "wal", "mixed", "seqread", "seqwrite", "syncs", "pages", "lsm",
    "replay", "matrix" },
  DEFAULT = { "randread", "randwrite", "wal" },
}

local BUILT_IN = {}
for _, name in ipairs(M.NAMES) do
  BUILT_IN[name] = true
end

-- Errors of Lua carry the place already.
local function from_file(path)
  local there, why = open_stream(path, "rb")
  if not there then status.usage("%s", why) end
  there:close()
  local chunk, message = loadfile(path)
  if not chunk then status.fail(status.FAILED, message) end
  local ok, value = pcall(chunk)
  if not ok then status.fail(status.FAILED, (status.text(value):match("^[^\n]*"))) end
  local definition, wrong = workload.accept(value)
  if not definition then status.fail(status.FAILED, ("%s: %s"):format(path, wrong)) end
  return definition
end

-- { name, definition, options }, or the end of the command.
function M.load(name)
  local definition, label = nil, name
  if BUILT_IN[name] then
    definition = require("jdbfs.workload." .. name)
  elseif name:match("%.lua$") or name:find("/", 1, true) then
    definition = from_file(name)
    label = name:match("([^/]+)$"):gsub("%.lua$", "")
  else
    status.usage("there is no workload %q; see jdbfs list", name)
  end
  return { name = label, definition = definition, options = options.of_workload(definition) }
end

-- What `jdbfs list [workload]` prints.
function M.list(name)
  local lines = {}
  if name then
    local one = M.load(name)
    lines[1] = ("%s: %s"):format(one.name, one.definition.about or "no description")
    lines[2] = #one.options > 0 and options.help(one.options) or "  it has no options of its own"
  else
    for _, each in ipairs(M.NAMES) do
      lines[#lines + 1] = ("%-10s %s"):format(each, M.load(each).definition.about)
    end
  end
  return concat(lines, "\n") .. "\n"
end

return M
