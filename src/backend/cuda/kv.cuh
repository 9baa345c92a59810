/*
 * kv.cuh - elements of the KV cache, whatever their type.
 *
 * [layer][slot][kv head][position][head_dim]; a cache of int8 has beside it one float for each head
 * and position, [layer][slot][kv head][position], which its 127 levels are multiplied by. Who sums
 * over a head's dimensions may multiply the sum once: kv_pair() leaves the scale out.
 */
#ifndef CUDA_KV_CUH
#define CUDA_KV_CUH

#include "backend/cuda/kernels.h"
#include "backend/cuda/reduce.cuh"

/* Two neighbouring elements; `at` is even. */
template <int KV> static __device__ __forceinline__ float2 kv_pair(const void *cache, size_t at)
{
    if (KV == CUDA_KV_INT8) {
        uint16_t v = *(const uint16_t *)((const int8_t *)cache + at);
        return make_float2((float)(int8_t)v, (float)(int8_t)(v >> 8));
    }
    if (KV == CUDA_KV_HALF) {
        uint32_t v = *(const uint32_t *)((const uint16_t *)cache + at);
        return make_float2(half_value((uint16_t)v), half_value((uint16_t)(v >> 16)));
    }
    return *(const float2 *)((const float *)cache + at);
}

/* Of a head at a position, numbered through. */
template <int KV>
static __device__ __forceinline__ float kv_scale(const float *scales, size_t position)
{
    return KV == CUDA_KV_INT8 ? scales[position] : 1.0f;
}

/* A head's `head_dim` values as int8, by one warp: lane holds those of dimensions lane + 32 i. */
static __device__ __forceinline__ void kv_store_int8(const float (&values)[CUDA_HEAD_DIM / 32],
                                                     int head_dim, size_t position, void *cache,
                                                     float *scales)
{
    const int lane = threadIdx.x % 32;
    float most = 0;
#pragma unroll
    for (int i = 0; i < CUDA_HEAD_DIM / 32; i++)
        most = fmaxf(most, lane + 32 * i < head_dim ? fabsf(values[i]) : 0);
    most = warp_max(most);
    const float inverse = most > 0 ? 127.0f / most : 0;
#pragma unroll
    for (int i = 0; i < CUDA_HEAD_DIM / 32; i++)
        if (lane + 32 * i < head_dim)
            ((int8_t *)cache)[position * head_dim + lane + 32 * i] =
                (int8_t)rintf(values[i] * inverse);
    if (lane == 0)
        scales[position] = most / 127.0f;
}

#endif
