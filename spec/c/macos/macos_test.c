/* What os_macos.c makes of the calls of macOS, and what be_kqueue.c makes of kevent: on Linux, with
 * calls that answer as each test wants and note what they were asked. */
#include "../fixture.h"

#include "os.h"
#include "os_macos.h"
#include "os_posix.h"

enum { TURNS = 256 };

static const struct jdb_macos_calls *plain; /* the stand-in's own, which succeed */
static struct jdb_macos_calls calls;
static char
    asked[TURNS + 1]; /* 'F' full, 'B' barrier, 'S' sync, 'c' contiguous, 'a' anywhere, ... */
static int full_says, barrier_says, sync_says, reserve_says[2], punch_says, rename_says;
static int no_cache_says, extended_says;
static uint64_t reserved;     /* bytes asked for, in all */
static int reserves_in_truth; /* 0: reports success and does nothing */
static pthread_mutex_t noting = PTHREAD_MUTEX_INITIALIZER;

static void note(char what) {
    pthread_mutex_lock(&noting);
    size_t used = strlen(asked);
    CHECK(used < TURNS);
    asked[used] = what;
    pthread_mutex_unlock(&noting);
}

static int full_sync(int fd) {
    note('F');
    return full_says ? full_says : plain->full_sync(fd);
}

static int barrier_sync(int fd) {
    note('B');
    return barrier_says ? barrier_says : plain->barrier_sync(fd);
}

static int plain_sync(int fd) {
    note('S');
    return sync_says ? sync_says : plain->sync(fd);
}

static int reserve(int fd, int contiguous, int keep, uint64_t len, uint64_t *got) {
    note(contiguous ? 'c' : 'a');
    if (keep) note('k');
    *got = 0;
    if (reserve_says[contiguous]) return reserve_says[contiguous];
    reserved += len;
    return reserves_in_truth ? plain->reserve(fd, contiguous, keep, len, got) : 0;
}

static int punch(int fd, uint64_t off, uint64_t len) {
    note('p');
    return punch_says ? punch_says : plain->punch(fd, off, len);
}

static int rename_exclusive(int dir, const char *from, const char *to) {
    return rename_says ? rename_says : plain->rename_exclusive(dir, from, to);
}

static int no_cache(int fd) {
    (void)fd;
    note('n');
    return no_cache_says;
}

static int no_cache_extended(int fd) {
    (void)fd;
    note('e');
    return extended_says;
}

static int translated(void) { return 1; }

static void forget(void) { memset(asked, 0, sizeof asked); }

/* Every call noted, and successful unless told otherwise. */
static jdb_queue *new_queue(const char *backend) {
    plain = jdb_macos;
    calls = *plain;
    calls.full_sync = full_sync;
    calls.barrier_sync = barrier_sync;
    calls.sync = plain_sync;
    calls.reserve = reserve;
    calls.punch = punch;
    calls.rename_exclusive = rename_exclusive;
    calls.no_cache = no_cache;
    calls.no_cache_extended = no_cache_extended;
    reserves_in_truth = 1;
    jdb_macos = &calls;
    return queue_new(backend, 32, 4);
}

static jdb_op *open_how(jdb_queue *q, unsigned flags, jdb_direct direct, jdb_sync_level level) {
    jdb_op *op = take(q);
    jdb_open how = {.mode = 0666, .direct = direct, .sync_level = level};
    how.flags = flags | JDB_OPEN_WRITE | JDB_OPEN_CREATE;
    CHECK_EQ(jdb_prep_open(q, op, path_of("file"), &how), 0);
    return op;
}

static jdb_file *new_file(jdb_queue *q, unsigned flags, jdb_sync_level level) {
    jdb_op *op = submit(q, open_how(q, flags, JDB_DIRECT_REQUIRE, level));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_kind(op), JDB_OK);
    jdb_file *file = jdb_file_ref(jdb_op_file(op));
    jdb_op_release(q, op);
    forget();
    return file;
}

static jdb_file_info info_of(const jdb_file *f) {
    jdb_file_info info;
    jdb_file_info_get(f, &info);
    return info;
}

static void end(jdb_queue *q, jdb_file *f, jdb_buf *b) {
    if (f) jdb_file_unref(f);
    if (b) jdb_buf_unref(b);
    check_idle(q);
    queue_free(q);
}

