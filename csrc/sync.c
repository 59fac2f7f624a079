/* sync.c: durability shared between callers, without timers.
 *
 * One flush at a time runs on a file. A caller is covered by a flush that *started* after its
 * writes had completed: it joins the flush that comes next. Flushes start when the queue hands its
 * work to the kernel, so that everybody who asks in the same turn shares one, and a lone caller
 * pays exactly one.
 *
 * Tasks that each write and then ask come one by one, as their writes end: a flush that starts for
 * the first of them is too early for all others, and each round pays two. So one that could start
 * waits for the writes that the system has at that moment, never for later ones:
 * - durable writes that need a flush: they will join it;
 * - others while that pays: when fewer than a quarter of them had a caller who came meanwhile, the
 *   next flush does not wait for such, after the next failure the next 2, then 4, up to SKIP_MAX;
 * - none when they are more than WAIT_BYTES together: nobody waits for somebody's bulk.
 *
 * A failed flush is never tried again: the kernel may have dropped the data and forgotten the
 * error. The file is poisoned, everybody who waits for it fails, and so does whoever asks later. */
#include <errno.h>
#include <stddef.h>

#include "backend.h"

enum { WAIT_BYTES = 1 << 20, SKIP_MAX = 64 };

static int asks(const jdb_op *op) { return op->code == JDB_SYNC_ALL || op->code == JDB_SYNC_DATA; }

/* ---- writes that a flush may wait for -------------------------------------------------------- */

static unsigned awaited(const jdb_file *file) {
    return file->plain.awaited + file->durable.awaited;
}

/* The next flush waits for those that are there now. None was awaited: all are of one round. */
static void await(struct jdb_writing *writing) {
    writing->awaited = writing->count;
    writing->round ^= JDB_OP_ROUND;
}

static void choose_awaited(jdb_file *file) {
    struct jdb_patience *patience = &file->patience;
    uint64_t durable_bytes = file->durable.bytes;
    patience->chosen = 1;
    patience->hoped = patience->joined = 0;
    if (durable_bytes <= WAIT_BYTES) await(&file->durable);
    if (file->plain.count == 0 || file->plain.bytes + durable_bytes > WAIT_BYTES) return;
    if (patience->skip > 0) {
        patience->skip--;
        return;
    }
    patience->hoped = file->plain.count;
    await(&file->plain);
}

/* Whether the wait was worth it, and how many of those who write ask for a flush. */
static void learn(jdb_file *file, unsigned callers) {
    struct jdb_patience *patience = &file->patience;
    if (patience->hoped > 4 * patience->joined) {
        patience->doubt = patience->doubt == 0 ? 1 : 2 * patience->doubt;
        if (patience->doubt > SKIP_MAX) patience->doubt = SKIP_MAX;
        patience->skip = patience->doubt;
    } else if (patience->hoped > 0) {
        patience->doubt = 0;
    }
    patience->whole = callers >= file->plain.begun ? file->plain.begun : 0;
    file->plain.begun = 0;
}

int jdb_flush_gathers(const jdb_queue *q, unsigned kernel) {
    const jdb_file *file = q->written;
    if (file->plain.count + file->durable.count != kernel) return 0;
    if (file->plain.bytes + file->durable.bytes > WAIT_BYTES) return 0;
    return awaited(file) == kernel || file->plain.begun <= file->patience.whole;
}

/* ---- flushes --------------------------------------------------------------------------------- */

static void list_file(jdb_queue *q, jdb_file *file) {
    if (file->sync_listed || file->sync_leader) return;
    file->sync_listed = 1;
    file->sync_link = q->sync_files;
    q->sync_files = file;
}

void jdb_flush_join(jdb_queue *q, jdb_op *op) {
    op->state = JDB_PENDING;
    jdb_list_push(&op->file->sync_next, op);
    if (asks(op)) op->file->patience.joined++;
    list_file(q, op->file);
}

/* Gives every operation of the list the same result. */
static void complete(jdb_queue *q, struct jdb_list *list, int64_t result) {
    jdb_op *op;
    while ((op = jdb_list_pop(list))) {
        op->result = result;
        jdb_finish(q, op);
    }
}

/* Callers that have gone away need no flush. */
static void drop_abandoned(jdb_queue *q, jdb_file *file) {
    struct jdb_list stay = {NULL, NULL}, gone = {NULL, NULL};
    jdb_op *op;
    while ((op = jdb_list_pop(&file->sync_next)))
        jdb_list_push(op->flags & JDB_OP_ABANDONED ? &gone : &stay, op);
    file->sync_next = stay;
    complete(q, &gone, -ECANCELED);
}

static void start_flush(jdb_queue *q, jdb_file *file) {
    unsigned callers = 0;
    drop_abandoned(q, file);
    if (file->info.poisoned) {
        complete(q, &file->sync_next, JDB_RESULT_POISONED);
        return;
    }
    jdb_op *leader = file->sync_next.head;
    if (!leader) return;
    /* Metadata too, as soon as one of them asks for it. */
    leader->how = leader->code == JDB_SYNC_ALL;
    for (const jdb_op *op = leader; op; op = op->next) {
        if (op->code == JDB_SYNC_ALL) leader->how = 1;
        callers += (unsigned)asks(op);
    }
    learn(file, callers);
    jdb_list_pop(&file->sync_next);
    file->sync_group = file->sync_next;
    file->sync_next.head = file->sync_next.tail = NULL;
    file->flushing = file->dirty;
    file->dirty.from = file->dirty.to = 0;
    file->sync_leader = leader;
    q->stats.flushes++;
    jdb_list_unshift(&q->pending, leader);
}

/* Whether it has to wait. On a poisoned file there is nothing to wait for. */
static int put_off(jdb_file *file) {
    if (file->info.poisoned) return 0;
    if (!file->patience.chosen) choose_awaited(file);
    if (awaited(file) > 0) return 1;
    file->patience.chosen = 0;
    return 0;
}

void jdb_flush_start(jdb_queue *q) {
    jdb_file *file = q->sync_files;
    q->sync_files = NULL;
    while (file) {
        jdb_file *next = file->sync_link;
        file->sync_listed = 0;
        file->sync_link = NULL;
        jdb_file_ref(file); /* its last operation may end here */
        if (put_off(file)) list_file(q, file);
        else start_flush(q, file);
        jdb_file_unref(file);
        file = next;
    }
}

void jdb_flush_done(jdb_queue *q, jdb_op *leader) {
    jdb_file *file = leader->file;
    struct jdb_list group = file->sync_group;
    int64_t result = leader->result;
    file->sync_group.head = file->sync_group.tail = NULL;
    file->sync_leader = NULL;
    if (result < 0) {
        jdb_file_poison(file, (int)-result, file->flushing.from, file->flushing.to);
        jdb_file_poison(file, (int)-result, file->dirty.from, file->dirty.to);
    }
    file->flushing.from = file->flushing.to = 0;
    if (file->sync_next.head) list_file(q, file);
    jdb_file_ref(file);
    jdb_finish(q, leader);
    complete(q, &group, result);
    jdb_file_unref(file);
}
