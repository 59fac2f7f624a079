-- What a newcomer meets: the C module of another Lua, or none at all. Gives the message to raise.

local tostring, type = tostring, type

local function this_lua()
  if type(jit) == "table" then return "LuaJIT", "luajit", "5.1" end
  local version = _VERSION:match("%d%.%d")
  return _VERSION, "lua" .. version, version
end

return function(message)
  message = tostring(message)
  local name, make_name, rocks_name = this_lua()
  local remedy = ("; for %s: make install LUA=%s, or luarocks --lua-version %s install"):format(
    name, make_name, rocks_name)
  -- glibc, musl, macOS, Windows
  local symbol = message:match("undefined symbol: (%S+)") or message:match("Error relocating")
    or message:match("symbol not found") or message:match("procedure could not be found")
  if symbol then
    local path = message:match("from file '([^']+)'") or "jdbfs.core"
    return ("jdbfs: %s was built for another Lua than %s (%s)"):format(path, name, symbol) .. remedy
  end
  if message:find("module 'jdbfs.core' not found", 1, true) then
    return ("jdbfs: there is no C module jdbfs/core for %s in package.cpath (%s)"):format(name,
      package.cpath) .. remedy
  end
  return message
end
