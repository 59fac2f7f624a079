-- A file on which another process has a lease, as file servers take them, could not be opened:
-- EAGAIN. Without jdbfs whoever opens it waits until the holder has let go.

local process = require("support_process")
local support = require("support")

describe("a file on which somebody has a lease", function()
  process.setup()

  local function leased(name, source)
    it(name, function()
      if support.on_sim then return pending(support.on_sim) end
      local forker, why = process.forker()
      if not forker then return pending(why) end
      local out = process.script([[
        local path, told = dir .. "/f", dir .. "/told"
        io.open(path, "w"):close()
        local pid = forker.fork()
        if pid == 0 then forker._exit(forker.lease(path, told) and 0 or 9) end
        local function ended()
          local status = forker.waitpid(pid)
          return status
        end
        local tries = 0
        repeat
          os.execute("sleep 0.02")
          tries = tries + 1
          local file = io.open(told)
          if file then file:close() end
        until file or tries == 500
        if tries == 500 then
          print("no lease " .. tostring(ended()))
        else
          ]] .. source .. [[
          print "ok"
        end
      ]], { forker = forker })
      if out == "no lease 9\n" then return pending("no leases on this file system") end
      assert.are.equal("ok\n", out)
    end)
  end

  for _, name in ipairs { "open", "open_rw", "create" } do
    leased(("is opened by %s when that is given back"):format(name), [[
      local f = check("open", jdbfs.]] .. name .. [[(path, { direct = "off" }))
      check("the holder", ended() == 0)
      check("close", f:close())
    ]])
  end

  -- Probing failed with EAGAIN.
  leased("is probed as far as that goes, without waiting for the holder", [[
    local found = check("probe", jdbfs.probe(path))
    check("the reason", found.direct_reason:find("lease", 1, true), found.direct_reason)
    check("file system", found.file_system == jdbfs.probe(dir).file_system)
    check("the holder", ended() == 0)
  ]])
end)
