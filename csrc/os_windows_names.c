/* os_windows_names.c: questions about names, and the calls that changes of names are made of.
 * Where the system has it, a name is replaced or removed although somebody has the file open, as
 * elsewhere (POSIX semantics: Windows 10 1607, NTFS). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os_windows.h"

/* Newer than the headers of some compilers. */
enum { RENAME_INFO_EX = 22, DISPOSITION_INFO_EX = 21 };
enum { RENAME_REPLACE = 1, RENAME_POSIX = 2 };
enum { REMOVE = 1, REMOVE_POSIX = 2, REMOVE_READONLY = 0x10 };

struct rename_info {
    DWORD flags;
    HANDLE root;
    DWORD bytes;
    wchar_t name[];
};

/* ---- what is there -------------------------------------------------------------------------- */

static HANDLE open_name(const wchar_t *path, DWORD access, DWORD flags) {
    return CreateFileW(path, access, jdb_windows_share_all, NULL, OPEN_EXISTING,
                       flags | FILE_FLAG_BACKUP_SEMANTICS, NULL);
}

DWORD jdb_windows_attributes(const wchar_t *path) {
    DWORD error = GetLastError(), attributes = GetFileAttributesW(path);
    SetLastError(error);
    return attributes;
}

enum { NAME_UNITS_MAX = 255 };

static int has_long_name(const wchar_t *path) {
    size_t len;
    for (; *path; path += len + (path[len] != 0)) {
        len = wcscspn(path, L"\\");
        if (len > NAME_UNITS_MAX) return 1;
    }
    return 0;
}

int64_t jdb_windows_path_failure(const wchar_t *path) {
    int64_t r = jdb_windows_failure();
    if (r != -ENOENT) return r;
    if (has_long_name(path)) return -ENAMETOOLONG;
    wchar_t *above = wcsdup(path), *cut;
    while (above && (cut = wcsrchr(above, L'\\'))) {
        *cut = 0;
        DWORD attributes = GetFileAttributesW(above);
        if (attributes == INVALID_FILE_ATTRIBUTES) continue;
        if (!(attributes & FILE_ATTRIBUTE_DIRECTORY)) r = -ENOTDIR;
        break;
    }
    free(above);
    return r;
}

static int is_directory(const wchar_t *path) {
    DWORD attributes = jdb_windows_attributes(path);
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY);
}

static int64_t ns_since_1970(int64_t ticks) { return (ticks - INT64_C(116444736000000000)) * 100; }

static int64_t ns_of(const FILETIME *time) {
    return ns_since_1970((int64_t)((uint64_t)time->dwHighDateTime << 32 | time->dwLowDateTime));
}

