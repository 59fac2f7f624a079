-- Typed access to buffers as LuaJIT compiles it: the same as the methods in C, whatever is asked
-- and whatever became of the buffer. On other Luas there are the methods in C only.

local jdbfs = require "jdbfs"
local process = require "support_process"
local support = require "support"

local PAGE = jdbfs.PAGE_SIZE
local NAMES = { "u8", "u16", "u32", "u64", "i32", "i64", "f64" }
local jit = rawget(_G, "jit")
local unpack = rawget(_G, "unpack") or table.unpack

-- The method in C that the compiled one falls back on; nil, why.
local function in_c(name)
  if not process.is_jit then return nil, "only LuaJIT has two ways" end
  local method = jdbfs.buffer(8)[name]
  for i = 1, 99 do
    local upvalue, value = debug.getupvalue(method, i)
    if upvalue == "slow" then return value, i end
    if not upvalue then return nil, "this LuaJIT does not compile" end
  end
end

local function test(name, body)
  it(name, function()
    local found, why = in_c("u32")
    if not found then return pending(why) end
    body()
  end)
end

-- Everything is compiled as soon as it repeats, so that little of the test is interpreted.
local function eager(f)
  jit.flush()
  jit.opt.start("hotloop=1", "hotexit=1")
  local results = { pcall(f) }
  jit.opt.start(3, "hotloop=56", "hotexit=10")
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2)
end

-- As text that tells -0 and kinds apart; names of functions in messages differ by how they are
-- called.
local function told(ok, value)
  if not ok then return "raised " .. tostring(value):gsub("'[^']*'", "") end
  if value == 0 then value = 1 / value == math.huge and "0" or "-0" end
  return type(value) .. " " .. tostring(value)
end

