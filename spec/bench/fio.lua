-- fio.lua LUA DIRECTORY PAIRS SECONDS DEPTH MEBIBYTES: `jdbfs run` against fio with io_uring on the
-- same file, in alternating pairs, fio against itself as control: both told to hand over BATCH
-- operations and to wait for as many, and both as they are by themselves. CPU is that of the
-- measured time, of all threads.

local json = require("jdbfs.command.json")
local spread = require("spread")

local lua, dir, pairs_wanted, seconds = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local depth, mebibytes = tonumber(arg[5]), tonumber(arg[6])
local BATCH = 16
local file, out = dir .. "/data", dir .. "/out.json"

local function sh(command)
  local status = os.execute(command)
  if status ~= true and status ~= 0 then error("failed: " .. command, 0) end
end

local function document()
  local stream = assert(io.open(out, "rb"))
  local text = stream:read("*a")
  stream:close()
  return assert(json.decode(text:sub((assert(text:find("{", 1, true))))))
end

-- Operations per second, CPU seconds per operation. batch nil: by its own rule.
local function jdbfs(workload, batch)
  sh(("%s lua/bin/jdbfs run %s --file %s --overwrite --keep --qd %d --time %gs --warmup 0s"
    .. " --seed %d --quiet --json %s%s"):format(lua, workload, file, depth, seconds,
    math.random(1, 1e6), out, batch and (" --batch %d:%d"):format(batch, batch) or ""))
  local d = document()
  return d.jobs[1].ops[1].n / d.jobs[1].elapsed_s, d.trust.cpu_s_per_mop / 1e6
end

local function fio(workload, batch)
  sh(("fio --name=b --filename=%s --rw=%s --bs=4k --direct=1 --ioengine=io_uring --iodepth=%d"
    .. " --size=%dm --runtime=%g --time_based --norandommap"
    .. " --randseed=%d --output-format=json --output=%s%s >/dev/null"):format(file, workload, depth,
    mebibytes, seconds, math.random(1, 1e6), out, batch and (" --iodepth_batch_submit=%d"
    .. " --iodepth_batch_complete_min=%d --iodepth_batch_complete_max=%d"):format(batch, batch,
    depth) or ""))
  local job = document().jobs[1]
  local side = job[workload:sub(5)]
  local cpu = (job.usr_cpu + job.sys_cpu) / 100 * job.job_runtime / 1000
  return side.iops, cpu / side.total_ios
end

math.randomseed(os.time())
sh(("%s lua/bin/jdbfs run seqread --file %s --keep --size %dm --time 50ms --warmup 0s --quiet")
  :format(lua, file, mebibytes))
print(("The command against fio, %s, depth %d, %d pairs of %g s, both record latencies:\n"):format(
  rawget(_G, "jit") and jit.version or _VERSION, depth, pairs_wanted, seconds))
print("| | | IOPS | CPU per operation |\n|---|---|---|---|")
-- One of each, the second first in every other pair.
local function pair_of(number, first, second)
  local a, a_cpu, b, b_cpu
  if number % 2 == 0 then b, b_cpu = second() end
  a, a_cpu = first()
  if not b then b, b_cpu = second() end
  return { a = a, a_cpu = a_cpu, b = b, b_cpu = b_cpu }
end

local function row(workload, name, list)
  local rate, cost = {}, {}
  for i, pair in ipairs(list) do
    rate[i], cost[i] = pair.a / pair.b, pair.a_cpu / pair.b_cpu
  end
  print(("| %s | %s | %s | %s |"):format(workload, name, spread.text(rate), spread.text(cost)))
end

for _, workload in ipairs({ "randread", "randwrite" }) do
  local again, equal, default = {}, {}, {}
  for number = 1, pairs_wanted do
    local first, first_cpu = fio(workload, BATCH)
    local pair = pair_of(number, function() return jdbfs(workload, BATCH) end,
      function() return fio(workload, BATCH) end)
    again[number] = { a = first, a_cpu = first_cpu, b = pair.b, b_cpu = pair.b_cpu }
    equal[number] = pair
    default[number] = pair_of(number, function() return jdbfs(workload) end,
      function() return fio(workload) end)
  end
  row(workload, ("fio again, of fio, batch %d"):format(BATCH), again)
  row(workload, ("`jdbfs run`, of fio, batch %d"):format(BATCH), equal)
  row(workload, "`jdbfs run`, of fio, both by default", default)
end
