/* replay.h: a record, read back, and the two models of what is left of it after a power cut. */
#ifndef POWERCUT_REPLAY_H
#define POWERCUT_REPLAY_H

#include <stddef.h>
#include <stdint.h>

#include "session.h"

struct event {
    struct record record;
    const uint8_t *data;
};

struct recording {
    struct event *events;
    size_t count;
};

/* What of the writes that no flush covers is there after the cut. */
enum keep { KEEP_NONE, KEEP_ALL, KEEP_PREFIX, KEEP_SOME, KEEP_TORN, KEEP_MODES };

enum { SECTOR = 512 };

/* Choices for one cut, all from one seed. */
struct choice {
    enum keep keep;
    uint64_t state;
    unsigned percent;     /* of KEEP_SOME and KEEP_TORN */
    size_t pending, kept; /* counted while choosing */
};

uint64_t choose(uint64_t *state);
int choose_one(struct choice *choice); /* whether one more pending write is kept */
/* Whether a sector of a kept write is: always, unless the cut tears and this write is torn. */
int choose_torn(struct choice *choice, size_t length);
int choose_sector(struct choice *choice);

struct model {
    /* Takes in everything before position `to`; positions never go down. */
    void (*advance)(const struct recording *recording, size_t to);
    /* The mark "start": all that was done before is durable. */
    void (*settle)(void);
    /* Makes a state after a cut at `at` and gives the directory to check; NULL: it does not
     * mount, `why` has the reason. */
    const char *(*build)(const struct recording *recording, size_t at, struct choice *choice,
                         char *why, size_t why_size);
    void (*drop)(void);
};

/* Both work in a directory of their own that exists. */
const struct model *strict_model(const char *work);
const struct model *disk_model(const char *work, const char *file_system, const char *image);

#endif
