/* What every backend must do alike, part two: closing, abandoning, waiting, polling, other threads
 * and other processes, with operations in flight. */
#include "fixture.h"
#include "gate_calls.h"

#if !defined(_WIN32)
#include <sys/resource.h>
#endif

static jdb_op *read_gate(jdb_queue *q, struct gate *g, jdb_buf *b, size_t at) {
    return submit(q, prep_read(q, g->file, b, at, 1, 0));
}

/* Looks for a while, and finds nothing. */
static void nothing_comes(jdb_queue *q) {
    for (int i = 0; i < 4; i++) {
        jdb_queue_reap(q, i ? 5000000 : 0);
        CHECK(!jdb_queue_next(q));
    }
}

static jdb_op *expect(jdb_queue *q, jdb_op *op) {
    jdb_op *got = next(q);
    CHECK(got == op);
    return op;
}

/* ---- close -------------------------------------------------------------------------------- */

static void close_waits(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 0);
    CHECK_EQ(jdb_file_closed(g.file), 0);
    jdb_op *end = submit(q, prep_file(q, JDB_CLOSE, g.file));
    CHECK_EQ(jdb_file_closed(g.file), 1);
    CHECK_EQ(jdb_file_size_now(g.file), -EBADF);
    nothing_comes(q);
    jdb_op *late = prep_read(q, g.file, b, 1, 1, 0);
    CHECK_EQ(jdb_op_check(late), JDB_CLOSED);
    jdb_op_release(q, late);
    gate_pass(&g, 1);
    done(q, expect(q, op), JDB_OK);
    done(q, expect(q, end), JDB_OK);
    CHECK(g.file->handle < 0);
    CHECK(gate_is_broken(g.other));
    check_idle(q);
    jdb_buf_unref(b);
    gate_free(&g);
    queue_free(q);
}

static void close_twice(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_op *ends[3];
    for (int i = 0; i < 3; i++) ends[i] = submit(q, prep_file(q, JDB_CLOSE, g.file));
    nothing_comes(q);
    gate_pass(&g, 1);
    done(q, expect(q, op), JDB_OK);
    for (int i = 0; i < 3; i++) {
        jdb_op *end = next(q);
        CHECK(end == ends[0] || end == ends[1] || end == ends[2]);
        done(q, end, JDB_OK);
    }
    CHECK(!jdb_queue_next(q));
    run(q, prep_file(q, JDB_CLOSE, g.file), JDB_OK);
    jdb_buf_unref(b);
    gate_free(&g);
    queue_free(q);
}

/* Without a close: the last reference ends the descriptor, the operation's own included. */
static void let_go_in_flight(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 9);
    jdb_buf_unref(b);
    jdb_file_unref(g.file);
    nothing_comes(q);
    gate_pass(&g, 1);
    expect(q, op);
    CHECK(jdb_op_buf(op) && jdb_op_file(op));
    done(q, op, JDB_OK);
    CHECK(gate_is_broken(g.other));
    gate_close(g.other);
    check_nothing_lives();
    queue_free(q);
}

/* ---- abandon ------------------------------------------------------------------------------ */

static void abandon_pending(const char *backend) {
    jdb_queue *q = queue_new(backend, 1, 4);
    jdb_file *f = create_file(q, "untouched");
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_op *dropped = submit(q, prep_write(q, f, b, PAGE, PAGE, 0));
    jdb_op *after = submit(q, prep_file(q, JDB_SIZE, f));
    CHECK_EQ(stats(q).waiting, 2);
    jdb_op_set_waiter(dropped, q);
    jdb_op_abandon(q, dropped);
    jdb_op_abandon(q, dropped);
    CHECK_EQ(stats(q).abandoned, 1);
    gate_pass(&g, 1);
    done(q, expect(q, op), JDB_OK);
    CHECK_EQ(done(q, expect(q, after), JDB_OK), 0);
    CHECK(!jdb_queue_next(q));
    check_idle(q);
    CHECK(jdb_buf_writable(b, 0, 2 * PAGE));
    run(q, prep_file(q, JDB_CLOSE, f), JDB_OK);
    jdb_buf_unref(b);
    gate_free(&g);
    jdb_file_unref(f);
    queue_free(q);
}

