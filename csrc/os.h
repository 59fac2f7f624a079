/* os.h: what a platform supplies. Every call is synchronous; the pool runs jdb_os_perform on its
 * threads, the queue's thread calls the rest. Results: >= 0, or -errno. */
#ifndef JDB_OS_H
#define JDB_OS_H

#include <errno.h>

#include "op.h"

/* Errors that a system may lack: no call of it gives them. */
#ifndef EDQUOT
#define EDQUOT 10069
#endif
#ifndef ESTALE
#define ESTALE 10070
#endif

/* Runs the operation's next step in place. Touches only the operation and what it holds. */
int64_t jdb_os_perform(jdb_op *op);
void jdb_os_close(intptr_t handle);
void jdb_os_unlock(intptr_t handle); /* before it is closed */
int64_t jdb_os_size(intptr_t handle);

struct jdb_owner {
    uint32_t mode, user, group;
};

/* The calls that changes of names are made of; names.c puts them in order, the same for every
 * platform and for the simulated disk. Handles are >= 0. `dir` is the handle of a directory, or
 * JDB_HERE: then names are paths. Each 0, or what it says, or -errno. */
struct jdb_calls {
    const char *separators; /* between the names of a path */
    /* Bytes in front that name no entry of a directory: "/", "C:/". */
    size_t (*root_length)(const char *path);
    int64_t (*make_directory)(void *context, const char *path); /* 1: made; 0: it was there */
    int64_t (*open_directory)(void *context, const char *path); /* a handle */
    int64_t (*device_of)(void *context, int64_t handle, uint64_t *device); /* never 0 */
    /* A handle of a new file in dir, whose name nobody else has: it is written to `made`. */
    int64_t (*make_beside)(void *context, int64_t dir, const char *name, unsigned mode, char *made,
                           size_t size);
    /* 1: a regular file is there; 0: nothing, or what has no permissions to keep (a link). */
    int64_t (*look_at)(void *context, int64_t dir, const char *name, struct jdb_owner *owner);
    /* What replaces a file keeps its permissions, and its owner where that is allowed. */
    int64_t (*take_over)(void *context, int64_t file, const struct jdb_owner *old);
    int64_t (*write)(void *context, int64_t file, const void *data, size_t len); /* all of it */
    int64_t (*sync)(void *context, int64_t handle);
    int64_t (*close)(void *context, int64_t handle);
    int64_t (*rename)(void *context, int64_t dir, const char *from, const char *to, int noreplace);
    int64_t (*remove)(void *context, int64_t dir, const char *name); /* a file */
};

enum { JDB_HERE = -1 };

size_t jdb_names_root(const char *path); /* names.c: of paths with "/" only */

/* names.c: mkdir, rename, remove, sync_dir, atomic_write. */
int64_t jdb_names_perform(const struct jdb_calls *calls, void *context, jdb_op *op);
/* names.c: the directory that holds the last name of a path: a handle or -errno. Opened before the
 * name is changed, as it may be refused; then synced when the change has the result 0, and closed.
 * Returns that result, or its own failure. */
int64_t jdb_names_open_parent(const struct jdb_calls *calls, void *context, const char *path);
int64_t jdb_names_sync_parent(const struct jdb_calls *calls, void *context, int64_t dir,
                              int64_t result);

int jdb_os_has_barrier(void); /* whether JDB_SYNC_BARRIER can be asked for */

/* Zeroed memory that a forked child does not inherit; NULL when there is none. */
void *jdb_os_map(size_t size);
/* `size` bytes on a multiple of `size`, of large pages where the system has them. */
void *jdb_os_map_chunk(size_t size);
void jdb_os_unmap(void *map, size_t size);
/* For a sanitizer: whoever touches this memory makes a mistake, or no longer. */
void jdb_os_forbid(void *memory, size_t size);
void jdb_os_permit(void *memory, size_t size);

typedef struct jdb_os_lock jdb_os_lock;
jdb_os_lock *jdb_os_lock_new(void); /* NULL: no memory */
void jdb_os_lock_free(jdb_os_lock *lock);
void jdb_os_lock_take(jdb_os_lock *lock);
void jdb_os_lock_give(jdb_os_lock *lock);

size_t jdb_os_page_size(void);

/* A waitable handle. Signals merge; clear before collecting what was signalled. A wait ends at a
 * signal, which it clears, or after the timeout (below 0: none). */
int jdb_os_notify_new(void);
void jdb_os_notify_free(int handle);
int jdb_os_notify_fd(int handle); /* what a host's loop can poll; -EOPNOTSUPP: nothing */
void jdb_os_notify_signal(int handle);
void jdb_os_notify_clear(int handle);
void jdb_os_notify_wait(int handle, int64_t timeout_ns);

/* Bytes on a socket instead of a notifier; see jdb_relay in jdb.h. */
struct jdb_os_relay;
int jdb_os_relay_new(int notify, struct jdb_os_relay **relay, const char **path);
int jdb_os_relay_accept(struct jdb_os_relay *relay);
void jdb_os_relay_arm(struct jdb_os_relay *relay);
void jdb_os_relay_free(struct jdb_os_relay *relay);

unsigned jdb_os_processors(void); /* that this process may run on */
int64_t jdb_os_now(void);
int64_t jdb_os_cpu(int thread); /* of the process, or of this thread */
void jdb_os_catch_signals(int on);
int jdb_os_signal(void);
int jdb_os_terminal(int fd, int *columns, int *lines); /* 0, or -errno: it is none */
void jdb_os_sleep(int64_t ns);
int jdb_os_entropy(void *bytes, size_t size);  /* 0, or -errno; at most 256 */
int jdb_os_remove_directory(const char *path); /* an empty one; 0, or -errno */
unsigned jdb_os_fork_generation(void);         /* grows by one in every forked child */
/* The same without a call, for what was made after one. */
extern uint32_t jdb_os_forks;
static inline unsigned jdb_os_generation(void) {
    return __atomic_load_n(&jdb_os_forks, __ATOMIC_RELAXED);
}
const char *jdb_os_getenv(const char *name);
const char *jdb_os_platform(void);
void jdb_os_error_text(int error, char *text, size_t size);
void jdb_os_stay_loaded(void); /* this library, until the process ends */

/* CRC-32C by instruction, or NULL. */
typedef uint32_t (*jdb_crc32c_fn)(uint32_t crc, const uint8_t *data, size_t len);
jdb_crc32c_fn jdb_os_crc32c(void);

#endif
