/* queue.c: the life of operations, the same for every backend: slab, waiting line, hand-over,
 * arrival, settlement, delivery, abandonment, shutdown.
 *
 * An operation is never delivered from inside submit, and its slot is free again only when it was
 * delivered: a slot freed at reap could be taken by the first resumed task while its own
 * completion still waits. No limit but memory stands on how many wait; `depth` limits what the
 * kernel holds. */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"

static const char *this_thread(void) {
    static _Thread_local char mark;
    return &mark;
}

/* ---- slab ----------------------------------------------------------------------------------- */

static int grow(jdb_queue *q) {
    jdb_op **chunks = realloc(q->chunks, (q->chunk_count + 1) * sizeof *chunks);
    if (!chunks) return -ENOMEM;
    q->chunks = chunks;
    jdb_op *chunk = calloc(JDB_CHUNK_OPS, sizeof *chunk);
    if (!chunk) return -ENOMEM;
    q->chunks[q->chunk_count++] = chunk;
    for (int i = 0; i < JDB_CHUNK_OPS; i++) {
        chunk[i].slot = q->slots++;
        jdb_op_fill(&chunk[i]);
        jdb_list_push(&q->free, &chunk[i]);
    }
    return 0;
}

jdb_kind jdb_queue_usable(const jdb_queue *q) {
    if (q->fork_generation != jdb_os_generation()) return JDB_FORKED;
    if (q->closed) return JDB_CLOSED;
    /* io_uring binds a ring to its thread, and nothing here is locked. */
    if (q->thread != this_thread()) return JDB_UNSUPPORTED;
    return JDB_OK;
}

int jdb_queue_is_own(const jdb_queue *q) {
    return q->fork_generation == jdb_os_fork_generation() && q->thread == this_thread();
}

jdb_op *jdb_slot_take(jdb_queue *q) {
    if (!q->free.head && grow(q) != 0) return NULL;
    jdb_op *op = jdb_list_pop(&q->free);
    assert(op->state == JDB_IDLE && jdb_op_untouched(op));
    op->state = JDB_PREPARED;
    return op;
}

jdb_op *jdb_op_take(jdb_queue *q, jdb_kind *kind) {
    *kind = jdb_queue_usable(q);
    if (*kind) return NULL;
    jdb_op *op = jdb_slot_take(q);
    if (!op) *kind = JDB_ALLOC;
    return op;
}

static inline void put_back(jdb_queue *q, jdb_op *op) {
    op->flags = 0;
    op->state = JDB_IDLE;
    op->gen++;
    jdb_op_fill(op);
    jdb_list_unshift(&q->free, op);
}

void jdb_op_release(jdb_queue *q, jdb_op *op) {
    assert(op->state == JDB_PREPARED || op->state == JDB_DONE);
    if (op->flags & JDB_OP_ABANDONED) q->stats.abandoned--;
    jdb_op_let_go(op);
    put_back(q, op);
}

/* ---- hand-over ------------------------------------------------------------------------------ */

/* Whether a durable write is done by the write itself. A lone one is; several at once share one
 * flush, which is cheaper wherever a durable write means write plus flush. Through the page cache
 * a flush of its own tells a lack of room before the write from one that lost older writes. */
static int durable_by_write(const jdb_file *file) {
    if (file->info.method != JDB_METHOD_AUTO) return file->info.method == JDB_METHOD_WRITE;
    return file->info.direct && file->durable_writes <= 1;
}

/* One look at the clock for all that goes to the kernel with the next call. */
static void time_fresh(jdb_queue *q) {
    int64_t now = jdb_queue_now(q);
    for (uint32_t i = 0; i < q->fresh_count; i++) q->fresh[i]->submitted_ns = now;
    q->fresh_count = 0;
}

static void time_submit(jdb_queue *q, jdb_op *op) {
    if (op->submitted_ns) return; /* the rest of one that was short */
    if (op->flags & JDB_OP_POOLED) {
        op->submitted_ns = jdb_queue_now(q);
        return;
    }
    if (q->fresh_count == JDB_FRESH_MAX) time_fresh(q);
    q->fresh[q->fresh_count++] = op;
}

/* Writes down what its next step is: from here on others read that. */
static inline jdb_code set_out(jdb_op *op) {
    jdb_code step = jdb_op_step(op);
    if (step == JDB_READ || step == JDB_WRITE) op->chunk = jdb_op_next_chunk(op);
    if (step == JDB_WRITE && (op->flags & JDB_OP_DSYNC) && op->moved == 0 &&
        durable_by_write(op->file))
        op->flags |= JDB_OP_RWF_DSYNC;
    if (step == JDB_WRITE && !(op->flags & JDB_OP_RWF_DSYNC)) jdb_write_begins(op);
    op->step = (uint8_t)step;
    op->rw = (uint8_t)((op->flags & JDB_OP_RWF_DSYNC ? JDB_RW_DSYNC : 0) |
                       (op->flags & JDB_OP_ATOMIC ? JDB_RW_ATOMIC : 0));
    op->state = JDB_INFLIGHT;
    return step;
}

/* Short transfers of one disk: none of them waits long for the others. */
static inline void enter_steady(jdb_queue *q, jdb_op *op) {
    const jdb_file *file = op->file;
    if (op->chunk > JDB_STEADY_MAX || op->step > JDB_WRITE || op->rw) return;
    if (op->step == JDB_WRITE && file->info.dsync) return; /* waits for a flush */
    if (q->steady_inflight == 0) q->steady_disk = file->disk;
    if (file->disk != q->steady_disk) return;
    op->flags |= JDB_OP_STEADY;
    q->steady_inflight++;
}

