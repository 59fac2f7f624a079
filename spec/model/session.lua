-- Runs a program on jdbfs and on the model, step by step, and compares: every result, and at the
-- end every byte, every directory, every counter.
--
-- run(program, o) gives nil, or the failure {step =, want =, got =, why =, signature =}, and the
-- number of operations compared. o:
--   dir      where it may work; made, and removed when all went well
--   jdbfs    the module under test
--   ops      steps; another table of them plants a mistake in the model
--   plain    also look with io.open and lfs, which a simulated disk has nothing for
--   facts    see M.facts

local lfs = require("lfs")
local files = require("model.files")
local names = require("model.names")
local text = require("model.text")
local values = require("model.values")

local M = {}
local STOP = "the model test stops here"
local WHOLE = 4194304 -- files up to this size are compared whole

-- ---- running text -------------------------------------------------------------------------------

local compile
if rawget(_G, "setfenv") then
  compile = function(source, env)
    local f = assert(loadstring(source))
    setfenv(f, env)
    return f
  end
else
  compile = function(source, env) return assert(load(source, "step", "t", env)) end
end

local function fail(S, step, failure)
  failure.step, failure.op = step, step and step.op or failure.op
  local words = (failure.op .. ": " .. failure.why):gsub("%%", "")
  failure.signature = words:gsub("%-?%d[%d%.]*", "N"):gsub("[%%'\"].*", "")
  S.failure = S.failure or failure
  error(STOP, 0)
end

local function outcome(ok, ...)
  return { ok = ok, n = select("#", ...), ... }
end

-- Only what cannot wait is run under pcall: plain 5.1 has no yield across it.
local function call(op, f)
  if op.guarded then return outcome(pcall(f)) end
  return outcome(true, f())
end

local perform

local function perform_tasks(S, step)
  local jdbfs, tasks = S.env.jdbfs, {}
  for _, l in pairs(S.model.l) do l.log.last_settled = l.log.last end
  for i, list in ipairs(step.lists) do
    tasks[i] = assert(jdbfs.spawn(function()
      for _, inner in ipairs(list) do perform(S, inner) end
    end))
  end
  if step.drive == "step" and S.outside then
    while jdbfs.pending() > 0 do assert(jdbfs.step(1)) end
  end
  for _, task in ipairs(tasks) do task:join() end
  for _, l in pairs(S.model.l) do
    local log = l.log
    log.last_settled = nil
    for n = log.first, log.last do
      if not log.records[n] then fail(S, step, { why = "a number was left out: " .. n }) end
    end
  end
end

perform = function(S, step)
  S.at = step
  if step.op == "tasks" then return perform_tasks(S, step) end
  local op, model = S.ops[step.op], S.model
  if not op.ready(model, step) then return end
  local want = op.expect(model, step)
  local source, into = text.of_step(S.ops, step)
  local got = call(op, compile("return " .. source, S.env))
  S.compared = S.compared + 1
  local agreed, why = values.match(want, got)
  if not agreed then
    fail(S, step, { want = values.describe(want), got = values.describe_got(got), why = why })
  end
  if into and got.ok and got[1] ~= nil then
    local name, slot = into:match("^(%a)%[(%d+)%]$")
    S.env[name][tonumber(slot)] = got[1]
  end
  if agreed.apply then agreed.apply(got) end
end

-- ---- comparing the end --------------------------------------------------------------------------

local function differ(S, op, why, path)
  fail(S, nil, { op = op, why = why, want = "the model's state", got = path })
end

local function check(S, ok, op, why, path)
  if not ok then differ(S, op, why or "failed", path) end
  return ok
end

