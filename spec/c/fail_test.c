/* Memory, mappings, descriptors and threads that cannot be had: each call of a scenario fails in
 * turn. The scenario must end with errors or success, leave nothing behind, and work again. The
 * calls are this program's own, so that they can refuse. */
#include "fixture.h"

#include <dlfcn.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

#define OURS __attribute__((visibility("default")))

enum kind { MEMORY, MAPPING, DESCRIPTOR, THREAD };

static atomic_int armed[4];   /* > 0: the call that many from now fails */
static atomic_int for_ever;   /* and all that follow it */
static atomic_int refusals;   /* calls that failed */
static atomic_long allocated; /* pieces of memory alive */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const int allocator_is_ours = 0;
#else
static const int allocator_is_ours = 1;

static int refuse_now(enum kind kind) {
    int left = atomic_load(&armed[kind]);
    while (left > 0)
        if (atomic_compare_exchange_weak(&armed[kind], &left,
                                         left > 1 ? left - 1 : atomic_load(&for_ever))) {
            if (left > 1) return 0;
            atomic_fetch_add(&refusals, 1);
            return 1;
        }
    return 0;
}

/* ISO C has no cast from an object pointer to a function pointer; POSIX needs one. */
static void find(const char *name, void *function) {
    void *symbol = dlsym(RTLD_NEXT, name);
    CHECK(symbol);
    memcpy(function, &symbol, sizeof symbol);
}

static void *(*real_malloc)(size_t), *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static int (*real_memalign)(void **, size_t, size_t);
static int (*real_create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);

/* dlsym allocates before the real calls are known. */
static _Alignas(16) char early[65536];
static size_t early_used;

static void *early_alloc(size_t size) {
    size_t at = early_used;
    early_used += (size + 15) / 16 * 16;
    if (early_used > sizeof early) abort();
    return early + at;
}

static int is_early(const void *p) { return (uintptr_t)p - (uintptr_t)early < sizeof early; }

static atomic_int finding;

static int known(void) {
    if (real_realloc) return 1;
    if (atomic_exchange(&finding, 1)) return 0;
    find("malloc", &real_malloc);
    find("calloc", &real_calloc);
    find("posix_memalign", &real_memalign);
    find("pthread_create", &real_create);
    find("free", &real_free);
    find("realloc", &real_realloc);
    return 1;
}

static void *counted(void *memory) {
    if (memory) atomic_fetch_add(&allocated, 1);
    else errno = ENOMEM;
    return memory;
}

OURS void *malloc(size_t size) {
    if (!known()) return early_alloc(size);
    return counted(refuse_now(MEMORY) ? NULL : real_malloc(size));
}

OURS void *calloc(size_t count, size_t size) {
    if (!known()) return early_alloc(count * size);
    return counted(refuse_now(MEMORY) ? NULL : real_calloc(count, size));
}

OURS void *realloc(void *old, size_t size) {
    if (!old || !known()) return malloc(size);
    if (is_early(old)) return memcpy(malloc(size), old, size);
    return refuse_now(MEMORY) ? NULL : real_realloc(old, size);
}

OURS int posix_memalign(void **memory, size_t align, size_t size) {
    if (!known()) abort();
    if (refuse_now(MEMORY)) return ENOMEM;
    int r = real_memalign(memory, align, size);
    if (r == 0) atomic_fetch_add(&allocated, 1);
    return r;
}

OURS void free(void *memory) {
    if (!memory || is_early(memory) || !known()) return;
    atomic_fetch_sub(&allocated, 1);
    real_free(memory);
}

/* In place of the library's, so that what it allocates inside is ours to refuse as well. */
OURS char *strdup(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

OURS void *mmap(void *at, size_t size, int protection, int flags, int fd, off_t off) {
    if (refuse_now(MAPPING)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    long r = syscall(SYS_mmap, at, size, protection, flags, fd, off);
    union {
        long number;
        void *pointer;
    } result = {r};
    return result.pointer;
}

OURS int eventfd(unsigned count, int flags) {
    if (refuse_now(DESCRIPTOR)) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_eventfd2, count, flags);
}

OURS int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*work)(void *),
                        void *argument) {
    if (!known()) abort();
    return refuse_now(THREAD) ? EAGAIN : real_create(thread, attributes, work, argument);
}

#endif

/* ---- the scenario --------------------------------------------------------------------------- */

static const char *backend;
static char paths[3][4400];

static int is_failure(jdb_kind kind) {
    return kind == JDB_ALLOC || kind == JDB_IO || kind == JDB_UNSUPPORTED;
}

