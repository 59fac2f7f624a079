/* disk.c: a disk in memory with a volatile write cache, shown as one file over FUSE for a loop
 * device. It records every write and flush that it answered, and can be told to fail, to be slow
 * and to lie.
 *
 *   disk IMAGE RECORD MOUNT_POINT    IMAGE: what is on the disk at first, and its size
 *
 * Below MOUNT_POINT:
 *   disk     attach with losetup --direct-io=on
 *   mark     each write() is a mark in the record
 *   control  commands, one in a line; reading it gives the counters
 *
 *   fail OP ERRNO [count=N] [skip=N] [from=BYTE] [to=BYTE]    OP: read write flush zero
 *   delay OP MICROSECONDS                   ends early when it is changed
 *   lie flush                               answers, and records nothing
 *   clear
 *   stop                                    nothing more is recorded */
#define _GNU_SOURCE
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { NODE_DISK = NODE_FIRST, NODE_END, WORKERS = 8 };
static const char *const node_names[NODE_END] = {
    [NODE_MARK] = "mark", [NODE_CONTROL] = "control", [NODE_DISK] = "disk"};

enum operation { READ, WRITE, FLUSH, ZERO, OPERATIONS };
static const char *const operation_names[OPERATIONS] = {"read", "write", "flush", "zero"};

static struct fault {
    int error, lie;
    long count, skip; /* count < 0: for ever */
    uint64_t from, to;
    long delay; /* microseconds */
} faults[OPERATIONS];
static uint64_t done[OPERATIONS], failed[OPERATIONS];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t faults_changed;
static uint8_t *image;
static uint64_t image_size;

/* ---- faults --------------------------------------------------------------------------------- */

static void be_slow(enum operation operation) {
    struct timespec end;
    long delay = faults[operation].delay;
    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += delay / 1000000;
    end.tv_nsec += delay % 1000000 * 1000;
    if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;
    while (faults[operation].delay == delay &&
           pthread_cond_timedwait(&faults_changed, &lock, &end) == 0) {
    }
}

/* With the lock held. The errno to answer, or 0. */
static int meet_fault(enum operation operation, uint64_t offset, uint64_t length) {
    struct fault *fault = &faults[operation];
    if (fault->delay) be_slow(operation);
    done[operation]++;
    if (!fault->error || fault->count == 0) return 0;
    if (operation != FLUSH && (offset >= fault->to || offset + length <= fault->from)) return 0;
    if (fault->skip > 0) {
        fault->skip--;
        return 0;
    }
    if (fault->count > 0) fault->count--;
    failed[operation]++;
    return fault->error;
}

static int errno_of(const char *name) {
    static const struct {
        const char *name;
        int number;
    } known[] = {{"EIO", EIO}, {"ENOSPC", ENOSPC}, {"ETIMEDOUT", ETIMEDOUT}, {"ENOLINK", ENOLINK}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (strcmp(name, known[i].name) == 0) return known[i].number;
    }
    return 0;
}

static int set_fault(struct fault *fault, const char *error, char **rest) {
    struct fault next = {.error = errno_of(error),
                         .count = -1,
                         .to = UINT64_MAX,
                         .delay = fault->delay,
                         .lie = fault->lie};
    if (!next.error) return EINVAL;
    for (char *word; (word = strtok_r(NULL, " \t", rest));) {
        char *value = strchr(word, '=');
        if (!value) return EINVAL;
        *value++ = 0;
        if (strcmp(word, "count") == 0) next.count = atol(value);
        else if (strcmp(word, "skip") == 0) next.skip = atol(value);
        else if (strcmp(word, "from") == 0) next.from = strtoull(value, NULL, 10);
        else if (strcmp(word, "to") == 0) next.to = strtoull(value, NULL, 10);
        else return EINVAL;
    }
    *fault = next;
    return 0;
}

static int command(char *line) {
    char *rest, *word = strtok_r(line, " \t", &rest);
    if (!word) return 0;
    if (strcmp(word, "stop") == 0) {
        record_stop();
        return 0;
    }
    if (strcmp(word, "clear") == 0) {
        memset(faults, 0, sizeof faults);
        return 0;
    }
    char *name = strtok_r(NULL, " \t", &rest);
    unsigned operation = 0;
    while (name && operation < OPERATIONS && strcmp(name, operation_names[operation]) != 0)
        operation++;
    if (!name || operation == OPERATIONS) return EINVAL;
    if (strcmp(word, "lie") == 0) {
        faults[operation].lie = 1;
        return 0;
    }
    char *value = strtok_r(NULL, " \t", &rest);
    if (!value) return EINVAL;
    if (strcmp(word, "fail") == 0) return set_fault(&faults[operation], value, &rest);
    if (strcmp(word, "delay") != 0) return EINVAL;
    faults[operation].delay = atol(value);
    return 0;
}

static int commands(const char *text, size_t length) {
    char *copy = strndup(text, length), *rest;
    if (!copy) return ENOMEM;
    int r = 0;
    pthread_mutex_lock(&lock);
    for (char *line = strtok_r(copy, "\n", &rest); line && r == 0;
         line = strtok_r(NULL, "\n", &rest)) {
        r = command(line);
    }
    pthread_cond_broadcast(&faults_changed);
    pthread_mutex_unlock(&lock);
    free(copy);
    return r;
}

/* ---- the file system ------------------------------------------------------------------------ */

