-- The examples met failures of the disk in ways of their own: the page store opened with the commit
-- before the last one when the newer header could not be read, the LSM tree raised where it
-- promises a failure, and the key-value store kept the lock of a log that it had refused.

local jdbfs = require("jdbfs")
local kv = require("jdbfs.example.kv")
local lsm = require("jdbfs.example.lsm")
local pages = require("jdbfs.example.pages")
local support = require("support")

-- jdbfs[opener], whose files fail in that method when fails(...) is true.
local function with_failing(opener, method, fails, f)
  local open = jdbfs[opener]
  jdbfs[opener] = function(...)
    local file, message, err = open(...)
    if not file then return nil, message, err end
    return setmetatable({
      [method] = function(_, ...)
        if fails(...) then return nil, "no luck", { kind = "Io", name = "EIO" } end
        return file[method](file, ...)
      end,
    }, { __index = function(_, name)
      return function(_, ...) return file[name](file, ...) end
    end })
  end
  local results = { pcall(f) }
  jdbfs[opener] = open
  assert(results[1], results[2])
  return results[2], results[3], results[4]
end

describe("an example on a failing disk:", function()
  support.setup()

  it("the page store does not take an old header for the newest", function()
    local path = support.path("pages")
    local store = assert(pages.open(path, { direct = "prefer" }))
    local number = store:allocate()
    for commit = 1, 2 do
      assert(store:write(number, "commit " .. commit))
      assert(store:commit())
    end
    store:close()
    for place = 0, 1 do
      local opened, message = with_failing("open_rw", "read_upto",
        function(_, offset) return offset == place * 4096 end,
        function() return pages.open(path, { direct = "prefer" }) end)
      assert.is_nil(opened)
      assert.matches("no luck", message)
    end
    store = assert(pages.open(path, { direct = "prefer" }))
    assert.are.equal("commit 2", store:read(number))
    store:close()
  end)

  it("the page store returns that it cannot tell the size of its file", function()
    local opened, message = with_failing("open_rw", "size", function() return true end,
      function() return pages.open(support.path("pages"), { direct = "prefer" }) end)
    assert.is_nil(opened)
    assert.matches("no luck", message)
  end)

  it("the LSM tree returns what its manifest met", function()
    local path = support.path("tree")
    local tree = assert(lsm.open(path))
    assert(tree:put("a", "1"))
    assert(tree:flush())
    tree:close()
    for _, method in ipairs({ "size", "read" }) do
      local opened, message = with_failing("open", method, function() return true end,
        function() return lsm.open(path) end)
      assert.is_nil(opened)
      assert.are.equal("no luck", message)
    end
    tree = assert(lsm.open(path))
    assert.are.equal("1", tree:get("a"))
    tree:close()
  end)

  it("who refuses a log lets go of it", function()
    for name, example in pairs({ kv = kv, lsm = lsm }) do
      local path = support.path(name)
      local log_path = name == "lsm" and path .. "/wal" or path
      if name == "lsm" then assert(jdbfs.mkdir(path)) end
      local log = assert(jdbfs.log(log_path))
      assert(log:append("no change"))
      assert(log:close())
      local store, message = example.open(path)
      assert.is_nil(store)
      assert.matches("record 1: no change at byte 0", message)
      assert(assert(jdbfs.log(log_path)):close())
    end
  end)
end)
