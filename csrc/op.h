/* op.h: the inside of operations, files and buffers, for the core, the backends and the platform.
 *
 * Life of an operation; each arrow is one function, no other line changes `state`:
 *   IDLE      on the free list           take    -> PREPARED
 *   PREPARED  being filled by the caller submit  -> PENDING
 *   PENDING   accepted, not handed over  start   -> INFLIGHT
 *   INFLIGHT  kernel or worker holds it  arrive  -> ARRIVED
 *   ARRIVED   has a result               settle  -> DONE, or back to PENDING for the rest
 *   DONE      waits to be delivered      release -> IDLE, generation + 1
 *
 * Static functions are marked inline where every transfer goes through them: at -O2 compilers leave
 * them apart, which is a tenth of all instructions of a read.
 */
#ifndef JDB_OP_H
#define JDB_OP_H

#include "jdb.h"

enum jdb_state { JDB_IDLE, JDB_PREPARED, JDB_PENDING, JDB_INFLIGHT, JDB_ARRIVED, JDB_DONE };

enum {
    JDB_OP_UPTO = 1 << 0,      /* end of file is a result, not an error */
    JDB_OP_POOLED = 1 << 1,    /* the backend sent it to the pool, once and for good */
    JDB_OP_ABANDONED = 1 << 2, /* released at settle: nobody waits */
    JDB_OP_TAKEN = 1 << 3,     /* jdb_queue_wait_op has it: not on the done list */
    JDB_OP_ONMEM = 1 << 4,     /* its buffer knows it as in flight */
    JDB_OP_PART = 1 << 5,      /* part_skip and part_len tell what was asked for */
    JDB_OP_DSYNC = 1 << 6,     /* durable on completion */
    JDB_OP_ATOMIC = 1 << 7,    /* all of it or nothing survives a crash */
    JDB_OP_RWF_DSYNC = 1 << 8, /* the write itself is durable: no flush follows */
    JDB_OP_FLUSHING = 1 << 9,  /* written; waits for the flush that covers it */
    JDB_OP_CHILD = 1 << 10,    /* an entry of the list in `link`, which holds the file for it */
    JDB_OP_STRANDED = 1 << 11, /* never heard of again; or stands for such a one's memory */
    JDB_OP_STEADY = 1 << 12,   /* counted in the queue's steady_inflight */
    JDB_OP_WRITING = 1 << 13,  /* counted in a jdb_writing of its file, ... */
    JDB_OP_ROUND = 1 << 14     /* ... in one of its two rounds */
};

enum { JDB_IDLE_PATTERN = 0x5b5b5b5b };
enum { JDB_RW_DSYNC = 1, JDB_RW_ATOMIC = 2 }; /* of jdb_op.rw */

/* Which argument a refusal is about. */
enum jdb_fault {
    JDB_FAULT_NONE,
    JDB_FAULT_OFFSET,
    JDB_FAULT_LENGTH,
    JDB_FAULT_MEMORY,
    JDB_FAULT_RANGE,
    JDB_FAULT_END,
    JDB_FAULT_ATOMIC,
    JDB_FAULT_BARRIER
};

/* What path operations carry; allocated with them, owned by the operation. */
struct jdb_detail {
    char *path, *path2;
    char *names; /* NUL-separated */
    size_t names_size, names_count;
    jdb_stat stat;
    uint64_t free_bytes, total_bytes;
    unsigned flags;
    jdb_open open;
    void *data; /* of an atomic write */
    size_t data_len;
    char *cause;        /* words for a refusal, when the system's do not say enough */
    jdb_file_info info; /* of a probe */
    char file_system[32];
};

struct jdb_list {
    jdb_op *head, *tail;
};

