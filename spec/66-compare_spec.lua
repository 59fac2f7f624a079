-- Comparing results, and the verbs compare and report.

local bootstrap = require("jdbfs.command.bootstrap")
local cli = require("jdbfs.cli")
local command = require("support_command")
local compare = require("jdbfs.command.compare")
local html = require("jdbfs.command.html")
local json = require("jdbfs.command.json")
local lfs = require("lfs")
local made = require("support_result")
local report = require("jdbfs.command.report")
local result = require("jdbfs.command.result")
local screen = require("jdbfs.command.screen")
local support = require("support")

local function cli_verb(name)
  return function(args, out, err)
    local words = { name }
    for i, word in ipairs(args) do words[i + 1] = word end
    return cli.main(words, out, err)
  end
end

local verb = command.verb

local function one_line(text)
  return text:find("^jdbfs: [^\n]+\n$") ~= nil
end

local function save(name, document)
  local path = support.path(name)
  support.put(path, result.encode(document))
  return path
end

local function figure_named(figures, name)
  for _, figure in ipairs(figures) do
    if figure.name == name then return figure end
  end
end

describe("resampling", function()
  it("draws the weighted median", function()
    local median = bootstrap.median_of({ 5, 1, 3, 9 })
    assert.are.equal(4, median({ 1, 1, 1, 1 }))
    assert.are.equal(5, median({ 2, 1, 1, 1 }))
    assert.are.equal(1, median({ 0, 3, 1, 1 }))
    assert.are.equal(6, median({ 0, 0, 1, 1 }))
  end)

  it("has the p of Mann and Whitney", function()
    local function near(expected, a, b)
      local p = bootstrap.mann_whitney(a, b)
      assert.is_true(math.abs(p - expected) < 1e-3, p)
    end
    -- U = 2 and 25 against a mean of 12.5; a deviation of 4.787; with the continuity correction.
    near(0.0367, { 1, 2, 3, 4, 7 }, { 5, 6, 8, 9, 10 })
    near(1, { 1, 2, 3 }, { 1, 2, 3 })
    near(1, { 4, 4 }, { 4, 4 })
  end)

  it("is the same for the same seed and differs for another", function()
    local values = {}
    for i = 1, 30 do values[i] = 100 + i * 37 % 17 end
    local side = { f = bootstrap.median_of(values), n = 30, block = 3 }
    local _, _, low, high = bootstrap.ratio(side, side, { seed = 7, resamples = 200 })
    local _, _, low2, high2 = bootstrap.ratio(side, side, { seed = 7, resamples = 200 })
    assert.are.equal(low, low2)
    assert.are.equal(high, high2)
    local first, second = bootstrap.ratio(side, side, {})
    assert.are.equal(first, second)
    assert.is_true(low < 1 and high > 1)
  end)

  it("gives no interval without two blocks", function()
    local side = { f = bootstrap.median_of({ 1, 2, 3, 4, 5 }), n = 5, block = 3 }
    local first, second, low = bootstrap.ratio(side, side, {})
    assert.are.equal("3 3", first .. " " .. second)
    assert.is_nil(low)
  end)

  -- How often of 100 the interval holds the true ratio of the medians of two samples of n units,
  -- each as much like the one before it as `memory` says.
  local function coverage(n, block, memory)
    local covered = 0
    for trial = 1, 100 do
      local draw = made.random(trial * 31 + n)
      local function sample()
        local values, x = {}, 0
        for i = 1, n do
          x = memory * x + draw() + draw() + draw() + draw() - 2
          values[i] = 100 + 5 * x
        end
        return { f = bootstrap.median_of(values), n = n, block = block }
      end
      local _, _, low, high = bootstrap.ratio(sample(), sample(), { seed = trial, resamples = 100 })
      if low <= 1 and high >= 1 then covered = covered + 1 end
    end
    return covered
  end

  it("of runs covers the true ratio, however few they are", function()
    assert.is_true(coverage(3, 1, 0) >= 90)
    assert.is_true(coverage(6, 1, 0) >= 90)
  end)

  it("of seconds that are alike covers it nearly as often, thanks to the blocks", function()
    local short, long = coverage(9, 3, 0.7), coverage(20, 3, 0.7)
    assert.is_true(short >= 84 and long >= 84, short .. " " .. long)
  end)
end)

