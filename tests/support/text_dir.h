/*
 * text_dir.h - throw-away directories with tokenizer files, for tests.
 */
#ifndef TESTS_TEXT_DIR_H
#define TESTS_TEXT_DIR_H

#include <gyaru.h>
#include <jansson.h>

#define REFERENCE_TOKENIZER "tests/data/reference-tokenizer"

/* Makes a directory under $TMPDIR or /tmp; the path stays valid until text_dir_free(). */
char *text_dir_new(void);

/* Writes DIR/NAME. */
void text_dir_put(const char *dir, const char *name, const char *text, size_t len);

/* The tokenizer of a directory; fails the test if it is refused. */
struct gyaru_tokenizer *text_dir_open(const char *dir);

/* A JSON file (caller's reference); fails the test if it is none. */
json_t *text_dir_json(const char *path);

/* Removes the files and the directory. */
void text_dir_free(char *dir);

/* A file of the reference data beside the project ($GYARU_SHARED, else ../shared): its path (static
 * buffer), or NULL after printing a SKIP line. */
const char *shared_file(const char *name);

#endif
