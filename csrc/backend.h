/* backend.h: the queue's inside and the contract between queue.c and the backends.
 *
 * For every backend: an accepted operation arrives exactly once, abandoned or not; nothing is
 * allocated after open; between submit and arrival only the kernel or one pool worker touches the
 * operation. A backend knows no Lua and no globals; all state hangs off the queue. */
#ifndef JDB_BACKEND_H
#define JDB_BACKEND_H

#include "op.h"

struct jdb_pool;
struct jdb_os_relay;

/* What a simulated disk has in place of the system's: its clock, its files. */
struct jdb_world {
    int64_t (*now)(jdb_queue *queue);
    void (*sleep)(jdb_queue *queue, int64_t ns);
    void (*close)(jdb_queue *queue, intptr_t handle); /* also after the backend's close */
    int64_t (*size)(jdb_queue *queue, intptr_t handle);
};

struct jdb_backend {
    const char *name;
    /* NULL: the system's. A backend that has one runs every operation itself, and is chosen by
     * name only. */
    const struct jdb_world *world;
    /* Make the kernel objects; 0 or -errno. On failure nothing is left behind, and the reason is
     * in queue->reason. May lower queue->depth. Sets queue->native and queue->features. */
    int (*open)(jdb_queue *queue);
    /* Needs inflight == 0, or a forked child: then the kernel's objects are only let go. */
    void (*close)(jdb_queue *queue);
    /* Stage one operation. Never blocks, never completes it visibly. 0, or -EAGAIN: no room now,
     * or JDB_TO_POOL: the system would do this one while we wait. Failures arrive as results. */
    int (*submit)(jdb_queue *queue, jdb_op *op);
    /* Nobody waits for it any more: it may end early, and arrives all the same. NULL: no way. */
    void (*cancel)(jdb_queue *queue, jdb_op *op);
    /* Hand staged operations to the kernel. Nothing to do with durability. */
    void (*flush)(jdb_queue *queue);
    /* Flush, then move finished operations to queue->arrived. timeout 0 looks; otherwise wait for
     * `want` of them, or less when the time is over (< 0: none) or a signal came. */
    void (*reap)(jdb_queue *queue, unsigned want, int64_t timeout_ns);
    /* A descriptor that is readable when reap would find something; -errno. */
    int (*pollfd)(jdb_queue *queue);
    void (*signal)(jdb_queue *queue); /* make that descriptor readable */
    /* Before the file is closed; no operation in flight names it. May be NULL. */
    void (*forget)(jdb_queue *queue, jdb_file *file);
};

enum { JDB_TO_POOL = 1 };

enum {
    JDB_STEADY_MAX = 128 << 10, /* bytes of a transfer that is short */
    JDB_STAGE_MAX = 32, /* handed over at the latest then: 32 per call is 98 % of the saving */
    JDB_FRESH_MAX = 2 * JDB_STAGE_MAX,
    JDB_CHUNK_OPS = 256,
    JDB_GAP_NS = 20000 /* between completions, before any was seen */
};

struct jdb_queue {
    const struct jdb_backend *backend;
    void *impl;                 /* the backend's */
    uint64_t native;            /* bit per jdb_code that the backend runs itself */
    struct jdb_pool *pool;      /* its threads start on first use */
    int notify;                 /* workers signal here; -1: none */
    struct jdb_os_relay *relay; /* a host's, or NULL */
    jdb_op **chunks;            /* the slab: stable addresses, grows by chunks */
    uint32_t chunk_count, slots;
    struct jdb_list free, pending, arrived, done;
    jdb_file *sync_files; /* with callers for a flush that has not started */
    jdb_file *written;    /* the last that writes began on; NULL: it is gone */
    uint32_t depth, workers;
    uint32_t limit;         /* of inflight: depth at most */
    char limit_reason[96];  /* when it is less */
    uint64_t undelivered;   /* length of `done` */
    uint32_t inflight;      /* with the backend or the pool */
    uint32_t pool_inflight; /* of these, with the pool */
    uint32_t staged;        /* of inflight, not yet handed to the kernel */
    uint32_t refs;
    int closed;
    int kept; /* the system may still use what it has: nothing is freed */
    jdb_queue *kept_next;
    unsigned fork_generation;
    const void *thread;   /* identifies the owning thread */
    jdb_op *list;         /* the last one that was submitted, until all its entries are done */
    uint32_t stage_max;   /* so many staged are handed over at once */
    uint32_t wait_min;    /* completions to wait for, as far as there are as many; 0: by the rule */
    int64_t gap_ns;       /* running mean between completions, for batching */
    uint64_t steady_disk; /* of inflight, with the backend: short transfers of this disk, ... */
    uint32_t steady_inflight; /* ... so many */
    int64_t reaped_at;
    int timing;           /* operations carry times; see jdb_queue_timing */
    uint32_t fresh_count; /* transfers handed over since the last look at the clock */
    int64_t reap_ns;      /* the look at the clock behind the last reap */
    jdb_op *fresh[JDB_FRESH_MAX];
    jdb_stats stats;
    jdb_options options;
    struct {
        uint64_t memory; /* bytes */
        uint32_t files;
        int ring;
        char reason[160]; /* what was refused, and why; "": nothing */
    } registered;
    char reason[192], features[192];
};

