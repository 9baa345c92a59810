/*
 * json.h - reading JSON that nobody vouches for, on top of jansson.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/error.h"

#include <jansson.h>

/* Parses text (duplicate keys refused); `name` stands in the message. NULL on failure. */
json_t *json_parse(const char *text, size_t len, const char *name, struct gyaru_error *err);

/* The same, but strings may contain NUL: for text that is used with its length. */
json_t *json_parse_text(const char *text, size_t len, const char *name, struct gyaru_error *err);

/* Parses a file of at most `limit` bytes. NULL on failure. */
json_t *json_parse_file(const char *path, size_t limit, struct gyaru_error *err);

#endif
