-- Generators that do I/O: jdbfs.wrap hands the wait outward to the task, a plain coroutine.wrap
-- completes it in place. Both give the right values, whatever the collector does in between.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local PAGE = jdbfs.PAGE_SIZE
local tpcall = jdbfs.pcall

local function new_file(pages)
  local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
  local b = jdbfs.buffer(PAGE)
  for i = 0, pages - 1 do
    b:fill(i % 251)
    assert(f:write_at(b, i * PAGE))
  end
  return f
end

local function collect()
  collectgarbage()
  collectgarbage()
end

-- A generator of the first bytes of the pages.
local function pages_of(f, pages, each)
  return function()
    for i = 0, pages - 1 do
      local b = jdbfs.buffer(PAGE)
      if each then each() end
      assert(f:read_at(b, i * PAGE))
      if each then each() end
      coroutine.yield(b:u8(0), i)
    end
  end
end

-- Calls the generator until it gives nothing: what plain 5.1 can do, too.
local function values(generator)
  local list = {}
  while true do
    local value = generator()
    if value == nil then return list end
    list[#list + 1] = value
    collect()
  end
end

local function upto(n)
  local list = {}
  for i = 0, n - 1 do list[i + 1] = i % 251 end
  return list
end

for _, kind in ipairs({ "jdbfs.wrap", "coroutine.wrap" }) do
  local wrap = kind == "jdbfs.wrap" and jdbfs.wrap or coroutine.wrap

  describe("a generator made by " .. kind, function()
    process.setup()

    support.both("does I/O and gives the right values", function()
      local f = new_file(12)
      assert.are.same(upto(12), values(wrap(pages_of(f, 12, collect))))
      assert(f:close())
    end)

    support.both("takes and gives several values, nil among them", function()
      local f = new_file(1)
      local generator = wrap(function(a, b)
        f:size()
        local c, d = coroutine.yield(b, nil, a, nil)
        jdbfs.yield()
        return d, c, nil
      end)
      assert.are.equal(4, select("#", generator(1, 2)))
      local x, y, z = generator(3, nil)
      assert.is_nil(x)
      assert.are.equal(3, y)
      assert.is_nil(z)
      assert.has_error(function() generator() end)
      assert(f:close())
    end)

    support.both("raises what it raises", function()
      local f = new_file(1)
      local value = {}
      local generator = wrap(function()
        f:size()
        error(value)
      end)
      local ok, got = tpcall(function() return generator() end)
      assert.is_false(ok)
      assert.are.equal(value, got)
      assert(f:close())
    end)

    support.both("works two levels deep", function()
      local f = new_file(9)
      local outer = wrap(function()
        local inner = wrap(pages_of(f, 9, collect))
        while true do
          local value = inner()
          if value == nil then return nil end
          collect()
          assert(f:size() == 9 * PAGE)
          coroutine.yield(value)
        end
      end)
      assert.are.same(upto(9), values(outer))
      assert(f:close())
    end)

    support.both("gives failures as values", function()
      local f = new_file(1)
      local generator = wrap(function()
        coroutine.yield(f:read_at(jdbfs.buffer(PAGE), 8 * PAGE))
      end)
      support.fails({ kind = "ShortRead", op = "read_at", actual = 0 }, generator())
      assert(f:close())
    end)

    it("may be given up half way, in flight or not", function()
      local f = new_file(4)
      jdbfs.run(function()
        for _ = 1, 20 do
          local generator = wrap(pages_of(f, 4))
          generator()
          generator = nil -- luacheck: ignore 311
          collect()
        end
        for i = 1, 20 do
          local task = jdbfs.spawn(function()
            local generator = wrap(pages_of(f, 4))
            while generator() do end
          end)
          for _ = 1, i % 4 do jdbfs.yield() end
          task:cancel()
          collect()
        end
      end)
      support.wait_idle()
      assert(f:close())
    end)
  end)
end

describe("jdbfs.wrap", function()
  process.setup()

  it("lets other tasks run while the generator waits", function()
    local f = new_file(32)
    local order, others = {}, 0
    jdbfs.run(function()
      jdbfs.spawn(function()
        while #order < 32 do
          others = others + 1
          jdbfs.yield()
        end
      end)
      local generator = jdbfs.wrap(pages_of(f, 32))
      for _ = 1, 32 do
        local value = generator()
        order[#order + 1] = value
      end
    end)
    assert.are.same(upto(32), order)
    assert.is_true(others >= 16, "the others ran " .. others .. " times")
    assert(f:close())
  end)

  it("completes in place what a plain coroutine around it asks for", function()
    local f = new_file(3)
    local got, took
    jdbfs.run(function()
      local from = jdbfs.now()
      local plain = coroutine.wrap(function()
        local generator = jdbfs.wrap(function()
          coroutine.yield(jdbfs.sleep(0.02))
          coroutine.yield(jdbfs.yield())
          coroutine.yield(f:size())
          coroutine.yield(jdbfs.sleep(0))
        end)
        return { (generator()), (generator()), (generator()), (generator()) }
      end)
      got = plain()
      took = jdbfs.now() - from
      jdbfs.sleep(0.001)
    end)
    assert.are.same({ true, true, 3 * PAGE, true }, got)
    assert.is_true(took >= 0.02, "it slept " .. took .. " s")
    assert(f:close())
  end)

  it("may sleep, yield, join, and wait for events inside", function()
    local got = {}
    jdbfs.run(function()
      local event, queue = jdbfs.event(), jdbfs.queue(1)
      local task = jdbfs.spawn(function()
        jdbfs.sleep(0.001)
        event:set()
        queue:put("from the queue")
        return "from the task"
      end)
      local generator = jdbfs.wrap(function()
        jdbfs.sleep(0.001)
        coroutine.yield("slept")
        jdbfs.yield()
        coroutine.yield("yielded")
        event:wait()
        coroutine.yield("event")
        coroutine.yield(queue:take())
        coroutine.yield(task:join())
        coroutine.yield(jdbfs.timeout(1, function()
          jdbfs.sleep(0.001)
          return "in time"
        end))
        local _, _, err = jdbfs.timeout(0.001, jdbfs.sleep, 1)
        return err.kind
      end)
      for i = 1, 7 do
        local value = generator()
        got[i] = value
      end
    end)
    assert.are.same({ "slept", "yielded", "event", "from the queue", "from the task", "in time",
      "Timeout" }, got)
  end)

  it("inside a plain generator completes in place", function()
    local f = new_file(5)
    jdbfs.run(function()
      local outer = coroutine.wrap(function()
        local inner = jdbfs.wrap(pages_of(f, 5, collect))
        for _ = 1, 5 do coroutine.yield((inner())) end
      end)
      assert.are.same(upto(5), values(outer))
    end)
    assert(f:close())
  end)

  it("raises where the coroutine that calls it cannot wait for another task", function()
    jdbfs.run(function()
      local waits = jdbfs.wrap(function() jdbfs.event():wait() end)
      coroutine.wrap(function() support.raises("not made by jdbfs.wrap", waits) end)()
    end)
  end)

  it("around a plain generator waits where the plain one does", function()
    local f = new_file(5)
    jdbfs.run(function()
      local outer = jdbfs.wrap(function()
        local inner = coroutine.wrap(pages_of(f, 5, collect))
        for _ = 1, 5 do
          f:size()
          coroutine.yield((inner()))
        end
      end)
      assert.are.same(upto(5), values(outer))
    end)
    assert(f:close())
  end)

  it("can be called from another task than the one before", function()
    local f = new_file(6)
    local got = {}
    jdbfs.run(function()
      local generator = jdbfs.wrap(pages_of(f, 6))
      for _ = 1, 3 do
        jdbfs.spawn(function()
          local value = generator()
          got[#got + 1] = value
        end):join()
        local value = generator()
        got[#got + 1] = value
      end
    end)
    assert.are.same(upto(6), got)
    assert(f:close())
  end)

  it("raises when called while another task waits inside, and mixes up no results", function()
    local f = new_file(16)
    local generator = jdbfs.wrap(function()
      for i = 1, 8 do
        local n, _, err = f:read_at(jdbfs.buffer(i * PAGE), 0)
        coroutine.yield(n == i * PAGE, n or err)
      end
    end)
    local ok, why = pcall(jdbfs.run, function()
      local function take(times)
        for _ = 1, times do
          local right, got = generator()
          assert(right, "the generator got " .. tostring(got))
        end
      end
      local first = jdbfs.spawn(take, 2)
      jdbfs.yield()
      assert.are.equal("waiting", first:status())
      assert.is_false((tpcall(take, 2)))
      assert.is_false((tpcall(take, 2)))
      first:join()
      take(2)
    end)
    support.wait_idle()
    assert(f:close())
    generator = nil
    assert.is_true(ok, why)
  end)

  it("raises when called after the task that waited inside was cancelled", function()
    local f = new_file(2)
    local wrong
    local generator = jdbfs.wrap(function()
      local n = f:read_at(jdbfs.buffer(PAGE), 0)
      if n ~= PAGE then wrong = tostring(n) end
      coroutine.yield(n)
    end)
    jdbfs.run(function()
      local first = jdbfs.spawn(function() return generator() end)
      jdbfs.yield()
      first:cancel()
      support.fails({ kind = "Cancelled" }, first:join())
      assert.is_false((tpcall(function() return generator() end)))
    end)
    support.wait_idle()
    assert(f:close())
    generator = nil -- luacheck: ignore 311
    assert.is_nil(wrong, "the read inside gave " .. tostring(wrong))
  end)

  it("keeps hundreds of generators apart", function()
    local f = new_file(64)
    jdbfs.run(function()
      for t = 1, 50 do
        jdbfs.spawn(function()
          local generators = {}
          for g = 1, 4 do
            generators[g] = jdbfs.wrap(function()
              local b = jdbfs.buffer(PAGE)
              for i = 0, 15 do
                local page = (t * 7 + g * 13 + i) % 64
                assert(f:read_at(b, page * PAGE))
                assert(b:u8(0) == page)
                coroutine.yield(page)
              end
            end)
          end
          for i = 0, 15 do
            for g = 1, 4 do assert.are.equal((t * 7 + g * 13 + i) % 64, (generators[g]())) end
          end
        end)
      end
    end)
    assert(f:close())
  end)

  it("is an iterator of a for loop, but on plain 5.1 that raises a clear error", function()
    local f = new_file(4)
    local got = {}
    local ok, message = pcall(jdbfs.run, function()
      for value in jdbfs.wrap(pages_of(f, 4)) do
        collect()
        got[#got + 1] = value
      end
    end)
    if process.is_51 then
      assert.is_false(ok)
      assert.matches("yield", message, 1, true)
    else
      assert.is_true(ok, message)
      assert.are.same(upto(4), got)
    end
    support.wait_idle()
    -- Without a task nothing has to wait: this works everywhere.
    got = {}
    for value in jdbfs.wrap(pages_of(f, 4)) do got[#got + 1] = value end
    assert.are.same(upto(4), got)
    assert(f:close())
  end)

  it("closes the to-be-closed variables of a generator that raises", function()
    local code = process.close_code([[
      local wrap, log = ...
      local generator = wrap(function()
        local v <close> = setmetatable({}, { __close = function() log[#log + 1] = "closed" end })
        error("boom", 0)
      end)
      local _, message = pcall(generator)
      log[#log + 1] = message
    ]])
    if not code then return pending("to-be-closed variables came with Lua 5.4") end
    local plain, ours = {}, {}
    code(coroutine.wrap, plain)
    code(jdbfs.wrap, ours)
    assert.are.same({ "closed", "boom" }, plain)
    assert.are.same(plain, ours)
  end)

  it("refuses what is no function", function()
    for _, bad in ipairs({ 1, "x", {}, true }) do
      assert.has_error(function() jdbfs.wrap(bad) end)
    end
    assert.has_error(function() jdbfs.wrap() end)
  end)
end)
