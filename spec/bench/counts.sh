#!/usr/bin/env bash
# counts.sh [--record] [SCENARIO...]: counts what operations cost and compares with counts.txt. No
# clock is looked at, so a busy machine does not matter. LUAS="lua5.4 luajit". Ends with
# "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=spec/bench/build.sh
. spec/bench/build.sh

# shellcheck disable=SC2086
contestants ${LUAS:-lua5.4 luajit}
tool count_alloc.so -fPIC -shared

# With these a count of instructions holds: compiler, C library, machine; counts.lua adds the Lua.
compiler=gcc
"${CC:-cc}" --version | grep -qi clang && compiler=clang
libc=$(getconf GNU_LIBC_VERSION 2>/dev/null) || libc=libc
key=$compiler-$("${CC:-cc}" -dumpfullversion -dumpversion)/${libc/ /-}/$(uname -m)

work=$(mktemp -d build/bench/counts.XXXXXX)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
jobs=()
for i in "${!names[@]}"; do
    "${interpreters[i]}" spec/bench/counts.lua "${COUNTS:-spec/bench/counts.txt}" "$key" \
        "${modules[i]}" "${names[i]}" "${interpreters[i]}" "$@" >"$work/$i" 2>&1 &
    jobs+=($!)
    # The record is one file: it is renewed by one at a time.
    [[ " $* " != *" --record "* ]] || wait "${jobs[-1]}" || true
done
passed=0 failed=0 skipped=0
for i in "${!names[@]}"; do
    rc=0
    wait "${jobs[i]}" || rc=$?
    sed '$d' "$work/$i"
    if [[ $(tail -n 1 "$work/$i") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]
    then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
    else
        tail -n 1 "$work/$i"
        failed=$((failed + 1))
    fi
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 && $passed != 0 ]]
