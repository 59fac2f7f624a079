-- recording.lua FILE ROUNDS READS: what `jdbfs run` pays to record an operation. 32 tasks read FILE
-- out of the page cache, in stretches of so many reads each: recorded, not recorded, and not
-- recorded once more as the control, in turns. CPU time of the thread, which no device is part of.

local core = require("jdbfs.core")
local jdbfs = require("jdbfs")
local spread = require("spread")

local path, rounds, reads = arg[1], tonumber(arg[2]), tonumber(arg[3])
local PAGE, TASKS = 4096, 32

local buffers = {}
for i = 1, TASKS do buffers[i] = jdbfs.buffer(PAGE) end
local file = assert(jdbfs.open(path, { direct = "off" }))
local pages = math.min(math.floor(file:size() / PAGE), 1024)
local meter = core.meter()

local function reader(buffer, random, recorded)
  if recorded then core.measure(meter) end
  for _ = 1, math.floor(reads / TASKS) do
    random = random * 16807 % 2147483647
    file:read_at(buffer, random % pages * PAGE)
  end
end

-- CPU nanoseconds a read.
local function stretch(recorded)
  core.timing(recorded)
  local _, before = core.cpu()
  jdbfs.run(function()
    for i = 1, TASKS do jdbfs.spawn(reader, buffers[i], i * 7919, recorded) end
  end)
  local _, after = core.cpu()
  return (after - before) * 1e9 / reads
end

stretch(true)
stretch(false)
collectgarbage()
collectgarbage("stop")
local cost, control, whole = {}, {}, {}
for round = 1, rounds do
  local plain, again, recorded
  if round % 2 == 0 then recorded, plain, again = stretch(true), stretch(false), stretch(false)
  else again, plain, recorded = stretch(false), stretch(false), stretch(true) end
  cost[round], control[round], whole[round] = recorded - plain, again - plain, plain
end
print(("| %s | %s | %s | %s |"):format(rawget(_G, "jit") and jit.version or _VERSION,
  spread.text(cost), spread.text(control), spread.text(whole)))