static jdb_op *prep_page(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned page, unsigned flags) {
    jdb_op *op = take(q);
    jdb_prep_write(op, f, b, 0, PAGE, (uint64_t)page * PAGE, flags);
    return op;
}

static void refused(jdb_queue *q, jdb_op *op, jdb_kind kind, const char *word) {
    jdb_failure failure;
    char text[JDB_MESSAGE_MAX];
    CHECK_EQ(jdb_op_check(op), kind);
    jdb_op_failure(op, &failure);
    jdb_failure_message(&failure, text, sizeof text);
    CHECK(strstr(text, word));
    jdb_op_release(q, op);
}

/* ---- flushes --------------------------------------------------------------------------------- */

/* A weaker flush is asked for only where the stronger one does not exist; a flush that failed is
 * not asked for again, nor is another. A success was given by the call that was made last. */
static void ladder(const char *backend) {
    static const struct {
        jdb_sync_level wanted;
        int full, barrier, sync;
        const char *asked, *asked_again;
        int error;
        jdb_sync_level level;
    } cases[] = {
        {JDB_SYNC_FULL, 0, 0, 0, "F", "F", 0, JDB_SYNC_FULL},
        {JDB_SYNC_FULL, -EIO, 0, 0, "F", NULL, EIO, JDB_SYNC_FULL},
        {JDB_SYNC_FULL, -ENOSPC, 0, 0, "F", NULL, ENOSPC, JDB_SYNC_FULL},
        {JDB_SYNC_FULL, -ENOTSUP, 0, 0, "FB", "B", 0, JDB_SYNC_BARRIER},
        {JDB_SYNC_FULL, -ENOTTY, -EIO, 0, "FB", NULL, EIO, JDB_SYNC_BARRIER},
        {JDB_SYNC_FULL, -EINVAL, -ENOTTY, 0, "FBS", "S", 0, JDB_SYNC_OS},
        {JDB_SYNC_FULL, -ENOTTY, -ENOTSUP, -EIO, "FBS", NULL, EIO, JDB_SYNC_OS},
        {JDB_SYNC_BARRIER, -EIO, 0, 0, "B", "B", 0, JDB_SYNC_BARRIER},
        {JDB_SYNC_BARRIER, 0, -EIO, 0, "B", NULL, EIO, JDB_SYNC_BARRIER},
        {JDB_SYNC_BARRIER, 0, -ENOTTY, 0, "BS", "S", 0, JDB_SYNC_OS},
    };
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        jdb_queue *q = new_queue(backend);
        jdb_file *f = new_file(q, 0, cases[i].wanted);
        CHECK_EQ(info_of(f).sync_level, cases[i].wanted);
        full_says = cases[i].full;
        barrier_says = cases[i].barrier;
        sync_says = cases[i].sync;
        run(q, prep_file(q, JDB_SYNC_DATA, f), cases[i].error ? JDB_IO : JDB_OK);
        CHECK_STR(asked, cases[i].asked);
        CHECK_EQ(info_of(f).sync_level, cases[i].level);
        CHECK_EQ(info_of(f).poisoned, cases[i].error);
        forget();
        if (cases[i].error) {
            refused(q, prep_file(q, JDB_SYNC_ALL, f), JDB_POISONED, "earlier flush");
        } else {
            run(q, prep_file(q, JDB_SYNC_ALL, f), JDB_OK);
            CHECK_STR(asked, cases[i].asked_again);
        }
        full_says = barrier_says = sync_says = 0;
        end(q, f, NULL);
        jdb_macos = plain;
    }
}

/* Names have no weaker level, whatever a file was opened with. */
static void directories_are_flushed_in_full(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_SYNC_DIR, test_dir(), 0), 0);
    run(q, op, JDB_OK);
    CHECK_STR(asked, "F");
    forget();
    op = submit(q, open_how(q, JDB_OPEN_DURABLE, JDB_DIRECT_OFF, JDB_SYNC_BARRIER));
    jdb_queue_wait_op(q, op);
    done(q, op, JDB_OK);
    CHECK_STR(asked, "FF");
    full_says = -EIO;
    op = take(q);
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_SYNC_DIR, test_dir(), 0), 0);
    run(q, op, JDB_IO);
    end(q, NULL, NULL);
}

