/* Preloaded: the clock of the day jumps by a million seconds at each look, forward and back. What
 * measures time by it sleeps for ever or not at all. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/time.h>
#include <time.h>

static time_t jump(void) {
    static atomic_uint looks;
    return (atomic_fetch_add(&looks, 1) & 1) ? 1000000 : -1000000;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (__typeof__(real))dlsym(RTLD_NEXT, "clock_gettime");
    int r = real(clock, now);
    if (r == 0 && clock == CLOCK_REALTIME) now->tv_sec += jump();
    return r;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec ts;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
    now->tv_sec = ts.tv_sec;
    now->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    if (out) *out = ts.tv_sec;
    return ts.tv_sec;
}
