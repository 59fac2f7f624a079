/* os.h: what a platform supplies. Every call is synchronous; the pool runs jdb_os_perform on its
 * threads, the queue's thread calls the rest. Results: >= 0, or -errno. */
#ifndef JDB_OS_H
#define JDB_OS_H

#include "op.h"

/* Runs the operation's next step in place. Touches only the operation and what it holds. */
int64_t jdb_os_perform(jdb_op *op);
void jdb_os_close(intptr_t handle);
int64_t jdb_os_size(intptr_t handle);

/* Zeroed memory that a forked child does not inherit; NULL when there is none. */
void *jdb_os_map(size_t size);
void jdb_os_unmap(void *map, size_t size);
size_t jdb_os_page_size(void);

/* A waitable handle. Signals merge; clear before collecting what was signalled. */
int jdb_os_notify_new(void);
void jdb_os_notify_signal(int handle);
void jdb_os_notify_clear(int handle);
void jdb_os_notify_wait(int handle, int64_t timeout_ns);

/* Bytes on a socket instead of a notifier; see jdb_relay in jdb.h. */
struct jdb_os_relay;
int jdb_os_relay_new(int notify, struct jdb_os_relay **relay, const char **path);
int jdb_os_relay_accept(struct jdb_os_relay *relay);
void jdb_os_relay_arm(struct jdb_os_relay *relay);
void jdb_os_relay_free(struct jdb_os_relay *relay);

int64_t jdb_os_now(void);
void jdb_os_sleep(int64_t ns);
unsigned jdb_os_fork_generation(void); /* grows by one in every forked child */
const char *jdb_os_getenv(const char *name);
const char *jdb_os_platform(void);
void jdb_os_error_text(int error, char *text, size_t size);
void jdb_os_stay_loaded(void); /* this library, until the process ends */

/* CRC-32C by instruction, or NULL. */
typedef uint32_t (*jdb_crc32c_fn)(uint32_t crc, const uint8_t *data, size_t len);
jdb_crc32c_fn jdb_os_crc32c(void);

#endif
