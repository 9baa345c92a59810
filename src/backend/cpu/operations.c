/*
 * operations.c - what the operations of backend.h do with some rows of a step: see stage.h.
 *
 * Matrices are split by tiles of sixteen output rows; a tile's result does not depend on who
 * computes it or beside which rows.
 */
#include "backend/cpu/stage.h"

#include <math.h>
#include <string.h>

/* One matrix of an operation: what becomes of a finished tile. */
struct product {
    const struct backend_matrix *m;
    const float *bias; /* [m->rows] or NULL; NULL if `add` */
    float *out;        /* [n, m->rows] */
    bool add;          /* out += instead of out = */
};

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
    const struct cpu_part *part;
    const struct product *first;
    const float *x;
    int n;
};

static void multiply_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct products *all = arg;
    const struct backend_stage *stage = all->part->stage;
    const struct cpu_scratch *s = &stage->scratch[thread];
    for (size_t t = first; t < end; t++) {
        const struct product *p = all->first;
        size_t tile = t;
        for (; tile >= p->m->tiles; p++)
            tile -= p->m->tiles;
        stage->device->kernels->tile(p->m, tile, all->x, p->m->cols, all->n, s->tile[0], s->group);
        finish_tile(p, tile, s->tile[0], all->n);
    }
}

static void multiply(const struct cpu_part *part, const struct product *products, int n_products,
                     const float *x, int n)
{
    size_t tiles = 0;
    for (int i = 0; i < n_products; i++)
        tiles += products[i].m->tiles;
    cpu_loop(part, tiles, cpu_grain(TILE * products[0].m->cols * (size_t)n), multiply_tiles,
             &(struct products){part, products, x, n});
}

/* Row r of an array of rows of n floats. */
static float *row_of(float *rows, int r, size_t n)
{
    return rows + (size_t)r * n;
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
    const struct cpu_part *part;
    const struct backend_vector *weight;
};

static void norm_rows(void *arg, size_t first, size_t end, int thread)
{
    const struct norms *norms = arg;
    struct backend_stage *stage = norms->part->stage;
    size_t hidden = (size_t)stage->shape.hidden;
    for (size_t i = first; i < end; i++) {
        int r = norms->part->first + (int)i;
        norm_row(stage, row_of(stage->x, r, hidden), norms->weight, row_of(stage->norm, r, hidden));
    }
}

/* Gives the rows' norms. */
static const float *norm_all(const struct cpu_part *part, const struct backend_vector *weight)
{
    struct backend_stage *stage = part->stage;
    size_t hidden = (size_t)stage->shape.hidden;
    cpu_loop(part, (size_t)part->n, cpu_grain(3 * hidden), norm_rows,
             &(struct norms){part, weight});
    return row_of(stage->norm, part->first, hidden);
}

void cpu_embed(const struct cpu_part *part, const struct cpu_op *op)
{
    struct backend_stage *stage = part->stage;
    for (int r = part->first; r < part->first + part->n; r++)
        cpu_matrix_row(op->weights[0], (size_t)stage->rows[r].token,
                       row_of(stage->x, r, (size_t)stage->shape.hidden));
}

void cpu_qkv(const struct cpu_part *part, const struct cpu_op *op)
{
    struct backend_stage *stage = part->stage;
    float *outs[3] = {stage->q, stage->k, stage->v};
    struct product products[3];
    for (int i = 0; i < 3; i++)
        products[i] = (struct product){op->weights[i], op->biases[i] ? op->biases[i]->values : NULL,
                                       row_of(outs[i], part->first, op->weights[i]->rows), false};
    multiply(part, products, 3, norm_all(part, op->vector), part->n);
    cpu_append(part, op->index);
}

/* x += what `in` [rows, cols] gives */
static void add_product(const struct cpu_part *part, const struct backend_matrix *m, float *in)
{
    float *x = row_of(part->stage->x, part->first, m->rows);
    multiply(part, &(struct product){m, NULL, x, true}, 1, row_of(in, part->first, m->cols),
             part->n);
}

