/* forbid.c: for package.loadlib. forbid_entering: io_uring_enter fails with EPERM in this thread
 * from now on, by a seccomp filter, which nothing takes away again. An error when the filter cannot
 * be set. Compiled by spec/support_process.lua. */
#define _GNU_SOURCE
#include <errno.h>
#include <lauxlib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>

#define IO_URING_ENTER 426 /* the same number on every architecture */

int forbid_entering(lua_State *L);

int forbid_entering(lua_State *L) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IO_URING_ENTER, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        return luaL_error(L, "no seccomp filter: %s", strerror(errno));
    return 0;
}
