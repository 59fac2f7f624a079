/* lua_random.c: random streams and planned arrivals, for the `jdbfs` command. */
#include <math.h>
#include <string.h>

#include "lua_jdb.h"
#include "measure.h"

static const char magic_random = 0, magic_arrivals = 0;

/* ---- random streams ------------------------------------------------------------------------- */

enum pages { UNIFORM, ZIPF, PARETO, HOTSPOT, SEQUENTIAL };

struct jl_random {
    const void *magic;
    jdb_random state;
    jdb_zipf zipf; /* the last one asked for */
    enum pages pages;
    uint64_t page_count, page_size, next, step, hot, drawn;
    double share;
    int scatter;
    jdb_zipf page_zipf;
    jdb_permutation permutation;
};

jl_random *jl_check_random(lua_State *L, int i) {
    jl_random *r = jl_test(L, i, &magic_random, sizeof *r);
    if (!r) luaL_argerror(L, i, "random stream expected (call with a colon)");
    return r;
}

static jl_random *check_random(lua_State *L) { return jl_check_random(L, 1); }

static uint64_t whole(lua_State *L, int i, uint64_t least, uint64_t most) {
    uint64_t n;
    const char *wrong = jl_number(L, i, &n);
    if (wrong) luaL_argerror(L, i, wrong);
    if (n < least || n > most) luaL_argerror(L, i, "out of range");
    return n;
}

static const uint64_t exact = UINT64_C(1) << 53;

/* random(seed, job, id) */
static int random_new(lua_State *L) {
    uint64_t seed = whole(L, 1, 0, exact), job = whole(L, 2, 0, exact), id = whole(L, 3, 0, exact);
    jl_random *r = jl_new(L, sizeof *r, &magic_random, jl_self(L)->ref_random_meta);
    jdb_random_seed(&r->state, seed, job, id);
    return 1;
}

static int random_int(lua_State *L) {
    jl_random *r = check_random(L);
    lua_Number low = luaL_checknumber(L, 2), high = luaL_checknumber(L, 3);
    if (low != floor(low) || high != floor(high) || !(low <= high) || high - low >= (double)exact ||
        fabs(low) > (double)exact || fabs(high) > (double)exact)
        return luaL_error(L, "int: whole numbers, low <= high, expected");
    int64_t value = (int64_t)low + (int64_t)jdb_random_below(&r->state, (uint64_t)(high - low) + 1);
    if (JL_INTEGERS) lua_pushinteger(L, (lua_Integer)value);
    else lua_pushnumber(L, (lua_Number)value);
    return 1;
}

static int random_float(lua_State *L) {
    lua_pushnumber(L, jdb_random_unit(&check_random(L)->state));
    return 1;
}

static int random_exp(lua_State *L) {
    jl_random *r = check_random(L);
    lua_pushnumber(L, luaL_optnumber(L, 2, 1) * jdb_random_exp(&r->state));
    return 1;
}

static int random_normal(lua_State *L) {
    jl_random *r = check_random(L);
    double mean = luaL_optnumber(L, 2, 0), deviation = luaL_optnumber(L, 3, 1);
    lua_pushnumber(L, mean + deviation * jdb_random_normal(&r->state));
    return 1;
}

/* pareto([alpha]): 1 or more, the smaller alpha the heavier the tail; by default four fifths of the
 * sum come from one fifth of the draws. */
static int random_pareto(lua_State *L) {
    jl_random *r = check_random(L);
    double alpha = luaL_optnumber(L, 2, 1.16096404744368);
    if (!(alpha > 0)) luaL_argerror(L, 2, "more than 0 expected");
    lua_pushnumber(L, exp(jdb_random_exp(&r->state) / alpha));
    return 1;
}

static double check_theta(lua_State *L, int i) {
    double theta = luaL_checknumber(L, i);
    if (!(theta > 0 && theta < 100)) luaL_argerror(L, i, "more than 0 expected");
    return theta;
}

/* zipf(n, theta): a rank from 1 to n. */
static int random_zipf(lua_State *L) {
    jl_random *r = check_random(L);
    uint64_t n = whole(L, 2, 1, exact);
    double theta = check_theta(L, 3);
    if (r->zipf.n != n || r->zipf.theta != theta) jdb_zipf_init(&r->zipf, n, theta);
    jl_push_size(L, jdb_zipf_draw(&r->zipf, &r->state));
    return 1;
}