static inline void leave_steady(jdb_queue *q, jdb_op *op) {
    if (!(op->flags & JDB_OP_STEADY)) return;
    op->flags &= (uint16_t)~JDB_OP_STEADY;
    q->steady_inflight--;
}

/* The pool serves what the backend cannot; a refusal never reaches the user. */
__attribute__((always_inline)) static inline int hand_over(jdb_queue *q, jdb_op *op) {
    jdb_code step = set_out(op);
    if (!(op->flags & JDB_OP_POOLED) && (q->native >> step & 1)) {
        enter_steady(q, op); /* before it can arrive */
        int r = q->backend->submit(q, op);
        if (r == 0) {
            q->inflight++;
            if (q->timing) time_submit(q, op);
            return 0;
        }
        leave_steady(q, op);
        if (r < 0) {
            op->state = JDB_PENDING;
            return r;
        }
    }
    if (step == JDB_CLOSE && q->backend->forget) q->backend->forget(q, op->file);
    q->inflight++;
    q->pool_inflight++;
    q->stats.pool_operations++;
    op->flags |= JDB_OP_POOLED;
    if (q->timing) time_submit(q, op);
    jdb_pool_submit(q, op);
    return 0;
}

/* Nobody waits and nothing was done yet. A flush goes on: others may wait for it. */
static int droppable(const jdb_op *op) {
    if (!(op->flags & JDB_OP_ABANDONED) || op->moved > 0 || op->code == JDB_CLOSE) return 0;
    return !op->file || op->file->sync_leader != op;
}

/* Not more than the kernel takes without making us wait. Before one more is staged, not as soon as
 * they are so many: if no more come, the call that waits takes them along. */
static inline void flush_full(jdb_queue *q) {
    if (q->staged < q->stage_max) return;
    if (q->fresh_count) time_fresh(q);
    q->backend->flush(q);
}

static void start_pending(jdb_queue *q) {
    while (q->pending.head && q->inflight < q->limit) {
        jdb_op *op = jdb_list_pop(&q->pending);
        if (droppable(op)) {
            op->state = JDB_INFLIGHT;
            q->inflight++;
            jdb_arrive(q, op, -ECANCELED);
            continue;
        }
        flush_full(q);
        if (hand_over(q, op) != 0) {
            jdb_list_unshift(&q->pending, op);
            return;
        }
    }
}

static inline void start(jdb_queue *q) {
    if (q->pending.head) start_pending(q);
}

/* Behind those that wait, or, where none does, at once. */
static inline void start_one(jdb_queue *q, jdb_op *op) {
    if (!q->pending.head && q->inflight < q->limit) {
        flush_full(q);
        if (hand_over(q, op) == 0) return;
    }
    jdb_list_push(&q->pending, op);
    start_pending(q);
}

static int is_durable_write(const jdb_op *op) {
    return op->code == JDB_WRITE && ((op->flags & JDB_OP_DSYNC) || op->file->info.dsync);
}

/* Durable writes and flushes leave the ring for a worker of the kernel, and come back, which takes
 * as long as a good part of the flush itself. One that is all there is to wait for is done here
 * instead: the thread sleeps in this call as it would in the other. Only where the wait has no
 * limit: then no timer is due meanwhile, no task is ready that could cancel it, and no host waits
 * for its turn. A signal that comes meanwhile is looked at when the device has answered; that is
 * also how long an operation in flight holds whoever wants to leave. */
static void perform_alone(jdb_queue *q) {
    jdb_op *op = q->pending.head;
    if (!op || op->next || q->inflight > 0 || q->done.head || q->backend->world) return;
    int flush = jdb_op_step(op) == JDB_SYNC_DATA || jdb_op_step(op) == JDB_SYNC_ALL;
    if ((!flush && !is_durable_write(op)) || (op->flags & JDB_OP_ABANDONED)) return;
    jdb_list_pop(&q->pending);
    set_out(op);
    q->inflight++;
    q->stats.entries++;
    q->stats.handovers++;
    if (q->timing && !op->submitted_ns) op->submitted_ns = jdb_queue_now(q);
    jdb_pool_perform(q, op);
}

static inline void accept(jdb_queue *q, jdb_op *op) {
    assert(op->state == JDB_PREPARED && op->kind == JDB_OK);
    op->state = JDB_PENDING;
    q->stats.submitted++;
    if (!q->timing) return;
    /* Only transfers are timed where they are handed over; a flush may be done by another's. */
    op->submitted_ns = op->code == JDB_READ || op->code == JDB_WRITE ? 0 : jdb_queue_now(q);
    op->reaped_ns = 0;
}

/* Zeros that reserve space are written behind the end of the file as it was, and a reservation that
 * fails is cut off there: a write that got there meanwhile would be lost. */
static inline int hold(jdb_op *op) {
    jdb_file *file = op->file;
    if (op->code != JDB_WRITE) return 0;
    if (file->reserving) jdb_list_push(&file->held, op);
    else file->writes++;
    return file->reserving;
}

static void submit_preallocate(jdb_queue *q, jdb_op *op) {
    op->file->inflight++;
    op->file->reserving++;
    jdb_list_push(op->file->writes > 0 ? &op->file->reserve_next : &q->pending, op);
    start(q);
}

