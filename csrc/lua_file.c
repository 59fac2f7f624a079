/* lua_file.c: file methods and the calls that open files. Each method reads its arguments, fills
 * an operation and hands it to jl_run_op, which yields or completes in place. */
#include <stdio.h>
#include <string.h>

#include "lua_jdb.h"

const char jl_magic_file = 0;

static inline jl_file *check_file(lua_State *L) {
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (!f || !f->file) luaL_argerror(L, 1, "jdbfs file expected (call with a colon)");
    return f;
}

static int fail_file(lua_State *L, jdb_kind kind, const char *op, const jl_file *f,
                     const char *cause) {
    return jl_fail_kind(L, kind, op, jdb_file_path(f->file), cause);
}

/* Submits what is prepared, unless it can be refused at once. */
static inline int run_checked(lua_State *L, jl_state *S, jdb_op *op) {
    return jdb_op_check(op) == JDB_OK ? jl_run_op(L, S, op) : jl_refuse(L, S, op);
}

/* ---- transfers ------------------------------------------------------------------------------ */

struct transfer {
    jl_buf *buf;
    uint64_t off, buf_off, len;
    const char *field, *wrong; /* the number that is none, and why; NULL: all are */
};

/* Of a list at index 2 whose entry, at index 4, is wrong: its place and what was expected. */
static void refuse_entry(lua_State *L, const char *what, const char *expected) {
    int i = 0, n = (int)lua_rawlen(L, 2); /* Lua code that was asked may have changed it */
    do {
        lua_settop(L, 4);
        lua_rawgeti(L, 2, ++i);
    } while (!lua_rawequal(L, 4, 5) && i < n);
    luaL_error(L, "entry %d of the list: %s: %s expected", i, what, expected);
}

static void read_odd_number(lua_State *L, int i, struct transfer *t, const char *name,
                            uint64_t *value) {
    int type = lua_type(L, i);
    /* The arguments of a single transfer end at 5. */
    if (i > 5 && type != LUA_TNUMBER && type != JL_TCDATA) refuse_entry(L, name, "number");
    const char *wrong = jl_any_number(L, i, value);
    if (!wrong || t->wrong) return;
    t->field = name;
    t->wrong = wrong;
}

/* (buffer, offset [, buffer offset, length]) from argument `first`; the last one is at `top`. In
 * line, as what it fills then stays in registers. */
__attribute__((always_inline)) static inline void read_numbers(lua_State *L, int first, int top,
                                                               struct transfer *t) {
    t->wrong = NULL;
    t->off = t->buf_off = 0;
    if (!jl_plain_number(L, first + 1, &t->off))
        read_odd_number(L, first + 1, t, "offset", &t->off);
    if (top >= first + 2 && !jl_plain_number(L, first + 2, &t->buf_off) && !lua_isnil(L, first + 2))
        read_odd_number(L, first + 2, t, "buffer offset", &t->buf_off);
    if (top >= first + 3 && jl_plain_number(L, first + 3, &t->len)) return;
    t->len = t->buf->len >= t->buf_off ? t->buf->len - t->buf_off : 0;
    if (top >= first + 3 && !lua_isnil(L, first + 3))
        read_odd_number(L, first + 3, t, "length", &t->len);
}

/* Valid until the next one of this thread. */
static const char *no_number(const char *name, const char *wrong) {
    static _Thread_local char text[96];
    snprintf(text, sizeof text, "%s is %s: it must be an integer from 0 to 2^63-1", name, wrong);
    return text;
}

/* The cause of a refusal, or NULL. */
static inline const char *refusal(const struct transfer *t, jdb_kind *kind) {
    *kind = JDB_BUSY;
    if (!t->buf) return "the list was changed while it was read";
    *kind = JDB_OVERFLOW;
    if (t->wrong) return no_number(t->field, t->wrong);
    if (t->buf_off > t->buf->len || t->len > t->buf->len - t->buf_off)
        return "range does not lie in the buffer";
    *kind = JDB_CLOSED;
    return t->buf->mem ? NULL : "the buffer was freed";
}

