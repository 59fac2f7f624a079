#!/usr/bin/env bash
# run.sh [DIRECTORY [ROUNDS [SECONDS]]]: builds what the benchmark needs, then measures on a file
# that it makes in DIRECTORY (default: build/bench) and removes. Lua 5.4 and LuaJIT when they are
# there, others by LUAS="lua5.1 ...".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

make=${MAKE:-make}
cc=${CC:-cc}
dir=${1:-build/bench}
mkdir -p build/bench "$dir"
cflags=(-std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra)
"$cc" "${cflags[@]}" -o build/bench/loop spec/bench/loop.c -luring
"$cc" "${cflags[@]}" -fPIC -shared -o build/bench/count_alloc.so spec/bench/count_alloc.c

contestants=()
driver=
for lua in ${LUAS:-lua5.4 luajit}; do
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
    if [[ $verdict != ok || $exe == - ]]; then
        echo "$lua: not here"
        continue
    fi
    "$make" --no-print-directory LUA="$lua" all >/dev/null
    contestants+=("$lua=$exe=build/$id")
    driver=${driver:-$exe}
done
[[ -n $driver ]] || { echo "bench: no Lua to measure" >&2; exit 1; }

file=$(mktemp -u "$dir/reads-XXXXXX")
trap 'rm -f "$file"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
build/bench/loop make "$file" "${MEBIBYTES:-256}"
"$driver" spec/bench/run.lua "$file" "${2:-15}" "${3:-1}" "${contestants[@]}"
