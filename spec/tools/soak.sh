#!/usr/bin/env bash
# soak.sh [SECONDS [LUA...]]: spec/tools/soak.lua on both backends (BACKENDS=threads: on that one),
# for that long each (25; two hours in make torture). SAN=thread makes it a stress test of the pool:
# the sanitizer's own memory grows, so growth is not judged then.
# Judged are what is allocated and not freed (spec/tools/heap.c counts it) and what is resident.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
san=${SAN-}
. spec/tools/sanitizer.sh
seconds=${1:-${SOAK_SECONDS:-25}}
shift || true
luas=("${@:-lua5.4}")
passed=0 failed=0 skipped=0
mkdir -p build/test
work=$(mktemp -d "$top/build/test/soak.XXXXXX")
own=$work
trap 'rm -rf "$work"' EXIT
# glibc gives each worker a heap of its own, which keeps what it once needed: sixteen of them grow
# for an hour before they are full, by more than what is looked for here.
export MALLOC_ARENA_MAX=${MALLOC_ARENA_MAX-1}
export SOAK_GROWTH=${SOAK_GROWTH-${san:+off}}

finish() {
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
    [[ $failed == 0 ]]
    exit
}

skip() {
    echo "skip soak: $1"
    skipped=$((skipped + 1))
}

if ! why=$(prepare_san); then
    skip "$why"
    finish
fi
prepare_san
counter=()
if [[ -z $san ]] &&
    "${CC:-cc}" -O1 -shared -fPIC -o "$work/heap.so" spec/tools/heap.c 2>/dev/null; then
    counter=(env "LD_PRELOAD=$work/heap.so" "SOAK_HEAP=$work/heap.so")
fi

for lua in "${luas[@]}"; do
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
    if [[ $verdict != ok ]] ||
        ! "${MAKE:-make}" --no-print-directory all LUA="$lua" SAN="$san" >"$work/log" 2>&1; then
        skip "$lua does not build here"
        continue
    fi
    exe=$(interpreter "$id" "$exe")
    for backend in ${BACKENDS:-io_uring threads}; do
        rc=0 dir=$work/$id-$backend title="soak $id${san:+ SAN=$san} $backend"
        mkdir "$dir"
        JDBFS_BACKEND=$backend LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;;" \
            LUA_CPATH="$top/build/$id$suffix/?.so;;" timeout -k 10 $((seconds * 2 + 120)) \
            ${counter[@]+"${counter[@]}"} "$exe" spec/tools/soak.lua "$dir" "$seconds" \
            >"$work/out" 2>&1 || rc=$?
        if [[ $rc == 0 ]] && ! { [[ -n $san ]] && grep -qE "$san_report" "$work/out"; }; then
            passed=$((passed + 1))
            echo "ok   $title: $(tail -n 1 "$work/out")"
        elif grep -q 'io_uring refused' "$work/out"; then
            skip "$id $backend: $(grep -m 1 'io_uring refused' "$work/out")"
        else
            failed=$((failed + 1))
            echo "FAIL $title: exit status $rc: $(tail -n 60 "$work/out")"
        fi
        rm -rf "$dir"
    done
done
finish
