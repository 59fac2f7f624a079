/* A C program with a loop of its own: jdb.h in bare epoll, nothing else of jdbfs.
 *
 * The loop waits for two things: its own timer, which stands for whatever the program does, and
 * the queue's descriptor. When that is readable it looks for finished operations and never waits
 * for one. Each chain of operations (open, writes, sync, reads, close) goes on where one ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "jdb.h"

enum { BLOCK = 4096, BLOCKS = 64, AT_ONCE = 16 };

struct program {
    jdb_queue *queue;
    jdb_file *file;
    char path[256];
    unsigned written, submitted, checked, ticks, wakes;
    int ended;
};

static void fail(const char *what, const jdb_op *op) {
    char text[JDB_MESSAGE_MAX] = "";
    jdb_failure failure;
    if (op) {
        jdb_op_failure(op, &failure);
        jdb_failure_message(&failure, text, sizeof text);
    }
    printf("%s: %s\n", what, text);
    exit(1);
}

static jdb_op *take(struct program *p) {
    jdb_kind why;
    jdb_op *op = jdb_op_take(p->queue, &why);
    if (!op) fail(jdb_kind_name(why), NULL);
    return op;
}

static void submit(struct program *p, jdb_op *op) {
    if (jdb_op_check(op) != JDB_OK) fail("refused", op);
    jdb_submit(p->queue, op);
}

/* The operation holds the buffer until it is released. */
static void transfer(struct program *p, jdb_code code, unsigned block) {
    jdb_op *op = take(p);
    jdb_buf *buf = jdb_buf_new(BLOCK, jdb_page_size());
    if (!buf) fail("no memory", NULL);
    uint64_t off = (uint64_t)block * BLOCK;
    if (code == JDB_WRITE) memset(jdb_buf_data(buf), (int)block, BLOCK);
    if (code == JDB_WRITE) jdb_prep_write(op, p->file, buf, 0, BLOCK, off, 0);
    else jdb_prep_read(op, p->file, buf, 0, BLOCK, off, 0);
    jdb_op_set_waiter(op, buf); /* the program's own: here, what a read fills */
    submit(p, op);
    jdb_buf_unref(buf);
}

static void plain(struct program *p, jdb_code code) {
    jdb_op *op = take(p);
    jdb_prep_file(op, code, p->file);
    submit(p, op);
}

static void start(struct program *p) {
    jdb_open how = {JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE,
                    0600,
                    JDB_DIRECT_PREFER,
                    JDB_METHOD_AUTO,
                    "open",
                    JDB_SYNC_FULL};
    jdb_op *op = take(p);
    if (jdb_prep_open(p->queue, op, p->path, &how) != 0) fail("no memory", NULL);
    submit(p, op);
}

static void check_block(struct program *p, const jdb_op *op) {
    const unsigned char *data = jdb_buf_data(jdb_op_buf(op));
    unsigned found = data[0], i = 0;
    while (i < BLOCK && data[i] == found) i++;
    if (i < BLOCK || found >= BLOCKS) fail("wrong data", NULL);
    if (p->submitted < BLOCKS) transfer(p, JDB_READ, p->submitted++);
    else if (p->checked + 1 == BLOCKS) plain(p, JDB_CLOSE);
    p->checked++;
}

static void go_on(struct program *p, const jdb_op *op) {
    if (jdb_op_kind(op) != JDB_OK) fail("failed", op);
    switch (jdb_op_code(op)) {
    case JDB_OPEN:
        p->file = jdb_file_ref(jdb_op_file(op));
        for (unsigned i = 0; i < BLOCKS; i++) transfer(p, JDB_WRITE, i);
        break;
    case JDB_WRITE:
        if (++p->written == BLOCKS) plain(p, JDB_SYNC_DATA);
        break;
    case JDB_SYNC_DATA:
        for (p->submitted = 0; p->submitted < AT_ONCE;) transfer(p, JDB_READ, p->submitted++);
        break;
    case JDB_READ: check_block(p, op); break;
    default: p->ended = 1;
    }
}

/* What a host does when the descriptor is readable: look, take all that ended, hand over what was
 * submitted meanwhile. */
static void step(struct program *p) {
    jdb_op *op;
    jdb_queue_reap(p->queue, 0);
    while ((op = jdb_queue_next(p->queue))) {
        go_on(p, op);
        jdb_op_release(p->queue, op);
    }
    jdb_queue_flush(p->queue);
    p->wakes++;
}

static void watch(int loop, int fd) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl", NULL);
}

static void run_loop(struct program *p) {
    struct itimerspec often = {{0, 200000}, {0, 200000}};
    uint64_t expired;
    int loop = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    int completions = jdb_queue_pollfd(p->queue);
    if (loop < 0 || timer < 0 || completions < 0) fail("no descriptors", NULL);
    timerfd_settime(timer, 0, &often, NULL);
    watch(loop, timer);
    watch(loop, completions);
    start(p);
    jdb_queue_flush(p->queue);
    while (!p->ended) {
        struct epoll_event event;
        if (epoll_wait(loop, &event, 1, 10000) == 0) fail("nothing happens", NULL);
        if (event.data.fd == completions) step(p);
        else if (read(timer, &expired, sizeof expired) == sizeof expired) p->ticks++;
    }
    close(timer);
    close(loop);
}

static void run_on(const char *backend) {
    struct program p = {.queue = NULL};
    jdb_options options = {.backend = backend, .depth = 32, .workers = 4};
    jdb_failure failure;
    const char *dir = getenv("JDBFS_TEST_DIR");
    if (jdb_queue_new(&options, &p.queue, &failure) != 0) {
        printf("%s: cannot run here\n", backend);
        return;
    }
    snprintf(p.path, sizeof p.path, "%s/epoll-example", dir && dir[0] ? dir : "build");
    run_loop(&p);
    jdb_file_unref(p.file);
    unlink(p.path);
    /* Operations in flight when a program ends are waited for, and nothing of theirs is lost. */
    start(&p);
    jdb_queue_close(p.queue);
    jdb_queue_unref(p.queue);
    unlink(p.path);
    printf("%s: %u blocks, %u wakes, %u ticks of the program's own\n", backend, p.checked, p.wakes,
           p.ticks);
    if (p.checked != BLOCKS || p.ticks == 0) fail("the loop was blocked", NULL);
}

int main(void) {
    unsetenv("JDBFS_BACKEND");
    for (unsigned i = 0; jdb_backend_name(i); i++)
        /* A simulated disk ends nothing behind the program's back. */
        if (strcmp(jdb_backend_name(i), "sim") != 0) run_on(jdb_backend_name(i));
    return 0;
}
