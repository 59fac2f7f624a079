-- The counts of `make bench-counts` fail when an operation costs more than it did.

local record = require("bench.record")
local support = require("support")

local function entry(value, fields)
  local e = { lua = "lua5.4", scenario = "read_1", count = "instructions", value = value,
    where = "gcc-12/Lua-5.4.4" }
  for key, field in pairs(fields or {}) do e[key] = field end
  return e
end

describe("a count", function()
  local list = { entry(3000), entry(0, { count = "allocations", where = "any" }) }

  it("fails when it is more than 3 % above its record", function()
    assert.are.equal("ok", (record.judge(list, entry(3089))))
    local verdict, text = record.judge(list, entry(3095))
    assert.are.equal("FAIL", verdict)
    assert.matches("lua5.4 read_1 instructions: 3095, recorded 3000 .*has grown", text)
  end)

  it("that was 0 fails when it happens at all", function()
    local zero = { count = "allocations", where = "any" }
    assert.are.equal("ok", (record.judge(list, entry(0, zero))))
    assert.are.equal("FAIL", (record.judge(list, entry(0.01, zero))))
  end)

  it("is skipped, and says so, where nothing is recorded for the compiler", function()
    local verdict, text = record.judge(list, entry(9999, { where = "clang-15/Lua-5.4.4" }))
    assert.are.equal("skip", verdict)
    assert.matches("nothing is recorded for clang%-15", text)
  end)

  it("is renewed in its place, and survives being written", function()
    local renewed = record.parse(record.format(list))
    record.renew(renewed, entry(2500))
    record.renew(renewed, entry(2000, { where = "other" }))
    renewed = record.parse(record.format(renewed))
    assert.are.equal(3, #renewed)
    assert.are.equal(2500, record.find(renewed, entry()))
    assert.are.equal(2000, record.find(renewed, entry(nil, { where = "other" })))
  end)

  it("of a damaged record is told with its line", function()
    local ok, message = pcall(record.parse, "# first\nlua5.4 read_1 entries\n")
    assert.is_false(ok)
    assert.are.equal("line 2 is no count: lua5.4 read_1 entries", message)
  end)
end)

describe("the recorded counts", function()
  it("are what counts.sh reads", function()
    local stream = assert(io.open("spec/bench/counts.txt"))
    local list = record.parse(stream:read("*a"))
    stream:close()
    assert.is_true(#list > 20)
  end)
end)

describe("make bench-counts", function()
  support.setup()

  -- Counts the heap of parked tasks with the Lua that runs this; status and output.
  local function count(file, ...)
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    local modules = package.searchpath and package.searchpath("jdbfs.core", package.cpath)
      or package.cpath:match("([^;]*)%?%.so"):gsub("/$", "") .. "/jdbfs/core.so"
    return support.sh(table.concat({ interpreter, "spec/bench/counts.lua", support.quote(file),
      "cc", support.quote((modules:gsub("/jdbfs/core%.so$", ""))), "lua", interpreter, "parked",
      ... }, " "))
  end

  it("records what it finds, agrees with it, and fails when that was less", function()
    if support.on_sim then return pending(support.on_sim) end
    if not os.getenv("JDBFS_TEST_LUA") then return pending("no JDBFS_TEST_LUA") end
    local file = support.path("counts.txt")
    local status, out = count(file, "--record")
    assert.are.equal(0, status, out)
    status, out = count(file)
    assert.are.equal(0, status, out)
    assert.matches("\n1 passed, 0 failed, 0 skipped\n$", out)
    local stream = assert(io.open(file))
    local list = record.parse(stream:read("*a"))
    stream:close()
    list[1].value = list[1].value / 1.05
    support.put(file, record.format(list))
    status, out = count(file)
    assert.are.equal(1, status, out)
    assert.matches("FAIL lua parked lua_bytes: .*it has grown\n0 passed, 1 failed", out)
  end)
end)
