/* luaoom SCRIPT [ARG...]: runs a Lua script in a state whose allocations can be made to fail:
 *   oom(n, for_ever, f)   calls f; its nth allocation fails, and every later one when asked to.
 * Gives pcall's results behind the number of allocations that failed.
 *
 * A refused allocation is refused twice: Lua 5.2 and later collect and ask again, and a refusal
 * that Lua does not notice tests nothing. Built by the specs for each Lua. */
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    unsigned long at, seen, failed;
    int armed, for_ever;
} oom;

static int refuses(void) {
    if (!oom.armed) return 0;
    oom.seen++;
    if (oom.seen < oom.at || (!oom.for_ever && oom.seen > oom.at + 1)) return 0;
    oom.failed++;
    return 1;
}

/* Lua counts on it that making a block smaller succeeds. */
static void *allocate(void *unused, void *old, size_t old_size, size_t size) {
    (void)unused;
    if (size == 0) {
        free(old);
        return NULL;
    }
    int grows = !old || size > old_size;
    return grows && refuses() ? NULL : realloc(old, size);
}

/* Nothing but f runs while allocations fail. */
static int call(lua_State *L) {
    oom.at = (unsigned long)luaL_checknumber(L, 1);
    oom.for_ever = lua_toboolean(L, 2);
    luaL_checktype(L, 3, LUA_TFUNCTION);
    luaL_checkstack(L, 8, "oom");
    lua_settop(L, 3);
    oom.seen = oom.failed = 0;
    oom.armed = 1;
    int status = lua_pcall(L, 0, 1, 0);
    oom.armed = 0;
    lua_pushnumber(L, (lua_Number)oom.failed);
    lua_pushboolean(L, status == 0);
    lua_pushvalue(L, 3);
    return 3;
}

static int panic(lua_State *L) {
    fprintf(stderr, "luaoom: unprotected: %s\n", lua_tostring(L, -1));
    return 0;
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    lua_State *L = lua_newstate(allocate, NULL);
    if (!L) {
        fprintf(stderr, "luaoom: this Lua takes no allocator\n");
        return 77;
    }
    lua_atpanic(L, panic);
    luaL_openlibs(L);
    lua_register(L, "oom", call);
    lua_newtable(L);
    for (int i = 1; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - 1);
    }
    lua_setglobal(L, "arg");
    int failed = luaL_loadfile(L, argv[1]) || lua_pcall(L, 0, 0, 0);
    if (failed) {
        const char *text = lua_tostring(L, -1);
        fprintf(stderr, "luaoom: %s\n", text ? text : "(an error that is no string)");
    }
    lua_close(L);
    return failed ? 1 : 0;
}
