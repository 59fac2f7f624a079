-- The object store of lua/jdbfs/example: by itself, as a location of nginx, in Tarantool. nginx is
-- configured as the example's comment says, with two workers.
--
-- JDBFS_TEST_LONG=1: ten thousand requests and more kills.

local hosts = require("support_hosts")
local jdbfs = require("jdbfs")
local objects = require("jdbfs.example.objects")
local process = require("support_process")
local support = require("support")

local quote = support.quote
local LONG = os.getenv("JDBFS_TEST_LONG") == "1"
local EACH = LONG and 40 or 15 -- uploads before each kill
local BLOCK, MIB = objects.BLOCK, 1048576

-- Bytes that differ from place to place and from version to version.
local function content(size, version)
  local words, state = {}, 12345 + (version or 0) * 7919
  for i = 1, 1021 do
    state = (state * 1103515245 + 12345) % 2147483648
    words[i] = string.char(state % 251, math.floor(state / 65536) % 256)
  end
  local piece = table.concat(words)
  return piece:rep(math.ceil(size / #piece)):sub(1, size)
end

local function crc32c(data)
  if data == "" then return 0 end
  local b = jdbfs.buffer(#data)
  b:set(0, data)
  local sum = b:crc32c()
  b:free()
  return sum
end

-- ---- the store ----------------------------------------------------------------------------------

local function pieces(data, size)
  local at = 1
  return function()
    local piece = data:sub(at, at + size - 1)
    at = at + size
    if piece ~= "" then return piece end
  end
end

local function whole(object, from, len)
  local list, at = {}, from or 0
  local to = math.min(object.size, at + (len or object.size))
  while at < to do
    local piece = assert(object:read(at, to - at))
    assert(#piece > 0)
    list[#list + 1], at = piece, at + #piece
  end
  return table.concat(list)
end

local function get(store, name)
  local object = assert(store:get(name))
  local data = whole(object)
  assert(object:close())
  return data, object
end

local function damage(path, offset)
  local file = assert(jdbfs.open_rw(path, { direct = "off" }))
  local b = jdbfs.buffer(1)
  assert(file:read_at(b, offset))
  b:u8(0, (b:u8(0) + 1) % 256)
  assert(file:write_at(b, offset))
  assert(file:close())
end

describe("the store of objects", function()
  process.setup()

  local function open(o)
    return assert(objects.open(support.path("store"), o))
  end

  support.both("gives back what was put, at every edge of pages and blocks", function()
    local store = open()
    for _, size in ipairs { 0, 1, 4095, 4096, 4097, 61440, 61441, BLOCK, BLOCK + 1, 3 * BLOCK } do
      local data, name = content(size), "object/" .. size
      local about = assert(store:put(name, pieces(data, 50000)))
      assert.are.equal(size, about.size)
      assert.are.equal(crc32c(data), about.crc32c)
      local got, object = get(store, name)
      support.same(data, got)
      assert.are.equal(about.etag, object.etag)
    end
  end)

  support.both("gives any part", function()
    local store, data = open(), content(2 * BLOCK + 1000)
    assert(store:put("a", pieces(data, MIB)))
    local object = assert(store:get("a"))
    for _, at in ipairs { 0, 1, 4096, BLOCK - 1, BLOCK, 2 * BLOCK + 999 } do
      for _, len in ipairs { 1, 4096, BLOCK + 2 } do
        support.same(data:sub(at + 1, at + len), whole(object, at, len))
      end
    end
    assert.are.equal("", object:read(#data, 1))
    assert(object:close())
  end)

  support.both("takes any bytes as a name, and lists and deletes it", function()
    local store = open()
    local names = { "%", "..", ".put.1", "a b", "a/b", "\0\255", ("n"):rep(240) }
    for _, name in ipairs(names) do assert(store:put(name, pieces(name, 9))) end
    table.sort(names)
    assert.are.same(names, store:list())
    for _, name in ipairs(names) do
      assert.are.equal(name, (get(store, name)))
      assert(store:delete(name))
      local _, _, err = store:get(name)
      assert.are.equal("ENOENT", err.name)
    end
    assert.are.same({}, store:list())
    for _, name in ipairs { "", ("n"):rep(241), (" "):rep(81) } do
      support.fails({ kind = "BadName" }, store:put(name, pieces("x", 1)))
      support.fails({ kind = "BadName" }, store:get(name))
      support.fails({ kind = "BadName" }, store:delete(name))
    end
  end)

  support.both("keeps the old object when a put fails, and nothing of the new", function()
    local store = open()
    assert(store:put("a", pieces("old", 1)))
    local function failing(kind, source, o)
      local _, message, err = store:put("a", source, o)
      assert.are.equal(kind, type(err) == "table" and err.kind or message)
    end
    local sent = 0
    failing("gone", function()
      sent = sent + 1
      if sent == 5 then return nil, "gone" end
      return ("x"):rep(BLOCK)
    end)
    failing("TooLarge", function() return ("x"):rep(MIB) end)
    failing("Mismatch", pieces("new", 1), { crc32c = 1 })
    assert(store:put("b", pieces("b", 1), { crc32c = crc32c("b") }))
    local ok, message = jdbfs.pcall(store.put, store, "a", function() error("boom") end)
    assert(not ok and message:find("boom", 1, true), message)
    assert.are.equal("old", (get(store, "a")))
    assert.are.same({ "a", "b" }, jdbfs.ls(support.path("store")))
  end)

  support.both("finds damage wherever it is", function()
    local store, path = open(), support.path("store")
    for _, size in ipairs { 3000, 3 * BLOCK } do
      for _, offset in ipairs { 0, 9, 17, 30, 513, 4095, 4096 } do
        assert(store:put("a", pieces(content(size), MIB)))
        damage(path .. "/a", offset)
        local object, message, err = store:get("a")
        if object then
          assert.are.equal(3 * BLOCK, size)
          local _
          _, message, err = object:read(0, 1)
          support.same(content(size):sub(BLOCK + 1), whole(object, BLOCK))
          assert(object:close())
        end
        assert(err and err.kind == "Damaged", ("%d %s"):format(offset, tostring(message)))
      end
    end
    assert(store:put("a", pieces(content(3000), MIB)))
    local file = assert(jdbfs.open_rw(path .. "/a", { direct = "off" }))
    assert(file:truncate(4096))
    assert(file:close())
    support.fails({ kind = "Damaged", says = "its end is missing" }, store:get("a"))
    support.raises("bad argument #1 to 'put' (string expected)", store.put, store, 1)
    assert(store:put("a", pieces("x", 1)))
    assert(jdbfs.rename(path .. "/a", path .. "/b"))
    support.fails({ kind = "Damaged", says = "another object" }, store:get("b"))
  end)

  support.task("keeps buffers apart when more want one than there are", function()
    local store, tasks = open({ buffers = 2 }), {}
    for i = 1, 12 do
      tasks[i] = jdbfs.spawn(function()
        local name, data = "object" .. i, content(BLOCK + 100 * i, i)
        assert(store:put(name, pieces(data, 10000)))
        return get(store, name) == data
      end)
    end
    for i = 1, 12 do assert.is_true(tasks[i]:join()) end
  end)

  support.task("takes no buffer along when a task is cancelled in the middle", function()
    local store, data = open({ buffers = 1 }), content(4 * BLOCK)
    for _ = 1, 5 do
      local task = jdbfs.spawn(function() store:put("a", pieces(data, BLOCK)) end)
      jdbfs.sleep(0.001)
      task:cancel()
      task:join()
    end
    assert(store:put("a", pieces(data, MIB)))
    support.same(data, (get(store, "a")))
    collectgarbage()
    collectgarbage()
    jdbfs.sleep(0.01)
    assert(store:sweep())
    assert.are.same({ "a" }, jdbfs.ls(support.path("store")))
  end)

  support.both("leaves nothing of one object behind the end of another", function()
    local store = open({ buffers = 1 })
    assert(store:put("a", pieces(("x"):rep(2 * BLOCK), BLOCK)))
    assert(store:put("b", pieces("b", 1)))
    assert(store:put("c", pieces(("c"):rep(BLOCK + 1), BLOCK)))
    local path = support.path("store")
    support.same("b" .. ("\0"):rep(4095), support.get(path .. "/b"):sub(4097))
    support.same(("c"):rep(BLOCK + 1) .. ("\0"):rep(4095), support.get(path .. "/c"):sub(4097))
  end)

  support.both("sweeps what uploads left, and no upload that goes on", function()
    local store, path = open(), support.path("store")
    support.put(path .. "/.put.1.1", "left by a crash")
    local swept, seen
    assert(store:put("a", function()
      if seen then return nil end
      swept, seen = store:sweep(), true
      return "content"
    end))
    assert.are.equal(1, swept)
    assert.are.equal("content", (get(store, "a")))
    support.put(path .. "/.put.1.2", "left by a crash")
    open()
    assert.are.same({ "a" }, jdbfs.ls(path))
  end)
end)

-- ---- nginx --------------------------------------------------------------------------------------

local EXAMPLE = "lua/jdbfs/example/nginx_objects.lua"

-- The configuration in the example's comment, for this directory: inside of http and of server.
local function configuration(directory)
  local text = support.get(EXAMPLE):gsub("\n%-%- ?", "\n")
  local init, location = text:match("http {\n(.-)    server {\n(.-)\n    }\n  }")
  return (init:gsub("/srv/objects", directory)), location
end

local function with(o, more)
  local all = {}
  for name, value in pairs(o) do all[name] = value end
  for name, value in pairs(more) do all[name] = value end
  return all
end

-- A server of two workers in dir; its objects are in dir/objects. o as for hosts.nginx.
local function start(dir, o)
  local options = with(o, { workers = 2 })
  options.http, options.server = configuration(dir .. "/objects")
  return hosts.nginx(dir, options)
end

local function eventually(what, condition)
  for _ = 1, 250 do
    if condition() then return end
    support.sh("sleep 0.02")
  end
  error("waited in vain: " .. what, 2)
end

-- Of sanitizers: their library is there, and has reported nothing.
local function check_sanitizer(server)
  local _, reports = support.sh("cat " .. quote(server.dir) .. "/asan.* 2>/dev/null")
  assert(reports == "", reports:sub(1, 3000))
end

local function check_sanitized(server, o)
  if not o.cpath then return end
  for _, pid in ipairs(server:workers()) do
    eventually("the sanitizer", function()
      local maps = support.get("/proc/" .. pid .. "/maps")
      return maps:find("libasan", 1, true) and maps:find("luajit-asan/jdbfs/core.so", 1, true)
    end)
  end
end

local function in_directory(o, f)
  return hosts.directory(function(dir)
    local server = start(dir, o)
    check_sanitized(server, o)
    local ok, wrong = pcall(f, server, dir)
    local stopped, took = pcall(server.stop, server)
    check_sanitizer(server)
    if not ok then error(tostring(wrong) .. "\n" .. server:log():sub(-1500), 0) end
    assert(stopped, took)
    assert(took < 5, ("took %g s to stop"):format(took))
    local alerts = server:log():gsub("%[alert%][^\n]*exited on signal 9", "killed by us")
    assert.is_nil(alerts:match("%[alert%][^\n]*"))
    if not o.complains then assert.are.equal("", server:errors()) end
  end)
end

local function put(server, name, file, options)
  local out = server:get("/objects/" .. name, ("-T %s -w '%%{http_code}' %s"):format(
    quote(file), options or ""))
  return out:match("%d+$"), out
end

-- Status, header fields by lower-case name, body.
local function ask(server, name, options)
  local out, status, why = server:get("/objects/" .. name, "-i " .. (options or ""))
  out = out:gsub("^HTTP/1.1 100[^\n]*\n\r\n", "")
  local head, body = out:match("^(.-)\r\n\r\n(.*)$")
  local fields = {}
  for field, value in (head or ""):gmatch("\n([^:]+): ([^\r\n]*)") do
    fields[field:lower()] = value
  end
  return tonumber((head or ""):match("^HTTP/1.1 (%d+)")), fields, body, status, why
end

-- Files to upload: name -> content.
local function origins(dir, sizes)
  local made = {}
  support.sh("mkdir -p " .. quote(dir))
  for i, size in ipairs(sizes) do
    local name = ("o%02d"):format(i)
    made[name] = content(size, i)
    support.put(dir .. "/" .. name, made[name])
  end
  return made
end

-- The objects, each as curl got it; nil for what it did not get.
local function fetch(server, names)
  local config, got = {}, {}
  support.sh("mkdir -p " .. quote(server.dir .. "/got"))
  for i, name in ipairs(names) do
    config[i] = ("url = http://localhost/objects/%s\noutput = %s/got/%s\n"):format(
      name, server.dir, name)
  end
  support.put(server.dir .. "/fetch", table.concat(config))
  support.sh(("curl -s -f --unix-socket %s -K %s/fetch"):format(
    quote(server.socket), quote(server.dir)))
  for _, name in ipairs(names) do
    local file = server.dir .. "/got/" .. name
    got[name] = support.get(file)
    os.remove(file)
  end
  return got
end

local function temporaries(dir)
  local _, out = support.sh("find " .. quote(dir .. "/objects") .. " -name '.put.*' | wc -l")
  return tonumber(out)
end

-- ---- uploads that go on beside a test

local function start_uploads(server, dir, uploaders, count)
  os.remove(dir .. "/origins.stop")
  for i = 1, uploaders do
    os.remove(("%s/origins.up%d.over"):format(dir, i))
    os.execute(("bash spec/hosts/upload.sh %s %s up%d %d </dev/null >/dev/null 2>&1 &"):format(
      quote(server.socket), quote(dir .. "/origins"), i, count))
  end
end

-- Every upload so far: list of {name, file, status}.
local function uploads(dir, uploaders)
  local list = {}
  for i = 1, uploaders do
    for line in (support.get(dir .. "/origins.up" .. i) or ""):gmatch("[^\n]+") do
      local name, file, status = line:match("^(%S+) (%S+) (%d+)$")
      list[#list + 1] = { name = name, file = file, status = status }
    end
  end
  return list
end

local function stop_uploads(dir, uploaders)
  support.put(dir .. "/origins.stop", "")
  for i = 1, uploaders do
    local over = dir .. "/origins.up" .. i .. ".over"
    eventually("an uploader", function() return support.get(over) end)
  end
  return uploads(dir, uploaders)
end

local counted = { acknowledged = 0, killed = 0, compared = 0 }

local function kill(server, name, pid)
  counted.killed = counted.killed + 1
  server:signal(name, pid)
end

-- Every acknowledged object is whole; an unacknowledged one is whole or not there.
local function check_uploads(server, list, made)
  local names, acknowledged = {}, 0
  for i, upload in ipairs(list) do names[i] = upload.name end
  local got = fetch(server, names)
  for _, upload in ipairs(list) do
    local data = got[upload.name]
    if upload.status == "201" then
      acknowledged = acknowledged + 1
      assert(data, "acknowledged and gone: " .. upload.name)
    end
    if data then support.same(made[upload.file], data) end
  end
  counted.acknowledged = counted.acknowledged + acknowledged
  return acknowledged
end

local SIZES = { 1, 100, 4096, 4097, 61440, 61441, BLOCK, BLOCK + 1, 3 * BLOCK + 5, MIB + 1 }

local function service_tests(nginx)
  nginx("stores and serves objects of 1 byte to 64 MiB, byte by byte", function(o)
    in_directory(o, function(server, dir)
      local made = origins(dir .. "/origins", { 1, 4096, 61441, BLOCK + 1, MIB + 1, 64 * MIB })
      for name, data in pairs(made) do
        local status, out = put(server, name, dir .. "/origins/" .. name, "-i")
        assert.are.equal("201", status)
        assert.matches(("X%%-Content%%-Crc32c: %08x"):format(crc32c(data)), out)
        assert.matches(('ETag: "%08x%%-%x"'):format(crc32c(data), #data), out)
        local got = fetch(server, { name })[name]
        support.same(data, got)
      end
      assert.are.equal("o01\no02\no03\no04\no05\no06\n", (server:get("/objects/")))
      assert.are.equal(204, (ask(server, "o02", "-X DELETE")))
      assert.are.equal(404, (ask(server, "o02")))
      assert.are.equal(404, (ask(server, "o02", "-X DELETE")))
      assert.are.equal(0, temporaries(dir))
    end)
  end)

  nginx("answers Range, If-Range, If-None-Match and HEAD", function(o)
    in_directory(o, function(server, dir)
      local size = 2 * BLOCK + 1000
      local data = origins(dir .. "/origins", { size }).o01
      assert.are.equal("201", (put(server, "a", dir .. "/origins/o01")))
      local _, head, body = ask(server, "a", "-I")
      assert.are.equal(tostring(size), head["content-length"])
      assert.are.equal("bytes", head["accept-ranges"])
      assert.are.equal("", body)
      local etag = head.etag
      for range, part in pairs {
        ["0-0"] = { 0, 1 }, ["5-9"] = { 5, 5 }, ["-7"] = { size - 7, 7 },
        ["131071-131072"] = { BLOCK - 1, 2 }, ["262144-"] = { 2 * BLOCK, 1000 },
        ["100-9999999"] = { 100, size - 100 }, ["-9999999"] = { 0, size },
      } do
        local status, fields, got = ask(server, "a", "-r " .. range)
        assert.are.equal(206, status, range)
        assert.are.equal(("bytes %d-%d/%d"):format(part[1], part[1] + part[2] - 1, size),
          fields["content-range"])
        support.same(data:sub(part[1] + 1, part[1] + part[2]), got)
      end
      for _, range in ipairs { size .. "-", "9999999-99999999", "-0" } do
        local status, fields = ask(server, "a", "-r " .. range)
        assert.are.equal(416, status, range)
        assert.are.equal("bytes */" .. size, fields["content-range"])
      end
      for _, range in ipairs { "bytes=9-5", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6" } do
        assert.are.equal(200, (ask(server, "a", "-H 'Range: " .. range .. "'")), range)
      end
      assert.are.equal(206, (ask(server, "a", "-r 0-9 -H " .. quote("If-Range: " .. etag))))
      assert.are.equal(200, (ask(server, "a", "-r 0-9 -H 'If-Range: \"other\"'")))
      assert.are.equal(304, (ask(server, "a", "-H " .. quote("If-None-Match: " .. etag))))
      assert.are.equal(200, (ask(server, "a", "-H 'If-None-Match: \"other\"'")))
    end)
  end)

  nginx("refuses what it cannot store, and goes on", function(o)
    in_directory(with(o, { complains = true }), function(server, dir)
      origins(dir .. "/origins", { 3 * BLOCK, 100, 64 * MIB + 1 })
      local from = dir .. "/origins/"
      assert.are.equal("411", (put(server, "a", from .. "o02", "-H 'Transfer-Encoding: chunked'")))
      assert.are.equal("400", (put(server, "a", from .. "o01", "-H 'X-Content-Crc32c: 00000001'")))
      assert.are.equal("400", (put(server, "a", from .. "o02", "-H 'X-Content-Crc32c: none'")))
      assert.are.equal("400", (put(server, ("n"):rep(300), from .. "o01")))
      assert.are.equal("413", (put(server, "a", from .. "o03")))
      assert.are.equal("405", (put(server, "a", from .. "o02", "-X PATCH")))
      assert.are.equal("405", (put(server, "a", from .. "o02", "-X POST")))
      assert.are.equal(404, (ask(server, "a")))
      assert.are.equal("", (server:get("/objects/")))
      assert.are.equal(0, temporaries(dir))
      local empty = dir .. "/empty"
      support.put(empty, "")
      assert.are.equal("201", (put(server, "empty", empty)))
      assert.are.equal("0", select(2, ask(server, "empty"))["content-length"])
    end)
  end)

  nginx("never passes damage on as whole", function(o)
    in_directory(with(o, { complains = true }), function(server, dir)
      local made = origins(dir .. "/origins", { 4 * BLOCK, 1000 })
      for name in pairs(made) do put(server, name, dir .. "/origins/" .. name) end
      damage(dir .. "/objects/o01", 4096 + 2 * BLOCK + 77)
      damage(dir .. "/objects/o02", 4096 + 77)
      local status, _, body, curl = ask(server, "o01")
      assert.are.equal(200, status)
      assert.are.equal(18, curl) -- ends early
      support.same(made.o01:sub(1, 2 * BLOCK), body)
      status, _, body = ask(server, "o01", "-r 393216-")
      assert.are.equal(206, status)
      support.same(made.o01:sub(3 * BLOCK + 1), body)
      assert.are.equal(500, (ask(server, "o01", "-r 262144-262145")))
      status, _, body = ask(server, "o02")
      assert.are.equal(500, status)
      assert.are.equal("internal error\n", body)
      assert.matches("block 2 is damaged", server:log())
    end)
  end)

  nginx("stores nothing of uploads whose clients leave", function(o)
    in_directory(o, function(server, dir)
      origins(dir .. "/origins", { 2 * MIB })
      local clients = {}
      for i = 1, 4 do
        clients[i] = server:start_get("/objects/gone" .. i,
          "--limit-rate 100k -T " .. quote(dir .. "/origins/o01"))
      end
      eventually("uploads", function() return temporaries(dir) == 4 end)
      for _, client in ipairs(clients) do server:leave(client) end
      eventually("the end of uploads", function() return temporaries(dir) == 0 end)
      assert.are.equal("", (server:get("/objects/")))
      server:wait()
      -- And downloads.
      assert.are.equal("201", (put(server, "a", dir .. "/origins/o01")))
      for _ = 1, 10 do server:get("/objects/a", "--limit-rate 100k -m 0.05 -o /dev/null") end
      assert.are.equal("200", (server:get("/objects/a", "-o /dev/null -w '%{http_code}'")))
    end)
  end)

  -- disturb(server, number) while four clients upload. Whether every upload must succeed.
  local function under_load(o, all_succeed, rounds, disturb)
    in_directory(with(o, { complains = not all_succeed }),
      function(server, dir)
        local made = origins(dir .. "/origins", SIZES)
        start_uploads(server, dir, 4, 100000)
        for round = 1, rounds do
          eventually("uploads", function() return #uploads(dir, 4) >= EACH * round end)
          server = disturb(server, round, dir) or server
        end
        local before = #uploads(dir, 4)
        eventually("more uploads", function() return #uploads(dir, 4) >= before + EACH end)
        local list = stop_uploads(dir, 4)
        local acknowledged = check_uploads(server, list, made)
        if all_succeed then assert.are.equal(#list, acknowledged) end
        assert(acknowledged > EACH * rounds / 2, acknowledged .. " acknowledged of " .. #list)
      end)
  end

  local ROUNDS = LONG and 20 or 2

  nginx("reloads under load: no upload fails", function(o)
    under_load(o, true, ROUNDS, function(server) server:signal("HUP") end)
  end)

  nginx("loses nothing that it acknowledged when workers are killed", function(o)
    under_load(o, false, ROUNDS, function(server, round)
      local workers = server:workers()
      kill(server, round % 2 == 0 and "TERM" or "KILL", workers[round % #workers + 1])
    end)
  end)

  nginx("loses nothing that it acknowledged when master and workers are killed", function(o)
    hosts.directory(function(dir)
      local made = origins(dir .. "/origins", SIZES)
      for round = 1, ROUNDS do
        local server = start(dir, o)
        start_uploads(server, dir, 4, 100000)
        eventually("uploads", function() return #uploads(dir, 4) >= EACH end)
        local workers = server:workers()
        kill(server, "KILL")
        if round % 2 == 0 then
          -- The workers serve on without their master.
          local before = #uploads(dir, 4)
          eventually("uploads without a master", function()
            return #uploads(dir, 4) >= before + 10
          end)
        end
        for _, pid in ipairs(workers) do kill(server, "KILL", pid) end
        for _, pid in ipairs(workers) do assert(server:gone(pid)) end
        local list = stop_uploads(dir, 4)
        os.remove(server.socket)
        local again = start(dir, o)
        local acknowledged = check_uploads(again, list, made)
        assert(acknowledged >= EACH / 2, acknowledged .. " acknowledged of " .. #list)
        assert.are.equal(0, temporaries(dir))
        again:stop()
        check_sanitizer(again)
        for i = 1, 4 do os.remove(dir .. "/origins.up" .. i) end
      end
    end)
  end)

  nginx("stands a crowd: thousands of requests, each answer compared", function(o)
    local no_wrk = support.lacks("wrk")
    if no_wrk then return pending(no_wrk) end
    local port = 20000 + tonumber(tostring({}):match("(%x%x%x)$"), 16) + os.time() % 8192
    in_directory(with(o, { port = port }), function(server, dir)
      local etags = {}
      for name, data in pairs(origins(dir .. "/origins", SIZES)) do
        assert.are.equal("201", (put(server, name, dir .. "/origins/" .. name)))
        etags[#etags + 1] = ('%s "%08x-%x"\n'):format(name, crc32c(data), #data)
      end
      support.put(dir .. "/origins.etags", table.concat(etags))
      local requests, wanted = 0, LONG and 10000 or 500
      repeat
        local _, out = support.sh(("wrk -t 2 -c 16 -d %d --timeout 20s -s spec/hosts/wrk.lua " ..
          "http://127.0.0.1:%d/ -- %s"):format(LONG and 10 or 1, port, quote(dir .. "/origins")))
        local n, wrong, errors = out:match("(%d+) requests, (%d+) wrong, (%d+) errors")
        assert(wrong == "0" and errors == "0", out)
        requests = requests + tonumber(n)
      until requests >= wanted
      counted.compared = counted.compared + requests
    end)
  end)
end

-- With an address sanitizer in the interpreter nginx gets one too, and the modules built for it.
local function sanitized()
  local why = support.lacks("make", "luajit", "cc")
  if why then return nil, why end
  local status, out = support.sh("make -s all SAN=address LUA=luajit 2>&1")
  if status ~= 0 then return nil, "LuaJIT's module does not build: " .. out:sub(1, 200) end
  local _, runtime = support.sh("cc -print-file-name=libasan.so")
  runtime = runtime:match("^(/[^\n]+)")
  if not runtime then return nil, "the sanitizer's runtime is not a shared library" end
  local _, here = support.sh("pwd")
  local event
  event, why = hosts.nginx_event("address")
  if not event then return nil, why end
  return {
    event = event,
    cpath = here:match("[^\n]+") .. "/build/luajit-asan/?.so",
    env = { "LD_PRELOAD=" .. runtime, "ASAN_OPTIONS=detect_leaks=0:log_path=asan" },
  }
end

local o, why = {}, nil
local sanitizer = os.getenv("JDBFS_TEST_SAN")

describe("objects in nginx:", function()
  setup(function()
    why = support.on_sim or select(2, hosts.find_nginx(true))
    if why then return end
    if sanitizer == "address" then
      o, why = sanitized()
    elseif not hosts.is_jit then
      why = "nginx has LuaJIT; the module of 5.1 is tried in 54"
    end
  end)

  teardown(function()
    if counted.acknowledged == 0 then return end
    local text = "in nginx: %d uploads acknowledged, %d processes killed, %d answers compared"
    support.figures(text:format(counted.acknowledged, counted.killed, counted.compared))
  end)

  local number = 0
  service_tests(function(name, body)
    number = number + 1
    -- Where it can, nginx itself waits in every second of them.
    local waits = number % 2 == 0
    it(name, function()
      if why then return pending(why) end
      body(with(o, { event = waits and o.event or false }))
    end)
  end)
end)

-- ---- Tarantool ----------------------------------------------------------------------------------

describe("objects in Tarantool:", function()
  local no_tarantool = support.on_sim or not hosts.is_jit and "Tarantool has LuaJIT" or
    support.lacks("tarantool")

  local function tarantool(name, body)
    it(name, function()
      if no_tarantool then return pending(no_tarantool) end
      -- Its sockets have short names.
      local _, sockets = support.sh("mktemp -d")
      sockets = sockets:match("[^\n]+")
      hosts.directory(function(dir)
        local started = {}
        local function role(what, number, background)
          local command = ("tarantool spec/hosts/tarantool_objects.lua %s %s %s"):format(
            what, quote(dir), quote(sockets))
          if not background then return hosts.run(command) end
          local pid = ("%s/%s.%d.pid"):format(dir, what, number)
          hosts.start(command, pid, ("%s/%s.%d.out"):format(dir, what, number))
          started[#started + 1] = pid
          return function(signal)
            support.sh(("kill -%s $(cat %s)"):format(signal, quote(pid)))
            eventually("its end", function()
              return support.sh("kill -0 $(cat " .. quote(pid) .. ") 2>/dev/null") ~= 0
            end)
          end
        end
        local function seen(file, text)
          eventually(text, function() return (support.get(dir .. "/" .. file) or ""):find(text) end)
        end
        local ok, wrong = pcall(body, role, seen, dir)
        for _, pid in ipairs(started) do
          support.sh("kill -KILL $(cat " .. quote(pid) .. ") 2>/dev/null")
        end
        if not ok then
          local _, out = support.sh("tail -n 30 " .. quote(dir) .. "/*.out")
          error(tostring(wrong) .. "\n" .. out, 0)
        end
      end)
      support.sh("rm -rf " .. quote(sockets))
    end)
  end

  tarantool("a replica has the index, fetches content, and keeps it without the origin",
    function(role, seen)
      local kill_origin = role("origin", 1, true)
      seen("origin.1.out", "ready")
      role("replica", 1, true)
      seen("replica.1.out", "compared")
      kill_origin("KILL")
      seen("replica.1.out", "alone")
      local r = role("check", 1)
      assert.are.equal("whole\n", r.out, r.err)
    end)

  tarantool("loses nothing that it acknowledged when it is killed, again and again",
    function(role, _, dir)
      for round = 1, LONG and 20 or 2 do
        local kill_load = role("load", round, true)
        local wanted = round * EACH
        eventually("puts", function()
          return select(2, (support.get(dir .. "/acknowledged") or ""):gsub("\n", "")) >= wanted
        end)
        kill_load("KILL")
        local r = role("check", round)
        assert.are.equal("whole\n", r.out, r.err)
      end
    end)
end)
