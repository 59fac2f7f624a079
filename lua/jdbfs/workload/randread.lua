-- Random reads of one block.

local W = require("jdbfs.workload")

return W.define({
  about = "random reads of one block, each coroutine one at a time",
  writes = false,
  jobs = { randread = {
    metrics = { "read" },
    main = function(ctx) return ctx.file:read_page() end,
  } },
})
