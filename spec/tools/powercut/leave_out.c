/* leave_out.c: preloaded into a program, it leaves out the syncs that LEAVE_OUT names, as a list
 * KIND[:TEXT],...: KIND is fsync, fdatasync, fsyncdir, O_DSYNC or RWF_DSYNC; with TEXT only where
 * the file's path contains it; TEXT$ means at its end. Prints at the end how many were left out: a
 * build with one sync forgotten, to see that the power cuts catch it. Not for io_uring, whose
 * operations do not go through the C library. */
#define _GNU_SOURCE
#undef _FILE_OFFSET_BITS /* with it, what is defined here is open64, which nobody calls */
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#ifndef RWF_DSYNC
#define RWF_DSYNC 0x02
#endif

static atomic_uint left_out;

static int path_fits(const char *path, const char *text) {
    size_t length = strlen(text), all = strlen(path);
    if (length == 0 || text[length - 1] != '$') return strstr(path, text) != NULL;
    length--;
    return all >= length && strncmp(path + all - length, text, length) == 0;
}

/* One word of LEAVE_OUT. */
static int word_fits(const char *word, const char *kind, const char *path) {
    size_t length = strlen(kind);
    if (strncmp(word, kind, length) != 0) return 0;
    return word[length] == 0 || (word[length] == ':' && path_fits(path, word + length + 1));
}

static int is_left_out(const char *kind, const char *path) {
    char words[256], *rest;
    snprintf(words, sizeof words, "%s", getenv("LEAVE_OUT") ? getenv("LEAVE_OUT") : "");
    for (char *word = strtok_r(words, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (!word_fits(word, kind, path)) continue;
        left_out++;
        return 1;
    }
    return 0;
}

static int fd_is_left_out(const char *kind, int fd) {
    char name[64], path[PATH_MAX];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_left_out(kind, path);
}

static int is_directory(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISDIR(st.st_mode);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int fsync(int fd) {
    if (fd_is_left_out(is_directory(fd) ? "fsyncdir" : "fsync", fd)) return 0;
    return NEXT(fsync)(fd);
}

int fdatasync(int fd) { return fd_is_left_out("fdatasync", fd) ? 0 : NEXT(fdatasync)(fd); }

ssize_t pwritev2(int fd, const struct iovec *vectors, int count, off_t offset, int flags) {
    if ((flags & RWF_DSYNC) && fd_is_left_out("RWF_DSYNC", fd)) flags &= ~RWF_DSYNC;
    return NEXT(pwritev2)(fd, vectors, count, offset, flags);
}

int open(const char *path, int flags, ...) {
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_DSYNC) && is_left_out("O_DSYNC", path)) flags &= ~O_DSYNC;
    return NEXT(open)(path, flags, mode);
}

__attribute__((destructor)) static void report(void) {
    if (getenv("LEAVE_OUT")) fprintf(stderr, "left out: %u\n", left_out);
}
