-- Which durable write is cheapest here: each way with each block size, in rounds of rotated order,
-- so that neither the start of the run nor a slow spell falls on one way alone.

local W = require("jdbfs.workload")
local format = require("jdbfs.command.format")

local SIZES = { 4096, 8192, 16384 }
local CELL = 24 -- columns of the table
local ceil = math.ceil
local ROUNDS_MIN = 5 -- fewer say nothing: the first is slower than the rest

-- How one block gets durable. Each opens its own handle where the way is a property of that.
local WAYS = {
  { name = "dsync", open = "dsync", write = function(file, page, off)
    return file:write(page, off)
  end },
  { name = "osync", open = "osync", write = function(file, page, off)
    return file:write(page, off)
  end },
  { name = "linked", write = function(file, page, off) return file:write_sync(page, off) end },
  { name = "fdatasync", write = function(file, page, off)
    local ok, message = file:write(page, off)
    if not ok then return nil, message end
    return file:fdatasync()
  end },
  { name = "fsync", write = function(file, page, off)
    local ok, message = file:write(page, off)
    if not ok then return nil, message end
    return file:sync()
  end },
}

local function combinations(ctx)
  local list = {}
  for _, way in ipairs(WAYS) do
    local file = ctx:create("syncs." .. way.name, { size = ctx.opt.length, sync = way.open })
    for _, size in ipairs(SIZES) do
      list[#list + 1] = { name = ("%s_%dk"):format(way.name, size / 1024), way = way, file = file,
        size = size, off = 0, rates = {} }
    end
  end
  return list
end

-- Writes of one way for a while; gives writes per second.
local function measure(ctx, one, seconds)
  local began, count = ctx:now(), 0
  local page = ctx:page(one.size):random()
  repeat
    if one.off + one.size > ctx.opt.length then one.off = 0 end
    local ok, message = ctx:timed(one.name, one.way.write, one.file, page, one.off)
    if not ok then return nil, message end
    one.off = one.off + one.size
    count = count + 1
  until ctx:now() - began >= seconds or not ctx:running()
  return count / (ctx:now() - began)
end

local function spread(rates)
  table.sort(rates)
  local n = #rates
  return rates[ceil(n / 2)], rates[1], rates[n]
end

return W.define({
  about = "which durable write is cheapest here: ways and block sizes, in rotated rounds",
  arrivals = false,
  procs = false,
  paced = true,
  options = {
    rounds = W.int("5", "rounds at least", { min = ROUNDS_MIN, max = 1000 }),
    length = W.size("4m", "of each file, written round and round", { min = 16384 }),
  },
  space = function(opt) return #WAYS * opt.length end,
  setup = function(ctx) return { list = combinations(ctx), rounds = 0 } end,
  jobs = { syncs = { n = 1, loop = true,
    main = function(ctx, s)
      local each = ctx:duration() / (ctx.opt.rounds * #s.list)
      ctx:warm()
      while s.rounds < ctx.opt.rounds do
        for i = 1, #s.list do
          local one = s.list[(i + s.rounds * 7 - 1) % #s.list + 1]
          local rate, message = measure(ctx, one, each)
          if not rate then ctx:abort(message) end
          if not ctx:running() then return end
          one.rates[#one.rates + 1] = rate
        end
        s.rounds = s.rounds + 1
      end
    end } },
  teardown = function(ctx, s)
    local best, head, rows = nil, {}, {}
    for i, size in ipairs(SIZES) do head[i] = format.pad_left(format.bytes(size), CELL) end
    for i, one in ipairs(s.list) do
      local middle, low, high = spread(one.rates)
      local cell = middle and ("%.0f/s [%.0f, %.0f]"):format(middle, low, high) or "–"
      local row = rows[ceil(i / #SIZES)] or { name = one.way.name }
      rows[ceil(i / #SIZES)], row[#row + 1] = row, format.pad_left(cell, CELL)
      if middle and one.size == SIZES[1] and (not best or middle > best.rate) then
        best = { name = one.way.name, rate = middle }
      end
    end
    ctx:note("writes/s [spread]", table.concat(head))
    for _, row in ipairs(rows) do ctx:note(row.name, table.concat(row)) end
    ctx:note("rounds", s.rounds)
    if best then ctx:note("cheapest for 4 KiB", best.name) end
  end,
})
