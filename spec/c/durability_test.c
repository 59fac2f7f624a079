/* Flush sharing, poisoning and lists, with completions that the test alters, counts and holds
 * back: a wrapped backend does it after the real one has reaped. Nothing is invented; whatever is
 * altered or held has really been done. */
#include "fixture.h"

enum { FAULTS = 8 };

/* The nth (from 1; 0: every) finished step of this kind gets this result. */
struct fault {
    int step, dsync; /* dsync: 1: only writes that are durable by themselves */
    unsigned nth;
    int64_t result;
    unsigned seen;
};

static struct fault faults[FAULTS];
static unsigned fault_count;
static unsigned steps[JDB_CODE_COUNT]; /* finished, by what was done */
static char order[256];                /* 'r', 'w', 'd' (durable write), 's' (data), 'S' (all) */
static const jdb_op *hold_op;          /* its completion is kept from the queue ... */
static struct jdb_list held;           /* ... here ... */
static const jdb_op *let_op;           /* ... until it is let go, altered already */
static unsigned wanted;                /* completions a wait was for, at most */
static struct jdb_backend wrapped;
static const struct jdb_backend *real;

static void fail_step(jdb_code step, int dsync, unsigned nth, int64_t result) {
    CHECK(fault_count < FAULTS);
    faults[fault_count++] = (struct fault){(int)step, dsync, nth, result, 0};
}

static int is_durable_write(const jdb_op *op) {
    return jdb_op_step(op) == JDB_WRITE && (op->flags & JDB_OP_RWF_DSYNC);
}

static void note_order(const jdb_op *op) {
    jdb_code step = jdb_op_step(op);
    size_t used = strlen(order);
    if (used + 1 >= sizeof order) return;
    order[used] = step == JDB_READ        ? 'r'
                  : step == JDB_WRITE     ? (is_durable_write(op) ? 'd' : 'w')
                  : step == JDB_SYNC_DATA ? 's'
                  : step == JDB_SYNC_ALL  ? 'S'
                                          : '.';
}

static void alter(jdb_op *op) {
    int step = (int)jdb_op_step(op);
    /* Dropped before it was handed over: nothing was done. */
    if (op->result == -ECANCELED) return;
    steps[step]++;
    note_order(op);
    for (unsigned i = 0; i < fault_count; i++) {
        struct fault *fault = &faults[i];
        if (fault->step != step || (fault->dsync && !is_durable_write(op))) continue;
        fault->seen++;
        if (fault->nth == 0 || fault->nth == fault->seen) op->result = fault->result;
    }
}

static void wrapped_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    struct jdb_list rest = {NULL, NULL};
    jdb_op *op;
    if (timeout_ns != 0 && want > wanted) wanted = want;
    real->reap(q, want, timeout_ns);
    while ((op = jdb_list_pop(&q->arrived))) {
        if (op == let_op) let_op = NULL;
        else alter(op);
        jdb_list_push(op == hold_op ? &held : &rest, op);
    }
    q->arrived = rest;
}

/* The held completion goes on its way. */
static void let_go(jdb_queue *q) {
    hold_op = NULL;
    CHECK(held.head && held.head == held.tail);
    let_op = held.head;
    jdb_list_append(&q->arrived, &held);
}

/* Until the operation is done and held. */
static void wait_held(jdb_queue *q) {
    for (int i = 0; i < 1000 && !held.head; i++) jdb_queue_reap(q, 5000000);
    CHECK(held.head);
}

static jdb_queue *new_queue(const char *backend) {
    jdb_queue *q = queue_new(backend, 32, 4);
    memset(faults, 0, sizeof faults);
    memset(steps, 0, sizeof steps);
    memset(order, 0, sizeof order);
    fault_count = 0;
    hold_op = NULL;
    real = q->backend;
    wrapped = *real;
    wrapped.reap = wrapped_reap;
    q->backend = &wrapped;
    return q;
}

static jdb_file *new_file(jdb_queue *q, jdb_method method, unsigned flags) {
    jdb_op *op = take(q);
    jdb_open how = {.mode = 0666, .direct = JDB_DIRECT_PREFER, .method = method};
    how.flags = flags | JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE;
    CHECK_EQ(jdb_prep_open(q, op, path_of("data"), &how), 0);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_kind(op), JDB_OK);
    jdb_file *f = jdb_file_ref(jdb_op_file(op));
    jdb_op_release(q, op);
    return f;
}

static jdb_op *prep_page(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned page, unsigned flags) {
    jdb_op *op = take(q);
    jdb_prep_write(op, f, b, 0, PAGE, (uint64_t)page * PAGE, flags);
    return op;
}

static void write_page(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned page) {
    CHECK_EQ(run(q, prep_page(q, f, b, page, 0), JDB_OK), PAGE);
}

/* The next finished operation, without a wait that only its time limit ends. */
static jdb_op *prompt(jdb_queue *q) {
    jdb_op *op;
    int64_t start = jdb_now();
    while (!(op = jdb_queue_next(q))) {
        CHECK(jdb_now() - start < INT64_C(20000000000));
        jdb_queue_reap(q, INT64_C(10000000000));
    }
    CHECK(jdb_now() - start < INT64_C(9000000000));
    return op;
}

static void expect(jdb_queue *q, jdb_op *op, jdb_kind kind) {
    jdb_op *got = prompt(q);
    CHECK(got == op);
    done(q, op, kind);
}

