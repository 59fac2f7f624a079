-- `jdbfs verify FILE [--state DIR]`: reads a file of stamped pages and names every bad one.
--
-- Without a state pages that are all zeros may never have been written and are only counted. With
-- one, every page that was acknowledged must be there at least as new, and a write that was under
-- way at the crash may have left its page torn unless writes were atomic.

local acknowledged = require("jdbfs.command.acknowledged")
local arguments = require("jdbfs.command.arguments")
local format = require("jdbfs.command.format")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local stamp = require("jdbfs.command.stamp")
local status = require("jdbfs.command.status")

local floor, max, min = math.floor, math.max, math.min
local concat = table.concat
local ipairs, pairs = ipairs, pairs

local WORD = 4294967296
local CHUNK = 1048576
local SEARCHED = 4194304 -- bytes at the start in which pages are looked for
local LISTED_MAX = 100 -- bad pages named in the text; all are counted

local VERDICTS = { "ok", "zero", "in flight", "torn", "corrupt", "misdirected", "stale", "future",
  "foreign", "lost", "unreadable" }
local GOOD = { ok = true, zero = true, ["in flight"] = true }
local MEANING = {
  torn = "sectors of several writes", corrupt = "bytes that nobody wrote",
  misdirected = "a page of another place or file", stale = "an acknowledged write is lost",
  future = "newer than any write", foreign = "no stamped page",
  lost = "all zeros, though a write was acknowledged", unreadable = "cannot be read",
}

-- Finding pages -----------------------------------------------------------------------------------

-- The most frequent kind of page at the start: file id, page size and seed. nil when there is none,
-- and the message of a read that failed.
local function find_pages(file, size)
  local buffer, votes, best, unread = jdbfs.buffer(CHUNK), {}, nil, nil
  for off = 0, min(SEARCHED, size) - 1, CHUNK do
    local got, message = file:read_upto(buffer, off)
    unread = unread or message
    for at = 0, (got or 0) - stamp.HEADER, 512 do
      local found = stamp.header(buffer, at)
      if found and found.length >= 512 and found.length % 512 == 0
        and found.page * found.length == off + at then
        local key = concat({ found.file, found.length, found.seed }, " ")
        votes[key] = votes[key] or { count = 0, file = found.file, size = found.length,
          seed = found.seed }
        votes[key].count = votes[key].count + 1
      end
    end
  end
  buffer:free()
  for _, each in pairs(votes) do
    if not best or each.count > best.count then best = each end
  end
  return best, unread
end

-- Judging -----------------------------------------------------------------------------------------

-- With a state, what was under way at the crash is no fault, and a missing page is one.
local function judge_with_state(verdict, found, generation, state)
  if verdict == "zero" and generation then return "lost" end
  if verdict == "torn" and not state.atomic then
    local low = (generation or 0) % WORD
    local newer = found.newest ~= low and (found.newest - low) % WORD < WORD / 2
    if newer and (found.oldest - low) % WORD < WORD / 2 then return "in flight" end
  end
  return verdict
end

local function note_page(report, page, verdict, map, found)
  report.counts[verdict] = (report.counts[verdict] or 0) + 1
  if GOOD[verdict] then return end
  report.bad[#report.bad + 1] = { page = page, offset = page * report.size, verdict = verdict,
    map = map, found_page = found and verdict == "misdirected" and found.page or nil,
    found_file = found and verdict == "misdirected" and found.file or nil,
    generation = found and found.generation,
    expected = report.state and report.state.acknowledged[page] }
end

local function check_page(report, buffer, at, page)
  local state = report.state
  local generation = state and state.acknowledged[page]
  local verdict, map, found = stamp.check(buffer, at, report.size, { page = page,
    file = report.file_id, seed = report.seed, sector = report.sector, generation = generation })
  if state then verdict = judge_with_state(verdict, found, generation, state) end
  note_page(report, page, verdict, map, found)
end

-- Reads from `first` on as many pages as the buffer takes; page by page when that fails.
local function check_chunk(report, file, buffer, first, count)
  local length = count * report.size
  local got = file:read_upto(buffer, first * report.size, 0, length)
  if got and got >= length then
    for i = 0, count - 1 do
      check_page(report, buffer, i * report.size, first + i)
    end
    return
  end
  for page = first, first + count - 1 do
    local read, message = file:read_at(buffer, page * report.size, 0, report.size)
    if read then
      check_page(report, buffer, 0, page)
    else
      report.message = report.message or message
      note_page(report, page, "unreadable")
    end
  end
end

local function check_file(report, file)
  local per_chunk = max(1, floor(CHUNK / report.size))
  local buffer = jdbfs.buffer(per_chunk * report.size)
  for first = 0, report.pages - 1, per_chunk do
    check_chunk(report, file, buffer, first, min(per_chunk, report.pages - first))
  end
  buffer:free()
  -- Pages that were acknowledged behind the end of the file.
  for page in pairs(report.state and report.state.acknowledged or {}) do
    if page >= report.pages then note_page(report, page, "lost") end
  end