local function compare_bytes(S, node, path, read, how)
  for _, part in ipairs(node.bytes:parts(WHOLE)) do
    local data, why = read(part[1], #part[2])
    local ok, difference = values.same(part[2], data)
    if not ok then
      differ(S, "content by " .. how, (difference or why) .. ", offset " .. part[1], path)
    end
    S.compared = S.compared + 1
  end
end

local function compare_open(S)
  for slot, h in pairs(S.model.f) do
    local f = S.env.f[slot]
    if not h.closed then
      local size = f:size()
      check(S, size == h.node.bytes.size, "size at the end", tostring(size), h.path)
      compare_bytes(S, h.node, h.path, function(off, n) return f:read(off, n) end, "handle")
    end
    check(S, f:close() == true, "close at the end", "not true", h.path)
    files.closed(h)
  end
end

local function compare_log(S, name, log)
  local l, message = S.jdbfs.log(S.model.path(name), { segment_size = 8192 })
  check(S, l, "log at the end", message, name)
  local found, n = l:recovery(), log.first
  check(S, found.clean and found.first == log.first and found.last == log.last,
    "recovery at the end", ("%s to %s, expected %s to %s"):format(
      tostring(found.first), tostring(found.last), tostring(log.first), tostring(log.last)), name)
  local cursor = l:records()
  local number, data = cursor:next()
  while number do
    check(S, number == n and data == log.records[n], "record at the end", "number " .. n, name)
    S.compared, n = S.compared + 1, n + 1
    number, data = cursor:next()
  end
  check(S, n == log.last + 1, "records at the end", data or "one is missing", name)
  cursor:close()
  check(S, l:close() == true, "close of a log", "not true", name)
end

local function compare_logs(S)
  for slot, l in pairs(S.model.l) do
    check(S, S.env.l[slot]:close() == true, "close of a log", "not true", l.name)
  end
  for name, log in pairs(S.model.logs) do compare_log(S, name, log) end
end

local function plain_read(path)
  return function(off, n)
    local f = io.open(path, "rb")
    if not f then return nil, "io.open fails" end
    f:seek("set", off)
    local data = n == 0 and "" or f:read(n) or ""
    f:close()
    return data
  end
end

local function compare_file(S, node, path)
  local size = S.jdbfs.size(path)
  check(S, size == node.bytes.size, "size of a name", tostring(size), path)
  local f, message = S.jdbfs.open(path, { direct = S.facts.require and "require" or "off" })
  check(S, f, "open at the end", message, path)
  compare_bytes(S, node, path, function(off, n) return f:read(off, n) end, "name")
  f:close()
  -- The C library of Windows seeks in 32 bits.
  local far = package.config:sub(1, 1) == "\\" and node.bytes.size >= 2 ^ 31
  if S.plain and not far then
    check(S, lfs.attributes(path, "size") == node.bytes.size, "size by lfs", "differs", path)
    compare_bytes(S, node, path, plain_read(path), "io.open")
  end
end

local function is_log(S, name)
  for log_name in pairs(S.model.logs) do
    if log_name == name then return true end
  end
end

-- What is there beside the names of the model: temporary files, a name that came back.
local function compare_listing(S, node, path, prefix)
  local listed = S.jdbfs.ls(path)
  local ok, why = values.same_value(names.files_of(node), listed)
  check(S, ok, "ls at the end", why, path)
  if not S.plain then return end
  local extra = {}
  for name in lfs.dir(path) do
    local known = name == "." or name == ".." or node.dir[name] or is_log(S, prefix .. name)
    if not known then extra[#extra + 1] = name end
  end
  check(S, #extra == 0, "directory at the end", "there is also " .. table.concat(extra, " "), path)
end

local function compare_tree(S, node, path, prefix)
  compare_listing(S, node, path, prefix)
  for name, child in pairs(node.dir) do
    local below = path .. "/" .. name
    if child.dir then
      check(S, S.jdbfs.exists(below), "directory at the end", "is not there", below)
      compare_tree(S, child, below, prefix .. name .. "/")
    else
      compare_file(S, child, below)
    end
  end
end

local function remove_tree(S, node, path)
  for name, child in pairs(node.dir) do
    local below = path .. "/" .. name
    if child.dir then remove_tree(S, child, below) else assert(S.jdbfs.remove(below)) end
  end
  if S.plain then lfs.rmdir(path) end
end

local function remove_log(S, name)
  local path = S.model.path(name)
  for _, file in ipairs(assert(S.jdbfs.ls(path))) do assert(S.jdbfs.remove(path .. "/" .. file)) end
  if S.plain then lfs.rmdir(path) end
end

local function compare_end(S)
  S.at = nil
  compare_open(S)
  compare_logs(S)
  compare_tree(S, S.model.root, S.dir, "")
  for name in pairs(S.model.logs) do remove_log(S, name) end
  remove_tree(S, S.model.root, S.dir)
end

-- ---- counters -----------------------------------------------------------------------------------

local function collect()
  if rawget(_G, "jit") then require("jit").flush() end
  collectgarbage()
  collectgarbage()
end

local function open_descriptors(dir)
  local count = 0
  if not lfs.attributes("/proc/self/fd") then return 0 end
  for fd in lfs.dir("/proc/self/fd") do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target")
    if target and target:find(dir .. "/", 1, true) then count = count + 1 end
  end
  return count
end

local function settle(jdbfs)
  for _ = 1, 500 do
    local s = jdbfs.stats()
    if s.in_flight + s.waiting + s.abandoned == 0 then return end
    jdbfs.step(0.01)
  end
end

local function compare_counters(S, before)
  local jdbfs = S.jdbfs
  check(S, jdbfs.pending() == 0, "counters", "pending is " .. jdbfs.pending())
  local s = jdbfs.stats()
  for _, name in ipairs({ "in_flight", "waiting", "abandoned", "tasks" }) do
    check(S, s[name] == 0, "counters", ("%s is %d"):format(name, s[name]))
  end
  check(S, s.submitted == s.completed, "counters", "submitted and completed differ")
  S.env = nil
  local open = open_descriptors(S.dir)
  if before or open > 0 then collect() end
  if open > 0 then open = open_descriptors(S.dir) end -- files that were left to the collector
  check(S, open == 0, "counters", open .. " descriptors are open")
  if not before then return end
  local after = jdbfs.stats()
  for _, name in ipairs({ "files", "buffers" }) do
    check(S, after[name] <= before[name], "counters", ("%d %s are left"):format(
      after[name] - before[name], name))
  end
end

-- ---- a program ----------------------------------------------------------------------------------

local function new_model(S)
  return {
    root = names.new_dir(), f = {}, b = {}, l = {}, logs = {}, facts = S.facts,
    path = function(name) return S.dir .. "/" .. name end,
    -- What jdbfs has in memory where the contract does not say what must be there.
    peek = function(slot, off, n) return S.env.b[slot]:string(off, n) end,
  }
end

-- What the system and the file system let one do with an open file: give back blocks in its middle,
-- reserve some behind its end and in holes, take its name away, rename the directory that it is in,
-- or an empty one onto another; and whether they say that a file is too large, or something else.
local function probe(jdbfs, dir, facts)
  local function missing(_, _, err) return err ~= nil and err.kind == "Unsupported" end
  assert(jdbfs.mkdir(dir .. "/facts"))
  local f = assert(jdbfs.create(dir .. "/facts/f", { direct = "off", mode = 384 }))
  facts.modes = assert(f:stat()).mode == 384
  assert(f:preallocate(65536, "zero"))
  facts.punch = not missing(f:punch(4096, 8192))
  facts.reserve = not missing(f:preallocate(131072, "keep_size"))
  assert(f:truncate(262144))
  facts.fills_holes = not missing(f:preallocate(262144))
  local _, _, err = f:write_at(jdbfs.buffer(4096), 2 ^ 62)
  facts.vague_limits = err and err.name ~= "EFBIG" and err.name ~= "EINVAL" -- in wine
  facts.open_directories = jdbfs.rename(dir .. "/facts", dir .. "/facts2") == true
  if facts.open_directories then assert(jdbfs.rename(dir .. "/facts2", dir .. "/facts")) end
  assert(jdbfs.mkdir(dir .. "/facts/one") and jdbfs.mkdir(dir .. "/facts/two"))
  facts.replaces_directories = jdbfs.rename(dir .. "/facts/one", dir .. "/facts/two") == true
  assert(jdbfs.create(dir .. "/facts/g", { direct = "off" })):close()
  facts.open_names = jdbfs.rename(dir .. "/facts/g", dir .. "/facts/f") == true
  jdbfs.remove(dir .. "/facts/f")
  facts.open_names = facts.open_names and jdbfs.exists(dir .. "/facts/f") == false
  f:close()
  jdbfs.remove(dir .. "/facts/g")
end

--- What the model has to be told about a place: how each kind of open file must be aligned, which
--- permissions a new one has, and what `probe` finds.
function M.facts(jdbfs, dir)
  local facts = {}
  for _, direct in ipairs({ "require", "prefer", "off" }) do
    local f, _, err = jdbfs.create(dir .. "/file", { direct = direct })
    if f then
      local info = assert(f:info())
      facts[direct] = {
        read = info.read_alignment, write = info.write_alignment, memory = info.memory_alignment,
        atomic = info.atomic,
      }
      facts.mode = assert(f:stat()).mode -- of a new file, by this process's umask
      f:close()
    else
      assert(err.kind == "Unsupported", tostring(err))
    end
  end
  jdbfs.remove(dir .. "/file")
  probe(jdbfs, dir, facts)
  return facts
end

-- Tasks are remembered, weakly: outside a run nobody ends those that a failure leaves behind.
local function environment(S)
  local jdbfs = setmetatable({}, { __index = S.jdbfs })
  function jdbfs.spawn(...)
    local task, message, err = S.jdbfs.spawn(...)
    S.spawned = S.spawned + 1
    S.tasks[S.spawned] = task
    return task, message, err
  end
  return {
    jdbfs = jdbfs, f = {}, b = {}, l = {}, p = S.model.path, text = text.content,
    assert = assert, pcall = pcall, error = error, ipairs = ipairs, math = math,
    type = type, coroutine = coroutine, collectgarbage = collectgarbage,
  }
end

local function run_all(S, program)
  for _, step in ipairs(program.steps) do perform(S, step) end
  compare_end(S)
end

-- Whatever happened, the next program finds nothing of this one.
local function clean_up(S)
  for _, task in pairs(S.tasks) do task:cancel() end
  for _ = 1, 100 do
    if S.jdbfs.pending() == 0 then break end
    pcall(S.jdbfs.step, 0.01)
  end
  for _, f in pairs(S.env and S.env.f or {}) do pcall(f.close, f) end
  for _, l in pairs(S.env and S.env.l or {}) do pcall(l.close, l) end
  S.env = nil
  settle(S.jdbfs)
  collect()
  settle(S.jdbfs)
end

function M.run(program, o)
  local S = {
    jdbfs = o.jdbfs, dir = o.dir, ops = o.ops, plain = o.plain, facts = o.facts,
    outside = program.outside, compared = 0, tasks = setmetatable({}, { __mode = "v" }),
    spawned = 0,
  }
  local before
  if o.counters then
    collect()
    before = o.jdbfs.stats()
  end
  assert(S.jdbfs.mkdir(S.dir))
  S.model = new_model(S)
  S.env = environment(S)
  local ok, message = pcall(function()
    if program.outside then run_all(S, program) else S.jdbfs.run(run_all, S, program) end
    settle(S.jdbfs)
    compare_counters(S, before)
  end)
  if ok then return nil, S.compared end
  if not S.failure then
    pcall(fail, S, S.at, { op = "the end", why = "raised " .. tostring(message), want = "no error",
      got = tostring(message) })
  end
  clean_up(S)
  return S.failure, S.compared
end

return M
