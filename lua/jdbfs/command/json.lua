-- JSON for result documents: the same bytes on every Lua, whole numbers without loss.
--
-- Tables with a value at 1 are arrays, all others objects, save that an empty table is an array
-- unless its key is named in `objects`. Keys come in the order that the caller gives, unknown ones
-- behind them in alphabetical order. What JSON has no number for (NaN, the infinities) becomes
-- null; reading, a null in an object leaves the key out and one in an array becomes json.null.

local char, find, format, gsub = string.char, string.find, string.format, string.gsub
local floor = math.floor
local math_type = math.type
local concat, sort = table.concat, table.sort
local error, ipairs, next, pairs = error, ipairs, next, pairs
local pcall, setmetatable = pcall, setmetatable
local tonumber, tostring, type = tonumber, tostring, type

local DEPTH_MAX = 100 -- of nested arrays and objects, so that no text can overflow the C stack

local null = setmetatable({}, { __tostring = function() return "null" end })

-- Writing ----------------------------------------------------------------------------------------

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

-- Paths may hold any bytes, JSON only UTF-8: a text that is not UTF-8 is written byte by byte.
local function encode_text(text)
  local left = gsub(text, "[\194-\223][\128-\191]", "")
  left = gsub(left, "[\224-\239][\128-\191][\128-\191]", "")
  left = gsub(left, "[\240-\244][\128-\191][\128-\191][\128-\191]", "")
  local escaped = find(left, "[\128-\255]") and "[%z\1-\31\"\\\127-\255]" or "[%z\1-\31\"\\\127]"
  return '"' .. gsub(text, escaped, function(byte)
    return ESCAPES[byte] or format("\\u%04x", byte:byte())
  end) .. '"'
end

local function encode_number(value)
  if value ~= value or value == 1 / 0 or value == -1 / 0 then return "null" end
  if math_type and math_type(value) == "integer" then return format("%d", value) end
  if value % 1 == 0 and value < 2 ^ 63 and value > -2 ^ 63 then
    return value == 0 and "0" or format("%.0f", value) -- and never "-0"
  end
  local text = format("%.15g", value)
  if tonumber(text) ~= value then text = format("%.17g", value) end
  return (gsub(text, ",", ".")) -- the decimal comma of a locale
end

