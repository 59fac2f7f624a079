/* be_pool.c: worker threads that run jdb_os_perform. A backend of its own ("threads") and the
 * place where every other backend sends what it cannot do.
 *
 * Owner thread: submit, collect, close. Workers: take from `todo`, perform, push on `finished`.
 * One mutex, held for list moves only. The notifier is signalled after the push and cleared
 * before the collect; signals merge, so the list is drained, not counted. */
#include <errno.h>
#include <stdlib.h>

#include "backend.h"
#include "os.h"
#include "os_thread.h"

struct jdb_pool {
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct jdb_list todo, finished;
    unsigned queued, idle, count, limit;
    int stop, notify;
    int watcher; /* a second notifier, or -1 */
    pthread_t alarm;
    pthread_cond_t alarm_set;
    int has_alarm;
    int64_t alarm_at; /* 0: none */
    pthread_t threads[];
};

/* Paths live on the heap, so little stack is needed; some C libraries want more than this. */
enum { STACK_SIZE = 256 * 1024 };

static void push_finished(struct jdb_pool *pool, jdb_op *op) {
    pthread_mutex_lock(&pool->lock);
    int was_empty = pool->finished.head == NULL;
    int watcher = pool->watcher;
    jdb_list_push(&pool->finished, op);
    pthread_mutex_unlock(&pool->lock);
    if (!was_empty) return;
    jdb_os_notify_signal(pool->notify);
    if (watcher >= 0) jdb_os_notify_signal(watcher);
}

