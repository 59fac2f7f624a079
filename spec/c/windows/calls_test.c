/* What Windows answers and an emulation does not: its calls are replaced in jdb_windows by fakes
 * that answer as the real system is documented to, and the branches behind those answers run. */
#include "fixture.h"

static struct jdb_windows_calls real;
static DWORD own_thread;

/* ---- fakes ----------------------------------------------------------------------------------- */

static DWORD answer;        /* the Win32 error the fake of this test gives; 0: success */
static unsigned calls;      /* of that fake */
static unsigned own_writes; /* made by the queue's thread */
static unsigned pool_writes;

static BOOL give(DWORD error) {
    if (error) SetLastError(error);
    return error == 0;
}

/* As the system does what needs no waiting: the call has done it, and no packet follows. */
static BOOL WINAPI read_at_once(HANDLE handle, void *memory, DWORD len, DWORD *moved,
                                OVERLAPPED *o) {
    struct jdb_windows_wait w;
    (void)moved;
    calls++;
    if (o->hEvent) return real.read(handle, memory, len, NULL, o);
    if (GetFileType(handle) == FILE_TYPE_PIPE) return real.read(handle, memory, len, NULL, o);
    CHECK_EQ(jdb_windows_wait_begin(&w, (uint64_t)o->OffsetHigh << 32 | o->Offset), 0);
    BOOL done_now = real.read(handle, memory, len, NULL, &w.overlapped);
    int64_t n = jdb_windows_wait_end(&w, handle, done_now);
    CHECK(n >= 0);
    o->Internal = 0;
    o->InternalHigh = (ULONG_PTR)n;
    return TRUE;
}

/* Success told by the call, and a packet all the same: nobody could turn that off. */
static BOOL WINAPI read_with_packet(HANDLE handle, void *memory, DWORD len, DWORD *moved,
                                    OVERLAPPED *o) {
    (void)moved;
    calls++;
    BOOL done_now = real.read(handle, memory, len, NULL, o);
    CHECK(done_now || GetLastError() == ERROR_IO_PENDING);
    return TRUE;
}

static BOOL WINAPI read_refused(HANDLE handle, void *memory, DWORD len, DWORD *moved,
                                OVERLAPPED *o) {
    (void)moved;
    if (calls++ > 0) return real.read(handle, memory, len, NULL, o);
    return give(answer);
}

static BOOL WINAPI modes_refused(HANDLE handle, UCHAR modes) {
    (void)handle;
    (void)modes;
    return give(ERROR_INVALID_FUNCTION);
}

static BOOL WINAPI count_writes(HANDLE handle, const void *memory, DWORD len, DWORD *moved,
                                OVERLAPPED *o) {
    (void)moved;
    if (GetCurrentThreadId() == own_thread) own_writes++;
    else pool_writes++;
    return real.write(handle, memory, len, NULL, o);
}

/* ---- transfers ------------------------------------------------------------------------------- */

static jdb_queue *iocp(void) { return queue_new("iocp", 8, 4); }

/* A file of four pages, each filled with its number from 1 on. */
static jdb_file *four_pages(jdb_queue *q, const char *name) {
    jdb_file *f = create_file(q, name);
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    CHECK(b);
    for (int i = 0; i < 4; i++) memset((uint8_t *)jdb_buf_data(b) + i * PAGE, i + 1, PAGE);
    CHECK_EQ(run(q, prep_write(q, f, b, 0, 4 * PAGE, 0), JDB_OK), 4 * PAGE);
    jdb_buf_unref(b);
    return f;
}

static void nothing_more_comes(jdb_queue *q) {
    for (int i = 0; i < 3; i++) {
        jdb_queue_reap(q, i * 2000000);
        CHECK(!jdb_queue_next(q));
    }
    check_idle(q);
}

static void reads_that_end_inside_the_call(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "at once");
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    uint64_t pooled = stats(q).pool_operations;
    jdb_windows.read = read_at_once;
    for (unsigned i = 0; i < 4; i++)
        submit(q, prep_read(q, f, b, i * PAGE, PAGE, (uint64_t)i * PAGE));
    CHECK_EQ(calls, 4);
    CHECK(!jdb_queue_next(q)); /* never inside submit */
    for (int i = 0; i < 4; i++) CHECK_EQ(done(q, next(q), JDB_OK), PAGE);
    for (int i = 0; i < 4; i++) CHECK_EQ(((uint8_t *)jdb_buf_data(b))[i * PAGE + 1], i + 1);
    CHECK_EQ(stats(q).pool_operations, pooled);
    nothing_more_comes(q);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void packets_that_come_although_the_call_ended(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "with packet");
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_windows.read = read_with_packet;
    jdb_windows.set_notification_modes = modes_refused;
    for (unsigned i = 0; i < 4; i++)
        submit(q, prep_read(q, f, b, i * PAGE, PAGE, (uint64_t)i * PAGE));
    for (int i = 0; i < 4; i++) CHECK_EQ(done(q, next(q), JDB_OK), PAGE);
    CHECK_EQ(((uint8_t *)jdb_buf_data(b))[3 * PAGE], 4);
    nothing_more_comes(q);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* One that is always busy with reads that need no waiting does not keep a packet from coming in. */
