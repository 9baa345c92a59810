/*
 * test_cuda.c - the CUDA backend against the CPU backend, operation by operation.
 *
 * Built twice: build/test_cuda drives the plug-in on a GPU (`make test-cuda`); on the host,
 * build/emu/test_cuda_host drives the same sources compiled for the CPU (tests/cuda_emu). And twice
 * again with GPUS: as many GPUs then share the model (test_cuda_pair), by the same bounds. Models
 * are random in shape, types and values; all that comes back is poisoned first.
 */
#include "backend/backend.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MAX_ROWS  160  /* from 129 rows on, products of 4-bit weights take another way */
#define MOST_ROWS 1100 /* of the one test whose products come in two shares */
#define POINTS    6    /* taps of a step */

/* Relative errors of what an operation adds to the stream, |difference| / |expected| over a row. */
#define EXACT_TYPES 1e-4 /* bf16 weights see 16 bits of x */
#define FOUR_BIT    1.5e-3

static const struct backend *gpu;
#ifndef GPUS
#define GPUS 1
#endif
static int n_gpus = GPUS; /* that share the model */

static uint64_t state_of_random;

static uint32_t next_random(void)
{
    state_of_random = state_of_random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state_of_random >> 33);
}

static float next_float(void) /* -1..1 */
{
    return (float)next_random() / (float)(1u << 30) - 1;
}

static int between(int low, int high)
{
    return low + (int)(next_random() % (uint32_t)(high - low + 1));
}

/* GPUs 0 .. n-1; *b: what runs them. */
static int open_gpus(int n, const struct backend **b, struct backend_device **out,
                     struct gyaru_error *err)
{
    static const int indices[BACKEND_DEVICES] = {0, 1, 2, 3, 4, 5, 6, 7};
    *b = gpu;
    return n == 1 ? gpu->open(0, 1, out, err) : gpu->open_group(indices, n, b, out, err);
}

