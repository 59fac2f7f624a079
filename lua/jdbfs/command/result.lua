-- The result document: what a run measured, as a plain table and as the JSON text of a file.
--
-- The table is described in one place, SHAPE below, which reading checks against, so that whoever
-- works on a document that was read can rely on it. All times are in ns or, with _s, in seconds.
-- An operation that a script timed by name has timed = true: its I/O is counted under the kinds.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local json = require("jdbfs.command.json")

local concat = table.concat
local error, ipairs, pairs, tostring, type = error, ipairs, pairs, tostring, type
local open_file = io.open
local floor, max, sqrt = math.floor, math.max, math.sqrt

local SCHEMA = "jdbfs.run/1"

-- The order of the keys in the text.
local KEYS = [[schema tool job op name version argv seed env lua kernel cpus backend
  backend_reason depth file_system device direct memory_alignment read_alignment write_alignment
  durability class reasons memlock plan workload size bs qd procs batch rate arrival time_s
  warmup_s dist sync target bytes_to_write jobs timed n elapsed_s t_s warmup bytes ops errors
  backlog response service lag sum sum_ns min min_ns max max_ns p ci hist counters offered achieved
  backlog_max late_at_end sustained intervals notes trust cpu_s_per_mop cores enters_per_op
  submit_batch reap_batch lag_p99_ns gc_share estimated device_over_asked generator_limited warnings
  thresholds expr ok value low high unit reason error exit runs]]
local STYLE = { rank = {}, objects = { tool = true, env = true, plan = true, trust = true,
  durability = true, errors = true, p = true, ci = true } }
do
  local place = 0
  for key in KEYS:gmatch("%S+") do
    place = place + 1
    STYLE.rank[key] = place
  end
end

-- Shapes: a type's name, with "?" when the value may be missing; { list = shape }; { fields }.
local DIST = { n = "number", sum_ns = "number", min_ns = "number", max_ns = "number",
  p = { optional = true, any = "number" }, ci = { optional = true, any = { list = "number" } },
  hist = { list = { [1] = "number", [2] = "number" } } }
local DIST_OR_NIL = { optional = true }
for key, shape in pairs(DIST) do
  DIST_OR_NIL[key] = shape
end
local SHAPE = {
  tool = { optional = true, name = "string?", version = "string?" },
  argv = { optional = true, list = "string" },
  seed = "number?",
  env = { optional = true, lua = "string?", backend = "string?", file_system = "string?" },
  plan = { optional = true, size = "number?", warmup_s = "number?" },
  jobs = { list = {
    name = "string", n = "number?", elapsed_s = "number",
    ops = { list = { name = "string", n = "number", bytes = "number?", timed = "boolean?",
      errors = { optional = true, any = "number" },
      response = DIST_OR_NIL, service = DIST_OR_NIL, lag = DIST_OR_NIL } },
    counters = { optional = true, list = { name = "string", n = "number", sum = "number",
      min = "number?", max = "number?" } },
    offered = "number?", achieved = "number?", backlog_max = "number?", late_at_end = "number?",
    sustained = "boolean?",
  } },
  intervals = { optional = true, list = { t_s = "number", warmup = "boolean?", job = "string",
    op = "string", n = "number", bytes = "number?", errors = "number?", backlog = "number?",
    response = DIST_OR_NIL, service = DIST_OR_NIL } },
  notes = { optional = true, list = { [1] = "string" } },
  trust = { optional = true, cpu_s_per_mop = "number?", cores = "number?",
    enters_per_op = "number?", submit_batch = "number?", reap_batch = "number?",
    lag_p99_ns = "number?", gc_share = "number?", device_over_asked = "number?",
    estimated = { optional = true, list = "string" } },
  warnings = { optional = true, list = "string" },
  thresholds = { optional = true, list = { expr = "string", ok = "boolean", reason = "string?",
    low = "number?", high = "number?", unit = "string?" } },
  error = "string?",
  exit = "number?",
}
SHAPE.runs = { optional = true, list = SHAPE } -- the second and further runs of --repeat

-- Reading and writing ----------------------------------------------------------------------------

local PERCENTILES = { 50, 90, 95, 99, 99.9, 99.99, 99.999 }

