/*
 * program.h - runs the built program and keeps what it said.
 */
#ifndef TESTS_PROGRAM_H
#define TESTS_PROGRAM_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

struct program_result {
    int code;        /* exit code; 128 + signal if one ended it */
    char *out, *err; /* owned, NUL-terminated */
    size_t out_len, err_len;
};

/* $BUILD/gyaru with the arguments (NULL ends them; argv[0] is added) and `input` on its standard
 * input (NULL: empty). Fails the test if it does not end within 60 s. */
void program_run(struct program_result *result, const char *input, const char *const *arguments);
void program_release(struct program_result *result);

/* Runs it without input; wants exit code 0 and exactly one JSON document (caller's reference). */
json_t *program_json(const char *const *arguments);

/* The same with its output thrown away, and SIGKILL after so many seconds: did that end it? Fails
 * the test if it ended by itself with an error. */
bool program_kill_after(const char *const *arguments, double seconds);

/* stderr is, after any progress, one line that begins "gyaru COMMAND: " or "gyaru: ". */
void program_check_error(const struct program_result *result, int code, const char *part);

#endif
