-- readme.lua README REPORT: puts the report between the marks of the README.

local BEGIN, END = "<!-- bench: made by make bench ARGS=--readme -->\n", "<!-- end of bench -->"

local function read(path)
  local stream = assert(io.open(path, "rb"))
  local text = stream:read("*a")
  stream:close()
  return text
end

local text, report = read(arg[1]), read(arg[2])
local _, from = text:find(BEGIN, 1, true)
local till = from and text:find(END, from, true)
if not till then error(arg[1] .. " has no marks: " .. BEGIN .. END, 0) end
local stream = assert(io.open(arg[1], "wb"))
assert(stream:write(text:sub(1, from), "\n", report, "\n", text:sub(till)))
assert(stream:close())