int64_t jdb_windows_stat(HANDLE handle, jdb_stat *st) {
    BY_HANDLE_FILE_INFORMATION what;
    FILE_STANDARD_INFO space;
    FILE_BASIC_INFO times;
    if (!GetFileInformationByHandle(handle, &what) ||
        !GetFileInformationByHandleEx(handle, FileStandardInfo, &space, sizeof space) ||
        !GetFileInformationByHandleEx(handle, FileBasicInfo, &times, sizeof times))
        return jdb_windows_failure();
    int directory = (what.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
    st->size = (uint64_t)what.nFileSizeHigh << 32 | what.nFileSizeLow;
    st->allocated = (uint64_t)space.AllocationSize.QuadPart;
    st->inode = (uint64_t)what.nFileIndexHigh << 32 | what.nFileIndexLow;
    st->device = what.dwVolumeSerialNumber;
    st->links = what.nNumberOfLinks;
    st->mode = what.dwFileAttributes & FILE_ATTRIBUTE_READONLY ? 0444 : 0666;
    if (directory) st->mode |= 0111;
    st->atime_ns = ns_of(&what.ftLastAccessTime);
    st->mtime_ns = ns_of(&what.ftLastWriteTime);
    st->ctime_ns = ns_since_1970(times.ChangeTime.QuadPart);
    st->type = directory ? 'd' : GetFileType(handle) == FILE_TYPE_DISK ? 'f' : 'o';
    return 0;
}

static int64_t path_stat(jdb_op *op, const wchar_t *path) {
    HANDLE handle = open_name(path, 0, 0);
    if (handle == INVALID_HANDLE_VALUE) return jdb_windows_path_failure(path);
    int64_t r = jdb_windows_stat(handle, &op->detail->stat);
    CloseHandle(handle);
    return r < 0 ? r : (int64_t)op->detail->stat.size;
}

static int64_t path_exists(const wchar_t *path) {
    HANDLE handle = open_name(path, 0, 0);
    if (handle == INVALID_HANDLE_VALUE) {
        int64_t r = jdb_windows_path_failure(path);
        return r == -ENOENT || r == -ENOTDIR ? 0 : r;
    }
    CloseHandle(handle);
    return 1;
}

/* ---- ls ------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names one after the other, each with its NUL, sorted by bytes; takes the list. */
static int64_t pack_names(struct jdb_detail *d, char **list) {
    size_t size = 0;
    qsort(list, d->names_count, sizeof *list, by_name);
    for (size_t i = 0; i < d->names_count; i++) size += strlen(list[i]) + 1;
    d->names = malloc(size ? size : 1);
    for (size_t i = 0; i < d->names_count; i++) {
        size_t len = strlen(list[i]) + 1;
        if (d->names) memcpy(d->names + d->names_size, list[i], len);
        d->names_size += len;
    }
    return d->names ? 0 : -ENOMEM;
}

static int64_t add_name(struct jdb_detail *d, char ***list, const WIN32_FIND_DATAW *entry) {
    char name[4 * MAX_PATH];
    DWORD no_file = FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT;
    if (entry->dwFileAttributes & no_file) return 0;
    /* A name that is no Unicode cannot be told, nor opened by a path of ours. */
    if (!jdb_windows_utf8(entry->cFileName, name, sizeof name)) return -EILSEQ;
    if ((d->names_count & (d->names_count - 1)) == 0) {
        char **grown = realloc(*list, (2 * d->names_count + 1) * sizeof **list);
        if (!grown) return -ENOMEM;
        *list = grown;
    }
    (*list)[d->names_count] = strdup(name);
    if (!(*list)[d->names_count]) return -ENOMEM;
    d->names_count++;
    return 0;
}

static int64_t path_ls(jdb_op *op, const wchar_t *path) {
    struct jdb_detail *d = op->detail;
    WIN32_FIND_DATAW entry;
    char **list = NULL;
    if (!is_directory(path))
        return GetFileAttributesW(path) == INVALID_FILE_ATTRIBUTES ? jdb_windows_path_failure(path)
                                                                   : -ENOTDIR;
    wchar_t *pattern = jdb_windows_join(path, "*");
    if (!pattern) return -ENOMEM;
    HANDLE find = FindFirstFileExW(pattern, FindExInfoBasic, &entry, FindExSearchNameMatch, NULL,
                                   FIND_FIRST_EX_LARGE_FETCH);
    int64_t r = find == INVALID_HANDLE_VALUE ? jdb_windows_failure() : 0;
    free(pattern);
    if (r < 0) return r == -ENOENT ? 0 : r; /* an empty root has not even "." */
    do r = add_name(d, &list, &entry);
    while (r == 0 && FindNextFileW(find, &entry));
    if (r == 0 && GetLastError() != ERROR_NO_MORE_FILES) r = jdb_windows_failure();
    FindClose(find);
    if (r == 0) r = pack_names(d, list);
    for (size_t i = 0; i < d->names_count; i++) free(list[i]);
    free(list);
    return r;
}

/* ---- space and probe ------------------------------------------------------------------------ */

int64_t jdb_windows_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes) {
    wchar_t *wide, volume[MAX_PATH + 1];
    ULARGE_INTEGER free_to_us, total;
    int64_t r = jdb_windows_path(path, &wide);
    if (r < 0) return r;
    if (GetFileAttributesW(wide) == INVALID_FILE_ATTRIBUTES ||
        !GetVolumePathNameW(wide, volume, MAX_PATH + 1) ||
        !GetDiskFreeSpaceExW(volume, &free_to_us, &total, NULL))
        r = jdb_windows_path_failure(wide);
    free(wide);
    if (r < 0) return r;
    *free_bytes = free_to_us.QuadPart;
    *total_bytes = total.QuadPart;
    return 0;
}

