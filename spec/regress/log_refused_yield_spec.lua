-- On 5.1 and 5.2 only the yield itself tells that a wait is impossible here. An append there raised
-- when its record was encoded already, and the record was written all the same.

local support = require "support"

local jdbfs = support.jdbfs

describe("an append where no wait is possible", function()
  support.setup()

  -- No Lua can yield out of the function that gsub calls.
  local function try(log, text)
    return (pcall(string.gsub, "x", "x", function() assert(log:append(text)) end))
  end

  local function texts(path)
    local log, found = assert(jdbfs.log(path)), {}
    for _, text in log:records() do found[text] = true end
    assert(log:close())
    return found
  end

  it("writes its record or raises, never both", function()
    local path = support.path("log")
    local idle, busy, after, large
    jdbfs.run(function()
      local log = assert(jdbfs.log(path, { batch_size = 4096 }))
      idle = try(log, "idle")
      local others = {}
      for i = 1, 3 do others[i] = jdbfs.spawn(function() return log:append("other " .. i) end) end
      jdbfs.yield()
      busy = try(log, "busy")
      large = try(log, ("l"):rep(10000))
      for i = 1, 3 do assert(others[i]:join()) end
      after = log:append("after")
      assert(log:close())
    end)
    local found = texts(path)
    assert.is_truthy(after)
    assert.is_true(found["after"] and found["other 1"] and found["other 3"])
    assert.equal(idle, found["idle"] or false)
    assert.equal(busy, found["busy"] or false)
    assert.equal(large, found[("l"):rep(10000)] or false)
  end)
end)
