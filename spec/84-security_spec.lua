-- What jdbfs defends against: other processes of the machine that may write to the same directory,
-- children that inherit, memory that was somebody else's, numbers that wrap.

local lfs = require "lfs"
local process = require "support_process"
local support = require "support"

local jdbfs, both, path = support.jdbfs, support.both, support.path
local PREFER = { direct = "prefer" }

local function mode(name)
  local _, out = support.sh("stat -c %a " .. support.quote(name))
  return out:match("%d+")
end

-- ---- descriptors --------------------------------------------------------------------------------

local function descriptors()
  local found = {}
  if not support.proc then return nil end
  for fd in lfs.dir("/proc/self/fd") do
    local info = fd:match("^%d+$") and support.get("/proc/self/fdinfo/" .. fd)
    local flags = info and info:match("flags:%s*(%d+)")
    if flags then
      found[fd] = {
        target = lfs.symlinkattributes("/proc/self/fd/" .. fd, "target") or "",
        close_on_exec = math.floor(tonumber(flags, 8) / 524288) % 2 == 1, -- O_CLOEXEC
      }
    end
  end
  return found
end

describe("a descriptor of jdbfs", function()
  process.setup()

  it("is closed in every program that is started", function()
    if not support.proc then return pending("there is no /proc here") end
    local out = process.script([==[
      local lfs = require "lfs"
      jdbfs.pollfd()
      local files = {}
      for i, open in ipairs({ "create", "open_rw", "open_wal", "open" }) do
        files[i] = check(open, jdbfs[open](dir .. "/f", { direct = "prefer" }))
      end
      files[5] = check("locked", jdbfs.open(dir .. "/f", { direct = "off", lock = "shared" }))
      local o = { segment_size = 16384, direct = "prefer" }
      local log = check("log", jdbfs.log(dir .. "/log", o))
      check("append", log:append("x"))
      local cursor = log:records()
      check("next", cursor:next())
      jdbfs.run(function()
        -- Operations in flight, too: whatever the pool has open at the moment.
        for i = 1, 40 do
          jdbfs.spawn(jdbfs.atomic_write, dir .. "/a" .. i, ("x"):rep(100000))
          jdbfs.spawn(jdbfs.ls, dir)
        end
        jdbfs.yield()
        for _ = 1, 5 do
          local p = io.popen("ls -l /proc/self/fd/")
          for line in p:read("*a"):gmatch("[^\n]+") do
            local target = line:match("%-> (.*)")
            if target and (target:find(dir, 1, true) or target:find("anon_inode", 1, true)) then
              io.write("inherited: ", target, "\n")
            end
          end
          p:close()
          jdbfs.sleep(0.002)
        end
      end)
      io.write("end")]==])
    assert.are.equal("end", out)
  end)

  it("has O_CLOEXEC from the start, also the ring's and the notifiers'", function()
    local before = descriptors()
    if not before then return pending("needs /proc") end
    jdbfs.pollfd()
    local file = assert(jdbfs.create(path(), PREFER))
    local count = 0
    for fd, d in pairs(descriptors()) do
      local ours = d.target:find("io_uring", 1, true) or d.target:find("eventfd", 1, true) or
        d.target == file:path() or not before[fd]
      if ours and not d.target:find("/proc/", 1, true) then
        assert(d.close_on_exec, "inherited by children: " .. d.target)
        count = count + 1
      end
    end
    assert.is_true(count >= 2)
    assert(file:close())
  end)

  -- A flag set afterwards is late for a program that another thread starts in between.
  it("is asked for with O_CLOEXEC in the call that makes it", function()
    local works, why = process.strace("getppid:retval=7")
    if not works then return pending(why) end
    local trace = path("trace")
    process.script([==[
      local core = require "jdbfs.core"
      local f = check("create", jdbfs.create(dir .. "/f", { durable_create = true }))
      check("log", jdbfs.log(dir .. "/log", { segment_size = 16384, direct = "prefer" }))
      check("atomic_write", jdbfs.atomic_write(dir .. "/a", "x"))
      check("mkdir", jdbfs.mkdir(dir .. "/d/e", { durable = true }))
      check("ls", jdbfs.ls(dir) and jdbfs.probe(dir) and f:info())
      check("relay", jdbfs.pollfd() and core.relay())
      core.relay_accept()
    ]==], { prefix = "timeout 60 strace -f -qq -o " .. support.quote(trace) ..
      " -e trace=open,openat,openat2,socket,accept,accept4,eventfd2,io_uring_setup",
      env = { TMPDIR = path(".") } })
    local calls, made = support.get(trace), {}
    for call, arguments in calls:gmatch("(%l[%w_]+)(%b())") do
      local ours = call:find("open", 1, true) == nil or arguments:find(path("."), 1, true)
      if ours and call ~= "io_uring_setup" and not arguments:find('%.lua"') then
        assert(arguments:find("CLOEXEC", 1, true), call .. arguments)
        made[call] = true
      end
    end
    assert(made.openat and made.socket and made.accept4 and made.eventfd2, calls)
  end)
end)

