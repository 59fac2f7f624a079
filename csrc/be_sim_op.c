/* be_sim_op.c: operations on the simulated disk, with the results that Linux gives. What changes
 * the disk is made of steps; between any two of them the power may go. */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "be_sim.h"
#include "os.h"

/* A file ends there on ext4 with blocks of 4 KiB. */
#define FILE_MAX (UINT64_C(16) << 40)
enum { MODE_MASK = 0755, DEVICE = 0x51d };

/* ---- handles -------------------------------------------------------------------------------- */

static int64_t open_handle(struct sim *s, struct sim_inode *inode) {
    size_t i = 0;
    while (i < s->handle_count && s->handles[i].used) i++;
    if (i == s->handle_count) {
        size_t more = i ? 2 * i : 16;
        struct sim_handle *grown = realloc(s->handles, more * sizeof *grown);
        if (!grown) return -ENOMEM;
        memset(grown + i, 0, (more - i) * sizeof *grown);
        s->handles = grown;
        s->handle_count = more;
    }
    s->handles[i].used = 1;
    s->handles[i].lock = 0;
    s->handles[i].inode = inode;
    sim_inode_ref(inode);
    inode->handles++;
    return (int64_t)i;
}

void sim_close_handle(struct sim *s, intptr_t handle) {
    struct sim_handle *h = &s->handles[handle];
    struct sim_inode *inode = h->inode;
    memset(h, 0, sizeof *h);
    if (!inode) return;
    inode->handles--;
    sim_inode_forget(&s->disk, inode);
    sim_inode_unref(&s->disk, inode);
}

struct sim_inode *sim_inode_of(const struct sim *s, intptr_t handle) {
    return handle >= 0 ? s->handles[handle].inode : NULL;
}

/* ---- paths ---------------------------------------------------------------------------------- */

struct place {
    struct sim_inode *directory, *inode; /* inode NULL: nothing has this name */
    char name[SIM_NAME_MAX + 1];         /* empty: the path ends in no name */
    int slash;                           /* ... but in a slash */
    const struct sim_inode *watched;     /* in: a directory; */
    int crossed;                         /* out: the way leads through it */
};

/* Both give the next name of a path and its length; 0 at the end. */
static size_t next_name(const char **path) {
    while (**path == '/') (*path)++;
    return strcspn(*path, "/");
}

static int64_t find_place(const struct sim *s, const char *path, struct place *p) {
    struct sim_inode *way[SIM_PATH_MAX / 2 + 1];
    size_t depth = 0, len;
    way[0] = s->disk.root;
    p->directory = NULL;
    p->inode = way[0];
    p->name[0] = 0;
    p->slash = p->crossed = 0;
    if (!path[0]) return -ENOENT;
    if (strlen(path) >= SIM_PATH_MAX) return -ENAMETOOLONG;
    for (; (len = next_name(&path)) > 0; path += len) {
        if (!p->inode) return -ENOENT;
        if (!p->inode->directory) return -ENOTDIR;
        if (len > SIM_NAME_MAX) return -ENAMETOOLONG;
        way[depth] = p->inode;
        if (p->inode == p->watched) p->crossed = 1;
        p->slash = path[len] == '/';
        p->name[0] = 0;
        if (len == 1 && path[0] == '.') continue;
        if (len == 2 && path[0] == '.' && path[1] == '.') {
            if (depth > 0) depth--;
            p->inode = way[depth];
            continue;
        }
        memcpy(p->name, path, len);
        p->name[len] = 0;
        p->directory = p->inode;
        p->inode = sim_find(p->directory, p->name);
        depth++;
    }
    if (p->inode && p->slash && !p->inode->directory) return -ENOTDIR;
    return 0;
}

static int64_t find_inode(const struct sim *s, const char *path, struct sim_inode **inode) {
    struct place p = {.watched = NULL};
    int64_t r = find_place(s, path, &p);
    *inode = p.inode;
    return r < 0 ? r : p.inode ? 0 : -ENOENT;
}

/* ---- steps ---------------------------------------------------------------------------------- */

static int64_t told(enum sim_outcome outcome, int64_t result) {
    return outcome == SIM_DONE ? result : -EIO;
}

static int64_t change(struct sim *s, struct sim_inode *file, const struct sim_record *r) {
    enum sim_outcome outcome = sim_step(s);
    if (outcome == SIM_LOST) return -EIO;
    return told(outcome, sim_change(&s->disk, file, r));
}

