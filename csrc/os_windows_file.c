/* os_windows_file.c: operations on files. Handles are opened for overlapped I/O whatever the
 * backend: a worker waits for its own call, the completion port takes the others.
 *
 * Everybody may read, write, rename and remove a file that is open here; who wants to be alone
 * takes the lock. It lies behind all data, as the system's locks keep out reads and writes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "os_windows.h"

const DWORD jdb_windows_share_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

struct jdb_windows_file *jdb_windows_file_new(HANDLE handle, const wchar_t *path) {
    size_t units = path ? wcslen(path) + 1 : 1;
    struct jdb_windows_file *file = calloc(1, sizeof *file + units * sizeof *file->path);
    if (!file) return NULL;
    file->handle = handle;
    if (path) wcscpy(file->path, path);
    return file;
}

static struct jdb_windows_file *file_of(const jdb_op *op) {
    return jdb_windows_file_of(op->file->handle);
}

void jdb_os_close(intptr_t handle) {
    struct jdb_windows_file *file = jdb_windows_file_of(handle);
    CloseHandle(file->handle);
    free(file);
}

int64_t jdb_os_size(intptr_t handle) {
    LARGE_INTEGER size;
    if (!GetFileSizeEx(jdb_windows_file_of(handle)->handle, &size)) return jdb_windows_failure();
    return size.QuadPart;
}

/* ---- transfers ------------------------------------------------------------------------------ */

int64_t jdb_windows_transferred(int is_read, DWORD error, uint64_t bytes) {
    if (error == 0) return (int64_t)bytes;
    return is_read && error == ERROR_HANDLE_EOF ? 0 : -jdb_windows_errno(error);
}

void jdb_windows_note_written(struct jdb_windows_file *file, uint64_t end) {
    uint_fast64_t known = atomic_load(&file->valid_end);
    while (known < end && !atomic_compare_exchange_weak(&file->valid_end, &known, end)) {
    }
}

/* Bytes, or -errno. */
static int64_t transfer_at(struct jdb_windows_file *file, int is_read, void *memory, DWORD len,
                           uint64_t off) {
    struct jdb_windows_wait w;
    int64_t r = jdb_windows_wait_begin(&w, off);
    if (r < 0) return r;
    BOOL finished = is_read ? jdb_windows.read(file->handle, memory, len, NULL, &w.overlapped)
                            : jdb_windows.write(file->handle, memory, len, NULL, &w.overlapped);
    r = jdb_windows_wait_end(&w, file->handle, finished);
    if (!is_read && r > 0) jdb_windows_note_written(file, off + (uint64_t)r);
    return jdb_windows_transferred(is_read, r < 0 ? (DWORD)-r : 0, (uint64_t)r);
}

/* No write is durable, or untorn, by itself; see describe. */
static int64_t transfer(jdb_op *op) {
    uint8_t *memory = op->buf->base + op->buf_off + op->moved;
    if (op->rw) return -EOPNOTSUPP;
    return transfer_at(file_of(op), op->step == JDB_READ, memory, op->chunk, op->off + op->moved);
}

/* ---- durability ----------------------------------------------------------------------------- */

/* Whether the call is unknown here or to this file system; anything else is its answer. */
static int is_lack(DWORD error) {
    return error == ERROR_CALL_NOT_IMPLEMENTED || error == ERROR_NOT_SUPPORTED ||
           error == ERROR_INVALID_FUNCTION || error == ERROR_INVALID_PARAMETER;
}

static int64_t flush_handle(HANDLE handle, int data_only) {
    DWORD error = data_only ? jdb_windows.flush_data(handle) : ERROR_NOT_SUPPORTED;
    /* Never tried again after a failure: the second try could succeed without the data. */
    if (!is_lack(error)) return error ? -jdb_windows_errno(error) : 0;
    return jdb_windows.flush(handle) ? 0 : jdb_windows_failure();
}

/* Names are the file system's own affair where it refuses this. */
static int64_t flush_directory(HANDLE handle) {
    if (jdb_windows.flush(handle)) return 0;
    DWORD error = GetLastError();
    return error == ERROR_ACCESS_DENIED || is_lack(error) ? 0 : -jdb_windows_errno(error);
}

/* Flushing is writing: a file that is open for reading is opened once more. */
int64_t jdb_windows_sync(struct jdb_windows_file *file, int data_only) {
    if (file->directory) return flush_directory(file->handle);
    if (file->writable) return flush_handle(file->handle, data_only);
    HANDLE again = ReOpenFile(file->handle, GENERIC_WRITE, jdb_windows_share_all, 0);
    if (again == INVALID_HANDLE_VALUE) return jdb_windows_failure();
    int64_t r = flush_handle(again, data_only);
    CloseHandle(again);
    return r;
}

