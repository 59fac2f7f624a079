/* test.h: checks for the C tests. A program prints what failed and exits 1; it exits 77 with a
 * reason when it cannot run here. The checks do not depend on NDEBUG. */
#ifndef TEST_H
#define TEST_H

#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *test_name = "start";

static inline void test_fail(const char *file, int line, const char *format, ...) {
    va_list args;
    va_start(args, format);
    printf("%s:%d: in %s: ", file, line, test_name);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    _exit(1);
}

#define CHECK(condition)                                                           \
    do {                                                                           \
        if (!(condition)) test_fail(__FILE__, __LINE__, "not so: %s", #condition); \
    } while (0)

/* Integers of any kind; both values are printed. */
#define CHECK_EQ(a, b)                                                                             \
    do {                                                                                           \
        int64_t got_ = (int64_t)(a), want_ = (int64_t)(b);                                         \
        if (got_ != want_)                                                                         \
            test_fail(__FILE__, __LINE__, "%s is %" PRId64 ", not %s (%" PRId64 ")", #a, got_, #b, \
                      want_);                                                                      \
    } while (0)

#define CHECK_STR(a, b)                                                                           \
    do {                                                                                          \
        const char *got_ = (a), *want_ = (b);                                                     \
        if (!got_ || strcmp(got_, want_) != 0)                                                    \
            test_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #a, got_ ? got_ : "(null)", \
                      want_);                                                                     \
    } while (0)

static inline void test_hangs(int signal_number) {
    static const char text[] = "hangs in ";
    (void)signal_number;
    if (write(1, text, sizeof text - 1) < 0 || write(1, test_name, strlen(test_name)) < 0 ||
        write(1, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

/* Names what runs now; a test that takes longer than `seconds` has failed. */
static inline void test_begin(const char *name, unsigned seconds) {
    test_name = name;
    signal(SIGALRM, test_hangs);
    alarm(seconds);
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

/* splitmix64: repeatable, good enough to choose test cases. */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
