#!/usr/bin/env bash
# guest.sh KERNEL COMMAND: runs COMMAND as root, in this folder, under another Debian kernel (6.1,
# 6.12: the newest of that line) in a machine that qemu emulates without help of the processor:
# about 25 times slower.
# guest.sh KERNEL: runs there what a kernel decides, built on this machine: the C tests (C_TESTS=)
# and the specs SPECS= on Lua 5.4 with both backends, and those that set sysctl
# kernel.io_uring_disabled, which they must not do to a machine that others use. Ends with
# "N passed, N failed, N skipped".
#
# The guest sees this machine's files by 9p, read-only, below a layer in its memory that is gone
# afterwards; build/test is a disk of its own, ext4, and so is /polled, whose device has a poll
# queue for option iopoll. Kernels are fetched once, into build/guest.
# MEMORY=2048 (MiB), LIMIT=3600 (seconds). Exit status: COMMAND's; 125 when the guest had none.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
top=$PWD
. spec/tools/packages.sh

kernel=${1:?which kernel? guest.sh 6.12}
command=${2-}
PATH=$PATH:/usr/sbin:/sbin

skip() {
    printf 'skip guest %s: %s\n\n0 passed, 0 failed, 1 skipped\n' "$kernel" "$1"
    exit 0
}

for tool in qemu-system-x86_64 busybox cpio modprobe mkfs.ext4 apt-get dpkg-deb; do
    command -v "$tool" >/dev/null || skip "$tool is missing; $(install_hint "$tool")"
done
[[ $(uname -m) == x86_64 ]] || skip "the emulated machine is an x86_64"

# fetch: the directory with that kernel and its modules, into `root`; its name into `version`.
fetch() {
    local package
    package=$(apt-cache search --names-only "^linux-image-${kernel//./\\.}\.[0-9].*-amd64\$" |
        cut -d' ' -f1 | grep -vE -- '-(cloud|rt)-amd64$|unsigned|dbg' | sort -V | tail -n 1)
    [[ -n $package ]] || skip "no package linux-image-$kernel.*-amd64"
    version=${package#linux-image-}
    root=$top/build/guest/$version
    [[ -f $root/lib/modules/$version/modules.dep ]] && return
    mkdir -p "$root"
    (cd "$root" && apt-get download -qq "$package" && dpkg-deb -x ./*.deb . && rm ./*.deb) \
        >"$work/log" 2>&1 || skip "cannot fetch $package: $(tail -n 1 "$work/log")"
    depmod -b "$root" "$version"
}

# What the kernel starts: modules, then this machine's files below a layer that may be changed.
make_initrd() {
    local module dir=$work/initrd
    mkdir -p "$dir"/{bin,modules,host,layer,root}
    cp "$(command -v busybox)" "$dir/bin/busybox"
    for module in virtio_pci virtio_blk 9pnet_virtio 9p overlay ext4 nvme; do
        modprobe -d "$root" -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$work/modules"
    while read -r module; do
        cp "$module" "$dir/modules/"
        basename "$module" | sed 's/^nvme\.ko.*/& poll_queues=1/'
    done <"$work/modules" >"$dir/modules/order"
    cat >"$dir/init" <<INIT
#!/bin/busybox sh
cd /modules
while read -r module; do /bin/busybox insmod \$module; done <order # with its options
at() { /bin/busybox mount -t "\$@"; }
at 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host
at tmpfs none /layer
/bin/busybox mkdir /layer/upper /layer/work
at overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work none /root
at devtmpfs none /root/dev
/bin/busybox mkdir -p /root/dev/shm /root/dev/pts /root/lib/modules "/root$top/build/test"
at devpts none /root/dev/pts
at tmpfs none /root/dev/shm
at proc none /root/proc
at sysfs none /root/sys
/bin/busybox ip link set lo up
/bin/busybox ln -s "$root/lib/modules/$version" "/root/lib/modules/$version"
/bin/busybox cp /command /root/command
exec /bin/busybox switch_root /root /bin/bash /command
INIT
    cat >"$dir/command" <<COMMAND
exec >/dev/ttyS0 2>&1 </dev/null
export PATH=$(printf %q "$PATH") HOME=/root LANG=C.UTF-8
cd $(printf %q "$top")
ln -s /proc/self/fd /dev/fd
mount -t ext4 /dev/vda build/test
mkdir /polled
mount -t ext4 /dev/nvme0n1 /polled
export JDBFS_TEST_POLLED=/polled
for module in loop fuse; do modprobe "\$module"; done
rc=0
bash -c $(printf %q "$command") || rc=\$?
echo "guest ended with \$rc"
sync
busybox poweroff -f
COMMAND
    chmod 755 "$dir/init"
    (cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
}

work=$(mktemp -d "${TMPDIR:-/tmp}/jdbfs-guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

if [[ -z $command ]]; then
    specs=${SPECS:-spec/20-file_spec.lua spec/24-durability_spec.lua spec/25-lists_spec.lua \
spec/26-space_spec.lua spec/40-task_spec.lua spec/50-lifetime_spec.lua spec/51-fork_spec.lua \
spec/52-fallback_spec.lua spec/58-iopoll_spec.lua spec/82-real_faults_spec.lua}
    "${MAKE:-make}" --no-print-directory c-tests >"$work/log" 2>&1 &&
        "${MAKE:-make}" --no-print-directory all LUA=lua5.4 >"$work/log" 2>&1 &&
        "${MAKE:-make}" --no-print-directory all LUA=lua5.4 FAULTS=1 >"$work/log" 2>&1 || {
        cat "$work/log"
        exit 1
    }
    command="uname -sr; JDBFS_TEST_BUILT=1 JDBFS_TEST_SLOW=30 JDBFS_TEST_SYSCTL=1 \
TIMEOUT=${LIMIT:-3600} JOBS=2 LUAS=lua5.4 FS=own BACKENDS='io_uring threads' \
T='${C_TESTS-$(echo spec/c/*.c)} $specs' \
bash spec/tools/test.sh"
fi
fetch
make_initrd
truncate -s 2G "$work/disk" "$work/polled"
mkfs.ext4 -q -F "$work/disk"
mkfs.ext4 -q -F "$work/polled"
timeout "${LIMIT:-3600}" qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -cpu max \
    -smp 2 -m "${MEMORY:-2048}" -nodefaults -display none -serial stdio -no-reboot \
    -kernel "$root/boot/vmlinuz-$version" -initrd "$work/initrd.gz" \
    -append "console=ttyS0 panic=-1 quiet loglevel=3 no_timer_check" \
    -drive "file=$work/disk,format=raw,if=virtio,cache=writeback" \
    -drive "file=$work/polled,format=raw,if=none,id=polled,cache=writeback" \
    -device nvme,drive=polled,serial=polled \
    -fsdev "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap" \
    -device virtio-9p-pci,fsdev=host,mount_tag=host </dev/null |
    stdbuf -o0 tr -d '\r' | tee "$work/out" |
    grep --line-buffered -vE '^guest ended with |reboot: Power down' || true
rc=$(sed -n 's/^guest ended with //p' "$work/out" | tail -n 1)
[[ -n $rc ]] || echo "FAIL guest $kernel: it ended early or not within ${LIMIT:-3600} s"
exit "${rc:-125}"
