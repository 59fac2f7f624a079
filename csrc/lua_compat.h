/* lua_compat.h: every difference between Lua 5.1, 5.2, 5.3, 5.4 and LuaJIT, and nothing else.
 * All functions are static: a global of such a name would clash with LuaJIT's own. */
#ifndef JDB_LUA_COMPAT_H
#define JDB_LUA_COMPAT_H

#include <lauxlib.h>
#include <lua.h>

/* LuaJIT keeps this header beside lua.h; plain Lua has none. */
#if defined(__has_include)
#if __has_include(<luajit.h>)
#include <luajit.h>
#endif
#endif

#if LUA_VERSION_NUM < 501 || LUA_VERSION_NUM > 505
#error "jdbfs needs Lua 5.1 to 5.5 or LuaJIT"
#endif

/* Lua's headers do not say so; compilers and analyzers see more when they know. */
#if defined(__GNUC__)
int(lua_error)(lua_State *L) __attribute__((noreturn));
int(luaL_error)(lua_State *L, const char *format, ...) __attribute__((noreturn));
int(luaL_argerror)(lua_State *L, int argument, const char *text) __attribute__((noreturn));
#endif

#ifndef LUA_OK
#define LUA_OK 0
#endif

#define JL_TCDATA 10 /* LuaJIT's boxed 64-bit integers */

#if LUA_VERSION_NUM == 501

/* A coroutine cannot be resumed when its first function is a C function that yielded. */
enum { JL_C_CANNOT_YIELD_FIRST = 1 };

/* LuaJIT runs finalizers as if in a debug hook, and takes a yield for one of the hook's. */
enum { JL_FINALIZERS_ARE_HOOKS = 1 };

#define lua_rawlen lua_objlen

static inline void jl_setfuncs(lua_State *L, const luaL_Reg *functions, int nup) {
    for (; functions->name; functions++) {
        for (int i = 0; i < nup; i++) lua_pushvalue(L, -nup);
        lua_pushcclosure(L, functions->func, nup);
        lua_setfield(L, -(nup + 2), functions->name);
    }
    lua_pop(L, nup);
}

static inline int jl_absindex(lua_State *L, int i) {
    return i > 0 || i <= LUA_REGISTRYINDEX ? i : lua_gettop(L) + i + 1;
}

#else

enum { JL_C_CANNOT_YIELD_FIRST = 0 };
enum { JL_FINALIZERS_ARE_HOOKS = 0 };

static inline void jl_setfuncs(lua_State *L, const luaL_Reg *functions, int nup) {
    luaL_setfuncs(L, functions, nup);
}

static inline int jl_absindex(lua_State *L, int i) { return lua_absindex(L, i); }

#endif

/* Whether the collector runs by itself; 5.1 does not tell. */
static inline int jl_collects(lua_State *L) {
#if LUA_VERSION_NUM == 501
    (void)L;
    return 1;
#else
    return lua_gc(L, LUA_GCISRUNNING, 0);
#endif
}

/* Whether the coroutine has the global table that a new one would have: setfenv(0) changes it. */
static inline int jl_same_globals(lua_State *L, lua_State *co) {
#if LUA_VERSION_NUM == 501
    return lua_topointer(L, LUA_GLOBALSINDEX) == lua_topointer(co, LUA_GLOBALSINDEX);
#else
    (void)L;
    (void)co;
    return 1;
#endif
}

/* A yield of n values from a C function that waits: where the Lua can do that (5.2 and later)
 * jl_after_wait (lua_task.c) runs when the coroutine is resumed, and returns what the function
 * returns. `state` is the function's first upvalue. */
int jl_after_wait(lua_State *L, const void *state);

#if LUA_VERSION_NUM >= 503
static inline int jl_after_k(lua_State *L, int status, lua_KContext state) {
    (void)status;
    return jl_after_wait(L, (const void *)state);
}
static inline int jl_yield(lua_State *L, int n, void *state) {
    return lua_yieldk(L, n, (lua_KContext)state, jl_after_k);
}
#elif LUA_VERSION_NUM == 502
static inline int jl_after_k(lua_State *L) {
    return jl_after_wait(L, lua_touserdata(L, lua_upvalueindex(1)));
}
static inline int jl_yield(lua_State *L, int n, void *state) {
    (void)state;
    return lua_yieldk(L, n, 0, jl_after_k);
}
#else
static inline int jl_yield(lua_State *L, int n, void *state) {
    (void)state;
    return lua_yield(L, n);
}
#endif

/* A C function ends with what the function at 1 returns, called with what lies above it. That may
 * yield, where the Lua can do that (5.2 and later). */
#if LUA_VERSION_NUM >= 503
enum { JL_CALLEES_CAN_YIELD = 1 };
static inline int jl_results_k(lua_State *L, int status, lua_KContext context) {
    (void)status;
    (void)context;
    return lua_gettop(L);
}
static inline int jl_end_with_call(lua_State *L) {
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, jl_results_k);
    return lua_gettop(L);
}
#elif LUA_VERSION_NUM == 502
enum { JL_CALLEES_CAN_YIELD = 1 };
static inline int jl_end_with_call(lua_State *L) {
    lua_callk(L, lua_gettop(L) - 1, LUA_MULTRET, 0, (lua_CFunction)lua_gettop);
    return lua_gettop(L);
}
#else
enum { JL_CALLEES_CAN_YIELD = 0 };
static inline int jl_end_with_call(lua_State *L) {
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}
#endif

/* Whether this function may yield. 5.1 and 5.2 cannot tell: there the yield itself raises. */
#if LUA_VERSION_NUM >= 503 || defined(LUAJIT_VERSION_NUM)
enum { JL_KNOWS_YIELDABLE = 1 };
static inline int jl_yieldable(lua_State *L) { return lua_isyieldable(L); }
#else
enum { JL_KNOWS_YIELDABLE = 0 };
static inline int jl_yieldable(lua_State *L) {
    (void)L;
    return 1;
}
#endif

/* *results: values the coroutine returned or yielded, on its stack. */
static inline int jl_resume(lua_State *co, lua_State *from, int args, int *results) {
#if LUA_VERSION_NUM >= 504
    return lua_resume(co, from, args, results);
#else
#if LUA_VERSION_NUM == 501
    (void)from;
    int status = lua_resume(co, args);
#else
    int status = lua_resume(co, from, args);
#endif
    *results = lua_gettop(co);
    return status;
#endif
}

/* Whether integers are a type of their own, so that 64 bits fit. */
#if LUA_VERSION_NUM >= 503
enum { JL_INTEGERS = 1 };
static inline int jl_isinteger(lua_State *L, int i) { return lua_isinteger(L, i); }
#else
enum { JL_INTEGERS = 0 };
static inline int jl_isinteger(lua_State *L, int i) {
    (void)L;
    (void)i;
    return 0;
}
#endif

#endif
