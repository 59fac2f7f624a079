-- What an engine has measured, as jobs of the result document and as teardown gets it.

local ipairs, max = ipairs, math.max

local function iterations(job)
  local sum = 0
  for i, ctx in ipairs(job.contexts) do
    sum = sum + ctx.iter - (job.before[i] or 0)
  end
  return sum
end

local function counters_of(job)
  local list = {}
  for i, c in ipairs(job.counters) do
    list[i] = { name = c.name, n = c.n, sum = c.sum, min = c.min, max = c.max }
  end
  return list
end

local function document_job(engine, job)
  local elapsed = engine.till.now - engine.from.now
  local out = { name = job.label, n = job.n, elapsed_s = elapsed, ops = {},
    counters = counters_of(job) }
  for i, track in ipairs(job.meter:totals()) do
    out.ops[i] = { name = track.name, n = track.n, bytes = track.bytes, errors = track.errors,
      timed = job.timed[track.name] or nil, response = track.response, service = track.service,
      lag = track.lag }
  end
  if job.arrivals and job.till then
    local planned = max(job.till - engine.from.now, 1e-9)
    out.offered = job.offered_count / planned
    out.achieved = iterations(job) / elapsed
    out.backlog_max, out.late_at_end = job.backlog_max, job.late_at_end
    -- A backlog of more than a hundredth of all arrivals does not come from one stall at the end.
    out.sustained = job.late_at_end <= max(10, job.n, job.offered_count / 100)
  end
  return out
end

-- What teardown gets: result[job][counter or operation], with n, sum, mean, min, max.
local function teardown_view(jobs)
  local view = {}
  for _, job in ipairs(jobs) do
    local one = { n = job.n, elapsed_s = job.elapsed_s }
    for _, op in ipairs(job.ops) do
      local r = op.response
      one[op.name] = { n = op.n, bytes = op.bytes, response = r, service = op.service,
        mean = r.n > 0 and r.sum_ns / r.n or 0 }
    end
    for _, c in ipairs(job.counters) do
      one[c.name] = { n = c.n, sum = c.sum, min = c.min, max = c.max, mean = c.sum / c.n }
    end
    view[job.name] = one
  end
  return view
end

return { document_job = document_job, teardown_view = teardown_view }
