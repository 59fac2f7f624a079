/* be_uring.c: Linux io_uring through liburing (2.3 and later).
 *
 * Set-up flags are tried from the best set down on EINVAL, operations are asked for by probe:
 * kernel versions are never compared. Workers of the pool signal an eventfd that the ring itself
 * polls, so there is one place to wait. A host that polls gets another eventfd, registered with
 * the ring: under DEFER_TASKRUN the ring's own descriptor never becomes readable. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "be_uring.h"
#include "os.h"

/* Kernel ABI newer than the oldest header we build with. */
#define OP_FTRUNCATE 55
#define FLAG_DSYNC 0x02  /* RWF_DSYNC */
#define FLAG_ATOMIC 0x40 /* RWF_ATOMIC */
#define FEATURE_MIN_TIMEOUT (1u << 15)
#define PROBE_OPS 256

struct flag_set {
    unsigned flags;
    const char *text;
};

/* Deferred work is the submitting thread's, so it does not go with a kernel thread that submits. */
static const struct flag_set polling_sets[] = {
    {IORING_SETUP_SQPOLL | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL |
         IORING_SETUP_CQSIZE,
     "sqpoll,single_issuer,submit_all,cqsize"},
    {IORING_SETUP_SQPOLL | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
     "sqpoll,submit_all,cqsize"},
    {IORING_SETUP_SQPOLL | IORING_SETUP_CQSIZE, "sqpoll,cqsize"},
    {0, NULL},
};

static const struct flag_set flag_sets[] = {
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
    {0, NULL},
};

/* The completion queue holds all that can be in flight, so it never overflows. One entry more
 * than depth is for the poll of the notifier. */
static int try_flags(jdb_queue *q, struct uring *u) {
    int r = -EINVAL;
    const struct flag_set *set = q->options.sqpoll_ns ? polling_sets : flag_sets;
    for (; set->text && r == -EINVAL; set++) {
        struct io_uring_params params;
        memset(&params, 0, sizeof params);
        params.flags = set->flags;
        params.sq_thread_idle = (unsigned)((q->options.sqpoll_ns + 999999) / 1000000);
        params.cq_entries = 2 * (q->depth + 1);
        r = io_uring_queue_init_params(q->depth + 1, &u->ring, &params);
        if (r != 0) continue;
        u->flags = params.flags;
        u->timed = (params.features & IORING_FEAT_EXT_ARG) != 0;
        snprintf(q->features, sizeof q->features, "%s%s%s%s", set->text,
                 params.features & IORING_FEAT_EXT_ARG ? ",ext_arg" : "",
                 params.features & IORING_FEAT_NODROP ? ",nodrop" : "",
                 q->options.min_wait_ns ? ",min_wait" : "");
    }
    return r;
}

