-- Random overwrites of one block. Each carries its offset and its number, so that the content
-- changes from write to write.

local W = require("jdbfs.workload")

return W.define({
  about = "random overwrites of one block, each coroutine one at a time",
  jobs = { randwrite = {
    metrics = { "write", "fdatasync", "fsync", "write_sync" },
    main = function(ctx) return ctx.file:write_page() end,
  } },
})