static int64_t change_names(struct sim *s, struct sim_inode *from, const char *gone,
                            struct sim_inode *to, const char *come, struct sim_inode *inode) {
    enum sim_outcome outcome = sim_step(s);
    if (outcome == SIM_LOST) return -EIO;
    return told(outcome, sim_rename(&s->disk, from, gone, to, come, inode));
}

/* After a failed flush nobody will ever write what it covered: the system believes it clean. */
static int64_t flush(struct sim *s, struct sim_inode *inode, uint64_t covers) {
    enum sim_outcome outcome = sim_step(s);
    const jdb_sim_fault *fault = NULL;
    if (outcome == SIM_LOST) return -EIO;
    if (sim_unsettled(inode, covers)) {
        s->flushes++;
        fault = sim_fault_for(s, JDB_SIM_FLUSH);
    }
    if (fault && fault->how == JDB_SIM_OMIT) return told(outcome, 0);
    if (fault && fault->how != JDB_SIM_AFTER) sim_forsake(inode, covers);
    int64_t r = sim_settle(&s->disk, inode, covers);
    return told(outcome, fault ? -fault->error : r);
}

static int64_t flush_all(struct sim *s, struct sim_inode *inode) {
    return flush(s, inode, s->disk.record_count);
}

static int64_t make_file(struct sim *s, const struct place *p, int directory, uint32_t mode) {
    if (p->slash && !directory) return -EISDIR;
    struct sim_inode *inode = sim_inode_new(&s->disk, directory, mode & MODE_MASK);
    if (!inode) return -ENOMEM;
    int64_t r = change_names(s, p->directory, NULL, p->directory, p->name, inode);
    sim_inode_unref(&s->disk, inode);
    return r;
}

/* ---- transfers ------------------------------------------------------------------------------ */

static int64_t read_file(const struct sim *s, jdb_op *op, uint64_t len) {
    const struct sim_inode *file = sim_inode_of(s, op->file->handle);
    uint8_t *memory = op->buf->base + op->buf_off + op->moved;
    return (int64_t)sim_read(file, op->off + op->moved, memory, len);
}

/* As much as there is space for, in whole sectors. */
static uint64_t fitting(const struct sim *s, const struct sim_inode *file, uint64_t off,
                        uint64_t len) {
    uint64_t free_blocks = s->disk.capacity - s->disk.used;
    if (sim_missing(&file->live, off, len) <= free_blocks) return len;
    uint64_t fits = 0;
    while (fits < len) {
        uint64_t more = SIM_BLOCK - (off + fits) % SIM_BLOCK;
        if (sim_missing(&file->live, off, fits + more) > free_blocks) break;
        fits += more;
    }
    return fits;
}

/* Some sectors of it, and then an error. */
static int64_t tear(struct sim *s, struct sim_inode *file, const struct sim_record *all) {
    uint32_t sector = s->disk.sector;
    for (uint64_t done = 0; done < all->len; done += sector) {
        struct sim_record part = *all;
        part.off += done;
        part.data += done;
        part.len = all->len - done < sector ? all->len - done : sector;
        if (sim_below(&s->disk.random, 2) == 0) continue;
        int64_t r = change(s, file, &part);
        if (r < 0) return r;
    }
    return 0;
}

/* The write is its own flush. */
static int64_t write_through(struct sim *s, struct sim_inode *file, struct sim_record *r) {
    s->flushes++;
    const jdb_sim_fault *fault = sim_fault_for(s, JDB_SIM_FLUSH);
    r->durable = !fault || fault->how == JDB_SIM_AFTER;
    r->forsaken = fault && fault->how == JDB_SIM_BEFORE;
    int64_t result = change(s, file, r);
    return fault && fault->error ? -fault->error : result;
}

static int64_t write_file(struct sim *s, jdb_op *op, uint64_t len, const jdb_sim_fault *fault) {
    struct sim_inode *file = sim_inode_of(s, op->file->handle);
    uint64_t off = op->off + op->moved;
    if (off >= FILE_MAX) return -EFBIG;
    if (len > FILE_MAX - off) len = FILE_MAX - off;
    len = fitting(s, file, off, len);
    if (len == 0) return -ENOSPC;
    struct sim_record r = {
        .kind = SIM_WRITE,
        .whole = (op->rw & JDB_RW_ATOMIC) != 0,
        .off = off,
        .len = len,
        .data = op->buf->base + op->buf_off + op->moved,
    };
    if (fault && fault->how == JDB_SIM_TORN) return tear(s, file, &r);
    int durable = (op->rw & JDB_RW_DSYNC) || op->file->info.dsync;
    int64_t result = durable ? write_through(s, file, &r) : change(s, file, &r);
    return result < 0 ? result : (int64_t)len;
}

