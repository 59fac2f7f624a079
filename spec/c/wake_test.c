/* How hosts are woken: the alarm of the descriptor, and the relay that sends bytes instead. */
#include "fixture.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

static void wait_readable(jdb_queue *q) {
    CHECK(readable(jdb_queue_pollfd(q), 30000));
    jdb_queue_reap(q, 0);
}

static void silent(jdb_queue *q) {
    for (int i = 0; readable(jdb_queue_pollfd(q), 30); i++) {
        CHECK(i < 3);
        jdb_queue_reap(q, 0);
    }
}

static void alarm_rings(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    silent(q);
    int64_t start = jdb_now();
    jdb_queue_alarm(q, start + 60000000000); /* the last call counts */
    jdb_queue_alarm(q, start + 60000000);
    if (readable(jdb_queue_pollfd(q), 20)) CHECK(jdb_now() - start >= 60000000);
    wait_readable(q);
    CHECK(jdb_now() - start >= 60000000);
    silent(q);
    jdb_queue_alarm(q, start); /* past */
    wait_readable(q);
    jdb_queue_alarm(q, jdb_now() + 60000000000);
    queue_free(q); /* does not wait for it */
}

static int connect_to(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static int relay_start(jdb_queue *q) {
    const char *path;
    char name[100];
    CHECK_EQ(jdb_relay_new(q, &path), 0);
    snprintf(name, sizeof name, "%s", path);
    CHECK_EQ(jdb_relay_new(q, &path), -EALREADY);
    int fd = connect_to(name);
    CHECK_EQ(jdb_relay_accept(q), 0);
    CHECK(access(name, F_OK) != 0); /* nothing is left in the file system */
    return fd;
}

/* What the host does; the number of bytes it found. */
static int take_bytes(jdb_queue *q, int fd) {
    char bytes[16];
    ssize_t n = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    jdb_relay_arm(q);
    jdb_queue_reap(q, 0);
    return (int)n;
}

/* The thread may look at the last signal only after it was armed again: that is one byte more. */
static void quiet(jdb_queue *q, int fd) {
    for (int i = 0; readable(fd, 50); i++) {
        CHECK(i < 2);
        CHECK_EQ(take_bytes(q, fd), 1);
    }
}

static void one_byte_until_armed(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    int fd = relay_start(q);
    while (readable(fd, 50)) take_bytes(q, fd);
    for (int i = 0; i < 20; i++) {
        jdb_queue_signal(q);
        jdb_sleep(1000000);
    }
    CHECK(readable(fd, 30000));
    CHECK_EQ(take_bytes(q, fd), 1);
    quiet(q, fd);
    jdb_queue_signal(q);
    CHECK(readable(fd, 30000));
    CHECK_EQ(take_bytes(q, fd), 1);
    quiet(q, fd);
    queue_free(q); /* ends the relay */
    CHECK(readable(fd, 30000));
    char byte;
    CHECK_EQ(recv(fd, &byte, 1, MSG_DONTWAIT), 0);
    close(fd);
}

static void relay_tells_of_completions(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    jdb_file *f = create_file(q, "relay");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    run(q, prep_write(q, f, b, 0, PAGE, 0), JDB_OK);
    int fd = relay_start(q);
    while (readable(fd, 50)) take_bytes(q, fd);
    for (int i = 0; i < 200; i++) {
        jdb_op *op = submit(q, prep_read(q, f, b, 0, PAGE, 0)), *got;
        jdb_queue_flush(q);
        while (!(got = jdb_queue_next(q))) {
            CHECK(readable(fd, 30000));
            take_bytes(q, fd);
        }
        CHECK(got == op);
        done(q, op, JDB_OK);
    }
    jdb_relay_free(q);
    jdb_relay_free(q);
    close(fd);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* The host went away: the thread ends by itself, the queue works on. */
static void relay_survives_its_host(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    int fd = relay_start(q);
    while (readable(fd, 50)) take_bytes(q, fd);
    close(fd);
    for (int i = 0; i < 3; i++) {
        jdb_queue_signal(q);
        jdb_sleep(2000000);
    }
    jdb_file *f = create_file(q, "relay");
    run(q, prep_file(q, JDB_SIZE, f), JDB_OK);
    jdb_file_unref(f);
    queue_free(q);
}

static int relay_refused(jdb_queue *q) {
    const char *path;
    int r = jdb_relay_new(q, &path);
    CHECK(r <= 0);
    return r;
}

/* One that could not be made leaves nothing, and the next can be made. */
static void relay_that_cannot_be(const char *backend) {
    jdb_queue *q = queue_new(backend, 8, 4);
    struct rlimit limit, few;
    char long_name[60];
    CHECK_EQ(jdb_relay_accept(q), -ENOTCONN);
    CHECK(jdb_queue_pollfd(q) >= 0);
    setenv("TMPDIR", "/nowhere/at/all", 1);
    CHECK_EQ(relay_refused(q), -ENOENT);
    memset(long_name, 'x', sizeof long_name);
    long_name[sizeof long_name - 1] = 0;
    setenv("TMPDIR", long_name, 1); /* a socket's name is short: another directory then */
    CHECK_EQ(relay_refused(q), 0);
    jdb_relay_free(q);
    unsetenv("TMPDIR");
    int lowest = dup(0);
    close(lowest);
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
    few = limit;
    few.rlim_cur = (rlim_t)lowest;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    CHECK_EQ(relay_refused(q), -EMFILE);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_EQ(relay_refused(q), 0);
    CHECK_EQ(jdb_relay_accept(q), -EAGAIN); /* nobody has connected */
    jdb_relay_free(q);
    CHECK_EQ(dup(0), lowest);
    close(lowest);
    close(relay_start(q));
    jdb_queue_close(q);
    CHECK_EQ(relay_refused(q), -EPERM);
    CHECK_EQ(jdb_queue_alarm(q, 1), -EPERM);
    jdb_queue_unref(q);
}

int main(void) {
    static const struct test tests[] = {
        {"the alarm makes the descriptor readable, in time", alarm_rings},
        {"one byte until armed", one_byte_until_armed},
        {"the relay tells of completions", relay_tells_of_completions},
        {"the relay survives its host", relay_survives_its_host},
        {"a relay that cannot be", relay_that_cannot_be},
        {NULL, NULL}};
    /* Virtual time rings at once, and nothing completes behind the program's back. */
    static const char *const system[] = {"the alarm makes the descriptor readable, in time",
                                         "one byte until armed",
                                         "the relay tells of completions",
                                         "the relay survives its host",
                                         "a relay that cannot be",
                                         NULL};
    return run_on_every_backend(tests, system);
}
