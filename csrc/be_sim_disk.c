/* be_sim_disk.c: what the simulated disk stores, twice: as it is, and as a crash would leave it.
 * Between the two lies the journal of each file and directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "be_sim.h"

/* splitmix64 */
uint64_t sim_random(uint64_t *state) {
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_below(uint64_t *state, uint64_t n) { return n ? sim_random(state) % n : 0; }

/* ---- images --------------------------------------------------------------------------------- */

/* The first block whose number is not below. */
static size_t find_block(const struct sim_image *m, uint64_t number) {
    size_t low = 0, high = m->count;
    if (high > 0 && m->blocks[high - 1].number < number) return high; /* appending */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->blocks[middle].number < number) low = middle + 1;
        else high = middle;
    }
    return low;
}

static int64_t make_room(struct sim_image *m, uint64_t more) {
    uint64_t room = m->room ? m->room : 4;
    while (room < m->count + more) room *= 2;
    if (room == m->room) return 0;
    if (room > SIZE_MAX / 2 / sizeof *m->blocks) return -ENOMEM;
    struct sim_block *grown = realloc(m->blocks, (size_t)room * sizeof *grown);
    if (!grown) return -ENOMEM;
    m->blocks = grown;
    m->room = (size_t)room;
    return 0;
}

static void drop_blocks(struct sim_image *m, size_t from, size_t to) {
    if (from == to) return; /* there may be no blocks at all */
    for (size_t i = from; i < to; i++) free(m->blocks[i].data);
    memmove(m->blocks + from, m->blocks + to, (m->count - to) * sizeof *m->blocks);
    m->count -= to - from;
}

static void clear_image(struct sim_image *m) {
    drop_blocks(m, 0, m->count);
    free(m->blocks);
    memset(m, 0, sizeof *m);
}

static int64_t copy_image(struct sim_image *to, const struct sim_image *from) {
    memset(to, 0, sizeof *to);
    to->size = from->size;
    if (from->count == 0) return 0;
    int64_t r = make_room(to, from->count);
    if (r < 0) return r;
    for (size_t i = 0; i < from->count; i++) {
        to->blocks[i] = from->blocks[i];
        to->count = i + 1;
        if (!from->blocks[i].data) continue;
        to->blocks[i].data = malloc(SIM_BLOCK);
        if (!to->blocks[i].data) return -ENOMEM;
        memcpy(to->blocks[i].data, from->blocks[i].data, SIM_BLOCK);
    }
    return 0;
}

/* All blocks from `first` to before `end`; from the back, so that each is moved once. */
static int64_t reserve(struct sim_image *m, uint64_t first, uint64_t end) {
    size_t from = find_block(m, first), to = find_block(m, end);
    uint64_t missing = end - first - (to - from);
    if (missing == 0) return 0;
    int64_t r = make_room(m, missing);
    if (r < 0) return r;
    size_t n = (size_t)missing;
    memmove(m->blocks + to + n, m->blocks + to, (m->count - to) * sizeof *m->blocks);
    m->count += n;
    size_t old = to, at = to + n;
    for (uint64_t number = end; number-- > first;) {
        at--;
        if (old > from && m->blocks[old - 1].number == number) {
            m->blocks[at] = m->blocks[--old];
        } else {
            m->blocks[at].number = number;
            m->blocks[at].data = NULL;
        }
    }
    return 0;
}

uint64_t sim_missing(const struct sim_image *m, uint64_t off, uint64_t len) {
    if (len == 0) return 0;
    uint64_t first = off / SIM_BLOCK, end = (off + len - 1) / SIM_BLOCK + 1;
    return end - first - (find_block(m, end) - find_block(m, first));
}

/* data NULL: zeros. The blocks are there. */
static int64_t put(struct sim_image *m, uint64_t off, const uint8_t *data, uint64_t len) {
    size_t i = find_block(m, off / SIM_BLOCK);
    while (len > 0) {
        size_t inside = (size_t)(off % SIM_BLOCK);
        size_t n = len < SIM_BLOCK - inside ? (size_t)len : SIM_BLOCK - inside;
        struct sim_block *block = &m->blocks[i++];
        if (!data && n == SIM_BLOCK) {
            free(block->data);
            block->data = NULL;
        }
        if (data && !block->data) block->data = calloc(1, SIM_BLOCK);
        if (data && !block->data) return -ENOMEM;
        if (data) memcpy(block->data + inside, data, n);
        else if (block->data) memset(block->data + inside, 0, n);
        off += n;
        len -= n;
        if (data) data += n;
    }
    return 0;
}

