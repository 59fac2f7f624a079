-- The env part of the result document: machine, module, file system; and warnings about them.

local ipairs, rawget, tonumber, tostring, type = ipairs, rawget, tonumber, tostring, type
local open_stream = io.open

-- File systems whose figures may not be a local device's, even when they accept O_DIRECT.
local DOUBTFUL = {
  tmpfs = "is memory, not a device",
  ramfs = "is memory, not a device",
  btrfs = "may use the page cache all the same, for checksums or compression",
  zfs = "has a cache of its own",
  overlay = "is a layer above the file system that does the work",
  overlayfs = "is a layer above the file system that does the work",
  nfs = "is a network file system",
  cifs = "is a network file system",
  smb3 = "is a network file system",
  fuse = "is served by a user process",
}

local M = {}

function M.lua_name()
  local jit = rawget(_G, "jit")
  return type(jit) == "table" and jit.version or _VERSION
end

local function count_lines(path, pattern)
  local file, count = open_stream(path, "r"), 0
  if not file then return nil end
  for line in file:lines() do
    if line:find(pattern) then count = count + 1 end
  end
  file:close()
  return count > 0 and count or nil
end

local function locked_memory()
  local file = open_stream("/proc/self/limits", "r")
  if not file then return nil end
  local text = file:read("*a")
  file:close()
  local limit = text:match("Max locked memory%s+(%S+)")
  return tonumber(limit) or limit
end

-- info: of the module; file: of the target or of another file of the run, or nil.
function M.env(info, file)
  local env = { lua = M.lua_name(), kernel = info.kernel, backend = info.backend,
    cpus = count_lines("/proc/cpuinfo", "^processor"), backend_reason = info.reason,
    depth = info.depth, memlock = locked_memory() }
  if not file then return env end
  for _, name in ipairs({ "file_system", "direct", "memory_alignment", "read_alignment",
    "write_alignment" }) do
    env[name] = file[name]
  end
  local durability = file.durability
  if durability then
    env.device = durability.device
    env.durability = { class = durability.class, reasons = durability.reasons }
  end
  return env
end

-- A list of what the reader must know about the place.
function M.warnings(options, info, file)
  local list = {}
  if options.buffered then
    list[#list + 1] = "--buffered: direct I/O is NOT in force, the page cache takes part;"
      .. " these are not the device's figures"
  elseif file and not file.direct then
    list[#list + 1] = tostring(file.path) .. ": direct I/O is NOT in force"
  end
  local doubt = file and DOUBTFUL[file.file_system]
  if doubt then
    list[#list + 1] = ("%s %s; these may not be a device's figures"):format(file.file_system, doubt)
  end
  local device = file and file.durability and file.durability.device
  if device and device:match("^loop") then
    list[#list + 1] = device .. " is a loop device: a file system below takes part"
  end
  if options.backend and options.backend ~= "auto" and info.backend ~= options.backend then
    list[#list + 1] = ("backend %s was asked for and %s is used"):format(options.backend,
      tostring(info.backend))
  end
  return list
end


return M
