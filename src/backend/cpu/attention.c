/*
 * attention.c - rope, KV append and causal grouped-query attention over the cache.
 */
#include "backend/cpu/stage.h"

#include <math.h>
#include <string.h>

/* Angles in double: at position 30000 a float32 angle is off by a milliradian. */
void cpu_rope(struct backend_stage *stage)
{
    int half = stage->shape.head_dim / 2;
    for (int i = 0; i < half; i++) {
        double frequency =
            pow((double)stage->shape.rope_theta, -2.0 * i / (double)stage->shape.head_dim);
        for (int r = 0; r < stage->n; r++) {
            double angle = stage->rows[r].pos * frequency;
            float *row = stage->rope + (size_t)r * (size_t)stage->shape.head_dim;
            row[i] = (float)cos(angle);
            row[half + i] = (float)sin(angle);
        }
    }
}

static void cache_store(const struct backend_stage *stage, void *cache, size_t at, const float *in)
{
    size_t dim = (size_t)stage->shape.head_dim;
    if (stage->shape.kv == GYARU_KV_F16)
        stage->device->kernels->store_half((uint16_t *)cache + at, in, dim);
    else
        memcpy((float *)cache + at, in, dim * sizeof *in);
}

/* A loop over the rows of a part, or over their heads. */
struct loop {
    const struct cpu_part *part;
    int layer;
};

/* Heads are rotated by pairs (i, i + head_dim/2), as Hugging Face's Qwen2 does. */
static void append_row(struct backend_stage *stage, int layer, int r)
{
    const struct backend_shape *s = &stage->shape;
    const struct backend_row *row = &stage->rows[r];
    const struct cpu_kernels *kernels = stage->device->kernels;
    size_t dim = (size_t)s->head_dim;
    const float *rope = stage->rope + (size_t)r * dim;
    for (int h = 0; h < s->n_heads; h++)
        kernels->rotate(stage->q + ((size_t)r * (size_t)s->n_heads + (size_t)h) * dim, rope,
                        dim / 2);
    for (int h = 0; h < s->n_kv_heads; h++) {
        size_t from = ((size_t)r * (size_t)s->n_kv_heads + (size_t)h) * dim;
        size_t to = cpu_cache_offset(s, layer, row->slot, h) + (size_t)row->pos * dim;
        kernels->rotate(stage->k + from, rope, dim / 2);
        cache_store(stage, stage->k_cache, to, stage->k + from);
        cache_store(stage, stage->v_cache, to, stage->v + from);
    }
}

static void append_rows(void *arg, size_t first, size_t end, int thread)
{
    const struct loop *loop = arg;
    for (size_t r = first; r < end; r++)
        append_row(loop->part->stage, loop->layer, loop->part->first + (int)r);
}

void cpu_append(const struct cpu_part *part, int layer)
{
    const struct backend_shape *s = &part->stage->shape;
    size_t work = 4 * (size_t)(s->n_heads + 2 * s->n_kv_heads) * (size_t)s->head_dim;
    cpu_loop(part, (size_t)part->n, cpu_grain(work), append_rows, &(struct loop){part, layer});
}

/* Units are pairs of a row and a kv head. */
static void attend_units(void *arg, size_t first, size_t end, int thread)
{
    const struct loop *loop = arg;
    struct backend_stage *stage = loop->part->stage;
    const struct backend_shape *s = &stage->shape;
    size_t heads = (size_t)s->n_kv_heads, group = (size_t)s->n_heads / heads;
    size_t element = s->kv == GYARU_KV_F16 ? 2 : 4, dim = (size_t)s->head_dim;
    size_t before = (size_t)loop->part->first * heads;
    for (size_t i = before + first; i < before + end; i++) {
        const struct backend_row *row = &stage->rows[i / heads];
        size_t cache = cpu_cache_offset(s, loop->layer, row->slot, (int)(i % heads)) * element;
        size_t query = i * group * dim;
        stage->device->kernels->attend(&(struct cpu_attention){
            .q = stage->q + query,
            .k = (const uint8_t *)stage->k_cache + cache,
            .v = (const uint8_t *)stage->v_cache + cache,
            .out = stage->attention + query,
            .scores = stage->scratch[thread].scores,
            .n = (size_t)row->pos + 1,
            .n_queries = (int)group,
            .head_dim = s->head_dim,
            .scale = 1.0f / sqrtf((float)s->head_dim),
            .half = s->kv == GYARU_KV_F16,
        });
    }
}

void cpu_attend(const struct cpu_part *part, const struct cpu_op *op)
{
    const struct backend_shape *s = &part->stage->shape;
    size_t units = (size_t)part->n * (size_t)s->n_kv_heads, positions = 0;
    for (int r = part->first; r < part->first + part->n; r++)
        positions += (size_t)part->stage->rows[r].pos + 1;
    size_t work = 2 * positions * (size_t)s->n_heads * (size_t)s->head_dim / (units ? units : 1);
    cpu_loop(part, units, cpu_grain(work), attend_units, &(struct loop){part, op->index});
}
