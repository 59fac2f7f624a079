/* measure.h: what measuring needs and the core does not: histograms, random streams, arrivals.
 * No queue, no Lua; nothing here allocates except where it says so. */
#ifndef JDB_MEASURE_H
#define JDB_MEASURE_H

#include <stdint.h>

/* ---- histogram.c: log-linear, 128 buckets for every doubling -------------------------------- */

enum { JDB_HISTOGRAM_BUCKETS = 58 * 128 }; /* up to 2^64 - 1 */

/* A bucket is at most 1/128 as wide as its lower bound: reported by its middle, a value is off by
 * at most 0.39 %. n, sum, min and max are exact. All zeros is an empty histogram. */
typedef struct jdb_histogram {
    uint64_t n, sum, min, max;
    uint64_t counts[JDB_HISTOGRAM_BUCKETS];
} jdb_histogram;

unsigned jdb_histogram_bucket(uint64_t value);
uint64_t jdb_histogram_lower(unsigned bucket, uint64_t *width); /* width may be NULL */
void jdb_histogram_merge(jdb_histogram *into, const jdb_histogram *from);

static inline void jdb_histogram_record(jdb_histogram *h, uint64_t value) {
    unsigned shift = value < 256 ? 0 : 56u - (unsigned)__builtin_clzll(value);
    h->counts[shift * 128 + (unsigned)(value >> shift)]++;
    h->sum += value;
    if (h->n++ == 0 || value < h->min) h->min = value;
    if (value > h->max) h->max = value;
}

/* ---- random.c: xoshiro256**, seeded by splitmix64 -------------------------------------------- */

typedef struct jdb_random {
    uint64_t s[4];
} jdb_random;

/* The stream depends on these three numbers and on nothing else. */
void jdb_random_seed(jdb_random *r, uint64_t seed, uint64_t job, uint64_t id);
uint64_t jdb_random_next(jdb_random *r);
uint64_t jdb_random_below(jdb_random *r, uint64_t n); /* 0 to n - 1, unbiased; n >= 1 */
double jdb_random_unit(jdb_random *r);                /* [0, 1), 53 bits */
double jdb_random_exp(jdb_random *r);                 /* mean 1 */
double jdb_random_normal(jdb_random *r);              /* mean 0, deviation 1 */

/* Zipf by rejection-inversion (Hoermann, Derflinger 1996): any theta > 0, any n below 2^53, no
 * table. Ranks are 1 to n, 1 the most frequent. */
typedef struct jdb_zipf {
    uint64_t n;
    double theta, start, width, shortcut;
} jdb_zipf;

void jdb_zipf_init(jdb_zipf *z, uint64_t n, double theta);
uint64_t jdb_zipf_draw(const jdb_zipf *z, jdb_random *r);

/* A keyed bijection of [0, n), by a Feistel network with cycle walking. */
typedef struct jdb_permutation {
    uint64_t n, key;
    unsigned half_bits;
} jdb_permutation;

void jdb_permutation_init(jdb_permutation *p, uint64_t n, uint64_t key);
uint64_t jdb_permute(const jdb_permutation *p, uint64_t i);

/* ---- arrivals: an open loop's planned times -------------------------------------------------- */

/* Two cursors over one stream of times: `taken` is what somebody serves, `arrived` is what was due
 * by now. What lies between them is the backlog; it costs no memory however long it gets. */
struct jdb_cursor {
    jdb_random random;
    uint64_t count; /* arrivals passed */
    double at;      /* of the next one, ns after the start */
};

typedef struct jdb_arrivals {
    int64_t start;
    double gap; /* mean, ns */
    int poisson;
    struct jdb_cursor taken, arrived;
    uint64_t offered_before, taken_before, backlog_max; /* since jdb_arrivals_mark */
} jdb_arrivals;

void jdb_arrivals_init(jdb_arrivals *a, double per_second, int poisson, const jdb_random *random,
                       int64_t start);
int64_t jdb_arrivals_take(jdb_arrivals *a, int64_t now); /* when the next one is due */
uint64_t jdb_arrivals_backlog(jdb_arrivals *a, int64_t now);
void jdb_arrivals_mark(jdb_arrivals *a, int64_t now); /* counting starts here */

#endif
