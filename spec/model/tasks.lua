-- Steps about tasks: several lists of steps at once, transfers whose task is ended, memory in
-- flight, and what tasks coordinate themselves with.

local buffers = require("model.buffers")
local files = require("model.files")
local names = require("model.names")
local new_bytes = require("model.bytes")
local text = require("model.text")
local values = require("model.values")

local value = values.value
local PAGE, SECTOR = 4096, 512
local ops = {}

local function always() return true end

-- ---- transfers that are ended -------------------------------------------------------------------

-- A transfer that cannot fail: whole pages in the file and in the buffer.
local function any_whole(ctx)
  local r = ctx.r
  local step = { f = r:pick(ctx.files), b = r:pick(ctx.bufs), write = r:one_in(2) }
  local pages = math.floor((ctx.sizes[step.b] or PAGE) / PAGE)
  step.b_off = pages > 0 and r:below(pages) * PAGE or 0
  step.len = pages > 0 and r:between(1, pages - step.b_off / PAGE) * PAGE or PAGE
  step.off = r:below(8) * PAGE
  return step
end

local function whole_ready(model, s)
  local h, view = model.f[s.f], model.b[s.b]
  if not h or h.closed or not view or view.freed or s.write and not h.writable then return false end
  if view.off % PAGE ~= 0 or s.b_off + s.len > view.len then return false end
  return s.off + s.len <= h.node.bytes.size and names.find(model, h.name) == h.node
end

-- A list has one entry for each page.
local function transfer_list(s)
  local words = {}
  for at = 0, s.len - 1, PAGE do
    words[#words + 1] = ("{ %s, %.0f, %.0f, %d }"):format(text.buf(s.b), s.off + at, s.b_off + at,
      PAGE)
  end
  return ("%s:%s({ %s })"):format(text.file(s.f), s.write and "write_many" or "read_many",
    table.concat(words, ", "))
end

local function transfer(s)
  if s.list then return transfer_list(s) end
  return text.call(("%s:%s"):format(text.file(s.f), s.write and "write_at" or "read_at"), 4,
    text.raw(text.buf(s.b)), s.off, s.b_off, s.len)
end

local ENDINGS = {
  cancel = [[
  local task = jdbfs.spawn(function() return %s end)
  for _ = 1, %d do jdbfs.yield() end
  local ended = task:cancel()
  local n, message, err = task:join()]],
  timeout = [[
  local n, message, err = jdbfs.timeout(%.7f, function() return %s end)
  local ended = err ~= nil]],
  raise = [[
  local ended, n, err = true, nil, nil
  pcall(jdbfs.run, function()
    jdbfs.spawn(function() n = %s; ended = false end)
    for _ = 1, %d do jdbfs.yield() end
    error("on purpose")
  end)]],
}

-- Closing waits for what the task left behind; then the bytes are looked at.
local LOOK = {
  [true] = [[

  local f_closed = %s:close()
  local g = jdbfs.open(%s, { direct = "off" })
  local data = g:read(%d, %d)
  g:close()
  return ended, n, err and err.kind, f_closed, data]],
  [false] = [[

  local f_closed = %s:close()
  return ended, n, err and err.kind, f_closed, %s:string(%d, %d)]],
}

local function look(s)
  if s.write then
    return LOOK[true]:format(text.file(s.f), text.path(s.name).raw, s.off, s.len)
  end
  return LOOK[false]:format(text.file(s.f), text.buf(s.b), s.b_off, s.len)
end

-- Each sector is the old one or the new one.
local function torn(old, new, got)
  if #got ~= #new then return nil, #got .. " bytes" end
  for at = 1, #got, SECTOR do
    local piece = got:sub(at, at + SECTOR - 1)
    if piece ~= new:sub(at, at + SECTOR - 1) and piece ~= old:sub(at, at + SECTOR - 1) then
      return nil, ("sector at %d is neither old nor new"):format(at - 1)
    end
  end
  return true
end

local KIND = { cancel = "Cancelled", timeout = "Timeout" }

