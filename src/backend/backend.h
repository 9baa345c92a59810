/*
 * backend.h - one table of operations between the layer loop and the machine.
 *
 * A step is n rows pushed through all layers. Each row has its own sequence slot, position and
 * steering strengths, so that prefill, decode and batching are one path. The residual stream
 * x [n, hidden] and all activations live inside the stage; the layer loop only names operations.
 *
 *     begin, embed, { edit*, qkv, attend, project, gate_up, down, edit*, tap/meter }*, head,
 *     [candidates], end
 *
 * Operations between begin and end may be asynchronous; results are valid after end. A row's
 * result does not depend, bit for bit, on what the other rows of the step are; on how many there
 * are it depends where a backend says so (docs/cuda.md), and never on the CPU.
 */
#ifndef BACKEND_BACKEND_H
#define BACKEND_BACKEND_H

#include "base/error.h"
#include "quant/quant.h"

#define BACKEND_CANDIDATES 256
#define BACKEND_CUT        64   /* rows and columns of MLP and head that devices never part */
#define BACKEND_DEVICES    8    /* that share a model, at most */
#define BACKEND_MASS_ERROR 1e-4 /* relative */

struct backend_device; /* an opened processor */
struct backend_matrix; /* weights in the layout that the kernels want */
struct backend_vector; /* float32 values: norm weights, biases, directions */
struct backend_stage;  /* KV cache and activations */

struct backend_memory {
    uint64_t total, available; /* bytes; available: what this process may still take */
    uint64_t used;             /* by this process; of a GPU: by all and the driver */
    char gpu[48];              /* the driver's name of a GPU, "GPU-UUID"; "": none */
    int devices;               /* that share: the figures are of the one that has least left */
};

struct backend_shape {
    int n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab;
    float rope_theta, norm_eps;
    int n_slots;    /* sequences with a KV cache of their own */
    int context;    /* positions per slot */
    int max_rows;   /* rows of a step */
    int max_logits; /* rows of a step that may ask for logits */
    enum gyaru_kv kv;
};

/* Which logits may be chosen, and how they are looked at. */
struct backend_choice {
    float temperature, penalty; /* of gyaru_sampling; penalty 1: off */
    int32_t n_ids;              /* ids 0..n_ids-1 are allowed */
};

struct backend_row {
    int32_t token;
    int32_t slot;
    int32_t pos;                       /* KV of 0..pos-1 must be in the slot already or come */
    float strength[GYARU_MAX_VECTORS]; /*   from earlier rows of this step */
    bool logits;                       /* head wanted for this row */
    struct backend_choice choice;      /* where candidates() is called */
};

/* What sampling needs of a row in place of all its logits; after the repetition penalty. */
struct backend_candidate {
    float logit;
    int32_t id;
};
struct backend_candidates {
    int32_t n;  /* all ids whose logit is not below the least of `best`, in any order;
                   -1: too many of them, or some logit is not finite: fetch() */
    float max;  /* of the allowed ids' logits */
    float mass; /* sum over them of exp((logit - max) / temperature), to BACKEND_MASS_ERROR; 0 at
                   temperature 0 */
    struct backend_candidate best[BACKEND_CANDIDATES];
};

struct backend {
    const char *name;
    enum gyaru_kv default_kv;
    bool int8_kv;     /* GYARU_KV_I8 is there */
    int default_rows; /* of a step: a power of two; fewer where memory is short */

    /* Device. `index` is N of "cuda:N"; threads 0 means all. */
    int (*open)(int index, int threads, struct backend_device **out, struct gyaru_error *err);
    /* NULL: not there. Several devices that hold a part of each model: *table is what runs them in
     * place of this one, all figures of bytes are what one of them takes at most. */
    int (*open_group)(const int *indices, int n, const struct backend **table,
                      struct backend_device **out, struct gyaru_error *err);
    void (*close)(struct backend_device *device);
    const char *(*describe)(const struct backend_device *device); /* "avx512, 2 threads" */
    void (*memory)(const struct backend_device *device, struct backend_memory *out);
    /* NULL: not there. Bytes per second; copy counts both ways. */
    int (*bandwidth)(struct backend_device *device, double *read, double *copy,
                     struct gyaru_error *err);
    /* NULL: any. Before anything is loaded: fails with why a model of this shape cannot run. */
    int (*check)(const struct backend_device *device, const struct backend_shape *shape,
                 struct gyaru_error *err);

