/* strict.c: a file system in memory that records what replay.c needs to tell what POSIX lets
 * survive a power cut: data and size by fsync, fdatasync or O_DSYNC of that file alone, a name by
 * fsync of its directory alone.
 *
 *   strict RECORD MOUNT_POINT
 *
 * Each write() to MOUNT_POINT/mark is a mark in the record; "stop" in
 * MOUNT_POINT/control ends it. */
#define _GNU_SOURCE
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>

struct entry {
    char *name;
    fuse_ino_t node;
};

struct node {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    unsigned links;
    uint8_t *data;
    size_t size, room;
    struct entry *entries;
    size_t count;
    struct timespec changed;
};

/* One worker serves, and the reader looks at the mark and the control file alone: nothing is locked
 * and nothing moves. Nodes are never freed, tests are short. */
enum { NODES = 1 << 17 };
static struct node nodes[NODES];
static size_t node_count;

/* ---- nodes ---------------------------------------------------------------------------------- */

static void *grow(void *memory, size_t size) {
    void *grown = realloc(memory, size);
    if (!grown) session_die("memory");
    return grown;
}

static fuse_ino_t add_node(mode_t mode, const struct fuse_ctx *who) {
    if (node_count == NODES) session_die("too many files");
    struct node *node = &nodes[node_count];
    node->mode = mode;
    node->uid = who ? who->uid : 0;
    node->gid = who ? who->gid : 0;
    node->links = 1;
    clock_gettime(CLOCK_REALTIME, &node->changed);
    return node_count++;
}

static struct entry *find(fuse_ino_t directory, const char *name) {
    struct node *node = &nodes[directory];
    for (size_t i = 0; i < node->count; i++) {
        if (strcmp(node->entries[i].name, name) == 0) return &node->entries[i];
    }
    return NULL;
}

static void put_entry(fuse_ino_t directory, const char *name, fuse_ino_t target) {
    struct entry *entry = find(directory, name);
    if (entry) {
        nodes[entry->node].links--;
        entry->node = target;
        return;
    }
    struct node *node = &nodes[directory];
    node->entries = grow(node->entries, (node->count + 1) * sizeof *node->entries);
    node->entries[node->count++] = (struct entry){strdup(name), target};
}

static void drop_entry(fuse_ino_t directory, const char *name) {
    struct node *node = &nodes[directory];
    struct entry *entry = find(directory, name);
    free(entry->name);
    *entry = node->entries[--node->count];
}

static void resize(struct node *node, size_t size) {
    if (size > node->room) {
        node->room = size * 2;
        node->data = grow(node->data, node->room);
    }
    if (size > node->size) memset(node->data + node->size, 0, size - node->size);
    node->size = size;
}

static void describe(fuse_ino_t number, struct stat *st) {
    const struct node *node = &nodes[number];
    memset(st, 0, sizeof *st);
    st->st_ino = number;
    st->st_mode = node->mode;
    st->st_uid = node->uid;
    st->st_gid = node->gid;
    st->st_nlink = node->links;
    st->st_size = (off_t)node->size;
    st->st_blocks = (blkcnt_t)((node->size + 511) / 512);
    st->st_blksize = 4096;
    st->st_mtim = st->st_ctim = st->st_atim = node->changed;
}

static struct fuse_entry_param entry_of(fuse_ino_t number) {
    struct fuse_entry_param entry = {.ino = number};
    describe(number, &entry.attr);
    return entry;
}

static void reply_entry(fuse_req_t request, fuse_ino_t number) {
    struct fuse_entry_param entry = entry_of(number);
    fuse_reply_entry(request, &entry);
}

/* ---- names ---------------------------------------------------------------------------------- */

static void on_lookup(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct entry *entry = find(parent, name);
    if (entry) reply_entry(request, entry->node);
    else fuse_reply_err(request, ENOENT);
}

static fuse_ino_t make(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    fuse_ino_t number = add_node(mode, fuse_req_ctx(request));
    put_entry(parent, name, number);
    record_add(
        (struct record){.kind = RECORD_MAKE, .node = parent, .offset = mode, .extra = number}, name,
        strlen(name), NULL, 0);
    return number;
}

