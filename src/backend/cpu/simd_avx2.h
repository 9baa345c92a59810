/* simd_avx2.h - sixteen float32 lanes as two registers. Same names as its two siblings. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <immintrin.h>
#include <stdint.h>

#define KERNELS_NAME kernels_avx2
#define KERNELS_TEXT "avx2"
/* Rows of x that share one pass: 2 accumulators of two registers each, out of 16 registers. */
#define KERNEL_ROWS 2

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
