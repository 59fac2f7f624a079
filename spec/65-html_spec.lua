-- The HTML report: whole, harmless, and drawn by a browser.

local html = require("jdbfs.command.html")
local made = require("support_result")
local result = require("jdbfs.command.result")
local support = require("support")
local threshold = require("jdbfs.command.threshold")

local VOID = { meta = true, hr = true, br = true }

-- Raises where a tag is not closed in order; gives how often each was opened.
local function check_tags(page)
  local stack, counts = {}, {}
  page = page:gsub("^<!DOCTYPE html>", ""):gsub("<style>.-</style>", "")
    :gsub("<script[^>]*>.-</script>", "")
  for slash, name, rest in page:gmatch("<(/?)(%w+)([^<>]*)>") do
    if slash == "/" then
      local open = table.remove(stack)
      assert(open == name, ("</%s> closes <%s>"):format(name, tostring(open)))
    elseif not VOID[name] and rest:sub(-1) ~= "/" then
      stack[#stack + 1] = name
      counts[name] = (counts[name] or 0) + 1
    end
  end
  assert(#stack == 0, "never closed: " .. table.concat(stack, " "))
  -- Every < and > belongs to a tag.
  assert(not page:gsub("</?%w+[^<>]*>", ""):find("[<>]"))
  return counts
end

local function stalled()
  local document = made.document({ seconds = 12, warmup = 2, stall_at = 7, open = true })
  threshold.check({ "read.p99 < 5ms", "errors == 0" }, document)
  document.exit = 3
  return document
end

describe("the HTML report", function()
  support.setup()

  it("is one whole page with tables and four charts", function()
    local page = html.page({ stalled() })
    local counts = check_tags(page)
    assert.are.equal(4, counts.svg)
    for _, needed in ipairs({ "jdbfs run randread --time 12s", "✗ failed", "✓ met",
      "response, from due", ">service<", "threshold failed", "warm-up, in no figure",
      "Operations per second", "Percentiles of the whole run", "client.group", "1.20k/s" }) do
      assert.is_truthy(page:find(needed, 1, true), needed)
    end
  end)

  it("runs no script and asks the network for nothing", function()
    local page = html.page({ stalled() })
    for block in page:gmatch("<script([^>]*)>") do
      assert.are.equal(' type="application/json" id="result-1"', block)
    end
    assert.is_nil(page:find("https?:"))
    assert.is_nil(page:find("[%s\"']src%s*=") or page:find("href") or page:find("url%(")
      or page:find("@import") or page:find("%son%a+="))
    assert.is_truthy(page:find("default-src 'none'; style-src 'unsafe-inline'", 1, true))
  end)

  it("holds the document itself, to the last digit", function()
    local document = stalled()
    document.argv[4] = "</script><b>&"
    local text = html.page({ document }):match('<script[^>]*>(.-)</script>')
    assert.are.equal(made.dump(document), made.dump(assert(result.decode(text))))
  end)

  it("lets no text of the result become markup", function()
    local document = stalled()
    local evil = '<img src="x" onerror=1>&\0\255'
    document.argv, document.warnings, document.error = { evil }, { evil }, evil
    document.jobs[1].name, document.jobs[1].ops[1].name = evil, evil
    document.notes, document.plan = { { evil, evil } }, { workload = evil, target = evil }
    document.thresholds[1].expr = evil
    document.env = { [evil] = evil, lua = { evil } }
    for _, interval in ipairs(document.intervals) do interval.job, interval.op = evil, evil end
    local page = html.page({ document, document })
    check_tags(page)
    assert.is_nil(page:find("<img"))
    assert.is_truthy(page:find("&lt;img src=&quot;x&quot; onerror=1&gt;&amp;??", 1, true))
  end)

  it("puts several runs beside each other", function()
    local page = html.page({ stalled(), made.document({ seconds = 12, seed = 2 }) })
    local counts = check_tags(page)
    assert.are.equal(9, counts.svg)
    assert.is_truthy(page:find("2 runs", 1, true))
    assert.is_truthy(page:find('id="result-2"', 1, true))
  end)

  it("draws what there is of a run that measured little or nothing", function()
    local document = stalled()
    document.intervals, document.exit, document.error = {}, 130, "interrupted"
    assert.are.equal(1, check_tags(html.page({ document })).svg)
    document.jobs[1].ops[1] = { name = "read", n = 0, bytes = 0, errors = { EIO = 5 },
      response = made.dist({}), service = made.dist({}) }
    local page = html.page({ document })
    assert.is_nil(check_tags(page).svg)
    assert.is_truthy(page:find("interrupted", 1, true))
    document.jobs, document.trust, document.env, document.plan = {}, nil, nil, nil
    document.tool, document.notes, document.thresholds, document.argv = nil, nil, nil, nil
    check_tags(html.page({ document }))
  end)

  it("has no number in its charts that is not one", function()
    local document = stalled()
    for _, interval in ipairs(document.intervals) do
      interval.n, interval.response = 5, made.dist({ 7, 7, 7, 7, 7 })
    end
    document.jobs[1].ops[1].response = made.dist({ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
      0, 0, 0, 0, 0, 0 })
    local page = html.page({ document }):gsub("<script.-</script>", "")
    check_tags(page)
    assert.is_nil(page:find("[^%w]nan[^%w]") or page:find("[^%w]inf[^%w]"))
  end)

  it("is drawn by a browser, light and dark, without a complaint", function()
    local why = support.lacks("chromium", "timeout")
    if why then return pending(why) end
    if os.getenv("JDBFS_BACKEND") == "io_uring" then
      return pending("the browser is asked in the runs on threads only")
    end
    local path = support.path("report.html")
    support.put(path, html.page({ stalled() }))
    local pictures = {}
    for i, dark in ipairs({ 1, 0 }) do -- as the browser's setting counts: 0 is dark
      local picture = support.path(i .. ".png")
      local status, out = support.sh(("cd %s && HOME=$PWD env -u LD_PRELOAD timeout 120"
        .. " chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        .. " --disable-background-networking --disable-component-update --disable-sync"
        .. " --user-data-dir=profile%d --enable-logging=stderr"
        .. " --host-resolver-rules='MAP * ~NOTFOUND' --blink-settings=preferredColorScheme=%d"
        .. " --window-size=1200,1600 --screenshot=%d.png report.html")
        :format(support.quote(path:match("(.*)/")), i, dark, i))
      assert.are.equal(0, status, out)
      assert.is_nil(out:find("CONSOLE", 1, true), out)
      pictures[i] = assert(support.get(picture), out)
      assert.are.equal("\137PNG", pictures[i]:sub(1, 4))
      assert.is_true(#pictures[i] > 40000, #pictures[i] .. " bytes: the page is nearly empty")
    end
    assert.is_true(pictures[1] ~= pictures[2], "light and dark look the same")
  end)
end)
