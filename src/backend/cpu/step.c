/*
 * step.c - the operations of backend.h on the CPU, and the table.
 *
 * Every operation is done when it returns. Matrices are split over threads by tiles of sixteen
 * output rows; a tile's result does not depend on who computes it or beside which rows.
 */
#include "backend/cpu/stage.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* One matrix of an operation: what becomes of a finished tile. */
struct product {
    const struct backend_matrix *m;
    const float *bias; /* [m->rows] or NULL; NULL if `add` */
    float *out;        /* [n, m->rows] */
    bool add;          /* out += instead of out = */
};

struct backend_vector {
    size_t n;
    float values[];
};

static int vector_new(struct backend_device *device, const float *values, size_t n,
                      struct backend_vector **out, struct gyaru_error *err)
{
    struct backend_vector *v = malloc(sizeof *v + n * sizeof *values);
    if (!v)
        return error_memory(err, n * sizeof *values, "a vector");
    v->n = n;
    memcpy(v->values, values, n * sizeof *values);
    *out = v;
    return 0;
}

static void vector_free(struct backend_vector *vector)
{
    free(vector);
}

/* `lanes` is a constant where it is TILE, which lets the compiler use vectors. */
static inline void finish_lanes(const struct product *p, size_t first, const float *restrict in,
                                int n, size_t lanes)
{
    const float *bias = p->bias ? p->bias + first : NULL;
    float *restrict out = p->out + first;
    for (int r = 0; r < n; r++, in += TILE, out += p->m->rows) {
        if (p->add)
            for (size_t i = 0; i < lanes; i++)
                out[i] += in[i];
        else if (bias)
            for (size_t i = 0; i < lanes; i++)
                out[i] = in[i] + bias[i];
        else
            memcpy(out, in, lanes * sizeof *out);
    }
}

static void finish_tile(const struct product *p, size_t tile, const float *in, int n)
{
    size_t first = tile * TILE;
    if (p->m->rows - first >= TILE)
        finish_lanes(p, first, in, n, TILE);
    else
        finish_lanes(p, first, in, n, p->m->rows - first);
}

/* Several matrices over the same x [n, cols]. */
struct products {
    struct backend_stage *stage;
    const struct product *first;
    const float *x;
    int n;
};

static void multiply_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct products *all = arg;
    const struct cpu_kernels *kernels = all->stage->device->kernels;
    const struct cpu_scratch *s = &all->stage->scratch[thread];
    for (size_t t = first; t < end; t++) {
        const struct product *p = all->first;
        size_t tile = t;
        for (; tile >= p->m->tiles; p++)
            tile -= p->m->tiles;
        kernels->tile(p->m, tile, all->x, p->m->cols, all->n, s->tile[0], s->group);
        finish_tile(p, tile, s->tile[0], all->n);
    }
}

static void multiply(struct backend_stage *stage, const struct product *products, int n_products,
                     const float *x, int n)
{
    size_t tiles = 0;
    for (int i = 0; i < n_products; i++)
        tiles += products[i].m->tiles;
    pool_run(stage->device->pool, tiles, cpu_grain(TILE * products[0].m->cols * (size_t)n),
             multiply_tiles, &(struct products){stage, products, x, n});
}

static void norm_row(const struct backend_stage *stage, const float *x,
                     const struct backend_vector *weight, float *out)
{
    size_t n = (size_t)stage->shape.hidden;
    float mean = stage->device->kernels->dot(x, x, n) / (float)n;
    float scale = 1.0f / sqrtf(mean + stage->shape.norm_eps);
    stage->device->kernels->norm(out, x, scale, weight->values, n);
}

struct norms {
    struct backend_stage *stage;
    const struct backend_vector *weight;
};

static void norm_rows(void *arg, size_t first, size_t end, int thread)
{
    const struct norms *norms = arg;
    struct backend_stage *stage = norms->stage;
    size_t hidden = (size_t)stage->shape.hidden;
    for (size_t r = first; r < end; r++)
        norm_row(stage, stage->x + r * hidden, norms->weight, stage->norm + r * hidden);
}

static void norm_all(struct backend_stage *stage, const struct backend_vector *weight)
{
    pool_run(stage->device->pool, (size_t)stage->n, cpu_grain(3 * (size_t)stage->shape.hidden),
             norm_rows, &(struct norms){stage, weight});
}

static void op_begin(struct backend_stage *stage, const struct backend_row *rows, int n)
{
    stage->n = n;
    stage->n_logits = 0;
    memcpy(stage->rows, rows, (size_t)n * sizeof *rows);
    cpu_rope(stage);
}

