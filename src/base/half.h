/*
 * half.h - 16-bit floating point: IEEE binary16 and bfloat16 to float and back.
 */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float half_float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline float bf16_to_float(uint16_t bits)
{
    return half_float_of((uint32_t)bits << 16);
}

static inline float half_to_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
    uint32_t magnitude = bits & 0x7fff;
    if (magnitude >= 0x7c00) /* Inf and NaN keep their payload */
        return half_float_of(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
    /* Scaling by 2^112 moves the exponent's bias and normalises subnormals, both exactly. */
    float value = half_float_of(magnitude << 13) * 0x1p112f;
    return sign ? -value : value;
}

/* Rounds to nearest even; beyond 65504 becomes Inf. */
static inline uint16_t half_from_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return sign | 0x7e00;
    if (magnitude >= 0x477ff000)
        return sign | 0x7c00;
    if (magnitude < 0x38800000) { /* subnormal: adding 0.5 rounds at 2^-24 */
        float shifted = half_float_of(magnitude) + 0.5f;
        uint32_t low;
        memcpy(&low, &shifted, sizeof low);
        return sign | (uint16_t)(low & 0x7fff);
    }
    uint32_t rounded = magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1);
    return sign | (uint16_t)(rounded >> 13);
}

#endif
