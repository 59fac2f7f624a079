-- Steps on streams: each makes one, moves bytes through it and closes it.

local buffers = require("model.buffers")
local text = require("model.text")
local values = require("model.values")

local ops = {}

local function any_stream(ctx)
  local r = ctx.r
  local o = { block = r:pick({ 1, 4096, 8192, 20000, 65536 }), depth = r:between(1, 4) }
  if r:one_in(2) then o.offset = r:below(100000) end
  local pieces = {}
  for i = 1, r:between(0, 5) do
    pieces[i] = r:pick({ 0, 1, 100, 4096, 5000, 20000, 70000 })
  end
  return { f = r:pick(ctx.files), o = o, pieces = pieces }
end

local function open(model, s)
  local h = model.f[s.f]
  return h and not h.closed and h.node.bytes.size < 2 ^ 22 and h
end

ops.writer = {
  make = function(ctx)
    local step = any_stream(ctx)
    step.seed, step.sync = ctx.r:below(1000), ctx.r:one_in(3)
    return step
  end,
  text = function(s)
    local words = {}
    for i, n in ipairs(s.pieces) do
      words[i] = ("w:write(%s) and "):format(text.content_call(s.seed + i, n).raw)
    end
    return ([[(function()
  local w = assert(jdbfs.writer(%s, %s))
  local ok = %s%s
  return ok, w:position(), w:close()
end)()]]):format(text.file(s.f), text.lit(s.o), table.concat(words),
      s.sync and "w:sync()" or "true")
  end,
  ready = function(model, s)
    local h = open(model, s)
    return h and h.writable
  end,
  expect = function(model, s)
    local at, all = s.o.offset or 0, {}
    for i, n in ipairs(s.pieces) do all[i] = text.content(s.seed + i, n) end
    local data = table.concat(all)
    local expectation = values.value(true, at + #data, true)
    expectation.apply = function() model.f[s.f].node.bytes:write(at, data) end
    return { expectation }
  end,
}

ops.reader = {
  make = function(ctx)
    local step = any_stream(ctx)
    if ctx.r:one_in(3) then step.b = ctx.r:pick(ctx.bufs) end
    return step
  end,
  text = function(s)
    local sizes = table.concat(s.pieces, ", ")
    local into = s.b and ("r:read_into(%s)"):format(text.buf(s.b)) or "0"
    return ([[(function()
  local r, list = assert(jdbfs.reader(%s, %s)), {}
  for i, n in ipairs({ %s }) do list[i] = r:read(n) or "the end" end
  return list, %s, r:position(), r:close()
end)()]]):format(text.file(s.f), text.lit(s.o), sizes, into)
  end,
  ready = function(model, s)
    return open(model, s) and (not s.b or model.b[s.b] and not model.b[s.b].freed)
  end,
  expect = function(model, s)
    local bytes, at, list = model.f[s.f].node.bytes, s.o.offset or 0, {}
    for i, n in ipairs(s.pieces) do
      local data = bytes:read(at, n)
      list[i] = (n > 0 and data == "") and "the end" or data
      at = at + #data
    end
    local view = s.b and model.b[s.b]
    local rest = view and bytes:read(at, view.len) or ""
    local expectation = values.value(list, #rest, at + #rest, true)
    expectation.apply = function()
      if view then buffers.write(view, 0, rest) end
    end
    return { expectation }
  end,
}

return { ops = ops, weights = { { "writer", 5 }, { "reader", 5 } } }
