-- Result documents: as text and back, judged by thresholds, shown on a terminal.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local json = require("jdbfs.command.json")
local made = require("support_result")
local result = require("jdbfs.command.result")
local screen = require("jdbfs.command.screen")
local threshold = require("jdbfs.command.threshold")

local function lines_of(text)
  local lines = {}
  for line in text:gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
  return lines
end

describe("JSON of the command", function()
  it("keeps whole numbers to the last digit and writes them without an exponent", function()
    assert.are.equal("[9007199254740991,-9007199254740991,0,0,1000000000000]",
      json.encode({ 2 ^ 53 - 1, 1 - 2 ^ 53, 0, -0.0, 1e12 }))
    assert.are.equal("9007199254740991", ("%.0f"):format(json.decode("9007199254740991")))
  end)

  it("keeps fractions", function()
    for _, value in ipairs({ 0.1, 1 / 3, 2.5e-9, 1e300, -123456.789 }) do
      assert.are.equal(value, json.decode(json.encode(value)))
    end
  end)

  it("has null for what is no number", function()
    assert.are.equal("[null,null,null]", json.encode({ 0 / 0, 1 / 0, -1 / 0 }))
    assert.are.equal("{}", made.dump(json.decode('{"a":null}')))
    assert.are.equal(json.null, json.decode("[null]")[1])
  end)

  it("escapes texts and reads them back", function()
    local text = 'a"b\\c\n\t\0\1\127é€𝄞'
    assert.are.equal(text, json.decode(json.encode(text)))
    assert.are.equal('"\\u00ff\\u0041"', json.encode("\255"):gsub('"$', '\\u0041"'))
    assert.are.equal("é€𝄞/", json.decode('"\\u00e9\\u20AC\\ud834\\udd1e\\/"'))
  end)

  it("writes the same keys in the same order", function()
    local style = { rank = { b = 1, a = 2 }, objects = { b = true } }
    assert.are.equal('{"b":{},"a":[],"x":1,"y":2}', json.encode({ y = 2, x = 1, a = {}, b = {} },
      style))
  end)

  it("is of what JSON has, and of a text", function()
    assert.has_error(function() json.encode({ print }) end)
    assert.has_error(function() json.decode({}) end)
  end)

  it("tells the line of what it cannot read", function()
    for text, message in pairs({
      [""] = "line 1: the text ends too early", ["[1,\n2"] = "line 2: no comma or ]",
      ["[1,]"] = "line 1: no JSON value", ["{a:1}"] = "line 1: no key", ['{"a" 1}'] = "no colon",
      ["01"] = "no JSON value", ["1."] = "no JSON value", ["-"] = "no JSON value",
      ["+1"] = "no JSON value", [".5"] = "no JSON value", ["0x10"] = "follows the JSON value",
      ['"\\x"'] = "unknown escape", ['"\\ud834"'] = "surrogate", ['"\\u12"'] = "hexadecimal",
      ['"a'] = "has no end", ['"\n"'] = "control character", ["nul"] = "no JSON value",
      ["1 2"] = "something follows", [("["):rep(1000)] = "too deeply", ["{\"a\":1,}"] = "no key",
      ['{"a":1 2}'] = "no comma or }",
    }) do
      local value, reason = json.decode(text)
      assert.is_nil(value, text)
      assert.is_truthy(reason:find(message, 1, true), text .. ": " .. tostring(reason))
    end
  end)
end)

