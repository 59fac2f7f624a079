-- `jdbfs run`: reads the options, makes files, runs the workloads one after the other, writes the
-- result, and removes what was made, whatever happened in between.

local blame = require("jdbfs.command.blame")
local catalogue = require("jdbfs.command.catalogue")
local conclusion = require("jdbfs.command.conclusion")
local core = require("jdbfs.core")
local effects = require("jdbfs.command.effects")
local engines = require("jdbfs.command.engine")
local format = require("jdbfs.command.format")
local jdbfs = require("jdbfs")
local measured = require("jdbfs.command.measured")
local options = require("jdbfs.command.options")
local outputs = require("jdbfs.command.outputs")
local processes = require("jdbfs.command.processes")
local progress = require("jdbfs.command.progress")
local result = require("jdbfs.command.result")
local scratch = require("jdbfs.command.scratch")
local status = require("jdbfs.command.status")
local threshold = require("jdbfs.command.threshold")
local trust = require("jdbfs.command.trust")
local units = require("jdbfs.command.units")
local verified = require("jdbfs.command.verified")

local ipairs, next, pairs, pcall, setmetatable = ipairs, next, pairs, pcall, setmetatable
local tostring, type, xpcall = tostring, type, xpcall
local collectgarbage, concat, time = collectgarbage, table.concat, os.time
local ceil, max = math.ceil, math.max

local ROWS_MAX = 1000 -- intervals of a run, unless --interval asks for more

local Run = {}
Run.__index = Run

