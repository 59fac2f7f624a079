-- The documents tell the truth: what the README prints runs as printed, meta.lua and the module
-- name the same things, every example of it runs and gives what it says, and the man pages are made
-- of it.

local jdbfs = require "jdbfs"
local lfs = require "lfs" -- of the system: documents lie there
local support = require "support"

package.path = package.path .. ";spec/tools/?.lua"
local reference = require "reference"

local function read(path)
  local f = assert(io.open(path))
  local text = f:read("*a")
  f:close()
  return text
end

-- names[class] = set of functions, "jdbfs" for the module itself.
local function annotated(path)
  local names = {}
  for _, section in ipairs(reference.parse(path or "lua/jdbfs/meta.lua")) do
    for _, item in ipairs(section.items) do
      if item.object then
        names[item.object] = names[item.object] or {}
        names[item.object][item.name] = item
      end
    end
  end
  return names
end

local function fields_of(class)
  for _, section in ipairs(reference.parse("lua/jdbfs/meta.lua")) do
    for _, item in ipairs(section.items) do
      if item.class == class then return item.fields end
    end
  end
end

local function methods_of(object)
  local debug_table = debug.getmetatable(object)
  return debug_table.__index
end

-- ---- the README ---------------------------------------------------------------------------------

-- The text of a section, up to the next heading of its rank.
local function section_of(title)
  local text = read("README.md")
  local from = assert(text:find("\n## " .. title .. "\n", 1, true), "no section " .. title)
  return text:sub(from + 1, (text:find("\n## ", from + 1, true) or 0) - 1)
end

