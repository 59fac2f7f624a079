#!/usr/bin/env bash
# `make check-windows`: builds a Windows Lua 5.4 and LuaJIT from Debian's source packages, jdbfs for
# each, and runs the C tests and the specs in wine. What needs Linux is left out by name, below.
#
# Reads T (specs or C tests), LUAS (5.4, luajit), BACKENDS (iocp, threads, sim) and TIMEOUT from the
# environment. All it makes is in build/windows; a Lua that was built is kept there. One line per
# run, failures in full. Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
. spec/tools/packages.sh
. spec/tools/failing.sh

make=${MAKE:-make}
timeout=${TIMEOUT:-900}
root=$top/build/windows
source=$root/source box=$root/box
cc=x86_64-w64-mingw32-gcc
passed=0 failed=0
mkdir -p "$root"
: >"$root/skipped"

skipped() { printf '%s\t%s\n' "$1" "$2" >>"$root/skipped"; } # COUNT REASON

finish() {
    if [[ -s $root/skipped ]]; then
        echo
        echo "skipped:"
        awk -F'\t' '{ if (!($2 in n)) order[++k] = $2; n[$2] += $1 }
            END { for (i = 1; i <= k; i++) printf "%5d  %s\n", n[order[i]], order[i] }' \
            "$root/skipped"
    fi
    echo
    echo "$passed passed, $failed failed, $(awk '{ n += $1 } END { print n + 0 }' \
        "$root/skipped") skipped"
    exit $((failed > 0))
}

# ---- what does not run here -------------------------------------------------------------------

# C tests: build, crc, ... are the core's; the others are about the POSIX files below it.
c_tests=(buf crc measure words durability io_conformance life_conformance names_conformance)

