/* calls.c: the input chooses a sequence of calls, in and out of tasks, with buffers that are
 * sliced, freed and collected, on two files; three bytes and more for each call. The state is
 * closed at the end with whatever is still in flight. */
#include "fuzz.h"

enum { SLOTS = 8, CALLS_MAX = 200 };

/* The objects live in the table at index 1: 1..SLOTS buffers, then files, then tasks. */
static void set_up(lua_State *L) {
    fuzz_must(L,
              "local jdbfs = require 'jdbfs'\n"
              "jdbfs.setup{ backend = backend, depth = 8, workers = 2 }\n"
              "fuzz = { jdbfs = jdbfs }\n"
              "for i = 1, 8 do fuzz[i] = jdbfs.buffer(4096 * i) end\n"
              "fuzz[9] = assert(jdbfs.create('f1', { direct = 'prefer' }))\n"
              "fuzz[10] = assert(jdbfs.create('f2', { direct = 'off' }))\n"
              "fuzz[11] = assert(jdbfs.spawn(function() return 1 end))\n"
              "fuzz[12] = assert(jdbfs.spawn(jdbfs.sleep, 0.0001))\n"
              "fuzz[13] = jdbfs.event() fuzz[14] = jdbfs.queue(1) fuzz[15] = jdbfs.semaphore(1)\n"
              "fuzz[16] = assert(jdbfs.pool(2, 4096))\n");
}

static void push_number(lua_State *L, struct fuzz_input *in) {
    static const double odd[] = {-1,      0.5,    4095,  9007199254740992.0, 9.3e18,
                                 1.9e19,  -1e300, 1e300, 4294967295.0,       4294967296.0,
                                 65536.0, 512,    511,   2147483648.0,       9223372036854771712.0,
                                 0};
    unsigned b = fuzz_byte(in);
    if (b < 64) lua_pushinteger(L, (lua_Integer)b * 512);
    else if (b < 128) lua_pushinteger(L, b - 64);
    else if (b < 144) lua_pushnumber(L, odd[b - 128]);
    else if (b == 144) lua_pushinteger(L, INT64_MAX);
    else if (b == 145) lua_pushinteger(L, INT64_MIN);
    else if (b == 146) lua_pushinteger(L, INT64_MAX - 4095);
    else lua_pushinteger(L, (lua_Integer)(b - 147) * 4096);
}

static void push_value(lua_State *L, struct fuzz_input *in, int depth) {
    static const char *const words[] = {"",     "dsync", "atomic", "size", "zero",   "keep_size",
                                        "gone", "f1",    "f2",     "d/e",  "shared", "exclusive"};
    unsigned b = fuzz_byte(in);
    switch (b % 8) {
    case 0:
    case 1:
    case 2: push_number(L, in); return;
    case 3: lua_rawgeti(L, 1, 1 + (b >> 3) % SLOTS); return;
    case 4: lua_rawgeti(L, 1, 9 + (b >> 3) % 8); return;
    case 5: lua_pushstring(L, words[(b >> 3) % 12]); return;
    case 6:
        lua_newtable(L);
        for (unsigned i = 1; depth < 2 && i <= (b >> 3) % 5; i++) {
            push_value(L, in, depth + 1);
            lua_rawseti(L, -2, (int)i);
        }
        return;
    default:
        if (b & 8) lua_pushnil(L);
        else lua_pushboolean(L, b & 16);
    }
}

/* The name of one of the methods, or functions, of the object at the index; NULL: it has none. */
static const char *method_of(lua_State *L, int index, unsigned choice) {
    static const char *const of_module[] = {
        "buffer", "exists", "stat",   "size",   "remove", "mkdir",        "rename",
        "ls",     "open",   "create", "stats",  "space",  "atomic_write", "open_rw",
        "flush",  "yield",  "reader", "writer", "now",    "probe",        "sync_dir"};
    static const char *const of_buffer[] = {"string", "set", "fill",   "copy",  "slice",
                                            "u8",     "u16", "u32",    "u64",   "i32",
                                            "i64",    "f64", "crc32c", "align", "free"};
    static const char *const of_file[] = {
        "read_at",     "read_upto", "read", "write_at", "read_many", "write_many",
        "size",        "stat",      "info", "sync_all", "sync_data", "truncate",
        "preallocate", "punch",     "lock", "unlock",   "path",      "close"};
    static const char *const of_rest[] = {"cancel", "status", "join", "set",  "wait",    "clear",
                                          "put",    "take",   "get",  "size", "acquire", "release"};
#define PICK(list) list[choice % (sizeof list / sizeof *list)]
    if (index == 0) return PICK(of_module);
    if (index <= SLOTS) return PICK(of_buffer);
    if (index <= 10) return PICK(of_file);
    return PICK(of_rest);
}

