/* lua_buf.c: buffers as Lua sees them: views of counted memory. A mistake of the program (out of
 * range, freed, in flight) raises. */
#include <stdio.h>
#include <string.h>

#include "lua_jdb.h"

const char jl_magic_buf = 0;

static void check_live(lua_State *L, const jl_buf *b) {
    if (!b->mem) luaL_error(L, "the buffer was freed (Closed)");
    if (!jdb_buf_data(b->mem)) luaL_error(L, "the buffer belongs to the parent process (Forked)");
}

static jl_buf *live(lua_State *L, int i) {
    jl_buf *b = jl_check_buf(L, i);
    check_live(L, b);
    return b;
}

/* An offset or length argument; optional when it is absent. */
static size_t number(lua_State *L, int i, size_t absent) {
    uint64_t n;
    if (lua_isnoneornil(L, i)) return absent;
    const char *wrong = jl_number(L, i, &n);
    if (wrong) luaL_argerror(L, i, wrong);
    if (n > SIZE_MAX) luaL_argerror(L, i, "out of range");
    return (size_t)n;
}

static size_t required(lua_State *L, int i) {
    if (lua_isnoneornil(L, i)) luaL_checktype(L, i, LUA_TNUMBER);
    return number(L, i, 0);
}

static void in_range(lua_State *L, const jl_buf *b, int i, size_t off, size_t len) {
    if (off > b->len || len > b->len - off) luaL_argerror(L, i, "out of the buffer's range");
}

/* The bytes of a checked range, for reading or for changing. They are good until the next call
 * into Lua that may run code: a finalizer, or the __tostring of an argument, may free the buffer.
 * Hence the second look at whether it is there. */
static uint8_t *bytes(lua_State *L, const jl_buf *b, size_t off, size_t len, int change) {
    check_live(L, b);
    size_t at = b->off + off;
    int free_now = change ? jdb_buf_writable(b->mem, at, len) : jdb_buf_readable(b->mem, at, len);
    if (!free_now) luaL_error(L, "the buffer is in flight (Busy)");
    return (uint8_t *)jdb_buf_data(b->mem) + at;
}

const uint8_t *jl_buf_bytes(lua_State *L, int i, size_t off, size_t len) {
    jl_buf *b = live(L, i);
    in_range(L, b, i + 1, off, len);
    return bytes(L, b, off, len, 0);
}

static int buf_len(lua_State *L) {
    jl_push_size(L, live(L, 1)->len);
    return 1;
}

static int buf_string(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t off = number(L, 2, 0);
    in_range(L, b, 2, off, 0);
    size_t len = number(L, 3, b->len - off);
    in_range(L, b, 3, off, len);
    const char *text = (const char *)bytes(L, b, off, len, 0);
    /* Before it copies, lua_pushlstring may collect (5.1, 5.2, LuaJIT), and a finalizer may free
     * this buffer. When it raises, out of memory, the reference stays until the view is
     * collected. */
    if (b->held) {
        lua_pushlstring(L, text, len);
        return 1;
    }
    b->held = jdb_buf_ref(b->mem);
    lua_pushlstring(L, text, len);
    jdb_buf_unref(b->held);
    b->held = NULL;
    return 1;
}

static int done(lua_State *L) {
    lua_pushboolean(L, 1);
    return 1;
}

static int buf_set(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t off = required(L, 2), len;
    luaL_checktype(L, 3, LUA_TSTRING);
    const char *s = lua_tolstring(L, 3, &len);
    in_range(L, b, 2, off, len);
    memcpy(bytes(L, b, off, len, 1), s, len);
    return done(L);
}

static int buf_fill(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t byte = required(L, 2), off = number(L, 3, 0);
    if (byte > 255) luaL_argerror(L, 2, "a byte is 0 to 255");
    in_range(L, b, 3, off, 0);
    size_t len = number(L, 4, b->len - off);
    in_range(L, b, 4, off, len);
    memset(bytes(L, b, off, len, 1), (int)byte, len);
    return done(L);
}

static int buf_copy(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t off = required(L, 2);
    jl_buf *from = live(L, 3);
    size_t from_off = number(L, 4, 0);
    in_range(L, from, 4, from_off, 0);
    size_t len = number(L, 5, from->len - from_off);
    in_range(L, from, 5, from_off, len);
    in_range(L, b, 2, off, len);
    const uint8_t *source = bytes(L, from, from_off, len, 0);
    memmove(bytes(L, b, off, len, 1), source, len);
    return done(L);
}

static jl_buf *new_view(lua_State *L) {
    return jl_new(L, sizeof(jl_buf), &jl_magic_buf, jl_self(L)->ref_buf_meta);
}

