/* be_sim.c: the backend "sim": a disk in memory with a clock of its own. It runs every operation
 * itself, on the queue's thread, at the virtual time at which it is due. Never chosen by "auto". */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "be_sim.h"
#include "os.h"

enum {
    LOOK_NS = 1000,  /* what a look at the queue costs: a program that polls gets on */
    CLOCK_NS = 100,  /* what reading the clock costs: one that waits for a time as well */
    TAIL_SHARE = 32, /* one operation in so many ... */
    TAIL_FACTOR = 8, /* ... takes so much longer */
    CREDITS_MAX = 8  /* steps of an operation that the power cut meets */
};

/* Time stamps look like those of today. */
#define EPOCH_NS (INT64_C(1760000000) * 1000000000)

static const jdb_sim_options defaults = {
    .seed = 1,
    .capacity = UINT64_C(1) << 32,
    .sector = 512,
    .atomic_max = 0,
    .latency_min_ns = 20000,
    .latency_max_ns = 200000,
};

/* ---- operations in flight: a heap by time, then by order of submission ----------------------- */

static int before(const struct sim_flight *a, const struct sim_flight *b) {
    return a->when != b->when ? a->when < b->when : a->order < b->order;
}

static void push_flight(struct sim *s, struct sim_flight flight) {
    uint32_t i = s->flight_count++;
    while (i > 0 && before(&flight, &s->flights[(i - 1) / 2])) {
        s->flights[i] = s->flights[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->flights[i] = flight;
}

static struct sim_flight pop_flight(struct sim *s) {
    struct sim_flight first = s->flights[0], last = s->flights[--s->flight_count];
    uint32_t i = 0;
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= s->flight_count) break;
        if (child + 1 < s->flight_count && before(&s->flights[child + 1], &s->flights[child]))
            child++;
        if (!before(&s->flights[child], &last)) break;
        s->flights[i] = s->flights[child];
        i = child;
    }
    s->flights[i] = last;
    return first;
}

/* ---- faults and the power ------------------------------------------------------------------- */

enum sim_outcome sim_step(struct sim *s) {
    if (s->dying) {
        if (s->credits == 0) return SIM_LOST;
        s->credits--;
        return SIM_UNHEARD;
    }
    if (s->off) return SIM_LOST;
    s->steps++;
    if (s->cut_at == 0 || s->steps < s->cut_at) return SIM_DONE;
    s->off = 1;
    return sim_below(&s->disk.random, 2) ? SIM_UNHEARD : SIM_LOST;
}

static int strikes(struct sim *s, jdb_sim_fault *f) {
    if (f->per_million) return sim_below(&s->disk.random, 1000000) < f->per_million;
    if (f->nth > 1) {
        f->nth--;
        return 0;
    }
    if (f->count == 0) return 0;
    f->count--;
    return 1;
}

/* By name: size and stat of a file and of a path are one to a program. */
static int concerns(const jdb_sim_fault *f, int code) {
    if (code < 0 || f->code == JDB_SIM_FLUSH) return f->code == code;
    return f->code == JDB_SIM_ANY || f->code == code ||
           strcmp(jdb_code_name((jdb_code)f->code), jdb_code_name((jdb_code)code)) == 0;
}

/* All count, the first that strikes does. */
const jdb_sim_fault *sim_fault_for(struct sim *s, int code) {
    const jdb_sim_fault *found = NULL;
    for (unsigned i = 0; i < s->fault_count; i++) {
        jdb_sim_fault *f = &s->faults[i];
        if (concerns(f, code) && strikes(s, f) && !found) found = f;
    }
    if (found) s->faulted++;
    return found;
}

/* What was in flight may have happened, in any order and up to some step. */
static void sweep(struct sim *s) {
    s->dying = 1;
    for (uint32_t i = 0; i < s->flight_count; i++) {
        uint32_t other = i + (uint32_t)sim_below(&s->disk.random, s->flight_count - i);
        struct sim_flight flight = s->flights[other];
        s->flights[other] = s->flights[i];
        s->flights[i] = flight;
        s->credits = sim_below(&s->disk.random, 2) * sim_below(&s->disk.random, CREDITS_MAX);
        if (flight.op->step != JDB_CLOSE) sim_perform(s, flight.op, flight.covers, NULL);
    }
    s->dying = 0;
    /* They all end now, in the order they lie in. */
    for (uint32_t i = 0; i < s->flight_count; i++) {
        s->flights[i].when = s->now_ns;
        s->flights[i].order = ++s->orders;
    }
}

