-- A disk that fails on command: spec/tools/powercut/disk.c below a loop device, with or without a
-- file system. `local with_disk = require("support_disk").with_disk`, inside a describe block that
-- has called support.setup() or process.setup():
--
--   with_disk(fs, body)  body(disk); the disk is gone afterwards, whatever happens. fs: "ext4",
--                        "xfs", "btrfs" or "none". Gives pending(why) where it cannot be had
--   disk.point           the directory where the file system is mounted
--   disk.device          the block device
--   disk.control(text)   a command of disk.c: "fail write EIO count=1", "delay flush 200000"
--   disk.count(op)       how many operations met the disk, and how many it failed
--   disk.range(path)     words that confine a fault to the file's data: "from=... to=..."
--   disk.remount([options])  unmounts and mounts again, as after a restart; true, or nil and why
--   disk.check()         unmounts and lets fsck look; true, or nil and what it said
--   disk.script(source, o)  process.script with control(text), count(op), point and device in
--                        scope, and of o: env, prefix, loose, forker
--   PREPARED             source for the beginning of such a script: make(o), size, page

local busted = require("busted")
local lfs = require("lfs")
local process = require("support_process")
local support = require("support")

local M = {}

-- A file of 64 pages, all written and durable, on a disk that works.
M.PREPARED = [[
  local path = point .. "/f"
  local size = 64 * PAGE
  local big = jdbfs.buffer(size)
  local function make(o)
    local f = assert(jdbfs.create(path, o))
    big:fill(0x61)
    check("prepare", f:write_at(big, 0))
    check("prepare", f:sync_all())
    check("prepare", jdbfs.sync_dir(point))
    return f
  end
  local page = jdbfs.buffer(PAGE)
  page:fill(0x62)
  local _ = { make, page, size, path }
]]

local SIZE = { ext4 = "64M", xfs = "300M", btrfs = "128M", none = "16M" }
local MKFS = {
  ext4 = "mkfs.ext4 -q -F -b 4096 -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 ",
  xfs = "mkfs.xfs -q -f -K ",
  btrfs = "mkfs.btrfs -q -f -K ",
}
local FSCK = { ext4 = "e2fsck -fn ", xfs = "xfs_repair -n ", btrfs = "btrfs check --readonly " }

local function sh(command)
  return support.sh("PATH=$PATH:/usr/sbin:/sbin; " .. command)
end

local function first_line(text)
  return text:match("[^\n]+") or ""
end

local function lacks(fs)
  if _VERSION ~= "Lua 5.4" and not process.is_jit and not os.getenv("JDBFS_SHUTDOWNS") then
    return "faults of a disk are the core's business: run with Lua 5.4 and LuaJIT"
  end
  local why = support.lacks("root", "losetup", "fusermount3")
  if not why and fs ~= "none" then why = support.lacks("mkfs." .. fs) end
  if why then return why end
  if not lfs.attributes("/dev/fuse") then return "there is no /dev/fuse" end
  local status, out = sh("bash spec/tools/powercut.sh build")
  if status ~= 0 then return first_line(out) end
end

local Disk = {}
Disk.__index = Disk