    /* Weights: copied once into the backend's layout; the source may be unmapped afterwards.
     * matrix_bytes is what matrix_new will take, for the memory plan. */
    uint64_t (*matrix_bytes)(const struct backend_device *device,
                             const struct quant_source *source);
    int (*matrix_new)(struct backend_device *device, const struct quant_source *source,
                      struct backend_matrix **out, struct gyaru_error *err);
    void (*matrix_free)(struct backend_matrix *matrix);
    /* NULL: weights are in the host's memory anyway. A table of which embed() alone reads rows,
     * kept there and not on the device; freed as a matrix. */
    uint64_t (*table_bytes)(const struct backend_device *device, const struct quant_source *source);
    int (*table_new)(struct backend_device *device, const struct quant_source *source,
                     struct backend_matrix **out, struct gyaru_error *err);
    int (*vector_new)(struct backend_device *device, const float *values, size_t n,
                      struct backend_vector **out, struct gyaru_error *err);
    void (*vector_free)(struct backend_vector *vector);

    /* Everything a step needs is allocated here, nothing later. */
    void (*stage_bytes)(const struct backend_device *device, const struct backend_shape *shape,
                        uint64_t *kv, uint64_t *workspace);
    int (*stage_new)(struct backend_device *device, const struct backend_shape *shape,
                     struct backend_stage **out, struct gyaru_error *err);
    void (*stage_free)(struct backend_stage *stage);

    /* One step. */
    void (*begin)(struct backend_stage *stage, const struct backend_row *rows, int n);
    /* x = table[token] */
    void (*embed)(struct backend_stage *stage, const struct backend_matrix *table);
    /* q,k,v = rmsnorm(x) * W^T + b; rope on q and k; k and v appended to the cache of `layer` */
    void (*qkv)(struct backend_stage *stage, int layer, const struct backend_vector *norm,
                const struct backend_matrix *const weights[3],
                const struct backend_vector *const biases[3]);
    /* causal grouped-query attention of q over the row's slot, positions 0..pos */
    void (*attend)(struct backend_stage *stage, int layer);
    /* x += attention * W^T */
    void (*project)(struct backend_stage *stage, const struct backend_matrix *output);
    /* h = silu(rmsnorm(x) * Wgate^T) * (rmsnorm(x) * Wup^T) */
    void (*gate_up)(struct backend_stage *stage, const struct backend_vector *norm,
                    const struct backend_matrix *gate, const struct backend_matrix *up);
    /* x += h * Wdown^T */
    void (*down)(struct backend_stage *stage, const struct backend_matrix *down);
    /* x[row] += strength[row][index] * direction; rows of strength 0 stay untouched, bit for bit */
    void (*edit)(struct backend_stage *stage, int index, const struct backend_vector *direction);
    /* out[row] = { x . direction, x . x } after end; out is host memory [n][2] */
    void (*meter)(struct backend_stage *stage, const struct backend_vector *direction, float *out);
    /* out [n, hidden] host memory = x, after end */
    void (*tap)(struct backend_stage *stage, float *out);
    /* logits of the rows that want them = rmsnorm(x) * W^T */
    void (*head)(struct backend_stage *stage, const struct backend_vector *norm,
                 const struct backend_matrix *weights);
    /* NULL: not there, all logits come back. After head, in place of all logits: out [rows that
     * want logits], host memory, valid after end, whose logits then are not. */
    void (*candidates)(struct backend_stage *stage, struct backend_candidates *out);
    /* Waits. *logits: host view [rows that wanted them, vocab], valid until the next begin. */
    int (*end)(struct backend_stage *stage, float **logits, struct gyaru_error *err);
    /* With candidates(). After end: all logits [vocab] of the row'th of those rows, without
     * penalty, valid until the next fetch or begin. */
    int (*fetch)(struct backend_stage *stage, int row, float **logits, struct gyaru_error *err);
    /* With candidates(). Between steps: the ids that the penalty of the slot's rows acts on are
     * those that `seen` [vocab] marks; the tokens of its rows that want logits join them. */
    int (*remember)(struct backend_stage *stage, int slot, const uint8_t *seen,
                    struct gyaru_error *err);
};

/* "cpu", or the plug-in of another device; fails with what is missing. */
const struct backend *backend_find(const char *name, struct gyaru_error *err);

/* Opens "cpu", "cuda", "cuda:N" or "cuda:N,M". *table: what runs it. */
int backend_open(const char *name, int threads, const struct backend **table,
                 struct backend_device **out, struct gyaru_error *err);

extern const struct backend backend_cpu;

#endif
