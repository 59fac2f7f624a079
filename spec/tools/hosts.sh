#!/usr/bin/env bash
# Where the nginx with the Lua module is that the specs run: prints its root directory, "/" for an
# installed one. Otherwise, with `fetch`, Debian's packages are unpacked below build/hosts, not
# installed: they conflict with the packages of plain LuaJIT. Exit 1 with the reason on stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

module=usr/lib/nginx/modules/ngx_http_lua_module.so
root=$PWD/build/hosts/nginx
packages=(nginx libnginx-mod-http-lua libnginx-mod-http-ndk lua-resty-core lua-resty-lrucache
    libluajit2-5.1-2 libpcre3)

if [[ -e /$module ]] && command -v nginx >/dev/null; then
    echo /
    exit
fi
if [[ -e $root/$module ]]; then
    echo "$root"
    exit
fi
if [[ ${1-} != fetch ]]; then
    echo "nginx with the Lua module is neither installed nor unpacked; make deps unpacks" \
        "${packages[*]} (Debian, Ubuntu); elsewhere install OpenResty" >&2
    exit 1
fi
if [[ -n ${NODEPS-} ]] || ! command -v apt-get >/dev/null || ! command -v dpkg >/dev/null; then
    echo "nginx with the Lua module is not installed, and its packages cannot be fetched" >&2
    exit 1
fi
mkdir -p build/hosts
work=$(mktemp -d "$PWD/build/hosts/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! (cd "$work" && apt-get download -qq "${packages[@]}") >"$work/log" 2>&1; then
    echo "apt-get download: $(grep -m 1 '^E:' "$work/log" || echo failed)" >&2
    exit 1
fi
for file in "$work"/*.deb; do dpkg -x "$file" "$work/root"; done
mv -T "$work/root" "$root" 2>/dev/null || [[ -e $root/$module ]]
chmod 755 "$root"
echo "$root"
