/* What the specs need of the system and Lua does not have, as a Lua module: fork, waitpid, getpid,
 * _exit, poll, connect, lease, and a second Lua state. Compiled by spec/support_process.lua. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

static int do_fork(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)fork());
    return 1;
}

/* waitpid(pid): the exit status, or nil and the signal that ended it. */
static int do_waitpid(lua_State *L) {
    int status = 0;
    pid_t pid = (pid_t)luaL_checkinteger(L, 1);
    if (waitpid(pid, &status, 0) != pid) return luaL_error(L, "waitpid failed");
    if (WIFEXITED(status)) {
        lua_pushinteger(L, WEXITSTATUS(status));
        return 1;
    }
    lua_pushnil(L);
    lua_pushinteger(L, WIFSIGNALED(status) ? WTERMSIG(status) : -1);
    return 2;
}

static int do_getpid(lua_State *L) {
    lua_pushinteger(L, (lua_Integer)getpid());
    return 1;
}

/* What coverage has counted is written by an ordinary end only. */
static int do_exit(lua_State *L) {
    const char *san = getenv("JDBFS_TEST_SAN");
    int status = (int)luaL_checkinteger(L, 1);
    if (san && strcmp(san, "coverage") == 0) exit(status);
    _exit(status);
    return 0;
}

/* connect(path): a stream socket's descriptor. */
static int do_connect(lua_State *L) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, luaL_checkstring(L, 1), sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0)
        return luaL_error(L, "connect failed");
    lua_pushinteger(L, fd);
    return 1;
}

/* lease(path, told): takes one, makes the file `told` of it, and lets go a moment after somebody else
 * wanted the file. Whether one was to be had. */
static int do_lease(lua_State *L) {
    int taken = 0;
#ifdef F_SETLEASE
    int number;
    sigset_t asked;
    const char *told = luaL_checkstring(L, 2);
    int fd = open(luaL_checkstring(L, 1), O_RDWR | O_CLOEXEC);
    sigemptyset(&asked);
    sigaddset(&asked, SIGIO);
    sigprocmask(SIG_BLOCK, &asked, NULL);
    taken = fd >= 0 && fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
    if (taken) {
        close(open(told, O_CREAT | O_WRONLY, 0600));
        sigwait(&asked, &number);
        usleep(100000);
        fcntl(fd, F_SETLEASE, F_UNLCK);
    }
    if (fd >= 0) close(fd);
#endif
    lua_pushboolean(L, taken);
    return 1;
}

/* poll(fd, seconds): whether the descriptor is readable. */
static int do_poll(lua_State *L) {
    struct pollfd fd = {(int)luaL_checkinteger(L, 1), POLLIN, 0};
    int r = poll(&fd, 1, (int)(luaL_checknumber(L, 2) * 1000));
    lua_pushboolean(L, r > 0 && (fd.revents & POLLIN));
    return 1;
}

/* state(source): runs it in a Lua state of its own and closes that. true, or false and why. */
static int do_state(lua_State *L) {
    const char *source = luaL_checkstring(L, 1);
    lua_State *other = luaL_newstate();
    if (!other) return luaL_error(L, "no memory for a state");
    luaL_openlibs(other);
    int failed = luaL_loadstring(other, source) || lua_pcall(other, 0, 0, 0);
    lua_pushboolean(L, !failed);
    if (failed) lua_pushstring(L, lua_tostring(other, -1));
    lua_close(other);
    return failed ? 2 : 1;
}

int luaopen_forker(lua_State *L);

int luaopen_forker(lua_State *L) {
    static const struct {
        const char *name;
        lua_CFunction function;
    } functions[] = {{"fork", do_fork},  {"waitpid", do_waitpid}, {"getpid", do_getpid},
                     {"_exit", do_exit}, {"poll", do_poll},       {"state", do_state},
                     {"connect", do_connect}, {"lease", do_lease}};
    lua_newtable(L);
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        lua_pushcfunction(L, functions[i].function);
        lua_setfield(L, -2, functions[i].name);
    }
    return 1;
}
