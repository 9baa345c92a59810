/*
 * stage.h - activations, KV cache and the step under way of the CUDA backend.
 *
 * Operations only append to a list; end() runs it. A list seen before, of few rows, is captured as
 * one CUDA graph and replayed from then on: tokens, positions, slots and strengths lie in device
 * memory (`rows`), so that nothing that changes from token to token is part of a graph.
 */
#ifndef CUDA_STAGE_H
#define CUDA_STAGE_H

#include "backend/cuda/chunk.h"
#include "backend/cuda/cuda.h"

#define CUDA_METERS 8  /* meters of one step, at most */
#define CUDA_GRAPHS 16 /* step lists that are remembered */

enum step_kind {
    STEP_EMBED,
    STEP_QKV,
    STEP_ATTEND,
    STEP_PROJECT,
    STEP_GATE_UP,
    STEP_DOWN,
    STEP_EDIT,
    STEP_METER,
    STEP_TAP,
    STEP_HEAD,
    STEP_CHOOSE
};

/* One call of backend.h as its arguments; zeroed first, so that lists compare by memcmp. */
struct step_op {
    enum step_kind kind;
    int index; /* layer, vector or meter */
    const struct backend_vector *norm, *bias[3];
    const struct backend_matrix *matrix[3];
    float *out; /* host */
};

struct step_list {
    struct step_op *ops; /* [capacity] */
    int n_ops, n, n_logits;
};

/* A step list as phases of the kernel that runs it whole. */
struct step_program {
    struct cuda_phase *phases; /* device [max_phases] */
    int n;                     /* 0: the list runs as single kernels */
    int product;               /* the first phase that is one, -1: none */
};

struct step_graph {
    struct step_list list; /* key */
    struct step_program program;
    uint64_t generation;  /* of the device, when it was recorded */
    cudaGraphExec_t exec; /* NULL: seen once, not captured */
    uint64_t used;        /* for the choice of what to forget */
};

struct backend_stage {
    struct backend_device *device;
    struct backend_shape shape;
    int capacity;              /* operations of a step */
    int max_phases;            /* of a program */
    struct cuda_phase *phases; /* host [max_phases]: the program being built */
    struct step_list step;     /* under way */
    struct step_graph graphs[CUDA_GRAPHS];
    uint64_t clock;
    const char *failed; /* what the caller did wrong in this step, NULL: nothing */
    int n_meters;
    float *meter_out[CUDA_METERS];             /* host memory of the caller */
    struct backend_candidates *candidates_out; /* the same; NULL: all logits come back */

    /* Pinned host memory */
    struct cuda_row *rows_host;                 /* [max_rows] */
    float *logits_host;                         /* [max_logits, vocab] */
    float *meter_host;                          /* [CUDA_METERS][max_rows][2] */
    struct backend_candidates *candidates_host; /* [max_logits] */
    struct cuda_tile *tiles_host;               /* [max_rows], order_host behind them */
    int32_t *order_host;                        /* [max_rows] */

    /* Device memory; `block` holds all but the cache */
    void *block;
    struct cuda_cache cache;
    struct cuda_row *rows;  /* [max_rows] */
    float *x;               /* [max_rows, hidden] */
    float *other_x, *parts; /* of whole steps, [few, hidden], [CUDA_PARTS][few, hidden] */
    float *q;               /* [max_rows, n_heads * head_dim] */
    float *k, *v;           /* [max_rows, n_kv_heads * head_dim] */
    float *attention;       /* [max_rows, n_heads * head_dim] */
    float *h;               /* [max_rows, intermediate]; or chunks' products */
    size_t h_floats;
    float *logits;    /* [max_logits, vocab] */
    float *meters;    /* [CUDA_METERS][max_rows][2] */
    float *rope;      /* [context][head_dim] */
    void *packed;     /* x as kernels.h packs it */
    float *row_scale; /* [max_rows] */
    float *partial;   /* [partial_floats] of products */
    size_t partial_floats;
    float *split;  /* of attention */
    int *counters; /* [n_counters], zero between kernels */
    size_t n_counters;
    struct cuda_choose choose; /* buffers only */
    unsigned *barrier;         /* of decode.cu */

    /* Steps of many rows (chunk.c) */
    struct cuda_gemms gemms; /* blas NULL: there is no cuBLASLt, or no step is large enough */
    void *expanded;          /* half: the weights of one product */
    struct cuda_tile *tiles; /* [max_rows]; of the step under way */
    int32_t *order;          /* [max_rows] */
    int n_tiles, wide;       /* n_tiles 0: this step's attention is not tiled */
    int last_pos;            /* the largest position of a tiled step */
    bool member;             /* of a group: what follows a sum waits for the others */
    int prepared, done;      /* operations of the step under way: see chunk.c */
};

