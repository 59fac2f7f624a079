-- nginx: phases, workers, requests that end early, reload and shutdown with operations in flight.
-- What is the same under every host is in 54.

local hosts = require("support_hosts")
local lfs = require("lfs")
local support = require("support")

local quote = support.quote

-- Shared by the handlers: a file of 64 pages, page i filled with byte i.
local INIT = [[
  lua_shared_dict seen 1m;
  init_by_lua_block {
    jdbfs = require "resty.jdbfs"
    dir = "%(dir)"
    PAGE = jdbfs.PAGE_SIZE
    %(init)
    -- Each worker opens the file for itself.
    local file
    function pages()
      if not file then file = assert(jdbfs.open(dir .. "/pages", { direct = "prefer" })) end
      return file
    end
    function read(page)
      local b = jdbfs.buffer(PAGE)
      assert(pages():read_at(b, page * PAGE))
      return b:u8(17)
    end
    function overlaps()
      local order, threads = {}, {}
      for i = 1, 2 do
        threads[i] = ngx.thread.spawn(function()
          order[#order + 1] = "start"
          read(i)
          order[#order + 1] = "done"
        end)
      end
      for i = 1, 2 do ngx.thread.wait(threads[i]) end
      return table.concat(order, " ") == "start start done done" and "overlaps" or "in place"
    end
  }
  %(more)
]]

local PLAIN = [[
  location = /read { content_by_lua_block { ngx.print(read(tonumber(ngx.var.arg_page))) } }
  location = /begun { content_by_lua_block { ngx.print(ngx.shared.seen:get("begun") or 0) } }
  location = /slow {
    content_by_lua_block {
      ngx.shared.seen:incr("begun", 1, 0)
      local sum = 0
      for i = 1, 40 do
        sum = sum + read(i)
        jdbfs.yield()
        jdbfs.sleep(0.01)
        ngx.sleep(0.01)
      end
      ngx.print(sum)
    }
  }
  location = /left {
    content_by_lua_block {
      jdbfs.sleep(0.05)
      for _ = 1, 3 do collectgarbage() end
      local s = jdbfs.stats()
      ngx.print(jdbfs.pending(), " ", s.tasks, " ", s.buffers, " ", s.abandoned)
    }
  }
]]
local SLOW_SUM = tostring(40 * 41 / 2)

local event -- the module by which nginx itself waits, while a test is about it

local function server_with(dir, o)
  local data = {}
  for i = 0, 63 do data[#data + 1] = string.char(i):rep(4096) end
  support.sh("mkdir " .. quote(dir .. "/files"))
  support.put(dir .. "/files/pages", table.concat(data))
  support.sh("chmod -R a+rwX " .. quote(dir))
  local http = INIT:gsub("%%%((%w+)%)", {
    dir = dir .. "/files", init = o.init or "", more = o.http or "",
  })
  return hosts.nginx(dir, {
    http = http, server = PLAIN .. (o.server or ""), workers = o.workers, event = event,
  })
end

-- Starts nginx, runs f(server, directory of the files), stops it: in time, without a complaint.
local function with(o, f)
  return hosts.directory(function(dir)
    local server = server_with(dir, o)
    local ok, why = pcall(f, server, dir .. "/files")
    local stopped, took = pcall(server.stop, server)
    server.logged = server:errors()
    if not ok then error(tostring(why) .. "\n" .. server:log():sub(-1500), 0) end
    assert(stopped, took)
    assert(took < 5, ("took %g s to stop"):format(took))
    if not o.complains then assert.are.equal("", server.logged) end
    return server
  end)
end

local function eventually(what, condition)
  for _ = 1, 250 * hosts.patience do
    if condition() then return end
    support.sh("sleep 0.02")
  end
  error("waited in vain: " .. what, 2)
end

-- Requests that were started in the background are with their handlers.
local function all_begun(server)
  eventually("requests begin", function()
    return tonumber((server:get("/begun"))) == server.started
  end)
end

local function nothing_left(server)
  local left
  eventually("what is left goes", function()
    left = server:get("/left")
    return left == "0 0 0 0"
  end)
end

local function all_pages(server)
  for page = 0, 63, 21 do assert.are.equal(tostring(page), (server:get("/read?page=" .. page))) end
end

local function descriptors(pid, of)
  local n = 0
  for fd in lfs.dir("/proc/" .. pid .. "/fd") do
    local target = lfs.symlinkattributes("/proc/" .. pid .. "/fd/" .. fd, "target")
    if target and target:find(of, 1, true) then n = n + 1 end
  end
  return n
end

-- Times that any of its threads was given a processor. The kernel's workers of its ring are left
-- out: the last of them looks every 5 s whether it is needed.
local function turns(pid)
  local n = 0
  for thread in lfs.dir("/proc/" .. pid .. "/task") do
    local path = ("/proc/%d/task/%s/"):format(pid, thread)
    local kernel = (support.get(path .. "comm") or ""):match("^iou%-wrk")
    local status = not kernel and support.get(path .. "status") or ""
    for count in status:gmatch("ctxt_switches:%s*(%d+)") do n = n + tonumber(count) end
  end
  return n
end

describe("nginx", function()
  local _, why = hosts.find_nginx()
  if not hosts.is_jit then why = "nginx has LuaJIT; the module of 5.1 is tried in 54" end
  local function nginx(name, body)
    it(name, function()
      if why then return pending(why) end
      body()
    end)
  end

  -- What the way of waking has a part in, with either.
  local function both(name, body)
    nginx(name, body)
    it(name .. " (nginx waits itself)", function()
      local module, no_module = hosts.nginx_event()
      if why or not module then return pending(why or no_module) end
      event = module
      local ok, wrong = pcall(body)
      event = nil
      if not ok then error(wrong, 0) end
    end)
  end

  both("overlaps in the phases that may wait", function()
    with({ server = [[
      location = /rewrite { rewrite_by_lua_block { ngx.print(overlaps()) ngx.exit(200) } }
      location = /access { access_by_lua_block { ngx.print(overlaps()) ngx.exit(200) } }
      location = /content { content_by_lua_block { ngx.print(overlaps()) } }
      location = /timer {
        content_by_lua_block {
          local result
          assert(ngx.timer.at(0, function() result = overlaps() end))
          while not result do ngx.sleep(0.01) end
          ngx.print(result)
        }
      }
    ]] }, function(server)
      for _, phase in ipairs({ "rewrite", "access", "content", "timer" }) do
        assert.are.equal("overlaps", (server:get("/" .. phase)), phase)
      end
    end)
  end)

  nginx("completes in place in the phases that may not", function()
    local server = with({
      init = [[assert(jdbfs.atomic_write(dir .. "/init", "init"))]],
      http = [[
        init_worker_by_lua_block { assert(jdbfs.atomic_write(dir .. "/init_worker", "worker")) }
        upstream behind {
          server 0.0.0.1;
          balancer_by_lua_block {
            assert(jdbfs.atomic_write(dir .. "/balancer", tostring(read(4))))
            ngx.exit(502)
          }
        }
      ]],
      server = [[
        location = /set { set_by_lua_block $x { return read(3) } return 200 $x; }
        location = /filters {
          header_filter_by_lua_block {
            ngx.header["X-Page"] = read(5)
            ngx.header.content_length = nil
          }
          body_filter_by_lua_block {
            if ngx.arg[1] ~= "" then ngx.arg[1] = ngx.arg[1] .. read(6) end
          }
          log_by_lua_block { assert(jdbfs.atomic_write(dir .. "/log", tostring(read(7)))) }
          content_by_lua_block { ngx.print("body ") }
        }
        location = /balancer { proxy_pass http://behind; }
      ]],
      complains = true,
    }, function(server, files)
      assert.are.equal("3", (server:get("/set")))
      local out = server:get("/filters", "-i")
      assert.matches("X%-Page: 5", out)
      assert.matches("body 6", out)
      server:get("/balancer")
      eventually("the log phase", function() return support.get(files .. "/log") end)
      assert.are.equal("7", support.get(files .. "/log"))
      assert.are.equal("4", support.get(files .. "/balancer"))
      assert.are.equal("init", support.get(files .. "/init"))
      assert.are.equal("worker", support.get(files .. "/init_worker"))
      all_pages(server)
    end)
    assert.is_nil(server.logged:match("%[alert%][^\n]*"))
  end)

  both("runs tasks in init, in the master, which has no timers", function()
    with({ init = [[
      assert(jdbfs.run(function()
        return jdbfs.spawn(jdbfs.atomic_write, dir .. "/init", "init"):join()
      end))
      local ok, why = pcall(jdbfs.spawn, jdbfs.now)
      assert(not ok and why == "in init nobody runs a task but jdbfs.run", why)
      jdbfs.step()
    ]] }, function(server, files)
      assert.are.equal("init", support.get(files .. "/init"))
      all_pages(server)
    end)
  end)

  -- The light threads that waited were neither woken nor polled for.
  both("serves while nginx has no timer, descriptor or connection for a dispatcher", function()
    with({ http = "lua_max_running_timers 1;", complains = true, server = [[
      location = /timers {
        content_by_lua_block {
          ngx.timer.at(0, function() ngx.sleep(1.5) end)
          ngx.sleep(0.05)
          for i = 1, 5 do jdbfs.sleep(0.01) end
          ngx.print(read(3))
        }
      }
    ]] }, function(server)
      assert.are.equal("3", (server:get("/timers")))
      all_pages(server)
    end)
    with({ complains = true, server = [[
      location = /descriptors {
        content_by_lua_block {
          local ffi = require "ffi"
          ffi.cdef "int getrlimit(int, size_t *); int setrlimit(int, const size_t *);"
          local limit, files = ffi.new("size_t[2]"), 7
          assert(jdbfs.pollfd()) -- makes the queue
          ffi.C.getrlimit(files, limit)
          local before = limit[0]
          limit[0] = 3
          ffi.C.setrlimit(files, limit)
          ngx.print(tostring(jdbfs.sleep(0.05)))
          limit[0] = before
          ffi.C.setrlimit(files, limit)
        }
      }
    ]] }, function(server)
      assert.are.equal("true", (server:get("/descriptors")))
      all_pages(server)
    end)
    with({ complains = true, server = [[
      location = /connections {
        content_by_lua_block {
          local sockets, ok = {}
          repeat
            local socket = ngx.socket.tcp()
            ok = socket:connect("unix:" .. ngx.var.arg_path)
            sockets[#sockets + 1] = socket
          until not ok
          ngx.print(read(3), " ", read(4))
          for _, socket in ipairs(sockets) do socket:close() end
        }
      }
    ]] }, function(server)
      assert.are.equal("3 4", (server:get("/connections?path=" .. server.socket)))
      all_pages(server)
    end)
  end)

  nginx("makes one queue a worker, after the fork, and none in the master", function()
    with({ workers = 2 }, function(server)
      for _ = 1, 5 do all_pages(server) end
      local backend = os.getenv("JDBFS_BACKEND")
      for _, pid in ipairs(server:workers()) do
        assert.is_true(descriptors(pid, "io_uring") <= 1)
      end
      assert.are.equal(0, descriptors(server.master, "io_uring"))
      if backend == "threads" then return end
      local rings = 0
      for _, pid in ipairs(server:workers()) do rings = rings + descriptors(pid, "io_uring") end
      assert.is_true(rings >= 1)
    end)
  end)

  nginx("refuses in a worker what its master opened, and works with files of its own", function()
    with({
      init = [[
        masters = assert(jdbfs.open(dir .. "/pages", { direct = "prefer" }))
        masters_buffer = jdbfs.buffer(4096)
      ]],
      server = [[
        location = /masters {
          content_by_lua_block {
            local _, _, err = masters:read_at(jdbfs.buffer(PAGE), 0)
            local _, _, err2 = pages():read_at(masters_buffer, 0)
            ngx.print(err.kind, " ", err2.kind)
          }
        }
      ]],
    }, function(server)
      assert.are.equal("Forked Forked", (server:get("/masters")))
      all_pages(server)
    end)
  end)

  both("survives clients that leave with operations in flight", function()
    with({ server = [[
      location = /endless {
        content_by_lua_block {
          local threads, stop = {}, jdbfs.now() + 2
          for i = 1, 8 do
            threads[i] = ngx.thread.spawn(function()
              -- nginx may miss that a client left before the handler began.
              while jdbfs.now() < stop do
                assert(read(i) == i)
                if i == 8 then jdbfs.sleep(0.01) end
              end
            end)
          end
          ngx.thread.wait(threads[1])
        }
      }
    ]] }, function(server)
      for _ = 1, 10 do
        local _, status = server:get("/endless", "-m 0.05")
        assert.are.equal(28, status)
      end
      nothing_left(server)
      all_pages(server)
    end)
  end)

  both("survives ngx.exit and ngx.thread.kill with operations in flight", function()
    with({ server = [[
      location = /exit {
        content_by_lua_block {
          for i = 1, 8 do
            ngx.thread.spawn(function() while true do assert(read(i) == i) end end)
          end
          ngx.thread.spawn(function() jdbfs.sleep(100) end)
          ngx.thread.spawn(function() jdbfs.timeout(0.05, jdbfs.sleep, 100) end)
          ngx.print("exit")
          ngx.exit(200)
        }
      }
      location = /kill {
        content_by_lua_block {
          local threads = {}
          for i = 1, 8 do
            threads[i] = ngx.thread.spawn(function() while true do assert(read(i) == i) end end)
          end
          read(9)
          for i = 1, 8 do assert(ngx.thread.kill(threads[i])) end
          ngx.print(read(10))
        }
      }
    ]] }, function(server)
      for _ = 1, 10 do
        assert.are.equal("exit", (server:get("/exit")))
        assert.are.equal("10", (server:get("/kill")))
      end
      all_pages(server)
      -- Sleepers of the dead are not waited for: see the time that stopping takes.
    end)
  end)

  both("keeps other waits apart: semaphores that time out, coroutines, subrequests", function()
    with({ server = [[
      location = /mixed {
        content_by_lua_block {
          local semaphore = require("ngx.semaphore").new(0)
          local timeouts = 0
          local reader = ngx.thread.spawn(function()
            local sum = 0
            for i = 1, 60 do sum = sum + read(i) end
            return sum
          end)
          for _ = 1, 5 do
            local ok, why = semaphore:wait(0.01)
            if not ok and why == "timeout" then timeouts = timeouts + 1 end
          end
          local generator = coroutine.wrap(function()
            for i = 1, 3 do coroutine.yield(read(i)) end
          end)
          local made = jdbfs.wrap(function()
            for i = 4, 6 do coroutine.yield(read(i)) end
          end)
          local list = { generator(), generator(), generator(), made(), made(), made() }
          local ok, sum = ngx.thread.wait(reader)
          local other = ngx.location.capture("/read?page=33").body
          ngx.print(timeouts, " ", table.concat(list, ","), " ", tostring(ok), " ", sum)
          ngx.print(" ", other)
        }
      }
    ]] }, function(server)
      for _ = 1, 3 do
        assert.are.equal("5 1,2,3,4,5,6 true 1830 33", (server:get("/mixed")))
      end
      nothing_left(server)
    end)
  end)

  both("runs tasks apart from any request, and logs what they raise", function()
    local server = with({ complains = true, server = [[
      location = /tasks {
        content_by_lua_block {
          jdbfs.spawn(function()
            jdbfs.sleep(0.05) -- the request is gone by then
            local ok, why = pcall(function() return ngx.var.uri end)
            local gave = coroutine.wrap(function() coroutine.yield(read(12)) end)()
            ngx.shared.seen:set("task", tostring(ok) .. " " .. gave)
            error("raised on purpose", 0)
          end)
          ngx.print("started")
        }
      }
      location = /seen { content_by_lua_block { ngx.print(ngx.shared.seen:get("task") or "-") } }
    ]] }, function(server)
      assert.are.equal("started", (server:get("/tasks")))
      eventually("the task", function() return (server:get("/seen")) ~= "-" end)
      assert.are.equal("false 12", (server:get("/seen")))
      all_pages(server)
    end)
    assert.matches("jdbfs: raised on purpose", server.logged)
    assert.is_nil(server.logged:match("%[alert%]"))
  end)

  both("costs nothing when idle", function()
    with({}, function(server)
      all_pages(server)
      support.sh("sleep 0.3")
      local pid = server:workers()[1]
      local before = turns(pid)
      support.sh("sleep 1")
      assert.are.equal(before, turns(pid))
      all_pages(server)
    end)
  end)

  both("reloads: old requests end in the old worker, which then goes", function()
    with({}, function(server)
      server:get("/read?page=1")
      local old = server:workers()[1]
      for _ = 1, 4 do server:start_get("/slow") end
      all_begun(server)
      server:signal("HUP")
      eventually("a new worker", function()
        local now = server:workers()
        return #now > 1 or now[1] ~= old
      end)
      all_pages(server)
      for _, body in ipairs(server:wait()) do assert.are.equal(SLOW_SUM, body) end
      assert.is_true(server:gone(old, 3), "the old worker stays")
      all_pages(server)
    end)
  end)

  both("reloads when idle: the old worker is gone at once, again and again", function()
    with({}, function(server)
      for _ = 1, 3 do
        all_pages(server)
        local old = server:workers()[1]
        server:signal("HUP")
        assert.is_true(server:gone(old, 2), "the old worker stays")
        eventually("a new worker", function() return #server:workers() == 1 end)
      end
      all_pages(server)
    end)
  end)

  both("quits: requests in flight end as they should, then it goes", function()
    with({}, function(server)
      for _ = 1, 4 do server:start_get("/slow") end
      all_begun(server)
      assert.is_true(server:stop("QUIT") < 4)
      for _, body in ipairs(server:wait()) do assert.are.equal(SLOW_SUM, body) end
    end)
  end)

  both("serves light threads that go on while it shuts down, tasks included", function()
    with({ server = [[
      location = /later {
        content_by_lua_block {
          ngx.shared.seen:incr("begun", 1, 0)
          ngx.sleep(0.6) -- the dispatcher has ended
          local sum = 0
          for i = 1, 10 do sum = sum + read(i) end
          jdbfs.sleep(0.02)
          local task = jdbfs.spawn(function() jdbfs.sleep(0.02) return read(11) end)
          ngx.print(sum + task:join())
        }
      }
    ]] }, function(server)
      all_pages(server)
      server:start_get("/later")
      all_begun(server)
      server:stop("QUIT")
      assert.are.equal("66", server:wait()[1])
    end)
  end)

  both("is terminated at once, with operations in flight", function()
    with({}, function(server)
      for _ = 1, 4 do server:start_get("/slow") end
      all_begun(server)
      assert.is_true(server:stop("TERM") < 2)
      server:wait()
    end)
  end)

  both("knows the host by name, once", function()
    with({ server = [[
      location = /host {
        content_by_lua_block {
          local _, _, err = jdbfs.host("ngx")
          local same = require("resty.jdbfs") == jdbfs
          ngx.print(jdbfs.info().host, " ", err.kind, " ", tostring(same))
        }
      }
    ]] }, function(server)
      local name = event and "ngx, native event" or "ngx"
      assert.are.equal(name .. " Busy true", (server:get("/host")))
    end)
  end)
end)

describe("the module by which nginx waits", function()
  it("is used only when nginx has loaded it", function()
    local module, why = hosts.nginx_event()
    if not hosts.is_jit then why = "nginx has LuaJIT" end
    if why then return pending(why) end
    with({ init = ([[
      package.cpath = package.cpath .. ";%s/?.so"
      local found, said = pcall(require, "jdbfs.nginx_event")
      refused = tostring(found) .. " " .. tostring(said)
    ]]):format(module), server = [[
      location = /refused { content_by_lua_block { ngx.print(refused, " ", jdbfs.info().host) } }
    ]] }, function(server)
      local said = server:get("/refused")
      assert.matches("^false .*nginx has not loaded this module.* ngx$", said)
      all_pages(server)
    end)
  end)
end)

-- ---- several workers ----------------------------------------------------------------------------

local SPREAD = [[
  location = /spread {
    content_by_lua_block {
      local seen, pid, rounds, sum = ngx.shared.seen, ngx.worker.pid(), 0, 0
      seen:incr(pid, 1, 0)
      repeat
        for i = 1, 10 do
          sum = sum + read(i)
          jdbfs.sleep(0.005)
        end
        ngx.sleep(0.005)
        rounds = rounds + 1
      until seen:get("end")
      ngx.print(pid, " ", sum / rounds)
    }
  }
  location = /end {
    content_by_lua_block { ngx.shared.seen:set("end", ngx.var.arg_end == "yes" or nil) }
  }
  location = /seen { content_by_lua_block { ngx.print(ngx.shared.seen:get(ngx.var.arg_pid) or 0) } }
  location = /many {
    content_by_lua_block {
      local threads, most = {}, 0
      for i = 1, 40 do
        threads[i] = ngx.thread.spawn(function()
          assert(read(i) == i)
          local s = jdbfs.stats()
          most = math.max(most, s.in_flight + s.waiting)
        end)
      end
      for i = 1, 40 do assert(ngx.thread.wait(threads[i])) end
      ngx.print(ngx.worker.pid(), " ", jdbfs.stats().submitted, " ", most)
    }
  }
]]

-- Requests until every worker has some, which go on until they are told to end.
local function spread(server)
  server:get("/end?end=no")
  local function busy()
    for _, pid in ipairs(server:workers()) do
      if tonumber((server:get("/seen?pid=" .. pid))) < 2 then return false end
    end
    return true
  end
  repeat
    for _ = 1, 4 do server:start_get("/spread") end
    support.sh("sleep 0.05")
  until busy() or server.started > 80
  assert(busy(), "one worker gets all requests")
end

-- Answers by worker; a request that was cut off is counted apart.
local function answers(server)
  local by_pid, none = {}, 0
  server:get("/end?end=yes")
  for _, body in ipairs(server:wait()) do
    local pid, sum = body:match("^(%d+) (%d+)$")
    if pid then
      assert.are.equal("55", sum)
      by_pid[tonumber(pid)] = (by_pid[tonumber(pid)] or 0) + 1
    else
      none = none + 1
    end
  end
  return by_pid, none
end

describe("nginx with several workers", function()
  local _, why = hosts.find_nginx()
  if not hosts.is_jit then why = "nginx has LuaJIT; the module of 5.1 is tried in 54" end
  local function workers(name, complains, body)
    it(name, function()
      if why then return pending(why) end
      with({ workers = 3, server = SPREAD, complains = complains }, body)
    end)
  end

  workers("has independent queues in them", false, function(server)
    local submitted = {}
    local function all_counted()
      local pid, count, most = server:get("/many"):match("^(%d+) (%d+) (%d+)$")
      assert.is_true(tonumber(most) <= 40, "operations of another worker are counted")
      -- What a worker counted is what it did: it grows by its own 40 reads and opens only.
      local grown = tonumber(count) - (submitted[pid] or 0)
      assert.is_true(grown >= 40 and grown <= 120, "grew by " .. grown)
      submitted[pid] = tonumber(count)
    end
    for _ = 1, 12 do all_counted() end
    spread(server)
    local by_pid, none = answers(server)
    assert.are.equal(0, none)
    for _, pid in ipairs(server:workers()) do assert.is_true(by_pid[pid] >= 2) end
  end)

  workers("loses the requests of a killed worker, and no other", true, function(server)
    spread(server)
    local others = server:workers()
    local victim = table.remove(others)
    server:signal("KILL", victim)
    local by_pid, none = answers(server)
    assert.is_nil(by_pid[victim])
    assert.is_true(none >= 2, none .. " were lost")
    for _, pid in ipairs(others) do assert.is_true(by_pid[pid] >= 2) end
    eventually("a new worker", function() return #server:workers() == 3 end)
    for _ = 1, 5 do all_pages(server) end
  end)

  workers("ends what a terminated worker had in flight, and no more", true, function(server)
    spread(server)
    local others = server:workers()
    local victim = table.remove(others)
    server:signal("TERM", victim)
    assert.is_true(server:gone(victim, 2), "it stays")
    local by_pid = answers(server)
    for _, pid in ipairs(others) do assert.is_true(by_pid[pid] >= 2) end
    eventually("a new worker", function() return #server:workers() == 3 end)
    all_pages(server)
  end)

  workers("reloads with operations in flight: every request is answered", false, function(server)
    local old = server:workers()
    spread(server)
    server:signal("HUP")
    eventually("new workers", function()
      local seen = {}
      for _, pid in ipairs(server:workers()) do seen[pid] = true end
      for _, pid in ipairs(old) do seen[pid] = nil end
      return next(seen) ~= nil
    end)
    for _ = 1, 5 do all_pages(server) end
    local _, none = answers(server)
    assert.are.equal(0, none)
    for _, pid in ipairs(old) do assert.is_true(server:gone(pid, 3), "an old worker stays") end
  end)
end)
