/* os_bsd.c: direct I/O, durability and space as FreeBSD has them, and the list of backends. */
#include "os_bsd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/disk.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "backend.h"

extern const struct jdb_backend jdb_backend_kqueue, jdb_backend_threads, jdb_backend_sim;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_kqueue, &jdb_backend_threads,
                                                  &jdb_backend_sim, NULL};

void jdb_platform_keep_from_children(void *map, size_t size) { minherit(map, size, INHERIT_NONE); }

/* ---- direct I/O ----------------------------------------------------------------------------- */

const int jdb_platform_has_durable_writes = 1;

int jdb_platform_open_flags(const jdb_open *how, int *optional) {
    *optional = 0;
    return how->flags & JDB_OPEN_SYNC ? O_SYNC : how->flags & JDB_OPEN_DSYNC ? O_DSYNC : 0;
}

int64_t jdb_platform_set_flags(int fd, int flags, int direct, jdb_file_info *info) {
    (void)info;
    return fcntl(fd, F_SETFL, direct ? flags | O_DIRECT : flags) == 0 ? 0 : -errno;
}

/* UFS takes O_DIRECT as a hint, ZFS needs whole pages; neither tells an alignment. */
void jdb_platform_describe(int fd, jdb_file_info *info, char *file_system, size_t size) {
    struct jdb_bsd_mount mount;
    int known = jdb_bsd_statfs(fd, &mount) == 0;
    const char *name = known ? mount.file_system : "unknown";
    snprintf(file_system, size, "%s", info->device ? "block device" : name);
    if (info->direct) {
        jdb_bsd_set_alignment(info, (uint32_t)jdb_os_page_size(),
                              "one page: the system gives no alignment");
        info->direct_write_unit = info->write_align;
        info->direct_reason = "O_DIRECT accepted; UFS takes it as a hint";
    } else if (info->policy != JDB_DIRECT_OFF) {
        info->direct_reason = "the file system refused O_DIRECT";
    }
}

int64_t jdb_platform_device_size(int fd) {
    off_t size = 0;
    return ioctl(fd, DIOCGMEDIASIZE, &size) == 0 ? (int64_t)size : -errno;
}

int64_t jdb_platform_evidence(int fd, const char *file_system, jdb_evidence *e) {
    static const char *const journaled[] = {"zfs", "ufs", NULL};
    struct jdb_bsd_mount mount;
    (void)file_system;
    int r = jdb_bsd_statfs(fd, &mount);
    if (r < 0) return r;
    jdb_bsd_classify(&mount, journaled, "fsync writes to the device", e);
    return 0;
}

/* ---- durability ----------------------------------------------------------------------------- */

int jdb_os_has_barrier(void) { return 0; }

/* Never tried again, as on Linux. */
int64_t jdb_platform_sync(int fd, int data_only, jdb_file *file) {
    (void)file;
    int r = data_only ? fdatasync(fd) : fsync(fd);
    return r == 0 ? 0 : -errno;
}

/* No flags for a single write: the core writes and flushes instead. */
ssize_t jdb_platform_write(const jdb_op *op, int fd, const void *data, size_t len, off_t off) {
    (void)op;
    (void)fd;
    (void)data;
    (void)len;
    (void)off;
    errno = EOPNOTSUPP;
    return -1;
}

/* ---- space ---------------------------------------------------------------------------------- */

/* posix_fallocate also sets the size; ZFS has none and says EINVAL. */
static int64_t reserve_and_grow(int fd, uint64_t len) {
    int r;
    if (len == 0) return 0;
    do r = posix_fallocate(fd, 0, (off_t)len);
    while (r == EINTR);
    return r == EINVAL || r == ENODEV ? -EOPNOTSUPP : -r;
}

int64_t jdb_platform_preallocate(jdb_op *op) {
    int fd = (int)op->file->handle;
    int64_t size = jdb_os_size(fd);
    if (size < 0) return size;
    int grows = op->len > (uint64_t)size;
    if (op->how == JDB_PREALLOC_KEEP) return -EOPNOTSUPP;
    if (op->how == JDB_PREALLOC_SIZE) {
        int64_t r = reserve_and_grow(fd, op->len);
        if (r < 0 && grows && ftruncate(fd, (off_t)size) != 0) return r;
        if (r != -EOPNOTSUPP || !grows) return r;
    }
    return grows ? jdb_posix_grow_with_zeros(op->file, (uint64_t)size, op->len) : 0;
}

/* A file system without holes gets zeros from the system instead. The size stays. */
int64_t jdb_platform_punch(jdb_op *op) {
    int fd = (int)op->file->handle;
    int64_t size = jdb_os_size(fd);
    if (size < 0) return size;
    uint64_t to = op->off + op->len;
    if (to > (uint64_t)size) to = (uint64_t)size;
    struct spacectl_range rest = {(off_t)op->off, (off_t)(to > op->off ? to - op->off : 0)};
    while (rest.r_len > 0) {
        if (fspacectl(fd, SPACECTL_DEALLOC, &rest, 0, &rest) != 0 && errno != EINTR) return -errno;
    }
    return 0;
}

/* ---- names ---------------------------------------------------------------------------------- */

/* No rename that refuses an existing name: a second name is made, which does refuse it, and the
 * first is removed. A crash in between leaves both. Directories have only one. */
int64_t jdb_platform_rename_noreplace(int dir, const char *from, const char *to) {
    struct stat st;
    if (fstatat(dir, from, &st, AT_SYMLINK_NOFOLLOW) != 0) return -errno;
    if (S_ISDIR(st.st_mode)) return -EOPNOTSUPP;
    if (linkat(dir, from, dir, to, 0) != 0) return -errno;
    return unlinkat(dir, from, 0) == 0 ? 0 : -errno;
}
