/*
 * human.h - numbers as people read them, for tables on stdout.
 */
#ifndef CLI_HUMAN_H
#define CLI_HUMAN_H

#include <stdint.h>

struct human {
    char text[24];
};

struct human human_bytes(uint64_t bytes); /* "1.57 GiB" */
struct human human_count(uint64_t n);     /* "14.77 B" (10^9), "12.3 M" */

#endif
