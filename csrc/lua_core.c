/* lua_core.c: opens the module jdbfs.core: the state, the metatables, the constants. */
#include <string.h>

#include "lua_jdb.h"

#if defined(__GNUC__)
#define EXPORT __attribute__((visibility("default")))
#else
#define EXPORT
#endif

const char jl_magic_state = 0;

void jl_push_ref(lua_State *L, int ref) { lua_rawgeti(L, LUA_REGISTRYINDEX, ref); }

/* A zeroed userdata with its metatable, before it owns anything. */
void *jl_new(lua_State *L, size_t size, const char *magic, int meta_ref) {
    const void **p = lua_newuserdata(L, size);
    memset(p, 0, size);
    *p = magic;
    jl_push_ref(L, meta_ref);
    lua_setmetatable(L, -2);
    return p;
}

void jl_register(lua_State *L, const luaL_Reg *functions) {
    lua_pushvalue(L, lua_upvalueindex(1));
    jl_setfuncs(L, functions, 1);
}

/* A metatable nobody can reach or change; the reference of it. */
int jl_new_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta) {
    lua_newtable(L);
    jl_register(L, meta);
    lua_newtable(L);
    jl_register(L, methods);
    lua_setfield(L, -2, "__index");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__name");
    lua_pushstring(L, name);
    lua_setfield(L, -2, "__metatable");
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

/* Everything the kernel still works on is waited for here; nothing is delivered. Operations and
 * finalizers that come later find `closed`. */
static int state_gc(lua_State *L) {
    jl_state *S = jl_test(L, 1, &jl_magic_state, sizeof *S);
    if (!S || S->closed) return 0;
    S->closed = 1;
    jl_task_close(S);
    return 0;
}

static int new_table(lua_State *L, const char *mode) {
    lua_newtable(L);
    if (mode) {
        lua_newtable(L);
        lua_pushstring(L, mode);
        lua_setfield(L, -2, "__mode");
        lua_setmetatable(L, -2);
    }
    return luaL_ref(L, LUA_REGISTRYINDEX);
}

static int library_function(lua_State *L, const char *library, const char *name) {
    lua_getglobal(L, library);
    if (lua_istable(L, -1)) lua_getfield(L, -1, name);
    else lua_pushnil(L);
    lua_remove(L, -2);
    return luaL_ref(L, LUA_REGISTRYINDEX); /* LUA_REFNIL reads back as nil */
}

/* box_u64(box, unbox): how LuaJIT makes a 64-bit value of two halves, and text of a value. */
static int set_box(lua_State *L) {
    jl_state *S = jl_self(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    S->ref_unbox_u64 = luaL_ref(L, LUA_REGISTRYINDEX);
    S->ref_box_u64 = luaL_ref(L, LUA_REGISTRYINDEX);
    return 0;
}

static int open_all(lua_State *L) {
    jl_state *S = jl_self(L);
    static const luaL_Reg functions[] = {{"box_u64", set_box}, {NULL, NULL}};
    S->ref_anchors = new_table(L, NULL);
    S->ref_results = new_table(L, "k");
    S->ref_generators = new_table(L, "k");
    S->ref_box_u64 = S->ref_unbox_u64 = LUA_REFNIL;
    S->ref_close = library_function(L, "coroutine", "close");
    S->ref_traceback = library_function(L, "debug", "traceback");
    lua_newtable(L);
    jl_open_error(L);
    jl_open_buf(L);
    jl_open_file(L);
    jl_open_fs(L);
    jl_open_log(L);
    jl_open_queue(L);
    jl_open_task(L);
    jl_open_sim(L);
    jl_open_measure(L);
    jl_open_random(L);
    jl_register(L, functions);
    jl_push_size(L, jdb_page_size());
    lua_setfield(L, -2, "PAGE_SIZE");
    /* Of a task, besides its coroutine: the handle, its header, its share of the anchors' table. */
    lua_pushinteger(L, sizeof(jl_task) + 64);
    lua_setfield(L, -2, "TASK_BYTES");
    lua_pushliteral(L, JDB_VERSION);
    lua_setfield(L, -2, "VERSION");
    return 1;
}

EXPORT int luaopen_jdbfs_core(lua_State *L);

int luaopen_jdbfs_core(lua_State *L) {
    /* Lua unloads modules at lua_close, and then runs finalizers that are older than we are. */
    jdb_stay_loaded();
    jl_state *S = lua_newuserdata(L, sizeof *S);
    memset(S, 0, sizeof *S);
    S->magic = &jl_magic_state;
    /* Finalizers run in reverse order of creation: the state's, made first, runs last. */
    lua_newtable(L);
    lua_pushcfunction(L, state_gc);
    lua_setfield(L, -2, "__gc");
    lua_pushliteral(L, "jdbfs.state");
    lua_setfield(L, -2, "__metatable");
    lua_setmetatable(L, -2);
    lua_pushvalue(L, -1);
    luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushcclosure(L, open_all, 1);
    lua_call(L, 0, 1);
    return 1;
}
