---@meta jdbfs
-- The API reference. Nothing here is run: editors read it, `make docs` makes man pages and HTML of
-- it, and a spec holds it against the module in both directions.
--
-- Every call that can fail in the world returns `nil, message, err` (see jdbfs.Error). Misuse
-- (wrong types, unknown options) raises. Offsets and lengths are bytes from 0, integers up to
-- 2^63-1 (integral floats and LuaJIT 64-bit cdata are accepted); anything else is kind Overflow.
--
-- "Yields" means: in a task the coroutine is suspended until the result is there; outside a task
-- the call completes before it returns. "Kinds" are those of a call's own; whatever yields or makes
-- the queue may also fail with Cancelled (the task was), Alloc, Forked (in a forked child) and
-- Unsupported (from another thread, or no backend works).
--
-- The examples run as they stand, in a spec: `file` is open for reading and writing, of two pages
-- of 4096 bytes that begin with "page 0" and "page 1"; `buffer` is 4096 bytes.

---@class jdbfs
---@field PAGE_SIZE integer page size of the system: an alignment that direct I/O always accepts
---@field _VERSION string version of the library
local jdbfs = {}

---@alias jdbfs.Kind
---| "Io"          # the system refused: errno and name say why
---| "Alloc"       # out of memory
---| "Alignment"   # offset, length or memory is not aligned as the file needs
---| "ShortRead"   # end of file before the length asked; actual says how far
---| "ShortWrite"  # the system took less and would take no more
---| "Join"        # the task that was joined had raised
---| "Overflow"    # a number or range that does not fit
---| "Busy"        # the buffer is in flight, or the queue exists already
---| "Closed"      # file closed, buffer freed, or Lua state being closed
---| "Cancelled"   # the task was
---| "Timeout"     # not ended in time
---| "Poisoned"    # a flush or durable write of this file had failed: reopen it
---| "Unsupported" # not by this backend, file system, thread or version
---| "Forked"      # the queue belongs to the parent process

--- The third result of a failure. tostring(err) is the message.
---@class jdbfs.Error
---@field kind jdbfs.Kind what went wrong, for programs
---@field message string one sentence: operation, path, cause
---@field op string? name of the operation
---@field path string? the file or directory
---@field offset integer? bytes, of the transfer
---@field length integer? bytes asked for
---@field actual integer? bytes that were moved before the failure
---@field index integer? of the entry of read_many or write_many, from 1
---@field errno integer? the system's number
---@field name string? of the errno, as "ENOSPC"

-- ---- tasks ---------------------------------------------------------------------------------

--- Starts f(...) as a task and drives completions until it and every task spawned meanwhile has
--- ended. Blocks. A task that raises ends the run: the others are cancelled, their operations
--- waited for, and run raises that error with its traceback. Raises inside a task, and on a
--- deadlock (tasks wait, and nothing is left that could wake one).
--- Kinds: Unsupported, Alloc, Forked (no usable queue).
--- ```lua
--- local total = jdbfs.run(function(count)
---   for i = 1, count do jdbfs.spawn(jdbfs.sleep, i / 1000) end
---   return count
--- end, 3)
--- print(total) --> 3
--- ```
---@param f function the first task
---@param ... any arguments of f
---@return any ... results of f; nil, message, err when there is no usable queue
function jdbfs.run(f, ...) end

--- Starts another task in the current run. Outside a run, `step` or `join` drives it.
--- Never waits: the task starts at the next wait of the caller.
--- A task that waits takes about 160 bytes more than the coroutine it runs in. When it has
--- returned, that coroutine may serve another task: clear what you keep by coroutine.running().
--- Kinds: Unsupported, Alloc, Forked (no usable queue).
--- ```lua
--- jdbfs.run(function()
---   local task = jdbfs.spawn(function(a, b) return a + b end, 1, 2)
---   print(task:join()) --> 3
--- end)
--- ```
---@param f function the task
---@param ... any arguments of f
---@return jdbfs.Task? task
---@return string? message
---@return jdbfs.Error? err
function jdbfs.spawn(f, ...) end

--- Yields for at least that long. Outside a task it blocks.
--- ```lua
--- jdbfs.sleep(0.01)
--- ```
---@param seconds number 0 or more
---@return true
function jdbfs.sleep(seconds) end

--- Yields to the other tasks that are ready.
--- ```lua
--- jdbfs.run(function()
---   jdbfs.spawn(print, "first")
---   jdbfs.yield()
---   print("second")
--- end)
--- --> first
--- --> second
--- ```
---@return true
function jdbfs.yield() end

--- Monotonic seconds, for differences.
--- Never waits.
--- ```lua
--- local began = jdbfs.now()
--- jdbfs.sleep(0.01)
--- print(jdbfs.now() - began >= 0.01) --> true
--- ```
---@return number
function jdbfs.now() end

