#!/usr/bin/env bash
# Specs under valgrind's memcheck on Lua 5.4: valgrind.sh [SPEC...]; by default those that are
# about memory and short. It knows io_uring's calls but not that the kernel fills buffers, hence
# no look at undefined values there. Children of the specs run without it. Ends with
# "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh
top=$PWD
specs=("$@")
((${#specs[@]})) || specs=(spec/10-buffer_spec.lua spec/25-lists_spec.lua)
passed=0 failed=0 skipped=0

read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find lua5.4)"
if ! command -v valgrind >/dev/null || [[ $verdict != ok ]]; then
    echo "skip valgrind: missing; $(install_hint valgrind lua-5.4 headers-5.4)"
    echo
    echo "0 passed, 0 failed, 2 skipped"
    exit 0
fi
mkdir -p build/test
work=$(mktemp -d "$top/build/test/valgrind.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! "${MAKE:-make}" --no-print-directory all LUA=lua5.4 >"$work/log" 2>&1; then
    cat "$work/log"
    exit 1
fi
export LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;$top/spec/?.lua;;"
export LUA_CPATH="$top/build/$id/?.so;;"

# Whether an operation of a ring ever ends under this valgrind.
ring_works() {
    local script="local j = require 'jdbfs'
        local f = assert(j.create(os.getenv 'RING_FILE', { direct = 'off' }))
        assert(f:write_at(j.buffer(4096), 0))
        assert(f:close())"
    JDBFS_BACKEND=io_uring RING_FILE=$work/ring timeout -k 2 20 \
        valgrind -q --tool=none "$exe" -e "$script" >/dev/null 2>&1
}

for backend in threads io_uring; do
    undefined=yes rc=0
    [[ $backend == io_uring ]] && undefined=no
    if [[ $backend == io_uring ]] && ! { ring_works; } 2>/dev/null; then
        skipped=$((skipped + 1))
        echo "skip valgrind io_uring: a write by a ring does not end under $(valgrind --version)"
        continue
    fi
    mkdir "$work/$backend"
    env -u LUA_INIT -u LUA_PATH_5_4 -u LUA_CPATH_5_4 \
        JDBFS_BACKEND=$backend JDBFS_TEST_DIR="$work/$backend" \
        JDBFS_TEST_LUA="$exe" timeout -k 10 "${TIMEOUT:-900}" \
        valgrind -q --error-exitcode=99 --leak-check=full --show-leak-kinds=definite \
        --errors-for-leak-kinds=definite --undef-value-errors=$undefined --num-callers=25 \
        --fair-sched=yes \
        "$exe" spec/tools/busted.lua -o plainTerminal "${specs[@]}" >"$work/out" 2>&1 || rc=$?
    ran=$(grep -oE '^[0-9]+ success[a-z]*' "$work/out" | grep -oE '[0-9]+') || ran=0
    if [[ $rc == 0 && $ran -gt 0 ]] && ! grep -q '^==[0-9]*== ' "$work/out"; then
        passed=$((passed + 1))
        echo "ok   valgrind $backend: $ran tests, nothing reported"
    elif grep -q 'io_uring refused' "$work/out"; then
        skipped=$((skipped + 1))
        echo "skip valgrind $backend: $(grep -m 1 -o 'io_uring refused.*' "$work/out")"
    else
        failed=$((failed + 1))
        echo "FAIL valgrind $backend: exit status $rc, $ran tests"
        grep -v '^[+.]*$' "$work/out" | head -n 60 | sed 's/^/     | /'
    fi
done
echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