left_out() { # SPEC BACKEND: the reason, or nothing
    case $1 in
        spec/44-*) echo "looks into /proc" ;;
        spec/51-*) echo "there is no fork" ;;
        spec/52-*) echo "is about io_uring that is refused" ;;
        spec/53-* | spec/54-* | spec/55-*) echo "hosts wait for descriptors" ;;
        spec/82-*) echo "fails real devices of Linux" ;;
        spec/*sim_spec.lua) [[ $2 == sim ]] || echo "is about the simulated disk" ;;
    esac
}

# The command and what is about the process are run by Lua 5.4 on the first backend; LuaJIT and the
# other backends run what is theirs to change: memory, files, tasks, logs.
belongs() { # SPEC LUA BACKEND
    case $3 in
        sim) [[ $1 == spec/[27]* || $1 == spec/3* || $1 == *sim_spec.lua ]] ;;
        threads) [[ $1 == spec/2* || $1 == spec/3* || $1 == spec/5* ]] ;;
        iocp) [[ $2 == 5.4 || $1 == spec/[1-4]* || $1 == spec/50* || $1 == spec/7* ]] ;;
    esac
}

# ---- tools ------------------------------------------------------------------------------------

for tool in "$cc" wine; do
    if ! command -v "$tool" >/dev/null; then
        skipped 1 "$tool is not installed; $(install_hint "$tool")"
        finish
    fi
done

# wine sees the whole disk. Nothing but our own directory shall change, whatever a test does.
confined=()
if [[ $(id -u) == 0 ]] && unshare -m true 2>/dev/null; then
    # shellcheck disable=SC2016
    confined=(unshare -m sh -c 'mount --bind "$0" "$0" && mount --bind "$1" "$1" &&
        mount -o remount,bind,ro "$0" && shift && exec "$@"' "$top" "$root")
fi

in_wine() { # COMMAND...
    "${confined[@]}" env WINEPREFIX="$root/prefix" WINEDEBUG=-all \
        WINEDLLOVERRIDES='mscoree=;mshtml=;winemenubuilder.exe=' "$@"
}

# ---- Lua --------------------------------------------------------------------------------------

# Source packages by lists of our own: the system's stay as they are.
fetch() {
    local options lists=$source/apt
    mkdir -p "$lists/parts" "$lists/lists/partial" "$lists/cache/archives/partial"
    sed -n 's/^deb /deb-src /p' /etc/apt/sources.list 2>/dev/null >"$lists/parts/src.list" || true
    sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources 2>/dev/null \
        >"$lists/parts/src.sources" || true
    options=(-o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$lists/parts"
        -o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists/cache"
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update &&
        (cd "$source" &&
            apt-get "${options[@]}" source --download-only lua5.4 lua-filesystem luajit)
}

unpack() { # ARCHIVE DIRECTORY [OPTION]
    mkdir -p "$source/$2"
    tar xf "$source"/$1.orig.tar.gz -C "$source/$2" ${3:-}
}

build_lua() {
    unpack 'lua5.4_*' 5.4 --strip-components=1
    unpack 'lua-filesystem_*' lfs --strip-components=1
    unpack 'luajit_*' luajit
    make -C "$source/5.4/src" CC="$cc" AR='x86_64-w64-mingw32-ar rcu' \
        RANLIB=x86_64-w64-mingw32-ranlib mingw
    make -C "$source/luajit/src" -j2 HOST_CC="${CC:-cc}" CROSS=x86_64-w64-mingw32- \
        TARGET_SYS=Windows
    install -D -t "$root/5.4" "$source/5.4/src/lua.exe" "$source/5.4/src/lua54.dll"
    install -D -t "$root/luajit" "$source/luajit/src/luajit.exe" "$source/luajit/src/lua51.dll"
    local id
    for id in 5.4 luajit; do
        "$cc" -O2 -shared -static-libgcc -I"$source/$id/src" -o "$root/$id/lfs.dll" \
            "$source/lfs/src/lfs.c" "$root/$id"/lua5*.dll
    done
}

if [[ ! -f $root/luajit/lfs.dll ]]; then
    if ! fetch >"$root/fetch.log" 2>&1; then
        skipped 1 "Debian's source packages cannot be fetched: $(grep -m 1 ^E: "$root/fetch.log")"
        finish
    fi
    if ! build_lua >"$root/lua.log" 2>&1; then
        tail -n 20 "$root/lua.log"
        echo "FAIL a Lua for Windows: does not build"
        failed=1
        finish
    fi
fi

abi_of() { if [[ $1 == luajit ]]; then echo 5.1; else echo "$1"; fi; }
exe_of() { if [[ $1 == luajit ]]; then echo luajit.exe; else echo lua.exe; fi; }

build() { # LUA TARGET...
    local id=$1
    shift
    "$make" --no-print-directory PLATFORM=Windows TARGET=windows CC="$cc" AR=x86_64-w64-mingw32-ar \
        CFLAGS='-O2 -g -Werror' URING_CFLAGS= LUA_ID="$id" LUA_ERROR= \
        LUA_INC="$source/$id/src" LUA_LIB="$(echo "$root/$id"/lua5*.dll)" "$@" \
        >"$root/build.log" 2>&1
}

told_build() { # NAME LUA TARGET...
    local name=$1
    shift
    build "$@" && return
    echo "FAIL $name: does not build"
    tail -n 40 "$root/build.log" | sed 's/^/     | /'
    failed=$((failed + 1))
    return 1
}

# ---- C tests ----------------------------------------------------------------------------------

run_c_test() { # NAME PROGRAM
    local rc=0 start=$SECONDS
    rm -rf "$box/c-test"
    mkdir "$box/c-test"
    (cd "$box" && in_wine env JDBFS_TEST_DIR=c-test timeout -k 10 "$timeout" wine "$2") \
        >"$root/c.out" 2>&1 </dev/null || rc=$?
    if [[ $rc == 0 ]]; then
        passed=$((passed + 1))
        printf 'ok   %-40s %3ds\n' "$1" $((SECONDS - start))
        { grep -E '^[a-z ,]+: ' "$root/c.out" || true; } | sort -u |
            while read -r line; do skipped 1 "$1: $line"; done
    else
        failed=$((failed + 1))
        echo "FAIL $1: exit status $rc"
        tail -n 40 "$root/c.out" | sed 's/^/     | /'
    fi
}

# What stops programs for the specs: support.process.
build_stop() {
    "$cc" -std=c11 -O2 -Wall -Wextra -Werror -static-libgcc -o "$root/stop.exe" \
        spec/c/windows/stop.c >"$root/build.log" 2>&1 && return
    echo "FAIL spec/c/windows/stop.c: does not build"
    tail -n 40 "$root/build.log" | sed 's/^/     | /'
    failed=$((failed + 1))
}

# Lua states in threads: support_process.states.
build_states() { # LUA
    "$cc" -std=c11 -O2 -Wall -Wextra -Werror -shared -static-libgcc -I"$source/$1/src" \
        -o "$root/$1/states.dll" spec/c/helper/states.c "$root/$1"/lua5*.dll \
        -Wl,-Bstatic -lpthread >"$root/build.log" 2>&1 && return
    echo "FAIL spec/c/helper/states.c: does not build"
    tail -n 40 "$root/build.log" | sed 's/^/     | /'
    failed=$((failed + 1))
}

run_c_tests() {
    local test
    told_build "the core" 5.4 core || return 0
    for test in "${c_tests[@]}"; do
        [[ -z ${T-} || " $T " == *" spec/c/${test}_test.c "* ]] || continue
        told_build "spec/c/${test}_test.c" 5.4 "build/core-windows/spec/${test}_test" || continue
        run_c_test "spec/c/${test}_test.c" "$top/build/core-windows/spec/${test}_test.exe"
    done
    [[ -z ${T-} || " $T " == *" spec/c/windows/calls_test.c "* ]] || return 0
    if "$cc" -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -pedantic -Wshadow -Werror \
        -Icsrc -Ispec/c \
            -o "$root/calls_test.exe" spec/c/windows/calls_test.c build/core-windows/libjdb.a \
        -Wl,-Bstatic -lssp -lpthread -static-libgcc >"$root/build.log" 2>&1; then
        run_c_test spec/c/windows/calls_test.c "$root/calls_test.exe"
    else
        failed=$((failed + 1))
        echo "FAIL spec/c/windows/calls_test.c: does not build"
        tail -n 40 "$root/build.log" | sed 's/^/     | /'
    fi
}

# ---- specs ------------------------------------------------------------------------------------

run_specs() { # LUA BACKEND SPEC...: into $root/LUA-BACKEND.*
    local id=$1 backend=$2 abi rc=0 start=$SECONDS name=$root/$1-$2
    abi=$(abi_of "$id")
    shift 2
    rm -rf "${box:?}/$id-$backend"
    mkdir "$box/$id-$backend"
    : >"$name.report"
    (cd "$box" && in_wine env -u LUA_INIT -u LUA_INIT_5_4 -u LUA_PATH_5_4 -u LUA_CPATH_5_4 \
        LUA_PATH="Z:$box/lua/?.lua;Z:$box/lua/?/init.lua;Z:$box/spec/?.lua;$(busted_path "$abi")" \
        LUA_CPATH="Z:$box/$id/?.dll;Z:$root/$id/?.dll" \
        JDBFS_BACKEND="$backend" JDBFS_TEST_DIR="$id-$backend" JDBFS_TEST_WINE=1 \
        JDBFS_TEST_FS="$([[ $backend == sim ]] && echo sim || echo NTFS)" JDBFS_TEST_SAN='' \
        JDBFS_TEST_LUA="Z:${root//\//\\}\\$id\\$(exe_of "$id")" JDBFS_KILLS=4 HOSTILE_STEPS=2000 \
        JDBFS_TEST_STOP="Z:${root//\//\\}\stop.exe" JDBFS_TEST_STATES="Z:$root/$id/states.dll" \
        JDBFS_TEST_REPORT="../$id-$backend.report" \
        timeout -k 10 "$timeout" wine "$root/$id/$(exe_of "$id")" spec/tools/windows_busted.lua \
        -o spec/tools/report.lua "$@") >"$name.out" 2>&1 </dev/null || rc=$?
    echo "$rc $((SECONDS - start))" >"$name.end"
}

busted_path() { echo "Z:/usr/share/lua/$1/?.lua;Z:/usr/share/lua/$1/?/init.lua"; }

summarise() { # LUA BACKEND
    local name=$root/$1-$2 rc seconds pass fail skip trouble='' again=''
    read -r rc seconds <"$name.end"
    read -r pass fail skip < <(awk -F'\t' '
        $1 == "pass" { p++ } $1 == "skip" { s++ } $1 == "fail" || $1 == "error" { f++ }
        END { print p + 0, f + 0, s + 0 }' "$name.report")
    if ! grep -q '^end' "$name.report"; then
        trouble="ended early with status $rc, $(awk -F'\t' '
            $1 == "start" { running = $2 } $1 != "start" { running = "" }
            END { print running != "" ? "in: " running : "between tests" }' "$name.report")"
    elif [[ $rc != 0 && $fail == 0 ]]; then
        trouble="every test passed, but the process ended with status $rc"
    fi
    [[ -z $trouble ]] || fail=$((fail + 1))
    if [[ -n ${failed_before-} ]]; then
        # The others of these files were counted the first time.
        pass=$((failed_before > fail ? failed_before - fail : 0)) skip=0
    else
        awk -F'\t' '$1 == "skip" { print "1\t" $3 }' "$name.report" >>"$root/skipped"
    fi
    if [[ $fail != 0 && -z $trouble && -z ${failed_before-} ]]; then
        again=$(failing_files "$name.report") || again=''
    fi
    passed=$((passed + pass))
    [[ $again ]] || failed=$((failed + fail))
    printf '%-4s %-36s %4d passed %3d failed %3d skipped %4ds\n' \
        "$( ((fail)) && echo FAIL || echo ok)" "$1 $2 in wine${failed_before+, again}" "$pass" \
        "$fail" "$skip" "$seconds"
    awk -F'\t' '$1 == "fail" || $1 == "error" {
        gsub(/\\n/, "\n     |   ", $3); gsub(/\\\\/, "\\", $3)
        print "     - " $2 "\n     |   " $3 }' "$name.report"
    [[ -z $trouble ]] || {
        echo "     - $trouble"
        tail -n 30 "$name.out" | sed 's/^/     |   /'
    }
    [[ $again ]] || return 0
    # shellcheck disable=SC2086
    run_specs "$1" "$2" $again
    failed_before=$fail summarise "$1" "$2"
}

choose() { # LUA BACKEND: into chosen
    local file why
    chosen=()
    for file in spec/*_spec.lua spec/regress/*_spec.lua; do
        [[ -z ${T-} || " $T " == *" $file "* ]] || continue
        why=$(left_out "$file" "$2")
        if [[ -n $why ]]; then
            [[ $1-$2 != 5.4-iocp ]] || skipped 1 "$file: $why"
        elif belongs "$file" "$1" "$2"; then
            chosen+=("$file")
        fi
    done
}

# ---- main -------------------------------------------------------------------------------------

echo "jdbfs in $(wine --version 2>/dev/null || echo wine), $("$cc" -dumpversion)"
rm -rf "$box"
mkdir -p "$box"
cp -r lua spec csrc rockspec README.md Makefile "$box/"
[[ -d $root/prefix ]] || (cd "$box" && in_wine wineboot -i) >"$root/prefix.log" 2>&1 || true
trap 'WINEPREFIX=$root/prefix wineserver -k 2>/dev/null || true; rm -rf "$box"' EXIT

run_c_tests
build_stop
runs=()
for id in ${LUAS:-5.4 luajit}; do
    if [[ ! -f /usr/share/lua/$(abi_of "$id")/busted/runner.lua ]]; then
        skipped 1 "$id: busted is not installed for it; $(install_hint busted)"
        continue
    fi
    told_build "$id" "$id" all || continue
    install -D -t "$box/$id/jdbfs" "build/$id-windows/jdbfs/core.dll"
    build_states "$id" || true
    for backend in ${BACKENDS:-iocp threads sim}; do
        [[ $backend != sim || $id == 5.4 || -n ${BACKENDS-} ]] || continue
        choose "$id" "$backend"
        ((${#chosen[@]})) || continue
        runs+=("$id $backend ${chosen[*]}")
    done
done
for run in "${runs[@]}"; do
    while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
    # shellcheck disable=SC2086
    run_specs $run &
done
wait
for run in "${runs[@]}"; do
    read -r id backend _ <<<"$run"
    summarise "$id" "$backend"
done
finish
