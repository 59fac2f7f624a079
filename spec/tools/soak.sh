#!/usr/bin/env bash
# soak.sh [SECONDS [LUA...]]: spec/tools/soak.lua on both backends, for that long each (25; an
# hour in make torture). Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
seconds=${1:-${SOAK_SECONDS:-25}}
shift || true
luas=("${@:-lua5.4}")
passed=0 failed=0 skipped=0
mkdir -p build/test
work=$(mktemp -d "$top/build/test/soak.XXXXXX")
trap 'rm -rf "$work"' EXIT

for lua in "${luas[@]}"; do
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
    if [[ $verdict != ok ]] ||
        ! "${MAKE:-make}" --no-print-directory all LUA="$lua" >"$work/log" 2>&1; then
        echo "skip soak: $lua does not build here"
        skipped=$((skipped + 1))
        continue
    fi
    for backend in io_uring threads; do
        rc=0 dir=$work/$id-$backend
        mkdir "$dir"
        JDBFS_BACKEND=$backend LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;;" \
            LUA_CPATH="$top/build/$id/?.so;;" timeout -k 10 $((seconds * 2 + 120)) \
            "$exe" spec/tools/soak.lua "$dir" "$seconds" >"$work/out" 2>&1 || rc=$?
        if [[ $rc == 0 ]]; then
            passed=$((passed + 1))
            echo "ok   soak $id $backend: $(tail -n 1 "$work/out")"
        elif grep -q 'io_uring refused' "$work/out"; then
            skipped=$((skipped + 1))
            echo "skip soak $id $backend: $(grep -m 1 'io_uring refused' "$work/out")"
        else
            failed=$((failed + 1))
            echo "FAIL soak $id $backend: exit status $rc: $(tail -n 5 "$work/out")"
        fi
        rm -rf "$dir"
    done
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
