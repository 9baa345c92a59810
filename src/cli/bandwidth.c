/* bandwidth.c - see bandwidth.h. */
#include "cli/bandwidth.h"

#include "base/clock.h"
#include "base/pool.h"

#include <stdatomic.h>
#include <stdbool.h>
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

struct reading {
    lanes *data;
    size_t part; /* lanes of one unit */
    bool touch;
    _Atomic uint64_t sum; /* that the loads are not left out */
};

static void read_parts(void *arg, size_t first, size_t end, int thread)
{
    struct reading *r = arg;
    for (size_t i = first; i < end; i++) {
        lanes *data = r->data + i * r->part;
        if (r->touch)
            memset(data, 1, r->part * sizeof *data);
        r->sum += sum_of(data, r->part);
    }
}

int bandwidth_read(int threads, double *bytes_per_second, struct gyaru_error *err)
{
    lanes *data =
        mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED)
        return error_memory(err, BUFFER_BYTES, "measuring the memory");
    madvise(data, BUFFER_BYTES, MADV_HUGEPAGE);
    threads = threads > 0 ? threads : pool_processors();
    size_t n_parts = (size_t)threads;
    struct pool *pool;
    if (pool_new(threads, &pool, err)) {
        munmap(data, BUFFER_BYTES);
        return -1;
    }
    struct reading reading = {.data = data, .part = BUFFER_BYTES / sizeof *data / n_parts};
    double best = 0;
    for (int pass = 0; pass <= PASSES; pass++) { /* pass 0 touches the pages */
        double start = clock_seconds();
        reading.touch = !pass;
        pool_run(pool, n_parts, 1, read_parts, &reading);
        double rate = (double)(reading.part * n_parts * sizeof *data) / (clock_seconds() - start);
        if (pass && rate > best)
            best = rate;
    }
    pool_free(pool);
    munmap(data, BUFFER_BYTES);
    *bytes_per_second = best;
    return 0;
}