end

-- The text ----------------------------------------------------------------------------------------

local function page_line(bad)
  local words = { ("page %.0f at %.0f: %s"):format(bad.page, bad.offset, bad.verdict) }
  if bad.map then words[#words + 1] = bad.map end
  if bad.found_page then
    words[#words + 1] = ("it is page %.0f of file %08x"):format(bad.found_page, bad.found_file)
  end
  if bad.verdict == "stale" then
    words[#words + 1] = ("generation %.0f, acknowledged was %.0f"):format(bad.generation,
      bad.expected)
  end
  return concat(words, "  ") .. "\n"
end

local function write_text(report, out)
  for i = 1, min(#report.bad, LISTED_MAX) do
    out:write(page_line(report.bad[i]))
  end
  if #report.bad > LISTED_MAX then
    out:write(("and %.0f more; --json has all of them\n"):format(#report.bad - LISTED_MAX))
  end
  out:write(("%s: %.0f pages of %s, file %08x, seed %.0f%s\n"):format(report.path,
    report.pages, format.bytes(report.size), report.file_id, report.seed,
    report.state and "" or "; without --state lost writes cannot be told"))
  for _, verdict in ipairs(VERDICTS) do
    local count = report.counts[verdict]
    if count then
      out:write(("  %-12s %8.0f%s\n"):format(verdict, count,
        MEANING[verdict] and "  " .. MEANING[verdict] or ""))
    end
  end
  if report.rest > 0 then
    out:write(("  the last %.0f bytes are no whole page\n"):format(report.rest))
  end
end

local STYLE = { rank = {}, objects = { counts = true } }
for place, name in ipairs({ "schema", "path", "pages", "size", "file", "seed", "sector", "counts",
  "bad", "page", "offset", "verdict", "map", "generation", "expected", "found_page", "found_file",
  "exit" }) do
  STYLE.rank[name] = place
end

local function encode(report, exit)
  return json.encode({ schema = "jdbfs.verify/1", path = report.path, pages = report.pages,
    size = report.size, file = report.file_id, seed = report.seed, sector = report.sector,
    counts = report.counts, bad = report.bad, exit = exit }, STYLE) .. "\n"
end

-- Running it --------------------------------------------------------------------------------------

-- The file, or nil, message, exit status. Past the page cache where that is possible. EINVAL is a
-- device; it is only read.
local function open(path)
  local file, message, err = jdbfs.open(path, { direct = "prefer" })
  if not file and err.name == "EINVAL" then
    file, message = jdbfs.open(path, { direct = "prefer", device = true })
  end
  if not file then return nil, message, status.FAILED end
  return file
end

-- Fills the report with what kind of pages the file has; nil, message, exit status on failure.
local function describe(report, file)
  local size, message = file:size()
  if not size then return nil, message, status.FAILED end
  local kind = report.state
  if not kind then kind, message = find_pages(file, size) end
  if not kind and message then return nil, message, status.FAILED end
  if not kind then
    return nil, ("%s: the first %s hold no stamped page"):format(report.path,
      format.bytes(min(SEARCHED, size))), status.USAGE
  end
  report.file_id, report.size, report.seed = kind.file, kind.size, kind.seed
  report.sector = kind.sector or 512
  report.pages = floor(size / report.size)
  report.rest = size - report.pages * report.size
  return true
end

local OPTIONS = {
  { name = "state", value = true },
  { name = "json" },
}

-- Reads and judges the whole file; gives the report, or nil, message, exit status.
local function run(path, options)
  local report = { path = path, counts = {}, bad = {} }
  local message, exit
  if options.state then
    report.state, message = acknowledged.load(options.state)
    if not report.state then return nil, message, status.FAILED end
  end
  local file
  file, message, exit = open(path)
  if not file then return nil, message, exit end
  local described
  described, message, exit = describe(report, file)
  if described then check_file(report, file) end
  file:close()
  if not described then return nil, message, exit end
  return report
end

-- args are the words behind the verb. Gives the exit status: 0 when every page is good, 4 when one
-- is bad, 1 when one cannot be read.
local function main(args, out, err)
  local function fail(exit, message)
    err:write("jdbfs: ", message, "\n")
    return exit
  end
  local options, words = arguments.parse(args, OPTIONS)
  if not options then return fail(status.USAGE, words) end
  if #words ~= 1 then return fail(status.USAGE, "verify takes one file") end
  local report, message, exit = run(words[1], options)
  if not report then return fail(exit, message) end
  exit = #report.bad > 0 and status.VERIFY or status.OK
  if report.message then
    exit = status.FAILED
    err:write("jdbfs: ", report.message, "\n")
  end
  if options.json then out:write(encode(report, exit)) else write_text(report, out) end
  return exit
end

return {
  run = run,
  main = main,
}
