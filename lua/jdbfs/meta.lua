---@meta jdbfs
-- The API reference. Nothing here is run: editors read it, and a spec holds it against the module
-- in both directions.
--
-- Every call that can fail in the world returns `nil, message, err` (see jdbfs.Error). Misuse
-- (wrong types, unknown options) raises. Offsets and lengths are bytes from 0, integers up to
-- 2^63-1 (integral floats and LuaJIT 64-bit cdata are accepted); anything else is kind Overflow.
-- "Yields" means: in a task the coroutine is suspended until the result is there; outside a task
-- the call completes before it returns.

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
---| "Cancelled"
---| "Timeout"
---| "Poisoned"
---| "Unsupported" # not by this backend, file system, thread or version
---| "Forked"      # the queue belongs to the parent process

--- The third result of a failure. tostring(err) is the message.
---@class jdbfs.Error
---@field kind jdbfs.Kind
---@field message string one sentence: operation, path, cause
---@field op string? name of the operation
---@field path string?
---@field offset integer?
---@field length integer? bytes asked for
---@field actual integer? bytes that were moved before the failure
---@field index integer? of the entry of read_many or write_many, from 1
---@field errno integer?
---@field name string? of the errno, as "ENOSPC"

-- ---- tasks ---------------------------------------------------------------------------------

--- Starts f(...) as a task and drives completions until it and every task spawned meanwhile has
--- ended. Blocks. A task that raises ends the run: the others are cancelled, their operations
--- waited for, and run raises that error with its traceback. Raises inside a task, and on a
--- deadlock (tasks wait, and nothing is left that could wake one).
---@param f function
---@param ... any arguments of f
---@return any ... results of f; nil, message, err when there is no usable queue
function jdbfs.run(f, ...) end

--- Starts another task in the current run. Outside a run, `step` or `join` drives it.
---@param f function
---@param ... any
---@return jdbfs.Task? task
---@return string? message
---@return jdbfs.Error? err
function jdbfs.spawn(f, ...) end

--- Yields for at least that long. Outside a task it blocks.
---@param seconds number 0 or more
---@return true
function jdbfs.sleep(seconds) end

--- Yields to the other tasks that are ready.
---@return true
function jdbfs.yield() end

--- Monotonic seconds, for differences.
---@return number
function jdbfs.now() end

--- f's results, or kind Timeout when it has not ended in time: then its task is cancelled, what
--- the kernel already has goes on unseen. An error in f is raised here. Yields.
---@param seconds number
---@param f function
---@param ... any
---@return any ...
function jdbfs.timeout(seconds, f, ...) end

--- coroutine.wrap for generators that do I/O in a task: their operations suspend the task. Plain
--- Lua 5.1 cannot yield from the iterator of a for loop: call the generator in a while loop there.
---@param f function
---@return function
function jdbfs.wrap(f) end

--- pcall around code that does I/O in a task: pcall itself, except on plain Lua 5.1, which cannot
--- yield across its own.
---@param f function
---@param ... any
---@return boolean ok
---@return any ...
function jdbfs.pcall(f, ...) end

---@class jdbfs.Task
local Task = {}

--- Waits until the task has ended. Its results; kind Cancelled or kind Join (it raised). Yields;
--- outside a run it drives the tasks there are.
---@return any ...
function Task:join() end

--- A task that waits ends now (its to-be-closed variables run), one that runs ends at its next
--- wait. Its operations are not stopped: their buffers stay in flight until the kernel is done.
---@return boolean alive whether it had not ended yet
function Task:cancel() end

---@return "ready"|"running"|"waiting"|"done"|"failed"|"cancelled"
function Task:status() end

-- ---- coordination ----------------------------------------------------------------------------

---@param n integer permits, 0 or more
---@return jdbfs.Semaphore
function jdbfs.semaphore(n) end

---@class jdbfs.Semaphore
local Semaphore = {}
--- Waits for a permit; waiters are served in order. Yields.
---@return true
function Semaphore:acquire() end
--- Takes a permit if one is free.
---@return boolean
function Semaphore:try_acquire() end
---@return true
function Semaphore:release() end