static void refused(jdb_queue *q, jdb_op *op, jdb_kind kind) {
    CHECK_EQ(jdb_op_check(op), kind);
    jdb_op_release(q, op);
}

static void check_doubt(jdb_file *f, int error, uint64_t from, uint64_t to) {
    jdb_file_info info;
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.poisoned, error);
    CHECK_EQ(info.doubt_from, from);
    CHECK_EQ(info.doubt_to, to);
}

static void end(jdb_queue *q, jdb_file *f, jdb_buf *b) {
    run(q, prep_file(q, JDB_CLOSE, f), JDB_OK);
    check_idle(q);
    jdb_file_unref(f);
    jdb_buf_unref(b);
    queue_free(q);
}

/* macOS has none: there the method is always a flush. */
static int writes_durably(const jdb_file *f) { return f->info.method == JDB_METHOD_WRITE; }

/* ---- sharing --------------------------------------------------------------------------------- */

static void lone_callers(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    for (unsigned i = 1; i <= 5; i++) {
        write_page(q, f, b, i);
        run(q, prep_file(q, i % 2 ? JDB_SYNC_DATA : JDB_SYNC_ALL, f), JDB_OK);
        CHECK_EQ(stats(q).flushes, i);
    }
    CHECK_EQ(steps[JDB_SYNC_DATA], 3);
    CHECK_EQ(steps[JDB_SYNC_ALL], 2);
    end(q, f, b);
}

static void one_turn_one_flush(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *ops[16];
    for (int i = 0; i < 16; i++) ops[i] = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    /* Results come in the order of the calls. */
    for (int i = 0; i < 16; i++) expect(q, ops[i], JDB_OK);
    CHECK_EQ(stats(q).flushes, 1);
    CHECK_EQ(steps[JDB_SYNC_DATA], 1);
    for (int i = 0; i < 16; i++)
        ops[i] = submit(q, prep_file(q, i == 9 ? JDB_SYNC_ALL : JDB_SYNC_DATA, f));
    for (int i = 0; i < 16; i++) expect(q, ops[i], JDB_OK);
    /* One of them wants metadata: a flush of data alone would not cover it. */
    CHECK_EQ(steps[JDB_SYNC_ALL], 1);
    CHECK_EQ(steps[JDB_SYNC_DATA], 1);
    CHECK_EQ(stats(q).flushes, 2);
    end(q, f, b);
}

/* Who comes while a flush runs is not covered by it. */
static void late_callers(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *first = submit(q, prep_file(q, JDB_SYNC_DATA, f)), *late[3];
    hold_op = first;
    wait_held(q);
    for (int i = 0; i < 3; i++)
        late[i] = submit(q, prep_file(q, i == 1 ? JDB_SYNC_ALL : JDB_SYNC_DATA, f));
    for (int i = 0; i < 20; i++) jdb_queue_reap(q, 1000000);
    CHECK(!jdb_queue_next(q));
    CHECK_EQ(stats(q).flushes, 1);
    let_go(q);
    expect(q, first, JDB_OK);
    for (int i = 0; i < 3; i++) expect(q, late[i], JDB_OK);
    CHECK_EQ(stats(q).flushes, 2);
    CHECK_EQ(steps[JDB_SYNC_DATA], 1);
    CHECK_EQ(steps[JDB_SYNC_ALL], 1);
    end(q, f, b);
}

/* ---- waiting for writes ---------------------------------------------------------------------- */

enum { MIB = 1 << 20 };

/* A write that is done, and of which the queue does not hear before let_go. */
static jdb_op *held_write(jdb_queue *q, jdb_op *op) {
    hold_op = submit(q, op);
    wait_held(q);
    return op;
}

/* Asks for a flush, and tells whether it began. */
static int begins(jdb_queue *q, jdb_file *f, jdb_op **sync) {
    uint64_t before = stats(q).flushes;
    *sync = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    for (int i = 0; i < 5; i++) jdb_queue_reap(q, 0);
    return stats(q).flushes > before;
}

/* Both in any order. */
static void expect_two(jdb_queue *q, jdb_op *a, jdb_op *b) {
    for (int i = 0; i < 2; i++) {
        jdb_op *got = prompt(q);
        CHECK(got == a || got == b);
        done(q, got, JDB_OK);
    }
}

/* One round: each write's caller asks for a flush when it ends. */
static void write_and_sync(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned writers) {
    unsigned synced = 0;
    for (unsigned i = 0; i < writers; i++) submit(q, prep_page(q, f, b, i, 0));
    while (synced < writers) {
        jdb_op *op = prompt(q);
        int wrote = jdb_op_code(op) == JDB_WRITE;
        done(q, op, JDB_OK);
        if (wrote) submit(q, prep_file(q, JDB_SYNC_DATA, f));
        else synced++;
    }
}

static void rounds_pay_one_flush_each(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    for (unsigned i = 1; i <= 20; i++) {
        write_and_sync(q, f, b, i % 5 == 0 ? 3 : 16);
        CHECK_EQ(stats(q).flushes, i);
    }
    end(q, f, b);
}

static void write_pages(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned writers) {
    for (unsigned i = 0; i < writers; i++) submit(q, prep_page(q, f, b, i, 0));
    for (unsigned i = 0; i < writers; i++) CHECK_EQ(done(q, prompt(q), JDB_OK), PAGE);
}

/* As all writes of the round before had callers who asked, all of this one are waited for at once.
 * That ends with the flushes. The pool's are not waited for by number. */