static int64_t transfer(struct sim *s, jdb_op *op, const jdb_sim_fault *fault) {
    uint64_t len = op->chunk;
    if (fault && fault->how == JDB_SIM_SHORT && fault->bytes < len) len = fault->bytes;
    if (len == 0) return 0;
    return op->step == JDB_READ ? read_file(s, op, len) : write_file(s, op, len, fault);
}

/* ---- space and size ------------------------------------------------------------------------- */

static int64_t set_size(struct sim *s, struct sim_inode *file, uint64_t size) {
    struct sim_record r = {.kind = SIM_SIZE, .off = size};
    return size > FILE_MAX ? -EFBIG : change(s, file, &r);
}

static int64_t preallocate(struct sim *s, const jdb_op *op) {
    struct sim_inode *file = sim_inode_of(s, op->file->handle);
    struct sim_record r = {.kind = SIM_RESERVE, .len = op->len};
    if (op->len > FILE_MAX) return -EFBIG;
    if (op->how == JDB_PREALLOC_ZERO) {
        if (op->len <= file->live.size) return 0;
        r.kind = SIM_ZERO;
        r.off = file->live.size;
        r.len = op->len - r.off;
    }
    if (op->len == 0) return 0;
    r.grows = op->how != JDB_PREALLOC_KEEP;
    return change(s, file, &r);
}

static int64_t punch(struct sim *s, const jdb_op *op) {
    struct sim_record r = {.kind = SIM_PUNCH, .off = op->off, .len = op->len};
    return op->len == 0 ? 0 : change(s, sim_inode_of(s, op->file->handle), &r);
}

static void fill_stat(const struct sim_inode *inode, jdb_stat *out) {
    memset(out, 0, sizeof *out);
    out->size = inode->directory ? SIM_BLOCK : inode->live.size;
    out->allocated = inode->directory ? SIM_BLOCK : inode->live.count * SIM_BLOCK;
    out->inode = inode->number;
    out->device = DEVICE;
    out->links = inode->links;
    out->mode = inode->mode;
    out->atime_ns = out->mtime_ns = inode->mtime_ns;
    out->ctime_ns = inode->ctime_ns;
    out->type = inode->directory ? 'd' : 'f';
}

/* ---- opening -------------------------------------------------------------------------------- */

static int64_t refuse_kind(jdb_op *op, const char *why) {
    op->file->info.direct_reason = why;
    return -EINVAL;
}

/* Two handles exclude each other, whoever holds them; a handle changes its own lock. */
static int64_t lock(struct sim *s, int64_t handle, int how, char **cause) {
    struct sim_handle *mine = &s->handles[handle];
    for (size_t i = 0; i < s->handle_count; i++) {
        const struct sim_handle *h = &s->handles[i];
        if (h == mine || h->inode != mine->inode || !h->lock) continue;
        if (how == JDB_LOCK_SHARED && h->lock == JDB_LOCK_SHARED + 1) continue;
        *cause = strdup(h->lock == JDB_LOCK_SHARED + 1
                            ? "another open file holds a shared lock on it"
                            : "another open file holds an exclusive lock on it");
        return -EAGAIN;
    }
    mine->lock = how + 1;
    return 0;
}

static void describe(const struct sim *s, jdb_op *op) {
    jdb_file *file = op->file;
    const jdb_open *how = &op->detail->open;
    jdb_file_info *info = &file->info;
    snprintf(file->file_system, sizeof file->file_system, "sim");
    info->method = how->method;
    info->policy = how->direct;
    info->writable = (how->flags & JDB_OPEN_WRITE) != 0;
    info->dsync = (how->flags & JDB_OPEN_DSYNC) != 0;
    info->direct = how->direct != JDB_DIRECT_OFF;
    info->align_source = "none needed without direct I/O";
    info->direct_reason = "option direct = \"off\"";
    if (!info->direct) return;
    info->align_source = "sector of the simulated disk";
    info->direct_reason = "a simulated disk has no page cache";
    info->memory_align = info->read_align = info->write_align = s->disk.sector;
    info->direct_write_unit = s->disk.sector;
    file->memory_align = file->read_align = file->write_align = s->disk.sector;
    info->atomic_min = s->options.atomic_max ? s->disk.sector : 0;
    info->atomic_max = s->options.atomic_max;
}