describe("a comparison", function()
  it("of a thing with itself shows a difference in at most 2 of 20", function()
    local differing = 0
    for trial = 1, 20 do
      local _, figures = compare.run(made.document({ seconds = 20, rate = 150, seed = trial }),
        made.document({ seconds = 20, rate = 150, seed = trial + 100 }),
        { seed = trial, resamples = 200 })
      local differs = false
      for _, figure in ipairs(figures) do differs = differs or figure.differs end
      if differs then differing = differing + 1 end
    end
    assert.is_true(differing <= 2, differing .. " of 20")
  end)

  it("finds a slowdown of 10 % and says so", function()
    local text, figures, exit = compare.run(made.document({ seconds = 30, rate = 200 }),
      made.document({ seconds = 30, rate = 200, seed = 2, scale = 1.1 }), { resamples = 400 })
    local figure = figure_named(figures, "read.p50")
    assert.are.equal("slower", figure.verdict)
    assert.is_true(figure.low > 1 and figure.ratio > 1.07 and figure.ratio < 1.13, figure.ratio)
    for _, each in ipairs(figures) do assert.are.equal(each.ratio, each.new / each.base) end
    assert.is_truthy(text:find("read p50 response%s+%d+us%s+%d+us%s+1%.%d+%s+%[1%.%d+, 1%.%d+%]"
      .. "%s+slower"), text)
    assert.are.equal(0, exit)
    local _, back = compare.run(made.document({ seconds = 30, rate = 200, seed = 2, scale = 1.1 }),
      made.document({ seconds = 30, rate = 200 }), { resamples = 400 })
    assert.are.equal("faster", figure_named(back, "read.p50").verdict)
  end)

  it("calls no change real that the noise covers", function()
    local _, figures = compare.run(made.document({ seconds = 30, rate = 200 }),
      made.document({ seconds = 30, rate = 200, seed = 2, scale = 1.1 }),
      { noise = 0.15, resamples = 400 })
    for _, figure in ipairs(figures) do assert.is_falsy(figure.differs, figure.name) end
  end)

  it("gives no verdict on runs too short for one, nor on warm-up", function()
    local a = made.document({ seconds = 8, warmup = 3 })
    local _, figures = compare.run(a, a)
    assert.are.equal("too short to tell", figure_named(figures, "read.p50").verdict)
    assert.is_nil(figure_named(figures, "read.p50").low)
  end)

  it("of several runs takes the run as the unit, and has the cpu, too", function()
    local base, new = {}, {}
    for i = 1, 5 do
      base[i] = made.document({ seconds = 3, rate = 400, seed = i })
      new[i] = made.document({ seconds = 3, rate = 400, seed = i + 50, scale = 1.2 })
      base[i].trust.cpu_s_per_mop, new[i].trust.cpu_s_per_mop = 5 + i / 100, 4 + i / 100
    end
    local text, figures = compare.run(base, new)
    assert.is_truthy(text:find("5 + 5 runs of 3s, unit: the run", 1, true), text)
    assert.are.equal("slower", figure_named(figures, "read.p50").verdict)
    assert.are.equal("slower", figure_named(figures, "read.rate").verdict)
    assert.are.equal("less", figure_named(figures, "cpu").verdict)
    local _, paired = compare.run(base, new, { paired = true })
    assert.are.equal("slower", figure_named(paired, "read.p50").verdict)
    assert.is_nil((compare.run(base, new[1])))
  end)

  it("of pairs sees past what both runs of a pair share", function()
    local base, new = {}, {}
    for i = 1, 8 do -- the machine slows down by far more than the change from pair to pair
      base[i] = made.document({ seconds = 3, rate = 400, seed = i, scale = 1 + i / 2 })
      new[i] = made.document({ seconds = 3, rate = 400, seed = i, scale = (1 + i / 2) * 1.1 })
    end
    local _, alone = compare.run(base, new)
    assert.are.equal("~ no difference shown", figure_named(alone, "read.p50").verdict)
    local _, paired = compare.run(base, new, { paired = true })
    assert.are.equal("slower", figure_named(paired, "read.p50").verdict)
  end)

  it("names what was set differently, and refuses what cannot be compared", function()
    local a, b = made.document(), made.document()
    b.env.kernel, b.env.durability.reasons, b.plan.target = "7.1", { "x" }, "elsewhere"
    local text = compare.run(a, b)
    assert.is_truthy(text:find("kernel 6.18.44 → 7.1", 1, true), text)
    assert.is_truthy(text:find("durability", 1, true))
    assert.is_nil(text:find("elsewhere", 1, true))
    for _, name in ipairs({ "bs", "qd", "size", "dist" }) do
      b = made.document()
      b.plan[name] = "other"
      local refused, message, exit = compare.run(a, b)
      assert.is_nil(refused)
      assert.are.equal(2, exit)
      assert.is_truthy(message:find(name .. " is ", 1, true), message)
      assert.is_string((compare.run(a, b, { force = true })))
    end
  end)

  it("of runs with nothing in common says so", function()
    local a, b = made.document(), made.document()
    b.jobs[1].ops[1].name = "write"
    a.trust, b.trust = {}, {}
    local text, figures = compare.run(a, b)
    assert.are.equal(0, #figures)
    assert.is_truthy(text:find("no operation is in both results", 1, true))
    a.jobs, b.jobs = {}, {}
    assert.is_string((compare.run(a, b)))
  end)
end)

describe("jdbfs compare", function()
  support.setup()

  local function slower_pair()
    return save("base.json", made.document({ seconds = 12, rate = 150 })),
      save("new.json", made.document({ seconds = 12, rate = 150, seed = 2, scale = 1.6 }))
  end

  it("exits with 3 when a change is past --fail-on, and with 0 when not", function()
    local base, new = slower_pair()
    for expression, expected in pairs({ ["read.p50>+10%"] = 3, ["read.p50>+90%"] = 0,
      ["iops<-5%"] = 3, ["read.p99.service>5%"] = 3, ["write.p50>+10%"] = 3 }) do
      local status, out, err = verb(compare.main, base, new, "--fail-on", expression)
      assert.are.equal(expected, status, expression .. "\n" .. out .. err)
      assert.are.equal("", err)
      assert.is_truthy(out:find((expected == 3 and "✗ " or "✓ ") .. expression, 1, true), out)
    end
    assert.are.equal(0, (verb(compare.main, new, base, "--fail-on", "read.p50>+10%")))
  end)

  it("is what the command runs, like report, verify and probe", function()
    local base, new = slower_pair()
    assert.are.equal(3, (verb(cli_verb("compare"), base, new, "--fail-on", "read.p50>+10%")))
    assert.are.equal(0, (verb(cli_verb("report"), base, "-o", support.path("a.html"))))
    local status, _, err = verb(cli_verb("verify"), base)
    assert.are.equal(2, status)
    assert.is_truthy(err:find("hold no stamped page", 1, true), err)
    assert.are.equal(0, (verb(cli_verb("probe"), ".")))
  end)

  it("prints JSON and nothing else when asked", function()
    local base, new = slower_pair()
    local status, out = verb(compare.main, base, new, "--json", "-", "--noise=1%")
    assert.are.equal(0, status)
    local document = assert(json.decode(out))
    assert.are.equal("jdbfs.compare/1", document.schema)
    local figure = figure_named(document.figures, "read.rate")
    assert.is_true(figure.p < 0.05 and figure.ratio < 1 and figure.high < 1)
    local path = support.path("c.json")
    status, out = verb(compare.main, base, new, "--json", path, "--ascii")
    assert.are.equal(0, status)
    assert.is_nil(out:find("[\128-\255]"))
    assert.are.equal(document.schema, assert(json.decode(support.get(path))).schema)
  end)

  it("takes several runs of each with --to between", function()
    local words = {}
    for i = 1, 3 do words[i] = save("a" .. i, made.document({ seconds = 3, seed = i })) end
    words[4] = "--to"
    for i = 1, 3 do words[4 + i] = save("b" .. i, made.document({ seconds = 3, seed = 9 + i })) end
    local status, out = verb(compare.main, (unpack or table.unpack)(words))
    assert.are.equal(0, status)
    assert.is_truthy(out:find("3 + 3 runs", 1, true))
  end)

  it("takes a result of several runs for so many", function()
    local function several(name, seed)
      local document = made.document({ seconds = 3, seed = seed })
      document.runs = { made.document({ seconds = 3, seed = seed + 1 }),
        made.document({ seconds = 3, seed = seed + 2 }) }
      return save(name, document)
    end
    local a, b = several("a", 1), several("b", 9)
    local status, out = verb(compare.main, a, b)
    assert.are.equal(0, status)
    assert.is_truthy(out:find("3 + 3 runs", 1, true))
    local broken = support.get(a):gsub('"runs":%[{"schema":"jdbfs.run/1"', '"runs":[{"schema":1')
    support.put(b, (broken:gsub('"runs":%[{', '"runs":[7,{')))
    local _, _, err = verb(compare.main, a, b)
    assert.matches("document.runs[1] is a number", err, 1, true)
  end)

  it("refuses bad input with one sentence and its exit status", function()
    local good = save("good.json", made.document({ seconds = 3 }))
    local old, cut, other = support.path("old"), support.path("cut"), support.path("other")
    support.put(old, (support.get(good):gsub("jdbfs.run/1", "jdbfs.run/0", 1)))
    support.put(cut, support.get(good):sub(1, 5000))
    local document = made.document({ seconds = 3 })
    document.plan.bs = 512
    support.put(other, result.encode(document))
    for _, case in ipairs({
      { 1, "No such file", good, support.path("none") }, { 2, "jdbfs.run/0", good, old },
      { 2, "is not JSON", cut, good }, { 2, "bs is 4096 in one and 512", good, other },
      { 2, "two results", good }, { 2, "two results", good, good, good },
      { 2, "one side of --to", good, "--to" }, { 2, "one side of --to", "--to", good },
      { 2, "one run cannot", good, good, "--to", good }, { 2, "unknown option --frob", "--frob" },
      { 2, "--fail-on needs a value", good, good, "--fail-on" },
      { 2, "is not like read.p99>+10%", good, good, "--fail-on", "read.p99 > 5ms" },
      { 2, "is not a share", good, good, "--noise", "2" },
      { 2, "--force takes no value", good, good, "--force=yes" },
      { 1, "No such file", good, good, "--json", support.path("no/where") },
      { 1, "", good, support.path("") },
    }) do
      local status, out, err = verb(compare.main, (unpack or table.unpack)(case, 3))
      assert.are.equal(case[1], status, err)
      assert.are.equal("", out)
      assert.is_true(one_line(err), err)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end
  end)
end)

describe("a result of another version", function()
  support.setup()

  it("is named with both versions by every verb that reads it", function()
    local good = made.document({ seconds = 2 })
    local path, other = support.path("a.json"), support.path("b.json")
    support.put(path, result.encode(good))
    support.put(other, (result.encode(good):gsub("jdbfs.run/1", "jdbfs.run/9", 1)))
    for _, words in ipairs({ { "compare", path, other }, { "compare", other, path },
      { "report", other, "-o", support.path("r.html") } }) do
      local status, out, err = command((unpack or table.unpack)(words))
      assert.are.equal(2, status, err)
      assert.are.equal("", out)
      assert.is_true(one_line(err), err)
      assert.is_truthy(err:find("b.json has the schema jdbfs.run/9, and this jdbfs reads", 1, true),
        err)
    end
    assert.is_nil(support.get(support.path("r.html")))
  end)
end)

-- Somewhere in a document one value becomes another.
local function damage(document, draw)
  local values = { "x", 1, -1, 0, true, {}, { 1 }, { a = 1 }, 1e300, 0.5, json.null }
  local at = document
  for _ = 1, 7 do
    local keys = {}
    for key in pairs(at) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    if #keys == 0 then return end
    local key = keys[math.floor(draw() * #keys) + 1]
    if type(at[key]) ~= "table" or draw() > 0.85 then
      at[key] = values[math.floor(draw() * #values) + 1]
      return
    end
    at = at[key]
  end
end

describe("a damaged result", function()
  it("is refused with a reason or can be shown, whatever the damage", function()
    local good = made.document({ seconds = 2, rate = 60, open = true })
    good.thresholds = { { expr = "errors == 0", ok = true, value = 0, low = 0, high = 1 } }
    local text, draw, accepted, refused = result.encode(good), made.random(17), 0, 0
    for _ = 1, 200 do
      local document = result.decode(text)
      damage(document, draw)
      local again, message = result.decode(result.encode(document))
      if again then
        accepted = accepted + 1
        screen.summary(again, { height = 24 })
        html.page({ again })
        compare.run(again, good, { force = true, resamples = 5 })
        result.csv(again)
        result.hgrms(again)
      else
        refused = refused + 1
        assert.is_true(type(message) == "string" and not message:find("\n"))
      end
    end
    assert.is_true(accepted > 50 and refused > 50, accepted .. " " .. refused)
  end)
end)

describe("jdbfs report", function()
  support.setup()

  it("makes a page, a table of intervals or a histogram, after the name", function()
    local file = save("run.json", made.document({ seconds = 4 }))
    for name, text in pairs({ ["a.html"] = "<!DOCTYPE html>", ["a.csv"] = "t_s,job,op",
      ["a.svg"] = '<svg xmlns="http://www.w3.org/2000/svg"',
      ["a.ndjson"] = '{"t_s":1', ["a.hgrm"] = "Value" }) do
      local path = support.path(name)
      local status, out, err = verb(report.main, file, "-o", path)
      assert.are.equal(0, status, err)
      assert.are.equal("", out .. err)
      assert.is_truthy(support.get(path):find(text, 1, true), name)
    end
    local status, out = verb(report.main, file, file, "--output=-")
    assert.are.equal(0, status)
    assert.is_truthy(out:find("2 runs", 1, true))
  end)

  it("replaces no file unless told to", function()
    local file, path = save("run.json", made.document({ seconds = 4 })), support.path("a.html")
    support.put(path, "mine")
    local status, _, err = verb(report.main, file, "-o", path)
    assert.are.equal(2, status)
    assert.is_true(one_line(err))
    assert.are.equal("mine", support.get(path))
    assert.are.equal(0, (verb(report.main, file, "-o", path, "--overwrite")))
    assert.are_not.equal("mine", support.get(path))
  end)

  it("removes nothing that was there when it cannot be written", function()
    if not lfs.attributes("/dev/full") then return pending("there is no /dev/full") end
    local file = save("run.json", made.document({ seconds = 4 }))
    local link = support.path("link.html")
    support.sh("ln -s /dev/full " .. support.quote(link))
    local status, _, err = verb(report.main, file, "-o", link, "--overwrite")
    assert.are.equal(1, status)
    assert.matches("No space left", err)
    assert.are.equal("link", lfs.symlinkattributes(link, "mode"))
    status, _, err = verb(compare.main, file, file, "--json", link)
    assert.are.equal(1, status)
    assert.matches("No space left", err)
  end)

  it("refuses bad input with one sentence, its exit status, and no file", function()
    local file, path = save("run.json", made.document({ seconds = 4 })), support.path("a.html")
    for _, case in ipairs({
      { 2, "report takes results", file }, { 2, "report takes results", "-o", path },
      { 1, "No such file", support.path("none"), "-o", path },
      { 2, "is not JSON", path:gsub("a%.html", "text"), "-o", path },
      { 2, "ends in none of", file, "-o", support.path("a.pdf") },
      { 2, "one result", file, file, "-o", support.path("a.csv") },
      { 1, "No such file", file, "-o", support.path("no/a.html") },
    }) do
      support.put(support.path("text"), "hello")
      local words = {}
      for i = 3, #case do
        if type(case[i]) == "string" then words[#words + 1] = case[i] end
      end
      local status, out, err = verb(report.main, (unpack or table.unpack)(words))
      assert.are.equal(case[1], status, err)
      assert.are.equal("", out)
      assert.is_true(one_line(err), err)
      assert.is_truthy(err:find(case[2], 1, true), err)
      assert.is_nil(support.get(path))
    end
  end)
end)
