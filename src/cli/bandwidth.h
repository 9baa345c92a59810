/*
 * bandwidth.h - how fast this machine reads memory, the ceiling of decoding.
 */
#ifndef CLI_BANDWIDTH_H
#define CLI_BANDWIDTH_H

#include "base/error.h"

/* Bytes per second of the best of several passes of `threads` threads (0: all cores) over a buffer
 * much larger than any cache. */
int bandwidth_read(int threads, double *bytes_per_second, struct gyaru_error *err);

#endif
