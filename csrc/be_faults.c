/* be_faults.c: a wrapper around the real backends and the system that fails on purpose.
 *
 * Built only with -DJDB_FAULTS (make FAULTS=1), never installed. The linker sends the calls listed
 * in the Makefile (FAULTS_WRAP) through here, so nothing else knows of it.
 *
 * A plan is a list of rules and words, separated by semicolons:
 *   POINT:key=value:...   one rule; the first that fires decides
 *   seed=N  shuffle  trace  plant=NAME
 * Points: an operation's public name ("write_at", also of its steps: the flush of a durable write
 * is "sync_data"); "*" for every operation; "submit" (the backend has no room now); "alloc", "map",
 * "thread"; "sys.NAME" (a system call of ours) and "ring.NAME" (one of liburing's); a trailing *
 * stands for anything.
 * Keys: nth=N (default 1), count=N (from there on; default 1), ever, p=0.01 (instead of nth),
 * path=TEXT (only where the path holds it), and what happens, one of
 *   errno=NAME            before: the kernel never sees it
 *   errno=NAME:when=after done, but reported as failed
 *   short, short=N        the request is cut to N bytes (or at random) before it is submitted
 *   lie                   reported as done, but never done
 *   delay=MS              a worker thread waits first; late=N: arrives N reaps later
 * A completion is never made up for an operation that the kernel or a worker still holds.
 *
 * Buffers are quarantined: each lies between two guard pages; freed ones are filled with a pattern
 * and stay mapped for two seconds. The kernel writes past protection and unseen by sanitizers, but
 * not unseen by the pattern. */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backend.h"
#include "os.h"

#define WRAP(type, name, params) \
    type __real_##name params;   \
    type __wrap_##name params;   \
    type __wrap_##name params

/* ---- the plan ------------------------------------------------------------------------------- */

enum { RULES_MAX = 32, MARKS_MAX = 8192, BACKENDS_MAX = 8, SHORT_AT_RANDOM = -2 };

struct rule {
    char point[40], path[160];
    uint64_t nth, count, seen, fired;
    double p;
    int64_t short_bytes; /* 0: not short */
    int error, after, lie, delay_ms, late;
};