/* ---- size and space ------------------------------------------------------------------------- */

static int64_t set_size(struct jdb_windows_file *file, uint64_t len) {
    FILE_END_OF_FILE_INFO end = {.EndOfFile.QuadPart = (int64_t)len};
    uint_fast64_t known = atomic_load(&file->valid_end);
    /* Before the size: a write that comes later must not take old bytes for written ones. */
    while (known > len && !atomic_compare_exchange_weak(&file->valid_end, &known, len)) {
    }
    BOOL set = jdb_windows.set_information(file->handle, FileEndOfFileInfo, &end, sizeof end);
    if (set) return 0;
    DWORD error = GetLastError();
    return error == ERROR_INVALID_PARAMETER ? -EFBIG : -jdb_windows_errno(error);
}

/* Less than the file has would cut it off. What lies behind its end goes with the last handle. */
static int64_t reserve(struct jdb_windows_file *file, uint64_t len) {
    FILE_STANDARD_INFO there;
    FILE_ALLOCATION_INFO wanted = {.AllocationSize.QuadPart = (int64_t)len};
    if (!jdb_windows.get_information(file->handle, FileStandardInfo, &there, sizeof there))
        return jdb_windows_failure();
    if ((uint64_t)there.AllocationSize.QuadPart >= len) return 0;
    BOOL set =
        jdb_windows.set_information(file->handle, FileAllocationInfo, &wanted, sizeof wanted);
    return set ? 0 : jdb_windows_failure();
}

/* `from` and `to` are multiples of the write alignment. */
static int64_t write_zeros(const jdb_file *core, uint64_t from, uint64_t to) {
    struct jdb_windows_file *file = jdb_windows_file_of(core->handle);
    DWORD size = 1 << 20;
    void *zeros = jdb_os_map(size);
    if (!zeros) return -ENOMEM;
    int64_t r = 0;
    while (from < to && r >= 0) {
        DWORD piece = to - from < size ? (DWORD)(to - from) : size;
        r = transfer_at(file, 0, zeros, piece, from);
        if (r >= 0 && (uint64_t)r < core->write_align) r = -ENOSPC;
        if (r > 0) from += (uint64_t)r / core->write_align * core->write_align;
    }
    jdb_os_unmap(zeros, size);
    return r < 0 ? r : 0;
}

static int64_t enough_space(const jdb_file *core, uint64_t more) {
    uint64_t free_bytes, total;
    int64_t r = jdb_windows_space(core->path, &free_bytes, &total);
    return r == 0 && more > free_bytes ? -ENOSPC : 0;
}

/* Bytes the file has stay. */
static int64_t fill_with_zeros(const jdb_file *core, uint64_t size, uint64_t len) {
    struct jdb_windows_file *file = jdb_windows_file_of(core->handle);
    uint64_t align = core->write_align;
    uint64_t from = (size + align - 1) / align * align;
    int64_t r = enough_space(core, len - size);
    if (r == 0) r = write_zeros(core, from, (len + align - 1) / align * align);
    if (r == 0) r = set_size(file, len);
    /* Nothing else is written meanwhile (queue.c), so nothing else is cut off. */
    if (r < 0) set_size(file, size);
    return r;
}

static int64_t preallocate(jdb_op *op) {
    struct jdb_windows_file *file = file_of(op);
    int64_t size = jdb_os_size(op->file->handle);
    if (size < 0) return size;
    if (op->len <= (uint64_t)size) return 0;
    if (op->len > INT64_MAX - (1 << 20)) return -EFBIG;
    int64_t r = reserve(file, op->len);
    if (op->how == JDB_PREALLOC_KEEP) return r;
    /* Without a reservation zeros keep the promise as well. */
    int zeros = op->how == JDB_PREALLOC_ZERO || r == -EOPNOTSUPP;
    if (r < 0 && r != -EOPNOTSUPP) return r;
    return zeros ? fill_with_zeros(op->file, (uint64_t)size, op->len) : set_size(file, op->len);
}

