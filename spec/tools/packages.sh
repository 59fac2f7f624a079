# shellcheck shell=bash
# Sourced: what the packages of a needed thing are called, in one place.

# debian_of THING, fedora_of THING. A Lua is named by its id: 5.1 ... 5.5, luajit.
debian_of() {
    case $1 in
        cc) echo gcc ;;
        libc) echo libc6-dev ;;
        make) echo make ;;
        liburing) echo liburing-dev ;;
        lua-luajit) echo luajit ;;
        lua-*) echo "lua${1#lua-}" ;;
        headers-luajit) echo libluajit-5.1-dev ;;
        headers-5.1) echo liblua5.1-0-dev ;;
        headers-*) echo "liblua${1#headers-}-dev" ;;
        busted) echo lua-busted ;;
        luacheck) echo lua-check ;;
        clang-format) echo clang-format ;;
        luarocks) echo luarocks ;;
        gcov) echo gcc ;;
        luac5.4) echo lua5.4 ;;
        ldoc) echo lua-ldoc ;;
        man) echo man-db ;;
        x86_64-w64-mingw32-gcc) echo gcc-mingw-w64-x86-64 ;;
        luv) echo lua-luv ;;
        cqueues) echo lua-cqueues ;;
        copas) echo lua-copas ;;
        nvim) echo neovim ;;
        pgrep) echo procps ;;
        strace) echo strace ;;
        mkfs.xfs) echo xfsprogs ;;
        mkfs.btrfs) echo btrfs-progs ;;
        mkfs.ext4) echo e2fsprogs ;;
        mount) echo mount ;;
        libfuse3) echo libfuse3-dev ;;
        pcre2) echo libpcre2-dev ;;
        zlib) echo zlib1g-dev ;;
        fusermount3) echo fuse3 ;;
        clang-rt) echo libclang-rt-dev ;;
        llvm-nm) echo llvm ;;
        qemu-system-x86_64) echo qemu-system-x86 ;;
        busybox) echo busybox-static ;;
        modprobe) echo kmod ;;
        setpriv | unshare | findmnt | losetup) echo util-linux ;;
        *) echo "$1" ;;
    esac
}

fedora_of() {
    case $1 in
        libc) echo glibc-devel ;;
        liburing) echo liburing-devel ;;
        lua-luajit) echo luajit ;;
        lua-5.1) echo compat-lua ;;
        lua-*) echo lua ;;
        headers-luajit) echo luajit-devel ;;
        headers-5.1) echo compat-lua-devel ;;
        headers-*) echo lua-devel ;;
        busted) echo lua-busted ;;
        x86_64-w64-mingw32-gcc) echo mingw64-gcc ;;
        luacheck) echo luacheck ;;
        clang-format) echo clang-tools-extra ;;
        clang-rt) echo compiler-rt ;;
        shellcheck) echo ShellCheck ;;
        nvim) echo neovim ;;
        pgrep) echo procps-ng ;;
        busybox) echo busybox ;;
        luac5.4) echo lua ;;
        mount) echo util-linux ;;
        libfuse3) echo fuse3-devel ;;
        pcre2) echo pcre2-devel ;;
        zlib) echo zlib-devel ;;
        *) debian_of "$1" ;;
    esac
}

# install_hint THING...: "install A B (Debian, Ubuntu) or C D (Fedora)", each name once.
install_hint() {
    local thing debian='' fedora='' name
    for thing in "$@"; do
        name=$(debian_of "$thing")
        [[ " $debian " == *" $name "* ]] || debian+="${debian:+ }$name"
        name=$(fedora_of "$thing")
        [[ " $fedora " == *" $name "* ]] || fedora+="${fedora:+ }$name"
    done
    echo "install $debian (Debian, Ubuntu) or $fedora (Fedora)"
}
