/* Buffers: alignment, zeroes, counts; which ranges are in flight, against a model that has one
 * pair of counters per byte. No queue is needed: operations enter and leave by hand. */
#include "fixture.h"
#include "os.h"

static void making(void) {
    static const size_t sizes[] = {1, 511, 512, 4095, 4096, 4097, 65536, 1000003, 9 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t align = 1; align <= 2 << 20; align *= 2) {
            jdb_buf *b = jdb_buf_new(sizes[i], align);
            CHECK(b);
            const uint8_t *data = jdb_buf_data(b);
            CHECK_EQ((uintptr_t)data % align, 0);
            CHECK_EQ((uintptr_t)data % jdb_page_size(), 0);
            CHECK_EQ(jdb_buf_size(b), sizes[i]);
            CHECK_EQ(data[0] | data[sizes[i] / 2] | data[sizes[i] - 1], 0);
            memset(jdb_buf_data(b), 0xff, sizes[i]);
            CHECK(jdb_buf_ref(b) == b);
            jdb_buf_unref(b);
            CHECK_EQ(data[sizes[i] - 1], 0xff);
            jdb_buf_unref(b);
        }
    check_nothing_lives();
}

static void impossible(void) {
    CHECK(!jdb_buf_new(0, 4096));
    CHECK(!jdb_buf_new(4096, 0));
    CHECK(!jdb_buf_new(4096, 3));
    CHECK(!jdb_buf_new(4096, 4097));
    CHECK(!jdb_buf_new(SIZE_MAX, 4096));
    CHECK(!jdb_buf_new(SIZE_MAX - 4095, 1));
    CHECK(!jdb_buf_new(PTRDIFF_MAX, 1));
    CHECK(!jdb_buf_new(1, (size_t)1 << 63));
    CHECK(!jdb_buf_new((size_t)1 << 60, 4096));
    check_nothing_lives();
}

/* ---- ranges ---------------------------------------------------------------------------------- */

enum { OPS = 40 };

struct model {
    jdb_buf *buf;
    size_t size;
    uint8_t *readers, *writers; /* per byte */
    jdb_op ops[OPS];
};

static void enter(struct model *m, jdb_op *op, int is_read, size_t off, size_t len) {
    memset(op, 0, sizeof *op);
    op->buf = m->buf;
    op->code = is_read ? JDB_READ : JDB_WRITE;
    op->buf_off = off;
    op->len = len;
    jdb_buf_enter(op);
    for (size_t i = off; i < off + len; i++) (is_read ? m->writers : m->readers)[i]++;
}

static void leave(struct model *m, jdb_op *op) {
    int is_read = op->code == JDB_READ;
    for (size_t i = op->buf_off; i < op->buf_off + op->len; i++)
        (is_read ? m->writers : m->readers)[i]--;
    jdb_buf_leave(op);
    jdb_buf_leave(op); /* harmless */
    op->buf = NULL;
}

static int allowed(const struct model *m, size_t off, size_t len, int for_writing) {
    for (size_t i = off; i < off + len; i++)
        if (m->writers[i] || (for_writing && m->readers[i])) return 0;
    return 1;
}

static void check_range(const struct model *m, size_t off, size_t len) {
    int may_read = allowed(m, off, len, 0), may_write = allowed(m, off, len, 1);
    CHECK_EQ(jdb_buf_readable(m->buf, off, len), may_read);
    CHECK_EQ(jdb_buf_writable(m->buf, off, len), may_write);
}

/* Ranges that touch the edges of pages as often as not. */
static void choose(uint64_t *seed, size_t size, size_t *off, size_t *len) {
    uint64_t r = test_random(seed);
    *off = (size_t)(test_random(seed) % (size + 1));
    *len = (size_t)(test_random(seed) % (r & 1 ? 70 : 9000));
    if (r & 2) *off = *off / PAGE * PAGE;
    if (r & 4) *len = (*len + PAGE - 1) / PAGE * PAGE;
    if (r & 8) *off += 1;
    if (*off > size) *off = size;
    if (*len > size - *off) *len = size - *off;
}

