/* op.c: what an operation asks for, whether it may be asked, and what its result means.
 *
 * Refusals come before any submission and alike on every file system: btrfs and tmpfs accept
 * misaligned direct I/O silently, and offset -1 would mean "the current position" to io_uring. */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os.h"

/* ---- filling -------------------------------------------------------------------------------- */

static inline void set_transfer(jdb_op *op, jdb_code code, jdb_file *file, jdb_buf *buf,
                                size_t buf_off, size_t len, uint64_t off) {
    jdb_op_clear(op);
    buf->refs++;
    op->code = (uint8_t)code;
    op->file = file;
    op->buf = buf;
    op->buf_off = buf_off;
    op->len = len;
    op->off = off;
}

static inline void prep_rw(jdb_op *op, jdb_code code, jdb_file *file, jdb_buf *buf, size_t buf_off,
                           size_t len, uint64_t off) {
    set_transfer(op, code, file, buf, buf_off, len, off);
    file->refs++;
}

void jdb_prep_read(jdb_op *op, jdb_file *file, jdb_buf *buf, size_t buf_off, size_t len,
                   uint64_t off, unsigned flags) {
    prep_rw(op, JDB_READ, file, buf, buf_off, len, off);
    if (flags & JDB_READ_UPTO) op->flags |= JDB_OP_UPTO;
}

/* On a handle whose every write is durable by itself nothing is left to do for the flag. */
static uint16_t durable_flag(const jdb_file *file, unsigned flags) {
    if (file->dsync_by_flush) return JDB_OP_DSYNC;
    return (flags & JDB_WRITE_DSYNC) && !file->info.dsync ? JDB_OP_DSYNC : 0;
}

void jdb_prep_write(jdb_op *op, jdb_file *file, jdb_buf *buf, size_t buf_off, size_t len,
                    uint64_t off, unsigned flags) {
    prep_rw(op, JDB_WRITE, file, buf, buf_off, len, off);
    op->flags |= durable_flag(file, flags);
    if (flags & JDB_WRITE_ATOMIC) op->flags |= JDB_OP_ATOMIC;
}

void jdb_prep_many(jdb_op *op, jdb_code code, jdb_file *file, unsigned flags) {
    jdb_prep_file(op, code, file);
    if (code != JDB_WRITE_MANY) return;
    op->flags |= durable_flag(file, flags);
    if (flags & JDB_WRITE_ATOMIC) op->flags |= JDB_OP_ATOMIC;
}

void jdb_prep_file(jdb_op *op, jdb_code code, jdb_file *file) {
    jdb_op_clear(op);
    op->code = (uint8_t)code;
    op->file = jdb_file_ref(file);
    if (code == JDB_STAT || code == JDB_INFO) op->detail = calloc(1, sizeof *op->detail);
}

void jdb_prep_truncate(jdb_op *op, jdb_file *file, uint64_t len) {
    jdb_prep_file(op, JDB_TRUNCATE, file);
    op->len = len;
}

void jdb_prep_punch(jdb_op *op, jdb_file *file, uint64_t off, uint64_t len) {
    jdb_prep_file(op, JDB_PUNCH, file);
    op->off = off;
    op->len = len;
}

void jdb_prep_lock(jdb_op *op, jdb_file *file, int how) {
    jdb_prep_file(op, JDB_LOCK, file);
    op->how = (uint8_t)how;
    op->detail = calloc(1, sizeof *op->detail);
}

void jdb_prep_preallocate(jdb_op *op, jdb_file *file, uint64_t len, jdb_prealloc how) {
    jdb_prep_file(op, JDB_PREALLOCATE, file);
    op->len = len;
    op->how = (uint8_t)how;
}

static int prep_detail(jdb_op *op, jdb_code code, const char *path, const char *path2) {
    jdb_op_clear(op);
    op->code = (uint8_t)code;
    op->detail = calloc(1, sizeof *op->detail);
    if (!op->detail) return -1;
    op->detail->path = strdup(path);
    if (path2) op->detail->path2 = strdup(path2);
    return op->detail->path && (!path2 || op->detail->path2) ? 0 : -1;
}

