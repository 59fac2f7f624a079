-- What later versions bring answers Unsupported, never half works. Whoever builds one of these
-- deletes its lines here.

local support = require("support")
local lfs = require("lfs")
local jdbfs = support.jdbfs
local both, fails = support.both, support.fails
local PAGE = jdbfs.PAGE_SIZE

describe("what this version lacks is Unsupported:", function()
  support.setup()

  both("write flags", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    for _, flag in ipairs({ "dsync", "atomic" }) do
      fails({ kind = "Unsupported", op = "write_at", path = path, says = "flags" },
        f:write_at(support.page(), 0, 0, PAGE, flag))
    end
    assert.equal(0, f:size())
    f:close()
  end)

  both("batches, holes and locks", function()
    local path = support.path()
    local f = assert(jdbfs.create(path))
    local list = { { support.page(), 0 } }
    local want = { kind = "Unsupported", path = path, errno = "none" }
    for _, call in ipairs({
      { "read_many", list }, { "write_many", list }, { "punch", 0, PAGE }, { "lock", "exclusive" },
      { "unlock" },
    }) do
      want.op = call[1]
      fails(want, f[call[1]](f, call[2], call[3]))
    end
    assert.equal(0, f:size())
    f:close()
  end)

  both("open options, and nothing is made", function()
    local path = support.path()
    for _, how in ipairs({ "create", "open_rw", "open_wal" }) do
      for name, value in pairs({ lock = "exclusive", durable_create = true, dsync = true }) do
        fails({ kind = "Unsupported", op = "open", path = path, says = name },
          jdbfs[how](path, { [name] = value }))
      end
    end
    assert.is_nil(lfs.attributes(path))
  end)

  both("durable changes of names, and nothing is changed", function()
    local path, new = support.path(), support.path()
    support.put(path, "x")
    local o = { durable = true }
    fails({ kind = "Unsupported", op = "mkdir", path = new, says = "durable" }, jdbfs.mkdir(new, o))
    fails({ kind = "Unsupported", op = "remove", path = path }, jdbfs.remove(path, o))
    fails({ kind = "Unsupported", op = "rename", path = path }, jdbfs.rename(path, new, o))
    support.holds(path, "x")
    assert.is_nil(lfs.attributes(new))
  end)

  both("atomic_write, probe and the log", function()
    local path = support.path()
    fails({ kind = "Unsupported", op = "atomic_write", path = path }, jdbfs.atomic_write(path, "x"))
    fails({ kind = "Unsupported", op = "probe", path = path }, jdbfs.probe(path))
    fails({ kind = "Unsupported", op = "log", path = path }, jdbfs.log(path))
    assert.is_nil(lfs.attributes(path))
  end)

  it("host adapters", function()
    fails({ kind = "Unsupported", op = "host" }, jdbfs.host("luv"))
  end)
end)