static void abandon_in_flight(const char *backend) {
    uint64_t buffers, files;
    jdb_queue *q = queue_new(backend, 4, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_queue_reap(q, 0);
    jdb_op_abandon(q, op);
    CHECK(!jdb_buf_readable(b, 0, 1));
    CHECK(!jdb_buf_writable(b, 0, 1));
    CHECK(jdb_buf_writable(b, 1, PAGE - 1));
    jdb_buf_unref(b);
    jdb_file_unref(g.file);
    jdb_live(&buffers, &files);
    CHECK_EQ(buffers, 1);
    CHECK_EQ(files, 1);
    if (q->backend->cancel) { /* nothing needs to come for it to end */
        jdb_queue_wait_abandoned(q);
    } else {
        nothing_comes(q);
        jdb_live(&buffers, &files);
        CHECK_EQ(buffers, 1);
        CHECK_EQ(files, 1);
        struct later later;
        later_pass(&later, &g, 20000000);
        jdb_queue_wait_abandoned(q);
        later_join(&later);
    }
    CHECK(!jdb_queue_next(q));
    check_idle(q);
    check_nothing_lives();
    gate_close(g.other);
    queue_free(q);
}

/* One that had already finished, but was not delivered. */
static void abandon_finished(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 4);
    jdb_file *f = create_file(q, "finished");
    jdb_op *a = submit(q, prep_file(q, JDB_SIZE, f)), *b = submit(q, prep_file(q, JDB_SIZE, f));
    while (stats(q).completed != stats(q).submitted) jdb_queue_reap(q, -1);
    jdb_op_set_waiter(a, q);
    jdb_op_abandon(q, a);
    CHECK(!jdb_op_waiter(a));
    jdb_queue_wait_abandoned(q);
    CHECK_EQ(stats(q).abandoned, 0);
    done(q, expect(q, b), JDB_OK);
    CHECK(!jdb_queue_next(q));
    check_idle(q);
    jdb_file_unref(f);
    queue_free(q);
}

static void close_reports(jdb_queue *q, jdb_file *f, int error) {
    jdb_failure failure;
    jdb_op *op = submit(q, prep_file(q, JDB_CLOSE, f));
    jdb_queue_wait_op(q, op);
    jdb_op_failure(op, &failure);
    CHECK_EQ(failure.kind, JDB_IO);
    CHECK_EQ(failure.error, error);
    CHECK_STR(failure.op, "close");
    jdb_op_release(q, op);
    run(q, prep_file(q, JDB_CLOSE, f), JDB_OK);
}

/* The waiter went away, the write failed: close is where it shows, once. */
static void abandoned_error(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 0);
    jdb_op *op = submit(q, prep_write(q, g.file, b, 0, 100, 0));
    jdb_queue_reap(q, 0);
    jdb_op_abandon(q, op);
    nothing_comes(q);
    gate_close(g.other);
    jdb_queue_wait_abandoned(q);
    close_reports(q, g.file, EPIPE);
    jdb_file_unref(g.file);
    jdb_buf_unref(b);
    queue_free(q);
}

/* The same when the failure was already here, and its waiter went before it was told. */
static void abandoned_after_error(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 0);
    gate_close(g.other);
    jdb_op *op = submit(q, prep_write(q, g.file, b, 0, 100, 0));
    while (stats(q).completed != stats(q).submitted) jdb_queue_reap(q, -1);
    CHECK_EQ(jdb_op_kind(op), JDB_IO);
    jdb_op_abandon(q, op);
    jdb_queue_wait_abandoned(q);
    CHECK(!jdb_queue_next(q));
    close_reports(q, g.file, EPIPE);
    jdb_file_unref(g.file);
    jdb_buf_unref(b);
    queue_free(q);
}

/* ---- slots -------------------------------------------------------------------------------- */