static int64_t write_range(struct sim_image *m, uint64_t off, const uint8_t *data, uint64_t len) {
    if (len == 0) return 0;
    int64_t r = reserve(m, off / SIM_BLOCK, (off + len - 1) / SIM_BLOCK + 1);
    return r < 0 ? r : put(m, off, data, len);
}

/* Zeros without space where that is whole blocks. */
static void punch(struct sim_image *m, uint64_t off, uint64_t end) {
    size_t i = find_block(m, off / SIM_BLOCK);
    if (i < m->count && off % SIM_BLOCK && m->blocks[i].number == off / SIM_BLOCK) {
        uint64_t rest = SIM_BLOCK - off % SIM_BLOCK;
        put(m, off, NULL, end - off < rest ? end - off : rest);
    }
    uint64_t first = (off + SIM_BLOCK - 1) / SIM_BLOCK, last = end / SIM_BLOCK;
    if (first < last) drop_blocks(m, find_block(m, first), find_block(m, last));
    i = find_block(m, last);
    if (last >= first && end % SIM_BLOCK && i < m->count && m->blocks[i].number == last)
        put(m, last * SIM_BLOCK, NULL, end % SIM_BLOCK);
}

/* What lies behind the end reads zeros when the file grows again, and is no space of the file's:
 * also what was reserved there. */
static void set_size(struct sim_image *m, uint64_t size) {
    if (size <= m->size) punch(m, size, UINT64_MAX / 2 / SIM_BLOCK * SIM_BLOCK);
    m->size = size;
}

uint64_t sim_read(const struct sim_inode *file, uint64_t off, uint8_t *to, uint64_t len) {
    const struct sim_image *m = &file->live;
    if (off >= m->size) return 0;
    if (len > m->size - off) len = m->size - off;
    size_t i = find_block(m, off / SIM_BLOCK);
    for (uint64_t done = 0; done < len;) {
        uint64_t at = off + done;
        size_t inside = (size_t)(at % SIM_BLOCK);
        size_t n = len - done < SIM_BLOCK - inside ? (size_t)(len - done) : SIM_BLOCK - inside;
        while (i < m->count && m->blocks[i].number < at / SIM_BLOCK) i++;
        const uint8_t *data =
            i < m->count && m->blocks[i].number == at / SIM_BLOCK ? m->blocks[i].data : NULL;
        if (data) memcpy(to + done, data + inside, n);
        else memset(to + done, 0, n);
        done += n;
    }
    return len;
}

/* ---- names ---------------------------------------------------------------------------------- */

static size_t find_name(const struct sim_names *names, const char *name, int *found) {
    size_t low = 0, high = names->count;
    *found = 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(names->entries[middle].name, name);
        if (order == 0) {
            *found = 1;
            return middle;
        }
        if (order < 0) low = middle + 1;
        else high = middle;
    }
    return low;
}

struct sim_inode *sim_find(const struct sim_inode *directory, const char *name) {
    int found;
    size_t i = find_name(&directory->names, name, &found);
    return found ? directory->names.entries[i].inode : NULL;
}

static void remove_name(struct sim_disk *d, struct sim_names *names, const char *name) {
    int found;
    size_t i = find_name(names, name, &found);
    if (!found) return;
    struct sim_entry entry = names->entries[i];
    names->count--;
    memmove(names->entries + i, names->entries + i + 1,
            (names->count - i) * sizeof *names->entries);
    free(entry.name);
    sim_inode_unref(d, entry.inode);
}

/* In place of what the name led to before. */
static int64_t add_name(struct sim_disk *d, struct sim_names *names, const char *name,
                        struct sim_inode *inode) {
    int found;
    size_t i = find_name(names, name, &found);
    sim_inode_ref(inode);
    if (found) {
        struct sim_inode *before = names->entries[i].inode;
        names->entries[i].inode = inode;
        sim_inode_unref(d, before);
        return 0;
    }
    if (names->count == names->room) {
        size_t room = names->room ? 2 * names->room : 8;
        struct sim_entry *grown = realloc(names->entries, room * sizeof *grown);
        if (grown) names->entries = grown;
        if (grown) names->room = room;
    }
    char *copy = names->count < names->room ? strdup(name) : NULL;
    if (!copy) {
        sim_inode_unref(d, inode);
        return -ENOMEM;
    }
    memmove(names->entries + i + 1, names->entries + i,
            (names->count - i) * sizeof *names->entries);
    names->entries[i].name = copy;
    names->entries[i].inode = inode;
    names->count++;
    return 0;
}

