/*
 * kernels.c - times the kernels of every instruction set side by side: one matrix product of a
 * given number of rows, split over threads as the backend does.
 *
 *     make build/bench/kernels && build/bench/kernels [THREADS [ROWS COLS]]
 *
 * On a shared machine only ratios within one run count: variants take turns, and the best turn of
 * each is shown. The default matrix is larger than any cache: decoding is bound by memory there.
 * Multiply-adds between registers show what is left to gain where memory is not the limit.
 */
#include "backend/cpu/cpu.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef EXTRA_KERNELS /* variants under trial, linked in from elsewhere */
extern const struct cpu_kernels EXTRA_KERNELS;
#endif

#define MAX_ROWS 64
#define TURNS    40

static struct backend_matrix *random_matrix(struct backend_device *device, enum quant_type type,
                                            size_t rows, size_t cols)
{
    struct gyaru_error err;
    struct backend_matrix *m;
    size_t n = rows * cols;
    uint8_t *data = malloc(2 * n);
    float *absmax = malloc(n / 64 * sizeof *absmax);
    struct quant_source s = {.type = type,
                             .rows = rows,
                             .cols = cols,
                             .data = data,
                             .block_size = 64,
                             .absmax = (uint8_t *)absmax};
    if (!data || !absmax)
        exit(1);
    for (size_t i = 0; i < 2 * n; i++) /* bf16 near 2^-7: no infinities */
        data[i] = type == QUANT_4BIT ? (uint8_t)(i * 2654435761u >> 13) : i % 2 ? 0x3c : (uint8_t)i;
    for (size_t i = 0; i < n / 64; i++)
        absmax[i] = 0.01f;
    for (int i = 0; i < 16; i++)
        s.map[i] = (float)(i - 8) / 8;
    if (cpu_matrix_new(device, &s, &m, &err)) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    free(data);
    free(absmax);
    return m;
}

struct product {
    const struct cpu_kernels *kernels;
    const struct backend_matrix *m;
    const float *x;
    int n;
    float *buffers; /* per thread: a decoded group, then the tile */
    size_t stride;  /* floats of one thread's */
};

static void run_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct product *p = arg;
    float *buffer = p->buffers + (size_t)thread * p->stride, *tile = buffer + p->m->cols * TILE;
    for (size_t t = first; t < end; t++)
        p->kernels->tile(p->m, t, p->x, p->m->cols, p->n, tile, buffer);
}

/* Seconds of one product. */
static double time_product(const struct cpu_kernels *kernels, const struct backend_matrix *m,
                           const float *x, int n, struct backend_device *device)
{
    struct product p = {kernels, m, x, n, NULL, (m->cols + MAX_ROWS) * TILE};
    p.buffers = aligned_alloc(64, (size_t)device->threads * p.stride * sizeof(float));
    if (!p.buffers)
        exit(1);
    double start = clock_seconds();
    pool_run(device->pool, m->tiles, cpu_grain(TILE * m->cols * (size_t)n), run_tiles, &p);
    double seconds = clock_seconds() - start;
    free(p.buffers);
    return seconds;
}

typedef uint64_t lanes __attribute__((vector_size(64), may_alias));

struct reading {
    const lanes *data;
    _Atomic uint64_t sum; /* that the loads are not left out */
};

static void read_lanes(void *arg, size_t first, size_t end, int thread)
{
    struct reading *r = arg;
    lanes local = {0};
    for (size_t i = first; i < end; i++) {
        __builtin_prefetch(r->data + 4 * i + 32);
        local += r->data[4 * i] + r->data[4 * i + 1] + r->data[4 * i + 2] + r->data[4 * i + 3];
    }
    r->sum += local[0];
}

/* Seconds to read the matrix and do nothing with it: the ceiling of one row. */
static double time_read(const struct backend_matrix *m, struct backend_device *device)
{
    struct reading reading = {.data = (const lanes *)m->data};
    size_t n = m->bytes / sizeof(lanes);
    if (m->scales)
        n -= m->rows * m->cols / m->group * sizeof(float) / sizeof(lanes);
    double start = clock_seconds();
    pool_run(device->pool, n / 4, 256, read_lanes, &reading);
    return (clock_seconds() - start) * (double)m->bytes / ((double)n * sizeof(lanes));
}

/* ---- the ceiling of many rows --------------------------------------------------------------- */

