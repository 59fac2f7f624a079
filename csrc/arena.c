/* arena.c: the memory that buffers lie in: chunks of one huge page where the system has them.
 *
 * A ring that is told of a chunk once need not look up and pin its pages for each transfer. One
 * arena serves the process, since buffers belong to no queue; each ring registers the chunks that
 * it meets (be_uring.c) and knows a chunk again by its serial number, which is never reused.
 *
 * A forked child has none of the parent's chunks, and the lock may have been held at the fork: it
 * starts with an arena of its own. */
#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "os.h"

enum { WORD = 64, SPARE_MAX = 1 };

struct arena {
    unsigned fork_generation;
    jdb_os_lock *lock;
    struct jdb_chunk *first; /* all of them, the oldest last */
    struct jdb_chunk **by_id;
    uint32_t ids, spare; /* length of by_id; empty chunks that are kept */
    uint64_t serial;
};

static _Atomic(struct arena *) current;
static atomic_uint_fast64_t chunks_freed;

static struct arena *make_arena(unsigned generation) {
    struct arena *a = calloc(1, sizeof *a);
    if (!a) return NULL;
    a->fork_generation = generation;
    a->lock = jdb_os_lock_new();
    if (a->lock) return a;
    free(a);
    return NULL;
}

/* The arena of this process. What a parent left is not given back: it may be in the middle of a
 * change. */
static struct arena *arena(void) {
    unsigned generation = jdb_os_fork_generation();
    struct arena *a = atomic_load_explicit(&current, memory_order_acquire);
    if (a && a->fork_generation == generation) return a;
    struct arena *made = make_arena(generation);
    if (!made) return NULL;
    if (atomic_compare_exchange_strong(&current, &a, made)) return made;
    jdb_os_lock_free(made->lock);
    free(made);
    return a;
}

/* ---- granules ------------------------------------------------------------------------------- */

static unsigned granules(size_t size) {
    size_t page = jdb_os_page_size();
    return (unsigned)((size + page - 1) / page);
}

static int taken(const struct jdb_chunk *c, unsigned i) {
    return (int)(c->taken[i / WORD] >> (i % WORD) & 1);
}

static void mark(struct jdb_chunk *c, unsigned from, unsigned n) {
    for (unsigned i = from; i < from + n; i++) c->taken[i / WORD] ^= UINT64_C(1) << (i % WORD);
}

/* The first free run of n granules that starts on a multiple of `step`; -1: there is none. */
static int find_run(const struct jdb_chunk *c, unsigned n, unsigned step) {
    unsigned all = granules(JDB_CHUNK_SIZE), i = 0;
    while (i + n <= all) {
        if (c->taken[i / WORD] == UINT64_MAX) {
            i = (i / WORD + 1) * WORD;
        } else {
            unsigned free_here = 0;
            while (free_here < n && !taken(c, i + free_here)) free_here++;
            if (free_here == n) return (int)i;
            i += free_here + 1;
        }
        i = (i + step - 1) / step * step;
    }
    return -1;
}

/* ---- chunks --------------------------------------------------------------------------------- */

static int take_id(struct arena *a, struct jdb_chunk *c) {
    uint32_t id = 0;
    while (id < a->ids && a->by_id[id]) id++;
    if (id == a->ids) {
        struct jdb_chunk **more = realloc(a->by_id, 2 * (size_t)(id + 1) * sizeof *more);
        if (!more) return -1;
        memset(more + id, 0, (id + 2) * sizeof *more);
        a->by_id = more;
        a->ids = 2 * (id + 1);
    }
    a->by_id[id] = c;
    c->id = id;
    return 0;
}

static struct jdb_chunk *add_chunk(struct arena *a) {
    struct jdb_chunk *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->memory = jdb_os_map_chunk(JDB_CHUNK_SIZE);
    if (!c->memory || take_id(a, c) != 0) {
        if (c->memory) jdb_os_unmap(c->memory, JDB_CHUNK_SIZE);
        free(c);
        return NULL;
    }
    jdb_os_forbid(c->memory, JDB_CHUNK_SIZE);
    c->serial = ++a->serial;
    c->run = granules(JDB_CHUNK_SIZE);
    c->next = a->first;
    if (c->next) c->next->previous = c;
    a->first = c;
    return c;
}

