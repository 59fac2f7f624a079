-- Runs one workload: setup, jobs in coroutines, warm-up, measured time, stop, teardown; and gives
-- what was measured as jobs and intervals of the result document.
--
-- One task, the conductor, watches the clock, Ctrl-C and the limits. At the end the clients finish
-- their iteration; what they have in flight belongs to the measured time, as forgetting it would
-- forget exactly the slowest.

local context = require("jdbfs.command.context")
local core = require("jdbfs.core")
local jdbfs = require("jdbfs")
local measured = require("jdbfs.command.measured")

local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local error, ipairs, pairs, setmetatable, type = error, ipairs, pairs, setmetatable, type
local now, sleep, spawn = jdbfs.now, jdbfs.sleep, jdbfs.spawn

local TICK = 0.05 -- seconds between looks at the clock and for Ctrl-C
local GRACE = 30 -- seconds that coroutines have to end after the stop
local ERRORS_MAX = 100 -- a workload gives up after so many
local YIELD_EVERY = 256 -- iterations that may pass without an operation

local Engine = {}
Engine.__index = Engine

-- Coroutines -------------------------------------------------------------------------------------

local function count_down(engine)
  local left = engine.ops_left
  engine.ops_left = left - 1
  if left <= 1 then engine.live = false end
end

-- Iterations as fast as they end: nothing is counted or awaited here that the run did not ask for.
local function closed_loop(engine, job, ctx)
  local main, state, iterations = job.main, engine.state, 0
  while true do
    for _ = 1, YIELD_EVERY do
      if not engine.live then return end
      iterations = iterations + 1
      ctx.iter = iterations
      main(ctx, state)
    end
    jdbfs.yield()
  end
end

-- Iterations that wait for their arrival, or that --ops counts.
local function counted_loop(engine, job, ctx)
  local main, state, arrivals, idle = job.main, engine.state, job.arrivals, engine.idle
  local task, iterations = core.current(), 0
  while engine.live do
    if arrivals then
      idle[task] = true
      arrivals:next()
      idle[task] = nil
      if not engine.live then return end
    end
    iterations = iterations + 1
    ctx.iter = iterations
    if iterations % YIELD_EVERY == 0 then jdbfs.yield() end
    local counted = engine.ops_left and engine.phase == "run"
    main(ctx, state)
    if counted then count_down(engine) end
  end
end

-- One client: the loop, the due times and the stop belong to us.
local function client(engine, job, ctx)
  core.measure(job.meter)
  local loop = (job.arrivals or engine.ops_left) and counted_loop or closed_loop
  return loop(engine, job, ctx)
end

-- A job that owns its loop: main runs once.
local function owner(engine, job, ctx)
  core.measure(job.meter)
  return job.main(ctx, engine.state)
end

local function start_job(engine, job)
  local body = job.loop and owner or client
  local part = engine.run.part -- of several processes: coroutines are numbered through
  local before, all = part and (part.index - 1) * job.n or 0, part and part.count * job.n or job.n
  for id = 1, job.n do
    local ctx = context.new(engine, job, before + id, all)
    local task = spawn(body, engine, job, ctx)
    job.tasks[id], job.contexts[id] = task, ctx
  end
end

-- Figures ----------------------------------------------------------------------------------------

