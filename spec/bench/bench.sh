#!/usr/bin/env bash
# bench.sh [--short] [--readme] [--dir DIRECTORY] [PART...]: measures against rivals, on files that it
# makes in DIRECTORY (build/bench) and removes, and prints tables for README.md.
#
#   reads     random reads: a liburing loop in C, fio, threads in pread, luv; one that is alone;
#             out of the page cache; the batching against every other of the C loop
#   scale     random reads by two processes, and by two Lua states in threads
#   durable   the log and flushes: C loops, one flush a write; lists and streams: tasks, fio
#   command   `jdbfs run` against fio at equal batches, and what recording costs
#   hosts     what a read costs in other people's event loops (not in README.md)
#
# Without parts: the first four, in about fifteen minutes; --short: in about one, and says little.
# --readme puts the tables between the marks in README.md: only on a machine that does nothing else.
# LUAS="lua5.4 luajit": who reads; the first does the rest. MEBIBYTES=256, of the file.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# shellcheck source=spec/bench/build.sh
. spec/bench/build.sh

dir=build/bench readme='' rounds=9 seconds=0.5 durable='5 0.6' pairs='15 3' parts=()
recording='300 6400'
while (($#)); do
    case $1 in
        --short) rounds=3 seconds=0.2 durable='2 0.2' pairs='3 1'
                 recording='50 6400' ;;
        --readme) readme=yes ;;
        --dir) dir=${2:?--dir needs a directory}; shift ;;
        reads | scale | durable | command | hosts) parts+=("$1") ;;
        *) echo "bench: $1 is no option and no part; see spec/bench/bench.sh" >&2; exit 2 ;;
    esac
    shift
done
((${#parts[@]})) || parts=(reads scale durable command)

# shellcheck disable=SC2086
contestants ${LUAS:-lua5.4 luajit}
tool loop -luring
tool pread -pthread
tool commit -Icsrc build/core/libjdb.a -luring -pthread
with_lua bare_loop -luring
with_lua bare_commit -DCOMMITS build/core/libjdb.a -luring -pthread
mkdir -p "$dir"
work=$(mktemp -d "$dir/bench-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

lua=${interpreters[0]}
in_tree() {
    LUA_PATH="lua/?.lua;lua/?/init.lua;spec/bench/?.lua;;" LUA_CPATH="${modules[0]}/?.so;;" "$@"
}

args=()
for i in "${!names[@]}"; do
    args+=("${names[i]}=${interpreters[i]}=${modules[i]}")
done
reads() {
    build/bench/loop make "$work/reads" "${MEBIBYTES:-256}"
    "$lua" spec/bench/run.lua "$work/reads" "$rounds" "$seconds" "${args[@]}"
    echo
    "$lua" spec/bench/lone.lua "$work/reads" $((2 * rounds + 3)) 0.2 "${args[@]}"
    echo
    "$lua" spec/bench/batch.lua "$work/reads" $((rounds < 7 ? rounds : 7)) 0.25 "${args[@]}"
    echo
    "$lua" spec/bench/luv.lua "$work/reads" $((rounds < 5 ? rounds : 5)) 0.3 "${args[@]}"
    rm -f "$work/reads"
    echo
    build/bench/loop make "$work/cached" 8
    "$lua" spec/bench/cached.lua "$work/cached" $((2 * rounds - 3)) 0.1 "${args[@]}"
    rm -f "$work/cached"
}
scale() {
    local include states=build/bench/states.so
    read -r _ _ _ _ include <<<"$(bash spec/tools/lua.sh find "${names[0]}")"
    "${CC:-cc}" -std=c11 -O2 -shared -fPIC -pthread -I"$include" -o "$states" \
        spec/c/helper/states.c || states=-
    build/bench/loop make "$work/reads" "${MEBIBYTES:-256}"
    "$lua" spec/bench/scale.lua "$work/reads" "$rounds" "$seconds" "$states" "$lua" "${modules[0]}"
    rm -f "$work/reads"
}
# shellcheck disable=SC2086
durable() {
    in_tree "$lua" spec/bench/commits.lua "$work" $durable "${args[@]}"
    echo
    in_tree "$lua" spec/bench/durable.lua "$work" $durable
}
# shellcheck disable=SC2086
command_() {
    local i
    in_tree "$lua" lua/bin/jdbfs run seqread --file "$work/cached" --keep --size 8m --time 10ms \
        --warmup 0s --quiet
    echo "What recording an operation costs, ns of CPU, by alternating stretches of ${recording##* }"
    echo "reads of the page cache in one process:"
    echo
    echo "| | recording | nothing, again | a read |"
    echo "|---|---|---|---|"
    for i in "${!names[@]}"; do
        in_tree env LUA_CPATH="${modules[i]}/?.so;;" "${interpreters[i]}" \
            spec/bench/recording.lua "$work/cached" $recording
    done
    echo
    command -v fio >/dev/null || { echo "fio is not installed."; return; }
    in_tree "$lua" spec/bench/fio.lua "$lua" "$work" $pairs 32 "${MEBIBYTES:-256}"
}
hosts() { bash spec/bench/hosts.sh "$work"; }

report=build/bench/report.md
{
    in_tree "$lua" spec/bench/machine.lua "$work"
    for part in "${parts[@]}"; do
        echo
        if [[ $part == command ]]; then command_; else "$part"; fi
    done
} | tee "$report"
echo
echo "The report is in $report."
[[ -z $readme ]] || "$lua" spec/bench/readme.lua README.md "$report"
