/* What every backend must do alike, part three: names, directories and how files open. */
#include "fixture.h"

#include <sys/stat.h>

static jdb_op *path_op(jdb_queue *q, jdb_code code, const char *path) {
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_path(op, code, path, 0), 0);
    return op;
}

static int64_t path_run(jdb_queue *q, jdb_code code, const char *path, jdb_kind kind) {
    return run(q, path_op(q, code, path), kind);
}

/* It fails with this errno, and says of which path. */
static void fails(jdb_queue *q, jdb_op *op, int error) {
    jdb_failure failure;
    char text[JDB_MESSAGE_MAX];
    submit(q, op);
    jdb_queue_wait_op(q, op);
    jdb_op_failure(op, &failure);
    CHECK(failure.kind != JDB_OK);
    CHECK_EQ(failure.error, error);
    CHECK(failure.path);
    CHECK_EQ(failure.offset, -1);
    jdb_failure_message(&failure, text, sizeof text);
    CHECK(strstr(text, failure.op) == text);
    CHECK(strstr(text, jdb_errno_name(error)));
    jdb_op_release(q, op);
}

static jdb_op *rename_op(jdb_queue *q, const char *from, const char *to, unsigned flags) {
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_rename(op, from, to, flags), 0);
    return op;
}

static void make_file(jdb_queue *q, const char *path) {
    jdb_file_unref(open_file(q, path, JDB_OPEN_WRITE | JDB_OPEN_CREATE));
}

static void directories(const char *backend) {
    char deep[4400], name[4450];
    jdb_queue *q = queue_new(backend, 4, 2);
    snprintf(deep, sizeof deep, "%s/%s-d/a//b/c", test_dir(), backend);
    path_run(q, JDB_PATH_MKDIR, deep, JDB_OK);
    path_run(q, JDB_PATH_MKDIR, deep, JDB_OK);
    CHECK_EQ(path_run(q, JDB_PATH_EXISTS, deep, JDB_OK), 1);
    static const char *const names[] = {"b", "a", "B", "a.b", ".hidden", "\xff", "zz zz"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(name, sizeof name, "%s/%s", deep, names[i]);
        make_file(q, name);
    }
    snprintf(name, sizeof name, "%s/directory", deep);
    path_run(q, JDB_PATH_MKDIR, name, JDB_OK);
    snprintf(name, sizeof name, "%s/link", deep);
    CHECK_EQ(symlink("a", name), 0);
    jdb_op *op = submit(q, path_op(q, JDB_PATH_LS, deep));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_kind(op), JDB_OK);
    static const char *const sorted[] = {".hidden", "B", "a", "a.b", "b", "zz zz", "\xff"};
    size_t count;
    const char *at = jdb_op_names(op, &count);
    CHECK_EQ(count, 7);
    for (size_t i = 0; i < count; i++, at += strlen(at) + 1) CHECK_STR(at, sorted[i]);
    jdb_op_release(q, op);
    path_run(q, JDB_PATH_SYNC_DIR, deep, JDB_OK);
    snprintf(name, sizeof name, "%s/directory", deep);
    op = submit(q, path_op(q, JDB_PATH_LS, name));
    jdb_queue_wait_op(q, op);
    jdb_op_names(op, &count);
    CHECK_EQ(count, 0);
    done(q, op, JDB_OK);
    fails(q, path_op(q, JDB_PATH_REMOVE, name), EISDIR);
    snprintf(name, sizeof name, "%s/a/below", deep);
    fails(q, path_op(q, JDB_PATH_MKDIR, name), ENOTDIR);
    CHECK_EQ(path_run(q, JDB_PATH_EXISTS, name, JDB_OK), 0);
    snprintf(name, sizeof name, "%s/none", deep);
    fails(q, path_op(q, JDB_PATH_LS, name), ENOENT);
    fails(q, path_op(q, JDB_PATH_SYNC_DIR, name), ENOENT);
    queue_free(q);
}

static void many_names(const char *backend) {
    enum { COUNT = 1500 };
    char path[4400], want[160];
    jdb_queue *q = queue_new(backend, 16, 4);
    snprintf(path, sizeof path, "%s/%s-many", test_dir(), backend);
    path_run(q, JDB_PATH_MKDIR, path, JDB_OK);
    for (int i = 0; i < COUNT; i++) {
        snprintf(want, sizeof want, "%s-many/%0120d", backend, (i * 7) % COUNT);
        submit(q, prep_open(q, path_of(want), JDB_OPEN_WRITE | JDB_OPEN_CREATE));
    }
    for (int i = 0; i < COUNT; i++) done(q, next(q), JDB_OK);
    jdb_op *op = submit(q, path_op(q, JDB_PATH_LS, path));
    jdb_queue_wait_op(q, op);
    size_t count;
    const char *at = jdb_op_names(op, &count);
    CHECK_EQ(count, COUNT);
    for (int i = 0; i < COUNT; i++, at += strlen(at) + 1) {
        snprintf(want, sizeof want, "%0120d", i);
        CHECK_STR(at, want);
    }
    done(q, op, JDB_OK);
    queue_free(q);
}