-- For readers of the text who do not add up buckets: p, the percentiles in ns by their name that
-- the samples support, and ci, between which bounds each lies with 95 % confidence.
local function add_percentiles(document)
  for _, job in ipairs(document.jobs) do
    for _, op in ipairs(job.ops) do
      for _, dist in pairs({ op.response, op.service, op.lag }) do
        dist.p, dist.ci = {}, {}
        for _, percent in ipairs(PERCENTILES) do
          local name, value = ("%g"):format(percent), distribution.percentile(dist, percent)
          dist.p[name] = value
          dist.ci[name] = value and { distribution.interval(dist, percent) }
        end
      end
    end
  end
end

-- nil when the value has the shape, else what is wrong with it.
local function mismatch(value, shape, where)
  if type(shape) == "string" then
    local kind, optional = shape:match("^(%a+)(%??)$")
    if type(value) == kind or (value == nil and optional == "?") then return nil end
    return ("%s is %s, not a %s"):format(where, value == nil and "missing" or "a " .. type(value),
      kind)
  end
  if value == nil and shape.optional then return nil end
  if type(value) ~= "table" then
    return ("%s is %s"):format(where, value == nil and "missing" or "a " .. type(value))
  end
  if shape.list then
    for i, item in ipairs(value) do
      local wrong = mismatch(item, shape.list, ("%s[%d]"):format(where, i))
      if wrong then return wrong end
    end
    return nil
  end
  for key, field in pairs(shape) do
    if key == "any" then
      for name, item in pairs(value) do
        local wrong = mismatch(item, field, where .. "." .. tostring(name))
        if wrong then return wrong end
      end
    elseif key ~= "optional" then
      local wrong = mismatch(value[key], field, where .. "." .. key)
      if wrong then return wrong end
    end
  end
end

-- The document as one line of JSON.
local function encode(document)
  return json.encode(document, STYLE)
end

-- The document that the text holds, or nil and one sentence.
local function decode(text)
  local document, message = json.decode(text)
  if document == nil then return nil, "is not JSON: " .. message end
  if type(document) ~= "table" or type(document.schema) ~= "string" then
    return nil, "is not a result of jdbfs: it has no schema"
  end
  if document.schema ~= SCHEMA then
    return nil, ("has the schema %s, and this jdbfs reads %s"):format(document.schema, SCHEMA)
  end
  local wrong = mismatch(document, SHAPE, "document")
  if wrong then return nil, "is a damaged result: " .. wrong end
  return document
end

-- The document of a file; or nil, one sentence with the path, and "io" or "format".
local function load(path)
  local file, message = open_file(path, "rb")
  if not file then return nil, message, "io" end
  local text, reason = file:read("*a")
  file:close()
  if not text then return nil, ("%s: %s"):format(path, tostring(reason)), "io" end
  local document, wrong = decode(text)
  if not document then return nil, ("%s %s"):format(path, wrong), "format" end
  return document
end

