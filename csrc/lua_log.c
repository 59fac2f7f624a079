/* lua_log.c: what of jdbfs.log is done for every record: encoding it into the batch that gathers
 * and waiting there, and decoding its header. Policy and recovery are log.lua's.
 *
 *   0 u32 CRC of 4..31   4 u32 length   8 u64 number   16 u32 place in its batch, from 0
 *   20 u32 CRC of the data   24 first half of the log's identity   32 the data, zeros up to 8
 *
 * Little-endian. A record starts on a multiple of 8. The header has a CRC of its own, which covers
 * the data's: a length is believed before the data is read. */
#include <string.h>

#include "lua_jdb.h"

enum { HEADER = 32, HALF = 8 };

static const uint64_t record_max = 1 << 30;
static const uint64_t numbers_end = (uint64_t)1 << 53; /* every Lua holds these exactly */

/* The records of one group commit, in memory of the log's. */
typedef struct jl_batch {
    const void *magic;
    jdb_buf *mem; /* one reference */
    size_t off, room, used;
    uint64_t first, count; /* numbers of its records */
    jl_task *committer;    /* join() may add to it, as long as this one lives. The log keeps it */
    char half[HALF];
    jl_task gate;     /* those that joined */
    const void *next; /* the record of the one that is about to join, and where it goes */
    size_t next_len;
    uint8_t *next_place;
} jl_batch;

const char jl_magic_batch = 0;

static void put(uint8_t *p, unsigned size, uint64_t v) {
    for (unsigned i = 0; i < size; i++, v >>= 8) p[i] = (uint8_t)v;
}

static uint64_t get(const uint8_t *p, unsigned size) {
    uint64_t v = 0;
    for (unsigned i = size; i-- > 0;) v = v << 8 | p[i];
    return v;
}

static uint64_t integer(lua_State *L, int i) {
    uint64_t n;
    luaL_checktype(L, i, LUA_TNUMBER);
    const char *wrong = jl_number(L, i, &n);
    if (wrong) luaL_argerror(L, i, wrong);
    return n;
}

/* The first half of an identity. */
static const char *half(lua_State *L, int i) {
    size_t len;
    luaL_checktype(L, i, LUA_TSTRING);
    const char *s = lua_tolstring(L, i, &len);
    if (len != HALF) luaL_argerror(L, i, "8 bytes expected");
    return s;
}

static jl_batch *check_batch(lua_State *L) {
    jl_batch *b = jl_test(L, 1, &jl_magic_batch, sizeof *b);
    if (!b) luaL_argerror(L, 1, "batch expected");
    return b;
}

static size_t size_of(size_t len) { return (HEADER + len + 7) & ~(size_t)7; }

static int fits(const jl_batch *b, size_t len) {
    return len <= record_max && size_of(len) <= b->room - b->used;
}

/* Where a record of that length goes; NULL when it does not fit, or the memory is not ours now:
 * being written, given up, or the parent's of a forked child. */
static uint8_t *place_for(const jl_batch *b, size_t len) {
    if (!b->mem || !jdb_buf_data(b->mem) || !fits(b, len)) return NULL;
    size_t at = b->off + b->used;
    if (!jdb_buf_writable(b->mem, at, size_of(len))) return NULL;
    return (uint8_t *)jdb_buf_data(b->mem) + at;
}

struct bytes {
    const void *data; /* NULL: not to be read now */
    size_t len;
    const char *kind, *cause; /* then why */
};

static struct bytes data_of(lua_State *L, int i) {
    struct bytes s = {NULL, 0, NULL, NULL};
    if (lua_type(L, i) == LUA_TSTRING) {
        s.data = lua_tolstring(L, i, &s.len);
        return s;
    }
    const jl_buf *b = jl_check_buf(L, i);
    const uint8_t *base = b->mem ? jdb_buf_data(b->mem) : NULL;
    s.len = b->len;
    if (!b->mem) s.kind = "Closed", s.cause = "the buffer was freed";
    else if (!base) s.kind = "Forked", s.cause = "the buffer belongs to the parent process";
    else if (!jdb_buf_readable(b->mem, b->off, b->len))
        s.kind = "Busy", s.cause = "the buffer is in flight";
    else s.data = base + b->off;
    return s;
}

/* Appends a record at its place; its number. */
static uint64_t encode(jl_batch *b, uint8_t *p, const void *data, size_t len) {
    size_t size = size_of(len);
    uint64_t number = b->first + b->count;
    memmove(p + HEADER, data, len);
    memset(p + HEADER + len, 0, size - HEADER - len);
    put(p + 4, 4, len);
    put(p + 8, 8, number);
    put(p + 16, 4, b->count++);
    put(p + 20, 4, jdb_crc32c(0, p + HEADER, len));
    memcpy(p + 24, b->half, HALF);
    put(p, 4, jdb_crc32c(0, p + 4, HEADER - 4));
    b->used += size;
    return number;
}

/* The task that appends has yielded. */
static void join(jl_state *S, jl_task *t) {
    jl_batch *b = S->beginning;
    jl_join_gate(S, &b->gate, t, encode(b, b->next_place, b->next, b->next_len));
}

