/* lua_log.c: what of jdbfs.log is done for every record, encoding it into the batch that gathers
 * and waiting there, and for every batch; and decoding a record's header. Policy and recovery are
 * log.lua's.
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

/* The records of one group commit. */
struct batch {
    jdb_buf *mem, *page; /* one reference each: where they are; the log's memory, used again */
    size_t off, room, page_off, page_room; /* in mem; in page */
    size_t used;
    uint64_t count;
    jl_task gate; /* those that joined */
};

/* One gathers while the other is with the device. */
typedef struct jl_batches {
    const void *magic;
    struct batch of[2];
    unsigned gathering;
    uint64_t next;      /* number of the next record */
    jl_task *committer; /* join_batch() may add as long as this one lives. The log keeps it */
    char half[HALF];
    const void *data; /* the record of the one that is about to join, and where it goes */
    size_t len;
    uint8_t *place;
} jl_batches;

const char jl_magic_batches = 0;

/* Compilers make one store of each; of a loop they do not. */
static void put4(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8);
    p[2] = (uint8_t)(v >> 16), p[3] = (uint8_t)(v >> 24);
}

static void put8(uint8_t *p, uint64_t v) {
    put4(p, (uint32_t)v);
    put4(p + 4, (uint32_t)(v >> 32));
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

static jl_batches *check_batches(lua_State *L) {
    jl_batches *b = jl_test(L, 1, &jl_magic_batches, sizeof *b);
    if (!b || !b->of[1].page) luaL_argerror(L, 1, "batches expected");
    return b;
}

static size_t size_of(size_t len) { return (HEADER + len + 7) & ~(size_t)7; }

static int fits(const struct batch *to, size_t len) {
    return len <= record_max && size_of(len) <= to->room - to->used;
}

/* Where a record of that length goes; NULL when it does not fit, or the memory is not ours now:
 * being written, or the parent's of a forked child. */
static uint8_t *place_for(const struct batch *to, size_t len) {
    uint8_t *base = to->mem ? jdb_buf_data(to->mem) : NULL;
    size_t at = to->off + to->used;
    if (!base || !fits(to, len) || !jdb_buf_writable(to->mem, at, size_of(len))) return NULL;
    return base + at;
}

struct bytes {
    const void *data; /* NULL: not to be read now, or no data */
    size_t len;
    const char *kind, *cause; /* then why not now */
};

static struct bytes data_of(lua_State *L, int i) {
    struct bytes s = {NULL, 0, NULL, NULL};
    if (lua_type(L, i) == LUA_TSTRING) {
        s.data = lua_tolstring(L, i, &s.len);
        return s;
    }
    const jl_buf *b = jl_test(L, i, &jl_magic_buf, sizeof *b);
    if (!b) return s;
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
static uint64_t encode(jl_batches *b, uint8_t *p, const void *data, size_t len) {
    struct batch *to = &b->of[b->gathering];
    size_t size = size_of(len);
    memset(p + size - 8, 0, 8); /* the padding, and what is about to be overwritten */
    memmove(p + HEADER, data, len);
    put4(p + 4, (uint32_t)len);
    put8(p + 8, b->next);
    put4(p + 16, (uint32_t)to->count++);
    put4(p + 20, jdb_crc32c(0, p + HEADER, len));
    memcpy(p + 24, b->half, HALF);
    put4(p, jdb_crc32c(0, p + 4, HEADER - 4));
    to->used += size;
    return b->next++;
}

/* The task that appends has yielded. */
static void join(jl_state *S, jl_task *t) {
    jl_batches *b = S->beginning;
    jl_join_gate(S, &b->of[b->gathering].gate, t, encode(b, b->place, b->data, b->len));
}

/* join_batch(log, data): in a task, while the batches of log[1] admit it: waits for the one that
 * gathers, and gives what append returns. false where that is not so: nothing has happened. */
static int join_batch(lua_State *L) {
    jl_state *S = jl_self(L);
    if (lua_type(L, 1) == LUA_TTABLE) {
        lua_rawgeti(L, 1, 1);
        jl_batches *b = jl_test(L, -1, &jl_magic_batches, sizeof *b);
        if (b && b->committer && !jl_ended(b->committer) && jl_in_task(L, S)) {
            struct bytes s = data_of(L, 2);
            b->data = s.data;
            b->len = s.len;
            b->place = s.data ? place_for(&b->of[b->gathering], s.len) : NULL;
            if (b->place) return jl_suspend(L, S, join, b);
        }
    }
    lua_pushboolean(L, 0);
    return 1;
}

/* batches:put(data): the record's number; false when it does not fit; nil, kind, cause when data is
 * a buffer that is freed or in flight. */
static int batches_put(lua_State *L) {
    jl_batches *b = check_batches(L);
    struct batch *to = &b->of[b->gathering];
    struct bytes s = data_of(L, 2);
    if (s.kind) {
        lua_pushnil(L);
        lua_pushstring(L, s.kind);
        lua_pushstring(L, s.cause);
        return 3;
    }
    if (!s.data) luaL_argerror(L, 2, "string or jdbfs buffer expected");
    if (!fits(to, s.len)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    uint8_t *p = place_for(to, s.len);
    if (!p) return luaL_error(L, "the memory of the batch is not ours");
    jl_push_size(L, encode(b, p, s.data, s.len));
    return 1;
}

/* batches:count(): records that gathered. */
static int batches_count(lua_State *L) {
    const jl_batches *b = check_batches(L);
    jl_push_size(L, b->of[b->gathering].count);
    return 1;
}

/* batches:admit([committer]): join_batch() may add while that task lives. The log keeps the task as
 * long as that is so. */
static int batches_admit(lua_State *L) {
    check_batches(L)->committer = jl_live_task(L, 2);
    return 0;
}

static void set_memory(struct batch *to, jdb_buf *mem, size_t off, size_t room) {
    if (to->mem) jdb_buf_unref(to->mem);
    to->mem = jdb_buf_ref(mem);
    to->off = off;
    to->room = room;
}

/* batches:use(buffer): the batch that gathers, still empty, does so there, once. Which it is. */
static int batches_use(lua_State *L) {
    jl_batches *b = check_batches(L);
    const jl_buf *own = jl_check_buf(L, 2);
    struct batch *to = &b->of[b->gathering];
    if (to->count > 0 || !own->mem) return luaL_error(L, "the batch cannot use the buffer");
    set_memory(to, own->mem, own->off, own->len);
    jl_push_size(L, b->gathering + 1);
    return 1;
}

/* batches:take(block): the batch that gathered is padded with zeros to a multiple of that, and the
 * other one gathers. How many records there are, the length, and which it is; 0: none, all is as it
 * was. */
static int batches_take(lua_State *L) {
    jl_batches *b = check_batches(L);
    uint64_t block = integer(L, 2);
    struct batch *from = &b->of[b->gathering];
    uint8_t *base = jdb_buf_data(from->mem);
    size_t pad = block ? (size_t)((block - from->used % block) % block) : 0;
    jl_push_size(L, from->count);
    if (from->count == 0) return 1;
    if (b->of[!b->gathering].count > 0 || !base || pad > from->room - from->used)
        return luaL_error(L, "the batch cannot be taken");
    memset(base + from->off + from->used, 0, pad);
    jl_push_size(L, from->used + pad);
    jl_push_size(L, b->gathering + 1);
    b->gathering = !b->gathering;
    return 3;
}

/* A batch is over, and empty; those who joined go on, with their numbers or the n values on top. */
static void finish(lua_State *L, struct batch *over, int n) {
    jl_open_gate(L, &over->gate, n);
    over->used = over->count = 0;
    if (over->mem != over->page) set_memory(over, over->page, over->page_off, over->page_room);
}

/* batches:open([nil, message, err]): the one that was taken is over. */
static int batches_open(lua_State *L) {
    jl_batches *b = check_batches(L);
    luaL_checkstack(L, 3, "batch");
    finish(L, &b->of[!b->gathering], lua_gettop(L) - 1);
    return 0;
}

/* batches:give_up(next, nil, message, err): the one that gathers is over, the next record has that
 * number. */
static int batches_give_up(lua_State *L) {
    jl_batches *b = check_batches(L);
    uint64_t next = integer(L, 2);
    luaL_checkstack(L, 3, "batch");
    finish(L, &b->of[b->gathering], lua_gettop(L) - 2);
    b->next = next;
    return 0;
}

static int batches_gc(lua_State *L) {
    jl_batches *b = jl_test(L, 1, &jl_magic_batches, sizeof *b);
    for (int i = 0; b && i < 2; i++) {
        jl_drop_gate(&b->of[i].gate);
        if (b->of[i].mem) jdb_buf_unref(b->of[i].mem);
        if (b->of[i].page) jdb_buf_unref(b->of[i].page);
        b->of[i].mem = b->of[i].page = NULL;
    }
    return 0;
}

/* batches(page, page, half, next): both empty; the next record will have that number. */
static int new_batches(lua_State *L) {
    const jl_buf *pages[2] = {jl_check_buf(L, 1), jl_check_buf(L, 2)};
    const char *identity = half(L, 3);
    uint64_t next = integer(L, 4);
    jl_batches *b = jl_new(L, sizeof *b, &jl_magic_batches, jl_self(L)->ref_batches_meta);
    /* Now: making it may have run finalizers. */
    if (!pages[0]->mem || !pages[1]->mem) return luaL_error(L, "a buffer was freed (Closed)");
    for (int i = 0; i < 2; i++) {
        b->of[i].page = jdb_buf_ref(pages[i]->mem);
        b->of[i].page_off = pages[i]->off;
        b->of[i].page_room = pages[i]->len;
        set_memory(&b->of[i], pages[i]->mem, pages[i]->off, pages[i]->len);
    }
    b->next = next;
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
    static const luaL_Reg methods[] = {{"put", batches_put},         {"count", batches_count},
                                       {"admit", batches_admit},     {"use", batches_use},
                                       {"take", batches_take},       {"open", batches_open},
                                       {"give_up", batches_give_up}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", batches_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"batches", new_batches}, {"join_batch", join_batch}, {"record", record}, {NULL, NULL}};
    jl_self(L)->ref_batches_meta = jl_new_class(L, "jdbfs.batches", methods, meta);
    jl_register(L, functions);
    return 0;
}
