-- Steps on open files. A handle in the model: {node =, path =, writable =, read_align =,
-- write_align =, memory_align =, atomic =, closed =, lock =}.

local buffers = require("model.buffers")
local names = require("model.names")
local text = require("model.text")
local values = require("model.values")

local value, fail = values.value, values.fail
local PAGE = 4096
local LIMIT = 2 ^ 63

local M = {}
local ops = {}

-- ---- what the steps share -----------------------------------------------------------------------

local function handle(model, step)
  return model.f[step.f]
end

local function with_apply(expectation, apply)
  expectation.apply = apply
  return { expectation }
end

local function refused(op, h, faults)
  return { values.any_fault(op, h.path, faults) }
end

local function method(s, name, n, ...)
  return text.call(("%s:%s"):format(text.file(s.f), name), n, ...)
end

-- ---- opening and closing ------------------------------------------------------------------------

local OPENERS = { "open", "create", "open_rw", "open_rw", "open_rw", "open_wal" }

local function any_options(r, how)
  local o = {}
  if r:one_in(3) then o.direct = r:pick({ "off", "off", "prefer", "require" }) end
  if how ~= "open" and r:one_in(10) then o.exclusive = true end
  if how:find("open_") and not o.exclusive and r:one_in(8) then o.must_exist = true end
  if how ~= "open" and r:one_in(10) then o.durable_create = true end
  if r:one_in(8) then o.lock = r:pick({ "exclusive", "shared" }) end
  if r:one_in(12) then o.dsync = true end
  if how ~= "open" and r:one_in(4) then o.mode = 384 end -- 0600
  if r:one_in(12) then o.atime = true end
  if r:one_in(12) then o.durable_method = r:pick({ "auto", "write", "flush" }) end
  return next(o) and o or nil
end

--- Whether another open file of that node holds a lock that excludes this one.
local function locked(node, h, how)
  for other, held in pairs(node.locks) do
    if other ~= h and (how == "exclusive" or held == "exclusive") then return true end
  end
  return false
end

