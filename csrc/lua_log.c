/* lua_log.c: what of jdbfs.log is done for every record, encoding it into the batch that gathers
 * and waiting there, and for every batch, taking, writing and acknowledging it; and decoding a
 * record's header. Policy and recovery are log.lua's.
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
    uint8_t *base;       /* off in mem, ... */
    const uint32_t *in_flight;             /* ... and jdb_buf_gate of it */
    size_t off, room, page_off, page_room; /* in mem; in page */
    size_t used;
    uint64_t count;
    jl_task gate; /* those that joined */
};

/* One gathers while the other is with the device. */
typedef struct jl_batches {
    const void *magic;
    jl_state *state;
    struct batch of[2];
    unsigned gathering;
    uint64_t next;      /* number of the next record */
    jl_task *committer; /* join_batch() may add as long as this one lives. The log keeps it */
    const void *log;    /* its table: only compared */
    char half[HALF];
    const void *data; /* the record of the one that is about to join, and where it goes */
    size_t len;
    uint8_t *place;
    uint64_t last, commits, bytes; /* the last durable record; what was written so far */
    uint64_t tail, size, block;    /* where the next batch goes; of the segment; of its blocks */
    /* Batches are written from here, one after the other, while the committer waits at the
     * driver's gate. */
    jl_driver *driver;
    jdb_file *file; /* one reference; where it last wrote */
    uint64_t pause; /* no batch begins there or behind without the committer */
    jdb_op *failed; /* the write that did, until the committer has heard of it */
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
static inline uint8_t *place_for(const struct batch *to, size_t len) {
    if (!to->mem || to->in_flight[0] != 0 || to->in_flight[1] != *jdb_forks()) return NULL;
    return fits(to, len) ? to->base + to->used : NULL;
}

struct bytes {
    const void *data; /* NULL: not to be read now, or no data */
    size_t len;
    const char *kind, *cause; /* then why not now */
};

static struct bytes buffer_of(lua_State *L, int i) {
    struct bytes s = {NULL, 0, NULL, NULL};
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

static struct bytes data_of(lua_State *L, int i) {
    struct bytes s = {NULL, 0, NULL, NULL};
    if (lua_type(L, i) != LUA_TSTRING) return buffer_of(L, i);
    s.data = lua_tolstring(L, i, &s.len);
    return s;
}

/* Apart, so that strings save no registers for it. */
__attribute__((noinline)) static void take_buffer(lua_State *L, int i, jl_batches *b) {
    struct bytes s = buffer_of(L, i);
    b->data = s.data;
    b->len = s.len;
}

/* Appends a record at its place; its number. */
static inline uint64_t encode(jl_batches *b, uint8_t *p, const void *data, size_t len) {
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

/* Suspends the task that calls, to join the batch that gathers with the data at 2. 0: it cannot,
 * and nothing has happened. */
static inline int join_now(lua_State *L, jl_state *S, jl_batches *b) {
    if (!b->committer || jl_ended(b->committer) || !jl_in_task(L, S)) return 0;
    if (lua_type(L, 2) == LUA_TSTRING) b->data = lua_tolstring(L, 2, &b->len);
    else take_buffer(L, 2, b);
    b->place = b->data ? place_for(&b->of[b->gathering], b->len) : NULL;
    return b->place ? jl_suspend(L, S, join, b) : 0;
}

/* join_batch(log, data): in a task, while the batches of log[1] admit it: waits for the one that
 * gathers, and gives what append returns. false where that is not so: nothing has happened. */
static int join_batch(lua_State *L) {
    if (lua_type(L, 1) == LUA_TTABLE) {
        lua_rawgeti(L, 1, 1);
        jl_batches *b = jl_test(L, -1, &jl_magic_batches, sizeof *b);
        int yielded = b ? join_now(L, b->state, b) : 0;
        if (yielded) return yielded;
    }
    lua_pushboolean(L, 0);
    return 1;
}

/* append(log, data): joins the batch, or is the Lua function, or, where that could not wait in it,
 * gives false. Upvalues: the state, false, the batches, the function. */
static int append(lua_State *L) {
    jl_batches *b = lua_touserdata(L, lua_upvalueindex(3));
    if (lua_topointer(L, 1) == b->log) { /* which lives as long as its committer */
        int yielded = join_now(L, b->state, b);
        if (yielded) return yielded;
    }
    if (!JL_CALLEES_CAN_YIELD) {
        lua_pushboolean(L, 0);
        return 1;
    }
    lua_pushvalue(L, lua_upvalueindex(4));
    lua_insert(L, 1);
    return jl_end_with_call(L);
}

/* batches:appender(log, f): append of that log as a C function, with f for all that joining is not
 * enough for, and whether it calls f: otherwise it gives false. */
static int batches_appender(lua_State *L) {
    jl_batches *b = check_batches(L);
    b->log = lua_topointer(L, 2);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushboolean(L, 0); /* not hosted */
    lua_pushvalue(L, 1);
    lua_pushvalue(L, 3);
    lua_pushcclosure(L, append, 4);
    lua_pushboolean(L, JL_CALLEES_CAN_YIELD);
    return 2;
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

/* batches:admit(committer or nil, pause): join_batch() may add while that task lives. The log keeps
 * the task as long as that is so. From that offset on the committer is asked. */
static int batches_admit(lua_State *L) {
    jl_batches *b = check_batches(L);
    b->pause = integer(L, 3);
    b->committer = jl_live_task(L, 2);
    return 0;
}

/* batches:segment(tail, size, block): where batches go from now on. */
static int batches_segment(lua_State *L) {
    jl_batches *b = check_batches(L);
    uint64_t tail = integer(L, 2), size = integer(L, 3), block = integer(L, 4);
    if (block == 0) luaL_argerror(L, 4, "a block is not empty");
    b->tail = tail;
    b->size = size;
    b->block = block;
    return 0;
}

/* batches:position(): the last durable record's number, the segment's tail, batches and bytes that
 * were written, and the last number that is with the device. */
static int batches_position(lua_State *L) {
    const jl_batches *b = check_batches(L);
    jl_push_size(L, b->last);
    jl_push_size(L, b->tail);
    jl_push_size(L, b->commits);
    jl_push_size(L, b->bytes);
    jl_push_size(L, b->last + b->of[!b->gathering].count);
    return 5;
}

static void set_memory(struct batch *to, jdb_buf *mem, size_t off, size_t room) {
    if (to->mem) jdb_buf_unref(to->mem);
    uint8_t *base = jdb_buf_data(mem);
    to->mem = jdb_buf_ref(mem);
    to->base = base ? base + off : NULL; /* then the gate is closed, too */
    to->in_flight = jdb_buf_gate(mem);
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

/* The zeros behind what gathered, up to the block's end. */
static size_t padding(const jl_batches *b) {
    uint64_t rest = b->of[b->gathering].used % b->block;
    return rest ? (size_t)(b->block - rest) : 0;
}

/* The batch that gathered is padded, and the other one gathers. 0: it cannot be. */
static int take(jl_batches *b) {
    struct batch *from = &b->of[b->gathering];
    uint8_t *base = jdb_buf_data(from->mem);
    size_t pad = padding(b);
    if (b->of[!b->gathering].count > 0 || !base || pad > from->room - from->used) return 0;
    memset(base + from->off + from->used, 0, pad);
    from->used += pad;
    b->gathering = !b->gathering;
    return 1;
}

/* batches:take(): how many records it has, the length, and which it is; 0: none, all is as it
 * was. */
static int batches_take(lua_State *L) {
    jl_batches *b = check_batches(L);
    const struct batch *from = &b->of[b->gathering];
    jl_push_size(L, from->count);
    if (from->count == 0) return 1;
    if (!take(b)) return luaL_error(L, "the batch cannot be taken");
    jl_push_size(L, from->used);
    jl_push_size(L, (uint64_t)(from - b->of) + 1);
    return 3;
}

/* A batch is over, and empty. */
static void empty(struct batch *over) {
    over->used = over->count = 0;
    if (over->mem != over->page) set_memory(over, over->page, over->page_off, over->page_room);
}

/* The one that was taken is durable. */
static void account(jl_batches *b) {
    const struct batch *over = &b->of[!b->gathering];
    b->last += over->count;
    b->tail += over->used;
    b->bytes += over->used;
    b->commits++;
}

/* batches:open([nil, message, err]): the one that was taken is over; those who joined go on, with
 * their numbers or these values. */
static int batches_open(lua_State *L) {
    jl_batches *b = check_batches(L);
    struct batch *over = &b->of[!b->gathering];
    luaL_checkstack(L, 3, "batch");
    int n = lua_gettop(L) - 1;
    if (n == 0) account(b);
    jl_open_gate(L, &over->gate, n);
    empty(over);
    return 0;
}

/* batches:give_up(nil, message, err): the one that gathers is over, numbers go on behind what is
 * durable. */
static int batches_give_up(lua_State *L) {
    jl_batches *b = check_batches(L);
    luaL_checkstack(L, 3, "batch");
    jl_open_gate(L, &b->of[b->gathering].gate, lua_gettop(L) - 1);
    empty(&b->of[b->gathering]);
    b->next = b->last + 1;
    return 0;
}

/* ---- batches that need no Lua ---------------------------------------------------------------- */

/* Whether the batch that gathered is one of the many: in the log's own memory, with room in the
 * segment, and nobody stands in line. */
static int is_plain(const jl_batches *b) {
    const struct batch *from = &b->of[b->gathering];
    return b->committer && from->count > 0 && from->mem == from->page && b->tail < b->pause &&
           b->tail + from->used + padding(b) <= b->size;
}

/* Takes the batch and submits its write. 0: that is for the committer. */
static int write_plain(jl_state *S, jl_batches *b) {
    jdb_kind kind;
    const struct batch *from = &b->of[b->gathering];
    if (!is_plain(b) || jdb_file_queue(b->file) != S->queue) return 0;
    jdb_op *op = jdb_op_take(S->queue, &kind);
    if (!op) return 0;
    jdb_prep_write(op, b->file, from->page, from->page_off, from->used + padding(b), b->tail,
                   JDB_WRITE_DSYNC);
    if (jdb_op_check(op) != JDB_OK || !take(b)) {
        jdb_op_release(S->queue, op);
        return 0;
    }
    jl_drive(S, b->driver, op);
    return 1;
}

/* Appenders that were just answered run before the next batch is taken, so that all of them share
 * it: hence the turn in between. */
static void advance(jl_state *S, jl_driver *d, jdb_op *op) {
    jl_batches *b = d->owner;
    struct batch *over = &b->of[!b->gathering];
    int durable = op && jdb_op_kind(op) == JDB_OK;
    if (op && (durable || !d->task.joiners)) jdb_op_release(S->queue, op);
    if (!d->task.joiners) return; /* the committer was ended: what is on disk is unknown */
    if (durable) {
        account(b);
        jl_wake_gate(S, &over->gate);
        empty(over);
        jl_drive(S, d, NULL);
    } else if (op || !write_plain(S, b)) {
        b->failed = op;
        jl_wake_gate(S, &d->task);
    }
}

/* The committer has yielded. */
static void begin_writing(jl_state *S, jl_task *t) {
    jl_batches *b = S->beginning;
    jl_join_gate(S, &b->driver->task, t, 0);
    if (!write_plain(S, b)) jl_wake_gate(S, &b->driver->task);
}

/* batches:write(file): in the committer: writes the batch that gathered, and those that gather
 * meanwhile, until one is not for here. Then 0; false at once where the first is not. */
static int batches_write(lua_State *L) {
    jl_batches *b = check_batches(L);
    jl_state *S = jl_self(L);
    const jl_file *f = jl_test(L, 2, &jl_magic_file, sizeof *f);
    if (!f || !is_plain(b) || b->driver->task.joiners || !jl_in_task(L, S)) {
        lua_pushboolean(L, 0);
        return 1;
    }
    if (b->file) jdb_file_unref(b->file);
    b->file = jdb_file_ref(f->file);
    return jl_suspend(L, S, begin_writing, b);
}

/* batches:failure(): nil, message, err of the write that ended write(); nothing: none did. */
static int batches_failure(lua_State *L) {
    jl_batches *b = check_batches(L);
    jdb_op *op = b->failed;
    if (!op) return 0;
    int n = jl_push_result(L, op);
    b->failed = NULL;
    jdb_op_release(jdb_file_queue(b->file), op);
    return n;
}

static int batches_gc(lua_State *L) {
    jl_batches *b = jl_test(L, 1, &jl_magic_batches, sizeof *b);
    if (!b) return 0;
    if (b->driver) jl_drop_driver(jl_self(L), b->driver);
    if (b->failed) jdb_op_release(jdb_file_queue(b->file), b->failed);
    if (b->file) jdb_file_unref(b->file);
    b->driver = NULL;
    b->failed = NULL;
    b->file = NULL;
    for (int i = 0; i < 2; i++) {
        jl_drop_gate(&b->of[i].gate);
        if (b->of[i].mem) jdb_buf_unref(b->of[i].mem);
        if (b->of[i].page) jdb_buf_unref(b->of[i].page);
        b->of[i].mem = b->of[i].page = NULL;
    }
    return 0;
}

/* batches(page, page, half, next): both empty; the next record will have that number. Nothing: no
 * memory. */
static int new_batches(lua_State *L) {
    const jl_buf *pages[2] = {jl_check_buf(L, 1), jl_check_buf(L, 2)};
    const char *identity = half(L, 3);
    uint64_t next = integer(L, 4);
    jl_batches *b = jl_new(L, sizeof *b, &jl_magic_batches, jl_self(L)->ref_batches_meta);
    /* Now: making it may have run finalizers. */
    if (!pages[0]->mem || !pages[1]->mem) return luaL_error(L, "a buffer was freed (Closed)");
    b->state = jl_self(L);
    b->driver = jl_new_driver(b, advance);
    if (!b->driver) return 0;
    for (int i = 0; i < 2; i++) {
        b->of[i].page = jdb_buf_ref(pages[i]->mem);
        b->of[i].page_off = pages[i]->off;
        b->of[i].page_room = pages[i]->len;
        set_memory(&b->of[i], pages[i]->mem, pages[i]->off, pages[i]->len);
    }
    b->next = next;
    b->last = next - 1;
    b->block = 1;
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
    static const luaL_Reg methods[] = {{"put", batches_put},
                                       {"count", batches_count},
                                       {"admit", batches_admit},
                                       {"use", batches_use},
                                       {"take", batches_take},
                                       {"open", batches_open},
                                       {"give_up", batches_give_up},
                                       {"segment", batches_segment},
                                       {"write", batches_write},
                                       {"failure", batches_failure},
                                       {"position", batches_position},
                                       {"appender", batches_appender},
                                       {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__gc", batches_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {
        {"batches", new_batches}, {"join_batch", join_batch}, {"record", record}, {NULL, NULL}};
    jl_self(L)->ref_batches_meta = jl_new_class(L, "jdbfs.batches", methods, meta);
    jl_register(L, functions);
    return 0;
}
