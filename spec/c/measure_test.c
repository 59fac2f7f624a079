/* Random streams, histograms and arrivals against published numbers and by hand. */
#include "measure.h"
#include "test.h"

/* The first numbers of xoshiro256** from the state 1, 2, 3, 4, as its authors' code gives them. */
static void xoshiro(void) {
    static const uint64_t published[] = {UINT64_C(11520), UINT64_C(0), UINT64_C(1509978240),
                                         UINT64_C(1215971899390074240)};
    jdb_random r = {{1, 2, 3, 4}};
    for (int i = 0; i < 4; i++) CHECK(jdb_random_next(&r) == published[i]);
}

static void streams_differ(void) {
    jdb_random a, b;
    jdb_random_seed(&a, 1, 2, 3);
    jdb_random_seed(&b, 1, 2, 3);
    CHECK(memcmp(&a, &b, sizeof a) == 0);
    jdb_random_seed(&b, 1, 3, 2);
    CHECK(memcmp(&a, &b, sizeof a) != 0);
    for (int i = 0; i < 1000; i++) CHECK(jdb_random_below(&a, 3) < 3);
    CHECK_EQ(jdb_random_below(&a, 1), 0);
}

static void buckets(void) {
    static const uint64_t values[] = {
        0, 1, 255, 256, 257, 511, 512, 1000000, 1u << 30, UINT64_C(1) << 40, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        uint64_t width;
        unsigned bucket = jdb_histogram_bucket(values[i]);
        CHECK(bucket < JDB_HISTOGRAM_BUCKETS);
        uint64_t lower = jdb_histogram_lower(bucket, &width);
        CHECK(values[i] >= lower && values[i] - lower < width);
        CHECK(width == 1 || width <= lower / 128);
    }
    CHECK_EQ(jdb_histogram_bucket(UINT64_MAX), JDB_HISTOGRAM_BUCKETS - 1);
}

static void merging(void) {
    static jdb_histogram a, b, all;
    for (uint64_t i = 1; i <= 10000; i++) {
        jdb_histogram_record(i % 2 ? &a : &b, i * i);
        jdb_histogram_record(&all, i * i);
    }
    jdb_histogram_merge(&a, &b);
    CHECK(memcmp(&a, &all, sizeof a) == 0);
    memset(&b, 0, sizeof b);
    jdb_histogram_merge(&a, &b);
    CHECK(memcmp(&a, &all, sizeof a) == 0);
    jdb_histogram_merge(&b, &a);
    CHECK(memcmp(&b, &all, sizeof b) == 0);
}

static void backlog(void) {
    jdb_random r;
    jdb_arrivals a;
    jdb_random_seed(&r, 1, 1, 1);
    jdb_arrivals_init(&a, 1000, 0, &r, 5000000);
    CHECK_EQ(jdb_arrivals_backlog(&a, 4999999), 0);
    CHECK_EQ(jdb_arrivals_backlog(&a, 5000000), 1);
    CHECK_EQ(jdb_arrivals_backlog(&a, 5999999), 1);
    CHECK_EQ(jdb_arrivals_backlog(&a, 15000000), 11);
    CHECK_EQ(jdb_arrivals_take(&a, 15000000), 5000000);
    CHECK_EQ(jdb_arrivals_take(&a, 15000000), 6000000);
    CHECK_EQ(jdb_arrivals_backlog(&a, 15000000), 9);
    for (int i = 0; i < 12; i++) jdb_arrivals_take(&a, 15000000);
    CHECK_EQ(jdb_arrivals_backlog(&a, 15000000), 0); /* three are taken that are still to come */
    CHECK_EQ(jdb_arrivals_backlog(&a, 18000000), 0);
    CHECK_EQ(jdb_arrivals_backlog(&a, 19000000), 1);
    CHECK_EQ(a.backlog_max, 11);
    jdb_arrivals_mark(&a, 19000000);
    CHECK_EQ(a.backlog_max, 1);
}

int main(void) {
    test_name = "xoshiro";
    xoshiro();
    test_name = "streams_differ";
    streams_differ();
    test_name = "buckets";
    buckets();
    test_name = "merging";
    merging();
    test_name = "backlog";
    backlog();
    return 0;
}
