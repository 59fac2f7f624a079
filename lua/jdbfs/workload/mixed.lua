-- Random reads and overwrites by the same coroutines.

local W = require("jdbfs.workload")

return W.define({
  about = "random reads and overwrites of one block",
  options = { mix = W.mix("70:30", "reads to writes") },
  jobs = { mixed = {
    metrics = { "read", "write", "fdatasync", "fsync", "write_sync" },
    main = function(ctx)
      local off = ctx.rng:page()
      if ctx.rng:float() < ctx.opt.mix.reads then return ctx.file:read(off) end
      return ctx.file:write(ctx:numbered(off), off)
    end,
  } },
})
