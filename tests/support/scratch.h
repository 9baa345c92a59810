/*
 * scratch.h - files for tests, in a directory of their own that goes with the program; and the
 * check that an error reads as every error must.
 */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <gyaru.h>

/* Path of a file in the scratch directory; a ring of eight buffers. */
const char *scratch_path(const char *name);

/* Writes the file and gives its path. */
const char *scratch_write(const char *name, const void *data, size_t len);

/* All bytes of a file (caller frees); fails the test if it cannot be read. */
uint8_t *scratch_read(const char *path, size_t *len);

/* The file as a text up to its first NUL (caller frees). */
char *scratch_text(const char *path);

/* Does the file hold exactly this text? */
bool scratch_holds(const char *path, const char *text);

/* One line with every part in it (NULL ends the parts). */
void check_error(const struct gyaru_error *err, enum gyaru_status status, ...);

#endif
