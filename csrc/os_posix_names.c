/* os_posix_names.c: questions about names, and the calls that changes of names are made of. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "os_posix.h"

static int64_t path_exists(jdb_op *op) {
    struct stat st;
    if (stat(op->detail->path, &st) == 0) return 1;
    return errno == ENOENT || errno == ENOTDIR ? 0 : -errno;
}

static int64_t path_stat(jdb_op *op) {
    struct stat st;
    if (stat(op->detail->path, &st) != 0) return -errno;
    jdb_posix_stat(&st, &op->detail->stat);
    return st.st_size;
}

static int is_regular(DIR *dir, const struct dirent *entry) {
    struct stat st;
    if (entry->d_type != DT_UNKNOWN) return entry->d_type == DT_REG;
    return fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorts the NUL-separated names by bytes, the same order everywhere. */
static int64_t sort_names(struct jdb_detail *d) {
    if (d->names_count < 2) return 0;
    char **order = malloc(d->names_count * sizeof *order);
    char *sorted = malloc(d->names_size);
    if (order && sorted) {
        char *p = d->names;
        for (size_t i = 0; i < d->names_count; i++, p += strlen(p) + 1) order[i] = p;
        qsort(order, d->names_count, sizeof *order, by_name);
        p = sorted;
        for (size_t i = 0; i < d->names_count; i++) p = stpcpy(p, order[i]) + 1;
        free(d->names);
        d->names = sorted;
        sorted = NULL;
    }
    int64_t r = sorted || !order ? -ENOMEM : 0;
    free(order);
    free(sorted);
    return r;
}

static int64_t add_name(struct jdb_detail *d, size_t *room, const char *name) {
    size_t len = strlen(name) + 1;
    if (d->names_size + len > *room) {
        size_t more = *room ? 2 * *room : 4096;
        char *grown = realloc(d->names, more);
        if (!grown) return -ENOMEM;
        d->names = grown;
        *room = more;
    }
    memcpy(d->names + d->names_size, name, len);
    d->names_size += len;
    d->names_count++;
    return 0;
}

static int64_t path_ls(jdb_op *op) {
    struct jdb_detail *d = op->detail;
    DIR *dir = opendir(d->path);
    if (!dir) return -errno;
    size_t room = 0;
    int64_t r = 0;
    while (r == 0) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry) {
            r = -errno;
            break;
        }
        if (is_regular(dir, entry)) r = add_name(d, &room, entry->d_name);
    }
    closedir(dir);
    return r == 0 ? sort_names(d) : r;
}

static int64_t path_space(jdb_op *op) {
    struct statvfs vfs;
    if (statvfs(op->detail->path, &vfs) != 0) return -errno;
    op->detail->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    op->detail->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    return 0;
}

/* ---- the calls that changes are made of ----------------------------------------------------- */

static int64_t make_directory(void *context, const char *path) {
    struct stat st;
    (void)context;
    if (mkdir(path, 0777) == 0) return 1;
    int error = errno;
    if (error != EEXIST && error != EISDIR && error != EROFS && error != EACCES) return -error;
    /* Nothing behind the name: a link to nowhere. Else what stands in the way is the answer. */
    if (stat(path, &st) != 0) return errno == ENOENT ? -error : -errno;
    if (S_ISDIR(st.st_mode)) return 0;
    return error == EEXIST ? -ENOTDIR : -error;
}

