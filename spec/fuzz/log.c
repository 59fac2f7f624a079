/* log.c: recovery of a log of hostile content. The input is patched over the segments of a good
 * log, or is the segment itself; opening, reading, appending and reopening must give results or
 * the contract's failures. With the first byte odd every header and record checksum is made right
 * afterwards, so that what is behind the checksums is reached, too. */
#include "fuzz.h"

#include "jdb.h"

static uint8_t *segments[2];
static size_t sizes[2];

static const char *const names[] = {"0000000003.log", "0000000004.log"};

/* A good log, made once: two segments, the second one used again. */
static void make_log(lua_State *L) {
    fuzz_must(L, "local jdbfs = require 'jdbfs'\n"
                 "os.execute('rm -rf good log')\n"
                 "local log = assert(jdbfs.log('good', { segment_size = 16384, batch_size = 4096, "
                 "direct = 'prefer', spare_segments = 1 }))\n"
                 "while log:stats().reused == 0 do\n"
                 "  local number = assert(log:append(('r'):rep(2700)))\n"
                 "  if log:stats().segments > 2 then assert(log:truncate_before(number - 3)) end\n"
                 "end\n"
                 "assert(log:append(('r'):rep(700)))\n"
                 "assert(jdbfs.atomic_write('id', '')) assert(log:close())\n"
                 "assert(jdbfs.mkdir('log'))");
    for (int i = 0; i < 2; i++) {
        char name[64];
        snprintf(name, sizeof name, "good/%s", names[i]);
        FILE *f = fopen(name, "rb");
        if (!f) fuzz_fail(name);
        segments[i] = malloc(65536);
        sizes[i] = segments[i] ? fread(segments[i], 1, 65536, f) : 0;
        fclose(f);
    }
}

static uint32_t get32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++, v >>= 8) p[i] = (uint8_t)v;
}

/* Where the good log had its records: their checksums are made right for what is there now. */
static void repair(uint8_t *p, size_t size, const uint8_t *good) {
    if (size >= 52) put32(p + 48, jdb_crc32c(0, p, 48));
    for (size_t at = 4096; at + 32 <= size; at += 8) {
        if (memcmp(good + at + 24, good + 16, 8) != 0) continue;
        size_t length = get32(p + at + 4);
        if (length <= size - at - 32) put32(p + at + 20, jdb_crc32c(0, p + at + 32, length));
        put32(p + at, jdb_crc32c(0, p + at + 4, 28));
    }
}

/* Patches: segment and place (3 bytes), length, bytes. */
static void patch(struct fuzz_input *in, uint8_t *copies[2]) {
    while (in->size > 3) {
        unsigned a = fuzz_byte(in), b = fuzz_byte(in), len = fuzz_byte(in) % 40;
        uint8_t *p = copies[a & 1];
        size_t at = ((size_t)(a >> 1) << 8 | b) % sizes[a & 1];
        /* Mostly where something is: headers and record headers. */
        if (a & 2) at = at % 64 + (a & 4 ? 4096 : 0);
        for (unsigned i = 0; i <= len && at + i < sizes[a & 1]; i++)
            p[at + i] ^= (uint8_t)fuzz_byte(in);
    }
}

static void write_file(const char *name, const uint8_t *data, size_t size) {
    FILE *f = fopen(name, "wb");
    if (!f || fwrite(data, 1, size, f) != size) fuzz_fail(name);
    fclose(f);
}

static const char program[] =
    "local jdbfs = require 'jdbfs'\n"
    "local function contract(value, message, err)\n"
    "  if value ~= nil then return value end\n"
    "  assert(type(message) == 'string' and type(err) == 'table', message)\n"
    "  assert(err.message == message and type(err.kind) == 'string')\n"
    "end\n"
    "local o = { segment_size = 16384, batch_size = 4096, direct = 'prefer' }\n"
    "local log = contract(jdbfs.log('log', o))\n"
    "if not log then return end\n"
    "local found, last = log:recovery(), 0\n"
    "local cursor = log:records()\n"
    "for _ = 1, 100 do\n"
    "  local number, data, err = cursor:next()\n"
    "  if not number then\n"
    "    if err then contract(number, data, err)\n"
    "    else assert(last == found.last or last + found.records == 0, 'short') end\n"
    "    break\n"
    "  end\n"
    "  assert(number == (last == 0 and found.first or last + 1), 'a gap')\n"
    "  assert(type(data) == 'string')\n"
    "  last = number\n"
    "end\n"
    "cursor:close()\n"
    "local number = contract(log:append('after'))\n"
    "if number then assert(number == found.last + 1, 'a number twice') end\n"
    "assert(log:close())\n"
    "if not number then return end\n"
    "log = assert(jdbfs.log('log', o))\n"
    "assert(log:recovery().last == number, 'an acknowledged record is gone')\n"
    "assert(select(2, log:records(number):next()) == 'after')\n"
    "assert(log:close())\n";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_input in = {data, size};
    uint8_t *copies[2];
    lua_State *L = fuzz_state();
    if (!segments[0]) make_log(L);
    unsigned mode = fuzz_byte(&in);
    for (int i = 0; i < 2; i++) {
        copies[i] = malloc(sizes[i]);
        if (!copies[i]) exit(1);
        memcpy(copies[i], segments[i], sizes[i]);
    }
    char paths[2][64];
    for (int i = 0; i < 2; i++) snprintf(paths[i], sizeof paths[i], "log/%s", names[i]);
    fuzz_must(L, "os.remove('log/0000000005.log') os.remove('log/0000000006.log')");
    if (mode & 2) {
        /* The input is the segment. */
        write_file(paths[0], in.data, in.size);
        remove(paths[1]);
    } else {
        size_t cut = mode & 4 ? (size_t)fuzz_byte(&in) << 7 : 0;
        patch(&in, copies);
        for (int i = 0; i < 2; i++) {
            if (mode & 1) repair(copies[i], sizes[i], segments[i]);
            write_file(paths[i], copies[i], i == 1 && cut < sizes[1] ? sizes[1] - cut : sizes[i]);
        }
        if (mode & 8) remove(paths[1]);
    }
    free(copies[0]);
    free(copies[1]);
    fuzz_must(L, program);
    lua_close(L);
    return 0;
}
