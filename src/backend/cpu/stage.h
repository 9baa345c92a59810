/*
 * stage.h - activations and KV cache of the CPU backend; filled by step.c and attention.c.
 */
#ifndef CPU_STAGE_H
#define CPU_STAGE_H

#include "backend/cpu/cpu.h"

/* Scratch of one thread. */
struct cpu_scratch {
    float *tile[2]; /* [max_rows, TILE] results of one tile, two for gate and up */
    float *group;   /* [widest input, TILE] decoded weights */
    float *scores;  /* [heads per kv head, cpu_scores_stride(context)] */
};

struct backend_stage {
    struct backend_device *device;
    struct backend_shape shape;
    int n;                       /* rows of the current step */
    int n_logits;                /* rows that want logits */
    struct backend_row *rows;    /* [max_rows] */
    float *x;                    /* [max_rows, hidden] residual stream */
    float *norm;                 /* [max_rows, hidden] */
    float *q;                    /* [max_rows, n_heads * head_dim] */
    float *k, *v;                /* [max_rows, n_kv_heads * head_dim] */
    float *attention;            /* [max_rows, n_heads * head_dim] */
    float *h;                    /* [max_rows, intermediate] */
    float *logits;               /* [max_logits, vocab] */
    float *rope;                 /* [max_rows, head_dim]: head_dim/2 cosines, then sines */
    void *k_cache, *v_cache;     /* [layers, slots, kv_heads, context, head_dim] of float or half */
    struct cpu_scratch *scratch; /* [threads] */
    void *block;                 /* what all of the above but the caches lie in */
};

void cpu_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                     uint64_t *kv, uint64_t *workspace);
int cpu_stage_new(struct backend_device *device, const struct backend_shape *shape,
                  struct backend_stage **out, struct gyaru_error *err);
void cpu_stage_free(struct backend_stage *stage);

/* Elements from the start of a cache to (layer, slot, kv head, position 0). */
static inline size_t cpu_cache_offset(const struct backend_shape *s, int layer, int slot, int head)
{
    size_t heads = ((size_t)layer * (size_t)s->n_slots + (size_t)slot) * (size_t)s->n_kv_heads;
    return (heads + (size_t)head) * (size_t)s->context * (size_t)s->head_dim;
}

void cpu_rope(struct backend_stage *stage);              /* fills stage->rope */
void cpu_append(struct backend_stage *stage, int layer); /* rotates q and k, caches k and v */
void cpu_attend(struct backend_stage *stage, int layer);

#endif
