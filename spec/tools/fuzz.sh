#!/usr/bin/env bash
# Coverage-guided fuzzing: fuzz.sh [SECONDS [FUZZER...]]. Builds spec/fuzz/*.c with clang's
# libFuzzer, the address and the undefined behaviour sanitizer, Lua 5.4 inside, and runs each for
# that long (20). What it finds stays in build/fuzz/FUZZER/: the file named crash-... repeats it,
# as in `cd /tmp/empty && .../build/fuzz/log.bin crash-...`. FUZZ_SEED repeats a run as far as time
# allows.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh
top=$PWD

seconds=${1:-20}
shift || true
names=("$@")
if [[ ${#names[@]} == 0 ]]; then
    for file in spec/fuzz/*.c; do names+=("$(basename "$file" .c)"); done
fi
seed=${FUZZ_SEED:-$RANDOM}
clang=${CLANG:-clang}
passed=0 failed=0 skipped=0

skip_all() {
    echo "skip fuzzing: $1"
    echo
    echo "0 passed, 0 failed, ${#names[@]} skipped"
    exit 0
}

command -v "$clang" >/dev/null || skip_all "clang is missing; $(install_hint clang)"
flags=(-g -O1 -std=c11 -D_GNU_SOURCE -pthread "-fsanitize=address,undefined"
    -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
fuzzer=-fsanitize=fuzzer
"$clang" "${flags[@]}" $fuzzer -x c -o /dev/null - 2>/dev/null <<'C' ||
#include <stddef.h>
#include <stdint.h>
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n) { return p && n > 9 ? 0 : 0; }
C
    skip_all "clang has no libFuzzer here; $(install_hint clang-rt)"
read -r verdict _ _ _ include _ <<<"$(bash spec/tools/lua.sh find lua5.4)"
[[ $verdict == ok ]] || skip_all "no Lua 5.4 with headers; $(install_hint lua-5.4 headers-5.4)"
lua_libs=$(pkg-config --libs lua5.4 2>/dev/null || echo -llua5.4)

# The seeds: bytes that reach into every call, made here rather than kept.
make_corpus() { # DIRECTORY
    local i j
    mkdir -p "$1"
    for i in $(seq 0 15); do
        for j in $(seq 0 63); do
            # shellcheck disable=SC2059
            printf "\\x$(printf %x $(((i * 37 + j * (i + 3) * 11 + j * j) % 256)))"
        done >"$1/seed-$i"
    done
    printf '\x01' >"$1/one"
    printf '\x02jdbfslog\x01\x00\x00\x00\x00\x10\x00\x00' >"$1/header"
    printf 't_us,op,offset,length,stream\n0,read,0,4096,a\n10.5,w,8192,512\n20,fsync,,\n' \
        >"$1/csv"
    printf 'fio version 2 iolog\nf add\nf open\nf read 0 4096\nf wait 200 0\nf datasync 0 0\n' \
        >"$1/iolog2"
    printf 'fio version 3 iolog\n1 f add\n2 f write 512 1024\n3 f trim 0 512\n4 f close\n' \
        >"$1/iolog3"
    printf '@{"a":[1,-2.5e-3,null,true,false,"x\\u00e9\\n"],"b":{}}' >"$1/json"
}

compile() { # SOURCE: its object
    local object
    object=build/fuzz/object/$(basename "$1" .c).o
    "$clang" "${flags[@]}" $fuzzer-no-link -Icsrc -isystem "$include" -c -o "$object" "$1"
}

works=()
trap '((${#works[@]})) && rm -rf "${works[@]}"' EXIT
mkdir -p build/fuzz/object
sources=$(make --no-print-directory -s print-sources LUA=lua5.4 | tr ' ' '\n' | grep '^csrc/.*\.c$')
for file in $sources; do
    while (($(jobs -rp | wc -l) >= 2)); do wait -n; done
    compile "$file" &
done
while (($(jobs -rp | wc -l) > 0)); do wait -n; done

build() { # NAME
    # shellcheck disable=SC2086
    "$clang" "${flags[@]}" $fuzzer -Icsrc -isystem "$include" -o "build/fuzz/$1.bin" \
        "spec/fuzz/$1.c" build/fuzz/object/*.o $lua_libs -luring -ldl -lm
}

for name in "${names[@]}"; do
    if ! build "$name"; then
        echo "FAIL $name: does not build"
        failed=$((failed + 1))
        continue
    fi
    dir=build/fuzz/$name
    make_corpus "$dir/corpus"
    log=$dir/fuzz.log rc=0
    # Files stay in the directory: no call of the fuzzers leaves it.
    # In memory where there is such a place: flushes of a disk would be most of the time.
    place=/dev/shm
    [[ -w $place ]] || place=$top/build/fuzz
    work=$(mktemp -d "$place/jdbfs-fuzz.XXXXXX")
    works+=("$work")
    (cd "$work" && ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1 \
        UBSAN_OPTIONS=print_stacktrace=1 \
        JDBFS_LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;$top/spec/?.lua" \
        timeout -k 10 $((seconds + 120)) "$top/build/fuzz/$name.bin" \
        -max_total_time="$seconds" -timeout=20 \
        -rss_limit_mb=3000 -malloc_limit_mb=2000 -max_len=600 -seed="$seed" -print_final_stats=1 \
        -verbosity=1 -artifact_prefix="$top/$dir/" "$top/$dir/corpus" >"$top/$log" 2>&1) || rc=$?
    runs=$(awk '/number_of_executed_units/ { n = $2 } END { print n + 0 }' "$log")
    if [[ $rc == 0 && $runs -gt 0 ]]; then
        passed=$((passed + 1))
        echo "ok   fuzz $name: $runs inputs in $seconds s, seed $seed," \
            "$(grep -o 'ft: [0-9]*' "$log" | tail -n 1 | sed 's/ft:/features:/')"
    else
        failed=$((failed + 1))
        echo "FAIL fuzz $name: exit status $rc after $runs inputs, seed $seed, see $log"
        grep -m 1 -A 40 -E 'ERROR:|contract broken|runtime error|SUMMARY' "$log" |
            sed 's/^/     | /' ||
            tail -n 20 "$log" | sed 's/^/     | /'
    fi
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
