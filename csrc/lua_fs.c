/* lua_fs.c: functions on names. All run in the pool: on Linux each of them would leave the ring
 * for a kernel worker anyway. */
#include <string.h>

#include "lua_jdb.h"

/* A path argument, or NULL with nil, message, err pushed: C would cut it at a NUL. */
static const char *check_path(lua_State *L, int i, const char *name, int *pushed) {
    size_t len;
    luaL_checktype(L, i, LUA_TSTRING);
    const char *path = lua_tolstring(L, i, &len);
    if (strlen(path) == len) return path;
    *pushed = jl_fail_kind(L, JDB_IO, name, path, "the path contains a NUL byte");
    return NULL;
}

static int run_path(lua_State *L, jdb_code code) {
    int pushed;
    const char *name = jdb_code_name(code);
    const char *path = check_path(L, 1, name, &pushed);
    if (!path) return pushed;
    jdb_op *op = jl_take(L, name, path, &pushed);
    if (!op) return pushed;
    if (jdb_prep_path(op, code, path) != 0) {
        jl_drop(L, op);
        return jl_fail_kind(L, JDB_ALLOC, name, path, "out of memory");
    }
    return jl_run_op(L, op);
}

/* Options are read before anything is done; those of a later version are refused, not ignored. */
struct fs_options {
    int noreplace, durable;
};

static void read_options(lua_State *L, int i, int with_noreplace, struct fs_options *o) {
    memset(o, 0, sizeof *o);
    if (lua_isnoneornil(L, i)) return;
    luaL_checktype(L, i, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, i)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        int *flag = strcmp(name, "durable") == 0                       ? &o->durable
                    : with_noreplace && strcmp(name, "noreplace") == 0 ? &o->noreplace
                                                                       : NULL;
        if (!flag) luaL_error(L, "unknown option %s", name);
        if (lua_type(L, -1) != LUA_TBOOLEAN) luaL_error(L, "option %s: true or false expected", name);
        *flag = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
}

static int later(lua_State *L, const char *name, const char *cause) {
    luaL_checktype(L, 1, LUA_TSTRING);
    return jl_fail_kind(L, JDB_UNSUPPORTED, name, lua_tostring(L, 1), cause);
}

static int with_durable(lua_State *L, jdb_code code) {
    struct fs_options o;
    read_options(L, 2, 0, &o);
    if (o.durable)
        return later(L, jdb_code_name(code), "option durable is not available in this version");
    return run_path(L, code);
}

static int fs_exists(lua_State *L) { return run_path(L, JDB_PATH_EXISTS); }
static int fs_ls(lua_State *L) { return run_path(L, JDB_PATH_LS); }
static int fs_size(lua_State *L) { return run_path(L, JDB_PATH_SIZE); }
static int fs_stat(lua_State *L) { return run_path(L, JDB_PATH_STAT); }
static int fs_sync_dir(lua_State *L) { return run_path(L, JDB_PATH_SYNC_DIR); }
static int fs_space(lua_State *L) { return run_path(L, JDB_PATH_SPACE); }
static int fs_mkdir(lua_State *L) { return with_durable(L, JDB_PATH_MKDIR); }
static int fs_remove(lua_State *L) { return with_durable(L, JDB_PATH_REMOVE); }

static int fs_rename(lua_State *L) {
    int pushed;
    struct fs_options o;
    const char *from = check_path(L, 1, "rename", &pushed);
    if (!from) return pushed;
    const char *to = check_path(L, 2, "rename", &pushed);
    if (!to) return pushed;
    read_options(L, 3, 1, &o);
    if (o.durable) return later(L, "rename", "option durable is not available in this version");
    jdb_op *op = jl_take(L, "rename", from, &pushed);
    if (!op) return pushed;
    if (jdb_prep_rename(op, from, to, o.noreplace ? JDB_RENAME_NOREPLACE : 0) != 0) {
        jl_drop(L, op);
        return jl_fail_kind(L, JDB_ALLOC, "rename", from, "out of memory");
    }
    return jl_run_op(L, op);
}

static int fs_later(lua_State *L) {
    return later(L, lua_tostring(L, lua_upvalueindex(2)), "not available in this version");
}

int jl_open_fs(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"exists", fs_exists}, {"mkdir", fs_mkdir},   {"ls", fs_ls},
        {"size", fs_size},     {"stat", fs_stat},     {"rename", fs_rename},
        {"remove", fs_remove}, {"space", fs_space},   {"sync_dir", fs_sync_dir},
        {NULL, NULL}};
    static const char *const names[] = {"atomic_write", "probe", "log", NULL};
    jl_register(L, functions);
    for (int i = 0; names[i]; i++) {
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushstring(L, names[i]);
        lua_pushcclosure(L, fs_later, 2);
        lua_setfield(L, -2, names[i]);
    }
    return 0;
}
