-- What a step is expected to give. An expectation is a list of alternatives, made here; `match`
-- finds the first that agrees with what came.
--
--   value(v, ...)    exactly these results
--   fail(want)       nil, message, err with these fields; `kind` and `name` may be lists of which
--                    one must be it; false: the field is nil; nil: not looked at
--   raises(text,...) an error with one of these plain texts in it
--   check(f)         f(got) gives true, or nil and why not
--
-- Each may have `apply(got)`: what the model then does.

local M = {}

function M.pack(...)
  return { n = select("#", ...), ... }
end

function M.value(...)
  return { what = "value", want = M.pack(...) }
end

function M.fail(want)
  return { what = "fail", want = want }
end

function M.raises(...)
  return { what = "raises", want = { ... } }
end

function M.check(f)
  return { what = "check", want = f }
end

--- One fault of several: whichever is told, it is of one of these kinds and errnos.
function M.any_fault(op, path, faults)
  local kinds, names = {}, {}
  for _, fault in ipairs(faults) do
    kinds[#kinds + 1] = fault.kind
    names[#names + 1] = fault.name
  end
  local only = #faults == 1 and faults[1] or {}
  return M.fail({
    kind = kinds, op = op, path = path, name = #names > 0 and names or false,
    offset = only.offset, length = only.length, actual = only.actual, index = only.index,
  })
end

-- ---- in words -----------------------------------------------------------------------------------

local function show(v)
  if type(v) ~= "string" then return tostring(v) end
  if #v <= 40 then return ("%q"):format(v) end
  return ("%q... (%d bytes)"):format(v:sub(1, 16), #v)
end
M.show = show

local function show_list(list)
  local words = {}
  for i = 1, list.n or #list do words[i] = show(list[i]) end
  return table.concat(words, ", ")
end

local function show_fields(want)
  local words = {}
  for _, name in ipairs({ "kind", "name", "op", "offset", "length", "actual", "index" }) do
    local v = want[name]
    if type(v) == "table" then v = table.concat(v, " or ") end
    if v then words[#words + 1] = name .. " " .. tostring(v) end
  end
  return table.concat(words, ", ")
end

function M.describe(alternatives)
  local words = {}
  for i, a in ipairs(alternatives) do
    if a.what == "value" then words[i] = show_list(a.want)
    elseif a.what == "fail" then words[i] = "a failure: " .. show_fields(a.want)
    elseif a.what == "raises" then words[i] = "an error: " .. show_list(a.want)
    else words[i] = a.text or "a result that fits" end
  end
  return table.concat(words, "; or ")
end

function M.describe_got(got)
  if not got.ok then return "raised " .. show(tostring(got[1])) end
  local words = show_list(got)
  if type(got[3]) == "table" and got[3].kind then
    words = words .. " (" .. show_fields(got[3]) .. ")"
  end
  return words == "" and "nothing" or words
end

-- ---- comparing ----------------------------------------------------------------------------------

--- True, or nil and where the two strings differ.
function M.same(want, got)
  if want == got then return true end
  if type(got) ~= "string" then return nil, "a string was expected, not " .. show(got) end
  local i = 1
  while want:byte(i) == got:byte(i) do i = i + 1 end
  return nil, ("%d bytes, %d expected; from byte %d on %q, expected %q"):format(
    #got, #want, i - 1, got:sub(i, i + 11), want:sub(i, i + 11))
end

local function same_value(want, got)
  if type(want) == "string" and type(got) == "string" then return M.same(want, got) end
  if type(want) == "table" and type(got) == "table" then
    for i = 1, #want > #got and #want or #got do
      local ok, why = same_value(want[i], got[i])
      if not ok then return nil, ("[%d]: %s"):format(i, why) end
    end
    return true
  end
  if want == got then return true end
  return nil, ("%s, expected %s"):format(show(got), show(want))
end
M.same_value = same_value

local function one_of(want, got)
  if type(want) ~= "table" then return want == got end
  for _, v in ipairs(want) do
    if v == got then return true end
  end
  return false
end

local function is_failure(got)
  local message, err = got[2], got[3]
  if got[1] ~= nil then return nil, "a failure was expected" end
  if got.n ~= 3 or type(message) ~= "string" or type(err) ~= "table" then
    return nil, "a failure is nil, message, err"
  end
  if tostring(err) ~= message or err.message ~= message then
    return nil, "message and error differ"
  end
  if message:find("\n") then return nil, "a message is one sentence" end
  return true
end

local comparers = {}

function comparers.value(want, got)
  if not got.ok then return nil, "it raised" end
  for i = 1, want.n > got.n and want.n or got.n do
    local ok, why = same_value(want[i], got[i])
    if not ok then return nil, why end
  end
  return true
end

function comparers.fail(want, got)
  if not got.ok then return nil, "it raised" end
  local ok, why = is_failure(got)
  if not ok then return nil, why end
  for name, v in pairs(want) do
    local there = got[3][name]
    -- A fault without an errno among some that have one.
    local absent = name == "name" and there == nil and got[3].kind ~= "Io"
    if v == false then v = nil end
    if not absent and not one_of(v, there) then return nil, name .. " is " .. show(there) end
  end
  return true
end

function comparers.raises(want, got)
  if got.ok then return nil, "it did not raise" end
  local text = tostring(got[1])
  for _, part in ipairs(want) do
    if text:find(part, 1, true) then return true end
  end
  return nil, "another error"
end

function comparers.check(want, got)
  if not got.ok then return nil, "it raised" end
  return want(got)
end

--- The alternative that agrees, or nil and why the last one does not.
function M.match(alternatives, got)
  local why
  for _, a in ipairs(alternatives) do
    local ok
    ok, why = comparers[a.what](a.want, got)
    if ok then return a end
  end
  return nil, why
end

return M
