/* error.c: error kinds and their words. One table a name; one function that turns a failed
 * system call into a kind; one that writes the sentence. Nothing here allocates. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "os.h"

/* clang-format off */
static const char *const kind_names[JDB_KIND_COUNT] = {
    [JDB_OK] = "Ok",
    [JDB_IO] = "Io",
    [JDB_ALLOC] = "Alloc",
    [JDB_ALIGNMENT] = "Alignment",
    [JDB_SHORT_READ] = "ShortRead",
    [JDB_SHORT_WRITE] = "ShortWrite",
    [JDB_JOIN] = "Join",
    [JDB_OVERFLOW] = "Overflow",
    [JDB_BUSY] = "Busy",
    [JDB_CLOSED] = "Closed",
    [JDB_CANCELLED] = "Cancelled",
    [JDB_TIMEOUT] = "Timeout",
    [JDB_POISONED] = "Poisoned",
    [JDB_UNSUPPORTED] = "Unsupported",
    [JDB_FORKED] = "Forked",
};

static const char *const code_names[JDB_CODE_COUNT] = {
    [JDB_READ] = "read_at",
    [JDB_WRITE] = "write_at",
    [JDB_SYNC_ALL] = "sync_all",
    [JDB_SYNC_DATA] = "sync_data",
    [JDB_TRUNCATE] = "truncate",
    [JDB_PREALLOCATE] = "preallocate",
    [JDB_OPEN] = "open",
    [JDB_CLOSE] = "close",
    [JDB_SIZE] = "size",
    [JDB_STAT] = "stat",
    [JDB_INFO] = "info",
    [JDB_PUNCH] = "punch",
    [JDB_LOCK] = "lock",
    [JDB_UNLOCK] = "unlock",
    [JDB_READ_MANY] = "read_many",
    [JDB_WRITE_MANY] = "write_many",
    [JDB_PATH_EXISTS] = "exists",
    [JDB_PATH_MKDIR] = "mkdir",
    [JDB_PATH_LS] = "ls",
    [JDB_PATH_SIZE] = "size",
    [JDB_PATH_STAT] = "stat",
    [JDB_PATH_RENAME] = "rename",
    [JDB_PATH_REMOVE] = "remove",
    [JDB_PATH_SYNC_DIR] = "sync_dir",
    [JDB_PATH_SPACE] = "space",
    [JDB_PATH_ATOMIC_WRITE] = "atomic_write",
    [JDB_PATH_PROBE] = "probe",
};

#define NAME(e) {e, #e}
static const struct {
    int error;
    const char *name;
} errno_names[] = {
    NAME(EPERM),      NAME(ENOENT),     NAME(EINTR),    NAME(EIO),          NAME(ENXIO),
    NAME(E2BIG),      NAME(EBADF),      NAME(EAGAIN),   NAME(ENOMEM),       NAME(EACCES),
    NAME(EFAULT),     NAME(EBUSY),      NAME(EEXIST),   NAME(EXDEV),        NAME(ENODEV),
    NAME(ENOTDIR),    NAME(EISDIR),     NAME(EINVAL),   NAME(ENFILE),       NAME(EMFILE),
    NAME(ENOTTY),     NAME(ETXTBSY),    NAME(EFBIG),    NAME(ENOSPC),       NAME(ESPIPE),
    NAME(EROFS),      NAME(EMLINK),     NAME(EPIPE),    NAME(EDOM),         NAME(ERANGE),
    NAME(EDEADLK),    NAME(ENAMETOOLONG), NAME(ENOLCK), NAME(ENOSYS),       NAME(ENOTEMPTY),
    NAME(ELOOP),      NAME(EOVERFLOW),  NAME(EILSEQ),   NAME(EOPNOTSUPP),   NAME(ETIMEDOUT),
    NAME(ECANCELED),  NAME(ESTALE),     NAME(EDQUOT),   NAME(EALREADY),     NAME(EPROTO),
    NAME(EBADMSG),
#ifdef ENODATA /* not every system has it */
    NAME(ENODATA),
#endif
};
#undef NAME
/* clang-format on */

