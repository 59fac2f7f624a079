/* module.h: fuzzers of parsers that are Lua: a module of spec/fuzz gives a function that takes the
 * input as a string and raises when a promise is broken. */
#ifndef JDB_FUZZ_MODULE_H
#define JDB_FUZZ_MODULE_H

#include "fuzz.h"

/* One state for all inputs. */
static inline int fuzz_module(const char *name, const uint8_t *data, size_t size) {
    static lua_State *L;
    if (!L) {
        L = fuzz_state();
        lua_getglobal(L, "require");
        lua_pushstring(L, name);
        if (lua_pcall(L, 1, 1, 0)) fuzz_fail(lua_tostring(L, -1));
    }
    fuzz_line_before = 0;
    lua_pushvalue(L, 1);
    lua_pushlstring(L, (const char *)data, size);
    if (lua_pcall(L, 1, 0, 0)) fuzz_fail(lua_tostring(L, -1));
    lua_gc(L, LUA_GCCOLLECT, 0);
    return 0;
}

#endif