static void *work(void *argument) {
    struct jdb_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        jdb_op *op = jdb_list_pop(&pool->todo);
        if (!op) {
            if (pool->stop) break;
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
            continue;
        }
        pool->queued--;
        pthread_mutex_unlock(&pool->lock);
        op->result = jdb_os_perform(op);
        push_finished(pool, op);
        pthread_mutex_lock(&pool->lock);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

static int add_worker(struct jdb_pool *pool) {
    int r = jdb_os_thread_start(&pool->threads[pool->count], STACK_SIZE, work, pool);
    if (r == 0) pool->count++;
    return r;
}

/* ---- the alarm ------------------------------------------------------------------------------ */

static void notify_all(struct jdb_pool *pool) {
    jdb_os_notify_signal(pool->notify);
    if (pool->watcher >= 0) jdb_os_notify_signal(pool->watcher);
}

static void *watch_clock(void *argument) {
    struct jdb_pool *pool = argument;
    pthread_mutex_lock(&pool->lock);
    while (!pool->stop) {
        int64_t at = pool->alarm_at;
        if (at == 0) {
            pthread_cond_wait(&pool->alarm_set, &pool->lock);
        } else if (jdb_os_now() >= at) {
            pool->alarm_at = 0;
            notify_all(pool);
        } else {
            jdb_os_clock_cond_wait(&pool->alarm_set, &pool->lock, at);
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

int jdb_pool_alarm(jdb_queue *q, int64_t when_ns) {
    struct jdb_pool *pool = q->pool;
    pthread_mutex_lock(&pool->lock);
    pool->alarm_at = when_ns > 0 ? when_ns : 1;
    pthread_cond_signal(&pool->alarm_set);
    pthread_mutex_unlock(&pool->lock);
    if (pool->has_alarm) return 0;
    int r = jdb_os_thread_start(&pool->alarm, STACK_SIZE, watch_clock, pool);
    pool->has_alarm = r == 0;
    if (r != 0) notify_all(pool); /* too early is better than never */
    return -r;
}

int jdb_pool_open(jdb_queue *q) {
    struct jdb_pool *pool = calloc(1, sizeof *pool + q->workers * sizeof *pool->threads);
    if (!pool) return -ENOMEM;
    int notify = jdb_os_notify_new();
    if (notify < 0) {
        free(pool);
        return notify;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    jdb_os_clock_cond_init(&pool->alarm_set);
    pool->limit = q->workers;
    pool->notify = q->notify = notify;
    pool->watcher = -1;
    q->pool = pool;
    return 0;
}

/* Without any thread the operation is performed here: slow is better than refused. */
void jdb_pool_submit(jdb_queue *q, jdb_op *op) {
    struct jdb_pool *pool = q->pool;
    pthread_mutex_lock(&pool->lock);
    int more = pool->queued >= pool->idle && pool->count < pool->limit;
    pthread_mutex_unlock(&pool->lock);
    if (more && add_worker(pool) != 0 && pool->count == 0) {
        op->result = jdb_os_perform(op);
        push_finished(pool, op);
        return;
    }
    pthread_mutex_lock(&pool->lock);
    jdb_list_push(&pool->todo, op);
    pool->queued++;
    if (pool->idle) pthread_cond_signal(&pool->work);
    pthread_mutex_unlock(&pool->lock);
}

/* By the thread that waits, which has nothing else to wait for. */
void jdb_pool_perform(jdb_queue *q, jdb_op *op) { jdb_arrive(q, op, jdb_os_perform(op)); }

void jdb_pool_watch(jdb_queue *q, int handle) {
    pthread_mutex_lock(&q->pool->lock);
    q->pool->watcher = handle;
    pthread_mutex_unlock(&q->pool->lock);
}

int jdb_pool_watcher(const jdb_queue *q) { return q->pool->watcher; }

void jdb_pool_collect(jdb_queue *q) {
    struct jdb_pool *pool = q->pool;
    struct jdb_list list;
    pthread_mutex_lock(&pool->lock);
    list = pool->finished;
    pool->finished.head = pool->finished.tail = NULL;
    pthread_mutex_unlock(&pool->lock);
    jdb_op *op;
    while ((op = jdb_list_pop(&list))) {
        q->pool_inflight--;
        jdb_arrive(q, op, op->result);
    }
}

/* Workers that are in a call stay there for as long as it takes; the others end. */
void jdb_pool_leave(jdb_queue *q) {
    struct jdb_pool *pool = q->pool;
    pthread_mutex_lock(&pool->lock);
    pool->stop = 1;
    pool->todo.head = pool->todo.tail = NULL;
    pthread_cond_broadcast(&pool->work);
    pthread_cond_signal(&pool->alarm_set);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->count; i++) pthread_detach(pool->threads[i]);
    if (pool->has_alarm) pthread_detach(pool->alarm);
}

void jdb_pool_close(jdb_queue *q) {
    struct jdb_pool *pool = q->pool;
    if (!pool) return;
    q->pool = NULL;
    if (q->fork_generation == jdb_os_fork_generation()) {
        pthread_mutex_lock(&pool->lock);
        pool->stop = 1;
        pthread_cond_broadcast(&pool->work);
        pthread_cond_signal(&pool->alarm_set);
        pthread_mutex_unlock(&pool->lock);
        for (unsigned i = 0; i < pool->count; i++) pthread_join(pool->threads[i], NULL);
        if (pool->has_alarm) pthread_join(pool->alarm, NULL);
        pthread_mutex_destroy(&pool->lock);
        pthread_cond_destroy(&pool->work);
        pthread_cond_destroy(&pool->alarm_set);
    }
    /* A worker may signal after its operation was collected: not before all have gone. */
    jdb_os_notify_free(pool->notify);
    if (pool->watcher >= 0) jdb_os_notify_free(pool->watcher);
    q->notify = -1;
    free(pool);
}

uint64_t jdb_pool_workers(const jdb_queue *q) { return q->pool ? q->pool->count : 0; }

/* ---- the backend ---------------------------------------------------------------------------- */

static int threads_open(jdb_queue *q) {
    q->native = 0; /* nothing is native: everything goes to the pool */
    return 0;
}

void jdb_threads_close(jdb_queue *q) { (void)q; }

void jdb_threads_flush(jdb_queue *q) { (void)q; }

void jdb_threads_reap(jdb_queue *q, unsigned want, int64_t timeout_ns) {
    (void)want;
    if (timeout_ns == 0 && jdb_pool_watcher(q) >= 0) jdb_os_notify_clear(jdb_pool_watcher(q));
    jdb_os_notify_clear(q->notify);
    jdb_pool_collect(q);
    if (q->arrived.head || timeout_ns == 0) return;
    q->stats.entries++;
    jdb_os_notify_wait(q->notify, timeout_ns);
    jdb_pool_collect(q);
}

/* A notifier of the host's own: whoever watches it may clear it, while an operation completed in
 * place waits for the other one. */
int jdb_threads_pollfd(jdb_queue *q) {
    if (jdb_pool_watcher(q) >= 0) return jdb_os_notify_fd(jdb_pool_watcher(q));
    int watcher = jdb_os_notify_new();
    int fd = watcher < 0 ? watcher : jdb_os_notify_fd(watcher);
    if (fd < 0) {
        if (watcher >= 0) jdb_os_notify_free(watcher);
        return fd;
    }
    jdb_pool_watch(q, watcher);
    jdb_os_notify_signal(watcher); /* whatever finished before nobody will announce */
    return fd;
}

void jdb_threads_signal(jdb_queue *q) {
    if (jdb_pool_watcher(q) >= 0) jdb_os_notify_signal(jdb_pool_watcher(q));
}

const struct jdb_backend jdb_backend_threads = {
    .name = "threads",
    .open = threads_open,
    .close = jdb_threads_close,
    .submit = NULL, /* of what is native, and nothing is */
    .flush = jdb_threads_flush,
    .reap = jdb_threads_reap,
    .pollfd = jdb_threads_pollfd,
    .signal = jdb_threads_signal,
};