---@return jdbfs.Event
function jdbfs.event() end

---@class jdbfs.Event
local Event = {}
--- Yields until the event is set; returns at once when it is.
---@return true
function Event:wait() end
--- Wakes all that wait.
---@return true
function Event:set() end
---@return true
function Event:clear() end
---@return boolean
function Event:is_set() end

---@param max integer? values it holds before put waits; unlimited when absent
---@return jdbfs.Queue
function jdbfs.queue(max) end

---@class jdbfs.Queue
local Queue = {}
--- Appends; yields while the queue is full.
---@param value any
---@return true
function Queue:put(value) end
--- Takes the oldest; yields while there is none.
---@return any
function Queue:take() end
---@return integer
function Queue:size() end

--- Reusable buffers for hot loops.
---@param count integer
---@param size integer bytes of each
---@return jdbfs.Pool? pool
---@return string? message
---@return jdbfs.Error? err
function jdbfs.pool(count, size) end

---@class jdbfs.Pool
local Pool = {}
--- Yields until a buffer is free.
---@return jdbfs.Buffer
function Pool:get() end
--- Raises for a buffer that is not out.
---@param b jdbfs.Buffer
---@return true
function Pool:put(b) end

-- ---- buffers ----------------------------------------------------------------------------------

--- Zero-filled memory, not inherited by forked children. Fails with Alloc, Alignment (align is no
--- power of two) or Overflow.
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
---@param off integer? default 0
---@param len integer? default the rest
---@return string
function Buffer:string(off, len) end
---@param off integer
---@param str string
---@return true
function Buffer:set(off, str) end
---@param byte integer 0 to 255
---@param off integer?
---@param len integer?
---@return true
function Buffer:fill(byte, off, len) end
--- Copies from src, which may overlap.
---@param off integer
---@param src jdbfs.Buffer
---@param src_off integer?
---@param len integer?
---@return true
function Buffer:copy(off, src, src_off, len) end
--- A view that shares the memory and keeps it.
---@param off integer
---@param len integer
---@return jdbfs.Buffer
function Buffer:slice(off, len) end
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:u8(off, v) end
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:u16(off, v) end
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:u32(off, v) end
--- Wraps like string.pack("<I8") on 5.3 and later; beyond 2^53 LuaJIT gives a uint64_t and plain
--- 5.1 and 5.2 raise.
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:u64(off, v) end
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:i32(off, v) end
---@param off integer
---@param v integer?
---@return integer|true
function Buffer:i64(off, v) end
---@param off integer
---@param v number?
---@return number|true
function Buffer:f64(off, v) end
--- CRC-32C (Castagnoli).
---@param off integer?
---@param len integer?
---@return integer
function Buffer:crc32c(off, len) end
--- For FFI; valid while the buffer lives.
---@return lightuserdata
function Buffer:pointer() end
---@return integer
function Buffer:align() end
--- Lets go of the memory early; slices keep theirs. Later use is Closed.
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
---@field dsync boolean? every write is durable on return, as with open_wal
---@field durable_method "auto"|"write"|"flush"|nil how "dsync" writes are done: each by itself
---  (RWF_DSYNC), as a write and a flush shared with others, or (default) a lone one by itself and
---  several at once with a shared flush

--- Opens read only. Yields. Unsupported when direct I/O is required and refused.
---@param path string
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open(path, o) end
--- Read-write, made or truncated. Yields.
---@param path string
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.create(path, o) end
--- Read-write, made if missing. Yields.
---@param path string
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open_rw(path, o) end
--- As open_rw, and every write is durable on return (O_DSYNC). Yields.
---@param path string
---@param o jdbfs.OpenOptions?
---@return jdbfs.File? file
---@return string? message
---@return jdbfs.Error? err
function jdbfs.open_wal(path, o) end