static inline void release_held(jdb_queue *q, jdb_file *file, const jdb_op *done) {
    if (done->code == JDB_WRITE && done->len > 0 && --file->writes == 0)
        jdb_list_append(&q->pending, &file->reserve_next);
    if (done->code != JDB_PREALLOCATE || --file->reserving > 0) return;
    struct jdb_list held = file->held;
    file->held.head = file->held.tail = NULL;
    jdb_op *op;
    while ((op = jdb_list_pop(&held)))
        if (!hold(op)) jdb_list_push(&q->pending, op);
}

static inline void submit_transfer(jdb_queue *q, jdb_op *op) {
    assert(op->file->queue == q); /* its number in another's ring is another file's */
    op->file->inflight++;
    if (op->flags & JDB_OP_DSYNC) op->file->durable_writes++;
    jdb_buf_enter(op);
    if (op->len == 0) {
        jdb_finish(q, op);
        return;
    }
    if (hold(op)) return;
    if (!is_durable_write(op)) start_one(q, op);
    else jdb_list_push(&q->pending, op); /* it may be alone when all that is ready has run */
}

/* The list is in flight in their stead, and their memory has been since they were added. */
static inline void submit_entry(jdb_queue *q, jdb_op *entry) {
    accept(q, entry);
    if (entry->flags & JDB_OP_DSYNC) entry->file->durable_writes++;
    if (entry->len == 0) jdb_finish(q, entry);
    else if (!hold(entry)) jdb_list_push(&q->pending, entry);
}

/* The list itself is never handed over: it ends with its last entry, or with the one flush that
 * covers them all. */
static void submit_many(jdb_queue *q, jdb_op *many) {
    struct jdb_list children = many->children;
    jdb_file *file = many->file;
    unsigned each = 0;
    many->children.head = many->children.tail = NULL;
    many->chunk = (uint32_t)many->len;
    file->inflight++;
    if (many->flags & JDB_OP_DSYNC) {
        file->durable_writes++;
        if (file->info.method == JDB_METHOD_WRITE) each = JDB_OP_DSYNC | JDB_OP_RWF_DSYNC;
    }
    if (each) {
        many->flags &= (uint16_t)~JDB_OP_DSYNC;
        file->durable_writes--;
    }
    if (many->len == 0) jdb_finish(q, many);
    else q->list = many;
    jdb_op *entry;
    while ((entry = jdb_list_pop(&children))) {
        entry->flags |= (uint16_t)each;
        submit_entry(q, entry);
    }
    if (!each && !file->info.dsync) start(q); /* durable ones wait as others do */
}

static void submit_close(jdb_queue *q, jdb_op *op) {
    op->file->closing = 1;
    if (op->file->inflight > 0) {
        jdb_list_push(&op->file->closers, op);
        return;
    }
    jdb_list_push(&q->pending, op);
    start(q);
}

/* Apart, so that transfers save no registers for it. */
__attribute__((noinline)) static void submit_other(jdb_queue *q, jdb_op *op) {
    assert(!op->file || op->file->queue == q);
    switch ((jdb_code)op->code) {
    case JDB_READ_MANY:
    case JDB_WRITE_MANY: submit_many(q, op); return;
    case JDB_CLOSE: submit_close(q, op); return;
    case JDB_PREALLOCATE: submit_preallocate(q, op); return;
    case JDB_SYNC_ALL:
    case JDB_SYNC_DATA:
        op->file->inflight++;
        jdb_flush_join(q, op);
        return;
    default:
        if (op->file) op->file->inflight++;
        jdb_list_push(&q->pending, op);
        start(q);
    }
}

void jdb_submit(jdb_queue *q, jdb_op *op) {
    accept(q, op);
    if (jdb_op_transfers(op)) submit_transfer(q, op);
    else submit_other(q, op);
}

/* ---- arrival -------------------------------------------------------------------------------- */

void jdb_arrive(jdb_queue *q, jdb_op *op, int64_t result) {
    assert(op->state == JDB_INFLIGHT);
    op->state = JDB_ARRIVED;
    op->result = result;
    q->inflight--;
    leave_steady(q, op);
    jdb_list_push(&q->arrived, op);
}

/* No room, or asked in a way the system does not take: nothing was written, so nothing is in
 * doubt. A durable write through the page cache may tell of older writes instead, which the system
 * had no room for later: then these are lost. */
static int harmless(int error, int tells_of_others) {
    switch (error) {
    case EFBIG:
    case EINVAL:
    case EOPNOTSUPP:
    case ECANCELED:
    case EBADF: return 1;
    case ENOSPC:
    case EDQUOT:
    case ENOMEM:
    case EAGAIN: return !tells_of_others;
    default: return 0;
    }
}

static int is_list(const jdb_op *op) {
    return op->code == JDB_READ_MANY || op->code == JDB_WRITE_MANY;
}

/* What the next flush must cover, and what a failed durable write leaves in doubt. */
static void note_write(const jdb_op *op) {
    jdb_file *file = op->file;
    int written = (op->flags & JDB_OP_RWF_DSYNC) || (file->info.dsync && !file->dsync_by_flush);
    int durable = written || (op->flags & JDB_OP_DSYNC) ||
                  ((op->flags & JDB_OP_CHILD) && (op->link->flags & JDB_OP_DSYNC));
    if (!written) jdb_span_add(&file->dirty, op->off, op->off + op->moved);
    /* No flush will cover it any more. */
    if (!written && file->info.poisoned)
        jdb_file_poison(file, file->info.poisoned, op->off, op->off + op->moved);
    if (!durable) return;
    if (op->result < 0 && !harmless((int)-op->result, written && !file->info.direct))
        jdb_file_poison(file, (int)-op->result, op->off, op->off + op->len);
}