static int64_t finish_open(struct sim *s, jdb_op *op, int64_t handle) {
    const jdb_open *how = &op->detail->open;
    struct sim_inode *file = sim_inode_of(s, (intptr_t)handle);
    if (file->directory) return -EISDIR;
    if (how->flags & JDB_OPEN_DEVICE)
        return refuse_kind(op, "not a block device, but option device was given");
    int64_t r = 0;
    int exclusive = (how->flags & JDB_OPEN_LOCK_EXCLUSIVE) != 0;
    if (exclusive || (how->flags & JDB_OPEN_LOCK_SHARED))
        r = lock(s, handle, exclusive ? JDB_LOCK_EXCLUSIVE : JDB_LOCK_SHARED, &op->detail->cause);
    int empty = file->live.size == 0 && file->live.count == 0;
    if (r == 0 && (how->flags & JDB_OPEN_TRUNCATE) && !empty) r = set_size(s, file, 0);
    return r;
}

static const struct jdb_calls calls;

static int64_t open_or_make(struct sim *s, jdb_op *op) {
    const jdb_open *how = &op->detail->open;
    struct place p = {.watched = NULL};
    int64_t r = find_place(s, op->detail->path, &p);
    if (r < 0) return r;
    if (p.inode && (how->flags & JDB_OPEN_EXCLUSIVE)) return -EEXIST;
    if (!p.inode) {
        if (!(how->flags & JDB_OPEN_CREATE) || (how->flags & JDB_OPEN_DEVICE)) return -ENOENT;
        r = make_file(s, &p, 0, how->mode);
        if (r < 0) return r;
        p.inode = sim_find(p.directory, p.name);
    }
    return open_handle(s, p.inode);
}

static int64_t open_file(struct sim *s, jdb_op *op) {
    int durable = (op->detail->open.flags & JDB_OPEN_DURABLE) != 0;
    int64_t parent = -1;
    if (durable && (parent = jdb_names_open_parent(&calls, s, op->detail->path)) < 0) return parent;
    int64_t handle = open_or_make(s, op);
    int64_t r = handle < 0 ? handle : finish_open(s, op, handle);
    if (r == 0 && durable) r = flush_all(s, sim_inode_of(s, (intptr_t)handle));
    r = jdb_names_sync_parent(&calls, s, parent, r);
    if (r < 0) {
        if (handle >= 0) sim_close_handle(s, (intptr_t)handle);
        return r;
    }
    describe(s, op);
    op->file->handle = (intptr_t)handle;
    return 0;
}

/* Several closes of one file may wait together: the first closes, the rest find it done. */
static int64_t close_file(struct sim *s, jdb_file *file) {
    if (file->handle >= 0) sim_close_handle(s, file->handle);
    file->handle = -1;
    return 0;
}

/* ---- questions about names ------------------------------------------------------------------ */

static int64_t path_exists(const struct sim *s, const char *path) {
    struct sim_inode *inode;
    int64_t r = find_inode(s, path, &inode);
    return r == -ENOENT || r == -ENOTDIR ? 0 : r < 0 ? r : 1;
}

static int64_t path_stat(const struct sim *s, jdb_op *op) {
    struct sim_inode *inode;
    int64_t r = find_inode(s, op->detail->path, &inode);
    if (r < 0) return r;
    fill_stat(inode, &op->detail->stat);
    return (int64_t)op->detail->stat.size;
}

static int64_t path_ls(const struct sim *s, struct jdb_detail *d) {
    struct sim_inode *dir;
    int64_t r = find_inode(s, d->path, &dir);
    if (r == 0 && !dir->directory) r = -ENOTDIR;
    if (r < 0) return r;
    size_t size = 0;
    for (size_t i = 0; i < dir->names.count; i++) size += strlen(dir->names.entries[i].name) + 1;
    d->names = malloc(size + 1);
    if (!d->names) return -ENOMEM;
    for (size_t i = 0; i < dir->names.count; i++) {
        const struct sim_entry *entry = &dir->names.entries[i];
        if (entry->inode->directory) continue;
        size_t len = strlen(entry->name) + 1;
        memcpy(d->names + d->names_size, entry->name, len);
        d->names_size += len;
        d->names_count++;
    }
    return 0;
}

