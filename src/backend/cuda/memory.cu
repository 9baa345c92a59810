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

static __global__ void __launch_bounds__(THREADS)
    read_memory(const __grid_constant__ struct memory_args a)
{
    const size_t stride = (size_t)gridDim.x * THREADS;
    uint32_t bits = 0;
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x;
    for (; i + (FLIGHT - 1) * stride < a.n; i += FLIGHT * stride) {
        uint4 v[FLIGHT];
#pragma unroll
        for (int j = 0; j < FLIGHT; j++)
            v[j] = load_once(a.from + i + j * stride);
#pragma unroll
        for (int j = 0; j < FLIGHT; j++)
            bits |= v[j].x | v[j].y | v[j].z | v[j].w;
    }
    if (bits == 1) /* the memory holds zeros */
        *a.sink = bits;
}

static __global__ void __launch_bounds__(THREADS)
    copy_memory(const __grid_constant__ struct memory_args a)
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
            a.to[i + j * stride] = v[j];
    }
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