/* A durable write that is written but not yet flushed joins the next flush. */
static inline int wants_flush(const jdb_op *op) {
    if (!(op->flags & JDB_OP_DSYNC) || (op->flags & (JDB_OP_RWF_DSYNC | JDB_OP_FLUSHING))) return 0;
    if (is_list(op)) return op->link == NULL && op->len > 0;
    return op->result >= 0 && op->moved == op->len && op->len > 0;
}

/* More than the device takes would make the caller wait inside the kernel (tags of the block
 * layer). Who names a depth has decided. */
static void heed_device(jdb_queue *q, const jdb_file *file) {
    uint32_t requests = file->info.requests;
    if (q->options.depth || !file->info.direct || requests == 0 || requests >= q->limit) return;
    q->limit = requests;
    snprintf(q->limit_reason, sizeof q->limit_reason,
             "the device of %.40s takes %u requests at once", file->path, requests);
}

static void arrived(jdb_queue *q, jdb_op *op);

/* An error that nobody hears is told by close. */
static void remember_loss(const jdb_op *op) {
    int writes = op->code == JDB_WRITE || op->code == JDB_WRITE_MANY || op->code == JDB_SYNC_ALL ||
                 op->code == JDB_SYNC_DATA;
    if (!writes || op->kind == JDB_OK || op->kind == JDB_CANCELLED) return;
    assert(op->file);
    op->file->deferred = op->error ? op->error : EIO;
}

__attribute__((always_inline)) static inline void settle_and_count(jdb_queue *q, jdb_op *op) {
    jdb_op_settle(op);
    op->state = JDB_DONE;
    if (q->timing) op->reaped_ns = q->reap_ns;
    q->stats.completed++;
    if (op->buf) jdb_buf_leave(op);
    if (op->flags & JDB_OP_DSYNC) op->file->durable_writes--;
}

/* The entry that fails first in the list is the one that is told. */
__attribute__((noinline)) static void finish_entry(jdb_queue *q, jdb_op *entry) {
    jdb_op *many = entry->link, *drop = entry;
    settle_and_count(q, entry);
    release_held(q, entry->file, entry);
    if (entry->kind != JDB_OK && (!many->link || entry->index < many->link->index)) {
        drop = many->link;
        many->link = entry;
    }
    if (drop) {
        jdb_buf_drop(drop->buf);
        drop->file = NULL; /* the list's */
        drop->buf = NULL;
        drop->link = NULL;
        put_back(q, drop);
    }
    assert(many->chunk > 0);
    if (--many->chunk > 0) return;
    if (q->list == many) q->list = NULL;
    arrived(q, many);
}

/* Gives back what the operation held and puts it where its waiter finds it. */
static inline void finish(jdb_queue *q, jdb_op *op) {
    if (op->flags & JDB_OP_CHILD) {
        finish_entry(q, op);
        return;
    }
    settle_and_count(q, op);
    jdb_file *file = op->file;
    if (file && op->code != JDB_CLOSE) {
        assert(file->inflight > 0);
        release_held(q, file, op);
        if (--file->inflight == 0) jdb_list_append(&q->pending, &file->closers);
    }
    if (!(op->flags & (JDB_OP_ABANDONED | JDB_OP_TAKEN))) {
        jdb_list_push(&q->done, op);
        q->undelivered++;
    } else if (op->flags & JDB_OP_ABANDONED) {
        remember_loss(op);
        jdb_op_release(q, op);
    }
}

void jdb_finish(jdb_queue *q, jdb_op *op) { finish(q, op); }

static void arrived(jdb_queue *q, jdb_op *op) {
    if (op->code == JDB_OPEN && op->result == 0) heed_device(q, op->file);
    if (op->file && op->file->sync_leader == op) {
        jdb_flush_done(q, op);
        return;
    }
    jdb_write_ends(op);
    if (op->code == JDB_WRITE && !(op->flags & JDB_OP_FLUSHING)) note_write(op);
    if (wants_flush(op)) {
        op->flags |= JDB_OP_FLUSHING;
        jdb_flush_join(q, op);
    } else {
        finish(q, op);
    }
}

/* -EOPNOTSUPP and -EAGAIN are the backend's trouble: the pool asks again, once. */
static int second_try(jdb_queue *q, jdb_op *op) {
    int64_t r = op->result;
    jdb_code step = jdb_op_step(op);
    /* Also a flush: an interrupted one has not reported, and so not lost, any write error. */
    if (r == -EINTR) return 1;
    if (r != -EAGAIN && r != -EOPNOTSUPP && r != -ENOSYS) return 0;
    if ((op->flags & JDB_OP_POOLED) || q->backend->world) {
        /* A file system without RWF_DSYNC: a plain write and a flush do the same. */
        if (r != -EOPNOTSUPP || !(op->flags & JDB_OP_RWF_DSYNC)) return 0;
        if (op->flags & JDB_OP_ATOMIC) return 0;
        op->file->info.method = JDB_METHOD_FLUSH;
        op->flags &= (uint16_t)~JDB_OP_RWF_DSYNC;
        return 1;
    }
    /* An opcode unknown to this kernel need not be tried again; one file system may refuse what
     * others have, so transfers are tried each time. */
    if (r != -EAGAIN && step != JDB_READ && step != JDB_WRITE) q->native &= ~(UINT64_C(1) << step);
    op->flags |= JDB_OP_POOLED;
    return 1;
}

