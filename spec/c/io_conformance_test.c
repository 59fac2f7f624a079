/* What every backend must do alike, part one: transfers, their order and their limits. */
#include "fixture.h"
#include "gate_calls.h"

enum { FILE_PAGES = 64 };

static void stamp(uint8_t *page, uint64_t number) {
    for (size_t i = 0; i < PAGE; i += 8) {
        uint64_t word = number * UINT64_C(0x9e3779b97f4a7c15) + i;
        memcpy(page + i, &word, 8);
    }
}

static void check_stamp(const uint8_t *page, uint64_t number) {
    uint8_t want[PAGE];
    stamp(want, number);
    CHECK(memcmp(page, want, PAGE) == 0);
}

/* A file of FILE_PAGES pages, each with its number all over it. */
static jdb_file *numbered_file(jdb_queue *q) {
    jdb_file *f = create_file(q, "numbered");
    jdb_buf *b = jdb_buf_new((size_t)FILE_PAGES * PAGE, PAGE);
    CHECK(b);
    for (unsigned i = 0; i < FILE_PAGES; i++) stamp((uint8_t *)jdb_buf_data(b) + i * PAGE, i);
    CHECK_EQ(run(q, prep_write(q, f, b, 0, FILE_PAGES * PAGE, 0), JDB_OK), FILE_PAGES * PAGE);
    jdb_buf_unref(b);
    return f;
}

/* First of all, before anything has asked the system for its page size. */
static void opens_at_once(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 8);
    char name[16];
    for (unsigned i = 0; i < 8; i++) {
        snprintf(name, sizeof name, "o%u", i);
        submit(q, prep_open(q, path_of(name), JDB_OPEN_WRITE | JDB_OPEN_CREATE));
    }
    for (unsigned i = 0; i < 8; i++) done(q, next(q), JDB_OK);
    check_idle(q);
    queue_free(q);
}

static void round_trip(const char *backend) {
    jdb_queue *q = queue_new(backend, 0, 0);
    CHECK_EQ(jdb_queue_depth(q), 256);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new(3 * PAGE, PAGE);
    run(q, prep_file(q, JDB_SYNC_DATA, f), JDB_OK);
    run(q, prep_file(q, JDB_SYNC_ALL, f), JDB_OK);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), FILE_PAGES * PAGE);
    CHECK_EQ(run(q, prep_read(q, f, b, PAGE, 2 * PAGE, 5 * PAGE), JDB_OK), 2 * PAGE);
    const uint8_t *data = jdb_buf_data(b);
    for (unsigned i = 0; i < PAGE; i++) CHECK_EQ(data[i], 0);
    check_stamp(data + PAGE, 5);
    check_stamp(data + 2 * PAGE, 6);
    check_idle(q);
    CHECK(stats(q).submitted >= 6);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* Every operation comes back once, with its own waiter and its own data. */
