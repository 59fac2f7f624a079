-- Checks of the source text that no other tool makes. tidy.lua CHECK FILE...
--
--   includes   who may include whom, and where #if on platform or Lua version may stand
--   columns    at most 100 columns, no tabs, no space at a line's end
--   functions  at most 75 lines per C function
--   rockspec   its lists against `make print-sources`, given as arguments, and against csrc/
--
-- Prints one line per finding; exit status 1 when there is one. For any Lua.

local FUNCTION_LINES, COLUMNS = 75, 100
local findings = 0

local function find_fault(file, line, text)
  findings = findings + 1
  print(string.format("%s:%d: %s", file, line, text))
end

local function set(words)
  local result = {}
  for word in words:gmatch("%S+") do result[word] = true end
  return result
end

local STANDARD_C = set([[assert.h complex.h ctype.h errno.h fenv.h float.h inttypes.h iso646.h
  limits.h locale.h math.h setjmp.h signal.h stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h
  stdint.h stdio.h stdlib.h stdnoreturn.h string.h tgmath.h time.h uchar.h wchar.h wctype.h]])
local LUA = set("lua.h lauxlib.h lualib.h luajit.h luaconf.h")
local CORE = "jdb.h list.h op.h backend.h os.h measure.h"

-- The first pattern that matches the base name decides. local_ok: names allowed in quotes;
-- system: "standard", "any", or a set; platform, lua: whether #if on it may stand here.
local RULES = {
  { "^jdb%.h$", local_ok = {}, system = set("stddef.h stdint.h") },
  { "^list%.h$", local_ok = set("jdb.h"), system = set("stddef.h stdint.h") },
  { "^measure%.h$", local_ok = {}, system = set("stdint.h") },
  { "^op%.h$", local_ok = set("jdb.h list.h"), system = set("stddef.h stdint.h") },
  { "^backend%.h$", local_ok = set("jdb.h list.h op.h"), system = set("stddef.h stdint.h") },
  { "^os%.h$", local_ok = set("jdb.h list.h op.h"), system = set("errno.h stddef.h stdint.h") },
  { "^be_.+%.[ch]$", local_ok = set(CORE), own = { "^be_", "^os_" }, system = "any",
    platform = true },
  { "^os_.+%.[ch]$", local_ok = set(CORE), own = { "^be_", "^os_" }, system = "any",
    platform = true },
  { "^lua_compat%.h$", local_ok = set("jdb.h"), own = { "^lua_" }, system = "standard",
    lua_headers = true, lua = true },
  { "^lua_.+%.[ch]$", local_ok = set("jdb.h list.h measure.h"), own = { "^lua_" },
    system = "standard",
    lua_headers = true },
  -- A module of the host, which knows nothing of ours.
  { "^host_.+%.c$", local_ok = {}, system = "any", lua_headers = true },
  { "^.+%.c$", local_ok = set(CORE), system = "standard" },
}
-- C tests see the core from inside, and the system, but no Lua.
local SPEC_RULE = { local_ok = set(CORE), own = { "." }, system = "any", platform = true }

-- Words in an #if that say nothing about platform or Lua version.
local NEUTRAL = set([[defined __cplusplus __GNUC__ __clang__ __STDC_VERSION__ NDEBUG
  __has_feature __has_include __has_attribute __has_builtin __SANITIZE_ADDRESS__ __SANITIZE_THREAD__
  ENODATA UINT32_MAX UINT64_MAX INT64_MAX SIZE_MAX UINTPTR_MAX]])

local function rule_of(path)
  local base = path:match("[^/]+$")
  if path:match("^spec/") then return SPEC_RULE end
  for _, rule in ipairs(RULES) do
    if base:match(rule[1]) then return rule end
  end
end

