-- The page cache keeps a failed write for the next who asks. A durable write of a cached file that
-- was told so by ENOSPC (a disk that ran out of room below the file system) was taken for one
-- that had found the disk full: the file was not poisoned, and the next sync told a success though
-- an older write was lost.
local process = require("support_process")
local with_disk = require("support_disk").with_disk

describe("an older write that is lost for lack of room", function()
  process.setup()

  it("poisons the file whose durable write is told of it", function()
    return with_disk("ext4", function(disk)
      local PREPARE = [[
        local path, page = point .. "/f", jdbfs.buffer(PAGE)
      ]]
      disk.script(PREPARE .. [[
        local f = assert(jdbfs.create(path))
        for i = 0, 15 do check("prepare", f:write_at(page, i * PAGE)) end
        check("prepare", f:sync_all() and f:close())
      ]])
      local out = disk.script(PREPARE .. [[
        -- Somebody else's sync meets the failure; the kernel keeps it for this handle.
        for _, o in ipairs({ { direct = "off", durable_method = "write" },
                             { direct = "off", durable_method = "flush" },
                             { direct = "off", dsync = true } }) do
          local f = assert(jdbfs.open_rw(path, o))
          local plain = assert(jdbfs.open_rw(path, { direct = "off" }))
          check("cached", (o.dsync and plain or f):write_at(page, 9 * PAGE))
          control("fail write ENOSPC " .. arg[6])
          os.execute("sync " .. path .. " 2>/dev/null")
          control("clear")
          local ok, message = f:write_at(page, 3 * PAGE, 0, PAGE, "dsync")
          check("the first to ask is told", ok == nil, message)
          ok, message = f:sync_all()
          check("no success later", ok == nil, message)
          check("close", f:close() and plain:close())
        end
        print("done")
      ]], { args = { (disk.range(disk.point .. "/f")) } })
      assert.equal("done\n", out)
    end)
  end)
end)
