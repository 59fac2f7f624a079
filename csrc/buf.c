/* buf.c: counted, aligned, zero-filled memory.
 *
 * Buffers that fit lie in the arena, the others in mappings of their own. Either is kept out of
 * forked children (before Linux 6.2 a fork during a direct read could leave the parent with stale
 * data), and is given back when nobody holds the buffer any more: neither the program nor an
 * operation.
 *
 * In flight means: known to the buffer, by exact byte range. Disjoint ranges may be in
 * flight together; a range being read into excludes everything, one being written out excludes
 * changes. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "os.h"

static atomic_uint_fast64_t live_buffers, live_bytes;

/* Pieces of a page; of larger buffers about a thousand, but none above 64 KiB before there are
 * many thousands. */
static unsigned piece_shift(size_t size) {
    unsigned shift = 12;
    while ((size - 1) >> shift >= (shift < 16 ? 1024 : 65536)) shift++;
    return shift;
}

/* The build that fails on purpose puts every buffer between guard pages of its own. */
static uint8_t *arena_memory(jdb_buf *buf, size_t align) {
#ifdef JDB_DEBUG
    (void)align;
    return buf->base;
#else
    return jdb_arena_get(buf->size, align, &buf->chunk);
#endif
}

static uint8_t *own_memory(jdb_buf *buf, size_t align) {
    size_t page = jdb_os_page_size();
    size_t extra = align > page ? align : 0;
    if (buf->size > (size_t)PTRDIFF_MAX - extra - page) return NULL;
    buf->mapped = (buf->size + extra + page - 1) / page * page;
    buf->map = jdb_os_map(buf->mapped);
    if (!buf->map) return NULL;
    return (uint8_t *)(((uintptr_t)buf->map + align - 1) & ~(uintptr_t)(align - 1));
}

jdb_buf *jdb_buf_new(size_t size, size_t align) {
    if (size == 0 || align == 0 || (align & (align - 1)) != 0) return NULL;
    if (size > (size_t)PTRDIFF_MAX) return NULL;
    unsigned shift = piece_shift(size);
    size_t pieces = ((size - 1) >> shift) + 1;
    jdb_buf *buf = calloc(1, sizeof *buf + pieces * sizeof *buf->pieces);
    if (!buf) return NULL;
    buf->piece_shift = shift;
    buf->size = size;
    buf->base = arena_memory(buf, align);
    if (!buf->base) buf->base = own_memory(buf, align);
    if (!buf->base) {
        free(buf);
        return NULL;
    }
    buf->refs = 1;
    buf->fork_generation = jdb_os_fork_generation();
    atomic_fetch_add_explicit(&live_buffers, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&live_bytes, size, memory_order_relaxed);
    return buf;
}

jdb_buf *jdb_buf_ref(jdb_buf *buf) {
    buf->refs++;
    return buf;
}

void jdb_buf_unref(jdb_buf *buf) {
    assert(buf->refs > 0);
    if (--buf->refs > 0) return;
    assert(buf->inflight == 0);
    /* In a forked child the range was never mapped; something else may lie there by now. */
    if (buf->fork_generation == jdb_os_generation()) {
        if (buf->chunk) jdb_arena_put(buf->chunk, buf->base, buf->size);
        else jdb_os_unmap(buf->map, buf->mapped);
    }
    atomic_fetch_sub_explicit(&live_bytes, buf->size, memory_order_relaxed);
    free(buf);
    atomic_fetch_sub_explicit(&live_buffers, 1, memory_order_relaxed);
}

void *jdb_buf_data(const jdb_buf *buf) {
    return buf->fork_generation == jdb_os_generation() ? buf->base : NULL;
}

size_t jdb_buf_size(const jdb_buf *buf) { return buf->size; }

const uint32_t *jdb_buf_gate(const jdb_buf *buf) {
    _Static_assert(offsetof(jdb_buf, fork_generation) == offsetof(jdb_buf, inflight) + 4,
                   "one behind the other");
    return &buf->inflight;
}

const uint32_t *jdb_forks(void) { return &jdb_os_forks; }

