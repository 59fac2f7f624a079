#!/usr/bin/env bash
# sequences.sh [SEQUENCES [LUA...]]: spec/tools/sequences.lua, that many short random sequences of
# calls (20,000) over all Luas and both backends, in processes that end in every way, with the build
# that keeps freed buffers under watch; every other process with injected faults and delays, half of
# them on this disk, half in memory. Before that: that a planted mistake is found.
# SAN=address: with that sanitizer instead, without faults. SEQUENCES_SEED=: of the first process;
# those that follow count on. Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
san=${SAN-}
. spec/tools/sanitizer.sh
. spec/tools/mounts.sh
sequences=${1:-20000}
shift || true
luas=("$@")
((${#luas[@]})) || luas=(lua5.4 luajit lua5.1 lua5.2 lua5.3)
seed=${SEQUENCES_SEED:-$((RANDOM * 1000))}
faults=$([[ -n $san ]] || echo -faults)
mkdir -p build/test
work=$(mktemp -d "$top/build/test/sequences.XXXXXX")
memory=$(memory_directory)
own=$work
trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -rf "$work" ${memory:+"$memory"}' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
PLAN='*:p=0.05:late=3;*:p=0.01:delay=1;*:p=0.02:short;*:p=0.01:errno=EIO'
PLAN+=';*:p=0.01:errno=EIO:when=after;shuffle'
endings=(falls exits 'exits closing' raises)

# one ID INTERPRETER BACKEND SEED COUNT DIRECTORY ENDING PLAN: a process; its output, and as status
# whether it did what it should.
one() {
    local rc=0 want=0 out
    [[ $7 == raises ]] && want=1
    mkdir "$6"
    out=$(JDBFS_BACKEND=$3 SEQUENCES_SEED=$4 ENDING=$7 JDBFS_FAULTS=$8 \
        LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;;" \
        LUA_CPATH="$top/build/$1$faults$suffix/?.so;;" timeout -k 10 $(($5 / 10 + 300)) \
        "$2" spec/tools/sequences.lua "$6" "$5" 2>&1 </dev/null) || rc=$?
    rm -rf "$6"
    tail -n 30 <<<"$out"
    [[ $rc == "$want" ]] || { echo "exit status $rc"; return 1; }
    ((want == 0)) || grep -q 'raised on purpose$' <<<"$out" || return 1
    ! { [[ -n $san ]] && grep -qE "$san_report" <<<"$out"; }
}

series() { # ID INTERPRETER BACKEND SEED COUNT: into $work/ID-BACKEND.told; eight processes or more
    local id=$1 exe=$2 backend=$3 first=$4 left=$5 n=0 count place plan ending
    local log=$work/$id-$backend.log told=$work/$id-$backend.told
    local each=$((left / 8 + 1))
    while ((left > 0)); do
        count=$((each < 4000 ? each : 4000))
        count=$((left < count ? left : count))
        place=$work plan='' ending=${endings[n % 4]}
        (((n + n / 8) % 2)) || place=${memory:-$work}
        [[ -n $san ]] || ((n / 4 % 2)) || plan="seed=$((first + n));$PLAN"
        if ! one "$id" "$exe" "$backend" $((first + n)) "$count" "$place/$id-$backend-$n" \
            "$ending" "$plan" >"$log" 2>&1; then
            if grep -q 'io_uring refused' "$log"; then
                echo "skip sequences $id $backend: $(grep -m 1 'io_uring refused' "$log")" >"$told"
                return
            fi
            {
                echo "FAIL sequences $id $backend, seed $((first + n)), $count of them," \
                    "ending \"$ending\", JDBFS_FAULTS=\"$plan\":"
                sed 's/^/     | /' "$log"
            } >"$told"
            return
        fi
        left=$((left - count)) n=$((n + 1))
    done
    echo "ok   sequences $id $backend${san:+ SAN=$san}: $5 in $n processes, seeds $first to" \
        "$((first + n - 1)), nothing found" >"$told"
}

catches() { # ID INTERPRETER: memory given back when its operation is cancelled
    local out
    if out=$(one "$1" "$2" threads 1 4000 "$work/planted" falls \
        'plant=free_at_cancel;seed=3;*:p=0.05:late=3;*:p=0.01:delay=1'); then
        echo "FAIL sequences $1: a planted mistake was not found" >"$work/planted-$1.told"
    else
        {
            echo "ok   sequences $1: memory that is freed too early is found:"
            grep -m 1 -oE 'sequences, seed .*|jdbfs quarantine: [^;]*' <<<"$out" | sed 's/^/     /'
        } >"$work/planted-$1.told"
    fi
}

finish() {
    local passed failed skipped
    wait
    cat "$work"/*.told >"$work/all"
    cat "$work/all"
    passed=$(grep -c '^ok ' "$work/all") failed=$(grep -c '^FAIL ' "$work/all") || true
    skipped=$(grep -c '^skip ' "$work/all") || true
    printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [[ $failed == 0 ]]
    exit
}

if ! why=$(prepare_san); then
    echo "skip sequences: $why" >"$work/san.told"
    finish
fi
prepare_san

each=$(((sequences + 2 * ${#luas[@]} - 1) / (2 * ${#luas[@]})))
number=0 planted=''
for lua in "${luas[@]}"; do
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
    if [[ $verdict != ok || $exe == - ]] || ! "${MAKE:-make}" --no-print-directory all \
        LUA="$lua" SAN="$san" ${faults:+FAULTS=1} >"$work/build" 2>&1; then
        echo "skip sequences: $lua does not build here" >"$work/$lua.told"
        continue
    fi
    exe=$(interpreter "$id" "$exe")
    if [[ -n $faults && -z $planted ]]; then
        planted=1
        catches "$id" "$exe"
    fi
    for backend in io_uring threads; do
        while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
        series "$id" "$exe" "$backend" $((seed + 1000 * number)) "$each" &
        number=$((number + 1))
    done
done
finish