local function sorted_keys(object, rank)
  local keys = {}
  for key in pairs(object) do
    keys[#keys + 1] = key
  end
  sort(keys, function(a, b)
    local first, second = rank[a], rank[b]
    if first and second then return first < second end
    if first or second then return first ~= nil end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local encode_value

local function encode_array(list, style, parts)
  parts[#parts + 1] = "["
  for i = 1, #list do
    if i > 1 then parts[#parts + 1] = "," end
    encode_value(list[i], style, parts)
  end
  parts[#parts + 1] = "]"
end

local function encode_object(object, style, parts)
  parts[#parts + 1] = "{"
  for i, key in ipairs(sorted_keys(object, style.rank)) do
    if i > 1 then parts[#parts + 1] = "," end
    parts[#parts + 1] = encode_text(tostring(key))
    parts[#parts + 1] = ":"
    encode_value(object[key], style, parts, key)
  end
  parts[#parts + 1] = "}"
end

encode_value = function(value, style, parts, key)
  local kind = type(value)
  if kind == "table" and value ~= null then
    local is_array = value[1] ~= nil or (next(value) == nil and not style.objects[key])
    return (is_array and encode_array or encode_object)(value, style, parts)
  end
  local text
  if kind == "string" then
    text = encode_text(value)
  elseif kind == "number" then
    text = encode_number(value)
  elseif kind == "boolean" or value == null then
    text = tostring(value)
  else
    error("JSON has no " .. kind)
  end
  parts[#parts + 1] = text
end

-- The value as JSON. style.rank maps keys to their place in the order, style.objects is the set of
-- keys whose empty table is an object. Raises for functions and the like.
local function encode(value, style)
  local parts = {}
  style = style or {}
  encode_value(value, { rank = style.rank or {}, objects = style.objects or {} }, parts)
  return concat(parts)
end

-- Reading ----------------------------------------------------------------------------------------

-- Errors in the text are raised as this table, so that they cannot be taken for errors in here.
local function fail(state, at, message)
  local _, newlines = gsub(state.text:sub(1, at - 1), "\n", "")
  error({ message = format("line %d: %s", newlines + 1, message) }, 0)
end

local function skip(state)
  state.at = find(state.text, "[^ \t\r\n]", state.at) or #state.text + 1
  return state.text:sub(state.at, state.at)
end

local function utf8(code)
  if code < 128 then return char(code) end
  if code < 2048 then return char(192 + floor(code / 64), 128 + code % 64) end
  local low, middle = 128 + code % 64, 128 + floor(code / 64) % 64
  if code < 65536 then return char(224 + floor(code / 4096), middle, low) end
  return char(240 + floor(code / 262144), 128 + floor(code / 4096) % 64, middle, low)
end

local UNESCAPED = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t", ["/"] = "/", ["\\"] = "\\",
  ['"'] = '"' }

-- The character that a \u escape means and the place behind it; two escapes can be one character.
local function decode_unicode(state, at)
  local digits = state.text:match("^%x%x%x%x", at)
  if not digits then fail(state, at, "\\u needs four hexadecimal digits") end
  local code = tonumber(digits, 16)
  if code < 0xD800 or code > 0xDFFF then return utf8(code), at + 4 end
  local second = state.text:match("^\\u(%x%x%x%x)", at + 4)
  local low = second and tonumber(second, 16) or 0
  if code > 0xDBFF or low < 0xDC00 or low > 0xDFFF then
    fail(state, at, "half of a surrogate pair")
  end
  return utf8(65536 + (code - 0xD800) * 1024 + low - 0xDC00), at + 10
end

local function decode_text(state)
  local text, at, parts = state.text, state.at + 1, {}
  while true do
    local stop = find(text, '[%z\1-\31"\\]', at)
    if not stop then fail(state, #text + 1, "a string has no end") end
    parts[#parts + 1] = text:sub(at, stop - 1)
    local mark = text:sub(stop, stop)
    if mark == '"' then
      state.at = stop + 1
      return concat(parts)
    end
    if mark ~= "\\" then fail(state, stop, "a control character in a string") end
    local kind = text:sub(stop + 1, stop + 1)
    if kind == "u" then
      parts[#parts + 1], at = decode_unicode(state, stop + 2)
    else
      if not UNESCAPED[kind] then fail(state, stop, "an unknown escape in a string") end
      parts[#parts + 1], at = UNESCAPED[kind], stop + 2
    end
  end
end

local function decode_number(state)
  local text = state.text:match("^-?%d+%.?%d*[eE]?[+-]?%d*", state.at)
  local well_formed = text and (text:match("^-?0$") or text:match("^-?[1-9]%d*$")
    or text:match("^-?%d+%.%d+$") or text:match("^-?%d+[eE][+-]?%d+$")
    or text:match("^-?%d+%.%d+[eE][+-]?%d+$"))
  if not well_formed or text:match("^-?0%d") then fail(state, state.at, "no JSON value") end
  state.at = state.at + #text
  return tonumber(text)
end

local WORDS = { { "true", true }, { "false", false }, { "null", null } }
local decode_value

local function decode_array(state, depth)
  local list = {}
  state.at = state.at + 1
  if skip(state) == "]" then
    state.at = state.at + 1
    return list
  end
  while true do
    list[#list + 1] = decode_value(state, depth)
    local mark = skip(state)
    state.at = state.at + 1
    if mark == "]" then return list end
    if mark ~= "," then fail(state, state.at - 1, "no comma or ] behind a value of an array") end
  end
end

local function decode_object(state, depth)
  local object = {}
  state.at = state.at + 1
  if skip(state) == "}" then
    state.at = state.at + 1
    return object
  end
  while true do
    if skip(state) ~= '"' then fail(state, state.at, "no key in an object") end
    local key = decode_text(state)
    if skip(state) ~= ":" then fail(state, state.at, "no colon behind a key") end
    state.at = state.at + 1
    local value = decode_value(state, depth)
    if value ~= null then object[key] = value end
    local mark = skip(state)
    state.at = state.at + 1
    if mark == "}" then return object end
    if mark ~= "," then fail(state, state.at - 1, "no comma or } behind a value of an object") end
  end
end

decode_value = function(state, depth)
  if depth > DEPTH_MAX then fail(state, state.at, "nested too deeply") end
  local mark = skip(state)
  if mark == "{" then return decode_object(state, depth + 1) end
  if mark == "[" then return decode_array(state, depth + 1) end
  if mark == '"' then return decode_text(state) end
  for i = 1, 3 do
    local word = WORDS[i]
    if state.text:sub(state.at, state.at + #word[1] - 1) == word[1] then
      state.at = state.at + #word[1]
      return word[2]
    end
  end
  if mark == "" then fail(state, state.at, "the text ends too early") end
  return decode_number(state)
end

-- The value that a JSON text holds, or nil and what is wrong with it, with the line.
local function decode(text)
  local state = { text = text, at = 1 }
  local called, value = pcall(decode_value, state, 1)
  if called and skip(state) ~= "" then
    called, value = pcall(fail, state, state.at, "something follows the JSON value")
  end
  if called then return value end
  if type(value) == "table" and value.message then return nil, value.message end
  error(value, 0)
end

return {
  null = null,
  encode = encode,
  decode = decode,
}