/* A hole is given back in a sparse file only. */
static int64_t punch(jdb_op *op) {
    struct {
        LARGE_INTEGER from, to;
    } range = {{.QuadPart = (int64_t)op->off}, {.QuadPart = (int64_t)(op->off + op->len)}};
    HANDLE handle = file_of(op)->handle;
    if (op->len == 0) return 0;
    int64_t r = jdb_windows_control(handle, FSCTL_SET_SPARSE, NULL, 0, NULL, 0);
    if (r >= 0) r = jdb_windows_control(handle, FSCTL_SET_ZERO_DATA, &range, sizeof range, NULL, 0);
    return r < 0 ? -jdb_windows_errno((DWORD)-r) : 0;
}

/* ---- locks ---------------------------------------------------------------------------------- */

enum { LOCK_HIGH = 0x7fffffff, LOCKED_SHARED = 1, LOCKED_EXCLUSIVE = 2 };

static int64_t take_lock(HANDLE handle, int how) {
    struct jdb_windows_wait w;
    DWORD flags = LOCKFILE_FAIL_IMMEDIATELY;
    if (how == LOCKED_EXCLUSIVE) flags |= LOCKFILE_EXCLUSIVE_LOCK;
    int64_t r = jdb_windows_wait_begin(&w, (uint64_t)LOCK_HIGH << 32);
    if (r < 0) return r;
    r = jdb_windows_wait_end(&w, handle, LockFileEx(handle, flags, 0, 1, 0, &w.overlapped));
    return r < 0 ? -jdb_windows_errno((DWORD)-r) : 0;
}

static int64_t drop_lock(HANDLE handle) {
    OVERLAPPED at = {.OffsetHigh = LOCK_HIGH};
    return UnlockFileEx(handle, 0, 1, 0, &at) ? 0 : jdb_windows_failure();
}

static int64_t lock_first(HANDLE handle, int how, char **cause) {
    int64_t r = take_lock(handle, how);
    if (r == -EAGAIN) *cause = strdup("another open file holds a lock on it, shared or exclusive");
    return r;
}

/* The system would let the new lock wait for the old one: that goes first, and comes back when the
 * new one is refused. */
static int64_t lock_file(jdb_op *op) {
    jdb_file *file = op->file;
    HANDLE handle = file_of(op)->handle;
    int how = op->how == JDB_LOCK_EXCLUSIVE ? LOCKED_EXCLUSIVE : LOCKED_SHARED;
    int held = file->locked;
    if (held == how) return 0;
    if (held) drop_lock(handle);
    int64_t r = lock_first(handle, how, &op->detail->cause);
    if (r == 0) {
        file->locked = how;
    } else if (held && take_lock(handle, held) != 0) {
        file->locked = 0;
        free(op->detail->cause);
        op->detail->cause = strdup("another process took the lock, and the one held is lost");
    }
    return r;
}

void jdb_os_unlock(intptr_t handle) { drop_lock(jdb_windows_file_of(handle)->handle); }

static int64_t unlock_file(jdb_op *op) {
    if (!op->file->locked) return 0;
    int64_t r = drop_lock(file_of(op)->handle);
    if (r == 0) op->file->locked = 0;
    return r;
}

/* ---- opening -------------------------------------------------------------------------------- */

/* Opens or makes it, with these flags; *made tells which. INVALID_HANDLE_VALUE: see
 * GetLastError. */
static HANDLE open_or_make(const wchar_t *path, const jdb_open *how, DWORD flags, int *made) {
    DWORD access = GENERIC_READ | (how->flags & JDB_OPEN_WRITE ? GENERIC_WRITE : 0);
    DWORD attributes = how->mode & 0200 ? FILE_ATTRIBUTE_NORMAL : FILE_ATTRIBUTE_READONLY;
    *made = 0;
    for (;;) {
        HANDLE handle = INVALID_HANDLE_VALUE;
        if (!(how->flags & JDB_OPEN_EXCLUSIVE)) {
            handle = jdb_windows.create(path, access, jdb_windows_share_all, NULL, OPEN_EXISTING,
                                        flags, NULL);
            if (handle != INVALID_HANDLE_VALUE || GetLastError() != ERROR_FILE_NOT_FOUND ||
                !(how->flags & JDB_OPEN_CREATE))
                return handle;
        }
        handle = jdb_windows.create(path, access, jdb_windows_share_all, NULL, CREATE_NEW,
                                    flags | attributes, NULL);
        *made = handle != INVALID_HANDLE_VALUE;
        /* Made by somebody else in between: opened then. */
        if (*made || GetLastError() != ERROR_FILE_EXISTS || (how->flags & JDB_OPEN_EXCLUSIVE))
            return handle;
    }
}

