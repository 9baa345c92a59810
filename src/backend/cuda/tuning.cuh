/*
 * tuning.cuh - switches and clocks of the kernel for whole steps, for builds that measure only
 * (make cuda CUDA_FLAGS=-DCUDA_TUNING); nothing in others.
 *
 * CUDA_TIMES=BLOCK in the environment prints, at exit, where that block's cycles of the last step
 * went: the kernel writes its clock to host memory.
 */
#ifndef CUDA_TUNING_CUH
#define CUDA_TUNING_CUH

#include "backend/cuda/kernels.h"

#ifndef CUDA_TUNING

#define TIMES_FIELD
#define TIME(index, what)
#define TIME_KEY(index, phase)
#define TIME_BEGIN(control)
#define TIME_END()
static void tune(void)
{
}

#else

#include <cstdio>
#include <cstdlib>

#define TIMES 1024 /* phases */

struct phase_times {
    int kind, groups, ran; /* cols/64 of a product */
    long long start, released, packed, run, end;
};

struct times {
    int block;
    long long begun, ended, before, pause; /* ns: this kernel, the end of the one before it */
    struct phase_times phases[TIMES];
};

static __device__ struct times *times_out;
static struct times *times_host;

#define TIMES_FIELD struct times *times; /* NULL: of another block or thread */
#define TIME(index, what)                                                                          \
    if (threadIdx.x == 0 && places().control->times && (index) < TIMES)                            \
    places().control->times->phases[index].what = clock64()
#define TIME_KEY(index, phase)                                                                     \
    if (threadIdx.x == 0 && places().control->times && (index) < TIMES) {                          \
        struct phase_times &t = places().control->times->phases[index];                            \
        t.ran = 1;                                                                                 \
        t.kind = (phase).kind;                                                                     \
        t.groups = (phase).cut.groups * 4 + (phase).finish;                                        \
    }

static __device__ __forceinline__ long long time_now(void)
{
    long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}

/* The kernel's own time, and how long it was since the last one ended. */
#define TIME_BEGIN(control)                                                                        \
    if (threadIdx.x == 0) {                                                                        \
        (control).times = times_out && times_out->block == (int)blockIdx.x ? times_out : nullptr;  \
        if ((control).times) {                                                                     \
            times_out->begun = time_now();                                                         \
            times_out->pause = times_out->begun - times_out->before;                               \
        }                                                                                          \
    }
#define TIME_END()                                                                                 \
    if (threadIdx.x == 0 && places().control->times) {                                             \
        times_out->before = time_now();                                                            \
        times_out->ended = times_out->before - times_out->begun;                                   \
    }

static void print_times(void)
{
    static const char *const kinds[] = {"embed", "product", "attend", "meter"};
    static const char *const finishes[] = {"store", "add", "gate", "pair"};
    const struct phase_times *p = times_host->phases;
    fprintf(stderr, "kernel %.1f us, %.1f us after the one before it\n", times_host->ended * 1e-3,
            times_host->pause * 1e-3);
    fprintf(stderr, "block %d: mean cycles: between, waiting, packing, run, finishing\n",
            times_host->block);
    for (int i = 0; i < TIMES && p[i].ran; i++) {
        double sums[5] = {};
        int count = 0;
        bool before = false;
        for (int j = 0; j < TIMES && p[j].ran; j++) {
            if (p[j].kind != p[i].kind || p[j].groups != p[i].groups)
                continue;
            before = before || j < i;
            long long packed = p[j].packed ? p[j].packed : p[j].released;
            long long run = p[j].run ? p[j].run : p[j].end;
            sums[0] += j ? (double)(p[j].start - p[j - 1].end) : 0;
            sums[1] += (double)(p[j].released - p[j].start);
            sums[2] += (double)(packed - p[j].released);
            sums[3] += (double)(run - packed);
            sums[4] += (double)(p[j].end - run);
            count++;
        }
        if (before)
            continue;
        fprintf(stderr, "%-8s %4d %-6s %3d x", kinds[p[i].kind], p[i].groups / 4,
                finishes[p[i].groups % 4], count);
        for (int k = 0; k < 5; k++)
            fprintf(stderr, " %8.0f", sums[k] / count);
        fprintf(stderr, "\n");
    }
}

static void tune(void)
{
    const char *block = getenv("CUDA_TIMES");
    if (!block || times_host)
        return;
    if (cudaHostAlloc((void **)&times_host, sizeof *times_host, cudaHostAllocDefault))
        return;
    *times_host = {};
    times_host->block = atoi(block);
    if (!cudaMemcpyToSymbol(times_out, &times_host, sizeof times_host))
        atexit(print_times);
}

#endif
#endif
