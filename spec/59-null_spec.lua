-- The backend "null": for measuring what a program costs besides the system. It transfers nothing,
-- so nobody may come by it unawares.

local process = require "support_process"
local result = require "jdbfs.command.result"
local support = require "support"

local forced = os.getenv("JDBFS_BACKEND")
local o = { prefix = forced and "env -u JDBFS_BACKEND" or nil } -- it wins over setup

local function test(name, source)
  it(name, function()
    if support.on_sim then return pending(support.on_sim) end
    if forced and support.on_windows then return pending("needs a run without JDBFS_BACKEND") end
    assert.are.equal("ok\n", process.script(source .. "\nprint 'ok'", o))
  end)
end

describe("the backend null", function()
  process.setup()

  test("ends transfers and flushes at once, and transfers nothing", [[
    assert(jdbfs.setup { backend = "null" })
    local path, page = dir .. "/file", jdbfs.PAGE_SIZE
    local stream = assert(io.open(path, "wb"))
    stream:write(("x"):rep(4 * page))
    stream:close()
    local f = assert(jdbfs.open_rw(path, { direct = "prefer" }))
    local b = jdbfs.buffer(2 * page)
    b:fill(7)
    jdbfs.run(function()
      check("read", f:read_at(b, 0) == 2 * page and b:u8(0) == 7)
      check("read_many", f:read_many({ { b, 0, 0, page }, { b, 0, page, page } }) == 2)
      check("write", f:write_at(b, 0) == 2 * page)
      check("durable write", f:write_at(b, 0, 0, page, "dsync") == page)
      check("write_many", f:write_many({ { b, 0 } }) == 1)
      check("flushes", f:sync_data() and f:sync_all())
      local tasks, done = {}, 0
      for i = 1, 300 do
        tasks[i] = jdbfs.spawn(function()
          check("of a task", f:read_at(jdbfs.buffer(page), 0) == page)
          jdbfs.sleep(0.001)
          done = done + 1
        end)
      end
      for i = 1, 300 do tasks[i]:join() end
      check("all are done", done == 300, done)
    end)
    check("outside", f:write_at(b, 0) == 2 * page and f:size() == 4 * page)
    check("the rest", #f:read(page, 10 ^ 6) == 3 * page)
    check("says so", jdbfs.info().backend == "null" and f:info().durability.class == "unsafe",
      f:info().durability.class)
    assert(f:close())
    for byte in io.lines(path) do check("content", byte == ("x"):rep(4 * page)) end
  ]])

  test("works below a host's loop, sleeps, and lets go of files nobody closed", [[
    assert(jdbfs.setup { backend = "null" })
    local f, b = assert(jdbfs.create(dir .. "/a", { direct = "prefer" })), jdbfs.buffer(4096)
    check("descriptor", jdbfs.pollfd() >= 0)
    local task = jdbfs.spawn(function() return f:read_at(b, 0) end)
    repeat
      jdbfs.step(0)
      jdbfs.flush()
    until task:status() == "done"
    check("read", task:join() == 4096)
    check("nothing to do", jdbfs.step(0.001) == 0)
    local before = jdbfs.now()
    jdbfs.sleep(0.001)
    check("slept", jdbfs.now() - before >= 0.001)
    f, task = nil, nil
    collect()
    check("let go", jdbfs.stats().files == 0, jdbfs.stats().files)
  ]])

  test("does what is no transfer", [[
    assert(jdbfs.setup { backend = "null" })
    local f = assert(jdbfs.create(dir .. "/a", { direct = "prefer" }))
    check("truncate", f:truncate(8192) and f:size() == 8192)
    assert(f:close())
    check("rename", jdbfs.rename(dir .. "/a", dir .. "/b") and jdbfs.exists(dir .. "/b"))
    check("a failure", select(3, jdbfs.open(dir .. "/a")).name == "ENOENT")
    check("ls", table.concat(jdbfs.ls(dir), " "):find("%f[%w]b%f[%W]"))
    check("remove", jdbfs.remove(dir .. "/b"))
  ]])

  it("shows what the command itself costs, and has nothing to verify", function()
    if support.on_sim then return pending(support.on_sim) end
    if forced and support.on_windows then return pending("needs a run without JDBFS_BACKEND") end
    local function run(...)
      return support.process({ "lua/bin/jdbfs", "run", "randwrite", "--backend", "null", "--dir",
        support.path("."), "--size", "1m", "--time", "50ms", "--warmup", "0s", "--quiet", ... }, o)
    end
    local r = run("--json", "-")
    local d = assert(result.decode(r.out), r.err)
    assert.are.same({ 0, "null", 0 }, { d.exit, d.env.backend, d.trust.enters_per_op })
    assert.is_true(d.jobs[1].ops[1].n > 0)
    assert.is_nil(d.trust.submit_batch)
    r = run("--verify")
    assert.are.equal(2, r.status)
    assert.are.equal("jdbfs: --verify: the backend null keeps nothing that could be verified\n",
      r.err)
  end)

  it("is chosen by a program, never by the environment or by auto", function()
    local _, told = pcall(process.script, "print(jdbfs.info())",
      { env = { JDBFS_BACKEND = "null" } })
    assert.matches("JDBFS_BACKEND names no backend of this platform: null", told, 1, true)
    if support.on_sim then return pending(support.on_sim) end
    assert.are_not.equal("null\n", process.script("print(jdbfs.info().backend)",
      { env = { JDBFS_BACKEND = "auto" } }))
  end)
end)
