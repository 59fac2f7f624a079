/* be_uring.c: Linux io_uring through liburing (2.3 and later).
 *
 * Set-up flags are tried from the best set down on EINVAL, operations are asked for by probe:
 * kernel versions are never compared. Workers of the pool signal an eventfd that the ring itself
 * polls, so there is one place to wait. A host that polls gets another eventfd, registered with
 * the ring: under DEFER_TASKRUN the ring's own descriptor never becomes readable. */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"

/* Kernel ABI newer than the oldest header we build with. */
#define OP_FTRUNCATE 55
#define FLAG_DSYNC 0x02  /* RWF_DSYNC */
#define FLAG_ATOMIC 0x40 /* RWF_ATOMIC */
#define PROBE_OPS 256

struct uring {
    struct io_uring ring;
    unsigned flags;
    int host_fd; /* registered eventfd of a host's loop, or -1 */
    int armed;   /* the ring polls the pool's notifier */
    int lost;    /* the kernel refuses to be entered: the pool does what it had not taken */
};

static const struct {
    unsigned flags;
    const char *text;
} flag_sets[] = {
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
     "single_issuer,defer_taskrun,taskrun_flag,submit_all,cqsize"},
    {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
         IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
     "single_issuer,coop_taskrun,taskrun_flag,submit_all,cqsize"},
    {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
         IORING_SETUP_CQSIZE,
     "coop_taskrun,taskrun_flag,submit_all,cqsize"},
    {IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE, "submit_all,cqsize"},
    {IORING_SETUP_CQSIZE, "cqsize"},
    {0, "no set-up flags"},
};

/* The completion queue holds all that can be in flight, so it never overflows. One entry more
 * than depth is for the poll of the notifier. */
static int try_flags(jdb_queue *q, struct uring *u) {
    int r = -EINVAL;
    for (unsigned i = 0; i < sizeof flag_sets / sizeof *flag_sets && r == -EINVAL; i++) {
        struct io_uring_params params;
        memset(&params, 0, sizeof params);
        params.flags = flag_sets[i].flags;
        params.cq_entries = 2 * (q->depth + 1);
        r = io_uring_queue_init_params(q->depth + 1, &u->ring, &params);
        if (r != 0) continue;
        u->flags = params.flags;
        snprintf(q->features, sizeof q->features, "%s%s%s", flag_sets[i].text,
                 params.features & IORING_FEAT_EXT_ARG ? ",ext_arg" : "",
                 params.features & IORING_FEAT_NODROP ? ",nodrop" : "");
    }
    return r;
}

/* Locked memory may be short (ENOMEM): a smaller ring is better than none. */
static int make_ring(jdb_queue *q, struct uring *u) {
    int r = try_flags(q, u);
    while (r == -ENOMEM && q->depth > 8) {
        q->depth /= 2;
        r = try_flags(q, u);
    }
    return r;
}

static uint64_t bit(jdb_code code) { return UINT64_C(1) << code; }

static int has(const struct io_uring_probe *probe, unsigned op) {
    return op <= probe->last_op && op < PROBE_OPS && (probe->ops[op].flags & IO_URING_OP_SUPPORTED);
}

/* Path operations always leave for a kernel worker, so our own pool serves them as well. */
static int probe_operations(jdb_queue *q, struct uring *u) {
    size_t size = sizeof(struct io_uring_probe) + PROBE_OPS * sizeof(struct io_uring_probe_op);
    struct io_uring_probe *probe = calloc(1, size);
    if (!probe) return -ENOMEM;
    int r = io_uring_register_probe(&u->ring, probe, PROBE_OPS);
    if (r == 0 && !(has(probe, IORING_OP_READ) && has(probe, IORING_OP_WRITE))) r = -ENOSYS;
    if (r == 0) {
        q->native = bit(JDB_READ) | bit(JDB_WRITE);
        if (has(probe, IORING_OP_FSYNC)) q->native |= bit(JDB_SYNC_ALL) | bit(JDB_SYNC_DATA);
        if (has(probe, OP_FTRUNCATE)) q->native |= bit(JDB_TRUNCATE);
        size_t used = strlen(q->features);
        snprintf(q->features + used, sizeof q->features - used, ",read,write%s%s",
                 has(probe, IORING_OP_FSYNC) ? ",fsync" : "",
                 has(probe, OP_FTRUNCATE) ? ",ftruncate" : "");
    }
    free(probe);
    return r;
}

static const char *refusal(int r) {
    if (r == -EPERM)
        return "io_uring refused: EPERM (sysctl kernel.io_uring_disabled, or a seccomp filter "
               "such as a container's)";
    if (r == -ENOSYS) return "io_uring refused: ENOSYS (this kernel lacks it or READ and WRITE)";
    if (r == -ENOMEM) return "io_uring refused: ENOMEM (limit on locked memory, ulimit -l)";
    if (r == -EMFILE || r == -ENFILE) return "io_uring refused: no descriptor is left";
    return "io_uring refused";
}