static struct {
    pthread_mutex_t lock;
    struct rule rules[RULES_MAX];
    unsigned rule_count;
    uint64_t random, injected;
    char last[40]; /* where a rule fired last */
    int shuffle, trace;
    enum {
        PLANT_NOTHING,
        PLANT_FREE_AT_CANCEL,
        PLANT_TWICE,
        PLANT_RETRY_SYNC,
        PLANT_LATE_RESULT
    } plant;
} plan = {.lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t next_random(void) {
    plan.random ^= plan.random << 13;
    plan.random ^= plan.random >> 7;
    plan.random ^= plan.random << 17;
    return plan.random;
}

static int errno_of_name(const char *name) {
    for (int e = 1; e < 200; e++) {
        const char *known = jdb_errno_name(e);
        if (known && strcmp(known, name) == 0) return e;
    }
    return 0;
}

static int parse_key(struct rule *r, char *key) {
    char *value = strchr(key, '=');
    if (value) *value++ = 0;
    else value = key + strlen(key);
    if (strcmp(key, "nth") == 0) r->nth = strtoull(value, NULL, 10);
    else if (strcmp(key, "count") == 0) r->count = strtoull(value, NULL, 10);
    else if (strcmp(key, "ever") == 0) r->count = UINT64_MAX / 2;
    else if (strcmp(key, "p") == 0) r->p = atof(value);
    else if (strcmp(key, "path") == 0) snprintf(r->path, sizeof r->path, "%s", value);
    else if (strcmp(key, "errno") == 0) r->error = errno_of_name(value);
    else if (strcmp(key, "when") == 0) r->after = strcmp(value, "after") == 0;
    else if (strcmp(key, "short") == 0) r->short_bytes = *value ? atoll(value) : SHORT_AT_RANDOM;
    else if (strcmp(key, "lie") == 0) r->lie = 1;
    else if (strcmp(key, "delay") == 0) r->delay_ms = atoi(value);
    else if (strcmp(key, "late") == 0) r->late = atoi(value);
    else return -1;
    return 0;
}

static int parse_word(char *word) {
    static const char *const plants[] = {"nothing", "free_at_cancel", "twice", "retry_sync",
                                         "late_result"};
    if (strncmp(word, "seed=", 5) == 0) {
        plan.random = strtoull(word + 5, NULL, 10) * 2685821657736338717u + 88172645463325252u;
        return 0;
    }
    if (strcmp(word, "shuffle") == 0) return plan.shuffle = 1, 0;
    if (strcmp(word, "trace") == 0) return plan.trace = 1, 0;
    if (strncmp(word, "plant=", 6) == 0) {
        for (unsigned i = 0; i < sizeof plants / sizeof *plants; i++)
            if (strcmp(plants[i], word + 6) == 0) return plan.plant = i, 0;
        return -1;
    }
    if (plan.rule_count == RULES_MAX) return -1;
    struct rule *r = &plan.rules[plan.rule_count];
    memset(r, 0, sizeof *r);
    r->nth = r->count = 1;
    char *save = NULL, *key = strtok_r(word, ":", &save);
    snprintf(r->point, sizeof r->point, "%s", key);
    while ((key = strtok_r(NULL, ":", &save)))
        if (parse_key(r, key) != 0) return -1;
    if (!r->error && !r->short_bytes && !r->lie && !r->delay_ms && !r->late &&
        strcmp(r->point, "submit") != 0 && strcmp(r->point, "alloc") != 0 &&
        strcmp(r->point, "map") != 0)
        return -1;
    plan.rule_count++;
    return 0;
}

int jdb_faults_plan(const char *text) {
    char copy[2048], *save = NULL;
    int r = 0;
    snprintf(copy, sizeof copy, "%s", text ? text : "");
    pthread_mutex_lock(&plan.lock);
    plan.rule_count = 0;
    plan.injected = 0;
    plan.last[0] = 0;
    plan.shuffle = plan.trace = 0;
    plan.plant = PLANT_NOTHING;
    plan.random = 88172645463325252u;
    for (char *word = strtok_r(copy, ";", &save); word && r == 0; word = strtok_r(NULL, ";", &save))
        r = parse_word(word);
    if (r != 0) plan.rule_count = 0;
    pthread_mutex_unlock(&plan.lock);
    return r;
}

void jdb_faults_suspend(void) {
    pthread_mutex_lock(&plan.lock);
    plan.rule_count = 0;
    pthread_mutex_unlock(&plan.lock);
}

uint64_t jdb_faults_injected(void) {
    pthread_mutex_lock(&plan.lock);
    uint64_t n = plan.injected;
    pthread_mutex_unlock(&plan.lock);
    return n;
}

const char *jdb_faults_last(void) { return plan.last; }

int jdb_faults_rule(unsigned i, uint64_t *seen, uint64_t *fired) {
    pthread_mutex_lock(&plan.lock);
    int there = i < plan.rule_count;
    if (there) {
        *seen = plan.rules[i].seen;
        *fired = plan.rules[i].fired;
    }
    pthread_mutex_unlock(&plan.lock);
    return there;
}

static int matches(const struct rule *r, const char *point, const char *path, int is_op) {
    size_t n = strlen(r->point);
    if (r->path[0] && (!path || !strstr(path, r->path))) return 0;
    if (strcmp(r->point, "*") == 0) return is_op;
    if (r->point[n - 1] == '*') return strncmp(r->point, point, n - 1) == 0;
    return strcmp(r->point, point) == 0;
}

/* What happens here, if anything; every matching rule counts the event. */
static int decide(const char *point, const char *path, int is_op, struct rule *what) {
    int hit = 0;
    if (!plan.rule_count) return 0;
    pthread_mutex_lock(&plan.lock);
    for (unsigned i = 0; i < plan.rule_count; i++) {
        struct rule *r = &plan.rules[i];
        if (!matches(r, point, path, is_op)) continue;
        r->seen++;
        int fires = r->p > 0 ? (double)(next_random() >> 11) / 9007199254740992.0 < r->p
                             : r->seen >= r->nth && r->seen - r->nth < r->count;
        if (!fires || hit) continue;
        hit = 1;
        r->fired++;
        plan.injected++;
        snprintf(plan.last, sizeof plan.last, "%s", point);
        *what = *r;
    }
    pthread_mutex_unlock(&plan.lock);
    return hit;
}

/* ---- what happened, for the specs ----------------------------------------------------------- */

enum { TRACE_MAX = 1 << 22 };
static char trace_text[TRACE_MAX];
static size_t trace_used;

static const char *path_of(const jdb_op *op) {
    return op->file ? op->file->path : op->detail && op->detail->path ? op->detail->path : "";
}

static void trace(const char *event, const jdb_op *op, int64_t result) {
    if (!plan.trace) return;
    pthread_mutex_lock(&plan.lock);
    int transfer = op->step == JDB_READ || op->step == JDB_WRITE;
    int n = snprintf(trace_text + trace_used, TRACE_MAX - trace_used,
                     "%s %s %llu %llu %lld %s %s\n", event, jdb_code_name((jdb_code)op->step),
                     (unsigned long long)(transfer ? op->off + op->moved : op->off),
                     (unsigned long long)(transfer ? op->chunk : op->len), (long long)result,
                     op->rw & JDB_RW_DSYNC || (op->file && op->file->info.dsync) ? "d" : "-",
                     path_of(op));
    if (n > 0 && trace_used + (size_t)n < TRACE_MAX) trace_used += (size_t)n;
    pthread_mutex_unlock(&plan.lock);
}

size_t jdb_faults_trace(const char **text) {
    size_t n = trace_used;
    *text = trace_text;
    trace_used = 0;
    return n;
}

/* ---- quarantine ----------------------------------------------------------------------------- */

enum { HISTORY = 8, PATTERN = 0xdb, BUCKETS = 1024 };
static const int64_t hold_ns = 2000000000;
static const size_t hold_bytes = (size_t)256 << 20;

struct region {
    struct region *next; /* in its bucket, or in quarantine */
    uint8_t *memory;
    size_t size;
    int64_t made, freed;
    pid_t owner;
    unsigned events;
    char history[HISTORY][80];
};

static struct {
    pthread_mutex_t lock;
    struct region *live[BUCKETS], *first, *last;
    size_t held;
    uint64_t checked;
} quarantine = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct region **bucket_of(const void *memory) {
    return &quarantine.live[((uintptr_t)memory >> 12) % BUCKETS];
}

static struct region *find_region(const void *memory) {
    struct region *r = *bucket_of(memory);
    while (r && r->memory != memory) r = r->next;
    return r;
}

static void note(const char *event, const jdb_op *op, int64_t result) {
    if (!op->buf) return;
    pthread_mutex_lock(&quarantine.lock);
    struct region *r = find_region(op->buf->map);
    if (r)
        snprintf(r->history[r->events++ % HISTORY], sizeof r->history[0],
                 "%s %s, file offset %llu, %u bytes at %llu: %lld", event,
                 jdb_code_name((jdb_code)op->step), (unsigned long long)(op->off + op->moved),
                 (unsigned)op->chunk, (unsigned long long)(op->buf_off + op->moved),
                 (long long)result);
    pthread_mutex_unlock(&quarantine.lock);
}

static void check_region(const struct region *r) {
    size_t i = 0;
    if (r->owner != getpid()) return;
    quarantine.checked++;
    while (i < r->size && r->memory[i] == PATTERN) i++;
    if (i == r->size) return;
    fprintf(stderr,
            "jdbfs quarantine: a freed buffer of %zu bytes was written to, first at byte %zu; "
            "made %.3f s and freed %.3f s ago\n",
            r->size, i, (double)(jdb_os_now() - r->made) / 1e9,
            (double)(jdb_os_now() - r->freed) / 1e9);
    unsigned from = r->events > HISTORY ? r->events - HISTORY : 0;
    for (unsigned k = from; k < r->events; k++)
        fprintf(stderr, "  %u: %s\n", k + 1, r->history[k % HISTORY]);
    abort();
}

void *__real_calloc(size_t count, size_t size);
void __real_free(void *memory);

/* Those that are old enough, or that are too many. */
static void let_go(int all) {
    int64_t now = jdb_os_now();
    size_t page = jdb_os_page_size();
    while (quarantine.first) {
        struct region *r = quarantine.first;
        if (!all && now - r->freed < hold_ns && quarantine.held < hold_bytes) return;
        check_region(r);
        if (r->owner == getpid()) munmap(r->memory - page, r->size + 2 * page);
        quarantine.held -= r->size;
        quarantine.first = r->next;
        if (!r->next) quarantine.last = NULL;
        __real_free(r);
    }
}

uint64_t jdb_faults_check_quarantine(void) {
    pthread_mutex_lock(&quarantine.lock);
    for (struct region *r = quarantine.first; r; r = r->next) check_region(r);
    uint64_t n = quarantine.checked;
    pthread_mutex_unlock(&quarantine.lock);
    return n;
}

__attribute__((destructor)) static void check_at_exit(void) { jdb_faults_check_quarantine(); }

/* Fills the memory and keeps it: nobody may write here any more. */
static void lock_away(struct region *r) {
    struct region **link = bucket_of(r->memory);
    while (*link != r) link = &(*link)->next;
    *link = r->next;
    memset(r->memory, PATTERN, r->size);
    r->freed = jdb_os_now();
    r->next = NULL;
    if (quarantine.last) quarantine.last->next = r;
    else quarantine.first = r;
    quarantine.last = r;
    quarantine.held += r->size;
    let_go(0);
}

/* `size` is a multiple of a page. */
WRAP(void *, jdb_os_map, (size_t size)) {
    struct rule what;
    size_t page = jdb_os_page_size();
    if (decide("map", NULL, 0, &what)) return NULL;
    if (size > SIZE_MAX / 2) return __real_jdb_os_map(size);
    struct region *r = __real_calloc(1, sizeof *r);
    uint8_t *map =
        mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!r || map == MAP_FAILED || mprotect(map + page, size, PROT_READ | PROT_WRITE) != 0) {
        if (map != MAP_FAILED) munmap(map, size + 2 * page);
        __real_free(r);
        return NULL;
    }
    madvise(map, size + 2 * page, MADV_DONTFORK);
    r->memory = map + page;
    r->size = size;
    r->made = jdb_os_now();
    r->owner = getpid();
    pthread_mutex_lock(&quarantine.lock);
    struct region **bucket = bucket_of(r->memory);
    r->next = *bucket;
    *bucket = r;
    pthread_mutex_unlock(&quarantine.lock);
    return r->memory;
}

