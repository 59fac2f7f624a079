-- What a later version brings answers Unsupported today: never a half-working call.

local jdbfs = require("jdbfs")
local support = require("support")

describe("what this version lacks", function()
  support.setup()

  support.both("is Unsupported: host adapters", function()
    support.fails({ kind = "Unsupported", op = "host" }, jdbfs.host("luv"))
    support.fails({ kind = "Unsupported", op = "host" }, jdbfs.host({}))
  end)
end)
