/* os_bsd_common.c: what macOS and FreeBSD share and Linux has not: a probe without nameless files,
 * evidence from what statfs tells, locks whose holder cannot be asked for. */
#include "os_bsd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The system decides by itself: no call asks for it. */
void jdb_platform_prefer_large_pages(void *map, size_t size) {
    (void)map;
    (void)size;
}

void jdb_bsd_set_alignment(jdb_file_info *info, uint32_t align, const char *source) {
    info->memory_align = info->read_align = info->write_align = align;
    info->align_source = source;
}

char *jdb_platform_lock_holder(int fd) {
    (void)fd;
    return strdup("another open file holds a lock on it, shared or exclusive");
}

/* ---- evidence ------------------------------------------------------------------------------- */

static int one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (strcmp(name, *list) == 0) return 1;
    return 0;
}

static void say(jdb_evidence *e, const char *text, const char *detail) {
    size_t used = strlen(e->reasons);
    snprintf(e->reasons + used, sizeof e->reasons - used, "%s%s%s", used ? "\n" : "", text, detail);
}

/* No class here is better than "unverified": no attribute of the device is asked for. */
void jdb_bsd_classify(const struct jdb_bsd_mount *mount, const char *const *journaled,
                      const char *asks, jdb_evidence *e) {
    static const char *const unsafe[] = {"nfs",   "smbfs",   "afpfs",   "webdav",
                                         "tmpfs", "fusefs",  "macfuse", "msdos",
                                         "exfat", "msdosfs", "unionfs", NULL};
    memset(e, 0, sizeof *e);
    e->volatile_cache = e->fua = -1;
    e->class_name = "unknown";
    snprintf(e->device, sizeof e->device, "%s", mount->device);
    if (mount->async) snprintf(e->mount_options, sizeof e->mount_options, "async");
    if (one_of(mount->file_system, unsafe)) {
        say(e, "no durable storage is promised by this file system: ", mount->file_system);
        e->class_name = "unsafe";
    } else if (mount->async) {
        say(e, "mounted async: names may be lost in any order", "");
        e->class_name = "unsafe";
    } else if (one_of(mount->file_system, journaled)) {
        say(e, asks, "; whether the device obeys cannot be seen");
        e->class_name = "unverified";
    } else {
        say(e, "not examined for this file system: ", mount->file_system);
    }
}

/* ---- probe ---------------------------------------------------------------------------------- */

/* A file in that directory whose name is gone at once. */
static int open_nameless(const char *directory) {
    static const char name[] = "/.jdbfs-probe-XXXXXX";
    size_t len = strlen(directory);
    char *path = malloc(len + sizeof name);
    if (!path) return -ENOMEM;
    memcpy(path, directory, len);
    memcpy(path + len, name, sizeof name);
    int fd = mkostemp(path, O_CLOEXEC);
    int r = fd < 0 ? -errno : fd;
    if (fd >= 0) unlink(path);
    free(path);
    return r;
}

static int open_there(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    return fd < 0 ? -errno : fd;
}

/* Looks at a file, or at one made for the question in a directory. */
int64_t jdb_platform_probe(jdb_op *op) {
    struct jdb_detail *d = op->detail;
    jdb_file_info *info = &d->info;
    struct stat st;
    if (stat(d->path, &st) != 0) return -errno;
    int make = S_ISDIR(st.st_mode);
    if (!make && !S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) return -EINVAL;
    int fd = make ? open_nameless(d->path) : open_there(d->path);
    int unmade = make && fd < 0;
    if (unmade) fd = open_there(d->path);
    if (fd < 0) return fd;
    info->device = S_ISBLK(st.st_mode);
    info->policy = JDB_DIRECT_PREFER;
    info->file_system = d->file_system;
    info->direct = !unmade && jdb_platform_set_flags(fd, 0, 1, info) == 0;
    jdb_platform_describe(fd, info, d->file_system, sizeof d->file_system);
    if (unmade) info->direct_reason = "unknown: no file could be made here";
    jdb_platform_evidence(fd, d->file_system, &info->evidence);
    close(fd);
    return 0;
}