int jdb_prep_path(jdb_op *op, jdb_code code, const char *path, unsigned flags) {
    if (prep_detail(op, code, path, NULL) != 0) return -1;
    op->detail->flags = flags;
    return 0;
}

int jdb_prep_atomic_write(jdb_op *op, const char *path, const void *data, size_t len) {
    if (prep_detail(op, JDB_PATH_ATOMIC_WRITE, path, NULL) != 0) return -1;
    op->detail->data = malloc(len ? len : 1);
    if (!op->detail->data) return -1;
    memcpy(op->detail->data, data, len);
    op->detail->data_len = len;
    return 0;
}

int jdb_prep_rename(jdb_op *op, const char *from, const char *to, unsigned flags) {
    if (prep_detail(op, JDB_PATH_RENAME, from, to) != 0) return -1;
    op->detail->flags = flags;
    return 0;
}

int jdb_prep_open(jdb_queue *queue, jdb_op *op, const char *path, const jdb_open *how) {
    if (prep_detail(op, JDB_OPEN, path, NULL) != 0) return -1;
    op->file = jdb_file_new(queue, path);
    op->detail->open = *how;
    if (queue->options.iopoll) op->detail->open.flags |= JDB_OPEN_POLLED;
    return op->file ? 0 : -1;
}

/* What few operations have. */
void jdb_op_let_go_rest(jdb_op *op) {
    jdb_queue *q = op->file ? op->file->queue : NULL;
    jdb_op *entry;
    while (q && (entry = jdb_list_pop(&op->children))) { /* a list has a file */
        jdb_buf_leave(entry);
        jdb_op_release(q, entry);
    }
    if (q && op->link && !(op->flags & JDB_OP_CHILD)) jdb_op_release(q, op->link);
    if (op->detail) {
        free(op->detail->path);
        free(op->detail->path2);
        free(op->detail->names);
        free(op->detail->data);
        free(op->detail->cause);
        free(op->detail);
        op->detail = NULL;
    }
}

/* ---- checking ------------------------------------------------------------------------------- */

static jdb_kind refuse(jdb_op *op, jdb_kind kind, enum jdb_fault fault, uint64_t need) {
    op->kind = (uint8_t)kind;
    op->fault = (uint8_t)fault;
    op->need = (uint32_t)need;
    return kind;
}

/* One write that no crash may tear: a power of two, on a multiple of itself, within the limits. */
static jdb_kind check_atomic(jdb_op *op) {
    const jdb_file_info *info = &op->file->info;
    if (!info->direct || info->atomic_max == 0)
        return refuse(op, JDB_UNSUPPORTED, JDB_FAULT_ATOMIC, 0);
    if (op->len < info->atomic_min || op->len > info->atomic_max || (op->len & (op->len - 1)))
        return refuse(op, JDB_ALIGNMENT, JDB_FAULT_ATOMIC, info->atomic_max);
    if (op->off % op->len) return refuse(op, JDB_ALIGNMENT, JDB_FAULT_OFFSET, op->len);
    return JDB_OK;
}

