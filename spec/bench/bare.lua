-- bare.lua read FILE DEPTH OPERATIONS [cached], bare.lua encode FILE GROUP SECONDS: prints what
-- loop.c or commit.c prints, with a coroutine for each read in flight, or record of a commit.

local how, path, count = arg[1], arg[2], tonumber(arg[3])
local PAGE = 4096

local bare = require(how == "read" and "bare_loop" or "bare_commit")
local await = bare.await

local function reader(seed, pages)
  local random = seed
  while true do
    random = random * 16807 % 2147483647
    assert(await(random % pages))
  end
end

local function appender()
  local record = ("r"):rep(512)
  while true do assert(await(record)) end
end

local file = assert(io.open(path))
local pages = file:seek("end") / PAGE
file:close()

local coroutines = {}
for i = 1, count do
  coroutines[i] = coroutine.create(function()
    await()
    if how == "read" then reader((i - 1) * 7919 + 1, pages) else appender() end
  end)
  coroutine.resume(coroutines[i])
end
local words = { how, path, arg[3], arg[4], arg[5] }
bare.run(coroutines, (table.unpack or unpack)(words))