static int64_t perform(struct sim *s, const struct sim_flight *flight) {
    jdb_op *op = flight->op;
    int closes = op->step == JDB_CLOSE;
    if (s->off && !closes) return -EIO;
    s->operations++;
    const jdb_sim_fault *fault = sim_fault_for(s, op->step);
    int flushes = op->step == JDB_SYNC_ALL || op->step == JDB_SYNC_DATA;
    if (fault && fault->how == JDB_SIM_BEFORE && !closes) {
        struct sim_inode *file = flushes ? sim_inode_of(s, op->file->handle) : NULL;
        /* An interrupted flush has lost nothing: the queue asks again. */
        if (file && fault->error != EINTR) sim_forsake(file, flight->covers);
        return -fault->error;
    }
    int64_t r = sim_perform(s, op, flight->covers, fault);
    return fault && fault->error && r >= 0 ? -fault->error : r;
}

static void note(struct sim *s, const jdb_op *op, int64_t result) {
    uint64_t values[] = {op->step, op->off, op->len, (uint64_t)result,
                         (uint64_t)(s->now_ns - s->reset_ns)};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        s->trace ^= values[i];
        s->trace = sim_random(&s->trace);
    }
}

static void complete_first(jdb_queue *q, struct sim *s) {
    struct sim_flight flight = pop_flight(s);
    int on = !s->off;
    s->disk.time_ns = EPOCH_NS + s->now_ns;
    int64_t result = perform(s, &flight);
    if (on && s->off) sweep(s);
    note(s, flight.op, result);
    jdb_arrive(q, flight.op, result);
}

/* ---- the backend ---------------------------------------------------------------------------- */

static int64_t start(struct sim *s, const jdb_sim_options *options) {
    memset(&s->disk, 0, sizeof s->disk);
    s->options = *options;
    s->disk.random = options->seed;
    s->disk.capacity = options->capacity / SIM_BLOCK;
    s->disk.sector = options->sector;
    s->disk.time_ns = EPOCH_NS + s->now_ns;
    s->reset_ns = s->now_ns;
    s->trace = s->steps = s->flushes = s->operations = s->faulted = s->cut_at = 0;
    s->fault_count = 0;
    s->off = 0;
    return sim_disk_open(&s->disk);
}

static int sim_open(jdb_queue *q) {
    struct sim *s = calloc(1, sizeof *s);
    jdb_sim_options options = defaults;
    const char *seed = jdb_os_getenv("JDBFS_SIM_SEED");
    if (!s) return -ENOMEM;
    if (seed) options.seed = strtoull(seed, NULL, 10);
    s->flights = calloc(q->depth, sizeof *s->flights);
    int r = s->flights ? (int)start(s, &options) : -ENOMEM;
    if (r < 0) {
        free(s->flights);
        free(s);
        return r;
    }
    q->native = (UINT64_C(1) << JDB_CODE_COUNT) - 1;
    snprintf(q->features, sizeof q->features, "memory,virtual_time,seeded,crash");
    q->impl = s;
    return 0;
}

static void sim_close(jdb_queue *q) {
    struct sim *s = q->impl;
    q->impl = NULL;
    sim_disk_close(&s->disk);
    free(s->handles);
    free(s->flights);
    free(s);
}

static int64_t latency(struct sim *s) {
    const jdb_sim_options *o = &s->options;
    uint64_t range = (uint64_t)(o->latency_max_ns - o->latency_min_ns) + 1;
    int64_t ns = o->latency_min_ns + (int64_t)sim_below(&s->disk.random, range);
    return sim_below(&s->disk.random, TAIL_SHARE) == 0 ? ns * TAIL_FACTOR : ns;
}

static int sim_submit(jdb_queue *q, jdb_op *op) {
    struct sim *s = q->impl;
    struct sim_flight flight = {s->now_ns + latency(s), ++s->orders, s->disk.record_count, op};
    push_flight(s, flight);
    if (s->polled) jdb_os_notify_signal(q->notify);
    return 0;
}

static void sim_flush(jdb_queue *q) { (void)q; }

/* Time goes on to the next completion, or to the end of the wait. */
static void sim_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct sim *s = q->impl;
    if (s->polled) jdb_os_notify_clear(q->notify);
    s->now_ns += LOOK_NS;
    /* Whoever looks because the descriptor told him to finds something. */
    if (s->polled && s->flight_count > 0 && s->flights[0].when > s->now_ns)
        s->now_ns = s->flights[0].when;
    int64_t until = timeout_ns < 0 ? INT64_MAX : s->now_ns + timeout_ns;
    for (unsigned got = 0; s->flight_count > 0; got++) {
        int64_t when = s->flights[0].when;
        if (when > s->now_ns && (got >= want || when > until)) break;
        if (when > s->now_ns) s->now_ns = when;
        complete_first(q, s);
        if (got >= want && got >= q->depth) break;
    }
    if (!q->arrived.head && timeout_ns > 0 && s->now_ns < until) s->now_ns = until;
    if (s->polled && s->flight_count > 0) jdb_os_notify_signal(q->notify);
}