struct jdb_op {
    jdb_op *next;                 /* on exactly one of: free, pending, todo, arrived, done */
    jdb_op *mem_next, **mem_link; /* operations in flight on the same buffer; who points to it */
    jdb_file *file;               /* one reference from prep until release, but for entries */
    jdb_buf *buf;                 /* one reference from prep until release */
    struct jdb_detail *detail;
    void *waiter;
    struct jdb_list children; /* of a list, until it is submitted */
    jdb_op *link;             /* child: the list it belongs to; list: its first failure */
    /* In the file; moved counts finished bytes. Of a list: len its entries, off their bytes. */
    uint64_t off, len, moved;
    uint64_t buf_off;
    int64_t result; /* of the backend: >= 0 or -errno; after settle: final */
    uint32_t chunk; /* bytes of the transfer handed over last */
    uint32_t need;  /* the alignment that was missing */
    int32_t error;  /* errno of a failure */
    uint16_t flags;
    uint8_t kind, fault, how;
    uint8_t code, state;
    /* What was handed over: workers read these, never `flags`, which the owner goes on changing. */
    uint8_t step, rw;
    uint32_t slot, gen;
    uint32_t index;                  /* of a child in its list */
    uint32_t part_skip;              /* of a read with JDB_OP_PART: the bytes before ... */
    uint64_t part_len;               /* ... what the caller asked for */
    int64_t submitted_ns, reaped_ns; /* while the queue keeps times; 0: not known */
};

static inline void jdb_list_push(struct jdb_list *list, jdb_op *op) {
    op->next = NULL;
    if (list->tail) list->tail->next = op;
    else list->head = op;
    list->tail = op;
}

static inline void jdb_list_unshift(struct jdb_list *list, jdb_op *op) {
    op->next = list->head;
    list->head = op;
    if (!list->tail) list->tail = op;
}

static inline jdb_op *jdb_list_pop(struct jdb_list *list) {
    jdb_op *op = list->head;
    if (!op) return NULL;
    list->head = op->next;
    if (!list->head) list->tail = NULL;
    op->next = NULL;
    return op;
}

/* Moves all of `from` behind what `to` holds. */
static inline void jdb_list_append(struct jdb_list *to, struct jdb_list *from) {
    if (!from->head) return;
    if (to->tail) to->tail->next = from->head;
    else to->head = from->head;
    to->tail = from->tail;
    from->head = from->tail = NULL;
}

/* A large page of memory that buffers share; see arena.c. */
enum { JDB_CHUNK_SIZE = 2 << 20, JDB_CHUNK_WORDS = JDB_CHUNK_SIZE / 4096 / 64 };

struct jdb_chunk {
    uint8_t *memory;
    uint64_t serial; /* never reused, unlike ... */
    uint32_t id;     /* ... the lowest number free when it was made */
    unsigned used;   /* pages handed out */
    unsigned run;    /* no more pages than this are free in a row */
    size_t fresh;    /* bytes from here on were never handed out */
    struct jdb_chunk *next, *previous;
    uint64_t taken[JDB_CHUNK_WORDS]; /* a bit per page */
};

struct jdb_buf {
    uint8_t *base;           /* NULL only while being made */
    struct jdb_chunk *chunk; /* that base lies in; NULL: in a mapping of its own, ... */
    size_t size, mapped;     /* bytes promised; ... so many bytes from ... */
    void *map;               /* ... here */
    unsigned refs;
    /* The two of jdb_buf_gate: operations on this memory; a child must not touch the parent's. */
    uint32_t inflight, fork_generation;
    jdb_op *sole; /* that operation while it is the only one; with company, NULL */
    /* Equal pieces of the buffer, so that thousands of operations on slices of one buffer need no
     * look at each other: counts, and those inside one piece; only in pieces in doubt are ranges
     * compared. Those that cross the border of two are on a list of their own. */
    unsigned piece_shift;
    jdb_op *wide;
    struct jdb_piece {
        uint32_t uses[2]; /* operations that write out of it, that read into it */
        jdb_op *ops;
    } pieces[];
};

/* Writes that the system has: handed over, and not all done. A list of them counts as one. */
struct jdb_writing {
    unsigned count, begun; /* now; since the last flush began */
    unsigned awaited; /* of count, those that the next flush waits for: of the round that is over */
    unsigned round;   /* of those that begin now: 0 or JDB_OP_ROUND */
    uint64_t bytes;   /* of count */
};