---@class jdbfs.FileInfo
---@field path string
---@field direct boolean the page cache is bypassed as far as the system says
---@field direct_policy "require"|"prefer"|"off"
---@field direct_reason string
---@field memory_alignment integer
---@field read_alignment integer of offsets and lengths of reads
---@field write_alignment integer
---@field alignment_source string
---@field file_system string
---@field backend string
---@field writable boolean
---@field dsync boolean every write is durable on return
---@field durable_method "auto"|"write"|"flush"
---@field durable_reason string how durable writes are done, and why
---@field poisoned boolean a flush or durable write failed: only reopening clears it
---@field atomic { min: integer, max: integer } bytes of one "atomic" write; 0: there are none
---@field logical_block integer? of the disk
---@field physical_block integer? of the disk
---@field durability jdbfs.Durability

--- Evidence, not a promise of the device. Unknown fields are absent.
---@class jdbfs.Durability
---@field class "flush-required"|"unverified"|"unsafe"|"unknown"|"simulated"
---@field reasons string[]
---@field device string?
---@field mount_options string?
---@field volatile_cache boolean? written data may sit in a cache that power loss empties
---@field fua boolean? single writes can pass that cache

---@class jdbfs.Stat
---@field size integer
---@field allocated integer bytes of disk space
---@field inode integer
---@field device integer
---@field links integer
---@field mode integer permission bits
---@field atime number seconds since 1970
---@field mtime number
---@field ctime number
---@field type "file"|"directory"|"block device"|"other"

--- Offsets, lengths and memory must be aligned as info() says; PAGE_SIZE always is. A file left
--- to the collector closes by itself after its last operation.
---@class jdbfs.File
local File = {}
--- Reads exactly len bytes (default: the buffer behind b_off). End of file before that is
--- ShortRead: err.actual bytes are in place. Yields.
---@param b jdbfs.Buffer
---@param off integer
---@param b_off integer?
---@param len integer?
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:read_at(b, off, b_off, len) end
--- As read_at, but end of file is no error: 0 bytes at or behind it. Yields.
---@param b jdbfs.Buffer
---@param off integer
---@param b_off integer?
---@param len integer?
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:read_upto(b, off, b_off, len) end
--- A string of any offset and length; shorter only at end of file. Yields.
---@param off integer
---@param len integer
---@return string? data
---@return string? message
---@return jdbfs.Error? err
function File:read(off, len) end
--- Writes exactly len bytes; short writes are resumed. Flags: "dsync": durable on return, flushes
--- shared with others; "atomic": all or nothing after a crash, within info().atomic and aligned to
--- its own length (Unsupported where the file system has none). Yields.
---@param b jdbfs.Buffer
---@param off integer
---@param b_off integer?
---@param len integer?
---@param flags "dsync"|"atomic"|"dsync,atomic"|nil
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:write_at(b, off, b_off, len, flags) end
--- Many exact reads, one yield. Nothing is submitted when an entry is refused. The first entry of
--- the list that failed is reported, with err.index. Yields.
---@param list { [1]: jdbfs.Buffer, [2]: integer, [3]: integer?, [4]: integer? }[] buffer, offset,
---  buffer offset, length
---@return integer? count
---@return string? message
---@return jdbfs.Error? err
function File:read_many(list) end
--- Many exact writes, one yield; with "dsync" one flush covers them all. Yields.
---@param list { [1]: jdbfs.Buffer, [2]: integer, [3]: integer?, [4]: integer? }[]
---@param flags "dsync"|"atomic"|"dsync,atomic"|nil
---@return integer? count
---@return string? message
---@return jdbfs.Error? err
function File:write_many(list, flags) end
--- Yields.
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function File:size() end
--- Yields.
---@return jdbfs.Stat? stat
---@return string? message
---@return jdbfs.Error? err
function File:stat() end
--- What is in force for this file, and how it is known. Yields.
---@return jdbfs.FileInfo? info
---@return string? message
---@return jdbfs.Error? err
function File:info() end
--- Data, and what is needed to read it back, on stable storage (fdatasync). Covers every write
--- that had completed before the call; callers share flushes. After a failed flush the file is
--- poisoned: err.offset and err.length tell the bytes in doubt, later durable calls are Poisoned
--- until it is reopened, and the flush is never tried again. Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:sync_data() end
--- Data and metadata on stable storage (fsync). Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:sync_all() end
--- Cuts, or grows with zeros. Any length. Yields.
---@param len integer
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:truncate(len) end
--- Reserves space up to len; never shrinks, keeps what is there. "size": the file grows and reads
--- zeros; "keep_size": only the space; "zero": zeros are written, so that later overwrites change
--- no metadata. Writes of this
--- handle wait meanwhile; other handles must not write behind the end. Yields.
---@param len integer
---@param how "size"|"keep_size"|"zero"?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:preallocate(len, how) end
--- Gives the space of a range back; it reads zeros, the size stays. Yields.
---@param off integer
---@param len integer
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:punch(off, len) end
--- An advisory lock between open files, also of one process. Fails at once with Busy when another
--- holds it; the message names the process. I/O in flight keeps a dead process's lock for a
--- moment. Closing unlocks. Yields.
---@param how "exclusive"|"shared"
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:lock(how) end
--- Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:unlock() end
---@return string
function File:path() end
--- Waits for the file's operations and closes it; reports the error of a write or sync that
--- nobody waited for. Later operations are Closed; closing again is true. Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function File:close() end

