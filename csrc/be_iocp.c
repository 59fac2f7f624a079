/* be_iocp.c: Windows, an I/O completion port. The queue's notifier is the port: files complete
 * into it, workers of the pool post into it, one call takes many of both.
 *
 * A transfer that ends inside the call sends no packet where the system can be told so; it is then
 * handed out by the next reap, which looks at the port all the same, so that no other one starves.
 * What the system would do inside the call, while the queue's thread waits, goes to the pool:
 * cached, compressed and encrypted files, and writes that end behind what was written before.
 *
 * OVERLAPPED and buffer belong to the operation until its packet was taken, cancelled or not. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"
#include "os_windows.h"

enum { BATCH = 64 };

struct flight {
    OVERLAPPED overlapped; /* first: a packet names it */
    jdb_op *op;            /* NULL: free */
    struct flight *next;
};

struct iocp {
    struct flight *free;
    struct jdb_list ready; /* ended inside the call */
    struct flight flights[];
};

static HANDLE port_of(const jdb_queue *q) { return (HANDLE)(intptr_t)q->notify; }

static int iocp_open(jdb_queue *q) {
    struct iocp *p = calloc(1, sizeof *p + q->depth * sizeof *p->flights);
    if (!p) return -ENOMEM;
    for (uint32_t i = 0; i < q->depth; i++) {
        p->flights[i].next = p->free;
        p->free = &p->flights[i];
    }
    q->impl = p;
    q->native = UINT64_C(1) << JDB_READ | UINT64_C(1) << JDB_WRITE;
    size_t used = strlen(q->reason);
    snprintf(q->reason + used, sizeof q->reason - used, "%sI/O completion port", used ? "; " : "");
    snprintf(q->features, sizeof q->features, "read,write,cancel");
    return 0;
}

static void iocp_close(jdb_queue *q) {
    free(q->impl);
    q->impl = NULL;
}

/* ---- submission ----------------------------------------------------------------------------- */

static int would_block(struct jdb_windows_file *file, const jdb_op *op) {
    if (file->blocks || op->rw) return 1;
    if (op->step == JDB_READ) return 0;
    return op->off + op->moved + op->chunk > atomic_load(&file->valid_end);
}

/* Once for a handle; neither can be taken back. */
static int attach(jdb_queue *q, struct jdb_windows_file *file) {
    if (!CreateIoCompletionPort(file->handle, port_of(q), 0, 0)) return 0;
    file->attached = 1;
    file->skips = jdb_windows.set_notification_modes(
        file->handle, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE);
    return 1;
}

static void finish(struct iocp *p, struct flight *flight, int64_t result) {
    jdb_op *op = flight->op;
    flight->op = NULL;
    flight->next = p->free;
    p->free = flight;
    op->result = result;
    jdb_list_push(&p->ready, op);
}

static int iocp_submit(jdb_queue *q, jdb_op *op) {
    struct iocp *p = q->impl;
    struct jdb_windows_file *file = jdb_windows_file_of(op->file->handle);
    if (would_block(file, op)) return JDB_TO_POOL;
    if (!file->attached && !attach(q, file)) return JDB_TO_POOL;
    struct flight *flight = p->free;
    assert(flight && !flight->op); /* there are as many as the queue lets go */
    p->free = flight->next;
    flight->op = op;
    uint64_t off = op->off + op->moved;
    uint8_t *memory = op->buf->base + op->buf_off + op->moved;
    OVERLAPPED *o = &flight->overlapped;
    memset(o, 0, sizeof *o);
    o->Offset = (DWORD)off;
    o->OffsetHigh = (DWORD)(off >> 32);
    int is_read = op->step == JDB_READ;
    BOOL ended = is_read ? jdb_windows.read(file->handle, memory, op->chunk, NULL, o)
                         : jdb_windows.write(file->handle, memory, op->chunk, NULL, o);
    DWORD error = ended ? 0 : GetLastError();
    q->stats.entries++;
    q->stats.handovers++;
    if (error == ERROR_IO_PENDING || (ended && !file->skips)) return 0;
    finish(p, flight, jdb_windows_transferred(is_read, error, o->InternalHigh));
    return 0;
}

static void iocp_flush(jdb_queue *q) { (void)q; } /* nothing is staged */

/* A write goes on: half of it would be worse than all. That there is nothing to cancel, or that it
 * ends well all the same, changes nothing: its packet comes. */
static void iocp_cancel(jdb_queue *q, jdb_op *op) {
    struct iocp *p = q->impl;
    if (op->step != JDB_READ || (op->flags & JDB_OP_POOLED)) return;
    for (uint32_t i = 0; i < q->depth; i++)
        if (p->flights[i].op == op)
            jdb_windows.cancel(jdb_windows_file_of(op->file->handle)->handle,
                               &p->flights[i].overlapped);
}

/* ---- completion ----------------------------------------------------------------------------- */

static void take_packet(struct iocp *p, OVERLAPPED *o) {
    struct flight *flight = (struct flight *)o;
    const jdb_op *op = flight->op;
    DWORD bytes = 0;
    HANDLE handle = jdb_windows_file_of(op->file->handle)->handle;
    BOOL well = GetOverlappedResult(handle, o, &bytes, FALSE);
    finish(p, flight,
           jdb_windows_transferred(op->step == JDB_READ, well ? 0 : GetLastError(), bytes));
}

/* Packets of the port: transfers, and signals of the pool, which name none. */
static void take_packets(jdb_queue *q, DWORD timeout_ms) {
    struct iocp *p = q->impl;
    OVERLAPPED_ENTRY entries[BATCH];
    ULONG count = BATCH;
    while (count == BATCH) {
        int pool = 0;
        q->stats.entries++;
        if (!GetQueuedCompletionStatusEx(port_of(q), entries, BATCH, &count, timeout_ms, FALSE))
            return;
        for (ULONG i = 0; i < count; i++) {
            if (entries[i].lpOverlapped) take_packet(p, entries[i].lpOverlapped);
            else pool = 1;
        }
        if (pool) jdb_pool_collect(q);
        timeout_ms = 0;
    }
}

static void hand_out(jdb_queue *q, struct iocp *p) {
    jdb_op *op;
    while ((op = jdb_list_pop(&p->ready))) jdb_arrive(q, op, op->result);
}

static void iocp_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct iocp *p = q->impl;
    (void)want; /* the system ends a wait with the first */
    hand_out(q, p);
    if (q->inflight == 0 && timeout_ns == 0) return; /* nothing can be there */
    take_packets(q, q->arrived.head ? 0 : jdb_windows_milliseconds(timeout_ns));
    hand_out(q, p);
}

static int iocp_pollfd(jdb_queue *q) { return jdb_os_notify_fd(q->notify); }
static void iocp_signal(jdb_queue *q) { (void)q; }

const struct jdb_backend jdb_backend_iocp = {
    .name = "iocp",
    .open = iocp_open,
    .close = iocp_close,
    .submit = iocp_submit,
    .cancel = iocp_cancel,
    .flush = iocp_flush,
    .reap = iocp_reap,
    .pollfd = iocp_pollfd,
    .signal = iocp_signal,
};
