/*
 * cpu.h - what the files of the CPU backend share.
 */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "backend/backend.h"
#include "backend/cpu/kernels.h"
#include "base/pool.h"

#define CPU_WORTH_SHARING 100000 /* multiplications: 2 to 3 us of one core */

struct backend_device {
    int threads;
    struct pool *pool; /* of so many */
    const struct cpu_kernels *kernels;
    char text[64]; /* "avx512, 2 threads" */
};

uint64_t cpu_matrix_bytes(const struct backend_device *device, const struct quant_source *source);
int cpu_matrix_new(struct backend_device *device, const struct quant_source *source,
                   struct backend_matrix **out, struct gyaru_error *err);
void cpu_matrix_free(struct backend_matrix *m);

/* Units of a loop that are worth handing to another thread: to take them there and wait for their
 * end costs about a microsecond. `multiplications`: what one unit takes. */
static inline size_t cpu_grain(size_t multiplications)
{
    return CPU_WORTH_SHARING / (multiplications + 1) + 1;
}

/* Row `row` of the matrix as float32 into out [cols]: the embedding lookup. */
void cpu_matrix_row(const struct backend_matrix *m, size_t row, float *out);

/* With kernels of the caller's choice, for tests and timings. */
int cpu_open_kernels(const struct cpu_kernels *kernels, int threads, struct backend_device **out,
                     struct gyaru_error *err);

int cpu_open(int index, int threads, struct backend_device **out, struct gyaru_error *err);
void cpu_close(struct backend_device *device);
const char *cpu_describe(const struct backend_device *device);
void cpu_memory(const struct backend_device *device, struct backend_memory *out);

#endif
