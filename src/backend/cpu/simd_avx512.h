/* simd_avx512.h - sixteen float32 lanes as one register. Same names as its two siblings. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define KERNELS_NAME kernels_avx512
#define KERNELS_TEXT "avx512"
/* Rows of x that share one pass over decoded weights: 2 accumulators each out of 32 registers. */
#define KERNEL_ROWS 8

typedef __m512 v16;
typedef __m512i v16_words;
typedef struct {
    __m512 map;
} v16_lut;

#define INLINE static inline __attribute__((always_inline))

INLINE v16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
INLINE v16 v16_set1(float a)
{
    return _mm512_set1_ps(a);
}
INLINE v16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
INLINE void v16_store(float *p, v16 a)
{
    _mm512_storeu_ps(p, a);
}
INLINE v16 v16_add(v16 a, v16 b)
{
    return _mm512_add_ps(a, b);
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    return _mm512_sub_ps(a, b);
}
INLINE v16 v16_div(v16 a, v16 b)
{
    return _mm512_div_ps(a, b);
}
/* b where one of them is no number */
INLINE v16 v16_max(v16 a, v16 b)
{
    return _mm512_max_ps(a, b);
}
INLINE v16 v16_min(v16 a, v16 b)
{
    return _mm512_min_ps(a, b);
}
INLINE v16 v16_round(v16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a * 2^k of whole k, -126..127 */
INLINE v16 v16_scale(v16 a, v16 k)
{
    return _mm512_scalef_ps(a, k);
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    return _mm512_mul_ps(a, b);
}
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
INLINE float v16_sum(v16 a)
{
    return _mm512_reduce_add_ps(a);
}
INLINE float v16_most(v16 a)
{
    return _mm512_reduce_max_ps(a);
}
/* The sums of sixteen: neighbours are merged pair by pair, until each sum has its lane. */
INLINE v16 v16_sums(const v16 in[16])
{
    v16 pair[8], four[4];
    for (int i = 0; i < 8; i++)
        pair[i] = v16_add(_mm512_unpacklo_ps(in[2 * i], in[2 * i + 1]),
                          _mm512_unpackhi_ps(in[2 * i], in[2 * i + 1]));
    for (int i = 0; i < 4; i++) {
        __m512d a = _mm512_castps_pd(pair[2 * i]), b = _mm512_castps_pd(pair[2 * i + 1]);
        four[i] = v16_add(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                          _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
    }
    v16 low = v16_add(_mm512_shuffle_f32x4(four[0], four[1], 0x88),
                      _mm512_shuffle_f32x4(four[0], four[1], 0xdd));
    v16 high = v16_add(_mm512_shuffle_f32x4(four[2], four[3], 0x88),
                       _mm512_shuffle_f32x4(four[2], four[3], 0xdd));
    return v16_add(_mm512_shuffle_f32x4(low, high, 0x88), _mm512_shuffle_f32x4(low, high, 0xdd));
}
INLINE v16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
INLINE v16 v16_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE void v16_store_f16(uint16_t *p, v16 a)
{
    __m256i half = _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256((__m256i *)p, half);
}
INLINE v16_lut v16_lut_load(const float map[16])
{
    return (v16_lut){_mm512_loadu_ps(map)};
}
INLINE v16_words v16_words_load(const uint32_t *p)
{
    return _mm512_loadu_si512(p);
}
/* map[nibble j of each lane's word]; vpermps looks at the low four bits only, so no mask. */
INLINE v16 v16_lookup(v16_lut lut, v16_words words, int j)
{
    return _mm512_permutexvar_ps(_mm512_srli_epi32(words, 4 * (unsigned)j), lut.map);
}

#endif
