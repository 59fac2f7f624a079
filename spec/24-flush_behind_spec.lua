-- A lone durable write where that is a write and a flush of the device's cache: the ring starts the
-- flush itself when the write has ended. What the kernel refuses of that is done in another way,
-- and durable all the same.

local jdbfs = require "jdbfs"
local process = require "support_process"

-- Three durable writes, one after the other, of a task; prints what the device is and does.
local WRITES = [[
  local page = jdbfs.PAGE_SIZE
  local pages = tonumber(arg[3] or 1) -- of the last write
  local f = assert(jdbfs.create(dir .. "/f", { direct = "prefer" }))
  check("room", f:preallocate(5 * page, "zero"))
  check("room", f:sync_all())
  local info = assert(f:info())
  local d = info.durability
  local behind = info.direct and d.volatile_cache == true and d.fua == false
  jdbfs.run(function()
    local b = jdbfs.buffer(pages * page)
    for i = 1, 3 do
      b:fill(96 + i)
      local length = i == 3 and #b or page
      local written, message, err = f:write_at(b, i * page, 0, length, "dsync")
      print(written or err.name .. " " .. err.actual)
    end
  end)
  for i = 1, 3 do
    local data = f:read(i * page, page)
    print(data == string.char(96 + i):rep(page) and "there" or "not there")
  end
  print(f:info().poisoned, jdbfs.info().backend, behind)
  f:close()
]]

local DONE = ("4096\n"):rep(3) .. ("there\n"):rep(3) .. "false\tio_uring\ttrue\n"

describe("a durable write with the flush behind it", function()
  process.setup()

  -- What WRITES prints when a system call is disturbed like that; nil, why.
  local function disturbed(inject)
    local prefix, why = process.strace(inject)
    if not prefix then return nil, why end
    return (process.script(WRITES, { prefix = prefix, env = { JDBFS_BACKEND = "auto" } }))
  end

  local function it_writes(name, body)
    it(name, function()
      local out, why = disturbed("getppid:retval=7")
      if not out then return pending(why) end
      if not out:match("io_uring\ttrue\n$") then
        return pending("needs io_uring, direct I/O and a device with a cache and no FUA")
      end
      assert.are.equal(DONE, out)
      body()
    end)
  end

  it_writes("is no durable write of the system", function()
    assert.are.equal(DONE, (disturbed("pwritev2:error=EIO")))
  end)

  it_writes("is done by one of those when the kernel takes neither, and not lost", function()
    for _, name in ipairs { "EAGAIN", "EINTR", "EBUSY", "ENOMEM", "EPERM" } do
      for when = 1, 6 do
        assert.are.equal(DONE, (disturbed(("io_uring_enter:error=%s:when=%d"):format(name, when))))
      end
    end
  end)

  it_writes("goes on after a signal that comes while it waits", function()
    for when = 1, 6 do
      assert.are.equal(DONE, (disturbed("io_uring_enter:signal=SIGURG:when=" .. when)))
    end
  end)

  it_writes("that comes short is tried again and tells how far it came", function()
    local limit = 5 * jdbfs.PAGE_SIZE / 512
    local out = process.script(WRITES, { args = { 4 }, env = { JDBFS_BACKEND = "auto" },
      prefix = ("sh -c 'trap \"\" XFSZ; ulimit -f %d; exec \"$@\"' sh"):format(limit) })
    assert.are.equal((DONE:gsub("4096\nthere", "EFBIG 8192\nthere")), out)
  end)
end)