static void nobody_starves(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "busy");
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    struct gate g = gate_new(q, 1);
    jdb_op *waits = submit(q, prep_read(q, g.file, b, PAGE, 1, 0));
    int came = 0;
    jdb_windows.read = read_at_once;
    gate_pass(&g, 1);
    jdb_op *quick = submit(q, prep_read(q, f, b, 0, PAGE, 0));
    for (int turn = 0; turn < 1000 && !came; turn++) {
        jdb_op *op;
        jdb_queue_reap(q, -1);
        while ((op = jdb_queue_next(q))) {
            if (op == waits) came = 1;
            else if (!came) quick = NULL;
            done(q, op, JDB_OK);
        }
        if (!came && !quick) quick = submit(q, prep_read(q, f, b, 0, PAGE, 0));
    }
    CHECK(came);
    jdb_queue_wait_abandoned(q);
    while (stats(q).in_flight) done(q, next(q), JDB_OK);
    jdb_buf_unref(b);
    gate_free(&g);
    jdb_file_unref(f);
    queue_free(q);
}

static void refused_read(DWORD error, jdb_kind kind, int number, unsigned flags) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "refused");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    jdb_windows.read = read_refused;
    answer = error;
    calls = 0;
    jdb_op *op = take(q);
    jdb_prep_read(op, f, b, 0, PAGE, PAGE, flags);
    submit(q, op);
    CHECK(next(q) == op);
    CHECK_EQ(op->error, number);
    CHECK_EQ(done(q, op, kind), 0);
    CHECK_EQ(calls, 1);
    nothing_more_comes(q);
    jdb_windows = real;
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void errors_of_the_call_itself(void) {
    refused_read(ERROR_HANDLE_EOF, JDB_SHORT_READ, 0, 0);
    refused_read(ERROR_HANDLE_EOF, JDB_OK, 0, JDB_READ_UPTO);
    refused_read(ERROR_INVALID_PARAMETER, JDB_IO, EINVAL, 0);
    refused_read(ERROR_CRC, JDB_IO, EIO, 0);
}

static HANDLE packets_to;
static ULONG_PTR packet_says; /* an NTSTATUS */

static BOOL WINAPI read_fails_later(HANDLE handle, void *memory, DWORD len, DWORD *moved,
                                    OVERLAPPED *o) {
    (void)handle;
    (void)memory;
    (void)len;
    (void)moved;
    o->Internal = packet_says;
    CHECK(PostQueuedCompletionStatus(packets_to, 0, 0, o));
    return give(ERROR_IO_PENDING);
}

static void failed_packet(ULONG_PTR status, jdb_kind kind, int number, unsigned flags) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "later");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    packets_to = (HANDLE)(intptr_t)q->notify;
    packet_says = status;
    jdb_windows.read = read_fails_later;
    jdb_op *op = take(q);
    jdb_prep_read(op, f, b, 0, PAGE, PAGE, flags);
    submit(q, op);
    CHECK(next(q) == op);
    CHECK_EQ(op->error, number);
    CHECK_EQ(done(q, op, kind), 0);
    nothing_more_comes(q);
    jdb_windows = real;
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void errors_of_the_packet(void) {
    failed_packet(0xc0000011, JDB_SHORT_READ, 0, 0); /* STATUS_END_OF_FILE */
    failed_packet(0xc0000011, JDB_OK, 0, JDB_READ_UPTO);
    failed_packet(0xc000000d, JDB_IO, EINVAL, 0);           /* STATUS_INVALID_PARAMETER */
    failed_packet(0xc000003e, JDB_IO, EIO, 0);              /* STATUS_DATA_ERROR */
    failed_packet(0xc0000185, JDB_IO, EIO, 0);              /* STATUS_IO_DEVICE_ERROR */
    failed_packet(0xc0000120, JDB_CANCELLED, ECANCELED, 0); /* STATUS_CANCELLED */
}

/* The system has no room for more in flight: a worker asks again. */
static void too_much_in_flight(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "no room");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    uint64_t pooled = stats(q).pool_operations;
    jdb_windows.read = read_refused;
    answer = ERROR_NO_SYSTEM_RESOURCES;
    CHECK_EQ(run(q, prep_read(q, f, b, 0, PAGE, PAGE), JDB_OK), PAGE);
    CHECK_EQ(((uint8_t *)jdb_buf_data(b))[0], 2);
    CHECK_EQ(stats(q).pool_operations, pooled + 1);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* ---- the valid data length ------------------------------------------------------------------- */

static uint64_t valid_length; /* what the file system tells of an existing file */

static BOOL WINAPI tell_valid_length(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out,
                                     DWORD out_size, DWORD *size, OVERLAPPED *o) {
    enum { QUERY_FILE_REGIONS = 0x90284 };
    (void)size;
    if (code != QUERY_FILE_REGIONS)
        return real.control(handle, code, in, in_size, out, out_size, size, o);
    CHECK_EQ(out_size, 40);
    uint32_t *words = out;
    memset(out, 0, out_size);
    words[1] = words[2] = 1;                       /* regions in all, regions here */
    memcpy((uint8_t *)out + 24, &valid_length, 8); /* the first begins at 0 */
    o->Internal = 0;
    o->InternalHigh = out_size;
    return TRUE;
}

