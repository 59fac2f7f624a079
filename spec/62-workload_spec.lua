-- Workload files: what they may say, what ctx gives them, what happens when they are wrong; and
-- what the runner never does to other people's files.

local command = require("support_command")
local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")
local jdbfs = require("jdbfs")
local result = require("jdbfs.command.result")
local stamp = require("jdbfs.command.stamp")
local support = require("support")
local workload = require("jdbfs.workload")

local unpack = table.unpack or unpack

local dir

-- Runs a workload given as source; its document, status and stderr.
local function run(source, ...)
  local path = support.path("w.lua")
  if source then support.put(path, source) end
  local args = { "run", source and path, "--dir", dir, "--size", "1m", "--time", "100ms",
    "--quiet", "--json", "-" }
  if not source then table.remove(args, 2) end
  local function add(...)
    for _, word in ipairs({ ... }) do args[#args + 1] = word end
  end
  local given = table.concat({ ... }, " ")
  if not given:find("--steady", 1, true) then add("--warmup", "20ms") end
  if source and not source:find("%f[%w]n = ") then add("--qd", "2") end
  add(...)
  local status, out, err = command(unpack(args))
  return out ~= "" and assert(result.decode(out)) or nil, status, err
end

local named, notes_of = command.find, command.notes

local function setup()
  support.setup()
  before_each(function()
    dir = support.path("run")
    assert(jdbfs.mkdir(dir))
  end)
end

-- A checksum of the target after 50 operations that `code` makes, one by one.
local function drawn(code, ...)
  local d, status, err = run(([[
    local W = require "jdbfs.workload"
    return W.define {
      file = true,
      jobs = { job = { n = 1, main = function(ctx)
        if ctx.iter > 50 then return ctx:stop() end
        %s
      end } },
      teardown = function(ctx)
        local page, sum = ctx:page().buffer, 0
        for off = 0, ctx.size - 1, ctx.bs do
          ctx.file:read(off, page)
          sum = (sum * 31 + page:crc32c()) %% 2 ^ 32
        end
        ctx:note("sum", sum)
      end,
    }]]):format(code), "--dist", "zipf:0.99", "--time", "60s", "--warmup", "0s", ...)
  assert.are.equal(0, status, err)
  local op = d.jobs[1].ops[1]
  assert.are.equal(50, op.n)
  return notes_of(d).sum
end

-- What is in the directory that the runs were given.
local function left() return support.names(dir) end

describe("a workload file", function()
  setup()

  it("may be one function: an iteration", function()
    local d, status = run("return function(ctx) ctx.file:read(ctx.rng:page()) end")
    assert.are.equal(0, status)
    assert.are.equal("main", d.jobs[1].name)
    assert.are.equal(2, d.jobs[1].n)
    assert.is_true(named(d.jobs[1].ops, "read").n > 0)
  end)

  it("is the example of the reference: group commit", function()
    local d, status, err = run([[
      local W = require "jdbfs.workload"
      return W.define {
        about = "WAL append with group commit",
        options = { record = W.size("512"), clients = W.int(16), group_max = W.int(64) },
        thresholds = { "client.commit.p50 < 30s", "errors == 0" },
        setup = function(ctx)
          return { f = ctx:create("wal", { size = ctx.size, sync = "none" }), off = 0,
            q = ctx:queue() }
        end,
        jobs = {
          client = { n = "clients",
            main = function(ctx, s)
              ctx:timed("commit", function() s.q:put(ctx.rng:bytes(ctx.opt.record)):wait() end)
            end },
          flusher = { n = 1, loop = true,
            main = function(ctx, s)
              while ctx:running() do
                local batch = s.q:take(1, ctx.opt.group_max)
                local page = ctx:page():pack(batch)
                if s.off + #page > ctx.size then s.off = 0 end
                s.f:write_sync(page, s.off)
                s.off = s.off + #page
                ctx:count("group", #batch)
                for i = 1, #batch do batch[i]:set() end
              end
            end },
        },
        teardown = function(ctx, s, r) ctx:note("mean group", r.flusher.group.mean) end,
      }]], "--time", "400ms", "--clients", "40")
    assert.are.equal(0, status, err)
    local commits = named(d.jobs[1].ops, "commit")
    local group = d.jobs[2].counters[1]
    assert.are.equal("client", d.jobs[1].name)
    assert.are.equal(40, d.jobs[1].n)
    assert.is_true(commits.timed)
    assert.is_true(commits.n > 0)
    assert.are.equal("group", group.name)
    assert.is_true(group.max > 1 and group.max <= 40)
    assert.is_true(math.abs(notes_of(d)["mean group"] - group.sum / group.n) < 1e-6)
    assert.are.equal(2, #d.thresholds)
    assert.is_true(d.thresholds[1].ok and d.thresholds[2].ok)
    -- A commit waits for at least one durable write.
    assert.is_true(commits.response.min_ns >= named(d.jobs[2].ops, "write_sync").service.min_ns)
  end)

  it("turns its options into flags, with help", function()
    local path = support.path("o.lua")
    support.put(path, [[
      local W = require "jdbfs.workload"
      return W.define { about = "options", file = false, options = {
        count = W.int(3, "how many"), block_size = W.size("4k", "of a block"),
        fast = W.flag("or not"),
        gap = W.time("5ms"), share = W.number("0.5"), kind = W.choice({ "a", "b" }) },
        jobs = { one = { n = 1, main = function(ctx)
          ctx:note("got", ctx.opt.count .. " " .. ctx.opt.block_size .. " "
            .. tostring(ctx.opt.fast) .. " " .. ctx.opt.gap .. " " .. ctx.opt.share
            .. " " .. ctx.opt.kind)
          ctx:stop()
        end } } }]])
    local status, out = command("list", path)
    assert.are.equal(0, status)
    for _, text in ipairs({ "--count N", "how many (default 3)", "--block-size SIZE", "--fast",
      "--kind a|b" }) do
      assert.is_truthy(out:find(text, 1, true), text)
    end
    local d = run(nil, path, "--count", "7", "--block-size=8k", "--fast", "--kind", "b")
    assert.are.equal("7 8192 true 0.005 0.5 b", notes_of(d).got)
    d = run(nil, path, "--", "--count", "9")
    assert.are.equal("9 4096 false 0.005 0.5 a", notes_of(d).got)
    for _, words in ipairs({ { "--count", "x" }, { "--kind", "c" }, { "--no" }, { "--share" } }) do
      local refused, _, err = command("run", path, unpack(words))
      assert.are.equal(2, refused)
      assert.matches("^jdbfs: [^\n]+\n$", err)
    end
  end)

  it("runs the same on every Lua: the same offsets and bytes for the same seed", function()
    local source = [[
      return { file = true, setup = function() return {} end,
        jobs = { one = { n = 3, main = function(ctx, s)
          if ctx.iter > 3 then return ctx:sleep(0.001) end
          s[#s + 1] = ("%d.%d:%.0f:%d"):format(ctx.id, ctx.iter, ctx.rng:page(),
            ctx.rng:bytes(3):byte(2))
        end } },
        teardown = function(ctx, s)
          table.sort(s)
          ctx:note("trace", table.concat(s, " "))
        end }]]
    local first = notes_of(run(source, "--dist", "zipf:0.9")).trace
    assert.are.equal("1.1:421888:138 1.2:987136:79 1.3:102400:189 2.1:32768:205 "
      .. "2.2:675840:83 2.3:163840:112 3.1:675840:184 3.2:327680:231 3.3:102400:99", first)
    assert.are_not.equal(first, notes_of(run(source, "--dist", "zipf:0.9", "--seed", "2")).trace)
    assert.are_not.equal(first, notes_of(run(source)).trace)
  end)

  it("reads and writes pages drawn from --dist in one call as two calls would", function()
    local two = "local p = ctx:filled() return ctx.file:write(p, ctx.rng:page(p.buffer))"
    local before, after = drawn("return ctx.file:read_page()"), drawn(two)
    assert.are.equal(before, drawn("return ctx.file:read(ctx.rng:page())"))
    assert.are_not.equal(before, after)
    assert.are.equal(after, drawn("return ctx.file:write_page()"))
    assert.are.equal(after, drawn("return ctx.file:write_page()", "--sync", "fdatasync"))
  end)

  it("has semaphores, barriers, mutexes, events, tasks and sleeps", function()
    local d, status, err = run([[
      return { file = false,
        setup = function(ctx)
          return { inside = 0, most = 0, permits = ctx:semaphore(2), barrier = ctx:barrier(4),
            mutex = ctx:mutex(), go = ctx:event(), rounds = 0 }
        end,
        jobs = { one = { n = 4, main = function(ctx, s)
          if ctx.iter > 1 then return ctx:sleep(1) end
          if ctx.id == 1 then
            local task = ctx:spawn(function() ctx:sleep(0.01) s.go:set("gone") return 42 end)
            if task:join() ~= 42 then error("join") end
          end
          if s.go:wait() ~= "gone" then error("event") end
          s.permits:acquire()
          s.inside = s.inside + 1
          s.most = math.max(s.most, s.inside)
          ctx:sleep(0.005)
          s.inside = s.inside - 1
          s.permits:release()
          s.mutex:lock()
          local seen = s.rounds
          ctx:yield()
          s.rounds = seen + 1
          s.mutex:unlock()
          s.barrier:wait()
          if s.rounds ~= 4 then error("barrier") end
          ctx:count("passed")
          if ctx.id == 4 then ctx:note("most", s.most) end
        end } } }]], "--warmup", "0s")
    assert.are.equal(0, status, err)
    assert.are.equal(4, d.jobs[1].counters[1].sum)
    assert.are.equal(2, notes_of(d).most)
  end)

  for _, case in ipairs({
    { "a syntax error", "return { jobs = ", "w%.lua:1: .*<eof>" },
    { "an error while it is read", "error('early')", "w%.lua:1: early" },
    { "a job without main", "return { jobs = { a = {} } }", "job a has no main function" },
    { "no jobs", "return {}", "has no jobs" },
    { "nothing to return", "local x = 1", "returns a nil" },
    { "an unknown field", "return { job = {} }", "has no field job" },
    { "an option of its own making", "return { options = { a = 1 }, jobs = {} }", "option a" },
    { "an error in setup", "return { setup = function() error('there') end,"
      .. " jobs = { a = { main = print } } }", "w%.lua:1: there %(in setup%)" },
    { "an error in the middle", "return { file = false, jobs = { a = { n = 3, main = function(ctx)"
      .. " ctx:sleep(0.001) if ctx.id == 2 and ctx.iter == 5 then error('here') end end } } }",
      "w%.lua:1: here %(job a, coroutine 2, iteration 5, seed 1%)" },
    { "an error in teardown", "return { jobs = { a = { n = 1, main = function(ctx)"
      .. " ctx:stop() end } }, teardown = function() error('late') end }",
      "w%.lua:1: late %(in teardown%)" },
    { "ctx:abort", "return function(ctx) ctx:abort('no more') end", "^jdbfs: no more\n$" },
    { "an error of nil", "return function() error(nil) end",
      "^jdbfs: %(error object is a nil value%) %(job main, coroutine 1, iteration 1" },
    { "a table for an error", "return function() error({}) end",
      "^jdbfs: %(error object is a table value%) %(job main" },
    { "an error with fields like ours",
      "return function() error({ status = 0, message = 'mine', abort = 'no', open = true }) end",
      "^jdbfs: mine %(job main" },
    { "an error that tells itself", "return { setup = function() error(setmetatable({}, {"
      .. " __tostring = function() return 'itself' end })) end, jobs = { a = { main = print } } }",
      "^jdbfs: itself %(in setup%)\n$" },
    { "an error that cannot tell itself", "return function() error(setmetatable({}, {"
      .. " __tostring = function() error('no') end })) end", "^jdbfs: %(error object is a table" },
    { "an error object while it is read", "error({ message = 'early' })", "^jdbfs: early\n$" },
    { "an error like that of Ctrl-C", "return function() error('interrupted!') end",
      "w%.lua:1: interrupted! %(job main" },
    { "os.exit", "return function() os.exit(0) end", "w%.lua:1: os%.exit: .* %(job main" },
    { "os.exit while it is read", "os.exit(0)", "w%.lua:1: os%.exit: " },
    { "an error while files are made, renamed and removed", "return { file = false, jobs = { a ="
      .. " { n = 8, main = function(ctx) ctx:create('a' .. ctx.id) if ctx.id == 8 then error('now')"
      .. " end for _ = 1, 9 do ctx:rename('a' .. ctx.id, 'b' .. ctx.id) ctx:create('a' .. ctx.id)"
      .. " ctx:remove('b' .. ctx.id) end ctx:remove('a' .. ctx.id) end } } }", "w%.lua:1: now" },
  }) do
    it("that has " .. case[1] .. " is told in one sentence and leaves nothing behind", function()
      local _, status, err = run(case[2])
      assert.are.equal(1, status)
      assert.matches("^jdbfs: [^\n]+\n$", err)
      assert.matches(case[3], err)
      assert.are.equal("", left())
    end)
  end

  -- Three are at the barrier, or wait for the event, when the fourth has ended with the run.
  it("whose coroutines wait for each other ends at once", function()
    local d, status, err = run([[
      return { file = true,
        setup = function(ctx) return { gate = ctx:barrier(4), never = ctx:event() } end,
        jobs = { a = { n = 5, main = function(ctx, s)
          ctx.file:read(0)
          if ctx.id == 4 then return ctx:sleep(0.2) end
          if ctx.id == 5 then return s.never:wait() end
          s.gate:wait()
        end } } }]], "--time", "100ms", "--warmup", "0s")
    assert.are.equal(0, status, err)
    assert.is_true(d.jobs[1].elapsed_s < 20, d.jobs[1].elapsed_s)
    local warned = table.concat(d.warnings, " ") -- a loop device gives one of its own
    assert.is_nil(warned:find("did not end", 1, true), warned)
  end)

  it("that never waits is stopped all the same", function()
    local _, status = run("return { file = false, jobs = { a = { main = function() end } } }")
    assert.are.equal(0, status)
  end)

  it("counts what fails, and gives up when everything does", function()
    local d, status = run("return function(ctx) ctx.file:read(ctx.size) end", "--time", "20s",
      "--warmup", "0s")
    assert.are.equal(1, status)
    local op = d.jobs[1].ops[1]
    assert.is_true(op.errors.ShortRead >= 100)
    assert.are.equal(0, op.n)
    assert.is_true(d.jobs[1].elapsed_s < 10)
    assert.matches("gave up", d.error)
    d, status = run("return function(ctx) ctx.file:read(-1) end", "--time", "20s", "--warmup",
      "0s", "--threshold", "errors == 0")
    assert.are.equal(1, status)
    assert.is_true(d.jobs[1].ops[1].errors.Overflow >= 100)
  end)

  it("that failed says why on stderr, though nothing was measured", function()
    local d, status, err = run("return function(ctx) ctx.file:read(ctx.size) end", "--warmup",
      "20s")
    assert.are.equal(1, status)
    assert.matches("^jdbfs: w: gave up after %d+ errors\n$", err)
    assert.are.equal(0, #d.jobs)
    assert.are.equal(err, "jdbfs: " .. d.error .. "\n")
    d, status, err = run("return function(ctx)"
      .. " ctx.file:read(ctx.id == 2 and ctx.iter == 2 and ctx.size or 0) end", "--warmup", "0s")
    assert.are.equal(1, status)
    assert.are.equal("jdbfs: 1 operation failed\n", err)
    assert.are.equal("1 operation failed", d.error)
  end)

  it("that measures nothing says so", function()
    for _, case in ipairs({
      { "return function() end", "w: nothing was measured: no operation" },
      { "return function(ctx) ctx:stop() end", "w: nothing was measured: it ended before" },
      { "return function(ctx) if ctx.iter == 1 then ctx.file:read(0) end ctx:sleep(0.01) end",
        "w: nothing was measured: no operation" },
      { "return function(ctx) ctx:count('some') end" },
      { "return function(ctx) ctx:timed('some', function() end) end" },
    }) do
      local d, status, err = run(case[1])
      assert.are.equal("0 ", status .. " " .. err)
      local warned = table.concat(d.warnings, " ")
      assert.is_true(case[2] == nil or warned:find(case[2], 1, true) ~= nil, warned)
      assert.are.equal(case[2] ~= nil, warned:find("nothing was measured", 1, true) ~= nil, warned)
    end
    support.put(support.path("w.lua"), "return function(ctx) ctx:stop() end")
    local status, out = command("run", support.path("w.lua"), "--dir", dir, "--size", "1m")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("! w: nothing was measured", 1, true), out)
  end)

  it("that ended by an error had no other limit", function()
    local d, status = run([[return function(ctx)
      ctx.file:read(0)
      local till = os.clock() + 0.1
      while ctx.iter == 2 and os.clock() < till do end
      if ctx.iter == 2 then error("now") end
    end]], "--warmup", "0s")
    assert.are.equal(1, status)
    assert.is_false(d.trust.generator_limited)
  end)

  it("is checked when it is defined", function()
    assert.has_error(function() workload.define({ jobs = { a = { main = 1 } } }) end)
    assert.has_error(function() workload.size("4q") end)
    assert.has_error(function() workload.int(5, "", { max = 4 }) end)
    assert.has_error(function() workload.rate("fast") end)
    local function main() end
    for _, case in ipairs({
      { "a workload is a table", 1 },
      { "has no jobs", { jobs = {} } },
      { "job a is no table", { jobs = { a = 1 } } },
      { "job 1 is no table", { jobs = { 1 } } },
      { "has no name", { jobs = { { main = main } } } },
      { "job a is there twice", { jobs = { { name = "a", main = main },
        { name = "a", main = main } } } },
      { "bs is not between", { bs = 0, jobs = { a = { main = main } } } },
      { "qd is not between", { qd = 1.5, jobs = { a = { main = main } } } },
      { "warmup is not between", { warmup = 0 / 0, jobs = { a = { main = main } } } },
      { 'dist "gauss" is no', { dist = "gauss", jobs = { a = { main = main } } } },
      { "a threshold is no string", { thresholds = { 5 }, jobs = { a = { main = main } } } },
      { "a metric is no string", { jobs = { a = { main = main, metrics = { 5 } } } } },
    }) do
      local ok, message = pcall(workload.define, case[2])
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(case[1], 1, true), tostring(message))
    end
    local jobs = workload.define({ jobs = { b = { main = main }, a = { main = main } } }).jobs
    assert.are.equal("a b", jobs[1].name .. " " .. jobs[2].name)
  end)

  it("says what it may not ask of ctx", function()
    for _, case in ipairs({
      { "ctx:create('x', { sync = 'fsycn' })", 'there is no sync "fsycn"' },
      { "ctx:create('x', {}):read(0)", "this file needs a page to be read into" },
      { "ctx:timed('x', print)", "timed: setup and teardown are measured by no job" },
      { "ctx:count('x')", "count: setup and teardown are measured by no job" },
      { "ctx:track('x')", "track: setup and teardown are measured by no job" },
    }) do
      local _, status, err = run(("return { setup = function(ctx) %s end,\n"
        .. " jobs = { a = { main = function(ctx) ctx:stop() end } } }"):format(case[1]))
      assert.are.equal(1, status, case[1])
      assert.matches("^jdbfs: [^\n]*w.lua:1: [^\n]*\n$", err)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.are.equal("", left())
    end
  end)

  -- As in "return ctx:page('x')": the script's frame is gone then, and no other is to blame.
  for _, before in ipairs({ "", "return " }) do
    it("with a wrong argument is told as what is wrong, by '" .. before .. "ctx'", function()
      for _, call in ipairs({ "ctx:page('x')", "ctx:page(-1)", "ctx:new_buffer()", "ctx:create()",
        "ctx:create('a/b')", "ctx:create('a', { size = 'x' })", "ctx:create('a', { sise = 1 })",
        "ctx:open({})", "ctx:rename('a', 'b')", "ctx:remove('a')", "ctx:timed('a', 5)",
        "ctx:timed(nil, print)", "ctx:track()", "ctx:track('a')('x')", "ctx:count()",
        "ctx:count('a', 'x')", "ctx:sleep('x')", "ctx:until_due()", "ctx:scattered(5, 2)",
        "ctx:random('x')", "ctx:spawn(5)", "ctx:barrier()", "ctx:semaphore(-1)",
        "ctx:queue():take('x')", "ctx:page():pack({ 5 })", "ctx:page():random('x')",
        "ctx:numbered('x')", "ctx.file:read('x')", "ctx.file:read(0, 5)", "ctx.file:write()",
        "ctx.file:write('x', 0)", "ctx.file:write_sync(ctx:page())", "ctx.file:trim('x', 0)",
        "ctx.page()",
      }) do
        local _, status, err = run("return function(ctx)\n" .. before .. call .. "\nend", "--qd",
          "1")
        assert.are.equal(1, status, call)
        assert.matches("^jdbfs: [^\n]* %(job main, coroutine %d, iteration 1, seed 1%)\n$", err)
        assert.is_nil(err:find("command[/\\]"), err)
        if before == "" then assert.matches("^jdbfs: [^\n]*w%.lua:2: ", err) end
        assert.are.equal("", left())
      end
    end)
  end

  it("is told where a function of its definition failed", function()
    for _, case in ipairs({
      { "size = function(opt)\nreturn opt.x.y end", "w%.lua:2: " },
      { "size = function() return 'x' end", "w: size gave x, no number of bytes" },
      { "space = function() error({}) end", "%(error object is a table value%)" },
      { "space = function() end", "w: space gave nil, no number of bytes" },
    }) do
      support.put(support.path("w.lua"), "return { " .. case[1] .. ", jobs = { a = { n = 1,"
        .. " main = function(ctx) ctx:stop() end } } }")
      local status, out, err = command("run", support.path("w.lua"), "--dir", dir, "--quiet")
      assert.matches("^1 jdbfs: [^\n]*\n$", status .. " " .. out .. err)
      assert.matches(case[2], err)
    end
  end)

  it("makes its directory once, though many coroutines ask for it", function()
    local d, status, err = run([[
      return { file = false, jobs = { a = { n = 8, main = function(ctx)
        if ctx.iter == 1 then
          if ctx.id % 2 == 0 then ctx:create("f" .. ctx.id) end
          ctx:note("directory " .. ctx.id, ctx:dir())
        end
        ctx:sleep(0.001)
      end } } }]])
    assert.are.equal(0, status, err)
    local seen, count = {}, 0
    for _, path in pairs(notes_of(d)) do seen[path] = true end
    for _ in pairs(seen) do count = count + 1 end
    assert.are.equal(1, count)
    assert.are.equal("", left())
  end)

  it("has its files opened as --sync and the sync of create say", function()
    if not support.proc then return pending("needs /proc") end
    local source = [[
      local lfs = require "lfs"
      local function flags(path) -- of the open file
        path = path:match("[^/]*/[^/]*$")
        for fd in lfs.dir("/proc/self/fd") do
          local target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target")
          if target and target:sub(-#path) == path then
            return io.open("/proc/self/fdinfo/" .. fd):read("*a"):match("flags:%s*(%d+)")
          end
        end
      end
      local function kind(path)
        local text = flags(path)
        local data, all = tonumber(text:sub(-5, -5)) % 2 == 1, tonumber(text:sub(-7, -7)) >= 4
        return all and "osync" or data and "dsync" or "none"
      end
      return { file = true, jobs = { a = { n = 1, main = function(ctx)
        ctx:note("target", kind(ctx.file:path()))
        for _, sync in ipairs { "none", "dsync", "osync", "fsync" } do
          ctx:note(sync, kind(ctx:create(sync, { sync = sync }):path()))
        end
        ctx:stop()
      end } } }]]
    for _, sync in ipairs({ "none", "dsync", "osync", "fdatasync" }) do
      local d, status, err = run(source, "--sync", sync, "--warmup", "0s")
      assert.are.equal(0, status, err)
      assert.are.same({ target = sync == "fdatasync" and "none" or sync, none = "none",
        dsync = "dsync", osync = "osync", fsync = "none" }, notes_of(d))
    end
  end)

  it("may have its numbers of jobs and rates told by functions of ctx", function()
    local source = [[
      local W = require "jdbfs.workload"
      return W.define { options = { k = W.int(3) }, file = true,
        jobs = { { name = "a", main = function(ctx) ctx:yield() end,
          rate = function(ctx) return ctx.opt.k * 1000 end,
          n = function(ctx) return ctx.opt.k + ctx.size / ctx.bs + ctx.id end } } }]]
    local d, status, err = run(source, "--", "--k", "4")
    assert.are.equal(0, status, err)
    assert.are.equal(4 + 256, d.jobs[1].n)
    assert.is_true(d.jobs[1].offered > 2000)
    d, status, err = run((source:gsub("ctx.opt.k %+", "ctx:nothing() +")))
    assert.are.same({ {}, 1 }, { d.jobs, status })
    assert.matches("^jdbfs: [^\n]*w.lua:5: attempt to call [^\n]*\n$", err)
    assert.are.equal("", left())
  end)

  it("has no rates but numbers", function()
    for _, rate in ipairs({ "-5", "0/0", "{}", "function() return {} end" }) do
      local _, status, err = run(("return { jobs = { a = { rate = %s, main = print } } }"):format(
        rate))
      assert.are.equal("1 jdbfs: job a: rate is no number of iterations a second\n",
        status .. " " .. err)
    end
  end)

  it("has no numbers of jobs but whole ones, and no option that run has", function()
    for _, case in ipairs({
      { "n = 'many'", "there is no option \"many\" with a number" },
      { "n = 0", "n is no whole number" },
      { "n = 1.5", "n is no whole number" },
    }) do
      local _, status, err = run(("return { jobs = { a = { %s, main = print } } }"):format(case[1]))
      assert.are.equal(1, status)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end
    local _, status, err = run([[
      return { options = { qd = require("jdbfs.workload").int(1) },
        jobs = { a = { main = print } } }]])
    assert.are.equal(2, status)
    assert.matches("option qd is one of run", err)
  end)

  it("opens, renames and removes files of its run, and reads any other", function()
    if support.on_wine then return pending("wine replaces no file that is open") end
    support.put(support.path("other"), ("x"):rep(4096))
    local d, status, err = run(([[
      return { setup = function(ctx)
        for _, name in ipairs { "a", "b" } do ctx:create(name, { size = 4096 }) end
        assert(ctx:open("a"):read(0))
        assert(ctx:open(%q):read(0))
        assert(ctx:rename("a", "b"))
        assert(ctx:open("b"):read(0))
        assert(not pcall(ctx.open, ctx, "a"))
        assert(not pcall(ctx.remove, ctx, "a"))
        assert(not pcall(ctx.new_buffer, ctx, 2 ^ 52))
        assert(ctx:remove("b"))
        ctx:warn("said so")
      end,
      jobs = { one = { n = 1, main = function(ctx)
        if not ctx:running() then error("over") end
        ctx:stop()
      end } } }]]):format(support.path("other")))
    assert.are.equal(0, status, err)
    assert.matches("said so", table.concat(d.warnings, " "))
    assert.are.equal("", left())
  end)
end)

describe("an open loop", function()
  setup()

  local SLEEPER = [[return { file = false, jobs = { a = { main = function(ctx)
    ctx:timed("work", function() ctx:sleep(%s) return true end) end } } }]]

  it("keeps its rate and says so", function()
    local d = run(SLEEPER:format("0.001"), "--rate", "200", "--arrival", "const", "--time", "1s",
      "--qd", "8")
    local job = d.jobs[1]
    -- On a busy machine the end comes late, with what was due by then.
    assert.is_true(math.abs(job.offered - 200) < 40, job.offered)
    assert.is_true(math.abs(job.achieved - 200) < 40, job.achieved)
    assert.is_true(job.sustained)
  end)

  it("that is overloaded tells it, counts the wait, and ends in time", function()
    -- Two coroutines of 10 ms serve 200 a second; 600 arrive.
    local d, status = run(SLEEPER:format("0.01"), "--rate", "600", "--time", "1s", "--arrival",
      "const", "--threshold", "sustained", "--threshold", "a.work.p50.service < 200ms")
    local job = d.jobs[1]
    assert.are.equal(3, status)
    assert.is_false(job.sustained)
    assert.is_true(job.late_at_end > 300 and job.late_at_end <= job.backlog_max, job.late_at_end)
    assert.is_true(job.achieved < 260, job.achieved)
    assert.is_true(job.elapsed_s < 5)
    assert.is_false(d.thresholds[1].ok)
    assert.is_true(d.thresholds[2].ok)
    local work = named(job.ops, "work")
    assert.is_true(distribution.percentile(work.response, 50) > 200e6)
    assert.is_true(distribution.percentile(work.service, 50) < 200e6)
  end)

  it("tells each iteration when it was due", function()
    local d, _, err = run([[return { file = false, jobs = { a = { n = 1, main = function(ctx, s)
      local now = ctx:now() * 1e9
      if not ctx.due or ctx.due > now + 1e6 then error("due " .. tostring(ctx.due)) end
    end } } }]], "--rate", "500")
    assert.are.equal("", err)
    assert.are.equal(0, d.exit)
  end)
end)

describe("the measured time", function()
  setup()

  it("leaves the warm-up out of every figure and shows it in the series", function()
    local d = run([[return { file = false, jobs = { a = { n = 1, main = function(ctx)
      ctx:timed("work", function() ctx:sleep(0.005) return true end) ctx:count("n") end } } }]],
      "--warmup", "250ms", "--time", "300ms", "--interval", "100ms")
    local kept, warm = 0, 0
    for _, row in ipairs(d.intervals) do
      if row.warmup then warm = warm + row.n else kept = kept + row.n end
    end
    local job = d.jobs[1]
    assert.are.equal(kept, job.ops[1].n)
    assert.are.equal(kept, job.ops[1].response.n)
    assert.is_true(warm > 10)
    assert.is_true(job.elapsed_s >= 0.3 and job.elapsed_s < 10)
    assert.is_true(math.abs(job.counters[1].n - kept) <= 2)
  end)

  it("ends the warm-up when the rate is steady, and tells when it never is", function()
    local steady = [[return { file = false, jobs = { a = { n = 1, main = function(ctx)
      ctx:timed("work", function() ctx:sleep(0.002) return true end) end } } }]]
    local d = run(steady, "--steady", "90%/3s", "--interval", "1s", "--warmup-max", "60s")
    assert.are.equal(0, #d.warnings)
    local rising = [[return { file = false, jobs = { a = { n = 1, main = function(ctx)
      ctx:sleep(0.01 / (1 + ctx.iter / 3)) ctx.file = nil end } } }]]
    local status
    d, status = run(rising, "--steady", "1%/3s", "--interval", "50ms", "--warmup-max", "400ms",
      "--require-steady")
    assert.are.equal(3, status)
    assert.matches("not steady", d.warnings[1])
    local refused, why
    refused, status, why = run(rising, "--steady", "1%/3s", "--interval", "1001ms")
    assert.is_nil(refused)
    assert.are.equal(2, status)
    assert.matches("looks at three intervals at least", why)
  end)

  it("ends early when a threshold with abort is broken", function()
    local d, status = run([[return { file = false, jobs = { a = { n = 1, main = function(ctx)
      ctx:timed("work", function() ctx:sleep(0.02) return true end) end } } }]], "--time", "20s",
      "--interval", "100ms", "--threshold", "work.max < 1ms abort")
    assert.are.equal(3, status)
    assert.is_true(d.jobs[1].elapsed_s < 10)
  end)

  it("counts as batches what was handed over, not the waits for the next arrival", function()
    local d = run(nil, "randread", "--rate", "200", "--time", "300ms", "--warmup", "0s")
    assert.is_true(d.trust.submit_batch >= 1 and d.trust.submit_batch < 3, d.trust.submit_batch)
  end)

  it("goes to the kernel in batches as --batch says", function()
    local d = run(nil, "randread", "--qd", "32", "--batch", "4:4", "--time", "200ms")
    assert.are.equal("4:4", d.plan.batch)
    if d.env.backend ~= "io_uring" then return end
    assert.is_true(d.trust.submit_batch <= 4.01, d.trust.submit_batch)
    d = run(nil, "randread", "--qd", "32", "--batch", "32:16", "--time", "200ms")
    assert.is_true(d.trust.submit_batch > 4.5, d.trust.submit_batch)
    d = run(nil, "randread", "--qd", "32", "--time", "200ms")
    assert.is_nil(d.plan.batch)
    assert.is_true(d.trust.submit_batch > 4.5, d.trust.submit_batch)
  end)

  it("ends when enough was written", function()
    local d, status = run(nil, "randwrite", "--time", "30s", "--max-written", "256k",
      "--warmup", "0s")
    assert.are.equal(0, status)
    assert.is_true(d.jobs[1].elapsed_s < 20)
    assert.matches("max%-written", table.concat(d.warnings, " "))
  end)
end)

describe("files that jdbfs did not make", function()
  setup()

  local MINE = ("mine"):rep(32768)

  it("are read, and never written without --overwrite", function()
    local path = support.path("data")
    support.put(path, MINE)
    local d, status, err = run(nil, "randread", "--file", path, "--size", "64k")
    assert.are.equal(0, status, err)
    assert.are.equal(path, d.plan.target)
    for _, name in ipairs({ "randwrite", "mixed", "seqwrite", "pages", "matrix" }) do
      local _, refused, why = run(nil, name, "--file", path, "--size", "64k", "--bs", "4k")
      assert.are.equal(2, refused, name)
      assert.is_truthy(why:find("--overwrite", 1, true), name)
    end
    support.holds(path, MINE)
    assert.are.equal("", left())
    local _, allowed = run(nil, "randwrite", "--file", path, "--size", "64k", "--overwrite")
    assert.are.equal(0, allowed)
    assert.are_not.equal(MINE, support.get(path))
    assert.are.equal(#MINE, #support.get(path))
  end)

  it("may not be directories or too small", function()
    local path = support.path("small")
    support.put(path, "x")
    local _, status = run(nil, "randread", "--file", dir)
    assert.are.equal(2, status)
    _, status = run(nil, "randread", "--file", path)
    assert.are.equal(2, status)
    support.holds(path, "x")
    local exit, _, err = command("run", "randread", "--file", path, "--dir", dir, "--quiet")
    assert.are.equal(2, exit)
    assert.matches("does not hold a block", err)
    _, status, err = run(nil, "randread", "--file", path .. "/x")
    assert.are.equal(1, status)
    assert.matches("ENOTDIR", err)
    _, status, err = run(nil, "matrix", "--size", "64k")
    assert.are.equal(1, status)
    assert.matches("needs a target of 128 KiB", err)
  end)

  it("are left alone while another process has them locked", function()
    local path = support.path("kept")
    assert.are.equal(0, select(2, run(nil, "randwrite", "--file", path, "--size", "64k", "--keep")))
    local file = assert(jdbfs.open_rw(path, { direct = "off", lock = "exclusive" }))
    local _, status, err = run(nil, "randwrite", "--file", path, "--size", "64k", "--overwrite")
    assert.are.equal(2, status, err)
    assert.matches("lock", err)
    assert(file:close())
  end)

  it("are those kept before and used again", function()
    local path = support.path("kept")
    local _, status, err = run(nil, "randwrite", "--file", path, "--size", "128k", "--keep")
    assert.are.equal(0, status, err)
    assert.are.equal(131072, #support.get(path))
    assert.is_truthy(support.get(path .. ".jdbfs"))
    _, status, err = run(nil, "randwrite", "--file", path, "--size", "128k", "--keep")
    assert.are.equal(0, status, err)
    -- Another file of that name is not ours, mark or no mark.
    assert(os.remove(path))
    support.put(path, MINE)
    _, status = run(nil, "randwrite", "--file", path, "--size", "64k")
    assert.are.equal(2, status)
    support.holds(path, MINE)
  end)

  it("are made and removed again by --file without --keep", function()
    local path = support.path("new")
    local _, status = run(nil, "randwrite", "--file", path, "--size", "128k")
    assert.are.equal(0, status)
    assert.is_nil(support.get(path))
  end)

  it("stay outside of what a script may create", function()
    for _, name in ipairs({ "../x", "/tmp/x", "a/b", "", "." }) do
      local _, status, err = run(("return { setup = function(ctx) ctx:create(%q) end,"
        .. " jobs = { a = { main = print } } }"):format(name))
      assert.are.equal(1, status, name)
      assert.is_truthy(err:find("plain file name", 1, true), err)
    end
  end)
end)

describe("a block device", function()
  setup()

  local device

  after_each(function()
    if device then support.sh("losetup -d " .. device) end
    device = nil
  end)

  it("is written only by its exact path, unused, without a signature", function()
    local why = support.lacks("root", "losetup", "mkfs.ext4", "truncate", "mount")
    if why then return pending(why) end
    local image, mnt = support.path("image"), support.path("mnt")
    assert(jdbfs.mkdir(mnt))
    local status, out = support.sh(("truncate -s 8M %s && losetup -f --show %s"):format(
      support.quote(image), support.quote(image)))
    if status ~= 0 then return pending("no loop devices here: " .. out) end
    device = out:match("/dev/%S+")
    local function try(...)
      local _, code, err = run(nil, "randwrite", "--file", device, "--size", "1m", ...)
      return code, err
    end
    local _, read = run(nil, "randread", "--file", device, "--size", "1m")
    assert.are.equal(0, read)
    assert.are.equal(2, (try()))
    assert.are.equal(2, (try("--overwrite")))
    assert.are.equal(2, (try("--allow-device", "/dev/null")))
    assert.are.equal(("\0"):rep(1048576), support.get(image):sub(1, 1048576))
    assert.are.equal(0, (try("--allow-device", device)))
    assert.are.equal(0, (support.sh("mkfs.ext4 -q -F " .. device)))
    local code, err = try("--allow-device", device)
    assert.are.equal(2, code)
    assert.is_truthy(err:find("ext4", 1, true), err)
    assert.are.equal(0, (support.sh("mount " .. device .. " " .. support.quote(mnt))))
    code, err = try("--allow-device", device, "--overwrite")
    support.sh("umount " .. support.quote(mnt))
    assert.are.equal(2, code)
    assert.is_truthy(err:find("mounted", 1, true), err)
    assert.are.equal(0, (try("--allow-device", device, "--overwrite")))
  end)
end)

describe("replay", function()
  setup()

  local function replay(trace, ...)
    local path = support.path("trace")
    support.put(path, trace)
    local args = { "run", "replay", "--trace", path, "--dir", dir, "--quiet", "--json", "-", ... }
    local status, out, err = command(unpack(args))
    return out ~= "" and result.decode(out) or nil, status, err
  end

  it("does what a CSV says, at its times", function()
    local lines = { "t_us,op,offset,length,stream" }
    for i = 0, 199 do
      lines[#lines + 1] = ("%d,%s,%d,4096,%s"):format(i * 1000, i % 4 == 0 and "w" or "r",
        i % 16 * 4096, i % 3)
    end
    lines[#lines + 1] = "200000,fdatasync,0,0,0"
    local d, status, err = replay(table.concat(lines, "\n"))
    assert.are.equal(0, status, err)
    local job = d.jobs[1]
    assert.are.equal(3, job.n)
    assert.are.equal(50, named(job.ops, "write").n)
    assert.are.equal(150, named(job.ops, "read").n)
    assert.are.equal(1, named(job.ops, "fdatasync").n)
    assert.are.equal(201, named(job.ops, "schedule_error").n)
    assert.is_true(job.elapsed_s >= 0.2 and job.elapsed_s < 5, job.elapsed_s)
    assert.are.equal(16 * 4096, d.plan.size)
    d = replay(table.concat(lines, "\n"), "--asap")
    assert.are.equal(50, named(d.jobs[1].ops, "write").n)
    assert.is_nil(named(d.jobs[1].ops, "schedule_error")) -- nothing has a time to be late for
    d = replay(table.concat(lines, "\n"), "--speed", "0.5x")
    assert.is_true(d.jobs[1].elapsed_s >= 0.4)
  end)

  it("reads iologs of fio, versions 2 and 3", function()
    local d, status = replay("fio version 2 iolog\nf add\nf open\nf read 0 4096\nf wait 20000 0\n"
      .. "f write 4096 8192\nf datasync 0 0\nf close\n")
    assert.are.equal(0, status)
    assert.are.equal(8192, named(d.jobs[1].ops, "write").bytes)
    assert.is_true(d.jobs[1].elapsed_s >= 0.02)
    d, status = replay("fio version 3 iolog\n10 f add\n11 f open\n1000 f read 0 4096\n"
      .. "30000 f read 4096 4096\n30001 g write 0 512\n40000 f close\n")
    assert.are.equal(0, status)
    assert.are.equal(2, d.jobs[1].n)
    assert.are.equal(2, named(d.jobs[1].ops, "read").n)
  end)

  it("reads what blkparse prints: what processes queued", function()
    if support.on_wine then return pending("wine makes no holes, and the trace trims") end
    local d, status, err = replay(table.concat({
      "  8,0    3        1    10.000000000   697  Q  WS 8 + 8 [jbd2]",
      "  8,0    3        2    10.000001829   697  G  WS 8 + 8 [jbd2]",
      "  8,0    3        3    10.001000000   698  Q  RA 16 + 16 [reader]",
      "  8,0    3        4    10.002000000   698  C  RA 16 + 16 [0]",
      "  8,0    3        5    10.030000000   697  Q FWFS 24 + 8 [jbd2]",
      "  8,0    3        6    10.030000100   697  Q FWS [jbd2]",
      "  8,0    3        7    10.030000200   697  Q DS 64 + 8 [jbd2]",
      "  8,0    3        0    10.030000300     0  m   N cfq697 insert_request",
      "CPU3 (sda):", " Reads Queued:           1,        8KiB" }, "\n"))
    assert.are.equal(0, status, err)
    local job = d.jobs[1]
    assert.are.equal(2, job.n)
    assert.are.equal(8192, named(job.ops, "read").bytes)
    assert.are.equal(1, named(job.ops, "write").n)
    assert.are.equal(1, named(job.ops, "write_sync").n)
    assert.are.equal(2, named(job.ops, "fdatasync").n)
    assert.are.equal(1, named(job.ops, "trim").n)
    assert.are.equal(72 * 512, d.plan.size)
    assert.is_true(job.elapsed_s >= 0.03 and job.elapsed_s < 5, job.elapsed_s)
    assert.are.equal(0, d.plan.warmup_s)
  end)

  it("reads records of blktrace in either byte order, and names one that is cut short", function()
    if support.on_wine then return pending("wine makes no holes, and the trace trims") end
    local QUEUED, ISSUED = 1, 7
    local READ, WRITE, FLUSH, NOTIFY, DISCARD, FUA = 16, 17, 18, 26, 29, 31
    local function record(big, more, ns, sector, bytes, pid, kind, ...)
      local action = kind
      for _, bit in ipairs({ ... }) do action = action + 2 ^ bit end
      local text = ""
      for _, field in ipairs({ { 0x65617407, 4 }, { 0, 4 }, { ns, 8 }, { sector, 8 },
        { bytes, 4 }, { action, 4 }, { pid, 4 }, { 0, 4 }, { 0, 4 }, { 0, 2 }, { more, 2 } }) do
        local value, word = field[1], ""
        for _ = 1, field[2] do
          local byte = string.char(value % 256)
          word = big and byte .. word or word .. byte
          value = math.floor(value / 256)
        end
        text = text .. word
      end
      return text .. ("x"):rep(more)
    end
    for _, big in ipairs({ false, true }) do
      local function r(...) return record(big, 0, ...) end
      local text = record(big, 5, 9e9, 0, 0, 7, 0, NOTIFY) .. r(10e9, 8, 4096, 697, QUEUED, WRITE)
        .. r(10.0001e9, 8, 4096, 697, ISSUED, WRITE) .. r(10.001e9, 16, 8192, 698, QUEUED, READ)
        .. r(10.03e9, 24, 4096, 697, QUEUED, WRITE, FLUSH, FUA)
        .. r(10.03e9, 0, 0, 697, QUEUED, FLUSH)
        .. r(10.03e9, 64, 4096, 697, QUEUED, WRITE, DISCARD)
      local _
      local d, status, err = replay(text)
      assert.are.equal(0, status, err)
      local job = d.jobs[1]
      assert.are.equal(2, job.n)
      assert.are.equal(8192, named(job.ops, "read").bytes)
      for name, n in pairs({ write = 1, write_sync = 1, fdatasync = 2, trim = 1 }) do
        assert.are.equal(n, named(job.ops, name).n, name)
      end
      assert.are.equal(72 * 512, d.plan.size)
      for ending, reason in pairs({ ["\7tae"] = ":8: is no whole record of blktrace",
        [record(big, 3, 0, 0, 0, 1, QUEUED):sub(1, -2)] = ":8: is no whole record of blktrace",
        [r(0, 2 ^ 63, 512, 1, QUEUED, READ)] = ":8: offset and length are beyond 8 PiB" }) do
        _, status, err = replay(text .. ending)
        assert.are.equal(1, status)
        assert.is_truthy(err:find(reason, 1, true), err)
      end
    end
  end)

  it("names the file and the line that cannot be read", function()
    for _, case in ipairs({
      { " 8,0 3 1 0.5 697 Q R 8 + 8 [a]\n 8,0 3 2 0.6 697 Q R 8 [a]\n", "trace:2: has no sector" },
      { " 8,0 3 1 0.5 697 Q R 8 + 8 [a]\nrubbish\n", "trace:2: is no line of blkparse" },
      { "0,r,0,4096\nrubbish\n", "trace:2: " },
      { "0,r,1,4096\n", "trace:1: " },
      { ("9"):rep(400) .. ",r,0,4096\n", "trace:1: " }, -- a time that never comes
      { "0,r,9007199254740992,4096\n", "trace:1: offset and length are beyond" },
      { "0,x,0,4096\n", "trace:1: \"x\"" }, { "fio version 9 iolog\nf add\n", "trace:1: " },
      { "fio version 2 iolog\nf jump 0 4096\n", "trace:2: " }, { "", "no operation" } }) do
      local _, status, err = replay(case[1])
      assert.are.equal(1, status, case[1])
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.are.equal("", left())
    end
    local status, _, err = command("run", "replay", "--dir", dir)
    assert.are.equal(2, status)
    assert.matches("%-%-trace", err)
  end)
end)

describe("the workloads of a database", function()
  setup()

  it("run to their end: syncs, pages, lsm, matrix", function()
    local d = run(nil, "syncs", "--length", "64k", "--rounds", "5")
    assert.are.equal(0, d.exit)
    assert.are.equal(5, notes_of(d).rounds)
    for _, way in ipairs({ "dsync", "osync", "linked", "fdatasync", "fsync" }) do
      assert.are.equal(3, select(2, notes_of(d)[way]:gsub("  %d+/s %[%d+, %d+%]", "")))
    end
    d = run(nil, "pages", "--cache", "256k", "--sessions", "8", "--splits", "20", "--checkpoint",
      "50ms", "--size", "2m", "--time", "400ms")
    assert.are.equal(0, d.exit)
    assert.matches("%%$", notes_of(d)["hit rate"])
    assert.is_true(named(d.jobs[1].ops, "update").n > 0 and named(d.jobs[1].ops, "lookup").n > 0)
    d = run(nil, "lsm", "--data", "4m", "--memtable", "256k", "--put-rate", "50000", "--trigger",
      "2", "--stop", "3", "--time", "800ms")
    assert.are.equal(0, d.exit)
    assert.is_true(notes_of(d).compactions > 0)
    assert.is_true(named(d.jobs[1].ops, "read").n > 0)
    d = run(nil, "matrix", "--steps", "2", "--size", "1m", "--time", "600ms")
    assert.are.equal(0, d.exit)
    assert.is_truthy(notes_of(d)["reads alone"])
    assert.matches("^ +0 %% +%d+ %%", notes_of(d)["and of the writes"])
    assert.are.equal("", left())
    assert.is_nil(core.signalled())
  end)
end)

describe("ab", function()
  setup()

  it("runs two workloads in pairs and compares them", function()
    local status, out, err = command("ab", "-n", "3", "randread --qd 1", "randread --qd 4", "--dir",
      dir, "--size", "1m", "--time", "100ms", "--warmup", "0s")
    assert.are.equal(0, status, err)
    assert.matches("3 %+ 3 runs", out)
    assert.matches("read ops/s", out)
    assert.are.equal("", left())
    for _, words in ipairs({ { "randread" }, { "-n", "0", "randread", "randread" }, {},
      { "randread", "nothing" }, { "--qd", "1" }, { "randread", "randread", "--repeat", "2" },
      { "randread --dir " .. dir .. "/none", "nothing" } }) do -- refused before the first ran
      status = command("ab", unpack(words))
      assert.are.equal(2, status)
    end
    local err2
    status, out, err2 = command("ab", "-n", "1", "randread --file " .. dir .. "/x/y", "randread",
      "--dir", dir, "--size", "64k")
    assert.are.equal(1, status, out)
    assert.matches("ended by a run that failed", err2)
  end)
end)

describe("--verify", function()
  -- The bytes of a seed are kept once they are made: no leak.
  local kept = jdbfs.buffer(4096)
  stamp.write(kept, 0, 4096, { file = 1, page = 1, generation = 1, seed = 1 })

  setup()

  -- Reads pages 1 to 8 once; what `damage(raw, page, old)` did to them before is to be found. old:
  -- page 7 as it was before it was written again.
  local FAULTS = [[
    return { file = true,
      setup = function(ctx)
        local raw, page, old = ctx.file.inner.raw, ctx:new_buffer(4096), ctx:new_buffer(4096)
        assert(raw:read_at(old, 7 * 4096))
        assert(ctx.file:write(ctx:page(), 7 * 4096))
        local function damage(raw, page, old) %s end
        damage(raw, page, old)
      end,
      jobs = { one = { n = 1, main = function(ctx)
        if ctx.iter > 8 then return ctx:stop() end
        ctx.file:read(ctx.iter * 4096)
      end } } }]]

  it("stamps and checks pages that are drawn in one call, too", function()
    local two = "local p = ctx:filled() return ctx.file:write(p, ctx.rng:page(p.buffer))"
    local after = drawn(two, "--verify")
    assert.are.equal(after, drawn("return ctx.file:write_page()", "--verify"))
    assert.are_not.equal(after, drawn("return ctx.file:read_page()", "--verify"))
  end)

  it("finds nothing where nothing is wrong, with reads and writes of the same pages", function()
    for _, words in ipairs({ { "mixed" }, { "randwrite", "--sync", "dsync" },
      { "mixed", "--bs", "8k", "--dist", "zipf:1.2" },
      { "seqwrite", "seqread", "--bs", "16k" } }) do
      local d, status, err = run(nil, words[1], "--verify", "--size", "256k", unpack(words, 2))
      assert.are.equal(0, status, err)
      local notes = notes_of(d)
      assert.are.equal(0, notes["bad pages"])
      if words[1] == "mixed" then assert.is_true(notes["pages verified"] > 0) end
    end
  end)

  for name, damage in pairs({
    torn = "assert(raw:read_at(page, 7 * 4096)) page:copy(2048, old, 2048, 2048)"
      .. " assert(raw:write_at(page, 7 * 4096))",
    stale = "assert(raw:write_at(old, 7 * 4096))",
    zero = "page:fill(0) assert(raw:write_at(page, 3 * 4096))",
    foreign = "page:fill(1) assert(raw:write_at(page, 3 * 4096))",
    misdirected = "assert(raw:read_at(page, 2 * 4096)) assert(raw:write_at(page, 3 * 4096))",
    corrupt = "assert(raw:read_at(page, 3 * 4096)) page:u8(1000, 255 - page:u8(1000))"
      .. " assert(raw:write_at(page, 3 * 4096))",
  }) do
    it("names a page that is " .. name, function()
      local d, status, err = run(FAULTS:format(damage), "--verify", "--warmup", "0s", "--time",
        "30s")
      assert.are.equal(4, status, err)
      local page = (name == "torn" or name == "stale") and 7 or 3
      local told = table.concat(d.warnings, "\n")
      assert.is_truthy(told:find(("verify: page %d is %s"):format(page, name), 1, true), told)
      assert.are.equal(1, notes_of(d)["bad pages"])
    end)
  end

  it("keeps a log with --state, by which the file is verified after a kill", function()
    local file, state = support.path("file"), support.path("state")
    support.process({ "lua/bin/jdbfs", "run", "randwrite", "--verify", "--file", file, "--keep",
      "--state", state, "--sync", "fdatasync", "--size", "256k", "--qd", "8", "--time", "60s",
      "--warmup", "0s", "--quiet" }, { stop = { "KILL", 2 } })
    local status, out, err = command("verify", file, "--state", state)
    assert.are.equal(0, status, out .. err)
    assert.matches("ok", out)
    local raw = assert(jdbfs.open_rw(file))
    local page = jdbfs.buffer(4096)
    for i = 0, 63 do assert(raw:write_at(page, i * 4096)) end
    assert(raw:close())
    assert.are.equal(4, (command("verify", file, "--state", state)))
  end)

  it("blames the script's line for a wrong argument, too", function()
    for _, call in ipairs({ "read('x')", "write()", "write_sync(0)" }) do
      local _, status, err = run("return function(ctx)\nctx.file:" .. call .. "\nend", "--verify")
      assert.matches("^1 jdbfs: [^\n]*w%.lua:2: [^\n]*\n$", status .. " " .. err)
    end
  end)

  it("does not write to files it knows nothing about", function()
    local file = support.path("file")
    assert.are.equal(0, select(2, run(nil, "randwrite", "--file", file, "--keep")))
    assert.are.equal(2, select(2, run(nil, "randwrite", "--file", file, "--verify")))
    assert.are.equal(2, select(2, run(nil, "randwrite", "--verify", "--state", support.path("s"))))
    -- It reads them: what has no stamp is not whole.
    local _, status, err = run(nil, "randread", "--file", file, "--verify")
    assert.are.equal(4, status, err)
    support.put(support.path("s"), "")
    _, status, err = run(nil, "randwrite", "--verify", "--sync", "fdatasync", "--state",
      support.path("s"))
    assert.are.equal(2, status)
    assert.matches("it exists already", err)
  end)

  it("reads no state but its own", function()
    local file, state = support.path("file"), support.path("state")
    support.put(file, ("x"):rep(4096))
    for _, case in ipairs({
      { {}, "is empty" },
      { { "jdbfs.state/1 1 4096 1 none atomic" }, "no log of acknowledged writes" },
      { { "anything" }, "no log of acknowledged writes" },
      { { "jdbfs.state/1 1 4096 1 512 torn", "1 2 3" }, "record 2 is no acknowledged write" },
    }) do
      local log = assert(jdbfs.log(state))
      for _, record in ipairs(case[1]) do assert(log:append(record)) end
      assert(log:close())
      local status, _, err = command("verify", file, "--state", state)
      assert.is_true(status == 1 or status == 2)
      assert.is_truthy(err:find(case[2], 1, true), err)
      support.sh("rm -rf " .. support.quote(state))
    end
  end)
end)
