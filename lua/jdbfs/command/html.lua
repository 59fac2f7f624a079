-- One self-contained HTML page about one result or several: tables, charts and the documents
-- themselves. It runs no script and asks the network for nothing; its policy forbids both.

local charts = require("jdbfs.command.html_charts")
local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local result = require("jdbfs.command.result")
local screen = require("jdbfs.command.screen")
local svg = require("jdbfs.command.svg")

local escape = svg.escape
local concat, sort = table.concat, table.sort
local ipairs, pairs, tostring, type = ipairs, pairs, tostring, type

local CHARTS_OPEN = 1 -- operations whose charts are shown at once; those of others unfold
local CURVES_MAX = 5 -- runs in one chart, as many as there are colours

local STYLE = [[
:root{color-scheme:light dark;--page:#f6f6f4;--card:#fff;--ink:#17171a;--soft:#55555c;
--faint:#8a8a92;--rule:#e4e4e0;--warm:#8a8a9222;--good:#0a7d43;--bad:#c62f2f;
--warn:#8a5a00;--warnbg:#fff4d6;
--s1:#2a6fdb;--s2:#d9591c;--s3:#a3298f;--s4:#12856b;--s5:#7a6a00}
@media(prefers-color-scheme:dark){:root{--page:#121214;--card:#1c1c20;--ink:#ececf0;--soft:#b4b4bd;
--faint:#85858f;--rule:#303036;--warm:#85858f26;--good:#4fce8c;--bad:#ff7b72;--warn:#f0c25a;
--warnbg:#3a2f10;--s1:#6aa5ff;--s2:#ff9257;--s3:#e07fd2;--s4:#46c9a8;--s5:#d1bf4a}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,
"Segoe UI","DejaVu Sans",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:22px;margin:0 0 2px}h2{font-size:17px;margin:34px 0 8px}
h3{font-size:14px;margin:0 0 4px;font-weight:600}
code,pre{font:13px/1.45 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.soft{color:var(--soft)}.good{color:var(--good)}.bad{color:var(--bad)}.num{text-align:right;
font-variant-numeric:tabular-nums;white-space:nowrap}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(122px,1fr));gap:10px;margin:16px 0}
.fact,.chart,.wide{background:var(--card);border:1px solid var(--rule);border-radius:8px;
padding:10px 14px}.fact b{display:block;font-size:20px;font-weight:600;white-space:nowrap}
.fact span{color:var(--soft);
font-size:13px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(440px,100%),1fr));gap:12px;
margin:12px 0}
.wide{overflow-x:auto;margin:8px 0}table{border-collapse:collapse;width:100%}
th{font-weight:600;color:var(--soft);font-size:13px;text-align:left}
th,td{padding:4px 14px 4px 0;border-bottom:1px solid var(--rule)}tr:last-child td{border-bottom:0}
.warning{background:var(--warnbg);color:var(--warn);border-radius:8px;padding:8px 14px;margin:8px 0}
.badge{font-size:13px;font-weight:600;border:1px solid;border-radius:99px;padding:1px 10px;
margin-left:8px;vertical-align:2px;white-space:nowrap}
svg{display:block;width:100%;height:auto}svg text{font-size:12px;fill:var(--soft)}
.grid{stroke:var(--rule)}.axis{stroke:var(--faint)}.warm{fill:var(--warm)}.heat{fill:var(--s1)}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.spot{fill-opacity:0}
.spot:hover{fill-opacity:1}
.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}.line.s3{stroke:var(--s3)}
.line.s4{stroke:var(--s4)}.line.s5{stroke:var(--s5)}.spot.s1,svg .t1{fill:var(--s1)}
.spot.s2,svg .t2{fill:var(--s2)}.spot.s3,svg .t3{fill:var(--s3)}.spot.s4,svg .t4{fill:var(--s4)}
.spot.s5,svg .t5{fill:var(--s5)}.key{font-size:13px;margin:0 14px 0 0;white-space:nowrap}
.key i{display:inline-block;width:14px;height:3px;margin:0 6px 4px 0;border-radius:2px}
.k1{background:var(--s1)}.k2{background:var(--s2)}.k3{background:var(--s3)}.k4{background:var(--s4)}
.k5{background:var(--s5)}summary{cursor:pointer;margin:10px 0}
@media print{body{background:#fff}details{display:block}}
]]

-- Pieces -----------------------------------------------------------------------------------------