/* An order is no durability: neither a handle nor a write gets both. */
static void barrier_is_no_durability(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    refused(q, open_how(q, JDB_OPEN_DSYNC, JDB_DIRECT_OFF, JDB_SYNC_BARRIER), JDB_UNSUPPORTED,
            "no write to be durable");
    refused(q, open_how(q, 0, JDB_DIRECT_OFF, JDB_SYNC_OS), JDB_UNSUPPORTED, "sync_level");
    jdb_file *f = new_file(q, 0, JDB_SYNC_BARRIER);
    refused(q, prep_page(q, f, b, 0, JDB_WRITE_DSYNC), JDB_UNSUPPORTED, "no write to be durable");
    jdb_op *many = take(q);
    jdb_prep_many(many, JDB_WRITE_MANY, f, JDB_WRITE_DSYNC);
    refused(q, many, JDB_UNSUPPORTED, "no write to be durable");
    run(q, prep_page(q, f, b, 0, 0), JDB_OK);
    CHECK_STR(asked, "");
    end(q, f, b);
}

/* ---- handles whose every write is durable ---------------------------------------------------- */

/* What the file holds when it is flushed. */
static uint8_t flushed[4];
static int full_sync_of_what_is_there(int fd) {
    note('F');
    for (unsigned i = 0; i < sizeof flushed; i++) flushed[i] = 0;
    for (unsigned i = 0; i < sizeof flushed; i++)
        if (pread(fd, &flushed[i], 1, (off_t)i * PAGE) < 0) return -errno;
    return 0;
}

static void durable_handle_writes_then_flushes(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    calls.full_sync = full_sync_of_what_is_there;
    jdb_file *f = new_file(q, JDB_OPEN_DSYNC, JDB_SYNC_FULL);
    CHECK_EQ(fcntl((int)f->handle, F_GETFL) & O_DSYNC, 0);
    CHECK(strstr(jdb_file_method_reason(f), "flush"));
    CHECK(info_of(f).dsync);
    memset(jdb_buf_data(b), 'w', PAGE);
    for (unsigned i = 0; i < 3; i++) {
        forget();
        CHECK_EQ(run(q, prep_page(q, f, b, i, 0), JDB_OK), PAGE);
        CHECK_STR(asked, "F"); /* before the write is told as done */
        for (unsigned k = 0; k < 4; k++) CHECK_EQ(flushed[k], k <= i ? 'w' : 0);
    }
    CHECK_EQ(stats(q).flushes, 3);
    end(q, f, b);
}

static void durable_handle_shares_flushes(const char *backend) {
    enum { WRITES = 12 };
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_OPEN_DSYNC, JDB_SYNC_FULL);
    for (unsigned i = 0; i < WRITES; i++) submit(q, prep_page(q, f, b, i, 0));
    for (unsigned i = 0; i < WRITES; i++) CHECK_EQ(done(q, next(q), JDB_OK), PAGE);
    CHECK(strlen(asked) >= 1 && strlen(asked) < WRITES);
    /* A list has one, and reads have none. */
    forget();
    jdb_op *many = take(q);
    jdb_prep_many(many, JDB_WRITE_MANY, f, 0);
    for (unsigned i = 0; i < 5; i++)
        CHECK_EQ(jdb_many_add(many, b, 0, PAGE, i * PAGE, NULL), JDB_OK);
    CHECK_EQ(run(q, many, JDB_OK), 5);
    CHECK_STR(asked, "F");
    many = take(q);
    jdb_prep_many(many, JDB_READ_MANY, f, 0);
    CHECK_EQ(jdb_many_add(many, b, 0, PAGE, 0, NULL), JDB_OK);
    CHECK_EQ(run(q, many, JDB_OK), 1);
    CHECK_STR(asked, "F");
    end(q, f, b);
}

