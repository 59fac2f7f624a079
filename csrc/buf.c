/* buf.c: counted, aligned, zero-filled memory.
 *
 * Each buffer is a mapping of its own: a page the kernel may still write is then never recycled
 * into other objects, and it can be kept out of forked children (before Linux 6.2 a fork during a
 * direct read could leave the parent with stale data).
 *
 * In flight means: on the buffer's list, by exact byte range. Disjoint ranges may be in flight
 * together; a range being read into excludes everything, one being written out excludes changes. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "os.h"

enum { PIECES_MAX = 1024 };

static atomic_uint_fast64_t live_buffers;

jdb_buf *jdb_buf_new(size_t size, size_t align) {
    size_t page = jdb_os_page_size();
    if (size == 0 || align == 0 || (align & (align - 1)) != 0) return NULL;
    size_t extra = align > page ? align : 0;
    if (size > (size_t)PTRDIFF_MAX - extra - page) return NULL;
    unsigned shift = 12;
    while ((size - 1) >> shift >= PIECES_MAX) shift++;
    size_t pieces = ((size - 1) >> shift) + 1;
    jdb_buf *buf = calloc(1, sizeof *buf + pieces * sizeof *buf->pieces);
    if (!buf) return NULL;
    buf->piece_shift = shift;
    buf->mapped = (size + extra + page - 1) / page * page;
    buf->map = jdb_os_map(buf->mapped);
    if (!buf->map) {
        free(buf);
        return NULL;
    }
    uintptr_t base = ((uintptr_t)buf->map + align - 1) & ~(uintptr_t)(align - 1);
    buf->base = (uint8_t *)base;
    buf->size = size;
    buf->refs = 1;
    buf->fork_generation = jdb_os_fork_generation();
    atomic_fetch_add_explicit(&live_buffers, 1, memory_order_relaxed);
    return buf;
}

jdb_buf *jdb_buf_ref(jdb_buf *buf) {
    buf->refs++;
    return buf;
}

void jdb_buf_unref(jdb_buf *buf) {
    assert(buf->refs > 0);
    if (--buf->refs > 0) return;
    assert(!buf->ops);
    /* In a forked child the range was never mapped; something else may lie there by now. */
    if (buf->fork_generation == jdb_os_fork_generation()) jdb_os_unmap(buf->map, buf->mapped);
    free(buf);
    atomic_fetch_sub_explicit(&live_buffers, 1, memory_order_relaxed);
}

void *jdb_buf_data(const jdb_buf *buf) {
    return buf->fork_generation == jdb_os_fork_generation() ? buf->base : NULL;
}

size_t jdb_buf_size(const jdb_buf *buf) { return buf->size; }

size_t jdb_page_size(void) { return jdb_os_page_size(); }

static int pieces_in_doubt(const jdb_buf *buf, size_t off, size_t len, int for_writing) {
    if (len == 0) return 0;
    size_t last = (off + len - 1) >> buf->piece_shift;
    for (size_t i = off >> buf->piece_shift; i <= last; i++)
        if (buf->pieces[i].writers || (for_writing && buf->pieces[i].readers)) return 1;
    return 0;
}

int jdb_buf_conflict(const jdb_buf *buf, size_t off, size_t len, int for_writing) {
    if (!pieces_in_doubt(buf, off, len, for_writing)) return 0;
    for (const jdb_op *op = buf->ops; op; op = op->mem_next) {
        if (off >= op->buf_off + op->len || op->buf_off >= off + len) continue;
        if (for_writing || op->code == JDB_READ) return 1;
    }
    return 0;
}

int jdb_buf_readable(const jdb_buf *buf, size_t off, size_t len) {
    return !buf->ops || !jdb_buf_conflict(buf, off, len, 0);
}

int jdb_buf_writable(const jdb_buf *buf, size_t off, size_t len) {
    return !buf->ops || !jdb_buf_conflict(buf, off, len, 1);
}

static void count(jdb_op *op, uint32_t change) {
    if (op->len == 0) return;
    size_t last = (size_t)(op->buf_off + op->len - 1) >> op->buf->piece_shift;
    for (size_t i = (size_t)op->buf_off >> op->buf->piece_shift; i <= last; i++) {
        struct jdb_piece *piece = &op->buf->pieces[i];
        if (op->code == JDB_READ) piece->writers += change;
        else piece->readers += change;
    }
}

void jdb_buf_enter(jdb_op *op) {
    assert(!(op->flags & JDB_OP_ONMEM));
    count(op, 1);
    op->mem_prev = NULL;
    op->mem_next = op->buf->ops;
    if (op->buf->ops) op->buf->ops->mem_prev = op;
    op->buf->ops = op;
    op->flags |= JDB_OP_ONMEM;
}

void jdb_buf_leave(jdb_op *op) {
    if (!(op->flags & JDB_OP_ONMEM)) return;
    count(op, (uint32_t)-1);
    if (op->mem_prev) op->mem_prev->mem_next = op->mem_next;
    else op->buf->ops = op->mem_next;
    if (op->mem_next) op->mem_next->mem_prev = op->mem_prev;
    op->mem_next = op->mem_prev = NULL;
    op->flags &= (uint16_t)~JDB_OP_ONMEM;
}

uint64_t jdb_buf_live(void) { return atomic_load_explicit(&live_buffers, memory_order_relaxed); }