size_t jdb_page_size(void) { return jdb_os_page_size(); }

static inline int overlaps(const jdb_op *op, size_t off, size_t len, int for_writing) {
    if (off >= op->buf_off + op->len || op->buf_off >= off + len) return 0;
    return for_writing || op->code == JDB_READ;
}

static int meets(const jdb_op *op, size_t off, size_t len, int for_writing) {
    for (; op; op = op->mem_next)
        if (overlaps(op, off, len, for_writing)) return 1;
    return 0;
}

int jdb_buf_conflict(const jdb_buf *buf, size_t off, size_t len, int for_writing) {
    if (len == 0) return 0;
    if (buf->sole) return overlaps(buf->sole, off, len, for_writing);
    int doubt = 0;
    size_t last = (off + len - 1) >> buf->piece_shift;
    for (size_t i = off >> buf->piece_shift; i <= last; i++) {
        const struct jdb_piece *piece = &buf->pieces[i];
        if (!piece->uses[1] && !(for_writing && piece->uses[0])) continue;
        doubt = 1;
        if (meets(piece->ops, off, len, for_writing)) return 1;
    }
    return doubt && meets(buf->wide, off, len, for_writing);
}

/* Pieces are looked up by the range: it must lie in the buffer. */
static inline int is_free(const jdb_buf *buf, size_t off, size_t len, int for_writing) {
    if (off > buf->size || len > buf->size - off) return 0;
    return !buf->inflight || !jdb_buf_conflict(buf, off, len, for_writing);
}

int jdb_buf_readable(const jdb_buf *buf, size_t off, size_t len) {
    return is_free(buf, off, len, 0);
}

int jdb_buf_writable(const jdb_buf *buf, size_t off, size_t len) {
    return is_free(buf, off, len, 1);
}

/* Counts the operation in or out of its pieces; gives the list that it belongs to. */
static inline jdb_op **count(const jdb_op *op, uint32_t change) {
    jdb_buf *buf = op->buf;
    size_t first = op->buf_off >> buf->piece_shift;
    size_t last = (op->buf_off + op->len - 1) >> buf->piece_shift;
    int reads = op->code == JDB_READ;
    size_t i = first;
    do buf->pieces[i].uses[reads] += change;
    while (++i <= last);
    return first == last ? &buf->pieces[first].ops : &buf->wide;
}

static inline void push(jdb_op **head, jdb_op *op) {
    op->mem_next = *head;
    op->mem_link = head;
    if (*head) (*head)->mem_link = &op->mem_next;
    *head = op;
}

static void list(jdb_op *op) { push(count(op, 1), op); }

void jdb_buf_enter_beside(jdb_op *op) {
    if (op->buf->sole) list(op->buf->sole);
    op->buf->sole = NULL;
    list(op);
}

/* Most lie inside one piece that nobody uses: one look does it. */
int jdb_buf_claim_beside(jdb_op *op) {
    jdb_buf *buf = op->buf;
    size_t first = op->buf_off >> buf->piece_shift;
    struct jdb_piece *piece = &buf->pieces[first];
    int reads = op->code == JDB_READ;
    if (buf->sole || piece->uses[1] || (reads && piece->uses[0]) || op->len == 0 ||
        first != (op->buf_off + op->len - 1) >> buf->piece_shift) {
        if (jdb_buf_conflict(buf, op->buf_off, op->len, reads)) return 0;
        jdb_buf_enter(op);
        return 1;
    }
    op->flags |= JDB_OP_ONMEM;
    buf->inflight++;
    piece->uses[reads]++;
    push(&piece->ops, op);
    return 1;
}

void jdb_buf_leave_beside(jdb_op *op) {
    count(op, (uint32_t)-1);
    *op->mem_link = op->mem_next;
    if (op->mem_next) op->mem_next->mem_link = op->mem_link;
}

uint64_t jdb_buf_bytes(void) { return atomic_load_explicit(&live_bytes, memory_order_relaxed); }

uint64_t jdb_buf_live(void) { return atomic_load_explicit(&live_buffers, memory_order_relaxed); }
