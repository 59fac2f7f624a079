-- The options of `jdbfs run` and of workloads: what is typed, as a table; and the help texts.

local status = require("jdbfs.command.status")
local units = require("jdbfs.command.units")

local concat, sort = table.concat, table.sort
local ipairs, pairs = ipairs, pairs
local within = units.within

local M = {}

local time = within(units.time, 0.001, 86400, "1ms and 24h")

-- In the order of the help text. An option without parse is a flag; `list` may be repeated.
M.RUN = {
  { group = "Where" },
  { name = "dir", value = "D", parse = units.text, default = ".",
    about = "where to make the scratch directory jdbfs-XXXXXX (default: here)" },
  { name = "file", value = "F", parse = units.text, about = "this file is the target" },
  { name = "size", value = "1g", parse = units.size,
    about = "of the target (default: 1g, or 10 % of the free space if that is less)" },
  { name = "keep", about = "leave the files; --file with --keep uses them again" },
  { group = "Load" },
  { name = "bs", value = "4k", parse = within(units.size, 512, 67108864, "512 bytes and 64m"),
    about = "block (default: the workload's, or 4k)" },
  { name = "qd", value = "32", parse = within(units.whole, 1, 65536, "1 and 65536 coroutines"),
    about = "coroutines per job, each waiting for its own operation" },
  { name = "procs", value = "1", parse = within(units.whole, 1, 64, "1 and 64 processes"),
    default = 1, about = "so many processes, each with a queue and --qd coroutines of its own" },
  { name = "batch", value = "S[:W]", parse = units.batch,
    about = "operations of one kernel entry, completions it waits for (default: from the depth)" },
  { name = "rate", value = "R", parse = within(units.rate, 0.01, 1e8, "0.01 and 100m"),
    about = "open loop: so many iterations a second per job, of all processes; late is late" },
  { name = "arrival", value = "A", parse = units.choice({ "poisson", "const" }),
    default = "poisson", about = "poisson or const gaps between them (default poisson)" },
  { name = "dist", value = "D", parse = units.distribution,
    about = "uniform, seq, zipf:0.99, pareto:0.2, hotspot:90/10" },
  { name = "zipf-scatter", value = "on|off", parse = units.choice({ "on", "off" }),
    default = "on", about = "off keeps the hot pages at the front" },
  { name = "sync", value = "S",
    parse = units.choice({ "none", "dsync", "fdatasync", "fsync", "osync" }),
    about = "how each write is made durable (default: the workload's)" },
  { name = "seed", value = "N", default = 1, about =
    "the same seed draws the same offsets and data (default 1); random draws one",
    parse = function(text)
      if text == "random" then return text end
      return within(units.whole, 0, 2 ^ 48, "0 and 2^48")(text)
    end },
  { group = "How long" },
  { name = "time", value = "10s", parse = time, default = 10,
    about = "measured time per workload (default 10s)" },
  { name = "ops", value = "N", parse = within(units.whole, 1, 1e12, "1 and 10^12"),
    about = "end after so many iterations" },
  { name = "repeat", value = "K", parse = within(units.whole, 1, 1000, "1 and 1000 runs"),
    default = 1, about = "so many runs; --json holds them all, for compare" },
  { name = "warmup", value = "1s", parse = within(units.time, 0, 86400, "0s and 24h"),
    default = 1, about = "comes before it and is in no figure (default 1s)" },
  { name = "steady", value = "3%/5s", parse = units.steady,
    about = "warm up until the rate stays within 3 % of its mean for 5 s" },
  { name = "warmup-max", value = "60s", parse = time, default = 60,
    about = "of --steady; then it gives up with a warning" },
  { name = "require-steady", about = "then it gives up with exit status 3" },
  { group = "Judging" },
  { name = "threshold", value = "EXPR", parse = units.text, list = true,
    about = "'read.p99 < 5ms': decides the exit status; may be repeated" },
  { name = "verify", about = "stamp every page, check every page read" },
  { name = "state", value = "D", parse = units.text,
    about = "with --verify: a log of acknowledged writes, for jdbfs verify --state D" },
  { group = "Output" },
  { name = "json", value = "F|-", parse = units.text,
    about = "the result document; with - nothing else goes to standard output" },
  { name = "csv", value = "F", parse = units.text, about = "a row per interval and operation" },
  { name = "live-json", value = "F", parse = units.text, about = "the same as NDJSON, as it runs" },
  { name = "hgrm", value = "F", parse = units.text, about = "HdrHistogram text" },
  { name = "html", value = "F", parse = units.text, about = "one page with charts" },
  { name = "interval", value = "1s", parse = within(units.time, 0.05, 3600, "50ms and 1h"),
    default = 1, about = "of the series (default 1s, longer for runs above 1000s)" },
  { name = "quiet", about = "no progress, no summary" },
  { name = "no-color", about = "also by the environment variable NO_COLOR" },
  { name = "ascii", about = "no other characters than ASCII" },
  { group = "Safety" },
  { name = "overwrite", about = "write to a file that jdbfs did not make" },
  { name = "allow-device", value = "P", parse = units.text,
    about = "write to this block device: the path again" },
  { name = "buffered", about = "go through the page cache; the figures are then not the device's" },
  { name = "max-written", value = "N", parse = units.size, about = "stop after so many bytes" },
  { name = "dry-run", about = "say what would be done, and do nothing" },
  { name = "backend", value = "NAME", parse = units.text,
    about = "as in jdbfs.setup{ backend = NAME } (default: auto); null transfers nothing" },
}