/* claim: its memory is in flight when nothing was wrong. */
__attribute__((always_inline)) static inline jdb_kind check_transfer(jdb_op *op, int claim) {
    const jdb_file *file = op->file;
    const jdb_buf *buf = op->buf;
    /* Powers of two: a division takes longer than all the rest of this. */
    uint64_t align = op->code == JDB_READ ? file->read_align : file->write_align;
    if (op->buf_off > buf->size || op->len > buf->size - op->buf_off)
        return refuse(op, JDB_OVERFLOW, JDB_FAULT_RANGE, 0);
    /* A buffer is less than 2^63 bytes: the sum does not wrap unless the first is too large. */
    if ((op->off | (op->off + op->len)) >> 63)
        return refuse(op, JDB_OVERFLOW, op->off >> 63 ? JDB_FAULT_OFFSET : JDB_FAULT_END, 0);
    if ((op->off | op->len) & (align - 1))
        return refuse(op, JDB_ALIGNMENT,
                      op->off & (align - 1) ? JDB_FAULT_OFFSET : JDB_FAULT_LENGTH, align);
    if (buf->fork_generation != jdb_os_generation())
        return refuse(op, JDB_FORKED, JDB_FAULT_MEMORY, 0);
    if (((uintptr_t)buf->base + op->buf_off) & (file->memory_align - 1))
        return refuse(op, JDB_ALIGNMENT, JDB_FAULT_MEMORY, file->memory_align);
    if ((op->flags & JDB_OP_ATOMIC) && check_atomic(op) != JDB_OK) return (jdb_kind)op->kind;
    int free = claim           ? jdb_buf_claim(op)
               : buf->inflight ? !jdb_buf_conflict(buf, op->buf_off, op->len, op->code == JDB_READ)
                               : 1;
    return free ? JDB_OK : refuse(op, JDB_BUSY, JDB_FAULT_MEMORY, 0);
}

static jdb_kind no_entry(const jdb_op *many, jdb_failure *f) {
    if (!f) return JDB_ALLOC;
    memset(f, 0, sizeof *f);
    f->kind = JDB_ALLOC;
    f->op = jdb_code_name((jdb_code)many->code);
    f->path = many->file->path;
    f->index = (int64_t)many->len;
    f->offset = f->length = f->actual = -1;
    return JDB_ALLOC;
}

/* The list's own check was the file's. In flight from now on, so that entries of one list cannot
 * overlap either. */
jdb_kind jdb_many_add(jdb_op *many, jdb_buf *buf, size_t buf_off, size_t len, uint64_t off,
                      jdb_failure *failure) {
    jdb_queue *q = many->file->queue;
    jdb_op *entry = jdb_slot_take(q);
    if (!entry) return no_entry(many, failure);
    set_transfer(entry, many->code == JDB_READ_MANY ? JDB_READ : JDB_WRITE, many->file, buf,
                 buf_off, len, off);
    entry->flags = JDB_OP_CHILD | (many->flags & JDB_OP_ATOMIC);
    entry->link = many;
    entry->index = (uint32_t)many->len;
    if (check_transfer(entry, 1) == JDB_OK) {
        many->len++;
        many->off += len;
        jdb_list_push(&many->children, entry);
        return JDB_OK;
    }
    jdb_kind kind = (jdb_kind)entry->kind;
    if (failure) jdb_op_failure(entry, failure); /* its texts outlive the operation */
    jdb_op_release(q, entry);
    return kind;
}

/* Whether the program is promised durability when this operation succeeds. */
static int promises_durability(const jdb_op *op) {
    if (op->code == JDB_SYNC_ALL || op->code == JDB_SYNC_DATA) return 1;
    if (op->flags & JDB_OP_DSYNC) return 1;
    return (op->code == JDB_WRITE || op->code == JDB_WRITE_MANY) && op->file->info.dsync;
}

/* A barrier orders what becomes durable and makes nothing so. */
static jdb_kind check_open(jdb_op *op) {
    const jdb_open *how = &op->detail->open;
    if (how->sync_level == JDB_SYNC_FULL) return JDB_OK;
    int possible = jdb_os_has_barrier() && !op->file->queue->backend->world;
    int durable = (how->flags & JDB_OPEN_DSYNC) != 0;
    if (!possible || how->sync_level != JDB_SYNC_BARRIER || durable)
        return refuse(op, JDB_UNSUPPORTED, JDB_FAULT_BARRIER, (uint64_t)durable);
    return JDB_OK;
}

/* What this file does not promise, or no longer. */
static jdb_kind check_promise(jdb_op *op) {
    if (op->file->info.poisoned && promises_durability(op)) {
        op->error = op->file->info.poisoned;
        return refuse(op, JDB_POISONED, JDB_FAULT_NONE, 0);
    }
    if (op->file->info.sync_level != JDB_SYNC_FULL && (op->flags & JDB_OP_DSYNC))
        return refuse(op, JDB_UNSUPPORTED, JDB_FAULT_BARRIER, 1);
    return JDB_OK;
}