static void rounds_wait_once(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    unsigned all = q->native >> JDB_WRITE & 1 ? 16 : 1;
    write_and_sync(q, f, b, 16);
    for (unsigned i = 0; i < 3; i++) {
        wanted = 0;
        write_and_sync(q, f, b, 16);
        CHECK_EQ(wanted, all);
    }
    write_pages(q, f, b, 16);
    wanted = 0;
    write_pages(q, f, b, 16);
    CHECK(wanted <= 4);
    end(q, f, b);
}

/* Those of one turn share a flush, whoever asked first. */
static void sync_and_durable_writes_of_a_turn(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    submit(q, prep_file(q, JDB_SYNC_DATA, f));
    for (unsigned i = 0; i < 4; i++) submit(q, prep_page(q, f, b, i, JDB_WRITE_DSYNC));
    for (unsigned i = 0; i < 5; i++) done(q, prompt(q), JDB_OK);
    CHECK_EQ(stats(q).flushes, 1);
    end(q, f, b);
}

/* The write that was there is waited for, the one that came later is not. */
static void flush_waits_for_those_before(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *sync, *before = held_write(q, prep_page(q, f, b, 0, 0));
    CHECK(!begins(q, f, &sync));
    jdb_op *later = prep_page(q, f, b, 1, 0);
    let_go(q);
    hold_op = submit(q, later);
    expect_two(q, before, sync);
    CHECK_EQ(stats(q).flushes, 1);
    wait_held(q);
    let_go(q);
    expect(q, later, JDB_OK);
    end(q, f, b);
}

/* A flush beside the write of somebody who never asks: whether it waited. */
static int waits_in_vain(jdb_queue *q, jdb_file *f, jdb_buf *b) {
    jdb_op *sync, *write = held_write(q, prep_page(q, f, b, 0, 0));
    int waited = !begins(q, f, &sync);
    let_go(q);
    expect_two(q, write, sync);
    return waited;
}

/* Of such flushes less and less wait. */
static void wait_that_does_not_pay(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    unsigned waited = 0;
    for (unsigned i = 0; i < 200; i++) waited += (unsigned)waits_in_vain(q, f, b);
    CHECK_EQ(waited, 9); /* the flushes 1, 3, 6, 11, 20, 37, 70, 135 and 200 */
    /* The next 64 do not; when it pays at last, all do again. */
    for (unsigned i = 0; i < 64; i++) CHECK(!waits_in_vain(q, f, b));
    for (unsigned i = 0; i < 10; i++) {
        uint64_t flushes = stats(q).flushes;
        jdb_op *sync, *write = held_write(q, prep_page(q, f, b, i, 0));
        CHECK(!begins(q, f, &sync));
        let_go(q);
        expect(q, write, JDB_OK);
        expect_two(q, sync, submit(q, prep_file(q, JDB_SYNC_DATA, f)));
        CHECK_EQ(stats(q).flushes, flushes + 1);
    }
    /* And all doubts are gone: the first failure costs one. */
    CHECK(waits_in_vain(q, f, b));
    CHECK(!waits_in_vain(q, f, b));
    CHECK(waits_in_vain(q, f, b));
    end(q, f, b);
}

/* It joins whatever was learnt of others. */
static void durable_write_is_always_waited_for(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    for (unsigned i = 0; i < 40; i++) {
        uint64_t flushes = stats(q).flushes;
        jdb_op *sync, *write = held_write(q, prep_page(q, f, b, i, i % 4 ? 0 : JDB_WRITE_DSYNC));
        int began = begins(q, f, &sync);
        if (i % 4 == 0) CHECK(!began);
        let_go(q);
        expect_two(q, write, sync);
        CHECK_EQ(stats(q).flushes, flushes + 1);
    }
    end(q, f, b);
}

static void much_is_not_waited_for(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(MIB + PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    for (unsigned i = 0; i < 4; i++) {
        size_t size = i % 2 ? MIB + PAGE : MIB;
        jdb_op *sync, *write = take(q);
        jdb_prep_write(write, f, b, 0, size, 0, i < 2 ? JDB_WRITE_DSYNC : 0);
        held_write(q, write);
        CHECK_EQ(begins(q, f, &sync), i % 2);
        let_go(q);
        expect_two(q, write, sync);
    }
    end(q, f, b);
}

/* A list of writes is one, and too long as a whole. */
static void list_is_waited_for(const char *backend) {
    for (unsigned size = PAGE; size <= MIB; size += MIB - PAGE) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(2 * size, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
        jdb_op *many = take(q), *sync;
        jdb_prep_many(many, JDB_WRITE_MANY, f, JDB_WRITE_DSYNC);
        for (unsigned i = 0; i < 2; i++) {
            CHECK_EQ(jdb_many_add(many, b, i * size, size, i * size, NULL), JDB_OK);
            if (i == 0) hold_op = many->children.tail;
        }
        submit(q, many);
        wait_held(q);
        CHECK_EQ(begins(q, f, &sync), size == MIB);
        let_go(q);
        expect_two(q, many, sync);
        CHECK_EQ(stats(q).flushes, size == MIB ? 2 : 1);
        end(q, f, b);
    }
}

/* A write that was short is one until its rest is written. */
static void rest_is_waited_for(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    memset(order, 0, sizeof order);
    fail_step(JDB_WRITE, 0, 1, PAGE);
    jdb_op *sync, *write = take(q);
    jdb_prep_write(write, f, b, 0, 4 * PAGE, 0, 0);
    held_write(q, write);
    CHECK(!begins(q, f, &sync));
    let_go(q);
    expect_two(q, write, sync);
    CHECK_STR(order, "wws");
    end(q, f, b);
}

/* Whatever becomes of the write, the flush begins when it has ended. */
static void failed_or_abandoned_write(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_WRITE, 0, 1, -EIO);
    jdb_op *sync, *write = held_write(q, prep_page(q, f, b, 0, 0));
    CHECK(!begins(q, f, &sync));
    let_go(q);
    expect(q, write, JDB_IO);
    expect_two(q, sync, submit(q, prep_file(q, JDB_SYNC_ALL, f)));
    write = held_write(q, prep_page(q, f, b, 1, 0));
    CHECK(!begins(q, f, &sync));
    jdb_op_abandon(q, write);
    let_go(q);
    expect(q, sync, JDB_OK);
    CHECK_EQ(stats(q).flushes, 2);
    end(q, f, b);
}