void cuda_stage_bytes(const struct backend_device *device, const struct backend_shape *shape,
                      uint64_t *kv, uint64_t *workspace);
int cuda_stage_new(struct backend_device *device, const struct backend_shape *shape,
                   struct backend_stage **out, struct gyaru_error *err);
void cuda_stage_free(struct backend_stage *stage);
int cuda_check_shape(const struct backend_device *device, const struct backend_shape *shape,
                     struct gyaru_error *err);

/* Of an operation of many rows: true if it was enqueued here. */
bool cuda_chunk_op(struct backend_stage *stage, const struct step_list *list, int i);

/* Cuts the step into tiles of attention, if it has enough rows and the cache is of halves. */
void cuda_chunk_begin(struct backend_stage *stage, const struct step_list *list);

/* Floats of `partial` that products of many rows need. */
size_t cuda_chunk_partial(const struct backend_device *device, const struct backend_shape *shape);
/* Elements of `expanded`, and of h, that the largest product through cuBLASLt needs; 0 without it.
 */
size_t cuda_chunk_expanded(const struct backend_device *device, const struct backend_shape *shape);
size_t cuda_chunk_product(const struct backend_device *device, const struct backend_shape *shape);

/* Enqueues the operations of a list as single kernels: what comes before them, each, the results.
 */
void cuda_step_enqueue(struct backend_stage *stage, const struct step_list *list);
void cuda_step_begin(struct backend_stage *stage, const struct step_list *list);
void cuda_step_op(struct backend_stage *stage, const struct step_list *list, int i);
/* Logits, or candidates in their place, and meters to the host. */
void cuda_step_results(struct backend_stage *stage, const struct step_list *list);
/* Fails with what was wrong in the step under way. */
int cuda_step_check(const struct backend_stage *stage, struct gyaru_error *err);
/* Waits, and hands out meters and candidates. */
int cuda_step_finish(struct backend_stage *stage, struct gyaru_error *err);
struct cuda_attention cuda_stage_attention(const struct backend_stage *stage, int layer, int n);

/* Writes a list's phases to out [max_phases]; program->n is 0 if there is no program for it. */
void cuda_program_build(const struct backend_stage *stage, const struct step_list *list,
                        struct cuda_phase *out, struct step_program *program);
/* Enqueues the list as one kernel. */
void cuda_program_enqueue(struct backend_stage *stage, const struct step_list *list,
                          const struct step_program *program);

/* Runs the step under way, from a graph if there is one. */
int cuda_graph_run(struct backend_stage *stage, struct gyaru_error *err);
void cuda_graphs_release(struct backend_stage *stage);

/* The operations of backend.h */
void cuda_op_begin(struct backend_stage *stage, const struct backend_row *rows, int n);
void cuda_op_embed(struct backend_stage *stage, const struct backend_matrix *table);
void cuda_op_qkv(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                 const struct backend_matrix *const weights[3],
                 const struct backend_vector *const biases[3]);
void cuda_op_attend(struct backend_stage *stage, int layer);
void cuda_op_project(struct backend_stage *stage, const struct backend_matrix *output);
void cuda_op_gate_up(struct backend_stage *stage, const struct backend_vector *norm,
                     const struct backend_matrix *gate, const struct backend_matrix *up);
void cuda_op_down(struct backend_stage *stage, const struct backend_matrix *down);
void cuda_op_edit(struct backend_stage *stage, int index, const struct backend_vector *direction);
void cuda_op_meter(struct backend_stage *stage, const struct backend_vector *direction, float *out);
void cuda_op_tap(struct backend_stage *stage, float *out);
void cuda_op_head(struct backend_stage *stage, const struct backend_vector *norm,
                  const struct backend_matrix *weights);
void cuda_op_candidates(struct backend_stage *stage, struct backend_candidates *out);
int cuda_op_end(struct backend_stage *stage, float **logits, struct gyaru_error *err);

/* sample.c: after end, and between steps */
int cuda_fetch(struct backend_stage *stage, int row, float **logits, struct gyaru_error *err);
int cuda_remember(struct backend_stage *stage, int slot, const uint8_t *seen,
                  struct gyaru_error *err);
/* Enqueues what candidates() asks for; hands out what came back. */
void cuda_choose_enqueue(struct backend_stage *stage, const struct step_list *list);
void cuda_choose_finish(struct backend_stage *stage);

#endif
