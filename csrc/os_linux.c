/* os_linux.c: direct I/O as Linux has it: O_DIRECT, alignment by statx, fallocate, eventfd, and
 * the list of backends. */
#include "os_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "backend.h"

extern const struct jdb_backend jdb_backend_uring, jdb_backend_threads;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_uring, &jdb_backend_threads, NULL};

/* A page of a direct read in flight must not become copy-on-write by a fork: before Linux 6.2 the
 * parent could then keep the old content. */
void jdb_platform_keep_from_children(void *map, size_t size) {
    madvise(map, size, MADV_DONTFORK);
}

/* ---- notifier -------------------------------------------------------------------------------- */

int jdb_os_notify_new(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void jdb_os_notify_signal(int handle) {
    uint64_t one = 1;
    ssize_t n;
    do n = write(handle, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void jdb_os_notify_clear(int handle) {
    uint64_t count;
    ssize_t n;
    do n = read(handle, &count, sizeof count);
    while (n < 0 && errno == EINTR);
}

void jdb_os_notify_wait(int handle, int64_t timeout_ns) {
    struct pollfd fd = {.fd = handle, .events = POLLIN};
    struct timespec limit = {timeout_ns / 1000000000, timeout_ns % 1000000000};
    ppoll(&fd, 1, timeout_ns < 0 ? NULL : &limit, NULL);
}

/* ---- alignment and direct I/O ---------------------------------------------------------------- */

/* Header-independent: glibc and the kernel headers we build with may be older than the kernel. */
#define MASK_DIOALIGN 0x2000u
#define MASK_DIO_READ_ALIGN 0x20000u

struct statx_raw {
    uint32_t mask;
    uint8_t before[0x94];
    uint32_t dio_mem_align, dio_offset_align; /* at 0x98 */
    uint8_t between[0x14];
    uint32_t dio_read_offset_align; /* at 0xb4 */
    uint8_t after[0x48];
};
_Static_assert(sizeof(struct statx_raw) == 0x100, "the kernel writes 256 bytes");

static int power_of_two(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* What statx says, else one page: btrfs, tmpfs and kernels before 6.1 say nothing. */
static void ask_alignment(int fd, jdb_file *file) {
    struct statx_raw st;
    memset(&st, 0, sizeof st);
    file->memory_align = file->read_align = file->write_align = jdb_os_page_size();
    file->info.align_source = "one page: the system gives no alignment for this file";
    long r = syscall(SYS_statx, fd, "", AT_EMPTY_PATH, MASK_DIOALIGN | MASK_DIO_READ_ALIGN, &st);
    if (r != 0 || !(st.mask & MASK_DIOALIGN)) return;
    if (!power_of_two(st.dio_mem_align) || !power_of_two(st.dio_offset_align)) return;
    file->memory_align = st.dio_mem_align;
    file->read_align = file->write_align = st.dio_offset_align;
    if ((st.mask & MASK_DIO_READ_ALIGN) && power_of_two(st.dio_read_offset_align))
        file->read_align = st.dio_read_offset_align;
    file->info.align_source = "statx";
}

static void name_file_system(int fd, char *name, size_t size) {
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {
        {0xef53, "ext4"},       {0x58465342, "xfs"},   {0x9123683e, "btrfs"},
        {0x01021994, "tmpfs"},  {0x794c7630, "overlay"}, {0x6969, "nfs"},
        {0x65735546, "fuse"},   {0xf2f52010, "f2fs"},  {0x2fc12fc1, "zfs"},
        {0x4d44, "vfat"},       {0x01021997, "9p"},    {0xff534d42, "cifs"},
        {0x858458f6, "ramfs"},  {0xca451a4e, "bcachefs"},
    };
    struct statfs fs;
    snprintf(name, size, "unknown");
    if (fstatfs(fd, &fs) != 0) return;
    unsigned long magic = (unsigned long)fs.f_type & 0xffffffffu;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].magic == magic) {
            snprintf(name, size, "%s", known[i].name);
            return;
        }
    snprintf(name, size, "type 0x%lx", magic);
}

/* O_NOATIME is refused for files of other owners: then without. */
static int open_once(const char *path, int flags, unsigned mode) {
    int fd;
    do fd = open(path, flags, mode);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0 || errno != EPERM || !(flags & O_NOATIME)) return fd;
    do fd = open(path, flags & ~O_NOATIME, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_flags(const struct jdb_detail *d) {
    /* O_NONBLOCK: a FIFO must not hold a worker until somebody writes to it. */
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    flags |= d->flags & JDB_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (d->flags & JDB_OPEN_CREATE) flags |= O_CREAT;
    if (d->flags & JDB_OPEN_TRUNCATE) flags |= O_TRUNC;
    if (d->flags & JDB_OPEN_EXCLUSIVE) flags |= O_EXCL;
    if (d->flags & JDB_OPEN_DSYNC) flags |= O_DSYNC;
    if (!(d->flags & JDB_OPEN_ATIME)) flags |= O_NOATIME;
    return flags;
}

/* The kind of file, and the descriptor's flags as transfers need them. */
static int64_t accept_kind(int fd, jdb_op *op) {
    struct stat st;
    if (fstat(fd, &st) != 0) return -errno;
    int wanted = (op->detail->flags & JDB_OPEN_DEVICE) != 0;
    if (S_ISDIR(st.st_mode)) return -EISDIR;
    if (S_ISBLK(st.st_mode) != wanted || (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))) {
        op->file->info.direct_reason = wanted ? "not a block device, but option device was given"
                                       : S_ISBLK(st.st_mode)
                                           ? "a block device; option device = true opens it"
                                           : "neither a regular file nor a block device";
        return -EINVAL;
    }
    op->file->info.device = wanted;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) return -errno;
    return 0;
}

static void describe(int fd, jdb_op *op, int direct) {
    jdb_file *file = op->file;
    name_file_system(fd, file->file_system, sizeof file->file_system);
    file->info.policy = op->detail->direct;
    file->info.writable = (op->detail->flags & JDB_OPEN_WRITE) != 0;
    file->info.dsync = (op->detail->flags & JDB_OPEN_DSYNC) != 0;
    file->info.direct = direct;
    if (direct) {
        ask_alignment(fd, file);
        file->info.direct_reason = "O_DIRECT accepted";
        if (strcmp(file->file_system, "tmpfs") == 0 || strcmp(file->file_system, "ramfs") == 0)
            file->info.direct_reason = "O_DIRECT accepted, but this file system is memory";
    } else {
        file->info.align_source = "none needed without direct I/O";
        file->info.direct_reason = op->detail->direct == JDB_DIRECT_OFF
                                       ? "option direct = \"off\""
                                       : "the file system refused O_DIRECT";
    }
}

int64_t jdb_platform_open(jdb_op *op) {
    const struct jdb_detail *d = op->detail;
    int flags = open_flags(d);
    int direct = d->direct != JDB_DIRECT_OFF;
    int fd = open_once(d->path, flags | (direct ? O_DIRECT : 0), d->mode);
    int error = errno;
    if (fd < 0 && direct && error == EINVAL) {
        struct stat st;
        if (stat(d->path, &st) == 0 && S_ISDIR(st.st_mode)) return -EISDIR;
        if (d->direct == JDB_DIRECT_REQUIRE) {
            op->file->info.direct_reason = "the file system refuses direct I/O; option direct = "
                                           "\"prefer\" or \"off\" uses the page cache";
            return -EOPNOTSUPP;
        }
        direct = 0;
        fd = open_once(d->path, flags, d->mode);
        error = errno;
    }
    if (fd < 0) return -error;
    int64_t r = accept_kind(fd, op);
    if (r < 0) {
        close(fd);
        return r;
    }
    describe(fd, op, direct);
    op->file->handle = fd;
    return 0;
}

/* ---- the rest -------------------------------------------------------------------------------- */

/* Never tried again: the kernel may have dropped what it could not write, and a second call would
 * then report a success that the device did not give. */
int64_t jdb_platform_sync(int fd, int data_only) {
    int r = data_only ? fdatasync(fd) : fsync(fd);
    return r == 0 ? 0 : -errno;
}

int64_t jdb_platform_rename_noreplace(const char *from, const char *to) {
    long r = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE);
    return r == 0 ? 0 : -errno;
}

