/* file.c: counted file handles. A file is made closed, an open operation fills it in, and its
 * handle is closed when nobody holds it any more: neither the program nor an operation. */
#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"

static atomic_uint_fast64_t live_files;

jdb_file *jdb_file_new(jdb_queue *queue, const char *path) {
    jdb_file *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    if (!file || !copy) {
        free(file);
        free(copy);
        return NULL;
    }
    file->handle = -1;
    file->path = copy;
    file->refs = 1;
    file->queue = queue;
    file->read_align = file->write_align = file->memory_align = 1;
    file->disk = (uint64_t)(uintptr_t)file;
    file->info.align_source = "not open";
    file->info.file_system = file->file_system;
    file->info.evidence.class_name = "unknown";
    queue->refs++;
    atomic_fetch_add_explicit(&live_files, 1, memory_order_relaxed);
    return file;
}

jdb_file *jdb_file_ref(jdb_file *file) {
    file->refs++;
    return file;
}

/* Nobody waits for this close, so its error is nobody's: whoever wants it calls close. The lock
 * goes first, as there. A forked child leaves the parent's alone. */
static void close_handle(jdb_queue *queue, const jdb_file *file) {
    const struct jdb_world *world = queue->backend->world;
    if (file->handle < 0) return;
    if (world) {
        world->close(queue, file->handle);
        return;
    }
    if (file->locked && queue->fork_generation == jdb_os_generation()) jdb_os_unlock(file->handle);
    jdb_os_close(file->handle);
}

void jdb_file_unref(jdb_file *file) {
    assert(file->refs > 0);
    if (--file->refs > 0) return;
    assert(file->inflight == 0 && !file->closers.head);
    assert(file->plain.count + file->plain.awaited + file->plain.bytes == 0);
    assert(file->durable.count + file->durable.awaited + file->durable.bytes == 0);
    jdb_queue *queue = file->queue;
    if (queue->written == file) queue->written = NULL;
    if (queue->backend->forget) queue->backend->forget(queue, file);
    close_handle(queue, file);
    free(file->path);
    free(file);
    atomic_fetch_sub_explicit(&live_files, 1, memory_order_relaxed);
    jdb_queue_unref(queue);
}

/* An empty span has from == to. One span that covers all is what is told: nothing outside it is
 * in doubt. */
void jdb_span_add(struct jdb_span *span, uint64_t from, uint64_t to) {
    if (from >= to) return;
    if (span->from == span->to) {
        span->from = from;
        span->to = to;
        return;
    }
    if (from < span->from) span->from = from;
    if (to > span->to) span->to = to;
}

/* The first failure is the one that is told; later ones can only widen the doubt. */
void jdb_file_poison(jdb_file *file, int error, uint64_t from, uint64_t to) {
    struct jdb_span doubt = {file->info.doubt_from, file->info.doubt_to};
    if (!file->info.poisoned) file->info.poisoned = error;
    jdb_span_add(&doubt, from, to);
    file->info.doubt_from = doubt.from;
    file->info.doubt_to = doubt.to;
}

jdb_queue *jdb_file_queue(const jdb_file *file) { return file->queue; }
const char *jdb_file_path(const jdb_file *file) { return file->path; }

int jdb_file_closed(const jdb_file *file) { return file->closing || file->handle < 0; }

int64_t jdb_file_size_now(const jdb_file *file) {
    if (jdb_file_closed(file)) return -EBADF;
    const struct jdb_world *world = file->queue->backend->world;
    return world ? world->size(file->queue, file->handle) : jdb_os_size(file->handle);
}

const char *jdb_file_method_reason(const jdb_file *file) {
    if (file->dsync_by_flush)
        return "every write is durable: a write and a shared flush, as this system's O_DSYNC stops "
               "at the device's cache";
    if (file->info.dsync)
        return "the file was opened with O_DSYNC or write-through: every write is durable";
    if (file->info.method == JDB_METHOD_WRITE) return "asked for: each write is durable by itself";
    if (file->info.method == JDB_METHOD_FLUSH)
        return "asked for, or the file system has no durable writes: a write and a shared flush";
    return "a lone write is durable by itself; several at once are written and share a flush: "
           "a durable write means a flush of the device's cache";
}

void jdb_file_info_get(const jdb_file *file, jdb_file_info *info) {
    *info = file->info;
    info->memory_align = (uint32_t)file->memory_align;
    info->read_align = (uint32_t)file->read_align;
    info->write_align = (uint32_t)file->write_align;
    info->sync_level = (jdb_sync_level)__atomic_load_n(&file->sync_level, __ATOMIC_RELAXED);
}

void jdb_live(uint64_t *buffers, uint64_t *files) {
    *buffers = jdb_buf_live();
    *files = atomic_load_explicit(&live_files, memory_order_relaxed);
}
