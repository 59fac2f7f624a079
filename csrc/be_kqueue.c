/* be_kqueue.c: the notifier of macOS and the BSDs, a kqueue with one user event, and the backend
 * around it: worker threads perform, as a kqueue cannot wait for regular files (they always count
 * as ready) and macOS has no completions of asynchronous file I/O.
 *
 * Triggers merge, so the pool's list is drained, not counted. A wait takes the trigger it was woken
 * by, so one system call both waits and clears. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/event.h>
#include <sys/time.h>
#include <unistd.h>

#include "backend.h"
#include "os.h"

/* ---- notifier ------------------------------------------------------------------------------- */

/* A forked child does not inherit a kqueue, and its number there may be another file's. So a handle
 * is the descriptor and, above it, in which generation of forks that was made. */
enum { FD_BITS = 20, FD_MASK = (1 << FD_BITS) - 1, GENERATION_MASK = (1 << (31 - FD_BITS)) - 1 };
enum { NOTIFY_IDENT = 1 };

static int fd_of(int handle) { return handle & FD_MASK; }
static int generation_now(void) { return (int)(jdb_os_fork_generation() & GENERATION_MASK); }

/* EV_CLEAR: an event that was taken is quiet until the next trigger. A trigger overwrites the
 * event's udata, which is therefore the same everywhere: none. */
static int change_event(int fd, unsigned short flags, unsigned fflags) {
    struct kevent change;
    int r;
    EV_SET(&change, NOTIFY_IDENT, EVFILT_USER, flags, fflags, 0, NULL);
    do r = kevent(fd, &change, 1, NULL, 0, NULL);
    while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

int jdb_os_notify_new(void) {
    int fd = kqueue();
    if (fd < 0) return -errno;
    int r = fd > FD_MASK ? -EMFILE : change_event(fd, EV_ADD | EV_CLEAR, 0);
    if (r == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) r = -errno;
    if (r < 0) {
        close(fd);
        return r;
    }
    return fd | generation_now() << FD_BITS;
}

void jdb_os_notify_free(int handle) {
    if (handle >> FD_BITS == generation_now()) close(fd_of(handle));
}

int jdb_os_notify_fd(int handle) { return fd_of(handle); }

void jdb_os_notify_signal(int handle) { change_event(fd_of(handle), 0, NOTE_TRIGGER); }

void jdb_os_notify_wait(int handle, int64_t timeout_ns) {
    struct kevent event;
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    kevent(fd_of(handle), NULL, 0, &event, 1, timeout_ns < 0 ? NULL : &limit);
}

void jdb_os_notify_clear(int handle) { jdb_os_notify_wait(handle, 0); }

/* ---- the backend ---------------------------------------------------------------------------- */

static int kqueue_open(jdb_queue *q) {
    q->native = 0; /* nothing is native: everything goes to the pool */
    if (!q->reason[0])
        snprintf(q->reason, sizeof q->reason, "worker threads, announced by a kqueue");
    return 0;
}

const struct jdb_backend jdb_backend_kqueue = {
    .name = "kqueue",
    .open = kqueue_open,
    .close = jdb_threads_close,
    .submit = NULL, /* of what is native, and nothing is */
    .flush = jdb_threads_flush,
    .reap = jdb_threads_reap,
    .pollfd = jdb_threads_pollfd,
    .signal = jdb_threads_signal,
};
