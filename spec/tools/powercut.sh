#!/usr/bin/env bash
# Power cuts for real: workloads run on a recorded disk below ext4, XFS and btrfs, and on a file
# system that keeps no more than POSIX promises; the power is cut at many points, and what was
# acknowledged must be there. Then each workload again with one sync left out, which must be caught.
#
#   powercut.sh        everything; ends with "N passed, N failed, N skipped"
#   powercut.sh build  only the programs, into build/powercut; says what is missing
#
# From the environment:
#   CUTS       of all together, 1000: four of ten on the strict model, three on ext4, and three
#              shared by XFS and btrfs
#   WORKLOADS  by name, all of them; MODELS="strict ext4 xfs btrfs"
#   SEED       of the cuts; from the clock, and printed
#   TWINS=0    leaves out the runs with a sync missing
#   KEEP=DIR   recordings with violations are kept there
# A violation prints the cut as POSITION:MODE:SEED; `CUTS=` that for replay shows it again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
PATH=$PATH:/usr/sbin:/sbin
. spec/tools/packages.sh
tools=$top/build/powercut
sources=$top/spec/tools/powercut

# ---- the programs ------------------------------------------------------------------------------

build() {
    local cc=${CC:-cc} pkg=${PKG_CONFIG:-pkg-config} program flags
    command -v "$cc" >/dev/null || { echo "no C compiler; $(install_hint cc)"; return 1; }
    flags=$("$pkg" --cflags --libs fuse3 2>/dev/null) ||
        flags='-D_FILE_OFFSET_BITS=64 -I/usr/include/fuse3 -lfuse3'
    # shellcheck disable=SC2086
    "$cc" -x c -E $flags -DFUSE_USE_VERSION=35 - >/dev/null 2>&1 \
        <<<'#include <fuse_lowlevel.h>' ||
        { echo "libfuse3 is missing; $(install_hint libfuse3)"; return 1; }
    mkdir -p "$tools"
    exec 9>"$tools/lock"
    flock 9 # two runs of the specs may build at once
    for program in disk:disk.c+session.c strict:strict.c+session.c \
        replay:replay.c+replay_disk.c+replay_strict.c+session.c leave_out.so:leave_out.c; do
        local target=$tools/${program%%:*} shared='' files file newest=''
        [[ $target != *.so ]] || shared='-shared -fPIC'
        IFS=+ read -ra files <<<"${program#*:}"
        for file in "${files[@]}" session.h replay.h; do
            [[ ! -e $target || $sources/$file -nt $target ]] && newest=1
        done
        [[ -n $newest ]] || continue
        # shellcheck disable=SC2086
        "$cc" -std=c11 -O2 -g -Wall -Wextra -Wshadow $shared -o "$target.new" \
            "${files[@]/#/$sources/}" $flags -pthread -ldl || return 1
        mv "$target.new" "$target"
    done
    exec 9>&-
}

if [[ ${1-} == build ]]; then
    build
    exit
fi

# ---- what there is -----------------------------------------------------------------------------

why_not() {
    [[ $(id -u) == 0 ]] || { echo "power cuts need root"; return; }
    [[ -c /dev/fuse ]] || { echo "there is no /dev/fuse"; return; }
    command -v fusermount3 >/dev/null ||
        { echo "fusermount3 is missing; $(install_hint fusermount3)"; return; }
    [[ -c /dev/loop-control ]] || { echo "there are no loop devices"; return; }
    unshare -m true 2>/dev/null || { echo "no mount namespace can be made here"; return; }
    build 2>&1 | tail -n 1
}

reason=$(why_not)
if [[ -n $reason ]]; then
    echo "skip power cuts: $reason"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
# Nothing stays mounted, and no other mount is seen or disturbed.
if [[ -z ${JDBFS_CUT_NAMESPACE-} ]]; then
    export JDBFS_CUT_NAMESPACE=1
    exec unshare -m --propagation private bash spec/tools/powercut.sh "$@"
fi

