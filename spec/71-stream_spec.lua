-- Streams: any sizes against a string, exact lengths, and no error of a background write lost.

local jdbfs = require "jdbfs"
local stream = require "jdbfs.stream"
local support = require "support"
local lfs = support.lfs

local PAGE = 4096

local function create(path)
  return assert(jdbfs.create(path or support.path(), { direct = "prefer" }))
end

-- Bytes that tell their place.
local function sample(size, seed)
  local words = {}
  for i = 1, math.floor(size / 8) + 1 do
    words[i] = ("%07d;"):format((i * 7919 + (seed or 0)) % 9999999)
  end
  return table.concat(words):sub(1, size)
end

local function write_all(f, data, o)
  local w = assert(stream.writer(f, o))
  assert(w:write(data))
  assert.are.equal((o and o.offset or 0) + #data, w:position())
  assert.is_true(w:close())
  return w
end

local function read_all(f, size, o)
  local r = assert(stream.reader(f, o))
  local parts = {}
  while true do
    local data, message = r:read(size)
    if not data then
      assert(not message, message)
      break
    end
    parts[#parts + 1] = data
  end
  r:close()
  return table.concat(parts)
end

-- A file whose methods ask hook(name, n) first, n counting the calls of that name.
local function hooked(f, hook)
  local core = require "jdbfs.core"
  local proxy, counts = {}, {}
  for _, name in ipairs({ "write_at", "read_upto", "sync_data", "sync_all", "size", "truncate" }) do
    proxy[name] = function(_, ...)
      counts[name] = (counts[name] or 0) + 1
      if hook(name, counts[name]) then return core.failure("Io", name, f:path(), "injected") end
      return f[name](f, ...)
    end
  end
  function proxy.info() return f:info() end
  function proxy.path() return f:path() end
  return proxy, counts
end

describe("a writer", function()
  support.setup()

  support.both("leaves a file of exactly the bytes written, of any size", function()
    local sizes = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 1048575, 1048576, 1048577 }
    for _, o in ipairs({ {}, { block = 4096, depth = 1 }, { block = 5000, depth = 3 } }) do
      for _, size in ipairs(sizes) do
        local path = support.path()
        local f = create(path)
        local data = sample(size)
        write_all(f, data, o)
        assert.are.equal(size, assert(f:size()))
        assert.is_true(support.get(path) == data)
        assert(f:close())
      end
    end
  end)

  support.task("has a full block on its way before it fills the next", function()
    local path = support.path()
    local f, counts = hooked(create(path), function() return false end)
    local w = assert(stream.writer(f, { block = PAGE, depth = 4 }))
    assert(w:write(("a"):rep(PAGE)))
    assert.are.equal(1, counts.write_at)
    assert(w:write(("b"):rep(PAGE - 1)))
    assert.are.equal(1, counts.write_at)
    assert(w:write("B"))
    assert.are.equal(2, counts.write_at)
    assert(w:space()):fill(99)
    assert(w:advance(PAGE))
    assert(w:space()):fill(100)
    assert.are.equal(3, counts.write_at)
    assert(w:advance(PAGE))
    assert(w:close())
    assert.are.equal(4, counts.write_at)
    local wanted = ("a"):rep(PAGE) .. ("b"):rep(PAGE - 1) .. "B"
    wanted = wanted .. ("c"):rep(PAGE) .. ("d"):rep(PAGE)
    assert.is_true(support.get(path) == wanted)
  end)

  support.task("loses no byte when several tasks write", function()
    local path = support.path()
    local f = create(path)
    local w = assert(stream.writer(f, { block = PAGE, depth = 2 }))
    local tasks = {}
    for i = 1, 3 do
      tasks[i] = jdbfs.spawn(function()
        for _ = 1, 20 do assert(w:write((("xyz"):sub(i, i)):rep(1500 * i))) end
      end)
    end
    for i = 1, 3 do tasks[i]:join() end
    assert(w:close())
    local data = support.get(path)
    assert.are.equal(180000, #data)
    for i = 1, 3 do
      local rest = data:gsub(("xyz"):sub(i, i), "")
      assert.are.equal(180000 - 30000 * i, #rest)
    end
  end)

  support.both("takes strings and buffers of random sizes", function()
    math.randomseed(42)
    for round = 1, 6 do
      local path = support.path()
      local f = create(path)
      local w = assert(stream.writer(f, { block = 4096 * round, depth = round }))
      local model = {}
      for i = 1, 120 do
        local data = sample(math.random(0, round * 1500), i)
        if #data > 0 and i % 3 == 0 then
          local b = jdbfs.buffer(#data)
          b:set(0, data)
          assert(w:write(b))
          b:free()
        else
          assert(w:write(data, "", "|"))
          data = data .. "|"
        end
        model[#model + 1] = data
        if i % 40 == 0 then
          assert.is_true(w:sync())
          local so_far = table.concat(model)
          assert.are.equal(#so_far, w:position())
          assert.are.equal(#so_far, w:written())
          assert.are.equal(#so_far, w:durable())
          assert.is_true(support.get(path) == so_far)
        end
        assert.is_true(w:durable() <= w:written() and w:written() <= w:position())
      end
      assert(w:close())
      assert.is_true(support.get(path) == table.concat(model))
      assert(f:close())
    end
  end)

  support.both("starts at any offset and keeps what is around", function()
    local data, new = sample(20000), sample(3000, 5)
    for _, offset in ipairs({ 0, 1, 511, 512, 4096, 5000, 17000, 19999, 20000, 20001, 30000 }) do
      local path = support.path()
      support.put(path, data)
      local f = assert(jdbfs.open_rw(path, { direct = "prefer" }))
      write_all(f, new, { offset = offset, block = 4096 })
      local model = data .. ("\0"):rep(offset - #data)
      model = model:sub(1, offset) .. new .. model:sub(offset + #new + 1)
      assert.is_true(support.get(path) == model, "offset " .. offset)
      write_all(f, "", { offset = 50001 })
      assert.are.equal(#model, assert(f:size()))
      assert(f:close())
    end
  end)

  support.task("has depth blocks in flight and no more", function()
    local f = create()
    local flying, most = 0, 0
    local proxy = hooked(f, function() end)
    function proxy.write_at(_, ...)
      flying = flying + 1
      most = math.max(most, flying)
      for _ = 1, 1000 do -- whatever the disk is, until the others are here
        if most == 3 then break end
        jdbfs.yield()
      end
      local n, message, err = f:write_at(...)
      flying = flying - 1
      return n, message, err
    end
    local w = assert(stream.writer(proxy, { block = PAGE, depth = 3 }))
    assert(w:write(sample(40 * PAGE)))
    assert(w:close())
    assert.are.equal(3, most)
    assert(f:close())
  end)

  support.both("flushes only what is written, and once", function()
    local f = create()
    local proxy, counts = hooked(f, function() end)
    local w = assert(stream.writer(proxy, { block = PAGE }))
    assert(w:write(sample(3 * PAGE)))
    assert.are.equal(0, w:durable())
    assert(w:sync())
    assert.are.equal(3, counts.write_at)
    assert.are.equal(1, (counts.sync_data or 0) + (counts.sync_all or 0))
    assert.are.equal(3 * PAGE, w:durable())
    assert(w:write("tail"))
    assert(w:sync())
    assert.are.equal(3 * PAGE + 4, f:size())
    assert(w:write("more"))
    assert.are.equal(3 * PAGE + 4, w:durable())
    assert.are.equal(3 * PAGE + 8, w:position())
    assert(w:close())
    assert.are.equal(2, (counts.sync_data or 0) + (counts.sync_all or 0))
    assert.are.equal(3 * PAGE + 8, f:size())
    assert(f:close())
  end)

  support.both("tells of a failed background write on the next call and on close", function()
    local f = create()
    local proxy = hooked(f, function(name, n) return name == "write_at" and n == 2 end)
    local w = assert(stream.writer(proxy, { block = PAGE, depth = 2 }))
    local message, err
    for _ = 1, 10 do
      local ok
      ok, message, err = w:write(sample(PAGE))
      if not ok then break end
    end
    support.fails({ kind = "Io", op = "write_at" }, nil, message, err)
    support.fails({ kind = "Io", op = "write_at" }, w:write("x"))
    support.fails({ kind = "Io", op = "write_at" }, w:sync())
    assert.are.equal(0, w:durable())
    assert.is_true(w:written() <= PAGE)
    support.fails({ kind = "Io", op = "write_at" }, w:close())
    assert.is_true(w:close())
    support.fails({ kind = "Closed", op = "write" }, w:write("x"))
    support.fails({ kind = "Closed", op = "sync" }, w:sync())
    assert(f:close())
  end)

  support.both("loses no error of any operation", function()
    for _, call in ipairs({ "write_at", "sync_all", "size", "truncate" }) do
      local f = create()
      local proxy = hooked(f, function(name) return name == call end)
      local w = assert(stream.writer(proxy, { block = PAGE }))
      assert(w:write("not a block"))
      support.fails({ kind = "Io", op = call }, w:sync())
      assert.are.equal(0, w:durable())
      support.fails({ kind = "Io", op = call }, w:close())
      assert(f:close())
    end
  end)

  support.both("can be filled in place, between writes of any size", function()
    math.randomseed(7)
    for round = 1, 6 do
      local path = support.path()
      local f = create(path)
      local o = { block = 4096 * round, depth = round, offset = round - 1 }
      local w = assert(stream.writer(f, o))
      local model = { ("\0"):rep(round - 1) }
      for i = 1, 150 do
        local data = sample(math.random(1, 5000), i)
        if i % 4 == 0 then
          assert(w:write(data))
        else
          local space = assert(w:space())
          assert.is_true(#space >= 1)
          data = data:sub(1, #space)
          space:set(0, data)
          -- In two steps; what is not advanced over is not written.
          assert.is_true(w:advance(math.floor(#data / 2)))
          assert.is_true(w:advance(#data - math.floor(#data / 2)))
        end
        model[#model + 1] = data
        if i % 50 == 0 then assert(w:sync()) end
      end
      assert(w:close())
      support.fails({ kind = "Closed", op = "space" }, w:space())
      support.fails({ kind = "Closed", op = "advance" }, w:advance(0))
      assert.is_true(support.get(path) == table.concat(model))
      assert(f:close())
    end
  end)

  it("goes on when the caller of write or sync is cancelled", function()
    for yields = 1, 30 do
      local path = support.path()
      jdbfs.run(function()
        local f = create(path)
        local w = assert(stream.writer(f, { block = PAGE, depth = 2 }))
        local task = jdbfs.spawn(function()
          w:write(sample(2 * PAGE + 100))
          w:sync()
        end)
        for _ = 1, yields do jdbfs.yield() end
        task:cancel()
        task:join()
        local before = w:position()
        assert(w:write("after"))
        assert(w:close())
        assert(f:close())
        assert.are.equal(sample(before) .. "after", support.get(path))
      end)
    end
  end)

  it("knows that a failed run ended its writes", function()
    local f = create()
    local w
    support.raises("stop here", jdbfs.run, function()
      w = assert(stream.writer(f, { block = PAGE, depth = 4 }))
      assert(w:write(sample(3 * PAGE + 1)))
      error("stop here")
    end)
    support.fails({ kind = "Cancelled", op = "write" }, w:close())
    assert(f:close())
  end)

  it("raises on misuse", function()
    local f = create()
    support.raises("jdbfs file expected", stream.writer, "x")
    support.raises("table expected", stream.writer, f, 7)
    support.raises("unknown option depht", stream.writer, f, { depht = 1 })
    support.raises("option block", stream.writer, f, { block = 0 })
    support.raises("option offset", stream.writer, f, { offset = -1 })
    local w = assert(stream.writer(f))
    support.raises("string or jdbfs buffer expected", w.write, w, 12)
    support.raises("call with a colon", w.write, "x")
    support.raises("0 to 0 expected", w.advance, w, 1)
    local space = assert(w:space())
    assert.are.equal(1048576, #space)
    for _, n in ipairs({ -1, 0.5, 1048577, "1", 0 / 0 }) do
      support.raises("0 to 1048576 expected", w.advance, w, n)
    end
    assert(w:close())
    assert(f:close())
    support.fails({ kind = "Closed" }, stream.writer(f))
  end)

  it("says ENOSPC, and what was written before stays", function()
    local why = support.lacks("root", "mkfs.ext4", "mount")
    if why then return pending(why) end
    local image, dir = support.path("image"), support.path("mnt")
    lfs.mkdir(dir)
    local q = support.quote
    local status, out = support.sh(("PATH=$PATH:/usr/sbin:/sbin; truncate -s 6M %s && "
      .. "mkfs.ext4 -q -F %s && mount -o loop %s %s"):format(q(image), q(image), q(image), q(dir)))
    if status ~= 0 then return pending("cannot mount: " .. out:match("[^\n]*")) end
    local function body()
      local f = create(dir .. "/f")
      local w = assert(stream.writer(f, { block = 65536 }))
      local ok, message, err = true, nil, nil
      while ok do ok, message, err = w:write(sample(50000)) end
      support.fails({ kind = "Io", name = "ENOSPC" }, nil, message, err)
      local written = w:written()
      assert.is_true(written > 1000000)
      support.fails({ kind = "Io", name = "ENOSPC" }, w:close())
      assert.are.equal(written, #assert(f:read(0, written)))
      assert(f:close())
    end
    local passed, text = pcall(jdbfs.run, body)
    if passed then passed, text = pcall(body) end
    collectgarbage()
    support.sh(("for i in 1 2 3 4 5 6 7 8 9; do umount %s && break; sleep 0.2; done"):format(
      q(dir)))
    assert(passed, text)
  end)
end)

describe("a reader", function()
  support.setup()

  support.both("gives the file in pieces of any size", function()
    for _, size in ipairs({ 0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 300001 }) do
      local path, data = support.path(), sample(size)
      support.put(path, data)
      local f = assert(jdbfs.open(path, { direct = "prefer" }))
      for _, piece in ipairs({ 7777, 4096, 300001, 1000000 }) do
        assert.is_true(read_all(f, piece) == data)
        assert.is_true(read_all(f, piece, { block = 4096, depth = 1 }) == data)
        assert.is_true(read_all(f, piece, { block = 10000, depth = 9 }) == data)
      end
      if size < 600 then assert.is_true(read_all(f, 1) == data) end
      assert(f:close())
    end
  end)

  support.both("starts at any offset and tells its position", function()
    local path, data = support.path(), sample(50000)
    support.put(path, data)
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    math.randomseed(7)
    for _, offset in ipairs({ 0, 1, 4095, 4096, 33333, 49999, 50000, 60000 }) do
      local r = assert(stream.reader(f, { offset = offset, block = 8192 }))
      local pos = offset
      while true do
        assert.are.equal(pos, r:position())
        local n = math.random(9000)
        local got = r:read(n)
        if not got then break end
        assert.is_true(got == data:sub(pos + 1, pos + n))
        pos = pos + #got
      end
      assert.are.equal(math.max(offset, 50000), pos)
      assert.are.same({}, { r:read(10) })
      assert.are.equal("", r:read(0))
      assert.is_true(r:close())
    end
    assert(f:close())
  end)

  support.both("fills buffers", function()
    local path, data = support.path(), sample(30000)
    support.put(path, data)
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    local r = assert(stream.reader(f, { block = 4096 }))
    local b = jdbfs.buffer(7000)
    assert.are.equal(7000, r:read_into(b))
    assert.are.equal(data:sub(1, 7000), b:string())
    assert.are.equal(100, r:read_into(b, 50, 100))
    assert.are.equal(data:sub(7001, 7100), b:string(50, 100))
    assert.are.equal(data:sub(1, 50), b:string(0, 50))
    assert.are.equal(data:sub(7101, 29000), r:read(21900))
    assert.are.equal(1000, r:read_into(b))
    assert.are.equal(data:sub(29001), b:string(0, 1000))
    assert.are.equal(0, r:read_into(b))
    support.fails({ kind = "Overflow", op = "read_into" }, r:read_into(b, 6999, 2))
    support.fails({ kind = "Overflow", op = "read_into" }, r:read_into(b, -1))
    support.fails({ kind = "Overflow", op = "read_into" }, r:read_into(b, 0.5))
    assert(r:close())
    assert(f:close())
  end)

  support.both("goes on behind the end when the file has grown", function()
    local path = support.path()
    local f = create(path)
    write_all(f, sample(5000))
    local r = assert(stream.reader(f, { block = 4096 }))
    assert.are.equal(5000, #r:read(6000))
    assert.is_nil(r:read(1))
    write_all(f, "more", { offset = 5000 })
    assert.are.equal("more", r:read(100))
    assert.is_nil(r:read(1))
    assert(r:close())
    assert(f:close())
  end)

  support.task("reads depth blocks ahead, and none behind the end", function()
    local path = support.path()
    support.put(path, sample(20 * PAGE))
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    local proxy, counts = hooked(f, function() end)
    local r = assert(stream.reader(proxy, { block = PAGE, depth = 3 }))
    assert.are.equal(10, #r:read(10))
    jdbfs.sleep(0.01)
    assert.are.equal(4, counts.read_upto)
    assert.are.equal(20 * PAGE - 10, #r:read(20 * PAGE - 10))
    jdbfs.sleep(0.01)
    assert.are.equal(20, counts.read_upto)
    assert(r:close())
    assert(f:close())
  end)

  support.both("reports an error in its place, and reads again after it", function()
    local path, data = support.path(), sample(10 * PAGE)
    support.put(path, data)
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    local broken = true
    local proxy = hooked(f, function(name, n) return broken and name == "read_upto" and n >= 4 end)
    local r = assert(stream.reader(proxy, { block = PAGE, depth = 2 }))
    assert.are.equal(data:sub(1, 2 * PAGE + 5), r:read(2 * PAGE + 5))
    support.fails({ kind = "Io", op = "read_upto" }, r:read(PAGE))
    assert.are.equal(2 * PAGE + 5, r:position())
    broken = false
    assert.are.equal(data:sub(2 * PAGE + 6), r:read(10 * PAGE))
    assert(r:close())
    assert(f:close())
  end)

  support.both("gives its blocks uncopied, also mixed with other reads", function()
    local path, data = support.path(), sample(300001)
    support.put(path, data)
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    local ways = { { block = 4096, depth = 1 }, { block = 40000, depth = 3, offset = 777 } }
    for _, o in ipairs(ways) do
      local r = assert(stream.reader(f, o))
      local parts = { data:sub(1, o.offset or 0) }
      for i = 1, 1000 do
        local b, message = r:next_block()
        if not b then
          assert.is_nil(message)
          break
        end
        assert.is_true(#b >= 1 and #b <= 45056)
        parts[#parts + 1] = b:string()
        if i % 3 == 0 then parts[#parts + 1] = r:read(1000) end
        assert.are.equal(#table.concat(parts), r:position())
      end
      assert.is_true(table.concat(parts) == data)
      assert.is_nil((r:next_block()))
      assert(r:close())
      support.fails({ kind = "Closed", op = "next_block" }, r:next_block())
    end
    assert(f:close())
  end)

  it("gives what was added behind the end later, as a block as well", function()
    local path = support.path()
    local f = create(path)
    write_all(f, "first")
    local r = assert(stream.reader(f, { block = 4096 }))
    assert.are.equal("first", r:next_block():string())
    assert.is_nil((r:next_block()))
    write_all(f, "second", { offset = 5 })
    assert.are.equal("second", r:next_block():string())
    assert(r:close())
    assert(f:close())
  end)

  it("reads again what a failed run was reading", function()
    local path, data = support.path(), sample(20 * PAGE)
    support.put(path, data)
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    for turns = 0, 12 do
      local r = assert(stream.reader(f, { block = PAGE, depth = 3 }))
      support.raises("stop here", jdbfs.run, function()
        jdbfs.spawn(r.read, r, 100)
        for _ = 1, turns do jdbfs.yield() end
        error("stop here")
      end)
      local position = r:position()
      assert.are.equal(data:sub(position + 1, position + 300), (r:read(300)))
      r:close()
    end
    assert(f:close())
  end)

  it("survives the cancellation of its caller", function()
    local path, data = support.path(), sample(40 * PAGE)
    support.put(path, data)
    jdbfs.run(function()
      local f = assert(jdbfs.open(path, { direct = "prefer" }))
      local r = assert(stream.reader(f, { block = PAGE, depth = 2 }))
      for i = 1, 20 do
        local task = jdbfs.spawn(function() r:read(100) end)
        if i % 3 > 0 then jdbfs.yield() end
        if i % 4 > 0 then jdbfs.yield() end
        task:cancel()
        task:join()
        local pos = r:position()
        local got = r:read(5000)
        assert.is_true(got == data:sub(pos + 1, pos + 5000))
      end
      assert(r:close())
      assert(f:close())
    end)
  end)

  it("is closed when it was closed, and raises on misuse", function()
    local path = support.path()
    support.put(path, "some bytes")
    local f = assert(jdbfs.open(path, { direct = "prefer" }))
    support.raises("jdbfs file expected", stream.reader, {})
    support.raises("unknown option size", stream.reader, f, { size = 1 })
    local r = assert(stream.reader(f))
    support.raises("number expected", r.read, r)
    support.raises("number expected", r.read, r, "a")
    support.raises("jdbfs buffer expected", r.read_into, r, "a")
    for _, case in ipairs({ -1, 0.5, 0 / 0, math.huge, 2 ^ 60 }) do
      support.fails({ kind = "Overflow", op = "read" }, r:read(case))
    end
    assert.are.equal("some", r:read(4))
    assert.is_true(r:close())
    assert.is_true(r:close())
    support.fails({ kind = "Closed", op = "read" }, r:read(1))
    support.fails({ kind = "Closed", op = "read_into" }, r:read_into(jdbfs.buffer(1)))
    assert(f:close())
  end)
end)
