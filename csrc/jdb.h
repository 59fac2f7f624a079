/* jdb.h: asynchronous direct I/O without Lua.
 *
 * One queue belongs to one thread. An operation is taken from the queue, filled by a jdb_prep_*
 * call, submitted, and comes back exactly once from jdb_queue_next. From submission until then it
 * holds one reference of its file and of its buffer, so a caller may drop his own at any time.
 *
 * Who frees what: jdb_buf and jdb_file are counted (ref/unref, queue's thread only); the last
 * unref of a file closes its handle. Operations belong to the queue: take ... release. The queue
 * is counted too, files hold it; jdb_queue_close waits for every operation the kernel still has.
 * A file is its queue's: what is done to it is taken from and submitted to that queue. Another,
 * also one of the same thread, aborts the program.
 *
 * Units: offsets and lengths are bytes, times are nanoseconds, errors are errno values.
 *
 * The life of an operation:
 *
 *     jdb_op *op = jdb_op_take(queue, &kind);              // NULL: kind says why
 *     jdb_prep_read(op, file, buf, 0, 4096, offset, 0);    // holds file and buf from now on
 *     if (jdb_op_check(op) != JDB_OK) ...                  // refused without asking the system
 *     jdb_op_set_waiter(op, whatever_goes_on);
 *     jdb_submit(queue, op);                               // cannot fail, never blocks
 *     ...
 *     jdb_queue_reap(queue, 0);                            // when jdb_queue_pollfd is readable
 *     while ((op = jdb_queue_next(queue))) {
 *         if (jdb_op_kind(op) == JDB_OK) use(jdb_op_result(op), jdb_op_waiter(op));
 *         else jdb_op_failure(op, &failure);               // jdb_failure_message: one sentence
 *         jdb_op_release(queue, op);                       // lets go of file and buf
 *     }
 *     jdb_queue_flush(queue);                              // hands over what was submitted above
 *
 * Blocking: jdb_queue_reap with a timeout, jdb_queue_wait_op, jdb_queue_close, jdb_sleep; nothing
 * else waits. Programs: spec/c/embed_example.c, and spec/c/epoll_example.c with a loop of its own.
 */
#ifndef JDB_H
#define JDB_H

#include <stddef.h>
#include <stdint.h>

#define JDB_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct jdb_buf jdb_buf;
typedef struct jdb_file jdb_file;
typedef struct jdb_op jdb_op;
typedef struct jdb_queue jdb_queue;

/* What went wrong, for programs. Names: jdb_kind_name. */
typedef enum jdb_kind {
    JDB_OK,
    JDB_IO,          /* the system refused; see errno */
    JDB_ALLOC,       /* no memory */
    JDB_ALIGNMENT,   /* offset, length or memory not aligned as the file needs */
    JDB_SHORT_READ,  /* end of file before the length asked */
    JDB_SHORT_WRITE, /* the system took less and would take no more */
    JDB_JOIN,        /* a joined task had raised */
    JDB_OVERFLOW,    /* a number or a range outside what it must fit in */
    JDB_BUSY,        /* memory or object in use by another operation */
    JDB_CLOSED,
    JDB_CANCELLED,
    JDB_TIMEOUT,
    JDB_POISONED,
    JDB_UNSUPPORTED,
    JDB_FORKED, /* the queue belongs to the parent process */
    JDB_KIND_COUNT
} jdb_kind;

typedef enum jdb_code {
    JDB_READ,
    JDB_WRITE,
    JDB_SYNC_ALL,
    JDB_SYNC_DATA,
    JDB_TRUNCATE,
    JDB_PREALLOCATE,
    JDB_OPEN,
    JDB_CLOSE,
    JDB_SIZE,
    JDB_STAT,
    JDB_INFO, /* fills jdb_file_info.evidence */
    JDB_PUNCH,
    JDB_LOCK,
    JDB_UNLOCK,
    JDB_READ_MANY,
    JDB_WRITE_MANY,
    JDB_PATH_EXISTS,
    JDB_PATH_MKDIR,
    JDB_PATH_LS,
    JDB_PATH_SIZE,
    JDB_PATH_STAT,
    JDB_PATH_RENAME,
    JDB_PATH_REMOVE,
    JDB_PATH_SYNC_DIR,
    JDB_PATH_SPACE,
    JDB_PATH_ATOMIC_WRITE,
    JDB_PATH_PROBE,
    JDB_CODE_COUNT
} jdb_code;

