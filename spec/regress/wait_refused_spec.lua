-- A wait that began, and then raised because a coroutine between it and its task cannot yield,
-- stayed in the list of those who wait. What was meant for it went to the next wait of the same
-- task: that one returned without its permit, event or value, or the permit was lost.

local jdbfs = require "jdbfs"

local function settle()
  for _ = 1, 5 do jdbfs.yield() end
end

-- A generator can wait, the plain coroutine that calls it cannot.
local function refused(wait)
  local ok = pcall(coroutine.wrap(function() jdbfs.wrap(wait)() end))
  assert.is_false(ok)
end

describe("a wait that is refused", function()
  it("leaves no permit to a later wait of its task", function()
    local refusing, later, entered = jdbfs.semaphore(0), jdbfs.semaphore(0), false
    jdbfs.run(function()
      jdbfs.spawn(function()
        refused(function() refusing:acquire() end)
        later:acquire()
        entered = true
      end)
      settle()
      refusing:release()
      settle()
      assert.is_false(entered)
      assert.is_true(refusing:try_acquire())
      later:release()
    end)
    assert.is_true(entered)
  end)

  it("ends no later wait for an event", function()
    local queue, event, seen = jdbfs.queue(), jdbfs.event(), nil
    jdbfs.run(function()
      jdbfs.spawn(function()
        refused(function() queue:take() end)
        event:wait()
        seen = event:is_set()
      end)
      settle()
      queue:put("kept")
      settle()
      assert.are.equal(1, queue:size())
      event:set()
    end)
    assert.is_true(seen)
    assert.are.equal("kept", queue:take())
  end)

  it("puts nothing into a queue", function()
    local full, values = jdbfs.queue(1), {}
    jdbfs.run(function()
      full:put("first")
      local task = jdbfs.spawn(function()
        refused(function() full:put("refused") end)
        full:put("second")
      end)
      settle()
      values[1], values[2] = full:take(), full:take()
      task:join()
      assert.are.equal(0, full:size())
    end)
    assert.are.same({ "first", "second" }, values)
  end)
end)
