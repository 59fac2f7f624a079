#!/usr/bin/env bash
# What an operation costs in each host that is installed; what a trivial request of nginx waits for
# while the same worker reads much; what idle hosts do. hosts.sh [DIRECTORY]. About two minutes.
# The hosts' own ways read through the page cache: they have no direct I/O. READS=n: reads of each
# line; SECONDS_EACH=n: of each latency.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
mkdir -p build
made=$(mktemp -d "$(realpath "${1:-build}")/bench.XXXXXX")
seconds=${SECONDS_EACH:-4}
started=()
cleanup() {
    local pid
    for pid in "${started[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    rm -rf "$made"
}
trap cleanup EXIT
chmod 755 "$made"

for lua in lua5.4 lua5.1 luajit; do "${MAKE:-make}" -s all LUA=$lua || true; done
export LUA_PATH="$top/lua/?.lua;$top/lua/?/init.lua;$top/spec/bench/?.lua;;"

has() { # PROGRAM HOST
    command -v "$1" >/dev/null || return 1
    [[ $1 == tarantool ]] || "$1" -e "require '$2'" 2>/dev/null
}

# LUA_ID, program, host; of each that is here.
all=()
while read -r id program host; do
    has "$program" "$host" && all+=("$id $program $host")
done <<'LIST'
luajit luajit luv
5.4 lua5.4 luv
luajit luajit cqueues
5.4 lua5.4 cqueues
5.1 lua5.1 copas
luajit tarantool tarantool
LIST

in_host() { # LUA_ID PROGRAM HOST
    LUA_CPATH="$top/build/$1/?.so;;" "$2" spec/bench/hosts.lua "$3" "$made"
}

# ---- nginx --------------------------------------------------------------------------------------

root=$(bash spec/tools/hosts.sh) || root=none
[[ $root != / ]] || root=''
event=''
if [[ $root != none ]] && source=$(bash spec/tools/hosts.sh source) &&
    "${MAKE:-make}" -s nginx-module LUA=luajit NGINX_SOURCE="$source"; then
    event="load_module $top/build/nginx/jdbfs/nginx_event.so;"
fi

# A location whose every request reads 2 MiB in pieces of 256 KiB.
heavy() { # NAME SETUP BODY [END]
    echo "location = /$1 { content_by_lua_block {
      $2
      for _ = 1, 8 do
        local offset = math.random(0, 255) * SIZE
        $3
      end
      ${4-}
      ngx.print('x')
    } }"
}