/* join(log, data): in a task, while a batch gathers (log[1]): waits for it, and gives what append
 * returns. false where that is not so: nothing has happened. */
static int log_join(lua_State *L) {
    jl_state *S = jl_self(L);
    lua_settop(L, 2);
    if (lua_type(L, 1) == LUA_TTABLE) {
        lua_rawgeti(L, 1, 1);
        jl_batch *b = jl_test(L, 3, &jl_magic_batch, sizeof *b);
        int known = lua_type(L, 2) == LUA_TSTRING || jl_test(L, 2, &jl_magic_buf, sizeof(jl_buf));
        if (b && known && b->committer && !jl_ended(b->committer) && jl_in_task(L, S)) {
            struct bytes s = data_of(L, 2);
            b->next = s.data;
            b->next_len = s.len;
            b->next_place = s.data ? place_for(b, s.len) : NULL;
            if (b->next_place) return jl_suspend(L, join, b);
        }
    }
    lua_pushboolean(L, 0);
    return 1;
}

/* batch:put(data): the record's number; or nil, kind, cause when data is a buffer that is freed or
 * in flight. Raises when it does not fit. */
static int batch_put(lua_State *L) {
    jl_batch *b = check_batch(L);
    struct bytes s = data_of(L, 2);
    uint8_t *p = place_for(b, s.len);
    if (!s.data) {
        lua_pushnil(L);
        lua_pushstring(L, s.kind);
        lua_pushstring(L, s.cause);
        return 3;
    }
    if (!p) return luaL_error(L, "the batch has no room");
    jl_push_size(L, encode(b, p, s.data, s.len));
    return 1;
}

/* batch:fits(length) */
static int batch_fits(lua_State *L) {
    const jl_batch *b = check_batch(L);
    uint64_t len = integer(L, 2);
    lua_pushboolean(L, len <= record_max && fits(b, (size_t)len));
    return 1;
}

/* batch:gather([committer]): join() may add to it while that task lives. The log keeps the task as
 * long as the batch gathers. */
static int batch_gather(lua_State *L) {
    check_batch(L)->committer = jl_live_task(L, 2);
    return 0;
}

/* batch:range(): number of its first record, how many there are, bytes used. */
static int batch_range(lua_State *L) {
    const jl_batch *b = check_batch(L);
    jl_push_size(L, b->first);
    jl_push_size(L, b->count);
    jl_push_size(L, b->used);
    return 3;
}

static void give_up(jl_batch *b) {
    if (b->mem) jdb_buf_unref(b->mem);
    b->mem = NULL;
    b->committer = NULL;
}

/* batch:open([nil, message, err]): it is over; those who joined go on, with their numbers or these
 * values. */
static int batch_open(lua_State *L) {
    jl_batch *b = check_batch(L);
    give_up(b);
    luaL_checkstack(L, 3, "batch");
    jl_open_gate(L, &b->gate, lua_gettop(L) - 1);
    return 0;
}

static int batch_gc(lua_State *L) {
    jl_batch *b = jl_test(L, 1, &jl_magic_batch, sizeof *b);
    if (!b) return 0;
    jl_drop_gate(&b->gate);
    give_up(b);
    return 0;
}

/* batch(buffer, half, first): an empty one whose first record will have that number. */
static int new_batch(lua_State *L) {
    const jl_buf *page = jl_check_buf(L, 1);
    const char *identity = half(L, 2);
    uint64_t first = integer(L, 3);
    if (!page->mem) return luaL_error(L, "the buffer was freed (Closed)");
    jl_batch *b = jl_new(L, sizeof *b, &jl_magic_batch, jl_self(L)->ref_batch_meta);
    b->mem = jdb_buf_ref(page->mem);
    b->off = page->off;
    b->room = page->len;
    b->first = first;
    memcpy(b->half, identity, HALF);
    return 1;
}

/* record(buffer, at, half): number, place in its batch, length of the data and its CRC as the
 * header there tells them; nothing when it is no header of this log. */
static int record(lua_State *L) {
    size_t at = (size_t)integer(L, 2);
    const char *identity = half(L, 3);
    const uint8_t *p = jl_buf_bytes(L, 1, at, HEADER);
    uint64_t len = get(p + 4, 4), number = get(p + 8, 8);
    if (len > record_max || number >= numbers_end || memcmp(p + 24, identity, HALF) != 0) return 0;
    if (get(p, 4) != jdb_crc32c(0, p + 4, HEADER - 4)) return 0;
    jl_push_size(L, number);
    jl_push_size(L, get(p + 16, 4));
    jl_push_size(L, len);
    jl_push_size(L, get(p + 20, 4));
    return 4;
}

int jl_open_log(lua_State *L) {
    static const luaL_Reg methods[] = {{"put", batch_put},       {"fits", batch_fits},
                                       {"gather", batch_gather}, {"open", batch_open},
                                       {"range", batch_range},   {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", batch_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"batch", new_batch}, {"join_batch", log_join}, {"record", record}, {NULL, NULL}};
    jl_self(L)->ref_batch_meta = jl_new_class(L, "jdbfs.batch", methods, meta);
    jl_register(L, functions);
    return 0;
}