function Run:warn(message)
  self.warnings[#self.warnings + 1] = message
end

-- What the engine calls --------------------------------------------------------------------------

-- How far the run is: measured seconds, or operations.
local function timing_of(self, engine)
  local o = self.options
  if engine.phase ~= "run" then
    local total = o.steady and o["warmup-max"] or o.warmup
    return { done = engine.interval_at, total = total }
  end
  if o.ops then return { done = o.ops - (engine.ops_left or 0), total = o.ops } end
  local done = jdbfs.now() - engine.from.now
  return { done = done, total = o.time, left = max(0, o.time - done) }
end

function Run:add_interval(engine, rows, seconds)
  if seconds <= 0 then return end
  if self.part then return self.part:rows(engine, rows, seconds) end
  for _, row in ipairs(rows) do
    self.intervals[#self.intervals + 1] = row
  end
  self.outputs:rows(rows, seconds)
  engine.timed = engine.timed or {}
  for _, job in ipairs(engine.jobs) do
    for name in pairs(job.timed) do engine.timed[name] = true end
  end
  self.progress:interval(engine, rows, seconds, timing_of(self, engine))
end

-- Of several processes this is the first, second, ...
function Run:part_index() return self.part and self.part.index or 1 end
function Run:part_count() return self.part and self.part.count or 1 end

function Run:begin_trust(engine) self.trust:begin(engine) end
function Run:end_trust(engine) self.trust:finish(engine) end

-- Whether a threshold with `abort` is broken by what was measured so far.
function Run:should_abort(engine, kept)
  if not kept or not self.aborting then return false end
  local elapsed = jdbfs.now() - engine.from.now
  local so_far
  for _, t in ipairs(self.thresholds) do
    if t.abort_after_s and elapsed >= t.abort_after_s then
      so_far = so_far or self:partial(engine)
      local entry = threshold.judge(t, so_far)
      if not entry.ok and entry.value ~= nil then
        self:warn(("stopped: %s is broken"):format(t.expr))
        return true
      end
    end
  end
  return false
end

-- A document of the running workload, for thresholds that abort.
function Run:partial(engine)
  local till = engine.till
  engine.till = { now = jdbfs.now() }
  local document = result.new({ jobs = {} })
  for i, job in ipairs(engine.jobs) do
    document.jobs[i] = measured.document_job(engine, job)
  end
  engine.till = till
  return document
end

-- Before the run ---------------------------------------------------------------------------------

local function choose_backend(name)
  if not name then return end
  local called, done, message = pcall(jdbfs.setup, { backend = name })
  if not called then status.usage("--backend %s: %s", name, tostring(done):gsub("^.-: ", "")) end
  -- An in-process second run finds the queue made: the same backend is then no matter.
  if not done and jdbfs.info().backend ~= name then
    status.usage("--backend %s: %s", name, tostring(message))
  end
end

-- What a threshold may be about. A job that does not list its metrics may have any.
local function add_names(names, jobs)
  for _, job in ipairs(jobs) do
    names.jobs[#names.jobs + 1] = job.name
    if not job.metrics then names.metrics = nil end
    for _, name in ipairs(names.metrics and job.metrics or {}) do
      names.metrics[#names.metrics + 1] = name
    end
  end
end

local function parse_thresholds(self)
  local list, names = {}, { jobs = {}, metrics = {} }
  for _, one in ipairs(self.workloads) do
    add_names(names, one.definition.jobs)
    for _, expression in ipairs(one.definition.thresholds or {}) do
      list[#list + 1] = expression
    end
  end
  for _, expression in ipairs(self.options.threshold or {}) do
    list[#list + 1] = expression
  end
  for i, expression in ipairs(list) do
    local t, message = threshold.parse(expression)
    if t then
      local known, why = threshold.known(t, names)
      if not known then t, message = nil, why end
    end
    if not t then status.usage("%s", message) end
    self.thresholds[i] = t
    self.aborting = self.aborting or t.abort_after_s ~= nil
  end
end

-- The defaults that a workload's definition and the command line agree on.
local function settle(self, one)
  local o, d = self.options, one.definition
  one.bs = o.bs or d.bs or 4096
  one.qd = o.qd or d.qd or 32
  one.sync = o.sync or "none"
  one.dist = o.dist or units.distribution(d.dist or "uniform")
  one.writes = d.writes ~= false
  one.opt = one.values
end

local function check_block(self, one, target)
  local info, message = target.raw:info()
  if not info then status.fail(status.FAILED, message) end
  for _, name in ipairs({ "read_alignment", "write_alignment" }) do
    local unit = self.options.buffered and 1 or info[name] or 1
    if one.bs % unit ~= 0 then
      status.usage("--bs %s is not a multiple of %s, the %s of this file", format.bytes(one.bs),
        format.bytes(unit), (name:gsub("_", " ")))
    end
  end
  self.file_info = self.file_info or info
end

local function needs_target(self)
  for _, one in ipairs(self.workloads) do
    if one.definition.file then return true end
  end
  return false
end

-- Bytes, as a function of a workload's definition gives them.
local function bytes_of(what, f)
  local bytes = blame.call(f)
  if type(bytes) ~= "number" or not (bytes >= 0 and bytes < 2 ^ 53) or bytes % 1 ~= 0 then
    status.fail(status.FAILED, ("%s gave %s, no number of bytes"):format(what, tostring(bytes)))
  end
  return bytes
end

-- The size that a workload asks for, or nil.
local function wanted_size(self)
  local size
  for _, one in ipairs(self.workloads) do
    local wanted = one.definition.size
    if wanted then
      size = max(size or 0, bytes_of(one.name .. ": size", function()
        return wanted(one.values, one.bs)
      end))
    end
  end
  return size
end

-- Sizes, space and the target; refuses before anything is written.
local function plan(self)
  local o, target, others, bs, writes = self.options, 0, 0, 512, false
  for _, one in ipairs(self.workloads) do
    settle(self, one)
    bs = max(bs, one.definition.file and one.bs or 512)
    writes = writes or (one.definition.file and one.writes)
  end
  local named = o.file and jdbfs.exists(o.file)
  self.size = o.size or wanted_size(self) or (named and 0 or self.scratch:default_size(bs))
  if needs_target(self) and not named then
    if self.size < bs or self.size % bs ~= 0 then
      status.usage("a file of %s does not hold a whole number of blocks of %s",
        format.bytes(self.size), format.bytes(bs))
    end
    target = self.size
  end
  for _, one in ipairs(self.workloads) do
    local space = one.definition.space
    if space then
      others = others + bytes_of(one.name .. ": space", function()
        return space(one.values, self.size, one)
      end)
    end
  end
  self.bytes_to_write = target + others
  if o.file then self.scratch:check_space(target, self.scratch:place()) end
  self.scratch:check_space(o.file and others or target + others, o.dir)
  self.target_bs, self.target_writes = bs, writes
end

-- The parent has looked at space and sizes.
local function plan_part(self)
  local bs, writes = 512, false
  for _, one in ipairs(self.workloads) do
    settle(self, one)
    bs = max(bs, one.definition.file and one.bs or 512)
    writes = writes or (one.definition.file and one.writes)
  end
  self.size, self.target_bs, self.target_writes = self.part.size, bs, writes
end

-- What --dry-run says.
local function describe(self)
  local names, o = {}, self.options
  for i, one in ipairs(self.workloads) do
    names[i] = one.name
  end
  local place = o.file or o.dir .. "/jdbfs-XXXXXX" .. (needs_target(self) and "/data" or "")
  return ("runs %s on %s: writes %s of files first, then %s of warm-up and %s with %s (%s)"):format(
    concat(names, ", "), place, format.bytes(self.bytes_to_write),
    o.steady and o.steady.text or ("%gs"):format(o.warmup),
    o.ops and ("%.0f iterations"):format(o.ops) or ("%gs each"):format(o.time),
    self.info.backend, self.info.features)
end

-- The run ----------------------------------------------------------------------------------------

local function fill(self, target)
  if target.filled then return end
  self.progress:phase("fill", format.bytes(target.size))
  local called, done, message = pcall(jdbfs.run, function() return self.scratch:fill(target) end)
  if core.signalled() then
    self.interrupted = true
    return
  end
  if not called then blame.fail(done) end
  if not done then status.fail(status.FAILED, tostring(message)) end
end

-- Labels of jobs are their names, or workload-job where another workload has the same one.
local function label_jobs(self, engine)
  for _, job in ipairs(engine.jobs) do
    if self.labels[job.label] then job.label = engine.name .. "-" .. job.name end
    self.labels[job.label] = true
  end
end

-- With --verify all workloads work on pages of the same size.
local function make_verifier(self, target, bs)
  if not self.options.verify then return end
  if self.info.backend == "null" then
    status.usage("--verify: the backend null keeps nothing that could be verified")
  end
  if self.options.state and self.workloads[1].sync == "none" then
    status.usage("--state notes what is durable: it needs --sync")
  end
  local verifier = self.scratch.verifier
  if verifier and verifier.bs ~= bs then
    status.usage("--verify: the workloads' blocks differ; --bs makes them the same")
  end
  self.scratch.verifier = verifier or verified.new(self, target, bs, self.file_info)
end

-- One of several processes: the parent has made and filled the target.
local function share_target(self)
  local part = self.part
  local stat = jdbfs.stat(part.target)
  local raw, message = (self.target_writes and jdbfs.open_rw or jdbfs.open)(part.target,
    { direct = self.scratch:direct(), must_exist = true,
      device = stat and stat.type == "block device", dsync = scratch.DSYNC[self.options.sync] })
  if not raw then status.fail(status.FAILED, message) end
  self.scratch.opened[#self.scratch.opened + 1] = raw
  self.scratch.target = { raw = raw, path = part.target, size = part.size, filled = true,
    exists = true, writable = self.target_writes }
end

local function run_workload(self, one)
  local target
  if one.definition.file then
    target = self.scratch:open_target(self.size, self.target_bs, self.target_writes)
    check_block(self, one, target)
    make_verifier(self, target, one.bs)
    fill(self, target)
    if self.interrupted then return end
  end
  if self.options.procs > 1 and not self.part then return processes.perform(self, one, target) end
  local engine = blame.call(function()
    return engines.new({ run = self, name = one.name, definition = one.definition, opt = one.opt,
      target = target, size = target and target.size or self.size, bs = one.bs, qd = one.qd,
      sync = one.sync, dist = one.dist })
  end)
  label_jobs(self, engine)
  self.warmup = max(self.warmup or 0, engine.warmup)
  collectgarbage()
  local called, failure = pcall(engine.perform, engine)
  local documented, jobs = pcall(engine.document_jobs, engine)
  for _, job in ipairs(documented and jobs or {}) do
    self.jobs[#self.jobs + 1] = job
  end
  self.progress:clear()
  pcall(engine.close, engine)
  if core.signalled() then self.interrupted = true end
  if self.part then
    local told, why = xpcall(function()
      if not called then blame.fail(failure, engine) end
    end, status.explain)
    self.part:over(self, documented and jobs or {}, not told and why or nil)
  elseif not called then
    blame.fail(failure, engine)
  end
  self.unsteady = self.unsteady or false
end

-- Warns of a workload whose jobs, the list's from the first on, have nothing to show.
local function check_measured(self, one, first)
  local why = self.jobs[first] and "no operation, and nothing timed or counted"
    or "it ended before its warm-up did (--warmup)"
  for i = first, #self.jobs do
    local job = self.jobs[i]
    if #job.counters > 0 then return end
    for _, op in ipairs(job.ops) do
      if op.n > 0 or next(op.errors) then return end
    end
  end
  self:warn(("%s: nothing was measured: %s"):format(one.name, why))
end

local function perform(self)
  choose_backend(self.part and self.part.backend or self.options.backend)
  local info, message = jdbfs.info()
  if not info then status.fail(status.FAILED, message) end
  self.info = info
  local batch = self.options.batch or { submit = 0, wait = 0 }
  core.batching(batch.submit, batch.wait)
  parse_thresholds(self)
  if self.part then
    self.aborting = false
    plan_part(self)
  else
    processes.check(self)
    plan(self)
  end
  if self.options["dry-run"] then
    self.out:write(describe(self), "\n")
    return
  end
  if not self.part then self.outputs = outputs.open(self.options, self.out) end
  core.catch_signals(true)
  self.trust = trust.new()
  if self.part and self.part.target ~= "" then
    share_target(self)
  elseif needs_target(self) then
    local target = self.scratch:open_target(self.size, self.target_bs, self.target_writes)
    self.file_info = target.raw:info()
    local durability = self.file_info and self.file_info.durability
    self.trust.device = durability and durability.device
  end
  for _, one in ipairs(self.workloads) do
    local first = #self.jobs + 1
    if not self.interrupted then run_workload(self, one) end
    local cut = self.interrupted or self.failed or self.unsteady and self.options["require-steady"]
    if not (cut or self.part) then check_measured(self, one, first) end
  end
end

local M = {}

local function new(args, out, err, part)
  local values, workloads = options.split(args, 1, catalogue.load)
  if #workloads == 0 then
    for i, name in ipairs(catalogue.DEFAULT) do
      workloads[i] = catalogue.load(name)
      workloads[i].values = options.defaults(workloads[i].options)
    end
  end
  local seen = {}
  for _, one in ipairs(workloads) do
    if seen[one.name] then status.usage("workload %s is named twice", one.name) end
    seen[one.name] = true
  end
  effects.check(values, workloads)
  -- A day in seconds would be a document of gigabytes.
  if not values.given.interval then values.interval = max(1, ceil(values.time / ROWS_MAX)) end
  if values.steady and values.steady.seconds < 3 * values.interval then
    status.usage("--steady %s looks at three intervals at least, and one is %gs",
      values.steady.text, values.interval)
  end
  if values.seed == "random" then
    values.seed = core.random(time(), core.now_ns() % 2 ^ 40, 1):int(0, 2 ^ 32)
  end
  if part then
    values.dir, values.seed, values.quiet, values.json = part.dir, part.seed, true, nil
    values.ops, values["max-written"] = part:share(values.ops), part:share(values["max-written"])
  end
  local argv = { "run" }
  for i, word in ipairs(args) do argv[i + 1] = word end
  local self = setmetatable({ options = values, workloads = workloads, argv = argv, out = out,
    err = err, warnings = {}, notes = {}, intervals = {}, jobs = {}, thresholds = {}, labels = {},
    part = part }, Run)
  self.scratch = scratch.new(values)
  self.progress = progress.new(values, err)
  return self
end

local function run(self)
  local err = self.err
  local performed, failure = xpcall(function() return perform(self) end, status.explain)
  if self.crew then self.crew:close() end
  self.progress:clear()
  if not performed and self.interrupted then performed, failure = true, nil end
  local concluded, document = pcall(conclusion.conclude, self, not performed and failure or nil)
  core.catch_signals(false)
  core.timing(false)
  if self.info then core.batching(0, 0) end
  if not concluded then
    self.scratch:clean_up()
    status.fail(status.FAILED, tostring(document))
  end
  if not performed then err:write("jdbfs: ", tostring(failure.message), "\n") end
  if self.interrupted and #self.jobs == 0 then
    err:write("jdbfs: interrupted before anything was measured\n")
  end
  return document
end

-- Runs; gives the document, which was also written as the options say. part: this is one of several
-- processes (worker.lua), and tells its parent instead.
function M.run(args, out, err, part)
  return run(new(args, out, err, part))
end

-- Whether these words are a run that can be tried: a misuse is told as by run.
function M.check(args, out, err)
  new(args, out, err)
end

-- What outweighs the other of two exit statuses: an interruption, then failures, then thresholds.
local RANK = { [status.INTERRUPTED] = 5, [status.USAGE] = 4, [status.FAILED] = 3,
  [status.VERIFY] = 2, [status.THRESHOLD] = 1, [status.OK] = 0 }

-- --repeat: runs one after the other, and one document of all, in the files of the first.
local function run_repeatedly(args, out, err, first)
  for _, kind in ipairs({ "csv", "live-json", "hgrm", "html" }) do
    if first.options[kind] then
      status.usage("--%s is of one run: with --repeat there is --json", kind)
    end
  end
  local whole, self = nil, first
  for i = 1, first.options["repeat"] do
    if i > 1 then
      self = new(args, out, err)
      if self.options.json ~= "-" then self.options.json = nil end
    end
    self.repeated = true
    local document = run(self)
    if not whole then
      whole, document.runs = document, {}
    else
      whole.runs[i - 1] = document
      if RANK[document.exit] > RANK[whole.exit] then whole.exit = document.exit end
    end
    if RANK[document.exit] > RANK[status.VERIFY] then break end
  end
  conclusion.write_result(first, whole)
  return whole.exit
end

function M.main(args, out, err)
  local self = new(args, out, err)
  local o = self.options
  if o["repeat"] > 1 and not o["dry-run"] then return run_repeatedly(args, out, err, self) end
  return run(self).exit
end

return M
