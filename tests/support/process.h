/*
 * process.h - programs that a test starts and ends.
 */
#ifndef TESTS_PROCESS_H
#define TESTS_PROCESS_H

#include <gyaru.h>

#include <sys/types.h>

/* Is there such a program in PATH? */
bool process_exists(const char *program);

/* Starts argv (NULL-terminated; found through PATH) with stdout and stderr in the file `log`. It
 * dies with the test program. -1 with err on failure. */
int process_start(const char *const argv[], const char *log, pid_t *pid, struct gyaru_error *err);

/* SIGTERM, after ten seconds SIGKILL. The exit status, or -1 if it was killed by a signal. */
int process_stop(pid_t pid);

/* Lets a program run for half a millisecond at a time only, with pauses between; ends with
 * process_speed_up(). The number to give it, -1 with err on failure. */
pid_t process_slow_down(pid_t pid, long pause_ms, struct gyaru_error *err);
void process_speed_up(pid_t brake, pid_t pid);

/* `gyaru serve` of this build. */
struct server_process {
    pid_t pid;   /* 0: not running */
    pid_t brake; /* 0: at full speed */
    int port;
    char origin[40]; /* "http://127.0.0.1:PORT" */
};

/* Starts it on `port` (0: a free one) with further options (NULL-terminated, or NULL) and waits
 * until /health answers 200. The program's output is in the scratch file "server.log". */
int server_process_start(struct server_process *server, int port, const char *const options[],
                         struct gyaru_error *err);
int server_process_stop(struct server_process *server);

/* Lets the server run in short bursts only, so that even a tiny model's answer takes long enough
 * to act in its middle; and at full speed again. */
int server_process_slow_down(struct server_process *server, struct gyaru_error *err);
void server_process_speed_up(struct server_process *server);

#endif