start_nginx() { # NAME EVENT PORT: its directory is $made/NAME
    local dir=$made/$1 libraries
    mkdir -p "$dir/t"
    cat >"$dir/nginx.conf" <<CONF
load_module $root/usr/lib/nginx/modules/ndk_http_module.so;
load_module $root/usr/lib/nginx/modules/ngx_http_lua_module.so;
$2
worker_processes 1; pid nginx.pid; error_log error.log error;
$([[ $(id -u) == 0 ]] && echo 'user root;')
env JDBFS_BACKEND; env READS;
thread_pool bench threads=8;
events { worker_connections 256; }
http {
  access_log off; client_body_temp_path t/b; proxy_temp_path t/p;
  fastcgi_temp_path t/f; uwsgi_temp_path t/u; scgi_temp_path t/s;
  lua_package_path "$top/lua/?.lua;$top/lua/?/init.lua;$top/spec/bench/?.lua;$root/usr/share/lua/5.1/?.lua;;";
  lua_package_cpath "$top/build/luajit/?.so;$top/build/nginx/?.so;;";
  init_by_lua_block { jdbfs = require "jdbfs" path = "$made/data" SIZE = 262144 }
  server {
    listen 127.0.0.1:$3; keepalive_requests 1000000;
    location = /empty { return 200 "x"; }
    location = /bench { content_by_lua_block {
      assert(loadfile("$top/spec/bench/hosts.lua"))("ngx", "$made", ngx.var.arg_idle, ngx.say)
    } }
    $(heavy jdbfs 'local jdbfs = require "resty.jdbfs"
      local f, b = assert(jdbfs.open(path, { direct = "prefer" })), jdbfs.buffer(SIZE)' \
        'assert(f:read_at(b, offset))' 'f:close() b:free()')
    $(heavy blocking 'local f = assert(io.open(path, "rb"))' \
        'f:seek("set", offset) f:read(SIZE)' 'f:close()')
    $(heavy thread '' \
        'assert(ngx.run_worker_thread("bench", "thread_read", "read", path, offset, SIZE))')
  }
}
CONF
    libraries=$(printf '%s:' "$root"/usr/lib/*-linux-gnu "$root"/lib/*-linux-gnu)
    PATH=$PATH:/usr/sbin LD_LIBRARY_PATH=$libraries "$root${root:+/usr/sbin/}nginx" -p "$dir/" \
        -c "$dir/nginx.conf" -e error.log
    for _ in {1..100}; do [[ -s $dir/nginx.pid ]] && break; sleep 0.05; done
    started+=("$(<"$dir/nginx.pid")")
}

port=$((20000 + RANDOM % 20000))
cat >"$made/latency.lua" <<'LUA'
function done(_, latency)
  print(("%8.0f %8.0f %8.0f"):format(latency:percentile(50), latency:percentile(99), latency.max))
end
LUA

# Times of an empty request over one connection, one after another, while four others ask for WAY.
latency() { # TITLE PORT [WAY]
    local load=''
    if [[ -n ${3-} ]]; then
        wrk -t 1 -c 4 -d $((seconds + 1)) --timeout 20 "http://127.0.0.1:$2/$3" >"$made/load" &
        load=$!
        sleep 0.5
    fi
    printf '%-44s %s' "$1" "$(wrk -t 1 -c 1 -d "$seconds" -s "$made/latency.lua" \
        "http://127.0.0.1:$2/empty" | tail -n 1)"
    [[ -z $load ]] || wait "$load"
    [[ -z $load ]] || awk '/^Requests.sec/ { printf " %8.0f", $2 * 2 }' "$made/load"
    echo
}

# ---- tables -------------------------------------------------------------------------------------

echo "one 4 KiB read: light threads at once, us, us of CPU, wakes"
printf '%-10s %-24s %3s %9s %9s %7s\n' host read n us CPU wakes
for entry in "${all[@]}"; do
    read -r id program host <<<"$entry"
    in_host "$id" "$program" "$host" | sed "s/^$host  */&/; s/\$/  $program/"
done
if [[ $root != none ]]; then
    head -c 67108864 /dev/zero >"$made/data"
    start_nginx socket '' $port
    curl -s "http://127.0.0.1:$port/bench" | sed 's/$/  default/'
    if [[ -n $event ]]; then
        start_nginx event "$event" $((port + 1))
        curl -s "http://127.0.0.1:$((port + 1))/bench" | sed 's/$/  native event/'
    fi
fi

if [[ $root != none ]] && command -v wrk >/dev/null; then
    start_nginx latency '' $((port + 2))
    echo
    echo "an empty request of nginx, us, while the one worker reads for four other clients, MiB/s"
    printf '%-44s %8s %8s %8s %8s\n' '' p50 p99 max read
    latency 'nothing else' $((port + 2))
    latency 'jdbfs, direct' $((port + 2)) jdbfs
    if [[ -n $event ]]; then
        start_nginx latency-event "$event" $((port + 3))
        latency 'jdbfs, direct, native event' $((port + 3)) jdbfs
    fi
    latency 'io.open and read in the worker, cached' $((port + 2)) blocking
    latency 'run_worker_thread, cached' $((port + 2)) thread
    latency 'nothing else, again' $((port + 2))
fi

# ---- idle ---------------------------------------------------------------------------------------

# How often one of its threads got a processor; the same of the kernel's workers for its ring, the
# last of which looks every 5 s whether it is needed; ticks of CPU time of both.
activity() { # PID
    local task switches own=0 kernel=0
    for task in /proc/"$1"/task/*; do
        switches=$(awk '/ctxt_switches/ { n += $2 } END { print n }' "$task/status")
        if [[ $(<"$task/comm") == iou-wrk-* ]]; then ((kernel += switches)) || true
        else ((own += switches)) || true; fi
    done
    echo "$own $kernel $(awk '{ print $14 + $15 }' "/proc/$1/stat")"
}

names=() pids=()
idle() { # NAME COMMAND...: which says a line when it is idle
    mkfifo "$made/said"
    "${@:2}" >"$made/said" &
    started+=($!) pids+=($!) names+=("$1")
    head -n 1 "$made/said" >/dev/null
    rm "$made/said"
}

for entry in "${all[@]}"; do
    read -r id program host <<<"$entry"
    export LUA_CPATH="$top/build/$id/?.so;;"
    idle "$host, $program" "$program" spec/bench/hosts.lua "$host" "$made" idle
done
if has tarantool tarantool; then
    idle 'tarantool without jdbfs' tarantool -e 'print("idle") io.flush() require("fiber").sleep(60)'
fi
for entry in socket event; do
    [[ -s $made/$entry/nginx.pid ]] || continue
    pids+=("$(pgrep -P "$(<"$made/$entry/nginx.pid")" | head -n 1)")
    names+=("nginx, $([[ $entry == event ]] && echo native event || echo default)")
done
sleep 7 # workers beyond the last end after 5 s without work
before=()
for i in "${!pids[@]}"; do before[i]=$(activity "${pids[i]}"); done
sleep 10
echo
echo "idle for 10 s, after reads, adapter attached: context switches of its threads, of the"
echo "kernel's workers, CPU ticks"
for i in "${!pids[@]}"; do
    read -r own kernel ticks <<<"${before[i]}"
    read -r own_now kernel_now ticks_now <<<"$(activity "${pids[i]}")"
    printf '%-36s %8d %8d %8d\n' "${names[i]}" $((own_now - own)) $((kernel_now - kernel)) \
        $((ticks_now - ticks))
done
