-- A page store: numbered pages of a file, with checksums, a free list and commits.
--
--   local store = assert(require("jdbfs.example.pages").open("data.pages"))
--   local number = store:allocate()
--   assert(store:write(number, "up to 4072 bytes"))
--   assert(store:commit())
--   print(store:read(number))
--   store:free(number)
--   store:close()
--
-- Promise: after any crash the store is what some commit made it: the last one that returned, or
-- one that was under way. A page that the disk has damaged or misplaced is an error, never data.
--
-- How: a page that is in the last commit is never overwritten. A write takes a free place in the
-- file; a commit writes the map from page numbers to places to free places as well, syncs, and then
-- writes one of two headers, by turns. A torn header has a wrong checksum, and the other one holds.
-- What is free follows from the map, so no list of it can be torn. The map is written whole, 4
-- bytes a page, and is limited by the header: a million pages.

local jdbfs = require "jdbfs"

local PAGE = 4096
local HEAD = 24 -- of every place: checksum, number, generation, length
local ROOM, ENTRIES = PAGE - HEAD, (PAGE - HEAD) / 4
local MAP, ROOT = 0xffffffff, 0xfffffffe -- numbers of what is no page: part of the map, header

local Store = {}
Store.__index = Store

local function put(self, place, number, data, flags)
  local page = self.buffers:get()
  page:fill(0)
  page:u32(4, number)
  page:u64(8, self.generation)
  page:u32(16, #data)
  page:set(HEAD, data)
  page:u32(0, page:crc32c(4, PAGE - 4))
  local ok, message, err = self.file:write_at(page, place * PAGE, 0, PAGE, flags)
  self.buffers:put(page)
  return ok, message, err
end

-- The page's data and generation. nil when it is not whole; nil, message when it cannot be read.
local function get(self, place, number)
  local page = self.buffers:get()
  local data, generation
  local n, message = self.file:read_upto(page, place * PAGE)
  if n == PAGE and page:u32(0) == page:crc32c(4, PAGE - 4) and page:u32(4) == number then
    data, generation = page:string(HEAD, page:u32(16)), page:u64(8)
  end
  self.buffers:put(page)
  return data, n and generation or message
end

local function take_place(self)
  local place = table.remove(self.free_places)
  if not place then
    place, self.places = self.places, self.places + 1
  end
  return place
end

-- The place may be used again once a commit without it is durable.
local function release(self, place)
  if place ~= 0 then self.released[#self.released + 1] = place end
end

local function words(list, from, to)
  local buffer = jdbfs.buffer(math.max(4, (to - from + 1) * 4))
  for i = from, to do buffer:u32((i - from) * 4, list[i]) end
  return buffer:string(0, (to - from + 1) * 4)
end

local function each_word(data, f)
  local buffer = jdbfs.buffer(math.max(4, #data))
  buffer:set(0, data)
  for off = 0, #data - 4, 4 do f(buffer:u32(off)) end
end

--- A number for a page. One that is never written is free again after the next opening.
function Store:allocate()
  local number = table.remove(self.unused)
  if not number then
    number = #self.map + 1
    if number > ENTRIES * ENTRIES then return nil, "the store is full" end
  end
  self.map[number] = 0
  return number
end

--- Durable with the next commit. Up to 4072 bytes.
function Store:write(number, data)
  if #data > ROOM then return nil, "a page holds " .. ROOM .. " bytes" end
  if not self.map[number] then return nil, "page " .. number .. " was not allocated" end
  local place = take_place(self)
  local ok, message, err = put(self, place, number, data)
  if not ok then
    self.free_places[#self.free_places + 1] = place
    return nil, message, err
  end
  release(self, self.map[number])
  self.map[number] = place
  return true
end

--- What the page holds; nil, message when it was never written or is damaged.
function Store:read(number)
  local place = self.map[number]
  if not place or place == 0 then return nil, "page " .. number .. " holds nothing" end
  local generation = self.generation
  local data, message = get(self, place, number)
  -- The place may have been given to others while we read.
  local moved = self.map[number] ~= place or (not data and self.generation ~= generation)
  if moved then return self:read(number) end
  if data then return data end
  return nil, ("page %d is damaged, place %d: %s"):format(number, place, tostring(message))
end

function Store:free(number)
  release(self, self.map[number])
  self.map[number] = 0
  self.unused[#self.unused + 1] = number
end

-- The map as it is now, into free places. Its pages' places, and what commits the rest.
local function write_map(self)
  local chunks, places = {}, {}
  for from = 1, #self.map, ENTRIES do
    chunks[#chunks + 1] = words(self.map, from, math.min(from + ENTRIES - 1, #self.map))
  end
  for i, chunk in ipairs(chunks) do
    places[i] = take_place(self)
    local ok, message, err = put(self, places[i], MAP, chunk)
    if not ok then return nil, message, err, places end
  end
  local ok, message, err = self.file:sync_data()
  return ok, message, err, places
end

local function append(list, more)
  for _, value in ipairs(more) do list[#list + 1] = value end
end

--- What was written and freed before the call is durable, all of it or, after a crash meanwhile,
--- none. A commit whose header could not be written leaves the store unusable: open it again.
function Store:commit()
  self.lock:acquire()
  if self.broken then
    self.lock:release()
    return nil, self.broken
  end
  local released = self.released
  self.released = {}
  local ok, message, err, places = write_map(self)
  if not ok then
    append(self.released, released)
    append(self.free_places, places)
    self.lock:release()
    return nil, message, err
  end
  self.generation = self.generation + 1
  ok, message, err = put(self, self.generation % 2, ROOT, words(places, 1, #places), "dsync")
  if ok then
    append(self.free_places, released)
    append(self.free_places, self.map_places)
    self.map_places = places
  else
    self.broken = "the store must be opened again: " .. message
  end
  self.lock:release()
  return ok and true, message, err
end

--- What was not committed is lost.
function Store:close()
  return self.file:close()
end

local function load_map(self, root)
  local used = {}
  each_word(root, function(place) table.insert(self.map_places, place) end)
  for _, place in ipairs(self.map_places) do
    local chunk, message = get(self, place, MAP)
    if not chunk then return nil, "the map is damaged: " .. tostring(message) end
    each_word(chunk, function(at) table.insert(self.map, at) end)
    used[place] = true
  end
  for number, place in ipairs(self.map) do
    if place == 0 then table.insert(self.unused, number) end
    used[place] = true
    self.places = math.max(self.places, place + 1)
  end
  for _, place in ipairs(self.map_places) do self.places = math.max(self.places, place + 1) end
  for place = 2, self.places - 1 do
    if not used[place] then table.insert(self.free_places, place) end
  end
  return true
end

-- The newer of two headers that are whole. One that could not be read may be the newer one.
local function load(self)
  local newest, root = -1, nil
  for place = 0, 1 do
    local data, generation = get(self, place, ROOT)
    if not data and generation then return nil, generation end
    if data and generation > newest then newest, root = generation, data end
  end
  if root then
    self.generation = newest
    return load_map(self, root)
  end
  local size, message = self.file:size()
  if not size then return nil, message end
  if size > 2 * PAGE then return nil, "neither header is whole" end
  return self:commit() -- a new store, or one whose first commit never returned
end

local M = {}

--- Opens the store, or makes an empty one; one opener at a time.
function M.open(path, o)
  o = o or {}
  local file, message, err = jdbfs.open_rw(path, { lock = "exclusive", durable_create = true,
    direct = o.direct })
  if not file then return nil, message, err end
  local self = setmetatable({ file = file, map = {}, map_places = {}, free_places = {}, unused = {},
    released = {}, places = 2, generation = 0, lock = jdbfs.semaphore(1),
    buffers = assert(jdbfs.pool(o.buffers or 64, PAGE)) }, Store)
  local ok, why = load(self)
  if ok then return self end
  file:close()
  return nil, path .. ": " .. why
end

return M
