/*
 * scale.cuh - the power of two by which a row of x is multiplied before it becomes fp16, and 16-bit
 * values of either kind.
 */
#ifndef CUDA_SCALE_CUH
#define CUDA_SCALE_CUH

#include "backend/cuda/ptx.cuh"

/* 2^e with |e| <= 100. */
static __device__ __forceinline__ float power_of_two(int e)
{
    return __uint_as_float((uint32_t)(127 + e) << 23);
}

/* The exponent that brings `most` near 2^13: fp16 then neither overflows nor loses small values. */
static __device__ __forceinline__ int exponent_for(float most)
{
    int e = (int)(__float_as_uint(most) >> 23 & 255) - 127;
    if (e == 128 || most == 0)
        return 0; /* Inf and NaN stay what they are */
    e = 13 - e;
    return e > 100 ? 100 : e < -100 ? -100 : e;
}

template <bool BF16> static __device__ __forceinline__ uint16_t to_16(float v)
{
    return BF16 ? bf16_bits(v) : half_bits(v);
}

/* Two in a word, the first in its lower half. */
template <bool BF16> static __device__ __forceinline__ uint32_t two_16(float low, float high)
{
    return BF16 ? bf16_bits2(low, high) : half_bits2(low, high);
}

template <bool BF16> static __device__ __forceinline__ float from_16(uint16_t v)
{
    return BF16 ? bf16_value(v) : half_value(v);
}

#endif