/* Nobody is left who wants the flush. */
static void abandoned_while_it_waits(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *sync, *write = held_write(q, prep_page(q, f, b, 0, 0));
    CHECK(!begins(q, f, &sync));
    jdb_op_abandon(q, sync);
    let_go(q);
    expect(q, write, JDB_OK);
    jdb_queue_wait_abandoned(q);
    CHECK_EQ(stats(q).flushes, 0);
    write_and_sync(q, f, b, 8);
    CHECK_EQ(stats(q).flushes, 1);
    end(q, f, b);
}

/* The write that it waited for ends while somebody waits in place: whoever polls is told. */
static void startable_flush_is_announced(const char *backend) {
    for (int abandoned = 0; abandoned < 2; abandoned++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
        int fd = jdb_queue_pollfd(q);
        jdb_op *sync, *write = held_write(q, prep_page(q, f, b, 0, 0));
        CHECK(!begins(q, f, &sync));
        jdb_op_abandon(q, write);
        let_go(q);
        if (abandoned) jdb_queue_wait_abandoned(q);
        else run(q, prep_file(q, JDB_SIZE, f), JDB_OK);
        while (!jdb_queue_finished(q)) {
            CHECK(readable(fd, 10000));
            jdb_queue_reap(q, 0);
            jdb_queue_flush(q);
        }
        expect(q, sync, JDB_OK);
        end(q, f, b);
    }
}

/* Who waits for a flush that will not be hears of it at once. */
static void poisoned_while_it_waits(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    jdb_op *sync, *write = held_write(q, prep_page(q, f, b, 0, 0));
    CHECK(!begins(q, f, &sync));
    fail_step(JDB_WRITE, 0, 1, -EIO);
    jdb_op *durable = submit(q, prep_page(q, f, b, 1, JDB_WRITE_DSYNC));
    expect(q, durable, JDB_IO);
    expect(q, sync, JDB_POISONED);
    let_go(q);
    expect(q, write, JDB_OK);
    CHECK_EQ(stats(q).flushes, 0);
    end(q, f, b);
}

/* Waiting in place, closing the file and closing the queue, each while a flush waits for writes. */
static void waits_that_wait(const char *backend) {
    for (int how = 0; how < 3; how++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
        for (unsigned i = 0; i < 8; i++) submit(q, prep_page(q, f, b, i, 0));
        jdb_op *sync = submit(q, prep_file(q, JDB_SYNC_DATA, f));
        if (how < 2) {
            jdb_op *op = how == 0 ? sync : submit(q, prep_file(q, JDB_CLOSE, f));
            jdb_queue_wait_op(q, op);
            done(q, op, JDB_OK);
            for (int i = 0; i < 8 + how; i++) done(q, prompt(q), JDB_OK);
        } else {
            jdb_queue_close(q);
        }
        CHECK_EQ(stats(q).flushes, 1);
        if (how == 0) run(q, prep_file(q, JDB_CLOSE, f), JDB_OK);
        if (how < 2) check_idle(q);
        jdb_file_unref(f);
        jdb_buf_unref(b);
        queue_free(q);
    }
}

/* ---- durable writes -------------------------------------------------------------------------- */

static void durable_methods(const char *backend) {
    static const struct {
        jdb_method method;
        const char *order;
        unsigned flushes;
    } cases[] = {{JDB_METHOD_WRITE, "d", 0}, {JDB_METHOD_FLUSH, "ws", 1}};
    for (unsigned i = 0; i < 2; i++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, cases[i].method, 0);
        unsigned k = writes_durably(f) ? 0 : 1;
        memset(order, 0, sizeof order); /* whatever the open was */
        CHECK_EQ(run(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_OK), PAGE);
        CHECK_STR(order, cases[k].order);
        CHECK_EQ(stats(q).flushes, cases[k].flushes);
        end(q, f, b);
    }
}

static void durable_writes_share(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    enum { WRITES = 12 };
    memset(order, 0, sizeof order);
    for (unsigned i = 0; i < WRITES; i++) submit(q, prep_page(q, f, b, i, JDB_WRITE_DSYNC));
    for (unsigned i = 0; i < WRITES; i++) CHECK_EQ(done(q, prompt(q), JDB_OK), PAGE);
    CHECK_EQ(steps[JDB_WRITE], WRITES);
    CHECK(stats(q).flushes >= 1 && stats(q).flushes < WRITES);
    CHECK_EQ(order[strlen(order) - 1], 's');
    end(q, f, b);
}

