-- What the system refuses arrives as it is: kind, errno, name, operation, path, offset, length,
-- bytes moved, for every call and every errno; and the file is poisoned by what leaves the
-- durability of data in doubt, by nothing else.

local support = require "support"
local support_faults = require "support_faults"

local jdbfs, faults = support.jdbfs, support_faults.faults
local errno = support_faults.errno
local PAGE = jdbfs.PAGE_SIZE
local NAME = "file-under-test"

-- The kind of each errno; all others are Io.
local KINDS = {
  ENOMEM = "Alloc", EOVERFLOW = "Overflow", ECANCELED = "Cancelled", EOPNOTSUPP = "Unsupported",
  ENOSYS = "Unsupported",
}
local ERRNOS = {
  "EPERM", "ENOENT", "EIO", "ENXIO", "EBADF", "ENOMEM", "EACCES", "EBUSY", "EEXIST", "EXDEV",
  "ENODEV", "ENOTDIR", "EISDIR", "EINVAL", "ENFILE", "EMFILE", "EFBIG", "ENOSPC", "EROFS", "ELOOP",
  "EOVERFLOW", "ETIMEDOUT", "ECANCELED", "ESTALE", "EDQUOT", "ENODATA", "EPROTO", "ENAMETOOLONG",
}
-- "Nothing was written, so nothing is in doubt."
local HARMLESS = {}
for _, name in ipairs { "ENOSPC", "EDQUOT", "EFBIG", "EINVAL", "ECANCELED", "EBADF", "ENOMEM" } do
  HARMLESS[name] = true
end
-- Of a file in the page cache (tmpfs before Linux 6.6) they may tell of older writes.
local OF_OLDER = { ENOSPC = true, EDQUOT = true, ENOMEM = true }

local function list(b)
  return { { b, 0, 0, PAGE }, { b, PAGE, PAGE, PAGE } }
end

-- name of the call in errors; what fails (default: the name); the call; offset and length told;
-- durable: "write" or "flush", what fails of it; file: on an open file (default).
local CALLS = {
  { "read_at", call = function(f, b) return f:read_at(b, PAGE) end, off = PAGE, len = 2 * PAGE },
  { "read_upto", "read_at", call = function(f, b) return f:read_upto(b, 0) end, off = 0,
    len = 2 * PAGE },
  { "read", "read_at", call = function(f) return f:read(0, PAGE) end, off = 0, len = PAGE },
  { "read_many", "read_at", call = function(f, b) return f:read_many(list(b)) end, off = 0,
    len = PAGE, index = 1 },
  { "write_at", call = function(f, b) return f:write_at(b, PAGE) end, off = PAGE, len = 2 * PAGE },
  { "write_at", call = function(f, b) return f:write_at(b, PAGE, 0, PAGE, "dsync") end, off = PAGE,
    len = PAGE, durable = "write", o = { direct = "prefer", durable_method = "write" } },
  { "write_at", "sync_data", call = function(f, b) return f:write_at(b, 0, 0, PAGE, "dsync") end,
    off = 0, len = PAGE, durable = "flush", o = { direct = "prefer", durable_method = "flush" } },
  { "write_at", call = function(f, b) return f:write_at(b, 0) end, off = 0, len = 2 * PAGE,
    durable = "write", o = { direct = "prefer", dsync = true } },
  { "write_many", "write_at", call = function(f, b) return f:write_many(list(b)) end, off = 0,
    len = PAGE, index = 1 },
  { "write_many", "sync_data", call = function(f, b) return f:write_many(list(b), "dsync") end,
    durable = "flush" },
  { "sync_data", call = function(f) return f:sync_data() end, durable = "flush" },
  { "sync_all", call = function(f) return f:sync_all() end, durable = "flush" },
  { "truncate", call = function(f) return f:truncate(PAGE) end, len = PAGE },
  { "preallocate", call = function(f) return f:preallocate(PAGE) end, len = PAGE },
  { "punch", call = function(f) return f:punch(PAGE, PAGE) end, off = PAGE, len = PAGE },
  { "size", call = function(f) return f:size() end },
  { "stat", call = function(f) return f:stat() end },
  { "info", call = function(f) return f:info() end },
  { "lock", call = function(f) return f:lock("shared") end },
  { "unlock", call = function(f) return f:unlock() end },
  { "close", call = function(f) return f:close() end },
}
for _, name in ipairs { "open", "create", "open_rw", "open_wal" } do
  CALLS[#CALLS + 1] = { name, "open", file = false,
    call = function(path) return jdbfs[name](path, { direct = "prefer" }) end }
