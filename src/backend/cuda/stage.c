/*
 * stage.c - allocates everything that a step touches, once. See stage.h.
 */
#include "backend/cuda/stage.h"

#include "backend/carve.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 256

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t blocks_of(const struct backend_shape *s)
{
    return ((size_t)s->context + CUDA_SPLIT - 1) / CUDA_SPLIT;
}

static size_t query_blocks(const struct backend_shape *s)
{
    int group = s->n_heads / s->n_kv_heads;
    return (size_t)s->n_kv_heads * (size_t)((group + CUDA_QUERIES - 1) / CUDA_QUERIES);
}

/* Tiles of the widest product, halves in a gate-up pair; and attention's counters. */
static size_t counters_of(const struct backend_shape *s)
{
    size_t heads = (size_t)s->n_heads + 2 * (size_t)s->n_kv_heads;
    size_t rows = larger(larger((size_t)s->vocab, (size_t)s->intermediate),
                         larger(heads * (size_t)s->head_dim, (size_t)s->hidden));
    return larger(rows / 16 + 8, (size_t)s->max_rows * query_blocks(s));
}

static void carve_choice(struct carver *c, const struct backend_shape *s, struct cuda_choose *to)
{
    size_t rows = (size_t)s->max_logits;
    to->vocab = s->vocab;
    to->seen_words = s->vocab / 32 + 1; /* id `vocab` has a bit: group_sample.c */
    to->seen = carve(c, (size_t)s->n_slots * (size_t)to->seen_words, sizeof *to->seen);
    to->scratch = carve(c, rows * CUDA_CHOOSE_SCRATCH, sizeof *to->scratch);
    to->counters = carve(c, rows, sizeof *to->counters);
    to->odd = carve(c, rows, sizeof *to->odd);
    to->out = carve(c, rows, sizeof *to->out);
}

/* Of a program: seven products of a layer, each in two passes, attention, meters. */
static int phases_of(const struct backend_shape *s)
{
    return s->n_layers * 18 + 24;
}

static void carve_stage(struct carver *c, const struct backend_shape *s,
                        const struct backend_device *device, struct backend_stage *stage)
{
    size_t rows = (size_t)s->max_rows, head_dim = (size_t)s->head_dim;
    size_t queries = (size_t)s->n_heads * head_dim, keys = (size_t)s->n_kv_heads * head_dim;
    size_t hidden = (size_t)s->hidden, intermediate = (size_t)s->intermediate;
    size_t widest = larger(queries, larger(hidden, intermediate));
    size_t padded = (widest + CUDA_GROUP - 1) / CUDA_GROUP * CUDA_GROUP;
    size_t gated = (intermediate + CUDA_GROUP - 1) / CUDA_GROUP * CUDA_GROUP;
    size_t few = rows < CUDA_GRAPH_ROWS ? rows : CUDA_GRAPH_ROWS;
    size_t workers = (size_t)device->multiprocessors * CUDA_WARPS;
    stage->rows = carve(c, rows, sizeof *stage->rows);
    stage->x = carve(c, rows * hidden, sizeof(float));
    stage->other_x = carve(c, few * hidden, sizeof(float));
    stage->parts = carve(c, CUDA_PARTS * few * hidden, sizeof(float));
    stage->q = carve(c, rows * queries, sizeof(float));
    stage->k = carve(c, rows * keys, sizeof(float));
    stage->v = carve(c, rows * keys, sizeof(float));
    stage->attention = carve(c, rows * queries, sizeof(float));
    stage->h_floats = larger(rows * gated, cuda_chunk_product(device, s));
    stage->h = carve(c, stage->h_floats, sizeof(float));
    stage->logits = carve(c, (size_t)s->max_logits * (size_t)s->vocab, sizeof(float));
    stage->meters = carve(c, CUDA_METERS * rows * 2, sizeof(float));
    stage->rope = carve(c, (size_t)s->context * head_dim, sizeof(float));
    stage->packed = carve(c, (larger(rows, (size_t)s->max_logits) + 7) / 8 * 8 * padded, 4);
    stage->row_scale = carve(c, larger(rows, (size_t)s->max_logits), sizeof(float));
    stage->partial_floats =
        larger(workers * 2 * CUDA_TILE_ROWS * CUDA_PASS_ROWS, cuda_chunk_partial(device, s));
    stage->partial = carve(c, stage->partial_floats, sizeof(float));
    stage->split = carve(c, few * query_blocks(s) * blocks_of(s) * CUDA_QUERIES * (head_dim + 2),
                         sizeof(float));
    stage->n_counters = counters_of(s);
    stage->counters = carve(c, stage->n_counters, sizeof(int));
    carve_choice(c, s, &stage->choose);
    stage->tiles = carve(c, rows, sizeof *stage->tiles);
    stage->order = carve(c, rows, sizeof *stage->order);
    size_t expanded = cuda_chunk_expanded(device, s);
    stage->expanded = carve(c, expanded, sizeof(uint16_t));
    stage->gemms.workspace = carve(c, expanded ? CUDA_GEMM_WORKSPACE : 0, 1);
    stage->barrier = carve(c, 1, sizeof *stage->barrier);
    stage->max_phases = phases_of(s);
    for (int i = 0; i < CUDA_GRAPHS; i++)
        stage->graphs[i].program.phases =
            carve(c, (size_t)stage->max_phases, sizeof(struct cuda_phase));
}

