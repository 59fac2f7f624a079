-- Result documents made by hand, for specs of what is done with them.
--
--   dist(list)       the DIST of a list of whole ns
--   samples(o)       o.n ns around o.middle (o.seed), a stall of o.stall ns for a share o.stalled
--   document(o)      a complete document: job client, operation read, o.seconds intervals of
--                    o.rate operations; o.scale stretches its latencies, o.open adds a rate
--   dump(value)      a value as text with sorted keys, to compare by

local result = require("jdbfs.command.result")

local floor = math.floor

local M = {}

-- The lower bound of the bucket of a whole number of ns: 128 buckets for every doubling.
local function lower_of(ns)
  local width = 1
  while ns >= 256 * width do width = width * 2 end
  return ns - ns % width
end

function M.dist(list)
  local d, counts = { n = 0, sum_ns = 0, min_ns = 0, max_ns = 0, hist = {} }, {}
  for i, ns in ipairs(list) do
    d.n, d.sum_ns = d.n + 1, d.sum_ns + ns
    d.min_ns = i == 1 and ns or math.min(d.min_ns, ns)
    d.max_ns = math.max(d.max_ns, ns)
    counts[lower_of(ns)] = (counts[lower_of(ns)] or 0) + 1
  end
  for lower, count in pairs(counts) do d.hist[#d.hist + 1] = { lower, count } end
  table.sort(d.hist, function(a, b) return a[1] < b[1] end)
  return d
end

-- Numbers from [0, 1), the same on every Lua.
function M.random(seed)
  local state = seed
  return function()
    state = (state * 69069 + 12345) % 4294967296
    return floor(state / 256) / 16777216
  end
end

function M.samples(o)
  local draw, list = M.random(o.seed or 1), {}
  for i = 1, o.n do
    local ns = o.middle * (0.7 + 0.3 * draw() - 0.4 * math.log(1 - draw() * 0.999))
    if i <= o.n * (o.stalled or 0) then ns = ns + o.stall * (1 - i / o.n) end
    list[i] = floor(ns)
  end
  return list
end

local function interval(o, second, all, all_service)
  -- A slow wave over the seconds, so that windows next to each other are alike.
  local wave = 1 + 0.1 * math.sin(second / 2) + 0.04 * (M.random(o.seed * 1000 + second)() - 0.5)
  local n = floor(o.rate / wave / (o.scale or 1))
  local stalled = o.stall_at == second
  local list = M.samples({ n = n, middle = 200000 * wave * (o.scale or 1),
    seed = o.seed * 7919 + second, stalled = stalled and 0.9 or 0, stall = 900e6 })
  local service = M.samples({ n = n, middle = 150000 * wave * (o.scale or 1),
    seed = o.seed * 7919 + second })
  if second > (o.warmup or 0) then
    for i = 1, n do all[#all + 1], all_service[#all_service + 1] = list[i], service[i] end
  end
  return { t_s = second, warmup = second <= (o.warmup or 0), job = "client", op = "read", n = n,
    bytes = n * 4096, errors = 0, backlog = stalled and 900 or 0, response = M.dist(list),
    service = M.dist(service) }
end

local function copy(value)
  if type(value) ~= "table" then return value end
  local new = {}
  for key, each in pairs(value) do new[key] = copy(each) end
  return new
end

local function build(o)
  local intervals, all, service = {}, {}, {}
  for second = 1, o.seconds do
    intervals[second] = interval(o, second, all, service)
  end
  local job = { name = "client", n = 16, elapsed_s = o.seconds - (o.warmup or 0),
    ops = { { name = "read", n = #all, bytes = #all * 4096, errors = {},
      response = M.dist(all), service = M.dist(service), lag = M.dist({ 900, 1000, 1100 }) } },
    counters = { { name = "group", n = 10, sum = 93, min = 1, max = 16 } } }
  if o.open then
    job.offered, job.achieved, job.backlog_max = o.rate, o.rate - 0.5, 900
    job.late_at_end, job.sustained = 0, true
  end
  return result.new({
    tool = { name = "jdbfs", version = "0.1.0" },
    argv = { "run", "randread", "--time", ("%ds"):format(o.seconds) },
    seed = 1,
    env = { lua = "Lua 5.4", kernel = "6.18.44", cpus = 2, backend = "io_uring",
      backend_reason = "io_uring works here", depth = 256, file_system = "ext4", device = "vda",
      direct = true, memory_alignment = 512, read_alignment = 512, write_alignment = 512,
      durability = { class = "unverified", reasons = { "a volatile write cache" } } },
    plan = { workload = "randread", size = 268435456, bs = 4096, qd = 16, time_s = o.seconds,
      warmup_s = o.warmup or 0, dist = "uniform", sync = "none", target = "./jdbfs-k3VQ2a/data" },
    jobs = { job }, intervals = intervals, notes = { { "mean group", 9.3 } },
    trust = { cpu_s_per_mop = 5.38, cores = 0.52, enters_per_op = 1.1, submit_batch = 2,
      reap_batch = 1.5, lag_p99_ns = 18000, gc_share = 0.004, device_over_asked = 1.02,
      generator_limited = false },
    exit = 0,
  })
end

local built = {} -- they take a while, and the same ones are asked for again

function M.document(o)
  o = copy(o or {})
  o.seconds, o.rate, o.seed = o.seconds or 8, o.rate or 1200, o.seed or 1
  local key = M.dump(o)
  built[key] = built[key] or build(o)
  return copy(built[key])
end

function M.dump(value)
  if type(value) ~= "table" then
    return type(value) == "number" and ("%.17g"):format(value) or tostring(value)
  end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, key in ipairs(keys) do parts[i] = tostring(key) .. "=" .. M.dump(value[key]) end
  return "{" .. table.concat(parts, " ") .. "}"
end

return M
