/*
 * test_server.h - the real program, serving the tiny checkpoint on a port of its own.
 *
 * Every function fails the running test when something is not as it should be, so that tests read
 * as a sequence of expectations. Servers that a failed test leaves behind die with the test
 * program.
 */
#ifndef TESTS_TEST_SERVER_H
#define TESTS_TEST_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct test_server {
    pid_t pid;
    int port;
    char log[300]; /* path of what it prints */
};

/* Directory of the checkpoint that servers in tests use. */
const char *test_model_dir(void);

/* Starts `gyaru serve` with the tiny model, its vector, --port 0 and the given options (a list
 * that ends with NULL); waits for the port, and for the model if `ready`. */
void test_server_start(struct test_server *server, bool ready, const char *const *options);

/* Waits until /health answers 200; fails after `seconds`. */
void test_server_wait_ready(const struct test_server *server, double seconds);

/* The exit code (-1: it was still there after `seconds` and has been killed; -2: by a signal). */
int test_server_wait(struct test_server *server, double seconds);

/* SIGTERM, then a wait; fails unless it ends with 0. */
void test_server_stop(struct test_server *server);

#endif
