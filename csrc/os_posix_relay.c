/* os_posix_relay.c: a thread that turns the queue's notifier into bytes on a socket, for hosts that
 * can wait for sockets of their own but for no other descriptor (nginx).
 *
 * The thread clears the notifier and sends one byte, then none until it is armed again: however
 * many completions arrive meanwhile, the host is woken once. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "os_posix.h"
#include "os_thread.h"

struct jdb_os_relay {
    int notify, listener, peer;
    atomic_int sent, stop;
    int has_thread;
    unsigned fork_generation;
    pthread_t thread;
    char directory[80];
    struct sockaddr_un address;
};

/* Some systems have no flags for these: there a program that another thread starts meanwhile may
 * get the descriptor. */
#ifdef SOCK_CLOEXEC
enum { LISTENER = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK };
static int accept_closed(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC); }
#else
enum { LISTENER = SOCK_STREAM };
static int accept_closed(int listener) { return accept(listener, NULL, NULL); }
#endif

/* Nobody else can connect: the directory is ours alone. */
static int name_socket(struct jdb_os_relay *relay) {
    const char *base = jdb_os_getenv("TMPDIR");
    if (!base || strlen(base) > 40) base = "/tmp";
    snprintf(relay->directory, sizeof relay->directory, "%s/jdbfs-XXXXXX", base);
    if (!mkdtemp(relay->directory)) {
        int error = errno;
        relay->directory[0] = 0;
        return -error;
    }
    relay->address.sun_family = AF_UNIX;
    snprintf(relay->address.sun_path, sizeof relay->address.sun_path, "%s/wake", relay->directory);
    return 0;
}

static void remove_name(struct jdb_os_relay *relay) {
    if (!relay->directory[0]) return;
    unlink(relay->address.sun_path);
    rmdir(relay->directory);
    relay->directory[0] = 0;
}

static int listen_on(struct jdb_os_relay *relay) {
    relay->listener = socket(AF_UNIX, LISTENER, 0);
    if (relay->listener < 0) return -errno;
    fcntl(relay->listener, F_SETFD, FD_CLOEXEC);
    fcntl(relay->listener, F_SETFL, O_NONBLOCK);
    if (bind(relay->listener, (struct sockaddr *)&relay->address, sizeof relay->address) != 0)
        return -errno;
    return listen(relay->listener, 1) != 0 ? -errno : 0;
}

int jdb_os_relay_new(int notify, struct jdb_os_relay **made, const char **path) {
    struct jdb_os_relay *relay = calloc(1, sizeof *relay);
    if (!relay) return -ENOMEM;
    relay->notify = notify;
    relay->listener = relay->peer = -1;
    relay->fork_generation = jdb_os_fork_generation();
    int r = name_socket(relay);
    if (r == 0) r = listen_on(relay);
    if (r != 0) {
        jdb_os_relay_free(relay);
        return r;
    }
    *made = relay;
    *path = relay->address.sun_path;
    return 0;
}

/* 0 when the host has gone. */
static int send_byte(struct jdb_os_relay *relay) {
    ssize_t n;
    do n = send(relay->peer, "", 1, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n == 1;
}

static void *carry(void *argument) {
    struct jdb_os_relay *relay = argument;
    for (;;) {
        jdb_os_notify_wait(relay->notify, -1);
        if (atomic_load(&relay->stop)) break;
        if (atomic_exchange(&relay->sent, 1) == 0 && !send_byte(relay)) break;
    }
    return NULL;
}

static int start_thread(struct jdb_os_relay *relay) {
    int r = jdb_os_thread_start(&relay->thread, 64 * 1024, carry, relay);
    relay->has_thread = r == 0;
    return -r;
}

int jdb_os_relay_accept(struct jdb_os_relay *relay) {
    relay->peer = accept_closed(relay->listener);
    int error = errno;
    remove_name(relay);
    close(relay->listener);
    relay->listener = -1;
    if (relay->peer < 0) return -error;
    fcntl(relay->peer, F_SETFD, FD_CLOEXEC);
    return start_thread(relay);
}

void jdb_os_relay_arm(struct jdb_os_relay *relay) { atomic_store(&relay->sent, 0); }

void jdb_os_relay_free(struct jdb_os_relay *relay) {
    int ours = relay->fork_generation == jdb_os_fork_generation();
    if (ours && relay->has_thread) {
        atomic_store(&relay->stop, 1);
        jdb_os_notify_signal(relay->notify);
        pthread_join(relay->thread, NULL);
    }
    if (ours) remove_name(relay); /* the parent's host may be about to connect */
    if (relay->listener >= 0) close(relay->listener);
    if (relay->peer >= 0) close(relay->peer);
    free(relay);
}