-- The document, and those of the further runs of --repeat, as a list.
local function runs(document)
  local list = { document }
  for _, one in ipairs(document.runs or {}) do list[#list + 1] = one end
  return list
end

-- Questions --------------------------------------------------------------------------------------

local function sum(errors)
  local total = 0
  for _, count in pairs(errors or {}) do
    total = total + count
  end
  return total
end

-- Every operation as { job =, op =, label =, rate =, bytes_s =, errors = }, in order. The label
-- names the job only when there are several.
local function operations(document)
  local list = {}
  for _, job in ipairs(document.jobs) do
    for _, op in ipairs(job.ops) do
      local per_second = job.elapsed_s > 0 and 1 / job.elapsed_s or 0
      list[#list + 1] = { job = job, op = op, rate = op.n * per_second,
        bytes_s = (op.bytes or 0) * per_second, errors = sum(op.errors),
        label = #document.jobs > 1 and job.name .. "." .. op.name or op.name }
    end
  end
  return list
end

-- The operation that a headline is about: the first of the first job that did something.
local function headline(document)
  local list = operations(document)
  for _, entry in ipairs(list) do
    if entry.op.n > 0 then return entry end
  end
  return list[1]
end

-- What all operations did together: { rate, bytes_s, errors }, without those timed by name.
local function totals(document)
  local total = { rate = 0, bytes_s = 0, errors = 0, n = 0 }
  for _, entry in ipairs(operations(document)) do
    if not entry.op.timed then
      total.rate, total.bytes_s = total.rate + entry.rate, total.bytes_s + entry.bytes_s
      total.errors, total.n = total.errors + entry.errors, total.n + entry.op.n
    end
  end
  return total
end

local SHORT = 0.4 -- of the longest interval: what the run's end cut, not a warm-up of half a second

-- The intervals of one operation, in order, each with its length in seconds beside it. One that is
-- much shorter than the longest is marked short: its figures say little.
local function series(document, job, op)
  local list, before, longest = {}, 0, 0
  for _, interval in ipairs(document.intervals or {}) do
    if interval.job == job and interval.op == op then
      list[#list + 1] = { interval = interval, seconds = max(interval.t_s - before, 1e-9) }
      before, longest = interval.t_s, max(longest, list[#list].seconds)
    end
  end
  for _, each in ipairs(list) do
    each.short = each.seconds < longest * SHORT
  end
  return list
end

-- Rows per interval ------------------------------------------------------------------------------

local PERCENTS = { { "p50", 50 }, { "p90", 90 }, { "p99", 99 }, { "p999", 99.9 } }
local COLUMNS = { "t_s", "job", "op", "ops_s", "bytes_s", "p50", "p90", "p99", "p999", "max",
  "errors", "backlog", "service_p50", "service_p90", "service_p99", "service_p999", "service_max",
  "warmup" }
local ROW_STYLE = { rank = {} }
for place, column in ipairs(COLUMNS) do
  ROW_STYLE.rank[column] = place
end

-- A millisecond, or a thousandth of an operation, is as fine as these are.
local function rounded(value)
  return floor(value * 1000 + 0.5) / 1000
end

-- The figures of an interval of that many seconds. Latencies are whole ns and missing when there
-- are too few samples; those without a prefix are response times.
local function row(interval, seconds)
  local figures = { t_s = rounded(interval.t_s), job = interval.job, op = interval.op,
    ops_s = rounded(interval.n / seconds), bytes_s = rounded((interval.bytes or 0) / seconds),
    errors = interval.errors or 0, backlog = interval.backlog or 0,
    warmup = interval.warmup or false }
  for _, percent in ipairs(PERCENTS) do
    figures[percent[1]] = distribution.percentile(interval.response, percent[2])
    figures["service_" .. percent[1]] = distribution.percentile(interval.service, percent[2])
  end
  figures.max = distribution.largest(interval.response)
  figures.service_max = distribution.largest(interval.service)
  return figures
end

local function csv_field(value)
  if value == nil then return "" end
  if type(value) ~= "string" then return json.encode(value) end
  if not value:find('[",\r\n]') then return value end
  return '"' .. value:gsub('"', '""') .. '"'
end

local function csv_header()
  return concat(COLUMNS, ",") .. "\n"
end

local function csv_row(interval, seconds)
  local figures, fields = row(interval, seconds), {}
  for i, column in ipairs(COLUMNS) do
    fields[i] = csv_field(figures[column])
  end
  return concat(fields, ",") .. "\n"
end

local function ndjson_row(interval, seconds)
  return json.encode(row(interval, seconds), ROW_STYLE) .. "\n"
end

local function rows(document, write)
  local before, lines = {}, {}
  for _, interval in ipairs(document.intervals or {}) do
    local key = interval.job .. "\0" .. interval.op
    lines[#lines + 1] = write(interval, max(interval.t_s - (before[key] or 0), 1e-9))
    before[key] = interval.t_s
  end
  return concat(lines)
end

local function csv(document)
  return csv_header() .. rows(document, csv_row)
end

local function ndjson(document)
  return rows(document, ndjson_row)
end

-- HdrHistogram text ------------------------------------------------------------------------------

local function deviation(dist)
  local mean, squares = dist.sum_ns / dist.n, 0
  for _, bucket in ipairs(dist.hist) do
    local off = distribution.bucket_middle(bucket[1], dist) - mean
    squares = squares + off * off * bucket[2]
  end
  return sqrt(squares / dist.n)
end

-- A DIST in the text format of HdrHistogram, in ms, as its plotters read it.
local function hgrm(dist)
  local lines = { ("%12s %14s %10s %14s\n"):format("Value", "Percentile", "TotalCount",
    "1/(1-Percentile)") }
  local seen = 0
  for _, bucket in ipairs(dist.hist) do
    seen = seen + bucket[2]
    local share, value = seen / dist.n, distribution.bucket_middle(bucket[1], dist) / 1e6
    lines[#lines + 1] = seen < dist.n
      and ("%12.6f %2.12f %10.0f %14.2f"):format(value, share, seen, 1 / (1 - share))
      or ("%12.6f %2.12f %10.0f"):format(dist.max_ns / 1e6, 1, seen)
  end
  if dist.n > 0 then
    lines[#lines + 1] = ("#[Mean    = %12.6f, StdDeviation   = %12.6f]"):format(
      dist.sum_ns / dist.n / 1e6, deviation(dist) / 1e6)
    lines[#lines + 1] = ("#[Max     = %12.6f, Total count    = %12.0f]"):format(
      dist.max_ns / 1e6, dist.n)
  end
  lines[#lines + 1] = "#[Buckets = 34, SubBuckets     = 128]"
  return concat(lines, "\n") .. "\n"
end

-- A list of { label, text }: one HdrHistogram text per operation and latency, as such a file can
-- hold one distribution only.
local function hgrms(document)
  local list = {}
  for _, entry in ipairs(operations(document)) do
    for _, latency in ipairs({ "response", "service" }) do
      if entry.op[latency] then
        list[#list + 1] = { entry.label .. "." .. latency, hgrm(entry.op[latency]) }
      end
    end
  end
  return list
end

-- Describing a run -------------------------------------------------------------------------------

-- The command line that made the document, as a shell would take it.
local function command_line(document)
  local words = { "jdbfs" }
  for _, word in ipairs(document.argv or {}) do
    words[#words + 1] = word:find("^[%w%%+,./:=@_-]+$") and word
      or "'" .. word:gsub("'", "'\\''") .. "'"
  end
  return concat(words, " ")
end

-- What was measured on, in a few words each: a list of texts.
local function target_words(document)
  local plan, env, words = document.plan or {}, document.env or {}, {}
  local function add(text)
    words[#words + 1] = text
  end
  if plan.target then add(tostring(plan.target)) end
  if plan.size then add(type(plan.size) == "number" and format.bytes(plan.size) or plan.size) end
  if env.file_system then
    add(env.file_system .. (env.device and " on " .. tostring(env.device) or ""))
  end
  if env.direct ~= nil then
    add(env.direct and ("O_DIRECT %s/%s"):format(tostring(env.memory_alignment or "?"),
      tostring(env.write_alignment or env.read_alignment or "?")) or "BUFFERED")
  end
  if plan.procs then add(tostring(plan.procs) .. " processes") end
  if plan.warmup_s and plan.warmup_s > 0 then
    add(("warm-up %s excluded"):format(format.seconds(plan.warmup_s)))
  end
  return words
end

-- A document to start from, for whoever fills it.
local function new(fields)
  local document = { schema = SCHEMA, tool = { name = "jdbfs" }, argv = {}, env = {}, plan = {},
    jobs = {}, intervals = {}, notes = {}, trust = {}, warnings = {}, thresholds = {} }
  for key, value in pairs(fields or {}) do
    if not STYLE.rank[key] then error("a document has no field " .. tostring(key), 2) end
    document[key] = value
  end
  return document
end

return {
  SCHEMA = SCHEMA,
  new = new,
  add_percentiles = add_percentiles,
  encode = encode,
  decode = decode,
  load = load,
  runs = runs,
  operations = operations,
  headline = headline,
  totals = totals,
  series = series,
  csv_header = csv_header,
  csv_row = csv_row,
  ndjson_row = ndjson_row,
  csv = csv,
  ndjson = ndjson,
  hgrm = hgrm,
  hgrms = hgrms,
  command_line = command_line,
  target_words = target_words,
}
