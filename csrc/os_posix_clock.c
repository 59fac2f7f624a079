/* os_posix_clock.c: waits for a time, where conditions know the monotonic clock (not on macOS). */
#include "os_thread.h"

#include <time.h>

void jdb_os_clock_cond_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void jdb_os_clock_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns) {
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    pthread_cond_timedwait(condition, lock, &until);
}
