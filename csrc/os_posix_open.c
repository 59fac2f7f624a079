/* os_posix_open.c: opening, in the one order that is safe: the file is found or made, then whatever
 * may be refused, and only then what changes an existing file. */
#include "os_posix.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { LEASE_NAP_NS = 10000000, LEASE_NAPS = 6000 /* a minute */ };

/* O_NONBLOCK makes it EAGAIN, not a wait, that somebody has a lease on the file (a file server, our
 * own give_back). Its holder was told by the first try; from one that does not let go the system
 * takes it, on Linux after 45 s (fs.lease-break-time). */
static int open_waiting(const char *path, int flags, unsigned mode) {
    int naps = 0;
    for (;;) {
        int fd = open(path, flags, mode);
        if (fd >= 0 || (errno != EINTR && errno != EAGAIN)) return fd;
        if (errno == EINTR) continue;
        if (naps++ == LEASE_NAPS) return fd;
        jdb_os_sleep(LEASE_NAP_NS);
    }
}

/* `optional` flags are for the file's owner alone: others do without. */
static int open_once(const char *path, int flags, int optional, unsigned mode) {
    int fd = open_waiting(path, flags | optional, mode);
    if (fd >= 0 || errno != EPERM || !optional) return fd;
    return open_waiting(path, flags, mode);
}

static int open_flags(const jdb_open *how, int *optional) {
    /* O_NONBLOCK: a FIFO must not hold a worker until somebody writes to it. No O_TRUNC and nothing
     * direct yet: first it must be certain that this file is wanted, and that it is ours. */
    int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    flags |= how->flags & JDB_OPEN_WRITE ? O_RDWR : O_RDONLY;
    if (how->flags & JDB_OPEN_NOFOLLOW) flags |= O_NOFOLLOW;
    return flags | jdb_platform_open_flags(how, optional);
}