/* ---- errors --------------------------------------------------------------------------------- */

typedef struct jdb_failure {
    jdb_kind kind;
    int error;                      /* errno, 0 when the system was not asked */
    const char *op;                 /* the operation's public name */
    const char *path;               /* NULL when there is none */
    const char *path2;              /* of a rename: the new name */
    const char *cause;              /* NULL: made from kind and errno */
    int64_t offset, length, actual; /* -1: does not apply */
    int64_t index;                  /* of the entry in a list, from 0 */
} jdb_failure;

enum { JDB_MESSAGE_MAX = 2048 };

const char *jdb_kind_name(jdb_kind kind); /* "ShortRead" */
const char *jdb_errno_name(int error);    /* "ENOSPC"; NULL when unknown */
const char *jdb_code_name(jdb_code code); /* "read_at" */
jdb_kind jdb_kind_of_errno(int error);    /* what a failed system call is to a program */
/* One sentence: operation, path, cause. Always terminated; cut at size. */
void jdb_failure_message(const jdb_failure *failure, char *text, size_t size);

/* ---- buffers: page-aligned, zero-filled, never inherited by a forked child ------------------ */

/* align: a power of two, at least 1. NULL when out of memory or a size that cannot be. */
jdb_buf *jdb_buf_new(size_t size, size_t align);
jdb_buf *jdb_buf_ref(jdb_buf *buf);
void jdb_buf_unref(jdb_buf *buf);
void *jdb_buf_data(const jdb_buf *buf); /* NULL in a forked child: the memory is the parent's */
size_t jdb_buf_size(const jdb_buf *buf);
uint64_t jdb_buf_bytes(void); /* of all buffers of the process that are there */
/* Whether the program may now read, or change, this range: it lies in the buffer, and no operation
 * in flight forbids it. */
int jdb_buf_readable(const jdb_buf *buf, size_t off, size_t len);
int jdb_buf_writable(const jdb_buf *buf, size_t off, size_t len);
/* For code that reads memory instead of calling: all of the buffer may be read and changed while
 * the first of these two words is 0 and the second is what jdb_forks() points to. */
const uint32_t *jdb_buf_gate(const jdb_buf *buf);
const uint32_t *jdb_forks(void);
size_t jdb_page_size(void);
uint32_t jdb_crc32c(uint32_t crc, const void *data, size_t len); /* crc: 0, or the part before */

/* ---- files ---------------------------------------------------------------------------------- */

enum {
    JDB_OPEN_WRITE = 1 << 0,  /* read and write; else read only */
    JDB_OPEN_CREATE = 1 << 1, /* make it when missing */
    JDB_OPEN_TRUNCATE = 1 << 2,
    JDB_OPEN_EXCLUSIVE = 1 << 3,   /* fail when it exists */
    JDB_OPEN_DSYNC = 1 << 4,       /* every write is durable on return */
    JDB_OPEN_ATIME = 1 << 5,       /* keep access times (they cost metadata writes) */
    JDB_OPEN_DEVICE = 1 << 6,      /* a block device is what the caller wants */
    JDB_OPEN_DURABLE = 1 << 7,     /* the name itself is durable on return */
    JDB_OPEN_LOCK_SHARED = 1 << 8, /* fail with JDB_BUSY when another holds it */
    JDB_OPEN_LOCK_EXCLUSIVE = 1 << 9,
    JDB_OPEN_NOFOLLOW = 1 << 10, /* ELOOP when the last name is a symbolic link */
    JDB_OPEN_POLLED = 1 << 11,   /* set by the queue, for its option iopoll */
    JDB_OPEN_SYNC = 1 << 12      /* with JDB_OPEN_DSYNC: what tells of the file, too (O_SYNC) */
};

/* How a durable write is done where both ways are open. */
typedef enum jdb_method {
    JDB_METHOD_AUTO,  /* see jdb_file_method_reason */
    JDB_METHOD_WRITE, /* the write itself is durable (RWF_DSYNC) */
    JDB_METHOD_FLUSH  /* a plain write, then a flush shared with others */
} jdb_method;

/* How far a flush goes. */
typedef enum jdb_sync_level {
    JDB_SYNC_FULL,    /* through the device's cache; all there is but on macOS */
    JDB_SYNC_BARRIER, /* what is written later does not become durable before it; no more */
    JDB_SYNC_OS       /* to the device; its cache may lose it. Never asked for: a file system that
                         offers no more */
} jdb_sync_level;

