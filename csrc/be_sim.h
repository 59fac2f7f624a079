/* be_sim.h: the parts of the simulated disk. be_sim.c: backend, clock, faults, control.
 * be_sim_op.c: operations, made of steps. be_sim_disk.c: what is stored, and what survives.
 *
 * The model is the strictest that POSIX allows. Bytes and sizes are durable by a flush of their
 * file or by a durable write, names by a flush of their directory, and by nothing else. A flush
 * covers what was complete when it was submitted. Every change lies in the journal of its file or
 * directory until it is durable. A crash keeps what is durable and any subset of the journal:
 * single sectors of writes, a size without its bytes, names in any order. Only a rename is one
 * step: a name that goes is not gone before the one that comes is there.
 *
 * Nothing here makes a system call but for memory. One generator decides everything, so the same
 * seed and the same calls give the same results at the same virtual times. */
#ifndef JDB_BE_SIM_H
#define JDB_BE_SIM_H

#include "backend.h"

enum { SIM_BLOCK = 4096, SIM_NAME_MAX = 255, SIM_PATH_MAX = 4096 };

/* ---- be_sim_disk.c -------------------------------------------------------------------------- */

struct sim_block {
    uint64_t number;
    uint8_t *data; /* NULL: space without content, reads zeros */
};

struct sim_image {
    struct sim_block *blocks; /* by number */
    size_t count, room;
    uint64_t size;
};

struct sim_entry {
    char *name;
    struct sim_inode *inode; /* one reference */
};

struct sim_names {
    struct sim_entry *entries; /* by name, bytewise */
    size_t count, room;
};

enum sim_kind { SIM_WRITE, SIM_ZERO, SIM_SIZE, SIM_PUNCH, SIM_RESERVE, SIM_NAME };

/* A change in the order in which it was made. */
struct sim_record {
    struct sim_record *next;
    uint64_t number; /* grows over the whole disk */
    uint8_t kind;
    uint8_t durable;
    uint8_t forsaken; /* a failed flush covered it: no later flush will write it */
    uint8_t whole;    /* not torn: all or nothing survives */
    uint8_t grows;    /* the size follows the end of the range */
    uint8_t kept;     /* by the crash that is being worked out */
    uint64_t off, len;
    uint8_t *data;
    /* SIM_NAME: `gone` is taken away, then `come` leads to the inode. Either may be NULL. */
    char *gone, *come;
    struct sim_inode *inode;
    struct sim_record *pair; /* of a rename between directories: the other half */
};

struct sim_inode {
    struct sim_inode *next, **link; /* all there are */
    uint64_t number;
    unsigned refs;  /* entries, records and handles */
    unsigned links; /* names it has now */
    unsigned handles;
    int directory;
    uint32_t mode;
    int64_t mtime_ns, ctime_ns;
    struct sim_image live, stable;
    struct sim_names names, stable_names;
    struct sim_record *journal, **journal_end;
};

struct sim_disk {
    struct sim_inode *root, *inodes;
    uint64_t inode_count, record_count;
    uint64_t capacity, used; /* blocks */
    uint32_t sector;
    uint64_t random;
    int64_t time_ns; /* for time stamps */
};

uint64_t sim_random(uint64_t *state);
uint64_t sim_below(uint64_t *state, uint64_t n); /* 0 .. n - 1; 0 when n is 0 */

int64_t sim_disk_open(struct sim_disk *disk); /* 0 or -ENOMEM; an empty root directory */
void sim_disk_close(struct sim_disk *disk);
/* All handles must be gone. 0 or -ENOMEM. */
int64_t sim_disk_crash(struct sim_disk *disk);

struct sim_inode *sim_inode_new(struct sim_disk *disk, int directory, uint32_t mode);
void sim_inode_ref(struct sim_inode *inode);
void sim_inode_unref(struct sim_disk *disk, struct sim_inode *inode);
/* After the last name and the last handle have gone the space is free. */
void sim_inode_forget(struct sim_disk *disk, struct sim_inode *inode);

struct sim_inode *sim_find(const struct sim_inode *directory, const char *name);
/* Changes of a file; the record is filled in but for number and links, and is copied. 0, -ENOSPC,
 * -ENOMEM. */
int64_t sim_change(struct sim_disk *disk, struct sim_inode *file, const struct sim_record *change);
/* In `from` the name `gone` goes away, in `to` the name `come` appears for the inode; either name
 * may be NULL. */
int64_t sim_rename(struct sim_disk *disk, struct sim_inode *from, const char *gone,
                   struct sim_inode *to, const char *come, struct sim_inode *inode);
uint64_t sim_read(const struct sim_inode *file, uint64_t off, uint8_t *to, uint64_t len);
/* Blocks that a write of this range would add. */
uint64_t sim_missing(const struct sim_image *image, uint64_t off, uint64_t len);
/* Makes the records up to this number durable. */
int64_t sim_settle(struct sim_disk *disk, struct sim_inode *inode, uint64_t upto);
int sim_unsettled(const struct sim_inode *inode, uint64_t upto); /* whether that changes anything */
void sim_forsake(struct sim_inode *inode, uint64_t upto);

/* ---- be_sim.c ------------------------------------------------------------------------------- */

struct sim_handle {
    struct sim_inode *inode; /* NULL: free, or dead since a crash */
    int lock;                /* 0, or a JDB_LOCK_* + 1 */
    int used;
};

struct sim_flight { /* an operation between submit and arrival */
    int64_t when;
    uint64_t order;  /* of submission */
    uint64_t covers; /* records that a flush submitted then covers */
    jdb_op *op;
};

struct sim {
    struct sim_disk disk;
    jdb_sim_options options;
    struct sim_handle *handles;
    size_t handle_count;
    struct sim_flight *flights; /* a heap by time, then order */
    uint32_t flight_count;
    int64_t now_ns, reset_ns;
    uint64_t orders, trace;
    uint64_t temporaries; /* names given to them */
    uint64_t steps, flushes, operations, faulted;
    uint64_t cut_at;  /* the step at which the power goes; 0: never */
    int off;          /* the power has gone */
    int dying;        /* what is in flight at that moment is being worked out: */
    uint64_t credits; /* so many more steps of it still happen */
    jdb_sim_fault faults[JDB_SIM_FAULTS_MAX];
    unsigned fault_count;
    int polled; /* somebody waits on the notifier */
};

enum sim_outcome {
    SIM_LOST,    /* not done */
    SIM_UNHEARD, /* done, and nobody will hear of it */
    SIM_DONE
};

/* Every step that changes the disk asks first: the power may go just then. */
enum sim_outcome sim_step(struct sim *sim);
/* The fault that strikes this operation, or flush (code < 0), or NULL. */
const jdb_sim_fault *sim_fault_for(struct sim *sim, int code);

/* ---- be_sim_op.c ---------------------------------------------------------------------------- */

int64_t sim_perform(struct sim *sim, jdb_op *op, uint64_t covers, const jdb_sim_fault *fault);
void sim_close_handle(struct sim *sim, intptr_t handle);
struct sim_inode *sim_inode_of(const struct sim *sim, intptr_t handle); /* NULL: dead */

#endif