static void hold(jl_buf *b, jdb_buf *mem, size_t len) {
    b->mem = mem;
    b->len = len;
    b->address = (double)((uintptr_t)jdb_buf_data(mem) + b->off);
    b->size = (double)len;
    b->gate = (double)((uintptr_t)jdb_buf_gate(mem) / 4);
}

static int buf_slice(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t off = required(L, 2), len = required(L, 3);
    in_range(L, b, 2, off, len);
    jl_buf *view = new_view(L);
    check_live(L, b); /* again: making the view may have run finalizers */
    view->off = b->off + off;
    hold(view, jdb_buf_ref(b->mem), len);
    view->align = b->align;
    while (view->align > 1 && off % view->align) view->align /= 2;
    return 1;
}

static int buf_crc32c(lua_State *L) {
    jl_buf *b = live(L, 1);
    size_t off = number(L, 2, 0);
    in_range(L, b, 2, off, 0);
    size_t len = number(L, 3, b->len - off);
    in_range(L, b, 3, off, len);
    size_t before = number(L, 4, 0);
    luaL_argcheck(L, before <= UINT32_MAX, 4, "a checksum expected");
    jl_push_size(L, jdb_crc32c((uint32_t)before, bytes(L, b, off, len, 0), len));
    return 1;
}

static int buf_pointer(lua_State *L) {
    jl_buf *b = live(L, 1);
    lua_pushlightuserdata(L, (uint8_t *)jdb_buf_data(b->mem) + b->off);
    return 1;
}

static int buf_align(lua_State *L) {
    jl_push_size(L, live(L, 1)->align);
    return 1;
}

static void drop(jl_buf *b) {
    if (b->mem) jdb_buf_unref(b->mem);
    b->mem = NULL;
    b->gate = 0;
}

static int buf_gc(lua_State *L) {
    jl_buf *b = jl_check_buf(L, 1);
    drop(b);
    if (b->held) jdb_buf_unref(b->held);
    b->held = NULL;
    return 0;
}

/* Only this view lets go; slices and operations in flight keep the memory they need. */
static int buf_free(lua_State *L) {
    jl_buf *b = jl_check_buf(L, 1);
    if (b->mem && jdb_buf_data(b->mem)) bytes(L, b, 0, b->len, 1);
    drop(b);
    return done(L);
}

static int buf_tostring(lua_State *L) {
    jl_buf *b = jl_check_buf(L, 1);
    char text[64];
    if (b->mem) snprintf(text, sizeof text, "jdbfs.buffer (%zu bytes)", b->len);
    else snprintf(text, sizeof text, "jdbfs.buffer (freed)");
    lua_pushstring(L, text);
    return 1;
}

/* ---- typed little-endian access ------------------------------------------------------------- */

/* Offset of a typed access. The value to be stored is read before its bytes are looked up. */
static size_t typed(lua_State *L, unsigned size) {
    jl_buf *b = live(L, 1);
    size_t off = required(L, 2);
    in_range(L, b, 2, off, size);
    return off;
}

