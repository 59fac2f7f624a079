-- Steps on logs. A log in the model: {first =, last =, records = {number = data}}; an open one:
-- {log =, name =, found =, closed =}.

local names = require("model.names")
local text = require("model.text")
local values = require("model.values")

local value, fail = values.value, values.fail
local ops = {}

local function with_apply(expectation, apply)
  expectation.apply = apply
  return { expectation }
end

local function open_log(model, s)
  return model.l[s.l]
end

local function closed(op)
  return { fail({ kind = "Closed", op = op, name = false }) }
end

local function any_log(ctx) return { l = ctx.log or ctx.r:pick(ctx.logs) } end

-- The log of that name; its directory, not itself, is one of the model's.
local function find(model, name)
  local log = model.logs[name] or { first = 1, last = 0, records = {} }
  model.logs[name] = log
  local above = name:match("^(.*)/")
  if above then names.make(model, above) end
  return log
end

ops.log = {
  make = function(ctx)
    local r = ctx.r
    local l = any_log(ctx).l
    local o = { segment_size = r:pick({ 8192, 12288, 20000, 65536 }), spare_segments = r:below(3) }
    if r:one_in(2) then o.batch_size = r:pick({ 4096, 8192, 65536 }) end
    if r:one_in(4) then o.direct = r:pick({ "off", "prefer" }) end
    return { l = l, name = ctx.log_names[r:one_in(3) and ctx.logs[1] or l], o = o }
  end,
  text = function(s) return text.call("jdbfs.log", 2, text.path(s.name), s.o), text.log(s.l) end,
  ready = function(model, s)
    local l = model.l[s.l]
    return (not l or l.closed) and model.facts[s.o.direct or "require"]
  end,
  expect = function(model, s)
    for _, other in pairs(model.l) do
      if other.name == s.name and not other.closed then return { fail({ kind = "Busy" }) } end
    end
    return { {
      what = "check", text = "a log", want = function(got) return got[1] ~= nil, got[2] end,
      apply = function()
        local log = find(model, s.name)
        local found = { first = log.first, last = log.last, records = log.last - log.first + 1 }
        model.l[s.l] = { log = log, name = s.name, found = found }
      end,
    } }
  end,
}

ops.log_close = {
  make = any_log,
  text = function(s) return text.log(s.l) .. ":close()" end,
  ready = open_log,
  expect = function(model, s)
    return with_apply(value(true), function() open_log(model, s).closed = true end)
  end,
}

-- Of several tasks that append, each knows only that its numbers are new and ascend.
local function shared_number(log, last, data)
  return values.check(function(got)
    local n = got[1]
    if type(n) ~= "number" then return nil, "no number: " .. tostring(got[2]) end
    if n <= last or log.records[n] then return nil, "number again: " .. n end
    log.records[n] = data
    if n > log.last then log.last = n end
    return true
  end)
end

ops.append = {
  make = function(ctx)
    local r = ctx.r
    local step = { l = any_log(ctx).l, seed = r:below(1000), shared = ctx.shared }
    step.len = r:pick({ 0, 1, 10, 100, 1000, 4000, 4064, 5000, 9000, 30000 })
    if r:one_in(60) then step.len = 2500000 end
    if r:one_in(6) then step.b = r:pick(ctx.bufs) end
    return step
  end,
  text = function(s)
    local data = s.b and text.raw(text.buf(s.b)) or text.content_call(s.seed, s.len)
    return text.call(text.log(s.l) .. ":append", 1, data)
  end,
  ready = function(model, s) return model.l[s.l] and (not s.b or model.b[s.b]) end,
  expect = function(model, s)
    local l, view = open_log(model, s), s.b and model.b[s.b]
    if l.closed or view and view.freed then return closed("append") end
    local data = view and view.mem:read(view.off, view.len) or text.content(s.seed, s.len)
    local log = l.log
    if s.shared then return { shared_number(log, log.last_settled or log.last, data) } end
    return with_apply(value(log.last + 1), function()
      log.last = log.last + 1
      log.records[log.last] = data
    end)
  end,
}