static inline void prepare(jdb_op *op, jdb_code code, const jl_file *f, const struct transfer *t,
                           unsigned flags) {
    size_t at = t->buf->off + (size_t)t->buf_off;
    if (code == JDB_READ)
        jdb_prep_read(op, f->file, t->buf->mem, at, (size_t)t->len, t->off, flags);
    else jdb_prep_write(op, f->file, t->buf->mem, at, (size_t)t->len, t->off, flags);
}

/* "dsync", "atomic", or both with a comma or a blank between. */
static unsigned write_flags(lua_State *L, int i) {
    unsigned flags = 0;
    if (lua_isnoneornil(L, i)) return 0;
    luaL_checktype(L, i, LUA_TSTRING);
    for (const char *p = lua_tostring(L, i); *p;) {
        size_t len = strcspn(p, ", ");
        if (len == 5 && strncmp(p, "dsync", 5) == 0) flags |= JDB_WRITE_DSYNC;
        else if (len == 6 && strncmp(p, "atomic", 6) == 0) flags |= JDB_WRITE_ATOMIC;
        else if (len > 0) luaL_argerror(L, i, "write flags are \"dsync\" and \"atomic\"");
        p += len + (p[len] != 0);
    }
    return flags;
}

static int transfer(lua_State *L, jdb_code code, const char *name, unsigned flags) {
    struct transfer t;
    jdb_kind kind;
    int pushed;
    jl_state *S = jl_self(L);
    jl_file *f = check_file(L);
    t.buf = jl_check_buf(L, 2);
    read_numbers(L, 2, lua_gettop(L), &t);
    const char *wrong = refusal(&t, &kind);
    if (wrong) {
        jl_measure_refusal(S, code, kind, 0);
        return fail_file(L, kind, name, f, wrong);
    }
    jdb_op *op = jl_take(L, S, name, jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    prepare(op, code, f, &t, flags);
    return run_checked(L, S, op);
}

static int file_read_at(lua_State *L) { return transfer(L, JDB_READ, "read_at", 0); }

static int file_read_upto(lua_State *L) {
    return transfer(L, JDB_READ, "read_upto", JDB_READ_UPTO);
}

static int file_write_at(lua_State *L) {
    check_file(L);
    return transfer(L, JDB_WRITE, "write_at", write_flags(L, 6));
}

/* Of the command: one page drawn from --dist is read, or written with what tells it from others at
 * its front. A call without arguments. Upvalue 2 says where, upvalues 3 to 5 keep that alive. */
struct drawn {
    jl_file *file;
    jl_buf *buf;
    jl_random *random;
};

static int transfer_drawn(lua_State *L, jdb_code code, const char *name) {
    struct transfer t = {.buf_off = 0, .wrong = NULL};
    jdb_kind kind;
    int pushed;
    jl_state *S = jl_self(L);
    const struct drawn *d = lua_touserdata(L, lua_upvalueindex(2));
    t.buf = d->buf;
    t.len = t.buf->len;
    t.off = jl_draw_page(L, d->random, code == JDB_WRITE ? t.buf : NULL);
    const char *wrong = refusal(&t, &kind);
    if (wrong) return fail_file(L, kind, name, d->file, wrong);
    jdb_op *op = jl_take(L, S, name, jdb_file_path(d->file->file), &pushed);
    if (!op) return pushed;
    prepare(op, code, d->file, &t, 0);
    return run_checked(L, S, op);
}

static int read_drawn(lua_State *L) { return transfer_drawn(L, JDB_READ, "read_at"); }
static int write_drawn(lua_State *L) { return transfer_drawn(L, JDB_WRITE, "write_at"); }

/* drawn(file, buffer, random): functions that read and write such a page. */
static int file_drawn(lua_State *L) {
    static const lua_CFunction functions[] = {read_drawn, write_drawn};
    const struct drawn drawn = {check_file(L), jl_check_buf(L, 2), jl_check_random(L, 3)};
    lua_settop(L, 3);
    *(struct drawn *)lua_newuserdata(L, sizeof drawn) = drawn;
    for (int i = 0; i < 2; i++) {
        lua_pushvalue(L, lua_upvalueindex(1));
        lua_pushvalue(L, 4);
        for (int k = 1; k <= 3; k++) lua_pushvalue(L, k);
        lua_pushcclosure(L, functions[i], 5);
    }
    return 2;
}

/* ---- lists of transfers --------------------------------------------------------------------- */

enum { FEW = 32 }; /* entries that are read without taking memory */

/* Entry i of the list at index 2, its values being unpacked from index 5 on. `known`: a buffer. */
static inline void read_entry(lua_State *L, int i, jl_buf *known, struct transfer *t) {
    lua_rawgeti(L, 2, i);
    if (!lua_istable(L, 4)) luaL_error(L, "entry %d of the list is no table", i);
    for (int k = 1; k <= 4; k++) lua_rawgeti(L, 4, k);
    if (known && lua_touserdata(L, 5) == (void *)known) t->buf = known;
    else if (!(t->buf = jl_test(L, 5, &jl_magic_buf, sizeof *t->buf)))
        refuse_entry(L, "buffer", "jdbfs buffer");
    read_numbers(L, 5, 8, t);
    lua_settop(L, 3);
}

static jl_buf *buffer_of(lua_State *L, int i) {
    lua_rawgeti(L, 2, i);
    if (lua_istable(L, 4)) lua_rawgeti(L, 4, 1);
    jl_buf *buf = jl_test(L, -1, &jl_magic_buf, sizeof *buf);
    lua_settop(L, 3);
    return buf;
}

/* Reads the whole list before the first operation is taken, as reading may raise; into `few`, or a
 * userdata at index 3. Memory is taken before, so only numbers that Lua code has to be asked for
 * can change the list, or free a buffer, on the way: then each is looked up once more. */
static struct transfer *read_list(lua_State *L, const jl_state *S, struct transfer *few,
                                  int *count) {
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t n = lua_rawlen(L, 2);
    if (n > 1000000) luaL_argerror(L, 2, "more than 1000000 entries");
    luaL_checkstack(L, 9, "list");
    lua_settop(L, 2);
    struct transfer *list = n > FEW ? lua_newuserdata(L, n * sizeof *list) : few;
    lua_settop(L, 3);
    uint32_t asked = S->asked;
    for (int i = 0; i < (int)n; i++) read_entry(L, i + 1, i ? list[i - 1].buf : NULL, &list[i]);
    if (S->asked != asked)
        for (int i = 0; i < (int)n; i++)
            if (buffer_of(L, i + 1) != list[i].buf) list[i].buf = NULL;
    *count = (int)n;
    return list;
}

/* Adds entry i; 0, or 1 when it is refused and *failure says why. Runs no Lua code. */
static inline int add_entry(jl_file *f, jdb_op *many, const struct transfer *t, int i,
                            jdb_failure *failure) {
    jdb_kind kind;
    const char *wrong = refusal(t, &kind);
    if (wrong) {
        const char *name = jdb_code_name(jdb_op_code(many));
        jdb_failure refused = {kind, 0, name, jdb_file_path(f->file), NULL, wrong, -1, -1, -1, i};
        *failure = refused;
        return 1;
    }
    return jdb_many_add(many, t->buf->mem, t->buf->off + (size_t)t->buf_off, (size_t)t->len, t->off,
                        failure) != JDB_OK;
}

static int many(lua_State *L, jdb_code list_code) {
    int pushed, n;
    struct transfer few[FEW];
    jdb_failure failure;
    jl_state *S = jl_self(L);
    jl_file *f = check_file(L);
    unsigned flags = list_code == JDB_WRITE_MANY ? write_flags(L, 3) : 0;
    const struct transfer *list = read_list(L, S, few, &n);
    jdb_op *op = jl_take(L, S, jdb_code_name(list_code), jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_many(op, list_code, f->file, flags);
    if (jdb_op_check(op) != JDB_OK) return jl_refuse(L, S, op);
    for (int i = 0; i < n; i++) {
        if (!add_entry(f, op, &list[i], i, &failure)) continue;
        jl_measure_refusal(S, list_code, failure.kind, failure.error);
        jl_drop(S, op);
        return jl_fail(L, &failure);
    }
    return jl_run_op(L, S, op);
}

static int file_read_many(lua_State *L) { return many(L, JDB_READ_MANY); }
static int file_write_many(lua_State *L) { return many(L, JDB_WRITE_MANY); }

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
    if (span == 0) {
        lua_pushliteral(L, "");
        return 1;
    }
    const char *path = jdb_file_path(f->file);
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "read", path, &pushed);
    if (!op) return pushed;
    size_t memory = info.memory_align > jdb_page_size() ? info.memory_align : jdb_page_size();
    jdb_buf *buf = span <= SIZE_MAX ? jdb_buf_new((size_t)span, memory) : NULL;
    if (!buf) {
        jl_drop(S, op);
        return fail_file(L, JDB_ALLOC, "read", f, "out of memory");
    }
    jdb_prep_read(op, f->file, buf, 0, (size_t)span, from, JDB_READ_UPTO);
    jdb_buf_unref(buf);
    jdb_op_set_part(op, (size_t)(off - from), (size_t)len);
    return run_checked(L, S, op);
}