static int64_t path_space(const struct sim *s, struct jdb_detail *d) {
    struct sim_inode *inode;
    int64_t r = find_inode(s, d->path, &inode);
    d->total_bytes = s->disk.capacity * SIM_BLOCK;
    d->free_bytes = (s->disk.capacity - s->disk.used) * SIM_BLOCK;
    return r;
}

static int64_t evidence(const struct sim *s, jdb_evidence *e) {
    memset(e, 0, sizeof *e);
    snprintf(e->device, sizeof e->device, "sim");
    e->volatile_cache = 1;
    e->fua = 1;
    e->logical_block = e->physical_block = s->disk.sector;
    e->class_name = "simulated";
    snprintf(e->reasons, sizeof e->reasons,
             "a simulated disk in memory: what was flushed survives its crash(), and any part of "
             "the rest; nothing survives the process");
    return 0;
}

static int64_t path_probe(const struct sim *s, struct jdb_detail *d) {
    struct sim_inode *inode;
    int64_t r = find_inode(s, d->path, &inode);
    if (r < 0) return r;
    snprintf(d->file_system, sizeof d->file_system, "sim");
    d->info.file_system = d->file_system;
    d->info.direct = 1;
    d->info.direct_reason = "a simulated disk has no page cache";
    d->info.align_source = "sector of the simulated disk";
    d->info.memory_align = d->info.read_align = d->info.write_align = s->disk.sector;
    d->info.direct_write_unit = s->disk.sector;
    return evidence(s, &d->info.evidence);
}

/* ---- the calls that changes of names are made of -------------------------------------------- */

static int64_t call_make_directory(void *context, const char *path) {
    struct sim *s = context;
    struct place p = {.watched = NULL};
    int64_t r = find_place(s, path, &p);
    if (r < 0) return r;
    if (p.inode) return p.inode->directory ? 0 : -ENOTDIR;
    r = make_file(s, &p, 1, 0777);
    return r < 0 ? r : 1;
}

static int64_t call_open_directory(void *context, const char *path) {
    struct sim_inode *inode;
    int64_t r = find_inode(context, path, &inode);
    if (r == 0 && !inode->directory) r = -ENOTDIR;
    return r < 0 ? r : open_handle(context, inode);
}

/* Names in a directory with a handle; JDB_HERE: paths. */
static int64_t find_at(struct sim *s, int64_t dir, const char *name, struct place *p) {
    if (dir == JDB_HERE) return find_place(s, name, p);
    p->directory = sim_inode_of(s, (intptr_t)dir);
    assert(p->directory); /* opened by this same operation */
    if (strlen(name) > SIM_NAME_MAX) return -ENAMETOOLONG;
    int dots = strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
    snprintf(p->name, sizeof p->name, "%s", dots ? "" : name);
    p->slash = p->crossed = 0;
    p->inode = dots ? p->directory : sim_find(p->directory, name);
    return 0;
}

static int64_t call_device_of(void *context, int64_t handle, uint64_t *device) {
    (void)context;
    (void)handle;
    *device = DEVICE;
    return 0;
}

static int64_t call_make_beside(void *context, int64_t dir, const char *name, unsigned mode,
                                char *made, size_t size) {
    struct sim *s = context;
    struct place p = {.watched = NULL};
    int64_t r = 0;
    do {
        snprintf(made, size, ".%.200s.%llu", name, (unsigned long long)++s->temporaries);
        r = find_at(s, dir, made, &p);
    } while (r == 0 && p.inode);
    if (r == 0) r = make_file(s, &p, 0, mode);
    return r < 0 ? r : open_handle(s, sim_find(p.directory, made));
}

static int64_t call_look_at(void *context, int64_t dir, const char *name, struct jdb_owner *owner) {
    struct place p = {.watched = NULL};
    int64_t r = find_at(context, dir, name, &p);
    if (r < 0 || !p.inode) return r;
    if (p.inode->directory) return -EISDIR;
    owner->mode = p.inode->mode;
    return 1;
}

static int64_t call_take_over(void *context, int64_t file, const struct jdb_owner *old) {
    sim_inode_of(context, (intptr_t)file)->mode = old->mode;
    return 0;
}

static int64_t call_write(void *context, int64_t file, const void *data, size_t len) {
    struct sim_record r = {.kind = SIM_WRITE, .len = len, .data = (uint8_t *)(uintptr_t)data};
    return len == 0 ? 0 : change(context, sim_inode_of(context, (intptr_t)file), &r);
}