static uint64_t load(lua_State *L, unsigned size) {
    size_t off = typed(L, size);
    const uint8_t *p = bytes(L, live(L, 1), off, size, 0);
    uint64_t v = 0;
    for (unsigned i = size; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static int store(lua_State *L, size_t off, unsigned size, uint64_t v) {
    uint8_t *p = bytes(L, live(L, 1), off, size, 1);
    for (unsigned i = 0; i < size; i++, v >>= 8) p[i] = (uint8_t)v;
    return done(L);
}

static int unsigned_access(lua_State *L, unsigned size) {
    if (lua_isnoneornil(L, 3)) {
        jl_push_u64(L, load(L, size));
        return 1;
    }
    size_t off = typed(L, size);
    uint64_t v = jl_check_bits(L, 3, 0);
    if (size < 8 && v >> (8 * size)) luaL_argerror(L, 3, "does not fit");
    return store(L, off, size, v);
}

static int buf_u8(lua_State *L) { return unsigned_access(L, 1); }
static int buf_u16(lua_State *L) { return unsigned_access(L, 2); }
static int buf_u32(lua_State *L) { return unsigned_access(L, 4); }
static int buf_u64(lua_State *L) { return unsigned_access(L, 8); }

static int buf_i32(lua_State *L) {
    if (lua_isnoneornil(L, 3)) {
        jl_push_i64(L, (int32_t)(uint32_t)load(L, 4));
        return 1;
    }
    size_t off = typed(L, 4);
    int64_t v = (int64_t)jl_check_bits(L, 3, 1);
    if (v < INT32_MIN || v > INT32_MAX) luaL_argerror(L, 3, "does not fit");
    return store(L, off, 4, (uint64_t)v);
}

static int buf_i64(lua_State *L) {
    if (lua_isnoneornil(L, 3)) {
        jl_push_i64(L, (int64_t)load(L, 8));
        return 1;
    }
    size_t off = typed(L, 8);
    return store(L, off, 8, jl_check_bits(L, 3, 1));
}

static int buf_f64(lua_State *L) {
    uint64_t bits;
    double v;
    if (lua_isnoneornil(L, 3)) {
        bits = load(L, 8);
        memcpy(&v, &bits, 8);
        lua_pushnumber(L, v);
        return 1;
    }
    size_t off = typed(L, 8);
    luaL_checktype(L, 3, LUA_TNUMBER);
    v = lua_tonumber(L, 3);
    memcpy(&bits, &v, 8);
    return store(L, off, 8, bits);
}

/* ---- making --------------------------------------------------------------------------------- */

/* Lua counts a few bytes of a buffer, and would let garbage pile up. As its own collector does it
 * collects whenever what there is has doubled; not where the program has stopped it. */
static void collect(lua_State *L, jl_state *S, uint64_t size) {
    enum { FROM = 256 << 20 };
    uint64_t limit = S->collect_at ? S->collect_at : FROM, there = jdb_buf_bytes();
    if (there < limit && size < limit - there) return;
    if (jl_collects(L)) lua_gc(L, LUA_GCCOLLECT, 0);
    there = jdb_buf_bytes();
    S->collect_at = there < FROM / 2 ? FROM : 2 * there;
}

/* buffer(size [, align]) */
static int buffer(lua_State *L) {
    uint64_t size, align = jdb_page_size();
    luaL_checkany(L, 1);
    const char *wrong = jl_number(L, 1, &size);
    if (!wrong && !lua_isnoneornil(L, 2)) {
        wrong = jl_number(L, 2, &align);
        if (!wrong && (align == 0 || (align & (align - 1)) != 0))
            return jl_fail_kind(L, JDB_ALIGNMENT, "buffer", NULL, "align is not a power of two");
    }
    if (!wrong && size == 0) wrong = "size is 0";
    if (wrong) return jl_fail_kind(L, JDB_OVERFLOW, "buffer", NULL, wrong);
    collect(L, jl_self(L), size);
    jl_buf *b = new_view(L);
    jdb_buf *mem = NULL;
    if (size <= SIZE_MAX && align <= SIZE_MAX) mem = jdb_buf_new((size_t)size, (size_t)align);
    if (!mem) return jl_fail_kind(L, JDB_ALLOC, "buffer", NULL, "out of memory");
    hold(b, mem, (size_t)size);
    b->align = (size_t)align;
    return 1;
}

/* is_buffer(v): for the Lua modules. */
static int is_buffer(lua_State *L) {
    lua_pushboolean(L, jl_test(L, 1, &jl_magic_buf, sizeof(jl_buf)) != NULL);
    return 1;
}

/* buffer_class(): the methods, the metatable, and where jdb_forks() is: for lua/jdbfs/typed.lua. */
static int buffer_class(lua_State *L) {
    jl_push_ref(L, jl_self(L)->ref_buf_meta);
    lua_getfield(L, -1, "__index");
    lua_insert(L, -2);
    lua_pushlightuserdata(L, (void *)(uintptr_t)jdb_forks());
    return 3;
}

int jl_open_buf(lua_State *L) {
    static const luaL_Reg methods[] = {{"string", buf_string},
                                       {"set", buf_set},
                                       {"fill", buf_fill},
                                       {"copy", buf_copy},
                                       {"slice", buf_slice},
                                       {"crc32c", buf_crc32c},
                                       {"align", buf_align},
                                       {"pointer", buf_pointer},
                                       {"free", buf_free},
                                       {"u8", buf_u8},
                                       {"u16", buf_u16},
                                       {"u32", buf_u32},
                                       {"u64", buf_u64},
                                       {"i32", buf_i32},
                                       {"i64", buf_i64},
                                       {"f64", buf_f64},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {
        {"__gc", buf_gc}, {"__len", buf_len}, {"__tostring", buf_tostring}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"buffer", buffer}, {"is_buffer", is_buffer}, {"buffer_class", buffer_class}, {NULL, NULL}};
    jl_self(L)->ref_buf_meta = jl_new_class(L, "jdbfs.buffer", methods, meta);
    jl_register(L, functions);
    return 0;
}
