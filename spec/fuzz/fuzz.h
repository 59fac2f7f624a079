/* fuzz.h: what the fuzzers share: a Lua state with jdbfs in it, in a directory of its own, and a
 * reader of the bytes that decide.
 *
 * Built by spec/tools/fuzz.sh with -fsanitize=fuzzer,address,undefined: the core, the binding and
 * Lua in one program. The current directory is the fuzzer's own; JDBFS_LUA_PATH finds the Lua
 * modules. A Lua error that the program lets through is no finding; a crash, a report, a time-out
 * or a call of fuzz_fail is. */
#ifndef JDB_FUZZ_H
#define JDB_FUZZ_H

#include <lauxlib.h>
#include <lualib.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int luaopen_jdbfs_core(lua_State *L);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_input {
    const uint8_t *data;
    size_t size;
};

static inline unsigned fuzz_byte(struct fuzz_input *in) {
    if (in->size == 0) return 0;
    in->size--;
    return *in->data++;
}

static inline void fuzz_fail(const char *what) {
    fprintf(stderr, "contract broken: %s\n", what);
    abort();
}

static inline lua_State *fuzz_state(void) {
    lua_State *L = luaL_newstate();
    if (!L) exit(1);
    luaL_openlibs(L);
    const char *path = getenv("JDBFS_LUA_PATH");
    lua_getglobal(L, "package");
    lua_pushstring(L, path ? path : "lua/?.lua;lua/?/init.lua");
    lua_setfield(L, -2, "path");
    lua_getfield(L, -1, "preload");
    lua_pushcfunction(L, luaopen_jdbfs_core);
    lua_setfield(L, -2, "jdbfs.core");
    lua_settop(L, 0);
    return L;
}

/* Runs Lua source, which leaves its results on the stack. */
static inline void fuzz_must(lua_State *L, const char *source) {
    if (luaL_dostring(L, source)) fuzz_fail(lua_tostring(L, -1));
}

#endif
