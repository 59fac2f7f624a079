/* lua_file.c: file methods and the calls that open files. Each method reads its arguments, fills
 * an operation and hands it to jl_run_op, which yields or completes in place. */
#include <stdio.h>
#include <string.h>

#include "lua_jdb.h"

const char jl_magic_file = 0;

static jl_file *check_file(lua_State *L) {
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (!f || !f->file) luaL_argerror(L, 1, "jdbfs file expected (call with a colon)");
    return f;
}

static int fail_file(lua_State *L, jdb_kind kind, const char *op, const jl_file *f,
                     const char *cause) {
    return jl_fail_kind(L, kind, op, jdb_file_path(f->file), cause);
}

/* Submits what is prepared, unless it can be refused at once. */
static int run_checked(lua_State *L, jdb_op *op) {
    return jdb_op_check(op) == JDB_OK ? jl_run_op(L, op) : jl_refuse(L, op);
}

/* ---- transfers -------------------------------------------------------------------------------- */

struct transfer {
    jl_buf *buf;
    uint64_t off, buf_off, len;
};

/* (self, buffer, offset [, buffer offset, length]); the cause of a refusal, or NULL. */
static const char *read_transfer(lua_State *L, struct transfer *t, char *text, size_t size) {
    static const char *const names[] = {"offset", "buffer offset", "length"};
    uint64_t *values[] = {&t->off, &t->buf_off, &t->len};
    t->buf = jl_check_buf(L, 2);
    t->buf_off = 0;
    for (int i = 0; i < 3; i++) {
        if (i == 2) t->len = t->buf->len >= t->buf_off ? t->buf->len - t->buf_off : 0;
        if (i > 0 && lua_isnoneornil(L, 3 + i)) continue;
        const char *wrong = jl_number(L, 3 + i, values[i]);
        if (!wrong) continue;
        snprintf(text, size, "%s is %s: it must be an integer from 0 to 2^63-1", names[i], wrong);
        return text;
    }
    if (t->buf_off > t->buf->len || t->len > t->buf->len - t->buf_off)
        return "range does not lie in the buffer";
    return NULL;
}

