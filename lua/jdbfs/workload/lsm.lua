-- Log-structured merge tree: a memtable is flushed as a sorted run (write, fdatasync, rename, sync
-- of the directory), runs are compacted into the level below while points are read, and writers
-- stall when too many runs wait for that.

local W = require("jdbfs.workload")

local BLOCK, CHUNK = 4096, 1048576

local function new_table(s, level)
  s.number = s.number + 1
  return { name = ("sst-%06d"):format(s.number), level = level, pins = 0, bytes = 0 }
end

local function must(ctx, ok, message)
  if not ok then ctx:abort(message) end
  return ok
end

-- Writes a table under a temporary name, makes it durable, then gives it its name.
local function write_table(ctx, s, t, bytes)
  local temporary = t.name .. ".tmp"
  t.file = ctx:create(temporary, {})
  local page = s.chunk
  for off = 0, bytes - 1, CHUNK do
    local length = math.min(CHUNK, bytes - off)
    must(ctx, t.file:write(length == CHUNK and page or page.buffer:slice(0, length), off))
  end
  must(ctx, t.file:fdatasync())
  must(ctx, ctx:rename(temporary, t.name))
  must(ctx, ctx:sync_dir())
  t.bytes = bytes
  s.written = s.written + bytes
end

local function add(s, t)
  s.tables[#s.tables + 1] = t
  if t.level == 0 then s.level0 = s.level0 + 1 end
end

-- The table is no longer read from; its file goes with its last reader.
local function retire(ctx, s, t)
  for i = 1, #s.tables do
    if s.tables[i] == t then table.remove(s.tables, i) break end
  end
  if t.level == 0 then s.level0 = s.level0 - 1 end
  t.dead = true
  if t.pins == 0 then must(ctx, ctx:remove(t.name)) end
end

local function read_table(ctx, t)
  local page = ctx:page(CHUNK)
  for off = 0, t.bytes - 1, CHUNK do
    local length = math.min(CHUNK, t.bytes - off)
    must(ctx, t.file:read(off, length == CHUNK and page or page.buffer:slice(0, length)))
  end
end

-- All of level 0 and all of level 1 become one new table of level 1; what was overwritten is gone.
local function compact(ctx, s)
  local inputs, bytes = {}, 0
  for _, t in ipairs(s.tables) do
    inputs[#inputs + 1], bytes = t, bytes + t.bytes
  end
  for _, t in ipairs(inputs) do read_table(ctx, t) end
  local t = new_table(s, 1)
  write_table(ctx, s, t, math.min(bytes, s.data))
  add(s, t)
  for _, input in ipairs(inputs) do retire(ctx, s, input) end
  s.compactions = s.compactions + 1
end

-- Writers wait here while level 0 is full.
local function stall(ctx, s)
  local began = ctx:now()
  while s.level0 + #s.full >= ctx.opt.stop and ctx:running() do
    s.room = s.room or ctx:event()
    s.room:wait()
  end
  s.stalled = s.stalled + ctx:now() - began
end

local function make_room(s)
  if s.room then s.room:set() end
  s.room = nil
end

return W.define({
  about = "LSM tree: flushes and compaction against point reads, with back-pressure",
  arrivals = false,
  options = {
    data = W.size("64m", "of the bottom level", { min = 4194304 }),
    memtable = W.size("4m", "flushed when it is full", { min = 65536 }),
    record = W.size("512", "bytes of one put", { min = 1, max = 65536 }),
    readers = W.int("8", "coroutines that read points", { min = 1, max = 4096 }),
    put_rate = W.int("40000", "puts a second, less when writers stall", { min = 1 }),
    trigger = W.int("4", "runs in level 0 that start a compaction", { min = 1, max = 100 }),
    stop = W.int("8", "runs in level 0 that stall the writer", { min = 2, max = 1000 }),
  },
  space = function(opt) return 2 * opt.data + (opt.stop + opt.trigger + 2) * opt.memtable end,
  setup = function(ctx)
    local s = { tables = {}, level0 = 0, full = {}, number = 0, written = 0, put = 0, stalled = 0,
      compactions = 0, data = ctx.opt.data - ctx.opt.data % BLOCK, work = ctx:queue(),
      chunk = ctx:page(CHUNK):random(),
      memtable = ctx.opt.memtable - ctx.opt.memtable % BLOCK }
    local bottom = new_table(s, 1)
    write_table(ctx, s, bottom, s.data)
    add(s, bottom)
    s.written = 0
    return s
  end,
  jobs = {
    { name = "reader", n = "readers",
      main = function(ctx, s)
        local t = s.tables[ctx.rng:int(1, #s.tables)]
        local off = ctx.rng:int(0, t.bytes / BLOCK - 1) * BLOCK
        t.pins = t.pins + 1
        local ok, message = ctx:timed(s.compacting and "get_compacting" or "get", function()
          return t.file:read(off, ctx:page())
        end)
        t.pins = t.pins - 1
        if t.dead and t.pins == 0 then must(ctx, ctx:remove(t.name)) end
        return ok, message
      end },
    { name = "writer", n = 1, loop = true, -- puts cost no I/O: a memtable's worth at a time
      main = function(ctx, s)
        local puts = math.max(1, math.floor(s.memtable / ctx.opt.record))
        local due = ctx:now()
        while ctx:running() do
          due = math.max(due, ctx:now() - 1) + puts / ctx.opt.put_rate
          ctx:sleep(math.max(0, due - ctx:now()))
          if s.level0 + #s.full >= ctx.opt.stop then ctx:timed("stall", stall, ctx, s) end
          if not ctx:running() then return end
          s.put = s.put + puts * ctx.opt.record
          s.full[#s.full + 1] = true
          s.work:put("flush")
        end
      end },
    { name = "flush", n = 1, loop = true,
      main = function(ctx, s)
        while ctx:running() do
          s.work:take(1, 1)
          ctx:timed("flush", function()
            local t = new_table(s, 0)
            write_table(ctx, s, t, s.memtable)
            add(s, t)
            return true
          end)
          table.remove(s.full)
          make_room(s)
        end
      end },
    { name = "compaction", n = 1, loop = true,
      main = function(ctx, s)
        while ctx:running() do
          if s.level0 >= ctx.opt.trigger then
            s.compacting = true
            ctx:timed("compaction", function()
              compact(ctx, s)
              return true
            end)
            s.compacting = false
            make_room(s)
          else
            ctx:sleep(0.005)
          end
        end
      end },
  },
  teardown = function(ctx, s)
    make_room(s)
    ctx:note("stalled", ("%.2fs"):format(s.stalled))
    ctx:note("compactions", s.compactions)
    ctx:note("write amplification", ("%.2f"):format(s.written / math.max(s.put, 1)))
  end,
})
