-- Driver of spec/hosts/scenario.lua for copas: copas.lua DIRECTORY

local check = require "hosts.scenario"
local copas = require "copas"

local h = { name = "copas", dir = arg[1] }
h.adapter = assert(require("jdbfs.host.copas")())
function h.go(f) return copas.addthread(function() f() end) end

-- Copas 1.x has no timers: whoever steps it looks after the sleepers.
local sleepers = {}
local parking = { insert = function() end, push = function(_, token, co) sleepers[co] = token end }

local function now() return require("jdbfs").now() end

local function step()
  local limit = 1
  for _, when in pairs(sleepers) do limit = math.max(0, math.min(limit, when - now())) end
  copas.step(limit)
  local due = {}
  for co, when in pairs(sleepers) do
    if when <= now() then due[#due + 1] = co end
  end
  for _, co in ipairs(due) do
    sleepers[co] = nil
    copas.addthread(co)
  end
end

h.sleep = copas.pause or copas.sleep or function(s) coroutine.yield(now() + s, parking) end

check.begin(h)
check.in_place(h)
local over = false
copas.addthread(function()
  check.run(h, check.print)
  over = true
end)
while not over do step() end
check.print("the loop ended", nil)
copas.addthread(function() check.leave(h) end)
copas.step(0)
