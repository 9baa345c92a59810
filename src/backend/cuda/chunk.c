/*
 * chunk.c - the operations of a step of more than CUDA_GRAPH_ROWS rows. See chunk.h.
 *
 * Products go one of two ways (wide.h). Attention of more than CUDA_FLASH_ROWS rows over a cache of
 * halves is tiled. What cannot be done so stays with step.c: an operation is taken here as a whole
 * or not at all.
 *
 * Who holds what: `packed` has the rows that the next product reads, `partial` (batch.cu) or `h`
 * (cuBLASLt) what it gives. Where gate_up is taken here, down is too, the same way, and finds its
 * input where the other one's product does not lie: in `h` or behind gate_up's input in `packed`.
 * Where attention is tiled and the output projection reads fp16, attention packs its result itself.
 * What is added to the stream is packed for the operation that follows, steering edits between them
 * included, if all rows are at hand: `prepared` is that operation then, and edits up to `done` are.
 */
#include "backend/cuda/wide.h"

#include <limits.h>
#include <stdlib.h>

#define PRODUCT_ROWS 1024 /* rows of the widest product that are held at once, about */

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

/* The longest product of batch.cu, in floats for each row of a pass. */
static size_t segments_of(const struct backend_device *device, const struct backend_shape *s)
{
    const size_t block = CUDA_BLOCK_ROWS, slack = 3 * CUDA_TILE_ROWS;
    struct widths w = widths_of(s);
    size_t rows = larger(larger(w.queries + 2 * w.keys, w.hidden), 2 * w.intermediate) + slack;
    return ((size_t)device->multiprocessors + (rows + block - 1) / block) * block;
}

/* Positions of a block's share: it depends on the stage alone, as a row's bits must. */
static int flash_split(const struct backend_shape *s)
{
    const int share =
        (int)padded_to(((size_t)s->context + CUDA_FLASH_PARTS - 1) / CUDA_FLASH_PARTS, CUDA_GROUP);
    return share > CUDA_FLASH_SPLIT ? share : CUDA_FLASH_SPLIT;
}

size_t cuda_chunk_partial(const struct backend_device *device, const struct backend_shape *s)
{
    size_t vocab = ((size_t)s->vocab + CUDA_BLOCK_ROWS) / CUDA_BLOCK_ROWS * CUDA_BLOCK_ROWS;
    size_t rows = s->max_rows < CUDA_BATCH_ROWS ? (size_t)s->max_rows : CUDA_BATCH_ROWS;

    size_t splits = (size_t)(s->context / flash_split(s) + 1);
    size_t attention =
        splits * rows * (size_t)s->n_heads * ((size_t)s->head_dim + 2) * (splits > 1);
    /* The head takes as many rows at once as there is room for: one at least. */
    return larger(larger(rows * segments_of(device, s), attention),
                  (size_t)device->multiprocessors * CUDA_BLOCK_ROWS + vocab);
}

/* ---- operations -------------------------------------------------------------------------------
 */