/* Sets of codes, a bit for each. */
#define CODES_WITH_DETAIL (1u << JDB_STAT | 1u << JDB_INFO | 1u << JDB_LOCK)
#define CODES_THAT_CHANGE                                                                  \
    (1u << JDB_WRITE | 1u << JDB_WRITE_MANY | 1u << JDB_TRUNCATE | 1u << JDB_PREALLOCATE | \
     1u << JDB_PUNCH)

/* Whether the file is one for this. */
static inline jdb_kind check_file(jdb_op *op) {
    const jdb_file *file = op->file;
    if (file->closing || file->handle < 0) return refuse(op, JDB_CLOSED, JDB_FAULT_NONE, 0);
    if (CODES_THAT_CHANGE >> op->code & 1 && !file->info.writable) {
        op->error = EBADF;
        return refuse(op, JDB_IO, JDB_FAULT_NONE, 0);
    }
    if (file->info.poisoned || file->info.sync_level) return check_promise(op);
    return JDB_OK;
}

jdb_kind jdb_op_check(jdb_op *op) {
    unsigned code = op->code;
    op->kind = op->fault = 0;
    op->error = 0;
    if (jdb_op_transfers(op)) {
        jdb_kind kind = check_file(op);
        return kind ? kind : check_transfer(op, 0);
    }
    if (!op->file) return JDB_OK;
    /* Taken before a fork, say. A list's entries ask no more. Transfers are refused by what they
     * have in hand, the file or the memory. */
    jdb_kind kind = jdb_queue_usable(op->file->queue);
    if (kind) return refuse(op, kind, JDB_FAULT_NONE, 0);
    if (code == JDB_OPEN) return check_open(op);
    if (code == JDB_CLOSE) return JDB_OK;
    if (CODES_WITH_DETAIL >> code & 1 && !op->detail)
        return refuse(op, JDB_ALLOC, JDB_FAULT_NONE, 0);
    kind = check_file(op);
    if (kind) return kind;
    if (code == JDB_PUNCH && op->off > INT64_MAX)
        return refuse(op, JDB_OVERFLOW, JDB_FAULT_OFFSET, 0);
    if (code == JDB_PUNCH && op->len <= INT64_MAX && op->len > (uint64_t)INT64_MAX - op->off)
        return refuse(op, JDB_OVERFLOW, JDB_FAULT_END, 0);
    if (CODES_THAT_CHANGE >> code & 1 && op->len > INT64_MAX)
        return refuse(op, JDB_OVERFLOW, JDB_FAULT_LENGTH, 0);
    return JDB_OK;
}

/* ---- results -------------------------------------------------------------------------------- */

static void settle_transfer(jdb_op *op) {
    if (op->result < 0) {
        jdb_op_fail(op, jdb_kind_of_errno((int)-op->result), (int)-op->result);
    } else if (op->moved < op->len && op->code == JDB_WRITE) {
        jdb_op_fail(op, JDB_SHORT_WRITE, 0);
    } else if (op->moved < op->len && !(op->flags & JDB_OP_UPTO)) {
        jdb_op_fail(op, JDB_SHORT_READ, 0);
    }
    op->result = (int64_t)op->moved;
}

/* A list fails with its first entry that did; its result is the count. */
static void settle_many(jdb_op *op) {
    if (op->link) jdb_op_fail(op, (jdb_kind)op->link->kind, op->link->error);
    else if (op->result < 0) jdb_op_fail(op, jdb_kind_of_errno((int)-op->result), (int)-op->result);
    op->result = (int64_t)op->len;
}

