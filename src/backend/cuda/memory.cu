/*
 * memory.cu - reads and copies, for how fast the memory is: what decoding is measured against.
 */
#include "backend/cuda/kernels.h"
#include "backend/cuda/ptx.cuh"

#define THREADS 512
#define FLIGHT  4 /* loads of a thread before the first is used */

struct memory_args {
    const uint4 *from;
    uint4 *to;
    size_t n;
    uint32_t *sink;
};

/* use(place, value) for all that the thread reads, FLIGHT loads of which are on their way at once.
 */
template <class USE>
static __device__ __forceinline__ void each_flight(const struct memory_args &a, USE use)
{
    const size_t stride = (size_t)gridDim.x * THREADS;
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (; i + (FLIGHT - 1) * stride < a.n; i += FLIGHT * stride) {
        uint4 v[FLIGHT];
#pragma unroll
        for (int j = 0; j < FLIGHT; j++)
            v[j] = load_once(a.from + i + j * stride);
#pragma unroll
        for (int j = 0; j < FLIGHT; j++)
            use(i + j * stride, v[j]);
    }
}

static __global__ void __launch_bounds__(THREADS)
    read_memory(const __grid_constant__ struct memory_args a)
{
    uint32_t bits = 0;
    each_flight(a, [&](size_t, const uint4 &v) { bits |= v.x | v.y | v.z | v.w; });
    if (bits == 1) /* the memory holds zeros */
        *a.sink = bits;
}

static __global__ void __launch_bounds__(THREADS)
    copy_memory(const __grid_constant__ struct memory_args a)
{
    each_flight(a, [&](size_t i, const uint4 &v) { a.to[i] = v; });
}

void cuda_read_memory(const void *from, size_t n, uint32_t *sink, int blocks, cudaStream_t stream)
{
    struct memory_args a = {(const uint4 *)from, NULL, n, sink};
    launch(read_memory, dim3(blocks), THREADS, 0, stream, a);
}

void cuda_copy_memory(const void *from, void *to, size_t n, int blocks, cudaStream_t stream)
{
    struct memory_args a = {(const uint4 *)from, (uint4 *)to, n, NULL};
    launch(copy_memory, dim3(blocks), THREADS, 0, stream, a);
}