/* Offset and length from arguments 2 and 3; NULL, or the cause of a refusal. */
static const char *read_range(lua_State *L, uint64_t *off, uint64_t *len) {
    const char *wrong = jl_number(L, 2, off);
    if (wrong) return no_number("offset", wrong);
    wrong = jl_number(L, 3, len);
    return wrong ? no_number("length", wrong) : NULL;
}

static int file_read(lua_State *L) {
    jl_file *f = check_file(L);
    uint64_t off, len;
    const char *wrong = read_range(L, &off, &len);
    if (wrong) return fail_file(L, JDB_OVERFLOW, "read", f, wrong);
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

/* ---- the other operations ------------------------------------------------------------------- */

static int plain(lua_State *L, jdb_code code) {
    int pushed;
    jl_file *f = check_file(L);
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, jdb_code_name(code), jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_file(op, code, f->file);
    return run_checked(L, S, op);
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
    const char *wrong = jl_number(L, 2, len);
    return wrong ? fail_file(L, JDB_OVERFLOW, name, f, no_number("length", wrong)) : 0;
}

static int file_truncate(lua_State *L) {
    uint64_t len;
    int pushed;
    jl_file *f = check_file(L);
    int refused = read_length(L, "truncate", f, &len);
    if (refused) return refused;
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "truncate", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_truncate(op, f->file, len);
    return run_checked(L, S, op);
}

static int file_preallocate(lua_State *L) {
    static const char *const names[] = {"size", "keep_size", "zero", NULL};
    uint64_t len;
    int pushed;
    jl_file *f = check_file(L);
    /* LuaJIT takes a value of another type for an absent one. */
    if (!lua_isnoneornil(L, 3)) luaL_checktype(L, 3, LUA_TSTRING);
    int how = luaL_checkoption(L, 3, "size", names);
    int refused = read_length(L, "preallocate", f, &len);
    if (refused) return refused;
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "preallocate", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_preallocate(op, f->file, len, (jdb_prealloc)how);
    return run_checked(L, S, op);
}

static int file_punch(lua_State *L) {
    uint64_t off, len;
    int pushed;
    jl_file *f = check_file(L);
    const char *wrong = read_range(L, &off, &len);
    if (wrong) return fail_file(L, JDB_OVERFLOW, "punch", f, wrong);
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "punch", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_punch(op, f->file, off, len);
    return run_checked(L, S, op);
}

static int file_lock(lua_State *L) {
    static const char *const names[] = {"shared", "exclusive", NULL};
    int pushed;
    jl_file *f = check_file(L);
    luaL_checktype(L, 2, LUA_TSTRING);
    int how = luaL_checkoption(L, 2, NULL, names);
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "lock", jdb_file_path(f->file), &pushed);
    if (!op) return pushed;
    jdb_prep_lock(op, f->file, how ? JDB_LOCK_EXCLUSIVE : JDB_LOCK_SHARED);
    return run_checked(L, S, op);
}