/* Written, and not known to be durable: the write fails, and so does every later one. */
static void durable_handle_with_a_failing_flush(const char *backend) {
    static const int errors[] = {EIO, ENOSPC, ENOMEM};
    for (unsigned i = 0; i < sizeof errors / sizeof *errors; i++) {
        jdb_queue *q = new_queue(backend);
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        jdb_file *f = new_file(q, JDB_OPEN_DSYNC, JDB_SYNC_FULL);
        full_says = -errors[i];
        jdb_op *op = submit(q, prep_page(q, f, b, 2, 0));
        jdb_queue_wait_op(q, op);
        CHECK(jdb_op_kind(op) != JDB_OK);
        jdb_op_release(q, op);
        CHECK_EQ(info_of(f).poisoned, errors[i]);
        CHECK_EQ(info_of(f).doubt_from, 2 * PAGE);
        CHECK_EQ(info_of(f).doubt_to, 3 * PAGE);
        full_says = 0;
        refused(q, prep_page(q, f, b, 0, 0), JDB_POISONED, "earlier flush");
        CHECK_STR(asked, "F");
        end(q, f, b);
        jdb_macos = plain;
    }
}

/* ---- space ----------------------------------------------------------------------------------- */

static jdb_op *prep_space(jdb_queue *q, jdb_file *f, uint64_t len, jdb_prealloc how) {
    jdb_op *op = take(q);
    jdb_prep_preallocate(op, f, len, how);
    return op;
}

static uint64_t allocated(const jdb_file *f) {
    struct stat st;
    CHECK_EQ(fstat((int)f->handle, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

enum { MIB = 1 << 20 };

static void reserves_what_is_missing(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(16 * PAGE, PAGE);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    memset(jdb_buf_data(b), 'd', 16 * PAGE);
    run(q, prep_write(q, f, b, 0, 16 * PAGE, 0), JDB_OK);
    run(q, prep_file(q, JDB_SYNC_ALL, f), JDB_OK);
    CHECK_EQ(allocated(f), 16 * PAGE);
    forget();
    run(q, prep_space(q, f, MIB, JDB_PREALLOC_SIZE), JDB_OK);
    CHECK_STR(asked, "c");
    CHECK_EQ(reserved, MIB - 16 * PAGE);
    CHECK_EQ(allocated(f), MIB);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), MIB);
    /* Enough is there: not one byte more is asked for. */
    run(q, prep_space(q, f, MIB, JDB_PREALLOC_SIZE), JDB_OK);
    run(q, prep_space(q, f, MIB / 2, JDB_PREALLOC_KEEP), JDB_OK);
    run(q, prep_space(q, f, 0, JDB_PREALLOC_SIZE), JDB_OK);
    CHECK_STR(asked, "c");
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), MIB);
    /* Past the end, and it stays when the file is closed. */
    forget();
    run(q, prep_space(q, f, 2 * MIB, JDB_PREALLOC_KEEP), JDB_OK);
    CHECK_STR(asked, "ck");
    CHECK_EQ(reserved, 2 * MIB - 16 * PAGE);
    CHECK_EQ(allocated(f), 2 * MIB);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), MIB);
    end(q, f, b);
}

static void contiguous_first_then_anywhere(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    reserve_says[1] = -ENOSPC;
    run(q, prep_space(q, f, MIB, JDB_PREALLOC_SIZE), JDB_OK);
    CHECK_STR(asked, "ca");
    CHECK_EQ(reserved, MIB);
    CHECK_EQ(allocated(f), MIB);
    reserve_says[0] = -ENOSPC;
    forget();
    for (jdb_prealloc how = JDB_PREALLOC_SIZE; how <= JDB_PREALLOC_ZERO; how++)
        run(q, prep_space(q, f, 2 * MIB, how), JDB_IO);
    CHECK_STR(asked, "cackakca");
    CHECK_EQ(allocated(f), MIB);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), MIB);
    end(q, f, NULL);
}

/* A file system that reserves nothing, and one that does not just now. */
static void zeros_where_nothing_can_be_reserved(const char *backend) {
    static const int errors[] = {-ENOTSUP, -EINVAL};
    for (unsigned i = 0; i < 2; i++) {
        jdb_queue *q = new_queue(backend);
        jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
        reserve_says[0] = reserve_says[1] = errors[i];
        run(q, prep_space(q, f, MIB, JDB_PREALLOC_KEEP), JDB_UNSUPPORTED);
        CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), 0);
        run(q, prep_space(q, f, MIB + 5, JDB_PREALLOC_SIZE), JDB_OK);
        run(q, prep_file(q, JDB_SYNC_ALL, f), JDB_OK);
        CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), MIB + 5);
        CHECK(allocated(f) >= MIB + 5);
        run(q, prep_space(q, f, 2 * MIB, JDB_PREALLOC_ZERO), JDB_OK);
        CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), 2 * MIB);
        reserve_says[0] = reserve_says[1] = 0;
        end(q, f, NULL);
        jdb_macos = plain;
    }
}