static void clear_names(struct sim_disk *d, struct sim_names *names) {
    while (names->count > 0) {
        struct sim_entry entry = names->entries[--names->count];
        free(entry.name);
        sim_inode_unref(d, entry.inode);
    }
    free(names->entries);
    memset(names, 0, sizeof *names);
}

static int64_t copy_names(struct sim_disk *d, struct sim_names *to, const struct sim_names *from) {
    int64_t r = 0;
    memset(to, 0, sizeof *to);
    for (size_t i = 0; i < from->count && r == 0; i++)
        r = add_name(d, to, from->entries[i].name, from->entries[i].inode);
    return r;
}

/* ---- inodes --------------------------------------------------------------------------------- */

struct sim_inode *sim_inode_new(struct sim_disk *d, int directory, uint32_t mode) {
    struct sim_inode *inode = calloc(1, sizeof *inode);
    if (!inode) return NULL;
    inode->number = ++d->inode_count;
    inode->refs = 1;
    inode->directory = directory;
    inode->mode = mode;
    inode->mtime_ns = inode->ctime_ns = d->time_ns;
    inode->journal_end = &inode->journal;
    inode->next = d->inodes;
    inode->link = &d->inodes;
    if (d->inodes) d->inodes->link = &inode->next;
    d->inodes = inode;
    return inode;
}

static void free_record(struct sim_disk *d, struct sim_record *r) {
    if (r->pair) r->pair->pair = NULL;
    if (r->inode) sim_inode_unref(d, r->inode);
    free(r->data);
    free(r->gone);
    free(r->come);
    free(r);
}

static void drop_first(struct sim_disk *d, struct sim_inode *inode) {
    struct sim_record *r = inode->journal;
    inode->journal = r->next;
    if (!inode->journal) inode->journal_end = &inode->journal;
    free_record(d, r);
}

static void clear_journal(struct sim_disk *d, struct sim_inode *inode) {
    while (inode->journal) drop_first(d, inode);
}

void sim_inode_ref(struct sim_inode *inode) { inode->refs++; }

/* refs stays above 0 until the end: what is given up here may lead back. */
void sim_inode_unref(struct sim_disk *d, struct sim_inode *inode) {
    if (inode->refs > 1) {
        inode->refs--;
        return;
    }
    sim_inode_forget(d, inode);
    clear_journal(d, inode);
    clear_names(d, &inode->names);
    clear_names(d, &inode->stable_names);
    clear_image(&inode->live);
    clear_image(&inode->stable);
    *inode->link = inode->next;
    if (inode->next) inode->next->link = inode->link;
    free(inode);
}

void sim_inode_forget(struct sim_disk *d, struct sim_inode *inode) {
    if (inode->links > 0 || inode->handles > 0) return;
    d->used -= inode->live.count;
    clear_image(&inode->live);
}

int64_t sim_disk_open(struct sim_disk *d) {
    d->root = sim_inode_new(d, 1, 0755);
    if (!d->root) return -ENOMEM;
    d->root->links = 1;
    return 0;
}

/* Names may lead round in circles: nothing is freed before all have let go of each other. */
void sim_disk_close(struct sim_disk *d) {
    for (struct sim_inode *i = d->inodes; i; i = i->next) i->refs = UINT32_MAX / 2;
    for (struct sim_inode *i = d->inodes; i; i = i->next) {
        clear_journal(d, i);
        clear_names(d, &i->names);
        clear_names(d, &i->stable_names);
        clear_image(&i->live);
        clear_image(&i->stable);
    }
    for (struct sim_inode *i = d->inodes, *next; i; i = next) {
        next = i->next;
        free(i);
    }
    d->root = d->inodes = NULL;
    d->used = 0;
}

/* ---- changes -------------------------------------------------------------------------------- */

/* Which parts of a change a crash keeps; NULL: all. */
struct choice {
    uint64_t *random;
    unsigned of_256;
};

static int keeps(const struct choice *c) { return !c || sim_random(c->random) % 256 < c->of_256; }

static int64_t write_torn(struct sim_image *m, const struct sim_record *r, uint32_t sector,
                          const struct choice *c) {
    int64_t error = 0;
    for (uint64_t done = 0; done < r->len && error == 0;) {
        uint64_t n = sector - (r->off + done) % sector;
        if (n > r->len - done) n = r->len - done;
        if (keeps(c)) error = write_range(m, r->off + done, r->data + done, n);
        done += n;
    }
    return error;
}