-- ---- names ------------------------------------------------------------------------------------

--- Follows links. nil, message, err when it cannot be told (no permission, a loop). Yields.
---@param path string
---@return boolean?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.exists(path) end
--- With parents; an existing directory is fine. durable syncs every directory of the path, up to
--- where its file system is mounted. Yields.
---@param path string
---@param o { durable: boolean? }?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.mkdir(path, o) end
--- Names of the regular files in a directory, sorted by bytes. Yields.
---@param path string
---@return string[]? names
---@return string? message
---@return jdbfs.Error? err
function jdbfs.ls(path) end
--- Bytes; follows links. Yields.
---@param path string
---@return integer?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.size(path) end
--- Follows links. Yields.
---@param path string
---@return jdbfs.Stat?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.stat(path) end
--- Atomic; replaces the target unless noreplace (then EEXIST). durable syncs both directories; the
--- file's content is durable only if it was synced before. Yields.
---@param from string
---@param to string
---@param o { noreplace: boolean?, durable: boolean? }?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.rename(from, to, o) end
--- A file; a directory is EISDIR. Yields.
---@param path string
---@param o { durable: boolean? }?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.remove(path, o) end
--- Makes the names in a directory durable. Yields.
---@param path string
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.sync_dir(path) end
--- Bytes free to this user, and bytes in all, of the file system that holds path. Yields.
---@param path string
---@return integer? free
---@return integer|string total
---@return jdbfs.Error? err
function jdbfs.space(path) end
--- Replaces a file's content: after any crash it has the old or the new one, and the new one is
--- durable on return. Written under a temporary name in the same directory, which is removed on
--- failure. Keeps the permissions of what it replaces, and its owner where that is allowed (else
--- nothing that was granted to that owner and group is granted to others), not its extended
--- attributes; a symbolic link is replaced, not followed.
--- Yields.
---@param path string
---@param data string|jdbfs.Buffer
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.atomic_write(path, data) end

---@class jdbfs.Probe
---@field kernel string
---@field backend string
---@field backend_reason string
---@field features string
---@field file_system string
---@field direct boolean
---@field direct_reason string
---@field memory_alignment integer
---@field read_alignment integer
---@field write_alignment integer
---@field alignment_source string
---@field atomic { min: integer, max: integer }
---@field logical_block integer?
---@field physical_block integer?
---@field durability jdbfs.Durability

--- What machine, file system and device offer at a path. In a directory a nameless file is made
--- for the question; nothing stays behind. Yields.
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
---@field direct "require"|"prefer"|"off"? as for open

--- Opens the log in that directory, or makes it; one opener at a time (Busy). Reads and checks all
--- of it. A torn tail is cut: see recovery(). Kind Io when an acknowledged record is damaged or a
--- segment is missing, foreign or damaged: err.path is the segment, err.offset the place, the
--- message has the record's number; nothing is changed then. Damage in the last batch ever written
--- cannot be told from a torn write: it is cut; likewise the loss of the newest segment file is not
--- seen. Yields.
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
---@field segments integer
---@field clean boolean nothing had to be cut
---@field cut_bytes integer of a batch that was never acknowledged
---@field cut_at { segment: string, offset: integer }? file name and place of the cut