static void op_embed(struct backend_stage *stage, const struct backend_matrix *table)
{
    for (int r = 0; r < stage->n; r++)
        cpu_matrix_row(table, (size_t)stage->rows[r].token,
                       stage->x + (size_t)r * (size_t)stage->shape.hidden);
}

static void op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                   const struct backend_matrix *const weights[3],
                   const struct backend_vector *const biases[3])
{
    norm_all(stage, norm);
    float *outs[3] = {stage->q, stage->k, stage->v};
    struct product products[3];
    for (int i = 0; i < 3; i++)
        products[i] =
            (struct product){weights[i], biases[i] ? biases[i]->values : NULL, outs[i], false};
    multiply(stage, products, 3, stage->norm, stage->n);
    cpu_append(stage, layer);
}

static void op_project(struct backend_stage *stage, const struct backend_matrix *output)
{
    multiply(stage, &(struct product){output, NULL, stage->x, true}, 1, stage->attention, stage->n);
}

struct gated {
    struct backend_stage *stage;
    const struct backend_matrix *gate, *up;
};

static void gate_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct gated *gated = arg;
    struct backend_stage *stage = gated->stage;
    const struct backend_matrix *gate = gated->gate, *up = gated->up;
    const struct cpu_kernels *kernels = stage->device->kernels;
    const struct cpu_scratch *s = &stage->scratch[thread];
    for (size_t t = first; t < end; t++) {
        kernels->tile(gate, t, stage->norm, gate->cols, stage->n, s->tile[0], s->group);
        kernels->tile(up, t, stage->norm, up->cols, stage->n, s->tile[1], s->group);
        kernels->gate(s->tile[0], s->tile[1], (size_t)stage->n * TILE);
        finish_tile(&(struct product){gate, NULL, stage->h, false}, t, s->tile[0], stage->n);
    }
}

static void op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                       const struct backend_matrix *gate, const struct backend_matrix *up)
{
    norm_all(stage, norm);
    pool_run(stage->device->pool, gate->tiles, cpu_grain(2 * TILE * gate->cols * (size_t)stage->n),
             gate_tiles, &(struct gated){stage, gate, up});
}

static void op_down(struct backend_stage *stage, const struct backend_matrix *down)
{
    multiply(stage, &(struct product){down, NULL, stage->x, true}, 1, stage->h, stage->n);
}

static void op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction)
{
    for (int r = 0; r < stage->n; r++)
        if (stage->rows[r].strength[index] != 0)
            stage->device->kernels->axpy(stage->x + (size_t)r * direction->n,
                                         stage->rows[r].strength[index], direction->values,
                                         direction->n);
}

static void op_meter(struct backend_stage *stage, const struct backend_vector *direction,
                     float *out)
{
    for (int r = 0; r < stage->n; r++) {
        const float *x = stage->x + (size_t)r * direction->n;
        out[2 * r] = stage->device->kernels->dot(x, direction->values, direction->n);
        out[2 * r + 1] = stage->device->kernels->dot(x, x, direction->n);
    }
}

static void op_tap(struct backend_stage *stage, float *out)
{
    memcpy(out, stage->x, (size_t)stage->n * (size_t)stage->shape.hidden * sizeof *out);
}

static void op_head(struct backend_stage *stage, const struct backend_vector *norm,
                    const struct backend_matrix *weights)
{
    size_t hidden = (size_t)stage->shape.hidden;
    int n = 0;
    for (int r = 0; r < stage->n; r++)
        if (stage->rows[r].logits)
            norm_row(stage, stage->x + (size_t)r * hidden, norm,
                     stage->norm + (size_t)n++ * hidden);
    stage->n_logits = n;
    if (n)
        multiply(stage, &(struct product){weights, NULL, stage->logits, false}, 1, stage->norm, n);
}

static int op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err)
{
    *logits = stage->logits;
    return 0;
}

const struct backend backend_cpu = {
    .name = "cpu",
    .default_kv = GYARU_KV_F32,
    .default_rows = 128,
    .open = cpu_open,
    .close = cpu_close,
    .describe = cpu_describe,
    .memory = cpu_memory,
    .matrix_bytes = cpu_matrix_bytes,
    .matrix_new = cpu_matrix_new,
    .matrix_free = cpu_matrix_free,
    .vector_new = vector_new,
    .vector_free = vector_free,
    .stage_bytes = cpu_stage_bytes,
    .stage_new = cpu_stage_new,
    .stage_free = cpu_stage_free,
    .begin = op_begin,
    .embed = op_embed,
    .qkv = op_qkv,
    .attend = cpu_attend,
    .project = op_project,
    .gate_up = op_gate_up,
    .down = op_down,
    .edit = op_edit,
    .meter = op_meter,
    .tap = op_tap,
    .head = op_head,
    .end = op_end,
};
