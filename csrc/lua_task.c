/* lua_task.c: tasks, and the loop that drives them.
 *
 * A method that waits ends in a yield of its own coroutine; the loop below reaps completions,
 * pushes the results and resumes. Only a task is ever yielded: a coroutine that jdbfs did not
 * start gets its operation completed in place, a generator made by jdbfs.wrap hands its wait
 * outward to the task that called it.
 *
 * A task is resumed for exactly one reason: the operation in `op`, its timer, a wake, the end of
 * the task it joined. Whatever else arrives for it is dropped. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "lua_jdb.h"

const char jl_magic_task = 0;

enum goal { GOAL_STEP, GOAL_RUN, GOAL_TASK, GOAL_TOKEN };
enum place { IN_PLACE, IN_TASK, IN_GENERATOR, IN_HOST };

/* What a dispatcher does at most before the host's other work gets its turn. */
enum { HOST_TURNS = 16 };

static void cancel(jl_state *S, jl_task *t);

static jl_task *check_task(lua_State *L, int i) {
    jl_task *t = jl_test(L, i, &jl_magic_task, sizeof *t);
    if (!t) luaL_argerror(L, i, "jdbfs task expected");
    return t;
}

/* ---- ready list and timers ------------------------------------------------------------------ */

static inline void note_ready(jl_state *S, jl_task *t) {
    if (t->times) t->times->ready = jdb_queue_now(S->queue);
    t->state = JL_READY;
}

/* A chain of them. */
static inline void append_ready(jl_state *S, jl_task *first, jl_task *last) {
    last->next = NULL;
    if (S->ready_tail) S->ready_tail->next = first;
    else S->ready_head = first;
    S->ready_tail = last;
    if (!S->running && S->queue) jdb_queue_signal(S->queue);
}

static void make_ready(jl_state *S, jl_task *t) {
    note_ready(S, t);
    append_ready(S, t, t);
}

/* Its light thread is to go on: the dispatcher finds it here. */
static void wake_guest(jl_state *S, jl_task *t) {
    S->goal.resumed++;
    t->state = JL_READY;
    t->next = NULL;
    if (S->woken_tail) S->woken_tail->next = t;
    else S->woken_head = t;
    S->woken_tail = t;
}

static jl_task *next_ready(jl_state *S) {
    jl_task *t = S->ready_head;
    if (!t) return NULL;
    S->ready_head = t->next;
    if (!S->ready_head) S->ready_tail = NULL;
    t->next = NULL;
    return t;
}

static void place_timer(jl_state *S, uint32_t i, struct jl_timer timer) {
    S->timers[i] = timer;
    timer.task->timer = i + 1;
}