/* Runs what was prepared, or gives the slot back. The kind. */
static jdb_kind attempt(jdb_queue *q, jdb_op *op, int prepared, jdb_file **file) {
    jdb_failure failure;
    char text[JDB_MESSAGE_MAX];
    jdb_kind kind = prepared == 0 ? jdb_op_check(op) : JDB_ALLOC;
    if (kind == JDB_OK) {
        jdb_submit(q, op);
        jdb_queue_wait_op(q, op);
        kind = jdb_op_kind(op);
    }
    if (kind == JDB_OK && file) *file = jdb_file_ref(jdb_op_file(op));
    if (kind != JDB_OK && prepared == 0) {
        jdb_op_failure(op, &failure);
        jdb_failure_message(&failure, text, sizeof text);
        CHECK(text[0]);
        CHECK(is_failure(kind));
    }
    jdb_op_release(q, op);
    return kind;
}

static jdb_op *take_if(jdb_queue *q) {
    jdb_kind kind;
    jdb_op *op = jdb_op_take(q, &kind);
    CHECK_EQ(kind, op ? JDB_OK : JDB_ALLOC);
    return op;
}

static void some_names(jdb_queue *q) {
    static const jdb_code codes[] = {JDB_PATH_MKDIR, JDB_PATH_LS, JDB_PATH_STAT, JDB_PATH_EXISTS};
    jdb_op *op;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        if (!(op = take_if(q))) continue;
        attempt(q, op, jdb_prep_path(op, codes[i], paths[0], 0), NULL);
    }
    if ((op = take_if(q))) attempt(q, op, jdb_prep_rename(op, paths[1], paths[2], 0), NULL);
    if ((op = take_if(q))) attempt(q, op, jdb_prep_rename(op, paths[2], paths[1], 0), NULL);
}

/* More than the arena keeps, and what never fits into it. */
static void some_buffers(void) {
    static const size_t sizes[] = {JDB_CHUNK_SIZE, JDB_CHUNK_SIZE, JDB_CHUNK_SIZE + 1};
    jdb_buf *buffers[3];
    for (int i = 0; i < 3; i++) buffers[i] = jdb_buf_new(sizes[i], PAGE);
    for (int i = 0; i < 3; i++)
        if (buffers[i]) jdb_buf_unref(buffers[i]);
}

static void some_transfers(jdb_queue *q, jdb_file *f) {
    enum { AT_ONCE = 300 }; /* more than one piece of the slab */
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    jdb_op *op;
    int submitted = 0;
    if (!b) return;
    memset(jdb_buf_data(b), 9, PAGE);
    if ((op = take_if(q))) {
        jdb_prep_write(op, f, b, 0, PAGE, 0, 0);
        attempt(q, op, 0, NULL);
    }
    for (int i = 0; i < AT_ONCE; i++) {
        if (!(op = take_if(q))) continue;
        if (i % 2) jdb_prep_file(op, i % 30 == 1 ? JDB_STAT : JDB_SIZE, f);
        else jdb_prep_write(op, f, b, 0, PAGE, (uint64_t)(i % 8) * PAGE, 0);
        if (jdb_op_check(op) == JDB_OK) {
            jdb_submit(q, op);
            submitted++;
        } else {
            CHECK_EQ(jdb_op_kind(op), JDB_ALLOC);
            jdb_op_release(q, op);
        }
    }
    for (; submitted > 0; submitted--) {
        op = next(q);
        CHECK(jdb_op_kind(op) == JDB_OK || is_failure(jdb_op_kind(op)));
        jdb_op_release(q, op);
    }
    if ((op = take_if(q))) {
        jdb_prep_preallocate(op, f, 20 * PAGE, JDB_PREALLOC_ZERO);
        attempt(q, op, 0, NULL);
    }
    jdb_buf_unref(b);
}

