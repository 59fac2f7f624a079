-- --procs: the same workload in several processes, each with a queue of its own, on one target.
--
-- The parent makes and fills the target, starts the processes (a queue cannot be inherited, so they
-- are started afresh), lets them begin at one moment, and adds up what they measured: histograms by
-- their buckets, so that percentiles are those of all samples. setup, teardown and whatever a
-- workload shares between its coroutines exist once in each process.
--
-- They talk by files in the scratch directory: messages N holds what process N says, a line each;
-- "go K" begins the K-th workload at the moment that it holds; "stop" ends all. A process that dies
-- is noticed by the line that its shell adds.

local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local status = require("jdbfs.command.status")

local ipairs, package, pairs, rawget = ipairs, package, pairs, rawget
local setmetatable, tostring, type = setmetatable, tostring, type
local concat, max, min = table.concat, math.max, math.min
local remove, rename = os.remove, os.rename
local open_stream, popen = io.open, io.popen

local POLL = 0.01 -- seconds between looks at the files
local HEAD_START = 50e6 -- ns from "go" to the beginning: all must have seen it

local Crew = {}
Crew.__index = Crew

local function quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- The program that runs this.
local function interpreter()
  local words, first = rawget(_G, "arg") or {}, 0
  while words[first - 1] do first = first - 1 end
  if first == 0 then status.usage("--procs: cannot tell which Lua runs this") end
  return words[first]
end

local function write_file(path, text)
  local file, message = open_stream(path .. ".new", "wb")
  if not file then status.fail(status.FAILED, message) end
  file:write(text)
  file:close()
  rename(path .. ".new", path)
end

-- Starts them; they set up the first workload and then wait.
local function start(run, target)
  local dir = run.scratch:dir()
  local crew = setmetatable({ dir = dir, list = {}, turn = 0 }, Crew)
  local words = {}
  for i = 2, #run.argv do words[i - 1] = ("%q"):format(run.argv[i]) end
  for i = 1, run.options.procs do
    local path = ("%s/messages %d"):format(dir, i)
    write_file(path, "")
    local code = ("package.path, package.cpath = %q, %q "
      .. "os.exit(require('jdbfs.command.worker').main({ %s }, { index = %d, count = %d, dir = %q, "
      .. "target = %q, size = %.0f, seed = %.0f, backend = %q }))"):format(package.path,
      package.cpath, concat(words, ", "), i, run.options.procs, dir, target and target.path or "",
      run.size, run.options.seed, run.info.backend)
    -- The shell outlives a process that is killed, and ignores what ends all of them.
    local command = ("trap '' INT TERM HUP; %s -e %s </dev/null; echo \"dead $?\" >>%s")
      :format(quote(interpreter()), quote(code), quote(path))
    crew.list[i] = { pipe = popen(command, "r"), path = path, file = open_stream(path, "rb"),
      text = "", number = i }
  end
  return crew
end

-- The next message of one, or nil when there is none yet: a word, and a table or text.
local function next_message(one)
  local line, rest = one.text:match("^([^\n]*)\n(.*)$")
  if not line then
    one.text = one.text .. (one.file:read("*a") or "")
    line, rest = one.text:match("^([^\n]*)\n(.*)$")
    if not line then return nil end
  end
  one.text = rest
  local word, body = line:match("^(%a+) ?(.*)$")
  return word, body:sub(1, 1) == "{" and json.decode(body) or body
end

-- Waits for one; what is not expected ends the run.
local function await(crew, run, one)
  while true do
    -- Before each message: on a slow machine there is always another one.
    if core.signalled() and not crew.stopped then
      run.interrupted = true
      crew:stop()
    end
    local word, body = next_message(one)
    if word == "failed" then
      status.fail(body.status, ("process %d: %s"):format(one.number, body.error))
    elseif word == "dead" then
      status.fail(status.FAILED, ("process %d ended with status %s"):format(one.number, body))
    end
    if word then return word, body end
    jdbfs.sleep(POLL)
  end
end

function Crew:stop()
  self.stopped = true
  write_file(self.dir .. "/stop", "")
end

-- Ends what still runs, and removes the files.
function Crew:close()
  if not self.stopped then self:stop() end
  for _, one in ipairs(self.list) do
    one.pipe:close() -- waits
    one.file:close()
    remove(one.path)
  end
  for turn = 1, self.turn do remove(("%s/go %d"):format(self.dir, turn)) end
  remove(self.dir .. "/stop")
end

-- Adding up --------------------------------------------------------------------------------------

local SUMS = { "n", "bytes", "backlog", "offered", "achieved", "backlog_max", "late_at_end" }

-- Adds the fields that are numbers of things; errors may be a number or by name.
local function add(into, from)
  for _, name in ipairs(SUMS) do
    if from[name] then into[name] = (into[name] or 0) + from[name] end
  end
  if type(from.errors) == "table" then
    into.errors = into.errors or {}
    for name, count in pairs(from.errors) do
      into.errors[name] = (into.errors[name] or 0) + count
    end
  elseif from.errors then
    into.errors = (into.errors or 0) + from.errors
  end
end

local function add_histograms(into, from)
  for _, kind in ipairs({ "response", "service", "lag" }) do
    if from[kind] then into[kind] = distribution.merge({ into[kind] or from[kind],
      into[kind] and from[kind] }) end
  end
end

