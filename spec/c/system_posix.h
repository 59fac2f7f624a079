/* system_posix.h: see system.h. Tests run in processes of their own; gates are pipes. */
#ifndef SYSTEM_POSIX_H
#define SYSTEM_POSIX_H

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* Tests of run_on_every_backend that mean nothing here. */
static const char *const not_here[] = {NULL};
static const char *const not_here_reason = "";

static inline void test_prepare(void) { signal(SIGPIPE, SIG_IGN); }

static inline void test_hangs(int signal_number) {
    static const char text[] = "hangs in ";
    (void)signal_number;
    if (write(1, text, sizeof text - 1) < 0 || write(1, test_name, strlen(test_name)) < 0 ||
        write(1, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

/* Names what runs now; a test that takes longer than `seconds` has failed, or than so many times
 * them on a machine that is emulated. */
static inline void test_begin(const char *name, unsigned seconds) {
    const char *slow = getenv("JDBFS_TEST_SLOW");
    test_name = name;
    signal(SIGALRM, test_hangs);
    alarm(seconds * (slow ? (unsigned)atoi(slow) : 1));
}

static inline int test_remove(const char *path, const struct stat *st, int type,
                              struct FTW *where) {
    (void)st;
    (void)type;
    (void)where;
    return remove(path);
}

static char test_own_dir[4096];
static pid_t test_owner;
static inline void test_remove_dir(void) {
    if (getpid() == test_owner) nftw(test_own_dir, test_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* An empty directory that the runner gave, or one of our own that goes at exit. */
static inline const char *test_dir(void) {
    const char *given = getenv("JDBFS_TEST_DIR");
    if (given && given[0]) return given;
    if (!test_own_dir[0]) {
        snprintf(test_own_dir, sizeof test_own_dir, "%s/jdb-c-XXXXXX",
                 access("build", W_OK) == 0 ? "build" : "/tmp");
        if (!mkdtemp(test_own_dir)) test_fail(__FILE__, __LINE__, "no directory to work in");
        test_owner = getpid();
        atexit(test_remove_dir);
    }
    return test_own_dir;
}

/* Runs one test in a process of its own, so that the others are told of as well. 0 or 1 failure. */
static inline int test_apart(const char *name, unsigned seconds, void (*run)(const void *),
                             const void *argument) {
    int status = 0;
    fflush(stdout);
    test_dir();
    pid_t child = fork();
    if (child == 0) {
        test_begin(name, seconds);
        run(argument);
        exit(0); /* leak checks run here */
    }
    test_name = name;
    if (child < 0 || waitpid(child, &status, 0) != child)
        test_fail(__FILE__, __LINE__, "no process for %s", name);
    if (WIFSIGNALED(status)) printf("in %s: killed by signal %d\n", name, WTERMSIG(status));
    return status != 0;
}

/* Ends a forked child, which has no more to give back than coverage has counted. */
static inline void test_leave(int status) {
    const char *san = getenv("JDBFS_TEST_SAN");
    if (san && strcmp(san, "coverage") == 0) exit(status);
    _exit(status);
}

/* ---- gates ----------------------------------------------------------------------------------- */

static inline void gate_open(int for_reading, intptr_t *ours, intptr_t *other) {
    int ends[2];
    CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
    *ours = ends[for_reading ? 0 : 1];
    *other = ends[for_reading ? 1 : 0];
    if (!for_reading) {
        static const char full[4096];
        CHECK(fcntl(ends[1], F_SETPIPE_SZ, sizeof full) >= (int)sizeof full);
        CHECK_EQ(fcntl(ends[1], F_GETPIPE_SZ), sizeof full);
        CHECK_EQ(write(ends[1], full, sizeof full), sizeof full);
    }
}

static inline int64_t gate_write(intptr_t other, const void *data, size_t len) {
    return write((int)other, data, len);
}

static inline void gate_close(intptr_t other) { close((int)other); }

/* The operation's end is closed: nobody is left to read. */
static inline int gate_is_broken(intptr_t other) {
    return write((int)other, "", 1) < 0 && errno == EPIPE;
}

static inline int readable(int fd, int timeout_ms) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;
    do r = poll(&p, 1, timeout_ms);
    while (r < 0 && errno == EINTR);
    CHECK(r >= 0);
    return r > 0 && (p.revents & POLLIN);
}

#endif
