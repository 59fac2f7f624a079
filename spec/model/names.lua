-- Steps on names. A node in the model is a directory {dir = {name = node}} or a file
-- {bytes =, links =, locks = {handle = how}}.

local new_bytes = require("model.bytes")
local text = require("model.text")
local values = require("model.values")

local value, fail = values.value, values.fail

local M = {}

function M.new_file()
  return { bytes = new_bytes(0), links = 1, locks = {} }
end

function M.new_dir()
  return { dir = {} }
end

-- ---- looking up ---------------------------------------------------------------------------------

--- The directory that holds the last name, that name, and what it is (nil: nothing); or nil and
--- the errno's name.
function M.walk(model, path)
  local at = model.root
  local above, last = path:match("^(.*)/([^/]*)$")
  for name in (above or ""):gmatch("[^/]+") do
    if not at.dir then return nil, "ENOTDIR" end
    at = at.dir[name]
    if not at then return nil, "ENOENT" end
  end
  if not at.dir then return nil, "ENOTDIR" end
  last = last or path
  return at, last, last == "." and at or at.dir[last]
end

--- The node of that path, or nil and the errno's name.
function M.find(model, path)
  local dir, name, node = M.walk(model, path)
  if not dir then return nil, name end
  if not node then return nil, "ENOENT" end
  return node
end

--- Gives a file that name; what had it before loses it.
function M.link(model, path, node)
  local dir, name, old = M.walk(model, path)
  if old and old.links then old.links = old.links - 1 end
  dir.dir[name] = node
end

--- Makes a directory and those above it.
function M.make(model, path)
  local at = model.root
  for name in path:gmatch("[^/]+") do
    if name ~= "." then
      at.dir[name] = at.dir[name] or M.new_dir()
      at = at.dir[name]
    end
  end
end

local function contains(node, wanted)
  if node == wanted then return true end
  for _, child in pairs(node.dir or {}) do
    if contains(child, wanted) then return true end
  end
  return false
end

