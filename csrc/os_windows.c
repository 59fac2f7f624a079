/* os_windows.c: memory, time, threads, the notifier, and calls that are waited for. The notifier is
 * a completion port: workers post into the one that the files of a queue complete into, so there is
 * one place to wait. No descriptor of the host's can be polled for it. */
#include "os_windows.h"

#include <io.h>
#include <ntsecapi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "os_thread.h"

extern const struct jdb_backend jdb_backend_iocp, jdb_backend_threads, jdb_backend_sim;

const struct jdb_backend *const jdb_backends[] = {&jdb_backend_iocp, &jdb_backend_threads,
                                                  &jdb_backend_sim, NULL};

/* ---- the table of calls --------------------------------------------------------------------- */

enum { FLUSH_FLAGS_FILE_DATA_SYNC_ONLY = 4 }; /* 1 and 2 would leave the device's cache full */

static FARPROC of_ntdll(const char *name) {
    return GetProcAddress(GetModuleHandleW(L"ntdll.dll"), name);
}

/* Asked for by name: systems before Windows 8 lack it. */
static DWORD flush_data(HANDLE handle) {
    typedef LONG(WINAPI * flush_call)(HANDLE, ULONG, void *, ULONG, void *);
    typedef ULONG(WINAPI * error_call)(LONG);
    struct {
        void *status;
        ULONG_PTR information;
    } block;
    flush_call flush = (flush_call)(void (*)(void))of_ntdll("NtFlushBuffersFileEx");
    error_call error_of = (error_call)(void (*)(void))of_ntdll("RtlNtStatusToDosError");
    if (!flush || !error_of) return ERROR_CALL_NOT_IMPLEMENTED;
    LONG status = flush(handle, FLUSH_FLAGS_FILE_DATA_SYNC_ONLY, NULL, 0, &block);
    return status == 0 ? 0 : error_of(status);
}

struct jdb_windows_calls jdb_windows = {
    .create = CreateFileW,
    .read = ReadFile,
    .write = WriteFile,
    .cancel = CancelIoEx,
    .set_notification_modes = SetFileCompletionNotificationModes,
    .get_information = GetFileInformationByHandleEx,
    .set_information = SetFileInformationByHandle,
    .get_disk_free_space = GetDiskFreeSpaceW,
    .control = DeviceIoControl,
    .flush = FlushFileBuffers,
    .move = MoveFileExW,
    .flush_data = flush_data,
};

/* ---- calls that are waited for -------------------------------------------------------------- */

int64_t jdb_windows_wait_begin(struct jdb_windows_wait *w, uint64_t off) {
    memset(w, 0, sizeof *w);
    w->event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (!w->event) return jdb_windows_failure();
    w->overlapped.Offset = (DWORD)off;
    w->overlapped.OffsetHigh = (DWORD)(off >> 32);
    w->overlapped.hEvent = (HANDLE)((uintptr_t)w->event | 1);
    return 0;
}

int64_t jdb_windows_wait_end(struct jdb_windows_wait *w, HANDLE handle, BOOL finished) {
    DWORD error = finished ? 0 : GetLastError(), bytes = 0;
    if (error == ERROR_IO_PENDING) {
        WaitForSingleObject(w->event, INFINITE);
        error = 0;
    }
    if (!error && !GetOverlappedResult(handle, &w->overlapped, &bytes, FALSE))
        error = GetLastError();
    CloseHandle(w->event);
    return error ? -(int64_t)error : (int64_t)bytes;
}

int64_t jdb_windows_control(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out,
                            DWORD out_size) {
    struct jdb_windows_wait w;
    int64_t r = jdb_windows_wait_begin(&w, 0);
    if (r < 0) return -(int64_t)ERROR_NOT_ENOUGH_MEMORY;
    BOOL finished =
        jdb_windows.control(handle, code, in, in_size, out, out_size, NULL, &w.overlapped);
    return jdb_windows_wait_end(&w, handle, finished);
}

/* ---- memory, time, processes ---------------------------------------------------------------- */

size_t jdb_os_page_size(void) {
    static atomic_size_t known; /* workers that open files ask, too */
    size_t page = atomic_load_explicit(&known, memory_order_relaxed);
    if (page) return page;
    SYSTEM_INFO system;
    GetSystemInfo(&system);
    page = system.dwPageSize;
    atomic_store_explicit(&known, page, memory_order_relaxed);
    return page;
}

