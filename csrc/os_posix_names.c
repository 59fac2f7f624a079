/* os_posix_names.c: operations on names. What makes a name durable is a sync of the directory that
 * holds it, so each call that changes names can sync every directory it touched. */
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

static int64_t sync_path(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int64_t r = jdb_platform_sync(fd, 0);
    close(fd);
    return r;
}

/* The directory that holds the last name of a path; to be freed. NULL: no memory. */
static char *parent_of(const char *path) {
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') len--;
    while (len > 0 && path[len - 1] != '/') len--;
    while (len > 1 && path[len - 1] == '/') len--;
    return len ? strndup(path, len) : strdup(".");
}

int jdb_posix_open_parent(const char *path) {
    char *parent = parent_of(path);
    if (!parent) return -ENOMEM;
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) fd = -errno;
    free(parent);
    return fd;
}

int64_t jdb_posix_sync_parent(int parent, int64_t r) {
    if (parent < 0) return r;
    if (r == 0) r = jdb_platform_sync(parent, 0);
    close(parent);
    return r;
}

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

/* 1: made now; 0: it was there. */
static int64_t make_directory(const char *path) {
    struct stat st;
    if (mkdir(path, 0777) == 0) return 1;
    int error = errno;
    if (error != EEXIST && error != EISDIR && error != EROFS && error != EACCES) return -error;
    /* Nothing behind the name: a link to nowhere. Else what stands in the way is the answer. */
    if (stat(path, &st) != 0) return errno == ENOENT ? -error : -errno;
    if (S_ISDIR(st.st_mode)) return 0;
    return error == EEXIST ? -ENOTDIR : -error;
}

/* Syncs a directory on *device (0: on any). 1: done; 0: it is on another one. */
static int64_t sync_level(const char *path, dev_t *device) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return -errno;
    int64_t r = fstat(fd, &st) == 0 ? 0 : -errno;
    if (r == 0 && (*device == 0 || *device == st.st_dev)) {
        *device = st.st_dev;
        r = jdb_platform_sync(fd, 0);
        if (r == 0) r = 1;
    }
    close(fd);
    return r;
}

/* A directory that was there may have been made a moment ago by another task or process, and not
 * be durable yet: every level of the path is synced, up to where its file system is mounted. One
 * that may not be read and has nothing of this call in it was not made a moment ago. `made` is the
 * length of the first level that this call made. */
static int64_t sync_levels(const char *path, size_t made) {
    dev_t device = 0;
    char *level = strdup(path);
    int64_t r = level ? sync_level(level, &device) : -ENOMEM;
    while (r == 1) {
        char *parent = parent_of(level);
        r = parent ? sync_level(parent, &device) : -ENOMEM;
        if (r == -EACCES && strlen(level) < made) r = 0;
        int top = parent && (strcmp(parent, level) == 0 || strcmp(parent, ".") == 0);
        free(level);
        level = parent;
        if (top && r == 1) r = 0;
    }
    free(level);
    return r;
}

