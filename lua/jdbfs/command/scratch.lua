-- The files of a run: a scratch directory that did not exist before, files in it that were created
-- with O_EXCL, and the target, which may be a file or a device that the user names.
--
-- Nothing is written to a file that jdbfs did not make, unless the user said so. A file made for
-- --keep has a mark beside it, PATH.jdbfs, with its device, inode, size and time.

local core = require("jdbfs.core")
local device = require("jdbfs.command.device")
local format = require("jdbfs.command.format")
local jdbfs = require("jdbfs")
local status = require("jdbfs.command.status")

local clock, time = os.clock, os.time
local floor, min = math.floor, math.min
local error, ipairs, setmetatable, tostring = error, ipairs, setmetatable, tostring
local open_stream = io.open
local FAILED, USAGE = status.FAILED, status.USAGE

local FILL_CHUNK, FILL_TASKS = 1048576, 8
local FREE_FLOOR = 0.05 -- of the file system stays free
local DEFAULT_SIZE = 1024 * 1048576
local LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"

local Scratch = {}
Scratch.__index = Scratch

local DSYNC = { dsync = true, osync = "all" } -- what --sync asks of opening

-- A directory name nobody else is likely to draw. It is deliberately not drawn from --seed.
local function scratch_name()
  local bytes = core.entropy(6) or ""
  local random = core.random(time(), floor(clock() * 1e6), core.now_ns() % 2 ^ 40)
  local name = {}
  for i = 1, 6 do
    local draw = (bytes:byte(i) or 0) + random:int(0, #LETTERS - 1)
    name[i] = LETTERS:sub(draw % #LETTERS + 1, draw % #LETTERS + 1)
  end
  return "jdbfs-" .. table.concat(name)
end

-- Refusing direct I/O is a property of the place, not an accident: it is told with the way out.
local function fail_open(message, err)
  if err and (err.kind == "Unsupported" or err.name == "EINVAL") then
    status.fail(USAGE, message .. " (--buffered would go through the page cache)")
  end
  status.fail(FAILED, message)
end

function Scratch:direct()
  return self.options.buffered and "off" or "require"
end

local function forget(self, made)
  for i, each in ipairs(self.made) do
    if each == made then return table.remove(self.made, i) end
  end
end

-- Makes a file that did not exist, in the scratch directory. Its file, or nil, message, err. Who
-- asks for it may be ended meanwhile: a file in doubt is removed in the end if it is there.
function Scratch:make(name, dsync)
  local made = { path = self.path .. "/" .. name, doubt = true }
  self.made[#self.made + 1] = made
  local file, message, err = jdbfs.create(made.path,
    { exclusive = true, direct = self:direct(), dsync = dsync })
  if not file then
    forget(self, made)
    return nil, message, err
  end
  made.file, made.name, made.doubt = file, name, nil
  return file
end

-- Makes the directory and the first file in it. Whoever creates a file with O_EXCL owns it, so even
-- if two processes drew the same name, neither would touch the other's file.
local function draw_directory(self, name, dsync)
  local dir = self.options.dir:gsub("([^/])/+$", "%1")
  for _ = 1, 100 do
    local path = dir .. "/" .. scratch_name()
    local there, message = jdbfs.exists(path)
    if there == nil then return nil, message end
    if not there then
      self.path = path
      local made, why = jdbfs.mkdir(path)
      if not made then
        self.path = nil
        return nil, why
      end
      local file, reason, err = self:make(name, dsync)
      if file then return file end
      if not (err and err.name == "EEXIST") then return nil, reason, err end
      self.path = nil
    end
  end
  return nil, ("%s: no free name for a scratch directory in 100 attempts"):format(dir)
end

-- For the coroutine that comes first; the others wait for it.
local function make_directory(self, name, dsync)
  while self.making do jdbfs.yield() end
  if self.path then return self:make(name, dsync) end
  self.making = true
  local file, message, err = draw_directory(self, name, dsync)
  self.making = nil
  return file, message, err
end

-- ctx:create and the target in the scratch directory; o.size: written with zeros. In a task it ends
-- the run by an error.
function Scratch:create(name, o)
  name = tostring(name)
  if not name:match("^[%w._-]+$") or name:match("^%.") then
    error(("create: %q is no plain file name"):format(name))
  end
  local make = self.path and not self.making and self.make or make_directory
  local dsync = DSYNC[o.sync]
  local file, message, err = make(self, name, dsync)
  if file and o.size then
    local done
    done, message = file:preallocate(o.size, "zero")
    if done then done, message = file:sync_all() end
    file = done and file
  end
  if not file then fail_open(message, err) end
  return file
end

function Scratch:open(name)
  for _, made in ipairs(self.made) do
    if made.name == name then return made.file end
  end
  local file, message, err = jdbfs.open(name, { direct = self:direct() })
  if not file then fail_open(message, err) end
  self.opened[#self.opened + 1] = file
  return file
end

local function find(self, name)
  for _, made in ipairs(self.made) do
    if made.name == name then return made end
  end
  error(("%s is no file of this run"):format(tostring(name)))
end

-- A file of the run gets another name; what had it is gone. In a task.
function Scratch:rename(from, to)
  local made = find(self, from)
  local path = self.path .. "/" .. to
  local new = { path = path, doubt = true }
  self.made[#self.made + 1] = new
  made.doubt = true
  local done, message, err = jdbfs.rename(made.path, path)
  made.doubt = nil
  forget(self, new)
  if not done then return nil, message, err end
  for i, other in ipairs(self.made) do
    if other.name == to then
      table.remove(self.made, i)
      other.file:close()
      break
    end
  end
  made.name, made.path = to, path
  return true
end

function Scratch:remove(name)
  local made = find(self, name)
  made.doubt = true
  made.file:close()
  local done, message, err = jdbfs.remove(made.path)
  made.doubt = nil
  if done then forget(self, made) end
  return done, message, err
end

function Scratch:dir()
  while self.making do jdbfs.yield() end
  if not self.path then self:create("jdbfs", {}) end
  return self.path
end

-- The mark of a kept file ------------------------------------------------------------------------

-- With the time of the last change: what somebody else has written since is not ours.
local function mark_text(stat)
  return ("jdbfs file %.0f:%.0f %.0f %.6f\n"):format(stat.device, stat.inode, stat.size,
    stat.mtime)
end

local function marked(path, stat)
  local file = open_stream(path .. ".jdbfs", "rb")
  if not file then return false end
  local text = file:read("*a")
  file:close()
  return text == mark_text(stat)
end

local function write_mark(path)
  local stat = jdbfs.stat(path)
  local file = stat and open_stream(path .. ".jdbfs", "wb")
  if not file then return end
  file:write(mark_text(stat))
  file:close()
end

-- Space ------------------------------------------------------------------------------------------

-- Where the target is made: beside the file that was named, or where the rest is.
function Scratch:place()
  local file = self.options.file
  if not file then return self.options.dir end
  local parent = file:match("^(.*[/\\])[^/\\]*$") or "."
  return #parent > 1 and parent:sub(1, -2) or parent
end

-- Refuses before anything is written when the floor would not stay free.
function Scratch:check_space(bytes, place)
  if bytes == 0 then return end
  local free, total = jdbfs.space(place)
  if not free then status.fail(FAILED, total) end
  if bytes > free - total * FREE_FLOOR then
    status.fail(USAGE, ("the files need %s and %s has %s free, of which %s (5 %% of it) stay free")
      :format(format.bytes(bytes), place, format.bytes(free), format.bytes(total * FREE_FLOOR)))
  end
end

local function is_low(place)
  local free, total = jdbfs.space(place)
  return free and free < total * FREE_FLOOR * 0.9
end

-- While the run goes on: whether the floor is reached.
function Scratch:is_full()
  local target = self.target
  return is_low(self.path or self.options.dir)
    or target and not target.exists and is_low(self:place())
end

-- The size of a target that is to be made.
function Scratch:default_size(bs)
  local free, message = jdbfs.space(self:place())
  if not free then status.fail(FAILED, message) end
  local size = min(DEFAULT_SIZE, floor(free / 10))
  size = size - size % bs
  if size == 0 then
    status.usage("%s has only %s free", self:place(), format.bytes(free))
  end
  return size
end

-- The target -------------------------------------------------------------------------------------

-- Writes the chunks that are left, together with its sisters. Every page carries its own offset, so
-- no two pages of the file are equal and a device that deduplicates gains nothing.
local function fill_chunks(self, target, state)
  local buf = jdbfs.buffer(FILL_CHUNK)
  for off = 0, FILL_CHUNK - #state.pattern, #state.pattern do
    buf:set(off, state.pattern)
  end
  while state.next < target.size and not state.failure and not core.signalled() do
    local off = state.next
    local length = min(FILL_CHUNK, target.size - off)
    state.next = off + length
    for page = 0, FILL_CHUNK - 4096, 4096 do
      buf:u64(page, off + page)
    end
    if self.verifier then self.verifier:stamp(buf, off, length) end
    local written, message = target.raw:write_at(buf, off, 0, length)
    if not written then state.failure = message end
  end
  buf:free()
end

-- In a task: the target is written in full, with no holes and no unwritten extents. True, or nil
-- and a message.
function Scratch:fill(target)
  if target.filled then return true end
  local random = core.random(self.options.seed, 0, 0)
  local state, tasks = { next = 0, pattern = random:bytes(65536) }, {}
  local reserved, reason, err = target.raw:preallocate(target.size)
  if not reserved and not (err and err.kind == "Unsupported") then return nil, reason end
  for i = 1, FILL_TASKS do
    tasks[i] = jdbfs.spawn(fill_chunks, self, target, state)
  end
  for i = 1, FILL_TASKS do
    tasks[i]:join()
  end
  if state.failure then return nil, state.failure end
  local synced, why_not = target.raw:sync_all()
  if not synced then return nil, why_not end
  target.filled = true
  return true
end

-- A path of the user's that exists. Read-only workloads may read anything; writing needs our mark
-- or --overwrite, and a device what device.check asks for.
local function open_existing(self, path, stat, writes)
  local options, is_device = self.options, stat.type == "block device"
  if stat.type ~= "file" and not is_device then
    status.usage("%s is a %s: a target is a file or a block device", path, stat.type)
  end
  local ours = not is_device and marked(path, stat)
  if writes and is_device then
    device.check(path, options)
  elseif writes and not ours and not options.overwrite then
    status.usage("%s exists and jdbfs did not make it: --overwrite would destroy what it holds",
      path)
  end
  local o = { direct = self:direct(), device = is_device, must_exist = true,
    lock = writes and not is_device and "exclusive" or nil,
    dsync = writes and DSYNC[options.sync] or nil }
  local raw, message, err = (writes and jdbfs.open_rw or jdbfs.open)(path, o)
  if not raw then
    if err and err.kind == "Busy" then status.fail(USAGE, message) end
    fail_open(message, err)
  end
  self.opened[#self.opened + 1] = raw
  local size, why = raw:size()
  if not size then status.fail(FAILED, why) end
  return { raw = raw, path = path, size = size, filled = true, exists = true, ours = ours }
end

local function open_named(self, path, size, writes)
  local stat, _, err = jdbfs.stat(path)
  if stat then
    local target = open_existing(self, path, stat, writes)
    if size > target.size then
      status.usage("%s holds %s, and %s are wanted", path, format.bytes(target.size),
        format.bytes(size))
    end
    target.size = self.options.size or target.size
    return target
  end
  if err and err.name ~= "ENOENT" then status.fail(FAILED, err.message) end
  self:check_space(size, self:place())
  local raw, message, reason = jdbfs.create(path, { exclusive = true, direct = self:direct(),
    dsync = DSYNC[self.options.sync] })
  if not raw then fail_open(message, reason) end
  self.made[#self.made + 1] = { path = path, file = raw, keep = self.options.keep }
  return { raw = raw, path = path, size = size }
end

-- Opens or makes the target; nothing is written yet. Outside tasks.
function Scratch:open_target(size, bs, writes)
  local target = self.target
  if target then return target end
  if self.options.file then
    target = open_named(self, self.options.file, size, writes)
  else
    local make = self.path and self.make or make_directory
    local raw, message, err = make(self, "data", DSYNC[self.options.sync])
    if not raw then fail_open(message, err) end
    target = { raw = raw, path = self.path .. "/data", size = size }
  end
  target.size = target.size - target.size % bs
  if target.size == 0 then
    status.usage("%s does not hold a block of %s", target.path, format.bytes(bs))
  end
  target.writable = writes or not target.exists
  self.target = target
  return target
end

-- The end ----------------------------------------------------------------------------------------

local function remove_made(self, made, complaints)
  local closed, why_not = true, nil
  if made.file then closed, why_not = made.file:close() end
  if not closed then complaints[#complaints + 1] = tostring(why_not) end
  if made.keep or (self.options.keep and not made.doubt) then
    self.kept[#self.kept + 1] = made.path
    write_mark(made.path)
    return
  end
  local removed, message, err = jdbfs.remove(made.path)
  if not removed and not (made.doubt and err.name == "ENOENT") then
    complaints[#complaints + 1] = tostring(message)
  end
end

-- Removes what was made, and nothing else. A list of complaints.
function Scratch:clean_up()
  local complaints = {}
  for i = #self.opened, 1, -1 do
    local file = self.opened[i]
    self.opened[i] = nil
    local closed, message = file:close()
    if not closed then complaints[#complaints + 1] = tostring(message) end
  end
  if self.target and self.target.ours then write_mark(self.target.path) end
  for _, doubt in ipairs({ false, true }) do -- what one asked for, another may have made
    for i = #self.made, 1, -1 do
      local made = self.made[i]
      if (made.doubt or false) == doubt then remove_made(self, made, complaints) end
    end
  end
  self.made = {}
  if self.path and #self.kept == 0 then
    -- An empty one; os.remove takes no directory everywhere. One of a simulated disk is nowhere.
    local removed, message = core.remove_directory(self.path)
    if not removed and not message:find("ENOENT", 1, true) then
      complaints[#complaints + 1] = "left behind: " .. message
    end
  end
  self.path = nil
  return complaints
end

local M = { fail_open = fail_open, DSYNC = DSYNC }

function M.new(options)
  return setmetatable({ options = options, made = {}, opened = {}, kept = {} }, Scratch)
end

return M
