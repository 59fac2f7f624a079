-- machine.lua DIRECTORY: a sentence about what was measured on, from `jdbfs probe`.

local probe = require("jdbfs.command.probe")
local json = require("jdbfs.command.json")

local text = ""
assert(probe.main({ arg[1], "--json" }, { write = function(_, ...)
  text = text .. table.concat({ ... })
end }, io.stderr) == 0)
local document = assert(json.decode(text))
local machine, place = document.machine, document.paths[1]
local durability, queue = place.durability or {}, place.queue or {}
local cpu
for line in io.lines("/proc/cpuinfo") do
  cpu = cpu or line:match("^model name%s*:%s*(.-)%s*$")
end
local words = { ("%d cores"):format(machine.cpus or 0), cpu, machine.kernel:match("^%S+ [%d.]+") }
words[#words + 1] = ("%s on %s (%s, %s)"):format(place.file_system, durability.device or "?",
  queue.write_cache or "write cache unknown", queue.fua == 1 and "FUA" or "no FUA")
words[#words + 1] = ("%s, backend %s"):format(machine.lua, machine.backend)
print("Measured on: " .. table.concat(words, "; ") .. ".")
print("Ratios are medians of alternating rounds, with quartiles in brackets; lines with\n"
  .. "\"again\" compare a rival with itself, and are what noise there is.")
