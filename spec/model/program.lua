-- Makes a program from a seed: {seed =, outside =, steps = {...}}. A step is plain data with an
-- `op`; a step whose file, buffer or log is not there when its turn comes is left out by the
-- session, so any part of a program is a program.

local new_random = require("model.random")
local text = require("model.text")

local M = { ops = {} }

local FAMILIES = {
  files = require("model.files"), buffers = require("model.buffers"),
  names = require("model.names"), logs = require("model.logs"),
  streams = require("model.streams"), tasks = require("model.tasks"),
}
for _, family in pairs(FAMILIES) do
  for name, op in pairs(family.ops) do
    assert(not M.ops[name], "two steps with one name")
    M.ops[name] = op
  end
end

local PAGE = 4096
local SHARED = { file = 9, pages = 8 }
local OUTSIDE_MIX = { { "files", 50 }, { "buffers", 16 }, { "names", 14 }, { "logs", 2 },
  { "streams", 4 }, { "tasks", 1 } }
local TASK_MIX = { { "files", 46 }, { "buffers", 12 }, { "names", 12 }, { "logs", 2 },
  { "streams", 5 }, { "tasks", 8 } }
local SHARED_OPS = { { "read_at", 3 }, { "read_upto", 2 }, { "write_at", 6 }, { "read", 3 },
  { "read_many", 2 }, { "write_many", 3 }, { "sync_data", 1 }, { "size", 1 } }

local function context(r, outside)
  return {
    r = r, outside = outside, home = "", top = ".", names = { "a", "b", "c", "d" },
    dirs = { "d", "e", "e/f" }, movable = { "d", "e", "e/f", "g" },
    files = { 1, 2, 3 }, bufs = { 1, 2, 3 }, logs = { 1, 2 }, log_names = { "log1", "log2" },
    sizes = {}, unaligned = {},
  }
end