--- Whether nothing that is open keeps the name of this path: some systems keep those.
function M.is_free(model, path)
  local node = M.find(model, path)
  if not node then return true end
  if node.dir and model.facts.open_directories then return true end
  if not node.dir and model.facts.open_names then return true end
  for _, h in pairs(model.f) do
    if not h.closed and contains(node, h.node) then return false end
  end
  for _, l in pairs(model.l) do
    if not l.closed and l.name:sub(1, #path + 1) == path .. "/" then return false end
  end
  return true
end

local function path_is_free(model, s) return M.is_free(model, s.path) end

local function io_error(model, op, path, ...)
  return { fail({ kind = "Io", op = op, path = model.path(path), name = { ... } }) }
end
M.io_error = io_error

local function with_apply(expectation, apply)
  expectation.apply = apply
  return { expectation }
end

local function any_path(ctx)
  local r = ctx.r
  if r:one_in(4) then return r:pick(ctx.dirs) .. "/" .. r:pick(ctx.names) end
  if r:one_in(30) then return ctx.home .. r:pick({ "a/x", "none/x", "none/y/z" }) end
  -- Mostly the same one: what several handles do to one file is where mistakes are.
  return ctx.home .. (r:one_in(2) and ctx.names[1] or r:pick(ctx.names))
end
M.any_path = any_path

local function any_dir(ctx)
  if ctx.r:one_in(3) then return ctx.top end
  return ctx.r:one_in(6) and any_path(ctx) or ctx.r:pick(ctx.dirs)
end

local function always() return true end

-- A call with one path: `find` gives what it tells of the node that is there.
local function question(op, any, find)
  return {
    make = function(ctx) return { path = any(ctx) } end,
    text = function(s) return text.call("jdbfs." .. op, 1, text.path(s.path)) end,
    ready = always,
    expect = function(model, s)
      local node, why = M.find(model, s.path)
      if not node then return io_error(model, op, s.path, why) end
      return find(model, node, s)
    end,
  }
end

-- ---- the steps ----------------------------------------------------------------------------------

local ops = {}

ops.exists = {
  make = function(ctx) return { path = any_path(ctx) } end,
  text = function(s) return text.call("jdbfs.exists", 1, text.path(s.path)) end,
  ready = always,
  expect = function(model, s) return { value(M.find(model, s.path) ~= nil) } end,
}

ops.ls = question("ls", any_dir, function(model, node, s)
  if not node.dir then return io_error(model, "ls", s.path, "ENOTDIR") end
  return { value(M.files_of(node)) }
end)

ops.sync_dir = question("sync_dir", any_dir, function(model, node, s)
  if not node.dir then return io_error(model, "sync_dir", s.path, "ENOTDIR") end
  return { value(true) }
end)

ops.path_size = question("size", any_path, function(_, node)
  if node.dir then
    return { values.check(function(got) return type(got[1]) == "number", "no number" end) }
  end
  return { value(node.bytes.size) }
end)

--- Whether a stat agrees with the node.
function M.check_stat(node)
  return values.check(function(got)
    local st = got[1]
    if type(st) ~= "table" then return nil, "no table: " .. tostring(got[2]) end
    local kind = node.dir and "directory" or "file"
    if st.type ~= kind then return nil, "type is " .. tostring(st.type) end
    if node.dir then return true end
    if st.size ~= node.bytes.size then
      return nil, ("size is %s, expected %s"):format(st.size, node.bytes.size)
    end
    if st.links ~= node.links then return nil, "links is " .. tostring(st.links) end
    if node.inode and st.inode ~= node.inode then return nil, "it is another file" end
    if node.mode and st.mode ~= node.mode then return nil, "mode is " .. tostring(st.mode) end
    node.inode, node.mode = st.inode, st.mode
    return true
  end)
end

ops.path_stat = question("stat", any_path, function(_, node) return { M.check_stat(node) } end)

ops.space = question("space", any_dir, function()
  return { values.check(function(got)
    return got[1] and got[1] <= got[2], "free space is more than the whole"
  end) }
end)

--- Names of the regular files of a directory, as ls gives them.
function M.files_of(node)
  local names = {}
  for name, child in pairs(node.dir) do
    if not child.dir then names[#names + 1] = name end
  end
  table.sort(names)
  return names
end

ops.mkdir = {
  make = function(ctx)
    local r = ctx.r
    local path = r:one_in(6) and any_path(ctx) or r:pick(ctx.dirs)
    return { path = path, o = r:one_in(4) and { durable = true } or nil }
  end,
  text = function(s) return text.call("jdbfs.mkdir", 2, text.path(s.path), s.o) end,
  ready = always,
  expect = function(model, s)
    local at = model.root
    for name in s.path:gmatch("[^/]+") do
      if not at.dir then return io_error(model, "mkdir", s.path, "ENOTDIR", "EEXIST") end
      at = name == "." and at or at.dir[name] or M.new_dir()
    end
    if not at.dir then return io_error(model, "mkdir", s.path, "ENOTDIR", "EEXIST") end
    return with_apply(value(true), function() M.make(model, s.path) end)
  end,
}

ops.remove = {
  make = function(ctx)
    return { path = any_path(ctx), o = ctx.r:one_in(5) and { durable = true } or nil }
  end,
  text = function(s) return text.call("jdbfs.remove", 2, text.path(s.path), s.o) end,
  ready = path_is_free,
  expect = function(model, s)
    local node, why = M.find(model, s.path)
    if not node then return io_error(model, "remove", s.path, why) end
    if node.dir then return io_error(model, "remove", s.path, "EISDIR") end
    return with_apply(value(true), function() M.link(model, s.path, nil) end)
  end,
}

-- Every errno that a rename could give for what is wrong with it.
local function rename_faults(model, s)
  local faults = {}
  local function add(name) faults[#faults + 1] = { kind = "Io", name = name } end
  local node, why = M.find(model, s.path)
  local dir, last, old = M.walk(model, s.to)
  if not node then add(why) end
  if not dir then add(last) end
  if old and s.o and s.o.noreplace then add("EEXIST") end
  if node and node.dir and (s.to .. "/"):sub(1, #s.path + 1) == s.path .. "/" then
    if s.to ~= s.path then add("EINVAL") end
  elseif old and (s.path .. "/"):sub(1, #s.to + 1) == s.to .. "/" and s.to ~= s.path then
    add("ENOTEMPTY")
    add("EISDIR")
  elseif old and old.dir and node and not node.dir then
    add("EISDIR")
  elseif old and not old.dir and node and node.dir then
    add("ENOTDIR")
  elseif old and old.dir and node and node ~= old
    and (next(old.dir) or not model.facts.replaces_directories) then
    add("ENOTEMPTY")
    add("EEXIST")
  end
  return faults
end

ops.rename = {
  make = function(ctx)
    local r = ctx.r
    local step = { path = any_path(ctx), to = any_path(ctx) }
    if ctx.movable and r:one_in(12) then
      step.path, step.to = r:pick(ctx.movable), r:one_in(2) and r:pick(ctx.movable) or any_path(ctx)
    end
    if r:one_in(3) then step.o = { noreplace = r:one_in(2), durable = r:one_in(2) } end
    return step
  end,
  text = function(s)
    return text.call("jdbfs.rename", 3, text.path(s.path), text.path(s.to), s.o)
  end,
  ready = function(model, s) return M.is_free(model, s.path) and M.is_free(model, s.to) end,
  expect = function(model, s)
    local faults = rename_faults(model, s)
    if faults[1] then
      return { values.any_fault("rename", model.path(s.path), faults) }
    end
    return with_apply(value(true), function()
      local from, name, node = M.walk(model, s.path)
      local _, _, old = M.walk(model, s.to)
      if node == old then return end
      from.dir[name] = nil
      M.link(model, s.to, node)
    end)
  end,
}

ops.atomic_write = {
  make = function(ctx)
    local r = ctx.r
    local step = { path = any_path(ctx), seed = r:below(1000) }
    if r:one_in(4) then step.b = r:pick(ctx.bufs) end
    step.len = r:pick({ 0, 1, 100, 4095, 4096, 4097, 20000 })
    if r:one_in(10) then step.len = 1000000 + r:below(1000000) end
    return step
  end,
  text = function(s)
    local data = s.b and text.raw(text.buf(s.b)) or text.content_call(s.seed, s.len)
    return text.call("jdbfs.atomic_write", 2, text.path(s.path), data)
  end,
  ready = function(model, s)
    return (not s.b or model.b[s.b]) and path_is_free(model, s)
  end,
  expect = function(model, s)
    local dir, why, old = M.walk(model, s.path)
    local view, faults = s.b and model.b[s.b], {}
    if view and view.freed then faults[1] = { kind = "Closed" } end
    if not dir then faults[#faults + 1] = { kind = "Io", name = why } end
    if old and old.dir then faults[#faults + 1] = { kind = "Io", name = "EISDIR" } end
    if faults[1] then
      return { values.any_fault("atomic_write", model.path(s.path), faults) }
    end
    local data = view and view.mem:read(view.off, view.len) or text.content(s.seed, s.len)
    return with_apply(value(true), function()
      local node = M.new_file()
      node.bytes:write(0, data)
      node.mode = old and old.mode or model.facts.mode
      M.link(model, s.path, node)
    end)
  end,
}

M.ops = ops
M.weights = {
  { "exists", 3 }, { "ls", 4 }, { "sync_dir", 1 }, { "path_size", 3 }, { "path_stat", 6 },
  { "space", 1 }, { "mkdir", 6 }, { "remove", 5 }, { "rename", 9 }, { "atomic_write", 5 },
}

return M
