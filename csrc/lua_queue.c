/* lua_queue.c: the state's queue, results as Lua values, and what tells about both. */
#include <string.h>

#include "lua_jdb.h"

/* ---- the queue ------------------------------------------------------------------------------ */

static jdb_queue *refuse_queue(jdb_failure *f, jdb_kind kind, const char *cause) {
    jdb_failure failure = {kind, 0, "jdbfs", NULL, NULL, cause, -1, -1, -1, -1};
    *f = failure;
    return NULL;
}

static const char *usable_cause(jdb_kind kind) {
    return kind == JDB_UNSUPPORTED ? "the queue belongs to another thread" : NULL;
}

/* A server's worker makes a queue of its own; what its master left belongs to the master. */
static void renew(jl_state *S) {
    if (S->tasks > 0) return;
    jdb_queue_close(S->queue);
    jdb_queue_unref(S->queue);
    S->queue = NULL;
    S->spare = NULL;
    S->delivering_count = 0;
    S->polled = 0;
    S->inherited = 1;
}

jdb_queue *jl_queue(lua_State *L, jdb_failure *failure) {
    jl_state *S = jl_self(L);
    if (S->closed) return refuse_queue(failure, JDB_CLOSED, "the Lua state is being closed");
    if (S->renews && S->queue && jdb_queue_usable(S->queue) == JDB_FORKED) renew(S);
    if (!S->queue && jdb_queue_new(&S->options, &S->queue, failure) != 0) return NULL;
    jdb_kind kind = jdb_queue_usable(S->queue);
    return kind ? refuse_queue(failure, kind, usable_cause(kind)) : S->queue;
}

/* A simulated disk has a clock of its own, which starts with the queue. */
int64_t jl_now(lua_State *L) {
    jl_state *S = jl_self(L);
    jdb_failure ignored;
    const char *wanted = S->queue ? NULL : jdb_backend_wanted(&S->options);
    if (wanted && strcmp(wanted, "sim") == 0) jl_queue(L, &ignored);
    return S->queue ? jdb_queue_now(S->queue) : jdb_now();
}

jdb_op *jl_take_with_care(lua_State *L, jl_state *S, const char *name, const char *path,
                          int *pushed) {
    jdb_failure failure;
    jdb_kind kind = JDB_OK;
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = name;
        failure.path = path;
        *pushed = jl_fail(L, &failure);
        return NULL;
    }
    if (!S->spare) S->spare = jdb_op_take(q, &kind);
    if (!S->spare) *pushed = jl_fail_kind(L, kind, name, path, usable_cause(kind));
    return S->spare;
}

void jl_drop(jl_state *S, jdb_op *op) {
    S->spare = NULL;
    S->begin = NULL;
    jdb_op_release(S->queue, op);
}

int jl_refuse(lua_State *L, jl_state *S, jdb_op *op) {
    jdb_failure f;
    jdb_op_failure(op, &f);
    jl_measure_refusal(S, jdb_op_code(op), f.kind, f.error);
    jl_drop(S, op); /* first: telling allocates, and a finalizer may take `spare` */
    return jl_fail(L, &f);
}

/* ---- results -------------------------------------------------------------------------------- */

static void set_time(lua_State *L, const char *name, int64_t ns) {
    lua_pushnumber(L, (lua_Number)ns / 1e9);
    lua_setfield(L, -2, name);
}

static int push_stat(lua_State *L, const jdb_stat *st) {
    lua_createtable(L, 0, 10);
    jl_set_size(L, "size", st->size);
    jl_set_size(L, "allocated", st->allocated);
    jl_set_size(L, "inode", st->inode);
    jl_set_size(L, "device", st->device);
    jl_set_size(L, "links", st->links);
    jl_set_size(L, "mode", st->mode);
    set_time(L, "atime", st->atime_ns);
    set_time(L, "mtime", st->mtime_ns);
    set_time(L, "ctime", st->ctime_ns);
    jl_set_text(L, "type",
                st->type == 'f'   ? "file"
                : st->type == 'd' ? "directory"
                : st->type == 'b' ? "block device"
                                  : "other");
    return 1;
}

static int push_names(lua_State *L, const jdb_op *op) {
    size_t count;
    const char *name = jdb_op_names(op, &count);
    lua_createtable(L, count < 1000000 ? (int)count : 0, 0);
    for (size_t i = 1; i <= count; i++) {
        size_t len = strlen(name);
        lua_pushlstring(L, name, len);
        lua_rawseti(L, -2, (int)i);
        name += len + 1;
    }
    return 1;
}

