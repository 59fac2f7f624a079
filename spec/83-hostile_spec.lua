-- No call of the public interface crashes, hangs, leaks or answers in a shape of its own, whatever
-- it is given: spec/tools/hostile.lua in a process of its own, which may not take the machine's
-- memory. HOSTILE_STEPS and HOSTILE_SEED from the environment.

local process = require "support_process"
local support = require "support"

local function run_hostile(steps, prelude)
  local here = require("lfs").currentdir()
  local san = (os.getenv("JDBFS_TEST_SAN") or "") ~= ""
  -- The address sanitizer reserves all of the address space; Windows has no such limit.
  local limit = "ulimit -v 1500000; exec \"$@\""
  local dir = support.path("hostile")
  assert(support.jdbfs.mkdir(dir))
  local source = (prelude or "") .. "arg = { [0] = 'hostile', arg[1] }\n" ..
    "dofile(" .. ("%q"):format(here .. "/spec/tools/hostile.lua") .. ")"
  local r = support.script(source, {
    args = { dir },
    env = { HOSTILE_STEPS = tostring(steps), HOSTILE_SEED = os.getenv("HOSTILE_SEED") },
    prefix = not san and not support.on_windows and "sh -c " .. support.quote(limit) .. " sh"
      or nil,
  })
  return r, (support.get(dir .. "/last") or ""):match("[^\n]*")
end

describe("the public interface", function()
  process.setup()

  it("answers hostile values with results, failures and argument errors alone", function()
    local san = (os.getenv("JDBFS_TEST_SAN") or "") ~= ""
    local steps = tonumber(os.getenv("HOSTILE_STEPS")) or (san and 4000 or 10000)
    local r, last = run_hostile(steps)
    assert(r.status == 0, ("exit status %s, last call: %s\n%s%s"):format(
      tostring(r.status), last, r.out, r.err))
    assert.matches("^%d+ calls of %d+ functions, seed %d+", r.out)
    assert.is_true(tonumber(r.out:match("^%d+")) >= steps)
  end)

  -- The checker itself: a library that answers wrongly is caught.
  for what, wrong in pairs({
    ["false success"] = "jdbfs.exists = function() return nil end",
    ["an error of another kind"] = "jdbfs.size = function() return nil, 'm', { kind = 'Odd' } end",
    ["a raised table"] = "jdbfs.ls = function() error({}) end",
    ["a leak"] = "local b = jdbfs.buffer(1) jdbfs.now = function() return #b end",
    ["a missing function"] = "jdbfs.space = nil",
  }) do
    it("would not get away with " .. what, function()
      local r = run_hostile(2000, "local jdbfs = require 'jdbfs'\n" .. wrong .. "\n")
      assert.are.equal(1, r.status)
      assert.matches("VIOLATION at seed %d+, step %d+: ", r.err)
    end)
  end
end)