static void *allocate(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

static void check(int rc, const struct gyaru_error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

/* ---- random weights ------------------------------------------------------------------------- */

enum kind { NESTED, NESTED_LARGE, PLAIN_4BIT, BF16, F16, F32, N_KINDS };

/* Fills a source whose arrays lie in one allocation, returned for free(). */
static void *random_source(enum kind kind, size_t rows, size_t cols, struct quant_source *out)
{
    size_t n = rows * cols, blocks;
    *out = (struct quant_source){.rows = rows, .cols = cols, .block_size = 64};
    uint8_t *data = allocate(8 * n + 4096);
    uint8_t *scales = data + 4 * n;
    float amplitude = 1.0f / sqrtf((float)cols);
    out->data = data;
    for (size_t i = 0; i < n && kind >= BF16; i++) {
        float value = next_float() * amplitude;
        uint16_t half = kind == F16 ? quant_to_f16(value) : quant_to_bf16(value);
        if (kind == F32)
            memcpy(data + 4 * i, &value, 4);
        else
            memcpy(data + 2 * i, &half, 2);
    }
    out->type = kind == F32 ? QUANT_F32 : kind == F16 ? QUANT_F16 : QUANT_BF16;
    if (kind >= BF16)
        return data;
    out->type = QUANT_4BIT;
    if (kind == NESTED_LARGE)
        out->block_size = 128;
    blocks = (n + out->block_size - 1) / out->block_size;
    for (size_t i = 0; i < n / 2; i++)
        data[i] = (uint8_t)next_random();
    for (int i = 0; i < 16; i++)
        out->map[i] = (float)(i - 8) / 8 + 0.03f * next_float();
    out->absmax = scales;
    if (kind == PLAIN_4BIT) {
        for (size_t i = 0; i < blocks; i++) {
            float value = (0.6f + 0.4f * next_float()) * amplitude;
            memcpy(scales + 4 * i, &value, 4);
        }
        return data;
    }
    out->nested_block_size = kind == NESTED ? 256 : 4; /* the small one ends in mid-row */
    for (size_t i = 0; i < blocks; i++)
        scales[i] = (uint8_t)next_random();
    out->nested_absmax = scales + (blocks + 3) / 4 * 4;
    for (size_t i = 0; i < (blocks + out->nested_block_size - 1) / out->nested_block_size; i++) {
        float value = (0.6f + 0.4f * next_float()) * amplitude;
        memcpy(scales + (blocks + 3) / 4 * 4 + 4 * i, &value, 4);
    }
    for (int i = 0; i < 256; i++)
        out->nested_map[i] = next_float();
    out->nested_offset = 0.3f * amplitude;
    return data;
}

/* ---- one block of a model on both backends -------------------------------------------------- */

enum { CPU, GPU };

struct side {
    const struct backend *b;
    struct backend_device *device;
    struct backend_stage *stage;
    struct backend_matrix *embedding, *qkv[3], *output, *gate, *up, *down, *head;
    struct backend_vector *norm, *bias[3], *direction[2];
};

struct pair {
    struct backend_shape shape;
    struct side side[2];
    bool four_bit;
};

/* unit: of what is cut between GPUs; 0: each has all of it. */
static void upload(struct pair *p, enum kind kind, int rows, int cols, int unit, size_t slot)
{
    struct gyaru_error err;
    struct quant_source source;
    void *data = random_source(kind, (size_t)rows, (size_t)cols, &source);
    bool by_columns = slot == offsetof(struct side, output) || slot == offsetof(struct side, down);
    source.cut = !unit ? QUANT_WHOLE : by_columns ? QUANT_BY_COLUMNS : QUANT_BY_ROWS;
    source.unit = (size_t)unit;
    for (int i = 0; i < 2; i++) {
        struct backend_matrix **to = (struct backend_matrix **)((char *)&p->side[i] + slot);
        check(p->side[i].b->matrix_new(p->side[i].device, &source, to, &err), &err);
    }
    p->four_bit = p->four_bit || kind < BF16;
    free(data);
}

static void upload_vector(struct pair *p, int n, float base, float spread, size_t slot)
{
    struct gyaru_error err;
    float *values = allocate((size_t)n * sizeof *values);
    for (int i = 0; i < n; i++)
        values[i] = base + spread * next_float();
    for (int i = 0; i < 2; i++) {
        struct backend_vector **to = (struct backend_vector **)((char *)&p->side[i] + slot);
        check(p->side[i].b->vector_new(p->side[i].device, values, (size_t)n, to, &err), &err);
    }
    free(values);
}

/* kinds: of the seven linears; -1: each at random. */
static void pair_new(struct pair *p, const struct backend_shape *shape, int kind)
{
    struct gyaru_error err;
    int queries = shape->n_heads * shape->head_dim, keys = shape->n_kv_heads * shape->head_dim;
#define KIND      (kind < 0 ? (enum kind)between(0, N_KINDS - 1) : (enum kind)kind)
#define AT(field) offsetof(struct side, field)
    *p = (struct pair){.shape = *shape};
    p->side[CPU].b = &backend_cpu;
    check(backend_cpu.open(0, 1, &p->side[CPU].device, &err), &err);
    check(open_gpus(n_gpus, &p->side[GPU].b, &p->side[GPU].device, &err), &err);
    for (int i = 0; i < 2; i++) {
        struct side *s = &p->side[i];
        struct backend_shape own = *shape;
        if (!s->b->int8_kv && own.kv == GYARU_KV_I8)
            own.kv = GYARU_KV_F32;
        check(s->b->stage_new(s->device, &own, &s->stage, &err), &err);
    }
    int unit = queries / shape->n_kv_heads;
    upload(p, KIND, shape->vocab, shape->hidden, 0, AT(embedding));
    upload(p, KIND, queries, shape->hidden, unit, AT(qkv[0]));
    upload(p, KIND, keys, shape->hidden, shape->head_dim, AT(qkv[1]));
    upload(p, KIND, keys, shape->hidden, shape->head_dim, AT(qkv[2]));
    upload(p, KIND, shape->hidden, queries, unit, AT(output));
    upload(p, KIND, shape->intermediate, shape->hidden, BACKEND_CUT, AT(gate));
    upload(p, KIND, shape->intermediate, shape->hidden, BACKEND_CUT, AT(up));
    upload(p, KIND, shape->hidden, shape->intermediate, BACKEND_CUT, AT(down));
    upload(p, KIND, shape->vocab, shape->hidden, BACKEND_CUT, AT(head));
    upload_vector(p, shape->hidden, 1, 0.5f, AT(norm));
    upload_vector(p, queries, 0, 0.5f, AT(bias[0]));
    upload_vector(p, keys, 0, 0.5f, AT(bias[1]));
    upload_vector(p, keys, 0, 0.5f, AT(bias[2]));
    upload_vector(p, shape->hidden, 0, 1, AT(direction[0]));
    upload_vector(p, shape->hidden, 0, 1, AT(direction[1]));
}

static void pair_free(struct pair *p)
{
    for (int i = 0; i < 2; i++) {
        struct side *s = &p->side[i];
        struct backend_matrix *matrices[] = {s->embedding, s->qkv[0], s->qkv[1],
                                             s->qkv[2],    s->output, s->gate,
                                             s->up,        s->down,   s->head};
        struct backend_vector *vectors[] = {s->norm,    s->bias[0],      s->bias[1],
                                            s->bias[2], s->direction[0], s->direction[1]};
        s->b->stage_free(s->stage);
        for (size_t m = 0; m < sizeof matrices / sizeof *matrices; m++)
            s->b->matrix_free(matrices[m]);
        for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++)
            s->b->vector_free(vectors[v]);
        s->b->close(s->device);
    }
}

/* What one step says. */
struct result {
    float *taps;   /* [POINTS, n, hidden] */
    float *logits; /* [n_logits, vocab] */
    float meter[MOST_ROWS][2];
};

static float *poisoned(size_t n)
{
    float *p = allocate(n * sizeof *p);
    memset(p, 0xff, n * sizeof *p);
    return p;
}

/* All operations once, with taps between them unless a graph is wanted. */
static void run_step(const struct pair *p, int which, const struct backend_row *rows, int n,
                     bool taps, struct result *out)
{
    struct gyaru_error err;
    const struct side *s = &p->side[which];
    const struct backend *b = s->b;
    size_t block = (size_t)n * (size_t)p->shape.hidden, n_logits = 0, point = 0;
    for (int r = 0; r < n; r++)
        n_logits += rows[r].logits;
    out->taps = poisoned(POINTS * block);
    memset(out->meter, 0xff, sizeof out->meter);
#define TAP                                                                                        \
    if (taps)                                                                                      \
    b->tap(s->stage, out->taps + point++ * block)
    b->begin(s->stage, rows, n);
    b->embed(s->stage, s->embedding);
    TAP;
    b->edit(s->stage, 1, s->direction[1]);
    TAP;
    b->qkv(s->stage, 0, s->norm, (const struct backend_matrix *const *)s->qkv,
           (const struct backend_vector *const *)s->bias);
    b->attend(s->stage, 0);
    b->project(s->stage, s->output);
    TAP;
    b->gate_up(s->stage, s->norm, s->gate, s->up);
    b->down(s->stage, s->down);
    TAP;
    b->edit(s->stage, 0, s->direction[0]);
    b->meter(s->stage, s->direction[0], out->meter[0]);
    TAP;
    b->head(s->stage, s->norm, s->head);
    float *logits;
    check(b->end(s->stage, &logits, &err), &err);
    out->logits = poisoned(n_logits * (size_t)p->shape.vocab + 1);
    memcpy(out->logits, logits, n_logits * (size_t)p->shape.vocab * sizeof *logits);
}

static void result_free(struct result *r)
{
    free(r->taps);
    free(r->logits);
}

/* |a - b| / |b| of vectors less a common start (NULL: none); NaN never passes. */
static void close_rows(const char *what, const float *a, const float *a0, const float *b,
                       const float *b0, size_t rows, size_t cols, double bound)
{
    for (size_t r = 0; r < rows; r++) {
        double difference = 0, norm = 1e-12;
        for (size_t i = r * cols; i < (r + 1) * cols; i++) {
            double x = (double)a[i] - (a0 ? (double)a0[i] : 0);
            double y = (double)b[i] - (b0 ? (double)b0[i] : 0);
            difference += (x - y) * (x - y);
            norm += y * y;
        }
        double error = sqrt(difference / norm);
        if (!(error <= bound))
            fail_msg("%s, row %zu of %zu: relative error %g, at most %g", what, r, rows, error,
                     bound);
    }
}

static void compare(const struct pair *p, const struct backend_row *rows, int n,
                    const struct result *got, const struct result *want)
{
    static const char *const names[] = {"embed", "edit", "qkv, attend, project", "gate_up, down",
                                        "edit"};
    size_t hidden = (size_t)p->shape.hidden, block = (size_t)n * hidden, n_logits = 0;
    double bound = p->four_bit ? FOUR_BIT : EXACT_TYPES;
    if (p->shape.kv == GYARU_KV_I8)
        bound = 2e-2; /* 127 levels: half a level is 4e-3 of a head's largest value */
    if (p->shape.kv == GYARU_KV_F16)
        bound *= 3; /* rounding to fp16 turns other ways where inputs differ in the last bit, and
                     * tiled attention rounds its weights */
    close_rows("embed", got->taps, NULL, want->taps, NULL, (size_t)n, hidden, 2e-5);
    for (size_t t = 2; t < 4; t++)
        close_rows(names[t], got->taps + t * block, got->taps + (t - 1) * block,
                   want->taps + t * block, want->taps + (t - 1) * block, (size_t)n, hidden, bound);
    close_rows("stream", got->taps + 4 * block, NULL, want->taps + 4 * block, NULL, (size_t)n,
               hidden, bound);
    for (int r = 0; r < n; r++) {
        const float *before = got->taps + (size_t)r * hidden;
        if (rows[r].strength[1] == 0)
            assert_memory_equal(before, before + block, hidden * sizeof *before);
        n_logits += rows[r].logits;
        double length = (double)want->meter[r][1];
        assert_true(fabs((double)got->meter[r][1] - length) <= 2 * bound * length);
        assert_true(fabs((double)got->meter[r][0] - (double)want->meter[r][0]) <=
                    bound * sqrt(length * (double)hidden));
    }
    close_rows("head", got->logits, NULL, want->logits, NULL, n_logits, (size_t)p->shape.vocab,
               2 * bound);
}

/* ---- random steps ---------------------------------------------------------------------------- */

static struct backend_shape random_shape(int round)
{
    static const int dims[] = {16, 32, 64, 128};
    struct backend_shape s = {.n_layers = 1,
                              .n_kv_heads = between(n_gpus, 2 * n_gpus),
                              .head_dim = dims[round % 4],
                              .hidden = 64 * between(1, 5),
                              .intermediate = 64 * between(n_gpus, 6),
                              .vocab = between(n_gpus == 1 ? 33 : 64 * n_gpus - 31, 300),
                              .rope_theta = 10000,
                              .norm_eps = 1e-6f,
                              .n_slots = 3,
                              .context = 400,
                              .max_rows = MAX_ROWS,
                              .max_logits = MAX_ROWS,
                              .kv = round % 2 ? GYARU_KV_F16 : GYARU_KV_F32};
    s.n_heads = s.n_kv_heads * between(1, 9);
    while (s.n_heads * s.head_dim % 64) /* 4-bit rows */
        s.n_heads += s.n_kv_heads;
    return s;
}

/* The next positions of each slot in turn, `fill` of the step's rows at most. */
static int random_rows(const struct pair *p, struct backend_row *rows, int *pos, int n)
{
    int made = 0;
    for (int r = 0; r < n; r++) {
        int slot = between(0, p->shape.n_slots - 1);
        if (pos[slot] == p->shape.context)
            continue;
        rows[made] = (struct backend_row){.token = between(0, p->shape.vocab - 1),
                                          .slot = slot,
                                          .pos = pos[slot]++,
                                          .logits = between(0, 2) == 0};
        rows[made].strength[0] = between(0, 1) ? 3 * next_float() : 0;
        rows[made++].strength[1] = between(0, 1) ? 3 * next_float() : 0;
    }
    return made;
}

static void check_steps(struct pair *p, const int *counts, int n_counts)
{
    int pos[8] = {0};
    for (int i = 0; i < n_counts; i++) {
        struct backend_row rows[MAX_ROWS];
        struct result got, want;
        int n = random_rows(p, rows, pos, counts[i]);
        run_step(p, CPU, rows, n, true, &want);
        run_step(p, GPU, rows, n, true, &got);
        compare(p, rows, n, &got, &want);
        result_free(&got);
        result_free(&want);
    }
}

static void every_type_agrees(void **state)
{
    static const int counts[] = {1, 7, 8, 9, 2, 33, 48};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct pair p;
        struct backend_shape shape = random_shape(kind);
        pair_new(&p, &shape, kind);
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

static void mixed_types_agree(void **state)
{
    static const int counts[] = {3, 1, 17};
    for (int round = 0; round < 6; round += GPUS) {
        struct pair p;
        struct backend_shape shape = random_shape(round);
        pair_new(&p, &shape, -1);
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

/* Widths that are no multiple of anything; 4-bit rows that are no whole blocks. */
static void odd_shapes_agree(void **state)
{
    static const int counts[] = {1, 5, 20};
    struct backend_shape shape = random_shape(2);
    struct pair p;
    shape.hidden = 101;
    shape.intermediate = 64 * n_gpus + 13;
    shape.vocab = 64 * n_gpus - 29;
    for (int kind = BF16; kind < N_KINDS; kind++) {
        pair_new(&p, &shape, kind);
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
    shape.hidden = 72;
    shape.intermediate = 64 * n_gpus + 8;
    shape.n_heads = shape.n_kv_heads = n_gpus;
    shape.head_dim = 32;
    pair_new(&p, &shape, NESTED);
    check_steps(&p, counts, sizeof counts / sizeof *counts);
    pair_free(&p);
}

/* Steps of many rows of several slots: expanded weights, tiled attention, on both sides of where
 * they begin, and few rows on what they left in the cache. */
static void large_chunks_agree(void **state)
{
    static const int counts[] = {129, 9, 64, 128, 1, MAX_ROWS};
    static const enum kind kinds[] = {NESTED, NESTED_LARGE, PLAIN_4BIT};
    for (int round = 0; round < 8; round += GPUS) {
        struct pair p;
        struct backend_shape shape = random_shape(round);
        shape.kv = round < 4 ? GYARU_KV_F16 : round < 6 ? GYARU_KV_I8 : GYARU_KV_F32;
        if (round == 3)
            shape.intermediate = 64 * 43; /* more than one share of rows */
        if (round == 5) {
            shape.vocab = 64 * n_gpus + 13; /* rows of weights that are no multiple of eight */
            shape.n_heads = shape.n_kv_heads = 2 * n_gpus;
        }
        pair_new(&p, &shape, round < 6 ? (int)kinds[round % 3] : -1);
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
}

/* More rows than one product through a library holds at once. */
static void shares_agree(void **state)
{
    struct backend_shape shape = random_shape(1);
    struct pair p;
    struct backend_row *rows = allocate(MOST_ROWS * sizeof *rows);
    struct result want, got;
    int pos[8] = {0};
    shape.max_rows = MOST_ROWS;
    shape.hidden = 128;
    shape.intermediate = 192;
    shape.n_heads = 2 * shape.n_kv_heads;
    pair_new(&p, &shape, NESTED);
    int n = random_rows(&p, rows, pos, MOST_ROWS);
    assert_true(n > 1024);
    for (int r = 0; r < n; r++)
        rows[r].logits = r < 5;
    run_step(&p, CPU, rows, n, true, &want);
    run_step(&p, GPU, rows, n, true, &got);
    compare(&p, rows, n, &got, &want);
    result_free(&got);
    result_free(&want);
    pair_free(&p);
    free(rows);
}

/* Past one split of attention, by chunks and row by row. */
static void long_contexts_agree(void **state)
{
    struct backend_shape shape = random_shape(1);
    int counts[16];
    shape.n_slots = 1;
    shape.hidden = 64;
    shape.intermediate = 64 * n_gpus;
    shape.n_kv_heads = n_gpus;
    shape.n_heads = 2 * n_gpus;
    for (int kv = GYARU_KV_F16; kv <= GYARU_KV_I8; kv++) {
        struct pair p;
        shape.kv = (enum gyaru_kv)kv;
        for (int i = 0; i < 16; i++)
            counts[i] = i < 7 ? 40 : i % 2 ? 1 : 8; /* 280 positions in chunks, then few */
        pair_new(&p, &shape, BF16);
        check_steps(&p, counts, 16);
        pair_free(&p);
    }
}

/* ---- promises -------------------------------------------------------------------------------- */

/* The rows of a step, one by one in fresh stages, give the same bits; those of a step of more than
 * eight rows, with eight others. */
static void rows_do_not_depend_on_neighbours(void **state)
{
    for (int kind = 0; kind < N_KINDS; kind += GPUS) {
        struct backend_shape shape = random_shape(kind);
        struct pair together, alone;
        struct backend_row rows[MAX_ROWS], few[9];
        uint64_t seed = state_of_random;
        shape.n_slots = 48;
        shape.context = 8;
        if (kind == PLAIN_4BIT)
            shape.kv = GYARU_KV_I8;
        pair_new(&together, &shape, kind);
        state_of_random = seed;
        pair_new(&alone, &shape, kind);
        for (int n = 3; n <= 48; n = n == 3 ? 20 : n == 20 ? 41 : 100) {
            struct result all, one;
            size_t hidden = (size_t)shape.hidden, logits = 0;
            for (int r = 0; r < n; r++) {
                rows[r] = (struct backend_row){
                    .token = between(0, shape.vocab - 1), .slot = r, .logits = r % 3 == 0};
                rows[r].strength[0] = rows[r].strength[1] = next_float();
            }
            run_step(&together, GPU, rows, n, true, &all);
            for (int r = 0; r < n; r++) {
                const int n_few = n > 8 ? 9 : 1;
                for (int i = 0; i < n_few; i++)
                    few[i] = rows[(r + i) % n];
                run_step(&alone, GPU, few, n_few, true, &one);
                for (size_t t = 0; t < 5; t++)
                    assert_memory_equal(all.taps + (t * (size_t)n + (size_t)r) * hidden,
                                        one.taps + t * (size_t)n_few * hidden,
                                        hidden * sizeof(float));
                if (rows[r].logits)
                    assert_memory_equal(all.logits + logits++ * (size_t)shape.vocab, one.logits,
                                        (size_t)shape.vocab * sizeof(float));
                result_free(&one);
            }
            result_free(&all);
        }
        pair_free(&together);
        pair_free(&alone);
    }
}

/* Rows of tiled steps, cut differently: the bits stay, whoever shares a tile. */
static void tiles_do_not_depend_on_neighbours(void **state)
{
    for (int round = 0; round < 4; round += GPUS) {
        struct backend_shape shape = random_shape(round);
        struct pair together, apart;
        struct backend_row rows[MAX_ROWS];
        struct result all, part;
        uint64_t seed = state_of_random;
        size_t hidden = (size_t)shape.hidden;
        int pos[8] = {0};
        shape.kv = GYARU_KV_F16;
        pair_new(&together, &shape, NESTED);
        state_of_random = seed;
        pair_new(&apart, &shape, NESTED);
        for (int i = 0; round == 0 && i < 5; i++) { /* long enough for several blocks */
            int n = random_rows(&together, rows, pos, MAX_ROWS);
            run_step(&together, GPU, rows, n, true, &all);
            run_step(&apart, GPU, rows, n, true, &part);
            result_free(&all);
            result_free(&part);
        }
        assert_int_equal(random_rows(&together, rows, pos, 60), 60);
        run_step(&together, GPU, rows, 60, true, &all);
        for (int first = 0, n = 9; first < 60; first += n, n = first == 9 ? 34 : 60 - first) {
            run_step(&apart, GPU, rows + first, n, true, &part);
            for (size_t t = 0; t < 5; t++)
                assert_memory_equal(all.taps + (t * 60 + (size_t)first) * hidden,
                                    part.taps + t * (size_t)n * hidden,
                                    (size_t)n * hidden * sizeof(float));
            result_free(&part);
        }
        result_free(&all);
        pair_free(&together);
        pair_free(&apart);
    }
}

/* The rows of a step as steps of their own, each after those before it in its slot. */
static void same_one_by_one(const struct pair *p, const struct backend_row *rows, int n,
                            const struct result *whole)
{
    size_t vocab = (size_t)p->shape.vocab, logits = 0;
    for (int r = 0; r < n; r++) {
        struct result one;
        run_step(p, GPU, &rows[r], 1, false, &one);
        assert_memory_equal(whole->meter[r], one.meter[0], sizeof one.meter[0]);
        if (rows[r].logits)
            assert_memory_equal(whole->logits + logits++ * vocab, one.logits,
                                vocab * sizeof(float));
        result_free(&one);
    }
}

/* Steps of few rows without taps run as one kernel; with taps, as one for each operation. Both give
 * the CPU's result; the first the same bits when replayed, and whatever rows share a step. */
static void whole_steps_agree(void **state)
{
    static const int counts[] = {1, 8, 3, 1, 1, 2, 5, 8, 1};
    for (int round = 0; round < N_KINDS + 5; round++) {
        struct backend_shape shape = random_shape(round);
        struct pair p;
        int pos[8] = {0};
        shape.hidden = 64 * between(1, 12);
        if (round == N_KINDS) { /* several groups for each warp, parts of rows */
            shape.hidden = 64;
            shape.intermediate = 64 * 130;
        } else if (round == N_KINDS + 1) {
            shape.hidden = 64 * 38;
            shape.intermediate = 64 * GPUS; /* a column block for each */
        }
        if (round == PLAIN_4BIT)
            shape.kv = GYARU_KV_I8; /* which has no such kernel: all are single kernels */
        pair_new(&p, &shape, round < N_KINDS + 3 ? round % N_KINDS : -1);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct backend_row rows[MAX_ROWS];
            struct result taps, whole, again;
            int n = random_rows(&p, rows, pos, counts[i]);
            size_t n_logits = 0;
            for (int r = 0; r < n; r++)
                n_logits += rows[r].logits;
            double bound = 6 * (p.four_bit ? FOUR_BIT : EXACT_TYPES);
            run_step(&p, GPU, rows, n, true, &taps);
            run_step(&p, GPU, rows, n, false, &whole);
            run_step(&p, GPU, rows, n, false, &again);
            assert_memory_equal(whole.meter, again.meter, (size_t)n * sizeof *taps.meter);
            assert_memory_equal(whole.logits, again.logits,
                                n_logits * (size_t)shape.vocab * sizeof *taps.logits);
            close_rows("head", whole.logits, NULL, taps.logits, NULL, n_logits, (size_t)shape.vocab,
                       bound);
            for (int r = 0; r < n; r++) {
                double length = (double)taps.meter[r][1];
                assert_true(fabs((double)whole.meter[r][1] - length) <= bound * length);
                assert_true(fabs((double)whole.meter[r][0] - (double)taps.meter[r][0]) <=
                            bound * sqrt(length * (double)shape.hidden));
            }
            if (shape.kv != GYARU_KV_I8)
                same_one_by_one(&p, rows, n, &whole);
            result_free(&again);
            result_free(&whole);
            result_free(&taps);
        }
        pair_free(&p);
    }
}

/* Without taps, what follows a product of many rows - edits, the next norm - is done with it: the
 * bits stay. */
static void fused_chunks_agree(void **state)
{
    static const int counts[] = {9, 30, 63, MAX_ROWS};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct backend_shape shape = random_shape(kind);
        struct pair p;
        int pos[8] = {0};
        pair_new(&p, &shape, kind);
        for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
            struct backend_row rows[MAX_ROWS];
            struct result taps, fused;
            size_t n_logits = 0;
            int n = random_rows(&p, rows, pos, counts[i]);
            for (int r = 0; r < n; r++)
                n_logits += rows[r].logits;
            run_step(&p, GPU, rows, n, true, &taps);
            run_step(&p, GPU, rows, n, false, &fused);
            assert_memory_equal(fused.meter, taps.meter, (size_t)n * sizeof *taps.meter);
            assert_memory_equal(fused.logits, taps.logits,
                                n_logits * (size_t)shape.vocab * sizeof *taps.logits);
            result_free(&fused);
            result_free(&taps);
        }
        pair_free(&p);
    }
}

/* The same step again and again is replayed as a graph: new tokens, positions and strengths must
 * act, and a vector that took a freed one's place too. */
static void graphs_take_new_values(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(3);
    struct pair p;
    int pos[8] = {0};
    pair_new(&p, &shape, NESTED);
    for (int i = 0; i < 12; i++) {
        struct backend_row rows[MAX_ROWS];
        struct result got, want;
        int n = random_rows(&p, rows, pos, 2);
        rows[0].logits = true;
        rows[1].logits = i % 2;
        run_step(&p, CPU, rows, n, false, &want);
        run_step(&p, GPU, rows, n, false, &got);
        close_rows("head", got.logits, NULL, want.logits, NULL, 1 + (size_t)(i % 2),
                   (size_t)shape.vocab, 4 * FOUR_BIT);
        for (int r = 0; r < n; r++)
            assert_true(fabs((double)got.meter[r][1] - (double)want.meter[r][1]) <=
                        4 * FOUR_BIT * (double)want.meter[r][1]);
        result_free(&got);
        result_free(&want);
        if (i != 7)
            continue;
        float *values = allocate((size_t)shape.hidden * sizeof *values);
        for (int c = 0; c < shape.hidden; c++)
            values[c] = 5 * next_float();
        for (int s = 0; s < 2; s++) {
            struct side *side = &p.side[s];
            side->b->vector_free(side->direction[0]);
            check(side->b->vector_new(side->device, values, (size_t)shape.hidden,
                                      &side->direction[0], &err),
                  &err);
        }
        free(values);
    }
    pair_free(&p);
}

/* What the products read goes far outside fp16's range, as some of Qwen2's activations do: the
 * power of two must keep it. */
static void large_activations_agree(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(0);
    struct pair p;
    struct backend_row row = {.token = 1, .logits = true, .strength = {0, 1}};
    struct result got, want;
    pair_new(&p, &shape, NESTED);
    float *large = allocate((size_t)shape.hidden * sizeof *large);
    for (int i = 0; i < shape.hidden; i++)
        large[i] = 2e4f + 1e4f * next_float();
    for (int i = 0; i < 2; i++) {
        struct side *s = &p.side[i];
        s->b->vector_free(s->norm);
        check(s->b->vector_new(s->device, large, (size_t)shape.hidden, &s->norm, &err), &err);
    }
    run_step(&p, CPU, &row, 1, true, &want);
    run_step(&p, GPU, &row, 1, true, &got);
    size_t hidden = (size_t)shape.hidden;
    close_rows("large", got.taps + 2 * hidden, NULL, want.taps + 2 * hidden, NULL, 1, hidden,
               2 * FOUR_BIT);
    close_rows("larger", got.taps + 3 * hidden, NULL, want.taps + 3 * hidden, NULL, 1, hidden,
               3 * FOUR_BIT);
    result_free(&got);
    result_free(&want);
    free(large);
    pair_free(&p);
}

static void plans_are_what_is_taken(void **state)
{
    struct gyaru_error err;
    struct backend_device *device;
    struct backend_memory memory;
    struct quant_source source;
    void *data = random_source(NESTED, 64, 128, &source);
    check(gpu->open(0, 1, &device, &err), &err);
    gpu->memory(device, &memory);
    assert_true(memory.available > 0 && memory.available <= memory.total);
    /* 4 bits and a byte for 64 weights, tables and alignment aside */
    assert_in_range(gpu->matrix_bytes(device, &source), 64 * 128 / 2 + 128,
                    64 * 128 / 2 + 128 + 3 * 1024);
    source.rows = source.cols = (size_t)1 << 62;
    assert_true(gpu->matrix_bytes(device, &source) == UINT64_MAX);
    gpu->close(device);
    free(data);
    assert_int_equal(gpu->open(99, 1, &device, &err), -1);
    assert_non_null(strstr(err.text, "cuda:99"));
}

/* ---- GPUs that share a model ------------------------------------------------------------------
 */

#if GPUS > 1
/* Heads, columns and ids that do not go evenly: some GPUs have more of them. */
static void three_share(void **state)
{
    static const int counts[] = {1, 9, 70, 3};
    struct gyaru_error err;
    struct backend_device *third;
    setenv("EMU_DEVICES", "3", 1);
    if (gpu->open(2, 1, &third, &err)) {
        printf("SKIP: %s\n", err.text);
        skip();
    }
    gpu->close(third);
    for (int round = 0; round < 4; round++) {
        struct pair p;
        n_gpus = 3;
        struct backend_shape shape = random_shape(round);
        shape.n_heads = shape.n_heads / shape.n_kv_heads * 4;
        shape.n_kv_heads = 4;
        while (shape.n_heads * shape.head_dim % 64)
            shape.n_heads += 4;
        pair_new(&p, &shape, round ? -1 : NESTED);
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        pair_free(&p);
    }
    n_gpus = GPUS;
    unsetenv("EMU_DEVICES");
}

/* The embedding is the head, too: each GPU has all of it and takes its rows. */
static void tied_heads_agree(void **state)
{
    static const int counts[] = {1, 5, 33};
    for (int kind = 0; kind < N_KINDS; kind++) {
        struct pair p;
        struct backend_shape shape = random_shape(kind);
        shape.hidden = 256; /* 64 rows are a whole run of nested scales */
        pair_new(&p, &shape, kind);
        for (int i = 0; i < 2; i++) {
            p.side[i].b->matrix_free(p.side[i].head);
            p.side[i].head = p.side[i].embedding;
        }
        check_steps(&p, counts, sizeof counts / sizeof *counts);
        for (int i = 0; i < 2; i++)
            p.side[i].head = NULL;
        pair_free(&p);
    }
}

static void the_same_step_gives_the_same_bits(void **state)
{
    struct backend_shape shape = random_shape(3);
    struct pair a, b;
    struct backend_row rows[MAX_ROWS];
    uint64_t seed = state_of_random;
    pair_new(&a, &shape, NESTED);
    state_of_random = seed;
    pair_new(&b, &shape, NESTED);
    int pos[8] = {0};
    for (int n = 1; n < 100; n *= 6) {
        struct result one, other;
        int made = random_rows(&a, rows, pos, n);
        run_step(&a, GPU, rows, made, true, &one);
        run_step(&b, GPU, rows, made, true, &other);
        assert_memory_equal(one.taps, other.taps,
                            POINTS * (size_t)made * (size_t)shape.hidden * sizeof(float));
        assert_memory_equal(one.meter, other.meter, (size_t)made * sizeof *one.meter);
        result_free(&one);
        result_free(&other);
    }
    pair_free(&a);
    pair_free(&b);
}

static void each_takes_its_part(void **state)
{
    struct gyaru_error err;
    struct backend_shape shape = random_shape(2), small = shape;
    struct quant_source source;
    const struct backend *b;
    struct backend_device *group, *one;
    uint64_t kv[2], workspace[2];
    void *data = random_source(NESTED, 256, 1024, &source);
    check(open_gpus(GPUS, &b, &group, &err), &err);
    check(gpu->open(0, 1, &one, &err), &err);
    shape.n_kv_heads = shape.n_heads = 2 * GPUS;
    for (int cut = QUANT_BY_ROWS; cut <= QUANT_BY_COLUMNS; cut++) {
        uint64_t all = gpu->matrix_bytes(one, &source);
        source.cut = (enum quant_cut)cut;
        source.unit = 64;
        assert_in_range(b->matrix_bytes(group, &source), all / GPUS, all / GPUS + all / 20);
    }
    gpu->stage_bytes(one, &shape, &kv[0], &workspace[0]);
    b->stage_bytes(group, &shape, &kv[1], &workspace[1]);
    assert_int_equal(kv[1], kv[0] / GPUS);
    assert_true(workspace[1] < workspace[0]);
    assert_int_equal(b->check(group, &shape, &err), 0);
    small.n_kv_heads = 1;
    assert_int_equal(b->check(group, &small, &err), -1);
    assert_non_null(strstr(err.text, "1 kv heads"));
    struct backend_memory memory;
    b->memory(group, &memory);
    assert_int_equal(memory.devices, GPUS);
    printf("on %s\n", b->describe(group));
    gpu->close(one);
    b->close(group);
    free(data);
}

#endif

/* One argument: the tests to run, by a pattern such as "graphs*". */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_agrees),
        cmocka_unit_test(mixed_types_agree),
        cmocka_unit_test(odd_shapes_agree),
        cmocka_unit_test(large_chunks_agree),
        cmocka_unit_test(shares_agree),
        cmocka_unit_test(long_contexts_agree),
        cmocka_unit_test(rows_do_not_depend_on_neighbours),
        cmocka_unit_test(tiles_do_not_depend_on_neighbours),
        cmocka_unit_test(whole_steps_agree),
        cmocka_unit_test(fused_chunks_agree),
        cmocka_unit_test(graphs_take_new_values),
        cmocka_unit_test(large_activations_agree),
        cmocka_unit_test(plans_are_what_is_taken),
#if GPUS > 1
        cmocka_unit_test(each_takes_its_part),
        cmocka_unit_test(tied_heads_agree),
        cmocka_unit_test(the_same_step_gives_the_same_bits),
        cmocka_unit_test(three_share),
#endif
    };
    struct gyaru_error err;
    const struct backend *b;
    struct backend_device *device;
    state_of_random = 11;
    gpu = backend_find("cuda", &err);
    if (!gpu || open_gpus(GPUS, &b, &device, &err)) {
#ifdef CUDA_REQUIRED
        printf("%s\n", err.text);
        return 1;
#else
        printf("SKIP: %s\n", err.text);
        return 0;
#endif
    }
    printf("on %s\n", b->describe(device));
    b->close(device);
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