/* Readable as long as step would get on: virtual time stands still without it. */
static int sim_pollfd(jdb_queue *q) {
    struct sim *s = q->impl;
    int fd = jdb_os_notify_fd(q->notify);
    if (fd < 0) return fd;
    s->polled = 1;
    if (s->flight_count > 0) jdb_os_notify_signal(q->notify);
    return fd;
}

static void sim_signal(jdb_queue *q) { jdb_os_notify_signal(q->notify); }

static int64_t sim_now(jdb_queue *q) {
    struct sim *s = q->impl;
    return s ? (s->now_ns += CLOCK_NS) : 0;
}

static void sim_sleep(jdb_queue *q, int64_t ns) {
    struct sim *s = q->impl;
    if (s) s->now_ns += ns;
}

static void sim_release(jdb_queue *q, intptr_t handle) {
    if (q->impl) sim_close_handle(q->impl, handle);
}

static int64_t sim_size(jdb_queue *q, intptr_t handle) {
    const struct sim_inode *file = q->impl ? sim_inode_of(q->impl, handle) : NULL;
    return file ? (int64_t)file->live.size : -EIO;
}

static const struct jdb_world world = {
    .now = sim_now,
    .sleep = sim_sleep,
    .close = sim_release,
    .size = sim_size,
};

const struct jdb_backend jdb_backend_sim = {
    .name = "sim",
    .world = &world,
    .open = sim_open,
    .close = sim_close,
    .submit = sim_submit,
    .flush = sim_flush,
    .reap = sim_reap,
    .pollfd = sim_pollfd,
    .signal = sim_signal,
};

/* ---- control -------------------------------------------------------------------------------- */

static struct sim *sim_of(const jdb_queue *q) {
    return q->backend == &jdb_backend_sim ? q->impl : NULL;
}

void jdb_sim_defaults(jdb_sim_options *options) { *options = defaults; }

static int power_of_two(uint64_t n) { return n != 0 && (n & (n - 1)) == 0; }

static int acceptable(const jdb_sim_options *o) {
    return power_of_two(o->sector) && o->sector <= SIM_BLOCK && o->latency_min_ns >= 0 &&
           o->latency_max_ns >= o->latency_min_ns && o->latency_max_ns < INT64_MAX / 16 &&
           (o->atomic_max == 0 || (power_of_two(o->atomic_max) && o->atomic_max >= o->sector));
}

/* Files that are open stay objects without a file behind them. */
static void kill_handles(struct sim *s) {
    for (size_t i = 0; i < s->handle_count; i++) {
        struct sim_handle *h = &s->handles[i];
        struct sim_inode *inode = h->inode;
        h->inode = NULL;
        h->lock = 0;
        if (!inode) continue;
        inode->handles--;
        sim_inode_unref(&s->disk, inode);
    }
}

int jdb_sim_reset(jdb_queue *q, const jdb_sim_options *options) {
    struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    if (!acceptable(options)) return -EINVAL;
    if (q->stats.submitted != q->stats.completed) return -EBUSY;
    kill_handles(s);
    sim_disk_close(&s->disk);
    /* What the queue has learnt about this disk's speed decides what happens when. */
    q->gap_ns = JDB_GAP_NS;
    q->reaped_at = s->now_ns;
    return (int)start(s, options);
}

int jdb_sim_fault_add(jdb_queue *q, const jdb_sim_fault *fault) {
    struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    if (s->fault_count == JDB_SIM_FAULTS_MAX) return -ENOSPC;
    s->faults[s->fault_count++] = *fault;
    return 0;
}

int jdb_sim_cut(jdb_queue *q, uint64_t steps) {
    struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    s->cut_at = steps ? s->steps + steps : 0;
    return 0;
}

/* Whoever waits for an operation hears an error. */
static void stop(jdb_queue *q, struct sim *s) {
    if (!s->off) sweep(s);
    s->off = 1;
    while (s->flight_count > 0) complete_first(q, s);
    kill_handles(s);
}

int jdb_sim_kill(jdb_queue *q) {
    struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    int off = s->off;
    stop(q, s);
    s->off = off;
    return 0;
}

int jdb_sim_crash(jdb_queue *q, uint64_t seed) {
    struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    stop(q, s);
    s->disk.random = seed;
    int r = (int)sim_disk_crash(&s->disk);
    s->fault_count = 0;
    s->cut_at = 0;
    s->off = 0;
    return r;
}

int jdb_sim_state_get(const jdb_queue *q, jdb_sim_state *state) {
    const struct sim *s = sim_of(q);
    if (!s) return -ENOTSUP;
    *state = (jdb_sim_state){
        .now_ns = s->now_ns - s->reset_ns,
        .trace = s->trace,
        .operations = s->operations,
        .steps = s->steps,
        .flushes = s->flushes,
        .faults = s->faulted,
        .used = s->disk.used * SIM_BLOCK,
        .off = s->off,
    };
    for (size_t i = 0; i < s->handle_count; i++) state->handles += (uint64_t)s->handles[i].used;
    return 0;
}
