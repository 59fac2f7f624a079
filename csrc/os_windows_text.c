/* os_windows_text.c: errors and paths, between the system's words and ours. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os_windows.h"

/* ---- errors --------------------------------------------------------------------------------- */

/* Not in the headers of every compiler. */
enum { OFFSET_ALIGNMENT = 327, STOPPED_ON_LINK = 681, DISK_QUOTA = 1295 };

/* What the same mistake is called elsewhere. The kind follows from it (error.c). */
int jdb_windows_errno(DWORD error) {
    static const struct {
        DWORD error;
        int number;
    } known[] = {
        {ERROR_FILE_NOT_FOUND, ENOENT},
        {ERROR_PATH_NOT_FOUND, ENOENT},
        {ERROR_INVALID_DRIVE, ENOENT},
        {ERROR_BAD_NETPATH, ENOENT},
        {ERROR_BAD_NET_NAME, ENOENT},
        {ERROR_INVALID_NAME, ENOENT},
        {ERROR_BAD_PATHNAME, ENOENT},
        {ERROR_FILENAME_EXCED_RANGE, ENAMETOOLONG},
        {ERROR_BUFFER_OVERFLOW, ENAMETOOLONG},
        {ERROR_DIRECTORY, ENOTDIR},
        {ERROR_FILE_EXISTS, EEXIST},
        {ERROR_ALREADY_EXISTS, EEXIST},
        {ERROR_DIR_NOT_EMPTY, ENOTEMPTY},
        {ERROR_NOT_SAME_DEVICE, EXDEV},
        {ERROR_ACCESS_DENIED, EACCES},
        {ERROR_DELETE_PENDING, EACCES},
        {ERROR_PRIVILEGE_NOT_HELD, EPERM},
        {ERROR_SHARING_VIOLATION, EBUSY},
        {ERROR_BUSY, EBUSY},
        {ERROR_USER_MAPPED_FILE, EBUSY},
        {ERROR_LOCK_VIOLATION, EAGAIN},
        {ERROR_WRITE_PROTECT, EROFS},
        {ERROR_DISK_FULL, ENOSPC},
        {ERROR_HANDLE_DISK_FULL, ENOSPC},
        {DISK_QUOTA, EDQUOT},
        {ERROR_FILE_TOO_LARGE, EFBIG},
        {ERROR_NOT_ENOUGH_MEMORY, ENOMEM},
        {ERROR_OUTOFMEMORY, ENOMEM},
        {ERROR_COMMITMENT_LIMIT, ENOMEM},
        /* Too much is in flight for the system: as io_uring says it, and served alike. */
        {ERROR_NO_SYSTEM_RESOURCES, EAGAIN},
        {ERROR_INVALID_USER_BUFFER, EAGAIN},
        {ERROR_WORKING_SET_QUOTA, EAGAIN},
        {ERROR_NOT_ENOUGH_QUOTA, EAGAIN},
        {ERROR_TOO_MANY_OPEN_FILES, EMFILE},
        {ERROR_INVALID_HANDLE, EBADF},
        {ERROR_INVALID_PARAMETER, EINVAL},
        {OFFSET_ALIGNMENT, EINVAL},
        {ERROR_NEGATIVE_SEEK, EINVAL},
        {ERROR_NOACCESS, EFAULT},
        {ERROR_OPERATION_ABORTED, ECANCELED},
        {ERROR_CANCELLED, ECANCELED},
        {ERROR_NOT_SUPPORTED, EOPNOTSUPP},
        {ERROR_INVALID_FUNCTION, EOPNOTSUPP},
        {ERROR_CALL_NOT_IMPLEMENTED, EOPNOTSUPP},
        {ERROR_NOT_READY, ENXIO},
        {ERROR_BAD_UNIT, ENXIO},
        {ERROR_BROKEN_PIPE, EPIPE},
        {ERROR_NO_DATA, EPIPE},
        {ERROR_PIPE_NOT_CONNECTED, EPIPE},
        {ERROR_DEV_NOT_EXIST, ENODEV},
        {ERROR_TOO_MANY_LINKS, EMLINK},
        {ERROR_CANT_RESOLVE_FILENAME, ELOOP},
        {STOPPED_ON_LINK, ELOOP},
        {ERROR_NO_UNICODE_TRANSLATION, EILSEQ},
        {ERROR_ARITHMETIC_OVERFLOW, EOVERFLOW},
        {ERROR_SEM_TIMEOUT, ETIMEDOUT},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].error == error) return known[i].number;
    return EIO;
}

int64_t jdb_windows_failure(void) { return -jdb_windows_errno(GetLastError()); }

/* The C library here knows the old numbers only. */
void jdb_os_error_text(int error, char *text, size_t size) {
    static const struct {
        int error;
        const char *words;
    } newer[] = {
        {EALREADY, "Operation already in progress"},
        {EBADMSG, "Bad message"},
        {ECANCELED, "Operation canceled"},
        {EDQUOT, "Disk quota exceeded"},
        {ELOOP, "Too many levels of symbolic links"},
        {ENODATA, "No data available"},
        {EOPNOTSUPP, "Operation not supported"},
        {EOVERFLOW, "Value too large for defined data type"},
        {EPROTO, "Protocol error"},
        {ESTALE, "Stale file handle"},
        {ETIMEDOUT, "Connection timed out"},
        {ETXTBSY, "Text file busy"},
    };
    for (size_t i = 0; i < sizeof newer / sizeof *newer; i++)
        if (newer[i].error == error) {
            snprintf(text, size, "%s", newer[i].words);
            return;
        }
    snprintf(text, size, "%s", strerror(error));
}