static int64_t call_sync(void *context, int64_t handle) {
    return flush_all(context, sim_inode_of(context, (intptr_t)handle));
}

static int64_t call_close(void *context, int64_t handle) {
    sim_close_handle(context, (intptr_t)handle);
    return 0;
}

static int64_t replaceable(const struct place *old, const struct place *new, int noreplace) {
    if (!old->inode) return -ENOENT;
    if (!old->name[0] || !new->name[0]) return -EBUSY;
    if (new->crossed) return -EINVAL;
    if (!old->inode->directory && new->slash) return -ENOTDIR;
    if (!new->inode) return 0;
    if (noreplace) return -EEXIST;
    if (old->inode == new->inode) return 0;
    if (old->inode->directory && !new->inode->directory) return -ENOTDIR;
    if (!old->inode->directory && new->inode->directory) return -EISDIR;
    return new->inode->directory &&new->inode->names.count > 0 ? -ENOTEMPTY : 0;
}

static int64_t call_rename(void *context, int64_t dir, const char *from, const char *to,
                           int noreplace) {
    struct sim *s = context;
    struct place old = {.watched = NULL}, new = {.watched = NULL};
    int64_t r = find_at(s, dir, from, &old);
    if (r < 0) return r;
    new.watched = old.inode &&old.inode->directory ? old.inode : NULL;
    r = find_at(s, dir, to, &new);
    if (r == 0) r = replaceable(&old, &new, noreplace);
    if (r < 0 || old.inode == new.inode) return r;
    return change_names(s, old.directory, old.name, new.directory, new.name, old.inode);
}

static int64_t call_remove(void *context, int64_t dir, const char *name) {
    struct sim *s = context;
    struct place p = {.watched = NULL};
    int64_t r = find_at(s, dir, name, &p);
    if (r < 0) return r;
    if (!p.inode) return -ENOENT;
    if (p.inode->directory) return -EISDIR;
    return change_names(s, p.directory, p.name, p.directory, NULL, p.inode);
}

static const struct jdb_calls calls = {
    .separators = "/",
    .root_length = jdb_names_root,
    .make_directory = call_make_directory,
    .open_directory = call_open_directory,
    .device_of = call_device_of,
    .make_beside = call_make_beside,
    .look_at = call_look_at,
    .take_over = call_take_over,
    .write = call_write,
    .sync = call_sync,
    .close = call_close,
    .rename = call_rename,
    .remove = call_remove,
};

/* ---- all of them ---------------------------------------------------------------------------- */

static int64_t perform_on_file(struct sim *s, jdb_op *op, uint64_t covers,
                               const jdb_sim_fault *fault) {
    struct sim_inode *inode = sim_inode_of(s, op->file->handle);
    if (op->step == JDB_CLOSE) return close_file(s, op->file);
    if (!inode) return -EIO; /* opened before a crash */
    switch ((jdb_code)op->step) {
    case JDB_READ:
    case JDB_WRITE: return transfer(s, op, fault);
    case JDB_SYNC_ALL:
    case JDB_SYNC_DATA: return flush(s, inode, covers);
    case JDB_TRUNCATE: return set_size(s, inode, op->len);
    case JDB_PREALLOCATE: return preallocate(s, op);
    case JDB_SIZE: return (int64_t)inode->live.size;
    case JDB_STAT: fill_stat(inode, &op->detail->stat); return 0;
    case JDB_INFO: return evidence(s, &op->detail->info.evidence);
    case JDB_PUNCH: return punch(s, op);
    case JDB_LOCK: return lock(s, op->file->handle, op->how, &op->detail->cause);
    case JDB_UNLOCK: s->handles[op->file->handle].lock = 0; return 0;
    default: return -ENOSYS;
    }
}

int64_t sim_perform(struct sim *s, jdb_op *op, uint64_t covers, const jdb_sim_fault *fault) {
    struct jdb_detail *d = op->detail;
    if (op->step == JDB_OPEN) return open_file(s, op);
    if (op->file) return perform_on_file(s, op, covers, fault);
    switch ((jdb_code)op->step) {
    case JDB_PATH_EXISTS: return path_exists(s, d->path);
    case JDB_PATH_LS: return path_ls(s, d);
    case JDB_PATH_SIZE:
    case JDB_PATH_STAT: return path_stat(s, op);
    case JDB_PATH_SPACE: return path_space(s, d);
    case JDB_PATH_PROBE: return path_probe(s, d);
    default: return jdb_names_perform(&calls, s, op);
    }
}
