/* Preloaded into the interpreter together with a sanitizer's runtime.
 *
 * Programs that the specs start (sh, grep, strace) must not inherit the preload: the thread
 * sanitizer crashes some of them, and their leaks are not ours. LuaJIT keeps its objects where the
 * leak checker does not look, and under ptrace it cannot work at all. */
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int __lsan_is_turned_off(void);
_Noreturn void __longjmp_chk(jmp_buf env, int value);

/* How a fortified Lua raises and yields. The thread sanitizer watches longjmp but not this name,
 * and without it its own record of the stack grows with every error until it overflows. */
_Noreturn void __longjmp_chk(jmp_buf env, int value) {
    longjmp(env, value);
}

__attribute__((constructor)) static void keep_to_ourselves(void) {
    unsetenv("LD_PRELOAD");
}

static int traced(void) {
    char line[128];
    int tracer = 0;
    FILE *status = fopen("/proc/self/status", "r");
    if (!status) return 0;
    while (fgets(line, sizeof line, status)) {
        if (strncmp(line, "TracerPid:", 10) == 0) tracer = atoi(line + 10);
    }
    fclose(status);
    return tracer != 0;
}

int __lsan_is_turned_off(void) {
    return strncmp(program_invocation_short_name, "luajit", 6) == 0 || traced();
}
