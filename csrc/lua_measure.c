/* lua_measure.c: what the `jdbfs` command measures with: meters, clocks, signals.
 *
 * A meter belongs to a job. Every operation of a task that said core.measure(meter) is recorded
 * when it is delivered, without script code: response (reap - due), service (reap - submit), lag
 * (resume - reap, every LAG_EVERY-th operation). A task without a meter pays one branch. */
#include <stdlib.h>
#include <string.h>

#include "lua_jdb.h"
#include "measure.h"

static const char magic_meter = 0;

enum { TRACKS_MAX = 64, NAME_MAX_BYTES = 48, ERRORS_MAX = 12, LAG_EVERY = 8 };
enum { RESPONSE, SERVICE, LAG, KINDS };

/* Operations have their places; names given by scripts come behind them. */
enum { T_READ, T_WRITE, T_WRITE_SYNC, T_FDATASYNC, T_FSYNC, T_TRIM, T_READ_MANY, T_WRITE_MANY };
static const char *const operation_names[] = {"read",  "write", "write_sync", "fdatasync",
                                              "fsync", "trim",  "read_many",  "write_many"};
enum { OPERATIONS = sizeof operation_names / sizeof *operation_names };

struct sums {
    jdb_histogram *of[KINDS];
    uint64_t bytes, errors;
};

struct track {
    char name[NAME_MAX_BYTES];
    jdb_histogram *memory;  /* 2 * KINDS of them; NULL until something is recorded */
    struct sums now, total; /* this interval; all intervals that were kept */
    const char *error_names[ERRORS_MAX];
    uint64_t error_counts[ERRORS_MAX];
};

struct jl_meter {
    const void *magic;
    int64_t from;   /* what was due earlier is not counted */
    uint32_t tasks; /* measured by it now */
    uint32_t track_count;
    uint64_t lost;            /* not recorded: no memory */
    uint64_t written, failed; /* ever: bytes; operations */
    struct track *tracks[TRACKS_MAX];
};

/* ---- recording ------------------------------------------------------------------------------ */

static struct track *track_at(struct jl_meter *m, uint32_t i) {
    struct track *t = m->tracks[i];
    if (t && t->memory) return t;
    if (!t) t = m->tracks[i] = calloc(1, sizeof *t);
    if (t && !t->memory) t->memory = calloc(2 * KINDS, sizeof *t->memory);
    if (!t || !t->memory) {
        m->lost++;
        return NULL;
    }
    if (i < OPERATIONS) strcpy(t->name, operation_names[i]);
    for (int k = 0; k < KINDS; k++) {
        t->now.of[k] = &t->memory[k];
        t->total.of[k] = &t->memory[KINDS + k];
    }
    return t;
}

/* The place of an operation's track + 1; 0: it has none. */
static const uint8_t places[JDB_CODE_COUNT] = {[JDB_READ] = T_READ + 1,
                                               [JDB_WRITE] = T_WRITE + 1,
                                               [JDB_SYNC_DATA] = T_FDATASYNC + 1,
                                               [JDB_SYNC_ALL] = T_FSYNC + 1,
                                               [JDB_PUNCH] = T_TRIM + 1,
                                               [JDB_READ_MANY] = T_READ_MANY + 1,
                                               [JDB_WRITE_MANY] = T_WRITE_MANY + 1};

static int track_of(const jdb_times *times) {
    int i = places[times->code] - 1;
    return i == T_WRITE && times->durable ? T_WRITE_SYNC : i;
}

static uint64_t span(int64_t from, int64_t to) { return to > from ? (uint64_t)(to - from) : 0; }

static void record_error(struct track *t, const char *name) {
    t->now.errors++;
    for (int i = 0; i < ERRORS_MAX; i++) {
        if (!t->error_names[i]) t->error_names[i] = i == ERRORS_MAX - 1 ? "others" : name;
        else if (i < ERRORS_MAX - 1 && strcmp(t->error_names[i], name) != 0) continue;
        t->error_counts[i]++;
        return;
    }
}