--- f's results, or kind Timeout when it has not ended in time: then its task is cancelled, what
--- the kernel already has goes on unseen. An error in f is raised here. Yields.
--- Kinds: Timeout, Cancelled (f's task was, by somebody else).
--- ```lua
--- local result, message, err = jdbfs.timeout(0.01, jdbfs.sleep, 1)
--- print(err.kind) --> Timeout
--- ```
---@param seconds number 0 or more
---@param f function what may take that long
---@param ... any arguments of f
---@return any ...
function jdbfs.timeout(seconds, f, ...) end

--- coroutine.wrap for generators that do I/O in a task: their operations suspend the task. Plain
--- Lua 5.1 cannot yield from the iterator of a for loop: call the generator in a while loop there.
--- The generator waits in the task that calls it. Called from a plain coroutine, which cannot wait,
--- it completes operations and sleeps in place; a wait for another task raises there.
--- ```lua
--- local function pages(file)
---   for number = 0, 1 do coroutine.yield(file:read(number * 4096, 6)) end
--- end
--- jdbfs.run(function()
---   local next_page = jdbfs.wrap(pages)
---   print(next_page(file)) --> page 0
---   print(next_page()) --> page 1
--- end)
--- ```
---@param f function the generator, which yields its values
---@return function
function jdbfs.wrap(f) end

--- pcall around code that does I/O in a task: pcall itself, except on plain Lua 5.1, which cannot
--- yield across its own.
--- Yields where f does.
--- ```lua
--- jdbfs.run(function()
---   print(jdbfs.pcall(function()
---     jdbfs.sleep(0.001)
---     error("no luck", 0)
---   end)) --> false no luck
--- end)
--- ```
---@param f function what may raise
---@param ... any arguments of f
---@return boolean ok
---@return any ...
function jdbfs.pcall(f, ...) end

---@class jdbfs.Task
local Task = {}

--- Waits until the task has ended. Its results; kind Cancelled or kind Join (it raised). Yields;
--- outside a run it drives the tasks there are.
--- Kinds: Join, Cancelled.
--- ```lua
--- local task = jdbfs.spawn(function() return file:read(0, 6) end)
--- print(task:join()) --> page 0
--- ```
---@return any ...
function Task:join() end

--- A task that waits ends now (its to-be-closed variables run; their operations complete in place,
--- waits for other tasks raise), one that runs ends at its next wait. Its operations are not
--- stopped: their buffers stay in flight until the kernel is done.
--- Never waits.
--- ```lua
--- jdbfs.run(function()
---   local task = jdbfs.spawn(jdbfs.sleep, 3600)
---   jdbfs.yield()
---   print(task:cancel()) --> true
---   local _, _, err = task:join()
---   print(err.kind) --> Cancelled
--- end)
--- ```
---@return boolean alive whether it had not ended yet
function Task:cancel() end

--- What it does: "ready" will run, "waiting" for an operation, a time or a condition, and how it
--- ended.
--- Never waits.
--- ```lua
--- local task = jdbfs.spawn(function() end)
--- print(task:status()) --> ready
--- task:join()
--- print(task:status()) --> done
--- ```
---@return "ready"|"running"|"waiting"|"done"|"failed"|"cancelled"
function Task:status() end

-- ---- coordination ----------------------------------------------------------------------------

--- Permits that tasks take and give back, so that at most n of them are somewhere at once.
--- Never waits.
--- ```lua
--- local readers = jdbfs.semaphore(8) -- at most eight at once
--- jdbfs.run(function()
---   for _ = 1, 100 do
---     jdbfs.spawn(function()
---       readers:acquire()
---       file:read(0, 6)
---       readers:release()
---     end)
---   end
--- end)
--- ```
---@param n integer permits, 0 or more
---@return jdbfs.Semaphore
function jdbfs.semaphore(n) end

---@class jdbfs.Semaphore
local Semaphore = {}
--- Waits for a permit; waiters are served in order. Yields. A task that ends does not give back by
--- itself what it has, nor what it was just handed when another task's error ended the run.
--- ```lua
--- local lock = jdbfs.semaphore(1)
--- lock:acquire()
--- file:sync_data()
--- lock:release()
--- ```
---@return true
function Semaphore:acquire() end
--- Takes a permit if one is free.
--- Never waits.
--- ```lua
--- local lock = jdbfs.semaphore(1)
--- print(lock:try_acquire(), lock:try_acquire()) --> true false
--- ```
---@return boolean
function Semaphore:try_acquire() end
--- Gives a permit back, or a new one: there may be more than the n of the beginning.
--- Never waits.
--- ```lua
--- local work = jdbfs.semaphore(0)
--- work:release()
--- print(work:try_acquire()) --> true
--- ```
---@return true
function Semaphore:release() end

--- Something that happens once, for all that wait for it.
--- Never waits.
--- ```lua
--- local ready = jdbfs.event()
--- jdbfs.run(function()
---   jdbfs.spawn(function() ready:wait() print("go") end)
---   ready:set()
--- end)
--- --> go
--- ```
---@return jdbfs.Event
function jdbfs.event() end

---@class jdbfs.Event
local Event = {}
--- Yields until the event is set; returns at once when it is.
--- ```lua
--- local ready = jdbfs.event()
--- ready:set()
--- ready:wait() -- at once
--- ```
---@return true
function Event:wait() end
--- Wakes all that wait.
--- Never waits.
--- ```lua
--- local ready = jdbfs.event()
--- ready:set()
--- ```
---@return true
function Event:set() end
--- The next wait waits again.
--- Never waits.
--- ```lua
--- local ready = jdbfs.event()
--- ready:set()
--- ready:clear()
--- print(ready:is_set()) --> false
--- ```
---@return true
function Event:clear() end
--- Whether wait would return at once.
--- Never waits.
--- ```lua
--- print(jdbfs.event():is_set()) --> false
--- ```
---@return boolean
function Event:is_set() end

--- Values handed from task to task, first in, first out.
--- Never waits.
--- ```lua
--- local jobs = jdbfs.queue(2) -- the producer is at most two ahead
--- jdbfs.run(function()
---   jdbfs.spawn(function() for i = 1, 3 do jobs:put(i) end end)
---   print(jobs:take() + jobs:take() + jobs:take()) --> 6
--- end)
--- ```
---@param max integer? values it holds before put waits; unlimited when absent
---@return jdbfs.Queue
function jdbfs.queue(max) end

---@class jdbfs.Queue
local Queue = {}
--- Appends; yields while the queue is full.
--- ```lua
--- local jobs = jdbfs.queue()
--- jobs:put("sync")
--- ```
---@param value any anything but nil
---@return true
function Queue:put(value) end
--- Takes the oldest; yields while there is none.
--- ```lua
--- local jobs = jdbfs.queue()
--- jobs:put("sync")
--- print(jobs:take()) --> sync
--- ```
---@return any
function Queue:take() end
--- Values that wait to be taken.
--- Never waits.
--- ```lua
--- local jobs = jdbfs.queue()
--- jobs:put("sync")
--- print(jobs:size()) --> 1
--- ```
---@return integer
function Queue:size() end

--- Reusable buffers for hot loops.
--- Never waits.
--- Kinds: Alloc, Overflow.
--- ```lua
--- local pages = assert(jdbfs.pool(64, 4096))
--- jdbfs.run(function()
---   local page = pages:get()
---   file:read_at(page, 0)
---   pages:put(page)
--- end)
--- ```
---@param count integer 1 or more
---@param size integer bytes of each
---@return jdbfs.Pool? pool
---@return string? message
---@return jdbfs.Error? err
function jdbfs.pool(count, size) end

---@class jdbfs.Pool
local Pool = {}
--- Yields until a buffer is free.
--- ```lua
--- local pages = assert(jdbfs.pool(1, 4096))
--- local page = pages:get()
--- print(#page) --> 4096
--- ```
---@return jdbfs.Buffer
function Pool:get() end
--- Gives a buffer of this pool back; what is in it stays.
--- Raises for a buffer that is not out.
--- Never waits.
--- ```lua
--- local pages = assert(jdbfs.pool(1, 4096))
--- pages:put(pages:get())
--- ```
---@param b jdbfs.Buffer a whole buffer of get
---@return true
function Pool:put(b) end

-- ---- buffers ----------------------------------------------------------------------------------

--- Zero-filled memory, not inherited by forked children. Freed by free, or once collected: as Lua
--- sees a few bytes of it only, buffer has it collect its garbage whenever what all buffers take,
--- from 256 MiB on, has doubled since; except on 5.2 and later where the program stopped it.
--- Kinds: Alloc, Overflow, Alignment (align is no power of two).
--- Never waits.
--- ```lua
--- local page = assert(jdbfs.buffer(4096))
--- local line = assert(jdbfs.buffer(100, 64))
--- print(#page, line:align()) --> 4096 64
--- ```
---@param size integer 1 or more
---@param align integer? default PAGE_SIZE
---@return jdbfs.Buffer? buffer
---@return string? message
---@return jdbfs.Error? err
function jdbfs.buffer(size, align) end

--- Methods raise when a range is outside, the buffer freed, or the range in flight: bytes being
--- read into can be neither read nor changed, bytes being written out can be read. Values are
--- little-endian. `#b` is the size.
---@class jdbfs.Buffer
---@operator len: integer
local Buffer = {}
--- The bytes as a string: a copy.
--- ```lua
--- buffer:set(0, "abcdef")
--- print(buffer:string(2, 3)) --> cde
--- ```
---@param off integer? default 0
---@param len integer? default the rest
---@return string
function Buffer:string(off, len) end
--- Copies the string there.
--- ```lua
--- buffer:set(100, "abc")
--- ```
---@param off integer bytes from the start of the buffer
---@param str string must fit
---@return true
function Buffer:set(off, str) end
--- Sets every byte of the range.
--- ```lua
--- buffer:fill(0)
--- buffer:fill(255, 8, 4)
--- print(buffer:u32(8)) --> 4294967295
--- ```
---@param byte integer 0 to 255
---@param off integer? bytes from the start of the buffer
---@param len integer? bytes, default the rest
---@return true
function Buffer:fill(byte, off, len) end
--- Copies from src, which may overlap.
--- ```lua
--- buffer:set(0, "abc")
--- buffer:copy(3, buffer, 0, 3)
--- print(buffer:string(0, 6)) --> abcabc
--- ```
---@param off integer bytes from the start of the buffer
---@param src jdbfs.Buffer this one or another
---@param src_off integer? bytes from the start of src, default 0
---@param len integer? bytes, default the rest of src
---@return true
function Buffer:copy(off, src, src_off, len) end
--- A view that shares the memory and keeps it.
--- ```lua
--- local header = buffer:slice(0, 64)
--- header:set(0, "mine")
--- print(buffer:string(0, 4)) --> mine
--- ```
---@param off integer bytes from the start of the buffer
---@param len integer bytes, 0 or more
---@return jdbfs.Buffer
function Buffer:slice(off, len) end
--- Reads, or with v writes, one byte; 0 to 255.
--- ```lua
--- buffer:u8(0, 255)
--- print(buffer:u8(0)) --> 255
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:u8(off, v) end
--- Reads, or with v writes, 2 bytes.
--- ```lua
--- buffer:u16(0, 65535)
--- print(buffer:u16(0)) --> 65535
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:u16(off, v) end
--- Reads, or with v writes, 4 bytes.
--- ```lua
--- buffer:u32(0, 4294967295)
--- print(buffer:u32(0)) --> 4294967295
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:u32(off, v) end
--- Reads, or with v writes, 8 bytes.
--- Wraps like string.pack("<I8") on 5.3 and later; beyond 2^53 LuaJIT gives a uint64_t and plain
--- 5.1 and 5.2 raise.
--- ```lua
--- buffer:u64(0, 2 ^ 52)
--- print(buffer:u64(0) == 2 ^ 52) --> true
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:u64(off, v) end
--- Reads, or with v writes, 4 bytes, signed.
--- ```lua
--- buffer:i32(0, -1)
--- print(buffer:i32(0)) --> -1
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:i32(off, v) end
--- Reads, or with v writes, 8 bytes, signed.
--- ```lua
--- buffer:i64(0, -1)
--- print(buffer:i64(0) == -1) --> true
--- ```
---@param off integer bytes from the start of the buffer
---@param v integer? to be written; absent: read
---@return integer|true
function Buffer:i64(off, v) end
--- Reads, or with v writes, an IEEE 754 double of 8 bytes.
--- ```lua
--- buffer:f64(0, 0.5)
--- print(buffer:f64(0)) --> 0.5
--- ```
---@param off integer bytes from the start of the buffer
---@param v number? to be written; absent: read
---@return number|true
function Buffer:f64(off, v) end
--- CRC-32C (Castagnoli); with the checksum of the bytes before these, that of both together.
--- ```lua
--- buffer:set(0, "123456789")
--- print(("%08x"):format(buffer:crc32c(0, 9))) --> e3069283
--- ```
---@param off integer? bytes from the start of the buffer
---@param len integer? bytes, default the rest
---@param before integer? the checksum to go on from, default that of nothing
---@return integer
function Buffer:crc32c(off, len, before) end
--- The address of the first byte.
--- For FFI; valid while the buffer lives.
--- ```lua
--- print(type(buffer:pointer())) --> userdata
--- ```
---@return lightuserdata
function Buffer:pointer() end
--- What the address is a multiple of, in bytes; of a slice too.
--- ```lua
--- print(buffer:align() >= 512) --> true
--- ```
---@return integer
function Buffer:align() end
--- Lets go of the memory early; slices keep theirs. Later use is Closed.
--- ```lua
--- local big = assert(jdbfs.buffer(1048576))
--- big:free()
--- ```
---@return true
function Buffer:free() end

-- ---- files ------------------------------------------------------------------------------------

---@class jdbfs.OpenOptions
---@field direct "require"|"prefer"|"off"? bypass the page cache or fail (default), if it can be, no
---@field mode integer? permissions of a new file, default 0666 less the umask
---@field exclusive boolean? fail with EEXIST when the file exists
---@field must_exist boolean? fail with ENOENT when it does not (open_rw, open_wal)
---@field atime boolean? keep access times; they cost metadata writes
---@field device boolean? the path is a block device
---@field nofollow boolean? fail with ELOOP when the last name is a symbolic link: for directories
---  that others may write to
---@field durable_create boolean? the name itself is durable on return
---@field lock "exclusive"|"shared"|nil fail with Busy when another open file holds it; File:lock
---@field dsync boolean|"all"|nil every write is durable on return, as with open_wal; "all": the
---  file's times as well (O_SYNC), where the system makes a difference
---@field durable_method "auto"|"write"|"flush"|nil how "dsync" writes are done: each by itself
---  (RWF_DSYNC), as a write and a flush shared with others, or (default) a lone one by itself and
---  several at once with a shared flush
---@field sync_level "full"|"barrier"|nil what sync_data and sync_all ask for: "full" (default), all
---  that is written is on stable storage; "barrier", on macOS only, Unsupported elsewhere and with
---  dsync: what is written later does not become durable before it, and no more is promised

--- Opens read only. Yields. Unsupported when direct I/O is required and refused. Waits, a minute at
--- most, for a lease (fcntl F_SETLEASE) that somebody has on the file.
--- Kinds: Io (errno), Unsupported (no direct I/O there), Busy (lock).
--- ```lua
--- local f = assert(jdbfs.open("data"))
--- print(f:read(0, 6)) --> page 0
--- f:close()
--- ```
---@param path string relative ones start in the working directory
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open(path, o) end
--- Read-write, made or truncated. Yields.
--- Kinds: Io (errno), Unsupported (no direct I/O there), Busy (lock).
--- ```lua
--- local f = assert(jdbfs.create("new", { exclusive = true, durable_create = true }))
--- f:close()
--- ```
---@param path string relative ones start in the working directory
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.create(path, o) end
--- Read-write, made if missing. Yields.
--- Kinds: Io (errno), Unsupported (no direct I/O there), Busy (lock).
--- ```lua
--- local f = assert(jdbfs.open_rw("data", { lock = "exclusive" }))
--- f:close()
--- ```
---@param path string relative ones start in the working directory
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open_rw(path, o) end
--- As open_rw, and every write is durable on return (O_DSYNC). Yields.
--- Kinds: Io (errno), Unsupported (no direct I/O there), Busy (lock).
--- ```lua
--- local wal = assert(jdbfs.open_wal("wal"))
--- assert(wal:write_at(buffer, 0)) -- durable when this returns
--- wal:close()
--- ```
---@param path string relative ones start in the working directory
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open_wal(path, o) end

---@class jdbfs.FileInfo
---@field path string it was opened by
---@field direct boolean the page cache is bypassed as far as the system says
---@field direct_policy "require"|"prefer"|"off" the option it was opened with
---@field direct_reason string why direct, or why not
---@field memory_alignment integer of buffers in memory, bytes
---@field read_alignment integer of offsets and lengths of reads
---@field write_alignment integer of offsets and lengths of writes, bytes
---@field direct_write_unit integer? writes of its multiples, on its multiples, bypass the cache;
---  others may not. Absent: none does
---@field alignment_source string where the alignments come from
---@field file_system string "ext4", "xfs", ...; of a device that is opened itself "block device"
---@field backend string that runs its operations
---@field writable boolean open for writing
---@field dsync boolean every write is durable on return
---@field durable_method "auto"|"write"|"flush" the option it was opened with
---@field durable_reason string how durable writes are done, and why
---@field sync_level "full"|"barrier"|"os" how far flushes of this file go, or went:
---  "os" is fsync where the file system has no more: the device's cache may lose what was written
---@field polled boolean its reads and writes are polled for, see setup's option iopoll
---@field polled_reason string? with that option: why they are not
---@field poisoned boolean a flush or durable write failed: only reopening clears it
---@field atomic { min: integer, max: integer } bytes of one "atomic" write; 0: there are none
---@field logical_block integer? of the disk
---@field physical_block integer? of the disk
---@field durability jdbfs.Durability what the system shows of the device

--- Evidence, not a promise of the device. Unknown fields are absent.
---@class jdbfs.Durability
---@field class "flush-required"|"unverified"|"unsafe"|"unknown"|"simulated" what durability needs
---@field reasons string[] sentences
---@field device string? "vda", ...
---@field mount_options string? as the system lists them
---@field volatile_cache boolean? written data may sit in a cache that power loss empties
---@field fua boolean? single writes can pass that cache

---@class jdbfs.Stat
---@field size integer bytes
---@field allocated integer bytes of disk space
---@field inode integer number within the device
---@field device integer number
---@field links integer names it has
---@field mode integer permission bits
---@field atime number seconds since 1970
---@field mtime number of the content
---@field ctime number of the content or the rights
---@field type "file"|"directory"|"block device"|"other"

--- Offsets, lengths and memory must be aligned as info() says; PAGE_SIZE always is. A file left
--- to the collector closes by itself after its last operation.
---@class jdbfs.File
local File = {}
--- Reads exactly len bytes (default: the buffer behind b_off). End of file before that is
--- ShortRead: err.actual bytes are in place; what lies behind them is not defined: btrfs fills the
--- rest of the block with what the disk has there. Yields.
--- Kinds: ShortRead, Alignment, Overflow, Busy, Closed, Io.
--- ```lua
--- print(file:read_at(buffer, 4096), buffer:string(0, 6)) --> 4096 page 1
--- local n, message, err = file:read_at(buffer, 1048576)
--- print(n, err.kind, err.actual) --> nil ShortRead 0
--- ```
---@param b jdbfs.Buffer its memory aligned as info() says
---@param off integer bytes from the start of the file; a multiple of the alignment
---@param b_off integer? bytes from the start of the buffer, default 0
---@param len integer? bytes, a multiple of the alignment; default the buffer behind b_off
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:read_at(b, off, b_off, len) end
--- As read_at, but end of file is no error: 0 bytes at or behind it. Yields.
--- Kinds: Alignment, Overflow, Busy, Closed, Io.
--- ```lua
--- print(file:read_upto(buffer, 0)) --> 4096
--- print(file:read_upto(buffer, 1048576)) --> 0
--- ```
---@param b jdbfs.Buffer its memory aligned as info() says
---@param off integer bytes from the start of the file; a multiple of the alignment
---@param b_off integer? bytes from the start of the buffer, default 0
---@param len integer? bytes, a multiple of the alignment; default the buffer behind b_off
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:read_upto(b, off, b_off, len) end
--- A string of any offset and length; shorter only at end of file. Yields.
--- Kinds: Overflow, Closed, Alloc, Io.
--- ```lua
--- print(file:read(5, 1)) --> 0
--- ```
---@param off integer bytes from the start of the file, any
---@param len integer bytes, any
---@return string? data
---@return string? message
---@return jdbfs.Error? err
function File:read(off, len) end
--- Writes exactly len bytes; short writes are resumed. Flags: "dsync": durable on return, flushes
--- shared with others; "atomic": all or nothing after a crash, within info().atomic and aligned to
--- its own length (Unsupported where the file system has none). A durable write that fails poisons
--- the file as a failed flush does, see sync_data; not where the system refused it for lack of room
--- (ENOSPC, EDQUOT, EFBIG): then nothing is in doubt, err.actual bytes were written. One through
--- the page cache that is durable by itself may hear so of older writes, which are lost: there
--- ENOSPC and EDQUOT poison. Yields.
--- Kinds: ShortWrite, Poisoned, Unsupported ("atomic"), Alignment, Overflow, Busy, Closed, Io.
--- ```lua
--- buffer:fill(0)
--- buffer:set(0, "new")
--- print(file:write_at(buffer, 8192)) --> 4096
--- assert(file:write_at(buffer, 8192, 0, 4096, "dsync")) -- durable when this returns
--- ```
---@param b jdbfs.Buffer its memory aligned as info() says
---@param off integer bytes from the start of the file; a multiple of the alignment
---@param b_off integer? bytes from the start of the buffer, default 0
---@param len integer? bytes, a multiple of the alignment; default the buffer behind b_off
---@param flags "dsync"|"atomic"|"dsync,atomic"|nil default: a plain write
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:write_at(b, off, b_off, len, flags) end
--- Many exact reads, one yield. Nothing is submitted when an entry is refused. The first entry of
--- the list that failed is reported, with err.index. Yields.
--- Kinds: ShortRead, Alignment, Overflow, Busy, Closed, Io.
--- ```lua
--- local first, second = jdbfs.buffer(4096), jdbfs.buffer(4096)
--- print(file:read_many { { first, 0 }, { second, 4096 } }) --> 2
--- ```
---@param list { [1]: jdbfs.Buffer, [2]: integer, [3]: integer?, [4]: integer? }[] buffer, offset,
---  buffer offset, length
---@return integer? count
---@return string? message
---@return jdbfs.Error? err
function File:read_many(list) end
--- Many exact writes, one yield; with "dsync" one flush covers them all. Yields.
--- Kinds: ShortWrite, Poisoned, Unsupported ("atomic"), Alignment, Overflow, Busy, Closed, Io.
--- ```lua
--- local first, second = jdbfs.buffer(4096), jdbfs.buffer(4096)
--- print(file:write_many({ { first, 0 }, { second, 4096 } }, "dsync")) --> 2
--- ```
---@param list { [1]: jdbfs.Buffer, [2]: integer, [3]: integer?, [4]: integer? }[] as of read_many
---@param flags "dsync"|"atomic"|"dsync,atomic"|nil default: a plain write
---@return integer? count
---@return string? message
---@return jdbfs.Error? err
function File:write_many(list, flags) end
--- The length of the file in bytes, as it is now.
--- Yields.
--- Kinds: Closed, Io.
--- ```lua
--- print(file:size()) --> 8192
--- ```
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:size() end
--- What the system keeps about the file.
--- Yields.
--- Kinds: Closed, Alloc, Io.
--- ```lua
--- local st = assert(file:stat())
--- print(st.type, st.size) --> file 8192
--- ```
---@return jdbfs.Stat? stat
---@return string? message
---@return jdbfs.Error? err
function File:stat() end
--- What is in force for this file, and how it is known. Yields.
--- Kinds: Closed, Alloc, Io.
--- ```lua
--- local info = assert(file:info())
--- print(info.read_alignment, info.durability.class)
--- ```
---@return jdbfs.FileInfo? info
---@return string? message
---@return jdbfs.Error? err
function File:info() end
--- Data, and what is needed to read it back, on stable storage (fdatasync). Covers every write
--- that had completed before the call; callers share flushes. One that could start waits for writes
--- of other tasks that are in flight then, 1 MiB together at most, as long as such tasks come to
--- share it: `write_at` and `sync_data` by 16 tasks is one flush a round. After a failed flush the
--- file is poisoned: err.offset and err.length tell the bytes in doubt, later durable calls are
--- Poisoned until it is reopened, and the flush is never tried again. Yields.
--- Kinds: Poisoned, Closed, Io.
--- ```lua
--- assert(file:write_at(buffer, 0))
--- assert(file:sync_data())
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:sync_data() end
--- Data and metadata on stable storage (fsync). Yields.
--- Kinds: Poisoned, Closed, Io.
--- ```lua
--- assert(file:truncate(4096))
--- assert(file:sync_all())
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:sync_all() end
--- Cuts, or grows with zeros. Any length. Yields.
--- Kinds: Overflow, Closed, Io.
--- ```lua
--- assert(file:truncate(100))
--- print(file:size()) --> 100
--- ```
---@param len integer bytes, any
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:truncate(len) end
--- Reserves space up to len; never shrinks, keeps what is there. "size": the file grows and reads
--- zeros; "keep_size": only the space, which a cut of the file (truncate, sync and close of a
--- writer) gives back; "zero": zeros are written, so that later overwrites change no metadata.
--- Writes of this handle wait meanwhile; other handles must not write behind the end. Yields.
--- macOS reserves nothing inside a file with holes: Unsupported, or zeros where the file grows.
--- Kinds: Overflow, Closed, Unsupported, Io.
--- ```lua
--- assert(file:preallocate(1048576))
--- print(file:size()) --> 1048576
--- ```
---@param len integer bytes from the start of the file, any
---@param how "size"|"keep_size"|"zero"? default "size"
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:preallocate(len, how) end
--- Gives the space of a range back; it reads zeros, the size stays. Yields.
--- Kinds: Overflow, Closed, Unsupported, Io.
--- ```lua
--- print(file:punch(0, 4096)) --> true
--- print(file:read(0, 1):byte()) --> 0
--- ```
---@param off integer bytes from the start of the file, any
---@param len integer bytes, any
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:punch(off, len) end
--- An advisory lock between open files, also of one process. Fails at once with Busy when another
--- holds it; the message names the process. I/O in flight keeps a dead process's lock for a
--- moment. Closing unlocks. Yields.
--- Kinds: Busy, Closed, Io.
--- ```lua
--- assert(file:lock("exclusive"))
--- local other = assert(jdbfs.open("data", { direct = "prefer" }))
--- local _, message, err = other:lock("shared")
--- print(err.kind) --> Busy
--- ```
---@param how "exclusive"|"shared" shared ones exclude exclusive ones only
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:lock(how) end
--- Lets go of the lock; without one it is true as well.
--- Yields.
--- Kinds: Closed, Io.
--- ```lua
--- assert(file:lock("shared"))
--- assert(file:unlock())
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:unlock() end
--- The path it was opened by.
--- Never waits.
--- ```lua
--- print(file:path()) --> data
--- ```
---@return string
function File:path() end
--- Waits for the file's operations and closes it; reports the error of a write or sync that
--- nobody waited for. Later operations are Closed; closing again is true. Yields.
--- Kinds: Io, Poisoned (what nobody was told).
--- ```lua
--- assert(file:close())
--- print(file:close()) --> true
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:close() end

-- ---- names ------------------------------------------------------------------------------------

--- Whether the path names anything.
--- Follows links. nil, message, err when it cannot be told (no permission, a loop). Yields.
--- Kinds: Io (errno).
--- ```lua
--- print(jdbfs.exists("data"), jdbfs.exists("nothing")) --> true false
--- ```
---@param path string relative ones start in the working directory
---@return boolean?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.exists(path) end
--- Makes a directory.
--- With parents; an existing directory is fine. durable syncs every directory of the path, up to
--- where its file system is mounted. Yields.
--- Kinds: Io (errno).
--- ```lua
--- assert(jdbfs.mkdir("a/b/c", { durable = true }))
--- ```
---@param path string relative ones start in the working directory
---@param o { durable: boolean? }? durable: the names are on stable storage on return
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.mkdir(path, o) end
--- Names of the regular files in a directory, sorted by bytes. Yields.
--- Kinds: Alloc, Io.
--- ```lua
--- for _, name in ipairs(assert(jdbfs.ls("."))) do print(name) end --> data
--- ```
---@param path string relative ones start in the working directory
---@return string[]? names
---@return string? message
---@return jdbfs.Error? err
function jdbfs.ls(path) end
--- The length of a file.
--- Bytes; follows links. Yields.
--- Kinds: Io (errno).
--- ```lua
--- print(jdbfs.size("data")) --> 8192
--- ```
---@param path string relative ones start in the working directory
---@return integer?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.size(path) end
--- What the system keeps about what the path names.
--- Follows links. Yields.
--- Kinds: Io (errno).
--- ```lua
--- print(jdbfs.stat("data").type) --> file
--- ```
---@param path string relative ones start in the working directory
---@return jdbfs.Stat?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.stat(path) end
--- Atomic; replaces the target unless noreplace (then EEXIST). durable syncs both directories; the
--- file's content is durable only if it was synced before. Yields.
--- Kinds: Unsupported (noreplace), Io.
--- ```lua
--- assert(jdbfs.rename("data", "old", { noreplace = true, durable = true }))
--- ```
---@param from string the file or directory
---@param to string its new path, on the same file system
---@param o { noreplace: boolean?, durable: boolean? }? durable: both directories synced
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.rename(from, to, o) end
--- A file; a directory is EISDIR. Yields.
--- Kinds: Io (errno).
--- ```lua
--- assert(jdbfs.remove("data"))
--- ```
---@param path string relative ones start in the working directory
---@param o { durable: boolean? }? durable: the name is gone for good on return
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.remove(path, o) end
--- Makes the names in a directory durable. Yields.
--- Kinds: Io (errno).
--- ```lua
--- assert(jdbfs.sync_dir("."))
--- ```
---@param path string relative ones start in the working directory
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.sync_dir(path) end
--- Bytes free to this user, and bytes in all, of the file system that holds path. Yields.
--- Kinds: Io (errno).
--- ```lua
--- local free, total = assert(jdbfs.space("."))
--- print(free <= total) --> true
--- ```
---@param path string relative ones start in the working directory
---@return integer? free
---@return integer|string total
---@return jdbfs.Error? err
function jdbfs.space(path) end
--- Replaces a file's content: after any crash it has the old or the new one, and the new one is
--- durable on return. Written under a temporary name in the same directory, which is removed on
--- failure. Keeps the permissions of what it replaces, and its owner and group where that is
--- allowed (else nothing that was granted to them is granted to others, and the set-user-ID,
--- set-group-ID and sticky bits go), not its extended attributes; a symbolic link is replaced, not
--- followed.
--- Yields.
--- Kinds: Busy or Closed (the buffer), Alloc, Io.
--- ```lua
--- assert(jdbfs.atomic_write("config", "answer = 42"))
--- ```
---@param path string relative ones start in the working directory
---@param data string|jdbfs.Buffer the whole content
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.atomic_write(path, data) end

---@class jdbfs.Probe
---@field kernel string "Linux 6.1.0"
---@field backend string that runs here
---@field backend_reason string why that one
---@field features string of the backend, comma-separated
---@field file_system string see jdbfs.FileInfo
---@field direct boolean whether direct I/O works there
---@field direct_reason string why, or why not
---@field memory_alignment integer of buffers in memory, bytes
---@field read_alignment integer of offsets and lengths, bytes
---@field write_alignment integer of offsets and lengths, bytes
---@field direct_write_unit integer? see jdbfs.FileInfo
---@field alignment_source string
---@field atomic { min: integer, max: integer }
---@field logical_block integer? of the disk, bytes
---@field physical_block integer? of the disk, bytes
---@field durability jdbfs.Durability what the system shows of the device
---@field nowait boolean? Linux: whether the file system takes RWF_NOWAIT, so that a ring needs no
---  worker thread for a read; nil: not known
---@field dsync_write boolean? Linux, of a directory: whether it takes RWF_DSYNC, single writes that
---  are durable

--- What machine, file system and device offer at a path. In a directory a nameless file is made
--- for the question; nothing stays behind. Yields.
--- Kinds: Alloc, Io.
--- ```lua
--- local found = assert(jdbfs.probe("."))
--- print(found.file_system, found.direct, found.durability.class)
--- ```
---@param path string a directory, file or block device
---@return jdbfs.Probe?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.probe(path) end

-- ---- the log ------------------------------------------------------------------------------------

---@class jdbfs.LogOptions
---@field segment_size integer? bytes of a segment file, 8 KiB to 1 TiB, default 64 MiB. A record
---  that does not fit gets a segment of its own size
---@field batch_size integer? bytes gathered for one write, 4 KiB to 1 GiB, default 1 MiB; two such
---  buffers are held. Appenders wait when it is full
---@field spare_segments integer? 0 to 1024, default 0: so many of the segments that truncate_before
---  frees are kept and used again, as they are, instead of new ones that are made of written zeros;
---  they are removed by close. It saves half of what is written, and recovery tells less of a torn
---  batch: see clean
---@field direct "require"|"prefer"|"off"? as for open

--- Opens the log in that directory, or makes it; one opener at a time (Busy). Reads and checks all
--- of it. A torn tail is cut: see recovery(). Kind Io when an acknowledged record is damaged or a
--- segment is missing, foreign or damaged: err.path is the segment, err.offset the place, the
--- message has the record's number; nothing is changed then. Damage in the last batch ever written
--- cannot be told from a torn write: it is cut; likewise the loss of the newest segment file is not
--- seen. Yields.
--- Kinds: Io (errno, or damage), Busy, Unsupported (no direct I/O there), Alloc.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
--- assert(log:append("paid: 17"))
--- log:close()
--- log = assert(jdbfs.log("orders"))
--- print(log:recovery().records) --> 1
--- ```
---@param path string a directory; it and its parents are made
---@param o jdbfs.LogOptions?
---@return jdbfs.Log? log
---@return string? message
---@return jdbfs.Error? err
function jdbfs.log(path, o) end

---@class jdbfs.Recovery
---@field first integer number of the first record there is, or will be
---@field last integer of the last one; first - 1 when there is none
---@field records integer last - first + 1
---@field segments integer files
---@field clean boolean nothing had to be cut. In a segment that is used again a batch that was torn
---  so that none of its headers is left is not told from the older bytes there
---@field cut_bytes integer of a batch that was never acknowledged; in a segment that is used again,
---  what its headers tell of
---@field cut_at { segment: string, offset: integer }? file name and place of the cut

---@class jdbfs.LogStats
---@field records integer appended since the log was opened
---@field batches integer written since then: each is one write and one flush
---@field bytes integer written in them, with headers and padding
---@field segments integer files
---@field reused integer segments made of ones that truncate_before had freed
---@field first integer number of the first record there is, or will be
---@field last integer of the last durable one

--- An append-only log. Numbers start at 1 and never repeat.
---@class jdbfs.Log
local Log = {}
--- Appends a record of up to 1 GiB (else Overflow) and returns its number once it is durable.
--- Tasks that append meanwhile share one write and one flush; a lone one pays exactly one of each,
--- there is no timer. A buffer must stay unchanged until the call returns. When the segment cannot
--- be made (ENOSPC) nothing was written, and the log goes on as soon as there is room. When the
--- write or flush fails, what is on disk is unknown: every append is Poisoned until the log is
--- opened again. A cancelled appender's record may or may not be there. Yields.
--- Kinds: Overflow, Busy (the buffer), Poisoned, Closed, Io.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
--- local number = assert(log:append("paid: 17")) -- durable when this returns
--- print(number) --> 1
--- ```
---@param data string|jdbfs.Buffer up to 1 GiB
---@return integer? number
---@return string? message
---@return jdbfs.Error? err
function Log:append(data) end
--- The durable records from that number on (default: the first there is), for
--- `for number, data in log:records() do`, which raises the message of a failure; next() returns
--- it. A number that truncate_before removed, or that is none, is Overflow at the first step. At
--- the end the cursor stays usable: it goes on when more was appended. One task at a time. In a
--- task on plain Lua 5.1 the steps of a for loop block the other tasks, next() never does.
--- The steps of the cursor yield.
--- Kinds of a step: Overflow, Closed, Io.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- log:append("one")
--- log:append("two")
--- for number, data in log:records() do print(number, data) end
--- --> 1 one
--- --> 2 two
--- ```
---@param from integer? default the first there is
---@return jdbfs.Cursor
function Log:records(from) end
--- What opening found and did.
--- Never waits.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- print(log:recovery().records, log:recovery().clean) --> 0 true
--- ```
---@return jdbfs.Recovery
function Log:recovery() end
--- Counts since the log was opened.
--- Never waits.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- log:append("one")
--- print(log:stats().batches) --> 1
--- ```
---@return jdbfs.LogStats
function Log:stats() end
--- Removes the segments that hold only records before that number, never the current one; durable
--- on return. With option spare_segments some are used again. Cursors in a removed segment
--- read it to its end. Yields.
--- Kinds: Overflow, Closed, Poisoned, Io.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- local number = assert(log:append("state at this point: ..."))
--- assert(log:truncate_before(number))
--- ```
---@param number integer the first record that must stay
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Log:truncate_before(number) end
--- Commits what was gathered and closes. Later use is Closed; closing again is true. Yields.
--- Kinds: Io, Poisoned.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- assert(log:close())
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Log:close() end

---@class jdbfs.Cursor
---@overload fun(): integer?, string?
local Cursor = {}
--- The next record; nothing but nil at the end. A damaged one is kind Io, again and again. Yields.
--- Kinds: Overflow, Closed, Io.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- log:append("one")
--- local cursor = log:records()
--- print(cursor:next()) --> 1 one
--- print(cursor:next()) --> nil
--- ```
---@return integer? number
---@return string? data the message of a failure when number is nil
---@return jdbfs.Error? err
function Cursor:next() end
--- Lets go of the file. For loops do that at their end, on Lua 5.4 also when they break.
--- Never waits.
--- ```lua
--- local log = assert(jdbfs.log("orders"))
---
--- local cursor = log:records()
--- cursor:close()
--- ```
---@return true
function Cursor:close() end

-- ---- streams ------------------------------------------------------------------------------------

---@class jdbfs.StreamOptions
---@field block integer? bytes moved at once, rounded up to the file's alignment, default 1 MiB
---@field depth integer? blocks ahead or behind, 1 to 1024, default 4
---@field offset integer? where to start, default 0; any byte up to 2^53, which is how far streams
---  count exactly on every Lua. A plain number, as all options are, and read's n

--- Writes a file as a sequence of bytes of any sizes, behind the caller: in a task up to `depth`
--- blocks are in flight, each in a short-lived task of its own; outside tasks each block is
--- written in place. The file stays the caller's, to be closed after the writer. Yields.
--- Kinds: Io, Overflow, Alloc, Closed.
--- ```lua
--- local w = assert(jdbfs.writer(file))
--- w:write("any ", "sizes")
--- assert(w:close())
--- print(file:read(0, 9)) --> any sizes
--- ```
---@param f jdbfs.File open for writing
---@param o jdbfs.StreamOptions?
---@return jdbfs.Writer? writer
---@return string? message
---@return jdbfs.Error? err
function jdbfs.writer(f, o) end

--- For one task at a time. The first error of any write is returned by every later call, close
--- included.
---@class jdbfs.Writer
local Writer = {}
--- Appends all of them.
--- Yields when a block is full, so that it is on its way, and while all blocks are in flight.
--- Kinds: ShortWrite, Closed, Busy (the buffer), Io.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- assert(w:write("one ", buffer:slice(0, 10)))
--- print(w:position()) --> 14
--- ```
---@param ... string|jdbfs.Buffer copied before the call returns
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:write(...) end
--- The part of the current block that is still free, to be filled in place instead of copied by
--- write; what was put there counts with advance. Good until the next call but advance. Yields
--- when the block before goes, and while all blocks are in flight.
--- Kinds: ShortWrite, Closed, Alloc, Io.
--- ```lua
--- local w = assert(jdbfs.writer(file))
--- local space = assert(w:space())
--- space:set(0, "in place")
--- assert(w:advance(8))
--- print(w:position()) --> 8
--- ```
---@return jdbfs.Buffer? space never empty
---@return string? message
---@return jdbfs.Error? err
function Writer:space() end
--- The first n bytes of space() are written. Never waits.
--- Kinds: ShortWrite, Closed, Io (of a block before).
--- ```lua
--- local w = assert(jdbfs.writer(file))
--- assert(w:space()):fill(1, 0, 100)
--- print(w:advance(100)) --> true
--- ```
---@param n integer bytes, at most #space
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:advance(n) end
--- Everything written so far is in the file, which ends where it should, and on stable storage.
--- Yields.
--- Kinds: Poisoned, Closed, Io.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- w:write("one")
--- assert(w:sync())
--- print(w:durable()) --> 3
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:sync() end
--- Writes the rest. The file then ends behind the last byte written, or where it ended before when
--- that is further: what a shorter write leaves of an older file stays. Not a sync. Closing again
--- is true. Yields.
--- Kinds: Closed, Io.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- w:write("one")
--- assert(w:close())
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:close() end
--- Offset of the next byte.
--- Never waits.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- w:write("one")
--- print(w:position()) --> 3
--- ```
---@return integer
function Writer:position() end
--- Every byte before this offset is in the file.
--- Never waits.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- w:write("one")
--- print(w:written()) --> 0
--- ```
---@return integer
function Writer:written() end
--- Every byte before this offset is on stable storage, by a sync of this writer.
--- Never waits.
--- ```lua
--- local w = assert(jdbfs.writer(file))
---
--- print(w:durable()) --> 0
--- ```
---@return integer
function Writer:durable() end

--- Reads a file as a sequence of bytes of any sizes; in a task up to `depth` blocks are read
--- ahead, as far as the file went when that began. Yields, to ask for the file's alignment.
--- Kinds: Overflow, Alloc, Closed.
--- ```lua
--- local r = assert(jdbfs.reader(file))
--- print(r:read(4), r:read(2)) --> page  0
--- r:close()
--- ```
---@param f jdbfs.File open, stays so
---@param o jdbfs.StreamOptions?
---@return jdbfs.Reader? reader
---@return string? message
---@return jdbfs.Error? err
function jdbfs.reader(f, o) end

--- For one task at a time. After an error the position is what it was before the call, and the
--- next call tries again.
---@class jdbfs.Reader
local Reader = {}
--- n bytes, fewer only at the end of the file; nothing but nil at the end. Yields.
--- Kinds: Overflow, Closed, Io.
--- ```lua
--- local r = assert(jdbfs.reader(file))
---
--- print(r:read(6)) --> page 0
--- ```
---@param n integer bytes
---@return string? data
---@return string? message
---@return jdbfs.Error? err
function Reader:read(n) end
--- Fills the buffer, or `len` bytes of it from `off` on. Bytes read, fewer only at the end of the
--- file, 0 at the end. Yields.
--- Kinds: Overflow, Busy (the buffer), Closed, Io.
--- ```lua
--- local r = assert(jdbfs.reader(file))
---
--- print(r:read_into(buffer, 0, 6), buffer:string(0, 6)) --> 6 page 0
--- ```
---@param b jdbfs.Buffer any alignment
---@param off integer? bytes from the start of the buffer, default 0
---@param len integer? bytes, default the rest of the buffer
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function Reader:read_into(b, off, len) end
--- What is there of the current block, uncopied, from the position on, which moves behind it;
--- nothing but nil at the end of the file. Good until the next call. Yields.
--- Kinds: Closed, Alloc, Io.
--- ```lua
--- local r = assert(jdbfs.reader(file))
--- local block = assert(r:next_block())
--- print(#block, block:string(0, 6)) --> 8192 page 0
--- print(r:next_block()) --> nil
--- ```
---@return jdbfs.Buffer? bytes
---@return string? message
---@return jdbfs.Error? err
function Reader:next_block() end
--- Offset of the next byte.
--- Never waits.
--- ```lua
--- local r = assert(jdbfs.reader(file))
---
--- r:read(6)
--- print(r:position()) --> 6
--- ```
---@return integer
function Reader:position() end
--- Waits for the blocks that are being read. The file stays open.
--- Yields.
--- ```lua
--- local r = assert(jdbfs.reader(file))
---
--- r:close()
--- ```
---@return true
function Reader:close() end

-- ---- the queue, and hosts ---------------------------------------------------------------------

---@class jdbfs.SetupOptions
---@field backend "auto"|"io_uring"|"threads"|"kqueue"|"iocp"|"sim"|"null"|nil the environment
---  variable JDBFS_BACKEND wins. "null" is for measuring: reads, writes and flushes end at once,
---  and nothing is transferred
---@field depth integer? operations the kernel holds at once, 1 to 4096, default 256
---@field workers integer? threads of the pool at most, 1 to 256, default 16
---@field sqpoll number? io_uring: a thread of the kernel takes the operations, without a call, and
---  sleeps after so many seconds without any (0 < s <= 10). It needs a processor of its own, and
---  uses it up. Off by default
---@field min_wait number? io_uring, Linux 6.12: with several operations in flight completions are
---  gathered for so many seconds at most (0 < s <= 10), instead of as long as they usually take:
---  more throughput, later answers. Off by default. Where one of these two cannot work, every call
---  is Unsupported and says why
---@field iopoll boolean|"hybrid"|nil io_uring: whoever waits asks the device for completions, again
---  and again, instead of being interrupted by it: less latency, and a processor used up meanwhile.
---  "hybrid" (Linux 6.13) sleeps first, for half as long as they usually take. Reads and writes of
---  direct files, but for durable writes, go to a second ring for that. The device must have poll
---  queues (/sys/block/*/queue/io_poll; for NVMe the module parameter nvme.poll_queues makes them):
---  where it has none, opening a file with direct = "require" is Unsupported and says so; one with
---  direct = "prefer" is used as without the option, and f:info() tells. No descriptor announces
---  what is polled for: pollfd and host are Unsupported. Off by default
---@field close_limit number? the end of the Lua state waits so many seconds at most (0 < s <=
---  86400) for what the system still has; default: as long as it takes. What it has not given back
---  by then, memory, descriptors, threads, stays as it is until the process ends, which may have to
---  wait for the disk itself; what had not begun is not begun
---@field registered boolean? io_uring: whether buffers, files and the ring are registered with the
---  kernel once they have seen some transfers, which makes transfers cheaper; default true. What is
---  refused, as by the limit on locked memory, is done without

--- Before the first operation; later it is kind Busy.
--- Never waits.
--- Kinds: Busy.
--- ```lua
--- assert(jdbfs.setup { backend = "threads", workers = 4 })
--- print(jdbfs.info().backend)
--- ```
---@param o jdbfs.SetupOptions
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.setup(o) end

---@class jdbfs.Info
---@field version string of the library
---@field backend string "io_uring", "threads", "sim", "null"
---@field reason string why this backend
---@field features string comma-separated
---@field kernel string "Linux 6.1.0"
---@field lua string the Lua that runs
---@field depth integer operations the kernel holds at once
---@field page_size integer bytes
---@field task_bytes integer about what a task that waits takes of Lua's heap: its coroutine, before
---  its stack grows, and what jdbfs keeps of it. The operation it may wait for: see slot_bytes
---@field in_flight_limit integer operations handed over at once: depth, or less when the depth was
---  left open and the device of a file that was opened takes fewer without making us wait
---@field in_flight_reason string? which device, when it is less
---@field registered_memory integer bytes of buffers registered now, in pieces of 2 MiB; with option
---  iopoll those of both rings
---@field registered_files integer files registered now, 256 at most
---@field registered_ring boolean
---@field registered_refused string? what the kernel refused to register, and why
---@field host string? name of the host that was chosen

--- What runs here, and why.
--- Makes the queue if it is not there yet.
--- Never waits.
--- Kinds: Unsupported, Alloc, Forked (no usable queue).
--- ```lua
--- local info = assert(jdbfs.info())
--- print(info.backend, info.reason)
--- ```
---@return jdbfs.Info? info
---@return string? message
---@return jdbfs.Error? err
function jdbfs.info() end

---@class jdbfs.Stats
---@field submitted integer operations accepted
---@field completed integer operations delivered or dropped
---@field in_flight integer with the kernel or a worker now
---@field waiting integer accepted, not handed over yet
---@field abandoned integer unfinished, and nobody waits for them
---@field entries integer calls into the kernel to submit or wait
---@field handovers integer of these, with something to submit
---@field pool_operations integer of submitted, run by worker threads
---@field flushes integer device flushes asked for by sync and durable writes
---@field resubmitted integer rests of short transfers, second tries
---@field slots integer operations allocated
---@field slot_bytes integer their memory: as many as ever waited at once, not in Lua's heap
---@field workers integer threads alive
---@field reaps integer looks that found completions, while `jdbfs run` measures
---@field tasks integer not ended
---@field buffers integer alive in this process
---@field files integer alive in this process

--- Counters of the queue.
--- Never waits.
--- ```lua
--- print(jdbfs.stats().in_flight) --> 0
--- ```
---@return jdbfs.Stats
function jdbfs.stats() end
--- A descriptor that is readable when completions, ready tasks or timers that are due wait: call
--- step then. Never read or close it.
--- Never waits.
--- Kinds: Unsupported, Io, Forked.
--- ```lua
--- print(jdbfs.pollfd() >= 0) --> true
--- ```
---@return integer? fd
---@return string? message
---@return jdbfs.Error? err
function jdbfs.pollfd() end
--- Reaps completions and resumes tasks; waits at most that long for the first. Raises what a
--- task raised.
--- Blocks, for the timeout at most.
--- Kinds: Unsupported, Forked.
--- ```lua
--- local task = jdbfs.spawn(file.read, file, 0, 6)
--- while task:status() ~= "done" do jdbfs.step(1) end
--- print(task:join()) --> page 0
--- ```
---@param timeout number? seconds, default 0
---@return integer? resumed
---@return string? message
---@return jdbfs.Error? err
function jdbfs.step(timeout) end
--- What step still has to do: unfinished operations, ready and sleeping tasks.
--- Never waits.
--- ```lua
--- print(jdbfs.pending()) --> 0
--- ```
---@return integer
function jdbfs.pending() end
--- Hands staged operations to the kernel. Nothing to do with durability.
--- Never waits.
--- ```lua
--- jdbfs.flush()
--- ```
---@return true
function jdbfs.flush() end

--- How a host's scheduler is used. A light thread is what the host suspends and resumes: a
--- coroutine, fiber or request handler; a token stands for one that waits. lua/jdbfs/host has five,
--- of at most 150 lines; spec/hosts/own.lua one for a scheduler of forty lines.
---@class jdbfs.Adapter
---@field name string? for info() and messages
---@field current fun(): any, string? a token of the light thread that runs, or nil (and why) where
---  none can be suspended: the call then completes in place. Called once for each wait
---@field suspend fun(token: any) until wake(token); may return early, any number of times; raises
---  when the host refuses, and the call then raises the same
---@field wake fun(token: any) resumes the light thread, or makes it runnable. Called by the
---  dispatcher only, at most once a wait; harmless when the thread has ended
---@field watch fun(fd: integer, on_ready: fun(), needed: fun(): boolean): boolean? from now on
---  calls on_ready, the dispatcher, whenever fd is readable, in a place where nothing is lost by
---  waking others; too many calls are harmless. False: not possible here and now, it is asked again
---  at the next wait. `needed` tells whether an operation is in flight or a light thread waits
---@field ref fun(): boolean? something is in flight: keep the loop alive, have the dispatcher run.
---  False: not possible here, asked again at the next wait
---@field unref fun()? nothing is in flight any more
---@field alive? fun(token: any): boolean whether the light thread still waits. With it a killed
---  thread is never handed a permit or a value
---@field release fun(token: any)? the wait is over, the token may be used again
---@field report fun(message: any)? of an error that nobody else hears: of a task, of wake; default
---  standard error
---@field shield fun()? called first in every coroutine of jdbfs: makes the host's API refuse it
---@field stackful boolean? threads have C stacks of their own, so that no yield is needed
---@field forks boolean? processes fork after the choice: each child makes a queue of its own

--- Chooses who owns the event loop, once, before the first operation; else Busy. From then on calls
--- in a light thread of that host suspend it, tasks of spawn are run by its loop, and nothing polls
--- or blocks. Functions of jdbfs that were stored in locals before complete in place. Calls where
--- nothing can be suspended (the main chunk, a phase of nginx that may not wait) complete before
--- they return. log, its methods, those of streams, and timeout run as a task, for which the light
--- thread waits: killing the thread leaves them neither half done nor without their limit.
---
--- "ngx" (also `require "resty.jdbfs"`): OpenResty, nginx with the Lua module 0.10.14 and later.
--- Overlaps in rewrite, access, content, timer, ssl_*; in place in init, init_worker, set,
--- header_filter, body_filter, log, balancer. A task is no light thread: ngx.* raises in it.
--- In init a task must be one of jdbfs.run: nobody else runs it there, spawn raises.
--- "luv": also luvit and Neovim, where light threads resume through vim.schedule. Any coroutine is
--- taken for a light thread: a generator that does I/O must be made by jdbfs.wrap. The same holds
--- for "copas".
--- "cqueues": the first operation, or spawn, must come from inside a controller. "tarantool".
---
--- Unsupported: unknown name, host not there or too old. Raises when the adapter table lacks a
--- function, and names it.
--- Never waits.
--- Kinds: Unsupported, Busy.
--- ```lua
--- local uv = require "luv"
--- assert(jdbfs.host("luv"))
--- coroutine.wrap(function()
---   print(jdbfs.exists(".")) -- suspends this coroutine, not the loop
--- end)()
--- uv.run()
--- ```
---@param host "ngx"|"luv"|"cqueues"|"copas"|"tarantool"|jdbfs.Adapter
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.host(host) end

-- ---- the simulated disk -------------------------------------------------------------------------

--- `require "jdbfs.sim"`, for tests of what is built on jdbfs. With `setup{ backend = "sim" }` or
--- JDBFS_BACKEND=sim all files lie in memory, in a tree of their own that starts empty and ends
--- with the Lua state; relative paths start at "/". Time is virtual: sleep, timeout and now follow
--- the clock of the disk, nothing ever waits. A seed decides how long operations take, and so in
--- which order they end: the same seed and the same calls give the same run. JDBFS_SIM_SEED sets
--- the first one.
---
--- What a crash keeps is what POSIX promises, and any part of the rest: bytes and sizes are durable
--- by sync_data, sync_all or a durable write of that file, names by sync_dir or a durable call.
--- Sectors survive singly, sizes without their bytes, names in any order; of a rename one name at
--- least. After a failed flush nothing that it covered becomes durable by a later one.
---
--- Links, devices, permissions and other processes are not simulated (files are made with a umask
--- of 022). On other backends every call gives kind Unsupported.
---@class jdbfs.Sim
local Sim = {}

---@class jdbfs.SimOptions
---@field seed integer? default 1
---@field capacity integer? bytes, default 4 GiB
---@field sector integer? alignment, and what a crash does not tear: a power of two up to 4096,
---  default 512
---@field atomic integer? bytes of the largest write with the flag "atomic", default 0: none
---@field latency number[]? least and most seconds of an operation, default {20e-6, 200e-6}; one in
---  32 takes 8 times as long

--- An empty disk without faults. Files that are open fail from now on. Busy while an operation is
--- unfinished.
--- Never waits.
--- Kinds: Unsupported, Busy.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- assert(sim.reset { seed = 7, sector = 4096 })
--- ```
---@param o jdbfs.SimOptions?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.reset(o) end

---@class jdbfs.SimFault
---@field op string? name of the operation ("write_at", "rename", ...; transfers of a list are
---  read_at and write_at, the flush of a durable write is sync_data), "flush": whatever makes
---  something durable that was not, of files and directories, also inside other operations.
---  Default: any operation, of omit "flush"
---@field nth integer? which one from now on, default 1
---@field count integer? how many from there on, default 1
---@field rate number? instead of nth and count: probability of each
---@field errno string? it fails with that, as "EIO" ...
---@field when "before"|"after"|"torn"|nil ... before anything is done (default), after it is done,
---  or after some sectors of a write
---@field transfer integer? it moves so many bytes at most; the rest is asked for again
---@field omit boolean? a flush is told as done and was not: a disk that lies, or a program that has
---  forgotten it

--- Up to 32 faults at once. A crash and a reset remove them; state().faults counts those that
--- struck.
--- Never waits.
--- Kinds: Unsupported, Overflow.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- assert(sim.fault { op = "write_at", nth = 2, errno = "EIO" })
--- print(file:write_at(buffer, 0)) --> 4096
--- local _, _, err = file:write_at(buffer, 0)
--- print(err.name) --> EIO
--- ```
---@param o jdbfs.SimFault
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.fault(o) end
--- Cuts the power at that step from now on; 0: not at all. Steps are changes and flushes, several
--- in a call like atomic_write; that one is done or not. From then on everything fails with EIO.
--- Never waits.
--- Kinds: Unsupported, Busy.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- assert(sim.cut(1))
--- local _, _, err = file:sync_data()
--- print(err.name, sim.state().power) --> EIO false
--- ```
---@param step integer from 1
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.cut(step) end
--- Cuts the power if it is on, and starts again with what is durable and any part of the rest,
--- which the seed (default 0) chooses. Open files fail from now on, what was in flight ends with
--- EIO.
--- Never waits.
--- Kinds: Unsupported, Busy.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- assert(file:sync_all())
--- assert(jdbfs.sync_dir("."))
--- assert(sim.crash { seed = 3 })
--- print(jdbfs.exists("data")) --> true
--- ```
---@param o { seed: integer? }? chooses what survives
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.crash(o) end
--- As if the process had died, not the machine: open files and operations in flight end as in a
--- crash, but all changes stay, as durable as they were.
--- Never waits.
--- Kinds: Unsupported, Busy.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- assert(sim.kill())
--- print(jdbfs.size("data")) --> 8192
--- ```
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.kill() end

---@class jdbfs.SimState
---@field trace string hash of all operations since the reset, their results and times
---@field time number virtual seconds since the reset
---@field operations integer ended since the reset
---@field steps integer where the power could have gone
---@field flushes integer that had something to make durable
---@field faults integer that struck
---@field used integer bytes
---@field open_files integer handles
---@field power boolean false after a cut

--- Counts of the simulated disk.
--- Never waits.
--- Kinds: Unsupported.
--- ```lua
--- local sim = require "jdbfs.sim"
---
--- print(sim.state().power) --> true
--- ```
---@return jdbfs.SimState?
---@return string? message
---@return jdbfs.Error? err
function Sim.state() end

return jdbfs