WRAP(void, jdb_os_unmap, (void *map, size_t size)) {
    pthread_mutex_lock(&quarantine.lock);
    struct region *r = find_region(map);
    if (r && r->size == size) lock_away(r);
    else if (plan.plant != PLANT_FREE_AT_CANCEL) __real_jdb_os_unmap(map, size);
    pthread_mutex_unlock(&quarantine.lock);
}

/* ---- operations ----------------------------------------------------------------------------- */

/* What is to be done to the result of an operation that was handed over. */
static struct mark {
    jdb_op *op;
    int error, delay_ms, late;
    int64_t most; /* the result is cut to this; 0: no */
} marks[MARKS_MAX];

static struct late {
    jdb_queue *queue;
    jdb_op *op;
    int64_t result;
    int left;
} late[MARKS_MAX];
static unsigned late_count;

static unsigned mark_count;

static void add_mark(jdb_op *op, struct mark mark) {
    pthread_mutex_lock(&plan.lock);
    assert(mark_count < MARKS_MAX);
    mark.op = op;
    marks[mark_count++] = mark;
    pthread_mutex_unlock(&plan.lock);
}

static struct mark find_mark(const jdb_op *op, int take) {
    struct mark found = {0};
    pthread_mutex_lock(&plan.lock);
    for (unsigned i = 0; i < mark_count; i++) {
        if (marks[i].op != op) continue;
        found = marks[i];
        if (take) marks[i] = marks[--mark_count];
        break;
    }
    pthread_mutex_unlock(&plan.lock);
    return found;
}

