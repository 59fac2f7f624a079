-- More operations than the queue holds: they wait in order of arrival, none fails, none is lost,
-- and at the end every counter is zero. Subprocesses, since the depth is set before the first use.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local COMMON = [[
  local depth, page = tonumber(arg[3]), jdbfs.PAGE_SIZE
  assert(jdbfs.setup { depth = depth })
  local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
  local PAGES = 64
  do
    local b = jdbfs.buffer(page)
    for i = 0, PAGES - 1 do
      b:fill(i)
      assert(f:write_at(b, i * page))
    end
  end
  local function zero(when)
    local s = jdbfs.stats()
    for _, name in ipairs { "in_flight", "waiting", "abandoned", "tasks" } do
      check(when .. ": " .. name, s[name] == 0, s[name])
    end
    check(when .. ": submitted and completed", s.submitted == s.completed)
    check(when .. ": pending", jdbfs.pending() == 0, jdbfs.pending())
  end
  check("depth", jdbfs.info().depth == depth, jdbfs.info().depth)
]]

-- wine takes ten times as long for each.
local MANY = support.on_wine and 5000 or 100000

local function pressure(depth, source)
  return process.script(COMMON .. source, { args = { depth, MANY } })
end

describe("pressure", function()
  process.setup()

  it("of 100,000 tasks on a queue of depth 8 loses and starves none", function()
    local out = pressure(8, [[
      local N = tonumber(arg[4])
      -- Most from the page cache, which is quick; every tenth from the device, which is late.
      local cached = assert(jdbfs.open(dir .. "/file", { direct = "off" }))
      local done, finished, most, overtaken = 0, {}, 0, 0
      jdbfs.run(function()
        for i = 1, N do
          jdbfs.spawn(function()
            local b = jdbfs.buffer(page)
            local off = i % PAGES
            local from = i % 10 == 0 and f or cached
            check("read", from:read_at(b, off * page) == page)
            check("data", b:u8(0) == off and b:u8(page - 1) == off)
            b:free()
            check("twice", not finished[i], i)
            done = done + 1
            finished[i] = done
            if done - i > overtaken then overtaken = done - i end
            if done % 1000 == 0 then most = math.max(most, jdbfs.stats().in_flight) end
          end)
        end
      end)
      check("all", done == N, done)
      check("in flight at most 8", most <= 8, most)
      -- Whoever came at place i was not left behind by many who came later.
      check("order", overtaken < N / 5, overtaken)
      zero("end")
      check("close", f:close() and cached:close())
      f, cached = nil, nil
      collect()
      check("memory", jdbfs.stats().buffers <= 1 and collectgarbage("count") < 20000,
        collectgarbage("count"))
      print("ok", done, most, overtaken)
    ]])
    assert.matches("^ok", out)
    support.figures(("pressure: %d tasks on depth 8, data compared; at most %s in flight"):format(
      MANY, out:match("^ok%s+%d+%s+(%d+)")))
  end)

  it("of depth 1 keeps exactly the order of arrival", function()
    local out = pressure(1, [[
      local N, order = 3000, {}
      jdbfs.run(function()
        for i = 1, N do
          jdbfs.spawn(function()
            local b = jdbfs.buffer(page)
            if i % 3 == 0 then
              b:fill(i % 251)
              check("write", f:write_at(b, (PAGES + i) * page) == page)
            else
              check("read", f:read_at(b, i % PAGES * page) == page and b:u8(9) == i % PAGES)
            end
            order[#order + 1] = i
          end)
        end
      end)
      for i = 1, N do check("order", order[i] == i, i, order[i]) end
      for i = 3, N, 300 do
        check("written", f:read((PAGES + i) * page + 5, 1) == string.char(i % 251), i)
      end
      zero("end")
      f:close()
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  for _, depth in ipairs({ 1, 7, 8, 16, 32 }) do
    it("of exactly as many tasks as a ring of depth " .. depth .. " holds, and one more or less",
      function()
      local out = pressure(depth, [[
        for _, n in ipairs { 1, 2, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 128,
            257 } do
          local done, others = 0, 0
          jdbfs.run(function()
            for i = 1, n do
              jdbfs.spawn(function()
                local b = jdbfs.buffer(page)
                for round = 0, 2 do
                  local at = (i * 5 + round) % PAGES
                  check("read", f:read_at(b, at * page) == page and b:u8(1) == at)
                  -- Some operations go to worker threads on every backend.
                  if (i + round) % 5 == 0 then check("stat", f:stat().size == PAGES * page) end
                end
                done = done + 1
              end)
            end
            while done < n do
              others = others + 1
              jdbfs.yield()
            end
          end)
          check("all", done == n, done, n)
          zero("after " .. n)
        end
        f:close()
        print("ok")
      ]])
      assert.are.equal("ok\n", out)
    end)
  end

  it("on one file waits for all of it in close, opened and closed under pressure", function()
    local out = pressure(4, [[
      local closed = 0
      jdbfs.run(function()
        for t = 1, 100 do
          jdbfs.spawn(function()
            local own = check("open", jdbfs.open_rw(dir .. "/own" .. t % 10, { direct = "prefer" }))
            local pieces = {}
            for k = 1, 5 do
              pieces[k] = jdbfs.spawn(function()
                local b = jdbfs.buffer(page)
                return own:write_at(b, k * page)
              end)
            end
            jdbfs.yield()
            check("close", own:close())
            closed = closed + 1
            for k = 1, 5 do
              local n, _, err = pieces[k]:join()
              check("piece", n == page or err.kind == "Closed", n, err)
            end
          end)
        end
      end)
      check("closed", closed == 100, closed)
      zero("end")
      f:close()
      f = nil
      collect()
      check("files", jdbfs.stats().files == 0, jdbfs.stats().files)
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  it("with cancellations at every stage loses nothing of the others", function()
    local out = pressure(8, [[
      local done, cancelled = 0, 0
      jdbfs.run(function()
        local tasks = {}
        for i = 1, 5000 do
          tasks[i] = jdbfs.spawn(function()
            local b = jdbfs.buffer(page)
            for round = 1, 3 do
              local at = (i + round) % PAGES
              check("read", f:read_at(b, at * page) == page and b:u8(0) == at)
            end
            done = done + 1
          end)
        end
        for i = 1, 5000 do
          if i % 3 == 0 and tasks[i]:cancel() then cancelled = cancelled + 1 end
          if i % 100 == 0 then jdbfs.yield() end
        end
      end)
      check("sum", done + cancelled >= 5000 and done >= 3334, done, cancelled)
      jdbfs.run(function() check("after", f:size() == PAGES * page) end)
      for _ = 1, 100 do
        if jdbfs.stats().abandoned == 0 then break end
        jdbfs.step(0.1)
      end
      zero("end")
      f:close()
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  it("of an abandoned run: an error with 10,000 operations queued", function()
    local out = pressure(8, [[
      local ok, message = pcall(jdbfs.run, function()
        for i = 1, arg[4] / 10 do
          jdbfs.spawn(function()
            f:read_at(jdbfs.buffer(page), i % PAGES * page)
            error("one ends it all", 0)
          end)
        end
      end)
      check("raised", not ok and tostring(message):find("one ends it all", 1, true))
      zero("end")
      f:close()
      collect()
      check("buffers", jdbfs.stats().buffers == 0, jdbfs.stats().buffers)
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)

  -- One call that takes very many may block in the kernel, and nothing is done meanwhile.
  it("of a burst is handed over in pieces, also of one list", function()
    local forced = os.getenv("JDBFS_BACKEND")
    if jdbfs.info().backend ~= "io_uring" or forced == "threads" then
      return pending("about io_uring alone")
    end
    local works, why = process.strace("getppid:retval=7")
    if not works then return pending(why) end
    local trace = support.path("trace")
    process.script([[
      local f, n = assert(jdbfs.create(dir .. "/file", { direct = "prefer" })), 200
      local page = jdbfs.PAGE_SIZE
      local b, list = jdbfs.buffer(n * page), {}
      assert(f:write_at(b, 0))
      jdbfs.run(function()
        for i = 0, n - 1 do jdbfs.spawn(f.read_at, f, b, i * page, i * page, page) end
      end)
      for i = 0, n - 1 do list[i + 1] = { b, i * page, i * page, page } end
      assert(f:read_many(list) == n)
    ]], { prefix = "strace -f -qq -e trace=io_uring_enter -o " .. support.quote(trace) })
    local most, sum = 0, 0
    for count in support.get(trace):gmatch("io_uring_enter%(%d+, (%d+)") do
      most, sum = math.max(most, tonumber(count)), sum + tonumber(count)
    end
    assert.is_true(sum >= 400, sum .. " were handed over")
    assert.is_true(most <= 32, most .. " in one call")
  end)

  -- More than the device takes at once would block inside the kernel.
  it("of a device that takes fewer at once stays within that, unless the depth is named", function()
    local slow, why = process.slow()
    if not slow then return pending(why) end
    local most = support.get("/sys/block/" .. slow.device:match("[^/]+$") .. "/queue/nr_requests")
    most = tonumber(most)
    local ok, out = pcall(process.script, [[
      local most = tonumber(arg[4])
      check("before", jdbfs.info().in_flight_limit == 256 and not jdbfs.info().in_flight_reason)
      local f = assert(jdbfs.open(arg[3], { device = true }))
      local info = jdbfs.info()
      check("limit", info.in_flight_limit == most and info.depth == 256, info.in_flight_limit)
      check("reason", info.in_flight_reason:find(arg[3], 1, true), info.in_flight_reason)
      local b = jdbfs.buffer(400 * 512)
      for i = 0, 399 do jdbfs.spawn(f.read_at, f, b, i * 512, i * 512, 512) end
      for _ = 1, 5 do
        jdbfs.step()
        check("in flight", jdbfs.stats().in_flight <= most, jdbfs.stats().in_flight)
      end
      check("the rest waits", jdbfs.stats().waiting > 0)
      jdbfs.run(function() end)
      print("ok")
    ]], { args = { slow.device, tostring(most) }, prefix = slow.prefix })
    local named_ok, named = pcall(process.script, [[
      assert(jdbfs.setup { depth = 256 })
      local f = assert(jdbfs.open(arg[3], { device = true }))
      local info = jdbfs.info()
      print(info.in_flight_limit, info.in_flight_reason)
    ]], { args = { slow.device } })
    slow.stop()
    assert.is_true(ok, out)
    assert.are.equal("ok\n", out)
    assert.is_true(named_ok, named)
    assert.are.equal("256\tnil\n", named)
  end)
end)
