/* os_posix.c: what Linux, macOS and the BSDs share. Every function returns >= 0 or -errno; errno
 * is read once, right after the call. EINTR is handled where it happens. */
#include "os_posix.h"
#include "os_thread.h"

#include <assert.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ADDRESS_SANITIZER
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define ADDRESS_SANITIZER
#endif
#ifdef ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

/* ---- memory, time, processes ---------------------------------------------------------------- */

size_t jdb_os_page_size(void) {
    static atomic_size_t known; /* workers that open files ask, too */
    size_t page = atomic_load_explicit(&known, memory_order_relaxed);
    if (page) return page;
    page = (size_t)sysconf(_SC_PAGESIZE);
    atomic_store_explicit(&known, page, memory_order_relaxed);
    return page;
}

void *jdb_os_map(size_t size) {
    void *map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return NULL;
    jdb_platform_keep_from_children(map, size);
    return map;
}

void *jdb_os_map_chunk(size_t size) {
    uint8_t *map = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return NULL;
    size_t before = (size_t)(-(uintptr_t)map & (size - 1));
    if (before) munmap(map, before);
    if (size - before) munmap(map + before + size, size - before);
    jdb_platform_keep_from_children(map + before, size);
    jdb_platform_prefer_large_pages(map + before, size);
    return map + before;
}

void jdb_os_unmap(void *map, size_t size) { munmap(map, size); }

void jdb_os_forbid(void *memory, size_t size) {
#ifdef ADDRESS_SANITIZER
    __asan_poison_memory_region(memory, size);
#else
    (void)memory;
    (void)size;
#endif
}

void jdb_os_permit(void *memory, size_t size) {
#ifdef ADDRESS_SANITIZER
    __asan_unpoison_memory_region(memory, size);
#else
    (void)memory;
    (void)size;
#endif
}

int64_t jdb_os_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

int64_t jdb_os_cpu(int thread) {
    struct timespec used;
    clock_gettime(thread ? CLOCK_THREAD_CPUTIME_ID : CLOCK_PROCESS_CPUTIME_ID, &used);
    return (int64_t)used.tv_sec * 1000000000 + used.tv_nsec;
}

static const int ending_signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { ENDING_SIGNALS = sizeof ending_signals / sizeof *ending_signals };
static struct sigaction actions_before[ENDING_SIGNALS], pipe_before;
static volatile sig_atomic_t noted_signal, catching;

/* The second one is in earnest: whatever takes so long, the process ends by it. Of a terminal that
 * went away both the system and the shell tell. */
static void note_signal(int number) {
    if (noted_signal && number != SIGHUP) {
        signal(number, SIG_DFL);
        raise(number);
    }
    noted_signal = number;
}

void jdb_os_catch_signals(int on) {
    struct sigaction action;
    if (on == catching) return;
    catching = on;
    noted_signal = 0;
    memset(&action, 0, sizeof action);
    /* A reader that went away must not end us either: the write fails then. */
    action.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, on ? &action : &pipe_before, on ? &pipe_before : NULL);
    action.sa_handler = note_signal; /* no SA_RESTART: waits in the kernel end */
    for (int i = 0; i < ENDING_SIGNALS; i++) {
        const struct sigaction *to = on ? &action : &actions_before[i];
        struct sigaction *before = on ? &actions_before[i] : NULL;
        sigaction(ending_signals[i], to, before);
        /* Whoever started us with it ignored (nohup) meant it. */
        if (on && before->sa_handler == SIG_IGN) sigaction(ending_signals[i], before, NULL);
    }
}

int jdb_os_signal(void) { return noted_signal; }

int jdb_os_terminal(int fd, int *columns, int *lines) {
    struct winsize size;
    if (!isatty(fd)) return -ENOTTY;
    *columns = 80;
    *lines = 24;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        *columns = size.ws_col;
        *lines = size.ws_row;
    }
    return 0;
}

int jdb_os_entropy(void *bytes, size_t size) { return getentropy(bytes, size) == 0 ? 0 : -errno; }

int jdb_os_remove_directory(const char *path) { return rmdir(path) == 0 ? 0 : -errno; }

void jdb_os_sleep(int64_t ns) {
    struct timespec rest = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR) {
    }
}

int jdb_os_thread_start(pthread_t *thread, size_t stack_size, void *(*run)(void *),
                        void *argument) {
    pthread_attr_t attributes;
    sigset_t all, before;
    int r = pthread_attr_init(&attributes);
    if (r != 0) return r;
    pthread_attr_setstacksize(&attributes, stack_size);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r;
}