static void sift_up(jl_state *S, uint32_t i) {
    struct jl_timer timer = S->timers[i];
    while (i > 0 && S->timers[(i - 1) / 2].when > timer.when) {
        place_timer(S, i, S->timers[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    place_timer(S, i, timer);
}

static void sift_down(jl_state *S, uint32_t i) {
    struct jl_timer timer = S->timers[i];
    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= S->timer_count) break;
        if (child + 1 < S->timer_count && S->timers[child + 1].when < S->timers[child].when)
            child++;
        if (S->timers[child].when >= timer.when) break;
        place_timer(S, i, S->timers[child]);
        i = child;
    }
    place_timer(S, i, timer);
}

/* Raises when out of memory, before anything has changed. */
static void reserve_timer(lua_State *L, jl_state *S) {
    if (S->timer_count < S->timer_room) return;
    uint32_t room = S->timer_room ? 2 * S->timer_room : 16;
    struct jl_timer *grown = realloc(S->timers, room * sizeof *grown);
    if (!grown) luaL_error(L, "out of memory for a timer");
    S->timers = grown;
    S->timer_room = room;
}

static void add_timer(jl_state *S, jl_task *t, int64_t when) {
    S->timers[S->timer_count].when = when;
    S->timers[S->timer_count].task = t;
    sift_up(S, S->timer_count++);
}

static void remove_timer(jl_state *S, jl_task *t) {
    uint32_t i = t->timer - 1;
    t->timer = 0;
    if (S->closed) return; /* a finalizer after the state's own: the heap is gone */
    if (i == --S->timer_count) return;
    S->timers[i] = S->timers[S->timer_count];
    S->timers[i].task->timer = i + 1;
    sift_up(S, i);
    sift_down(S, S->timers[i].task->timer - 1);
}

static inline void drop_timer(jl_state *S, jl_task *t) {
    if (t->timer) remove_timer(S, t);
}

/* ---- waiting -------------------------------------------------------------------------------- */

static void add_joiner(jl_task *t, jl_task *waiter) {
    waiter->next = t->joiners;
    t->joiners = waiter;
    waiter->joined = t;
}

static void leave_joined(jl_task *t) {
    if (!t->joined) return;
    for (jl_task **link = &t->joined->joiners; *link; link = &(*link)->next)
        if (*link == t) {
            *link = t->next;
            break;
        }
    t->joined = t->next = NULL;
    t->owns = t->joins = 0;
}

/* Ends whatever the task waits for; the reason may still happen, it finds nobody. */
static inline void forget_wait(jl_state *S, jl_task *t) {
    if (t == S->current) S->begin = NULL;
    if (!t->replies && t->op && !S->closed) jdb_op_abandon(S->queue, t->op);
    t->op = NULL;
    t->parked = t->expired = t->yielding = t->replies = t->answered = t->joins = 0;
    drop_timer(S, t);
    leave_joined(t);
}

/* The task this coroutine was started as, or NULL. */
static jl_task *task_of(lua_State *L, jl_state *S) {
    jl_push_ref(L, S->ref_anchors);
    lua_pushthread(L);
    lua_rawget(L, -2);
    jl_task *t = lua_touserdata(L, -1);
    lua_pop(L, 2);
    return t;
}

static int is_generator(lua_State *L, jl_state *S) {
    jl_push_ref(L, S->ref_generators);
    lua_pushthread(L);
    lua_rawget(L, -2);
    int yes = lua_toboolean(L, -1);
    lua_pop(L, 2);
    return yes;
}

/* How a wait in this coroutine is done; nothing is changed. */
static inline enum place place(lua_State *L, jl_state *S) {
    jl_task *t = S->current;
    if (t && t->co == L) return jl_yieldable(L) ? IN_TASK : IN_PLACE;
    if (S->guest && lua_toboolean(L, lua_upvalueindex(2))) return IN_HOST;
    if (S->tasks == 0) return IN_PLACE;
    luaL_checkstack(L, 4, "wait");
    jl_task *self = task_of(L, S);
    if (self && !jl_ended(self))
        luaL_error(L, "this task is suspended in a wait: only jdbfs may resume it");
    if (t && is_generator(L, S) && jl_yieldable(L)) return IN_GENERATOR;
    return IN_PLACE;
}

int jl_ending(lua_State *L) {
    jl_state *S = jl_self(L);
    if (S->running && !S->current) return 1;
    /* Closed by hand, while its task waits. */
    if (S->tasks == 0 || (S->current && S->current->co == L)) return 0;
    const jl_task *t = task_of(L, S);
    return t && !jl_ended(t);
}

/* Runs when a suspended task goes on (5.2 and later). */
int jl_after_wait(lua_State *L, const void *state) {
    const jl_state *S = state;
    if (!S->current || S->current->co != L)
        return luaL_error(L, "this task is suspended in a wait: only jdbfs may resume it");
    return S->given;
}

/* The task, or guest, that waits. */
static jl_task *waiter(jl_state *S, enum place where) {
    return where == IN_HOST ? S->guest : S->current;
}

static void set_alarm(jl_state *S);

/* The wait has begun; the caller, in Lua, now asks the host to suspend the light thread. */
static int suspend_guest(lua_State *L, jl_state *S) {
    jl_task *t = S->guest;
    S->guest = NULL;
    if (t->yielding) {
        make_ready(S, t);
    } else {
        t->state = JL_WAITING;
        set_alarm(S);
    }
    jl_push_ref(L, S->ref_pending);
    return 1;
}

/* The yield itself, with a mark by which the loop tells it from a yield of the program. A
 * generator tells its caller, jdbfs.wrap, to wait in its stead. */
static inline int suspend(lua_State *L, jl_state *S, enum place where) {
    if (where == IN_TASK && JL_KNOWS_YIELDABLE) { /* this yield cannot raise: the flag will do */
        S->suspends = 1;
        return jl_yield(L, 0, S);
    }
    lua_settop(L, 0);
    if (where == IN_HOST) return suspend_guest(L, S);
    if (where == IN_GENERATOR) {
        jl_push_ref(L, S->ref_pending);
        return lua_yield(L, 1);
    }
    S->suspends = 1;
    lua_pushlightuserdata(L, (void *)(uintptr_t)&jl_magic_task);
    return jl_yield(L, 1, S);
}

/* The task has yielded for the operation in `spare`. */
static void commit(jl_state *S, jl_task *t) {
    jdb_op *op = S->spare;
    forget_wait(S, t);
    S->spare = NULL;
    t->op = op;
    struct jl_times *times = t->times;
    if (times) {
        times->op_due = times->due ? times->due : times->ready;
        times->due = 0;
    }
    jdb_op_set_waiter(op, t);
    jdb_submit(S->queue, op);
}

/* Pushes onto `to` what the call returns and releases the operation. Raises when Lua is out of
 * memory; the operation is then released by whoever comes next. */
static int push_and_release(lua_State *L, lua_State *to, jl_state *S, jdb_op *op) {
    if (jl_push_count(to, op)) { /* takes no memory */
        jdb_op_release(S->queue, op);
        return 1;
    }
    unsigned before = S->delivering_count;
    if (before < JL_NESTED_MAX) {
        S->delivering[before].op = op;
        S->delivering[before].frame = (uintptr_t)__builtin_frame_address(0);
        S->delivering_count++;
    }
    int n = jl_push_result(L, op);
    /* Those behind it: raised meanwhile, in finalizers. */
    while (S->delivering_count > before + 1)
        jdb_op_release(S->queue, S->delivering[--S->delivering_count].op);
    if (S->delivering_count > before) S->delivering_count = before;
    jdb_op_release(S->queue, op);
    if (to != L) lua_xmove(L, to, n);
    return n;
}

/* Submits at once: the light thread is suspended by other means than a yield of ours. */
static int begin_hosted(lua_State *L, jl_state *S, jdb_op *op) {
    jl_task *t = S->guest;
    S->spare = NULL;
    t->op = op;
    t->queue = S->queue;
    jdb_op_set_waiter(op, t);
    jdb_submit(S->queue, op);
    if (!S->hold) jdb_queue_flush(S->queue);
    return suspend(L, S, IN_HOST);
}

static int is_inherited(const jl_state *S, const jdb_op *op) {
    const jdb_file *file = S->inherited ? jdb_op_file(op) : NULL;
    return file && jdb_file_queue(file) != S->queue;
}

int jl_run_op(lua_State *L, jl_state *S, jdb_op *op) {
    enum place where = place(L, S);
    if (is_inherited(S, op)) {
        const char *name = jdb_code_name(jdb_op_code(op));
        lua_pushstring(L, jdb_file_path(jdb_op_file(op))); /* kept while the message is made */
        jl_drop(S, op);
        return jl_fail_kind(L, JDB_FORKED, name, lua_tostring(L, -1), NULL);
    }
    if (where == IN_HOST) return begin_hosted(L, S, op);
    if (where == IN_PLACE) {
        S->spare = NULL;
        jdb_submit(S->queue, op);
        jdb_queue_wait_op(S->queue, op);
        return push_and_release(L, L, S, op);
    }
    S->begin = commit;
    return suspend(L, S, where);
}

/* ---- the end of a task ---------------------------------------------------------------------- */

static lua_State *push_thread(lua_State *L, lua_State *co) {
    lua_pushthread(co);
    if (co != L) lua_xmove(co, L, 1);
    return co;
}

void jl_push_task(lua_State *L, jl_state *S, jl_task *t) {
    jl_push_ref(L, S->ref_anchors);
    push_thread(L, t->co);
    lua_rawget(L, -2);
    lua_remove(L, -2);
}

/* Runs the to-be-closed variables of a coroutine that will not go on. 0, or the error on top. */
static int close_coroutine(lua_State *L, jl_state *S, lua_State *co) {
    jl_push_ref(L, S->ref_close);
    if (lua_isnil(L, -1)) {
        lua_pop(L, 1);
        return 0;
    }
    push_thread(L, co);
    int status = lua_pcall(L, 1, 2, 0);
    if (status == LUA_OK && lua_toboolean(L, -2)) {
        lua_pop(L, 2);
        return 0;
    }
    if (status == LUA_OK) lua_remove(L, -2);
    return 1;
}

/* results[task] = {...}, of the values on top of its coroutine; takes the task from the stack. Not
 * the coroutine: its stack may refer to the task, and such a circle would never be collected. */
static void keep_results(lua_State *L, jl_state *S, lua_State *co, int n) {
    luaL_checkstack(L, n + 8, "task");
    lua_xmove(co, L, n); /* first: what takes memory may run finalizers, that use the coroutine */
    lua_createtable(L, n, 0);
    lua_insert(L, -n - 1);
    for (int i = n; i > 0; i--) lua_rawseti(L, -i - 1, i);
    jl_push_ref(L, S->ref_results);
    lua_insert(L, -3);
    lua_rawset(L, -3);
    lua_pop(L, 1);
}

/* Whether the coroutine is where the task left it. */
static inline int suspended(const jl_task *t) {
    if (t->started) return lua_status(t->co) == LUA_YIELD;
    return lua_status(t->co) == LUA_OK && lua_gettop(t->co) == t->values + 1;
}

/* A coroutine that returned, with n results, can run another function: kept for the next task, but
 * not when the program left something in it. It stays anchored. */
static int keep_coroutine(lua_State *L, jl_state *S, lua_State *co, int n) {
    if (S->idle_count == JL_IDLE_MAX || lua_status(co) != LUA_OK || lua_gettop(co) != n) return 0;
    if (lua_gethook(co) != lua_gethook(L) || !jl_same_globals(L, co)) return 0;
    S->idle[S->idle_count++] = co;
    return 1;
}

/* What join returns, for those who wait in it: the results, or the mark by which it knows that it
 * has to ask. */
static void answer_joiners(jl_task *t, lua_State *co, int n, int done) {
    for (jl_task *j = t->joiners; j; j = j->next) {
        if (!j->joins || !suspended(j)) continue;
        if (done && n < LUA_MINSTACK / 2) { /* so many have room on any stack */
            for (int i = 0; i < n; i++) lua_pushvalue(co, -n);
            if (n > 0) lua_xmove(co, j->co, n);
            j->values = n;
        } else {
            lua_pushlightuserdata(j->co, (void *)(uintptr_t)&jl_magic_task);
            j->values = 1;
        }
        j->answered = 1;
    }
}

/* In the order in which they came: the last of them is the first of the list. */
static void wake_joiners(jl_state *S, jl_task *t) {
    jl_task *first = NULL, *last = t->joiners;
    for (jl_task *j = last, *after; j; j = after) {
        after = j->next;
        j->joined = NULL;
        j->owns = j->joins = 0;
        drop_timer(S, j);
        note_ready(S, j);
        j->next = first;
        first = j;
    }
    t->joiners = NULL;
    if (first) append_ready(S, first, last);
}

/* Takes the task out of the books and wakes who waited for it. t->values values lie on top of
 * its stack: they are kept as long as somebody has the handle. Keeping them may raise, when Lua is
 * out of memory: the task has then failed, and nothing holds it any more. */
static void finish(lua_State *L, jl_state *S, jl_task *t, enum jl_task_state state) {
    lua_State *co = t->co;
    int n = t->values;
    forget_wait(S, t);
    t->state = (uint8_t)(n > 0 ? JL_FAILED : state);
    t->values = 0;
    t->co = NULL;
    S->tasks--;
    jl_measure_end(t);
    if (S->run && t->run == S->run) S->alive--;
    if (t->joiners) {
        answer_joiners(t, co, n, state == JL_DONE);
        wake_joiners(S, t);
    }
    /* What is anchored beside a coroutine that is kept is the last task that ran in it: without
     * results that is nothing but its handle. */
    if (n == 0 && state == JL_DONE && keep_coroutine(L, S, co, 0)) return;
    jl_push_ref(L, S->ref_anchors);
    push_thread(L, co); /* still needed when it is no longer anchored */
    lua_pushvalue(L, -1);
    if (n > 0) {
        lua_pushvalue(L, -1);
        lua_rawget(L, -4); /* the userdata */
        lua_insert(L, -2);
    }
    if (n > 0 && state == JL_DONE && keep_coroutine(L, S, co, n)) lua_pushboolean(L, 0);
    else lua_pushnil(L);
    lua_rawset(L, n > 0 ? -5 : -4);
    if (n > 0) {
        keep_results(L, S, co, n);
        t->values = n;
        t->state = (uint8_t)state;
    }
    lua_pop(L, 2);
}

/* Ends a task that is suspended or was never started. */
static void kill(lua_State *L, jl_state *S, jl_task *t) {
    if (t->owns) cancel(S, t->joined);
    forget_wait(S, t);
    t->state = JL_CANCELLED; /* what its variables do while closing completes in place */
    int failed = close_coroutine(L, S, t->co);
    lua_settop(t->co, 0); /* with what it was to be resumed with */
    t->values = 0;
    finish(L, S, t, JL_CANCELLED);
    if (failed) lua_error(L);
}

/* The task raised; the error lies on top of its stack. It stops the run unless somebody asked
 * for it. */
static void failed(lua_State *L, jl_state *S, jl_task *t) {
    luaL_checkstack(L, 6, "task");
    lua_xmove(t->co, L, 1);
    jl_push_ref(L, S->ref_traceback);
    push_thread(L, t->co);
    lua_pushvalue(L, -3);
    if (lua_pcall(L, 2, 1, 0) != LUA_OK) { /* no debug library: the message must do */
        lua_pop(L, 1);
        lua_pushvalue(L, -1);
    }
    /* Stack: error, error with traceback. What its variables do now completes in place. */
    t->state = JL_FAILED;
    if (close_coroutine(L, S, t->co)) lua_pop(L, 1);
    lua_settop(t->co, 0);
    lua_pushvalue(L, -2);
    lua_xmove(L, t->co, 1);
    t->values = 1;
    finish(L, S, t, JL_FAILED);
    if (t->caught) lua_pop(L, 2);
    else lua_error(L);
}

/* Somebody else resumed the coroutine while it waited, and it ended or went astray. */
static void stolen(lua_State *L, jl_state *S, jl_task *t) {
    lua_settop(t->co, 0);
    lua_pushliteral(L, "a task that waited was resumed by hand");
    lua_xmove(L, t->co, 1);
    t->values = 1;
    finish(L, S, t, JL_FAILED);
}

/* ---- resuming ------------------------------------------------------------------------------- */

static int is_ours(jl_state *S, const jl_task *t, int status, int n) {
    int suspends = S->suspends && status == LUA_YIELD && n == !JL_KNOWS_YIELDABLE;
    S->suspends = 0;
    /* One that raised leaves the flag, and may be followed by a yield of the program. */
    if (JL_KNOWS_YIELDABLE || !suspends) return suspends;
    return lua_touserdata(t->co, -1) == (const void *)&jl_magic_task;
}

static void begin_nothing(jl_state *S, jl_task *t) {
    (void)S;
    (void)t;
}

/* may_wait(): raises where a wait in this task would. Where only a yield can tell, the task goes on
 * at once. */
static int task_may_wait(lua_State *L) {
    if (JL_KNOWS_YIELDABLE) return 0;
    jl_state *S = jl_self(L);
    if (place(L, S) != IN_TASK) return 0;
    S->begin = begin_nothing;
    return suspend(L, S, IN_TASK);
}

static void resume(lua_State *L, jl_state *S, jl_task *t, int nargs) {
    int n;
    t->started = 1;
    t->state = JL_RUNNING;
    S->current = t;
    S->given = nargs;
    int status = jl_resume(t->co, L, nargs, &n);
    while (!JL_KNOWS_YIELDABLE && S->begin == begin_nothing && is_ours(S, t, status, n)) {
        S->begin = NULL;
        lua_pop(t->co, n);
        S->given = 0;
        status = jl_resume(t->co, L, 0, &n);
    }
    int ours = is_ours(S, t, status, n);
    void (*begin)(jl_state *, jl_task *) = ours && !t->cancelled ? S->begin : NULL;
    S->current = NULL;
    S->begin = NULL;
    S->goal.resumed++;
    /* Prepared for a wait that raised or was not awaited: nothing holds file and buffer now. */
    if (S->spare && begin != commit) {
        jdb_op_release(S->queue, S->spare);
        S->spare = NULL;
    }
    if (status == LUA_YIELD) {
        if (n > 0) lua_pop(t->co, n);
        if (t->cancelled) {
            kill(L, S, t);
        } else if (begin) {
            t->state = JL_WAITING;
            begin(S, t);
        } else if (ours && !t->yielding) {
            t->state = JL_WAITING;
        } else {
            /* It gives way to the others. A wait that raised instead of yielding is over. */
            forget_wait(S, t);
            make_ready(S, t);
        }
    } else if (status == LUA_OK) {
        t->values = n;
        finish(L, S, t, JL_DONE);
    } else {
        failed(L, S, t);
    }
}

/* The light thread fetches the result itself. */
static void wake_guest_or_driver(jl_state *S, jl_task *t, jdb_op *op) {
    if (!t->driver) {
        wake_guest(S, t);
        return;
    }
    t->op = NULL;
    t->state = JL_WAITING;
    ((jl_driver *)t)->go_on(S, (jl_driver *)t, op);
}

static void run_ready(lua_State *L, jl_state *S, jl_task *t) {
    if (t->guest) {
        wake_guest_or_driver(S, t, NULL);
        return;
    }
    if (t->kill) {
        kill(L, S, t);
        return;
    }
    if (!suspended(t)) {
        stolen(L, S, t);
        return;
    }
    if (!t->started) {
        resume(L, S, t, t->values);
        return;
    }
    int n = 1;
    if (t->answered) n = t->values;
    else if (t->replies) jl_push_size(t->co, t->reply);
    else lua_pushboolean(t->co, !t->expired);
    t->expired = t->replies = t->answered = 0;
    t->op = NULL;
    resume(L, S, t, n);
}

static void deliver(lua_State *L, jl_state *S, jdb_op *op) {
    jl_task *t = jdb_op_waiter(op);
    if (!t || t->replies || t->op != op || t->state != JL_WAITING) {
        if (t && !t->replies && t->op == op) t->op = NULL;
        jdb_op_release(S->queue, op);
        return;
    }
    if (t->guest) {
        wake_guest_or_driver(S, t, op);
        return;
    }
    t->op = NULL;
    if (t->times) jl_measure_op(S, t, op);
    if (!suspended(t)) {
        jdb_op_release(S->queue, op);
        stolen(L, S, t);
        return;
    }
    int n = push_and_release(L, t->co, S, op);
    resume(L, S, t, n);
}

/* ---- the loop ------------------------------------------------------------------------------- */

/* Every task that is ready now and every completion that is there; what they make ready waits for
 * the next turn, so that nobody starves. */
static void turn(lua_State *L, jl_state *S) {
    jl_task *last = S->ready_tail, *t;
    for (uint64_t n = jdb_queue_finished(S->queue); n > 0; n--) {
        jdb_op *op = jdb_queue_next(S->queue);
        if (op) deliver(L, S, op);
    }
    while (last && (t = next_ready(S))) {
        int end = t == last;
        run_ready(L, S, t);
        if (end) break;
    }
}

static void fire_timers(jl_state *S) {
    if (S->timer_count == 0) return;
    int64_t now = jdb_queue_now(S->queue);
    while (S->timer_count > 0 && S->timers[0].when <= now) {
        jl_task *t = S->timers[0].task;
        drop_timer(S, t);
        if (t->state != JL_WAITING) continue;
        t->expired = t->joined != NULL;
        leave_joined(t);
        make_ready(S, t);
    }
}

static int reached(lua_State *L, const jl_state *S) {
    switch (S->goal.kind) {
    case GOAL_RUN: return S->alive == 0;
    case GOAL_TASK: return jl_ended(S->goal.task);
    case GOAL_TOKEN: {
        lua_getfield(L, 1, "woken");
        int yes = lua_toboolean(L, -1);
        lua_pop(L, 1);
        return yes;
    }
    default: return S->goal.resumed > 0;
    }
}

/* A push raised: no memory for the results. The task that waited for them cannot go on. A push
 * that runs, and whose allocation has run the finalizer that calls us, lies above `frame` on the C
 * stack, which grows down: it is not ours to end. One that raised up there is dropped by a later
 * call. */
static void drop_delivering(jl_state *S, uintptr_t frame) {
    while (S->delivering_count > 0 && S->delivering[S->delivering_count - 1].frame <= frame) {
        jdb_op *op = S->delivering[--S->delivering_count].op;
        jl_task *t = jdb_op_waiter(op);
        if (!S->closed && t && t->state == JL_WAITING && !t->op) cancel(S, t);
        jdb_op_release(S->queue, op);
    }
}

/* How long the loop may sleep: < 0 for ever, 0 not at all. */
static int64_t sleep_limit(const jl_state *S) {
    int64_t when = S->goal.until;
    if (S->timer_count > 0 && (when < 0 || S->timers[0].when < when)) when = S->timers[0].when;
    if (when < 0) return -1;
    int64_t rest = when - jdb_queue_now(S->queue);
    return rest > 0 ? rest : 0;
}

static int stuck(const jl_state *S) {
    return jdb_queue_pending(S->queue) == 0 && S->timer_count == 0;
}

/* Lua's own interrupt (Ctrl-C in the stand-alone interpreter) is a debug hook: give it a chance. */
static void interruptible(lua_State *L, const jl_state *S) {
    if (!lua_gethook(L)) return;
    jl_push_ref(L, S->ref_nothing);
    lua_call(L, 0, 0);
}

/* A host that watches the descriptor sleeps until it is signalled, also for timers. */
static void set_alarm(jl_state *S) {
    if (!S->polled || S->timer_count == 0) return;
    int64_t when = S->timers[0].when;
    if (S->alarm_at <= when && S->alarm_at > jdb_queue_now(S->queue)) return;
    S->alarm_at = jdb_queue_alarm(S->queue, when) == 0 ? when : INT64_MAX;
}

/* Ends every task of earlier runs, and of this one when asked to, whatever they wait for. */
static void end_tasks(lua_State *L, jl_state *S, int of_this_run) {
    jl_task *t, *last;
    jl_push_ref(L, S->ref_anchors);
    int anchors = lua_gettop(L);
    lua_pushnil(L);
    while (lua_next(L, anchors)) {
        t = lua_touserdata(L, -1);
        lua_pop(L, 1);
        if (!t || jl_ended(t)) continue; /* an idle coroutine */
        if (t->run == 0 || (t->run == S->run && !of_this_run)) continue;
        cancel(S, t);
        t->kill = 1;
    }
    lua_pop(L, 1);
    for (last = S->ready_tail; last && (t = next_ready(S));) {
        int end = t == last;
        if (t->kill) kill(L, S, t);
        else make_ready(S, t);
        if (end) break;
    }
}

/* drive([token]): until S->goal is reached. */
static int drive(lua_State *L) {
    jl_state *S = jl_self(L);
    const uint32_t *forks = jdb_forks(), forked = *forks;
    if (S->leftover) end_tasks(L, S, 0);
    S->leftover = 0;
    if (S->goal.kind == GOAL_STEP) jdb_queue_reap(S->queue, 0);
    for (;;) {
        fire_timers(S);
        turn(L, S);
        if (reached(L, S)) break;
        if (*forks != forked)
            return luaL_error(L, "the queue belongs to the parent process (Forked)");
        interruptible(L, S);
        if (S->ready_head) {
            if (jdb_queue_pending(S->queue) > 0) jdb_queue_reap(S->queue, 0);
            continue;
        }
        int64_t limit = sleep_limit(S);
        if (stuck(S)) {
            if (S->goal.kind == GOAL_STEP) break;
            if (S->goal.until < 0)
                return luaL_error(
                    L, "deadlock: %d tasks wait, and nothing is left that could wake one",
                    (int)S->tasks);
        }
        if (limit == 0 && S->goal.until >= 0 && jdb_queue_now(S->queue) >= S->goal.until) break;
        jdb_queue_reap(S->queue, limit);
    }
    jdb_queue_flush(S->queue);
    return 0;
}

static int probe_yield(lua_State *L) {
    int r = lua_yield(L, 0);
    jl_self(L)->probed = 1;
    return r;
}

static lua_State *new_probe(lua_State *L, jl_state *S) {
    lua_State *co = lua_newthread(L);
    lua_pushvalue(L, -1);
    lua_rawseti(L, LUA_REGISTRYINDEX, S->ref_probe);
    if (luaL_loadstring(L, "local yield = ... while true do yield() end") != LUA_OK) lua_error(L);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, probe_yield, 1);
    lua_xmove(L, co, 2);
    return co;
}

