/* host_nginx.c: a module of nginx by which nginx itself waits for the queue's descriptor. Built
 * apart (make nginx-module), for one build of nginx: load_module refuses it in any other, and Lua
 * does not get it unless nginx has loaded it. Without it jdbfs.host.ngx uses a socket.
 *
 * It knows nothing of jdbfs: it calls a Lua function when a descriptor is readable. */
#include <lauxlib.h>
#include <lua.h>
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#define CLASS "jdbfs.nginx_event"

typedef struct {
    ngx_connection_t *connection; /* ours until the watcher is collected; NULL before and after */
    lua_State *thread;            /* calls the function; anchored in the registry, as is that */
    int ref_thread, ref_function;
} watcher;

static void call(ngx_event_t *event) {
    ngx_connection_t *connection = event->data;
    watcher *w = connection->data;
    lua_settop(w->thread, 0);
    lua_rawgeti(w->thread, LUA_REGISTRYINDEX, w->ref_function);
    if (lua_pcall(w->thread, 0, 0, 0) == 0) return;
    const char *message = lua_tostring(w->thread, -1);
    ngx_log_error(NGX_LOG_ERR, event->log, 0, "jdbfs: %s", message ? message : "error");
}

/* nginx counts connections that are open when a worker ends, but for those called channels. */
static const char *add(watcher *w, int fd) {
    ngx_connection_t *connection = ngx_get_connection(fd, ngx_cycle->log);
    if (!connection) return "no free connection (worker_connections)";
    connection->data = w;
    connection->read->log = ngx_cycle->log;
    connection->read->handler = call;
    connection->read->channel = 1;
    if (ngx_add_event(connection->read, NGX_READ_EVENT, 0) != NGX_OK) {
        ngx_free_connection(connection);
        return "nginx cannot wait for the descriptor";
    }
    w->connection = connection;
    return NULL;
}

/* The descriptor is the queue's, which goes along with this Lua state, maybe before us. */
static int watcher_gc(lua_State *L) {
    watcher *w = luaL_checkudata(L, 1, CLASS);
    ngx_connection_t *connection = w->connection;
    w->connection = NULL;
    if (!connection) return 0;
    ngx_del_event(connection->read, NGX_READ_EVENT, NGX_CLOSE_EVENT);
    ngx_free_connection(connection);
    connection->fd = (ngx_socket_t)-1;
    return 0;
}

/* watch(fd, f): f() whenever fd is readable, until the watcher that this gives is collected. */
static int watch(lua_State *L) {
    int fd = (int)luaL_checkinteger(L, 1);
    luaL_checktype(L, 2, LUA_TFUNCTION);
    lua_settop(L, 2);
    watcher *w = lua_newuserdata(L, sizeof *w);
    w->connection = NULL;
    luaL_getmetatable(L, CLASS);
    lua_setmetatable(L, -2);
    w->thread = lua_newthread(L);
    w->ref_thread = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, 2);
    w->ref_function = luaL_ref(L, LUA_REGISTRYINDEX);
    const char *wrong = add(w, fd);
    if (wrong) return luaL_error(L, "%s", wrong);
    return 1;
}

static ngx_core_module_t context = {ngx_string("jdbfs"), NULL, NULL};

static ngx_module_t ngx_jdbfs_module = {NGX_MODULE_V1, &context, NULL, NGX_CORE_MODULE,
                                        NULL,          NULL,     NULL, NULL,
                                        NULL,          NULL,     NULL, NGX_MODULE_V1_PADDING};

/* What load_module looks for. */
extern ngx_module_t *ngx_modules[];
extern char *ngx_module_names[];
extern char *ngx_module_order[];
ngx_module_t *ngx_modules[] = {&ngx_jdbfs_module, NULL};
char *ngx_module_names[] = {"ngx_jdbfs_module", NULL};
char *ngx_module_order[] = {NULL};

static int is_loaded(void) {
    ngx_uint_t i = ngx_jdbfs_module.index;
    return ngx_cycle && i < ngx_cycle->modules_n && ngx_cycle->modules[i] == &ngx_jdbfs_module;
}

int luaopen_jdbfs_nginx_event(lua_State *L);

int luaopen_jdbfs_nginx_event(lua_State *L) {
    if (!is_loaded()) return luaL_error(L, "nginx has not loaded this module (load_module)");
    luaL_newmetatable(L, CLASS);
    lua_pushcfunction(L, watcher_gc);
    lua_setfield(L, -2, "__gc");
    lua_newtable(L);
    lua_pushcfunction(L, watch);
    lua_setfield(L, -2, "watch");
    return 1;
}