static int file_unlock(lua_State *L) { return plain(L, JDB_UNLOCK); }

static void set_flag(lua_State *L, const char *name, int value) {
    if (value < 0) return; /* unknown */
    lua_pushboolean(L, value);
    lua_setfield(L, -2, name);
}

/* durability = {class =, reasons = {...}, device =, ...}: what is unknown is absent. */
static void set_durability(lua_State *L, const jdb_evidence *e) {
    lua_createtable(L, 0, 6);
    jl_set_text(L, "class", e->class_name);
    if (e->device[0]) jl_set_text(L, "device", e->device);
    if (e->mount_options[0]) jl_set_text(L, "mount_options", e->mount_options);
    set_flag(L, "volatile_cache", e->volatile_cache);
    set_flag(L, "fua", e->fua);
    lua_newtable(L);
    const char *p = e->reasons;
    for (int i = 1; *p; i++) {
        size_t len = strcspn(p, "\n");
        lua_pushlstring(L, p, len);
        lua_rawseti(L, -2, i);
        p += len + (p[len] != 0);
    }
    lua_setfield(L, -2, "reasons");
    lua_setfield(L, -2, "durability");
}

/* What f:info() and probe() both tell, into the table on top. */
void jl_set_file_info(lua_State *L, const jdb_file_info *info) {
    jl_set_text(L, "direct_reason", info->direct_reason);
    jl_set_text(L, "alignment_source", info->align_source);
    jl_set_text(L, "file_system", info->file_system);
    set_flag(L, "direct", info->direct);
    jl_set_size(L, "memory_alignment", info->memory_align);
    jl_set_size(L, "read_alignment", info->read_align);
    jl_set_size(L, "write_alignment", info->write_align);
    if (info->direct_write_unit) jl_set_size(L, "direct_write_unit", info->direct_write_unit);
    if (info->evidence.logical_block) jl_set_size(L, "logical_block", info->evidence.logical_block);
    if (info->evidence.physical_block)
        jl_set_size(L, "physical_block", info->evidence.physical_block);
    lua_createtable(L, 0, 2);
    jl_set_size(L, "min", info->atomic_min);
    jl_set_size(L, "max", info->atomic_max);
    lua_setfield(L, -2, "atomic");
    set_durability(L, &info->evidence);
}