const char *jdb_kind_name(jdb_kind kind) {
    return (unsigned)kind < JDB_KIND_COUNT ? kind_names[kind] : "Io";
}

const char *jdb_code_name(jdb_code code) {
    return (unsigned)code < JDB_CODE_COUNT ? code_names[code] : "operation";
}

const char *jdb_errno_name(int error) {
    for (size_t i = 0; i < sizeof errno_names / sizeof *errno_names; i++)
        if (errno_names[i].error == error) return errno_names[i].name;
    return NULL;
}

jdb_kind jdb_kind_of_errno(int error) {
    switch (error) {
    case 0: return JDB_OK;
    case ECANCELED: return JDB_CANCELLED;
    case ENOMEM: return JDB_ALLOC;
    case EOPNOTSUPP:
    case ENOSYS: return JDB_UNSUPPORTED;
    case EOVERFLOW: return JDB_OVERFLOW;
    default: return JDB_IO;
    }
}

void jdb_op_fail(jdb_op *op, jdb_kind kind, int error) {
    op->kind = (uint8_t)kind;
    op->error = error;
}

static void errno_text(int error, char *text, size_t size) {
    char words[128];
    const char *name = jdb_errno_name(error);
    jdb_os_error_text(error, words, sizeof words);
    if (name) snprintf(text, size, "%s (%s)", words, name);
    else snprintf(text, size, "%s (errno %d)", words, error);
}

static const char *kind_cause(jdb_kind kind) {
    switch (kind) {
    case JDB_ALLOC: return "out of memory";
    case JDB_ALIGNMENT: return "not aligned";
    case JDB_JOIN: return "the task had raised";
    case JDB_OVERFLOW: return "number out of range";
    case JDB_BUSY: return "in use by an operation in flight";
    case JDB_CLOSED: return "closed";
    case JDB_CANCELLED: return "cancelled";
    case JDB_TIMEOUT: return "timed out";
    case JDB_POISONED: return "an earlier flush failed, reopen the file";
    case JDB_UNSUPPORTED: return "not supported here";
    case JDB_FORKED: return "the queue belongs to the parent process";
    default: return "failed";
    }
}

void jdb_failure_message(const jdb_failure *f, char *text, size_t size) {
    char cause[400];
    if (f->kind == JDB_SHORT_READ) {
        snprintf(cause, sizeof cause, "end of file after %" PRId64 " of %" PRId64 " bytes",
                 f->actual, f->length);
    } else if (f->kind == JDB_SHORT_WRITE) {
        snprintf(cause, sizeof cause, "only %" PRId64 " of %" PRId64 " bytes written", f->actual,
                 f->length);
    } else if (f->cause) {
        snprintf(cause, sizeof cause, "%s", f->cause);
    } else if (f->error) {
        errno_text(f->error, cause, sizeof cause);
    } else {
        snprintf(cause, sizeof cause, "%s", kind_cause(f->kind));
    }
    int n =
        snprintf(text, size, "%s%s%.600s%s%.600s: %s", f->op ? f->op : "jdbfs", f->path ? " " : "",
                 f->path ? f->path : "", f->path2 ? " to " : "", f->path2 ? f->path2 : "", cause);
    if (n < 0 || (size_t)n >= size) return;
    if (f->cause && f->error && (size_t)n + 3 < size) {
        char why[160];
        errno_text(f->error, why, sizeof why);
        n += snprintf(text + n, size - (size_t)n, ": %s", why);
    }
    if (n > 0 && (size_t)n < size && f->offset >= 0 && f->length >= 0)
        snprintf(text + n, size - (size_t)n, ", offset %" PRId64 ", length %" PRId64, f->offset,
                 f->length);
    if (n > 0 && (size_t)n < size && f->index >= 0) {
        n = (int)strlen(text);
        snprintf(text + n, size - (size_t)n, ", entry %" PRId64, f->index + 1);
    }
}