-- A row of cells; a cell that is a table is { text, class }, a text is escaped.
local function row(cells, tag)
  local parts = {}
  for i, cell in ipairs(cells) do
    local text, class = cell, nil
    if type(cell) == "table" then text, class = cell[1], cell[2] end
    parts[i] = ("<%s%s>%s</%s>"):format(tag or "td", class and (' class="%s"'):format(class) or "",
      escape(text), tag or "td")
  end
  return "<tr>" .. concat(parts) .. "</tr>"
end

local function html_table(heads, rows)
  local head = #heads > 0 and row(heads, "th") or ""
  return '<div class="wide"><table>' .. head .. concat(rows) .. "</table></div>"
end

local function numbers(texts)
  local cells = {}
  for i, text in ipairs(texts) do
    cells[i] = { text, "num" }
  end
  return cells
end

local function verdict(document)
  local exit = document.exit or 0
  if exit == 0 then return "good", "ok" end
  local words = { [2] = "refused", [3] = "threshold failed", [4] = "verification failed",
    [130] = "interrupted" }
  return "bad", words[exit] or "error"
end

-- Tables -----------------------------------------------------------------------------------------

local PERCENTS = { 50, 90, 99, 99.9, 99.99 }

local function latency_cells(dist)
  local texts = {}
  for i, percent in ipairs(PERCENTS) do
    texts[i] = format.duration(distribution.percentile(dist, percent))
  end
  texts[#texts + 1] = format.duration(distribution.largest(dist))
  return numbers(texts)
end

local function operation_rows(document)
  local rows = {}
  for _, entry in ipairs(result.operations(document)) do
    local first = { entry.label, { format.rate(entry.rate), "num" },
      { (entry.op.bytes or 0) > 0 and format.throughput(entry.bytes_s) or "", "num" } }
    local same = distribution.are_equal(entry.op.response, entry.op.service)
    for _, latency in ipairs({ "response", "service" }) do
      if entry.op[latency] and not (same and latency == "service") then
        local cells = first or { "", "", "" }
        cells[4] = same and "response = service"
          or latency == "response" and entry.job.offered and "response, from due" or latency
        for _, cell in ipairs(latency_cells(entry.op[latency])) do
          cells[#cells + 1] = cell
        end
        if not first then
          cells[#cells + 1], cells[#cells + 2] = "", ""
        else
          cells[#cells + 1] = { format.count(entry.op.n), "num" }
          cells[#cells + 1] = { format.count(entry.errors),
            entry.errors > 0 and "num bad" or "num" }
        end
        rows[#rows + 1] = row(cells)
        first = nil
      end
    end
    if first then rows[#rows + 1] = row(first) end
  end
  return rows
end

local function operations_table(document)
  local heads = { "", { "ops/s", "num" }, { "bytes/s", "num" }, "latency" }
  for _, percent in ipairs(PERCENTS) do
    heads[#heads + 1] = { ("p%g"):format(percent), "num" }
  end
  for _, head in ipairs({ "max", "samples", "errors" }) do
    heads[#heads + 1] = { head, "num" }
  end
  return html_table(heads, operation_rows(document))
end

local function thresholds_table(document)
  local rows = {}
  for i, entry in ipairs(document.thresholds or {}) do
    local bounds = entry.low and entry.high and ("%s to %s"):format(format.duration(entry.low),
      format.duration(entry.high)) or ""
    rows[i] = row({ { entry.ok and "✓ met" or "✗ failed", entry.ok and "good" or "bad" },
      entry.expr, { entry.reason or screen.value_text(entry), "num" }, { bounds, "num" } })
  end
  if #rows == 0 then return "" end
  return "<h2>Thresholds</h2>" .. html_table({ "", "threshold", { "measured", "num" },
    { "95 % interval", "num" } }, rows)
end

local function flat(value)
  if type(value) == "number" and value % 1 ~= 0 then return ("%.4g"):format(value) end
  if type(value) ~= "table" then return tostring(value) end
  local parts = {}
  if value[1] ~= nil then
    for i, each in ipairs(value) do
      parts[i] = flat(each)
    end
    return concat(parts, "; ")
  end
  for name, each in pairs(value) do
    parts[#parts + 1] = ("%s %s"):format(tostring(name), flat(each))
  end
  sort(parts)
  return concat(parts, ", ")
end

local function facts_rows(fields)
  local names, rows = {}, {}
  for name in pairs(fields or {}) do
    names[#names + 1] = tostring(name)
  end
  sort(names)
  for _, name in ipairs(names) do
    rows[#rows + 1] = row({ name, flat(fields[name]) })
  end
  return rows
end

local function facts_table(title, fields)
  local rows = facts_rows(fields)
  if #rows == 0 then return "" end
  return ("<h2>%s</h2>%s"):format(title, html_table({}, rows))
end

-- What the trust part's fields mean, as far as a run has them.
local TRUST = {
  { "cpu_s_per_mop", "CPU per operation, of the whole process",
    function(s) return format.duration(s * 1e3) end },
  { "cores", "cores used", "%.2f" },
  { "enters_per_op", "kernel entries per operation", "%.3g" },
  { "submit_batch", "operations of one kernel entry, mean", "%.1f" },
  { "reap_batch", "completions of one look, mean", "%.1f" },
  { "lag_p99_ns", "from completion to its coroutine, p99", format.duration },
  { "gc_share", "time of the garbage collector, an estimate",
    function(share) return ("%.1f %%"):format(share * 100) end },
  { "device_over_asked", "bytes of the device over bytes asked for", "%.2f" },
  { "generator_limited", "the generator was the limit",
    function(limited) return limited and "yes" or "no" end },
}

local function trust_table(trust)
  local rows = {}
  for _, field in ipairs(TRUST) do
    local value, show = trust and trust[field[1]], field[3]
    if value ~= nil then
      rows[#rows + 1] = row({ field[2], { type(show) == "string" and show:format(value)
        or show(value), "num" } })
    end
  end
  if #rows == 0 then return "" end
  return "<h2>Trust</h2>" .. html_table({}, rows)
end

local function counters_table(document)
  local rows = {}
  for _, job in ipairs(document.jobs) do
    for _, each in ipairs(job.counters or {}) do
      rows[#rows + 1] = row({ job.name .. "." .. each.name, { format.count(each.n), "num" },
        { format.count(each.n > 0 and each.sum / each.n or nil), "num" },
        { format.count(each.min), "num" }, { format.count(each.max), "num" },
        { format.count(each.sum), "num" } })
    end
  end
  for _, note in ipairs(document.notes or {}) do
    rows[#rows + 1] = row({ note[1], "", { type(note[2]) == "number" and format.count(note[2])
      or flat(note[2]), "num" }, "", "", "" })
  end
  if #rows == 0 then return "" end
  return "<h2>Counters and notes</h2>" .. html_table({ "", { "samples", "num" }, { "mean", "num" },
    { "min", "num" }, { "max", "num" }, { "sum", "num" } }, rows)
end

-- The page ---------------------------------------------------------------------------------------

local function fact(name, value)
  return ('<div class="fact"><b>%s</b><span>%s</span></div>'):format(escape(value), escape(name))
end

local function facts(document)
  local entry, parts = result.headline(document), {}
  if entry then
    parts[1] = fact(entry.label .. " per second", format.count(entry.rate))
    if (entry.op.bytes or 0) > 0 then
      parts[2] = fact("throughput", format.throughput(entry.bytes_s))
    end
    for _, percent in ipairs({ 50, 99 }) do
      local dist = entry.op.response or entry.op.service
      parts[#parts + 1] = fact(("p%d %s"):format(percent, entry.op.response and "response"
        or "service"), format.duration(distribution.percentile(dist, percent)))
    end
    parts[#parts + 1] = fact("max", format.duration(distribution.largest(entry.op.response
      or entry.op.service)))
  end
  local trust = document.trust or {}
  if trust.cpu_s_per_mop then
    parts[#parts + 1] = fact("CPU per operation", format.duration(trust.cpu_s_per_mop * 1e3))
  end
  if trust.device_over_asked then
    parts[#parts + 1] = fact("device bytes / asked", ("%.2f"):format(trust.device_over_asked))
  end
  return '<div class="facts">' .. concat(parts) .. "</div>"
end

local function rate_notes(document)
  local parts = {}
  for _, job in ipairs(document.jobs) do
    if job.offered then
      parts[#parts + 1] = ('<p class="%s">%s: offered %s, achieved %s, backlog at most %s%s</p>')
        :format(job.sustained == false and "bad" or "soft", escape(job.name),
        format.rate(job.offered), format.rate(job.achieved), format.count(job.backlog_max),
        job.sustained == false and (" – <b>rate not sustained</b>, %s late at the end"):format(
        format.count(job.late_at_end)) or "; sustained")
    end
  end
  return concat(parts)
end

local function warnings(document)
  local parts = {}
  local function add(text)
    parts[#parts + 1] = ('<div class="warning">%s</div>'):format(escape(text))
  end
  if document.error then add("error: " .. document.error) end
  if (document.trust or {}).generator_limited then
    add("The generator itself was the limit: these are not the device's figures.")
  end
  for _, warning in ipairs(document.warnings or {}) do
    add(warning)
  end
  return concat(parts)
end

-- In a data block nothing but its end tag is special.
local function raw(document, place)
  return ('<script type="application/json" id="result-%d">%s</script>'):format(place,
    (result.encode(document):gsub("<", "\\u003c")))
end

local function section(document, place, title)
  local class, word = verdict(document)
  local parts = { ('<section><h1>%s<span class="badge %s">%s</span></h1>'):format(escape(title),
    class, word), "<p><code>" .. escape(result.command_line(document)) .. "</code></p>",
    '<p class="soft">' .. escape(concat(result.target_words(document), " · ")) .. "</p>",
        warnings(document), facts(document), rate_notes(document), thresholds_table(document),
    "<h2>Operations</h2>", operations_table(document) }
  local shown = 0
  for _, entry in ipairs(result.operations(document)) do
    local drawn = entry.op.n > 0 and charts.of_operation(document, entry) or ""
    if drawn ~= "" then
      shown = shown + 1
      parts[#parts + 1] = shown <= CHARTS_OPEN and ("<h2>%s</h2>%s"):format(escape(entry.label),
        drawn) or ("<details><summary>Charts of %s</summary>%s</details>"):format(
        escape(entry.label), drawn)
    end
  end
  parts[#parts + 1] = counters_table(document)
  parts[#parts + 1] = trust_table(document.trust)
  parts[#parts + 1] = "<details><summary>Plan and environment</summary>"
    .. facts_table("Plan", document.plan) .. facts_table("Environment", document.env)
    .. "</details>"
  parts[#parts + 1] = raw(document, place) .. "</section>"
  return concat(parts)
end

local function overview(documents)
  local rows, named = {}, {}
  for i, document in ipairs(documents) do
    local entry, class, word = result.headline(document), verdict(document)
    local dist = entry and (entry.op.response or entry.op.service)
    local cells = { ("%d. %s"):format(i, result.command_line(document)), { word, class },
      entry and entry.label or "", { format.rate(entry and entry.rate), "num" } }
    for _, cell in ipairs(latency_cells(dist)) do
      cells[#cells + 1] = cell
    end
    rows[i] = row(cells)
    if dist and dist.n >= distribution.samples_needed(50) and #named < CURVES_MAX then
      named[#named + 1] = { "run " .. i, dist }
    end
  end
  local heads = { "run", "", "", { "ops/s", "num" } }
  for _, percent in ipairs(PERCENTS) do
    heads[#heads + 1] = { ("p%g"):format(percent), "num" }
  end
  heads[#heads + 1] = { "max", "num" }
  return "<h1>" .. #documents .. " runs</h1>" .. html_table(heads, rows)
    .. (#named > 1 and '<div class="charts">' .. charts.curves("Percentiles of all runs", named)
    .. "</div>" or "") .. "<hr>"
end

local function title_of(document)
  local plan = document.plan or {}
  return "jdbfs " .. tostring(plan.workload or "run")
end

-- The page about a list of documents, as text.
local function page(documents)
  local parts = { "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
    '<meta name="viewport" content="width=device-width,initial-scale=1">',
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; ",
    "style-src 'unsafe-inline'\">", "<title>", escape(title_of(documents[1])), "</title><style>",
    STYLE, "</style></head><body><main>\n" }
  if #documents > 1 then parts[#parts + 1] = overview(documents) end
  for i, document in ipairs(documents) do
    parts[#parts + 1] = section(document, i, (#documents > 1 and i .. ". " or "")
      .. title_of(document))
  end
  local tool = documents[1].tool or {}
  parts[#parts + 1] = ('\n<p class="soft">jdbfs %s. A percentile is shown only with ten samples '
    .. 'above it. Response is measured from the moment an operation was due, service from its '
    .. 'submission.</p></main></body></html>\n'):format(escape(tool.version or ""))
  return concat(parts)
end

return {
  page = page,
}
