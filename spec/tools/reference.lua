-- The API reference in other forms, from lua/jdbfs/meta.lua. For any Lua from 5.1 on.
--
--   reference.lua man1 VERSION    jdbfs(1): the command, from its own help
--   reference.lua man3 VERSION    jdbfs(3): the module
--   reference.lua ldoc VERSION    Lua source with ldoc's tags
--
-- As a module (for specs) it gives parse(path): a list of sections { title, items }. An item is a
-- class { class, text, fields = { { name, type, text } } }, an alias { alias, text, values } or a
-- function { object, name, arguments, text, example, params, returns }. Texts are lists of
-- paragraphs; object "jdbfs" is the module, others are classes.

local M = {}

local function read_lines(path)
  local lines = {}
  for line in io.lines(path) do lines[#lines + 1] = line end
  return lines
end

-- ---- reading ------------------------------------------------------------------------------------

-- A type and what is said behind it. Types have no spaces but inside brackets and in unions of
-- functions.
local function split_type(text)
  local depth, at = 0, 1
  while at <= #text do
    local c = text:sub(at, at)
    if c:match("[%(%{%[<]") then depth = depth + 1
    elseif c:match("[%)%}%]>]") then depth = depth - 1
    elseif c == " " and depth == 0 then
      local before, behind = text:sub(at - 1, at - 1), text:sub(at + 1, at + 1)
      if before ~= ":" and before ~= "," and behind ~= "|" then break end
    end
    at = at + 1
  end
  return text:sub(1, at - 1), (text:sub(at + 1):gsub("^#%s*", ""))
end

local function new_block() return { text = {}, params = {}, returns = {}, fields = {} } end

local function add_text(block, line)
  local text = block.text
  if block.in_example then
    if line == "```" then block.in_example = false
    else block.example = (block.example or "") .. line .. "\n" end
  elseif line == "```lua" then
    block.in_example = true
  elseif line == "" then
    if #text > 0 then text[#text + 1] = "" end
  elseif #text == 0 then
    text[1] = line
  else
    text[#text] = text[#text] == "" and line or text[#text] .. " " .. line
  end
end

local tags = {}

function tags.class(block, rest)
  block.class = rest:match("^[%w.]+")
end

function tags.alias(block, rest)
  block.alias, block.values = rest:match("^[%w.]+"), {}
end

function tags.field(block, rest)
  local name, more = rest:match("^(%S+)%s+(.*)$")
  local kind, text = split_type(more)
  if name:sub(-1) == "?" then name, kind = name:sub(1, -2), kind .. "?" end
  block.fields[#block.fields + 1] = { name = name, type = kind, text = text }
  block.last = block.fields[#block.fields]
end

function tags.param(block, rest)
  local name, more = rest:match("^(%S+)%s+(.*)$")
  local kind, text = split_type(more)
  block.params[#block.params + 1] = { name = name, type = kind, text = text }
  block.last = block.params[#block.params]
end

tags["return"] = function(block, rest)
  local kind, text = split_type(rest)
  block.returns[#block.returns + 1] = { type = kind, text = text }
  block.last = block.returns[#block.returns]
end

local function add_line(block, line)
  local tag, rest = line:match("^%-%-%-@(%a+)%s*(.*)$")
  local value, about = line:match("^%-%-%-|%s*(\"[^\"]*\")%s*#?%s*(.*)$")
  local continued = line:match("^%-%-%-  (%S.*)$")
  if tag then
    if tags[tag] then tags[tag](block, rest) end
  elseif value then
    block.values[#block.values + 1] = { value = value, text = about }
  elseif continued and block.last then
    block.last.text = (block.last.text .. " " .. continued):gsub("^ ", "")
  else
    add_text(block, (line:gsub("^%-%-%- ?", "")))
  end
end

local function intro_of(lines)
  local block = new_block()
  for i = 2, #lines do
    if not lines[i]:match("^%-%-") then break end
    add_text(block, (lines[i]:gsub("^%-%- ?", "")))
  end
  table.remove(block.text, 1) -- what the file is
  return block.text
end

function M.parse(path)
  local lines = read_lines(path)
  local sections = { { title = "the module", items = {} } }
  local items, block = sections[1].items, nil
  sections.intro = intro_of(lines)
  for number, line in ipairs(lines) do
    local title = line:match("^%-%- %-%-%-%- (.-) %-%-%-+$")
    local object, name, arguments = line:match("^function (%w+)[.:]([%w_]+)%((.-)%) end$")
    if line:match("^%-%-%-") and number > 1 then
      block = block or new_block()
      add_line(block, line)
    elseif title then
      items = {}
      sections[#sections + 1] = { title = title, items = items }
    else
      if object then
        block = block or new_block()
        block.object, block.name, block.arguments = object, name, arguments
        block.line = number
      end
      if block and (object or block.class or block.alias or #block.text > 0) then
        items[#items + 1] = block
      end
      block = nil
    end
  end
  return sections
end

-- "file:read_at(b, off [, b_off [, len]])"
function M.signature(f)
  local shown, closing = "", ""
  for i, param in ipairs(f.params) do
    local optional = param.type:match("%?$") or param.type:match("|nil$")
    local separator = i > 1 and ", " or ""
    if optional then
      shown = shown .. (i > 1 and " [" or "[") .. separator .. param.name
      closing = closing .. "]"
    else
      shown = shown .. separator .. param.name
    end
  end
  local object = f.object:lower()
  local mark = (object == "jdbfs" or object == "sim") and "." or ":"
  return object .. mark .. f.name .. "(" .. shown:gsub("%[, ", "[, ") .. closing .. ")"
end

-- ---- man pages ----------------------------------------------------------------------------------

local function roff(text)
  text = text:gsub("\\", "\\e"):gsub("%-", "\\-"):gsub("`([^`]*)`", "\\fB%1\\fR")
  return (text:gsub("^([.'])", "\\&%1"):gsub("\n([.'])", "\n\\&%1"))
end

local function put(...) io.write(...) io.write("\n") end

-- Sentences on lines of their own, as roff wants them, and lines of at most 78 columns.
local function put_text(text)
  if text == "" then return put("\\&") end
  for sentence in (roff(text):gsub("([.:;]) (%u)", "%1\n%2") .. "\n"):gmatch("(.-)\n") do
    local line = ""
    for word in sentence:gmatch("%S+") do
      if #line + #word > 77 then
        put(line)
        line = ""
      end
      line = line == "" and word:gsub("^([.'])", "\\&%1") or line .. " " .. word
    end
    put(line)
  end
end

local function put_paragraphs(text)
  for i, paragraph in ipairs(text) do
    if i > 1 then put(".PP") end
    put_text(paragraph)
  end
end

local function put_example(text, first)
  if not first then put(".PP") end
  put(".in +4n")
  put(".EX")
  io.write((("\n" .. roff(text)):gsub("\n([.'])", "\n\\&%1"):sub(2)))
  put(".EE")
  put(".in")
end

local function put_entries(entries)
  for _, one in ipairs(entries) do
    put(".TP")
    put("\\fI", roff(one.name or one.value), "\\fR", one.type and " " .. roff(one.type) or "")
    put_text(one.text)
  end
end

-- What a call gives, on success; the failure is the same everywhere.
local function returns_of(f)
  local list, fails = {}, false
  for _, one in ipairs(f.returns) do
    if one.type:match("Error") then fails = true end
  end
  for i, one in ipairs(f.returns) do
    if fails and i > 1 and (one.type == "string?" or one.type:match("Error")) then break end
    local text = one.type:gsub("%?$", fails and "" or "?")
    list[#list + 1] = one.text ~= "" and text .. " " .. one.text or text
  end
  return table.concat(list, "; ") .. (fails and "; or nil, message, err" or "")
end

local function put_function(f)
  put(".SS \"", (roff(M.signature(f)):gsub('"', '""')), '"')
  put_paragraphs(f.text)
  local told = {}
  for _, param in ipairs(f.params) do
    if param.text ~= "" or not param.type:match("^[%w]+%??$") then told[#told + 1] = param end
  end
  put_entries(told)
  if #f.returns > 0 then
    put(".TP")
    put("Returns")
    put_text(returns_of(f))
  end
  if f.example then put_example(f.example) end
end

local function put_class(item)
  if #item.text + #item.fields + #(item.values or {}) == 0 then return end
  put(".SS ", roff(item.class or item.alias))
  put_paragraphs(item.text)
  put_entries(item.fields)
  if item.values then put_entries(item.values) end
end

local function head(section, version, about)
  put('.\\" Made by spec/tools/reference.lua.')
  put(('.TH JDBFS %d "" "jdbfs %s" "%s"'):format(section, version,
    section == 3 and "Lua library" or "User commands"))
  put(".SH NAME")
  put("jdbfs \\- ", roff(about))
end

function M.man3(version)
  local sections = M.parse("lua/jdbfs/meta.lua")
  head(3, version, "asynchronous direct I/O for Lua coroutines")
  put(".SH SYNOPSIS")
  put(".nf")
  put("\\fBlocal jdbfs = require \"jdbfs\"\\fR")
  put(".PP")
  for _, section in ipairs(sections) do
    for _, item in ipairs(section.items) do
      if item.object == "jdbfs" then put(roff(M.signature(item))) end
    end
  end
  put(".fi")
  put(".SH DESCRIPTION")
  put_paragraphs(sections.intro)
  for _, section in ipairs(sections) do
    put(".SH ", section.title:upper())
    for _, item in ipairs(section.items) do
      if item.object then put_function(item) else put_class(item) end
    end
  end
  put(".SH SEE ALSO")
  put(".BR jdbfs (1),")
  put(".BR io_uring (7),")
  put(".BR open (2),")
  put(".BR fdatasync (2)")
end

-- Indented lines of the help stay as they are: they are a table.
local function put_help(text)
  put(".nf")
  put((roff(text):gsub("\n([.'])", "\n\\&%1"):gsub("%s+$", "")))
  put(".fi")
end

local function command_says(...)
  local parts = {}
  local out = {}
  function out:write(...)
    for _, part in ipairs({ ... }) do parts[#parts + 1] = part end
    return self
  end
  assert(require("jdbfs.cli").main({ ... }, out) == 0)
  return table.concat(parts)
end

function M.man1(version)
  local help = command_says("--help")
  local synopsis, options, statuses = help:match("^[^\n]*\n\n(.-)\n\n(Options.-)\n\n(Exit.*)$")
  head(1, version, "storage workloads as Lua coroutines over asynchronous direct I/O")
  put(".SH SYNOPSIS")
  put_help(synopsis)
  put(".SH OPTIONS OF RUN")
  put_help(options:gsub("^[^\n]*\n", ""))
  put(".SH WORKLOADS")
  for name, about in command_says("list"):gmatch("(%S+)%s+([^\n]+)\n") do
    put(".TP")
    put(".B ", roff(name))
    put_text(about)
  end
  put(".PP")
  put("\\fBjdbfs list\\fR \\fIWORKLOAD\\fR prints its options.")
  put("A file that ends in .lua is a workload of your own; lua/jdbfs/workload_meta.lua is the")
  put("reference of such files.")
  put(".SH EXIT STATUS")
  put_text((statuses:gsub("^Exit status: ", ""):gsub("\n", " ")))
  put(".SH ENVIRONMENT")
  put(".TP")
  put(".B JDBFS_BACKEND")
  put_text("io_uring, threads or sim instead of the first that works")
  put(".TP")
  put(".B NO_COLOR")
  put_text("no colours")
  put(".SH EXAMPLES")
  put_example([[
jdbfs run randread --rate 5k --threshold 'read.p99 < 5ms' --json a.json
jdbfs run randwrite --verify --sync dsync --state st
jdbfs compare a.json b.json --fail-on 'read.p99>+10%'
jdbfs probe . /dev/shm
]], true)
  put(".SH SEE ALSO")
  put(".BR jdbfs (3),")
  put(".BR fio (1)")
end

-- ---- ldoc ---------------------------------------------------------------------------------------

local function comment(text)
  for line in (text .. "\n"):gmatch("(.-)\n") do put("-- ", line) end
end

local function put_ldoc_function(f)
  put("")
  put("--- ", f.text[1] or "")
  for i = 2, #f.text do comment(f.text[i]) end
  local mark = (f.object == "jdbfs" or f.object == "Sim") and "" or f.object .. ":"
  comment("@function " .. mark .. f.name)
  for _, param in ipairs(f.params) do
    local optional = param.type:match("%?$") and "opt" or ""
    comment(("@tparam[%s] %s %s %s"):format(optional, (param.type:gsub("%s", "")):gsub("%?$", ""),
      param.name, param.text):gsub("%[%]", "", 1))
  end
  comment("@return " .. returns_of(f))
  if f.example then
    comment("@usage")
    comment((f.example:gsub("\n$", "")))
  end
end

local function put_ldoc_class(item)
  put("")
  put("--- ", item.text[1] or item.class or item.alias)
  for i = 2, #item.text do comment(item.text[i]) end
  comment("@table " .. (item.class or item.alias):gsub("^jdbfs%.", ""))
  for _, field in ipairs(item.fields) do
    comment(("@field %s `%s` %s"):format(field.name, field.type, field.text))
  end
  for _, value in ipairs(item.values or {}) do
    comment(("@field %s %s"):format(value.value:gsub('"', ""), value.text))
  end
end

function M.ldoc(version)
  local sections = M.parse("lua/jdbfs/meta.lua")
  put("--- Asynchronous direct I/O for Lua coroutines, version ", version, ".")
  for _, paragraph in ipairs(sections.intro) do comment(paragraph) end
  comment("@module jdbfs")
  for i, section in ipairs(sections) do
    put("")
    put("--- ", (section.title:gsub("^%l", string.upper)))
    comment("@section part" .. i)
    for _, item in ipairs(section.items) do
      if item.object then put_ldoc_function(item) else put_ldoc_class(item) end
    end
  end
end

if arg and arg[0] and arg[0]:match("reference%.lua$") then
  M[arg[1]](arg[2])
end

return M