static int64_t path_probe(jdb_op *op, const wchar_t *path) {
    struct jdb_detail *d = op->detail;
    jdb_file_info *info = &d->info;
    int64_t r;
    wchar_t made[MAX_PATH];
    int directory = is_directory(path);
    DWORD once = directory ? FILE_FLAG_DELETE_ON_CLOSE : 0;
    DWORD access = directory ? GENERIC_READ | GENERIC_WRITE | DELETE : GENERIC_READ;
    /* Nothing stays behind: the file that is made goes with its handle. */
    if (directory && (wcslen(path) > MAX_PATH - 16 || !GetTempFileNameW(path, L"jdb", 0, made)))
        return wcslen(path) > MAX_PATH - 16 ? -ENAMETOOLONG : jdb_windows_failure();
    const wchar_t *name = directory ? made : path;
    HANDLE handle = CreateFileW(name, access, jdb_windows_share_all, NULL, OPEN_EXISTING,
                                FILE_FLAG_NO_BUFFERING | once, NULL);
    info->direct = handle != INVALID_HANDLE_VALUE;
    info->direct_reason =
        info->direct ? "FILE_FLAG_NO_BUFFERING accepted" : "FILE_FLAG_NO_BUFFERING refused";
    if (!info->direct)
        handle = CreateFileW(name, access, jdb_windows_share_all, NULL, OPEN_EXISTING, once, NULL);
    if (handle == INVALID_HANDLE_VALUE) return jdb_windows_path_failure(path);
    info->file_system = d->file_system;
    jdb_windows_file_system(handle, d->file_system, sizeof d->file_system);
    r = jdb_windows_evidence(handle, d->file_system, &info->evidence);
    jdb_windows_alignment(handle, info);
    CloseHandle(handle);
    return r;
}

int jdb_os_remove_directory(const char *path) {
    wchar_t *wide;
    int64_t r = jdb_windows_path(path, &wide);
    if (r < 0) return (int)r;
    r = RemoveDirectoryW(wide) ? 0 : jdb_windows_path_failure(wide);
    free(wide);
    return (int)r;
}

/* ---- the calls that changes are made of ----------------------------------------------------- */

static struct jdb_windows_file *file_of(int64_t handle) {
    return jdb_windows_file_of((intptr_t)handle);
}

static int64_t make_directory(void *context, const char *path) {
    wchar_t *wide;
    (void)context;
    int64_t r = jdb_windows_path(path, &wide);
    if (r < 0) return r;
    r = CreateDirectoryW(wide, NULL) ? 1 : jdb_windows_path_failure(wide);
    /* A drive's root is no directory that could be made: access is denied. */
    if ((r == -EEXIST || r == -EACCES) && is_directory(wide)) r = 0;
    else if (r == -EEXIST) r = -ENOTDIR;
    free(wide);
    return r;
}

