/* replay_strict.c: what POSIX lets survive a power cut. A file's data and size become durable by a
 * sync of that file, or as one write that is durable by itself; a name becomes durable, or stops
 * being so, by a sync of its directory. A rename within one directory is one step; between two it
 * is one in each. Any other change may have got to the disk by itself, in any order. */
#define _GNU_SOURCE
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct change {
    const struct event *event;
    size_t at;
    int under_way;
};

struct name {
    char *text;
    uint64_t node;
};

/* A node's durable state, and the changes since. */
struct node {
    mode_t mode;
    uint8_t *data;
    size_t size;
    struct name *names;
    size_t name_count;
    struct change *changes;
    size_t change_count;
    char *made; /* its path in the state being built: a second name is a link */
};

static struct node *nodes;
static size_t node_count, scanned;
static char left[4096], directory[4100];

static void *grow(void *memory, size_t size) {
    void *grown = realloc(memory, size ? size : 1);
    if (!grown) session_die("memory");
    return grown;
}

static struct node *node_of(uint64_t number) {
    if (number >= node_count) {
        nodes = grow(nodes, (number + 1) * sizeof *nodes);
        memset(nodes + node_count, 0, (number + 1 - node_count) * sizeof *nodes);
        node_count = number + 1;
    }
    return &nodes[number];
}

/* ---- one change ----------------------------------------------------------------------------- */

static void resize(struct node *node, size_t size) {
    node->data = grow(node->data, size);
    if (size > node->size) memset(node->data + node->size, 0, size - node->size);
    node->size = size;
}

static void write_part(struct node *node, size_t offset, const uint8_t *data, size_t length) {
    if (offset + length > node->size) resize(node, offset + length);
    memcpy(node->data + offset, data, length);
}

static void drop_name(struct node *node, const char *text, uint64_t target) {
    for (size_t i = 0; i < node->name_count; i++) {
        if (strcmp(node->names[i].text, text) != 0) continue;
        /* Only if it still means that node: a later change may be there already. */
        if (node->names[i].node != target) return;
        free(node->names[i].text);
        node->names[i] = node->names[--node->name_count];
        return;
    }
}

static void put_name(struct node *node, const char *text, uint64_t target) {
    for (size_t i = 0; i < node->name_count; i++) {
        if (strcmp(node->names[i].text, text) != 0) continue;
        node->names[i].node = target;
        return;
    }
    node->names = grow(node->names, (node->name_count + 1) * sizeof *node->names);
    node->names[node->name_count++] = (struct name){strdup(text), target};
}

static void apply_name(struct node *node, uint64_t number, const struct event *event) {
    const struct record *record = &event->record;
    size_t first = record->length - record->second;
    char *from = strndup((const char *)event->data, first);
    char *to = strndup((const char *)event->data + first, record->second);
    if (!from || !to) session_die("memory");
    switch (record->kind) {
    case RECORD_MAKE:
    case RECORD_LINK: put_name(node, from, record->extra); break;
    case RECORD_UNLINK: drop_name(node, from, record->extra); break;
    default:
        if (record->node == number) drop_name(node, from, record->extra);
        if (record->offset == number) put_name(node, to, record->extra);
    }
    free(from);
    free(to);
}

static void allocate(struct node *node, const struct record *record) {
    size_t end = record->offset + record->extra;
    if ((record->flag & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) &&
        record->offset < node->size) {
        memset(node->data + record->offset, 0,
               (end < node->size ? end : node->size) - record->offset);
    }
    if (!(record->flag & FALLOC_FL_KEEP_SIZE) && end > node->size) resize(node, end);
}

static void apply(uint64_t number, const struct event *event, struct choice *choice) {
    struct node *node = &nodes[number];
    const struct record *record = &event->record;
    if (record->kind == RECORD_TRUNCATE) {
        resize(node, record->offset);
    } else if (record->kind == RECORD_ALLOCATE) {
        allocate(node, record);
    } else if (record->kind != RECORD_PUT) {
        apply_name(node, number, event);
    } else if (!choice || !choose_torn(choice, record->length)) {
        write_part(node, record->offset, event->data, record->length);
    } else {
        for (size_t at = 0; at < record->length; at += SECTOR) {
            size_t part = record->length - at < SECTOR ? record->length - at : SECTOR;
            if (choose_sector(choice))
                write_part(node, record->offset + at, event->data + at, part);
        }
    }
}

/* ---- the durable state ---------------------------------------------------------------------- */

static void add_change(uint64_t number, const struct event *event, size_t at, int under_way) {
    struct node *node = node_of(number);
    node->changes = grow(node->changes, (node->change_count + 1) * sizeof *node->changes);
    node->changes[node->change_count++] = (struct change){event, at, under_way};
}

