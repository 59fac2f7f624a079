/* replay_disk.c: what a disk with a volatile cache has after a power cut. Safe is what had been
 * answered when a flush arrived that was answered itself; of the rest, and of the writes that were
 * under way, any sector may be there or not. */
#define _GNU_SOURCE
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CHUNK = 65536 };

static const char *file_system;
static char mount_point[4096], directory[4100];
static uint8_t *safe, *used; /* used: a byte per chunk that holds anything */
static size_t size;
static size_t applied, scanned, flushed; /* flushed: everything before this position is safe */
static int loop = -1;

static void touch(uint64_t offset, uint64_t length) {
    if (length == 0) return;
    memset(used + offset / CHUNK, 1, (offset + length - 1) / CHUNK - offset / CHUNK + 1);
}

static void make_safe(const struct event *event) {
    const struct record *record = &event->record;
    if (record->kind == RECORD_WRITE) {
        memcpy(safe + record->offset, event->data, record->length);
        touch(record->offset, record->length);
    } else if (record->kind == RECORD_ZERO) {
        memset(safe + record->offset, 0, record->extra);
    }
}

static void advance(const struct recording *recording, size_t to) {
    for (; scanned < to; scanned++) {
        const struct record *record = &recording->events[scanned].record;
        if (record->kind == RECORD_FLUSH && record->arrived > flushed) flushed = record->arrived;
    }
    for (; applied < flushed; applied++) make_safe(&recording->events[applied]);
}

/* The driver synced the file system before this mark: the flush is in the record. */
static void settle(void) {}

/* ---- the image ------------------------------------------------------------------------------ */

static void put(int image, const void *data, size_t length, uint64_t offset) {
    if (pwrite(image, data, length, (off_t)offset) != (ssize_t)length) session_die("image");
}

static void keep_some(int image, const struct event *event, struct choice *choice) {
    static const uint8_t zeros[SECTOR];
    const struct record *record = &event->record;
    int zero = record->kind == RECORD_ZERO;
    if ((!zero && record->kind != RECORD_WRITE) || !choose_one(choice)) return;
    size_t length = zero ? record->extra : record->length;
    int torn = choose_torn(choice, length);
    if (!torn && !zero) {
        put(image, event->data, length, record->offset);
        return;
    }
    for (size_t at = 0; at < length; at += SECTOR) {
        size_t part = length - at < SECTOR ? length - at : SECTOR;
        if (torn && !choose_sector(choice)) continue;
        put(image, zero ? zeros : event->data + at, part, record->offset + at);
    }
}

/* A new file for each cut: nothing that the kernel remembers of the last one is taken for it. */
static int make_image(const struct recording *recording, size_t at, struct choice *choice) {
    int image = memfd_create("powercut", MFD_CLOEXEC);
    if (image < 0 || ftruncate(image, (off_t)size) != 0) session_die("memfd");
    for (size_t i = 0; i * CHUNK < size; i++) {
        size_t left = size - i * CHUNK;
        if (used[i]) put(image, safe + i * CHUNK, left < CHUNK ? left : CHUNK, i * CHUNK);
    }
    size_t pending = 0;
    for (size_t i = flushed; i < at; i++)
        pending += recording->events[i].record.kind != RECORD_MARK;
    size_t first = choice->keep == KEEP_PREFIX ? choose(&choice->state) % (pending + 1) : 0;
    enum keep keep = choice->keep;
    for (size_t i = flushed; i < at; i++) {
        if (keep == KEEP_PREFIX) choice->keep = first ? first--, KEEP_ALL : KEEP_NONE;
        keep_some(image, &recording->events[i], choice);
    }
    choice->keep = keep;
    /* Received before the cut, answered after it. */
    for (size_t i = at; i < recording->count && i < at + 256 && keep >= KEEP_SOME; i++) {
        if (recording->events[i].record.arrived <= at)
            keep_some(image, &recording->events[i], choice);
    }
    return image;
}

static int attach(int image, char *device, size_t device_size) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) session_die("/dev/loop-control");
    struct loop_config config = {.fd = (uint32_t)image, .block_size = SECTOR};
    for (int tries = 0; tries < 200; tries++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        if (number < 0) session_die("LOOP_CTL_GET_FREE");
        snprintf(device, device_size, "/dev/loop%d", number);
        int fd = open(device, O_RDWR | O_CLOEXEC);
        if (fd < 0) session_die(device);
        if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
            close(control);
            return fd;
        }
        close(fd); /* somebody else was faster */
        usleep(1000);
    }
    session_die("LOOP_CONFIGURE");
}

static void detach(void) {
    if (ioctl(loop, LOOP_CLR_FD) != 0) session_die("LOOP_CLR_FD");
    close(loop);
    loop = -1;
}

static const char *build(const struct recording *recording, size_t at, struct choice *choice,
                         char *why, size_t why_size) {
    char device[64];
    int image = make_image(recording, at, choice);
    loop = attach(image, device, sizeof device);
    close(image);
    if (mount(device, mount_point, file_system, 0, NULL) == 0) return directory;
    snprintf(why, why_size, "does not mount: %s", strerror(errno));
    detach();
    return NULL;
}

static void drop(void) {
    int tries = 0;
    while (umount2(mount_point, 0) != 0) {
        if (errno != EBUSY || ++tries == 500) session_die("umount");
        usleep(10000);
    }
    detach();
}

const struct model *disk_model(const char *work, const char *type, const char *image) {
    static const struct model model = {advance, settle, build, drop};
    struct stat st;
    int fd = open(image, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) session_die(image);
    size = (size_t)st.st_size;
    safe = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    used = calloc(size / CHUNK + 1, 1);
    if (safe == MAP_FAILED || !used) session_die("memory");
    close(fd);
    for (size_t i = 0; i < size; i++) {
        if (safe[i]) used[i / CHUNK] = 1, i |= CHUNK - 1;
    }
    file_system = type;
    snprintf(mount_point, sizeof mount_point, "%s/left", work);
    snprintf(directory, sizeof directory, "%s/w", mount_point);
    if (mkdir(mount_point, 0755) != 0) session_die(mount_point);
    return &model;
}
