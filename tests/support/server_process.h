/*
 * server_process.h - the real program, serving the tiny checkpoint on a port of its own.
 *
 * Every function fails the running test when something is not as it should be, so that tests read
 * as a sequence of expectations. Servers that a failed test leaves behind die with the test
 * program.
 */
#ifndef TESTS_SERVER_PROCESS_H
#define TESTS_SERVER_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct server_process {
    pid_t pid;
    int port;
};

/* Directory of the checkpoint that servers in tests use. */
const char *test_model_dir(void);

/* Starts `gyaru serve` with the tiny model, its vector, --port 0 and the given options (a list
 * that ends with NULL); waits for the port, and for the model if `ready`. */
void server_process_start(struct server_process *server, bool ready, const char *const *options);

/* Runs `gyaru serve` with exactly these options until it ends by itself; gives its exit code and
 * what it said on stderr. */
int server_process_run(const char *const *options, char *said, size_t size);

/* Waits until /health answers 200; fails after `seconds`. */
void server_process_wait_ready(const struct server_process *server, double seconds);

/* The exit code (-1: it was still there after `seconds` and has been killed; -2: by a signal). */
int server_process_wait(struct server_process *server, double seconds);

/* SIGTERM, then a wait; fails unless it ends with 0. */
void server_process_stop(struct server_process *server);

#endif