/* Cut before it is submitted, so that the rest is really not there. A cut that direct I/O would
 * refuse is made in the result instead. */
static void shorten(jdb_op *op, int64_t bytes) {
    uint64_t align = op->step == JDB_READ ? op->file->read_align : op->file->write_align;
    if (op->step != JDB_READ && op->step != JDB_WRITE) return;
    if (bytes == SHORT_AT_RANDOM) {
        pthread_mutex_lock(&plan.lock);
        bytes = (int64_t)(next_random() % op->chunk / align * align);
        pthread_mutex_unlock(&plan.lock);
    }
    if (bytes <= 0 || (uint64_t)bytes >= op->chunk) return;
    if ((uint64_t)bytes % align) add_mark(op, (struct mark){.most = bytes});
    else op->chunk = (uint32_t)bytes;
}

void __real_jdb_arrive(jdb_queue *queue, jdb_op *op, int64_t result);

/* 1: the operation has its result already and is not handed over. */
static int intercept(jdb_queue *q, jdb_op *op) {
    struct rule what;
    if (!decide(jdb_code_name((jdb_code)op->step), path_of(op), 1, &what)) {
        trace("start", op, 0);
        return 0;
    }
    /* The system lets a descriptor go whatever it says. */
    if (op->step == JDB_CLOSE) what.after = 1;
    int sync = op->step == JDB_SYNC_ALL || op->step == JDB_SYNC_DATA;
    if (what.error && sync && plan.plant == PLANT_RETRY_SYNC) {
        trace("refuse", op, -what.error);
    } else if ((what.error && !what.after) || what.lie) {
        int64_t result = what.error                                      ? -what.error
                         : op->step == JDB_READ || op->step == JDB_WRITE ? (int64_t)op->chunk
                                                                         : 0;
        trace(what.error ? "refuse" : "lie", op, result);
        __real_jdb_arrive(q, op, result);
        return 1;
    } else if (what.short_bytes) {
        shorten(op, what.short_bytes);
    } else {
        add_mark(op, (struct mark){.error = what.after ? what.error : 0,
                                   .delay_ms = what.delay_ms,
                                   .late = what.late});
    }
    trace("start", op, 0);
    return 0;
}

