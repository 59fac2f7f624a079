-- Driver of spec/hosts/scenario.lua for Tarantool: tarantool tarantool.lua DIRECTORY

local check = require "hosts.scenario"
local fiber = require "fiber"

local h = { name = "tarantool", dir = arg[1], stackful = true, sleep = fiber.sleep }
h.adapter = assert(require("jdbfs.host.tarantool")())

function h.go(f)
  return fiber.create(function()
    local ok, why = pcall(f)
    if not ok and not tostring(why):find("cancelled") then
      check.print("a light thread", tostring(why))
    end
  end)
end

function h.kill(handle)
  if handle:status() ~= "dead" then handle:cancel() end
end

check.begin(h)
local over = fiber.channel(1)
h.go(function()
  check.in_place(h)
  check.run(h, check.print)
  check.print("the loop ended", nil)
  check.leave(h)
  over:put(true)
end)
over:get()
os.exit(0)
