-- A program as a Lua script that runs on its own: lua script.lua DIRECTORY.

local text = require("model.text")

local HEAD = [[
-- seed %d: %s
local jdbfs = require("jdbfs")
local dir = assert(arg[1], "a directory to work in")
assert(jdbfs.mkdir(dir))
local f, b, l = {}, {}, {} -- files, buffers, logs

local function p(name) return dir .. "/" .. name end

local function text(seed, n)
  local parts = {}
  for i = 1, 61 do parts[i] = string.char((seed * 7919 + i * i * 31 + i) %% 256) end
  return table.concat(parts):rep(math.floor(n / 61) + 1):sub(1, n)
end

local function show(line, ...)
  local words = {}
  for i = 1, select("#", ...) do
    local v = (select(i, ...))
    words[i] = type(v) == "string" and #v > 60 and #v .. " bytes" or tostring(v)
  end
  print(line .. ": " .. table.concat(words, ", "))
  return (...)
end
]]

local function one_line(v)
  return (tostring(v or ""):gsub("%s*\n%s*", " "))
end

local function write_step(out, ops, step, indent, failing)
  if step == failing.step then
    out[#out + 1] = indent .. "-- expected: " .. one_line(failing.want)
    out[#out + 1] = indent .. "-- got: " .. one_line(failing.got)
  end
  local source, into = text.of_step(ops, step)
  source = source:gsub("\n", "\n" .. indent)
  local line = ("show(%q, %s)"):format(step.op, source)
  if ops[step.op].guarded and step == failing.step then
    line = ("show(%q, pcall(function() return %s end))"):format(step.op, source)
  end
  if into then line = ("%s = %s or %s"):format(into, line, into) end
  out[#out + 1] = indent .. line
end

local function write_tasks(out, ops, step, indent, failing)
  out[#out + 1] = indent .. "local tasks = {}"
  for i, list in ipairs(step.lists) do
    out[#out + 1] = ("%stasks[%d] = jdbfs.spawn(function()"):format(indent, i)
    for _, inner in ipairs(list) do write_step(out, ops, inner, indent .. "  ", failing) end
    out[#out + 1] = indent .. "end)"
  end
  out[#out + 1] = indent .. "for i = 1, #tasks do tasks[i]:join() end"
end

--- The text of the script, with what was expected where it fails.
return function(program, ops, failing)
  local out = { HEAD:format(program.seed, one_line(failing.why)) }
  local indent = program.outside and "" or "  "
  if not program.outside then out[#out + 1] = "jdbfs.run(function()" end
  for _, step in ipairs(program.steps) do
    local write = step.lists and write_tasks or write_step
    write(out, ops, step, indent, failing)
  end
  if not failing.step then
    out[#out + 1] = indent .. ("-- at the end: %s: %s %s"):format(
      failing.op, one_line(failing.why), one_line(failing.got))
  end
  if not program.outside then out[#out + 1] = "end)" end
  return table.concat(out, "\n") .. "\n"
end
