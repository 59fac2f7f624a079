/* os_lock.c: a lock, wherever there are POSIX threads: also on Windows. */
#include <pthread.h>
#include <stdlib.h>

#include "os.h"

struct jdb_os_lock {
    pthread_mutex_t mutex;
};

jdb_os_lock *jdb_os_lock_new(void) {
    jdb_os_lock *lock = malloc(sizeof *lock);
    if (!lock || pthread_mutex_init(&lock->mutex, NULL) == 0) return lock;
    free(lock);
    return NULL;
}

void jdb_os_lock_free(jdb_os_lock *lock) {
    pthread_mutex_destroy(&lock->mutex);
    free(lock);
}

void jdb_os_lock_take(jdb_os_lock *lock) { pthread_mutex_lock(&lock->mutex); }
void jdb_os_lock_give(jdb_os_lock *lock) { pthread_mutex_unlock(&lock->mutex); }