/* A host that is woken by bytes, and connects from here. */
static void some_relay(jdb_queue *q) {
    const char *path;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int r = jdb_relay_new(q, &path);
    CHECK(r <= 0);
    if (r < 0) return;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    CHECK_EQ(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    CHECK(jdb_relay_accept(q) <= 0);
    jdb_relay_free(q);
    close(fd);
}

/* 1: everything in it went well. */
static int scenario(void) {
    int error;
    jdb_file *f = NULL;
    int before = atomic_load(&refusals);
    jdb_queue *q = queue_try(backend, 8, 3, &error);
    if (!q) {
        CHECK(error < 0);
        return 0;
    }
    int fd = jdb_queue_pollfd(q);
    CHECK(fd >= 0 || fd == -EMFILE || fd == -ENOMEM);
    some_names(q);
    some_buffers();
    some_relay(q);
    jdb_op *op = take_if(q);
    jdb_open how = {.flags = JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE,
                    .mode = 0666,
                    .direct = JDB_DIRECT_PREFER};
    if (op) attempt(q, op, jdb_prep_open(q, op, paths[1], &how), &f);
    if (f) some_transfers(q, f);
    if (f && (op = take_if(q))) {
        jdb_prep_file(op, JDB_SYNC_ALL, f);
        attempt(q, op, 0, NULL);
    }
    if (f && (op = take_if(q))) {
        jdb_prep_file(op, JDB_CLOSE, f);
        attempt(q, op, 0, NULL);
    }
    if (f) jdb_file_unref(f);
    if (strcmp(backend, "sim") == 0) {
        int r = jdb_sim_crash(q, 1);
        CHECK(r == 0 || r == -ENOMEM);
    }
    check_idle(q);
    queue_free(q);
    check_nothing_lives();
    return atomic_load(&refusals) == before;
}

static int descriptors(void) {
    int fd = dup(0);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

/* A thread's own memory is freed when the system has seen its end. */
static long settled_memory(long wanted) {
    for (int i = 0; i < 100 && atomic_load(&allocated) != wanted; i++) jdb_sleep(1000000);
    return atomic_load(&allocated);
}

static void disarm(void) {
    for (int i = 0; i < 4; i++) atomic_store(&armed[i], 0);
}

static void each_in_turn(enum kind kind, int all_after) {
    int lowest = descriptors();
    long memory = settled_memory(-1);
    for (int n = 1; n < 5000; n++) {
        atomic_store(&for_ever, all_after);
        atomic_store(&armed[kind], n);
        int well = scenario();
        disarm();
        CHECK_EQ(descriptors(), lowest);
        CHECK_EQ(settled_memory(memory), memory);
        CHECK(scenario());
        if (well) { /* there is no nth call */
            CHECK(n > 1);
            return;
        }
    }
    CHECK(!"an end");
}

struct part {
    enum kind kind;
    int for_ever;
};

static void run_part(const void *argument) {
    const struct part *part = argument;
    for (int i = 0; i < 3; i++) CHECK(scenario()); /* what is made once and kept */
    each_in_turn(part->kind, part->for_ever);
}

/* A process's first buffer needs more than those that follow: each of that in turn. */
static void first_buffer(const void *argument) {
    static const enum kind kinds[] = {MEMORY, MAPPING};
    int nth = *(const int *)argument;
    long before = atomic_load(&allocated);
    atomic_store(&for_ever, nth < 0);
    for (int i = 0; i < 2; i++) atomic_store(&armed[kinds[i]], nth < 0 ? -nth : nth);
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    disarm();
    CHECK(atomic_load(&refusals) > 0);
    if (b) jdb_buf_unref(b);
    else CHECK_EQ(atomic_load(&allocated), before);
    b = jdb_buf_new(PAGE, PAGE);
    CHECK(b && jdb_arena_bytes() == JDB_CHUNK_SIZE);
    jdb_buf_unref(b);
    check_nothing_lives();
}

int main(void) {
    static const char *const kinds[] = {"memory", "mapping", "descriptor", "thread"};
    char name[96];
    int error, failures = 0;
    if (!allocator_is_ours) {
        printf("a sanitizer owns the calls that this test makes fail\n");
        return 77;
    }
    for (int nth = -5; nth <= 5; nth++)
        if (nth != 0) failures += test_apart("a process's first buffer", 60, first_buffer, &nth);
    unsetenv("JDBFS_BACKEND");
    snprintf(paths[0], sizeof paths[0], "%s/d/e", test_dir());
    snprintf(paths[1], sizeof paths[1], "%s/f", test_dir());
    snprintf(paths[2], sizeof paths[2], "%s/g", test_dir());
    for (unsigned i = 0; jdb_backend_name(i); i++) {
        backend = jdb_backend_name(i);
        jdb_queue *q = queue_try(backend, 8, 0, &error);
        if (!q) {
            printf("%s: cannot run here: %s\n", backend, strerror(-error));
            continue;
        }
        queue_free(q);
        for (int kind = MEMORY; kind <= THREAD; kind++)
            for (int all = 0; all <= 1; all++) {
                struct part part = {(enum kind)kind, all};
                if (kind == THREAD && strcmp(backend, "sim") == 0) continue; /* it has none */
                snprintf(name, sizeof name, "%s: %s, %s", backend, kinds[kind],
                         all ? "from the nth on" : "only the nth");
                failures += test_apart(name, 200, run_part, &part);
            }
    }
    return failures > 0;
}
