-- The same promises under every host: run by spec/54-hosts_spec.lua, through one driver a host.
--
-- A driver gives a table: name; dir, an empty directory; go(f), starts a light thread; sleep(s),
-- the host's own, in a light thread; adapter, a fresh adapter table; stackful: a plain generator
-- may do I/O; kill(handle), ends a light thread that waits, where the host can do that;
-- resume(handle), where anybody may resume anything.
--
-- `check.begin(h)` chooses the host, before its loop runs. `check.run(h, tell)` runs in a light
-- thread and calls tell(name, nil or what is wrong) for each promise. `check.leave(h)` starts
-- operations that nobody waits for, just before the process ends.

local jdbfs = require "jdbfs"
local core = require "jdbfs.core"

local PAGE = jdbfs.PAGE_SIZE
local check, promises = {}, {}
local wakes = 0

local function promise(name, f) promises[#promises + 1] = { name, f } end

local function same(expected, got, what)
  if expected == got then return end
  error(("%s: %s, not %s"):format(what or "value", tostring(got), tostring(expected)), 2)
end

-- Plain 5.1 cannot suspend a light thread across pcall: there the first failure is the last word.
local function attempt(f, ...)
  if core.YIELDS_ACROSS_PCALL then return pcall(f, ...) end
  f(...)
  return true
end

local function wait(h, what, condition)
  local give_up = jdbfs.now() + 10
  while not condition() do
    if jdbfs.now() > give_up then error("waited in vain: " .. what, 2) end
    h.sleep(0.002)
  end
end

-- Runs all of them, each in a light thread; an error in one is raised here.
local function all(h, list)
  local left, failure = #list, nil
  for _, f in ipairs(list) do
    h.go(function()
      local ok, why = attempt(f)
      if not ok then failure = failure or why end
      left = left - 1
    end)
  end
  wait(h, "light threads", function() return left == 0 end)
  if failure then error(failure, 0) end
end

local function numbered_file(h, pages)
  local f = assert(jdbfs.create(h.dir .. "/numbered", { direct = "prefer" }))
  local b = jdbfs.buffer(PAGE)
  for i = 0, pages - 1 do
    b:fill(i % 251)
    assert(f:write_at(b, i * PAGE))
  end
  return f
end

local function collect()
  if rawget(_G, "jit") then require("jit").flush() end
  for _ = 1, 3 do collectgarbage() end
end

-- ---- one by one --------------------------------------------------------------------------------

promise("a wait suspends the light thread, and the others go on", function(h)
  local f, order = numbered_file(h, 2), {}
  -- Which of the two begins is the host's business.
  all(h, {
    function()
      order[#order + 1] = "a"
      assert(f:read_at(jdbfs.buffer(PAGE), 0))
      order[#order + 1] = "done"
    end,
    function()
      order[#order + 1] = "b"
      assert(f:read_at(jdbfs.buffer(PAGE), PAGE))
      order[#order + 1] = "done"
    end,
  })
  local words = table.concat(order, " ")
  assert(words == "a b done done" or words == "b a done done", words)
  assert(f:close())
end)

promise("many light threads are in flight at once, and each gets its own data", function(h)
  local f, most, list = numbered_file(h, 64), 0, {}
  for i = 1, 32 do
    list[i] = function()
      local b = jdbfs.buffer(PAGE)
      for k = 0, 9 do
        local page = (i * 7 + k) % 64
        same(PAGE, f:read_at(b, page * PAGE))
        same(page, b:u8(PAGE - 1), "data")
        local s = jdbfs.stats()
        most = math.max(most, s.in_flight + s.waiting)
      end
    end
  end
  all(h, list)
  assert(most >= 8, "at most " .. most .. " in flight")
  assert(f:close())
end)

promise("every kind of call works: files, names, lists, strings", function(h)
  local path = h.dir .. "/kinds"
  local f = assert(jdbfs.create(path, { direct = "prefer" }))
  local a, b = jdbfs.buffer(PAGE), jdbfs.buffer(PAGE)
  a:fill(1)
  b:fill(2)
  same(2, f:write_many({ { a, 0 }, { b, PAGE } }))
  same(true, f:sync_all())
  same(2 * PAGE, f:size())
  same("\1\2", f:read(PAGE - 1, 2))
  same(2 * PAGE, f:stat().size)
  same(path, f:info().path)
  same(true, f:truncate(PAGE))
  same(true, f:close())
  same(true, f:close())
  same(true, jdbfs.rename(path, path .. "2"))
  same(false, jdbfs.exists(path))
  same(PAGE, jdbfs.size(path .. "2"))
  same(true, jdbfs.atomic_write(path, "text"))
  local free, total = jdbfs.space(h.dir)
  assert(free <= total)
  same(true, jdbfs.mkdir(h.dir .. "/sub/deep"))
  same(true, jdbfs.remove(path .. "2"))
  same(true, jdbfs.remove(path))
end)

promise("failures are nil, message, err", function(h)
  local f, message, err = jdbfs.open(h.dir .. "/missing")
  same(nil, f)
  same("string", type(message))
  same("ENOENT", err.name)
  f = numbered_file(h, 1)
  local _
  _, _, err = f:read_at(jdbfs.buffer(2 * PAGE), 0)
  same("ShortRead", err.kind)
  same(PAGE, err.actual)
  _, _, err = f:read_at(jdbfs.buffer(PAGE), 0, 0, 2 * PAGE)
  same("Overflow", err.kind)
  assert(f:close())
  _, _, err = f:size()
  same("Closed", err.kind)
  same(false, pcall(f.read_at, f, "no buffer"))
end)

promise("a buffer in flight is busy for the others", function(h)
  local f, b, kinds = numbered_file(h, 2), jdbfs.buffer(PAGE), {}
  local function read()
    local n, _, err = f:read_at(b, 0)
    kinds[#kinds + 1] = n or err.kind
  end
  all(h, { read, read })
  assert(kinds[1] == "Busy" and kinds[2] == PAGE, kinds[1])
  assert(f:close())
end)

promise("sleep lets the others go on, and takes its time", function(h)
  local ticks, over = 0, false
  h.go(function()
    while not over do
      h.sleep(0.005)
      ticks = ticks + 1
    end
  end)
  local before = jdbfs.now()
  repeat
    local start = jdbfs.now()
    jdbfs.sleep(0.1)
    assert(jdbfs.now() - start >= 0.1, "slept for " .. jdbfs.now() - start)
  until ticks >= 3 or jdbfs.now() - before > 10
  over = true
  assert(ticks >= 3, "the others had " .. ticks .. " turns")
end)

promise("tasks run without anybody waiting for them, timers included", function(h)
  local f, got = numbered_file(h, 3), {}
  local task = jdbfs.spawn(function()
    jdbfs.sleep(0.02)
    got[#got + 1] = f:read_at(jdbfs.buffer(PAGE), 0)
    jdbfs.yield()
    got[#got + 1] = f:size()
  end)
  wait(h, "a task", function() return #got == 2 end)
  same(PAGE, got[1])
  same(3 * PAGE, got[2])
  same("done", task:status())
  assert(f:close())
end)

promise("a task's results, error and end are for whoever joins", function(h)
  same(7, (jdbfs.spawn(function() jdbfs.sleep(0.005) return 7 end):join()))
  local failed = jdbfs.spawn(function()
    jdbfs.sleep(0.001)
    error("boom", 0)
  end)
  local report, reported = h.adapter.report, nil
  h.adapter.report = function(message) reported = message end
  local _, _, err = failed:join()
  h.adapter.report = report
  same("Join", err.kind)
  assert(tostring(reported):find("boom", 1, true), tostring(reported))
  local sleeper = jdbfs.spawn(function() jdbfs.sleep(100) end)
  jdbfs.sleep(0.01)
  sleeper:cancel()
  _, _, err = sleeper:join()
  same("Cancelled", err.kind)
end)

promise("timeout ends what takes too long", function()
  local before = jdbfs.now()
  local _, _, err = jdbfs.timeout(0.03, function() jdbfs.sleep(60) end)
  same("Timeout", err.kind)
  assert(jdbfs.now() - before < 5)
  same("quick", (jdbfs.timeout(5, function() return "quick" end)))
end)

promise("semaphores, queues and events join light threads and tasks", function(h)
  local semaphore, inside, most = jdbfs.semaphore(2), 0, 0
  local list = {}
  for i = 1, 6 do
    list[i] = function()
      semaphore:acquire()
      inside = inside + 1
      most = math.max(most, inside)
      jdbfs.sleep(0.003)
      inside = inside - 1
      semaphore:release()
    end
  end
  all(h, list)
  same(2, most)
  local queue, event, got = jdbfs.queue(1), jdbfs.event(), {}
  jdbfs.spawn(function()
    for i = 1, 5 do queue:put(i) end
    event:set()
  end)
  for i = 1, 5 do got[i] = queue:take() end
  event:wait()
  same("1 2 3 4 5", table.concat(got, " "))
end)

promise("a generator made by jdbfs.wrap may do I/O", function(h)
  local f = numbered_file(h, 4)
  local pages = jdbfs.wrap(function()
    for i = 0, 3 do coroutine.yield(f:read(i * PAGE, 1):byte()) end
  end)
  local got = {}
  for i = 1, 4 do got[i] = pages() end
  same("0 1 2 3", table.concat(got, " "))
  if h.stackful then
    local plain = coroutine.wrap(function()
      for i = 0, 3 do coroutine.yield(f:read(i * PAGE, 1):byte()) end
    end)
    for i = 1, 4 do got[i] = plain() end
    same("0 1 2 3", table.concat(got, " "))
  end
  assert(f:close())
end)

-- Where any coroutine is taken for a light thread, it is suspended and its caller goes on.
promise("a plain generator that does I/O disturbs nobody", function(h)
  local f, got = numbered_file(h, 4), {}
  local generator = coroutine.wrap(function()
    for i = 1, 2 do
      got[i] = f:read(i * PAGE, 1):byte()
      coroutine.yield(got[i])
    end
  end)
  for i = 1, 2 do
    generator()
    same(3, f:read(3 * PAGE, 1):byte(), "another's result")
    wait(h, "the generator", function() return got[i] end)
    same(i, got[i])
  end
  assert(f:close())
end)

promise("a log shares its commits between light threads", function(h)
  local log, list = assert(jdbfs.log(h.dir .. "/log")), {}
  for i = 1, 24 do
    list[i] = function() assert(log:append("record " .. i)) end
  end
  all(h, list)
  local s = log:stats()
  same(24, s.records)
  assert(s.batches < 24, s.batches .. " batches")
  local cursor, n = log:records(), 0
  while cursor:next() do n = n + 1 end
  same(24, n)
  -- Where a for loop's iterator cannot wait, it works in place.
  for number, text in log:records(20) do
    n = number
    assert(text:find("^record %d+$"))
  end
  same(24, n)
  assert(log:close())
end)

promise("jdbfs.pcall catches what is raised behind a wait, and gives the results", function()
  local ok, first, second = jdbfs.pcall(function(...)
    jdbfs.sleep(0.001)
    return ...
  end, 1, 2)
  same("true 1 2", ("%s %s %s"):format(tostring(ok), tostring(first), tostring(second)))
  local why
  ok, why = jdbfs.pcall(function()
    jdbfs.sleep(0.001)
    error("on purpose", 0)
  end)
  same("false on purpose", ("%s %s"):format(tostring(ok), tostring(why)))
  ok, why = jdbfs.pcall(jdbfs.timeout, 5, function() error("in a task", 0) end)
  same("false", tostring(ok))
  assert(tostring(why):find("in a task", 1, true), why)
end)

promise("streams write behind and read ahead", function(h)
  local f = assert(jdbfs.create(h.dir .. "/stream", { direct = "prefer" }))
  local w = assert(jdbfs.writer(f, { block = PAGE, depth = 3 }))
  for i = 1, 20 do assert(w:write(("%99d"):format(i))) end
  assert(w:close())
  local r = assert(jdbfs.reader(f, { block = PAGE, depth = 3 }))
  for i = 1, 20 do same(("%99d"):format(i), r:read(99)) end
  same(nil, (r:read(1)))
  assert(r:close())
  assert(f:close())
end)

promise("a killed light thread leaves nothing, and nobody gets its result", function(h)
  if not h.kill then return end
  collect()
  local before = jdbfs.stats()
  local f, got = numbered_file(h, 8), 0
  local list = {}
  for i = 1, 8 do
    list[i] = h.go(function()
      for k = 1, 1000 do
        local b = jdbfs.buffer(PAGE)
        assert(f:read_at(b, (k % 8) * PAGE))
        if k > 500 then got = got + 1 end
      end
    end)
  end
  for i = 1, 8 do h.kill(list[i]) end
  for page = 0, 7 do same(page, f:read(page * PAGE, 1):byte()) end
  assert(f:close())
  wait(h, "operations of the dead", function()
    for i in pairs(list) do list[i] = nil end
    f = nil
    collect()
    local s = jdbfs.stats()
    return jdbfs.pending() == 0 and s.buffers <= before.buffers and s.files <= before.files
  end)
  same(0, got)
end)

promise("a killed waiter swallows no permit", function(h)
  if not h.kill then return end
  local semaphore = jdbfs.semaphore(0)
  local first = h.go(function() semaphore:acquire() end)
  local through = false
  h.go(function()
    semaphore:acquire()
    through = true
  end)
  h.sleep(0.01)
  h.kill(first)
  h.sleep(0.01)
  semaphore:release()
  wait(h, "the second waiter", function() return through end)
end)

promise("of waiters that were killed nothing is kept", function(h)
  if not h.kill then return end
  local event = jdbfs.event()
  local function killed(n)
    for _ = 1, n / 10 do
      local threads = {}
      for i = 1, 10 do threads[i] = h.go(function() event:wait() end) end
      h.sleep(0.001)
      for i = 1, 10 do h.kill(threads[i]) end
    end
    h.sleep(0.01)
    collect()
    return collectgarbage("count")
  end
  local before = killed(100)
  local kept = (killed(1000) - before) * 1024 / 1000
  assert(kept < 250, kept .. " bytes of each")
end)

promise("what a killed light thread had limited ends in time", function(h)
  if not h.kill then return end
  local event = jdbfs.event()
  local before = jdbfs.stats().tasks
  local thread = h.go(function() jdbfs.timeout(0.02, event.wait, event) end)
  h.sleep(0.001)
  h.kill(thread)
  wait(h, "its task", function() return jdbfs.stats().tasks <= before end)
end)

promise("a light thread resumed by hand waits on", function(h)
  if not h.resume then return end
  local f, got = numbered_file(h, 1), {}
  local before, woken = jdbfs.now(), nil
  local handle = h.go(function()
    got[1] = jdbfs.sleep(0.05)
    woken = jdbfs.now()
    got[2] = f:read_at(jdbfs.buffer(PAGE), 0)
  end)
  for _ = 1, 5 do
    h.resume(handle)
    h.sleep(0.002)
  end
  wait(h, "the thread", function() return #got == 2 end)
  assert(woken - before >= 0.05, "woken after " .. woken - before)
  same(true, got[1])
  same(PAGE, got[2])
  assert(f:close())
end)

promise("a wait that could not begin disturbs no later wait", function(h)
  local f, b = numbered_file(h, 1), jdbfs.buffer(PAGE)
  for _ = 1, 3 do
    pcall(f.read_at, f, b, 0) -- plain 5.1 cannot suspend across this
    local before = jdbfs.now()
    h.sleep(0.03)
    assert(jdbfs.now() - before >= 0.029, "woken after " .. jdbfs.now() - before)
  end
  wait(h, "the reads", function() return jdbfs.pending() == 0 end)
  same(PAGE, f:read_at(b, 0))
  assert(f:close())
end)

promise("one wake for each completion", function(h)
  local f, b = numbered_file(h, 1), jdbfs.buffer(PAGE)
  for _ = 1, 20 do assert(f:read_at(b, 0)) end
  local before = wakes
  for _ = 1, 300 do assert(f:read_at(b, 0)) end
  local per = (wakes - before) / 300
  assert(per >= 0.9 and per <= 1.1, per .. " wakes per read")
  before = wakes
  local list = {}
  for i = 1, 16 do
    list[i] = function()
      local own = jdbfs.buffer(PAGE)
      for _ = 1, 50 do assert(f:read_at(own, 0)) end
    end
  end
  all(h, list)
  per = (wakes - before) / 800
  assert(per <= 1.1, per .. " wakes per read with 16 at once")
  assert(f:close())
end)

promise("idle costs nothing", function(h)
  local parked = jdbfs.event()
  jdbfs.spawn(function() parked:wait() end)
  h.sleep(0.05)
  local cpu, before = os.clock(), wakes
  h.sleep(0.3)
  same(0, wakes - before, "wakes while idle")
  assert(os.clock() - cpu < 0.05, "busy for " .. os.clock() - cpu)
  parked:set()
end)

promise("waiting costs nothing", function(h)
  local cpu, before, done = os.clock(), wakes, false
  h.go(function()
    jdbfs.sleep(0.3)
    done = true
  end)
  h.sleep(0.31)
  wait(h, "the sleeper", function() return done end)
  assert(wakes - before <= 3, (wakes - before) .. " wakes for one timer")
  assert(os.clock() - cpu < 0.05, "busy for " .. os.clock() - cpu)
end)

promise("the host is chosen once", function(h)
  same(h.adapter.name, jdbfs.info().host)
  local _, message, err = jdbfs.host(h.name)
  same("Busy", err.kind)
  assert(message:find(h.adapter.name, 1, true), message)
end)

-- ---- all ---------------------------------------------------------------------------------------

check.names = {}
for i, entry in ipairs(promises) do check.names[i] = entry[1] end

function check.begin(h)
  local watch = h.adapter.watch
  h.adapter.watch = function(fd, on_ready, needed)
    return watch(fd, function(...)
      wakes = wakes + 1
      return on_ready(...)
    end, needed)
  end
  assert(jdbfs.host(h.adapter))
  h.jdbfs = jdbfs
end

-- Where nothing can be suspended a call completes before it returns.
function check.in_place(h)
  local f = assert(jdbfs.create(h.dir .. "/in_place", { direct = "prefer" }))
  same(PAGE, f:write_at(jdbfs.buffer(PAGE), 0))
  same(PAGE, f:size())
  assert(f:close())
end

function check.run(h, tell)
  for _, entry in ipairs(promises) do
    local ok, why = attempt(entry[2], h)
    tell(entry[1], not ok and tostring(why) or nil)
  end
end

function check.leave(h)
  local f = numbered_file(h, 8)
  for i = 1, 32 do
    h.go(function()
      local b = jdbfs.buffer(PAGE)
      while true do f:read_at(b, (i % 8) * PAGE) end
    end)
  end
  jdbfs.spawn(function() jdbfs.sleep(1000) end)
end

-- A driver's usual end: lines that the spec reads.
function check.print(name, wrong)
  local line = "pass\t" .. name
  if wrong then line = ("fail\t%s\t%s"):format(name, (wrong:gsub("\n", " | "))) end
  io.stdout:write(line, "\n")
  io.stdout:flush()
end

return check