static void moving(const char *backend) {
    char a[4400], b[4400];
    jdb_queue *q = queue_new(backend, 4, 2);
    snprintf(a, sizeof a, "%s/%s-a", test_dir(), backend);
    snprintf(b, sizeof b, "%s/%s-b", test_dir(), backend);
    make_file(q, a);
    run(q, rename_op(q, a, b, 0), JDB_OK);
    CHECK_EQ(path_run(q, JDB_PATH_EXISTS, a, JDB_OK), 0);
    make_file(q, a);
    jdb_op *op = submit(q, rename_op(q, a, b, JDB_RENAME_NOREPLACE));
    jdb_queue_wait_op(q, op);
    jdb_failure failure;
    jdb_op_failure(op, &failure);
    CHECK(failure.error == EEXIST || failure.error == EINVAL);
    jdb_op_release(q, op);
    CHECK_EQ(path_run(q, JDB_PATH_EXISTS, a, JDB_OK), 1);
    run(q, rename_op(q, a, b, 0), JDB_OK);
    CHECK_EQ(path_run(q, JDB_PATH_SIZE, b, JDB_OK), 0);
    path_run(q, JDB_PATH_REMOVE, b, JDB_OK);
    fails(q, path_op(q, JDB_PATH_REMOVE, b), ENOENT);
    fails(q, rename_op(q, a, b, 0), ENOENT);
    fails(q, path_op(q, JDB_PATH_SIZE, b), ENOENT);
    fails(q, path_op(q, JDB_PATH_STAT, b), ENOENT);
    fails(q, path_op(q, JDB_PATH_STAT, ""), ENOENT);
    fails(q, path_op(q, JDB_PATH_MKDIR, ""), ENOENT);
    queue_free(q);
}

static void long_names(const char *backend) {
    char name[300];
    jdb_queue *q = queue_new(backend, 4, 2);
    memset(name, 'n', sizeof name);
    name[255] = 0;
    make_file(q, path_of(name));
    CHECK_EQ(path_run(q, JDB_PATH_EXISTS, path_of(name), JDB_OK), 1);
    path_run(q, JDB_PATH_REMOVE, path_of(name), JDB_OK);
    name[255] = 'n';
    name[256] = 0;
    fails(q, prep_open(q, path_of(name), JDB_OPEN_WRITE | JDB_OPEN_CREATE), ENAMETOOLONG);
    fails(q, path_op(q, JDB_PATH_STAT, path_of(name)), ENAMETOOLONG);
    queue_free(q);
}

static void opening(const char *backend) {
    char path[4400], fifo[4400];
    jdb_queue *q = queue_new(backend, 4, 2);
    snprintf(path, sizeof path, "%s/%s-open", test_dir(), backend);
    fails(q, prep_open(q, path, 0), ENOENT);
    fails(q, prep_open(q, path, JDB_OPEN_WRITE), ENOENT);
    fails(q, prep_open(q, test_dir(), 0), EISDIR);
    fails(q, prep_open(q, test_dir(), JDB_OPEN_WRITE | JDB_OPEN_CREATE), EISDIR);
    mode_t mask = umask(027);
    make_file(q, path);
    umask(mask);
    jdb_op *op = submit(q, path_op(q, JDB_PATH_STAT, path));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(jdb_op_stat(op)->mode, 0640);
    CHECK_EQ(jdb_op_stat(op)->type, 'f');
    CHECK_EQ(jdb_op_stat(op)->links, 1);
    done(q, op, JDB_OK);
    fails(q, prep_open(q, path, JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_EXCLUSIVE), EEXIST);
    fails(q, prep_open(q, path, JDB_OPEN_DEVICE), EINVAL);
    snprintf(fifo, sizeof fifo, "%s/%s-fifo", test_dir(), backend);
    CHECK_EQ(mkfifo(fifo, 0600), 0);
    jdb_op *refused = submit(q, prep_open(q, fifo, 0));
    jdb_queue_wait_op(q, refused);
    CHECK_EQ(jdb_op_kind(refused), JDB_IO);
    jdb_op_release(q, refused);

    jdb_file *f = open_file(q, path, JDB_OPEN_WRITE);
    op = take(q);
    jdb_prep_truncate(op, f, 12345);
    run(q, op, JDB_OK);
    jdb_file_unref(f);
    f = open_file(q, path, JDB_OPEN_DSYNC | JDB_OPEN_WRITE | JDB_OPEN_ATIME);
    CHECK_EQ(jdb_file_size_now(f), 12345);
    jdb_file_info info;
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.dsync, 1);
    CHECK_EQ(info.writable, 1);
    CHECK_EQ(info.device, 0);
    CHECK(info.memory_align > 0 && (info.memory_align & (info.memory_align - 1)) == 0);
    CHECK(info.file_system[0] && info.align_source[0] && info.direct_reason[0]);
    CHECK_STR(jdb_file_path(f), path);
    jdb_file_unref(f);
    f = open_file(q, path, JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE);
    CHECK_EQ(jdb_file_size_now(f), 0);
    jdb_file_unref(f);
    queue_free(q);
}

