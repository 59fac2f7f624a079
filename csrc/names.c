/* names.c: changes of names that take several steps, in the one order that is safe. What makes a
 * name durable is a sync of the directory that holds it, so each call that changes names can sync
 * every directory it touched. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "os.h"

struct names {
    const struct jdb_calls *calls;
    void *context;
};

static int is_separator(const struct jdb_calls *calls, char c) {
    return c && strchr(calls->separators, c) != NULL;
}

size_t jdb_names_root(const char *path) { return path[0] == '/'; }

static int64_t sync_path(const struct names *n, const char *path) {
    int64_t dir = n->calls->open_directory(n->context, path);
    if (dir < 0) return dir;
    int64_t r = n->calls->sync(n->context, dir);
    n->calls->close(n->context, dir);
    return r;
}

/* To be freed; NULL: no memory. */
static char *copy_of(const char *text, size_t len) {
    char *copy = malloc(len + 1);
    if (!copy) return NULL;
    memcpy(copy, text, len);
    copy[len] = 0;
    return copy;
}

/* The directory that holds the last name of a path; to be freed. NULL: no memory. */
static char *parent_of(const struct jdb_calls *calls, const char *path) {
    size_t len = strlen(path), root = calls->root_length(path);
    while (len > root && is_separator(calls, path[len - 1])) len--;
    while (len > root && !is_separator(calls, path[len - 1])) len--;
    while (len > root && is_separator(calls, path[len - 1])) len--;
    return len ? copy_of(path, len) : copy_of(".", 1);
}

int64_t jdb_names_open_parent(const struct jdb_calls *calls, void *context, const char *path) {
    char *parent = parent_of(calls, path);
    if (!parent) return -ENOMEM;
    int64_t dir = calls->open_directory(context, parent);
    free(parent);
    return dir;
}

int64_t jdb_names_sync_parent(const struct jdb_calls *calls, void *context, int64_t dir,
                              int64_t r) {
    if (dir < 0) return r;
    if (r == 0) r = calls->sync(context, dir);
    calls->close(context, dir);
    return r;
}

/* Syncs a directory on *device (0: on any). 1: done; 0: it is on another one. */
static int64_t sync_level(const struct names *n, const char *path, uint64_t *device) {
    int64_t dir = n->calls->open_directory(n->context, path);
    if (dir < 0) return dir;
    uint64_t here = 0;
    int64_t r = n->calls->device_of(n->context, dir, &here);
    if (r == 0 && (*device == 0 || *device == here)) {
        *device = here;
        r = n->calls->sync(n->context, dir);
        if (r == 0) r = 1;
    }
    n->calls->close(n->context, dir);
    return r;
}

/* A directory that was there may have been made a moment ago by another task or process, and not
 * be durable yet: every level of the path is synced, up to where its file system is mounted. One
 * that may not be read and has nothing of this call in it was not made a moment ago. `made` is the
 * length of the first level that this call made. */
