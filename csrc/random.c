/* random.c: see measure.h. xoshiro256** (Blackman, Vigna) and what is drawn with it. Only integer
 * arithmetic and libm: the same seed draws the same numbers in every Lua. */
#include "measure.h"

#include <math.h>

static uint64_t splitmix(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void jdb_random_seed(jdb_random *r, uint64_t seed, uint64_t job, uint64_t id) {
    uint64_t state = seed;
    state = splitmix(&state) ^ job;
    state = splitmix(&state) ^ id;
    for (int i = 0; i < 4; i++) r->s[i] = splitmix(&state);
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t jdb_random_next(jdb_random *r) {
    uint64_t *s = r->s, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

uint64_t jdb_random_below(jdb_random *r, uint64_t n) {
    uint64_t mask = n - 1, x;
    if ((n & mask) == 0) return jdb_random_next(r) & mask;
    mask = ~UINT64_C(0) >> __builtin_clzll(mask);
    do x = jdb_random_next(r) & mask;
    while (x >= n);
    return x;
}

double jdb_random_unit(jdb_random *r) { return (double)(jdb_random_next(r) >> 11) * 0x1p-53; }

double jdb_random_exp(jdb_random *r) { return -log(1.0 - jdb_random_unit(r)); }

double jdb_random_normal(jdb_random *r) {
    double x, y, d;
    do { /* Marsaglia's polar method; the second number is dropped, so that no state is kept */
        x = 2 * jdb_random_unit(r) - 1;
        y = 2 * jdb_random_unit(r) - 1;
        d = x * x + y * y;
    } while (d >= 1 || d == 0);
    return x * sqrt(-2 * log(d) / d);
}

/* ---- Zipf ----------------------------------------------------------------------------------- */

/* The integral of x^-theta from 1 to x, and its inverse; exact also where theta is near 1. */
static double integral(const jdb_zipf *z, double x) {
    double a = 1 - z->theta, l = log(x);
    return fabs(a * l) < 1e-12 ? l : expm1(a * l) / a;
}

static double integral_inverse(const jdb_zipf *z, double y) {
    double a = 1 - z->theta, t = a * y;
    if (fabs(t) < 1e-12) return exp(y);
    if (t <= -1) t = -1 + 1e-16; /* rounding at the far end */
    return exp(log1p(t) / a);
}

static double density(const jdb_zipf *z, double x) { return exp(-z->theta * log(x)); }

void jdb_zipf_init(jdb_zipf *z, uint64_t n, double theta) {
    z->n = n;
    z->theta = theta;
    z->start = integral(z, 1.5) - 1;
    z->width = integral(z, (double)n + 0.5) - z->start;
    z->shortcut = 2 - integral_inverse(z, integral(z, 2.5) - density(z, 2));
}

uint64_t jdb_zipf_draw(const jdb_zipf *z, jdb_random *r) {
    for (;;) {
        double u = z->start + jdb_random_unit(r) * z->width;
        double x = integral_inverse(z, u);
        uint64_t k = x < 1 ? 1 : (uint64_t)(x + 0.5);
        if (k > z->n) k = z->n;
        if ((double)k - x <= z->shortcut) return k;
        if (u >= integral(z, (double)k + 0.5) - density(z, (double)k)) return k;
    }
}

/* ---- permutation ---------------------------------------------------------------------------- */

void jdb_permutation_init(jdb_permutation *p, uint64_t n, uint64_t key) {
    unsigned bits = n > 1 ? 64u - (unsigned)__builtin_clzll(n - 1) : 1;
    p->n = n;
    p->key = key;
    p->half_bits = (bits + 1) / 2;
}

static uint64_t feistel(const jdb_permutation *p, uint64_t i) {
    uint64_t mask = (UINT64_C(1) << p->half_bits) - 1;
    uint64_t left = i >> p->half_bits, right = i & mask;
    for (uint64_t round = 0; round < 4; round++) {
        uint64_t state = p->key ^ (round << 56) ^ right;
        uint64_t mixed = left ^ (splitmix(&state) & mask);
        left = right;
        right = mixed;
    }
    return left << p->half_bits | right;
}

uint64_t jdb_permute(const jdb_permutation *p, uint64_t i) {
    if (p->n < 2) return 0;
    do i = feistel(p, i);
    while (i >= p->n);
    return i;
}

/* ---- arrivals ------------------------------------------------------------------------------- */

/* Constant gaps are counted, not added up: an hour of them ends exactly where it should. */
static void advance(const jdb_arrivals *a, struct jdb_cursor *c) {
    c->count++;
    if (a->poisson) c->at += a->gap * jdb_random_exp(&c->random);
    else c->at = a->gap * (double)c->count;
}

void jdb_arrivals_init(jdb_arrivals *a, double per_second, int poisson, const jdb_random *random,
                       int64_t start) {
    struct jdb_cursor first = {*random, 0, 0};
    a->start = start;
    a->gap = 1e9 / per_second;
    a->poisson = poisson;
    if (poisson) first.at = a->gap * jdb_random_exp(&first.random);
    a->taken = a->arrived = first;
    a->offered_before = a->taken_before = a->backlog_max = 0;
}

/* The second cursor is behind the first while somebody waits for an arrival that is to come. */
uint64_t jdb_arrivals_backlog(jdb_arrivals *a, int64_t now) {
    double at = (double)(now - a->start);
    while (a->arrived.at <= at) advance(a, &a->arrived);
    uint64_t backlog = a->arrived.count > a->taken.count ? a->arrived.count - a->taken.count : 0;
    if (backlog > a->backlog_max) a->backlog_max = backlog;
    return backlog;
}

int64_t jdb_arrivals_take(jdb_arrivals *a, int64_t now) {
    jdb_arrivals_backlog(a, now);
    int64_t due = a->start + (int64_t)a->taken.at;
    advance(a, &a->taken);
    return due;
}

void jdb_arrivals_mark(jdb_arrivals *a, int64_t now) {
    uint64_t backlog = jdb_arrivals_backlog(a, now);
    a->offered_before = a->arrived.count;
    a->taken_before = a->taken.count;
    a->backlog_max = backlog;
}
