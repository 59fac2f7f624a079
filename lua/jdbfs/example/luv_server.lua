-- A server that stores and serves objects, in libuv's event loop. One line asks, one answers:
--
--   PUT name length\n<bytes>   OK            durable before the answer, all of it or nothing
--   GET name                   OK length\n<bytes>
--   DEL name                   OK
--
-- or "ERR reason". This serves a directory on a port of this machine:
--
--   lua -e 'require("jdbfs.example.luv_server").main("objects", 7000)'
--
-- A connection is a coroutine that waits for the socket and for the disk alike; while it waits
-- libuv serves the others.

local jdbfs = require "jdbfs"
local uv = require "luv"

local LENGTH_MAX = 16 * 1048576

-- ---- a connection -------------------------------------------------------------------------------

local Connection = {}
Connection.__index = Connection

local function wake(self, ...)
  local waiting = self.waiting
  self.waiting = nil
  if waiting then assert(coroutine.resume(waiting, ...)) end
end

-- Suspends this coroutine until the socket has more; false at its end.
local function more(self)
  if self.ended then return false end
  self.waiting = coroutine.running()
  self.socket:read_start(function(_, data)
    self.socket:read_stop() -- a client that is faster than the disk waits
    if data then self.text = self.text .. data else self.ended = true end
    wake(self)
  end)
  coroutine.yield()
  return not self.ended
end

function Connection:line()
  while not self.text:find("\n", 1, true) do
    if #self.text > 1000 or not more(self) then return nil end
  end
  local line, rest = self.text:match("^(.-)\r?\n(.*)$")
  self.text = rest
  return line
end

function Connection:bytes(length)
  while #self.text < length do
    if not more(self) then return nil end
  end
  local data = self.text:sub(1, length)
  self.text = self.text:sub(length + 1)
  return data
end

-- Suspends this coroutine until the bytes are with the system.
function Connection:send(text)
  self.waiting = coroutine.running()
  self.socket:write(text, function() wake(self) end)
  coroutine.yield()
end

-- ---- the objects --------------------------------------------------------------------------------

local verbs = {}

function verbs.PUT(self, path, length)
  length = tonumber(length)
  if not length or length > LENGTH_MAX then return nil, "no length, or too long" end
  local data = self:bytes(length)
  if not data then return nil, "the bytes ended early" end
  local ok, message = jdbfs.atomic_write(path, data)
  return ok and "OK\n", message
end

function verbs.GET(_, path)
  local file, message = jdbfs.open(path, { direct = "prefer" })
  if not file then return nil, message end
  local data
  data, message = file:read(0, file:size())
  file:close()
  return data and ("OK %d\n"):format(#data) .. data, message
end

function verbs.DEL(_, path)
  local ok, message = jdbfs.remove(path, { durable = true })
  return ok and "OK\n", message
end

-- A name is no path: nothing outside of the directory, no temporary file of ours.
local function serve(self, directory)
  while true do -- plain Lua 5.1 cannot suspend inside of a for loop's iterator
    local line = self:line()
    if not line then break end
    local verb, name, rest = line:match("^(%u+) ([%w_][%w_.-]*) ?(%d*)$")
    local answer, message
    if verbs[verb] and #name <= 200 then
      answer, message = verbs[verb](self, directory .. "/" .. name, rest)
    end
    self:send(answer or ("ERR %s\n"):format(message or "what?"))
  end
  self.socket:close()
end

local M = {}

--- Listens on that port of 127.0.0.1 (0: any); gives the server's handle and its port.
function M.start(directory, port)
  if not jdbfs.info().host then assert(jdbfs.host("luv")) end
  assert(jdbfs.mkdir(directory, { durable = true }))
  local server = uv.new_tcp()
  assert(server:bind("127.0.0.1", port))
  assert(server:listen(128, function()
    local socket = uv.new_tcp()
    server:accept(socket)
    local self = setmetatable({ socket = socket, text = "" }, Connection)
    assert(coroutine.resume(coroutine.create(serve), self, directory))
  end))
  return server, server:getsockname().port
end

function M.main(directory, port)
  local _, bound = M.start(directory, port)
  print("serving " .. directory .. " on port " .. bound)
  uv.run()
end

return M
