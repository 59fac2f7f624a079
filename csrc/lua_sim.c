/* lua_sim.c: what jdbfs.sim is made of; arguments were looked at there. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lua_jdb.h"

static jdb_queue *need_queue(lua_State *L, const char *name, int *pushed) {
    jdb_failure failure;
    jdb_queue *q = jl_queue(L, &failure);
    if (q) return q;
    failure.op = name;
    *pushed = jl_fail(L, &failure);
    return NULL;
}

static int told(lua_State *L, const char *name, int r) {
    if (r >= 0) {
        lua_pushboolean(L, 1);
        return 1;
    }
    jdb_failure failure = {jdb_kind_of_errno(-r), -r, name, NULL, NULL, NULL, -1, -1, -1, -1};
    if (r == -ENOTSUP) {
        failure.kind = JDB_UNSUPPORTED;
        failure.cause = "the backend is not \"sim\" (setup, or JDBFS_BACKEND=sim)";
    } else if (r == -EBUSY) {
        failure.kind = JDB_BUSY;
        failure.cause = "an operation is unfinished";
    }
    return jl_fail(L, &failure);
}

/* Field `name` of the options at index 1, when it is there. */
static void count_field(lua_State *L, const char *name, uint64_t *value) {
    lua_getfield(L, 1, name);
    if (!lua_isnil(L, -1)) {
        const char *wrong = jl_number(L, -1, value);
        if (wrong) luaL_error(L, "option %s is %s", name, wrong);
    }
    lua_pop(L, 1);
}

static uint32_t small(lua_State *L, const char *name, uint32_t value) {
    uint64_t n = value;
    count_field(L, name, &n);
    if (n > UINT32_MAX / 2) luaL_error(L, "option %s is too large", name);
    return (uint32_t)n;
}

/* sim_reset{ seed, capacity, sector, atomic, latency_min, latency_max }: nanoseconds. */
static int sim_reset(lua_State *L) {
    jdb_sim_options o;
    int pushed;
    uint64_t least, most;
    jdb_sim_defaults(&o);
    luaL_checktype(L, 1, LUA_TTABLE);
    least = (uint64_t)o.latency_min_ns;
    most = (uint64_t)o.latency_max_ns;
    count_field(L, "seed", &o.seed);
    count_field(L, "capacity", &o.capacity);
    count_field(L, "latency_min", &least);
    count_field(L, "latency_max", &most);
    o.latency_min_ns = (int64_t)least;
    o.latency_max_ns = (int64_t)most;
    o.sector = small(L, "sector", o.sector);
    o.atomic_max = small(L, "atomic", o.atomic_max);
    jdb_queue *q = need_queue(L, "sim.reset", &pushed);
    return q ? told(L, "sim.reset", jdb_sim_reset(q, &o)) : pushed;
}

static int code_of(lua_State *L, const char *name) {
    if (strcmp(name, "any") == 0) return JDB_SIM_ANY;
    if (strcmp(name, "flush") == 0) return JDB_SIM_FLUSH;
    for (int code = 0; code < JDB_CODE_COUNT; code++)
        if (strcmp(jdb_code_name((jdb_code)code), name) == 0) return code;
    return luaL_error(L, "option op: no operation is called \"%s\"", name);
}

static int errno_of(lua_State *L, const char *name) {
    for (int error = 1; error < 4096; error++) {
        const char *known = jdb_errno_name(error);
        if (known && strcmp(known, name) == 0) return error;
    }
    return luaL_error(L, "option errno: no error is called \"%s\"", name);
}

/* sim_fault{ op, how, errno, bytes, nth, count, per_million } */
static int sim_fault(lua_State *L) {
    static const char *const hows[] = {"before", "after", "short", "torn", "omit", NULL};
    jdb_sim_fault f;
    int pushed;
    memset(&f, 0, sizeof f);
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_settop(L, 1);
    lua_getfield(L, 1, "op");
    f.code = code_of(L, luaL_checkstring(L, -1));
    lua_getfield(L, 1, "how");
    f.how = (jdb_sim_how)luaL_checkoption(L, -1, NULL, hows);
    lua_getfield(L, 1, "errno");
    if (!lua_isnil(L, -1)) f.error = errno_of(L, luaL_checkstring(L, -1));
    lua_settop(L, 1);
    count_field(L, "bytes", &f.bytes);
    count_field(L, "nth", &f.nth);
    count_field(L, "count", &f.count);
    f.per_million = small(L, "per_million", 0);
    jdb_queue *q = need_queue(L, "sim.fault", &pushed);
    return q ? told(L, "sim.fault", jdb_sim_fault_add(q, &f)) : pushed;
}

static int sim_cut(lua_State *L) {
    int pushed;
    uint64_t steps = 0;
    const char *wrong = jl_number(L, 1, &steps);
    if (wrong) luaL_argerror(L, 1, wrong);
    jdb_queue *q = need_queue(L, "sim.cut", &pushed);
    return q ? told(L, "sim.cut", jdb_sim_cut(q, steps)) : pushed;
}

static int sim_crash(lua_State *L) {
    int pushed;
    uint64_t seed = 0;
    const char *wrong = jl_number(L, 1, &seed);
    if (wrong) luaL_argerror(L, 1, wrong);
    jdb_queue *q = need_queue(L, "sim.crash", &pushed);
    return q ? told(L, "sim.crash", jdb_sim_crash(q, seed)) : pushed;
}

static int sim_kill(lua_State *L) {
    int pushed;
    jdb_queue *q = need_queue(L, "sim.kill", &pushed);
    return q ? told(L, "sim.kill", jdb_sim_kill(q)) : pushed;
}

static int sim_state(lua_State *L) {
    int pushed;
    jdb_sim_state s;
    char trace[20];
    jdb_queue *q = need_queue(L, "sim.state", &pushed);
    if (!q) return pushed;
    int r = jdb_sim_state_get(q, &s);
    if (r < 0) return told(L, "sim.state", r);
    lua_createtable(L, 0, 9);
    snprintf(trace, sizeof trace, "%016llx", (unsigned long long)s.trace);
    jl_set_text(L, "trace", trace);
    jl_set_size(L, "operations", s.operations);
    jl_set_size(L, "steps", s.steps);
    jl_set_size(L, "flushes", s.flushes);
    jl_set_size(L, "faults", s.faults);
    jl_set_size(L, "used", s.used);
    jl_set_size(L, "open_files", s.handles);
    lua_pushnumber(L, (lua_Number)s.now_ns / 1e9);
    lua_setfield(L, -2, "time");
    lua_pushboolean(L, !s.off);
    lua_setfield(L, -2, "power");
    return 1;
}

int jl_open_sim(lua_State *L) {
    static const luaL_Reg functions[] = {{"sim_reset", sim_reset},
                                         {"sim_fault", sim_fault},
                                         {"sim_cut", sim_cut},
                                         {"sim_crash", sim_crash},
                                         {"sim_kill", sim_kill},
                                         {"sim_state", sim_state},
                                         {NULL, NULL}};
    jl_register(L, functions);
    return 0;
}
