/* os_linux.c: direct I/O as Linux has it: O_DIRECT, alignment by statx, fallocate, eventfd, and
 * the list of backends. */
#include "os_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <poll.h>
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
#include <sys/uio.h>
#include <unistd.h>

#include "backend.h"
#include "os_thread.h"

extern const struct jdb_backend jdb_backend_uring, jdb_backend_threads, jdb_backend_sim;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_uring, &jdb_backend_threads,
                                                  &jdb_backend_sim, NULL};

/* A page of a direct read in flight must not become copy-on-write by a fork: before Linux 6.2 the
 * parent could then keep the old content. */
void jdb_platform_keep_from_children(void *map, size_t size) { madvise(map, size, MADV_DONTFORK); }

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
}

/* ---- waiting by the clock --------------------------------------------------------------------- */

void jdb_os_clock_cond_init(pthread_cond_t *condition) {
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(condition, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void jdb_os_clock_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns) {
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    pthread_cond_timedwait(condition, lock, &until);
}

/* ---- alignment and direct I/O --------------------------------------------------------------- */

/* Header-independent: glibc and the kernel headers we build with may be older than the kernel. */
#define MASK_DIOALIGN 0x2000u
#define MASK_WRITE_ATOMIC 0x10000u
#define MASK_DIO_READ_ALIGN 0x20000u

struct statx_raw {
    uint32_t mask;
    uint8_t before[0x94];
    uint32_t dio_mem_align, dio_offset_align; /* at 0x98 */
    uint8_t between[0x8];
    uint32_t atomic_min, atomic_max; /* at 0xa8 */
    uint8_t between_too[0x4];
    uint32_t dio_read_offset_align; /* at 0xb4 */
    uint8_t after[0x48];
};
_Static_assert(sizeof(struct statx_raw) == 0x100, "the kernel writes 256 bytes");
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
static int open_once(const char *path, int flags, unsigned mode) {
    int fd;
    do fd = open(path, flags, mode);
    while (fd < 0 && errno == EINTR);
    if (fd >= 0 || errno != EPERM || !(flags & O_NOATIME)) return fd;
    do fd = open(path, flags & ~O_NOATIME, mode);
    while (fd < 0 && errno == EINTR);
    return fd;
}

static int open_flags(const jdb_open *how) {
    /* O_NONBLOCK: a FIFO must not hold a worker until somebody writes to it. No O_TRUNC and no
     * O_DIRECT yet: first it must be certain that this file is wanted, and that it is ours. */
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    flags |= how->flags & JDB_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (how->flags & JDB_OPEN_DSYNC) flags |= O_DSYNC;
    if (!(how->flags & JDB_OPEN_ATIME)) flags |= O_NOATIME;
    if (how->flags & JDB_OPEN_NOFOLLOW) flags |= O_NOFOLLOW;
    return flags;
}

/* Opens or makes it; *made tells which, so that a refusal can take back what it made. */
static int open_or_make(const char *path, const jdb_open *how, int *made) {
    int flags = open_flags(how);
    int may_make = (how->flags & JDB_OPEN_CREATE) && !(how->flags & JDB_OPEN_DEVICE);
    *made = 0;
    for (;;) {
        if (!(how->flags & JDB_OPEN_EXCLUSIVE)) {
            int fd = open_once(path, flags, 0);
            if (fd >= 0 || errno != ENOENT || !may_make) return fd;
        }
        int fd = open_once(path, flags | O_CREAT | O_EXCL, how->mode);
        *made = fd >= 0;
        /* Made by somebody else in between, or a link to nothing: O_EXCL does not follow it. */
        if (fd >= 0 || errno != EEXIST || (how->flags & JDB_OPEN_EXCLUSIVE)) return fd;
        struct stat st;
        if (stat(path, &st) != 0 && errno == ENOENT)
            return open_once(path, flags | O_CREAT, how->mode);
    }
}

static int64_t refuse_kind(jdb_op *op, const char *why) {
    op->file->info.direct_reason = why;
    return -EINVAL;
}

static int64_t accept_kind(int fd, jdb_op *op) {
    struct stat st;
    if (fstat(fd, &st) != 0) return -errno;
    int wanted = (op->detail->open.flags & JDB_OPEN_DEVICE) != 0;
    if (S_ISDIR(st.st_mode)) return -EISDIR;
    if (wanted && !S_ISBLK(st.st_mode))
        return refuse_kind(op, "not a block device, but option device was given");
    if (!wanted && S_ISBLK(st.st_mode))
        return refuse_kind(op, "a block device; option device = true opens it");
    if (!wanted && !S_ISREG(st.st_mode))
        return refuse_kind(op, "neither a regular file nor a block device");
    op->file->info.device = wanted;
    return 0;
}

/* The descriptor's flags as transfers need them. *direct: whether O_DIRECT is in force. */
static int64_t set_flags(int fd, jdb_op *op, int *direct) {
    jdb_direct policy = op->detail->open.direct;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    flags &= ~O_NONBLOCK;
    *direct = policy != JDB_DIRECT_OFF && fcntl(fd, F_SETFL, flags | O_DIRECT) == 0;
    if (*direct) return 0;
    if (policy == JDB_DIRECT_REQUIRE) {
        op->file->info.direct_reason = "the file system refuses direct I/O; option direct = "
                                       "\"prefer\" or \"off\" uses the page cache";
        return -EOPNOTSUPP;
    }
    return fcntl(fd, F_SETFL, flags) == 0 ? 0 : -errno;
}

static void describe(int fd, jdb_op *op, int direct) {
    jdb_file *file = op->file;
    const jdb_open *how = &op->detail->open;
    jdb_linux_file_system(fd, file->file_system, sizeof file->file_system);
    file->info.method = how->method;
    file->info.policy = how->direct;
    file->info.writable = (how->flags & JDB_OPEN_WRITE) != 0;
    file->info.dsync = (how->flags & JDB_OPEN_DSYNC) != 0;
    file->info.direct = direct;
    if (direct) {
        ask_alignment(fd, &file->info);
        file->memory_align = file->info.memory_align;
        file->read_align = file->info.read_align;
        file->write_align = file->info.write_align;
        file->info.direct_reason = "O_DIRECT accepted";
        if (strcmp(file->file_system, "tmpfs") == 0 || strcmp(file->file_system, "ramfs") == 0)
            file->info.direct_reason = "O_DIRECT accepted, but this file system is memory";
    } else {
        file->info.align_source = "none needed without direct I/O";
        file->info.direct_reason = how->direct == JDB_DIRECT_OFF
                                       ? "option direct = \"off\""
                                       : "the file system refused O_DIRECT";
    }
}

static int64_t lock_at_open(int fd, jdb_op *op) {
    unsigned flags = op->detail->open.flags;
    if (!(flags & (JDB_OPEN_LOCK_SHARED | JDB_OPEN_LOCK_EXCLUSIVE))) return 0;
    int exclusive = (flags & JDB_OPEN_LOCK_EXCLUSIVE) != 0;
    int64_t r = jdb_posix_lock(fd, exclusive, &op->detail->cause);
    if (r == 0) op->file->locked = exclusive ? LOCK_EX : LOCK_SH;
    return r;
}

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
        if (sscanf(line, "%*d: FLOCK %*s %15s %ld %*x:%*x:%" SCNu64, how, &pid, &inode) != 3)
            continue;
        if (inode != (uint64_t)st.st_ino) continue;
        snprintf(text, sizeof text,
                 "process %ld holds %s lock on it (I/O in flight keeps the lock of a dead process)",
                 pid, how[0] == 'W' ? "an exclusive" : "a shared");
        break;
    }
    if (f) fclose(f);
    return strdup(text);
}