static void on_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode) {
    if (find(parent, name)) fuse_reply_err(request, EEXIST);
    else reply_entry(request, make(request, parent, name, S_IFDIR | (mode & 07777)));
}

static void on_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file) {
    struct entry *entry = find(parent, name);
    fuse_ino_t number = entry ? entry->node : make(request, parent, name, S_IFREG | (mode & 07777));
    struct fuse_entry_param parameters = entry_of(number);
    file->direct_io = 1;
    fuse_reply_create(request, &parameters, file);
}

static void on_link(fuse_req_t request, fuse_ino_t number, fuse_ino_t parent, const char *name) {
    if (find(parent, name)) {
        fuse_reply_err(request, EEXIST);
        return;
    }
    put_entry(parent, name, number);
    nodes[number].links++;
    record_add((struct record){.kind = RECORD_LINK, .node = parent, .extra = number}, name,
               strlen(name), NULL, 0);
    reply_entry(request, number);
}

static void on_unlink(fuse_req_t request, fuse_ino_t parent, const char *name) {
    struct entry *entry = find(parent, name);
    if (!entry || nodes[entry->node].count > 0) {
        fuse_reply_err(request, entry ? ENOTEMPTY : ENOENT);
        return;
    }
    nodes[entry->node].links--;
    record_add((struct record){.kind = RECORD_UNLINK, .node = parent, .extra = entry->node}, name,
               strlen(name), NULL, 0);
    drop_entry(parent, name);
    fuse_reply_err(request, 0);
}

static void on_rename(fuse_req_t request, fuse_ino_t parent, const char *name, fuse_ino_t to,
                      const char *to_name, unsigned flags) {
    struct entry *entry = find(parent, name);
    int error = !entry                                                    ? ENOENT
                : flags & ~(unsigned)RENAME_NOREPLACE                     ? EINVAL
                : (flags & RENAME_NOREPLACE) && find(to, to_name) != NULL ? EEXIST
                                                                          : 0;
    if (!error) {
        fuse_ino_t moved = entry->node;
        record_add(
            (struct record){.kind = RECORD_RENAME, .node = parent, .offset = to, .extra = moved},
            name, strlen(name), to_name, strlen(to_name));
        drop_entry(parent, name);
        put_entry(to, to_name, moved);
    }
    fuse_reply_err(request, error);
}

static void on_readdir(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                       struct fuse_file_info *file) {
    (void)file;
    char *reply = malloc(size);
    if (!reply) session_die("memory");
    size_t used = 0, i = (size_t)offset;
    for (; i < nodes[number].count; i++) {
        struct stat st;
        describe(nodes[number].entries[i].node, &st);
        size_t length = fuse_add_direntry(request, reply + used, size - used,
                                          nodes[number].entries[i].name, &st, (off_t)i + 1);
        if (length > size - used) break;
        used += length;
    }
    fuse_reply_buf(request, reply, used);
    free(reply);
}

/* ---- attributes ----------------------------------------------------------------------------- */

static void on_getattr(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    (void)file;
    struct stat st;
    describe(number, &st);
    fuse_reply_attr(request, &st, 0);
}

static void on_setattr(fuse_req_t request, fuse_ino_t number, struct stat *to, int what,
                       struct fuse_file_info *file) {
    struct node *node = &nodes[number];
    if (what & FUSE_SET_ATTR_MODE) node->mode = (node->mode & S_IFMT) | (to->st_mode & 07777);
    if (what & FUSE_SET_ATTR_UID) node->uid = to->st_uid;
    if (what & FUSE_SET_ATTR_GID) node->gid = to->st_gid;
    if ((what & FUSE_SET_ATTR_SIZE) && number >= NODE_FIRST) {
        resize(node, (size_t)to->st_size);
        record_add((struct record){.kind = RECORD_TRUNCATE,
                                   .node = number,
                                   .offset = (uint64_t)to->st_size},
                   NULL, 0, NULL, 0);
    }
    on_getattr(request, number, file);
}

