-- Running the command in this process. `local command = require("support_command")`, then
-- `command("run", "randread", ...)`, or `command.verb(main, ...)` for one verb's main function:
-- both give the status and what was written to the two streams.
--
--   command.find(list, name)   the entry of that name: of jobs, operations, counters
--   command.notes(document)    its notes by name

local cli = require("jdbfs.cli")

local M = {}

local function writer()
  return { text = "", write = function(self, ...)
    self.text = self.text .. table.concat({ ... })
  end }
end

function M.verb(main, ...)
  local out, err = writer(), writer()
  local status = main({ ... }, out, err)
  return status, out.text, err.text
end

function M.find(list, name)
  for _, each in ipairs(list) do
    if each.name == name then return each end
  end
end

function M.notes(document)
  local notes = {}
  for _, note in ipairs(document.notes) do notes[note[1]] = note[2] end
  return notes
end

return setmetatable(M, { __call = function(_, ...) return M.verb(cli.main, ...) end })
