/*
 * json.h - reading JSON that nobody vouches for, on top of jansson.
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>

/* Parses text (duplicate keys refused); `name` stands in the message. NULL on failure. */
json_t *json_parse(const char *text, size_t len, const char *name, struct gyaru_error *err);

/* The same, but strings may contain NUL: for text that is used with its length. */
json_t *json_parse_text(const char *text, size_t len, const char *name, struct gyaru_error *err);

/* Parses a file of at most `limit` bytes. NULL on failure. */
json_t *json_parse_file(const char *path, size_t limit, struct gyaru_error *err);

/* The same of a file of a folder. */
json_t *json_parse_file_in(const char *folder, const char *name, size_t limit,
                           struct gyaru_error *err);

/* A field of an object as it is needed in a report: "", NaN and false where there is none, or one
 * of another type. */
const char *json_text_at(const json_t *object, const char *key);
double json_number_at(const json_t *object, const char *key);
bool json_flag_at(const json_t *object, const char *key);

/* A number, null where there is none: JSON knows neither NaN nor infinity. */
json_t *json_finite(double value);

#endif