static int64_t sync_levels(const struct names *n, const char *path, size_t made) {
    uint64_t device = 0;
    char *level = copy_of(path, strlen(path));
    int64_t r = level ? sync_level(n, level, &device) : -ENOMEM;
    while (r == 1) {
        char *parent = parent_of(n->calls, level);
        r = parent ? sync_level(n, parent, &device) : -ENOMEM;
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
static int64_t make_directories(const struct names *n, char *path, int durable) {
    size_t made = strlen(path);
    int64_t r = n->calls->make_directory(n->context, path);
    if (r == -ENOENT && path[0]) {
        for (char *slash = path + n->calls->root_length(path); *slash; slash++) {
            char separator = *slash;
            if (!is_separator(n->calls, separator) || slash == path) continue;
            if (is_separator(n->calls, slash[-1])) continue;
            *slash = 0;
            r = n->calls->make_directory(n->context, path);
            *slash = separator;
            if (r < 0) return r;
            if (r == 1 && (size_t)(slash - path) < made) made = (size_t)(slash - path);
        }
        r = n->calls->make_directory(n->context, path);
    }
    if (r < 0) return r;
    return durable ? sync_levels(n, path, made) : 0;
}

/* The directories are opened before the name is changed, as that may be refused. */
static int64_t rename_path(const struct names *n, const struct jdb_detail *d) {
    const struct jdb_calls *c = n->calls;
    int noreplace = (d->flags & JDB_RENAME_NOREPLACE) != 0;
    if (!(d->flags & JDB_NAME_DURABLE))
        return c->rename(n->context, JDB_HERE, d->path, d->path2, noreplace);
    char *from_path = parent_of(c, d->path), *to_path = parent_of(c, d->path2);
    int64_t r = from_path && to_path ? 0 : -ENOMEM, from = -1, to = -1;
    if (r == 0 && (to = c->open_directory(n->context, to_path)) < 0) r = to;
    if (r == 0 && strcmp(from_path, to_path) != 0 &&
        (from = c->open_directory(n->context, from_path)) < 0)
        r = from;
    if (r == 0) r = c->rename(n->context, JDB_HERE, d->path, d->path2, noreplace);
    /* The new name first: a crash in between leaves both rather than none. */
    r = jdb_names_sync_parent(c, n->context, to, r);
    r = jdb_names_sync_parent(c, n->context, from, r);
    free(from_path);
    free(to_path);
    return r;
}

static int64_t remove_path(const struct names *n, const struct jdb_detail *d) {
    int64_t parent = -1;
    if (d->flags & JDB_NAME_DURABLE) {
        parent = jdb_names_open_parent(n->calls, n->context, d->path);
        if (parent < 0) return parent;
    }
    int64_t r = n->calls->remove(n->context, JDB_HERE, d->path);
    return jdb_names_sync_parent(n->calls, n->context, parent, r);
}

/* ---- atomic_write --------------------------------------------------------------------------- */

/* Old content or new content after any crash: the new file is durable before it gets the name,
 * and the name is durable before success is told. Until it has its permissions nobody else may
 * read it. */
static int64_t replace(const struct names *n, int64_t dir, const char *name,
                       const struct jdb_detail *d) {
    const struct jdb_calls *c = n->calls;
    char beside[300];
    struct jdb_owner old;
    int64_t regular = c->look_at(n->context, dir, name, &old);
    if (regular < 0) return regular;
    int64_t file =
        c->make_beside(n->context, dir, name, regular ? 0600 : 0666, beside, sizeof beside);
    if (file < 0) return file;
    int64_t r = c->write(n->context, file, d->data, d->data_len);
    if (r >= 0 && regular) r = c->take_over(n->context, file, &old);
    if (r >= 0) r = c->sync(n->context, file);
    int64_t closed = c->close(n->context, file);
    if (r >= 0) r = closed;
    if (r >= 0) r = c->rename(n->context, dir, beside, name, 0);
    if (r < 0) {
        c->remove(n->context, dir, beside);
        return r;
    }
    return c->sync(n->context, dir);
}

static int64_t atomic_write(const struct names *n, const struct jdb_detail *d) {
    const char *root = d->path + n->calls->root_length(d->path);
    const char *name = d->path + strlen(d->path);
    while (name > root && !is_separator(n->calls, name[-1])) name--;
    if (!name[0]) return d->path[0] ? -EISDIR : -ENOENT;
    char *parent = parent_of(n->calls, d->path);
    if (!parent) return -ENOMEM;
    int64_t dir = n->calls->open_directory(n->context, parent);
    int64_t r = dir < 0 ? dir : replace(n, dir, name, d);
    if (dir >= 0) n->calls->close(n->context, dir);
    free(parent);
    return r;
}

int64_t jdb_names_perform(const struct jdb_calls *calls, void *context, jdb_op *op) {
    struct names n = {calls, context};
    struct jdb_detail *d = op->detail;
    switch ((jdb_code)op->code) {
    case JDB_PATH_MKDIR: return make_directories(&n, d->path, (d->flags & JDB_NAME_DURABLE) != 0);
    case JDB_PATH_RENAME: return rename_path(&n, d);
    case JDB_PATH_REMOVE: return remove_path(&n, d);
    case JDB_PATH_SYNC_DIR: return sync_path(&n, d->path);
    case JDB_PATH_ATOMIC_WRITE: return atomic_write(&n, d);
    default: return -ENOSYS;
    }
}
