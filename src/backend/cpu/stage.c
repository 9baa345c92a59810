/*
 * stage.c - allocates everything that a step touches, once. See stage.h.
 */
#include "backend/cpu/stage.h"

#include "backend/carve.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGN         64 /* bytes: a cache line and an AVX-512 register */
#define OPS_PER_LAYER 16 /* more of them (many vectors) are run in several programs */

static size_t widest_input(const struct backend_shape *s)
{
    int widest = s->hidden > s->intermediate ? s->hidden : s->intermediate;
    int heads = s->n_heads * s->head_dim;
    return (size_t)(widest > heads ? widest : heads);
}

static void carve_stage(struct carver *c, const struct backend_shape *s, int threads,
                        struct backend_stage *stage)
{
    size_t rows = (size_t)s->max_rows, head_dim = (size_t)s->head_dim;
    size_t queries = (size_t)s->n_heads * head_dim, keys = (size_t)s->n_kv_heads * head_dim;
    stage->rows = carve(c, rows, sizeof *stage->rows);
    stage->x = carve(c, rows * (size_t)s->hidden, sizeof(float));
    stage->norm = carve(c, rows * (size_t)s->hidden, sizeof(float));
    stage->q = carve(c, rows * queries, sizeof(float));
    stage->k = carve(c, rows * keys, sizeof(float));
    stage->v = carve(c, rows * keys, sizeof(float));
    stage->attention = carve(c, rows * queries, sizeof(float));
    stage->h = carve(c, rows * (size_t)s->intermediate, sizeof(float));
    stage->logits = carve(c, (size_t)s->max_logits * (size_t)s->vocab, sizeof(float));
    stage->rope = carve(c, rows * head_dim, sizeof(float));
    stage->max_ops = OPS_PER_LAYER * (s->n_layers + 1);
    stage->ops = carve(c, (size_t)stage->max_ops, sizeof *stage->ops);
    stage->owners = carve(c, (size_t)s->n_slots, sizeof *stage->owners);
    stage->scratch = carve(c, (size_t)threads, sizeof *stage->scratch);
    for (int t = 0; t < threads; t++) {
        struct cpu_scratch scratch;
        scratch.tile[0] = carve(c, rows * TILE, sizeof(float));
        scratch.tile[1] = carve(c, rows * TILE, sizeof(float));
        scratch.group = carve(c, widest_input(s) * TILE, sizeof(float));
        size_t group = (size_t)(s->n_heads / s->n_kv_heads);
        scratch.scores = carve(c, group * cpu_scores_stride((size_t)s->context), sizeof(float));
        if (c->base)
            stage->scratch[t] = scratch;
    }
}

static size_t cache_bytes(const struct backend_shape *s)
{
    return cpu_cache_offset(s, s->n_layers, 0, 0) * (s->kv == GYARU_KV_F16 ? 2 : 4);
}

static size_t workspace_bytes(const struct backend_shape *s, int threads)
{
    struct carver measure = {NULL, 0, ALIGN};
    struct backend_stage unused;
    carve_stage(&measure, s, threads, &unused);
    return measure.used;
}

void cpu_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                     uint64_t *kv, uint64_t *workspace)
{
    *kv = 2 * (uint64_t)cache_bytes(shape);
    *workspace = workspace_bytes(shape, device->threads);
}

/* Zeroed pages that take no memory before they are touched: a long context costs what is used. */
static void *map_pages(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int cpu_stage_new(struct backend_device *device, const struct backend_shape *shape,
                  struct backend_stage **out, struct gyaru_error *err)
{
    if (shape->head_dim % TILE)
        return error_set(err, GYARU_FAILED,
                         "head dimension %d: the CPU backend needs a multiple of %d",
                         shape->head_dim, TILE);
    struct backend_stage *stage = calloc(1, sizeof *stage);
    if (!stage)
        return error_memory(err, sizeof *stage, "the workspace");
    size_t bytes = workspace_bytes(shape, device->threads), cache = cache_bytes(shape);
    void *block = map_pages(bytes);
    stage->k_cache = map_pages(cache);
    stage->v_cache = map_pages(cache);
    stage->device = device;
    stage->shape = *shape;
    stage->block = block;
    if (!block || !stage->k_cache || !stage->v_cache) {
        cpu_stage_free(stage);
        return error_memory(err, bytes + 2 * cache, "the workspace and the KV cache");
    }
    struct carver carver = {block, 0, ALIGN};
    carve_stage(&carver, shape, device->threads, stage);
    *out = stage;
    return 0;
}

void cpu_stage_free(struct backend_stage *stage)
{
    if (!stage)
        return;
    size_t cache = cache_bytes(&stage->shape);
    if (stage->k_cache)
        munmap(stage->k_cache, cache);
    if (stage->v_cache)
        munmap(stage->v_cache, cache);
    if (stage->block)
        munmap(stage->block, workspace_bytes(&stage->shape, stage->device->threads));
    free(stage);
}
