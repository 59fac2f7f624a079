/* os_windows_evidence.c: what the system tells about the volume and the disk below a file:
 * alignment, caches, what a flush is worth. Nothing here needs a privilege; what is refused stays
 * unknown, and evidence that is missing never makes a class better. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os_windows.h"

/* Not in the headers of every compiler. */
enum { STORAGE_INFO_CLASS = 16, ALIGNMENT_INFO_CLASS = 17 };
enum { QUERY_FILE_REGIONS = 0x90284, REGION_VALID = 1 };
enum { WRITE_CACHE_PROPERTY = 4, ALIGNMENT_PROPERTY = 6, CACHE_OFF = 1, CACHE_ON = 2 };

struct storage_info { /* FILE_STORAGE_INFO */
    DWORD logical, physical_atomic, physical_fast, effective_atomic, flags, offset,
        partition_offset;
};

struct storage_query { /* STORAGE_PROPERTY_QUERY */
    DWORD property, type;
    BYTE more[4];
};

struct write_cache { /* STORAGE_WRITE_CACHE_PROPERTY */
    DWORD version, size;
    DWORD type, enabled, changeable, write_through;
    BYTE flush_supported, power_protected, nvcache;
};

struct access_alignment { /* STORAGE_ACCESS_ALIGNMENT_DESCRIPTOR */
    DWORD version, size, cache_line, cache_offset, logical, physical, sector_offset;
};

static int power_of_two(DWORD n) { return n > 0 && (n & (n - 1)) == 0; }

/* ---- alignment ------------------------------------------------------------------------------ */

/* "\\?\C:\dir\file" or "\\?\Volume{...}\dir\file", cut behind the volume and its backslash. 0: it
 * has none that we know (a share). */
static int volume_of(HANDLE handle, wchar_t *volume, DWORD units) {
    for (DWORD kind = VOLUME_NAME_GUID;; kind = VOLUME_NAME_DOS) {
        DWORD len = GetFinalPathNameByHandleW(handle, volume, units, kind);
        if (len > 4 && len < units) {
            wchar_t *end = wcschr(volume + 4, L'\\');
            if (!end || wcsncmp(volume + 4, L"UNC\\", 4) == 0) return 0;
            end[1] = 0;
            return 1;
        }
        if (kind == VOLUME_NAME_DOS) return 0;
    }
}

/* On the heap: such a path may be long, and workers have small stacks. */
static wchar_t *volume_new(HANDLE handle) {
    const DWORD units = 32768;
    wchar_t *volume = malloc(units * sizeof *volume);
    if (volume && volume_of(handle, volume, units)) return volume;
    free(volume);
    return NULL;
}

/* Whole sectors for offset and length; memory as the disk's physical sector where that is more. */
static void set_alignment(jdb_file_info *info, DWORD logical, DWORD memory, const char *source) {
    DWORD page = (DWORD)jdb_os_page_size();
    info->read_align = info->write_align = logical;
    info->memory_align =
        power_of_two(memory) && memory > logical && memory <= page ? memory : logical;
    info->direct_write_unit = logical;
    info->align_source = source;
}

static int ask_volume(HANDLE handle, DWORD *logical) {
    DWORD per_cluster, free_clusters, clusters;
    wchar_t *volume = volume_new(handle);
    int known = volume && jdb_windows.get_disk_free_space(volume, &per_cluster, logical,
                                                          &free_clusters, &clusters);
    free(volume);
    return known && power_of_two(*logical);
}

/* The first that answers; else one page. */
void jdb_windows_alignment(HANDLE handle, jdb_file_info *info) {
    struct storage_info storage;
    DWORD page = (DWORD)jdb_os_page_size(), mask = 0, logical = 0;
    memset(&storage, 0, sizeof storage);
    /* The answer is a mask. Most disks say that any address will do. */
    if (!jdb_windows.get_information(handle, (FILE_INFO_BY_HANDLE_CLASS)ALIGNMENT_INFO_CLASS, &mask,
                                     sizeof mask))
        mask = 0;
    if (jdb_windows.get_information(handle, (FILE_INFO_BY_HANDLE_CLASS)STORAGE_INFO_CLASS, &storage,
                                    sizeof storage) &&
        power_of_two(storage.logical)) {
        DWORD memory = storage.physical_fast > mask + 1 ? storage.physical_fast : mask + 1;
        set_alignment(info, storage.logical, memory, "FileStorageInfo");
    } else if (ask_volume(handle, &logical)) {
        set_alignment(info, logical, mask + 1, "GetDiskFreeSpace");
    } else {
        set_alignment(info, page, page, "one page: the system gives no alignment for this file");
    }
}

