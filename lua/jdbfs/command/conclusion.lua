-- The end of a run: the result document, the exit status, the files of the run removed, everything
-- written that was asked for.

local format = require("jdbfs.command.format")
local machine = require("jdbfs.command.machine")
local progress = require("jdbfs.command.progress")
local result = require("jdbfs.command.result")
local screen = require("jdbfs.command.screen")
local status = require("jdbfs.command.status")
local threshold = require("jdbfs.command.threshold")

local ipairs, pairs = ipairs, pairs
local concat, insert = table.concat, table.insert

local function plan_of(self)
  local o, names, first = self.options, {}, self.workloads[1]
  for i, one in ipairs(self.workloads) do
    names[i] = one.name
  end
  local target = self.scratch.target
  return { workload = concat(names, " "), size = target and target.size or self.size,
    bs = first.bs, qd = first.qd, procs = o.procs > 1 and o.procs or nil,
    batch = o.batch and o.batch.text, rate = o.rate, arrival = o.rate and o.arrival,
    time_s = o.time, warmup_s = self.warmup or o.warmup, dist = first.dist.text, sync = first.sync,
    target = target and target.path or self.scratch.path, bytes_to_write = self.bytes_to_write }
end

local function sum_errors(jobs)
  local count = 0
  for _, job in ipairs(jobs) do
    for _, op in ipairs(job.ops) do
      for _, n in pairs(op.errors) do count = count + n end
    end
  end
  return count
end

local function document_of(self, failure)
  local document = result.new({ argv = self.argv, seed = self.options.seed, jobs = self.jobs,
    intervals = self.intervals, notes = self.notes, warnings = self.warnings })
  document.tool = { name = "jdbfs", version = self.info and self.info.version }
  document.env = self.info and machine.env(self.info, self.file_info) or {}
  document.plan = self.size and plan_of(self) or {}
  document.trust = self.trust and self.trust.elapsed > 0 and self.trust:document() or {}
  if failure or self.failed then document.trust.generator_limited = false end -- what it did, failed
  result.add_percentiles(document)
  return document
end

-- The exit status, and why a run that came to its end has failed: what stopped it outweighs what
-- it measured.
local function judge(self, document, failure)
  local errors = sum_errors(self.jobs)
  local failed = errors > 0 and format.plural(errors, "operation") .. " failed"
  if failed and (failure or self.interrupted or self.failed) then self:warn(failed) end
  local verifier, bad = self.scratch.verifier, 0
  if verifier then
    verifier:close()
    bad = verifier.bad
    self.notes[#self.notes + 1] = { "pages verified", verifier.checked }
    self.notes[#self.notes + 1] = { "bad pages", bad }
  end
  local broken = 0
  if #self.thresholds > 0 then broken = threshold.check(self.thresholds, document) end
  if self.interrupted then return status.INTERRUPTED end
  if failure then return failure.status end
  if errors > 0 or self.failed then return status.FAILED, self.failed or failed end
  if bad > 0 then return status.VERIFY end
  if broken > 0 or (self.unsteady and self.options["require-steady"]) then
    return status.THRESHOLD
  end
  return status.OK
end

local function say_result(self, document, failure)
  if self.options.quiet or self.options.json == "-" then return end
  if #document.jobs == 0 and (failure or self.interrupted or not self.trust) then return end
  self.out:write(screen.summary(document, progress.look(self.options, self.out)))
end

-- The files that were asked for; what cannot be written makes a good run a failed one.
local function write_result(self, document)
  if self.outputs then
    for _, complaint in ipairs(self.outputs:finish(document)) do
      if document.exit == status.OK then document.exit = status.FAILED end
      self.err:write("jdbfs: ", complaint, "\n")
    end
  elseif self.options.json == "-" then
    self.out:write(result.encode(document), "\n")
  end
end

-- Writes everything that is to be told. `failure`: { status, message } or nil.
local function conclude(self, failure)
  local document
  if self.scratch.target or self.trust then
    for _, message in ipairs(machine.warnings(self.options, self.info, self.file_info)) do
      insert(self.warnings, 1, message)
    end
  end
  document = document_of(self, failure)
  document.exit, document.error = judge(self, document, failure)
  if document.error then self.err:write("jdbfs: ", document.error, "\n") end
  if failure then document.error = failure.message end
  for _, complaint in ipairs(self.scratch:clean_up()) do
    if document.exit == status.OK then document.exit = status.FAILED end
    document.error = document.error or complaint
    self.err:write("jdbfs: ", complaint, "\n")
  end
  for _, path in ipairs(self.scratch.kept) do
    if not self.options.quiet then self.err:write("jdbfs: kept ", path, "\n") end
  end
  say_result(self, document, failure)
  if not self.repeated then write_result(self, document) end
  return document
end

return { conclude = conclude, write_result = write_result }
