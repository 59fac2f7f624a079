/* fixture.h: queues, files and gates for the C tests. A gate is a file over one end of a pipe:
 * an operation on it stays in flight until the test lets it through. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include <errno.h>
#include <pthread.h>

#include "backend.h"
#include "test.h"

enum { PAGE = 4096 };

/* The test's directory is made once more, on the simulated disk. 0 or -errno. */
static inline int make_simulated_dir(jdb_queue *q) {
    jdb_kind kind;
    jdb_op *op = jdb_op_take(q, &kind);
    if (!op) return -ENOMEM;
    int error = ENOMEM;
    if (jdb_prep_path(op, JDB_PATH_MKDIR, test_dir(), 0) == 0) {
        jdb_submit(q, op);
        jdb_queue_wait_op(q, op);
        error = jdb_op_kind(op) ? ENOMEM : 0;
    }
    jdb_op_release(q, op);
    memset(&q->stats, 0, sizeof q->stats); /* it is none of the test's */
    return -error;
}

/* NULL: this backend cannot run here, *error tells why. */
static inline jdb_queue *queue_try(const char *backend, uint32_t depth, uint32_t workers,
                                   int *error) {
    jdb_options options = {.backend = backend, .depth = depth, .workers = workers};
    jdb_failure failure;
    jdb_queue *q = NULL;
    *error = jdb_queue_new(&options, &q, &failure);
    if (*error != 0 || strcmp(jdb_queue_backend(q), "sim") != 0) return *error == 0 ? q : NULL;
    *error = make_simulated_dir(q);
    if (*error == 0) return q;
    jdb_queue_close(q);
    jdb_queue_unref(q);
    return NULL;
}

static inline jdb_queue *queue_new(const char *backend, uint32_t depth, uint32_t workers) {
    int error;
    jdb_queue *q = queue_try(backend, depth, workers, &error);
    CHECK_EQ(error, 0);
    CHECK_STR(jdb_queue_backend(q), backend);
    return q;
}

static inline void queue_free(jdb_queue *q) {
    jdb_queue_close(q);
    jdb_queue_unref(q);
}

static inline jdb_op *take(jdb_queue *q) {
    jdb_kind kind;
    jdb_op *op = jdb_op_take(q, &kind);
    CHECK_EQ(kind, JDB_OK);
    CHECK(op);
    return op;
}

/* Submits what was prepared; it must be acceptable. */
static inline jdb_op *submit(jdb_queue *q, jdb_op *op) {
    CHECK_EQ(jdb_op_check(op), JDB_OK);
    jdb_submit(q, op);
    return op;
}

/* The operation's result, which must be of this kind. */
static inline int64_t done(jdb_queue *q, jdb_op *op, jdb_kind kind) {
    CHECK_EQ(jdb_op_kind(op), kind);
    int64_t result = jdb_op_result(op);
    jdb_op_release(q, op);
    return result;
}

static inline int64_t run(jdb_queue *q, jdb_op *op, jdb_kind kind) {
    submit(q, op);
    jdb_queue_wait_op(q, op);
    return done(q, op, kind);
}

/* The next finished operation; waits for it. */
static inline jdb_op *next(jdb_queue *q) {
    jdb_op *op;
    while (!(op = jdb_queue_next(q))) jdb_queue_reap(q, -1);
    return op;
}

static inline const char *path_of(const char *name) {
    static char text[4][4400];
    static unsigned turn;
    char *path = text[turn++ % 4];
    snprintf(path, sizeof text[0], "%s/%s", test_dir(), name);
    return path;
}

static inline jdb_op *prep_open(jdb_queue *q, const char *path, unsigned flags) {
    jdb_op *op = take(q);
    jdb_open how = {.flags = flags, .mode = 0666, .direct = JDB_DIRECT_PREFER};
    CHECK_EQ(jdb_prep_open(q, op, path, &how), 0);
    return op;
}

static inline jdb_file *open_file(jdb_queue *q, const char *path, unsigned flags) {
    jdb_op *op = submit(q, prep_open(q, path, flags));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_kind(op), JDB_OK);
    jdb_file *file = jdb_file_ref(jdb_op_file(op));
    jdb_op_release(q, op);
    return file;
}

static inline jdb_file *create_file(jdb_queue *q, const char *name) {
    return open_file(q, path_of(name), JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE);
}

static inline jdb_op *prep_read(jdb_queue *q, jdb_file *f, jdb_buf *b, size_t at, size_t len,
                                uint64_t off) {
    jdb_op *op = take(q);
    jdb_prep_read(op, f, b, at, len, off, 0);
    return op;
}

