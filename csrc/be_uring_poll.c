/* be_uring_poll.c: the second ring of option iopoll. The device does not interrupt for each
 * completion; whoever waits asks it. Such a ring takes reads and writes of direct files only, so
 * all else stays with the first. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "be_uring.h"
#include "os.h"

#define SETUP_HYBRID_IOPOLL (1u << 17) /* Linux 6.13 */

static int make(const jdb_queue *q, struct uring *p, unsigned mode) {
    static const unsigned sets[] = {
        IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE,
        IORING_SETUP_CQSIZE,
    };
    int r = -EINVAL;
    for (size_t i = 0; i < sizeof sets / sizeof *sets && r == -EINVAL; i++) {
        struct io_uring_params params;
        memset(&params, 0, sizeof params);
        params.flags = sets[i] | mode;
        params.cq_entries = 2 * q->depth;
        r = io_uring_queue_init_params(q->depth, &p->ring, &params);
        p->flags = params.flags;
        p->timed = (params.features & IORING_FEAT_EXT_ARG) != 0;
    }
    return r;
}

int jdb_uring_poll_open(jdb_queue *q, struct uring *u, const char **refused) {
    int hybrid = q->options.iopoll == JDB_IOPOLL_HYBRID;
    struct uring *p = calloc(1, sizeof *p);
    if (!p) return -ENOMEM;
    p->host_fd = -1;
    int r = make(q, p, IORING_SETUP_IOPOLL | (hybrid ? SETUP_HYBRID_IOPOLL : 0));
    if (r != 0) {
        free(p);
        if (r == -EINVAL && hybrid)
            *refused = "option iopoll = \"hybrid\" refused: this kernel cannot (Linux 6.13 can)";
        return r;
    }
    io_uring_ring_dontfork(&p->ring);
    p->enter_fd = p->ring.ring_fd;
    jdb_uring_register_ring(q, p);
    u->polled = p;
    return 0;
}

int jdb_uring_poll_refused(jdb_op *op) {
    op->file->info.polled = 0;
    op->file->info.polled_reason = "the file system or the device refuses it (EOPNOTSUPP)";
    return -EINTR;
}
