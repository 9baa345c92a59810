/*
 * random.h - numbers that look random and are the same in every run: one sequence for each program.
 */
#ifndef TESTS_RANDOM_H
#define TESTS_RANDOM_H

#include <stdint.h>

/* The sequence goes on from here; what random_state() gave brings it back to where it was. */
void random_seed(uint64_t state);
uint64_t random_state(void);

uint64_t random_bits64(void); /* the lower ones are poor */
uint32_t random_bits(void);   /* 31 good ones */
float random_float(void);     /* -1..1 */
int random_between(int low, int high);

#endif