static struct cuda_plain plain_of(const struct backend_stage *stage, const struct backend_matrix *m,
                                  const float *x, const struct backend_vector *norm, int n,
                                  void *out)
{
    return (struct cuda_plain){.layout = m->w.layout,
                               .x = x,
                               .norm = norm ? norm->data : NULL,
                               .eps = stage->shape.norm_eps,
                               .n = n,
                               .cols = (int)m->w.cols,
                               .padded = m->w.groups * CUDA_GROUP,
                               .out = out,
                               .row_scale = stage->row_scale};
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

/* gate_up and the down that follows it go the same way. */
static enum cuda_way mlp_way(const struct backend_stage *stage, int n,
                             const struct step_op *gate_up, const struct step_op *down)
{
    if (!gate_up || !down || stage->shape.intermediate > CUDA_GATE_MOST)
        return CUDA_WAY_NONE;
    enum cuda_way way = cuda_way_of(stage, n, gate_up->matrix, 2),
                  other = cuda_way_of(stage, n, down->matrix, 1);
    if (way == other)
        return way;
    return cuda_all_alike(gate_up->matrix, 2) && cuda_all_alike(down->matrix, 1) ? CUDA_WAY_BATCH
                                                                                 : CUDA_WAY_NONE;
}

/* Of the operation itself; an operation that reads no norm'ed x has none. */
static enum cuda_way norm_way(const struct backend_stage *stage, const struct step_list *list,
                              int i)
{
    const struct step_op *op = &list->ops[i];
    if (op->kind == STEP_QKV)
        return cuda_way_of(stage, list->n, op->matrix, 3);
    if (op->kind == STEP_GATE_UP)
        return mlp_way(stage, list->n, op, after(list, i, STEP_DOWN));
    return CUDA_WAY_NONE;
}

/* Where that operation finds its x: gate_up through cuBLASLt has down's input before it. */
static void *norm_place(const struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    size_t before_it = 0;
    if (op->kind == STEP_GATE_UP && norm_way(stage, list, i) == CUDA_WAY_GEMM)
        before_it = (size_t)list->n * padded_to((size_t)stage->shape.intermediate, CUDA_GROUP);
    return (uint16_t *)stage->packed + before_it;
}

/* x of operation i, packed now if it is not yet. */
static const void *norm_input(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    void *place = norm_place(stage, list, i);
    if (stage->prepared != i) {
        struct cuda_plain plain =
            plain_of(stage, op->matrix[0], stage->x, op->norm, list->n, place);
        cuda_plain(&plain, stage->device->stream);
    }
    return place;
}

static bool run_qkv(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    const enum cuda_way way = norm_way(stage, list, i);
    if (way == CUDA_WAY_NONE)
        return false;
    const void *x = norm_input(stage, list, i);
    const size_t queries = (size_t)stage->shape.n_heads * (size_t)stage->shape.head_dim;
    struct cuda_wide w = cuda_widen(stage, way, op->matrix, 3);
    const int n = list->n, share = cuda_wide_share(stage, &w, n);
    for (int first = 0; first < n; first += share) {
        const int rows = n - first < share ? n - first : share;
        struct cuda_append_rows append = {
            .p = cuda_wide_multiply(stage, &w, x, n, first, rows, stage->row_scale),
            .cache = stage->cache,
            .layer = op->index,
            .rows = stage->rows + first,
            .rope = stage->rope,
            .q = stage->q + (size_t)first * queries};
        for (int part = 0; part < 3; part++) {
            append.at[part] = w.at[part];
            append.bias[part] = op->bias[part] ? op->bias[part]->data : NULL;
        }
        cuda_append_rows(&append, stage->device->stream);
    }
    return true;
}

/* Does attention leave its result as the projection after it reads it? */
static bool feeds(const struct backend_stage *stage, const struct step_list *list,
                  const struct step_op *project)
{
    return stage->n_tiles && project && cuda_all_4bit(project->matrix, 1) &&
           cuda_way_of(stage, list->n, project->matrix, 1) != CUDA_WAY_NONE;
}

static bool run_attend(struct backend_stage *stage, const struct step_list *list, int i)
{
    if (!stage->n_tiles)
        return false;
    const struct step_op *project = after(list, i, STEP_PROJECT);
    const bool packed = feeds(stage, list, project);
    const int split = list->n < CUDA_BATCH_ROWS ? flash_split(&stage->shape) : INT_MAX;
    cuda_flash(
        &(struct cuda_flash){.cache = stage->cache,
                             .layer = list->ops[i].index,
                             .wide = stage->wide,
                             .n_tiles = stage->n_tiles,
                             .tiles = stage->tiles,
                             .order = stage->order,
                             .rows = stage->rows,
                             .n = list->n,
                             .split = split,
                             .splits = stage->last_pos / split + 1,
                             .partial = stage->partial,
                             .q = stage->q,
                             .out = packed ? NULL : stage->attention,
                             .half_out = stage->packed,
                             .pitch = packed ? project->matrix[0]->w.groups * CUDA_GROUP : 0},
        stage->device->stream);
    return true;
}

/* The edits that follow operation i, and what the operation after them wants packed. */
static void find_next(struct backend_stage *stage, const struct step_list *list, int i,
                      struct cuda_add_rows *add)
{
    int next = i + 1;
    for (; next < list->n_ops && list->ops[next].kind == STEP_EDIT && add->n_edits < CUDA_EDITS;
         next++)
        add->edits[add->n_edits++] =
            (struct cuda_edit_of){list->ops[next].index, list->ops[next].norm->data};
    stage->done = next - 1;
    if (next == list->n_ops || norm_way(stage, list, next) == CUDA_WAY_NONE)
        return;
    add->pack = plain_of(stage, list->ops[next].matrix[0], add->x, list->ops[next].norm, list->n,
                         norm_place(stage, list, next));
    stage->prepared = next;
}

/* x += the op's matrix times rows that lie packed. */
static void add_product(struct backend_stage *stage, const struct step_list *list, int i,
                        enum cuda_way way, const void *x, const float *row_scale)
{
    const int n = list->n, hidden = stage->shape.hidden;
    struct cuda_wide w = cuda_widen(stage, way, list->ops[i].matrix, 1);
    const int share = cuda_wide_share(stage, &w, n);
    struct cuda_add_rows add = {.cols = hidden, .x = stage->x, .rows = stage->rows};
    if (way == CUDA_WAY_GEMM && !row_scale) { /* the library adds */
        cuda_wide_gemm(stage, &(struct cuda_gemm){.m = hidden,
                                                  .n = n,
                                                  .k = w.cols,
                                                  .w = stage->expanded,
                                                  .x = x,
                                                  .out = stage->x,
                                                  .pitch = hidden,
                                                  .alpha = w.alpha,
                                                  .beta = 1});
        return;
    }
    if (share >= n && !stage->member)
        find_next(stage, list, i, &add);
    for (int first = 0; first < n; first += share) {
        add.p = cuda_wide_multiply(stage, &w, x, n, first, n - first < share ? n - first : share,
                                   row_scale);
        add.x = stage->x + (size_t)first * (size_t)hidden;
        cuda_add_rows(&add, stage->device->stream);
    }
}

static bool run_project(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    const enum cuda_way way = cuda_way_of(stage, list->n, op->matrix, 1);
    if (way == CUDA_WAY_NONE)
        return false;
    const bool fed = feeds(stage, list, op) && before(list, i, STEP_ATTEND);
    if (!fed) {
        struct cuda_plain plain =
            plain_of(stage, op->matrix[0], stage->attention, NULL, list->n, stage->packed);
        cuda_plain(&plain, stage->device->stream);
    }
    add_product(stage, list, i, way, stage->packed, fed ? NULL : stage->row_scale);
    return true;
}

/* Where gate_up leaves what down reads. */
static void *mlp_place(const struct backend_stage *stage, enum cuda_way way)
{
    return way == CUDA_WAY_GEMM ? stage->packed : stage->h;
}

static bool run_gate_up(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i], *down = after(list, i, STEP_DOWN);
    const enum cuda_way way = norm_way(stage, list, i);
    if (way == CUDA_WAY_NONE)
        return false;
    const void *x = norm_input(stage, list, i);
    struct cuda_wide w = cuda_widen(stage, way, op->matrix, 2);
    const int n = list->n, share = cuda_wide_share(stage, &w, n);
    const size_t padded = (size_t)down->matrix[0]->w.groups * CUDA_GROUP;
    for (int first = 0; first < n; first += share) {
        const int rows = n - first < share ? n - first : share;
        cuda_pair_rows(
            &(struct cuda_pair_rows){
                .p = cuda_wide_multiply(stage, &w, x, n, first, rows, stage->row_scale),
                .cols = stage->shape.intermediate,
                .up = w.at[1],
                .padded = (int)padded,
                .layout = down->matrix[0]->w.layout,
                .plane = (size_t)n * padded,
                .out = (uint16_t *)mlp_place(stage, way) + (size_t)first * padded,
                .row_scale = stage->row_scale + first},
            stage->device->stream);
    }
    return true;
}

