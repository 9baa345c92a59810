/*
 * test_backend_cpu.c - every kernel variant that this processor runs, against the scalar truth of
 * quant_row(); and the promise of backend.h that a row's result does not depend on its neighbours.
 */
#include "backend/cpu/cpu.h"
#include "support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_ROWS 37 /* rows of x; more than any kernel takes at once */

/* ---- matrices of every kind ---------------------------------------------------------------- */

struct sample {
    struct quant_source source;
    uint8_t *data, *absmax, *nested;
};

static void *allocate(size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);
    assert_non_null(p);
    return p;
}

static void fill_plain(struct sample *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = random_float();
        uint16_t half = s->source.type == QUANT_F16 ? quant_to_f16(value) : quant_to_bf16(value);
        if (s->source.type == QUANT_F32)
            memcpy(s->data + 4 * i, &value, sizeof value);
        else
            memcpy(s->data + 2 * i, &half, sizeof half);
    }
}

static void fill_floats(uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float value = 0.5f + 0.4f * random_float();
        memcpy(out + 4 * i, &value, sizeof value);
    }
}

static void fill_4bit(struct sample *s, size_t n, bool nested)
{
    struct quant_source *q = &s->source;
    q->block_size = 64;
    size_t blocks = (n + 63) / 64, groups;
    for (size_t i = 0; i < n / 2; i++)
        s->data[i] = (uint8_t)random_bits();
    for (int i = 0; i < 16; i++)
        q->map[i] = random_float();
    s->absmax = allocate(4 * blocks);
    q->absmax = s->absmax;
    if (!nested) {
        fill_floats(s->absmax, blocks);
        return;
    }
    q->nested_block_size = 256;
    groups = (blocks + 255) / 256;
    for (size_t i = 0; i < blocks; i++)
        s->absmax[i] = (uint8_t)random_bits();
    for (int i = 0; i < 256; i++)
        q->nested_map[i] = random_float();
    q->nested_offset = 0.25f;
    s->nested = allocate(4 * groups);
    fill_floats(s->nested, groups);
    q->nested_absmax = s->nested;
}

/* 4-bit rows of K columns meet blocks of 64 where K is a multiple of 8 at least. */
static void sample_new(struct sample *s, enum quant_type type, bool nested)
{
    *s = (struct sample){.source = {.type = type, .rows = (size_t)random_between(1, 70)}};
    s->source.cols =
        (size_t)(type == QUANT_4BIT ? 8 * random_between(1, 40) : random_between(1, 300));
    size_t n = s->source.rows * s->source.cols;
    s->data = allocate(4 * n);
    s->source.data = s->data;
    if (type == QUANT_4BIT)
        fill_4bit(s, n, nested);
    else
        fill_plain(s, n);
}

static void sample_free(struct sample *s)
{
    free(s->data);
    free(s->absmax);
    free(s->nested);
}

/* ---- running a kernel ---------------------------------------------------------------------- */

static struct backend_device *open_kernels(const struct cpu_kernels *kernels)
{
    struct gyaru_error err;
    struct backend_device *device;
    assert_int_equal(cpu_open_kernels(kernels, 1, &device, &err), 0);
    return device;
}

static struct backend_matrix *upload(struct backend_device *device, const struct quant_source *s)
{
    struct gyaru_error err;
    struct backend_matrix *m;
    if (cpu_matrix_new(device, s, &m, &err))
        fail_msg("%s", err.text);
    assert_int_equal(m->bytes, cpu_matrix_bytes(device, s));
    return m;
}

/* out [n, tiles * TILE] */
static void multiply(const struct cpu_kernels *kernels, const struct backend_matrix *m,
                     const float *x, int n, float *out)
{
    float *tile = allocate(MAX_ROWS * TILE * sizeof *tile);
    float *buffer = allocate(m->cols * TILE * sizeof *buffer);
    for (size_t t = 0; t < m->tiles; t++) {
        kernels->tile(m, t, x, m->cols, n, tile, buffer);
        for (int r = 0; r < n; r++)
            memcpy(out + ((size_t)r * m->tiles + t) * TILE, tile + r * TILE, TILE * sizeof *out);
    }
    free(tile);
    free(buffer);
}

static float *random_rows(size_t n, size_t cols)
{
    float *x = allocate(n * cols * sizeof *x);
    for (size_t i = 0; i < n * cols; i++)
        x[i] = random_float();
    return x;
}

/* Relative to the sum of magnitudes: float32 sums of a few hundred terms. */
static void check_exact(const struct quant_source *s, const float *x, int n, size_t tiles,
                        const float *out, const char *name)
{
    float *row = allocate(s->cols * sizeof *row);
    for (size_t i = 0; i < s->rows; i++) {
        quant_row(s, i, row);
        for (int r = 0; r < n; r++) {
            double sum = 0, size = 1e-6;
            for (size_t c = 0; c < s->cols; c++) {
                double term = (double)row[c] * (double)x[(size_t)r * s->cols + c];
                sum += term;
                size += fabs(term);
            }
            double got = (double)out[(size_t)r * tiles * TILE + i];
            if (!(fabs(got - sum) <= 2e-6 * size))
                fail_msg("%s: type %d, %zux%zu, row %d of %d, output %zu: %g instead of %g", name,
                         (int)s->type, s->rows, s->cols, r, n, i, got, sum);
        }
    }
    free(row);
}

