/* program.c - see program.h. Output goes through files: no pipe can fill up and block. */
#include "program.h"
#include "scratch.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_ARGUMENTS 40
#define TIME_LIMIT    60 /* seconds */

static void redirect(const char *path, int flags, int fd)
{
    int opened = open(path, flags, 0600);
    if (opened < 0 || dup2(opened, fd) < 0)
        _exit(126);
    close(opened);
}

static int wait_for(pid_t pid)
{
    const struct timespec pause = {0, 5000000};
    time_t end = time(NULL) + TIME_LIMIT;
    int status;
    while (!waitpid(pid, &status, WNOHANG)) {
        if (time(NULL) > end) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            fail_msg("the program did not end within %d s", TIME_LIMIT);
        }
        nanosleep(&pause, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *read_text(const char *path, size_t *len)
{
    char *data = (char *)scratch_read(path, len);
    data[*len] = '\0';
    return data;
}

/* A process that runs the program. */
static pid_t start(const char *const *arguments, const char *in, const char *out, const char *err)
{
    char program[256];
    const char *build = getenv("BUILD");
    const char *argv[MAX_ARGUMENTS + 2] = {"gyaru"};
    int n = 0;
    for (; n < MAX_ARGUMENTS && arguments[n]; n++)
        argv[n + 1] = arguments[n];
    assert_null(arguments[n]);
    snprintf(program, sizeof program, "%s/gyaru", build ? build : "build");
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("fork failed");
    if (pid)
        return pid;
    redirect(in, O_RDONLY, STDIN_FILENO);
    redirect(out, O_WRONLY | O_CREAT | O_TRUNC, STDOUT_FILENO);
    redirect(err, O_WRONLY | O_CREAT | O_TRUNC, STDERR_FILENO);
    execv(program, (char **)argv);
    _exit(127);
}

void program_run(struct program_result *result, const char *input, const char *const *arguments)
{
    const char *in = scratch_write("program.in", input ? input : "", input ? strlen(input) : 0);
    const char *out = scratch_path("program.out"), *err = scratch_path("program.err");
    result->code = wait_for(start(arguments, in, out, err));
    result->out = read_text(out, &result->out_len);
    result->err = read_text(err, &result->err_len);
    if (result->code == 127)
        fail_msg("the program cannot be run: build it first");
}

json_t *program_json(const char *const *arguments)
{
    struct program_result r;
    json_error_t error;
    program_run(&r, NULL, arguments);
    if (r.code)
        fail_msg("%s: exit code %d: %s", arguments[0], r.code, r.err);
    json_t *json = json_loads(r.out, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        fail_msg("not one JSON document: %s: %s", error.text, r.out);
    program_release(&r);
    return json;
}

bool program_kill_after(const char *const *arguments, double seconds)
{
    int status;
    struct timespec pause = {.tv_sec = (time_t)seconds};
    pause.tv_nsec = (long)((seconds - (double)pause.tv_sec) * 1e9);
    pid_t pid = start(arguments, "/dev/null", "/dev/null", "/dev/null");
    nanosleep(&pause, NULL);
    kill(pid, SIGKILL);
    waitpid(pid, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status))
        fail_msg("the program ended with code %d before it was killed", WEXITSTATUS(status));
    return WIFSIGNALED(status);
}

void program_release(struct program_result *result)
{
    free(result->out);
    free(result->err);
    *result = (struct program_result){0};
}

/* "loading: 82%, 10 s left" and the like, which a busy machine makes appear. */
static const char *skip_progress(const char *text)
{
    for (const char *end; (end = strchr(text, '\n')); text = end + 1)
        if (end - text < 7 || memcmp(end - 7, " s left", 7))
            break;
    return text;
}

void program_check_error(const struct program_result *result, int code, const char *part)
{
    if (result->code != code)
        fail_msg("exit code %d instead of %d: %s", result->code, code, result->err);
    const char *line = skip_progress(result->err), *end = strchr(line, '\n');
    if (strncmp(line, "gyaru", 5))
        fail_msg("no error of ours: '%s'", result->err);
    if (!end || end[1])
        fail_msg("not one line: '%s'", result->err);
    if (!strstr(line, part))
        fail_msg("'%s' lacks '%s'", line, part);
}
