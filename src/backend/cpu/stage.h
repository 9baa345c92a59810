/*
 * stage.h - activations and KV cache of the CPU backend, and a step as a list of operations:
 * recorded by step.c, run by program.c, done by operations.c and attention.c.
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

struct backend_vector {
    size_t n;
    float values[];
};

/* The rows of a step that an operation is asked to do. */
struct cpu_part {
    struct backend_stage *stage;
    int first, n;
    int thread;  /* who does it, or begins it */
    bool shared; /* its loops go to all threads */
};

struct cpu_op;
typedef void cpu_operation(const struct cpu_part *part, const struct cpu_op *op);

struct cpu_op {
    cpu_operation *run;
    int index;                           /* layer, or vector of an edit */
    const struct backend_vector *vector; /* norm or direction */
    const struct backend_matrix *weights[3];
    const struct backend_vector *biases[3]; /* or NULL */
    float *out;                             /* of the caller; the step's first row */
};

struct backend_stage {
    struct backend_device *device;
    struct backend_shape shape;
    int n;                       /* rows of the current step */
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
    struct cpu_op *ops;          /* [max_ops] recorded, not run yet */
    int n_ops, max_ops;
    int *owners; /* [n_slots] scratch of program.c */
    void *block; /* what all of the above but the caches lie in */
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
void cpu_append(const struct cpu_part *part, int layer); /* rotates q and k, caches k and v */

/* Operations. */
cpu_operation cpu_embed, cpu_qkv, cpu_attend, cpu_project, cpu_gate_up, cpu_down, cpu_edit,
    cpu_meter, cpu_tap, cpu_head;

/* Does a loop as the part says: by its own thread, or by all. */
static inline void cpu_loop(const struct cpu_part *part, size_t n, size_t grain, pool_work *work,
                            void *arg)
{
    if (part->shared)
        pool_run(part->stage->device->pool, n, grain, work, arg);
    else if (n)
        work(arg, 0, n, part->thread);
}

/* Runs what was recorded. */
void cpu_run_program(struct backend_stage *stage);

#endif
