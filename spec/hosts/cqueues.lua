-- Driver of spec/hosts/scenario.lua for cqueues: cqueues.lua DIRECTORY

local check = require "hosts.scenario"
local cqueues = require "cqueues"

local cq = cqueues.new()
local h = { name = "cqueues", dir = arg[1], sleep = cqueues.sleep }
h.adapter = assert(require("jdbfs.host.cqueues")())
function h.go(f) cq:wrap(f) end

check.begin(h)
check.in_place(h)
local over = false
cq:wrap(function()
  check.run(h, check.print)
  over = true
end)
assert(cq:loop()) -- ends although tasks of ours were run: nothing is in flight
check.print("the loop ended", not over and "too early" or nil)
cq:wrap(function() check.leave(h) end)
assert(cq:step())