/* Tasks driven from a finalizer on LuaJIT: its mistake about yields ends with the first one, which
 * does not come back. That one is made here, by a coroutine nobody needs afterwards. */
static void leave_finalizer(lua_State *L, jl_state *S) {
    int n;
    if (!JL_FINALIZERS_ARE_HOOKS) return;
    luaL_checkstack(L, 4, "probe");
    jl_push_ref(L, S->ref_probe);
    lua_State *co = lua_tothread(L, -1);
    int args = co ? 0 : 1;
    if (!co) co = new_probe(L, S);
    S->probed = 0;
    jl_resume(co, L, args, &n);
    lua_pop(L, 1 + args);
    if (S->probed) return;
    lua_pushboolean(L, 0);
    lua_rawseti(L, LUA_REGISTRYINDEX, S->ref_probe);
}

/* Drives under protection, so that `running` is cleared whatever happens. An optional token is on
 * top and is taken. 0, or the error on top. */
static int protected_drive(lua_State *L, jl_state *S, int args, int ref) {
    leave_finalizer(L, S);
    drop_delivering(S, (uintptr_t)__builtin_frame_address(0));
    S->running = 1;
    S->goal.resumed = 0;
    jl_push_ref(L, ref);
    if (args) lua_insert(L, -2);
    int status = lua_pcall(L, args, 0, 0);
    S->running = 0;
    S->current = NULL;
    /* A host that polls must hear of what is left, also after an error. */
    int left = S->ready_head || jdb_queue_finished(S->queue) > 0;
    if (left || (S->woken_head && !S->dispatching)) jdb_queue_signal(S->queue);
    set_alarm(S);
    return status;
}

