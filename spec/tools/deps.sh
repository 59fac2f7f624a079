#!/usr/bin/env bash
# Installs what is missing. deps.sh run|test|ci [LUA]
#
#   run   compiler, liburing, one Lua (the one named, or 5.4 when there is none) with headers
#   test  that, every Lua, busted, mkfs of the file systems, strace, FUSE, the hosts
#   ci    that, luacheck, clang-format, luarocks, analyzers, a browser for the report's spec
#
# Installs with apt-get as root or through sudo that asks for no password; otherwise prints one
# line that names the packages. Exit 1 when a thing is still missing that the build needs.
# NODEPS=1 never installs. Needs only bash: this is what a fresh machine runs first.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=spec/tools/packages.sh
. "$here/packages.sh"

what=${1-run}
lua=${2-}
PATH=$PATH:/usr/sbin:/sbin

have_program() { command -v "$1" >/dev/null; }

have_liburing() {
    have_program "${CC:-cc}" && "${CC:-cc}" -x c -E - >/dev/null 2>&1 <<<'#include <liburing.h>'
}

have_libc() {
    have_program "${CC:-cc}" && "${CC:-cc}" -x c -E - >/dev/null 2>&1 <<<'#include <stdio.h>'
}

have_libfuse() {
    have_program "${CC:-cc}" && "${CC:-cc}" -x c -E -I/usr/include/fuse3 -DFUSE_USE_VERSION=35 \
        -D_FILE_OFFSET_BITS=64 - >/dev/null 2>&1 <<<'#include <fuse_lowlevel.h>'
}

have_header() { # NAME
    have_program "${CC:-cc}" && "${CC:-cc}" -x c -E -DPCRE2_CODE_UNIT_WIDTH=8 - >/dev/null 2>&1 \
        <<<"#include <$1>"
}

have_lua() { # NAME: interpreter and headers
    local found
    found=$("$here/lua.sh" find "$1" "${LUA_INCDIR-}")
    [[ $found == "ok "* && $found != *" - "* ]]
}

have_busted() {
    local name
    have_program busted && return
    for name in $("$here/lua.sh" list); do
        "$name" -e 'require("busted.runner")' >/dev/null 2>&1 && return
    done
    return 1
}

have_lua_module() { # NAME, for one of the Luas at least
    local name
    for name in $("$here/lua.sh" list); do
        "$name" -e "require '$1'" >/dev/null 2>&1 && return
    done
    return 1
}

# Fills needed (the build fails without) and wanted (tests are skipped without).
missing() {
    needed=() wanted=()
    have_program make || needed+=(make)
    have_program "${CC:-cc}" || needed+=(cc)
    have_libc || needed+=(libc)
    have_liburing || needed+=(liburing)
    if ! have_lua "$lua"; then
        case $lua in
            */*) ;; # a path: its headers are the user's business
            '' | lua) missing_lua "$(first_lua_id)" needed ;;
            luajit*) missing_lua luajit needed ;;
            *5.[1-9]) missing_lua "5.${lua##*.}" needed ;;
        esac
    fi
    [[ $what == run ]] && return
    local id tool
    for id in 5.1 5.2 5.3 5.4 luajit; do
        have_lua "$(lua_name "$id")" || missing_lua "$id" wanted
    done
    have_busted || wanted+=(busted)
    for tool in mkfs.xfs mkfs.btrfs mkfs.ext4 mount strace setpriv fusermount3 curl wrk pgrep nvim \
        tarantool man; do
        have_program "$tool" || wanted+=("$tool")
    done
    have_libfuse || wanted+=(libfuse3)
    have_header pcre2.h || wanted+=(pcre2) # these two: nginx's configure
    have_header zlib.h || wanted+=(zlib)
    for tool in luv cqueues copas; do
        have_lua_module "$tool" || wanted+=("$tool")
    done
    [[ $what == test ]] && return
    for tool in luacheck clang-format luarocks ldoc clang valgrind cppcheck shellcheck chromium \
        x86_64-w64-mingw32-gcc wine; do
        have_program "$tool" || wanted+=("$tool")
    done
    have_fuzzer || wanted+=(clang-rt)
    for tool in npm llvm-nm; do have_program "$tool" || wanted+=("$tool"); done
}

have_fuzzer() {
    echo 'int LLVMFuzzerTestOneInput(const char *p, long n) { return p && n ? 0 : 0; }' |
        clang -fsanitize=fuzzer -x c -o /dev/null - 2>/dev/null
}

first_lua_id() { # an installed Lua that lacks only its headers, else 5.4
    local name
    for name in $("$here/lua.sh" list); do
        [[ $name == luajit ]] && { echo luajit; return; }
        echo "${name#lua}"
        return
    done
    echo 5.4
}

missing_lua() { # ID ARRAY: interpreter, header files or both
    local -n list=$2
    local found
    found=$("$here/lua.sh" find "$(lua_name "$1")")
    if [[ $found == "ok "* ]]; then list+=("lua-$1")
    elif [[ $found == *lua.h* ]]; then list+=("headers-$1")
    else list+=("lua-$1" "headers-$1"); fi
}

lua_name() { if [[ $1 == luajit ]]; then echo luajit; else echo "lua$1"; fi; }

packages() { # of the things named, each once
    local thing
    for thing in "$@"; do debian_of "$thing"; done | sort -u
}

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"
    else sudo -n "$@"; fi
}

may_install() {
    [[ -z ${NODEPS-} ]] && have_program apt-get || return 1
    [[ $(id -u) == 0 ]] || { have_program sudo && sudo -n true 2>/dev/null; }
}

apt_install() {
    local names=() name
    # A release may lack one of the packages; that must not cost the others.
    for name in "$@"; do
        [[ -n $(apt-cache policy "$name" 2>/dev/null | grep -E 'Candidate: [^(]') ]] &&
            names+=("$name")
    done
    ((${#names[@]})) || return 1
    echo "jdbfs: installing ${names[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
        --no-install-recommends -o DPkg::Lock::Timeout=120 "${names[@]}" </dev/null >"$log" 2>&1
}

apt_update() {
    as_root apt-get update -qq -o DPkg::Lock::Timeout=120 </dev/null >"$log" 2>&1
}

# nginx is unpacked, not installed; a failure is told by the specs that need it.
fetch_hosts() { [[ $what == run ]] || "$here/hosts.sh" fetch >/dev/null 2>&1 || true; }
fetch_hosts

missing
((${#needed[@]} + ${#wanted[@]})) || exit 0

if may_install; then
    log=$(mktemp)
    trap 'rm -f "$log"' EXIT
    # shellcheck disable=SC2046
    set -- $(packages "${needed[@]}" "${wanted[@]}")
    compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || apt_update || true
    apt_install "$@" || { apt_update && apt_install "$@"; } ||
        {
            echo "jdbfs: apt-get could not install all of: $*"
            grep -E '^E:' "$log" | head -n 3
        } >&2
    hash -r
    missing
    fetch_hosts # what it needs may be there now
fi

if ((${#needed[@]})); then
    echo "jdbfs: cannot build yet; $(install_hint "${needed[@]}")" >&2
    exit 1
fi
if ((${#wanted[@]})); then
    echo "jdbfs: some tests will be skipped; $(install_hint "${wanted[@]}") to run them"
fi