int jl_push_file_info(lua_State *L, const jdb_file *file) {
    static const char *const policies[] = {"require", "prefer", "off"};
    static const char *const methods[] = {"auto", "write", "flush"};
    static const char *const levels[] = {"full", "barrier", "os"};
    jdb_file_info info;
    jdb_file_info_get(file, &info);
    lua_createtable(L, 0, 24);
    jl_set_text(L, "path", jdb_file_path(file));
    jl_set_text(L, "direct_policy", policies[info.policy]);
    jl_set_text(L, "backend", jdb_queue_backend(jl_self(L)->queue));
    set_flag(L, "writable", info.writable);
    set_flag(L, "dsync", info.dsync);
    jl_set_text(L, "durable_method", methods[info.method]);
    jl_set_text(L, "durable_reason", jdb_file_method_reason(file));
    jl_set_text(L, "sync_level", levels[info.sync_level]);
    set_flag(L, "poisoned", info.poisoned != 0);
    set_flag(L, "polled", info.polled);
    jl_set_text(L, "polled_reason", info.polled_reason);
    jl_set_file_info(L, &info);
    return 1;
}

static int file_info(lua_State *L) { return plain(L, JDB_INFO); }

static int file_path(lua_State *L) {
    lua_pushstring(L, jdb_file_path(check_file(L)->file));
    return 1;
}

