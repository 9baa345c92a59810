/*
 * meter.h - the gyaru meter in a terminal: a bar under the answer.
 */
#ifndef CLI_METER_H
#define CLI_METER_H

#include <stdio.h>

/* Prints raw cosine and calibrated gauge (NaN: left out) as one line with a bar: cyan below 0.30,
 * pink up to 0.50, red above; no colour under NO_COLOR or TERM=dumb. */
void meter_print(FILE *out, float cosine, float gauge, float strength);

#endif