---@class jdbfs.LogStats
---@field records integer appended since the log was opened
---@field batches integer written since then: each is one write and one flush
---@field bytes integer written in them, with headers and padding
---@field segments integer
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
---@param data string|jdbfs.Buffer
---@return integer? number
---@return string? message
---@return jdbfs.Error? err
function Log:append(data) end
--- The durable records from that number on (default: the first there is), for
--- `for number, data in log:records() do`, which raises the message of a failure; next() returns
--- it. A number that truncate_before removed, or that is none, is Overflow at the first step. At
--- the end the cursor stays usable: it goes on when more was appended. One task at a time. In a
--- task on plain Lua 5.1 the steps of a for loop block the other tasks, next() never does.
---@param from integer?
---@return jdbfs.Cursor
function Log:records(from) end
--- What opening found and did.
---@return jdbfs.Recovery
function Log:recovery() end
---@return jdbfs.LogStats
function Log:stats() end
--- Removes the segments that hold only records before that number, never the current one; durable
--- on return. Cursors in a removed segment read it to its end. Yields.
---@param number integer
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Log:truncate_before(number) end
--- Commits what was gathered and closes. Later use is Closed; closing again is true. Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Log:close() end

---@class jdbfs.Cursor
---@overload fun(): integer?, string?
local Cursor = {}
--- The next record; nothing but nil at the end. A damaged one is kind Io, again and again. Yields.
---@return integer? number
---@return string? data the message of a failure when number is nil
---@return jdbfs.Error? err
function Cursor:next() end
--- Lets go of the file. For loops do that at their end, on Lua 5.4 also when they break.
---@return true
function Cursor:close() end

-- ---- streams ------------------------------------------------------------------------------------

---@class jdbfs.StreamOptions
---@field block integer? bytes moved at once, rounded up to the file's alignment, default 1 MiB
---@field depth integer? blocks ahead or behind, 1 to 1024, default 4
---@field offset integer? where to start, default 0; any number

--- Writes a file as a sequence of bytes of any sizes, behind the caller: in a task up to `depth`
--- blocks are in flight, each in a short-lived task of its own; outside tasks each block is
--- written in place. The file stays the caller's, to be closed after the writer. Yields.
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
--- Yields while all blocks are in flight.
---@param ... string|jdbfs.Buffer copied before the call returns
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:write(...) end
--- Everything written so far is in the file, which ends where it should, and on stable storage.
--- Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:sync() end
--- Writes the rest. The file then ends behind the last byte written, or where it ended before when
--- that is further: what a shorter write leaves of an older file stays. Not a sync. Closing again
--- is true. Yields.
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Writer:close() end
--- Offset of the next byte.
---@return integer
function Writer:position() end
--- Every byte before this offset is in the file.
---@return integer
function Writer:written() end
--- Every byte before this offset is on stable storage, by a sync of this writer.
---@return integer
function Writer:durable() end

--- Reads a file as a sequence of bytes of any sizes; in a task up to `depth` blocks are read
--- ahead, as far as the file went when that began.
---@param f jdbfs.File
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
---@param n integer
---@return string? data
---@return string? message
---@return jdbfs.Error? err
function Reader:read(n) end
--- Fills the buffer, or `len` bytes of it from `off` on. Bytes read, fewer only at the end of the
--- file, 0 at the end. Yields.
---@param b jdbfs.Buffer
---@param off integer?
---@param len integer?
---@return integer? bytes
---@return string? message
---@return jdbfs.Error? err
function Reader:read_into(b, off, len) end
--- Offset of the next byte.
---@return integer
function Reader:position() end
--- Waits for the blocks that are being read. The file stays open.
---@return true
function Reader:close() end

-- ---- the queue, and hosts ---------------------------------------------------------------------

