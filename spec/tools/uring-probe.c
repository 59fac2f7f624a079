/* uring-probe: exit 0 when this process may make an io_uring; else says why not and exits 77.
 * Asks the kernel itself, so that a jdbfs which wrongly gives up on io_uring fails its tests. */
#include <liburing.h>
#include <stdio.h>
#include <string.h>

int main(void) {
    struct io_uring ring;
    int result = io_uring_queue_init(4, &ring, 0);
    if (result < 0) {
        printf("io_uring_setup: %s\n", strerror(-result));
        return 77;
    }
    io_uring_queue_exit(&ring);
    return 0;
}
