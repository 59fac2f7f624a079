/* A kernel's side of kqueue for Linux, as far as one user event goes, with the rules that matter:
 * a trigger stays until it is taken, and is taken only from an event with EV_CLEAR; triggers merge;
 * an event that was never added cannot be triggered; a forked child inherits no kqueue. */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/event.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { MOST = 1024 };

static struct queue {
    int open, added, triggered;
    uint16_t flags;
    uintptr_t ident;
    void *udata;
} queues[MOST]; /* by descriptor */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

static void in_child(void) {
    for (int fd = 0; fd < MOST; fd++) {
        if (queues[fd].open) close(fd);
        queues[fd].open = 0;
    }
    pthread_mutex_unlock(&lock);
}

static void watch_forks(void) { pthread_atfork(before_fork, after_fork, in_child); }

int kqueue(void) {
    pthread_once(&once, watch_forks);
    int fd = eventfd(0, EFD_NONBLOCK);
    if (fd < 0) return -1;
    if (fd >= MOST) abort();
    pthread_mutex_lock(&lock);
    queues[fd] = (struct queue){.open = 1};
    pthread_mutex_unlock(&lock);
    return fd;
}

/* errno, or 0. */
static int apply(int fd, struct queue *q, const struct kevent *change) {
    uint64_t one = 1;
    if (change->filter != EVFILT_USER) return EINVAL;
    if (change->flags & EV_ADD) {
        q->added = 1;
        q->flags = change->flags;
        q->ident = change->ident;
    } else if (!q->added || q->ident != change->ident) {
        return ENOENT;
    }
    q->udata = change->udata;
    if ((change->fflags & NOTE_TRIGGER) && !q->triggered) {
        q->triggered = 1;
        if (write(fd, &one, sizeof one) != sizeof one) return EIO;
    }
    return 0;
}

static int take(int fd, struct queue *q, struct kevent *event) {
    uint64_t count;
    if (!q->triggered) return 0;
    EV_SET(event, q->ident, EVFILT_USER, q->flags, 0, 0, q->udata);
    if (q->flags & EV_CLEAR) {
        q->triggered = 0;
        if (read(fd, &count, sizeof count) < 0) return 0;
    }
    return 1;
}

/* A number whose file is no kqueue, or a closed one, is refused as the kernel does. */
static struct queue *find(int fd) {
    struct queue *q = fd >= 0 && fd < MOST ? &queues[fd] : NULL;
    uint64_t count;
    if (q && q->open && !q->triggered && read(fd, &count, sizeof count) < 0 && errno != EAGAIN)
        q->open = 0;
    return q && q->open ? q : NULL;
}

int kevent(int fd, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout) {
    int error = 0, taken = 0;
    pthread_mutex_lock(&lock);
    struct queue *q = find(fd);
    if (!q) error = EBADF;
    for (int i = 0; i < change_count && !error; i++) error = apply(fd, q, &changes[i]);
    if (!error && event_count > 0) taken = take(fd, q, events);
    pthread_mutex_unlock(&lock);
    if (error) {
        errno = error;
        return -1;
    }
    if (event_count == 0 || taken) return taken;
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    if (ppoll(&wait, 1, timeout, NULL) < 0) return -1;
    pthread_mutex_lock(&lock);
    q = find(fd);
    if (q) taken = take(fd, q, events);
    pthread_mutex_unlock(&lock);
    return taken;
}
