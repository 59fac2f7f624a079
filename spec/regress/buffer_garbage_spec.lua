-- Lua saw a few bytes of each buffer: beside a heap of its own that did not grow, buffers that
-- nobody held any more piled up until the machine had no memory for the next one.

local jdbfs = require "jdbfs"

local MIB = 1024 * 1024

describe("buffers that nobody holds", function()
  it("are collected before they are many times what is in use", function()
    local heap = {} -- after a collection Lua waits until it has doubled
    for i = 1, 400000 do heap[i] = {} end
    collectgarbage()
    local held, before, most = {}, jdbfs.stats().buffers, 0
    for i = 1, 64 do held[i] = assert(jdbfs.buffer(MIB)) end
    for _ = 1, 3000 do
      assert(jdbfs.buffer(MIB))
      most = math.max(most, jdbfs.stats().buffers - before)
    end
    assert.is_true(most < 600, most .. " buffers of 1 MiB were there, 64 in use")
    assert.are.equal(400000, #heap)
    assert.are.equal(64, #held)
  end)

  it("are left where the program has stopped the collector and says when", function()
    if _VERSION == "Lua 5.1" then return pending("5.1 does not tell whether it collects") end
    collectgarbage()
    local before = jdbfs.stats().buffers
    collectgarbage("stop")
    for _ = 1, 700 do assert(jdbfs.buffer(MIB)) end
    local there = jdbfs.stats().buffers - before
    collectgarbage("restart")
    collectgarbage()
    assert.are.equal(700, there)
  end)
end)