ops.interrupt = {
  make = function(ctx)
    local step = any_whole(ctx)
    step.how = ctx.outside and "raise" or ctx.r:pick({ "cancel", "timeout" })
    step.after, step.list = ctx.r:below(4), ctx.r:one_in(4)
    return step
  end,
  text = function(s)
    local body
    if s.how == "timeout" then
      body = ENDINGS.timeout:format(s.after * 0.00003, transfer(s))
    else
      body = ENDINGS[s.how]:format(transfer(s), s.after)
    end
    return "(function()\n" .. body .. look(s) .. "\nend)()"
  end,
  ready = function(model, s)
    local ready = whole_ready(model, s)
    if ready then s.name = model.f[s.f].name end
    return ready
  end,
  expect = function(model, s)
    local h, view = model.f[s.f], model.b[s.b]
    local in_file, in_memory = h.node.bytes:read(s.off, s.len), buffers.read(view, s.b_off, s.len)
    local old, new = in_file, in_memory
    if not s.write then old, new = in_memory, in_file end
    return { {
      what = "check", text = "ended, or done",
      want = function(got)
        local ended, n, kind, closed, data = got[1], got[2], got[3], got[4], got[5]
        if closed ~= true then return nil, "close gave " .. tostring(closed) end
        if ended then
          if n ~= nil or kind ~= KIND[s.how] then
            return nil, ("ended with %s, %s"):format(tostring(n), tostring(kind))
          end
          return torn(old, new, data)
        end
        if n ~= (s.list and s.len / PAGE or s.len) then
          return nil, "the count is " .. tostring(n)
        end
        return values.same(new, data)
      end,
      apply = function(got)
        files.closed(h)
        if s.write then h.node.bytes:write(s.off, got[5])
        else buffers.write(view, s.b_off, got[5]) end
      end,
    } }
  end,
}

-- Memory in flight: not to be changed, when it is read into not to be read either.
ops.busy = {
  make = any_whole,
  ready = whole_ready,
}

function ops.busy.text(s)
  local b = text.buf(s.b)
  return ([[(function()
  local task = jdbfs.spawn(function() return %s end)
  jdbfs.yield()
  local busy = task:status() == "waiting"
  local read = pcall(%s.string, %s, %d, 1)
  local freed = busy and pcall(%s.free, %s)
  local filled = busy and pcall(%s.fill, %s, 7, %d, 1)
  local again, message, err = true, nil, nil
  if busy then again, message, err = %s:read_at(%s, 0, %d, %d) end
  return busy, read, freed, filled, again, err and err.kind, (task:join())
end)()]]):format(transfer(s), b, b, s.b_off, b, b, b, b, s.b_off, text.file(s.f), b, s.b_off, s.len)
end

function ops.busy.expect(model, s)
  local h, view = model.f[s.f], model.b[s.b]
  return { {
    what = "check", text = "the transfer, Busy meanwhile",
    want = function(got)
      local busy, read, freed, filled = got[1], got[2], got[3], got[4]
      local again, kind, n = got[5], got[6], got[7]
      if n ~= s.len then return nil, "the count is " .. tostring(n) end
      if not busy then return true end
      if read ~= s.write then return nil, "reading in flight: " .. tostring(read) end
      if freed or filled then return nil, "changed in flight" end
      if again ~= nil or kind ~= "Busy" then return nil, "read into twice: " .. tostring(kind) end
      return true
    end,
    apply = function()
      if s.write then h.node.bytes:write(s.off, buffers.read(view, s.b_off, s.len))
      else buffers.write(view, s.b_off, h.node.bytes:read(s.off, s.len)) end
    end,
  } }
end

-- ---- files, memory and names that are let go meanwhile ------------------------------------------

