-- Where a refusal stands behind its `if` on one line, a hook that sees lines cannot tell whether it
-- was made. `make coverage` runs copies of the modules in which it has a line of its own.
-- coverage-split.lua FILE: prints the copy.

local M = {}

--- Calls f(line, opcode) for each instruction of a chunk.
function M.instructions(path, f)
  local listing = assert(io.popen("luac5.4 -l -p '" .. path .. "'"))
  for text in listing:lines() do
    local line, opcode = text:match("^%s*%d+%s+%[(%d+)%]%s+(%u[%u%d_]*)")
    if line then f(tonumber(line), opcode) end
  end
  listing:close()
end

local REFUSALS = {
  "^return nil", "^return false", "^error%(", "fail[%w_]*%(", "usage%(", "refuse%(", "damaged%(",
  "abort%(", "^return wrong", "^return missing", "message, err", "complain",
}

local function refuses(text)
  for _, pattern in ipairs(REFUSALS) do
    if text:find(pattern) then return true end
  end
  return false
end

--- The copy as a list of { line = its number in the file, text =, whole = that of the file,
--- refusal = whether it is one }.
function M.copy(path)
  local code, copy, number = {}, {}, 0
  M.instructions(path, function(line) code[line] = true end) -- no comment, no string
  for text in io.lines(path) do
    number = number + 1
    local condition, body = text:match("^(.-%f[%w]then) (%S.*)$")
    if code[number] and body and refuses(body) then
      copy[#copy + 1] = { line = number, text = condition, whole = text }
      copy[#copy + 1] = { line = number, text = body, whole = text, refusal = true }
    else
      copy[#copy + 1] = { line = number, text = text, whole = text }
    end
  end
  return copy
end

if arg[1] and arg[0]:find("coverage-split", 1, true) then
  for _, line in ipairs(M.copy(arg[1])) do print(line.text) end
end

return M
