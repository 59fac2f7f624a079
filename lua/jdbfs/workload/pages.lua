-- A page store such as a B-tree has below it: Zipf point reads and updates through a shared cache
-- of pages, write-back of dirty ones, splits with a double write, a checkpoint now and then.

local W = require("jdbfs.workload")

local PAGE = 4096

-- Least recently used, by a doubly linked list; `table` maps page number to its frame.
local function new_cache(frames)
  return { frames = frames, count = 0, table = {}, dirty = 0, reads = 0, hits = 0 }
end

local function unlink(cache, frame)
  if frame.newer then frame.newer.older = frame.older else cache.newest = frame.older end
  if frame.older then frame.older.newer = frame.newer else cache.oldest = frame.newer end
  frame.newer, frame.older = nil, nil
end

local function push_newest(cache, frame)
  frame.older, frame.newer = cache.newest, nil
  if cache.newest then cache.newest.newer = frame else cache.oldest = frame end
  cache.newest = frame
end

-- The frame is written; one that changed meanwhile stays dirty.
local function write_back(ctx, s, frame)
  frame.busy = true
  local version = frame.version
  frame.buffer:u64(16, version)
  local ok, message = s.file:write(frame.buffer, frame.number * PAGE)
  frame.busy = false
  if not ok then ctx:abort(message) end
  s.written = s.written + 1
  if frame.version == version and frame.dirty then
    frame.dirty, s.cache.dirty = false, s.cache.dirty - 1
  end
  if frame.waiting then
    frame.waiting:set()
    frame.waiting = nil
  end
end

local function wait_for(ctx, frame)
  while frame.busy do
    frame.waiting = frame.waiting or ctx:event()
    frame.waiting:wait()
  end
end

-- A frame for a new page: a free one, or the oldest that nobody is busy with.
local function take_frame(ctx, s)
  local cache = s.cache
  if cache.count < cache.frames then
    cache.count = cache.count + 1
    return { buffer = ctx:new_buffer(PAGE), version = 0, pins = 0 }
  end
  while true do
    local frame = cache.oldest
    while frame and (frame.busy or frame.pins > 0) do frame = frame.newer end
    if not frame then
      ctx:yield()
    elseif frame.dirty then
      write_back(ctx, s, frame)
    else
      unlink(cache, frame)
      cache.table[frame.number] = nil
      return frame
    end
  end
end

-- The frame of a page, pinned; read when it is not there.
local function fetch(ctx, s, number)
  local cache = s.cache
  cache.reads = cache.reads + 1
  local frame = cache.table[number]
  if frame then
    cache.hits = cache.hits + 1
    frame.pins = frame.pins + 1
    wait_for(ctx, frame)
    unlink(cache, frame)
    push_newest(cache, frame)
    return frame
  end
  frame = take_frame(ctx, s)
  if cache.table[number] then -- somebody else read it while we made room
    push_newest(cache, frame)
    frame.number = -cache.reads
    cache.table[frame.number] = frame
    return fetch(ctx, s, number)
  end
  frame.number, frame.dirty, frame.version, frame.pins = number, false, 0, 1
  cache.table[number] = frame
  push_newest(cache, frame)
  frame.busy = true
  local ok, message = s.file:read(number * PAGE, frame.buffer)
  frame.busy = false
  if frame.waiting then
    frame.waiting:set()
    frame.waiting = nil
  end
  if not ok then ctx:abort(message) end
  return frame
end

local function change(ctx, s, frame)
  wait_for(ctx, frame)
  frame.version = frame.version + 1
  frame.buffer:u64(8, frame.version)
  if not frame.dirty then
    frame.dirty, s.cache.dirty = true, s.cache.dirty + 1
  end
  s.changed = s.changed + 1
end

-- Two pages change together: both images go to the double-write area and are synced there, so that
-- a torn write of either can be repaired.
local function split(ctx, s, frame)
  local other = fetch(ctx, s, ctx.rng:int(0, s.count - 1))
  change(ctx, s, frame)
  if other ~= frame then change(ctx, s, other) end
  local area = ctx:page(2 * PAGE).buffer
  area:copy(0, frame.buffer, 0, PAGE)
  area:copy(PAGE, other.buffer, 0, PAGE)
  local ok, message = s.double:write_sync(area, (ctx.id - 1) * 2 * PAGE)
  other.pins = other.pins - 1
  if not ok then ctx:abort(message) end
  s.written = s.written + 2
end

return W.define({
  about = "page store: Zipf reads and updates through a cache, splits, checkpoints",
  arrivals = false,
  procs = false,
  file = true,
  bs = PAGE,
  options = {
    cache = W.size("16m", "memory of the page cache", { min = 65536 }),
    theta = W.number("0.99", "of the Zipf distribution", { min = 0.01, max = 5 }),
    updates = W.int("20", "percent of the accesses that change the page", { min = 0, max = 100 }),
    splits = W.int("1", "percent of the updates that split the page", { min = 0, max = 100 }),
    checkpoint = W.time("2s", "from one checkpoint to the next", { min = 0.01 }),
    sessions = W.int("32", "coroutines", { min = 1, max = 4096 }),
  },
  space = function(opt) return opt.sessions * 2 * PAGE end,
  setup = function(ctx)
    local frames = math.max(math.floor(ctx.opt.cache / PAGE), ctx.opt.sessions * 3)
    return { file = ctx.file, count = ctx.size / PAGE, cache = new_cache(frames), written = 0,
      changed = 0, double = ctx:create("double", { size = ctx.opt.sessions * 2 * PAGE }) }
  end,
  jobs = {
    { name = "session", n = "sessions",
      main = function(ctx, s)
        local number = ctx:scattered(ctx.rng:zipf(s.count, ctx.opt.theta) - 1, s.count)
        local update = ctx.rng:int(0, 99) < ctx.opt.updates
        return ctx:timed(update and "update" or "lookup", function()
          local frame = fetch(ctx, s, number)
          if update then
            if ctx.rng:int(0, 99) < ctx.opt.splits then split(ctx, s, frame)
            else change(ctx, s, frame) end
          end
          frame.pins = frame.pins - 1
          return true
        end)
      end },
    { name = "checkpoint", n = 1, loop = true,
      main = function(ctx, s)
        while ctx:running() do
          ctx:sleep(ctx.opt.checkpoint)
          ctx:timed("checkpoint", function()
            local dirty = {}
            for _, frame in pairs(s.cache.table) do
              if frame.dirty and not frame.busy then dirty[#dirty + 1] = frame end
            end
            for _, frame in ipairs(dirty) do
              if frame.dirty and not frame.busy then write_back(ctx, s, frame) end
            end
            return s.file:fdatasync()
          end)
        end
      end },
  },
  teardown = function(ctx, s)
    ctx:note("hit rate", ("%.1f %%"):format(100 * s.cache.hits / math.max(s.cache.reads, 1)))
    ctx:note("write amplification", ("%.2f"):format(s.written / math.max(s.changed, 1)))
  end,
})
