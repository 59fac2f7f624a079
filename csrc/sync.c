/* sync.c: durability shared between callers, without timers.
 *
 * One flush at a time runs on a file. A caller is covered by a flush that *started* after its
 * writes had completed: it joins the flush that comes next. Flushes start when the queue hands its
 * work to the kernel, so that everybody who asks in the same turn shares one, and a lone caller
 * pays exactly one.
 *
 * A failed flush is never tried again: the kernel may have dropped the data and forgotten the
 * error. The file is poisoned, everybody who waits for it fails, and so does whoever asks later. */
#include <errno.h>
#include <stddef.h>

#include "backend.h"

static void list_file(jdb_queue *q, jdb_file *file) {
    if (file->sync_listed || file->sync_leader) return;
    file->sync_listed = 1;
    file->sync_link = q->sync_files;
    q->sync_files = file;
}

void jdb_flush_join(jdb_queue *q, jdb_op *op) {
    op->state = JDB_PENDING;
    jdb_list_push(&op->file->sync_next, op);
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
    drop_abandoned(q, file);
    if (file->info.poisoned) {
        complete(q, &file->sync_next, JDB_RESULT_POISONED);
        return;
    }
    jdb_op *leader = jdb_list_pop(&file->sync_next);
    if (!leader) return;
    file->sync_group = file->sync_next;
    file->sync_next.head = file->sync_next.tail = NULL;
    /* Metadata too, as soon as one of them asks for it. */
    leader->how = leader->code == JDB_SYNC_ALL;
    for (const jdb_op *op = file->sync_group.head; op; op = op->next)
        if (op->code == JDB_SYNC_ALL) leader->how = 1;
    file->flushing = file->dirty;
    file->dirty.from = file->dirty.to = 0;
    file->sync_leader = leader;
    q->stats.flushes++;
    jdb_list_unshift(&q->pending, leader);
}

void jdb_flush_start(jdb_queue *q) {
    jdb_file *file;
    while ((file = q->sync_files)) {
        q->sync_files = file->sync_link;
        file->sync_listed = 0;
        file->sync_link = NULL;
        jdb_file_ref(file); /* its last operation may end here */
        start_flush(q, file);
        jdb_file_unref(file);
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