static DWORD flags_of(const jdb_open *how, int direct) {
    DWORD flags = FILE_FLAG_OVERLAPPED;
    if (direct) flags |= FILE_FLAG_NO_BUFFERING;
    if (how->flags & JDB_OPEN_DSYNC) flags |= FILE_FLAG_WRITE_THROUGH;
    if (how->flags & JDB_OPEN_NOFOLLOW) flags |= FILE_FLAG_OPEN_REPARSE_POINT;
    return flags;
}

static int64_t open_failure(jdb_op *op, const wchar_t *path) {
    DWORD error = GetLastError(), attributes = jdb_windows_attributes(path);
    int is_there = attributes != INVALID_FILE_ATTRIBUTES;
    if (error == ERROR_ACCESS_DENIED && is_there && (attributes & FILE_ATTRIBUTE_DIRECTORY))
        return op->detail->open.flags & JDB_OPEN_EXCLUSIVE ? -EEXIST : -EISDIR;
    if (error == ERROR_INVALID_PARAMETER && op->detail->open.direct == JDB_DIRECT_REQUIRE) {
        op->file->info.direct_reason = "the file system refuses direct I/O; option direct = "
                                       "\"prefer\" or \"off\" uses the page cache";
        return -EOPNOTSUPP;
    }
    SetLastError(error);
    return jdb_windows_path_failure(path);
}