typedef enum jdb_direct { JDB_DIRECT_REQUIRE, JDB_DIRECT_PREFER, JDB_DIRECT_OFF } jdb_direct;

/* What the system tells about the device below a file. -1: it does not tell. */
typedef struct jdb_evidence {
    char device[64];         /* "vda", "loop0"; empty when unknown */
    char mount_options[256]; /* cut there; all were looked at */
    int volatile_cache;      /* 1: written data may sit in a cache that power loss empties */
    int fua;                 /* 1: single writes can pass that cache */
    uint32_t logical_block, physical_block; /* 0: unknown */
    int no_barrier;                         /* 1: mounted without write barriers */
    const char *class_name; /* "flush-required", "unverified", "unsafe", "unknown", "simulated" */
    char reasons[512];      /* one a line */
} jdb_evidence;

typedef struct jdb_file_info {
    int direct;        /* 1: the page cache is bypassed as far as the system says */
    jdb_direct policy; /* what was asked for */
    uint32_t memory_align, read_align, write_align;
    uint32_t direct_write_unit; /* writes of multiples of it, on multiples of it, bypass the cache;
                                   0: none does */
    const char *align_source;   /* where the alignments come from */
    const char *direct_reason;
    const char *file_system; /* "ext4"; "unknown" when the system gives no name */
    int writable, dsync, device;
    uint32_t atomic_min, atomic_max; /* bytes of one torn-free write; 0: none */
    jdb_method method;               /* of durable writes */
    jdb_sync_level sync_level;     /* of flushes: as asked for, or less since the system said no */
    uint32_t requests;             /* its device takes at once; 0: not known */
    uint64_t disk;                 /* the same for all files of one block device; 0: not known */
    int polled;                    /* 1: transfers are polled for, see jdb_options.iopoll */
    const char *polled_reason;     /* why not, when they should be; else NULL */
    int poisoned;                  /* errno of the failed flush or durable write; 0: none */
    uint64_t doubt_from, doubt_to; /* the bytes whose durability is in doubt then */
    jdb_evidence evidence;         /* as the last JDB_INFO found it; class "unknown" before */
    int nowait, dsync_write; /* of a probe: reads that never wait, single writes that are durable:
                                1: the file system takes them; -1: it refuses; 0: not known */
} jdb_file_info;

jdb_file *jdb_file_ref(jdb_file *file);
void jdb_file_unref(jdb_file *file);
const char *jdb_file_path(const jdb_file *file);
jdb_queue *jdb_file_queue(const jdb_file *file); /* the one it was opened on */
void jdb_file_info_get(const jdb_file *file, jdb_file_info *info);
const char *jdb_file_method_reason(const jdb_file *file); /* how durable writes are done, and why */
int jdb_file_closed(const jdb_file *file);       /* 1 from the moment a close was submitted */
int64_t jdb_file_size_now(const jdb_file *file); /* asks the system in place; -errno */

typedef struct jdb_stat {
    uint64_t size, allocated, inode, device, links;
    int64_t atime_ns, mtime_ns, ctime_ns;
    uint32_t mode;
    char type; /* 'f' file, 'd' directory, 'b' block device, 'o' other */
} jdb_stat;

/* ---- operations ----------------------------------------------------------------------------- */

enum { JDB_READ_UPTO = 1 << 0 }; /* flags of jdb_prep_read: end of file is no error */
enum { JDB_WRITE_DSYNC = 1 << 0, JDB_WRITE_ATOMIC = 1 << 1 };
enum { JDB_RENAME_NOREPLACE = 1 << 0, JDB_NAME_DURABLE = 1 << 1 };
enum { JDB_LOCK_SHARED, JDB_LOCK_EXCLUSIVE };
typedef enum jdb_prealloc { JDB_PREALLOC_SIZE, JDB_PREALLOC_KEEP, JDB_PREALLOC_ZERO } jdb_prealloc;

/* An idle operation. NULL: *kind says why (JDB_FORKED, JDB_UNSUPPORTED from another thread,
 * JDB_CLOSED, JDB_ALLOC). */
jdb_op *jdb_op_take(jdb_queue *queue, jdb_kind *kind);
void jdb_op_release(jdb_queue *queue, jdb_op *op); /* idle or delivered operations only */

