-- What the specs about hosts share: see spec/54-hosts_spec.lua and spec/55-nginx_spec.lua.
--
--   lua()            the interpreter that runs the specs
--   module(name)     why this Lua cannot load a module; nil: it can
--   directory(f)     calls f(path) with an empty directory, which is then removed
--   run(command, env)  with this Lua's paths; gives {status =, out =, err =}
--   start(command, pid, out)  the same in the background; pid and output go to these files
--   find_nginx()     its root directory; nil, why
--   nginx_event([san])  directory of the module by which nginx itself waits; nil, why
--   nginx(dir, o)    starts a real nginx in that directory: o.server, the inside of its server
--                    block; o.http, of its http block; o.workers; o.port, a TCP port beside the
--                    socket; o.cpath, where the C module is; o.env, a list of NAME=value; o.event,
--                    what nginx_event gives. Gives a server:
--                      server:get(path [, curl's options])  body, status of curl
--                      server:start_get(path)  in the background; server:wait() for all of them,
--                                       server:leave(what start_get gave) ends the client
--                      server:signal(name), server:pid(), server:workers()  list of pids
--                      server:errors()  what it logged beyond notices
--                      server:stop()    waits for its end; the seconds it took, by patience

local lfs = require("lfs")
local support = require("support")

local M = {}

local quote = support.quote
M.is_jit = rawget(_G, "jit") ~= nil
local here = lfs.currentdir()

local function absolute(paths)
  return (paths:gsub("[^;]+", function(entry)
    return entry:sub(1, 1) == "/" and entry or here .. "/" .. entry:gsub("^%./", "")
  end))
end

function M.lua()
  local i = 0
  while arg[i - 1] do i = i - 1 end
  return os.getenv("JDBFS_TEST_LUA") or arg[i]
end

function M.paths()
  return absolute(package.path), absolute(package.cpath)
end

local function alive(pid)
  local status = support.get("/proc/" .. pid .. "/status")
  return status ~= nil and not status:find("State:%s*Z") -- somebody may be slow to reap it
end

-- How much longer than here things may take: an emulated machine.
M.patience = tonumber(os.getenv("JDBFS_TEST_SLOW")) or 1

local function wait_until(condition, seconds)
  for _ = 1, seconds * 50 * M.patience do
    if condition() then return true end
    support.sh("sleep 0.02")
  end
  return false
end

local function collected(command)
  local name = os.tmpname()
  local status = support.sh(("%s >%s 2>%s"):format(command, name, name .. ".err"))
  local r = { status = status, out = support.get(name) or "" }
  r.err = support.get(name .. ".err") or ""
  os.remove(name)
  os.remove(name .. ".err")
  return r
end

function M.directory(f)
  local root = os.getenv("JDBFS_TEST_DIR") or "build"
  local _, out = support.sh("mktemp -d " .. quote(absolute(root) .. "/host.XXXXXX"))
  local dir = assert(out:match("^(/[^\n]+)\n$"), out)
  support.sh("chmod 755 " .. quote(dir))
  local ok, result = pcall(f, dir)
  support.sh("rm -rf " .. quote(dir))
  if not ok then error(result, 0) end
  return result
end

local function with_paths(command, o)
  local path, cpath = M.paths()
  local words = { "env -u LUA_INIT LUA_PATH=" .. quote(path), "LUA_CPATH=" .. quote(cpath) }
  for name, value in pairs(o or {}) do words[#words + 1] = name .. "=" .. quote(value) end
  words[#words + 1] = command
  return table.concat(words, " ")
end

function M.run(command, o)
  return collected(("timeout -k 5 %d "):format(120 * M.patience) .. with_paths(command, o))
end

function M.start(command, pid, out)
  os.execute(("sh -c 'echo $$ >\"$0\"; exec \"$@\"' %s %s </dev/null >%s 2>&1 &"):format(
    quote(pid), with_paths(command), quote(out)))
  assert(wait_until(function() return (support.get(pid) or "") ~= "" end, 10), "does not start")
end

function M.module(name)
  local r = M.run(M.lua() .. (" -e 'require \"%s\"'"):format(name))
  if r.status ~= 0 then return name .. " is not installed for this Lua" end
end

-- ---- nginx -------------------------------------------------------------------------------------

local CONF = [[
load_module %(root)/usr/lib/nginx/modules/ndk_http_module.so;
load_module %(root)/usr/lib/nginx/modules/ngx_http_lua_module.so;
%(event)
%(user)
worker_processes %(workers);
pid nginx.pid;
error_log error.log info;
env JDBFS_BACKEND;
env TMPDIR;
worker_shutdown_timeout %(shutdown);
events { worker_connections 512; }
http {
  access_log off;
  client_body_temp_path t/b; proxy_temp_path t/p; fastcgi_temp_path t/f;
  uwsgi_temp_path t/u; scgi_temp_path t/s;
  lua_package_path "%(path);%(root)/usr/share/lua/5.1/?.lua;;";
  lua_package_cpath "%(cpath);;";
  %(http)
  server {
    listen unix:%(socket); %(port)
    default_type text/plain;
    lua_check_client_abort on;
    %(server)
  }
}
]]

local Server = {}
Server.__index = Server

function Server:command(rest)
  local env = ""
  if self.root ~= "" then
    local _, libraries = support.sh("printf '%s:' " .. quote(self.root) ..
      "/usr/lib/*-linux-gnu " .. quote(self.root) .. "/lib/*-linux-gnu")
    env = "LD_LIBRARY_PATH=" .. quote(libraries)
  end
  for _, word in ipairs(self.env) do env = env .. " " .. quote(word) end
  local format = "PATH=$PATH:/usr/sbin:/sbin env %s TMPDIR=%s %snginx -p %s -c %s -e error.log %s"
  local directory = self.root == "" and "" or quote(self.root .. "/usr/sbin/")
  return format:format(env, quote(self.dir), directory, quote(self.dir .. "/"),
    quote(self.dir .. "/nginx.conf"), rest or "")
end

local function curl(self, path, options)
  return ("curl -s -S -m %d %s --unix-socket %s %s"):format(30 * M.patience,
    options or "", quote(self.socket), quote("http://localhost" .. path))
end

function Server:get(path, options)
  local r = collected(curl(self, path, options))
  return r.out, r.status, r.err
end

function Server:start_get(path, options)
  self.started = self.started + 1
  local out = self.dir .. "/get." .. self.started
  os.execute(("{ %s & echo $! >%s.pid; wait $!; echo $? >%s.rc; } >%s 2>%s.err &"):format(
    curl(self, path, options), out, out, out, out))
  return out
end

-- Ends the client of a request started in the background.
function Server:leave(out)
  support.sh(("kill -KILL $(cat %s.pid)"):format(quote(out)))
end

-- The bodies of all requests started in the background.
function Server:wait(seconds)
  local bodies = {}
  for i = 1, self.started do
    local out = self.dir .. "/get." .. i
    assert(wait_until(function() return support.get(out .. ".rc") end, seconds or 20),
      "a request hangs")
    bodies[i] = support.get(out)
  end
  return bodies
end

function Server:pid()
  return tonumber(support.get(self.dir .. "/nginx.pid") or "")
end

function Server:workers()
  local list = {}
  local _, out = support.sh("pgrep -P " .. self.master)
  for pid in out:gmatch("%d+") do list[#list + 1] = tonumber(pid) end
  return list
end

function Server:signal(name, pid)
  support.sh(("kill -%s %d"):format(name, pid or self.master))
end

function Server:gone(pid, seconds)
  return wait_until(function() return not alive(pid) end, seconds or 20)
end

function Server:log()
  return support.get(self.dir .. "/error.log") or ""
end

function Server:errors()
  local found = {}
  for line in self:log():gmatch("[^\n]+") do
    local level = line:match("%[(%l+)%]")
    if level ~= "notice" and level ~= "info" then found[#found + 1] = line end
  end
  return table.concat(found, "\n")
end

function Server:stop(signal)
  if not alive(self.master) then return 0 end
  local before = require("jdbfs").now()
  self:signal(signal or "QUIT")
  if not self:gone(self.master) then
    for _, pid in ipairs(self:workers()) do self:signal("KILL", pid) end
    self:signal("KILL")
    error("nginx did not stop:\n" .. self:log():sub(-2000), 2)
  end
  os.remove(self.socket)
  os.remove((self.socket:gsub("%.sock$", "")))
  return (require("jdbfs").now() - before) / M.patience
end

local function find_nginx()
  local why = support.lacks("curl", "pgrep")
  if why then return nil, why end
  local status, out = support.sh("bash spec/tools/hosts.sh 2>&1")
  if status ~= 0 then return nil, out:match("[^\n]+") end
  local root = out:match("[^\n]+")
  return root == "/" and "" or root
end

local found

-- Whose Lua it is matters only where the module that was built for it is loaded.
function M.find_nginx(any_lua)
  if _VERSION ~= "Lua 5.1" and not any_lua then return nil, "nginx has LuaJIT" end
  found = found or { find_nginx() }
  return found[1], found[2]
end

local built = {}

-- With its source at hand: spec/tools/hosts.sh.
local function build_event(san)
  local _, why = M.find_nginx(true)
  if why then return nil, why end
  local status, out = support.sh("bash spec/tools/hosts.sh source 2>&1")
  if status ~= 0 then return nil, out:match("[^\n]+") end
  local source = out:match("([^\n]+)\n*$")
  status, out = support.sh("make -s nginx-module LUA=luajit SAN=" .. san .. " NGINX_SOURCE=" ..
    quote(source))
  if status ~= 0 then return nil, "make nginx-module: " .. out:sub(-300) end
  return here .. "/build/nginx" .. (san == "address" and "-asan" or "")
end

function M.nginx_event(san)
  san = san or ""
  built[san] = built[san] or { build_event(san) }
  return built[san][1], built[san][2]
end

function M.nginx(dir, o)
  local root = assert(M.find_nginx(o.cpath))
  local path, cpath = M.paths()
  local server = setmetatable({ root = root, dir = dir, started = 0, env = o.env or {} }, Server)
  support.sh(("mkdir -p %s && rm -f %s"):format(quote(dir .. "/t"), quote(dir .. "/nginx.pid")))
  -- A socket's path must be short.
  server.socket = os.tmpname() .. ".sock"
  local values = {
    root = root, path = path, shutdown = ("%ds"):format(20 * M.patience),
    cpath = (o.cpath or cpath) .. (o.event and (";%s/?.so"):format(o.event) or ""),
    event = o.event and ("load_module %s/jdbfs/nginx_event.so;"):format(o.event) or "",
    socket = server.socket,
    port = o.port and ("listen 127.0.0.1:%d;"):format(o.port) or "", workers = o.workers or 1,
    http = o.http or "", server = o.server, user = support.lacks("root") and "" or "user root;",
  }
  support.put(server.dir .. "/nginx.conf", (CONF:gsub("%%%((%w+)%)", values)))
  local status, out = support.sh(server:command())
  assert(status == 0, out .. server:log())
  wait_until(function() return server:pid() and lfs.attributes(server.socket) end, 10)
  server.master = assert(server:pid(), "nginx does not start: " .. server:log())
  return server
end

return M
