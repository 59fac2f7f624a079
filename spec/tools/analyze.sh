#!/usr/bin/env bash
# Static analysis of csrc/ with what is installed of clang, gcc and cppcheck: no finding at all.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh

passed=0 failed=0 skipped=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
read -r verdict _ _ _ include _ <<<"$(bash spec/tools/lua.sh find lua5.4)"
if [[ $verdict != ok ]]; then
    printf 'skip analyze: no headers of Lua 5.4\n\n0 passed, 0 failed, 3 skipped\n'
    exit 0
fi
finding=': (warning|error|style|performance|portability):|fatal error'
flags=(-std=c11 -D_GNU_SOURCE -pthread -Wall -Wextra -Icsrc -isystem "$include")

# Where nginx's headers are, for the module of nginx; without them it is left out.
nginx=$(bash spec/tools/hosts.sh source 2>/dev/null) || nginx=''

# Flags that a file needs.
flags_of() { # NAME FILE
    case $2 in
        csrc/*_faults.c) echo -DJDB_FAULTS ;;
        csrc/be_kqueue.c) echo -Ispec/c/macos ;;
        csrc/host_nginx.c)
            printf -- '-std=gnu11 ' # the last one counts: nginx is not written in plain C11
            printf -- "-isystem $nginx/%s " src/core src/event src/event/modules src/os/unix objs
            ;;
        # References are counted, over lists that the analyzer does not follow to their end.
        csrc/be_sim_disk.c)
            [[ $1 != clang ]] || echo -Xclang -analyzer-disable-checker=unix.Malloc
            ;;
    esac
}

# What can be compiled here: this system's files, the tests', and of macOS what runs over stand-ins.
sources() {
    local make=("${MAKE:-make}" -s --no-print-directory)
    { "${make[@]}" print-sources print-test-sources; "${make[@]}" print-sources STANDIN=macos; } |
        tr ' ' '\n' | grep '^csrc/' | sort -u | if [[ $nginx ]]; then cat; else
        grep -v host_nginx; fi
}

# What another tool than cc says of every file, two files at a time.
each_file() { # NAME COMMAND...
    local name=$1 file own
    shift
    for file in $(sources); do
        while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
        read -ra own <<<"$(flags_of "$name" "$file")"
        "$@" "${own[@]}" "$file" >"$work/$name.$(basename "$file")" 2>&1 || true &
    done
    while (($(jobs -rp | wc -l) > 0)); do wait -n || true; done
    cat "$work/$name".*.c >"$work/$name"
}

judge() { # NAME VERSION
    local count
    count=$(grep -cE "$finding" "$work/$1") || true
    if [[ $count == 0 && ! -s $work/$1 ]]; then
        passed=$((passed + 1))
        echo "ok   $1: 0 findings ($2)"
    else
        failed=$((failed + 1))
        echo "FAIL $1: $count findings ($2)"
        grep -E "$finding" "$work/$1" | head -n 40 | sed 's/^/     | /'
    fi
}

missing() { # NAME
    skipped=$((skipped + 1))
    echo "skip $1: not installed; $(install_hint "$1")"
}

if [[ ! $nginx ]]; then
    skipped=$((skipped + 1))
    echo "skip csrc/host_nginx.c: $(bash spec/tools/hosts.sh source 2>&1 || true)"
fi

if command -v clang >/dev/null; then
    each_file clang clang --analyze -Xclang -analyzer-output=text "${flags[@]}" -o /dev/null
    judge clang "$(clang --version | head -n 1)"
else missing clang; fi

if command -v gcc >/dev/null; then
    # gcc 12 takes what is stored behind a parameter for leaked; clang looks at leaks, too.
    each_file gcc gcc -O2 -fanalyzer -Wno-analyzer-malloc-leak "${flags[@]}" -c -o /dev/null
    judge gcc "$(gcc --version | head -n 1)"
else missing gcc; fi

if command -v cppcheck >/dev/null; then
    cppcheck -q --std=c11 --platform=unix64 --enable=warning,performance,portability -Icsrc \
        --suppress=missingIncludeSystem csrc >"$work/cppcheck" 2>&1 || true
    judge cppcheck "$(cppcheck --version)"
else missing cppcheck; fi

echo
echo "$passed passed, $failed failed, $skipped skipped"
[[ $failed == 0 ]]
