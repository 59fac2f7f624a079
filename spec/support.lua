-- What the specs share. `local support = require("support")`, then inside a describe block
-- `support.setup()`: each test gets an empty directory of its own and is checked for leaks.
--
--   both(name, body)    two tests: the body inside jdbfs.run, and outside any task
--   task(name, body)    one test: the body inside jdbfs.run
--   run(f, ...)         jdbfs.run, for a test that is partly a task
--   path([name])        a path in this test's directory; unique without a name; nothing is made
--   fs()                the file system under test: "ext4", "xfs", "btrfs", "tmpfs", ...
--   put(path, data), get(path)    whole files without jdbfs; get gives nil when there is none
--   same(expected, got) asserts that two strings are equal, without printing them whole
--   holds(path, data)   asserts that the file holds exactly this
--   page([byte])        an aligned page filled with that byte
--   fails(want, ...)    asserts that ... is the contract's nil, message, err with the fields of
--                       `want` (kind, op, path, errno, name, offset, length, actual; "none": the
--                       field is nil) and the plain text or list of texts `want.says` in the
--                       message, which names operation and path; gives err
--   raises(text, f, ...)    asserts that f(...) raises, with this plain text in the message; in a
--                       task only for what raises before it waits (5.1 has no yield in pcall)
--   numbers()           list of {name, value, why}: numbers that are no offset and no length
--   script(source, o)   runs Lua source in another process: same interpreter, paths, backend.
--                       o.args: list; o.env: table; o.prefix: a command to run it under;
--                       o.interpreter: a program instead of this interpreter;
--                       o.own_disk: it needs no files of ours, simulated ones of its own will do.
--                       Gives {status =, out =, err =}
--   process(words, o)   the same for the interpreter with these words, such as {"lua/bin/jdbfs",
--                       "run"}; o.stop: {"INT" or another signal, seconds}: it is sent after that
--                       time. Windows knows INT (Ctrl-C) and KILL, the others make the test pending
--   start(words, o)     starts such a process and goes on: {pipe = what it writes to both streams,
--                       pid = its number, nil on Windows; kill = function(), at once; wait =
--                       function(): what it has written until its end}
--   command_line(words) these words as one text for io.popen
--   interpreter()       the program that runs this, for a process of one's own
--   sh(command)         exit status and what it wrote to both streams
--   quote(text)         for the shell
--   has_module(name)    whether the interpreter finds that Lua module, in another process
--   names(dir)          what is in a directory, sorted, as one text
--   lacks(...)          why a test cannot run: "root", or commands it needs; nil: it can.
--                       `local why = support.lacks("strace") if why then return pending(why) end`
--   on_sim              why a test that looks at the system's own files cannot run: the files are
--                       simulated. nil: they are not. What is here knows, as does `lfs`, which is
--                       the module, or for simulated files as much of it as makes sense; where it
--                       makes none the test becomes pending
--   on_macos            whether this is macOS, or what it runs over stand-ins for its calls
--   not_linux           why a test that looks at calls, flags or devices of Linux cannot run here.
--                       nil: it can
--   durable_writes      whether the system has a call for one durable write; else each is a write
--                       and a flush that it may share
--   on_windows          whether this is Windows: no POSIX shell, no fork, other rules for names
--   on_wine             ... in wine, which lacks calls that Windows has; spec/c/windows has them
--                       faked
--   proc                whether there is a /proc of this system
--   remove(path)        removes a file without jdbfs
--   link(to, path)      makes a symbolic link; without them the test becomes pending
--   chmod(mode, path)   mode: octal digits; pending on Windows
--   figures(text)       a line that the run's summary shows
--   wait_idle()         lets operations that nobody waits for end
--   open_files(dir)     paths below dir that this process holds open (Linux)

local busted = require("busted")
local jdbfs = require("jdbfs")
local lfs = require("lfs")

local unpack = table.unpack or unpack

local M = { jdbfs = jdbfs, lfs = lfs }
local real_io = {}

M.on_windows = package.config:sub(1, 1) == "\\"
M.on_wine = os.getenv("JDBFS_TEST_WINE") == "1"

if os.getenv("JDBFS_BACKEND") == "sim" then
  M.on_sim = "needs files of the system: the simulated disk has none"
end
M.proc = not M.on_sim and not M.on_windows and lfs.attributes("/proc/self/fdinfo") ~= nil

local base, dir, before, counter, file_system
local made = 0

-- ---- processes ----------------------------------------------------------------------------------

function M.quote(text)
  return "'" .. text:gsub("'", "'\\''") .. "'"
end

