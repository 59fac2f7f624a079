-- The log of acknowledged writes: a run with it can be killed and its file verified afterwards. It
-- is a jdbfs.log, best on another device; a record is durable before its writer goes on, and
-- writers in tasks share the flush. The first record describes the file.

local jdbfs = require("jdbfs")

local concat = table.concat
local ipairs, tonumber = ipairs, tonumber

local SCHEMA = "jdbfs.state/1"
local FIELDS = { "file", "size", "seed", "sector" } -- size: of a page

local function whole(value)
  return ("%.0f"):format(value)
end

-- A new log in that directory, which must not exist. fields: file, size, seed, sector as in
-- jdbfs.command.stamp, atomic when pages are never torn. Gives the log or nil, message, err.
local function create(path, fields)
  local exists, message, err = jdbfs.exists(path)
  if exists == nil then return nil, message, err end
  if exists then return nil, path .. ": it exists already" end
  local log
  log, message, err = jdbfs.log(path)
  if not log then return nil, message, err end
  local words = { SCHEMA }
  for i, name in ipairs(FIELDS) do
    words[i + 1] = whole(fields[name])
  end
  words[#words + 1] = fields.atomic and "atomic" or "torn"
  local written
  written, message, err = log:append(concat(words, " "))
  if written then return log end
  log:close()
  return nil, message, err
end

-- Notes that a page's write of that generation is durable; returns when the note is, too.
local function note(log, page, generation)
  return log:append(whole(page) .. " " .. whole(generation))
end

local function read_header(text)
  local words = {}
  for word in (text or ""):gmatch("%S+") do
    words[#words + 1] = word
  end
  if words[1] ~= SCHEMA or #words ~= #FIELDS + 2 then return nil end
  local state = { acknowledged = {}, atomic = words[#words] == "atomic" }
  for i, name in ipairs(FIELDS) do
    state[name] = tonumber(words[i + 1])
    if not state[name] then return nil end
  end
  return state
end

-- Opening a log makes one where there is none: that is not what a reader asks for.
local function find(path)
  local exists, message = jdbfs.exists(path)
  if exists == nil then return nil, message end
  if not exists then return nil, path .. ": there is no such state" end
  local names, why = jdbfs.ls(path)
  if not names then return nil, why end
  for _, name in ipairs(names) do
    if name:find("^%d+%.log$") then return true end
  end
  return nil, path .. ": there is no log of acknowledged writes in it"
end

-- All that the log says: the fields, and acknowledged[page] = generation. Or nil and one sentence.
local function load(path)
  local found, log, message
  found, message = find(path)
  if not found then return nil, message end
  log, message = jdbfs.log(path)
  if not log then return nil, message end
  local records, state = log:records(), nil
  while true do
    local number, data = records:next()
    if not number then
      message = data
      break
    end
    if not state then
      state = read_header(data)
      if not state then
        message = path .. ": this is no log of acknowledged writes of this version"
        break
      end
    else
      local page, generation = data:match("^(%d+) (%d+)$")
      page, generation = tonumber(page or ""), tonumber(generation or "")
      if not page then
        message = ("%s: record %s is no acknowledged write"):format(path, whole(number))
        break
      end
      if generation > (state.acknowledged[page] or 0) then
        state.acknowledged[page] = generation
      end
    end
  end
  log:close()
  if message then return nil, message end
  if not state then return nil, path .. ": the log of acknowledged writes is empty" end
  return state
end

return {
  create = create,
  note = note,
  load = load,
}
