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

make=${MAKE:-make}
version=$("$make" -s --no-print-directory print-version)
release=jdbfs-$version-1
tree=$work/jdbfs-$version # as the release's source unpacks
mkdir "$tree"
tar --exclude=./build --exclude=./.git --exclude='*.rock' -cf - . | tar -xf - -C "$tree"
cd "$tree"

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
no_net=${offline:+, no network}

# use SHARE LIB INTERPRETER: a write and a read through the installed module.
use() {
    local share=$1 lib=$2 exe=$3
    mkdir -p "$work/use"
    (cd "$work/use" && LUA_PATH="$share/?.lua;$share/?/init.lua" LUA_CPATH="$lib/?.so" "$exe" -e '
        local jdbfs = require("jdbfs")
        assert(jdbfs._VERSION == "'"$version"'")
        local path = "installed.dat"
        local f = assert(jdbfs.create(path, { direct = "prefer" }))
        local b = jdbfs.buffer(jdbfs.PAGE_SIZE)
        b:set(0, "installed")
        assert(f:write_at(b, 0) == jdbfs.PAGE_SIZE)
        assert(f:read(0, 9) == "installed")
        assert(f:close())
        assert(jdbfs.remove(path))')
}

# ---- rocks -------------------------------------------------------------------------------------

# used_from TREE VERSION: the rock that was installed there works, for LuaJIT too, which shares the
# directories of Lua 5.1 and so loads what was built for that.
used_from() {
    local tree=$1 lua=$2
    use "$tree/share/lua/$lua" "$tree/lib/lua/$lua" "lua$lua" || return
    if [[ $lua == 5.1 ]] && command -v luajit >/dev/null; then
        use "$tree/share/lua/5.1" "$tree/lib/lua/5.1" luajit || return
    fi
    "$tree/bin/jdbfs" --help >/dev/null
}

rock_made() { # VERSION
    "${offline[@]}" luarocks --lua-version "$1" --tree "$work/rock-$1" make \
        rockspec/jdbfs-scm-1.rockspec || return
    find . -name '*.o' -delete
    used_from "$work/rock-$1" "$1"
}

# The release as a server has it: its source, packed with its rockspec, and a list of both.
rock_packed() {
    local server=$work/server
    mkdir -p "$server"
    tar -czf "$work/$release.tar.gz" -C "$work" "jdbfs-$version"
    sed -e "s|^  url = .*|  url = \"file://$work/$release.tar.gz\",|" \
        -e "s|^  tag = .*|  dir = \"jdbfs-$version\",|" "rockspec/$release.rockspec" \
        >"$server/$release.rockspec"
    (cd "$server" && "${offline[@]}" luarocks --lua-version 5.4 pack "./$release.rockspec") ||
        return
    rm "$server/$release.rockspec" "$work/$release.tar.gz" # the rock must do
    luarocks-admin make_manifest "$server" || return
    "${offline[@]}" luarocks --lua-version 5.4 --tree "$work/packed" --only-server "$server" \
        install jdbfs CFLAGS='-O0 -fPIC' || return
    used_from "$work/packed" 5.4
}

# The test section of the rockspec, with one spec.
rock_tested() {
    luarocks --lua-version 5.4 test rockspec/jdbfs-scm-1.rockspec -- T=spec/31-errors_spec.lua \
        LUAS=lua5.4 BACKENDS=threads FS=own NODEPS=1 | tee "$work/tested" || return
    grep -qE '^[1-9][0-9]* passed, 0 failed' "$work/tested"
}

# ---- make install ------------------------------------------------------------------------------

# Files of others lie in the directories of ours; install and uninstall leave them alone.
others() { # DIRECTORY ABI
    mkdir -p "$1/share/lua/$2/jdbfs" "$1/share/lua/$2/resty" "$1/bin"
    echo theirs | tee "$1/share/lua/$2/jdbfs/theirs.lua" "$1/share/lua/$2/resty/other.lua" \
        "$1/bin/other"
}

files_of() { (cd "$1" && find . -type f -exec cksum {} + | sort); }

installed() { # LUA DEST PREFIX
    local at=$2$3 abi exe before
    read -r _ _ abi exe _ <<<"$(bash spec/tools/lua.sh find "$1")"
    others "$at" "$abi"
    before=$(files_of "$at")
    "$make" install LUA="$1" DESTDIR="$2" PREFIX="$3" || return
    [[ -x $at/bin/jdbfs && -s $at/share/man/man1/jdbfs.1 ]] || return
    [[ -s $at/share/man/man3/jdbfs.3 ]] || return
    use "$at/share/lua/$abi" "$at/lib/lua/$abi" "$exe" || return
    [[ -n $2 ]] || (cd "$work" && "$at/bin/jdbfs" list) || return
    "$make" uninstall LUA="$1" DESTDIR="$2" PREFIX="$3" || return
    [[ $(files_of "$at") == "$before" ]] || return
    [[ ! -e $at/share/lua/$abi/jdbfs/command && ! -e $at/lib/lua/$abi/jdbfs ]]
}

# As packagers do, and into a place where no Lua looks by itself; the command knows it.
installs() { installed "$1" "$work/dest-$1" /usr && installed "$1" "" "$work/a place of $1"; }

# The reference as HTML has every function that it has.
html_made() {
    "$make" docs LUA=lua5.4 || return
    local name
    for name in open read_at append read_into crc32c host; do
        grep -rq "$name" build/doc/html || { echo "no $name"; return 1; }
    done
}

c_block() { awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' README.md; }

# A C program through pkg-config alone: the README's and the example.
core_installs() {
    local dest=$work/core cc=${CC:-cc} flags program
    local -x PKG_CONFIG_PATH=$dest/opt/lib/pkgconfig PKG_CONFIG_SYSROOT_DIR=$dest
    "$make" install-core DESTDIR="$dest" PREFIX=/opt || return
    [[ $(pkg-config --modversion jdb) == "$version" ]] || return
    flags=$(pkg-config --cflags --libs jdb)
    c_block >"$work/printed.c"
    cp spec/c/embed_example.c "$work/embed_example.c"
    for program in printed embed_example; do
        # shellcheck disable=SC2086
        "$cc" -std=c11 -Wall -Wextra -Werror -o "$work/$program" "$work/$program.c" $flags || return
        (cd "$work" && JDBFS_TEST_DIR=$work "./$program") || return
    done
    if command -v g++ >/dev/null; then
        # shellcheck disable=SC2086
        echo '#include <jdb.h>
            int main() { return jdb_page_size() > 0 ? 0 : 1; }' |
            g++ -Wall -Wextra -Werror -x c++ - -x none -o "$work/plusplus" $flags || return
        "$work/plusplus" || return
    fi
    "$make" uninstall-core DESTDIR="$dest" PREFIX=/opt || return
    [[ -z $(find "$dest" -type f) ]]
}

# ---- what is missing ---------------------------------------------------------------------------

# One line that names the packages of Debian and of Fedora, and a failure.
one_line() { # DEBIAN FEDORA MAKE_ARGUMENT...
    local debian=$1 fedora=$2 out rc=0
    shift 2
    rm -rf build
    out=$("$make" --no-print-directory "$@" 2>&1 >/dev/null) || rc=$?
    echo "$out"
    [[ $rc != 0 && $(wc -l <<<"$out") == 1 && $out == *"$debian"* && $out == *"$fedora"* ]]
}

for lua in 5.1 5.4; do
    if ! command -v luarocks >/dev/null; then
        skip "luarocks make, Lua $lua" "luarocks is missing; $(install_hint luarocks)"
    elif [[ $(bash spec/tools/lua.sh find "lua$lua") != ok* ]]; then
        skip "luarocks make, Lua $lua" \
            "no Lua $lua with header files; $(install_hint "lua-$lua" "headers-$lua")"
    else
        check "luarocks make, Lua $lua$no_net" rock_made "$lua"
    fi
done
if command -v luarocks >/dev/null && [[ $(bash spec/tools/lua.sh find lua5.4) == ok* ]]; then
    check "luarocks pack, and install from a directory$no_net" rock_packed
    check "luarocks test" rock_tested
fi
for name in lua5.4 luajit; do
    if [[ $(bash spec/tools/lua.sh find "$name") == ok* ]]; then
        check "make install and uninstall, $name" installs "$name"
    else
        skip "make install, $name" "$(install_hint "lua-${name#lua5.}" "headers-${name#lua5.}")"
    fi
done
if command -v ldoc >/dev/null; then
    check "make docs" html_made
else
    skip "make docs" "ldoc is missing; $(install_hint ldoc)"
fi
if command -v pkg-config >/dev/null; then
    check "make install-core, C programs through pkg-config" core_installs
else
    skip "make install-core" "pkg-config is missing; $(install_hint pkg-config)"
fi
check "a missing compiler is one line" one_line gcc glibc-devel CC=no-such-cc
check "a missing liburing is one line" one_line liburing-dev liburing-devel \
    URING_LIBS=-lno-such-uring
check "a missing Lua is one line" one_line liblua5.9-dev lua-devel LUA=lua5.9
check "a wrong LUA_INCDIR is one line" one_line LUA_INCDIR lua.h LUA_INCDIR=/nonexistent
# Of two Luas, the header files of the one for the other.
other=$(bash spec/tools/lua.sh find lua5.1) && other=${other##* }
if [[ -f $other/lua.h && $(bash spec/tools/lua.sh find lua5.4) == ok* ]]; then
    check "header files of another Lua are one line" one_line liblua5.4-dev lua-devel LUA=lua5.4 \
        LUA_INCDIR="$other"
fi

echo
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