static int64_t deadline(lua_State *L, int i) {
    luaL_checktype(L, i, LUA_TNUMBER);
    lua_Number s = lua_tonumber(L, i);
    if (!(s >= 0)) luaL_argerror(L, i, "seconds, 0 or more, expected");
    if (s > 1e9) s = 1e9;
    return jl_now(L) + (int64_t)(s * 1e9);
}

/* ---- spawn, run, step ----------------------------------------------------------------------- */

/* Arguments: the function, known to be one, and what it is called with. Pushes the task. */
static jl_task *spawn(lua_State *L, jl_state *S, int caught) {
    int nargs = lua_gettop(L) - 1;
    luaL_checkstack(L, nargs + 6, "spawn");
    if (JL_C_CANNOT_YIELD_FIRST && lua_iscfunction(L, 1)) {
        /* 5.1 cannot resume a coroutine whose first function is a C function. */
        jl_push_ref(L, S->ref_shell);
        lua_pushvalue(L, 1);
        lua_call(L, 1, 1);
        lua_replace(L, 1);
    }
    jl_task *t = jl_new(L, sizeof *t, &jl_magic_task, S->ref_task_meta);
    jl_push_ref(L, S->ref_anchors);
    int idle = S->idle_count; /* no memory is taken for one: nobody else takes it meanwhile */
    lua_State *co = idle ? push_thread(L, S->idle[idle - 1]) : lua_newthread(L);
    if (nargs > 10 && !lua_checkstack(co, nargs + 1)) luaL_error(L, "too many arguments");
    lua_pushvalue(L, -3);
    lua_rawset(L, -3); /* the last thing that can raise */
    if (idle) {
        S->idle_count--;
        lua_settop(co, 0); /* results that there was no memory to keep */
    }
    for (int i = 1; i <= nargs + 1; i++) lua_pushvalue(L, i);
    lua_xmove(L, co, nargs + 1);
    lua_pop(L, 1);
    t->co = co;
    t->values = nargs;
    t->caught = (uint8_t)caught;
    t->run = S->run;
    S->tasks++;
    if (S->run) S->alive++;
    make_ready(S, t);
    return t;
}