static int random_pick(lua_State *L) {
    jl_random *r = check_random(L);
    luaL_checktype(L, 2, LUA_TTABLE);
    size_t n = lua_rawlen(L, 2);
    if (n == 0) luaL_argerror(L, 2, "a list with something in it expected");
    lua_rawgeti(L, 2, (int)jdb_random_below(&r->state, n) + 1);
    return 1;
}

/* perm(n): the numbers 1 to n in random order. */
static int random_perm(lua_State *L) {
    jl_random *r = check_random(L);
    int n = (int)whole(L, 2, 0, 100000000);
    lua_createtable(L, n, 0);
    for (int i = 1; i <= n; i++) { /* inside-out shuffle */
        int j = (int)jdb_random_below(&r->state, (uint64_t)i) + 1;
        if (j != i) {
            lua_rawgeti(L, -1, j);
            lua_rawseti(L, -2, i);
        }
        lua_pushinteger(L, i);
        lua_rawseti(L, -2, j);
    }
    return 1;
}

/* Of every 4096 bytes the last `zeros` percent are zero: what a device or a file system that
 * compresses gains from it. */
static void draw_bytes(jdb_random *r, uint8_t *to, size_t len, unsigned zeros) {
    for (size_t at = 0; at < len;) {
        size_t piece = len - at < 4096 ? len - at : 4096;
        size_t drawn = piece - piece * zeros / 100;
        for (size_t i = 0; i < drawn; i += 8) {
            uint64_t word = jdb_random_next(r);
            memcpy(to + at + i, &word, drawn - i < 8 ? drawn - i : 8);
        }
        memset(to + at + drawn, 0, piece - drawn);
        at += piece;
    }
}

static unsigned check_percent(lua_State *L, int i) {
    return lua_isnoneornil(L, i) ? 0 : (unsigned)whole(L, i, 0, 100);
}

/* bytes(n [, percent of zeros]) */
static int random_bytes(lua_State *L) {
    jl_random *r = check_random(L);
    size_t n = (size_t)whole(L, 2, 0, UINT64_C(1) << 30);
    unsigned zeros = check_percent(L, 3);
    void *text = lua_newuserdata(L, n ? n : 1);
    draw_bytes(&r->state, text, n, zeros);
    lua_pushlstring(L, text, n);
    return 1;
}

/* The first `length` bytes of a buffer, to be written; raises when that cannot be. */
static uint8_t *writable(lua_State *L, const jl_buf *b, size_t length) {
    if (!b->mem || !jdb_buf_data(b->mem)) luaL_error(L, "the buffer was freed (Closed)");
    if (b->len < length) luaL_error(L, "the buffer is too small");
    if (!jdb_buf_writable(b->mem, b->off, length)) luaL_error(L, "the buffer is in flight (Busy)");
    return (uint8_t *)jdb_buf_data(b->mem) + b->off;
}

/* fill(buffer [, percent of zeros]) */
static int random_fill(lua_State *L) {
    jl_random *r = check_random(L);
    const jl_buf *b = jl_check_buf(L, 2);
    unsigned zeros = check_percent(L, 3);
    draw_bytes(&r->state, writable(L, b, b->len), b->len, zeros);
    return 0;
}

/* pages(kind, count, size, id, coroutines, key [, scatter [, parameter [, second]]]): what page()
 * draws from. zipf: theta; pareto: h of the 80/20 rule (0.2); hotspot: share of draws, of pages.
 * Sequential streams of a job share the pages like cards: the id-th takes each n-th. */