WRAP(void, jdb_pool_submit, (jdb_queue * q, jdb_op *op)) {
    note("handed over", op, 0);
    if (!intercept(q, op)) __real_jdb_pool_submit(q, op);
    else q->pool_inflight--;
}

WRAP(void, jdb_pool_perform, (jdb_queue * q, jdb_op *op)) {
    note("performed", op, 0);
    if (!intercept(q, op)) __real_jdb_pool_perform(q, op);
}

static jdb_op *stale; /* arrived once: nothing may be written to it */

WRAP(int64_t, jdb_os_perform, (jdb_op * op)) {
    struct mark m = find_mark(op, 0);
    if (m.delay_ms) usleep((useconds_t)m.delay_ms * 1000);
    if (plan.plant == PLANT_LATE_RESULT && stale && stale != op && stale->state == JDB_IDLE)
        stale->result = 1;
    return __real_jdb_os_perform(op);
}

WRAP(void, jdb_arrive, (jdb_queue * q, jdb_op *op, int64_t result)) {
    struct mark m = find_mark(op, 1);
    trace("end", op, result);
    note("completed", op, result);
    if (m.error && result >= 0) result = -m.error;
    if (m.most && result > m.most) result = m.most;
    if (m.late) {
        pthread_mutex_lock(&plan.lock);
        assert(late_count < MARKS_MAX);
        late[late_count++] = (struct late){q, op, result, m.late};
        pthread_mutex_unlock(&plan.lock);
        jdb_os_notify_signal(q->notify); /* a wait for what came already must end */
        return;
    }
    __real_jdb_arrive(q, op, result);
    if (!stale) stale = op;
    if (plan.plant == PLANT_TWICE) __real_jdb_arrive(q, op, result);
}

/* A mistake on purpose: the memory is given back with the waiter, not with the completion. */
WRAP(void, jdb_op_abandon, (jdb_queue * q, jdb_op *op)) {
    if (plan.plant == PLANT_FREE_AT_CANCEL && op->state == JDB_INFLIGHT && op->buf) {
        pthread_mutex_lock(&quarantine.lock);
        struct region *r = find_region(op->buf->map);
        if (r) lock_away(r);
        pthread_mutex_unlock(&quarantine.lock);
    }
    __real_jdb_op_abandon(q, op);
}

/* ---- the backends --------------------------------------------------------------------------- */

extern const struct jdb_backend *const __real_jdb_backends[];
extern const struct jdb_backend *__wrap_jdb_backends[];
const struct jdb_backend *__wrap_jdb_backends[BACKENDS_MAX + 1];
static struct jdb_backend wrapped[BACKENDS_MAX];

static const struct jdb_backend *real_of(const jdb_queue *q) {
    return __real_jdb_backends[q->backend - wrapped];
}

static int late_of(const jdb_queue *q) {
    int n = 0;
    pthread_mutex_lock(&plan.lock);
    for (unsigned i = 0; i < late_count; i++) n += late[i].queue == q;
    pthread_mutex_unlock(&plan.lock);
    return n;
}

static void deliver_late(jdb_queue *q) {
    pthread_mutex_lock(&plan.lock);
    for (unsigned i = 0; i < late_count;) {
        if (late[i].queue != q || --late[i].left > 0) {
            i++;
            continue;
        }
        __real_jdb_arrive(q, late[i].op, late[i].result);
        late[i] = late[--late_count];
    }
    pthread_mutex_unlock(&plan.lock);
}

static void shuffle_arrived(jdb_queue *q) {
    jdb_op *ops[JDB_DEPTH_MAX];
    unsigned n = 0;
    pthread_mutex_lock(&plan.lock);
    while (n < JDB_DEPTH_MAX && q->arrived.head) ops[n++] = jdb_list_pop(&q->arrived);
    for (unsigned i = n; i > 1; i--) {
        unsigned k = (unsigned)(next_random() % i);
        jdb_op *op = ops[k];
        ops[k] = ops[i - 1];
        ops[i - 1] = op;
    }
    for (unsigned i = 0; i < n; i++) jdb_list_push(&q->arrived, ops[i]);
    pthread_mutex_unlock(&plan.lock);
}