local function add(list, ctx, op, step)
  step = step or M.ops[op].make(ctx)
  step.op = op
  list[#list + 1] = step
  return step
end

local function weights_of(family, ctx)
  return ctx.outside and family.weights_outside or family.weights
end

local function add_one(list, ctx, family)
  local op = ctx.r:weighted(weights_of(family, ctx))
  local step = M.ops[op].make(ctx)
  if family ~= FAMILIES.tasks and not M.ops[op].guarded and ctx.r:one_in(5) then
    step.via = ctx.r:pick(text.VIA)
    -- In place the log cannot wait for its other appenders.
    if family == FAMILIES.logs then step.via = nil end
  end
  if op == "preallocate" and ctx.r:one_in(3) then -- to the end of the block the file ends in
    local size = ctx.r:below(8 * PAGE)
    add(list, ctx, "truncate", { f = step.f, len = size })
    step.len = math.floor((size + PAGE - 1) / PAGE) * PAGE
  end
  if step.b_off and family == FAMILIES.tasks then -- it needs a file of some size, and memory
    local path = ctx.home .. ctx.names[step.f % 5]
    add(list, ctx, "open", { f = step.f, how = "open_rw", path = path })
    add(list, ctx, "truncate", { f = step.f, len = 16 * PAGE })
    add(list, ctx, "buffer", { b = step.b, size = 8 * PAGE })
    ctx.sizes[step.b] = 8 * PAGE
  end
  add(list, ctx, op, step)
end

-- Two handles of one file.
local function add_pair(list, ctx)
  local path = ctx.home .. ctx.names[1]
  for i = 1, 2 do
    add(list, ctx, "close", { f = ctx.files[i] })
    local step = add(list, ctx, "open", M.ops.open.make(ctx))
    step.f, step.path, step.how = ctx.files[i], path, "open_rw"
    if step.o then step.o.exclusive = nil end
    if step.o and step.o.lock then step.o.lock = "shared" end
  end
end

-- Steps of one kind come together: a log with one record has little to go wrong.
local function add_any(list, ctx)
  local mix = ctx.outside and OUTSIDE_MIX or TASK_MIX
  local family = FAMILIES[ctx.r:weighted(mix)]
  if family == FAMILIES.files and ctx.r:one_in(12) then add_pair(list, ctx) end
  if family == FAMILIES.logs then
    ctx.log = ctx.r:pick(ctx.logs)
    add(list, ctx, "log")
    for _ = 1, ctx.r:between(2, 12) do add_one(list, ctx, family) end
    ctx.log = nil
  else
    for _ = 1, ctx.r:between(1, 2) do add_one(list, ctx, family) end
  end
end

local function begin(list, ctx)
  for _, b in ipairs({ ctx.bufs[1], ctx.bufs[2] }) do
    local pages = ctx.r:pick({ 1, 2, 4, 8 })
    ctx.sizes[b] = pages * PAGE
    add(list, ctx, "buffer", { b = b, size = pages * PAGE })
    add(list, ctx, "set", { b = b, off = 0, len = pages * PAGE, seed = ctx.r:below(1000) })
  end
  local o = ctx.r:one_in(3) and { mode = 384 } or nil
  add(list, ctx, "open", {
    f = ctx.files[1], how = "open_rw", path = ctx.home .. ctx.names[1], o = o,
  })
end

-- One of several tasks: files, buffers, names and a directory of its own.
local function own_list(r, k, steps)
  local home = ("t%d/"):format(k)
  local ctx = context(r, false)
  ctx.home, ctx.top = home, ("t%d"):format(k)
  ctx.dirs = { home .. "d", home .. "e" }
  ctx.movable = ctx.dirs
  ctx.files = { 10 * k + 1, 10 * k + 2 }
  ctx.bufs = { 10 * k + 1, 10 * k + 2 }
  ctx.logs, ctx.log_names = { 10 * k }, { [10 * k] = home .. "log" }
  local shared = setmetatable({
    files = { SHARED.file }, shared = true, logs = { 9 }, unaligned = {},
    first = (k - 1) * SHARED.pages, last = k * SHARED.pages,
  }, { __index = ctx })
  local list = {}
  add(list, ctx, "mkdir", { path = ctx.top })
  begin(list, ctx)
  for _ = 1, steps do
    if r:one_in(4) then
      local step = add(list, shared, r:weighted(SHARED_OPS))
      if r:one_in(6) then step.via = r:pick(text.VIA) end
    elseif r:one_in(8) then
      add(list, shared, "append")
    else
      add_any(list, ctx)
    end
  end
  return list
end

local function add_tasks(list, ctx, steps)
  local r = ctx.r
  local count = r:between(2, 4)
  local step = { lists = {}, drive = ctx.outside and r:one_in(2) and "step" or "join" }
  add(list, ctx, "open", { f = SHARED.file, how = r:pick({ "open_rw", "create", "open_wal" }),
    path = "shared" })
  add(list, ctx, "truncate", { f = SHARED.file, len = 4 * SHARED.pages * PAGE })
  if r:one_in(2) then
    add(list, ctx, "log", { l = 9, name = "log9", o = { segment_size = 65536 } })
  end
  for k = 1, count do step.lists[k] = own_list(r, k, r:between(3, steps)) end
  add(list, ctx, "tasks", step)
  add(list, ctx, "close", { f = SHARED.file })
  add(list, ctx, "log_close", { l = 9 })
end

--- The program of that seed, of about that many steps; `tasks`: with several tasks in any case.
function M.make(seed, steps, tasks)
  local r = new_random(seed)
  local program = { seed = seed, outside = r:one_in(3), steps = {} }
  local ctx = context(r, program.outside)
  local list = program.steps
  begin(list, ctx)
  if r:one_in(3) then
    add(list, ctx, "mkdir", { path = r:pick(ctx.dirs) })
  end
  if tasks then add_tasks(list, ctx, steps) end
  while #list < steps do
    add_any(list, ctx)
    if r:one_in(40) then add_tasks(list, ctx, math.floor(steps / 3)) end
  end
  return program
end

--- Steps of a program, those of its tasks among them.
function M.count(list)
  local n = 0
  for _, step in ipairs(list) do
    n = n + 1
    for _, inner in ipairs(step.lists or {}) do n = n + M.count(inner) end
  end
  return n
end

return M
