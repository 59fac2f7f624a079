-- `jdbfs probe [PATH...]`: what machine, file system and device offer at a path, the backend that
-- is used and why, and what is worth doing about it. It leaves nothing behind.

local arguments = require("jdbfs.command.arguments")
local format = require("jdbfs.command.format")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local machine = require("jdbfs.command.machine")
local status = require("jdbfs.command.status")

local concat = table.concat
local ipairs, tonumber, tostring, type = ipairs, tonumber, tostring, type
local open_stream = io.open

local MEMLOCK_LOW = 8388608 -- bytes; what a kernel gives when nobody chose
local QUEUE = { "scheduler", "nr_requests", "max_sectors_kb", "wbt_lat_usec", "nomerges",
  "rotational", "write_cache", "fua", "io_poll" }

-- What Linux tells in files -----------------------------------------------------------------------

local function first_line(path)
  local file = open_stream(path, "r")
  if not file then return nil end
  local line = file:read("*l")
  file:close()
  return line
end

-- The queue settings of a device; those of its disk when it is a partition. Elsewhere nil.
local function queue_of(device)
  if not device or device:find("[^%w_.-]") then return nil end
  for _, place in ipairs({ "/queue/", "/../queue/" }) do
    local queue, some = {}, false
    for _, name in ipairs(QUEUE) do
      local line = first_line("/sys/class/block/" .. device .. place .. name)
      if line then queue[name], some = tonumber(line) or line, true end
    end
    if some then
      queue.scheduler = tostring(queue.scheduler):match("%[(.-)%]") or queue.scheduler
      return queue
    end
  end
end

local function describe_machine()
  local info, message = jdbfs.info()
  if not info then return nil, message end
  local env = machine.env(info)
  return { kernel = env.kernel, cpus = env.cpus, memlock = env.memlock, lua = env.lua,
    version = info.version, backend = info.backend, backend_reason = info.reason,
    features = info.features,
    io_uring_disabled = tonumber(first_line("/proc/sys/kernel/io_uring_disabled") or "") }
end

-- Warnings ----------------------------------------------------------------------------------------

