# shellcheck shell=bash disable=SC2154
# Sourced: file systems to test on, each mounted from a sparse image file of its own.
# The caller sets `work`, a directory of its own; mount points live below it, images in `images`.

# memory_directory: makes a directory in memory with room for the images of many file systems,
# where a flush costs next to nothing. Nothing when there is none.
memory_directory() {
    local room
    [[ $(id -u) == 0 && $(stat -f -c %T /dev/shm 2>/dev/null) == tmpfs ]] || return 0
    room=$({ df -k --output=avail /dev/shm | tail -n 1
        awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo
    } | sort -n | head -n 1)
    [[ ${room:-0} -lt 6000000 ]] || mktemp -d /dev/shm/jdbfs-test.XXXXXX
}

# fs_reason FS: why it cannot be had here; nothing when it can.
fs_reason() {
    case $1 in
        tmpfs) ;;
        *) command -v "mkfs.$1" >/dev/null ||
            { echo "mkfs.$1 is missing; $(install_hint "mkfs.$1")"; return; } ;;
    esac
    [[ $(id -u) == 0 ]] || { echo "mounting needs root"; return; }
    fs_probe "$1"
}

# A container may have root and still refuse loop devices or mounts: try once per file system.
fs_probe() {
    local why
    if why=$(fs_mount "$1" probe 2>&1); then
        fs_umount probe
    else
        fs_umount probe
        echo "cannot mount: ${why##*$'\n'}"
    fi
}

# fs_mount FS NAME: mounts at $work/mnt/NAME.
fs_mount() {
    local fs=$1 dir=$work/mnt/$2 image=$images/$2.img log
    mkdir -p "$dir"
    if [[ $fs == tmpfs ]]; then
        mount -t tmpfs -o size=1g,mode=755 jdbfs-test "$dir"
        return
    fi
    rm -f "$image"
    truncate -s 2G "$image"
    case $fs in
        ext4) log=$(mkfs.ext4 -q -F "$image" 2>&1) ;;
        *) log=$("mkfs.$fs" -q -f "$image" 2>&1) ;;
    esac || { echo "mkfs.$fs: ${log%%$'\n'*}"; return 1; }
    mount -o loop "$image" "$dir" && chmod 755 "$dir"
}

# fs_umount NAME: also when it is mounted only halfway, or not at all.
fs_umount() {
    local dir=$work/mnt/$1 try
    if mountpoint -q "$dir" 2>/dev/null; then
        # The kernel lets go of a killed process's files a little later than of the process.
        for try in 1 2 3 4 5 6 7 8 9 10; do
            umount "$dir" 2>/dev/null && break
            if ((try == 10)); then umount -l "$dir"; else sleep 0.2; fi
        done
    fi
    rmdir "$dir" 2>/dev/null || true
    rm -f "$images/$1.img"
}

fs_umount_all() {
    local dir
    for dir in "$work"/mnt/*/; do
        [[ -d $dir ]] && fs_umount "$(basename "$dir")"
    done
    return 0
}
