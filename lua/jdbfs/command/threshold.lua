-- Thresholds: expressions over a result that decide the exit status.
--
--   [job.]metric[.stat] OP value[unit] [abort [after 5s]]
--
-- OP is < <= > >= ==. The metric is an operation, a name timed by the script, or a counter; stat
-- is p50 to p99.999, mean, max, min, rate, count or sum; ".service" behind metric or stat asks for
-- the service time instead of the response time. Of the whole run there are iops, bw, errors,
-- sustained and lag.p99. A figure without samples, or with too few for its percentile, fails.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local result = require("jdbfs.command.result")

local concat = table.concat
local ipairs, tonumber, type = ipairs, tonumber, type

local GLOBALS = { iops = "rate", bw = "bytes", errors = "count", sustained = "truth",
  ["lag.p99"] = "time" }
local STATS = { mean = "value", max = "value", min = "value", sum = "plain", rate = "rate",
  count = "count" }
local UNITS = {
  ns = { "time", 1 }, us = { "time", 1e3 }, ms = { "time", 1e6 }, s = { "time", 1e9 },
  [""] = { "plain", 1 }, ["/s"] = { "rate", 1 },
  k = { "factor", 1e3, 1024 }, m = { "factor", 1e6, 1048576 }, g = { "factor", 1e9, 1073741824 },
}
-- What each dimension takes, told when something else was given.
local WANTED = {
  time = "a time with its unit (ns, us, ms, s): 5ms",
  rate = "a rate: 500, 70k, 1.5m",
  bytes = "bytes per second: 200m, 1g (powers of 1024)",
  count = "a number without a unit",
  truth = "true or false",
  plain = "a number without a unit",
}

local OPERATORS = {
  ["<"] = function(a, b) return a < b end,
  ["<="] = function(a, b) return a <= b end,
  [">"] = function(a, b) return a > b end,
  [">="] = function(a, b) return a >= b end,
  ["=="] = function(a, b) return a == b end,
}

-- Parsing ----------------------------------------------------------------------------------------

-- Splits "client.commit.p99.service" into the fields of t. A percentile holds a dot of its own.
local function parse_left(t, left)
  if GLOBALS[left] then
    t.global, t.dimension = left, GLOBALS[left]
    return t
  end
  t.latency = "response"
  local function strip_latency(name)
    for _, latency in ipairs({ "service", "response" }) do
      local rest = name:match("^(.+)%." .. latency .. "$")
      if rest then
        t.latency, t.latency_given = latency, true
        return rest
      end
    end
    return name
  end
  local name = strip_latency(left)
  local rest, percent = name:match("^(.*)%.p(%d+%.?%d*)$")
  if not rest then
    rest, t.stat = name:match("^(.*)%.(%a+)$")
    if not STATS[t.stat or ""] then rest, t.stat = name, nil end
  else
    t.stat, t.percent = "p" .. percent, tonumber(percent)
    if t.percent <= 0 or t.percent > 99.999 then
      return nil, ("p%s is not a percentile from p50 to p99.999"):format(percent)
    end
  end
  rest = strip_latency(rest)
  t.job, t.metric = rest:match("^([^.]+)%.([^.]+)$")
  if not t.metric then t.metric = rest end
  if not t.metric:match("^[%w_-]+$") then return nil, ("%q names no figure"):format(left) end
  t.dimension = t.percent and "time" or t.stat and STATS[t.stat] or "value"
  return t
end

local function parse_truth(t, right)
  local words = { ["true"] = true, yes = true, ["1"] = true, ["false"] = false, no = false,
    ["0"] = false }
  if t.operator ~= "==" or words[right] == nil then
    return nil, "sustained takes == true or == false"
  end
  t.limit = words[right]
  return t
end

local function parse_right(t, right)
  if t.dimension == "truth" then return parse_truth(t, right) end
  local number, suffix = right:match("^(%d*%.?%d+)%s*(.*)$")
  local value = number and tonumber(number)
  if not value then return nil, ("%q is not %s"):format(right, WANTED[t.dimension] or "a value") end
  local lower = suffix:lower()
  local per_second = lower:match("^([kmg])i?b?/s$")
  if t.dimension == "bytes" or t.dimension == "rate" then
    lower = per_second or lower:match("^([kmg])ib$") or lower
  end
  local unit = UNITS[lower]
  if not unit then return nil, ("%q is no unit; wanted is %s"):format(suffix, WANTED[t.dimension]
    or "ns, us, ms, s, k, m or g") end
  local kind, dimension = unit[1], t.dimension
  local fits = dimension == "value" and kind ~= "rate" or dimension == kind
    or kind == "plain" and (dimension ~= "time" or value == 0)
    or kind == "factor" and dimension ~= "time" or kind == "rate" and dimension == "bytes"
  if not fits then return nil, ("%q is not %s"):format(right, WANTED[dimension]) end
  t.limit = value * (dimension == "bytes" and unit[3] or unit[2])
  t.unit_kind = value == 0 and "any" or kind
  return t
