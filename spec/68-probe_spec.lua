-- The verb probe: what it says agrees with the module and the system.

local command = require("support_command")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local lfs = require("lfs")
local probe = require("jdbfs.command.probe")
local support = require("support")

local function verb(...) return command.verb(probe.main, ...) end

-- The path of the test's directory, and the names in it.
local function place()
  local dir = support.path("x"):match("(.*)/")
  local names = {}
  for name in lfs.dir(dir) do names[#names + 1] = name end
  return dir, table.concat(names, " ")
end

describe("jdbfs probe", function()
  support.setup()

  it("tells what the module finds, and leaves nothing behind", function()
    local dir, before = place()
    local status, out, err = verb(dir, "--json")
    assert.are.equal("0 ", status .. " " .. err)
    local document = assert(json.decode(out))
    assert.are.equal("jdbfs.probe/1", document.schema)
    local found, expected = document.paths[1], assert(jdbfs.probe(dir))
    for _, name in ipairs({ "file_system", "direct", "memory_alignment", "read_alignment",
      "write_alignment", "alignment_source", "logical_block", "physical_block", "backend" }) do
      assert.are.equal(expected[name], found[name], name)
    end
    assert.are.equal(expected.durability.class, found.durability.class)
    assert.are.equal(jdbfs.info().kernel, document.machine.kernel)
    local _, after = place()
    assert.are.equal(before, after)
  end)

  it("reads for people, path by path, with the backend and why", function()
    local dir = place()
    local status, out = verb(dir, "/")
    assert.are.equal(0, status)
    local info = jdbfs.info()
    for _, needed in ipairs({ info.kernel, "memlock", dir .. "  " .. support.fs(), "O_DIRECT",
      "atomic write", "sync cost", "durability", "/  " }) do
      assert.is_truthy(out:find(needed, 1, true), needed .. " is not in\n" .. out)
    end
    assert.is_truthy(out:find("  backend       " .. info.backend .. ": " .. info.reason, 1, true))
  end)

  it("tries the flags of single transfers, and warns where a ring needs threads", function()
    if support.not_linux or support.on_sim then
      return pending(support.not_linux or support.on_sim)
    end
    local dir = place()
    local found, of_file = assert(jdbfs.probe(dir)), assert(jdbfs.probe("/etc/passwd"))
    assert.are.equal("boolean", type(found.nowait))
    assert.is_true(found.dsync_write)
    assert.is_nil(of_file.dsync_write) -- nothing is written to it
    local refused = found.nowait == false
    local _, out = verb(dir)
    local told = ("RWF_NOWAIT %s, RWF_DSYNC ok"):format(refused and "refused" or "ok")
    assert.is_truthy(out:find(told, 1, true), out)
    assert.are.equal(refused, out:find("takes a worker thread", 1, true) ~= nil)
    if support.fs() == "ext4" then assert.is_true(found.nowait) end
  end)

  it("asks about the current directory without a path", function()
    local status, out = verb()
    assert.are.equal(0, status)
    assert.is_truthy(out:find("\n.  ", 1, true), out)
  end)

  it("warns of a backend of threads, and of little memory that may be locked", function()
    if support.on_sim then return pending(support.on_sim) end
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    if not interpreter then return pending("JDBFS_TEST_LUA names no interpreter") end
    local status, out = support.sh("ulimit -l 0; JDBFS_BACKEND=threads " .. interpreter ..
      " lua/bin/jdbfs probe . 2>&1")
    assert.are.equal(0, status, out)
    assert.matches("every operation takes a thread", out)
    assert.matches("memlock is 0 B: raise it", out)
  end)

  it("takes what is behind -- for a path", function()
    local status, _, err = verb("--", "--json")
    assert.are.equal(1, status)
    assert.is_truthy(err:find("--json", 1, true), err)
  end)

  it("warns of memory that looks like a disk", function()
    local memory = jdbfs.probe("/dev/shm")
    if not memory or memory.file_system ~= "tmpfs" then
      return pending("/dev/shm is no tmpfs here")
    end
    local _, out = verb("/dev/shm")
    assert.is_truthy(out:find("! tmpfs is memory, not a device", 1, true), out)
    assert.is_truthy(out:find("! nothing written here survives a power loss", 1, true), out)
  end)

  it("shows the queue of the device as the system has it", function()
    local dir = place()
    local device = jdbfs.probe(dir).durability.device
    local file = device and io.open("/sys/class/block/" .. device .. "/queue/nr_requests")
    if not file then return pending("the device's queue cannot be seen here") end
    local requests = file:read("*l")
    file:close()
    local _, out = verb(dir)
    assert.is_truthy(out:find("nr_requests " .. requests .. ",", 1, true), out)
  end)

  it("calls nothing refused that could not be tried", function()
    if not support.proc then return pending("needs /proc, where no file can be made") end
    local status, out, err = verb("/proc")
    assert.are.equal("0 ", status .. " " .. err)
    assert.is_truthy(out:find("O_DIRECT      unknown: no file could be made here", 1, true), out)
    assert.is_nil(out:find("refused", 1, true), out)
    assert.is_nil(out:find("NOT in force", 1, true), out)
  end)

  it("says what it cannot ask, and goes on with the rest", function()
    local dir = place()
    local none = support.path("none")
    local status, out, err = verb(none, dir)
    assert.are.equal(1, status)
    assert.is_truthy(err:find("^jdbfs: [^\n]+\n$"), err)
    assert.is_truthy(err:find("none", 1, true))
    assert.is_truthy(out:find(dir .. "  ", 1, true))
    status, out, err = verb("--frob")
    assert.are.equal("2 ", status .. " " .. out)
    assert.is_truthy(err:find("unknown option --frob", 1, true))
  end)
end)