-- ---- names --------------------------------------------------------------------------------------

describe("a symbolic link", function()
  support.setup()

  both("is replaced by atomic_write, renamed and removed itself", function()
    support.put(path("victim"), "untouched")
    support.link(path("victim"), path("link"))
    assert(jdbfs.atomic_write(path("link"), "new"))
    assert.are.equal("file", lfs.symlinkattributes(path("link"), "mode"))
    support.holds(path("link"), "new")
    os.remove(path("link"))
    support.link(path("victim"), path("link"))
    assert(jdbfs.rename(path("link"), path("moved")))
    assert.are.equal("link", lfs.symlinkattributes(path("moved"), "mode"))
    assert(jdbfs.remove(path("moved")))
    support.holds(path("victim"), "untouched")
  end)

  both("is refused by every open with option nofollow, its target left alone", function()
    support.put(path("victim"), "untouched")
    support.link(path("victim"), path("link"))
    support.link(path("nowhere"), path("dangling"))
    for _, open in ipairs({ "open", "create", "open_rw", "open_wal" }) do
      for _, name in ipairs({ "link", "dangling" }) do
        support.fails({ kind = "Io", op = open, name = "ELOOP", path = path(name) },
          jdbfs[open](path(name), { direct = "prefer", nofollow = true }))
      end
    end
    support.holds(path("victim"), "untouched")
    assert.is_nil(lfs.attributes(path("nowhere")))
    -- Only the last name counts, and a plain file is none.
    support.link(path("."), path("here"))
    local o = { direct = "prefer", nofollow = true }
    local f = assert(jdbfs.open_rw(path("here") .. "/victim", o))
    assert(f:close())
    o.exclusive = true
    f = assert(jdbfs.create(path("made"), o))
    assert(f:close())
  end)

  both("is never followed by exclusive", function()
    support.link(path("nowhere"), path("dangling"))
    support.fails({ kind = "Io", name = "EEXIST" },
      jdbfs.create(path("dangling"), { direct = "prefer", exclusive = true }))
    assert.is_nil(lfs.attributes(path("nowhere")))
  end)
end)

describe("a log in a directory that others can write to", function()
  support.setup()

  local SMALL = { segment_size = 16384, direct = "prefer" }

  both("follows no link: not of its temporary files, nor of its segments", function()
    support.put(path("victim"), "untouched")
    assert(jdbfs.mkdir(path("log")))
    support.link(path("victim"), path("log") .. "/next-1.tmp")
    support.link(path("victim"), path("log") .. "/0000000001.log")
    local log = assert(jdbfs.log(path("log"), SMALL))
    assert.are.equal(1, log:append("one"))
    assert(log:close())
    support.holds(path("victim"), "untouched")
    assert.are.equal("file", lfs.symlinkattributes(path("log") .. "/0000000001.log", "mode"))
    -- Segments to come.
    support.link(path("victim"), path("log") .. "/next-1.tmp")
    support.link(path("victim"), path("log") .. "/0000000002.log")
    log = assert(jdbfs.log(path("log"), SMALL))
    for _ = 1, 8 do assert(log:append(("r"):rep(4000))) end
    assert.is_true(log:stats().segments >= 2)
    assert(log:close())
    support.holds(path("victim"), "untouched")
  end)

  both("reads no segment that has become a link", function()
    local log = assert(jdbfs.log(path("log"), SMALL))
    for _ = 1, 8 do assert(log:append(("r"):rep(4000))) end
    assert.is_true(log:stats().segments >= 2)
    local segment = path("log") .. "/0000000001.log"
    assert(os.rename(segment, path("moved")))
    support.link(path("moved"), segment)
    local cursor = log:records()
    support.fails({ kind = "Io", name = "ELOOP" }, cursor:next())
    cursor:close()
    assert(log:close())
  end)

  both("is refused when its lock is a link", function()
    assert(jdbfs.mkdir(path("log")))
    support.link(path("nowhere"), path("log") .. "/lock")
    support.fails({ kind = "Io", name = "ELOOP" }, jdbfs.log(path("log"), SMALL))
    assert.is_nil(lfs.attributes(path("nowhere")))
  end)
end)