/* A short transfer is handed over again from the last aligned byte: writing a sector twice is
 * harmless, and only the end of the file or an error may end a transfer early. Reads that stop
 * inside a sector have met the end of the file. */
static inline int goes_on(jdb_op *op) {
    if (!jdb_op_transfers(op) || (op->flags & JDB_OP_FLUSHING) || op->result <= 0) return 0;
    assert((uint64_t)op->result <= op->chunk);
    op->moved += (uint64_t)op->result;
    if (op->moved == op->len) return 0;
    if (op->code == JDB_READ) return op->moved % op->file->read_align == 0;
    uint64_t back = op->moved % op->file->write_align;
    /* No whole sector came through: asking again could go on for ever. */
    if (back && back == (uint64_t)op->result) return 0;
    op->moved -= back;
    return 1;
}

static void settle(jdb_queue *q) {
    jdb_op *op;
    while ((op = jdb_list_pop(&q->arrived))) {
        if (op->result < 0 ? second_try(q, op) : goes_on(op)) {
            q->stats.resubmitted++;
            op->state = JDB_PENDING;
            /* Before the waiting line: it was accepted earlier. */
            jdb_list_unshift(&q->pending, op);
        } else if (op->code == JDB_READ) {
            finish(q, op);
        } else {
            arrived(q, op);
        }
    }
}

/* Durable writes of this turn first: the flush that was asked for may wait for them. */
static inline void begin(jdb_queue *q, int64_t timeout_ns) {
    if (q->sync_files) {
        start(q);
        jdb_flush_start(q);
    }
    if (timeout_ns < 0) perform_alone(q);
    start(q);
}

/* After begin; `completed` as it was before. */
static void bring(jdb_queue *q, uint64_t completed, unsigned want, int64_t timeout_ns) {
    /* Something ended without the kernel, or nothing is there that could end. */
    if (q->arrived.head || completed != q->stats.completed) timeout_ns = 0;
    if (q->inflight == 0 && timeout_ns < 0) timeout_ns = 0;
    if (q->fresh_count) time_fresh(q);
    q->backend->reap(q, want, timeout_ns);
    if (q->timing && q->arrived.head) {
        q->reap_ns = jdb_queue_now(q);
        q->stats.reaps++;
    }
    settle(q);
    start(q);
}

static void reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    uint64_t completed = q->stats.completed;
    begin(q, timeout_ns);
    bring(q, completed, want, timeout_ns);
}

/* A list is all there is, and the kernel has the rest of it: nobody goes on before it has ended, so
 * it is waited for as a whole. */
static int list_alone(const jdb_queue *q) {
    if (!q->list || q->pool_inflight || q->pending.head || q->wait_min) return 0;
    return q->stats.submitted - q->stats.completed == (uint64_t)q->list->chunk + 1;
}

/* How many completions one kernel entry should bring: a quarter of what is in flight. Waiting for
 * single ones costs a quarter of the throughput. Those of one disk are waited for as long as it
 * takes; else, as many could stall behind one slow file, not longer than completions usually take:
 * that limit costs a timer, a tenth of all CPU of a read. Writes that share a flush are waited for
 * as a whole. */
static void reap_batch(jdb_queue *q, int64_t timeout_ns) {
    uint64_t completed = q->stats.completed;
    begin(q, timeout_ns);
    unsigned kernel = q->inflight - q->pool_inflight;
    unsigned want = q->pool_inflight ? 1 : kernel / 4;
    if (want > 32) want = 32;
    if (q->written && !q->pool_inflight && jdb_flush_gathers(q, kernel)) want = kernel;
    if (kernel > 1 && list_alone(q)) {
        bring(q, completed, kernel, timeout_ns);
        return;
    }
    if (q->wait_min && !q->pool_inflight) want = q->wait_min < kernel ? q->wait_min : kernel;
    int patient = q->wait_min || q->options.min_wait_ns || /* who names a number waits for it */
                  kernel == q->steady_inflight;
    if (want > 1 && !patient) {
        int64_t bound = q->gap_ns * want * 2;
        if (bound < 20000) bound = 20000;
        if (bound > 1000000) bound = 1000000;
        if (timeout_ns >= 0 && bound > timeout_ns) bound = timeout_ns;
        bring(q, completed, want, bound);
        if (q->done.head) return;
        reap(q, 1, timeout_ns);
        return;
    }
    bring(q, completed, want > 1 ? want : 1, timeout_ns);
}

void jdb_queue_reap(jdb_queue *q, int64_t timeout_ns) {
    if (jdb_queue_usable(q) != JDB_OK) return;
    if (timeout_ns == 0 || q->done.head) {
        reap(q, 0, 0);
        return;
    }
    uint64_t before = q->stats.completed;
    int busy = q->inflight > 0;
    reap_batch(q, timeout_ns);
    int64_t now = jdb_queue_now(q);
    uint64_t got = q->stats.completed - before;
    if (busy && got > 0) {
        int64_t gap = (now - q->reaped_at) / (int64_t)got;
        if (gap > 1000000) gap = 1000000;
        q->gap_ns += (gap - q->gap_ns) / 8;
    }
    q->reaped_at = now;
}

jdb_op *jdb_queue_next(jdb_queue *q) {
    jdb_op *op = jdb_list_pop(&q->done);
    if (op) q->undelivered--;
    return op;
}

