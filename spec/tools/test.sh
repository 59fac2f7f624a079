#!/usr/bin/env bash
# Runs the C tests, then the specs for every Lua, backend and file system. Called by `make test`;
# reads T, LUAS, BACKENDS, FS, SAN, STANDIN, CC, MAKE, JOBS, TIMEOUT from the environment.
#
# One line per run; failures in full; what could not run with its reason. Ends with
# "N passed, N failed, N skipped". Exit 1 when something failed or nothing passed.
#
# A spec whose name ends in sim_spec.lua is about the simulated disk (backend sim), and runs only
# there.
# Lua 5.4 runs on the tree's own file system; the others on an ext4 in memory where there is room,
# as their waits for flushes would be most of the time.
# A spec finds in its environment: JDBFS_BACKEND; JDBFS_TEST_DIR, an empty directory on the file
# system JDBFS_TEST_FS; JDBFS_TEST_LUA, the command that starts another interpreter of this kind
# with this jdbfs; JDBFS_TEST_SAN, empty without a sanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
PATH=$PATH:/usr/sbin:/sbin

# In a mount namespace of its own nothing stays mounted, not even after kill -9.
if [[ $(id -u) == 0 && -z ${JDBFS_TEST_NAMESPACE-} ]] && unshare -m true 2>/dev/null; then
    export JDBFS_TEST_NAMESPACE=1
    exec unshare -m bash spec/tools/test.sh "$@"
fi
unset JDBFS_TEST_NAMESPACE

. spec/tools/packages.sh
. spec/tools/mounts.sh
. spec/tools/failing.sh

make=${MAKE:-make}
san=${SAN-}
. spec/tools/sanitizer.sh
modules=$top/lua
[[ $san == coverage ]] && modules=$top/build/coverage/lua # copies: see coverage-split.lua
# What another system runs, over stand-ins for its calls: see the Makefile.
standin=${STANDIN-}
suffix+=${standin:+-$standin-standin}
timeout=${TIMEOUT:-900}
cpus=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
jobs=${JOBS:-$((cpus + 1))} # much of the time is spent waiting for flushes

work=$(mktemp -d "${TMPDIR:-/tmp}/jdbfs-test.XXXXXX")
chmod 755 "$work"
mkdir -p build/test
own=$(mktemp -d "$top/build/test/XXXXXX")
chmod 755 "$own"
mkdir "$work/runs" "$work/pids"
memory=$(memory_directory)
images=${memory:-$work}

