/* Lua states in threads, as a Lua module for the specs. Compiled by spec/support_process.lua. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

enum { THREADS_MAX = 32 };

struct job {
    pthread_t thread;
    lua_State *L;
    const char *source;
    int number, close;
    char result[512];
};

/* Runs the source with the job's number; `result` is what it returns, or its error. */
static void *run(void *argument) {
    struct job *job = argument;
    job->result[0] = 0;
    if (job->source) {
        int failed = luaL_loadstring(job->L, job->source);
        if (!failed) {
            lua_pushinteger(job->L, job->number);
            failed = lua_pcall(job->L, 1, 1, 0);
        }
        const char *text = lua_tostring(job->L, -1);
        snprintf(job->result, sizeof job->result, "%s%s", failed ? "error: " : "",
                 text ? text : "nothing");
        lua_settop(job->L, 0);
    }
    if (job->close) lua_close(job->L);
    return NULL;
}

static lua_State *new_state(lua_State *L) {
    lua_State *made = luaL_newstate();
    if (!made) luaL_error(L, "no Lua state");
    luaL_openlibs(made);
    return made;
}

static void in_thread(lua_State *L, struct job *job) {
    if (pthread_create(&job->thread, NULL, run, job) != 0) luaL_error(L, "no thread");
}

/* each(n, source): one state and one thread each, all at once; their results. */
static int each(lua_State *L) {
    static struct job jobs[THREADS_MAX];
    int n = (int)luaL_checkinteger(L, 1);
    const char *source = luaL_checkstring(L, 2);
    if (n < 1 || n > THREADS_MAX) return luaL_error(L, "too many");
    for (int i = 0; i < n; i++) {
        struct job job = {.L = new_state(L), .source = source, .number = i + 1, .close = 1};
        jobs[i] = job;
    }
    for (int i = 0; i < n; i++) in_thread(L, &jobs[i]);
    lua_newtable(L);
    for (int i = 0; i < n; i++) {
        pthread_join(jobs[i].thread, NULL);
        lua_pushstring(L, jobs[i].result);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* moved(first, second, close_here): runs `first` in a state's own thread, then `second` in another,
 * where the state is also closed, or here. Both results. */
static int moved(lua_State *L) {
    struct job job = {.L = new_state(L), .source = luaL_checkstring(L, 1)};
    in_thread(L, &job);
    pthread_join(job.thread, NULL);
    lua_pushstring(L, job.result);
    job.source = luaL_checkstring(L, 2);
    job.close = !lua_toboolean(L, 3);
    in_thread(L, &job);
    pthread_join(job.thread, NULL);
    lua_pushstring(L, job.result);
    if (!job.close) lua_close(job.L);
    return 2;
}

int luaopen_states(lua_State *L);

int luaopen_states(lua_State *L) {
    lua_newtable(L);
    lua_pushcfunction(L, each);
    lua_setfield(L, -2, "each");
    lua_pushcfunction(L, moved);
    lua_setfield(L, -2, "moved");
    return 1;
}