extern const struct jdb_backend *const jdb_backends[]; /* best first, NULL last */
extern const struct jdb_backend jdb_backend_null;      /* on every platform; not among them */

int jdb_queue_is_own(const jdb_queue *queue); /* this process and thread made it */
jdb_op *jdb_slot_take(jdb_queue *queue);      /* an idle operation, or NULL: out of memory */
void jdb_arrive(jdb_queue *queue, jdb_op *op, int64_t result);
void jdb_finish(jdb_queue *queue, jdb_op *op);

/* For a backend that can never learn what became of the operations that the system has (those of
 * the pool are not meant): each arrives as failed, and keeps its memory, as the system may still
 * write there. Nothing of the queue is freed any more. */
void jdb_queue_strand(jdb_queue *queue);

/* sync.c: flush sharing. join: the operation is covered by the next flush of its file that
 * starts. start: begins the flushes that are due. done: the running one has a result. */
void jdb_flush_join(jdb_queue *queue, jdb_op *op);
void jdb_flush_start(jdb_queue *queue);
void jdb_flush_done(jdb_queue *queue, jdb_op *leader);
/* Whether all that the backend has, `kernel` operations, are writes of queue->written whose callers
 * ask for one flush, or, as it went before, will. */
int jdb_flush_gathers(const jdb_queue *queue, unsigned kernel);

static inline struct jdb_writing *jdb_writing_of(const jdb_op *op) {
    return op->flags & JDB_OP_DSYNC ? &op->file->durable : &op->file->plain;
}

static inline uint64_t jdb_write_bytes(const jdb_op *op) {
    return op->code == JDB_WRITE_MANY ? op->off : op->len;
}

/* A write that is not durable by itself is handed over, for the first time or again. Entries stand
 * for their list; but one with a flush of its own, after which the list may end, for itself. */
static inline void jdb_write_begins(jdb_op *op) {
    if ((op->flags & (JDB_OP_CHILD | JDB_OP_DSYNC)) == JDB_OP_CHILD) op = op->link;
    if (op->flags & JDB_OP_WRITING) return;
    struct jdb_writing *writing = jdb_writing_of(op);
    unsigned flags = (op->flags & ~(unsigned)JDB_OP_ROUND) | JDB_OP_WRITING | writing->round;
    op->flags = (uint16_t)flags;
    if (writing->count++ == 0) op->file->queue->written = op->file;
    writing->begun++;
    writing->bytes += jdb_write_bytes(op);
}

/* An operation is all done, or has failed. */
static inline void jdb_write_ends(jdb_op *op) {
    if (!(op->flags & JDB_OP_WRITING)) return;
    struct jdb_writing *writing = jdb_writing_of(op);
    op->flags &= (uint16_t)~JDB_OP_WRITING;
    writing->count--;
    writing->bytes -= jdb_write_bytes(op);
    writing->awaited -= (op->flags & JDB_OP_ROUND) != writing->round;
}

/* be_pool.c: worker threads, a backend of their own and the fallback of the others. Threads start
 * with the first operation; when none can be started the operation runs in place. */
int jdb_pool_open(jdb_queue *queue); /* 0 or -errno; also makes queue->notify */
void jdb_pool_submit(jdb_queue *queue, jdb_op *op);
void jdb_pool_perform(jdb_queue *queue, jdb_op *op);
void jdb_pool_collect(jdb_queue *queue);
void jdb_pool_watch(jdb_queue *queue, int handle); /* workers signal this one as well */
int jdb_pool_watcher(const jdb_queue *queue);      /* that one, or -1 */
/* Signals the notifiers at that time; the last call counts. Starts one more thread: where that
 * fails, with -errno, they are signalled now. */
int jdb_pool_alarm(jdb_queue *queue, int64_t when_ns);
void jdb_pool_close(jdb_queue *queue); /* joins; in a forked child forgets */
void jdb_pool_leave(jdb_queue *queue); /* instead of it: waits for nobody */
uint64_t jdb_pool_workers(const jdb_queue *queue);
/* Of the backend "threads", for others in which the pool does everything as well. */
void jdb_threads_close(jdb_queue *queue);
void jdb_threads_flush(jdb_queue *queue);
void jdb_threads_reap(jdb_queue *queue, unsigned want, int64_t timeout_ns);
int jdb_threads_pollfd(jdb_queue *queue);
void jdb_threads_signal(jdb_queue *queue);

#endif