/* In track i; < 0: in none. */
static void measure_failure(struct jl_meter *m, const jdb_times *times, int i) {
    m->failed++;
    struct track *t = i < 0 ? NULL : track_at(m, (uint32_t)i);
    if (!t) return;
    const char *name = jdb_errno_name(times->error);
    record_error(t, name ? name : jdb_kind_name(times->kind));
}

void jl_measure_refusal(jl_state *S, jdb_code code, jdb_kind kind, int error) {
    struct jl_meter *m = S->current && S->current->times ? S->current->times->meter : NULL;
    jdb_times times = {.code = code, .kind = kind, .error = error};
    if (!m) return;
    measure_failure(m, &times, jdb_queue_now(S->queue) < m->from ? -1 : track_of(&times));
}

void jl_measure_op(jl_state *S, jl_task *task, const jdb_op *op) {
    struct jl_times *own = task->times;
    struct jl_meter *m = own->meter;
    jdb_times times;
    if (!m) return;
    jdb_op_times(op, &times);
    if (!times.reaped) times.reaped = jdb_queue_now(S->queue);
    own->ready = times.reaped;
    int i = track_of(&times), counted = i >= 0 && own->op_due >= m->from;
    if (times.kind != JDB_OK) {
        measure_failure(m, &times, counted ? i : -1);
        return;
    }
    if (i == T_WRITE || i == T_WRITE_SYNC) m->written += times.moved;
    if (!counted) return;
    struct track *t = m->tracks[i];
    if (!t || !t->memory) t = track_at(m, (uint32_t)i);
    if (!t) return;
    int64_t submitted = times.submitted ? times.submitted : own->op_due;
    jdb_histogram_record(t->now.of[RESPONSE], span(own->op_due, times.reaped));
    jdb_histogram_record(t->now.of[SERVICE], span(submitted, times.reaped));
    t->now.bytes += times.moved;
    if (++S->delivered % LAG_EVERY == 0)
        jdb_histogram_record(t->now.of[LAG], span(times.reaped, jdb_queue_now(S->queue)));
}

void jl_measure_end(jl_task *t) {
    if (!t->times || !t->times->meter) return;
    t->times->meter->tasks--;
    t->times->meter = NULL;
}

/* ---- meters --------------------------------------------------------------------------------- */

static struct jl_meter *check_meter(lua_State *L) {
    struct jl_meter *m = jl_test(L, 1, &magic_meter, sizeof *m);
    if (!m) luaL_argerror(L, 1, "meter expected");
    return m;
}

struct jl_times *jl_own_times(lua_State *L) {
    jl_state *S = jl_self(L);
    if (!S->current) luaL_error(L, "not in a task");
    if (S->current->times) return S->current->times;
    luaL_checkstack(L, 5, "measure");
    jl_push_ref(L, S->ref_times); /* task -> what is measured of it; weak keys */
    jl_push_task(L, S, S->current);
    struct jl_times *times = lua_newuserdata(L, sizeof *times);
    memset(times, 0, sizeof *times);
    lua_rawset(L, -3);
    lua_pop(L, 1);
    S->current->times = times;
    return times;
}

static int meter_new(lua_State *L) {
    jdb_failure failure;
    jl_state *S = jl_self(L);
    jdb_queue *q = jl_queue(L, &failure);
    if (!q) {
        failure.op = "meter";
        return jl_fail(L, &failure);
    }
    struct jl_meter *m = jl_new(L, sizeof *m, &magic_meter, S->ref_meter_meta);
    m->track_count = OPERATIONS;
    m->from = INT64_MIN;
    jdb_queue_timing(q, 1);
    return 1;
}