static int push_space(lua_State *L, const jdb_op *op) {
    uint64_t free_bytes, total_bytes;
    jdb_op_space(op, &free_bytes, &total_bytes);
    jl_push_size(L, free_bytes);
    jl_push_size(L, total_bytes);
    return 2;
}

static int push_part(lua_State *L, const jdb_op *op) {
    const void *data = NULL;
    size_t len = 0;
    jdb_op_part(op, &data, &len);
    lua_pushlstring(L, data, len);
    return 1;
}

/* 0: not known, then the field is absent. */
static void set_known(lua_State *L, const char *name, int value) {
    if (!value) return;
    lua_pushboolean(L, value > 0);
    lua_setfield(L, -2, name);
}

static int push_probe(lua_State *L, const jdb_op *op) {
    jdb_queue *q = jl_self(L)->queue;
    lua_createtable(L, 0, 20);
    jl_set_text(L, "kernel", jdb_platform());
    jl_set_text(L, "backend", jdb_queue_backend(q));
    jl_set_text(L, "backend_reason", jdb_queue_reason(q));
    jl_set_text(L, "features", jdb_queue_features(q));
    const jdb_file_info *info = jdb_op_probe(op);
    jl_set_file_info(L, info);
    set_known(L, "nowait", info->nowait);
    set_known(L, "dsync_write", info->dsync_write);
    return 1;
}

int jl_push_count(lua_State *L, const jdb_op *op) {
    int64_t count = jdb_op_count(op);
    if (count < 0) return 0;
    jl_push_size(L, (uint64_t)count);
    return 1;
}

/* What the call returns, when it is no count. Raises only when Lua is out of memory. */
int jl_push_result(lua_State *L, jdb_op *op) {
    if (jdb_op_kind(op) != JDB_OK) return jl_fail_op(L, op);
    switch (jdb_op_code(op)) {
    case JDB_READ: return push_part(L, op);
    case JDB_OPEN: return jl_push_file(L, jdb_op_file(op));
    case JDB_STAT:
    case JDB_PATH_STAT: return push_stat(L, jdb_op_stat(op));
    case JDB_PATH_LS: return push_names(L, op);
    case JDB_PATH_SPACE: return push_space(L, op);
    case JDB_INFO: return jl_push_file_info(L, jdb_op_file(op));
    case JDB_PATH_PROBE: return push_probe(L, op);
    case JDB_PATH_EXISTS: lua_pushboolean(L, jdb_op_result(op) != 0); return 1;
    default: lua_pushboolean(L, 1); return 1;
    }
}

#define UNANNOUNCED "option iopoll: no descriptor announces what is polled for"

/* ---- setup, info, stats --------------------------------------------------------------------- */

static uint32_t count_option(lua_State *L, const char *name, uint32_t most) {
    uint64_t n;
    if (lua_type(L, -1) != LUA_TNUMBER || jl_number(L, -1, &n) || n < 1 || n > most)
        luaL_error(L, "option %s: an integer from 1 to %d expected", name, (int)most);
    return (uint32_t)n;
}

static int boolean_option(lua_State *L, const char *name) {
    if (!lua_isboolean(L, -1)) luaL_error(L, "option %s: true or false expected", name);
    return lua_toboolean(L, -1);
}

/* Seconds, above 0 and not above `most`. */
static int64_t time_option(lua_State *L, const char *name, int most) {
    lua_Number s = lua_type(L, -1) == LUA_TNUMBER ? lua_tonumber(L, -1) : 0;
    if (!(s > 0 && s <= most))
        luaL_error(L, "option %s: seconds, above 0 to %d, expected", name, most);
    int64_t ns = (int64_t)(s * 1e9);
    return ns > 0 ? ns : 1;
}

static jdb_iopoll iopoll_option(lua_State *L) {
    if (lua_isboolean(L, -1)) return lua_toboolean(L, -1) ? JDB_IOPOLL_BUSY : JDB_IOPOLL_OFF;
    if (lua_type(L, -1) != LUA_TSTRING || strcmp(lua_tostring(L, -1), "hybrid") != 0)
        luaL_error(L, "option iopoll: true, false or \"hybrid\" expected");
    return JDB_IOPOLL_HYBRID;
}

