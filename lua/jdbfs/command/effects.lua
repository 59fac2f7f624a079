-- Options of run that would have no effect are refused: who gives one counts on what it does.

local status = require("jdbfs.command.status")
local units = require("jdbfs.command.units")

local ipairs, type = ipairs, type

local function any(workloads, holds)
  for _, one in ipairs(workloads) do
    if holds(one.definition) then return true end
  end
  return false
end

-- of: which workloads are asked, default all.
local function any_job(workloads, holds, of)
  return any(workloads, function(definition)
    for _, job in ipairs(definition.jobs) do
      if holds(job) and (not of or of(definition)) then return true end
    end
    return false
  end)
end

local function has_target(definition) return definition.file end
local function writes(definition) return definition.file and definition.writes ~= false end
local function is_iterated(job) return not job.loop end

local function takes_rate(job)
  return not job.loop and (job.rate == nil or type(job.rate) == "function")
end

local function has_rate(job) return job.rate and not job.loop end
local function owns_loop(job) return job.loop end

-- Whether arrivals may be planned: by a rate, or by ctx:arrivals in a loop.
local function with_arrivals(o, list)
  return o.rate or any_job(list, has_rate)
    or any_job(list, owns_loop, function(definition) return definition.arrivals ~= false end)
end

local function takes_qd(job) return job.n == nil and not job.loop end

local function with_target(_, list) return any(list, has_target) end
local function with_writes(_, list) return any(list, writes) end

local function with_hot_pages(o, list)
  return any(list, function(definition)
    local dist = o.dist or units.distribution(definition.dist or "uniform")
    return definition.file and dist and dist.kind ~= "uniform" and dist.kind ~= "seq"
  end)
end

-- Option, where it has no effect, and whether that is not so: f(options, workloads).
local RULES = {
  { "file", "where no workload has a target", with_target },
  { "dist", "where no workload has a target", with_target },
  { "verify", "where no workload has a target", with_target },
  { "sync", "where no workload writes to the target", with_writes },
  { "state", "without --verify", function(o) return o.verify end },
  { "state", "where no workload writes to the target", with_writes },
  { "zipf-scatter", "without --dist zipf, pareto or hotspot", with_hot_pages },
  { "rate", "where each job has its own", function(_, list) return any_job(list, takes_rate) end },
  { "arrival", "without --rate", with_arrivals },
  { "ops", "where each job owns its loop", function(_, list)
    return any_job(list, is_iterated)
  end },
  { "qd", "where each job says how many coroutines it has", function(_, list)
    return any_job(list, takes_qd)
  end },
  { "warmup", "with --steady", function(o) return not o.steady end },
  { "warmup-max", "without --steady", function(o) return o.steady end },
  { "require-steady", "without --steady", function(o) return o.steady end },
}

local M = {}

-- Ends the command when an option was given for nothing.
function M.check(options, workloads)
  for _, rule in ipairs(RULES) do
    local name, where, has_effect = rule[1], rule[2], rule[3]
    local given = options.given[name] or options[name] == true
    if given and not has_effect(options, workloads) then
      status.usage("--%s has no effect %s", name, where)
    end
  end
end

return M
