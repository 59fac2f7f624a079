-- jdbfs.example.nginx_objects: the store of objects.lua as a location of nginx. In nginx.conf:
--
--   http {
--     init_worker_by_lua_block {
--       objects = assert(require("jdbfs.example.nginx_objects").open("/srv/objects"))
--     }
--     server {
--       location /objects/ {
--         client_max_body_size 64m;
--         content_by_lua_block { objects:serve("/objects/") }
--       }
--     }
--   }
--
--   PUT /objects/NAME     201 once content and name are on stable storage. Needs Content-Length.
--                         X-Content-Crc32c: eight hex digits; other content is refused with 400
--   GET, HEAD             ETag, X-Content-Crc32c; Range, If-Range, If-None-Match: 206, 416, 304
--   DELETE                204 once the name is gone on stable storage
--   GET /objects/         the names, one a line, as they stand in a URL
--
-- Bodies stream in both directions, a block at a time. Every block is checked before it is sent; if
-- one is damaged the connection is closed, so that nobody takes the rest for whole.

require "resty.jdbfs" -- chooses the host

local objects = require "jdbfs.example.objects"

local ngx = rawget(_G, "ngx")
local setmetatable, tonumber, tostring, type = setmetatable, tonumber, tostring, type
local min = math.min

local PIECE = 65536 -- bytes of a body received at once

local Service = {}
Service.__index = Service

local STATUS = { TooLarge = 413, Mismatch = 400, BadName = 400, Client = 400 }

local function status_of(err)
  if type(err) ~= "table" then return 500 end
  if err.name == "ENOENT" then return 404 end
  if err.name == "ENOSPC" or err.name == "EDQUOT" then return 507 end
  return STATUS[err.kind] or 500
end

-- What was not read of a body must not be taken for the next request.
local function refuse(status, message)
  if status >= 500 then ngx.log(ngx.ERR, message) end
  if ngx.headers_sent then return ngx.exit(ngx.ERROR) end
  ngx.status = status
  ngx.header["Connection"] = "close"
  ngx.header["Content-Length"], ngx.header["Content-Range"] = nil, nil
  ngx.header["Content-Type"] = "text/plain"
  ngx.say(status >= 500 and "internal error" or message)
  return ngx.exit(status)
end

local function fail(message, err)
  return refuse(status_of(err), message)
end

local function describe(object)
  ngx.header.ETag = '"' .. object.etag .. '"'
  ngx.header["X-Content-Crc32c"] = ("%08x"):format(object.crc32c)
  ngx.header["Accept-Ranges"] = "bytes"
end

-- ---- PUT ----------------------------------------------------------------------------------------

local function body(length)
  if length == 0 then return function() end end
  local socket, why = ngx.req.socket()
  if not socket then return nil, why end
  local left = length
  return function()
    if left == 0 then return nil end
    local data, reason = socket:receive(min(left, PIECE))
    if not data then
      return nil, "the body ends early: " .. tostring(reason), { kind = "Client" }
    end
    left = left - #data
    return data
  end
end

function Service:put(name)
  local length = tonumber(ngx.var.http_content_length)
  if not length then return refuse(411, "a PUT needs Content-Length") end
  local announced = ngx.var.http_x_content_crc32c
  local crc32c = announced and announced:match("^%x%x%x%x%x%x%x%x$")
  if announced and not crc32c then
    return refuse(400, "X-Content-Crc32c: eight hex digits expected")
  end
  local source, why = body(length)
  if not source then return refuse(400, why) end
  local expected = crc32c and tonumber(crc32c, 16)
  local about, message, err = self.store:put(name, source, { crc32c = expected })
  if not about then return fail(message, err) end
  ngx.status = 201
  describe(about)
  ngx.header["Content-Length"] = 0
  return ngx.send_headers()
end

-- ---- GET ----------------------------------------------------------------------------------------

-- First byte and number of bytes; nil: the whole object; false: nothing that it has.
local function range_of(object)
  local range, if_range = ngx.var.http_range, ngx.var.http_if_range
  if not range or (if_range and if_range ~= '"' .. object.etag .. '"') then return nil end
  local first, last = range:match("^bytes=(%d*)%-(%d*)$")
  first, last = tonumber(first), tonumber(last)
  if not first and not last or first and last and last < first then return nil end
  if not first then
    local len = min(last, object.size)
    return len > 0 and object.size - len, len
  end
  if first >= object.size then return false end
  return first, min(last or object.size, object.size - 1) - first + 1
end

local function send(object, from, len)
  local to = from + len
  while from < to do
    local data, message, err = object:read(from, to - from)
    if not data then return nil, message, err end
    from = from + #data
    local ok = ngx.print(data)
    -- The next block is read when this one was sent.
    if ok then ok = ngx.flush(true) end
    if not ok then return true end -- the client has gone
  end
  return true
end

local function answer(object)
  describe(object)
  local wanted = ngx.var.http_if_none_match
  if wanted and (wanted == "*" or wanted:find('"' .. object.etag .. '"', 1, true)) then
    ngx.status = 304
    return ngx.send_headers()
  end
  local from, len = range_of(object)
  ngx.header["Content-Type"] = "application/octet-stream"
  if from == false then
    ngx.header["Content-Range"] = "bytes */" .. object.size
    ngx.status, ngx.header["Content-Length"] = 416, 0
    return ngx.send_headers()
  elseif from then
    ngx.status = 206
    ngx.header["Content-Range"] = ("bytes %.0f-%.0f/%.0f"):format(from, from + len - 1, object.size)
  else
    from, len = 0, object.size
  end
  ngx.header["Content-Length"] = len
  if ngx.req.get_method() == "HEAD" or len == 0 then return ngx.send_headers() end
  return send(object, from, len)
end

function Service:get(name)
  local object, message, err = self.store:get(name)
  if not object then return fail(message, err) end
  local ok
  ok, message, err = answer(object)
  object:close()
  if not ok then return fail(message, err) end
end

-- ---- the others ---------------------------------------------------------------------------------

function Service:delete(name)
  local ok, message, err = self.store:delete(name)
  if not ok then return fail(message, err) end
  ngx.status = 204
  return ngx.send_headers()
end

function Service:list()
  local names, message, err = self.store:list()
  if not names then return fail(message, err) end
  for i = 1, #names do names[i] = ngx.escape_uri(names[i]) .. "\n" end
  ngx.header["Content-Type"] = "text/plain"
  return ngx.print(names)
end

function Service:serve(prefix)
  -- With lua_check_client_abort a handler without this would be ended in the middle.
  ngx.on_abort(function() end)
  local name, method = ngx.var.uri:sub(#prefix + 1), ngx.req.get_method()
  local reads = method == "GET" or method == "HEAD"
  if name == "" and reads then return self:list() end
  if reads then return self:get(name) end
  if method == "PUT" then return self:put(name) end
  if method == "DELETE" then return self:delete(name) end
  ngx.header["Allow"] = "GET, HEAD, PUT, DELETE"
  return refuse(405, "no such method")
end

local M = {}

--- For init_worker_by_lua: each worker has a store of its own, all of them one directory.
function M.open(directory, o)
  local store, message, err = objects.open(directory, o)
  if not store then return nil, message, err end
  return setmetatable({ store = store }, Service)
end

return M