local function machine_warnings(host)
  local list = {}
  if host.backend ~= "io_uring" then
    list[1] = ("backend %s: every operation takes a thread (%s)"):format(tostring(host.backend),
      tostring(host.backend_reason))
  end
  if (host.io_uring_disabled or 0) > 0 then
    list[#list + 1] = ("kernel.io_uring_disabled is %d: io_uring is %s"):format(
      host.io_uring_disabled, host.io_uring_disabled == 1 and "for privileged processes only"
      or "off; sysctl kernel.io_uring_disabled=0 allows it")
  end
  if type(host.memlock) == "number" and host.memlock < MEMLOCK_LOW then
    list[#list + 1] = ("memlock is %s: raise it (ulimit -l) for rings and registered buffers")
      :format(format.bytes(host.memlock))
  end
  if host.cpus and host.cpus <= 2 then
    list[#list + 1] = ("%s: load generator and device interrupts share cores"):format(
      format.plural(host.cpus, "cpu"))
  end
  return list
end

-- In a directory where no file could be made nothing was tried.
local function is_untried(found)
  return not found.direct and tostring(found.direct_reason):find("^unknown") ~= nil
end

local function path_warnings(found)
  local list = machine.warnings({}, {}, { path = found.path,
    direct = found.direct or is_untried(found), file_system = found.file_system,
    durability = found.durability })
  local durability, queue = found.durability or {}, found.queue or {}
  if durability.class == "unsafe" then
    list[#list + 1] = "nothing written here survives a power loss"
  end
  if durability.volatile_cache and not durability.fua then
    list[#list + 1] = "every durable write flushes the device's whole cache: share syncs (group"
      .. " commit)"
  end
  if found.physical_block and found.write_alignment
    and found.physical_block > found.write_alignment then
    list[#list + 1] = ("writes smaller than %s may be read-modify-write in the device"):format(
      format.bytes(found.physical_block))
  end
  if found.nowait == false then
    list[#list + 1] = "RWF_NOWAIT is refused: every operation of a ring takes a worker thread"
  end
  if queue.nomerges == 0 then
    list[#list + 1] = "queue/nomerges=0 merges sequential I/O: device requests are fewer than"
      .. " operations"
  end
  return list
end

-- One path ----------------------------------------------------------------------------------------

local function describe_path(path)
  local found, message = jdbfs.probe(path)
  if not found then return nil, message end
  found.path = path
  found.queue = queue_of((found.durability or {}).device)
  found.warnings = path_warnings(found)
  return found
end

local function atomic_text(atomic)
  if not atomic or atomic.max == 0 then return "no (statx: unit max 0)" end
  return ("%s to %s"):format(format.bytes(atomic.min), format.bytes(atomic.max))
end

local function sync_text(durability)
  if durability.volatile_cache == nil then return "unknown" end
  if not durability.volatile_cache then return "no volatile cache known: a sync is cheap" end
  return durability.fua and "volatile write-back cache with FUA: single writes can pass it"
    or "volatile write-back cache, no FUA: every sync is a FLUSH"
end

local function queue_text(queue)
  local words = {}
  for _, each in ipairs({ { "scheduler", "sched %s" }, { "nr_requests", "nr_requests %s" },
    { "max_sectors_kb", "max %s KiB" }, { "wbt_lat_usec", "wbt %s us" },
    { "nomerges", "nomerges %s" }, { "io_poll", "poll %s" } }) do
    if queue[each[1]] then words[#words + 1] = each[2]:format(format.text(queue[each[1]])) end
  end
  return concat(words, ", ")
end

local function flags_text(found)
  local words = {}
  for _, each in ipairs({ { "nowait", "RWF_NOWAIT" }, { "dsync_write", "RWF_DSYNC" } }) do
    local taken = found[each[1]]
    if taken ~= nil then words[#words + 1] = each[2] .. (taken and " ok" or " refused") end
  end
  return #words > 0 and concat(words, ", ") or nil
end

local function path_lines(found)
  local durability = found.durability or {}
  local lines = { { "", ("%s%s"):format(found.file_system or "unknown file system",
    durability.device and " on " .. durability.device or "") } }
  local function add(name, text)
    lines[#lines + 1] = { name, text }
  end
  add("O_DIRECT", found.direct
    and ("ok: memory align %s, reads %s, writes %s (%s)"):format(
    format.text(found.memory_alignment), format.text(found.read_alignment),
    format.text(found.write_alignment), format.text(found.alignment_source))
    or (is_untried(found) and "" or "refused: ") .. format.text(found.direct_reason))
  if found.logical_block then
    add("blocks", ("logical %s, physical %s"):format(format.text(found.logical_block),
      format.text(found.physical_block)))
  end
  add("atomic write", atomic_text(found.atomic))
  local flags = flags_text(found)
  if flags then add("flags", flags) end
  add("sync cost", sync_text(durability))
  add("durability", durability.class and durability.class .. ": "
    .. concat(durability.reasons or {}, "; ") or "unknown")
  if durability.mount_options then add("mounted", durability.mount_options) end
  if found.queue then add("device", queue_text(found.queue)) end
  add("backend", ("%s: %s"):format(format.text(found.backend), format.text(found.backend_reason)))
  return lines
end

-- The text ----------------------------------------------------------------------------------------

local function write_machine(host, out)
  local memlock = type(host.memlock) == "number" and format.bytes(host.memlock)
    or format.text(host.memlock)
  out:write(("%s  %s  memlock %s%s  %s  jdbfs %s\n"):format(format.text(host.kernel),
    host.cpus and format.plural(host.cpus, "cpu") or "cpus unknown", memlock,
    host.io_uring_disabled and ("  io_uring_disabled=%d"):format(host.io_uring_disabled) or "",
    format.text(host.lua), format.text(host.version)))
  out:write(("%s  %s\n"):format(format.text(host.backend), (format.text(host.features):gsub(",",
    " "))))
end

local function write_path(found, out)
  for i, line in ipairs(path_lines(found)) do
    out:write(i == 1 and ("%s  %s\n"):format(found.path, line[2])
      or ("  %-12s  %s\n"):format(line[1], line[2]))
  end
end

local function write_warnings(host, paths, out)
  local function write(where, list)
    for _, warning in ipairs(list) do
      out:write("! ", where, warning, "\n")
    end
  end
  write("", host.warnings)
  for _, found in ipairs(paths) do
    write(#paths > 1 and found.path .. ": " or "", found.warnings)
  end
end

-- Running it --------------------------------------------------------------------------------------

local STYLE = { rank = {}, objects = {} }
for place, name in ipairs({ "schema", "machine", "paths", "path", "file_system", "direct",
  "direct_reason", "memory_alignment", "read_alignment", "write_alignment", "alignment_source",
  "logical_block", "physical_block", "atomic", "nowait", "dsync_write", "durability", "queue",
  "backend", "backend_reason" }) do
  STYLE.rank[name] = place
end

-- args are the words behind the verb. Gives the exit status: 0, or 1 when a path cannot be asked.
local function main(args, out, err)
  local options, paths = arguments.parse(args, { { name = "json" } })
  if not options then
    err:write("jdbfs: ", paths, "\n")
    return status.USAGE
  end
  local host, why = describe_machine()
  if not host then
    err:write("jdbfs: ", why, "\n")
    return status.FAILED
  end
  host.warnings = machine_warnings(host)
  local found, exit = {}, status.OK
  for _, path in ipairs(#paths > 0 and paths or { "." }) do
    local each, message = describe_path(path)
    found[#found + 1] = each
    if not each then
      err:write("jdbfs: ", message, "\n")
      exit = status.FAILED
    end
  end
  if options.json then
    out:write(json.encode({ schema = "jdbfs.probe/1", machine = host, paths = found }, STYLE), "\n")
    return exit
  end
  write_machine(host, out)
  for _, each in ipairs(found) do
    write_path(each, out)
  end
  write_warnings(host, found, out)
  return exit
end

return {
  main = main,
}