/* A success without the space is none. */
static void success_without_space(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    reserves_in_truth = 0;
    run(q, prep_space(q, f, MIB, JDB_PREALLOC_SIZE), JDB_IO);
    CHECK_EQ(run(q, prep_file(q, JDB_SIZE, f), JDB_OK), 0);
    end(q, f, NULL);
}

/* Nothing can be reserved inside a hole, and more must not be taken behind the end instead. */
static void holes_are_not_reserved(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    jdb_op *op = take(q);
    jdb_prep_truncate(op, f, MIB);
    run(q, op, JDB_OK);
    run(q, prep_space(q, f, 2 * MIB, JDB_PREALLOC_KEEP), JDB_UNSUPPORTED);
    run(q, prep_space(q, f, MIB, JDB_PREALLOC_SIZE), JDB_UNSUPPORTED);
    CHECK_STR(asked, "");
    CHECK_EQ(allocated(f), 0);
    end(q, f, NULL);
}

static jdb_op *prep_hole(jdb_queue *q, jdb_file *f, uint64_t off, uint64_t len) {
    jdb_op *op = take(q);
    jdb_prep_punch(op, f, off, len);
    return op;
}

/* The system takes whole blocks only; a program may name any bytes. */
static void holes_of_any_bytes(const char *backend) {
    static const struct {
        uint64_t off, len;
        const char *asked;
    } cases[] = {{PAGE, 2 * PAGE, "p"},
                 {100, 3 * PAGE, "p"},
                 {PAGE + 1, 50, ""},
                 {PAGE - 1, 2, ""},
                 {0, 8 * PAGE, "p"},
                 {6 * PAGE + 7, 100 * PAGE, "p"},
                 {8 * PAGE + 3, 50 * PAGE, ""},
                 {PAGE, 0, ""}};
    enum { SIZE = 8 * PAGE + 3 };
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(9 * PAGE, PAGE);
    uint8_t *data = jdb_buf_data(b);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        jdb_op *cut = take(q);
        memset(data, 'd', 9 * PAGE);
        run(q, prep_write(q, f, b, 0, 9 * PAGE, 0), JDB_OK);
        jdb_prep_truncate(cut, f, SIZE);
        run(q, cut, JDB_OK);
        forget();
        run(q, prep_hole(q, f, cases[i].off, cases[i].len), JDB_OK);
        CHECK_STR(asked, cases[i].asked);
        jdb_op *op = take(q);
        jdb_prep_read(op, f, b, 0, 9 * PAGE, 0, JDB_READ_UPTO);
        CHECK_EQ(run(q, op, JDB_OK), SIZE);
        for (uint64_t k = 0; k < SIZE; k++)
            CHECK_EQ(data[k], k >= cases[i].off && k < cases[i].off + cases[i].len ? 0 : 'd');
    }
    end(q, f, b);
}

static void no_holes_here(const char *backend) {
    jdb_queue *q = new_queue(backend);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    uint8_t *data = jdb_buf_data(b);
    jdb_file *f = new_file(q, JDB_OPEN_TRUNCATE, JDB_SYNC_FULL);
    memset(data, 'd', 4 * PAGE);
    run(q, prep_write(q, f, b, 0, 4 * PAGE, 0), JDB_OK);
    punch_says = -ENOTSUP;
    run(q, prep_hole(q, f, 10, 3 * PAGE), JDB_UNSUPPORTED);
    punch_says = -EPERM;
    run(q, prep_hole(q, f, 10, 3 * PAGE), JDB_IO);
    run(q, prep_read(q, f, b, 0, 4 * PAGE, 0), JDB_OK);
    for (unsigned k = 0; k < 4 * PAGE; k++) CHECK_EQ(data[k], 'd');
    end(q, f, b);
}

/* ---- direct I/O ------------------------------------------------------------------------------ */

