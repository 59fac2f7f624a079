-- The jdbfs command: runs storage workloads in coroutines on a scratch file and reports honestly.
--
-- The file reads from small to large: units, random numbers, JSON, options, the scratch directory,
-- measuring, the three workloads, the report, main. Failures inside tasks travel as return values,
-- because PUC Lua 5.1 cannot yield across pcall; outside tasks they are raised by fail() and end
-- in main, which always removes what the run has made.
--
-- It writes only to files that it created itself with exclusive = true, in a directory that did not
-- exist before. There is no silent fallback to buffered I/O: only --buffered asks for it.

local histogram = require("jdbfs.histogram")

local clock, time, remove_entry = os.clock, os.time, os.remove
local ceil, floor, max, min = math.ceil, math.floor, math.max, math.min
local concat = table.concat
local error, ipairs, pcall, require = error, ipairs, pcall, require
local tonumber, tostring, type, xpcall = tonumber, tostring, type, xpcall
local gethook, traceback = debug.gethook, debug.traceback
local running = coroutine.running
local stdout, stderr, open_stream = io.stdout, io.stderr, io.open

local KIB, MIB = 1024, 1048576
local FILL_CHUNK = MIB -- bytes of one write while the scratch file is filled
local FILL_TASKS = 8
local WAL_LENGTH_MAX = 64 * MIB
local WAL_GROUP_MAX = MIB -- bytes of one group, unless a single record is larger
local WAL_UNIT = 65536 -- lengths of the log and of its buffer are multiples of this
local RECORD_HEADER = 16 -- u32 length, u32 CRC-32C, u64 sequence number
local ERRORS_MAX = 100 -- a workload gives up after so many
local DEFAULT_SIZE_MAX = 256 * MIB
local FREE_SHARE = 0.95 -- of the free space may be planned for
local TICK = 0.1 -- seconds between looks for Ctrl-C
local PERCENTILES = { { "p50", 50000 }, { "p99", 99000 }, { "p99.9", 99900 } }

local EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

-- Ends the run with an exit status and one sentence. Not for use inside tasks.
local function fail(status, message)
  error({ status = status, message = message }, 0)
end

-- Units ------------------------------------------------------------------------------------------

local SIZE_UNITS = { [""] = 1, k = KIB, m = MIB, g = 1024 * MIB, t = 1048576 * MIB }
local TIME_UNITS = { us = 1e-6, ms = 1e-3, s = 1, m = 60, h = 3600 }

local function parse_whole(text)
  if not text:match("^%d+$") or #text > 15 then return nil, "is not a whole number" end
  return tonumber(text)
end

local function parse_size(text)
  local digits, unit = text:lower():match("^(%d+)([kmgt]?)$")
  if not digits or #digits > 15 then
    return nil, "is not a size (a whole number, with k, m, g or t for powers of 1024: 256m)"
  end
  local count = tonumber(digits)
  if count > 2 ^ 52 / SIZE_UNITS[unit] then return nil, "is larger than any file" end
  return count * SIZE_UNITS[unit]
end

local function parse_time(text)
  local digits, unit = text:lower():match("^(%d*%.?%d+)([umsh]+)$")
  local seconds = digits and TIME_UNITS[unit] and tonumber(digits)
  if not seconds then return nil, "is not a time (a number with us, ms, s, m or h: 500ms, 5s)" end
  return seconds * TIME_UNITS[unit]
end

-- A parser that also keeps the value within bounds; told is how the bounds read in a message.
local function within(parse, low, high, told)
  return function(text)
    local value, reason = parse(text)
    if not value then return nil, reason end
    if value < low or value > high then return nil, "is not between " .. told end
    return value
  end
end

local function parse_text(text)
  if text == "" then return nil, "is empty" end
  if text:find("\0", 1, true) then return nil, "contains a NUL byte" end
  return text
end

local function format_bytes(bytes)
  for _, unit in ipairs({ { 1024 * MIB, "GiB" }, { MIB, "MiB" }, { KIB, "KiB" } }) do
    if bytes >= unit[1] then
      local value = bytes / unit[1]
      return ((value % 1 == 0) and "%.0f %s" or "%.1f %s"):format(value, unit[2])
    end
  end
  return ("%.0f B"):format(bytes)
end

local function format_seconds(seconds)
  if not seconds then return "-" end
  if seconds < 99.95e-6 then return ("%.1fus"):format(seconds * 1e6) end
  if seconds < 999.5e-6 then return ("%.0fus"):format(seconds * 1e6) end
  if seconds < 9.995e-3 then return ("%.2fms"):format(seconds * 1e3) end
  if seconds < 0.9995 then return ("%.1fms"):format(seconds * 1e3) end
  return ("%.2fs"):format(seconds)
end

local function format_rate(rate)
  if not rate then return "-" end
  if rate >= 1e6 then return ("%.2fM"):format(rate / 1e6) end
  if rate >= 1e4 then return ("%.1fk"):format(rate / 1e3) end
  return (rate >= 100 and "%.0f" or "%.1f"):format(rate)
end

local function ratio(part, whole)
  if part and whole and whole > 0 then return part / whole end
end

local function round_up(value, unit)
  return ceil(value / unit) * unit
end

-- Random numbers ---------------------------------------------------------------------------------

-- L'Ecuyer's MRG32k3a. It was made for doubles: every intermediate value stays below 2^53, so all
-- Luas draw the same numbers, with and without an integer type.
local M1, M2 = 4294967087, 4294944443

-- PUC 5.1 and LuaJIT compute a % b from a rounded quotient, which can leave -1 instead of b - 1.
local function modulo(value, modulus)
  local rest = value % modulus
  if rest < 0 then return rest + modulus end
  return rest
end

