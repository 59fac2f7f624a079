-- Copies a file or a block device at the speed of the devices: many large direct transfers in
-- flight at once, no page cache, no copy of the bytes in this process.
--
--   local copy = require "jdbfs.example.copy"
--   local bytes, seconds = assert(copy("disk.img", "backup.img", { block = 1048576, depth = 8 }))
--   print(("%d bytes, %.0f MB/s"):format(bytes, bytes / seconds / 1e6))
--
-- Promise: when it returns the copy is on stable storage, content, length and name. When it fails
-- there is no file under the new name (unless the removal fails too, or the power does).

local jdbfs = require "jdbfs"

-- Blocks from one file to the other, until `next_offset` gives no more. The last one is written
-- whole, since direct transfers are; the length is put right at the end.
local function work(from, to, block, align, next_offset)
  local buffer, message, err = jdbfs.buffer(block)
  if not buffer then return nil, message, err end
  for offset in next_offset do
    local n
    n, message, err = from:read_upto(buffer, offset)
    if not n then return nil, message, err end
    local padded = math.ceil(n / align) * align
    if padded > n then buffer:fill(0, n, padded - n) end
    local ok
    ok, message, err = to:write_at(buffer, offset, 0, padded)
    if not ok then return nil, message, err end
  end
  return true
end

local function copy_blocks(from, to, size, o)
  local block, offset, tasks = o.block or 1048576, 0, {}
  local info, why, cause = to:info()
  if not info then return nil, why, cause end
  local failed
  local function next_offset()
    local at = offset
    offset = offset + block
    if at < size and not failed then return at end
  end
  for i = 1, o.depth or 8 do
    tasks[i] = jdbfs.spawn(function()
      local ok, message, err = work(from, to, block, info.write_alignment, next_offset)
      if not ok then failed = failed or { message, err } end
    end)
  end
  for _, task in ipairs(tasks) do task:join() end
  if failed then return nil, failed[1], failed[2] end
  local ok, message, err = to:truncate(size)
  if ok then ok, message, err = to:sync_all() end
  return ok, message, err
end

local function copy(from_path, to_path, o)
  o = o or {}
  local began = jdbfs.now()
  local from, message, err = jdbfs.open(from_path, { direct = o.direct, device = o.device })
  if not from then return nil, message, err end
  local to
  to, message, err = jdbfs.create(to_path, { direct = o.direct, exclusive = true,
    durable_create = true })
  if not to then
    from:close()
    return nil, message, err
  end
  local size, ok
  size, message, err = from:size()
  if size then ok, message, err = copy_blocks(from, to, size, o) end
  from:close()
  to:close()
  if ok then return size, jdbfs.now() - began end
  jdbfs.remove(to_path)
  return nil, message, err
end

return copy