/* measure(meter): what the current task does from now on is recorded there. */
static int measure(lua_State *L) {
    jl_state *S = jl_self(L);
    struct jl_meter *m = check_meter(L);
    struct jl_times *times = jl_own_times(L);
    jl_push_ref(L, S->ref_meters); /* kept until close: tasks point to it */
    lua_pushvalue(L, 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    jl_measure_end(S->current);
    times->meter = m;
    times->ready = jl_now(L);
    m->tasks++;
    return 0;
}

static void free_tracks(struct jl_meter *m) {
    for (uint32_t i = 0; i < TRACKS_MAX; i++) {
        if (m->tracks[i]) free(m->tracks[i]->memory);
        free(m->tracks[i]);
        m->tracks[i] = NULL;
    }
}

static int meter_close(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    if (m->tasks > 0) return luaL_error(L, "%d tasks are measured by it", (int)m->tasks);
    jl_push_ref(L, jl_self(L)->ref_meters);
    lua_pushvalue(L, 1);
    lua_pushnil(L);
    lua_rawset(L, -3);
    free_tracks(m);
    return 0;
}

static int meter_gc(lua_State *L) {
    struct jl_meter *m = jl_test(L, 1, &magic_meter, sizeof *m);
    if (m) free_tracks(m);
    return 0;
}

/* from(ns): what was due before that moment is not counted. */
static int meter_from(lua_State *L) {
    check_meter(L)->from = (int64_t)luaL_checknumber(L, 2);
    return 0;
}

/* track(name): the number of a name, for stop. */
static int meter_track(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    size_t len;
    const char *name = luaL_checklstring(L, 2, &len);
    if (len == 0 || len >= NAME_MAX_BYTES) luaL_argerror(L, 2, "1 to 47 bytes expected");
    uint32_t i = 0;
    while (i < m->track_count) {
        const char *known = i < OPERATIONS ? operation_names[i] : m->tracks[i]->name;
        if (strcmp(known, name) == 0) break;
        i++;
    }
    if (i == m->track_count) {
        if (i == TRACKS_MAX) return luaL_error(L, "more than %d names", TRACKS_MAX);
        struct track *t = track_at(m, i);
        if (!t) return luaL_error(L, "out of memory for \"%s\"", name);
        memcpy(t->name, name, len + 1);
        m->track_count++;
    }
    lua_pushinteger(L, (lua_Integer)i);
    return 1;
}

/* start(): due, now. The first thing that an iteration measures has the iteration's due time. */
static int meter_start(lua_State *L) {
    struct jl_times *t = jl_own_times(L);
    int64_t now = jl_now(L), due = t->due ? t->due : now;
    t->due = 0;
    lua_pushnumber(L, (lua_Number)due);
    lua_pushnumber(L, (lua_Number)now);
    return 2;
}

/* stop(track, due, start [, error]) */
static int meter_stop(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    int64_t due = (int64_t)luaL_checknumber(L, 3), start = (int64_t)luaL_checknumber(L, 4);
    if (i < 0 || i >= (lua_Integer)m->track_count) luaL_argerror(L, 2, "track expected");
    struct track *t = track_at(m, (uint32_t)i);
    if (!t || due < m->from) return 0;
    if (!lua_isnoneornil(L, 5)) {
        record_error(t, "failed");
        return 0;
    }
    int64_t now = jl_now(L);
    jdb_histogram_record(t->now.of[RESPONSE], span(due, now));
    jdb_histogram_record(t->now.of[SERVICE], span(start, now));
    return 0;
}

/* add(track, ns): a duration that somebody else measured. */
static int meter_add(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    lua_Integer i = luaL_checkinteger(L, 2);
    lua_Number ns = luaL_checknumber(L, 3);
    if (i < 0 || i >= (lua_Integer)m->track_count) luaL_argerror(L, 2, "track expected");
    struct track *t = track_at(m, (uint32_t)i);
    uint64_t value = ns > 0 ? (uint64_t)ns : 0;
    if (!t || jl_now(L) < m->from) return 0;
    jdb_histogram_record(t->now.of[RESPONSE], value);
    jdb_histogram_record(t->now.of[SERVICE], value);
    return 0;
}

/* ever(): bytes written and operations failed, warm-up included. */
static int meter_ever(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    jl_push_size(L, m->written);
    jl_push_size(L, m->failed);
    return 2;
}

/* ---- telling -------------------------------------------------------------------------------- */

static void push_histogram(lua_State *L, const jdb_histogram *h) {
    int filled = 0;
    lua_createtable(L, 0, 5);
    jl_set_size(L, "n", h->n);
    jl_set_size(L, "sum_ns", h->sum);
    jl_set_size(L, "min_ns", h->min);
    jl_set_size(L, "max_ns", h->max);
    lua_newtable(L);
    unsigned last = h->n ? jdb_histogram_bucket(h->max) : 0;
    for (unsigned i = h->n ? jdb_histogram_bucket(h->min) : 1; i <= last; i++) {
        if (h->counts[i] == 0) continue;
        lua_createtable(L, 2, 0);
        jl_push_size(L, jdb_histogram_lower(i, NULL));
        lua_rawseti(L, -2, 1);
        jl_push_size(L, h->counts[i]);
        lua_rawseti(L, -2, 2);
        lua_rawseti(L, -2, ++filled);
    }
    lua_setfield(L, -2, "hist");
}

static void push_sums(lua_State *L, const struct track *t, const struct sums *s) {
    lua_createtable(L, 0, 8);
    jl_set_text(L, "name", t->name);
    jl_set_size(L, "n", s->of[RESPONSE]->n);
    jl_set_size(L, "bytes", s->bytes);
    push_histogram(L, s->of[RESPONSE]);
    lua_setfield(L, -2, "response");
    push_histogram(L, s->of[SERVICE]);
    lua_setfield(L, -2, "service");
}

static void end_interval(struct track *t, int keep) {
    for (int k = 0; k < KINDS; k++) {
        if (keep) jdb_histogram_merge(t->total.of[k], t->now.of[k]);
        if (t->now.of[k]->n) memset(t->now.of[k], 0, sizeof *t->now.of[k]);
    }
    if (keep) {
        t->total.bytes += t->now.bytes;
        t->total.errors += t->now.errors;
    }
    t->now.bytes = t->now.errors = 0;
}

/* take(keep): what was recorded since the last call, a table for each track; it is added to the
 * totals, or forgotten (warm-up); errors are kept by name in any case. */
static int meter_take(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    int keep = lua_toboolean(L, 2), count = 0;
    lua_newtable(L);
    for (uint32_t i = 0; i < m->track_count; i++) {
        struct track *t = m->tracks[i];
        if (!t || !t->memory || (t->now.of[RESPONSE]->n == 0 && t->now.errors == 0)) continue;
        push_sums(L, t, &t->now);
        jl_set_size(L, "errors", t->now.errors);
        end_interval(t, keep);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* totals(): what was taken with keep, with lag and the errors by name. */
static int meter_totals(lua_State *L) {
    struct jl_meter *m = check_meter(L);
    int count = 0;
    lua_newtable(L);
    for (uint32_t i = 0; i < m->track_count; i++) {
        const struct track *t = m->tracks[i];
        if (!t || !t->memory || (t->total.of[RESPONSE]->n == 0 && !t->error_names[0])) continue;
        push_sums(L, t, &t->total);
        push_histogram(L, t->total.of[LAG]);
        lua_setfield(L, -2, "lag");
        lua_newtable(L);
        for (int e = 0; e < ERRORS_MAX && t->error_names[e]; e++)
            jl_set_size(L, t->error_names[e], t->error_counts[e]);
        lua_setfield(L, -2, "errors");
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* ---- histograms, clocks, signals ------------------------------------------------------------ */

/* histogram(list of ns): the same table as meters tell; for what a script measured itself. */
static int histogram(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTABLE);
    size_t n = lua_rawlen(L, 1);
    jdb_histogram *h = lua_newuserdata(L, sizeof *h);
    memset(h, 0, sizeof *h);
    for (size_t i = 1; i <= n; i++) {
        lua_rawgeti(L, 1, (int)i);
        double ns = lua_tonumber(L, -1);
        jdb_histogram_record(h, ns > 0 ? (uint64_t)(ns + 0.5) : 0);
        lua_pop(L, 1);
    }
    push_histogram(L, h);
    return 1;
}

static int now_ns(lua_State *L) {
    lua_pushnumber(L, (lua_Number)jl_now(L));
    return 1;
}

/* cpu(): CPU seconds of the process, and of this thread. */
static int cpu(lua_State *L) {
    lua_pushnumber(L, (lua_Number)jdb_cpu(0) / 1e9);
    lua_pushnumber(L, (lua_Number)jdb_cpu(1) / 1e9);
    return 2;
}

static int catch_signals(lua_State *L) {
    jdb_catch_signals(lua_toboolean(L, 1));
    return 0;
}

/* signalled(): the number of the signal that was caught, or nil. */
static int signalled(lua_State *L) {
    int number = jdb_signal();
    if (!number) return 0;
    lua_pushinteger(L, number);
    return 1;
}

/* terminal(fd): columns and lines of a terminal, or nothing. */
static int terminal(lua_State *L) {
    int columns, lines;
    if (!jdb_terminal((int)luaL_checkinteger(L, 1), &columns, &lines)) return 0;
    lua_pushinteger(L, columns);
    lua_pushinteger(L, lines);
    return 2;
}

/* remove_directory(path): true, or nil and a sentence; of an empty one, while nothing else runs. */
static int remove_directory(lua_State *L) {
    char text[JDB_MESSAGE_MAX];
    const char *path = luaL_checkstring(L, 1);
    jdb_failure failure = {.op = "remove_directory", .path = path, .offset = -1, .index = -1};
    failure.error = -jdb_remove_directory(path);
    if (failure.error) {
        failure.kind = jdb_kind_of_errno(failure.error);
        jdb_failure_message(&failure, text, sizeof text);
        lua_pushnil(L);
        lua_pushstring(L, text);
        return 2;
    }
    lua_pushboolean(L, 1);
    return 1;
}

/* timing(false): operations no longer carry times. */
static int timing(lua_State *L) {
    jl_state *S = jl_self(L);
    if (S->queue) jdb_queue_timing(S->queue, lua_toboolean(L, 1));
    return 0;
}

/* batching(submit, wait): operations of one kernel entry, completions awaited; 0: by rule. */
static int batching(lua_State *L) {
    jdb_failure failure;
    jdb_queue *q = jl_queue(L, &failure);
    lua_Integer submit = luaL_checkinteger(L, 1), wait = luaL_checkinteger(L, 2);
    if (submit < 0 || submit > JDB_DEPTH_MAX) luaL_argerror(L, 1, "0 to 4096 expected");
    if (wait < 0 || wait > JDB_DEPTH_MAX) luaL_argerror(L, 2, "0 to 4096 expected");
    if (!q) {
        failure.op = "batching";
        return jl_fail(L, &failure);
    }
    jdb_queue_batch(q, (uint32_t)submit, (uint32_t)wait);
    lua_pushboolean(L, 1);
    return 1;
}

int jl_open_measure(lua_State *L) {
    static const luaL_Reg meter_meta[] = {{"__gc", meter_gc}, {NULL, NULL}};
    static const luaL_Reg meter_methods[] = {{"close", meter_close},   {"from", meter_from},
                                             {"track", meter_track},   {"start", meter_start},
                                             {"stop", meter_stop},     {"take", meter_take},
                                             {"totals", meter_totals}, {"ever", meter_ever},
                                             {"add", meter_add},       {NULL, NULL}};
    static const luaL_Reg functions[] = {{"meter", meter_new},
                                         {"measure", measure},
                                         {"histogram", histogram},
                                         {"now_ns", now_ns},
                                         {"cpu", cpu},
                                         {"catch_signals", catch_signals},
                                         {"timing", timing},
                                         {"batching", batching},
                                         {"signalled", signalled},
                                         {"terminal", terminal},
                                         {"remove_directory", remove_directory},
                                         {NULL, NULL}};
    jl_state *S = jl_self(L);
    S->ref_meter_meta = jl_new_class(L, "jdbfs.meter", meter_methods, meter_meta);
    lua_newtable(L);
    S->ref_meters = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_newtable(L);
    lua_newtable(L);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    S->ref_times = luaL_ref(L, LUA_REGISTRYINDEX);
    jl_register(L, functions);
    return 0;
}
