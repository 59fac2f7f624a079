-- Steps on buffers. A view in the model: {mem =, off =, len =, align =, freed =}.

local new_bytes = require("model.bytes")
local text = require("model.text")
local values = require("model.values")

local value, raises = values.value, values.raises
local floor = math.floor
local PAGE = 4096

local M = {}

-- ---- what the steps share -----------------------------------------------------------------------

local SIZES = { PAGE, 2 * PAGE, 4 * PAGE, 8 * PAGE, 16 * PAGE }

local function any_size(r)
  if r:one_in(8) then return r:pick({ 1, 7, 100, 511, 512, 513, 4095, 4097, 5000, 70000 }) end
  if r:one_in(40) then return 1048576 + r:pick({ 0, PAGE, 1 }) end
  return r:pick(SIZES)
end

-- A range that mostly lies in the buffer, and sometimes touches or passes its end.
local function any_range(ctx, slot, most)
  local r, size = ctx.r, ctx.sizes[slot] or PAGE
  local off = r:below(size + 1)
  local len = r:below((size - off < most and size - off or most) + 1)
  if r:one_in(30) then off = r:pick({ size, size + 1, 2 ^ 40, 2 ^ 62, -1, 0.5 }) end
  if r:one_in(30) then len = r:pick({ size + 1, size - off + 1, 2 ^ 62, -1 }) end
  return off, len
end

local function exists(model, step)
  return model.b[step.b] and (not step.from or model.b[step.from])
end

-- Whether the call must raise: the buffer freed, the range outside.
local function misuse(view, off, len)
  if view.freed then return { raises("(Closed)") } end
  if text.is_bad(off) or text.is_bad(len) then return { raises("bad argument", "out of") } end
  if off > view.len or len > view.len - off then return { raises("out of the buffer's range") } end
end

local function rest(view, off)
  return view.len >= off and view.len - off or 0
end

local function read(view, off, len) return view.mem:read(view.off + off, len) end
local function write(view, off, s) view.mem:write(view.off + off, s) end
M.read, M.write = read, write

local function with_apply(expectation, apply)
  expectation.apply = apply
  return { expectation }
end

-- ---- making and letting go ----------------------------------------------------------------------

local ops = {}

