/* replay.c: cuts the power of a recording at many points, and checks what is left.
 *
 *   replay MODEL IMAGE RECORD WORK CUTS SEED COMMAND...
 *
 *   MODEL    strict, or the file system that was on the disk: ext4, xfs, btrfs
 *   IMAGE    the disk at first (any word for strict)
 *   WORK     an empty directory
 *   CUTS     how many; or POSITION:MODE:SEED of one violation, to see it again
 *   COMMAND  is run with two more arguments: the directory that is left and a file with the marks
 *            made before the cut. 0: all that was acknowledged is there; 1: it is not, and the
 *            output says what; else the check itself is broken.
 *
 * Cuts lie between the marks "start" and "end". Prints violations and at last one line of
 * figures. Exit status: 0 no violation, 1 violations, 2 it could not be judged. */
#define _GNU_SOURCE
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CHECK_SECONDS = 120 };

struct cut {
    size_t at;
    enum keep keep;
    uint64_t seed;
};

/* The check: its words, ended by the directory and the file with the marks. */
struct command {
    char **words, **directory;
    const char *marks;
};

struct figures {
    size_t cuts, violations, acknowledged, with_pending, with_loss;
};

static const char *const keep_names[KEEP_MODES] = {"none", "all", "prefix", "some", "torn"};

_Noreturn static void stop(const char *what, const char *why) {
    fprintf(stderr, "powercut: %s: %s\n", what, why);
    exit(2);
}

/* ---- choices -------------------------------------------------------------------------------- */

uint64_t choose(uint64_t *state) { /* splitmix64 */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static int chance(struct choice *choice, unsigned percent) {
    return choose(&choice->state) % 100 < percent;
}

int choose_one(struct choice *choice) {
    int keep =
        choice->keep == KEEP_ALL || (choice->keep >= KEEP_SOME && chance(choice, choice->percent));
    choice->pending++;
    choice->kept += (size_t)keep;
    return keep;
}

int choose_torn(struct choice *choice, size_t length) {
    return choice->keep == KEEP_TORN && length > SECTOR && chance(choice, 50);
}

int choose_sector(struct choice *choice) { return chance(choice, 50); }

static struct choice choice_of(const struct cut *cut) {
    static const unsigned percent[] = {5, 30, 50, 70, 95};
    struct choice choice = {.keep = cut->keep, .state = cut->seed};
    choice.percent = percent[choose(&choice.state) % 5];
    return choice;
}

/* ---- the recording -------------------------------------------------------------------------- */

static struct recording load(const char *path) {
    struct stat st;
    struct recording recording = {0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || st.st_size == 0) stop(path, "no record");
    const uint8_t *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) stop(path, strerror(errno));
    close(fd);
    size_t room = 0;
    for (size_t at = 0, end = (size_t)st.st_size; at + sizeof(struct record) <= end;) {
        if (recording.count == room) {
            room = room ? 2 * room : 4096;
            recording.events = realloc(recording.events, room * sizeof *recording.events);
            if (!recording.events) stop("memory", strerror(errno));
        }
        struct event *event = &recording.events[recording.count++];
        memcpy(&event->record, bytes + at, sizeof event->record);
        at += sizeof event->record;
        event->data = bytes + at;
        at += event->record.length;
        if (at > end) stop(path, "the record is cut short");
    }
    return recording;
}

static int is_mark(const struct event *event, const char *text) {
    return event->record.kind == RECORD_MARK &&
           (!text || (event->record.length == strlen(text) &&
                      memcmp(event->data, text, event->record.length) == 0));
}

static size_t find_mark(const struct recording *recording, const char *text) {
    for (size_t i = 0; i < recording->count; i++) {
        if (is_mark(&recording->events[i], text)) return i;
    }
    stop(text, "no such mark in the record");
}

static int is_change(const struct event *event) {
    return event->record.kind != RECORD_MARK && event->record.kind != RECORD_FLUSH &&
           event->record.kind != RECORD_SYNC;
}