struct jdb_file {
    intptr_t handle; /* -1: not open (yet, or any more) */
    char *path;
    jdb_queue *queue; /* one reference */
    unsigned refs;
    unsigned inflight;       /* accepted operations, closes not counted */
    struct jdb_list closers; /* closes waiting for inflight to become 0 */
    int locked;              /* what lock and unlock left; theirs alone */
    int closing;             /* new operations are refused */
    int deferred;            /* errno of a failed write or sync nobody waited for */
    jdb_op *sync_leader;     /* the flush that runs; it stands for all in sync_group */
    struct jdb_list sync_group, sync_next; /* covered by the running flush; by the next one */
    jdb_file *sync_link;                   /* files whose next flush is to be started */
    int sync_listed;
    struct jdb_writing plain, durable; /* durable: they need a flush */
    struct jdb_patience {
        int chosen;             /* what the next flush waits for; not before it could start */
        unsigned hoped, joined; /* plain writes it waits for; callers who came since */
        unsigned skip, doubt; /* flushes that wait for no plain one; so many after the next miss */
        unsigned whole;       /* plain writes between the last two, if all their callers asked */
    } patience;
    int sync_level;     /* a jdb_sync_level, of the next flush; workers change it, atomically */
    int dsync_by_flush; /* every write is durable, and a flush must make it so */
    unsigned writes;    /* accepted and unfinished */
    unsigned reserving; /* preallocations; writes wait for them, they for writes */
    struct jdb_list held, reserve_next; /* those writes; those preallocations */
    unsigned durable_writes; /* accepted and unfinished: with company a shared flush is cheaper */
    struct jdb_span {
        uint64_t from, to;
    } dirty, flushing; /* written since the last flush began; covered by the running one */
    uint64_t read_align, write_align, memory_align;
    uint64_t disk; /* of its transfers: info.disk, or where that is not known a number of its own */
    uint32_t slot, uses; /* of the backend: its number there, from 1; transfers until it has one */
    int polled;          /* opened with option iopoll: that number is the second ring's */
    jdb_file_info info;
    char file_system[32];
};

/* arena.c: zeroed memory for a buffer, or NULL: it does not fit. Put back with the same size. */
uint8_t *jdb_arena_get(size_t size, size_t align, struct jdb_chunk **chunk);
void jdb_arena_put(struct jdb_chunk *chunk, uint8_t *memory, size_t size);
/* Whether the chunk with this id and serial is there; how many were freed; bytes mapped. */
int jdb_arena_has(uint32_t id, uint64_t serial);
uint64_t jdb_arena_freed(void);
uint64_t jdb_arena_bytes(void);
/* error.c */
void jdb_op_fail(jdb_op *op, jdb_kind kind, int error);
/* buf.c: of jdb_buf_enter and jdb_buf_leave, with company. */
void jdb_buf_enter_beside(jdb_op *op);
void jdb_buf_leave_beside(jdb_op *op);
uint64_t jdb_buf_live(void);
int jdb_buf_conflict(const jdb_buf *buf, size_t off, size_t len, int for_writing);
int jdb_buf_claim_beside(jdb_op *op);
/* file.c */
jdb_file *jdb_file_new(jdb_queue *queue, const char *path);
/* file.c: the bytes of span a and of span b; what a failed flush or durable write leaves. */
void jdb_span_add(struct jdb_span *span, uint64_t from, uint64_t to);
void jdb_file_poison(jdb_file *file, int error, uint64_t from, uint64_t to);
/* op.c */
void jdb_op_settle_rest(jdb_op *op);
void jdb_op_let_go_rest(jdb_op *op);

/* Marks the range of op in its buffer as in flight ... */
static inline void jdb_buf_enter(jdb_op *op) {
    jdb_buf *buf = op->buf;
    if (op->len == 0) return;
    op->flags |= JDB_OP_ONMEM;
    if (buf->inflight++ == 0) buf->sole = op;
    else jdb_buf_enter_beside(op);
}

/* The same where nothing in flight stands against it; 0: something does. */
static inline int jdb_buf_claim(jdb_op *op) {
    if (op->buf->inflight) return jdb_buf_claim_beside(op);
    jdb_buf_enter(op);
    return 1;
}

