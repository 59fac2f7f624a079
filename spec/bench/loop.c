/* loop.c: the bare liburing loop that jdbfs is measured against, with jdbfs's flags, its batching
 * and the page numbers of reads.lua.
 *
 *   loop make FILE MEBIBYTES           writes a new file in full, incompressible, synced
 *   loop read FILE DEPTH OPERATIONS [plain] [cached] [wait=N] [stage=N]
 *                                      prints: operations seconds cpu-seconds kernel-entries;
 *                                      plain: without registered memory, file and ring; cached:
 *                                      through the page cache; wait: for so many completions and
 *                                      not for a quarter of what is in flight; stage: so many
 *                                      reads at most are handed over at once, else 32
 *   loop latency FILE OPERATIONS       the same at depth 1; prints: operations seconds, and the
 *                                      median of the times from one completion to the next, in us */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, CHUNK = 2 << 20, RING = 256, STAGE_MAX = 32, WAIT_MAX = 32, DEPTH_MAX = 256 };

struct slot {
    void *memory;
    uint64_t random, left;
};

#ifndef NEXT_PAGE /* bare.c has another */
static uint64_t next_page(struct slot *slot, uint64_t pages) {
    slot->random = slot->random * 16807 % 2147483647;
    return slot->random % pages;
}
#endif

struct settings {
    int plain, cached;
    unsigned wait, stage; /* wait 0: a quarter of what is in flight */
};

static void stop(const char *what, int error) {
    fprintf(stderr, "loop: %s: %s\n", what, strerror(error));
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *map(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) stop("mmap", errno);
    return memory;
}

static void make_file(const char *path, long mebibytes) {
    size_t size = 1 << 20;
    uint64_t word = 88172645463325252u, *words = map(size);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0666);
    if (fd < 0) stop(path, errno);
    for (long i = 0; i < mebibytes; i++) {
        for (size_t k = 0; k < size / sizeof word; k++) {
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            words[k] = word;
        }
        if (pwrite(fd, words, size, (off_t)i * (off_t)size) != (ssize_t)size) stop(path, errno);
    }
    if (fsync(fd) != 0) stop(path, errno);
    close(fd);
}

/* The flags of jdbfs, stepped down the same way. */
static void make_ring(struct io_uring *ring) {
    static const unsigned flags[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
            IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
            IORING_SETUP_CQSIZE,
        IORING_SETUP_CQSIZE,
        0,
    };
    int r = -EINVAL;
    for (size_t i = 0; i < sizeof flags / sizeof *flags && r == -EINVAL; i++) {
        struct io_uring_params params;
        memset(&params, 0, sizeof params);
        params.flags = flags[i];
        params.cq_entries = 2 * (RING + 1);
        r = io_uring_queue_init_params(RING + 1, ring, &params);
    }
    if (r != 0) stop("io_uring_setup", -r);
}

/* As jdbfs has them: one registered chunk, of a huge page where there are any. */
static void *map_chunk(struct io_uring *ring) {
    uintptr_t memory = (uintptr_t)map(2 * CHUNK);
    struct iovec chunk = {(void *)((memory + CHUNK - 1) & ~(uintptr_t)(CHUNK - 1)), CHUNK};
    madvise(chunk.iov_base, CHUNK, MADV_HUGEPAGE);
    int r = io_uring_register_buffers(ring, &chunk, 1);
    if (r != 0) stop("registering memory", -r);
    return chunk.iov_base;
}

static void stage(struct io_uring *ring, int fd, struct slot *slot, uint64_t pages, int plain) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe) stop("no room in the ring", EAGAIN);
    uint64_t off = next_page(slot, pages) * PAGE;
    slot->left--;
    if (plain) {
        io_uring_prep_read(sqe, fd, slot->memory, PAGE, off);
    } else {
        io_uring_prep_read_fixed(sqe, 0, slot->memory, PAGE, off, 0);
        sqe->flags |= IOSQE_FIXED_FILE;
    }
    io_uring_sqe_set_data(sqe, slot);
}

static double *laps; /* the time of each completion, or NULL */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median_lap(double start, uint64_t count) {
    for (uint64_t i = count; i-- > 0;) laps[i] -= i > 0 ? laps[i - 1] : start;
    qsort(laps, count, sizeof *laps, by_size);
    return laps[count / 2] * 1e6;
}

static unsigned wanted(const struct settings *how, unsigned in_flight) {
    unsigned want = how->wait ? how->wait : in_flight / 4;
    if (!how->wait && want > WAIT_MAX) want = WAIT_MAX;
    if (want > in_flight) want = in_flight;
    return want < 1 ? 1 : want;
}