end
for _, name in ipairs { "exists", "mkdir", "ls", "size", "stat", "remove", "sync_dir", "probe",
  "space" } do
  CALLS[#CALLS + 1] = { name, file = false, call = function(path) return jdbfs[name](path) end }
end
CALLS[#CALLS + 1] = { "rename", file = false,
  call = function(path) return jdbfs.rename(path, path .. "2") end }
CALLS[#CALLS + 1] = { "atomic_write", file = false,
  call = function(path) return jdbfs.atomic_write(path, "data") end }

local function shown(call)
  return call[1] .. (call[2] and " by " .. call[2] or "") .. (call.durable and ", durable" or "")
end

local function expected(call, name, path)
  local want = { kind = KINDS[name] or "Io", name = name, errno = errno(name), op = call[1],
    path = path, offset = call.off, length = call.len }
  if not call.durable and call.file ~= false then
    want.offset, want.length = call.off or "none", call.len or "none"
  end
  return want
end

-- What the call is about: an open file of four pages, or a path with something behind it.
local function subject(call, path, b)
  if call.file ~= false then
    local f = assert(jdbfs.create(path, call.o or { direct = "prefer" }))
    assert(f:write_at(b, 0) and f:write_at(b, 2 * PAGE))
    return f, f
  end
  os.remove(path)
  os.remove(path .. "2")
  if call[1] == "ls" or call[1] == "sync_dir" then
    assert(jdbfs.mkdir(path))
  elseif call[1] ~= "mkdir" and call[1] ~= "create" then
    support.put(path, "some")
  end
  return path
end

-- ENOSYS and the like are the backend's trouble: see the next block.
local function try(call, name, keys)
  local path = support.path(NAME)
  local b = assert(jdbfs.buffer(2 * PAGE))
  local argument, f = subject(call, path, b)
  faults.plan(("%s:errno=%s%s"):format(call[2] or call[1], name, keys))
  local value, message, err = call.call(argument, b)
  local injected = faults.injected()
  faults.plan()
  assert.are.equal(1, injected, "the plan met nothing")
  err = support.fails(expected(call, name, path), value, message, err)
  assert.are.equal(call.index, err.index)
  if f and call[1] ~= "close" then
    local harmless = HARMLESS[name] and (f:info().direct or not OF_OLDER[name])
    local poisons = call.durable == "flush" or (call.durable and not harmless)
    assert.are.equal(poisons and true or false, f:info().poisoned)
    local again, _, why = f:sync_data()
    if poisons then assert.are.equal("Poisoned", why.kind) else assert.is_true(again) end
    assert(f:read_upto(b, 0))
  end
  if f then f:close() end
end

describe("every errno of every call", function()
  support.setup()
  local pairs_seen = 0

  for _, call in ipairs(CALLS) do
    it("is told by " .. shown(call), function()
      for _, name in ipairs(ERRNOS) do
        for _, keys in ipairs { "", ":when=after" } do
          if not (keys ~= "" and call[1] == "open") then try(call, name, keys) end
        end
        pairs_seen = pairs_seen + 1
      end
    end)
  end

  it("makes more than 150 pairs", function()
    support_faults.figures(("errors: %d pairs of call and errno, before and after the work")
      :format(pairs_seen))
    assert.is_true(#CALLS * #ERRNOS > 150)
    assert.are.equal(#CALLS * #ERRNOS, pairs_seen)
    assert.are.same({ 5, 12, 28 }, { errno("EIO"), errno("ENOMEM"), errno("ENOSPC") })
  end)
end)

-- ---- what is not told: it was tried again, in another way ---------------------------------------

describe("an interrupted call", function()
  support.setup()

  it("is made again", function()
    for _, call in ipairs(CALLS) do
      local path = support.path()
      local b = assert(jdbfs.buffer(2 * PAGE))
      local argument, f = subject(call, path, b)
      support_faults.under(("%s:errno=EINTR:count=3"):format(call[2] or call[1]), function()
        local value, message = call.call(argument, b)
        assert(value ~= nil, shown(call) .. ": " .. tostring(message))
      end)
      assert.are.equal(3, support_faults.injected)
      if f then f:close() end
    end
  end)

  it("inside a worker is made again as well", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    for _, point in ipairs { "ftruncate", "fallocate" } do
      support_faults.under(("sys.%s:errno=EINTR:count=2"):format(point), function()
        assert(f:preallocate(4 * PAGE + 1, "zero"))
        assert(f:truncate(0))
      end)
    end
    f:close()
  end)
end)

describe("what the backend cannot do", function()
  support.setup()

  it("the pool does", function()
    if jdbfs.info().backend == "threads" then return end -- it is the pool
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local b = support.page(7)
    for _, name in ipairs { "EAGAIN", "EOPNOTSUPP" } do
      support_faults.under(("write_at:errno=%s;read_at:errno=%s"):format(name, name), function()
        assert(f:write_at(b, 0))
        assert(f:read_at(b, 0))
      end)
      assert.are.equal(2, support_faults.injected)
    end
    f:close()
  end)

  it("is told when the pool cannot either", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local b = support.page(7)
    for name, kind in pairs { EAGAIN = "Io", EOPNOTSUPP = "Unsupported", ENOSYS = "Unsupported" } do
      faults.plan("write_at:errno=" .. name .. ":ever")
      local value, message, err = f:write_at(b, 0)
      faults.plan()
      support.fails({ kind = kind, name = name, op = "write_at", offset = 0 }, value, message, err)
    end
    f:close()
  end)

  it("a lock held elsewhere is Busy, without an errno", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    faults.plan("sys.flock:errno=EAGAIN")
    local value, message, err = f:lock("exclusive")
    faults.plan()
    support.fails({ kind = "Busy", op = "lock", errno = "none" }, value, message, err)
    f:close()
  end)
end)