static const char *backend_option(lua_State *L) {
    static const char *const known[] = {"auto", "io_uring", "threads", "kqueue",
                                        "iocp", "sim",      "null"};
    const char *name = lua_type(L, -1) == LUA_TSTRING ? lua_tostring(L, -1) : "";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], name) == 0) return known[i];
    luaL_error(L, "option backend: unknown backend \"%s\"", name);
    return NULL;
}

/* setup{ backend =, depth =, workers =, ... }: before the first operation. */
static int setup(lua_State *L) {
    jl_state *S = jl_self(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    if (S->queue)
        return jl_fail_kind(L, JDB_BUSY, "setup", NULL,
                            "the queue was made already: call it first");
    jdb_options options = S->options; /* all of it is taken, or nothing */
    lua_pushnil(L);
    while (lua_next(L, 1)) {
        const char *name = lua_type(L, -2) == LUA_TSTRING ? lua_tostring(L, -2) : "?";
        if (strcmp(name, "backend") == 0) options.backend = backend_option(L);
        else if (strcmp(name, "depth") == 0) options.depth = count_option(L, name, JDB_DEPTH_MAX);
        else if (strcmp(name, "workers") == 0)
            options.workers = count_option(L, name, JDB_WORKERS_MAX);
        else if (strcmp(name, "sqpoll") == 0) options.sqpoll_ns = time_option(L, name, 10);
        else if (strcmp(name, "min_wait") == 0) options.min_wait_ns = time_option(L, name, 10);
        else if (strcmp(name, "close_limit") == 0)
            options.close_limit_ns = time_option(L, name, 86400);
        else if (strcmp(name, "iopoll") == 0) options.iopoll = iopoll_option(L);
        else if (strcmp(name, "registered") == 0) options.unregistered = !boolean_option(L, name);
        else luaL_error(L, "unknown option %s", name);
        lua_pop(L, 1);
    }
    if (options.iopoll && S->has_host)
        return jl_fail_kind(L, JDB_UNSUPPORTED, "setup", NULL, UNANNOUNCED);
    S->options = options;
    lua_pushboolean(L, 1);
    return 1;
}

static int info(lua_State *L) {
    jdb_failure failure;
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = "info";
        return jl_fail(L, &failure);
    }
    lua_createtable(L, 0, 14);
    jl_set_text(L, "version", JDB_VERSION);
    jl_set_text(L, "backend", jdb_queue_backend(q));
    jl_set_text(L, "reason", jdb_queue_reason(q));
    jl_set_text(L, "features", jdb_queue_features(q));
    jl_set_text(L, "kernel", jdb_platform());
    jl_set_size(L, "depth", jdb_queue_depth(q));
    const char *limit_reason;
    jl_set_size(L, "in_flight_limit", jdb_queue_limit(q, &limit_reason));
    if (limit_reason[0]) jl_set_text(L, "in_flight_reason", limit_reason);
    jdb_registered registered;
    jdb_queue_registered(q, &registered);
    jl_set_size(L, "registered_memory", registered.memory);
    jl_set_size(L, "registered_files", registered.files);
    lua_pushboolean(L, registered.ring);
    lua_setfield(L, -2, "registered_ring");
    if (registered.reason[0]) jl_set_text(L, "registered_refused", registered.reason);
    jl_set_size(L, "page_size", jdb_page_size());
    return 1;
}

static int stats(lua_State *L) {
    jdb_stats s;
    uint64_t buffers, files;
    jl_state *S = jl_self(L);
    memset(&s, 0, sizeof s);
    if (S->queue) jdb_queue_stats(S->queue, &s);
    jdb_live(&buffers, &files);
    lua_createtable(L, 0, 16);
    jl_set_size(L, "submitted", s.submitted);
    jl_set_size(L, "completed", s.completed);
    jl_set_size(L, "entries", s.entries);
    jl_set_size(L, "handovers", s.handovers);
    jl_set_size(L, "pool_operations", s.pool_operations);
    jl_set_size(L, "flushes", s.flushes);
    jl_set_size(L, "resubmitted", s.resubmitted);
    jl_set_size(L, "in_flight", s.in_flight);
    jl_set_size(L, "waiting", s.waiting);
    jl_set_size(L, "abandoned", s.abandoned);
    jl_set_size(L, "slots", s.slots);
    jl_set_size(L, "slot_bytes", s.slot_bytes);
    jl_set_size(L, "workers", s.workers);
    jl_set_size(L, "reaps", s.reaps);
    jl_set_size(L, "tasks", S->tasks);
    jl_set_size(L, "buffers", buffers);
    jl_set_size(L, "files", files);
    return 1;
}