uint64_t jdb_queue_finished(const jdb_queue *q) { return q->undelivered; }

void jdb_queue_wait_op(jdb_queue *q, jdb_op *op) {
    jdb_kind kind = jdb_queue_usable(q);
    if (kind == JDB_FORKED) op->kind = (uint8_t)kind; /* of the child's own copy */
    if (kind != JDB_OK) return;
    if (op->state == JDB_DONE) {
        /* It never left: an empty transfer is finished by submit and is last on the list. */
        struct jdb_list rest = {NULL, NULL};
        jdb_op *other;
        while ((other = jdb_list_pop(&q->done)))
            if (other != op) jdb_list_push(&rest, other);
        q->done = rest;
        q->undelivered--;
        return;
    }
    op->flags |= JDB_OP_TAKEN;
    while (op->state != JDB_DONE) reap(q, list_alone(q) ? q->inflight : 1, -1);
    if (q->done.head || q->sync_files) jdb_queue_signal(q);
}

/* Those already finished wait on the done list for a delivery that will not come. */
void jdb_queue_wait_abandoned(jdb_queue *q) {
    struct jdb_list rest = {NULL, NULL};
    jdb_op *op;
    if (jdb_queue_usable(q) != JDB_OK) return;
    while ((op = jdb_queue_next(q))) {
        if (op->flags & JDB_OP_ABANDONED) jdb_op_release(q, op);
        else jdb_list_push(&rest, op);
    }
    for (op = rest.head; op; op = op->next) q->undelivered++;
    q->done = rest;
    while (q->stats.abandoned > 0) reap(q, 1, -1);
    if (q->undelivered > 0 || q->sync_files) jdb_queue_signal(q);
}

void jdb_op_abandon(jdb_queue *q, jdb_op *op) {
    assert(op->state != JDB_IDLE && op->state != JDB_PREPARED);
    if (op->flags & JDB_OP_ABANDONED) return;
    op->waiter = NULL;
    op->flags |= JDB_OP_ABANDONED;
    q->stats.abandoned++;
    if (op->state == JDB_INFLIGHT && q->backend->cancel) q->backend->cancel(q, op);
    /* A finished one stays on the done list; whoever pops it sees that nobody waits. */
    if (op->state == JDB_DONE) remember_loss(op);
}

void jdb_queue_flush(jdb_queue *q) {
    if (jdb_queue_usable(q) != JDB_OK) return;
    begin(q, 0);
    while (q->arrived.head) {
        settle(q);
        begin(q, 0);
    }
    if (q->fresh_count) time_fresh(q);
    q->backend->flush(q);
    /* What ended without the kernel, and what the kernel refused for now (EAGAIN, EBUSY): nothing
     * will announce it, so a host must look again. */
    if (q->staged > 0 || q->undelivered > 0 || q->arrived.head) q->backend->signal(q);
}

int jdb_queue_pollfd(jdb_queue *q) {
    jdb_kind kind = jdb_queue_usable(q);
    if (kind == JDB_CLOSED) return -EBADF;
    return kind == JDB_OK ? q->backend->pollfd(q) : -EPERM;
}

void jdb_queue_signal(jdb_queue *q) {
    if (!q->closed) q->backend->signal(q);
}

int jdb_queue_alarm(jdb_queue *q, int64_t when_ns) {
    if (jdb_queue_usable(q) != JDB_OK) return -EPERM;
    if (!q->backend->world) return jdb_pool_alarm(q, when_ns);
    /* The host sleeps until then, and nothing else makes virtual time go on. */
    jdb_queue_sleep(q, when_ns - jdb_queue_now(q));
    jdb_queue_signal(q);
    return 0;
}

int jdb_relay_new(jdb_queue *q, const char **path) {
    if (jdb_queue_usable(q) != JDB_OK) return -EPERM;
    if (q->relay) return -EALREADY;
    int fd = jdb_queue_pollfd(q);
    return fd < 0 ? fd : jdb_os_relay_new(fd, &q->relay, path);
}

int jdb_relay_accept(jdb_queue *q) { return q->relay ? jdb_os_relay_accept(q->relay) : -ENOTCONN; }

void jdb_relay_arm(jdb_queue *q) {
    if (q->relay) jdb_os_relay_arm(q->relay);
}

void jdb_relay_free(jdb_queue *q) {
    if (q->relay) jdb_os_relay_free(q->relay);
    q->relay = NULL;
}

/* ---- making and closing --------------------------------------------------------------------- */

static void *fail(jdb_failure *failure, jdb_kind kind, int error, const char *cause) {
    memset(failure, 0, sizeof *failure);
    failure->kind = kind;
    failure->error = error;
    failure->op = "setup";
    failure->cause = cause;
    failure->offset = failure->length = failure->actual = failure->index = -1;
    return NULL;
}

static void note(jdb_queue *q, const char *text) {
    size_t used = strlen(q->reason);
    snprintf(q->reason + used, sizeof q->reason - used, "%s%s", used ? "; " : "", text);
}

/* The first backend that opens. A named one is the only candidate. */
static int open_backend(jdb_queue *q, const char *name) {
    int named = name && strcmp(name, "auto") != 0;
    int error = -ENOENT;
    if (named && strcmp(name, jdb_backend_null.name) == 0) {
        q->backend = &jdb_backend_null;
        return q->backend->open(q);
    }
    for (unsigned i = 0; jdb_backends[i]; i++) {
        if (named ? strcmp(jdb_backends[i]->name, name) != 0 : jdb_backends[i]->world != NULL)
            continue;
        q->backend = jdb_backends[i];
        error = q->backend->open(q);
        if (error == 0 || named) return error;
    }
    return error;
}