/* Pushes nil, message, err when there is no usable queue; 0 when there is one. */
static int need_queue(lua_State *L, const char *name) {
    jdb_failure failure;
    if (jl_queue(L, &failure)) return 0;
    failure.op = name;
    return jl_fail(L, &failure);
}

static int task_spawn(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    int refused = need_queue(L, "spawn");
    if (refused) return refused;
    spawn(L, jl_self(L), 0);
    return 1;
}

static int task_spawn_caught(lua_State *L) {
    luaL_checktype(L, 1, LUA_TFUNCTION);
    int refused = need_queue(L, "timeout");
    if (refused) return refused;
    spawn(L, jl_self(L), 1);
    return 1;
}

/* Runs protected; again after an error. */
static int end_run(lua_State *L) {
    jl_state *S = jl_self(L);
    lua_settop(L, 0);
    end_tasks(L, S, 1);
    return 0;
}

/* The first error is the one reported; errors of closing variables are not. Without memory even
 * that may be impossible: then it is done by whoever drives next. */
static void clean_up(lua_State *L, jl_state *S) {
    for (int tries = 0, in_vain = 0; S->alive > 0 && tries < 1000000 && in_vain < 100; tries++) {
        uint32_t tasks = S->tasks;
        if (protected_drive(L, S, 0, S->ref_end_run) == LUA_OK) continue;
        lua_pop(L, 1);
        in_vain = S->tasks < tasks ? 0 : in_vain + 1;
    }
    S->leftover |= S->alive > 0;
    jdb_queue_wait_abandoned(S->queue);
}

static int push_end(lua_State *L, jl_state *S, int index, int with_state);

static int task_run(lua_State *L) {
    jl_state *S = jl_self(L);
    luaL_checktype(L, 1, LUA_TFUNCTION);
    if (S->running) return luaL_error(L, "jdbfs.run inside a task: use jdbfs.spawn");
    int refused = need_queue(L, "run");
    if (refused) return refused;
    S->run = ++S->runs;
    S->alive = 0;
    jl_task *t = spawn(L, S, 0);
    int task = lua_gettop(L);
    S->goal.kind = GOAL_RUN;
    S->goal.until = -1;
    int status = protected_drive(L, S, 0, S->ref_drive);
    if (status != LUA_OK) clean_up(L, S);
    S->run = 0;
    if (status != LUA_OK) return lua_error(L);
    int n = push_end(L, S, task, 0);
    return t->state == JL_FAILED ? lua_error(L) : n;
}