static void drop_chunk(struct arena *a, struct jdb_chunk *c) {
    if (c->previous) c->previous->next = c->next;
    else a->first = c->next;
    if (c->next) c->next->previous = c->previous;
    a->by_id[c->id] = NULL;
    jdb_os_permit(c->memory, JDB_CHUNK_SIZE);
    jdb_os_unmap(c->memory, JDB_CHUNK_SIZE);
    free(c);
    atomic_fetch_add_explicit(&chunks_freed, 1, memory_order_release);
}

static uint8_t *take_run(struct arena *a, struct jdb_chunk *c, unsigned n, unsigned step) {
    if (c->run < n) return NULL;
    int from = find_run(c, n, step);
    if (from < 0) {
        /* Told by what needs no alignment; the next free makes it worth a look again. */
        if (step == 1) c->run = n - 1;
        return NULL;
    }
    if (c->used == 0 && c->fresh > 0) a->spare--;
    mark(c, (unsigned)from, n);
    c->used += n;
    return c->memory + (size_t)from * jdb_os_page_size();
}

/* ---- for buffers ---------------------------------------------------------------------------- */

/* What was handed out before is cleared; the rest the system has cleared. */
static void clear(struct jdb_chunk *c, uint8_t *memory, size_t size, size_t fresh) {
    size_t at = (size_t)(memory - c->memory);
    jdb_os_permit(memory, size);
    if (at < fresh) memset(memory, 0, fresh - at < size ? fresh - at : size);
}

uint8_t *jdb_arena_get(size_t size, size_t align, struct jdb_chunk **chunk) {
    struct arena *a = arena();
    unsigned n = granules(size), step = granules(align);
    uint8_t *memory = NULL;
    if (!a || size > JDB_CHUNK_SIZE || align > JDB_CHUNK_SIZE) return NULL;
    jdb_os_lock_take(a->lock);
    struct jdb_chunk *c = a->first;
    while (c && !(memory = take_run(a, c, n, step))) c = c->next;
    if (!c && (c = add_chunk(a))) memory = take_run(a, c, n, step);
    size_t fresh = 0, end = 0;
    if (memory) {
        fresh = c->fresh;
        end = (size_t)(memory - c->memory) + n * jdb_os_page_size();
        if (end > fresh) c->fresh = end;
    }
    jdb_os_lock_give(a->lock);
    if (memory) clear(c, memory, size, fresh);
    *chunk = c;
    return memory;
}

void jdb_arena_put(struct jdb_chunk *c, uint8_t *memory, size_t size) {
    struct arena *a = arena();
    unsigned n = granules(size);
    unsigned from = (unsigned)((size_t)(memory - c->memory) / jdb_os_page_size());
    assert(a);
    jdb_os_forbid(memory, size);
    jdb_os_lock_take(a->lock);
    assert(taken(c, from) && taken(c, from + n - 1) && c->used >= n);
    mark(c, from, n);
    c->used -= n;
    c->run = granules(JDB_CHUNK_SIZE);
    if (c->used == 0) {
        if (a->spare < SPARE_MAX) a->spare++;
        else drop_chunk(a, c);
    }
    jdb_os_lock_give(a->lock);
}

/* ---- for rings ------------------------------------------------------------------------------ */

uint64_t jdb_arena_freed(void) { return atomic_load_explicit(&chunks_freed, memory_order_acquire); }

int jdb_arena_has(uint32_t id, uint64_t serial) {
    struct arena *a = arena();
    if (!a) return 0;
    jdb_os_lock_take(a->lock);
    int has = id < a->ids && a->by_id[id] && a->by_id[id]->serial == serial;
    jdb_os_lock_give(a->lock);
    return has;
}

uint64_t jdb_arena_bytes(void) {
    struct arena *a = arena();
    uint64_t n = 0;
    if (!a) return 0;
    jdb_os_lock_take(a->lock);
    for (const struct jdb_chunk *c = a->first; c; c = c->next) n += JDB_CHUNK_SIZE;
    jdb_os_lock_give(a->lock);
    return n;
}
