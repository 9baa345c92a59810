/* test_server.c - see test_server.h. */
#include "test_server.h"

#include "scratch.h"
#include "ws_client.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MAX_ARGS 40
/* On a busy machine one thread is the quicker; who looks for races wants more. */
#ifdef __SANITIZE_THREAD__
#define THREADS "2"
#else
#define THREADS "1"
#endif

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void pause_ms(long ms)
{
    nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

const char *test_model_dir(void)
{
    return "tests/data/tiny-model";
}

/* Forks the program; its stderr goes to `log`. */
static pid_t launch(const char *const *args, const char *log)
{
    char program[512];
    const char *build = getenv("BUILD");
    snprintf(program, sizeof program, "%s/gyaru", build && *build ? build : "build");
    if (access(program, X_OK))
        fail_msg("%s is missing: build it first", program);
    pid_t pid = fork();
    if (pid < 0)
        fail_msg("cannot fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(fd, STDERR_FILENO);
        dup2(fd, STDOUT_FILENO);
        execv(program, (char *const *)args);
        _exit(127);
    }
    return pid;
}

static void dump_log(const char *path)
{
    size_t len;
    uint8_t *text = scratch_read(path, &len);
    print_message("%.*s", (int)len, (char *)text);
    free(text);
}

void test_server_start(struct test_server *server, bool ready, const char *const *options)
{
    static int count;
    char name[32], vector[300], port_file[300];
    snprintf(vector, sizeof vector, "%s/vector.safetensors", test_model_dir());
    snprintf(name, sizeof name, "port-%d", ++count);
    snprintf(port_file, sizeof port_file, "%s", scratch_path(name));
    snprintf(name, sizeof name, "log-%d", count);
    snprintf(server->log, sizeof server->log, "%s", scratch_path(name));
    const char *args[MAX_ARGS] = {
        "gyaru",       "serve",   "-m",        test_model_dir(), "-v",     vector, "--port", "0",
        "--port-file", port_file, "--threads", THREADS,          "--temp", "0.9",  "-s",     "5"};
    size_t n = 16;
    for (; options && *options; options++) {
        if (n + 1 >= MAX_ARGS)
            fail_msg("too many options");
        args[n++] = *options;
    }
    server->pid = launch(args, server->log);
    double end = now() + 20;
    while (access(port_file, R_OK)) {
        if (now() > end || waitpid(server->pid, NULL, WNOHANG) == server->pid) {
            dump_log(server->log);
            fail_msg("the server did not start");
        }
        pause_ms(1);
    }
    size_t len;
    uint8_t *text = scratch_read(port_file, &len);
    text[len] = '\0';
    server->port = atoi((char *)text);
    free(text);
    if (ready)
        test_server_wait_ready(server, 20);
}

void test_server_wait_ready(const struct test_server *server, double seconds)
{
    double end = now() + seconds;
    while (http_get(server->port, "/health", NULL) != 200) {
        if (now() > end)
            fail_msg("/health does not answer 200");
        pause_ms(5);
    }
}

int test_server_wait(struct test_server *server, double seconds)
{
    int status;
    double end = now() + seconds;
    while (waitpid(server->pid, &status, WNOHANG) != server->pid) {
        if (now() > end) {
            kill(server->pid, SIGKILL);
            waitpid(server->pid, &status, 0);
            return -1;
        }
        pause_ms(2);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -2;
}

void test_server_stop(struct test_server *server)
{
    kill(server->pid, SIGTERM);
    assert_int_equal(test_server_wait(server, 20), 0);
}