static int uring_open(jdb_queue *q) {
    struct uring *u = calloc(1, sizeof *u);
    if (!u) return -ENOMEM;
    u->host_fd = -1;
    uint32_t depth = q->depth;
    int r = make_ring(q, u);
    if (r == 0) {
        /* Older kernels have no probe call: they lack READ and WRITE, too. */
        r = probe_operations(q, u);
        if (r == -EINVAL) r = -ENOSYS;
        if (r != 0) io_uring_queue_exit(&u->ring);
    }
    size_t used = strlen(q->reason);
    if (r != 0) {
        snprintf(q->reason + used, sizeof q->reason - used, "%s%s", used ? "; " : "", refusal(r));
        q->depth = depth;
        q->native = 0;
        q->features[0] = 0;
        free(u);
        return r;
    }
    if (depth != q->depth)
        snprintf(q->reason + used, sizeof q->reason - used,
                 "%sdepth lowered from %u: locked memory is short", used ? "; " : "", depth);
    else
        snprintf(q->reason + used, sizeof q->reason - used, "%sio_uring works here",
                 used ? "; " : "");
    io_uring_ring_dontfork(&u->ring);
    q->impl = u;
    return 0;
}

static void prepare(struct io_uring_sqe *sqe, jdb_op *op) {
    int fd = (int)op->file->handle;
    switch (op->step) {
    case JDB_READ:
        io_uring_prep_read(sqe, fd, op->buf->base + op->buf_off + op->moved, op->chunk,
                           op->off + op->moved);
        break;
    case JDB_WRITE:
        io_uring_prep_write(sqe, fd, op->buf->base + op->buf_off + op->moved, op->chunk,
                            op->off + op->moved);
        if (op->rw & JDB_RW_DSYNC) sqe->rw_flags |= FLAG_DSYNC;
        if (op->rw & JDB_RW_ATOMIC) sqe->rw_flags |= FLAG_ATOMIC;
        break;
    case JDB_SYNC_ALL: io_uring_prep_fsync(sqe, fd, 0); break;
    case JDB_SYNC_DATA: io_uring_prep_fsync(sqe, fd, IORING_FSYNC_DATASYNC); break;
    default:
        assert(op->step == JDB_TRUNCATE);
        io_uring_prep_rw(OP_FTRUNCATE, sqe, fd, NULL, 0, op->len);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
}

/* ---- entering the kernel -------------------------------------------------------------------- */

/* The ring is beyond repair, as under a seccomp filter that came later. What the kernel has not
 * taken goes to the pool, and all that follows; what it has is looked for without entering. */
static void lose(jdb_queue *q, struct uring *u, int error) {
    struct io_uring_sq *sq = &u->ring.sq;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    unsigned mask = *sq->kring_mask;
    for (unsigned i = head; i != sq->sqe_tail; i++) {
        jdb_op *op = (jdb_op *)(uintptr_t)sq->sqes[i & mask].user_data;
        if (op) jdb_arrive(q, op, -EAGAIN);
    }
    sq->sqe_head = sq->sqe_tail = head;
    __atomic_store_n(sq->ktail, head, __ATOMIC_RELEASE);
    q->staged = 0;
    q->native = 0;
    u->lost = 1;
    const char *name = jdb_errno_name(-error);
    snprintf(q->reason, sizeof q->reason, "io_uring was refused later (%s): threads do the work",
             name ? name : "unknown error");
}

/* A failed call frees nothing: what the kernel did not take stays staged and is sent again. */
static void after_enter(jdb_queue *q, struct uring *u, int r) {
    q->stats.entries++;
    q->staged = io_uring_sq_ready(&u->ring);
    if (r >= 0 || r == -EINTR || r == -ETIME || r == -EAGAIN || r == -EBUSY || r == -ENOMEM) return;
    lose(q, u, r);
}

static void arm(jdb_queue *q, struct uring *u) {
    if (u->armed || q->pool_inflight == 0) return;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe) return; /* full: the next flush makes room, the one after arms */
    io_uring_prep_poll_add(sqe, q->notify, POLLIN);
    io_uring_sqe_set_data(sqe, NULL);
    u->armed = 1;
    q->staged++;
}

static void uring_flush(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->lost) return;
    arm(q, u);
    while (io_uring_sq_ready(&u->ring) > 0) {
        int r = io_uring_submit(&u->ring);
        after_enter(q, u, r);
        if (r <= 0 && r != -EINTR) return;
    }
    arm(q, u);
    if (io_uring_sq_ready(&u->ring) > 0) after_enter(q, u, io_uring_submit(&u->ring));
}

static int uring_submit(jdb_queue *q, jdb_op *op) {
    struct uring *u = q->impl;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe) {
        uring_flush(q);
        sqe = io_uring_get_sqe(&u->ring);
        if (!sqe) return -EAGAIN;
    }
    prepare(sqe, op);
    q->staged++;
    return 0;
}

