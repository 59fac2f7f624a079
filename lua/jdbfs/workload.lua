-- jdbfs.workload: what a workload file is made of. It returns what define gives, or a function,
-- which is then the whole workload: one iteration of each coroutine.
--
--   local W = require "jdbfs.workload"
--   return W.define {
--     about = "one line", options = { clients = W.int(16, "coroutines that commit") },
--     jobs = { client = { n = "clients", main = function(ctx, state) ... end } },
--   }

local units = require("jdbfs.command.units")

local concat, sort = table.concat, table.sort
local error, ipairs, pairs, pcall, tostring, type = error, ipairs, pairs, pcall, tostring, type

local M = {}

-- Options ----------------------------------------------------------------------------------------

local function option(kind, value, parse, default, about)
  if default ~= nil and type(default) ~= "string" then default = tostring(default) end
  local o = { option = kind, value = value, parse = parse, about = about or "", shown = default }
  if default ~= nil then
    local parsed, reason = parse(default)
    if parsed == nil then error(("default %q %s"):format(default, reason), 3) end
    o.default = parsed
  end
  return o
end

local function bounded(parse, o)
  if not o then return parse end
  local low, high = o.min or -2 ^ 53, o.max or 2 ^ 53
  return units.within(parse, low, high, ("%s and %s"):format(tostring(low), tostring(high)))
end

--- Each: the default as it would be typed, what the help says about it.
function M.size(default, about, bounds)
  return option("size", "SIZE", bounded(units.size, bounds), default, about)
end

function M.int(default, about, bounds)
  return option("int", "N", bounded(units.whole, bounds or { min = 0 }), default, about)
end

function M.number(default, about, bounds)
  return option("number", "X", bounded(units.number, bounds), default, about)
end

function M.time(default, about, bounds)
  return option("time", "TIME", bounded(units.time, bounds), default, about)
end

function M.rate(default, about)
  return option("rate", "RATE", units.rate, default, about)
end

function M.text(default, about)
  return option("text", "TEXT", units.text, default, about)
end

function M.choice(words, default, about)
  return option("choice", concat(words, "|"), units.choice(words), default or words[1], about)
end

function M.factor(default, about)
  return option("factor", "2x", units.factor, default, about)
end

function M.mix(default, about)
  return option("mix", "R:W", units.mix, default, about)
end

--- Off unless it is given.
function M.flag(about)
  return { option = "flag", about = about or "", default = false }
end

-- Definitions ------------------------------------------------------------------------------------

local FIELDS = { about = "string", options = "table", thresholds = "table", setup = "function",
  jobs = "table", teardown = "function", file = "boolean", writes = "boolean", qd = "number",
  bs = "number", dist = "string", space = "function", size = "function", ends = "boolean",
  paced = "boolean", procs = "boolean", arrivals = "boolean", warmup = "number" }
local JOB_FIELDS = { name = "string", main = "function", loop = "boolean", n = true, rate = true,
  metrics = "table" }

local function check_fields(t, fields, what)
  for key, value in pairs(t) do
    local wanted = fields[key]
    if not wanted then error(("%s has no field %s"):format(what, tostring(key)), 0) end
    if wanted ~= true and type(value) ~= wanted then
      error(("%s: %s is a %s, not a %s"):format(what, key, type(value), wanted), 0)
    end
  end
end

-- A list in a fixed order: as given, or clients before jobs that own their loop, then by name.
local function list_jobs(jobs)
  local list = {}
  for i, job in ipairs(jobs) do
    list[i] = job
  end
  if #list > 0 then return list end
  for name, job in pairs(jobs) do
    if type(job) ~= "table" then error(("job %s is no table"):format(tostring(name)), 0) end
    job.name = job.name or tostring(name)
    list[#list + 1] = job
  end
  sort(list, function(a, b)
    if (a.loop or false) ~= (b.loop or false) then return not a.loop end
    return a.name < b.name
  end)
  return list
end

local function check_defaults(t)
  local dist = t.dist or "uniform"
  local function within(name, low, high)
    local value = t[name] or low
    if not (value >= low and value <= high) or name ~= "warmup" and value % 1 ~= 0 then
      error(("the workload: %s is not between %s and %s"):format(name, low, high), 0)
    end
  end
  within("bs", 512, 67108864)
  within("qd", 1, 65536)
  within("warmup", 0, 86400)
  local known, reason = units.distribution(dist)
  if not known then error(("the workload: dist %q %s"):format(dist, reason), 0) end
  for _, expression in ipairs(t.thresholds or {}) do
    if type(expression) ~= "string" then error("the workload: a threshold is no string", 0) end
  end
end

local function check_job(job, what)
  if type(job) ~= "table" then error(what .. " is no table", 0) end
  check_fields(job, JOB_FIELDS, what)
  if not job.name then error(what .. " has no name", 0) end
  if not job.main then error(what .. " has no main function", 0) end
  for _, name in ipairs(job.metrics or {}) do
    if type(name) ~= "string" then error(what .. ": a metric is no string", 0) end
  end
end

local function check(t)
  if type(t) ~= "table" then error("a workload is a table", 0) end
  check_fields(t, FIELDS, "the workload")
  check_defaults(t)
  for name, o in pairs(t.options or {}) do
    if type(o) ~= "table" or not o.option then
      error(("option %s is not made by jdbfs.workload (W.int, W.size, ...)"):format(
        tostring(name)), 0)
    end
  end
  if not t.jobs then error("the workload has no jobs", 0) end
  t.jobs = list_jobs(t.jobs)
  if #t.jobs == 0 then error("the workload has no jobs", 0) end
  local seen = {}
  for i, job in ipairs(t.jobs) do
    local what = "job " .. tostring(type(job) == "table" and job.name or i)
    check_job(job, what)
    if seen[job.name] then error(what .. " is there twice", 0) end
    seen[job.name] = true
  end
  if t.file == nil then t.file = t.setup == nil end
  t.defined = true
  return t
end

--- Checks the table and gives it back. Fields: about, options, thresholds, setup(ctx) -> state,
--- jobs, teardown(ctx, state, result); file: whether ctx.file, the target, is wanted (default: when
--- there is no setup); writes: false when nothing is written to it; qd, bs, dist, warmup: other
--- defaults; size(opt, bs): the target's, without --size; space(opt, size): bytes of other files;
--- ends: the run is over when all jobs are, or at --time if that is given; paced: when all jobs
--- are, as they divide --time themselves; procs: false when --procs makes no sense, as what
--- coroutines share is one process's; arrivals: false when no loop calls ctx:arrivals.
function M.define(t)
  local ok, message = pcall(check, t)
  if not ok then error(message, 2) end
  return t
end

--- What a workload file returned, as a definition; nil and what is wrong with it.
function M.accept(value)
  if type(value) == "function" then
    return M.define({ jobs = { main = { main = value } } })
  end
  if type(value) ~= "table" then
    return nil, ("returns a %s: a workload is a table or a function"):format(type(value))
  end
  if value.defined then return value end
  local ok, result = pcall(check, value)
  if not ok then return nil, tostring(result) end
  return result
end

return M
