/*
 * chunk.h - steps of many rows: kernels that are bound by arithmetic instead of by the reading of
 * weights, and cuBLASLt's part in them.
 *
 * From CUDA_CHUNK_ROWS rows on, 4-bit weights are expanded to fp16 [rows][cols] in a scratch
 * buffer, multiplied by cuBLASLt and forgotten. x goes in as fp16 [n][cols], each row scaled by a
 * power of two; products come out as float [n][pitch] and an epilogue kernel undoes the scale. cols
 * is padded to whole groups of CUDA_GROUP and rows to CUDA_PAD, with zeros.
 */
#ifndef CUDA_CHUNK_H
#define CUDA_CHUNK_H

#include "backend/cuda/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Expanding all matrices of a 14B model costs about as much as three passes of the fused kernel,
 * which takes CUDA_PASS_ROWS rows each. */
#define CUDA_CHUNK_ROWS  64
#define CUDA_PAD         8
#define CUDA_GATE_MOST   32768 /* columns of gate_up that an epilogue holds in registers */
#define CUDA_FLASH_ROWS  8     /* steps of more rows take the tiled attention */
#define CUDA_FLASH_GROUP 64    /* query heads of a kv head, at most */

/* ---- weights ---- */

struct cuda_expand {
    struct cuda_weights w; /* 4-bit */
    size_t padded;         /* rows of out; those past the matrix become zero */
    float scale;           /* power of two */
    void *out;             /* half [padded][groups * 64] */
};
void cuda_expand(const struct cuda_expand *a, cudaStream_t stream);

/* ---- x ---- */

struct cuda_plain {
    const float *x;    /* [n, cols] */
    const float *norm; /* [cols] rmsnorm weight, NULL: x as it is */
    float eps;
    int n, cols, padded; /* padded: columns of out */
    void *out;           /* half [n][padded] */
    float *row_scale;    /* [n]: multiplies products */
};
void cuda_plain(const struct cuda_plain *a, cudaStream_t stream);

/* ---- epilogues: `product` is float [n][pitch], row r to be multiplied by row_scale[r] ---- */

struct cuda_product_rows {
    const float *product;
    int n, pitch;
    const float *row_scale;
};

/* x [n, cols] += product */
void cuda_add_rows(const struct cuda_product_rows *p, int cols, float *x, cudaStream_t stream);

/* gate at column 0, up at `up`: out = silu(gate) * up as fp16 [n][padded], scaled anew by row. */
struct cuda_pair_rows {
    struct cuda_product_rows p;
    int cols, up, padded;
    void *out;
    float *row_scale; /* [n] of out; may be the one that is read */
};
void cuda_pair_rows(const struct cuda_pair_rows *a, cudaStream_t stream);

/* q, k, v at three columns: bias, rope, k and v into the cache, q out [n, heads, head_dim]. */
struct cuda_append_rows {
    struct cuda_product_rows p;
    int at[3];
    const float *bias[3]; /* or NULL */
    struct cuda_cache cache;
    int layer;
    const struct cuda_row *rows;
    const float *rope;
    float *q;
};
void cuda_append_rows(const struct cuda_append_rows *a, cudaStream_t stream);

/* ---- attention ---- */

/* Rows order[first..first+count) of a step, all of one slot: what one block takes. */
struct cuda_tile {
    int32_t first, count, slot;
    int32_t last; /* the largest position among them */
};

struct cuda_flash {
    struct cuda_cache cache; /* of half */
    int layer;
    int wide; /* tiles of 128 instead of 64 pairs of a row and a query head */
    int n_tiles;
    const struct cuda_tile *tiles; /* [n_tiles] */
    const int32_t *order;          /* [n] */
    const struct cuda_row *rows;   /* [n] */
    const float *q;                /* [n, heads, head_dim] */
    float *out;                    /* [n, heads, head_dim], or NULL and */
    void *half_out;                /*   half [n][pitch] */
    int pitch;
};
void cuda_flash(const struct cuda_flash *a, cudaStream_t stream);

/* Rows of a step in one tile. */
static inline int cuda_flash_rows(const struct cuda_cache *c, int wide)
{
    return (wide ? 128 : 64) / (c->heads / c->kv_heads);
}

cudaError_t cuda_flash_init(void);

#ifdef __cplusplus
}
#endif

#endif