static unsigned collect(jdb_queue *q, struct uring *u) {
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    int pool = 0;
    io_uring_for_each_cqe(&u->ring, head, cqe) {
        count++;
        if (cqe->user_data == LIBURING_UDATA_TIMEOUT) continue;
        jdb_op *op = io_uring_cqe_get_data(cqe);
        if (op) jdb_arrive(q, op, cqe->res);
        else pool = 1;
    }
    io_uring_cq_advance(&u->ring, count);
    if (pool) {
        u->armed = 0;
        jdb_os_notify_clear(q->notify);
        jdb_pool_collect(q);
    }
    return count;
}

static void wait(jdb_queue *q, struct uring *u, unsigned want, int64_t timeout_ns) {
    struct __kernel_timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct io_uring_cqe *cqe;
    int r;
    if (timeout_ns < 0) r = io_uring_submit_and_wait(&u->ring, want);
    else r = io_uring_submit_and_wait_timeout(&u->ring, &cqe, want, &limit, NULL);
    after_enter(q, u, r);
    if (r == -EAGAIN || r == -EBUSY || r == -ENOMEM) {
        /* The kernel takes nothing now: wait for what it has, a little at most. */
        struct __kernel_timespec pause = {0, 1000000};
        io_uring_wait_cqe_timeout(&u->ring, &cqe, &pause);
        q->stats.entries++;
    }
}

static void reap_lost(jdb_queue *q, struct uring *u, int64_t timeout_ns) {
    const int64_t look_again = 10000000;
    if (u->host_fd >= 0) jdb_os_notify_clear(u->host_fd);
    jdb_os_notify_clear(q->notify);
    jdb_pool_collect(q);
    collect(q, u);
    if (q->arrived.head || timeout_ns == 0) return;
    if (q->inflight > q->pool_inflight && (timeout_ns < 0 || timeout_ns > look_again))
        timeout_ns = look_again;
    jdb_os_notify_wait(q->notify, timeout_ns);
    jdb_os_notify_clear(q->notify);
    jdb_pool_collect(q);
    collect(q, u);
}

static int deferred(const struct uring *u) {
    return (__atomic_load_n(u->ring.sq.kflags, __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0;
}

/* With an eventfd registered DEFER_TASKRUN would signal it twice for each completion: when work
 * is queued, and when our own entry posts it. Off while we post; what arrived meanwhile is
 * fetched afterwards. */
static void post_deferred(struct uring *u) {
    if (u->host_fd >= 0) io_uring_cq_eventfd_toggle(&u->ring, false);
    io_uring_get_events(&u->ring);
    if (u->host_fd >= 0) {
        io_uring_cq_eventfd_toggle(&u->ring, true);
        atomic_thread_fence(memory_order_seq_cst);
        for (int i = 0; i < 64 && deferred(u); i++) io_uring_get_events(&u->ring);
        if (deferred(u)) jdb_os_notify_signal(u->host_fd);
    }
}

static void uring_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct uring *u = q->impl;
    if (u->lost) {
        reap_lost(q, u, timeout_ns);
        return;
    }
    arm(q, u);
    if (timeout_ns != 0) {
        /* With something at hand nobody waits, and the few that are staged go with the next. */
        if (collect(q, u) == 0) {
            wait(q, u, want, timeout_ns);
            collect(q, u);
        }
        return;
    }
    if (u->host_fd >= 0) jdb_os_notify_clear(u->host_fd);
    uring_flush(q);
    if (q->pool_inflight > 0) jdb_pool_collect(q);
    if (deferred(u)) {
        q->stats.entries++;
        post_deferred(u);
    }
    collect(q, u);
}

static int uring_pollfd(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->host_fd >= 0) return u->host_fd;
    int fd = jdb_os_notify_new();
    if (fd < 0) return fd;
    int r = io_uring_register_eventfd(&u->ring, fd);
    if (r < 0) {
        jdb_os_notify_free(fd);
        return r;
    }
    u->host_fd = fd;
    /* A worker's signal wakes the ring's poll, and that may not signal an eventfd in turn (the
     * kernel guards against such loops): workers signal the host themselves. */
    jdb_pool_watch(q, fd);
    jdb_os_notify_signal(fd); /* whatever finished before nobody will announce */
    return fd;
}

static void uring_signal(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->host_fd >= 0) jdb_os_notify_signal(u->host_fd);
}

static void uring_close(jdb_queue *q) {
    struct uring *u = q->impl;
    if (q->fork_generation == jdb_os_fork_generation()) {
        io_uring_queue_exit(&u->ring);
    } else {
        /* The ring was not inherited; unmapping its addresses could hit something else. */
        jdb_os_close(u->ring.ring_fd);
    }
    free(u); /* host_fd is the pool's to close: its workers signal it */
    q->impl = NULL;
}

const struct jdb_backend jdb_backend_uring = {
    .name = "io_uring",
    .open = uring_open,
    .close = uring_close,
    .submit = uring_submit,
    .flush = uring_flush,
    .reap = uring_reap,
    .pollfd = uring_pollfd,
    .signal = uring_signal,
};
