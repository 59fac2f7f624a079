-- What the specs about processes, tasks and faults share, beyond spec/support.lua.
--
--   setup()          support.setup, for specs whose compiled code would keep objects alive
--   forker()         path of the C module spec/c/helper/forker.c, built for this Lua; nil, why
--   states()         the same of spec/c/helper/states.c
--   forbid()         the same of spec/c/helper/forbid.c
--   nouring()        path of the program spec/c/helper/nouring.c; nil, why
--   luaoom()         path of an interpreter whose allocations fail, spec/tools/luaoom.c; nil, why
--   clock_jump()     path of the library spec/c/helper/clock_jump.c, to be preloaded; nil, why
--   strace(inject [, path])  a prefix for support.script that injects a fault, into calls on that
--                    file only; nil, why
--   script(source, o)  support.script with a prelude: jdbfs, tpcall, dir (this test's directory),
--                    forker (nil when o.forker is not set), check(label, condition, ...),
--                    collect(), count(path) of entries in a directory.
--                    o.forker: path from forker(). Asserts exit status 0 and an empty stderr
--                    unless o.loose is set; gives what it wrote to stdout, and the result
--   program(source)  path of a file with that prelude and source, for support.start
--   slow()           a throttled block device: {device =, prefix =, stop = function}; nil, why
--   close_code(body) a function of Lua source that uses <close>; nil before Lua 5.4
--   running()        the running coroutine, nil outside of one
--   is_51            whether this is plain Lua 5.1, where pcall cannot be yielded across

local busted = require("busted")
local lfs = require("lfs")
local support = require("support")

local M = {}

M.is_jit = rawget(_G, "jit") ~= nil
M.is_51 = _VERSION == "Lua 5.1" and not M.is_jit
local id = M.is_jit and "luajit" or _VERSION:match("%d%.%d")

-- LuaJIT's compiled code keeps the values it was compiled for, which is no leak of ours.
local function forget_compiled()
  if M.is_jit then require("jit").flush() end
end

function M.setup()
  busted.after_each(forget_compiled)
  support.setup()
  busted.after_each(forget_compiled)
end

-- ---- compiling ---------------------------------------------------------------------------------

local built = {}

local function newer(path, than)
  local a, b = lfs.attributes(path), lfs.attributes(than)
  return a and b and a.modification >= b.modification
end

local function compiler()
  for _, name in ipairs({ os.getenv("CC") or "cc", "cc", "gcc", "clang" }) do
    if not support.lacks(name) then return name end
  end
end

-- Two runs of the specs may build at once: each makes a file of its own and renames it.
local function compile(source, target, flags, libs)
  if newer(target, source) then return target end
  local cc = compiler()
  if not cc then return nil, "no C compiler to build " .. source end
  support.sh("mkdir -p build/helper")
  local own = target .. "." .. tostring({}):gsub("%W", "") .. tostring(os.time())
  local status, out = support.sh(("%s -std=c11 -O1 -g -Wall -Wextra %s -o %s %s %s"):format(
    cc, flags, support.quote(own), source, libs or ""))
  if status ~= 0 then
    return nil, ("cannot build %s: %s"):format(source, out:match("[^\n]+") or "")
  end
  assert(os.rename(own, target))
  return target
end

local function once(name, make)
  return function()
    if not built[name] then
      local path, why = make()
      built[name] = { path and lfs.currentdir() .. "/" .. path, why }
    end
    return built[name][1], built[name][2]
  end
end

local function lua_module(name)
  return once(name, function()
    local _, found = support.sh("bash spec/tools/lua.sh find " .. id)
    local include = found:match("^ok %S+ %S+ %S+ (%S+)")
    if not include then return nil, "no header files of Lua " .. id end
    return compile(("spec/c/helper/%s.c"):format(name), ("build/helper/%s-%s.so"):format(name, id),
      "-shared -fPIC -pthread -I" .. support.quote(include))
  end)
end

M.forker = lua_module("forker")
M.states = lua_module("states")
M.forbid = lua_module("forbid")
if support.on_windows then
  M.states = function()
    return os.getenv("JDBFS_TEST_STATES"), "JDBFS_TEST_STATES names no module"
  end
end

M.nouring = once("nouring", function()
  return compile("spec/c/helper/nouring.c", "build/helper/nouring", "")
end)

M.luaoom = once("luaoom", function()
  local _, found = support.sh("bash spec/tools/lua.sh find " .. id)
  local include = found:match("^ok %S+ %S+ %S+ (%S+)")
  if not include then return nil, "no header files of Lua " .. id end
  local _, libs = support.sh("${PKG_CONFIG:-pkg-config} --libs " ..
    (M.is_jit and "luajit" or "lua" .. id))
  libs = libs:match("^%s*(%-%S[^\n]*)")
  if not libs then return nil, "pkg-config knows no library of Lua " .. id end
  -- C modules find the Lua functions in the program.
  return compile("spec/tools/luaoom.c", "build/helper/luaoom-" .. id,
    "-I" .. support.quote(include), "-Wl,-E " .. libs .. " -lm -ldl")
end)

M.clock_jump = once("clock_jump", function()
  return compile("spec/c/helper/clock_jump.c", "build/helper/clock_jump.so", "-shared -fPIC",
    "-ldl")
end)

-- ---- scripts -----------------------------------------------------------------------------------

local PRELUDE = [==[
local dir, forker_path = arg[1], arg[2]
local jdbfs = require "jdbfs"
local tpcall = jdbfs.pcall
local unpack = table.unpack or unpack
local forker = forker_path ~= "" and assert(package.loadlib(forker_path, "luaopen_forker"))() or nil
local function check(label, condition, ...)
  if condition then return condition, ... end
  local words = { label }
  for i = 1, select("#", ...) do words[#words + 1] = tostring((select(i, ...))) end
  error("check failed: " .. table.concat(words, " | "), 2)
end
local function collect()
  if jit then jit.flush() end
  for _ = 1, 3 do collectgarbage() end
end
local function count(path)
  local n = 0
  for _ in require("lfs").dir(path) do n = n + 1 end
  return n - 2
end
local _ = { dir, tpcall, unpack, forker, check, collect, count, jdbfs }
]==]

-- One line, so that line numbers in messages fit.
local function with_prelude(source) return (PRELUDE:gsub("\n", " ")) .. source end

function M.program(source)
  local path = support.path()
  support.put(path, with_prelude(source))
  return path
end

function M.script(source, o)
  o = o or {}
  local args = { support.path("."), o.forker or "" }
  for _, value in ipairs(o.args or {}) do args[#args + 1] = value end
  local r = support.script(with_prelude(source),
    { args = args, env = o.env, prefix = o.prefix })
  if not o.loose then
    assert(r.status == 0, ("exit status %s\n%s%s"):format(tostring(r.status), r.out, r.err))
    -- The leak sanitizer looks for the parent's threads in a forked child, and says so.
    local err = r.err:gsub("==%d+==Running thread %d+ was not suspended[^\n]*\n", "")
    err = err:gsub("libgcov profiling error:[^\n]*\n", "") -- its own writes meet injected faults
    assert(err:match("^%s*$"), "wrote to stderr: " .. err)
  end
  return r.out, r
end

-- ---- faults ------------------------------------------------------------------------------------

local strace_works

-- strace follows the process and gives its exit status. Some sandboxes forbid ptrace.
function M.strace(inject, path)
  local why = support.lacks("strace")
  if why then return nil, why end
  if os.getenv("JDBFS_TEST_SAN") == "thread" then
    return nil, "the thread sanitizer does not work under ptrace"
  end
  if strace_works == nil then
    local status, out = support.sh("timeout 20 strace -f -qq -o /dev/null " ..
      "-e inject=getppid:retval=7 sh -c 'exit 9'")
    strace_works = status == 9 or ("strace does not work here: " .. (out:match("[^\n]+") or ""))
  end
  if strace_works ~= true then return nil, strace_works end
  -- The usual finding is a hang.
  local only = path and "-P " .. support.quote(path) .. " " or ""
  local seconds = 20 * (tonumber(os.getenv("JDBFS_TEST_SLOW")) or 1)
  return "timeout -k 2 " .. seconds .. " strace -f -qq -o /dev/null " .. only .. "-e inject=" ..
    support.quote(inject)
end

-- A loop device of 8 MiB, all bytes 0xab, whose reads and writes are throttled for the processes
-- of a cgroup: what is in flight there stays in flight for half a second and more.
local RATE = 262144

function M.slow()
  local why = support.lacks("root", "losetup")
  if why then return nil, why end
  local image = support.path("slow.img")
  local device
  local number = tostring(os.time()) .. support.path():gsub("%W", "")
  local v1, v2 = "/sys/fs/cgroup/blkio", "/sys/fs/cgroup"
  local is_v1 = lfs.attributes(v1 .. "/blkio.throttle.read_bps_device") ~= nil
  local group = (is_v1 and v1 or v2) .. "/jdbfs-" .. number
  local function stop()
    if device then support.sh("losetup -d " .. device) end
    for _ = 1, 50 do
      if not lfs.attributes(group) or support.sh("rmdir " .. group) == 0 then break end
      support.sh("sleep 0.1")
    end
    os.remove(image)
  end
  local status, out = support.sh(("PATH=$PATH:/usr/sbin:/sbin; head -c 8M /dev/zero | " ..
    "tr '\\0' '\\253' >%s && losetup -f --show %s"):format(
    support.quote(image), support.quote(image)))
  device = status == 0 and out:match("^(/dev/%S+)") or nil
  if not device then
    stop()
    return nil, "no loop device: " .. (out:match("[^\n]+") or "")
  end
  local _, numbers = support.sh("cat /sys/block/" .. device:match("[^/]+$") .. "/dev")
  numbers = numbers:match("%d+:%d+")
  local limit = is_v1
    and ("mkdir %s && echo '%s %d' > %s/blkio.throttle.read_bps_device && " ..
      "echo '%s %d' > %s/blkio.throttle.write_bps_device"):format(
      group, numbers, RATE, group, numbers, RATE, group)
    or ("mkdir %s && echo '%s rbps=%d wbps=%d' > %s/io.max"):format(
      group, numbers, RATE, RATE, group)
  if not numbers or support.sh(limit) ~= 0 then
    stop()
    return nil, "no cgroup that throttles block devices"
  end
  local enter = "echo $$ > " .. group .. "/cgroup.procs; exec \"$@\""
  local prefix = "sh -c " .. support.quote(enter) .. " sh"
  return { device = device, rate = RATE, stop = stop, prefix = prefix }
end

-- ---- Lua ---------------------------------------------------------------------------------------

function M.close_code(body)
  if not coroutine.close or M.is_jit then return nil end
  return assert(load(body))
end

function M.running()
  local co, main = coroutine.running()
  if main then return nil end
  return co
end

-- Whether a coroutine may yield from inside a call of a C function that calls back (a comparison
-- of table.sort). Nowhere may it; which Luas know that, and complete the operation in place, is
-- what the specs ask.
M.knows_yieldable = coroutine.isyieldable ~= nil or M.is_jit

return M