read -r verdict lua_id _ lua _ <<<"$(bash spec/tools/lua.sh find "${LUA-}")"
if [[ $verdict != ok || $lua == - ]] ||
    ! "${MAKE:-make}" -s --no-print-directory all LUA="$lua" >/dev/null ||
    ! "${MAKE:-make}" -s --no-print-directory build/core/uring-probe >/dev/null; then
    echo "jdbfs does not build"
    echo "0 passed, 1 failed, 0 skipped"
    exit 1
fi
work=$(mktemp -d /dev/shm/jdbfs-cut.XXXXXX 2>/dev/null || mktemp -d)
seed=${SEED:-$(date +%s)}
cuts=${CUTS:-1000}
models=${MODELS:-strict ext4 xfs btrfs}
unset LD_PRELOAD LEAVE_OUT
env_lua=(env -u LUA_INIT -u LUA_PATH_5_2 -u LUA_PATH_5_3 -u LUA_PATH_5_4 -u LUA_PATH_5_5
    -u LUA_CPATH_5_2 -u LUA_CPATH_5_3 -u LUA_CPATH_5_4 -u LUA_CPATH_5_5
    "LUA_PATH=$top/lua/?.lua;$top/lua/?/init.lua;;" "LUA_CPATH=$top/build/$lua_id/?.so;;")
workloads=${WORKLOADS:-$("$lua" "$sources/workloads.lua" list)}
backends=(threads)
build/core/uring-probe >/dev/null && backends+=(io_uring)

# One sync left out each: model, workload, what. The strict model must catch them all; a few on ext4
# show that the disk forgets, and the last one is a disk whose flushes do nothing.
twins=(
    "strict wal_append O_DSYNC" "strict wal_append fsyncdir" "strict wal_overwrite O_DSYNC"
    "strict dsync_write RWF_DSYNC" "strict dsync_flush fdatasync" "strict sync_data fdatasync"
    "strict sync_all fsync" "strict size fsync" "strict size fdatasync" "strict create fsyncdir"
    "strict rename fsyncdir:/to$" "strict rename fsyncdir:/from$" "strict remove fsyncdir"
    "strict mkdir fsyncdir:/w$" "strict mkdir fsyncdir:/x$" "strict atomic_write fsync"
    "strict atomic_write fsyncdir" "strict log_append fdatasync:.log,RWF_DSYNC:.log"
    "strict log_append fsyncdir:/log$" "strict log_append fsyncdir:/w$"
    "strict log_truncate fsyncdir:/log$" "strict log_recovery fdatasync:.log,RWF_DSYNC:.log"
    "ext4 wal_append O_DSYNC" "ext4 mkdir fsyncdir"
    "ext4 log_append fdatasync:.log,RWF_DSYNC:.log" "ext4 dsync_flush flush"
)

cleanup() {
    trap '' INT TERM
    jobs -rp | xargs -r kill 2>/dev/null || true
    wait
    findmnt -rno TARGET | grep "^$work/" | sort -r | xargs -r -n 1 umount -l 2>/dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- one recording -----------------------------------------------------------------------------

wait_for() { # COMMAND...: until it succeeds, five seconds
    local try
    for ((try = 0; try < 500; try++)); do
        "$@" 2>/dev/null && return
        sleep 0.01
    done
    echo "waited in vain for: $*"
    return 1
}

make_disk() { # FS IMAGE
    local size=64M options=(-q -F -b 4096 -E "nodiscard,lazy_itable_init=0,lazy_journal_init=0")
    case $1 in
        xfs) size=300M options=(-q -f -K) ;;
        btrfs) size=128M options=(-q -f -K) ;;
    esac
    truncate -s "$size" "$2"
    "mkfs.$1" "${options[@]}" "$2"
}

# Mounts MODEL below the directory: fuse/mark, and `files`, where the workload lives.
start() { # MODEL DIRECTORY
    local model=$1 dir=$2
    mkdir "$dir/fuse" "$dir/files" "$dir/replay"
    if [[ $model == strict ]]; then
        "$tools/strict" "$dir/record" "$dir/fuse" &
        server=$!
        wait_for mountpoint -q "$dir/fuse" || return 1
        mkdir "$dir/fuse/w"
        rmdir "$dir/files"
        ln -s fuse "$dir/files"
        return
    fi
    make_disk "$model" "$dir/image" >"$dir/mkfs" 2>&1 || { tail -n 1 "$dir/mkfs"; return 1; }
    "$tools/disk" "$dir/image" "$dir/record" "$dir/fuse" &
    server=$!
    wait_for mountpoint -q "$dir/fuse" || return 1
    device=$(losetup --direct-io=on -f --show "$dir/fuse/disk") || return 1
    mount -t "$model" "$device" "$dir/files" || return 1
    mkdir "$dir/files/w"
}

