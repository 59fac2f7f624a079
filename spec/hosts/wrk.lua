-- For wrk -s: objects and their ranges, read and written at random, each byte compared. Arguments:
-- a directory of files, which are objects of the same names; "NAME ETAG" of each is in the file
-- DIRECTORY.etags. Prints "N requests, N wrong, N errors".
-- luacheck: globals wrk init request response setup done wrong

local origins, names, by_etag = {}, {}, {}
local threads = {}
wrong = 0

function setup(thread) threads[#threads + 1] = thread end

function init(args)
  local dir = args[1]
  for line in io.lines(dir .. ".etags") do
    local name, etag = line:match("^(%S+) (%S+)$")
    local file = assert(io.open(dir .. "/" .. name, "rb"))
    names[#names + 1], by_etag[etag] = name, name
    origins[name] = file:read("*a")
    file:close()
  end
  math.randomseed(tonumber(tostring({}):match("(%x%x%x%x)$"), 16))
end

function request()
  local name = names[math.random(#names)]
  local size, way = #origins[name], math.random(10)
  if way == 1 then return wrk.format("PUT", "/objects/" .. name, nil, origins[name]) end
  if way <= 4 then return wrk.format("GET", "/objects/" .. name) end
  local first = math.random(0, size - 1)
  local range = ("bytes=%d-%d"):format(first, math.random(first, size - 1))
  if way == 5 then range = "bytes=-" .. math.random(size) end
  return wrk.format("GET", "/objects/" .. name, { Range = range })
end

local function header(headers, wanted)
  for name, value in pairs(headers) do
    if name:lower() == wanted then return value end
  end
  return ""
end

local function right(status, headers, body)
  local origin = origins[by_etag[header(headers, "etag")]]
  if not origin then return false end
  if status ~= 206 then return body == (status == 201 and "" or status == 200 and origin) end
  local first, last = header(headers, "content-range"):match("^bytes (%d+)%-(%d+)/")
  return first ~= nil and body == origin:sub(first + 1, last + 1)
end

function response(status, headers, body)
  if right(status, headers, body) then return end
  wrong = wrong + 1
  if wrong < 4 then
    io.stderr:write(("wrong: %d, %d bytes, %s\n"):format(status, #body, header(headers, "etag")))
  end
end

function done(summary)
  local all, e = 0, summary.errors
  for _, thread in ipairs(threads) do all = all + thread:get("wrong") end
  print(("%d requests, %d wrong, %d errors"):format(summary.requests, all,
    e.connect + e.read + e.write + e.timeout))
end
