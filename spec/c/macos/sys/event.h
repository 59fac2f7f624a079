/* As much of <sys/event.h> as be_kqueue.c uses, for the build that runs it on Linux. */
#ifndef STANDIN_EVENT_H
#define STANDIN_EVENT_H

#include <stdint.h>
#include <time.h>

enum { EVFILT_USER = -10, EV_ADD = 0x1, EV_CLEAR = 0x20, NOTE_TRIGGER = 0x1000000 };

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_)                       \
    (*(event) = (struct kevent){(uintptr_t)(ident_), (int16_t)(filter_), (uint16_t)(flags_), \
                                (uint32_t)(fflags_), (intptr_t)(data_), (udata_)})

int kqueue(void);
int kevent(int fd, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#endif
