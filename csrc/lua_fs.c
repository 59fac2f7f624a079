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

static int run_path(lua_State *L, jdb_code code, unsigned flags) {
    int pushed;
    const char *name = jdb_code_name(code);
    const char *path = check_path(L, 1, name, &pushed);
    if (!path) return pushed;
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, name, path, &pushed);
    if (!op) return pushed;
    if (jdb_prep_path(op, code, path, flags) != 0) {
        jl_drop(S, op);
        return jl_fail_kind(L, JDB_ALLOC, name, path, "out of memory");
    }
    return jl_run_op(L, S, op);
}

/* Options are read before anything is done. */
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
        if (lua_type(L, -1) != LUA_TBOOLEAN)
            luaL_error(L, "option %s: true or false expected", name);
        *flag = lua_toboolean(L, -1);
        lua_pop(L, 1);
    }
}

static int with_durable(lua_State *L, jdb_code code) {
    struct fs_options o;
    luaL_checktype(L, 1, LUA_TSTRING);
    read_options(L, 2, 0, &o);
    return run_path(L, code, o.durable ? JDB_NAME_DURABLE : 0);
}

static int fs_exists(lua_State *L) { return run_path(L, JDB_PATH_EXISTS, 0); }
static int fs_ls(lua_State *L) { return run_path(L, JDB_PATH_LS, 0); }
static int fs_size(lua_State *L) { return run_path(L, JDB_PATH_SIZE, 0); }
static int fs_stat(lua_State *L) { return run_path(L, JDB_PATH_STAT, 0); }
static int fs_sync_dir(lua_State *L) { return run_path(L, JDB_PATH_SYNC_DIR, 0); }
static int fs_space(lua_State *L) { return run_path(L, JDB_PATH_SPACE, 0); }
static int fs_probe(lua_State *L) { return run_path(L, JDB_PATH_PROBE, 0); }
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
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "rename", from, &pushed);
    if (!op) return pushed;
    unsigned flags = (o.noreplace ? JDB_RENAME_NOREPLACE : 0) | (o.durable ? JDB_NAME_DURABLE : 0);
    if (jdb_prep_rename(op, from, to, flags) != 0) {
        jl_drop(S, op);
        return jl_fail_kind(L, JDB_ALLOC, "rename", from, "out of memory");
    }
    return jl_run_op(L, S, op);
}

/* atomic_write(path, data): a string or a buffer; the bytes are copied. */
static int fs_atomic_write(lua_State *L) {
    int pushed;
    size_t len;
    const void *data;
    const char *path = check_path(L, 1, "atomic_write", &pushed);
    if (!path) return pushed;
    if (lua_type(L, 2) == LUA_TSTRING) {
        data = lua_tolstring(L, 2, &len);
    } else {
        jl_buf *b = jl_test(L, 2, &jl_magic_buf, sizeof *b);
        if (!b) return luaL_argerror(L, 2, "string or jdbfs buffer expected");
        if (!b->mem)
            return jl_fail_kind(L, JDB_CLOSED, "atomic_write", path, "the buffer was freed");
        if (!jdb_buf_data(b->mem)) return jl_fail_kind(L, JDB_FORKED, "atomic_write", path, NULL);
        if (!jdb_buf_readable(b->mem, b->off, b->len))
            return jl_fail_kind(L, JDB_BUSY, "atomic_write", path, "the buffer is in flight");
        data = (const char *)jdb_buf_data(b->mem) + b->off;
        len = b->len;
    }
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "atomic_write", path, &pushed);
    if (!op) return pushed;
    if (jdb_prep_atomic_write(op, path, data, len) != 0) {
        jl_drop(S, op);
        return jl_fail_kind(L, JDB_ALLOC, "atomic_write", path, "out of memory");
    }
    return jl_run_op(L, S, op);
}

int jl_open_fs(lua_State *L) {
    static const luaL_Reg functions[] = {{"exists", fs_exists},
                                         {"mkdir", fs_mkdir},
                                         {"ls", fs_ls},
                                         {"size", fs_size},
                                         {"stat", fs_stat},
                                         {"rename", fs_rename},
                                         {"remove", fs_remove},
                                         {"space", fs_space},
                                         {"sync_dir", fs_sync_dir},
                                         {"atomic_write", fs_atomic_write},
                                         {"probe", fs_probe},
                                         {NULL, NULL}};
    jl_register(L, functions);
    return 0;
}
