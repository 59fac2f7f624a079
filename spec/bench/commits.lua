-- commits.lua DIRECTORY ROUNDS SECONDS NAME=INTERPRETER=MODULES...: group commit against a C loop
-- that commits the same groups. Rounds as in contestants.lua; needs build/bench/commit.

package.path = "spec/bench/?.lua;lua/?.lua;" .. package.path
local jdbfs = require("jdbfs")
local contestants = require("contestants")
local shell = require("shell")
local spread = require("spread")

local dir, rounds, seconds = arg[1], tonumber(arg[2]), tonumber(arg[3])
local file = dir .. "/commit.data"
local row, quote = contestants.row, shell.quote
local ours = contestants.ours(arg, 4)

local function c_loop(how, group)
  return function()
    return contestants.printed(("build/bench/commit %s %s %d %g"):format(how, quote(file), group,
      seconds))
  end
end

local function lua(who, how, tasks)
  local path = (how == "log" or how == "again") and dir .. "/log" or file
  return function()
    if path ~= file then shell.capture("rm -rf " .. quote(path)) end
    local output = shell.capture(who.command("appends.lua", ("%s %s %d %g"):format(how,
      quote(path), tasks, seconds)))
    local count, took, cpu, flushes = output:match("(%d+) ([%d.]+) ([%d.]+) ([%d.]+)")
    if not count then error("bench: no figures from appends.lua " .. how .. "\n" .. output, 0) end
    local result = contestants.figures(tonumber(count), tonumber(took), tonumber(cpu))
    result.flushes = tonumber(flushes)
    return result
  end
end

local function medians(list, field)
  local values = {}
  for i, result in ipairs(list) do values[i] = result[field] end
  return spread.median(values)
end

-- Everybody of the list in rounds; a row for each: rate, and ratios to the C loop and to the one of
-- the list whose place is `second`.
local function compare(title, count, list, second)
  local all, befores, again = {}, {}, { rate = {}, cost = {} }
  local ratios = {}
  for i = 1, #list do all[i], ratios[i] = {}, { rate = {}, cost = {}, second = {} } end
  local runs = {}
  for i, who in ipairs(list) do runs[i] = who.run end
  contestants.alternate(title, rounds, list.rival, runs, function(before, results, after)
    befores[#befores + 1] = before
    again.rate[#again.rate + 1] = after.rate / before.rate
    again.cost[#again.cost + 1] = after.cost / before.cost
    for i, result in ipairs(results) do
      local r = ratios[i]
      all[i][#all[i] + 1] = result
      r.rate[#r.rate + 1] = 2 * result.rate / (before.rate + after.rate)
      r.cost[#r.cost + 1] = 2 * result.cost / (before.cost + after.cost)
      if second then r.second[#r.second + 1] = result.rate / results[second].rate end
    end
  end)
  row(count, ("%s again: %.0f/s, %.2f us CPU"):format(list.name, medians(befores, "rate"),
    medians(befores, "cost")), spread.text(again.rate), "", spread.text(again.cost), "")
  for i, who in ipairs(list) do
    local flushes = all[i][1].flushes and ("%.3f"):format(medians(all[i], "flushes")) or ""
    row(count, ("%s: %.0f/s"):format(who.name, medians(all[i], "rate")),
      spread.text(ratios[i].rate), second and i ~= second and spread.text(ratios[i].second) or "",
      spread.text(ratios[i].cost), flushes)
  end
end

local function make_file()
  local f = assert(jdbfs.create(file))
  assert(f:preallocate(64 * 1024 * 1024, "zero"))
  assert(f:sync_all())
  assert(f:close())
end

make_file()
print(([[
Group commit, %d rounds of %g s: so many tasks append records of 512 bytes to a log. The C loop
writes as many in one write and calls fdatasync; it has no work per record. The one that encodes
copies and sums each record before: its own, or what a bare coroutine yields for each. The linked
one has io_uring start the flush when the write ends. CPU is that of the whole process. The C loops
write to a file of 64 MiB that is there, round and round. A log makes its next segment of 64 MiB,
as zeros, meanwhile; or, where what was appended is given up as it goes (truncate_before,
spare_segments = 1), uses its segments again.

| tasks |  | records, of the C loop | of the linked one | CPU of the C loop | flushes each |
| --: | --- | --- | --- | --- | --- |]]):format(rounds, seconds))
for _, tasks in ipairs { 1, 8, 32, 128 } do
  local list = { name = "C loop", rival = c_loop("write", tasks),
    { name = "linked C loop", run = c_loop("linked", tasks) },
    { name = "C loop that encodes", run = c_loop("encode", tasks) } }
  for _, who in ipairs(ours) do
    list[#list + 1] = { name = "C loop that encodes, a bare coroutine a record, " .. who.name,
      run = function() return contestants.printed(who.bare("encode", file, tasks, seconds)) end }
  end
  for _, who in ipairs(ours) do
    list[#list + 1] = { name = who.name, run = lua(who, "log", tasks) }
    list[#list + 1] = { name = who.name .. ", used again", run = lua(who, "again", tasks) }
  end
  list[#list + 1] = { name = "one flush a write", run = lua(ours[1], "alone", tasks) }
  compare(("commits of %d"):format(tasks), tasks, list, 1)
end

print([[

Pages of 4 KiB, each task writes one, calls sync_data, again. The C loop submits as many writes at
once, waits for them and calls fdatasync:

| tasks |  | writes, of the C loop |  | CPU of the C loop | flushes each |
| --: | --- | --- | --- | --- | --- |]])
local list = { name = "C loop", rival = c_loop("pages", 16) }
for _, who in ipairs(ours) do
  list[#list + 1] = { name = who.name, run = lua(who, "pages", 16) }
end
compare("write and sync_data", 16, list)
os.remove(file)
