/* The arena: memory that is aligned, zero and nobody else's, however it is asked for and given
 * back; chunks are given back as well; threads and a forked child keep out of each other's. */
#include "fixture.h"
#include "os.h"

enum { SLOTS = 300 };

struct piece {
    struct jdb_chunk *chunk;
    uint8_t *memory;
    size_t size;
    uint8_t mark;
};

static int all_are(const uint8_t *memory, size_t size, uint8_t value) {
    return size == 0 || (memory[0] == value && memcmp(memory, memory + 1, size - 1) == 0);
}

/* Sizes of a page and less, of some pages, and of a large part of a chunk. */
static void choose(uint64_t *seed, size_t *size, size_t *align) {
    uint64_t r = test_random(seed), kind = test_random(seed) % 8;
    *size = kind < 5 ? r % 9000 + 1 : kind < 7 ? r % 200000 + 1 : r % JDB_CHUNK_SIZE + 1;
    *align = kind % 2 ? 1 : (size_t)1 << (r >> 32) % 22;
}

static void get(struct piece *p, uint64_t *seed) {
    size_t align;
    choose(seed, &p->size, &align);
    p->memory = jdb_arena_get(p->size, align, &p->chunk);
    CHECK(p->memory);
    CHECK_EQ((uintptr_t)p->memory % align, 0);
    CHECK_EQ((uintptr_t)p->memory % jdb_page_size(), 0);
    CHECK(p->memory >= p->chunk->memory);
    CHECK(p->memory + p->size <= p->chunk->memory + JDB_CHUNK_SIZE);
    CHECK(jdb_arena_has(p->chunk->id, p->chunk->serial));
    CHECK(all_are(p->memory, p->size, 0));
    p->mark = (uint8_t)(test_random(seed) % 255 + 1);
    memset(p->memory, p->mark, p->size);
}

/* Whoever else had got the memory would have changed it. */
static void put(struct piece *p) {
    CHECK(all_are(p->memory, p->size, p->mark));
    jdb_arena_put(p->chunk, p->memory, p->size);
    p->memory = NULL;
}

static void churn(uint64_t seed, unsigned steps) {
    struct piece pieces[SLOTS];
    memset(pieces, 0, sizeof pieces);
    for (unsigned i = 0; i < steps; i++) {
        struct piece *p = &pieces[test_random(&seed) % SLOTS];
        if (p->memory) put(p);
        else get(p, &seed);
    }
    for (int i = 0; i < SLOTS; i++)
        if (pieces[i].memory) put(&pieces[i]);
}

static void gives_back(void) {
    static struct piece pieces[2000];
    for (int round = 0; round < 3; round++) {
        uint64_t freed = jdb_arena_freed();
        for (int i = 0; i < 2000; i++)
            CHECK((pieces[i].memory = jdb_arena_get(PAGE, PAGE, &pieces[i].chunk)));
        /* Packed: no page lies idle between them. */
        CHECK_EQ(jdb_arena_bytes(), (2000 * PAGE / JDB_CHUNK_SIZE + 1) * JDB_CHUNK_SIZE);
        for (int i = 0; i < 2000; i++) jdb_arena_put(pieces[i].chunk, pieces[i].memory, PAGE);
        CHECK_EQ(jdb_arena_bytes(), JDB_CHUNK_SIZE);
        CHECK(jdb_arena_freed() >= freed + 3);
    }
}

/* A chunk that takes another's place can be told from it. */
static void serials(void) {
    struct jdb_chunk *first, *second, *third;
    uint8_t *a = jdb_arena_get(JDB_CHUNK_SIZE, 1, &first);
    uint8_t *b = jdb_arena_get(JDB_CHUNK_SIZE, JDB_CHUNK_SIZE, &second);
    CHECK(a && b && first != second);
    uint32_t id = second->id;
    uint64_t serial = second->serial;
    jdb_arena_put(first, a, JDB_CHUNK_SIZE); /* kept */
    jdb_arena_put(second, b, JDB_CHUNK_SIZE);
    CHECK(!jdb_arena_has(id, serial));
    a = jdb_arena_get(JDB_CHUNK_SIZE, 1, &first);
    b = jdb_arena_get(1, 1, &third);
    CHECK_EQ(third->id, id);
    CHECK(third->serial > serial && !jdb_arena_has(id, serial));
    jdb_arena_put(third, b, 1);
    jdb_arena_put(first, a, JDB_CHUNK_SIZE);
}

static void does_not_fit(void) {
    struct jdb_chunk *chunk;
    CHECK(!jdb_arena_get(JDB_CHUNK_SIZE + 1, 1, &chunk));
    CHECK(!jdb_arena_get(1, 2 * (size_t)JDB_CHUNK_SIZE, &chunk));
    jdb_buf *b = jdb_buf_new(JDB_CHUNK_SIZE + 1, PAGE);
    CHECK(b && !b->chunk);
    jdb_buf_unref(b);
    b = jdb_buf_new(1, 2 * (size_t)JDB_CHUNK_SIZE);
    CHECK(b && !b->chunk && (uintptr_t)b->base % (2 * (size_t)JDB_CHUNK_SIZE) == 0);
    jdb_buf_unref(b);
}

static void *thread(void *seed) {
    churn((uint64_t)(uintptr_t)seed, 4000);
    return NULL;
}

static void threads(void) {
    pthread_t ids[4];
    for (uintptr_t i = 0; i < 4; i++)
        CHECK_EQ(pthread_create(&ids[i], NULL, thread, (void *)(i + 10)), 0);
    for (int i = 0; i < 4; i++) pthread_join(ids[i], NULL);
}

/* A child has memory of its own, and what it does with its parent's buffers changes nothing. */
static void forked(void) {
    jdb_buf *b = jdb_buf_new(3 * PAGE, PAGE);
    CHECK(b && b->chunk);
    memset(b->base, 7, 3 * PAGE);
    int status;
    pid_t child = fork();
    if (child == 0) {
        CHECK(!jdb_buf_data(b));
        jdb_buf_unref(b);
        for (int i = 0; i < 700; i++) {
            jdb_buf *own = jdb_buf_new(PAGE, PAGE);
            CHECK(own && all_are(own->base, PAGE, 0));
            memset(own->base, 9, PAGE);
            jdb_buf_unref(own);
        }
        churn(5, 500);
        test_leave(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    CHECK(all_are(b->base, 3 * PAGE, 7));
    jdb_buf_unref(b);
}

#ifdef __SANITIZE_ADDRESS__
/* Memory given back, and what follows a buffer in its last page, is nobody's. */
static void touched(int after_put) {
    struct jdb_chunk *chunk;
    int status;
    pid_t child = fork();
    if (child == 0) {
        uint8_t *memory = jdb_arena_get(100, 1, &chunk);
        close(2);
        if (after_put) jdb_arena_put(chunk, memory, 100);
        ((volatile uint8_t *)memory)[after_put ? 0 : 104] = 1;
        _exit(0);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(status != 0);
}
#endif

int main(void) {
    test_begin("does not fit", 60);
    does_not_fit();
    test_begin("serials", 60);
    serials();
    test_begin("gives back", 60);
    gives_back();
    test_begin("random", 120);
    for (uint64_t seed = 1; seed <= 4; seed++) churn(seed, 5000);
    CHECK_EQ(jdb_arena_bytes(), JDB_CHUNK_SIZE);
    test_begin("threads", 120);
    threads();
    test_begin("forked", 60);
    forked();
#ifdef __SANITIZE_ADDRESS__
    touched(0);
    touched(1);
#endif
    return 0;
}