-- The rows of the interval that ends now, for all jobs; kept: they belong to the totals.
local function end_interval(engine, kept)
  local at, rows, ops, timed = now() - engine.started, {}, 0, 0
  for _, job in ipairs(engine.jobs) do
    local backlog
    if job.arrivals then
      local _, waiting = job.arrivals:state()
      backlog = waiting
    end
    for _, track in ipairs(job.meter:take(kept)) do
      rows[#rows + 1] = { t_s = at, warmup = not kept, job = job.label, op = track.name,
        n = track.n, bytes = track.bytes, errors = track.errors, backlog = backlog,
        response = track.response, service = track.service }
      if job.timed[track.name] then timed = timed + track.n else ops = ops + track.n end
    end
  end
  engine.run:add_interval(engine, rows, at - engine.interval_at)
  local seconds = max(at - engine.interval_at, 1e-9)
  engine.rates[#engine.rates + 1] = (ops > 0 and ops or timed) / seconds
  engine.interval_at = at
end

-- Clocks and counters at one moment.
local function take_marks()
  local process, thread = core.cpu()
  return { now = now(), cpu = process, thread = thread, stats = jdbfs.stats() }
end

-- Figures count from here: what was due earlier is in none of them.
local function begin_measuring(engine)
  end_interval(engine, false)
  engine.phase = "run"
  -- Without a warm-up nothing has run yet, though the first arrivals may be due already.
  local none = engine.warmup == 0 and not engine.run.options.steady
  local from = none and engine.started_ns or core.now_ns()
  for _, job in ipairs(engine.jobs) do
    job.meter:from(from)
    job.counters = {}
    if job.arrivals then job.arrivals:mark() end
    for i, ctx in ipairs(job.contexts) do
      job.before[i] = ctx.iter
    end
  end
  engine.from = take_marks()
  engine.run:begin_trust(engine)
end

-- What an open loop says about itself, at the moment of the stop.
local function note_arrivals(engine)
  for _, job in ipairs(engine.jobs) do
    if job.arrivals then
      local offered, backlog, backlog_max = job.arrivals:state()
      job.offered_count, job.late_at_end, job.backlog_max = offered, backlog, backlog_max
      job.till = now()
    end
  end
end

-- The conductor ----------------------------------------------------------------------------------

local function written_and_failed(engine)
  local written, failed = 0, 0
  for _, job in ipairs(engine.jobs) do
    local bytes, errors = job.meter:ever()
    written, failed = written + bytes, failed + errors
  end
  return written, failed
end

-- Limits that end a run early. Says whether it goes on.
local function within_limits(engine)
  local run, options = engine.run, engine.run.options
  if core.signalled() or (run.part and run.part:is_stopped()) then
    run.interrupted = true
    return false
  end
  local written, failed = written_and_failed(engine)
  if failed >= ERRORS_MAX then
    run.failed = ("%s: gave up after %d errors"):format(engine.name, failed)
    return false
  end
  if options["max-written"] and written >= options["max-written"] then
    run:warn(("%s: stopped by --max-written"):format(engine.name))
    return false
  end
  return engine.live
end

-- At each interval: the rows, the screen, the free space, thresholds that abort.
local function interval_passed(engine, kept)
  end_interval(engine, kept)
  if engine.run.scratch:is_full() then
    engine.run.failed = engine.name .. ": stopped, as the file system is nearly full"
    return false
  end
  return not engine.run:should_abort(engine, kept)
end

local function is_over(task)
  local state = task:status()
  return state == "done" or state == "failed" or state == "cancelled"
end

local function all_over(engine)
  for _, job in ipairs(engine.jobs) do
    for _, task in ipairs(job.tasks) do
      if not is_over(task) then return false end
    end
  end
  return true
end

-- Until `till`, or until `enough()` after an interval. Says whether the run goes on.
local function conduct(engine, till, kept, enough)
  local interval = engine.run.options.interval
  local next_row = engine.started + engine.interval_at + interval
  while within_limits(engine) do
    local at = now()
    if at >= next_row then
      if not interval_passed(engine, kept) then return false end
      if enough and enough() then return true end
      next_row = next_row + interval * max(1, ceil((at - next_row) / interval))
    end
    if at >= till then return true end
    if engine.ends and all_over(engine) then return false end
    sleep(max(0, min(TICK, till - at, next_row - at)))
  end
  return false
end

-- Whether the last rates lie close to their mean and do not drift.
local function is_steady(engine, steady)
  local count = ceil(steady.seconds / engine.run.options.interval)
  local rates = engine.rates
  if #rates < count or count < 3 then return false end
  local sum, weighted = 0, 0
  for i = 1, count do
    sum = sum + rates[#rates - count + i]
    weighted = weighted + rates[#rates - count + i] * (i - (count + 1) / 2)
  end
  local mean = sum / count
  for i = #rates - count + 1, #rates do
    if math.abs(rates[i] - mean) > steady.share * mean then return false end
  end
  local slope = weighted * 12 / (count * (count * count - 1))
  return math.abs(slope * count) < steady.share * mean
end

local function warm_up(engine)
  local options = engine.run.options
  engine.phase = "warm-up"
  if not options.steady then return conduct(engine, engine.started + engine.warmup, false) end
  local steady = false
  local going = conduct(engine, engine.started + options["warmup-max"], false, function()
    steady = is_steady(engine, options.steady)
    return steady
  end)
  engine.warmup = now() - engine.started
  if going and not steady then
    engine.run:warn(("%s: not steady after %gs"):format(engine.name, options["warmup-max"]))
    engine.run.unsteady = true
  end
  return going
end

-- Whether all that still run wait for each other: nobody comes to the barrier any more.
local function are_stuck(engine)
  local lists = { engine.children }
  for _, job in ipairs(engine.jobs) do lists[#lists + 1] = job.tasks end
  for _, list in ipairs(lists) do
    for _, task in ipairs(list) do
      if not context.parked[task] and not is_over(task) then return false end
    end
  end
  return true
end

-- Waits for tasks; those that only wait for work, or for a planned arrival, are ended.
local function end_tasks(engine, tasks)
  local deadline = now() + GRACE
  for _, task in ipairs(tasks) do
    while not is_over(task) do
      if engine.idle[task] or context.parked[task] and are_stuck(engine) then
        task:cancel()
      elseif now() > deadline then
        engine.run:warn(("%s: a coroutine did not end within %d s"):format(engine.name, GRACE))
        task:cancel()
        deadline = now() + 1
      end
      core.wait(task, TICK)
    end
  end
end

local function stop(engine)
  engine.live = false
  if engine.phase == "run" then note_arrivals(engine) end
  for _, loop in ipairs({ false, true }) do
    for _, job in ipairs(engine.jobs) do
      if job.loop == loop then end_tasks(engine, job.tasks) end
    end
    if not loop then
      end_tasks(engine, engine.children)
      engine.serving = false -- clients may have waited for these
    end
  end
  if engine.phase == "run" then
    engine.till = take_marks()
    end_interval(engine, true)
    engine.run:end_trust(engine)
  end
end

-- Planned arrivals of this process, from a moment in ns on. Each of several processes has a stream
-- of its own, and begins by its part of a gap later: constant gaps would else all end at once.
function Engine:arrivals(rate, job, number, from)
  local run = self.run
  local before = run:part_index() - 1
  return core.arrivals(rate, run.options.arrival,
    core.random(run.options.seed, job, number + before),
    from + before / run:part_count() / rate * 1e9)
end

-- Runs as a task.
local function perform(engine)
  local definition = engine.definition
  local ctx = engine.setup_context or context.new(engine, nil, 0, 1)
  engine.setup_context = ctx
  if definition.setup then
    engine.phase = "setup"
    engine.state = definition.setup(ctx)
  end
  if engine.run.part and not engine.run.part:line_up() then
    engine.run.interrupted = true
    return
  end
  engine.live, engine.serving, engine.phase = true, true, "warm-up"
  engine.started, engine.interval_at = now(), 0
  engine.started_ns = engine.run.part and engine.run.part.begins_ns or core.now_ns()
  for _, job in ipairs(engine.jobs) do
    if job.rate then
      job.arrivals = engine:arrivals(job.rate, job.number, 2 ^ 40, engine.started_ns)
    end
    start_job(engine, job)
  end
  if warm_up(engine) and not (engine.run.unsteady and engine.run.options["require-steady"]) then
    begin_measuring(engine)
    local length = engine.endless and math.huge or engine.run.options.time
    conduct(engine, engine.from.now + length, true)
  end
  stop(engine)
  engine.phase = "over"
  if engine.till then
    local jobs = engine:document_jobs()
    if definition.teardown then
      definition.teardown(ctx, engine.state, measured.teardown_view(jobs))
    end
  elseif definition.teardown then
    definition.teardown(ctx, engine.state, {})
  end
end

-- The jobs of the result document; after an error, what there is.
function Engine:document_jobs()
  local list = {}
  if not self.from then return list end
  if not self.till then
    self.till = take_marks()
    end_interval(self, true)
    self.run:end_trust(self)
  end
  for i, job in ipairs(self.jobs) do
    list[i] = measured.document_job(self, job)
  end
  return list
end

-- Which coroutine an error came from, or nil.
function Engine:failed_coroutine()
  for _, job in ipairs(self.jobs) do
    for id, task in ipairs(job.tasks) do
      local ctx = job.contexts[id]
      if task:status() == "failed" then return job.name, ctx.id, ctx.iter end
    end
  end
end

-- Runs the workload. Raises what the script raised; figures stay.
function Engine:perform()
  jdbfs.run(perform, self)
end

function Engine:close()
  for _, job in ipairs(self.jobs) do
    job.meter:close()
  end
end

local M = {}

-- A number of a job: itself, an option's name, or a function of ctx.
local function resolve(value, engine, what)
  if type(value) == "function" then
    engine.setup_context = engine.setup_context or context.new(engine, nil, 0, 1)
    value = value(engine.setup_context)
  end
  if type(value) == "string" then
    local given = engine.opt[value]
    if type(given) ~= "number" then
      error(("%s: there is no option %q with a number"):format(what, value), 0)
    end
    value = given
  end
  return value
end

local function new_job(engine, definition, number)
  local options, what = engine.run.options, "job " .. definition.name
  local n = resolve(definition.n, engine, what) or (definition.loop and 1) or engine.qd
  if type(n) ~= "number" or n < 1 or n > 65536 or floor(n) ~= n then
    error(("%s: n is no whole number from 1 to 65536"):format(what), 0)
  end
  local rate
  if not definition.loop and definition.rate ~= false then
    rate = resolve(definition.rate, engine, what) or options.rate
    if rate and not (type(rate) == "number" and rate >= 0 and rate < math.huge) then
      error(("%s: rate is no number of iterations a second"):format(what), 0)
    end
    rate = rate and rate / engine.run:part_count()
  end
  return { name = definition.name, label = definition.name, number = number, n = n,
    main = definition.main, loop = definition.loop or false, rate = rate ~= 0 and rate or nil,
    meter = core.meter(), tasks = {}, contexts = {}, before = {}, tracks = {}, timed = {},
    counters = {} }
end

-- o: run, name, definition, opt (values of its options), target, size, bs, qd, sync, dist.
function M.new(o)
  local engine = { idle = setmetatable({}, { __mode = "k" }), children = {}, rates = {},
    jobs = {}, live = false, phase = "new" }
  for key, value in pairs(o) do
    engine[key] = value
  end
  setmetatable(engine, Engine)
  engine.ops_left = engine.run.options.ops
  local definition, given = engine.definition, engine.run.options.given
  engine.warmup = given.warmup and engine.run.options.warmup or definition.warmup
    or engine.run.options.warmup
  engine.endless = definition.paced or (definition.ends or engine.ops_left) and not given.time
  engine.ends = definition.paced or definition.ends
  for i, job in ipairs(definition.jobs) do
    engine.jobs[i] = new_job(engine, job, i)
  end
  return engine
end

return M
