-- Driver of spec/hosts/scenario.lua for a scheduler made here, in forty lines, over poll(2): what a
-- user's adapter table looks like. own.lua DIRECTORY FORKER (see spec/support_process.lua)

local check = require "hosts.scenario"
local jdbfs = require "jdbfs"
local poll = assert(package.loadlib(arg[2], "luaopen_forker"))().poll

local h = { name = "own", dir = arg[1] }
local ready, sleepers = {}, {} -- coroutines to resume, and when others are due
local descriptor, on_ready

function h.go(f)
  local co = coroutine.create(function() f() end)
  ready[#ready + 1] = co
  return co
end

function h.sleep(s)
  sleepers[coroutine.running()] = jdbfs.now() + s
  coroutine.yield()
end

if coroutine.close then
  h.kill = function(co)
    sleepers[co] = nil
    coroutine.close(co)
  end
end
h.resume = coroutine.resume

h.adapter = {
  name = "own",
  current = function()
    local co, main = coroutine.running()
    if not main then return co end
  end,
  suspend = function() coroutine.yield() end,
  wake = function(co) ready[#ready + 1] = co end,
  alive = function(co) return coroutine.status(co) ~= "dead" end,
  watch = function(fd, f) descriptor, on_ready = fd, f end,
}

local function run_ready()
  local now = ready
  ready = {}
  for _, co in ipairs(now) do
    if coroutine.status(co) == "suspended" then
      local ok, why = coroutine.resume(co)
      if not ok then check.print("a light thread", tostring(why)) end
    end
  end
end

local function wake_sleepers()
  local now, next_one = jdbfs.now(), 1
  for co, when in pairs(sleepers) do
    if when <= now then
      ready[#ready + 1] = co
    else
      next_one = math.min(next_one, when - now)
    end
  end
  for _, co in ipairs(ready) do sleepers[co] = nil end
  return #ready > 0 and 0 or next_one
end

check.begin(h)
check.in_place(h)
local over = false
h.go(function()
  check.run(h, check.print)
  over = true
end)
while not over do
  run_ready()
  local limit = wake_sleepers()
  if descriptor then
    if poll(descriptor, limit) then on_ready() end
  elseif limit > 0 then
    jdbfs.sleep(limit)
  end
end
check.print("the loop ended", nil)
h.go(function() check.leave(h) end)
run_ready()
run_ready()
