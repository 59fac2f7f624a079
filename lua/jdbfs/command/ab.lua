-- `jdbfs ab [-n PAIRS] A B [options of run]`: runs two workloads in alternating pairs and compares
-- them. A and B are names or files; in quotes each may have options of its own: "wal --clients 8".

local compare = require("jdbfs.command.compare")
local progress = require("jdbfs.command.progress")
local run = require("jdbfs.command.run")
local status = require("jdbfs.command.status")
local units = require("jdbfs.command.units")

local ipairs = ipairs
local PAIRS, PAIRS_MAX = 15, 1000

local function words_of(text)
  local words = {}
  for word in text:gmatch("%S+") do words[#words + 1] = word end
  return words
end

local function read(args)
  local pairs_wanted, sides, rest, i = PAIRS, {}, {}, 1
  while args[i] do
    local word = args[i]
    if word == "-n" then
      i = i + 1
      local n, reason = units.within(units.whole, 1, PAIRS_MAX, "1 and 1000")(args[i] or "")
      if not n then status.usage("-n: %q %s", args[i] or "", reason) end
      pairs_wanted = n
    elseif #sides < 2 then
      if word:sub(1, 1) == "-" then
        status.usage("ab: the two workloads come before the options, not %s", word)
      end
      sides[#sides + 1] = words_of(word)
    elseif word:match("^%-%-repeat") then
      status.usage("ab: -n says how many runs there are, not --repeat")
    else
      rest[#rest + 1] = word
    end
    i = i + 1
  end
  if #sides < 2 then status.usage("ab takes two workloads") end
  return pairs_wanted, sides, rest
end

local SILENT = { write = function() end }

local function words_of_run(side, rest)
  local words = { "--quiet" }
  for _, word in ipairs(side) do words[#words + 1] = word end
  for _, word in ipairs(rest) do words[#words + 1] = word end
  return words
end

-- One run of a side; its document, or the end of the command.
local function run_side(words, err)
  local document = run.run(words, SILENT, err)
  if document.exit ~= status.OK and document.exit ~= status.THRESHOLD then
    status.fail(document.exit, "ab: ended by a run that failed")
  end
  return document
end

local M = {}

function M.main(args, out, err)
  local wanted, sides, rest = read(args)
  local documents, live = { {}, {} }, progress.new({}, err)
  for i, side in ipairs(sides) do -- both before the first run, which takes its time
    sides[i] = words_of_run(side, rest)
    run.check(sides[i], SILENT, err)
  end
  for pair = 1, wanted do
    for turn = 1, 2 do
      local which = (pair + turn) % 2 + 1 -- A first, then B first
      live:write({ workload = ("ab pair %d of %d, %s"):format(pair, wanted, which == 1 and "A"
        or "B"), done = 2 * pair + turn - 3, total = 2 * wanted })
      documents[which][pair] = run_side(sides[which], err)
    end
  end
  live:clear()
  local text, message, exit = compare.run(documents[1], documents[2], { force = true })
  if not text then status.fail(exit, message) end
  out:write(text)
  return exit
end

return M
