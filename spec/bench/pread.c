/* pread.c FILE THREADS OPERATIONS: random 4 KiB direct reads by threads that block in pread, with
 * the page numbers of reads.lua. Prints: operations seconds cpu-seconds kernel-entries. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, THREADS_MAX = 256 };

static int fd;
static uint64_t pages, each;

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void *reader(void *argument) {
    uint64_t random = (uint64_t)(uintptr_t)argument * 7919 + 1;
    void *memory;
    if (posix_memalign(&memory, PAGE, PAGE) != 0) exit(1);
    for (uint64_t i = 0; i < each; i++) {
        random = random * 16807 % 2147483647;
        if (pread(fd, memory, PAGE, (off_t)(random % pages * PAGE)) != PAGE) exit(1);
    }
    free(memory);
    return NULL;
}

int main(int argc, char **argv) {
    pthread_t threads[THREADS_MAX];
    struct stat st;
    int count = argc == 4 ? atoi(argv[2]) : 0;
    if (count < 1 || count > THREADS_MAX) return 2;
    fd = open(argv[1], O_RDONLY | O_DIRECT | O_NOATIME);
    if (fd < 0 || fstat(fd, &st) != 0) return 1;
    pages = (uint64_t)st.st_size / PAGE;
    each = strtoull(argv[3], NULL, 10) / (unsigned)count;
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < count; i++)
        if (pthread_create(&threads[i], NULL, reader, (void *)(uintptr_t)i) != 0) return 1;
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    start = seconds(CLOCK_MONOTONIC) - start;
    unsigned long long total = each * (unsigned)count;
    printf("%llu %.6f %.6f %llu\n", total, start, cpu, total);
    return 0;
}