static bool run_down(struct backend_stage *stage, const struct step_list *list, int i)
{
    const enum cuda_way way = mlp_way(stage, list->n, before(list, i, STEP_GATE_UP), &list->ops[i]);
    if (way == CUDA_WAY_NONE)
        return false;
    add_product(stage, list, i, way, mlp_place(stage, way), stage->row_scale);
    return true;
}

static bool run_head(struct backend_stage *stage, const struct step_list *list, int i)
{
    const struct step_op *op = &list->ops[i];
    const int n = list->n_logits;
    if (list->n <= CUDA_GRAPH_ROWS || !n || !cuda_all_alike(op->matrix, 1))
        return false;
    struct cuda_plain plain = plain_of(stage, op->matrix[0], stage->x, op->norm, n, stage->packed);
    plain.rows = stage->rows;
    plain.n_rows = list->n;
    cuda_plain(&plain, stage->device->stream);
    struct cuda_wide w = cuda_widen(stage, CUDA_WAY_BATCH, op->matrix, 1);
    const int share = cuda_wide_share(stage, &w, n);
    for (int first = 0; first < n; first += share) {
        struct cuda_product_rows p =
            cuda_wide_multiply(stage, &w, stage->packed, n, first,
                               n - first < share ? n - first : share, stage->row_scale);
        cuda_store_rows(&p, stage->shape.vocab,
                        stage->logits + (size_t)first * (size_t)stage->shape.vocab,
                        stage->device->stream);
    }
    return true;
}

