-- The log: what was acknowledged is there after any crash, what was torn is cut, what is damaged
-- is an error. JDBFS_KILLS sets how often a writer process is killed, JDBFS_MUTATIONS how many
-- random changes of the files are tried.

local jdbfs = require "jdbfs"
local open_log = require "jdbfs.log"
local support = require "support"
local lfs = support.lfs

local HEADER, BLOCK = 32, 4096
local IS_51 = _VERSION == "Lua 5.1" and not rawget(_G, "jit")

local function open(path, o)
  local options = { direct = "prefer", segment_size = 65536, batch_size = 16384 }
  for name, value in pairs(o or {}) do options[name] = value end
  return open_log(path, options)
end

-- Every record from the first on: data by number, and how many.
local function contents(log, from)
  local cursor = log:records(from)
  local data, count = {}, 0
  while true do
    local number, text, err = cursor:next()
    if number == nil then
      assert(not err, text)
      break
    end
    assert(data[number] == nil, "a number came twice")
    data[number] = text
    count = count + 1
  end
  cursor:close()
  return data, count
end

local function reopen(path, o)
  local log = assert(open(path, o))
  local data, count = contents(log)
  local recovery = log:recovery()
  assert(log:close())
  return data, count, recovery
end

local function segment(path, number)
  return ("%s/%010d.log"):format(path, number or 1)
end

