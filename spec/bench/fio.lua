-- fio.lua LUA DIRECTORY PAIRS SECONDS DEPTH MEBIBYTES: `jdbfs run` against fio with io_uring on the
-- same file, in alternating pairs, fio against itself as control. fio gets the batches that jdbfs
-- was seen to make. CPU is of the whole process; runs of less than some seconds mostly measure how
-- both start.

local json = require("jdbfs.command.json")
local spread = require("spread")

local lua, dir, pairs_wanted, seconds = arg[1], arg[2], tonumber(arg[3]), tonumber(arg[4])
local depth, mebibytes = tonumber(arg[5]), tonumber(arg[6])
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

-- Operations per second, CPU seconds per operation, mean batch.
local function jdbfs(workload)
  sh(("%s lua/bin/jdbfs run %s --file %s --overwrite --keep --qd %d --time %gs --warmup 0s"
    .. " --seed %d --quiet --json %s"):format(lua, workload, file, depth, seconds,
    math.random(1, 1e6), out))
  local d = document()
  local op = d.jobs[1].ops[1]
  return op.n / d.jobs[1].elapsed_s, d.trust.cpu_s_per_mop / 1e6, d.trust.reap_batch
end

local function fio(workload, batch)
  sh(("fio --name=b --filename=%s --rw=%s --bs=4k --direct=1 --ioengine=io_uring --iodepth=%d"
    .. " --iodepth_batch_submit=%d --iodepth_batch_complete_min=%d"
    .. " --iodepth_batch_complete_max=%d --size=%dm --runtime=%g --time_based --norandommap"
    .. " --randseed=%d --output-format=json --output=%s >/dev/null"):format(file, workload, depth,
    batch, batch, depth, mebibytes, seconds, math.random(1, 1e6), out))
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
for _, workload in ipairs({ "randread", "randwrite" }) do
  local _, _, seen = jdbfs(workload)
  local batch = math.max(1, math.min(depth, math.floor(seen + 0.5)))
  local iops, cpu, again_iops, again_cpu = {}, {}, {}, {}
  for pair = 1, pairs_wanted do
    local ours, ours_cpu, theirs, theirs_cpu
    local first, first_cpu = fio(workload, batch)
    if pair % 2 == 0 then
      ours, ours_cpu = jdbfs(workload)
      theirs, theirs_cpu = fio(workload, batch)
    else
      theirs, theirs_cpu = fio(workload, batch)
      ours, ours_cpu = jdbfs(workload)
    end
    iops[pair], cpu[pair] = ours / theirs, ours_cpu / theirs_cpu
    again_iops[pair], again_cpu[pair] = first / theirs, first_cpu / theirs_cpu
  end
  local function row(name, rate, cost)
    print(("| %s | %s | %s | %s |"):format(workload, name, spread.text(rate), spread.text(cost)))
  end
  row("fio again, of fio", again_iops, again_cpu)
  row(("`jdbfs run`, of fio, batch %d"):format(batch), iops, cpu)
end