/* step([seconds]): reaps and resumes; how many tasks were resumed. */
static int task_step(lua_State *L) {
    jl_state *S = jl_self(L);
    int64_t until = lua_isnoneornil(L, 1) ? jl_now(L) : deadline(L, 1);
    if (S->running) return luaL_error(L, "jdbfs.step inside a task");
    int refused = need_queue(L, "step");
    if (refused) return refused;
    S->goal.kind = GOAL_STEP;
    S->goal.until = until;
    if (protected_drive(L, S, 0, S->ref_drive) != LUA_OK) return lua_error(L);
    lua_pushinteger(L, S->goal.resumed);
    return 1;
}

/* host_step(): what the host's dispatcher does when the descriptor is readable, before it wakes
 * whoever next_woken tells. */
static int task_host_step(lua_State *L) {
    jl_state *S = jl_self(L);
    if (S->running || !S->queue || jdb_queue_usable(S->queue) != JDB_OK) return 0;
    lua_settop(L, 0);
    S->dispatching = 1;
    int status = LUA_OK;
    for (int turns = 0; turns < HOST_TURNS && status == LUA_OK; turns++) {
        S->goal.kind = GOAL_STEP;
        S->goal.until = 0;
        status = protected_drive(L, S, 0, S->ref_drive);
        if (!S->ready_head) break;
    }
    S->dispatching = 0;
    return status == LUA_OK ? 0 : lua_error(L);
}

/* drive(token): outside any task, steps until token.woken. */
static int task_drive(lua_State *L) {
    jl_state *S = jl_self(L);
    luaL_checktype(L, 1, LUA_TTABLE);
    if (S->running)
        return luaL_error(L, "this coroutine cannot wait inside a task: jdbfs.wrap can");
    int refused = need_queue(L, "wait");
    if (refused) return luaL_error(L, "%s", lua_tostring(L, -2));
    S->goal.kind = GOAL_TOKEN;
    S->goal.until = -1;
    lua_settop(L, 1);
    if (protected_drive(L, S, 1, S->ref_drive) != LUA_OK) return lua_error(L);
    return 0;
}

/* ---- waits that are not operations ---------------------------------------------------------- */

/* The task that a wait here would suspend, and the turn of that wait; nil outside tasks; raises
 * where no wait is possible. */
static int task_current(lua_State *L) {
    jl_state *S = jl_self(L);
    if (place(L, S) != IN_PLACE) {
        jl_push_task(L, S, S->current);
        lua_pushinteger(L, (lua_Integer)(++S->turns & INT_MAX));
        return 2;
    }
    if (S->running)
        return luaL_error(L, "cannot wait here: inside a task, but in a coroutine or a call that "
                             "cannot yield (jdbfs.wrap makes generators that can)");
    lua_pushnil(L);
    return 1;
}

/* own_task(): the task that runs, where nothing keeps a wait from suspending it; else nothing. */
static int task_own(lua_State *L) {
    jl_state *S = jl_self(L);
    if (!JL_KNOWS_YIELDABLE || place(L, S) != IN_TASK) return 0;
    jl_push_task(L, S, S->current);
    return 1;
}

/* park(task, turn): until core.wake of both. Only after core.current() gave them; what began and
 * then raised leaves a turn that wakes nobody. */
static int task_park(lua_State *L) {
    jl_state *S = jl_self(L);
    enum place where = place(L, S);
    if (where == IN_PLACE) return luaL_error(L, "park outside a task");
    jl_task *self = waiter(S, where);
    forget_wait(S, self);
    self->parked = 1;
    self->values = (int)luaL_optinteger(L, 2, 0);
    return suspend(L, S, where);
}

static int task_wake(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = check_task(L, 1);
    int sleeps = t->state == JL_WAITING && t->parked;
    if (sleeps && !t->guest) sleeps = t->values == (int)luaL_optinteger(L, 2, 0);
    if (sleeps) {
        t->parked = 0;
        make_ready(S, t);
    }
    lua_pushboolean(L, sleeps);
    return 1;
}

int jl_sleep_until(lua_State *L, int64_t when) {
    jl_state *S = jl_self(L);
    enum place where = place(L, S);
    if (where == IN_PLACE) {
        int64_t rest = when - jl_now(L);
        if (rest > 0 && S->queue) jdb_queue_sleep(S->queue, rest);
        else if (rest > 0) jdb_sleep(rest);
        lua_pushboolean(L, 1);
        return 1;
    }
    jl_task *self = waiter(S, where);
    reserve_timer(L, S);
    forget_wait(S, self);
    if (!self->cancelled) add_timer(S, self, when);
    return suspend(L, S, where);
}

static int task_sleep(lua_State *L) { return jl_sleep_until(L, deadline(L, 1)); }

static int task_yield(lua_State *L) {
    jl_state *S = jl_self(L);
    enum place where = place(L, S);
    if (where == IN_PLACE) {
        lua_pushboolean(L, 1);
        return 1;
    }
    forget_wait(S, waiter(S, where));
    waiter(S, where)->yielding = 1;
    return suspend(L, S, where);
}

/* await(): in the coroutine that called a generator, waits for what the generator waits for. A
 * coroutine that cannot suspend the task completes it in place, where it needs no other task. */
static int task_await(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *self = S->current;
    enum place where = place(L, S);
    if (!self) return luaL_error(L, "await outside a task");
    if (where != IN_PLACE) return suspend(L, S, where);
    jdb_op *op = S->begin == commit ? S->spare : NULL;
    S->begin = NULL;
    if (!op && self->timer && !self->joined) { /* it sleeps */
        int64_t when = S->timers[self->timer - 1].when;
        drop_timer(S, self);
        return jl_sleep_until(L, when);
    }
    if (!op && self->yielding) {
        self->yielding = 0;
        lua_pushboolean(L, 1);
        return 1;
    }
    if (!op) return luaL_error(L, "cannot wait here: this coroutine was not made by jdbfs.wrap");
    S->spare = NULL;
    jdb_submit(S->queue, op);
    jdb_queue_wait_op(S->queue, op);
    return push_and_release(L, L, S, op);
}

static int task_generator(lua_State *L) {
    luaL_checktype(L, 1, LUA_TTHREAD);
    jl_push_ref(L, jl_self(L)->ref_generators);
    lua_pushvalue(L, 1);
    lua_pushboolean(L, 1);
    lua_rawset(L, -3);
    return 0;
}

static int wait_outside(lua_State *L, jl_state *S, jl_task *t, int64_t until) {
    if (S->running)
        return luaL_error(L, "cannot wait here: this coroutine was not made by jdbfs.wrap");
    if (need_queue(L, "wait")) return luaL_error(L, "%s", lua_tostring(L, -2));
    S->goal.kind = GOAL_TASK;
    S->goal.task = t;
    S->goal.until = until;
    if (protected_drive(L, S, 0, S->ref_drive) != LUA_OK) return lua_error(L);
    lua_pushboolean(L, jl_ended(t));
    return 1;
}

