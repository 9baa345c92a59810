/*
 * kv.cuh - elements of the KV cache, whatever their type.
 *
 * [layer][slot][kv head][position][head_dim]; a cache of int8 has beside it one float for each head
 * and position, [layer][slot][kv head][position], which its 127 levels are multiplied by. Who sums
 * over a head's dimensions may multiply the sum once: kv_load() leaves the scale out.
 */
#ifndef CUDA_KV_CUH
#define CUDA_KV_CUH

#include "backend/cuda/kernels.h"
#include "backend/cuda/reduce.cuh"
#include "backend/cuda/rope.cuh"

/* N values from element `at` on, a multiple of N, which is 4 or 8. */
template <int KV, int N>
static __device__ __forceinline__ void kv_load(const void *cache, size_t at, float (&out)[N])
{
    uint32_t words[N / 2];
    if (KV == CUDA_KV_INT8) {
#pragma unroll
        for (int i = 0; i < N / 4; i++)
            words[i] = ((const uint32_t *)((const int8_t *)cache + at))[i];
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = (float)(int8_t)(words[i / 4] >> (i % 4 * 8));
    } else if (KV == CUDA_KV_HALF) {
        if (N == 8) {
            uint4 v = *(const uint4 *)((const uint16_t *)cache + at);
            words[0] = v.x;
            words[1] = v.y;
            words[N / 2 - 2] = v.z;
            words[N / 2 - 1] = v.w;
        } else {
            uint2 v = *(const uint2 *)((const uint16_t *)cache + at);
            words[0] = v.x;
            words[1] = v.y;
        }
#pragma unroll
        for (int i = 0; i < N; i++)
            out[i] = half_value((uint16_t)(words[i / 2] >> (i % 2 * 16)));
    } else
#pragma unroll
        for (int i = 0; i < N; i += 4) {
            float4 v = *(const float4 *)((const float *)cache + at + i);
            out[i] = v.x;
            out[i + 1] = v.y;
            out[i + 2] = v.z;
            out[i + 3] = v.w;
        }
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

/* Dimension d of a head after rope: pairs are (i, i + head_dim/2). read(d): before. */
template <typename READ>
static __device__ __forceinline__ float kv_rotated(const READ &read, const float *rope, int d,
                                                   int half)
{
    const int i = d < half ? d : d - half;
    const float2 turned = rotate(read(i), read(half + i), rope[i], rope[half + i]);
    return d < half ? turned.x : turned.y;
}

/* One head by one warp: `head` counts q's heads, then k's, then v's; read(d) is its dimension d. q
 * [heads, head_dim] of the row gets its head after rope, and may be what is read. rope: of the
 * row's position. */
template <typename READ>
static __device__ __forceinline__ void kv_append_int8(const struct cuda_cache &c, int layer,
                                                      const struct cuda_row &row, const float *rope,
                                                      int head, const READ &read, float *q)
{
    const int lane = threadIdx.x % 32, half = c.head_dim / 2;
    const bool query = head < c.heads, key = head < c.heads + c.kv_heads;
    float values[CUDA_HEAD_DIM / 32];
#pragma unroll
    for (int i = 0; i < CUDA_HEAD_DIM / 32; i++) {
        const int d = lane + 32 * i;
        values[i] = d >= c.head_dim ? 0 : key ? kv_rotated(read, rope, d, half) : read(d);
    }
    __syncwarp();
    if (query) {
#pragma unroll
        for (int i = 0; i < CUDA_HEAD_DIM / 32; i++)
            if (lane + 32 * i < c.head_dim)
                q[head * c.head_dim + lane + 32 * i] = values[i];
        return;
    }
    const int at = (head - c.heads) % c.kv_heads;
    const size_t first = (((size_t)layer * c.slots + row.slot) * c.kv_heads + at) * c.context;
    kv_store_int8(values, c.head_dim, first + row.pos, key ? c.k : c.v,
                  key ? c.k_scale : c.v_scale);
}

#endif
