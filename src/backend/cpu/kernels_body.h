/*
 * kernels_body.h - the loops behind kernels.h; included after one of the simd_*.h.
 *
 * Matrix times rows: lanes are output rows, so no sum crosses lanes. Within a group of columns the
 * even and the odd columns have an accumulator each (two chains hide the latency of the fma); the
 * group's sum is scaled by absmax and added to the total. Up to KERNEL_ROWS rows of x decode the
 * weights as they go; more rows decode a group once into L1 and share it.
 */
#include "backend/cpu/kernels.h"

#include <math.h>
#include <string.h>

/* Columns ahead that the stream of codes is prefetched: 2 KB of 4-bit codes. */
#define PREFETCH_BYTES 2048

/* Weights of column c0+k of the tile as lanes, k < 8, from the words of columns c0..c0+7. */
INLINE v16 column_plain(const struct backend_matrix *m, const uint8_t *tile, size_t column)
{
    if (m->type == QUANT_BF16)
        return v16_load_bf16((const uint16_t *)tile + column * TILE);
    if (m->type == QUANT_F16)
        return v16_load_f16((const uint16_t *)tile + column * TILE);
    return v16_load((const float *)tile + column * TILE);
}

/* sum[r] = x[r] . columns c0..c0+width of the tile, decoding 4-bit words on the way. */
INLINE void group_words(v16_lut lut, const uint32_t *words, const float *x, size_t stride,
                        size_t width, v16 *sum, const int rows)
{
    v16 acc[2 * KERNEL_ROWS];
    for (int r = 0; r < 2 * rows; r++)
        acc[r] = v16_zero();
    for (size_t c = 0; c < width; c += 8) {
        v16_words w = v16_words_load(words + c / 8 * TILE);
        __builtin_prefetch((const char *)(words + c / 8 * TILE) + PREFETCH_BYTES);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++) {
            v16 weight = v16_lookup(lut, w, j);
#pragma GCC unroll 8
            for (int r = 0; r < rows; r++)
                acc[2 * r + j % 2] = v16_fma(
                    weight, v16_set1(x[(size_t)r * stride + c + (size_t)j]), acc[2 * r + j % 2]);
        }
    }
    for (int r = 0; r < rows; r++)
        sum[r] = v16_add(acc[2 * r], acc[2 * r + 1]);
}

/* The same over weights that are float32 lanes in memory, [width, TILE]. */
INLINE void group_floats(const float *weights, const float *x, size_t stride, size_t width,
                         v16 *sum, const int rows)
{
    v16 acc[2 * KERNEL_ROWS];
    for (int r = 0; r < 2 * rows; r++)
        acc[r] = v16_zero();
    size_t c = 0;
    for (; c + 2 <= width; c += 2) {
        v16 even = v16_load(weights + c * TILE), odd = v16_load(weights + (c + 1) * TILE);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            acc[2 * r] = v16_fma(even, v16_set1(x[(size_t)r * stride + c]), acc[2 * r]);
            acc[2 * r + 1] = v16_fma(odd, v16_set1(x[(size_t)r * stride + c + 1]), acc[2 * r + 1]);
        }
    }
    if (c < width)
        for (int r = 0; r < rows; r++)
            acc[2 * r] = v16_fma(v16_load(weights + c * TILE), v16_set1(x[(size_t)r * stride + c]),
                                 acc[2 * r]);
    for (int r = 0; r < rows; r++)
        sum[r] = v16_add(acc[2 * r], acc[2 * r + 1]);
}

/* The same over f16, bf16 or f32 columns, converted on the way. */
INLINE void group_plain(const struct backend_matrix *m, const uint8_t *tile, size_t first,
                        const float *x, size_t stride, size_t width, v16 *sum, const int rows)
{
    v16 acc[2 * KERNEL_ROWS];
    for (int r = 0; r < 2 * rows; r++)
        acc[r] = v16_zero();
    size_t c = 0;
    for (; c + 2 <= width; c += 2) {
        v16 even = column_plain(m, tile, first + c), odd = column_plain(m, tile, first + c + 1);
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            acc[2 * r] = v16_fma(even, v16_set1(x[(size_t)r * stride + c]), acc[2 * r]);
            acc[2 * r + 1] = v16_fma(odd, v16_set1(x[(size_t)r * stride + c + 1]), acc[2 * r + 1]);
        }
    }
    if (c < width)
        for (int r = 0; r < rows; r++)
            acc[2 * r] = v16_fma(column_plain(m, tile, first + c),
                                 v16_set1(x[(size_t)r * stride + c]), acc[2 * r]);
    for (int r = 0; r < rows; r++)
        sum[r] = v16_add(acc[2 * r], acc[2 * r + 1]);
}