cleanup() {
    local file
    trap '' INT TERM
    for file in "$work"/pids/*; do
        # timeout passes the signal on to everything the run started
        [[ -f $file ]] && kill "$(<"$file")" 2>/dev/null
    done
    wait
    fs_umount_all
    rm -rf "$work" "$own" ${memory:+"$memory"}
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# ---- counting and printing: runs happen two at a time, so through files and a lock -------------

passed() { echo "$1" >>"$work/passed"; }
failed() { echo "$1" >>"$work/failed"; }
skipped() { # COUNT REASON
    printf '%s\t%s\n' "$1" "$2" >>"$work/skipped"
}
total() { if [[ -f $1 ]]; then awk -F'\t' '{ n += $1 } END { print n + 0 }' "$1"; else echo 0; fi; }

print_locked() { flock "$work" cat; }

# ---- what to run -------------------------------------------------------------------------------

c_tests=() specs=() fault_specs=()
if [[ -n ${T-} ]]; then
    for file in $T; do
        case $file in
            *.c) c_tests+=("$file") ;;
            spec/faults/*) fault_specs+=("$file") ;;
            *) specs+=("$file") ;;
        esac
        [[ -f $file ]] || { echo "jdbfs: no such file: $file" >&2; exit 2; }
    done
else
    for file in spec/c/*.c; do [[ -f $file ]] && c_tests+=("$file"); done
    for file in spec/*_spec.lua spec/regress/*_spec.lua; do
        [[ -f $file ]] && specs+=("$file")
    done
    # A sanitizer owns what the faults build wraps.
    [[ -n $san && $san != coverage ]] || fault_specs=(spec/faults/*_spec.lua)
fi

own_fs=$(findmnt -no FSTYPE -T "$own" 2>/dev/null) || own_fs=$(stat -f -c %T "$own")
[[ $own_fs == ext2/ext3 ]] && own_fs=ext4

# A sanitizer run is about the code, not about the file system: one Lua, the tree's own.
default_luas="lua5.4 luajit lua5.1 lua5.2 lua5.3" # the longest first
default_fs="own xfs btrfs ext4 tmpfs"
default_backends="io_uring threads sim"
[[ -n $san ]] && default_luas=lua5.4 default_fs=own
[[ $san == thread ]] && default_backends=threads
if [[ -z $san && $(bash spec/tools/lua.sh find lua5.5) == ok* ]]; then
    default_luas+=" lua5.5"
fi
luas=${LUAS:-$default_luas}
backends=${BACKENDS:-$default_backends}
systems=${FS:-$default_fs}

# ---- C tests -----------------------------------------------------------------------------------

run_c_test() {
    local file=$1 name program out rc=0 start=$SECONDS dir
    name=${file#spec/c/}
    name=${name%.c}
    program=build/core$suffix/spec/$name
    name=${name//\//-}
    out=$work/c-$name.out
    dir=$own/c-$name
    if [[ ! -x $program ]]; then
        failed 1
        echo "FAIL $file: does not build"
        return
    fi
    mkdir "$dir"
    # The braces keep the shell's own word on a crash out of the output.
    { timeout -k 10 "$timeout" env "${c_env[@]}" JDBFS_TEST_DIR="$dir" JDBFS_TEST_FS="$own_fs" \
        JDBFS_TEST_SAN="$san" "${fixed_addresses[@]}" "$program" >"$out" 2>&1 </dev/null; \
    } 2>/dev/null || rc=$?
    rm -rf "$dir"
    case $rc in
        0)
            passed 1
            printf 'ok   %-40s %3ds\n' "$file" $((SECONDS - start))
            ;;
        77)
            skipped 1 "$file: $(tail -n 1 "$out")"
            printf 'skip %-40s %s\n' "$file" "$(tail -n 1 "$out")"
            ;;
        *)
            failed 1
            [[ $rc == 124 || $rc == 137 ]] && rc="$rc, stopped after $timeout seconds"
            echo "FAIL $file: exit status $rc"
            tail -n 60 "$out" | sed 's/^/     | /'
            ;;
    esac
}

# ---- specs -------------------------------------------------------------------------------------

# The backend of a Lua that runs on one only.
main_backend() { # LUA_ID
    if [[ $1 == 5.3 || " ${usable_backends[*]} " != *" io_uring "* ]]; then echo threads
    else echo io_uring; fi
}

# choose_specs LUA_ID BACKEND FS: into `chosen`. What is not about files (tasks, queues, processes,
# documents) is tested at home; logs and streams, Lua above files, on other file systems with one
# backend; what other processes do to files is nothing that a simulated disk could show. Lua 5.4
# runs everything. The others leave out what C alone decides (faults of devices). The command,
# examples and documents, Lua above the module, run on one backend.
choose_specs() {
    local file
    if [[ $2 == sim ]]; then
        chosen=(spec/2*_spec.lua spec/3*_spec.lua spec/4[0-2]*_spec.lua spec/50*_spec.lua
            spec/7*_spec.lua spec/*sim_spec.lua)
        return
    fi
    if [[ $3 != own && $3 != memory ]]; then
        chosen=(spec/2*_spec.lua spec/3*_spec.lua)
        [[ $2 != "$(main_backend 5.4)" ]] || chosen+=(spec/7*_spec.lua)
        return
    fi
    for file in "${specs[@]}"; do
        if is_for "$file" "$1" "$2"; then chosen+=("$file"); fi
    done
}

is_for() { # SPEC LUA_ID BACKEND
    local main slow=$san
    [[ $san == coverage ]] && slow='' # as fast as none, nearly, and to see all
    main=$(main_backend "$2")
    case $1 in
        *sim_spec.lua) return 1 ;;
        spec/regress/ring_refused* | spec/regress/lock_holder*) [[ $2 == 5.4 && $3 == "$main" ]] ;;
        spec/63* | spec/82*) [[ $2 == 5.4 && -z $slow && ($1 == spec/82* || $3 == "$main") ]] ;;
        spec/6* | spec/9*) [[ $2 != 5.[23] && -z $slow && $3 == "$main" ]] ;;
        spec/28*) [[ $2 != 5.[23] && -z $slow ]] ;;
        spec/43*) [[ $2 != 5.[23] ]] ;;
        spec/57*) [[ $2 != 5.[23] && (-z $slow || $san == address) && $3 == "$main" ]] ;;
        spec/54* | spec/55* | spec/8*)
            [[ -z $slow && $2 != 5.[23] && ($2 != 5.1 || $3 == "$main") ]]
            ;;
    esac
}

# run_specs NUMBER LUA_ID INTERPRETER BACKEND FS [SPEC...]; with -faults behind the backend's name:
# what runs with the build that fails on purpose. With SPECs: these again, see run_again.
run_specs() {
    local n=$1 id=$2 exe=$3 backend=${4%-faults} fs=$5 faults=''
    local base=$work/runs/$n dir rc=0 start=$SECONDS fs_name=$fs label again=("${@:6}")
    [[ $4 == *-faults ]] && faults=-faults
    label="$id $4 $fs"
    if [[ $backend == sim ]]; then
        dir=$own/$n fs_name=sim label="$id sim"
    elif [[ $fs == own ]]; then
        dir=$own/$n fs_name=$own_fs label="$id $4 $own_fs (here)"
    else
        dir=$work/mnt/$n/t
        [[ $fs == memory ]] && fs_name=ext4 label="$id $4 ext4 (memory)"
        if ! fs_mount "$fs_name" "$n" >"$base.mount" 2>&1; then
            fs_umount "$n"
            skipped 1 "$fs: cannot mount: $(tail -n 1 "$base.mount")"
            return
        fi
    fi
    mkdir "$dir"
    : >"$base.report"
    local chosen=()
    if ((${#again[@]})); then chosen=("${again[@]}")
    elif [[ -n $faults ]]; then chosen=("${fault_specs[@]}")
    elif [[ -n ${T-} ]]; then chosen=("${specs[@]}")
    else choose_specs "$id" "$backend" "$fs"; fi

    # Background jobs of a shell ignore interrupts and would hand that on to the specs.
    # Many rounds of killed processes are for one Lua; make torture has thousands.
    local kills=${JDBFS_KILLS:-$([[ $id == 5.4 && $fs == own && -z $san ]] && echo 20 || echo 5)}

    timeout -k 10 "$timeout" env --default-signal=INT,QUIT "${clean_lua_env[@]}" \
        LUA_PATH="$modules/?.lua;$modules/?/init.lua;$top/spec/?.lua;;" \
        LUA_CPATH="$top/build/$id$faults$suffix/?.so;;" JDBFS_TEST_FIGURES="$base.figures" \
        JDBFS_KILLS="$kills" JDBFS_BACKEND="$backend" \
        JDBFS_TEST_DIR="$dir" JDBFS_TEST_STANDIN="$standin" \
        JDBFS_TEST_FS="$([[ $standin ]] && echo apfs || echo "$fs_name")" \
        JDBFS_TEST_LUA="$exe" JDBFS_TEST_SAN="$san" JDBFS_TEST_REPORT="$base.report" \
        "$exe" spec/tools/busted.lua -o spec/tools/report.lua "${chosen[@]}" \
        >"$base.out" 2>&1 </dev/null &
    echo $! >"$work/pids/$n"
    wait $! 2>/dev/null || rc=$?
    rm -f "$work/pids/$n"

    # What a crash left mounted there must not hide that there was one.
    if [[ $fs == own ]]; then rm -rf "$dir" 2>>"$base.out" || true; else fs_umount "$n"; fi
    summarise "$base" "$label" "$rc" $((SECONDS - start)) | print_locked
}

summarise() { # BASE LABEL STATUS SECONDS
    local base=$1 label=$2 rc=$3 seconds=$4 pass fail skip trouble=''
    read -r pass fail skip < <(awk -F'\t' '
        $1 == "pass" { p++ } $1 == "skip" { s++ } $1 == "fail" || $1 == "error" { f++ }
        END { print p + 0, f + 0, s + 0 }' "$base.report")
    if ! grep -q '^end' "$base.report"; then
        # Names the test that was running, which is what one wants to know of a hang or a crash.
        trouble=$(awk -F'\t' '
            $1 == "start" { running = $2 } $1 != "start" { running = "" }
            END { print running != "" ? "in: " running : "between tests" }' "$base.report")
        if [[ $rc == 124 || $rc == 137 ]]; then trouble="stopped after $timeout seconds, $trouble"
        else trouble="ended early with status $rc, $trouble"; fi
    elif [[ -n $san ]] && grep -qE "$san_report" "$base.out"; then
        trouble="the sanitizer reported, exit status $rc"
    elif [[ $rc != 0 && $fail == 0 ]]; then
        trouble="every test passed, but the process ended with status $rc"
    fi
    [[ -z $trouble ]] || fail=$((fail + 1))
    if [[ -n ${failed_before-} ]]; then
        # The others of these files were counted the first time.
        pass=$((failed_before > fail ? failed_before - fail : 0)) skip=0
        label+=', again'
    else
        if ((fail > 0)) && [[ -z $trouble ]] && failing_files "$base.report" >"$base.files"; then
            echo "$fail $(tr '\n' ' ' <"$base.files")" >"$base.again"
        fi
        awk -F'\t' '$1 == "skip" { print "1\t" $3 }' "$base.report" >>"$work/skipped"
    fi
    passed "$pass"
    [[ -f $base.again ]] || failed "$fail"
    awk -F'\t' -v run="$label" -v OFS='\t' '$1 == "seconds" { print $2, $3, $4, run }' \
        "$base.report" >>"$work/seconds"

    printf '%-4s %-36s %4d passed %3d failed %3d skipped %4ds\n' \
        "$( ((fail)) && echo FAIL || echo ok)" "$label" "$pass" "$fail" "$skip" "$seconds"
    [[ -f $base.figures ]] && sed 's/^/     /' "$base.figures"
    ((fail)) || return 0
    # A failure that an earlier run had in the same words is named only.
    awk -F'\t' -v seen_file="$work/seen" '
        BEGIN { while ((getline line < seen_file) > 0) seen[line] = 1 }
        $1 == "fail" || $1 == "error" {
            if (++n > 20) next
            key = $2 "\t" $3
            if (key in seen) { print "     - " $2 " (as above)"; next }
            print key >> seen_file
            gsub(/\\n/, "\n     |   ", $3); gsub(/\\\\/, "\\", $3)
            print "     - " $2 "\n     |   " $3
        }
        END { if (n > 20) print "     - and " n - 20 " more" }' "$base.report"
    if [[ -n $trouble ]]; then
        echo "     - $trouble"
        # From a sanitizer's first report on, or else the end.
        awk -v report="$san_report" '
            $0 ~ report { found = 1 }
            found && ++n <= 120 { print "     |   " $0 }
            { last[NR % 60] = $0 }
            END { if (!found) for (i = NR > 60 ? NR - 59 : 1; i <= NR; i++)
                print "     |   " last[i % 60] }' "$base.out"
    fi
}

# ---- main --------------------------------------------------------------------------------------

clean_lua_env=(-u LUA_INIT)
for v in 5_2 5_3 5_4 5_5; do
    clean_lua_env+=(-u "LUA_PATH_$v" -u "LUA_CPATH_$v" -u "LUA_INIT_$v")
done

slowest() { # file|test COUNT: those that took longest, all runs together
    awk -F'\t' -v kind="$1" '
        $1 == kind {
            sum[$2] += $3
            runs[$2]++
            if ($3 >= most[$2]) { most[$2] = $3; where[$2] = $4 }
        }
        END { for (name in sum) printf "%6.0f s in %2d runs, at most %4.0f s (%s): %s\n",
            sum[name], runs[name], most[name], where[name], name }' "$work/seconds" |
        sort -rn | sed -n "1,$2p"
}

finish() {
    local p f s
    if [[ -s $work/seconds ]]; then
        echo
        echo "slowest spec files:"
        slowest file 12
        echo "slowest tests:"
        slowest test 12
    fi
    p=$(total "$work/passed") f=$(total "$work/failed") s=$(total "$work/skipped")
    if [[ -s $work/skipped ]]; then
        echo
        echo "skipped:"
        awk -F'\t' '{ if (!($2 in n)) order[++k] = $2; n[$2] += $1 }
            END { for (i = 1; i <= k; i++) printf "%5d  %s\n", n[order[i]], order[i] }' \
            "$work/skipped"
    fi
    echo
    echo "$p passed, $f failed, $s skipped"
    if ((f == 0 && p > 0)); then exit 0; else exit 1; fi
}

wait_for_room() { while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done; }

build() { # TARGET [VARIABLE=VALUE...]: quiet unless it fails
    [[ ${JDBFS_TEST_BUILT-} != 1 ]] || return 0 # in a guest, which has no time to compile
    "$make" --no-print-directory -j"$cpus" SAN="$san" STANDIN="$standin" "$@" \
        >"$work/build.log" 2>&1
}

if ! why=$(prepare_san); then
    skipped 1 "SAN=$san: $why"
    finish
fi
prepare_san

echo "jdbfs tests${san:+, SAN=$san}${standin:+, as $standin}: $(uname -sr), $cpus CPUs," \
    "here: $own_fs"

# The core first: what is missing for it stops everything, in one line.
if ! build core; then
    grep -m 1 'jdbfs:' "$work/build.log" || tail -n 40 "$work/build.log"
    failed 1
    finish
fi
build -k c-tests || tail -n 40 "$work/build.log"
for file in "${c_tests[@]}"; do
    wait_for_room
    { text=$(run_c_test "$file") && print_locked <<<"$text"; } &
done
((${#specs[@]} + ${#fault_specs[@]})) || { wait; finish; }

usable_backends=()
for backend in $backends; do
    if [[ $backend == io_uring ]] && ! why=$("build/core$suffix/uring-probe"); then
        skipped 1 "backend io_uring: ${why:-the probe could not run}"
        continue
    fi
    usable_backends+=("$backend")
done

home='' # an ext4 in memory, where that can be
[[ -n $memory && -z $(fs_reason ext4) ]] && home=memory

# Faults need no disk: in memory a flush costs nothing.
faults_fs=own
[[ -z $(fs_reason tmpfs) ]] && faults_fs=tmpfs

declare -A refused
for fs in $systems; do
    [[ $fs == own ]] && continue
    why=$(fs_reason "$fs")
    [[ -z $why ]] || { refused[$fs]=1; skipped 1 "$fs: $why"; }
done

n=0
started=() # by number: how
start() { # LUA_ID INTERPRETER BACKEND FS: as soon as there is room, beside the builds that follow
    [[ -z ${refused[$4]-} ]] || return 0
    n=$((n + 1))
    started[n]="$*"
    wait_for_room
    run_specs "$n" "$@" &
}

run_again() {
    local file run files failed_before
    for file in "$work"/runs/*.again; do
        [[ -f $file ]] || continue
        run=$(basename "$file" .again)
        n=$((n + 1))
        read -r failed_before files <"$file"
        # shellcheck disable=SC2086
        run_specs "$n" ${started[run]} $files
    done
}

start_specs() { # LUA LUA_ID INTERPRETER
    local lua=$1 id=$2 exe fs backend
    exe=$(interpreter "$id" "$3")
    if ! "$exe" -e '' >/dev/null 2>&1; then
        skipped 1 "$lua: the sanitizer cannot run it here"
        return
    fi
    for fs in $systems; do
        # One Lua is enough for other file systems than its own.
        [[ $fs == own || -n ${FS-} || $id == 5.4 ]] || continue
        [[ $fs != "$own_fs" || -n ${FS-} ]] || continue # that is what `own` runs on
        # The disk below is for one Lua; what the others show is not about flushes.
        [[ $fs == own && -z ${FS-} && -n $home && ($id != 5.4 || -n $san) ]] && fs=$home
        for backend in "${usable_backends[@]}"; do
            # 5.2 and 5.3 differ from their neighbours in little: one backend each.
            [[ $id != 5.[23] || $backend == "$(main_backend "$id")" || -n ${BACKENDS-} ||
                -n ${LUAS-} ]] || continue
            # The simulated disk has no file system below it, and two Luas show what differs.
            [[ $backend != sim || $fs == own || $fs == memory ]] || continue
            [[ $backend != sim || -n ${BACKENDS-} || $id == 5.4 || $id == luajit ]] || continue
            # To see the lines that are for another Lua.
            [[ $san != coverage || $id == 5.4 || $backend == threads ]] || continue
            start "$id" "$exe" "$backend" "$fs"
        done
    done
}

start_faults() { # LUA LUA_ID INTERPRETER
    local backend
    # One Lua is enough where C fails; JDBFS_TEST_LONG=1 takes every one.
    [[ $2 == 5.4 || -n ${LUAS-} || ${JDBFS_TEST_LONG-} == 1 ]] || return 0
    if build all LUA="$1" FAULTS=1; then
        for backend in "${usable_backends[@]}"; do
            [[ $backend == sim ]] || start "$2" "$3" "$backend-faults" "$faults_fs"
        done
    else
        failed 1
        echo "FAIL $1: does not build with FAULTS=1"
        tail -n 40 "$work/build.log" | sed 's/^/     | /'
    fi
}

for lua in $luas; do
    read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
    if [[ $verdict != ok || $exe == - ]]; then
        found=$(bash spec/tools/lua.sh find "$lua")
        [[ $verdict == ok ]] && found="err no interpreter $lua"
        skipped 1 "$lua: ${found#err }"
        continue
    fi
    if ! env "${clean_lua_env[@]}" "$exe" -e 'require("busted.runner")' >/dev/null 2>&1; then
        skipped 1 "$lua: busted is not installed for it; $(install_hint busted)"
        continue
    fi
    if ! build all LUA="$lua"; then
        failed 1
        echo "FAIL $lua: does not build"
        tail -n 40 "$work/build.log" | sed 's/^/     | /'
        continue
    fi
    ((${#specs[@]} == 0)) || start_specs "$lua" "$id" "$exe"
    ((${#fault_specs[@]} == 0)) || start_faults "$lua" "$id" "$exe"
done
wait
run_again
finish
