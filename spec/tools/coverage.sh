#!/usr/bin/env bash
# Which lines of C and Lua the tests run. coverage.sh: builds with gcov, runs the C tests and the
# specs on Lua 5.4 and 5.1 (T= and LUAS= as for make test), and on LuaJIT those about what only
# LuaJIT has: cdata, and finalizers in the middle of calls. Prints the share of lines of each file,
# and what no test reached. Fails below 95 % and for every line or error branch that is neither
# reached nor listed, with a reason, in spec/tools/coverage-unhit.txt.
# coverage.sh hook ID: builds the line hook for that Lua. coverage.sh report: of the last run.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh
dir=build/coverage
mkdir -p "$dir"

if [[ ${1-} == hook ]]; then
    read -r _ _ _ _ include _ <<<"$(bash spec/tools/lua.sh find \
        "$([[ $2 == luajit ]] && echo luajit || echo "lua$2")")"
    exec "${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -shared -fPIC -isystem "$include" \
        -o "$dir/cover-$2.so" spec/tools/cover.c
fi

for tool in gcov lua5.4 luac5.4; do
    command -v "$tool" >/dev/null || {
        echo "skip coverage: $tool is missing; $(install_hint "$tool")"
        echo
        echo "0 passed, 0 failed, 1 skipped"
        exit 0
    }
done

if [[ ${1-} != report ]]; then
    rm -f "$dir/lines"
    find build -name '*.gcda' -path '*-cov/*' -delete 2>/dev/null || true
    # What fails here fails in make test, too: this is about what was reached. Users without rights
    # run children of the specs, and add what they reached to the same files.
    umask 0
    # A run that is stopped has counted nothing.
    export MAKE="${MAKE:-make}" SAN=coverage TIMEOUT="${TIMEOUT:-3600}"
    LUAS="${LUAS:-lua5.4 lua5.1}" bash spec/tools/test.sh || true
    if [[ -z ${T-} && -z ${LUAS-} ]]; then
        LUAS=luajit BACKENDS=threads T="spec/10-buffer_spec.lua spec/20-file_spec.lua \
            spec/22-bad_input_spec.lua spec/44-memory_spec.lua spec/50-lifetime_spec.lua \
            spec/regress/finalizer_spec.lua" bash spec/tools/test.sh || true
    fi
fi

# gcov's text, one file per object: the same source may be in several (one for each Lua).
rm -rf "$dir/gcov"
mkdir -p "$dir/gcov"
for data in build/*-cov/*.gcda build/*-cov/spec/*.gcda; do
    [[ -f $data ]] || continue
    gcov -b -c -t "$data" 2>/dev/null >"$dir/gcov/${data//\//.}.txt" || true
done
while read -r file; do
    [[ $file == *meta.lua ]] && continue
    luac5.4 -l -p "$file" >"$dir/gcov/${file//\//,}.luac"
done < <(find lua/jdbfs -name '*.lua')
exec lua5.4 spec/tools/coverage.lua "$dir" "${JDBFS_COVERAGE_LEAST:-95}"