/* ---- the plan ------------------------------------------------------------------------------- */

static int by_position(const void *a, const void *b) {
    const struct cut *x = a, *y = b;
    return x->at < y->at ? -1 : x->at > y->at;
}

/* Two of five directly behind an acknowledgement with nothing else kept, which is where a sync
 * left out shows; the others there with some of it kept, in the middle of a change, anywhere. */
static struct cut one_cut(const struct recording *recording, const size_t *marks, size_t mark_count,
                          size_t start, size_t end, uint64_t *state) {
    static const enum keep some[] = {KEEP_TORN, KEEP_TORN, KEEP_SOME, KEEP_PREFIX};
    uint64_t kind = choose(state) % 100;
    struct cut cut = {.seed = choose(state)};
    if (kind < 55) {
        cut.at = marks[choose(state) % mark_count] + 1;
        cut.keep = kind < 40 ? KEEP_NONE : some[choose(state) % 4];
        return cut;
    }
    cut.at = start + 1 + choose(state) % (end - start);
    cut.keep = (enum keep)(choose(state) % KEEP_MODES);
    if (kind < 80) {
        while (cut.at < end && !is_change(&recording->events[cut.at])) cut.at++;
        cut.keep = some[choose(state) % 3];
    }
    return cut;
}

static struct cut *plan(const struct recording *recording, size_t count, uint64_t seed) {
    size_t start = find_mark(recording, "start\n"), end = find_mark(recording, "end\n");
    size_t *marks = calloc(end - start, sizeof *marks), mark_count = 0;
    struct cut *cuts = calloc(count, sizeof *cuts);
    uint8_t *used = calloc(recording->count + 2, 1);
    if (!marks || !cuts || !used) stop("memory", strerror(errno));
    for (size_t i = start + 1; i < end; i++) {
        if (is_mark(&recording->events[i], NULL)) marks[mark_count++] = i;
    }
    if (mark_count == 0) stop("the workload", "it acknowledged nothing");
    uint64_t state = seed;
    for (size_t i = 0; i < count; i++) {
        cuts[i] = one_cut(recording, marks, mark_count, start, end, &state);
        /* The same cut twice is none: nothing kept is the same whatever the seed is. */
        if (cuts[i].keep != KEEP_NONE) continue;
        if (used[cuts[i].at]) cuts[i].keep = KEEP_TORN;
        used[cuts[i].at] = 1;
    }
    qsort(cuts, count, sizeof *cuts, by_position);
    free(marks);
    free(used);
    return cuts;
}

static struct cut *plan_one(const char *text) {
    struct cut *cut = calloc(1, sizeof *cut);
    char name[16];
    unsigned long long seed;
    if (!cut || sscanf(text, "%zu:%15[a-z]:%llu", &cut->at, name, &seed) != 3)
        stop(text, "not POSITION:MODE:SEED");
    while (cut->keep < KEEP_MODES && strcmp(name, keep_names[cut->keep]) != 0) cut->keep++;
    cut->seed = seed;
    return cut;
}

/* ---- checking ------------------------------------------------------------------------------- */

/* The marks before the cut; an unfinished line was not an acknowledgement yet. */
static size_t write_marks(const struct recording *recording, size_t start, size_t at,
                          const char *path) {
    FILE *file = fopen(path, "wb");
    size_t count = 0;
    if (!file) stop(path, strerror(errno));
    for (size_t i = start + 1; i < at; i++) {
        const struct event *event = &recording->events[i];
        if (!is_mark(event, NULL)) continue;
        if (event->data[event->record.length - 1] != '\n') stop("a mark", "not a whole line");
        fwrite(event->data, 1, event->record.length, file);
        count++;
    }
    if (fclose(file) != 0) stop(path, strerror(errno));
    return count;
}