static int64_t apply_write(struct sim_image *m, const struct sim_record *r, uint32_t sector,
                           const struct choice *c) {
    int64_t error = 0;
    /* Torn or not, as devices do both. */
    int torn = c && !r->whole && sim_random(c->random) % 2;
    int kept = torn || keeps(c);
    if (torn) error = write_torn(m, r, sector, c);
    else if (kept) error = write_range(m, r->off, r->data, r->len);
    if (error < 0) return error;
    /* A size that came without its bytes, or bytes that came without the size. */
    int grown = r->whole || !torn ? kept : keeps(c);
    if (grown && r->off + r->len > m->size) m->size = r->off + r->len;
    return 0;
}

/* SIM_NAME is none of a file. */
static int64_t apply(struct sim_image *m, const struct sim_record *r, uint32_t sector,
                     const struct choice *c) {
    int64_t error = 0;
    if (r->kind == SIM_WRITE) return apply_write(m, r, sector, c);
    if (!keeps(c)) return 0;
    uint64_t end = r->off + r->len;
    switch (r->kind) {
    case SIM_ZERO: error = write_range(m, r->off, NULL, r->len); break;
    case SIM_SIZE: set_size(m, r->off); return 0;
    case SIM_PUNCH: punch(m, r->off, end); return 0;
    default:
        if (r->len > 0) error = reserve(m, r->off / SIM_BLOCK, (end + SIM_BLOCK - 1) / SIM_BLOCK);
    }
    if (error == 0 && r->grows && end > m->size) m->size = end;
    return error;
}

static void append(struct sim_disk *d, struct sim_inode *inode, struct sim_record *r) {
    r->number = ++d->record_count;
    r->next = NULL;
    *inode->journal_end = r;
    inode->journal_end = &r->next;
    inode->ctime_ns = d->time_ns;
    if (r->kind != SIM_RESERVE) inode->mtime_ns = d->time_ns;
}

/* Durable records at the front of the journal become part of what is stored. */
static int64_t fold(struct sim_disk *d, struct sim_inode *inode) {
    while (inode->journal && inode->journal->durable) {
        const struct sim_record *r = inode->journal;
        int64_t error = 0;
        if (r->kind != SIM_NAME) error = apply(&inode->stable, r, d->sector, NULL);
        if (r->gone) remove_name(d, &inode->stable_names, r->gone);
        if (r->come) error = add_name(d, &inode->stable_names, r->come, r->inode);
        if (error < 0) return error;
        drop_first(d, inode);
    }
    return 0;
}

int64_t sim_change(struct sim_disk *d, struct sim_inode *file, const struct sim_record *change) {
    uint64_t more = change->kind == SIM_SIZE || change->kind == SIM_PUNCH
                        ? 0
                        : sim_missing(&file->live, change->off, change->len);
    if (more > d->capacity - d->used) return -ENOSPC;
    struct sim_record *r = malloc(sizeof *r);
    if (!r) return -ENOMEM;
    *r = *change;
    if (change->data) {
        r->data = malloc((size_t)r->len);
        if (!r->data) {
            free(r);
            return -ENOMEM;
        }
        memcpy(r->data, change->data, (size_t)r->len);
    }
    size_t before = file->live.count;
    int64_t error = apply(&file->live, r, d->sector, NULL);
    d->used = d->used - before + file->live.count;
    append(d, file, r);
    return error < 0 ? error : fold(d, file);
}

static struct sim_record *name_record(const char *gone, const char *come, struct sim_inode *inode) {
    struct sim_record *r = calloc(1, sizeof *r);
    if (!r) return NULL;
    r->kind = SIM_NAME;
    r->gone = gone ? strdup(gone) : NULL;
    r->come = come ? strdup(come) : NULL;
    if ((gone && !r->gone) || (come && !r->come)) {
        free(r->gone);
        free(r->come);
        free(r);
        return NULL;
    }
    r->inode = inode;
    sim_inode_ref(inode);
    return r;
}

static void unlinked(struct sim_disk *d, struct sim_inode *inode) {
    inode->links--;
    sim_inode_forget(d, inode);
}

int64_t sim_rename(struct sim_disk *d, struct sim_inode *from, const char *gone,
                   struct sim_inode *to, const char *come, struct sim_inode *inode) {
    int together = from == to;
    int both = gone && come && !together;
    struct sim_record *first = name_record(both ? NULL : gone, come, inode);
    struct sim_record *second = both ? name_record(gone, NULL, inode) : NULL;
    struct sim_inode *replaced = come ? sim_find(to, come) : NULL;
    int64_t error = !first || (both && !second) ? -ENOMEM : 0;
    if (replaced) sim_inode_ref(replaced);
    if (error == 0 && come) error = add_name(d, &to->names, come, inode);
    if (error < 0) {
        if (first) free_record(d, first);
        if (second) free_record(d, second);
    } else {
        if (come) inode->links++;
        if (gone) remove_name(d, &from->names, gone);
        if (gone) unlinked(d, inode);
        if (second) {
            first->pair = second;
            second->pair = first;
            append(d, from, second);
        }
        append(d, come ? to : from, first);
        if (replaced) unlinked(d, replaced);
    }
    if (replaced) sim_inode_unref(d, replaced);
    return error;
}