finish() { # MODEL DIRECTORY
    if [[ $1 != strict ]]; then
        ! mountpoint -q "$2/files" || wait_for umount "$2/files" || umount -l "$2/files"
        [[ -z $device ]] || losetup -d "$device"
    fi
    ! mountpoint -q "$2/fuse" || wait_for umount "$2/fuse" || umount -l "$2/fuse"
    [[ -z $server ]] || wait "$server" || true
}

record() { # MODEL WORKLOAD BACKEND COUNT DIRECTORY [VARIABLE=VALUE...]; $control: for the disk
    local model=$1 workload=$2 backend=$3 count=$4 dir=$5 rc=0
    shift 5
    server='' device=''
    start "$model" "$dir" || rc=1
    local lua_work=(timeout -k 5 120 "${env_lua[@]}" "JDBFS_BACKEND=$backend" "$@" "$lua"
        "$sources/workloads.lua")
    if [[ $rc == 0 ]]; then
        "${env_lua[@]}" "$lua" "$sources/workloads.lua" prepare "$workload" "$dir/files/w" &&
            { [[ $model == strict ]] || sync -f "$dir/files/w"; } &&
            echo start >"$dir/fuse/mark" &&
            echo "$control" >"$dir/fuse/control" &&
            "${lua_work[@]}" work "$workload" "$dir/files/w" "$dir/fuse/mark" "$count" &&
            echo end >"$dir/fuse/mark" || rc=$?
    fi
    ((rc)) || echo stop >"$dir/fuse/control" || rc=$?
    finish "$model" "$dir"
    return "$rc"
}

# ---- running and counting ----------------------------------------------------------------------

# One line per run when it has ended: verdict, model, twin or not, cuts, violations are kept for the
# sum. What a run said is shown when it failed.
result() { # FILE VERDICT LABEL CUTS VIOLATIONS SECONDS
    local word=ok kind=right
    [[ $2 == ok ]] || word=FAIL
    [[ $3 != *' without '* ]] || kind=twin
    printf '%s %s %s %s %s\n' "$2" "${3%% *}" "$kind" "$4" "$5" >"$1.result"
    {
        printf '%-4s %-55s %5d cuts %4d violations %3ds%s\n' "$word" "$3" "$4" "$5" "$6" \
            "$([[ $2 == ok ]] || echo ": $2")"
        [[ $2 == ok ]] || head -n 20 "$1.said" | sed 's/^/     | /'
    } | flock "$work" cat
}

# run NUMBER MODEL WORKLOAD BACKEND CUTS [LEAVE_OUT]
run() {
    local n=$1 model=$2 workload=$3 backend=$4 count=$5 left_out=${6-} rc=0 begin=$SECONDS
    local dir=$work/$n said=$work/$n.said variables=() control='' figures violations=0 tried=0
    local label="$model $workload $backend${left_out:+ without $left_out}"
    mkdir "$dir"
    case $left_out in
        '') ;;
        flush) control='lie flush' ;;
        *) variables=("LD_PRELOAD=$tools/leave_out.so" "LEAVE_OUT=$left_out") ;;
    esac
    local acknowledged=$((count < 120 ? 120 : count > 400 ? 400 : count))
    record "$model" "$workload" "$backend" "$acknowledged" "$dir" "${variables[@]}" \
        >"$said" 2>&1 || rc=$?
    if [[ $rc != 0 ]]; then
        result "$work/$n" broken "$label: the workload ended with $rc" 0 0 $((SECONDS - begin))
        return
    fi
    if [[ -n ${variables[*]} ]] && ! grep -q 'left out: [1-9]' "$said"; then
        result "$work/$n" broken "$label: there was nothing to leave out" 0 0 0
        return
    fi
    "${env_lua[@]}" JDBFS_BACKEND=threads "$tools/replay" "$model" "$dir/image" "$dir/record" \
        "$dir/replay" "$count" "$((seed + n))" "$lua" "$sources/workloads.lua" check "$workload" \
        >"$said" 2>&1 || rc=$?
    figures=$(grep '^figures: ' "$said") || rc=2
    [[ $figures =~ cuts\ ([0-9]+)\ violations\ ([0-9]+) ]] &&
        tried=${BASH_REMATCH[1]} violations=${BASH_REMATCH[2]}
    local verdict=ok
    if [[ $rc -gt 1 ]]; then verdict=broken
    elif [[ -n $left_out && $violations == 0 ]]; then verdict=missed
    elif [[ -z $left_out && $violations != 0 ]]; then
        verdict=violated
        [[ -z ${KEEP-} ]] || { mkdir -p "$KEEP" && cp -r "$dir" "$KEEP/$model-$workload-$n"; }
    fi
    result "$work/$n" "$verdict" "$label" "$tried" "$violations" $((SECONDS - begin))
    rm -rf "$dir"
}

