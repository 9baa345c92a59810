/* pair.c - see pair.h. */
#include "cuda/pair.h"

#include "cuda/gpus.h"
#include "support/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

const struct backend *gpu;
int n_gpus = GPUS;

int open_gpus(int n, const struct backend **b, struct backend_device **out, struct gyaru_error *err)
{
    static const int indices[BACKEND_DEVICES] = {0, 1, 2, 3, 4, 5, 6, 7};
    *b = gpu;
    return n == 1 ? gpu->open(0, 1, out, err) : gpu->open_group(indices, n, b, out, err);
}

void *allocate(size_t bytes)
{
    void *p = malloc(bytes ? bytes : 1);
    assert_non_null(p);
    return p;
}

void check(int rc, const struct gyaru_error *err)
{
    if (rc)
        fail_msg("%s", err->text);
}

/* ---- one block of a model on both backends -------------------------------------------------- */

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
        values[i] = base + spread * random_float();
    for (int i = 0; i < 2; i++) {
        struct backend_vector **to = (struct backend_vector **)((char *)&p->side[i] + slot);
        check(p->side[i].b->vector_new(p->side[i].device, values, (size_t)n, to, &err), &err);
    }
    free(values);
}

void pair_new(struct pair *p, const struct backend_shape *shape, int kind)
{
    struct gyaru_error err;
    int queries = shape->n_heads * shape->head_dim, keys = shape->n_kv_heads * shape->head_dim;
#define KIND      (kind < 0 ? (enum kind)random_between(0, N_KINDS - 1) : (enum kind)kind)
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

void pair_free(struct pair *p)
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
static float *poisoned(size_t n)
{
    float *p = allocate(n * sizeof *p);
    memset(p, 0xff, n * sizeof *p);
    return p;
}

void pair_run(const struct pair *p, int which, const struct backend_row *rows, int n, bool taps,
              struct result *out)
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

void result_free(struct result *r)
{
    free(r->taps);
    free(r->logits);
}

void close_rows(const char *what, const float *a, const float *a0, const float *b, const float *b0,
                size_t rows, size_t cols, double bound)
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

void pair_compare(const struct pair *p, const struct backend_row *rows, int n,
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

struct backend_shape random_shape(int round)
{
    static const int dims[] = {16, 32, 64, 128};
    struct backend_shape s = {.n_layers = 1,
                              .n_kv_heads = random_between(n_gpus, 2 * n_gpus),
                              .head_dim = dims[round % 4],
                              .hidden = 64 * random_between(1, 5),
                              .intermediate = 64 * random_between(n_gpus, 6),
                              .vocab = random_between(n_gpus == 1 ? 33 : 64 * n_gpus - 31, 300),
                              .rope_theta = 10000,
                              .norm_eps = 1e-6f,
                              .n_slots = 3,
                              .context = 400,
                              .max_rows = MAX_ROWS,
                              .max_logits = MAX_ROWS,
                              .kv = round % 2 ? GYARU_KV_F16 : GYARU_KV_F32};
    s.n_heads = s.n_kv_heads * random_between(1, 9);
    while (s.n_heads * s.head_dim % 64) /* 4-bit rows */
        s.n_heads += s.n_kv_heads;
    return s;
}

int pair_rows(const struct pair *p, struct backend_row *rows, int *pos, int n)
{
    int made = 0;
    for (int r = 0; r < n; r++) {
        int slot = random_between(0, p->shape.n_slots - 1);
        if (pos[slot] == p->shape.context)
            continue;
        rows[made] = (struct backend_row){.token = random_between(0, p->shape.vocab - 1),
                                          .slot = slot,
                                          .pos = pos[slot]++,
                                          .logits = random_between(0, 2) == 0};
        rows[made].strength[0] = random_between(0, 1) ? 3 * random_float() : 0;
        rows[made++].strength[1] = random_between(0, 1) ? 3 * random_float() : 0;
    }
    return made;
}

void pair_check(struct pair *p, const int *counts, int n_counts)
{
    int pos[8] = {0};
    for (int i = 0; i < n_counts; i++) {
        struct backend_row rows[MAX_ROWS];
        struct result got, want;
        int n = pair_rows(p, rows, pos, counts[i]);
        pair_run(p, CPU, rows, n, true, &want);
        pair_run(p, GPU, rows, n, true, &got);
        pair_compare(p, rows, n, &got, &want);
        result_free(&got);
        result_free(&want);
    }
}
