/* module.h: fuzzers of parsers that are Lua: a module of spec/fuzz gives a function that takes the
 * input as a string and raises when a promise is broken. libFuzzer is told which lines of Lua
 * follow which, as it is told by the compiler for C. */
#ifndef JDB_FUZZ_MODULE_H
#define JDB_FUZZ_MODULE_H

#include "fuzz.h"

#define FUZZ_COUNTERS 16384
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t fuzz_lines[FUZZ_COUNTERS];

static uintptr_t fuzz_line_before;

static void fuzz_note_line(lua_State *L, lua_Debug *ar) {
    lua_getinfo(L, "S", ar);
    uintptr_t line = ((uintptr_t)ar->source >> 4) * 31 + (uintptr_t)ar->currentline * 2654435761u;
    fuzz_lines[(line ^ fuzz_line_before) % FUZZ_COUNTERS]++;
    fuzz_line_before = line >> 1;
}

/* One state for all inputs, which is how the lines keep their numbers. */
static inline int fuzz_module(const char *name, const uint8_t *data, size_t size) {
    static lua_State *L;
    if (!L) {
        L = fuzz_state();
        lua_getglobal(L, "require");
        lua_pushstring(L, name);
        if (lua_pcall(L, 1, 1, 0)) fuzz_fail(lua_tostring(L, -1));
        lua_sethook(L, fuzz_note_line, LUA_MASKLINE, 0);
    }
    fuzz_line_before = 0;
    lua_pushvalue(L, 1);
    lua_pushlstring(L, (const char *)data, size);
    if (lua_pcall(L, 1, 0, 0)) fuzz_fail(lua_tostring(L, -1));
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

#endif
