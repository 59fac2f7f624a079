-- What the command measures with: histograms, random streams, arrivals, times of operations.

local core = require("jdbfs.core")
local distribution = require("jdbfs.command.distribution")
local jdbfs = require("jdbfs")
local support = require("support")

local function numbers(count, draw)
  local list = {}
  for i = 1, count do list[i] = draw(i) end
  return list
end

describe("a histogram", function()
  it("is off by at most 0.39 %, and exact in count, sum, smallest and largest", function()
    local list = numbers(100000, function(i) return i * 137 + 1 end)
    local d = core.histogram(list)
    assert.are.equal(100000, d.n)
    assert.are.equal(138, d.min_ns)
    assert.are.equal(13700001, d.max_ns)
    assert.are.equal(137 * 100000 * 100001 / 2 + 100000, d.sum_ns)
    for _, p in ipairs({ 50, 90, 99, 99.9, 99.99 }) do
      local exact = math.ceil(1000 * p) * 137 + 1
      local off = math.abs(distribution.percentile(d, p) / exact - 1)
      assert.is_true(off < 0.0039 + 1 / 1000, p .. ": " .. off)
    end
  end)

  it("keeps every value in the bucket that its lower bound names", function()
    for shift = 0, 45 do
      for _, value in ipairs({ 2 ^ shift, 2 ^ shift + 1, 2 ^ (shift + 1) - 1 }) do
        local bucket = core.histogram({ value }).hist[1]
        local width = distribution.bucket_width(bucket[1])
        assert.is_true(bucket[1] <= value and value < bucket[1] + width, value)
        assert.is_true(value < 256 or width <= bucket[1] / 128, value)
      end
    end
  end)

  it("takes what is below nothing as nothing", function()
    local d = core.histogram({ -5, 0 })
    assert.are.equal(2, d.n)
    assert.are.equal(0, d.max_ns)
  end)
end)

