# Sourced by test.sh, soak.sh and sequences.sh: an interpreter that is not instrumented, with the
# sanitizer's runtime before it. Reads san (a SAN= of the Makefile or ""), top, and own, a directory
# to build in.
# shellcheck shell=bash disable=SC2154,SC2034

case $san in
    '') suffix='' ;;
    address) suffix=-asan ;;
    undefined) suffix=-ubsan ;;
    thread) suffix=-tsan ;;
    coverage) suffix=-cov ;;
    *) echo "jdbfs: SAN=$san is none of address, undefined, thread, coverage" >&2; exit 2 ;;
esac

san_report='(Address|Leak|Thread)Sanitizer|: runtime error: '

# The runtime must be there before the interpreter, which is not instrumented.
san_env=()
c_env=()
prepare_san() {
    local runtime=''
    case $san in
        address) runtime=$("${CC:-cc}" -print-file-name=libasan.so) ;;
        thread) runtime=$("${CC:-cc}" -print-file-name=libtsan.so) ;;
        coverage) return 0 ;;
    esac
    # A huge buffer must be refused, not end the process.
    c_env=(ASAN_OPTIONS=allocator_may_return_null=1:detect_leaks=1
        UBSAN_OPTIONS=print_stacktrace=1
        TSAN_OPTIONS=allocator_may_return_null=1:die_after_fork=0:atexit_sleep_ms=0:exitcode=66)
    san_env=("${c_env[@]}")
    [[ -n $runtime ]] || return 0
    if [[ $runtime != /* ]]; then
        echo "the sanitizer's runtime is not here (gcc has it as a shared library)"
        return 1
    fi
    "${CC:-cc}" -shared -fPIC -U_FORTIFY_SOURCE -o "$own/preload.so" spec/tools/preload.c ||
        return 1
    san_env+=("LD_PRELOAD=$runtime:$own/preload.so")
}

# Kernels that randomise addresses much put memory where the thread sanitizer cannot have it.
fixed_addresses=()
[[ $san == thread ]] && setarch -R true 2>/dev/null && fixed_addresses=(setarch -R)

# interpreter ID PROGRAM: what starts it with the sanitizer, as one word for the specs' sake.
interpreter() {
    local wrapper=$own/lua-$1
    [[ -n $san ]] || { echo "$2"; return; }
    [[ -x $wrapper ]] || {
        local start=''
        if [[ $san == coverage ]]; then
            # From its start on the interpreter notes which lines of ours run.
            start="-e 'assert(package.loadlib(\"$top/build/$1-cov/jdbfs/core.so\","
            start+="\"luaopen_cover\"))()'"
        fi
        printf '#!/bin/sh\nexec %s "%s" %s "$@"\n' \
            "${fixed_addresses[*]} env ${san_env[*]}" "$2" "$start" >"$wrapper"
        chmod 755 "$wrapper"
    }
    echo "$wrapper"
}