static void exactly_once(const char *backend) {
    enum { OPS = 2000, SLOTS = 24 };
    static int seen[OPS];
    jdb_queue *q = queue_new(backend, 16, 4);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new((size_t)SLOTS * PAGE, PAGE);
    unsigned page_of[SLOTS], op_of[SLOTS], slots[SLOTS], started = 0, ended = 0;
    uint64_t seed = 7;
    memset(seen, 0, sizeof seen);
    for (unsigned i = 0; i < SLOTS; i++) slots[i] = i;
    while (ended < OPS) {
        for (unsigned free_slots = SLOTS - (started - ended); free_slots > 0 && started < OPS;) {
            unsigned slot = slots[--free_slots];
            page_of[slot] = (unsigned)(test_random(&seed) % FILE_PAGES);
            op_of[slot] = started++;
            jdb_op *op = prep_read(q, f, b, slot * PAGE, PAGE, (uint64_t)page_of[slot] * PAGE);
            jdb_op_set_waiter(op, &slots[slot]);
            submit(q, op);
            CHECK(stats(q).in_flight <= 16);
        }
        jdb_op *op = next(q);
        do {
            unsigned slot = (unsigned)(op->buf_off / PAGE);
            CHECK(jdb_op_waiter(op) == &slots[slot]);
            CHECK_EQ(seen[op_of[slot]]++, 0);
            CHECK_EQ(done(q, op, JDB_OK), PAGE);
            check_stamp((uint8_t *)jdb_buf_data(b) + slot * PAGE, page_of[slot]);
            slots[SLOTS - (started - ended++)] = slot;
            /* The waiter is an address only; slots moves below it. */
        } while ((op = jdb_queue_next(q)));
    }
    for (unsigned i = 0; i < OPS; i++) CHECK_EQ(seen[i], 1);
    check_idle(q);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* With room for one the order of submission is the order of completion. */
static void one_at_a_time(const char *backend) {
    enum { OPS = 300 };
    static char marks[OPS];
    jdb_queue *q = queue_new(backend, 1, 8);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new((size_t)OPS * PAGE, PAGE);
    for (unsigned i = 0; i < OPS; i++) {
        jdb_op *op = i % 3 == 2 ? prep_file(q, JDB_SIZE, f)
                                : prep_read(q, f, b, i * PAGE, PAGE, i % FILE_PAGES * PAGE);
        jdb_op_set_waiter(op, &marks[i]);
        submit(q, op);
        CHECK(stats(q).in_flight <= 1);
    }
    CHECK_EQ(jdb_queue_pending(q), OPS);
    for (unsigned i = 0; i < OPS; i++) {
        jdb_op *op = next(q);
        CHECK(jdb_op_waiter(op) == &marks[i]);
        done(q, op, JDB_OK);
    }
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void fill_and_drain(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned count) {
    uint32_t depth = jdb_queue_depth(q);
    for (unsigned i = 0; i < count; i++) {
        uint64_t page = i % FILE_PAGES;
        submit(q, i % 5 == 4 ? prep_file(q, JDB_SIZE, f)
                             : prep_read(q, f, b, i * PAGE, PAGE, page * PAGE));
        jdb_stats s = stats(q);
        CHECK(s.in_flight <= depth);
        CHECK_EQ(s.in_flight + s.waiting, i + 1);
    }
    for (unsigned i = 0; i < count; i++) {
        jdb_op *op = next(q);
        CHECK(stats(q).in_flight <= depth);
        done(q, op, JDB_OK);
    }
    CHECK(!jdb_queue_next(q));
    check_idle(q);
}

static void full_queue(const char *backend) {
    for (uint32_t depth = 1; depth <= 9; depth++) {
        jdb_queue *q = queue_new(backend, depth, 3);
        CHECK_EQ(jdb_queue_depth(q), depth);
        jdb_file *f = numbered_file(q);
        jdb_buf *b = jdb_buf_new((size_t)(depth * 8 + 1) * PAGE, PAGE);
        for (unsigned times = 1; times <= 8; times *= 2) {
            fill_and_drain(q, f, b, depth * times);
            fill_and_drain(q, f, b, depth * times + 1);
            fill_and_drain(q, f, b, depth * times - (depth > 1));
        }
        jdb_buf_unref(b);
        jdb_file_unref(f);
        queue_free(q);
    }
}

/* The exact sizes of the rings, which are powers of two. */
static void full_rings(const char *backend) {
    static const uint32_t depths[] = {15, 16, 31, 32, 33, 63, 64, 127, 128};
    for (size_t i = 0; i < sizeof depths / sizeof *depths; i++) {
        jdb_queue *q = queue_new(backend, depths[i], 2);
        jdb_file *f = numbered_file(q);
        jdb_buf *b = jdb_buf_new((size_t)(2 * depths[i] + 1) * PAGE, PAGE);
        fill_and_drain(q, f, b, depths[i]);
        fill_and_drain(q, f, b, 2 * depths[i]);
        fill_and_drain(q, f, b, 2 * depths[i] + 1);
        jdb_buf_unref(b);
        jdb_file_unref(f);
        queue_free(q);
    }
}

/* Far more than the queue holds, all writing out of one page. */
static void long_line(const char *backend) {
    enum { OPS = 10000 };
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = create_file(q, "line");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    stamp(jdb_buf_data(b), 1);
    for (unsigned i = 0; i < OPS; i++)
        submit(q, prep_write(q, f, b, 0, PAGE, i % FILE_PAGES * PAGE));
    CHECK_EQ(stats(q).in_flight + stats(q).waiting, OPS);
    for (unsigned i = 0; i < OPS; i++) CHECK_EQ(done(q, next(q), JDB_OK), PAGE);
    check_idle(q);
    CHECK(jdb_buf_writable(b, 0, PAGE));
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void zero_length(const char *backend) {
    jdb_queue *q = queue_new(backend, 2, 0);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_op *ops[3] = {prep_read(q, f, b, 0, 0, 0), prep_write(q, f, b, 0, 0, PAGE),
                      prep_read(q, f, b, PAGE, 0, (uint64_t)FILE_PAGES * 2 * PAGE)};
    for (unsigned i = 0; i < 3; i++) submit(q, ops[i]);
    for (unsigned i = 0; i < 3; i++) {
        jdb_op *op = next(q);
        CHECK(op == ops[i]);
        CHECK_EQ(done(q, op, JDB_OK), 0);
    }
    CHECK_EQ(run(q, prep_read(q, f, b, 0, 0, 0), JDB_OK), 0);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), FILE_PAGES * PAGE);
    check_idle(q);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void refused(jdb_queue *q, jdb_op *op, jdb_kind kind, const char *cause) {
    jdb_failure failure;
    char text[JDB_MESSAGE_MAX];
    CHECK_EQ(jdb_op_check(op), kind);
    jdb_op_failure(op, &failure);
    CHECK_EQ(failure.kind, kind);
    jdb_failure_message(&failure, text, sizeof text);
    if (!strstr(text, cause)) test_fail(__FILE__, __LINE__, "\"%s\" lacks \"%s\"", text, cause);
    CHECK(strstr(text, failure.path));
    jdb_op_release(q, op);
}

static void alignment(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_file_info info;
    jdb_file_info_get(f, &info);
    uint64_t before = stats(q).submitted;
    if (info.direct && info.read_align > 1 && info.memory_align > 1) {
        size_t half = info.read_align / 2, bit = info.memory_align / 2;
        refused(q, prep_read(q, f, b, 0, PAGE, half), JDB_ALIGNMENT, "offset");
        refused(q, prep_read(q, f, b, 0, half, 0), JDB_ALIGNMENT, "length");
        refused(q, prep_read(q, f, b, bit, PAGE, 0), JDB_ALIGNMENT, "memory");
        refused(q, prep_write(q, f, b, 0, PAGE, 1), JDB_ALIGNMENT, "offset");
        refused(q, prep_write(q, f, b, 0, 1, 0), JDB_ALIGNMENT, "length");
        refused(q, prep_write(q, f, b, 1, PAGE, 0), JDB_ALIGNMENT, "memory");
        refused(q, prep_read(q, f, b, 1, 0, 0), JDB_ALIGNMENT, "memory");
    }
    refused(q, prep_read(q, f, b, 0, PAGE, UINT64_MAX), JDB_OVERFLOW, "2^63");
    refused(q, prep_read(q, f, b, 0, PAGE, (uint64_t)INT64_MAX + 1), JDB_OVERFLOW, "2^63");
    refused(q, prep_read(q, f, b, 0, 2 * PAGE, INT64_MAX - PAGE + 1), JDB_OVERFLOW, "2^63");
    refused(q, prep_write(q, f, b, 0, 5 * PAGE, 0), JDB_OVERFLOW, "range");
    refused(q, prep_write(q, f, b, 5 * PAGE, 0, 0), JDB_OVERFLOW, "range");
    refused(q, prep_write(q, f, b, SIZE_MAX - PAGE + 1, PAGE, 0), JDB_OVERFLOW, "range");
    refused(q, prep_read(q, f, b, PAGE, SIZE_MAX, 0), JDB_OVERFLOW, "range");
    jdb_op *op = take(q);
    jdb_prep_truncate(op, f, UINT64_MAX);
    refused(q, op, JDB_OVERFLOW, "2^63");
    CHECK_EQ(stats(q).submitted, before);
    jdb_file *reader = open_file(q, path_of("numbered"), 0);
    refused(q, prep_write(q, reader, b, 0, PAGE, 0), JDB_IO, "read only");
    op = take(q);
    jdb_prep_truncate(op, reader, 0);
    refused(q, op, JDB_IO, "read only");
    jdb_file_unref(reader);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void busy(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = numbered_file(q);
    struct gate g = gate_new(q, 1);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_op *wait = submit(q, prep_read(q, g.file, b, PAGE + 7, 1, 0));
    refused(q, prep_read(q, f, b, 0, 2 * PAGE, 0), JDB_BUSY, "in flight");
    refused(q, prep_write(q, f, b, PAGE, PAGE, 0), JDB_BUSY, "in flight");
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, 0), JDB_OK), PAGE);
    CHECK_EQ(run(q, prep_write(q, f, b, 2 * PAGE, PAGE, 0), JDB_OK), PAGE);
    CHECK(!jdb_buf_readable(b, PAGE + 7, 1));
    CHECK(jdb_buf_readable(b, PAGE, 7));
    CHECK(jdb_buf_writable(b, PAGE + 8, PAGE));
    gate_pass(&g, 1);
    jdb_queue_wait_op(q, wait);
    CHECK_EQ(done(q, wait, JDB_OK), 1);
    CHECK(jdb_buf_writable(b, 0, 4 * PAGE));
    jdb_buf_unref(b);
    gate_free(&g);
    jdb_file_unref(f);
    queue_free(q);
}

