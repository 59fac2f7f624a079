-- What the benches ask of a shell: quote(text), and capture(command), what it writes.

local M = {}

function M.quote(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

function M.capture(command)
  local pipe = assert(io.popen(command))
  local output = pipe:read("*a")
  pipe:close()
  return output
end

return M
