/* Preloaded into the interpreter by soak.sh: counts what is allocated and not yet freed. What is
 * resident says less: glibc's allocator keeps what was freed, in one heap or in one per thread, and
 * how much of that it can use again is chance. */
#define _GNU_SOURCE
#include <errno.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

#ifndef __GLIBC__
#error "the allocator's own names are those of glibc"
#endif

struct lua_State;
void lua_pushnumber(struct lua_State *L, double n);
int heap_counts(struct lua_State *L);

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);
void __libc_free(void *memory);

static atomic_llong bytes, pieces;

static void *counted(void *memory) {
    if (memory) {
        atomic_fetch_add(&bytes, (long long)malloc_usable_size(memory));
        atomic_fetch_add(&pieces, 1);
    }
    return memory;
}

static void forget(size_t size) {
    atomic_fetch_sub(&bytes, (long long)size);
    atomic_fetch_sub(&pieces, 1);
}

void *malloc(size_t size) { return counted(__libc_malloc(size)); }

void *calloc(size_t count, size_t size) { return counted(__libc_calloc(count, size)); }

void *realloc(void *old, size_t size) {
    size_t had = old ? malloc_usable_size(old) : 0;
    void *grown = __libc_realloc(old, size);
    if (old && (grown || size == 0)) forget(had);
    return counted(grown);
}

void free(void *memory) {
    if (memory) forget(malloc_usable_size(memory));
    __libc_free(memory);
}

void *memalign(size_t alignment, size_t size) {
    return counted(__libc_memalign(alignment, size));
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **memory, size_t alignment, size_t size) {
    void *made = memalign(alignment, size);
    if (!made) return ENOMEM;
    *memory = made;
    return 0;
}

/* For Lua: bytes and pieces alive; bytes that the allocator has from the system. */
int heap_counts(struct lua_State *L) {
    struct mallinfo2 m = mallinfo2();
    lua_pushnumber(L, (double)atomic_load(&bytes));
    lua_pushnumber(L, (double)atomic_load(&pieces));
    lua_pushnumber(L, (double)(m.arena + m.hblkhd));
    return 3;
}

/* Programs that are started count nothing. */
__attribute__((constructor)) static void keep_to_ourselves(void) { unsetenv("LD_PRELOAD"); }
