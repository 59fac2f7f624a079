-- `jdbfs report RUN.json... -o out.html`: results, as a page or in another format.

local arguments = require("jdbfs.command.arguments")
local charts = require("jdbfs.command.html_charts")
local html = require("jdbfs.command.html")
local result = require("jdbfs.command.result")
local status = require("jdbfs.command.status")

local concat = table.concat
local ipairs = ipairs
local open_file, remove = io.open, os.remove

local OPTIONS = {
  { name = "output", short = "o", value = true },
  { name = "overwrite" },
}

-- Writes the whole text or leaves no file behind; with `overwrite` what is there may be anything, a
-- device, too, and stays. True, or nil, message and exit status.
local function write(path, text, overwrite, out)
  if path == "-" then
    out:write(text)
    return true
  end
  local existing = not overwrite and open_file(path, "rb")
  if existing then
    existing:close()
    return nil, ("%s exists; --overwrite replaces it"):format(path), status.USAGE
  end
  local file, message = open_file(path, "wb")
  if not file then return nil, message, status.FAILED end
  local written, why = file:write(text)
  local closed, reason = file:close()
  if written and closed then return true end
  if not overwrite then remove(path) end
  return nil, ("%s: %s"):format(path, why or reason), status.FAILED
end

-- What the name of the output asks for.
local FORMATS = {
  html = html.page,
  csv = function(documents) return result.csv(documents[1]) end,
  svg = function(documents) return charts.picture(result.headline(documents[1])) end,
  ndjson = function(documents) return result.ndjson(documents[1]) end,
  hgrm = function(documents)
    local entry = result.headline(documents[1])
    return result.hgrm(entry.op.response or entry.op.service)
  end,
}

local function load_all(files)
  local documents = {}
  for _, path in ipairs(files) do
    local document, message, kind = result.load(path)
    if not document then
      return nil, message, kind == "format" and status.USAGE or status.FAILED
    end
    for _, one in ipairs(result.runs(document)) do documents[#documents + 1] = one end
  end
  return documents
end

-- args are the words behind the verb. Gives the exit status.
local function main(args, out, err)
  local function fail(exit, message)
    err:write("jdbfs: ", message, "\n")
    return exit
  end
  local options, files = arguments.parse(args, OPTIONS)
  if not options then return fail(status.USAGE, files) end
  if #files == 0 or not options.output then
    return fail(status.USAGE, "report takes results and the page to make: RUN.json... -o out.html")
  end
  local kind = options.output == "-" and "html" or options.output:match("%.(%w+)$") or "html"
  local make = FORMATS[kind]
  if not make then
    return fail(status.USAGE, ("%s: the name ends in none of .html .svg .csv .ndjson .hgrm"):format(
      options.output))
  end
  local documents, message, exit = load_all(files)
  if not documents then return fail(exit, message) end
  if kind ~= "html" and (#documents > 1 or not result.headline(documents[1])) then
    return fail(status.USAGE, ("one result with an operation makes a .%s, not %s"):format(kind,
      concat(files, " ")))
  end
  local written
  written, message, exit = write(options.output, make(documents), options.overwrite, out)
  if not written then return fail(exit, message) end
  return status.OK
end

return {
  main = main,
}