local function lines_of(path)
  local lines = {}
  local file = assert(io.open(path))
  for line in file:lines() do lines[#lines + 1] = line end
  file:close()
  return lines
end

local function may_include(rule, mark, name)
  if LUA[name] then return rule.lua_headers == true end
  if mark == "<" then
    if type(rule.system) == "table" then return rule.system[name] == true end
    return rule.system == "any" or STANDARD_C[name] == true
  end
  if rule.local_ok[name] then return true end
  for _, pattern in ipairs(rule.own or {}) do
    if name:match(pattern) then return true end
  end
  return false
end

local function check_condition(path, number, rule, condition, is_guard)
  if is_guard then return end
  for word in condition:gsub("/%*.-%*/", ""):gsub("<[^>]*>", ""):gmatch("[%a_][%w_]*") do
    local about_lua = word:match("^LUA") ~= nil
    local neutral = NEUTRAL[word] or word:match("^JDB_") and not word:match("^JDB_HAVE_")
      or word:match("^E[A-Z]+$") -- an errno that some system lacks
    if about_lua and not rule.lua then
      find_fault(path, number, "#if on " .. word .. " belongs in lua_compat.h")
    elseif not about_lua and not neutral and not rule.platform then
      find_fault(path, number, "#if on " .. word .. " belongs in an os_ or be_ file")
    end
  end
end

local function check_includes(path)
  local rule = rule_of(path)
  if not rule then return find_fault(path, 1, "no include rule for this file (tidy.lua)") end
  local lines = lines_of(path)
  for number, line in ipairs(lines) do
    local mark, name = line:match('^%s*#%s*include%s*([<"])([^>"]+)')
    if mark and not may_include(rule, mark, name) then
      find_fault(path, number, "may not include " .. name)
    end
    local word, condition = line:match("^%s*#%s*(%a+)%s*(.*)")
    if word == "if" or word == "ifdef" or word == "ifndef" or word == "elif" then
      local guard = word == "ifndef" and condition:match("^[%w_]+_H$")
      local is_guard = guard and (lines[number + 1] or ""):match("^#define%s+" .. guard)
      check_condition(path, number, rule, condition, is_guard)
    end
  end
end

local function width_of(line) -- characters, not bytes
  return #line:gsub("[\128-\191]", "")
end

local function check_columns(path)
  local tabs = path:match("Makefile$") ~= nil
  for number, line in ipairs(lines_of(path)) do
    local width = width_of(line)
    if width > COLUMNS then find_fault(path, number, width .. " columns") end
    if line:match("%s$") then find_fault(path, number, "space at the end") end
    if not tabs and line:find("\t", 1, true) then find_fault(path, number, "tab") end
  end
end

-- By formatting: a function opens with a line that ends in ") {" outside of any other, and closes
-- with the next "}" in the first column.
local function check_functions(path)
  local start
  for number, line in ipairs(lines_of(path)) do
    if start and line:match("^}") then
      local length = number - start + 1
      if length > FUNCTION_LINES then
        find_fault(path, start, length .. " lines, at most " .. FUNCTION_LINES)
      end
      start = nil
    elseif not start and line:match("%)%s*{$") then
      start = number
    end
  end
end

local function load_rockspec(path)
  local spec = {}
  local chunk
  if setfenv then
    chunk = assert(loadfile(path))
    setfenv(chunk, spec)
  else
    chunk = assert(loadfile(path, "t", spec))
  end
  chunk()
  return spec
end

local function compare(what, a, name_a, b, name_b)
  for file in pairs(a) do
    if not b[file] then
      find_fault(name_b, 1, string.format("%s %s is in %s only", what, file, name_a))
    end
  end
  for file in pairs(b) do
    if not a[file] then
      find_fault(name_a, 1, string.format("%s %s is in %s only", what, file, name_b))
    end
  end
end

-- rockspec FILE PLATFORM SOURCE... -- C_FILE...: what the Makefile builds, and what csrc/ holds.
local function check_rockspec(path, platform, ...)
  local spec = load_rockspec(path)
  local built, present, in_rock = {}, {}, {}
  local target = built
  for _, file in ipairs({ ... }) do
    if file == "--" then target = present else target[file] = true end
  end
  local key = ({ Linux = "linux", Darwin = "macosx", FreeBSD = "freebsd",
    Windows = "mingw32" })[platform]
  local any_platform = {}
  for name, entry in pairs(spec.build.platforms) do
    local core = entry.modules["jdbfs.core"]
    for _, file in ipairs(core.sources) do
      if name == key then in_rock[file] = true end
      any_platform[file] = true
    end
  end
  if spec.build.modules["jdbfs.core"] then
    find_fault(path, 1, "jdbfs.core belongs below build.platforms only")
  end
  for name, file in pairs(spec.build.modules) do
    if type(file) == "string" then
      in_rock[file] = true
      local expected = file:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", "")
      if expected:gsub("/", ".") ~= name then
        find_fault(path, 1, name .. " is not the module name of " .. file)
      end
    end
  end
  compare("file", built, "Makefile", in_rock, path)
  for file in pairs(present) do
    if not any_platform[file] then find_fault(path, 1, file .. " is built nowhere") end
  end
end

local per_file = {
  includes = check_includes,
  columns = check_columns,
  functions = check_functions,
}

local arguments = { ... }
local check = table.remove(arguments, 1)
if check == "rockspec" then
  check_rockspec((table.unpack or unpack)(arguments))
elseif per_file[check] then
  for _, path in ipairs(arguments) do per_file[check](path) end
else
  error("tidy.lua: unknown check " .. tostring(check))
end
os.exit(findings == 0 and 0 or 1)