/* Writing, so that it can be flushed; where that is refused it is at least held in its place. */
static int64_t open_directory(void *context, const char *path) {
    wchar_t *wide;
    DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE;
    (void)context;
    int64_t r = jdb_windows_path(path, &wide);
    if (r < 0) return r;
    HANDLE handle = CreateFileW(wide, GENERIC_READ | GENERIC_WRITE, share, NULL, OPEN_EXISTING,
                                FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (handle == INVALID_HANDLE_VALUE && GetLastError() != ERROR_FILE_NOT_FOUND)
        handle = CreateFileW(wide, GENERIC_READ, share | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                             FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (handle == INVALID_HANDLE_VALUE) r = jdb_windows_path_failure(wide);
    else if (!is_directory(wide)) r = -ENOTDIR;
    struct jdb_windows_file *file = r == 0 ? jdb_windows_file_new(handle, wide) : NULL;
    free(wide);
    if (!file && handle != INVALID_HANDLE_VALUE) CloseHandle(handle);
    if (!file) return r < 0 ? r : -ENOMEM;
    file->directory = 1;
    return (int64_t)(intptr_t)file;
}

static int64_t device_of(void *context, int64_t handle, uint64_t *device) {
    BY_HANDLE_FILE_INFORMATION what;
    (void)context;
    if (!GetFileInformationByHandle(file_of(handle)->handle, &what)) return jdb_windows_failure();
    *device = UINT64_C(1) << 32 | what.dwVolumeSerialNumber;
    return 0;
}

static int64_t sync_handle(void *context, int64_t handle) {
    (void)context;
    return jdb_windows_sync(file_of(handle), 0);
}

static int64_t close_handle(void *context, int64_t handle) {
    (void)context;
    jdb_os_close((intptr_t)handle);
    return 0;
}

/* The system's path of a name in `dir`; to be freed. */
static int64_t path_in(int64_t dir, const char *name, wchar_t **wide) {
    if (dir == JDB_HERE) return jdb_windows_path(name, wide);
    *wide = jdb_windows_join(file_of(dir)->path, name);
    return *wide ? 0 : -ENOMEM;
}

static int lacks(DWORD error) {
    return error == ERROR_INVALID_PARAMETER || error == ERROR_NOT_SUPPORTED ||
           error == ERROR_INVALID_FUNCTION || error == ERROR_CALL_NOT_IMPLEMENTED;
}

/* 0, a Win32 error, or ERROR_NOT_SUPPORTED: this way is none here. */
static DWORD replace_posix(const wchar_t *from, const wchar_t *to) {
    wchar_t full[1]; /* only the length is asked first */
    DWORD units = GetFullPathNameW(to, 1, full, NULL);
    size_t size = sizeof(struct rename_info) + (units + 1) * sizeof(wchar_t);
    struct rename_info *info = units ? calloc(1, size) : NULL;
    if (!info) return ERROR_NOT_ENOUGH_MEMORY;
    info->flags = RENAME_REPLACE | RENAME_POSIX;
    info->bytes = GetFullPathNameW(to, units + 1, info->name, NULL) * (DWORD)sizeof(wchar_t);
    DWORD error = 0;
    HANDLE handle = open_name(from, DELETE | SYNCHRONIZE, FILE_FLAG_OPEN_REPARSE_POINT);
    if (handle == INVALID_HANDLE_VALUE) {
        error = GetLastError();
    } else {
        if (!jdb_windows.set_information(handle, (FILE_INFO_BY_HANDLE_CLASS)RENAME_INFO_EX, info,
                                         (DWORD)size))
            error = lacks(GetLastError()) ? ERROR_NOT_SUPPORTED : GetLastError();
        CloseHandle(handle);
    }
    free(info);
    return error;
}

/* The older way is refused while anybody has the target open, be it another one who replaces it.
 * Our own threads take turns; the others are waited for, a little. */
static DWORD replace_patiently(const wchar_t *from, const wchar_t *to) {
    static SRWLOCK turn = SRWLOCK_INIT;
    DWORD error = 0, flags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    for (DWORD pause = 1; pause <= 64; pause *= 2) {
        AcquireSRWLockExclusive(&turn);
        error = jdb_windows.move(from, to, flags) ? 0 : GetLastError();
        ReleaseSRWLockExclusive(&turn);
        int in_use = error == ERROR_ACCESS_DENIED || error == ERROR_SHARING_VIOLATION;
        if (!in_use || is_directory(to)) return error;
        Sleep(pause);
    }
    return error;
}

static DWORD replace(const wchar_t *from, const wchar_t *to) {
    DWORD error = replace_posix(from, to);
    return error == ERROR_NOT_SUPPORTED ? replace_patiently(from, to) : error;
}

/* To the system a file may always get the name that it has. */
static DWORD move_to_free_name(const wchar_t *from, const wchar_t *to) {
    int same = wcscmp(from, to) == 0;
    if (same && jdb_windows_attributes(to) != INVALID_FILE_ATTRIBUTES) return ERROR_FILE_EXISTS;
    return jdb_windows.move(from, to, MOVEFILE_WRITE_THROUGH) ? 0 : GetLastError();
}

/* What the system would say less clearly, or not at all. */
static int64_t refuse_rename(const wchar_t *from, const wchar_t *to) {
    int there = jdb_windows_attributes(to) != INVALID_FILE_ATTRIBUTES;
    size_t len = wcslen(from);
    if (jdb_windows_attributes(from) == INVALID_FILE_ATTRIBUTES) return 0; /* it says what is */
    if (!is_directory(from)) return there && is_directory(to) ? -EISDIR : 0;
    if (there && !is_directory(to)) return -ENOTDIR;
    return wcsncmp(from, to, len) == 0 && to[len] == L'\\' ? -EINVAL : 0;
}

static int64_t failure_of(DWORD error, const wchar_t *path) {
    SetLastError(error);
    return jdb_windows_path_failure(path);
}

static int64_t rename_name(void *context, int64_t dir, const char *from, const char *to,
                           int noreplace) {
    wchar_t *old = NULL, *new = NULL;
    (void)context;
    int64_t r = path_in(dir, from, &old);
    if (r == 0) r = path_in(dir, to, &new);
    if (r == 0 && !noreplace) r = refuse_rename(old, new);
    if (r == 0) {
        DWORD error = noreplace ? move_to_free_name(old, new) : replace(old, new);
        if (error == ERROR_ACCESS_DENIED && is_directory(old) && is_directory(new)) r = -ENOTEMPTY;
        else if (error)
            r = failure_of(error, GetFileAttributesW(old) == INVALID_FILE_ATTRIBUTES ? old : new);
    }
    free(old);
    free(new);
    return r;
}

/* The name goes at once, though somebody has the file open; else with the last handle. */
static int remove_posix(const wchar_t *path) {
    DWORD flags = REMOVE | REMOVE_POSIX | REMOVE_READONLY;
    HANDLE handle = CreateFileW(path, DELETE, jdb_windows_share_all, NULL, OPEN_EXISTING,
                                FILE_FLAG_OPEN_REPARSE_POINT, NULL);
    if (handle == INVALID_HANDLE_VALUE) return 0;
    BOOL removed = jdb_windows.set_information(
        handle, (FILE_INFO_BY_HANDLE_CLASS)DISPOSITION_INFO_EX, &flags, sizeof flags);
    CloseHandle(handle);
    return removed;
}

static int64_t remove_name(void *context, int64_t dir, const char *name) {
    wchar_t *path;
    (void)context;
    int64_t r = path_in(dir, name, &path);
    if (r < 0) return r;
    if (is_directory(path)) r = -EISDIR;
    else if (!remove_posix(path) && !DeleteFileW(path)) r = jdb_windows_path_failure(path);
    free(path);
    return r;
}

/* A name in the same directory that nobody else makes: process, counter, clock. CREATE_NEW
 * decides. */
static int64_t make_beside(void *context, int64_t dir, const char *name, unsigned mode, char *made,
                           size_t size) {
    static atomic_uint counter;
    (void)context;
    (void)mode; /* permissions come from the directory */
    for (int tries = 0; tries < 100; tries++) {
        unsigned n = atomic_fetch_add(&counter, 1);
        snprintf(made, size, ".%.200s.%lu-%u-%llx", name, GetCurrentProcessId(), n,
                 (unsigned long long)jdb_os_now());
        wchar_t *path = jdb_windows_join(file_of(dir)->path, made);
        if (!path) return -ENOMEM;
        HANDLE handle = CreateFileW(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_DELETE, NULL,
                                    CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
        free(path);
        if (handle == INVALID_HANDLE_VALUE) {
            if (GetLastError() == ERROR_FILE_EXISTS) continue;
            return jdb_windows_failure(); /* the directory is open: it is there */
        }
        struct jdb_windows_file *file = jdb_windows_file_new(handle, NULL);
        if (!file) CloseHandle(handle);
        else file->writable = 1;
        return file ? (int64_t)(intptr_t)file : -ENOMEM;
    }
    return -EEXIST;
}

static int64_t write_all(void *context, int64_t file, const void *from, size_t len) {
    const char *data = from;
    (void)context;
    while (len > 0) {
        DWORD piece = len < 1 << 30 ? (DWORD)len : 1 << 30, n = 0;
        if (!WriteFile(file_of(file)->handle, data, piece, &n, NULL)) return jdb_windows_failure();
        if (n == 0) return -ENOSPC;
        data += n;
        len -= n;
    }
    return 0;
}

static int64_t look_at(void *context, int64_t dir, const char *name, struct jdb_owner *owner) {
    wchar_t *path;
    (void)context;
    int64_t r = path_in(dir, name, &path);
    if (r < 0) return r;
    DWORD attributes = GetFileAttributesW(path);
    if (attributes == INVALID_FILE_ATTRIBUTES) {
        r = jdb_windows_path_failure(path);
        if (r == -ENOENT) r = 0;
    } else if (attributes & FILE_ATTRIBUTE_DIRECTORY) {
        r = -EISDIR;
    } else {
        owner->mode = attributes & FILE_ATTRIBUTE_READONLY ? 0444 : 0666;
        r = !(attributes & FILE_ATTRIBUTE_REPARSE_POINT);
    }
    free(path);
    return r;
}

/* Whether it may be written; who may read it the directory decides. */
static int64_t take_over(void *context, int64_t file, const struct jdb_owner *old) {
    FILE_BASIC_INFO basic;
    HANDLE handle = file_of(file)->handle;
    (void)context;
    if (old->mode & 0200) return 0;
    if (!GetFileInformationByHandleEx(handle, FileBasicInfo, &basic, sizeof basic))
        return jdb_windows_failure();
    basic.FileAttributes |= FILE_ATTRIBUTE_READONLY;
    return SetFileInformationByHandle(handle, FileBasicInfo, &basic, sizeof basic)
               ? 0
               : jdb_windows_failure();
}

const struct jdb_calls jdb_windows_names = {
    .separators = "/\\",
    .root_length = jdb_windows_root,
    .make_directory = make_directory,
    .open_directory = open_directory,
    .device_of = device_of,
    .make_beside = make_beside,
    .look_at = look_at,
    .take_over = take_over,
    .write = write_all,
    .sync = sync_handle,
    .close = close_handle,
    .rename = rename_name,
    .remove = remove_name,
};

static int64_t perform(jdb_op *op, const wchar_t *path) {
    struct jdb_detail *d = op->detail;
    switch ((jdb_code)op->code) {
    case JDB_PATH_EXISTS: return path_exists(path);
    case JDB_PATH_LS: return path_ls(op, path);
    case JDB_PATH_SIZE:
    case JDB_PATH_STAT: return path_stat(op, path);
    case JDB_PATH_SPACE: return jdb_windows_space(d->path, &d->free_bytes, &d->total_bytes);
    case JDB_PATH_PROBE: return path_probe(op, path);
    default: return jdb_names_perform(&jdb_windows_names, NULL, op);
    }
}

int64_t jdb_windows_name(jdb_op *op) {
    wchar_t *path;
    int64_t r = jdb_windows_path(op->detail->path, &path);
    if (r < 0) return op->code == JDB_PATH_EXISTS && r == -ENOENT ? 0 : r;
    r = perform(op, path);
    free(path);
    return r;
}
