-- Hosts that own the event loop: spec/hosts/scenario.lua under each of them, as a child process.
-- And what jdbfs.host says to bad input.

local hosts = require("support_hosts")
local process = require("support_process")
local support = require("support")

local quote = support.quote

-- The names of the promises, without loading jdbfs twice into this state.
local function promises()
  local names = {}
  for name in support.get("spec/hosts/scenario.lua"):gmatch('\npromise%("([^"]+)"') do
    names[#names + 1] = name
  end
  return names
end

local function results(r)
  local got = {}
  for line in r.out:gmatch("[^\n]+") do
    local verdict, name, why = line:match("^(%l+)\t([^\t]+)\t?(.*)$")
    if verdict == "pass" then got[name] = true
    elseif verdict == "fail" then got[name] = why end
  end
  return got
end

-- One test for each promise; the host runs once, with a directory of its own.
local function under(name, lacks, run)
  describe("under " .. name .. ",", function()
    if lacks then
      it("every promise holds", function() return pending(lacks) end)
      return
    end
    local got, r
    local function needed()
      if got then return end
      r = hosts.directory(run)
      got = results(r)
    end
    for _, promise in ipairs(promises()) do
      it(promise, function()
        needed()
        local result = got[promise]
        assert(result == true, result or ("not reached; exit status %s\n%s%s"):format(
          tostring(r.status), r.out:sub(-1500), r.err:sub(-1500)))
      end)
    end
    it("the process ends cleanly with operations in flight", function()
      needed()
      assert.are.equal(0, r.status, r.err)
      assert.are.equal("", r.err)
    end)
  end)
end

local function driver(name, dir, ...)
  local words = { hosts.lua(), "spec/hosts/" .. name .. ".lua", quote(dir), ... }
  return hosts.run(table.concat(words, " "))
end

under("a scheduler of one's own", nil, function(dir)
  return driver("own", dir, quote(assert(process.forker())))
end)

for _, name in ipairs({ "luv", "cqueues", "copas" }) do
  under(name, hosts.module(name), function(dir) return driver(name, dir) end)
end

local no_nvim = not hosts.is_jit and "Neovim has LuaJIT" or support.lacks("nvim")
under("Neovim", no_nvim, function(dir)
  return hosts.run("nvim --headless -u NONE -i NONE -n -c 'luafile spec/hosts/luv.lua'",
    { JDBFS_HOST_DIR = dir, HOME = dir })
end)

local no_tarantool = not hosts.is_jit and "Tarantool has LuaJIT" or support.lacks("tarantool")
under("Tarantool", no_tarantool, function(dir)
  return hosts.run("tarantool spec/hosts/tarantool.lua " .. quote(dir))
end)

local function nginx(event)
  return function(dir)
    local files = dir .. "/files"
    support.sh("mkdir " .. quote(files))
    local server = hosts.nginx(dir, {
      event = event,
      server = ("location / { content_by_lua_block { require('hosts.ngx')(%q) } }"):format(files),
    })
    local out, status = server:get("/", "-m 60")
    local took = server:stop()
    local slow = took > 5 and ("took %g s to stop"):format(took) or ""
    return { out = out, status = status, err = server:errors() .. slow }
  end
end

local _, no_nginx = hosts.find_nginx()
under("nginx", no_nginx, nginx())

local event, no_event
if no_nginx then no_event = no_nginx else event, no_event = hosts.nginx_event() end
under("nginx that waits for the descriptor itself", no_event, nginx(event))

describe("cqueues", function()
  local lacks = hosts.module("cqueues")
  process.setup()

  it("ends each of several controllers when nothing is in flight, whoever noticed", function()
    if lacks then return pending(lacks) end
    local out = process.script([[
      local cqueues = require "cqueues"
      assert(jdbfs.host("cqueues"))
      local main = cqueues.new()
      for i = 1, 3 do
        local inner = cqueues.new()
        inner:wrap(function() jdbfs.sleep(0.01) end)
        main:wrap(function()
          check("no error", inner:loop(10))
          check("empty", inner:empty(), i)
        end)
      end
      check("main", main:loop(20) and main:empty())
      print("ok")
    ]])
    assert.are.equal("ok\n", out)
  end)
end)

-- ---- bad input ---------------------------------------------------------------------------------

describe("jdbfs.host", function()
  process.setup()

  local function says(source, ...)
    local out = process.script([[
      local function fails(kind, text, value, message, err)
        check("fails", value == nil and err and err.kind == kind, value, message)
        check("op", err.op == "host")
        check("says", message:find(text, 1, true), message)
      end
      local function raises(text, ...)
        local ok, message = pcall(jdbfs.host, ...)
        check("raises", not ok and tostring(message):find(text, 1, true), ok, message)
      end
      local adapter = {
        name = "mine", current = function() end, suspend = function() end, wake = function() end,
        watch = function() end,
      }
      local _ = { fails, raises, adapter }
    ]] .. source .. "\nprint('ok')", ...)
    assert.are.equal("ok\n", out)
  end

  it("names the hosts it knows when it does not know one", function()
    says([[fails("Unsupported", "ngx, luv, cqueues, copas, tarantool", jdbfs.host("twisted"))]])
  end)

  it("says which function an adapter lacks", function()
    says([[
      for _, name in ipairs { "current", "suspend", "wake", "watch" } do
        local f = adapter[name]
        adapter[name] = nil
        raises("the adapter lacks the function " .. name, adapter)
        adapter[name] = f
      end
      adapter.ref = true
      raises("the adapter's ref is no function", adapter)
      adapter.ref = nil
      assert(jdbfs.host(adapter))
    ]])
  end)

  it("refuses what is neither a name nor a table", function()
    says([[
      raises("name or adapter table expected", nil)
      raises("name or adapter table expected", 1)
      raises("name or adapter table expected", print)
    ]])
  end)

  it("is chosen once, and before the first operation", function()
    says([[
      assert(jdbfs.host(adapter))
      fails("Busy", "chosen already: mine", jdbfs.host(adapter))
      fails("Busy", "chosen already: mine", jdbfs.host("luv"))
    ]])
    says([[
      assert(jdbfs.exists(dir))
      fails("Busy", "started already", jdbfs.host(adapter))
    ]])
    says([[
      jdbfs.spawn(function() jdbfs.sleep(1) end)
      fails("Busy", "started already", jdbfs.host(adapter))
    ]])
  end)

  it("says when a host is not there, or too old", function()
    says([[fails("Unsupported", "this is not nginx", jdbfs.host("ngx"))]])
    says([[fails("Unsupported", "fiber", jdbfs.host("tarantool"))]])
    says([[
      package.loaded.luv = {}
      fails("Unsupported", "lacks new_poll", jdbfs.host("luv"))
      package.loaded.cqueues = {}
      package.loaded["cqueues.condition"] = {}
      fails("Unsupported", "lacks running", jdbfs.host("cqueues"))
      package.loaded.fiber, package.loaded.socket = {}, {}
      fails("Unsupported", "lacks fiber.cond or socket.iowait", jdbfs.host("tarantool"))
      ngx = { config = { ngx_lua_version = 9000 }, get_phase = function() end }
      fails("Unsupported", "older than", jdbfs.host("ngx"))
      ngx.config.ngx_lua_version = 10023
      fails("Unsupported", "has not the LuaJIT of OpenResty", jdbfs.host("ngx"))
      package.loaded["thread.exdata"], package.loaded.ffi = {}, { cast = function() end }
      fails("Unsupported", "ngx.semaphore", jdbfs.host("ngx"))
      assert(jdbfs.host(adapter)) -- a refused choice is none
      assert(jdbfs.exists(dir))
    ]])
  end)

  it("leaves calls in place where the adapter has nothing to suspend, and run as it was", function()
    says([[
      assert(jdbfs.host(adapter))
      local f = assert(jdbfs.create(dir .. "/file", { direct = "prefer" }))
      coroutine.wrap(function()
        check("in place", f:write_at(jdbfs.buffer(4096), 0) == 4096)
      end)()
      check("run", jdbfs.run(function()
        local task = jdbfs.spawn(function() return f:size() end)
        jdbfs.sleep(0.001)
        return task:join()
      end) == 4096)
      assert(f:close())
    ]])
  end)

  it("is told by info", function()
    says([[
      check("none", jdbfs.info().host == nil)
      assert(jdbfs.host(adapter))
      check("mine", jdbfs.info().host == "mine")
    ]])
  end)
end)