/* The whole length is written before the flush that makes it durable. */
static void short_write_then_flush(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    memset(order, 0, sizeof order);
    fail_step(JDB_WRITE, 0, 1, PAGE);
    jdb_op *op = take(q);
    jdb_prep_write(op, f, b, 0, 4 * PAGE, 0, JDB_WRITE_DSYNC);
    CHECK_EQ(run(q, op, JDB_OK), 4 * PAGE);
    CHECK_STR(order, "wws");
    end(q, f, b);
    q = new_queue(backend);
    b = jdb_buf_new(4 * PAGE, PAGE);
    f = new_file(q, JDB_METHOD_WRITE, 0);
    memset(order, 0, sizeof order);
    fail_step(JDB_WRITE, 0, 1, PAGE);
    op = take(q);
    jdb_prep_write(op, f, b, 0, 4 * PAGE, 0, JDB_WRITE_DSYNC);
    CHECK_EQ(run(q, op, JDB_OK), 4 * PAGE);
    CHECK_STR(order, writes_durably(f) ? "dd" : "wws");
    end(q, f, b);
}

/* A file system without RWF_DSYNC. The pool is asked as well before that is believed. */
static void no_durable_writes_here(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_WRITE, 0);
    jdb_file_info info;
    unsigned most = writes_durably(f) ? 2 : 0;
    fail_step(JDB_WRITE, 1, 0, -EOPNOTSUPP);
    CHECK_EQ(run(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_OK), PAGE);
    CHECK_EQ(stats(q).flushes, 1);
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.method, JDB_METHOD_FLUSH);
    CHECK_EQ(info.poisoned, 0);
    unsigned asked = faults[0].seen;
    CHECK(asked >= most / 2 && asked <= most);
    CHECK_EQ(run(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_OK), PAGE);
    CHECK_EQ(faults[0].seen, asked);
    CHECK_EQ(stats(q).flushes, 2);
    end(q, f, b);
}

static void no_durable_writes_in_a_list(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_WRITE, 0);
    fail_step(JDB_WRITE, 1, 0, -EOPNOTSUPP);
    jdb_op *many = take(q);
    jdb_prep_many(many, JDB_WRITE_MANY, f, JDB_WRITE_DSYNC);
    for (unsigned i = 0; i < 4; i++)
        CHECK_EQ(jdb_many_add(many, b, 0, PAGE, i * PAGE, NULL), JDB_OK);
    CHECK_EQ(run(q, many, JDB_OK), 4);
    CHECK(stats(q).flushes >= 1);
    CHECK_EQ(order[strlen(order) - 1], 's');
    end(q, f, b);
}

/* ---- poisoning ------------------------------------------------------------------------------- */

static void failing_flush(const char *backend) {
    jdb_failure failure;
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    write_page(q, f, b, 3);
    run(q, prep_file(q, JDB_SYNC_DATA, f), JDB_OK);
    write_page(q, f, b, 5);
    write_page(q, f, b, 7);
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    jdb_op *op = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    jdb_queue_wait_op(q, op);
    jdb_op_failure(op, &failure);
    CHECK_EQ(failure.kind, JDB_IO);
    CHECK_EQ(failure.error, EIO);
    /* What the flush before had covered is not in doubt. */
    CHECK_EQ(failure.offset, 5 * PAGE);
    CHECK_EQ(failure.length, 3 * PAGE);
    done(q, op, JDB_IO);
    check_doubt(f, EIO, 5 * PAGE, 8 * PAGE);
    refused(q, prep_file(q, JDB_SYNC_DATA, f), JDB_POISONED);
    refused(q, prep_file(q, JDB_SYNC_ALL, f), JDB_POISONED);
    refused(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_POISONED);
    jdb_op *many = take(q);
    jdb_prep_many(many, JDB_WRITE_MANY, f, JDB_WRITE_DSYNC);
    refused(q, many, JDB_POISONED);
    write_page(q, f, b, 1);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    CHECK_EQ(steps[JDB_SYNC_DATA], 2);
    CHECK_EQ(stats(q).flushes, 2);
    end(q, f, b);
}

static void failing_flush_fails_all(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    jdb_op *running[4], *later[3];
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    for (int i = 0; i < 4; i++) running[i] = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    hold_op = running[0];
    wait_held(q);
    later[0] = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    later[1] = submit(q, prep_file(q, JDB_SYNC_ALL, f));
    later[2] = submit(q, prep_page(q, f, b, 2, JDB_WRITE_DSYNC));
    for (int i = 0; i < 1000 && steps[JDB_WRITE] == 0; i++) jdb_queue_reap(q, 1000000);
    let_go(q);
    for (int i = 0; i < 4; i++) expect(q, running[i], JDB_IO);
    for (int i = 0; i < 3; i++) expect(q, later[i], JDB_POISONED);
    /* No second flush, which could have reported a success. */
    CHECK_EQ(stats(q).flushes, 1);
    CHECK_EQ(steps[JDB_SYNC_DATA] + steps[JDB_SYNC_ALL], 1);
    /* What was written while the flush ran is in doubt as well. */
    check_doubt(f, EIO, 2 * PAGE, 3 * PAGE);
    end(q, f, b);
}

