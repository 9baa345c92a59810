/*
 * human.h - numbers as people read them, for tables on stdout, and what a document has for them.
 */
#ifndef CLI_HUMAN_H
#define CLI_HUMAN_H

#include <jansson.h>
#include <stdint.h>

struct human {
    char text[24];
};

struct human human_bytes(uint64_t bytes); /* "1.57 GiB" */
struct human human_count(uint64_t n);     /* "14.77 B" (10^9), "12.3 M" */

const char *human_text_at(const json_t *object, const char *key); /* or "unknown" */
long long human_int_at(const json_t *object, const char *key);    /* or 0 */
double human_real_at(const json_t *object, const char *key);      /* or 0 */
struct human human_bytes_at(const json_t *object, const char *key);

#endif