ops.buffer = {
  make = function(ctx)
    local r = ctx.r
    local step = { b = r:pick(ctx.bufs), size = any_size(r) }
    if r:one_in(5) then step.align = r:pick({ PAGE, 8192, 65536 }) end
    if r:one_in(25) then step.align = r:pick({ 0, 3, 100 }) end
    if r:one_in(25) then step.size = r:pick({ 0, -1, 0.5, 2 ^ 63, 2 ^ 62 }) end
    if not text.is_bad(step.size) and step.size > 0 and step.size < 2 ^ 40 then
      ctx.sizes[step.b] = step.size
    end
    return step
  end,
  text = function(s) return text.call("jdbfs.buffer", 2, s.size, s.align), text.buf(s.b) end,
  ready = function() return true end,
  expect = function(model, s)
    local faults = {}
    if text.is_bad(s.size) or s.size == 0 then faults[1] = { kind = "Overflow" } end
    if s.size >= 2 ^ 62 then faults[#faults + 1] = { kind = "Alloc" } end
    if s.align and (s.align == 0 or s.align % 2 ~= 0 or s.align == 100) then
      faults[#faults + 1] = { kind = "Alignment" }
    end
    if faults[1] then return { values.any_fault("buffer", false, faults) } end
    return { {
      what = "check", text = "a buffer", want = function(got) return got[1] ~= nil, got[2] end,
      apply = function()
        local mem = new_bytes(s.size)
        model.b[s.b] = { mem = mem, off = 0, len = s.size, align = s.align or PAGE }
      end,
    } }
  end,
}

ops.slice = {
  guarded = true,
  make = function(ctx)
    local r = ctx.r
    local step = { b = r:pick(ctx.bufs), from = r:pick(ctx.bufs) }
    if ctx.sliced and r:one_in(2) then step.from = ctx.sliced end -- a slice of a slice
    ctx.sliced = step.b
    local size = ctx.sizes[step.from] or PAGE
    if r:one_in(2) then
      step.off, step.len = any_range(ctx, step.from, size)
    else
      step.off = r:below(floor(size / PAGE) + 1) * PAGE
      step.len = rest({ len = size }, step.off)
    end
    if not text.is_bad(step.len) and step.len <= size then ctx.sizes[step.b] = step.len end
    return step
  end,
  text = function(s)
    return text.call(text.buf(s.from) .. ":slice", 2, s.off, s.len), text.buf(s.b)
  end,
  ready = function(model, s) return model.b[s.from] end,
  expect = function(model, s)
    local view = model.b[s.from]
    local wrong = misuse(view, s.off, s.len)
    if wrong then return wrong end
    return { {
      what = "check", text = "a slice", want = function(got) return got[1] ~= nil, got[2] end,
      apply = function()
        local align = view.align
        while align > 1 and s.off % align ~= 0 do align = align / 2 end
        model.b[s.b] = { mem = view.mem, off = view.off + s.off, len = s.len, align = align }
      end,
    } }
  end,
}

ops.free = {
  guarded = true,
  make = function(ctx) return { b = ctx.r:pick(ctx.bufs) } end,
  text = function(s) return text.buf(s.b) .. ":free()" end,
  ready = exists,
  expect = function(model, s)
    return with_apply(value(true), function() model.b[s.b].freed = true end)
  end,
}

-- ---- content ------------------------------------------------------------------------------------

ops.set = {
  guarded = true,
  make = function(ctx)
    local r, b = ctx.r, ctx.r:pick(ctx.bufs)
    local size = ctx.sizes[b] or PAGE
    local step = { b = b, off = 0, len = size, seed = r:below(1000) }
    if r:one_in(2) then step.off, step.len = any_range(ctx, b, 5000) end
    if step.len > 2000000 or text.is_bad(step.len) then step.len = size + 1 end
    return step
  end,
  text = function(s)
    return text.call(text.buf(s.b) .. ":set", 2, s.off, text.content_call(s.seed, s.len))
  end,
  ready = exists,
  expect = function(model, s)
    local view = model.b[s.b]
    return misuse(view, s.off, s.len) or with_apply(value(true), function()
      write(view, s.off, text.content(s.seed, s.len))
    end)
  end,
}

ops.fill = {
  guarded = true,
  make = function(ctx)
    local r, b = ctx.r, ctx.r:pick(ctx.bufs)
    local step = { b = b, byte = r:below(256) }
    if r:one_in(20) then step.byte = r:pick({ 256, -1, 0.5 }) end
    if r:one_in(2) then step.off, step.len = any_range(ctx, b, 70000) end
    if r:one_in(4) then step.len = nil end
    return step
  end,
  text = function(s) return text.call(text.buf(s.b) .. ":fill", 3, s.byte, s.off, s.len) end,
  ready = exists,
  expect = function(model, s)
    local view, off = model.b[s.b], s.off or 0
    local len = s.len or rest(view, off)
    if s.byte > 255 or text.is_bad(s.byte) then
      return { raises("(Closed)", "bad argument", "out of the buffer's range") }
    end
    return misuse(view, off, len) or with_apply(value(true), function()
      write(view, off, string.char(s.byte):rep(len))
    end)
  end,
}

ops.copy = {
  guarded = true,
  make = function(ctx)
    local r = ctx.r
    local step = { b = r:pick(ctx.bufs), from = r:pick(ctx.bufs) }
    step.off = any_range(ctx, step.b, 0)
    if r:one_in(2) then step.off = 0 end
    if not r:one_in(4) then step.from_off, step.len = any_range(ctx, step.from, 9000) end
    return step
  end,
  text = function(s)
    return text.call(text.buf(s.b) .. ":copy", 4, s.off, text.raw(text.buf(s.from)), s.from_off,
      s.len)
  end,
  ready = exists,
  expect = function(model, s)
    local to, from = model.b[s.b], model.b[s.from]
    local from_off = s.from_off or 0
    local len = s.len or rest(from, from_off)
    local first, second = misuse(from, from_off, len), misuse(to, s.off, len)
    if first or second then
      return { raises("(Closed)", "bad argument", "out of the buffer's range") }
    end
    return with_apply(value(true), function() write(to, s.off, read(from, from_off, len)) end)
  end,
}

ops.string = {
  guarded = true,
  make = function(ctx)
    local step = { b = ctx.r:pick(ctx.bufs) }
    if ctx.r:one_in(2) then step.off, step.len = any_range(ctx, step.b, 70000) end
    return step
  end,
  text = function(s) return text.call(text.buf(s.b) .. ":string", 2, s.off, s.len) end,
  ready = exists,
  expect = function(model, s)
    local view, off = model.b[s.b], s.off or 0
    local len = s.len or rest(view, off)
    return misuse(view, off, len) or { value(read(view, off, len)) }
  end,
}

ops.length = {
  guarded = true,
  make = function(ctx) return { b = ctx.r:pick(ctx.bufs) } end,
  text = function(s) return ("#%s, %s:align()"):format(text.buf(s.b), text.buf(s.b)) end,
  ready = exists,
  expect = function(model, s)
    local view = model.b[s.b]
    if view.freed then return { raises("(Closed)") } end
    return { value(view.len, view.align) }
  end,
}

-- ---- CRC-32C, bit by bit ------------------------------------------------------------------------

local function xor(a, b)
  local result, bit = 0, 1
  while a > 0 or b > 0 do
    if a % 2 ~= b % 2 then result = result + bit end
    a, b, bit = floor(a / 2), floor(b / 2), bit * 2
  end
  return result
end

local crc_table = {}
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    if c % 2 == 1 then c = xor(floor(c / 2), 0x82f63b78) else c = floor(c / 2) end
  end
  crc_table[i] = c
end

local function crc32c(s)
  local c = 0xffffffff
  for i = 1, #s do c = xor(crc_table[xor(c % 256, s:byte(i))], floor(c / 256)) end
  return xor(c, 0xffffffff)
end

ops.crc32c = {
  guarded = true,
  make = function(ctx)
    local step = { b = ctx.r:pick(ctx.bufs) }
    step.off, step.len = any_range(ctx, step.b, 200)
    return step
  end,
  text = function(s) return text.call(text.buf(s.b) .. ":crc32c", 2, s.off, s.len) end,
  ready = exists,
  expect = function(model, s)
    local view = model.b[s.b]
    return misuse(view, s.off, s.len) or { value(crc32c(read(view, s.off, s.len))) }
  end,
}

-- ---- typed access -------------------------------------------------------------------------------

local function encode(v, n)
  local parts = {}
  for i = 1, n do
    parts[i] = string.char(floor(v % 256))
    v = floor(v / 256)
  end
  return table.concat(parts)
end

local function decode(s)
  local v = 0
  for i = #s, 1, -1 do v = v * 256 + s:byte(i) end
  return v
end

-- IEEE 754 by hand, for values that are neither tiny nor huge.
local function encode_double(v)
  if v == 0 then return ("\0"):rep(8) end
  local sign = v < 0 and 128 or 0
  local m, e = v < 0 and -v or v, 0
  while m >= 2 do m, e = m / 2, e + 1 end
  while m < 1 do m, e = m * 2, e - 1 end
  local bits, exponent = floor((m - 1) * 2 ^ 52), e + 1023
  local top = sign + floor(exponent / 16)
  local next_byte = exponent % 16 * 16 + floor(bits / 2 ^ 48)
  return encode(bits % 2 ^ 48, 6) .. string.char(floor(next_byte), floor(top))
end

local TYPES = {
  u8 = { 1, { 0, 1, 127, 255 }, { 256, -1, 0.5 } },
  u16 = { 2, { 0, 258, 65535 }, { 65536, 0.5 } },
  u32 = { 4, { 0, 16909060, 4294967295 }, { 4294967296, 0.5 } },
  u64 = { 8, { 0, 283686952306183, 9007199254740992 }, { 0.5, 2 ^ 64 } },
  i32 = { 4, { 0, -1, 2147483647, -2147483648 }, { 2147483648, -2147483649, 0.5 } },
  i64 = { 8, { 0, -1, -9007199254740992, 283686952306183 }, { 0.5, 2 ^ 63 } },
  f64 = { 8, { 0, 1, -0.5, 3.25, 1e15, -123456.789 }, {} },
}
local TYPE_NAMES = { "u8", "u16", "u32", "u64", "i32", "i64", "f64" }

local function encode_typed(name, v)
  if name == "f64" then return encode_double(v) end
  local size = TYPES[name][1]
  if v >= 0 then return encode(v, size) end
  local flipped = encode(-v - 1, size)
  return (flipped:gsub(".", function(c) return string.char(255 - c:byte()) end))
end

-- What eight bytes beyond the exact doubles give depends on the Lua.
local function decode_wide(s, signed)
  local low, high = decode(s:sub(1, 4)), decode(s:sub(5, 8))
  local negative = signed and high >= 2 ^ 31
  local exact
  if negative then
    high = high - 4294967296
    exact = high * 4294967296.0 + low >= -2 ^ 53
  else
    exact = high * 4294967296.0 + low <= 2 ^ 53
  end
  if exact or math.type then return floor(high) * 4294967296 + floor(low) end
  if not rawget(_G, "jit") then return nil end
  local ffi = require("ffi")
  if signed then return ffi.cast("int64_t", high) * 4294967296 + low end
  return ffi.cast("uint64_t", high) * 4294967296 + low
end

local function decode_typed(name, s)
  if name == "u64" or name == "i64" then return decode_wide(s, name == "i64") end
  local v = decode(s)
  if name == "i32" and v >= 2147483648 then v = v - 4294967296 end
  return v
end

ops.typed = {
  guarded = true,
  make = function(ctx)
    local r = ctx.r
    local step = { b = r:pick(ctx.bufs), name = r:pick(TYPE_NAMES) }
    local kind = TYPES[step.name]
    step.off = any_range(ctx, step.b, 0)
    if r:one_in(4) then step.off = (ctx.sizes[step.b] or PAGE) - kind[1] end
    if r:one_in(2) or step.name == "f64" then step.v = r:pick(kind[2]) end
    if r:one_in(10) and kind[3][1] then step.v = r:pick(kind[3]) end
    return step
  end,
  text = function(s) return text.call(("%s:%s"):format(text.buf(s.b), s.name), 2, s.off, s.v) end,
  ready = exists,
  expect = function(model, s)
    local view, kind = model.b[s.b], TYPES[s.name]
    local bad = false
    for _, v in ipairs(kind[3]) do bad = bad or v == s.v end
    local wrong = misuse(view, s.off, kind[1])
    if bad then return { raises("(Closed)", "bad argument", "out of the buffer's range") } end
    if wrong then return wrong end
    if s.v then
      return with_apply(value(true), function() write(view, s.off, encode_typed(s.name, s.v)) end)
    end
    local v = decode_typed(s.name, read(view, s.off, kind[1]))
    if v == nil then return { raises("does not fit exactly") } end
    return { value(v) }
  end,
}

M.ops = ops
M.weights = {
  { "buffer", 6 }, { "slice", 14 }, { "free", 1 }, { "set", 20 }, { "fill", 5 }, { "copy", 6 },
  { "string", 8 }, { "length", 2 }, { "crc32c", 3 }, { "typed", 12 },
}

return M
