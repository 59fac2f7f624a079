-- A buffer that was freed or is in flight raised in a writer's write and a reader's read_into, with
-- a line of this library, where the file's own calls return a failure. The message of a log's
-- append had such a line in it.

local support = require "support"
local jdbfs, fails = support.jdbfs, support.fails
local PAGE = jdbfs.PAGE_SIZE

describe("a buffer that is refused", function()
  support.setup()

  local function create(path)
    return assert(jdbfs.create(path, { direct = "prefer" }))
  end

  support.task("is a failure of a stream when it is in flight, and the stream goes on", function()
    local from, to = support.path("from"), support.path("to")
    local f, g = create(from), create(to)
    local b = jdbfs.buffer(2 * PAGE)
    b:fill(0x61)
    assert(f:write_at(b, 0))
    local r, w = jdbfs.reader(f), jdbfs.writer(g)
    assert.equal("a", r:read(1))
    assert.is_true(w:write("a"))
    local task = jdbfs.spawn(function() return f:read_at(b, 0, 0, PAGE) end)
    jdbfs.yield()
    assert.equal("waiting", task:status())
    fails({ kind = "Busy", op = "read_into", path = from, says = ": the buffer is in flight" },
      r:read_into(b, 0, 10))
    fails({ kind = "Busy", op = "write", path = to, says = ": the buffer is in flight" },
      w:write(b))
    assert.equal(PAGE, task:join())
    assert.equal(1, r:position())
    assert.equal(1, w:position())
    assert.equal(2 * PAGE - 1, r:read_into(b))
    assert.is_true(w:write(b))
    assert.is_true(w:close())
    r:close()
    f:close()
    g:close()
    support.holds(to, ("a"):rep(2 * PAGE + 1))
  end)

  support.both("is a failure of streams and logs when it was freed", function()
    local path, dir = support.path("f"), support.path("log")
    local f = create(path)
    local r, w = jdbfs.reader(f), jdbfs.writer(f)
    local log = assert(jdbfs.log(dir, { segment_size = 65536, direct = "prefer" }))
    local b = jdbfs.buffer(1)
    b:free()
    local says = ": the buffer was freed"
    fails({ kind = "Closed", op = "read_into", path = path, says = path .. says }, r:read_into(b))
    fails({ kind = "Closed", op = "write", path = path, says = path .. says }, w:write(b))
    fails({ kind = "Closed", op = "append", path = dir, says = dir .. says }, log:append(b))
    assert.is_true(w:write("still"))
    assert.is_true(w:close())
    assert.equal("still", r:read(9))
    r:close()
    f:close()
    log:close()
  end)
end)