int64_t jdb_platform_device_size(int fd) {
    uint64_t size = 0;
    if (ioctl(fd, BLKGETSIZE64, &size) != 0) return -errno;
    return (int64_t)size;
}

static int64_t reserve(int fd, int mode, uint64_t from, uint64_t to) {
    if (to <= from) return 0;
    int r;
    do r = fallocate(fd, mode, (off_t)from, (off_t)(to - from));
    while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}

/* Space first, so that a full disk shows before anything is written; then real zeros, so that
 * later overwrites change no metadata; then the exact size. Bytes the file has stay. */
static int64_t preallocate_zero(jdb_file *file, uint64_t size, uint64_t len) {
    int fd = (int)file->handle;
    uint64_t align = file->write_align;
    int64_t r = reserve(fd, 0, size, len);
    if (r < 0 && r != -EOPNOTSUPP) return r;
    uint64_t from = (size + align - 1) / align * align;
    uint64_t to = (len + align - 1) / align * align;
    r = jdb_posix_write_zeros(file, from, to);
    if (r == 0 && to != len && ftruncate(fd, (off_t)len) != 0) r = -errno;
    return r;
}

int64_t jdb_platform_preallocate(jdb_op *op) {
    jdb_file *file = op->file;
    int64_t size = jdb_os_size(file->handle);
    if (size < 0) return size;
    switch ((jdb_prealloc)op->how) {
    case JDB_PREALLOC_KEEP: return reserve((int)file->handle, FALLOC_FL_KEEP_SIZE, 0, op->len);
    case JDB_PREALLOC_ZERO:
        if (op->len <= (uint64_t)size) return 0;
        return preallocate_zero(file, (uint64_t)size, op->len);
    case JDB_PREALLOC_SIZE: break;
    }
    int64_t r = reserve((int)file->handle, 0, 0, op->len);
    /* No reservation on this file system: zeros reserve as well, and keep the promise. */
    if (r == -EOPNOTSUPP && op->len > (uint64_t)size)
        r = preallocate_zero(file, (uint64_t)size, op->len);
    return r;
}
