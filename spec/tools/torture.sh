#!/usr/bin/env bash
# The long versions of everything that looks for mistakes, each under its own limit of time.
#
#   TORTURE=N   scales: 1 is the release run (hours). Below 0.1 it shows in minutes that all parts
#               work: what cannot be scaled is shortened to one Lua, or skipped with that reason
#   ONLY="soak fuzz"   only the parts whose titles have one of these words
#
# Prints each part's figures again at the end, with seeds, then "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scale=${TORTURE:-1}
work=$(mktemp -d)
running=''
# A part in the foreground would keep this shell from hearing a signal until it has ended.
finish() {
    [[ -z $running ]] || { kill "$running" || true; wait "$running" || true; }
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
passed=0 failed=0 skipped=0
long=$(awk -v s="$scale" 'BEGIN { print (s >= 0.1) }')

times() { # NUMBER [LEAST]: scaled
    awk -v n="$1" -v s="$scale" -v least="${2:-1}" \
        'BEGIN { v = int(n * s); print v < least ? least : v }'
}

wanted() { # TITLE
    local word
    [[ -n ${ONLY-} ]] || return 0
    for word in $ONLY; do [[ $1 == *"$word"* ]] && return 0; done
    return 1
}

part() { # TITLE COMMAND...: counts its last line, or its exit status when it prints none
    local title=$1 rc=0 start=$SECONDS line
    shift
    wanted "$title" || return 0
    echo "==== $title: $*"
    "$@" >"$work/out" 2>&1 </dev/null &
    running=$!
    wait "$running" || rc=$?
    running=''
    cat "$work/out"
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$work/out" | tail -n 1) ||
        line=''
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
        skipped=$((skipped + BASH_REMATCH[3]))
        [[ $rc == 0 || ${BASH_REMATCH[2]} != 0 ]] || failed=$((failed + 1))
    elif [[ $rc == 0 ]]; then passed=$((passed + 1))
    else failed=$((failed + 1)); fi
    {
        echo "$title, $((SECONDS - start)) s, exit status $rc"
        # The figures: what the parts print of seeds, cuts, operations and the like.
        grep -E '^(ok|FAIL|skip) |seed|calls of|cuts|compared|faults|pairs|crash points' \
            "$work/out" | grep -vE ' s in +[0-9]+ runs, at most' | # the slowest specs
            head -n 40 | sed 's/^/    /' || true
    } >>"$work/figures"
    echo
}

hostile() { # STEPS LUA BACKEND
    local verdict id exe dir rc=0
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$2")"
    if [[ $verdict != ok ]] ||
        ! "${MAKE:-make}" --no-print-directory all LUA="$2" >"$work/build" 2>&1; then
        printf 'skip hostile: %s does not build here\n\n0 passed, 0 failed, 1 skipped\n' "$2"
        return 0
    fi
    dir=$work/hostile
    rm -rf "$dir"
    mkdir "$dir"
    (ulimit -v 1500000
        HOSTILE_STEPS=$1 HOSTILE_SEED=${HOSTILE_SEED:-$RANDOM} JDBFS_BACKEND=$3 \
            LUA_PATH="$PWD/lua/?.lua;$PWD/lua/?/init.lua;;" LUA_CPATH="$PWD/build/$id/?.so;;" \
            timeout -k 10 $(($1 / 50 + 300)) "$exe" spec/tools/hostile.lua "$dir") || rc=$?
    ((rc == 0)) || {
        echo "FAIL hostile $id $3, exit status $rc, last call:"
        head -n 1 "$dir/last" | tr -d '\0'
    }
    return "$rc"
}

needs_long() { # COMMAND...: what takes its time, however small the scale
    if [[ $long == 1 ]]; then "$@"
    else
        echo "skip: cannot be made shorter; TORTURE=0.1 or more"
        echo "0 passed, 0 failed, 1 skipped"
    fi
}

# Where io_uring is refused everything works by threads, and nothing else changes.
refused() { # ERRNO: all specs, as in a container (1, EPERM) or on an old kernel (38, ENOSYS)
    "${CC:-cc}" -O1 -o "$work/nouring" spec/c/helper/nouring.c
    "$work/nouring" "$1" true || { printf 'skip\n0 passed, 0 failed, 1 skipped\n'; return; }
    export BACKENDS=auto LUAS=lua5.4 FS=own TIMEOUT=7200 T=$some
    exec "$work/nouring" "$1" bash spec/tools/test.sh
}

# Another user needs a tree of his own.
no_locked_memory() {
    local tree=$work/tree
    mkdir "$tree"
    cp -r Makefile README.md LICENSE .lua* csrc lua rockspec spec "$tree/"
    chmod -R a+rX "$work"
    chown -R 65534:65534 "$tree"
    cd "$tree"
    export HOME=$tree TMPDIR=$tree BACKENDS=auto LUAS=lua5.4 FS=own TIMEOUT=7200 T=$some
    exec prlimit --memlock=0 setpriv --reuid 65534 --regid 65534 --clear-groups \
        bash spec/tools/test.sh
}

# Those of the simulated disk alone run below "simulated crashes".
all="$(printf '%s\n' spec/[0-9]*_spec.lua spec/regress/*_spec.lua | grep -v sim_spec | tr '\n' ' ')"
some=$all few=(env) guest=(env LIMIT=14400)
if [[ $long == 0 ]]; then
    some="$(echo spec/20*_spec.lua spec/25*_spec.lua spec/40*_spec.lua spec/5[02]*_spec.lua)"
    guest+=(C_TESTS=spec/c/wake_test.c SPECS=spec/25-lists_spec.lua)
    few=(env LUAS=lua5.4 FS=own)
fi

bash spec/tools/deps.sh ci || true
part "analyze" bash spec/tools/analyze.sh
for lua in lua5.1 lua5.2 lua5.3 lua5.4 luajit; do
    for backend in io_uring threads; do
        part "hostile values, $lua $backend" hostile "$(times 100000 500)" "$lua" "$backend"
    done
done
part "random sequences" bash spec/tools/sequences.sh "$(times 1000000 20000)"
part "random sequences, address sanitizer" env SAN=address \
    bash spec/tools/sequences.sh "$(times 100000 2000)" lua5.4
part "faults" env JDBFS_TEST_LONG="$long" TIMEOUT=14400 T="$(echo spec/faults/*_spec.lua)" \
    bash spec/tools/test.sh
part "kernel entries" env JDBFS_TEST_LONG="$long" TIMEOUT=3000 LUAS=lua5.4 FS=own \
    T="spec/52-fallback_spec.lua spec/regress/ring_refused_later_spec.lua" bash spec/tools/test.sh
part "io_uring refused, EPERM" refused 1
part "io_uring refused, ENOSYS" refused 38
part "no locked memory, a plain user" no_locked_memory
part "faults of the kernel" env JDBFS_KERNEL_FAULTS="$(times 2000 40)" \
    TIMEOUT=14400 LUAS=lua5.4 FS=own T=spec/82-real_faults_spec.lua bash spec/tools/test.sh
# Five ends, five Luas and two backends: a thousand.
part "shutdowns on a slow disk" env JDBFS_SHUTDOWNS="$(times 20)" TIMEOUT=14400 FS=own \
    "${few[@]}" T=spec/82-shutdown_spec.lua bash spec/tools/test.sh
part "memory that ends" env FS=own "${few[@]}" TIMEOUT=7200 T=spec/44-memory_spec.lua \
    bash spec/tools/test.sh
part "fuzz" bash spec/tools/fuzz.sh "$(times 1800 5)"
part "power cuts" env CUTS="$(times 10000 200)" bash spec/tools/powercut.sh
for workload in atomic_write log_recovery; do
    part "power cuts, $workload" env CUTS="$(times 2000 100)" TWINS=0 WORKLOADS=$workload \
        bash spec/tools/powercut.sh
done
part "simulated crashes" env JDBFS_CRASHES="$(times 100000 100)" \
    JDBFS_SIM_SEEDS="$(times 1000 10)" JDBFS_SIM_OPERATIONS=10000 \
    TIMEOUT=36000 LUAS="lua5.4 luajit" BACKENDS=sim FS=own \
    T="spec/80-crash_sim_spec.lua spec/81-sim_spec.lua" bash spec/tools/test.sh
part "model" "${few[@]}" JDBFS_MODEL_PROGRAMS="$(times 3000 20)" \
    JDBFS_MODEL_SEED="$RANDOM" TIMEOUT=36000 T=spec/28-model_spec.lua bash spec/tools/test.sh
part "kills" env JDBFS_KILLS="$(times 2000 20)" TIMEOUT=36000 LUAS=lua5.4 FS=own \
    T="spec/33-durable_names_spec.lua spec/70-log_spec.lua" bash spec/tools/test.sh
services=(env JDBFS_TEST_LONG="$long" TIMEOUT=7200 FS=own T=spec/57-services_spec.lua)
part "services" "${services[@]}" LUAS=luajit bash spec/tools/test.sh
part "services, address sanitizer" "${services[@]}" SAN=address LUAS=lua5.4 bash spec/tools/test.sh
part "soak" bash spec/tools/soak.sh "$(times 7200 10)" lua5.4
part "valgrind" bash spec/tools/valgrind.sh spec/10-buffer_spec.lua spec/21-alignment_spec.lua \
    spec/25-lists_spec.lua spec/26-space_spec.lua spec/30-names_spec.lua
part "thread sanitizer, stress" env SAN=thread bash spec/tools/soak.sh "$(times 600 10)" lua5.4
part "thread sanitizer" env SAN=thread TIMEOUT=7200 T="$some" bash spec/tools/test.sh
part "thread sanitizer, random programs" env SAN=thread JDBFS_MODEL_PROGRAMS="$(times 2000 10)" \
    JDBFS_MODEL_SEED="$RANDOM" TIMEOUT=14400 T=spec/28-model_spec.lua bash spec/tools/test.sh
part "address sanitizer" env SAN=address TIMEOUT=7200 T="$some" bash spec/tools/test.sh
part "coverage" needs_long bash spec/tools/coverage.sh
for kernel in 6.1 6.12; do
    part "guest, Linux $kernel" "${guest[@]}" bash spec/tools/guest.sh "$kernel"
done

echo "==== figures"
cat "$work/figures" 2>/dev/null || true
echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 && $((passed + skipped)) != 0 ]]
