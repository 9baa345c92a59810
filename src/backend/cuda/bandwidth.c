/*
 * bandwidth.c - how fast the device reads and copies its memory.
 */
#include "backend/cuda/cuda.h"

#include "base/clock.h"

#define MOST_BYTES ((size_t)2 << 30) /* of a buffer: far more than any cache */
#define ROUNDS     7
#define LAUNCHES   8 /* of a round: the wait at its end must not count */

struct buffers {
    void *from, *to;
    size_t n; /* entries */
};

/* The best of several rounds, bytes per second. */
static int time_rounds(struct backend_device *d, const struct buffers *b, bool copy, double *out,
                       struct gyaru_error *err)
{
    double best = 0, bytes = (double)b->n * CUDA_MEMORY_ENTRY * LAUNCHES * (copy ? 2 : 1);
    int blocks = d->multiprocessors * 4;
    for (int round = 0; round < ROUNDS; round++) {
        double start = clock_seconds();
        for (int i = 0; i < LAUNCHES; i++)
            if (copy)
                cuda_copy_memory(b->from, b->to, b->n, blocks, d->stream);
            else
                cuda_read_memory(b->from, b->n, (uint32_t *)b->to, blocks, d->stream);
        if (cuda_check(cudaStreamSynchronize(d->stream), "measuring the memory", err))
            return -1;
        double rate = bytes / (clock_seconds() - start);
        best = rate > best ? rate : best;
    }
    *out = best;
    return 0;
}

int cuda_bandwidth(struct backend_device *d, double *read, double *copy, struct gyaru_error *err)
{
    struct backend_memory memory;
    struct buffers b = {0};
    cuda_memory(d, &memory);
    size_t bytes = (size_t)(memory.available / 32);
    bytes = bytes < MOST_BYTES ? bytes : MOST_BYTES;
    b.n = bytes / CUDA_MEMORY_ENTRY;
    bytes = b.n * CUDA_MEMORY_ENTRY;
    if (!bytes)
        return error_set(err, GYARU_NO_MEMORY, "cuda: no memory is left to measure it with");
    int rc = cuda_check(cudaMalloc(&b.from, bytes), "memory to measure", err);
    if (!rc)
        rc = cuda_check(cudaMalloc(&b.to, bytes), "memory to measure", err);
    if (!rc)
        rc = cuda_check(cudaMemsetAsync(b.from, 0, bytes, d->stream), "memory to measure", err);
    if (!rc)
        rc = time_rounds(d, &b, false, read, err);
    if (!rc)
        rc = time_rounds(d, &b, true, copy, err);
    (void)cudaFree(b.from);
    (void)cudaFree(b.to);
    return rc;
}
