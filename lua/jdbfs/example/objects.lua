-- jdbfs.example.objects: a store of named objects, 0 bytes to 64 MiB each, on direct I/O. It runs
-- wherever jdbfs does: in jdbfs.run, in nginx (nginx_objects.lua), in Tarantool
-- (tarantool_objects.lua).
--
--   local store = assert(objects.open(directory))
--   local about = assert(store:put(name, source))
--                                 source(): a string; nil at the end; nil, message: the put fails.
--                                 In a host on plain Lua 5.1 it is called in a task
--   local object = assert(store:get(name))
--   object.size, object.crc32c, object.etag
--   object:read(offset, len)      some of these bytes, at least one; "" at the end
--   object:close()
--   store:delete(name), store:list(), store:sweep()
--
-- Several processes may use one directory. An object is a file: a page that describes it, then its
-- content in blocks. It is written under a temporary name, flushed, and renamed: put returns when
-- content and name are on stable storage; whoever has the old object open reads on in that one.
-- What a crash leaves of an upload is removed by sweep, which open calls. Each block has a
-- checksum, so whoever reads a part finds its damage.
--
-- Blocks pass through a bounded number of aligned buffers, one for as long as the disk works: a
-- slow client holds none, and a slow disk holds the clients up. What uses a buffer is a task of its
-- own, so that a light thread that is killed takes none along.
--
-- Failures are nil, message, err, as everywhere in jdbfs; kinds of its own are Damaged, TooLarge,
-- Mismatch (not the checksum that was announced) and BadName. A missing object is err.name ENOENT.

local jdbfs = require "jdbfs"

local error, ipairs, setmetatable, tonumber, type = error, ipairs, setmetatable, tonumber, type
local floor, min = math.floor, math.min
local remove, sort = table.remove, table.sort

local HEADER, PAGE, BLOCK = 4096, 4096, 131072
local SIZE_MAX = 67108864
local SMALL = 15 * PAGE -- as much comes along with the page that describes the object
local MAGIC = "jdbobj01"
-- In that page: magic, size (8), checksum of the content (4), length of the name (4), the name, and
-- from SUMS on the checksums of the blocks; in the last 4 bytes the checksum of the page.
local NAME, NAME_MAX, SUMS = 24, 240, 512
local TEMPORARY = ".put."

local Store, Object = {}, {}
Store.__index, Object.__index = Store, Object

local Refusal = { __tostring = function(err) return err.message end }

local function refuse(kind, op, name, cause)
  local message = ("%s %s: %s"):format(op, name, cause)
  return nil, message, setmetatable({
    kind = kind, op = op, path = name, message = message,
  }, Refusal)
end

local function align_up(n)
  return n + -n % PAGE
end

-- ---- names --------------------------------------------------------------------------------------

-- Any bytes may be a name; what is not plain is %XX in the file's name.
local function path_of(self, name, op)
  if type(name) ~= "string" then
    error(("bad argument #1 to '%s' (string expected)"):format(op), 3)
  end
  local encoded = name:gsub("[^%w_.-]", function(c) return ("%%%02X"):format(c:byte()) end)
  encoded = encoded:gsub("^%.", "%%2E"):gsub("%.$", "%%2E") -- Windows drops a dot at the end
  if encoded == "" or #encoded > NAME_MAX then
    return refuse("BadName", op, ("%q"):format(name), "the name is empty or too long")
  end
  return self.directory .. "/" .. encoded
end

local function name_of(encoded)
  return (encoded:gsub("%%(%x%x)", function(hex) return string.char(tonumber(hex, 16)) end))
end

-- ---- buffers ------------------------------------------------------------------------------------

