/* os_linux_evidence.c: how durable a flush is here, from what the kernel shows: mountinfo, and the
 * queue attributes of every device below the file system. Evidence that is missing never makes a
 * class better. Nothing is remembered: attributes change, device numbers are reused. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "os_posix.h"

static void say(jdb_evidence *e, const char *text, const char *detail) {
    size_t used = strlen(e->reasons);
    snprintf(e->reasons + used, sizeof e->reasons - used, "%s%s%s", used ? "\n" : "", text, detail);
}

/* A block device is none: the system would tell of the one that holds its node, a tmpfs. */
void jdb_linux_file_system(int fd, int device, char *name, size_t size) {
    static const struct {
        unsigned long magic;
        const char *name;
    } known[] = {
        {0xef53, "ext4"},      {0x58465342, "xfs"},      {0x9123683e, "btrfs"},
        {0x01021994, "tmpfs"}, {0x794c7630, "overlay"},  {0x6969, "nfs"},
        {0x65735546, "fuse"},  {0xf2f52010, "f2fs"},     {0x2fc12fc1, "zfs"},
        {0x4d44, "vfat"},      {0x01021997, "9p"},       {0xff534d42, "cifs"},
        {0x858458f6, "ramfs"}, {0xca451a4e, "bcachefs"},
    };
    struct statfs fs;
    snprintf(name, size, device ? "block device" : "unknown");
    if (device || fstatfs(fd, &fs) != 0) return;
    unsigned long magic = (unsigned long)fs.f_type & 0xffffffffu;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].magic == magic) {
            snprintf(name, size, "%s", known[i].name);
            return;
        }
    snprintf(name, size, "type 0x%lx", magic);
}

/* ---- the mount ------------------------------------------------------------------------------ */

/* The mount by its number: device numbers do not tell on btrfs, whose subvolumes have their own. */
static int mount_id(int fd) {
    char path[64], line[128];
    int id = -1;
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "mnt_id: %d", &id) == 1) break;
    if (f) fclose(f);
    return id;
}

static int has_option(const char *options, const char *option) {
    size_t len = strlen(option);
    for (const char *p = options; p && *p; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, option, len) == 0 && (p[len] == ',' || p[len] == 0)) return 1;
    }
    return 0;
}

/* A line of mountinfo: id parent maj:min root point options ... - type source options. */
static int read_mount(const char *line, int wanted, jdb_evidence *e, char *source, size_t size) {
    int id;
    char from[256], options[1024], more[2048];
    const char *rest = strstr(line, " - ");
    if (!rest) return 0;
    if (sscanf(line, "%d %*d %*s %*s %*s %1023s", &id, options) != 2 || id != wanted) return 0;

    if (sscanf(rest + 3, "%*s %255s %2047s", from, more) != 2) return 0;
    snprintf(source, size, "%s", from);
    snprintf(e->mount_options, sizeof e->mount_options, "%.100s,%.150s", options, more);
    e->no_barrier = has_option(more, "nobarrier") || has_option(more, "barrier=0");
    return 1;
}

static void find_mount(int fd, jdb_evidence *e, char *source, size_t size) {
    int id = mount_id(fd);
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    source[0] = 0;
    if (!f) return;
    while (getline(&line, &room, f) > 0)
        if (read_mount(line, id, e, source, size)) break;
    free(line);
    fclose(f);
}

/* ---- the devices ---------------------------------------------------------------------------- */

static int read_text(const char *directory, const char *name, char *text, size_t size) {
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%.3000s/%.900s", directory, name);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    size_t n = fread(text, 1, size - 1, f);
    fclose(f);
    while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' ')) n--;
    text[n] = 0;
    return n > 0;
}