static void read_file(const char *path, unsigned depth, uint64_t operations,
                      const struct settings *how) {
    static struct slot slots[DEPTH_MAX];
    struct io_uring ring;
    struct stat st;
    int plain = how->plain;
    int fd = open(path, O_RDONLY | (how->cached ? 0 : O_DIRECT) | O_NOATIME | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) stop(path, errno);
    if (depth < 1 || depth > DEPTH_MAX) stop("depth", EINVAL);
    uint64_t pages = (uint64_t)st.st_size / PAGE, entries = 0, ended = 0;
    uint64_t each = operations / depth, total = each * depth;
    unsigned in_flight = 0, staged = 0;
    make_ring(&ring);
    char *chunk = plain ? NULL : map_chunk(&ring);
    if (!plain && io_uring_register_files(&ring, &fd, 1) != 0) stop("registering the file", EINVAL);
    if (!plain && io_uring_register_ring_fd(&ring) != 1) stop("registering the ring", EINVAL);
    for (unsigned i = 0; i < depth; i++) {
        slots[i].memory = plain ? map(PAGE) : chunk + (size_t)i * PAGE;
        memset(slots[i].memory, 0, PAGE);
        slots[i].random = (uint64_t)i * 7919 + 1;
        slots[i].left = each;
    }
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (unsigned i = 0; i < depth && each > 0; i++, in_flight++, staged++)
        stage(&ring, fd, &slots[i], pages, plain);
    while (ended < total) {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        int r = io_uring_submit_and_wait(&ring, wanted(how, in_flight));
        if (r < 0 && r != -EINTR) stop("io_uring_enter", -r);
        entries++;
        staged = 0;
        io_uring_for_each_cqe(&ring, head, cqe) {
            struct slot *slot = io_uring_cqe_get_data(cqe);
            if (cqe->res != PAGE) stop("read", cqe->res < 0 ? -cqe->res : EIO);
            count++;
            in_flight--;
            if (slot->left == 0) continue;
            stage(&ring, fd, slot, pages, plain);
            in_flight++;
            if (++staged < how->stage) continue;
            if (io_uring_submit(&ring) < 0) stop("io_uring_enter", EIO);
            entries++;
            staged = 0;
        }
        io_uring_cq_advance(&ring, count);
        if (laps && count) laps[ended] = seconds(CLOCK_MONOTONIC);
        ended += count;
    }
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    double took = seconds(CLOCK_MONOTONIC) - start;
    if (laps)
        printf("%llu %.6f %.3f\n", (unsigned long long)total, took, median_lap(start, total));
    else
        printf("%llu %.6f %.6f %llu\n", (unsigned long long)total, took, cpu,
               (unsigned long long)entries);
    io_uring_queue_exit(&ring);
    close(fd);
}

static struct settings settings(char **words) {
    struct settings how = {.stage = STAGE_MAX};
    for (; *words; words++) {
        if (strcmp(*words, "plain") == 0) how.plain = 1;
        else if (strcmp(*words, "cached") == 0) how.cached = 1;
        else if (strncmp(*words, "wait=", 5) == 0) how.wait = (unsigned)atoi(*words + 5);
        else if (strncmp(*words, "stage=", 6) == 0) how.stage = (unsigned)atoi(*words + 6);
        else stop(*words, EINVAL);
    }
    return how;
}

int main(int argc, char **argv) {
    if (argc == 4 && strcmp(argv[1], "make") == 0) {
        make_file(argv[2], atol(argv[3]));
    } else if (argc >= 5 && strcmp(argv[1], "read") == 0) {
        struct settings how = settings(argv + 5);
        read_file(argv[2], (unsigned)atoi(argv[3]), strtoull(argv[4], NULL, 10), &how);
    } else if (argc == 4 && strcmp(argv[1], "latency") == 0) {
        struct settings how = settings(argv + 4);
        laps = calloc(strtoull(argv[3], NULL, 10) + 1, sizeof *laps);
        if (!laps) stop("laps", ENOMEM);
        read_file(argv[2], 1, strtoull(argv[3], NULL, 10), &how);
    } else {
        fprintf(stderr, "usage: loop make FILE MEBIBYTES | loop read FILE DEPTH OPERATIONS [plain] [cached]"
                        " [wait=N] [stage=N] | loop latency FILE OPERATIONS\n");
        return 2;
    }
    return 0;
}
