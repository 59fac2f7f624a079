-- jdbfs run --procs: several processes, each with a queue, are one result.

local command = require("support_command")
local result = require("jdbfs.command.result")
local support = require("support")

local dir

local function run(...)
  local words = { os.getenv("JDBFS_TEST_LUA") or "none", "lua/bin/jdbfs run --quiet --json -",
    "--size 1m --warmup 50ms --dir", support.quote(dir), ... }
  local status, out = support.sh(table.concat(words, " "))
  local text = out:match("{.*}")
  return text and assert(result.decode(text)), status, out
end

local function it_runs(what, body)
  it(what, function()
    if support.on_windows then return pending("--procs needs a POSIX shell: refused on Windows") end
    if support.on_sim then return pending(support.on_sim) end
    if not os.getenv("JDBFS_TEST_LUA") then return pending("no JDBFS_TEST_LUA") end
    dir = support.path("run")
    assert(support.jdbfs.mkdir(dir))
    body()
    assert.are.equal("", support.names(dir))
  end)
end

describe("several processes", function()
  support.setup()

  it("are refused on Windows in one sentence, before anything is made", function()
    if not support.on_windows then return pending("this is not Windows") end
    local status, out, err = command("run", "randread", "--procs", "2", "--dir", support.path("."))
    assert.are.equal("2 jdbfs: --procs: not on Windows\n", status .. " " .. out .. err)
    assert.are.equal("", support.names(support.path(".")))
  end)

  it_runs("share the target, and their histograms are added", function()
    local d, status, out = run("mixed --procs 3 --qd 2 --time 300ms --interval 100ms")
    assert.are.equal(0, status, out)
    assert.are.equal(3, d.plan.procs)
    assert.are.equal(1, #d.jobs)
    assert.are.equal(6, d.jobs[1].n)
    for _, name in ipairs({ "read", "write" }) do
      local op, sum, rows = command.find(d.jobs[1].ops, name), 0, 0
      for _, bucket in ipairs(op.response.hist) do sum = sum + bucket[2] end
      for _, row in ipairs(d.intervals) do
        if row.op == name and not row.warmup then rows = rows + row.n end
      end
      assert.are.equal(op.n, op.response.n)
      assert.are.equal(op.n, sum)
      assert.are.equal(op.n, rows)
      assert.are.equal(op.n * 4096, op.bytes)
    end
    assert.is_true(d.trust.cpu_s_per_mop > 0 and d.trust.enters_per_op > 0)
  end)

  it_runs("keep warm-up and measured time apart, also when one is late", function()
    local path = support.path("w.lua")
    support.put(path, [[
      return { file = true, jobs = { one = { n = 1, main = function(ctx)
        local till = ctx:now() + (ctx.id == 2 and ctx.iter == 1 and 0.13 or 0)
        while ctx:now() < till do end -- the others have ended two intervals meanwhile
        ctx.file:read(ctx.rng:page())
      end } } }]])
    local d, status, out = run(support.quote(path), "--procs 2 --time 200ms --interval 50ms",
      "--warmup 120ms")
    assert.are.equal(0, status, out)
    local rows = 0
    for _, row in ipairs(d.intervals) do
      if not row.warmup then rows = rows + row.n end
    end
    assert.are.equal(d.jobs[1].ops[1].n, rows)
  end)

  it_runs("add up their errors, and say once what all of them warn of", function()
    local path = support.path("w.lua")
    support.put(path, "return function(ctx) ctx:warn('all say so') ctx.file:read(ctx.size) end")
    local d, status, out = run(support.quote(path), "--procs 2 --qd 1 --time 20s --warmup 0s")
    assert.are.equal(1, status, out)
    assert.is_true(d.jobs[1].ops[1].errors.ShortRead >= 200)
    local _, count = table.concat(d.warnings, "\n"):gsub("all say so", "")
    assert.are.equal(1, count)
  end)

  it_runs("draw what as many coroutines of one process would draw", function()
    local path = support.path("w.lua")
    support.put(path, [[
      return { file = true, jobs = { one = { n = 2, main = function(ctx)
        if ctx.iter > 2 then return ctx:sleep(0.001) end
        ctx:note(("%d of %d: %d"):format(ctx.id, ctx.n, ctx.iter), ctx.rng:page())
      end } } }]])
    local function pages(n, ...)
      local d, status, out = run(support.quote(path), "--time 100ms", ...)
      assert.are.equal(0, status, out)
      local list = {}
      for name, page in pairs(command.notes(d)) do
        list[#list + 1] = name:gsub(" of " .. n, "") .. " " .. page
      end
      table.sort(list)
      return table.concat(list, "\n")
    end
    local of_four = pages(4, "--procs 2")
    assert.matches("^1: 1 %d+\n1: 2 %d+\n2: 1 %d+.*4: 2 %d+$", of_four)
    support.put(path, (support.get(path):gsub("n = 2", "n = 4", 1)))
    assert.are.equal(of_four, pages(4))
  end)

  it_runs("divide rate and operations among them, and counters are added", function()
    local path = support.path("w.lua")
    support.put(path, [[
      return { file = false, jobs = { one = { n = 2,
        main = function(ctx) ctx:count("c") end } } }]])
    local d, status, out = run(support.quote(path), "--procs 2 --rate 400 --arrival const",
      "--time 1s")
    assert.are.equal(0, status, out)
    local job = d.jobs[1]
    -- Whether they keep up is the machine's affair.
    assert.is_true(math.abs(job.offered / job.elapsed_s - 400) < 80, job.offered)
    local counted = job.counters[1].sum / job.elapsed_s
    assert.is_true(math.abs(counted - job.achieved) < 0.2 * job.achieved, counted)
    assert.are.equal("boolean", type(job.sustained))
    d = run("randread --procs 2 --qd 1 --ops 101 --warmup 0s")
    assert.are.equal(101, d.jobs[1].ops[1].n)
  end)

  it_runs("take turns when arrivals are constant", function()
    local path = support.path("w.lua")
    support.put(path, [[
      return { file = false, jobs = { one = { n = 1, main = function(ctx)
        if ctx.iter <= 5 then ctx:note(ctx.id .. ":" .. ctx.iter, ctx.due) end
      end } } }]])
    local d, status, out = run(support.quote(path), "--procs 3 --rate 30 --arrival const",
      "--time 700ms --warmup 0s")
    assert.are.equal(0, status, out)
    local dues = {}
    for _, due in pairs(command.notes(d)) do dues[#dues + 1] = tonumber(due) end
    assert.are.equal(15, #dues)
    table.sort(dues)
    for i = 2, #dues do
      local gap = dues[i] - dues[i - 1]
      assert.is_true(math.abs(gap - 1e9 / 30) < 1000, gap)
    end
  end)

  it_runs("run workloads one after the other", function()
    local d, status, out = run("randwrite wal --procs 2 --time 100ms")
    assert.are.equal(0, status, out)
    assert.are.equal("randwrite client flusher", ("%s %s %s"):format(d.jobs[1].name,
      d.jobs[2].name, d.jobs[3].name))
    assert.matches(", ", command.notes(d)["mean group"])
  end)

  it_runs("end with the error of one, and its status", function()
    local path = support.path("w.lua")
    support.put(path, [[return { file = false, jobs = { one = { n = 1, main = function(ctx)
      ctx:sleep(0.01) if ctx.id == 2 then error("here") end end } } }]])
    local d, status = run(support.quote(path), "--procs 2 --time 200ms")
    assert.are.equal(1, status)
    assert.matches("^process 2: .*w%.lua:2: here %(job one, coroutine 2, iteration 1", d.error)
    support.put(path, [[return { file = false, setup = function() error("early") end,
      jobs = { one = { main = print } } }]])
    d, status = run(support.quote(path), "--procs 2")
    assert.are.equal(1, status)
    assert.matches("^process 1: .*w%.lua:1: early %(in setup%)", d.error)
  end)

  it_runs("end when one of them is killed", function()
    local path = support.path("w.lua")
    support.put(path, [[return { file = false, jobs = { one = { n = 1, main = function(ctx)
      if ctx.id == 2 then
        local pid = io.open("/proc/self/stat"):read("*l"):match("^%d+")
        os.execute("kill -9 " .. pid)
      end
      ctx:sleep(0.01) end } } }]])
    local d, status = run(support.quote(path), "--procs 2 --time 60s")
    assert.are.equal(1, status)
    assert.are.equal("process 2 ended with status 137", d.error)
  end)

  it_runs("end together after a signal to the first", function()
    local rows = support.quote(support.path("rows"))
    local status, out = support.sh(("%s lua/bin/jdbfs run randread --procs 2 --dir %s --size 1m"
      .. " --time 60s --warmup 0s --interval 50ms --quiet --json - --live-json %s & run=$!;"
      .. " until [ -s %s ]; do sleep 0.05; done; kill -INT $run; wait $run"):format(
      os.getenv("JDBFS_TEST_LUA"), support.quote(dir), rows, rows))
    assert.are.equal(130, status, out)
    local d = assert(result.decode((out:match("{.*}"))))
    assert.is_true(d.jobs[1].ops[1].n > 0)
  end)
end)