static void which_writes_pass_the_cache(const char *backend) {
    jdb_queue *q = new_queue(backend);
    static const struct {
        int extended, plain;
        const char *asked;
        uint32_t unit;
    } cases[] = {{0, 0, "e", 4096}, {-EINVAL, 0, "en", 16384}, {-EBADF, 0, "en", 16384}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        extended_says = cases[i].extended;
        no_cache_says = cases[i].plain;
        forget();
        jdb_op *op = submit(q, open_how(q, 0, JDB_DIRECT_REQUIRE, JDB_SYNC_FULL));
        jdb_queue_wait_op(q, op);
        CHECK_STR(asked, cases[i].asked);
        jdb_file_info info = info_of(jdb_op_file(op));
        CHECK_EQ(info.direct, 1);
        CHECK_EQ(info.direct_write_unit, cases[i].unit);
        CHECK_EQ(info.write_align, 4096);
        CHECK(
            strstr(info.direct_reason, cases[i].extended ? "F_NOCACHE accepted" : "F_NOCACHE_EXT"));
        CHECK_STR(info.file_system, "apfs");
        done(q, op, JDB_OK);
    }
    end(q, NULL, NULL);
}

static void no_direct_io_here(const char *backend) {
    jdb_failure failure;
    for (int round = 0; round < 2; round++) {
        jdb_queue *q = new_queue(backend);
        extended_says = no_cache_says = -ENOTSUP;
        if (round) calls.translated = translated;
        jdb_op *op = submit(q, open_how(q, 0, JDB_DIRECT_REQUIRE, JDB_SYNC_FULL));
        jdb_queue_wait_op(q, op);
        jdb_op_failure(op, &failure);
        CHECK(strstr(failure.cause, round ? "Intel" : "refuses direct I/O"));
        CHECK(strstr(failure.cause, "option direct"));
        done(q, op, JDB_UNSUPPORTED);
        op = submit(q, open_how(q, 0, JDB_DIRECT_PREFER, JDB_SYNC_FULL));
        jdb_queue_wait_op(q, op);
        jdb_file_info info = info_of(jdb_op_file(op));
        CHECK_EQ(info.direct, 0);
        CHECK_EQ(info.direct_write_unit, 0);
        CHECK_EQ(info.write_align, 1);
        CHECK(info.direct_reason);
        done(q, op, JDB_OK);
        end(q, NULL, NULL);
        jdb_macos = plain;
    }
}

/* ---- names and evidence ---------------------------------------------------------------------- */

static void renaming_onto_nothing(const char *backend) {
    static const struct {
        int says, error;
        jdb_kind kind;
    } cases[] = {{-ENOTSUP, EOPNOTSUPP, JDB_UNSUPPORTED},
                 {-EEXIST, EEXIST, JDB_IO},
                 {-EINVAL, EINVAL, JDB_IO}};
    jdb_queue *q = new_queue(backend);
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        jdb_failure failure;
        rename_says = cases[i].says;
        jdb_op *op = take(q);
        CHECK_EQ(jdb_prep_rename(op, path_of("a"), path_of("b"), JDB_RENAME_NOREPLACE), 0);
        submit(q, op);
        jdb_queue_wait_op(q, op);
        jdb_op_failure(op, &failure);
        CHECK_EQ(failure.error, cases[i].error);
        done(q, op, cases[i].kind);
    }
    end(q, NULL, NULL);
}

static void evidence(const char *backend) {
    static const struct {
        const char *file_system;
        int async;
        const char *class_name;
    } cases[] = {{"apfs", 0, "unverified"}, {"hfs", 0, "unverified"}, {"hfs", 1, "unsafe"},
                 {"nfs", 0, "unsafe"},      {"exfat", 0, "unsafe"},   {"zfs", 0, "unknown"}};
    static const char *const journaled[] = {"apfs", "hfs", NULL};
    (void)backend;
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct jdb_bsd_mount mount = {.device = "/dev/disk1", .async = cases[i].async};
        jdb_evidence e;
        snprintf(mount.file_system, sizeof mount.file_system, "%s", cases[i].file_system);
        jdb_bsd_classify(&mount, journaled, "asks", &e);
        CHECK_STR(e.class_name, cases[i].class_name);
        CHECK_STR(e.device, "/dev/disk1");
        CHECK_EQ(e.volatile_cache, -1);
        CHECK(e.reasons[0]);
    }
}

/* ---- the notifier ---------------------------------------------------------------------------- */