-- A close waits for what is in flight. What had not begun is Closed, the rest is done.
ops.close_in_flight = {
  make = function(ctx)
    local step = any_whole(ctx)
    step.write, step.count, step.after = true, ctx.r:between(1, 4), ctx.r:below(2)
    return step
  end,
  text = function(s)
    return ([[(function()
  local tasks, done, refused = {}, 0, 0
  for i = 1, %d do
    tasks[i] = jdbfs.spawn(function()
      local n, _, err = %s
      if n == %d then done = done + 1 elseif err.kind == "Closed" then refused = refused + 1 end
    end)
  end
  for _ = 1, %d do jdbfs.yield() end
  local closed, done_before = %s:close(), done
  for i = 1, #tasks do tasks[i]:join() end
  return closed, done + refused, done, done_before
end)()]]):format(s.count, transfer(s), s.len, s.after, text.file(s.f))
  end,
  ready = whole_ready,
  expect = function(model, s)
    local h, view = model.f[s.f], model.b[s.b]
    return { {
      what = "check", text = "true, and each transfer done or Closed",
      want = function(got)
        local done = got[3]
        if got[1] ~= true or got[2] ~= s.count then return nil, "lost one: " .. tostring(got[2]) end
        if s.after > 0 and done ~= s.count then return nil, "refused one that had begun" end
        return true
      end,
      apply = function(got)
        files.closed(h)
        if got[3] > 0 then h.node.bytes:write(s.off, buffers.read(view, s.b_off, s.len)) end
      end,
    } }
  end,
}

-- A write whose task, file and memory nobody has any more: it happens, or it does not.
ops.abandon = {
  make = function(ctx)
    local step = any_whole(ctx)
    step.write, step.after, step.seed = true, ctx.r:below(3), ctx.r:below(1000)
    return step
  end,
  text = function(s)
    return ([[(function()
  local task = jdbfs.spawn(function()
    local own, g = jdbfs.buffer(%d), jdbfs.open_rw(%s)
    own:set(0, text(%d, %d))
    return g:write_at(own, %d)
  end)
  for _ = 1, %d do jdbfs.sleep(0.00005) end
  task:cancel()
  task = nil
  collectgarbage()
  while jdbfs.stats().abandoned > 0 do jdbfs.sleep(0.0002) end
  return %s:read(%d, %d)
end)()]]):format(s.len, text.path(s.name).raw, s.seed, s.len, s.off, s.after, text.file(s.f), s.off,
      s.len)
  end,
  ready = function(model, s)
    local ready = whole_ready(model, s) and model.facts.require
    if ready then s.name = model.f[s.f].name end
    return ready
  end,
  expect = function(model, s)
    local bytes = model.f[s.f].node.bytes
    local old, new = bytes:read(s.off, s.len), text.content(s.seed, s.len)
    return { {
      what = "check", text = "old or new",
      want = function(got) return torn(old, new, got[1] or "") end,
      apply = function(got) bytes:write(s.off, got[1]) end,
    } }
  end,
}

-- A change of size or space whose task is cancelled: all of it, or nothing.
ops.interrupt_change = {
  make = function(ctx)
    local step, r = any_whole(ctx), ctx.r
    step.write, step.how, step.after = true, r:pick({ "truncate", "preallocate", "punch" }),
      r:below(3)
    step.length = r:below(30 * PAGE)
    return step
  end,
  text = function(s)
    local call = s.how == "punch" and text.call("punch", 2, s.off, s.length)
      or text.call(s.how, 1, s.length)
    return ([[(function()
  local task = jdbfs.spawn(function() return %s:%s end)
  for _ = 1, %d do jdbfs.yield() end
  task:cancel()
  task:join()
  local closed = %s:close()
  local g = jdbfs.open(%s, { direct = "off" })
  local data = g:read(0, g:size())
  g:close()
  return closed, data
end)()]]):format(text.file(s.f), call, s.after, text.file(s.f), text.path(s.name).raw)
  end,
  ready = function(model, s)
    local ready = whole_ready(model, s) and model.f[s.f].node.bytes.size < 2 ^ 20
    if ready then s.name = model.f[s.f].name end
    return ready
  end,
  expect = function(model, s)
    local h = model.f[s.f]
    local bytes = h.node.bytes
    local before = bytes:read(0, bytes.size)
    local changed = new_bytes(0)
    changed:write(0, before)
    if s.how == "punch" then changed:zero(s.off, s.length)
    elseif s.how == "truncate" or s.length > bytes.size then changed:resize(s.length) end
    local happened = value(true, changed:read(0, changed.size))
    local not_happened = value(true, before)
    happened.apply = function()
      files.closed(h)
      h.node.bytes = changed
    end
    not_happened.apply = function() files.closed(h) end
    return { happened, not_happened }
  end,
}

