-- What meets whoever has just installed it: `require` of a C module that was built for another Lua,
-- or is not there. (No compiler, liburing or header files: spec/tools/package.sh. io_uring
-- forbidden, locked memory short: 52. No direct I/O: 20. Read-only file systems: 82. Full disks:
-- 26.)

local support = require "support"

-- require "jdbfs" in another process, with that directory in place of the C modules' path.
local function message_with(directory)
  local result = support.script([[
    package.cpath = arg[1] .. "/?.so"
    print(select(2, pcall(require, "jdbfs")))
  ]], { args = { directory } })
  assert.are.equal("", result.err)
  return result.out
end

local function make_name()
  return rawget(_G, "jit") and "luajit" or "lua" .. _VERSION:match("%d%.%d")
end

describe("require \"jdbfs\"", function()
  support.setup()

  it("says which file was built for another Lua, and what to do", function()
    local why = support.lacks("cc")
    if why then return pending(why) end
    local place = support.path()
    local source = place .. ".c"
    support.put(source, [[
      int lua_of_another_version(void);
      int luaopen_jdbfs_core(void *L) { return L ? lua_of_another_version() : 0; }
    ]])
    local status, out = support.sh(("mkdir -p %s/jdbfs && cc -shared -fPIC -o %s/jdbfs/core.so %s")
      :format(place, place, source))
    assert.are.equal(0, status, out)
    local message = message_with(place)
    assert.matches("^jdbfs: [^\n]*/jdbfs/core.so was built for another Lua than Lua", message)
    assert.matches("lua_of_another_version", message, 1, true)
    assert.matches("make install LUA=" .. make_name(), message, 1, true)
    assert.matches("^[^\n]*\n$", message) -- one line
  end)

  it("says where it looked for the C module, and what to do", function()
    local message = message_with("/nowhere")
    assert.matches("^jdbfs: there is no C module", message)
    assert.matches("/nowhere/?.so", message, 1, true)
    assert.matches("make install LUA=" .. make_name(), message, 1, true)
    assert.matches("^[^\n]*\n$", message)
  end)
end)