static void failing_durable_write(const char *backend) {
    jdb_failure failure;
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_WRITE, 0);
    write_page(q, f, b, 0);
    fail_step(JDB_WRITE, writes_durably(f), 1, -EIO);
    jdb_op *op = take(q);
    jdb_prep_write(op, f, b, 0, 2 * PAGE, 4 * PAGE, JDB_WRITE_DSYNC);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    jdb_op_failure(op, &failure);
    CHECK_EQ(failure.error, EIO);
    CHECK_EQ(failure.offset, 4 * PAGE);
    CHECK_EQ(failure.length, 2 * PAGE);
    CHECK_EQ(failure.actual, 0);
    done(q, op, JDB_IO);
    check_doubt(f, EIO, 4 * PAGE, 6 * PAGE);
    refused(q, prep_file(q, JDB_SYNC_DATA, f), JDB_POISONED);
    write_page(q, f, b, 0);
    CHECK_EQ(stats(q).flushes, 0);
    end(q, f, b);
}

/* On a handle whose every write is durable. */
static void failing_write_of_durable_handle(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, JDB_OPEN_DSYNC);
    write_page(q, f, b, 0);
    fail_step(JDB_WRITE, 0, 1, -EIO);
    run(q, prep_page(q, f, b, 6, 0), JDB_IO);
    check_doubt(f, EIO, 6 * PAGE, 7 * PAGE);
    refused(q, prep_page(q, f, b, 0, 0), JDB_POISONED);
    jdb_op *many = take(q);
    jdb_prep_many(many, JDB_WRITE_MANY, f, 0);
    refused(q, many, JDB_POISONED);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    end(q, f, b);
}

/* However a durable write is done: when its flush fails, and when its write does. */
static void failing_write_and_flush(const char *backend) {
    jdb_failure failure;
    for (int part = 0; part < 2; part++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
        fail_step(part ? JDB_WRITE : JDB_SYNC_DATA, 0, 1, -EIO);
        jdb_op *op = submit(q, prep_page(q, f, b, 2, JDB_WRITE_DSYNC));
        jdb_queue_wait_op(q, op);
        jdb_op_failure(op, &failure);
        CHECK_EQ(failure.error, EIO);
        CHECK_EQ(failure.offset, 2 * PAGE);
        CHECK_EQ(failure.length, PAGE);
        done(q, op, JDB_IO);
        check_doubt(f, EIO, 2 * PAGE, 3 * PAGE);
        refused(q, prep_file(q, JDB_SYNC_DATA, f), JDB_POISONED);
        CHECK_EQ(steps[JDB_SYNC_DATA], part ? 0 : 1);
        end(q, f, b);
    }
}

static void no_room_is_no_poison(const char *backend) {
    static const int errors[] = {ENOSPC, EFBIG, EDQUOT, EINVAL};
    static const unsigned flags[] = {0, JDB_OPEN_DSYNC};
    for (unsigned k = 0; k < 2; k++)
        for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
            jdb_queue *q = new_queue(backend);
            jdb_buf *b = jdb_buf_new(PAGE, PAGE);
            jdb_file *f = new_file(q, JDB_METHOD_WRITE, flags[k]);
            fail_step(JDB_WRITE, 0, 1, -errors[i]);
            run(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_IO);
            check_doubt(f, 0, 0, 0);
            CHECK_EQ(run(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_OK), PAGE);
            run(q, prep_file(q, JDB_SYNC_ALL, f), JDB_OK);
            end(q, f, b);
        }
}

/* A plain write promises no durability: its failure leaves the flushes alone. */
static void plain_failure_is_no_poison(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_WRITE, 0, 1, -EIO);
    run(q, prep_page(q, f, b, 0, 0), JDB_IO);
    check_doubt(f, 0, 0, 0);
    run(q, prep_file(q, JDB_SYNC_DATA, f), JDB_OK);
    end(q, f, b);
}

/* The poison is the handle's: another one of the same file has reported nothing yet. */
static void reopening_clears(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    run(q, prep_file(q, JDB_SYNC_DATA, f), JDB_IO);
    run(q, prep_file(q, JDB_CLOSE, f), JDB_OK);
    jdb_file_unref(f);
    f = new_file(q, JDB_METHOD_AUTO, 0);
    check_doubt(f, 0, 0, 0);
    run(q, prep_file(q, JDB_SYNC_DATA, f), JDB_OK);
    end(q, f, b);
}

/* ---- callers that go away -------------------------------------------------------------------- */

static void abandoned_leader(const char *backend) {
    for (int started = 0; started < 2; started++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
        jdb_op *ops[4];
        for (int i = 0; i < 4; i++) ops[i] = submit(q, prep_file(q, JDB_SYNC_DATA, f));
        if (started) jdb_queue_flush(q);
        jdb_op_abandon(q, ops[0]);
        jdb_op_abandon(q, ops[2]);
        expect(q, ops[1], JDB_OK);
        expect(q, ops[3], JDB_OK);
        jdb_queue_wait_abandoned(q);
        CHECK(!jdb_queue_next(q));
        CHECK_EQ(stats(q).flushes, 1);
        CHECK_EQ(steps[JDB_SYNC_DATA], 1);
        end(q, f, b);
    }
}

/* The flush has begun but waits for room in the queue: it is not its caller's alone any more. */
static void abandoned_leader_that_waits(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *first = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    jdb_op *second = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    q->inflight += q->depth;
    jdb_queue_flush(q);
    CHECK_EQ(stats(q).flushes, 1);
    jdb_op_abandon(q, first);
    q->inflight -= q->depth;
    expect(q, second, JDB_OK);
    CHECK_EQ(steps[JDB_SYNC_DATA], 1);
    end(q, f, b);
}