bool cuda_chunk_op(struct backend_stage *stage, const struct step_list *list, int i)
{
    if (i <= stage->done)
        return true;
    switch (list->ops[i].kind) {
    case STEP_QKV:
        return run_qkv(stage, list, i);
    case STEP_ATTEND:
        return run_attend(stage, list, i);
    case STEP_PROJECT:
        return run_project(stage, list, i);
    case STEP_GATE_UP:
        return run_gate_up(stage, list, i);
    case STEP_DOWN:
        return run_down(stage, list, i);
    case STEP_HEAD:
        return run_head(stage, list, i);
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
    stage->prepared = stage->done = -1;
    if (list->n <= CUDA_FLASH_ROWS || c->type != CUDA_KV_HALF || group > CUDA_FLASH_GROUP)
        return;
    /* Large tiles where even they are two for each multiprocessor; they are never shared. */
    stage->wide = list->n >= CUDA_CHUNK_ROWS &&
                  (long long)list->n * c->heads >= 256LL * stage->device->multiprocessors;
    for (int slot = 0; slot < c->slots && n_order < list->n; slot++)
        cut_slot(stage, list, slot, cuda_flash_rows(c, stage->wide), &n_order);
    stage->last_pos = 0;
    for (int r = 0; r < list->n; r++)
        if (stage->rows_host[r].pos > stage->last_pos)
            stage->last_pos = stage->rows_host[r].pos;
    qsort(stage->tiles_host, (size_t)stage->n_tiles, sizeof *stage->tiles_host, by_length);
    cudaStream_t stream = stage->device->stream;
    (void)cudaMemcpyAsync(stage->tiles, stage->tiles_host,
                          (size_t)stage->n_tiles * sizeof *stage->tiles, cudaMemcpyHostToDevice,
                          stream);
    (void)cudaMemcpyAsync(stage->order, stage->order_host, (size_t)list->n * sizeof *stage->order,
                          cudaMemcpyHostToDevice, stream);
}