void *jdb_os_map(size_t size) {
    return VirtualAlloc(NULL, size, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
}

/* Nothing here is faster for memory in large pieces: buffers get mappings of their own. */
void *jdb_os_map_chunk(size_t size) {
    (void)size;
    return NULL;
}

void jdb_os_forbid(void *memory, size_t size) {
    (void)memory;
    (void)size;
}

void jdb_os_permit(void *memory, size_t size) {
    (void)memory;
    (void)size;
}

void jdb_os_unmap(void *map, size_t size) {
    (void)size;
    VirtualFree(map, 0, MEM_RELEASE);
}

int64_t jdb_os_now(void) {
    LARGE_INTEGER ticks, per_second;
    QueryPerformanceFrequency(&per_second);
    QueryPerformanceCounter(&ticks);
    int64_t second = per_second.QuadPart;
    return ticks.QuadPart / second * 1000000000 + ticks.QuadPart % second * 1000000000 / second;
}

static int64_t ns_of(const FILETIME *time) {
    return (int64_t)((uint64_t)time->dwHighDateTime << 32 | time->dwLowDateTime) * 100;
}

int64_t jdb_os_cpu(int thread) {
    FILETIME made, ended, system, user;
    BOOL known = thread ? GetThreadTimes(GetCurrentThread(), &made, &ended, &system, &user)
                        : GetProcessTimes(GetCurrentProcess(), &made, &ended, &system, &user);
    return known ? ns_of(&system) + ns_of(&user) : 0;
}

static volatile LONG noted_signal, catching;

/* The second one is in earnest: whatever takes so long, the process ends by it. */
static BOOL WINAPI note_signal(DWORD event) {
    LONG number = event == CTRL_C_EVENT ? SIGINT : SIGTERM;
    return InterlockedCompareExchange(&noted_signal, number, 0) == 0;
}

void jdb_os_catch_signals(int on) {
    if (on == catching) return;
    catching = on;
    noted_signal = 0;
    SetConsoleCtrlHandler(note_signal, on);
}

int jdb_os_signal(void) { return (int)noted_signal; }

int jdb_os_terminal(int fd, int *columns, int *lines) {
    CONSOLE_SCREEN_BUFFER_INFO screen;
    if (!_isatty(fd)) return -ENOTTY;
    *columns = 80;
    *lines = 24;
    if (GetConsoleScreenBufferInfo((HANDLE)_get_osfhandle(fd), &screen)) {
        *columns = screen.srWindow.Right - screen.srWindow.Left + 1;
        *lines = screen.srWindow.Bottom - screen.srWindow.Top + 1;
    }
    return 0;
}

DWORD jdb_windows_milliseconds(int64_t ns) {
    int64_t ms = (ns + 999999) / 1000000;
    return ns < 0 ? INFINITE : ms < (int64_t)INFINITE ? (DWORD)ms : INFINITE - 1;
}

int jdb_os_entropy(void *bytes, size_t size) { return RtlGenRandom(bytes, (ULONG)size) ? 0 : -EIO; }

void jdb_os_sleep(int64_t ns) {
    if (ns > 0) Sleep(jdb_windows_milliseconds(ns));
}

uint32_t jdb_os_forks; /* there are none */
unsigned jdb_os_fork_generation(void) { return 0; }

int jdb_os_has_barrier(void) { return 0; }

/* A finalizer of the host may call in here after its loader has let go of the library. */
void jdb_os_stay_loaded(void) {
    HMODULE module;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS,
                       (const wchar_t *)(uintptr_t)jdb_os_stay_loaded, &module);
}

const char *jdb_os_getenv(const char *name) {
    const char *value = getenv(name);
    return value && value[0] ? value : NULL;
}

/* The documented question is answered by the manifest of the program, not by the system. */
const char *jdb_os_platform(void) {
    typedef LONG(WINAPI * call)(OSVERSIONINFOW *);
    static _Thread_local char text[64];
    OSVERSIONINFOW version = {.dwOSVersionInfoSize = sizeof version};
    call get_version = (call)(void (*)(void))of_ntdll("RtlGetVersion");
    if (!get_version || get_version(&version) != 0) return "Windows";
    snprintf(text, sizeof text, "Windows %lu.%lu.%lu", version.dwMajorVersion,
             version.dwMinorVersion, version.dwBuildNumber);
    return text;
}

/* ---- threads -------------------------------------------------------------------------------- */

int jdb_os_thread_start(pthread_t *thread, size_t stack_size, void *(*run)(void *),
                        void *argument) {
    pthread_attr_t attributes;
    int r = pthread_attr_init(&attributes);
    if (r != 0) return r;
    pthread_attr_setstacksize(&attributes, stack_size);
    r = pthread_create(thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return r;
}

void jdb_os_clock_cond_init(pthread_cond_t *condition) { pthread_cond_init(condition, NULL); }

void jdb_os_clock_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock, int64_t until_ns) {
    int64_t rest = until_ns - jdb_os_now();
    if (rest <= 0) return;
    struct timespec limit = {(time_t)(rest / 1000000000), (long)(rest % 1000000000)};
    pthread_cond_timedwait_relative_np(condition, lock, &limit);
}

/* ---- notifier ------------------------------------------------------------------------------- */

/* The system's handles have 32 significant bits. */
static HANDLE port_of(int handle) { return (HANDLE)(intptr_t)handle; }

int jdb_os_notify_new(void) {
    HANDLE port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    return port ? (int)(intptr_t)port : (int)jdb_windows_failure();
}

void jdb_os_notify_free(int handle) { CloseHandle(port_of(handle)); }

int jdb_os_notify_fd(int handle) {
    (void)handle;
    return -EOPNOTSUPP;
}

void jdb_os_notify_signal(int handle) { PostQueuedCompletionStatus(port_of(handle), 0, 0, NULL); }

static int take_signals(int handle, DWORD timeout_ms) {
    OVERLAPPED_ENTRY entries[16];
    ULONG count = 0;
    BOOL some =
        GetQueuedCompletionStatusEx(port_of(handle), entries, 16, &count, timeout_ms, FALSE);
    return some && count == 16;
}

void jdb_os_notify_clear(int handle) {
    while (take_signals(handle, 0)) {
    }
}

void jdb_os_notify_wait(int handle, int64_t timeout_ns) {
    if (take_signals(handle, jdb_windows_milliseconds(timeout_ns))) jdb_os_notify_clear(handle);
}

/* A relay stands in for a descriptor that can be polled; there is none. */
int jdb_os_relay_new(int notify, struct jdb_os_relay **relay, const char **path) {
    (void)notify;
    (void)relay;
    (void)path;
    return -EOPNOTSUPP;
}

int jdb_os_relay_accept(struct jdb_os_relay *relay) {
    (void)relay;
    return -EOPNOTSUPP;
}

void jdb_os_relay_arm(struct jdb_os_relay *relay) { (void)relay; }
void jdb_os_relay_free(struct jdb_os_relay *relay) { (void)relay; }