/* A file that is empty and has no space reserved is left as it is: truncating it would change its
 * times. */
static int64_t truncate_at_open(int fd, const jdb_op *op) {
    if (!(op->detail->open.flags & JDB_OPEN_TRUNCATE) || op->file->info.device) return 0;
    struct stat st;
    if (fstat(fd, &st) != 0) return -errno;
    if (st.st_size == 0 && st.st_blocks == 0) return 0;
    return ftruncate(fd, 0) == 0 ? 0 : -errno;
}

/* What may be refused comes before what changes an existing file. */
static int64_t finish_open(int fd, jdb_op *op, int *direct, int *wanted) {
    const jdb_open *how = &op->detail->open;
    int64_t r = accept_kind(fd, op);
    if (r == 0) r = set_flags(fd, op, direct);
    *wanted = r == 0;
    if (r == 0) r = lock_at_open(fd, op);
    if (r == 0) r = truncate_at_open(fd, op);
    if (r == 0 && (how->flags & JDB_OPEN_DURABLE)) r = jdb_platform_sync(fd, 0);
    return r;
}

/* Takes a file away that this call made, if the name is still its. */
static void unmake(int fd, const char *path) {
    struct stat here, there;
    if (fstat(fd, &here) != 0 || lstat(path, &there) != 0) return;
    if (here.st_ino == there.st_ino && here.st_dev == there.st_dev) unlink(path);
}