describe("the percentile of a distribution", function()
  it("is exact to half a bucket", function()
    local list = {}
    for i = 1, 100000 do list[i] = i * 100 end
    local dist = made.dist(list)
    for _, percent in ipairs({ 50, 90, 99, 99.9, 99.99 }) do
      local exact = percent * 1e5
      assert.is_true(math.abs(distribution.percentile(dist, percent) / exact - 1) < 0.004, percent)
    end
  end)

  it("is the smallest value with that share at or below it", function()
    local list = {}
    for i = 1, 100 do list[i] = i end
    assert.are.equal(50, distribution.percentile(made.dist(list), 50))
    assert.are.equal(90, distribution.percentile(made.dist(list), 90))
    for i = 101, 10000 do list[i] = 200 end
    assert.are.equal(1, distribution.percentile(made.dist(list), 0.01))
  end)

  it("is told only with ten samples above it", function()
    local list = {}
    for i = 1, 999 do list[i] = 1000 end
    assert.is_nil(distribution.percentile(made.dist(list), 99))
    assert.is_nil(distribution.interval(made.dist(list), 99))
    list[1000] = 1000
    assert.are.equal(1000, distribution.percentile(made.dist(list), 99))
    assert.is_nil(distribution.percentile(made.dist(list), 99.9))
    assert.are.equal(10000, distribution.samples_needed(99.9))
    assert.are.equal(1000000, distribution.samples_needed(99.999))
    assert.is_nil(distribution.percentile(nil, 50))
  end)

  it("lies in its 95 % interval about 19 times in 20", function()
    -- The p90 of numbers spread evenly over 0 to 1e6 is 900 000.
    local draw, inside = made.random(5), 0
    for _ = 1, 200 do
      local list = {}
      for i = 1, 400 do list[i] = math.floor(draw() * 1e6) end
      local low, high = distribution.interval(made.dist(list), 90)
      if low <= 903600 and high >= 896400 then inside = inside + 1 end
    end
    assert.is_true(inside >= 182 and inside <= 200, inside)
    local low, high = distribution.interval(made.dist(made.samples({ n = 4000, middle = 1e6 })), 50)
    assert.is_true(high > low and high < low * 1.2)
  end)

  it("stays the same when the samples come in two halves", function()
    local list = made.samples({ n = 4000, middle = 3e5 })
    local first, second = {}, {}
    for i, ns in ipairs(list) do
      local half = i % 3 == 0 and first or second
      half[#half + 1] = ns
    end
    assert.are.equal(made.dump(made.dist(list)),
      made.dump(distribution.merge({ made.dist(first), made.dist({}), made.dist(second) })))
  end)
end)

describe("a result document", function()
  it("comes back from its text unchanged", function()
    local document = made.document({ open = true })
    local text = result.encode(document)
    local again = assert(result.decode(text))
    assert.are.equal(made.dump(document), made.dump(again))
    assert.are.equal(text, result.encode(again))
    assert.are.equal('{"schema":"jdbfs.run/1","tool":{"name":"jdbfs","version":"0.1.0"},"argv":',
      text:sub(1, 73))
  end)

  it("of another version, cut short or damaged is refused with a reason", function()
    local text = result.encode(made.document())
    for _, case in ipairs({
      { text:gsub("jdbfs.run/1", "jdbfs.run/2", 1), "schema jdbfs.run/2, and this jdbfs reads" },
      { text:sub(1, -200), "is not JSON: line 1" },
      { "[]", "is not a result of jdbfs" }, { "7", "is not a result of jdbfs" },
      { '{"schema":"jdbfs.run/1"}', "document.jobs is missing" },
      { text:gsub('"elapsed_s":8', '"elapsed_s":"8"', 1), "jobs[1].elapsed_s is a string" },
      { text:gsub('"response":{"n":%d+', '"response":{"n":[]', 1), ".n is a table" },
    }) do
      local document, message = result.decode(case[1])
      assert.is_nil(document)
      assert.is_truthy(message:find(type(case[2]) == "string" and case[2] or case[3], 1, true),
        message)
    end
  end)

  it("takes no field that it does not have", function()
    assert.has_error(function() result.new({ job = {}, warmings = {} }) end)
  end)

  it("gives a CSV row per interval, empty where samples are missing", function()
    local document = made.document({ seconds = 3, warmup = 1, open = true })
    document.intervals[2].job = 'a "b", c'
    document.intervals[3].response = made.dist({ 5000 })
    local rows = lines_of(result.csv(document))
    assert.are.equal("t_s,job,op,ops_s,bytes_s,p50,p90,p99,p999,max,errors,backlog,service_p50,"
      .. "service_p90,service_p99,service_p999,service_max,warmup", rows[1])
    assert.are.equal(4, #rows)
    assert.is_truthy(rows[2]:find("^1,client,read,%d+,%d+,%d+,%d+,%d+,,%d+,0,0,.*,true$"), rows[2])
    assert.is_truthy(rows[3]:find('^2,"a ""b"", c",read,'), rows[3])
    assert.is_truthy(rows[4]:find("^3,client,read,%d+%.?%d*,%d+%.?%d*,,,,,5000,0,0,"), rows[4])
    assert.is_truthy(rows[4]:find(",false$"))
  end)

  it("gives an NDJSON row per interval with the same figures", function()
    local document = made.document({ seconds = 2 })
    local rows = lines_of(result.ndjson(document))
    assert.are.equal(2, #rows)
    local row = assert(json.decode(rows[2]))
    assert.are.equal(2, row.t_s)
    assert.are.equal(document.intervals[2].n, row.ops_s)
    assert.are.equal(distribution.percentile(document.intervals[2].response, 99), row.p99)
    assert.is_nil(row.p999)
    assert.are.equal('{"t_s":2,"job":"client","op":"read",', rows[2]:sub(1, 36))
  end)

  it("gives a distribution in the text format of HdrHistogram", function()
    local text = result.hgrm(made.dist({ 1000000, 2000000, 2000000, 4000000 }))
    local rows = lines_of(text)
    assert.is_truthy(rows[1]:find("Value%s+Percentile%s+TotalCount%s+1/%(1%-Percentile%)"))
    local value, share, count, inverse = rows[4]:match("(%S+)%s+(%S+)%s+(%S+)%s+(%S+)")
    assert.is_true(math.abs(tonumber(value) - 2) < 0.01, value)
    assert.are.equal("0.750000000000 3 4.00", share .. " " .. count .. " " .. inverse)
    assert.are.equal("4.000000 1.000000000000 4", (rows[5]:gsub("^%s+", ""):gsub("%s+", " ")))
    assert.is_truthy(text:find("#[Mean    =     2.250000, StdDeviation   =     1.08", 1, true))
    assert.is_truthy(text:find("#[Max     =     4.000000, Total count    =            4]", 1, true))
    local names = {}
    for i, each in ipairs(result.hgrms(made.document())) do names[i] = each[1] end
    assert.are.equal("read.response read.service", table.concat(names, " "))
  end)
end)

describe("a threshold", function()
  local function judged(expression, document)
    local t = assert(threshold.parse(expression))
    return threshold.judge(t, document or made.document({ open = true }))
  end

  it("is met or missed by each figure of the result", function()
    for expression, ok in pairs({
      ["read.p99 < 5ms"] = true, ["read.p99 < 5us"] = false, ["client.read.p50 > 1us"] = true,
      ["read.p50.service < 200us"] = true, ["read.service.p50 > 200us"] = false,
      ["read.p50 > 200us"] = true, ["read.max < 1s"] = true, ["read.mean <= 100ns"] = false,
      ["read.min > 0ns"] = true, ["read.rate > 1k"] = true, ["read.count >= 9000"] = true,
      ["iops > 1.1k"] = true, ["iops>2k/s"] = false, ["bw > 4m"] = true, ["bw > 4MiB/s"] = true,
      ["bw > 1g"] = false, ["errors == 0"] = true, ["errors > 0"] = false, ["sustained"] = true,
      ["sustained == false"] = false, ["lag.p99 < 1ms"] = true, ["lag.p99 < 1us"] = false,
      ["group.mean > 9"] = true, ["group.max <= 16"] = true, ["group == 93"] = true,
      ["group.count == 10"] = true, ["client.group.min == 1"] = true, ["group.rate < 1"] = false,
    }) do
      local entry = judged(expression)
      assert.are.equal(ok, entry.ok, expression .. " " .. tostring(entry.reason))
      assert.is_nil(entry.reason, expression)
    end
  end)

  it("keeps value and interval of what it judged", function()
    local document = made.document()
    local entry = judged("read.p99 < 5ms", document)
    assert.are.equal(distribution.percentile(document.jobs[1].ops[1].response, 99), entry.value)
    assert.is_true(entry.low < entry.value and entry.value < entry.high)
    assert.are.equal("ns", entry.unit)
  end)

  it("without samples, or with too few, fails and says so", function()
    for expression, reason in pairs({
      ["read.p99.99 < 5s"] = "p99.99 needs 100k samples, has 9.47k",
      ["write.p50 < 5s"] = "nothing named write", ["flusher.read.p50 < 5s"] = "flusher.read",
      ["read < 5ms"] = "which figure", ["group.p50 < 1ms"] = "has no percentiles",
      ["read.max < 5"] = "needs its unit", ["group.mean < 5ms"] = "is a counter",
    }) do
      local entry = judged(expression)
      assert.is_false(entry.ok, expression)
      assert.is_truthy((entry.reason or ""):find(reason, 1, true), tostring(entry.reason))
    end
    local empty = made.document()
    empty.jobs[1].ops[1].n, empty.jobs[1].ops[1].response = 0, made.dist({})
    empty.trust.lag_p99_ns = nil
    assert.are.equal("p99 needs 1.00k samples, has 3", judged("lag.p99 < 1s", empty).reason)
    for _, expression in ipairs({ "read.p50 < 1s", "read.max < 1s", "read.rate >= 0", "iops >= 0",
      "bw >= 0", "sustained == true" }) do
      local entry = judged(expression, empty)
      assert.is_false(entry.ok, expression)
      assert.is_string(entry.reason)
    end
  end)

  it("covers all jobs unless it names one, and no name that a script timed twice", function()
    local document = made.document()
    local op = document.jobs[1].ops[1]
    document.jobs[2] = { name = "other", n = 1, elapsed_s = 8, ops = {
      { name = "read", n = 1000, bytes = 0, errors = { EIO = 3 },
        response = made.dist(made.samples({ n = 1000, middle = 1e9 })) },
      { name = "commit", timed = true, n = 50000, errors = {}, response = made.dist({}) } } }
    assert.are.equal(op.n + 1000, judged("read.count > 0", document).value)
    assert.are.equal(op.n, judged("client.read.count > 0", document).value)
    assert.is_true(judged("other.read.p50 > 500ms", document).ok)
    assert.are.equal(3, judged("errors == 0", document).value)
    assert.are.equal((op.n + 1000) / 8, judged("iops > 0", document).value)
  end)

  it("that makes no sense is refused with a reason", function()
    for expression, reason in pairs({
      [""] = "read.p99 < 5ms", ["read.p99"] = "read.p99 < 5ms", ["< 5ms"] = "read.p99 < 5ms",
      ["read.p99 <> 5ms"] = "not", ["read.p99 < 5"] = "a time with its unit",
      ["read.p99 < 5q"] = "no unit", ["read.p99 < fast"] = "a time", ["read.p100 < 5ms"] = "p100",
      ["read.p0 < 5ms"] = "p0", ["errors == 5ms"] = "without a unit", ["iops > 5ms"] = "a rate",
      ["sustained > 1"] = "== true or == false", ["a.b.c.p99 < 5ms"] = "names no figure",
      ["read.p99 < 5ms soon"] = "no unit", ["read.p99 < 5ms abort later"] = "abort after",
      ["read.p99 = 5ms"] = "is not <", ["bw > 5ms"] = "bytes per second",
      ["read.p99 == -5ms"] = "is not",
    }) do
      local t, message = threshold.parse(expression)
      assert.is_nil(t, expression)
      assert.is_truthy(message:find(reason, 1, true), expression .. ": " .. message)
    end
  end)

  it("may end a run early", function()
    assert.is_nil(threshold.parse("read.p99 < 5ms").abort_after_s)
    assert.are.equal(0, threshold.parse("read.p99 < 5ms abort").abort_after_s)
    assert.are.equal(0.5, threshold.parse("errors == 0 abort after 500ms").abort_after_s)
  end)

  it("on a figure that the run cannot have is refused before it", function()
    local names = { jobs = { "client" }, metrics = { "read" } }
    assert.is_true(threshold.known(threshold.parse("client.read.p99 < 5ms"), names))
    assert.is_true(threshold.known(threshold.parse("errors == 0"), names))
    local known, message = threshold.known(threshold.parse("write.p99 < 5ms"), names)
    assert.is_nil(known)
    assert.is_truthy(message:find('no figure "write"; there are read', 1, true), message)
    assert.is_nil((threshold.known(threshold.parse("flusher.read.p99 < 5ms"), names)))
  end)

  it("list counts what failed and fills the document", function()
    local document = made.document()
    assert.are.equal(1, threshold.check({ "errors == 0", "read.p50 < 1us" }, document))
    assert.are.equal("true false", tostring(document.thresholds[1].ok) .. " "
      .. tostring(document.thresholds[2].ok))
    assert.is_nil((threshold.check({ "what" }, document)))
    assert.is_truthy(result.encode(document):find('{"expr":"errors == 0","ok":true,"value":0,', 1,
      true))
  end)
end)

describe("the summary", function()
  local function full_document()
    local document = made.document({ seconds = 20, warmup = 1, stall_at = 9, open = true })
    threshold.check({ "client.read.p99 < 5ms", "errors == 0", "read.p50.service < 1ms" }, document)
    document.exit, document.warnings = 3, { "2 cpus: generator and interrupts share cores" }
    return document
  end

  it("fits a screen of 80 by 24 with both latencies, plots, thresholds and the exit", function()
    local text = screen.summary(full_document(), { width = 80, height = 24 })
    local lines = lines_of(text)
    assert.is_true(#lines <= 23, #lines .. " lines:\n" .. text)
    for _, line in ipairs(lines) do
      assert.is_true(format.columns(line) <= 80, line)
    end
    for _, needed in ipairs({ "jdbfs run randread", "seed 1", "O_DIRECT 512/512", "service",
      "response/due", "offered 1.20k/s", "backlog max 900", "sustained", "over time",
      "percentiles", "harness  cpu 0.52 cores", "device/asked 1.02", "✗ client.read.p99 < 5ms",
      "✓ errors == 0", "! 2 cpus", "exit 3 (1 threshold failed)", "⡇" }) do
      assert.is_truthy(text:find(needed, 1, true), needed .. " is not in:\n" .. text)
    end
    assert.is_nil(text:find("\27", 1, true))
  end)

  it("has a line for each note that is a row of cells", function()
    local document = made.document({ seconds = 3 })
    document.notes = { { "plain", 7 }, { "rows by", "    4k    8k" }, { "a", "     1     –" } }
    local out = screen.summary(document, { width = 80, ascii = false })
    assert.is_truthy(out:find("\n  rows by      4k    8k\n  a             1     –\n", 1, true), out)
  end)

  it("is never wider than the terminal", function()
    for _, width in ipairs({ 40, 60, 80, 100, 120, 200 }) do
      for _, line in ipairs(lines_of(screen.summary(full_document(), { width = width }))) do
        assert.is_true(format.columns(line) <= width, line)
      end
    end
  end)

  it("is plain ASCII when asked, and coloured only when asked", function()
    local text = screen.summary(full_document(), { ascii = true })
    assert.is_nil(text:find("[\128-\255]"))
    assert.is_truthy(text:find("FAILED client.read.p99", 1, true))
    assert.is_nil(text:find("\27", 1, true))
    text = screen.summary(full_document(), { color = true })
    assert.is_truthy(text:find("\27[31m", 1, true))
    for _, line in ipairs(lines_of(text)) do
      local _, on = line:gsub("\27%[%d+m", "")
      assert.is_true(on == 0 or line:find("\27[0m", 1, true) ~= nil, line)
    end
  end)

  it("shows the stall where it happened and no percentile without samples", function()
    local text = screen.summary(full_document(), { width = 120 })
    assert.is_truthy(text:find("p99.99 needs 100k samples, has 2", 1, true))
    assert.is_truthy(text:find("read response, p99 over time", 1, true))
    -- Of 20 seconds the 9th stalled: the highest dots of the plot stand left of its middle.
    local top = text:match("([^\n]*)\n[^\n]*\n[^\n]*\n[^\n]*\n[^\n]*\n[^\n]*0ns |")
    local before = top:match("|([^\226|]*)\226")
    assert.is_true(before ~= nil and #before >= 18 and #before <= 23, top)
  end)

  it("has one line for an operation whose response is its service time", function()
    local document = full_document()
    document.jobs[1].ops[1].service = document.jobs[1].ops[1].response
    local text = screen.summary(document, { width = 120 })
    assert.is_truthy(text:find("899ms  = service\n", 1, true), text)
    assert.is_nil(text:find("response (from due time)", 1, true))
  end)

  it("plots p99 although the end cut the last interval short", function()
    local document = full_document()
    local last = document.intervals[20]
    last.t_s, last.n, last.response = 19.02, 5, made.dist({ 1, 2, 3, 4, 5 })
    assert.is_truthy(screen.summary(document, {}):find("p99 over time", 1, true))
    local series = result.series(document, "client", "read")
    assert.is_true(series[20].short and not series[19].short)
  end)

  it("says plainly that a rate was not sustained or the generator was the limit", function()
    local document = full_document()
    document.jobs[1].sustained, document.jobs[1].late_at_end = false, 12300
    document.trust.generator_limited = true
    local text = screen.summary(document, {})
    assert.is_truthy(text:find("gc 0.4% (estimate)", 1, true))
    assert.is_truthy(text:find("RATE NOT SUSTAINED", 1, true))
    assert.is_truthy(text:find("12.3k late at the end", 1, true))
    assert.is_truthy(text:find("the generator itself was the limit", 1, true))
  end)

  it("names errors by kind and shows what an interrupted run had", function()
    local document = full_document()
    document.jobs[1].ops[1].errors = { EIO = 2, ENOSPC = 1 }
    document.exit, document.error, document.thresholds = 130, "interrupted", {}
    local text = screen.summary(document, {})
    assert.is_truthy(text:find("errors: EIO x 2, ENOSPC x 1", 1, true))
    assert.is_truthy(text:find("exit 130 (interrupted)", 1, true))
    document.jobs, document.intervals = {}, {}
    assert.is_truthy(screen.summary(document, {}):find("nothing was measured", 1, true))
  end)

  it("leaves out operations, not warnings, when the screen is too small", function()
    local document = full_document()
    for i = 1, 30 do
      document.jobs[1].ops[i + 1] = { name = "op" .. i, n = 5, errors = {},
        response = made.dist({ 1, 2, 3, 4, 5 }) }
    end
    local text = screen.summary(document, { height = 24 })
    assert.is_true(#lines_of(text) <= 23, text)
    assert.is_truthy(text:find("more lines; --json has all of them", 1, true))
    assert.is_truthy(text:find("! 2 cpus", 1, true))
  end)
end)

describe("the live line", function()
  local state = { workload = "wal", phase = "run", done = 4.2, total = 20, iops = 8012,
    bytes_s = 33e6, p99_ns = 4120000, history = { 1, 4, 5, 8, 3, 8 }, left_s = 15.8 }

  local function shown(width, ascii)
    local o = { width = width, ascii = ascii }
    for key, value in pairs(state) do o[key] = value end
    return screen.live(o)
  end

  it("fits 20, 40, 80 and 200 columns and keeps what matters most", function()
    for width, needed in pairs({ [20] = "wal 21%% 8.01k/s", [40] = "p99 4.12ms",
      [80] = "▂▅▅█▄█", [200] = "▕████▎               ▏" }) do
      local line = shown(width)
      assert.is_true(format.columns(line) <= width, line)
      assert.is_truthy(line:find(needed), line)
      assert.is_nil(line:find("[%c]"))
    end
    assert.is_truthy(shown(80):find("31.5 MiB/s", 1, true))
    assert.is_truthy(shown(80):find("16s left", 1, true))
  end)

  it("has an ASCII form, and a plain one for pipes", function()
    assert.is_nil(shown(200, true):find("[\128-\255]"))
    assert.is_truthy(shown(200, true):find("[####", 1, true))
    local line = screen.plain(state)
    assert.are.equal("wal 21% 8.01k/s 31.5 MiB/s p99 4.12ms 16s left", line)
  end)

  it("lives with what is not known yet", function()
    assert.are.equal("wal warm-up", screen.live({ workload = "wal", phase = "warm-up" }))
    assert.are.equal("", screen.live({ width = 10 }))
  end)
end)

describe("numbers", function()
  it("read with three digits and their unit", function()
    local function all(f, list)
      for i, value in ipairs(list) do list[i] = f(value) end
      return table.concat(list, " ")
    end
    assert.are.equal("0ns 999ns 1.00us 170us 1.68ms 14.1ms 1.05s 99.0s 2m03s",
      all(format.duration, { 0, 999, 1000, 170000, 1.68e6, 14.06e6, 1.05e9, 99e9, 123e9 }))
    assert.are.equal("0 7 862 8.01k 71.9k 1.04M 1000k", all(format.count,
      { 0, 7, 862, 8012, 71900, 1.04e6, 999499 }):gsub("999k", "1000k"))
    assert.are.equal("512 B|4 KiB|31.3 MiB|1 GiB", table.concat({ format.bytes(512),
      format.bytes(4096), format.bytes(32.8e6), format.bytes(2 ^ 30) }, "|"))
  end)
end)