static size_t workspace_bytes(const struct backend_shape *s, const struct backend_device *device)
{
    struct carver measure = {NULL, 0, ALIGN};
    struct backend_stage unused;
    carve_stage(&measure, s, device, &unused);
    return measure.used;
}

static size_t cache_element(const struct backend_shape *s)
{
    return s->kv == GYARU_KV_I8 ? 1 : s->kv == GYARU_KV_F16 ? 2 : 4;
}

/* Of k or v; int8 with its scales behind. */
static size_t cache_bytes(const struct backend_shape *s)
{
    return (size_t)s->n_layers * (size_t)s->n_slots * (size_t)s->n_kv_heads * (size_t)s->context *
           ((size_t)s->head_dim * cache_element(s) + (s->kv == GYARU_KV_I8 ? sizeof(float) : 0));
}

void cuda_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                      uint64_t *kv, uint64_t *workspace)
{
    *kv = 2 * (uint64_t)cache_bytes(shape);
    *workspace = workspace_bytes(shape, device);
}

int cuda_check_shape(const struct backend_device *device, const struct backend_shape *s,
                     struct gyaru_error *err)
{
    if (s->head_dim % 8 || s->head_dim > CUDA_HEAD_DIM)
        return error_set(err, GYARU_FAILED,
                         "head dimension %d: the CUDA backend needs a multiple of 8 of at most %d",
                         s->head_dim, CUDA_HEAD_DIM);
    if (s->n_heads % s->n_kv_heads)
        return error_set(err, GYARU_FAILED, "%d heads over %d kv heads: expected a multiple",
                         s->n_heads, s->n_kv_heads);
    return 0;
}

static int allocate(struct backend_stage *stage, size_t bytes, struct gyaru_error *err)
{
    const struct backend_shape *s = &stage->shape;
    size_t rows = (size_t)s->max_rows, cache = cache_bytes(s);
    if (cuda_check(cudaMalloc(&stage->block, bytes), "the workspace", err) ||
        cuda_check(cudaMalloc(&stage->cache.k, cache), "the KV cache", err) ||
        cuda_check(cudaMalloc(&stage->cache.v, cache), "the KV cache", err) ||
        cuda_check(cudaHostAlloc((void **)&stage->rows_host, rows * sizeof *stage->rows_host,
                                 cudaHostAllocDefault),
                   "pinned memory", err) ||
        cuda_check(cudaHostAlloc((void **)&stage->logits_host,
                                 (size_t)s->max_logits * (size_t)s->vocab * sizeof(float),
                                 cudaHostAllocDefault),
                   "pinned memory for logits", err) ||
        cuda_check(cudaHostAlloc((void **)&stage->meter_host,
                                 CUDA_METERS * rows * 2 * sizeof(float), cudaHostAllocDefault),
                   "pinned memory", err) ||
        cuda_check(cudaHostAlloc((void **)&stage->candidates_host,
                                 (size_t)s->max_logits * sizeof *stage->candidates_host,
                                 cudaHostAllocDefault),
                   "pinned memory", err) ||
        cuda_check(cudaHostAlloc((void **)&stage->tiles_host,
                                 rows * (sizeof *stage->tiles_host + sizeof *stage->order_host),
                                 cudaHostAllocDefault),
                   "pinned memory", err))
        return -1;
    stage->order_host = (int32_t *)(stage->tiles_host + rows);
    stage->capacity = s->n_layers * 24 + 16;
    stage->step.ops = calloc((size_t)stage->capacity, sizeof *stage->step.ops);
    stage->phases = calloc((size_t)phases_of(s), sizeof *stage->phases);
    if (!stage->step.ops || !stage->phases)
        return error_memory(err, (size_t)stage->capacity * sizeof *stage->step.ops, "a step");
    for (int i = 0; i < CUDA_GRAPHS; i++) {
        struct step_list *list = &stage->graphs[i].list;
        list->ops = calloc((size_t)stage->capacity, sizeof *list->ops);
        if (!list->ops)
            return error_memory(err, (size_t)stage->capacity * sizeof *list->ops, "a step");
    }
    return 0;
}