int64_t jdb_platform_open(jdb_op *op) {
    const char *path = op->detail->path;
    int made, wanted, direct = 0;
    int64_t parent = -1;
    if (op->detail->open.flags & JDB_OPEN_DURABLE) {
        parent = jdb_names_open_parent(&jdb_posix_calls, NULL, path);
        if (parent < 0) return parent;
    }
    int fd = open_or_make(path, &op->detail->open, &made);
    if (fd < 0) return jdb_names_sync_parent(&jdb_posix_calls, NULL, parent, -errno);
    int64_t r = finish_open(fd, op, &direct, &wanted);
    r = jdb_names_sync_parent(&jdb_posix_calls, NULL, parent, r);
    if (r < 0) {
        /* Later on somebody else may have it in use already. */
        if (made && !wanted) unmake(fd, path);
        close(fd);
        return r;
    }
    describe(fd, op, direct);
    op->file->handle = fd;
    return 0;
}

/* ---- the rest ------------------------------------------------------------------------------- */

/* Never tried again: the kernel may have dropped what it could not write, and a second call would
 * then report a success that the device did not give. */
int64_t jdb_platform_sync(int fd, int data_only) {
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
 * later overwrites change no metadata; then the exact size. Bytes the file has stay. */
static int64_t preallocate_zero(jdb_file *file, uint64_t size, uint64_t len) {
    int fd = (int)file->handle;
    uint64_t align = file->write_align;
    int64_t r = reserve(fd, FALLOC_FL_KEEP_SIZE, size, len);
    if (r < 0 && r != -EOPNOTSUPP) return r;
    uint64_t from = (size + align - 1) / align * align;
    uint64_t to = (len + align - 1) / align * align;
    r = jdb_posix_write_zeros(file, from, to);
    /* Within the last block the file has, nothing was written. */
    if (r == 0 && (to != len || from >= to) && ftruncate(fd, (off_t)len) != 0) r = -errno;
    /* Whoever fills a file with zeros must not write behind its end meanwhile, so nothing else is
     * cut off here. */
    if (r < 0 && ftruncate(fd, (off_t)size) != 0) return r;
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
    if (fd < 0) fd = open(d->path, flags, 0600);
    if (fd < 0 && make) {
        info->direct_reason = "unknown: no file could be made here";
        fd = open(d->path, O_RDONLY | O_CLOEXEC);
    }
    if (fd < 0) return -errno;
    info->device = S_ISBLK(st.st_mode);
    info->file_system = d->file_system;
    jdb_linux_file_system(fd, d->file_system, sizeof d->file_system);
    jdb_platform_evidence(fd, d->file_system, &info->evidence);
    ask_alignment(fd, info);
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
