/* trace.c: what `jdbfs run replay` reads: CSV, iologs of fio, blkparse, blktrace. See trace.lua. */
#include "module.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return fuzz_module("fuzz.trace", data, size);
}
