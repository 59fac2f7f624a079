/* os_macos.c: direct I/O, durability and space as macOS has them, and the list of backends. What
 * the calls of the system mean is decided here; the calls themselves are in os_macos_calls.c. */
#include "os_macos.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "backend.h"

extern const struct jdb_backend jdb_backend_kqueue, jdb_backend_threads, jdb_backend_sim;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_kqueue, &jdb_backend_threads,
                                                  &jdb_backend_sim, NULL};

/* Several numbers for "this file system has no such call". */
static int not_there(int error) {
    return error == -ENOTSUP || error == -EOPNOTSUPP || error == -ENOTTY || error == -EINVAL;
}

static int power_of_two(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* ---- direct I/O ----------------------------------------------------------------------------- */

/* O_DSYNC stops at the device's cache: what it is to promise is done by flushes. */
const int jdb_platform_has_durable_writes = 0;

int jdb_platform_open_flags(const jdb_open *how, int *optional) {
    (void)how;
    *optional = 0;
    return 0;
}

/* F_NOCACHE is a request, not O_DIRECT: what is too small or misaligned silently uses the cache,
 * and pages that are cached already are read from there. How far it goes: direct_write_unit. */
enum { WRITE_UNIT = 16384, EXTENDED_WRITE_UNIT = 4096 };

int64_t jdb_platform_set_flags(int fd, int flags, int direct, jdb_file_info *info) {
    if (fcntl(fd, F_SETFL, flags) != 0) return -errno;
    info->direct_write_unit = 0;
    if (!direct) return 0;
    if (jdb_macos->translated()) {
        info->direct_reason =
            "an Intel program on Apple silicon has no direct I/O; option direct = "
            "\"prefer\" or \"off\" uses the page cache";
        return -EOPNOTSUPP;
    }
    if (jdb_macos->no_cache_extended(fd) == 0) {
        info->direct_write_unit = EXTENDED_WRITE_UNIT;
        return 0;
    }
    int r = jdb_macos->no_cache(fd);
    if (r == 0) info->direct_write_unit = WRITE_UNIT;
    return r;
}

static void ask_alignment(int fd, const struct jdb_bsd_mount *mount, jdb_file_info *info) {
    uint32_t block = 0, page = (uint32_t)jdb_os_page_size();
    uint64_t blocks;
    if (info->device && jdb_macos->device(fd, &block, &blocks) == 0 && power_of_two(block))
        jdb_bsd_set_alignment(info, block, "DKIOCGETBLOCKSIZE");
    else if (power_of_two(mount->block_size) && mount->block_size <= page)
        jdb_bsd_set_alignment(info, mount->block_size, "block size of the file system");
    else jdb_bsd_set_alignment(info, page, "one page: the system gives no alignment");
}

void jdb_platform_describe(int fd, jdb_file_info *info, char *file_system, size_t size) {
    struct jdb_bsd_mount mount;
    int known = jdb_macos->mount(fd, &mount) == 0;
    const char *name = known ? mount.file_system : "unknown";
    snprintf(file_system, size, "%s", info->device ? "block device" : name);
    if (!known) mount.block_size = 0;
    if (!info->direct) {
        info->direct_write_unit = 0;
        if (info->policy != JDB_DIRECT_OFF && !info->direct_reason)
            info->direct_reason = "the file system refused F_NOCACHE";
        return;
    }
    ask_alignment(fd, &mount, info);
    /* Only whole pages bypass the cache, and only in writes that begin with this much. */
    uint32_t page = (uint32_t)jdb_os_page_size();
    if (info->direct_write_unit == WRITE_UNIT) {
        if (page > WRITE_UNIT) info->direct_write_unit = page;
        info->direct_reason =
            "F_NOCACHE accepted: smaller writes than direct_write_unit go through "
            "the page cache, and cached pages are read from it";
    } else {
        if (info->write_align > EXTENDED_WRITE_UNIT) info->direct_write_unit = info->write_align;
        info->direct_reason = "F_NOCACHE_EXT accepted: cached pages are still read from the cache";
    }
}

int64_t jdb_platform_device_size(int fd) {
    uint32_t block;
    uint64_t blocks;
    int r = jdb_macos->device(fd, &block, &blocks);
    if (r < 0) return r;
    return blocks <= (uint64_t)INT64_MAX / block ? (int64_t)(blocks * block) : -EOVERFLOW;
}

int64_t jdb_platform_evidence(int fd, const char *file_system, jdb_evidence *e) {
    static const char *const journaled[] = {"apfs", "hfs", NULL};
    struct jdb_bsd_mount mount;
    (void)file_system;
    int r = jdb_macos->mount(fd, &mount);
    if (r < 0) return r;
    jdb_bsd_classify(&mount, journaled, "F_FULLFSYNC asks the device to empty its cache", e);
    return 0;
}

/* ---- durability ----------------------------------------------------------------------------- */

int jdb_os_has_barrier(void) { return 1; }

/* A call that is not there says so before it does anything; then the next weaker one is tried, and
 * *level tells which one ran. Any other failure is the flush's own and final: a weaker call, or the
 * same once more, could succeed because the system has dropped what it could not write. */
static int64_t flush(int fd, int *level) {
    if (*level == JDB_SYNC_FULL) {
        int r = jdb_macos->full_sync(fd);
        if (!not_there(r)) return r;
        *level = JDB_SYNC_BARRIER;
    }
    if (*level == JDB_SYNC_BARRIER) {
        int r = jdb_macos->barrier_sync(fd);
        if (!not_there(r)) return r;
        *level = JDB_SYNC_OS;
    }
    return jdb_macos->sync(fd);
}

/* There is no call for the data alone. */
int64_t jdb_platform_sync(int fd, int data_only, jdb_file *file) {
    int level = JDB_SYNC_FULL;
    (void)data_only;
    if (!file) return flush(fd, &level);
    int wanted = level = __atomic_load_n(&file->sync_level, __ATOMIC_RELAXED);
    int64_t r = flush(fd, &level);
    if (level != wanted) __atomic_store_n(&file->sync_level, level, __ATOMIC_RELAXED);
    return r;
}

/* No write is durable or untorn by itself: the core writes and flushes instead. */
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

static uint64_t allocated(const struct stat *st) { return (uint64_t)st->st_blocks * 512; }

/* Space for `len` bytes in all. What is there already is not asked for again: the call counts from
 * the physical end of the file. It cannot fill holes before that: a file with holes is refused. */
static int64_t reserve(int fd, uint64_t len, int keep) {
    struct stat st;
    uint64_t got;
    if (fstat(fd, &st) != 0) return -errno;
    uint64_t size = (uint64_t)st.st_size, there = allocated(&st);
    if (there < size) return -EOPNOTSUPP;
    if (there >= len) return 0;
    uint64_t want = len - there;
    int r = jdb_macos->reserve(fd, 1, keep, want, &got);
    if (r < 0) r = jdb_macos->reserve(fd, 0, keep, want, &got);
    if (r < 0) return not_there(r) ? -EOPNOTSUPP : r;
    if (got >= want) return 0;
    if (fstat(fd, &st) != 0) return -errno;
    return allocated(&st) >= len ? 0 : -ENOSPC;
}

int64_t jdb_platform_preallocate(jdb_op *op) {
    int fd = (int)op->file->handle;
    int64_t size = jdb_os_size(fd);
    if (size < 0) return size;
    int grows = op->len > (uint64_t)size;
    if (op->how == JDB_PREALLOC_KEEP) return reserve(fd, op->len, 1);
    if (op->how == JDB_PREALLOC_ZERO && !grows) return 0;
    /* Space first, so that a full disk shows before the file is changed. */
    int64_t r = reserve(fd, op->len, 0);
    if (r < 0 && r != -EOPNOTSUPP) return r;
    /* No reservation on this file system: zeros reserve as well, and keep the promise. */
    if (r < 0 && !grows) return r;
    if (r < 0 || op->how == JDB_PREALLOC_ZERO)
        return jdb_posix_grow_with_zeros(op->file, (uint64_t)size, op->len);
    return !grows || ftruncate(fd, (off_t)op->len) == 0 ? 0 : -errno;
}

/* A piece of a block: the hole cannot begin or end in there. */
static int64_t zero_piece(int fd, uint64_t from, uint64_t to) {
    static const char zeros[4096];
    while (from < to) {
        size_t piece = to - from < sizeof zeros ? (size_t)(to - from) : sizeof zeros;
        ssize_t n = pwrite(fd, zeros, piece, (off_t)from);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return n < 0 ? -errno : -ENOSPC;
        from += (uint64_t)n;
    }
    return 0;
}

/* The whole blocks first: where there are no holes, nothing is changed. */
int64_t jdb_platform_punch(jdb_op *op) {
    struct jdb_bsd_mount mount;
    int fd = (int)op->file->handle;
    int64_t size = jdb_os_size(fd);
    if (size < 0) return size;
    uint64_t from = op->off, to = op->off + op->len;
    if (to > (uint64_t)size) to = (uint64_t)size;
    if (from >= to) return 0;
    int64_t r = jdb_macos->mount(fd, &mount);
    if (r < 0) return r;
    if (!power_of_two(mount.block_size)) return -EOPNOTSUPP;
    uint64_t block = mount.block_size;
    uint64_t first = (from + block - 1) / block * block, last = to / block * block;
    if (first >= last) return zero_piece(fd, from, to);
    r = jdb_macos->punch(fd, first, last - first);
    if (r < 0) return not_there((int)r) ? -EOPNOTSUPP : r;
    r = zero_piece(fd, from, first);
    return r < 0 ? r : zero_piece(fd, last, to);
}

/* ---- names ---------------------------------------------------------------------------------- */

int64_t jdb_platform_rename_noreplace(int dir, const char *from, const char *to) {
    int r = jdb_macos->rename_exclusive(dir, from, to);
    return not_there(r) && r != -EINVAL ? -EOPNOTSUPP : r;
}