/* ---- durability ----------------------------------------------------------------------------- */

int64_t sim_settle(struct sim_disk *d, struct sim_inode *inode, uint64_t upto) {
    for (struct sim_record *r = inode->journal; r && r->number <= upto; r = r->next)
        if (!r->forsaken) r->durable = 1;
    return fold(d, inode);
}

int sim_unsettled(const struct sim_inode *inode, uint64_t upto) {
    for (const struct sim_record *r = inode->journal; r && r->number <= upto; r = r->next)
        if (!r->forsaken && !r->durable) return 1;
    return 0;
}

void sim_forsake(struct sim_inode *inode, uint64_t upto) {
    for (struct sim_record *r = inode->journal; r && r->number <= upto; r = r->next)
        if (!r->durable) r->forsaken = 1;
}

/* A name goes only when the one that comes in its place is there. */
static void choose_names(struct sim_disk *d, const struct choice *c) {
    for (struct sim_inode *i = d->inodes; i; i = i->next)
        for (struct sim_record *r = i->journal; r; r = r->next)
            r->kept = (uint8_t)(r->durable || (r->kind == SIM_NAME && keeps(c)));
    for (struct sim_inode *i = d->inodes; i; i = i->next)
        for (struct sim_record *r = i->journal; r; r = r->next)
            if (r->pair && r->gone && !r->durable && !r->pair->kept) r->kept = 0;
}

static int64_t replay(struct sim_disk *d, struct sim_inode *inode, const struct choice *c) {
    int64_t error = 0;
    for (const struct sim_record *r = inode->journal; r && error == 0; r = r->next) {
        if (r->kind != SIM_NAME) {
            error = apply(&inode->stable, r, d->sector, r->durable ? NULL : c);
            continue;
        }
        if (r->kept && r->gone) remove_name(d, &inode->stable_names, r->gone);
        if (r->kept && r->come) error = add_name(d, &inode->stable_names, r->come, r->inode);
    }
    /* Bytes behind the end, whose size was lost. */
    uint64_t size = inode->stable.size, used = inode->stable.count;
    if (used > 0) {
        uint64_t end = (inode->stable.blocks[used - 1].number + 1) * SIM_BLOCK;
        for (size_t i = find_block(&inode->stable, size / SIM_BLOCK); i < used; i++) {
            uint64_t at = inode->stable.blocks[i].number * SIM_BLOCK;
            uint64_t from = at < size ? size : at;
            if (from < end && inode->stable.blocks[i].data)
                put(&inode->stable, from, NULL, at + SIM_BLOCK - from);
        }
    }
    return error;
}

static int64_t restart(struct sim_disk *d, struct sim_inode *inode) {
    clear_names(d, &inode->names);
    clear_image(&inode->live);
    int64_t error = copy_image(&inode->live, &inode->stable);
    return error < 0 ? error : copy_names(d, &inode->names, &inode->stable_names);
}

int64_t sim_disk_crash(struct sim_disk *d) {
    /* All, nothing, or a share that differs from crash to crash. */
    uint64_t how = sim_random(&d->random) % 8;
    struct choice c = {&d->random, how == 0   ? 0
                                   : how == 1 ? 256
                                              : 16 + (unsigned)(sim_random(&d->random) % 225)};
    int64_t error = 0;
    choose_names(d, &c);
    /* Held, so that nothing goes away under the loops. */
    for (struct sim_inode *i = d->inodes; i; i = i->next) i->refs++;
    for (struct sim_inode *i = d->inodes; i && error == 0; i = i->next) error = replay(d, i, &c);
    for (struct sim_inode *i = d->inodes; i; i = i->next) clear_journal(d, i);
    for (struct sim_inode *i = d->inodes; i && error == 0; i = i->next) error = restart(d, i);
    for (struct sim_inode *i = d->inodes; i; i = i->next) i->links = i == d->root;
    for (struct sim_inode *i = d->inodes; i; i = i->next)
        for (size_t n = 0; n < i->names.count; n++) i->names.entries[n].inode->links++;
    for (struct sim_inode *i = d->inodes, *next; i; i = next) {
        next = i->next;
        sim_inode_unref(d, i);
    }
    d->used = 0;
    for (struct sim_inode *i = d->inodes; i; i = i->next) d->used += i->live.count;
    return error;
}
