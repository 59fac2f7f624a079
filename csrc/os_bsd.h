/* os_bsd.h: what macOS and FreeBSD share and Linux has not. */
#ifndef JDB_OS_BSD_H
#define JDB_OS_BSD_H

#include "os_posix.h"

/* What statfs tells of the file system below a descriptor. */
struct jdb_bsd_mount {
    char file_system[32]; /* "apfs" */
    char device[64];      /* "/dev/disk3s5" */
    uint32_t block_size;
    int async; /* mounted so that metadata may be written at any time */
};

/* os_bsd_statfs.c: 0 or -errno. */
int jdb_bsd_statfs(int fd, struct jdb_bsd_mount *mount);

/* os_bsd_common.c */
void jdb_bsd_set_alignment(jdb_file_info *info, uint32_t align, const char *source);
/* The class that these words support. `journaled`: names, the last NULL, of file systems whose
 * flushes are known to reach the device; `asks`: what a flush asks of it there. */
void jdb_bsd_classify(const struct jdb_bsd_mount *mount, const char *const *journaled,
                      const char *asks, jdb_evidence *evidence);

#endif
