/* os_thread.h: POSIX threads as the pool needs them, less what systems differ in. */
#ifndef JDB_OS_THREAD_H
#define JDB_OS_THREAD_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Takes no signals: those are the host program's business. 0, or an errno value. */
int jdb_os_thread_start(pthread_t *thread, size_t stack_size, void *(*run)(void *), void *argument);

/* A condition for waits until a time of jdb_os_now. A wait may end early. */
void jdb_os_clock_cond_init(pthread_cond_t *condition);
void jdb_os_clock_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns);

#endif