static int transfer(lua_State *L, jdb_code code, const char *name, unsigned flags) {
    struct transfer t;
    char text[96];
    int pushed;
    jl_file *f = check_file(L);
    const char *wrong = read_transfer(L, &t, text, sizeof text);
    if (wrong) return fail_file(L, JDB_OVERFLOW, name, f, wrong);
    if (!t.buf->mem) return fail_file(L, JDB_CLOSED, name, f, "the buffer was freed");
    jdb_op *op = jl_take(L, name, jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    size_t at = t.buf->off + (size_t)t.buf_off;
    if (code == JDB_READ)
        jdb_prep_read(op, f->file, t.buf->mem, at, (size_t)t.len, t.off, flags);
    else
        jdb_prep_write(op, f->file, t.buf->mem, at, (size_t)t.len, t.off);
    return run_checked(L, op);
}

static int file_read_at(lua_State *L) { return transfer(L, JDB_READ, "read_at", 0); }

static int file_read_upto(lua_State *L) { return transfer(L, JDB_READ, "read_upto", JDB_READ_UPTO); }

static int file_write_at(lua_State *L) {
    if (!lua_isnoneornil(L, 6)) {
        luaL_checktype(L, 6, LUA_TSTRING);
        return fail_file(L, JDB_UNSUPPORTED, "write_at", check_file(L),
                         "write flags are not available in this version");
    }
    return transfer(L, JDB_WRITE, "write_at", 0);
}

/* A read of any offset and length: the aligned blocks around it, cut to what was asked. */
static int read_string(lua_State *L, jl_file *f, uint64_t off, uint64_t len) {
    int pushed;
    jdb_file_info info;
    jdb_file_info_get(f->file, &info);
    uint64_t align = info.read_align;
    uint64_t from = off / align * align;
    uint64_t span = (off - from + len + align - 1) / align * align;
    /* The last block of the largest file would end beyond 2^63-1; no file has it. */
    if (span > (uint64_t)INT64_MAX - from) span = ((uint64_t)INT64_MAX - from) / align * align;
    const char *path = jdb_file_path(f->file);
    jdb_op *op = jl_take(L, "read", path, &pushed);
    if (!op) return pushed;
    size_t memory = info.memory_align > jdb_page_size() ? info.memory_align : jdb_page_size();
    jdb_buf *buf = span <= SIZE_MAX ? jdb_buf_new((size_t)span, memory) : NULL;
    if (!buf) {
        jl_drop(L, op);
        return fail_file(L, JDB_ALLOC, "read", f, "out of memory");
    }
    jdb_prep_read(op, f->file, buf, 0, (size_t)span, from, JDB_READ_UPTO);
    jdb_buf_unref(buf);
    jdb_op_set_part(op, (size_t)(off - from), (size_t)len);
    return run_checked(L, op);
}

static int file_read(lua_State *L) {
    jl_file *f = check_file(L);
    uint64_t off, len;
    char text[96];
    const char *name = "offset";
    const char *wrong = jl_number(L, 2, &off);
    if (!wrong) {
        name = "length";
        wrong = jl_number(L, 3, &len);
    }
    if (wrong) {
        snprintf(text, sizeof text, "%s is %s: it must be an integer from 0 to 2^63-1", name, wrong);
        return fail_file(L, JDB_OVERFLOW, "read", f, text);
    }
    if (jdb_file_closed(f->file)) return fail_file(L, JDB_CLOSED, "read", f, "the file is closed");
    if (len > (uint64_t)INT64_MAX - off)
        return fail_file(L, JDB_OVERFLOW, "read", f, "offset + length is beyond 2^63-1");
    /* A large length is often "the rest of the file": memory for what is there, not for that. */
    if (len > 65536) {
        int64_t size = jdb_file_size_now(f->file);
        if (size >= 0 && len > (uint64_t)size)
            len = off < (uint64_t)size ? (uint64_t)size - off : 0;
    }
    if (len == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    return read_string(L, f, off, len);
}

/* ---- the other operations ---------------------------------------------------------------------- */

static int plain(lua_State *L, jdb_code code) {
    int pushed;
    jl_file *f = check_file(L);
    jdb_op *op = jl_take(L, jdb_code_name(code), jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_file(op, code, f->file);
    return run_checked(L, op);
}

static int file_sync_all(lua_State *L) { return plain(L, JDB_SYNC_ALL); }
static int file_sync_data(lua_State *L) { return plain(L, JDB_SYNC_DATA); }
static int file_size(lua_State *L) { return plain(L, JDB_SIZE); }
static int file_stat(lua_State *L) { return plain(L, JDB_STAT); }

static int file_close(lua_State *L) {
    jl_file *f = check_file(L);
    if (jdb_file_closed(f->file)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    return plain(L, JDB_CLOSE);
}

/* A length argument that the system stores as the file's size. */
static int read_length(lua_State *L, const char *name, jl_file *f, uint64_t *len) {
    char text[96];
    const char *wrong = jl_number(L, 2, len);
    if (!wrong) return 0;
    snprintf(text, sizeof text, "length is %s: it must be an integer from 0 to 2^63-1", wrong);
    return fail_file(L, JDB_OVERFLOW, name, f, text);
}

static int file_truncate(lua_State *L) {
    uint64_t len;
    int pushed;
    jl_file *f = check_file(L);
    int refused = read_length(L, "truncate", f, &len);
    if (refused) return refused;
    jdb_op *op = jl_take(L, "truncate", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_truncate(op, f->file, len);
    return run_checked(L, op);
}

static int file_preallocate(lua_State *L) {
    static const char *const names[] = {"size", "keep_size", "zero", NULL};
    uint64_t len;
    int pushed;
    jl_file *f = check_file(L);
    int how = luaL_checkoption(L, 3, "size", names);
    int refused = read_length(L, "preallocate", f, &len);
    if (refused) return refused;
    jdb_op *op = jl_take(L, "preallocate", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_preallocate(op, f->file, len, (jdb_prealloc)how);
    return run_checked(L, op);
}

static int file_later(lua_State *L) {
    return fail_file(L, JDB_UNSUPPORTED, lua_tostring(L, lua_upvalueindex(2)), check_file(L),
                     "not available in this version");
}

static void set_text(lua_State *L, const char *name, const char *value) {
    lua_pushstring(L, value ? value : "");
    lua_setfield(L, -2, name);
}

static int file_info(lua_State *L) {
    static const char *const policies[] = {"require", "prefer", "off"};
    jl_file *f = check_file(L);
    jdb_file_info info;
    if (jdb_file_closed(f->file)) return fail_file(L, JDB_CLOSED, "info", f, "the file is closed");
    jdb_file_info_get(f->file, &info);
    lua_createtable(L, 0, 12);
    set_text(L, "path", jdb_file_path(f->file));
    set_text(L, "direct_policy", policies[info.policy]);
    set_text(L, "direct_reason", info.direct_reason);
    set_text(L, "alignment_source", info.align_source);
    set_text(L, "file_system", info.file_system);
    set_text(L, "backend", jdb_queue_backend(jl_self(L)->queue));
    lua_pushboolean(L, info.direct);
    lua_setfield(L, -2, "direct");
    lua_pushboolean(L, info.writable);
    lua_setfield(L, -2, "writable");
    lua_pushboolean(L, info.dsync);
    lua_setfield(L, -2, "dsync");
    jl_push_size(L, info.memory_align);
    lua_setfield(L, -2, "memory_alignment");
    jl_push_size(L, info.read_align);
    lua_setfield(L, -2, "read_alignment");
    jl_push_size(L, info.write_align);
    lua_setfield(L, -2, "write_alignment");
    lua_createtable(L, 0, 2);
    set_text(L, "class", "unknown");
    set_text(L, "reason", "the device's write cache was not examined");
    lua_setfield(L, -2, "durability");
    return 1;
}

static int file_path(lua_State *L) {
    lua_pushstring(L, jdb_file_path(check_file(L)->file));
    return 1;
}

static int file_tostring(lua_State *L) {
    jl_file *f = check_file(L);
    lua_pushfstring(L, "jdbfs.file (%s%s)", jdb_file_path(f->file),
                    jdb_file_closed(f->file) ? ", closed" : "");
    return 1;
}

static int file_gc(lua_State *L) {
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (f && f->file) {
        jdb_file_unref(f->file);
        f->file = NULL;
    }
    return 0;
}

/* To-be-closed variables. Where the scope may wait it closes as close() does; where it may not (a
 * coroutine being closed) the handle closes by itself after its last operation. */
static int file_tbc(lua_State *L) {
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (!f || !f->file || jdb_file_closed(f->file)) return 0;
    int failing = !lua_isnoneornil(L, 2);
    lua_settop(L, 1);
    if (jl_may_wait(L) && !failing) return plain(L, JDB_CLOSE);
    return file_gc(L);
}

/* ---- opening ------------------------------------------------------------------------------------ */

int jl_push_file(lua_State *L, jdb_file *file) {
    jl_file *f = jl_new(L, sizeof *f, &jl_magic_file, jl_self(L)->ref_file_meta);
    f->file = jdb_file_ref(file);
    return 1;
}

struct open_args {
    const char *path, *later;
    unsigned flags, mode;
    jdb_direct direct;
};

static int flag_option(lua_State *L, const char *name) {
    int type = lua_type(L, -1);
    if (type != LUA_TBOOLEAN) luaL_error(L, "option %s: true or false expected", name);
    return lua_toboolean(L, -1);
}

static jdb_direct direct_option(lua_State *L) {
    const char *value = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    if (strcmp(value, "require") == 0) return JDB_DIRECT_REQUIRE;
    if (strcmp(value, "prefer") == 0) return JDB_DIRECT_PREFER;
    if (strcmp(value, "off") != 0)
        luaL_error(L, "option direct: \"require\", \"prefer\" or \"off\" expected");
    return JDB_DIRECT_OFF;
}

static unsigned mode_option(lua_State *L) {
    uint64_t mode;
    if (lua_type(L, -1) != LUA_TNUMBER || jl_number(L, -1, &mode) || mode > 07777)
        luaL_error(L, "option mode: an integer from 0 to 07777 (octal) expected");
    return (unsigned)mode;
}

/* One option: its value is on top of the stack. */
static void open_option(lua_State *L, const char *name, struct open_args *a) {
    if (strcmp(name, "direct") == 0) {
        a->direct = direct_option(L);
    } else if (strcmp(name, "mode") == 0) {
        a->mode = mode_option(L);
    } else if (strcmp(name, "exclusive") == 0) {
        if (flag_option(L, name)) a->flags |= JDB_OPEN_EXCLUSIVE;
    } else if (strcmp(name, "must_exist") == 0) {
        if (flag_option(L, name)) a->flags &= ~(unsigned)JDB_OPEN_CREATE;
    } else if (strcmp(name, "atime") == 0) {
        if (flag_option(L, name)) a->flags |= JDB_OPEN_ATIME;
    } else if (strcmp(name, "device") == 0) {
        if (flag_option(L, name)) a->flags |= JDB_OPEN_DEVICE;
    } else if (strcmp(name, "lock") == 0) {
        if (lua_type(L, -1) != LUA_TSTRING) luaL_error(L, "option lock: a string expected");
        a->later = "option lock is not available in this version";
    } else if (strcmp(name, "durable_create") == 0) {
        if (flag_option(L, name))
            a->later = "option durable_create is not available in this version";
    } else if (strcmp(name, "dsync") == 0) {
        if (flag_option(L, name)) a->later = "option dsync is not available in this version";
    } else {
        luaL_error(L, "unknown option %s", name);
    }
}

static void read_options(lua_State *L, struct open_args *a) {
    if (lua_isnoneornil(L, 2)) return;
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_pushnil(L);
    while (lua_next(L, 2)) {
        if (lua_type(L, -2) != LUA_TSTRING) luaL_argerror(L, 2, "option names are strings");
        open_option(L, lua_tostring(L, -2), a);
        lua_pop(L, 1);
    }
    /* exclusive means "make it": without making there is nothing to be exclusive about. */
    if ((a->flags & JDB_OPEN_EXCLUSIVE) && !(a->flags & JDB_OPEN_CREATE))
        luaL_error(L, "option exclusive makes a new file: not with open or must_exist");
}

static int open_file(lua_State *L, unsigned flags) {
    size_t len;
    int pushed;
    struct open_args a = {NULL, NULL, flags, 0666, JDB_DIRECT_REQUIRE};
    luaL_checktype(L, 1, LUA_TSTRING);
    a.path = lua_tolstring(L, 1, &len);
    read_options(L, &a);
    if (strlen(a.path) != len)
        return jl_fail_kind(L, JDB_IO, "open", a.path, "the path contains a NUL byte");
    if (a.later) return jl_fail_kind(L, JDB_UNSUPPORTED, "open", a.path, a.later);
    jdb_op *op = jl_take(L, "open", a.path, &pushed);
    if (!op) return pushed;
    if (jdb_prep_open(jl_self(L)->queue, op, a.path, a.flags, a.mode, a.direct) != 0) {
        jl_drop(L, op);
        return jl_fail_kind(L, JDB_ALLOC, "open", a.path, "out of memory");
    }
    return run_checked(L, op);
}

static int open_read(lua_State *L) { return open_file(L, 0); }

static int open_create(lua_State *L) {
    return open_file(L, JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE);
}

static int open_rw(lua_State *L) { return open_file(L, JDB_OPEN_WRITE | JDB_OPEN_CREATE); }

static int open_wal(lua_State *L) {
    return open_file(L, JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_DSYNC);
}

int jl_open_file(lua_State *L) {
    static const luaL_Reg methods[] = {{"read_at", file_read_at},
                                       {"read_upto", file_read_upto},
                                       {"read", file_read},
                                       {"write_at", file_write_at},
                                       {"size", file_size},
                                       {"stat", file_stat},
                                       {"info", file_info},
                                       {"sync_all", file_sync_all},
                                       {"sync_data", file_sync_data},
                                       {"truncate", file_truncate},
                                       {"preallocate", file_preallocate},
                                       {"path", file_path},
                                       {"close", file_close},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", file_gc},
                                    {"__close", file_tbc},
                                    {"__tostring", file_tostring},
                                    {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", open_read},
                                         {"create", open_create},
                                         {"open_rw", open_rw},
                                         {"open_wal", open_wal},
                                         {NULL, NULL}};
    static const char *const later[] = {"read_many", "write_many", "punch", "lock", "unlock", NULL};
    jl_state *S = jl_self(L);
    S->ref_file_meta = jl_new_class(L, "jdbfs.file", methods, meta);
    jl_push_ref(L, S->ref_file_meta);
    lua_getfield(L, -1, "__index");
    for (int i = 0; later[i]; i++) {
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushstring(L, later[i]);
        lua_pushcclosure(L, file_later, 2);
        lua_setfield(L, -2, later[i]);
    }
    lua_pop(L, 2);
    jl_register(L, functions);
    return 0;
}