static int faulty_open(jdb_queue *q) { return real_of(q)->open(q); }
static void faulty_close(jdb_queue *q) { real_of(q)->close(q); }
static int faulty_pollfd(jdb_queue *q) { return real_of(q)->pollfd(q); }
static void faulty_signal(jdb_queue *q) { real_of(q)->signal(q); }

static void faulty_forget(jdb_queue *q, jdb_file *file) {
    if (real_of(q)->forget) real_of(q)->forget(q, file);
}

static int faulty_submit(jdb_queue *q, jdb_op *op) {
    struct rule what;
    if (decide("submit", path_of(op), 0, &what)) return -EAGAIN;
    note("handed over", op, 0);
    return intercept(q, op) ? 0 : real_of(q)->submit(q, op);
}

static void faulty_flush(jdb_queue *q) {
    real_of(q)->flush(q);
    /* Nothing will announce what was kept back here. */
    if (late_of(q) || (q->pending.head && q->inflight == 0)) real_of(q)->signal(q);
}

static void faulty_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    int waits = late_of(q);
    if (waits && (timeout_ns < 0 || timeout_ns > 100000)) timeout_ns = 100000;
    real_of(q)->reap(q, want, timeout_ns);
    if (waits) deliver_late(q);
    if (plan.shuffle) shuffle_arrived(q);
}

__attribute__((constructor)) static void wrap_backends(void) {
    for (unsigned i = 0; i < BACKENDS_MAX && __real_jdb_backends[i]; i++) {
        wrapped[i] = (struct jdb_backend){
            .name = __real_jdb_backends[i]->name,
            .open = faulty_open,
            .close = faulty_close,
            .submit = faulty_submit,
            .flush = faulty_flush,
            .reap = faulty_reap,
            .pollfd = faulty_pollfd,
            .signal = faulty_signal,
            .forget = faulty_forget,
        };
        __wrap_jdb_backends[i] = &wrapped[i];
    }
    const char *text = getenv("JDBFS_FAULTS");
    if (text && jdb_faults_plan(text) != 0) {
        fprintf(stderr, "JDBFS_FAULTS is no plan: %s\n", text);
        abort();
    }
}

/* ---- memory and threads --------------------------------------------------------------------- */

static atomic_long pieces;

uint64_t jdb_faults_pieces(void) { return (uint64_t)atomic_load(&pieces); }

static int no_memory(void) {
    struct rule what;
    if (!decide("alloc", NULL, 0, &what)) return 0;
    errno = ENOMEM;
    return 1;
}

static void *counted(void *memory) {
    if (memory) atomic_fetch_add(&pieces, 1);
    return memory;
}

WRAP(void *, malloc, (size_t size)) { return no_memory() ? NULL : counted(__real_malloc(size)); }

WRAP(void *, calloc, (size_t count, size_t size)) {
    return no_memory() ? NULL : counted(__real_calloc(count, size));
}

WRAP(void *, realloc, (void *old, size_t size)) {
    if (no_memory()) return NULL;
    void *grown = __real_realloc(old, size);
    return old ? grown : counted(grown);
}

WRAP(void, free, (void *memory)) {
    if (memory) atomic_fetch_sub(&pieces, 1);
    __real_free(memory);
}

WRAP(char *, strdup, (const char *text)) {
    return no_memory() ? NULL : counted(__real_strdup(text));
}

WRAP(ssize_t, __getdelim, (char **line, size_t *size, int end, FILE *file)) {
    int had = *line != NULL;
    if (no_memory()) return -1;
    ssize_t n = __real___getdelim(line, size, end, file);
    if (!had && *line) atomic_fetch_add(&pieces, 1);
    return n;
}

WRAP(ssize_t, getline, (char **line, size_t *size, FILE *file)) {
    return __wrap___getdelim(line, size, '\n', file);
}

WRAP(int, pthread_create,
     (pthread_t * thread, const pthread_attr_t *attributes, void *(*work)(void *),
      void *argument)) {
    struct rule what;
    if (decide("thread", NULL, 0, &what)) return what.error ? what.error : EAGAIN;
    return __real_pthread_create(thread, attributes, work, argument);
}

/* ---- liburing: it returns -errno ------------------------------------------------------------ */

static int ring(const char *point) {
    struct rule what;
    return decide(point, NULL, 0, &what) ? -what.error : 0;
}