static void random_ranges(size_t size, unsigned steps, uint64_t seed) {
    struct model m;
    memset(&m, 0, sizeof m);
    m.size = size;
    m.buf = jdb_buf_new(size, PAGE);
    m.readers = calloc(size, 1);
    m.writers = calloc(size, 1);
    CHECK(m.buf && m.readers && m.writers);
    for (unsigned step = 0; step < steps; step++) {
        jdb_op *op = &m.ops[test_random(&seed) % OPS];
        size_t off, len;
        choose(&seed, size, &off, &len);
        int is_read = test_random(&seed) % 2 == 0;
        /* Empty ones are never in flight: submission finishes them. */
        if (op->buf) leave(&m, op);
        else if (len > 0 && allowed(&m, off, len, is_read)) enter(&m, op, is_read, off, len);
        for (int i = 0; i < 4; i++) {
            choose(&seed, size, &off, &len);
            check_range(&m, off, len);
        }
        check_range(&m, 0, size);
    }
    for (int i = 0; i < OPS; i++)
        if (m.ops[i].buf) leave(&m, &m.ops[i]);
    CHECK(jdb_buf_writable(m.buf, 0, size));
    jdb_buf_unref(m.buf);
    free(m.readers);
    free(m.writers);
    check_nothing_lives();
}

static void exact_edges(void) {
    struct model m;
    memset(&m, 0, sizeof m);
    m.size = 3 * PAGE;
    m.buf = jdb_buf_new(m.size, PAGE);
    m.readers = calloc(m.size, 1);
    m.writers = calloc(m.size, 1);
    CHECK(m.buf && m.readers && m.writers);
    enter(&m, &m.ops[0], 1, PAGE, PAGE);
    CHECK(jdb_buf_writable(m.buf, 0, PAGE));
    CHECK(!jdb_buf_readable(m.buf, 0, PAGE + 1));
    CHECK(!jdb_buf_readable(m.buf, 2 * PAGE - 1, 1));
    CHECK(jdb_buf_writable(m.buf, 2 * PAGE, PAGE));
    CHECK(jdb_buf_writable(m.buf, PAGE + 100, 0));
    enter(&m, &m.ops[1], 0, 2 * PAGE, PAGE);
    enter(&m, &m.ops[2], 0, 2 * PAGE, PAGE);
    CHECK(jdb_buf_readable(m.buf, 3 * PAGE, 0));
    CHECK(!jdb_buf_readable(m.buf, 3 * PAGE, 1)); /* outside: other memory was looked at */
    CHECK(!jdb_buf_readable(m.buf, 4000 * PAGE, PAGE));
    CHECK(!jdb_buf_writable(m.buf, SIZE_MAX, 2));
    leave(&m, &m.ops[1]);
    CHECK(jdb_buf_readable(m.buf, 2 * PAGE, PAGE));
    CHECK(!jdb_buf_writable(m.buf, 3 * PAGE - 1, 1));
    leave(&m, &m.ops[2]);
    CHECK(jdb_buf_writable(m.buf, 2 * PAGE, PAGE));
    leave(&m, &m.ops[0]);
    CHECK(jdb_buf_writable(m.buf, 0, 3 * PAGE));
    CHECK(!jdb_buf_writable(m.buf, 0, 3 * PAGE + 1));
    jdb_buf_unref(m.buf);
    free(m.readers);
    free(m.writers);
}

/* A hundred thousand ranges in one buffer, each asked for before it is taken: minutes, when each
 * question looks at all that are there. */
static void many_small_ranges(void) {
    enum { COUNT = 100000, SIZE = 64 };
    jdb_buf *b = jdb_buf_new((size_t)COUNT * SIZE, PAGE);
    jdb_op *ops = calloc(COUNT, sizeof *ops);
    CHECK(b && ops);
    for (size_t i = 0; i < COUNT; i++) {
        ops[i].buf = b;
        ops[i].code = i % 2 ? JDB_READ : JDB_WRITE;
        ops[i].buf_off = i * SIZE;
        ops[i].len = SIZE;
        CHECK(jdb_buf_writable(b, i * SIZE, SIZE));
        jdb_buf_enter(&ops[i]);
        CHECK(!jdb_buf_writable(b, i * SIZE, SIZE));
        CHECK_EQ(jdb_buf_readable(b, i * SIZE, SIZE), i % 2 == 0);
    }
    for (size_t i = 0; i < COUNT; i++) jdb_buf_leave(&ops[i]);
    CHECK(jdb_buf_writable(b, 0, (size_t)COUNT * SIZE));
    free(ops);
    jdb_buf_unref(b);
}

int main(void) {
    test_begin("making", 60);
    making();
    test_begin("impossible", 60);
    impossible();
    test_begin("exact edges", 60);
    exact_edges();
    test_begin("random ranges", 120);
    random_ranges(1, 200, 1);
    random_ranges(PAGE, 4000, 2);
    random_ranges(5 * PAGE + 17, 4000, 3);
    random_ranges(64 * PAGE, 2000, 4);
    random_ranges((size_t)6 << 20, 60, 5); /* pieces larger than a page */
    test_begin("many small ranges", 20);
    many_small_ranges();
    return 0;
}
