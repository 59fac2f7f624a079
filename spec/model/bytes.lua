-- A sequence of bytes with holes, as a file or a buffer has them: a table of pages, each a string.
-- The plain counterpart that jdbfs is compared with: nothing here knows of jdbfs.

local PAGE = 4096
local ZEROS = ("\0"):rep(PAGE)
local floor = math.floor

local Bytes = {}
Bytes.__index = Bytes

local function new(size)
  return setmetatable({ size = size, pages = {} }, Bytes)
end

--- The bytes of a range; those behind the size are not there.
function Bytes:read(off, n)
  if off >= self.size or n <= 0 then return "" end
  if n > self.size - off then n = self.size - off end
  local parts, stop = {}, off + n
  while off < stop do
    local i, skip = floor(off / PAGE), off % PAGE
    local last = stop - off < PAGE - skip and skip + (stop - off) or PAGE
    local page = self.pages[i] or ZEROS
    parts[#parts + 1] = (skip == 0 and last == PAGE) and page or page:sub(skip + 1, last)
    off = off + (last - skip)
  end
  return table.concat(parts)
end

--- Writes a string; the size grows with it.
function Bytes:write(off, s)
  local at = 1
  if off + #s > self.size and #s > 0 then self.size = off + #s end
  while at <= #s do
    local i, skip = floor(off / PAGE), off % PAGE
    local piece = s:sub(at, at + PAGE - skip - 1)
    if #piece == PAGE then
      self.pages[i] = piece
    else
      local page = self.pages[i] or ZEROS
      self.pages[i] = page:sub(1, skip) .. piece .. page:sub(skip + #piece + 1)
    end
    at, off = at + #piece, off + #piece
  end
end

--- Zeros in a range; the size stays.
function Bytes:zero(off, n)
  local stop = off + n
  for i, page in pairs(self.pages) do
    local from, last = off - i * PAGE, stop - i * PAGE
    if from <= 0 and last >= PAGE then
      self.pages[i] = nil
    elseif from < PAGE and last > 0 then
      if from < 0 then from = 0 end
      if last > PAGE then last = PAGE end
      self.pages[i] = page:sub(1, from) .. ZEROS:sub(1, last - from) .. page:sub(last + 1)
    end
  end
end

function Bytes:resize(size)
  if size < self.size then self:zero(size, self.size - size) end
  self.size = size
end

--- {{offset, bytes}, ...}: all of a small one; of a large one what is no hole, and its last page.
function Bytes:parts(limit)
  if self.size <= limit then return { { 0, self:read(0, self.size) } } end
  local list = {}
  for i in pairs(self.pages) do list[#list + 1] = { i * PAGE, self:read(i * PAGE, PAGE) } end
  local last = self.size - self.size % PAGE
  list[#list + 1] = { last, self:read(last, PAGE) }
  return list
end

return new
