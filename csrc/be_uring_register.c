/* be_uring_register.c: memory, files and the ring registered with the kernel, which then need not
 * be looked up, counted and pinned for each operation.
 *
 * Memory is registered by chunks of the arena, a chunk at a time and only one that is in use, so
 * that no call takes long and nothing is locked for nothing. A file gets a number of the table
 * once it has seen some transfers, and gives it back before its descriptor is closed: otherwise
 * the kernel would keep the file open, and its locks. An operation in flight holds its buffer,
 * hence the chunk, and its file, hence the number. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "be_uring.h"
#include "os.h"

enum {
    FILES_MAX = 256,
    USES = 16,     /* transfers before registering pays */
    SWEEP_MAX = 16 /* chunks that are let go of in one turn */
};

static void refused(jdb_queue *q, const char *what, int r) {
    size_t used = strlen(q->registered.reason);
    if (strstr(q->registered.reason, what)) return;
    const char *name = jdb_errno_name(-r);
    snprintf(q->registered.reason + used, sizeof q->registered.reason - used, "%s%s: %s%s",
             used ? "; " : "", what, name ? name : "refused",
             r == -ENOMEM ? " (limit on locked memory, ulimit -l)" : "");
}

/* ---- the ring ------------------------------------------------------------------------------- */

/* By hand, since liburing would give the number back from whatever thread closes the ring, and
 * there it may be another ring's. With SINGLE_ISSUER (6.0) only: before, some kernels deadlock at
 * the process's end. */
void jdb_uring_register_ring(jdb_queue *q, struct uring *u) {
    if (q->options.unregistered || !(u->flags & IORING_SETUP_SINGLE_ISSUER)) return;
    struct io_uring_rsrc_update update = {.offset = UINT32_MAX, .data = (uint64_t)u->ring.ring_fd};
    if (syscall(SYS_io_uring_register, u->ring.ring_fd, IORING_REGISTER_RING_FDS, &update, 1) != 1)
        return;
    u->enter_fd = (int)update.offset;
    u->enter_flags = IORING_ENTER_REGISTERED_RING;
    q->registered.ring = 1;
}

void jdb_uring_register_close(struct uring *u, int own) {
    free(u->chunks);
    free(u->slots);
    if (!own || !u->enter_flags) return;
    struct io_uring_rsrc_update update = {.offset = (uint32_t)u->enter_fd};
    syscall(SYS_io_uring_register, u->ring.ring_fd, IORING_UNREGISTER_RING_FDS, &update, 1);
}

/* ---- memory --------------------------------------------------------------------------------- */

static int refuse_memory(jdb_queue *q, struct uring *u, int r) {
    u->memory_refused = 1;
    refused(q, "memory", r);
    return -1;
}

static int make_chunk_table(jdb_queue *q, struct uring *u) {
    int r = io_uring_register_buffers_sparse(&u->ring, JDB_CHUNKS_MAX);
    if (r == 0 && !(u->chunks = calloc(JDB_CHUNKS_MAX, sizeof *u->chunks))) r = -ENOMEM;
    return r < 0 ? refuse_memory(q, u, r) : 0;
}

static int set_memory(struct uring *u, uint32_t id, void *memory) {
    struct iovec range = {memory, memory ? JDB_CHUNK_SIZE : 0};
    uint64_t tag = 0;
    int r = io_uring_register_buffers_update_tag(&u->ring, id, &range, (void *)&tag, 1);
    return r < 0 ? r : 0;
}

/* Tells the kernel that a chunk is gone, whose pages stay locked, and count, until then. Whether it
 * had to be told. */
static int let_go(jdb_queue *q, struct uring *u, uint32_t id) {
    struct known_chunk *known = &u->chunks[id];
    int told = known->registered;
    if (told && set_memory(u, id, NULL) != 0) return 1;
    if (told) {
        q->registered.memory -= JDB_CHUNK_SIZE;
        u->memory_refused = 0; /* there may be room again */
    }
    memset(known, 0, sizeof *known);
    return told;
}

/* A few at a time: much memory that is given back at once holds nobody up. */
void jdb_uring_sweep(jdb_queue *q, struct uring *u) {
    uint64_t freed = jdb_arena_freed();
    if (freed != u->sweeping) u->sweep_left = u->chunk_top; /* all have to be looked at again */
    u->sweeping = freed;
    for (int told = 0; u->sweep_left > 0 && told < SWEEP_MAX;) {
        uint32_t id = --u->sweep_left;
        uint64_t serial = u->chunks[id].serial;
        if (serial && !jdb_arena_has(id, serial)) told += let_go(q, u, id);
    }
    if (u->sweep_left == 0) u->freed = freed;
}

/* Another chunk had this id: its registration is replaced, as none of its buffers is left. */
int jdb_uring_meet_memory(jdb_queue *q, struct uring *u, const struct jdb_chunk *chunk) {
    if (q->options.unregistered || u->memory_refused || chunk->id >= JDB_CHUNKS_MAX) return -1;
    if (!u->chunks && make_chunk_table(q, u) != 0) return -1;
    struct known_chunk *known = &u->chunks[chunk->id];
    if (known->serial != chunk->serial) {
        if (known->serial) let_go(q, u, chunk->id);
        if (known->serial) return -1; /* the kernel still has that one: its pages, not these */
        known->serial = chunk->serial;
        if (chunk->id >= u->chunk_top) u->chunk_top = chunk->id + 1;
    }
    if (++known->uses < USES) return -1;
    int r = set_memory(u, chunk->id, chunk->memory);
    if (r < 0) return refuse_memory(q, u, r);
    known->registered = 1;
    q->registered.memory += JDB_CHUNK_SIZE;
    return (int)chunk->id;
}

/* ---- files ---------------------------------------------------------------------------------- */

static int make_file_table(jdb_queue *q, struct uring *u) {
    int r = io_uring_register_files_sparse(&u->ring, FILES_MAX);
    if (r >= 0 && !(u->slots = malloc(FILES_MAX * sizeof *u->slots))) r = -ENOMEM;
    if (r < 0) {
        u->files_refused = 1;
        refused(q, "files", r);
        return -1;
    }
    for (uint32_t i = 0; i < FILES_MAX; i++) u->slots[i] = FILES_MAX - i;
    u->slot_count = FILES_MAX;
    return 0;
}

int jdb_uring_meet_file(jdb_queue *q, struct uring *u, jdb_file *file) {
    if (q->options.unregistered || u->files_refused || ++file->uses < USES) return -1;
    file->uses = 0; /* when there is no room now: again later */
    if (!u->slots && make_file_table(q, u) != 0) return -1;
    if (u->slot_count == 0) return -1;
    uint32_t slot = u->slots[u->slot_count - 1];
    int fd = (int)file->handle;
    if (io_uring_register_files_update(&u->ring, slot - 1, &fd, 1) != 1) return -1;
    u->slot_count--;
    file->slot = slot;
    q->registered.files++;
    return (int)slot - 1;
}

void jdb_uring_forget(jdb_queue *q, jdb_file *file) {
    struct uring *u = q->impl;
    uint32_t slot = file->slot;
    int none = -1;
    if (file->polled) u = u->polled;
    /* Another process's ring, or another thread's: the number goes with the ring. */
    if (!slot || jdb_queue_usable(q) != JDB_OK) return;
    file->slot = 0;
    q->registered.files--;
    if (io_uring_register_files_update(&u->ring, slot - 1, &none, 1) != 1) return;
    u->slots[u->slot_count++] = slot;
}