/* A sync covers what had been answered when it arrived. */
static void sync_node(uint64_t number, uint64_t arrived) {
    struct node *node = node_of(number);
    size_t n = 0;
    while (n < node->change_count && node->changes[n].at < arrived)
        apply(number, node->changes[n++].event, NULL);
    node->change_count -= n;
    memmove(node->changes, node->changes + n, node->change_count * sizeof *node->changes);
}

static void advance(const struct recording *recording, size_t to) {
    for (; scanned < to; scanned++) {
        const struct event *event = &recording->events[scanned];
        const struct record *record = &event->record;
        if (record->kind == RECORD_MARK) continue;
        if (record->kind == RECORD_SYNC) {
            sync_node(record->node, record->arrived);
            continue;
        }
        if (record->kind == RECORD_MAKE) node_of(record->extra)->mode = (mode_t)record->offset;
        add_change(record->node, event, scanned, 0);
        if (record->kind == RECORD_RENAME && record->offset != record->node)
            add_change(record->offset, event, scanned, 0);
    }
}

static void settle(void) {
    for (size_t i = 0; i < node_count; i++) sync_node(i, UINT64_MAX);
}

/* ---- a state after a cut -------------------------------------------------------------------- */

static void apply_some(uint64_t number, struct choice *choice) {
    struct node *node = &nodes[number];
    enum keep keep = choice->keep;
    size_t first = keep == KEEP_PREFIX ? choose(&choice->state) % (node->change_count + 1) : 0;
    for (size_t i = 0; i < node->change_count; i++) {
        const struct change *change = &node->changes[i];
        const struct record *record = &change->event->record;
        if (record->kind == RECORD_PUT && record->flag && !change->under_way) {
            apply(number, change->event, NULL);
            continue;
        }
        if (keep == KEEP_PREFIX) choice->keep = first ? first--, KEEP_ALL : KEEP_NONE;
        if (choose_one(choice)) apply(number, change->event, choice);
    }
    choice->keep = keep;
}

static void make_file(struct node *node, const char *path) {
    if (node->made) {
        if (link(node->made, path) != 0) session_die(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) session_die(path);
    for (size_t at = 0; at < node->size;) {
        ssize_t n = write(fd, node->data + at, node->size - at);
        if (n <= 0) session_die(path);
        at += (size_t)n;
    }
    if (fchmod(fd, node->mode & 07777) != 0 || close(fd) != 0) session_die(path);
    node->made = strdup(path);
}

/* The durable state is put back when the directory has been made. */
static void make(uint64_t number, const char *path, struct choice *choice) {
    struct node kept = *node_of(number), *node = &nodes[number];
    node->data = grow(NULL, kept.size);
    if (kept.size) memcpy(node->data, kept.data, kept.size);
    node->names = grow(NULL, kept.name_count * sizeof *kept.names);
    for (size_t i = 0; i < kept.name_count; i++)
        node->names[i] = (struct name){strdup(kept.names[i].text), kept.names[i].node};
    apply_some(number, choice);
    if (S_ISREG(node->mode)) {
        make_file(node, path);
        kept.made = node->made;
    } else if (mkdir(path, 0755) != 0) {
        session_die(path);
    }
    for (size_t i = 0; i < node->name_count; i++) {
        char *below;
        if (asprintf(&below, "%s/%s", path, node->names[i].text) < 0) session_die("memory");
        make(node->names[i].node, below, choice);
        free(below);
        free(node->names[i].text);
    }
    free(node->names);
    free(node->data);
    *node = kept;
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *walk) {
    (void)st;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void drop(void) {
    if (nftw(left, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0) session_die(left);
}

static const char *build(const struct recording *recording, size_t at, struct choice *choice,
                         char *why, size_t why_size) {
    size_t added = 0;
    uint64_t under_way[256];
    /* Writes received before the cut and answered after it. */
    for (size_t i = at; i < recording->count && i < at + 256 && choice->keep >= KEEP_SOME; i++) {
        const struct record *record = &recording->events[i].record;
        if (record->kind != RECORD_PUT || record->arrived > at) continue;
        add_change(record->node, &recording->events[i], i, 1);
        under_way[added++] = record->node;
    }
    nodes[NODE_ROOT].mode = S_IFDIR | 0755;
    make(NODE_ROOT, left, choice);
    while (added > 0) nodes[under_way[--added]].change_count--;
    for (size_t i = 0; i < node_count; i++) {
        free(nodes[i].made);
        nodes[i].made = NULL;
    }
    if (access(directory, F_OK) == 0) return directory;
    drop();
    snprintf(why, why_size, "the directory itself is gone");
    return NULL;
}

const struct model *strict_model(const char *work) {
    static const struct model model = {advance, settle, build, drop};
    snprintf(left, sizeof left, "%s/left", work);
    snprintf(directory, sizeof directory, "%s/w", left);
    node_of(NODE_ROOT);
    return &model;
}