/* ---- for hosts ------------------------------------------------------------------------------ */

static int pollfd(lua_State *L) {
    jl_state *S = jl_self(L);
    jdb_failure failure;
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = "pollfd";
        return jl_fail(L, &failure);
    }
    int fd = jdb_queue_pollfd(q);
    if (fd < 0) {
        jdb_failure refused = {
            jdb_kind_of_errno(-fd), -fd, "pollfd", NULL, NULL, NULL, -1, -1, -1, -1};
        if (S->options.iopoll) refused.cause = UNANNOUNCED;
        return jl_fail(L, &refused);
    }
    if (!S->polled) S->alarm_at = INT64_MAX;
    S->polled = 1;
    lua_pushinteger(L, fd);
    return 1;
}

/* What step still has to do: operations, and tasks that are ready or asleep. */
static int pending(lua_State *L) {
    jl_state *S = jl_self(L);
    uint64_t n = S->queue ? jdb_queue_pending(S->queue) : 0;
    for (const jl_task *t = S->ready_head; t; t = t->next) n++;
    jl_push_size(L, n + S->timer_count);
    return 1;
}

/* admit_host(): its loop will wait for the descriptor; true, unless there can be none. */
static int admit_host(lua_State *L) {
    jl_state *S = jl_self(L);
    if (S->options.iopoll) return jl_fail_kind(L, JDB_UNSUPPORTED, "host", NULL, UNANNOUNCED);
    S->has_host = 1;
    lua_pushboolean(L, 1);
    return 1;
}

static int flush(lua_State *L) {
    jdb_failure failure;
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = "flush";
        return jl_fail(L, &failure);
    }
    jdb_queue_flush(q);
    lua_pushboolean(L, 1);
    return 1;
}

/* ---- the relay: wakes by a socket instead of a descriptor ---- */

static int relay_result(lua_State *L, int r) {
    if (r < 0) {
        jdb_failure refused = {
            jdb_kind_of_errno(-r), -r, "relay", NULL, NULL, NULL, -1, -1, -1, -1};
        return jl_fail(L, &refused);
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* relay(): the path of the socket to connect to; then relay_accept(). */
static int relay(lua_State *L) {
    jdb_failure failure;
    const char *path;
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = "relay";
        return jl_fail(L, &failure);
    }
    jdb_relay_free(q);
    int r = jdb_relay_new(q, &path);
    if (r < 0) return relay_result(L, r);
    lua_pushstring(L, path);
    return 1;
}

static int relay_accept(lua_State *L) {
    const jl_state *S = jl_self(L);
    return relay_result(L, S->queue ? jdb_relay_accept(S->queue) : -1);
}

static int relay_arm(lua_State *L) {
    const jl_state *S = jl_self(L);
    if (S->queue) jdb_relay_arm(S->queue);
    return 0;
}

static int relay_close(lua_State *L) {
    const jl_state *S = jl_self(L);
    if (S->queue) jdb_relay_free(S->queue);
    return 0;
}

/* signal(): has the host call the dispatcher. */
static int signal_host(lua_State *L) {
    const jl_state *S = jl_self(L);
    if (S->queue) jdb_queue_signal(S->queue);
    return 0;
}

static int now(lua_State *L) {
    lua_pushnumber(L, (lua_Number)jl_now(L) / 1e9);
    return 1;
}

int jl_open_queue(lua_State *L) {
    static const luaL_Reg functions[] = {{"setup", setup},
                                         {"info", info},
                                         {"stats", stats},
                                         {"pollfd", pollfd},
                                         {"pending", pending},
                                         {"flush", flush},
                                         {"admit_host", admit_host},
                                         {"relay", relay},
                                         {"relay_accept", relay_accept},
                                         {"relay_arm", relay_arm},
                                         {"relay_close", relay_close},
                                         {"signal", signal_host},
                                         {"now", now},
                                         {NULL, NULL}};
    jl_register(L, functions);
    return 0;
}
