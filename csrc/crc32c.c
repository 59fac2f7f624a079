/* crc32c.c: CRC-32C (Castagnoli, reflected 0x82f63b78), eight table lookups per eight bytes; the
 * processor's instruction where the platform offers one. */
#include <stdatomic.h>
#include <string.h>

#include "os.h"

static uint32_t table[8][256];

static void make_table(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t crc = i;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
        table[0][i] = crc;
    }
    for (int row = 1; row < 8; row++)
        for (int i = 0; i < 256; i++)
            table[row][i] = (table[row - 1][i] >> 8) ^ table[0][table[row - 1][i] & 0xff];
}

static uint32_t by_table(uint32_t crc, const uint8_t *p, size_t len) {
    while (len >= 8) {
        uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
                              (uint32_t)p[3] << 24);
        crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^
              table[4][low >> 24] ^ table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^
              table[0][p[7]];
        p += 8;
        len -= 8;
    }
    while (len-- > 0) crc = (crc >> 8) ^ table[0][(crc ^ *p++) & 0xff];
    return crc;
}

static uint32_t first(uint32_t crc, const uint8_t *p, size_t len);

static _Atomic(jdb_crc32c_fn) run = first;

/* Two threads may be first at once; the wait is a few microseconds, once. */
static uint32_t first(uint32_t crc, const uint8_t *p, size_t len) {
    static atomic_flag busy = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
    }
    if (atomic_load_explicit(&run, memory_order_relaxed) == first) {
        jdb_crc32c_fn by_instruction = jdb_os_crc32c();
        if (!by_instruction) make_table();
        atomic_store_explicit(&run, by_instruction ? by_instruction : by_table,
                              memory_order_release);
    }
    atomic_flag_clear_explicit(&busy, memory_order_release);
    return atomic_load_explicit(&run, memory_order_relaxed)(crc, p, len);
}

uint32_t jdb_crc32c(uint32_t crc, const void *data, size_t len) {
    return ~atomic_load_explicit(&run, memory_order_acquire)(~crc, data, len);
}
