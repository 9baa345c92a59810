/* bandwidth.c - see bandwidth.h. */
#include "cli/bandwidth.h"

#include "base/clock.h"

#include <omp.h>
#include <string.h>
#include <sys/mman.h>

#define BUFFER_BYTES ((size_t)512 << 20)
#define PASSES       5

/* Sixteen independent sums: the loads, not the additions, are what takes time. */
typedef uint64_t lanes __attribute__((vector_size(64)));

static uint64_t sum_of(const lanes *data, size_t n)
{
    lanes a = {0}, b = {0};
    for (size_t i = 0; i + 2 <= n; i += 2) {
        __builtin_prefetch((const char *)(data + i) + 2048);
        __builtin_prefetch((const char *)(data + i) + 2112);
        a += data[i];
        b += data[i + 1];
    }
    a += b;
    uint64_t sum = 0;
    for (int i = 0; i < 8; i++)
        sum += a[i];
    return sum;
}

int bandwidth_read(int threads, double *bytes_per_second, struct gyaru_error *err)
{
    lanes *data =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return error_memory(err, BUFFER_BYTES, "measuring the memory");
    madvise(data, BUFFER_BYTES, MADV_HUGEPAGE);
    size_t n_threads = (size_t)(threads > 0 ? threads : omp_get_num_procs());
    size_t part = BUFFER_BYTES / sizeof *data / n_threads;
    double best = 0;
    volatile uint64_t sink = 0;
    for (int pass = 0; pass <= PASSES; pass++) { /* pass 0 touches the pages */
        uint64_t sum = 0;
        double start = clock_seconds();
#pragma omp parallel for schedule(static) num_threads((int)n_threads) reduction(+ : sum)
        for (size_t t = 0; t < n_threads; t++) {
            if (!pass)
                memset(data + t * part, 1, part * sizeof *data);
            sum += sum_of(data + t * part, part);
        }
        double rate = (double)(part * n_threads * sizeof *data) / (clock_seconds() - start);
        sink += sum;
        if (pass && rate > best)
            best = rate;
    }
    munmap(data, BUFFER_BYTES);
    *bytes_per_second = best;
    return 0;
}
