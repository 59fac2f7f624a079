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
    file->info.align_source = "not open";
    file->info.file_system = file->file_system;
    queue->refs++;
    atomic_fetch_add_explicit(&live_files, 1, memory_order_relaxed);
    return file;
}

jdb_file *jdb_file_ref(jdb_file *file) {
    file->refs++;
    return file;
}

/* Nobody waits for this close, so its error is nobody's: whoever wants it calls close. */
void jdb_file_unref(jdb_file *file) {
    assert(file->refs > 0);
    if (--file->refs > 0) return;
    assert(file->inflight == 0 && !file->closers.head);
    if (file->handle >= 0) jdb_os_close(file->handle);
    jdb_queue *queue = file->queue;
    free(file->path);
    free(file);
    atomic_fetch_sub_explicit(&live_files, 1, memory_order_relaxed);
    jdb_queue_unref(queue);
}

const char *jdb_file_path(const jdb_file *file) { return file->path; }

int jdb_file_closed(const jdb_file *file) { return file->closing || file->handle < 0; }

int64_t jdb_file_size_now(const jdb_file *file) {
    return jdb_file_closed(file) ? -EBADF : jdb_os_size(file->handle);
}

void jdb_file_info_get(const jdb_file *file, jdb_file_info *info) {
    *info = file->info;
    info->memory_align = (uint32_t)file->memory_align;
    info->read_align = (uint32_t)file->read_align;
    info->write_align = (uint32_t)file->write_align;
}

void jdb_live(uint64_t *buffers, uint64_t *files) {
    *buffers = jdb_buf_live();
    *files = atomic_load_explicit(&live_files, memory_order_relaxed);
}
