/*
 * chunk.c - the operations of a step of many rows. See chunk.h.
 *
 * Products of CUDA_CHUNK_ROWS rows and more whose weights are 4-bit go through cuBLASLt; attention
 * of more than CUDA_FLASH_ROWS rows over a cache of halves is tiled. All else stays with step.c: an
 * operation is taken here as a whole or not at all.
 *
 * Who holds what: `packed` has x as fp16 rows, `h` a product as float rows. Where gate_up is taken
 * here, down is too, and finds its input in `packed`; where attention is tiled and the output
 * projection taken, attention leaves its result there itself.
 */
#include "backend/cuda/stage.h"

#include <math.h>
#include <stdlib.h>

#define PRODUCT_ROWS 1024 /* rows of the widest product that are held at once, about */

static size_t padded_to(size_t n, size_t to)
{
    return (n + to - 1) / to * to;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* ---- memory -----------------------------------------------------------------------------------
 */

struct widths {
    size_t queries, keys, hidden, intermediate; /* rows of weights, padded */
};

static struct widths widths_of(const struct backend_shape *s)
{
    return (struct widths){padded_to((size_t)s->n_heads * (size_t)s->head_dim, CUDA_PAD),
                           padded_to((size_t)s->n_kv_heads * (size_t)s->head_dim, CUDA_PAD),
                           padded_to((size_t)s->hidden, CUDA_PAD),
                           padded_to((size_t)s->intermediate, CUDA_PAD)};
}

static bool has_chunks(const struct backend_device *d, const struct backend_shape *s)
{
    return d->blas.library && s->max_rows >= CUDA_CHUNK_ROWS;
}

size_t cuda_chunk_expanded(const struct backend_device *device, const struct backend_shape *s)
{
    struct widths w = widths_of(s);
    size_t hidden = padded_to(w.hidden, CUDA_GROUP);
    if (!has_chunks(device, s))
        return 0;
    return larger(
        larger((w.queries + 2 * w.keys) * hidden, w.hidden * padded_to(w.queries, CUDA_GROUP)),
        larger(2 * w.intermediate * hidden, w.hidden * padded_to(w.intermediate, CUDA_GROUP)));
}

size_t cuda_chunk_product(const struct backend_device *device, const struct backend_shape *s)
{
    struct widths w = widths_of(s);
    size_t rows = s->max_rows < PRODUCT_ROWS ? (size_t)s->max_rows : PRODUCT_ROWS;
    if (!has_chunks(device, s))
        return 0;
    return rows * larger(larger(w.queries + 2 * w.keys, w.hidden), 2 * w.intermediate);
}

/* ---- products ---------------------------------------------------------------------------------
 */

static bool is_4bit(const struct backend_matrix *m)
{
    return m->w.layout == CUDA_NESTED || m->w.layout == CUDA_4BIT;
}

/* Weights of one product, one part under the other: out gets `pitch` columns. */
struct wide {
    int n_parts, pitch, cols;
    int at[3]; /* column of out where a part begins */
    float alpha;
};

/* The power of two that brings the largest weight of all parts below 2^15. */
static int exponent_of(const struct backend_matrix *const *parts, int n)
{
    float ceiling = 0;
    int e = 0;
    for (int i = 0; i < n; i++)
        ceiling = fmaxf(ceiling, parts[i]->w.ceiling);
    if (!(ceiling > 0) || isinf(ceiling))
        return 0;
    (void)frexpf(ceiling, &e); /* ceiling < 2^e */
    e = 15 - e;
    return e > 100 ? 100 : e < -100 ? -100 : e;
}

static struct wide expand(struct backend_stage *stage, const struct backend_matrix *const *parts,
                          int n)
{
    int e = exponent_of(parts, n);
    struct wide out = {
        .n_parts = n, .cols = parts[0]->w.groups * CUDA_GROUP, .alpha = ldexpf(1, -e)};
    for (int i = 0; i < n; i++) {
        size_t padded = padded_to(parts[i]->w.rows, CUDA_PAD);
        out.at[i] = out.pitch;
        cuda_expand(&(struct cuda_expand){.w = parts[i]->w,
                                          .padded = padded,
                                          .scale = ldexpf(1, e),
                                          .out = (uint16_t *)stage->expanded +
                                                 (size_t)out.pitch * (size_t)out.cols},
                    stage->device->stream);
        out.pitch += (int)padded;
    }
    return out;
}

/* Rows [first, first+n) of `packed` times what is expanded: to h, or added to rows of x. */
static void multiply(struct backend_stage *stage, const struct wide *w, int first, int n,
                     bool into_x)
{
    struct cuda_gemm gemm = {.m = into_x ? stage->shape.hidden : w->pitch,
                             .n = n,
                             .k = w->cols,
                             .w = stage->expanded,
                             .x = (uint16_t *)stage->packed + (size_t)first * (size_t)w->cols,
                             .out = stage->h,
                             .pitch = w->pitch,
                             .alpha = w->alpha};
    if (into_x) {
        gemm.out = stage->x + (size_t)first * (size_t)stage->shape.hidden;
        gemm.pitch = stage->shape.hidden;
        gemm.beta = 1;
    }
    if (!cuda_gemm_run(&stage->gemms, &gemm, stage->device->stream))
        stage->failed = "cuBLASLt refused a product";
}

static void pack(struct backend_stage *stage, const float *x, const struct backend_vector *norm,
                 int cols, int padded, int n)
{
    cuda_plain(&(struct cuda_plain){.x = x,
                                    .norm = norm ? norm->data : NULL,
                                    .eps = stage->shape.norm_eps,
                                    .n = n,
                                    .cols = cols,
                                    .padded = padded,
                                    .out = stage->packed,
                                    .row_scale = stage->row_scale},
               stage->device->stream);
}

/* How many rows of a product fit into h: equal shares of n. */
static int share_of(const struct backend_stage *stage, const struct wide *w, int n)
{
    size_t most = stage->h_floats / (size_t)w->pitch;
    int parts = (int)(((size_t)n + most - 1) / most);
    int rows = (int)padded_to((size_t)((n + parts - 1) / parts), CUDA_PAD);
    return rows < (int)most ? rows : (int)most;
}

static struct cuda_product_rows rows_of(const struct backend_stage *stage, const struct wide *w,
                                        int first, int n)
{
    return (struct cuda_product_rows){stage->h, n, w->pitch, stage->row_scale + first};
}

/* ---- operations -------------------------------------------------------------------------------
 */

static bool can_multiply(const struct backend_stage *stage, const struct step_list *list)
{
    return stage->gemms.blas && list->n >= CUDA_CHUNK_ROWS;
}

static bool all_4bit(const struct step_op *op, int n)
{
    for (int i = 0; i < n; i++)
        if (!is_4bit(op->matrix[i]))
            return false;
    return true;
}

/* The next operation of a kind, NULL if there is none; and the one before. */
static const struct step_op *after(const struct step_list *list, int i, enum step_kind kind)
{
    while (++i < list->n_ops)
        if (list->ops[i].kind == kind)
            return &list->ops[i];
    return NULL;
}

static const struct step_op *before(const struct step_list *list, int i, enum step_kind kind)
{
    while (--i >= 0)
        if (list->ops[i].kind == kind)
            return &list->ops[i];
    return NULL;
}

/* gate_up and the down that follows it go the same way: h lies elsewhere. */
static bool takes_mlp(const struct backend_stage *stage, const struct step_op *gate_up,
                      const struct step_op *down)
{
    return gate_up && down && all_4bit(gate_up, 2) && all_4bit(down, 1) &&
           stage->shape.intermediate <= CUDA_GATE_MOST;
}

static bool run_qkv(struct backend_stage *stage, const struct step_op *op, int n)
{
    if (!all_4bit(op, 3))
        return false;
    const int hidden = stage->shape.hidden;
    pack(stage, stage->x, op->norm, hidden, op->matrix[0]->w.groups * CUDA_GROUP, n);
    struct wide w = expand(stage, op->matrix, 3);
    const int share = share_of(stage, &w, n);
    for (int first = 0; first < n; first += share) {
        const int rows = n - first < share ? n - first : share;
        struct cuda_append_rows append = {.p = rows_of(stage, &w, first, rows),
                                          .cache = stage->cache,
                                          .layer = op->index,
                                          .rows = stage->rows + first,
                                          .rope = stage->rope,
                                          .q = stage->q + (size_t)first *
                                                              (size_t)stage->shape.n_heads *
                                                              (size_t)stage->shape.head_dim};
        for (int i = 0; i < 3; i++) {
            append.at[i] = w.at[i];
            append.bias[i] = op->bias[i] ? op->bias[i]->data : NULL;
        }
        multiply(stage, &w, first, rows, false);
        cuda_append_rows(&append, stage->device->stream);
    }
    return true;
}

/* Is the projection after this attention taken here, and does attention feed it? */
static bool feeds(const struct backend_stage *stage, const struct step_list *list,
                  const struct step_op *project)
{
    return stage->n_tiles && can_multiply(stage, list) && project && all_4bit(project, 1);
}

static bool run_attend(struct backend_stage *stage, const struct step_list *list, int i)
{
    if (!stage->n_tiles)
        return false;
    const struct step_op *project = after(list, i, STEP_PROJECT);
    const bool packed = feeds(stage, list, project);
    cuda_flash(
        &(struct cuda_flash){.cache = stage->cache,
                             .layer = list->ops[i].index,
                             .wide = stage->wide,
                             .n_tiles = stage->n_tiles,
                             .tiles = stage->tiles,
                             .order = stage->order,
                             .rows = stage->rows,
                             .q = stage->q,
                             .out = packed ? NULL : stage->attention,
                             .half_out = stage->packed,
                             .pitch = packed ? project->matrix[0]->w.groups * CUDA_GROUP : 0},
        stage->device->stream);
    return true;
}

/* x += what lies packed times the op's matrix; scaled: with row_scale to be undone. */
static void add_product(struct backend_stage *stage, const struct step_op *op, int n, bool scaled)
{
    struct wide w = expand(stage, op->matrix, 1);
    if (!scaled) {
        multiply(stage, &w, 0, n, true);
        return;
    }
    const int share = share_of(stage, &w, n), hidden = stage->shape.hidden;
    for (int first = 0; first < n; first += share) {
        struct cuda_product_rows rows =
            rows_of(stage, &w, first, n - first < share ? n - first : share);
        multiply(stage, &w, first, rows.n, false);
        cuda_add_rows(&rows, hidden, stage->x + (size_t)first * (size_t)hidden,
                      stage->device->stream);
    }
}

static bool run_project(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    if (!all_4bit(op, 1))
        return false;
    const bool fed = feeds(stage, list, op) && before(list, i, STEP_ATTEND);
    if (!fed)
        pack(stage, stage->attention, NULL, (int)op->matrix[0]->w.cols,
             op->matrix[0]->w.groups * CUDA_GROUP, list->n);
    add_product(stage, op, list->n, !fed);
    return true;
}

static bool run_gate_up(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i], *down = after(list, i, STEP_DOWN);
    const int n = list->n;
    if (!takes_mlp(stage, op, down))
        return false;
    pack(stage, stage->x, op->norm, stage->shape.hidden, op->matrix[0]->w.groups * CUDA_GROUP, n);
    struct wide w = expand(stage, op->matrix, 2);
    const int share = share_of(stage, &w, n), padded = down->matrix[0]->w.groups * CUDA_GROUP;
    for (int first = 0; first < n; first += share) {
        const int rows = n - first < share ? n - first : share;
        multiply(stage, &w, first, rows, false);
        cuda_pair_rows(&(struct cuda_pair_rows){.p = rows_of(stage, &w, first, rows),
                                                .cols = stage->shape.intermediate,
                                                .up = w.at[1],
                                                .padded = padded,
                                                .out = (uint16_t *)stage->packed +
                                                       (size_t)first * (size_t)padded,
                                                .row_scale = stage->row_scale + first},
                       stage->device->stream);
    }
    return true;
}

