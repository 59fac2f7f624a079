-- The documents tell the truth: the README's first script runs as printed, and meta.lua and the
-- module name the same things.

local jdbfs = require "jdbfs"
local support = require "support"

local function read(path)
  local f = assert(io.open(path))
  local text = f:read("*a")
  f:close()
  return text
end

-- names[class] = set of functions, "jdbfs" for the module itself.
local function annotated(path)
  local names = {}
  for object, name in read(path or "lua/jdbfs/meta.lua"):gmatch("\nfunction (%w+)[.:]([%w_]+)%(") do
    names[object] = names[object] or {}
    names[object][name] = true
  end
  return names
end

local function methods_of(object)
  local debug_table = debug.getmetatable(object)
  return debug_table.__index
end

describe("the README", function()
  support.setup()

  it("has a first script that runs as printed", function()
    local script = read("README.md"):match("```lua\n(.-)```")
    local here = assert(support.path():match("^(.*)/"))
    support.put(here .. "/first.lua", script)
    local in_directory = "require('lfs').chdir(arg[1]) dofile('first.lua')"
    local result = support.script(in_directory, { args = { here } })
    assert.are.equal("", result.err)
    assert.matches("^this is page 0\nthis is page 1\n.*this is page 7\n$", result.out)
    assert.are.equal(0, result.status)
    assert.is_nil(support.get(here .. "/first.db"))
  end)
end)

describe("meta.lua", function()
  support.setup()

  it("annotates every function of the module, and no other", function()
    local documented = annotated().jdbfs
    for name, value in pairs(jdbfs) do
      if type(value) == "function" then
        assert.is_true(documented[name], name .. " is not in meta.lua")
      end
    end
    for name in pairs(documented) do
      assert.are.equal("function", type(jdbfs[name]), name .. " is not in the module")
    end
  end)

  it("annotates every method of files, buffers, tasks and the primitives, and no other", function()
    local names = annotated()
    local file = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local objects = {
      File = methods_of(file),
      Buffer = methods_of(jdbfs.buffer(1)),
      Semaphore = methods_of(jdbfs.semaphore(1)),
      Event = methods_of(jdbfs.event()),
      Queue = methods_of(jdbfs.queue(1)),
      Pool = methods_of(jdbfs.pool(1, 1)),
      Sim = require "jdbfs.sim",
    }
    jdbfs.run(function()
      local task = jdbfs.spawn(function() end)
      objects.Task = methods_of(task)
    end)
    file:close()
    for class, methods in pairs(objects) do
      for name in pairs(methods) do
        if not name:match("^__") then
          assert.is_true(names[class][name], class .. ":" .. name .. " is not in meta.lua")
        end
      end
      for name in pairs(names[class]) do
        assert.are.equal("function", type(methods[name]), class .. ":" .. name .. " does not exist")
      end
    end
  end)
end)

describe("workload_meta.lua", function()
  support.setup()

  it("annotates every method that workloads get, and no other", function()
    local names, objects = annotated("lua/jdbfs/workload_meta.lua"), {}
    for class, methods in pairs(require("jdbfs.command.context").classes) do
      objects[class] = methods
    end
    objects.Random = methods_of(require("jdbfs.core").random(1, 1, 1))
    for class, methods in pairs(objects) do
      for name, value in pairs(methods) do
        if type(value) == "function" and not name:match("^__") then
          assert.is_true(names[class][name], class .. ":" .. name .. " is not in workload_meta.lua")
        end
      end
    end
    for class, functions in pairs(names) do
      for name in pairs(functions) do
        assert.are.equal("function", type(objects[class][name]), class .. ":" .. name)
      end
    end
  end)
end)
