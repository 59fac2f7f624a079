/* lua_error.c: failures as Lua values, and numbers from Lua with nothing lost on the way. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lua_jdb.h"

void jl_set_size(lua_State *L, const char *name, uint64_t value) {
    jl_push_size(L, value);
    lua_setfield(L, -2, name);
}

void jl_set_text(lua_State *L, const char *name, const char *value) {
    if (!value) return;
    lua_pushstring(L, value);
    lua_setfield(L, -2, name);
}

static void set_number(lua_State *L, const char *name, int64_t value) {
    if (value >= 0) jl_set_size(L, name, (uint64_t)value);
}

int jl_fail(lua_State *L, const jdb_failure *f) {
    char text[JDB_MESSAGE_MAX];
    jdb_failure_message(f, text, sizeof text);
    luaL_checkstack(L, 6, "error");
    lua_pushnil(L);
    lua_pushstring(L, text);
    lua_createtable(L, 0, 9);
    jl_set_text(L, "kind", jdb_kind_name(f->kind));
    jl_set_text(L, "message", text);
    jl_set_text(L, "op", f->op);
    jl_set_text(L, "path", f->path);
    set_number(L, "offset", f->offset);
    set_number(L, "length", f->length);
    set_number(L, "actual", f->actual);
    if (f->index >= 0) set_number(L, "index", f->index + 1);
    if (f->error) {
        set_number(L, "errno", f->error);
        jl_set_text(L, "name", jdb_errno_name(f->error));
    }
    jl_push_ref(L, jl_self(L)->ref_error_meta);
    lua_setmetatable(L, -2);
    return 3;
}

int jl_fail_kind(lua_State *L, jdb_kind kind, const char *op, const char *path, const char *cause) {
    jdb_failure f = {kind, 0, op, path, NULL, cause, -1, -1, -1, -1};
    return jl_fail(L, &f);
}

int jl_fail_op(lua_State *L, const jdb_op *op) {
    jdb_failure f;
    jdb_op_failure(op, &f);
    return jl_fail(L, &f);
}

/* ---- numbers -------------------------------------------------------------------------------- */

/* LuaJIT's 64-bit cdata has no C API: its text is exact ("123LL", "123ULL"). 0 when the value is
 * not of that kind. Other cdata is never asked: its __tostring could do anything. */
static int cdata_text(lua_State *L, int i, char *text, size_t size) {
    if (lua_type(L, i) != JL_TCDATA) return 0;
    i = jl_absindex(L, i);
    jl_push_ref(L, jl_self(L)->ref_unbox_u64);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    lua_pushvalue(L, i);
    jl_self(L)->asked++;
    lua_call(L, 1, 1);
    const char *s = lua_tostring(L, -1);
    int ok = s && strlen(s) < size;
    if (ok) strcpy(text, s);
    lua_pop(L, 1);
    return ok;
}

static const char *cdata_number(const char *text, uint64_t *value) {
    char *end;
    if (text[0] == '-') return "negative";
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (errno || n > INT64_MAX) return "beyond 2^63-1";
    *value = n;
    return NULL;
}

static const char *whole(lua_Number n, uint64_t *value) {
    if (n >= 0 && n < 9223372036854775808.0) {
        uint64_t integer = (uint64_t)(int64_t)n;
        if ((lua_Number)(int64_t)integer != n) return "not an integer";
        *value = integer;
        return NULL;
    }
    return isnan(n) ? "not a number (NaN)" : n < 0 ? "negative" : "beyond 2^63-1";
}

const char *jl_any_number(lua_State *L, int i, uint64_t *value) {
    char text[32];
    if (jl_isinteger(L, i)) return "negative"; /* the others are plain */
    if (lua_type(L, i) == LUA_TNUMBER) return whole(lua_tonumber(L, i), value);
    if (cdata_text(L, i, text, sizeof text)) return cdata_number(text, value);
    luaL_checktype(L, i, LUA_TNUMBER);
    return NULL; /* not reached */
}