local function segments(path)
  local list = {}
  for name in lfs.dir(path) do
    if name:match("%.log$") then list[#list + 1] = name end
  end
  table.sort(list)
  return list
end

local function patch(data, offset, text)
  return data:sub(1, offset) .. text .. data:sub(offset + #text + 1)
end

local function flip(data, offset)
  return patch(data, offset, string.char((data:byte(offset + 1) + 1) % 256))
end

local function clear(path)
  for name in lfs.dir(path) do
    if name ~= "." and name ~= ".." then assert(support.remove(path .. "/" .. name)) end
  end
  assert(lfs.rmdir(path))
end

local function copy_files(from, to)
  lfs.mkdir(to)
  for name in lfs.dir(from) do
    if name ~= "." and name ~= ".." then
      support.put(to .. "/" .. name, support.get(from .. "/" .. name))
    end
  end
end

-- Appends from that many tasks at once: one batch, when they fit in one.
local function append_together(log, list)
  local tasks, numbers = {}, {}
  for i, data in ipairs(list) do
    tasks[i] = jdbfs.spawn(function() numbers[i] = assert(log:append(data)) end)
  end
  for _, task in ipairs(tasks) do assert(task:status() == "done" or task:join() == nil) end
  return numbers
end

local function text_of(i, size)
  return (("record %d;"):format(i):rep(math.floor(size / 8) + 1)):sub(1, size)
end

-- ---- the log on a core that counts and fails ----------------------------------------------------

local CALLS = { "open", "open_rw", "create", "mkdir", "ls", "sync_dir" }
local METHODS = { "read_upto", "sync_data", "sync_all", "preallocate", "size", "close", "truncate" }

local function failed(core, hook, name, path, call, ...)
  local verdict = hook(name, path)
  if not verdict then return call(...) end
  -- No system leaves a file open, and locked, that was not opened or whose close failed.
  if verdict == "after" or name == "close" then
    local value = call(...)
    if type(value) == "userdata" then value:close() end
  end
  return core.failure("Io", name, path, "injected")
end

local function wrap_file(core, hook, file)
  local proxy = {}
  for _, name in ipairs(METHODS) do
    proxy[name] = function(_, ...)
      return failed(core, hook, name, file:path(), file[name], file, ...)
    end
  end
  -- A durable write counts as the two operations it is.
  function proxy.write_at(_, b, off, b_off, len, flags)
    local written, message, err = failed(core, hook, "write_at", file:path(), file.write_at, file,
      b, off, b_off, len)
    if not written or flags ~= "dsync" then return written, message, err end
    local ok
    ok, message, err = proxy:sync_data()
    if not ok then return nil, message, err end
    return written
  end
  function proxy.info() return file:info() end
  function proxy.path() return file:path() end
  return proxy
end

-- A durable change of a name counts as the two operations it is.
local function wrap_name(core, hook, name, path, to, o)
  if name == "remove" then to, o = nil, to end
  local ok, message, err = failed(core, hook, name, path, core[name], path, to)
  if not ok or not (o and o.durable) then return ok, message, err end
  local dir = path:match("^(.*)/")
  return failed(core, hook, "sync_dir", dir, core.sync_dir, dir)
end

local function wrap_open(core, hook, ...)
  local file = ...
  if not file then return ... end
  return wrap_file(core, hook, file)
end

-- The log on a core whose calls ask hook(name, path) first: "before" fails without being done,
-- "after" is done and reports a failure.
local function hooked(hook)
  local core = require "jdbfs.core"
  -- What this log would tell a host of itself goes with it.
  local fake = setmetatable({ waiting_classes = {} }, { __index = core })
  for _, name in ipairs(CALLS) do
    fake[name] = function(path, ...)
      if name:match("^open") or name == "create" then
        return wrap_open(core, hook, failed(core, hook, name, path, core[name], path, ...))
      end
      return failed(core, hook, name, path, core[name], path, ...)
    end
  end
  for _, name in ipairs({ "rename", "remove" }) do
    fake[name] = function(...) return wrap_name(core, hook, name, ...) end
  end
  local saved = package.loaded["jdbfs.log"]
  package.loaded["jdbfs.core"], package.loaded["jdbfs.log"] = fake, nil
  local hooked_open = require "jdbfs.log"
  package.loaded["jdbfs.core"], package.loaded["jdbfs.log"] = core, saved
  return function(path, o)
    local options = { direct = "prefer", segment_size = 65536, batch_size = 16384 }
    for name, value in pairs(o or {}) do options[name] = value end
    return hooked_open(path, options)
  end
end

local function counted()
  local counts = { write_at = 0, sync_data = 0, sync_all = 0 }
  return hooked(function(name, path)
    if path:match("%.log$") and counts[name] then counts[name] = counts[name] + 1 end
  end), counts
end

-- ---- use ----------------------------------------------------------------------------------------

describe("a log", function()
  support.setup()

  support.both("has one opener at a time", function()
    local path = support.path("log")
    local log = assert(open(path))
    support.fails({ kind = "Busy", says = "lock" }, open(path))
    assert.are.equal(1, assert(log:append("kept")))
    assert(log:close())
    assert.are.same({ "kept" }, (reopen(path)))
  end)

  support.both("gives back what was appended, numbered from 1", function()
    local path = support.path("log")
    local log = assert(open(path))
    assert.are.same({
      records = 0, first = 1, last = 0, segments = 1, clean = true, cut_bytes = 0,
    }, log:recovery())
    for i = 1, 30 do assert.are.equal(i, assert(log:append(text_of(i, i * 37)))) end
    local data, count = contents(log)
    assert.are.equal(30, count)
    for i = 1, 30 do assert.are.equal(text_of(i, i * 37), data[i]) end
    assert.is_true(log:close())
    local again, number, recovery = reopen(path)
    assert.are.same(data, again)
    assert.are.equal(30, number)
    assert.are.same({
      records = 30, first = 1, last = 30, segments = 2, clean = true, cut_bytes = 0,
    }, recovery)
  end)

  it("goes on with the next number after each opening", function()
    local path = support.path("log")
    for i = 1, 20 do
      local log = assert(open(path))
      assert.are.equal(i - 1, log:recovery().last)
      assert.are.equal(i, assert(log:append("x" .. i)))
      assert(log:close())
    end
    local data = reopen(path)
    for i = 1, 20 do assert.are.equal("x" .. i, data[i]) end
  end)

  support.both("keeps records of every size around blocks, batches and segments", function()
    local path = support.path("log")
    local log = assert(open(path))
    local want = {}
    for _, edge in ipairs({ 0, 8, BLOCK, 2 * BLOCK, 16384, 65536 - BLOCK, 65536, 200000 }) do
      for _, more in ipairs({ -HEADER - 1, -HEADER, -HEADER + 1, -8, -7, -1, 0, 1, 9 }) do
        if edge + more >= 0 then
          want[#want + 1] = text_of(#want + 1, edge + more)
          assert.are.equal(#want, assert(log:append(want[#want])))
        end
      end
    end
    assert.are.same(want, (contents(log)))
    assert(log:close())
    local data, _, recovery = reopen(path)
    assert.are.same(want, data)
    assert.is_true(recovery.clean)
  end)

  support.both("takes buffers as records", function()
    local log = assert(open(support.path("log")))
    local b = jdbfs.buffer(5000)
    b:set(0, text_of(1, 5000))
    assert.are.equal(1, assert(log:append(b)))
    assert.are.equal(2, assert(log:append(b:slice(3, 70))))
    b:free()
    support.fails({ kind = "Closed", op = "append" }, log:append(b))
    assert.are.equal(3, assert(log:append("end")))
    local data = contents(log)
    assert.are.equal(text_of(1, 5000), data[1])
    assert.are.equal(text_of(1, 5000):sub(4, 73), data[2])
    assert.are.equal("end", data[3])
    assert(log:close())
  end)

  it("refuses a record beyond 1 GiB and goes on", function()
    local log = assert(open(support.path("log")))
    local huge = jdbfs.buffer(1073741825)
    support.fails({ kind = "Overflow", op = "append" }, log:append(huge))
    huge:free()
    assert.are.equal(1, log:append("small"))
    assert(log:close())
  end)

  it("raises on misuse", function()
    local path = support.path("log")
    support.raises("string expected", open_log, 7)
    support.raises("table expected", open_log, path, 7)
    support.raises("unknown option colour", open_log, path, { colour = 1 })
    support.raises("option segment_size", open_log, path, { segment_size = 100 })
    support.raises("option segment_size", open_log, path, { segment_size = "64k" })
    support.raises("option batch_size", open_log, path, { batch_size = 0 / 0 })
    support.raises("option direct", open_log, path, { direct = "no" })
    assert.is_nil(lfs.attributes(path))
    local log = assert(open(path))
    assert.are.equal(("jdbfs.log (%s)"):format(path), tostring(log))
    support.raises("string or jdbfs buffer expected", log.append, log)
    support.raises("string or jdbfs buffer expected", log.append, log, 12)
    support.raises("call with a colon", log.append, "x")
    support.raises("number expected", log.truncate_before, log, "1")
    assert(log:close())
  end)

  it("is closed when it was closed", function()
    local log = assert(open(support.path("log")))
    assert(log:append("x"))
    local cursor = log:records()
    assert.is_true(log:close())
    assert.is_true(log:close())
    support.fails({ kind = "Closed", op = "append" }, log:append("y"))
    support.fails({ kind = "Closed", op = "truncate_before" }, log:truncate_before(1))
    support.fails({ kind = "Closed", op = "records" }, cursor:next())
    support.fails({ kind = "Closed", op = "records" }, log:records():next())
  end)

  it("leaves no temporary file, and removes what a crash left", function()
    local path = support.path("log")
    local log = assert(open(path))
    jdbfs.run(function() for i = 1, 20 do assert(log:append(text_of(i, 3000))) end end)
    assert(log:close())
    support.put(path .. "/next-3.tmp", "half a segment")
    assert.are.equal(20, select(2, reopen(path)))
    for name in lfs.dir(path) do assert.is_nil(name:match("tmp$"), name) end
  end)

  it("pads with zeros, whatever its buffers held before", function()
    local path = support.path("log")
    jdbfs.run(function()
      local log = assert(open(path))
      for _ = 1, 2 do assert(log:append(("x"):rep(9000))) end
      for _ = 1, 2 do append_together(log, { "y", "yy", "yyy" }) end
      assert(log:close())
    end)
    local text = support.get(segment(path))
    for batch = 7 * BLOCK, 8 * BLOCK, BLOCK do
      for i, data in ipairs({ "y", "yy", "yyy" }) do
        local at = batch + (i - 1) * 40 + HEADER
        assert.are.equal(data .. ("\0"):rep(8 - i), text:sub(at + 1, at + 8))
      end
      assert.are.equal(("\0"):rep(BLOCK - 120), text:sub(batch + 121, batch + BLOCK))
    end
    assert.is_true(select(3, reopen(path)).clean)
  end)

  it("is found with other options than it was made with", function()
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 40 do assert(log:append(text_of(i, 4000))) end
    assert(log:close())
    log = assert(open(path, { segment_size = 1048576, batch_size = 4096 }))
    for i = 41, 80 do assert.are.equal(i, log:append(text_of(i, 4000))) end
    assert(log:close())
    local data, count = reopen(path, { segment_size = 8192 })
    assert.are.equal(80, count)
    for i = 1, 80 do assert.are.equal(text_of(i, 4000), data[i]) end
  end)
end)

-- ---- group commit -------------------------------------------------------------------------------

describe("group commit", function()
  support.setup()

  for _, appenders in ipairs({ 1, 2, 8, 100 }) do
    it(("shares writes and flushes between %d tasks"):format(appenders), function()
      local path = support.path("log")
      local open_counted, counts = counted()
      local each = math.ceil(200 / appenders)
      local numbers = {}
      jdbfs.run(function()
        local log = assert(open_counted(path, { segment_size = 4194304 }))
        counts.write_at, counts.sync_data, counts.sync_all = 0, 0, 0
        local tasks = {}
        for i = 1, appenders do
          tasks[i] = jdbfs.spawn(function()
            local last = 0
            -- Half of them come when the first batch is with the device: they join the others.
            if i % 2 == 0 then for _ = 1, 3 do jdbfs.yield() end end
            for j = 1, each do
              local number = assert(log:append(("%d/%d"):format(i, j)))
              assert(number > last)
              last = number
              assert(not numbers[number], "a number came twice")
              numbers[number] = ("%d/%d"):format(i, j)
            end
          end)
        end
        for _, task in ipairs(tasks) do task:join() end
        local records = appenders * each
        local syncs = counts.sync_data + counts.sync_all
        assert.are.equal(records, log:stats().records)
        assert.are.equal(counts.write_at, log:stats().batches)
        assert.are.equal(counts.write_at, syncs)
        if appenders == 1 then
          assert.are.equal(records, counts.write_at)
        else
          -- All who were answered together append again before the next batch is taken.
          assert.is_true(counts.write_at <= records / appenders * 1.5, counts.write_at .. " writes")
        end
        assert(log:close())
      end)
      assert.are.same(numbers, (reopen(path)))
    end)
  end

  it("is one write and one flush for each append outside tasks", function()
    local open_counted, counts = counted()
    local log = assert(open_counted(support.path("log")))
    counts.write_at, counts.sync_data, counts.sync_all = 0, 0, 0
    for i = 1, 10 do
      assert(log:append("x"))
      assert.are.equal(i, counts.write_at)
      assert.are.equal(i, counts.sync_data + counts.sync_all)
    end
    assert(log:close())
  end)

  it("does not acknowledge before the flush, nor write a batch before the one ahead is durable",
    function()
      local events = {}
      local open_hooked = hooked(function(name, path)
        if path:match("%.log$") then events[#events + 1] = name end
      end)
      jdbfs.run(function()
        local log = assert(open_hooked(support.path("log"), { segment_size = 1048576 }))
        events = {}
        local tasks = {}
        for i = 1, 5 do
          tasks[i] = jdbfs.spawn(function()
            for _ = 1, i do
              assert(log:append("x"))
              local last = events[#events]
              assert(last == "sync_data" or last == "sync_all", last)
              jdbfs.yield()
            end
          end)
        end
        for _, task in ipairs(tasks) do task:join() end
        for i = 1, #events, 2 do
          assert.are.equal("write_at", events[i])
          assert.matches("^sync_", events[i + 1])
        end
        assert(log:close())
      end)
    end)

  it("makes a segment in steps that are durable one after the other, ahead of its use", function()
    local events, made, fill = {}, 0, {}
    local log
    local open_hooked = hooked(function(name, path)
      local kind = path:match("%.tmp$") and "new " or path:match("%.log$") and "segment "
      events[#events + 1] = (kind or "directory ") .. name
      if name == "create" then
        made = made + 1
        fill[#fill + 1] = log and log:stats().bytes % 61440
      end
    end)
    jdbfs.run(function()
      log = assert(open_hooked(support.path("log")))
      for _ = 1, 100 do assert(log:append("x")) end
      local text = table.concat(events, ",")
      local steps = "new create,new preallocate,new sync_all,"
      local use = "new write_at,new sync_all,new close,new rename,directory sync_dir,"
        .. "segment open_rw"
      assert.matches("^directory mkdir,.-,directory sync_dir," .. steps .. use, text)
      local _, used = text:gsub(use, "")
      assert.are.equal(log:stats().segments, used)
      -- Each filled once; all but the first when half of the one before was used.
      assert(log:close())
      assert.is_true(made == used or made == used + 1)
      for _, bytes in ipairs(fill) do assert.is_true(bytes >= 28672 and bytes <= 49152) end
    end)
  end)

  support.task("holds more appenders than a batch has room for, in order and in bounded memory",
    function()
      local path = support.path("log")
      local log = assert(open(path, { batch_size = 4096 }))
      local before = jdbfs.stats().buffers
      local tasks, numbers = {}, {}
      for i = 1, 60 do
        tasks[i] = jdbfs.spawn(function()
          for j = 1, 3 do
            local size = (i == 30) and 20000 or 900
            local text = text_of(i * 10 + j, size)
            numbers[#numbers + 1] = { assert(log:append(text)), text }
            assert(jdbfs.stats().buffers <= before + 2)
          end
        end)
      end
      for _, task in ipairs(tasks) do task:join() end
      assert(log:close())
      local data, count = reopen(path)
      assert.are.equal(180, count)
      for _, entry in ipairs(numbers) do
        assert.are.equal(entry[2], data[entry[1]])
      end
    end)

  support.task("serves those that wait for room in the order they came", function()
    local log = assert(open(support.path("log"), { batch_size = 4096 }))
    local order, tasks = {}, {}
    for i = 1, 40 do
      tasks[i] = jdbfs.spawn(function() order[i] = assert(log:append(text_of(i, 1500))) end)
    end
    for _, task in ipairs(tasks) do task:join() end
    for i = 1, 40 do assert.are.equal(i, order[i]) end
    assert(log:close())
  end)

  support.task("lets no small record overtake a large one, and drops who left the line", function()
    local path = support.path("log")
    local log = assert(open(path, { batch_size = 4096 }))
    for _, cancelled in ipairs({ 0, 2 }) do
      local last, numbers, tasks = log:stats().last, {}, {}
      for i, size in ipairs({ 2000, 3000, 100 }) do
        tasks[i] = jdbfs.spawn(function()
          numbers[i] = assert(log:append(text_of(i, size))) - last
        end)
      end
      -- Ready tasks run in order, the one that commits after them.
      jdbfs.yield()
      if cancelled > 0 then tasks[cancelled]:cancel() end
      for _, task in ipairs(tasks) do task:join() end
      assert.are.same(cancelled == 0 and { 1, 2, 3 } or { 1, nil, 2 }, numbers)
    end
    assert(log:close())
    assert.are.equal(5, select(2, reopen(path)))
  end)

  it("survives the cancellation of any appender at any moment", function()
    local path = support.path("log")
    local acknowledged, total = {}, 0
    jdbfs.run(function()
      local log = assert(open(path, { batch_size = 4096 }))
      for round = 1, 40 do
        local tasks = {}
        for i = 1, 8 do
          tasks[i] = jdbfs.spawn(function()
            for j = 1, 3 do
              local text = text_of(round * 100 + i * 10 + j, i % 2 == 0 and 1500 or 100)
              total = total + 1
              acknowledged[assert(log:append(text))] = text
            end
          end)
        end
        for _ = 1, round % 5 do jdbfs.yield() end
        tasks[1]:cancel()
        tasks[1 + round % 8]:cancel()
        if round % 3 == 0 then jdbfs.sleep(0.0005) end
        tasks[1 + round * 3 % 8]:cancel()
        for _, task in ipairs(tasks) do task:join() end
        acknowledged[assert(log:append("round"))] = "round"
        total = total + 1
      end
      assert(log:close())
    end)
    local data, count = reopen(path)
    assert.is_true(count <= total)
    for number, text in pairs(acknowledged) do assert.are.equal(text, data[number]) end
  end)

  it("refuses a buffer that was freed while its record waited for room", function()
    local log = assert(open(support.path("log"), { batch_size = 4096 }))
    jdbfs.run(function()
      local buffers, tasks, results = {}, {}, {}
      for i = 1, 12 do
        buffers[i] = jdbfs.buffer(1500)
        tasks[i] = jdbfs.spawn(function() results[i] = { log:append(buffers[i]) } end)
      end
      jdbfs.yield()
      buffers[12]:free()
      for _, task in ipairs(tasks) do task:join() end
      for i = 1, 11 do assert.are.equal(i, results[i][1], results[i][2]) end
      support.fails({ kind = "Closed", op = "append" }, (table.unpack or unpack)(results[12], 1, 3))
    end)
    assert.are.equal(11, select(2, contents(log)))
    assert(log:close())
  end)

  -- Of the record behind the first nobody knows.
  local function opens_again(log, path)
    support.fails({ kind = "Poisoned", op = "append" }, log:append("more"))
    assert.is_true(log:close())
    local data, count = reopen(path)
    assert.are.equal("kept", data[1])
    assert.is_true(count <= 2)
  end

  it("is poisoned when a failed run ended its writer, and opens again", function()
    local path = support.path("log")
    local log = assert(open(path))
    assert.are.equal(1, log:append("kept"))
    support.raises("stop here", jdbfs.run, function()
      jdbfs.spawn(function() log:append("unknown") end)
      jdbfs.yield()
      jdbfs.yield()
      error("stop here")
    end)
    opens_again(log, path)
  end)

  -- As an allocation of Lua's may, anywhere.
  it("is poisoned when an error is raised in a commit, and opens again", function()
    local path, armed = support.path("log"), false
    local log = assert(hooked(function(name)
      if armed and name == "sync_data" then error("not enough memory", 0) end
    end)(path))
    assert.are.equal(1, log:append("kept"))
    armed = true
    support.raises("not enough memory", log.append, log, "unknown")
    armed = false
    opens_again(log, path)
  end)

  it("works in a coroutine that jdbfs did not make, inside a task", function()
    local log = assert(open(support.path("log")))
    jdbfs.run(function()
      local generator = coroutine.wrap(function()
        for i = 1, 3 do coroutine.yield(assert(log:append("g" .. i))) end
      end)
      for i = 1, 3 do assert.are.equal(i, generator()) end
      local concurrent = jdbfs.wrap(function()
        for i = 4, 6 do coroutine.yield(assert(log:append("g" .. i))) end
      end)
      for i = 4, 6 do assert.are.equal(i, concurrent()) end
    end)
    assert.are.equal(6, select(2, contents(log)))
    assert(log:close())
  end)

  it("commits what was gathered before it closes", function()
    local path = support.path("log")
    local results = {}
    jdbfs.run(function()
      local log = assert(open(path, { batch_size = 4096 }))
      for i = 1, 20 do
        jdbfs.spawn(function() results[i] = { log:append(text_of(i, 1000)) } end)
      end
      jdbfs.yield()
      assert(log:close())
    end)
    local data = reopen(path)
    for i = 1, 20 do assert.are.equal(text_of(i, 1000), data[results[i][1]]) end
  end)
end)

-- ---- reading ------------------------------------------------------------------------------------

describe("the records of a log", function()
  support.setup()

  local function filled(path, count, o)
    local log = assert(open(path, o))
    for i = 1, count do assert(log:append(text_of(i, i * 91 % 5000))) end
    return log
  end

  support.both("come in a for loop, on every Lua", function()
    local log = filled(support.path("log"), 60)
    local n = 0
    for number, data in log:records() do
      n = n + 1
      assert(number == n and data == text_of(n, n * 91 % 5000))
    end
    assert.are.equal(60, n)
    for number in log:records(41) do
      if number == 50 then break end
      n = n + 1
    end
    assert.are.equal(69, n)
    assert(log:close())
  end)

  support.both("start anywhere", function()
    local log = filled(support.path("log"), 40)
    for _, from in ipairs({ 1, 2, 17, 39, 40 }) do
      local data, count = contents(log, from)
      assert.are.equal(41 - from, count)
      assert.are.equal(text_of(from, from * 91 % 5000), data[from])
    end
    assert.are.equal(0, select(2, contents(log, 41)))
    assert.are.equal(0, select(2, contents(log, 1000)))
    for _, from in ipairs({ 0, -1, 2.5, 0 / 0 }) do
      local cursor = log:records(from)
      support.fails({ kind = "Overflow", op = "records" }, cursor:next())
      support.raises("is no record's number", cursor)
    end
    support.raises("number expected", log.records, log, "1")
    assert(log:close())
  end)

  support.both("go on at the end of a cursor when more is appended", function()
    local log = filled(support.path("log"), 3)
    local cursor = log:records(2)
    assert.are.equal(2, (cursor:next()))
    assert.are.equal(3, (cursor:next()))
    for i = 4, 80 do
      assert.are.same({}, { cursor:next() })
      assert(log:append(text_of(i, 2000)))
      assert.are.same({ i, text_of(i, 2000) }, { cursor:next() })
    end
    assert.is_true(cursor:close())
    assert.is_true(cursor:close())
    assert.are.same({}, { cursor:next() })
    assert(log:close())
  end)

  support.task("are only those that are durable, while others append", function()
    local log = assert(open(support.path("log")))
    local done = 0
    for i = 1, 4 do
      jdbfs.spawn(function()
        for j = 1, 40 do assert(log:append(text_of(i * 1000 + j, 50 + i * 300))) end
        done = done + 1
      end)
    end
    local cursor, seen = log:records(), 0
    while done < 4 or seen < 160 do
      local number, data, err = cursor:next()
      assert(not err, data)
      if number then
        seen = seen + 1
        assert.are.equal(seen, number)
        assert.is_true(number <= log:stats().last)
        assert.matches("^record %d+;", data)
      else
        jdbfs.yield()
      end
    end
    assert.are.equal(160, seen)
    cursor:close()
    assert(log:close())
  end)

  it("raise in a for loop, and fail in next, where one is damaged", function()
    local path = support.path("log")
    local log = filled(path, 20)
    local file = segment(path)
    local at = assert(support.get(file):find("record 7;", 1, true))
    support.put(file, flip(support.get(file), at + 3))
    local seen = 0
    local function loop()
      for number in log:records() do seen = number end
    end
    local ok, message = pcall(loop)
    assert.is_false(ok)
    assert.are.equal(6, seen)
    assert.matches("record 7 ", message)
    local cursor = log:records(7)
    local err = support.fails({ kind = "Io", op = "records", path = file, says = "record 7 " },
      cursor:next())
    assert.is_true(err.offset > 0)
    support.fails({ kind = "Io", op = "records", path = file }, cursor:next())
    cursor:close()
    assert.are.equal(8, (log:records(8):next()))
    assert(log:close())
  end)

  it("leave no file open behind a loop that ends, nor on 5.4 behind one that breaks", function()
    local path = support.path("log")
    local log = filled(path, 60)
    local before = #support.open_files(path)
    for _ in log:records() do end
    for number in log:records() do
      if number == 5 then break end
    end
    if _VERSION ~= "Lua 5.4" then collectgarbage() end
    if not rawget(_G, "jit") then assert.are.equal(before, #support.open_files(path)) end
    assert(log:close())
  end)
end)

-- A log whose only segment, freed before by truncate_before, has just been used again. The record
-- that is in it so far.
local function open_used_again(path)
  local log = assert(open(path, { spare_segments = 1 }))
  while log:stats().reused == 0 do
    assert(log:truncate_before(assert(log:append(text_of(log:stats().last + 1, 3900)))))
  end
  assert.are.equal(1, log:stats().segments)
  return log, text_of(log:stats().last, 3900)
end

-- Opens a copy of that log, with everything failing from operation n on, for every n there is;
-- what is left of each is looked at.
local function open_cut_off(path, copy, look)
  local n, met = 0, true
  while met do
    n, met = n + 1, false
    copy_files(path, copy)
    local count = 0
    local open_failing = hooked(function()
      count = count + 1
      met = met or count >= n
      return count >= n and (n % 2 == 0 and "after" or "before")
    end)
    local log, message = open_failing(copy)
    assert.are.equal(not met, log ~= nil, message)
    if log then log:close() end
    look(n)
    collectgarbage()
    clear(copy)
  end
  assert.is_true(n > 8)
end

-- ---- truncation ---------------------------------------------------------------------------------

describe("truncate_before", function()
  support.setup()

  support.both("removes whole segments but the current, and no number comes twice", function()
    if support.on_wine then return pending("wine keeps the name of a removed file that is open") end
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 60 do assert(log:append(text_of(i, 4000))) end
    local many = #segments(path)
    assert.is_true(many > 3)
    assert.is_true(log:truncate_before(1))
    assert.are.equal(many, #segments(path))
    assert.is_true(log:truncate_before(31))
    local first = log:stats().first
    assert.is_true(first > 1 and first <= 31 and #segments(path) < many)
    assert.are.equal(text_of(31, 4000), contents(log)[31])
    support.fails({ kind = "Overflow", op = "records", says = "record 1 is gone" },
      log:records(1):next())
    assert.are.equal(first, (log:records():next()))
    assert.is_true(log:truncate_before(1000000))
    assert.are.equal(1, #segments(path))
    assert(log:close())
    local _, _, recovery = reopen(path)
    assert.are.equal(60, recovery.last)
    log = assert(open(path))
    assert.are.equal(61, assert(log:append("next")))
    assert(log:close())
  end)

  it("removes a segment as soon as all its records are before that number, not sooner", function()
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 40 do assert(log:append(text_of(i, 4000))) end
    assert(log:truncate_before(2))
    assert.are.equal(1, log:stats().first)
    for number = 3, 40 do
      local many, first = #segments(path), log:stats().first
      assert(log:truncate_before(number))
      if log:stats().first == first then
        assert.are.equal(many, #segments(path))
      else
        assert.are.equal(number, log:stats().first)
        assert.are.equal(many - 1, #segments(path))
      end
    end
    assert.are.equal(1, log:stats().segments)
    assert(log:close())
  end)

  it("makes each removal durable before the next", function()
    for spares, steps in pairs({
      [0] = "remove,sync_dir,remove,sync_dir", "rename,sync_dir,open_rw,remove,sync_dir",
    }) do
      local events = {}
      local open_hooked = hooked(function(name) events[#events + 1] = name end)
      local log = assert(open_hooked(support.path(), { spare_segments = spares }))
      for i = 1, 40 do assert(log:append(text_of(i, 4000))) end
      events = {}
      assert(log:truncate_before(40))
      assert.are.equal(steps, table.concat(events, ","))
      assert(log:close())
    end
  end)

  local function names_in(path)
    local list = {}
    for name in lfs.dir(path) do list[#list + 1] = name:match("^next") or name:match("%.log$") end
    return #list
  end

  support.task("keeps freed segments to use them again, as many as it was told, as they are",
    function()
      for spares = 0, 2 do
        local path, zeroed = support.path(), 0
        local open_counted = hooked(function(name)
          if name == "preallocate" then zeroed = zeroed + 1 end
        end)
        local log = assert(open_counted(path, { spare_segments = spares }))
        for i = 1, 30 do
          for j = 1, 15 do assert(log:append(text_of(15 * i + j, 4000))) end
          if i % 3 == 0 then assert(log:truncate_before(log:stats().last)) end
        end
        -- 30 segments, and perhaps some that are ready; nine times three were freed.
        local ready = log:stats().reused + zeroed - 30
        assert.is_true(ready >= 0 and ready <= 1 + spares, ready)
        assert.are.equal(spares == 0, log:stats().reused == 0)
        assert.is_true(log:stats().reused >= 9 * spares, log:stats().reused)
        assert.is_true(names_in(path) <= log:stats().segments + 1 + spares)
        assert.are.equal(text_of(465, 4000), contents(log)[450])
        assert(log:close())
      end
    end)

  support.task("is met by a cursor as an end of records, whatever becomes of the file", function()
    for spares = 0, 1 do
      local o = { segment_size = 4 * BLOCK, batch_size = BLOCK, spare_segments = spares }
      local log = assert(open(support.path(spares), o))
      for i = 1, 100 do
        assert(log:append(text_of(i, 4000)))
        local remover = jdbfs.spawn(log.truncate_before, log, i)
        for _ = 1, i % 5 do jdbfs.yield() end
        local cursor = log:records()
        repeat
          local number, data, err = cursor:next()
          if err then assert.are.equal("Overflow", err.kind, data) end
        until not number
        cursor:close()
        assert(remover:join())
      end
      assert(log:close())
    end
  end)

  support.both("leaves a segment as it is while a cursor reads it", function()
    if support.on_wine then return pending("wine keeps the name of a removed file that is open") end
    -- More than the cursor reads at once.
    local o = { segment_size = 2097152, batch_size = 262144, spare_segments = 1 }
    local log = assert(open(support.path("log"), o))
    for i = 1, 20 do assert(log:append(text_of(i, 150000))) end
    local cursor = log:records()
    assert.are.equal(1, (cursor:next()))
    for i = 21, 80 do
      assert(log:append(text_of(i, 150000)))
      assert(log:truncate_before(i))
    end
    assert.is_true(log:stats().reused > 0)
    for i = 2, 13 do
      local number, data = cursor:next()
      assert(number == i and data == text_of(i, 150000), data)
    end
    support.fails({ kind = "Overflow" }, cursor:next())
    cursor:close()
    assert(log:close())
  end)

  support.task("uses a segment again whose cursor was dropped without a close", function()
    local drops = {
      function(cursor) for _ in cursor do error("in the loop") end end,
      function(cursor)
        local task = jdbfs.spawn(function() cursor:next() end)
        jdbfs.yield()
        task:cancel()
        task:join()
      end,
    }
    for i, drop in ipairs(drops) do
      local log = assert(open(support.path(i), {
        segment_size = 16 * BLOCK, batch_size = BLOCK, spare_segments = 1,
      }))
      for n = 1, 15 do assert(log:append(text_of(n, 4000))) end
      -- What it leaves on a stack goes with that of its task.
      jdbfs.spawn(function() return (jdbfs.pcall(drop, log:records())) end):join()
      for n = 16, 30 do assert(log:append(text_of(n, 4000))) end
      for _ = 1, 2 do collectgarbage() end
      assert(log:truncate_before(16))
      for n = 31, 75 do assert(log:append(text_of(n, 4000))) end
      assert.are.equal(1, log:stats().reused)
      assert(log:close())
    end
  end)

  it("leaves nothing to cut in a segment that is used again, zeros when it is opened", function()
    local path = support.path("log")
    jdbfs.run(function()
      local log = open_used_again(path)
      assert(log:close())
    end)
    local file = path .. "/" .. segments(path)[1]
    assert.is_truthy(support.get(file):find("[^%z]", 2 * BLOCK + 1))
    local _, count, recovery = reopen(path)
    assert.are.equal(1, count)
    assert.is_true(recovery.clean)
    assert.are.equal(0, recovery.cut_bytes)
    assert.is_nil(support.get(file):find("[^%z]", 2 * BLOCK + 1))
    assert.is_true(select(3, reopen(path)).clean)
  end)

  it("has nothing to cut there either when opening it was cut off before", function()
    local path, copy = support.path("log"), support.path("copy")
    jdbfs.run(function()
      local log = open_used_again(path)
      assert(log:close())
    end)
    open_cut_off(path, copy, function(n)
      for _ = 1, 2 do
        local _, records, recovery = reopen(copy)
        assert.are.equal(1, records)
        assert.is_true(recovery.clean, n)
      end
    end)
  end)

  it("keeps the count when the last segment is empty", function()
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 14 do assert(log:append(text_of(i, 4000))) end
    assert(log:append(text_of(15, 60000))) -- alone in a segment
    assert(log:truncate_before(16))
    assert(log:close())
    -- The record goes, the header stays.
    local file = path .. "/" .. segments(path)[1]
    support.put(file, support.get(file):sub(1, BLOCK) .. ("\0"):rep(61440))
    log = assert(open(path))
    assert.are.equal(14, log:recovery().last)
    assert.are.equal(0, log:recovery().records)
    assert.are.equal(15, assert(log:append("x")))
    assert(log:close())
  end)

  support.task("may run from several tasks, be cancelled, and overtake a cursor", function()
    if support.on_wine then return pending("wine keeps the name of a removed file that is open") end
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 100 do assert(log:append(text_of(i, 4000))) end
    local cursor = log:records()
    assert.are.equal(1, (cursor:next()))
    local a = jdbfs.spawn(function() return log:truncate_before(40) end)
    local b = jdbfs.spawn(function() return log:truncate_before(80) end)
    jdbfs.yield()
    a:cancel()
    assert.is_true(b:join())
    assert.is_true(log:stats().first > 60)
    -- The segment that is open goes on to its end.
    local number, message, err, last
    repeat
      last = number
      number, message, err = cursor:next()
    until not number
    assert.is_true(last > 5)
    support.fails({ kind = "Overflow" }, number, message, err)
    assert(log:close())
    assert.are.equal(100, select(3, reopen(path)).last)
  end)
end)

-- ---- torn tails ---------------------------------------------------------------------------------

for _, place in ipairs({ "a new segment", "a segment that is used again" }) do
  local again = place ~= "a new segment"
  local NUMBER = again and 3 or 1 -- of the segment

  describe("recovery of a torn batch in " .. place, function()
    support.setup()

    -- Five batches of one record each, then one batch of six. Where that begins and ends, the
    -- number before the first, and the segment as it was before that batch.
    local function prepare(path)
      local want, t = {}, { base = 0 }
      jdbfs.run(function()
        local log
        if again then log, want[1] = open_used_again(path) else log = assert(open(path)) end
        t.base = log:stats().last - #want
        for i = #want + 1, 5 do
          want[i] = text_of(i, 700 * i)
          assert(log:append(want[i]))
        end
        t.from = BLOCK * 6
        t.before = support.get(segment(path, NUMBER))
        local list, bytes = {}, log:stats().bytes
        for i, size in ipairs({ 100, 3000, 0, 5000, 900, 2000 }) do
          list[i] = text_of(5 + i, size)
          want[5 + i] = list[i]
        end
        local batches = log:stats().batches
        append_together(log, list)
        assert.are.equal(batches + 1, log:stats().batches)
        t.to = t.from + log:stats().bytes - bytes
        assert(log:close())
      end)
      return want, t.from, t.to, t.base, t.before
    end

    local function check(path, want, base, least, why)
      local log = assert(open(path))
      local data, count = contents(log)
      local recovery = log:recovery()
      assert.is_true(count >= least, why .. ": acknowledged records are gone")
      for i = 1, count do assert.are.equal(want[i], data[base + i], why) end
      assert.are.equal(recovery.clean, recovery.cut_at == nil)
      assert.are.equal(recovery.clean, recovery.cut_bytes == 0)
      -- What goes on behind the cut is found, alone.
      assert.are.equal(base + count + 1, assert(log:append("after")))
      assert.are.equal(base + count + 2, assert(log:append(text_of(1, 9000))))
      assert(log:close())
      local after, more, second = reopen(path)
      assert.are.equal(count + 2, more, why)
      assert.is_true(second.clean, why)
      assert.are.equal("after", after[base + count + 1])
      for i = 1, count do assert.are.equal(want[i], after[base + i], why) end
      return count, recovery
    end

    -- Each way of tearing at every 512 bytes of the last batch. `before`: what was there before it.
    local ways = {
      { "truncated", function(data, at) return data:sub(1, at) end },
      { "not written from there on", function(data, at, _, _, before)
        return data:sub(1, at) .. before:sub(at + 1)
      end },
      { "zeroed", function(data, at) return data:sub(1, at) .. ("\0"):rep(#data - at) end },
      { "garbled", function(data, at) return patch(data, at, ("\171"):rep(512)) end },
      { "not written in one sector", function(data, at, _, _, before)
        return patch(data, at, before:sub(at + 1, at + 512))
      end },
      { "written in one sector only", function(data, at, _, _, before)
        return patch(before, at, data:sub(at + 1, at + 512))
      end },
    }
    for _, entry in ipairs(ways) do
      local way, tear = entry[1], entry[2]
      it("keeps what was acknowledged before one that was " .. way, function()
        local path = support.path("log")
        local want, from, to, base, before = prepare(path)
        local original = support.get(segment(path, NUMBER))
        local counts = {}
        for at = from, to - 512, 512 do
          local torn = tear(original, at, from, to, before)
          clear(path)
          lfs.mkdir(path)
          support.put(segment(path, NUMBER), torn)
          local count, recovery = check(path, want, base, 5, way .. " at " .. at)
          counts[count] = true
          local kept_all = torn == original or count == #want
          -- In a segment that is used again the first header has to be there.
          local told = way == "garbled" and (at > from or not again)
          assert.is_true(kept_all or not recovery.clean or not told)
          if recovery.cut_at then
            assert.are.equal(segment("", NUMBER), "/" .. recovery.cut_at.segment)
            assert.is_true(recovery.cut_at.offset >= from)
          end
        end
        -- It does cut: not all, not nothing.
        assert.is_true(counts[5])
      end)
    end

    it("leaves nothing but zeros behind the cut", function()
      local path = support.path("log")
      local _, from, to = prepare(path)
      local original = support.get(segment(path, NUMBER))
      -- The batch's second record.
      support.put(segment(path, NUMBER), flip(original, from + HEADER + 150))
      local _, count, recovery = reopen(path)
      assert.are.equal(6, count)
      assert.is_false(recovery.clean)
      assert.are.equal(from + 136, recovery.cut_at.offset)
      assert.is_true(recovery.cut_bytes > (again and 3000 or 10000))
      assert.is_true(recovery.cut_bytes <= to - from)
      local data = support.get(segment(path, NUMBER))
      assert.are.equal(#original, #data)
      assert.are.equal(original:sub(1, from + 136), data:sub(1, from + 136))
      assert.is_nil(data:find("[^%z]", from + 137))
    end)

    it("is finished in a file that ends inside a block", function()
      local path = support.path("log")
      local _, from = prepare(path)
      local original = support.get(segment(path, NUMBER))
      for _, length in ipairs({ 10, 200, 512, 3000, BLOCK + 700 }) do
        support.put(segment(path, NUMBER), original:sub(1, from + length))
        assert.is_false(select(3, reopen(path)).clean)
        local _, count, recovery = reopen(path)
        assert.is_true(recovery.clean)
        assert.is_true(count >= 5 and count < 11)
      end
    end)

    it("never takes a stale record for a new one", function()
      local path = support.path("log")
      local want, from, _, base, before = prepare(path)
      local original = support.get(segment(path, NUMBER))
      -- The first record of the last batch is not what it was, or its block was not written.
      for _, torn in ipairs({ flip(original, from + 1),
        patch(original, from, before:sub(from + 1, from + BLOCK)) }) do
        support.put(segment(path, NUMBER), torn)
        assert.are.equal(5, select(2, reopen(path)))
        -- Records of the same sizes: without the zeros the old ones would follow on.
        local log = assert(open(path))
        assert.are.equal(base + 6, assert(log:append(want[6])))
        assert(log:close())
        local data, count = reopen(path)
        assert.are.equal(6, count)
        assert.are.equal(want[6], data[base + 6])
      end
    end)

    -- Twice the same two records, of which the second begins in the block that the first ends in.
    -- Of the first batch only that block is written, of the second one only the one before it.
    it("never makes one batch of two torn ones", function()
      local path = support.path("log")
      local _, from, _, _, before = prepare(path)
      local file, list = segment(path, NUMBER), { text_of(6, 6000), text_of(7, 3000) }
      local function tear(was)
        local log = assert(open(path))
        jdbfs.run(append_together, log, list)
        assert(log:close())
        local data = support.get(file)
        support.put(file, was(data))
        assert.are.equal(5, select(2, reopen(path)))
      end
      support.put(file, before)
      tear(function(data) return patch(data, from, before:sub(from + 1, from + BLOCK)) end)
      local second = support.get(file):sub(from + BLOCK + 1)
      tear(function(data) return data:sub(1, from + BLOCK) .. second end)
    end)

    it("may be cut off at any operation and is done again", function()
      local path, copy = support.path("log"), support.path("copy")
      local want, from, _, base = prepare(path)
      local file = segment(path, NUMBER)
      support.put(file, flip(support.get(file), from + HEADER + 150))
      open_cut_off(path, copy, function(n)
        assert.are.equal(6, (check(copy, want, base, 6, "stopped at operation " .. n)))
      end)
    end)
  end)
end

describe("recovery of a torn batch", function()
  support.setup()

  it("wipes a torn record of any size", function()
    local path = support.path("log")
    local log = assert(open(path, { segment_size = 4194304 }))
    assert(log:append("kept"))
    assert(log:append(text_of(2, 3000000)))
    assert(log:close())
    support.put(segment(path), flip(support.get(segment(path)), 2000000))
    local _, count, recovery = reopen(path)
    assert.are.equal(1, count)
    assert.are.equal(2 * BLOCK, recovery.cut_at.offset)
    assert.is_true(recovery.cut_bytes >= 3000000)
    assert.is_nil(support.get(segment(path)):find("[^%z]", BLOCK + 37))
    assert.is_true(select(3, reopen(path)).clean)
  end)
end)

-- ---- damage -------------------------------------------------------------------------------------

describe("a damaged log", function()
  support.setup()

  -- Three segments; the batches are single records.
  local function prepare(path)
    local want = {}
    local log = assert(open(path, { segment_size = 16384, batch_size = 8192 }))
    for i = 1, 12 do
      want[i] = text_of(i, 200 * i)
      assert(log:append(want[i]))
    end
    assert(log:close())
    assert.is_true(#segments(path) >= 3)
    return want
  end

  local function refused(path, want)
    return support.fails(want, open(path))
  end

  it("is an error that names segment, offset and number, for every record but the last", function()
    local path = support.path("log")
    prepare(path)
    local checked = 0
    for _, name in ipairs(segments(path)) do
      local file = path .. "/" .. name
      local original = support.get(file)
      for offset = BLOCK, #original - BLOCK, BLOCK do
        local number = tonumber(original:match("^record (%d+);", offset + HEADER + 1))
        if number and number < 12 then
          for _, at in ipairs({ 0, 5, 9, 17, 21, 25, HEADER, HEADER + 100 }) do
            support.put(file, flip(original, offset + at))
            local says = ("record %d at offset %d"):format(number, offset)
            local err = refused(path, { kind = "Io", op = "log", path = file, says = says })
            assert.are.equal(offset, err.offset)
            checked = checked + 1
          end
        end
      end
      support.put(file, original)
    end
    assert.are.equal(11 * 8, checked)
    assert.are.equal(12, select(2, reopen(path)))
  end)

  it("does not lose an acknowledged batch to a later torn one", function()
    local path = support.path("log")
    jdbfs.run(function()
      local log = assert(open(path))
      append_together(log, { text_of(1, 500), text_of(2, 500), text_of(3, 500) })
      append_together(log, { text_of(4, 5000), text_of(5, 500) })
      assert(log:close())
    end)
    -- Record 2 of the first batch; of the second batch only one header came through.
    local original = support.get(segment(path))
    local torn = patch(original, 2 * BLOCK + 600, ("\0"):rep(#original - 2 * BLOCK - 600))
    support.put(segment(path), torn)
    assert.are.equal(3, select(3, reopen(path)).last)
    support.put(segment(path), flip(torn, BLOCK + 600))
    local says = "record 2 at offset 4632"
    refused(path, { kind = "Io", op = "log", path = segment(path), says = says })
  end)

  it("is an error when a segment is missing, foreign, misplaced or has no header", function()
    local path, other = support.path("log"), support.path("other")
    prepare(path)
    prepare(other)
    local second = support.get(segment(path, 2))
    support.remove(segment(path, 2))
    refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "missing" })
    support.put(segment(path, 2), support.get(segment(other, 2)))
    refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "another log" })
    support.put(segment(path, 2), support.get(segment(path, 3)))
    refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "segment 3" })
    for _, at in ipairs({ 0, 8, 12, 16, 33, 41, 49 }) do
      support.put(segment(path, 2), flip(second, at))
      refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "header" })
    end
    support.put(segment(path, 2), "")
    refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "header" })
    support.put(segment(path, 2), second)
    assert.are.equal(12, select(2, reopen(path)))
  end)

  it("is told from another where the system gives no random bytes, too", function()
    local core = require("jdbfs.core")
    local entropy = core.entropy
    local path, other = support.path("log"), support.path("other")
    core.entropy = function() return nil, "none", { kind = "Io" } end
    local ok, why = pcall(function()
      prepare(path)
      prepare(other)
    end)
    core.entropy = entropy
    assert(ok, why)
    assert.are.equal(12, select(2, reopen(path)))
    support.put(segment(path, 2), support.get(segment(other, 2)))
    refused(path, { kind = "Io", op = "log", path = segment(path, 2), says = "another log" })
  end)

  it("is an error when a segment of a shorter past is put back", function()
    local path, before = support.path("log"), support.path("before")
    local log = assert(open(path, { segment_size = 16384 }))
    for i = 1, 2 do assert(log:append(text_of(i, 3000))) end
    assert(log:close())
    copy_files(path, before)
    log = assert(open(path, { segment_size = 16384 }))
    for i = 3, 9 do assert(log:append(text_of(i, 3000))) end
    assert(log:close())
    support.put(segment(path, 1), support.get(segment(before, 1)))
    refused(path, { kind = "Io", op = "log", path = segment(path, 1), says = "record 3 at offset" })
  end)

  -- A number in the header of the first segment, which has the right checksum all the same.
  local function put_number(path, at, number)
    local data = support.get(segment(path))
    local b, crc = jdbfs.buffer(48), jdbfs.buffer(4)
    b:set(0, data:sub(1, 48))
    b:u32(at, number)
    crc:u32(0, b:crc32c())
    support.put(segment(path), patch(data, 0, b:string() .. crc:string()))
  end

  it("of another format version is refused as that", function()
    local path = support.path("log")
    prepare(path)
    put_number(path, 8, 3)
    refused(path, { kind = "Unsupported", op = "log", path = segment(path), says = "version 3" })
  end)

  it("whose header has a checksum and makes no sense is an error", function()
    for _, one in ipairs({ { 12, 0 }, { 12, 1000 }, { 12, 12288 }, { 36, 2 ^ 31 }, { 44, 2 ^ 31 },
      { 40, 0 } }) do
      local path = support.path()
      prepare(path)
      put_number(path, one[1], one[2])
      refused(path, { kind = "Io", op = "log", path = segment(path), says = "makes no sense" })
    end
  end)
end)

-- ---- hostile bytes ------------------------------------------------------------------------------

describe("hostile bytes in a log", function()
  support.setup()

  -- A record header with right checksums and any content.
  local function forge(half, o)
    local b = jdbfs.buffer(HEADER)
    b:u32(4, o.length or 0)
    b:u32(8, o.low or 0)
    b:u32(12, o.high or 0)
    b:u32(16, o.index or 0)
    b:u32(20, o.crc or 1) -- of no data it is 0
    b:set(24, half)
    b:u32(0, b:crc32c(4, 28))
    return b:string()
  end

  it("are cut where a header with right checksums lies", function()
    local path = support.path("log")
    local log = assert(open(path))
    for i = 1, 3 do assert(log:append(text_of(i, 100))) end
    assert(log:close())
    local original = support.get(segment(path))
    local half = original:sub(17, 24)
    local max = 4294967295
    for _, o in ipairs({
      { low = 4, length = 1073741824 }, { low = 4, length = max }, { low = 4, length = 57344 - 31 },
      { low = 4, index = 4 }, { low = 4, index = max }, { low = 4, index = 1 },
      { low = 0 }, { low = max, high = max }, { low = 4, high = 2097152 }, { low = 3 }, { low = 1 },
    }) do
      for _, at in ipairs({ 4 * BLOCK, 5 * BLOCK, 3 * BLOCK + 136 }) do
        support.put(segment(path), patch(original, at, forge(half, o)))
        local before = jdbfs.stats().buffers
        local data, count = reopen(path)
        assert.are.equal(3, count)
        assert.are.equal(text_of(3, 100), data[3])
        assert.is_true(jdbfs.stats().buffers <= before + 8)
      end
    end
    -- Whole records without data that do not follow on: another's, the start of a batch inside a
    -- block, a batch that did not begin where this one did, the rest of one behind its padding.
    for at, o in pairs({
      [4 * BLOCK] = { low = 4, crc = 0, half = ("x"):rep(8) },
      [3 * BLOCK + 136] = { low = 4, crc = 0 },
      [3 * BLOCK + 137] = { low = 4, crc = 0, index = 2, at = 3 * BLOCK + 136 },
      [4 * BLOCK + 1] = { low = 4, crc = 0, index = 1, at = 4 * BLOCK },
    }) do
      support.put(segment(path), patch(original, o.at or at, forge(o.half or half, o)))
      assert.are.equal(3, select(2, reopen(path)), at)
    end
    support.put(segment(path), patch(original, 4 * BLOCK, forge(half, { low = 4, crc = 0 })))
    assert.are.equal(4, select(2, reopen(path)))
    -- A number that could only be written after the fourth was durable.
    support.put(segment(path), patch(original, 6 * BLOCK, forge(half, { low = 9, length = max })))
    assert.are.equal(3, select(2, reopen(path)))
    support.put(segment(path), patch(original, 6 * BLOCK, forge(half, { low = 9, index = 2 })))
    support.fails({ kind = "Io", op = "log", says = "record 4 at offset" }, open(path))
  end)

  local function mutate(data)
    local kind, at = math.random(6), math.random(0, #data - 1)
    local length = math.min(#data - at, ({ 1, 8, 64, 512, 4096, 9000 })[math.random(6)])
    if kind <= 2 then return flip(data, at) end
    if kind == 3 then return patch(data, at, ("\0"):rep(length)) end
    if kind == 4 then
      local from = math.random(0, #data - length)
      return patch(data, at, data:sub(from + 1, from + length))
    end
    if kind == 5 then return data:sub(1, at) end
    local bytes = {}
    for i = 1, length do bytes[i] = string.char(math.random(0, 255)) end
    return patch(data, at, table.concat(bytes))
  end

  it("give an error or a cut, and never a record that was not appended", function()
    if support.on_wine then return pending("takes long in wine, and is about Lua above files") end
    local path = support.path("log")
    local want = {}
    local log = assert(open(path, { segment_size = 16384, batch_size = 8192 }))
    jdbfs.run(function()
      for i = 1, 4 do
        local list = {}
        for j = 1, 4 do
          want[#want + 1] = text_of(#want + 1, 500 * j + i)
          list[j] = want[#want]
        end
        append_together(log, list)
      end
    end)
    assert(log:close())
    local names, original = segments(path), {}
    for _, name in ipairs(names) do original[name] = support.get(path .. "/" .. name) end
    math.randomseed(20240229)
    local opened, refused, tries = 0, 0, tonumber(os.getenv("JDBFS_MUTATIONS") or 300)
    for i = 1, tries do
      local name = names[math.random(#names)]
      local data = original[name]
      for _ = 1, math.random(3) do if #data > 0 then data = mutate(data) end end
      support.put(path .. "/" .. name, data)
      local found, message, err = open(path)
      if found then
        opened = opened + 1
        local records, count = contents(found)
        assert(count >= 12, "only records of the last batch may be cut")
        for number = 1, count do assert(records[number] == want[number], "mutation " .. i) end
        assert(found:close())
      else
        refused = refused + 1
        assert(err.kind == "Io" or err.kind == "Unsupported", message)
      end
      -- Opening may have changed the last one.
      support.put(path .. "/" .. name, original[name])
      support.put(path .. "/" .. names[#names], original[names[#names]])
      for _, other in ipairs(segments(path)) do
        if not original[other] then support.remove(path .. "/" .. other) end
      end
    end
    assert.is_true(opened > tries / 20 and refused > tries / 20)
  end)
end)

-- ---- failures -----------------------------------------------------------------------------------

describe("a log on a disk that fails", function()
  support.setup()

  it("reports a failed batch, and is poisoned until it is opened again", function()
    for _, call in ipairs({ "write_at", "sync_data" }) do
      for _, how in ipairs({ "before", "after" }) do
        local path = support.path()
        local fail = false
        local open_failing = hooked(function(name, file)
          return fail and name == call and file:match("%.log$") and how
        end)
        jdbfs.run(function()
          local log = assert(open_failing(path))
          assert.are.equal(1, log:append("kept"))
          fail = true
          local tasks = {}
          for i = 1, 3 do
            tasks[i] = jdbfs.spawn(function() return log:append("lost " .. i) end)
          end
          for i = 1, 3 do support.fails({ kind = "Io", op = call }, tasks[i]:join()) end
          fail = false
          support.fails({ kind = "Poisoned", op = "append", path = path, says = "injected" },
            log:append("more"))
          assert.are.equal("kept", contents(log)[1])
          assert.are.equal(1, select(2, contents(log)))
          assert.is_true(log:close())
        end)
        local log = assert(open(path))
        assert.are.equal("kept", contents(log)[1])
        local last = log:recovery().last
        assert.is_true(last <= 4)
        assert.are.equal(last + 1, assert(log:append("again")))
        assert(log:close())
      end
    end
  end)

  support.both("goes on when a segment could not be made", function()
    local path = support.path("log")
    local full = false
    local open_failing = hooked(function(name)
      return full and name == "preallocate" and "before"
    end)
    local log = assert(open_failing(path))
    local acknowledged, failures = {}, 0
    full = true
    for i = 1, 30 do
      local number, _, err = log:append(text_of(i, 4000))
      if number then
        acknowledged[number] = text_of(i, 4000)
      else
        failures = failures + 1
        assert.are.equal("preallocate", err.op)
      end
    end
    assert.is_true(failures > 5 and #acknowledged > 5)
    full = false
    assert.are.equal(#acknowledged + 1, assert(log:append("room again")))
    acknowledged[#acknowledged + 1] = "room again"
    assert.are.same(acknowledged, (contents(log)))
    assert(log:close())
    assert.are.same(acknowledged, (reopen(path)))
  end)

  support.task("keeps apart what follows a large record that failed with the batch before it",
    function()
      local path = support.path("log")
      local full, large = false, nil
      local log
      local open_failing = hooked(function(name)
        if not full or name ~= "preallocate" then return end
        large = large or jdbfs.spawn(function() return log:append(text_of(3, 40000)) end)
        for _ = 1, 3 do jdbfs.yield() end -- it gathers, in memory of its own
        return "before"
      end)
      log = assert(open_failing(path))
      local before = jdbfs.stats().buffers
      local kept = { text_of(1, 24000) } -- the next segment is not prepared yet
      assert.are.equal(1, assert(log:append(kept[1])))
      full = true
      support.fails({ kind = "Io", op = "preallocate" }, log:append(text_of(2, 40000)))
      support.fails({ kind = "Io", op = "preallocate" }, large:join())
      full = false
      for i = 1, 3 do
        kept[#kept + 1] = text_of(i, 100)
        assert.are.equal(#kept, assert(log:append(kept[#kept])))
      end
      assert.are.equal(before, jdbfs.stats().buffers)
      assert(log:close())
      assert.are.same(kept, (reopen(path)))
    end)

  -- Opens, appends from four tasks over some segments, truncates, closes. What was acknowledged.
  local function work(open_failing, path, acknowledged, limit)
    local log, message = open_failing(path, { segment_size = 16384, batch_size = 8192 })
    if not log then return assert(message) end
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = jdbfs.spawn(function()
        for j = 1, 2 do
          local text = text_of(i * 10 + j, 500 * i)
          local number, why, err = log:append(text)
          if number then acknowledged[number] = text else assert(err.message == why) end
        end
      end)
    end
    for _, task in ipairs(tasks) do task:join() end
    local number = log:append(text_of(99, 20000))
    if number then acknowledged[number] = text_of(99, 20000) end
    limit.first = 5
    log:truncate_before(5)
    number = log:append("end")
    if number then acknowledged[number] = "end" end
    log:close()
  end

  local function run_failing(path, n, how, for_ever)
    local count, met = 0, false
    local acknowledged, limit = {}, { first = 1 }
    local open_failing = hooked(function()
      count = count + 1
      if count == n or for_ever and count > n then
        met = true
        return how
      end
    end)
    jdbfs.run(work, open_failing, path, acknowledged, limit)
    return met, acknowledged, limit.first
  end

  -- The n-th operation fails, for every n there is; as that happens above the file system, for a
  -- fifth of them on those that are tried after the first one.
  local OTHERS = { xfs = true, btrfs = true, tmpfs = true }

  local function every_failure(how, for_ever)
    local step = OTHERS[support.fs()] and 5 or 1
    local n, met = 1 - math.random(step), true
    while met do
      n = n + step
      local path = support.path()
      local acknowledged, first
      met, acknowledged, first = run_failing(path, n, how, for_ever)
      local log = assert(open(path))
      local data = contents(log)
      for number, text in pairs(acknowledged) do
        local gone = number < first and number < log:recovery().first
        assert(gone or data[number] == text, ("operation %d: record %d"):format(n, number))
      end
      local last = log:recovery().last
      assert.are.equal(last + 1, assert(log:append("usable")))
      assert(log:close())
      collectgarbage()
      clear(path)
    end
    assert.is_true(n > 40, n .. " operations")
  end

  it("keeps its promises when any operation fails once", function()
    if support.on_wine then return pending("takes long in wine, and is about Lua above files") end
    every_failure("before", false)
  end)

  it("keeps its promises when any operation is done and reports a failure", function()
    if support.on_wine then return pending("takes long in wine, and is about Lua above files") end
    every_failure("after", false)
  end)

  it("keeps its promises when everything fails from any operation on", function()
    if support.on_wine then return pending("takes long in wine, and is about Lua above files") end
    every_failure("before", true)
  end)
end)

describe("a log on a full disk", function()
  support.setup()

  local function with_mount(body)
    local why = support.lacks("root", "mkfs.ext4", "mount")
    if why then return pending(why) end
    local image, dir = support.path("image"), support.path("mnt")
    lfs.mkdir(dir)
    local q = support.quote
    local status, out = support.sh(("PATH=$PATH:/usr/sbin:/sbin; truncate -s 12M %s && "
      .. "mkfs.ext4 -q -F %s && mount -o loop %s %s"):format(q(image), q(image), q(image), q(dir)))
    if status ~= 0 then return pending("cannot mount: " .. out:match("[^\n]*")) end
    local ok, message = pcall(body, dir)
    collectgarbage()
    support.sh(("for i in 1 2 3 4 5 6 7 8 9; do umount %s && break; sleep 0.2; done"):format(
      q(dir)))
    if not ok then error(message, 0) end
  end

  local function fill(path)
    local log = assert(open(path, { segment_size = 524288, batch_size = 131072 }))
    local acknowledged, count, err = {}, 0, nil
    while not err do
      local number, _
      number, _, err = log:append(text_of(count + 1, 100000))
      if number then
        count = count + 1
        assert.are.equal(count, number)
        acknowledged[number] = text_of(count, 100000)
      end
    end
    assert.are.equal("ENOSPC", err.name)
    assert.is_true(count > 20)
    assert.are.equal("ENOSPC", select(3, log:append(text_of(1, 600000))).name)
    assert.are.same(acknowledged, (contents(log)))
    -- Room again, by itself and without reopening.
    assert(log:truncate_before(math.floor(count / 2)))
    local first = log:stats().first
    assert.is_true(first > 1)
    for _ = 1, 10 do
      count = count + 1
      assert.are.equal(count, assert(log:append(text_of(count, 100000))))
      acknowledged[count] = text_of(count, 100000)
    end
    assert(log:close())
    local data = reopen(path)
    for i = first, count do assert(acknowledged[i] == data[i]) end
  end

  it("says ENOSPC, loses nothing and goes on when there is room (in a task)", function()
    with_mount(function(dir) jdbfs.run(fill, dir .. "/log") end)
  end)

  it("says ENOSPC, loses nothing and goes on when there is room (outside tasks)", function()
    with_mount(function(dir) fill(dir .. "/log") end)
  end)
end)

-- ---- kill -9 ------------------------------------------------------------------------------------

local WRITER = [==[
local jdbfs = require "jdbfs"
local open = require "jdbfs.log"
local path, round, appenders = arg[1], tonumber(arg[2]), tonumber(arg[3])
io.stdout:setvbuf("no")
math.randomseed(round)
local function say(text) io.stdout:write(text .. "\n") end
jdbfs.run(function()
  local o = { direct = "prefer", segment_size = 131072, batch_size = 16384 }
  o.spare_segments = round % 3
  local log = assert(open(path, o))
  say("open")
  for i = 1, appenders do
    jdbfs.spawn(function()
      for j = 1, 1000000 do
        local key = ("%d-%d-%d;"):format(round, i, j)
        local size = math.random(50) == 1 and 3000 or math.random(200)
        local number = assert(log:append(key:rep(size)))
        say(("%d %s %d"):format(number, key, size))
        if number % 300 == 0 then
          say("truncate " .. number - 200)
          assert(log:truncate_before(number - 200))
        end
      end
    end)
  end
end)
]==]

describe("a writer process killed with kill -9", function()
  support.setup()

  -- What it said until it was killed, after that many lines.
  local function kill_after(lines, ...)
    local writer, said = support.start({ ... }), {}
    for _ = 1, lines do said[#said + 1] = writer.pipe:read("*l") end
    writer.kill()
    for line in writer.wait():gmatch("[^\n]+") do said[#said + 1] = line end
    return said
  end

  -- Operations of the dead process may hold the lock a moment longer.
  local function open_soon(path)
    local log, message, err
    for _ = 1, 100 do
      log, message, err = open(path, { segment_size = 131072 })
      if log or err.kind ~= "Busy" then break end
      jdbfs.sleep(0.05)
    end
    return assert(log, message)
  end

  it("has every record that it acknowledged", function()
    if support.on_sim then return pending(support.on_sim) end
    local path, file = support.path("log"), support.path("writer.lua")
    support.put(file, WRITER)
    local acknowledged, first, highest, checked = {}, 1, 0, 0
    math.randomseed(os.time())
    for round = 1, tonumber(os.getenv("JDBFS_KILLS") or 20) do
      local lines = round % 5 == 0 and 0 or math.random(150)
      for _, line in ipairs(kill_after(lines, file, path, round, round % 7 + 1)) do
        local number, key, size = line:match("^(%d+) (%S+;) (%d+)$")
        local truncated = line:match("^truncate (%d+)$")
        if number then
          number = tonumber(number)
          assert(number > highest - 10 and not acknowledged[number], "a number came twice")
          acknowledged[number] = key:rep(tonumber(size))
          highest = math.max(highest, number)
        elseif truncated then
          first = math.max(first, tonumber(truncated))
        else
          assert.are.equal("open", line)
        end
      end
      local log = open_soon(path)
      local data = contents(log)
      assert.is_true(log:recovery().last >= highest)
      assert.is_true(log:recovery().first <= first)
      highest = log:recovery().last
      for number, text in pairs(acknowledged) do
        if number < first then
          acknowledged[number] = nil
        else
          checked = checked + 1
          assert(data[number] == text, ("round %d: record %d"):format(round, number))
        end
      end
      assert(log:close())
    end
    assert.is_true(checked > 200)
    support.figures(("log: %s writers killed, %d records compared"):format(
      os.getenv("JDBFS_KILLS") or 20, checked))
  end)
end)

-- ---- 5.1 ----------------------------------------------------------------------------------------

describe("a log on plain Lua 5.1", function()
  support.setup()

  it("reads in a while loop without holding the other tasks up", function()
    if not IS_51 then return pending("only plain Lua 5.1 cannot yield in a for loop") end
    local log = assert(open(support.path("log")))
    for i = 1, 30 do assert(log:append(text_of(i, 4000))) end
    jdbfs.run(function()
      local turns, done = 0, false
      jdbfs.spawn(function()
        while not done do
          turns = turns + 1
          jdbfs.yield()
        end
      end)
      local cursor = log:records()
      while cursor:next() do end
      done = true
      assert.is_true(turns > 0)
    end)
    assert(log:close())
  end)
end)
