-- Typed access to buffers without a call, for LuaJIT: what its compiler sees through costs a tenth.
--
-- What the methods mean is said once, in csrc/lua_buf.c. Here is only what needs no decision: a
-- live buffer of this process, none of it in flight, an offset that is a multiple of the size and
-- inside, a value that fits. All else goes to the method in C, which does it or raises.
--
-- Between the first look at the buffer and its last byte nothing may be allocated: a finalizer
-- could run, and free it. Hence numbers only, read with words whose pointers exist already.

local core = require "jdbfs.core"

-- What is done at word `i` of `words`, each 4 bytes; or in place of it.
local HEAD = [[
local slow, meta, forks, view, words, signed, halves, bytes, doubles, cast, getmetatable, type = ...
return function(b, off, v)
  if getmetatable(b) ~= meta or type(off) ~= "number" then return slow(b, off, v) end
  local b_view = cast(view, b)
  local gate, address = b_view.gate, b_view.address
  if gate == 0 or words[gate] ~= 0 or words[gate + 1] ~= forks[0]
    or not (off >= 0 and off + SIZE <= b_view.size) or off % SIZE ~= 0 or address % SIZE ~= 0 then
    return slow(b, off, v)
  end
  local at = address + off
]]

-- 64 bits as two words: exact below 2^53, and no object is made.
local WIDE = [[
  local i = at / 4
  if v == nil then
    local high = HIGH[i + 1]
    if high < 2097152 and high >= LOWEST then return high * 4294967296 + words[i] end
  elseif type(v) == "number" and v < 9007199254740992 and v >= LOWEST * 4294967296
    and v % 1 == 0 then
    local low = v % 4294967296
    words[i], HIGH[i + 1] = low, (v - low) / 4294967296
    return true
  end
]]

local NARROW = [[
  if v == nil then return ARRAY[at / SIZE] end
  if type(v) == "number" and v >= LEAST and v <= MOST and v % 1 == 0 then
    ARRAY[at / SIZE] = v
    return true
  end
]]

-- A NaN with a payload is no value that Lua may see: the C method makes it one.
local DOUBLE = [[
  if v == nil then
    if words[at / 4 + 1] % 2147483648 < 2146435072 then return doubles[at / 8] end
  elseif type(v) == "number" then
    doubles[at / 8] = v
    return true
  end
]]

local TYPES = {
  u8 = { NARROW, SIZE = 1, ARRAY = "bytes", LEAST = 0, MOST = 255 },
  u16 = { NARROW, SIZE = 2, ARRAY = "halves", LEAST = 0, MOST = 65535 },
  u32 = { NARROW, SIZE = 4, ARRAY = "words", LEAST = 0, MOST = 4294967295 },
  i32 = { NARROW, SIZE = 4, ARRAY = "signed", LEAST = -2147483648, MOST = 2147483647 },
  u64 = { WIDE, SIZE = 8, HIGH = "words", LOWEST = 0 },
  i64 = { WIDE, SIZE = 8, HIGH = "signed", LOWEST = -2097152 },
  f64 = { DOUBLE, SIZE = 8 },
}

local M = {}

-- The methods of core's buffers that are faster this way, replaced. ffi: LuaJIT's module. Without
-- the compiler they would be slower than calls.
function M.install(ffi)
  local compiles = type(jit) == "table" and jit.status and jit.status()
  if not compiles or not ffi.abi("le") or type(debug) ~= "table" then return end
  local methods, meta, forks = core.buffer_class()
  local function array(name) return ffi.cast(ffi.typeof(name .. " *"), 0) end
  local view = ffi.typeof("struct { void *magic; double address, size, gate; } *")
  for name, T in pairs(TYPES) do
    local text = (HEAD .. T[1] .. "  return slow(b, off, v)\nend\n"):gsub("%u%u%u%u+", T)
    local make = assert(loadstring(text, "=jdbfs.typed." .. name))
    methods[name] = make(methods[name], meta, ffi.cast("uint32_t *", forks), view,
      array("uint32_t"), array("int32_t"), array("uint16_t"), array("uint8_t"), array("double"),
      ffi.cast, debug.getmetatable, type)
  end
end

return M