static void slots(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 2);
    jdb_file *f = create_file(q, "slots");
    jdb_op *op = take(q);
    uint32_t slot = op->slot, gen = op->gen;
    jdb_op_release(q, op);
    op = take(q);
    CHECK_EQ(op->slot, slot);
    CHECK(op->gen != gen);
    jdb_op_release(q, op);

    /* A finished operation keeps its slot until it is released. */
    jdb_op *held = submit(q, prep_file(q, JDB_SIZE, f));
    slot = held->slot;
    gen = held->gen;
    expect(q, held);
    for (int i = 0; i < 300; i++) {
        op = prep_file(q, JDB_SIZE, f);
        CHECK(op != held && op->slot != slot);
        submit(q, op);
    }
    CHECK_EQ(held->gen, gen);
    for (int i = 0; i < 300; i++) done(q, next(q), JDB_OK);
    done(q, held, JDB_OK);
    uint64_t before = stats(q).slots;
    for (int i = 0; i < 2000; i++) run(q, prep_file(q, JDB_SIZE, f), JDB_OK);
    CHECK_EQ(stats(q).slots, before);
    jdb_file_unref(f);
    queue_free(q);
}

/* ---- waiting and polling -------------------------------------------------------------------- */

static void wait_one(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g[3];
    jdb_op *op[3];
    struct later later;
    int fd = jdb_queue_pollfd(q);
    CHECK(fd >= 0);
    for (int i = 0; i < 3; i++) {
        g[i] = gate_new(q, 1);
        op[i] = read_gate(q, &g[i], b, (size_t)i);
    }
    jdb_queue_reap(q, 0);
    gate_pass(&g[0], 1);
    while (stats(q).completed == 0) jdb_queue_reap(q, -1);
    later_pass(&later, &g[1], 20000000);
    jdb_queue_wait_op(q, op[1]);
    later_join(&later);
    CHECK(readable(fd, 5000)); /* the first one still waits to be delivered */
    done(q, op[1], JDB_OK);
    done(q, expect(q, op[0]), JDB_OK);
    nothing_comes(q);
    gate_pass(&g[2], 1);
    jdb_queue_wait_op(q, op[2]);
    done(q, op[2], JDB_OK);

    /* Waiting for one that is finished already, between two others. */
    jdb_op *zero[3];
    for (int i = 0; i < 3; i++) zero[i] = submit(q, prep_read(q, g[i].file, b, 0, 0, 0));
    jdb_queue_wait_op(q, zero[1]);
    done(q, zero[1], JDB_OK);
    done(q, expect(q, zero[0]), JDB_OK);
    done(q, expect(q, zero[2]), JDB_OK);
    CHECK(!jdb_queue_next(q));
    check_idle(q);
    for (int i = 0; i < 3; i++) gate_free(&g[i]);
    jdb_buf_unref(b);
    queue_free(q);
}

/* A late word about something already delivered costs an idle look (the kernel may pass a wake-up
 * on much later); but a loop around the descriptor must come to rest. */
static void comes_to_rest(jdb_queue *q, int fd) {
    for (int i = 0; i < 5; i++) {
        jdb_queue_reap(q, 0);
        CHECK(!jdb_queue_next(q));
        if (!readable(fd, 30)) return;
    }
    test_fail(__FILE__, __LINE__, "the descriptor stays readable with nothing to say");
}

/* As a host's event loop does it: sleeps on the descriptor, looks, delivers. */
static jdb_op *polled(jdb_queue *q, int fd) {
    jdb_op *op;
    for (int i = 0; i < 10; i++) {
        if (!readable(fd, 30000)) test_fail(__FILE__, __LINE__, "the descriptor stays silent");
        jdb_queue_reap(q, 0);
        if ((op = jdb_queue_next(q))) return op;
        jdb_queue_flush(q);
    }
    test_fail(__FILE__, __LINE__, "the descriptor is readable, but nothing comes");
    return NULL;
}

/* A queue for each: of what a wait queue wakes, as a pipe's, Linux 6.12 tells an eventfd the first
 * and then no more. Disks complete otherwise. */