/* Angles in double: at position 30000 a float32 angle is off by a milliradian. */
static int upload_rope(struct backend_stage *stage, struct gyaru_error *err)
{
    int half = stage->shape.head_dim / 2;
    size_t n = (size_t)stage->shape.context * (size_t)stage->shape.head_dim;
    float *table = malloc(n * sizeof *table);
    if (!table)
        return error_memory(err, n * sizeof *table, "the table of angles");
    for (int i = 0; i < half; i++) {
        double frequency =
            pow((double)stage->shape.rope_theta, -2.0 * i / (double)stage->shape.head_dim);
        for (int pos = 0; pos < stage->shape.context; pos++) {
            float *row = table + (size_t)pos * (size_t)stage->shape.head_dim;
            row[i] = (float)cos(pos * frequency);
            row[half + i] = (float)sin(pos * frequency);
        }
    }
    cudaStream_t stream = stage->device->stream;
    cudaError_t e =
        cudaMemcpyAsync(stage->rope, table, n * sizeof *table, cudaMemcpyHostToDevice, stream);
    if (!e)
        e = cudaStreamSynchronize(stream);
    free(table);
    return cuda_check(e, "the table of angles", err);
}

/* The workspace begins as zeros: columns of x past the last row are read (never used), and counters
 * must be zero. The caches hold nothing that is read before it is written. */
static int prepare(struct backend_stage *stage, size_t bytes, struct gyaru_error *err)
{
    struct carver carver = {stage->block, 0, ALIGN};
    struct cuda_cache *c = &stage->cache;
    if (c->type == CUDA_KV_INT8) {
        size_t elements = (size_t)stage->shape.n_layers * (size_t)c->slots * (size_t)c->kv_heads *
                          (size_t)c->context * (size_t)c->head_dim;
        c->k_scale = (float *)(void *)((int8_t *)c->k + elements);
        c->v_scale = (float *)(void *)((int8_t *)c->v + elements);
    }
    if (cuda_chunk_expanded(stage->device, &stage->shape) &&
        cuda_gemms_init(&stage->gemms, &stage->device->blas, err))
        return -1;
    carve_stage(&carver, &stage->shape, stage->device, stage);
    if (cuda_check(cudaMemsetAsync(stage->block, 0, bytes, stage->device->stream),
                   "clearing the workspace", err))
        return -1;
    return upload_rope(stage, err);
}

int cuda_stage_new(struct backend_device *device, const struct backend_shape *shape,
                   struct backend_stage **out, struct gyaru_error *err)
{
    if (cuda_check_shape(device, shape, err))
        return -1;
    struct backend_stage *stage = calloc(1, sizeof *stage);
    if (!stage)
        return error_memory(err, sizeof *stage, "the workspace");
    cuda_enter(device);
    (void)cudaStreamSynchronize(device->stream);
    cuda_loader_release(&device->loader);
    stage->device = device;
    stage->shape = *shape;
    stage->cache = (struct cuda_cache){.type = shape->kv == GYARU_KV_I8    ? CUDA_KV_INT8
                                               : shape->kv == GYARU_KV_F16 ? CUDA_KV_HALF
                                                                           : CUDA_KV_FLOAT,
                                       .slots = shape->n_slots,
                                       .kv_heads = shape->n_kv_heads,
                                       .context = shape->context,
                                       .head_dim = shape->head_dim,
                                       .heads = shape->n_heads};
    size_t bytes = workspace_bytes(shape, device);
    if (allocate(stage, bytes, err) || prepare(stage, bytes, err)) {
        cuda_stage_free(stage);
        return -1;
    }
    *out = stage;
    return 0;
}

void cuda_stage_free(struct backend_stage *stage)
{
    if (!stage)
        return;
    cuda_enter(stage->device);
    (void)cudaStreamSynchronize(stage->device->stream);
    cuda_graphs_release(stage);
    for (int i = 0; i < CUDA_GRAPHS; i++)
        free(stage->graphs[i].list.ops);
    free(stage->step.ops);
    free(stage->phases);
    (void)cudaFreeHost(stage->rows_host);
    (void)cudaFreeHost(stage->logits_host);
    (void)cudaFreeHost(stage->meter_host);
    (void)cudaFreeHost(stage->candidates_host);
    (void)cudaFreeHost(stage->tiles_host);
    cuda_gemms_release(&stage->gemms);
    (void)cudaFree(stage->cache.k);
    (void)cudaFree(stage->cache.v);
    (void)cudaFree(stage->block);
    free(stage);
}