static inline jdb_op *prep_write(jdb_queue *q, jdb_file *f, jdb_buf *b, size_t at, size_t len,
                                 uint64_t off) {
    jdb_op *op = take(q);
    jdb_prep_write(op, f, b, at, len, off, 0);
    return op;
}

static inline jdb_op *prep_file(jdb_queue *q, jdb_code code, jdb_file *f) {
    jdb_op *op = take(q);
    jdb_prep_file(op, code, f);
    return op;
}

static inline jdb_stats stats(const jdb_queue *q) {
    jdb_stats s;
    jdb_queue_stats(q, &s);
    return s;
}

/* Nothing is alive any more: no buffer, no file. */
static inline void check_nothing_lives(void) {
    uint64_t buffers, files;
    jdb_live(&buffers, &files);
    CHECK_EQ(buffers, 0);
    CHECK_EQ(files, 0);
}

static inline void check_idle(const jdb_queue *q) {
    jdb_stats s = stats(q);
    CHECK_EQ(s.submitted, s.completed);
    CHECK_EQ(s.in_flight, 0);
    CHECK_EQ(s.waiting, 0);
    CHECK_EQ(s.abandoned, 0);
    CHECK_EQ(jdb_queue_pending(q), 0);
}

/* ---- gates ----------------------------------------------------------------------------------- */

struct gate {
    jdb_file *file; /* reads wait on an empty pipe, writes on a full one */
    intptr_t other; /* the test's end */
};

static inline struct gate gate_new(jdb_queue *q, int for_reading) {
    struct gate g;
    g.file = jdb_file_new(q, for_reading ? "reading gate" : "writing gate");
    CHECK(g.file);
    g.file->info.writable = 1;
    gate_open(for_reading, &g.file->handle, &g.other);
    return g;
}

static inline void gate_pass(struct gate *g, size_t bytes) {
    static const char text[PAGE];
    CHECK(bytes <= PAGE);
    CHECK_EQ(gate_write(g->other, text, bytes), bytes);
}

static inline void gate_free(struct gate *g) {
    jdb_file_unref(g->file);
    gate_close(g->other);
}

/* What another thread does after a while. */
struct later {
    pthread_t thread;
    struct gate *gate;
    int64_t after_ns;
};

static inline void *later_run(void *argument) {
    struct later *later = argument;
    jdb_sleep(later->after_ns);
    gate_write(later->gate->other, "", 1); /* the operation may have ended without it */
    return NULL;
}

static inline void later_pass(struct later *later, struct gate *gate, int64_t after_ns) {
    later->gate = gate;
    later->after_ns = after_ns;
    CHECK_EQ(pthread_create(&later->thread, NULL, later_run, later), 0);
}

static inline void later_join(struct later *later) { pthread_join(later->thread, NULL); }

/* ---- the same list for every backend --------------------------------------------------------- */

struct test {
    const char *name;
    void (*run)(const char *backend);
};

struct test_case {
    const struct test *test;
    const char *backend;
};

static inline void run_case(const void *argument) {
    const struct test_case *c = argument;
    c->test->run(c->backend);
    check_nothing_lives();
}

static inline int is_one_of(const char *name, const char *const *list) {
    for (; list && *list; list++)
        if (strcmp(name, *list) == 0) return 1;
    return 0;
}

/* Exit status of a program whose tests every backend must pass alike. A backend that the system
 * refuses is left out and named; threads always work. `system` names those that need gates, links
 * or processes, and are nothing for a simulated disk. */
static inline int run_on_every_backend(const struct test *tests, const char *const *system) {
    static char name[96];
    int error, failures = 0;
    unsetenv("JDBFS_BACKEND");
    test_prepare();
    for (unsigned i = 0; jdb_backend_name(i); i++) {
        const char *backend = jdb_backend_name(i);
        jdb_queue *q = queue_try(backend, 8, 0, &error);
        if (!q) {
            printf("%s: cannot run here: %s\n", backend, strerror(-error));
            CHECK(strcmp(backend, "threads") != 0);
            continue;
        }
        queue_free(q);
        int simulated = strcmp(backend, "sim") == 0;
        for (const struct test *t = tests; t->name; t++) {
            if (simulated && is_one_of(t->name, system)) {
                printf("%s, sim: needs files of the system\n", t->name);
                continue;
            }
            if (is_one_of(t->name, not_here)) {
                printf("%s: %s\n", t->name, not_here_reason);
                continue;
            }
            struct test_case c = {t, backend};
            snprintf(name, sizeof name, "%s, %s", t->name, backend);
            failures += test_apart(name, 120, run_case, &c);
        }
    }
    return failures > 0;
}

#endif
