/* session.h: what the recording file systems share: the record of everything that reached them, in
 * one order, and the loop that stamps each request when it arrives.
 *
 * A record is written when its request is answered. `arrived` is how many records there were when
 * the request was received: a flush makes safe only what had been answered before it arrived. */
#ifndef POWERCUT_SESSION_H
#define POWERCUT_SESSION_H

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <stddef.h>
#include <stdint.h>

enum record_kind {
    RECORD_MARK = 'M', /* data: a line of the workload; what it names is durable now */
    /* of a disk */
    RECORD_WRITE = 'W', /* offset, data */
    RECORD_ZERO = 'Z',  /* offset, extra: bytes */
    RECORD_FLUSH = 'F',
    /* of a file system: node, ... */
    RECORD_MAKE = 'm',     /* in node: the name `data` for the new node `extra`, offset: mode */
    RECORD_LINK = 'l',     /* in node: the name `data` for node `extra` */
    RECORD_UNLINK = 'u',   /* in node: the name `data` of node `extra` */
    RECORD_RENAME = 'r',   /* in node: from; to directory `offset`; both names in data */
    RECORD_PUT = 'w',      /* offset, data; flag: durable by itself */
    RECORD_TRUNCATE = 't', /* offset: the new size */
    RECORD_ALLOCATE = 'a', /* offset, extra: bytes; flag: the mode of fallocate */
    RECORD_SYNC = 's',
};

struct record {
    uint8_t kind, flag;
    uint16_t second; /* the last bytes of the data are a second name */
    uint32_t length; /* of the data, which follows */
    uint64_t arrived, node, offset, extra;
};

enum { NODE_ROOT = FUSE_ROOT_ID, NODE_MARK, NODE_CONTROL, NODE_FIRST };

void record_open(const char *path);
/* `arrived` is filled in. Both parts of the data are stored one after the other. */
void record_add(struct record record, const void *data, size_t length, const void *second,
                size_t second_length);
void record_stop(void); /* what comes later is not recorded */

/* Serves until it is unmounted; exit status. Requests for the mark and the control file are
 * handled by the reader itself, in order of arrival, the others by `workers` threads. */
int session_serve(const char *name, const char *mount_point, const struct fuse_lowlevel_ops *ops,
                  size_t ops_size, unsigned workers);

_Noreturn void session_die(const char *what);

#endif
