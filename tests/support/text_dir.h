/*
 * text_dir.h - throw-away directories with tokenizer files, for tests.
 */
#ifndef TESTS_TEXT_DIR_H
#define TESTS_TEXT_DIR_H

#include <stddef.h>

#define REFERENCE_TOKENIZER "tests/data/reference-tokenizer"

/* Makes a directory under $TMPDIR or /tmp; the path stays valid until text_dir_free(). */
char *text_dir_new(void);

/* Writes DIR/NAME. */
void text_dir_put(const char *dir, const char *name, const char *text, size_t len);

/* Removes the files and the directory. */
void text_dir_free(char *dir);

/* A file of the reference data beside the project ($GYARU_SHARED, else ../shared): its path (static
 * buffer), or NULL after printing a SKIP line. */
const char *shared_file(const char *name);

#endif
