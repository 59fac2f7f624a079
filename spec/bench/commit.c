/* commit.c FILE GROUP SECONDS: the bare twin of group commit: one direct write that carries GROUP
 * records of 512 bytes, padded to 4 KiB, one fdatasync, again. Prints commits and records a second.
 * The file is made before with written zeros, 64 MiB. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long group = atol(argv[2]), commits = 0;
    double seconds = atof(argv[3]);
    size_t size = ((size_t)group * 544 + 4095) / 4096 * 4096;
    void *buffer;
    int fd = open(argv[1], O_RDWR | O_DIRECT);
    if (fd < 0 || posix_memalign(&buffer, 4096, size) != 0) return 1;
    memset(buffer, 'r', size);
    double start = now();
    off_t offset = 0;
    while (now() - start < seconds) {
        if (offset + (off_t)size > 64 << 20) offset = 0;
        if (pwrite(fd, buffer, size, offset) != (ssize_t)size || fdatasync(fd) != 0) return 1;
        offset += (off_t)size;
        commits++;
    }
    printf("%.0f %.0f\n", commits / (now() - start), commits * group / (now() - start));
    return 0;
}
