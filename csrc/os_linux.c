/* os_linux.c: direct I/O as Linux has it: O_DIRECT, alignment by statx, fallocate, eventfd, and
 * the list of backends. */
#include "os_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "backend.h"

extern const struct jdb_backend jdb_backend_uring, jdb_backend_threads, jdb_backend_sim;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_uring, &jdb_backend_threads,
                                                  &jdb_backend_sim, NULL};

/* A page of a direct read in flight must not become copy-on-write by a fork: before Linux 6.2 the
 * parent could then keep the old content. */
void jdb_platform_keep_from_children(void *map, size_t size) { madvise(map, size, MADV_DONTFORK); }

void jdb_platform_prefer_large_pages(void *map, size_t size) { madvise(map, size, MADV_HUGEPAGE); }

unsigned jdb_os_processors(void) {
    cpu_set_t set;
    return sched_getaffinity(0, sizeof set, &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

/* ---- notifier ------------------------------------------------------------------------------- */

int jdb_os_notify_new(void) {
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void jdb_os_notify_free(int handle) { close(handle); }
int jdb_os_notify_fd(int handle) { return handle; }

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
    jdb_os_notify_clear(handle);
}

/* ---- alignment and direct I/O --------------------------------------------------------------- */

/* Header-independent: glibc and the kernel headers we build with may be older than the kernel. */
#define MASK_DIOALIGN 0x2000u
#define MASK_WRITE_ATOMIC 0x10000u
#define MASK_DIO_READ_ALIGN 0x20000u

struct statx_raw {
    uint32_t mask;
    uint8_t before[0x7c];
    uint32_t device_major, device_minor; /* of a block device itself, at 0x80 */
    uint32_t disk_major, disk_minor;     /* of what a file lies on */
    uint64_t mount;
    uint32_t dio_mem_align, dio_offset_align; /* at 0x98 */
    uint8_t between[0x8];
    uint32_t atomic_min, atomic_max; /* at 0xa8 */
    uint8_t between_too[0x4];
    uint32_t dio_read_offset_align; /* at 0xb4 */
    uint8_t after[0x48];
};
_Static_assert(sizeof(struct statx_raw) == 0x100, "the kernel writes 256 bytes");
_Static_assert(offsetof(struct statx_raw, dio_mem_align) == 0x98, "kernel ABI");
_Static_assert(offsetof(struct statx_raw, atomic_min) == 0xa8, "kernel ABI");
_Static_assert(offsetof(struct statx_raw, dio_read_offset_align) == 0xb4, "kernel ABI");

/* XFS_IOC_DIOINFO, for kernels before 6.1. */
struct xfs_dioattr {
    uint32_t memory, least, most;
};
#define IOC_XFS_DIOINFO _IOR('X', 30, struct xfs_dioattr)

#ifndef RWF_DSYNC
#define RWF_DSYNC 0x02
#endif
#ifndef RWF_NOWAIT
#define RWF_NOWAIT 0x08
#endif
#define FLAG_ATOMIC 0x40 /* RWF_ATOMIC, Linux 6.11 */

static int power_of_two(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

static void set_alignment(jdb_file_info *info, uint32_t memory, uint32_t offset,
                          const char *source) {
    info->memory_align = memory;
    info->read_align = info->write_align = offset;
    info->align_source = source;
}

/* Set bits of the mask with both units 0 mean "no atomic writes". */
static void read_atomic(const struct statx_raw *st, jdb_file_info *info) {
    if (!(st->mask & MASK_WRITE_ATOMIC) || !power_of_two(st->atomic_min)) return;
    info->atomic_min = st->atomic_min;
    info->atomic_max = st->atomic_max;
}

/* File systems without a block device, and btrfs, have numbers of major 0, which tell nothing. */
static void ask_disk(const struct statx_raw *st, jdb_file_info *info) {
    uint32_t major_number = info->device ? st->device_major : st->disk_major;
    uint32_t minor_number = info->device ? st->device_minor : st->disk_minor;
    info->requests = jdb_linux_requests(major_number, minor_number);
    if (major_number) info->disk = (uint64_t)major_number << 32 | minor_number;
}

/* The first that answers: statx (6.1 and later; not btrfs and tmpfs), XFS itself, the block
 * device, the disk below; else one page. */
static void ask_alignment(int fd, jdb_file_info *info) {
    struct statx_raw st;
    struct xfs_dioattr xfs;
    int block = 0;
    uint32_t page = (uint32_t)jdb_os_page_size();
    memset(&st, 0, sizeof st);
    long r = syscall(SYS_statx, fd, "", AT_EMPTY_PATH,
                     MASK_DIOALIGN | MASK_DIO_READ_ALIGN | MASK_WRITE_ATOMIC, &st);
    if (r == 0) read_atomic(&st, info);
    if (r == 0) ask_disk(&st, info);
    if (r == 0 && (st.mask & MASK_DIOALIGN) && power_of_two(st.dio_mem_align) &&
        power_of_two(st.dio_offset_align)) {
        set_alignment(info, st.dio_mem_align, st.dio_offset_align, "statx");
        if ((st.mask & MASK_DIO_READ_ALIGN) && power_of_two(st.dio_read_offset_align))
            info->read_align = st.dio_read_offset_align;
    } else if (strcmp(info->file_system, "xfs") == 0 && ioctl(fd, IOC_XFS_DIOINFO, &xfs) == 0 &&
               power_of_two(xfs.memory) && power_of_two(xfs.least)) {
        set_alignment(info, xfs.memory, xfs.least, "XFS_IOC_DIOINFO");
    } else if (info->device && ioctl(fd, BLKSSZGET, &block) == 0 && power_of_two((uint32_t)block)) {
        set_alignment(info, (uint32_t)block, (uint32_t)block, "BLKSSZGET");
    } else if (strcmp(info->file_system, "ext4") == 0 &&
               jdb_platform_evidence(fd, info->file_system, &info->evidence) == 0 &&
               power_of_two(info->evidence.logical_block)) {
        uint32_t logical = info->evidence.logical_block;
        set_alignment(info, logical, logical, "logical block size of the disk");
    } else {
        set_alignment(info, page, page, "one page: the system gives no alignment for this file");
    }
}

/* O_NOATIME is refused for files of other owners: then without. */
int jdb_platform_open_flags(const jdb_open *how, int *optional) {
    *optional = how->flags & JDB_OPEN_ATIME ? 0 : O_NOATIME;
    return how->flags & JDB_OPEN_SYNC ? O_SYNC : how->flags & JDB_OPEN_DSYNC ? O_DSYNC : 0;
}

static void ask_poll_queues(int fd, jdb_file_info *info) {
    struct statx_raw st;
    memset(&st, 0, sizeof st);
    long r = syscall(SYS_statx, fd, "", AT_EMPTY_PATH, 0, &st);
    uint32_t major_number = info->device ? st.device_major : st.disk_major;
    uint32_t minor_number = info->device ? st.device_minor : st.disk_minor;
    if (r == 0 && jdb_linux_has_poll_queues(major_number, minor_number)) return;
    info->polled = 0;
    info->polled_reason = "option iopoll refused: the device of this file has no poll queues, or "
                          "is not known (queue/io_poll; nvme.poll_queues makes some)";
}

int64_t jdb_platform_set_flags(int fd, int flags, int direct, jdb_file_info *info) {
    if (fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags) != 0) return -errno;
    if (direct && info->polled) ask_poll_queues(fd, info);
    return 0;
}

void jdb_platform_describe(int fd, jdb_file_info *info, char *file_system, size_t size) {
    jdb_linux_file_system(fd, info->device, file_system, size);
    if (info->direct) {
        ask_alignment(fd, info);
        info->direct_write_unit = info->write_align;
        info->direct_reason = "O_DIRECT accepted";
        if (strcmp(file_system, "tmpfs") == 0 || strcmp(file_system, "ramfs") == 0)
            info->direct_reason = "O_DIRECT accepted, but this file system is memory";
    } else if (info->policy != JDB_DIRECT_OFF) {
        info->direct_reason = "the file system refused O_DIRECT";
    }
}

const int jdb_platform_has_durable_writes = 1;

/* The line of /proc/locks that names this file: "1: FLOCK  ADVISORY  WRITE 123 fe:00:45 0 EOF". */
char *jdb_platform_lock_holder(int fd) {
    struct stat st;
    char line[256], text[200] = "another open file holds a lock on it";
    FILE *f = fopen("/proc/locks", "re");
    if (!f || fstat(fd, &st) != 0) st.st_ino = 0;
    while (f && st.st_ino && fgets(line, sizeof line, f)) {
        char how[16];
        long pid;
        uint64_t inode;
        unsigned major_number, minor_number;
        if (sscanf(line, "%*d: FLOCK %*s %15s %ld %x:%x:%" SCNu64, how, &pid, &major_number,
                   &minor_number, &inode) != 5)
            continue;
        if (inode != (uint64_t)st.st_ino || major(st.st_dev) != major_number) continue;
        /* btrfs gives each subvolume a device of its own, which is not the one told here. */
        if (major_number != 0 && minor(st.st_dev) != minor_number) continue;
        snprintf(text, sizeof text,
                 "process %ld holds %s lock on it (I/O in flight keeps the lock of a dead process)",
                 pid, how[0] == 'W' ? "an exclusive" : "a shared");
        break;
    }
    if (f) fclose(f);
    return strdup(text);
}

/* ---- the rest ------------------------------------------------------------------------------- */

/* Never tried again: the kernel may have dropped what it could not write, and a second call would
 * then report a success that the device did not give. */
int jdb_os_has_barrier(void) { return 0; }

int64_t jdb_platform_sync(int fd, int data_only, jdb_file *file) {
    (void)file;
    int r = data_only ? fdatasync(fd) : fsync(fd);
    return r == 0 ? 0 : -errno;
}

/* pwrite with flags: the write itself durable, or not to be torn. */
ssize_t jdb_platform_write(const jdb_op *op, int fd, const void *data, size_t len, off_t off) {
    struct iovec vector = {(void *)(uintptr_t)data, len};
    int flags = 0;
    if (op->rw & JDB_RW_DSYNC) flags |= RWF_DSYNC;
    if (op->rw & JDB_RW_ATOMIC) flags |= FLAG_ATOMIC;
    return pwritev2(fd, &vector, 1, off, flags);
}

int64_t jdb_platform_rename_noreplace(int dir, const char *from, const char *to) {
    long r = syscall(SYS_renameat2, dir, from, dir, to, RENAME_NOREPLACE);
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

/* A reservation that fails half-way keeps what it got. The obvious failures come before it. What is
 * kept for root counts as free: who may use it is the system's to say. */
static int64_t enough_space(int fd, uint64_t len) {
    struct stat st;
    struct statvfs fs;
    if (fstat(fd, &st) != 0 || fstatvfs(fd, &fs) != 0) return -errno;
    uint64_t there = (uint64_t)st.st_blocks * 512;
    if (len <= there || fs.f_blocks == 0) return 0;
    return (len - there) / fs.f_frsize > fs.f_bfree ? -ENOSPC : 0;
}

/* Whether space is reserved from this offset on; -errno where that cannot be asked. */
static int64_t has_space_from(int fd, uint64_t off) {
    struct fiemap map = {.fm_start = off, .fm_length = FIEMAP_MAX_OFFSET - off};
    return ioctl(fd, FS_IOC_FIEMAP, &map) == 0 ? map.fm_mapped_extents > 0 : -errno;
}

/* The space behind the end that a reservation got before it failed. Cutting off at the end gives it
 * back, and would take with it what another handle appended meanwhile: so only under a lease, which
 * the system gives while nobody else has the file open. Writes of this handle wait for
 * preallocations. What was reserved before the call would go as well, so then all stays. */
static void give_back(int fd, uint64_t size) {
    /* Whoever opens the file now waits for us; the signal that tells so is one that is ignored. */
    if (fcntl(fd, F_SETSIG, SIGURG) != 0 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) return;
    if (jdb_os_size(fd) == (int64_t)size && ftruncate(fd, (off_t)size) != 0) errno = 0;
    fcntl(fd, F_SETLEASE, F_UNLCK);
}

/* Space first, so that a full disk shows before anything is written; then real zeros, so that
 * later overwrites change no metadata; then the exact size, by growing: a cut would give back what
 * was reserved behind it. A part of a block at the end is only reserved, then: no write of this
 * file fits into it. Bytes the file has stay. */
static int64_t preallocate_zero(jdb_file *file, uint64_t size, uint64_t len) {
    int fd = (int)file->handle;
    int64_t r = reserve(fd, FALLOC_FL_KEEP_SIZE, size, len);
    if (r == -EOPNOTSUPP) return jdb_posix_grow_with_zeros(file, size, len);
    uint64_t whole = len / file->write_align * file->write_align;
    if (r == 0 && whole > size) r = jdb_posix_grow_with_zeros(file, size, whole);
    if (r == 0 && whole < len && ftruncate(fd, (off_t)len) != 0) r = -errno;
    return r;
}

/* The range reads zeros and its space is given back; the size stays. */
int64_t jdb_platform_punch(jdb_op *op) {
    if (op->len == 0) return 0;
    int r;
    do
        r = fallocate((int)op->file->handle, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      (off_t)op->off, (off_t)op->len);
    while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}

static int taken(ssize_t r) {
    if (r >= 0 || errno == EAGAIN) return 1;
    return errno == EOPNOTSUPP ? -1 : 0;
}

/* Flags of single transfers, by trying them. Only a file that is ours is written to. */
static void ask_flags(int fd, int ours, jdb_file_info *info) {
    _Alignas(4096) uint8_t page[4096] = {0};
    struct iovec vector = {page, sizeof page};
    info->nowait = taken(preadv2(fd, &vector, 1, 0, RWF_NOWAIT));
    if (ours) info->dsync_write = taken(pwritev2(fd, &vector, 1, 0, RWF_DSYNC));
}

static void tell_leased(jdb_file_info *info) {
    info->direct = strcmp(info->align_source, "statx") == 0;
    info->direct_reason = info->direct ? "statx tells so; another process has a lease on the file"
                                       : "unknown: another process has a lease on the file";
}

/* Looks at a file, or at a nameless one made in a directory; nothing stays behind. */
int64_t jdb_platform_probe(jdb_op *op) {
    struct jdb_detail *d = op->detail;
    jdb_file_info *info = &d->info;
    struct stat st;
    if (stat(d->path, &st) != 0) return -errno;
    int make = S_ISDIR(st.st_mode);
    if (!make && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return -EINVAL;
    /* The name may be another file's by now: none may hold us (a FIFO). */
    int flags = (make ? O_TMPFILE | O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    int fd = open(d->path, flags | O_DIRECT, 0600);
    info->direct = fd >= 0;
    info->direct_reason = fd >= 0 ? "O_DIRECT accepted" : "O_DIRECT refused";
    int leased = fd < 0 && errno == EAGAIN;
    /* Enough for most questions, and holds nobody up. */
    if (leased) fd = open(d->path, O_PATH | O_CLOEXEC);
    else if (fd < 0) fd = open(d->path, flags, 0600);
    if (fd < 0 && make) {
        info->direct_reason = "unknown: no file could be made here";
        fd = open(d->path, O_RDONLY | O_CLOEXEC);
        make = 0;
    }
    if (fd < 0) return -errno;
    info->device = S_ISBLK(st.st_mode);
    info->file_system = d->file_system;
    jdb_linux_file_system(fd, info->device, d->file_system, sizeof d->file_system);
    jdb_platform_evidence(fd, d->file_system, &info->evidence);
    ask_alignment(fd, info);
    if (leased) tell_leased(info);
    info->direct_write_unit = info->direct ? info->write_align : 0;
    if (make || !S_ISDIR(st.st_mode)) ask_flags(fd, make, info);
    close(fd);
    return 0;
}

static int64_t preallocate(jdb_op *op, uint64_t size) {
    jdb_file *file = op->file;
    int fd = (int)file->handle;
    int64_t r = 0;
    if (op->how != JDB_PREALLOC_ZERO || op->len > size) r = enough_space(fd, op->len);
    /* The space first, without the size: a full disk then leaves the file as it was, also what
     * others write to it meanwhile. */
    if (r == 0 && op->how != JDB_PREALLOC_ZERO) r = reserve(fd, FALLOC_FL_KEEP_SIZE, 0, op->len);
    if (r == 0 && op->how == JDB_PREALLOC_SIZE) r = reserve(fd, 0, 0, op->len);
    /* No reservation on this file system: zeros reserve as well, and keep the promise. */
    int zeros = op->how == JDB_PREALLOC_ZERO || (op->how == JDB_PREALLOC_SIZE && r == -EOPNOTSUPP);
    if (zeros && (r == 0 || r == -EOPNOTSUPP))
        r = op->len > size ? preallocate_zero(file, size, op->len) : 0;
    return r;
}

int64_t jdb_platform_preallocate(jdb_op *op) {
    int fd = (int)op->file->handle;
    int64_t size = jdb_os_size(fd);
    if (size < 0) return size;
    int64_t before = has_space_from(fd, (uint64_t)size);
    int64_t r = preallocate(op, (uint64_t)size);
    if (r < 0 && before == 0 && has_space_from(fd, (uint64_t)size) > 0)
        give_back(fd, (uint64_t)size);
    return r;
}