static void check_matrix(const struct cpu_kernels *kernels, struct sample *s)
{
    static const int counts[] = {1, 2, 3, 8, 9, 17, MAX_ROWS};
    struct backend_device *device = open_kernels(kernels);
    struct backend_matrix *m = upload(device, &s->source);
    size_t width = m->tiles * TILE;
    float *x = random_rows(MAX_ROWS, m->cols);
    float *alone = allocate(MAX_ROWS * width * sizeof *alone);
    float *out = allocate(MAX_ROWS * width * sizeof *out);
    for (int r = 0; r < MAX_ROWS; r++)
        multiply(kernels, m, x + (size_t)r * m->cols, 1, alone + (size_t)r * width);
    check_exact(&s->source, x, MAX_ROWS, m->tiles, alone, kernels->name);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        multiply(kernels, m, x, counts[i], out);
        if (memcmp(out, alone, (size_t)counts[i] * width * sizeof *out))
            fail_msg("%s: type %d, %zux%zu: a row beside %d others is not the row alone",
                     kernels->name, (int)m->type, m->rows, m->cols, counts[i] - 1);
    }
    float *row = allocate(m->cols * sizeof *row), *truth = allocate(m->cols * sizeof *truth);
    size_t at = (size_t)random_between(0, (int)m->rows - 1);
    cpu_matrix_row(m, at, row);
    quant_row(&s->source, at, truth);
    assert_memory_equal(row, truth, m->cols * sizeof *row);
    free(row);
    free(truth);
    free(x);
    free(alone);
    free(out);
    cpu_matrix_free(m);
    cpu_close(device);
}

static void check_kernels(const struct cpu_kernels *kernels)
{
    random_seed(7);
    for (int round = 0; round < 12; round++)
        for (int kind = 0; kind < 5; kind++) {
            static const enum quant_type types[] = {QUANT_F32, QUANT_F16, QUANT_BF16, QUANT_4BIT,
                                                    QUANT_4BIT};
            struct sample s;
            sample_new(&s, types[kind], kind == 4);
            check_matrix(kernels, &s);
            sample_free(&s);
        }
}

/* ---- attention and vectors ----------------------------------------------------------------- */

static void attend_exactly(const float *q, const float *k, const float *v, size_t n, size_t dim,
                           double *out)
{
    double *weights = allocate(n * sizeof *weights), max = -INFINITY, sum = 0;
    for (size_t p = 0; p < n; p++) {
        for (size_t i = 0; i < dim; i++)
            weights[p] += (double)q[i] * (double)k[p * dim + i];
        weights[p] /= sqrt((double)dim);
        max = fmax(max, weights[p]);
    }
    for (size_t p = 0; p < n; p++)
        sum += weights[p] = exp(weights[p] - max);
    memset(out, 0, dim * sizeof *out);
    for (size_t p = 0; p < n; p++)
        for (size_t i = 0; i < dim; i++)
            out[i] += weights[p] / sum * (double)v[p * dim + i];
    free(weights);
}

static void check_attention(const struct cpu_kernels *kernels, size_t n, size_t dim, bool half)
{
    enum { HEADS = 3 };
    float *q = random_rows(HEADS, dim), *k = random_rows(n, dim), *v = random_rows(n, dim);
    float *scores = allocate(HEADS * cpu_scores_stride(n) * sizeof *scores);
    float *out = allocate(HEADS * dim * sizeof *out);
    double *truth = allocate(dim * sizeof *truth);
    uint16_t *k_half = allocate(n * dim * 2), *v_half = allocate(n * dim * 2);
    kernels->store_half(k_half, k, n * dim);
    kernels->store_half(v_half, v, n * dim);
    for (size_t i = 0; i < n * dim; i++)
        assert_int_equal(k_half[i], quant_to_f16(k[i]));
    kernels->attend(&(struct cpu_attention){.q = q,
                                            .k = half ? (void *)k_half : (void *)k,
                                            .v = half ? (void *)v_half : (void *)v,
                                            .out = out,
                                            .scores = scores,
                                            .n = n,
                                            .n_queries = HEADS,
                                            .head_dim = (int)dim,
                                            .scale = 1 / sqrtf((float)dim),
                                            .half = half});
    for (size_t h = 0; h < HEADS; h++) {
        memset(truth, 0, dim * sizeof *truth);
        attend_exactly(q + h * dim, k, v, n, dim, truth);
        for (size_t i = 0; i < dim; i++)
            assert_true(fabs(truth[i] - (double)out[h * dim + i]) < (half ? 1e-3 : 1e-6));
    }
    free(truth);
    free(out);
    free(scores);
    free(q);
    free(k);
    free(v);
    free(k_half);
    free(v_half);
}

