-- Stamped pages: what a page holds tells which file, page and generation it is, sector by sector.
--
-- A page is any multiple of the sector. Its header has 48 bytes, all little-endian: u32 magic,
-- version, file id; u64 page number, generation, sequence of the writer; u32 seed, length of the
-- page, checksum. The last 4 bytes of every sector are the low half of the generation. All other
-- bytes follow from seed, page and generation and can be made again, so a sector of another write
-- is told from a damaged one. The checksum is the sum of the CRC-32C of the 44 bytes before it and
-- of the page behind it: neither has to be changed to check it.
--
-- Verdicts: ok; zero (all zeros); foreign (no stamped page); torn (sectors of several writes);
-- corrupt (bytes that nobody wrote); misdirected (a whole page of another place or file); stale
-- (older than the last acknowledged write: a lost one); future (newer than any write issued).

local jdbfs = require("jdbfs")

local floor, min = math.floor, math.min
local concat = table.concat
local pairs, setmetatable = pairs, setmetatable

local MAGIC, VERSION = 0x5053444A, 1 -- "JDSP"
local HEADER, TAIL = 48, 4
local WORD = 4294967296
local PATTERNS_MAX = 4
local PATTERN = 65536 -- bytes; a page starts anywhere in them
local DEFAULT_SECTOR = 512

-- The bytes of pages ------------------------------------------------------------------------------

local patterns, patterns_made = {}, 0

-- The pattern of a seed, twice in a row, so that it goes on from any place to start. Few are kept:
-- a damaged header may hold any seed.
local function pattern_of(seed)
  local pattern = patterns[seed]
  if pattern then return pattern end
  if patterns_made == PATTERNS_MAX then
    for each, old in pairs(patterns) do
      old:free()
      patterns[each] = nil
    end
    patterns_made = 0
  end
  patterns_made = patterns_made + 1
  pattern = jdbfs.buffer(2 * PATTERN)
  local state = seed % 2147483646 + 1
  local function draw()
    state = state * 16807 % 2147483647
    return floor(state / 32768) % 65536
  end
  for at = 0, PATTERN - 2, 2 do
    pattern:u16(at, draw())
  end
  pattern:copy(PATTERN, pattern, 0, PATTERN)
  patterns[seed] = pattern
  return pattern
end

-- Where in the pattern a page starts. The factors are odd: a change in one half of page number or
-- generation (its low 32 bits) always leads elsewhere.
local function start_of(page, generation)
  return (page % 65536 * 40503 + floor(page / 65536) % 65536 * 7919
    + generation % 65536 * 30011 + floor(generation / 65536) * 50021) % PATTERN
end

-- Copies the body of a page, byte `from` of it on, to a place in a buffer.
local function copy_body(buffer, at, from, length, pattern, start)
  while length > 0 do
    local place = (start + from) % PATTERN
    local part = min(length, PATTERN)
    buffer:copy(at, pattern, place, part)
    at, from, length = at + part, from + part, length - part
  end
end

local function halves(value)
  return value % WORD, floor(value / WORD)
end

local function put_u64(buffer, at, value)
  local low, high = halves(value)
  buffer:u32(at, low)
  buffer:u32(at + 4, high)
end

-- Numbers beyond 2^53, which only damaged pages hold, lose their last digits.
local function get_u64(buffer, at)
  return buffer:u32(at) + buffer:u32(at + 4) * WORD
end

local function checksum(buffer, at, size)
  return (buffer:crc32c(at, HEADER - 4) + buffer:crc32c(at + HEADER, size - HEADER)) % WORD
end

-- Stamps the `size` bytes of a buffer from `at` on. fields: file (u32), page, generation (whole
-- numbers below 2^53, generations from 1), sequence (0), seed (1), sector (512).
local function write(buffer, at, size, fields)
  local seed, sector = fields.seed or 1, fields.sector or DEFAULT_SECTOR
  local low = fields.generation % WORD
  copy_body(buffer, at + HEADER, HEADER, size - HEADER, pattern_of(seed),
    start_of(fields.page, low))
  for last = at + sector - TAIL, at + size - TAIL, sector do
    buffer:u32(last, low)
  end
  buffer:u32(at, MAGIC)
  buffer:u32(at + 4, VERSION)
  buffer:u32(at + 8, fields.file)
  put_u64(buffer, at + 12, fields.page)
  put_u64(buffer, at + 20, fields.generation)
  put_u64(buffer, at + 28, fields.sequence or 0)
  buffer:u32(at + 36, seed)
  buffer:u32(at + 40, size)
  buffer:u32(at + 44, checksum(buffer, at, size))
end

-- The header at that place, or nil when there is none.
local function header(buffer, at)
  if buffer:u32(at) ~= MAGIC or buffer:u32(at + 4) ~= VERSION then return nil end
  return { file = buffer:u32(at + 8), page = get_u64(buffer, at + 12),
    generation = get_u64(buffer, at + 20), sequence = get_u64(buffer, at + 28),
    seed = buffer:u32(at + 36), length = buffer:u32(at + 40) }
end

-- Checking ----------------------------------------------------------------------------------------