-- Runs f(b, ...) in a task; b has room for the page and a block. Gives f's results.
local function with_buffer(self, f, ...)
  local task, message, err = jdbfs.spawn(function(...)
    self.permits:acquire()
    local b, why, failure = remove(self.free), nil, nil
    if not b then b, why, failure = jdbfs.buffer(HEADER + BLOCK) end
    local function done(...)
      self.free[#self.free + 1] = b
      self.permits:release()
      return ...
    end
    if not b then return done(nil, why, failure) end
    return done(f(b, ...))
  end, ...)
  if not task then return nil, message, err end
  return task:join()
end

-- ---- put ----------------------------------------------------------------------------------------

-- A file that nobody else has: sweep leaves alone what is locked.
local function temporary_file(self)
  for _ = 1, 1000 do
    self.uploads = self.uploads + 1
    local name = ("%s%.0f.%d"):format(TEMPORARY, jdbfs.now() * 1e9, self.uploads)
    local path = self.directory .. "/" .. name
    local file, message, err = jdbfs.create(path,
      { exclusive = true, lock = "exclusive", direct = self.direct })
    if file then
      local st = file:stat()
      if st and st.links > 0 then return file, path end
      file:close() -- it was swept before it was locked
    elseif err.name ~= "EEXIST" and err.kind ~= "Busy" then
      return nil, message, err
    end
  end
  return refuse("Busy", "put", self.directory, "no free temporary name")
end

-- The parts of a block into the buffer, padded with zeros; bytes to be written.
local function load_block(b, upload)
  local at = HEADER
  for _, part in ipairs(upload.parts) do
    b:set(at, part)
    at = at + #part
  end
  upload.crc32c = b:crc32c(HEADER, upload.fill, upload.crc32c)
  upload.sums[#upload.sums + 1] = b:crc32c(HEADER, upload.fill)
  local len = align_up(upload.fill)
  if len > upload.fill then b:fill(0, at, len - upload.fill) end
  upload.size = upload.size + upload.fill
  upload.parts, upload.fill = {}, 0
  return len
end

local function write_block(b, upload)
  local offset = HEADER + upload.size
  return upload.file:write_at(b, offset, HEADER, load_block(b, upload))
end

local function describe(b, upload)
  b:fill(0, 0, HEADER)
  b:set(0, MAGIC)
  b:u64(8, upload.size)
  b:u32(16, upload.crc32c)
  b:u32(20, #upload.name)
  b:set(NAME, upload.name)
  for i, sum in ipairs(upload.sums) do b:u32(SUMS + 4 * (i - 1), sum) end
  b:u32(HEADER - 4, b:crc32c(0, HEADER - 4))
end

-- The rest of the content and the page; one write where they are neighbours.
local function write_end(b, upload)
  local offset, len = HEADER + upload.size, 0
  if upload.fill > 0 then len = load_block(b, upload) end
  describe(b, upload)
  if offset == HEADER then return upload.file:write_at(b, 0, 0, HEADER + len) end
  local list = { { b, 0, 0, HEADER } }
  if len > 0 then list[2] = { b, offset, HEADER, len } end
  return upload.file:write_many(list)
end

local function add(self, upload, chunk)
  if upload.size + upload.fill + #chunk > SIZE_MAX then
    return refuse("TooLarge", "put", upload.name, ("larger than %d bytes"):format(SIZE_MAX))
  end
  local at = 1
  while at <= #chunk do
    local part = chunk:sub(at, at + BLOCK - upload.fill - 1)
    at = at + #part
    upload.parts[#upload.parts + 1] = part
    upload.fill = upload.fill + #part
    if upload.fill == BLOCK then
      local ok, message, err = with_buffer(self, write_block, upload)
      if not ok then return nil, message, err end
    end
  end
  return true
end

local function receive(self, upload, source)
  local chunk, message, err = source()
  while chunk do
    local ok, why, failure = add(self, upload, chunk)
    if not ok then return nil, why, failure end
    chunk, message, err = source()
  end
  if message then return nil, message, err end
  return true
end

-- The content is on stable storage before it gets its name, and the name before put returns.
local function commit(self, upload, path, expected)
  local ok, message, err = with_buffer(self, write_end, upload)
  if not ok then return nil, message, err end
  if expected and expected ~= upload.crc32c then
    return refuse("Mismatch", "put", upload.name,
      ("the checksum is %08x, announced was %08x"):format(upload.crc32c, expected))
  end
  ok, message, err = upload.file:sync_all()
  if not ok then return nil, message, err end
  return jdbfs.rename(upload.path, path, { durable = true })
end

local function about(name, size, crc32c)
  return {
    name = name, size = size, crc32c = crc32c, etag = ("%08x-%x"):format(crc32c, size),
  }
end

local function finished(upload, called, ok, message, err)
  if not (called and ok) then jdbfs.remove(upload.path) end
  upload.file:close()
  if not called then error(ok, 0) end
  if not ok then return nil, message, err end
  return about(upload.name, upload.size, upload.crc32c)
end

--- o.crc32c: the content's checksum as the giver knows it; another one is refused.
function Store:put(name, source, o)
  local path, message, err = path_of(self, name, "put")
  if not path then return nil, message, err end
  local file
  file, message, err = temporary_file(self)
  if not file then return nil, message, err end
  local upload = {
    name = name, file = file, path = message, size = 0, crc32c = 0, sums = {}, parts = {}, fill = 0,
  }
  return finished(upload, jdbfs.pcall(function()
    local ok, why, failure = receive(self, upload, source)
    if not ok then return nil, why, failure end
    return commit(self, upload, path, o and o.crc32c)
  end))
end

-- ---- get ----------------------------------------------------------------------------------------

local function damaged(object, cause)
  return refuse("Damaged", "get", object.name, cause)
end

local function sum_of(object, block)
  local a, b, c, d = object.sums:byte(4 * block + 1, 4 * block + 4)
  return a + 256 * (b + 256 * (c + 256 * d))
end

local function parse(b, n, object)
  if n < HEADER or b:string(0, #MAGIC) ~= MAGIC then return damaged(object, "this is no object") end
  if b:u32(HEADER - 4) ~= b:crc32c(0, HEADER - 4) then
    return damaged(object, "the page that describes it is damaged")
  end
  if b:u32(20) > NAME_MAX or b:string(NAME, b:u32(20)) ~= object.name then
    return damaged(object, "this is another object")
  end
  local said = about(object.name, b:u64(8), b:u32(16))
  if said.size > SIZE_MAX then return damaged(object, "its size is none") end
  object.size, object.crc32c, object.etag = said.size, said.crc32c, said.etag
  object.sums = b:string(SUMS, 4 * math.ceil(object.size / BLOCK))
  return true
end

-- A block that lies in the buffer from `at` on, if its checksum is right.
local function checked(b, at, object, block)
  local len = min(BLOCK, object.size - block * BLOCK)
  if b:crc32c(at, len) ~= sum_of(object, block) then
    return damaged(object, ("block %d is damaged"):format(block))
  end
  return len
end

local function read_start(b, object)
  local n, message, err = object.file:read_upto(b, 0, 0, HEADER + SMALL)
  if not n then return nil, message, err end
  local ok
  ok, message, err = parse(b, n, object)
  if not ok or object.size == 0 or object.size > SMALL then return ok, message, err end
  if n < HEADER + object.size then return damaged(object, "its end is missing") end
  ok, message, err = checked(b, HEADER, object, 0)
  if ok then object.data = b:string(HEADER, object.size) end
  return ok, message, err
end

local function read_block(b, object, block, from, len)
  local size = min(BLOCK, object.size - block * BLOCK)
  local ok, message, err = object.file:read_at(b, HEADER + block * BLOCK, 0, align_up(size))
  if ok then ok, message, err = checked(b, 0, object, block) end
  if not ok then return nil, message, err end
  return b:string(from, min(len, size - from))
end

function Store:get(name)
  local path, message, err = path_of(self, name, "get")
  if not path then return nil, message, err end
  local file
  file, message, err = jdbfs.open(path, { direct = self.direct })
  if not file then return nil, message, err end
  local object = setmetatable({ store = self, name = name, file = file }, Object)
  local ok
  ok, message, err = with_buffer(self, read_start, object)
  if ok then return object end
  file:close()
  return nil, message, err
end

--- The bytes from `offset` on, len of them at most, all from one block, which was checked.
function Object:read(offset, len)
  if offset >= self.size or len == 0 then return "" end
  if self.data then return self.data:sub(offset + 1, offset + len) end
  local block = floor(offset / BLOCK)
  return with_buffer(self.store, read_block, self, block, offset - block * BLOCK, len)
end

function Object:close()
  return self.file:close()
end

-- ---- the others ---------------------------------------------------------------------------------

function Store:delete(name)
  local path, message, err = path_of(self, name, "delete")
  if not path then return nil, message, err end
  return jdbfs.remove(path, { durable = true })
end

function Store:list()
  local files, message, err = jdbfs.ls(self.directory)
  if not files then return nil, message, err end
  local names = {}
  for _, file in ipairs(files) do
    if file:sub(1, 1) ~= "." then names[#names + 1] = name_of(file) end
  end
  sort(names)
  return names
end

--- Removes what uploads that were cut short left behind; how many.
function Store:sweep()
  local files, message, err = jdbfs.ls(self.directory)
  if not files then return nil, message, err end
  local swept = 0
  for _, name in ipairs(files) do
    local path = self.directory .. "/" .. name
    local left = name:sub(1, #TEMPORARY) == TEMPORARY and
      jdbfs.open(path, { direct = "off", lock = "exclusive" })
    if left then
      if jdbfs.remove(path) then swept = swept + 1 end
      left:close()
    end
  end
  return swept
end

local M = { BLOCK = BLOCK, SIZE_MAX = SIZE_MAX }

--- o.buffers: blocks on their way to or from the disk at once, 32 unless told; o.direct: as for
--- jdbfs.open, "prefer" unless told.
function M.open(directory, o)
  local self = setmetatable({
    directory = directory, direct = o and o.direct or "prefer", uploads = 0, free = {},
    permits = jdbfs.semaphore(o and o.buffers or 32),
  }, Store)
  local ok, message, err = jdbfs.mkdir(directory, { durable = true })
  if not ok then return nil, message, err end
  ok, message, err = self:sweep()
  if not ok then return nil, message, err end
  return self
end

return M
