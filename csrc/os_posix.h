/* os_posix.h: what the POSIX files (os_posix*.c) and the platforms (os_linux*.c, ...) need of each
 * other. Results as in os.h. */
#ifndef JDB_OS_POSIX_H
#define JDB_OS_POSIX_H

#include <sys/stat.h>
#include <sys/types.h>

#include "os.h"

#if defined(__APPLE__) /* the same times under other names */
#define st_atim st_atimespec
#define st_mtim st_mtimespec
#define st_ctim st_ctimespec
#endif

/* The platform's. */
/* What is added to the flags of open; *optional: flags that only the file's owner may use. */
int jdb_platform_open_flags(const jdb_open *how, int *optional);
/* The descriptor's flags for transfers, and, if `direct`, past the cache. A refusal of that may say
 * why in info->direct_reason. Where info->polled cannot be, it is cleared, and info->polled_reason
 * says why. */
int64_t jdb_platform_set_flags(int fd, int flags, int direct, jdb_file_info *info);
/* The name of the file system and, as info->direct says, alignments, direct_write_unit and
 * direct_reason. */
void jdb_platform_describe(int fd, jdb_file_info *info, char *file_system, size_t size);
extern const int jdb_platform_has_durable_writes; /* 0: a flush must follow each */
int64_t jdb_platform_preallocate(jdb_op *op);
int64_t jdb_platform_punch(jdb_op *op);
/* `file` has a level of its own, see jdb_sync_level; NULL: all that the system can do. */
int64_t jdb_platform_sync(int fd, int data_only, jdb_file *file);
ssize_t jdb_platform_write(const jdb_op *op, int fd, const void *data, size_t len, off_t off);
int64_t jdb_platform_rename_noreplace(int dir, const char *from, const char *to);
void jdb_platform_keep_from_children(void *map, size_t size);
/* That the device with this number takes at once; 0: not known. */
uint32_t jdb_linux_requests(uint32_t major_number, uint32_t minor_number);
int jdb_linux_has_poll_queues(uint32_t major_number, uint32_t minor_number);
void jdb_platform_prefer_large_pages(void *map, size_t size);
int64_t jdb_platform_device_size(int fd);
int64_t jdb_platform_probe(jdb_op *op);
/* What the system tells about the device and the mount below fd. */
int64_t jdb_platform_evidence(int fd, const char *file_system, jdb_evidence *evidence);
char *jdb_platform_lock_holder(int fd); /* words, to be freed; NULL: no memory */

/* os_posix.c */
/* Zeros behind the size that the file has, up to `len`, which becomes its size. On failure the size
 * is what it was. */
int64_t jdb_posix_grow_with_zeros(jdb_file *file, uint64_t size, uint64_t len);
void jdb_posix_stat(const struct stat *st, jdb_stat *out);
int64_t jdb_posix_lock(int fd, int exclusive, char **cause);

/* os_posix_open.c */
int64_t jdb_posix_open(jdb_op *op);

/* os_posix_names.c */
int64_t jdb_posix_name(jdb_op *op);
extern const struct jdb_calls jdb_posix_calls;

/* os_linux_evidence.c */
void jdb_linux_file_system(int fd, int device, char *name, size_t size);

#endif
