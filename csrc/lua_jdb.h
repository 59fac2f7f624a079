/* lua_jdb.h: what the lua_*.c files share.
 *
 * One jl_state per Lua universe, upvalue 1 of every function. It owns the queue. Files and
 * buffers are userdata that hold one counted reference of the C object; an operation in flight
 * holds its own, so collecting the userdata never frees what the kernel uses.
 *
 * Order in every function that submits: check all arguments, take the operation, prepare and check
 * it, yield. The loop submits it when the yield has arrived: a yield may raise (5.1 and 5.2 cannot
 * tell before), and then nothing has happened; the operation waits in `spare` for the next call. */
#ifndef JDB_LUA_H
#define JDB_LUA_H

#include <stddef.h>
#include <stdint.h>

#include "jdb.h"
#include "lua_compat.h"

typedef struct jl_task jl_task;
typedef struct jl_state jl_state;

enum { JL_NESTED_MAX = 16 };
enum { JL_IDLE_MAX = 256 }; /* coroutines kept for the next tasks */

enum jl_task_state {
    JL_READY,   /* on the ready list */
    JL_RUNNING, /* resumed, or called something that is */
    JL_WAITING, /* suspended until an operation, a timer or a wake */
    JL_DONE,
    JL_FAILED,
    JL_CANCELLED
};

/* A coroutine that jdbfs started. Anchored in the table `anchors` (thread -> userdata) until it
 * ends; afterwards its handle alone keeps it. A hundred thousand of them may wait: what few need is
 * elsewhere, what excludes each other shares its place. */
struct jl_task {
    const void *magic;
    union {
        lua_State *co;          /* valid while anchored, or while its results lie there */
        const jdb_queue *queue; /* of a guest: whose operation `op` is */
    };
    jl_task *next;    /* ready list; or those who wait for the same task */
    jl_task *joiners; /* tasks that wait for this one, last first */
    jl_task *joined;  /* the one this task waits for; NULL: none */
    union {
        jdb_op *op;     /* the operation it waits for: no other may resume it */
        uint64_t reply; /* `replies`: what the wait returns when it is over */
    };
    struct jl_times *times; /* NULL: nothing is measured */
    uint32_t timer;         /* place in the heap + 1; 0: none */
    uint32_t run;           /* the run it belongs to; 0: none */
    int values;             /* on co: arguments before it starts, an answer, results at its end;
                               while parked the turn of that wait, 0: none */
    uint8_t state;
    uint8_t expired;        /* a timer, not the event, woke it */
    unsigned cancelled : 1; /* ends at its next wait */
    unsigned caught : 1;    /* its error belongs to whoever waits, it does not stop the run */
    unsigned parked : 1;    /* waits for core.wake */
    unsigned started : 1;
    unsigned yielding : 1; /* only gives way */
    unsigned kill : 1;     /* on the ready list to be ended, not resumed */
    unsigned guest : 1;    /* see below */
    unsigned driver : 1;   /* see below */
    unsigned owns : 1;     /* the joined one is cancelled with this one (timeout) */
    unsigned joins : 1;    /* and waits for its results */
    unsigned replies : 1;  /* with `reply` ... */
    unsigned answered : 1; /* ... or with the values on co */
};

/* What is measured of a task; see lua_measure.c. */
struct jl_times {
    struct jl_meter *meter; /* what it does is recorded there; NULL: nowhere */
    int64_t due;            /* planned time of what it does next; 0: when it became ... */
    int64_t ready;          /* ... ready */
    int64_t op_due;         /* due time of its operation */
    int64_t planned;        /* open loop: due time of the iteration; 0: none */
};

/* A guest is a task without a coroutine: it stands for a light thread of the host while that waits.
 * What wakes a task moves a guest to the `woken` list; the Lua side takes it from there and has
 * the host wake the thread, which then fetches the result. Lua keeps it while it waits; one whose
 * thread was killed is collected later and gives back what arrived for it. */

/* A driver is a guest that stands for code of ours: what would wake it calls `go_on`, with the
 * operation that ended, to be released there, or NULL. That runs no Lua and raises nothing. Tasks
 * may wait at it as at a gate. */