static int64_t accept_kind(HANDLE handle, jdb_op *op, DWORD *attributes) {
    BY_HANDLE_FILE_INFORMATION what;
    if (GetFileType(handle) != FILE_TYPE_DISK || !GetFileInformationByHandle(handle, &what)) {
        op->file->info.direct_reason = "neither a regular file nor a block device";
        return -EINVAL;
    }
    *attributes = what.dwFileAttributes;
    int link = (*attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0;
    return link && (op->detail->open.flags & JDB_OPEN_NOFOLLOW) ? -ELOOP : 0;
}

static int64_t lock_at_open(HANDLE handle, jdb_op *op) {
    unsigned flags = op->detail->open.flags;
    if (!(flags & (JDB_OPEN_LOCK_SHARED | JDB_OPEN_LOCK_EXCLUSIVE))) return 0;
    int how = flags & JDB_OPEN_LOCK_EXCLUSIVE ? LOCKED_EXCLUSIVE : LOCKED_SHARED;
    int64_t r = lock_first(handle, how, &op->detail->cause);
    if (r == 0) op->file->locked = how;
    return r;
}

/* An empty file may have space that was reserved behind its end. */
static int64_t make_empty(struct jdb_windows_file *file) {
    FILE_STANDARD_INFO there;
    FILE_ALLOCATION_INFO none = {.AllocationSize.QuadPart = 0};
    if (!jdb_windows.get_information(file->handle, FileStandardInfo, &there, sizeof there))
        return jdb_windows_failure();
    if (there.EndOfFile.QuadPart > 0) return set_size(file, 0);
    if (there.AllocationSize.QuadPart == 0) return 0;
    BOOL set = jdb_windows.set_information(file->handle, FileAllocationInfo, &none, sizeof none);
    return set || is_lack(GetLastError()) ? 0 : jdb_windows_failure();
}

static void describe(struct jdb_windows_file *file, jdb_op *op, int direct) {
    jdb_file *core = op->file;
    const jdb_open *how = &op->detail->open;
    jdb_windows_file_system(file->handle, core->file_system, sizeof core->file_system);
    core->info.method = JDB_METHOD_FLUSH; /* there is no flag for one durable write */
    core->info.policy = how->direct;
    core->info.writable = file->writable;
    core->info.dsync = (how->flags & JDB_OPEN_DSYNC) != 0;
    core->info.direct = direct;
    if (direct) {
        jdb_windows_alignment(file->handle, &core->info);
        core->memory_align = core->info.memory_align;
        core->read_align = core->info.read_align;
        core->write_align = core->info.write_align;
        core->info.direct_reason = "FILE_FLAG_NO_BUFFERING accepted";
    } else {
        core->info.align_source = "none needed without direct I/O";
        core->info.direct_reason = how->direct == JDB_DIRECT_OFF
                                       ? "option direct = \"off\""
                                       : "the file system refused FILE_FLAG_NO_BUFFERING";
    }
}

/* What may be refused comes before what changes an existing file. Takes the handle, also when it
 * fails. */
static int64_t finish_open(HANDLE handle, jdb_op *op, int made, int direct) {
    const jdb_open *how = &op->detail->open;
    struct jdb_windows_file *file = jdb_windows_file_new(handle, NULL);
    DWORD attributes = 0;
    if (!file) {
        CloseHandle(handle);
        return -ENOMEM;
    }
    file->writable = (how->flags & JDB_OPEN_WRITE) != 0;
    int64_t r = accept_kind(handle, op, &attributes);
    if (r == 0) r = lock_at_open(handle, op);
    if (r == 0 && (how->flags & JDB_OPEN_TRUNCATE)) r = make_empty(file);
    if (r == 0 && (how->flags & JDB_OPEN_DURABLE)) r = jdb_windows_sync(file, 0);
    if (r < 0) {
        jdb_os_close((intptr_t)file);
        return r;
    }
    file->blocks = !direct || (attributes & (FILE_ATTRIBUTE_COMPRESSED | FILE_ATTRIBUTE_ENCRYPTED));
    if (!made) atomic_store(&file->valid_end, jdb_windows_valid_end(handle));
    describe(file, op, direct);
    op->file->handle = (intptr_t)file;
    return 0;
}

static int64_t open_wide(jdb_op *op, const wchar_t *path) {
    const jdb_open *how = &op->detail->open;
    int made, direct = how->direct != JDB_DIRECT_OFF;
    HANDLE handle = open_or_make(path, how, flags_of(how, direct), &made);
    if (handle == INVALID_HANDLE_VALUE && GetLastError() == ERROR_INVALID_PARAMETER &&
        how->direct == JDB_DIRECT_PREFER) {
        direct = 0;
        handle = open_or_make(path, how, flags_of(how, direct), &made);
    }
    if (handle == INVALID_HANDLE_VALUE) return open_failure(op, path);
    return finish_open(handle, op, made, direct);
}

/* No device is opened here; what else stands in the way says more. */
static int64_t refuse_device(jdb_op *op, const wchar_t *path) {
    DWORD attributes = GetFileAttributesW(path);
    op->file->info.direct_reason = "block devices cannot be opened on Windows";
    if (wcsncmp(path, L"\\\\.\\", 4) == 0) return -EOPNOTSUPP;
    if (attributes == INVALID_FILE_ATTRIBUTES) return jdb_windows_path_failure(path);
    if (attributes & FILE_ATTRIBUTE_DIRECTORY) return -EISDIR;
    op->file->info.direct_reason = "not a block device, but option device was given";
    return -EINVAL;
}

static int64_t open_file(jdb_op *op) {
    const char *path = op->detail->path;
    int64_t parent = -1;
    wchar_t *wide;
    int64_t r = jdb_windows_path(path, &wide);
    if (r < 0) return r;
    if (op->detail->open.flags & JDB_OPEN_DEVICE) {
        r = refuse_device(op, wide);
        free(wide);
        return r;
    }
    if (op->detail->open.flags & JDB_OPEN_DURABLE) {
        parent = jdb_names_open_parent(&jdb_windows_names, NULL, path);
        if (parent < 0) r = parent;
    }
    if (r == 0) r = open_wide(op, wide);
    if (parent >= 0) r = jdb_names_sync_parent(&jdb_windows_names, NULL, parent, r);
    free(wide);
    return r;
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* Several closes of one file may wait together: the first closes, the rest find it done. */
static int64_t close_file(jdb_op *op) {
    intptr_t handle = __atomic_exchange_n(&op->file->handle, (intptr_t)-1, __ATOMIC_ACQ_REL);
    if (handle >= 0) jdb_os_close(handle);
    return 0;
}

int64_t jdb_os_perform(jdb_op *op) {
    switch ((jdb_code)op->step) {
    case JDB_READ:
    case JDB_WRITE: return transfer(op);
    case JDB_SYNC_ALL: return jdb_windows_sync(file_of(op), 0);
    case JDB_SYNC_DATA: return jdb_windows_sync(file_of(op), 1);
    case JDB_TRUNCATE: return set_size(file_of(op), op->len);
    case JDB_PREALLOCATE: return preallocate(op);
    case JDB_OPEN: return open_file(op);
    case JDB_CLOSE: return close_file(op);
    case JDB_SIZE: return jdb_os_size(op->file->handle);
    case JDB_STAT: return jdb_windows_stat(file_of(op)->handle, &op->detail->stat);
    case JDB_INFO:
        return jdb_windows_evidence(file_of(op)->handle, op->file->file_system,
                                    &op->detail->info.evidence);
    case JDB_PUNCH: return punch(op);
    case JDB_LOCK: return lock_file(op);
    case JDB_UNLOCK: return unlock_file(op);
    default: return jdb_windows_name(op);
    }
}
