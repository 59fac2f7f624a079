/* os_cpu.c: what the processor offers. */
#include "os.h"

#if defined(__x86_64__) && defined(__GNUC__)

#include <cpuid.h>

typedef uint64_t loose_word __attribute__((aligned(1), may_alias));

/* As assembly: compilers do not agree on the feature's name that their intrinsics ask for. */
static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len) {
    uint64_t wide = crc;
    for (; len >= 32; p += 32, len -= 32)
        __asm__("crc32q %1, %0\n\tcrc32q %2, %0\n\tcrc32q %3, %0\n\tcrc32q %4, %0"
                : "+r"(wide)
                : "m"(((const loose_word *)p)[0]), "m"(((const loose_word *)p)[1]),
                  "m"(((const loose_word *)p)[2]), "m"(((const loose_word *)p)[3]));
    for (; len >= 8; p += 8, len -= 8)
        __asm__("crc32q %1, %0" : "+r"(wide) : "m"(*(const loose_word *)p));
    crc = (uint32_t)wide;
    while (len-- > 0) __asm__("crc32b %1, %0" : "+r"(crc) : "q"(*p++));
    return crc;
}

jdb_crc32c_fn jdb_os_crc32c(void) {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_SSE4_2) ? crc32c_sse42 : NULL;
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