static jdb_op *prep_upto(jdb_queue *q, jdb_file *f, jdb_buf *b, size_t len, uint64_t off) {
    jdb_op *op = take(q);
    jdb_prep_read(op, f, b, 0, len, off, JDB_READ_UPTO);
    return op;
}

static void end_of_file(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    uint64_t end = 2 * PAGE + 1000;
    jdb_op *op = take(q);
    jdb_prep_truncate(op, f, end);
    run(q, op, JDB_OK);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), end);
    op = submit(q, prep_read(q, f, b, 0, 4 * PAGE, PAGE));
    jdb_queue_wait_op(q, op);
    jdb_failure failure;
    jdb_op_failure(op, &failure);
    CHECK_EQ(failure.kind, JDB_SHORT_READ);
    CHECK_EQ(failure.actual, PAGE + 1000);
    CHECK_EQ(failure.length, 4 * PAGE);
    CHECK_EQ(failure.offset, PAGE);
    CHECK_STR(failure.op, "read_at");
    CHECK_EQ(failure.error, 0);
    done(q, op, JDB_SHORT_READ);
    check_stamp(jdb_buf_data(b), 1);
    CHECK_EQ(run(q, prep_upto(q, f, b, 4 * PAGE, PAGE), JDB_OK), PAGE + 1000);
    CHECK_EQ(run(q, prep_upto(q, f, b, PAGE, 2 * PAGE), JDB_OK), 1000);
    CHECK_EQ(run(q, prep_upto(q, f, b, PAGE, 3 * PAGE), JDB_OK), 0);
    CHECK_EQ(run(q, prep_upto(q, f, b, PAGE, (uint64_t)1 << 40), JDB_OK), 0);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, 3 * PAGE), JDB_SHORT_READ), 0);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, 2 * PAGE, 0), JDB_OK), 2 * PAGE);
    op = prep_upto(q, f, b, 2 * PAGE, PAGE);
    jdb_op_set_part(op, 100, 2 * PAGE - 200);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    const void *data;
    size_t len;
    CHECK_EQ(jdb_op_part(op, &data, &len), 1);
    CHECK_EQ(len, PAGE + 900);
    CHECK(data == (uint8_t *)jdb_buf_data(b) + 100);
    done(q, op, JDB_OK);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* What the system moves in pieces arrives whole. */
