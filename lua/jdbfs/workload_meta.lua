---@meta jdbfs.workload
-- The reference of workload files: what a definition may say, and what its functions get as ctx.
-- Nothing here is run: editors read it, and a spec holds it against the classes.
--
-- Hooks and jobs run in tasks, so everything that does I/O yields. I/O calls give nil, message, err
-- when they fail, as the module does; the failure is counted by its errno in any case. An error
-- that is raised ends the run with exit status 1, and os.exit raises one.

---@class jdbfs.Workload
---@field about string? one line
---@field options table<string, table>? name = W.int(...), W.size(...): each becomes a flag
---@field thresholds string[]? as with --threshold
---@field setup (fun(ctx: jdbfs.Context): any)? what it returns is every job's state
---@field jobs table<string, jdbfs.Job> by name, or a list of jobs with names
---@field teardown (fun(ctx: jdbfs.Context, state: any, result: table))? result[job][figure] has n,
---  sum, mean, min, max of a counter, n, bytes, mean, response, service of an operation
---@field file boolean? whether ctx.file, the target, is wanted; default: when there is no setup
---@field writes boolean? false: nothing is written to it, so that any file may be the target
---@field qd integer? default of --qd
---@field bs integer? default of --bs
---@field dist string? default of --dist
---@field warmup number? default of --warmup, seconds
---@field size (fun(opt: table, bs: integer): integer)? bytes of the target without --size
---@field space (fun(opt: table, size: integer): integer)? bytes of the files that setup creates
---@field ends boolean? the run is over when all jobs are, or at --time if that is given
---@field paced boolean? the run is over when all jobs are: they divide --time themselves

---@class jdbfs.Job
---@field main fun(ctx: jdbfs.Context, state: any) one iteration; with loop: all of them
---@field n integer|string|fun(ctx: jdbfs.Context): integer|nil coroutines, the name of an option,
---  or a function that is called before setup; default: --qd, with loop 1
---@field loop boolean? main runs once and asks ctx:running(); such jobs end after the others
---@field rate number|string|false|nil|fun(ctx: jdbfs.Context): number iterations a second; default
---  --rate; false: closed loop
---@field metrics string[]? names that thresholds may use; without it any is accepted

---@class jdbfs.Context
---@field opt table the workload's options
---@field id integer of the coroutine, from 1; 0 in setup and teardown
---@field n integer coroutines of the job
---@field iter integer iteration, from 1
---@field due number? planned time of this iteration, ns (open loop)
---@field size integer bytes of the target
---@field bs integer
---@field file jdbfs.WorkloadFile? the target; with --verify its pages are stamped and checked
---@field rng jdbfs.Random drawn from --seed, the job and the coroutine alone
local Context = {}
--- The coroutine's aligned buffer of that size (--bs); the next call gives the same one.
---@param size integer?
---@return jdbfs.WorkloadPage
function Context:page(size) end
--- The coroutine's page of random bytes.
---@return jdbfs.WorkloadPage
function Context:filled() end
--- The same with off and the iteration's number at its front.
---@param off integer
---@return jdbfs.WorkloadPage
function Context:numbered(off) end
--- An aligned buffer of the caller's own.
---@param size integer
---@return jdbfs.Buffer
function Context:new_buffer(size) end
--- A new file in the scratch directory, removed after the run. Raises when it cannot be made.
---@param name string a plain file name
---@param o { size: integer?, sync: string? }? size: filled with zeros; sync: as --sync, or
---  "linked": each write and its flush are one operation
---@return jdbfs.WorkloadFile
function Context:create(name, o) end
--- A file that create made, by its name; or any file, to be read.
---@param name string
---@return jdbfs.WorkloadFile
function Context:open(name) end
--- Of files that create made; what has the new name is removed.
---@param from string
---@param to string
---@return true?
function Context:rename(from, to) end
---@param name string
---@return true?
function Context:remove(name) end
--- Makes the names in the scratch directory durable.
---@return true?
function Context:sync_dir() end
---@return string path of the scratch directory
function Context:dir() end
--- Calls fn and records its time under the name. The first thing that an iteration of an open loop
--- measures counts from the due time. nil, message counts as an error.
---@param name string
---@param fn function
---@return any ... what fn returned
function Context:timed(name, fn, ...) end
--- A function that records durations, in seconds, that the script has measured itself.
---@param name string
---@return fun(seconds: number)
function Context:track(name) end
--- Adds to a counter of the job.
---@param name string
---@param value number? default 1
function Context:count(name, value) end
--- A line of the result.
---@param name string
---@param value any
function Context:note(name, value) end
---@param message string
function Context:warn(message) end
---@param seconds number
function Context:sleep(seconds) end
function Context:yield() end
---@return number seconds, monotonic
function Context:now() end
---@return number seconds that are measured (--time)
function Context:duration() end
--- Waits until the warm-up is over.
function Context:warm() end
--- Waits until that moment; it is then the due time of what is measured next.
---@param seconds number as ctx:now() tells it
function Context:until_due(seconds) end
--- Planned arrivals by --arrival: their next() waits for the next one.
---@param rate number a second
---@return { next: function }
function Context:arrivals(rate) end
--- A further random stream.
---@param number integer
---@return jdbfs.Random
function Context:random(number) end
--- Spreads a rank over 0 to n - 1, the same way for all coroutines.
---@param rank integer from 0
---@param n integer
---@return integer
function Context:scattered(rank, n) end
--- Whether the run goes on.
---@return boolean
function Context:running() end
--- Ends the run as if its time were over.
function Context:stop() end
--- Ends the run with an error.
---@param message string
function Context:abort(message) end
--- Another task, measured with this job.
---@param fn function
---@return jdbfs.Task
function Context:spawn(fn, ...) end
---@return jdbfs.WorkloadQueue
function Context:queue() end
---@return jdbfs.WorkloadEvent
function Context:event() end
---@param n integer
---@return jdbfs.Semaphore
function Context:semaphore(n) end
---@return jdbfs.WorkloadMutex
function Context:mutex() end
---@param n integer coroutines that wait for each other
---@return jdbfs.WorkloadBarrier
function Context:barrier(n) end

