-- The command lines of the verbs that take files: words, and options in any order between them.

local ipairs = ipairs

-- options: list of { name, value = true when it takes one, list = true when it may come again,
-- parse = function(text) -> value, or nil and why not, short = "o", marks = true when its value is
-- how many words came before it }. Gives a table of the values
-- by name and a list of the words; or nil and one sentence. What follows "--" are words.
local function parse(args, options)
  local by_name, values, words = {}, {}, {}
  for _, option in ipairs(options) do
    by_name["--" .. option.name] = option
    if option.short then by_name["-" .. option.short] = option end
    if option.list then values[option.name] = {} end
  end
  local i = 1
  while i <= #args do
    local word = args[i]
    local name, given = word:match("^(%-%-[^=]+)=(.*)$")
    name = name or word
    local option = by_name[name]
    if word == "--" then
      for rest = i + 1, #args do
        words[#words + 1] = args[rest]
      end
      break
    elseif word:sub(1, 1) ~= "-" or word == "-" then
      words[#words + 1] = word
    elseif not option then
      return nil, ("unknown option %s; see jdbfs --help"):format(word)
    else
      local value = true
      if option.value then
        if not given then i = i + 1 end
        value = given or args[i]
        if not value then return nil, ("%s needs a value"):format(name) end
      elseif given then
        return nil, ("%s takes no value"):format(name)
      end
      if option.parse then
        local parsed, reason = option.parse(value)
        if parsed == nil then return nil, ("%s: %q %s"):format(name, value, reason) end
        value = parsed
      end
      if option.list then
        local list = values[option.name]
        list[#list + 1] = value
      elseif option.marks then
        values[option.name] = #words
      else
        values[option.name] = value
      end
    end
    i = i + 1
  end
  return values, words
end

return {
  parse = parse,
}