static int file_tostring(lua_State *L) {
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (f && !f->file) { /* a finalizer tells about it after its own */
        lua_pushliteral(L, "jdbfs.file (collected)");
        return 1;
    }
    f = check_file(L);
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

/* To-be-closed variables close as close() does. In a task that is being ended nobody may wait: the
 * close is submitted, and the handle closes after the last operation of the file. */
static int file_tbc(lua_State *L) {
    int pushed;
    jl_file *f = jl_test(L, 1, &jl_magic_file, sizeof *f);
    if (!f || !f->file || jdb_file_closed(f->file)) return 0;
    if (!jl_ending(L)) return plain(L, JDB_CLOSE);
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, "close", jdb_file_path(f->file), &pushed);
    if (!op) return 0;
    jdb_prep_file(op, JDB_CLOSE, f->file);
    S->spare = NULL;
    jdb_submit(S->queue, op);
    jdb_op_abandon(S->queue, op);
    return 0;
}

/* ---- opening -------------------------------------------------------------------------------- */

int jl_push_file(lua_State *L, jdb_file *file) {
    jl_file *f = jl_new(L, sizeof *f, &jl_magic_file, jl_self(L)->ref_file_meta);
    f->file = jdb_file_ref(file);
    return 1;
}

struct open_args {
    const char *path;
    jdb_open how;
};

static int flag_option(lua_State *L, const char *name) {
    int type = lua_type(L, -1);
    if (type != LUA_TBOOLEAN) luaL_error(L, "option %s: true or false expected", name);
    return lua_toboolean(L, -1);
}

/* The index of the option's value among the names. */
static int choice(lua_State *L, const char *name, const char *const *names, int count) {
    const char *value = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    for (int i = 0; i < count; i++)
        if (strcmp(value, names[i]) == 0) return i;
    lua_pushfstring(L, "\"%s\"", names[0]);
    for (int i = 1; i < count; i++) {
        lua_pushfstring(L, i == count - 1 ? " or \"%s\"" : ", \"%s\"", names[i]);
        lua_concat(L, 2);
    }
    return luaL_error(L, "option %s: %s expected", name, lua_tostring(L, -1));
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
        static const char *const how[] = {"require", "prefer", "off"};
        a->how.direct = (jdb_direct)choice(L, name, how, 3);
    } else if (strcmp(name, "mode") == 0) {
        a->how.mode = mode_option(L);
    } else if (strcmp(name, "exclusive") == 0) {
        if (flag_option(L, name)) a->how.flags |= JDB_OPEN_EXCLUSIVE;
    } else if (strcmp(name, "must_exist") == 0) {
        if (flag_option(L, name)) a->how.flags &= ~(unsigned)JDB_OPEN_CREATE;
    } else if (strcmp(name, "atime") == 0) {
        if (flag_option(L, name)) a->how.flags |= JDB_OPEN_ATIME;
    } else if (strcmp(name, "nofollow") == 0) {
        if (flag_option(L, name)) a->how.flags |= JDB_OPEN_NOFOLLOW;
    } else if (strcmp(name, "device") == 0) {
        if (flag_option(L, name)) a->how.flags |= JDB_OPEN_DEVICE;
    } else if (strcmp(name, "lock") == 0) {
        static const char *const how[] = {"shared", "exclusive"};
        a->how.flags |= choice(L, name, how, 2) ? JDB_OPEN_LOCK_EXCLUSIVE : JDB_OPEN_LOCK_SHARED;
    } else if (strcmp(name, "durable_create") == 0) {
        if (flag_option(L, name)) a->how.flags |= JDB_OPEN_DURABLE;
    } else if (strcmp(name, "dsync") == 0) {
        if (lua_type(L, -1) == LUA_TSTRING && strcmp(lua_tostring(L, -1), "all") == 0)
            a->how.flags |= JDB_OPEN_DSYNC | JDB_OPEN_SYNC;
        else if (lua_type(L, -1) != LUA_TBOOLEAN)
            luaL_error(L, "option dsync: true, false or \"all\" expected");
        else if (lua_toboolean(L, -1)) a->how.flags |= JDB_OPEN_DSYNC;
    } else if (strcmp(name, "durable_method") == 0) {
        static const char *const how[] = {"auto", "write", "flush"};
        a->how.method = (jdb_method)choice(L, name, how, 3);
    } else if (strcmp(name, "sync_level") == 0) {
        static const char *const how[] = {"full", "barrier"};
        a->how.sync_level = (jdb_sync_level)choice(L, name, how, 2);
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
    if ((a->how.flags & JDB_OPEN_EXCLUSIVE) && !(a->how.flags & JDB_OPEN_CREATE))
        luaL_error(L, "option exclusive makes a new file: not with open or must_exist");
}