/* wait(task [, seconds [, owned]]): whether it ended in time. An owned task is cancelled with the
 * one that waits. */
static int task_wait(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = check_task(L, 1);
    int64_t until = lua_isnoneornil(L, 2) ? -1 : deadline(L, 2);
    int owned = lua_toboolean(L, 3);
    enum place where = place(L, S);
    if (jl_ended(t)) {
        lua_pushboolean(L, 1);
        return 1;
    }
    if (where == IN_PLACE) return wait_outside(L, S, t, until);
    jl_task *self = waiter(S, where);
    if (t == self) return luaL_error(L, "a task cannot wait for itself");
    reserve_timer(L, S);
    forget_wait(S, self);
    if (!self->cancelled) {
        add_joiner(t, self);
        if (until >= 0) add_timer(S, self, until);
        self->owns = owned;
    } else if (owned) {
        cancel(S, t);
    }
    return suspend(L, S, where);
}

/* join(task): what it returned, once it has ended; or a mark, when that needs a closer look:
 * core.wait and core.results tell the rest. */
static int task_join(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = check_task(L, 1);
    enum place where = place(L, S);
    if (t->state == JL_DONE) return push_end(L, S, 1, 0);
    if (!jl_ended(t) && t != S->current && where != IN_PLACE) {
        forget_wait(S, S->current);
        if (!S->current->cancelled) {
            add_joiner(t, S->current);
            S->current->joins = 1;
        }
        return suspend(L, S, where);
    }
    lua_pushlightuserdata(L, (void *)(uintptr_t)&jl_magic_task);
    return 1;
}

/* alive(value): whether it is a task that has not ended. */
static int task_alive(lua_State *L) {
    lua_pushboolean(L, jl_live_task(L, 1) != NULL);
    return 1;
}

int jl_in_no_task(lua_State *L, jl_state *S) { return place(L, S) != IN_TASK; }

int jl_suspend(lua_State *L, jl_state *S, void (*begin)(jl_state *, jl_task *), void *beginning) {
    S->begin = begin;
    S->beginning = beginning;
    return suspend(L, S, IN_TASK);
}

void jl_join_gate(jl_state *S, jl_task *gate, jl_task *t, uint64_t reply) {
    forget_wait(S, t);
    add_joiner(gate, t);
    t->replies = 1;
    t->reply = reply;
}

void jl_open_gate(lua_State *L, jl_task *gate, int n) {
    for (jl_task *t = n > 0 ? gate->joiners : NULL; t; t = t->next) {
        if (t->state != JL_WAITING || !suspended(t) || !lua_checkstack(t->co, n)) continue;
        for (int i = 0; i < n; i++) lua_pushvalue(L, -n);
        lua_xmove(L, t->co, n);
        t->values = n;
        t->answered = 1;
    }
    wake_joiners(jl_self(L), gate);
}

void jl_wake_gate(jl_state *S, jl_task *gate) { wake_joiners(S, gate); }

void jl_drop_gate(jl_task *gate) {
    while (gate->joiners) leave_joined(gate->joiners);
}

jl_driver *jl_new_driver(void *owner, void (*go_on)(jl_state *S, jl_driver *d, jdb_op *op)) {
    jl_driver *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->task.guest = d->task.driver = 1;
    d->task.state = JL_WAITING;
    d->go_on = go_on;
    d->owner = owner;
    return d;
}

void jl_drive(jl_state *S, jl_driver *d, jdb_op *op) {
    d->task.queue = S->queue;
    d->task.op = op;
    if (!op) {
        make_ready(S, &d->task);
        return;
    }
    jdb_op_set_waiter(op, d);
    jdb_submit(S->queue, op);
}

static void end_driver(jl_state *S, jl_driver *d, jdb_op *op) {
    (void)S;
    (void)op;
    free(d);
}

/* One that is on the ready list goes when its turn comes: others know where that list ends. */
void jl_drop_driver(jl_state *S, jl_driver *d) {
    jl_drop_gate(&d->task);
    int own = !S->closed && S->queue && d->task.queue == S->queue;
    if (own && d->task.op) jdb_op_abandon(S->queue, d->task.op);
    d->go_on = end_driver;
    if (S->closed || d->task.state != JL_READY) free(d);
}

jl_task *jl_live_task(lua_State *L, int i) {
    jl_task *t = jl_test(L, i, &jl_magic_task, sizeof *t);
    return t && !jl_ended(t) ? t : NULL;
}

/* ---- light threads of a host ---------------------------------------------------------------- */

/* inside([stackful]): whether a wait here belongs to a task, or to nobody because this cannot be
 * suspended. A host whose threads have stacks of their own needs no yield. */
static int host_inside(lua_State *L) {
    jl_state *S = jl_self(L);
    int possible = !S->running && (lua_toboolean(L, 1) || jl_yieldable(L));
    lua_pushboolean(L, !possible || is_generator(L, S));
    return 1;
}

static int host_guest(lua_State *L) {
    jl_task *t = jl_new(L, sizeof *t, &jl_magic_task, jl_self(L)->ref_guest_meta);
    t->guest = 1;
    t->state = JL_DONE;
    return 1;
}

static jl_task *check_guest(lua_State *L) {
    jl_task *t = check_task(L, 1);
    if (!t->guest) luaL_argerror(L, 1, "guest expected");
    return t;
}

/* enter(guest): the next hosted call waits as this one. A number that stands for it. */
static int host_enter(lua_State *L) {
    jl_task *t = check_guest(L);
    jl_self(L)->guest = t;
    t->yielding = t->expired = 0;
    lua_pushnumber(L, (lua_Number)((uintptr_t)t >> 4));
    return 1;
}

/* next_woken(): the number of a guest whose light thread is to go on, or nothing. */
static int host_next_woken(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = S->woken_head;
    if (!t) return 0;
    S->woken_head = t->next;
    if (!S->woken_head) S->woken_tail = NULL;
    t->next = NULL;
    t->state = JL_DONE;
    lua_pushnumber(L, (lua_Number)((uintptr_t)t >> 4));
    return 1;
}

static int host_taken(lua_State *L) {
    lua_pushboolean(L, check_guest(L)->state == JL_DONE);
    return 1;
}

/* result(guest): what the call returns whose wait is over. */
static int host_result(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = check_guest(L);
    jdb_op *op = t->op;
    if (!op) {
        lua_pushboolean(L, !t->expired);
        return 1;
    }
    t->op = NULL;
    return push_and_release(L, L, S, op);
}

/* Nobody came for the result: the light thread was killed. */
static int guest_gc(lua_State *L) {
    jl_state *S = jl_self(L);
    jl_task *t = jl_test(L, 1, &jl_magic_task, sizeof *t);
    if (!t || !t->guest || !t->op) return 0;
    if (!S->closed && S->queue && t->queue == S->queue) {
        /* One that waits is collected only when the Lua state is being closed. */
        if (t->state == JL_WAITING) jdb_op_abandon(S->queue, t->op);
        else jdb_op_release(S->queue, t->op);
    }
    t->op = NULL;
    return 0;
}

