-- Recovery zeroes what a torn batch left. When the flush of those zeros failed, the log refused to
-- open; opened once more it saw the zeros, which no later flush had to make durable. After a crash
-- the old blocks were there again, behind new batches: the first of them could go on where the new
-- batch ended, as a record that had been cut long ago, and where a new segment had been begun
-- meanwhile the log was taken for damaged.

local support = require "support"
local sim = require "jdbfs.sim"

local jdbfs = support.jdbfs
local SEGMENT = 20 * 4096
local BLOCK = ("x"):rep(4096 - 32) -- with its header one block

local function open()
  return jdbfs.log("log", { segment_size = SEGMENT })
end

-- One batch of n records of a block each.
local function append(log, n, data)
  local tasks = {}
  for i = 1, n do
    tasks[i] = jdbfs.spawn(function() return assert(log:append(data)) end)
  end
  for i = 1, n do assert(tasks[i]:join()) end
end

-- A record, and what a batch of eight left of which the first block never reached the disk.
local function tear()
  local log = assert(open())
  append(log, 1, BLOCK)
  append(log, 8, ("o"):rep(#BLOCK))
  assert(log:close())
  local file = assert(jdbfs.open_rw("log/0000000001.log"))
  assert(file:write_at(jdbfs.buffer(4096), 2 * 4096, 0, 4096, "dsync"))
  local sixth = jdbfs.buffer(4096)
  assert(file:read_at(sixth, 7 * 4096))
  assert(file:close())
  return sixth
end

local function records_of(log)
  local found = {}
  for number, data in log:records() do found[number] = data:sub(1, 1) end
  return table.concat(found)
end

-- The n-th flush from when recovery begins fails; the log is opened until it opens, and goes on.
local function go_on(nth, with_segment)
  assert(sim.fault { op = "flush", errno = "EIO", nth = nth })
  local log = open()
  local failed = not log
  log = log or assert(open())
  if not failed then return false end
  append(log, 5, ("n"):rep(#BLOCK))
  if with_segment then assert(log:append(("l"):rep(16 * 4096))) end
  assert(log:close())
  return true
end

describe("a log whose recovery met a failed flush", function()
  for _, with_segment in ipairs { false, true } do
    local what = with_segment and "a segment behind it" or "nothing behind it"
    it("keeps what it cut away, with " .. what, function()
      if (jdbfs.info() or {}).backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
      local failures = 0
      for nth = 1, 6 do
        for seed = 1, 12 do
          assert(sim.reset { seed = seed })
          jdbfs.run(tear)
          local met = false
          jdbfs.run(function() met = go_on(nth, with_segment) end)
          assert(sim.crash { seed = seed })
          if met then
            failures = failures + 1
            jdbfs.run(function()
              local log = assert(open())
              assert.equal("xnnnnn" .. (with_segment and "l" or ""), records_of(log))
              assert(log:close())
            end)
          end
        end
      end
      assert(failures >= 12, failures .. " failed flushes")
    end)
  end
end)

describe("a log that an earlier version left so", function()
  it("opens, and what a new segment begins with is not looked for in the old one", function()
    if (jdbfs.info() or {}).backend ~= "sim" then return pending("needs JDBFS_BACKEND=sim") end
    assert(sim.reset { seed = 1 })
    jdbfs.run(function()
      local sixth = tear()
      local log = assert(open())
      append(log, 5, ("n"):rep(#BLOCK))
      assert(log:append(("l"):rep(16 * 4096)))
      assert(log:close())
      local file = assert(jdbfs.open_rw("log/0000000001.log"))
      assert(file:write_at(sixth, 7 * 4096, 0, 4096, "dsync"))
      assert(file:close())
      log = assert(open())
      assert.equal("xnnnnnl", records_of(log))
      assert(log:close())
    end)
  end)
end)
