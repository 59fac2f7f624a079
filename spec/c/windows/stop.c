/* stop.c: runs a program on Windows and stops it after a while, as timeout(1) does elsewhere:
 *
 *   stop INT|KILL MILLISECONDS|FILE PROGRAM ARGUMENT...
 *
 * FILE: as soon as there is one of that name. INT is what Ctrl-C sends: to all processes of a
 * console, so this program starts itself once more with one of its own, unseen. KILL ends it at
 * once. Ends with the program's exit status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static int fail(const char *what) {
    fprintf(stderr, "stop: %s: error %lu\n", what, GetLastError());
    return 99;
}

static BOOL WINAPI ignore(DWORD event) {
    (void)event;
    return TRUE;
}

/* What follows the first `skip` words of the command line, as it was quoted. */
static char *rest_of(char *line, int skip) {
    while (skip-- > 0) {
        int quoted = 0;
        for (; *line && (quoted || *line != ' '); line++)
            if (*line == '"') quoted = !quoted;
        while (*line == ' ') line++;
    }
    return line;
}

/* On a busy machine wine fails to start a process now and then, with ERROR_INTERNAL_ERROR. */
static HANDLE start(char *line, DWORD flags) {
    PROCESS_INFORMATION process;
    STARTUPINFOA how;
    memset(&how, 0, sizeof how);
    how.cb = sizeof how;
    how.dwFlags = STARTF_USESTDHANDLES;
    how.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    how.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    how.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    for (int tries = 50;
         !CreateProcessA(NULL, line, NULL, NULL, TRUE, flags, NULL, NULL, &how, &process);
         tries--) {
        if (!tries || GetLastError() != ERROR_INTERNAL_ERROR) return NULL;
        Sleep(100);
    }
    CloseHandle(process.hThread);
    return process.hProcess;
}

static int end_of(HANDLE process) {
    DWORD status = 99;
    WaitForSingleObject(process, INFINITE);
    GetExitCodeProcess(process, &status);
    return (int)status;
}

/* Whether the program has to be stopped; else it has ended. */
static BOOL is_time(HANDLE program, const char *when) {
    char *rest;
    DWORD milliseconds = strtoul(when, &rest, 10);
    if (!*rest) return WaitForSingleObject(program, milliseconds) == WAIT_TIMEOUT;
    while (GetFileAttributesA(when) == INVALID_FILE_ATTRIBUTES)
        if (WaitForSingleObject(program, 10) != WAIT_TIMEOUT) return FALSE;
    return TRUE;
}

int main(int argc, char **argv) {
    char line[8192];
    if (argc < 4) return fail("usage: stop INT|KILL MILLISECONDS|FILE PROGRAM ARGUMENT...");
    if (!getenv("STOP_HAS_CONSOLE")) {
        SetEnvironmentVariableA("STOP_HAS_CONSOLE", "1");
        snprintf(line, sizeof line, "%s", GetCommandLineA());
        HANDLE self = start(line, CREATE_NO_WINDOW);
        return self ? end_of(self) : fail("cannot start itself");
    }
    snprintf(line, sizeof line, "%s", rest_of(GetCommandLineA(), 3));
    HANDLE program = start(line, 0);
    if (!program) return fail(line);
    SetConsoleCtrlHandler(ignore, TRUE);
    if (!is_time(program, argv[2])) return end_of(program);
    if (strcmp(argv[1], "KILL") == 0) TerminateProcess(program, 137);
    else if (!GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0)) return fail("cannot send Ctrl-C");
    return end_of(program);
}