---@class jdbfs.SetupOptions
---@field backend "auto"|"io_uring"|"threads"|"kqueue"|"iocp"|"sim"|nil the environment variable
---  JDBFS_BACKEND wins
---@field depth integer? operations the kernel holds at once, 1 to 4096, default 256
---@field workers integer? threads of the pool at most, 1 to 256, default 16

--- Before the first operation; later it is kind Busy.
---@param o jdbfs.SetupOptions
---@return true?
---@return string? message
---@return jdbfs.Error? err
function jdbfs.setup(o) end

---@class jdbfs.Info
---@field version string
---@field backend string
---@field reason string why this backend
---@field features string comma-separated
---@field kernel string
---@field lua string the Lua that runs
---@field depth integer
---@field page_size integer
---@field host string? name of the host that was chosen

--- Makes the queue if it is not there yet.
---@return jdbfs.Info? info
---@return string? message
---@return jdbfs.Error? err
function jdbfs.info() end

---@class jdbfs.Stats
---@field submitted integer operations accepted
---@field completed integer
---@field in_flight integer with the kernel or a worker now
---@field waiting integer accepted, not handed over yet
---@field abandoned integer unfinished, and nobody waits for them
---@field entries integer calls into the kernel to submit or wait
---@field pool_operations integer of submitted, run by worker threads
---@field flushes integer device flushes asked for by sync and durable writes
---@field resubmitted integer rests of short transfers, second tries
---@field slots integer operations allocated
---@field workers integer threads alive
---@field reaps integer looks that found completions, while `jdbfs run` measures
---@field tasks integer not ended
---@field buffers integer alive in this process
---@field files integer alive in this process

---@return jdbfs.Stats
function jdbfs.stats() end
--- A descriptor that is readable when completions, ready tasks or timers that are due wait: call
--- step then. Never read or close it.
---@return integer? fd
---@return string? message
---@return jdbfs.Error? err
function jdbfs.pollfd() end
--- Reaps completions and resumes tasks; waits at most that long for the first. Raises what a
--- task raised.
---@param timeout number? seconds, default 0
---@return integer? resumed
---@return string? message
---@return jdbfs.Error? err
function jdbfs.step(timeout) end
--- What step still has to do: unfinished operations, ready and sleeping tasks.
---@return integer
function jdbfs.pending() end
--- Hands staged operations to the kernel. Nothing to do with durability.
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
--- they return. log, its methods, and those of streams run as a task, for which the light thread
--- waits: killing the thread does not leave them half done.
---
--- "ngx" (also `require "resty.jdbfs"`): OpenResty, nginx with the Lua module 0.10.14 and later.
--- Overlaps in rewrite, access, content, timer, ssl_*; in place in init, init_worker, set,
--- header_filter, body_filter, log, balancer. A task is no light thread: ngx.* raises in it.
--- "luv": also luvit and Neovim, where light threads resume through vim.schedule. Any coroutine is
--- taken for a light thread: a generator that does I/O must be made by jdbfs.wrap. The same holds
--- for "copas".
--- "cqueues": the first operation, or spawn, must come from inside a controller. "tarantool".
---
--- Unsupported: unknown name, host not there or too old. Raises when the adapter table lacks a
--- function, and names it.
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
---@param o jdbfs.SimFault
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.fault(o) end
--- Cuts the power at that step from now on; 0: not at all. Steps are changes and flushes, several
--- in a call like atomic_write; that one is done or not. From then on everything fails with EIO.
---@param step integer
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.cut(step) end
--- Cuts the power if it is on, and starts again with what is durable and any part of the rest,
--- which the seed (default 0) chooses. Open files fail from now on, what was in flight ends with
--- EIO.
---@param o { seed: integer? }?
---@return true?
---@return string? message
---@return jdbfs.Error? err
function Sim.crash(o) end
--- As if the process had died, not the machine: open files and operations in flight end as in a
--- crash, but all changes stay, as durable as they were.
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
---@field open_files integer
---@field power boolean false after a cut

---@return jdbfs.SimState?
---@return string? message
---@return jdbfs.Error? err
function Sim.state() end

return jdbfs
