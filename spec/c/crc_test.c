/* CRC-32C: the vectors of RFC 3720, every length and start against one bit at a time, and the
 * sum of parts; by the processor's instruction where there is one, and by the table. */
#include "os.h"
#include "test.h"

/* The table serves where there is no instruction: the same source on such a machine. */
static jdb_crc32c_fn no_instruction(void) { return NULL; }
#define jdb_os_crc32c no_instruction
#define jdb_crc32c crc32c_by_table
static uint32_t crc32c_by_table(uint32_t crc, const void *data, size_t len);
#include "crc32c.c"
#undef jdb_os_crc32c
#undef jdb_crc32c

static uint32_t (*crc32c)(uint32_t crc, const void *data, size_t len);

static uint32_t bit_by_bit(uint32_t crc, const uint8_t *data, size_t len) {
    crc = ~crc;
    while (len-- > 0) {
        crc ^= *data++;
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static void vectors(void) {
    /* RFC 3720, B.4: an iSCSI READ (10) command. */
    static const uint8_t scsi[48] = {0x01, 0xc0, 0, 0,    0,    0, 0, 0,    0,    0, 0,    0,
                                     0,    0,    0, 0,    0x14, 0, 0, 0,    0,    0, 0x04, 0,
                                     0,    0,    0, 0x14, 0,    0, 0, 0x18, 0x28, 0, 0,    0,
                                     0,    0,    0, 0,    0x02, 0, 0, 0,    0,    0, 0,    0};
    uint8_t data[32];
    memset(data, 0, sizeof data);
    CHECK_EQ(crc32c(0, data, 32), 0x8a9136aau);
    memset(data, 0xff, sizeof data);
    CHECK_EQ(crc32c(0, data, 32), 0x62a8ab43u);
    for (unsigned i = 0; i < 32; i++) data[i] = (uint8_t)i;
    CHECK_EQ(crc32c(0, data, 32), 0x46dd794eu);
    for (unsigned i = 0; i < 32; i++) data[i] = (uint8_t)(31 - i);
    CHECK_EQ(crc32c(0, data, 32), 0x113fdb5cu);
    CHECK_EQ(crc32c(0, scsi, 48), 0xd9963a56u);
    CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(crc32c(0, "", 0), 0);
    CHECK_EQ(crc32c(0x12345678, "", 0), 0x12345678);
}

static void against_bits(void) {
    static uint8_t data[600];
    uint64_t seed = 1;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)test_random(&seed);
    for (size_t start = 0; start < 16; start++)
        for (size_t len = 0; len <= 300; len++) {
            uint32_t before = (uint32_t)test_random(&seed);
            uint32_t want = bit_by_bit(before, data + start, len);
            CHECK_EQ(crc32c(before, data + start, len), want);
        }
}

static void parts(void) {
    static uint8_t data[70000];
    uint64_t seed = 2;
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)test_random(&seed);
    uint32_t whole = crc32c(0, data, sizeof data);
    CHECK_EQ(whole, bit_by_bit(0, data, sizeof data));
    for (int round = 0; round < 200; round++) {
        uint32_t crc = 0;
        size_t at = 0;
        while (at < sizeof data) {
            size_t len = (size_t)(test_random(&seed) % (round % 2 ? 9 : 9000));
            if (len > sizeof data - at) len = sizeof data - at;
            crc = crc32c(crc, data + at, len);
            at += len;
        }
        CHECK_EQ(crc, whole);
    }
}

static void all(const char *name) {
    test_begin(name, 60);
    vectors();
    against_bits();
    parts();
}

int main(void) {
    crc32c = jdb_crc32c;
    all("crc32c");
    crc32c = crc32c_by_table;
    all("crc32c by table");
    return 0;
}
