/* commit.c HOW FILE GROUP SECONDS: the bare twin of group commit. HOW:
 *
 *   write   one direct write that carries GROUP records of 512 bytes, padded to 4 KiB, one
 *           fdatasync, again
 *   linked  the same, both in one submission to io_uring, the flush linked behind the write
 *   encode  as write; before each write every record is copied there and summed, and gets a header
 *   pages   GROUP writes of 4 KiB in one submission to io_uring, one fdatasync, again
 *
 * Prints records, seconds and CPU seconds. The file is made before with written zeros, 64 MiB. */
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jdb.h"

enum { RECORD = 512, HEADER = 32, PAGE = 4096, FILE_SIZE = 64 << 20 };

static double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void encode(char *to, const char *record, long number) {
    unsigned sums[2];
    memcpy(to + HEADER, record, RECORD);
    memcpy(to + 8, &number, sizeof number);
    sums[1] = jdb_crc32c(0, to + HEADER, RECORD);
    memcpy(to + 20, &sums[1], sizeof sums[1]);
    sums[0] = jdb_crc32c(0, to + 4, HEADER - 4);
    memcpy(to, &sums[0], sizeof sums[0]);
}

#ifndef NEXT_RECORD /* bare.c has another */
static const char *next_record(const char *record, long i) {
    (void)i;
    return record;
}
#endif

static int write_pages(struct io_uring *ring, int fd, const char *buffer, long group, off_t at) {
    struct io_uring_cqe *cqe;
    for (long i = 0; i < group; i++)
        io_uring_prep_write(io_uring_get_sqe(ring), fd, buffer + i * PAGE, PAGE,
                            (unsigned long long)(at + i * PAGE));
    if (io_uring_submit_and_wait(ring, (unsigned)group) < 0) return -1;
    for (long i = 0; i < group; i++) {
        if (io_uring_wait_cqe(ring, &cqe) != 0 || cqe->res != PAGE) return -1;
        io_uring_cqe_seen(ring, cqe);
    }
    return 0;
}

static int write_linked(struct io_uring *ring, int fd, const char *buffer, size_t size, off_t at) {
    struct io_uring_cqe *cqe;
    struct io_uring_sqe *write = io_uring_get_sqe(ring), *flush = io_uring_get_sqe(ring);
    io_uring_prep_write(write, fd, buffer, (unsigned)size, (unsigned long long)at);
    write->flags |= IOSQE_IO_LINK;
    io_uring_prep_fsync(flush, fd, IORING_FSYNC_DATASYNC);
    if (io_uring_submit_and_wait(ring, 2) != 2) return -1;
    for (int i = 0; i < 2; i++) {
        if (io_uring_wait_cqe(ring, &cqe) != 0 || cqe->res != (i == 0 ? (int)size : 0)) return -1;
        io_uring_cqe_seen(ring, cqe);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int pages = strcmp(argv[1], "pages") == 0, encodes = strcmp(argv[1], "encode") == 0;
    int linked = strcmp(argv[1], "linked") == 0;
    long group = atol(argv[3]), commits = 0;
    double limit = atof(argv[4]);
    size_t each = pages ? PAGE : RECORD + HEADER;
    size_t size = ((size_t)group * each + PAGE - 1) / PAGE * PAGE;
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN};
    struct io_uring ring;
    char *buffer, record[RECORD];
    int fd = open(argv[2], O_RDWR | O_DIRECT);
    if (fd < 0 || posix_memalign((void **)&buffer, PAGE, size) != 0) return 1;
    if ((pages || linked) && io_uring_queue_init_params(256, &ring, &params) != 0) return 1;
    memset(buffer, 'r', size);
    memset(record, 'r', sizeof record);
    double start = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    double took = 0;
    for (off_t at = 0; took < limit; at += (off_t)size, commits++) {
        if (at + (off_t)size > FILE_SIZE) at = 0;
        for (long i = 0; encodes && i < group; i++)
            encode(buffer + i * each, next_record(record, i), i);
        int failed = pages    ? write_pages(&ring, fd, buffer, group, at) != 0
                     : linked ? write_linked(&ring, fd, buffer, size, at) != 0
                              : pwrite(fd, buffer, size, at) != (ssize_t)size;
        if (failed || (!linked && fdatasync(fd) != 0)) return 1;
        took = seconds_of(CLOCK_MONOTONIC) - start;
    }
    cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%ld %.6f %.6f\n", commits * group, took, cpu);
    return 0;
}