static int open_file(lua_State *L, const char *name, unsigned flags) {
    size_t len;
    int pushed;
    struct open_args a = {NULL,
                          {flags, 0666, JDB_DIRECT_REQUIRE, JDB_METHOD_AUTO, name, JDB_SYNC_FULL}};
    luaL_checktype(L, 1, LUA_TSTRING);
    a.path = lua_tolstring(L, 1, &len);
    read_options(L, &a);
    if (strlen(a.path) != len)
        return jl_fail_kind(L, JDB_IO, name, a.path, "the path contains a NUL byte");
    jl_state *S = jl_self(L);
    jdb_op *op = jl_take(L, S, name, a.path, &pushed);
    if (!op) return pushed;
    if (jdb_prep_open(S->queue, op, a.path, &a.how) != 0) {
        jl_drop(S, op);
        return jl_fail_kind(L, JDB_ALLOC, name, a.path, "out of memory");
    }
    if (jdb_op_check(op) == JDB_OK) return jl_run_op(L, S, op);
    jdb_failure failure;
    jdb_op_failure(op, &failure);
    failure.path = a.path; /* the operation's goes with it */
    jl_drop(S, op);
    return jl_fail(L, &failure);
}

static int open_read(lua_State *L) { return open_file(L, "open", 0); }

static int open_create(lua_State *L) {
    return open_file(L, "create", JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_TRUNCATE);
}

static int open_rw(lua_State *L) {
    return open_file(L, "open_rw", JDB_OPEN_WRITE | JDB_OPEN_CREATE);
}

static int open_wal(lua_State *L) {
    return open_file(L, "open_wal", JDB_OPEN_WRITE | JDB_OPEN_CREATE | JDB_OPEN_DSYNC);
}

int jl_open_file(lua_State *L) {
    static const luaL_Reg methods[] = {{"read_at", file_read_at},
                                       {"read_upto", file_read_upto},
                                       {"read", file_read},
                                       {"write_at", file_write_at},
                                       {"read_many", file_read_many},
                                       {"write_many", file_write_many},
                                       {"punch", file_punch},
                                       {"lock", file_lock},
                                       {"unlock", file_unlock},
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
    static const luaL_Reg meta[] = {
        {"__gc", file_gc}, {"__close", file_tbc}, {"__tostring", file_tostring}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"open", open_read},   {"create", open_create},
                                         {"open_rw", open_rw},  {"open_wal", open_wal},
                                         {"drawn", file_drawn}, {NULL, NULL}};
    jl_self(L)->ref_file_meta = jl_new_class(L, "jdbfs.file", methods, meta);
    /* For hosts: see lua/jdbfs/host.lua. */
    jl_push_ref(L, jl_self(L)->ref_file_meta);
    lua_getfield(L, -1, "__index");
    lua_setfield(L, -3, "file_methods");
    lua_setfield(L, -2, "file_meta");
    jl_register(L, functions);
    return 0;
}
