-- Finalizers run in the middle of a call, whenever it allocates. What they do to the objects of
-- that call, or the operations they make, must not be pulled from under it.

local process = require "support_process"
local support = require "support"

-- Makes an object that runs f when it is collected, on every Lua.
local PRELUDE = [==[
local function finalizer(f)
  if newproxy then
    getmetatable(newproxy(true)).__gc = f
  else
    setmetatable({}, { __gc = f })
  end
end
]==]

describe("a finalizer", function()
  process.setup()

  it("may free the buffers that batches of a log are made of", function()
    local out = process.script(PRELUDE .. [==[
      local core, freed = require "jdbfs.core", 0
      collectgarbage("setpause", 0) -- what is newer is finalized first: not too much of it
      for _ = 1, 100 do
        collectgarbage()
        local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
        finalizer(function() freed = freed + 1 b:free() end)
        local ok, message
        for _ = 1, 20000 do
          ok, message = pcall(core.batches, b, b, "identity", 1)
          if not ok then break end
        end
        check("raises", not ok and message:find("Closed", 1, true), message)
      end
      print(freed)
    ]==])
    assert.is_true(tonumber(out) >= 100)
  end)

  for method, call in pairs({ string = "b.string, b, 0, 69999", slice = "b.slice, b, 0, 10" }) do
    it("may free the buffer whose method runs: " .. method, function()
      local out = process.script(PRELUDE .. [==[
        local freed = 0
        for i = 1, 200 do
          local b = jdbfs.buffer(70000 + i)
          b:fill(i % 256)
          local done = false
          finalizer(function() freed = freed + 1 done = true b:free() end)
          for _ = 1, 2000 do
            local ok, value = pcall(]==] .. call .. [==[)
            if not ok then
              check("raises", value:find("Closed", 1, true), value)
              break
            end
            if type(value) == "string" then check("its bytes", value:byte(1) == i % 256) end
            if done then break end
          end
        end
        check("it happened", freed > 100, freed)
        io.write("fine")]==])
      assert.are.equal("fine", out)
    end)
  end

  it("may drive tasks while the result of a call outside tasks is made", function()
    local out = process.script(PRELUDE .. [==[
      local f = check("create", jdbfs.create(dir .. "/f", { direct = "off" }))
      local b = jdbfs.buffer(65536)
      check("write", f:write_at(b, 0))
      local runs = 0
      local function arm()
        finalizer(function()
          runs = runs + 1
          jdbfs.run(function() check("size", f:size() == 65536) end)
          if runs < 2000 then arm() end
        end)
      end
      for _ = 1, 20 do arm() end
      for _ = 1, 3000 do
        check("bytes", #f:read(0, 60000) == 60000)
        check("stat", f:stat().size == 65536)
      end
      check("it happened", runs > 20, runs)
      io.write("fine")]==])
    assert.are.equal("fine", out)
  end)

  it("may start tasks while the results of another are kept", function()
    local out = process.script(PRELUDE .. [==[
      local started, wrong = 0, 0
      jdbfs.run(function()
        for i = 1, 3000 do
          finalizer(function() started = started + 1 jdbfs.spawn(function() end) end)
          local task = jdbfs.spawn(function() return i, { i } end)
          jdbfs.yield()
          local number, object = task:join()
          if number ~= i or type(object) ~= "table" or object[1] ~= i then wrong = wrong + 1 end
        end
      end)
      check("it happened", started > 500, started)
      check("results", wrong == 0, wrong)
      io.write("fine")]==])
    assert.are.equal("fine", out)
  end)

  for _, where in ipairs({ "in a task", "outside tasks" }) do
    it("may do I/O while a call is being refused " .. where, function()
      if (process.is_51 or _VERSION == "Lua 5.2") and where == "in a task" then
        return pending("plain Lua 5.1 and 5.2 cannot tell a finalizer from a task: its I/O raises")
      end
      local out = process.script(PRELUDE .. [==[
        local f = check("create", jdbfs.create(dir .. "/f", { direct = "prefer" }))
        local b = jdbfs.buffer(8192)
        local done = 0
        local function body()
          for _ = 1, 2000 do
            finalizer(function() done = done + (f:size() and 1 or 0) end)
            check("refused", not f:write_at(b, -1))
            check("refused", not f:read_many({ { b, 0 }, { b, 0 } }))
            check("refused", not f:write_many({ { b, 0 }, { b, -1 } }))
            check("written", f:write_many({ { b, 0 }, { b, 8192 } }) == 2)
          end
        end
        if arg[3] == "in a task" then jdbfs.run(body) else body() end
        check("it happened", done > 500, done)
        check("close", f:close())
        io.write("fine")]==], { args = { where } })
      assert.are.equal("fine", out)
    end)
  end
end)

describe("an argument", function()
  support.setup()

  it("is never asked for its text when it is foreign cdata", function()
    if not process.is_jit then return pending("needs LuaJIT's ffi") end
    local ffi = require("ffi")
    local asked = 0
    local evil = ffi.metatype("struct { int x; }", { __tostring = function()
      asked = asked + 1
      return "1LL"
    end })()
    local b = support.page()
    local f = assert(support.jdbfs.create(support.path(), { direct = "prefer" }))
    support.raises("number expected", b.u8, b, evil)
    support.raises("number expected", f.write_at, f, b, evil)
    support.raises("number expected", f.write_many, f, { { b, evil } })
    assert.are.equal(0, asked)
    assert.are.equal(4096, f:write_at(b, ffi.new("uint64_t", 4096), ffi.new("int64_t", 0), 4096))
    assert(f:close())
  end)

  it("that changes the list while it is read is noticed", function()
    local b, other = support.page(), support.page()
    local f = assert(support.jdbfs.create(support.path(), { direct = "prefer" }))
    for _ = 1, 200 do
      local list = { { b, 0 }, { b, 4096 } }
      local function swap() list[1], list[2] = { other, 0 }, nil end
      if newproxy then getmetatable(newproxy(true)).__gc = swap
      else setmetatable({}, { __gc = swap }) end
      local ok, _, err = f:write_many(list)
      assert(ok == 2 or ok == 1 or err.kind == "Busy", err and err.message)
    end
    assert(f:close())
  end)

  it("that runs Lua code for its value may change the list, or free a buffer", function()
    if not process.is_jit then return pending("only LuaJIT's 64-bit numbers are asked for") end
    local out = process.script([==[
      local f = check("create", jdbfs.create(dir .. "/f", { direct = "prefer" }))
      check("written", f:write_at(jdbfs.buffer(8192), 0))
      local zero, list, change = require("ffi").new("uint64_t", 0)
      require("jdbfs.core").box_u64(function() end, function(value)
        if change then change() end
        return tostring(value)
      end)
      local function refused(why, act)
        list, change = { { jdbfs.buffer(4096), 4096 }, { jdbfs.buffer(4096), zero } }, act
        local n, message, err = f:read_many(list)
        check(why, not n and err.index == 1 and message:find(why, 1, true), message)
        change = nil
        check("read", f:read_many({ list[2] }) == 1)
      end
      refused("was freed", function() list[1][1]:free() end)
      refused("was changed", function() list[1][1] = jdbfs.buffer(4096) collectgarbage() end)
      refused("was changed", function() list[1] = nil end)
      io.write("fine")]==])
    assert.are.equal("fine", out)
  end)
end)
