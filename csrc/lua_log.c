/* lua_log.c: the record format of jdbfs.log, one call to encode and one to decode a header.
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

/* The identity's half. */
static const char *half(lua_State *L, int i) {
    size_t len;
    luaL_checktype(L, i, LUA_TSTRING);
    const char *s = lua_tolstring(L, i, &len);
    if (len != HALF) luaL_argerror(L, i, "8 bytes expected");
    return s;
}

/* The caller's data; NULL with kind and cause pushed when its buffer may not be read now. */
static const void *data_of(lua_State *L, int i, size_t *len, int *pushed) {
    if (lua_type(L, i) == LUA_TSTRING) return lua_tolstring(L, i, len);
    jl_buf *b = jl_check_buf(L, i);
    const uint8_t *base = b->mem ? jdb_buf_data(b->mem) : NULL;
    *len = b->len;
    if (base && jdb_buf_readable(b->mem, b->off, b->len)) return base + b->off;
    lua_pushnil(L);
    lua_pushstring(L, !b->mem ? "Closed" : !base ? "Forked" : "Busy");
    lua_pushstring(L, !b->mem ? "the buffer was freed"
                      : !base ? "the buffer belongs to the parent process"
                              : "the buffer is in flight");
    *pushed = 3;
    return NULL;
}

/* put_record(buffer, at, data, number, index, half): the bytes it took, a multiple of 8; or nil,
 * kind, cause when data is a buffer that is freed or in flight. Raises when there is no room. */
static int put_record(lua_State *L) {
    int pushed;
    size_t len, at = (size_t)integer(L, 2);
    uint64_t number = integer(L, 4), index = integer(L, 5);
    const char *identity = half(L, 6);
    const void *data = data_of(L, 3, &len, &pushed);
    if (!data) return pushed;
    if (len > record_max) luaL_argerror(L, 3, "a record is 1 GiB at most");
    size_t size = (HEADER + len + 7) & ~(size_t)7;
    uint8_t *p = jl_buf_bytes(L, 1, at, size, 1);
    memmove(p + HEADER, data, len);
    memset(p + HEADER + len, 0, size - HEADER - len);
    put(p + 4, 4, len);
    put(p + 8, 8, number);
    put(p + 16, 4, index);
    put(p + 20, 4, jdb_crc32c(0, p + HEADER, len));
    memcpy(p + 24, identity, HALF);
    put(p, 4, jdb_crc32c(0, p + 4, HEADER - 4));
    jl_push_size(L, size);
    return 1;
}

/* get_record(buffer, at, half): number, place in its batch, length of the data and its CRC as the
 * header tells them; nothing when there is no header of this log. */
static int get_record(lua_State *L) {
    size_t at = (size_t)integer(L, 2);
    const char *identity = half(L, 3);
    const uint8_t *p = jl_buf_bytes(L, 1, at, HEADER, 0);
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
    static const luaL_Reg functions[] = {
        {"put_record", put_record}, {"get_record", get_record}, {NULL, NULL}};
    jl_register(L, functions);
    return 0;
}
