-- The jdbfs command: what it prints, what it refuses, and that it leaves nothing behind.

local cli = require("jdbfs.cli")
local histogram = require("jdbfs.histogram")
local jdbfs = require("jdbfs")
local lfs = require("lfs")

-- Runs the command and returns its status and what it wrote to the two streams.
local function command(...)
  local function writer()
    return {
      text = "",
      write = function(self, ...)
        self.text = self.text .. table.concat({ ... })
      end,
    }
  end
  local out, err = writer(), writer()
  local status = cli.main({ ... }, out, err)
  return status, out.text, err.text
end

-- The names in a directory, as one string.
local function entries(dir)
  local names = {}
  for name in lfs.dir(dir) do
    if name ~= "." and name ~= ".." then names[#names + 1] = name end
  end
  table.sort(names)
  return table.concat(names, " ")
end

-- Runs body with some functions of the module replaced.
local function with_module(replacements, body)
  local real = package.loaded.jdbfs
  package.loaded.jdbfs = setmetatable(replacements, { __index = real })
  local ok, failure = pcall(body, real)
  package.loaded.jdbfs = real
  if not ok then error(failure, 0) end
end

describe("units of the command", function()
  it("take sizes in powers of 1024", function()
    assert.are.equal(512, cli.parse_size("512"))
    assert.are.equal(4096, cli.parse_size("4k"))
    assert.are.equal(256 * 1024 * 1024, cli.parse_size("256M"))
    assert.are.equal(2 ^ 40, cli.parse_size("1t"))
  end)

  it("refuse everything else as a size", function()
    for _, text in ipairs({ "", "k", "-1", "1.5g", "4kb", "4 k", "0x10", "1e3", "9999999999999999",
      "9999999t" }) do
      assert.is_nil(cli.parse_size(text), text)
    end
  end)

  it("take times with their unit only", function()
    assert.are.equal(5, cli.parse_time("5s"))
    assert.are.equal(0.5, cli.parse_time("500ms"))
    assert.are.equal(0.5, cli.parse_time(".5s"))
    assert.are.equal(90, cli.parse_time("1.5m"))
    for _, text in ipairs({ "", "5", "s", "-1s", "5 s", "1e3s", "1..5s", "5sm", "0x5s" }) do
      assert.is_nil(cli.parse_time(text), text)
    end
  end)
end)

describe("the random numbers", function()
  it("are MRG32k3a: its published start, on every Lua", function()
    -- RngStreams starts every word at 12345; its first numbers are 0.1270111, 0.3185276, 0.3091860.
    local draw = cli.generator(12345, 12345, 12345, 12345, 12345, 12345)
    assert.are.equal(1270111, draw(1e7))
    assert.are.equal(3185275, draw(1e7))
    assert.are.equal(3091860, draw(1e7))
  end)

  it("depend on the seed, the workload and the coroutine alone", function()
    local function first(...)
      local random, numbers = cli.random_stream(...), {}
      for i = 1, 6 do
        numbers[i] = ("%d"):format(random(65536))
      end
      return table.concat(numbers, " ")
    end
    assert.are.equal(first(1, 2, 3), first(1, 2, 3))
    assert.are_not.equal(first(1, 2, 3), first(2, 2, 3))
    assert.are_not.equal(first(1, 2, 3), first(1, 3, 3))
    assert.are_not.equal(first(1, 2, 3), first(1, 2, 4))
    assert.are.equal("8905 57174 29918 36394 35327 48165", first(1, 1, 1))
  end)

  it("stay in range and reach every page", function()
    local random, seen, count = cli.random_stream(7, 1, 1), {}, 0
    for _ = 1, 2000 do
      local page = random(64)
      assert.is_true(page >= 0 and page < 64 and page % 1 == 0)
      if not seen[page] then seen[page], count = true, count + 1 end
    end
    assert.are.equal(64, count)
    for _ = 1, 100 do
      local page = random(2 ^ 45)
      assert.is_true(page >= 0 and page < 2 ^ 45 and page % 1 == 0)
    end
  end)
end)

describe("a histogram", function()
  it("is off by at most 0.4 %", function()
    local h = histogram.new()
    for i = 1, 100000 do
      h:record(i * 1e-7)
    end
    for _, p in ipairs({ 50000, 90000, 99000, 99900, 99990 }) do
      local exact = p * 1e-7
      assert.is_true(math.abs(h:percentile(p) / exact - 1) < 0.004, p)
    end
    assert.are.equal(0.01, h:largest())
  end)

  it("tells a percentile only with ten samples above it", function()
    local h = histogram.new()
    for _ = 1, 999 do
      h:record(1e-3)
    end
    assert.is_nil(h:percentile(99000))
    assert.is_not_nil(h:percentile(50000))
    h:record(1e-3)
    assert.are.equal(1e-3, h:percentile(99000))
    assert.is_nil(h:percentile(99900))
    assert.are.equal(10000, histogram.samples_needed(99900))
  end)

  it("holds no figure without samples", function()
    local h = histogram.new()
    assert.is_nil(h:percentile(50000))
    assert.is_nil(h:largest())
    assert.is_nil(h:mean())
    assert.are.equal(0, #h:buckets())
  end)

  it("keeps the largest exactly, however long it took", function()
    local h = histogram.new()
    h:record(5000)
    h:record(-1)
    assert.are.equal(5000, h:largest())
    assert.are.equal(2, #h:buckets())
  end)
end)

describe("jdbfs without a run", function()
  it("prints help, version and the workloads", function()
    local status, out = command("--help")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("jdbfs run", 1, true))
    status, out = command("--version")
    assert.are.equal(0, status)
    assert.is_truthy(out:find(jdbfs.info().version, 1, true))
    status, out = command("list")
    assert.are.equal(0, status)
    for _, name in ipairs({ "randread", "randwrite", "wal" }) do
      assert.is_truthy(out:find(name, 1, true))
    end
  end)

  it("answers a usage error with one sentence and status 2", function()
    for _, args in ipairs({
      {}, { "walk" }, { "list", "x" }, { "run", "nothing" }, { "run", "wal", "wal" },
      { "run", "--what" }, { "run", "--size" }, { "run", "--size", "12q" }, { "run", "--time=5" },
      { "run", "--bs", "100" }, { "run", "--qd", "0" }, { "run", "--json=yes" },
      { "run", "--seed", "-1" }, { "run", "--dir", "" }, { "run", "--record=0" },
      { "run", "--size", "10000" }, { "run", "--bs", "3k", "--size", "1m" }, { "run", "-x" },
    }) do
      local told = table.concat(args, " ")
      local status, out, err = command((table.unpack or unpack)(args))
      assert.are.equal(2, status, told)
      assert.are.equal("", out, told)
      assert.is_truthy(err:match("^jdbfs: [^\n]+\n$"), told)
    end
  end)
end)

describe("jdbfs run", function()
  local dir

  local function run(...)
    local args = { "run", "--dir", dir, "--size", "1m", "--time", "150ms", "--warmup", "50ms",
      "--qd", "4", ... }
    return command((table.unpack or unpack)(args))
  end

  before_each(function()
    dir = (os.getenv("JDBFS_TEST_DIR") or ".") .. "/cli-spec-" .. tostring({}):gsub("%W", "")
    assert(lfs.mkdir(dir))
  end)

  after_each(function()
    assert(os.remove(dir))
  end)

  it("runs all workloads, reports them and removes what it made", function()
    local status, out, err = run()
    assert.are.equal("", err)
    assert.are.equal(0, status)
    for _, word in ipairs({ "randread", "randwrite", "wal", "p99.9", "seed 1", "cpu",
      jdbfs.info().version, jdbfs.info().backend, "removed at the end", "group size mean" }) do
      assert.is_truthy(out:find(word, 1, true), word)
    end
    for line in out:gmatch("[^\n]+") do
      assert.is_true(#line <= 160, line)
    end
    assert.are.equal("", entries(dir))
  end)

  it("runs only the workloads that are named, in that order", function()
    local status, out = run("wal", "randread", "--record", "3000")
    assert.are.equal(0, status)
    local wal, read = out:find("\nwal ", 1, true), out:find("\nrandread ", 1, true)
    assert.is_true(wal < read)
    assert.is_nil(out:find("\nrandwrite ", 1, true))
  end)

  it("prints one JSON document with --json", function()
    local found, dkjson = pcall(require, "dkjson")
    if not found then return pending("dkjson is not installed") end
    local status, out, err = run("--json", "--seed", "7", "wal", "randread")
    assert.are.equal("", err)
    assert.are.equal(0, status)
    local document, stop, message = dkjson.decode(out)
    assert.is_nil(message)
    assert.are.equal("\n", out:sub(stop))
    assert.are.equal(0, document.exit)
    assert.are.equal(7, document.seed)
    assert.are.equal(jdbfs.info().backend, document.env.backend)
    assert.is_nil(document.jobs.randwrite)
    assert.are.equal(0, document.jobs.wal.errors)
    local job = document.jobs.randread
    assert.is_true(job.ops_per_s > 0)
    local sum = 0
    for _, bucket in ipairs(job.latency.hist) do
      sum = sum + bucket[2]
    end
    assert.are.equal(job.latency.samples, sum)
  end)

  it("says loudly that --buffered is not direct I/O", function()
    local status, out = run("randread", "--buffered")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("direct I/O is NOT in force", 1, true))
    assert.is_truthy(out:find("direct    NOT IN FORCE", 1, true))
  end)

  it("prints - and says why when there are too few samples", function()
    local status, out = run("randread", "--qd", "1", "--time", "1ms", "--warmup", "0s")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("p99.9 needs 10000", 1, true))
    assert.is_truthy(out:find("\nrandread[^\n]+ %- "))
  end)

  it("fails with status 1 where there is no such directory", function()
    local status, out, err = command("run", "--dir", dir .. "/missing")
    assert.are.equal(1, status)
    assert.are.equal("", out)
    assert.is_truthy(err:match("^jdbfs: [^\n]+\n$"))
  end)

  it("refuses before it writes when the free space is short", function()
    with_module({ space = function() return 1e6, 1e9 end }, function()
      local status, _, err = run()
      assert.are.equal(2, status)
      assert.is_truthy(err:find("free", 1, true))
      assert.are.equal("", entries(dir))
    end)
  end)

  it("draws another name when a file of its name exists", function()
    local asked = {}
    local function create(path, options)
      asked[#asked + 1] = path
      assert.is_true(options.exclusive)
      if #asked == 1 then
        assert(lfs.rmdir((path:gsub("/[^/]*$", ""))))
        return nil, path .. ": it exists", { kind = "Io", name = "EEXIST" }
      end
      return jdbfs.create(path, options)
    end
    with_module({ create = create }, function()
      assert.are.equal(0, (run("randread")))
    end)
    assert.are.equal(2, #asked)
    assert.are_not.equal(asked[1], asked[2])
    assert.are.equal("", entries(dir))
  end)

  it("takes a refusal of direct I/O as a refusal, with a hint", function()
    local function create(path)
      return nil, "create " .. path .. ": no direct I/O here", { kind = "Unsupported" }
    end
    with_module({ create = create }, function()
      local status, _, err = run("randread")
      assert.are.equal(2, status)
      assert.is_truthy(err:find("--buffered", 1, true))
    end)
    assert.are.equal("", entries(dir))
  end)

  it("removes the first file when the second cannot be made", function()
    local function open_wal(path)
      return nil, "open_wal " .. path .. ": no space left", { kind = "Io", name = "ENOSPC" }
    end
    with_module({ open_wal = open_wal }, function()
      local status, out, err = run()
      assert.are.equal(1, status)
      assert.are.equal("", out)
      assert.are.equal(("jdbfs: open_wal %s: no space left\n"):format(err:match("open_wal (%S+):")),
        err)
    end)
    assert.are.equal("", entries(dir))
  end)

  it("counts errors, tells the first and removes the files all the same", function()
    local function create(path, options)
      local file = assert(jdbfs.create(path, options))
      local calls = 0
      return {
        preallocate = function(_, ...) return file:preallocate(...) end,
        write_at = function(_, ...) return file:write_at(...) end,
        sync_all = function() return file:sync_all() end,
        info = function() return file:info() end,
        close = function() return file:close() end,
        read_at = function(_, ...)
          calls = calls + 1
          if calls % 50 == 0 then return nil, "read_at data: input/output error", {} end
          return file:read_at(...)
        end,
      }
    end
    with_module({ create = create }, function()
      local status, out = run("randread")
      assert.are.equal(1, status)
      assert.is_truthy(out:find("errors, the first: read_at data: input/output error", 1, true))
    end)
    assert.are.equal("", entries(dir))
  end)

  it("is what the script runs", function()
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    if not interpreter then return pending("JDBFS_TEST_LUA names no interpreter") end
    local pipe = assert(io.popen(("%s lua/bin/jdbfs run wal --dir '%s' --size 1m --time 50ms"
      .. " --warmup 0s; echo status $?"):format(interpreter, dir)))
    local out = pipe:read("*a")
    pipe:close()
    assert.is_truthy(out:find("\nwal ", 1, true), out)
    assert.is_truthy(out:find("status 0", 1, true), out)
    assert.are.equal("", entries(dir))
  end)

  it("removes its files after Ctrl-C, too", function()
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    if not interpreter then return pending("JDBFS_TEST_LUA names no interpreter") end
    -- PUC 5.1 cannot tell a task of the interrupt and ends only with the measured time.
    local command_line = ("%s lua/bin/jdbfs run randread --dir '%s' --size 1m --time 3s")
      :format(interpreter, dir)
    -- Without --foreground the interrupt would come twice, and the second one kills.
    local pipe = assert(io.popen("timeout --foreground --preserve-status -s INT 1 " .. command_line
      .. " 2>&1; echo status $?"))
    local out = pipe:read("*a")
    pipe:close()
    assert.is_truthy(out:find("status 130", 1, true), out)
    assert.are.equal("", entries(dir))
  end)

  it("leaves alone whatever else is in the directory", function()
    local path = dir .. "/data"
    local file = assert(io.open(path, "wb"))
    file:write("mine")
    file:close()
    assert.are.equal(0, (run("randread", "randwrite")))
    assert.are.equal("data", entries(dir))
    file = assert(io.open(path, "rb"))
    assert.are.equal("mine", file:read("*a"))
    file:close()
    assert(os.remove(path))
  end)
end)
