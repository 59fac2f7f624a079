-- JSON is read or refused with one line, and what was read comes back from its text the same. A
-- document that is taken for a result can be shown and compared, whatever is wrong with it.
--
-- The first byte tells how the rest is used: as the text, as changes of a good document's text, or
-- as changes of its values; and which way the result is shown.

local compare = require("jdbfs.command.compare")
local html = require("jdbfs.command.html")
local json = require("jdbfs.command.json")
local made = require("support_result")
local result = require("jdbfs.command.result")
local screen = require("jdbfs.command.screen")

local good = made.document({ seconds = 1, rate = 8, open = true })
good.thresholds = { { expr = "errors == 0", ok = true, value = 0, low = 0, high = 1 } }
local good_text = result.encode(good)

local function check_json(text)
  local value, message = json.decode(text)
  if value == nil then
    assert(type(message) == "string" and not message:find("[\r\n]"), "no reason")
    return
  end
  -- Bytes that are not UTF-8 are characters of their own once they were written.
  local again = json.encode(assert(json.decode(json.encode(value))))
  assert(json.encode(assert(json.decode(again))) == again, "not the same again")
end

local function check_result(text, how)
  local document, message = result.decode(text)
  if not document then
    assert(type(message) == "string" and not message:find("[\r\n]"), "no reason")
    return
  end
  if how < 64 then html.page({ document })
  elseif how < 128 then compare.run(document, good, { force = true, resamples = 2 })
  else
    screen.summary(document, { height = 24 })
    result.csv(document)
    result.ndjson(document)
    result.hgrms(document)
  end
end

local function bytes_of(text)
  local at = 0
  return function()
    at = at + 1
    return text:byte(at)
  end
end

local function patched(next_byte)
  local text = good_text
  local high = next_byte()
  while high do
    local at = (high * 256 + (next_byte() or 0)) % #text + 1
    local drop, put = (next_byte() or 0) % 16, {}
    for i = 1, (next_byte() or 0) % 16 do put[i] = string.char(next_byte() or 0) end
    text = text:sub(1, at - 1) .. table.concat(put) .. text:sub(at + drop)
    high = next_byte()
  end
  return text
end

local VALUES = { '"x"', "1", "-1", "0", "true", "{}", "[1]", '{"a":1}', "1e300", "0.5", "null",
  '""', "9007199254740992", "[[1,2]]", "false", "-1e-300" }

local function changed(next_byte)
  local document = json.decode(good_text)
  local at, byte = document, next_byte()
  while byte do
    local keys = {}
    for key in pairs(at) do keys[#keys + 1] = key end
    table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
    if #keys == 0 then at = document
    else
      local key = keys[byte % #keys + 1]
      local how = next_byte() or 0
      if type(at[key]) == "table" and at[key] ~= json.null and how < 200 then at = at[key]
      else
        at[key] = json.decode(VALUES[how % #VALUES + 1])
        at = document
      end
    end
    byte = next_byte()
  end
  return json.encode(document)
end

return function(text)
  local how, rest = text:byte(), text:sub(2)
  if not how then return end
  if how % 4 == 0 then text = rest
  elseif how % 4 == 1 then text = patched(bytes_of(rest))
  else text = changed(bytes_of(rest)) end
  check_json(text)
  check_result(text, how)
end
