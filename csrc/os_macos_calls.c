/* os_macos_calls.c: the system calls behind os_macos.h, without any decision: this is the part that
 * only a Mac can run. */
#include "os_macos.h"

#include <errno.h>
#include <fcntl.h>
#include <mach/vm_inherit.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sysctl.h>
#include <unistd.h>

#include "os_thread.h"

static int command(int fd, int number, void *argument) {
    int r;
    do r = fcntl(fd, number, argument);
    while (r == -1 && errno == EINTR);
    return r == -1 ? -errno : 0;
}

static int command_on(int fd, int number) {
    int r;
    do r = fcntl(fd, number, 1);
    while (r == -1 && errno == EINTR);
    return r == -1 ? -errno : 0;
}

static int no_cache(int fd) { return command_on(fd, F_NOCACHE); }
static int no_cache_extended(int fd) { return command_on(fd, F_NOCACHE_EXT); }
static int full_sync(int fd) { return command_on(fd, F_FULLFSYNC); }
static int barrier_sync(int fd) { return command_on(fd, F_BARRIERFSYNC); }

static int plain_sync(int fd) {
    int r;
    do r = fsync(fd);
    while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}

static int translated(void) {
    int value = 0;
    size_t size = sizeof value;
    return sysctlbyname("sysctl.proc_translated", &value, &size, NULL, 0) == 0 && value == 1;
}

/* F_PEOFPOSMODE counts from the physical end, and wants no offset. */
static int reserve(int fd, int contiguous, int keep, uint64_t len, uint64_t *got) {
    fstore_t store = {
        .fst_flags =
            F_ALLOCATEALL | (contiguous ? F_ALLOCATECONTIG : 0u) | (keep ? F_ALLOCATEPERSIST : 0u),
        .fst_posmode = F_PEOFPOSMODE,
        .fst_length = (off_t)len,
    };
    int r = command(fd, F_PREALLOCATE, &store);
    *got = r == 0 && store.fst_bytesalloc > 0 ? (uint64_t)store.fst_bytesalloc : 0;
    return r;
}

static int punch(int fd, uint64_t off, uint64_t len) {
    fpunchhole_t hole = {.fp_offset = (off_t)off, .fp_length = (off_t)len};
    return command(fd, F_PUNCHHOLE, &hole);
}

static int rename_exclusive(int dir, const char *from, const char *to) {
    return renameatx_np(dir, from, dir, to, RENAME_EXCL) == 0 ? 0 : -errno;
}

/* Of sys/disk.h, which not every set of headers has. */
#define IOC_BLOCK_SIZE _IOR('d', 24, uint32_t)
#define IOC_BLOCK_COUNT _IOR('d', 25, uint64_t)

static int device(int fd, uint32_t *block_size, uint64_t *blocks) {
    if (ioctl(fd, IOC_BLOCK_SIZE, block_size) != 0) return -errno;
    return ioctl(fd, IOC_BLOCK_COUNT, blocks) == 0 ? 0 : -errno;
}

static const struct jdb_macos_calls calls = {
    .no_cache = no_cache,
    .no_cache_extended = no_cache_extended,
    .translated = translated,
    .full_sync = full_sync,
    .barrier_sync = barrier_sync,
    .sync = plain_sync,
    .reserve = reserve,
    .punch = punch,
    .rename_exclusive = rename_exclusive,
    .mount = jdb_bsd_statfs,
    .device = device,
};

const struct jdb_macos_calls *jdb_macos = &calls;

void jdb_platform_keep_from_children(void *map, size_t size) {
    minherit(map, size, VM_INHERIT_NONE);
}

/* ---- waits for a time: conditions know no monotonic clock here ------------------------------ */

void jdb_os_clock_cond_init(pthread_cond_t *condition) { pthread_cond_init(condition, NULL); }

void jdb_os_clock_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns) {
    int64_t rest = until_ns - jdb_os_now();
    if (rest < 0) rest = 0;
    struct timespec limit = {rest / 1000000000, rest % 1000000000};
    pthread_cond_timedwait_relative_np(condition, lock, &limit);
}