const char *jdb_backend_wanted(const jdb_options *options) {
    const char *forced = jdb_os_getenv("JDBFS_BACKEND");
    return forced ? forced : options->backend;
}

/* "null" is no choice of the environment's: see be_null.c. */
static int known_backend(const char *name, int forced) {
    if (!name || strcmp(name, "auto") == 0) return 1;
    if (strcmp(name, jdb_backend_null.name) == 0) return !forced;
    for (unsigned i = 0; jdb_backends[i]; i++)
        if (strcmp(jdb_backends[i]->name, name) == 0) return 1;
    return 0;
}

/* Texts of failures live as long as the process, the queue that made them does not. */
static _Thread_local char failure_text[256];

static int refuse(jdb_failure *failure, jdb_kind kind, int error, const char *text) {
    snprintf(failure_text, sizeof failure_text, "%s", text);
    fail(failure, kind, error, failure_text);
    return -(error ? error : EINVAL);
}

static int is_within(int64_t ns, int64_t most) { return ns >= 0 && ns <= most; }

int jdb_queue_new(const jdb_options *options, jdb_queue **queue, jdb_failure *failure) {
    static const jdb_options defaults;
    if (!options) options = &defaults;
    const char *forced = jdb_os_getenv("JDBFS_BACKEND");
    const char *name = jdb_backend_wanted(options);
    char text[256];
    if (!known_backend(name, forced != NULL)) {
        snprintf(text, sizeof text, "%s names no backend of this platform: %.60s",
                 forced ? "JDBFS_BACKEND" : "backend", name);
        return refuse(failure, JDB_UNSUPPORTED, 0, text);
    }
    const char *mode = options->sqpoll_ns     ? "sqpoll"
                       : options->min_wait_ns ? "min_wait"
                       : options->iopoll      ? "iopoll"
                                              : NULL;
    if (mode && name && strcmp(name, "auto") != 0 && strcmp(name, "io_uring") != 0) {
        snprintf(text, sizeof text, "option %s is io_uring's; the backend is %.40s", mode, name);
        return refuse(failure, JDB_UNSUPPORTED, 0, text);
    }
    if (mode) name = "io_uring";
    if (options->depth > JDB_DEPTH_MAX || options->workers > JDB_WORKERS_MAX)
        return refuse(failure, JDB_OVERFLOW, 0, "depth or workers above the limit");
    if (!is_within(options->sqpoll_ns, JDB_MODE_MAX_NS) ||
        !is_within(options->min_wait_ns, JDB_MODE_MAX_NS) ||
        !is_within(options->close_limit_ns, JDB_CLOSE_MAX_NS))
        return refuse(failure, JDB_OVERFLOW, 0, "a time is negative or above its limit");
    if ((unsigned)options->iopoll > JDB_IOPOLL_HYBRID)
        return refuse(failure, JDB_OVERFLOW, 0, "iopoll is none of jdb_iopoll");
    jdb_queue *q = calloc(1, sizeof *q);
    if (!q) return refuse(failure, JDB_ALLOC, ENOMEM, "no memory for the queue");
    q->refs = 1;
    q->notify = -1;
    q->depth = options->depth ? options->depth : 256;
    q->workers = options->workers ? options->workers : 16;
    q->options = *options;
    q->fork_generation = jdb_os_fork_generation();
    q->thread = this_thread();
    q->gap_ns = JDB_GAP_NS;
    q->stage_max = JDB_STAGE_MAX;
    if (name && strcmp(name, "auto") != 0)
        note(q, forced ? "forced by JDBFS_BACKEND" : "named in setup");
    int r = jdb_pool_open(q);
    if (r == 0) r = open_backend(q, name);
    if (r != 0) {
        int error = -r;
        snprintf(text, sizeof text, "%s", q->reason[0] ? q->reason : "no backend works");
        jdb_pool_close(q);
        free(q);
        return refuse(failure, error == ENOMEM ? JDB_ALLOC : JDB_UNSUPPORTED, error, text);
    }
    q->reaped_at = jdb_queue_now(q);
    q->limit = q->depth;
    *queue = q;
    return 0;
}

static int busy(const jdb_queue *q) {
    return q->inflight > 0 || q->pending.head || q->arrived.head || q->sync_files;
}

/* What arrives while the queue is being closed has no waiter any more. 0: the limit is over. */
static int drain(jdb_queue *q) {
    int64_t limit = q->options.close_limit_ns, end = jdb_queue_now(q) + limit, rest = -1;
    for (;;) {
        jdb_op *op;
        while ((op = jdb_queue_next(q))) jdb_op_release(q, op);
        if (!busy(q)) return 1;
        if (limit && (rest = end - jdb_queue_now(q)) <= 0) return 0;
        reap(q, 1, rest);
    }
}

/* Everything the kernel may touch is kept, and named here, so that a leak checker tells it from
 * what was forgotten. */
static void keep(jdb_queue *q) {
    static _Atomic(jdb_queue *) all;
    if (q->kept) return;
    q->kept = 1;
    q->kept_next = atomic_exchange(&all, q);
}

