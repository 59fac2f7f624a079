-- Reads from the front to the end, again and again: one cursor for all coroutines.

local W = require("jdbfs.workload")

return W.define({
  about = "sequential reads of large blocks",
  writes = false,
  file = true,
  bs = 1048576,
  qd = 4,
  setup = function() return { next = 0 } end,
  jobs = { seqread = {
    metrics = { "read" },
    main = function(ctx, cursor)
      local off = cursor.next
      cursor.next = off + 2 * ctx.bs <= ctx.size and off + ctx.bs or 0
      return ctx.file:read(off)
    end,
  } },
})