typedef struct jl_driver {
    jl_task task;
    void (*go_on)(jl_state *S, struct jl_driver *d, jdb_op *op);
    void *owner;
} jl_driver;

struct jl_timer {
    int64_t when;
    jl_task *task;
};

struct jl_state {
    const void *magic;
    jdb_queue *queue;    /* made at first use */
    int closed;          /* the Lua state is being closed */
    jdb_options options; /* of setup */
    jl_task *current;    /* the task being resumed now, */
    int given;           /* with so many values */
    jl_task *ready_head, *ready_tail;
    jdb_op *spare; /* taken, not submitted yet */
    int suspends;  /* the current task is about to yield for a wait of ours */
    /* What the wait is that the task's yield will begin when it has arrived; NULL: nothing. */
    void (*begin)(jl_state *S, jl_task *t);
    void *beginning; /* what that needs to know */
    jl_task *guest;  /* the wait that a light thread of the host is about to begin */
    jl_task *woken_head, *woken_tail;
    int hold;         /* the host's dispatcher flushes, not each submission */
    int dispatching;  /* it will look at the woken list by itself */
    int has_host;     /* one was chosen */
    int renews;       /* after a fork the child makes a queue of its own */
    int inherited;    /* that has happened: older files are the parent's */
    int polled;       /* somebody watches the descriptor: it must announce timers as well */
    int64_t alarm_at; /* when it will; INT64_MAX: never */
    /* Their results are being pushed, one inside the other's finalizers; a push that raised leaves
     * its own behind. */
    struct jl_delivery {
        jdb_op *op;
        uintptr_t frame; /* of the push: those above ours on the C stack go on */
    } delivering[JL_NESTED_MAX];
    unsigned delivering_count;
    struct jl_timer *timers;
    uint32_t timer_count, timer_room;
    uint32_t run, runs;  /* the current run; 0: none */
    uint32_t alive;      /* tasks of the current run */
    int leftover;        /* a run ended without its tasks: there was no memory to end them */
    uint32_t tasks;      /* all that have not ended */
    uint32_t turns;      /* given to waits for core.wake */
    uint64_t collect_at; /* bytes of buffers at which Lua is to look for those it can let go */
    int idle_count;      /* coroutines that run nothing: */
    lua_State *idle[JL_IDLE_MAX];
    int probed;         /* see leave_finalizer */
    uint32_t asked;     /* numbers that Lua code was asked for, so far */
    int running;        /* somebody drives: no second one may */
    uint32_t delivered; /* measured operations, for sampling the lag */
    struct {
        int kind;
        int64_t until;
        jl_task *task;
        int token;   /* stack index of the table whose field `woken` ends it */
        int resumed; /* out: tasks resumed */
    } goal;
    int ref_anchors, ref_results, ref_generators, ref_error_meta, ref_pending;
    int ref_file_meta, ref_buf_meta, ref_batches_meta, ref_task_meta, ref_guest_meta, ref_close;
    int ref_traceback, ref_unbox_u64;
    int ref_meter_meta, ref_random_meta, ref_arrivals_meta, ref_meters, ref_times;
    int ref_drive, ref_end_run, ref_box_u64, ref_nothing, ref_shell, ref_probe;
};

typedef struct jl_file {
    const void *magic;
    jdb_file *file; /* one reference; NULL only while being made */
} jl_file;

typedef struct jl_buf {
    const void *magic;
    /* For lua/jdbfs/typed.lua, as numbers that it reads without making an object: where the view's
     * bytes are, how many, and where the words of jdb_buf_gate (address / 4; 0 after free()). */
    double address, size, gate;
    jdb_buf *mem;    /* one reference; NULL after free() */
    jdb_buf *held;   /* one more, while its bytes become a Lua string */
    size_t off, len; /* the view */
    size_t align;
} jl_buf;

extern const char jl_magic_state, jl_magic_file, jl_magic_buf, jl_magic_task, jl_magic_batches;

static inline int jl_ended(const jl_task *t) { return t->state >= JL_DONE; }

