/* process.c - see process.h. */
#include "process.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "http.h"
#include "scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_SECONDS 30.0 /* a sanitizer build on a busy machine */
#define STOP_SECONDS  10.0
#define ARGS_MAX      32

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

bool process_exists(const char *program)
{
    char *path = strdup(getenv("PATH") ? getenv("PATH") : ""), *rest = NULL;
    bool found = false;
    for (char *dir = strtok_r(path, ":", &rest); dir && !found; dir = strtok_r(NULL, ":", &rest)) {
        char *file = file_join(dir, program);
        found = file && !access(file, X_OK);
        free(file);
    }
    free(path);
    return found;
}

int process_start(const char *const argv[], const char *log, pid_t *pid, struct gyaru_error *err)
{
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(err, log, "opening");
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
        execvp(argv[0], (char *const *)argv);
        _exit(127);
    }
    close(fd);
    if (child < 0)
        return error_errno(err, argv[0], "starting");
    *pid = child;
    return 0;
}

int process_stop(pid_t pid)
{
    int status = 0;
    double deadline = clock_seconds() + STOP_SECONDS;
    kill(pid, SIGTERM);
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (clock_seconds() > deadline)
            kill(pid, SIGKILL);
        pause_ms(10);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int wait_healthy(struct server_process *server, const char *port_file, const char *log,
                        struct gyaru_error *err)
{
    double deadline = clock_seconds() + START_SECONDS;
    while (clock_seconds() < deadline) {
        FILE *file = fopen(port_file, "r");
        int known = file ? fscanf(file, "%d", &server->port) : 0;
        if (file)
            fclose(file);
        if (known == 1) {
            char url[64];
            snprintf(server->origin, sizeof server->origin, "http://127.0.0.1:%d", server->port);
            snprintf(url, sizeof url, "%s/health", server->origin);
            if (http_request("GET", url, NULL, NULL) == 200)
                return 0;
        }
        if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            server->pid = 0;
            return error_set(err, GYARU_FAILED, "the server ended at once: see %s", log);
        }
        pause_ms(20);
    }
    return error_set(err, GYARU_FAILED, "the server did not become ready in %.0f s: see %s",
                     START_SECONDS, log);
}

int server_process_start(struct server_process *server, int port, const char *const options[],
                         struct gyaru_error *err)
{
    const char *build = getenv("BUILD");
    char program[512], port_text[16], port_file[512], log[512];
    const char *argv[ARGS_MAX + 1] = {program,   "serve",       "--port",
                                      port_text, "--port-file", port_file};
    size_t n = 6;
    snprintf(program, sizeof program, "%s/gyaru", build ? build : "build");
    snprintf(port_text, sizeof port_text, "%d", port);
    snprintf(port_file, sizeof port_file, "%s", scratch_path("server.port"));
    snprintf(log, sizeof log, "%s", scratch_path("server.log"));
    for (size_t i = 0; options && options[i] && n < ARGS_MAX; i++)
        argv[n++] = options[i];
    argv[n] = NULL;
    unlink(port_file);
    if (process_start(argv, log, &server->pid, err))
        return -1;
    if (!wait_healthy(server, port_file, log, err))
        return 0;
    server_process_stop(server);
    return -1;
}

pid_t process_slow_down(pid_t pid, long pause, struct gyaru_error *err)
{
    pid_t brake = fork();
    if (brake < 0)
        return error_errno(err, "a process", "starting");
    if (brake == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        /* Where that is allowed it is woken in time on a busy machine, too. */
        setpriority(PRIO_PROCESS, 0, -15);
        while (!kill(pid, SIGSTOP)) {
            pause_ms(pause);
            kill(pid, SIGCONT);
            nanosleep(&(struct timespec){0, 500000}, NULL);
        }
        _exit(0);
    }
    return brake;
}

void process_speed_up(pid_t brake, pid_t pid)
{
    kill(brake, SIGKILL);
    waitpid(brake, NULL, 0);
    kill(pid, SIGCONT);
}

int server_process_slow_down(struct server_process *server, struct gyaru_error *err)
{
    pid_t brake = process_slow_down(server->pid, 60, err);
    if (brake < 0)
        return -1;
    server->brake = brake;
    return 0;
}

void server_process_speed_up(struct server_process *server)
{
    if (server->brake)
        process_speed_up(server->brake, server->pid);
    server->brake = 0;
}

int server_process_stop(struct server_process *server)
{
    server_process_speed_up(server);
    int rc = server->pid ? process_stop(server->pid) : 0;
    server->pid = 0;
    return rc;
}