-- Whether its file system lives, be it in another namespace.
local function is_in_use(self)
  local name = self.device:match("[^/]+$")
  local places = { "/sys/fs/ext4/", "/sys/fs/xfs/" }
  if lfs.attributes("/sys/fs/btrfs") then
    for uuid in lfs.dir("/sys/fs/btrfs") do
      places[#places + 1] = "/sys/fs/btrfs/" .. uuid .. "/devices/"
    end
  end
  for _, place in ipairs(places) do
    if lfs.symlinkattributes(place .. name) then return true end
  end
  return false
end

-- Specs that run beside this one make mount namespaces (unshare -m), with copies of all mounts. As
-- long as one has a copy the file system is not gone: a mount would be the old one again, whatever
-- the options, and fsck would see it in use.
local function wait_until_free(self)
  for _ = 1, 1200 do
    if not is_in_use(self) then return end
    support.sh("sleep 0.05")
  end
  error(self.device .. " is still mounted in another namespace")
end

function Disk:unmount()
  -- Busy while the kernel takes down the ring of a process that has ended: not always in words.
  local left
  for _ = 1, 100 do
    left = sh("umount " .. support.quote(self.point)) == 0
    if left then break end
    support.sh("sleep 0.05")
  end
  if not left then sh("umount -l " .. support.quote(self.point)) end
  wait_until_free(self)
end

local function stop(self)
  pcall(self.control, "clear")
  if self.mounted then pcall(self.unmount, self) end
  if self.device then sh("losetup -d " .. self.device) end
  for _ = 1, 100 do
    if sh("umount " .. support.quote(self.fuse)) == 0 then return end
    if not self.started then return end
    support.sh("sleep 0.05")
  end
  sh("umount -l " .. support.quote(self.fuse))
end

local function mount(self, options)
  local status, out = sh(("mount -t %s -o %s %s %s"):format(self.fs, options or "defaults",
    self.device, support.quote(self.point)))
  if status ~= 0 then return nil, first_line(out) end
  self.mounted = true
  return true
end

local function start(self)
  lfs.mkdir(self.fuse)
  lfs.mkdir(self.point)
  local image = support.quote(self.fuse .. ".img")
  local status, out = sh(("truncate -s %s %s && %s"):format(SIZE[self.fs], image,
    MKFS[self.fs] and MKFS[self.fs] .. image or "true"))
  if status ~= 0 then return nil, first_line(out) end
  -- Nothing of this process may be held by the disk.
  sh(("setsid build/powercut/disk %s /dev/null %s </dev/null >/dev/null 2>&1 &"):format(image,
    support.quote(self.fuse)))
  status = sh(("for i in $(seq 500); do test -e %s && exit 0; sleep 0.01; done; exit 1"):format(
    support.quote(self.fuse .. "/disk")))
  if status ~= 0 then return nil, "the disk did not start" end
  self.started = true
  status, out = sh("losetup --direct-io=on -f --show " .. support.quote(self.fuse .. "/disk"))
  if status ~= 0 then return nil, first_line(out) end
  self.device = first_line(out)
  if self.fs == "none" then return true end
  return mount(self)
end

function M.with_disk(fs, body)
  local why = lacks(fs)
  if why then return busted.pending(why) end
  local self = setmetatable({ fs = fs, fuse = support.path("fuse"), point = support.path("point") },
    Disk)

  function self.control(text)
    local f = assert(io.open(self.fuse .. "/control", "w"))
    f:setvbuf("no")
    assert(f:write(text))
    f:close()
  end

  function self.count(op)
    local done, failed = support.get(self.fuse .. "/control"):match(op .. " (%d+) failed (%d+)")
    return tonumber(done), tonumber(failed)
  end

  function self.range(path)
    local _, out = sh("filefrag -v -b512 " .. support.quote(path))
    local from, to
    for first, last in out:gmatch("%d+:%s+%d+%.%.%s*%d+:%s+(%d+)%.%.%s*(%d+):") do
      first, last = tonumber(first) * 512, (tonumber(last) + 1) * 512
      from, to = math.min(from or first, first), math.max(to or last, last)
    end
    assert(from, "no blocks: " .. out)
    return ("from=%d to=%d"):format(from, to), from, to
  end

  function self.remount(options)
    self:unmount()
    self.mounted = false
    return mount(self, options)
  end

  -- The journal first, by the kernel.
  function self.check()
    local ok, message = self.remount()
    if not ok then return nil, message end
    self:unmount()
    self.mounted = false
    local status, out = sh(FSCK[self.fs] .. self.device .. " 2>&1")
    if status ~= 0 then return nil, out end
    return true
  end

  function self.script(source, o)
    o = o or {}
    local args = { self.fuse .. "/control", self.point, self.device }
    for _, value in ipairs(o.args or {}) do args[#args + 1] = value end
    o.args = args
    return process.script(([==[
      local control_path, point, device = arg[3], arg[4], arg[5]
      local PAGE = jdbfs.PAGE_SIZE
      local function control(text)
        local c = assert(io.open(control_path, "w"))
        c:setvbuf("no")
        assert(c:write(text))
        c:close()
      end
      local function met(op)
        local c = assert(io.open(control_path))
        local done, failed = c:read("*a"):match(op .. " (%d+) failed (%d+)")
        c:close()
        return tonumber(done), tonumber(failed)
      end
      local function failed(label, want, ok, message, err)
        check(label .. ": a failure was expected", ok == nil, ok)
        for name, value in pairs(want) do
          check(label .. ": " .. name, err[name] == value, err[name], message)
        end
        return err
      end
      local _ = { control, met, failed, point, device, PAGE }
    ]==]):gsub("\n", " ") .. source, o)
  end

  local ok, message = start(self)
  if ok then ok, message = xpcall(function() return body(self) end, debug.traceback)
  else
    stop(self)
    return busted.pending("no such disk here: " .. message)
  end
  stop(self)
  if not ok then error(message, 0) end
end

return M
