-- The files a run writes: JSON, CSV, NDJSON, HdrHistogram, HTML. They are opened before the run, so
-- that a path that cannot be written ends it at once.

local jdbfs = require("jdbfs")
local result = require("jdbfs.command.result")
local status = require("jdbfs.command.status")

local ipairs, pairs, require = ipairs, pairs, require
local setmetatable, tostring = setmetatable, tostring
local concat, open_stream, remove = table.concat, io.open, os.remove

local Outputs = {}
Outputs.__index = Outputs

local KINDS = { "json", "csv", "live-json", "hgrm", "html" }

-- Rows as they come, so that a run that is killed leaves them.
function Outputs:rows(rows, seconds)
  for kind, row_of in pairs({ csv = result.csv_row, ["live-json"] = result.ndjson_row }) do
    local file, lines = self.files[kind], {}
    for i, row in ipairs(rows) do lines[i] = row_of(row, seconds) end
    if file then
      local ok, message = file:write(concat(lines))
      if ok then ok, message = file:flush() end
      if not ok then self.lost[kind] = message end
    end
  end
end

-- Everything that needs the whole document; closes the files. A list of complaints.
function Outputs:finish(document)
  local complaints = {}
  for kind, message in pairs(self.lost) do
    complaints[#complaints + 1] = ("--%s: rows were lost: %s"):format(kind, tostring(message))
  end
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

-- How what we write begins; only that is replaced unasked.
local BEGINNINGS = { json = '{"schema":"jdbfs.run/', csv = result.csv_header():sub(1, 20),
  ["live-json"] = '{"t_s":', hgrm = "# ", html = "<!DOCTYPE html>" }

local function begins(path, wanted)
  local file = open_stream(path, "rb")
  if not file then return true end -- opening it to write tells why
  local text = file:read(#wanted)
  file:close()
  return text == nil or text == wanted
end

-- Refuses to replace what is no earlier output; terminals and pipes are nobody's data. Says whether
-- something is there.
local function check(kind, path, options)
  local stat = jdbfs.stat(path)
  if not stat then return false end
  local replaced = stat.type == "block device"
    or stat.type == "file" and not begins(path, BEGINNINGS[kind])
  if replaced and not options.overwrite then
    status.usage("--%s: %s exists and is no such output of jdbfs: --overwrite would destroy what it"
      .. " holds", kind, path)
  end
  return true
end

local M = {}

-- Opens them all, or none: fails, and removes again what it made.
function M.open(options, out)
  local self = setmetatable({ files = {}, lost = {}, out = out,
    to_stdout = options.json == "-" }, Outputs)
  local paths, made = {}, {}
  for _, kind in ipairs(KINDS) do
    local path = options[kind]
    if path and not (kind == "json" and path == "-") then
      paths[kind] = path
      made[kind] = not check(kind, path, options)
    end
  end
  for _, kind in ipairs(KINDS) do
    local file, message
    if paths[kind] then file, message = open_stream(paths[kind], "wb") end
    if message then
      for each, opened in pairs(self.files) do
        opened:close()
        if made[each] then remove(paths[each]) end
      end
      status.fail(status.FAILED, message)
    end
    self.files[kind] = file
  end
  if self.files.csv then self.files.csv:write(result.csv_header()) end
  return self
end

return M
