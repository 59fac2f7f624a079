/* os_cpu.c: what the processor offers. */
#include "os.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>

/* The instruction takes three cycles and can begin in each: three lanes are worked at once, and
 * what the first ones gave is moved over the bytes behind them by table. */
enum { LANE = 168 }; /* records of 512 bytes have three */

static uint32_t moved[4][256]; /* what becomes of a byte of the sum when LANE zeros follow */

typedef uint64_t loose_word __attribute__((aligned(1), may_alias));
typedef uint32_t loose_half __attribute__((aligned(1), may_alias));

/* As assembly: compilers do not agree on the feature's name that their intrinsics ask for. */
static inline uint64_t add8(uint64_t sum, const uint8_t *p) {
    __asm__("crc32q %1, %0" : "+r"(sum) : "m"(*(const loose_word *)p));
    return sum;
}

static inline uint64_t add4(uint64_t sum, const uint8_t *p) {
    uint32_t crc = (uint32_t)sum;
    __asm__("crc32l %1, %0" : "+r"(crc) : "m"(*(const loose_half *)p));
    return crc;
}

static inline uint64_t add24(uint64_t sum, const uint8_t *p) {
    return add8(add8(add8(sum, p), p + 8), p + 16);
}

static uint64_t move(uint64_t sum) {
    return moved[0][sum & 0xff] ^ moved[1][sum >> 8 & 0xff] ^ moved[2][sum >> 16 & 0xff] ^
           moved[3][sum >> 24];
}

static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len) {
    uint64_t sum = crc;
    for (; len >= 3 * LANE; p += 3 * LANE, len -= 3 * LANE) {
        uint64_t second = 0, third = 0;
#pragma GCC unroll 7
        for (int i = 0; i < LANE; i += 24) {
            sum = add24(sum, p + i);
            second = add24(second, p + LANE + i);
            third = add24(third, p + 2 * LANE + i);
        }
        sum = move(move(sum) ^ second) ^ third;
    }
    for (; len >= 8; p += 8, len -= 8) sum = add8(sum, p);
    if (len >= 4) sum = add4(sum, p), p += 4, len -= 4;
    crc = (uint32_t)sum;
    while (len-- > 0) __asm__("crc32b %1, %0" : "+r"(crc) : "q"(*p++));
    return crc;
}

static void make_moved(void) {
    static const uint8_t zeros[LANE];
    for (uint32_t row = 0; row < 4; row++)
        for (uint32_t i = 0; i < 256; i++)
            moved[row][i] = crc32c_sse42(i << (8 * row), zeros, LANE);
}

jdb_crc32c_fn jdb_os_crc32c(void) {
    unsigned a, b, c = 0, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_SSE4_2)) return NULL;
    make_moved();
    return crc32c_sse42;
}

#elif defined(__ARM_FEATURE_CRC32)

#include <arm_acle.h>
#include <string.h>

static uint32_t crc32c_arm(uint32_t crc, const uint8_t *p, size_t len) {
    for (; len >= 8; p += 8, len -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        crc = __crc32cd(crc, word);
    }
    while (len-- > 0) crc = __crc32cb(crc, *p++);
    return crc;
}

jdb_crc32c_fn jdb_os_crc32c(void) { return crc32c_arm; }

#else

jdb_crc32c_fn jdb_os_crc32c(void) { return NULL; }

#endif
