-- Read latency under every mix of read rate and write bandwidth: first what the target can do
-- alone, then a grid of shares of both, each cell an open loop.

local W = require("jdbfs.workload")
local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")

local CELL = 9 -- columns of the table
local WRITE = 131072 -- bytes of one write

-- Starts n coroutines of body(buffer, rng) until the time is over; each call may wait for its
-- arrival.
local function load(ctx, n, seconds, rate, seed, size, body)
  local arrivals = rate and rate > 0 and ctx:arrivals(rate)
  local tasks, till, count = {}, ctx:now() + seconds, 0
  if rate == 0 then n = 0 end
  for i = 1, n do
    tasks[i] = ctx:spawn(function()
      local rng = ctx:random(seed + i)
      local buffer = ctx:new_buffer(size)
      while ctx:now() < till and ctx:running() do
        if arrivals then arrivals:next() end
        if ctx:now() >= till then break end
        local ok, message = body(buffer, rng)
        if not ok then ctx:abort(message) end
        count = count + 1
      end
    end)
  end
  return function()
    for i = 1, n do tasks[i]:join() end
    return count / seconds
  end
end

local function reads(ctx, seconds, rate, name)
  return load(ctx, ctx.opt.readers, seconds, rate, 1000, ctx.bs, function(buffer, rng)
    local off = rng:int(0, ctx.size / ctx.bs - 1) * ctx.bs
    return ctx:timed(name, function() return ctx.file:read(off, buffer) end)
  end)
end

local function writes(ctx, seconds, rate, name)
  return load(ctx, ctx.opt.writers, seconds, rate, 2000, WRITE, function(buffer, rng)
    local off = rng:int(0, ctx.size / WRITE - 1) * WRITE
    buffer:u64(0, off)
    return ctx:timed(name, function() return ctx.file:write(buffer, off) end)
  end)
end

-- The grid's line: shares from 0 to `top` percent.
local function shares(steps, top)
  local list = {}
  for i = 1, steps do list[i] = top / 100 * (i - 1) / math.max(steps - 1, 1) end
  return list
end

return W.define({
  about = "p95 of reads under a grid of read rates and write bandwidths",
  procs = false,
  file = true,
  paced = true,
  options = {
    steps = W.int("4", "of each side of the grid", { min = 2, max = 7 }),
    top = W.int("80", "percent of what the target can do alone, in the last step",
      { min = 10, max = 100 }),
    readers = W.int("64", "coroutines that read", { min = 1, max = 4096 }),
    writers = W.int("8", "coroutines that write", { min = 1, max = 4096 }),
  },
  size = function(_, bs) return math.max(bs, WRITE) * 512 end,
  setup = function(ctx)
    if ctx.size < WRITE then ctx:abort("matrix needs a target of 128 KiB or more") end
    return { cells = {}, file = ctx.file }
  end,
  jobs = { { name = "matrix", n = 1, loop = true,
    main = function(ctx, s)
      ctx:warm()
      local steps = ctx.opt.steps
      local each = ctx:duration() / (steps * steps + 2)
      s.reads = reads(ctx, each, nil, "reads alone")()
      s.writes = writes(ctx, each, nil, "writes alone")()
      s.read_shares, s.write_shares = shares(steps, ctx.opt.top), shares(steps, ctx.opt.top)
      s.read_shares[1] = s.read_shares[2] / 4 -- a row without reads would say nothing
      for r = 1, steps do
        for w = 1, steps do
          if not ctx:running() then return end
          local name = ("r%d w%d"):format(r, w)
          local rate = math.max(s.reads * s.read_shares[r], 1)
          local wait_reads = reads(ctx, each, rate, name)
          local wait_writes = writes(ctx, each, s.writes * s.write_shares[w], "writes")
          wait_reads()
          wait_writes()
          s.cells[name] = true
        end
      end
    end } },
  teardown = function(ctx, s, result)
    if not s.read_shares or not result.matrix then return end
    ctx:note("reads alone", format.rate(s.reads))
    ctx:note("writes alone", format.throughput(s.writes * WRITE))
    local words = {}
    for w, share in ipairs(s.write_shares) do
      words[w] = format.pad_left(("%.0f %%"):format(share * 100), CELL)
    end
    ctx:note("and of the writes", table.concat(words))
    for r, read_share in ipairs(s.read_shares) do
      local row = {}
      for w in ipairs(s.write_shares) do
        local cell = result.matrix[("r%d w%d"):format(r, w)]
        row[w] = format.pad_left(format.duration(cell
          and distribution.percentile(cell.response, 95)), CELL)
      end
      ctx:note(("p95 at %.0f %% of the reads"):format(read_share * 100), table.concat(row))
    end
  end,
})