-- The entry of a list with these fields equal; a new one when there is none.
local function entry(list, from, ...)
  for _, known in ipairs(list) do
    local same = true
    for _, name in ipairs({ ... }) do same = same and known[name] == from[name] end
    if same then return known end
  end
  local new = {}
  for _, name in ipairs({ ... }) do new[name] = from[name] end
  list[#list + 1] = new
  return new
end

local function add_rows(rows, more)
  for _, row in ipairs(more) do
    local sum = entry(rows, row, "job", "op")
    sum.t_s, sum.warmup = max(sum.t_s or 0, row.t_s), row.warmup
    add(sum, row)
    add_histograms(sum, row)
  end
end

local function add_counters(into, from)
  for _, c in ipairs(from) do
    local sum = entry(into, c, "name")
    sum.n, sum.sum = (sum.n or 0) + c.n, (sum.sum or 0) + c.sum
    sum.min, sum.max = min(sum.min or c.min, c.min), max(sum.max or c.max, c.max)
  end
end

-- The jobs of all processes as one; what took longest is how long it took.
local function add_jobs(jobs, more)
  for _, job in ipairs(more) do
    local sum = entry(jobs, job, "name")
    sum.ops, sum.counters = sum.ops or {}, sum.counters or {}
    sum.elapsed_s = max(sum.elapsed_s or 0, job.elapsed_s)
    add(sum, job)
    if job.sustained ~= nil then sum.sustained = sum.sustained ~= false and job.sustained end
    add_counters(sum.counters, job.counters)
    for _, op in ipairs(job.ops) do
      local all = entry(sum.ops, op, "name")
      all.timed = op.timed
      add(all, op)
      add_histograms(all, op)
    end
  end
end

local function value_text(value)
  return type(value) == "number" and format.count(value) or tostring(value)
end

-- A note that several have is one with all their values.
local function add_notes(run, notes, number)
  for _, note in ipairs(notes) do
    local known
    for _, each in ipairs(run.notes) do
      if number > 1 and each[1] == note[1] then known = each end
    end
    if known then known[2] = value_text(known[2]) .. ", " .. value_text(note[2])
    else run.notes[#run.notes + 1] = note end
  end
end

local function add_warnings(run, warnings)
  for _, warning in ipairs(warnings) do
    local told = false
    for _, known in ipairs(run.warnings) do told = told or known == warning end
    if not told then run:warn(warning) end
  end
end

-- A workload -------------------------------------------------------------------------------------

-- The next rows of one in `held`, or in `over` what it was told at its end.
local function listen(crew, run, one)
  if one.over or one.held then return end
  local word, body = await(crew, run, one)
  if word == "rows" then one.held = body
  elseif word == "over" then one.over = body end
end

-- One interval of all: the rows of each, as long as it goes on. Who measures already waits for
-- those who still warm up. False when all are over.
local function interval(crew, run, engine)
  local rows, seconds, going, warming = {}, 0, false, false
  for _, one in ipairs(crew.list) do
    listen(crew, run, one)
    warming = warming or one.held and one.held.phase ~= "run"
  end
  for _, one in ipairs(crew.list) do
    local body = one.held
    if body and not (warming and body.phase == "run") then
      one.held, going = nil, true
      engine.phase, engine.from = body.phase, engine.from or body.from and { now = body.from }
      for name in pairs(body.timed) do engine.timed[name] = true end
      add_rows(rows, body.rows)
      seconds, engine.interval_at = max(seconds, body.seconds), body.at
      engine.ops_left = nil
    end
  end
  if going then run:add_interval(engine, rows, seconds) end
  return going
end

local function begin(crew, run)
  crew.turn = crew.turn + 1
  for _, one in ipairs(crew.list) do
    one.over, one.held = nil, nil
    local word, body = await(crew, run, one)
    if word == "over" then one.over = body end -- it failed before it was ready
  end
  write_file(("%s/go %d"):format(crew.dir, crew.turn), ("%.0f"):format(core.now_ns() + HEAD_START))
end

local M = {}

-- Runs one workload in all processes; gives its jobs. Fails as the first process failed.
function M.perform(run, one, target)
  if not run.crew then run.crew = start(run, target) end
  local crew = run.crew
  local engine = { name = one.name, jobs = {}, timed = {}, phase = "warm-up", interval_at = 0 }
  begin(crew, run)
  run.trust:watch_device(true)
  while interval(crew, run, engine) do end -- luacheck: ignore 542
  run.trust:watch_device(false)
  local jobs, parts, failure = {}, {}, nil
  for i, each in ipairs(crew.list) do
    local body = each.over
    add_jobs(jobs, body.jobs)
    add_notes(run, body.notes, i)
    add_warnings(run, body.warnings)
    parts[i] = body.trust
    run.failed, run.unsteady = run.failed or body.failed, run.unsteady or body.unsteady
    run.interrupted = run.interrupted or body.interrupted
    failure = failure or body.error and { status = body.status,
      message = ("process %d: %s"):format(i, body.error) }
  end
  run.trust:add(parts)
  for _, job in ipairs(jobs) do
    job.n = job.n or 0
    run.jobs[#run.jobs + 1] = job
  end
  if failure then status.fail(failure.status, failure.message) end
end

-- Ends the command when these workloads cannot run in several processes.
function M.check(run)
  local o = run.options
  if o.procs == 1 then return end
  for _, one in ipairs(run.workloads) do
    if one.definition.procs == false then
      status.usage("--procs: %s is one process's", one.name)
    end
  end
  if o.verify then status.usage("--procs: --verify knows what one process wrote") end
  if run.aborting then status.usage("--procs: a threshold cannot abort several processes") end
  if run.info.backend == "sim" then status.usage("--procs: a simulated disk is one process's") end
  if package.config:sub(1, 1) == "\\" then status.usage("--procs: not on Windows") end
end

return M
