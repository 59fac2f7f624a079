/* Failures in words: every kind has a cause of its own, numbers without a name are told, nothing is
 * written behind the text, and limits given to a queue are checked. */
#include <errno.h>

#include "jdb.h"
#include "test.h"

static const jdb_failure nothing = {JDB_IO, 0, "write_at", "file", NULL, NULL, -1, -1, -1, -1};

static void kinds(void) {
    char text[JDB_MESSAGE_MAX], others[JDB_KIND_COUNT][64];
    for (int kind = 1; kind < JDB_KIND_COUNT; kind++) {
        jdb_failure f = nothing;
        f.kind = (jdb_kind)kind;
        f.actual = 1;
        f.length = 2;
        jdb_failure_message(&f, text, sizeof text);
        CHECK(strncmp(text, "write_at file: ", 15) == 0);
        CHECK(strlen(text) > 17 && strlen(text) < sizeof others[0]);
        for (int k = 1; k < kind; k++) CHECK(strcmp(text, others[k]) != 0);
        strcpy(others[kind], text);
        CHECK(strcmp(jdb_kind_name((jdb_kind)kind), "Ok") != 0);
    }
    CHECK_STR(jdb_kind_name(JDB_KIND_COUNT), "Io");
    CHECK_STR(jdb_code_name(JDB_CODE_COUNT), "operation");
}

static void short_write(void) {
    char text[JDB_MESSAGE_MAX];
    jdb_failure f = nothing;
    f.kind = JDB_SHORT_WRITE;
    f.actual = 512;
    f.length = 4096;
    jdb_failure_message(&f, text, sizeof text);
    CHECK(strstr(text, "only 512 of 4096 bytes written") != NULL);
}

static void numbers(void) {
    char text[JDB_MESSAGE_MAX];
    jdb_failure f = nothing;
    f.error = 4000;
    jdb_failure_message(&f, text, sizeof text);
    CHECK(strstr(text, "(errno 4000)") != NULL);
    CHECK(jdb_errno_name(4000) == NULL);
    CHECK_STR(jdb_errno_name(ENOSPC), "ENOSPC");
    CHECK_EQ(jdb_kind_of_errno(0), JDB_OK);
    CHECK_EQ(jdb_kind_of_errno(EOVERFLOW), JDB_OVERFLOW);
    CHECK_EQ(jdb_kind_of_errno(ENOMEM), JDB_ALLOC);
    CHECK_EQ(jdb_kind_of_errno(ENOSYS), JDB_UNSUPPORTED);
    CHECK_EQ(jdb_kind_of_errno(ECANCELED), JDB_CANCELLED);
    CHECK_EQ(jdb_kind_of_errno(EIO), JDB_IO);
}

/* Paths of any length, every size of room: terminated, and not a byte behind it. */
static void cut(void) {
    char path[3000], text[JDB_MESSAGE_MAX + 1];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = 0;
    jdb_failure f = {JDB_IO, ENOSPC, "rename", path, path, "a cause", 1, 2, 3, 4};
    for (size_t size = 1; size <= JDB_MESSAGE_MAX; size++) {
        memset(text, 0x55, sizeof text);
        jdb_failure_message(&f, text, size);
        CHECK(strnlen(text, size) < size);
        CHECK_EQ(text[size], 0x55);
    }
}

static void limits(void) {
    jdb_queue *queue = NULL;
    jdb_failure f;
    jdb_options deep = {.backend = "threads", .depth = JDB_DEPTH_MAX + 1, .workers = 0};
    CHECK(jdb_queue_new(&deep, &queue, &f) < 0 && f.kind == JDB_OVERFLOW && !queue);
    jdb_options many = {.backend = "threads", .depth = 0, .workers = JDB_WORKERS_MAX + 1};
    CHECK(jdb_queue_new(&many, &queue, &f) < 0 && f.kind == JDB_OVERFLOW && !queue);
    static const jdb_options wrong[] = {
        {.sqpoll_ns = -1},          {.sqpoll_ns = JDB_MODE_MAX_NS + 1},
        {.min_wait_ns = -1},        {.min_wait_ns = INT64_MAX},
        {.close_limit_ns = -1},     {.close_limit_ns = JDB_CLOSE_MAX_NS + 1},
        {.iopoll = (jdb_iopoll)-1}, {.iopoll = (jdb_iopoll)(JDB_IOPOLL_HYBRID + 1)}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK(jdb_queue_new(&wrong[i], &queue, &f) < 0 && f.kind == JDB_OVERFLOW && !queue);
    jdb_options odd = {.backend = "abacus", .depth = 0, .workers = 0};
    CHECK(jdb_queue_new(&odd, &queue, &f) < 0 && f.kind == JDB_UNSUPPORTED && !queue);
}

int main(void) {
    unsetenv("JDBFS_BACKEND");
    test_begin("kinds", 30);
    kinds();
    test_begin("short write", 30);
    short_write();
    test_begin("numbers", 30);
    numbers();
    test_begin("cut", 30);
    cut();
    test_begin("limits", 30);
    limits();
    return 0;
}