/* Wraps as string.pack does: negative numbers are their two's complement. */
uint64_t jl_check_bits(lua_State *L, int i, int is_signed) {
    char text[32];
    if (jl_isinteger(L, i)) return (uint64_t)lua_tointeger(L, i);
    if (cdata_text(L, i, text, sizeof text))
        return text[0] == '-' ? (uint64_t)strtoll(text, NULL, 10) : strtoull(text, NULL, 10);
    luaL_checktype(L, i, LUA_TNUMBER);
    lua_Number n = lua_tonumber(L, i);
    double low = is_signed ? -9223372036854775808.0 : 0;
    double high = is_signed ? 9223372036854775808.0 : 18446744073709551616.0;
    if (!(n >= low && n < high) || n != floor(n)) luaL_argerror(L, i, "not an integer that fits");
    return n < 0 ? (uint64_t)(int64_t)n : (uint64_t)n;
}

#define EXACT_DOUBLE (INT64_C(1) << 53)

static void push_big(lua_State *L, uint64_t value, int is_signed) {
    char text[32];
    jl_push_ref(L, jl_self(L)->ref_box_u64);
    if (lua_isnil(L, -1)) {
        if (is_signed) snprintf(text, sizeof text, "%" PRId64, (int64_t)value);
        else snprintf(text, sizeof text, "%" PRIu64, value);
        luaL_error(L, "%s does not fit exactly in a number of this Lua; read two u32", text);
    }
    lua_pushnumber(L, (lua_Number)(value >> 32));
    lua_pushnumber(L, (lua_Number)(value & 0xffffffffu));
    lua_pushboolean(L, is_signed);
    lua_call(L, 3, 1);
}

void jl_push_u64(lua_State *L, uint64_t value) {
    if (JL_INTEGERS) lua_pushinteger(L, (lua_Integer)value);
    else if (value <= (uint64_t)EXACT_DOUBLE) lua_pushnumber(L, (lua_Number)value);
    else push_big(L, value, 0);
}

void jl_push_i64(lua_State *L, int64_t value) {
    if (JL_INTEGERS) lua_pushinteger(L, (lua_Integer)value);
    else if (value >= -EXACT_DOUBLE && value <= EXACT_DOUBLE) lua_pushnumber(L, (lua_Number)value);
    else push_big(L, (uint64_t)value, 1);
}

/* Sizes, counts and inode numbers: a double is near enough where it must be. */
void jl_push_size(lua_State *L, uint64_t value) {
    if (JL_INTEGERS) lua_pushinteger(L, (lua_Integer)value);
    else lua_pushnumber(L, (lua_Number)value);
}

/* ---- the error object ----------------------------------------------------------------------- */

static int error_tostring(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    lua_getfield(L, 1, "message");
    return 1;
}

/* error_new(kind, op, path, cause): for the Lua modules, the same three values. */
static int error_new(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    jdb_kind kind = JDB_IO;
    for (int k = 0; k < JDB_KIND_COUNT; k++)
        if (strcmp(jdb_kind_name((jdb_kind)k), name) == 0) kind = (jdb_kind)k;
    return jl_fail_kind(L, kind, luaL_optstring(L, 2, NULL), luaL_optstring(L, 3, NULL),
                        luaL_optstring(L, 4, NULL));
}

int jl_open_error(lua_State *L) {
    static const luaL_Reg meta[] = {{"__tostring", error_tostring}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"failure", error_new}, {NULL, NULL}};
    jl_state *S = jl_self(L);
    lua_newtable(L);
    jl_register(L, meta);
    lua_pushliteral(L, "jdbfs.error");
    lua_setfield(L, -2, "__name");
    lua_pushliteral(L, "jdbfs.error");
    lua_setfield(L, -2, "__metatable");
    S->ref_error_meta = luaL_ref(L, LUA_REGISTRYINDEX);
    jl_register(L, functions);
    return 0;
}