/* With parents. The whole path is tried first: mostly only its last name is missing. */
static int64_t path_mkdir(jdb_op *op) {
    char *path = op->detail->path;
    size_t made = strlen(path);
    int64_t r = make_directory(path);
    if (r == -ENOENT && path[0]) {
        for (char *slash = path + 1; *slash; slash++) {
            if (*slash != '/' || slash[-1] == '/') continue;
            *slash = 0;
            r = make_directory(path);
            *slash = '/';
            if (r < 0) return r;
            if (r == 1 && (size_t)(slash - path) < made) made = (size_t)(slash - path);
        }
        r = make_directory(path);
    }
    if (r < 0) return r;
    return op->detail->flags & JDB_NAME_DURABLE ? sync_levels(path, made) : 0;
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

static int64_t path_rename(jdb_op *op) {
    const struct jdb_detail *d = op->detail;
    int from = -1, to = -1;
    if (d->flags & JDB_NAME_DURABLE) {
        if ((from = jdb_posix_open_parent(d->path)) < 0) return from;
        if ((to = jdb_posix_open_parent(d->path2)) < 0) return jdb_posix_sync_parent(from, to);
    }
    int64_t r = d->flags & JDB_RENAME_NOREPLACE
                    ? jdb_platform_rename_noreplace(AT_FDCWD, d->path, d->path2)
                : rename(d->path, d->path2) == 0 ? 0
                                                 : -errno;
    /* The new name first: a crash in between leaves both rather than none. */
    r = jdb_posix_sync_parent(to, r);
    return jdb_posix_sync_parent(from, r);
}

/* Some systems say EPERM for a directory; one name for one mistake. */
static int64_t path_remove(jdb_op *op) {
    struct stat st;
    const struct jdb_detail *d = op->detail;
    int parent = d->flags & JDB_NAME_DURABLE ? jdb_posix_open_parent(d->path) : -1;
    if (parent < 0 && (d->flags & JDB_NAME_DURABLE)) return parent;
    int error = unlink(d->path) == 0 ? 0 : errno;
    if (error == EPERM && lstat(d->path, &st) == 0 && S_ISDIR(st.st_mode)) error = EISDIR;
    return jdb_posix_sync_parent(parent, -error);
}

static int64_t path_space(jdb_op *op) {
    struct statvfs vfs;
    if (statvfs(op->detail->path, &vfs) != 0) return -errno;
    op->detail->free_bytes = (uint64_t)vfs.f_bavail * vfs.f_frsize;
    op->detail->total_bytes = (uint64_t)vfs.f_blocks * vfs.f_frsize;
    return 0;
}

/* ---- atomic_write --------------------------------------------------------------------------- */

/* A name in the same directory that nobody else makes: pid, counter, clock. O_EXCL decides. */
static int make_temporary(int dir, const char *name, mode_t mode, char *temporary, size_t size) {
    static atomic_uint counter;
    for (int tries = 0; tries < 100; tries++) {
        unsigned n = atomic_fetch_add(&counter, 1);
        snprintf(temporary, size, ".%.200s.%ld-%u-%llx", name, (long)getpid(), n,
                 (unsigned long long)jdb_os_now());
        int fd = openat(dir, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    errno = EEXIST;
    return -1;
}

static int64_t write_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -errno;
        if (n == 0) return -ENOSPC;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* 1: a regular file is replaced; 0: nothing, or what has no permissions to keep (a link). */
static int64_t look_at(int dir, const char *name, struct stat *st) {
    if (fstatat(dir, name, st, AT_SYMLINK_NOFOLLOW) != 0) return errno == ENOENT ? 0 : -errno;
    if (S_ISDIR(st->st_mode)) return -EISDIR;
    return S_ISREG(st->st_mode);
}

/* What is replaced keeps its permissions, and its owner where that is allowed. Where it is not,
 * what was granted to that owner and group is not granted to ours. */
static int64_t take_over(const struct stat *old, int fd) {
    mode_t mode = old->st_mode & 07777;
    if (fchown(fd, old->st_uid, old->st_gid) != 0) {
        if (errno != EPERM) return -errno;
        mode &= 0777;
        if (fchown(fd, (uid_t)-1, old->st_gid) != 0) mode &= 0707u | (mode & 07u) << 3;
    }
    return fchmod(fd, mode) == 0 ? 0 : -errno;
}

/* Old content or new content after any crash: the new file is durable before it gets the name,
 * and the name is durable before success is told. Until it has its permissions nobody else may
 * read it. */
static int64_t replace(int dir, const char *name, const struct jdb_detail *d) {
    char temporary[300];
    struct stat old;
    int64_t regular = look_at(dir, name, &old);
    if (regular < 0) return regular;
    int fd = make_temporary(dir, name, regular ? 0600 : 0666, temporary, sizeof temporary);
    if (fd < 0) return -errno;
    int64_t r = write_all(fd, d->data, d->data_len);
    if (r == 0 && regular) r = take_over(&old, fd);
    if (r == 0) r = jdb_platform_sync(fd, 0);
    if (close(fd) != 0 && r == 0 && errno != EINTR) r = -errno;
    if (r == 0 && renameat(dir, temporary, dir, name) != 0) r = -errno;
    if (r != 0) {
        unlinkat(dir, temporary, 0);
        return r;
    }
    return jdb_platform_sync(dir, 0);
}

static int64_t path_atomic_write(jdb_op *op) {
    const struct jdb_detail *d = op->detail;
    const char *name = strrchr(d->path, '/');
    name = name ? name + 1 : d->path;
    if (!name[0]) return d->path[0] ? -EISDIR : -ENOENT;
    char *parent = parent_of(d->path);
    if (!parent) return -ENOMEM;
    int dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t r = dir < 0 ? -errno : replace(dir, name, d);
    if (dir >= 0) close(dir);
    free(parent);
    return r;
}

int64_t jdb_posix_name(jdb_op *op) {
    switch ((jdb_code)op->code) {
    case JDB_PATH_EXISTS: return path_exists(op);
    case JDB_PATH_MKDIR: return path_mkdir(op);
    case JDB_PATH_LS: return path_ls(op);
    case JDB_PATH_SIZE:
    case JDB_PATH_STAT: return path_stat(op);
    case JDB_PATH_RENAME: return path_rename(op);
    case JDB_PATH_REMOVE: return path_remove(op);
    case JDB_PATH_SYNC_DIR: return sync_path(op->detail->path);
    case JDB_PATH_SPACE: return path_space(op);
    case JDB_PATH_ATOMIC_WRITE: return path_atomic_write(op);
    case JDB_PATH_PROBE: return jdb_platform_probe(op);
    default: return -ENOSYS;
    }
}
