-- Stamped pages: every fault has its name, and good pages never get one. The verb verify.

local acknowledged = require("jdbfs.command.acknowledged")
local command = require("support_command")
local jdbfs = require("jdbfs")
local json = require("jdbfs.command.json")
local stamp = require("jdbfs.command.stamp")
local support = require("support")
local verify = require("jdbfs.command.verify")

local SIZE, SECTOR = 4096, 512
local FILE = 0xC0FFEE01

local scratch = jdbfs.buffer(2 * SIZE)
for seed = 1, 3, 2 do -- makes their patterns, which stay
  stamp.write(scratch, 0, SIZE, { file = FILE, page = 0, generation = 1, seed = seed })
end

local function stamped(page, generation, o)
  local buffer = jdbfs.buffer(SIZE)
  o = o or {}
  stamp.write(buffer, 0, SIZE, { file = o.file or FILE, page = page, generation = generation,
    sequence = 7, seed = 1 })
  local bytes = buffer:string()
  buffer:free()
  return bytes
end

-- The verdict on the bytes of a page that should be `page`.
local function judged(bytes, page, expected)
  expected = expected or {}
  expected.page, expected.file, expected.seed = page, FILE, 1
  scratch:set(100, bytes) -- anywhere in a buffer
  return stamp.check(scratch, 100, #bytes, expected)
end

local function flipped(bytes, at)
  return bytes:sub(1, at) .. string.char((bytes:byte(at + 1) + 1) % 256) .. bytes:sub(at + 2)
end

local function verb(...) return command.verb(verify.main, ...) end

describe("a stamped page", function()
  it("is ok, with its header", function()
    local verdict, map, found = judged(stamped(3, 5), 3, { generation = 5, issued = 5 })
    assert.are.equal("ok", verdict)
    assert.is_nil(map)
    assert.are.equal("3 5 7 1", ("%d %d %d %d"):format(found.page, found.generation,
      found.sequence, found.seed))
    assert.are.equal(FILE, found.file)
  end)

  it("has the same bytes on every Lua", function()
    scratch:set(0, stamped(3, 5))
    assert.are.equal(2261360501, scratch:crc32c(0, SIZE))
  end)

  it("differs from its next generation in every sector, and from every other page", function()
    for _, other in ipairs({ stamped(3, 6), stamped(4, 5), stamped(3 + 65536, 5) }) do
      local bytes = stamped(3, 5)
      for at = 0, SIZE - 1, SECTOR do
        local first, second = bytes:sub(at + 49, at + SECTOR - 4), other:sub(at + 49,
          at + SECTOR - 4)
        local same = 0
        for i = 1, #first do
          if first:byte(i) == second:byte(i) then same = same + 1 end
        end
        assert.is_true(same < #first / 20, same)
      end
    end
  end)

  it("with a changed byte anywhere is corrupt, or has lost its head", function()
    local bytes = stamped(3, 5)
    for at = 0, SIZE - 1 do
      local verdict, map = judged(flipped(bytes, at), 3)
      assert.are.equal("corrupt", verdict, at)
      if at >= 48 then
        local sector = math.floor(at / SECTOR)
        assert.are.equal("?", map:sub(sector + 1, sector + 1), at .. " " .. map)
      end
    end
  end)

  it("half written is torn, and the map shows where", function()
    local old, new = stamped(3, 4), stamped(3, 5)
    for sectors = 1, 7 do
      local at = sectors * SECTOR
      local verdict, map = judged(new:sub(1, at) .. old:sub(at + 1), 3)
      assert.are.equal("torn " .. ("N"):rep(sectors) .. ("O"):rep(8 - sectors),
        verdict .. " " .. map)
      verdict, map = judged(old:sub(1, at) .. new:sub(at + 1), 3)
      assert.are.equal("torn " .. ("O"):rep(sectors) .. ("N"):rep(8 - sectors),
        verdict .. " " .. map)
      local zeros = ("\0"):rep(SIZE)
      verdict, map = judged(new:sub(1, at) .. zeros:sub(at + 1), 3)
      assert.are.equal("torn " .. ("N"):rep(sectors) .. ("0"):rep(8 - sectors),
        verdict .. " " .. map)
      verdict, map = judged(zeros:sub(1, at) .. new:sub(at + 1), 3)
      assert.are.equal("torn " .. ("0"):rep(sectors) .. ("N"):rep(8 - sectors),
        verdict .. " " .. map)
    end
    local three = stamped(3, 6)
    local _, map = judged(three:sub(1, 512) .. old:sub(513, 1024) .. new:sub(1025, 2048)
      .. three:sub(2049), 3)
    assert.are.equal("NOOONNNN", map)
    -- Torn and damaged as well: what nobody wrote weighs more.
    assert.are.equal("corrupt", (judged(flipped(new:sub(1, 2048) .. old:sub(2049), 3000), 3)))
  end)

  it("in the wrong place or file is misdirected", function()
    assert.are.equal("misdirected", (judged(stamped(4, 5), 3)))
    assert.are.equal("misdirected", (judged(stamped(3, 5, { file = 9 }), 3)))
  end)

  it("older than the acknowledged one is stale, newer than any is from the future", function()
    assert.are.equal("stale", (judged(stamped(3, 4), 3, { generation = 5, issued = 6 })))
    assert.are.equal("future", (judged(stamped(3, 7), 3, { generation = 5, issued = 6 })))
    for generation = 5, 6 do
      assert.are.equal("ok", (judged(stamped(3, generation), 3, { generation = 5, issued = 6 })))
    end
    assert.are.equal("ok", (judged(stamped(3, 2 ^ 33), 3, { generation = 2 ^ 33 })))
    assert.are.equal("stale", (judged(stamped(3, 5), 3, { generation = 2 ^ 32 + 5 })))
  end)

  it("that never was one is zero or foreign", function()
    assert.are.equal("zero", (judged(("\0"):rep(SIZE), 3)))
    assert.are.equal("foreign", (judged(("x"):rep(SIZE), 3)))
    assert.are.equal("foreign", (judged(("\0"):rep(SIZE - 1) .. "x", 3)))
    local draw = require("support_result").random(3)
    local bytes = {}
    for i = 1, SIZE do bytes[i] = string.char(math.floor(draw() * 256)) end
    assert.are.equal("foreign", (judged(table.concat(bytes), 3)))
  end)

  it("raises no false alarm in a hundred thousand writes", function()
    local buffer, ledger, draw = jdbfs.buffer(1024), stamp.ledger(), require("support_result")
      .random(11)
    for _ = 1, 100000 do
      local page = math.floor(draw() * 50)
      if draw() < 0.01 then page = page * 1000003 end
      local generation = ledger:issue(page)
      stamp.write(buffer, 0, 1024, { file = FILE, page = page, generation = generation })
      if draw() < 0.5 then ledger:acknowledge(page, generation) end
      local verdict = stamp.check(buffer, 0, 1024, ledger:expect(page, { file = FILE, seed = 1 }))
      if verdict ~= "ok" then error(verdict .. " " .. page .. " " .. generation) end
    end
    buffer:free()
  end)
end)

describe("jdbfs verify", function()
  support.setup()

  -- A file of stamped pages of generation 2, with some replaced: page number -> bytes.
  local function file_of(pages, replaced, tail)
    local parts = {}
    for page = 0, pages - 1 do parts[page + 1] = (replaced or {})[page] or stamped(page, 2) end
    local path = support.path("data")
    support.put(path, table.concat(parts) .. (tail or ""))
    return path
  end

  -- A state that acknowledged generation 2 of the pages, with some changed.
  local function state_of(pages, changed, atomic)
    local path = support.path()
    local log = assert(acknowledged.create(path, { file = FILE, size = SIZE, seed = 1,
      sector = SECTOR, atomic = atomic }))
    for page = 0, pages - 1 do
      local generation = (changed or {})[page] or 2
      if generation > 0 then assert(acknowledged.note(log, page, generation)) end
    end
    assert(log:close())
    return path
  end

  it("passes a good file, and says what it saw", function()
    local path = file_of(300, nil, "rest")
    local status, out, err = verb(path)
    assert.are.equal(0, status, err)
    assert.is_truthy(out:find("300 pages of 4 KiB, file c0ffee01, seed 1", 1, true), out)
    assert.is_truthy(out:find("  ok%s+300\n"), out)
    assert.is_truthy(out:find("the last 4 bytes are no whole page", 1, true))
    assert.are.equal(0, (verb(path, "--state", state_of(300))))
  end)

  it("names every fault, with its page and exit status 4", function()
    local path = file_of(300, { [0] = flipped(stamped(0, 2), 99), [5] = stamped(6, 2),
      [7] = stamped(7, 2):sub(1, 1024) .. stamped(7, 1):sub(1025), [8] = ("\0"):rep(SIZE),
      [257] = stamped(257, 1), [258] = ("?"):rep(SIZE), [299] = stamped(299, 2, { file = 5 }) })
    local status, out = verb(path, "--state", state_of(300))
    assert.are.equal(4, status)
    for _, line in ipairs({ "page 0 at 0: corrupt  ?NNNNNNN", "page 8 at 32768: lost",
      "page 5 at 20480: misdirected  it is page 6 of file c0ffee01",
      "page 7 at 28672: torn  NNOOOOOO", "page 258 at 1056768: foreign",
      "page 257 at 1052672: stale  generation 1, acknowledged was 2",
      "page 299 at 1224704: misdirected  it is page 299 of file 00000005" }) do
      assert.is_truthy(out:find(line .. "\n", 1, true), line .. " is not in\n" .. out)
    end
    assert.is_truthy(out:find("  ok%s+293\n"), out)
    -- Without a state lost writes cannot be seen, all else can.
    status, out = verb(path)
    assert.are.equal(4, status)
    assert.is_truthy(out:find("zero%s+1\n") and out:find("ok%s+294\n"), out)
    assert.is_truthy(out:find("without --state lost writes cannot be told", 1, true))
  end)

  it("lets a write that was under way at the crash be old, new or torn", function()
    local torn = stamped(1, 3):sub(1, 2048) .. stamped(1, 2):sub(2049)
    local path = file_of(10, { [1] = torn, [2] = stamped(2, 3), [9] = ("\0"):rep(SIZE) })
    local status, out = verb(path, "--state", state_of(10, { [9] = 0 }))
    assert.are.equal(0, status, out)
    assert.is_truthy(out:find("in flight%s+1\n"), out)
    assert.are.equal(4, (verb(path, "--state", state_of(10, { [9] = 0 }, true))))
    -- A part older than what was acknowledged is not excused.
    torn = stamped(1, 3):sub(1, 2048) .. stamped(1, 1):sub(2049)
    assert.are.equal(4, (verb(file_of(10, { [1] = torn }), "--state", state_of(10))))
    -- Nor is a tear of which no part is newer.
    torn = stamped(1, 2):sub(1, 2048) .. stamped(1, 1):sub(2049)
    assert.are.equal(4, (verb(file_of(10, { [1] = torn }), "--state", state_of(10))))
  end)

  it("goes by the newest of the notes on a page, in whatever order they came", function()
    local state = support.path("state")
    local log = assert(acknowledged.create(state, { file = FILE, size = SIZE, seed = 1,
      sector = SECTOR }))
    for _, generation in ipairs({ 1, 3, 2 }) do assert(acknowledged.note(log, 4, generation)) end
    assert(log:close())
    assert.are.equal(0, (verb(file_of(5, { [4] = stamped(4, 3) }), "--state", state)))
    assert.are.equal(4, (verb(file_of(5), "--state", state)))
  end)

  it("misses pages that were acknowledged and are behind the end", function()
    local status, out = verb(file_of(10), "--state", state_of(12))
    assert.are.equal(4, status)
    assert.is_truthy(out:find("page 11 at 45056: lost", 1, true), out)
  end)

  it("finds the pages when the first are damaged", function()
    local status, out = verb(file_of(20, { [0] = ("\0"):rep(SIZE), [1] = ("x"):rep(SIZE) }))
    assert.are.equal(4, status)
    assert.is_truthy(out:find("20 pages of 4 KiB", 1, true), out)
  end)

  it("reads a block device like a file", function()
    local why = support.lacks("root", "losetup")
    if why then return pending(why) end
    local path = file_of(32, { [7] = stamped(8, 2) })
    local made, device = support.sh("losetup -r -f --show " .. support.quote(path))
    if made ~= 0 then return pending("no loop device: " .. device) end
    device = device:match("%S+")
    local status, out, err = verb(device)
    support.sh("losetup -d " .. device)
    assert.are.equal(4, status, err)
    assert.is_truthy(out:find("32 pages of 4 KiB", 1, true), out)
    assert.is_truthy(out:find("page 7 at 28672: misdirected", 1, true), out)
  end)

  it("prints JSON and nothing else when asked", function()
    local status, out = verb(file_of(9, { [3] = stamped(4, 2) }), "--json")
    assert.are.equal(4, status)
    local document = assert(json.decode(out))
    assert.are.equal("jdbfs.verify/1", document.schema)
    assert.are.equal(8, document.counts.ok)
    assert.are.equal("misdirected", document.bad[1].verdict)
    assert.are.equal(12288, document.bad[1].offset)
  end)

  it("refuses bad input with one sentence, and makes no state", function()
    local path, none = file_of(3), support.path("none")
    local foreign = support.path("foreign")
    support.put(foreign, ("text "):rep(5000))
    local wrong = support.path("wrong")
    local log = assert(jdbfs.log(wrong))
    assert(log:append("hello"))
    log:close()
    local other = support.path("other")
    assert(jdbfs.mkdir(other))
    for _, case in ipairs({
      { 1, "there is no log of acknowledged writes in it", path, "--state", other },
      { 2, "takes one file" }, { 2, "takes one file", path, path }, { 2, "unknown option", "-x" },
      { 1, "none", none }, { 2, "hold no stamped page", foreign },
      { 1, "there is no such state", path, "--state", none },
      { 1, "no log of acknowledged writes of this version", path, "--state", wrong },
    }) do
      local status, out, err = verb((unpack or table.unpack)(case, 3))
      assert.are.equal(case[1], status, err)
      assert.are.equal("", out)
      assert.is_truthy(err:find("^jdbfs: [^\n]+\n$"), err)
      assert.is_truthy(err:find(case[2], 1, true), err)
    end
    assert.are.equal("", support.names(other))
    assert.is_false(jdbfs.exists(none))
  end)

  it("believes only what was durable of a run that was killed", function()
    -- The run acknowledges after the sync and is killed in the middle; nothing it noted is lost.
    local path, state = support.path("pages"), support.path("state")
    local run = support.script([[
      local jdbfs = require("jdbfs")
      local acknowledged = require("jdbfs.command.acknowledged")
      local stamp = require("jdbfs.command.stamp")
      local f = assert(jdbfs.create(arg[1], { direct = "prefer" }))
      local log = assert(acknowledged.create(arg[2], { file = 9, size = 4096, seed = 3,
        sector = 512 }))
      local ledger, b = stamp.ledger(), jdbfs.buffer(4096)
      for i = 0, 99 do
        local page = i % 16
        local generation = ledger:issue(page)
        stamp.write(b, 0, 4096, { file = 9, page = page, generation = generation, seed = 3 })
        assert(f:write_at(b, page * 4096))
        assert(f:sync_data())
        assert(acknowledged.note(log, page, generation))
      end
      print("noted")
      io.stdout:flush()
      jdbfs.sleep(60)
    ]], { args = { path, state }, stop = { "KILL", support.on_wine and 6 or 3 } })
    assert.is_truthy(run.out:find("noted", 1, true), run.out .. run.err)
    local status, out = verb(path, "--state", state)
    assert.are.equal(0, status, out)
    assert.is_truthy(out:find("  ok%s+16\n"), out)
    -- One old page put back is found out.
    local bytes = support.get(path)
    local buffer = jdbfs.buffer(4096)
    stamp.write(buffer, 0, 4096, { file = 9, page = 2, generation = 6, seed = 3 })
    support.put(path, bytes:sub(1, 8192) .. buffer:string() .. bytes:sub(12289))
    buffer:free()
    status, out = verb(path, "--state", state)
    assert.are.equal(4, status)
    assert.is_truthy(out:find("page 2 at 8192: stale  generation 6, acknowledged was 7", 1, true),
      out)
  end)
end)
