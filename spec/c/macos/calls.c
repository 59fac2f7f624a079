/* os_macos_calls.c's part on Linux: calls that do what those of macOS would, with their limits,
 * upon "APFS". spec/c/macos/macos_test.c puts others in their place. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "os_macos.h"

enum { BLOCK = 4096 };

static int result(int r) { return r == 0 ? 0 : -errno; }

static int accept_it(int fd) {
    (void)fd;
    return 0;
}

static int translated(void) { return 0; }
static int sync_it(int fd) { return result(fsync(fd)); }

static int reserve(int fd, int contiguous, int keep, uint64_t len, uint64_t *got) {
    struct stat st;
    (void)contiguous;
    (void)keep;
    *got = 0;
    if (fstat(fd, &st) != 0) return -errno;
    off_t written = (st.st_size + BLOCK - 1) / BLOCK * BLOCK, end = st.st_blocks * 512;
    if (end < written) end = written;
    int r = result(fallocate(fd, FALLOC_FL_KEEP_SIZE, end, (off_t)len));
    if (r == 0) *got = len;
    /* All or none, which Linux does not promise. A list of extents may take one block. */
    else if (end <= written + BLOCK && ftruncate(fd, st.st_size) != 0) return -errno;
    return r;
}

static int punch(int fd, uint64_t off, uint64_t len) {
    if (off % BLOCK || len % BLOCK) return -EINVAL;
    return result(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len));
}

static int rename_exclusive(int dir, const char *from, const char *to) {
    return result((int)syscall(SYS_renameat2, dir, from, dir, to, RENAME_NOREPLACE));
}

static int mount(int fd, struct jdb_bsd_mount *mount) {
    (void)fd;
    memset(mount, 0, sizeof *mount);
    snprintf(mount->file_system, sizeof mount->file_system, "apfs");
    snprintf(mount->device, sizeof mount->device, "/dev/disk3s5");
    mount->block_size = BLOCK;
    return 0;
}

static int device(int fd, uint32_t *block_size, uint64_t *blocks) {
    uint64_t size;
    int block;
    if (ioctl(fd, BLKSSZGET, &block) != 0 || ioctl(fd, BLKGETSIZE64, &size) != 0) return -errno;
    *block_size = (uint32_t)block;
    *blocks = size / *block_size;
    return 0;
}

static const struct jdb_macos_calls calls = {
    .no_cache = accept_it,
    .no_cache_extended = accept_it,
    .translated = translated,
    .full_sync = sync_it,
    .barrier_sync = sync_it,
    .sync = sync_it,
    .reserve = reserve,
    .punch = punch,
    .rename_exclusive = rename_exclusive,
    .mount = mount,
    .device = device,
};

const struct jdb_macos_calls *jdb_macos = &calls;

void jdb_platform_keep_from_children(void *map, size_t size) { madvise(map, size, MADV_DONTFORK); }
