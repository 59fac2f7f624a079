-- A durable name needs its directory opened. That came after the change: out of descriptors, or in
-- a directory that may not be read, a durable rename or remove failed and was done all the same,
-- and a durable create had emptied the file that it then refused to open.
local process = require("support_process")
local support = require("support")

local CALLS = [==[
  local function unchanged(name)
    local function refused(op, ok, message, err)
      check(op, ok == nil and err.kind == "Io" and err.name == name and err.op == op, message)
    end
    local durable = { durable = true }
    refused("remove", jdbfs.remove(dir .. "/d/a", durable))
    refused("rename", jdbfs.rename(dir .. "/d/a", dir .. "/d/b", durable))
    refused("rename", jdbfs.rename(dir .. "/d/a", dir .. "/e/b", durable))
    refused("rename", jdbfs.rename(dir .. "/e/c", dir .. "/d/b", durable))
    for _, open in ipairs({ "create", "open_rw", "open_wal" }) do
      local o = { durable_create = true, direct = "off" }
      refused(open, jdbfs[open](dir .. "/d/a", o))
      refused(open, jdbfs[open](dir .. "/d/new", o))
    end
    check("a", jdbfs.size(dir .. "/d/a") == 5)
    check("c", jdbfs.size(dir .. "/e/c") == 5)
    for _, free in ipairs({ "/d/b", "/e/b", "/d/new" }) do
      check(free, jdbfs.exists(dir .. free) == false)
    end
  end
]==]

describe("a durable name whose directory cannot be opened", function()
  process.setup()

  local function prepare()
    support.sh("mkdir " .. support.path("d") .. " " .. support.path("e"))
    support.put(support.path("d/a"), "hello")
    support.put(support.path("e/c"), "hello")
  end

  it("is not changed, out of descriptors", function()
    local why = support.lacks("prlimit")
    if why then return pending(why) end
    prepare()
    local out = process.script(CALLS .. [==[
      check("start", jdbfs.exists(dir))
      local hold = {}
      while true do
        local f = io.open("/dev/null")
        if not f then break end
        hold[#hold + 1] = f
      end
      jdbfs.run(unchanged, "EMFILE")
      unchanged("EMFILE")
      -- Each call needs two: of both directories, of directory and file.
      table.remove(hold):close()
      local ok, _, err = jdbfs.rename(dir .. "/d/a", dir .. "/e/b", { durable = true })
      check("rename", ok == nil and err.name == "EMFILE")
      ok, _, err = jdbfs.create(dir .. "/d/a", { durable_create = true, direct = "off" })
      check("create", ok == nil and err.name == "EMFILE")
      check("a", jdbfs.size(dir .. "/d/a") == 5)
      table.remove(hold):close()
      check("well", jdbfs.rename(dir .. "/d/a", dir .. "/d/b", { durable = true }))
      check("well", jdbfs.remove(dir .. "/d/b", { durable = true }))
      print("done")
    ]==], { prefix = "prlimit --nofile=64" })
    assert.equal("done\n", out)
  end)

  it("is not changed, where it may be written but not read", function()
    local why = support.lacks("root", "setpriv")
    if why then return pending(why) end
    prepare()
    support.sh(("chmod 0333 %s; chmod 0777 %s; chmod -R a+rwX %s/a %s/c"):format(support.path("d"),
      support.path("e"), support.path("d"), support.path("e")))
    local prefix = "setpriv --reuid 65534 --clear-groups"
    if support.script("require('jdbfs')", { prefix = prefix }).status ~= 0 then
      return pending("another user cannot read this tree")
    end
    local out = process.script(CALLS .. [==[
      unchanged("EACCES")
      check("plain", jdbfs.rename(dir .. "/d/a", dir .. "/d/b"))
      print("done")
    ]==], { prefix = prefix })
    assert.equal("done\n", out)
  end)
end)