describe("the temporary file of atomic_write", function()
  process.setup()

  -- The system calls of a script that replaces `path`.
  local function traced(name, data)
    local why = support.lacks("strace")
    if why then return nil, why end
    local trace = support.path("trace")
    if not process.strace("getppid:retval=7") then return nil, "strace does not work here" end
    process.script([==[check("write", jdbfs.atomic_write(arg[3], arg[4])) io.write("done")]==], {
      args = { name, data }, loose = true,
      prefix = "timeout 60 strace -f -qq -e trace=openat,fchmod,fchown,renameat,renameat2 -o " ..
        support.quote(trace),
    })
    return support.get(trace)
  end

  it("is made under a name that cannot be taken, and for its owner alone", function()
    local name = path("secret")
    support.put(name, "old")
    support.chmod("600", name)
    local calls, why = traced(name, "new")
    if not calls then return pending(why) end
    local flags, access = calls:match('openat%(%d+, "%.secret%.[^"]*", ([%w_|]+), (0%d*)%)')
    assert(flags, "no temporary file in: " .. calls)
    for _, flag in ipairs({ "O_CREAT", "O_EXCL", "O_NOFOLLOW", "O_CLOEXEC" }) do
      assert(flags:find(flag, 1, true), flag .. " is not in " .. flags)
    end
    assert.are.equal("0600", access)
    support.holds(name, "new")
    assert.are.equal("600", mode(name))
  end)

  it("leaves permissions as they were, and a new file those of the umask", function()
    local name = path("kept")
    support.put(name, "old")
    for _, bits in ipairs({ "600", "640", "4755", "444" }) do
      support.chmod(bits, name)
      assert(jdbfs.atomic_write(name, "new"))
      assert.are.equal(bits, mode(name))
    end
    assert(jdbfs.atomic_write(path("fresh"), "new"))
    support.put(path("plain"), "")
    assert.are.equal(mode(path("plain")), mode(path("fresh")))
  end)

  it("grants nobody what another owner's file had granted", function()
    local why = support.lacks("root", "setpriv")
    if why then return pending(why) end
    support.sh("chmod 777 " .. support.quote(path(".")))
    -- Without their group, and with it; theirs by the group alone.
    for _, case in ipairs({ { "1:1", "--clear-groups", "700" }, { "1:1", "--groups 1", "770" },
                            { "65534:1", "--clear-groups", "700" } }) do
      local owner, groups, bits = case[1], case[2], case[3]
      support.put(path("theirs"), "old")
      support.sh(("chown %s %s; chmod 7770 %s"):format(owner, path("theirs"), path("theirs")))
      local r = support.script([[
        local ok, message = require("jdbfs").atomic_write(arg[1], "new")
        io.write(tostring(ok), message or "")]], {
        args = { path("theirs") }, prefix = "setpriv --reuid 65534 --regid 65534 " .. groups,
      })
      if r.status ~= 0 then return pending("another user cannot reach this tree: " .. r.err) end
      assert.are.equal("true", r.out)
      assert.are.equal(bits, mode(path("theirs")))
    end
  end)

  it("is gone after a failure", function()
    if support.lacks("root") == nil then
      -- Root writes everywhere: a name that cannot be replaced instead.
      assert(lfs.mkdir(path("taken")))
      support.fails({ kind = "Io" }, jdbfs.atomic_write(path("taken"), "x"))
    end
    for name in lfs.dir(path(".")) do assert(not name:find("^%.taken"), name) end
  end)
end)

describe("what is no file", function()
  support.setup()

  it("holds nobody: probe of a FIFO", function()
    local why = support.lacks("mkfifo")
    if why then return pending(why) end
    assert(support.sh("mkfifo " .. support.quote(path("fifo"))) == 0)
    support.fails({ kind = "Io", op = "probe", name = "EINVAL" }, jdbfs.probe(path("fifo")))
  end)
end)

-- ---- memory -------------------------------------------------------------------------------------

