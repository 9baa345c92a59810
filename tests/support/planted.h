/*
 * planted.h - a tiny model with a style planted in it, and the pairs that lead there: `extract` and
 * `tune` find a strength, where a model of random weights gives them nothing to find.
 */
#ifndef TESTS_PLANTED_H
#define TESTS_PLANTED_H

#define PLANTED_BASE "tests/data/tiny-model" /* what it is made of */

struct planted {
    char model[160];    /* directory of the model */
    char pairs[160];    /* dataset */
    char style[160];    /* whose markers are planted */
    char messages[160]; /* what users say, 40 of them */
    char prompts[160];  /* "butler" and "gyaru", short */
};

/* Writes all of it into the scratch directory. */
void planted_make(struct planted *planted);

#endif