-- A function that draws whole numbers from [0, n). It starts from six words of state.
local function generator(a, b, c, d, e, f)
  local function draw()
    local first = modulo(1403580 * b - 810728 * a, M1)
    a, b, c = b, c, first
    local second = modulo(527612 * f - 1370589 * d, M2)
    d, e, f = e, f, second
    return (first > second and first - second or first - second + M1) / (M1 + 1)
  end
  return function(n)
    if n <= 16777216 then return floor(draw() * n) end
    return floor((draw() + floor(draw() * 16777216) / 16777216 / M1) * n)
  end
end

-- A stream depends on the seed, the workload's number and the coroutine's and on nothing else, so
-- the order in which coroutines run does not change what each of them draws.
local function random_stream(seed, job, id)
  local state, words = 0, {}
  local function stir(word)
    state = (state + word) % 4294967296
    for _ = 1, 4 do
      state = (state * 69069 + floor(state / 65536) * 40503 + 12345) % 4294967296
    end
    return state
  end
  stir(seed % 4294967296)
  stir(floor(seed / 4294967296))
  stir(job)
  stir(id)
  for i = 1, 6 do
    words[i] = 1 + stir(i) % (M2 - 1)
  end
  return generator(words[1], words[2], words[3], words[4], words[5], words[6])
end

local function random_bytes(random, length)
  local parts = {}
  for i = 1, ceil(length / 3) do
    local word = random(16777216)
    parts[i] = ("").char(word % 256, floor(word / 256) % 256, floor(word / 65536))
  end
  return concat(parts):sub(1, length)
end