describe("memory", function()
  process.setup()

  it("of a new buffer is zero, whatever lay there before", function()
    for _ = 1, 50 do
      local b = jdbfs.buffer(65536)
      assert.are.equal(("\0"):rep(65536), b:string())
      b:fill(0xaa)
      b:free()
    end
  end)

  both("behind the end of the file does not get into strings", function()
    local name = path()
    support.put(name, "123")
    local f = assert(jdbfs.open(name, PREFER))
    assert.are.equal("123", f:read(0, 65536))
    assert.are.equal("", f:read(3, 4096))
    assert(f:close())
  end)

  -- 0xAA is in every buffer that was used before, and in no byte that was ever written.
  local function foul()
    local buffers = {}
    for i = 1, 32 do
      buffers[i] = jdbfs.buffer(4096 * i)
      buffers[i]:fill(0xaa)
    end
    for i = 1, 32 do buffers[i]:free() end
  end

  local function no_stale(name)
    local data = support.get(name)
    assert(data and #data > 0, name)
    assert(not data:find("\170", 1, true), "stale bytes in " .. name)
  end

  both("does not get into the padding of streams, logs and preallocated space", function()
    foul()
    local f = assert(jdbfs.create(path("stream"), PREFER))
    local w = assert(jdbfs.writer(f, { block = 4096 }))
    assert(w:write(("w"):rep(4097)))
    assert(w:sync())
    assert(w:close())
    assert(f:preallocate(20480, "zero"))
    assert(f:preallocate(40960))
    assert(f:close())
    no_stale(path("stream"))
    assert.are.equal(40960, #support.get(path("stream")))
    local log = assert(jdbfs.log(path("log"), { segment_size = 65536, batch_size = 8192,
      direct = "prefer" }))
    for i = 1, 40 do assert(log:append(("r"):rep(i * 37))) end
    local long = ("\170"):rep(3000)
    assert(log:append(long)) -- now they are in the batch buffer; no later block may hold them
    local last = assert(log:append("z"))
    assert(log:append("z"))
    assert(log:close())
    local found = 0
    for name in lfs.dir(path("log")) do
      if name:find("%.log$") then
        local data = support.get(path("log") .. "/" .. name)
        local from, to = data:find(long, 1, true)
        if from then
          found = found + 1
          data = data:sub(1, from - 1) .. "\0" .. data:sub(to + 1)
        end
        -- Checksums may hold single ones, beside the record, too.
        assert.is_nil(data:find("\170\170\170\170", 1, true))
      end
    end
    assert.are.equal(1, found)
    assert.is_true(last > 0)
  end)
end)

-- ---- numbers ------------------------------------------------------------------------------------

describe("a number at the edge of 64 bits", function()
  support.setup()

  local TOP = { 2 ^ 63 - 1024, 2 ^ 63 - 4096, 2 ^ 62, 2 ^ 63, 2 ^ 64, 2 ^ 64 - 4096 }
  if math.maxinteger then
    TOP[#TOP + 1] = math.maxinteger
    TOP[#TOP + 1] = math.maxinteger - 4095
    TOP[#TOP + 1] = math.mininteger
  end

  both("neither wraps nor changes anything, in every call that takes it", function()
    local f = assert(jdbfs.create(path(), PREFER))
    local b = support.page(7)
    assert(f:write_at(b, 0))
    local function refused(value, message, err)
      assert(value == nil and type(message) == "string" and err.kind ~= nil, tostring(value))
    end
    for _, n in ipairs(TOP) do
      for _, m in ipairs(TOP) do
        refused(f:write_at(b, n, m))
        refused(f:read_at(b, n, 0, m))
        refused(f:read_at(b, 0, n, m))
        refused(f:write_many({ { b, n, 0, m } }))
        refused(f:read_many({ { b, 0, n, m } }))
        refused(f:punch(n, m))
        assert.has_error(function() b:string(n, m) end)
        assert.has_error(function() b:string(1, m) end)
        assert.has_error(function() b:fill(0, n, m) end)
        assert.has_error(function() b:slice(1, m) end)
        assert.has_error(function() b:copy(1, b, n, m) end)
        assert.has_error(function() b:crc32c(n, m) end)
      end
      refused(f:write_at(b, n))
      refused(f:preallocate(n))
      refused(f:preallocate(n, "zero"))
      for _, access in ipairs({ "u8", "u16", "u32", "u64", "i32", "i64", "f64" }) do
        assert.has_error(function() b[access](b, n) end)
        assert.has_error(function() b[access](b, n, 0) end)
      end
      refused(jdbfs.buffer(n))
      refused(jdbfs.buffer(1, n))
      local data, message, err = f:read(n, 8192)
      assert(data == "" or err.kind == "Overflow", message)
      data, message, err = f:read(1, n)
      assert(data and #data == #b - 1 or err.kind == "Overflow", message)
    end
    assert.are.equal(#b, f:size())
    assert.are.equal(("\7"):rep(#b), f:read(0, 2 * #b))
    assert(f:close())
  end)

  it("is refused by slices, which cannot be made to reach outside", function()
    local b = assert(jdbfs.buffer(8192))
    local s = b:slice(4096, 4096):slice(4000, 96)
    for _, n in ipairs({ 96, 97, 4096, 2 ^ 32, 2 ^ 53, 2 ^ 63 - 1024 }) do
      assert.has_error(function() s:slice(n, 1) end)
      assert.has_error(function() s:u8(n) end)
      assert.has_error(function() s:set(n, "x") end)
    end
    assert.are.equal(0, #s:slice(96, 0))
  end)
end)