--- Operations are timed in C, by kind: read, write, write_sync, fdatasync, fsync, trim.
---@class jdbfs.WorkloadFile
local WorkloadFile = {}
---@param off integer
---@param page jdbfs.WorkloadPage|jdbfs.Buffer|nil default, of ctx.file and of what ctx:open gave:
---  the coroutine's, of --bs
---@return integer? bytes
function WorkloadFile:read(off, page) end
--- Durable as --sync, or the sync of create, says.
---@param page jdbfs.WorkloadPage|jdbfs.Buffer
---@param off integer
---@return integer? bytes
function WorkloadFile:write(page, off) end
--- Of ctx.file: reads a page drawn from --dist, as read(ctx.rng:page()) does, in one call.
---@return integer? bytes
function WorkloadFile:read_page() end
--- Of ctx.file: overwrites a page drawn from --dist with the coroutine's page of random bytes,
--- which gets the offset and the number of the write at its front.
---@return integer? bytes
function WorkloadFile:write_page() end
--- Durable when it returns, in one operation.
---@param page jdbfs.WorkloadPage|jdbfs.Buffer
---@param off integer
---@return integer? bytes
function WorkloadFile:write_sync(page, off) end
---@return true?
function WorkloadFile:fdatasync() end
---@return true?
function WorkloadFile:sync() end
---@param off integer
---@param length integer
---@return true?
function WorkloadFile:trim(off, length) end
---@return integer?
function WorkloadFile:size() end
---@return jdbfs.FileInfo?
function WorkloadFile:info() end
---@return string
function WorkloadFile:path() end

---@class jdbfs.WorkloadPage
---@field buffer jdbfs.Buffer
local WorkloadPage = {}
--- Records, each with length, checksum and number, padded with zeros to 4 KiB; grows as needed.
---@param list any[] strings, or what queue:take gave
---@return jdbfs.Buffer the filled part
function WorkloadPage:pack(list) end
---@param zeros integer? percent of the bytes that are zero
---@return jdbfs.WorkloadPage
function WorkloadPage:random(zeros) end

---@class jdbfs.WorkloadQueue
local WorkloadQueue = {}
--- Never waits; the entry's wait() returns when the taker says set().
---@param value any
---@return jdbfs.WorkloadEvent with the field value
function WorkloadQueue:put(value) end
--- Waits for at least `least` entries (1), takes at most `most`. At the end of a run a coroutine
--- that waits here is ended.
---@param least integer?
---@param most integer?
---@return jdbfs.WorkloadEvent[]
function WorkloadQueue:take(least, most) end
---@return integer
function WorkloadQueue:size() end

---@class jdbfs.WorkloadEvent
local WorkloadEvent = {}
---@return any what set was given, default true
function WorkloadEvent:wait() end
---@param result any?
---@return jdbfs.WorkloadEvent
function WorkloadEvent:set(result) end

---@class jdbfs.WorkloadMutex
local WorkloadMutex = {}
function WorkloadMutex:lock() end
function WorkloadMutex:unlock() end

---@class jdbfs.WorkloadBarrier
local WorkloadBarrier = {}
--- Waits until all have come; then it may be used again.
function WorkloadBarrier:wait() end

--- xoshiro256**; the same numbers on every Lua.
---@class jdbfs.Random
local Random = {}
---@param low integer
---@param high integer
---@return integer
function Random:int(low, high) end
---@return number from [0, 1)
function Random:float() end
--- A rank from 1 to n, any theta above 0.
---@param n integer
---@param theta number
---@return integer
function Random:zipf(n, theta) end
---@param alpha number? default log 5 / log 4: a fifth of the draws makes four fifths of the sum
---@return number 1 or more
function Random:pareto(alpha) end
---@param mean number? 0
---@param deviation number? 1
---@return number
function Random:normal(mean, deviation) end
---@param mean number? 1
---@return number
function Random:exp(mean) end
---@param n integer
---@param zeros integer? percent that are zero, at the end of every 4 KiB
---@return string
function Random:bytes(n, zeros) end
---@param buffer jdbfs.Buffer
---@param zeros integer?
function Random:fill(buffer, zeros) end
---@param list any[]
---@return any
function Random:pick(list) end
---@param n integer
---@return integer[] 1 to n in random order
function Random:perm(n) end
--- A page of the target, drawn from --dist. A buffer gets the offset and how many were drawn at its
--- front: what is written there differs from write to write.
---@param buffer jdbfs.Buffer?
---@return integer byte offset
function Random:page(buffer) end
--- Another distribution for page(): "uniform", "zipf", "pareto", "hotspot", "seq".
function Random:pages(kind, count, size, id, coroutines, key, scatter, parameter, second) end

return { Context = Context, Random = Random }