void jdb_op_settle_rest(jdb_op *op) {
    if (op->result == JDB_RESULT_POISONED) {
        jdb_op_fail(op, JDB_POISONED, op->file->info.poisoned);
    } else if (jdb_op_transfers(op)) {
        settle_transfer(op);
        return;
    } else if (op->code == JDB_READ_MANY || op->code == JDB_WRITE_MANY) {
        settle_many(op);
    } else if (op->result < 0) {
        int error = (int)-op->result;
        jdb_op_fail(op, jdb_kind_of_errno(error), error);
        int lock = op->code == JDB_LOCK || (op->code == JDB_OPEN && op->detail->cause);
        if (lock && error == EAGAIN) jdb_op_fail(op, JDB_BUSY, 0);
    }
    if (op->code == JDB_INFO && !op->kind) op->file->info.evidence = op->detail->info.evidence;
    if (op->code == JDB_CLOSE && !op->kind && op->file->deferred) {
        jdb_op_fail(op, JDB_IO, op->file->deferred);
        op->file->deferred = 0;
    }
}

void jdb_op_set_part(jdb_op *op, size_t skip, size_t len) {
    op->flags |= JDB_OP_PART;
    op->part_skip = (uint32_t)skip;
    op->part_len = len;
}

int jdb_op_part(const jdb_op *op, const void **data, size_t *len) {
    if (!(op->flags & JDB_OP_PART)) return 0;
    uint64_t there = op->moved > op->part_skip ? op->moved - op->part_skip : 0;
    *len = (size_t)(there < op->part_len ? there : op->part_len);
    *data = op->buf->base + op->buf_off + op->part_skip;
    return 1;
}

void jdb_op_set_waiter(jdb_op *op, void *waiter) { op->waiter = waiter; }
void *jdb_op_waiter(const jdb_op *op) { return op->waiter; }
jdb_kind jdb_op_kind(const jdb_op *op) { return (jdb_kind)op->kind; }
int64_t jdb_op_result(const jdb_op *op) { return op->result; }

#define CODES_THAT_COUNT                                                             \
    (1u << JDB_READ | 1u << JDB_WRITE | 1u << JDB_READ_MANY | 1u << JDB_WRITE_MANY | \
     1u << JDB_SIZE | 1u << JDB_PATH_SIZE)

int64_t jdb_op_count(const jdb_op *op) {
    int counts =
        op->kind == JDB_OK && !(op->flags & JDB_OP_PART) && CODES_THAT_COUNT >> op->code & 1;
    return counts ? op->result : -1;
}

jdb_code jdb_op_code(const jdb_op *op) { return (jdb_code)op->code; }
jdb_file *jdb_op_file(const jdb_op *op) { return op->file; }
jdb_buf *jdb_op_buf(const jdb_op *op) { return op->buf; }
const jdb_stat *jdb_op_stat(const jdb_op *op) { return &op->detail->stat; }

const jdb_file_info *jdb_op_probe(const jdb_op *op) {
    jdb_file_info *info = &op->detail->info;
    info->file_system = op->detail->file_system;
    return info;
}

const char *jdb_op_names(const jdb_op *op, size_t *count) {
    *count = op->detail->names_count;
    return op->detail->names;
}

void jdb_op_space(const jdb_op *op, uint64_t *free_bytes, uint64_t *total_bytes) {
    *free_bytes = op->detail->free_bytes;
    *total_bytes = op->detail->total_bytes;
}

/* ---- failures in words ---------------------------------------------------------------------- */

static const char *alignment_cause(const jdb_op *op) {
    /* Static texts: a failure must not need memory. The numbers follow in the message. */
    static _Thread_local char text[96];
    const char *field = op->fault == JDB_FAULT_OFFSET   ? "offset"
                        : op->fault == JDB_FAULT_LENGTH ? "length"
                                                        : "memory address";
    snprintf(text, sizeof text, "%s is not a multiple of %u", field, (unsigned)op->need);
    return text;
}

static int is_durable(const jdb_op *op) { return op->file && promises_durability(op); }

static const char *doubt_cause(const jdb_op *op) {
    static _Thread_local char text[160];
    assert(op->file);
    const jdb_file_info *info = &op->file->info;
    const char *lead = op->kind == JDB_POISONED
                           ? "an earlier flush or durable write failed; reopen "
                             "the file and look at what is there"
                           : "durability unknown";
    if (info->doubt_from == info->doubt_to) snprintf(text, sizeof text, "%s", lead);
    else
        snprintf(text, sizeof text, "%s; in doubt: bytes %llu to %llu", lead,
                 (unsigned long long)info->doubt_from, (unsigned long long)info->doubt_to - 1);
    return text;
}