/* Opens or makes it; *made tells which, so that a refusal can take back what it made. */
static int open_or_make(const char *path, const jdb_open *how, int *made) {
    int optional, flags = open_flags(how, &optional);
    int may_make = (how->flags & JDB_OPEN_CREATE) && !(how->flags & JDB_OPEN_DEVICE);
    *made = 0;
    for (;;) {
        if (!(how->flags & JDB_OPEN_EXCLUSIVE)) {
            int fd = open_once(path, flags, optional, 0);
            if (fd >= 0 || errno != ENOENT || !may_make) return fd;
        }
        int fd = open_once(path, flags | O_CREAT | O_EXCL, optional, how->mode);
        *made = fd >= 0;
        /* Made by somebody else in between, or a link to nothing: O_EXCL does not follow it. */
        if (fd >= 0 || errno != EEXIST || (how->flags & JDB_OPEN_EXCLUSIVE)) return fd;
        struct stat st;
        if (stat(path, &st) != 0 && errno == ENOENT)
            return open_once(path, flags | O_CREAT, optional, how->mode);
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

static int64_t refuse_direct(jdb_file_info *info, const char *why) {
    info->direct_reason = why;
    return -EOPNOTSUPP;
}

/* The descriptor's flags as transfers need them; info.direct tells whether the cache is passed. */
static int64_t set_flags(int fd, jdb_op *op) {
    jdb_file_info *info = &op->file->info;
    jdb_direct policy = op->detail->open.direct;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) return -errno;
    flags &= ~O_NONBLOCK;
    info->polled = (op->detail->open.flags & JDB_OPEN_POLLED) != 0;
    info->direct = policy != JDB_DIRECT_OFF && jdb_platform_set_flags(fd, flags, 1, info) == 0;
    if (info->direct && policy == JDB_DIRECT_REQUIRE && info->polled_reason)
        return refuse_direct(info, info->polled_reason);
    if (info->direct) return 0;
    if (info->polled) info->polled_reason = "only direct files are polled for";
    info->polled = 0;
    if (policy == JDB_DIRECT_REQUIRE) {
        return refuse_direct(info, info->direct_reason
                                       ? info->direct_reason
                                       : "the file system refuses direct I/O; option direct = "
                                         "\"prefer\" or \"off\" uses the page cache");
    }
    return jdb_platform_set_flags(fd, flags, 0, info);
}

static void describe(int fd, jdb_op *op) {
    jdb_file *file = op->file;
    const jdb_open *how = &op->detail->open;
    file->info.method = how->method;
    file->info.policy = how->direct;
    file->info.writable = (how->flags & JDB_OPEN_WRITE) != 0;
    file->info.dsync = (how->flags & JDB_OPEN_DSYNC) != 0;
    file->info.sync_level = how->sync_level;
    file->sync_level = (int)how->sync_level;
    if (!file->info.direct) file->info.align_source = "none needed without direct I/O";
    if (how->direct == JDB_DIRECT_OFF) file->info.direct_reason = "option direct = \"off\"";
    jdb_platform_describe(fd, &file->info, file->file_system, sizeof file->file_system);
    if (!jdb_platform_has_durable_writes) {
        file->info.method = JDB_METHOD_FLUSH;
        file->dsync_by_flush = file->info.dsync;
    }
    if (!file->info.direct) return;
    file->polled = file->info.polled;
    file->memory_align = file->info.memory_align;
    file->read_align = file->info.read_align;
    if (file->info.disk) file->disk = file->info.disk;
    file->write_align = file->info.write_align;
}

static int64_t lock_at_open(int fd, jdb_op *op) {
    unsigned flags = op->detail->open.flags;
    if (!(flags & (JDB_OPEN_LOCK_SHARED | JDB_OPEN_LOCK_EXCLUSIVE))) return 0;
    int exclusive = (flags & JDB_OPEN_LOCK_EXCLUSIVE) != 0;
    int64_t r = jdb_posix_lock(fd, exclusive, &op->detail->cause);
    if (r == 0) op->file->locked = exclusive ? LOCK_EX : LOCK_SH;
    return r;
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
static int64_t finish_open(int fd, jdb_op *op, int *wanted) {
    const jdb_open *how = &op->detail->open;
    int64_t r = accept_kind(fd, op);
    if (r == 0) r = set_flags(fd, op);
    *wanted = r == 0;
    if (r == 0) r = lock_at_open(fd, op);
    if (r == 0) r = truncate_at_open(fd, op);
    if (r == 0 && (how->flags & JDB_OPEN_DURABLE)) r = jdb_platform_sync(fd, 0, NULL);
    return r;
}

/* Takes a file away that this call made, if the name is still its. */
static void unmake(int fd, const char *path) {
    struct stat here, there;
    if (fstat(fd, &here) != 0 || lstat(path, &there) != 0) return;
    if (here.st_ino == there.st_ino && here.st_dev == there.st_dev) unlink(path);
}

/* The directory that holds the file's name, or will: links are followed, also to nothing, as the
 * file is made where they lead. */
static int64_t open_parent(const char *path, unsigned flags) {
    char at[PATH_MAX], target[PATH_MAX];
    int links = flags & (JDB_OPEN_EXCLUSIVE | JDB_OPEN_NOFOLLOW) ? 0 : 40; /* as the system's */
    if (strlen(path) >= sizeof at) return -ENAMETOOLONG;
    memcpy(at, path, strlen(path) + 1);
    for (ssize_t n; links > 0 && (n = readlink(at, target, sizeof target)) > 0; links--) {
        const char *slash = strrchr(at, '/');
        size_t stem = target[0] == '/' || !slash ? 0 : (size_t)(slash - at) + 1;
        if (stem + (size_t)n >= sizeof at) return -ENAMETOOLONG;
        memcpy(at + stem, target, (size_t)n);
        at[stem + (size_t)n] = 0;
    }
    return jdb_names_open_parent(&jdb_posix_calls, NULL, at);
}

int64_t jdb_posix_open(jdb_op *op) {
    const char *path = op->detail->path;
    int made, wanted;
    int64_t parent = -1;
    if (op->detail->open.flags & JDB_OPEN_DURABLE) {
        parent = open_parent(path, op->detail->open.flags);
        if (parent < 0) return parent;
    }
    int fd = open_or_make(path, &op->detail->open, &made);
    if (fd < 0) return jdb_names_sync_parent(&jdb_posix_calls, NULL, parent, -errno);
    int64_t r = finish_open(fd, op, &wanted);
    r = jdb_names_sync_parent(&jdb_posix_calls, NULL, parent, r);
    if (r < 0) {
        /* Later on somebody else may have it in use already. */
        if (made && !wanted) unmake(fd, path);
        close(fd);
        return r;
    }
    describe(fd, op);
    op->file->handle = fd;
    return 0;
}
