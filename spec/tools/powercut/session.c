#define _GNU_SOURCE
#include "session.h"

#include <errno.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    struct fuse_buf buffer;
    uint64_t arrived;
    struct request *next;
};

static pthread_mutex_t record_lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *record_file;
static uint64_t record_count;
static _Thread_local uint64_t arrived;

static pthread_mutex_t queue_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t queue_filled = PTHREAD_COND_INITIALIZER;
static struct request *queue_head, **queue_tail = &queue_head;
static int queue_ended;

void session_die(const char *what) {
    fprintf(stderr, "powercut: %s: %s\n", what, strerror(errno));
    exit(2);
}

/* ---- the record ----------------------------------------------------------------------------- */

void record_open(const char *path) {
    record_file = fopen(path, "wb");
    if (!record_file) session_die(path);
    setvbuf(record_file, NULL, _IOFBF, 1 << 20);
}

void record_add(struct record record, const void *data, size_t length, const void *second,
                size_t second_length) {
    record.arrived = arrived;
    record.length = (uint32_t)(length + second_length);
    record.second = (uint16_t)second_length;
    pthread_mutex_lock(&record_lock);
    if (record_file) {
        fwrite(&record, sizeof record, 1, record_file);
        if (length) fwrite(data, 1, length, record_file);
        if (second_length) fwrite(second, 1, second_length, record_file);
        record_count++;
    }
    pthread_mutex_unlock(&record_lock);
}

void record_stop(void) {
    pthread_mutex_lock(&record_lock);
    if (record_file && fclose(record_file) != 0) session_die("record");
    record_file = NULL;
    pthread_mutex_unlock(&record_lock);
}

static uint64_t recorded(void) {
    pthread_mutex_lock(&record_lock);
    uint64_t count = record_count;
    pthread_mutex_unlock(&record_lock);
    return count;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static struct request *take(void) {
    pthread_mutex_lock(&queue_lock);
    while (!queue_head && !queue_ended) pthread_cond_wait(&queue_filled, &queue_lock);
    struct request *request = queue_head;
    if (request) {
        queue_head = request->next;
        if (!queue_head) queue_tail = &queue_head;
    }
    pthread_mutex_unlock(&queue_lock);
    return request;
}

static void process(struct fuse_session *session, struct request *request) {
    arrived = request->arrived;
    fuse_session_process_buf(session, &request->buffer);
    free(request->buffer.mem);
    free(request);
}

static void *work(void *session) {
    struct request *request;
    while ((request = take())) process(session, request);
    return NULL;
}

static void hand_over(struct request *request) {
    pthread_mutex_lock(&queue_lock);
    *queue_tail = request;
    queue_tail = &request->next;
    pthread_cond_signal(&queue_filled);
    pthread_mutex_unlock(&queue_lock);
}

static int is_for_reader(const struct request *request) {
    const struct fuse_in_header *header = request->buffer.mem;
    return header->opcode == FUSE_INIT || header->opcode == FUSE_DESTROY ||
           header->nodeid == NODE_MARK || header->nodeid == NODE_CONTROL;
}

static void read_requests(struct fuse_session *session) {
    while (!fuse_session_exited(session)) {
        struct request *request = calloc(1, sizeof *request);
        if (!request) session_die("memory");
        int r = fuse_session_receive_buf(session, &request->buffer);
        if (r <= 0) {
            free(request->buffer.mem);
            free(request);
            if (r == -EINTR) continue;
            return;
        }
        request->arrived = recorded();
        if (is_for_reader(request)) process(session, request);
        else hand_over(request);
    }
}

int session_serve(const char *name, const char *mount_point, const struct fuse_lowlevel_ops *ops,
                  size_t ops_size, unsigned workers) {
    char options[128];
    snprintf(options, sizeof options, "fsname=%s,subtype=%s,default_permissions,allow_other", name,
             name);
    char *arguments[] = {(char *)(uintptr_t)name, "-o", options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, arguments);
    struct fuse_session *session = fuse_session_new(&args, ops, ops_size, NULL);
    if (!session || fuse_set_signal_handlers(session) != 0 ||
        fuse_session_mount(session, mount_point) != 0) {
        return 2;
    }
    pthread_t threads[16];
    for (unsigned i = 0; i < workers; i++) {
        if (pthread_create(&threads[i], NULL, work, session) != 0) session_die("thread");
    }
    read_requests(session);
    pthread_mutex_lock(&queue_lock);
    queue_ended = 1;
    pthread_cond_broadcast(&queue_filled);
    pthread_mutex_unlock(&queue_lock);
    for (unsigned i = 0; i < workers; i++) pthread_join(threads[i], NULL);
    fuse_session_unmount(session);
    fuse_remove_signal_handlers(session);
    fuse_session_destroy(session);
    record_stop();
    return 0;
}