static uint32_t read_count(const char *directory, const char *name) {
    char text[32];
    return read_text(directory, name, text, sizeof text) ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

/* One whole disk. A cache anywhere below makes the answer "volatile". */
static void read_disk(const char *directory, jdb_evidence *e) {
    char text[64];
    if (!read_text(directory, "queue/write_cache", text, sizeof text)) return;
    int cached = strcmp(text, "write back") == 0;
    if (e->volatile_cache < 0 || cached) e->volatile_cache = cached;
    int fua = (int)read_count(directory, "queue/fua");
    if (e->fua < 0 || !fua) e->fua = fua;
    uint32_t block = read_count(directory, "queue/logical_block_size");
    if (block > e->logical_block) e->logical_block = block;
    block = read_count(directory, "queue/physical_block_size");
    if (block > e->physical_block) e->physical_block = block;
}

static void walk_device(const char *directory, jdb_evidence *e, int depth);

/* Device mapper and md: the disks below are what counts. 0: there are none. */
static int walk_slaves(const char *directory, jdb_evidence *e, int depth) {
    char path[PATH_MAX];
    int found = 0;
    snprintf(path, sizeof path, "%.3000s/slaves", directory);
    DIR *dir = opendir(path);
    if (!dir) return 0;
    struct dirent *entry;
    while (depth < 8 && (entry = readdir(dir))) {
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%.3000s/slaves/%.255s", directory, entry->d_name);
        walk_device(path, e, depth + 1);
        found = 1;
    }
    closedir(dir);
    return found;
}

static void walk_device(const char *directory, jdb_evidence *e, int depth) {
    char text[PATH_MAX];
    if (read_text(directory, "partition", text, sizeof text)) {
        /* A partition's attributes are its disk's. */
        snprintf(text, sizeof text, "%.3000s/..", directory);
        walk_device(text, e, depth + 1);
        return;
    }
    if (walk_slaves(directory, e, depth))
        say(e, "a stacked device: the disks below were asked", "");
    if (read_text(directory, "loop/backing_file", text, sizeof text))
        say(e, "a loop device: as durable as the file system of its file ", text);
    read_disk(directory, e);
}

static void find_device(dev_t dev, const char *source, jdb_evidence *e) {
    char path[128], real[PATH_MAX];
    struct stat st;
    /* btrfs and others have device numbers of their own: the mount's source tells the disk. */
    if (major(dev) == 0 && source[0] == '/' && stat(source, &st) == 0 && S_ISBLK(st.st_mode))
        dev = st.st_rdev;
    if (major(dev) == 0) return;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(dev), minor(dev));
    if (!realpath(path, real)) return;
    const char *name = strrchr(real, '/');
    snprintf(e->device, sizeof e->device, "%.63s", name ? name + 1 : real);
    walk_device(path, e, 0);
}

static void least_requests(const char *directory, uint32_t *least) {
    uint32_t n = read_count(directory, "queue/nr_requests");
    if (n && (*least == 0 || n < *least)) *least = n;
}

/* Asked at every open, so the last answer is kept; it is no promise that an old one could break. */
uint32_t jdb_linux_requests(uint32_t major_number, uint32_t minor_number) {
    static _Atomic uint64_t last; /* device number and answer */
    char path[128];
    uint32_t key = major_number << 20 | minor_number, least = 0;
    if (major_number == 0) return 0;
    uint64_t known = last;
    if (known >> 32 == key) return (uint32_t)known;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major_number, minor_number);
    least_requests(path, &least);
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u/..", major_number, minor_number);
    if (!least) least_requests(path, &least); /* a partition's are its disk's */
    last = (uint64_t)key << 32 | least;
    return least;
}

/* A partition's are its disk's. */
int jdb_linux_has_poll_queues(uint32_t major_number, uint32_t minor_number) {
    char path[128];
    if (major_number == 0) return 0;
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major_number, minor_number);
    if (read_count(path, "queue/io_poll")) return 1;
    return (int)read_count(path, "../queue/io_poll");
}

/* ---- the class ------------------------------------------------------------------------------ */

static int one_of(const char *name, const char *const *list) {
    for (; *list; list++)
        if (strcmp(name, *list) == 0) return 1;
    return 0;
}

/* What a flush is worth, weakest reason first. */
static const char *classify(const char *file_system, jdb_evidence *e) {
    static const char *const unsafe[] = {"tmpfs", "ramfs", "nfs",     "cifs", "9p",
                                         "vfat",  "fuse",  "overlay", NULL};
    static const char *const journaled[] = {"ext4", "xfs", NULL};
    if (one_of(file_system, unsafe)) {
        say(e, "no durable storage is promised by this file system: ", file_system);
        return "unsafe";
    }
    if (e->no_barrier) {
        say(e, "mounted without write barriers: flushes do not reach the device", "");
        return "unsafe";
    }
    if (e->volatile_cache < 0) {
        say(e, "the device does not tell whether it has a volatile write cache", "");
        return "unknown";
    }
    say(e,
        e->volatile_cache
            ? "the device has a volatile write cache (write back), which flushes empty"
            : "the device reports no volatile write cache (write through)",
        e->fua == 1 ? "; single writes can pass it (FUA)" : "");
    if (!one_of(file_system, journaled)) {
        say(e, "not examined for this file system: ", file_system);
        return "unverified";
    }
    if (strstr(e->reasons, "loop device") || strncmp(e->device, "vd", 2) == 0 ||
        strncmp(e->device, "xvd", 3) == 0) {
        say(e, "a virtual device: what its host does on a flush cannot be seen", "");
        return "unverified";
    }
    /* "write through" may be a claim over a cache that the system cannot see. */
    return e->volatile_cache ? "flush-required" : "unverified";
}

int64_t jdb_platform_evidence(int fd, const char *file_system, jdb_evidence *e) {
    char source[256];
    struct stat st;
    memset(e, 0, sizeof *e);
    e->volatile_cache = e->fua = -1;
    e->class_name = "unknown";
    if (fstat(fd, &st) != 0) return -errno;
    dev_t dev = S_ISBLK(st.st_mode) ? st.st_rdev : st.st_dev;
    if (!S_ISBLK(st.st_mode)) find_mount(fd, e, source, sizeof source);
    else source[0] = 0;
    find_device(dev, source, e);
    e->class_name = classify(S_ISBLK(st.st_mode) ? "ext4" : file_system, e);
    return 0;
}
