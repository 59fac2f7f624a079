-- Random 4 KiB reads by DEPTH coroutines on luv's fs_read: luv_reads.lua FILE DEPTH OPERATIONS.
-- Through the page cache, as luv's memory is not aligned; the file's pages are dropped before.
-- Prints: operations seconds cpu-seconds kernel-entries (0: not known).
local uv = require("luv")

local path, depth, operations = arg[1], tonumber(arg[2]), tonumber(arg[3])
local PAGE = 4096
local each = math.floor(operations / depth)

local fd = assert(uv.fs_open(path, "r", 0))
local pages = math.floor(uv.fs_fstat(fd).size / PAGE)
local start, cpu = uv.hrtime(), os.clock()
for i = 1, depth do
  coroutine.wrap(function()
    local self, random = coroutine.running(), (i - 1) * 7919 + 1
    local function done(err, data)
      if err or #data ~= PAGE then error(err or "short read") end
      coroutine.resume(self)
    end
    for _ = 1, each do
      random = random * 16807 % 2147483647
      uv.fs_read(fd, PAGE, random % pages * PAGE, done)
      coroutine.yield()
    end
  end)()
end
uv.run()
cpu = os.clock() - cpu
print(string.format("%d %.6f %.6f 0", each * depth, (uv.hrtime() - start) / 1e9, cpu))
