-- Batches of a log that follow one another without Lua between them: what an appender is told, when
-- a write fails, when the task that commits is ended, when the log is collected meanwhile.

local jdbfs = require "jdbfs"
local sim = require "jdbfs.sim"
local support = require "support"

local OPTIONS = { direct = "prefer", segment_size = 65536, batch_size = 8192 }

local function contents(log)
  local data = {}
  local cursor = log:records()
  while true do
    local number, text, err = cursor:next()
    if number == nil then
      assert(not err, text)
      break
    end
    data[number] = text
  end
  cursor:close()
  return data
end

local function reopened(path)
  local log = assert(jdbfs.log(path, OPTIONS))
  local data = contents(log)
  assert(log:close())
  return data
end

-- Tasks that append `each` records of some hundred bytes; told[text]: the number or the error.
local function append_all(log, tasks, each, told)
  local list = {}
  for i = 1, tasks do
    list[i] = jdbfs.spawn(function()
      for j = 1, each do
        local text = ("task %d record %d;"):format(i, j):rep(20)
        local number, _, err = log:append(text)
        told[text] = number or err
      end
    end)
  end
  for _, task in ipairs(list) do task:join() end
end

-- A test on an empty simulated disk: `body` in a task.
local function it_simulates(name, body)
  it(name, function()
    if not support.on_sim then return pending("needs JDBFS_BACKEND=sim") end
    assert(sim.reset { seed = 1 })
    jdbfs.run(body)
  end)
end

describe("batches that follow one another", function()
  support.setup()

  support.task("hold what every task appended, in the order of the numbers", function()
    local path = support.path("log")
    local log = assert(jdbfs.log(path, OPTIONS))
    local told, want = {}, {}
    append_all(log, 8, 40, told)
    for text, number in pairs(told) do want[number] = text end
    local stats = log:stats()
    assert.are.equal(320, #want)
    assert.are.equal(320, stats.records)
    assert.are.equal(320, stats.last)
    assert.is_true(stats.segments > 1)
    assert.is_true(stats.batches < 120, stats.batches .. " batches")
    assert.are.same(want, contents(log))
    assert(log:close())
    assert.are.same(want, reopened(path))
  end)

  support.task("are read by others while more are written", function()
    local log = assert(jdbfs.log(support.path("log"), OPTIONS))
    local told, seen, ended = {}, 0, false
    local reader = jdbfs.spawn(function()
      local cursor = log:records()
      repeat
        local last = ended
        local number, text, err = cursor:next()
        assert(not err, text)
        if number then
          seen = seen + 1
          assert.are.equal(seen, number)
        else
          jdbfs.yield()
        end
      until last and not number
      cursor:close()
    end)
    append_all(log, 4, 30, told)
    ended = true
    assert(reader:join() == nil and reader:status() == "done")
    assert.are.equal(120, seen)
    assert(log:close())
  end)

  it_simulates("that fail are an error of all who wait, and of all who come after", function()
    local log = assert(jdbfs.log("log", OPTIONS))
    local told, failed, refused, durable = {}, 0, 0, {}
    assert(sim.fault { op = "write_at", errno = "EIO", nth = 3 })
    append_all(log, 5, 4, told)
    for text, answer in pairs(told) do
      if type(answer) == "number" then
        durable[answer] = text
      elseif answer.kind == "Io" then
        failed = failed + 1
        assert.are.same({ "write_at", "EIO" }, { answer.op, answer.name })
      else
        refused = refused + 1
        assert.are.equal("Poisoned", answer.kind)
      end
    end
    assert.are.same({ 10, 5, 5 }, { #durable, failed, refused })
    assert.are.equal(10, log:stats().last)
    support.fails({ kind = "Poisoned", op = "append" }, log:append("more"))
    assert.are.same(durable, contents(log))
    assert(log:close())
    local kept = reopened("log")
    for number = 1, 10 do assert.are.equal(durable[number], kept[number]) end
  end)

  it_simulates("keep their promises whichever operation fails", function()
    local n = 0
    while true do
      n = n + 1
      assert(sim.reset { seed = n })
      assert(sim.fault { nth = n, errno = "EIO", when = n % 2 == 0 and "after" or "before" })
      local told = {}
      local log = jdbfs.log("log", { segment_size = 16384, batch_size = 8192 })
      if log then
        append_all(log, 4, 6, told)
        log:close()
      end
      if sim.state().faults == 0 then break end
      log = assert(jdbfs.log("log", OPTIONS))
      local data = contents(log)
      for text, answer in pairs(told) do
        assert(type(answer) ~= "number" or data[answer] == text, "operation " .. n)
      end
      assert.are.equal(#data + 1, assert(log:append("usable")))
      assert(log:close())
    end
    assert.is_true(n > 20, n .. " operations")
  end)

  it("end with the run that failed, also when the log is collected before anybody knows", function()
    for round = 1, 3 do
      local path = support.path("log" .. round)
      local log = assert(jdbfs.log(path, OPTIONS))
      support.raises("stop here", jdbfs.run, function()
        -- One is answered and raises while the other waits, or before the next batch is taken.
        for _ = 2, round do jdbfs.spawn(log.append, log, "of another") end
        assert(log:append("durable"))
        if round == 3 then jdbfs.yield() end
        error("stop here")
      end)
      if round == 2 then support.fails({ kind = "Poisoned" }, log:append("more")) end
      log = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
      jdbfs.run(function() jdbfs.yield() end)
      local found = {}
      for _, text in ipairs(reopened(path)) do found[text] = true end
      assert.is_true(found.durable)
    end
  end)
end)
