-- Driver of spec/hosts/scenario.lua for copas: copas.lua DIRECTORY

local check = require "hosts.scenario"
local copas = require "copas"

local h = { name = "copas", dir = arg[1] }
h.adapter = assert(require("jdbfs.host.copas")())
function h.go(f) return copas.addthread(function() f() end) end

-- Copas 1.x has no timers: a thread receives on this until its time has come.
local function wait_until(when)
  local object = {
    getfd = function() return -1 end,
    dirty = function() return false end,
    close = function() end,
    receive = function()
      if require("jdbfs").now() >= when then return "" end
      return nil, "timeout"
    end,
  }
  h.sleepers[object] = when
  copas.receive(object, 1)
  h.sleepers[object] = nil
end

if copas.sleep then
  h.sleep = copas.pause or copas.sleep
else
  h.sleepers = {}
  h.sleep = function(s) wait_until(require("jdbfs").now() + s) end
end

check.begin(h)
check.in_place(h)
local over = false
copas.addthread(function()
  check.run(h, check.print)
  over = true
end)
while not over do copas.step(1) end
check.print("the loop ended", nil)
copas.addthread(function() check.leave(h) end)
copas.step(0)
