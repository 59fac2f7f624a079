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

/* libFuzzer is told which lines of Lua follow which, as it is told by the compiler for C. */
#define FUZZ_COUNTERS 16384
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t fuzz_lines[FUZZ_COUNTERS];

static uint32_t fuzz_line_before;

/* Of the file's name, not of where it is in memory: each state has its own. */
static void fuzz_note_line(lua_State *L, lua_Debug *ar) {
    uint32_t line = (uint32_t)ar->currentline * 2654435761u;
    lua_getinfo(L, "S", ar);
    for (const char *c = ar->source; *c; c++) line = (line ^ (uint8_t)*c) * 16777619u;
    fuzz_lines[(line ^ fuzz_line_before) % FUZZ_COUNTERS]++;
    fuzz_line_before = line >> 1;
}

static inline lua_State *fuzz_state(void) {
    lua_State *L = luaL_newstate();
    if (!L) exit(1);
    lua_sethook(L, fuzz_note_line, LUA_MASKLINE, 0); /* its coroutines inherit it */
    fuzz_line_before = 0;
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
