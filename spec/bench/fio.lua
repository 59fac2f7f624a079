-- The driver of fio.sh: fio.lua LUA DIRECTORY PAIRS SECONDS DEPTH MEBIBYTES. Prints medians of the
-- ratios with quartiles: operations per second, and CPU of the whole process per operation.

local json = require("jdbfs.command.json")

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

local function spread(values)
  table.sort(values)
  local n = #values
  return ("%.2f [%.2f, %.2f]"):format(values[math.ceil(n / 2)], values[math.ceil(n / 4)],
    values[math.ceil(3 * n / 4)])
end

math.randomseed(os.time())
sh(("%s lua/bin/jdbfs run seqread --file %s --keep --size %dm --time 50ms --warmup 0s --quiet")
  :format(lua, file, mebibytes))
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
  print(("%-10s depth %d, batch %d, %d pairs of %gs"):format(workload, depth, batch, pairs_wanted,
    seconds))
  print("  fio again / fio:  IOPS " .. spread(again_iops) .. "   CPU per op " .. spread(again_cpu))
  print("  jdbfs / fio:      IOPS " .. spread(iops) .. "   CPU per op " .. spread(cpu))
end