static void write_page(jdb_queue *q, jdb_file *f, jdb_buf *b, unsigned pages, unsigned at) {
    own_writes = pool_writes = 0;
    CHECK_EQ(run(q, prep_write(q, f, b, 0, pages * PAGE, (uint64_t)at * PAGE), JDB_OK),
             pages * PAGE);
    CHECK_EQ(own_writes + pool_writes, 1);
}

static void writes_that_the_system_would_fill_gaps_for(void) {
    jdb_queue *q = iocp();
    jdb_buf *b = jdb_buf_new(4 * PAGE, PAGE);
    jdb_windows.write = count_writes;
    jdb_file *f = create_file(q, "grows");
    write_page(q, f, b, 1, 0);
    CHECK_EQ(pool_writes, 1);
    write_page(q, f, b, 1, 0); /* written before: nothing to fill */
    CHECK_EQ(own_writes, 1);
    write_page(q, f, b, 2, 0); /* ends behind it */
    CHECK_EQ(pool_writes, 1);
    write_page(q, f, b, 1, 3); /* leaves a gap, which is filled */
    CHECK_EQ(pool_writes, 1);
    write_page(q, f, b, 1, 2); /* ... so this is inside */
    CHECK_EQ(own_writes, 1);
    jdb_op *op = take(q);
    jdb_prep_truncate(op, f, PAGE);
    run(q, op, JDB_OK);
    write_page(q, f, b, 1, 1);
    CHECK_EQ(pool_writes, 1);
    jdb_file_unref(f);

    f = open_file(q, path_of("grows"), JDB_OPEN_WRITE);
    write_page(q, f, b, 1, 0); /* not known what was written */
    CHECK_EQ(pool_writes, 1);
    jdb_file_unref(f);
    jdb_windows.control = tell_valid_length;
    valid_length = PAGE;
    f = open_file(q, path_of("grows"), JDB_OPEN_WRITE);
    write_page(q, f, b, 1, 0);
    CHECK_EQ(own_writes, 1);
    write_page(q, f, b, 1, 1);
    CHECK_EQ(pool_writes, 1);
    jdb_file_unref(f);
    jdb_buf_unref(b);
    queue_free(q);
}

/* ---- alignment ------------------------------------------------------------------------------- */

static struct {
    uint32_t storage[7]; /* logical, physical for atomicity, for performance, ...; 0: refused */
    uint32_t mask, sector;
} disk;

static BOOL WINAPI describe_disk(HANDLE handle, FILE_INFO_BY_HANDLE_CLASS what, void *out,
                                 DWORD size) {
    if ((int)what == 16) {
        if (!disk.storage[0]) return give(ERROR_INVALID_PARAMETER);
        CHECK_EQ(size, sizeof disk.storage);
        memcpy(out, disk.storage, size);
        return TRUE;
    }
    if ((int)what == 17) {
        memcpy(out, &disk.mask, sizeof disk.mask);
        return TRUE;
    }
    return real.get_information(handle, what, out, size);
}

static BOOL WINAPI describe_volume(const wchar_t *root, DWORD *per_cluster, DWORD *sector,
                                   DWORD *unused, DWORD *clusters) {
    CHECK(root[wcslen(root) - 1] == L'\\');
    *per_cluster = *unused = *clusters = 1;
    *sector = disk.sector;
    return give(disk.sector ? 0 : ERROR_INVALID_PARAMETER);
}