share_of() { # MODEL
    case $1 in
        strict) echo $((cuts * 40 / 100)) ;;
        ext4) echo $((cuts * 30 / 100)) ;;
        *) echo $((cuts * 15 / 100)) ;;
    esac
}

skipped=0
usable=()
for model in $models; do
    if [[ $model == strict ]] || command -v "mkfs.$model" >/dev/null; then usable+=("$model")
    else
        skipped=$((skipped + 1))
        echo "skip power cuts of $model: mkfs.$model is missing; $(install_hint "mkfs.$model")"
    fi
done

# A recording is worth 25 cuts at least; with fewer in all, some workloads wait for another seed.
plan=()
read -ra names <<<"$workloads"
for model in "${usable[@]}"; do
    share=$(share_of "$model")
    some=$((share / 25 < 1 ? 1 : share / 25 < ${#names[@]} ? share / 25 : ${#names[@]}))
    each=$(((share + some - 1) / some))
    turn=0
    for ((i = 0; i < some; i++)); do
        workload=${names[(seed * 7 + i) % ${#names[@]}]}
        # The backends in turn; both of them when there are enough cuts to share.
        if ((each >= 200 && ${#backends[@]} > 1)); then
            for backend in "${backends[@]}"; do
                plan+=("$model $workload $backend $(( (each + 1) / 2 ))")
            done
        else
            plan+=("$model $workload ${backends[turn % ${#backends[@]}]} $each")
        fi
        turn=$((turn + 1))
    done
done
if [[ ${TWINS-1} != 0 ]]; then
    for twin in "${twins[@]}"; do
        read -r model workload left_out <<<"$twin"
        [[ " ${usable[*]} " == *" $model "* && " ${names[*]} " == *" $workload "* ]] &&
            plan+=("$model $workload threads 40 $left_out")
    done
fi

echo "power cuts: $(uname -sr), $cuts cuts, seed $seed, backends ${backends[*]}"
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
n=0
for entry in "${plan[@]}"; do
    n=$((n + 1))
    while (($(jobs -rp | wc -l) >= (cpus < 2 ? 1 : 2))); do wait -n || true; done
    # shellcheck disable=SC2086
    run "$n" $entry &
done
wait

passed=0 failed=0 caught=0 twin_count=0
declare -A cuts_of violations_of
for ((i = 1; i <= n; i++)); do
    read -r verdict model kind tried violations <"$work/$i.result" ||
        { verdict=lost model='?' kind='?' tried=0 violations=0; }
    if [[ $verdict == ok ]]; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    if [[ $kind == twin ]]; then
        twin_count=$((twin_count + 1))
        [[ $verdict != ok ]] || caught=$((caught + 1))
    else
        cuts_of[$model]=$((${cuts_of[$model]-0} + tried))
        violations_of[$model]=$((${violations_of[$model]-0} + violations))
    fi
done
echo
for model in "${usable[@]}"; do
    echo "$model: ${cuts_of[$model]-0} cuts, ${violations_of[$model]-0} violations"
done
[[ $twin_count == 0 ]] || echo "a sync left out: $caught of $twin_count caught"
echo
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