static bool run_down(struct backend_stage *stage, const struct step_list *list, int i)
{
    if (!takes_mlp(stage, before(list, i, STEP_GATE_UP), &list->ops[i]))
        return false;
    add_product(stage, &list->ops[i], list->n, true);
    return true;
}

bool cuda_chunk_op(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    if (op->kind == STEP_ATTEND)
        return run_attend(stage, list, i);
    if (!can_multiply(stage, list))
        return false;
    switch (op->kind) {
    case STEP_QKV:
        return run_qkv(stage, op, list->n);
    case STEP_PROJECT:
        return run_project(stage, list, i);
    case STEP_GATE_UP:
        return run_gate_up(stage, list, i);
    case STEP_DOWN:
        return run_down(stage, list, i);
    default:
        return false;
    }
}

/* ---- tiles of attention -----------------------------------------------------------------------
 */

/* Rows of one slot in their order, `rows` to a tile. */
static void cut_slot(struct backend_stage *stage, const struct step_list *list, int slot, int rows,
                     int *n_order)
{
    int begin = *n_order;
    for (int r = 0; r < list->n; r++)
        if (stage->rows_host[r].slot == slot)
            stage->order_host[(*n_order)++] = r;
    for (int first = begin; first < *n_order; first += rows) {
        struct cuda_tile *tile = &stage->tiles_host[stage->n_tiles++];
        *tile =
            (struct cuda_tile){first, *n_order - first < rows ? *n_order - first : rows, slot, 0};
        for (int i = first; i < first + tile->count; i++) {
            int pos = stage->rows_host[stage->order_host[i]].pos;
            tile->last = pos > tile->last ? pos : tile->last;
        }
    }
}