void jdb_prep_read(jdb_op *op, jdb_file *file, jdb_buf *buf, size_t buf_off, size_t len,
                   uint64_t off, unsigned flags);
void jdb_prep_write(jdb_op *op, jdb_file *file, jdb_buf *buf, size_t buf_off, size_t len,
                    uint64_t off, unsigned flags);
/* A list of transfers of one file as one operation: check it, add its entries, submit it. flags:
 * JDB_WRITE_DSYNC for the whole list, JDB_WRITE_ATOMIC for each entry. An entry is checked when it
 * is added, and its memory is in flight from then on; one that is refused is not in the list, and
 * *failure says why (NULL: need not). Releasing the list gives all entries back. */
void jdb_prep_many(jdb_op *op, jdb_code code, jdb_file *file, unsigned flags);
jdb_kind jdb_many_add(jdb_op *many, jdb_buf *buf, size_t buf_off, size_t len, uint64_t off,
                      jdb_failure *failure);
void jdb_prep_file(jdb_op *op, jdb_code code, jdb_file *file); /* sync, close, size, stat, info */
void jdb_prep_truncate(jdb_op *op, jdb_file *file, uint64_t len);
void jdb_prep_punch(jdb_op *op, jdb_file *file, uint64_t off, uint64_t len);
void jdb_prep_lock(jdb_op *op, jdb_file *file, int how);
void jdb_prep_preallocate(jdb_op *op, jdb_file *file, uint64_t len, jdb_prealloc how);
/* These copy the path; -1 when out of memory. */
typedef struct jdb_open {
    unsigned flags, mode; /* JDB_OPEN_*; permissions of a new file, less the umask */
    jdb_direct direct;
    jdb_method method;
    const char *name;          /* of the call, for messages; a constant. NULL: "open" */
    jdb_sync_level sync_level; /* JDB_SYNC_FULL or JDB_SYNC_BARRIER */
} jdb_open;
int jdb_prep_open(jdb_queue *queue, jdb_op *op, const char *path, const jdb_open *how);
int jdb_prep_path(jdb_op *op, jdb_code code, const char *path, unsigned flags);
int jdb_prep_atomic_write(jdb_op *op, const char *path, const void *data, size_t len);
int jdb_prep_rename(jdb_op *op, const char *from, const char *to, unsigned flags);

/* Everything that can be refused without asking the system: alignment, range, closed, busy.
 * Changes nothing. JDB_OK or the kind; jdb_op_failure tells the rest. */
jdb_kind jdb_op_check(jdb_op *op);
/* Accepts a checked operation; it cannot fail. Never blocks, never delivers. */
void jdb_submit(jdb_queue *queue, jdb_op *op);

/* The part of a read that was asked for, inside the aligned blocks that are read. */
void jdb_op_set_part(jdb_op *op, size_t skip, size_t len);
int jdb_op_part(const jdb_op *op, const void **data, size_t *len); /* 0: no part was set */

void jdb_op_set_waiter(jdb_op *op, void *waiter);
void *jdb_op_waiter(const jdb_op *op);
/* Nobody waits any more: a queued operation is dropped, one in flight ends unseen, and the slot
 * comes back by itself. One that has ended is still given out by jdb_queue_next, without a waiter,
 * and released as any other. */
void jdb_op_abandon(jdb_queue *queue, jdb_op *op);

/* Of a delivered operation. */
jdb_kind jdb_op_kind(const jdb_op *op);
int64_t jdb_op_result(const jdb_op *op); /* bytes moved, size, 0 or 1; meaningless on failure */
/* The number of bytes, or entries, where it succeeded and that is all there is to tell; or -1. */
int64_t jdb_op_count(const jdb_op *op);
jdb_code jdb_op_code(const jdb_op *op);
void jdb_op_failure(const jdb_op *op, jdb_failure *failure); /* valid until release */
typedef struct jdb_times {
    int64_t submitted, reaped; /* jdb_now() before the call that handed it over, and behind the one
                                  that brought its completion; 0: not known */
    uint64_t moved;            /* bytes */
    jdb_code code;
    jdb_kind kind;
    int durable; /* a write with a flush of its own, or by itself durable */
    int error;   /* errno; 0: none */
} jdb_times;
void jdb_op_times(const jdb_op *op, jdb_times *times);
jdb_file *jdb_op_file(const jdb_op *op); /* of an open: the new file, owned by the operation */
jdb_buf *jdb_op_buf(const jdb_op *op);
const jdb_stat *jdb_op_stat(const jdb_op *op);
const char *jdb_op_names(const jdb_op *op, size_t *count); /* NUL-separated, sorted */
void jdb_op_space(const jdb_op *op, uint64_t *free_bytes, uint64_t *total_bytes);
const jdb_file_info *jdb_op_probe(const jdb_op *op);

