-- Whether a block device may be written to: the user repeats its path, nobody uses it, and nothing
-- that looks like data is on it.

local jdbfs = require("jdbfs")
local status = require("jdbfs.command.status")

local ipairs, pairs, tostring = ipairs, pairs, tostring
local open_stream, popen = io.open, io.popen

local M = {}

-- What stands where on a device that holds something. LVM2 looks at the first four sectors.
local SIGNATURES = {
  { 1080, "\83\239", "an ext2, ext3 or ext4 file system" }, { 0, "XFSB", "an XFS file system" },
  { 65600, "_BHRfS_M", "a Btrfs file system" }, { 512, "EFI PART", "a GPT partition table" },
  { 4096, "EFI PART", "a GPT partition table" }, { 510, "\85\170", "an MBR partition table" },
  { 0, "LUKS\186\190", "LUKS encryption" }, { 4086, "SWAPSPACE2", "swap" },
  { 4086, "SWAP-SPACE", "swap" }, { 0, "LABELONE", "an LVM2 volume" },
  { 512, "LABELONE", "an LVM2 volume" }, { 1024, "LABELONE", "an LVM2 volume" },
  { 1536, "LABELONE", "an LVM2 volume" }, { 4096, "\252\78\43\169", "an md array" },
}

-- The name of what the first bytes of a device or file hold, or nil.
function M.signature(text)
  for _, s in ipairs(SIGNATURES) do
    if text:sub(s[1] + 1, s[1] + #s[2]) == s[2] then return s[3] end
  end
end

local function lines(path)
  local list, file = {}, open_stream(path, "r")
  if file then
    for line in file:lines() do list[#list + 1] = line end
    file:close()
  end
  return list
end

-- Why the device with these numbers and this name is in use, or nil. Its partitions count as well.
local function in_use(number, name)
  local own = { [number] = true }
  for _, line in ipairs(lines("/proc/partitions")) do
    local major, minor, partition = line:match("^%s*(%d+)%s+(%d+)%s+%d+%s+(%S+)")
    if partition and partition:sub(1, #name) == name and partition:match("%d$") then
      own[major .. ":" .. minor] = true
    end
  end
  for _, line in ipairs(lines("/proc/self/mountinfo")) do
    local mounted, where = line:match("^%d+ %d+ (%d+:%d+) %S+ (%S+)")
    if mounted and own[mounted] then return "is mounted at " .. where end
  end
  for _, line in ipairs(lines("/proc/swaps")) do
    local swap = line:match("^/dev/(%S+)")
    if swap and swap:sub(1, #name) == name then return "is used for swap" end
  end
  for candidate in pairs(own) do
    local holders = jdbfs.exists("/sys/dev/block/" .. candidate .. "/holders")
      and M.entries("/sys/dev/block/" .. candidate .. "/holders")
    if holders and holders ~= "" then return "is held by " .. holders end
  end
end

-- The names in a directory of sysfs. Lua has no readdir, and ls gives regular files only.
function M.entries(path)
  local pipe = popen("ls '" .. path .. "' 2>/dev/null")
  if not pipe then return "" end
  local text = pipe:read("*a")
  pipe:close()
  return (text:gsub("%s+$", ""):gsub("\n", ", "))
end

-- Ends the run when the device must not be written to.
function M.check(path, options)
  if options["allow-device"] ~= path then
    status.usage("%s is a block device: writing to it needs --allow-device %s", path, path)
  end
  local stat, message = jdbfs.stat(path)
  if not stat then status.fail(status.FAILED, message) end
  local number = M.number_of(path)
  local name = path:match("([^/]+)$")
  local reason = number and in_use(number, name)
  if reason then status.usage("%s %s", path, reason) end
  if not number then status.usage("%s: cannot tell whether it is in use", path) end
  local file, why = jdbfs.open(path, { device = true, direct = "off" })
  if not file then status.fail(status.FAILED, tostring(why)) end
  local text = file:read(0, 69632)
  file:close()
  if not text then status.usage("%s: its beginning cannot be read", path) end
  local found = M.signature(text)
  if found and not options.overwrite then
    status.usage("%s holds %s: --overwrite would destroy it", path, found)
  end
end

-- major:minor by sysfs; the path may be a link such as /dev/disk/by-id/...
function M.number_of(path)
  local pipe = popen("readlink -f '" .. path:gsub("'", "'\\''") .. "' 2>/dev/null")
  local real = pipe and pipe:read("*l") or path
  if pipe then pipe:close() end
  local name = real:match("^/dev/(.+)$")
  return name and lines("/sys/class/block/" .. name:gsub("/", "!") .. "/dev")[1]
end

return M