static void aligned(uint32_t logical, uint32_t fast, uint32_t mask, uint32_t sector,
                    uint32_t want_file, uint32_t want_memory, const char *source) {
    jdb_file_info info;
    jdb_queue *q = iocp();
    memset(&disk, 0, sizeof disk);
    disk.storage[0] = disk.storage[1] = logical;
    disk.storage[2] = fast;
    disk.mask = mask;
    disk.sector = sector;
    jdb_file *f = create_file(q, "aligned");
    jdb_file_info_get(f, &info);
    CHECK_EQ(info.write_align, want_file);
    CHECK_EQ(info.read_align, want_file);
    CHECK_EQ(info.memory_align, want_memory);
    CHECK(strncmp(info.align_source, source, strlen(source)) == 0);
    jdb_buf *b = jdb_buf_new(2 * PAGE, PAGE);
    jdb_op *op = prep_write(q, f, b, 0, want_file / 2, 0);
    CHECK_EQ(jdb_op_check(op), JDB_ALIGNMENT);
    jdb_op_release(q, op);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

static void alignments(void) {
    jdb_windows.get_information = describe_disk;
    jdb_windows.get_disk_free_space = describe_volume;
    aligned(512, 4096, 0, 512, 512, 4096, "FileStorageInfo");
    aligned(4096, 4096, 0, 512, 4096, 4096, "FileStorageInfo");
    aligned(512, 512, 1023, 512, 512, 1024, "FileStorageInfo"); /* the mask is one less */
    aligned(512, 65536, 0, 512, 512, 512, "FileStorageInfo");   /* more than memory has */
    aligned(0, 0, 0, 4096, 4096, 4096, "GetDiskFreeSpace");
    aligned(3, 3, 0, 512, 512, 512, "GetDiskFreeSpace"); /* no alignment at all */
    aligned(0, 0, 0, 0, PAGE, PAGE, "one page");
    aligned(0, 0, 0, 520, PAGE, PAGE, "one page");
}

/* ---- space ----------------------------------------------------------------------------------- */

static struct {
    unsigned allocations, ends;
    uint64_t allocation, end;
    HANDLE hold; /* an allocation lasts until this event */
} space;

static BOOL WINAPI reserve_space(HANDLE handle, FILE_INFO_BY_HANDLE_CLASS what, void *in,
                                 DWORD size) {
    if (what == FileAllocationInfo) {
        space.allocations++;
        memcpy(&space.allocation, in, sizeof space.allocation);
        if (space.hold) WaitForSingleObject(space.hold, INFINITE);
        return give(answer);
    }
    if (what == FileEndOfFileInfo) {
        CHECK(space.allocations > 0 || answer == ERROR_NOT_SUPPORTED);
        space.ends++;
        memcpy(&space.end, in, sizeof space.end);
    }
    return real.set_information(handle, what, in, size);
}

static void preallocate(jdb_queue *q, jdb_file *f, uint64_t len, jdb_prealloc how, jdb_kind kind) {
    jdb_op *op = take(q);
    memset(&space, 0, sizeof space);
    own_writes = pool_writes = 0;
    jdb_prep_preallocate(op, f, len, how);
    run(q, op, kind);
}

static void reservations(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "reserved");
    jdb_windows.set_information = reserve_space;
    jdb_windows.write = count_writes;
    preallocate(q, f, 64 * PAGE, JDB_PREALLOC_KEEP, JDB_OK);
    CHECK_EQ(space.allocations, 1);
    CHECK_EQ(space.allocation, 64 * PAGE);
    CHECK_EQ(space.ends, 0);
    CHECK_EQ(jdb_file_size_now(f), 4 * PAGE);
    preallocate(q, f, PAGE, JDB_PREALLOC_KEEP, JDB_OK);
    CHECK_EQ(space.allocations, 0); /* that would cut the file off */
    preallocate(q, f, PAGE, JDB_PREALLOC_SIZE, JDB_OK);
    CHECK_EQ(space.ends, 0);
    preallocate(q, f, 64 * PAGE, JDB_PREALLOC_SIZE, JDB_OK);
    CHECK_EQ(space.allocations, 1);
    CHECK_EQ(space.end, 64 * PAGE);
    CHECK_EQ(own_writes + pool_writes, 0); /* no zeros: the system reads them */
    CHECK_EQ(jdb_file_size_now(f), 64 * PAGE);
    answer = ERROR_DISK_FULL;
    preallocate(q, f, 128 * PAGE, JDB_PREALLOC_SIZE, JDB_IO);
    CHECK_EQ(space.ends, 0);
    CHECK_EQ(jdb_file_size_now(f), 64 * PAGE);
    answer = ERROR_NOT_SUPPORTED;
    preallocate(q, f, 65 * PAGE, JDB_PREALLOC_SIZE, JDB_OK);
    CHECK_EQ(pool_writes, 1); /* written zeros reserve as well */
    CHECK_EQ(jdb_file_size_now(f), 65 * PAGE);
    preallocate(q, f, 66 * PAGE, JDB_PREALLOC_KEEP, JDB_UNSUPPORTED);
    jdb_file_unref(f);
    queue_free(q);
}

static BOOL WINAPI tell_reserved(HANDLE handle, FILE_INFO_BY_HANDLE_CLASS what, void *out,
                                 DWORD size) {
    FILE_STANDARD_INFO *info = out;
    if (!real.get_information(handle, what, out, size)) return FALSE;
    if (what == FileStandardInfo) info->AllocationSize.QuadPart = 64 * PAGE;
    return TRUE;
}

static void space_that_create_gives_back(void) {
    jdb_queue *q = iocp();
    jdb_file_unref(create_file(q, "given back"));
    memset(&space, 0, sizeof space);
    space.allocation = 1;
    jdb_windows.get_information = tell_reserved;
    jdb_windows.set_information = reserve_space;
    jdb_file_unref(create_file(q, "given back"));
    CHECK_EQ(space.allocations, 1);
    CHECK_EQ(space.allocation, 0);
    queue_free(q);
}

/* A write that grew the file while its space is being set would be cut off. */
static void reservations_wait_for_writes(void) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "alone");
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    memset(&space, 0, sizeof space);
    own_writes = pool_writes = 0;
    space.hold = event;
    jdb_windows.set_information = reserve_space;
    jdb_windows.write = count_writes;
    jdb_op *op = take(q);
    jdb_prep_preallocate(op, f, 16 * PAGE, JDB_PREALLOC_KEEP);
    submit(q, op);
    jdb_op *write = submit(q, prep_write(q, f, b, 0, PAGE, 20 * PAGE));
    for (int i = 0; i < 5; i++) jdb_queue_reap(q, 5000000);
    CHECK_EQ(space.allocations, 1);
    CHECK_EQ(own_writes + pool_writes, 0);
    SetEvent(event);
    CHECK(next(q) == op);
    done(q, op, JDB_OK);
    CHECK(next(q) == write);
    done(q, write, JDB_OK);
    CHECK_EQ(jdb_file_size_now(f), 21 * PAGE);
    CloseHandle(event);
    jdb_buf_unref(b);
    jdb_file_unref(f);
    queue_free(q);
}

