-- Compares results: `jdbfs compare BASE.json NEW.json`, or several runs of each with --to between.
--
-- With one run on a side the unit is a second of it, drawn in blocks of 3 s; with several the unit
-- is the run. A verdict is given only where the 95 % interval of the ratio excludes 1 and the
-- change exceeds the noise. No outlier is removed.

local arguments = require("jdbfs.command.arguments")
local comparison = require("jdbfs.command.figures")
local format = require("jdbfs.command.format")
local json = require("jdbfs.command.json")
local result = require("jdbfs.command.result")
local status = require("jdbfs.command.status")

local floor, max = math.floor, math.max
local concat, sort = table.concat, table.sort
local ipairs, pairs, tonumber, tostring, type = ipairs, pairs, tonumber, tostring, type
local open_file = io.open

local NOISE = 0.02
local SAME = { "bs", "qd", "size", "dist" } -- of the plan; else the results are of different things

-- What differs -----------------------------------------------------------------------------------

local function flat(value)
  if type(value) ~= "table" then return tostring(value) end
  return json.encode(value)
end

-- A list of { name, base, new } of what is set differently.
local function differences(a, b)
  local list = {}
  for _, part in ipairs({ "env", "plan" }) do
    local first, second, names = a[part] or {}, b[part] or {}, {}
    for _, fields in ipairs({ first, second }) do
      for name in pairs(fields) do
        names[name] = true
      end
    end
    local sorted = {}
    for name in pairs(names) do
      if flat(first[name]) ~= flat(second[name]) and name ~= "target" then
        sorted[#sorted + 1] = name
      end
    end
    sort(sorted, function(x, y) return tostring(x) < tostring(y) end)
    for _, name in ipairs(sorted) do
      list[#list + 1] = { name, flat(first[name]), flat(second[name]) }
    end
  end
  if a.seed ~= b.seed then list[#list + 1] = { "seed", flat(a.seed), flat(b.seed) } end
  return list
end

-- nil when the results are of the same thing, else one sentence.
local function mismatch(base, new)
  for _, documents in ipairs({ base, new }) do
    for _, document in ipairs(documents) do
      for _, name in ipairs(SAME) do
        local first, other = (base[1].plan or {})[name], (document.plan or {})[name]
        if flat(first) ~= flat(other) then
          return ("the results are of different things: %s is %s in one and %s in the other;"
            .. " --force compares them all the same"):format(name, format.text(first),
            format.text(other))
        end
      end
    end
  end
end

-- --fail-on --------------------------------------------------------------------------------------

-- "read.p99>+10%" as a table, or nil and why not.
local function parse_fail_on(text)
  local name, operator, sign, number = text:match("^%s*(%S-)%s*([<>])%s*([+-]?)(%d+%.?%d*)%%%s*$")
  if not name or name == "" then return nil, "is not like read.p99>+10%" end
  local limit = tonumber(number) / 100 * (sign == "-" and -1 or 1)
  return { expr = text, name = name, operator = operator, limit = limit }
end

-- Names in an expression may leave out the job, and say iops for the rate of the only operation.
local function figure_named(figures, name)
  for _, figure in ipairs(figures) do
    if figure.name == name or figure.name:match("^[^.]+%.(.*)$") == name
      or (name == "iops" and figure.name:match("%.rate$"))
      or (name:match("^(.*)%.iops$") or false) == figure.name:match("^(.*)%.rate$") then
      return figure
    end
  end
end

-- Whether the change is past the limit, and is one: an interval that holds 1 shows none.
local function matches(condition, figures)
  local figure = figure_named(figures, condition.name)
  if not figure or not figure.ratio then return true, "there is no such figure in both results" end
  local change = figure.ratio - 1
  local past = condition.operator == ">" and change > condition.limit
    or condition.operator == "<" and change < condition.limit
  if not past then return false end
  if figure.low and figure.low <= 1 and figure.high >= 1 then return false end
  return true, ("%s changed by %+.1f %%"):format(figure.title, change * 100)
end

-- The text ---------------------------------------------------------------------------------------

local function value_text(figure, value)
  if figure.unit == "ns" then return format.duration(value) end
  if figure.unit == "ops/s" then return format.rate(value) end
  return ("%.2f%s"):format(value, figure.unit)
end

local function add_figures(lines, figures)
  local width = 22
  for _, figure in ipairs(figures) do
    width = max(width, format.columns(figure.title) + 1)
  end
  lines[#lines + 1] = ("%s%10s%11s%8s   %-16s %s"):format((" "):rep(width), "base", "new", "ratio",
    "95% interval", "verdict")
  for _, figure in ipairs(figures) do
    local bounds = figure.low and ("[%.3f, %.3f]"):format(figure.low, figure.high) or "–"
    lines[#lines + 1] = format.pad(figure.title, width)
      .. format.pad_left(value_text(figure, figure.base), 10)
      .. format.pad_left(value_text(figure, figure.new), 11)
      .. format.pad_left(figure.ratio and ("%.3f"):format(figure.ratio) or "–", 8)
      .. "   " .. format.pad(bounds, 16) .. " " .. figure.verdict
  end
end

local function measured_seconds(document)
  local longest = 0
  for _, job in ipairs(document.jobs) do
    longest = max(longest, job.elapsed_s)
  end
  return longest
end

local function text_of(base, new, report)
  local lines = { ("%s: %d + %d runs of %s, unit: %s"):format(report.name, #base, #new,
    format.seconds(floor(measured_seconds(base[1]) * 10 + 0.5) / 10),
    report.runs and "the run" or ("blocks of %d s"):format(comparison.BLOCK_S)) }
  add_figures(lines, report.figures)
  if #report.figures == 0 then lines[#lines + 1] = "no operation is in both results" end
  local words = {}
  for i, difference in ipairs(report.differs) do
    words[i] = ("%s %s → %s"):format(difference[1], difference[2], difference[3])
  end
  lines[#lines + 1] = "differs: " .. (#words > 0 and concat(words, " · ") or "nothing we know of")
  for _, each in ipairs(report.fail_on) do
    lines[#lines + 1] = ("%s %s%s"):format(each.failed and "✗" or "✓", each.expr,
      each.reason and "  " .. each.reason or "")
  end
  return concat(lines, "\n") .. "\n"
end

-- Running it -------------------------------------------------------------------------------------

local function listed(documents)
  return documents.schema and { documents } or documents
end

-- base, new: a document each, or lists of the documents of several runs.
--   o.noise (0.02), o.force, o.seed, o.resamples (2000), o.fail_on: list of parsed conditions
--   o.paired: run i of both was made in the same pair, and is drawn with it
-- Gives the text, the list of figures and the exit status; nil, message, 2 when they cannot be
-- compared. Each figure: name, unit, base, new, ratio, low, high, verdict, differs, p.
local function run(base, new, o)
  o = o or {}
  base, new = listed(base), listed(new)
  local wrong = not o.force and mismatch(base, new)
  if wrong then return nil, wrong, status.USAGE end
  local runs = #base > 1 and #new > 1
  if (#base > 1) ~= (#new > 1) then
    return nil, "one run cannot be compared with several: give several of both", status.USAGE
  end
  local settings = { noise = o.noise or NOISE, seed = o.seed or 1, runs = runs,
    resamples = o.resamples, paired = o.paired and #base == #new }
  local report = { name = "compare", runs = runs, figures = comparison.of(base, new, settings),
    differs = differences(base[1], new[1]), fail_on = {} }
  local exit = status.OK
  for i, condition in ipairs(o.fail_on or {}) do
    local failed, reason = matches(condition, report.figures)
    report.fail_on[i] = { expr = condition.expr, failed = failed, reason = reason }
    if failed then exit = status.THRESHOLD end
  end
  return text_of(base, new, report), report.figures, exit, report
end

-- The comparison as JSON.
local STYLE = { rank = {}, objects = {} }
for place, name in ipairs({ "schema", "name", "title", "unit", "base", "new", "ratio", "low",
  "high", "verdict", "differs", "p", "figures", "fail_on", "expr", "failed", "reason", "exit" }) do
  STYLE.rank[name] = place
end

local function encode(report, exit)
  local figures = {}
  for i, figure in ipairs(report.figures) do
    figures[i] = { name = figure.name, unit = figure.unit, base = figure.base, new = figure.new,
      ratio = figure.ratio, low = figure.low, high = figure.high, verdict = figure.verdict,
      differs = figure.differs or false, p = figure.p }
  end
  return json.encode({ schema = "jdbfs.compare/1", figures = figures, differs = report.differs,
    fail_on = report.fail_on, exit = exit }, STYLE) .. "\n"
end

local function parse_noise(text)
  local number = text:match("^(%d*%.?%d+)%%$")
  if not number then return nil, "is not a share like 2%" end
  return tonumber(number) / 100
end

local OPTIONS = {
  { name = "fail-on", value = true, list = true, parse = parse_fail_on },
  { name = "noise", value = true, parse = parse_noise },
  { name = "force" },
  { name = "to", marks = true },
  { name = "json", value = true },
  { name = "ascii" },
}

-- Splits the files into both sides and reads them; nil, message and exit status on failure.
local function load_sides(files, split)
  if not split and #files ~= 2 then
    return nil, "compare takes two results, or several of each with --to between them", status.USAGE
  end
  split = split or 1
  if split == 0 or split == #files then
    return nil, "there is no result on one side of --to", status.USAGE
  end
  local sides = { {}, {} }
  for i, path in ipairs(files) do
    local document, message, kind = result.load(path)
    if not document then
      return nil, message, kind == "format" and status.USAGE or status.FAILED
    end
    local list = sides[i <= split and 1 or 2]
    for _, one in ipairs(result.runs(document)) do list[#list + 1] = one end
  end
  return sides
end

local function write_json(path, text, out)
  if path == "-" then
    out:write(text)
    return true
  end
  local file, message = open_file(path, "wb")
  if not file then return nil, message end
  local written, why = file:write(text)
  local closed, reason = file:close()
  if not written or not closed then return nil, ("%s: %s"):format(path, why or reason) end
  return true
end

-- `jdbfs compare`: args are the words behind the verb. Gives the exit status.
local function main(args, out, err)
  local function fail(exit, message)
    err:write("jdbfs: ", message, "\n")
    return exit
  end
  local options, files = arguments.parse(args, OPTIONS)
  if not options then return fail(status.USAGE, files) end
  local sides, message, exit = load_sides(files, options.to)
  if not sides then return fail(exit, message) end
  local text, figures, report
  text, figures, exit, report = run(sides[1], sides[2], { noise = options.noise,
    force = options.force, fail_on = options["fail-on"] })
  if not text then return fail(exit, figures) end
  if options.json then
    local written, reason = write_json(options.json, encode(report, exit), out)
    if not written then return fail(status.FAILED, reason) end
  end
  if options.json ~= "-" then out:write(options.ascii and format.ascii(text) or text) end
  return exit
end

return {
  run = run,
  main = main,
  parse_fail_on = parse_fail_on,
}
