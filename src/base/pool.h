/*
 * pool.h - a few threads that do the parts of one loop at a time, for loops of microseconds.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/error.h"

#include <stddef.h>

struct pool;

/* Does [first, end) of a loop; `thread` is 0 (who runs the loop) to threads-1. */
typedef void pool_work(void *arg, size_t first, size_t end, int thread);

/* threads: those that work together, the one that calls pool_run() among them; 1: nobody else. */
int pool_new(int threads, struct pool **out, struct gyaru_error *err);
void pool_free(struct pool *pool); /* NULL is fine */

/* Does 0..n-1 in parts of about `grain`, or more, and returns when all are done. Threads take them
 * as they come, so that one that lost its core holds up no more than the part it has. A loop
 * of one part is done by the caller alone. One loop at a time: loops neither nest nor overlap, but
 * may come from one thread after another. */
void pool_run(struct pool *pool, size_t n, size_t grain, pool_work *work, void *arg);

/* Processors that this process may use. */
int pool_processors(void);

#endif
