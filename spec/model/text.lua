-- Lua source of a step's parts: what is run is exactly what a script prints.

local M = {}

function M.lit(v)
  if type(v) == "number" then
    if v ~= v then return "0 / 0" end
    if v == math.huge then return "math.huge" end
    if v == -math.huge then return "-math.huge" end
    return v == math.floor(v) and ("%.0f"):format(v) or ("%.17g"):format(v)
  elseif type(v) == "string" then
    return ("%q"):format(v)
  elseif type(v) == "table" then
    local words, keys = {}, {}
    for key in pairs(v) do keys[#keys + 1] = key end
    table.sort(keys)
    for i, key in ipairs(keys) do words[i] = key .. " = " .. M.lit(v[key]) end
    return "{ " .. table.concat(words, ", ") .. " }"
  end
  return tostring(v)
end

--- Text that is put in as it is.
function M.raw(s)
  return { raw = s }
end

--- name(a, b, ...): the first n arguments, without the nils at the end.
function M.call(name, n, ...)
  local words, args = {}, { ... }
  while n > 0 and args[n] == nil do n = n - 1 end
  for i = 1, n do
    local v = args[i]
    words[i] = type(v) == "table" and v.raw or M.lit(v)
  end
  return name .. "(" .. table.concat(words, ", ") .. ")"
end

function M.file(slot) return ("f[%d]"):format(slot) end
function M.buf(slot) return ("b[%d]"):format(slot) end
function M.log(slot) return ("l[%d]"):format(slot) end
function M.path(name) return M.raw(("p(%q)"):format(name)) end

--- Content that a seed and a length describe. Its period is a prime, so nothing that is moved or
--- cut looks right.
function M.content(seed, n)
  if n == 0 then return "" end
  local parts = {}
  for i = 1, 61 do parts[i] = string.char((seed * 7919 + i * i * 31 + i) % 256) end
  local period = table.concat(parts)
  return period:rep(math.floor(n / 61) + 1):sub(1, n)
end

function M.content_call(seed, n)
  return M.raw(("text(%d, %d)"):format(seed, n))
end

-- Ways to run a call in a task that must not change what it gives.
local VIA = {
  coroutine = "coroutine.wrap(function() return %s end)()", -- completes in place
  wrap = "jdbfs.wrap(function() return %s end)()",
  pcall = "select_from_2(jdbfs.pcall(function() return %s end))",
  timeout = "jdbfs.timeout(60, function() return %s end)",
  spawn = "jdbfs.spawn(function() return %s end):join()",
}
M.VIA = { "coroutine", "wrap", "pcall", "timeout", "spawn" }

--- A step's expression, and where its value goes ("f[1]") or nil.
function M.of_step(ops, step)
  local source, into = ops[step.op].text(step)
  local via = step.via and VIA[step.via]:gsub("select_from_2", "(function(_, ...) return ... end)")
  if via then source = via:gsub("%%s", function() return source end) end
  return source, into
end

--- A number that is no offset and no length.
M.BAD = { -1, 0.5, 4096.25, 0 / 0, math.huge, -math.huge, 2 ^ 63, 2 ^ 64, 1e300 }

function M.is_bad(v)
  return v ~= v or v < 0 or v >= 2 ^ 63 or v ~= math.floor(v)
end

return M
