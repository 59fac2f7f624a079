/* gate_calls.h: for a program with gates, once. */
#ifndef GATE_CALLS_H
#define GATE_CALLS_H

#if !defined(_WIN32)

/* The gates are pipes, which have no position: the pool's calls are helped over that. */
static inline int no_position(ssize_t n) { return n < 0 && errno == ESPIPE; }

__attribute__((visibility("default"))) ssize_t pread(int fd, void *data, size_t len, off_t off) {
    struct iovec v = {data, len};
    ssize_t n = preadv(fd, &v, 1, off);
    return no_position(n) ? read(fd, data, len) : n;
}

__attribute__((visibility("default"))) ssize_t pwrite(int fd, const void *data, size_t len,
                                                      off_t off) {
    union {
        const void *from;
        void *to;
    } memory = {data}; /* iovec knows no const */
    struct iovec v = {memory.to, len};
    ssize_t n = pwritev(fd, &v, 1, off);
    return no_position(n) ? write(fd, data, len) : n;
}

#endif
#endif
