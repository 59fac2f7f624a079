/* os_bsd_statfs.c: statfs as macOS and the BSDs have it. */
#include "os_bsd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/param.h>

int jdb_bsd_statfs(int fd, struct jdb_bsd_mount *mount) {
    struct statfs fs;
    memset(mount, 0, sizeof *mount);
    int r;
    do r = fstatfs(fd, &fs);
    while (r != 0 && errno == EINTR);
    if (r != 0) return -errno;
    snprintf(mount->file_system, sizeof mount->file_system, "%.31s", fs.f_fstypename);
    snprintf(mount->device, sizeof mount->device, "%.63s", fs.f_mntfromname);
    mount->block_size = (uint32_t)fs.f_bsize;
    mount->async = (fs.f_flags & MNT_ASYNC) != 0;
    return 0;
}