static void polling_gate(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    int fd = jdb_queue_pollfd(q);
    CHECK(fd >= 0);
    CHECK_EQ(jdb_queue_pollfd(q), fd);
    comes_to_rest(q, fd);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_queue_flush(q);
    CHECK(!readable(fd, 20));
    gate_pass(&g, 1);
    CHECK(polled(q, fd) == op);
    done(q, op, JDB_OK);
    comes_to_rest(q, fd);
    jdb_buf_unref(b);
    gate_free(&g);
    queue_free(q);
}

static void polling(const char *backend) {
    for (int i = 0; i < 5; i++) polling_gate(backend);
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = create_file(q, "polled");
    jdb_buf *b = jdb_buf_new(64 * PAGE, PAGE);
    int fd = jdb_queue_pollfd(q);
    run(q, prep_write(q, f, b, 0, 64 * PAGE, 0), JDB_OK);
    jdb_queue_reap(q, 0);
    for (int i = 0; i < 64; i++) /* far more than the queue holds, half of them for the pool */
        submit(q, i % 2 ? prep_file(q, JDB_SIZE, f)
                        : prep_read(q, f, b, (size_t)i * PAGE, PAGE, (uint64_t)i * PAGE));
    jdb_queue_flush(q);
    for (int left = 64; left > 0;) {
        jdb_op *op = polled(q, fd);
        do {
            done(q, op, JDB_OK);
            left--;
        } while ((op = jdb_queue_next(q)));
        jdb_queue_flush(q);
    }
    comes_to_rest(q, fd);
    jdb_queue_signal(q);
    CHECK(readable(fd, 0));
    comes_to_rest(q, fd);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* An empty transfer is finished by its submission: a polling host must hear of it too. */
static void polling_empty(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = create_file(q, "polled");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    int fd = jdb_queue_pollfd(q);
    comes_to_rest(q, fd);
    jdb_op *op = submit(q, prep_read(q, f, b, 0, 0, 0));
    jdb_queue_flush(q);
    CHECK(polled(q, fd) == op);
    done(q, op, JDB_OK);
    comes_to_rest(q, fd);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* A close behind a dropped operation of its file gets its turn without anything else happening. */
static void polling_close(const char *backend) {
    jdb_queue *q = queue_new(backend, 1, 4);
    jdb_file *f = create_file(q, "polled");
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    int fd = jdb_queue_pollfd(q);
    comes_to_rest(q, fd);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_op_abandon(q, submit(q, prep_write(q, f, b, PAGE, PAGE, 0)));
    jdb_op *end = submit(q, prep_file(q, JDB_CLOSE, f));
    jdb_queue_flush(q);
    gate_pass(&g, 1);
    CHECK(polled(q, fd) == op);
    done(q, op, JDB_OK);
    jdb_queue_flush(q);
    CHECK(polled(q, fd) == end);
    done(q, end, JDB_OK);
    check_idle(q);
    jdb_buf_unref(b);
    gate_free(&g);
    jdb_file_unref(f);
    queue_free(q);
}

/* Waiting for the abandoned ones must not eat the word of the others. */
static void polling_abandoned(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g[2] = {gate_new(q, 1), gate_new(q, 1)};
    struct later later;
    int fd = jdb_queue_pollfd(q);
    comes_to_rest(q, fd);
    jdb_op *kept = read_gate(q, &g[0], b, 0), *lost = read_gate(q, &g[1], b, 1);
    jdb_queue_flush(q);
    jdb_op_abandon(q, lost);
    gate_pass(&g[0], 1);
    later_pass(&later, &g[1], 50000000);
    jdb_queue_wait_abandoned(q);
    later_join(&later);
    CHECK(polled(q, fd) == kept);
    done(q, kept, JDB_OK);
    check_idle(q);
    for (int i = 0; i < 2; i++) gate_free(&g[i]);
    jdb_buf_unref(b);
    queue_free(q);
}

/* Workers finish, the kernel does nothing: the descriptor must tell of each of them, not only of
 * the first (Linux 6.18 loses the others when only the ring's poll of the notifier stands for
 * them). */
static void polling_workers(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = create_file(q, "polled");
    int fd = jdb_queue_pollfd(q);
    comes_to_rest(q, fd);
    for (int i = 0; i < 20; i++) {
        jdb_op *op = submit(q, prep_file(q, JDB_SIZE, f));
        jdb_queue_flush(q);
        CHECK(polled(q, fd) == op);
        done(q, op, JDB_OK);
    }
    comes_to_rest(q, fd);
    jdb_file_unref(f);
    queue_free(q);
}

static void timeouts(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    int64_t start = jdb_now();
    jdb_queue_reap(q, 30000000);
    int64_t took = jdb_now() - start;
    CHECK(took >= 25000000);
    jdb_op *op = read_gate(q, &g, b, 0);
    start = jdb_now();
    jdb_queue_reap(q, 30000000);
    took = jdb_now() - start;
    CHECK(took >= 25000000 && took < 5000000000);
    CHECK(!jdb_queue_next(q));
    gate_pass(&g, 1);
    done(q, expect(q, op), JDB_OK);
    jdb_buf_unref(b);
    gate_free(&g);
    queue_free(q);
}

/* ---- the queue's end ------------------------------------------------------------------------ */

/* An operation that was taken before. */
static void refused_when_closed(jdb_queue *q, jdb_file *f, jdb_op *op) {
    static const jdb_code codes[] = {JDB_SIZE, JDB_SYNC_DATA, JDB_READ_MANY, JDB_CLOSE};
    jdb_failure failure;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        jdb_prep_file(op, codes[i], f);
        CHECK_EQ(jdb_op_check(op), JDB_CLOSED);
    }
    jdb_op_failure(op, &failure);
    CHECK_STR(failure.cause, "the queue is closed");
    jdb_op_release(q, op);
}

static void drain(const char *backend) {
    jdb_queue *q = queue_new(backend, 6, 4);
    jdb_file *f = create_file(q, "drained");
    jdb_buf *b = jdb_buf_new(40 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    struct later later;
    memset(jdb_buf_data(b), 7, 40 * PAGE);
    jdb_op *op = read_gate(q, &g, b, 0);
    for (unsigned i = 1; i < 40; i++)
        submit(q, prep_write(q, f, b, i * PAGE, PAGE, (uint64_t)(i - 1) * PAGE));
    submit(q, prep_open(q, path_of("drained"), 0)); /* a file that nobody will fetch */
    jdb_op *name = take(q);
    CHECK_EQ(jdb_prep_path(name, JDB_PATH_LS, test_dir(), 0), 0);
    submit(q, name);
    submit(q, prep_file(q, JDB_CLOSE, g.file));
    jdb_op_abandon(q, op);
    later_pass(&later, &g, 50000000);
    jdb_buf_unref(b);
    jdb_op *spare = take(q);
    jdb_queue_close(q);
    later_join(&later);
    refused_when_closed(q, f, spare);
    CHECK_EQ(stats(q).in_flight + stats(q).waiting, 0);
    CHECK(!jdb_queue_next(q));

    /* Files outlive the queue, as far as that goes. */
    jdb_kind kind;
    jdb_file_info info;
    CHECK(!jdb_op_take(q, &kind));
    CHECK_EQ(kind, JDB_CLOSED);
    CHECK_EQ(jdb_queue_usable(q), JDB_CLOSED);
    jdb_queue_close(q);
    jdb_queue_reap(q, -1);
    jdb_queue_flush(q);
    jdb_queue_unref(q);
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.writable, 1);
    CHECK_EQ(jdb_file_size_now(f), 39 * PAGE);
    CHECK(strstr(jdb_file_path(f), "drained"));
    jdb_file_unref(f);
    gate_free(&g);
}

/* Unfinished business of every kind, and no close before the last reference goes. */
static void unref_only(const char *backend) {
    jdb_queue *q = queue_new(backend, 3, 2);
    jdb_file *f = create_file(q, "unref");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    for (int i = 0; i < 20; i++) submit(q, prep_write(q, f, b, 0, PAGE, 0));
    jdb_queue_reap(q, -1);
    jdb_op_release(q, take(q));
    jdb_buf_unref(b);
    jdb_file_unref(f); /* the operations hold it, and it holds the queue */
    jdb_queue_close(q);
    jdb_queue_unref(q);
    check_nothing_lives();
}

/* ---- other threads and processes ------------------------------------------------------------ */

static void *use_foreign(void *argument) {
    jdb_queue *q = argument;
    jdb_kind kind;
    CHECK(!jdb_op_take(q, &kind));
    CHECK_EQ(kind, JDB_UNSUPPORTED);
    CHECK_EQ(jdb_queue_usable(q), JDB_UNSUPPORTED);
    jdb_queue_reap(q, -1);
    jdb_queue_flush(q);
    jdb_queue_wait_abandoned(q);
    CHECK_EQ(jdb_queue_pollfd(q), -EPERM);
    return NULL;
}

static const char *thread_backend;

static void *use_own(void *argument) {
    jdb_queue *q = queue_new(thread_backend, 4, 2);
    jdb_file *f = create_file(q, argument);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    for (int i = 0; i < 200; i++) {
        CHECK_EQ(run(q, prep_write(q, f, b, 0, PAGE, (uint64_t)i * PAGE), JDB_OK), PAGE);
        CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, (uint64_t)i * PAGE), JDB_OK), PAGE);
    }
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
    return NULL;
}

