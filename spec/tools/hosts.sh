#!/usr/bin/env bash
# Where the nginx with the Lua module is that the specs run: prints its root directory, "/" for an
# installed one. With `source`: where its headers are, configured as it was. Exit 1 with the reason
# on stderr. With `fetch`, Debian's packages of both are unpacked below build/hosts, not installed:
# they conflict with the packages of plain LuaJIT.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

module=usr/lib/nginx/modules/ngx_http_lua_module.so
root=$PWD/build/hosts/nginx
packages=(nginx libnginx-mod-http-lua libnginx-mod-http-ndk lua-resty-core lua-resty-lrucache
    libluajit2-5.1-2 libpcre3)
source=$PWD/build/hosts/nginx-dev/usr/share/nginx/src
configured=objs/configured # ours: a configure that failed leaves headers, too

fail() {
    echo "$*" >&2
    exit 1
}

unpack() { # DIRECTORY FILE PACKAGE...: FILE is one that is there then
    local work
    if [[ -n ${NODEPS-} ]] || ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
        fail "packages cannot be fetched: $3"
    fi
    mkdir -p build/hosts
    work=$(mktemp -d "$PWD/build/hosts/fetch.XXXXXX")
    # shellcheck disable=SC2064
    trap "rm -rf '$work'" EXIT
    (cd "$work" && apt-get download -qq "${@:3}") >"$work/log" 2>&1 ||
        fail "apt-get download: $(grep -m 1 '^E:' "$work/log" || echo failed)"
    for file in "$work"/*.deb; do dpkg -x "$file" "$work/root"; done
    chmod 755 "$work/root"
    mv -T "$work/root" "$1" 2>/dev/null || [[ -e $1/$2 ]]
    rm -rf "$work"
}

# Its modules fit only what was configured with the same libraries: PCRE2 and zlib.
configure() {
    (cd "$source" && ./configure --with-compat --with-debug --with-threads) >"$source/log" 2>&1 ||
        fail "nginx's configure: $(grep -m 1 error: "$source/log" || echo failed)"
    : >"$source/$configured"
}

case ${1-} in
    source)
        [[ -e $source/$configured ]] ||
            fail "the headers of nginx are not unpacked and configured (make deps)"
        echo "$source"
        exit
        ;;
    fetch)
        if [[ ! -e /$module && ! -e $root/$module ]]; then
            unpack "$root" "$module" "${packages[@]}"
        fi
        if [[ ! -e $source/$configured ]]; then
            [[ -e $source/configure ]] ||
                unpack "${source%/usr/*}" usr/share/nginx/src/configure nginx-dev
            configure
        fi
        ;;
esac
if [[ -e /$module ]] && command -v nginx >/dev/null; then echo /
elif [[ -e $root/$module ]]; then echo "$root"
else
    fail "nginx with the Lua module is neither installed nor unpacked; make deps unpacks" \
        "${packages[*]} (Debian, Ubuntu); elsewhere install OpenResty"
fi