static void check_attentions(const struct cpu_kernels *kernels)
{
    static const size_t counts[] = {1, 2, 15, 16, 17, 32, 33, 77}, dims[] = {16, 64, 80, 128};
    for (size_t n = 0; n < sizeof counts / sizeof *counts; n++)
        for (size_t d = 0; d < sizeof dims / sizeof *dims; d++)
            for (int half = 0; half < 2; half++)
                check_attention(kernels, counts[n], dims[d], half);
}

/* silu over all that a float can be: beyond +-88 its power of e is out of range. */
static void check_gate(const struct cpu_kernels *kernels)
{
    enum { N = 4096 };
    float *gate = allocate(N * sizeof *gate), *up = random_rows(1, N);
    for (int i = 0; i < N; i++)
        gate[i] = (float)(i - N / 2) / 20;
    gate[0] = NAN;
    gate[1] = INFINITY;
    gate[2] = 3e38f;
    gate[3] = 0;
    gate[4] = 1e-30f;
    float *x = allocate(N * sizeof *x);
    memcpy(x, gate, N * sizeof *x);
    kernels->gate(gate, up, N);
    for (int i = 5; i < N; i++) {
        double want = (double)x[i] / (1 + exp(-(double)x[i])) * (double)up[i];
        if (!(fabs((double)gate[i] - want) <= 4e-7 * fabs(want) + 1e-34))
            fail_msg("%s: silu(%g) * %g: %g", kernels->name, (double)x[i], (double)up[i],
                     (double)gate[i]);
    }
    assert_true(isnan(gate[0]) && isinf(gate[1]) && gate[3] == 0);
    assert_true(fabsf(gate[2] - 3e38f * up[2]) < 1e33f && fabsf(gate[4]) <= 1e-30f);
    free(x);
    free(up);
    free(gate);
}

static void check_rotation(const struct cpu_kernels *kernels, size_t half)
{
    float *x = random_rows(1, 2 * half), *before = allocate(2 * half * sizeof *before);
    float *rope = random_rows(1, 2 * half);
    memcpy(before, x, 2 * half * sizeof *x);
    kernels->rotate(x, rope, half);
    for (size_t i = 0; i < half; i++) {
        double a = (double)before[i], b = (double)before[half + i];
        double c = (double)rope[i], s = (double)rope[half + i];
        assert_true(fabs((double)x[i] - (a * c - b * s)) < 3e-7);
        assert_true(fabs((double)x[half + i] - (b * c + a * s)) < 3e-7);
    }
    free(x);
    free(before);
    free(rope);
}

static void check_vectors(const struct cpu_kernels *kernels)
{
    for (size_t n = 1; n < 70; n++) {
        float *x = random_rows(1, n), *y = random_rows(1, n), *before = random_rows(1, n);
        double sum = 0;
        memcpy(before, y, n * sizeof *y);
        for (size_t i = 0; i < n; i++)
            sum += (double)x[i] * (double)y[i];
        assert_true(fabs(sum - (double)kernels->dot(x, y, n)) < 1e-5);
        kernels->axpy(y, 0.5f, x, n);
        for (size_t i = 0; i < n; i++) /* half of a float is exact: one rounding either way */
            assert_true(y[i] == before[i] + 0.5f * x[i]);
        kernels->norm(y, x, 0.3f, before, n);
        for (size_t i = 0; i < n; i++)
            assert_true(y[i] == x[i] * 0.3f * before[i]);
        free(x);
        free(y);
        free(before);
    }
}

static void check_all(const struct cpu_kernels *kernels)
{
    check_kernels(kernels);
    check_attentions(kernels);
    check_vectors(kernels);
    check_gate(kernels);
    for (size_t half = 8; half <= 64; half += 8)
        check_rotation(kernels, half);
}

/* ---- the variants -------------------------------------------------------------------------- */

static void scalar_is_exact(void **state)
{
    check_all(&kernels_scalar);
}

static void skip_without(const char *what, bool present)
{
    if (present)
        return;
    printf("SKIP: this processor has no %s\n", what);
    skip();
}

static void avx2_is_exact(void **state)
{
    __builtin_cpu_init();
    skip_without("AVX2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    check_all(&kernels_avx2);
}

static void avx512_is_exact(void **state)
{
    __builtin_cpu_init();
    skip_without("AVX-512", __builtin_cpu_supports("avx512f") &&
                                __builtin_cpu_supports("avx512bw") &&
                                __builtin_cpu_supports("avx512vl"));
    check_all(&kernels_avx512);
}

/* A layout that the kernels cannot hold is known when the memory is planned. */
static void refuses_odd_blocks(void **state)
{
    struct gyaru_error err;
    struct backend_matrix *m;
    struct quant_source s = {.type = QUANT_4BIT, .rows = 16, .cols = 20, .block_size = 64};
    struct backend_device *device = open_kernels(&kernels_scalar);
    assert_true(cpu_matrix_bytes(NULL, &s) == UINT64_MAX);
    assert_int_equal(cpu_matrix_new(device, &s, &m, &err), -1);
    assert_non_null(strstr(err.text, "20 columns"));
    cpu_close(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalar_is_exact),
        cmocka_unit_test(avx2_is_exact),
        cmocka_unit_test(avx512_is_exact),
        cmocka_unit_test(refuses_odd_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
