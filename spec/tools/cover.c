/* cover.c: which lines of the Lua modules run. Linked into the module by `make coverage`, so that
 * it is wherever jdbfs is: in children, in workers of the command, in nginx, in Tarantool. What ran
 * is noted in a file that all of them map, JDBFS_COVER, so that a killed process has noted it, too.
 * coverage.sh makes that file: a record for each source, its name and then a byte for each line. */
#include <fcntl.h>
#include <lauxlib.h>
#include <lua.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#undef luaopen_jdbfs_core
#define EXPORT __attribute__((visibility("default")))

#define TREE "/build/coverage/" /* the copies: see coverage-split.lua */

enum { NAME = 64, RECORD = 8192 };

static unsigned char *records;
static size_t count;

static __attribute__((constructor)) void map(void) {
    struct stat st;
    int fd = open(JDBFS_COVER, O_RDWR | O_CLOEXEC);
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && st.st_size > 0) {
        void *at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (at != MAP_FAILED) {
            records = at;
            count = (size_t)st.st_size / RECORD;
        }
    }
    close(fd);
}

static unsigned char *record_of(const char *source) {
    /* The last one is likely the next. States in several threads have one each. */
    static _Thread_local unsigned char *last;
    const char *name = strstr(source, TREE);
    if (source[0] != '@' || !name) return NULL;
    name += strlen(TREE);
    if (last && strcmp((char *)last, name) == 0) return last;
    for (size_t i = 0; i < count; i++) {
        if (strcmp((char *)records + i * RECORD, name) == 0) return last = records + i * RECORD;
    }
    return NULL;
}

static void on_line(lua_State *L, lua_Debug *ar) {
    if (!lua_getinfo(L, "S", ar)) return;
    unsigned char *record = record_of(ar->source);
    if (record && ar->currentline > 0 && ar->currentline < RECORD - NAME)
        record[NAME + ar->currentline] = 1;
}

/* What LuaJIT has compiled calls no hook. */
static void interpret_only(lua_State *L) {
    lua_getglobal(L, "jit");
    if (lua_istable(L, -1)) {
        lua_getfield(L, -1, "off");
        lua_call(L, 0, 0);
    }
    lua_pop(L, 1);
}

EXPORT int luaopen_cover(lua_State *L);

/* New coroutines inherit the hook. */
int luaopen_cover(lua_State *L) {
    if (!records || lua_gethook(L)) return 0;
    interpret_only(L);
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    return 0;
}

EXPORT int luaopen_jdbfs_core(lua_State *L);
int uncovered_jdbfs_core(lua_State *L);

int luaopen_jdbfs_core(lua_State *L) {
    luaopen_cover(L);
    return uncovered_jdbfs_core(L);
}