local function open_faults(s, dir, why, node)
  local o = s.o or {}
  if not dir then return { { kind = "Io", name = why } } end
  if not node and (s.how == "open" or o.must_exist) then
    return { { kind = "Io", name = "ENOENT" } }
  end
  if not node then return {} end
  local faults = {}
  if o.exclusive then faults[1] = { kind = "Io", name = "EEXIST" } end
  if node.dir then
    faults[#faults + 1] = { kind = "Io", name = "EISDIR" }
  elseif o.lock and locked(node, nil, o.lock) then
    faults[#faults + 1] = { kind = "Busy" }
  end
  return faults
end

local function opened(model, s, node)
  local o = s.o or {}
  local facts = model.facts[o.direct or "require"]
  local h = {
    node = node, path = model.path(s.path), name = s.path, writable = s.how ~= "open",
    read_align = facts.read, write_align = facts.write, memory_align = facts.memory,
    atomic = facts.atomic, lock = o.lock, dsync = o.dsync or s.how == "open_wal",
  }
  if o.lock then node.locks[h] = o.lock end
  model.f[s.f] = h
  return h
end
M.opened = opened

ops.open = {
  make = function(ctx)
    local r = ctx.r
    local step = { f = r:pick(ctx.files), how = r:pick(OPENERS), path = names.any_path(ctx) }
    step.o = any_options(r, step.how)
    ctx.unaligned[step.f] = step.o and step.o.direct == "off"
    return step
  end,
  text = function(s)
    return text.call("jdbfs." .. s.how, 2, text.path(s.path), s.o), text.file(s.f)
  end,
  ready = function(model, s)
    local h, direct = model.f[s.f], s.o and s.o.direct or "require"
    return (not h or h.closed) and model.facts[direct]
  end,
  expect = function(model, s)
    local dir, why, node = names.walk(model, s.path)
    local faults = open_faults(s, dir, why, node)
    if faults[1] then return { values.any_fault(s.how, model.path(s.path), faults) } end
    return { {
      what = "check", text = "a file", want = function(got) return got[1] ~= nil, got[2] end,
      apply = function()
        if not node then
          node = names.new_file()
          node.mode = model.facts.modes and s.o and s.o.mode or model.facts.mode
          names.link(model, s.path, node)
        end
        if s.how == "create" then node.bytes:resize(0) end
        opened(model, s, node)
      end,
    } }
  end,
}

function M.closed(h)
  h.closed = true
  h.node.locks[h] = nil
  h.lock = nil
end

ops.close = {
  make = function(ctx) return { f = ctx.r:pick(ctx.files) } end,
  text = function(s) return method(s, "close", 0) end,
  ready = handle,
  expect = function(model, s)
    return with_apply(value(true), function() M.closed(handle(model, s)) end)
  end,
}

-- A method without arguments that fails only on a closed file.
local function plain(name, find)
  return {
    make = function(ctx) return { f = ctx.r:pick(ctx.files) } end,
    text = function(s) return method(s, name, 0) end,
    ready = handle,
    expect = function(model, s)
      local h = handle(model, s)
      if h.closed then return { fail({ kind = "Closed", op = name, path = h.path }) } end
      return find(h)
    end,
  }
end

ops.size = plain("size", function(h) return { value(h.node.bytes.size) } end)
ops.stat = plain("stat", function(h) return { names.check_stat(h.node) } end)
ops.sync_data = plain("sync_data", function() return { value(true) } end)
ops.sync_all = plain("sync_all", function() return { value(true) } end)
ops.unlock = plain("unlock", function(h)
  return with_apply(value(true), function()
    h.node.locks[h] = nil
    h.lock = nil
  end)
end)
ops.info = plain("info", function(h)
  return { values.check(function(got)
    local info = got[1]
    if type(info) ~= "table" then return nil, "no table" end
    local want = {
      path = h.path, writable = h.writable, dsync = h.dsync or false, poisoned = false,
      read_alignment = h.read_align, write_alignment = h.write_align,
      memory_alignment = h.memory_align,
    }
    for name, v in pairs(want) do
      if info[name] ~= v then return nil, name .. " is " .. tostring(info[name]) end
    end
    return true
  end) }
end)

ops.path = {
  make = function(ctx) return { f = ctx.r:pick(ctx.files) } end,
  text = function(s) return method(s, "path", 0) end,
  ready = handle,
  expect = function(model, s) return { value(handle(model, s).path) } end,
}

ops.lock = {
  make = function(ctx)
    return { f = ctx.r:pick(ctx.files), how = ctx.r:pick({ "exclusive", "shared" }) }
  end,
  text = function(s) return method(s, "lock", 1, s.how) end,
  ready = handle,
  expect = function(model, s)
    local h = handle(model, s)
    if h.closed then return { fail({ kind = "Closed", op = "lock", path = h.path }) } end
    if locked(h.node, h, s.how) then
      return { fail({ kind = "Busy", op = "lock", path = h.path, name = false }) }
    end
    return with_apply(value(true), function()
      h.node.locks[h] = s.how
      h.lock = s.how
    end)
  end,
}

-- ---- transfers ----------------------------------------------------------------------------------

-- Offset, buffer offset and length, mostly of whole pages in the buffer.
local function any_transfer(ctx, step)
  local r, size = ctx.r, ctx.sizes[step.b] or PAGE
  local pages = math.floor(size / PAGE)
  local first, last = ctx.first or 0, ctx.last or 24
  step.off = r:between(first, last - 1) * PAGE
  if r:one_in(2) and pages > 0 then
    step.b_off = r:below(pages) * PAGE
    step.len = r:between(1, pages - step.b_off / PAGE) * PAGE
  end
  if ctx.last then -- a file that others use too: stay in the range
    step.b_off = step.b_off or 0
    step.len = math.floor(math.min(step.len or PAGE, last * PAGE - step.off))
    return step
  end
  if ctx.unaligned[step.f] and r:one_in(2) then
    step.off = r:below(24 * PAGE)
    step.b_off = r:below(size + 1)
    step.len = r:below(size - step.b_off + 1)
  end
  if r:one_in(10) then step.off = r:pick({ 512, 1024, 100, 2 ^ 36, 2 ^ 62, 2 ^ 63 - PAGE }) end
  if r:one_in(25) then step.off = r:pick(text.BAD) end
  if r:one_in(10) then
    step.b_off = r:pick({ 512, 1, size, size + 1, 2 ^ 62 })
    step.len = r:pick({ 0, 512, 1, size, 2 ^ 62 })
  end
  if r:one_in(30) then step.len = r:pick(text.BAD) end
  if step.len and not step.b_off then step.b_off = 0 end
  return step
end
M.any_transfer = any_transfer

--- Everything that is wrong with a transfer, and its length when nothing is.
local function check_transfer(h, view, s, writing)
  local b_off, faults = s.b_off or 0, {}
  local function add(kind, name, offset)
    faults[#faults + 1] = { kind = kind, name = name, offset = offset }
  end
  local len = s.len or view.len - b_off
  local bad = text.is_bad(s.off) or text.is_bad(b_off) or text.is_bad(len)
  if bad then add("Overflow") end
  if bad or len > view.len - b_off then add("Overflow") end
  if view.freed then add("Closed") end
  if h.closed then add("Closed") end
  if writing and not h.writable then add("Io", "EBADF") end
  if bad then return faults end
  if s.off + len >= LIMIT then add("Overflow") end
  local align = writing and h.write_align or h.read_align
  if s.off % align ~= 0 or len % align ~= 0 then add("Alignment", nil, s.off) end
  if (view.off + b_off) % h.memory_align ~= 0 then add("Alignment", nil, s.off) end
  if s.flags and s.flags:find("atomic") then
    local atomic = h.atomic
    if atomic.max == 0 then
      add("Unsupported")
    elseif len < atomic.min or len > atomic.max or 2 ^ math.floor(math.log(len) / math.log(2) + 0.5)
      ~= len or s.off % len ~= 0 then
      add("Alignment")
    end
  end
  return faults, len, b_off
end

-- Whether a double holds the end of that range: beyond 2^53 not of every one.
local function exact(off, len)
  if text.is_bad(off) or text.is_bad(len) then return true end
  return off + len - off == len and off + len - len == off
end

local function there(node, off, len)
  local rest = node.bytes.size - off
  return rest <= 0 and 0 or rest < len and rest or len
end

-- What lies in memory behind the bytes that were read is not told: the model takes what is there.
local function fill_in(model, s, view, b_off, data, len)
  buffers.write(view, b_off, data)
  if len > #data then
    buffers.write(view, b_off + #data, model.peek(s.b, b_off + #data, len - #data))
  end
end
M.fill_in = fill_in

local function transfer_ready(model, s)
  local view = model.b[s.b]
  return model.f[s.f] and view and exact(s.off, s.len or view.len - (s.b_off or 0))
end

local function read_op(name, upto)
  return {
    make = function(ctx)
      return any_transfer(ctx, { f = ctx.r:pick(ctx.files), b = ctx.r:pick(ctx.bufs) })
    end,
    text = function(s)
      return method(s, name, 4, text.raw(text.buf(s.b)), s.off, s.b_off, s.len)
    end,
    ready = transfer_ready,
    expect = function(model, s)
      local h, view = handle(model, s), model.b[s.b]
      local faults, len, b_off = check_transfer(h, view, s, false)
      if faults[1] then return refused(name, h, faults) end
      local data = h.node.bytes:read(s.off, len)
      local function apply() fill_in(model, s, view, b_off, data, len) end
      if #data == len or upto then return with_apply(value(#data), apply) end
      return with_apply(fail({
        kind = "ShortRead", op = name, path = h.path, name = false, offset = s.off, length = len,
        actual = #data,
      }), apply)
    end,
  }
end

ops.read_at = read_op("read_at", false)
ops.read_upto = read_op("read_upto", true)

ops.read = {
  make = function(ctx)
    local r = ctx.r
    local first, last = ctx.first or 0, ctx.last or 26
    local step = { f = r:pick(ctx.files), off = r:between(first * PAGE, last * PAGE - 1) }
    step.len = r:below(ctx.last and last * PAGE - step.off or r:pick({ 2, 5000, 120000 }))
    if ctx.last then return step end
    if r:one_in(12) then step.off = r:pick({ 0, 2 ^ 36, 2 ^ 62, 2 ^ 63 - 1 }) end
    if r:one_in(12) then step.len = r:pick({ 0, 2 ^ 31, 2 ^ 53, 2 ^ 63 - 2048 }) end
    if r:one_in(25) then step.off = r:pick(text.BAD) end
    if r:one_in(25) then step.len = r:pick(text.BAD) end
    return step
  end,
  text = function(s) return method(s, "read", 2, s.off, s.len) end,
  ready = function(model, s)
    local h = handle(model, s)
    if not h or not exact(s.off, s.len) then return false end
    return text.is_bad(s.len) or text.is_bad(s.off) or there(h.node, s.off, s.len) < 2 ^ 22
  end,
  expect = function(model, s)
    local h, faults = handle(model, s), {}
    local bad = text.is_bad(s.off) or text.is_bad(s.len)
    if bad or s.off + s.len >= LIMIT then faults[1] = { kind = "Overflow" } end
    if h.closed then faults[#faults + 1] = { kind = "Closed" } end
    if faults[1] then return refused("read", h, faults) end
    return { value(h.node.bytes:read(s.off, s.len)) }
  end,
}

local function any_flags(r)
  return r:one_in(12) and "dsync" or r:one_in(60) and r:pick({ "atomic", "dsync,atomic" }) or nil
end

-- Far behind the end some file systems stop and others do not.
local function write_outcomes(model, h, off, ok, op)
  if off < 2 ^ 43 then return { ok } end
  local refusal = { kind = "Io", op = op, path = h.path, name = { "EFBIG", "EINVAL" } }
  if model.facts.vague_limits then refusal.kind, refusal.name = nil, nil end
  return { ok, fail(refusal) }
end

ops.write_at = {
  make = function(ctx)
    local r = ctx.r
    local step = { f = r:pick(ctx.files), b = r:pick(ctx.bufs), flags = any_flags(r) }
    any_transfer(ctx, step)
    if step.flags and not step.len then
      step.b_off, step.len = 0, ctx.sizes[step.b] or PAGE
    end
    return step
  end,
  text = function(s)
    return method(s, "write_at", 5, text.raw(text.buf(s.b)), s.off, s.b_off, s.len, s.flags)
  end,
  ready = transfer_ready,
  expect = function(model, s)
    local h, view = handle(model, s), model.b[s.b]
    local faults, len, b_off = check_transfer(h, view, s, true)
    if faults[1] then return refused("write_at", h, faults) end
    local ok = value(len)
    ok.apply = function() h.node.bytes:write(s.off, buffers.read(view, b_off, len)) end
    return write_outcomes(model, h, s.off + len, ok, "write_at")
  end,
}

-- ---- lists --------------------------------------------------------------------------------------

-- Disjoint ranges of file and buffer; sometimes one entry with something wrong.
local function any_list(ctx, step)
  local r = ctx.r
  local b = r:pick(ctx.bufs)
  local pages = math.floor((ctx.sizes[b] or PAGE) / PAGE)
  local first, last = ctx.first or 0, ctx.last or 30
  step.list = {}
  local at, from = first + r:below(3), 0
  while at < last and from < pages and #step.list < 12 do
    local n = r:between(1, 2)
    if at + n > last or from + n > pages then break end
    step.list[#step.list + 1] = { b = b, off = at * PAGE, b_off = from * PAGE, len = n * PAGE }
    at, from = at + n + r:below(3), from + n
    if r:one_in(4) then break end
  end
  if not ctx.last and r:one_in(6) and step.list[1] then
    local entry = r:pick(step.list)
    if r:one_in(2) then entry.off = r:pick({ 1, 2 ^ 63, -1, 2 ^ 63 - PAGE }) else entry.len = 1 end
  end
  if r:one_in(8) and #step.list > 1 then -- twice the same memory
    step.list[#step.list].b_off = step.list[1].b_off
  end
  return step
end

-- More entries than some queues hold, out of the same memory.
local function long_list(ctx, step)
  local r, b = ctx.r, ctx.r:pick(ctx.bufs)
  local pages = math.floor((ctx.sizes[b] or PAGE) / PAGE)
  step.list = {}
  for i = 1, pages > 0 and r:between(20, 90) or 0 do
    step.list[i] = { b = b, off = (2 * i + r:below(2)) * PAGE, b_off = r:below(pages) * PAGE,
      len = PAGE }
  end
  return step
end

local function list_text(s, name)
  local words = {}
  for i, e in ipairs(s.list) do
    words[i] = ("{ %s, %s, %s, %s }"):format(text.buf(e.b), text.lit(e.off), text.lit(e.b_off),
      text.lit(e.len))
  end
  return method(s, name, 2, text.raw("{ " .. table.concat(words, ", ") .. " }"), s.flags)
end

local function list_ready(model, s)
  if not model.f[s.f] then return false end
  for _, e in ipairs(s.list) do
    if not model.b[e.b] then return false end
  end
  return true
end

-- Which of two writes to the same bytes comes last is not told: no such lists.
local function apart(list)
  for i, a in ipairs(list) do
    for k = 1, i - 1 do
      local b = list[k]
      if a.off < b.off + b.len and b.off < a.off + a.len then return false end
    end
  end
  return true
end

-- Two entries that read into the same memory: the second is refused.
local function overlaps(list, i)
  for k = 1, i - 1 do
    local a, b = list[k], list[i]
    local same = a.b == b.b and a.len > 0 and b.len > 0
    if same and a.b_off < b.b_off + b.len and b.b_off < a.b_off + a.len then return true end
  end
  return false
end

-- Nothing of a list is done when an entry is refused: which, and why.
local function refused_entry(model, h, s, name, writing)
  local whole = {}
  if h.closed then whole[1] = { kind = "Closed" } end
  if writing and not h.writable then whole[#whole + 1] = { kind = "Io", name = "EBADF" } end
  for i, e in ipairs(s.list) do
    local faults = check_transfer(h, model.b[e.b], e, writing)
    if not writing and not faults[1] and overlaps(s.list, i) then faults[1] = { kind = "Busy" } end
    if faults[1] then
      if #faults == 1 and not whole[1] then faults[1].index = i end
      for _, fault in ipairs(whole) do faults[#faults + 1] = fault end
      return refused(name, h, faults)
    end
  end
  if whole[1] then return refused(name, h, whole) end
end

ops.read_many = {
  make = function(ctx) return any_list(ctx, { f = ctx.r:pick(ctx.files) }) end,
  text = function(s) return list_text(s, "read_many") end,
  ready = list_ready,
  expect = function(model, s)
    local h = handle(model, s)
    local wrong = refused_entry(model, h, s, "read_many", false)
    if wrong then return wrong end
    local short
    for i, e in ipairs(s.list) do
      local n = there(h.node, e.off, e.len)
      if n < e.len then short = short or { i, e, n } end
    end
    local function apply()
      for _, e in ipairs(s.list) do
        fill_in(model, e, model.b[e.b], e.b_off, h.node.bytes:read(e.off, e.len), e.len)
      end
    end
    if not short then return with_apply(value(#s.list), apply) end
    return with_apply(fail({
      kind = "ShortRead", op = "read_many", path = h.path, name = false, index = short[1],
      offset = short[2].off, length = short[2].len, actual = short[3],
    }), apply)
  end,
}

ops.write_many = {
  make = function(ctx)
    local flags = ctx.r:one_in(8) and "dsync" or nil
    local make = not ctx.last and ctx.r:one_in(8) and long_list or any_list
    return make(ctx, { f = ctx.r:pick(ctx.files), flags = flags })
  end,
  text = function(s) return list_text(s, "write_many") end,
  ready = function(model, s) return list_ready(model, s) and apart(s.list) end,
  expect = function(model, s)
    local h = handle(model, s)
    local wrong = refused_entry(model, h, s, "write_many", true)
    if wrong then return wrong end
    return with_apply(value(#s.list), function()
      for _, e in ipairs(s.list) do
        h.node.bytes:write(e.off, buffers.read(model.b[e.b], e.b_off, e.len))
      end
    end)
  end,
}

-- ---- size and space -----------------------------------------------------------------------------

local function any_length(ctx)
  local r = ctx.r
  local len = r:below(30 * PAGE)
  if r:one_in(2) then len = r:below(30) * PAGE end
  if r:one_in(3) then len = r:pick({ 1, 100, 4095, 4096, 4097, 8191, 8192, 12287, 12288 }) end
  if r:one_in(12) then len = r:pick(text.BAD) end
  return len
end

-- A call that changes the file and takes numbers.
local function change_faults(h, ...)
  local faults, sum = {}, 0
  for _, n in ipairs({ ... }) do
    if text.is_bad(n) then faults[1] = { kind = "Overflow" } end
    sum = sum + n
  end
  if not faults[1] and sum >= LIMIT then faults[1] = { kind = "Overflow" } end
  if h.closed then faults[#faults + 1] = { kind = "Closed" } end
  if not h.writable then faults[#faults + 1] = { kind = "Io", name = "EBADF" } end
  return faults
end

ops.truncate = {
  make = function(ctx)
    local step = { f = ctx.r:pick(ctx.files), len = any_length(ctx) }
    if ctx.r:one_in(15) then step.len = ctx.r:pick({ 2 ^ 36, 2 ^ 36 + 1, 2 ^ 62 }) end
    return step
  end,
  text = function(s) return method(s, "truncate", 1, s.len) end,
  ready = handle,
  expect = function(model, s)
    local h = handle(model, s)
    local faults = change_faults(h, s.len)
    if faults[1] then return refused("truncate", h, faults) end
    local ok = value(true)
    ok.apply = function() h.node.bytes:resize(s.len) end
    return write_outcomes(model, h, s.len, ok, "truncate")
  end,
}

ops.preallocate = {
  make = function(ctx)
    local r = ctx.r
    local step = { f = r:pick(ctx.files), len = any_length(ctx) }
    step.how = r:pick({ "size", "keep_size", "zero", "size" })
    if step.how == "size" and r:one_in(2) then step.how = nil end
    if r:one_in(20) then step.len = 2 ^ 50 end
    return step
  end,
  text = function(s) return method(s, "preallocate", 2, s.len, s.how) end,
  ready = function(model, s)
    local h = handle(model, s)
    if s.how == "keep_size" and not model.facts.reserve then return false end
    return h and h.node.bytes.size < 2 ^ 30
  end,
  expect = function(model, s)
    local h = handle(model, s)
    local faults = change_faults(h, s.len)
    if faults[1] then return refused("preallocate", h, faults) end
    if s.len >= 2 ^ 50 then
      return refused("preallocate", h, {
        { kind = "Io", name = "ENOSPC" }, { kind = "Io", name = "EFBIG" },
      })
    end
    local outcomes = with_apply(value(true), function()
      local bytes = h.node.bytes
      if s.how ~= "keep_size" and s.len > bytes.size then bytes:resize(s.len) end
    end)
    if not model.facts.fills_holes then -- and the model does not know where there are any
      outcomes[2] = fail({ kind = "Unsupported", op = "preallocate", path = h.path })
    end
    return outcomes
  end,
}

ops.punch = {
  make = function(ctx)
    local r = ctx.r
    local step = { f = r:pick(ctx.files), off = r:below(26 * PAGE), len = r:below(9 * PAGE) }
    if r:one_in(2) then step.off, step.len = r:below(26) * PAGE, r:below(9) * PAGE end
    if r:one_in(20) then step.off = r:pick(text.BAD) end
    if r:one_in(20) then step.len = r:pick({ 0, -1, 2 ^ 62, 2 ^ 63 }) end
    if r:one_in(20) then step.off = r:pick({ 2 ^ 36, 2 ^ 62 }) end
    return step
  end,
  text = function(s) return method(s, "punch", 2, s.off, s.len) end,
  ready = function(model, s)
    return model.facts.punch and handle(model, s) and exact(s.off, s.len)
  end,
  expect = function(model, s)
    local h = handle(model, s)
    local faults = change_faults(h, s.off, s.len)
    if faults[1] then return refused("punch", h, faults) end
    local ok = value(true)
    ok.apply = function() h.node.bytes:zero(s.off, s.len) end
    return write_outcomes(model, h, s.off + s.len, ok, "punch")
  end,
}

M.ops = ops
M.weights = {
  { "open", 30 }, { "close", 7 }, { "size", 4 }, { "stat", 3 }, { "info", 1 }, { "path", 1 },
  { "sync_data", 2 }, { "sync_all", 2 }, { "lock", 7 }, { "unlock", 3 }, { "read_at", 16 },
  { "read_upto", 12 }, { "read", 16 }, { "write_at", 40 }, { "read_many", 8 },
  { "write_many", 10 }, { "truncate", 9 }, { "preallocate", 9 }, { "punch", 6 },
}

return M