WRAP(int, io_uring_queue_init_params,
     (unsigned entries, struct io_uring *u, struct io_uring_params *p)) {
    int r = ring("ring.setup");
    if (r == 0) r = __real_io_uring_queue_init_params(entries, u, p);
    /* As from a kernel that is older: nothing is done otherwise, but it does not say so. */
    if (r == 0 && ring("ring.features")) p->features = u->features = 0;
    return r;
}

WRAP(int, io_uring_register_probe, (struct io_uring * u, struct io_uring_probe *p, unsigned n)) {
    int r = ring("ring.probe");
    return r ? r : __real_io_uring_register_probe(u, p, n);
}

WRAP(int, io_uring_register_eventfd, (struct io_uring * u, int fd)) {
    int r = ring("ring.eventfd");
    return r ? r : __real_io_uring_register_eventfd(u, fd);
}

WRAP(int, io_uring_enter2,
     (unsigned fd, unsigned submit, unsigned want, unsigned flags, sigset_t *mask, size_t size)) {
    int r = ring("ring.enter");
    return r ? r : __real_io_uring_enter2(fd, submit, want, flags, mask, size);
}

WRAP(int, io_uring_submit_and_wait_timeout,
     (struct io_uring * u, struct io_uring_cqe **cqe, unsigned want,
      struct __kernel_timespec *limit, sigset_t *mask)) {
    int r = ring("ring.enter");
    return r ? r : __real_io_uring_submit_and_wait_timeout(u, cqe, want, limit, mask);
}

WRAP(int, io_uring_wait_cqe_timeout,
     (struct io_uring * u, struct io_uring_cqe **cqe, struct __kernel_timespec *limit)) {
    int r = ring("ring.wait");
    return r ? r : __real_io_uring_wait_cqe_timeout(u, cqe, limit);
}

/* ---- system calls --------------------------------------------------------------------------- */

/* The error to report, and whether the call is made all the same. */
static int fault_of(const char *point, int *after) {
    struct rule what;
    *after = 0;
    if (!decide(point, NULL, 0, &what)) return 0;
    *after = what.after;
    return what.error;
}

/* When the plan says so the call fails, with its work done or not. */
#define CALL(type, name, failed, call)                \
    int after, error = fault_of("sys." name, &after); \
    if (error && !after) {                            \
        errno = error;                                \
        return failed;                                \
    }                                                 \
    type result = call;                               \
    if (error) {                                      \
        errno = error;                                \
        return failed;                                \
    }                                                 \
    return result

/* A descriptor that the caller never gets is closed again: the system leaks none either. */
#define CALL_FD(name, call)                           \
    int after, error = fault_of("sys." name, &after); \
    int fd = error && !after ? -1 : (call);           \
    if (!error) return fd;                            \
    if (fd >= 0) __real_close(fd);                    \
    errno = error;                                    \
    return -1

static unsigned mode_argument(int flags, va_list rest) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, unsigned) : 0;
}

int __real_close(int fd);

WRAP(int, open, (const char *path, int flags, ...)) {
    va_list rest;
    va_start(rest, flags);
    unsigned mode = mode_argument(flags, rest);
    va_end(rest);
    CALL_FD("open", __real_open(path, flags, mode));
}

WRAP(int, openat, (int dir, const char *path, int flags, ...)) {
    va_list rest;
    va_start(rest, flags);
    unsigned mode = mode_argument(flags, rest);
    va_end(rest);
    CALL_FD("openat", __real_openat(dir, path, flags, mode));
}

/* The descriptor is gone whatever close says. */
WRAP(int, close, (int fd)) {
    int after, error = fault_of("sys.close", &after);
    int r = __real_close(fd);
    if (!error) return r;
    errno = error;
    return -1;
}

WRAP(int, eventfd, (unsigned count, int flags)) {
    CALL_FD("eventfd", __real_eventfd(count, flags));
}

WRAP(FILE *, fopen, (const char *path, const char *mode)) {
    int after, error = fault_of("sys.fopen", &after);
    errno = error;
    return error ? NULL : __real_fopen(path, mode);
}

int __real_closedir(DIR *dir);

WRAP(DIR *, opendir, (const char *path)) {
    int after, error = fault_of("sys.opendir", &after);
    errno = error;
    return error ? NULL : __real_opendir(path);
}

WRAP(int, closedir, (DIR * dir)) { return __real_closedir(dir); }

WRAP(struct dirent *, readdir, (DIR * dir)) {
    CALL(struct dirent *, "readdir", NULL, __real_readdir(dir));
}

WRAP(int, fstat, (int fd, struct stat *st)) { CALL(int, "fstat", -1, __real_fstat(fd, st)); }