/* ---- the queue ------------------------------------------------------------------------------ */

/* Whether the kernel asks the device for completions, instead of being interrupted for each. */
typedef enum jdb_iopoll {
    JDB_IOPOLL_OFF,
    JDB_IOPOLL_BUSY,
    JDB_IOPOLL_HYBRID /* sleeps first, for half as long as they usually take */
} jdb_iopoll;

typedef struct jdb_options {
    const char *backend; /* NULL or "auto": the first that works; "null": transfers nothing */
    uint32_t depth;      /* operations the kernel holds at once; 0: 256; at most JDB_DEPTH_MAX */
    uint32_t workers;    /* pool threads at most; 0: 16; at most JDB_WORKERS_MAX */
    int unregistered;    /* 1: the kernel is told of no memory, file or ring beforehand */
    /* io_uring's own modes; 0: off, times JDB_MODE_MAX_NS at most. Where one cannot work no queue
     * is made. */
    int64_t sqpoll_ns;   /* a kernel thread takes what is handed over; it sleeps after so long */
    int64_t min_wait_ns; /* completions are gathered for so long at most before any is reaped */
    jdb_iopoll iopoll;   /* transfers of direct files; whoever waits for one uses up a processor */
    int64_t close_limit_ns; /* of jdb_queue_close, JDB_CLOSE_MAX_NS at most; 0: no limit */
} jdb_options;

enum { JDB_DEPTH_MAX = 4096, JDB_WORKERS_MAX = 256 };
#define JDB_MODE_MAX_NS INT64_C(10000000000)
#define JDB_CLOSE_MAX_NS INT64_C(86400000000000)

typedef struct jdb_stats {
    uint64_t submitted, completed; /* operations accepted, and delivered or dropped */
    uint64_t entries;              /* calls into the kernel to submit or wait */
    uint64_t handovers;            /* of these, with something to submit */
    uint64_t pool_operations;      /* of submitted, those a worker thread ran */
    uint64_t flushes;              /* device flushes asked for by sync and durable writes */
    uint64_t resubmitted;          /* rests of short transfers, and second tries */
    uint64_t in_flight;            /* with the kernel or a worker now */
    uint64_t waiting;              /* accepted, not yet handed over */
    uint64_t abandoned;            /* still unfinished, and nobody waits */
    uint64_t slots, slot_bytes;    /* operations allocated, their memory */
    uint64_t workers;              /* threads alive */
    uint64_t reaps;                /* looks that found completions, while times are kept */
} jdb_stats;

/* 0, or -errno with *failure filled (its texts live as long as the process). options: NULL for the
 * defaults. The queue belongs to the thread that makes it. */
int jdb_queue_new(const jdb_options *options, jdb_queue **queue, jdb_failure *failure);
/* Waits for every accepted operation, delivers none, frees the kernel objects. In a forked child
 * it only lets go. Files may outlive it. With a limit it returns when that is over: what the system
 * has not given back by then, memory, files, threads and ring, stays as it is while the process
 * lives, so that nothing that comes late can do harm; what had not begun is not begun. */
void jdb_queue_close(jdb_queue *queue);
void jdb_queue_unref(jdb_queue *queue);

/* Looks (timeout 0), or waits until something is finished, timeout_ns (< 0: no limit) at most. */
void jdb_queue_reap(jdb_queue *queue, int64_t timeout_ns);
jdb_op *jdb_queue_next(jdb_queue *queue);            /* a finished operation, or NULL */
uint64_t jdb_queue_finished(const jdb_queue *queue); /* at most so many of them wait */
/* Until this one is finished; it is then the caller's, jdb_queue_next skips it. In a forked child
 * at once: the operation stays the parent's, and here its kind is JDB_FORKED. */
void jdb_queue_wait_op(jdb_queue *queue, jdb_op *op);
void jdb_queue_wait_abandoned(jdb_queue *queue); /* until no abandoned operation is unfinished */
void jdb_queue_flush(jdb_queue *queue);          /* hand staged operations to the kernel */
/* A descriptor that becomes readable when completions wait, or -errno (-EPERM: the queue is another
 * process's or thread's). Owned by the queue. */