void cpu_project(const struct cpu_part *part, const struct cpu_op *op)
{
    add_product(part, op->weights[0], part->stage->attention);
}

void cpu_down(const struct cpu_part *part, const struct cpu_op *op)
{
    add_product(part, op->weights[0], part->stage->h);
}

struct gated {
    const struct cpu_part *part;
    const struct backend_matrix *gate, *up;
    const float *x; /* [n, cols] */
};

static void gate_tiles(void *arg, size_t first, size_t end, int thread)
{
    const struct gated *gated = arg;
    struct backend_stage *stage = gated->part->stage;
    const struct backend_matrix *gate = gated->gate, *up = gated->up;
    const struct cpu_kernels *kernels = stage->device->kernels;
    const struct cpu_scratch *s = &stage->scratch[thread];
    int n = gated->part->n;
    struct product out = {gate, NULL, row_of(stage->h, gated->part->first, gate->rows), false};
    for (size_t t = first; t < end; t++) {
        kernels->tile(gate, t, gated->x, gate->cols, n, s->tile[0], s->group);
        kernels->tile(up, t, gated->x, up->cols, n, s->tile[1], s->group);
        kernels->gate(s->tile[0], s->tile[1], (size_t)n * TILE);
        finish_tile(&out, t, s->tile[0], n);
    }
}

void cpu_gate_up(const struct cpu_part *part, const struct cpu_op *op)
{
    const struct backend_matrix *gate = op->weights[0];
    cpu_loop(part, gate->tiles, cpu_grain(2 * TILE * gate->cols * (size_t)part->n), gate_tiles,
             &(struct gated){part, gate, op->weights[1], norm_all(part, op->vector)});
}

void cpu_edit(const struct cpu_part *part, const struct cpu_op *op)
{
    struct backend_stage *stage = part->stage;
    for (int r = part->first; r < part->first + part->n; r++)
        if (stage->rows[r].strength[op->index] != 0)
            stage->device->kernels->axpy(row_of(stage->x, r, op->vector->n),
                                         stage->rows[r].strength[op->index], op->vector->values,
                                         op->vector->n);
}

void cpu_meter(const struct cpu_part *part, const struct cpu_op *op)
{
    const struct cpu_kernels *kernels = part->stage->device->kernels;
    size_t n = op->vector->n;
    for (int r = part->first; r < part->first + part->n; r++) {
        const float *x = row_of(part->stage->x, r, n);
        op->out[2 * r] = kernels->dot(x, op->vector->values, n);
        op->out[2 * r + 1] = kernels->dot(x, x, n);
    }
}

void cpu_tap(const struct cpu_part *part, const struct cpu_op *op)
{
    size_t hidden = (size_t)part->stage->shape.hidden;
    memcpy(row_of(op->out, part->first, hidden), row_of(part->stage->x, part->first, hidden),
           (size_t)part->n * hidden * sizeof *op->out);
}

/* Norms of rows that want logits lie side by side; those logits follow the earlier rows'. */
void cpu_head(const struct cpu_part *part, const struct cpu_op *op)
{
    struct backend_stage *stage = part->stage;
    const struct backend_matrix *m = op->weights[0];
    size_t hidden = (size_t)stage->shape.hidden;
    float *norms = row_of(stage->norm, part->first, hidden);
    int before = 0, n = 0;
    for (int r = 0; r < part->first; r++)
        before += stage->rows[r].logits;
    for (int r = part->first; r < part->first + part->n; r++)
        if (stage->rows[r].logits)
            norm_row(stage, row_of(stage->x, r, hidden), op->vector, row_of(norms, n++, hidden));
    if (n)
        multiply(part, &(struct product){m, NULL, row_of(stage->logits, before, m->rows), false}, 1,
                 norms, n);
}