/* Nobody is left: no flush is needed, and nobody waits for one. */
static void all_abandoned(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    for (int i = 0; i < 3; i++) jdb_op_abandon(q, submit(q, prep_file(q, JDB_SYNC_DATA, f)));
    jdb_queue_wait_abandoned(q);
    CHECK_EQ(stats(q).flushes, 0);
    end(q, f, b);
}

/* The flush that runs fails, its caller has gone; who waits for the next one is told at once. */
static void abandoned_leader_fails(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    jdb_op *first = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    hold_op = first;
    wait_held(q);
    jdb_op *later = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    jdb_op_abandon(q, first);
    let_go(q);
    expect(q, later, JDB_POISONED);
    CHECK_EQ(steps[JDB_SYNC_DATA], 1);
    /* The failure that nobody was told comes with close. */
    run(q, prep_file(q, JDB_CLOSE, f), JDB_IO);
    end(q, f, b);
}

static void waiting_in_place(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    jdb_op *first = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    hold_op = first;
    wait_held(q);
    jdb_op *later = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    let_go(q);
    int64_t start = jdb_now();
    jdb_queue_wait_op(q, later);
    CHECK(jdb_now() - start < INT64_C(9000000000));
    done(q, later, JDB_POISONED);
    expect(q, first, JDB_IO);
    end(q, f, b);
}

/* ---- closing --------------------------------------------------------------------------------- */

static void close_waits_for_flushes(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
    jdb_op *first = submit(q, prep_file(q, JDB_SYNC_DATA, f));
    hold_op = first;
    wait_held(q);
    jdb_op *later = submit(q, prep_file(q, JDB_SYNC_ALL, f));
    jdb_op *close = submit(q, prep_file(q, JDB_CLOSE, f));
    for (int i = 0; i < 5; i++) jdb_queue_reap(q, 1000000);
    CHECK(!jdb_queue_next(q));
    let_go(q);
    expect(q, first, JDB_OK);
    expect(q, later, JDB_OK);
    expect(q, close, JDB_OK);
    end(q, f, b);
}

static void queue_close_drains(const char *backend) {
    for (int mode = 0; mode < 4; mode++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_FLUSH, 0);
        jdb_op *ops[6];
        for (int i = 0; i < 4; i++) ops[i] = submit(q, prep_file(q, JDB_SYNC_DATA, f));
        ops[4] = submit(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC));
        if (mode & 1) jdb_queue_flush(q);
        ops[5] = submit(q, prep_file(q, JDB_SYNC_ALL, f));
        if (mode & 2)
            for (int i = 0; i < 6; i++) jdb_op_abandon(q, ops[i]);
        jdb_file_unref(f);
        jdb_buf_unref(b);
        queue_free(q);
        check_nothing_lives();
    }
}

/* ---- lists ----------------------------------------------------------------------------------- */

static jdb_op *new_list(jdb_queue *q, jdb_file *f, jdb_buf *b, jdb_code code, unsigned flags,
                        jdb_op **children, unsigned count) {
    jdb_op *many = take(q);
    jdb_prep_many(many, code == JDB_READ ? JDB_READ_MANY : JDB_WRITE_MANY, f, flags);
    for (unsigned i = 0; i < count; i++) {
        CHECK_EQ(jdb_many_add(many, b, i * PAGE, PAGE, i * PAGE, NULL), JDB_OK);
        children[i] = many->children.tail;
    }
    return many;
}

/* Whichever entry fails first in time, the first one in the list is told. */
static void first_failure_of_a_list(const char *backend) {
    jdb_op *children[4];
    jdb_failure failure;
    for (int swap = 0; swap < 2; swap++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
        /* Of the file only the first page is there: entries 1, 2 and 3 meet its end. */
        write_page(q, f, b, 0);
        jdb_op *many = new_list(q, f, b, JDB_READ, 0, children, 4);
        hold_op = children[swap ? 1 : 3];
        submit(q, many);
        wait_held(q);
        for (int i = 0; i < 20; i++) jdb_queue_reap(q, 1000000);
        CHECK(!jdb_queue_next(q));
        let_go(q);
        CHECK(prompt(q) == many);
        jdb_op_failure(many, &failure);
        CHECK_EQ(failure.kind, JDB_SHORT_READ);
        CHECK_EQ(failure.index, 1);
        CHECK_EQ(failure.offset, PAGE);
        CHECK_EQ(failure.length, PAGE);
        CHECK_EQ(failure.actual, 0);
        CHECK_STR(failure.op, "read_many");
        done(q, many, JDB_SHORT_READ);
        CHECK(jdb_buf_writable(b, 0, 4 * PAGE));
        end(q, f, b);
    }
}

static void durable_list(const char *backend) {
    jdb_op *children[4];
    jdb_failure failure;
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    memset(order, 0, sizeof order);
    CHECK_EQ(run(q, new_list(q, f, b, JDB_WRITE, JDB_WRITE_DSYNC, children, 4), JDB_OK), 4);
    CHECK_STR(order, "wwwws");
    CHECK_EQ(stats(q).flushes, 1);
    /* The flush that covers the list fails: all of it is in doubt. */
    fail_step(JDB_SYNC_DATA, 0, 1, -EIO);
    jdb_op *many = new_list(q, f, b, JDB_WRITE, JDB_WRITE_DSYNC, children, 3);
    submit(q, many);
    jdb_queue_wait_op(q, many);
    jdb_op_failure(many, &failure);
    CHECK_EQ(failure.error, EIO);
    CHECK_EQ(failure.index, -1);
    CHECK_EQ(failure.offset, 0);
    CHECK_EQ(failure.length, 3 * PAGE);
    CHECK_STR(failure.op, "write_many");
    done(q, many, JDB_IO);
    check_doubt(f, EIO, 0, 3 * PAGE);
    end(q, f, b);
}

