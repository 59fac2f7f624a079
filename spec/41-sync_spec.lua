-- Semaphore, event, queue and buffer pool: order, back-pressure, cancelled waiters, and use
-- outside tasks.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local tpcall = jdbfs.pcall

-- Lets every task that is ready go on, several times over.
local function settle()
  for _ = 1, 5 do jdbfs.yield() end
end

describe("a semaphore", function()
  process.setup()

  it("lets n in at once, and no more", function()
    local inside, most, entered = 0, 0, 0
    jdbfs.run(function()
      local semaphore = jdbfs.semaphore(3)
      for _ = 1, 20 do
        jdbfs.spawn(function()
          assert.is_true(semaphore:acquire())
          inside = inside + 1
          entered = entered + 1
          most = math.max(most, inside)
          jdbfs.sleep(0.0005)
          inside = inside - 1
          assert.is_true(semaphore:release())
        end)
      end
    end)
    assert.are.equal(3, most)
    assert.are.equal(20, entered)
  end)

  it("serves waiters in order of arrival", function()
    local order = {}
    jdbfs.run(function()
      local semaphore = jdbfs.semaphore(0)
      for i = 1, 10 do
        jdbfs.spawn(function()
          semaphore:acquire()
          order[#order + 1] = i
        end)
      end
      settle()
      assert.are.same({}, order)
      for _ = 1, 10 do semaphore:release() end
      -- Who comes late does not pass those who were served.
      assert.is_false(semaphore:try_acquire())
      settle()
    end)
    assert.are.same({ 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 }, order)
  end)

  it("keeps permits released while nobody waits", function()
    local semaphore = jdbfs.semaphore(0)
    semaphore:release()
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
    assert.is_true(semaphore:try_acquire())
    assert.is_false(semaphore:try_acquire())
  end)

  it("loses no permit to a waiter that was cancelled", function()
    jdbfs.run(function()
      local semaphore, got = jdbfs.semaphore(0), {}
      local tasks = {}
      for i = 1, 6 do
        tasks[i] = jdbfs.spawn(function()
          semaphore:acquire()
          got[#got + 1] = i
        end)
      end
      settle()
      for i = 1, 6, 2 do tasks[i]:cancel() end
      for _ = 1, 3 do semaphore:release() end
      settle()
      assert.are.same({ 2, 4, 6 }, got)
      semaphore:release()
      assert.is_true(semaphore:try_acquire())
      assert.is_false(semaphore:try_acquire())
    end)
  end)

  it("loses no permit to a waiter that timed out", function()
    jdbfs.run(function()
      local semaphore = jdbfs.semaphore(0)
      for _ = 1, 5 do
        support.fails({ kind = "Timeout" },
          jdbfs.timeout(0.001, semaphore.acquire, semaphore))
      end
      semaphore:release()
      assert.is_true(jdbfs.timeout(1, semaphore.acquire, semaphore))
    end)
  end)

  it("works outside tasks: acquire drives the tasks that will release", function()
    local semaphore = jdbfs.semaphore(1)
    assert.is_true(semaphore:acquire())
    jdbfs.spawn(function()
      jdbfs.sleep(0.002)
      semaphore:release()
    end)
    assert.is_true(semaphore:acquire())
    jdbfs.step()
  end)

  it("raises outside tasks when nobody could release, and then loses no permit", function()
    local semaphore = jdbfs.semaphore(0)
    local ok, message = pcall(semaphore.acquire, semaphore)
    assert.is_false(ok)
    assert.matches("deadlock", message, 1, true)
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
  end)

  it("loses no permit when the wait outside tasks ends by a task's error", function()
    local semaphore = jdbfs.semaphore(0)
    jdbfs.spawn(function() error("boom") end)
    assert.is_false((pcall(semaphore.acquire, semaphore)))
    semaphore:release()
    assert.is_true(semaphore:try_acquire())
  end)

  it("loses no permit that came just before that error", function()
    local semaphore = jdbfs.semaphore(0)
    jdbfs.spawn(function()
      semaphore:release()
      error("boom")
    end)
    assert.is_false((pcall(semaphore.acquire, semaphore)))
    assert.is_true(semaphore:try_acquire())
  end)

  it("raises in a coroutine of its own inside a task, where it could not wait", function()
    jdbfs.run(function()
      local semaphore = jdbfs.semaphore(0)
      local inner = coroutine.wrap(function() return pcall(semaphore.acquire, semaphore) end)
      local ok, message = inner()
      assert.is_false(ok)
      assert.matches("jdbfs.wrap", message, 1, true)
      semaphore:release()
      assert.is_true(semaphore:try_acquire())
    end)
  end)

  it("takes a count of 0 and more, and nothing else", function()
    for _, bad in ipairs({ -1, 0.5, 0 / 0, math.huge, "1", {} }) do
      local ok, message = pcall(jdbfs.semaphore, bad)
      assert.is_false(ok, tostring(bad))
      assert.matches("semaphore", message, 1, true)
    end
    assert.has_error(function() jdbfs.semaphore() end)
  end)
end)

describe("an event", function()
  process.setup()

  it("wakes everybody who waits, in order, and lets later ones through", function()
    local order = {}
    jdbfs.run(function()
      local event = jdbfs.event()
      for i = 1, 5 do
        jdbfs.spawn(function()
          assert.is_true(event:wait())
          order[#order + 1] = i
        end)
      end
      settle()
      assert.are.same({}, order)
      assert.is_false(event:is_set())
      assert.is_true(event:set())
      assert.is_true(event:is_set())
      settle()
      assert.are.same({ 1, 2, 3, 4, 5 }, order)
      assert.is_true(event:wait())
    end)
  end)

  it("can be cleared and waited for again", function()
    jdbfs.run(function()
      local event, rounds = jdbfs.event(), 0
      local waiter = jdbfs.spawn(function()
        for _ = 1, 3 do
          event:wait()
          event:clear()
          rounds = rounds + 1
        end
      end)
      for i = 1, 3 do
        settle()
        assert.are.equal(i - 1, rounds)
        event:set()
      end
      waiter:join()
      assert.is_false(event:is_set())
    end)
  end)

  it("is not disturbed by waiters that were cancelled", function()
    jdbfs.run(function()
      local event, woken = jdbfs.event(), 0
      for i = 1, 10 do
        local task = jdbfs.spawn(function()
          event:wait()
          woken = woken + 1
        end)
        settle()
        if i % 2 == 0 then task:cancel() end
      end
      event:set()
      settle()
      assert.are.equal(5, woken)
    end)
  end)

  it("works outside tasks", function()
    local event = jdbfs.event()
    jdbfs.spawn(function()
      jdbfs.sleep(0.002)
      event:set()
    end)
    assert.is_true(event:wait())
    assert.is_true(event:wait())
    jdbfs.step()
  end)
end)

describe("a queue", function()
  process.setup()

  it("gives values out in the order they came, nil and false among them", function()
    jdbfs.run(function()
      local queue = jdbfs.queue()
      queue:put(1)
      queue:put(nil)
      queue:put(false)
      queue:put("x")
      assert.are.equal(4, queue:size())
      assert.are.equal(1, queue:take())
      assert.is_nil(queue:take())
      assert.is_false(queue:take())
      assert.are.equal("x", queue:take())
      assert.are.equal(0, queue:size())
    end)
  end)

  it("makes putters wait while it is full", function()
    local produced, consumed, most = 0, 0, 0
    jdbfs.run(function()
      local queue = jdbfs.queue(4)
      jdbfs.spawn(function()
        for i = 1, 100 do
          assert.is_true(queue:put(i))
          produced = produced + 1
          most = math.max(most, queue:size())
          assert.is_true(produced - consumed <= 5)
        end
      end)
      for i = 1, 100 do
        if i % 10 == 0 then settle() end
        assert.are.equal(i, queue:take())
        consumed = consumed + 1
      end
    end)
    assert.are.equal(100, produced)
    assert.is_true(most <= 4)
  end)

  it("serves takers and putters in order of arrival", function()
    local took, put = {}, {}
    jdbfs.run(function()
      local queue = jdbfs.queue(1)
      for i = 1, 5 do
        jdbfs.spawn(function() took[i] = queue:take() end)
      end
      settle()
      for i = 1, 5 do
        queue:put(i)
        settle()
      end
      queue:put("full")
      for i = 1, 5 do
        jdbfs.spawn(function()
          queue:put(i)
          put[#put + 1] = i
        end)
      end
      settle()
      assert.are.equal("full", queue:take())
      for i = 1, 5 do
        settle()
        assert.are.equal(i, queue:take())
      end
      settle()
    end)
    assert.are.same({ 1, 2, 3, 4, 5 }, took)
    assert.are.same({ 1, 2, 3, 4, 5 }, put)
  end)

  it("keeps the order of those who waited when somebody comes between wake and turn", function()
    local order = {}
    jdbfs.run(function()
      local queue = jdbfs.queue(1)
      queue:put("first")
      for i = 1, 3 do
        jdbfs.spawn(function()
          queue:put(i)
          order[#order + 1] = i
        end)
      end
      settle()
      -- The slot belongs to the first who waited: this put may not cost him his place.
      assert.are.equal("first", queue:take())
      jdbfs.spawn(function() queue:put("late") end)
      local seen = {}
      for k = 1, 4 do
        settle()
        seen[k] = queue:take()
      end
      assert.are.same({ 1, 2, 3, "late" }, seen)
    end)
    assert.are.same({ 1, 2, 3 }, order)
  end)

  it("a put right after a take does not send the first putter to the end of the line", function()
    jdbfs.run(function()
      local queue = jdbfs.queue(1)
      queue:put("first")
      for i = 1, 3 do jdbfs.spawn(function() queue:put(i) end) end
      settle()
      assert.are.equal("first", queue:take())
      jdbfs.spawn(function() queue:put("mine") end)
      local seen = {}
      for k = 1, 4 do
        settle()
        seen[k] = queue:take()
      end
      local places = {}
      for k, value in ipairs(seen) do places[value] = k end
      assert.is_true(places[1] < places[2] and places[2] < places[3],
        "order: " .. table.concat(seen, " ", 1, 4))
    end)
  end)

  it("a take right after a put does not send the first taker to the end of the line", function()
    jdbfs.run(function()
      local queue, took = jdbfs.queue(), {}
      for i = 1, 3 do jdbfs.spawn(function() took[i] = queue:take() end) end
      settle()
      queue:put("a")
      jdbfs.spawn(function() queue:take() end)
      for _, value in ipairs({ "b", "c", "d", "e" }) do queue:put(value) end
      settle()
      while queue:size() > 0 do queue:take() end
      assert.is_true(took[1] ~= nil and took[1] < took[2] and took[2] < took[3],
        ("order: %s %s %s"):format(tostring(took[1]), tostring(took[2]), tostring(took[3])))
    end)
  end)

  it("loses no value and no slot to waiters that were cancelled", function()
    jdbfs.run(function()
      local queue, got = jdbfs.queue(2), {}
      local takers = {}
      for i = 1, 4 do
        takers[i] = jdbfs.spawn(function()
          local value = queue:take()
          got[#got + 1] = value
        end)
      end
      settle()
      takers[1]:cancel()
      takers[3]:cancel()
      queue:put("a")
      queue:put("b")
      settle()
      assert.are.same({ "a", "b" }, got)
      queue:put(1)
      queue:put(2)
      local late = jdbfs.spawn(function() queue:put("never") end)
      local last = jdbfs.spawn(function() queue:put(3) end)
      settle()
      late:cancel()
      settle()
      assert.are.equal(1, queue:take())
      settle()
      assert.are.equal("done", last:status())
      assert.are.equal(2, queue:take())
      assert.are.equal(3, queue:take())
      assert.are.equal(0, queue:size())
    end)
  end)

  it("a waiter cancelled right after it was chosen passes nothing over", function()
    jdbfs.run(function()
      local queue, got = jdbfs.queue(), {}
      local tasks = {}
      for i = 1, 2 do
        tasks[i] = jdbfs.spawn(function()
          local value = queue:take()
          got[#got + 1] = value
          jdbfs.yield()
        end)
      end
      settle()
      queue:put("a")
      tasks[1]:cancel()
      settle()
      if queue:size() == 0 then assert.are.same({ "a" }, got) end
      queue:put("b")
      settle()
      while queue:size() > 0 do table.insert(got, (queue:take())) end
      table.sort(got)
      assert.are.same({ "a", "b" }, got)
      tasks[2]:cancel()
    end)
  end)

  it("works outside tasks: put and take drive the tasks on the other side", function()
    local queue = jdbfs.queue(1)
    jdbfs.spawn(function()
      for i = 1, 10 do queue:put(i) end
    end)
    for i = 1, 10 do assert.are.equal(i, queue:take()) end
    local sum = 0
    jdbfs.spawn(function()
      for _ = 1, 10 do sum = sum + queue:take() end
    end)
    for i = 1, 10 do queue:put(i) end
    jdbfs.step()
    assert.are.equal(55, sum)
    assert.are.equal(0, queue:size())
  end)

  it("raises outside tasks when nobody is on the other side, and loses nothing by it", function()
    local queue = jdbfs.queue(1)
    local ok, message = pcall(queue.take, queue)
    assert.is_false(ok)
    assert.matches("deadlock", message, 1, true)
    local task = jdbfs.spawn(function() return queue:take() end)
    jdbfs.step()
    queue:put("x")
    assert.are.equal("x", task:join())
  end)

  it("keeps nothing of waits that ended so", function()
    local queue = jdbfs.queue(1)
    local function waits(n)
      for _ = 1, n do assert.is_false((pcall(queue.take, queue))) end
      collectgarbage()
      collectgarbage()
      return collectgarbage("count")
    end
    local before = waits(200)
    local grown = waits(5000) - before
    assert(grown < 64, grown .. " KiB")
  end)

  it("loses no value that came just before a task's error", function()
    local queue = jdbfs.queue(1)
    jdbfs.spawn(function()
      queue:put("x")
      error("boom")
    end)
    assert.is_false((pcall(queue.take, queue)))
    assert.are.equal(1, queue:size())
    assert.are.equal("x", queue:take())
  end)

  it("takes a maximum of 1 and more", function()
    for _, bad in ipairs({ 0, -1, 0.5, 0 / 0, "1" }) do
      assert.has_error(function() jdbfs.queue(bad) end)
    end
  end)
end)

describe("a pool", function()
  process.setup()

  it("gives each buffer to one at a time, and makes the others wait", function()
    local out, most = {}, 0
    jdbfs.run(function()
      local pool = assert(jdbfs.pool(3, 4096))
      for _ = 1, 30 do
        jdbfs.spawn(function()
          local b = pool:get()
          assert.are.equal(4096, #b)
          assert.is_nil(out[b])
          out[b] = true
          local n = 0
          for _ in pairs(out) do n = n + 1 end
          most = math.max(most, n)
          jdbfs.sleep(0.0002)
          out[b] = nil
          assert.is_true(pool:put(b))
        end)
      end
    end)
    assert.are.equal(3, most)
    assert.is_nil(next(out))
  end)

  it("serves waiters in order, and loses nothing to cancelled ones", function()
    local order = {}
    jdbfs.run(function()
      local pool = jdbfs.pool(1, 4096)
      local b = pool:get()
      local tasks = {}
      for i = 1, 6 do
        tasks[i] = jdbfs.spawn(function()
          local mine = pool:get()
          order[#order + 1] = i
          pool:put(mine)
        end)
      end
      settle()
      tasks[1]:cancel()
      tasks[4]:cancel()
      pool:put(b)
      settle()
      assert.are.equal(b, pool:get())
      pool:put(b)
    end)
    assert.are.same({ 2, 3, 5, 6 }, order)
  end)

  it("refuses a buffer that is not out", function()
    local pool = jdbfs.pool(2, 512)
    local b = pool:get()
    pool:put(b)
    assert.has_error(function() pool:put(b) end)
    assert.has_error(function() pool:put(jdbfs.buffer(512)) end)
    assert.has_error(function() pool:put(nil) end)
    assert.has_error(function() pool:put("x") end)
  end)

  it("feeds I/O with fewer buffers than tasks", function()
    local f = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local page = jdbfs.PAGE_SIZE
    jdbfs.run(function()
      local pool = jdbfs.pool(4, page)
      for i = 0, 63 do
        jdbfs.spawn(function()
          local b = pool:get()
          b:fill(i)
          assert(f:write_at(b, i * page))
          pool:put(b)
        end)
      end
    end)
    for i = 0, 63 do assert.are.equal(string.char(i), f:read(i * page + 7, 1)) end
    assert(f:close())
  end)

  it("works outside tasks, and fails like a buffer when it cannot be made", function()
    local pool = jdbfs.pool(1, 4096)
    local b = pool:get()
    jdbfs.spawn(function()
      jdbfs.sleep(0.001)
      pool:put(b)
    end)
    assert.are.equal(b, pool:get())
    jdbfs.step()
    support.fails({ kind = "Overflow", op = "buffer" }, jdbfs.pool(1, -1))
    for _, bad in ipairs({ 0, -1, 0.5, "1" }) do
      assert.has_error(function() jdbfs.pool(bad, 4096) end)
    end
    for _, bad in ipairs({ "1", {}, true }) do
      local ok, message = pcall(jdbfs.pool, 1, bad)
      assert.is_false(ok)
      assert.matches("^bad argument #2 to 'pool' %(number expected, got %l+%)$", message)
    end
  end)
end)

describe("waits of any kind", function()
  process.setup()

  it("end in a pcall with the error of the run, not with a wrong value", function()
    local order = {}
    assert.is_false((pcall(jdbfs.run, function()
      local event = jdbfs.event()
      for i = 1, 3 do
        jdbfs.spawn(function()
          tpcall(event.wait, event)
          order[#order + 1] = i
        end)
      end
      settle()
      error("stop")
    end)))
    assert.are.same({}, order)
  end)

  it("many thousands that time out leave no memory behind", function()
    local out = process.script([[
      local semaphore, event, queue = jdbfs.semaphore(0), jdbfs.event(), jdbfs.queue()
      local function round(n)
        jdbfs.run(function()
          for _ = 1, n do
            for _, wait in ipairs { semaphore.acquire, event.wait, queue.take } do
              local object = wait == semaphore.acquire and semaphore
                or wait == event.wait and event or queue
              local task = jdbfs.spawn(function() wait(object) end)
              jdbfs.yield()
              task:cancel()
              jdbfs.yield()
            end
          end
        end)
        collect()
        return collectgarbage("count")
      end
      round(1000)
      local before = round(1000)
      local after = round(5000)
      print(after - before)
    ]])
    assert.is_true(tonumber(out) < 100, "grew by KiB: " .. out)
  end)
end)

describe("semaphores, events and queues", function()
  it("say when they are called with a dot", function()
    support.raises("bad self for 'acquire'", jdbfs.semaphore(1).acquire, {})
    support.raises("bad argument #1 to 'timeout'", jdbfs.timeout, -1, print)
  end)
end)
