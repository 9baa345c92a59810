/*
 * rope.cuh - one pair of dimensions at a position: rotated, and into the KV cache.
 */
#ifndef CUDA_ROPE_CUH
#define CUDA_ROPE_CUH

#include "backend/cuda/kernels.h"
#include "backend/cuda/ptx.cuh"

/* Dimensions (i, i + head_dim/2) of one head, as Hugging Face's Qwen2 rotates them. */
static __device__ __forceinline__ float2 rotate(float x, float y, float cosine, float sine)
{
    return make_float2(fmaf(x, cosine, -(y * sine)), fmaf(y, cosine, x * sine));
}

static __device__ __forceinline__ void cache_store(const struct cuda_cache &c, void *cache,
                                                   size_t at, float value)
{
    if (c.type == CUDA_KV_HALF)
        ((uint16_t *)cache)[at] = half_bits(value);
    else
        ((float *)cache)[at] = value;
}

/* Pair i of a kv head at one position; k and v [head_dim], to: element of the caches. */
static __device__ __forceinline__ void cache_append(const struct cuda_cache &c, size_t to, int i,
                                                    const float *rope, const float *k,
                                                    const float *v)
{
    const int half = c.head_dim / 2;
    float2 turned = rotate(k[i], k[half + i], rope[i], rope[half + i]);
    cache_store(c, c.k, to + i, turned.x);
    cache_store(c, c.k, to + half + i, turned.y);
    cache_store(c, c.v, to + i, v[i]);
    cache_store(c, c.v, to + half + i, v[half + i]);
}

#endif