static int random_pages(lua_State *L) {
    static const char *const names[] = {"uniform", "zipf", "pareto", "hotspot", "seq", NULL};
    jl_random *stream = check_random(L), r = *stream; /* all of it, or nothing */
    r.pages = (enum pages)luaL_checkoption(L, 2, NULL, names);
    r.page_count = whole(L, 3, 1, exact);
    r.page_size = whole(L, 4, 1, exact);
    r.step = whole(L, 6, 1, exact);
    r.next = (whole(L, 5, 1, exact) - 1) % r.page_count;
    jdb_permutation_init(&r.permutation, r.page_count, whole(L, 7, 0, exact));
    r.scatter = lua_toboolean(L, 8) && (r.pages != UNIFORM && r.pages != SEQUENTIAL);
    if (r.pages == ZIPF) jdb_zipf_init(&r.page_zipf, r.page_count, check_theta(L, 9));
    if (r.pages == PARETO || r.pages == HOTSPOT) {
        r.share = luaL_checknumber(L, 9);
        if (!(r.share > 0 && r.share < 1)) luaL_argerror(L, 9, "between 0 and 1 expected");
    }
    if (r.pages == PARETO) r.share = log(r.share) / log(1 - r.share);
    if (r.pages == HOTSPOT) {
        double hot = luaL_checknumber(L, 10) * (double)r.page_count;
        if (!(hot >= 0 && hot <= (double)r.page_count)) luaL_argerror(L, 10, "0 to 1 expected");
        r.hot = hot < 1 ? 1 : (uint64_t)hot;
    }
    *stream = r;
    return 0;
}

static uint64_t draw_page(jl_random *r) {
    uint64_t n = r->page_count, page;
    switch (r->pages) {
    case ZIPF: return jdb_zipf_draw(&r->page_zipf, &r->state) - 1;
    case PARETO:
        page = (uint64_t)((double)n * pow(jdb_random_unit(&r->state), r->share));
        return page < n ? page : n - 1;
    case HOTSPOT:
        if (r->hot >= n || jdb_random_unit(&r->state) < r->share)
            return jdb_random_below(&r->state, r->hot);
        return r->hot + jdb_random_below(&r->state, n - r->hot);
    case SEQUENTIAL:
        page = r->next;
        r->next = (r->next + r->step) % n;
        return page;
    default: return jdb_random_below(&r->state, n);
    }
}

/* Two numbers at the front of a buffer, so that what is written differs from write to write. */
static void put_numbers(lua_State *L, const jl_buf *buf, uint64_t a, uint64_t b) {
    uint64_t numbers[2] = {a, b};
    memcpy(writable(L, buf, sizeof numbers), numbers, sizeof numbers);
}

/* number(buffer, a, b): two whole numbers at its front. */
static int number(lua_State *L) {
    put_numbers(L, jl_check_buf(L, 1), whole(L, 2, 0, exact), whole(L, 3, 0, exact));
    return 0;
}

uint64_t jl_draw_page(lua_State *L, jl_random *r, const jl_buf *stamp) {
    if (r->page_count == 0) luaL_error(L, "page: there is no target file to draw from");
    uint64_t page = draw_page(r);
    if (r->scatter) page = jdb_permute(&r->permutation, page);
    if (stamp) put_numbers(L, stamp, page * r->page_size, ++r->drawn);
    return page * r->page_size;
}

/* page([buffer]): the byte offset of a page; the buffer has it at its front then, with how many
 * were drawn: by the same call, as every write pays for it. */
static int random_page(lua_State *L) {
    jl_random *r = check_random(L);
    jl_push_size(L, jl_draw_page(L, r, lua_gettop(L) > 1 ? jl_check_buf(L, 2) : NULL));
    return 1;
}

/* scatter(i, n, key): a bijection of 0 to n - 1. */
static int scatter(lua_State *L) {
    jdb_permutation p;
    uint64_t n = whole(L, 2, 1, exact), i = whole(L, 1, 0, n - 1);
    jdb_permutation_init(&p, n, whole(L, 3, 0, exact));
    jl_push_size(L, jdb_permute(&p, i));
    return 1;
}

/* ---- arrivals ------------------------------------------------------------------------------- */

struct jl_arrivals {
    const void *magic;
    jdb_arrivals a;
};

static struct jl_arrivals *check_arrivals(lua_State *L) {
    struct jl_arrivals *a = jl_test(L, 1, &magic_arrivals, sizeof *a);
    if (!a) luaL_argerror(L, 1, "arrivals expected");
    return a;
}

/* arrivals(rate, "const" | "poisson", random [, start]): the first ones are due from now on, or
 * from that moment in ns. */
