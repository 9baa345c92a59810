/* simd_avx2.h - sixteen float32 lanes as two registers. Same names as its two siblings. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define KERNELS_NAME kernels_avx2
#define KERNELS_TEXT "avx2"
/* Rows of x that share one pass: 2 accumulators of two registers each; of 16 three are left for
 * weights and x. */
#define KERNEL_ROWS 3

typedef struct {
    __m256 lo, hi;
} v16;
typedef struct {
    __m256i lo, hi;
} v16_words;
typedef struct {
    __m256 lo, hi; /* entries 0..7 and 8..15 */
} v16_lut;

#define INLINE static inline __attribute__((always_inline))

INLINE v16 v16_zero(void)
{
    return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()};
}
INLINE v16 v16_set1(float a)
{
    return (v16){_mm256_set1_ps(a), _mm256_set1_ps(a)};
}
INLINE v16 v16_load(const float *p)
{
    return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}
INLINE void v16_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
INLINE v16 v16_add(v16 a, v16 b)
{
    return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
INLINE v16 v16_sub(v16 a, v16 b)
{
    return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
INLINE v16 v16_div(v16 a, v16 b)
{
    return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
/* b where one of them is no number */
INLINE v16 v16_max(v16 a, v16 b)
{
    return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
INLINE v16 v16_min(v16 a, v16 b)
{
    return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
INLINE v16 v16_round(v16 a)
{
    return (v16){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                 _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/* 2^k from k in the exponent's place. */
INLINE __m256 avx2_power(__m256 k)
{
    __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(k), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
/* a * 2^k of whole k, -126..127 */
INLINE v16 v16_scale(v16 a, v16 k)
{
    return (v16){_mm256_mul_ps(a.lo, avx2_power(k.lo)), _mm256_mul_ps(a.hi, avx2_power(k.hi))};
}
INLINE v16 v16_mul(v16 a, v16 b)
{
    return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
INLINE v16 v16_fma(v16 a, v16 b, v16 c)
{
    return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
INLINE float v16_sum(v16 a)
{
    __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_add_ss(t, _mm_movehdup_ps(t)));
}
INLINE float v16_most(v16 a)
{
    __m256 m = _mm256_max_ps(a.lo, a.hi);
    __m128 t = _mm_max_ps(_mm256_castps256_ps128(m), _mm256_extractf128_ps(m, 1));
    t = _mm_max_ps(t, _mm_movehl_ps(t, t));
    return _mm_cvtss_f32(_mm_max_ss(t, _mm_movehdup_ps(t)));
}
/* The sums of four. */
INLINE __m128 avx2_sums(const v16 *in)
{
    __m256 a = _mm256_hadd_ps(_mm256_add_ps(in[0].lo, in[0].hi), _mm256_add_ps(in[1].lo, in[1].hi));
    __m256 b = _mm256_hadd_ps(_mm256_add_ps(in[2].lo, in[2].hi), _mm256_add_ps(in[3].lo, in[3].hi));
    __m256 c = _mm256_hadd_ps(a, b);
    return _mm_add_ps(_mm256_castps256_ps128(c), _mm256_extractf128_ps(c, 1));
}
/* The sums of sixteen. */
INLINE v16 v16_sums(const v16 in[16])
{
    return (v16){_mm256_set_m128(avx2_sums(in + 4), avx2_sums(in)),
                 _mm256_set_m128(avx2_sums(in + 12), avx2_sums(in + 8))};
}
INLINE v16 v16_load_f16(const uint16_t *p)
{
    return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
                 _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}
INLINE __m256 avx2_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE v16 v16_load_bf16(const uint16_t *p)
{
    return (v16){avx2_bf16(p), avx2_bf16(p + 8)};
}
INLINE void v16_store_f16(uint16_t *p, v16 a)
{
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
    _mm_storeu_si128((__m128i *)(p + 8), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
INLINE v16_lut v16_lut_load(const float map[16])
{
    return (v16_lut){_mm256_loadu_ps(map), _mm256_loadu_ps(map + 8)};
}
INLINE v16_words v16_words_load(const uint32_t *p)
{
    return (v16_words){_mm256_loadu_si256((const __m256i *)p),
                       _mm256_loadu_si256((const __m256i *)(p + 8))};
}
/* Two eight-entry tables; bit 3 of the nibble, moved to the sign, chooses between them. */
INLINE __m256 avx2_lookup(v16_lut lut, __m256i words, int j)
{
    __m256i index = _mm256_srli_epi32(words, 4 * j);
    __m256 high = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28 - 4 * j));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(lut.lo, index),
                            _mm256_permutevar8x32_ps(lut.hi, index), high);
}
INLINE v16 v16_lookup(v16_lut lut, v16_words words, int j)
{
    return (v16){avx2_lookup(lut, words.lo, j), avx2_lookup(lut, words.hi, j)};
}

#endif