static void on_statfs(fuse_req_t request, fuse_ino_t number) {
    (void)number;
    struct statvfs st = {.f_bsize = 4096,
                         .f_frsize = 4096,
                         .f_blocks = 1 << 20,
                         .f_bfree = 1 << 19,
                         .f_bavail = 1 << 19,
                         .f_namemax = 255};
    fuse_reply_statfs(request, &st);
}

/* ---- data ----------------------------------------------------------------------------------- */

static void on_open(fuse_req_t request, fuse_ino_t number, struct fuse_file_info *file) {
    (void)number;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void on_read(fuse_req_t request, fuse_ino_t number, size_t size, off_t offset,
                    struct fuse_file_info *file) {
    (void)file;
    const struct node *node = &nodes[number];
    size_t at = (size_t)offset;
    if (at >= node->size) fuse_reply_buf(request, NULL, 0);
    else
        fuse_reply_buf(request, (const char *)node->data + at,
                       size < node->size - at ? size : node->size - at);
}

static void on_write(fuse_req_t request, fuse_ino_t number, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file) {
    struct node *node = &nodes[number];
    size_t at = (size_t)offset;
    if (number == NODE_CONTROL) {
        if (size >= 4 && memcmp(data, "stop", 4) == 0) record_stop();
    } else if (number == NODE_MARK) {
        record_add((struct record){.kind = RECORD_MARK}, data, size, NULL, 0);
    } else {
        if (at + size > node->size) resize(node, at + size);
        memcpy(node->data + at, data, size);
        /* The kernel passes O_DSYNC of the descriptor and RWF_DSYNC of the call alike. */
        int durable = (file->flags & (O_DSYNC | O_SYNC)) != 0;
        record_add(
            (struct record){
                .kind = RECORD_PUT, .node = number, .offset = at, .flag = (uint8_t)durable},
            data, size, NULL, 0);
    }
    fuse_reply_write(request, size);
}

static void on_fallocate(fuse_req_t request, fuse_ino_t number, int mode, off_t offset,
                         off_t length, struct fuse_file_info *file) {
    (void)file;
    struct node *node = &nodes[number];
    size_t at = (size_t)offset, end = at + (size_t)length;
    int error = mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)
                    ? EOPNOTSUPP
                    : 0;
    if (!error) {
        if ((mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) && at < node->size)
            memset(node->data + at, 0, (end < node->size ? end : node->size) - at);
        if (!(mode & FALLOC_FL_KEEP_SIZE) && end > node->size) resize(node, end);
        record_add((struct record){.kind = RECORD_ALLOCATE,
                                   .node = number,
                                   .offset = at,
                                   .extra = (uint64_t)length,
                                   .flag = (uint8_t)mode},
                   NULL, 0, NULL, 0);
    }
    fuse_reply_err(request, error);
}

static void on_fsync(fuse_req_t request, fuse_ino_t number, int data_only,
                     struct fuse_file_info *file) {
    (void)data_only;
    (void)file;
    record_add((struct record){.kind = RECORD_SYNC, .node = number}, NULL, 0, NULL, 0);
    fuse_reply_err(request, 0);
}

static const struct fuse_lowlevel_ops ops = {
    .lookup = on_lookup,
    .getattr = on_getattr,
    .setattr = on_setattr,
    .mkdir = on_mkdir,
    .create = on_create,
    .link = on_link,
    .unlink = on_unlink,
    .rmdir = on_unlink,
    .rename = on_rename,
    .readdir = on_readdir,
    .statfs = on_statfs,
    .open = on_open,
    .read = on_read,
    .write = on_write,
    .fallocate = on_fallocate,
    .fsync = on_fsync,
    .fsyncdir = on_fsync,
};

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "strict RECORD MOUNT_POINT\n");
        return 2;
    }
    for (fuse_ino_t number = 0; number < NODE_FIRST; number++)
        add_node(number == NODE_ROOT ? S_IFDIR | 0755 : S_IFREG | 0666, NULL);
    put_entry(NODE_ROOT, "mark", NODE_MARK);
    put_entry(NODE_ROOT, "control", NODE_CONTROL);
    record_open(argv[1]);
    return session_serve("jdbfs-strict", argv[2], &ops, sizeof ops, 1);
}
