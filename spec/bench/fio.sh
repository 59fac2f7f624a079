#!/usr/bin/env bash
# fio.sh [DIRECTORY [PAIRS [SECONDS]]]: `jdbfs run` against fio with io_uring on the same file, random
# 4 KiB reads, then writes, in alternating pairs, with fio against itself as control. fio gets the
# batches that jdbfs was seen to make. LUA=luajit for another Lua, DEPTH=32, MEBIBYTES=256. Runs of
# less than some seconds mostly measure how both start.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh

command -v fio >/dev/null || { echo "bench: fio is missing; $(install_hint fio)" >&2; exit 1; }
dir=${1:-build/bench}
mkdir -p "$dir"
read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "${LUA:-}")"
[[ $verdict == ok && $exe != - ]] || { echo "bench: no Lua to measure" >&2; exit 1; }
"${MAKE:-make}" --no-print-directory LUA="${LUA:-}" all >/dev/null

work=$(mktemp -d "$dir/fio-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export LUA_PATH="lua/?.lua;lua/?/init.lua;;" LUA_CPATH="build/$id/?.so;;"
"$exe" spec/bench/fio.lua "$exe" "$work" "${2:-15}" "${3:-4}" "${DEPTH:-32}" "${MEBIBYTES:-256}"