static void threads(const char *backend) {
    pthread_t thread, pair[2];
    char names[2][8] = {"t0", "t1"};
    jdb_queue *q = queue_new(backend, 4, 2);
    CHECK_EQ(pthread_create(&thread, NULL, use_foreign, q), 0);
    pthread_join(thread, NULL);
    CHECK_EQ(jdb_queue_usable(q), JDB_OK);
    queue_free(q);
    thread_backend = backend;
    path_of("made before the threads are");
    for (int i = 0; i < 2; i++) {
        CHECK_EQ(pthread_create(&pair[i], NULL, use_own, names[i]), 0);
        if (i == 0) pthread_join(pair[0], NULL); /* path_of is for one thread at a time */
    }
    pthread_join(pair[1], NULL);
}

#if !defined(_WIN32)

static int in_child(const char *backend, jdb_queue *q, jdb_file *f, jdb_buf *b, jdb_op *spare,
                    jdb_op *of_parent) {
    jdb_kind kind;
    CHECK_EQ(jdb_queue_usable(q), JDB_FORKED);
    CHECK(!jdb_op_take(q, &kind));
    CHECK_EQ(kind, JDB_FORKED);
    CHECK(!jdb_buf_data(b));
    CHECK_EQ(jdb_buf_size(b), 2 * PAGE);
    jdb_prep_read(spare, f, b, PAGE, PAGE, 0, 0);
    CHECK_EQ(jdb_op_check(spare), JDB_FORKED);
    jdb_prep_many(spare, JDB_WRITE_MANY, f, 0);
    CHECK_EQ(jdb_op_check(spare), JDB_FORKED);
    jdb_prep_file(spare, JDB_CLOSE, f);
    CHECK_EQ(jdb_op_check(spare), JDB_FORKED);
    jdb_op_release(q, spare);
    jdb_queue_reap(q, -1);
    jdb_queue_flush(q);
    jdb_queue_wait_abandoned(q);
    jdb_queue_wait_op(q, of_parent);
    CHECK_EQ(jdb_op_kind(of_parent), JDB_FORKED);
    CHECK_EQ(jdb_queue_pollfd(q), -EPERM);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    jdb_queue_close(q);
    jdb_queue_unref(q);
#if defined(__SANITIZE_THREAD__)
    (void)backend; /* cannot follow new threads into a child of a process that had some */
#else
    q = queue_new(backend, 4, 2);
    f = create_file(q, "child");
    b = jdb_buf_new(PAGE, PAGE);
    memset(jdb_buf_data(b), 3, PAGE);
    CHECK_EQ(run(q, prep_write(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    memset(jdb_buf_data(b), 0, PAGE);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    CHECK_EQ(((uint8_t *)jdb_buf_data(b))[PAGE - 1], 3);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
#endif
    return 0;
}

static void fork_in_flight(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 4);
    jdb_file *f = create_file(q, "parent");
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = read_gate(q, &g, b, 0);
    jdb_op *finished = submit(q, prep_file(q, JDB_SIZE, f));
    jdb_op *spare = take(q);
    while (stats(q).completed != stats(q).submitted - 1) jdb_queue_reap(q, -1);
    fflush(stdout);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(60);
        gate_close(g.other);
        test_leave(in_child(backend, q, f, b, spare, op));
    }
    int status;
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
    CHECK_EQ(jdb_queue_usable(q), JDB_OK);
    jdb_op_release(q, spare);
    done(q, expect(q, finished), JDB_OK);
    nothing_comes(q);
    gate_pass(&g, 1);
    done(q, expect(q, op), JDB_OK);
    CHECK_EQ(run(q, prep_write(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    check_idle(q);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    gate_free(&g);
    queue_free(q);
}

/* A ring knows its files by numbers, and another ring has others by these: a write went there. */
static void submit_to_another(const char *backend, jdb_code code) {
    jdb_queue *q = queue_new(backend, 4, 2), *other = queue_new(backend, 4, 2);
    jdb_file *f = create_file(q, "of one queue");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct rlimit none = {0, 0};
    jdb_op *op = take(other);
    if (code == JDB_READ) jdb_prep_read(op, f, b, 0, 0, 0, 0);
    else jdb_prep_file(op, code, f);
    CHECK_EQ(setrlimit(RLIMIT_CORE, &none), 0);
    close(2); /* where the assertion is told */
    jdb_submit(other, op);
}

static void another_queue(const char *backend) {
    static const jdb_code codes[] = {JDB_READ, JDB_SIZE, JDB_SYNC_DATA};
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        int status;
        fflush(stdout);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            submit_to_another(backend, codes[i]);
            _exit(0);
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFSIGNALED(status));
        CHECK_EQ(WTERMSIG(status), SIGABRT);
    }
}

static void descriptors_are_kept(const char *backend) {
    char before[64], after[64];
    snprintf(before, sizeof before, "%d", dup(0));
    for (int i = 0; i < 20; i++) {
        jdb_queue *q = queue_new(backend, 4, 2);
        CHECK(jdb_queue_pollfd(q) >= 0);
        jdb_file *f = create_file(q, "descriptors");
        run(q, prep_file(q, JDB_SIZE, f), JDB_OK);
        jdb_file_unref(f);
        queue_free(q);
    }
    snprintf(after, sizeof after, "%d", dup(0) - 1);
    CHECK_STR(after, before);
    close(atoi(before));
    close(atoi(after) + 1);
}

#endif

int main(void) {
    static const struct test tests[] = {
        {"close waits", close_waits},
        {"close twice", close_twice},
        {"let go in flight", let_go_in_flight},
        {"abandon pending", abandon_pending},
        {"abandon in flight", abandon_in_flight},
        {"abandon finished", abandon_finished},
        {"abandoned error", abandoned_error},
        {"abandoned after its error", abandoned_after_error},
        {"slots", slots},
        {"wait for one", wait_one},
        {"polling", polling},
        {"polling, workers only", polling_workers},
        {"polling, empty transfer", polling_empty},
        {"polling, close behind a dropped write", polling_close},
        {"polling, waiting for the abandoned", polling_abandoned},
        {"timeouts", timeouts},
        {"drain", drain},
        {"unref only", unref_only},
        {"threads", threads},
#if !defined(_WIN32)
        {"fork in flight", fork_in_flight},
        {"another queue", another_queue},
        {"descriptors", descriptors_are_kept},
#endif
        {NULL, NULL},
    };
    static const char *const system[] = {"close waits",
                                         "close twice",
                                         "let go in flight",
                                         "abandon pending",
                                         "abandon in flight",
                                         "abandoned error",
                                         "abandoned after its error",
                                         "wait for one",
                                         "polling",
                                         "polling, close behind a dropped write",
                                         "polling, waiting for the abandoned",
                                         "timeouts",
                                         "drain",
                                         "fork in flight",
                                         NULL};
    return run_on_every_backend(tests, system);
}