local function is_zero(buffer, at, length)
  return not buffer:string(at, length):find("[^%z]")
end

-- Whether a sector holds what a write of that generation put there, the header aside.
local function sector_matches(buffer, at, number, sector, page, low, seed)
  local from = number == 0 and HEADER or 0
  local length = sector - from - TAIL
  local wanted = jdbfs.buffer(length)
  copy_body(wanted, 0, number * sector + from, length, pattern_of(seed), start_of(page, low))
  local same = wanted:string() == buffer:string(at + number * sector + from, length)
  wanted:free()
  return same
end

-- Whether a first sector has the header of that page and generation.
local function heads(buffer, at, page, low)
  local found = header(buffer, at)
  return found and found.page == page and found.generation % WORD == low
end

-- Looks at each sector by itself. Gives "torn" or "corrupt" and the map of the page: N for sectors
-- of its newest write, O for older ones, 0 for zeros, ? for what nobody wrote. Then the newest and
-- the oldest generation there, their low halves; 0 is the oldest where sectors are zero.
local function inspect(buffer, at, size, page, seed, sector)
  local marks, generations, newest, oldest = {}, {}, nil, nil
  local damaged, written = false, false
  for number = 0, size / sector - 1 do
    local place = at + number * sector
    local low = buffer:u32(place + sector - TAIL)
    local has_header = number > 0 or heads(buffer, place, page, low)
    if is_zero(buffer, place, sector) then
      marks[number + 1] = "0"
    elseif has_header and sector_matches(buffer, at, number, sector, page, low, seed) then
      generations[number + 1], written = low, true
      if not newest or (low - newest) % WORD < WORD / 2 then newest = low end
      if not oldest or (oldest - low) % WORD < WORD / 2 then oldest = low end
    else
      marks[number + 1], damaged = "?", true
    end
  end
  for number in pairs(generations) do
    marks[number] = generations[number] == newest and "N" or "O"
  end
  local map = concat(marks)
  if not written then return "foreign", map end
  local torn = not damaged and map:find("[O0]") ~= nil
  return torn and "torn" or "corrupt", map, newest, map:find("0", 1, true) and 0 or oldest
end

local function has_one_generation(buffer, at, size, sector, low)
  for last = at + sector - TAIL, at + size - TAIL, sector do
    if buffer:u32(last) ~= low then return false end
  end
  return true
end

-- Compares a whole page with what should be there.
local function judge(found, expected)
  if expected.file and found.file ~= expected.file
    or expected.page and found.page ~= expected.page then
    return "misdirected"
  end
  if expected.generation and found.generation < expected.generation then return "stale" end
  if expected.issued and found.generation > expected.issued then return "future" end
  return "ok"
end

-- The verdict on a page, a map of its sectors where it is torn or corrupt, and the header found.
-- expected: page; file, seed, sector (512); generation, the last acknowledged one; issued, the last
-- one handed out. What is missing is not judged. A torn page's header also has the `newest` and
-- the `oldest` generation of its sectors, their low halves.
local function check(buffer, at, size, expected)
  local sector = expected.sector or DEFAULT_SECTOR
  local found = header(buffer, at)
  if not found then
    if is_zero(buffer, at, size) then return "zero" end
    if not expected.page or not expected.seed then return "foreign" end
    local verdict, map, newest, oldest = inspect(buffer, at, size, expected.page, expected.seed,
      sector)
    if verdict == "foreign" then return "foreign" end
    return verdict, map, { page = expected.page, newest = newest, oldest = oldest }
  end
  local low = found.generation % WORD
  local whole = found.length == size and has_one_generation(buffer, at, size, sector, low)
    and buffer:u32(at + 44) == checksum(buffer, at, size)
  if whole then return judge(found, expected), nil, found end
  local seed = expected.seed or found.seed
  local verdict, map, newest, oldest = inspect(buffer, at, size, found.page, seed, sector)
  if verdict == "foreign" and expected.page then
    local _
    _, map, newest, oldest = inspect(buffer, at, size, expected.page, seed, sector)
  end
  found.newest, found.oldest = newest, oldest
  if verdict == "foreign" then verdict = "corrupt" end
  return verdict, map, found
end

-- What has been written ---------------------------------------------------------------------------

local Ledger = {}
Ledger.__index = Ledger

-- Generations of the pages of a file while it is worked on.
local function ledger()
  return setmetatable({ issued = {}, acknowledged = {} }, Ledger)
end

-- The generation of the next write of a page. One write of a page at a time.
function Ledger:issue(page)
  local generation = (self.issued[page] or 0) + 1
  self.issued[page] = generation
  return generation
end

-- The write of that generation is durable, or as durable as the run asked for.
function Ledger:acknowledge(page, generation)
  if generation > (self.acknowledged[page] or 0) then self.acknowledged[page] = generation end
end

-- Adds to a table of expectations what a read of the page may find.
function Ledger:expect(page, expected)
  expected.page, expected.issued = page, self.issued[page] or 0
  expected.generation = self.acknowledged[page]
  return expected
end

return {
  HEADER = HEADER,
  write = write,
  check = check,
  header = header,
  ledger = ledger,
}