/* Modes that were asked for and cannot work here; NULL: none. */
static const char *refused_mode(const jdb_queue *q, const struct uring *u) {
    unsigned features = u->ring.features;
    if (q->options.min_wait_ns && !(features & FEATURE_MIN_TIMEOUT))
        return "option min_wait refused: this kernel cannot wait that way (Linux 6.12 can)";
    if (q->options.sqpoll_ns && !(features & IORING_FEAT_SQPOLL_NONFIXED))
        return "option sqpoll refused: this kernel lets it work with registered files only (Linux "
               "5.11 does not)";
    if (q->options.sqpoll_ns && jdb_os_processors() < 2)
        return "option sqpoll refused: its thread needs a second processor";
    return NULL;
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

static const char *refusal(const jdb_queue *q, int r) {
    if (r == -EPERM && q->options.sqpoll_ns)
        return "option sqpoll refused: EPERM (privileges before Linux 5.11; sysctl "
               "kernel.io_uring_disabled; a seccomp filter)";
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
    const char *mode = r == 0 ? refused_mode(q, u) : NULL;
    if (mode) {
        io_uring_queue_exit(&u->ring);
        r = -EOPNOTSUPP;
    }
    if (r == 0) {
        /* Older kernels have no probe call: they lack READ and WRITE, too. */
        r = probe_operations(q, u);
        if (r == -EINVAL) r = -ENOSYS;
        if (r == 0 && q->options.iopoll) r = jdb_uring_poll_open(q, u, &mode);
        if (r != 0) io_uring_queue_exit(&u->ring);
    }
    size_t used = strlen(q->reason);
    if (r != 0) {
        snprintf(q->reason + used, sizeof q->reason - used, "%s%s", used ? "; " : "",
                 mode ? mode : refusal(q, r));
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
    if (u->polled) {
        size_t end = strlen(q->features);
        snprintf(q->features + end, sizeof q->features - end, ",iopoll%s",
                 q->options.iopoll == JDB_IOPOLL_HYBRID ? ",hybrid_iopoll" : "");
    }
    io_uring_ring_dontfork(&u->ring);
    u->enter_fd = u->ring.ring_fd;
    jdb_uring_register_ring(q, u);
    q->impl = u;
    return 0;
}

/* The kernel neither looks up nor pins what is registered. */
static inline void prepare_transfer(jdb_queue *q, struct uring *u, struct io_uring_sqe *sqe,
                                    jdb_op *op) {
    const struct jdb_buf *buf = op->buf;
    int write = op->step == JDB_WRITE;
    io_uring_prep_rw(write ? IORING_OP_WRITE : IORING_OP_READ, sqe, (int)op->file->handle,
                     buf->base + op->buf_off + op->moved, op->chunk, op->off + op->moved);
    const struct jdb_chunk *chunk = buf->chunk;
    if (!chunk || (op->rw & JDB_RW_ATOMIC)) return; /* EINVAL, up to 6.18 at least */
    int index = jdb_uring_memory(q, u, chunk);
    if (index < 0) return;
    sqe->opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
    sqe->buf_index = (uint16_t)index;
}

static inline void prepare(jdb_queue *q, struct uring *u, struct io_uring_sqe *sqe, jdb_op *op) {
    int fd = (int)op->file->handle;
    switch (op->step) {
    case JDB_READ: prepare_transfer(q, u, sqe, op); break;
    case JDB_WRITE:
        prepare_transfer(q, u, sqe, op);
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
    int slot = jdb_uring_file(q, u, op->file);
    if (slot < 0) return;
    sqe->fd = slot;
    sqe->flags |= IOSQE_FIXED_FILE;
}

/* ---- entering the kernel -------------------------------------------------------------------- */

static unsigned kernel_flags(const struct uring *u) {
    return __atomic_load_n(u->ring.sq.kflags, __ATOMIC_ACQUIRE);
}

static int asleep(const struct uring *u) {
    atomic_thread_fence(memory_order_seq_cst);
    return (kernel_flags(u) & IORING_SQ_NEED_WAKEUP) != 0;
}

/* What the kernel has not taken goes to the pool. */
static void give_to_pool(jdb_queue *q, struct uring *u) {
    struct io_uring_sq *sq = &u->ring.sq;
    unsigned head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    unsigned mask = *sq->kring_mask;
    while ((u->flags & IORING_SETUP_SQPOLL) && head != sq->sqe_tail && !asleep(u)) {
        jdb_os_sleep(100000); /* the kernel's thread goes on taking until it sleeps */
        head = __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
    }
    for (unsigned i = head; i != sq->sqe_tail; i++) {
        jdb_op *op = (jdb_op *)(uintptr_t)sq->sqes[i & mask].user_data;
        if (op) jdb_arrive(q, op, -EAGAIN);
        if (op) u->in_flight--;
    }
    sq->sqe_head = sq->sqe_tail = head;
    __atomic_store_n(sq->ktail, head, __ATOMIC_RELEASE);
}

/* The ring is beyond repair, as under a seccomp filter that came later. All that follows goes to
 * the pool; what the kernel has is looked for without entering. */
static void lose(jdb_queue *q, int error) {
    struct uring *u = q->impl;
    give_to_pool(q, u);
    if (u->polled) give_to_pool(q, u->polled);
    q->staged = 0;
    q->native = 0;
    u->lost = 1;
    const char *name = jdb_errno_name(-error);
    snprintf(q->reason, sizeof q->reason, "io_uring was refused later (%s): threads do the work",
             name ? name : "unknown error");
    if (u->host_fd >= 0) jdb_os_notify_signal(u->host_fd);
}

/* What passes, or says nothing of the ring. */
static int refused(int r) {
    return r < 0 && r != -EINTR && r != -ETIME && r != -EAGAIN && r != -EBUSY && r != -ENOMEM;
}

static uint32_t staged_in(const struct uring *u) {
    return u->flags & IORING_SETUP_SQPOLL ? 0 : io_uring_sq_ready(&u->ring);
}

/* A failed call frees nothing: what the kernel did not take stays staged and is sent again. */
static void after_enter(jdb_queue *q, int r) {
    const struct uring *u = q->impl;
    q->stats.entries++;
    q->staged = staged_in(u) + (u->polled ? staged_in(u->polled) : 0);
    if (refused(r)) lose(q, r);
}

/* Makes what was prepared visible to the kernel; how much of it waits to be taken. */
static unsigned publish(struct uring *u) {
    struct io_uring_sq *sq = &u->ring.sq;
    sq->sqe_head = sq->sqe_tail;
    __atomic_store_n(sq->ktail, sq->sqe_tail, __ATOMIC_RELEASE);
    return sq->sqe_tail - __atomic_load_n(sq->khead, __ATOMIC_ACQUIRE);
}

/* What the kernel's own thread takes needs no call, unless that thread sleeps. 1: no call. */
static int taken_over(jdb_queue *q, struct uring *u, unsigned want, unsigned *flags) {
    if (!(u->flags & IORING_SETUP_SQPOLL)) return 0;
    if (asleep(u)) *flags |= IORING_ENTER_SQ_WAKEUP;
    else if (want == 0 && !(*flags & IORING_ENTER_GETEVENTS)) return q->staged = 0, 1;
    return 0;
}

static int enter_timed(const jdb_queue *q, struct uring *u, unsigned staged, unsigned want,
                       unsigned flags, int64_t timeout_ns) {
    struct __kernel_timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    struct io_uring_getevents_arg argument = {0};
    struct io_uring_cqe *cqe;
    if (!u->timed) /* before Linux 5.11: a timeout is an operation */
        return io_uring_submit_and_wait_timeout(&u->ring, &cqe, want, &limit, NULL);
    if (timeout_ns >= 0) argument.ts = (uint64_t)(uintptr_t)&limit;
    if (want > 1) argument.pad = (uint32_t)((q->options.min_wait_ns + 999) / 1000); /* min_wait */
    return io_uring_enter2(u->enter_fd, staged, want, flags | IORING_ENTER_EXT_ARG,
                           (sigset_t *)&argument, sizeof argument);
}

/* One call: hands over what is staged, and waits for `want` completions, timeout_ns (< 0: no limit)
 * at most. */
static int enter(jdb_queue *q, struct uring *u, unsigned want, int64_t timeout_ns) {
    unsigned flags = u->enter_flags, staged = publish(u);
    int r;
    if (want > 0 || (u->flags & IORING_SETUP_IOPOLL) ||
        (kernel_flags(u) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)))
        flags |= IORING_ENTER_GETEVENTS;
    if (taken_over(q, u, want, &flags)) return 0;
    q->stats.handovers += staged > 0;
    if (want == 0 || (timeout_ns < 0 && (want == 1 || !q->options.min_wait_ns)))
        r = io_uring_enter2(u->enter_fd, staged, want, flags, NULL, _NSIG / 8);
    else r = enter_timed(q, u, staged, want, flags, timeout_ns);
    after_enter(q, r);
    return r;
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

/* Whether the kernel took it all, and takes more. */
static int hand_over(jdb_queue *q, struct uring *u) {
    while (io_uring_sq_ready(&u->ring) > 0) {
        int r = enter(q, u, 0, 0);
        if ((u->flags & IORING_SETUP_SQPOLL) || (r <= 0 && r != -EINTR)) return 0;
    }
    return 1;
}

static void uring_flush(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->lost) return;
    if (u->polled && !hand_over(q, u->polled) && u->lost) return;
    arm(q, u);
    if (!hand_over(q, u)) return;
    arm(q, u);
    if (io_uring_sq_ready(&u->ring) > 0) enter(q, u, 0, 0);
}

static int uring_submit(jdb_queue *q, jdb_op *op) {
    struct uring *u = jdb_uring_for(q->impl, op);
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    if (!sqe) {
        uring_flush(q);
        sqe = io_uring_get_sqe(&u->ring);
        if (!sqe) return -EAGAIN;
    }
    prepare(q, u, sqe, op);
    u->in_flight++;
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
        if (!op) {
            pool = 1;
            continue;
        }
        u->in_flight--;
        int refused = cqe->res == -EOPNOTSUPP && (u->flags & IORING_SETUP_IOPOLL);
        jdb_arrive(q, op, refused ? jdb_uring_poll_refused(op) : cqe->res);
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
    int r = enter(q, u, want, timeout_ns);
    if (r == -EAGAIN || r == -EBUSY || r == -ENOMEM) {
        /* The kernel takes nothing now: wait for what it has, a little at most. */
        struct __kernel_timespec pause = {0, 1000000};
        struct io_uring_cqe *cqe;
        io_uring_wait_cqe_timeout(&u->ring, &cqe, &pause);
        q->stats.entries++;
    }
}

/* Completions are put in the second ring by whoever enters it only: that is tried again. */
static void collect_both(jdb_queue *q, struct uring *u) {
    collect(q, u);
    if (u->polled && u->polled->in_flight > 0) collect(q, u->polled);
}

/* Deferred work, and what is polled for, completes by entering only. Refused there again, what the
 * kernel has is out of reach for good. */
static void fetch_lost(jdb_queue *q, struct uring *u) {
    int r = 0, polled = 0;
    if (u->stranded || q->inflight == q->pool_inflight) return;
    if (u->flags & IORING_SETUP_DEFER_TASKRUN) r = io_uring_get_events(&u->ring);
    if (u->polled && u->polled->in_flight > 0) polled = io_uring_get_events(&u->polled->ring);
    collect_both(q, u);
    if (q->inflight == q->pool_inflight || (!refused(r) && !refused(polled))) return;
    u->stranded = 1; /* from here on nothing is read from the rings: slots are used again */
    size_t used = strlen(q->reason);
    snprintf(q->reason + used, sizeof q->reason - used, "; %u operations ended in doubt",
             (unsigned)(q->inflight - q->pool_inflight));
    jdb_queue_strand(q);
}

static void reap_lost(jdb_queue *q, struct uring *u, int64_t timeout_ns) {
    const int64_t look_again = 10000000;
    if (u->host_fd >= 0) jdb_os_notify_clear(u->host_fd);
    jdb_os_notify_clear(q->notify);
    jdb_pool_collect(q);
    fetch_lost(q, u);
    if (q->arrived.head || timeout_ns == 0) return;
    if (q->inflight > q->pool_inflight && (timeout_ns < 0 || timeout_ns > look_again))
        timeout_ns = look_again;
    jdb_os_notify_wait(q->notify, timeout_ns);
    jdb_pool_collect(q);
    fetch_lost(q, u);
}

static int deferred(const struct uring *u) { return (kernel_flags(u) & IORING_SQ_TASKRUN) != 0; }

/* With an eventfd registered DEFER_TASKRUN would signal it twice for each completion: when work
 * is queued, and when our own entry posts it. Off while we post; what arrived meanwhile is
 * fetched afterwards. */
static int post_deferred(struct uring *u) {
    if (u->host_fd >= 0) io_uring_cq_eventfd_toggle(&u->ring, false);
    int r = io_uring_get_events(&u->ring);
    if (u->host_fd >= 0) {
        io_uring_cq_eventfd_toggle(&u->ring, true);
        atomic_thread_fence(memory_order_seq_cst);
        for (int i = 0; i < 64 && deferred(u); i++) io_uring_get_events(&u->ring);
        if (deferred(u)) jdb_os_notify_signal(u->host_fd);
    }
    return r;
}

static void look(jdb_queue *q, struct uring *u) {
    if (u->host_fd >= 0) jdb_os_notify_clear(u->host_fd);
    uring_flush(q);
    if (q->pool_inflight > 0) jdb_pool_collect(q);
    if (deferred(u)) {
        q->stats.entries++;
        int r = post_deferred(u);
        if (refused(r)) lose(q, r);
    }
    collect_both(q, u);
}

/* Nothing announces what is polled for, so nobody sleeps while something is: both rings are looked
 * at until enough is there, or the kernel does that when nothing but these can end. */
static void spin(jdb_queue *q, struct uring *u, unsigned want, int64_t timeout_ns) {
    struct uring *p = u->polled;
    int64_t until = timeout_ns < 0 ? INT64_MAX : jdb_os_now() + timeout_ns;
    uint32_t before = q->inflight;
    int alone = timeout_ns < 0 && before == p->in_flight, r = 0;
    if (want > before) want = before;
    do {
        if (u->lost) {
            reap_lost(q, u, timeout_ns);
            return;
        }
        uint32_t left = want - (before - q->inflight);
        r = enter(q, p, !alone ? 0 : left < p->in_flight ? left : p->in_flight, -1);
        if (alone) collect(q, p);
        else if (!u->lost) look(q, u);
    } while (before - q->inflight < want && r != -EINTR && jdb_os_now() < until);
}

static void uring_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct uring *u = q->impl;
    if (u->lost) {
        reap_lost(q, u, timeout_ns);
        return;
    }
    arm(q, u);
    if (u->chunks && u->freed != jdb_arena_freed()) jdb_uring_sweep(q, u);
    if (u->polled && u->polled->in_flight > 0) {
        if (u->polled->chunks && u->polled->freed != jdb_arena_freed())
            jdb_uring_sweep(q, u->polled);
        spin(q, u, timeout_ns == 0 ? 0 : want, timeout_ns);
    } else if (timeout_ns == 0) {
        look(q, u);
    } else if (collect(q, u) == 0) {
        wait(q, u, want, timeout_ns);
        collect(q, u);
    } /* else: with something at hand nobody waits, and the few that are staged go with the next */
}

static int uring_pollfd(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->host_fd >= 0) return u->host_fd;
    if (u->polled) return -EOPNOTSUPP;
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

static void close_ring(jdb_queue *q, struct uring *u) {
    jdb_uring_register_close(u, jdb_queue_is_own(q));
    if (q->fork_generation == jdb_os_fork_generation()) {
        io_uring_queue_exit(&u->ring);
    } else {
        /* The ring was not inherited; unmapping its addresses could hit something else. */
        jdb_os_close(u->ring.ring_fd);
    }
    free(u);
}

static void uring_close(jdb_queue *q) {
    struct uring *u = q->impl;
    if (u->polled) close_ring(q, u->polled);
    close_ring(q, u); /* host_fd is the pool's to close: its workers signal it */
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
    .forget = jdb_uring_forget,
};
