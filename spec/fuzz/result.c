/* result.c: JSON, and result documents, which the command shows and compares. See result.lua. */
#include "module.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    return fuzz_module("fuzz.result", data, size);
}