int jdb_queue_pollfd(jdb_queue *queue);
void jdb_queue_signal(jdb_queue *queue); /* makes that descriptor readable, if there is one */
/* Makes it readable at that time (jdb_now), by a thread of its own. The last call counts. -errno
 * when there can be no thread: it is readable now, and whoever finds it too early calls again. */
int jdb_queue_alarm(jdb_queue *queue, int64_t when_ns);
/* For hosts that can wait for a socket of their own but for no other descriptor: connect a stream
 * socket to the path, accept, and a thread sends one byte when the descriptor above would become
 * readable. No second one comes before arm: call that before the reap. At most one relay a queue;
 * closing the queue ends it. 0, or -errno. The path is the relay's. */
int jdb_relay_new(jdb_queue *queue, const char **path);
int jdb_relay_accept(jdb_queue *queue);
void jdb_relay_arm(jdb_queue *queue);
void jdb_relay_free(jdb_queue *queue); /* harmless when there is none */
/* Operations not yet delivered. */
uint64_t jdb_queue_pending(const jdb_queue *queue);
jdb_kind jdb_queue_usable(const jdb_queue *queue); /* JDB_OK, JDB_FORKED, ... for this caller */
void jdb_queue_stats(const jdb_queue *queue, jdb_stats *stats);
/* Whether operations carry times from now on; costs a look at the clock per kernel entry. */
void jdb_queue_timing(jdb_queue *queue, int on);
/* So many operations go to the kernel at once at the latest, and a wait is for so many completions
 * as far as so many can come, within a bound of time. 0: as the queue finds best. For measuring. */
void jdb_queue_batch(jdb_queue *queue, uint32_t submit, uint32_t wait);
const char *jdb_queue_backend(const jdb_queue *queue);
const char *jdb_queue_reason(const jdb_queue *queue);   /* why this backend */
const char *jdb_queue_features(const jdb_queue *queue); /* comma-separated */
uint32_t jdb_queue_depth(const jdb_queue *queue);
/* How many operations are handed over at once: depth, or less when depth was left open and the
 * device of a file takes fewer without making the caller wait. *reason: "", or which. */
uint32_t jdb_queue_limit(const jdb_queue *queue, const char **reason);
/* What the kernel was told of beforehand, so that single operations are cheaper. */
typedef struct jdb_registered {
    uint64_t memory;    /* bytes, in chunks that buffers of many owners may share */
    uint32_t files;     /* that have a number in the kernel's table now */
    int ring;           /* the queue's own descriptor */
    const char *reason; /* what was refused and why; "": nothing was. The queue's */
} jdb_registered;
void jdb_queue_registered(const jdb_queue *queue, jdb_registered *registered);
const char *jdb_backend_name(unsigned index); /* NULL past the last */

/* What environment or options name; NULL: the first that works. */
const char *jdb_backend_wanted(const jdb_options *options);
/* The queue's clock: monotonic nanoseconds, of a simulated disk virtual ones. */
int64_t jdb_queue_now(jdb_queue *queue);
void jdb_queue_sleep(jdb_queue *queue, int64_t ns); /* blocks the thread, or moves that clock */

int64_t jdb_now(void);       /* monotonic nanoseconds */
int64_t jdb_cpu(int thread); /* CPU ns of the process, or of this thread alone */
/* From now on SIGINT, SIGTERM and SIGHUP are noted instead of ending the process (on: 1), or no
 * longer (0). A second one but SIGHUP ends it. SIGPIPE is ignored meanwhile. */
void jdb_catch_signals(int on);
int jdb_signal(void); /* the one that was noted; 0: none */
/* 1: standard stream fd (0, 1, 2) is a terminal of that size. */
int jdb_terminal(int fd, int *columns, int *lines);
void jdb_sleep(int64_t ns);                 /* blocks the thread */
int jdb_entropy(void *bytes, size_t size);  /* that nobody can guess, 256 at most; 0 or -errno */
int jdb_remove_directory(const char *path); /* in place, an empty one; 0 or -errno */
void jdb_stay_loaded(void);     /* the shared library that holds the core is never unloaded */
const char *jdb_platform(void); /* "Linux 6.1.0" */
/* Objects alive in this process, for leak checks. */
void jdb_live(uint64_t *buffers, uint64_t *files);