/* Lengths that only cost time and space. */
static void tame(lua_State *L, const char *name, int first) {
    int big = strcmp(name, "truncate") == 0 || strcmp(name, "preallocate") == 0 ||
              strcmp(name, "read") == 0 || strcmp(name, "buffer") == 0;
    for (int i = first; big && i <= lua_gettop(L); i++)
        if (lua_type(L, i) == LUA_TNUMBER && lua_tonumber(L, i) > 1e6 &&
            lua_tonumber(L, i) < 1e16) {
            lua_pushinteger(L, 65536);
            lua_replace(L, i);
        }
}

/* Whatever a call returns: a value, or nil, a string and an error object. */
static void check_results(lua_State *L, int first) {
    int n = lua_gettop(L) - first + 1;
    if (n < 2 || !lua_isnil(L, first) || lua_isnil(L, first + 1)) return;
    if (n != 3 || lua_type(L, first + 1) != LUA_TSTRING || !lua_istable(L, first + 2))
        fuzz_fail("neither a result nor a failure");
    lua_getfield(L, first + 2, "kind");
    if (lua_type(L, -1) != LUA_TSTRING) fuzz_fail("an error without a kind");
}

static void one_call(lua_State *L, struct fuzz_input *in) {
    unsigned what = fuzz_byte(in), choice = fuzz_byte(in);
    int index = (int)(what % 17), in_task = what >= 204;
    int top = lua_gettop(L);
    if (what >= 170 && what < 178) {
        lua_gc(L, what & 1 ? LUA_GCCOLLECT : LUA_GCSTEP, 10);
        return;
    }
    lua_getfield(L, 1, "jdbfs");
    if (in_task) lua_getfield(L, -1, "spawn");
    if (index > 0) lua_rawgeti(L, 1, index);
    else lua_pushvalue(L, top + 1);
    const char *name = method_of(L, index, choice);
    luaL_checkstack(L, 20, "call");
    lua_getfield(L, -1, name); /* nil for a method of another class: calling it raises */
    lua_insert(L, -2);
    if (index == 0) lua_pop(L, 1);
    int arguments = (int)(choice >> 5) % 6;
    for (int i = 0; i < arguments; i++) push_value(L, in, 0);
    tame(L, name, top + 2);
    int count = lua_gettop(L) - top - 2;
    if (lua_pcall(L, count, LUA_MULTRET, 0) == LUA_OK) {
        if (!in_task) check_results(L, top + 2);
        /* What was made takes the place of an older object. */
        int kind = lua_type(L, top + 2);
        if (kind == LUA_TUSERDATA) {
            lua_pushvalue(L, top + 2);
            int buffer = strcmp(name, "slice") == 0 || strcmp(name, "buffer") == 0;
            lua_rawseti(L, 1, buffer && !in_task ? 1 + (int)(choice % SLOTS) : in_task ? 12 : 10);
        }
    } else if (lua_type(L, -1) != LUA_TSTRING) {
        fuzz_fail("an error that is no string");
    }
    lua_settop(L, top);
}

static void run_some(lua_State *L) {
    lua_getfield(L, 1, "jdbfs");
    lua_getfield(L, -1, "step");
    lua_pushnumber(L, 0);
    if (lua_pcall(L, 1, 0, 0) != LUA_OK) lua_pop(L, 1);
    lua_settop(L, 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {data, size};
    lua_State *L = fuzz_state();
    unsigned mode = fuzz_byte(&in);
    lua_pushstring(L, mode & 3 ? "threads" : "auto");
    lua_setglobal(L, "backend");
    set_up(L);
    lua_getglobal(L, "fuzz");
    for (int i = 0; i < CALLS_MAX && in.size > 0; i++) {
        one_call(L, &in);
        if (i % 8 == 7) run_some(L);
    }
    lua_close(L);
    return 0;
}
