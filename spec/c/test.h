/* test.h: checks for the C tests. A program prints what failed and exits 1; it exits 77 with a
 * reason when it cannot run here. The checks do not depend on NDEBUG. */
#ifndef TEST_H
#define TEST_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

#include "system.h"

/* splitmix64: repeatable, good enough to choose test cases. */
static inline uint64_t test_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif
