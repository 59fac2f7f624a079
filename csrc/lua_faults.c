/* lua_faults.c: the fault plan for Lua, only in the build for tests (make FAULTS=1). The specs
 * load it out of the module's file: package.loadlib(FILE, "luaopen_jdbfs_faults"). */
#include "lua_jdb.h"

#if defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif

/* plan([text]): what fails from now on; nothing without a text. Counts start again. */
static int set_plan(lua_State *L) {
    const char *text = luaL_optstring(L, 1, "");
    if (jdb_faults_plan(text) != 0) return luaL_error(L, "no plan: %s", text);
    return 0;
}

/* injected(): faults since plan(). */
static int injected(lua_State *L) {
    jl_push_size(L, jdb_faults_injected());
    return 1;
}

/* suspend(): nothing fails any more; the counts stay. */
static int suspend(lua_State *L) {
    (void)L;
    jdb_faults_suspend();
    return 0;
}

/* last(): the point where a rule fired last. */
static int last(lua_State *L) {
    lua_pushstring(L, jdb_faults_last());
    return 1;
}

/* rule(i): how often rule i matched and how often it fired. */
static int rule(lua_State *L) {
    uint64_t seen, fired;
    if (!jdb_faults_rule((unsigned)luaL_checkinteger(L, 1) - 1, &seen, &fired)) return 0;
    jl_push_size(L, seen);
    jl_push_size(L, fired);
    return 2;
}

/* trace(): what was handed over and what arrived since the last call. */
static int trace(lua_State *L) {
    const char *text;
    size_t len = jdb_faults_trace(&text);
    lua_pushlstring(L, text, len);
    return 1;
}

/* pieces(): allocations of ours that are alive. */
static int pieces(lua_State *L) {
    jl_push_size(L, jdb_faults_pieces());
    return 1;
}

EXPORT int luaopen_jdbfs_faults(lua_State *L);

int luaopen_jdbfs_faults(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"plan", set_plan}, {"injected", injected}, {"suspend", suspend}, {"last", last},
        {"rule", rule},     {"trace", trace},       {"pieces", pieces},   {NULL, NULL}};
    lua_newtable(L);
    jl_setfuncs(L, functions, 0);
    return 1;
}