/* ---- durability ------------------------------------------------------------------------------ */

static unsigned flushes, data_flushes;
static DWORD flush_answer;

static BOOL WINAPI count_flushes(HANDLE handle) {
    (void)handle;
    flushes++;
    return give(flush_answer);
}

static DWORD count_data_flushes(HANDLE handle) {
    (void)handle;
    data_flushes++;
    return answer;
}

static void synced(DWORD data_answer, jdb_code code, jdb_kind kind, unsigned all, unsigned data) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "synced");
    jdb_windows.flush = count_flushes;
    jdb_windows.flush_data = count_data_flushes;
    answer = data_answer;
    flushes = data_flushes = 0;
    run(q, prep_file(q, code, f), kind);
    CHECK_EQ(flushes, all);
    CHECK_EQ(data_flushes, data);
    if (kind != JDB_OK) {
        jdb_op *op = prep_file(q, code, f);
        CHECK_EQ(jdb_op_check(op), JDB_POISONED);
        jdb_op_release(q, op);
    }
    jdb_file_unref(f);
    queue_free(q);
}

static void flushes_of_data_only(void) {
    synced(0, JDB_SYNC_DATA, JDB_OK, 0, 1);
    synced(0, JDB_SYNC_ALL, JDB_OK, 1, 0);
    synced(ERROR_CALL_NOT_IMPLEMENTED, JDB_SYNC_DATA, JDB_OK, 1, 1);
    synced(ERROR_NOT_SUPPORTED, JDB_SYNC_DATA, JDB_OK, 1, 1);
    /* The second try could succeed without the data. */
    synced(ERROR_IO_DEVICE, JDB_SYNC_DATA, JDB_IO, 0, 1);
}

static void synced_directory(DWORD error, jdb_kind kind) {
    jdb_queue *q = iocp();
    jdb_op *op = take(q);
    jdb_windows.flush = count_flushes;
    flush_answer = error;
    flushes = 0;
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_SYNC_DIR, test_dir(), 0), 0);
    run(q, op, kind);
    CHECK_EQ(flushes, 1);
    flush_answer = 0;
    queue_free(q);
}

static void flushes_of_directories(void) {
    synced_directory(0, JDB_OK);
    synced_directory(ERROR_ACCESS_DENIED, JDB_OK); /* not for us: the file system's own affair */
    synced_directory(ERROR_IO_DEVICE, JDB_IO);
}

/* ---- opening --------------------------------------------------------------------------------- */

static struct {
    DWORD access, share, flags; /* of the last one */
    unsigned opens;
} opened;

/* A file system without direct I/O refuses the flag; with `answer` 0 this one has it. */
static HANDLE WINAPI watch_create(const wchar_t *path, DWORD access, DWORD share,
                                  SECURITY_ATTRIBUTES *security, DWORD how, DWORD flags,
                                  HANDLE like) {
    opened.access = access;
    opened.share = share;
    opened.flags = flags;
    opened.opens++;
    if (answer && (flags & FILE_FLAG_NO_BUFFERING)) {
        SetLastError(answer);
        return INVALID_HANDLE_VALUE;
    }
    return real.create(path, access, share, security, how, flags, like);
}