local function blocks_of(title, language)
  local list = {}
  for block in ("\n" .. section_of(title)):gmatch("\n```" .. language .. "\n(.-)```") do
    list[#list + 1] = block
  end
  return list
end

-- In an empty directory, as a program of its own.
local function run_printed(script)
  local here = assert(support.path():match("^(.*)/"))
  support.put(here .. "/printed.lua", script)
  local result = support.script("require('lfs').chdir(arg[1]) dofile('printed.lua')",
    { args = { here }, prefix = "env -u JDBFS_BACKEND" })
  assert.are.equal("", result.err)
  assert.are.equal(0, result.status)
  return result.out, here
end

-- What a command line of the README does, with the command of this tree.
local function run_command(line, here)
  local result = support.script([[
    require("lfs").chdir(arg[1])
    local words = {}
    for word in arg[2]:gsub("'(.-)'", function(w) return (w:gsub(" ", "\1")) end):gmatch("%S+") do
      words[#words + 1] = word:gsub("\1", " ")
    end
    table.remove(words, 1)
    os.exit(require("jdbfs.cli").main(words))
  ]], { args = { here, line } })
  return result.status, result.out .. result.err
end

describe("the README", function()
  support.setup()

  it("has a first script that runs as printed", function()
    local out, here = run_printed(blocks_of("A first script", "lua")[1])
    assert.matches("^this is page 0\nthis is page 1\n.*this is page 7\n$", out)
    assert.is_nil(support.get(here .. "/first.db"))
  end)

  it("has a log that runs as printed", function()
    local out = run_printed("local jdbfs = require 'jdbfs'\n" .. blocks_of("A log", "lua")[1])
    assert.are.equal("0\ttrue\n1\tpaid: 17\n", out)
  end)

  it("has a workload that runs as printed", function()
    if support.on_wine then return pending("speed in wine is no speed") end
    local here = assert(support.path():match("^(.*)/"))
    support.put(here .. "/commits.lua", blocks_of("The command", "lua")[1])
    local line = blocks_of("The command", "sh")[1]:match("^jdbfs run commits.lua[^\n]*")
    local status, out = run_command(line, here)
    assert.are.equal(0, status, out)
    assert.matches("client.write_sync", out, 1, true)
    assert.matches("checkpoint", out)
  end)

  it("has a luv program that runs as printed", function()
    if not support.has_module("luv") then return pending("luv is not installed for this Lua") end
    local out = run_printed(blocks_of("In somebody else's event loop", "lua")[1])
    assert.are.equal("hello from libuv's loop\n", out)
  end)

  it("has simulated disks that run as printed", function()
    for _, block in ipairs(blocks_of("A simulated disk", "lua")) do
      assert.matches("^true\n$", (run_printed(block)))
    end
  end)

  it("has an example of every module of jdbfs.example, and of no other", function()
    local told = {}
    for name in section_of("Examples"):gmatch("`jdbfs%.example%.([%w_]+)`") do told[name] = true end
    for name in lfs.dir("lua/jdbfs/example") do
      name = name:match("^(.*)%.lua$")
      if name then
        assert.is_true(told[name], name .. " is not in the README")
        told[name] = nil
      end
    end
    assert.is_nil(next(told))
  end)

  it("links to headings that it has, and names files that are there", function()
    local text = read("README.md")
    local anchors = {}
    for heading in text:gmatch("\n##+ ([^\n]+)") do
      anchors[heading:lower():gsub("[^%w%- ]", ""):gsub(" ", "-")] = true
    end
    for anchor in text:gmatch("%]%(#([^)]+)%)") do
      assert.is_true(anchors[anchor], "no heading for #" .. anchor)
    end
    for path in text:gmatch("%]%((%w[^)#:]*)%)") do
      assert.is_not_nil(lfs.attributes(path), path .. " is not there")
    end
    for path in text:gmatch("`(%w+/[%w/_.-]+%.%w+)`") do
      local known = path:match("^spec/") or path:match("^csrc/") or path:match("^lua/jdbfs/")
      if known and not path:find("*", 1, true) then
        assert.is_not_nil(lfs.attributes(path), path .. " is not there")
      end
    end
  end)

  it("walks one read through files and functions that are there", function()
    local sources, named = {}, 0
    for name in lfs.dir("csrc") do
      if name:find("%.[ch]$") then sources[#sources + 1] = name .. "\n" .. read("csrc/" .. name) end
    end
    local all = table.concat(sources, "\n")
    local walk = section_of("Working on it"):match("\n1%. .-\nTo add")
    for name in walk:gmatch("`(%l+_[%l_]+)`") do
      named = named + 1
      assert.is_truthy(all:find("%f[%w_]" .. name .. "%("), name .. " is not there")
    end
    for name in walk:gmatch("`([%l_]+%.c)`") do
      assert.is_truthy(all:find(name .. "\n", 1, true), name .. " is not there")
    end
    assert.is_true(named >= 10)
  end)

  it("numbers its guarantees, and each names specs that are there", function()
    local number = 0
    for n, promise in ("\n" .. section_of("Guarantees")):gmatch("\n(%d+)%. (.-%))%f[\n]") do
      number = number + 1
      assert.are.equal(number, tonumber(n))
      local named = 0
      for path in promise:gmatch("`(spec/[%w/_.-]+)`") do
        named = named + 1
        assert.is_not_nil(lfs.attributes(path), path .. " is not there")
      end
      assert.is_true(named > 0, "guarantee " .. n .. " names no spec")
    end
    assert.is_true(number >= 12)
  end)
end)

-- ---- the reference ------------------------------------------------------------------------------

describe("meta.lua", function()
  support.setup()

  it("annotates every function of the module, and no other", function()
    local documented = annotated().jdbfs
    for name, value in pairs(jdbfs) do
      if type(value) == "function" then
        assert.is_not_nil(documented[name], name .. " is not in meta.lua")
      end
    end
    for name in pairs(documented) do
      assert.are.equal("function", type(jdbfs[name]), name .. " is not in the module")
    end
  end)

  it("annotates every method of every object, and no other", function()
    local names = annotated()
    local file = assert(jdbfs.create(support.path(), { direct = "prefer" }))
    local log = assert(jdbfs.log(support.path("log"), { direct = "prefer" }))
    local cursor = log:records()
    local objects = {
      File = methods_of(file),
      Buffer = methods_of(jdbfs.buffer(1)),
      Semaphore = methods_of(jdbfs.semaphore(1)),
      Event = methods_of(jdbfs.event()),
      Queue = methods_of(jdbfs.queue(1)),
      Pool = methods_of(jdbfs.pool(1, 1)),
      Log = methods_of(log),
      Cursor = methods_of(cursor),
      Writer = methods_of(jdbfs.writer(file)),
      Reader = methods_of(jdbfs.reader(file)),
      Sim = require "jdbfs.sim",
      jdbfs = jdbfs,
    }
    jdbfs.run(function()
      local task = jdbfs.spawn(function() end)
      objects.Task = methods_of(task)
    end)
    cursor:close()
    log:close()
    file:close()
    for class, methods in pairs(objects) do
      for name, value in pairs(methods) do
        if type(value) == "function" and not name:match("^_") then
          assert.is_not_nil(names[class][name], class .. ":" .. name .. " is not in meta.lua")
        end
      end
    end
    for class, functions in pairs(names) do
      assert.is_not_nil(objects[class], "no " .. class .. " was looked at")
      for name in pairs(functions) do
        assert.are.equal("function", type(objects[class][name]),
          class .. ":" .. name .. " does not exist")
      end
    end
  end)

  -- Both directions: every field of a result is told, and every field told without "?" is there.
  local function check_fields(class, value)
    local told = {}
    for _, field in ipairs(assert(fields_of(class), class)) do
      told[field.name] = true
      if not field.type:match("%?$") then
        assert.is_not_nil(value[field.name], class .. "." .. field.name .. " is absent")
      end
    end
    for name in pairs(value) do
      assert.is_true(told[name], class .. "." .. tostring(name) .. " is not in meta.lua")
    end
  end

  it("tells every field of what the module gives, and no other", function()
    local path = support.path()
    local file = assert(jdbfs.create(path, { direct = "prefer" }))
    local info = file:info()
    check_fields("jdbfs.FileInfo", info)
    check_fields("jdbfs.Durability", info.durability)
    check_fields("jdbfs.Stat", file:stat())
    check_fields("jdbfs.Probe", jdbfs.probe(path))
    check_fields("jdbfs.Info", jdbfs.info())
    check_fields("jdbfs.Stats", jdbfs.stats())
    local log = assert(jdbfs.log(support.path("log"), { direct = "prefer" }))
    check_fields("jdbfs.Recovery", log:recovery())
    check_fields("jdbfs.LogStats", log:stats())
    log:close()
    local _, _, err = file:read_at(jdbfs.buffer(4096), 4096)
    check_fields("jdbfs.Error", { kind = err.kind, message = err.message, op = err.op,
      path = err.path, offset = err.offset, length = err.length, actual = err.actual })
    file:close()
    if support.on_sim then check_fields("jdbfs.SimState", require("jdbfs.sim").state()) end
  end)

  it("tells every option, and no other", function()
    local path = support.path()
    for _, field in ipairs(fields_of("jdbfs.OpenOptions")) do
      for word in field.type:gmatch('"([^"]*)"') do
        local f, message, err = jdbfs.open_rw(path, { direct = "prefer", [field.name] = word })
        assert.is_true(f ~= nil or err.kind == "Unsupported", message)
        if f then f:close() end
      end
      local value = nil
      if field.type:match("^boolean") then value = false end
      if field.type:match("^integer") then value = 384 end
      jdbfs.open_rw(path, { [field.name] = value }) -- raises for an option that there is not
    end
    support.raises("unknown option bad", function() jdbfs.open_rw(path, { bad = 1 }) end)
  end)

  it("says of each function what it does, takes and gives, whether it waits, and how it fails",
    function()
      local kinds = {}
      for _, section in ipairs(reference.parse("lua/jdbfs/meta.lua")) do
        for _, item in ipairs(section.items) do
          for _, value in ipairs(item.values or {}) do kinds[value.value:match("%w+")] = true end
        end
      end
      local class_waits = { Buffer = true } -- said of the class
      for class, functions in pairs(annotated()) do
        for name, f in pairs(functions) do
          local where, text = class .. "." .. name, table.concat(f.text, " ")
          assert.is_true(#text > 0, where .. " says nothing")
          assert.is_not_nil(f.example, where .. " has no example")
          assert.is_true(class_waits[class] or text:find("[Yy]ield") ~= nil or
            text:find("[Ww]ait") ~= nil or text:find("Blocks") ~= nil, where .. " may wait or not?")
          local params = {}
          for i, param in ipairs(f.params) do
            params[i] = param.name
            assert.is_true(param.text ~= "" or param.type:match("jdbfs%.") ~= nil or
              #f.params == 0, where .. ": what is " .. param.name .. "?")
          end
          assert.are.equal(f.arguments, table.concat(params, ", "), where)
          local fails = false
          for _, one in ipairs(f.returns) do fails = fails or one.type:match("Error") ~= nil end
          local told = text:match("Kinds[^:]*: (.*)")
          assert.is_true(not fails or told ~= nil, where .. " fails with which kinds?")
          for kind in (told or ""):gsub("%b()", ""):match("^[^.]*"):gmatch("%f[%u]%u%w+") do
            assert.is_true(kinds[kind], where .. ": there is no kind " .. kind)
          end
        end
      end
    end)
end)

-- ---- its examples -------------------------------------------------------------------------------

-- Runs examples in one process, each in a directory of its own, and tells those whose output is not
-- what their arrows say.
local RUNNER = [==[
local lfs, jdbfs = require "lfs", require "jdbfs"
local top = arg[1]
local on_sim = os.getenv("JDBFS_BACKEND") == "sim"

local function prepare(bare)
  if bare then return end
  local file = assert(jdbfs.create("data", { direct = "prefer" }))
  local buffer = jdbfs.buffer(4096)
  for number = 0, 1 do
    buffer:set(0, "page " .. number)
    assert(file:write_at(buffer, number * 4096))
  end
  return file, jdbfs.buffer(4096)
end

local function run(name, source, expected, bare)
  if on_sim then assert(require("jdbfs.sim").reset())
  else assert(lfs.mkdir(top .. "/" .. name)) assert(lfs.chdir(top .. "/" .. name)) end
  local printed = {}
  local file, buffer = prepare(bare)
  local env = setmetatable({ jdbfs = jdbfs, file = file, buffer = buffer,
    print = function(...)
      local words = {}
      for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
      printed[#printed + 1] = table.concat(words, " ")
    end }, { __index = _G })
  local chunk
  if setfenv then chunk = setfenv(assert(loadstring(source, name)), env)
  else chunk = assert(load(source, name, "t", env)) end
  local ok, message = xpcall(chunk, debug.traceback)
  if file then file:close() end
  local got = table.concat(printed, "\n")
  if not ok then print(name .. ": " .. tostring(message))
  elseif expected and got ~= expected then print(name .. " printed\n" .. got) end
end
]==]

local OWN_PROCESS = { ["jdbfs.setup"] = true, ["jdbfs.host"] = true }

-- What the arrows of an example say, nil without one.
local function expected_of(example)
  local lines = {}
  for line in example:gmatch("[^\n]+") do
    lines[#lines + 1] = line:match("%-%->%s(.-)%s*$")
  end
  return #lines > 0 and table.concat(lines, "\n") or nil
end

local function each_example(f)
  for class, functions in pairs(annotated()) do
    for name, item in pairs(functions) do f(class .. "." .. name, item.example) end
  end
end

local function run_examples(chosen, env)
  local parts = { RUNNER }
  for name, example in pairs(chosen) do
    parts[#parts + 1] = ("run(%q, %q, %s, %s)\n"):format(name, example,
      expected_of(example) and ("%q"):format(expected_of(example)) or "nil",
      tostring(OWN_PROCESS[name] or false))
  end
  local top = lfs.currentdir() .. "/" .. support.path()
  top = support.path():match("^/") and support.path() or top
  assert(support.jdbfs.mkdir(top))
  local result = support.script(table.concat(parts), { args = { top }, env = env })
  assert.are.equal("", result.err)
  assert.are.equal("", result.out)
  assert.are.equal(0, result.status)
end

describe("an example of meta.lua", function()
  support.setup()

  it("compiles, whatever the Lua", function()
    local count = 0
    each_example(function(name, example)
      count = count + 1
      assert.is_function((loadstring or load)(example, name), name)
    end)
    assert.is_true(count > 100)
  end)

  it("runs and prints what it says", function()
    local chosen = {}
    each_example(function(name, example)
      if not OWN_PROCESS[name] and not name:match("^Sim") then chosen[name] = example end
    end)
    if support.on_windows then chosen["jdbfs.pollfd"] = nil end -- no host can poll a port
    if support.on_wine then chosen["File.punch"] = nil end -- it makes no holes
    run_examples(chosen)
  end)

  it("of the simulated disk too", function()
    local chosen = {}
    each_example(function(name, example)
      if name:match("^Sim") then chosen[name] = example end
    end)
    run_examples(chosen, { JDBFS_BACKEND = "sim" })
  end)

  it("of setup and of host, each in a process of its own", function()
    local names = annotated().jdbfs
    run_examples({ ["jdbfs.setup"] = names.setup.example })
    if support.has_module("luv") then
      run_examples({ ["jdbfs.host"] = names.host.example })
    end
  end)
end)

-- ---- the man pages ------------------------------------------------------------------------------

describe("the man pages", function()
  support.setup()

  local function page(section)
    local result = support.script(([[
      package.path = "spec/tools/?.lua;" .. package.path
      require("reference").man%d("0.0.0")
    ]]):format(section))
    assert.are.equal("", result.err)
    return result.out
  end

  it("name every function of the module, and every verb of the command", function()
    local text = page(3):gsub("\\%-", "-"):gsub("\\f.", "")
    each_example(function(name)
      local class, method = name:match("^(%w+)%.(.*)$")
      local mark = (class == "jdbfs" or class == "Sim") and "." or ":"
      assert.is_not_nil(text:find(class:lower() .. mark .. method .. "(", 1, true), name)
    end)
    local command = page(1)
    for _, verb in ipairs({ "run", "list", "probe", "verify", "compare", "report", "ab" }) do
      assert.is_not_nil(command:find("\n  jdbfs " .. verb, 1, true), verb)
    end
  end)

  it("are formatted without a warning", function()
    local why = support.lacks("man")
    if why then return pending(why) end
    for section = 1, 3, 2 do
      local path = support.path()
      support.put(path, page(section))
      local _, out = support.sh("man --warnings -l " .. support.quote(path) .. " 2>&1 >/dev/null")
      assert.are.equal("", out)
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
          assert.is_not_nil(names[class][name],
            class .. ":" .. name .. " is not in workload_meta.lua")
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
