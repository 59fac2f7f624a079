#!/usr/bin/env bash
# Which lines of C and Lua the tests run. coverage.sh: builds with gcov, runs the C tests and the
# specs on Lua 5.4 and 5.1 (T= and LUAS= as for make test), and on LuaJIT those about what only
# LuaJIT has: cdata, finalizers in the middle of calls, nginx, Tarantool. Prints the share of lines
# of each file, and what no test reached. Fails below 95 % (90 % of the branches of C) and for every
# line or error branch that is neither reached nor listed, with a reason, in coverage-unhit.txt.
# coverage.sh report: of the last run.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh
dir=build/coverage
mkdir -p "$dir"

for tool in gcov lua5.4 luac5.4; do
    command -v "$tool" >/dev/null || {
        echo "skip coverage: $tool is missing; $(install_hint "$tool")"
        echo
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    }
done

if [[ ${1-} != report ]]; then
    find build -name '*.gcda' -path '*-cov/*' -delete 2>/dev/null || true
    # What fails here fails in make test, too: this is about what was reached. Users without rights
    # run children of the specs, and add what they reached to the same files.
    umask 0
    rm -rf "$dir/ran" "$dir/lua"
    cp -r lua "$dir"
    find lua/jdbfs -name '*.lua' ! -name '*meta.lua' | while read -r file; do
        lua5.4 spec/tools/coverage-split.lua "$file" >"$dir/$file"
        printf '%s' "$file"
        head -c $((8192 - ${#file})) /dev/zero
    done >"$dir/ran"
    # A run that is stopped has counted nothing.
    export MAKE="${MAKE:-make}" SAN=coverage TIMEOUT="${TIMEOUT:-3600}"
    LUAS="${LUAS:-lua5.4 lua5.1}" bash spec/tools/test.sh || true
    if [[ -z ${T-} && -z ${LUAS-} ]]; then
        LUAS=luajit BACKENDS=threads T="spec/10-buffer_spec.lua spec/20-file_spec.lua \
            spec/22-bad_input_spec.lua spec/44-memory_spec.lua spec/50-lifetime_spec.lua \
            spec/54-hosts_spec.lua spec/55-nginx_spec.lua spec/57-services_spec.lua \
            spec/regress/finalizer_spec.lua" bash spec/tools/test.sh || true
        # make test runs the hosts on one backend, which on 5.1 is none of those above.
        LUAS=lua5.1 BACKENDS=threads T=spec/54-hosts_spec.lua bash spec/tools/test.sh || true
    fi
fi

# gcov's text, one file per object: the same source may be in several (one for each Lua).
rm -rf "$dir/gcov"
mkdir -p "$dir/gcov"
for data in build/*-cov/*.gcda build/*-cov/spec/*.gcda; do
    [[ -f $data ]] || continue
    gcov -b -c -t "$data" 2>/dev/null >"$dir/gcov/${data//\//.}.txt" || true
done
exec lua5.4 spec/tools/coverage.lua "$dir" "${JDBFS_COVERAGE_LEAST:-95}"
