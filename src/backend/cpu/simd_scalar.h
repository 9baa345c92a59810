/* simd_scalar.h - sixteen float32 lanes as an array, for any processor. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include "quant/quant.h"

#include <math.h>
#include <stdint.h>

#define KERNELS_NAME kernels_scalar
#define KERNELS_TEXT "scalar"
#define KERNEL_ROWS  2

typedef struct {
    float v[16];
} v16;
typedef struct {
    uint32_t v[16];
} v16_words;
typedef struct {
    const float *map;
} v16_lut;

#define INLINE static inline
#define LANES(e)                                                                                   \
    v16 r;                                                                                         \
    for (int i = 0; i < 16; i++)                                                                   \
        r.v[i] = (e);                                                                              \
    return r

INLINE v16 v16_set1(float a)
{
    LANES(a);
}
INLINE v16 v16_zero(void)
{
    return v16_set1(0);
}
INLINE v16 v16_load(const float *p)
{
    LANES(p[i]);
}
INLINE void v16_store(float *p, v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = a.v[i];
}
INLINE v16 v16_add(v16 a, v16 b)
{
    LANES(a.v[i] + b.v[i]);
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    LANES(a.v[i] - b.v[i]);
}
INLINE v16 v16_div(v16 a, v16 b)
{
    LANES(a.v[i] / b.v[i]);
}
/* b where one of them is no number */
INLINE v16 v16_max(v16 a, v16 b)
{
    LANES(a.v[i] > b.v[i] ? a.v[i] : b.v[i]);
}
INLINE v16 v16_min(v16 a, v16 b)
{
    LANES(a.v[i] < b.v[i] ? a.v[i] : b.v[i]);
}
INLINE v16 v16_round(v16 a)
{
    LANES(rintf(a.v[i]));
}
/* a * 2^k of whole k, -126..127 */
INLINE v16 v16_scale(v16 a, v16 k)
{
    LANES(k.v[i] >= -126 && k.v[i] <= 127 ? ldexpf(a.v[i], (int)k.v[i]) : a.v[i]);
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    LANES(a.v[i] * b.v[i]);
}
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    LANES(a.v[i] * b.v[i] + c.v[i]);
}
INLINE float v16_sum(v16 a)
{
    float s = 0;
    for (int i = 0; i < 16; i++)
        s += a.v[i];
    return s;
}
INLINE float v16_most(v16 a)
{
    float most = a.v[0];
    for (int i = 1; i < 16; i++)
        most = a.v[i] > most ? a.v[i] : most;
    return most;
}
/* The sums of sixteen. */
INLINE v16 v16_sums(const v16 in[16])
{
    LANES(v16_sum(in[i]));
}
INLINE v16 v16_load_f16(const uint16_t *p)
{
    LANES(quant_f16(p[i]));
}
INLINE v16 v16_load_bf16(const uint16_t *p)
{
    LANES(quant_bf16(p[i]));
}
INLINE void v16_store_f16(uint16_t *p, v16 a)
{
    for (int i = 0; i < 16; i++)
        p[i] = quant_to_f16(a.v[i]);
}
INLINE v16_lut v16_lut_load(const float map[16])
{
    return (v16_lut){map};
}
INLINE v16_words v16_words_load(const uint32_t *p)
{
    v16_words r;
    for (int i = 0; i < 16; i++)
        r.v[i] = p[i];
    return r;
}
INLINE v16 v16_lookup(v16_lut lut, v16_words words, int j)
{
    LANES(lut.map[words.v[i] >> (4 * j) & 15]);
}

#undef LANES
#endif