static int waits_out(int handle) {
    int64_t start = jdb_now();
    jdb_os_notify_wait(handle, 20000000);
    return jdb_now() - start >= 20000000;
}

static void signals_merge(const char *backend) {
    (void)backend;
    int handle = jdb_os_notify_new();
    CHECK(handle >= 0);
    int fd = jdb_os_notify_fd(handle);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(!readable(fd, 0));
    for (int i = 0; i < 3; i++) jdb_os_notify_signal(handle);
    CHECK(readable(fd, 0));
    CHECK(!waits_out(handle)); /* the wait takes all three */
    CHECK(!readable(fd, 0));
    CHECK(waits_out(handle));
    jdb_os_notify_signal(handle);
    jdb_os_notify_clear(handle);
    CHECK(!readable(fd, 0));
    CHECK(waits_out(handle));
    jdb_os_notify_clear(handle); /* without one: does not wait */
    jdb_os_notify_free(handle);
    CHECK_EQ(fcntl(fd, F_GETFD), -1);
}

static void *signal_later(void *argument) {
    jdb_sleep(20000000);
    jdb_os_notify_signal(*(int *)argument);
    return NULL;
}

static void another_thread_signals(const char *backend) {
    (void)backend;
    pthread_t thread;
    int handle = jdb_os_notify_new();
    for (int i = 0; i < 5; i++) {
        CHECK_EQ(pthread_create(&thread, NULL, signal_later, &handle), 0);
        jdb_os_notify_wait(handle, -1);
        pthread_join(thread, NULL);
    }
    jdb_os_notify_free(handle);
}

/* A child has no kqueue of its parent's: under the number there may be a file of its own by then,
 * and one of its own notifiers. */
static void a_child_closes_nothing_of_its_own(const char *backend) {
    (void)backend;
    int handle = jdb_os_notify_new(), status;
    jdb_os_fork_generation();
    pid_t child = fork();
    if (child == 0) {
        int fd = open("/dev/null", O_RDONLY);
        while (fd < jdb_os_notify_fd(handle)) fd = dup(fd);
        CHECK_EQ(fd, jdb_os_notify_fd(handle));
        jdb_os_notify_free(handle);
        CHECK(fcntl(fd, F_GETFD) >= 0);
        close(fd);
        int own = jdb_os_notify_new();
        CHECK_EQ(jdb_os_notify_fd(own), fd);
        jdb_os_notify_free(handle);
        jdb_os_notify_signal(own);
        CHECK(readable(fd, 0));
        jdb_os_notify_free(own);
        CHECK_EQ(fcntl(fd, F_GETFD), -1);
        _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    jdb_os_notify_signal(handle);
    CHECK(readable(jdb_os_notify_fd(handle), 0));
    jdb_os_notify_free(handle);
}

static const struct test tests[] = {
    {"a flush goes down only where there is none", ladder},
    {"directories are flushed in full", directories_are_flushed_in_full},
    {"a barrier is no durability", barrier_is_no_durability},
    {"a durable handle writes, then flushes", durable_handle_writes_then_flushes},
    {"a durable handle shares flushes", durable_handle_shares_flushes},
    {"a durable handle with a failing flush", durable_handle_with_a_failing_flush},
    {"only what is missing is reserved", reserves_what_is_missing},
    {"contiguous first, then anywhere", contiguous_first_then_anywhere},
    {"zeros where nothing can be reserved", zeros_where_nothing_can_be_reserved},
    {"a success without space", success_without_space},
    {"holes are not reserved", holes_are_not_reserved},
    {"holes of any bytes", holes_of_any_bytes},
    {"no holes here", no_holes_here},
    {"which writes pass the cache", which_writes_pass_the_cache},
    {"no direct I/O here", no_direct_io_here},
    {"renaming onto nothing", renaming_onto_nothing},
    {"evidence", evidence},
    {"signals merge", signals_merge},
    {"another thread signals", another_thread_signals},
    {"a child closes nothing of its own", a_child_closes_nothing_of_its_own},
    {NULL, NULL}};

int main(void) {
    int failures = 0;
    unsetenv("JDBFS_BACKEND");
    for (const struct test *t = tests; t->name; t++) {
        struct test_case c = {t, "kqueue"};
        failures += test_apart(t->name, 60, run_case, &c);
    }
    return failures > 0;
}