uint32_t jdb_os_forks;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;

static void in_child(void) { __atomic_fetch_add(&jdb_os_forks, 1, __ATOMIC_RELAXED); }

static void watch_forks(void) {
    pthread_atfork(NULL, NULL, in_child);
    __atomic_fetch_add(&jdb_os_forks, 1, __ATOMIC_RELAXED);
}

unsigned jdb_os_fork_generation(void) {
    pthread_once(&fork_once, watch_forks);
    return jdb_os_generation();
}

/* Two kinds of strerror_r: GNU's returns the words, the other fills the buffer. */
void jdb_os_error_text(int error, char *text, size_t size) {
#if defined(__GLIBC__)
    char scratch[128];
    snprintf(text, size, "%s", strerror_r(error, scratch, sizeof scratch));
#else
    if (strerror_r(error, text, size) != 0) snprintf(text, size, "error");
#endif
}

/* A finalizer of the host may call in here after its loader has let go of the library. */
void jdb_os_stay_loaded(void) {
    Dl_info info;
    if (dladdr((void *)(uintptr_t)jdb_os_stay_loaded, &info) && info.dli_fname)
        dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

const char *jdb_os_getenv(const char *name) {
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

const char *jdb_os_platform(void) {
    static _Thread_local char text[160];
    struct utsname name;
    if (uname(&name) != 0) return "unknown";
    snprintf(text, sizeof text, "%.64s %.64s", name.sysname, name.release);
    return text;
}

/* ---- files ---------------------------------------------------------------------------------- */

/* Not tried again on EINTR: the descriptor is gone by then, and its number may be another's. */
void jdb_os_close(intptr_t handle) { close((int)handle); }

void jdb_os_unlock(intptr_t handle) { flock((int)handle, LOCK_UN); }

int64_t jdb_os_size(intptr_t handle) {
    struct stat st;
    if (fstat((int)handle, &st) != 0) return -errno;
    if (S_ISBLK(st.st_mode)) return jdb_platform_device_size((int)handle);
    return st.st_size;
}

static int64_t transfer(jdb_op *op) {
    uint8_t *memory = op->buf->base + op->buf_off + op->moved;
    int fd = (int)op->file->handle;
    off_t off = (off_t)(op->off + op->moved);
    ssize_t n;
    do {
        n = op->code == JDB_READ ? pread(fd, memory, op->chunk, off)
            : op->rw             ? jdb_platform_write(op, fd, memory, op->chunk, off)
                                 : pwrite(fd, memory, op->chunk, off);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

static int64_t truncate_file(jdb_op *op) {
    int r;
    do r = ftruncate((int)op->file->handle, (off_t)op->len);
    while (r != 0 && errno == EINTR);
    return r == 0 ? 0 : -errno;
}

/* Several closes of one file may wait together: the first closes, the rest find it done. The lock
 * goes first: the ring's table (Linux 6.1: for a second) or a forked child may keep the file. */
static int64_t close_file(jdb_op *op) {
    intptr_t handle = __atomic_exchange_n(&op->file->handle, (intptr_t)-1, __ATOMIC_ACQ_REL);
    if (handle < 0) return 0;
    int64_t r = op->file->locked && flock((int)handle, LOCK_UN) != 0 ? -errno : 0;
    return close((int)handle) == 0 || errno == EINTR ? r : -errno;
}

/* Advisory, between open files: two handles of one process exclude each other as well. */
int64_t jdb_posix_lock(int fd, int exclusive, char **cause) {
    if (flock(fd, (exclusive ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0) return 0;
    int error = errno;
    if (error == EWOULDBLOCK) *cause = jdb_platform_lock_holder(fd);
    return -error;
}

/* A refused flock drops the lock that was held: it is taken again at once. */
static int64_t lock_file(jdb_op *op) {
    jdb_file *file = op->file;
    struct jdb_detail *detail = op->detail;
    int fd = (int)file->handle, held = file->locked;
    int64_t r = jdb_posix_lock(fd, op->how == JDB_LOCK_EXCLUSIVE, &detail->cause);
    if (r == 0) {
        file->locked = op->how == JDB_LOCK_EXCLUSIVE ? LOCK_EX : LOCK_SH;
    } else if (held && flock(fd, held | LOCK_NB) != 0) {
        file->locked = 0;
        free(detail->cause);
        detail->cause = strdup("another process took the lock, and the one held is lost");
    }
    return r;
}

static int64_t unlock_file(jdb_op *op) {
    if (flock((int)op->file->handle, LOCK_UN) != 0) return -errno;
    op->file->locked = 0;
    return 0;
}

void jdb_posix_stat(const struct stat *st, jdb_stat *out) {
    out->size = (uint64_t)st->st_size;
    out->allocated = (uint64_t)st->st_blocks * 512;
    out->inode = (uint64_t)st->st_ino;
    out->device = (uint64_t)st->st_dev;
    out->links = (uint64_t)st->st_nlink;
    out->mode = (uint32_t)st->st_mode & 07777;
    out->atime_ns = (int64_t)st->st_atim.tv_sec * 1000000000 + st->st_atim.tv_nsec;
    out->mtime_ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    out->ctime_ns = (int64_t)st->st_ctim.tv_sec * 1000000000 + st->st_ctim.tv_nsec;
    out->type = S_ISREG(st->st_mode)   ? 'f'
                : S_ISDIR(st->st_mode) ? 'd'
                : S_ISBLK(st->st_mode) ? 'b'
                                       : 'o';
}

static int64_t stat_file(jdb_op *op) {
    struct stat st;
    if (fstat((int)op->file->handle, &st) != 0) return -errno;
    jdb_posix_stat(&st, &op->detail->stat);
    if (S_ISBLK(st.st_mode)) {
        int64_t size = jdb_platform_device_size((int)op->file->handle);
        if (size < 0) return size;
        op->detail->stat.size = (uint64_t)size;
    }
    return 0;
}

/* `from` and `to` are multiples of the write alignment. */
static int64_t write_zeros(jdb_file *file, uint64_t from, uint64_t to) {
    size_t size = 1 << 20;
    assert(file->write_align > 0);
    /* A mapping, not posix_memalign: before 2.38 glibc seldom finds its freed blocks again, and the
     * process would grow by this much with every call. */
    size_t align = (size_t)file->memory_align;
    size_t mapped = size + (align > jdb_os_page_size() ? align : 0);
    void *map = jdb_os_map(mapped);
    if (!map) return -ENOMEM;
    void *zeros = (void *)(((uintptr_t)map + align - 1) & ~(uintptr_t)(align - 1));
    int64_t r = 0;
    while (from < to && r >= 0) {
        size_t piece = to - from < size ? (size_t)(to - from) : size;
        ssize_t n = pwrite((int)file->handle, zeros, piece, (off_t)from);
        if (n < 0 && errno != EINTR) r = -errno;
        if (n >= 0 && (uint64_t)n < file->write_align) r = -ENOSPC;
        if (n > 0) from += (uint64_t)n / file->write_align * file->write_align;
    }
    jdb_os_unmap(map, mapped);
    return r < 0 ? r : 0;
}

/* Bytes the file has stay. */
int64_t jdb_posix_grow_with_zeros(jdb_file *file, uint64_t size, uint64_t len) {
    int fd = (int)file->handle;
    uint64_t align = file->write_align;
    uint64_t from = (size + align - 1) / align * align;
    uint64_t to = (len + align - 1) / align * align;
    int64_t r = write_zeros(file, from, to);
    /* Within the last block the file has, nothing was written. */
    if (r == 0 && (to != len || from >= to) && ftruncate(fd, (off_t)len) != 0) r = -errno;
    /* Whoever fills a file with zeros must not write behind its end meanwhile, so nothing else is
     * cut off here. */
    if (r < 0 && ftruncate(fd, (off_t)size) != 0) return r;
    return r;
}

/* ---- all of them ---------------------------------------------------------------------------- */

int64_t jdb_os_perform(jdb_op *op) {
    switch ((jdb_code)op->step) {
    case JDB_READ:
    case JDB_WRITE: return transfer(op);
    case JDB_SYNC_ALL: return jdb_platform_sync((int)op->file->handle, 0, op->file);
    case JDB_SYNC_DATA: return jdb_platform_sync((int)op->file->handle, 1, op->file);
    case JDB_TRUNCATE: return truncate_file(op);
    case JDB_PREALLOCATE: return jdb_platform_preallocate(op);
    case JDB_OPEN: return jdb_posix_open(op);
    case JDB_CLOSE: return close_file(op);
    case JDB_SIZE: return jdb_os_size(op->file->handle);
    case JDB_STAT: return stat_file(op);
    case JDB_INFO:
        return jdb_platform_evidence((int)op->file->handle, op->file->file_system,
                                     &op->detail->info.evidence);
    case JDB_PUNCH: return jdb_platform_punch(op);
    case JDB_LOCK: return lock_file(op);
    case JDB_UNLOCK: return unlock_file(op);
    default: return jdb_posix_name(op);
    }
}