/* In flight for ever in the place of `op`, so that nobody gets or reads that memory. */
static void keep_memory(jdb_queue *q, const jdb_op *op) {
    jdb_kind kind;
    jdb_buf *buf = jdb_buf_ref(op->buf);
    jdb_op *stays = jdb_op_take(q, &kind);
    if (!stays) return;
    stays->flags = JDB_OP_STRANDED;
    stays->state = JDB_INFLIGHT;
    stays->code = op->code;
    stays->buf = buf;
    stays->buf_off = op->buf_off;
    stays->len = op->len;
    jdb_buf_enter(stays);
}

void jdb_queue_strand(jdb_queue *q) {
    keep(q);
    for (uint32_t i = 0; i < q->slots; i++) {
        jdb_op *op = &q->chunks[i / JDB_CHUNK_OPS][i % JDB_CHUNK_OPS];
        if (op->state != JDB_INFLIGHT || (op->flags & (JDB_OP_POOLED | JDB_OP_STRANDED))) continue;
        op->flags |= JDB_OP_STRANDED;
        if (op->buf) keep_memory(q, op);
        jdb_arrive(q, op, -EIO);
    }
}

void jdb_queue_close(jdb_queue *q) {
    if (q->closed) return;
    if (q->thread != this_thread() && q->fork_generation == jdb_os_fork_generation() && busy(q)) {
        q->closed = 1; /* another thread cannot wait for the ring */
        keep(q);
        return;
    }
    /* The parent's operations are the parent's: a child gives back no memory of theirs. */
    if (q->fork_generation == jdb_os_fork_generation() && !drain(q)) {
        q->closed = 1;
        jdb_pool_leave(q);
        keep(q);
        return;
    }
    q->closed = 1;
    jdb_relay_free(q);
    q->backend->close(q);
    jdb_pool_close(q);
}

void jdb_queue_unref(jdb_queue *q) {
    assert(q->refs > 0);
    if (--q->refs > 0) return;
    jdb_queue_close(q);
    if (q->kept) return;
    assert(q->inflight > 0 || q->steady_inflight == 0); /* a forked child has the parent's */
    for (uint32_t i = 0; i < q->chunk_count; i++) {
        for (int k = 0; k < JDB_CHUNK_OPS; k++) assert(jdb_op_untouched(&q->chunks[i][k]));
        free(q->chunks[i]);
    }
    free(q->chunks);
    free(q);
}

/* ---- telling -------------------------------------------------------------------------------- */

void jdb_queue_timing(jdb_queue *q, int on) { q->timing = on; }

void jdb_queue_batch(jdb_queue *q, uint32_t submit, uint32_t wait) {
    q->stage_max = submit ? submit : JDB_STAGE_MAX;
    q->wait_min = wait;
}

void jdb_op_times(const jdb_op *op, jdb_times *times) {
    times->submitted = op->submitted_ns;
    times->reaped = op->reaped_ns;
    times->moved = op->moved;
    times->code = (jdb_code)op->code;
    times->kind = (jdb_kind)op->kind;
    times->durable = (op->flags & JDB_OP_DSYNC) != 0;
    times->error = op->error;
}

uint64_t jdb_queue_pending(const jdb_queue *q) {
    return q->stats.submitted - q->stats.completed + q->undelivered;
}

void jdb_queue_stats(const jdb_queue *q, jdb_stats *stats) {
    *stats = q->stats;
    stats->in_flight = q->inflight;
    stats->waiting = q->stats.submitted - q->stats.completed - q->inflight;
    stats->slots = q->slots;
    stats->slot_bytes = q->slots * sizeof(jdb_op);
    stats->workers = jdb_pool_workers(q);
}

const char *jdb_queue_backend(const jdb_queue *q) { return q->backend->name; }
const char *jdb_queue_reason(const jdb_queue *q) { return q->reason; }
const char *jdb_queue_features(const jdb_queue *q) { return q->features; }
uint32_t jdb_queue_depth(const jdb_queue *q) { return q->depth; }

uint32_t jdb_queue_limit(const jdb_queue *q, const char **reason) {
    *reason = q->limit_reason;
    return q->limit;
}

void jdb_queue_registered(const jdb_queue *q, jdb_registered *registered) {
    registered->memory = q->registered.memory;
    registered->files = q->registered.files;
    registered->ring = q->registered.ring;
    registered->reason = q->registered.reason;
}

const char *jdb_backend_name(unsigned index) {
    for (unsigned i = 0; jdb_backends[i]; i++)
        if (i == index) return jdb_backends[i]->name;
    return NULL;
}

int64_t jdb_now(void) { return jdb_os_now(); }
void jdb_sleep(int64_t ns) { jdb_os_sleep(ns); }
int jdb_entropy(void *bytes, size_t size) { return jdb_os_entropy(bytes, size); }
int jdb_remove_directory(const char *path) { return jdb_os_remove_directory(path); }

int64_t jdb_queue_now(jdb_queue *q) {
    return q->backend->world ? q->backend->world->now(q) : jdb_os_now();
}

void jdb_queue_sleep(jdb_queue *q, int64_t ns) {
    if (q->backend->world) q->backend->world->sleep(q, ns);
    else jdb_os_sleep(ns);
}
void jdb_stay_loaded(void) { jdb_os_stay_loaded(); }
const char *jdb_platform(void) { return jdb_os_platform(); }
int64_t jdb_cpu(int thread) { return jdb_os_cpu(thread); }
void jdb_catch_signals(int on) { jdb_os_catch_signals(on); }
int jdb_signal(void) { return jdb_os_signal(); }
int jdb_terminal(int fd, int *columns, int *lines) {
    return jdb_os_terminal(fd, columns, lines) == 0;
}