static inline jl_state *jl_self(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

/* A userdata of ours, or NULL. Cheaper than a metatable look-up by name, and as safe: a foreign
 * userdata cannot hold the address of our constant. */
static inline void *jl_test(lua_State *L, int i, const char *magic, size_t size) {
    const void **p = lua_touserdata(L, i);
    return p && lua_rawlen(L, i) == size && *p == magic ? (void *)p : NULL;
}

/* lua_core.c */
void jl_push_ref(lua_State *L, int ref);
void *jl_new(lua_State *L, size_t size, const char *magic, int meta_ref);
void jl_register(lua_State *L, const luaL_Reg *functions); /* into the table on top */
int jl_new_class(lua_State *L, const char *name, const luaL_Reg *methods, const luaL_Reg *meta);

/* lua_error.c: all push nil, message, err and return 3. */
int jl_fail(lua_State *L, const jdb_failure *failure);
int jl_fail_kind(lua_State *L, jdb_kind kind, const char *op, const char *path, const char *cause);
int jl_fail_op(lua_State *L, const jdb_op *op);
/* Of a value that is no plain number: NULL, or why it is no offset or length; raises when it is no
 * number at all. */
const char *jl_any_number(lua_State *L, int i, uint64_t *value);

/* Whether it is one as nearly all are; the rest is for jl_any_number. */
static inline int jl_plain_number(lua_State *L, int i, uint64_t *value) {
    if (JL_INTEGERS) {
        if (!jl_isinteger(L, i)) return 0;
        lua_Integer n = lua_tointeger(L, i);
        if (n < 0) return 0;
        *value = (uint64_t)n;
        return 1;
    }
    if (lua_type(L, i) != LUA_TNUMBER) return 0;
    lua_Number n = lua_tonumber(L, i);
    if (!(n >= 0 && n < 9223372036854775808.0) || (lua_Number)(int64_t)n != n) return 0;
    *value = (uint64_t)(int64_t)n;
    return 1;
}

static inline const char *jl_number(lua_State *L, int i, uint64_t *value) {
    return jl_plain_number(L, i, value) ? NULL : jl_any_number(L, i, value);
}
/* 64 bits as this Lua can hold them, for typed buffer access. */
uint64_t jl_check_bits(lua_State *L, int i, int is_signed);
void jl_push_u64(lua_State *L, uint64_t value);
void jl_push_i64(lua_State *L, int64_t value);
void jl_push_size(lua_State *L, uint64_t value);
/* Fields of the table on top; a text that is NULL is left out. */
void jl_set_size(lua_State *L, const char *name, uint64_t value);
void jl_set_text(lua_State *L, const char *name, const char *value);
int jl_open_error(lua_State *L);

/* lua_buf.c */
static inline jl_buf *jl_check_buf(lua_State *L, int i) {
    jl_buf *b = jl_test(L, i, &jl_magic_buf, sizeof *b);
    if (!b) luaL_argerror(L, i, "jdbfs buffer expected");
    return b;
}
/* A range of the buffer at i, to be read; raises when it is out of range, freed or in flight. */
const uint8_t *jl_buf_bytes(lua_State *L, int i, size_t off, size_t len);
int jl_open_buf(lua_State *L);

/* lua_file.c */
int jl_open_file(lua_State *L);
int jl_push_file(lua_State *L, jdb_file *file);
int jl_push_file_info(lua_State *L, const jdb_file *file);
void jl_set_file_info(lua_State *L, const jdb_file_info *info); /* into the table on top */

/* lua_log.c */
int jl_open_log(lua_State *L);

/* lua_fs.c */
int jl_open_fs(lua_State *L);

/* lua_queue.c */
/* With a queue to be made, one that cannot be used, or an operation left in `spare`. */
jdb_op *jl_take_with_care(lua_State *L, jl_state *S, const char *name, const char *path,
                          int *pushed);
/* An idle operation, or NULL with nil, message, err pushed (*pushed = 3). */
static inline jdb_op *jl_take(lua_State *L, jl_state *S, const char *name, const char *path,
                              int *pushed) {
    jdb_kind kind;
    S->begin = NULL;
    if (!S->spare && S->queue && (S->spare = jdb_op_take(S->queue, &kind))) return S->spare;
    return jl_take_with_care(L, S, name, path, pushed);
}
/* Gives a taken operation on argument 1, a file, back and reports why it was refused. */
int jl_refuse(lua_State *L, jl_state *S, jdb_op *op);
void jl_drop(jl_state *S, jdb_op *op);                   /* gives it back, reports nothing */
jdb_queue *jl_queue(lua_State *L, jdb_failure *failure); /* makes it; NULL: failure is filled */
int64_t jl_now(lua_State *L);                      /* nanoseconds of the clock that waits go by */
int jl_push_count(lua_State *L, const jdb_op *op); /* a result that is a number; 0: it is none */
int jl_push_result(lua_State *L, jdb_op *op);
int jl_open_queue(lua_State *L);

/* lua_sim.c */
int jl_open_sim(lua_State *L);

/* lua_task.c */
/* Submits a checked operation and waits for it. */
int jl_run_op(lua_State *L, jl_state *S, jdb_op *op);
int jl_ending(lua_State *L);                  /* in a variable of a task that is being ended */
int jl_in_no_task(lua_State *L, jl_state *S); /* 1, or raises where nobody may wait */
/* Whether a wait here suspends a task. */
static inline int jl_in_task(lua_State *L, jl_state *S) {
    const jl_task *t = S->current;
    return t && t->co == L ? jl_yieldable(L) : !jl_in_no_task(L, S);
}
jl_task *jl_live_task(lua_State *L, int i); /* the value, when it is a task that has not ended */
/* Suspends the task; `begin` is called when its yield has arrived: a yield may raise, and then
 * nothing has begun. Before that no Lua runs, and nothing is collected. Where jl_in_task() only. */
int jl_suspend(lua_State *L, jl_state *S, void (*begin)(jl_state *S, jl_task *t), void *beginning);
/* A gate is a zeroed jl_task that nobody runs: tasks wait at it until it is opened, and their wait
 * returns `reply`, or copies of the n values on top of L. Dropped before its memory goes. */
void jl_join_gate(jl_state *S, jl_task *gate, jl_task *t, uint64_t reply);
void jl_open_gate(lua_State *L, jl_task *gate, int n);
void jl_wake_gate(jl_state *S, jl_task *gate); /* opened without values */
void jl_drop_gate(jl_task *gate);
/* NULL: no memory. Dropped by its owner. */
jl_driver *jl_new_driver(void *owner, void (*go_on)(jl_state *S, jl_driver *d, jdb_op *op));
/* It goes on when the checked operation has ended, or, with NULL, when those who are ready ran. */
void jl_drive(jl_state *S, jl_driver *d, jdb_op *op);
void jl_drop_driver(jl_state *S, jl_driver *d);
void jl_push_task(lua_State *L, jl_state *S, jl_task *t); /* one that has not ended */
void jl_task_close(jl_state *S);
int jl_sleep_until(lua_State *L, int64_t when); /* in a task; returns true to Lua */
int jl_open_task(lua_State *L);

/* lua_measure.c */
void jl_measure_op(jl_state *S, jl_task *t, const jdb_op *op); /* delivered to t->meter */
/* One that was refused before it was submitted is an error of the task that runs. */
void jl_measure_refusal(jl_state *S, jdb_code code, jdb_kind kind, int error);
void jl_measure_end(jl_task *t);             /* the task has ended */
struct jl_times *jl_own_times(lua_State *L); /* of the task that runs; raises when none does */
int jl_open_measure(lua_State *L);

/* lua_random.c */
typedef struct jl_random jl_random;
jl_random *jl_check_random(lua_State *L, int i);
/* The byte offset of a page; it is put at the front of `stamp` (or NULL) with how many were drawn.
 * Raises when there is nothing to draw from, or when that buffer cannot be written to. */
uint64_t jl_draw_page(lua_State *L, jl_random *r, const jl_buf *stamp);
int jl_open_random(lua_State *L);

#endif