-- A list of options by name.
function M.index(list)
  local by_name = {}
  for _, option in ipairs(list) do
    if option.name then by_name[option.name] = option end
  end
  return by_name
end

local RUN = M.index(M.RUN)

-- The options of a workload as such a list, sorted by name.
function M.of_workload(definition)
  local list = {}
  for name, option in pairs(definition.options or {}) do
    local typed = name:gsub("_", "-")
    if RUN[typed] then
      status.usage("the workload's option %s is one of run: it needs another name", name)
    end
    list[#list + 1] = { name = typed, key = name, value = option.value, parse = option.parse,
      default = option.default, about = option.about, shown = option.shown }
  end
  sort(list, function(a, b) return a.name < b.name end)
  return list
end

function M.defaults(list)
  local values = {}
  for _, option in ipairs(list) do
    if option.name then values[option.key or option.name] = option.default end
  end
  return values
end

-- Reads the option at args[i] into values and returns the index of its last word; nil when none of
-- this name is known. Fails with a usage error.
local function read(args, i, by_name, values)
  local word = args[i]
  local name, text = word:match("^%-%-([^=]*)=(.*)$")
  name = name or word:match("^%-%-(.+)$")
  local option = by_name[name]
  if not option then return nil end
  local key = option.key or name
  if not option.parse then
    if text then status.usage("--%s takes no value", name) end
    values[key] = true
    return i
  end
  if values.given then values.given[key] = true end
  if not text then
    i = i + 1
    text = args[i]
    if not text then status.usage("--%s needs a value", name) end
  end
  local parsed, reason = option.parse(text)
  if parsed == nil then status.usage("--%s: %q %s", name, text, reason) end
  if option.list then
    values[key] = values[key] or {}
    values[key][#values[key] + 1] = parsed
  else
    values[key] = parsed
  end
  return i
end
M.read = read

-- Where an option of a workload that was named before is put: into the values of each workload
-- that has it. The index of its last word, or nil.
local function read_own(args, i, workloads)
  local last
  for _, workload in ipairs(workloads) do
    last = read(args, i, workload.by_name, workload.values) or last
  end
  return last
end

-- The words args[from...] of `run`: its options, and the list that load(name) gave for each
-- workload, with by_name and values for the workload's own options, which come behind its name.
function M.split(args, from, load)
  local values, workloads, own = M.defaults(M.RUN), {}, false
  values.given = {}
  local i = from
  while args[i] do
    local word = args[i]
    if word == "--" then
      own = true
    elseif word:sub(1, 1) ~= "-" and not own then
      local workload = load(word)
      workload.by_name = M.index(workload.options)
      workload.values = M.defaults(workload.options)
      workloads[#workloads + 1] = workload
    else
      local last = not own and read(args, i, RUN, values) or read_own(args, i, workloads)
      if not last then status.usage("unknown option %s; see jdbfs --help", word) end
      i = last
    end
    i = i + 1
  end
  return values, workloads
end

local function help_line(option)
  local name = "--" .. option.name .. (option.value and " " .. option.value or "")
  local shown = option.shown and (" (default %s)"):format(option.shown) or ""
  return ("  %-22s %s%s"):format(name, option.about, shown)
end

function M.run_help() return M.help(M.RUN) end

-- Lines of help for a list of options.
function M.help(list)
  local lines = {}
  for _, option in ipairs(list) do
    lines[#lines + 1] = option.group and ("\n%s:"):format(option.group) or help_line(option)
  end
  return concat(lines, "\n")
end

return M
