-- `jdbfs list [workload]`.

local catalogue = require("jdbfs.command.catalogue")
local status = require("jdbfs.command.status")

return {
  main = function(args, out)
    if args[2] then status.usage("list takes one workload") end
    out:write(catalogue.list(args[1]))
    return status.OK
  end,
}