static void short_transfers(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 2);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *op = submit(q, prep_read(q, g.file, b, 0, 10, 0));
    gate_pass(&g, 3);
    for (int i = 0; i < 200 && stats(q).resubmitted == 0; i++) jdb_queue_reap(q, 10000000);
    CHECK(!jdb_queue_next(q));
    CHECK_EQ(stats(q).resubmitted, 1);
    gate_pass(&g, 7);
    CHECK(next(q) == op);
    CHECK_EQ(done(q, op, JDB_OK), 10);

    op = submit(q, prep_read(q, g.file, b, 0, 10, 0));
    gate_pass(&g, 4);
    gate_close(g.other);
    CHECK(next(q) == op);
    CHECK_EQ(op->moved, 4);
    done(q, op, JDB_SHORT_READ);
    jdb_file_unref(g.file);

    struct gate w = gate_new(q, 0);
    memset(jdb_buf_data(b), 5, 4 * PAGE);
    op = submit(q, prep_write(q, w.file, b, 0, 4 * PAGE, 0));
    size_t got = 0;
    uint8_t *out = malloc(8 * PAGE);
    CHECK(out);
    while (got < 5 * PAGE) {
        jdb_queue_reap(q, 1000000);
        if (!readable((int)w.other, 0)) continue;
        ssize_t n = read((int)w.other, out + got, 3000);
        CHECK(n > 0);
        got += (size_t)n;
    }
    CHECK(next(q) == op);
    CHECK_EQ(done(q, op, JDB_OK), 4 * PAGE);
    CHECK(!readable((int)w.other, 0));
    for (size_t i = 0; i < got; i++) CHECK_EQ(out[i], i < PAGE ? 0 : 5);
    free(out);
    gate_free(&w);
    jdb_buf_unref(b);
    queue_free(q);
}

static jdb_op *prep_preallocate(jdb_queue *q, jdb_file *f, uint64_t len, jdb_prealloc how) {
    jdb_op *op = take(q);
    jdb_prep_preallocate(op, f, len, how);
    return op;
}