#if defined(__x86_64__) && defined(__GNUC__)
#define PEAK_CHAINS 12 /* hide the latency of the fma, and leave registers */
#define PEAK_LOOPS  100000

/* Multiply-adds of sixteen floats that read no memory. */
__attribute__((target("avx512f"))) static void multiply_add(void *arg, size_t first, size_t end,
                                                            int thread)
{
    typedef float v16 __attribute__((vector_size(64)));
    v16 a[PEAK_CHAINS] = {{0}}, x = {0}, y = {0};
    for (size_t i = first; i < end; i++)
        for (int n = 0; n < PEAK_LOOPS; n++) {
#pragma GCC unroll 12
            for (int c = 0; c < PEAK_CHAINS; c++)
                __asm__ volatile("vfmadd231ps %1, %2, %0" : "+v"(a[c]) : "v"(x), "v"(y));
        }
}

/* GFLOP/s of all threads together, 0 without AVX-512. */
static double peak(struct backend_device *device)
{
    double best = 0;
    for (int turn = 0; turn < TURNS && __builtin_cpu_supports("avx512f"); turn++) {
        double start = clock_seconds();
        pool_run(device->pool, (size_t)device->threads, 1, multiply_add, NULL);
        double speed =
            2e-9 * TILE * PEAK_CHAINS * PEAK_LOOPS * device->threads / (clock_seconds() - start);
        best = speed > best ? speed : best;
    }
    return best;
}
#else
static double peak(struct backend_device *device)
{
    return 0;
}
#endif

int main(int argc, char **argv)
{
    static const int counts[] = {1, 2, 3, 4, 6, 8, 32, 64};
    static const struct cpu_kernels *const variants[] = {
        &kernels_scalar,
        &kernels_avx2,
        &kernels_avx512,
#ifdef EXTRA_KERNELS
        &EXTRA_KERNELS,
#endif
    };
    enum { N_VARIANTS = sizeof variants / sizeof *variants };
    int threads = argc > 1 ? atoi(argv[1]) : pool_processors();
    size_t rows = argc > 3 ? (size_t)atol(argv[2]) : 27648,
           cols = argc > 3 ? (size_t)atol(argv[3]) : 5120;
    struct gyaru_error err;
    struct backend_device *device;
    if (threads < 1 || !rows || !cols || cols % 64 ||
        cpu_open_kernels(&kernels_scalar, threads, &device, &err))
        return 2;
    double ceiling = peak(device);
    if (ceiling > 0)
        printf("multiply-adds of avx512 alone: %.1f GFLOP/s\n", ceiling);
    float *x = malloc(MAX_ROWS * cols * sizeof *x);
    for (size_t i = 0; x && i < MAX_ROWS * cols; i++)
        x[i] = (float)(i % 17) / 17;
    for (int type = 0; x && type < 2; type++) {
        struct backend_matrix *m =
            random_matrix(device, type ? QUANT_BF16 : QUANT_4BIT, rows, cols);
        printf("%s %zux%zu, %.1f MB, %d threads\n", type ? "bf16" : "4-bit", rows, cols,
               (double)m->bytes / 1e6, threads);
        double read = 1e9;
        for (int turn = 0; turn < TURNS; turn++) {
            double t = time_read(m, device);
            read = t < read ? t : read;
        }
        printf("  plain read         %8.2f ms  %6.1f GB/s\n", 1e3 * read,
               (double)m->bytes / read / 1e9);
        for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
            double best[N_VARIANTS];
            for (int turn = 0; turn < TURNS; turn++)
                for (int v = 0; v < N_VARIANTS; v++) {
                    if (v == 0 && (counts[c] > 2 || turn)) { /* it has nothing to prove */
                        best[v] = turn ? best[v] : 0;
                        if (turn || counts[c] > 2)
                            continue;
                    }
                    double t = time_product(variants[v], m, x, counts[c], device);
                    best[v] = turn && best[v] < t ? best[v] : t;
                }
            for (int v = 0; v < N_VARIANTS; v++)
                if (best[v] > 0)
                    printf("  rows %-3d %-10s %8.2f ms  %6.1f GB/s  %7.1f GFLOP/s\n", counts[c],
                           variants[v]->name, 1e3 * best[v], (double)m->bytes / best[v] / 1e9,
                           2e-9 * (double)rows * (double)cols * counts[c] / best[v]);
        }
        cpu_matrix_free(m);
    }
    free(x);
    cpu_close(device);
    return 0;
}
