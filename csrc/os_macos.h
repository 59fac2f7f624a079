/* os_macos.h: the calls of macOS that have no equal elsewhere, as a table, so that what is made of
 * them can be tested where there is no macOS. Each gives 0 or -errno; EINTR is handled inside. */
#ifndef JDB_OS_MACOS_H
#define JDB_OS_MACOS_H

#include "os_bsd.h"

struct jdb_macos_calls {
    int (*no_cache)(int fd);          /* F_NOCACHE */
    int (*no_cache_extended)(int fd); /* F_NOCACHE_EXT, macOS 15 and later */
    int (*translated)(void);          /* 1: an Intel program on Apple silicon */
    int (*full_sync)(int fd);         /* F_FULLFSYNC */
    int (*barrier_sync)(int fd);      /* F_BARRIERFSYNC */
    int (*sync)(int fd);              /* fsync */
    /* F_PREALLOCATE: `len` bytes more behind the physical end, all or none; *got of them. `keep`:
     * also after the last close, though the file is shorter. */
    int (*reserve)(int fd, int contiguous, int keep, uint64_t len, uint64_t *got);
    int (*punch)(int fd, uint64_t off, uint64_t len); /* F_PUNCHHOLE: whole blocks only */
    int (*rename_exclusive)(int dir, const char *from, const char *to); /* RENAME_EXCL */
    int (*mount)(int fd, struct jdb_bsd_mount *mount);
    int (*device)(int fd, uint32_t *block_size, uint64_t *blocks);
};

/* os_macos_calls.c: the system's. Tests put others in its place. */
extern const struct jdb_macos_calls *jdb_macos;

#endif