-- Appenders some of whom are cancelled: their records may be there, once, in any order among them.
ops.append_cancel = {
  make = function(ctx)
    local r = ctx.r
    return {
      l = any_log(ctx).l, count = r:between(1, 6), every = r:between(1, 3), after = r:below(4),
      len = r:pick({ 1, 500, 3000, 9000 }), seed = r:below(100000),
    }
  end,
  text = function(s)
    return ([[(function()
  local log, tasks, list = %s, {}, {}
  local last = log:stats().last
  for i = 1, %d do
    tasks[i] = jdbfs.spawn(function() return log:append(text(%d + i, %d)) end)
  end
  for _ = 1, %d do jdbfs.yield() end
  for i = 1, #tasks, %d do tasks[i]:cancel() end
  for i = 1, #tasks do list[i] = tasks[i]:join() or 0 end
  log:append("") -- what was in flight is settled when this is answered
  local cursor, records = log:records(last + 1), {}
  local n, data, err = cursor:next()
  while n do
    records[#records + 1] = data
    n, data, err = cursor:next()
  end
  cursor:close()
  return list, records, err
end)()]]):format(text.log(s.l), s.count, s.seed, s.len, s.after, s.every)
  end,
  ready = function(model, s)
    local l = model.l[s.l]
    return l and not l.closed and not l.log.last_settled
  end,
}

-- What of the answers and records of append_cancel contradicts the contract; nil: nothing.
local function contradiction(s, last, list, records)
  local number_of = {}
  for i = 1, s.count do number_of[text.content(s.seed + i, s.len)] = i end
  for k, data in ipairs(records) do
    if data == "" and k == #records then break end
    local i = number_of[data]
    if not i then return "a record that nobody appended, or twice" end
    number_of[data] = nil
    if list[i] ~= 0 and list[i] ~= last + k then return "a record under another number" end
    if list[i] == 0 and (i - 1) % s.every ~= 0 then return "an append failed" end
  end
  for _, i in pairs(number_of) do
    if list[i] ~= 0 then return "an acknowledged record is not there" end
    if (i - 1) % s.every ~= 0 then return "an append failed" end
  end
end

function ops.append_cancel.expect(model, s)
  local log = model.l[s.l].log
  return { {
    what = "check", text = "each acknowledged record once",
    want = function(got)
      if got[3] then return nil, tostring(got[3]) end
      local why = contradiction(s, log.last, got[1], got[2])
      return why == nil, why
    end,
    apply = function(got)
      for _, data in ipairs(got[2]) do
        log.last = log.last + 1
        log.records[log.last] = data
      end
    end,
  } }
end

-- A cursor that follows while others append, and a truncation behind it.
ops.follow = {
  make = function(ctx)
    local r = ctx.r
    return {
      l = any_log(ctx).l, count = r:between(1, 8), len = r:pick({ 1, 500, 3000 }),
      seed = r:below(100000), truncate = r:one_in(2),
    }
  end,
  text = function(s)
    return ([[(function()
  local log, wrong = %s, 0
  local last = log:stats().last
  local writer = jdbfs.spawn(function()
    for i = 1, %d do log:append(text(%d + i, %d)) end
    if %s then log:truncate_before(last + 1) end
  end)
  local cursor, seen = log:records(last + 1), 0
  while seen < %d do
    local n, data, err = cursor:next()
    if err then return n, data, err end
    if n then
      seen = seen + 1
      if n ~= last + seen or data ~= text(%d + seen, %d) then wrong = wrong + 1 end
    else
      jdbfs.yield()
    end
  end
  writer:join()
  cursor:close()
  return seen, wrong, log:stats().first
end)()]]):format(text.log(s.l), s.count, s.seed, s.len, tostring(s.truncate), s.count,
      s.seed, s.len)
  end,
  ready = ops.append_cancel.ready,
  expect = function(model, s)
    local log = model.l[s.l].log
    return { {
      what = "check", text = "every record in its turn",
      want = function(got)
        if got[1] ~= s.count or got[2] ~= 0 then
          return nil, ("%s records, %s wrong"):format(tostring(got[1]), tostring(got[2]))
        end
        local most = s.truncate and log.last + 1 or log.first
        return got[3] >= log.first and got[3] <= most, "the first is " .. tostring(got[3])
      end,
      apply = function(got)
        for i = 1, s.count do log.records[log.last + i] = text.content(s.seed + i, s.len) end
        for n = log.first, got[3] - 1 do log.records[n] = nil end
        log.first, log.last = got[3], log.last + s.count
      end,
    } }
  end,
}

ops.records = {
  make = function(ctx)
    local r = ctx.r
    local step = { l = any_log(ctx).l, most = r:pick({ 1, 3, 1000 }) }
    if r:one_in(2) then step.from = r:between(1, 12) end
    if r:one_in(10) then step.from = r:pick({ 0, -1, 1.5, 100000, 2 ^ 60 }) end
    return step
  end,
  text = function(s)
    return ([[(function()
  local list, cursor = {}, %s
  for _ = 1, %d do
    local n, data, err = cursor:next()
    if err then return n, data, err end
    if not n then break end
    list[#list + 1], list[#list + 2] = n, data
  end
  cursor:close()
  return list
end)()]]):format(text.call(text.log(s.l) .. ":records", 1, s.from), s.most)
  end,
  ready = open_log,
  expect = function(model, s)
    local l = open_log(model, s)
    if l.closed then return closed("records") end
    local log, from = l.log, s.from or l.log.first
    if from < 1 or from ~= math.floor(from) or (from < log.first and from <= log.last) then
      return { fail({ kind = "Overflow", op = "records", name = false }) }
    end
    local list = {}
    for n = from, math.min(log.last, from + s.most - 1) do
      list[#list + 1], list[#list + 2] = n, log.records[n]
    end
    return { value(list) }
  end,
}

-- Whole segments go, so up to where is the log's affair.
ops.truncate_before = {
  make = function(ctx)
    return { l = any_log(ctx).l, number = ctx.r:pick({ 0, 2, 3, 4, 5, 6, 9, 100000 }) }
  end,
  text = function(s)
    return ("%s, %s:stats().first"):format(
      text.call(text.log(s.l) .. ":truncate_before", 1, s.number), text.log(s.l))
  end,
  ready = open_log,
  expect = function(model, s)
    local l = open_log(model, s)
    local log = l.log
    if l.closed then
      return { values.check(function(got) return got[1] == nil, "the log is closed" end) }
    end
    return { values.check(function(got)
      local first = got[2]
      if got[1] ~= true then return nil, "not true" end
      local most = s.number > log.first and s.number or log.first
      if most > log.last + 1 then most = log.last + 1 end
      if not first or first < log.first or first > most then
        return nil, ("the first is %s, not from %d to %d"):format(first, log.first, most)
      end
      for n = log.first, first - 1 do log.records[n] = nil end
      log.first = first
      return true
    end) }
  end,
}

local function fields(name, find_fields)
  return {
    make = any_log,
    text = function(s) return ("%s:%s()"):format(text.log(s.l), name) end,
    ready = open_log,
    expect = function(model, s)
      local want = find_fields(open_log(model, s))
      return { values.check(function(got)
        for field, v in pairs(want) do
          if got[1][field] ~= v then return nil, field .. " is " .. tostring(got[1][field]) end
        end
        return true
      end) }
    end,
  }
end

ops.log_stats = fields("stats", function(l) return { first = l.log.first, last = l.log.last } end)
ops.recovery = fields("recovery", function(l)
  local found = l.found
  return {
    first = found.first, last = found.last, records = found.records, clean = true, cut_bytes = 0,
  }
end)

return {
  ops = ops,
  weights = {
    { "log", 6 }, { "append", 24 }, { "records", 6 }, { "truncate_before", 5 }, { "log_stats", 1 },
    { "recovery", 2 }, { "log_close", 4 }, { "append_cancel", 4 }, { "follow", 3 },
  },
  weights_outside = {
    { "log", 6 }, { "append", 24 }, { "records", 6 }, { "truncate_before", 5 }, { "log_stats", 1 },
    { "recovery", 2 }, { "log_close", 4 },
  },
}