WRAP(int, stat, (const char *path, struct stat *st)) {
    CALL(int, "stat", -1, __real_stat(path, st));
}

WRAP(int, lstat, (const char *path, struct stat *st)) {
    CALL(int, "lstat", -1, __real_lstat(path, st));
}

WRAP(int, fstatat, (int dir, const char *path, struct stat *st, int flags)) {
    CALL(int, "fstatat", -1, __real_fstatat(dir, path, st, flags));
}

WRAP(int, fstatfs, (int fd, struct statfs *fs)) {
    CALL(int, "fstatfs", -1, __real_fstatfs(fd, fs));
}

WRAP(int, fstatvfs, (int fd, struct statvfs *fs)) {
    CALL(int, "fstatvfs", -1, __real_fstatvfs(fd, fs));
}

WRAP(int, statvfs, (const char *path, struct statvfs *fs)) {
    CALL(int, "statvfs", -1, __real_statvfs(path, fs));
}

WRAP(int, fcntl, (int fd, int command, ...)) {
    va_list rest;
    va_start(rest, command);
    long argument = va_arg(rest, long);
    va_end(rest);
    CALL(int, "fcntl", -1, __real_fcntl(fd, command, argument));
}

WRAP(int, ioctl, (int fd, unsigned long command, ...)) {
    va_list rest;
    va_start(rest, command);
    void *argument = va_arg(rest, void *);
    va_end(rest);
    CALL(int, "ioctl", -1, __real_ioctl(fd, command, argument));
}

/* The calls without a wrapper in the C library: statx, renameat2. */
WRAP(long, syscall, (long number, ...)) {
    long a[5];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 5; i++) a[i] = va_arg(rest, long);
    va_end(rest);
    CALL(long, "syscall", -1, __real_syscall(number, a[0], a[1], a[2], a[3], a[4]));
}

WRAP(ssize_t, pread, (int fd, void *data, size_t size, off_t off)) {
    CALL(ssize_t, "pread", -1, __real_pread(fd, data, size, off));
}

WRAP(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t off)) {
    CALL(ssize_t, "pwrite", -1, __real_pwrite(fd, data, size, off));
}

WRAP(ssize_t, pwritev2, (int fd, const struct iovec *v, int n, off_t off, int flags)) {
    CALL(ssize_t, "pwritev2", -1, __real_pwritev2(fd, v, n, off, flags));
}

/* Eight bytes are a signal between our own threads. A short write of a file is cut beforehand. */
WRAP(ssize_t, write, (int fd, const void *data, size_t size)) {
    struct rule what;
    if (size == 8 || !decide("sys.write", NULL, 0, &what)) return __real_write(fd, data, size);
    if (what.short_bytes > 0 && (size_t)what.short_bytes < size)
        return __real_write(fd, data, (size_t)what.short_bytes);
    if (what.error && !what.after) return errno = what.error, -1;
    ssize_t n = __real_write(fd, data, size);
    return what.error ? (errno = what.error, -1) : n;
}

WRAP(int, ftruncate, (int fd, off_t size)) {
    CALL(int, "ftruncate", -1, __real_ftruncate(fd, size));
}

WRAP(int, fallocate, (int fd, int mode, off_t off, off_t size)) {
    CALL(int, "fallocate", -1, __real_fallocate(fd, mode, off, size));
}

WRAP(int, fsync, (int fd)) { CALL(int, "fsync", -1, __real_fsync(fd)); }
WRAP(int, fdatasync, (int fd)) { CALL(int, "fdatasync", -1, __real_fdatasync(fd)); }
WRAP(int, flock, (int fd, int how)) { CALL(int, "flock", -1, __real_flock(fd, how)); }

WRAP(int, renameat, (int a, const char *from, int b, const char *to)) {
    CALL(int, "renameat", -1, __real_renameat(a, from, b, to));
}

WRAP(int, mkdir, (const char *path, mode_t mode)) {
    CALL(int, "mkdir", -1, __real_mkdir(path, mode));
}
WRAP(int, unlink, (const char *path)) { CALL(int, "unlink", -1, __real_unlink(path)); }

WRAP(int, unlinkat, (int dir, const char *path, int flags)) {
    CALL(int, "unlinkat", -1, __real_unlinkat(dir, path, flags));
}

WRAP(int, fchmod, (int fd, mode_t mode)) { CALL(int, "fchmod", -1, __real_fchmod(fd, mode)); }

WRAP(int, fchown, (int fd, uid_t user, gid_t group)) {
    CALL(int, "fchown", -1, __real_fchown(fd, user, group));
}
