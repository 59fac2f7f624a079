-- The error object: nil, message, err.

local support = require("support")
local jdbfs = support.jdbfs
local both, fails = support.both, support.fails
local PAGE = jdbfs.PAGE_SIZE

local function failed(...)
  local value, message, err = ...
  assert.is_nil(value)
  return message, err
end

describe("an error", function()
  support.setup()

  both("comes as nil, a message and an object", function()
    local path = support.path()
    assert.equal(3, select("#", jdbfs.open(path)))
    local message, err = failed(jdbfs.open(path))
    assert.equal("string", type(message))
    assert.equal("table", type(err))
    assert.equal(message, err.message)
    assert.equal(message, tostring(err))
  end)

  both("names operation, path and cause in one sentence", function()
    local path = support.path()
    local message = failed(jdbfs.open(path))
    assert.equal("open " .. path .. ": No such file or directory (ENOENT)", message)
    message = failed(jdbfs.remove(path))
    assert.equal("remove " .. path .. ": No such file or directory (ENOENT)", message)
    local f = assert(jdbfs.create(path))
    message = failed(f:read_at(support.page(), 0))
    assert.equal(("read_at %s: end of file after 0 of %d bytes, offset 0, length %d"):format(
      path, PAGE, PAGE), message)
    f:close()
  end)

  -- In a script: busted has an assert of its own.
  it("makes assert raise the message", function()
    local path = support.path()
    local message = failed(jdbfs.stat(path))
    -- Most Lua versions put the position before it.
    local r = support.script([=[
      local jdbfs = require("jdbfs")
      local path, message = ...
      local function check(ok, raised)
        assert(not ok)
        raised = raised:match("[^\n]*")
        io.write(raised:sub(-#message), "\n")
      end
      check(pcall(function() return assert(jdbfs.stat(path)) end))
      check(pcall(jdbfs.run, function() return assert(jdbfs.stat(path)) end))
    ]=], { args = { path, message } })
    assert.equal(message .. "\n" .. message .. "\n", r.out, r.err)
  end)

  both("of the system has errno and its name", function()
    local path = support.path()
    local _, err = failed(jdbfs.open(path))
    assert.equal("Io", err.kind)
    assert.equal(2, err.errno)
    assert.equal("ENOENT", err.name)
    assert.equal("open", err.op)
    assert.equal(path, err.path)
  end)

  both("has no field that does not apply", function()
    fails({ kind = "Io", offset = "none", length = "none", actual = "none" },
      jdbfs.open(support.path()))
    local f = assert(jdbfs.create(support.path()))
    fails({ kind = "ShortRead", errno = "none", name = "none" }, f:read_at(support.page(), 0))
    fails({ kind = "Alignment", errno = "none", name = "none" }, f:read_at(support.page(), 1))
    fails({ kind = "Overflow", errno = "none", name = "none" }, f:truncate(-1))
    f:close()
    fails({ kind = "Closed", errno = "none", name = "none", offset = "none", actual = "none" },
      f:size())
    fails({ kind = "Overflow", path = "none", errno = "none" }, jdbfs.buffer(0))
  end)

  both("of a transfer tells offset, length and bytes moved, as numbers", function()
    local f = assert(jdbfs.create(support.path()))
    f:truncate(PAGE + 100)
    local _, err = failed(f:read_at(jdbfs.buffer(4 * PAGE), PAGE, PAGE, 2 * PAGE))
    assert.equal("ShortRead", err.kind)
    assert.equal(PAGE, err.offset)
    assert.equal(2 * PAGE, err.length)
    assert.equal(100, err.actual)
    f:close()
  end)

  both("has one of the contract's kinds", function()
    if support.on_sim then return pending(support.on_sim) end
    if support.not_linux then return pending(support.not_linux) end
    if not support.proc then return pending("there is no /proc here") end
    local f = assert(jdbfs.create(support.path()))
    local b = support.page()
    local kinds = {}
    for _, values in ipairs({
      { jdbfs.open(support.path()) }, { jdbfs.buffer(2 ^ 62) }, { f:read_at(b, 1) },
      { f:read_at(b, 0) }, { f:read_at(b, -1) }, { jdbfs.open("/proc/self/status") },
    }) do
      kinds[#kinds + 1] = values[3].kind
    end
    assert.same({ "Io", "Alloc", "Alignment", "ShortRead", "Overflow", "Unsupported" }, kinds)
    f:close()
    assert.equal("Closed", select(3, f:size()).kind)
  end)

  both("keeps its own values when later calls fail", function()
    local first, second = support.path(), support.path()
    local message, err = failed(jdbfs.open(first))
    for _ = 1, 100 do jdbfs.open(second) end
    collectgarbage()
    assert.equal(first, err.path)
    assert.equal(message, tostring(err))
    assert.truthy(message:find(first, 1, true))
  end)

  it("has a metatable that programs cannot change", function()
    local _, err = failed(jdbfs.open(support.path()))
    assert.equal("jdbfs.error", getmetatable(err))
    assert.is_false((pcall(setmetatable, err, {})))
  end)

  support.task("is delivered to the task that called, among many", function()
    local tasks = {}
    for i = 1, 100 do
      local path = support.path()
      if i % 2 == 0 then support.put(path, ("x"):rep(i)) end
      tasks[i] = { path, jdbfs.spawn(function() return jdbfs.size(path) end) }
    end
    for i = 1, 100 do
      local path, task = tasks[i][1], tasks[i][2]
      if i % 2 == 0 then
        assert.equal(i, task:join())
      else
        fails({ kind = "Io", op = "size", path = path, name = "ENOENT" }, task:join())
      end
    end
  end)

  both("is the same in a task, outside tasks and on every backend", function()
    local path = support.path("fixed")
    support.put(path, "hello")
    local function word(_, message)
      return message
    end
    local function all()
      local f = assert(jdbfs.open(path))
      local b = support.page()
      local list = {
        word(f:read_at(b, 0)), word(f:write_at(b, 0)), word(f:truncate(0)),
        word(f:read_at(b, 1)), word(f:read_at(b, 0, 1)), word(f:read(-1, 1)),
        word(jdbfs.mkdir(path .. "/x")), word(jdbfs.ls(path)),
        word(jdbfs.create(path, { exclusive = true })),
      }
      f:close()
      list[#list + 1] = word(f:size())
      return table.concat(list, "\n")
    end
    local here = all()
    for _, backend in ipairs({ "threads", "auto" }) do
      local r = support.script([[
        local jdbfs = require("jdbfs")
        local support = { page = function() return jdbfs.buffer(jdbfs.PAGE_SIZE) end }
        local path = ...
        local function failed(_, message) return (tostring(message)) end
        local f = assert(jdbfs.open(path))
        local b = support.page()
        local list = {
          failed(f:read_at(b, 0)), failed(f:write_at(b, 0)), failed(f:truncate(0)),
          failed(f:read_at(b, 1)), failed(f:read_at(b, 0, 1)), failed(f:read(-1, 1)),
          failed(jdbfs.mkdir(path .. "/x")), failed(jdbfs.ls(path)),
          failed(jdbfs.create(path, { exclusive = true })),
        }
        f:close()
        list[#list + 1] = failed(f:size())
        io.write(table.concat(list, "\n"))
      ]], { args = { path }, env = { JDBFS_BACKEND = backend } })
      assert.equal(here, r.out, r.err)
    end
  end)
end)

describe("a directory in another language", function()
  support.setup()

  it("does not change the names of errors", function()
    local r = support.script([[
      os.setlocale("")
      local _, message, err = require("jdbfs").open("missing")
      io.write(err.name, " ", err.kind)
    ]], { env = { LC_ALL = "C.UTF-8" } })
    assert.equal("ENOENT Io", r.out, r.err)
  end)
end)