/* The longest first: short ones then fill the gaps at the end. */
static int by_length(const void *a, const void *b)
{
    const struct cuda_tile *x = a, *y = b;
    return x->last != y->last ? (x->last < y->last ? 1 : -1) : x->first - y->first;
}

void cuda_chunk_begin(struct backend_stage *stage, const struct step_list *list)
{
    const struct cuda_cache *c = &stage->cache;
    int n_order = 0, group = c->heads / c->kv_heads;
    stage->n_tiles = 0;
    if (list->n <= CUDA_FLASH_ROWS || c->type != CUDA_KV_HALF || group > CUDA_FLASH_GROUP)
        return;
    /* Large tiles where even they are two for each multiprocessor. */
    stage->wide = (long long)list->n * c->heads >= 256LL * stage->device->multiprocessors;
    for (int slot = 0; slot < c->slots && n_order < list->n; slot++)
        cut_slot(stage, list, slot, cuda_flash_rows(c, stage->wide), &n_order);
    qsort(stage->tiles_host, (size_t)stage->n_tiles, sizeof *stage->tiles_host, by_length);
    cudaStream_t stream = stage->device->stream;
    (void)cudaMemcpyAsync(stage->tiles, stage->tiles_host,
                          (size_t)stage->n_tiles * sizeof *stage->tiles, cudaMemcpyHostToDevice,
                          stream);
    (void)cudaMemcpyAsync(stage->order, stage->order_host, (size_t)list->n * sizeof *stage->order,
                          cudaMemcpyHostToDevice, stream);
}