static int64_t open_directory(void *context, const char *path) {
    (void)context;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int64_t device_of(void *context, int64_t handle, uint64_t *device) {
    struct stat st;
    (void)context;
    if (fstat((int)handle, &st) != 0) return -errno;
    *device = (uint64_t)st.st_dev;
    return 0;
}

static int64_t sync_handle(void *context, int64_t handle) {
    (void)context;
    return jdb_platform_sync((int)handle, 0, NULL);
}

static int64_t close_handle(void *context, int64_t handle) {
    (void)context;
    return close((int)handle) == 0 || errno == EINTR ? 0 : -errno;
}

static int directory_fd(int64_t dir) { return dir == JDB_HERE ? AT_FDCWD : (int)dir; }

static int64_t rename_name(void *context, int64_t dir, const char *from, const char *to,
                           int noreplace) {
    int fd = directory_fd(dir);
    (void)context;
    if (noreplace) return jdb_platform_rename_noreplace(fd, from, to);
    return renameat(fd, from, fd, to) == 0 ? 0 : -errno;
}

/* Some systems say EPERM for a directory; one name for one mistake. */
static int64_t remove_name(void *context, int64_t dir, const char *name) {
    struct stat st;
    int fd = directory_fd(dir);
    (void)context;
    if (unlinkat(fd, name, 0) == 0) return 0;
    int error = errno;
    int directory =
        error == EPERM && fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
    return directory ? -EISDIR : -error;
}

/* A name in the same directory that nobody else makes: pid, counter, clock. O_EXCL decides. */
static int64_t make_beside(void *context, int64_t dir, const char *name, unsigned mode, char *made,
                           size_t size) {
    static atomic_uint counter;
    int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
    (void)context;
    for (int tries = 0; tries < 100; tries++) {
        unsigned n = atomic_fetch_add(&counter, 1);
        snprintf(made, size, ".%.200s.%ld-%u-%llx", name, (long)getpid(), n,
                 (unsigned long long)jdb_os_now());
        int fd = openat((int)dir, made, flags, mode);
        if (fd >= 0 || errno != EEXIST) return fd < 0 ? -errno : fd;
    }
    return -EEXIST;
}

static int64_t write_all(void *context, int64_t file, const void *from, size_t len) {
    const char *data = from;
    (void)context;
    while (len > 0) {
        ssize_t n = write((int)file, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -ENOSPC;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int64_t look_at(void *context, int64_t dir, const char *name, struct jdb_owner *owner) {
    struct stat st;
    (void)context;
    if (fstatat((int)dir, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st.st_mode)) return -EISDIR;
    owner->mode = (uint32_t)st.st_mode & 07777;
    owner->user = (uint32_t)st.st_uid;
    owner->group = (uint32_t)st.st_gid;
    return S_ISREG(st.st_mode);
}

/* Where the owner cannot be kept, what was granted to that owner and group is not granted to
 * ours. */
static int64_t take_over(void *context, int64_t file, const struct jdb_owner *old) {
    int fd = (int)file;
    mode_t mode = old->mode;
    (void)context;
    if (fchown(fd, old->user, old->group) != 0) {
        if (errno != EPERM) return -errno;
        mode &= 0777;
        if (fchown(fd, (uid_t)-1, old->group) != 0) mode &= 0707u | (mode & 07u) << 3;
    }
    return fchmod(fd, mode) == 0 ? 0 : -errno;
}

const struct jdb_calls jdb_posix_calls = {
    .separators = "/",
    .root_length = jdb_names_root,
    .make_directory = make_directory,
    .open_directory = open_directory,
    .device_of = device_of,
    .make_beside = make_beside,
    .look_at = look_at,
    .take_over = take_over,
    .write = write_all,
    .sync = sync_handle,
    .close = close_handle,
    .rename = rename_name,
    .remove = remove_name,
};

int64_t jdb_posix_name(jdb_op *op) {
    switch ((jdb_code)op->code) {
    case JDB_PATH_EXISTS: return path_exists(op);
    case JDB_PATH_LS: return path_ls(op);
    case JDB_PATH_SIZE:
    case JDB_PATH_STAT: return path_stat(op);
    case JDB_PATH_SPACE: return path_space(op);
    case JDB_PATH_PROBE: return jdb_platform_probe(op);
    default: return jdb_names_perform(&jdb_posix_calls, NULL, op);
    }
}