/* hosted(f): the same function for light threads: it begins the wait and returns PENDING. */
static int host_hosted(lua_State *L) {
    lua_CFunction f = lua_tocfunction(L, 1);
    if (!f) luaL_argerror(L, 1, "function of this module expected");
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushboolean(L, 1);
    lua_pushcclosure(L, f, 2);
    return 1;
}

static int host_hold(lua_State *L) {
    jl_self(L)->hold = lua_toboolean(L, 1);
    return 0;
}

static int host_renews(lua_State *L) {
    jl_self(L)->renews = 1;
    return 0;
}

/* ---- the handle ----------------------------------------------------------------------------- */

static const char *state_name(const jl_task *t) {
    switch (t->state) {
    case JL_READY: return "ready";
    case JL_RUNNING: return "running";
    case JL_WAITING: return "waiting";
    case JL_DONE: return "done";
    case JL_FAILED: return "failed";
    default: return "cancelled";
    }
}

/* What an ended task left: its results; what it raised; or why there is nothing. */
static int push_end(lua_State *L, jl_state *S, int index, int with_state) {
    const jl_task *t = lua_touserdata(L, index);
    int n = t->values;
    if (with_state) lua_pushstring(L, state_name(t));
    if (t->state == JL_CANCELLED)
        return with_state + jl_fail_kind(L, JDB_CANCELLED, "join", NULL, "the task was cancelled");
    if (n == 0) return with_state;
    luaL_checkstack(L, n + 2, "too many results");
    jl_push_ref(L, S->ref_results);
    lua_pushvalue(L, index);
    lua_rawget(L, -2);
    lua_remove(L, -2);
    int table = lua_gettop(L);
    for (int i = 1; i <= n; i++) lua_rawgeti(L, table, i);
    lua_remove(L, table);
    return with_state + n;
}

/* results(task): "done", values... | "failed", error | "cancelled", nil, message, err. */
static int task_results(lua_State *L) {
    jl_task *t = check_task(L, 1);
    if (!jl_ended(t)) return luaL_error(L, "the task has not ended");
    lua_settop(L, 1);
    return push_end(L, jl_self(L), 1, 1);
}

/* A task that waits is ended by the loop, never here: its variables may do anything. One that is
 * about to run, or runs, goes on to its next wait, so that nothing handed to it is lost. */
static void cancel(jl_state *S, jl_task *t) {
    if (jl_ended(t)) return;
    t->cancelled = 1;
    if (t->state == JL_READY && !t->started) t->kill = 1;
    if (t->state != JL_WAITING) return;
    if (t->owns) cancel(S, t->joined);
    forget_wait(S, t);
    t->kill = 1;
    make_ready(S, t);
}

static int task_cancel(lua_State *L) {
    jl_task *t = check_task(L, 1);
    int alive = !jl_ended(t);
    cancel(jl_self(L), t);
    lua_pushboolean(L, alive);
    return 1;
}

static int task_status(lua_State *L) {
    lua_pushstring(L, state_name(check_task(L, 1)));
    return 1;
}

static int task_tostring(lua_State *L) {
    lua_pushfstring(L, "jdbfs.task (%s)", state_name(check_task(L, 1)));
    return 1;
}

void jl_task_close(jl_state *S) {
    for (jl_task *t; (t = next_ready(S));)
        if (t->driver && ((jl_driver *)t)->go_on == end_driver) free(t);
    if (S->queue) {
        if (S->spare) jdb_op_release(S->queue, S->spare);
        drop_delivering(S, UINTPTR_MAX);
        S->spare = NULL;
        jdb_queue_close(S->queue);
        jdb_queue_unref(S->queue);
        S->queue = NULL;
    }
    free(S->timers);
    S->timers = NULL;
    S->timer_count = S->timer_room = 0;
}

int jl_open_task(lua_State *L) {
    static const luaL_Reg methods[] = {
        {"cancel", task_cancel}, {"status", task_status}, {NULL, NULL}};
    static const luaL_Reg meta[] = {{"__tostring", task_tostring}, {NULL, NULL}};
    static const luaL_Reg guest_meta[] = {{"__gc", guest_gc}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"host_step", task_host_step},
                                         {"inside", host_inside},
                                         {"guest", host_guest},
                                         {"enter", host_enter},
                                         {"next_woken", host_next_woken},
                                         {"taken", host_taken},
                                         {"result", host_result},
                                         {"hosted", host_hosted},
                                         {"hold", host_hold},
                                         {"renews", host_renews},
                                         {"run", task_run},
                                         {"spawn", task_spawn},
                                         {"spawn_caught", task_spawn_caught},
                                         {"step", task_step},
                                         {"drive", task_drive},
                                         {"current", task_current},
                                         {"own_task", task_own},
                                         {"park", task_park},
                                         {"may_wait", task_may_wait},
                                         {"wake", task_wake},
                                         {"alive", task_alive},
                                         {"sleep", task_sleep},
                                         {"yield", task_yield},
                                         {"await", task_await},
                                         {"generator", task_generator},
                                         {"wait", task_wait},
                                         {"join", task_join},
                                         {"results", task_results},
                                         {NULL, NULL}};
    jl_state *S = jl_self(L);
    S->ref_task_meta = jl_new_class(L, "jdbfs.task", methods, meta);
    S->ref_guest_meta = jl_new_class(L, "jdbfs.guest", methods, guest_meta);
    lua_pushboolean(L, JL_KNOWS_YIELDABLE);
    lua_setfield(L, -2, "KNOWS_YIELDABLE");
    lua_newtable(L); /* class -> methods that wait: Lua modules enter theirs; weak keys */
    lua_newtable(L);
    lua_pushliteral(L, "k");
    lua_setfield(L, -2, "__mode");
    lua_setmetatable(L, -2);
    lua_setfield(L, -2, "waiting_classes");
    /* The Lua modules add `join`: it waits, then fetches the results in its own context. */
    jl_push_ref(L, S->ref_task_meta);
    lua_getfield(L, -1, "__index");
    lua_setfield(L, -3, "task_methods");
    lua_pop(L, 1);
    lua_newuserdata(L, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, -3, "PENDING");
    S->ref_pending = luaL_ref(L, LUA_REGISTRYINDEX);
    if (luaL_loadstring(L, "local f = ... return function(...) return f(...) end") != LUA_OK)
        return lua_error(L);
    S->ref_shell = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushlightuserdata(L, (void *)(uintptr_t)&jl_magic_task);
    lua_setfield(L, -2, "LOOK");
    if (luaL_loadstring(L, "return") != LUA_OK) return lua_error(L);
    S->ref_nothing = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, drive, 1);
    S->ref_drive = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushvalue(L, lua_upvalueindex(1));
    lua_pushcclosure(L, end_run, 1);
    S->ref_end_run = luaL_ref(L, LUA_REGISTRYINDEX);
    lua_pushboolean(L, 0);
    S->ref_probe = luaL_ref(L, LUA_REGISTRYINDEX);
    jl_register(L, functions);
    return 0;
}