static void describe(fuse_ino_t node, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_ino = node;
    st->st_nlink = 1;
    st->st_blksize = 4096;
    st->st_mode = node == NODE_ROOT ? S_IFDIR | 0755 : S_IFREG | 0666;
    if (node == NODE_DISK) st->st_size = (off_t)image_size;
}

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct fuse_entry_param entry = {.attr_timeout = 3600, .entry_timeout = 3600};
    for (fuse_ino_t node = NODE_MARK; node < NODE_END; node++) {
        if (parent != NODE_ROOT || strcmp(name, node_names[node]) != 0) continue;
        entry.ino = node;
        describe(node, &entry.attr);
        fuse_reply_entry(request, &entry);
        return;
    }
    fuse_reply_err(request, ENOENT);
}

static void on_getattr(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)file;
    struct stat st;
    describe(node, &st);
    fuse_reply_attr(request, &st, 3600);
}

/* Opening with O_TRUNC asks for size 0: a mark file has none. */
static void on_setattr(fuse_req_t request, fuse_ino_t node, struct stat *to, int what,
                       struct fuse_file_info *file) {
    (void)to;
    (void)what;
    on_getattr(request, node, file);
}

static void on_open(fuse_req_t request, fuse_ino_t node, struct fuse_file_info *file) {
    (void)node;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void read_counters(fuse_req_t request, size_t size, off_t offset) {
    char text[512];
    int n = 0;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < OPERATIONS; i++) {
        n +=
            snprintf(text + n, sizeof text - (size_t)n, "%s %llu failed %llu\n", operation_names[i],
                     (unsigned long long)done[i], (unsigned long long)failed[i]);
    }
    pthread_mutex_unlock(&lock);
    if (offset > n) offset = n;
    size_t left = (size_t)(n - offset);
    fuse_reply_buf(request, text + offset, left < size ? left : size);
}

static void on_read(fuse_req_t request, fuse_ino_t node, size_t size, off_t offset,
                    struct fuse_file_info *file) {
    (void)file;
    if (node == NODE_CONTROL) {
        read_counters(request, size, offset);
        return;
    }
    uint64_t at = (uint64_t)offset;
    if (node != NODE_DISK || at >= image_size) {
        fuse_reply_buf(request, NULL, 0);
        return;
    }
    if (size > image_size - at) size = image_size - at;
    pthread_mutex_lock(&lock);
    int error = meet_fault(READ, at, size);
    pthread_mutex_unlock(&lock);
    if (error) fuse_reply_err(request, error);
    else fuse_reply_buf(request, (const char *)image + at, size);
}

static void on_write(fuse_req_t request, fuse_ino_t node, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file) {
    (void)file;
    int error = 0;
    uint64_t at = (uint64_t)offset;
    if (node == NODE_MARK) {
        record_add((struct record){.kind = RECORD_MARK}, data, size, NULL, 0);
    } else if (node == NODE_CONTROL) {
        error = commands(data, size);
    } else if (node != NODE_DISK || at > image_size || size > image_size - at) {
        error = ENOSPC;
    } else {
        pthread_mutex_lock(&lock);
        error = meet_fault(WRITE, at, size);
        if (!error) {
            memcpy(image + at, data, size);
            record_add((struct record){.kind = RECORD_WRITE, .offset = at}, data, size, NULL, 0);
        }
        pthread_mutex_unlock(&lock);
    }
    if (error) fuse_reply_err(request, error);
    else fuse_reply_write(request, size);
}

static void on_fsync(fuse_req_t request, fuse_ino_t node, int data_only,
                     struct fuse_file_info *file) {
    (void)data_only;
    (void)file;
    int error = 0;
    if (node == NODE_DISK) {
        pthread_mutex_lock(&lock);
        error = meet_fault(FLUSH, 0, image_size);
        if (!error && !faults[FLUSH].lie)
            record_add((struct record){.kind = RECORD_FLUSH}, NULL, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    fuse_reply_err(request, error);
}

static void on_fallocate(fuse_req_t request, fuse_ino_t node, int mode, off_t offset, off_t length,
                         struct fuse_file_info *file) {
    (void)file;
    int error = 0;
    uint64_t at = (uint64_t)offset, bytes = (uint64_t)length;
    if (node != NODE_DISK || !(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)))
        error = EOPNOTSUPP;
    else if (at > image_size || bytes > image_size - at) error = EINVAL;
    if (!error) {
        pthread_mutex_lock(&lock);
        error = meet_fault(ZERO, at, bytes);
        if (!error) {
            memset(image + at, 0, bytes);
            record_add((struct record){.kind = RECORD_ZERO, .offset = at, .extra = bytes}, NULL, 0,
                       NULL, 0);
        }
        pthread_mutex_unlock(&lock);
    }
    fuse_reply_err(request, error);
}

static const struct fuse_lowlevel_ops ops = {
    .lookup = on_lookup,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .fsync = on_fsync,
    .fallocate = on_fallocate,
};

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "disk IMAGE RECORD MOUNT_POINT\n");
        return 2;
    }
    struct stat st;
    int fd = open(argv[1], O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) session_die(argv[1]);
    image_size = (uint64_t)st.st_size;
    image = mmap(NULL, image_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    if (image == MAP_FAILED) session_die("mmap");
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&faults_changed, &monotonic);
    record_open(argv[2]);
    return session_serve("jdbfs-disk", argv[3], &ops, sizeof ops, WORKERS);
}
