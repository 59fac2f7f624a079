#!/usr/bin/env bash
# Installs jdbfs in each way a user may, into directories of its own, and uses what was installed.
# Works on a copy: luarocks builds in the source tree. Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh

work=$(mktemp -d "${TMPDIR:-/tmp}/jdbfs-package.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$work/tree"
tar --exclude=./build --exclude=./.git -cf - . | tar -xf - -C "$work/tree"
cd "$work/tree"

make=${MAKE:-make}
passed=0 failed=0 skipped=0
unset MAKEFLAGS MFLAGS SAN
# shellcheck disable=SC2046
unset $(compgen -e | grep -E '^LUA_(C?PATH|INIT)' || true)

check() { # NAME COMMAND...
    local name=$1
    shift
    if "$@" >"$work/out" 2>&1; then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        tail -n 60 "$work/out" | sed 's/^/     | /'
    fi
}

skip() { # NAME REASON
    skipped=$((skipped + 1))
    echo "skip $1: $2"
}

# What is promised to work without a network is tried without one.
offline=()
[[ $(id -u) == 0 ]] && unshare -n true 2>/dev/null && offline=(unshare -n)

# use SHARE LIB INTERPRETER: a write and a read through the installed module.
use() {
    local share=$1 lib=$2 exe=$3
    mkdir -p "$work/use"
    (cd "$work/use" && LUA_PATH="$share/?.lua;$share/?/init.lua" LUA_CPATH="$lib/?.so" "$exe" -e '
        local jdbfs = require("jdbfs")
        local path = "installed.dat"
        local f = assert(jdbfs.create(path, { direct = "prefer" }))
        local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
        b:set(0, "installed")
        assert(f:write_at(b, 0) == jdbfs.PAGE_SIZE)
        assert(f:read(0, 9) == "installed")
        assert(f:close())
        assert(jdbfs.remove(path))')
}

rock() { # VERSION
    local tree=$work/rock-$1
    "${offline[@]}" luarocks --lua-version "$1" --tree "$tree" make \
        rockspec/jdbfs-scm-1.rockspec || return
    find . -name '*.o' -delete
    use "$tree/share/lua/$1" "$tree/lib/lua/$1" "lua$1" || return
    # LuaJIT shares the directories of Lua 5.1, so it loads what was built for that.
    if [[ $1 == 5.1 ]] && command -v luajit >/dev/null; then
        use "$tree/share/lua/5.1" "$tree/lib/lua/5.1" luajit || return
    fi
    "$tree/bin/jdbfs" --help
}

installs() { # LUA
    local dest=$work/dest-$1 abi exe
    read -r _ _ abi exe _ <<<"$(bash spec/tools/lua.sh find "$1")"
    "$make" install LUA="$1" DESTDIR="$dest" PREFIX=/usr || return
    [[ -x $dest/usr/bin/jdbfs ]] || return
    use "$dest/usr/share/lua/$abi" "$dest/usr/lib/lua/$abi" "$exe" || return
    "$make" uninstall LUA="$1" DESTDIR="$dest" PREFIX=/usr || return
    [[ -z $(find "$dest" -type f) ]]
}

# A missing thing is one line that names its package, and a failure.
one_line() { # WORD MAKE_ARGUMENT...
    local word=$1 out rc=0
    shift
    rm -rf build
    out=$("$make" --no-print-directory "$@" 2>&1 >/dev/null) || rc=$?
    echo "$out"
    [[ $rc != 0 && $(wc -l <<<"$out") == 1 && $out == *"$word"* ]]
}

for version in 5.1 5.4; do
    if ! command -v luarocks >/dev/null; then
        skip "luarocks make, Lua $version" "luarocks is missing; $(install_hint luarocks)"
    elif [[ $(bash spec/tools/lua.sh find "lua$version") != ok* ]]; then
        skip "luarocks make, Lua $version" "no Lua $version with header files"
    else
        check "luarocks make, Lua $version${offline:+, no network}" rock "$version"
    fi
done
for name in lua5.4 luajit; do
    if [[ $(bash spec/tools/lua.sh find "$name") == ok* ]]; then
        check "make install and uninstall, $name" installs "$name"
    else
        skip "make install, $name" "not here"
    fi
done
check "a missing compiler is one line" one_line gcc CC=no-such-cc
check "a missing liburing is one line" one_line liburing-dev URING_LIBS=-lno-such-uring
check "a missing Lua is one line" one_line liblua5.9-dev LUA=lua5.9
check "a wrong LUA_INCDIR is one line" one_line LUA_INCDIR LUA_INCDIR=/nonexistent

echo
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
