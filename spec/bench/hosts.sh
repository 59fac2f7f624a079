#!/usr/bin/env bash
# What an operation costs in each host that is installed, and what a cheap request of nginx waits
# for while the same worker reads much. hosts.sh [DIRECTORY]. The rivals read through the page
# cache: they have no direct I/O. READS=n: reads of each measurement.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
made=$(mktemp -d "${1:-$top/build}/bench.XXXXXX")
server=''
cleanup() {
    [[ -z $server ]] || kill -TERM "$server" 2>/dev/null || true
    rm -rf "$made"
}
trap cleanup EXIT
chmod 755 "$made"

make -s all LUA=lua5.4 && make -s all LUA=lua5.1 && make -s all LUA=luajit
export LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;;"

one() { # LUA_ID PROGRAM HOST [RIVAL]
    command -v "$2" >/dev/null || return 0
    local needs=$3
    [[ $3 == tarantool ]] || "$2" -e "require '$needs'" 2>/dev/null || return 0
    LUA_CPATH="$top/build/$1/?.so;;" "$2" spec/bench/hosts.lua "$3" "$made" "${@:4}"
}
one luajit luajit luv 'uv.fs_read'
one luajit luajit cqueues
one 5.4 lua5.4 luv
one 5.4 lua5.4 cqueues
one 5.1 lua5.1 copas
one luajit tarantool tarantool 'fio.pread'

# ---- nginx: latency of an empty request beside heavy reading in the one worker ------------------

root=$(bash spec/tools/hosts.sh) || exit 0
[[ $root != / ]] || root=''
mkdir "$made/t"
head -c 67108864 /dev/zero >"$made/data"
cat >"$made/nginx.conf" <<CONF
load_module $root/usr/lib/nginx/modules/ndk_http_module.so;
load_module $root/usr/lib/nginx/modules/ngx_http_lua_module.so;
worker_processes 1; pid nginx.pid; error_log error.log error;
$([[ $(id -u) == 0 ]] && echo 'user root;')
env JDBFS_BACKEND;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path t/b; proxy_temp_path t/p;
  fastcgi_temp_path t/f; uwsgi_temp_path t/u; scgi_temp_path t/s;
  lua_package_path "$top/lua/?.lua;$top/lua/?/init.lua;$root/usr/share/lua/5.1/?.lua;;";
  lua_package_cpath "$top/build/luajit/?.so;;";
  init_by_lua_block { jdbfs = require "resty.jdbfs" path = "$made/data" SIZE = 262144 }
  server {
    listen unix:$made/s; keepalive_requests 1000000;
    location = /empty { return 200 "x"; }
    location = /jdbfs { content_by_lua_block {
      local f, b = assert(jdbfs.open(path, { direct = "prefer" })), jdbfs.buffer(SIZE)
      local stop = jdbfs.now() + 4
      while jdbfs.now() < stop do assert(f:read_at(b, math.random(0, 255) * SIZE)) end
    } }
    location = /blocking { content_by_lua_block {
      local f = assert(io.open(path))
      local stop = jdbfs.now() + 4
      while jdbfs.now() < stop do
        f:seek("set", math.random(0, 255) * SIZE)
        f:read(SIZE)
        ngx.sleep(0)
      end
    } }
  }
}
CONF
libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
PATH=$PATH:/usr/sbin LD_LIBRARY_PATH=$libraries "$root${root:+/usr/sbin/}nginx" -p "$made/" \
    -c "$made/nginx.conf" -e error.log
for _ in {1..50}; do [[ -s $made/nginx.pid ]] && break; sleep 0.05; done
server=$(<"$made/nginx.pid")

# Times of 400 empty requests over one connection, 5 ms apart.
empty() {
    local i urls=()
    for ((i = 0; i < 400; i++)); do urls+=(-o /dev/null http://x/empty); done
    curl -s --rate 200/s --unix-socket "$made/s" -w '%{time_total}\n' "${urls[@]}" 2>/dev/null |
        sort -n | awk -v name="$1" '{ t[NR] = $1 * 1e6 } END {
            printf "empty request, %-24s p50 %6.0f us  p99 %6.0f us  (%d)\n", name,
                t[int(NR * 0.5)], t[int(NR * 0.99)], NR }'
}
empty 'idle worker'
for how in jdbfs blocking; do
    for _ in 1 2 3 4; do curl -s -m 10 --unix-socket "$made/s" "http://x/$how" >/dev/null & done
    sleep 0.3
    empty "4 readers, $how"
    wait
done
# An idle worker: nothing may run for ten seconds.
worker=$(pgrep -P "$server" | head -n 1)
switches() { cat /proc/"$worker"/task/*/status | awk '/ctxt_switches/ { n += $2 } END { print n }'; }
sleep 1
before=$(switches)
sleep 10
echo "idle nginx worker: $(($(switches) - before)) context switches in 10 s"