/* An entry that failed: nothing is durable, so nothing needs the flush. */
static void durable_list_with_a_failing_entry(const char *backend) {
    jdb_op *children[4];
    jdb_failure failure;
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    fail_step(JDB_WRITE, 0, 0, -ENOSPC);
    jdb_op *many = new_list(q, f, b, JDB_WRITE, JDB_WRITE_DSYNC, children, 4);
    submit(q, many);
    jdb_queue_wait_op(q, many);
    jdb_op_failure(many, &failure);
    CHECK_EQ(failure.error, ENOSPC);
    CHECK_EQ(failure.index, 0);
    done(q, many, JDB_IO);
    CHECK_EQ(stats(q).flushes, 0);
    check_doubt(f, 0, 0, 0);
    end(q, f, b);
}

static void abandoned_list(const char *backend) {
    jdb_op *children[8];
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(8 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *many = submit(q, new_list(q, f, b, JDB_WRITE, JDB_WRITE_DSYNC, children, 8));
    jdb_op_abandon(q, many);
    jdb_queue_wait_abandoned(q);
    CHECK(!jdb_queue_next(q));
    CHECK(jdb_buf_writable(b, 0, 8 * PAGE));
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), 8 * PAGE);
    end(q, f, b);
}

/* Given back without being submitted: nothing is in flight any more. */
static void dropped_list(const char *backend) {
    jdb_op *children[3];
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_METHOD_AUTO, 0);
    jdb_op *many = new_list(q, f, b, JDB_READ, 0, children, 3);
    CHECK(!jdb_buf_writable(b, 0, 1));
    jdb_failure failure;
    CHECK_EQ(jdb_many_add(many, b, PAGE, PAGE, 0, &failure), JDB_BUSY);
    CHECK_EQ(failure.kind, JDB_BUSY);
    CHECK_EQ(failure.index, 3);
    CHECK_STR(failure.op, "read_many");
    jdb_op_release(q, many);
    CHECK(jdb_buf_writable(b, 0, 4 * PAGE));
    CHECK_EQ(stats(q).submitted, 1); /* the open */
    end(q, f, b);
}

static const struct test tests[] = {
    {"a lone caller pays one flush", lone_callers},
    {"callers of one turn share one flush", one_turn_one_flush},
    {"who comes while a flush runs gets the next", late_callers},
    {"a round of writes and syncs pays one flush", rounds_pay_one_flush_each},
    {"a round of writes and syncs is waited for as a whole", rounds_wait_once},
    {"a sync shares a flush with durable writes of its turn", sync_and_durable_writes_of_a_turn},
    {"a flush waits for the writes that are there, not for later ones",
     flush_waits_for_those_before},
    {"a flush waits seldom where that does not pay", wait_that_does_not_pay},
    {"a flush waits for durable writes in any case", durable_write_is_always_waited_for},
    {"a flush waits for no more than 1 MiB", much_is_not_waited_for},
    {"a flush waits for a list as a whole", list_is_waited_for},
    {"a flush waits for the rest of a short write", rest_is_waited_for},
    {"a flush waits for writes that fail or are abandoned", failed_or_abandoned_write},
    {"a flush that waits and that nobody wants any more", abandoned_while_it_waits},
    {"polling, a flush that can start", startable_flush_is_announced},
    {"a flush that waits on a file that is poisoned", poisoned_while_it_waits},
    {"waits and closes while a flush waits", waits_that_wait},
    {"durable writes by write or by flush", durable_methods},
    {"durable writes share flushes", durable_writes_share},
    {"a short durable write is finished before its flush", short_write_then_flush},
    {"a file system without durable writes", no_durable_writes_here},
    {"a list there", no_durable_writes_in_a_list},
    {"a failing flush poisons", failing_flush},
    {"a failing flush fails all that wait", failing_flush_fails_all},
    {"a failing durable write poisons", failing_durable_write},
    {"a failing write of a durable handle poisons", failing_write_of_durable_handle},
    {"a durable write done by write and flush", failing_write_and_flush},
    {"no room is no poison", no_room_is_no_poison},
    {"a plain failure is no poison", plain_failure_is_no_poison},
    {"reopening clears", reopening_clears},
    {"an abandoned leader serves the others", abandoned_leader},
    {"an abandoned leader that waits for room", abandoned_leader_that_waits},
    {"all callers abandoned", all_abandoned},
    {"an abandoned leader whose flush fails", abandoned_leader_fails},
    {"waiting in place for a flush that is refused", waiting_in_place},
    {"close waits for flushes", close_waits_for_flushes},
    {"the queue's close drains flushes", queue_close_drains},
    {"the first failure of a list is told", first_failure_of_a_list},
    {"a durable list pays one flush", durable_list},
    {"a durable list with a failing entry", durable_list_with_a_failing_entry},
    {"an abandoned list", abandoned_list},
    {"a list that is never submitted", dropped_list},
    {NULL, NULL}};

int main(void) { return run_on_every_backend(tests, NULL); }