-- JSON -------------------------------------------------------------------------------------------

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Paths may hold any bytes, JSON only UTF-8: a text that is not UTF-8 is written byte by byte.
local function json_text(text)
  local left = text:gsub("[\194-\223][\128-\191]", "")
  left = left:gsub("[\224-\239][\128-\191][\128-\191]", "")
  left = left:gsub("[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  local escaped = left:find("[\128-\255]") and "[%c\"\\\127-\255]" or "[%c\"\\]"
  return '"' .. text:gsub(escaped, function(char)
    return ESCAPES[char] or ("\\u%04x"):format(char:byte())
  end) .. '"'
end

-- A value as JSON. Objects and arrays come encoded from the two functions below.
local function json(value)
  local kind = type(value)
  if kind == "table" then return value.json end
  if kind == "string" then return json_text(value) end
  if kind == "boolean" then return tostring(value) end
  if kind ~= "number" or value ~= value or value == 1 / 0 or value == -1 / 0 then return "null" end
  return (value % 1 == 0 and "%.0f" or "%.9g"):format(value)
end

-- An object from a list of { key, value }, in this order; a missing value is null.
local function json_object(fields)
  local parts = {}
  for i, field in ipairs(fields) do
    parts[i] = json_text(field[1]) .. ":" .. json(field[2])
  end
  return { json = "{" .. concat(parts, ",") .. "}" }
end

local function json_array(list)
  local parts = {}
  for i, value in ipairs(list) do
    parts[i] = json(value)
  end
  return { json = "[" .. concat(parts, ",") .. "]" }
end

-- Options ----------------------------------------------------------------------------------------

local ABOUT = {
  randread = "random reads of one block, each coroutine one at a time",
  randwrite = "random overwrites of one block, each coroutine one at a time",
  wal = "write-ahead log: records of all coroutines share one durable write (group commit)",
}
local WORKLOADS = { "randread", "randwrite", "wal" }

local parse_seed = within(parse_whole, 0, 2 ^ 48, "0 and 2^48")
local parse_qd = within(parse_whole, 1, 65536, "1 and 65536 coroutines")
local parse_bs = within(parse_size, 512, 64 * MIB, "512 bytes and 64m")
local parse_record = within(parse_size, 1, 16 * MIB, "1 byte and 16m")
local parse_duration = within(parse_time, 0.001, 86400, "1ms and 24h")
local parse_warmup = within(parse_time, 0, 86400, "0s and 24h")

-- In the order of the help text. An option without parse is a flag.
local OPTIONS = {
  { name = "dir", value = "D", parse = parse_text, default = ".",
    about = "where to make the scratch directory jdbfs-XXXXXX (default: here)" },
  { name = "size", value = "256m", parse = parse_size,
    about = "scratch file (default: 256m, or 10 % of the free space if that is less)" },
  { name = "bs", value = "4k", parse = parse_bs, default = 4 * KIB,
    about = "block of randread and randwrite" },
  { name = "qd", value = "32", parse = parse_qd, default = 32,
    about = "coroutines per workload, each waiting for its own operation" },
  { name = "time", value = "5s", parse = parse_duration, default = 5,
    about = "measured time per workload" },
  { name = "warmup", value = "0.5s", parse = parse_warmup, default = 0.5,
    about = "comes before it and is in no figure" },
  { name = "seed", value = "N", parse = parse_seed, default = 1,
    about = "the same seed draws the same offsets and data (default 1)" },
  { name = "record", value = "512", parse = parse_record, default = 512,
    about = "bytes of one record of wal" },
  { name = "backend", value = "NAME", parse = parse_text,
    about = "as in jdbfs.setup{ backend = NAME } (default: auto)" },
  { name = "buffered", about = "go through the page cache; the figures are then not the device's" },
  { name = "json", about = "one JSON document on standard output and nothing else" },
}

local OPTION_BY_NAME = {}
for _, option in ipairs(OPTIONS) do
  OPTION_BY_NAME[option.name] = option
end

local function help_text()
  local lines = {
    "jdbfs: storage workloads as Lua coroutines over asynchronous direct I/O",
    "",
    "  jdbfs run [WORKLOAD ...] [options]   run workloads on a scratch file, which is then removed",
    "  jdbfs list                           the workloads",
    "  jdbfs --help | --version",
    "",
    "Options of run:",
  }
  for _, option in ipairs(OPTIONS) do
    local name = "--" .. option.name .. (option.value and " " .. option.value or "")
    lines[#lines + 1] = ("  %-15s %s"):format(name, option.about)
  end
  lines[#lines + 1] = ""
  lines[#lines + 1] = "Exit status: 0 ok, 1 I/O error, 2 usage or refusal, 130 interrupted."
  return concat(lines, "\n") .. "\n"
end

local function list_text()
  local lines = {}
  for i, name in ipairs(WORKLOADS) do
    lines[i] = ("%-10s %s\n"):format(name, ABOUT[name])
  end
  return concat(lines)
end

-- Reads the option at args[i] into options and returns the index of its last word.
local function read_option(args, i, options)
  local word = args[i]
  local name, value = word:match("^%-%-([^=]*)=(.*)$")
  name = name or word:match("^%-%-(.+)$")
  local option = OPTION_BY_NAME[name]
  if not option then
    fail(EXIT_USAGE, ("unknown option %s; see jdbfs --help"):format(word))
  end
  if not option.parse then
    if value then fail(EXIT_USAGE, ("--%s takes no value"):format(name)) end
    options[name] = true
    return i
  end
  if not value then
    i = i + 1
    value = args[i]
    if not value then fail(EXIT_USAGE, ("--%s needs a value"):format(name)) end
  end
  local parsed, reason = option.parse(value)
  if not parsed then fail(EXIT_USAGE, ("--%s: %q %s"):format(name, value, reason)) end
  options[name] = parsed
  return i
end

-- The options of `run`, with the names of the workloads in order.
local function read_run(args)
  local options = { workloads = {}, has = {}, argv = {} }
  for _, option in ipairs(OPTIONS) do
    options[option.name] = option.default
  end
  for i, word in ipairs(args) do
    options.argv[i] = word
  end
  local i = 2
  while args[i] do
    local word = args[i]
    if word:sub(1, 1) == "-" then
      i = read_option(args, i, options)
    elseif not ABOUT[word] then
      fail(EXIT_USAGE, ("there is no workload %q; see jdbfs list"):format(word))
    elseif options.has[word] then
      fail(EXIT_USAGE, ("workload %s is named twice"):format(word))
    else
      options.has[word] = true
      options.workloads[#options.workloads + 1] = word
    end
    i = i + 1
  end
  if #options.workloads == 0 then
    for n, name in ipairs(WORKLOADS) do
      options.workloads[n], options.has[name] = name, true
    end
  end
  return options
end

-- The scratch directory --------------------------------------------------------------------------

local LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

-- A directory name nobody else is likely to draw. It is deliberately not drawn from --seed.
local function scratch_name()
  local source, bytes = open_stream("/dev/urandom", "rb"), nil
  if source then
    bytes = source:read(6)
    source:close()
  end
  local random = random_stream(time(), floor(clock() * 1e6), #tostring({}))
  local name = {}
  for i = 1, 6 do
    local draw = (bytes and bytes:byte(i) or 0) + random(#LETTERS)
    name[i] = LETTERS:sub(draw % #LETTERS + 1, draw % #LETTERS + 1)
  end
  return "jdbfs-" .. concat(name)
end

-- Makes a file that did not exist. Returns it, or nil, message, err.
local function make_file(run, name)
  local path = run.scratch .. "/" .. name
  local options = { exclusive = true, direct = run.options.buffered and "off" or "require" }
  local open = name == "wal" and run.jdbfs.open_wal or run.jdbfs.create
  local file, message, err = open(path, options)
  if not file then return nil, message, err end
  run.made[#run.made + 1] = { path = path, file = file }
  run.files[name] = file
  return file
end

-- Refusing direct I/O is a property of the place, not an accident: it is told with the way out.
local function fail_open(message, err)
  if err and (err.kind == "Unsupported" or err.name == "EINVAL") then
    fail(EXIT_USAGE, message .. " (--buffered would go through the page cache)")
  end
  fail(EXIT_FAILED, message)
end

-- Makes the directory and the first file in it. Whoever creates a file with O_EXCL owns it, so even
-- if two processes drew the same name, neither would touch the other's file.
local function make_scratch(run)
  local jdbfs, dir = run.jdbfs, run.options.dir
  local first = run.plan.data > 0 and "data" or "wal"
  for _ = 1, 100 do
    local path = dir:gsub("([^/])/+$", "%1") .. "/" .. scratch_name()
    local there, message = jdbfs.exists(path)
    if there == nil then fail(EXIT_FAILED, message) end
    if not there then
      local made, why = jdbfs.mkdir(path)
      if not made then fail(EXIT_FAILED, why) end
      run.scratch = path
      local file, reason, err = make_file(run, first)
      if file then return file end
      if not (err and err.name == "EEXIST") then fail_open(reason, err) end
      run.scratch = nil
    end
  end
  fail(EXIT_FAILED, ("%s: no free name for a scratch directory in 100 attempts"):format(dir))
end

-- Removes what make_scratch and make_file made, and nothing else. Returns a list of complaints.
local function remove_scratch(run)
  local complaints = {}
  for i = #run.made, 1, -1 do
    local made = run.made[i]
    run.made[i] = nil
    local closed, why_not = made.file:close()
    local removed, message = run.jdbfs.remove(made.path)
    if not closed then complaints[#complaints + 1] = tostring(why_not) end
    if not removed then complaints[#complaints + 1] = tostring(message) end
  end
  if run.scratch then
    -- os.remove is C's remove(), which takes away an empty directory and never a full one.
    local removed, message = remove_entry(run.scratch)
    if not removed then complaints[#complaints + 1] = "left behind: " .. tostring(message) end
    run.scratch = nil
  end
  return complaints
end

-- How many bytes each file gets. Refuses before anything is written.
local function make_plan(run)
  local options = run.options
  local free, why_not = run.jdbfs.space(options.dir)
  if not free then fail(EXIT_FAILED, why_not) end
  local size, pages = options.size, options.has.randread or options.has.randwrite
  if not size then
    size = min(DEFAULT_SIZE_MAX, floor(free / 10))
    size = size - size % options.bs
    if size == 0 then
      fail(EXIT_USAGE, ("%s has only %s free"):format(options.dir, format_bytes(free)))
    end
  end
  if pages and (size < options.bs or size % options.bs ~= 0) then
    fail(EXIT_USAGE, ("a scratch file of %s does not hold a whole number of blocks of %s")
      :format(format_bytes(size), format_bytes(options.bs)))
  end
  local record = options.record + RECORD_HEADER
  local group = round_up(min(options.qd * record, max(WAL_GROUP_MAX, record)), WAL_UNIT)
  local plan = { size = size, data = 0, wal = 0, group = group }
  if pages then plan.data = size end
  if options.has.wal then
    plan.wal = max(round_up(min(size, WAL_LENGTH_MAX), WAL_UNIT), group)
  end
  if plan.data + plan.wal > free * FREE_SHARE then
    fail(EXIT_USAGE, ("the scratch files need %s and %s has only %s free")
      :format(format_bytes(plan.data + plan.wal), options.dir, format_bytes(free)))
  end
  run.plan = plan
end

-- Measuring --------------------------------------------------------------------------------------

-- Whether Ctrl-C was pressed while tasks ran. The stand-alone PUC interpreter answers SIGINT with a
-- hook on the main thread, which fires only when that thread runs Lua again; here it is busy in C
-- until the run ends, so the tasks look at the hook and end the run. (LuaJIT raises in the task.)
local function interrupted(run)
  return run.main_thread ~= nil and gethook(run.main_thread) == "external hook"
end

-- Figures of one workload. Operations begun between the warm-up and the stop are counted, however
-- long they take: ending the count at the stop would forget exactly the slowest.
local function new_meter(run, name, operation)
  return {
    run = run,
    name = name,
    operation = operation,
    latency = histogram.new(),
    bytes = 0,
    errors = 0,
    measuring = false,
    stop = false,
  }
end

-- The clocks and counters at one moment.
local function take_marks(run)
  local jdbfs, stats = run.jdbfs, nil
  if jdbfs.stats then stats = jdbfs.stats() end
  if type(stats) ~= "table" then stats = {} end
  return { now = jdbfs.now(), cpu = clock(), stats = stats }
end

-- Ends a workload early. Its figures then span the time until now.
local function give_up(meter)
  meter.stop, meter.gave_up = true, true
  if meter.from and not meter.till then meter.till = take_marks(meter.run) end
end

local function note_error(meter, message)
  meter.errors = meter.errors + 1
  meter.first_error = meter.first_error or tostring(message)
  if meter.errors >= ERRORS_MAX then give_up(meter) end
end

local function wait(meter, seconds)
  local now, sleep = meter.run.jdbfs.now, meter.run.jdbfs.sleep
  local till = now() + seconds
  while not meter.stop do
    local left = till - now()
    if left <= 0 then return end
    sleep(min(left, TICK))
    if interrupted(meter.run) then meter.stop = true end
  end
end

-- Runs in a task beside the workers: warm-up, measured time, stop. What the workers have in flight
-- at the stop is waited for and belongs to the measured time.
local function conduct(meter, workers)
  wait(meter, meter.run.options.warmup)
  meter.from = take_marks(meter.run)
  meter.measuring = true
  wait(meter, meter.run.options.time)
  meter.stop = true
  for i = 1, #workers do
    workers[i]:join()
  end
  if not meter.till then meter.till = take_marks(meter.run) end
end

-- What grew between the two marks, or nil when jdbfs does not count it.
local function growth(meter, counter)
  local from, till = meter.from.stats[counter], meter.till.stats[counter]
  if type(from) == "number" and type(till) == "number" then return till - from end
end

-- Figures derived from the meter, for both forms of the report.
local function summarize(meter)
  local samples = meter.latency.count
  meter.elapsed = meter.till.now - meter.from.now
  meter.rate = ratio(samples, meter.elapsed)
  meter.byte_rate = ratio(meter.bytes, meter.elapsed)
  meter.cpu = meter.till.cpu - meter.from.cpu
  meter.cores = ratio(meter.cpu, meter.elapsed)
  meter.cpu_per_operation = ratio(meter.cpu, samples)
  meter.submitted = growth(meter, "submitted")
  meter.completed = growth(meter, "completed")
  meter.entries = growth(meter, "entries")
  meter.pool_operations = growth(meter, "pool_operations")
  meter.batch = ratio(meter.submitted, meter.entries)
  if meter.entries then
    -- A worker thread makes a system call of its own for every operation it runs.
    meter.worker_share = ratio(meter.pool_operations or 0, samples)
    meter.entries_per_operation = ratio(meter.entries + (meter.pool_operations or 0), samples)
  end
  return meter
end

-- Starts count workers, each a call of body(meter, id), and conducts them to the end.
local function run_workers(meter, body, count)
  local spawn, workers = meter.run.jdbfs.spawn, {}
  for id = 1, count do
    workers[id] = spawn(body, meter, id)
  end
  conduct(meter, workers)
end

-- The scratch file -------------------------------------------------------------------------------

-- Writes the chunks that are left, together with its sisters. Every page carries its own offset, so
-- no two pages of the file are equal and a device that deduplicates gains nothing.
local function fill_chunks(run, state)
  local buf = run.jdbfs.buffer(FILL_CHUNK)
  local piece = #state.pattern
  for off = 0, FILL_CHUNK - piece, piece do
    buf:set(off, state.pattern)
  end
  while state.next < run.plan.data and not state.failure and not interrupted(run) do
    local off = state.next
    local length = min(FILL_CHUNK, run.plan.data - off)
    state.next = off + length
    for page = 0, FILL_CHUNK - 4096, 4096 do
      buf:u64(page, off + page)
    end
    local written, message = run.files.data:write_at(buf, off, 0, length)
    if not written then state.failure = message end
  end
  buf:free()
end

-- Runs as a task. Returns true, or nil and a message.
local function fill(run)
  local file, tasks = run.files.data, {}
  local state = { next = 0, pattern = random_bytes(random_stream(run.options.seed, 0, 0), 65536) }
  local reserved, reason, err = file:preallocate(run.plan.data)
  if not reserved and not (err and err.kind == "Unsupported") then return nil, reason end
  for i = 1, FILL_TASKS do
    tasks[i] = run.jdbfs.spawn(fill_chunks, run, state)
  end
  for i = 1, FILL_TASKS do
    tasks[i]:join()
  end
  if state.failure then return nil, state.failure end
  local synced, why_not = file:sync_all()
  if not synced then return nil, why_not end
  return true
end

-- Runs as a task: the log's zeros are written, so that appending changes no metadata.
local function fill_wal(run)
  local done, message = run.files.wal:preallocate(run.plan.wal, "zero")
  if not done then return nil, message end
  return run.files.wal:sync_all()
end

-- Runs f(...) in the tasks' world and turns its failure, or Ctrl-C, into the end of the command.
local function in_tasks(run, f, ...)
  local done, message = run.jdbfs.run(f, ...)
  if interrupted(run) then fail(EXIT_INTERRUPTED, "interrupted") end
  if not done then fail(EXIT_FAILED, tostring(message)) end
end

-- Workloads --------------------------------------------------------------------------------------

-- One coroutine of randread or randwrite. Blocks written begin with what was drawn last, so that
-- their content changes from write to write.
local function page_worker(meter, id)
  local run, latency = meter.run, meter.latency
  local bs, now = run.options.bs, run.jdbfs.now
  local blocks, file = run.plan.data / bs, run.files.data
  local writes = meter.operation == "write"
  local transfer = writes and file.write_at or file.read_at
  local random = random_stream(run.options.seed, writes and 2 or 1, id)
  local buf = run.jdbfs.buffer(bs)
  if writes then
    buf:set(0, random_bytes(random, 512))
  end
  while not meter.stop do
    local off = random(blocks) * bs
    if writes then buf:u64(0, off) end
    local counted, began = meter.measuring, now()
    local moved, message = transfer(file, buf, off)
    local took = now() - began
    if not moved then
      note_error(meter, message)
    elseif counted then
      latency:record(took)
      meter.bytes = meter.bytes + moved
    end
  end
  buf:free()
end

local function run_pages(meter)
  run_workers(meter, page_worker, meter.run.options.qd)
  return true
end

-- Puts the records of a group into the log's buffer and returns the length to write: whole blocks,
-- the rest of the last one zero.
local function pack_group(log, group)
  local buf, at = log.buf, 0
  for i = 1, #group do
    local record = group[i]
    log.sequence = log.sequence + 1
    buf:u32(at, #record)
    buf:u64(at + 8, log.sequence)
    buf:set(at + RECORD_HEADER, record)
    buf:u32(at + 4, buf:crc32c(at + 8, 8 + #record))
    at = at + RECORD_HEADER + #record
  end
  local length = round_up(at, log.block)
  if length > at then buf:fill(0, at, length - at) end
  return length
end

-- The one task that writes the log. While a write is under way the next group fills up; that is the
-- whole of group commit.
local function flush_groups(meter)
  local log, now = meter.log, meter.run.jdbfs.now
  while true do
    local group = log.queue:take()
    if group == log.stop then return end
    if log.open_group == group then log.open_group = nil end
    local length = pack_group(log, group)
    if log.off + length > meter.run.plan.wal then log.off = 0 end
    local counted, began = meter.measuring, now()
    local written, message = log.file:write_at(log.buf, log.off, 0, length)
    local took = now() - began
    log.off = log.off + length
    group.finished, group.durable, group.message = true, written ~= nil, message
    if not written then
      note_error(meter, message)
      give_up(meter)
    elseif counted then
      log.latency:record(took)
      log.bytes = log.bytes + length
      log.records = log.records + #group
      log.largest = max(log.largest, #group)
    end
    group.done:set()
  end
end

-- Returns when the record is durable: true, or false and the message of the failed write.
local function commit(log, record)
  local group = log.open_group
  if group and #group < log.group_max then
    group[#group + 1] = record
  else
    group = { record, done = log.new_event() }
    log.open_group = group
    log.queue:put(group)
  end
  while not group.finished do
    group.done:wait()
  end
  return group.durable, group.message
end

local function wal_client(meter, id)
  local log, now, latency = meter.log, meter.run.jdbfs.now, meter.latency
  local random = random_stream(meter.run.options.seed, 3, id)
  local record = random_bytes(random, meter.run.options.record)
  while not meter.stop do
    local counted, began = meter.measuring, now()
    local durable = commit(log, record)
    local took = now() - began
    if durable and counted then
      latency:record(took)
      meter.bytes = meter.bytes + #record
    end
  end
end

local function run_wal(meter)
  local run, log = meter.run, meter.log
  local flusher = run.jdbfs.spawn(flush_groups, meter)
  run_workers(meter, wal_client, run.options.qd)
  log.queue:put(log.stop)
  flusher:join()
  log.buf:free()
  return true
end

-- The state that clients and flusher share. The queue has room for one group per client, so putting
-- a group never waits.
local function new_log(run)
  local options, jdbfs = run.options, run.jdbfs
  local info = run.files.wal:info()
  local block = max(info.write_alignment or 4096, 512)
  return {
    file = run.files.wal,
    buf = jdbfs.buffer(run.plan.group),
    block = block,
    queue = jdbfs.queue(options.qd + 1),
    new_event = jdbfs.event,
    group_max = max(1, floor(run.plan.group / (options.record + RECORD_HEADER))),
    off = 0,
    sequence = 0,
    latency = histogram.new(),
    bytes = 0,
    records = 0,
    largest = 0,
    stop = {},
  }
end

local function run_workload(run, name)
  local meter = new_meter(run, name, name == "randread" and "read" or "write")
  local body = run_pages
  if name == "wal" then
    meter.operation, meter.log, body = "commit", new_log(run), run_wal
  end
  collectgarbage()
  in_tasks(run, body, meter)
  return summarize(meter)
end

-- What the reader must know ----------------------------------------------------------------------

-- File systems whose figures may not be a local device's, even when they accept O_DIRECT.
local DOUBTFUL = {
  tmpfs = "is memory, not a device",
  ramfs = "is memory, not a device",
  btrfs = "may use the page cache all the same, for checksums or compression",
  zfs = "has a cache of its own",
  overlay = "is a layer above the file system that does the work",
  nfs = "is a network file system",
  cifs = "is a network file system",
  smb3 = "is a network file system",
  fuse = "is served by a user process",
}

local function warn(run, message)
  run.warnings[#run.warnings + 1] = message
end

-- Collects what the files say about themselves, and refuses blocks they cannot take.
local function inspect(run)
  local options = run.options
  for _, made in ipairs(run.made) do
    local info, message = made.file:info()
    if not info then fail(EXIT_FAILED, message) end
    run.file_info = run.file_info or info
    if not info.direct and not options.buffered then
      warn(run, made.path .. ": direct I/O is NOT in force")
    end
  end
  local info = run.file_info
  for _, name in ipairs({ "read_alignment", "write_alignment" }) do
    local unit = not options.buffered and info[name] or 1
    if run.plan.data > 0 and options.bs % unit ~= 0 then
      fail(EXIT_USAGE, ("--bs %s is not a multiple of %s, the %s of this file")
        :format(format_bytes(options.bs), format_bytes(unit), (name:gsub("_", " "))))
    end
  end
  if options.buffered then
    warn(run, "--buffered: direct I/O is NOT in force, the page cache takes part;"
      .. " these are not the device's figures")
  end
  local doubt = DOUBTFUL[info.file_system]
  if doubt then
    warn(run, ("%s %s; these may not be a device's figures"):format(info.file_system, doubt))
  end
  if options.backend and options.backend ~= "auto" and run.info.backend ~= options.backend then
    warn(run, ("backend %s was asked for and %s is used")
      :format(options.backend, tostring(run.info.backend)))
  end
end

-- Names the percentiles that too few samples leave out.
local function warn_samples(run, what, latency)
  local missing = {}
  for _, percentile in ipairs(PERCENTILES) do
    local needed = histogram.samples_needed(percentile[2])
    if latency.count < needed then
      missing[#missing + 1] = ("%s needs %d"):format(percentile[1], needed)
    end
  end
  if #missing > 0 then
    warn(run, ("%s: too few samples (%d): %s"):format(what, latency.count, concat(missing, ", ")))
  end
end

-- Warnings that only the figures can give.
local function judge(run, meter)
  local name, count = meter.name, meter.latency.count
  if meter.errors > 0 then
    warn(run, ("%s: %d %s, the first: %s"):format(name, meter.errors,
      meter.errors == 1 and "error" or "errors", meter.first_error))
  end
  if meter.gave_up then
    warn(run, name .. ": gave up early; its figures span the time until then")
  end
  if count == 0 then
    warn(run, name .. ": nothing completed, there are no figures")
    return
  end
  warn_samples(run, name, meter.latency)
  if meter.log then warn_samples(run, name .. "'s writes to the file", meter.log.latency) end
  if meter.cores and meter.cores >= 0.9 then
    warn(run, ("%s: the process kept %.2f cores busy; it may be the limit, not the device")
      :format(name, meter.cores))
  end
end

-- The report for people --------------------------------------------------------------------------

local function lua_name()
  local jit = rawget(_G, "jit")
  return type(jit) == "table" and jit.version or _VERSION
end

local function say(run, format, ...)
  if not run.options.json then run.out:write(format:format(...), "\n") end
end

local function durability_text(info)
  local durability = info.durability
  if type(durability) ~= "table" then return nil end
  local reason = durability.reasons or durability.reason
  if type(reason) == "table" then reason = concat(reason, "; ") end
  return tostring(durability.class) .. (reason and reason ~= "" and ": " .. reason or "")
end

local function say_header(run)
  local options, info, file, plan = run.options, run.info, run.file_info, run.plan
  say(run, "jdbfs %s   %s   %s", tostring(info.version), lua_name(),
    tostring(info.kernel or "unknown kernel"))
  say(run, "backend   %s%s", tostring(info.backend), info.reason and ": " .. info.reason or "")
  local parts = {}
  if plan.data > 0 then parts[#parts + 1] = "data " .. format_bytes(plan.data) end
  if plan.wal > 0 then parts[#parts + 1] = "wal " .. format_bytes(plan.wal) end
  say(run, "scratch   %s (%s) on %s; removed at the end", run.scratch, concat(parts, ", "),
    file.file_system or "an unknown file system")
  local system = file.file_system or "the file system"
  say(run, "direct    %s", not file.direct and "NOT IN FORCE"
    or DOUBTFUL[system] and "accepted, but " .. system .. " " .. DOUBTFUL[system]
    or "in force: " .. system .. " accepts it and the page cache is bypassed")
  say(run, "aligned   memory %s, reads %s, writes %s%s", tostring(file.memory_alignment),
    tostring(file.read_alignment), tostring(file.write_alignment),
    file.alignment_source and " (source: " .. file.alignment_source .. ")" or "")
  if durability_text(file) then say(run, "durable   %s", durability_text(file)) end
  say(run, "load      %d coroutines, blocks of %s, %gs each after %gs of warm-up, seed %.0f",
    options.qd, format_bytes(options.bs), options.time, options.warmup, options.seed)
end

local function say_warnings(run)
  while run.warned < #run.warnings do
    run.warned = run.warned + 1
    say(run, "warning   %s", run.warnings[run.warned])
  end
end

local function say_columns(run)
  say(run, "")
  say(run, "%-10s %8s %9s %8s %8s %8s %8s %9s %7s", "", "ops/s", "MiB/s", "p50", "p99", "p99.9",
    "max", "samples", "errors")
end

local function say_result(run, meter)
  local latency = meter.latency
  say(run, "%-10s %8s %9s %8s %8s %8s %8s %9d %7d", meter.name, format_rate(meter.rate),
    ("%.1f"):format((meter.byte_rate or 0) / MIB), format_seconds(latency:percentile(50000)),
    format_seconds(latency:percentile(99000)), format_seconds(latency:percentile(99900)),
    format_seconds(latency:largest()), latency.count, meter.errors)
end

local function say_wal(run, meter)
  local log = meter.log
  local writes = log.latency.count
  if writes == 0 then return end
  say(run, "")
  say(run, "wal: %s commits/s of %s (MiB/s counts these bytes); group size mean %.1f, max %d",
    format_rate(meter.rate), format_bytes(run.options.record), log.records / writes, log.largest)
  say(run, "     %s writes/s to the file (O_DSYNC), mean %s with headers and padding,"
    .. " p50 %s, p99 %s", format_rate(writes / meter.elapsed), format_bytes(log.bytes / writes),
    format_seconds(log.latency:percentile(50000)), format_seconds(log.latency:percentile(99000)))
end

local function say_costs(run, meter)
  local cost = meter.cpu_per_operation
  local entries = meter.entries_per_operation
  say(run, "%-10s cpu %s per %s, %.2f cores; kernel entries per %s %s%s, mean batch %s",
    meter.name, cost and format_seconds(cost) or "unknown", meter.operation, meter.cores or 0,
    meter.operation, entries and ("%.3f"):format(entries) or "unknown",
    entries and meter.worker_share > 0 and (" (%.3f by workers)"):format(meter.worker_share) or "",
    meter.batch and ("%.1f"):format(meter.batch) or "unknown")
end

local function say_footer(run)
  for _, meter in ipairs(run.meters) do
    if meter.name == "wal" then say_wal(run, meter) end
  end
  say(run, "")
  say_warnings(run)
  for _, meter in ipairs(run.meters) do
    say_costs(run, meter)
  end
  say(run, "")
  say(run, "Latency is what a coroutine sees, from its call until it runs again, with its wait for")
  say(run, "other coroutines. The load is a closed loop: calls that a stall holds back are not")
  say(run, "counted as late. cpu is the time of the whole process as os.clock() tells it.")
  if run.options.has.randwrite then
    say(run, "randwrite's writes are not synced: a cache in the device may still hold them.")
  end
end

-- The report for programs ------------------------------------------------------------------------

-- Seconds as whole nanoseconds.
local function ns(seconds)
  return seconds and floor(seconds * 1e9 + 0.5)
end

local function json_latency(latency)
  local fields = { { "from", "call to resume" }, { "samples", latency.count } }
  for _, percentile in ipairs(PERCENTILES) do
    fields[#fields + 1] = { percentile[1] .. "_ns", ns(latency:percentile(percentile[2])) }
  end
  fields[#fields + 1] = { "max_ns", ns(latency:largest()) }
  fields[#fields + 1] = { "mean_ns", ns(latency:mean()) }
  local buckets = latency:buckets()
  for i, bucket in ipairs(buckets) do
    buckets[i] = json_array(bucket)
  end
  fields[#fields + 1] = { "hist", json_array(buckets) }
  return json_object(fields)
end

local function json_log(meter)
  local log = meter.log
  if not log then return nil end
  local writes = log.latency.count
  return json_object({
    { "commits_per_s", meter.rate },
    { "group_mean", ratio(log.records, writes) },
    { "group_max", log.largest },
    { "writes_per_s", ratio(writes, meter.elapsed) },
    { "bytes_written", log.bytes },
    { "write_latency", json_latency(log.latency) },
  })
end

local function json_meter(meter)
  return json_object({
    { "operation", meter.operation },
    { "elapsed_s", meter.elapsed },
    { "ops_per_s", meter.rate },
    { "bytes_per_s", meter.byte_rate },
    { "errors", meter.errors },
    { "first_error", meter.first_error },
    { "latency", json_latency(meter.latency) },
    { "log", json_log(meter) },
    { "cpu_s", meter.cpu },
    { "cpu_s_per_op", meter.cpu_per_operation },
    { "submitted", meter.submitted },
    { "completed", meter.completed },
    { "entries", meter.entries },
    { "entries_per_op", meter.entries_per_operation },
    { "batch_mean", meter.batch },
    { "pool_operations", meter.pool_operations },
  })
end

local function json_environment(run)
  local info, file = run.info or {}, run.file_info or {}
  local durability = type(file.durability) == "table" and file.durability or {}
  local reasons = durability.reasons or durability.reason
  if type(reasons) == "table" then reasons = json_array(reasons) end
  return json_object({
    { "lua", lua_name() },
    { "kernel", info.kernel },
    { "backend", info.backend },
    { "backend_reason", info.reason },
    { "depth", info.depth },
    { "file_system", file.file_system },
    { "direct", file.direct },
    { "direct_policy", file.direct_policy },
    { "memory_alignment", file.memory_alignment },
    { "read_alignment", file.read_alignment },
    { "write_alignment", file.write_alignment },
    { "alignment_source", file.alignment_source },
    { "durability", json_object({ { "class", durability.class }, { "reasons", reasons } }) },
  })
end

local function json_document(run, status, message)
  local options, plan, jobs = run.options, run.plan or {}, {}
  for i, meter in ipairs(run.meters) do
    jobs[i] = { meter.name, json_meter(meter) }
  end
  return json_object({
    { "schema", "jdbfs.run/0" },
    { "tool", json_object({ { "name", "jdbfs" }, { "version", (run.info or {}).version } }) },
    { "argv", json_array(options.argv) },
    { "seed", options.seed },
    { "env", json_environment(run) },
    { "plan", json_object({
      { "workloads", json_array(options.workloads) },
      { "data_bytes", plan.data },
      { "wal_bytes", plan.wal },
      { "bs", options.bs },
      { "qd", options.qd },
      { "record", options.record },
      { "time_s", options.time },
      { "warmup_s", options.warmup },
      { "buffered", options.buffered or false },
    }) },
    { "jobs", json_object(jobs) },
    { "warnings", json_array(run.warnings) },
    { "error", message },
    { "exit", status },
  })
end

-- Commands ---------------------------------------------------------------------------------------

local function load_jdbfs()
  local loaded, jdbfs = pcall(require, "jdbfs")
  if not loaded then fail(EXIT_FAILED, "the module jdbfs does not load: " .. tostring(jdbfs)) end
  return jdbfs
end

local function choose_backend(jdbfs, name)
  if not name then return end
  local called, done, message = pcall(jdbfs.setup, { backend = name })
  if not called then fail(EXIT_USAGE, ("--backend %s: %s"):format(name, tostring(done))) end
  if not done then fail(EXIT_USAGE, ("--backend %s: %s"):format(name, tostring(message))) end
end

-- The whole run, in the main thread. Raises on failure; the caller cleans up.
local function perform(run)
  run.jdbfs = load_jdbfs()
  choose_backend(run.jdbfs, run.options.backend)
  local info, message = run.jdbfs.info()
  if not info then fail(EXIT_FAILED, message) end
  run.info = info
  make_plan(run)
  make_scratch(run)
  if run.plan.wal > 0 and not run.files.wal then
    local file, why_not, err = make_file(run, "wal")
    if not file then fail_open(why_not, err) end
  end
  inspect(run)
  say_header(run)
  say_warnings(run)
  if run.plan.data > 0 then in_tasks(run, fill, run) end
  if run.plan.wal > 0 then in_tasks(run, fill_wal, run) end
  say_columns(run)
  for _, name in ipairs(run.options.workloads) do
    local meter = run_workload(run, name)
    run.meters[#run.meters + 1] = meter
    judge(run, meter)
    say_result(run, meter)
  end
  say_footer(run)
end

-- Errors raised on purpose pass; others get the place where they happened.
local function explain(failure)
  if type(failure) == "table" and failure.status then return failure end
  local text = tostring(failure)
  if text:find("interrupted!", 1, true) then
    return { status = EXIT_INTERRUPTED, message = "interrupted" }
  end
  return { status = EXIT_FAILED, message = traceback(text, 2) }
end

-- Ctrl-C may hit the removal itself; the stand-alone interpreter raises for it once.
local function clean_up(run)
  if not run.jdbfs then return {} end
  local called, complaints = pcall(remove_scratch, run)
  if not called then called, complaints = pcall(remove_scratch, run) end
  return called and complaints or { tostring(complaints) }
end

local function command_run(args, out, err, main_thread)
  local run = {
    options = read_run(args),
    out = out,
    main_thread = main_thread,
    made = {},
    files = {},
    meters = {},
    warnings = {},
    warned = 0,
  }
  local status, message = EXIT_OK, nil
  local performed, failure = xpcall(function()
    return perform(run)
  end, explain)
  if not performed then status, message = failure.status, failure.message end
  for _, meter in ipairs(run.meters) do
    if meter.errors > 0 and status == EXIT_OK then status = EXIT_FAILED end
  end
  for _, complaint in ipairs(clean_up(run)) do
    if status == EXIT_OK then status = EXIT_FAILED end
    err:write("jdbfs: ", complaint, "\n")
    message = message or complaint
  end
  if not performed then err:write("jdbfs: ", failure.message, "\n") end
  if run.options.json then out:write(json_document(run, status, message).json, "\n") end
  return status
end

local function command(args, out, err, main_thread)
  local verb = args[1]
  for _, word in ipairs(args) do
    if word == "--help" or word == "-h" then verb = "--help" end
  end
  if verb == "run" then return command_run(args, out, err, main_thread) end
  if verb == "--help" then
    out:write(help_text())
  elseif verb == "--version" then
    out:write(("jdbfs %s (%s)\n"):format(tostring(load_jdbfs().info().version), lua_name()))
  elseif verb == "list" then
    if args[2] then fail(EXIT_USAGE, "list takes no arguments yet") end
    out:write(list_text())
  elseif verb then
    fail(EXIT_USAGE, ("there is no command %q; see jdbfs --help"):format(verb))
  else
    fail(EXIT_USAGE, "no command given; see jdbfs --help")
  end
  return EXIT_OK
end

-- Runs the command with a list of arguments; out and err are anything with a write method. Returns
-- the exit status: 0 ok, 1 I/O error, 2 usage or refusal, 130 interrupted.
local function main(args, out, err)
  out, err = out or stdout, err or stderr
  local called, status = xpcall(function()
    return command(args, out, err, (running()))
  end, explain)
  if called then return status end
  err:write("jdbfs: ", status.message, "\n")
  return status.status
end

return {
  main = main,
  -- For the specs.
  parse_size = parse_size,
  parse_time = parse_time,
  random_stream = random_stream,
  generator = generator,
}
