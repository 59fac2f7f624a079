/* be_uring.h: what the ring's files share. */
#ifndef JDB_BE_URING_H
#define JDB_BE_URING_H

#include <liburing.h>

#include "backend.h"

enum { JDB_CHUNKS_MAX = 16384 /* registered at most, the kernel's limit: 32 GiB */ };

/* What a ring knows of a chunk of the arena, by the chunk's id. */
struct known_chunk {
    uint64_t serial; /* of the chunk that is meant; its buffers */
    uint32_t uses;   /* ... count until they are worth registering */
    int registered;
};

struct uring {
    struct io_uring ring;
    unsigned flags;
    int enter_fd;               /* the ring's descriptor, or its registered number ... */
    unsigned enter_flags;       /* ... which this flag tells */
    int timed;                  /* waits can have a limit */
    int host_fd;                /* registered eventfd of a host's loop, or -1 */
    int armed;                  /* the ring polls the pool's notifier */
    int lost;                   /* the kernel refuses to be entered: the pool does the rest, ... */
    int stranded;               /* ... and what the kernel had was given up */
    struct known_chunk *chunks; /* NULL: memory is not registered, or not yet */
    uint32_t chunk_top;         /* ids from here on were never met */
    uint64_t freed;             /* of jdb_arena_freed, when all was last looked at ... */
    uint64_t sweeping;          /* ... and when that began which is going on; */
    uint32_t sweep_left;        /* ids below this one are still to be looked at */
    int memory_refused, files_refused;
    uint32_t *slots; /* free numbers of registered files; NULL: none yet */
    uint32_t slot_count;
    struct uring *polled; /* the second ring of option iopoll; NULL: none */
    unsigned in_flight;   /* of that ring: handed to it and not found yet */
};

/* be_uring_poll.c: transfers of direct files whose device is asked, again and again, whether they
 * are done. Makes the second ring; 0, or -errno with words in *refused (NULL: none but that). */
int jdb_uring_poll_open(jdb_queue *queue, struct uring *uring, const char **refused);
/* A transfer that the file's system would not have there: the other ring does it, and all that
 * follow. The result that stands for that. */
int jdb_uring_poll_refused(jdb_op *op);

/* The ring for an operation. Durable writes wait for a flush, which nobody polls for. */
static inline struct uring *jdb_uring_for(struct uring *u, const jdb_op *op) {
    if (!u->polled || !op->file->info.polled || op->step > JDB_WRITE || op->rw) return u;
    return op->file->info.dsync ? u : u->polled;
}

/* be_uring_register.c: registered memory, files and the ring itself. All of it is faster, none of
 * it is needed: what the kernel refuses is done without, and queue->registered tells. */
void jdb_uring_register_ring(jdb_queue *queue, struct uring *uring);
/* For a chunk, or a file, that is not registered: registers it when that is worth it. Its number,
 * or -1. */
int jdb_uring_meet_memory(jdb_queue *queue, struct uring *uring, const struct jdb_chunk *chunk);
int jdb_uring_meet_file(jdb_queue *queue, struct uring *uring, jdb_file *file);
/* Gives the file's number back; no operation may name it any more. */
void jdb_uring_forget(jdb_queue *queue, jdb_file *file);
/* Lets go of memory whose chunks are gone, or of some of it. */
void jdb_uring_sweep(jdb_queue *queue, struct uring *uring);
/* Before the ring is closed by its own thread, or by another. */
void jdb_uring_register_close(struct uring *uring, int own);

static inline int jdb_uring_memory(jdb_queue *q, struct uring *u, const struct jdb_chunk *chunk) {
    if (u->chunks && chunk->id < JDB_CHUNKS_MAX) {
        const struct known_chunk *known = &u->chunks[chunk->id];
        if (known->registered && known->serial == chunk->serial) return (int)chunk->id;
    }
    return jdb_uring_meet_memory(q, u, chunk);
}

/* The file has a number with one ring only, the one of its transfers. */
static inline int jdb_uring_file(jdb_queue *q, struct uring *u, jdb_file *file) {
    if (file->polled && u == q->impl) return -1;
    return file->slot ? (int)file->slot - 1 : jdb_uring_meet_file(q, u, file);
}

#endif