/* ... and no longer. */
static inline void jdb_buf_leave(jdb_op *op) {
    jdb_buf *buf = op->buf;
    if (!(op->flags & JDB_OP_ONMEM)) return;
    op->flags &= (uint16_t)~JDB_OP_ONMEM;
    buf->inflight--;
    if (buf->sole == op) buf->sole = NULL;
    else jdb_buf_leave_beside(op);
}

/* References, without a call for those that are not the last. */
static inline void jdb_buf_drop(jdb_buf *buf) {
    if (buf->refs > 1) buf->refs--;
    else jdb_buf_unref(buf);
}

static inline void jdb_file_drop(jdb_file *file) {
    if (file->refs > 1) file->refs--;
    else jdb_file_unref(file);
}

/* Drops everything an operation holds; safe on an idle one. Whatever else it holds, it holds a file
 * or a detail, too. */
static inline void jdb_op_let_go(jdb_op *op) {
    if (op->detail || op->children.head || (op->link && !(op->flags & JDB_OP_CHILD)))
        jdb_op_let_go_rest(op);
    if (op->buf) jdb_buf_drop(op->buf);
    if (op->file && !(op->flags & JDB_OP_CHILD)) jdb_file_drop(op->file);
    op->link = NULL;
    op->buf = NULL;
    op->file = NULL;
    op->waiter = NULL;
}

/* Before an operation is filled: a refused one is filled again. */
static inline void jdb_op_clear(jdb_op *op) {
    if (op->file || op->detail) jdb_op_let_go(op);
    op->off = op->len = op->moved = op->buf_off = 0;
    op->result = 0;
    op->chunk = op->need = 0;
    op->error = 0;
    op->flags = op->kind = op->fault = op->how = 0;
}

static inline int jdb_op_transfers(const jdb_op *op) {
    return op->code == JDB_READ || op->code == JDB_WRITE;
}

/* The backend's result becomes the operation's: kind, errno, final value. */
static inline void jdb_op_settle(jdb_op *op) {
    op->kind = JDB_OK;
    if (jdb_op_transfers(op) && op->result >= 0 && op->moved == op->len)
        op->result = (int64_t)op->moved;
    else jdb_op_settle_rest(op);
}

/* Linux moves at most this much in one call. */
#define JDB_TRANSFER_MAX 0x7ffff000u

/* Bytes to hand over next; every piece but the last keeps the file's alignment. */
static inline uint32_t jdb_op_next_chunk(const jdb_op *op) {
    uint64_t rest = op->len - op->moved;
    if (rest <= JDB_TRANSFER_MAX) return (uint32_t)rest;
    uint64_t align = op->code == JDB_READ ? op->file->read_align : op->file->write_align;
    return (uint32_t)(JDB_TRANSFER_MAX / align * align);
}

/* What is to be done now: a written durable write wants a flush. */
static inline jdb_code jdb_op_step(const jdb_op *op) {
    int flush = op->code == JDB_SYNC_ALL || op->code == JDB_SYNC_DATA;
    if (!(op->flags & JDB_OP_FLUSHING) && !flush) return (jdb_code)op->code;
    return op->how ? JDB_SYNC_ALL : JDB_SYNC_DATA;
}

/* An idle operation belongs to nobody: in a debug build a change made to it is found when it is
 * taken again, or when the slab is freed. */
static inline void jdb_op_fill(jdb_op *op) {
#ifdef JDB_DEBUG
    op->result = op->error = JDB_IDLE_PATTERN;
    op->off = op->len = op->moved = op->buf_off = op->chunk = JDB_IDLE_PATTERN;
#else
    (void)op;
#endif
}

static inline int jdb_op_untouched(const jdb_op *op) {
#ifdef JDB_DEBUG
    return op->state != JDB_IDLE ||
           (op->result == JDB_IDLE_PATTERN && op->error == JDB_IDLE_PATTERN &&
            op->off == JDB_IDLE_PATTERN && op->len == JDB_IDLE_PATTERN &&
            op->moved == JDB_IDLE_PATTERN && op->buf_off == JDB_IDLE_PATTERN &&
            op->chunk == JDB_IDLE_PATTERN);
#else
    (void)op;
    return 1;
#endif
}

/* The result of an operation that a poisoned file refuses. */
#define JDB_RESULT_POISONED INT64_MIN

#endif