uint64_t jdb_windows_valid_end(HANDLE handle) {
    struct {
        int64_t offset, length;
        DWORD usage;
    } asked = {0, INT64_MAX, REGION_VALID};
    struct {
        DWORD flags, total, count, reserved;
        struct {
            int64_t offset, length;
            DWORD usage, reserved;
        } region[1];
    } answer;
    int64_t r = jdb_windows_control(handle, QUERY_FILE_REGIONS, &asked, sizeof asked, &answer,
                                    sizeof answer);
    if (r < (int64_t)sizeof answer || answer.count < 1 || answer.region[0].offset != 0) return 0;
    return answer.region[0].length > 0 ? (uint64_t)answer.region[0].length : 0;
}

void jdb_windows_file_system(HANDLE handle, char *name, size_t size) {
    wchar_t wide[32];
    snprintf(name, size, "unknown");
    if (!GetVolumeInformationByHandleW(handle, NULL, 0, NULL, NULL, NULL, wide, 32)) return;
    if (!jdb_windows_utf8(wide, name, size)) snprintf(name, size, "unknown");
}

/* ---- durability ----------------------------------------------------------------------------- */

static void say(jdb_evidence *e, const char *text, const char *detail) {
    size_t used = strlen(e->reasons);
    snprintf(e->reasons + used, sizeof e->reasons - used, "%s%s%s", used ? "\n" : "", text, detail);
}

/* Bytes of the answer of the disk below a volume, or less than 0. */
static int64_t ask_disk(HANDLE volume, DWORD property, void *answer, DWORD size) {
    struct storage_query query = {.property = property};
    memset(answer, 0, size);
    return jdb_windows_control(volume, IOCTL_STORAGE_QUERY_PROPERTY, &query, sizeof query, answer,
                               size);
}

static void read_disk(HANDLE volume, jdb_evidence *e, int *unprotected) {
    struct write_cache cache;
    struct access_alignment sectors;
    if (ask_disk(volume, ALIGNMENT_PROPERTY, &sectors, sizeof sectors) >= (int64_t)sizeof sectors) {
        e->logical_block = sectors.logical;
        e->physical_block = sectors.physical;
    }
    if (ask_disk(volume, WRITE_CACHE_PROPERTY, &cache, sizeof cache) <
        (int64_t)offsetof(struct write_cache, nvcache))
        return;
    if (cache.enabled == CACHE_ON) e->volatile_cache = 1;
    if (cache.enabled == CACHE_OFF) e->volatile_cache = 0;
    e->fua = cache.write_through == 2;
    *unprotected = cache.power_protected;
}

static void find_disk(HANDLE handle, jdb_evidence *e, int *unprotected) {
    wchar_t *volume = volume_new(handle);
    if (!volume) return;
    volume[wcslen(volume) - 1] = 0; /* with the backslash it is the directory on it */
    jdb_windows_utf8(volume + 4, e->device, sizeof e->device);
    HANDLE disk = CreateFileW(volume, 0, jdb_windows_share_all, NULL, OPEN_EXISTING, 0, NULL);
    free(volume);
    if (disk == INVALID_HANDLE_VALUE) return;
    read_disk(disk, e, unprotected);
    CloseHandle(disk);
}

/* What a flush is worth, weakest reason first. */
static const char *classify(const char *file_system, int unprotected, jdb_evidence *e) {
    static const char *const unsafe[] = {"FAT", "FAT32", "exFAT", "CDFS", "UDF"};
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
        if (strcmp(file_system, unsafe[i]) == 0) {
            say(e, "no durable storage is promised by this file system: ", file_system);
            return "unsafe";
        }
    if (unprotected) {
        say(e, "the system was told not to flush this disk's write cache (power protection)", "");
        return "unsafe";
    }
    if (!e->device[0]) {
        say(e, "no local volume: what a flush does there cannot be seen", "");
        return "unsafe";
    }
    if (e->volatile_cache < 0) {
        say(e, "the device does not tell whether it has a volatile write cache", "");
        return "unknown";
    }
    say(e,
        e->volatile_cache ? "the device has a volatile write cache, which flushes empty"
                          : "the device reports that its write cache is off",
        e->fua == 1 ? "; single writes can pass it (write-through)" : "");
    if (strcmp(file_system, "NTFS") != 0 && strcmp(file_system, "ReFS") != 0) {
        say(e, "not examined for this file system: ", file_system);
        return "unverified";
    }
    return e->volatile_cache ? "flush-required" : "unverified";
}

int64_t jdb_windows_evidence(HANDLE handle, const char *file_system, jdb_evidence *e) {
    int unprotected = 0;
    memset(e, 0, sizeof *e);
    e->volatile_cache = e->fua = -1;
    find_disk(handle, e, &unprotected);
    e->class_name = classify(file_system, unprotected, e);
    say(e,
        "names: their directory is flushed where the system allows that, else its own log of "
        "changes keeps them",
        "");
    return 0;
}
