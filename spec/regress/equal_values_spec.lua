-- Values that tasks and generators hand over were compared with marks of ours by ==, which calls
-- their __eq (Lua 5.3 and later; LuaJIT for cdata): that raised, or took a value for nil.

local jdbfs = require "jdbfs"

local function raise() error("compared", 0) end

-- One of each kind that may have an __eq that is asked about other things.
local function values()
  local list = {
    setmetatable({}, { __eq = raise }),
    setmetatable({}, { __eq = function() return true end }),
  }
  if type(jit) == "table" then
    local ffi = require "ffi"
    list[3] = ffi.metatype(ffi.typeof("struct { int x; }"), { __eq = raise })()
  else
    list[3] = jdbfs.run(jdbfs.spawn, function() end) -- a userdata like any other
    debug.setmetatable(list[3], { __eq = raise })
  end
  return list
end

describe("a value with an __eq of its own", function()
  it("comes out of a queue", function()
    for _, value in ipairs(values()) do
      local queue = jdbfs.queue()
      queue:put(value)
      assert.is_true(rawequal(value, queue:take()))
    end
  end)

  it("comes out of a generator", function()
    for _, value in ipairs(values()) do
      jdbfs.run(function()
        local generator = jdbfs.wrap(function() coroutine.yield(value) end)
        assert.is_true(rawequal(value, generator()))
      end)
    end
  end)

  it("is joined", function()
    for _, value in ipairs(values()) do
      jdbfs.run(function()
        local task = jdbfs.spawn(function() return value end)
        assert.is_true(rawequal(value, (task:join())))
      end)
    end
  end)

  it("comes out of a pcall that yields", function()
    for _, value in ipairs(values()) do
      local generator = coroutine.wrap(function()
        jdbfs.pcall(function() coroutine.yield(value) end)
      end)
      assert.is_true(rawequal(value, generator()))
    end
  end)
end)