describe("typed access that LuaJIT compiles", function()
  support.setup()

  local OFFSETS = { 0, 1, 2, 3, 4, 8, 12, 16, 21, 24, 32, 40, 56, 60, 62, 63, 64, 65, 1e300, -1, -8,
    0.5, 4.25, 0 / 0, "8", "x", false }
  local VALUES = { 0, 1, -1, 127, 255, 256, 65535, 65536, 2 ^ 31 - 1, 2 ^ 31, -2 ^ 31, -2 ^ 31 - 1,
    2 ^ 32 - 1, 2 ^ 32, -2 ^ 32, 2 ^ 52 + 1, 2 ^ 53 - 1, 2 ^ 53, 2 ^ 53 + 2, -2 ^ 53, -2 ^ 53 - 2,
    2 ^ 63, 2 ^ 64, -2 ^ 63, 0.5, -0.25, 1 / 0, -1 / 0, 0 / 0, "7", "y", true, false }
  if process.is_jit then
    local text = "return 8LL, 16ULL, -1LL, 18446744073709551615ULL, 9223372036854775807LL"
    for _, value in ipairs({ assert(loadstring(text))() }) do
      OFFSETS[#OFFSETS + 1], VALUES[#VALUES + 1] = value, value
    end
  end

  -- `one` and `two` hold the same; so they must when both were asked for the same.
  local function compare(one, two)
    for _, name in ipairs(NAMES) do
      local fast, slow = one[name], in_c(name)
      for i = 1, #OFFSETS do
        local off = OFFSETS[i]
        for k = 0, #VALUES do
          local v = VALUES[k]
          local got = told(pcall(fast, one, off, v))
          local expected = told(pcall(slow, two, off, v))
          if got ~= expected then
            error(("%s(%s, %s): %s instead of %s"):format(name, tostring(off), tostring(v),
              got, expected), 0)
          end
          if k > 0 then
            got = told(pcall(fast, one, off))
            expected = told(pcall(slow, one, off))
            if got ~= expected then
              error(("%s(%s) after %s: %s instead of %s"):format(name, tostring(off), tostring(v),
                got, expected), 0)
            end
          end
        end
      end
    end
    assert.are.equal(two:string(), one:string())
  end

  test("is that of C, for every kind of offset and value", function()
    eager(function() compare(jdbfs.buffer(64), jdbfs.buffer(64)) end)
  end)

  test("is that of C in slices, aligned or not", function()
    for _, from in ipairs({ 3, 4092 }) do
      local one, two = jdbfs.buffer(2 * PAGE), jdbfs.buffer(2 * PAGE)
      eager(function() compare(one:slice(from, 64), two:slice(from, 64)) end)
      assert.are.equal(two:string(), one:string())
    end
  end)

  test("reads any bits as C does", function()
    local b, words = jdbfs.buffer(64), { "\0\0\0\0", "\255\255\255\255", "\0\0\240\127",
      "\1\0\240\255", "\0\0\248\255", "\0\0\0\128", "\255\255\255\127", "\0\0\32\0",
      "\255\255\31\0", "\0\0\224\255", "\255\255\223\255", "\1\2\3\4", "\0\0\250\255",
      "\0\0\255\255" }
    eager(function()
      for _, name in ipairs(NAMES) do
        local fast, slow = b[name], in_c(name)
        for i = 1, #words do
          for k = 1, #words do
            b:set(8, words[i] .. words[k])
            local got, expected = told(pcall(fast, b, 8)), told(pcall(slow, b, 8))
            if got ~= expected then error(name .. ": " .. got .. " instead of " .. expected, 0) end
          end
        end
      end
    end)
  end)

  test("is compiled, and calls C for nothing ordinary", function()
    local b, compiled, called = jdbfs.buffer(PAGE), 0, {}
    local function attached(what) if what == "stop" then compiled = compiled + 1 end end
    local restore = {}
    for _, name in ipairs(NAMES) do
      local slow, place = in_c(name)
      restore[#restore + 1] = function() debug.setupvalue(b[name], place, slow) end
      debug.setupvalue(b[name], place, function(...)
        called[#called + 1] = name
        return slow(...)
      end)
    end
    jit.flush()
    jit.attach(attached, "trace")
    local ok, message = pcall(function()
      for i = 0, 999 do
        b:u8(i, i % 256)
        b:u32(i - i % 4, b:u16(i - i % 2) + b:u8(i))
        b:u64(i - i % 8, i)
        b:f64(0, b:i64(i - i % 8) + b:i32(0))
        b:i32(8, -i)
        b:i64(16, -i)
        b:u16(24, b:f64(0) * 0 + i)
      end
    end)
    jit.attach(attached)
    for _, undo in ipairs(restore) do undo() end
    assert(ok, message)
    assert.is_true(compiled > 0)
    assert.are.same({}, called)
  end)

  -- How often `access` went well in a loop that does `change` half-way.
  local function times(access, change)
    local n = 0
    local ok, message = pcall(function()
      for i = 1, 400 do
        if i == 201 then change() end
        access(i)
        n = i
      end
    end)
    return n, not ok and message or nil
  end

  test("looks each time whether the buffer is there", function()
    local b = jdbfs.buffer(64)
    local slice = b:slice(8, 8)
    local n, message = times(function() b:u32(8, 5) end, function() b:free() end)
    assert.are.equal(200, n)
    assert.matches("Closed", message, 1, true)
    assert.are.equal(400, (times(function() slice:u32(0) end, function() end)))
  end)

  for _, call in ipairs({ "read_at", "write_at" }) do
    for _, change in ipairs({ false, true }) do
      test(("looks each time whether %s has it in flight, to %s"):format(call,
        change and "write" or "read"), function()
        jdbfs.run(function()
          local f, b = assert(jdbfs.create(support.path())), jdbfs.buffer(PAGE)
          assert(f:write_at(b, 0))
          local task
          local n, message = times(function() b:u32(4, change and 1 or nil) end, function()
            task = jdbfs.spawn(f[call], f, b, 0)
            jdbfs.yield()
            assert(task:status() == "waiting")
          end)
          if call == "write_at" and not change then
            assert.are.equal(400, n)
          else
            assert.are.equal(200, n)
            assert.matches("Busy", message, 1, true)
          end
          assert.are.equal(PAGE, task:join())
          assert.are.equal(400, (times(function() b:u32(4, 1) end, function() end)))
          f:close()
        end)
      end)
    end
  end

  test("meets finalizers that free the buffer", function()
    for round = 1, 20 do
      local b = jdbfs.buffer(64)
      local proxy = newproxy(true)
      getmetatable(proxy).__gc = function() b:free() end
      local function use() return b:u32(round % 8 * 4, round) and b:u64(8) end
      local ok, message = true, nil
      proxy = nil -- luacheck: ignore
      for _ = 1, 1e6 do
        ok, message = pcall(use)
        if not ok then break end
        local _ = { {} }
      end
      assert.is_false(ok)
      assert.matches("Closed", message, 1, true)
    end
  end)

  test("raises for what is no buffer", function()
    for _, wrong in ipairs({ 5, "b", {}, newproxy(true), io.stdout, function() end }) do
      local ok, message = pcall(jdbfs.buffer(8).u32, wrong, 0)
      assert.is_false(ok)
      assert.matches("jdbfs buffer expected", message, 1, true)
    end
    assert.is_false((pcall(jdbfs.buffer(8).u32)))
  end)

  it("raises in a forked child", function()
    local found, why = in_c("u32")
    if not found then return pending(why) end
    local forker
    forker, why = process.forker()
    if not forker then return pending(why) end
    process.script([[
      local b = jdbfs.buffer(64)
      local function use() return b:u32(8, 1) end
      for _ = 1, 300 do use() end
      local pid = forker.fork()
      if pid == 0 then
        local ok, message = pcall(use)
        forker._exit(not ok and message:find("Forked", 1, true) and 0 or 9)
      end
      check("in the child", forker.waitpid(pid) == 0)
      check("in the parent", use())
    ]], { forker = forker })
  end)
end)