/* The exit status of the command, and the beginning of what it wrote. */
static int run_check(char *const *command, char *said, size_t size) {
    int ends[2], status;
    if (pipe2(ends, O_CLOEXEC) != 0) stop("pipe", strerror(errno));
    pid_t child = fork();
    if (child < 0) stop("fork", strerror(errno));
    if (child == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        alarm(CHECK_SECONDS);
        execvp(command[0], command);
        _exit(127);
    }
    close(ends[1]);
    size_t used = 0;
    char rest[512];
    for (;;) {
        int keeps = used + 1 < size;
        ssize_t n =
            read(ends[0], keeps ? said + used : rest, keeps ? size - used - 1 : sizeof rest);
        if (n <= 0) break;
        if (keeps) used += (size_t)n;
    }
    said[used] = 0;
    close(ends[0]);
    if (waitpid(child, &status, 0) != child) stop("waitpid", strerror(errno));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void try_cut(const struct model *model, const struct recording *recording,
                    const struct cut *cut, size_t marks, const struct command *command,
                    struct figures *figures) {
    char said[2048] = "";
    struct choice choice = choice_of(cut);
    const char *left = model->build(recording, cut->at, &choice, said, sizeof said);
    int status = 1;
    if (left) {
        *command->directory = (char *)(uintptr_t)left;
        status = run_check(command->words, said, sizeof said);
        model->drop();
    }
    figures->cuts++;
    figures->with_pending += choice.pending > 0;
    figures->with_loss += choice.kept < choice.pending;
    if (status == 0) return;
    printf("cut %zu:%s:%llu, %zu marks, %zu of %zu kept: %s%s", cut->at, keep_names[cut->keep],
           (unsigned long long)cut->seed, marks, choice.kept, choice.pending, said,
           said[0] && said[strlen(said) - 1] == '\n' ? "" : "\n");
    if (status != 1) stop("the check", "it failed itself");
    figures->violations++;
}

static struct figures try_all(const struct model *model, const struct recording *recording,
                              const struct cut *cuts, size_t count, const struct command *command) {
    struct figures figures = {0};
    size_t start = find_mark(recording, "start\n");
    model->advance(recording, start);
    model->settle();
    for (size_t i = 0; i < count; i++) {
        model->advance(recording, cuts[i].at);
        size_t marks = write_marks(recording, start, cuts[i].at, command->marks);
        try_cut(model, recording, &cuts[i], marks, command, &figures);
        if (marks > figures.acknowledged) figures.acknowledged = marks;
    }
    return figures;
}

int main(int argc, char **argv) {
    if (argc < 8) stop("usage", "replay MODEL IMAGE RECORD WORK CUTS SEED COMMAND...");
    struct recording recording = load(argv[3]);
    const char *work = argv[4];
    char marks_file[4096];
    snprintf(marks_file, sizeof marks_file, "%s/marks", work);
    const struct model *model =
        strcmp(argv[1], "strict") == 0 ? strict_model(work) : disk_model(work, argv[1], argv[2]);
    size_t count = strchr(argv[5], ':') ? 1 : (size_t)atol(argv[5]);
    struct cut *cuts = strchr(argv[5], ':') ? plan_one(argv[5])
                                            : plan(&recording, count, strtoull(argv[6], NULL, 10));
    struct command command = {calloc((size_t)argc, sizeof *argv), NULL, marks_file};
    if (!command.words) stop("memory", strerror(errno));
    memcpy(command.words, argv + 7, (size_t)(argc - 7) * sizeof *argv);
    command.directory = command.words + argc - 7;
    command.directory[1] = marks_file;
    setvbuf(stdout, NULL, _IOLBF, 0);
    struct figures f = try_all(model, &recording, cuts, count, &command);
    printf("figures: cuts %zu violations %zu acknowledged %zu records %zu with-pending %zu "
           "with-loss %zu seed %s\n",
           f.cuts, f.violations, f.acknowledged, recording.count, f.with_pending, f.with_loss,
           argv[6]);
    return f.violations ? 1 : 0;
}
