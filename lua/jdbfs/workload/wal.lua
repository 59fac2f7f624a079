-- Write-ahead log with group commit: while one durable write is under way, the next group fills up.
-- The file is written round and round.

local W = require("jdbfs.workload")

local LENGTH_MAX = 64 * 1048576

local function length_of(opt, size)
  local group = math.ceil((opt.record + 16) * opt.group_max / 4096) * 4096
  local length = math.min(size, LENGTH_MAX)
  return math.max(length - length % 4096, group)
end

return W.define({
  about = "write-ahead log: clients share one durable write (group commit)",
  arrivals = false,
  options = {
    record = W.size("512", "bytes of one record", { min = 1, max = 16777216 }),
    clients = W.int(32, "coroutines that commit", { min = 1, max = 65536 }),
    group_max = W.int(64, "records of one write at most", { min = 1, max = 65536 }),
  },
  space = length_of,
  setup = function(ctx)
    local length = length_of(ctx.opt, ctx.size)
    return { file = ctx:create("wal", { size = length }), length = length, off = 0,
      queue = ctx:queue() }
  end,
  jobs = {
    { name = "client", n = "clients", metrics = { "commit" },
      main = function(ctx, s)
        return ctx:timed("commit", function()
          local written, message = s.queue:put(ctx.rng:bytes(ctx.opt.record)):wait()
          if written == "failed" then return nil, message end
          return written
        end)
      end },
    { name = "flusher", n = 1, loop = true, metrics = { "write_sync", "group" },
      main = function(ctx, s)
        while ctx:running() do
          local batch = s.queue:take(1, ctx.opt.group_max)
          local page = ctx:page():pack(batch)
          if s.off + #page > s.length then s.off = 0 end
          local written = s.file:write_sync(page, s.off)
          s.off = s.off + #page
          ctx:count("group", #batch)
          for i = 1, #batch do
            batch[i]:set(written and true or "failed")
          end
        end
      end },
  },
  teardown = function(ctx, _, result)
    local group = result.flusher and result.flusher.group
    if group then ctx:note("mean group", group.mean) end
  end,
})