INLINE void add_scaled(float *out, const float *scales, const v16 *sum, const int rows)
{
    for (int r = 0; r < rows; r++) {
        v16 total = v16_load(out + r * TILE);
        total = scales ? v16_fma(sum[r], v16_load(scales), total) : v16_add(total, sum[r]);
        v16_store(out + r * TILE, total);
    }
}

static const uint32_t *group_codes(const struct backend_matrix *m, size_t tile, size_t first)
{
    return (const uint32_t *)m->data + (tile * m->cols + first) / 8 * TILE;
}

static const uint8_t *plain_tile(const struct backend_matrix *m, size_t tile)
{
    size_t element = m->type == QUANT_F32 ? 4 : 2;
    return m->data + tile * m->cols * TILE * element;
}

/* Few rows: decode and multiply in one go. */
INLINE void tile_direct(const struct backend_matrix *m, size_t tile, const float *x, size_t stride,
                        float *out, const int rows)
{
    const float *scales = m->scales ? m->scales + tile * (m->cols / m->group) * TILE : NULL;
    const uint8_t *plain = plain_tile(m, tile);
    v16_lut lut = v16_lut_load(m->map);
    for (size_t first = 0; first < m->cols; first += m->group) {
        size_t width = m->cols - first < m->group ? m->cols - first : m->group;
        v16 sum[KERNEL_ROWS];
        if (m->type == QUANT_4BIT)
            group_words(lut, group_codes(m, tile, first), x + first, stride, width, sum, rows);
        else
            group_plain(m, plain, first, x + first, stride, width, sum, rows);
        add_scaled(out, scales, sum, rows);
        if (scales)
            scales += TILE;
    }
}

static void decode_group(const struct backend_matrix *m, size_t tile, size_t first, size_t width,
                         float *buffer)
{
    if (m->type != QUANT_4BIT) {
        const uint8_t *plain = plain_tile(m, tile);
        for (size_t c = 0; c < width; c++)
            v16_store(buffer + c * TILE, column_plain(m, plain, first + c));
        return;
    }
    v16_lut lut = v16_lut_load(m->map);
    const uint32_t *words = group_codes(m, tile, first);
    for (size_t c = 0; c < width; c += 8, words += TILE) {
        v16_words w = v16_words_load(words);
#pragma GCC unroll 8
        for (int j = 0; j < 8; j++)
            v16_store(buffer + (c + (size_t)j) * TILE, v16_lookup(lut, w, j));
    }
}

/* Rows r..r+rows of x over a decoded group. */
INLINE void rows_of_group(const float *buffer, const float *x, size_t stride, size_t width,
                          float *out, const float *scales, int r, const int rows)
{
    v16 sum[KERNEL_ROWS];
    group_floats(buffer, x + (size_t)r * stride, stride, width, sum, rows);
    add_scaled(out + r * TILE, scales, sum, rows);
}

/* Many rows: decode each group once into the buffer, then run every row over it. */
static void tile_buffered(const struct backend_matrix *m, size_t tile, const float *x,
                          size_t stride, int n, float *out, float *buffer)
{
    const float *scales = m->scales ? m->scales + tile * (m->cols / m->group) * TILE : NULL;
    for (size_t first = 0; first < m->cols; first += m->group) {
        size_t width = m->cols - first < m->group ? m->cols - first : m->group;
        decode_group(m, tile, first, width, buffer);
        int r = 0;
        for (; r + KERNEL_ROWS <= n; r += KERNEL_ROWS)
            rows_of_group(buffer, x + first, stride, width, out, scales, r, KERNEL_ROWS);
        if (n - r >= 4 && KERNEL_ROWS > 4) {
            rows_of_group(buffer, x + first, stride, width, out, scales, r, 4);
            r += 4;
        }
        if (n - r >= 2 && KERNEL_ROWS > 2) {
            rows_of_group(buffer, x + first, stride, width, out, scales, r, 2);
            r += 2;
        }
        for (; r < n; r++)
            rows_of_group(buffer, x + first, stride, width, out, scales, r, 1);
        if (scales)
            scales += TILE;
    }
}