static void open_with(unsigned flags, jdb_direct direct, jdb_kind kind, DWORD want, int is_direct) {
    const DWORD ours = FILE_FLAG_OVERLAPPED | FILE_FLAG_NO_BUFFERING | FILE_FLAG_WRITE_THROUGH;
    jdb_queue *q = iocp();
    jdb_op *op = take(q);
    jdb_open how = {.flags = flags, .mode = 0666, .direct = direct};
    CHECK_EQ(jdb_prep_open(q, op, path_of("four pages"), &how), 0);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    CHECK_EQ(opened.flags & ours, want);
    CHECK_EQ(opened.access, GENERIC_READ | (flags & JDB_OPEN_WRITE ? GENERIC_WRITE : 0));
    CHECK_EQ(opened.share, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
    if (kind == JDB_OK) CHECK_EQ(jdb_op_file(op)->info.direct, is_direct);
    else CHECK(strstr(jdb_op_file(op)->info.direct_reason, "option direct"));
    done(q, op, kind);
    queue_free(q);
}

static void flags_of_open_files(void) {
    const DWORD overlapped = FILE_FLAG_OVERLAPPED, direct = overlapped | FILE_FLAG_NO_BUFFERING;
    const DWORD through = direct | FILE_FLAG_WRITE_THROUGH;
    const unsigned wal = JDB_OPEN_WRITE | JDB_OPEN_DSYNC;
    jdb_queue *q = iocp();
    jdb_file_unref(four_pages(q, "four pages"));
    queue_free(q);
    jdb_windows.create = watch_create;
    open_with(0, JDB_DIRECT_REQUIRE, JDB_OK, direct, 1);
    open_with(JDB_OPEN_WRITE, JDB_DIRECT_PREFER, JDB_OK, direct, 1);
    open_with(JDB_OPEN_WRITE, JDB_DIRECT_OFF, JDB_OK, overlapped, 0);
    open_with(wal, JDB_DIRECT_REQUIRE, JDB_OK, through, 1);
    answer = ERROR_INVALID_PARAMETER;
    open_with(wal, JDB_DIRECT_PREFER, JDB_OK, overlapped | FILE_FLAG_WRITE_THROUGH, 0);
    open_with(wal, JDB_DIRECT_REQUIRE, JDB_UNSUPPORTED, through, 0);
    /* Another failure is none of direct I/O's. */
    answer = ERROR_ACCESS_DENIED;
    opened.opens = 0;
    jdb_op *op;
    q = iocp();
    op = submit(q, prep_open(q, path_of("four pages"), 0));
    jdb_queue_wait_op(q, op);
    CHECK_EQ(opened.opens, 1);
    done(q, op, JDB_IO);
    queue_free(q);
}

/* ---- names ----------------------------------------------------------------------------------- */

static struct {
    unsigned posix, moves;
    DWORD move_flags;
} names;

static BOOL WINAPI rename_posix(HANDLE handle, FILE_INFO_BY_HANDLE_CLASS what, void *in,
                                DWORD size) {
    static wchar_t from[1024];
    struct {
        DWORD flags;
        HANDLE root;
        DWORD bytes;
        wchar_t name[1];
    } *info = in;
    if ((int)what != 22) return real.set_information(handle, what, in, size);
    names.posix++;
    CHECK_EQ(info->flags, 3); /* replace, POSIX semantics */
    CHECK(!info->root);
    CHECK_EQ(info->bytes, wcslen(info->name) * sizeof(wchar_t));
    CHECK(info->name[1] == L':' || info->name[0] == L'\\'); /* absolute */
    if (answer) return give(answer);
    CHECK(GetFinalPathNameByHandleW(handle, from, 1024, 0) < 1024);
    return MoveFileExW(from, info->name, MOVEFILE_REPLACE_EXISTING);
}

static BOOL WINAPI count_moves(const wchar_t *from, const wchar_t *to, DWORD flags) {
    names.moves++;
    names.move_flags = flags;
    return real.move(from, to, flags);
}

static void renamed(DWORD posix_answer, unsigned flags, jdb_kind kind, unsigned posix,
                    unsigned moves, DWORD move_flags) {
    jdb_queue *q = iocp();
    jdb_file_unref(create_file(q, "old name"));
    if (!(flags & JDB_RENAME_NOREPLACE)) jdb_file_unref(create_file(q, "new name"));
    memset(&names, 0, sizeof names);
    jdb_windows.set_information = rename_posix;
    jdb_windows.move = count_moves;
    answer = posix_answer;
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_rename(op, path_of("old name"), path_of("new name"), flags), 0);
    run(q, op, kind);
    CHECK_EQ(names.posix, posix);
    CHECK_EQ(names.moves, moves);
    CHECK_EQ(names.move_flags, move_flags);
    op = take(q);
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_REMOVE, path_of(kind ? "old name" : "new name"), 0), 0);
    run(q, op, JDB_OK);
    if (kind) {
        op = take(q);
        CHECK_EQ(jdb_prep_path(op, JDB_PATH_REMOVE, path_of("new name"), 0), 0);
        run(q, op, JDB_OK);
    }
    queue_free(q);
}

static void renames(void) {
    const DWORD replace = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
    renamed(0, 0, JDB_OK, 1, 0, 0);
    renamed(ERROR_INVALID_PARAMETER, 0, JDB_OK, 1, 1, replace);
    renamed(ERROR_NOT_SUPPORTED, 0, JDB_OK, 1, 1, replace);
    renamed(ERROR_WRITE_PROTECT, 0, JDB_IO, 1, 0, 0); /* an answer, not a lack */
    renamed(0, JDB_RENAME_NOREPLACE, JDB_OK, 0, 1, MOVEFILE_WRITE_THROUGH);
}

static BOOL WINAPI remove_posix(HANDLE handle, FILE_INFO_BY_HANDLE_CLASS what, void *in,
                                DWORD size) {
    DWORD flags;
    FILE_DISPOSITION_INFO remove_it = {.DeleteFile = TRUE};
    if ((int)what != 21) return real.set_information(handle, what, in, size);
    names.posix++;
    CHECK_EQ(size, sizeof flags);
    memcpy(&flags, in, sizeof flags);
    CHECK_EQ(flags, 0x13); /* delete, POSIX semantics, also when it is read only */
    if (answer) return give(answer);
    return real.set_information(handle, FileDispositionInfo, &remove_it, sizeof remove_it);
}

