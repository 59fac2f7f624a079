-- A queue of 8 whose submissions and kernel entries fail, whose completions come late and
-- shuffled: nothing is lost, nothing is told twice, nobody starves. (Without faults, and with
-- 100,000 tasks at once: spec/43-pressure_spec.lua.)

local process = require "support_process"
local support_faults = require "support_faults"

local SOURCE = [[
  local N, seed = tonumber(arg[3]), tonumber(arg[4])
  assert(jdbfs.setup { depth = 8 })
  local page, PAGES = jdbfs.PAGE_SIZE, 64
  local f = assert(jdbfs.create(dir .. "/file", { direct = "off" }))
  local b = assert(jdbfs.buffer(page))
  for i = 0, PAGES - 1 do
    b:fill(i)
    assert(f:write_at(b, i * page))
  end
  local faults
  for pattern in package.cpath:gmatch("[^;]+") do
    local open = package.loadlib((pattern:gsub("%?", "jdbfs/core")), "luaopen_jdbfs_faults")
    if open then faults = open() break end
  end
  faults.plan(("seed=%d;shuffle;submit:p=0.2;read_at:p=0.05:late=3;read_at:p=0.05:short;"
    .. "ring.enter:p=0.1:errno=EINTR;ring.enter:p=0.1:errno=EAGAIN;"
    .. "ring.enter:p=0.1:errno=EBUSY;ring.wait:p=0.1:errno=EINTR;"
    .. "read_at:p=0.02:errno=EIO"):format(seed))
  -- Slices of one buffer: in this build each buffer is three mappings, and those are limited.
  local LEN = 64
  local all = assert(jdbfs.buffer(N * LEN))
  local finished, done, failed, overtaken = {}, 0, 0, 0
  jdbfs.run(function()
    for i = 1, N do
      jdbfs.spawn(function()
        local own = all:slice((i - 1) * LEN, LEN)
        local at = i % PAGES
        local n, _, err = f:read_at(own, at * page)
        if n then
          check("data", n == LEN and own:u8(0) == at and own:u8(LEN - 1) == at, i)
        else
          check("fault", err.name == "EIO" and err.offset == at * page)
          failed = failed + 1
        end
        check("twice", not finished[i], i)
        finished[i] = true
        done = done + 1
        if done - i > overtaken then overtaken = done - i end
      end)
    end
  end)
  local injected = faults.injected()
  local _, planned = faults.rule(8)
  faults.plan()
  check("all", done == N, done)
  check("told once", failed == planned, failed, planned)
  check("order", overtaken < N / 5 + 100, overtaken)
  local s = jdbfs.stats()
  check("counters", s.in_flight + s.waiting + s.abandoned + s.tasks == 0
    and s.submitted == s.completed)
  assert(f:close())
  print(injected, failed)
]]

describe("a queue of 8 that fails", function()
  process.setup()

  it("loses nothing of thousands of tasks", function()
    local tasks = support_faults.long and 20000 or 5000
    local injected, failed = 0, 0
    for seed = 1, support_faults.long and 5 or 2 do
      local out = process.script(SOURCE, { args = { tasks, seed } })
      local i, f = out:match("^(%d+)\t(%d+)\n$")
      injected, failed = injected + assert(tonumber(i)), failed + tonumber(f)
    end
    assert.is_true(injected > tasks / 10 and failed > tasks / 100)
    support_faults.figures(("pressure: %d tasks a run, %d faults, %d of them told, each once")
      :format(tasks, injected, failed))
  end)
end)
