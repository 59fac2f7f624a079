/* system_windows.h: see system.h. Tests run one after the other in one process, and the first that
 * fails ends it; gates are pipes with overlapped I/O, whose reads are truly in flight. */
#ifndef SYSTEM_WINDOWS_H
#define SYSTEM_WINDOWS_H

#include <signal.h>

#include "os_windows.h"

/* Tests of run_on_every_backend that mean nothing here. */
static const char *const not_here[] = {"short transfers",
                                       "wait for one",
                                       "directories",
                                       "opening",
                                       "polling",
                                       "polling, workers only",
                                       "polling, empty transfer",
                                       "polling, close behind a dropped write",
                                       "polling, waiting for the abandoned",
                                       "polling, a flush that can start",
                                       NULL};
static const char *const not_here_reason =
    "needs descriptors that can be polled, links or modes, which Windows lacks";

static inline int setenv(const char *name, const char *value, int overwrite) {
    (void)overwrite;
    return _putenv_s(name, value);
}

static inline int unsetenv(const char *name) { return _putenv_s(name, ""); }

static inline int symlink(const char *to, const char *path) {
    (void)to;
    (void)path;
    return -1;
}

static inline int mkfifo(const char *path, unsigned mode) {
    (void)path;
    (void)mode;
    return -1;
}

/* Else a debugger would hide the end of the process from its parent. */
static inline LONG WINAPI test_crashes(EXCEPTION_POINTERS *what) {
    printf("exception %lx in %s\n", what->ExceptionRecord->ExceptionCode, test_name);
    _exit(1);
}

static inline void test_aborts(int number) {
    printf("signal %d in %s\n", number, test_name);
    _exit(1);
}

static inline void test_prepare(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    SetUnhandledExceptionFilter(test_crashes);
    signal(SIGABRT, test_aborts);
}

static inline void CALLBACK test_hangs(void *argument, BOOLEAN fired) {
    (void)argument;
    (void)fired;
    printf("hangs in %s\n", test_name);
    _exit(1);
}

/* Names what runs now; a test that takes longer than `seconds` has failed. */
static inline void test_begin(const char *name, unsigned seconds) {
    static HANDLE timer;
    if (timer) CHECK(DeleteTimerQueueTimer(NULL, timer, INVALID_HANDLE_VALUE));
    test_name = name;
    CHECK(CreateTimerQueueTimer(&timer, NULL, test_hangs, NULL, seconds * 1000, 0, 0));
}

/* An empty directory that the runner gave. */
static inline const char *test_dir(void) {
    const char *given = getenv("JDBFS_TEST_DIR");
    if (!given || !given[0]) test_fail(__FILE__, __LINE__, "JDBFS_TEST_DIR is not set");
    return given;
}

static inline int test_apart(const char *name, unsigned seconds, void (*run)(const void *),
                             const void *argument) {
    test_begin(name, seconds);
    run(argument);
    return 0;
}

/* ---- gates ----------------------------------------------------------------------------------- */

static inline void gate_open(int for_reading, intptr_t *ours, intptr_t *other) {
    static unsigned number;
    enum { ROOM = 4096 };
    static const char full[ROOM];
    char name[64];
    snprintf(name, sizeof name, "\\\\.\\pipe\\jdbfs-%lu-%u", GetCurrentProcessId(), number++);
    HANDLE pipe = CreateNamedPipeA(name, PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                                   PIPE_TYPE_BYTE | PIPE_WAIT, 1, ROOM, ROOM, 0, NULL);
    CHECK(pipe != INVALID_HANDLE_VALUE);
    HANDLE end = CreateFileA(name, GENERIC_READ | GENERIC_WRITE, 0, NULL, OPEN_EXISTING, 0, NULL);
    CHECK(end != INVALID_HANDLE_VALUE);
    struct jdb_windows_file *file = jdb_windows_file_new(pipe, NULL);
    CHECK(file);
    file->writable = 1;
    atomic_store(&file->valid_end, UINT64_MAX); /* writes wait in the system, not in the pool */
    if (!for_reading) {
        struct jdb_windows_wait w;
        CHECK_EQ(jdb_windows_wait_begin(&w, 0), 0);
        BOOL sent = WriteFile(pipe, full, ROOM, NULL, &w.overlapped);
        CHECK_EQ(jdb_windows_wait_end(&w, pipe, sent), ROOM);
    }
    *ours = (intptr_t)file;
    *other = (intptr_t)end;
}

static inline int64_t gate_write(intptr_t other, const void *data, size_t len) {
    DWORD n = 0;
    return WriteFile((HANDLE)other, data, (DWORD)len, &n, NULL) ? (int64_t)n : -1;
}

static inline void gate_close(intptr_t other) { CloseHandle((HANDLE)other); }

/* The operation's end is closed: nobody is left to read. */
static inline int gate_is_broken(intptr_t other) { return gate_write(other, "", 1) < 0; }

static inline int readable(int fd, int timeout_ms) {
    test_fail(__FILE__, __LINE__, "nothing can be polled here: %d for %d ms", fd, timeout_ms);
    return 0;
}

#endif
