/* be_null.c: the backend "null": transfers and flushes end at once and without being done, so that
 * what a program costs besides the system can be measured. A read leaves the buffer as it is.
 * Whatever else there is, names and sizes, is done, in place. Chosen by name in options only: an
 * environment variable must not make a program lose what it writes. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"

static int null_open(jdb_queue *q) {
    struct jdb_list *ready = calloc(1, sizeof *ready);
    if (!ready) return -ENOMEM;
    q->native = (UINT64_C(1) << JDB_CODE_COUNT) - 1;
    snprintf(q->features, sizeof q->features, "transfers_nothing");
    q->impl = ready;
    return 0;
}

static void null_close(jdb_queue *q) {
    free(q->impl);
    q->impl = NULL;
}

static int null_submit(jdb_queue *q, jdb_op *op) {
    jdb_list_push(q->impl, op);
    return 0;
}

/* Hosts look when they are told to. */
static void null_flush(jdb_queue *q) {
    if (((struct jdb_list *)q->impl)->head) jdb_threads_signal(q);
}

static int64_t nothing_is_durable(jdb_evidence *e) {
    memset(e, 0, sizeof *e);
    e->volatile_cache = e->fua = -1;
    e->class_name = "unsafe";
    snprintf(e->reasons, sizeof e->reasons, "the backend \"null\" writes nothing");
    return 0;
}

static int64_t perform(jdb_op *op) {
    switch ((jdb_code)op->step) {
    case JDB_READ:
    case JDB_WRITE: return op->chunk;
    case JDB_SYNC_DATA:
    case JDB_SYNC_ALL: return 0;
    case JDB_INFO: return nothing_is_durable(&op->detail->info.evidence);
    default: return jdb_os_perform(op);
    }
}

static void null_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct jdb_list ready = *(struct jdb_list *)q->impl;
    memset(q->impl, 0, sizeof ready);
    if (!ready.head) {
        jdb_threads_reap(q, want, timeout_ns);
        return;
    }
    jdb_op *op;
    while ((op = jdb_list_pop(&ready))) jdb_arrive(q, op, perform(op));
}

static int64_t null_now(jdb_queue *q) {
    (void)q;
    return jdb_os_now();
}

static void null_sleep(jdb_queue *q, int64_t ns) {
    (void)q;
    jdb_os_sleep(ns);
}

static void null_release(jdb_queue *q, intptr_t handle) {
    (void)q;
    jdb_os_close(handle);
}

static int64_t null_size(jdb_queue *q, intptr_t handle) {
    (void)q;
    return jdb_os_size(handle);
}

static const struct jdb_world world = {
    .now = null_now,
    .sleep = null_sleep,
    .close = null_release,
    .size = null_size,
};

const struct jdb_backend jdb_backend_null = {
    .name = "null",
    .world = &world,
    .open = null_open,
    .close = null_close,
    .submit = null_submit,
    .flush = null_flush,
    .reap = null_reap,
    .pollfd = jdb_threads_pollfd,
    .signal = jdb_threads_signal,
};
