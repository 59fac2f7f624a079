-- The jdbfs command: what it prints, what it refuses, and that it leaves nothing behind.

local cli = require("jdbfs.cli")
local command = require("support_command")
local distribution = require("jdbfs.command.distribution")
local jdbfs = require("jdbfs")
local result = require("jdbfs.command.result")
local support = require("support")
local units = require("jdbfs.command.units")
local lfs = require("lfs")

-- Runs body with some functions of the module replaced.
local function with_module(replacements, body)
  local real = {}
  for name, value in pairs(replacements) do
    real[name], jdbfs[name] = jdbfs[name], value
  end
  local ok, failure = pcall(body, real)
  for name in pairs(replacements) do
    jdbfs[name] = real[name]
  end
  if not ok then error(failure, 0) end
end

describe("units of the command", function()
  it("take sizes in powers of 1024", function()
    assert.are.equal(512, units.size("512"))
    assert.are.equal(4096, units.size("4k"))
    assert.are.equal(256 * 1024 * 1024, units.size("256M"))
    assert.are.equal(2 ^ 40, units.size("1t"))
  end)

  it("refuse everything else as a size", function()
    for _, text in ipairs({ "", "k", "-1", "1.5g", "4kb", "4 k", "0x10", "1e3", "9999999999999999",
      "9999999t" }) do
      assert.is_nil(units.size(text), text)
    end
  end)

  it("take times with their unit only", function()
    assert.are.equal(5, units.time("5s"))
    assert.are.equal(0.5, units.time("500ms"))
    assert.are.equal(0.5, units.time(".5s"))
    assert.are.equal(90, units.time("1.5m"))
    for _, text in ipairs({ "", "5", "s", "-1s", "5 s", "1e3s", "1..5s", "5sm", "0x5s" }) do
      assert.is_nil(units.time(text), text)
    end
  end)

  it("take rates, mixes and distributions, and nothing like them", function()
    assert.are.equal(8000, units.rate("8k"))
    assert.are.equal(1500000, units.rate("1.5m"))
    assert.are.equal(0.7, units.mix("70:30").reads)
    assert.are.equal(0.99, units.distribution("zipf").a)
    assert.are.equal(0.1, units.distribution("hotspot:90/10").b)
    for _, text in ipairs({ "", "k", "-5", "5/s" }) do assert.is_nil(units.rate(text), text) end
    for _, text in ipairs({ "", "70", "0:0", "a:b" }) do assert.is_nil(units.mix(text), text) end
    for _, text in ipairs({ "", "x", "1e3" }) do assert.is_nil(units.number(text), text) end
    for _, text in ipairs({ "", "a\0b" }) do assert.is_nil(units.text(text)) end
    for _, text in ipairs({ "", "0x", "-2x", "x" }) do assert.is_nil(units.factor(text), text) end
    for _, text in ipairs({ "", "3%", "0%/5s", "3%/2s", "3%/61s" }) do
      assert.is_nil(units.steady(text), text)
    end
    for _, text in ipairs({ "", "zipf:0", "pareto:1", "hotspot:90", "hotspot:100/10", "gauss" }) do
      assert.is_nil(units.distribution(text), text)
    end
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
      {}, { "walk" }, { "list", "wal", "x" }, { "run", "nothing" }, { "run", "wal", "wal" },
      { "run", "--what" }, { "run", "--size" }, { "run", "wal", "--mix", "70:30" },
      { "run", "mixed", "--mix", "70" }, { "run", "no/such.lua" }, { "list", "nothing" },
      { "run", "randread", "--threshold", "read.p99" }, { "run", "--rate", "0" },
      { "run", "randread", "--threshold", "nobody.read.p99 < 5ms" },
      { "run", "randread", "--threshold", "raed.p99 < 5ms" },
      { "run", "--dist", "gauss" }, { "run", "--size", "12q" }, { "run", "--time=5" },
      { "run", "--bs", "100" }, { "run", "--qd", "0" }, { "run", "--quiet=yes" },
      { "run", "--batch", "0" }, { "run", "--batch", "8:" }, { "run", "--batch", "4:0" },
      { "run", "--procs", "0" },
      { "run", "syncs", "--procs", "2" }, { "run", "randwrite", "--procs", "2", "--verify" },
      { "run", "randread", "--procs", "2", "--threshold", "read.p99 < 5ms abort" },
      { "run", "--seed", "-1" }, { "run", "--dir", "" }, { "run", "--record=0" },
      { "report", "--what" }, { "list", "--", "wal", "x" },
      { "run", "randread", "--backend", "none" },
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

describe("an option of run", function()
  it("that would have no effect is refused with the reason", function()
    for _, case in ipairs({
      { "--state has no effect without --verify", "randwrite", "--state", "s" },
      { "--state has no effect where no workload writes", "randread", "--verify", "--state", "s" },
      { "--verify has no effect where no workload has a target", "wal", "--verify" },
      { "--file has no effect where no workload has a target", "syncs", "--file", "f" },
      { "--dist has no effect where no workload has a target", "lsm", "--dist", "seq" },
      { "--sync has no effect where no workload writes", "randread", "--sync", "dsync" },
      { "--require-steady has no effect without --steady", "--require-steady" },
      { "--warmup-max has no effect without --steady", "--warmup-max", "5s" },
      { "--warmup has no effect with --steady", "--warmup", "5s", "--steady", "3%/5s" },
      { "--arrival has no effect without --rate", "--arrival", "const" },
      { "--zipf-scatter has no effect without --dist zipf", "--zipf-scatter", "off" },
      { "--zipf-scatter has no effect without --dist zipf", "--zipf-scatter", "on", "--dist",
        "seq" },
      { "--rate has no effect where each job", "replay", "--rate", "5" },
      { "--ops has no effect where each job owns its loop", "matrix", "--ops", "5" },
      { "--qd has no effect where each job says", "wal", "--qd", "5" },
    }) do
      local told = table.concat(case, " ", 2)
      local status, out, err = command("run", (table.unpack or unpack)(case, 2))
      assert.are.equal("2 ", status .. " " .. out, told)
      assert.is_truthy(err:find("jdbfs: " .. case[1], 1, true), told .. ": " .. err)
    end
  end)

  it("is taken when one of the workloads has a use for it", function()
    for _, words in ipairs({
      { "randwrite", "--verify", "--state", "s", "--sync", "dsync" },
      { "wal", "randread", "--verify", "--dist", "zipf", "--zipf-scatter", "off", "--qd", "5" },
      { "randread", "--rate", "5", "--arrival", "const" }, { "matrix", "--arrival", "const" },
      { "randread", "--steady", "3%/5s", "--warmup-max", "9s", "--require-steady" },
      { "lsm", "--rate", "5", "--ops", "5" }, { "randread", "wal", "--sync", "dsync", "randwrite" },
    }) do
      words[#words + 1] = "--dry-run"
      local status, _, err = command("run", "--size", "1m", (table.unpack or unpack)(words))
      assert.are.equal("0 ", status .. " " .. err, table.concat(words, " "))
    end
  end)
end)

describe("the command", function()
  -- Runs body where that module cannot be loaded.
  local function without(name, body)
    local loaded = package.loaded[name]
    package.loaded[name] = nil
    package.preload[name] = function() error("it is broken", 0) end
    local ok, failure = pcall(body)
    package.preload[name], package.loaded[name] = nil, loaded
    if not ok then error(failure, 0) end
  end

  it("says that the module, or a part of its own, does not load", function()
    for _, name in ipairs({ "jdbfs", "jdbfs.command.list" }) do
      without(name, function()
        local status, _, err = command("list")
        assert.are.equal(1, status)
        assert.matches("^jdbfs: .*it is broken", err)
      end)
    end
  end)

  it("tells a mistake of its own with the place where it happened", function()
    local told = ""
    local out = { write = function() error("boom") end }
    local err = { write = function(_, ...) told = told .. table.concat({ ... }) end }
    assert.are.equal(1, cli.main({ "--help" }, out, err))
    assert.matches("^jdbfs: [^\n]*boom\nstack traceback:\n.*60%-cli_spec", told)
  end)
end)

describe("jdbfs run", function()
  local dir

  local function run(...)
    local args = { "run", "--dir", dir, "--size", "1m", "--time", "150ms", "--warmup", "50ms",
      "--qd", "4", ... }
    return command((table.unpack or unpack)(args))
  end

  local function document(...)
    local args = { "--quiet", "--json", "-", ... }
    local status, out, err = run((table.unpack or unpack)(args))
    return assert(result.decode(out)), status, err
  end

  before_each(function()
    dir = (os.getenv("JDBFS_TEST_DIR") or ".") .. "/cli-spec-" .. tostring({}):gsub("%W", "")
    assert(lfs.mkdir(dir))
  end)

  after_each(function()
    assert(lfs.rmdir(dir))
  end)

  it("runs a short set of workloads, reports them and removes what it made", function()
    local status, out, err = run()
    assert.are.equal(0, status, err)
    for _, word in ipairs({ "randread", "randwrite", "client.commit", "flusher.write_sync", "p99",
      "seed 1", "cpu", jdbfs.info().version, jdbfs.info().backend }) do
      assert.is_truthy(out:find(word, 1, true), word)
    end
    for line in out:gmatch("[^\n]+") do
      assert.is_true(#line:gsub("[\128-\191]", "") <= 100, line)
    end
    assert.are.equal("", support.names(dir))
  end)

  it("shows progress on stderr in plain lines, and none with --quiet", function()
    local _, out, err = run("randread", "--interval", "50ms")
    assert.matches("^randread [^\n]+\n", err)
    assert.is_nil((out .. err):find("\27", 1, true))
    local _, quiet_out, quiet_err = run("randread", "--quiet")
    assert.are.equal("", quiet_out)
    assert.are.equal("", quiet_err)
  end)

  it("runs only the workloads that are named, in that order", function()
    local d = document("wal", "randread", "--record", "3000")
    assert.are.equal("client", d.jobs[1].name)
    assert.are.equal("flusher", d.jobs[2].name)
    assert.are.equal("randread", d.jobs[3].name)
    assert.is_nil(d.jobs[4])
  end)

  it("gives every built-in workload's operations", function()
    for name, ops in pairs({ randread = "read", randwrite = "write", mixed = "read write",
      seqread = "read", seqwrite = "write" }) do
      local d, status = document(name, "--bs", "4k", "--time", "300ms")
      assert.are.equal(0, status, name)
      local names = {}
      for i, op in ipairs(d.jobs[1].ops) do
        names[i] = op.name
        assert.are.equal(op.n * 4096, op.bytes)
        assert.is_true(op.response.n == op.n and op.service.n == op.n)
      end
      assert.are.equal(ops, table.concat(names, " "), name)
    end
  end)

  it("prints one JSON document with --json -, and nothing else", function()
    local d, status, err = document("--seed", "7", "wal", "randread")
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.are.equal(0, d.exit)
    assert.are.equal(7, d.seed)
    assert.are.equal(jdbfs.info().backend, d.env.backend)
    assert.are.equal("jdbfs.run/1", d.schema)
    local sum, op = 0, d.jobs[3].ops[1]
    for _, bucket in ipairs(op.response.hist) do
      sum = sum + bucket[2]
    end
    assert.are.equal(op.n, sum)
    for _, figure in ipairs({ "cpu_s_per_mop", "cores", "enters_per_op", "submit_batch",
      "reap_batch" }) do
      assert.is_true(d.trust[figure] > 0, figure)
    end
    assert.are.same({ "gc_share" }, d.trust.estimated)
    assert.are.equal(distribution.percentile(op.response, 50), op.response.p["50"])
    assert.is_true(op.service.ci["50"][1] <= op.service.p["50"])
    assert.is_true(op.service.ci["50"][2] >= op.service.p["50"])
    assert.is_nil(op.response.p["99.999"])
  end)

  it("says loudly that --buffered is not direct I/O", function()
    local status, out = run("randread", "--buffered")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("direct I/O is NOT in force", 1, true))
  end)

  it("leaves percentiles out that too few samples support", function()
    local status, out = run("randread", "--qd", "1", "--ops", "500")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("needs", 1, true))
  end)

  it("ends after --ops iterations", function()
    local d = document("randread", "--ops", "200", "--time", "60s", "--warmup", "0s")
    local n = d.jobs[1].ops[1].n
    assert.is_true(n >= 200 and n < 200 + 4, n)
    d = result.decode(select(2, command("run", "randread", "--ops", "100", "--dir", dir, "--size",
      "1m", "--qd", "1", "--warmup", "0s", "--rate", "200", "--arrival", "const", "--quiet",
      "--json", "-")))
    assert.are.equal(100, d.jobs[1].ops[1].n)
  end)

  it("runs several times with --repeat, into one document", function()
    local d, status, err = document("randread", "--repeat", "3", "--time", "50ms")
    assert.are.equal("", err)
    assert.are.equal(0, status)
    assert.are.equal(2, #d.runs)
    for _, one in ipairs(result.runs(d)) do
      assert.are.equal("jdbfs.run/1", one.schema)
      assert.is_true(one.jobs[1].ops[1].n > 0)
    end
    local path = dir .. "/result"
    local out
    status, out, err = run("randread", "--repeat", "2", "--time", "50ms", "--json", path,
      "--threshold", "read.p50 < 1ns", "--threshold", "read.count > 0")
    assert.are.equal(3, status, err)
    assert.are.equal(2, select(2, out:gsub("\ntarget ", "")))
    d = assert(result.load(path))
    assert.are.same({ 3, 1, 3 }, { d.exit, #d.runs, d.runs[1].exit })
    os.remove(path)
    status, out, err = run("randread", "--repeat", "3", "--csv", path)
    assert.are.same({ 2, "" }, { status, out })
    assert.matches("%-%-csv is of one run", err)
    local missing = "return function(ctx) if ctx.iter == 2 then error('this') end end"
    support.put(dir .. "/w.lua", missing)
    d, status = document(dir .. "/w.lua", "--repeat", "3")
    assert.are.equal(1, status)
    assert.are.equal(0, #d.runs) -- what failed is not repeated
    os.remove(dir .. "/w.lua")
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
      assert.are.equal("", support.names(dir))
    end)
  end)

  it("asks for the space where a file that is named will be", function()
    local target = dir .. "/elsewhere/target"
    assert(jdbfs.mkdir(dir .. "/elsewhere"))
    local function space(path)
      if path:find("elsewhere", 1, true) then return 1e6, 1e9 end
      return 5e11, 1e12
    end
    with_module({ space = space }, function()
      local status, _, err = command("run", "randread", "--dir", dir, "--file", target, "--size",
        "1m", "--quiet")
      assert.are.equal(2, status)
      assert.is_truthy(err:find(dir .. "/elsewhere has ", 1, true), err)
    end)
    support.put(target, ("x"):rep(8192)) -- what is there needs none
    with_module({ space = space }, function()
      local status, _, err = command("run", "randread", "--dir", dir, "--file", target, "--time",
        "50ms", "--warmup", "0s", "--quiet")
      assert.are.equal("0 ", status .. " " .. err)
    end)
    os.remove(target)
    assert(lfs.rmdir(dir .. "/elsewhere"))
  end)

  it("measures 10 s after 1 s on 1 GiB, or on a tenth of the free space, unless told", function()
    local function planned(free)
      local _, out
      with_module({ space = function() return free, 2 * free end }, function()
        _, out = command("run", "randread", "--dir", dir, "--dry-run")
      end)
      return out
    end
    assert.matches("1 GiB of files first, then 1s of warm-up and 10s each", planned(5e11), 1, true)
    assert.matches("writes 954 MiB of files first", planned(1e10), 1, true)
    local status, out = run("randread", "--dry-run")
    assert.are.equal(0, status)
    assert.matches("writes 1 MiB of files first, then 0.05s of warm-up and 0.15s", out, 1, true)
  end)

  it("chooses a size by the free space, and ends when it runs out", function()
    with_module({ space = function() return 4096, 1e9 end }, function()
      local status, _, err = command("run", "randread", "--dir", dir, "--quiet")
      assert.are.equal(2, status)
      assert.matches("has only 4", err)
    end)
    local asked = 0
    local function shrinking()
      asked = asked + 1
      return asked < 3 and 1e9 or 1, 1e9
    end
    with_module({ space = shrinking }, function()
      local status, out = run("randread", "--time", "20s", "--interval", "50ms")
      assert.are.equal(1, status)
      assert.matches("nearly full", out)
    end)
    assert.are.equal("", support.names(dir))
  end)

  it("gives up when every name for its directory is taken", function()
    with_module({ exists = function() return true end }, function()
      local status, _, err = run("randread")
      assert.are.equal(1, status)
      assert.matches("no free name", err)
    end)
    assert.are.equal("", support.names(dir))
  end)

  it("refuses blocks that the file cannot have", function()
    local status, _, err = run("randread", "--bs", "1000", "--size", "1000000")
    assert.are.equal(2, status)
    assert.matches("not a multiple of", err)
    status, _, err = run("randread", "seqread", "--verify")
    assert.are.equal(2, status)
    assert.matches("blocks differ", err)
    assert.are.equal("", support.names(dir))
  end)

  it("says what cannot be written of a result", function()
    if not lfs.attributes("/dev/full") then return pending("there is no /dev/full") end
    for _, kind in ipairs({ "json", "html", "hgrm" }) do
      -- By count: in a short time a busy machine may have measured nothing, which hgrm leaves out.
      local status, _, err = run("randread", "--time", "60s", "--ops", "50", "--" .. kind,
        "/dev/full")
      assert.are.equal(1, status, kind)
      assert.matches("No space left", err)
    end
    local status, _, err = run("randread", "--json", dir .. "/no/such")
    assert.are.equal(1, status)
    assert.matches("No such file", err)
    assert.are.equal("", support.names(dir))
  end)

  it("rewrites one line on a terminal", function()
    local interpreter = os.getenv("JDBFS_TEST_LUA")
    local why = require("support").lacks("script") or
      not interpreter and "JDBFS_TEST_LUA names no interpreter"
    if why then return pending(why) end
    for _, option in ipairs({ "", " --ascii" }) do
      local pipe = assert(io.popen(("script -qec \"%s lua/bin/jdbfs run randread --dir '%s'"
        .. " --size 1m --time 300ms --interval 50ms --seed random%s\" /dev/null </dev/null"):format(
        interpreter, dir, option)))
      local out = pipe:read("*a")
      pipe:close()
      assert.is_truthy(out:find("\r\27[K", 1, true), out)
    end
    assert.are.equal("", support.names(dir))
  end)

  it("colours what failed on a terminal, unless told not to", function()
    local lua = os.getenv("JDBFS_TEST_LUA")
    local why = support.lacks("script") or not lua and "JDBFS_TEST_LUA names no interpreter"
    if why then return pending(why) end
    for _, case in ipairs({ { "env -u NO_COLOR", "", true }, { "env NO_COLOR=", "", true },
      { "env NO_COLOR=1", "", false }, { "env -u NO_COLOR", " --no-color", false } }) do
      local pipe = assert(io.popen(("%s script -qec \"%s lua/bin/jdbfs run randread --dir '%s'"
        .. " --size 1m --time 50ms --warmup 0s --threshold 'read.count < 0'%s\" /dev/null"
        .. " </dev/null"):format(case[1], lua, dir, case[2])))
      local out = pipe:read("*a")
      pipe:close()
      assert.is_truthy(out:find("read.count < 0", 1, true), out)
      assert.are.equal(case[3], out:find("\27%[[%d;]+m") ~= nil, out)
    end
  end)

  it("writes nothing with --dry-run", function()
    local status, out = run("randwrite", "--dry-run")
    assert.are.equal(0, status)
    for _, said in ipairs({ "1 MiB", dir .. "/jdbfs-XXXXXX/data", jdbfs.info().features }) do
      assert.is_truthy(out:find(said, 1, true), out)
    end
    assert.are.equal("", support.names(dir))
  end)

  it("replaces its own outputs and nothing else, and opens all or none", function()
    local flags = { "--json", "--csv", "--live-json", "--hgrm", "--html" }
    local words = { "randread", "--interval", "50ms" }
    for _, flag in ipairs(flags) do
      words[#words + 1], words[#words + 2] = flag, dir .. "/of" .. flag
    end
    for _ = 1, 2 do
      local status, _, err = run((table.unpack or unpack)(words))
      assert.are.equal(0, status, err)
    end
    for _, flag in ipairs(flags) do
      local path = dir .. "/of" .. flag
      local file = assert(io.open(path, "wb"))
      file:write("mine")
      file:close()
      local status, _, err = run("randread", flag, path)
      assert.are.equal(2, status)
      assert.matches("exists and is no such output of jdbfs: %-%-overwrite", err)
      for line in io.lines(path) do assert.are.equal("mine", line) end
      assert(os.remove(path))
    end
    local status = run("randread", "--json", dir .. "/new", "--csv", dir .. "/nowhere/at all")
    assert.are.equal(1, status)
    assert.are.equal("", support.names(dir))
  end)

  it("draws another name when a file of its name exists", function()
    local asked, create = {}, jdbfs.create
    local function replaced(path, options)
      asked[#asked + 1] = path
      assert.is_true(options.exclusive)
      if #asked == 1 then
        assert(lfs.rmdir((path:gsub("/[^/]*$", ""))))
        return nil, path .. ": it exists", { kind = "Io", name = "EEXIST" }
      end
      return create(path, options)
    end
    with_module({ create = replaced }, function()
      assert.are.equal(0, (run("randread")))
    end)
    assert.are.equal(2, #asked)
    assert.are_not.equal(asked[1], asked[2])
    assert.are.equal("", support.names(dir))
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
    -- Nothing was made but the directory.
    assert.are.equal("", support.names(dir))
  end)

  it("removes the first file when the second cannot be made", function()
    local create = jdbfs.create
    local function second_fails(path, options)
      if not path:match("/data$") then
        return nil, "create " .. path .. ": no space left", { kind = "Io", name = "ENOSPC" }
      end
      return create(path, options)
    end
    with_module({ create = second_fails }, function()
      local status, _, err = run("randread", "wal", "--quiet")
      assert.are.equal(1, status)
      assert.matches("^jdbfs: create [^\n]+/wal: no space left\n$", err)
    end)
    assert.are.equal("", support.names(dir))
  end)

  -- What another process says that runs these words and more.
  local function process(o, ...)
    local r = support.process({ "lua/bin/jdbfs", "run", "--dir", dir, "--size", "1m", "--warmup",
      "0s", ... }, o)
    return r.status, r.out, r.err
  end

  it("is what the script runs", function()
    local status, out, err = process({}, "wal", "--time", "50ms")
    assert.is_truthy(out:find("client.commit", 1, true), out .. err)
    assert.are.equal(0, status)
    assert.are.equal("", support.names(dir))
  end)

  it("runs on a simulated disk, too, without a complaint", function()
    local r = support.process({ "lua/bin/jdbfs", "run", "randwrite", "--backend", "sim", "--size",
      "1m", "--time", "50ms", "--warmup", "0s", "--quiet" }, { env = { JDBFS_BACKEND = "sim" } })
    assert.are.equal("", r.err)
    assert.are.equal(0, r.status)
  end)

  for _, signal in ipairs({ "INT", "TERM", "HUP" }) do
    it("tells what was measured and removes its files after SIG" .. signal, function()
      local status, out, err = process({ stop = { signal, 1 } }, "randread", "--time", "60s")
      assert.are.equal(130, status, out .. err)
      assert.is_truthy(out:find("service", 1, true), out .. err)
      assert.are.equal("", support.names(dir))
    end)
  end

  it("removes its files after a terminal went away, which is told more than once", function()
    if support.on_windows then return pending("Windows has no SIGHUP") end
    local rows = support.quote(dir .. "/rows")
    local status, out = support.sh(("%s lua/bin/jdbfs run lsm --data 4m --dir %s --warmup 0s"
      .. " --time 60s --interval 50ms --quiet --live-json %s & run=$!;"
      .. " until [ -s %s ]; do sleep 0.05; done;"
      .. " for i in 1 2 3 4; do kill -HUP $run 2>/dev/null; sleep 0.01; done; wait $run"):format(
      support.interpreter(), support.quote(dir), rows, rows))
    assert.are.equal(130, status, out)
    assert.are.equal("rows", support.names(dir))
    os.remove(dir .. "/rows")
  end)

  it("fails when what it says or writes finds no room", function()
    if not support.proc then return pending("needs /dev/full") end
    for _, words in ipairs({ "--help", "list", "run randread --json - --quiet%s",
      "run randread --csv /dev/full --quiet%s", "run randread --live-json /dev/full --quiet%s" }) do
      local status, out = support.sh(("%s lua/bin/jdbfs %s 2>&1 >/dev/full"):format(
        support.interpreter(), words:format(" --size 1m --time 100ms --warmup 0s --dir "
          .. support.quote(dir))))
      assert.are.equal(1, status, words)
      assert.matches("^jdbfs: [^\n]*No space left on device\n$", out)
    end
    assert.are.equal("", support.names(dir))
  end)

  it("removes its files when nobody reads what it says", function()
    local pipe = assert(io.popen(support.command_line({ support.interpreter(), "lua/bin/jdbfs",
      "run", "randread", "--dir", dir, "--size", "1m", "--time", "500ms" })))
    assert.matches("randread", pipe:read("*l"))
    pipe:close()
    assert.are.equal("", support.names(dir))
  end)

  it("ends with a document on standard output after Ctrl-C, too", function()
    local status, out, err = process({ stop = { "INT", 1 } }, "mixed", "--time", "60s", "--json",
      "-")
    local d = assert(result.decode(out), out .. err)
    assert.are.equal(130, status)
    assert.are.equal(130, d.exit)
    assert.is_true(d.jobs[1].ops[1].n > 0)
    assert.are.equal("", support.names(dir))
  end)

  it("leaves alone whatever else is in the directory", function()
    local path = dir .. "/data"
    local file = assert(io.open(path, "wb"))
    file:write("mine")
    file:close()
    assert.are.equal(0, (run("randread", "randwrite")))
    assert.are.equal("data", support.names(dir))
    file = assert(io.open(path, "rb"))
    assert.are.equal("mine", file:read("*a"))
    file:close()
    assert(os.remove(path))
  end)
end)
