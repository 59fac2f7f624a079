-- Several Lua states: in one process, one per thread, and one that is moved to another thread.

local process = require("support_process")
local support = require("support")

-- What a state does on its own: tasks, files, operations in place.
local WORK = [==[
  local number = ...
  local jdbfs = require "jdbfs"
  local page, path = jdbfs.PAGE_SIZE, "@DIR@/state" .. number
  local f = assert(jdbfs.create(path, { direct = "prefer" }))
  local sum = 0
  jdbfs.run(function()
    for i = 0, 15 do
      jdbfs.spawn(function()
        local b = jdbfs.buffer(page)
        b:fill((number * 16 + i) % 256)
        assert(f:write_at(b, i * page))
      end)
    end
  end)
  jdbfs.run(function()
    for i = 0, 15 do
      jdbfs.spawn(function()
        for _ = 1, 20 do
          local b = jdbfs.buffer(page)
          assert(f:read_at(b, i * page) == page)
          assert(b:u8(page - 1) == (number * 16 + i) % 256, "another state's data")
        end
        sum = sum + 1
      end)
    end
  end)
  assert(f:sync_data() and f:close() and jdbfs.remove(path))
  return "state " .. number .. " read " .. sum
]==]

describe("several Lua states", function()
  process.setup()

  local function script(source)
    local path, why = process.states()
    if not path then return nil, why end
    local work = support.path("work")
    support.put(work, WORK)
    local out = process.script([[
      local states = assert(package.loadlib(arg[3], "luaopen_states"))()
      local file = assert(io.open(arg[4]))
      local WORK = (file:read("*a"):gsub("@DIR@", dir))
      file:close()
      local _ = { states, WORK }
    ]] .. source .. "\nprint('ok')", { args = { path, work } })
    assert.are.equal("ok\n", out)
    return true
  end

  local function states(name, source, needs_descriptor)
    it(name, function()
      if needs_descriptor and support.on_windows then
        return pending("hosts wait for descriptors")
      end
      local ran, why = script(source)
      if not ran then return pending(why) end
    end)
  end

  states("one per thread, all at once, have queues of their own", [[
    local results = states.each(8, WORK)
    for i = 1, 8 do check("result", results[i] == ("state %d read 16"):format(i), results[i]) end
  ]])

  states("threads come and go beside a state that works", [[
    local f = assert(jdbfs.create(dir .. "/own", { direct = "prefer" }))
    jdbfs.run(function()
      local reads = 0
      jdbfs.spawn(function()
        for _ = 1, 200 do
          assert(f:write_at(jdbfs.buffer(4096), 0))
          reads = reads + 1
        end
      end)
      for _ = 1, 3 do
        for i, result in ipairs(states.each(4, WORK)) do
          check("result", result == ("state %d read 16"):format(i), result)
        end
        jdbfs.sleep(0.001)
      end
    end)
    assert(f:close())
  ]])

  states("a state moved to another thread gets a clear error", [[
    local prepare = [=[
      jdbfs = require "jdbfs"
      f = assert(jdbfs.create("]=] .. dir .. [=[/moved", { direct = "prefer" }))
      assert(f:write_at(jdbfs.buffer(4096), 0))
      task = jdbfs.spawn(function() jdbfs.sleep(0.01) f:read_at(jdbfs.buffer(4096), 0) end)
      jdbfs.step()
      return "prepared"
    ]=]
    local use = [=[
      local said = {}
      for _, call in ipairs {
        function() return f:read_at(jdbfs.buffer(4096), 0) end,
        function() return f:size() end,
        function() return jdbfs.exists("/") end,
        function() return jdbfs.step() end,
        function() return jdbfs.run(function() return true end) end,
        function() return jdbfs.pollfd() end,
        function() return jdbfs.info() end,
        function() return f:close() end,
      } do
        local value, message, err = call()
        local clear = value == nil and err.kind == "Unsupported" and
          message:find("belongs to another thread", 1, true)
        said[#said + 1] = clear and "clear" or tostring(value) .. tostring(message)
      end
      jdbfs.flush()
      jdbfs.stats()
      return table.concat(said, " ")
    ]=]
    for _, close_here in ipairs { false, true } do
      local first, second = states.moved(prepare, use, close_here)
      check("first", first == "prepared", first)
      check("second", second == ("clear "):rep(7) .. "clear", second)
    end
  ]])

  states("a state with a host that is moved gets it in its light threads, and they do not hang", [[
    local prepare = [=[
      jdbfs = require "jdbfs"
      assert(jdbfs.host {
        name = "mine", watch = function() end, wake = function() end,
        current = function() return coroutine.running() end,
        suspend = function() error("suspended for ever") end,
      })
      coroutine.wrap(function() assert(pcall(jdbfs.exists, "/") == false) end)()
      return "prepared"
    ]=]
    local use = [=[
      local value, message, err
      coroutine.wrap(function() value, message, err = jdbfs.exists("/") end)()
      return tostring(value) .. " " .. err.kind .. " " .. message
    ]=]
    local first, second = states.moved(prepare, use, true)
    check("first", first == "prepared", first)
    check("second", second:find("nil Unsupported", 1, true) and
      second:find("belongs to another thread", 1, true), second)
  ]], true)

  states("a state may be moved before its first operation", [[
    local first, second = states.moved("jdbfs = require 'jdbfs' return 'loaded'", WORK:gsub(
      "local number = ...", "local number = 3"))
    check("first", first == "loaded", first)
    check("second", second == "state 3 read 16", second)
  ]])

  states("a state may be used by one thread and closed by another", [[
    for _ = 1, 3 do
      local first, second = states.moved(WORK:gsub("local number = ...", "local number = 5"),
        "return 'nothing'")
      check("first", first == "state 5 read 16", first)
      check("second", second == "nothing", second)
    end
  ]])
end)
