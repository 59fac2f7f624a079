-- Makes a failing program short: takes out steps as long as what is left fails in the same way.

local M = {}

local function without(list, from, count)
  local rest = {}
  for i, v in ipairs(list) do
    if i < from or i >= from + count then rest[#rest + 1] = v end
  end
  return rest
end

-- Delta debugging: halves, quarters, ... single entries, until nothing more can go.
-- `fails(list)` tries; gives the shortest list found.
local function minimise(list, fails, least)
  local size = math.floor(#list / 2)
  if size < 1 then size = 1 end
  while #list > least do
    local shorter, from = false, #list - size + 1
    while from + size > 1 and #list > least do
      if from < 1 then from = 1 end
      local rest = without(list, from, size)
      if fails(rest) then list, shorter = rest, true end
      from = from - size
    end
    if size == 1 and not shorter then break end
    if size > 1 then size = math.floor(size / 2) end
  end
  return list
end

local function copy(t, changes)
  local c = {}
  for k, v in pairs(t) do c[k] = v end
  for k, v in pairs(changes) do c[k] = v end
  return c
end

local function with_step(program, i, step)
  local steps = {}
  for k, v in ipairs(program.steps) do steps[k] = v end
  steps[i] = step
  return copy(program, { steps = steps })
end

-- The lists of a step of several tasks, and the steps of each.
local function minimise_tasks(program, i, fails)
  local step = program.steps[i]
  local function try(lists) return fails(with_step(program, i, copy(step, { lists = lists }))) end
  local lists = minimise(step.lists, try, 1)
  for k = 1, #lists do
    lists[k] = minimise(lists[k], function(list)
      local all = copy(lists, {})
      all[k] = list
      return try(all)
    end, 0)
  end
  return with_step(program, i, copy(step, { lists = lists }))
end

--- `run(program)` gives a failure or nil. The shortest program found that fails as `failure` does,
--- its failure, and how many were tried. Stops after `most` of them.
function M.shrink(program, failure, run, most)
  local tried, best = 0, { program, failure }
  local function fails(candidate)
    if tried >= most then return false end
    tried = tried + 1
    local found = run(candidate)
    if not found or found.signature ~= failure.signature then return false end
    best = { candidate, found }
    return true
  end
  local function steps_fail(steps) return fails(copy(program, { steps = steps })) end
  for _ = 1, 2 do
    minimise(program.steps, steps_fail, 1)
    program = best[1]
    for i, step in ipairs(program.steps) do
      if step.lists then minimise_tasks(program, i, fails) end
      program = best[1]
    end
  end
  return best[1], best[2], tried
end

return M