static void sizes(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = numbered_file(q);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    uint64_t size = FILE_PAGES * PAGE;
    jdb_op *op = prep_preallocate(q, f, PAGE, JDB_PREALLOC_SIZE);
    run(q, op, JDB_OK);
    CHECK_EQ(jdb_file_size_now(f), size);
    run(q, prep_preallocate(q, f, size + PAGE, JDB_PREALLOC_SIZE), JDB_OK);
    CHECK_EQ(jdb_file_size_now(f), size + PAGE);
    op = submit(q, prep_preallocate(q, f, size + 4 * PAGE, JDB_PREALLOC_KEEP));
    jdb_queue_wait_op(q, op);
    CHECK(jdb_op_kind(op) == JDB_OK || jdb_op_kind(op) == JDB_UNSUPPORTED);
    jdb_op_release(q, op);
    CHECK_EQ(jdb_file_size_now(f), size + PAGE);
    run(q, prep_preallocate(q, f, size + 9 * PAGE + 13, JDB_PREALLOC_ZERO), JDB_OK);
    CHECK_EQ(jdb_file_size_now(f), size + 9 * PAGE + 13);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, size - PAGE), JDB_OK), PAGE);
    check_stamp(jdb_buf_data(b), FILE_PAGES - 1);
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, size + 3 * PAGE), JDB_OK), PAGE);
    const uint8_t *data = jdb_buf_data(b);
    for (unsigned i = 0; i < PAGE; i++) CHECK_EQ(data[i], 0);
    op = take(q);
    jdb_prep_truncate(op, f, 0);
    run(q, op, JDB_OK);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), 0);
    op = submit(q, prep_file(q, JDB_STAT, f));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_stat(op)->size, 0);
    CHECK_EQ(jdb_op_stat(op)->type, 'f');
    done(q, op, JDB_OK);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* The system takes 2 GiB less a page at once. Not handed over: it would touch all of that. */
static void beyond_one_call(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = numbered_file(q);
    size_t once = ((size_t)1 << 31) - PAGE, size = once + 3 * PAGE;
    jdb_buf *b = jdb_buf_new(size, PAGE);
    if (b) {
        jdb_op *ops[] = {prep_read(q, f, b, 0, size, 0), prep_write(q, f, b, 0, size, 0)};
        for (int i = 0; i < 2; i++) {
            CHECK_EQ(jdb_op_check(ops[i]), JDB_OK);
            CHECK_EQ(jdb_op_next_chunk(ops[i]), once);
            ops[i]->moved = once;
            CHECK_EQ(jdb_op_next_chunk(ops[i]), 3 * PAGE);
            jdb_op_release(q, ops[i]);
        }
        jdb_buf_unref(b);
    } else {
        printf("%s: no address space for 2 GiB\n", backend);
    }
    jdb_file_unref(f);
    queue_free(q);
}

static void never_opened(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = jdb_file_new(q, "never opened");
    CHECK(f && jdb_file_closed(f));
    refused(q, prep_file(q, JDB_SIZE, f), JDB_CLOSED, "the file is closed");
    jdb_file_unref(f);
    queue_free(q);
}

/* What Lua's numbers cannot ask for. */
static void beyond_63_bits(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 0);
    jdb_file *f = numbered_file(q);
    jdb_op *op = take(q);
    jdb_prep_punch(op, f, (uint64_t)INT64_MAX + 1, PAGE);
    refused(q, op, JDB_OVERFLOW, "offset is beyond 2^63-1");
    op = take(q);
    jdb_prep_punch(op, f, PAGE, INT64_MAX);
    refused(q, op, JDB_OVERFLOW, "offset + length is beyond 2^63-1");
    op = take(q);
    jdb_prep_truncate(op, f, (uint64_t)INT64_MAX + 1);
    refused(q, op, JDB_OVERFLOW, "length is beyond 2^63-1");
    jdb_file_unref(f);
    queue_free(q);
}

int main(void) {
    static const struct test tests[] = {
        {"opens at once", opens_at_once},
        {"round trip", round_trip},
        {"exactly once", exactly_once},
        {"one at a time", one_at_a_time},
        {"full queue", full_queue},
        {"full rings", full_rings},
        {"long line", long_line},
        {"zero length", zero_length},
        {"alignment", alignment},
        {"busy", busy},
        {"end of file", end_of_file},
        {"short transfers", short_transfers},
        {"sizes", sizes},
        {"beyond one call", beyond_one_call},
        {"beyond 63 bits", beyond_63_bits},
        {"never opened", never_opened},
        {NULL, NULL},
    };
    static const char *const system[] = {"busy", "short transfers", NULL};
    return run_on_every_backend(tests, system);
}