static void kernel_tile(const struct backend_matrix *m, size_t tile, const float *x, size_t stride,
                        int n, float *out, float *buffer)
{
    memset(out, 0, (size_t)n * TILE * sizeof *out);
#define DIRECT(rows)                                                                               \
    case rows:                                                                                     \
        if (rows <= KERNEL_ROWS) {                                                                 \
            tile_direct(m, tile, x, stride, out, rows <= KERNEL_ROWS ? rows : 1);                  \
            return;                                                                                \
        }                                                                                          \
        break
    switch (n) {
        DIRECT(1);
        DIRECT(2);
        DIRECT(3);
        DIRECT(4);
        DIRECT(5);
        DIRECT(6);
        DIRECT(7);
        DIRECT(8);
    }
#undef DIRECT
    tile_buffered(m, tile, x, stride, n, out, buffer);
}

/* ---- attention and vectors ---------------------------------------------------------------- */

INLINE v16 cache_load(const void *cache, size_t i, bool half)
{
    return half ? v16_load_f16((const uint16_t *)cache + i) : v16_load((const float *)cache + i);
}

INLINE void attend_scores(const struct cpu_attention *a, const bool half)
{
    size_t dim = (size_t)a->head_dim;
    for (size_t p = 0; p < a->n; p++)
        for (int h = 0; h < a->n_queries; h++) {
            v16 sum = v16_zero();
            for (size_t i = 0; i < dim; i += TILE)
                sum = v16_fma(v16_load(a->q + (size_t)h * dim + i),
                              cache_load(a->k, p * dim + i, half), sum);
            a->scores[(size_t)h * a->n + p] = v16_sum(sum) * a->scale;
        }
}

static void softmax(float *scores, size_t n)
{
    float max = scores[0], sum = 0;
    for (size_t p = 1; p < n; p++)
        max = scores[p] > max ? scores[p] : max;
    for (size_t p = 0; p < n; p++)
        sum += scores[p] = expf(scores[p] - max);
    for (size_t p = 0; p < n; p++)
        scores[p] /= sum;
}

INLINE void attend_values(const struct cpu_attention *a, const bool half)
{
    size_t dim = (size_t)a->head_dim;
    for (int h = 0; h < a->n_queries; h++) {
        const float *weights = a->scores + (size_t)h * a->n;
        for (size_t i = 0; i < dim; i += TILE) {
            v16 sum = v16_zero();
            for (size_t p = 0; p < a->n; p++)
                sum = v16_fma(v16_set1(weights[p]), cache_load(a->v, p * dim + i, half), sum);
            v16_store(a->out + (size_t)h * dim + i, sum);
        }
    }
}

static void kernel_attend(const struct cpu_attention *a)
{
    if (a->half)
        attend_scores(a, true);
    else
        attend_scores(a, false);
    for (int h = 0; h < a->n_queries; h++)
        softmax(a->scores + (size_t)h * a->n, a->n);
    if (a->half)
        attend_values(a, true);
    else
        attend_values(a, false);
}

static void kernel_store_half(uint16_t *out, const float *in, size_t n)
{
    for (size_t i = 0; i < n; i += TILE)
        v16_store_f16(out + i, v16_load(in + i));
}

static float kernel_dot(const float *a, const float *b, size_t n)
{
    v16 sum = v16_zero();
    size_t i = 0;
    for (; i + TILE <= n; i += TILE)
        sum = v16_fma(v16_load(a + i), v16_load(b + i), sum);
    float tail = v16_sum(sum);
    for (; i < n; i++)
        tail += a[i] * b[i];
    return tail;
}

static void kernel_axpy(float *y, float a, const float *x, size_t n)
{
    v16 factor = v16_set1(a);
    size_t i = 0;
    for (; i + TILE <= n; i += TILE)
        v16_store(y + i, v16_fma(factor, v16_load(x + i), v16_load(y + i)));
    for (; i < n; i++)
        y[i] += a * x[i];
}

const struct cpu_kernels KERNELS_NAME = {
    KERNELS_TEXT, kernel_tile, kernel_attend, kernel_store_half, kernel_dot, kernel_axpy,
};