/* ---- the simulated disk: backend "sim" -------------------------------------------------------
 *
 * A disk and its directories in memory, one per queue, with virtual time and a seed that decides
 * everything: how long operations take and so in which order they end, which part of what was not
 * flushed survives a crash. The same seed and the same calls give the same trace. Calls on a queue
 * of another backend give -ENOTSUP. */

typedef struct jdb_sim_options {
    uint64_t seed;
    uint64_t capacity;   /* bytes */
    uint32_t sector;     /* alignment, and what a crash does not tear: a power of two, <= 4096 */
    uint32_t atomic_max; /* bytes of one torn-free write; 0: none */
    int64_t latency_min_ns, latency_max_ns;
} jdb_sim_options;

typedef enum jdb_sim_how {
    JDB_SIM_BEFORE, /* fails, nothing was done */
    JDB_SIM_AFTER,  /* is done, and told as failed */
    JDB_SIM_SHORT,  /* a transfer of `bytes` at most */
    JDB_SIM_TORN,   /* a write of some sectors, and an error */
    JDB_SIM_OMIT    /* a flush is told as done, and was not */
} jdb_sim_how;

enum {
    JDB_SIM_FAULTS_MAX = 32,
    JDB_SIM_ANY = -1,  /* every operation */
    JDB_SIM_FLUSH = -2 /* every flush of a file or directory and every durable write, also those
                          inside other operations, that has something to make durable */
};

typedef struct jdb_sim_fault {
    int code; /* a jdb_code, JDB_SIM_ANY or JDB_SIM_FLUSH */
    jdb_sim_how how;
    int error;            /* errno; 0 with SHORT and OMIT */
    uint64_t bytes;       /* of SHORT */
    uint64_t nth, count;  /* strikes the nth from now (from 1) and so many in a row, or ... */
    uint32_t per_million; /* ... each with this probability */
} jdb_sim_fault;

typedef struct jdb_sim_state {
    int64_t now_ns;      /* since the last reset, as all that follow */
    uint64_t trace;      /* hash of all operations, results and times */
    uint64_t operations; /* that came to an end */
    uint64_t steps;      /* changes and flushes: the places where the power can go */
    uint64_t flushes;    /* of these, what JDB_SIM_FLUSH counts */
    uint64_t faults;     /* that struck */
    uint64_t used, handles;
    int off; /* the power is cut */
} jdb_sim_state;

void jdb_sim_defaults(jdb_sim_options *options);
/* An empty disk, no faults. -EBUSY while an operation is unfinished. Files that are open fail from
 * now on, as after a crash. */
int jdb_sim_reset(jdb_queue *queue, const jdb_sim_options *options);
int jdb_sim_fault_add(jdb_queue *queue, const jdb_sim_fault *fault);
/* The power goes at the n-th step from now, which is done or not; 0: never. From then on every
 * operation fails with EIO, until jdb_sim_crash. */
int jdb_sim_cut(jdb_queue *queue, uint64_t steps);
/* Cuts the power if it is on, ends what is in flight, keeps what is durable and any part of the
 * rest, and starts again without faults. */
int jdb_sim_crash(jdb_queue *queue, uint64_t seed);
/* As if the process had died and another had taken its place: all files are closed, what is in
 * flight ends unheard, nothing is lost and nothing is more durable than before. */
int jdb_sim_kill(jdb_queue *queue);
int jdb_sim_state_get(const jdb_queue *queue, jdb_sim_state *state);

#ifdef JDB_FAULTS
/* ---- faults on purpose: only in the build for tests, see be_faults.c ------------------------- */

int jdb_faults_plan(const char *text); /* 0, or -1 when it is no plan; the counts start again */
void jdb_faults_suspend(void);         /* nothing fails any more; the counts stay */
uint64_t jdb_faults_injected(void);
const char *jdb_faults_last(void); /* the point where a rule fired last */
int jdb_faults_rule(unsigned i, uint64_t *seen, uint64_t *fired); /* 0: there is no such rule */
size_t jdb_faults_trace(const char **text);                       /* takes it */
uint64_t jdb_faults_pieces(void);                                 /* allocations alive */
uint64_t jdb_faults_check_quarantine(void); /* aborts on a change; freed buffers looked at so far */
#endif

#ifdef __cplusplus
}
#endif

#endif
