/* os_posix.h: what os_posix.c and the POSIX platforms (os_linux.c, ...) need of each other. */
#ifndef JDB_OS_POSIX_H
#define JDB_OS_POSIX_H

#include <sys/stat.h>

#include "os.h"

/* The platform's: the same results as jdb_os_perform. */
int64_t jdb_platform_open(jdb_op *op);
int64_t jdb_platform_preallocate(jdb_op *op);
int64_t jdb_platform_sync(int fd, int data_only);
int64_t jdb_platform_rename_noreplace(const char *from, const char *to);
void jdb_platform_keep_from_children(void *map, size_t size);
int64_t jdb_platform_device_size(int fd);

/* os_posix.c */
int64_t jdb_posix_write_zeros(jdb_file *file, uint64_t from, uint64_t to);
void jdb_posix_stat(const struct stat *st, jdb_stat *out);

#endif