function real_io.put(path, data)
  local f = assert(io.open(path, "wb"))
  assert(f:write(data))
  assert(f:close())
end

function real_io.get(path)
  local f = io.open(path, "rb")
  if not f then return nil end
  local data = f:read("*a")
  f:close()
  return data
end

local sim_io = {}

function sim_io.put(path, data)
  local f = assert(jdbfs.create(path, { direct = "off" }))
  if #data > 0 then
    local b = jdbfs.buffer(#data)
    b:set(0, data)
    assert(f:write_at(b, 0))
  end
  assert(f:close())
end

function sim_io.get(path)
  local f = jdbfs.open(path, { direct = "off" })
  if not f then return nil end
  local data = assert(f:read(0, assert(f:size())))
  f:close()
  return data
end

M.put = M.on_sim and sim_io.put or real_io.put
M.get = M.on_sim and sim_io.get or real_io.get

-- What `pending` is inside a test; elsewhere it has another meaning.
local set_pending = require("busted.core")().pending

local function needs_system()
  if M.on_sim then set_pending(M.on_sim) end
end

local sim_lfs = {}

local function permissions(mode)
  local text = ""
  for i = 8, 0, -1 do
    local set = math.floor(mode / 2 ^ i) % 2 == 1
    text = text .. (set and ("xwr"):sub(i % 3 + 1, i % 3 + 1) or "-")
  end
  return text
end

function sim_lfs.attributes(path, name)
  local st, message = jdbfs.stat(path)
  if not st then return nil, message end
  local a = {
    mode = st.type, size = st.size, ino = st.inode, nlink = st.links, dev = st.device,
    permissions = permissions(st.mode), modification = math.floor(st.mtime),
    access = math.floor(st.atime), change = math.floor(st.ctime),
  }
  if name then return a[name] end
  return a
end

function sim_lfs.mkdir(path) return jdbfs.mkdir(path) end

-- Files only: directories cannot be listed.
function sim_lfs.dir(path)
  local names = assert(jdbfs.ls(path))
  return function() return table.remove(names, 1) end
end

if M.on_sim then
  M.lfs = setmetatable(sim_lfs, { __index = function() return needs_system end })
end

M.remove = M.on_sim and jdbfs.remove or os.remove

-- A file of commands, since os.execute tells the status differently on each Lua.
local function windows_shell(command, settings)
  local name = (os.getenv("JDBFS_TEST_DIR") or "build"):gsub("/", "\\") .. "\\shell"
  local lines = { "@echo off" }
  for variable, value in pairs(settings) do
    lines[#lines + 1] = ('set "%s=%s"'):format(variable, value)
  end
  lines[#lines + 1] = ('%s >"%s" 2>"%s.err"'):format(
    (command:gsub("%%", "%%%%")), name, name)
  lines[#lines + 1] = ('echo %%errorlevel%% >"%s.rc"\r\n'):format(name)
  real_io.put(name .. ".cmd", table.concat(lines, "\r\n"))
  os.execute(name .. ".cmd")
  local result = { status = tonumber(real_io.get(name .. ".rc") or "") }
  for field, suffix in pairs({ out = "", err = ".err" }) do
    result[field] = (real_io.get(name .. suffix) or ""):gsub("\r\n", "\n")
  end
  for _, suffix in ipairs({ "", ".err", ".rc", ".cmd" }) do os.remove(name .. suffix) end
  return result
end

-- popen's close and os.execute tell the status differently on each Lua; a file does not.
local function shell(command)
  local name = os.tmpname()
  os.execute(("{ %s\n} >%s 2>%s.err; echo $? >%s.rc"):format(command, name, name, name))
  local result = {
    out = real_io.get(name), err = real_io.get(name .. ".err"),
    status = tonumber(real_io.get(name .. ".rc") or ""),
  }
  for _, suffix in ipairs({ "", ".err", ".rc" }) do os.remove(name .. suffix) end
  return result
end

local function sh(command)
  local r = shell("( " .. command .. "\n) 2>&1")
  return r.status, r.out
end

M.on_macos = os.getenv("JDBFS_TEST_STANDIN") == "macos"
  or not M.on_windows and select(2, sh("uname -s")) == "Darwin\n"
M.not_linux = (M.on_macos or M.on_windows) and "looks at calls, flags or devices of Linux" or nil
M.durable_writes = M.on_sim ~= nil or not (M.on_windows or M.on_macos)

function M.sh(command)
  needs_system()
  if M.on_windows then set_pending("needs a POSIX shell") end
  return sh(command)
end

-- ---- the directory ------------------------------------------------------------------------------

local function make_base()
  local root = os.getenv("JDBFS_TEST_DIR")
  if not root then
    lfs.mkdir("build")
    root = "build"
  end
  for _ = 1, 1000000 do
    made = made + 1
    local name = root .. "/spec-" .. made
    if lfs.mkdir(name) then return name end
    assert(lfs.attributes(name), "cannot make directories in " .. root)
  end
end

function M.path(name)
  if not name then
    counter = counter + 1
    name = "f" .. counter
  end
  return dir .. "/" .. name
end

function M.fs()
  file_system = file_system or os.getenv("JDBFS_TEST_FS")
  if not file_system then
    local f = assert(jdbfs.create(M.path(), { direct = "prefer" }))
    file_system = f:info().file_system
    f:close()
  end
  return file_system
end

local function open_files(below)
  local found = {}
  if M.on_sim then
    for i = 1, require("jdbfs.sim").state().open_files do found[i] = "a simulated file" end
    return found
  end
  if not M.proc then return found end
  for fd in lfs.dir("/proc/self/fd") do
    local target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target")
    if target and target:find(below .. "/", 1, true) then found[#found + 1] = target end
  end
  return found
end

function M.open_files(below)
  if M.on_windows then set_pending("Windows does not tell which files are open") end
  return open_files(below)
end

-- ---- leaks --------------------------------------------------------------------------------------

-- LuaJIT's compiled traces hold on to what they were specialised for.
local function collect()
  if rawget(_G, "jit") then require("jit").flush() end
  collectgarbage()
  collectgarbage()
end

function M.wait_idle()
  for _ = 1, 500 do
    local s = jdbfs.stats()
    if s.in_flight + s.waiting + s.abandoned == 0 then return end
    jdbfs.step(0.02)
  end
end

local function start()
  base = make_base()
  dir, counter = base, 0
  assert(jdbfs.info()) -- the queue's own descriptors and memory are no leak
  if M.on_sim then
    assert(require("jdbfs.sim").reset())
    assert(jdbfs.mkdir(base))
  end
  collect()
  before = jdbfs.stats()
end

local function finish()
  collect()
  M.wait_idle()
  collect()
  local after, open = jdbfs.stats(), open_files(base)
  -- A power cut on the simulated disk takes the directory too. One that is not empty then goes with
  -- JDBFS_TEST_DIR.
  if M.on_windows then
    for _, name in ipairs(jdbfs.ls(base) or {}) do jdbfs.remove(base .. "/" .. name) end
    lfs.rmdir(base)
  elseif not lfs.rmdir(base) then
    sh("rm -rf " .. M.quote(base))
  end
  for _, name in ipairs({ "in_flight", "waiting", "abandoned", "tasks" }) do
    assert(after[name] == 0, "left behind: " .. after[name] .. " " .. name)
  end
  for _, name in ipairs({ "files", "buffers" }) do
    local more = after[name] - before[name]
    assert(more <= 0, "left behind: " .. more .. " " .. name)
  end
  assert(#open == 0, "left open: " .. table.concat(open, " "))
  assert(M.on_windows or not lfs.attributes(base),
    "the test's directory could not be removed: " .. base)
end

function M.setup()
  busted.before_each(start)
  busted.after_each(finish)
end

-- ---- tests --------------------------------------------------------------------------------------

function M.run(f, ...)
  return jdbfs.run(f, ...)
end

function M.task(name, body)
  busted.it(name, function() jdbfs.run(body) end)
end

function M.both(name, body)
  busted.it(name .. " (in a task)", function() jdbfs.run(body) end)
  busted.it(name .. " (outside tasks)", function() body() end)
end

function M.page(byte)
  local b = assert(jdbfs.buffer(jdbfs.PAGE_SIZE))
  if byte then b:fill(byte) end
  return b
end

function M.same(expected, got)
  assert(type(got) == "string", "a string was expected, not " .. tostring(got))
  if expected == got then return end
  local i = 1
  while expected:byte(i) == got:byte(i) do i = i + 1 end
  error(("%d bytes, %d expected; from byte %d on: %q, expected %q"):format(
    #got, #expected, i - 1, got:sub(i, i + 15), expected:sub(i, i + 15)), 2)
end

function M.holds(path, data)
  M.same(data, M.get(path))
end

local function show(value)
  return type(value) == "string" and ("%q"):format(value) or tostring(value)
end

local function check_message(message, want)
  local says = want.says or {}
  if type(says) == "string" then says = { says } end
  for _, text in ipairs(says) do
    assert(message:find(text, 1, true), ("the message lacks %q: %s"):format(text, message))
  end
  for _, name in ipairs({ "op", "path", "name" }) do
    local text = want[name]
    if text and text ~= "none" then
      -- A long path is cut in the sentence, never in the field.
      assert(message:find(text:sub(1, 600), 1, true), "no " .. name .. " in: " .. message)
    end
  end
  assert(not message:find("\n"), "a message is one sentence: " .. message)
end

function M.fails(want, ...)
  local value, message, err = ...
  assert(value == nil, "a failure was expected, not " .. show(value))
  assert(type(message) == "string", "the message is " .. show(message))
  assert(type(err) == "table", "the error is " .. show(err))
  assert(select("#", ...) == 3, "a failure is three values")
  assert(tostring(err) == message and err.message == message, "message and error differ")
  for _, name in ipairs({ "kind", "op", "path", "errno", "name", "offset", "length", "actual" }) do
    local expected = want[name]
    if expected == "none" then
      assert(err[name] == nil, ("err.%s is %s, not nil: %s"):format(name, show(err[name]), message))
    elseif expected ~= nil then
      assert(err[name] == expected, ("err.%s is %s, not %s: %s"):format(
        name, show(err[name]), show(expected), message))
    end
  end
  check_message(message, want)
  return err
end

function M.raises(text, f, ...)
  local ok, message = pcall(f, ...)
  assert(not ok, "an error was expected")
  message = tostring(message)
  assert(message:find(text, 1, true), ("%q is not in: %s"):format(text, message))
end

function M.numbers()
  local list = {
    { "-1", -1, "negative" },
    { "-2^53", -2 ^ 53, "negative" },
    { "a fraction", 0.5, "not an integer" },
    { "a large fraction", 4096.25, "not an integer" },
    { "NaN", 0 / 0, "NaN" },
    { "infinity", math.huge, "beyond 2^63-1" },
    { "minus infinity", -math.huge, "negative" },
    { "2^63", 2 ^ 63, "beyond 2^63-1" },
    { "2^64", 2 ^ 64, "beyond 2^63-1" },
    { "1e300", 1e300, "beyond 2^63-1" },
  }
  if math.mininteger then list[#list + 1] = { "the least integer", math.mininteger, "negative" } end
  if rawget(_G, "jit") then
    local ffi = require("ffi")
    local one = ffi.cast("uint64_t", 1)
    list[#list + 1] = { "-1LL", ffi.cast("int64_t", -1), "negative" }
    list[#list + 1] = { "2^63 as uint64_t", one * 2 ^ 63, "beyond 2^63-1" }
    list[#list + 1] = { "2^64-1 as uint64_t", ffi.cast("uint64_t", 0) - one, "beyond 2^63-1" }
  end
  return list
end

-- ---- scripts ------------------------------------------------------------------------------------

function M.interpreter()
  local exe = os.getenv("JDBFS_TEST_LUA")
  if exe then return exe end
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return arg[i]
end

-- A script may change its directory.
local function absolute(paths)
  return (paths:gsub("[^;]+", function(entry)
    if entry:sub(1, 1) == "/" then return entry end
    return lfs.currentdir() .. "/" .. entry:gsub("^%./", "")
  end))
end

local function environment(extra)
  local words = { "env -u LUA_INIT" }
  for _, v in ipairs({ "5_2", "5_3", "5_4", "5_5" }) do
    words[#words + 1] = ("-u LUA_PATH_%s -u LUA_CPATH_%s -u LUA_INIT_%s"):format(v, v, v)
  end
  words[#words + 1] = "LUA_PATH=" .. M.quote(absolute(package.path))
  words[#words + 1] = "LUA_CPATH=" .. M.quote(absolute(package.cpath))
  for name, value in pairs(extra or {}) do words[#words + 1] = name .. "=" .. M.quote(value) end
  return table.concat(words, " ")
end

local function windows_line(words)
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = '"' .. tostring(word) .. '"' end
  return table.concat(quoted, " ")
end

-- Windows has no program that sends signals: check-windows.sh builds spec/c/windows/stop.c.
local function windows_process(words, o)
  local stop = o.stop
  if o.prefix then set_pending("needs a POSIX shell") end
  if stop then
    if stop[1] ~= "INT" and stop[1] ~= "KILL" then set_pending("Windows has no SIG" .. stop[1]) end
    local helper = os.getenv("JDBFS_TEST_STOP") or set_pending("JDBFS_TEST_STOP names no program")
    words = { helper, stop[1], math.floor(stop[2] * 1000), unpack(words) }
  end
  return windows_shell(windows_line(words), o.env or {})
end

local function run_process(words, o)
  if M.on_windows then return windows_process(words, o) end
  local seconds = 120 * (tonumber(os.getenv("JDBFS_TEST_SLOW")) or 1)
  local line = { "timeout -k 5 " .. seconds, environment(o.env) }
  if o.prefix then line[#line + 1] = o.prefix end
  if o.stop then
    -- Without --foreground the signal would come twice, and the second one kills. In a slow guest
    -- later: it would find no handler yet.
    line[#line + 1] = ("timeout --foreground --preserve-status -s %s %g"):format(o.stop[1],
      o.stop[2] * (os.getenv("JDBFS_TEST_SLOW") and 10 or 1))
  end
  for _, word in ipairs(words) do line[#line + 1] = M.quote(tostring(word)) end
  return shell(table.concat(line, " "))
end

function M.process(words, o)
  o = o or {}
  if not o.own_disk then needs_system() end -- another process has another disk
  return run_process({ o.interpreter or M.interpreter(), unpack(words) }, o)
end

function M.script(source, o)
  o = o or {}
  if not o.own_disk then needs_system() end
  local file = M.path()
  real_io.put(file, source)
  return M.process({ file, unpack(o.args or {}) }, o)
end

local function all_of(pipe)
  return function()
    local text = pipe:read("*a")
    pipe:close()
    return text
  end
end

local function start_windows(words, o)
  local file = M.path("kill")
  os.remove(file)
  local helper = os.getenv("JDBFS_TEST_STOP") or set_pending("JDBFS_TEST_STOP names no program")
  local line = windows_line({ helper, "KILL", file, M.interpreter(), unpack(words) })
  assert(not next(o.env or {}), "start sets no variables on Windows")
  local pipe = assert(io.popen('"' .. line .. ' 2>&1"'))
  return { pipe = pipe, wait = all_of(pipe), kill = function() real_io.put(file, "") end }
end

function M.start(words, o)
  needs_system()
  if M.on_windows then return start_windows(words, o or {}) end
  -- The shell tells its number and becomes the interpreter.
  local line = { "echo $$; exec", environment(o and o.env), M.quote(M.interpreter()) }
  for _, word in ipairs(words) do line[#line + 1] = M.quote(tostring(word)) end
  local pipe = assert(io.popen(table.concat(line, " ") .. " 2>&1"))
  local pid = assert(tonumber(pipe:read("*l")))
  return { pipe = pipe, pid = pid, wait = all_of(pipe), kill = function()
    sh("kill -9 " .. pid)
  end }
end

function M.has_module(name)
  return run_process({ M.interpreter(), "-e", "require('" .. name .. "')" }, {}).status == 0
end

function M.command_line(words)
  -- The shell of Windows takes the outermost quotes away.
  if M.on_windows then return '"' .. windows_line(words) .. '"' end
  local quoted = {}
  for i, word in ipairs(words) do quoted[i] = M.quote(tostring(word)) end
  return table.concat(quoted, " ")
end

function M.link(to, path)
  needs_system()
  if M.on_windows then set_pending("wine makes no symbolic links") end
  assert(lfs.link(to, path, true))
end

function M.chmod(mode, path)
  needs_system()
  if M.on_windows then set_pending("permissions are the directory's on Windows") end
  assert(sh("chmod " .. mode .. " " .. M.quote(path)) == 0)
end

function M.names(path)
  local list = {}
  for name in M.lfs.dir(path) do
    if name ~= "." and name ~= ".." then list[#list + 1] = name end
  end
  table.sort(list)
  return table.concat(list, " ")
end

function M.figures(text)
  local file = os.getenv("JDBFS_TEST_FIGURES")
  if not file then return end
  local out = assert(io.open(file, "a"))
  out:write(text, "\n")
  out:close()
end

-- ---- what the machine has -----------------------------------------------------------------------

local function is_root()
  local _, out = sh("id -u")
  return out:match("^0")
end

function M.lacks(...)
  if M.on_windows then return "needs " .. table.concat({ ... }, ", ") .. ", which Windows lacks" end
  for _, name in ipairs({ ... }) do
    if name == "root" then
      if not is_root() then return "needs root" end
    elseif sh("PATH=$PATH:/usr/sbin:/sbin command -v " .. M.quote(name)) ~= 0 then
      local _, hint = sh("bash -c '. spec/tools/packages.sh; install_hint \"$0\"' "
        .. M.quote(name))
      return name .. " is not installed; " .. hint:gsub("%s+$", "")
    end
  end
end

return M
