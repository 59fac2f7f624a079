-- jdbfs.example.tarantool_objects: the store of objects.lua in Tarantool's fibers, on more than one
-- machine. The index is a space, one row an object, and Tarantool's replication carries it along; a
-- row tells where the content is. Content does not pass through the write-ahead log: an instance
-- that lacks it fetches it from its origin when it is asked for, checks it, and keeps it.
--
--   box.cfg{ listen = "here:3301", wal_mode = "fsync" }  -- the one that writes
--   box.cfg{ listen = "there:3301", read_only = true, replication = { "here:3301" } }  -- others
--   box.schema.user.grant("guest", "replication")
--   box.schema.user.grant("guest", "execute", "universe")
--
--   local store = assert(require("jdbfs.example.tarantool_objects").open(directory, "here:3301"))
--   store:put(name, source), store:get(name), store:delete(name), store:list() as in objects.lua
--   store:pull()   fetches all that is missing here; how many objects
--   store:sweep()  removes files that no row names any more; how many. open does that as well
--
-- Each put makes a new file, under a name of its own, durable before its row is written: the row
-- decides. With wal_mode = "fsync" the row, too, is on stable storage when put returns. What only
-- the origin has is lost with it: pull, on as many machines as shall survive.

local jdbfs = require "jdbfs"
if require("jdbfs.host").name() == nil then assert(jdbfs.host("tarantool")) end

local objects = require "jdbfs.example.objects"
local fiber = require "fiber"
local net_box = require "net.box"
local uuid = require "uuid"

local box = rawget(_G, "box")
local error, ipairs, pcall, rawset = error, ipairs, pcall, rawset
local setmetatable, tostring = setmetatable, tostring

local FORMAT = {
  { "name", "string" }, { "key", "string" }, { "size", "unsigned" }, { "crc32c", "unsigned" },
  { "origin", "string" },
}

local Store = {}
Store.__index = Store

local function missing(op, name)
  local message = ("%s %s: no such object"):format(op, name)
  return nil, message, { kind = "Io", name = "ENOENT", op = op, path = name, message = message }
end

-- What the database refuses is raised there.
local function changed(op, name, ok, ...)
  if ok then return ... end
  local message = ("%s %s: %s"):format(op, name, tostring((...)))
  return nil, message, { kind = "Io", op = op, path = name, message = message }
end

-- ---- files --------------------------------------------------------------------------------------

local function connection(self, origin)
  local c = self.connections[origin]
  if not c or not c:is_connected() then
    c = net_box.connect(origin)
    self.connections[origin] = c
  end
  return c
end

local function fetch(self, row)
  local offset = 0
  local function source()
    if offset == row.size then return nil end
    local ok, data, message = pcall(function()
      return connection(self, row.origin):call("jdbfs_objects_read", { row.key, offset })
    end)
    if not ok or not data then
      return nil, ("%s: %s"):format(row.origin, tostring(not ok and data or message))
    end
    offset = offset + #data
    return data
  end
  return self.files:put(row.key, source, { crc32c = row.crc32c })
end

-- For other instances: a part of a file.
local function serve(self)
  rawset(_G, "jdbfs_objects_read", function(key, offset)
    local object, message = self.files:get(key)
    if not object then return nil, message end
    local data
    data, message = object:read(offset, objects.BLOCK)
    object:close()
    return data, message
  end)
end

-- ---- the store ----------------------------------------------------------------------------------

local function put(self, name, key, source, o)
  local about, message, err = self.files:put(key, source, o)
  if not about then return nil, message, err end
  local before, row
  row, message, err = changed("put", name, pcall(box.atomic, function()
    before = self.space:get(name)
    return self.space:replace { name, key, about.size, about.crc32c, self.origin }
  end))
  -- What is not removed here, sweep removes.
  if not row then self.files:delete(key) elseif before then self.files:delete(before.key) end
  if not row then return nil, message, err end
  about.name = name
  return about
end

function Store:put(name, source, o)
  if box.info.ro then return changed("put", name, false, "this instance is read-only") end
  local key = uuid.str()
  self.coming[key] = true
  local ok, about, message, err = pcall(put, self, name, key, source, o)
  self.coming[key] = nil
  if not ok then error(about, 0) end
  return about, message, err
end

function Store:get(name)
  local row = self.space:get(name)
  if not row then return missing("get", name) end
  local object, message, err = self.files:get(row.key)
  if object or err.name ~= "ENOENT" then return object, message, err end
  if row.origin == self.origin then return nil, message, err end
  local about
  about, message, err = fetch(self, row)
  if not about then return nil, message, err end
  return self.files:get(row.key)
end

function Store:delete(name)
  local row, message, err = changed("delete", name, pcall(self.space.delete, self.space, name))
  if err then return nil, message, err end
  if not row then return missing("delete", name) end
  self.files:delete(row.key)
  return true
end

function Store:list()
  local names = {}
  for i, row in ipairs(self.space:select()) do names[i] = row.name end
  return names
end

function Store:pull()
  local pulled = 0
  local files, message, err = self.files:list()
  if not files then return nil, message, err end
  local here = {}
  for _, key in ipairs(files) do here[key] = true end
  for _, row in ipairs(self.space:select()) do
    if not here[row.key] and row.origin ~= self.origin then
      local about
      about, message, err = fetch(self, row)
      -- Replaced or deleted meanwhile: there is nothing to fetch.
      local now = self.space:get(row.name)
      if not about and now and now.key == row.key then return nil, message, err end
      if about then pulled = pulled + 1 end
    end
  end
  return pulled
end

function Store:sweep()
  local files, message, err = self.files:list()
  if not files then return nil, message, err end
  local swept = 0
  for _, key in ipairs(files) do
    if not self.coming[key] and not self.space.index.key:get(key) then
      if self.files:delete(key) then swept = swept + 1 end
    end
  end
  return swept
end

local function make_space()
  local space = box.schema.space.create("objects", { format = FORMAT, if_not_exists = true })
  space:create_index("name", { parts = { "name" }, if_not_exists = true })
  space:create_index("key", { parts = { "key" }, if_not_exists = true })
end

local M = {}

--- origin: where other instances reach this one. After box.cfg, in a fiber; o as for objects.open.
function M.open(directory, origin, o)
  local files, message, err = objects.open(directory, o)
  if not files then return nil, message, err end
  if not box.info.ro then make_space() end
  while not box.space.objects or not box.space.objects.index.key do fiber.sleep(0.01) end
  local self = setmetatable({
    files = files, space = box.space.objects, origin = origin, connections = {},
    coming = {}, -- files that have no row yet: not to be swept
  }, Store)
  local swept
  swept, message, err = self:sweep()
  if not swept then return nil, message, err end
  serve(self)
  return self
end

return M
