/* histogram.c: see measure.h. */
#include "measure.h"

unsigned jdb_histogram_bucket(uint64_t value) {
    unsigned shift = value < 256 ? 0 : 56u - (unsigned)__builtin_clzll(value);
    return shift * 128 + (unsigned)(value >> shift);
}

uint64_t jdb_histogram_lower(unsigned bucket, uint64_t *width) {
    unsigned shift = bucket < 256 ? 0 : bucket / 128 - 1;
    if (width) *width = UINT64_C(1) << shift;
    return (uint64_t)(bucket - shift * 128) << shift;
}

void jdb_histogram_merge(jdb_histogram *into, const jdb_histogram *from) {
    if (from->n == 0) return;
    if (into->n == 0 || from->min < into->min) into->min = from->min;
    if (from->max > into->max) into->max = from->max;
    into->n += from->n;
    into->sum += from->sum;
    unsigned last = jdb_histogram_bucket(from->max);
    for (unsigned i = jdb_histogram_bucket(from->min); i <= last; i++)
        into->counts[i] += from->counts[i];
}