static int arrivals_new(lua_State *L) {
    static const char *const kinds[] = {"const", "poisson", NULL};
    double rate = luaL_checknumber(L, 1);
    int poisson = luaL_checkoption(L, 2, NULL, kinds);
    jl_random *r = jl_test(L, 3, &magic_random, sizeof *r);
    if (!(rate > 0 && rate <= 1e9)) luaL_argerror(L, 1, "a rate expected");
    if (!r) luaL_argerror(L, 3, "random stream expected");
    int64_t start = lua_isnoneornil(L, 4) ? jl_now(L) : (int64_t)luaL_checknumber(L, 4);
    struct jl_arrivals *a = jl_new(L, sizeof *a, &magic_arrivals, jl_self(L)->ref_arrivals_meta);
    jdb_arrivals_init(&a->a, rate, poisson, &r->state, start);
    return 1;
}

/* next(): takes the next arrival, waits until it is due, and makes that the due time of what the
 * task measures first. */
static int arrivals_next(lua_State *L) {
    struct jl_arrivals *a = check_arrivals(L);
    struct jl_times *t = jl_own_times(L);
    int64_t now = jl_now(L), due = jdb_arrivals_take(&a->a, now);
    t->due = t->planned = due;
    if (due > now) return jl_sleep_until(L, due);
    lua_pushboolean(L, 1);
    return 1;
}

/* until_due(ns): waits until then and makes that the due time of what the task measures first. */
static int until_due(lua_State *L) {
    int64_t when = (int64_t)luaL_checknumber(L, 1);
    struct jl_times *t = jl_own_times(L);
    t->due = t->planned = when;
    if (when > jl_now(L)) return jl_sleep_until(L, when);
    lua_pushboolean(L, 1);
    return 1;
}

/* due(): the planned time of the task's iteration in ns, or nil. */
static int due(lua_State *L) {
    struct jl_times *t = jl_own_times(L);
    if (t->planned) lua_pushnumber(L, (lua_Number)t->planned);
    else lua_pushnil(L);
    return 1;
}

/* mark(): figures count from here. */
static int arrivals_mark(lua_State *L) {
    jdb_arrivals_mark(&check_arrivals(L)->a, jl_now(L));
    return 0;
}

/* state(): since mark: arrivals that were due, the backlog now, the largest one. */
static int arrivals_state(lua_State *L) {
    jdb_arrivals *a = &check_arrivals(L)->a;
    uint64_t backlog = jdb_arrivals_backlog(a, jl_now(L));
    jl_push_size(L, a->arrived.count - a->offered_before);
    jl_push_size(L, backlog);
    jl_push_size(L, a->backlog_max);
    return 3;
}

/* entropy(count): that many bytes from the system, 256 at most; nil when it gives none. */
static int entropy(lua_State *L) {
    char bytes[256];
    size_t count = (size_t)whole(L, 1, 1, sizeof bytes);
    if (jdb_entropy(bytes, count) != 0) return 0;
    lua_pushlstring(L, bytes, count);
    return 1;
}

int jl_open_random(lua_State *L) {
    static const luaL_Reg none[] = {{NULL, NULL}};
    static const luaL_Reg random_methods[] = {{"int", random_int},
                                              {"float", random_float},
                                              {"exp", random_exp},
                                              {"normal", random_normal},
                                              {"zipf", random_zipf},
                                              {"pareto", random_pareto},
                                              {"pick", random_pick},
                                              {"perm", random_perm},
                                              {"bytes", random_bytes},
                                              {"fill", random_fill},
                                              {"pages", random_pages},
                                              {"page", random_page},
                                              {NULL, NULL}};
    static const luaL_Reg arrivals_methods[] = {
        {"next", arrivals_next}, {"mark", arrivals_mark}, {"state", arrivals_state}, {NULL, NULL}};
    static const luaL_Reg functions[] = {{"random", random_new},     {"due", due},
                                         {"arrivals", arrivals_new}, {"number", number},
                                         {"scatter", scatter},       {"until_due", until_due},
                                         {"entropy", entropy},       {NULL, NULL}};
    jl_state *S = jl_self(L);
    S->ref_random_meta = jl_new_class(L, "jdbfs.random", random_methods, none);
    S->ref_arrivals_meta = jl_new_class(L, "jdbfs.arrivals", arrivals_methods, none);
    jl_register(L, functions);
    return 0;
}
