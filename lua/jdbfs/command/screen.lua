-- What a run shows on a terminal: the live line, and the summary of a result document that fits one
-- screen. Only texts are made here; who writes them knows whether there is a terminal.

local distribution = require("jdbfs.command.distribution")
local format = require("jdbfs.command.format")
local plot = require("jdbfs.command.plot")
local plots = require("jdbfs.command.screen_plots")
local result = require("jdbfs.command.result")

local floor, huge, max, min = math.floor, math.huge, math.max, math.min
local concat = table.concat
local ipairs, tostring, type = ipairs, tostring, type

local WRAP_INDENT = 4

-- The live line ----------------------------------------------------------------------------------

local PARTIAL = { [0] = "", "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

local function bar(share, width, ascii)
  local eighths = floor(share * width * 8 + 0.5)
  if ascii then
    local full = floor(eighths / 8)
    return "[" .. ("#"):rep(full) .. (" "):rep(width - full) .. "]"
  end
  local filled = ("█"):rep(floor(eighths / 8)) .. PARTIAL[eighths % 8]
  return "▕" .. format.pad(filled, width) .. "▏"
end

-- Keeps the parts that fit, the most important first, and shows them in their order.
-- A part is { text, rank }.
local function fit(parts, width)
  local chosen, used = {}, -1
  for rank = 1, #parts do
    for i, part in ipairs(parts) do
      local columns = format.columns(part[1]) + 1
      if part[2] == rank and part[1] ~= "" and used + columns <= width then
        chosen[i], used = true, used + columns
      end
    end
  end
  local texts = {}
  for i, part in ipairs(parts) do
    if chosen[i] then texts[#texts + 1] = part[1] end
  end
  return concat(texts, " ")
end

-- o: workload, phase, done and total (seconds, or operations; total may be missing), iops, bytes_s,
-- p99_ns, history (a list of rates), left_s, width, ascii. One line, never wider than the width.
local function live(o)
  local width = o.width or 80
  local share = o.total and o.total > 0 and max(0, min(1, o.done / o.total))
  local parts = {
    { o.workload or "", 1 },
    { o.phase and o.phase ~= "run" and o.phase or "", 5 },
    { share and ("%.0f%%"):format(floor(share * 100)) or "", 2 },
    { share and not o.bare and bar(share, width >= 100 and 20 or 10, o.ascii) or "", 7 },
    { o.iops and format.rate(o.iops) or "", 3 },
    { o.bytes_s and format.throughput(o.bytes_s) or "", 8 },
    { o.p99_ns and "p99 " .. format.duration(o.p99_ns) or "", 4 },
    { o.history and plot.sparkline(o.history, width >= 100 and 20 or 10, o.ascii) or "", 9 },
    { o.left_s and ("%.0fs left"):format(max(0, o.left_s)) or "", 6 },
  }
  return format.cut(fit(parts, width), width, o.ascii and "~")
end

-- The same as a plain line for a pipe, without glyphs that only a terminal shows.
local function plain(o)
  return live({ workload = o.workload, phase = o.phase, done = o.done, total = o.total,
    iops = o.iops, bytes_s = o.bytes_s, p99_ns = o.p99_ns, left_s = o.left_s, width = huge,
    ascii = true, bare = true })
end

-- The summary: the table -------------------------------------------------------------------------

local COLUMNS = {
  { head = "p50", percent = 50, rank = 1 }, { head = "p90", percent = 90, rank = 4 },
  { head = "p99", percent = 99, rank = 0 }, { head = "p99.9", percent = 99.9, rank = 3 },
  { head = "p99.99", percent = 99.99, rank = 5 }, { head = "max", rank = 2 },
}
local CELL = 8

-- The latency columns that the width has room for, in order.
local function choose_columns(room)
  local chosen = {}
  for _, column in ipairs(COLUMNS) do
    if column.rank < floor(room / CELL) then chosen[#chosen + 1] = column end
  end
  return chosen
end

local function cells(dist, columns)
  local texts = {}
  for i, column in ipairs(columns) do
    local value
    if column.percent then
      value = distribution.percentile(dist, column.percent)
    else
      value = distribution.largest(dist)
    end
    texts[i] = format.pad_left(format.duration(value), CELL)
  end
  return concat(texts)
end

local function is_open_loop(job)
  return job.offered ~= nil
end

-- Says which of the shown percentiles lack samples.
local function missing_samples(dist, columns)
  if not dist or dist.n == 0 then return nil end
  for _, column in ipairs(columns) do
    local needed = column.percent and distribution.samples_needed(column.percent)
    if needed and dist.n < needed then
      return ("%s needs %s samples, has %s"):format(column.head, format.count(needed),
        format.count(dist.n))
    end
  end
end

local function table_widths(o, entries)
  local name = 12
  for _, entry in ipairs(entries) do
    name = max(name, format.columns(entry.label) + 1)
  end
  local wide = o.width >= 100
  name = min(name, wide and 32 or 22)
  local bytes = o.width >= 72 and 12 or 0
  local columns = choose_columns(o.width - name - 9 - bytes - (wide and 26 or 0))
  return { name = name, bytes = bytes, columns = columns, wide = wide }
end

local function add_operation(lines, entry, w)
  local op, open_loop = entry.op, is_open_loop(entry.job)
  local kind = open_loop and "response (from due time)" or "response"
  local line = format.pad(format.cut(entry.label, w.name - 1), w.name)
    .. format.pad_left(format.rate(entry.rate), 9)
    .. (w.bytes > 0 and format.pad_left(op.bytes and op.bytes > 0
      and format.throughput(entry.bytes_s) or "", w.bytes) or "")
  local indent = format.pad(w.wide and "" or "  service", format.columns(line))
  local both = distribution.are_equal(op.response, op.service)
  if op.response then
    lines[#lines + 1] = line .. cells(op.response, w.columns) .. (both and "  = service"
      or w.wide and "  " .. kind or "")
    line = indent
  end
  if op.service and not both then
    lines[#lines + 1] = line .. cells(op.service, w.columns) .. (w.wide and "  service" or "")
    line = nil
  end
  if line and not op.response then lines[#lines + 1] = line end
  if entry.errors > 0 then
    local names = {}
    for name, count in pairs(op.errors) do
      names[#names + 1] = ("%s x %s"):format(name, format.count(count))
    end
    table.sort(names)
    lines[#lines + 1] = { style = "bad", "  errors: " .. concat(names, ", ") }
  end
end

local function table_lines(document, o)
  local entries = result.operations(document)
  local w = table_widths(o, entries)
  local heads = {}
  for i, column in ipairs(w.columns) do
    heads[i] = format.pad_left(column.head, CELL)
  end
  local open_loop = false
  for _, job in ipairs(document.jobs) do
    open_loop = open_loop or is_open_loop(job)
  end
  local first = w.wide and "" or open_loop and "response/due" or "response"
  local lines = { { style = "head", format.pad(first, w.name) .. format.pad_left("ops/s", 9)
    .. (w.bytes > 0 and format.pad_left("bytes/s", w.bytes) or "") .. concat(heads) } }
  local missing
  for _, entry in ipairs(entries) do
    add_operation(lines, entry, w)
    local lack = missing_samples(entry.op.response or entry.op.service, w.columns)
    missing = missing or lack and ("  – %s: %s"):format(entry.label, lack)
  end
  if #entries == 0 then lines[2] = "  nothing was measured" end
  lines[#lines + 1] = missing and { style = "dim", missing }
  return lines
end

-- The summary: the rest --------------------------------------------------------------------------

local function head_lines(document)
  local tool, env = document.tool or {}, document.env or {}
  local words = { result.command_line(document) }
  if document.seed then words[#words + 1] = "seed " .. format.text(document.seed) end
  words[#words + 1] = "jdbfs " .. format.text(tool.version)
  words[#words + 1] = env.lua
  words[#words + 1] = env.backend
  local lines = { { style = "head", concat(words, "  ") } }
  local target = result.target_words(document)
  if #target > 0 then lines[2] = "target  " .. concat(target, "  ") end
  return lines
end

local function counter_lines(document)
  local words = {}
  for _, job in ipairs(document.jobs) do
    for _, counter in ipairs(job.counters or {}) do
      if counter.n > 0 then
        words[#words + 1] = ("%s mean %s max %s sum %s"):format(counter.name,
          format.count(counter.sum / counter.n), format.count(counter.max),
          format.count(counter.sum))
      end
    end
  end
  local rows, width = {}, 0
  for _, note in ipairs(document.notes or {}) do
    local value = note[2]
    local text = type(value) == "number" and format.count(value) or tostring(value)
    if text:find("  ", 1, true) then -- cells: a row of a table
      rows[#rows + 1] = { note[1], text }
      width = max(width, format.columns(note[1]))
    else
      words[#words + 1] = ("%s %s"):format(note[1], text)
    end
  end
  local lines = #words > 0 and { "  " .. concat(words, "   ") } or {}
  for i, row in ipairs(rows) do
    table.insert(lines, i, "  " .. format.pad(row[1], width) .. "  " .. row[2])
  end
  return lines
end

local function rate_lines(document)
  local lines = {}
  for _, job in ipairs(document.jobs) do
    if is_open_loop(job) then
      local sustained = job.sustained ~= false
      lines[#lines + 1] = { style = not sustained and "bad" or nil,
        ("%s: %soffered %s  achieved %s  backlog max %s  %s"):format(job.name,
          sustained and "" or "RATE NOT SUSTAINED  ", format.rate(job.offered),
          format.rate(job.achieved), format.count(job.backlog_max), sustained and "sustained"
          or ("%s late at the end"):format(format.count(job.late_at_end))) }
    end
  end
  return lines
end

-- Sample: harness  cpu 0.52 cores (65us/op)  1.1 enters/op  batch 2.0/1.0  lag p99 18us
local function trust_lines(document)
  local trust, words = document.trust or {}, {}
  local function add(pattern, ...)
    if (...) ~= nil then words[#words + 1] = pattern:format(...) end
  end
  add("cpu %.2f cores", trust.cores)
  add("(%s/op)", trust.cpu_s_per_mop and format.duration(trust.cpu_s_per_mop * 1e3))
  add("%.2g enters/op", trust.enters_per_op)
  if trust.submit_batch then
    add("batch %.1f/%s", trust.submit_batch,
      trust.reap_batch and ("%.1f"):format(trust.reap_batch) or "?")
  end
  add("lag p99 %s", trust.lag_p99_ns and format.duration(trust.lag_p99_ns))
  add("gc %.1f%% (estimate)", trust.gc_share and trust.gc_share * 100)
  add("device/asked %.2f", trust.device_over_asked)
  local lines = {}
  if #words > 0 then lines[1] = "harness  " .. concat(words, "  ") end
  if trust.generator_limited then
    lines[#lines + 1] = { style = "warn",
      "! the generator itself was the limit; these are not the device's figures" }
  end
  return lines
end

local function value_text(entry)
  if type(entry.value) ~= "number" then return format.text(entry.value) end
  if entry.unit == "ns" then return format.duration(entry.value) end
  if entry.unit == "ops/s" then return format.rate(entry.value) end
  if entry.unit == "bytes/s" then return format.throughput(entry.value) end
  return format.count(entry.value)
end

local function threshold_lines(document, o)
  local lines, width = {}, o.width >= 72 and 32 or 0
  for i, entry in ipairs(document.thresholds or {}) do
    local bounds = entry.low and entry.high and ("  [%s, %s]"):format(format.duration(entry.low),
      format.duration(entry.high)) or ""
    lines[i] = { style = entry.ok and "good" or "bad", ("%s %s %s  %s%s"):format(
      i == 1 and "thresholds" or "          ", entry.ok and "✓" or "✗",
      format.pad(entry.expr, width), entry.reason or value_text(entry), bounds) }
  end
  return lines
end

local EXITS = { [1] = "error", [2] = "refused", [3] = "not steady", [4] = "verification failed",
  [130] = "interrupted" }

local function end_lines(document)
  local lines = {}
  for i, warning in ipairs(document.warnings or {}) do
    lines[i] = { style = "warn", "! " .. warning }
  end
  if document.error then lines[#lines + 1] = { style = "bad", "error  " .. document.error } end
  if document.exit and document.exit ~= 0 then
    local failed = 0
    for _, entry in ipairs(document.thresholds or {}) do
      failed = failed + (entry.ok and 0 or 1)
    end
    local why = failed > 0 and document.exit == 3
      and format.plural(failed, "threshold") .. " failed" or EXITS[document.exit] or "error"
    lines[#lines + 1] = { style = "bad", ("exit %.0f (%s)"):format(document.exit, why) }
  end
  return lines
end

-- The summary ------------------------------------------------------------------------------------

local STYLES = { head = "\27[1m", dim = "\27[2m", good = "\27[32m", bad = "\27[31m",
  warn = "\27[33m" }

local function finish(line, o)
  local text, style = line, nil
  if type(line) == "table" then text, style = line[1], line.style end
  text = text:gsub("%c", " ")
  if o.ascii then text = format.ascii(text) end
  text = format.cut(text, o.width, o.ascii and "~"):gsub("%s+$", "")
  if o.color and style then text = STYLES[style] .. text .. "\27[0m" end
  return text
end

local function append(lines, more)
  for _, line in ipairs(more) do
    lines[#lines + 1] = line
  end
end

-- The lines with those that are too long broken at spaces; what follows is indented.
local function wrap(lines, o)
  local wrapped = {}
  for _, line in ipairs(lines) do
    local text, style = line, nil
    if type(line) == "table" then text, style = line[1], line.style end
    text = text:gsub("%c", " ")
    if o.ascii then text = format.ascii(text) end
    while format.columns(text) > o.width do
      local head = format.cut(text, o.width + 1, "")
      local stop = head:match("^%s*%S.*()%s") -- the last space that fits, behind a word
      if not stop or stop <= WRAP_INDENT + 1 then break end
      wrapped[#wrapped + 1] = { style = style, text:sub(1, stop - 1) }
      text = (" "):rep(WRAP_INDENT) .. text:sub(stop):gsub("^%s+", "")
    end
    wrapped[#wrapped + 1] = { style = style, text }
  end
  return wrapped
end

-- Leaves out operations from the end of the table until the rest has room.
local function shorten(lines, room)
  if #lines <= room then return lines end
  local kept = {}
  for i = 1, max(2, room - 1) do
    kept[i] = lines[i]
  end
  kept[#kept + 1] = { style = "dim", ("  … %d more lines; --json has all of them"):format(
    #lines - #kept) }
  return kept
end

-- o: width (80), height (none: as long as it gets), ascii, color. Every line is at most width
-- columns wide, and the lines at most height - 1, so that the prompt below fits too, as long as
-- warnings and thresholds leave room: those are never left out.
local function summary(document, o)
  o = { width = max(o.width or 80, 20), height = o.height or huge, ascii = o.ascii,
    color = o.color }
  local lines, rest = wrap(head_lines(document), o), wrap(counter_lines(document), o)
  append(rest, wrap(rate_lines(document), o))
  local last = wrap(trust_lines(document), o)
  append(last, wrap(threshold_lines(document, o), o))
  append(last, wrap(end_lines(document), o))
  local room = o.height - 1 - #lines - #rest - #last
  local rows = shorten(table_lines(document, o), room)
  append(lines, rows)
  append(lines, rest)
  append(lines, plots.of(document, o, room - #rows))
  append(lines, last)
  for i, line in ipairs(lines) do
    lines[i] = finish(line, o)
  end
  return concat(lines, "\n") .. "\n"
end

return {
  live = live,
  plain = plain,
  summary = summary,
  value_text = value_text,
}
