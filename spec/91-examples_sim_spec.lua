-- What the examples promise of a crash: the power is cut at every step of a program on the
-- simulated disk, again and again with other seeds. And with a flush left out the promise must be
-- seen broken. What they promise of failures: each operation fails in turn.
-- JDBFS_CRASH_POINTS: crashes a program, default 100.

local jdbfs = require "jdbfs"
local rig = require "support_crash"
local support = require "support"

local copy = require "jdbfs.example.copy"
local kv = require "jdbfs.example.kv"
local lsm = require "jdbfs.example.lsm"
local objects = require "jdbfs.example.objects"
local pages = require "jdbfs.example.pages"
local sim = require "jdbfs.sim"

local FAILED = {}
local may_fail = false -- where operations fail on purpose, a failure ends the run

local function must(...)
  local value, message = ...
  if not may_fail or value then return rig.must(...) end
  error(type(message) == "string" and FAILED or "a failure without a message", 0)
end

local POINTS = tonumber(os.getenv("JDBFS_CRASH_POINTS") or "") or 100

-- After a crash a store that keeps single values has what was acknowledged, or what was asked for
-- later. state.wanted[key]: list of values, each asked for; state.sure[key]: index of the last one
-- that was acknowledged.
local function ask(state, key, value)
  state.wanted = state.wanted or {}
  state.sure = state.sure or {}
  local list = state.wanted[key] or {}
  state.wanted[key] = list
  list[#list + 1] = value
  return #list
end

local function check_values(state, get)
  for key, list in pairs(state.wanted or {}) do
    local value, found = get(key) or false, nil
    for i = state.sure[key] or 1, #list do found = found or list[i] == value end
    found = found or (not state.sure[key] and value == false)
    if not found then
      error(("%s is %s, acknowledged was %s"):format(key, tostring(value):sub(1, 40),
        tostring(list[state.sure[key]]):sub(1, 40)))
    end
  end
end

local workloads = {}

local function add(name, w)
  w.name = name
  workloads[#workloads + 1] = w
end

-- A commit is all or nothing: every page says which commit it is of, and all agree.
add("the page store", {
  body = function(state)
    local store = must(pages.open("pages", { buffers = 8 }))
    local numbers = {}
    for commit = 1, 4 do
      if commit == 3 then store:free(table.remove(numbers, 1)) end
      numbers[#numbers + 1] = store:allocate()
      local tasks = {}
      for i, number in ipairs(numbers) do
        tasks[i] = jdbfs.spawn(store.write, store, number, ("commit %d"):format(commit))
      end
      for _, task in ipairs(tasks) do must(task:join()) end
      state.asked, state.count = commit, #numbers
      must(store:commit())
      state.sure = commit
    end
    store:close()
  end,
  again = function()
    local store = must(pages.open("pages"))
    for number, place in ipairs(store.map) do
      if place ~= 0 then must(store:read(number)) end
    end
    store:close()
  end,
  check = function(state)
    local store, message = pages.open("pages")
    if not store then
      assert(not state.sure, message)
      return
    end
    local seen
    for number = 1, 4 do
      local text = store:read(number)
      assert(text or store.map[number] == nil or store.map[number] == 0, "a damaged page")
      local commit = text and tonumber(text:match("%d+"))
      if commit then
        assert(not seen or seen == commit, "half a commit")
        seen = commit
      end
    end
    assert((seen or 0) >= (state.sure or 0) and (seen or 0) <= (state.asked or 0),
      ("commit %s is there, %s was acknowledged"):format(tostring(seen), tostring(state.sure)))
    assert(store:write(store:allocate(), "more") and store:commit(), "it does not go on")
    store:close()
  end,
})

local function put(state, store, key, value)
  local at = ask(state, key, value)
  local ok, message = store:put(key, value)
  must(ok, message)
  state.sure[key] = at
end

add("the key-value store", {
  body = function(state)
    local store = must(kv.open("kv", { segment_size = 8192 }))
    for round = 1, 2 do
      local tasks = {}
      for key = 1, 4 do -- compact makes two records of them
        tasks[key] = jdbfs.spawn(put, state, store, "k" .. key, ("%d"):format(round):rep(40000))
      end
      for _, task in ipairs(tasks) do
        if not select(1, jdbfs.pcall(task.join, task)) then must(nil, "stopped") end
      end
      if round == 1 then must(store:compact()) end
    end
    store:close()
  end,
  again = function() must(kv.open("kv")):close() end,
  check = function(state)
    local store = kv.open("kv")
    if not store then
      assert(not next(state.sure or {}), "it does not open")
      return
    end
    check_values(state, function(key) return store:get(key) end)
    store:close()
  end,
})

add("the LSM tree", {
  body = function(state)
    local tree = must(lsm.open("tree", { memory = 700, log = { segment_size = 8192 } }))
    for i = 1, 14 do put(state, tree, "k" .. i % 4, ("value %d "):format(i):rep(30)) end
    tree:close()
  end,
  again = function()
    local tree = must(lsm.open("tree"))
    local whole, next_change = jdbfs.pcall(tree.range, tree)
    must(whole, next_change)
    for i = 0, 3 do
      local found, value = jdbfs.pcall(tree.get, tree, "k" .. i)
      must(found, value)
    end
    tree:close()
  end,
  check = function(state)
    local tree, message = lsm.open("tree")
    assert(tree, message)
    check_values(state, function(key) return tree:get(key) end)
    tree:close()
  end,
})

add("the copy", {
  setup = function()
    local file = assert(jdbfs.create("from", { durable_create = true }))
    local buffer = jdbfs.buffer(65536)
    for off = 0, 65536 - 4096, 4096 do buffer:fill(off / 4096 + 1, off, 4096) end
    assert(file:write_at(buffer, 0))
    assert(file:truncate(60000))
    assert(file:sync_all())
    assert(file:close())
  end,
  body = function(state)
    must(copy("from", "to", { block = 8192, depth = 4 }))
    state.sure = true
  end,
  again = function() end,
  check = function(state)
    if may_fail and not state.sure then assert(not jdbfs.exists("to"), "half a copy is there") end
    if state.sure then assert(rig.content("from") == rig.content("to"), "the copy is another") end
  end,
})

local function source_of(text)
  local at = -49999
  return function()
    at = at + 50000
    if at <= #text then return text:sub(at, at + 49999) end
  end
end

local function get_object(store, name)
  local object, message, err = store:get(name)
  if not object then return nil, message, err end
  local parts, at = {}, 0
  local piece
  repeat
    piece, message, err = object:read(at, object.size)
    parts[#parts + 1], at = piece, at + #(piece or "")
  until not piece or piece == ""
  object:close()
  if not piece then return nil, message, err end
  return table.concat(parts)
end

add("the store of objects", {
  body = function(state)
    local store = must(objects.open("objects", { buffers = 2 }))
    for version, size in ipairs({ 3, 61441, 131073 }) do
      for name = 1, 2 do
        local text = ("%d"):format(version):rep(size)
        local at = ask(state, "o" .. name, text)
        must(store:put("o" .. name, source_of(text)))
        state.sure["o" .. name] = at
      end
    end
    local at = ask(state, "o2", false)
    must(store:delete("o2"))
    state.sure.o2 = at
    must(store:list())
    must(store:sweep())
  end,
  again = function()
    local store = must(objects.open("objects"))
    for _, name in ipairs(must(store:list())) do must(get_object(store, name)) end
  end,
  check = function(state)
    local store = assert(objects.open("objects"))
    check_values(state, function(name)
      local text, message, err = get_object(store, name)
      assert(text or err.name == "ENOENT", message)
      return text
    end)
    for _, name in ipairs(assert(jdbfs.ls("objects"))) do
      assert(name:sub(1, 1) == "o", "an upload was not swept")
    end
  end,
})

describe("after a power cut", function()
  support.setup()

  for _, w in ipairs(workloads) do
    it(w.name .. " keeps its promise", function()
      local points, broken = rig.explore(w, { points = POINTS })
      assert.is_nil(broken)
      assert.is_true(points >= POINTS)
    end)
  end
end)

describe("a flush left out", function()
  support.setup()

  -- Some flushes are of names that a later one covers: not each of them can be missed, most are.
  for _, w in ipairs(workloads) do
    it("is noticed in " .. w.name, function()
      local flushes, tried, noticed = rig.flushes(w), 0, 0
      for omit = 1, flushes, math.max(1, math.floor(flushes / 5)) do
        local _, broken = rig.explore(w, { points = 1, omit = omit })
        tried, noticed = tried + 1, noticed + (broken and 1 or 0)
      end
      assert.is_true(noticed >= 2, ("%d of %d"):format(noticed, tried))
    end)
  end
end)

describe("when any operation fails", function()
  support.setup()

  after_each(function() may_fail = false end)

  -- f(state) until it ends or fails; the process then ends, and the next one has no faults.
  local function failing(f, state, n)
    assert(sim.fault { nth = n, errno = "EIO" })
    local before = sim.state().faults
    may_fail = true
    local ok, message = pcall(jdbfs.run, f, state)
    local met = sim.state().faults > before
    assert(ok or met and message == FAILED, message)
    assert(sim.kill())
    return met
  end

  local function each_in_turn(w, program, before)
    for n = 1, 10000 do
      may_fail = false
      assert(sim.reset { seed = n })
      local state = {}
      if w.setup then jdbfs.run(w.setup, state) end
      if before then
        jdbfs.run(before, state)
        assert(sim.kill())
      end
      if not failing(program, state, n) then return n end
      local ok, message = pcall(jdbfs.run, w.check, state)
      assert(ok, ("operation %d: %s"):format(n, tostring(message)))
    end
  end

  for _, w in ipairs(workloads) do
    it(w.name .. " says so and keeps its promise", function()
      assert.is_true(each_in_turn(w, w.body) > 10)
    end)

    it(w.name .. " opened again says so and keeps its promise", function()
      each_in_turn(w, w.again, w.body)
    end)
  end
end)
