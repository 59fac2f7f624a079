#!/usr/bin/env bash
# durable.sh [DIRECTORY [ROUNDS [SECONDS]]]: group commit, lists and streams against their rivals, on
# files made in DIRECTORY (default: build/bench). LUA= chooses the Lua.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
dir=${1:-build/bench}
mkdir -p build/bench "$dir"
"${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -o build/bench/commit spec/bench/commit.c
read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "${LUA:-lua5.4}")"
[[ $verdict == ok && $exe != - ]] || { echo "bench: no Lua to measure" >&2; exit 1; }
"${MAKE:-make}" --no-print-directory LUA="${LUA:-lua5.4}" all >/dev/null
LUA_PATH="lua/?.lua;lua/?/init.lua;;" LUA_CPATH="build/$id/?.so;;" \
    "$exe" spec/bench/durable.lua "$dir" "${2:-7}" "${3:-1}"