static void removals(void) {
    jdb_queue *q = iocp();
    jdb_windows.set_information = remove_posix;
    for (int i = 0; i < 2; i++) {
        memset(&names, 0, sizeof names);
        answer = i ? ERROR_INVALID_PARAMETER : 0;
        jdb_file_unref(create_file(q, "to go"));
        jdb_op *op = take(q);
        CHECK_EQ(jdb_prep_path(op, JDB_PATH_REMOVE, path_of("to go"), 0), 0);
        run(q, op, JDB_OK);
        CHECK_EQ(names.posix, 1);
        op = take(q);
        CHECK_EQ(jdb_prep_path(op, JDB_PATH_EXISTS, path_of("to go"), 0), 0);
        CHECK_EQ(run(q, op, JDB_OK), 0);
    }
    queue_free(q);
}

static void roots_of_paths(void) {
    static const struct {
        const char *path;
        size_t root;
    } list[] = {{"a/b", 0},       {"/a", 1},           {"\\a", 1},          {"C:/a", 3},
                {"c:\\", 3},      {"C:a", 2},          {"//s/share/a", 10}, {"\\\\s\\share\\a", 10},
                {"//s/share", 9}, {"\\\\?\\C:\\a", 7}, {"1:/a", 0},         {"", 0}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        CHECK_EQ(jdb_windows_root(list[i].path), list[i].root);
}

/* Either separator, and letters beyond ASCII: what is made is found, and told as it was given. */
static void paths_as_windows_writes_them(void) {
    static const char text[] = "content";
    char path[300];
    size_t count;
    jdb_queue *q = iocp();
    snprintf(path, sizeof path, "%s\\gr\xc3\xbc\xc3\x9f\\\xe6\xbc\xa2\\deep", test_dir());
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_MKDIR, path, JDB_NAME_DURABLE), 0);
    run(q, op, JDB_OK);
    strcat(path, "\\\xe5\xad\x97.db");
    op = take(q);
    CHECK_EQ(jdb_prep_atomic_write(op, path, text, sizeof text), 0);
    run(q, op, JDB_OK);
    jdb_file *f = open_file(q, path, 0);
    CHECK_EQ(jdb_file_size_now(f), sizeof text);
    jdb_file_unref(f);
    *strrchr(path, '\\') = 0;
    op = take(q);
    CHECK_EQ(jdb_prep_path(op, JDB_PATH_LS, path, 0), 0);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    CHECK_STR(jdb_op_names(op, &count), "\xe5\xad\x97.db");
    CHECK_EQ(count, 1);
    done(q, op, JDB_OK);
    queue_free(q);
}

/* The system would take another file: "a." and "a " are "a" to it. */
static void names_that_would_lose_their_end(void) {
    static const char *const lost[] = {"a.", "a ", "...", "d. /a", " ", "a/b. ."};
    static const char *const kept[] = {"a.b", ".a", "./a", "../a", "a b", "..a"};
    wchar_t *wide;
    for (size_t i = 0; i < sizeof lost / sizeof *lost; i++)
        CHECK_EQ(jdb_windows_path(lost[i], &wide), -EINVAL);
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        CHECK_EQ(jdb_windows_path(kept[i], &wide), 0);
        free(wide);
    }
    jdb_queue *q = iocp();
    jdb_op *op = take(q);
    CHECK_EQ(jdb_prep_atomic_write(op, path_of("lost."), "x", 1), 0);
    submit(q, op);
    jdb_queue_wait_op(q, op);
    CHECK_EQ(op->error, EINVAL);
    done(q, op, JDB_IO);
    queue_free(q);
}

/* ---- cancellation ---------------------------------------------------------------------------- */

static BOOL WINAPI cancel_or_not(HANDLE handle, OVERLAPPED *o) {
    calls++;
    return answer ? give(answer) : real.cancel(handle, o);
}

/* Until the packet is taken the memory is the system's, whatever was cancelled. */
static void cancelled_reads(void) {
    uint64_t buffers, files;
    for (int refuses = 0; refuses < 2; refuses++) {
        jdb_queue *q = iocp();
        jdb_buf *b = jdb_buf_new(PAGE, PAGE);
        struct gate g = gate_new(q, 1);
        jdb_windows.cancel = cancel_or_not;
        answer = refuses ? ERROR_NOT_FOUND : 0;
        calls = 0;
        jdb_op *op = submit(q, prep_read(q, g.file, b, 0, 1, 0));
        jdb_buf_unref(b);
        jdb_op_abandon(q, op);
        CHECK_EQ(calls, 1);
        jdb_live(&buffers, &files);
        CHECK_EQ(buffers, 1);
        if (refuses) {
            jdb_queue_reap(q, 5000000);
            CHECK_EQ(stats(q).abandoned, 1);
            gate_pass(&g, 1);
        }
        jdb_queue_wait_abandoned(q);
        jdb_live(&buffers, &files);
        CHECK_EQ(buffers, 0);
        check_idle(q);
        gate_free(&g);
        queue_free(q);
    }
}

static void writes_are_not_cancelled(void) {
    jdb_queue *q = iocp();
    jdb_buf *b = jdb_buf_new(PAGE, PAGE);
    struct gate g = gate_new(q, 0);
    char text[PAGE];
    DWORD n = 0;
    jdb_windows.cancel = cancel_or_not;
    jdb_op *op = submit(q, prep_write(q, g.file, b, 0, 100, 0));
    jdb_op_abandon(q, op);
    CHECK_EQ(calls, 0);
    for (DWORD got = 0; got < PAGE + 100; got += n)
        CHECK(ReadFile((HANDLE)g.other, text, sizeof text, &n, NULL));
    jdb_queue_wait_abandoned(q);
    check_idle(q);
    jdb_buf_unref(b);
    gate_free(&g);
    queue_free(q);
}

