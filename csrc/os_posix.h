/* os_posix.h: what the POSIX files (os_posix*.c) and the platforms (os_linux*.c, ...) need of each
 * other. Results as in os.h. */
#ifndef JDB_OS_POSIX_H
#define JDB_OS_POSIX_H

#include <sys/stat.h>
#include <sys/types.h>

#include "os.h"

/* The platform's. */
int64_t jdb_platform_open(jdb_op *op);
int64_t jdb_platform_preallocate(jdb_op *op);
int64_t jdb_platform_punch(jdb_op *op);
int64_t jdb_platform_sync(int fd, int data_only);
ssize_t jdb_platform_write(const jdb_op *op, int fd, const void *data, size_t len, off_t off);
int64_t jdb_platform_rename_noreplace(int dir, const char *from, const char *to);
void jdb_platform_keep_from_children(void *map, size_t size);
int64_t jdb_platform_device_size(int fd);
int64_t jdb_platform_probe(jdb_op *op);
char *jdb_platform_lock_holder(int fd); /* words, to be freed; NULL: no memory */

/* os_posix.c */
int64_t jdb_posix_write_zeros(jdb_file *file, uint64_t from, uint64_t to);
void jdb_posix_stat(const struct stat *st, jdb_stat *out);
int64_t jdb_posix_lock(int fd, int exclusive, char **cause);

/* os_posix_names.c */
int64_t jdb_posix_name(jdb_op *op);
extern const struct jdb_calls jdb_posix_calls;

/* What the system tells about the device and the mount below fd. */
int64_t jdb_platform_evidence(int fd, const char *file_system, jdb_evidence *evidence);

/* os_linux_evidence.c */
void jdb_linux_file_system(int fd, char *name, size_t size);

#endif