/* ---- paths ---------------------------------------------------------------------------------- */

/* Directories already fail here: the system wants room for a name of the old kind below them. */
enum { SHORT_PATH = 247, PATH_UNITS_MAX = 32000 };

static int is_separator(char c) { return c == '/' || c == '\\'; }

/* Behind "//server/share", or behind as much of it as is there. */
static size_t share_length(const char *path) {
    size_t at = 2;
    for (int names = 0; names < 2; names++) {
        while (path[at] && !is_separator(path[at])) at++;
        if (names == 0 && path[at]) at++;
    }
    return path[at] ? at + 1 : at;
}

size_t jdb_windows_root(const char *path) {
    int letter = (path[0] >= 'A' && path[0] <= 'Z') || (path[0] >= 'a' && path[0] <= 'z');
    if (letter && path[1] == ':') return is_separator(path[2]) ? 3 : 2;
    if (!is_separator(path[0])) return 0;
    if (!is_separator(path[1])) return 1;
    /* The system's own names of a volume: "\\?\C:\", "\\.\C:\". */
    if ((path[2] == '?' || path[2] == '.') && is_separator(path[3])) {
        size_t at = 4;
        while (path[at] && !is_separator(path[at])) at++;
        return path[at] ? at + 1 : at;
    }
    return share_length(path);
}

/* To be freed; NULL: no memory, or no UTF-8 (*error tells). */
static wchar_t *widen(const char *text, int *error) {
    int units = MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, NULL, 0);
    *error = EILSEQ;
    if (units <= 0) return NULL;
    *error = ENOMEM;
    wchar_t *wide = malloc((size_t)units * sizeof *wide);
    if (!wide) return NULL;
    MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, wide, units);
    for (wchar_t *c = wide; *c; c++)
        if (*c == L'/') *c = L'\\';
    return wide;
}

/* Absolute, and told to be taken as it is; takes `wide`. */
static wchar_t *lengthen(wchar_t *wide) {
    static const wchar_t local[] = L"\\\\?\\", share[] = L"\\\\?\\UNC";
    DWORD units = GetFullPathNameW(wide, 0, NULL, NULL);
    size_t room = sizeof share / sizeof *share;
    wchar_t *full = units ? malloc((units + room) * sizeof *full) : NULL;
    if (full && GetFullPathNameW(wide, units, full + room, NULL) < units) {
        int is_share = full[room] == L'\\' && full[room + 1] == L'\\';
        const wchar_t *prefix = is_share ? share : local;
        const wchar_t *rest = full + room + (is_share ? 1 : 0);
        wcscpy(full, prefix);
        memmove(full + wcslen(prefix), rest, (wcslen(rest) + 1) * sizeof *rest);
    }
    free(wide);
    return full;
}

static int is_as_it_is(const wchar_t *wide) {
    return wcsncmp(wide, L"\\\\?\\", 4) == 0 || wcsncmp(wide, L"\\\\.\\", 4) == 0;
}

/* The system drops dots and spaces at the end of a name: another file would be meant. */
static int has_lost_end(const wchar_t *wide) {
    for (const wchar_t *name = wide; *name;) {
        size_t len = wcscspn(name, L"\\");
        int dots = (len == 1 && name[0] == L'.') || (len == 2 && wcsncmp(name, L"..", 2) == 0);
        if (len > 0 && !dots && (name[len - 1] == L'.' || name[len - 1] == L' ')) return 1;
        name += len + (name[len] != 0);
    }
    return 0;
}

/* Takes `wide`. A relative path counts with the directory it starts in. */
static wchar_t *make_fit(wchar_t *wide) {
    if (is_as_it_is(wide)) return wide;
    return GetFullPathNameW(wide, 0, NULL, NULL) > SHORT_PATH ? lengthen(wide) : wide;
}

int64_t jdb_windows_path(const char *path, wchar_t **wide) {
    int error;
    if (!path[0]) return -ENOENT;
    wchar_t *w = widen(path, &error);
    if (!w) return -error;
    if (wcslen(w) > PATH_UNITS_MAX || (!is_as_it_is(w) && has_lost_end(w))) {
        error = wcslen(w) > PATH_UNITS_MAX ? ENAMETOOLONG : EINVAL;
        free(w);
        return -error;
    }
    *wide = make_fit(w);
    return *wide ? 0 : -ENOMEM;
}

wchar_t *jdb_windows_join(const wchar_t *directory, const char *name) {
    int error;
    wchar_t *wide = widen(name, &error);
    if (!wide) return NULL;
    size_t len = wcslen(directory);
    wchar_t *path = malloc((len + wcslen(wide) + 2) * sizeof *path);
    if (path) {
        wcscpy(path, directory);
        if (len > 0 && path[len - 1] != L'\\' && path[len - 1] != L':') path[len++] = L'\\';
        wcscpy(path + len, wide);
    }
    free(wide);
    return path ? make_fit(path) : NULL;
}

int jdb_windows_utf8(const wchar_t *wide, char *text, size_t size) {
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, (int)size, NULL, NULL);
}