/* ---- what a flush is worth ------------------------------------------------------------------- */

static struct {
    uint32_t words[6]; /* version, size, type, enabled, changeable, write-through */
    uint8_t flush, power_protected, other;
} cache;
static int cache_known;

static BOOL WINAPI describe_cache(HANDLE handle, DWORD code, void *in, DWORD in_size, void *out,
                                  DWORD out_size, DWORD *size, OVERLAPPED *o) {
    uint32_t property;
    if (code != 0x2d1400) return real.control(handle, code, in, in_size, out, out_size, size, o);
    memcpy(&property, in, sizeof property);
    if (property != 4 || !cache_known) return give(ERROR_NOT_SUPPORTED);
    memcpy(out, &cache, out_size < sizeof cache ? out_size : sizeof cache);
    o->Internal = 0;
    o->InternalHigh = out_size;
    return TRUE;
}

static void worth(int known, uint32_t enabled, int power_protected, const char *class_name) {
    jdb_queue *q = iocp();
    jdb_file *f = four_pages(q, "worth");
    jdb_file_info info;
    cache_known = known;
    cache.words[3] = enabled;
    cache.power_protected = (uint8_t)power_protected;
    run(q, prep_file(q, JDB_INFO, f), JDB_OK);
    jdb_file_info_get(f, &info);
    CHECK_STR(info.evidence.class_name, class_name);
    CHECK(strstr(info.evidence.reasons, "directory"));
    jdb_file_unref(f);
    queue_free(q);
}

static void durability_classes(void) {
    jdb_windows.control = describe_cache;
    worth(0, 0, 0, "unknown");
    worth(1, 2, 0, "flush-required");
    worth(1, 1, 0, "unverified"); /* its own word for having no cache */
    worth(1, 2, 1, "unsafe");     /* flushes are not passed on */
    worth(1, 0, 0, "unknown");
}

static void errors_have_their_names(void) {
    static const struct {
        DWORD error;
        const char *name;
        jdb_kind kind;
    } list[] = {{ERROR_DISK_FULL, "ENOSPC", JDB_IO},
                {ERROR_SHARING_VIOLATION, "EBUSY", JDB_IO},
                {ERROR_FILE_NOT_FOUND, "ENOENT", JDB_IO},
                {ERROR_ALREADY_EXISTS, "EEXIST", JDB_IO},
                {ERROR_ACCESS_DENIED, "EACCES", JDB_IO},
                {ERROR_NOT_SAME_DEVICE, "EXDEV", JDB_IO},
                {ERROR_CRC, "EIO", JDB_IO},
                {1295, "EDQUOT", JDB_IO},
                {ERROR_NOT_ENOUGH_MEMORY, "ENOMEM", JDB_ALLOC},
                {ERROR_NOT_SUPPORTED, "EOPNOTSUPP", JDB_UNSUPPORTED},
                {ERROR_OPERATION_ABORTED, "ECANCELED", JDB_CANCELLED}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        char words[64];
        int number = jdb_windows_errno(list[i].error);
        CHECK_STR(jdb_errno_name(number), list[i].name);
        CHECK_EQ(jdb_kind_of_errno(number), list[i].kind);
        jdb_os_error_text(number, words, sizeof words);
        CHECK(words[0] && !strstr(words, "nknown"));
    }
}

int main(void) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"reads that end inside the call", reads_that_end_inside_the_call},
        {"packets that come although the call ended", packets_that_come_although_the_call_ended},
        {"nobody starves", nobody_starves},
        {"errors of the call itself", errors_of_the_call_itself},
        {"errors of the packet", errors_of_the_packet},
        {"too much in flight", too_much_in_flight},
        {"writes that the system would fill gaps for", writes_that_the_system_would_fill_gaps_for},
        {"alignments", alignments},
        {"reservations", reservations},
        {"space that create gives back", space_that_create_gives_back},
        {"reservations wait for writes", reservations_wait_for_writes},
        {"flags of open files", flags_of_open_files},
        {"flushes of data only", flushes_of_data_only},
        {"flushes of directories", flushes_of_directories},
        {"renames", renames},
        {"removals", removals},
        {"roots of paths", roots_of_paths},
        {"paths as Windows writes them", paths_as_windows_writes_them},
        {"names that would lose their end", names_that_would_lose_their_end},
        {"cancelled reads", cancelled_reads},
        {"writes are not cancelled", writes_are_not_cancelled},
        {"durability classes", durability_classes},
        {"errors have their names", errors_have_their_names},
    };
    test_prepare();
    real = jdb_windows;
    own_thread = GetCurrentThreadId();
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) {
        test_begin(tests[i].name, 60);
        answer = 0;
        calls = 0;
        tests[i].run();
        jdb_windows = real;
        check_nothing_lives();
    }
    printf("%u tests\n", (unsigned)(sizeof tests / sizeof *tests));
    return 0;
}