end

local function parse_abort(t, rest)
  if rest == "" then return t end
  local number, unit = rest:match("^abort%s+after%s+(%d*%.?%d+)(%a+)$")
  local seconds = number and ({ ms = 1e-3, s = 1, m = 60 })[unit]
  if rest == "abort" then
    t.abort_after_s = 0
  elseif seconds then
    t.abort_after_s = tonumber(number) * seconds
  else
    return nil, ("%q is not \"abort\" or \"abort after 5s\""):format(rest)
  end
  return t
end

-- The threshold as a table, or nil and what is wrong. t.abort_after_s: a run that breaks it ends
-- early, but not before so many seconds.
local function parse(expression)
  local trimmed = expression:match("^%s*(.-)%s*$")
  local body, rest = trimmed:match("^(.-)%s+(abort.*)$")
  if not body then body, rest = trimmed, "" end
  local t = { expr = trimmed }
  local left, operator, right = body:match("^(%S-)%s*([<>=]=?)%s*(.+)$")
  if not left and body == "sustained" then left, operator, right = body, "==", "true" end
  local message
  if not left or left == "" then
    message = "it is not like read.p99 < 5ms"
  elseif not OPERATORS[operator] then
    message = ("%q is not < <= > >= or =="):format(operator)
  else
    t.operator = operator
    t, message = parse_left(t, left)
    if t then t, message = parse_right(t, right) end
    if t then t, message = parse_abort(t, rest) end
  end
  if message then return nil, ("threshold %q: %s"):format(trimmed, message) end
  return t
end

-- Whether a run can have the figure at all: known.jobs lists the jobs' names, known.metrics the
-- names of operations, timed names and counters, or is nil when they cannot be told beforehand.
-- True, or nil and what is wrong.
local function known(t, names)
  if t.global then return true end
  local function has(list, name)
    for _, each in ipairs(list) do
      if each == name then return true end
    end
  end
  local what, list, name
  if t.job and names.jobs and not has(names.jobs, t.job) then
    what, list, name = "job", names.jobs, t.job
  elseif names.metrics and not has(names.metrics, t.metric) then
    what, list, name = "figure", names.metrics, t.metric
  else
    return true
  end
  return nil, ("threshold %q: there is no %s %q; there are %s"):format(t.expr, what, name,
    concat(list, ", "))
end

-- Checking ---------------------------------------------------------------------------------------

-- A figure is { value =, unit =, low =, high = } or { reason = }.
local function too_few(percent, stat, n)
  return ("%s needs %s samples, has %s"):format(stat,
    format.count(distribution.samples_needed(percent)), format.count(n))
end

local function percentile_figure(t, dist)
  local value = distribution.percentile(dist, t.percent)
  if not value then return { reason = too_few(t.percent, t.stat, dist.n) } end
  local low, high = distribution.interval(dist, t.percent)
  return { value = value, unit = "ns", low = low, high = high }
end

-- Only some operations' lag is looked at; of few operations, of too few.
local function lag_figure(document)
  local value, n = (document.trust or {}).lag_p99_ns, 0
  if value then return { value = value, unit = "ns" } end
  for _, job in ipairs(document.jobs) do
    for _, op in ipairs(job.ops) do
      n = n + (not op.timed and op.lag and op.lag.n or 0)
    end
  end
  return { reason = n > 0 and too_few(99, "p99", n) or "the lag was not measured" }
end

local function global_figure(t, document)
  local total = result.totals(document)
  if t.global == "errors" then return { value = total.errors, unit = "" } end
  if t.global == "lag.p99" then return lag_figure(document) end
  if t.global == "sustained" then
    local sustained
    for _, job in ipairs(document.jobs) do
      if job.sustained ~= nil then sustained = sustained ~= false and job.sustained end
    end
    if sustained == nil then return { reason = "no job had a rate to sustain" } end
    return { value = sustained, unit = "" }
  end
  if total.n == 0 then return { reason = "nothing completed" } end
  if t.global == "iops" then return { value = total.rate, unit = "ops/s" } end
  return { value = total.bytes_s, unit = "bytes/s" }
