-- What is allocated and freed again and again must not make the process grow.

local process = require "support_process"
local support = require "support"

describe("preallocation with zeros", function()
  process.setup()

  it("takes no more memory the hundredth time", function()
    if not support.get("/proc/self/status") then return pending("needs /proc") end
    if (os.getenv("JDBFS_TEST_SAN") or "") ~= "" then
      return pending("a sanitizer keeps freed memory for a while")
    end
    local out = process.script([==[
      local function resident()
        local f = io.open("/proc/self/status")
        local text = f:read("*a")
        f:close()
        return tonumber(text:match("VmRSS:%s*(%d+)"))
      end
      local f = check("create", jdbfs.create(dir .. "/f", { direct = "prefer" }))
      local function preallocate(times)
        for _ = 1, times do
          check("truncate", f:truncate(0))
          check("preallocate", f:preallocate(65536, "zero"))
        end
        collect()
      end
      preallocate(20)
      local before = resident()
      preallocate(100)
      check("close", f:close())
      io.write(resident() - before)]==])
    assert.is_true(tonumber(out) < 8192, out .. " KiB more")
  end)
end)
