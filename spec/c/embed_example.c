/* The least C program on jdb.h: makes a file, writes pages at once, syncs, reads one back, closes.
 *
 *   cc embed_example.c $(pkg-config --cflags --libs jdb)     after make install-core
 *
 * It waits for each step; epoll_example.c shows how a program with a loop of its own never does. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jdb.h"

enum { PAGE = 4096, PAGES = 8 };

static jdb_queue *queue;

static void fail(const jdb_failure *failure) {
    char text[JDB_MESSAGE_MAX];
    jdb_failure_message(failure, text, sizeof text);
    fprintf(stderr, "%s\n", text);
    exit(1);
}

static void fail_with(const jdb_op *op) {
    jdb_failure failure;
    jdb_op_failure(op, &failure);
    fail(&failure);
}

static jdb_op *take(void) {
    jdb_kind kind;
    jdb_op *op = jdb_op_take(queue, &kind);
    if (!op) {
        fprintf(stderr, "no operation: %s\n", jdb_kind_name(kind));
        exit(1);
    }
    return op;
}

/* What can be refused without asking the system is refused here: alignment, range, closed, busy. */
static jdb_op *submit(jdb_op *op) {
    if (jdb_op_check(op) != JDB_OK) fail_with(op);
    jdb_submit(queue, op);
    return op;
}

static void finish(jdb_op *op) {
    jdb_queue_wait_op(queue, op);
    if (jdb_op_kind(op) != JDB_OK) fail_with(op);
    jdb_op_release(queue, op);
}

static jdb_file *create(const char *path) {
    jdb_open how = {.flags = JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE,
                    .mode = 0600,
                    .direct = JDB_DIRECT_PREFER,
                    .name = "create"};
    jdb_op *op = take();
    if (jdb_prep_open(queue, op, path, &how) != 0) abort();
    submit(op);
    jdb_queue_wait_op(queue, op);
    if (jdb_op_kind(op) != JDB_OK) fail_with(op);
    jdb_file *file = jdb_file_ref(jdb_op_file(op)); /* outlives the operation */
    jdb_op_release(queue, op);
    return file;
}

static void do_file(jdb_code code, jdb_file *file) {
    jdb_op *op = take();
    jdb_prep_file(op, code, file);
    finish(submit(op));
}

static void write_pages(jdb_file *file, jdb_buf *buf) {
    jdb_op *writes[PAGES];
    memset(jdb_buf_data(buf), 'j', PAGES * PAGE);
    for (unsigned i = 0; i < PAGES; i++) { /* all in flight before the first is waited for */
        jdb_op *op = take();
        jdb_prep_write(op, file, buf, i * PAGE, PAGE, (uint64_t)i * PAGE, 0);
        writes[i] = submit(op);
    }
    for (unsigned i = 0; i < PAGES; i++) finish(writes[i]);
    do_file(JDB_SYNC_DATA, file); /* on stable storage when this returns */
}

static void read_page(jdb_file *file, jdb_buf *buf, unsigned page) {
    jdb_op *op = take();
    jdb_prep_read(op, file, buf, 0, PAGE, (uint64_t)page * PAGE, 0);
    finish(submit(op));
}

int main(int argc, char **argv) {
    const char *dir = getenv("JDBFS_TEST_DIR");
    char path[4096];
    jdb_failure failure;
    snprintf(path, sizeof path, "%s/embed-example", dir && dir[0] ? dir : "/tmp");
    if (argc > 1) snprintf(path, sizeof path, "%s", argv[1]);
    if (jdb_queue_new(NULL, &queue, &failure) != 0) fail(&failure);

    jdb_buf *buf = jdb_buf_new(PAGES * PAGE, jdb_page_size());
    jdb_file *file = create(path);
    if (!buf) return 1;
    write_pages(file, buf);
    memset(jdb_buf_data(buf), 0, PAGE);
    read_page(file, buf, PAGES - 1);
    int same = ((const char *)jdb_buf_data(buf))[PAGE - 1] == 'j';
    do_file(JDB_CLOSE, file);
    printf("%s: %d pages of %s, %s\n", jdb_queue_backend(queue), PAGES, path,
           same ? "read back" : "WRONG");

    jdb_buf_unref(buf);
    jdb_file_unref(file);
    jdb_op *op = take();
    if (jdb_prep_path(op, JDB_PATH_REMOVE, path, 0) != 0) abort();
    finish(submit(op));
    jdb_queue_close(queue); /* waits for what is in flight; here nothing is */
    jdb_queue_unref(queue);
    return !same;
}