-- A writer whose task is cancelled: any of its blocks are there; closing it ends its tasks.
ops.interrupt_writer = {
  make = function(ctx)
    local step, r = any_whole(ctx), ctx.r
    step.write, step.after, step.seed = true, r:below(6), r:below(1000)
    step.pieces, step.piece = r:between(1, 6), r:pick({ 100, 4096, 9000 })
    step.o = { block = 4096, depth = r:between(1, 3) }
    return step
  end,
  text = function(s)
    return ([[(function()
  local w = assert(jdbfs.writer(%s, %s))
  local task = jdbfs.spawn(function()
    for i = 1, %d do assert(w:write(text(%d, %d))) end
    assert(w:sync())
  end)
  for _ = 1, %d do jdbfs.yield() end
  local ended = task:cancel()
  task:join()
  local ok, _, err = w:close()
  local closed = %s:close()
  local g = jdbfs.open(%s, { direct = "off" })
  local data = g:read(0, g:size())
  g:close()
  return ended, closed, data, ok or err.kind
end)()]]):format(text.file(s.f), text.lit(s.o), s.pieces, s.seed, s.piece, s.after,
      text.file(s.f), text.path(s.name).raw)
  end,
  ready = ops.interrupt_change.ready,
  expect = function(model, s)
    local h = model.f[s.f]
    local bytes, all = h.node.bytes, text.content(s.seed, s.piece):rep(s.pieces)
    local old = bytes:read(0, bytes.size)
    local new = all .. old:sub(#all + 1)
    return { {
      what = "check", text = "blocks, old or new",
      want = function(got)
        if got[2] ~= true then return nil, "close gave " .. tostring(got[2]) end
        if not got[1] and got[3] ~= new then return nil, "done, and not written" end
        if #got[3] > #new or #got[3] < #old then return nil, #got[3] .. " bytes" end
        if got[4] == true then -- what was written before the cancellation, and nothing else
          local n = 0
          while n < #all and got[3]:byte(n + 1) == all:byte(n + 1) do n = n + 1 end
          return values.same(all:sub(1, n) .. old:sub(n + 1), got[3])
        end
        return true
      end,
      apply = function(got)
        files.closed(h)
        bytes:resize(0)
        bytes:write(0, got[3])
      end,
    } }
  end,
}

local NAME_CALLS = {
  open_rw = function(s)
    return text.call("jdbfs.open_rw", 2, text.path(s.path), { lock = "exclusive" })
  end,
  remove = function(s) return text.call("jdbfs.remove", 1, text.path(s.path)) end,
  atomic_write = function(s)
    return text.call("jdbfs.atomic_write", 2, text.path(s.path), text.content_call(s.seed, 5000))
  end,
}

-- A call on a name whose task is cancelled: all of it, or nothing; and no lock stays behind.
ops.interrupt_name = {
  make = function(ctx)
    local r = ctx.r
    return {
      how = r:pick({ "open_rw", "remove", "atomic_write" }), path = ctx.home .. r:pick(ctx.names),
      seed = r:below(1000), after = r:below(3),
    }
  end,
  text = function(s)
    return ([[(function()
  local task = jdbfs.spawn(function() return %s end)
  for _ = 1, %d do jdbfs.yield() end
  task:cancel()
  local result = task:join()
  if type(result) == "userdata" then result:close() end
  while jdbfs.stats().abandoned > 0 do jdbfs.sleep(0.0002) end
  local g, _, err = jdbfs.open(%s, { direct = "off", lock = "exclusive" })
  local data = g and g:read(0, g:size()) or err.name == "ENOENT" and "nothing" or err.kind
  if g then g:close() end
  return data
end)()]]):format(NAME_CALLS[s.how](s), s.after, text.path(s.path).raw)
  end,
  ready = function(model, s)
    local dir, _, node = names.walk(model, s.path)
    return dir and not (node and node.dir) and (not node or node.bytes.size < 2 ^ 20)
      and (model.facts.require or s.how ~= "open_rw") and not (node and next(node.locks))
      and names.is_free(model, s.path)
  end,
  expect = function(model, s)
    local _, _, node = names.walk(model, s.path)
    local before = node and node.bytes:read(0, node.bytes.size) or "nothing"
    local after, new = before, nil
    if s.how == "remove" then
      after = "nothing"
    elseif s.how == "atomic_write" or not node then
      new = names.new_file()
      new.mode = node and node.mode or model.facts.mode
      if s.how == "atomic_write" then new.bytes:write(0, text.content(s.seed, 5000)) end
      after = new.bytes:read(0, new.bytes.size)
    end
    local happened, not_happened = value(after), value(before)
    happened.apply = function()
      if after ~= before then names.link(model, s.path, new) end
    end
    return { happened, not_happened }
  end,
}

-- ---- coordination -------------------------------------------------------------------------------

ops.semaphore = {
  make = function(ctx)
    local r = ctx.r
    return { permits = r:between(1, 3), tasks = r:between(1, 6), rounds = r:between(1, 3) }
  end,
  text = function(s)
    return ([[(function()
  local s, tasks, inside, most, count = jdbfs.semaphore(%d), {}, 0, 0, 0
  for i = 1, %d do
    tasks[i] = jdbfs.spawn(function()
      for _ = 1, %d do
        s:acquire()
        inside, count = inside + 1, count + 1
        most = math.max(most, inside)
        jdbfs.yield()
        inside = inside - 1
        s:release()
      end
    end)
  end
  for i = 1, #tasks do tasks[i]:join() end
  return most, inside, count, s:try_acquire()
end)()]]):format(s.permits, s.tasks, s.rounds)
  end,
  ready = always,
  expect = function(_, s)
    return { value(math.min(s.permits, s.tasks), 0, s.tasks * s.rounds, true) }
  end,
}

ops.queue = {
  make = function(ctx) return { max = ctx.r:between(1, 5), count = ctx.r:between(0, 12) } end,
  text = function(s)
    return ([[(function()
  local q, list = jdbfs.queue(%d), {}
  local putter = jdbfs.spawn(function()
    for i = 1, %d do q:put(i) end
    q:put(nil)
    return q:size()
  end)
  local value = q:take()
  while value do
    list[#list + 1] = value
    if value %% 3 == 0 then jdbfs.yield() end
    value = q:take()
  end
  return list, q:size(), putter:status() == "done" or (putter:join() ~= nil)
end)()]]):format(s.max, s.count)
  end,
  ready = always,
  expect = function(_, s)
    local list = {}
    for i = 1, s.count do list[i] = i end
    return { value(list, 0, true) }
  end,
}

ops.event = {
  make = function(ctx) return { tasks = ctx.r:between(1, 6), cancels = ctx.r:below(3) } end,
  text = function(s)
    return ([[(function()
  local event, tasks, woken = jdbfs.event(), {}, 0
  for i = 1, %d do
    tasks[i] = jdbfs.spawn(function()
      event:wait()
      woken = woken + 1
    end)
  end
  jdbfs.yield()
  local before = woken
  for i = 1, math.min(%d, #tasks) do tasks[i]:cancel() end
  event:set()
  for i = 1, #tasks do tasks[i]:join() end
  return before, woken, event:is_set(), event:wait()
end)()]]):format(s.tasks, s.cancels)
  end,
  ready = always,
  expect = function(_, s)
    return { value(0, math.max(0, s.tasks - s.cancels), true, true) }
  end,
}

-- Waiters that are cancelled take neither permit, value nor buffer with them.
ops.cancelled_waiters = {
  make = function(ctx)
    return { tasks = ctx.r:between(1, 6), every = ctx.r:between(1, 3), first = ctx.r:one_in(2) }
  end,
  text = function(s)
    return ([[(function()
  local s, q, pool = jdbfs.semaphore(1), jdbfs.queue(), assert(jdbfs.pool(1, 64))
  local tasks, count, first = {}, 0, %s
  s:acquire()
  local held = pool:get()
  for i = 1, %d do
    tasks[i] = jdbfs.spawn(function()
      s:acquire()
      local value, b = q:take(), pool:get()
      count = count + value
      pool:put(b)
      s:release()
    end)
  end
  jdbfs.yield()
  if not first then s:release(); pool:put(held) end
  for i = 1, #tasks, %d do tasks[i]:cancel() end
  if first then s:release(); pool:put(held) end
  for _ = 1, #tasks do q:put(1) end
  for i = 1, #tasks do tasks[i]:join() end
  return count, q:size(), s:try_acquire(), s:try_acquire(), #pool:get()
end)()]]):format(tostring(s.first), s.tasks, s.every)
  end,
  ready = always,
  expect = function(_, s)
    local left = s.tasks - math.floor((s.tasks - 1) / s.every) - 1
    if not s.first then left = left + 1 end -- woken before it was cancelled, and it waits no more
    return { value(left, s.tasks - left, true, false, 64) }
  end,
}

-- A generator that reads, in a task.
ops.generator = {
  make = function(ctx) return { f = ctx.r:pick(ctx.files), count = ctx.r:between(0, 4) } end,
  text = function(s)
    return ([[(function()
  local list = {}
  local next_piece = jdbfs.wrap(function()
    for i = 1, %d do coroutine.yield((%s:read((i - 1) * 777, 777))) end
  end)
  local piece = next_piece()
  while piece do
    list[#list + 1] = piece
    piece = next_piece()
  end
  return list
end)()]]):format(s.count, text.file(s.f))
  end,
  ready = function(model, s)
    local h = model.f[s.f]
    return h and not h.closed
  end,
  expect = function(model, s)
    local list = {}
    for i = 1, s.count do list[i] = model.f[s.f].node.bytes:read((i - 1) * 777, 777) end
    return { value(list) }
  end,
}

ops.yield = {
  make = function(ctx) return { sleep = ctx.r:one_in(5) } end,
  text = function(s) return s.sleep and "jdbfs.sleep(0.0002)" or "jdbfs.yield()" end,
  ready = always,
  expect = function() return { value(true) } end,
}

ops.sleep_too_long = {
  make = function() return {} end,
  text = function() return "jdbfs.timeout(0.0005, jdbfs.sleep, 30)" end,
  ready = always,
  expect = function() return { values.fail({ kind = "Timeout", op = "timeout" }) } end,
}

ops.in_time = {
  make = function(ctx) return { path = names.any_path(ctx) } end,
  text = function(s) return text.call("jdbfs.timeout", 3, 60, text.raw("jdbfs.exists"),
    text.path(s.path)) end,
  ready = always,
  expect = function(model, s) return { value(names.find(model, s.path) ~= nil) } end,
}

ops.collect = {
  make = function() return {} end,
  text = function() return 'collectgarbage("step", 200) ~= nil' end,
  ready = always,
  expect = function() return { value(true) } end,
}

return {
  ops = ops,
  -- Inside tasks; `interrupt` and `collect` everywhere.
  weights = {
    { "interrupt", 8 }, { "busy", 6 }, { "close_in_flight", 3 }, { "abandon", 3 },
    { "interrupt_name", 4 }, { "interrupt_change", 3 }, { "interrupt_writer", 3 },
    { "semaphore", 2 }, { "queue", 3 }, { "event", 2 },
    { "cancelled_waiters", 2 },
    { "generator", 3 }, { "yield", 5 }, { "sleep_too_long", 1 }, { "in_time", 2 },
    { "collect", 2 },
  },
  weights_outside = { { "interrupt", 3 }, { "collect", 1 } },
}
