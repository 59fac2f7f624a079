-- The files a run writes: JSON, CSV, NDJSON, HdrHistogram, HTML. They are opened before the run, so
-- that a path that cannot be written ends it at once.

local result = require("jdbfs.command.result")
local status = require("jdbfs.command.status")

local ipairs, require, setmetatable, tostring = ipairs, require, setmetatable, tostring
local open_stream = io.open

local Outputs = {}
Outputs.__index = Outputs

local KINDS = { "json", "csv", "live-json", "hgrm", "html" }

-- Rows as they come, so that a run that is killed leaves them.
function Outputs:rows(rows, seconds)
  for _, row in ipairs(rows) do
    if self.files.csv then self.files.csv:write(result.csv_row(row, seconds)) end
    local live = self.files["live-json"]
    if live then live:write(result.ndjson_row(row, seconds)) end
  end
  for _, name in ipairs({ "csv", "live-json" }) do
    if self.files[name] then self.files[name]:flush() end
  end
end

-- Everything that needs the whole document; closes the files. A list of complaints.
function Outputs:finish(document)
  local complaints = {}
  local function put(kind, text)
    if self.files[kind] then
      local ok, message = self.files[kind]:write(text)
      if not ok then complaints[#complaints + 1] = tostring(message) end
    end
  end
  if self.files.hgrm then
    for _, one in ipairs(result.hgrms(document)) do
      put("hgrm", ("# %s\n%s\n"):format(one[1], one[2]))
    end
  end
  if self.files.html then put("html", require("jdbfs.command.html").page({ document })) end
  put("json", result.encode(document) .. "\n")
  for _, kind in ipairs(KINDS) do
    local file = self.files[kind]
    if file then
      local ok, message = file:close()
      if not ok then complaints[#complaints + 1] = tostring(message) end
    end
  end
  if self.to_stdout then self.out:write(result.encode(document), "\n") end
  return complaints
end

local M = {}

function M.open(options, out)
  local self = setmetatable({ files = {}, out = out, to_stdout = options.json == "-" }, Outputs)
  for _, kind in ipairs(KINDS) do
    local path = options[kind]
    if path and not (kind == "json" and path == "-") then
      local file, message = open_stream(path, "wb")
      if not file then status.fail(status.FAILED, message) end
      self.files[kind] = file
    end
  end
  if self.files.csv then self.files.csv:write(result.csv_header()) end
  return self
end

return M