static const char *op_cause(const jdb_op *op) {
    const char *open_refusal =
        op->code == JDB_OPEN && op->file ? op->file->info.direct_reason : NULL;
    if (op->detail && op->detail->cause) return op->detail->cause;
    if (op->flags & JDB_OP_STRANDED)
        return "the system had begun it and refuses to tell how it ended";
    if (op->kind == JDB_POISONED) return doubt_cause(op);
    if (op->fault == JDB_FAULT_ATOMIC)
        return op->kind == JDB_UNSUPPORTED ? "this file has no atomic writes"
                                           : "not a power of two within the file's atomic limits";
    if (op->fault == JDB_FAULT_BARRIER)
        return op->need ? "sync_level = \"barrier\" promises an order, and no write to be durable"
                        : "this system has no sync_level = \"barrier\", only \"full\"";
    if (op->error && op->file && is_durable(op) && op->file->info.poisoned) return doubt_cause(op);
    switch (op->kind) {
    case JDB_ALIGNMENT: return alignment_cause(op);
    case JDB_OVERFLOW:
        if (op->fault == JDB_FAULT_RANGE) return "range does not lie in the buffer";
        if (op->fault == JDB_FAULT_OFFSET) return "offset is beyond 2^63-1";
        if (op->fault == JDB_FAULT_END) return "offset + length is beyond 2^63-1";
        if (op->fault == JDB_FAULT_LENGTH) return "length is beyond 2^63-1";
        return NULL;
    case JDB_BUSY: return "the buffer is in flight";
    case JDB_CLOSED:
        return jdb_file_closed(op->file) ? "the file is closed" : "the queue is closed";
    case JDB_CANCELLED: return "cancelled before it was handed to the system";
    case JDB_IO:
        if (op->error == EBADF && op->file && !op->file->info.writable)
            return "the file was opened read only";
        return open_refusal;
    case JDB_UNSUPPORTED: return open_refusal;
    default: return NULL;
    }
}

void jdb_op_failure(const jdb_op *op, jdb_failure *f) {
    if (op->link && !(op->flags & JDB_OP_CHILD)) {
        jdb_op_failure(op->link, f);
        return;
    }
    int transfer = op->code == JDB_READ || op->code == JDB_WRITE;
    int sized = op->code == JDB_TRUNCATE || op->code == JDB_PREALLOCATE || op->code == JDB_PUNCH;
    f->kind = (jdb_kind)op->kind;
    f->error = op->error;
    f->op = op->flags & JDB_OP_CHILD  ? (op->code == JDB_READ ? "read_many" : "write_many")
            : op->flags & JDB_OP_PART ? "read"
            : op->flags & JDB_OP_UPTO ? "read_upto"
                                      : jdb_code_name((jdb_code)op->code);
    const struct jdb_detail *d = op->detail;
    if (op->code == JDB_OPEN && d && d->open.name) f->op = d->open.name;
    f->path = op->file ? op->file->path : d ? d->path : NULL;
    f->path2 = d ? d->path2 : NULL;
    f->cause = op_cause(op);
    f->index = op->flags & JDB_OP_CHILD ? (int64_t)op->index : -1;
    f->offset = (transfer || op->code == JDB_PUNCH) && op->off <= INT64_MAX ? (int64_t)op->off : -1;
    f->length = (transfer || sized) && op->len <= INT64_MAX ? (int64_t)op->len : -1;
    f->actual = transfer ? (int64_t)op->moved : -1;
    if (op->kind == JDB_POISONED || (!transfer && op->error && is_durable(op))) {
        assert(op->file);
        f->offset = (int64_t)op->file->info.doubt_from;
        f->length = (int64_t)(op->file->info.doubt_to - op->file->info.doubt_from);
    }
}
