/*
 * group.h - several GPUs that hold one model together (tensor parallel), behind the same table of
 * operations as one.
 *
 * Each member is a whole device, stage and set of matrices of the backend for one GPU, made for a
 * smaller model: some kv heads with their query heads and cache, some columns of the MLP, some ids
 * of the head. A group's operation is noted by each member; at the end of a step each member runs
 * its list up to its next sum - the two additions to the stream of a layer - and there the streams
 * meet (group_step.c). One thread enqueues everything, and each exchange for all members in one
 * NCCL group, so that none can wait for an exchange that nobody has started.
 *
 *     embedding                 all of it on each
 *     norms, directions         the same
 *     q, k, v and biases, cache by kv head
 *     o                         the columns of those heads
 *     gate, up; down            rows; the same columns
 *     head                      by id
 *     meters, taps              the first's alone: all hold the same stream
 *
 * The table's opaque types are the structures below; only group_*() look inside.
 */
#ifndef CUDA_GROUP_H
#define CUDA_GROUP_H

#include "backend/cuda/nccl.h"
#include "backend/cuda/stage.h"
#include "quant/part.h"

struct group_device {
    int n;
    struct backend_device *members[BACKEND_DEVICES];
    struct cuda_nccl nccl;
    struct ncclComm *comms[BACKEND_DEVICES]; /* NULL: not connected, or given up */
    char text[256];                          /* "2 x NVIDIA H200, sm_90, 132 SMs, by NCCL 2.28.9" */
};

struct group_matrix {
    struct group_device *group;
    struct backend_matrix *parts[BACKEND_DEVICES];
    bool shared;                                  /* one in host memory, in parts[0] */
    bool whole;                                   /* each part is all of it */
    struct backend_matrix views[BACKEND_DEVICES]; /* of a whole one that is the head: rows */
};

struct group_vector {
    struct group_device *group;
    struct backend_vector *whole[BACKEND_DEVICES];
    struct backend_vector views[BACKEND_DEVICES]; /* of a bias: what belongs to a member's rows */
};

struct group_stage {
    struct group_device *group;
    struct backend_shape shape; /* of the whole model */
    struct backend_stage *members[BACKEND_DEVICES];
    struct quant_span heads[BACKEND_DEVICES]; /* kv heads */
    struct quant_span ids[BACKEND_DEVICES];
    const char *failed; /* what the caller did wrong in this step, NULL: nothing */

    /* group_sample.c */
    float *logits;                                     /* host [max_logits, vocab] */
    struct backend_candidates *found[BACKEND_DEVICES]; /* [max_logits] of each member's ids */
    struct cuda_row *rows[BACKEND_DEVICES];            /* pinned [max_rows] as a member samples */
    struct backend_candidates *out; /* host memory of the caller; NULL: all logits come back */
};

static inline struct group_device *group_of(const struct backend_device *device)
{
    return (struct group_device *)(void *)device;
}

static inline struct group_stage *group_stage_of(struct backend_stage *stage)
{
    return (struct group_stage *)(void *)stage;
}

static inline struct group_matrix *group_matrix_of(const struct backend_matrix *matrix)
{
    return (struct group_matrix *)(void *)matrix;
}

static inline struct group_vector *group_vector_of(const struct backend_vector *vector)
{
    return (struct group_vector *)(void *)vector;
}

extern const struct backend cuda_group_backend;

/* group.c: one GPU is no group. */
int cuda_open_group(const int *indices, int n, const struct backend **table,
                    struct backend_device **out, struct gyaru_error *err);

/* buffers[m] [n] of each member become the sum of all, in each. Asynchronous. */
int group_sum(struct group_device *group, float *const *buffers, size_t n, struct gyaru_error *err);

/* Nobody waits for an exchange any more; the group is of no further use. */
void group_give_up(struct group_device *group);

/* group_step.c */
int group_check(const struct backend_device *device, const struct backend_shape *shape,
                struct gyaru_error *err);
void group_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                       uint64_t *kv, uint64_t *workspace);
int group_stage_new(struct backend_device *device, const struct backend_shape *shape,
                    struct backend_stage **out, struct gyaru_error *err);
void group_stage_free(struct backend_stage *stage);
void group_op_begin(struct backend_stage *stage, const struct backend_row *rows, int n);
void group_op_embed(struct backend_stage *stage, const struct backend_matrix *table);
void group_op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                  const struct backend_matrix *const weights[3],
                  const struct backend_vector *const biases[3]);
void group_op_attend(struct backend_stage *stage, int layer);
void group_op_project(struct backend_stage *stage, const struct backend_matrix *output);
void group_op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                      const struct backend_matrix *gate, const struct backend_matrix *up);
void group_op_down(struct backend_stage *stage, const struct backend_matrix *down);
void group_op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction);
void group_op_meter(struct backend_stage *stage, const struct backend_vector *direction,
                    float *out);
void group_op_tap(struct backend_stage *stage, float *out);
void group_op_head(struct backend_stage *stage, const struct backend_vector *norm,
                   const struct backend_matrix *weights);
int group_op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err);

/* group_sample.c */
int group_sample_init(struct group_stage *stage, struct gyaru_error *err);
void group_sample_release(struct group_stage *stage);
void group_op_candidates(struct backend_stage *stage, struct backend_candidates *out);
/* Enqueues what brings back a member's logits or candidates. */
void group_results(struct group_stage *stage, int member);
/* After the step: what came back, as one. Logits where there are no candidates. */
void group_gather(struct group_stage *stage);
int group_fetch(struct backend_stage *stage, int row, float **logits, struct gyaru_error *err);
int group_remember(struct backend_stage *stage, int slot, const uint8_t *seen,
                   struct gyaru_error *err);

#endif
