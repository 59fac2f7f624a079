-- "min" is what every Lua from 5.1 to 5.4 and LuaJIT have in common; what only some of them have
-- may be asked for by name.
std = "min"
read_globals = {
  "jit", "newproxy", "unpack", "loadstring", "setfenv", "getfenv", "rawlen", "warn",
  coroutine = { fields = { "close", "isyieldable" } },
  math = { fields = { "type", "tointeger", "mininteger", "maxinteger" } },
  package = { fields = { "searchpath" } },
  string = { fields = { "pack", "unpack" } },
  table = { fields = { "pack", "unpack", "move" } },
}
max_line_length = 100
max_cyclomatic_complexity = false
self = false
ignore = { "581" } -- "not (x >= y)" is how NaN is refused
files["spec/**/*_spec.lua"] = { std = "min+busted" }
files["spec/support.lua"] = { std = "min+busted" }
files["rockspec/*.rockspec"] = { std = "rockspec" }
files["lua/jdbfs/*meta.lua"] = { ignore = { "211", "212", "241", "631" } }
exclude_files = { "build" }
