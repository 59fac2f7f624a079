-- --verify: every page of the target is stamped, and every page read is checked against what was
-- written last. One operation of a page at a time, so that a verdict is never a matter of timing.

local acknowledged = require("jdbfs.command.acknowledged")
local core = require("jdbfs.core")
local stamp = require("jdbfs.command.stamp")
local status = require("jdbfs.command.status")

local floor, ipairs, setmetatable, tostring = math.floor, ipairs, setmetatable, tostring
local current, park, wake = core.current, core.park, core.wake

local TOLD_MAX = 5 -- bad pages that are named; all are counted
local FILLED = { __index = function() return 1 end } -- the generation that filling gives a page

local Verifier = {}
Verifier.__index = Verifier

-- Page locks -------------------------------------------------------------------------------------

local function lock(self, page)
  while self.locked[page] do
    local waiters = self.locked[page]
    waiters[#waiters + 1] = current()
    park()
  end
  self.locked[page] = {}
end

local function unlock(self, page)
  local waiters = self.locked[page]
  self.locked[page] = nil
  for _, task in ipairs(waiters) do wake(task) end
end

-- Locks are taken in order of page number, so that no two wait for each other.
local function each_page(self, off, length, action)
  for page = floor(off / self.bs), floor((off + length - 1) / self.bs) do action(self, page) end
end

-- What is found ----------------------------------------------------------------------------------

local function note_bad(self, page, verdict, map)
  self.bad = self.bad + 1
  if self.bad <= TOLD_MAX then
    self.run:warn(("verify: page %.0f is %s%s"):format(page, verdict,
      map and map ~= "" and " (" .. map .. ")" or ""))
  end
end

local function check(self, buffer, off, length)
  for at = 0, length - self.bs, self.bs do
    local page = (off + at) / self.bs
    local expected = { page = page, sector = self.sector, seed = self.seed }
    if self.ledger then
      expected.file = self.file
      self.ledger:expect(page, expected)
    end
    local verdict, map = stamp.check(buffer, at, self.bs, expected)
    self.checked = self.checked + 1
    if verdict ~= "ok" then note_bad(self, page, verdict, map) end
  end
end

-- The file that workloads get ---------------------------------------------------------------------

local File = {}

function File.__index(file, key)
  return File[key] or file.inner[key]
end

local function whole_pages(self, off, length)
  return off % self.bs == 0 and length % self.bs == 0 and length > 0
end

function File:read(off, page)
  local verifier, inner = self.verifier, self.inner
  local buffer = page and (page.buffer or page) or inner.buffer
  if not whole_pages(verifier, off, #buffer) then return inner:read(off, page) end
  each_page(verifier, off, #buffer, lock)
  local got, message, err = inner:read(off, buffer)
  if got then check(verifier, buffer, off, got) end
  each_page(verifier, off, #buffer, unlock)
  return got, message, err
end

-- What the pages held is replaced by stamps.
local function write(self, name, page, off)
  local verifier, inner = self.verifier, self.inner
  local buffer = page.buffer or page
  if not whole_pages(verifier, off, #buffer) then
    return nil, ("verify: writes must be whole pages of %d bytes"):format(verifier.bs)
  end
  each_page(verifier, off, #buffer, lock)
  local generations = {}
  for at = 0, #buffer - verifier.bs, verifier.bs do
    local number = (off + at) / verifier.bs
    generations[number] = verifier.ledger:issue(number)
    verifier:stamp_page(buffer, at, number, generations[number])
  end
  local written, message, err = inner[name](inner, buffer, off)
  if written then
    each_page(verifier, off, #buffer, function(_, number)
      verifier.ledger:acknowledge(number, generations[number])
      if verifier.log then
        written, message, err = acknowledged.note(verifier.log, number, generations[number])
      end
    end)
  end
  each_page(verifier, off, #buffer, unlock)
  return written, message, err
end

function File:write(page, off) return write(self, "write", page, off) end
function File:write_sync(page, off) return write(self, "write_sync", page, off) end

-- The verifier -----------------------------------------------------------------------------------

function Verifier:stamp_page(buffer, at, page, generation)
  self.sequence = self.sequence + 1
  stamp.write(buffer, at, self.bs, { file = self.file, page = page, generation = generation,
    sequence = self.sequence, seed = self.seed, sector = self.sector })
end

-- For filling: the pages of a part of the file.
function Verifier:stamp(buffer, off, length)
  for at = 0, length - self.bs, self.bs do
    self:stamp_page(buffer, at, (off + at) / self.bs, 1)
  end
end

function Verifier:wrap(file)
  return setmetatable({ verifier = self, inner = file }, File)
end

function Verifier:close()
  if self.log then
    local closed, message = self.log:close()
    if not closed then self.run:warn(tostring(message)) end
    self.log = nil
  end
end

local M = { File = File }

-- For a target of pages of bs bytes. state: where to log what was acknowledged, or nil.
function M.new(run, target, bs, info)
  local options = run.options
  local self = setmetatable({ run = run, bs = bs, locked = {}, bad = 0, checked = 0,
    sequence = 0, seed = options.seed % 2147483646, sector = info.logical_block or 512 }, Verifier)
  if bs % self.sector ~= 0 then self.sector = 512 end
  if target.exists then
    if target.writable then
      status.usage("--verify writes only to a file that is made in this run, not to %s",
        target.path)
    end
    self.seed = nil
    return self
  end
  self.file = core.random(options.seed, 0, 1):int(0, 4294967295)
  self.ledger = stamp.ledger()
  setmetatable(self.ledger.issued, FILLED)
  setmetatable(self.ledger.acknowledged, FILLED)
  if options.state then
    local log, message = acknowledged.create(options.state, { file = self.file, size = bs,
      seed = self.seed, sector = self.sector })
    if not log then status.fail(status.USAGE, tostring(message)) end
    self.log = log
  end
  return self
end

return M
