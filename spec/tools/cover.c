/* cover.c: which lines of the Lua modules run. Loaded into the interpreter by `make coverage`
 * before anything else; new coroutines inherit a C hook. At exit the lines are added to the file
 * that JDBFS_COVER names, as "file<TAB>line". */
#include <lauxlib.h>
#include <lua.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILES = 128, LINES = 8192 };

static struct {
    char name[64]; /* "lua/jdbfs/log.lua" */
    unsigned char ran[LINES];
} files[FILES];

/* The last one is likely the next: sources are compared by address first. */
static const char *last_source;
static int last_index;

static int index_of(const char *source) {
    const char *name = strstr(source, "lua/jdbfs/");
    if (source[0] != '@' || !name || strlen(name) >= sizeof files[0].name) return -1;
    for (int i = 0; i < FILES; i++) {
        if (!files[i].name[0]) strcpy(files[i].name, name);
        if (strcmp(files[i].name, name) == 0) return i;
    }
    return -1;
}

static void on_line(lua_State *L, lua_Debug *ar) {
    if (!lua_getinfo(L, "S", ar)) return;
    if (ar->source != last_source) {
        last_source = ar->source;
        last_index = index_of(ar->source);
    }
    if (last_index >= 0 && ar->currentline > 0 && ar->currentline < LINES)
        files[last_index].ran[ar->currentline] = 1;
}

static void tell(void) {
    const char *path = getenv("JDBFS_COVER");
    FILE *f = path ? fopen(path, "ae") : NULL;
    if (!f) return;
    for (int i = 0; i < FILES && files[i].name[0]; i++)
        for (int line = 0; line < LINES; line++)
            if (files[i].ran[line]) fprintf(f, "%s\t%d\n", files[i].name, line);
    fclose(f);
}

/* debug.gethook as if our hook were not there: the command takes a foreign one for Ctrl-C. */
static int gethook(lua_State *L) {
    lua_State *other = lua_isthread(L, 1) ? lua_tothread(L, 1) : L;
    lua_Hook hook = lua_gethook(other);
    if (!hook || hook == on_line) return 0;
    lua_pushliteral(L, "external hook");
    return 1;
}

int luaopen_cover(lua_State *L);

int luaopen_cover(lua_State *L) {
    lua_sethook(L, on_line, LUA_MASKLINE, 0);
    lua_getglobal(L, "debug");
    lua_pushcfunction(L, gethook);
    lua_setfield(L, -2, "gethook");
    lua_pop(L, 1);
    atexit(tell);
    return 0;
}
