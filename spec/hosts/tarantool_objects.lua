-- The object store in Tarantool, for spec/57-services_spec.lua:
-- tarantool tarantool_objects.lua ROLE DIRECTORY SOCKETS. Each instance has its own directory below
-- DIRECTORY; a line in DIRECTORY/acknowledged tells of each put that returned.
--
--   origin   puts, replaces and deletes objects, says "ready", and serves
--   load     puts from eight fibers until it is killed
--   replica  compares every object, "compared"; has all of them when the origin is dead, "alone"
--   check    the origin again: compares what was acknowledged, "whole"

local fiber = require "fiber"
local fio = require "fio"
local box = rawget(_G, "box")

local role, dir, sockets = arg[1], arg[2], arg[3]
local home = dir .. "/" .. (role == "replica" and "replica" or "origin")
local origin = "unix/:" .. sockets .. "/origin"
local here = role == "replica" and "unix/:" .. sockets .. "/replica" or origin
fio.mktree(home)

box.cfg {
  work_dir = home, log = home .. "/log", wal_mode = "fsync", memtx_memory = 64 * 1024 * 1024,
  listen = here, replication = role == "replica" and { origin } or nil,
  read_only = role == "replica", replication_timeout = 0.3, replication_connect_timeout = 10,
}
if role ~= "replica" then
  box.once("grants", function()
    box.schema.user.grant("guest", "replication")
    box.schema.user.grant("guest", "execute", "universe")
  end)
end

local objects = require "jdbfs.example.tarantool_objects"
local store = assert(objects.open(home .. "/objects", here, { buffers = 4 }))
local SIZES = { 1, 4096, 61440, 61441, 131072, 131073, 400000 }

local function content(size, version)
  local word = ("%d:%d."):format(version, size)
  return word:rep(math.ceil(size / #word)):sub(1, size)
end

local function say(word)
  io.stdout:write(word, "\n")
  io.stdout:flush()
end

local function acknowledge(name, version)
  local file = assert(io.open(dir .. "/acknowledged", "a"))
  file:write(name, " ", version, "\n")
  file:close()
end

local function put(name, size, version)
  local data, at = content(size, version), 1
  assert(store:put(name, function()
    local piece = data:sub(at, at + 49999)
    at = at + 50000
    if piece ~= "" then return piece end
  end))
  acknowledge(name, ("%d-%d"):format(size, version))
end

local function get(name)
  local object, message, err = store:get(name)
  if not object then return nil, message, err end
  local list, at = {}, 0
  while at < object.size do
    local piece
    piece, message, err = object:read(at, object.size)
    if not piece then return nil, message, err end
    list[#list + 1], at = piece, at + #piece
  end
  object:close()
  return table.concat(list)
end

-- What was acknowledged last of each name; false: deleted.
local function acknowledged()
  local last = {}
  for line in io.lines(dir .. "/acknowledged") do
    local name, version = line:match("^(%S+) (%S+)$")
    last[name] = version ~= "deleted" and version
  end
  return last
end

local function compare(name, version)
  if not version then
    local _, _, err = get(name)
    assert(err and err.name == "ENOENT", name .. " is not deleted")
    return
  end
  local size, number = version:match("^(%d+)%-(%d+)$")
  local data = assert(get(name))
  assert(data == content(tonumber(size), tonumber(number)), name .. " has other bytes")
end

local function compare_all()
  local n = 0
  for name, version in pairs(acknowledged()) do
    compare(name, version)
    n = n + 1
  end
  assert(n > 0)
end

local roles = {}

function roles.origin()
  for version = 1, 2 do
    for i, size in ipairs(SIZES) do put("object" .. i, size + version % 2, version) end
  end
  assert(store:delete("object2"))
  acknowledge("object2", "deleted")
  assert(select(3, store:delete("object2")).name == "ENOENT")
  assert(not store:put("cut", function() return nil, "the client has gone" end))
  assert(not store:put("bad", function() return nil end, { crc32c = 1 }))
  assert(not pcall(store.put, store, "raises", function() error("boom") end))
  -- The space refuses a number.
  assert(select(2, store:put(12, function() end)):find("put 12", 1, true))
  assert(select(2, store:delete(12)):find("delete 12", 1, true))
  assert(store.files:put("orphan", function() end))
  assert(store:sweep() == 1)
  put("lost", 10, 1)
  assert(store.files:delete(store.space:get("lost").key))
  assert(select(3, store:get("lost")).name == "ENOENT")
  assert(store:delete("lost"))
  acknowledge("lost", "deleted")
  assert(#store:list() == #SIZES - 1 and #store.files:list() == #SIZES - 1)
  say("ready")
  fiber.sleep(1000)
end

function roles.load()
  for i = 1, 8 do
    fiber.create(function()
      local version = 0
      while true do
        version = version + 1
        -- Each name once, so that what was not acknowledged last is no riddle.
        local name = ("f%dr%dv%d"):format(i, math.floor(fiber.time() * 1000), version)
        put(name, SIZES[(i + version) % #SIZES + 1], version)
      end
    end)
  end
  fiber.sleep(1000)
end

function roles.replica()
  while #store:list() < #SIZES - 1 do fiber.sleep(0.01) end
  local first = next(acknowledged())
  compare(first, acknowledged()[first])
  assert(assert(store:pull()) >= #SIZES - 2)
  assert(store:pull() == 0)
  compare_all()
  local _, message = store:put("mine", function() end)
  assert(message:find("read-only", 1, true), message)
  say("compared")
  while box.info.replication[1].upstream.status == "follow" do fiber.sleep(0.05) end
  compare_all()
  assert(store.files:delete(store.space:get("object1").key))
  assert(not store:get("object1") and not store:pull())
  say("alone")
  fiber.sleep(1000)
end

function roles.check()
  compare_all()
  -- Every file has a row, and the other way round.
  assert(#store:list() == #store.files:list())
  say("whole")
  os.exit(0)
end

local ok, why = pcall(roles[role])
if not ok then
  say("wrong: " .. tostring(why))
  os.exit(1)
end
