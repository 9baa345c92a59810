/*
 * reduce.cuh - sums and maxima over a block, in an order that depends on the block's size alone.
 */
#ifndef CUDA_REDUCE_CUH
#define CUDA_REDUCE_CUH

#include "backend/cuda/ptx.cuh"

static __device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
    return v;
}

/* The two at once. */
static __device__ __forceinline__ void warp_sum_max(float &sum, float &most)
{
#pragma unroll
    for (int o = 16; o; o >>= 1) {
        sum += __shfl_xor_sync(0xffffffffu, sum, o);
        most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, o));
    }
}

/* A value of each warp, by warp, where all threads then see it. */
static __device__ __forceinline__ void leave_warp_value(float v, float *shared)
{
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = v;
    __syncthreads();
}

/* All threads of the block must call; all get the result. `shared` holds 32 floats. */
static __device__ __forceinline__ float block_sum(float v, float *shared)
{
    leave_warp_value(warp_sum(v), shared);
    float total = 0;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        total += shared[i];
    return total;
}

static __device__ __forceinline__ float block_max(float v, float *shared)
{
    leave_warp_value(warp_max(v), shared);
    float most = shared[0];
    for (unsigned i = 1; i < blockDim.x / 32; i++)
        most = fmaxf(most, shared[i]);
    return most;
}

#endif