/* Without direct I/O any offset and any length will do. */
static void buffered(const char *backend) {
    jdb_queue *q = queue_new(backend, 4, 2);
    jdb_buf *b = jdb_buf_new(PAGE, 1);
    jdb_op *op = take(q);
    jdb_open how = {.flags = JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE,
                    .mode = 0666,
                    .direct = JDB_DIRECT_OFF};
    CHECK_EQ(jdb_prep_open(q, op, path_of("buffered"), &how), 0);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    jdb_file *f = jdb_file_ref(jdb_op_file(op));
    done(q, op, JDB_OK);
    jdb_file_info info;
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.direct, 0);
    CHECK_EQ(info.write_align, 1);
    memcpy(jdb_buf_data(b), "hello", 5);
    CHECK_EQ(run(q, prep_write(q, f, b, 0, 5, 3), JDB_OK), 5);
    CHECK_EQ(run(q, prep_read(q, f, b, 101, 4, 4), JDB_OK), 4);
    CHECK(memcmp((char *)jdb_buf_data(b) + 101, "ello", 4) == 0);
    CHECK_EQ(run(q, prep_read(q, f, b, 101, 9, 4), JDB_SHORT_READ), 4);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void space(const char *backend) {
    uint64_t free_bytes = 1, total_bytes = 0;
    jdb_queue *q = queue_new(backend, 4, 2);
    jdb_op *op = submit(q, path_op(q, JDB_PATH_SPACE, test_dir()));
    jdb_queue_wait_op(q, op);
    jdb_op_space(op, &free_bytes, &total_bytes);
    CHECK(total_bytes > 0 && free_bytes <= total_bytes);
    done(q, op, JDB_OK);
    fails(q, path_op(q, JDB_PATH_SPACE, path_of("not there")), ENOENT);
    queue_free(q);
}

static void setups(const char *backend) {
    jdb_options options = {.backend = "none such", .depth = 0, .workers = 0};
    jdb_failure failure;
    jdb_queue *q = NULL;
    char text[JDB_MESSAGE_MAX];
    CHECK(jdb_queue_new(&options, &q, &failure) < 0);
    CHECK(!q);
    CHECK_EQ(failure.kind, JDB_UNSUPPORTED);
    jdb_failure_message(&failure, text, sizeof text);
    CHECK(strstr(text, "none such"));
    setenv("JDBFS_BACKEND", backend, 1);
    options.backend = "auto";
    CHECK_EQ(jdb_queue_new(&options, &q, &failure), 0);
    CHECK_STR(jdb_queue_backend(q), backend);
    CHECK(strstr(jdb_queue_reason(q), "JDBFS_BACKEND"));
    queue_free(q);
    unsetenv("JDBFS_BACKEND");
    options.backend = NULL;
    CHECK_EQ(jdb_queue_new(&options, &q, &failure), 0);
    CHECK(jdb_queue_reason(q)[0]);
    CHECK(strstr(jdb_platform(), " "));
    queue_free(q);
}

int main(void) {
    static const struct test tests[] = {
        {"directories", directories},
        {"many names", many_names},
        {"moving", moving},
        {"long names", long_names},
        {"opening", opening},
        {"buffered", buffered},
        {"space", space},
        {"setups", setups},
        {NULL, NULL},
    };
    static const char *const system[] = {"directories", "opening", NULL};
    return run_on_every_backend(tests, system);
}