end

-- op.dists and op.elapsed_s cover all jobs that the threshold asks about.
local function operation_figure(t, op)
  if t.stat == "count" then return { value = op.n, unit = "" } end
  if op.n == 0 then return { reason = "no samples" } end
  if t.stat == "rate" then return { value = op.rate, unit = "ops/s" } end
  local dist = distribution.merge(op.dists)
  if not dist or dist.n == 0 then
    return { reason = ("no samples of its %s time"):format(t.latency) }
  end
  if t.percent then return percentile_figure(t, dist) end
  local value = ({ mean = dist.sum_ns / dist.n, max = dist.max_ns, min = dist.min_ns })[t.stat]
  if not value then
    return { reason = ("which figure: %s.p99, .mean, .max, .rate, .count?"):format(t.metric) }
  end
  if t.unit_kind ~= "time" and t.unit_kind ~= "any" then
    return { reason = "a time needs its unit: " .. WANTED.time }
  end
  return { value = value, unit = "ns" }
end

local function counter_figure(t, counter)
  if t.percent then return { reason = t.metric .. " is a counter and has no percentiles" } end
  if t.unit_kind == "time" then return { reason = t.metric .. " is a counter, not a time" } end
  if t.stat == "count" then return { value = counter.n, unit = "" } end
  if counter.n == 0 then return { reason = "no samples" } end
  if t.stat == "rate" then return { value = counter.rate, unit = "ops/s" } end
  local value = counter[t.stat or "sum"]
  if t.stat == "mean" then value = counter.sum / counter.n end
  if value == nil then return { reason = ("it has no %s"):format(t.stat) } end
  return { value = value, unit = "" }
end

-- The operations or counters of that name, of one job or all of them together.
local function gather(t, document)
  local op, counter
  for _, job in ipairs(document.jobs) do
    local per_second = job.elapsed_s > 0 and 1 / job.elapsed_s or 0
    for _, each in ipairs((not t.job or job.name == t.job) and job.ops or {}) do
      if each.name == t.metric then
        op = op or { n = 0, rate = 0, dists = {} }
        op.n, op.rate = op.n + each.n, op.rate + each.n * per_second
        op.dists[#op.dists + 1] = each[t.latency]
      end
    end
    for _, each in ipairs((not t.job or job.name == t.job) and job.counters or {}) do
      if each.name == t.metric then
        counter = counter or { n = 0, sum = 0, rate = 0 }
        counter.n, counter.sum = counter.n + each.n, counter.sum + each.sum
        counter.rate = counter.rate + each.n * per_second
        if each.min and not (counter.min and counter.min < each.min) then counter.min = each.min end
        if each.max and not (counter.max and counter.max > each.max) then counter.max = each.max end
      end
    end
  end
  return op, counter
end

local function figure_of(t, document)
  if t.global then return global_figure(t, document) end
  local op, counter = gather(t, document)
  if op then return operation_figure(t, op) end
  if counter then return counter_figure(t, counter) end
  return { reason = ("no samples: nothing named %s was measured"):format(
    (t.job and t.job .. "." or "") .. t.metric) }
end

-- Judges one parsed threshold; gives its entry of document.thresholds.
local function judge(t, document)
  local figure = figure_of(t, document)
  local ok = figure.value ~= nil and OPERATORS[t.operator](figure.value, t.limit)
  return { expr = t.expr, ok = ok, value = figure.value, unit = figure.unit, low = figure.low,
    high = figure.high, reason = figure.reason }
end

-- Judges a list of expressions, or of parsed thresholds, into document.thresholds. Gives how many
-- failed, or nil and what is wrong with an expression.
local function check(list, document)
  local entries, failed = {}, 0
  for i, expression in ipairs(list) do
    local t, message = expression, nil
    if type(t) == "string" then t, message = parse(t) end
    if not t then return nil, message end
    entries[i] = judge(t, document)
    if not entries[i].ok then failed = failed + 1 end
  end
  document.thresholds = entries
  return failed
end

return {
  parse = parse,
  known = known,
  judge = judge,
  check = check,
}
