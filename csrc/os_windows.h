/* os_windows.h: what the Windows files (os_windows*.c, be_iocp.c) need of each other. Results as in
 * os.h: >= 0, or -errno. Text is UTF-8 outside, UTF-16 towards the system. */
#ifndef JDB_OS_WINDOWS_H
#define JDB_OS_WINDOWS_H

#include <stdatomic.h>
#include <windows.h>

#include "os.h"

/* What a handle of the core (jdb_file.handle, of a directory in names.c) points to. */
struct jdb_windows_file {
    HANDLE handle;
    int writable;
    int directory;
    int blocks;   /* the system does its transfers inside the call: cached, compressed, encrypted */
    int attached; /* to a completion port; the queue's thread alone asks and sets */
    int skips;    /* a transfer that ends inside the call sends no packet */
    /* Everything below this offset was written once. A write that ends behind it makes the system
     * fill the gap inside the call, however it was asked; see be_iocp.c. */
    atomic_uint_fast64_t valid_end;
    wchar_t path[]; /* of a directory: what names in it are appended to */
};

static inline struct jdb_windows_file *jdb_windows_file_of(intptr_t handle) {
    return (struct jdb_windows_file *)handle;
}

/* The calls that differ between systems, or that an emulation lacks or only pretends to make. Tests
 * put their own answers here; nothing else changes them. */
struct jdb_windows_calls {
    HANDLE(WINAPI *create)
    (const wchar_t *, DWORD, DWORD, SECURITY_ATTRIBUTES *, DWORD, DWORD, HANDLE);
    BOOL(WINAPI *read)(HANDLE, void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL(WINAPI *write)(HANDLE, const void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL(WINAPI *cancel)(HANDLE, OVERLAPPED *);
    BOOL(WINAPI *set_notification_modes)(HANDLE, UCHAR);
    BOOL(WINAPI *get_information)(HANDLE, FILE_INFO_BY_HANDLE_CLASS, void *, DWORD);
    BOOL(WINAPI *set_information)(HANDLE, FILE_INFO_BY_HANDLE_CLASS, void *, DWORD);
    BOOL(WINAPI *get_disk_free_space)(const wchar_t *, DWORD *, DWORD *, DWORD *, DWORD *);
    BOOL(WINAPI *control)(HANDLE, DWORD, void *, DWORD, void *, DWORD, DWORD *, OVERLAPPED *);
    BOOL(WINAPI *flush)(HANDLE);
    BOOL(WINAPI *move)(const wchar_t *, const wchar_t *, DWORD);
    DWORD (*flush_data)(HANDLE); /* a Win32 error */
};
extern struct jdb_windows_calls jdb_windows;

/* ---- os_windows_text.c: errors and paths ---------------------------------------------------- */

int jdb_windows_errno(DWORD error);
int64_t jdb_windows_failure(void); /* -errno of GetLastError */

/* The system's form of a path, to be freed: UTF-16, and with the prefix that lifts the limit of 260
 * characters where it is needed. 0 or -errno. */
int64_t jdb_windows_path(const char *path, wchar_t **wide); /* EINVAL: "name." would lose its end */
wchar_t *jdb_windows_join(const wchar_t *directory, const char *name); /* NULL: no memory */
int jdb_windows_utf8(const wchar_t *wide, char *text, size_t size); /* bytes with the NUL, or 0 */
size_t jdb_windows_root(const char *path); /* "C:/", "//server/share/": as jdb_calls.root_length */

/* ---- os_windows.c ---------------------------------------------------------------------------- */

DWORD jdb_windows_milliseconds(int64_t ns); /* rounded up; < 0: no limit */

/* A call with an OVERLAPPED that the caller waits for. The event's low bit keeps its packet from
 * the completion port that the handle may have. */
struct jdb_windows_wait {
    OVERLAPPED overlapped;
    HANDLE event;
};
int64_t jdb_windows_wait_begin(struct jdb_windows_wait *wait, uint64_t off);
/* done: what the call returned; directly behind it. Bytes moved, or minus a Win32 error. */
int64_t jdb_windows_wait_end(struct jdb_windows_wait *wait, HANDLE handle, BOOL done);
/* DeviceIoControl on any handle; bytes of the answer, or minus a Win32 error. */
int64_t jdb_windows_control(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out,
                            DWORD out_size);

/* ---- os_windows_file.c ----------------------------------------------------------------------- */

struct jdb_windows_file *jdb_windows_file_new(HANDLE handle,
                                              const wchar_t *path); /* NULL: memory */
/* Bytes of a transfer, from the Win32 error or (0) the bytes: end of file is 0 bytes. */
int64_t jdb_windows_transferred(int is_read, DWORD error, uint64_t bytes);
void jdb_windows_note_written(struct jdb_windows_file *file, uint64_t end);
int64_t jdb_windows_sync(struct jdb_windows_file *file, int data_only);
int64_t jdb_windows_stat(HANDLE handle, jdb_stat *st);

extern const DWORD jdb_windows_share_all;

/* ---- os_windows_names.c, os_windows_evidence.c ----------------------------------------------- */

int64_t jdb_windows_name(jdb_op *op);
extern const struct jdb_calls jdb_windows_names;
/* Of the volume that a path lies on. */
int64_t jdb_windows_space(const char *path, uint64_t *free_bytes, uint64_t *total_bytes);
/* -errno of GetLastError, of a call that was given this path: the system says "no such path" of
 * several mistakes. */
int64_t jdb_windows_path_failure(const wchar_t *path);
/* What stands at a path: its attributes, INVALID_FILE_ATTRIBUTES: nothing. */
DWORD jdb_windows_attributes(const wchar_t *path);

/* How direct transfers on this handle must be aligned. */
void jdb_windows_alignment(HANDLE handle, jdb_file_info *info);
void jdb_windows_file_system(HANDLE handle, char *name, size_t size);
int64_t jdb_windows_evidence(HANDLE handle, const char *file_system, jdb_evidence *evidence);
uint64_t jdb_windows_valid_end(HANDLE handle); /* 0: not known */

#endif