describe("a random stream", function()
  support.setup()

  local function first(...)
    local r = core.random(...)
    local words = numbers(6, function() return ("%.0f"):format(r:int(0, 65535)) end)
    return table.concat(words, " ")
  end

  it("depends on seed, job and coroutine alone, on every Lua", function()
    assert.are.equal(first(1, 2, 3), first(1, 2, 3))
    assert.are_not.equal(first(1, 2, 3), first(2, 2, 3))
    assert.are_not.equal(first(1, 2, 3), first(1, 3, 3))
    assert.are_not.equal(first(1, 2, 3), first(1, 2, 4))
    assert.are_not.equal(first(1, 2, 3), first(1, 3, 2))
    assert.are.equal("30597 35434 18056 20260 3214 48551", first(1, 1, 1))
    local r = core.random(1, 1, 1)
    r:pages("zipf", 1000, 4096, 1, 1, 1, true, 0.99)
    local drawn = { r:page(), r:zipf(1000, 1.2), r:zipf(1000, 1), r:int(-5, 5), #r:perm(4) }
    for i, value in ipairs(drawn) do drawn[i] = ("%.0f"):format(value) end
    assert.are.equal("3268608 7 2 -1 4", table.concat(drawn, " "))
  end)

  it("numbers the buffer that a page is drawn for, and refuses one that it cannot write", function()
    local r, buffer = core.random(1, 1, 1), jdbfs.buffer(4096)
    r:pages("seq", 3, 4096, 1, 1, 1)
    for i, off in ipairs({ 0, 4096, 8192, 0 }) do
      assert.are.equal(off, r:page(buffer:slice(512, 512)))
      assert.are.equal(off, tonumber(buffer:u32(512)))
      assert.are.equal(i, tonumber(buffer:u32(520)))
    end
    assert.are.equal(("\0"):rep(512), buffer:string(0, 512))
    assert.has_error(function() r:page(jdbfs.buffer(15)) end)
    assert.has_error(function() core.number(jdbfs.buffer(15), 1, 2) end)
    buffer:free()
    assert.has_error(function() r:page(buffer) end)
    assert.has_error(function() r:page("text") end)
  end)

  it("and a file and a buffer make calls that read and write the pages it draws", function()
    local file, buffer = assert(jdbfs.create(support.path("a"))), jdbfs.buffer(4096)
    local draws, same = core.random(1, 1, 1), core.random(1, 1, 1)
    draws:pages("uniform", 8, 4096, 1, 1, 1)
    same:pages("uniform", 8, 4096, 1, 1, 1)
    assert(file:truncate(8 * 4096))
    local read, write = core.drawn(file, buffer, draws)
    local last = {}
    for number = 1, 20 do
      buffer:fill(number, 16)
      assert.are.equal(4096, write())
      last[same:page()] = number
    end
    for _ = 1, 20 do
      local off = same:page()
      buffer:fill(0)
      assert.are.equal(4096, read())
      assert.are.equal(last[off] or 0, tonumber(buffer:u32(8)))
      assert.are.equal(last[off] or 0, buffer:u8(4095))
      assert.are.equal(last[off] and off or 0, tonumber(buffer:u32(0)))
    end
    assert.has_error(function() core.drawn(file, buffer) end)
    assert.has_error(function() core.drawn(buffer, buffer, draws) end)
    local path = file:path()
    assert.has_error((core.drawn(file, buffer, core.random(1, 1, 1))),
      "page: there is no target file to draw from")
    local short = core.drawn(file, jdbfs.buffer(64), draws)
    support.fails({ kind = "Alignment", op = "read_at", path = path, says = "length" }, short())
    assert(file:close())
    support.fails({ kind = "Closed", op = "write_at", path = path, says = "closed" }, write())
    buffer:free()
    support.fails({ kind = "Closed", op = "read_at", path = path, says = "freed" }, read())
    assert.has_error(write)
  end)

  it("draws the same bytes, compressible as asked", function()
    local bytes = core.random(1, 1, 1):bytes(8192, 25)
    assert.are.equal(bytes, core.random(1, 1, 1):bytes(8192, 25))
    assert.are.equal(("\0"):rep(1024), bytes:sub(3073, 4096))
    assert.are.equal(("\0"):rep(1024), bytes:sub(7169, 8192))
    assert.is_nil(bytes:sub(1, 3072):find("\0\0\0\0", 1, true))
  end)

  it("stays within its bounds and reaches all of them", function()
    local r, seen, count = core.random(7, 1, 1), {}, 0
    for _ = 1, 2000 do
      local value = r:int(-32, 31)
      assert.is_true(value >= -32 and value <= 31 and value % 1 == 0)
      if not seen[value] then seen[value], count = true, count + 1 end
      assert.is_true(r:float() < 1)
      assert.is_true(r:pareto(1.5) >= 1)
      assert.is_true(r:exp() >= 0)
    end
    assert.are.equal(64, count)
    local list = r:perm(100)
    table.sort(list)
    for i = 1, 100 do assert.are.equal(i, list[i]) end
    assert.is_true(({ a = true, b = true })[r:pick({ "a", "b" })])
    assert.has_error(function() r:int(2, 1) end)
    assert.has_error(function() r:zipf(10, 0) end)
  end)

  it("has the mean and the spread it should", function()
    local r, sum, normal, squares = core.random(3, 1, 1), 0, 0, 0
    for _ = 1, 40000 do
      sum = sum + r:exp(2)
      local x = r:normal(5, 3)
      normal, squares = normal + x, squares + (x - 5) * (x - 5)
    end
    assert.is_true(math.abs(sum / 40000 - 2) < 0.05)
    assert.is_true(math.abs(normal / 40000 - 5) < 0.06)
    assert.is_true(math.abs(math.sqrt(squares / 40000) - 3) < 0.05)
  end)
end)

describe("Zipf", function()
  -- The sum of k^-theta from `from` to `to`: term by term, the tail by Euler and Maclaurin.
  local function harmonic(theta, from, to)
    local sum, exact_to = 0, math.min(to, from + 20000)
    for k = from, exact_to do sum = sum + k ^ -theta end
    if exact_to == to then return sum end
    local a = exact_to
    local integral = theta == 1 and math.log(to / a)
      or (to ^ (1 - theta) - a ^ (1 - theta)) / (1 - theta)
    return sum + integral + (to ^ -theta - a ^ -theta) / 2
  end

  -- Ranks in octaves: chi squared of 100000 draws against what the formula says.
  local function chi_squared(n, theta)
    local total, draws, bounds, counts = harmonic(theta, 1, n), 100000, { 1, 2, 3 }, {}
    while bounds[#bounds] * 2 < n do bounds[#bounds + 1] = bounds[#bounds] * 2 end
    bounds[#bounds + 1] = n + 1
    local r = core.random(11, 1, 1)
    for i = 1, #bounds - 1 do counts[i] = 0 end
    for _ = 1, draws do
      local rank = r:zipf(n, theta)
      assert(rank >= 1 and rank <= n)
      for i = #bounds - 1, 1, -1 do
        if rank >= bounds[i] then counts[i] = counts[i] + 1 break end
      end
    end
    local sum, cells = 0, 0
    for i, count in ipairs(counts) do
      local expected = draws * harmonic(theta, bounds[i], bounds[i + 1] - 1) / total
      if expected >= 5 then
        sum, cells = sum + (count - expected) ^ 2 / expected, cells + 1
      end
    end
    return sum, cells - 1
  end

  for _, theta in ipairs({ 0.5, 0.99, 1, 1.2 }) do
    for _, bits in ipairs({ 18, 26 }) do
      it(("is one for theta %g over 2^%d pages"):format(theta, bits), function()
        local value, freedom = chi_squared(2 ^ bits, theta)
        -- Mean `freedom`, deviation sqrt(2 * freedom): five deviations are no accident.
        assert.is_true(value < freedom + 5 * math.sqrt(2 * freedom), value .. " of " .. freedom)
      end)
    end
  end
end)

describe("a scattered rank", function()
  it("is a bijection for any number of pages, and depends on the key", function()
    for _, n in ipairs({ 1, 2, 3, 5, 64, 100, 1000, 4097 }) do
      local seen = {}
      for i = 0, n - 1 do
        local page = core.scatter(i, n, 42)
        assert.is_true(page >= 0 and page < n and not seen[page])
        seen[page] = true
      end
    end
    local same = 0
    for i = 0, 999 do
      if core.scatter(i, 1000, 1) == core.scatter(i, 1000, 2) then same = same + 1 end
    end
    assert.is_true(same < 20, same)
  end)
end)

describe("pages drawn", function()
  local function shares(kind, ...)
    local r, counts = core.random(5, 1, 1), {}
    r:pages(kind, 1000, 512, 1, 1, 9, ...)
    for _ = 1, 50000 do
      local page = r:page() / 512
      assert(page % 1 == 0 and page >= 0 and page < 1000)
      counts[page] = (counts[page] or 0) + 1
    end
    return counts
  end

  it("are uniform", function()
    local counts, value = shares("uniform"), 0
    for page = 0, 999 do value = value + ((counts[page] or 0) - 50) ^ 2 / 50 end
    assert.is_true(value > 999 - 5 * 44.7 and value < 999 + 5 * 44.7, value)
  end)

  it("fall on a tenth of the pages in nine of ten draws of hotspot:90/10", function()
    for _, scatter in ipairs({ true, false }) do
      local counts, hot = shares("hotspot", scatter, 0.9, 0.1), 0
      for i = 0, 99 do
        hot = hot + (counts[scatter and core.scatter(i, 1000, 9) or i] or 0)
      end
      assert.is_true(math.abs(hot / 50000 - 0.9) < 0.01, hot)
    end
  end)

  it("fall on a fifth of the pages in four of five draws of pareto:0.2", function()
    local counts, hot = shares("pareto", false, 0.2), 0
    for i = 0, 199 do hot = hot + (counts[i] or 0) end
    assert.is_true(math.abs(hot / 50000 - 0.8) < 0.01, hot)
  end)

  it("of sequential streams cover everything in order, each stream its share", function()
    local a, b = core.random(1, 1, 1), core.random(1, 1, 2)
    a:pages("seq", 6, 10, 1, 2, 0)
    b:pages("seq", 6, 10, 2, 2, 0)
    local got = {}
    for _ = 1, 4 do got[#got + 1], got[#got + 2] = a:page(), b:page() end
    for i, value in ipairs(got) do got[i] = ("%.0f"):format(value) end
    assert.are.equal("0 10 20 30 40 50 0 10", table.concat(got, " "))
  end)
end)

describe("arrivals", function()
  it("are due on time, and count as backlog when nobody takes them", function()
    local a = core.arrivals(1000, "const", core.random(1, 1, 1))
    a:mark()
    jdbfs.sleep(0.2)
    local offered, backlog, most = a:state()
    assert.is_true(offered >= 200 and offered < 5000, offered)
    assert.is_true(backlog >= offered and most >= backlog)
    jdbfs.run(function()
      local first
      for _ = 1, 100 do
        a:next()
        first = first or core.due()
      end
      assert.is_true(math.abs(core.due() - first - 99e6) < 10)
      assert.is_true(core.due() < core.now_ns())
    end)
    local _, left = a:state()
    assert.is_true(left <= a:state() - 90)
  end)

  it("wait for the one that is to come", function()
    jdbfs.run(function()
      local a, before = core.arrivals(50, "const", core.random(1, 1, 1)), core.now_ns()
      for _ = 1, 5 do a:next() end
      assert.is_true(core.now_ns() - before >= 79e6)
      assert.is_true(core.now_ns() >= core.due())
    end)
  end)

  it("of a Poisson stream have its mean, and the same gaps for the same seed", function()
    local function gaps(seed)
      local list = {}
      jdbfs.run(function()
        local a = core.arrivals(1e6, "poisson", core.random(seed, 1, 1))
        jdbfs.sleep(0.03)
        local before
        for i = 1, 20000 do
          a:next()
          if before then list[i - 1] = core.due() - before end
          before = core.due()
        end
      end)
      return list
    end
    local list, again, sum, long = gaps(1), gaps(1), 0, 0
    for i, gap in ipairs(list) do
      assert.is_true(math.abs(gap - again[i]) <= 1)
      sum = sum + gap
      if gap > 1000 then long = long + 1 end
    end
    assert.is_true(math.abs(sum / #list - 1000) < 50, sum / #list)
    assert.is_true(math.abs(long / #list - math.exp(-1)) < 0.02, long / #list)
  end)
end)

describe("a meter", function()
  support.setup()

  local function figures(meter)
    local list = {}
    meter:take(true)
    for _, track in ipairs(meter:totals()) do list[track.name] = track end
    return list
  end

  it("records the operations of its tasks by kind, with bytes", function()
    local meter = core.meter()
    jdbfs.run(function()
      local file = assert(jdbfs.create(support.path("a")))
      local page = jdbfs.buffer(4096)
      assert(file:write_at(page, 0)) -- not measured yet
      core.measure(meter)
      for i = 1, 3 do assert(file:write_at(page, i * 4096)) end
      assert(file:write_at(page, 0, 0, 4096, "dsync"))
      for _ = 1, 2 do assert(file:read_at(page, 0)) end
      assert(file:sync_data())
      assert(file:sync_all())
      local task = jdbfs.spawn(function() assert(file:read_at(page, 0)) end) -- of nobody's
      task:join()
      assert(file:close())
    end)
    local f = figures(meter)
    assert.are.equal(3, f.write.n)
    assert.are.equal(3 * 4096, f.write.bytes)
    assert.are.equal(1, f.write_sync.n)
    assert.are.equal(2, f.read.n)
    assert.are.equal(1, f.fdatasync.n)
    assert.are.equal(1, f.fsync.n)
    assert.are.equal(3, f.write.response.n)
    for _, track in pairs(f) do
      assert.is_true(track.service.min_ns > 0, track.name)
      assert.is_true(track.response.sum_ns >= track.service.sum_ns, track.name)
      assert.is_true(track.response.max_ns < 60e9, track.name)
    end
    meter:close()
  end)

  it("takes the response from the due time, the service from the submission", function()
    local meter = core.meter()
    jdbfs.run(function()
      local file = assert(jdbfs.create(support.path("a")))
      local page = jdbfs.buffer(4096)
      core.measure(meter)
      core.until_due(core.now_ns() - 500e6)
      assert(file:write_at(page, 0))
      assert(file:write_at(page, 0)) -- the due time was the first one's
      core.until_due(core.now_ns() - 300e6)
      local due, start = meter:start()
      assert.is_true(start - due >= 300e6)
      meter:stop(meter:track("commit"), due, start)
      assert(file:close())
    end)
    local f = figures(meter)
    assert.is_true(f.write.response.max_ns >= 500e6 and f.write.response.max_ns < 30e9)
    assert.is_true(f.write.response.min_ns < 400e6)
    assert.is_true(f.write.service.max_ns < 400e6)
    assert.is_true(f.commit.response.min_ns >= 300e6 and f.commit.service.max_ns < 100e6)
    meter:close()
  end)

  it("counts errors by name, and leaves out what was due before", function()
    local meter = core.meter()
    jdbfs.run(function()
      local file = assert(jdbfs.create(support.path("a")))
      local page = jdbfs.buffer(4096)
      core.measure(meter)
      assert.is_nil((file:read_at(page, 0)))
      -- Refused before they are handed over.
      assert.is_nil((file:read_at(page, 1)))
      assert.is_nil((file:read_at(page, -4096)))
      assert.is_nil((file:read_many({ { page, 0, 4096, 1 } })))
      assert.is_nil((file:write_at(page, 1, 1)))
      meter:from(core.now_ns() + 10e9)
      assert(file:write_at(page, 0))
      assert(file:close())
    end)
    local f = figures(meter)
    assert.are.same({ ShortRead = 1, Alignment = 1, Overflow = 1 }, f.read.errors)
    assert.are.same({ Overflow = 1 }, f.read_many.errors)
    assert.are.equal(0, f.read.n)
    assert.are.same({ Alignment = 1 }, f.write.errors)
    assert.are.equal(0, f.write.n)
    local written, failed = meter:ever()
    assert.are.equal(4096, written)
    assert.are.equal(5, failed)
    meter:close()
  end)

  it("forgets what is not kept, and may be closed only when no task needs it", function()
    local meter = core.meter()
    jdbfs.run(function()
      local file = assert(jdbfs.create(support.path("a")))
      local page = jdbfs.buffer(4096)
      core.measure(meter)
      assert(file:write_at(page, 0))
      assert.are.equal(1, meter:take(false)[1].n)
      assert(file:write_at(page, 0))
      assert.has_error(function() meter:close() end)
      assert(file:close())
    end)
    assert.are.equal(1, figures(meter).write.n)
    meter:close()
    assert.are.equal(0, #meter:totals())
  end)
end)
