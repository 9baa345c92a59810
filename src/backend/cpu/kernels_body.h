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

/* How far ahead weights are fetched: 2 KB of 4-bit codes are 256 columns of a tile. */
#define PREFETCH_BYTES  2048
#define PREFETCH_SCALES (7 * TILE)

/* Weights of one column of a tile that is not of 4 bits, as lanes. */
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
        if (rows > 1) /* one row keeps up with what the processor fetches by itself */
            __builtin_prefetch(tile + (first + c) * TILE * 2 + PREFETCH_BYTES);
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
        if (scales) {
            scales += TILE;
            __builtin_prefetch(scales + PREFETCH_SCALES);
        }
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

/* e^x to two units in the last place; what is out of range stops at its end. The series of e^r is
 * cut where |r| <= ln(2)/2 leaves nothing. */
INLINE v16 v16_exp(v16 x)
{
    static const float series[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    x = v16_min(v16_set1(88), v16_max(v16_set1(-87), x));
    v16 k = v16_round(v16_mul(x, v16_set1(1.44269504f)));
    v16 r = v16_fma(k, v16_set1(-0.693359375f), x); /* ln(2) in two parts, the first exact */
    r = v16_fma(k, v16_set1(2.12194440e-4f), r);
    v16 sum = v16_set1(1.0f / 5040);
    for (size_t i = 0; i < sizeof series / sizeof *series; i++)
        sum = v16_fma(sum, r, v16_set1(series[i]));
    return v16_scale(sum, k);
}

INLINE v16 cache_load(const void *cache, size_t i, bool half)
{
    return half ? v16_load_f16((const uint16_t *)cache + i) : v16_load((const float *)cache + i);
}

/* Sixteen positions at a time, so that their sums over lanes are made together. */
INLINE void attend_scores(const struct cpu_attention *a, size_t stride, const bool half)
{
    size_t dim = (size_t)a->head_dim;
    v16 scale = v16_set1(a->scale), sums[TILE];
    for (size_t p = 0; p < a->n; p += TILE) {
        size_t count = a->n - p < TILE ? a->n - p : TILE;
        for (int h = 0; h < a->n_queries; h++) {
            const float *q = a->q + (size_t)h * dim;
            for (size_t j = 0; j < TILE; j++)
                sums[j] = v16_zero();
            for (size_t j = 0; j < count; j++)
                for (size_t i = 0; i < dim; i += TILE)
                    sums[j] = v16_fma(v16_load(q + i), cache_load(a->k, (p + j) * dim + i, half),
                                      sums[j]);
            v16_store(a->scores + (size_t)h * stride + p, v16_mul(v16_sums(sums), scale));
        }
    }
}

/* Scores become weights, 0 past the n'th. */
static void softmax(float *scores, size_t n, size_t stride)
{
    v16 most = v16_set1(scores[0]), sum = v16_zero();
    for (size_t p = n; p < stride; p++)
        scores[p] = -INFINITY;
    for (size_t p = 0; p < stride; p += TILE)
        most = v16_max(most, v16_load(scores + p));
    most = v16_set1(v16_most(most));
    for (size_t p = 0; p < stride; p += TILE)
        v16_store(scores + p, v16_exp(v16_sub(v16_load(scores + p), most)));
    for (size_t p = n; p < stride; p++)
        scores[p] = 0;
    for (size_t p = 0; p < stride; p += TILE)
        sum = v16_add(sum, v16_load(scores + p));
    sum = v16_set1(v16_sum(sum));
    for (size_t p = 0; p < stride; p += TILE)
        v16_store(scores + p, v16_div(v16_load(scores + p), sum));
}

/* out += weights of positions first..end * their values, in `blocks` registers from element i. */
INLINE void add_values(const struct cpu_attention *a, const float *weights, float *out, size_t i,
                       size_t first, size_t end, const int blocks, const bool half)
{
    size_t dim = (size_t)a->head_dim;
    v16 sum[4];
    for (int b = 0; b < blocks; b++)
        sum[b] = v16_load(out + i + b * TILE);
    for (size_t p = first; p < end; p++) {
        v16 weight = v16_set1(weights[p]);
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            sum[b] =
                v16_fma(weight, cache_load(a->v, p * dim + i + (size_t)b * TILE, half), sum[b]);
    }
    for (int b = 0; b < blocks; b++)
        v16_store(out + i + b * TILE, sum[b]);
}

/* Some positions at a time, so that all query heads find them in the nearest cache. */
INLINE void attend_values(const struct cpu_attention *a, size_t stride, const bool half)
{
    size_t dim = (size_t)a->head_dim;
    for (size_t first = 0; first < a->n; first += 32) {
        size_t end = a->n - first < 32 ? a->n : first + 32;
        for (int h = 0; h < a->n_queries; h++) {
            const float *weights = a->scores + (size_t)h * stride;
            float *out = a->out + (size_t)h * dim;
            size_t i = 0;
            for (; i + 4 * TILE <= dim; i += 4 * TILE)
                add_values(a, weights, out, i, first, end, 4, half);
            for (; i < dim; i += TILE)
                add_values(a, weights, out, i, first, end, 1, half);
        }
    }
}

static void kernel_attend(const struct cpu_attention *a)
{
    size_t stride = cpu_scores_stride(a->n);
    if (a->half)
        attend_scores(a, stride, true);
    else
        attend_scores(a, stride, false);
    memset(a->out, 0, (size_t)a->n_queries * (size_t)a->head_dim * sizeof *a->out);
    for (int h = 0; h < a->n_queries; h++)
        softmax(a->scores + (size_t)h * stride, a->n, stride);
    if (a->half)
        attend_values(a, stride, true);
    else
        attend_values(a, stride, false);
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

static void kernel_norm(float *out, const float *x, float scale, const float *weight, size_t n)
{
    v16 factor = v16_set1(scale);
    size_t i = 0;
    for (; i + TILE <= n; i += TILE)
        v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), factor), v16_load(weight + i)));
    for (; i < n; i++)
        out[i] = x[i] * scale * weight[i];
}

static void kernel_rotate(float *x, const float *rope, size_t half)
{
    const float *cosines = rope, *sines = rope + half;
    size_t i = 0;
    for (; i + TILE <= half; i += TILE) {
        v16 a = v16_load(x + i), b = v16_load(x + half + i);
        v16 c = v16_load(cosines + i), s = v16_load(sines + i);
        v16_store(x + i, v16_sub(v16_mul(a, c), v16_mul(b, s)));
        v16_store(x + half + i, v16_add(v16_mul(b, c), v16_mul(a, s)));
    }
    for (; i < half; i++) {
        float a = x[i], b = x[half + i];
        x[i] = a * cosines[i] - b * sines[i];
        x[half + i] = b * cosines[i] + a * sines[i];
    }
}

static void kernel_gate(float *gate, const float *up, size_t n)
{
    v16 one = v16_set1(1), zero = v16_zero();
    for (size_t i = 0; i < n; i += TILE) {
        v16 x = v16_load(gate + i);
        v16 silu = v16_div(x, v16_add(one, v16_exp(v16_sub(zero, x))));
        v16_store(gate + i, v16_mul(silu, v16_load(up + i)));
    }
}

const struct cpu_kernels KERNELS_NAME = {
    .name = KERNELS_TEXT,
    .tile = kernel_tile,
    .attend = kernel_attend,
    .store_half = kernel_store_half,
    .dot = kernel_dot,
    .axpy = kernel_axpy,
    .norm = kernel_norm,
    .rotate = kernel_rotate,
    .gate = kernel_gate,
};
