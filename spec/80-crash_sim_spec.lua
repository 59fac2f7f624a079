-- What was acknowledged survives a power cut, wherever it comes: durable writes, names,
-- atomic_write and the log, on the simulated disk, which is stricter than any real one. And the rig
-- itself: with any one flush or directory sync left out it must find a broken promise.
--
-- JDBFS_CRASHES: crashes per workload, 150 unless told.

local jdbfs = require "jdbfs"
local objects = require "jdbfs.example.objects"
local rig = require "support_crash"
local sim = require "jdbfs.sim"
local support = require "support"

local must, mark, versions, content = rig.must, rig.mark, rig.versions, rig.content
local PAGE = 4096
local CRASHES = tonumber(os.getenv("JDBFS_CRASHES") or "") or 150
-- An omission is looked for in so many crashes at most.
local HUNT = math.max(CRASHES, 2000)

local function page(version)
  local b = jdbfs.buffer(PAGE)
  if version then b:set(0, mark(version)) end
  return b
end

-- Every sector says a version that was acknowledged there last, or one asked for since.
local function check_pages(path, acked, asked, pages)
  local list = versions(content(path))
  assert(#list <= pages * 8, "the file is too long")
  for n = 1, pages do
    for i = (n - 1) * 8 + 1, n * 8 do
      local version = list[i] or 0
      local old, new = acked[n] or 0, asked[n] or 0
      assert(version == old or version == new or (version > old and version < new),
        ("page %d says %d; acknowledged: %d, asked for: %d"):format(n, version, old, new))
    end
  end
end

local function write(file, state, n, version, flags)
  state.asked[n] = version
  must(file:write_at(page(version), (n - 1) * PAGE, 0, PAGE, flags))
end

local function wait_all(tasks)
  for _, task in ipairs(tasks) do must(task:join()) end
end

local function new_state(state)
  state.acked, state.asked = {}, {}
end

local function made_file(state)
  new_state(state)
  local file = must(jdbfs.create("data", { durable_create = true }))
  must(file:preallocate(4 * PAGE, "zero"))
  must(file:sync_all())
  must(file:close())
end

local function check_made(state)
  assert(jdbfs.size("data") == 4 * PAGE, "the size is " .. tostring(jdbfs.size("data")))
  check_pages("data", state.acked, state.asked, 4)
end

local workloads = {}
local function workload(name, w)
  w.name = name
  workloads[#workloads + 1] = w
end

-- ---- durable writes -----------------------------------------------------------------------------

workload("appends through open_wal", {
  setup = new_state,
  body = function(state)
    local file = must(jdbfs.open_wal("wal", { durable_create = true }))
    state.made = true
    for n = 1, 6 do
      write(file, state, n, n)
      state.acked[n] = n
    end
    must(file:close())
  end,
  check = function(state)
    if not state.made and not jdbfs.exists("wal") then return end
    check_pages("wal", state.acked, state.asked, 7)
  end,
})

workload("overwrites through open_wal", {
  setup = made_file,
  body = function(state)
    local file = must(jdbfs.open_wal("data"))
    for version = 1, 10 do
      local n = version * 7 % 4 + 1
      write(file, state, n, version)
      state.acked[n] = version
    end
    must(file:close())
  end,
  check = check_made,
})

workload("writes with the dsync flag, one after another", {
  setup = made_file,
  body = function(state)
    local file = must(jdbfs.open_rw("data"))
    for version = 1, 8 do
      local n = version * 3 % 4 + 1
      write(file, state, n, version, "dsync")
      state.acked[n] = version
    end
    must(file:close())
  end,
  check = check_made,
})

workload("writes with the dsync flag, several at once", {
  setup = made_file,
  body = function(state)
    local file, tasks = must(jdbfs.open_rw("data")), {}
    for n = 1, 4 do
      tasks[n] = jdbfs.spawn(function()
        for version = 1, 3 do
          write(file, state, n, version * 10 + n, "dsync")
          state.acked[n] = version * 10 + n
        end
        return true
      end)
    end
    wait_all(tasks)
    must(file:close())
  end,
  check = check_made,
})

workload("lists with the dsync flag", {
  setup = made_file,
  body = function(state)
    local file = must(jdbfs.open_rw("data"))
    for version = 1, 4 do
      local list = {}
      for n = 1, 4 do
        list[n] = { page(version), (n - 1) * PAGE }
        state.asked[n] = version
      end
      must(file:write_many(list, "dsync"))
      for n = 1, 4 do state.acked[n] = version end
    end
    must(file:close())
  end,
  check = check_made,
})

workload("an atomic write of several sectors", {
  atomic = 16384,
  setup = made_file,
  body = function(state)
    local file, all = must(jdbfs.open_rw("data")), jdbfs.buffer(4 * PAGE)
    for version = 1, 6 do
      all:set(0, mark(version):rep(4))
      state.asked.all = version
      must(file:write_at(all, 0, 0, 4 * PAGE, "atomic,dsync"))
      state.acked.all = version
    end
    must(file:close())
  end,
  check = function(state)
    local list = versions(content("data"))
    local old = state.acked.all or 0
    assert(list[1] == old or list[1] == state.asked.all, "says " .. list[1])
    for i = 2, 32 do assert(list[i] == list[1], "torn") end
  end,
})

for _, sync in ipairs { "sync_data", "sync_all" } do
  workload("writes, then " .. sync, {
    setup = made_file,
    body = function(state)
      local file = must(jdbfs.open_rw("data"))
      for version = 1, 4 do
        local tasks = {}
        for n = 1, 3 do
          tasks[n] = jdbfs.spawn(function()
            write(file, state, n, version)
            return true
          end)
        end
        wait_all(tasks)
        must(file[sync](file))
        for n = 1, 3 do state.acked[n] = version end
      end
      must(file:close())
    end,
    check = check_made,
  })
end

workload("tasks that write and sync, sharing flushes", {
  setup = made_file,
  body = function(state)
    local file, tasks = must(jdbfs.open_rw("data")), {}
    for n = 1, 4 do
      tasks[n] = jdbfs.spawn(function()
        for version = 1, 3 do
          write(file, state, n, version)
          must(file:sync_data())
          state.acked[n] = version
        end
        return true
      end)
    end
    wait_all(tasks)
    must(file:close())
  end,
  check = check_made,
})

-- ---- sizes --------------------------------------------------------------------------------------

local function sizes(name, size_of, change)
  workload(name, {
    setup = made_file,
    body = function(state)
      local file = must(jdbfs.open_rw("data"))
      state.size, state.next = 4 * PAGE, 4 * PAGE
      for i = 1, 5 do
        state.next = size_of(i)
        must(change(file, state.next))
        must(file:sync_all())
        state.size = state.next
      end
      must(file:close())
    end,
    check = function(state)
      local size, kept = jdbfs.size("data"), state.size or 4 * PAGE
      assert(size == kept or size == (state.next or kept), "the size is " .. tostring(size))
      local list = versions(content("data"))
      for i = 1, #list do assert(list[i] == 0, "bytes that nobody wrote") end
    end,
  })
end

sizes("truncate, then sync_all", function(i)
  return i % 2 == 0 and 9 * PAGE + i or PAGE + i * 100
end, function(file, size) return file:truncate(size) end)

sizes("preallocate, then sync_all", function(i)
  return (4 + i) * PAGE + i
end, function(file, size) return file:preallocate(size) end)

sizes("preallocate of zeros, then sync_all", function(i)
  return (4 + i) * PAGE
end, function(file, size) return file:preallocate(size, "zero") end)

workload("punch, then sync_all", {
  setup = function(state)
    made_file(state)
    local file = must(jdbfs.open_wal("data"))
    for n = 1, 4 do must(file:write_at(page(n), (n - 1) * PAGE)) end
    must(file:close())
  end,
  body = function(state)
    local file = must(jdbfs.open_rw("data"))
    for n = 1, 4 do
      state.asked[n] = true
      must(file:punch((n - 1) * PAGE, PAGE))
      must(file:sync_all())
      state.acked[n] = true
    end
    must(file:close())
  end,
  check = function(state)
    local list = versions(content("data"))
    for n = 1, 4 do
      for i = n * 8 - 7, n * 8 do
        assert(list[i] == 0 or not state.acked[n], "punched, and back again")
        assert(list[i] == n or state.asked[n], "gone, and not punched")
      end
    end
  end,
})

-- ---- names --------------------------------------------------------------------------------------

workload("durable_create", {
  body = function(state)
    for i = 1, 4 do
      local file = must(jdbfs.create("file" .. i, { durable_create = true }))
      state[i] = true
      must(file:close())
    end
  end,
  check = function(state)
    for i = 1, 4 do
      assert(not state[i] or jdbfs.exists("file" .. i), "file" .. i .. " is gone")
    end
  end,
})

workload("create, sync_all, sync_dir", {
  setup = function() must(jdbfs.mkdir("dir", { durable = true })) end,
  body = function(state)
    for i = 1, 4 do
      local path = "dir/file" .. i
      local file = must(jdbfs.create(path))
      must(file:write_at(page(i), 0))
      must(file:sync_all())
      must(jdbfs.sync_dir("dir"))
      state[i] = true
      must(file:close())
    end
  end,
  check = function(state)
    for i = 1, 4 do
      if state[i] then assert(content("dir/file" .. i) == mark(i), "file" .. i) end
    end
  end,
})

workload("durable mkdir", {
  body = function(state)
    for i, path in ipairs { "a", "b/c", "b/d/e/f", "a/g" } do
      must(jdbfs.mkdir(path, { durable = true }))
      state[i] = path
    end
  end,
  check = function(state)
    for _, path in ipairs(state) do
      local st = jdbfs.stat(path)
      assert(st and st.type == "directory", path .. " is gone")
    end
  end,
})

workload("durable mkdir of a directory that was there", {
  setup = function() must(jdbfs.mkdir("there")) end,
  body = function(state)
    must(jdbfs.mkdir("there", { durable = true }))
    state.made = true
  end,
  check = function(state)
    assert(not state.made or jdbfs.exists("there"), "it is gone")
  end,
})

local function put_durably(path, version)
  local file = must(jdbfs.create(path, { durable_create = true }))
  must(file:write_at(page(version), 0))
  must(file:sync_all())
  must(file:close())
end

workload("durable rename", {
  setup = function()
    must(jdbfs.mkdir("a", { durable = true }))
    must(jdbfs.mkdir("b", { durable = true }))
    put_durably("a/1", 1)
    put_durably("b/old", 9)
  end,
  body = function(state)
    local path = "a/1"
    state.from = path
    for _, to in ipairs { "a/2", "b/3", "b/old", "a/4", "a/5" } do
      state.to = to
      must(jdbfs.rename(path, to, { durable = true }))
      state.from, path = to, to
      state.renamed = true
    end
  end,
  check = function(state)
    local found = 0
    for _, path in ipairs { "a/1", "a/2", "b/3", "b/old", "a/4", "a/5" } do
      if jdbfs.exists(path) and content(path) ~= mark(9) then
        found = found + 1
        assert(content(path) == mark(1), path .. " is damaged")
        assert(path == state.from or path == state.to, path .. " is back")
      end
    end
    assert(found > 0, "the file is gone")
    assert(found == 1 or state.from ~= state.to, "the file is there twice")
  end,
})

workload("durable remove", {
  setup = function()
    for i = 1, 4 do put_durably("file" .. i, i) end
  end,
  body = function(state)
    for i = 1, 4 do
      state.asked = i
      must(jdbfs.remove("file" .. i, { durable = true }))
      state[i] = true
    end
  end,
  check = function(state)
    for i = 1, 4 do
      local there = jdbfs.exists("file" .. i)
      assert(not (state[i] and there), "file" .. i .. " is back")
      assert(there or i <= (state.asked or 0), "file" .. i .. " is gone")
    end
  end,
})

workload("atomic_write", {
  setup = function(state)
    must(jdbfs.mkdir("dir", { durable = true }))
    must(jdbfs.atomic_write("dir/config", "version 0"))
    state.acked = 0
  end,
  body = function(state)
    for version = 1, 5 do
      state.asked = version
      must(jdbfs.atomic_write("dir/config", ("version %d"):format(version):rep(version * 300)))
      state.acked = version
    end
  end,
  check = function(state)
    local data = content("dir/config")
    local version = tonumber(data:match("^version (%d)"))
    assert(version and data == ("version %d"):format(version):rep(math.max(version * 300, 1)),
      "neither the old content nor the new")
    assert(version == state.acked or version == state.asked, "version " .. version)
  end,
})

workload("atomic_write of a new file", {
  body = function(state)
    for i = 1, 4 do
      must(jdbfs.atomic_write("new" .. i, mark(i)))
      state[i] = true
    end
  end,
  check = function(state)
    for i = 1, 4 do
      local path = "new" .. i
      assert(not state[i] or jdbfs.exists(path), path .. " is gone")
      assert(not jdbfs.exists(path) or content(path) == mark(i), path .. " is damaged")
    end
  end,
})

-- ---- the log ------------------------------------------------------------------------------------

local SMALL = { segment_size = 16384, batch_size = 4096 }
local AGAIN = { segment_size = 16384, batch_size = 4096, spare_segments = 1 }
local ROOMY = { segment_size = 65536, batch_size = 4096 }

local function text_of(key, length)
  return ("%s;"):format(key):rep(math.ceil(length / (#key + 1))):sub(1, length)
end

local function append(log, state, key, length)
  local text = text_of(key, length)
  state.asked[text] = true
  local number = must(log:append(text))
  state.acked[number] = text
  state.last = math.max(state.last, number)
end

local function new_log(state)
  new_state(state)
  state.last, state.first = 0, 1
end

-- Every acknowledged record is there, under its number, and nothing that was not appended.
local function check_log(state)
  local log = assert(jdbfs.log("log", SMALL))
  assert(log:recovery().first >= (state.removed or 1), "a removed segment is back")
  assert(log:recovery().last >= (state.told or 0), "a record that an earlier recovery told of")
  local seen, expected = {}, nil
  local cursor = log:records()
  while true do
    local number, text, err = cursor:next()
    if not number then
      assert(not err, text)
      break
    end
    assert(not expected or number == expected, "a number is left out or comes twice")
    assert(state.asked[text], "a record that nobody appended")
    seen[number], expected = text, number + 1
  end
  cursor:close()
  for number, text in pairs(state.acked) do
    if number >= state.first then
      assert(seen[number] == text, ("record %d is gone or another"):format(number))
    end
  end
  -- It goes on from there.
  local number = assert(log:append("afterwards"))
  assert(number > state.last, "a number comes twice")
  assert(log:close())
  state.asked.afterwards = true
  state.acked[number] = "afterwards"
end

local function append_tasks(log, state, from, to)
  local tasks = {}
  for t = 1, 3 do
    tasks[t] = jdbfs.spawn(function()
      for i = from, to do append(log, state, ("task %d, record %d"):format(t, i), t * 900) end
      return true
    end)
  end
  wait_all(tasks)
end

-- Flushes that may be left out: the one of the still empty directory of a new log, and those of a
-- spare segment's zeros, which the header's repeats.
local function set_of(...)
  local set = {}
  for _, n in ipairs { ... } do set[n] = true end
  return set
end

workload("log appends", {
  harmless = set_of(1, 3, 9, 15),
  setup = new_log,
  body = function(state)
    local log = must(jdbfs.log("log", SMALL))
    append_tasks(log, state, 1, 4)
    must(log:close())
  end,
  check = check_log,
})

workload("log appends from one task", {
  harmless = set_of(1, 3, 8, 13, 18),
  setup = new_log,
  body = function(state)
    local log = must(jdbfs.log("log", SMALL))
    for i = 1, 6 do append(log, state, "record " .. i, 3000 * i % 7000) end
    must(log:close())
  end,
  check = check_log,
})

workload("log truncate_before", {
  harmless = set_of(1, 3, 9, 15),
  setup = new_log,
  body = function(state)
    local log = must(jdbfs.log("log", SMALL))
    for i = 1, 12 do
      append(log, state, "record " .. i, 3500)
      if i % 4 == 0 then
        state.first = math.max(state.first, i - 2)
        must(log:truncate_before(i - 2))
        state.removed = log:stats().first
      end
    end
    must(log:close())
  end,
  check = check_log,
})

-- The process dies, not the machine: the next one may only tell of a record when it is durable. The
-- batch in flight is written or not, and what is written is durable: its flush may be left out. The
-- segment has room, so that the batch is what is in flight, not a spare segment.
workload("log recovery after a kill", {
  harmless = set_of(1),
  setup = function(state)
    new_log(state)
    local log = must(jdbfs.log("log", ROOMY))
    append_tasks(log, state, 1, 2)
    local dies = jdbfs.spawn(function() append(log, state, "of the dead process", 3000) end)
    for _ = 1, 20 do
      if jdbfs.stats().in_flight == 0 then jdbfs.yield() end
    end
    assert(sim.kill())
    dies:cancel()
  end,
  body = function(state)
    local log = must(jdbfs.log("log", ROOMY))
    state.told = log:recovery().last
    append(log, state, "of the next", 3000)
    must(log:close())
  end,
  check = check_log,
})

-- A flush fails, the log is opened again and goes on: what recovery kept must be durable before the
-- next record is acknowledged, though the flush that failed is never made good. The segment has
-- room, so that none is made ready beside it, whose flush could be the one that fails.
workload("log opened again after a failed flush", {
  has_faults = true, -- flushes are left out of the other workloads
  setup = new_log,
  body = function(state)
    local log = must(jdbfs.log("log", ROOMY))
    append(log, state, "before", 3000)
    for _, op in ipairs { "flush", "write_at" } do
      assert(sim.fault { op = op, errno = "EIO", nth = 1 })
      local number = log:append("in doubt")
      assert(not number or not sim.state().power, "a failed flush was acknowledged")
      state.asked["in doubt"] = true
      log:close()
      log = must(jdbfs.log("log", ROOMY))
      append(log, state, "after", 3000)
    end
    must(log:close())
  end,
  check = check_log,
})

-- The power goes again during recovery, several times.
local function check_cut_short(state)
  for i = 1, 4 do
    assert(sim.cut(i * 2))
    local log = jdbfs.log("log", SMALL)
    if log then log:close() end
    assert(sim.crash { seed = i })
  end
  check_log(state)
  assert(sim.crash { seed = 7 })
  check_log(state)
end

workload("log recovery, itself cut short", {
  harmless = set_of(1, 3, 9, 15),
  setup = new_log,
  body = function(state)
    local log = must(jdbfs.log("log", SMALL))
    append_tasks(log, state, 1, 4)
    must(log:close())
  end,
  check = check_cut_short,
})

-- Older records lie behind the last one, and a torn batch among them.
local function append_and_give_up(state)
  local log = must(jdbfs.log("log", AGAIN))
  for i = 1, 14 do
    append(log, state, "record " .. i, i % 3 == 0 and 6000 or 3500)
    state.first = i
    must(log:truncate_before(i))
    state.removed = log:stats().first
  end
  assert(log:stats().reused > 1)
  must(log:close())
end

for name, check in pairs { [""] = check_log, [", recovery cut short"] = check_cut_short } do
  workload("log in segments that are used again" .. name, {
    harmless = set_of(1, 3),
    setup = new_log,
    body = append_and_give_up,
    check = check,
  })
end

-- ---- the example's store of objects -------------------------------------------------------------

local function put(store, state, name, data)
  local sent
  state.asked[name] = data
  must(store:put(name, function()
    if sent then return nil end
    sent = true
    return data
  end))
  state.acked[name], state.asked[name] = data, nil
end

workload("objects of the example, put, replaced and deleted", {
  setup = new_state,
  body = function(state)
    local store = must(objects.open("objects"))
    put(store, state, "small", mark(1))
    put(store, state, "large", mark(2):rep(40))
    put(store, state, "small", mark(3) .. "x")
    state.asked.large = false
    must(store:delete("large"))
    state.acked.large, state.asked.large = nil, nil
  end,
  check = function(state)
    local store = assert(objects.open("objects"))
    for _, name in ipairs { "small", "large" } do
      local object, message, err = store:get(name)
      local data = nil
      if object then
        data = ""
        while #data < object.size do data = data .. assert(object:read(#data, object.size)) end
        assert(object:close())
      else
        assert(err.name == "ENOENT", message)
      end
      local asked = state.asked[name] -- false: to be deleted
      assert(data == state.acked[name] or asked ~= nil and data == (asked or nil),
        name .. (data and " is another" or " is gone"))
    end
  end,
})

-- ---- the specs ----------------------------------------------------------------------------------

local function on_sim()
  return (jdbfs.info() or {}).backend == "sim"
end

describe("after a power cut", function()
  local all = 0
  teardown(function()
    if all > 0 then
      support.figures(("crash points: %d of %d workloads"):format(all, #workloads))
    end
  end)

  for _, w in ipairs(workloads) do
    it("keeps its promise: " .. w.name, function()
      if not on_sim() then return pending("needs JDBFS_BACKEND=sim") end
      local points, broken = rig.explore(w, { points = CRASHES })
      assert(not broken, broken)
      assert(points >= CRASHES)
      all = all + points
    end)
  end
end)

describe("the crash rig", function()
  local without_faults = {}
  for _, w in ipairs(workloads) do
    if not w.has_faults then without_faults[#without_faults + 1] = w end
  end
  for _, w in ipairs(without_faults) do
    it("misses every flush that is left out: " .. w.name, function()
      if not on_sim() then return pending("needs JDBFS_BACKEND=sim") end
      local flushes = rig.flushes(w)
      assert(flushes > 0, "no flush at all")
      for n = 1, flushes do
        local broken = w.harmless and w.harmless[n]
        if not broken then
          broken = select(2, rig.explore(w, { points = HUNT, omit = n }))
        end
        assert(broken, ("flush %d of %d was left out, and nothing was missed"):format(n, flushes))
      end
    end)
  end
end)
