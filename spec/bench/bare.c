/* bare.c: loop.c, or with COMMITS commit.c, with a coroutine for each read in flight, or record of a
 * commit, that asks for it by a yield and is resumed when it is done: what a program in coroutines
 * pays before there is any library. A module NAME for bare.lua:
 *
 *   await(value)            asks; what the coroutine is resumed with
 *   run(coroutines, ...)    the program, with these words
 *
 * Coroutines are started before, and wait in an await of their own. */
#include "lua_compat.h"

static lua_State *coroutines[256], *caller;

/* Hands over what the last await gave, and leaves what the next one asks for on top. */
static lua_State *go_on(long i) {
    int n;
    lua_State *co = coroutines[i];
    lua_settop(co, 0);
    lua_pushinteger(co, 1);
    if (jl_resume(co, caller, 1, &n) != LUA_YIELD) luaL_error(caller, "a coroutine ended");
    return co;
}

#define main program
#ifdef COMMITS
#define NEXT_RECORD
static const char *next_record(const char *unused, long i) {
    (void)unused;
    return lua_tostring(go_on(i), -1);
}
#include "commit.c"
#else
#define NEXT_PAGE
#include <stdint.h>
struct slot;
static uint64_t next_page(struct slot *slot, uint64_t pages);
#include "loop.c"
/* slot->random is what loop.c starts slot i with. */
static uint64_t next_page(struct slot *slot, uint64_t pages) {
    (void)pages;
    return (uint64_t)lua_tonumber(go_on((long)(slot->random / 7919)), -1);
}
#endif
#undef main

static int await(lua_State *L) { return lua_yield(L, 1); }

static int run(lua_State *L) {
    char *words[8] = {"bare"};
    int count = 1;
    luaL_checktype(L, 1, LUA_TTABLE);
    caller = L;
    for (int i = 0; i < 256; i++, lua_pop(L, 1)) {
        lua_rawgeti(L, 1, i + 1);
        coroutines[i] = lua_tothread(L, -1);
    }
    for (; count < 7 && count + 1 <= lua_gettop(L); count++)
        words[count] = (char *)(uintptr_t)luaL_checkstring(L, count + 1);
    if (program(count, words) != 0) return luaL_error(L, "the loop failed");
    return 0;
}

#define OPEN_(name) luaopen_##name
#define OPEN(name) OPEN_(name)
int OPEN(NAME)(lua_State *L) {
    lua_newtable(L);
    lua_pushcfunction(L, await);
    lua_setfield(L, -2, "await");
    lua_pushcfunction(L, run);
    lua_setfield(L, -2, "run");
    return 1;
}
